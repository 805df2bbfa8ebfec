//! The target `memory`: memory that changes between reads, and a way to it that fails at random.

use arbitrary::{Arbitrary, Unstructured};
use unwind_core::dwarf::DwarfSource;
use unwind_core::{
    Arch, CacheSlot, Cached, Cut, End, FrameSource, MemoryError, MemoryReader, Module, ModuleMap, Options,
    RuleCache, Unwinder, UserRegisters,
};

use super::dwarf::as_dwarf;
use super::walk::bounded;
use crate::reference::{Walk, walk_by_library};
use crate::synthetic::{AnyArch, ChainSpec, Changing, Memory, ModuleSpec, Stack, describe, lay_out};

/// What the fuzzer's bytes become.
#[derive(Clone, Debug, Arbitrary)]
pub struct MemoryInput {
    arch: AnyArch,
    chain: ChainSpec,
    /// Call frame information of the stack's rules; without it they are the source.
    module: Option<ModuleSpec>,
    /// Of the changes.
    seed: u64,
    /// Slots of the cache.
    slots: u8,
    /// After how many reads each failure comes.
    failures: Vec<u8>,
}

/// Runs the target on the fuzzer's bytes.
///
/// # Panics
/// Where the library does something that it must not.
pub fn memory(data: &[u8]) {
    let Ok(mut input) = MemoryInput::arbitrary(&mut Unstructured::new(data)) else { return };
    input.chain.frames.truncate(8);
    input.failures.truncate(64);
    if input.module.is_some() {
        as_dwarf(&mut input.chain);
    }
    let mut stack = lay_out(input.arch, &input.chain);
    stack.options.max_frames = stack.options.max_frames.min(100);
    let Some(spec) = &input.module else {
        return check(&stack, &stack.rules, &input);
    };
    let module = describe(&stack, spec);
    for (place, value) in &module.relocated {
        stack.memory.put_word(*place, *value, stack.arch.word_size(), stack.arch.byte_order());
    }
    let source = DwarfSource::new(module.sections());
    let end = module.last.saturating_add(1);
    let modules = [Module { start: module.start, end, bias: module.bias, source }];
    let map = ModuleMap::new(&stack.arch, &modules).expect("one module");
    let map = if input.chain.code_known { map.complete() } else { map };
    check(&stack, &map, &input);
}

fn check<S: FrameSource<AnyArch>>(stack: &Stack, source: &S, input: &MemoryInput) {
    let Stack { arch, options, registers, .. } = stack;
    let unwinder = Unwinder::with_options(*arch, source, options.clone());
    let right = walk_by_library(&unwinder, registers, || &stack.memory).expect("it starts");
    let slots: Vec<_> = (0..input.slots).map(|_| CacheSlot::new()).collect();
    let cache = RuleCache::new(&slots);
    // What changes leads anywhere, but not for ever. Nothing that was read is remembered: what memory holds
    // later, when it holds still, is found with the cache of then.
    let changing = Cached { cache, generation: 1, source };
    bounded(arch, &changing, &short(options), registers, Changing::new(&stack.memory, input.seed));
    // The way to the target fails now and then, and is tried again.
    for generation in [2, 2, 3] {
        let cached = Cached { cache, generation, source };
        let unwinder = Unwinder::with_options(*arch, cached, options.clone());
        let failing = Failing { inner: &stack.memory, failures: &input.failures, since: 0 };
        let found = patient(&unwinder, registers, failing);
        assert_eq!(found, right, "after failures, and trying again");
    }
}

fn short(options: &Options) -> Options {
    let mut options = options.clone();
    options.max_frames = options.max_frames.min(50);
    options
}

/// A walk that tries again where the way to the target failed.
fn patient<S: FrameSource<AnyArch>>(
    unwinder: &Unwinder<AnyArch, S>,
    registers: &dyn UserRegisters,
    mut memory: Failing<'_, &Memory>,
) -> Walk {
    let mut state = unwinder.start(registers).expect("it starts");
    let mut frames = vec![state.frame()];
    loop {
        let before = state.frame();
        match unwinder.next(&mut state, &mut memory) {
            Ok(frame) => frames.push(frame),
            Err(End::Truncated(Cut::Memory(MemoryError::Transport { code: FAILED }))) => {
                assert_eq!(state.frame(), before, "a failed step changes nothing");
                state.retry();
            }
            Err(end) => return Walk { frames, end },
        }
    }
}

/// The number that failures bear.
const FAILED: i32 = 110;

/// Fails after so many reads each time, and when the list is at its end, never again.
struct Failing<'f, M> {
    inner: M,
    failures: &'f [u8],
    since: u8,
}

impl<M: MemoryReader> MemoryReader for Failing<'_, M> {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        if let Some((after, rest)) = self.failures.split_first() {
            if self.since >= after % 16 {
                (self.failures, self.since) = (rest, 0);
                return Err(MemoryError::Transport { code: FAILED });
            }
            self.since += 1;
        }
        self.inner.read(address, into)
    }
}
