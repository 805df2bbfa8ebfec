//! The target `dwarf`: any sections, and sections that were right before they were damaged.

use arbitrary::{Arbitrary, Unstructured};
use unwind_core::dwarf::{
    DwarfIndex, DwarfIndexEntry, DwarfRule, DwarfSections, DwarfSource, Flavor, Section,
};
use unwind_core::{
    Arch, Evaluated, FrameSource, LookupError, Module, ModuleMap, Pc, Query, Rule, UnwindUserType, Unwinder,
};

use super::judge::{self, Judgement, Made};
use crate::reference::{agree, walk_by_library};
use crate::synthetic::{
    AnyArch, ChainSpec, ModuleSpec, Registers, Role, TableKind, carry_out, describe, lay_out,
};

/// What the fuzzer's bytes become.
#[derive(Clone, Debug, Arbitrary)]
pub enum DwarfInput {
    /// Sections out of nothing.
    Sections(AnyArch, SectionsInput),
    /// The sections of a stack, bytes of them changed: section, place, value.
    Module(AnyArch, ChainSpec, ModuleSpec, Vec<(u8, u16, u8)>),
}

/// Bytes as sections.
#[derive(Clone, Debug, Arbitrary)]
pub struct SectionsInput {
    /// `.eh_frame` and its address.
    pub eh_frame: Option<(Vec<u8>, u64)>,
    /// `.eh_frame_hdr` and its address.
    pub hdr: Option<(Vec<u8>, u64)>,
    /// `.debug_frame`.
    pub debug_frame: Option<Vec<u8>>,
    /// The bases of pointers.
    pub bases: [Option<u64>; 2],
    /// Where to look.
    pub pcs: Vec<u64>,
    /// The load bias.
    pub bias: u64,
}

/// Runs the target on the fuzzer's bytes.
///
/// # Panics
/// Where the library does something that it must not.
pub fn dwarf(data: &[u8]) {
    let Ok(input) = DwarfInput::arbitrary(&mut Unstructured::new(data)) else { return };
    match input {
        DwarfInput::Sections(arch, input) => {
            let mut sections = DwarfSections::default();
            let at = |svma: u64| arch.word_size().truncate(svma);
            sections.eh_frame = input.eh_frame.as_ref().map(|(data, svma)| Section { data, svma: at(*svma) });
            sections.eh_frame_hdr = input.hdr.as_ref().map(|(data, svma)| Section { data, svma: at(*svma) });
            sections.debug_frame = input.debug_frame.as_ref().map(|data| Section { data, svma: 0 });
            [sections.text_svma, sections.got_svma] = input.bases;
            let mut pcs = input.pcs.clone();
            pcs.truncate(32);
            pcs.extend([0, 1, u64::MAX]);
            pcs.extend(input.eh_frame.iter().flat_map(|(data, _)| words(data)));
            pcs.extend(input.debug_frame.iter().flat_map(|data| words(data)));
            check(arch, sections, input.bias, &pcs);
        }
        DwarfInput::Module(arch, chain, spec, damage) => module(arch, chain, spec, &damage),
    }
}

/// Numbers in the bytes: addresses, if there are any.
fn words(data: &[u8]) -> impl Iterator<Item = u64> {
    data.chunks_exact(4).take(64).map(|chunk| {
        let bytes: [u8; 4] = chunk.try_into().expect("four");
        u32::from_le_bytes(bytes).into()
    })
}

