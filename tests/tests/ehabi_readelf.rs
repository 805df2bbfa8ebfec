//! Exception handling tables against the text that binutils' `readelf -u` prints: of every fixture, and
//! of the C and C++ libraries of a cross compiler, where there is one. Every entry, every instruction.

use std::path::{Path, PathBuf};
use std::process::Command;

use unwind_core::ehabi::{Instruction, Personality, Unwinding};
use unwind_core::{Broken, ByteOrder, UnwindUserType};
use unwind_tests::ehabi::{
    Arm, Elf, Entry, Frame, Listed, Located, Made, Opcode, Routine, folder, locate, parse_readelf, probe,
};

/// Functions of the fixtures whose instructions name registers that do not exist. The specification has
/// them reserved (remark e); readelf prints them all the same.
const RESERVED: [&str; 3] = ["fstmfdx_reserved", "wr_reserved", "vpush_reserved"];

/// What a file's tables came to.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    entries: usize,
    cannot_unwind: usize,
    inline: usize,
    compact: usize,
    generic: usize,
    instructions: usize,
    broken: usize,
}

/// Compares a file with its text.
fn compare(elf: &Elf, text: &str) -> Tally {
    let sections = elf.sections();
    let listed = parse_readelf(text);
    assert_eq!(usize::try_from(sections.len()), Ok(listed.len()));
    let mut tally = Tally::default();
    for (index, (entry, expected)) in sections.entries().zip(&listed).enumerate() {
        let entry = entry.unwrap();
        tally.entries += 1;
        assert_eq!(entry.start, expected.start & !1);
        assert_eq!(sections.find(entry.start), Ok(Some(entry)), "{expected:x?}");
        assert_eq!(sections.find(entry.end - 1), Ok(Some(entry)), "{expected:x?}");
        match sections.unwinding(&entry).unwrap() {
            Unwinding::CannotUnwind => {
                assert_eq!(expected.listed, Listed::CannotUnwind);
                assert_eq!(expected.opcodes, []);
                tally.cannot_unwind += 1;
            }
            Unwinding::Instructions { personality, instructions } => {
                assert_ne!(expected.listed, Listed::CannotUnwind);
                tally.inline += usize::from(matches!(expected.listed, Listed::Inline(_)));
                match personality {
                    Personality::Compact(number) => {
                        assert_eq!(expected.model, Some(number));
                        tally.compact += 1;
                    }
                    Personality::Generic(address) => {
                        assert_eq!(expected.routine.map(|routine| routine & !1), Some(address));
                        tally.generic += 1;
                    }
                }
                let Located::Bytes(routine, bytes) = locate(&sections, index) else { panic!("{entry:x?}") };
                // The names of these are not known to readelf.
                if matches!(routine, Routine::At(_)) && expected.opcodes.is_empty() {
                    continue;
                }
                assert_eq!(
                    bytes,
                    expected.opcodes.iter().flat_map(|op| op.bytes.clone()).collect::<Vec<_>>()
                );
                let is_reserved =
                    RESERVED.iter().any(|name| elf.functions.contains(&((*name).to_owned(), entry.start)));
                tally.broken += instructions_are(
                    instructions.map(|item| item.map_err(|e| e.broken)),
                    expected,
                    is_reserved,
                );
                tally.instructions += expected.opcodes.len();
            }
        }
    }
    tally
}

/// Compares the instructions of an entry; returns how many make no sense: 0 or 1.
fn instructions_are(
    mut found: impl Iterator<Item = Result<Instruction, Broken>>,
    expected: &Entry,
    is_reserved: bool,
) -> usize {
    let mut listed = expected.opcodes.iter();
    for item in &mut found {
        let Some(Opcode { text, .. }) = listed.next() else {
            assert_eq!(item, Ok(Instruction::Finish), "of {expected:x?}");
            break;
        };
        match item {
            Ok(instruction) => assert_eq!(&instruction.to_string(), text, "{expected:x?}"),
            Err(error) => {
                assert_eq!(error, Broken::UnknownInstruction);
                let is_none = ["[Spare]", "[Reserved]", "[unsupported opcode]"].contains(&text.as_str());
                assert!(is_none || is_reserved, "{expected:x?}");
                return 1;
            }
        }
        if matches!(item, Ok(Instruction::Finish | Instruction::Refuse)) {
            break;
        }
    }
    assert_eq!(found.next(), None, "more than {expected:x?}");
    0
}

