//! Where a walk stands.

use crate::{End, Pc, Provenance, RegisterSet, Trust, WordSize};

/// Where a walk stands: the seed's `struct unwind_user_state`.
///
/// `R` is what it tracks beside ip, sp and fp; see [`RegisterSet`]. Made by
/// [`Unwinder::start`](crate::Unwinder::start), advanced by [`Unwinder::next`](crate::Unwinder::next).
#[derive(Clone, Debug)]
pub struct UnwindUserState<R> {
    pub(crate) pc: Pc,
    pub(crate) sp: u64,
    pub(crate) fp: Option<u64>,
    pub(crate) registers: R,
    pub(crate) provenance: Provenance,
    pub(crate) weakest: Trust,
    pub(crate) word_size: WordSize,
    pub(crate) sp_is_bound: bool,
    pub(crate) topmost: bool,
    pub(crate) depth: u32,
    pub(crate) signals: SignalTrail,
    pub(crate) end: Option<End>,
}

/// Every circle of steps leads over a signal frame, because anything else shrinks the stack. So
/// it is enough to compare the (pc, sp) at a signal frame with one seen before: Brent's scheme,
/// which keeps the one seen at the last power of two.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SignalTrail {
    pub(crate) seen: u32,
    pub(crate) pc: u64,
    pub(crate) sp: u64,
}

impl<R: RegisterSet> UnwindUserState<R> {
    /// A state to begin at that no register file describes: a suspended coroutine's saved
    /// context, a return address and stack pointer taken from elsewhere.
    pub fn new(pc: Pc, sp: u64, fp: Option<u64>, word_size: WordSize, registers: R) -> Self {
        UnwindUserState {
            pc,
            sp: word_size.truncate(sp),
            fp: fp.map(|fp| word_size.truncate(fp)),
            registers,
            provenance: Provenance::REGISTERS,
            weakest: Trust::Exact,
            word_size,
            sp_is_bound: false,
            topmost: true,
            depth: 0,
            signals: SignalTrail::default(),
            end: None,
        }
    }

    /// The program counter of the frame at hand (avma).
    pub fn pc(&self) -> Pc {
        self.pc
    }

    /// Its address: the seed's `state.ip`.
    pub fn ip(&self) -> u64 {
        self.pc.address()
    }

    /// The stack pointer.
    pub fn sp(&self) -> u64 {
        self.sp
    }

    /// The frame pointer, if known.
    pub fn fp(&self) -> Option<u64> {
        self.fp
    }

    /// The size of the target's words.
    pub fn word_size(&self) -> WordSize {
        self.word_size
    }

    /// Whether no step has been taken yet.
    pub fn topmost(&self) -> bool {
        self.topmost
    }

    /// Which rule led to the frame at hand.
    pub fn provenance(&self) -> Provenance {
        self.provenance
    }

    /// The least trusted rule of the walk so far: a frame is no better than those before it.
    pub fn weakest(&self) -> Trust {
        self.weakest
    }

    /// How many steps have been taken.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// What is tracked beside ip, sp and fp.
    pub fn registers(&self) -> &R {
        &self.registers
    }

    /// How the walk ended, once it has: the seed's `state.done`.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Lets a walk that has ended try its last step again: after a memory read that may succeed
    /// now. Everything else of the state is as it was before that step.
    pub fn retry(&mut self) {
        self.end = None;
    }

    /// The frame at hand.
    pub fn frame(&self) -> crate::Frame {
        crate::Frame {
            pc: self.pc,
            sp: self.sp,
            sp_is_bound: self.sp_is_bound,
            fp: self.fp,
            provenance: self.provenance,
        }
    }
}
