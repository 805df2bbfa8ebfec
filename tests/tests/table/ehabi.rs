//! Tables of ARM's exception handling tables: the fixtures of both orders of bytes, and libraries at hand.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use unwind_arch::AnyArch;
use unwind_core::table::Table;
use unwind_core::{ByteOrder, UnwindUserType};
use unwind_tests::ehabi::{Elf, folder};

use super::compare::compare;

fn compare_file(path: &Path) -> usize {
    let elf = Elf::read(path);
    let order = if elf.order == ByteOrder::Big { 2 } else { 1 };
    let arch = AnyArch::from_elf(40, 1, order).expect("an architecture of ours");
    let sections = elf.sections();
    let mut addresses = BTreeSet::new();
    for entry in sections.entries().flatten() {
        addresses.extend((entry.start.wrapping_sub(2)..entry.start + 6).chain([entry.end - 1, entry.end]));
    }
    let text = sections.text_start..sections.text_end;
    let (bytes, counts) = compare(arch, elf.source(), UnwindUserType::Ehabi, text, addresses);
    let size = sections.exidx.data.len() + sections.extab.map_or(0, |extab| extab.data.len());
    let table = Table::parse(&bytes).expect("a table");
    println!(
        "{}: {} entries, {} slots, {} rules, {} of {size} bytes; lookups: {} by rules, {} left, {} not covered",
        path.display(),
        sections.len(),
        table.slots(),
        table.rules(),
        bytes.len(),
        counts.rules,
        counts.left,
        counts.not_covered
    );
    // Only where an entry begins, and execution did not stop there.
    let entries = usize::try_from(sections.len()).expect("few");
    assert!(counts.lost <= entries * 8, "{} of {} were lost", counts.lost, counts.rules);
    counts.rules
}

#[test]
fn fixtures_say_as_tables_what_they_say() {
    let entries = std::fs::read_dir(folder()).expect("fixtures").flatten().map(|entry| entry.path());
    let files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "elf")).collect();
    assert!(files.len() > 5, "{}", files.len());
    let rules: usize = files.iter().map(|path| compare_file(path)).sum();
    assert!(rules > 1_000, "{rules}");
}

#[test]
fn libraries_say_as_tables_what_they_say() {
    for folder in ["/usr/arm-linux-gnueabihf/lib", "/lib/arm-linux-gnueabihf"].map(Path::new) {
        for name in ["libc.so.6", "libstdc++.so.6", "libgcc_s.so.1"] {
            match std::fs::canonicalize(folder.join(name)) {
                Ok(path) => assert!(compare_file(&path) > 100),
                Err(error) => println!("SKIPPED {name}: {error}"),
            }
        }
    }
}
