//! The target `walk`: any stack, any rules, any registers.

use arbitrary::{Arbitrary, Unstructured};
use unwind_core::{Arch, FrameSource};
use unwind_core::{
    Broken, Frame, LookupError, MemoryReader, Options, Pc, Register, SourceError, Trust, UnwindUserFrame,
    UnwindUserType, UnwindUserTypes, Unwinder, UserRegisters,
};

use crate::reference::{self, Walk, agree, walk_by_library};
use crate::synthetic::chaos::{ChaosMemory, ChaosSource};
use crate::synthetic::{Answer, AnyArch, ChainSpec, Counting, Memory, Registers, Row, Rules, Stack, lay_out};

/// No input walks further.
const MOST_FRAMES: u32 = 300;

/// What the fuzzer's bytes become.
#[derive(Clone, Debug, Arbitrary)]
pub enum WalkInput {
    /// A stack whose truth is known, and what is damaged.
    Chain(AnyArch, ChainSpec, Vec<Damage>),
    /// A table of rules over a small space of addresses, so that values meet rules.
    Table(AnyArch, TableInput),
    /// Sources and memory without sense.
    Chaos {
        /// The architecture.
        arch: AnyArch,
        /// Of the source.
        seed: u64,
        /// Of the memory.
        memory: u64,
        /// How much is a signal frame, nonsense, a hole; how many words there are to point to.
        amounts: [u8; 4],
        /// Whether answers change, and whether guesses are allowed.
        fickle: [bool; 2],
        /// The kinds of source that there are.
        types: UnwindUserTypes,
    },
}

/// A change of a stack that was right.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Damage {
    /// Bits of one byte of a word of the stack.
    Bits(u16, u8),
    /// A whole word.
    Word(u16, u64),
    /// The word is not there.
    Missing(u16),
    /// A register.
    Register(u8, u64),
}

/// Rules, registers and words out of few numbers.
#[derive(Clone, Debug, Arbitrary)]
pub struct TableInput {
    /// The rule of each sixteen bytes of code.
    pub rules: Vec<(UnwindUserType, RuleInput)>,
    /// The words of the stack.
    pub words: Vec<Value>,
    /// ip, sp, fp, the return address's register, and others.
    pub registers: [Value; 6],
    /// Where the stack begins: in the middle, at either end.
    pub place: u8,
    /// Whether the source knows where code is.
    pub code_known: bool,
    /// As the embedder sets them.
    pub options: Options,
}

/// A rule.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum RuleInput {
    /// The seed's, in words: by fp or sp, offset of the CFA, the return address, the frame pointer.
    Plain(bool, i8, i8, Option<i8>),
    /// Any rule that fits, as it is.
    Any(UnwindUserFrame),
    /// Any rule, evaluated by the source.
    Evaluated(UnwindUserFrame, Option<i8>),
    /// The source is broken there.
    Broken,
    /// It needs a register.
    Needs(u8),
}

/// A word.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Value {
    /// A place on the stack, in words.
    Stack(u8),
    /// A place in the code, in bytes.
    Code(u8),
    /// A place on the stack, in bytes.
    Odd(u16),
    /// Anything.
    Raw(u64),
    /// Unknown, or not there.
    Missing,
}

/// Runs the target on the fuzzer's bytes.
///
/// # Panics
/// Where the library does something that it must not.
pub fn walk(data: &[u8]) {
    if let Ok(input) = WalkInput::arbitrary(&mut Unstructured::new(data)) {
        run(input);
    }
}

