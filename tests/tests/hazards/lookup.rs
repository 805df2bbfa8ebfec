//! Looking up the rule.

use unwind_core::dwarf::{DwarfSource, Section};
use unwind_core::{
    Arch, CfaRule, End, Mark, MemoryReader, Module, ModuleMap, ModuleMapError, Options, Pc, Rule, StepError,
    Trust, UnwindUserFrame, UnwindUserType, UnwindUserTypes, Unwinder, WordSize,
};
use unwind_tests::synthetic::cfi::{Header, Program};
use unwind_tests::synthetic::{
    AnyArch, ChainSpec, EndSpec, FrameSpec, Memory, Place, Registers, Rules, Synthetic,
};
use unwind_tests::synthetic::{Role, lay_out};

use super::table::{EH_FRAME, HDR, Table, X86, lookup};

/// A rule that can be told from others by its CFA.
fn frame_of(size: u64) -> impl FnOnce(&mut Program) {
    move |program| {
        program.with(0x0e, &[size]);
    }
}

fn size_of(rule: Result<Option<Rule>, unwind_core::LookupError>) -> Option<i32> {
    match rule {
        Ok(Some(Rule::Frame(frame))) => match frame.cfa() {
            CfaRule::Offset { offset, .. } => Some(offset),
            CfaRule::Deref { .. } => None,
        },
        Ok(None) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn h01_a_call_is_the_last_instruction_of_its_function() {
    let mut table = Table::of(X86, 0x1000, 0x20, frame_of(16));
    table.function(0x1020, 0x20, frame_of(32));
    assert_eq!(size_of(table.lookup(Pc::Return(0x1020))), Some(16));
    assert_eq!(size_of(table.lookup(Pc::Exact(0x1020))), Some(32));
    assert_eq!(size_of(table.lookup(Pc::Return(0x1021))), Some(32));
    assert_eq!(size_of(table.lookup(Pc::Return(0x1040))), Some(32));
    assert_eq!(size_of(table.lookup(Pc::Return(0x1000))), None);
}

#[test]
fn h01_a_call_is_the_last_instruction_of_all_code() {
    let table = Table::of(X86, 0x1000, 0x1000, frame_of(16));
    let modules =
        [Module { start: 0x1000, end: 0x2000, bias: 0, source: DwarfSource::new(table.sections()) }];
    let map = ModuleMap::new(&X86, &modules).expect("one module").complete();
    let unwinder = Unwinder::new(X86, map);
    let registers = Registers::new(0x1004, [(X86.sp(), 0x7000)]);
    let mut memory = Memory::new();
    for (address, value) in [(0x7008, 0x2000), (0x7018, 0)] {
        memory.put_word(address, value, X86.word_size(), X86.byte_order());
    }
    let mut frames = unwinder.frames(&registers, &memory).expect("it starts");
    assert_eq!((&mut frames).count(), 2);
    assert_eq!(frames.end(), Some(End::Complete(Mark::ZeroReturnAddress)));
}

#[test]
fn h02_a_signal_arrives_at_the_first_instruction() {
    let mut table = Table::of(X86, 0x1000, 0x20, frame_of(16));
    table.function(0x1020, 0x20, frame_of(32));
    let plain = table.cie.clone();
    let mut signal = plain.clone();
    signal.augmentation = b"zRS".to_vec();
    table.next_cie(signal);
    table.function(0x2000, 0x10, |program| {
        // sp and ip as the kernel saved them.
        program.with(0x0f, &[3]).bytes.data.extend([0x77, 0x08, 0x06]);
        program.with(0x10, &[16, 2]).bytes.data.extend([0x77, 0x10]);
    });
    let mut memory = Memory::new();
    for (address, value) in [(0x7008, 0x9000), (0x7010, 0x1020), (0x9018, 0x1020), (0x9028, 0)] {
        memory.put_word(address, value, X86.word_size(), X86.byte_order());
    }
    // The trampoline itself is at an exact pc, then the first instruction of the second function,
    // then a call that is the last instruction of the first.
    let (frames, end) = table.walk(&Registers::new(0x2000, [(X86.sp(), 0x7000)]), &memory);
    let places: Vec<(Pc, u64)> = frames.iter().map(|frame| (frame.pc, frame.sp)).collect();
    assert_eq!(
        places,
        [(Pc::Exact(0x2000), 0x7000), (Pc::Exact(0x1020), 0x9000), (Pc::Return(0x1020), 0x9020)]
    );
    assert_eq!(end, End::Complete(Mark::ZeroReturnAddress));
}

#[test]
fn h03_gaps_belong_to_nobody() {
    let mut table = Table::of(X86, 0x1000, 0x20, frame_of(16));
    table.function(0x1040, 0x20, frame_of(32));
    table.function(0x3000, 0x1, frame_of(48));
    for gap in [0, 1, 0xfff, 0x1020, 0x103f, 0x1060, 0x2fff, 0x3001, 0x7fff_ffff, u64::MAX] {
        assert_eq!(size_of(table.lookup(Pc::Exact(gap))), None, "at {gap:#x}");
    }
    let at = |pc| size_of(table.lookup(Pc::Exact(pc)));
    assert_eq!([at(0x101f), at(0x1040), at(0x105f), at(0x3000)], [Some(16), Some(32), Some(32), Some(48)]);
}

#[test]
fn h04_functions_of_no_length_lose() {
    for empty_first in [true, false] {
        let mut table = Table::new(X86);
        for empty in [empty_first, !empty_first] {
            let (length, size) = if empty { (0, 1600) } else { (0x20, 16) };
            table.function(0x1000, length, frame_of(size));
        }
        table.function(0x1010, 0, frame_of(3200));
        assert_eq!(size_of(table.lookup(Pc::Exact(0x1000))), Some(16));
        assert_eq!(size_of(table.lookup(Pc::Exact(0x100f))), Some(16));
    }
}

#[test]
fn h05_first_and_last_entries_of_tables_of_every_size() {
    for count in 0..9u64 {
        let mut table = Table::new(X86);
        for number in 0..count {
            table.function(0x1000 + 0x20 * number, 0x10, frame_of(16 * (number + 1)));
        }
        for number in 0..count {
            let size = i32::try_from(16 * (number + 1)).ok();
            for (offset, expected) in [(0, size), (0xf, size), (0x10, None), (0x1f, None)] {
                let pc = 0x1000 + 0x20 * number + offset;
                assert_eq!(size_of(table.lookup(Pc::Exact(pc))), expected, "{pc:#x} of {count}");
            }
        }
        assert_eq!(size_of(table.lookup(Pc::Exact(0xfff))), None);
        assert_eq!(size_of(table.lookup(Pc::Exact(0x1000 + 0x20 * count))), None);
    }
}

#[test]
fn h06_offsets_wrap_in_32_bits() {
    let arch = AnyArch::Synthetic(Synthetic { word: WordSize::Four, ..synthetic() });
    // Below and above the table's own address, and in the upper half.
    for start in [0x1000, HDR - 0x40, EH_FRAME + 0x1000, 0x8000_0000, 0xffff_ff00] {
        let table = Table::of(arch, start, 0x20, frame_of(16));
        assert_eq!(size_of(table.lookup(Pc::Exact(start + 0x1f))), Some(16), "at {start:#x}");
        assert_eq!(size_of(table.lookup(Pc::Exact(start - 1))), None, "below {start:#x}");
        assert_eq!(size_of(table.lookup(Pc::Exact(start + 0x20))), None, "behind {start:#x}");
    }
}

fn synthetic() -> Synthetic {
    Synthetic {
        word: WordSize::Eight,
        order: unwind_core::ByteOrder::Big,
        link: true,
        biased: false,
        bound: false,
        mode_bit: false,
    }
}

#[test]
fn h07_a_search_table_that_lies_gives_no_wrong_row() {
    let mut table = Table::new(X86);
    let sizes: Vec<(u64, i32)> = (0..40u64)
        .map(|number| {
            let start = 0x1000 + 0x20 * (number * 7 % 40);
            table.function(start, 0x20, frame_of(16 * (number + 1)));
            (start, i32::try_from(16 * (number + 1)).expect("small"))
        })
        .collect();
    let usual = Header::usual(HDR, table.entries.clone());
    let unsorted = Header { entries: table.entries.clone(), ..usual.clone() };
    let mut exchanged = usual.clone();
    for pair in exchanged.entries.chunks_mut(2) {
        let first = pair[0].1;
        pair[0].1 = pair[1].1;
        pair[1].1 = first;
    }
    let mut nowhere = usual.clone();
    for (number, entry) in (0u64..).zip(&mut nowhere.entries) {
        entry.1 = entry
            .1
            .wrapping_add([1, 0x10_0000, 4, u64::MAX / 2][usize::try_from(number % 4).expect("small")]);
    }
    nowhere.table_encoding = 0x00;
    let mut shifted = usual.clone();
    for entry in &mut shifted.entries {
        entry.0 += 8;
    }
    let other_version = Header { version: 2, ..usual.clone() };
    let varying = Header { table_encoding: 0x01, ..usual.clone() };
    let omitted = Header { table_encoding: 0xff, count_encoding: 0xff, ..usual.clone() };
    let wrong = [unsorted, exchanged, nowhere, shifted, other_version, varying, omitted];
    for header in &wrong {
        let bytes = table.header_of(header);
        let mut sections = table.sections();
        sections.eh_frame_hdr = Some(Section { data: &bytes, svma: HDR });
        for (start, size) in &sizes {
            for pc in [*start, start + 0x1f] {
                let found = lookup(&X86, sections, Pc::Exact(pc)).expect("the section itself is sound");
                assert!(
                    found.is_none() || size_of(Ok(found)) == Some(*size),
                    "{pc:#x} by {header:x?}: {found:?}"
                );
            }
        }
        for outside in [0, 0xfff, 0x1000 + 0x20 * 40, u64::MAX] {
            assert_eq!(lookup(&X86, sections, Pc::Exact(outside)), Ok(None), "{header:x?}");
        }
    }
    // Cut anywhere, and with any number of entries stated.
    let bytes = table.header();
    for len in 0..bytes.len() {
        let mut sections = table.sections();
        sections.eh_frame_hdr = Some(Section { data: &bytes[..len], svma: HDR });
        let (start, size) = sizes[len % 40];
        let found = lookup(&X86, sections, Pc::Exact(start)).expect("the section itself is sound");
        assert!(found.is_none() || size_of(Ok(found)) == Some(size), "cut at {len}: {found:?}");
    }
    // The whole of it can be verified.
    for (header, sound) in [(&usual, true), (&wrong[0], false), (&wrong[1], false), (&wrong[3], false)] {
        let bytes = table.header_of(header);
        let mut sections = table.sections();
        sections.eh_frame_hdr = Some(Section { data: &bytes, svma: HDR });
        assert_eq!(DwarfSource::new(sections).verify_hdr(&X86).is_ok(), sound, "{header:x?}");
    }
}

#[test]
fn h08_modules_are_found_by_their_own_ranges() {
    let table = Table::of(X86, 0x1000, 0x20, frame_of(16));
    let source = DwarfSource::new(table.sections());
    let module = |start, end, bias| Module { start, end, bias, source };
    // One file, mapped in two pieces; another copy of it beside, and one below its own addresses.
    let below = 0u64.wrapping_sub(0x800);
    let modules =
        [module(0x800, 0x900, below), module(0x5000, 0x5010, 0x4000), module(0x5010, 0x6000, 0x4000)];
    let map = ModuleMap::new(&X86, &modules).expect("sorted and apart");
    for (pc, index) in
        [(0x800, Some(0)), (0x8ff, Some(0)), (0x900, None), (0x500f, Some(1)), (0x5010, Some(2))]
    {
        assert_eq!(
            map.find(pc).map(|module| module.start),
            index.map(|index: usize| modules[index].start),
            "{pc:#x}"
        );
    }
    let unwinder = Unwinder::new(X86, map);
    let mut memory = Memory::new();
    for (address, value) in [(0x7008, 0x5012), (0x7018, 0x5018), (0x7028, 0x5030)] {
        memory.put_word(address, value, X86.word_size(), X86.byte_order());
    }
    let registers = Registers::new(0x810, [(X86.sp(), 0x7000)]);
    let frames: Vec<u64> =
        unwinder.frames(&registers, &memory).expect("it starts").map(|frame| frame.pc.address()).collect();
    assert_eq!(frames, [0x810, 0x5012, 0x5018, 0x5030]);

    let overlapping = [module(0x1000, 0x3000, 0), module(0x2fff, 0x4000, 0)];
    assert_eq!(ModuleMap::new(&X86, &overlapping).err(), Some(ModuleMapError::Overlap { index: 1 }));
    let empty = [module(0x1000, 0x1000, 0)];
    assert_eq!(ModuleMap::new(&X86, &empty).err(), Some(ModuleMapError::Empty { index: 0 }));
}

#[test]
fn h08_a_module_is_unloaded_in_mid_walk() {
    let mut before = Rules::default();
    before.push(0x1000, 0x1fff, UnwindUserType::Table, UnwindUserFrame::plain(false, 16, -8, None));
    let mut memory = Memory::new();
    memory.put_word(0x7008, 0x1010, X86.word_size(), X86.byte_order());
    memory.put_word(0x7018, 0x1010, X86.word_size(), X86.byte_order());
    let registers = Registers::new(0x1000, [(X86.sp(), 0x7000)]);
    let mut options = Options::default();
    options.types = UnwindUserTypes::only(UnwindUserType::Table);
    let with = Unwinder::with_options(X86, &before, options.clone());
    let without = Unwinder::with_options(X86, Rules::default(), options);
    let mut state = with.start(&registers).expect("it starts");
    with.next(&mut state, &mut &memory).expect("it is loaded");
    match without.next(&mut state, &mut &memory) {
        Err(End::Failed(error)) => assert_eq!(error.cause, StepError::NotCovered),
        other => panic!("{other:?}"),
    }
    // It is back.
    state.retry();
    assert_eq!(with.next(&mut state, &mut &memory).map(|frame| frame.sp), Ok(0x7020));
}

#[test]
fn h09_a_jump_to_nowhere_does_not_lose_the_caller() {
    let mut rules = Rules::default();
    rules.push(0x1000, 0x1fff, UnwindUserType::Table, UnwindUserFrame::plain(false, 16, -8, None));
    rules.code = Some(vec![(0x1000, 0x1fff)]);
    let mut memory = Memory::new();
    memory.put_word(0x7000, 0x1010, X86.word_size(), X86.byte_order());
    memory.put_word(0x7010, 0, X86.word_size(), X86.byte_order());
    for nowhere in [0, 0x10, 0xfff, 0x9_0000] {
        let registers = Registers::new(nowhere, [(X86.sp(), 0x7000)]);
        let unwinder = Unwinder::new(X86, &rules);
        let mut walk = unwinder.frames(&registers, &memory).expect("it starts");
        let frames: Vec<_> = (&mut walk).collect();
        assert_eq!(frames[1].pc, Pc::Return(0x1010), "from {nowhere:#x}");
        assert_eq!(frames[1].provenance.source, Some(UnwindUserType::NullCall));
        assert_eq!(frames[1].provenance.trust, Trust::Convention);
        assert_eq!(walk.end(), Some(End::Complete(Mark::ZeroReturnAddress)));
    }
    // Nothing is read at the pc but what might be a trampoline there.
    let registers = Registers::new(0x9_0000, [(X86.sp(), 0x7000)]);
    let mut types = Options::default();
    types.types = UnwindUserTypes::ALL.without(UnwindUserType::SignalTrampoline);
    let only_stack = unwind_core::from_fn(|address, into: &mut [u8]| {
        assert!((0x7000..0x8000).contains(&address), "a read at {address:#x}");
        (&memory).read(address, into)
    });
    let unwinder = Unwinder::with_options(X86, &rules, types);
    assert_eq!(unwinder.frames(&registers, only_stack).expect("it starts").count(), 2);
    // In the link register, where calls leave it there.
    let arm = AnyArch::Aarch64(unwind_arch::aarch64::Aarch64::new());
    let registers = Registers::new(0, [(arm.sp(), 0x7000), (arm.ra(), 0x1010)]);
    let unwinder = Unwinder::new(arm, &rules);
    let second = unwinder.frames(&registers, &memory).expect("it starts").nth(1).expect("there is a caller");
    assert_eq!((second.pc, second.sp), (Pc::Return(0x1010), 0x7000));
}

#[test]
fn h09_the_signal_of_a_null_call() {
    // What a crash handler sees: a handler, its trampoline, pc 0, and who called it.
    let frames = [Role::Call, Role::Signal, Role::NullCall, Role::Call, Role::Call];
    for evaluated in [false, true] {
        for arch in AnyArch::all() {
            let frames = frames.map(|role| FrameSpec { role, evaluated, ..FrameSpec::PLAIN });
            let stack = lay_out(arch, &chain(&frames, Place::Low));
            let unwinder = Unwinder::with_options(arch, &stack.rules, stack.options.clone());
            let found: Vec<_> =
                unwinder.frames(&stack.registers, &stack.memory).expect("it starts").collect();
            assert_eq!(found, stack.frames);
            let is_null = found.iter().any(|frame| frame.pc == Pc::Exact(0));
            // Where a call leaves the return address in a register, only a signal frame that
            // restores it knows it afterwards.
            assert!(is_null || (arch.has_link_register() && !evaluated), "{arch:?}");
        }
    }
}

fn chain(frames: &[FrameSpec], place: Place) -> ChainSpec {
    ChainSpec {
        stack: place,
        code: place,
        frames: frames.to_vec(),
        end: EndSpec::Undefined,
        code_known: false,
        code_readable: false,
        tagged: false,
        fp_unknown: false,
        noise: 0x1111_1111,
    }
}

#[test]
fn h10_both_ends_of_the_address_space_are_like_the_middle() {
    assert_eq!(Pc::Return(0).lookup_address(), 0);
    let roles = [Role::Call, Role::FramePointer, Role::Call, Role::Signal, Role::Call, Role::FramePointer];
    let frames: Vec<FrameSpec> = roles
        .iter()
        .zip(1u32..)
        .map(|(role, number)| FrameSpec { role: *role, shape: number << 4 | 0x1_0000, ..FrameSpec::PLAIN })
        .collect();
    for arch in AnyArch::all() {
        let walks = [Place::Low, Place::Bottom, Place::High, Place::Top].map(|place| {
            let stack = lay_out(arch, &chain(&frames, place));
            let unwinder = Unwinder::with_options(arch, &stack.rules, stack.options.clone());
            let mut walk = unwinder.frames(&stack.registers, &stack.memory).expect("it starts");
            let found: Vec<_> = (&mut walk).collect();
            let end = walk.end();
            assert_eq!((&found, end), (&stack.frames, Some(stack.end)), "{arch:?} {place:?}");
            let base = found[0].sp;
            let shape = found.iter().map(|frame| (frame.sp.wrapping_sub(base), frame.provenance));
            (shape.collect::<Vec<_>>(), end)
        });
        for walk in &walks[1..] {
            assert_eq!(walk.0.len(), walks[0].0.len());
            assert_eq!((&walk.0[..3], walk.1), (&walks[0].0[..3], walks[0].1), "{arch:?}");
        }
    }
}
