//! The step.

use unwind_core::{
    Arch, Base, CfaRule, Cut, End, FpRule, Mark, MemoryError, Options, Pc, RaRule, StepError, Trust,
    UnwindUserFrame, UnwindUserType, UnwindUserTypes, Unwinder,
};
use unwind_tests::reference::{Walk, agree, walk, walk_by_library};
use unwind_tests::synthetic::chaos::{ChaosMemory, ChaosSource};
use unwind_tests::synthetic::{AnyArch, FailsOnce, Memory, Registers, Rules, Synthetic};

use super::table::{ARM, X86};

const TABLE: UnwindUserType = UnwindUserType::Table;

fn words(arch: AnyArch, words: &[(u64, u64)]) -> Memory {
    let mut memory = Memory::new();
    for (address, value) in words {
        memory.put_word(*address, *value, arch.word_size(), arch.byte_order());
    }
    memory
}

fn walk_with(arch: AnyArch, rules: &Rules, registers: &Registers, memory: &Memory) -> Walk {
    let mut options = Options::default();
    options.max_frames = 10_000;
    let unwinder = Unwinder::with_options(arch, rules, options.clone());
    let found = walk_by_library(&unwinder, registers, || memory).expect("it starts");
    let reference = walk(&arch, &rules, &options, registers, &mut { memory }).expect("it starts");
    assert_eq!(agree(&found, &reference), Ok(()));
    found
}

fn cause(walk: &Walk) -> Option<StepError> {
    match walk.end {
        End::Failed(error) => Some(error.cause),
        _ => None,
    }
}

/// A signal frame that keeps pc, sp and fp in the words at sp.
fn signal() -> UnwindUserFrame {
    UnwindUserFrame::new(
        CfaRule::Deref { base: Base::Sp, offset: 8, add: 0 },
        RaRule::AtRegister { base: Base::Sp, offset: 0 },
        FpRule::AtRegister { base: Base::Sp, offset: 16 },
    )
    .expect("it fits")
    .signal()
}

#[test]
fn h27_a_leaf_rule_holds_once() {
    // "The return address is in a register, nothing was pushed", for every pc.
    let leaf = UnwindUserFrame::leaf(0, ARM.ra()).expect("x30 fits");
    let mut rules = Rules::default();
    rules.push(0, u64::MAX, TABLE, leaf);
    let registers = Registers::new(0x1000, [(ARM.sp(), 0x7000), (ARM.ra(), 0x2000)]);
    let found = walk_with(ARM, &rules, &registers, &Memory::new());
    let stuck = StepError::StackNotShrinking { caller_sp: 0x7000, sp: 0x7000 };
    assert_eq!((found.frames.len(), cause(&found)), (2, Some(stuck)));
    // From memory: sp may stay once, and not again.
    let at_sp = UnwindUserFrame::new(
        CfaRule::Offset { base: Base::Sp, offset: 0 },
        RaRule::AtCfa(0),
        FpRule::Unchanged,
    );
    let mut rules = Rules::default();
    rules.push(0, u64::MAX, TABLE, at_sp.expect("it fits"));
    let found = walk_with(ARM, &rules, &registers, &words(ARM, &[(0x7000, 0x2000)]));
    assert_eq!((found.frames.len(), cause(&found)), (2, Some(stuck)));
}

#[test]
fn h27_circles_end() {
    // A signal frame that leads to itself, and circles of two, three and many of them.
    let mut rules = Rules::default();
    rules.push(0x1000, 0x1fff, TABLE, signal());
    for length in [1u64, 2, 3, 64, 1000] {
        let place = |number: u64| 0x7000 + 32 * (number % length);
        let mut memory = Memory::new();
        for number in 0..length {
            for (slot, value) in [(0, 0x1000 + (number + 1) % length), (8, place(number + 1)), (16, number)] {
                memory.put_word(place(number) + slot, value, X86.word_size(), X86.byte_order());
            }
        }
        let found = walk_with(X86, &rules, &Registers::new(0x1000, [(X86.sp(), 0x7000)]), &memory);
        assert_eq!(cause(&found), Some(StepError::Loop), "a circle of {length}");
        let frames = u64::try_from(found.frames.len()).expect("usize has at most 64 bits");
        assert!(frames <= 3 * length + 3, "{frames} frames of a circle of {length}");
    }
    // A circle behind a long way in.
    let mut memory = Memory::new();
    for number in 0..100u64 {
        let next = if number < 99 { number + 1 } else { 90 };
        for (slot, value) in [(0, 0x1000 + next), (8, 0x9000 - 32 * next), (16, 0)] {
            memory.put_word(0x9000 - 32 * number + slot, value, X86.word_size(), X86.byte_order());
        }
    }
    let found = walk_with(X86, &rules, &Registers::new(0x1000, [(X86.sp(), 0x9000)]), &memory);
    assert_eq!(cause(&found), Some(StepError::Loop));
    assert!(found.frames.len() <= 300);
}

