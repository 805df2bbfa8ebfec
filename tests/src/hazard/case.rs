//! A case: what an unwinder is given, and what it must find.

use crate::synthetic::{AnyArch, Memory, Registers};

/// Everything that an unwinder is given, and what it must find.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is special about it.
    pub name: String,
    /// The target.
    pub arch: AnyArch,
    /// Its modules, in ascending order.
    pub images: Vec<Image>,
    /// Whether there is no other code in the target.
    pub is_all_code: bool,
    /// Where execution stopped.
    pub registers: Registers,
    /// What can be read.
    pub memory: Memories,
    /// What the unwinder has seen before, with all that it remembers.
    pub earlier: Option<Earlier>,
    /// What it must find.
    pub expect: Expect,
}

/// A walk before the one that counts.
#[derive(Clone, Debug)]
pub struct Earlier {
    /// The modules at that time.
    pub images: Vec<Image>,
    /// What could be read at that time.
    pub memory: Memory,
    /// How often the modules changed since then, one being removed and one added counting as two.
    pub changes: u64,
}

/// A module, as a file and a loader make it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Its code (avma): the first address, and the first one beyond.
    pub code: (u64, u64),
    /// avma minus svma, modulo the address space.
    pub bias: u64,
    /// `.eh_frame`: bytes and address (svma).
    pub eh_frame: Option<(Vec<u8>, u64)>,
    /// `.eh_frame_hdr`.
    pub eh_frame_hdr: Option<(Vec<u8>, u64)>,
    /// `.debug_frame`.
    pub debug_frame: Option<Vec<u8>>,
    /// The address of `.text` (svma).
    pub text_svma: Option<u64>,
    /// The address of `.got` (svma).
    pub got_svma: Option<u64>,
    /// `.sframe`.
    pub sframe: Option<(Vec<u8>, u64)>,
    /// `.ARM.exidx` and `.ARM.extab`.
    pub ehabi: Option<[(Vec<u8>, u64); 2]>,
}

/// What can be read.
#[derive(Clone, Debug)]
pub enum Memories {
    /// The same every time.
    Still(Memory),
    /// Another thread runs: see [`Changing`](crate::synthetic::Changing).
    Changing(Memory, u64),
}

/// What must be found.
#[derive(Clone, Debug)]
pub struct Expect {
    /// The first frames: pc, and sp.
    pub frames: Vec<(u64, u64)>,
    /// What comes then.
    pub then: Then,
    /// Addresses that are wrong wherever they appear.
    pub never: Vec<u64>,
}

/// What comes behind the frames that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing: that was the outermost frame, and the unwinder says so.
    Complete,
    /// Nothing: there is more, or nobody knows, and the unwinder does not say that it is done.
    Stops,
    /// Nothing, whatever is said about it.
    Ends,
    /// Nobody can tell; but it ends.
    Anything,
}

/// What an unwinder found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// pc and sp of every frame, innermost first.
    pub frames: Vec<(u64, u64)>,
    /// How it ended.
    pub ended: Ended,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The unwinder says that it found the outermost frame.
    Complete,
    /// It says that it did not.
    Incomplete,
    /// It did not end: so many frames are none.
    Endless,
}

/// The most frames that a walk of a case may have: what goes on longer is endless.
pub const MOST_FRAMES: usize = 10_000;

/// An unwinder that can be put through the cases.
pub trait Unwinder {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Walks, in as many ways as it has, and says what each found; `None` where it does not support the
    /// architecture or the tables of the case.
    fn walk(&self, case: &Case) -> Option<Vec<(&'static str, Found)>>;
}

/// What a walk is worth, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Everything is as it must be.
    Pass,
    /// The frames are right, but what is said about the end is not.
    WrongEnd,
    /// A frame is missing.
    Missing,
    /// A frame is wrong.
    Wrong,
    /// It panicked.
    Panic,
    /// It does not end.
    Endless,
}

/// Judges what was found.
pub fn judge(expect: &Expect, found: &Found) -> Verdict {
    let Expect { frames, then, never } = expect;
    if found.ended == Ended::Endless {
        return Verdict::Endless;
    }
    let known = frames.len().min(found.frames.len());
    let is_wrong = found.frames[..known] != frames[..known];
    let is_invented = *then != Then::Anything && found.frames.len() > frames.len();
    if is_wrong || is_invented || found.frames.iter().any(|(pc, _)| never.contains(pc)) {
        return Verdict::Wrong;
    }
    if found.frames.len() < frames.len() {
        return Verdict::Missing;
    }
    match (then, found.ended) {
        (Then::Complete, Ended::Incomplete) | (Then::Stops, Ended::Complete) => Verdict::WrongEnd,
        _ => Verdict::Pass,
    }
}

impl Memories {
    /// The memory before anything goes wrong with it.
    pub fn still(&self) -> &Memory {
        match self {
            Memories::Still(memory) | Memories::Changing(memory, _) => memory,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let expect = |then| Expect { frames: vec![(1, 10), (2, 20)], then, never: vec![66] };
        let found = |frames: &[(u64, u64)], ended| Found { frames: frames.to_vec(), ended };
        let right = [(1, 10), (2, 20)];
        let more = [(1, 10), (2, 20), (3, 30)];
        let (complete, incomplete) = (Ended::Complete, Ended::Incomplete);
        for (then, frames, ended, verdict) in [
            (Then::Complete, &right[..], complete, Verdict::Pass),
            (Then::Complete, &right, incomplete, Verdict::WrongEnd),
            (Then::Complete, &right, Ended::Endless, Verdict::Endless),
            (Then::Complete, &right[..1], complete, Verdict::Missing),
            (Then::Complete, &more, complete, Verdict::Wrong),
            (Then::Complete, &[(1, 10), (2, 21)], complete, Verdict::Wrong),
            (Then::Stops, &right, incomplete, Verdict::Pass),
            (Then::Stops, &right, complete, Verdict::WrongEnd),
            (Then::Stops, &more, incomplete, Verdict::Wrong),
            (Then::Ends, &right, complete, Verdict::Pass),
            (Then::Ends, &more, complete, Verdict::Wrong),
            (Then::Anything, &more, complete, Verdict::Pass),
            (Then::Anything, &[(1, 10), (2, 20), (66, 30)], complete, Verdict::Wrong),
        ] {
            assert_eq!(judge(&expect(then), &found(frames, ended)), verdict, "{then:?} {frames:?} {ended:?}");
        }
    }
}
