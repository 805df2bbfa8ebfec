//! What surrounds a walk.

use unwind_core::{
    Arch, Base, ByteOrder, CfaRule, Cut, End, FpRule, Mark, MemoryError, MemoryReader, Options, Pc, RaRule,
    StartError, Trust, UnwindUserFrame, UnwindUserType, Unwinder, WordSize,
};
use unwind_tests::reference::walk_by_library;
use unwind_tests::synthetic::{
    Answer, AnyArch, ChainSpec, Changing, EndSpec, FailsOnce, FrameSpec, Place, RaSpec, Registers, Role, Row,
    Rules, Size, Stack, Synthetic, lay_out,
};

use super::table::{ARM, X86};

const TABLE: UnwindUserType = UnwindUserType::Table;

fn chain(roles: &[Role], shape: impl Fn(u32) -> u32) -> ChainSpec {
    let numbered = roles.iter().zip(0u32..);
    ChainSpec {
        stack: Place::Low,
        code: Place::Low,
        frames: numbered
            .map(|(role, number)| FrameSpec { role: *role, shape: shape(number), ..FrameSpec::PLAIN })
            .collect(),
        end: EndSpec::Undefined,
        code_known: false,
        code_readable: true,
        tagged: true,
        fp_unknown: false,
        noise: 0x2222_2222_2222_2222,
    }
}

fn check(stack: &Stack) {
    let unwinder = Unwinder::with_options(stack.arch, &stack.rules, stack.options.clone());
    let found = walk_by_library(&unwinder, &stack.registers, || &stack.memory).expect("it starts");
    assert_eq!(found, stack.truth(), "{:?}", stack.arch);
}

#[test]
fn h25_a_rule_for_call_sites_says_so() {
    let frame = UnwindUserFrame::plain(true, 16, -8, Some(-16));
    let mut rules = Rules::default();
    let row = |first, last, trust| Row { first, last, kind: TABLE, answer: Answer::Frame(frame, trust) };
    rules.rows = vec![row(0x1000, 0x1fff, Trust::Exact), row(0x2000, 0x2fff, Trust::CallSite)];
    let mut memory = unwind_tests::synthetic::Memory::new();
    let chain = [0x7100, 0x2100, 0x7200, 0x1100, 0x7300, 0x1200];
    for (number, pair) in chain.chunks(2).enumerate() {
        let at = 0x7000 + 0x100 * u64::try_from(number).expect("small");
        memory.put_word(at, pair[0], X86.word_size(), X86.byte_order());
        memory.put_word(at + 8, pair[1], X86.word_size(), X86.byte_order());
    }
    let registers = Registers::new(0x1000, [(X86.sp(), 0x6000), (X86.fp(), 0x7000)]);
    let unwinder = Unwinder::new(X86, &rules);
    let trusts: Vec<Trust> = unwinder
        .frames(&registers, &memory)
        .expect("it starts")
        .map(|frame| frame.provenance.trust)
        .collect();
    assert_eq!(trusts, [Trust::Exact, Trust::Exact, Trust::CallSite, Trust::Exact]);
    // A trace is no better than its worst rule.
    for (room, weakest) in [(1, Trust::Exact), (2, Trust::Exact), (3, Trust::CallSite), (9, Trust::CallSite)]
    {
        let trace = unwinder.unwind_user(&registers, &memory, &mut vec![0; room]).expect("it starts");
        assert_eq!(trace.weakest, weakest, "room for {room}");
    }
}

#[test]
fn h36_signals_on_every_stack() {
    use Role::{Call, Entered, FramePointer, Signal, Trampoline};
    let chains: [&[Role]; 5] = [
        &[Call, Signal, Call, Call],
        &[Call, Trampoline, Call, Signal, Call, Trampoline, Call],
        &[Trampoline, Signal, Trampoline, Call],
        &[FramePointer, Signal, FramePointer, Call],
        &[Call, Trampoline, Entered, Call],
    ];
    for arch in AnyArch::all() {
        for roles in chains {
            // On the interrupted function's stack, on others, and on both in turn.
            for same_stack in [|_| 0x1_0000, |_| 0, |number: u32| (number / 2 % 2) << 16] {
                let stack = lay_out(arch, &chain(roles, |number| (number * 0x73) | same_stack(number)));
                check(&stack);
                let exact = stack.frames.iter().filter(|frame| frame.pc.is_exact()).count();
                let signals = roles.iter().filter(|role| matches!(role, Signal | Trampoline)).count();
                assert_eq!(exact, signals + 1);
            }
        }
    }
}