fn module(arch: AnyArch, mut chain: ChainSpec, spec: ModuleSpec, damage: &[(u8, u16, u8)]) {
    chain.frames.truncate(6);
    as_dwarf(&mut chain);
    let mut stack = lay_out(arch, &chain);
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
    for (place, value) in &module.relocated {
        stack.memory.put_word(*place, *value, arch.word_size(), arch.byte_order());
    }
    let pcs: Vec<u64> = stack.frames.iter().map(|frame| frame.pc.lookup_address()).collect();
    check(arch, module.sections(), module.bias, &pcs);

    stack.options.max_frames = stack.options.max_frames.min(100);
    let source = DwarfSource::new(module.sections());
    let modules =
        [Module { start: module.start, end: module.last.saturating_add(1), bias: module.bias, source }];
    let map = ModuleMap::new(&arch, &modules).expect("one module");
    let map = if chain.code_known { map.complete() } else { map };
    let unwinder = Unwinder::with_options(arch, map, stack.options.clone());
    let found = walk_by_library(&unwinder, &stack.registers, || &stack.memory).expect("it starts");
    if damage.is_empty() && !matches!(stack.end, unwind_core::End::Failed(_)) {
        agree(&found, &stack.truth()).expect("undamaged tables lead to the truth");
    }
}

/// Makes all frames what DWARF can say.
pub(super) fn as_dwarf(chain: &mut ChainSpec) {
    for frame in &mut chain.frames {
        frame.kind = TableKind::Dwarf;
        frame.better_is_broken = false;
        frame.shape &= !0x8000;
        if frame.role == Role::BoundedCall {
            frame.role = Role::Call;
        }
    }
}

/// Looks pcs up in every way and compares what they come to.
pub(super) fn check(arch: AnyArch, sections: DwarfSections<'_>, bias: u64, pcs: &[u64]) {
    let _ = DwarfSource::new(sections).verify_hdr(&arch);
    let mut eh_room = Vec::new();
    let mut debug_room = Vec::new();
    let mut indexed = sections;
    indexed.eh_frame_hdr = None;
    indexed.eh_frame_index = index(arch, &sections, Flavor::EhFrame, &mut eh_room);
    indexed.debug_frame_index = index(arch, &sections, Flavor::DebugFrame, &mut debug_room);
    let mut eh_frame = DwarfSections { debug_frame: None, eh_frame_hdr: None, ..sections };
    eh_frame.debug_frame_index = None;
    let debug_frame = DwarfSections { eh_frame: None, eh_frame_hdr: None, ..sections };
    enumerate(arch, eh_frame, Flavor::EhFrame);
    enumerate(arch, debug_frame, Flavor::DebugFrame);
    for pc in pcs {
        let pc = arch.word_size().truncate(*pc);
        for sections in [sections, indexed] {
            let avma = arch.word_size().truncate(pc.wrapping_add(bias));
            let _ = evaluate(arch, sections, bias, avma);
            let _ = evaluate(arch, sections, bias, pc);
        }
        let made = Made { arch, pc };
        if let Some(section) = eh_frame.eh_frame {
            compare(evaluate(arch, eh_frame, 0, pc), judge::eh_frame(made, &eh_frame, section), pc);
        }
        if let Some(section) = debug_frame.debug_frame {
            compare(evaluate(arch, debug_frame, 0, pc), judge::debug_frame(made, section), pc);
        }
    }
}