fn run(input: WalkInput) {
    match input {
        WalkInput::Chain(arch, mut spec, damage) => {
            // Many frames are as good as few, and slow.
            spec.frames.truncate(8);
            let stack = lay_out(arch, &spec);
            damaged(stack, &damage);
        }
        WalkInput::Table(arch, input) => table(arch, &input),
        WalkInput::Chaos { arch, seed, memory, amounts, fickle, types } => {
            let [signals, nonsense, holes, spread] = amounts.map(u64::from);
            let source = ChaosSource::new(seed, fickle[0], signals, nonsense, types);
            let word = (arch.word_size(), arch.byte_order());
            let memory = ChaosMemory { seed: memory, holes, nonsense, spread, word };
            let mut options = Options::default();
            options.guesses = fickle[1];
            options.max_frames = MOST_FRAMES;
            let sp = 0x1_0000 + 8 * (seed % 64);
            let registers = Registers::new(seed, [(arch.sp(), sp), (arch.fp(), sp + 16), (arch.ra(), seed)]);
            let found = bounded(&arch, &source, &options, &registers, memory);
            if !fickle[0] {
                let right = reference::walk(&arch, &&source, &options, &registers, &mut { memory });
                agree(&found, &right.expect("it starts")).expect("library and reference agree");
            }
        }
    }
}

/// Both walks over a stack that was right: they agree, and the frames before the damage are right.
fn damaged(mut stack: Stack, damage: &[Damage]) {
    let words: Vec<u64> = stack.words.iter().copied().collect();
    let pick = |index: u16| words.get(usize::from(index) % words.len().max(1)).copied();
    let mut memory = stack.memory.clone();
    let mut changed = Vec::new();
    let mut registers_changed = false;
    for damage in damage {
        match *damage {
            Damage::Bits(index, bits) => {
                if let Some(at) = pick(index).map(|at| at + u64::from(bits) % stack.arch.word()) {
                    memory.flip(at, bits);
                    changed.push(at);
                }
            }
            Damage::Word(index, value) => {
                if let Some(at) = pick(index) {
                    memory.put_word(at, value, stack.arch.word_size(), stack.arch.byte_order());
                    changed.extend((0..stack.arch.word()).map(|byte| at + byte));
                }
            }
            Damage::Missing(index) => {
                if let Some(at) = pick(index) {
                    memory.remove(at, stack.arch.word());
                    changed.extend((0..stack.arch.word()).map(|byte| at + byte));
                }
            }
            Damage::Register(number, value) => {
                registers_changed = true;
                stack.registers.values.insert(u16::from(number) % 40, value);
            }
        }
    }
    let found = both(&stack.arch, &stack.rules, &stack.options, &stack.registers, &memory);
    if changed.is_empty() && !registers_changed {
        assert_eq!(found, stack.truth());
    } else if !registers_changed {
        let right = stack.right_frames(|at| changed.contains(&at));
        assert_eq!(found.frames.get(..right), stack.frames.get(..right));
    }
}

fn table(arch: AnyArch, input: &TableInput) {
    const CODE: u64 = 0x10_0000;
    let word = arch.word();
    let max = arch.word_size().max_address();
    let base = match input.place % 4 {
        0 => 0,
        1 => max - 256 * word + 1,
        2 => 0x8000_0000,
        _ => 0x7000,
    };
    let value = |value: &Value| match value {
        Value::Stack(words) => Some(base + word * u64::from(*words)),
        Value::Code(offset) => Some(CODE + u64::from(*offset)),
        Value::Odd(bytes) => Some(base + u64::from(*bytes) % (256 * word)),
        Value::Raw(value) => Some(*value),
        Value::Missing => None,
    };
    let mut memory = Memory::new();
    for (index, stored) in (0u64..256).zip(&input.words) {
        if let Some(stored) = value(stored) {
            memory.put_word(base + word * index, stored, arch.word_size(), arch.byte_order());
        }
    }
    let mut rules = Rules { rows: Vec::new(), code: input.code_known.then(|| vec![(CODE, CODE + 255)]) };
    for (index, (kind, rule)) in (0u64..16).zip(&input.rules) {
        let first = CODE + 16 * index;
        rules.rows.push(Row { first, last: first + 15, kind: *kind, answer: answer(arch, *rule) });
    }
    let numbers = [arch.sp(), arch.fp(), arch.ra(), Register(0), Register(3)];
    let mut registers = Registers { ip: value(&input.registers[0]), ..Registers::default() };
    for (register, stored) in numbers.iter().zip(&input.registers[1..]) {
        if let Some(stored) = value(stored) {
            registers.values.insert(register.0, stored);
        }
    }
    let mut options = input.options.clone();
    options.max_frames = options.max_frames.min(MOST_FRAMES);
    if registers.ip.is_some() && registers.values.contains_key(&arch.sp().0) {
        both(&arch, &rules, &options, &registers, &memory);
    } else {
        let unwinder = Unwinder::with_options(arch, &rules, options.clone());
        let found = walk_by_library(&unwinder, &registers, || &memory);
        assert_eq!(found, reference::walk(&arch, &&rules, &options, &registers, &mut { &memory }));
    }
}

