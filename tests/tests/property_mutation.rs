//! Stacks, registers and rules that are damaged, change, or never made sense: no panic, no endless
//! walk, and what comes before the damage is right.

use proptest::collection::vec;
use proptest::prelude::*;
use unwind_core::{
    Arch, End, Frame, FrameSource, MemoryError, MemoryReader, Options, UnwindUserType, UnwindUserTypes,
    Unwinder,
};
use unwind_tests::reference::{Walk, agree, walk, walk_by_library};
use unwind_tests::synthetic::chaos::{ChaosMemory, ChaosSource};
use unwind_tests::synthetic::{
    Answer, AnyArch, Changing, Counting, FailsOnce, Memory, Registers, Rules, Stack, lay_out, strategy,
};

fn unwinder(stack: &Stack) -> Unwinder<AnyArch, &Rules> {
    Unwinder::with_options(stack.arch, &stack.rules, stack.options.clone())
}

/// Both walks over a damaged stack; they must agree.
fn both(stack: &Stack, memory: &Memory) -> Result<Walk, TestCaseError> {
    let library = walk_by_library(&unwinder(stack), &stack.registers, || memory);
    let reference = walk(&stack.arch, &&stack.rules, &stack.options, &stack.registers, &mut &*memory);
    match (library, reference) {
        (Ok(library), Ok(reference)) => {
            prop_assert_eq!(agree(&library, &reference), Ok(()));
            Ok(library)
        }
        (library, reference) => {
            prop_assert_eq!(&library, &reference);
            prop_assert!(false, "ip and sp are known");
            unreachable!("the assertion has failed")
        }
    }
}

/// A walk with its reads counted, that must end within its limits.
fn bounded<A: Arch, S: FrameSource<A>, M: MemoryReader>(
    unwinder: &Unwinder<A, S>,
    registers: &Registers,
    memory: M,
) -> Result<(Vec<Frame>, End), TestCaseError> {
    let mut memory = Counting::new(memory);
    let mut frames = Vec::new();
    let mut iterator = unwinder.frames(registers, &mut memory).expect("ip and sp are known");
    frames.extend(&mut iterator);
    let end = iterator.end().expect("it has ended");
    let depth = iterator.state().depth();
    let limit = unwinder.options().max_frames.max(1);
    prop_assert!(frames.len() <= usize::try_from(limit).expect("usize has 32 bits"));
    prop_assert_eq!(usize::try_from(depth).expect("usize has 32 bits") + 1, frames.len());
    // Ten kinds of source; each reads a trampoline's code twice (twenty reads), its registers or
    // three words, and whatever a source of chaos reads.
    let most = frames.len() * 10 * 30;
    prop_assert!(memory.reads.len() <= most, "{} reads for {} frames", memory.reads.len(), frames.len());
    Ok((frames, end))
}