#[test]
fn h36_a_signal_in_a_leaf() {
    // The interrupted function has pushed nothing, and its return address is in the link register,
    // which only the signal frame knows.
    for arch in AnyArch::all().into_iter().filter(AnyArch::has_link_register) {
        for role in [Role::Signal, Role::Trampoline] {
            let mut spec = chain(&[Role::Call, role, Role::Call, Role::Call], |_| 0);
            spec.frames[1].evaluated = true;
            spec.frames[2] = FrameSpec { ra: RaSpec::InLink, size: Size::Nothing, ..spec.frames[2] };
            let stack = lay_out(arch, &spec);
            check(&stack);
            assert_eq!(stack.frames[2].sp, stack.frames[3].sp, "nothing was pushed");
        }
    }
}

#[test]
fn h37_a_snapshot_cut_at_every_word() {
    use Role::{Call, FramePointer, Signal};
    for arch in AnyArch::all() {
        let stack =
            lay_out(arch, &chain(&[Call, FramePointer, Call, Signal, Call, Call], |number| number * 0x1357));
        let unwinder = Unwinder::with_options(arch, &stack.rules, stack.options.clone());
        let mut prefixes = std::collections::BTreeSet::new();
        for cut in &stack.words {
            let mut memory = stack.memory.clone();
            memory.remove_range(*cut, cut + 0x1_0000);
            let found = walk_by_library(&unwinder, &stack.registers, || &memory).expect("it starts");
            assert_eq!(stack.check_cut(&found, &memory), Ok(()), "{arch:?} cut at {cut:#x}");
            prefixes.insert(found.frames.len());
        }
        assert!(prefixes.len() > 2, "{arch:?}: {prefixes:?}");
    }
}

#[test]
fn h38_a_stack_somewhere_else() {
    // A context switched in user space: the frame below the switch keeps the other stack's sp in a
    // word, or the frame pointer leads there. Upwards it is an ordinary step, however far.
    let mut rules = Rules::default();
    let switch = UnwindUserFrame::new(
        CfaRule::Deref { base: Base::Sp, offset: 0, add: 16 },
        RaRule::AtCfa(-8),
        FpRule::AtCfa(-16),
    );
    rules.push(0x1000, 0x1fff, TABLE, switch.expect("it fits"));
    let mut memory = unwind_tests::synthetic::Memory::new();
    let far = 0x7fff_0000_0000;
    for (address, value) in
        [(0x7000, far), (far + 8, 0x2100), (far, far + 0x20), (far + 0x20, 0), (far + 0x28, 0x3000)]
    {
        memory.put_word(address, value, X86.word_size(), X86.byte_order());
    }
    let unwinder = Unwinder::new(X86, &rules);
    let registers = Registers::new(0x1000, [(X86.sp(), 0x7000), (X86.fp(), 0)]);
    let found = walk_by_library(&unwinder, &registers, || &memory).expect("it starts");
    assert_eq!((found.frames.len(), found.end), (3, End::Complete(Mark::ZeroFramePointer)));
    // Downwards it cannot be told from a damaged stack: the frames until then are right.
    memory.put_word(0x7000, 0x100, X86.word_size(), X86.byte_order());
    let found = walk_by_library(&unwinder, &registers, || &memory).expect("it starts");
    assert_eq!(found.frames.len(), 1);
}

#[test]
fn h39_memory_that_changes_between_reads() {
    let roles = [Role::Call, Role::FramePointer, Role::Trampoline, Role::Call, Role::Signal, Role::Call];
    for arch in AnyArch::all() {
        let stack = lay_out(arch, &chain(&roles, |number| number * 0x2467));
        let unwinder = Unwinder::with_options(arch, &stack.rules, stack.options.clone());
        for seed in 0..200 {
            let memory = Changing::new(&stack.memory, seed);
            let (depth, _) = unwinder.depth(&stack.registers, memory).expect("it starts");
            assert!(depth >= 1);
        }
    }
}

