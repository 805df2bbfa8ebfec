//! What happens, and what follows from it.

use unwind_core::Pc;

/// Where execution stands before its next instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The address of the next instruction (avma).
    pub pc: u64,
    /// The stack pointer.
    pub sp: u64,
}

/// What an instruction did, as far as the call stack is concerned.
#[derive(Clone, Debug)]
pub enum Event<R> {
    /// Anything else, direct and conditional jumps among it.
    Plain,
    /// It called.
    Call {
        /// Where the call returns to.
        return_address: u64,
        /// The caller's sp after the return.
        sp: u64,
        /// The caller's registers at the call.
        registers: R,
    },
    /// It is the machine's return instruction. (What it returns to, the next place tells.)
    Return,
    /// It jumped to a computed address.
    Jump,
    /// No instruction: a signal was delivered, and the next place is its handler's first
    /// instruction.
    Signal {
        /// The interrupted place.
        interrupted: Place,
        /// The interrupted registers.
        registers: R,
        /// Where the handler returns to.
        trampoline: u64,
        /// The sp that the handler leaves behind when it returns.
        sp: u64,
    },
    /// It was the system call that returns from a signal.
    SignalReturn,
}

/// A function that was entered by a jump onto a new stack: what it would return to, and its sp then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planted {
    /// Its return address.
    pub return_address: u64,
    /// The sp after that return.
    pub sp: u64,
}

/// One frame of the true chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrueFrame<R> {
    /// Where it is executing.
    pub pc: Pc,
    /// Its sp, once the calls above it have returned.
    pub sp: u64,
    /// Its registers at the call, if they were seen, and whether all of them come back: at a signal
    /// all do, at a call those that the ABI preserves.
    pub registers: Option<R>,
}

/// What an event meant for instructions that were in limbo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Execution is where the chain says; whatever was in limbo still had its old chain.
    Here,
    /// Still, or now, in limbo.
    Limbo,
    /// Control left for another place: what was in limbo stood between its old chain and
    /// the one that holds now.
    Moved,
    /// A return took the top entry's slot, but another address than the call had put there: the call
    /// was none (a retpoline), the slot its function's own data, and the return a jump.
    NoCall,
}

/// How often what was seen. Printed, and the basis of the truth's own checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Calls.
    pub calls: u64,
    /// Returns to exactly where the top entry says.
    pub returns: u64,
    /// Return instructions that did anything else.
    pub odd_returns: u64,
    /// Transfers out of limbo: longjmp, landing pads, context switches.
    pub transfers: u64,
    /// Entries that such transfers ended.
    pub abandoned: u64,
    /// Signals delivered.
    pub signals: u64,
    /// Returns from signals.
    pub signal_returns: u64,
    /// Contexts begun, the thread's own included.
    pub contexts: u64,
    /// Callers that were supposed when the run began.
    pub supposed: u64,
    /// How many of these were returned to.
    pub confirmed: u64,
}
