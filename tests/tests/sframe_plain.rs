//! The short way through a section against the long one.
//!
//! A source that is given an index of its section reads every entry and row in full; without one it takes the
//! short way first. What both find must be the same at both sides of every row and function, errors included; and
//! where a walk is handed a plain rule, it is that of the lookup.

use std::path::Path;

use object::{Object, ObjectSection};
use unwind_arch_aarch64::Aarch64;
use unwind_arch_s390x::S390x;
use unwind_arch_x86_64::X86_64;
use unwind_core::dwarf::Flavor;
use unwind_core::sframe::{
    Abi, SFrameIndex, SFrameIndexEntry, SFrameSection, SFrameSections, SFrameSource, Version, convert_to_vec,
};
use unwind_core::{
    Arch, Found, FrameSource, LookupError, MemoryError, Pc, Plain, Query, UnwindUserType, UnwindUserTypes,
    from_fn,
};
use unwind_tests::sframe::{Elf, FrameSections, files};

/// How many rules at return pcs are handed out at hand, of how many that are plain.
#[derive(Debug, Default)]
struct AtHand {
    of: u64,
    handed: u64,
}

impl AtHand {
    /// All but plain rows of functions with flexible ones.
    fn assert_nearly_all(&self, name: &str) {
        assert!(self.of - self.handed <= 1 + self.of / 200, "{name}: {self:?}");
    }
}

#[test]
fn samples_are_read_alike() {
    let mut plain = 0;
    for (name, path) in files() {
        let elf = Elf::read(&path);
        for data in [elf.sframe.clone(), elf.relocated()] {
            let sections: Vec<_> = SFrameSections::new(&data, elf.svma).flatten().collect();
            for section in &sections {
                plain += compare(&name, section, false).handed;
                plain += compare(&name, &section.with_starts_from_fields(), true).handed;
            }
        }
    }
    assert!(plain > 1_000, "{plain}");
}

#[test]
fn libraries_are_read_alike_and_at_once() {
    let mut functions = 0;
    let mut paths: Vec<_> = ["libc.so.6", "libm.so.6", "libstdc++.so.6"]
        .iter()
        .flat_map(|name| {
            ["/lib/x86_64-linux-gnu", "/lib64", "/usr/aarch64-linux-gnu/lib"]
                .map(|dir| Path::new(dir).join(name))
        })
        .filter(|path| path.exists())
        .collect();
    paths.push(std::env::current_exe().unwrap());
    for path in paths {
        let data = std::fs::read(&path).unwrap();
        let file = object::File::parse(&*data).unwrap();
        functions += match file.architecture() {
            object::Architecture::X86_64 => compare_library(&X86_64, &path, &file),
            object::Architecture::Aarch64 => compare_library(&Aarch64::new(), &path, &file),
            _ => continue,
        };
    }
    assert!(functions > 1_000, "no library was found");
}

/// The number of functions.
fn compare_library<A: Arch>(arch: &A, path: &Path, file: &object::File<'_>) -> u32 {
    let owned = FrameSections::of(file);
    let Some(eh_frame) = file.section_by_name(".eh_frame") else { return 0 };
    let source = unwind_core::dwarf::DwarfSource::new(owned.borrow(Flavor::EhFrame));
    let svma = eh_frame.address() & !7;
    let mut functions = 0;
    for version in [Version::V1, Version::V2, Version::V3] {
        let data = convert_to_vec(arch, &source, Flavor::EhFrame, version, svma, &mut |_| {}).unwrap();
        let section = SFrameSection::parse(&data, svma).unwrap();
        section.validate().unwrap();
        let name = format!("{} {version:?}", path.display());
        compare(&name, &section, false).assert_nearly_all(&name);
        functions += section.header().fde_count;
    }
    functions
}

/// At both sides of every row, function and block.
fn compare(name: &str, section: &SFrameSection<'_>, from_fields: bool) -> AtHand {
    let mut room = vec![SFrameIndexEntry::default(); section.header().fde_count as usize];
    let index = SFrameIndex::build(section, &mut room).unwrap().unwrap();
    let mut source = SFrameSource::new(section.data(), section.svma());
    if from_fields {
        source = source.with_starts_from_fields();
    }
    let reference = source.with_index(index);
    let mut at_hand = AtHand::default();
    let mut begin = 0;
    for fde in section.fdes().flatten() {
        let rows = section.rows(&fde).flatten().map(|row| fde.start.wrapping_add(row.start.into()));
        let blocks = fde.block_size.map(|block| fde.start.wrapping_add(block.into()));
        let ends = [fde.start, fde.start.wrapping_add(fde.size.into())];
        for edge in rows.chain(blocks).chain(ends) {
            for svma in [edge.wrapping_sub(1), edge, edge.wrapping_add(1)] {
                // Functions that claim to be sorted and are not, may be found by another order.
                let is_sorted = begin <= fde.start || !section.header().is_sorted();
                compare_at(name, section.abi(), &source, &reference, svma, is_sorted, &mut at_hand);
            }
        }
        begin = fde.start;
    }
    at_hand
}

fn compare_at(
    name: &str,
    abi: Abi,
    source: &SFrameSource<'_>,
    reference: &SFrameSource<'_>,
    svma: u64,
    is_sorted: bool,
    at_hand: &mut AtHand,
) {
    for pc in [Pc::Exact(svma), Pc::Return(svma.wrapping_add(1))] {
        let (found, plain) = ask(abi, source, pc);
        let (truth, _) = ask(abi, reference, pc);
        if is_sorted {
            assert_eq!(found, truth, "{name} {pc:?}");
        }
        let expected = found.ok().flatten().and_then(|found| Plain::new(UnwindUserType::SFrame, &found));
        if let Some(plain) = plain {
            assert_eq!(Some(plain), expected, "{name} {pc:?}");
        }
        if matches!(pc, Pc::Return(_)) && expected.is_some() {
            at_hand.of += 1;
            at_hand.handed += u64::from(plain.is_some());
        }
    }
}

type Answer = (Result<Option<Found>, LookupError>, Option<Plain>);

fn ask(abi: Abi, source: &SFrameSource<'_>, pc: Pc) -> Answer {
    match abi {
        Abi::Amd64 => ask_on(&X86_64, source, pc),
        Abi::Aarch64Little => ask_on(&Aarch64::new(), source, pc),
        Abi::Aarch64Big => ask_on(&Aarch64::big_endian(), source, pc),
        Abi::S390x => ask_on(&S390x, source, pc),
        abi => panic!("no architecture for {abi:?}"),
    }
}

fn ask_on<A: Arch>(arch: &A, source: &SFrameSource<'_>, pc: Pc) -> Answer {
    let mut memory = from_fn(|address, _: &mut [u8]| Err(MemoryError::Unreadable { address }));
    let query = Query::new(pc);
    let found = source.lookup(arch, UnwindUserType::SFrame, &query, &mut memory);
    (found, source.peek(arch, UnwindUserTypes::ALL, &query))
}
