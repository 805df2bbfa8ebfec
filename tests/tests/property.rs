//! Random call chains, laid out so that the truth is known: the library, the reference and the
//! truth agree, wherever the stack is cut.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use unwind_core::{Arch, Frame, MemoryReader, Pc, Unwinder};
use unwind_tests::reference::{Walk, agree, walk, walk_by_library};
use unwind_tests::synthetic::{
    Answer, AnyArch, ChainSpec, Counting, Memory, Rules, Stack, lay_out, strategy,
};

fn unwinder(stack: &Stack) -> Unwinder<AnyArch, &Rules> {
    Unwinder::with_options(stack.arch, &stack.rules, stack.options.clone())
}

fn library<M: MemoryReader>(stack: &Stack, memory: impl Fn() -> M) -> Walk {
    walk_by_library(&unwinder(stack), &stack.registers, memory).expect("ip and sp are known")
}

fn reference(stack: &Stack, memory: &Memory) -> Walk {
    walk(&stack.arch, &&stack.rules, &stack.options, &stack.registers, &mut &*memory)
        .expect("ip and sp are known")
}

/// Outside of signal frames the stack shrinks.
fn check_order(frames: &[Frame]) {
    for pair in frames.windows(2) {
        let (callee, caller) = (&pair[0], &pair[1]);
        if matches!(caller.pc, Pc::Return(_)) {
            assert!(caller.sp > callee.sp || (caller.sp == callee.sp && callee.pc.is_exact()));
        }
    }
}

fn check_agreement(arch: AnyArch, spec: &ChainSpec) -> Result<(), TestCaseError> {
    let stack = lay_out(arch, spec);
    let truth = stack.truth();
    let reference = reference(&stack, &stack.memory);
    prop_assert_eq!(agree(&reference, &truth), Ok(()), "the reference against the truth");
    let library = library(&stack, || &stack.memory);
    prop_assert_eq!(agree(&library, &reference), Ok(()), "the library against the reference");
    prop_assert_eq!(&library, &truth);
    check_order(&library.frames);
    Ok(())
}

/// The same for one real architecture after the other: none is left to chance.
macro_rules! each_architecture {
    ($($test:ident $name:literal $variants:literal,)*) => {
        $(
            proptest! {
                #![proptest_config(strategy::cases(100))]

                #[test]
                fn $test(spec in strategy::chain(12)) {
                    for arch in named($name) {
                        check_agreement(arch, &spec)?;
                    }
                }
            }
        )*

        /// Every real one has a test of its own, with so many byte orders, sizes and frame pointers.
        #[test]
        fn no_architecture_is_left_out() {
            let mut all = 0;
            $(
                assert_eq!(named($name).count(), $variants, $name);
                all += $variants;
            )*
            assert_eq!(all, AnyArch::real().len());
        }
    };
}

fn named(name: &str) -> impl Iterator<Item = AnyArch> {
    AnyArch::real().into_iter().filter(move |arch| arch.name() == name)
}

each_architecture! {
    x86_64 "x86_64" 1,
    aarch64 "aarch64" 2,
    x86 "x86" 1,
    arm "arm" 4,
    riscv64 "riscv64" 1,
    riscv32 "riscv32" 1,
    mips "mips" 2,
    mips64 "mips64" 2,
    s390x "s390x" 1,
    powerpc64 "powerpc64" 2,
    loongarch64 "loongarch64" 1,
}

proptest! {
    #![proptest_config(strategy::cases(1000))]

    #[test]
    fn library_reference_and_truth_agree(arch in strategy::arch(), spec in strategy::chain(12)) {
        check_agreement(arch, &spec)?;
    }

    /// Three words of the stack, and the code around the pc, are the most that a plain step reads.
    #[test]
    fn a_step_reads_what_it_needs(arch in strategy::arch(), spec in strategy::chain(6)) {
        let stack = lay_out(arch, &spec);
        let unwinder = unwinder(&stack);
        let mut memory = Counting::new(&stack.memory);
        let mut state = unwinder.start(&stack.registers).expect("ip and sp are known");
        for index in 0.. {
            memory.reads.clear();
            let pc = state.ip();
            let stepped = unwinder.next(&mut state, &mut memory).is_ok();
            let near = |at: u64| at.wrapping_sub(pc.wrapping_sub(16)) < 32;
            let expected = &stack.reads[index].words;
            let is_word = |at: &u64, len: usize| expected.contains(at) && u64::try_from(len) == Ok(arch.word());
            let code: Vec<_> = memory.reads.iter().filter(|(at, len)| !is_word(at, *len)).collect();
            for (at, len) in &code {
                prop_assert!(near(*at) && *len <= 16, "{len} bytes at {at:#x} are read, needed are {expected:x?}");
            }
            // Ten reads each for a trampoline's rule and its registers, and for what an instruction says.
            prop_assert!(code.len() <= 30, "{} reads of code", code.len());
            if !stepped {
                break;
            }
        }
    }
}