#[test]
fn h27_the_pc_changes_and_sp_stays() {
    let mut rules = Rules::default();
    rules.push(0, u64::MAX, TABLE, signal());
    // Signal frames that restore the same sp, and a pc that is one further every time: nothing
    // comes twice, so the frame limit has to end it.
    let mut next = 0;
    let mut memory = unwind_core::from_fn(|address: u64, into: &mut [u8]| {
        next += 1;
        let value = if address == 0x7008 { 0x7000 } else { 0x1000 + next };
        into.copy_from_slice(&u64::to_le_bytes(value));
        Ok(())
    });
    let mut options = Options::default();
    options.max_frames = 500;
    options.types = UnwindUserTypes::only(TABLE);
    let unwinder = Unwinder::with_options(X86, &rules, options);
    let registers = Registers::new(0x1000, [(X86.sp(), 0x7000)]);
    let mut frames = unwinder.frames(&registers, &mut memory).expect("it starts");
    assert_eq!((&mut frames).count(), 500);
    assert_eq!(frames.end(), Some(End::Truncated(Cut::FrameLimit)));
}

#[test]
fn h27_no_source_makes_a_walk_endless() {
    for seed in 0..300 {
        for fickle in [false, true] {
            let source = ChaosSource::new(seed, fickle, 1 + seed % 3, seed % 50, UnwindUserTypes::ALL);
            let word = (X86.word_size(), X86.byte_order());
            let memory = ChaosMemory { seed, holes: 0, nonsense: seed % 20, spread: 1 + seed % 100, word };
            let mut options = Options::default();
            options.max_frames = 2000;
            options.guesses = seed % 2 == 0;
            let unwinder = Unwinder::with_options(X86, source, options);
            let registers = Registers::new(seed, [(X86.sp(), 0x1_0000), (X86.fp(), 0x1_0010)]);
            let (depth, _) = unwinder.depth(&registers, memory).expect("it starts");
            assert!(depth <= 2000);
        }
    }
}

#[test]
fn h28_frame_pointers_that_are_none() {
    let rules = Rules::default();
    let registers = |fp| Registers::new(0x40_1000, [(X86.sp(), 0x7000), (X86.fp(), fp)]);
    let record = |at: u64, fp: u64, ra: u64| [(at, fp), (at + 8, ra)];
    let found = |memory: &[(u64, u64)], fp: u64| walk_with(X86, &rules, &registers(fp), &words(X86, memory));
    // To itself.
    let own = found(&record(0x7010, 0x7010, 0x40_2000), 0x7010);
    let below = StepError::FramePointerBelowStack { fp: 0x7010, sp: 0x7020 };
    assert_eq!((own.frames.len(), cause(&own)), (2, Some(below)));
    // Misaligned.
    let odd = found(&record(0x7011, 0x7100, 0x40_2000), 0x7011);
    assert_eq!((odd.frames.len(), cause(&odd)), (1, Some(StepError::Misaligned { cfa: 0x7021 })));
    // Below sp.
    let fake = found(&record(0x6000, 0x7100, 0x40_2000), 0x6000);
    let below = StepError::FramePointerBelowStack { fp: 0x6000, sp: 0x7000 };
    assert_eq!((fake.frames.len(), cause(&fake)), (1, Some(below)));
    // Zero where the chain ends.
    let ends = found(&record(0x7010, 0, 0x40_2000), 0x7010);
    assert_eq!((ends.frames.len(), ends.end), (2, End::Complete(Mark::ZeroFramePointer)));
    // Zero where execution stopped: the register may hold anything there, so this is no end.
    let start = found(&[], 0);
    let below = StepError::FramePointerBelowStack { fp: 0, sp: 0x7000 };
    assert_eq!((start.frames.len(), cause(&start)), (1, Some(below)));
    // Just below a guard page: the frame pointer's word is there, the return address's is not.
    let guarded = found(&[(0x7ff8, 0x8100)], 0x7ff8);
    let missing = End::Truncated(Cut::Memory(MemoryError::Unreadable { address: 0x8000 }));
    assert_eq!((guarded.frames.len(), guarded.end), (1, missing));
    // Zero in mid-chain, where a table knows better: the walk goes on.
    let mut rules = Rules::default();
    rules.push(0x40_2000, 0x40_2fff, TABLE, UnwindUserFrame::plain(false, 16, -8, None));
    let memory = words(X86, &[&record(0x7010, 0, 0x40_2100)[..], &[(0x7028, 0x40_1500)]].concat());
    let on = walk_with(X86, &rules, &registers(0x7010), &memory);
    assert_eq!((on.frames.len(), on.end), (3, End::Complete(Mark::ZeroFramePointer)));
}

