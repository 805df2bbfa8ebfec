//! The target `compile`: a table that was compiled from any source says what the source says.

use std::collections::BTreeSet;
use std::ops::Range;

use arbitrary::{Arbitrary, Unstructured};
use unwind_core::dwarf::{DwarfIndex, DwarfIndexEntry, DwarfSections, DwarfSource, Flavor};
use unwind_core::sframe::{Abi, SFrameIndex, SFrameIndexEntry, SFrameSection, SFrameSource, Version};
use unwind_core::table::{
    LazyPage, LazyRoom, LazyRow, LazyRule, Table, TableOrigin, TableRule, TableSource, compile_to_vec,
};
use unwind_core::{Arch, FrameSource, MemoryError, Pc, Query, UnwindUserType, from_fn};

use super::dwarf::as_dwarf;
use super::ehabi;
use crate::ehabi::Arm;
use crate::sframe::{Function, RowBytes, Section};
use crate::synthetic::{AnyArch, ChainSpec, ModuleSpec, describe, lay_out};

/// What the fuzzer's bytes become.
#[derive(Clone, Debug, Arbitrary)]
enum CompileInput {
    /// Call frame information of a stack, with bytes changed: section, place, value. By an index of its own,
    /// or by its search table.
    Dwarf(AnyArch, ChainSpec, ModuleSpec, Vec<(u8, u16, u8)>, bool),
    /// Bytes as an SFrame section at an address, with an index or without.
    SFrame(u64, bool, Vec<u8>),
    /// Exception handling tables of functions, as the target `ehabi` makes them, with bytes changed.
    Ehabi(bool, u8, Vec<u8>, Vec<(bool, u16, u8)>),
}

/// No table is made of more code.
const MOST_CODE: u64 = 1 << 16;
/// No more addresses are looked up.
const MOST_ADDRESSES: usize = 400;

/// Runs the target on the fuzzer's bytes.
///
/// # Panics
/// Where the library does something that it must not.
pub fn compile(data: &[u8]) {
    match CompileInput::arbitrary(&mut Unstructured::new(data)) {
        Ok(CompileInput::Dwarf(arch, chain, spec, damage, is_indexed)) => {
            dwarf(arch, chain, spec, &damage, is_indexed);
        }
        Ok(CompileInput::SFrame(svma, is_indexed, bytes)) => {
            sframe(svma, is_indexed, &bytes);
            sframe(SECTION, is_indexed, &crowded(&bytes).bytes(SECTION));
        }
        Ok(CompileInput::Ehabi(is_little, place, bytes, damage)) => {
            let order = if is_little { unwind_core::ByteOrder::Little } else { unwind_core::ByteOrder::Big };
            let mut built = ehabi::built(order, place, &bytes);
            for (is_index, at, value) in damage {
                let table = if is_index { &mut built.exidx } else { &mut built.extab };
                if !table.is_empty() {
                    let at = usize::from(at) % table.len();
                    table[at] = value;
                }
            }
            let sections = built.sections();
            let text = sections.text_start..sections.text_end;
            let addresses = (text.start..text.end).collect();
            compare(Arm { order, fp: 11 }, built.source(), UnwindUserType::Ehabi, text, addresses);
        }
        Err(_) => {}
    }
}

fn dwarf(arch: AnyArch, mut chain: ChainSpec, spec: ModuleSpec, damage: &[(u8, u16, u8)], is_indexed: bool) {
    chain.frames.truncate(6);
    as_dwarf(&mut chain);
    let stack = lay_out(arch, &chain);
    let mut module = describe(&stack, &spec);
    for (section, at, value) in damage {
        let bytes = match section % 3 {
            0 => module.hdr.as_mut().map(|(bytes, _)| bytes),
            1 => module.debug_frame.as_mut().map(|section| &mut section.bytes.data),
            _ => module.eh_frame.as_mut().map(|section| &mut section.bytes.data),
        };
        if let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) {
            let at = usize::from(*at) % bytes.len();
            bytes[at] = *value;
        }
    }
    let mut sections = module.sections();
    let (mut eh_room, mut debug_room) = (Vec::new(), Vec::new());
    if is_indexed {
        let whole = sections;
        sections.eh_frame_hdr = None;
        sections.eh_frame_index = index(&arch, &whole, Flavor::EhFrame, &mut eh_room);
        sections.debug_frame_index = index(&arch, &whole, Flavor::DebugFrame, &mut debug_room);
    }
    let source = DwarfSource::new(sections);
    // A search table that lies is answered by a scan where a lookup notices; the table is made of what it lists.
    if sections.eh_frame_hdr.is_some() && source.verify_hdr(&arch).is_err() {
        return;
    }
    let svma = |avma: u64| arch.word_size().truncate(avma.wrapping_sub(module.bias));
    let mut addresses: BTreeSet<u64> =
        stack.frames.iter().map(|frame| svma(frame.pc.lookup_address())).collect();
    for flavor in [Flavor::EhFrame, Flavor::DebugFrame] {
        for function in source.functions(&arch, flavor) {
            // Where an entry cannot be read, nobody knows what it covers.
            let Ok(function) = function else { return };
            // A range that goes on at the other end of the address space is no function: a lookup may take it for one
            // there, a table does not.
            let end = function.start().checked_add(function.length());
            let Some(end) = end.filter(|end| *end <= arch.word_size().max_address()) else { return };
            addresses.extend([function.start(), end]);
        }
    }
    // Where most of it is.
    let Some(middle) = addresses.iter().nth(addresses.len() / 2).copied() else { return };
    let start = middle.saturating_sub(MOST_CODE / 2);
    let text = start..start.saturating_add(MOST_CODE).min(arch.word_size().max_address());
    addresses =
        addresses.iter().flat_map(|at| (0..6).map(|by| at.saturating_add(by).saturating_sub(3))).collect();
    compare(arch, source, UnwindUserType::Dwarf, text, addresses);
}