/// Every row of every function in one pass: they cover the function, and say what a lookup finds at
/// both their ends.
fn enumerate(arch: AnyArch, sections: DwarfSections<'_>, flavor: Flavor) {
    let source =
        DwarfSource::new(DwarfSections { eh_frame_index: None, debug_frame_index: None, ..sections });
    let (functions, unparsed): (Vec<_>, Vec<_>) =
        source.functions(&arch, flavor).take(64).partition(Result::is_ok);
    let functions: Vec<_> = functions.into_iter().flatten().collect();
    // A lookup follows pointers into the target's memory: such an entry may cover any address.
    let is_complete = functions.len() + unparsed.len() < 64
        && unparsed.iter().all(|error| matches!(error, Err(LookupError::Broken(_))));
    // Ranges may wrap around the end of the address space.
    let covers = |address: u64| {
        let behind = |start: u64| arch.word_size().truncate(address.wrapping_sub(start));
        functions.iter().filter(|other| behind(other.start()) < other.length()).count()
    };
    for function in &functions {
        // Ranges that leave the address space are no functions.
        let end = function.start().checked_add(function.length());
        let Some(end) = end.filter(|end| *end <= arch.word_size().max_address()) else { continue };
        let mut next = function.start();
        for row in function.rows() {
            assert_eq!(row.start, next, "rows have no gaps");
            assert_ne!(row.length, 0);
            next = row.start + row.length;
            for address in [row.start, next - 1] {
                // Where functions overlap, a lookup may have found another one.
                if covers(address) != 1 || !is_complete {
                    continue;
                }
                let mut made = Made { arch, pc: address };
                let query = Query::new(Pc::Exact(address));
                let found = source.lookup(&arch, UnwindUserType::Dwarf, &query, &mut made);
                let rule = match row.rule {
                    DwarfRule::Frame(frame) => Some(frame),
                    DwarfRule::Blocks { size, split, first, second } => {
                        let in_block = (address - row.start) % u64::from(size);
                        Some(if in_block < u64::from(split) { first } else { second })
                    }
                    DwarfRule::None(_) => None,
                    rule => panic!("{rule:?} is not known here"),
                };
                match (rule, found) {
                    (Some(rule), Ok(Some(found))) => assert_eq!(Rule::Frame(rule), found.rule, "{row:x?}"),
                    (Some(_), found) => panic!("at {address:#x}: {row:x?}, but {found:x?}"),
                    (None, Ok(None)) => panic!("at {address:#x}: {row:x?}, but nothing covers it"),
                    (None, _) => {}
                }
            }
        }
        assert_eq!(next, end, "rows cover their function");
    }
}

fn index<'i>(
    arch: AnyArch,
    sections: &DwarfSections<'_>,
    flavor: Flavor,
    room: &'i mut Vec<DwarfIndexEntry>,
) -> Option<DwarfIndex<'i>> {
    let needed = DwarfIndex::room(&arch, sections, flavor).ok()?;
    room.resize(needed, DwarfIndexEntry::default());
    Some(DwarfIndex::build(&arch, sections, flavor, room).expect("room was asked for"))
}

/// Looks a pc up, evaluates it in full, and carries its rule out if it has one: that must be the
/// same.
fn evaluate(
    arch: AnyArch,
    sections: DwarfSections<'_>,
    bias: u64,
    pc: u64,
) -> Result<Option<Evaluated>, LookupError> {
    let source = DwarfSource::new(sections);
    let query = Query { bias, ..Query::new(Pc::Exact(pc)) };
    let mut made = Made { arch, pc };
    let registers = made;
    let mut caller = Registers::default();
    let kind = UnwindUserType::Dwarf;
    let found = source.lookup(&arch, kind, &query, &mut made);
    let evaluated = source.evaluate(&arch, kind, &query, &registers, &mut made, &mut caller);
    if let (Ok(Some(found)), Ok(Some(evaluated))) = (&found, &evaluated)
        && let Rule::Frame(frame) = found.rule
        && let Ok(by_rule) = carry_out(&arch, frame, &registers, &mut made)
    {
        let (by_rule, evaluated) = (Judgement::of(&by_rule), Judgement::of(evaluated));
        assert_eq!(by_rule, evaluated, "rule and evaluation at {pc:#x}: {frame:?}");
    }
    assert_eq!(
        matches!(found, Ok(None)),
        matches!(evaluated, Ok(None)),
        "what is covered for one is covered for the other"
    );
    evaluated
}

impl Judgement {
    fn of(evaluated: &Evaluated) -> Self {
        match evaluated.ra {
            None => Judgement { cfa: None, ra: None, fp: None },
            ra => Judgement { cfa: Some(evaluated.cfa), ra, fp: evaluated.fp },
        }
    }
}

fn compare(found: Result<Option<Evaluated>, LookupError>, judgement: Option<Judgement>, pc: u64) {
    if let (Ok(Some(found)), Some(judgement)) = (&found, judgement) {
        assert_eq!(Judgement::of(found), judgement, "library and gimli at {pc:#x}");
    }
}
