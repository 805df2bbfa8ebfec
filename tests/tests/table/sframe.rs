//! Tables of SFrame sections: the samples of every version, ABI and order of bytes; what system libraries'
//! call frame information is as SFrame; sections described by hand.

use std::collections::BTreeSet;
use std::ops::Range;

use unwind_arch::AnyArch;
use unwind_core::UnwindUserType;
use unwind_core::dwarf::{DwarfSource, Flavor};
use unwind_core::sframe::{
    Abi, SFrameIndex, SFrameIndexEntry, SFrameSection, SFrameSource, Version, convert_to_vec,
};
use unwind_core::table::{TableCompileError, TableOrigin, compile_to_vec};
use unwind_tests::sframe::{Elf, FrameSections, Function, RowBytes, Section, files, pcs_of_interest};

use super::compare::{Counts, compare};
use super::dwarf::{arch_of, text_of};

fn arch(abi: Abi) -> AnyArch {
    let (machine, order) = match abi {
        Abi::Amd64 => (62, 1),
        Abi::Aarch64Little => (183, 1),
        Abi::Aarch64Big => (183, 2),
        Abi::S390x => (22, 2),
        abi => panic!("no architecture for {abi:?}"),
    };
    AnyArch::from_elf(machine, 2, order).expect("an architecture of ours")
}

/// The addresses of all functions, and those next to where something begins.
fn of_interest(section: &SFrameSection<'_>) -> (Range<u64>, BTreeSet<u64>) {
    let text = section.fdes().flatten().fold(Range { start: u64::MAX, end: 0 }, |text, fde| {
        text.start.min(fde.start)..text.end.max(fde.start + u64::from(fde.size))
    });
    let mut addresses = pcs_of_interest(section);
    for fde in section.fdes().flatten() {
        addresses.extend(fde.start..fde.start + u64::from(fde.size.min(300)));
    }
    (text.start.min(text.end)..text.end, addresses)
}

/// Compares a source as it is, or with an index where it has no order. `fields`: its starts count from the
/// fields that state them.
fn compare_all(data: &[u8], svma: u64, fields: bool) -> Counts {
    let source = SFrameSource::new(data, svma);
    let source = if fields { source.with_starts_from_fields() } else { source };
    let section = source.sections().next().expect("a section").expect("a sound section");
    let arch = arch(section.abi());
    let (text, addresses) = of_interest(&section);
    let count = usize::try_from(section.header().fde_count).expect("few");
    let mut entries = vec![SFrameIndexEntry::default(); count];
    let index = SFrameIndex::build(&section, &mut entries).expect("a sound table").expect("room");
    let indexed = source.with_index(index);
    let (table, counts) = compare(arch, indexed, UnwindUserType::SFrame, text.clone(), addresses.clone());
    if source.functions_of(&arch).is_some() {
        let (same, _) = compare(arch, source, UnwindUserType::SFrame, text, addresses);
        assert!(same == table, "by its own order as by an index");
    } else {
        let refused = compile_to_vec(arch, source, text, |_| {});
        assert_eq!(refused, Err(TableCompileError::NoOrder));
    }
    counts
}

#[test]
fn samples_say_as_tables_what_they_say() {
    let mut rules = 0;
    for (name, path) in files() {
        let elf = Elf::read(&path);
        let data = elf.relocated();
        for fields in [false, true] {
            let source = SFrameSource::new(&data, elf.svma);
            if !matches!(source.sections().next(), Some(Ok(section)) if section.header().fde_count > 0) {
                continue;
            }
            let counts = compare_all(&data, elf.svma, fields);
            if !fields {
                rules += counts.rules;
                println!("{name}: {} by rules, {} left, {} lost", counts.rules, counts.left, counts.lost);
            }
        }
    }
    assert!(rules > 10_000, "{rules}");
}

#[test]
fn what_libraries_say_as_sframe_says_it_as_a_table() {
    let path = std::env::current_exe().expect("this program's path");
    let data = std::fs::read(path).expect("this program");
    let (file, arch) = (object::File::parse(&*data).expect("ELF"), arch_of(&data).expect("this machine"));
    let sections = FrameSections::of(&file);
    let dwarf = DwarfSource::new(sections.borrow(Flavor::EhFrame));
    let svma = text_of(&file).start & !7;
    for version in [Version::V1, Version::V2, Version::V3] {
        let sframe = convert_to_vec(&arch, &dwarf, Flavor::EhFrame, version, svma, &mut |_| {});
        let sframe = sframe.expect("room");
        let counts = compare_all(&sframe, svma, false);
        println!("{version:?}: {} by rules, {} lost", counts.rules, counts.lost);
        assert!(counts.rules > 100_000 && counts.lost * 1000 < counts.rules, "{}", counts.rules);
    }
}

#[test]
fn odd_functions_are_said_as_they_are() {
    let row = |start: u32| RowBytes::new(start, &[8 + 8 * i32::try_from(start % 4).expect("small")]);
    let functions = vec![
        Function::new(0x1000, 0x40, vec![row(0), row(1), row(0x20)]),
        // Adjacent; without a row at its beginning; without any.
        Function::new(0x1040, 0x10, vec![row(4)]),
        Function::new(0x1050, 0x10, vec![]),
        // In one another, over one another, with one start, of no length in the midst of another.
        Function::new(0x1100, 0x100, vec![row(0), row(0x80)]),
        Function::new(0x1120, 0x10, vec![row(0)]),
        Function::new(0x11f0, 0x20, vec![row(0)]),
        Function::new(0x1300, 0x20, vec![row(0)]),
        Function::new(0x1300, 0x30, vec![row(0)]),
        Function::new(0x1400, 0x40, vec![row(0), row(8)]),
        Function::new(0x1420, 0, vec![]),
        // Cut short where another begins without a row, or has none at all: that is not the end of the first.
        Function::new(0x1480, 0x20, vec![row(0)]),
        Function::new(0x1490, 8, vec![row(4)]),
        Function::new(0x14c0, 0x20, vec![row(0)]),
        Function::new(0x14d0, 8, vec![]),
        // Blocks, the last of which is cut off; blocks without a row at their beginning; one that is larger.
        Function::new(0x1500, 0x78, vec![row(0), row(6), row(11)]).in_blocks(16),
        Function::new(0x1600, 0x40, vec![row(3)]).in_blocks(16),
        Function::new(0x1700, 0x08, vec![row(0), row(6), row(12)]).in_blocks(16),
        // Rows that are out of order, and one behind the end.
        Function::new(0x1800, 0x40, vec![row(0), row(8), row(4), row(16)]),
        Function::new(0x1840, 0x40, vec![row(0), row(0x40)]),
        Function::new(0x18fe, 0x202, vec![row(0), row(1), row(2), row(0x102)]).with_wide_starts(2),
    ];
    for version in [Version::V2, Version::V3] {
        let section = Section::new(version, Abi::Amd64, functions.clone());
        let counts = compare_all(&section.bytes(0x8000), 0x8000, false);
        assert!(counts.rules > 1_000 && counts.left > 100 && counts.not_covered > 100);
    }
}