fn index<'i>(
    arch: &AnyArch,
    sections: &DwarfSections<'_>,
    flavor: Flavor,
    room: &'i mut Vec<DwarfIndexEntry>,
) -> Option<DwarfIndex<'i>> {
    room.resize(DwarfIndex::room(arch, sections, flavor).ok()?, DwarfIndexEntry::default());
    Some(DwarfIndex::build(arch, sections, flavor, room).expect("room was asked for"))
}

/// Where sections are that are made here.
const SECTION: u64 = 0x8000;

/// Functions so close together that they are in and over each other, of no length, without rows, in blocks: what they
/// are is in the bytes, five for each.
fn crowded(bytes: &[u8]) -> Section {
    let mut start = 0x1000;
    let functions = bytes.chunks_exact(5).take(24).map(|of| {
        start += u64::from(of[0] & 0x1f);
        let rows = (0..of[2] & 3).map(|number| {
            let at = u32::from(of[3] & 7) + u32::from(number) * u32::from(of[3] >> 3 & 7);
            RowBytes::new(at, &[8 * i32::from(1 + (of[3] >> 6) + number)])
        });
        // Most are short, some longer than several others.
        let size = u32::from(of[1] & 0x1f) << (of[4] & 1).wrapping_mul(2);
        let function = Function::new(start, size, rows.collect());
        if of[4] & 0x0e == 0x0e { function.in_blocks(of[4] >> 4) } else { function }
    });
    Section::new(Version::V2, Abi::Amd64, functions.collect())
}

fn sframe(svma: u64, is_indexed: bool, bytes: &[u8]) {
    let Ok(section) = SFrameSection::parse(bytes, svma) else { return };
    let Some(arch) = AnyArch::real().into_iter().find(|arch| Abi::of(arch) == Some(section.abi())) else {
        return;
    };
    let mut source = SFrameSource::new(bytes, svma);
    let mut room = vec![SFrameIndexEntry::default(); section.header().fde_count as usize];
    if is_indexed {
        let Ok(Some(index)) = SFrameIndex::build(&section, &mut room) else { return };
        source = source.with_index(index);
    }
    let mut addresses = BTreeSet::new();
    for fde in section.fdes().take(64).flatten() {
        let rows = section.rows(&fde).take(64).flatten().map(|row| u64::from(row.start));
        for at in rows.chain([0, u64::from(fde.size)]) {
            addresses.extend((0..3).map(|by| fde.start.wrapping_add(at).wrapping_add(by).wrapping_sub(1)));
        }
    }
    let Some(middle) = addresses.iter().nth(addresses.len() / 2).copied() else { return };
    let start = middle.saturating_sub(MOST_CODE / 2);
    compare(arch, source, UnwindUserType::SFrame, start..start.saturating_add(MOST_CODE), addresses);
}

/// At every address, as an exact pc and as one that a call returns to: what the table says the source says, and what it
/// does not say is the source's again. So does the table that is made page by page.
fn compare<A: Arch, O: TableOrigin<A>>(
    arch: A,
    origin: O,
    kind: UnwindUserType,
    text: Range<u64>,
    mut addresses: BTreeSet<u64>,
) {
    let Ok(bytes) = compile_to_vec(arch, origin, text.clone(), |_| {}) else { return };
    let table = Table::parse(&bytes).expect("a table");
    let compiled = TableSource { table, original: origin };
    let mut pages: Vec<LazyPage> = (0..512).map(|_| LazyPage::default()).collect();
    let mut rows: Vec<LazyRow> = (0..4096).map(|_| LazyRow::default()).collect();
    let mut rules: Vec<LazyRule> = (0..512).map(|_| LazyRule::default()).collect();
    let room = LazyRoom::new(&mut pages, &mut rows, &mut rules);
    let lazy = room.table(origin, text.clone());
    addresses.extend([text.start.saturating_sub(1), text.start, text.end.saturating_sub(1), text.end]);
    let step = addresses.len().div_ceil(MOST_ADDRESSES).max(1);
    let memory = &mut from_fn(|address, _: &mut [u8]| Err(MemoryError::Unreadable { address }));
    for address in addresses.into_iter().step_by(step) {
        let rule = table.find(address).expect("a sound table");
        let Some(behind) = address.checked_add(1) else { continue };
        for pc in [Pc::Exact(address), Pc::Return(behind)] {
            let query = Query::new(pc);
            if arch.word_size().truncate(pc.address()) != pc.address() {
                continue;
            }
            let original = origin.lookup(&arch, kind, &query, memory);
            match lazy.lookup(&arch, UnwindUserType::Table, &query, memory) {
                Ok(Some(found)) => assert_eq!(original, Ok(Some(found)), "page by page: {query:x?}"),
                Ok(None) => {}
                Err(error) => panic!("page by page: {query:x?}: {error:?}"),
            }
            match compiled.lookup(&arch, UnwindUserType::Table, &query, memory) {
                Ok(Some(found)) => assert_eq!(original, Ok(Some(found)), "{query:x?}, {rule:?}"),
                Ok(None) => {
                    assert_eq!(
                        compiled.lookup(&arch, kind, &query, memory),
                        original,
                        "{query:x?}, {rule:?}"
                    );
                    let is_said = rule == TableRule::NotCovered;
                    assert!(!is_said || original == Ok(None), "{query:x?}: {original:?} is not in the table");
                }
                Err(error) => panic!("{query:x?}: {error:?}, {rule:?}"),
            }
        }
    }
}