#[test]
fn h40_buffers_of_every_size() {
    let stack = lay_out(ARM, &chain(&[Role::Call; 6], |number| number));
    let unwinder = Unwinder::with_options(ARM, &stack.rules, stack.options.clone());
    let trace = |room: usize| {
        let mut entries = vec![0; room];
        let trace = unwinder.unwind_user(&stack.registers, &stack.memory, &mut entries)?;
        entries.truncate(trace.nr);
        let right: Vec<u64> = stack.frames.iter().take(trace.nr).map(|frame| frame.pc.address()).collect();
        assert_eq!(entries, right);
        Ok((trace.nr, trace.end))
    };
    assert_eq!(trace(0), Err(StartError::NoRoom));
    let full = End::Truncated(Cut::BufferFull);
    for (room, nr, end) in [(1, 1, full), (5, 5, full), (6, 6, stack.end), (7, 6, stack.end)] {
        assert_eq!(trace(room), Ok((nr, end)), "room for {room}");
    }
    assert_eq!(unwinder.depth(&stack.registers, &stack.memory), Ok((6, stack.end)));
}

#[test]
fn h41_words_and_byte_orders_of_the_target() {
    let roles = [
        Role::Call,
        Role::FramePointer,
        Role::Signal,
        Role::Call,
        Role::Trampoline,
        Role::Entered,
        Role::Call,
    ];
    let mut seen = std::collections::BTreeSet::new();
    for arch in AnyArch::all() {
        for place in [Place::Low, Place::High, Place::Top] {
            let spec = ChainSpec { stack: place, code: place, ..chain(&roles, |number| number * 0x531) };
            check(&lay_out(arch, &spec));
        }
        let little = arch.byte_order() == ByteOrder::Little;
        seen.insert((arch.word_size(), little));
    }
    assert_eq!(seen.len(), 4);
    // A 32-bit word is 4 bytes: what is beside it is not read.
    let arch = AnyArch::Synthetic(Synthetic {
        word: WordSize::Four,
        order: ByteOrder::Big,
        link: false,
        biased: false,
        bound: false,
        mode_bit: false,
    });
    let mut rules = Rules::default();
    rules.push(0x1000, 0x1fff, TABLE, UnwindUserFrame::plain(false, 8, -4, None));
    let mut memory = unwind_tests::synthetic::Memory::new();
    memory.put(0x7004, &[0x00, 0x40, 0x20, 0x00]);
    let unwinder = Unwinder::new(arch, &rules);
    let registers = Registers::new(0x1000, [(arch.sp(), 0x7000), (arch.fp(), 0)]);
    let found = walk_by_library(&unwinder, &registers, || &memory).expect("it starts");
    assert_eq!(found.frames[1].pc, Pc::Return(0x40_2000));
}

#[test]
fn h42_failures_of_the_transport_are_not_faults_of_an_address() {
    let gone = MemoryError::Transport { code: 3 };
    let roles = [Role::Call, Role::Trampoline, Role::Entered, Role::FramePointer, Role::Call];
    for arch in AnyArch::all() {
        let mut spec = chain(&roles, |number| number);
        for guesses in [false, true] {
            // Even where a guess is being made.
            for frame in &mut spec.frames {
                frame.better_is_broken = guesses;
            }
            let stack = lay_out(arch, &spec);
            let mut options: Options = stack.options.clone();
            options.guesses = guesses;
            let unwinder = Unwinder::with_options(arch, &stack.rules, options);
            // At every read, of the stack and of code: the end says so, and no frame is made up.
            for countdown in 0..200 {
                let mut memory = FailsOnce::new(&stack.memory, countdown, gone);
                let mut frames = unwinder.frames(&stack.registers, &mut memory).expect("it starts");
                let found: Vec<_> = (&mut frames).collect();
                let end = frames.end();
                if memory.countdown.is_some() {
                    assert_eq!((&found, end), (&stack.frames, Some(stack.end)));
                    break;
                }
                assert_eq!(end, Some(End::Truncated(Cut::Memory(gone))), "{arch:?} at read {countdown}");
                assert_eq!(found, stack.frames[..found.len()]);
                assert_ne!(countdown, 199, "this stack does not take so many reads");
            }
        }
    }
    // A reader that can only fail.
    let mut closed = unwind_core::from_fn(|_, _: &mut [u8]| Err(gone));
    let mut word = [0; 4];
    assert_eq!(closed.read(0, &mut word), Err(gone));
}
