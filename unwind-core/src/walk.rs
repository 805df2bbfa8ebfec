//! The three ways in: one call, an iterator, or start and next.

use core::ops::Range;

use crate::memory::MemoryReader;
use crate::outcome::{Cut, End, Frame, StartError};
use crate::plain::Plain;
use crate::plain_run;
use crate::plain_step;
use crate::source::{FrameSource, Trust, UnwindUserTypes};
use crate::step;
use crate::{Arch, Pc, RegisterSet, TopmostRegisters, TrackedRegisters, UnwindUserState, UserRegisters};

/// What a walk may do.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
#[non_exhaustive]
pub struct Options {
    /// The kinds of source to ask, best first. All, to begin with.
    pub types: UnwindUserTypes,
    /// Whether a source that covers a pc but is broken, or whose rule needs a register that is
    /// not known there, may be passed over for a lesser one. The frame is then marked
    /// [`Trust::Guess`] and says why. Off, to begin with: the walk ends with the reason.
    pub guesses: bool,
    /// The most frames that a walk yields, the topmost included.
    /// [`Options::DEFAULT_MAX_FRAMES`], to begin with.
    pub max_frames: u32,
    /// Where threads begin (avma): a walk that comes here is complete.
    pub entry_function: Option<Range<u64>>,
}

impl Options {
    /// Deep recursions reach some hundred thousand frames; a walk over a hostile stack ends here
    /// if nothing else ends it.
    pub const DEFAULT_MAX_FRAMES: u32 = 1 << 20;
}

impl Default for Options {
    fn default() -> Self {
        Options {
            types: UnwindUserTypes::ALL,
            guesses: false,
            max_frames: Self::DEFAULT_MAX_FRAMES,
            entry_function: None,
        }
    }
}

/// Everything a walk needs that does not change while it walks: the architecture, the source of
/// rules, the options. Shareable; makes any number of walks.
#[derive(Clone, Debug)]
pub struct Unwinder<A, S> {
    arch: A,
    source: S,
    options: Options,
}

/// What [`Unwinder::unwind_user`] found: the seed's `struct unwind_stacktrace`, whose entries are
/// the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnwindStacktrace {
    /// How many entries of the buffer were filled.
    pub nr: usize,
    /// How the walk ended.
    pub end: End,
    /// The least trusted rule among those that led to the entries.
    pub weakest: Trust,
}

impl UnwindStacktrace {
    /// So many entries, for an embedder that has them from elsewhere than a walk of this crate.
    pub const fn new(nr: usize, end: End, weakest: Trust) -> Self {
        UnwindStacktrace { nr, end, weakest }
    }
}

impl<A: Arch, S: FrameSource<A>> Unwinder<A, S> {
    /// An unwinder with default options.
    pub fn new(arch: A, source: S) -> Self {
        Self::with_options(arch, source, Options::default())
    }

    /// An unwinder with options of one's own.
    pub fn with_options(arch: A, source: S, options: Options) -> Self {
        Unwinder { arch, source, options }
    }

    /// The architecture.
    pub fn arch(&self) -> &A {
        &self.arch
    }

    /// The source of rules.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// The options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Walks the whole stack and stores the address of every frame, innermost first: the seed's
    /// `unwind_user`. Addresses are as found: for all but exact frames, where the call returns to.
    ///
    /// # Errors
    /// Only where the walk cannot begin. How it ended is part of the result, and what was found
    /// until then is right.
    pub fn unwind_user<M: MemoryReader>(
        &self,
        registers: &dyn UserRegisters,
        memory: M,
        entries: &mut [u64],
    ) -> Result<UnwindStacktrace, StartError> {
        if entries.is_empty() {
            return Err(StartError::NoRoom);
        }
        let mut state = self.start(registers)?;
        let mut memory = memory;
        let mut nr = 0usize;
        loop {
            let Some((entry, rest)) = entries.get_mut(nr..).and_then(<[u64]>::split_first_mut) else {
                // One step further tells a full buffer from an exact fit.
                let weakest = state.weakest;
                let end = match self.next(&mut state, &mut memory) {
                    Ok(_) => End::Truncated(Cut::BufferFull),
                    Err(end) => end,
                };
                return Ok(UnwindStacktrace { nr, end, weakest });
            };
            *entry = state.pc.address();
            nr = nr.saturating_add(1);
            let (arch, source, options) = (&self.arch, &self.source, &self.options);
            nr = nr.saturating_add(plain_run::run(arch, source, options, &mut state, &mut memory, rest));
            if nr < entries.len() {
                step::step(self, &mut state, &mut memory);
                if let Some(end) = state.end {
                    return Ok(UnwindStacktrace { nr, end, weakest: state.weakest });
                }
            }
        }
    }

    /// How many frames the stack has, and how the walk ended: for those who want to know how much
    /// room [`unwind_user`](Unwinder::unwind_user) would have needed.
    ///
    /// # Errors
    /// Only where the walk cannot begin.
    pub fn depth<M: MemoryReader>(
        &self,
        registers: &dyn UserRegisters,
        memory: M,
    ) -> Result<(usize, End), StartError> {
        let mut frames = self.frames(registers, memory)?;
        let mut nr = 0usize;
        while frames.next().is_some() {
            nr = nr.saturating_add(1);
        }
        Ok((nr, frames.end().unwrap_or(End::Truncated(Cut::FrameLimit))))
    }