proptest! {
    #![proptest_config(strategy::cases(60))]

    /// A snapshot that ends anywhere gives a prefix, and says which address is missing.
    #[test]
    fn cut_at_every_word(arch in strategy::arch(), spec in strategy::chain(8)) {
        let stack = lay_out(arch, &spec);
        let mut cuts: Vec<u64> = stack
            .needed_words()
            .into_iter()
            .flat_map(|word| [word, word.saturating_add(1), word.saturating_add(arch.word())])
            .collect();
        // And at the words that nobody needs, where there are not too many.
        cuts.extend(stack.words.iter().take(300));
        for start in cuts {
            let mut memory = stack.memory.clone();
            let end = start.saturating_add(0x1000);
            memory.remove_range(start, end);
            let found = library(&stack, || &memory);
            prop_assert_eq!(stack.check_cut(&found, &memory), Ok(()), "cut at {:#x}", start);
            prop_assert_eq!(agree(&found, &reference(&stack, &memory)), Ok(()));
        }
    }
}

/// The tests above prove nothing about what the strategies never make.
#[test]
fn everything_is_generated() {
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..2000 {
        let (arch, spec) = (strategy::arch(), strategy::chain(12))
            .new_tree(&mut runner)
            .expect("the strategies reject nothing")
            .current();
        let stack = lay_out(arch, &spec);
        let mut count = |what: String| *seen.entry(what).or_default() += 1;
        let (word, order) = (stack.arch.word_size(), stack.arch.byte_order());
        count(format!("arch {} {word:?} {order:?}", stack.arch.name()));
        count(format!("end {:?}", discriminant(&format!("{:?}", stack.end))));
        for frame in &stack.frames {
            count(format!("source {:?}", frame.provenance.source));
            count(format!("trust {:?}", frame.provenance.trust));
            count(format!("bound {}", frame.sp_is_bound));
            count(format!("knows fp {}", frame.fp.is_some()));
            count(format!("kernel half {}", frame.sp >> 63));
        }
        for row in &stack.rules.rows {
            let (name, rule) = match row.answer {
                Answer::Frame(rule, _) => ("frame", rule),
                Answer::Evaluate(rule, _, _) => ("evaluated", rule),
                Answer::Fails(_) => continue,
            };
            count(format!("{name} {:?}", rule.kind()));
            count(format!("cfa {}", shape(&format!("{:?}", rule.cfa()))));
            count(format!("ra {}", shape(&format!("{:?}", rule.ra()))));
            count(format!("fp {}", shape(&format!("{:?}", rule.fp()))));
        }
    }
    for (what, count) in &seen {
        println!("{count:6} {what}");
    }
    let kinds = |prefix: &str| seen.keys().filter(|what| what.starts_with(prefix)).count();
    // Offset and deref, each from sp, fp and registers.
    assert_eq!(kinds("cfa "), 6);
    // At the CFA, undefined; in and at sp, fp and registers.
    assert_eq!(kinds("ra "), 8);
    // The same, and unchanged, and the CFA itself.
    assert_eq!(kinds("fp "), 10);
    assert_eq!((kinds("frame "), kinds("evaluated ")), (2, 2));
    // Eleven real architectures, most in two byte orders or sizes, and four made-up ones.
    assert_eq!(kinds("arch "), 20);
    assert_eq!(kinds("end "), 10);
    assert_eq!(kinds("source "), 10);
    assert_eq!(kinds("trust "), 4);
    assert_eq!(kinds("bound ") + kinds("knows fp ") + kinds("kernel half "), 6);
    assert!(seen.values().all(|count| *count >= 5), "something is hardly ever made");
}

/// A rule without its numbers.
fn shape(rule: &str) -> String {
    let named = rule.split("offset").next().expect("the first part");
    named.chars().filter(|character| !character.is_ascii_digit() && *character != '-').collect()
}

fn discriminant(end: &str) -> String {
    let words: Vec<&str> = end.split(|character: char| !character.is_alphanumeric()).collect();
    let names = [
        "UndefinedReturnAddress",
        "ZeroReturnAddress",
        "ZeroFramePointer",
        "ZeroFrameRecord",
        "EntryFunction",
        "NotCovered",
        "Unreadable",
        "NotCode",
        "Broken",
        "FrameLimit",
    ];
    names.into_iter().find(|name| words.contains(name)).unwrap_or(end).to_string()
}