#[test]
fn h29_reads_across_a_page_end() {
    let mut rules = Rules::default();
    rules.push(0, u64::MAX, TABLE, UnwindUserFrame::plain(false, 16, -8, Some(-16)));
    for arch in [X86, ARM] {
        // The word of the return address is cut in the middle.
        let mut memory = words(arch, &[(0x7ff8, 0x40_2000)]);
        memory.remove(0x7ffc, 4);
        let registers = Registers::new(0x40_1000, [(arch.sp(), 0x7ff0), (arch.fp(), 0)]);
        let found = walk_with(arch, &rules, &registers, &memory);
        assert_eq!(found.end, End::Truncated(Cut::Memory(MemoryError::Unreadable { address: 0x7ffc })));
    }
    // The last words of the address space, and those behind them.
    let top = u64::MAX - 0xf;
    let memory = words(X86, &[(top, 5), (top + 8, 0x40_2000)]);
    let registers = |sp| Registers::new(0x40_1000, [(X86.sp(), sp), (X86.fp(), 0)]);
    let found = walk_with(X86, &rules, &registers(top - 8), &words(X86, &[(top - 8, 5), (top, 0x40_2000)]));
    assert_eq!(found.frames.len(), 2);
    assert_eq!(cause(&walk_with(X86, &rules, &registers(top), &memory)), Some(StepError::AddressOverflow));
}

#[test]
fn h30_tables_and_frame_pointers_alternate() {
    // A frame known by a table, one by its frame pointer, and so on; the table's frames leave the
    // frame pointer where it was, or save it, or use it.
    let mut tried = 0;
    for arch in AnyArch::all() {
        let mut memory = Memory::new();
        let word = arch.word();
        let half = i32::from(arch.word_size().bytes());
        let Some(fp_rule) = arch.frame_pointer_rule() else { continue };
        tried += 1;
        let (CfaRule::Offset { offset: record, .. }, RaRule::AtCfa(ra), FpRule::AtCfa(fp)) =
            (fp_rule.cfa(), fp_rule.ra(), fp_rule.fp())
        else {
            panic!("{fp_rule:?}")
        };
        let bias = -arch.sp_bias();
        let by_sp = UnwindUserFrame::plain(false, 4 * half + bias, -half - bias, None);
        let mut rules = Rules::default();
        rules.push(0x1000, 0x1fff, TABLE, by_sp);
        // sp: 0x7000 in the table's, then 4 words up in the other, whose record is 2 words further up.
        let mut put = |at: u64, value| memory.put_word(at, value, arch.word_size(), arch.byte_order());
        put(0x7000 + 3 * word, 0x3000);
        let own_fp = 0x7000 + 6 * word;
        let cfa = own_fp.wrapping_add_signed(record.into());
        put(cfa.wrapping_add_signed(ra.into()), 0x3100);
        put(cfa.wrapping_add_signed(fp.into()), own_fp + 8 * word);
        let second = cfa + 8 * word;
        put(second.wrapping_add_signed(ra.into()), 0);
        put(second.wrapping_add_signed(fp.into()), 0);
        let registers = Registers::new(0x1000, [(arch.sp(), 0x7000), (arch.fp(), own_fp)]);
        let found = walk_with(arch, &rules, &registers, &memory);
        let sources: Vec<_> = found.frames.iter().map(|frame| frame.provenance.source).collect();
        let by_fp = Some(UnwindUserType::FramePointer);
        assert_eq!(sources, [None, Some(TABLE), by_fp], "{arch:?}");
        assert_eq!(found.end, End::Complete(Mark::ZeroFrameRecord));
    }
    // x86-64, i386, AArch64 and Arm in both orders (Arm with both frame pointers), RISC-V of both sizes,
    // LoongArch, and 16 made-up ones.
    assert_eq!(tried, 27);
}

