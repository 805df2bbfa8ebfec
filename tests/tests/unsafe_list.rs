//! The list of every unsafe block in this workspace, `tests/UNSAFE.md`, is complete, and says for each why it is
//! sound: what the comment above the block says. `UNWIND_UPDATE=1` writes the list anew.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// An unsafe block, function, trait implementation or list of foreign functions.
struct Place {
    /// Its first line, without the brace.
    code: String,
    argument: String,
}

#[test]
fn every_unsafe_block_is_on_the_list() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut files = Vec::new();
    collect(root, &mut files);
    files.sort();
    assert!(files.len() > 200, "{} files", files.len());
    let (mut published, mut others, mut count) = (String::new(), String::new(), 0);
    for file in &files {
        let text = std::fs::read_to_string(file).expect("source is UTF-8");
        let name = file.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
        let found =
            places(&text).unwrap_or_else(|line| panic!("{name}:{line}: unsafe, and no `SAFETY:` above it"));
        count += found.len();
        let is_library =
            ["unwind-core/src/", "unwind-mem/src/", "unwind-arch/"].iter().any(|part| name.starts_with(part))
                && name.contains("/src/");
        let list = if is_library { &mut published } else { &mut others };
        for Place { code, argument } in found {
            let _ = writeln!(list, "| `{name}` | `{code}` | {argument} |");
        }
    }
    let head = "| file | code | why it is sound |\n|---|---|---|\n";
    let list = format!(
        "# Unsafe code\n\n\
         Every unsafe block of this workspace, with the argument that stands above it in the code. `unwind-core` has \
         none, and forbids it. This file is made from the code; \
         `cargo test -p unwind-tests --test unsafe_list` fails where it is not up to date, or where an argument is missing \
         (`UNWIND_UPDATE=1` writes it anew).\n\n\
         ## In the libraries\n\n{head}{published}\n## In tests, benches and examples\n\n{head}{others}"
    );
    let path = root.join("tests/UNSAFE.md");
    if std::env::var_os("UNWIND_UPDATE").is_some() {
        std::fs::write(&path, &list).expect("the list can be written");
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == list,
        "tests/UNSAFE.md is not up to date: {count} places in the code; UNWIND_UPDATE=1 writes it"
    );
}

/// What promises to have none says so to the compiler.
#[test]
fn the_rest_forbids_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut files = Vec::new();
    collect(root, &mut files);
    for file in files.iter().filter(|file| file.ends_with("src/lib.rs")) {
        let name = file.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(file).expect("source is UTF-8");
        let folder = file.parent().expect("src");
        let mut beside = Vec::new();
        collect(folder, &mut beside);
        let has_unsafe = beside.iter().any(|file| {
            let text = std::fs::read_to_string(file).expect("source is UTF-8");
            places(&text).map_or(true, |places| !places.is_empty())
        });
        let is_library = !name.starts_with("tests") && !name.starts_with("fuzz");
        assert!(
            !is_library || has_unsafe || text.contains("forbid(unsafe_code"),
            "{name} has no unsafe code; forbid it"
        );
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The unsafe places of a file, or the number of a line that has no argument.
fn places(text: &str) -> Result<Vec<Place>, usize> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap_or_default().trim();
        let Some(at) = code.find("unsafe ") else { continue };
        // Not a part of another word, of a string or of an attribute; nor a type, or a method that a trait declares so.
        let before = code[..at].chars().next_back();
        let is_word = before.is_none_or(|before| {
            !before.is_alphanumeric() && before != '_' && before != '`' && before != '"'
        });
        let rest = &code[at + "unsafe ".len()..];
        let is_block = rest.starts_with('{');
        let is_declared = rest.starts_with("impl")
            || rest.starts_with("extern") && rest.ends_with('{') && !rest.contains("fn(");
        if !is_word || code.contains('"') && !rest.starts_with("extern") || !(is_block || is_declared) {
            continue;
        }
        if rest.starts_with("extern") && rest.contains(" fn ") {
            continue;
        }
        let argument = argument(&lines[..index])
            .or_else(|| is_foreign(rest).then(|| FOREIGN.to_owned()))
            .ok_or(index + 1)?;
        let code = code.trim_end_matches('{').trim().replace('|', "\\|");
        found.push(Place { code, argument });
    }
    Ok(found)
}

/// Declaring foreign functions is a promise about their types.
const FOREIGN: &str = "the declarations are those of the C library's or the unwinder's headers";

fn is_foreign(rest: &str) -> bool {
    rest.starts_with("extern")
}

/// The comment with `SAFETY:` that is the nearest above, at most 16 lines up.
fn argument(above: &[&str]) -> Option<String> {
    let start = above.iter().rposition(|line| line.trim_start().starts_with("// SAFETY:"))?;
    if above.len() - start > 16 {
        return None;
    }
    let comment = above[start..].iter().map(|line| line.trim()).take_while(|line| line.starts_with("//"));
    let words = comment.map(|line| line.trim_start_matches('/').trim().trim_start_matches("SAFETY:").trim());
    Some(words.collect::<Vec<_>>().join(" ").trim().replace('|', "\\|"))
}
