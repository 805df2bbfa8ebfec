//! Compares a walk with the truth.
//!
//! The demand: where every pc of the chain has call frame information, the walk is exact — every
//! pc, every sp, every register that it claims to know, and the end. Where some pc has none, the walk
//! is right, or it says that it does not know: its trust is below exact, or it ended as failed.

use unwind_core::{
    Cut, End, Frame, FrameSource, Frames, Mark, MemoryReader, Pc, Register, RegisterFile, RegisterSet,
    StepError, Trust,
};

use crate::oracle::truth::TrueFrame;

/// What a walk found.
#[derive(Clone, Debug)]
pub struct Walk<R> {
    /// The frames, each with the registers known there and the weakest trust up to it.
    pub frames: Vec<(Frame, R, Trust)>,
    /// How it ended.
    pub end: End,
}

impl<R: RegisterSet> Walk<R> {
    /// Carries a walk out; at most `most` frames.
    pub fn run<A, S, M>(mut frames: Frames<'_, A, S, M, R>, most: usize) -> Self
    where
        A: unwind_core::Arch,
        S: FrameSource<A>,
        M: MemoryReader,
    {
        let mut found = Vec::new();
        while found.len() < most {
            let Some(frame) = frames.next() else { break };
            found.push((frame, frames.state().registers().clone(), frames.state().weakest()));
        }
        let end = frames.end().unwrap_or(End::Truncated(Cut::FrameLimit));
        Walk { frames: found, end }
    }
}

/// Which kind of walk is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All sources, every register tracked.
    Tracking,
    /// All sources, ip, sp and fp alone: it may say that it lacks a register.
    Plain,
    /// The architecture's conventions alone: everything it finds is marked as such.
    Conventions,
}

/// The judgement on one walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Right to the end, and nothing in it is less than exact.
    Exact,
    /// Right to the end; a convention was used on the way, and the walk says so.
    MarkedRight,
    /// Wrong from this frame on, and the walk says that it may be.
    MarkedWrong(usize),
    /// Right as far as it goes; the walk says that it knows no more.
    Unknown,
    /// Wrong, and the walk claims that it is right; or it does not know where it should.
    Wrong(Fault),
}

/// What is wrong with a walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This frame's pc or sp is not the true one, or there is no such frame.
    Frame(usize),
    /// This frame is right, but has this register wrong.
    Register(usize, Register),
    /// All frames are right, and the last one is not the outermost: the end is wrong.
    End,
    /// All frames are right, but some are marked although every pc has call frame information.
    Trust,
}

/// The judge of one architecture.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'j> {
    /// The frame pointer.
    pub fp: Register,
    /// The registers that a call preserves, but sp.
    pub preserved: &'j [Register],
    /// The registers that a signal frame restores.
    pub all: &'j [Register],
}

impl Judge<'_> {
    /// Compares `walk` with `truth`. `has_cfi` says whether any table covers a pc.
    pub fn compare<R: RegisterFile, T: RegisterFile>(
        &self,
        mode: Mode,
        walk: &Walk<R>,
        truth: &[TrueFrame<T>],
        has_cfi: impl FnMut(Pc) -> bool,
    ) -> (Verdict, Recovered) {
        let mut recovered = Recovered::default();
        (self.verdict(mode, walk, truth, has_cfi, &mut recovered), recovered)
    }

    fn verdict<R: RegisterFile, T: RegisterFile>(
        &self,
        mode: Mode,
        walk: &Walk<R>,
        truth: &[TrueFrame<T>],
        mut has_cfi: impl FnMut(Pc) -> bool,
        recovered: &mut Recovered,
    ) -> Verdict {
        let with_cfi = match mode {
            Mode::Conventions => 0,
            Mode::Tracking | Mode::Plain => truth.iter().take_while(|frame| has_cfi(frame.pc)).count(),
        };
        for (index, (frame, registers, weakest)) in walk.frames.iter().enumerate() {
            let wrong = truth.get(index).is_none_or(|truth| {
                let sp = if frame.sp_is_bound { frame.sp > truth.sp } else { frame.sp != truth.sp };
                truth.pc != frame.pc || sp
            });
            // This frame was found with the rules of the frames before it.
            let must_be_right = index <= with_cfi || *weakest == Trust::Exact;
            if wrong && must_be_right {
                return Verdict::Wrong(Fault::Frame(index));
            }
            if wrong {
                return Verdict::MarkedWrong(index);
            }
            if must_be_right && let Err(register) = self.registers(&truth[index], frame, registers, recovered)
            {
                return Verdict::Wrong(Fault::Register(index, register));
            }
        }
        let reached = walk.frames.len();
        let weakest = walk.frames.last().map_or(Trust::Exact, |(_, _, weakest)| *weakest);
        let outermost = reached == truth.len();
        let must_go_on = reached <= with_cfi;
        match walk.end {
            End::Complete(mark) if outermost => match (weakest, mark) {
                (Trust::Exact, mark) if is_convention(mark) => Verdict::MarkedRight,
                (Trust::Exact, _) => Verdict::Exact,
                _ if with_cfi == truth.len() => Verdict::Wrong(Fault::Trust),
                _ => Verdict::MarkedRight,
            },
            End::Complete(mark) if !must_go_on && (weakest < Trust::Exact || is_convention(mark)) => {
                Verdict::MarkedWrong(reached)
            }
            End::Complete(_) => Verdict::Wrong(Fault::End),
            End::Failed(error)
                if mode == Mode::Plain
                    && reached > 1
                    && matches!(error.cause, StepError::UnknownRegister(_)) =>
            {
                Verdict::Unknown
            }
            End::Failed(_) | End::Truncated(_) if must_go_on => Verdict::Wrong(Fault::End),
            End::Failed(_) | End::Truncated(_) => Verdict::Unknown,
        }
    }

    /// Compares the registers of a frame. Fails at the first one that the walk claims to know, and has
    /// wrong.
    fn registers<R: RegisterFile, T: RegisterFile>(
        &self,
        truth: &TrueFrame<T>,
        frame: &Frame,
        registers: &R,
        recovered: &mut Recovered,
    ) -> Result<(), Register> {
        let Some(known) = truth.registers.as_ref() else {
            return Ok(());
        };
        let all = truth.pc.is_exact();
        for register in if all { self.all } else { self.preserved } {
            // The frame pointer is tracked apart from the others.
            let found = if *register == self.fp { frame.fp } else { registers.get(*register) };
            match (found, known.get(*register)) {
                (Some(found), Some(truth)) if found != truth => return Err(*register),
                (Some(_), Some(_)) => recovered.right += 1,
                (None, Some(_)) => recovered.unknown += 1,
                (_, None) => {}
            }
        }
        Ok(())
    }
}

