//! The short way of `DwarfSource`, through `.eh_frame_hdr`, beside the long one, through an index: every row
//! of the libraries at hand, at its first and its last address, as an exact pc and as a return pc. Both must
//! find the same; and the short way, which is what `peek` takes, must lead somewhere nearly everywhere.

use std::path::Path;

use object::{Object, ObjectSection};
use unwind_arch::AnyArch;
use unwind_core::dwarf::{
    DwarfIndex, DwarfIndexEntry, DwarfRule, DwarfSections, DwarfSource, Flavor, Section,
};
use unwind_core::{
    FrameSource, MemoryError, Pc, Plain, Query, Rule, Trust, UnwindUserType, UnwindUserTypes, from_fn,
};
use unwind_tests::libraries::of_all_architectures;

/// Where the host's own libraries are.
const HOSTS: [&str; 4] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];

/// How many rows there were, and at how many `peek` had an answer.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    rows: u64,
    peeked: u64,
}

#[test]
fn both_ways_lead_to_the_same_rules() {
    let mut of_host = Count::default();
    let mut libraries = 0;
    let own = std::env::current_exe().unwrap();
    for path in of_all_architectures().into_iter().chain([own.clone()]) {
        let Ok(data) = std::fs::read(&path) else {
            println!("SKIPPED {}: not on this machine", path.display());
            continue;
        };
        let Some(count) = compare_file(&path, &data) else {
            println!("SKIPPED {}: no .eh_frame_hdr", path.display());
            continue;
        };
        println!("{}: {count:?}", path.display());
        libraries += 1;
        if path == own || HOSTS.iter().any(|folder| path.starts_with(folder)) {
            of_host.rows += count.rows;
            of_host.peeked += count.peeked;
        }
    }
    assert!(libraries > 0 && of_host.rows > 1_000, "{of_host:?}");
    assert!(of_host.peeked * 100 >= of_host.rows * 99, "the short way leads nowhere: {of_host:?}");
}

fn compare_file(path: &Path, data: &[u8]) -> Option<Count> {
    let file = object::File::parse(data).unwrap();
    let half = [data[18], data[19]];
    let machine = if data[5] == 1 { u16::from_le_bytes(half) } else { u16::from_be_bytes(half) };
    let object::FileFlags::Elf { e_flags, .. } = file.flags() else { panic!("{}: no ELF", path.display()) };
    let arch = AnyArch::from_elf_flags(machine, data[4], data[5], e_flags.0).unwrap();
    let section = |name: &str| {
        let section = file.section_by_name(name)?;
        Some((section.uncompressed_data().unwrap(), section.address()))
    };
    let (eh_frame, hdr) = (section(".eh_frame")?, section(".eh_frame_hdr")?);
    let address = |name| file.section_by_name(name).map(|section| section.address());
    let sections = DwarfSections {
        eh_frame: Some(Section { data: &eh_frame.0, svma: eh_frame.1 }),
        eh_frame_hdr: Some(Section { data: &hdr.0, svma: hdr.1 }),
        text_svma: address(".text"),
        got_svma: address(".got"),
        ..DwarfSections::default()
    };
    Some(compare(path, &arch, sections))
}

fn compare(path: &Path, arch: &AnyArch, sections: DwarfSections<'_>) -> Count {
    let source = DwarfSource::new(sections);
    let mut room =
        vec![DwarfIndexEntry::default(); DwarfIndex::room(arch, &sections, Flavor::EhFrame).unwrap()];
    let index = DwarfIndex::build(arch, &sections, Flavor::EhFrame, &mut room).unwrap();
    let indexed =
        DwarfSource::new(DwarfSections { eh_frame_hdr: None, eh_frame_index: Some(index), ..sections });
    let dwarf = UnwindUserType::Dwarf;
    let mut memory = from_fn(|address, _: &mut [u8]| Err(MemoryError::Unreadable { address }));
    let mut count = Count::default();
    for function in source.functions(arch, Flavor::EhFrame) {
        let function = function.unwrap();
        // What the linker has left out.
        if function.start() == 0 {
            continue;
        }
        for row in function.rows() {
            let mut is_peeked = true;
            for svma in [row.start, row.start + (row.length - 1)] {
                for pc in [Pc::Exact(svma), Pc::Return(svma + 1)] {
                    let at = || format!("{}: {pc:x?}", path.display());
                    let query = Query::new(pc);
                    let found = source.lookup(arch, dwarf, &query, &mut memory);
                    assert_eq!(found, indexed.lookup(arch, dwarf, &query, &mut memory), "{}", at());
                    let peeked = source.peek(arch, UnwindUserTypes::ALL, &query);
                    is_peeked &= peeked.is_some() || !pc.is_exact();
                    if let Some(peeked) = peeked {
                        let found = found.unwrap().unwrap();
                        assert_eq!(Plain::new(dwarf, &found), Some(peeked), "{}", at());
                    }
                    if let (DwarfRule::Frame(frame), true) = (row.rule, pc.is_exact()) {
                        let found = found.unwrap().unwrap();
                        assert_eq!((found.rule, found.trust), (Rule::Frame(frame), Trust::Exact), "{}", at());
                    }
                }
            }
            count.rows += 1;
            count.peeked += u64::from(is_peeked);
        }
    }
    count
}