/// Looks up everywhere, and unwinds made-up frames as the slow decoder does.
fn unwind(elf: &Elf) -> usize {
    let mut unwound = 0;
    for seed in 0..3 {
        for fp in [7, 11] {
            let made = Made { seed, order: elf.order };
            unwound += probe(&Arm { order: elf.order, fp }, &elf.sections(), Frame::whole(made)).unwound;
        }
    }
    unwound
}

fn fixtures() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "elf")).collect();
    files.sort();
    files
}

#[test]
fn fixtures_say_what_readelf_says() {
    let files = fixtures();
    assert_eq!(files.len(), 10);
    let mut big = 0;
    for path in files {
        let elf = Elf::read(&path);
        let text = std::fs::read_to_string(path.with_extension("txt")).unwrap();
        let tally = compare(&elf, &text);
        println!("{}: {tally:?}", path.display());
        big += usize::from(elf.order == ByteOrder::Big);
        assert!(tally.cannot_unwind >= 1 && tally.compact >= 10 && tally.generic >= 2, "{tally:?}");
        let name = path.file_stem().unwrap().to_str().unwrap();
        if name.starts_with("opcodes") {
            assert_eq!((tally.entries, tally.broken), (68, 14));
            assert!(elf.sections().verify().is_err());
        } else {
            // The linker merges neighbours that say the same.
            assert!([16, 17].contains(&tally.entries) && tally.broken == 0, "{tally:?}");
            assert_eq!(elf.sections().verify(), Ok(()));
        }
        assert!(unwind(&elf) > 100);
    }
    assert_eq!(big, 3);
}

/// What the tools of the cross compiler print for a file, where there are any.
fn readelf(path: &Path) -> Option<String> {
    let output = Command::new("arm-linux-gnueabihf-readelf").arg("-u").arg(path).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn system_libraries_say_what_readelf_says() {
    let folder = Path::new("/usr/arm-linux-gnueabihf/lib");
    let mut compared = 0;
    for name in [
        "libc.so.6",
        "libstdc++.so.6",
        "ld-linux-armhf.so.3",
        "libgcc_s.so.1",
        "libgomp.so.1",
        "libasan.so.8",
    ] {
        let path = folder.join(name);
        let Some(text) = path.exists().then(|| readelf(&path)).flatten() else {
            println!("skipped: no {} or no readelf for it", path.display());
            continue;
        };
        let elf = Elf::read(&path);
        let tally = compare(&elf, &text);
        println!("{name}: {tally:?}");
        assert_eq!(elf.sections().verify(), Ok(()), "{name}");
        assert_eq!(tally.broken, 0);
        unwind(&elf);
        compared += 1;
    }
    println!("{compared} libraries compared");
}

/// The whole C++ library with its symbols, so that readelf knows the personality routines.
#[test]
fn static_libraries_say_what_readelf_says() {
    let work = std::env::temp_dir().join(format!("unwind-ehabi-{}", std::process::id()));
    std::fs::create_dir_all(&work).unwrap();
    let source = work.join("empty.cpp");
    std::fs::write(&source, "int main() {}\n").unwrap();
    let program = work.join("empty");
    let built = Command::new("arm-linux-gnueabihf-g++")
        .args(["-static", "-o"])
        .arg(&program)
        .arg(&source)
        .args(["-Wl,--whole-archive", "-lstdc++", "-Wl,--no-whole-archive"])
        .output();
    let text = match built {
        Ok(output) if output.status.success() => readelf(&program),
        _ => None,
    };
    let elf = text.is_some().then(|| Elf::read(&program));
    std::fs::remove_dir_all(&work).unwrap();
    let Some((elf, text)) = elf.zip(text) else {
        println!("skipped: no cross compiler that links the C++ library");
        return;
    };
    let tally = compare(&elf, &text);
    println!("{tally:?}");
    assert!(tally.generic > 1000 && tally.instructions > 6000, "{tally:?}");
    assert_eq!((elf.sections().verify(), tally.broken), (Ok(()), 0));
    unwind(&elf);
}

#[test]
fn tables_of_another_kind_are_not_this_source_s() {
    let elf = Elf::read(&folder().join("frames-thumb-O2.elf"));
    let kinds = unwind_core::FrameSource::<Arm>::types(&elf.source());
    assert_eq!(kinds.iter().collect::<Vec<_>>(), [UnwindUserType::Ehabi]);
}