/// Whether an end is one by convention, which no table says.
fn is_convention(mark: Mark) -> bool {
    matches!(mark, Mark::ZeroFramePointer | Mark::ZeroFrameRecord | Mark::ZeroBackChain)
}

/// How many registers of the frames, beside pc and sp, a walk recovered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Known, and right.
    pub right: u64,
    /// Unknown to the walk, though the call or signal preserved them.
    pub unknown: u64,
}

#[cfg(test)]
mod tests {
    use unwind_core::{Provenance, UnwindError};

    use super::*;

    const FP: Register = Register(6);
    const KEPT: Register = Register(3);
    const LOST: Register = Register(0);
    const JUDGE: Judge<'_> = Judge { fp: FP, preserved: &[KEPT, FP], all: &[LOST, KEPT, FP] };

    /// Register values by number, each known or unknown.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Values([Option<u64>; 7]);

    impl RegisterFile for Values {
        fn get(&self, register: Register) -> Option<u64> {
            self.0.get(usize::from(register.0)).copied().flatten()
        }
    }

    fn values(kept: u64) -> Values {
        Values([Some(1), None, None, Some(kept), None, None, Some(2)])
    }

    /// Three frames, the middle one interrupted by a signal.
    fn truth() -> Vec<TrueFrame<Values>> {
        [Pc::Exact(0x100), Pc::Exact(0x200), Pc::Return(0x300)]
            .into_iter()
            .zip([0x1000, 0x1010, 0x1020])
            .map(|(pc, sp)| TrueFrame { pc, sp, registers: Some(values(5)) })
            .collect()
    }

    fn walk(end: End) -> Walk<Values> {
        let frame = |truth: TrueFrame<Values>| {
            let frame = Frame::new(truth.pc, truth.sp, Some(2), Provenance::REGISTERS);
            (frame, values(5), Trust::Exact)
        };
        Walk { frames: truth().into_iter().map(frame).collect(), end }
    }

    const COMPLETE: End = End::Complete(Mark::UndefinedReturnAddress);

    fn failed(cause: StepError) -> End {
        End::Failed(UnwindError::new(cause, Pc::Return(0x300), None))
    }

    fn verdict(mode: Mode, walk: &Walk<Values>, covered: u64) -> Verdict {
        JUDGE.compare(mode, walk, &truth(), |pc| pc.address() < covered).0
    }

    #[test]
    fn right_is_right() {
        let (verdict, recovered) = JUDGE.compare(Mode::Tracking, &walk(COMPLETE), &truth(), |_| true);
        assert_eq!(verdict, Verdict::Exact);
        // All three registers of the first two frames, the two preserved ones of the last.
        assert_eq!(recovered, Recovered { right: 8, unknown: 0 });
    }

