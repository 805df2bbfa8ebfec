//! The same random call chains, described by call frame information in every form that the formats
//! have: walked through [`DwarfSource`], they must be the truth.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use unwind_core::dwarf::{DwarfIndex, DwarfIndexEntry, DwarfSections, DwarfSource, Flavor};
use unwind_core::{Arch, Broken, End, Module, ModuleMap, SourceError, StepError, UnwindError, Unwinder};
use unwind_tests::reference::{Walk, walk_by_library};
use unwind_tests::synthetic::{
    ChainSpec, DwarfModule, Memory, ModuleSpec, Role, SectionsSpec, Stack, TableKind, describe, lay_out,
    strategy,
};

/// The specification without what DWARF cannot say.
fn for_dwarf(mut spec: ChainSpec) -> ChainSpec {
    for frame in &mut spec.frames {
        frame.kind = TableKind::Dwarf;
        frame.better_is_broken = false;
        // Always exact.
        frame.shape &= !0x8000;
        if frame.role == Role::BoundedCall {
            frame.role = Role::Call;
        }
    }
    spec
}

/// The truth; what is wrong with a broken table is in the words of this one.
fn truth(stack: &Stack, found: End) -> Walk {
    let mut truth = stack.truth();
    if let End::Failed(UnwindError { cause: StepError::Broken(error), .. }) = &mut truth.end {
        let offset = match found {
            End::Failed(UnwindError { cause: StepError::Broken(found), .. }) => found.offset,
            _ => 0,
        };
        *error = SourceError { broken: Broken::UnknownInstruction, offset };
    }
    truth
}

fn walk(stack: &Stack, module: &DwarfModule, source: DwarfSource<'_>, memory: &Memory) -> Walk {
    let modules =
        [Module { start: module.start, end: module.last.saturating_add(1), bias: module.bias, source }];
    let map = ModuleMap::new(&stack.arch, &modules).expect("one module");
    let map = if stack.rules.code.is_some() { map.complete() } else { map };
    let unwinder = Unwinder::with_options(stack.arch, map, stack.options.clone());
    walk_by_library(&unwinder, &stack.registers, || memory).expect("ip and sp are known")
}

fn index<'i>(
    stack: &Stack,
    sections: &DwarfSections<'_>,
    flavor: Flavor,
    room: &'i mut Vec<DwarfIndexEntry>,
) -> Option<DwarfIndex<'i>> {
    let needed = DwarfIndex::room(&stack.arch, sections, flavor).ok()?;
    room.resize(needed, DwarfIndexEntry::default());
    Some(DwarfIndex::build(&stack.arch, sections, flavor, room).expect("room was asked for"))
}

fn check(stack: &Stack, spec: &ModuleSpec) -> Result<(), TestCaseError> {
    let module = describe(stack, spec);
    let mut memory = stack.memory.clone();
    for (place, value) in &module.relocated {
        memory.put_word(*place, *value, stack.arch.word_size(), stack.arch.byte_order());
    }
    let sections = module.sections();
    let found = walk(stack, &module, DwarfSource::new(sections), &memory);
    prop_assert_eq!(&found, &truth(stack, found.end), "{:x?}", module);
    if !module.relocated.is_empty() {
        return Ok(());
    }
    let (mut eh_room, mut debug_room) = (Vec::new(), Vec::new());
    let mut indexed = sections;
    indexed.eh_frame_hdr = None;
    indexed.eh_frame_index = index(stack, &sections, Flavor::EhFrame, &mut eh_room);
    indexed.debug_frame_index = index(stack, &sections, Flavor::DebugFrame, &mut debug_room);
    let found = walk(stack, &module, DwarfSource::new(indexed), &memory);
    prop_assert_eq!(&found, &truth(stack, found.end), "by an index: {:x?}", module);
    if spec.sections == SectionsSpec::Searched {
        let source = DwarfSource::new(sections);
        prop_assert_eq!(source.verify_hdr(&stack.arch), Ok(()));
        let found = walk(stack, &module, source.without_hdr(), &memory);
        prop_assert_eq!(&found, &truth(stack, found.end), "without its header: {:x?}", module);
    }
    Ok(())
}