proptest! {
    #![proptest_config(strategy::cases(600))]

    /// Bits flipped in the stack: right up to the first step that reads one.
    #[test]
    fn bits_of_the_stack_are_flipped(
        arch in strategy::arch(),
        spec in strategy::chain(10),
        flips in vec((any::<prop::sample::Index>(), any::<bool>(), 1u8..), 1..4),
    ) {
        let stack = lay_out(arch, &spec);
        let needed = stack.needed_words();
        let all: Vec<u64> = stack.words.iter().copied().collect();
        let mut memory = stack.memory.clone();
        let mut flipped = Vec::new();
        for (index, among_needed, bits) in flips {
            let words = if among_needed && !needed.is_empty() { &needed } else { &all };
            if words.is_empty() {
                continue;
            }
            let at = words[index.index(words.len())] + u64::from(bits) % arch.word();
            memory.flip(at, bits);
            flipped.push(at);
        }
        let walk = both(&stack, &memory)?;
        let right = stack.right_frames(|at| flipped.contains(&at));
        prop_assert!(walk.frames.len() >= right);
        prop_assert_eq!(&walk.frames[..right], &stack.frames[..right]);
    }

    /// Words replaced by ones that look like pointers.
    #[test]
    fn words_of_the_stack_are_replaced(
        arch in strategy::arch(),
        spec in strategy::chain(10),
        index in any::<prop::sample::Index>(),
        by in prop_oneof![Just(0), Just(u64::MAX), any::<u64>()],
        near_the_stack in any::<Option<u8>>(),
    ) {
        let stack = lay_out(arch, &spec);
        let needed = stack.needed_words();
        prop_assume!(!needed.is_empty());
        let at = needed[index.index(needed.len())];
        let by = near_the_stack.map_or(by, |words| at.wrapping_add(8 * u64::from(words)).wrapping_sub(1024));
        let mut memory = stack.memory.clone();
        memory.put_word(at, by, arch.word_size(), arch.byte_order());
        let walk = both(&stack, &memory)?;
        let right = stack.right_frames(|byte| byte.wrapping_sub(at) < arch.word());
        prop_assert!(walk.frames.len() >= right);
        prop_assert_eq!(&walk.frames[..right], &stack.frames[..right]);
    }

    /// Registers that hold something else, or are not known.
    #[test]
    fn registers_are_wrong(
        arch in strategy::arch(),
        spec in strategy::chain(6),
        changes in vec((0u16..34, any::<Option<u64>>(), any::<Option<i8>>()), 1..3),
    ) {
        let mut stack = lay_out(arch, &spec);
        for (number, value, delta) in changes {
            let known = stack.registers.values.get(&number).copied();
            match (known, delta, value) {
                (Some(known), Some(delta), _) => {
                    stack.registers.values.insert(number, known.wrapping_add_signed(delta.into()));
                }
                (_, _, Some(value)) => {
                    stack.registers.values.insert(number, value);
                }
                _ if number != arch.sp().0 => {
                    stack.registers.values.remove(&number);
                }
                _ => {}
            }
        }
        let memory = stack.memory.clone();
        both(&stack, &memory)?;
    }

    /// Rules that belong to other functions, and offsets that are a little wrong.
    #[test]
    fn rules_are_wrong(
        arch in strategy::arch(),
        spec in strategy::chain(8),
        swap in any::<[prop::sample::Index; 2]>(),
        shift in any::<i16>(),
    ) {
        let mut stack = lay_out(arch, &spec);
        let rows = &mut stack.rules.rows;
        prop_assume!(!rows.is_empty());
        let (a, b) = (swap[0].index(rows.len()), swap[1].index(rows.len()));
        let answer = rows[a].answer;
        rows[a].answer = rows[b].answer;
        rows[b].answer = answer;
        if let Answer::Frame(rule, trust) = rows[b].answer
            && let unwind_core::CfaRule::Offset { base, offset } = rule.cfa()
        {
            let cfa = unwind_core::CfaRule::Offset { base, offset: offset.wrapping_add(shift.into()) };
            let changed = unwind_core::UnwindUserFrame::new(cfa, rule.ra(), rule.fp()).expect("as before");
            let changed = if rule.kind() == unwind_core::FrameKind::Signal { changed.signal() } else { changed };
            rows[b].answer = Answer::Frame(changed, trust);
        }
        let memory = stack.memory.clone();
        both(&stack, &memory)?;
    }

    /// A thread that runs on: words change between reads, pages come and go.
    #[test]
    fn memory_changes_between_reads(arch in strategy::arch(), spec in strategy::chain(10), seed in any::<u64>()) {
        let stack = lay_out(arch, &spec);
        bounded(&unwinder(&stack), &stack.registers, Changing::new(&stack.memory, seed))?;
    }

    /// A read of the stack that fails once: the walk ends there, and goes on when it is tried again.
    #[test]
    fn a_read_fails_once(
        arch in strategy::arch(),
        spec in strategy::chain(6),
        countdown in 0u32..60,
        transport in any::<bool>(),
    ) {
        let mut spec = spec;
        // Code that cannot be read is an answer, not a failure.
        spec.code_readable = false;
        let stack = lay_out(arch, &spec);
        let error = if transport {
            MemoryError::Transport { code: 3 }
        } else {
            MemoryError::Unreadable { address: 0x1234_5678 }
        };
        let unwinder = unwinder(&stack);
        let mut memory = OnlyStack { stack: &stack, inner: FailsOnce::new(&stack.memory, countdown, error) };
        let mut state = unwinder.start(&stack.registers).expect("ip and sp are known");
        let mut frames = vec![state.frame()];
        let mut failures = 0;
        let end = loop {
            match unwinder.next(&mut state, &mut memory) {
                Ok(frame) => frames.push(frame),
                Err(end) if end == stack.end => break end,
                Err(end) => {
                    failures += 1;
                    let is_guess = stack.reads[frames.len() - 1].guess;
                    let expected = End::Truncated(unwind_core::Cut::Memory(error));
                    prop_assert!(end == expected || (is_guess && !transport), "{end:?}");
                    state.retry();
                }
            }
        };
        prop_assert!(failures <= 1);
        prop_assert_eq!(Walk { frames, end }, stack.truth());
    }

    /// Tracking every register changes nothing about the frames.
    #[test]
    fn a_tracking_walk_is_the_same(arch in strategy::arch(), spec in strategy::chain(8)) {
        let stack = lay_out(arch, &spec);
        let unwinder = unwinder(&stack);
        let mut tracking =
            unwinder.frames_tracking::<128, _>(&stack.registers, &stack.memory).expect("ip and sp are known");
        let frames: Vec<Frame> = (&mut tracking).collect();
        let end = tracking.end().expect("it has ended");
        prop_assert_eq!(Walk { frames, end }, stack.truth());
    }

    /// Sources and memory without sense: every walk ends within its limit.
    #[test]
    fn chaos_ends(
        arch in strategy::arch(),
        seeds in any::<[u64; 3]>(),
        fickle in any::<bool>(),
        signals in 0u64..6,
        nonsense in prop_oneof![Just(0u64), 1u64..200],
        holes in prop_oneof![Just(0u64), 2u64..200],
        spread in 1u64..300,
        guesses in any::<bool>(),
        start in any::<[u64; 3]>(),
    ) {
        let types = UnwindUserTypes::ALL;
        let claimed = types.iter().filter(|kind| seeds[2] >> bit(*kind) & 3 != 0);
        let claimed = claimed.fold(UnwindUserTypes::NONE, UnwindUserTypes::with);
        let source = ChaosSource::new(seeds[0], fickle, signals, nonsense, claimed);
        let mut options = Options::default();
        options.guesses = guesses;
        options.max_frames = 3000;
        let word = (arch.word_size(), arch.byte_order());
        let memory = ChaosMemory { seed: seeds[1], holes, nonsense, spread, word };
        let sp = arch.word_size().truncate(start[1] & !0xf807);
        let mut registers = Registers::new(start[0], [(arch.sp(), sp), (arch.fp(), sp + start[2] % 0x200 * 8)]);
        registers.values.insert(arch.ra().0, seeds[0]);
        let unwinder = Unwinder::with_options(arch, &source, options.clone());
        let (frames, end) = bounded(&unwinder, &registers, memory)?;
        if fickle {
            return Ok(());
        }
        let reference = walk(&arch, &&source, &options, &registers, &mut { memory }).expect("ip and sp are known");
        prop_assert_eq!(agree(&Walk { frames, end }, &reference), Ok(()));
        let tracking = unwinder.frames_tracking::<40, _>(&registers, memory).expect("ip and sp are known");
        prop_assert!(tracking.count() <= 3000);
    }
}

fn bit(kind: UnwindUserType) -> usize {
    UnwindUserType::ALL.iter().position(|other| *other == kind).expect("it is one of all")
}

/// Lets reads of the stack's words pass to a reader that fails; all others go to the memory itself.
struct OnlyStack<'s> {
    stack: &'s Stack,
    inner: FailsOnce<&'s Memory>,
}

impl MemoryReader for OnlyStack<'_> {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let is_word = u64::try_from(into.len()) == Ok(self.stack.arch.word());
        if is_word && self.stack.words.contains(&address) {
            self.inner.read(address, into)
        } else {
            (&self.stack.memory).read(address, into)
        }
    }
}
