//! Judging walks by tables that are right at call sites only.
//!
//! Where such a table is all there is for an exact pc, what is found from there on may be wrong, and is marked. Judged as
//! a whole, such a walk could be wrong anywhere behind that pc. But where the very next frame is right, and so is every register
//! known there, nothing excuses the rest: it is judged again as a walk of its own that begins there.

use unwind_core::{End, Pc, RegisterFile, StepError, Trust, UnwindError};

use crate::oracle::judge::{Fault, Judge, Mode, Recovered, Verdict, Walk};
use crate::oracle::truth::TrueFrame;

/// Compares `walk` with `truth`. `covers` says whether a table that is right at a pc covers it.
pub(super) fn compare<R: RegisterFile + Clone, T: RegisterFile>(
    judge: &Judge<'_>,
    mode: Mode,
    walk: &Walk<R>,
    truth: &[TrueFrame<T>],
    covers: impl Fn(Pc) -> bool,
) -> (Verdict, Recovered) {
    let (verdict, mut recovered) = judge.compare(mode, walk, truth, &covers);
    if mode == Mode::Conventions || matches!(verdict, Verdict::Wrong(_)) {
        return (verdict, recovered);
    }
    for start in 1..walk.frames.len().min(truth.len()) {
        let doubtful = truth[start - 1].pc;
        if !doubtful.is_exact() || covers(doubtful) || !is_right(judge, walk, truth, start) {
            continue;
        }
        let rest = rest(walk, start);
        let (verdict, more) = judge.compare(mode, &rest, &truth[start..], &covers);
        recovered.right += more.right;
        recovered.unknown += more.unknown;
        let Verdict::Wrong(fault) = verdict else { continue };
        // Unlike that of the topmost frame, not all registers of this one need to be known.
        let lacks = matches!(rest.end, End::Failed(UnwindError { cause: StepError::UnknownRegister(_), .. }));
        if mode == Mode::Plain && fault == Fault::End && lacks {
            continue;
        }
        let fault = match fault {
            Fault::Frame(index) => Fault::Frame(index + start),
            Fault::Register(index, register) => Fault::Register(index + start, register),
            Fault::End | Fault::Trust => fault,
        };
        return (Verdict::Wrong(fault), recovered);
    }
    (verdict, recovered)
}

/// Whether the walk has this frame right, with every register that it claims to know.
fn is_right<R: RegisterFile, T: RegisterFile>(
    judge: &Judge<'_>,
    walk: &Walk<R>,
    truth: &[TrueFrame<T>],
    index: usize,
) -> bool {
    let ((frame, registers, _), truth) = (&walk.frames[index], &truth[index]);
    let Some(known) = truth.registers.as_ref() else { return false };
    let register_is_right = |register: &unwind_core::Register| {
        let found = if *register == judge.fp { frame.fp } else { registers.get(*register) };
        found.is_none() || found == known.get(*register)
    };
    (frame.pc, frame.sp, frame.sp_is_bound) == (truth.pc, truth.sp, false)
        && judge.preserved.iter().all(register_is_right)
}

/// The walk from this frame on, with the trust that it has earned since.
fn rest<R: Clone>(walk: &Walk<R>, start: usize) -> Walk<R> {
    let mut weakest = Trust::Exact;
    let frames = walk.frames[start..].iter().enumerate().map(|(index, (frame, registers, _))| {
        if index > 0 {
            weakest = weakest.min(frame.provenance.trust);
        }
        (*frame, registers.clone(), weakest)
    });
    Walk { frames: frames.collect(), end: walk.end }
}

#[cfg(test)]
mod tests {
    use unwind_core::{Frame, Mark, Provenance, Register};

    use super::*;

    const KEPT: Register = Register(4);
    const JUDGE: Judge<'_> = Judge { fp: Register(11), preserved: &[KEPT], all: &[KEPT] };

    #[derive(Clone)]
    struct Kept(u64);

    impl RegisterFile for Kept {
        fn get(&self, register: Register) -> Option<u64> {
            (register == KEPT).then_some(self.0)
        }
    }

    const CHAIN: [(Pc, u64); 4] = [
        (Pc::Exact(0x100), 0x10),
        (Pc::Return(0x200), 0x20),
        (Pc::Return(0x300), 0x30),
        (Pc::Return(0x400), 0x40),
    ];

    fn truth() -> Vec<TrueFrame<Kept>> {
        CHAIN.iter().map(|&(pc, sp)| TrueFrame { pc, sp, registers: Some(Kept(7)) }).collect()
    }

    /// As a table of calls finds it: marked from the first step on.
    fn walk() -> Walk<Kept> {
        let frame = |(index, &(pc, sp)): (usize, &(Pc, u64))| {
            let trust = if index == 1 { Trust::CallSite } else { Trust::Exact };
            let mut provenance = Provenance::REGISTERS;
            provenance.trust = trust;
            let weakest = if index == 0 { Trust::Exact } else { Trust::CallSite };
            (Frame::new(pc, sp, None, provenance), Kept(7), weakest)
        };
        let end = End::Complete(Mark::UndefinedReturnAddress);
        Walk { frames: CHAIN.iter().enumerate().map(frame).collect(), end }
    }

    fn verdict(walk: &Walk<Kept>) -> Verdict {
        compare(&JUDGE, Mode::Tracking, walk, &truth(), |pc| !pc.is_exact()).0
    }

    #[test]
    fn what_follows_a_right_frame_has_no_excuse() {
        assert_eq!(verdict(&walk()), Verdict::MarkedRight);
        let mut wrong = walk();
        wrong.frames[3].0.sp += 4;
        assert_eq!(verdict(&wrong), Verdict::Wrong(Fault::Frame(3)));
        let mut wrong = walk();
        wrong.frames[2].1 = Kept(8);
        assert_eq!(verdict(&wrong), Verdict::Wrong(Fault::Register(2, KEPT)));
        let mut short = walk();
        short.frames.truncate(3);
        assert_eq!(verdict(&short), Verdict::Wrong(Fault::End));
    }

    #[test]
    fn what_follows_a_wrong_one_is_marked() {
        let mut wrong = walk();
        wrong.frames[1].0.sp += 4;
        assert_eq!(verdict(&wrong), Verdict::MarkedWrong(1));
        // With a wrong register the next step may go anywhere.
        let mut wrong = walk();
        wrong.frames[1].1 = Kept(8);
        wrong.frames[2].0.sp += 4;
        assert_eq!(verdict(&wrong), Verdict::MarkedWrong(2));
        // Without the mark it is a fault.
        wrong.frames[2].2 = Trust::Exact;
        assert_eq!(verdict(&wrong), Verdict::Wrong(Fault::Frame(2)));
    }
}
