//! Tables of `.eh_frame` and `.debug_frame`.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSegment};
use unwind_arch::AnyArch;
use unwind_core::dwarf::{DwarfIndex, DwarfIndexEntry, DwarfSections, DwarfSource, Flavor};
use unwind_core::table::Table;
use unwind_core::{Arch, UnwindUserType};
use unwind_tests::libraries;
use unwind_tests::sframe::FrameSections;

use super::compare::compare;

#[test]
fn tables_say_what_dwarf_says() {
    let mut functions = 0;
    for path in libraries::named_or(system_libraries) {
        match std::fs::read(&path) {
            Ok(data) => functions += compare_file(&path, &data),
            Err(error) => println!("SKIPPED {}: {error}", path.display()),
        }
    }
    assert!(functions > 1_000, "no library was found");
}

/// The C libraries of every architecture that this system has, and what the goals are about.
fn system_libraries() -> BTreeSet<PathBuf> {
    let names = ["libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "libcrypto.so.3"];
    let mut folders: Vec<PathBuf> = ["/lib64", "/lib", "/usr"].map(PathBuf::from).to_vec();
    for parent in ["/lib", "/usr"] {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        let targets = entries.filter(|entry| entry.file_name().to_string_lossy().contains("-linux-"));
        folders.extend(targets.flat_map(|target| [target.path(), target.path().join("lib")]));
    }
    let mut found = BTreeSet::new();
    for folder in folders {
        found.extend(names.iter().filter_map(|name| std::fs::canonicalize(folder.join(name)).ok()));
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let loaders = entries.filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("ld-linux") || name.starts_with("ld64.") || name == "ld.so.1"
        });
        found.extend(loaders.filter_map(|entry| std::fs::canonicalize(entry.path()).ok()));
    }
    found
}

/// The architecture of a file; `None` where it is not one of ours.
pub(crate) fn arch_of(data: &[u8]) -> Option<AnyArch> {
    let [class, order] = *data.get(4..6)?.first_chunk()?;
    let machine = *data.get(18..20)?.first_chunk()?;
    let machine = if order == 2 { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
    AnyArch::from_elf(machine, class, order)
}

/// Its executable segments.
pub(crate) fn text_of(file: &object::File<'_>) -> Range<u64> {
    let executable = |flags| matches!(flags, object::SegmentFlags::Elf { p_flags, .. } if p_flags.0 & 1 != 0);
    let segments = file.segments().filter(|segment| executable(segment.flags()));
    segments.fold(Range { start: u64::MAX, end: 0 }, |text, segment| {
        text.start.min(segment.address())..text.end.max(segment.address() + segment.size())
    })
}

fn compare_file(path: &Path, data: &[u8]) -> usize {
    let Ok(file) = object::File::parse(data) else { return 0 };
    let Some(arch) = arch_of(data) else { return 0 };
    let sections = FrameSections::of(&file);
    let text = text_of(&file);
    let mut functions = 0;
    for flavor in [Flavor::EhFrame, Flavor::DebugFrame] {
        let borrowed = sections.borrow(flavor);
        if let Some(hdr) = borrowed.eh_frame_hdr.filter(|hdr| !hdr.data.is_empty()) {
            let size = borrowed.eh_frame.map_or(0, |section| section.data.len()) + hdr.data.len();
            functions += compare_sections(path, "with header", arch, borrowed, flavor, text.clone(), size);
        }
        let section = match flavor {
            Flavor::EhFrame => borrowed.eh_frame,
            Flavor::DebugFrame => borrowed.debug_frame,
        };
        let Some(section) = section.filter(|section| !section.data.is_empty()) else { continue };
        let without_hdr = DwarfSections { eh_frame_hdr: None, ..borrowed };
        let needed = DwarfIndex::room(&arch, &without_hdr, flavor).expect("a section");
        let mut entries = vec![DwarfIndexEntry::default(); needed];
        let index = DwarfIndex::build(&arch, &without_hdr, flavor, &mut entries).expect("room was asked for");
        let indexed = match flavor {
            Flavor::EhFrame => DwarfSections { eh_frame_index: Some(index), ..without_hdr },
            Flavor::DebugFrame => DwarfSections { debug_frame_index: Some(index), ..without_hdr },
        };
        let size = section.data.len();
        functions += compare_sections(path, "with an index", arch, indexed, flavor, text.clone(), size);
    }
    functions
}

fn compare_sections(
    path: &Path,
    how: &str,
    arch: AnyArch,
    sections: DwarfSections<'_>,
    flavor: Flavor,
    text: Range<u64>,
    size: usize,
) -> usize {
    let source = DwarfSource::new(sections);
    let mut addresses = BTreeSet::new();
    let mut functions = 0;
    for function in source.functions(&arch, flavor).filter_map(Result::ok) {
        functions += 1;
        for row in function.rows() {
            let end = row.start.wrapping_add(row.length);
            addresses.extend([row.start, end.wrapping_sub(1), end]);
        }
        addresses.insert(function.start().wrapping_sub(1));
    }
    let (bytes, counts) = compare(arch, source, UnwindUserType::Dwarf, text, addresses);
    let table = Table::parse(&bytes).expect("a table");
    println!(
        "{} ({}) {flavor:?} {how}: {} slots, {} rules, {} of {size} bytes ({:.1} %); lookups: {} by rules, {} \
         left, {} not covered",
        path.display(),
        arch.name(),
        table.slots(),
        table.rules(),
        bytes.len(),
        bytes.len() as f64 * 100.0 / size as f64,
        counts.rules,
        counts.left,
        counts.not_covered,
    );
    // Procedure linkage tables, at return pcs and where expressions depend on the place.
    assert!(counts.lost * 200 <= counts.rules.max(10_000), "{} lookups were lost", counts.lost);
    functions
}
