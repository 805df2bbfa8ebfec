//! A stack that has been laid out, and the truth about it.

use std::collections::BTreeSet;

use unwind_core::{Cut, End, Frame, MemoryError, Options, StepError};

use super::{AnyArch, Memory, Registers, Rules};
use crate::reference::Walk;

/// Everything that a walk is given, and what it must find.
#[derive(Clone, Debug)]
pub struct Stack {
    /// The architecture.
    pub arch: AnyArch,
    /// Where the walk starts.
    pub registers: Registers,
    /// The stack, and code if it can be read.
    pub memory: Memory,
    /// The addresses of the stack's words.
    pub words: BTreeSet<u64>,
    /// First and last address of every function.
    pub functions: Vec<(u64, u64)>,
    /// The source.
    pub rules: Rules,
    /// The options.
    pub options: Options,
    /// The true frames, innermost first.
    pub frames: Vec<Frame>,
    /// How a walk must end.
    pub end: End,
    /// What the step from each frame reads from the stack.
    pub reads: Vec<Reads>,
}

/// The words of the stack that a step reads.
#[derive(Clone, Debug, Default)]
pub struct Reads {
    /// Their addresses.
    pub words: Vec<u64>,
    /// Whether they are read in this order. The order of a signal trampoline's registers is
    /// nobody's promise.
    pub in_order: bool,
    /// Whether its rule is a guess. What goes wrong with it is then not worth reporting: the reason
    /// why one was needed is.
    pub guess: bool,
}

impl Stack {
    /// The truth as a walk.
    pub fn truth(&self) -> Walk {
        Walk { frames: self.frames.clone(), end: self.end }
    }

    /// The addresses of all words that the whole walk needs, in ascending order.
    pub fn needed_words(&self) -> Vec<u64> {
        let mut words: Vec<u64> = self.reads.iter().flat_map(|reads| reads.words.clone()).collect();
        words.sort_unstable();
        words.dedup();
        words
    }

    /// How many frames are still right when bytes of the stack are not what they were: all up to
    /// the first whose step reads one of them.
    pub fn right_frames(&self, changed: impl Fn(u64) -> bool) -> usize {
        let word = self.arch.word();
        let touched = |reads: &Reads| {
            reads.words.iter().any(|at| (0..word).any(|offset| changed(at.wrapping_add(offset))))
        };
        let first = self.reads.iter().position(touched);
        first.map_or(self.frames.len(), |index| (index + 1).min(self.frames.len()))
    }

    /// Checks what a walk over this stack found in memory in which some bytes are missing: an exact
    /// prefix, and the address that is missing.
    ///
    /// # Errors
    /// What is wrong with the walk.
    pub fn check_cut(&self, walk: &Walk, memory: &Memory) -> Result<(), String> {
        let first_missing = |word: &u64| {
            (0..self.arch.word()).map(|byte| word.wrapping_add(byte)).find(|at| memory.get(*at).is_none())
        };
        let missing = |word: &u64| first_missing(word).is_some();
        let Some(index) = self.reads.iter().position(|reads| reads.words.iter().any(missing)) else {
            return if *walk == self.truth() {
                Ok(())
            } else {
                Err("nothing that it needs is missing".into())
            };
        };
        let prefix = &self.frames[..=index];
        if walk.frames != prefix {
            return Err(format!("{} frames, not {}", walk.frames.len(), prefix.len()));
        }
        let reads = &self.reads[index];
        if reads.guess {
            let cause = if let End::Failed(error) = walk.end { Some(error.cause) } else { None };
            let as_expected = matches!(cause, Some(StepError::Broken(_)));
            return if as_expected { Ok(()) } else { Err(format!("a guess ends with {:x?}", walk.end)) };
        }
        let mut possible: Vec<u64> = reads.words.iter().copied().filter(missing).collect();
        if reads.in_order {
            possible.truncate(1);
        }
        let expected = possible
            .iter()
            .filter_map(first_missing)
            .any(|address| walk.end == End::Truncated(Cut::Memory(MemoryError::Unreadable { address })));
        if expected {
            Ok(())
        } else {
            Err(format!("ends with {:x?}, missing is one of {possible:x?}", walk.end))
        }
    }
}
