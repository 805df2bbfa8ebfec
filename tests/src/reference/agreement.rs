//! Whether the library's walk is the reference's.

use std::collections::HashMap;

use unwind_core::{End, Frame, Pc, StepError, UnwindError};

/// The frames of a walk, innermost first, and how it ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Walk {
    /// The frames.
    pub frames: Vec<Frame>,
    /// The end.
    pub end: End,
}

/// Checks that the library walked as the reference did: the same frames in every field, and the
/// same end.
///
/// One thing is different: the reference goes round in circles over signal frames until its frame
/// limit stops it. The library has to notice, only where there is a circle, and soon: within three
/// times the number of signal frames before and in the circle (it compares with the one seen at the
/// last power of two).
pub fn agree(library: &Walk, reference: &Walk) -> Result<(), String> {
    let yielded = library.frames.len();
    for (index, (ours, theirs)) in library.frames.iter().zip(&reference.frames).enumerate() {
        if ours != theirs {
            return Err(format!("frame {index} is\n  {ours:x?}, the reference says\n  {theirs:x?}"));
        }
    }
    if yielded > reference.frames.len() {
        return Err(format!(
            "{yielded} frames, the reference has {} and {:x?}",
            reference.frames.len(),
            reference.end
        ));
    }
    let circle = match (library.end, reference.frames.get(yielded)) {
        (End::Failed(UnwindError { cause: StepError::Loop, .. }), Some(next)) => Some(next),
        // A guess that leads nowhere ends with the reason why one was needed.
        (End::Failed(UnwindError { cause, source, .. }), Some(next))
            if next.provenance.unusable.map(|(kind, why)| (Some(kind), why.into()))
                == Some((source, cause)) =>
        {
            Some(next)
        }
        _ => None,
    };
    if let Some(next) = circle {
        return closes_a_circle(&library.frames, next);
    }
    if library != reference {
        return Err(format!(
            "ends after {yielded} frames with\n  {:x?}, the reference after {} with\n  {:x?}",
            library.end,
            reference.frames.len(),
            reference.end
        ));
    }
    let (seen, first_repeat) = signal_frames(&library.frames);
    if let Some(first_repeat) = first_repeat
        && seen > 3 * first_repeat + 3
    {
        return Err(format!("{seen} signal frames, in a circle since the {first_repeat}th"));
    }
    Ok(())
}

/// The frame that the library refused to yield must be a signal frame seen before.
fn closes_a_circle(frames: &[Frame], next: &Frame) -> Result<(), String> {
    let seen = frames.iter().skip(1).any(|frame| (frame.pc, frame.sp) == (next.pc, next.sp));
    if matches!(next.pc, Pc::Exact(_)) && seen {
        Ok(())
    } else {
        Err(format!("{next:x?} after {} frames is taken for a circle", frames.len()))
    }
}

/// How many frames a signal interrupted, and the number of the first that was there before.
fn signal_frames(frames: &[Frame]) -> (usize, Option<usize>) {
    let mut places: HashMap<(u64, u64), usize> = HashMap::new();
    let mut repeat = None;
    let mut seen = 0;
    for frame in frames.iter().skip(1).filter(|frame| frame.pc.is_exact()) {
        seen += 1;
        let place = (frame.pc.address(), frame.sp);
        if places.insert(place, seen).is_some() {
            repeat = repeat.or(Some(seen));
        }
    }
    (seen, repeat)
}
