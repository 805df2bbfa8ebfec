//! What a walk yields, and how it ends.

use core::fmt;

use crate::{LookupError, MemoryError, Pc, Register, SourceError, Trust, UnwindUserType, UnwindUserTypes};

/// One frame of the call chain, innermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// Where this frame is executing (avma): exact in the topmost frame and where a signal
    /// interrupted it, else a return pc.
    pub pc: Pc,
    /// Its stack pointer, after the call has returned. Where
    /// [`sp_is_bound`](Frame::sp_is_bound) is set, only known to be at or above this.
    pub sp: u64,
    /// Whether `sp` is only a lower bound.
    pub sp_is_bound: bool,
    /// Its frame pointer register, if known.
    pub fp: Option<u64>,
    /// Which rule led here.
    pub provenance: Provenance,
}

impl Frame {
    /// A frame whose sp is known, for walks that are read back or written down by hand; what else there is to say of it
    /// is said in its fields.
    pub const fn new(pc: Pc, sp: u64, fp: Option<u64>, provenance: Provenance) -> Self {
        Frame { pc, sp, sp_is_bound: false, fp, provenance }
    }
}

/// Which source produced a frame, and why better ones did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Provenance {
    /// The kind of source whose rule was applied to the frame below (the callee); `None` for the
    /// topmost frame, which comes from the registers.
    pub source: Option<UnwindUserType>,
    /// How far that rule can be trusted. The topmost frame is exact.
    pub trust: Trust,
    /// Better kinds that were asked and do not cover the callee's pc.
    pub not_covered: UnwindUserTypes,
    /// The first better kind that covers the callee's pc but could not be used, and why.
    pub unusable: Option<(UnwindUserType, Unusable)>,
}

impl Provenance {
    /// The provenance of the topmost frame.
    pub const REGISTERS: Provenance =
        Provenance { source: None, trust: Trust::Exact, not_covered: UnwindUserTypes::NONE, unusable: None };

    /// Of a frame that a rule of this kind led to, with nothing said of better kinds.
    pub const fn new(source: UnwindUserType, trust: Trust) -> Self {
        Provenance { source: Some(source), trust, ..Provenance::REGISTERS }
    }
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            None => return f.write_str("registers"),
            Some(source) => write!(f, "{source}")?,
        }
        match self.trust {
            Trust::Guess => f.write_str(", guess")?,
            Trust::Convention => f.write_str(", convention")?,
            Trust::CallSite => f.write_str(", call sites only")?,
            Trust::Exact => {}
        }
        if let Some((kind, why)) = self.unusable {
            write!(f, " ({kind}: {why})")?;
        }
        Ok(())
    }
}

/// Why a source that covers a pc could not be used there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unusable {
    /// Its table is broken.
    Broken(SourceError),
    /// Its rule needs a register that is not known in that frame.
    UnknownRegister(Register),
    /// It says that the frame cannot be unwound.
    CannotUnwind,
}

impl From<Unusable> for StepError {
    fn from(why: Unusable) -> Self {
        match why {
            Unusable::Broken(error) => StepError::Broken(error),
            Unusable::UnknownRegister(register) => StepError::UnknownRegister(register),
            Unusable::CannotUnwind => StepError::CannotUnwind,
        }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Broken(error) => write!(f, "{error}"),
            Unusable::UnknownRegister(Register(number)) => write!(f, "register {number} is not known"),
            Unusable::CannotUnwind => f.write_str("the frame cannot be unwound"),
        }
    }
}

/// How a walk ended: one of three ways, and there will be no fourth. What tells them apart is worth an arm each in every
/// `match`; what may grow is inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The outermost frame was reached.
    Complete(Mark),
    /// There is more, but not for this walk.
    Truncated(Cut),
    /// The next frame cannot be found.
    Failed(UnwindError),
}

impl End {
    /// Whether the outermost frame was reached.
    pub const fn is_complete(&self) -> bool {
        matches!(self, End::Complete(_))
    }
}

/// How the outermost frame was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mark {
    /// Its return address is undefined: its table says that nobody called it.
    UndefinedReturnAddress,
    /// Its return address is zero, at the place where a rule says that it is.
    ZeroReturnAddress,
    /// The frame pointer chain ends with a frame pointer of zero. By convention, as no table covers the
    /// place.
    ZeroFramePointer,
    /// The frame pointer chain ends with a frame record whose return address is zero. By convention.
    ZeroFrameRecord,
    /// The ABI's back chain ends with zero. By convention.
    ZeroBackChain,
    /// It is in the entry function that the embedder named.
    EntryFunction,
}

/// What cut a walk short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cut {
    /// The caller's buffer is full.
    BufferFull,
    /// The step limit was reached.
    FrameLimit,
    /// Memory that the next step needs could not be read.
    Memory(MemoryError),
}

/// Why the next frame could not be found: what, where, and by which source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnwindError {
    /// What went wrong.
    pub cause: StepError,
    /// The pc whose caller was looked for.
    pub pc: Pc,
    /// The source whose rule failed; `None` where no source had one.
    pub source: Option<UnwindUserType>,
}

