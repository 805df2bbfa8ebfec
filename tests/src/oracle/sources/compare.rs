//! Follows a walk frame by frame, beside one that was made before.

use unwind_core::{
    Arch, Cut, End, Found, Frame, FrameSource, Frames, LookupError, Mark, MemoryReader, Pc, Register,
    RegisterFile, RegisterSet, StepError, Trust, UnwindError, UnwindStacktrace,
};

use crate::oracle::judge::Walk;

/// Whether a table leaves the rule at a pc to what it was made of.
pub(super) type Leaves<'l> = Option<&'l dyn Fn(Pc) -> bool>;

/// Two walks are the same.
pub(super) struct Same {
    /// How many frames.
    pub(super) frames: u64,
    /// Up to a pc that the table leaves to its original.
    pub(super) is_left: bool,
}

/// Two walks are not the same.
pub(super) struct Difference {
    pub(super) text: String,
}

impl Difference {
    pub(super) fn of_rules(
        pc: Pc,
        with: &Result<Option<Found>, LookupError>,
        without: &Result<Option<Found>, LookupError>,
    ) -> Self {
        Difference { text: format!("at {pc:x?} the cache says {with:x?}, the source {without:x?}") }
    }
}

/// Compares `frames` with `walk`, and the first `count` registers of each frame. `leaves` says where a table may
/// stop, or go on by less; in other walks it must not.
pub(super) fn follow<A, S, M, R, Q>(
    mut frames: Frames<'_, A, S, M, R>,
    walk: &Walk<Q>,
    count: u16,
    leaves: Leaves<'_>,
) -> Result<Same, Difference>
where
    A: Arch,
    S: FrameSource<A>,
    M: MemoryReader,
    R: RegisterSet,
    Q: RegisterFile,
{
    let mut before: Option<Pc> = None;
    let mut is_after_signal = false;
    for (index, (expected, registers, weakest)) in walk.frames.iter().enumerate() {
        let found = frames.next();
        let is_same = found.is_some_and(|found| is_same(&found, expected))
            && frames.state().weakest() == *weakest
            && (0..count).all(|number| {
                let register = Register(number);
                frames.state().registers().get(register) == registers.get(register)
            });
        if is_same {
            is_after_signal |= index > 0 && expected.pc.is_exact();
            before = Some(expected.pc);
            continue;
        }
        let end = frames.end();
        // The same place, told by something else than the original.
        let is_there = found.is_some_and(|found| (found.pc, found.sp) == (expected.pc, expected.sp));
        let is_left = before.zip(leaves).is_some_and(|(pc, leaves)| is_there && leaves(pc));
        if is_left || may_stop(before, end, frames.state().weakest(), is_after_signal, leaves) {
            return Ok(Same { frames: index as u64, is_left: true });
        }
        return Err(Difference {
            text: format!(
                "#{index} is {found:x?}, {end:x?}, registers {:x?}; in place it is {expected:x?}, registers {:x?}",
                known(frames.state().registers(), count),
                known(registers, count),
            ),
        });
    }
    let compared = walk.frames.len() as u64;
    // The walk in place may have been cut off at a number of frames.
    if walk.end == End::Truncated(Cut::FrameLimit) {
        return Ok(Same { frames: compared, is_left: false });
    }
    let found = frames.next();
    let end = frames.end();
    if found.is_none() && end.is_some_and(|end| without_source(end) == without_source(walk.end)) {
        return Ok(Same { frames: compared, is_left: false });
    }
    if may_stop(before, end, frames.state().weakest(), is_after_signal, leaves) {
        return Ok(Same { frames: compared, is_left: true });
    }
    Err(Difference {
        text: format!("behind #{compared}: {found:x?}, {end:x?}; in place it ends: {:x?}", walk.end),
    })
}

/// Compares what `unwind_user` found with `walk`; there was room for as many frames as that has.
pub(super) fn at_once<Q>(
    trace: &UnwindStacktrace,
    entries: &[u64],
    walk: &Walk<Q>,
) -> Result<Same, Difference> {
    let same =
        entries.iter().zip(&walk.frames).take_while(|(entry, (frame, ..))| **entry == frame.pc.address());
    let same = same.count();
    let weakest = walk.frames.last().map(|(.., weakest)| *weakest);
    // The walk in place may have been cut off at a number of frames.
    let cut_off = matches!(walk.end, End::Truncated(Cut::FrameLimit))
        && matches!(trace.end, End::Truncated(Cut::BufferFull));
    let ends_so = cut_off || without_source(trace.end) == without_source(walk.end);
    if same == walk.frames.len() && trace.nr == same && Some(trace.weakest) == weakest && ends_so {
        return Ok(Same { frames: 0, is_left: false });
    }
    let frames = walk.frames.len();
    Err(Difference {
        text: format!(
            "at once: {same} of {frames} frames are the same, {trace:x?}; in place it ends: {:x?}",
            walk.end
        ),
    })
}

/// The same place; which kind of table told it may differ.
fn is_same(found: &Frame, expected: &Frame) -> bool {
    (found.pc, found.sp, found.sp_is_bound, found.fp, found.provenance.trust)
        == (expected.pc, expected.sp, expected.sp_is_bound, expected.fp, expected.provenance.trust)
}

fn without_source(end: End) -> End {
    match end {
        End::Failed(error) => End::Failed(UnwindError::new(error.cause, error.pc, None)),
        end => end,
    }
}

/// Whether a walk with nothing behind its table may differ behind the frame at `pc`: the table leaves it to the
/// original, and the walk says that it knows no more, or marks what follows. Behind a signal frame it may lack registers
/// that only the original tells.
fn may_stop(
    pc: Option<Pc>,
    end: Option<End>,
    weakest: Trust,
    is_after_signal: bool,
    leaves: Leaves<'_>,
) -> bool {
    let (Some(pc), Some(leaves)) = (pc, leaves) else { return false };
    let lacks = matches!(end, Some(End::Failed(UnwindError { cause: StepError::UnknownRegister(_), .. })));
    let is_marked = match end {
        None => weakest < Trust::Exact,
        Some(End::Complete(mark)) => {
            matches!(mark, Mark::ZeroFramePointer | Mark::ZeroFrameRecord | Mark::ZeroBackChain)
        }
        Some(End::Failed(_) | End::Truncated(_)) => true,
    };
    leaves(pc) && is_marked || is_after_signal && lacks
}

fn known<R: RegisterFile>(registers: &R, count: u16) -> Vec<Option<u64>> {
    (0..count).map(|number| registers.get(Register(number))).collect()
}