    /// Walks the stack frame by frame: the seed's `for_each_user_frame`.
    ///
    /// # Errors
    /// Where the walk cannot begin.
    pub fn frames<'r, M: MemoryReader>(
        &self,
        registers: &'r dyn UserRegisters,
        memory: M,
    ) -> Result<Frames<'_, A, S, M, TopmostRegisters<'r>>, StartError> {
        Ok(self.resume(self.start(registers)?, memory))
    }

    /// As [`frames`](Unwinder::frames), recovering every register with a DWARF number below `N`
    /// (at most [`TrackedRegisters::MOST`]) that the sources know about: for debuggers, and for code whose CFA rests on a
    /// callee-saved register.
    ///
    /// # Errors
    /// Where the walk cannot begin.
    pub fn frames_tracking<const N: usize, M: MemoryReader>(
        &self,
        registers: &dyn UserRegisters,
        memory: M,
    ) -> Result<Frames<'_, A, S, M, TrackedRegisters<N>>, StartError> {
        Ok(self.resume(self.start_tracking::<N>(registers)?, memory))
    }

    /// Goes on from any state.
    pub fn resume<M: MemoryReader, R: RegisterSet>(
        &self,
        state: UnwindUserState<R>,
        memory: M,
    ) -> Frames<'_, A, S, M, R> {
        Frames { unwinder: self, state, memory, begun: false, ahead: None }
    }

    /// The state at the topmost frame: the seed's `unwind_user_start`.
    ///
    /// # Errors
    /// Where there are no user registers, or no ip or sp among them.
    pub fn start<'r>(
        &self,
        registers: &'r dyn UserRegisters,
    ) -> Result<UnwindUserState<TopmostRegisters<'r>>, StartError> {
        self.start_with(registers, |registers| TopmostRegisters::new(registers, self.arch.ra()))
    }

    /// As [`start`](Unwinder::start), tracking registers as
    /// [`frames_tracking`](Unwinder::frames_tracking) does.
    ///
    /// # Errors
    /// As for [`start`](Unwinder::start).
    pub fn start_tracking<const N: usize>(
        &self,
        registers: &dyn UserRegisters,
    ) -> Result<UnwindUserState<TrackedRegisters<N>>, StartError> {
        self.start_with(registers, TrackedRegisters::new)
    }

    fn start_with<'r, R: RegisterSet>(
        &self,
        registers: &'r dyn UserRegisters,
        set: impl FnOnce(&'r dyn UserRegisters) -> R,
    ) -> Result<UnwindUserState<R>, StartError> {
        if !registers.is_user() {
            return Err(StartError::NoUserRegisters);
        }
        let ip = registers.ip().ok_or(StartError::NoInstructionPointer)?;
        let sp = registers.get(self.arch.sp()).ok_or(StartError::NoStackPointer)?;
        let fp = registers.get(self.arch.fp());
        let word = self.arch.word_size();
        let pc = Pc::Exact(word.truncate(self.arch.strip_code_pointer(ip)));
        Ok(UnwindUserState::new(pc, sp, fp, word, set(registers)))
    }

    /// Moves `state` to the caller's frame: the seed's `unwind_user_next`.
    ///
    /// Once this has failed it fails again with the same answer, without trying, until
    /// [`UnwindUserState::retry`]: a loop over it cannot record one frame for ever.
    ///
    /// # Errors
    /// How the walk ended. Apart from that, `state` is as it was.
    #[inline]
    pub fn next<M: MemoryReader, R: RegisterSet>(
        &self,
        state: &mut UnwindUserState<R>,
        memory: &mut M,
    ) -> Result<Frame, End> {
        self.next_with(state, memory, None)
    }

    /// The same; `ahead` as for [`plain_step::next`].
    #[inline]
    fn next_with<M: MemoryReader, R: RegisterSet>(
        &self,
        state: &mut UnwindUserState<R>,
        memory: &mut M,
        ahead: Option<&mut Option<Plain>>,
    ) -> Result<Frame, End> {
        let (arch, source, options) = (&self.arch, &self.source, &self.options);
        if !plain_step::next(arch, source, options, state, memory, ahead) {
            step::step(self, state, memory);
        }
        match state.end {
            None => Ok(state.frame()),
            Some(end) => Err(end),
        }
    }
}

/// An iterator over the frames of a stack, innermost first. Ends for good when the walk does;
/// [`end`](Frames::end) then says how.
#[derive(Debug)]
pub struct Frames<'u, A, S, M, R> {
    unwinder: &'u Unwinder<A, S>,
    state: UnwindUserState<R>,
    memory: M,
    begun: bool,
    ahead: Option<Plain>,
}

impl<A, S, M, R: RegisterSet> Frames<'_, A, S, M, R> {
    /// How the walk ended, once it has.
    pub fn end(&self) -> Option<End> {
        self.state.end()
    }

    /// Where the walk stands: at the frame yielded last.
    pub fn state(&self) -> &UnwindUserState<R> {
        &self.state
    }
}

impl<A: Arch, S: FrameSource<A>, M: MemoryReader, R: RegisterSet> Iterator for Frames<'_, A, S, M, R> {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        if !self.begun {
            self.begun = true;
            return Some(self.state.frame());
        }
        self.unwinder.next_with(&mut self.state, &mut self.memory, Some(&mut self.ahead)).ok()
    }
}

impl<A: Arch, S: FrameSource<A>, M: MemoryReader, R: RegisterSet> core::iter::FusedIterator
    for Frames<'_, A, S, M, R>
{
}