impl UnwindError {
    /// This cause at this pc.
    pub const fn new(cause: StepError, pc: Pc, source: Option<UnwindUserType>) -> Self {
        UnwindError { cause, pc, source }
    }
}

/// What can go wrong in one step. Each is found before anything of the state has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepError {
    /// No source covers the pc.
    NotCovered,
    /// A source covers it but is broken, and guesses are not allowed.
    Broken(SourceError),
    /// The rule needs a register whose value is not known in this frame.
    UnknownRegister(Register),
    /// The source has a rule that it can neither put into words nor evaluate.
    NotExpressible,
    /// The table says that the frame cannot be unwound. On Arm that is how threads begin, so it is how
    /// most walks there end; but it also stands where code was built without unwind information, and
    /// so proves nothing.
    CannotUnwind,
    /// The CFA is based on a frame pointer below the stack pointer.
    FramePointerBelowStack {
        /// The frame pointer.
        fp: u64,
        /// The stack pointer.
        sp: u64,
    },
    /// The rule leads out of the address space.
    AddressOverflow,
    /// The caller's sp would not be above this frame's.
    StackNotShrinking {
        /// What the caller's sp would be.
        caller_sp: u64,
        /// This frame's.
        sp: u64,
    },
    /// The CFA is not a multiple of the word size.
    Misaligned {
        /// The CFA.
        cfa: u64,
    },
    /// The return address is certainly not code.
    NotCode {
        /// The return address.
        address: u64,
    },
    /// The step would lead to where the walk already is, or the walk goes round in a circle over
    /// signal frames.
    Loop,
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StepError::NotCovered => f.write_str("no unwind information covers it"),
            StepError::Broken(error) => write!(f, "broken unwind information: {error}"),
            StepError::UnknownRegister(Register(number)) => {
                write!(f, "its rule needs register {number}, which is not known there")
            }
            StepError::NotExpressible => f.write_str("its rule cannot be evaluated"),
            StepError::CannotUnwind => f.write_str("its unwind information says that it cannot be unwound"),
            StepError::FramePointerBelowStack { fp, sp } => {
                write!(f, "frame pointer {fp:#x} is below the stack pointer {sp:#x}")
            }
            StepError::AddressOverflow => f.write_str("its rule leads out of the address space"),
            StepError::StackNotShrinking { caller_sp, sp } => {
                write!(f, "the caller's stack pointer {caller_sp:#x} is not above {sp:#x}")
            }
            StepError::Misaligned { cfa } => write!(f, "CFA {cfa:#x} is misaligned"),
            StepError::NotCode { address } => write!(f, "return address {address:#x} is not code"),
            StepError::Loop => f.write_str("the walk goes round in a circle"),
        }
    }
}

impl fmt::Display for UnwindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at pc {:#x}: {}", self.pc.address(), self.cause)?;
        match self.source {
            Some(source) => write!(f, " ({source})"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for UnwindError {}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Complete(mark) => write!(
                f,
                "complete ({})",
                match mark {
                    Mark::UndefinedReturnAddress => "undefined return address",
                    Mark::ZeroReturnAddress => "zero return address",
                    Mark::ZeroFramePointer => "zero frame pointer",
                    Mark::ZeroFrameRecord => "zero return address in a frame record",
                    Mark::ZeroBackChain => "zero back chain",
                    Mark::EntryFunction => "entry function",
                }
            ),
            End::Truncated(Cut::BufferFull) => f.write_str("truncated: buffer full"),
            End::Truncated(Cut::FrameLimit) => f.write_str("truncated: frame limit reached"),
            End::Truncated(Cut::Memory(error)) => write!(f, "truncated: {error}"),
            End::Failed(error) => write!(f, "failed {error}"),
        }
    }
}

/// Why a walk could not begin. No frame was produced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartError {
    /// There is no room for even one entry.
    NoRoom,
    /// There are no user registers here, as in a kernel thread.
    NoUserRegisters,
    /// The registers do not say where the program counter is.
    NoInstructionPointer,
    /// The registers do not say where the stack pointer is.
    NoStackPointer,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StartError::NoRoom => "no room for entries",
            StartError::NoUserRegisters => "there are no user registers here",
            StartError::NoInstructionPointer => "the instruction pointer is unknown",
            StartError::NoStackPointer => "the stack pointer is unknown",
        })
    }
}

impl core::error::Error for StartError {}

/// A step's failure, before it knows where it happened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    Step(StepError),
    Memory(MemoryError),
    Complete(Mark),
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Self {
        Failure::Memory(error)
    }
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        Failure::Step(error)
    }
}

impl From<LookupError> for Failure {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Broken(error) => Failure::Step(StepError::Broken(error)),
            LookupError::Memory(error) => Failure::Memory(error),
            LookupError::UnknownRegister(register) => Failure::Step(StepError::UnknownRegister(register)),
            LookupError::AddressOverflow => Failure::Step(StepError::AddressOverflow),
            LookupError::CannotUnwind => Failure::Step(StepError::CannotUnwind),
        }
    }
}
