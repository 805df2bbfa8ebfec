//! Walking a thread's stack.

use std::ops::Range;

use unwind_arch::AnyArch;
use unwind_core::{
    End, Frame, MemoryReader, Module, ModuleMap, Options, StartError, Unwinder, UserRegisters,
};
use unwind_mem::elf::ElfSource;
use unwind_mem::process::ProcessMemory;
use unwind_mem::{Page, PageCache};

use crate::arguments::How;

/// The registers that are tracked from frame to frame, those with DWARF numbers below this: enough for
/// every architecture (PowerPC has its link register at 65).
const TRACKED: usize = 72;

/// A stack, innermost frame first.
pub(crate) struct Stack {
    pub(crate) tid: u32,
    pub(crate) name: String,
    pub(crate) frames: Vec<Frame>,
    pub(crate) end: Result<End, StartError>,
}

pub(crate) type Source<'m> = ModuleMap<'m, Option<ElfSource<'m>>>;

/// `complete`: whether there is no code but that of the sources.
pub(crate) fn unwinder<'m>(
    arch: AnyArch,
    sources: &'m [Module<Option<ElfSource<'m>>>],
    complete: bool,
    entry_function: Option<Range<u64>>,
    how: &How,
) -> Result<Unwinder<AnyArch, Source<'m>>, String> {
    let map = ModuleMap::new(&arch, sources).map_err(|error| format!("the memory map is broken: {error}"))?;
    let mut options = Options::default();
    options.types = how.types;
    options.guesses = how.guesses;
    options.entry_function = entry_function;
    if let Some(frames) = how.frames {
        options.max_frames = frames;
    }
    let map = if complete { map.complete() } else { map };
    Ok(Unwinder::with_options(arch, map, options))
}

/// Walks a stack in the memory of a process that is stopped, or of this one.
pub(crate) fn walk(
    unwinder: &Unwinder<AnyArch, Source<'_>>,
    registers: &dyn UserRegisters,
    pid: u32,
) -> (Vec<Frame>, Result<End, StartError>) {
    walk_cached(unwinder, registers, ProcessMemory::new(pid))
}

/// Walks a stack in memory of which every read costs the same.
pub(crate) fn walk_cached<M: MemoryReader>(
    unwinder: &Unwinder<AnyArch, Source<'_>>,
    registers: &dyn UserRegisters,
    memory: M,
) -> (Vec<Frame>, Result<End, StartError>) {
    let mut room = vec![Page::<4096>::EMPTY; 64];
    let mut found = Vec::new();
    let memory = PageCache::new(memory, &mut room);
    let end = walk_into(unwinder, registers, memory, &mut |frame| found.push(frame));
    (found, end)
}

/// As [`walk`], without allocation: for signal handlers.
pub(crate) fn walk_into<M: MemoryReader>(
    unwinder: &Unwinder<AnyArch, Source<'_>>,
    registers: &dyn UserRegisters,
    memory: M,
    found: &mut dyn FnMut(Frame),
) -> Result<End, StartError> {
    let mut frames = unwinder.frames_tracking::<TRACKED, M>(registers, memory)?;
    for frame in frames.by_ref() {
        found(frame);
    }
    Ok(frames.end().unwrap_or(End::Truncated(unwind_core::Cut::FrameLimit)))
}