    #[test]
    fn what_is_wrong_where_tables_reach_is_a_fault() {
        let mut wrong = walk(COMPLETE);
        wrong.frames[2].0.pc = Pc::Return(0x301);
        assert_eq!(verdict(Mode::Tracking, &wrong, 0x1000), Verdict::Wrong(Fault::Frame(2)));
        let mut wrong = walk(COMPLETE);
        wrong.frames[1].0.pc = Pc::Return(0x200);
        assert_eq!(verdict(Mode::Plain, &wrong, 0x1000), Verdict::Wrong(Fault::Frame(1)));
        let mut wrong = walk(COMPLETE);
        wrong.frames[2].0.sp += 8;
        assert_eq!(verdict(Mode::Tracking, &wrong, 0x1000), Verdict::Wrong(Fault::Frame(2)));
        let mut long = walk(COMPLETE);
        long.frames.push(long.frames[2]);
        assert_eq!(verdict(Mode::Tracking, &long, 0x1000), Verdict::Wrong(Fault::Frame(3)));
    }

    #[test]
    fn a_mark_is_no_excuse_where_tables_reach() {
        let mut marked = walk(COMPLETE);
        marked.frames[2].2 = Trust::Convention;
        assert_eq!(verdict(Mode::Tracking, &marked, 0x1000), Verdict::Wrong(Fault::Trust));
        assert_eq!(verdict(Mode::Tracking, &marked, 0x200), Verdict::MarkedRight);
        marked.frames[2].0.pc = Pc::Return(0x301);
        assert_eq!(verdict(Mode::Tracking, &marked, 0x1000), Verdict::Wrong(Fault::Frame(2)));
        assert_eq!(verdict(Mode::Tracking, &marked, 0x200), Verdict::MarkedWrong(2));
        // Nor where they do not, without the mark.
        marked.frames[2].2 = Trust::Exact;
        assert_eq!(verdict(Mode::Tracking, &marked, 0x200), Verdict::Wrong(Fault::Frame(2)));
    }

    #[test]
    fn an_early_end_is_a_fault_where_tables_reach() {
        for end in [COMPLETE, failed(StepError::NotCovered), End::Truncated(Cut::FrameLimit)] {
            let mut short = walk(end);
            short.frames.pop();
            assert_eq!(verdict(Mode::Tracking, &short, 0x1000), Verdict::Wrong(Fault::End));
        }
        let mut short = walk(failed(StepError::NotCovered));
        short.frames.pop();
        assert_eq!(verdict(Mode::Tracking, &short, 0x200), Verdict::Unknown);
        short.end = COMPLETE;
        assert_eq!(verdict(Mode::Tracking, &short, 0x200), Verdict::Wrong(Fault::End));
        // The last frame's table says that it is the outermost: not to know is a fault as well.
        assert_eq!(
            verdict(Mode::Tracking, &walk(failed(StepError::NotCovered)), 0x1000),
            Verdict::Wrong(Fault::End)
        );
    }

    #[test]
    fn a_walk_of_three_registers_may_lack_another() {
        let mut short = walk(failed(StepError::UnknownRegister(KEPT)));
        short.frames.pop();
        assert_eq!(verdict(Mode::Plain, &short, 0x1000), Verdict::Unknown);
        assert_eq!(verdict(Mode::Tracking, &short, 0x1000), Verdict::Wrong(Fault::End));
        // In the topmost frame it knows all of them.
        short.frames.pop();
        assert_eq!(verdict(Mode::Plain, &short, 0x1000), Verdict::Wrong(Fault::End));
    }

    #[test]
    fn registers_are_right_or_unknown() {
        let mut wrong = walk(COMPLETE);
        wrong.frames[2].1 = values(6);
        assert_eq!(verdict(Mode::Tracking, &wrong, 0x1000), Verdict::Wrong(Fault::Register(2, KEPT)));
        wrong.frames[2].1 = Values([None; 7]);
        assert_eq!(verdict(Mode::Tracking, &wrong, 0x1000), Verdict::Exact);
        // A call does not preserve this one, a signal does.
        wrong.frames[2].1 = Values([Some(77), None, None, Some(5), None, None, None]);
        assert_eq!(verdict(Mode::Tracking, &wrong, 0x1000), Verdict::Exact);
        wrong.frames[1].1 = wrong.frames[2].1;
        assert_eq!(verdict(Mode::Tracking, &wrong, 0x1000), Verdict::Wrong(Fault::Register(1, LOST)));
        let mut wrong = walk(COMPLETE);
        wrong.frames[2].0.fp = Some(3);
        assert_eq!(verdict(Mode::Plain, &wrong, 0x1000), Verdict::Wrong(Fault::Register(2, FP)));
    }

    #[test]
    fn conventions_are_always_marked() {
        let mut marked = walk(End::Complete(Mark::ZeroFramePointer));
        marked.frames[2].2 = Trust::Convention;
        assert_eq!(verdict(Mode::Conventions, &marked, 0x1000), Verdict::MarkedRight);
        marked.frames[2].0.sp += 8;
        assert_eq!(verdict(Mode::Conventions, &marked, 0x1000), Verdict::MarkedWrong(2));
        marked.frames.pop();
        assert_eq!(verdict(Mode::Conventions, &marked, 0x1000), Verdict::MarkedWrong(2));
    }
}