proptest! {
    #![proptest_config(strategy::cases(1000))]

    #[test]
    fn dwarf_and_truth_agree(
        arch in strategy::arch(),
        spec in strategy::chain(10),
        module in strategy::module(),
    ) {
        check(&lay_out(arch, &for_dwarf(spec)), &module)?;
    }

    /// Sections with bytes changed: never a panic, and every walk ends, by the search table, a scan or
    /// an index.
    #[test]
    fn damaged_sections_do_no_harm(
        arch in strategy::arch(),
        spec in strategy::chain(6),
        module in strategy::module(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..6),
    ) {
        let stack = lay_out(arch, &for_dwarf(spec));
        let mut module = describe(&stack, &ModuleSpec { indirect: false, ..module });
        for (index, byte, section) in damage {
            let bytes = match section {
                0 => module.hdr.as_mut().map(|(bytes, _)| bytes),
                1 => module.debug_frame.as_mut().map(|section| &mut section.bytes.data),
                _ => module.eh_frame.as_mut().map(|section| &mut section.bytes.data),
            };
            if let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
        }
        let sections = module.sections();
        let limit = 100;
        let mut stack = stack;
        stack.options.max_frames = limit;
        let memory = stack.memory.clone();
        walk(&stack, &module, DwarfSource::new(sections), &memory);
        let scanned = walk(&stack, &module, DwarfSource::new(sections).without_hdr(), &memory);
        prop_assert!(scanned.frames.len() <= usize::try_from(limit).expect("small"));
        let (mut eh_room, mut debug_room) = (Vec::new(), Vec::new());
        let mut indexed = sections;
        indexed.eh_frame_hdr = None;
        indexed.eh_frame_index = index(&stack, &sections, Flavor::EhFrame, &mut eh_room);
        indexed.debug_frame_index = index(&stack, &sections, Flavor::DebugFrame, &mut debug_room);
        walk(&stack, &module, DwarfSource::new(indexed), &memory);
        let _ = DwarfSource::new(sections).verify_hdr(&stack.arch);
    }
}

/// The tests above prove nothing about forms that are never written.
#[test]
fn every_form_is_written() {
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..6000 {
        let (arch, spec, module) = (strategy::arch(), strategy::chain(10), strategy::module())
            .new_tree(&mut runner)
            .expect("the strategies reject nothing")
            .current();
        let module = describe(&lay_out(arch, &for_dwarf(spec)), &module);
        for form in &module.forms {
            let encoding = form.pointer_encoding;
            let mut count = |what: String| *seen.entry(what).or_default() += 1;
            count(format!("{:?} version {} 64-bit {}", form.flavor, form.version, form.is_64));
            let augmentation = String::from_utf8_lossy(&form.augmentation);
            count(format!("augmentation {:?} {augmentation}", form.flavor));
            count(format!("format {:#x}", encoding & 0x0f));
            count(format!("base {:#x}", encoding & 0x70));
            count(format!("indirect {:#x}", encoding & 0x80));
        }
        if let Some((hdr, _)) = &module.hdr {
            *seen.entry(format!("table {:#x}", hdr[3])).or_default() += 1;
        }
    }
    for (what, count) in &seen {
        println!("{count:6} {what}");
    }
    let kinds = |prefix: &str| seen.keys().filter(|what| what.starts_with(prefix)).count();
    assert_eq!(kinds("EhFrame "), 4, "versions 1 and 3");
    assert_eq!(kinds("DebugFrame "), 6, "versions 1, 3 and 4");
    // None, eh, z alone, and z with each of five letters first, or S.
    assert_eq!((kinds("augmentation EhFrame "), kinds("augmentation DebugFrame ")), (9, 8));
    assert_eq!(kinds("format "), 9);
    assert_eq!(kinds("base "), 5, "none, pc, text, data, aligned");
    assert_eq!(kinds("indirect "), 2);
    assert_eq!(kinds("table "), 8);
    assert!(seen.values().all(|count| *count >= 3), "something is hardly ever written");
}