fn answer(arch: AnyArch, rule: RuleInput) -> Answer {
    let word = i32::from(arch.word_size().bytes());
    match rule {
        RuleInput::Plain(by_fp, cfa, ra, fp) => {
            let fp = fp.map(|fp| word * i32::from(fp));
            let frame = UnwindUserFrame::plain(by_fp, word * i32::from(cfa), word * i32::from(ra), fp);
            Answer::Frame(frame, Trust::Exact)
        }
        RuleInput::Any(frame) => Answer::Frame(frame, Trust::CallSite),
        RuleInput::Evaluated(frame, link) => Answer::Evaluate(frame, Trust::Exact, link.map(i32::from)),
        RuleInput::Broken => {
            Answer::Fails(LookupError::Broken(SourceError { broken: Broken::Malformed, offset: 1 }))
        }
        RuleInput::Needs(number) => Answer::Fails(LookupError::UnknownRegister(Register(number.into()))),
    }
}

/// Library, in its three ways, and reference: they agree. Returns what they found.
fn both(arch: &AnyArch, rules: &Rules, options: &Options, registers: &Registers, memory: &Memory) -> Walk {
    let unwinder = Unwinder::with_options(*arch, rules, options.clone());
    let found = walk_by_library(&unwinder, registers, || memory).expect("ip and sp are known");
    let right =
        reference::walk(arch, &rules, options, registers, &mut { memory }).expect("ip and sp are known");
    agree(&found, &right).expect("library and reference agree");
    let counted = bounded(arch, rules, options, registers, memory);
    assert_eq!(counted, found);
    check_order(&found.frames);
    found
}

/// A walk, plain and with all registers tracked, whose reads are counted.
pub(super) fn bounded<S: FrameSource<AnyArch>, M: MemoryReader + Clone>(
    arch: &AnyArch,
    source: &S,
    options: &Options,
    registers: &dyn UserRegisters,
    memory: M,
) -> Walk {
    let unwinder = Unwinder::with_options(*arch, source, options.clone());
    let mut counting = Counting::new(memory.clone());
    let mut frames = unwinder.frames(registers, &mut counting).expect("ip and sp are known");
    let found = Walk { frames: (&mut frames).collect(), end: frames.end().expect("it has ended") };
    let limit = usize::try_from(options.max_frames.max(1)).expect("usize has 32 bits");
    assert!(found.frames.len() <= limit, "more frames than allowed");
    // Ten kinds of source. Of each step twenty reads of code that might be a trampoline's, the
    // registers it restores, ten of code that might say something, and three words.
    assert!(counting.reads.len() <= found.frames.len() * 400, "{} reads", counting.reads.len());
    check_order(&found.frames);
    let tracking = unwinder.frames_tracking::<128, _>(registers, memory).expect("ip and sp are known");
    assert!(tracking.count() <= limit, "more frames than allowed");
    found
}

/// Outside of signal frames the stack shrinks.
fn check_order(frames: &[Frame]) {
    for pair in frames.windows(2) {
        let [callee, caller] = pair else { continue };
        if matches!(caller.pc, Pc::Return(_)) {
            let shrinks = caller.sp > callee.sp || (caller.sp == callee.sp && callee.pc.is_exact());
            assert!(shrinks, "{callee:x?} is called by {caller:x?}");
        }
    }
}