#[test]
fn h30_a_link_register_is_not_known_after_a_frame_pointer_step() {
    let in_link = RaRule::InRegister { base: Base::Register(ARM.ra()), offset: 0 };
    let leaf =
        UnwindUserFrame::new(CfaRule::Offset { base: Base::Fp, offset: 16 }, in_link, FpRule::Unchanged);
    let mut rules = Rules::default();
    rules.push(0x2000, 0x2fff, TABLE, leaf.expect("x30 fits"));
    let memory = words(ARM, &[(0x7010, 0x7100), (0x7018, 0x2100)]);
    let registers = Registers::new(0x1000, [(ARM.sp(), 0x7000), (ARM.fp(), 0x7010), (ARM.ra(), 0x9999)]);
    let found = walk_with(ARM, &rules, &registers, &memory);
    // Not the stale x30 of the topmost frame.
    assert_eq!((found.frames.len(), cause(&found)), (2, Some(StepError::UnknownRegister(ARM.ra()))));
}

#[test]
fn h31_the_first_instructions_of_a_function() {
    // The frame pointer is still the caller's: a walk by it alone would skip the caller.
    let sp = 0x7000;
    for arch in AnyArch::all().into_iter().filter(|arch| arch.sp_bias() == 0) {
        let word = arch.word();
        let mut memory = Memory::new();
        let [before, at] = arch.entry_code();
        memory.put(0x1000 - u64::try_from(before.len()).unwrap(), &before);
        memory.put(0x1000, &at);
        let caller_sp = if arch.has_link_register() { sp } else { sp + word };
        let mut put = |at: u64, value| memory.put_word(at, value, arch.word_size(), arch.byte_order());
        put(sp, 0x2000);
        let record = sp + 8 * word;
        let fp_rule = arch.frame_pointer_rule();
        if let Some(rule) = fp_rule
            && let (CfaRule::Offset { offset, .. }, RaRule::AtCfa(ra), FpRule::AtCfa(fp)) =
                (rule.cfa(), rule.ra(), rule.fp())
        {
            put(record.wrapping_add_signed((offset + fp).into()), 0);
            put(record.wrapping_add_signed((offset + ra).into()), 0x3000);
        }
        let registers = Registers::new(0x1000, [(arch.sp(), sp), (arch.fp(), record), (arch.ra(), 0x2000)]);
        let found = walk_with(arch, &Rules::default(), &registers, &memory);
        let caller = found.frames[1];
        assert_eq!((caller.pc, caller.sp), (Pc::Return(0x2000), caller_sp), "{arch:?}");
        assert_eq!(caller.provenance.source, Some(UnwindUserType::Instruction));
        if fp_rule.is_none() {
            // There is no more to know: not covered, or no back chain.
            assert_eq!(found.frames.len(), 2, "{arch:?}");
            continue;
        }
        assert_eq!(found.frames[2].pc, Pc::Return(0x3000));
        // Where the code cannot be read the frame pointer is all there is, and the frame says so.
        memory.remove(0x1000, 16);
        let found = walk_with(arch, &Rules::default(), &registers, &memory);
        let provenance = found.frames[1].provenance;
        assert_eq!(provenance.source, Some(UnwindUserType::FramePointer));
        assert_eq!(provenance.trust, Trust::Convention);
    }
}

#[test]
fn h32_nothing_is_subtracted_below_zero() {
    for sp in 0..24u64 {
        for offset in [-24, -16, -8, -1, 0, 8] {
            for ra in [-16, -8, 0] {
                let rule = UnwindUserFrame::plain(false, offset, ra, Some(-16));
                let mut rules = Rules::default();
                rules.push(0, u64::MAX, TABLE, rule);
                let registers = Registers::new(0x1000, [(X86.sp(), sp), (X86.fp(), 0)]);
                let mut memory = Memory::new();
                memory.put(0, &[0x11; 64]);
                let found = walk_with(X86, &rules, &registers, &memory);
                assert!(found.frames.len() < 20);
            }
        }
    }
}

#[test]
fn h33_a_read_that_failed_is_not_remembered() {
    let mut rules = Rules::default();
    rules.push(0, u64::MAX, TABLE, UnwindUserFrame::plain(true, 16, -8, Some(-16)));
    let memory = words(X86, &[(0x7010, 0x7030), (0x7018, 0x2000), (0x7030, 0x7050), (0x7038, 0x3000)]);
    let registers = Registers::new(0x1000, [(X86.sp(), 0x7000), (X86.fp(), 0x7010)]);
    let unwinder = Unwinder::new(X86, &rules);
    let frames: Vec<_> = unwinder.frames(&registers, &memory).expect("it starts").collect();
    for error in [MemoryError::Unreadable { address: 0x7018 }, MemoryError::Transport { code: 4 }] {
        for countdown in 0..4 {
            let mut flaky = FailsOnce::new(&memory, countdown, error);
            let mut state = unwinder.start(&registers).expect("it starts");
            let mut found = vec![state.frame()];
            while found.len() < frames.len() {
                match unwinder.next(&mut state, &mut flaky) {
                    Ok(frame) => found.push(frame),
                    Err(end) => {
                        assert_eq!(end, End::Truncated(Cut::Memory(error)));
                        assert_eq!(Some(&state.frame()), found.last());
                        state.retry();
                    }
                }
            }
            assert_eq!(found, frames);
        }
    }
}

#[test]
fn h34_return_addresses_that_carry_more_than_an_address() {
    let mode_bit = Synthetic {
        word: unwind_core::WordSize::Four,
        order: unwind_core::ByteOrder::Little,
        link: true,
        biased: false,
        bound: false,
        mode_bit: true,
    };
    let cases = [
        (ARM, 0x005a_0000_4000_1000, 0x4000_1000),
        (ARM, 0xab00_0000_4000_1000, 0x4000_1000),
        (ARM, 0xff80_8000_1234_5678, 0xffff_8000_1234_5678),
        (AnyArch::Synthetic(mode_bit), 0x4000_1001, 0x4000_1000),
    ];
    for (arch, stored, address) in cases {
        let half = i32::from(arch.word_size().bytes());
        let mut rules = Rules::default();
        // The rule covers the stripped address alone.
        rules.push(0x1000, 0x1fff, TABLE, UnwindUserFrame::plain(false, 2 * half, -half, None));
        rules.push(address - 1, address - 1, TABLE, UnwindUserFrame::plain(false, 2 * half, -half, None));
        rules.code = Some(vec![(0x1000, 0x1fff), (address - 1, address - 1)]);
        let word = arch.word();
        let memory = words(arch, &[(0x7000 + word, stored), (0x7000 + 3 * word, 0x8000)]);
        let registers = Registers::new(0x1000, [(arch.sp(), 0x7000), (arch.fp(), 0)]);
        let found = walk_with(arch, &rules, &registers, &memory);
        assert_eq!(found.frames[1].pc, Pc::Return(address));
        // Outside of every module: certainly not code.
        assert_eq!((found.frames.len(), cause(&found)), (2, Some(StepError::NotCode { address: 0x8000 })));
        // A zero with a code is a zero.
        if let Some(code) = stored.checked_sub(address) {
            let memory = words(arch, &[(0x7000 + word, code)]);
            let found = walk_with(arch, &rules, &registers, &memory);
            assert_eq!(found.end, End::Complete(Mark::ZeroReturnAddress), "{stored:#x}");
        }
    }
}

#[test]
fn h35_a_return_address_that_is_its_own() {
    // RISC-V's task entry: nothing pushed, ra is the pc, and again in every frame further up.
    for offset in [0, 16] {
        let leaf = UnwindUserFrame::leaf(offset, ARM.ra()).expect("x30 fits");
        let mut rules = Rules::default();
        rules.push(0, u64::MAX, TABLE, leaf);
        let registers = Registers::new(0x1000, [(ARM.sp(), 0x7000), (ARM.ra(), 0x1000)]);
        let found = walk_with(ARM, &rules, &registers, &Memory::new());
        assert!(found.frames.len() <= 2, "{found:?}");
        assert!(matches!(found.end, End::Failed(_)));
    }
}
