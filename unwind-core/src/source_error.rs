//! Why a source could not answer.

use core::fmt;

use crate::MemoryError;

/// What is wrong with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Broken {
    /// The table ends in the middle of something.
    UnexpectedEnd,
    /// A length or offset leads out of the section.
    OutOfBounds,
    /// A version that nobody has defined, or that is not supported.
    UnknownVersion,
    /// A CIE augmentation that is not known; what follows it cannot be parsed.
    UnknownAugmentation,
    /// A pointer encoding that is not known, or has no base here.
    UnknownPointerEncoding,
    /// A CIE is malformed, or an FDE's CIE pointer leads to none.
    BadCie,
    /// An FDE is malformed.
    BadFde,
    /// A search table disagrees with what it indexes, or is not sorted.
    BadIndex,
    /// A call frame or unwinding instruction that is not known.
    UnknownInstruction,
    /// An instruction that does not make sense where it stands, such as a location that goes back.
    BadInstruction,
    /// `remember_state` is nested deeper than the row machine's stack.
    RememberStackFull,
    /// `restore_state` without a `remember_state`.
    RememberStackEmpty,
    /// An offset that does not fit into 32 bits.
    OffsetTooLarge,
    /// No rule for the CFA.
    NoCfa,
    /// The return address column has no rule, and the architecture no register that would hold it.
    NoReturnAddress,
    /// A DWARF expression operation that is not known or has no place in call frame information.
    UnknownOperation,
    /// A DWARF expression ran out of fuel.
    OutOfFuel,
    /// A DWARF expression uses more stack than there is.
    ExpressionStackFull,
    /// A DWARF expression takes more from its stack than is there.
    ExpressionStackEmpty,
    /// A DWARF expression divides by zero.
    DivisionByZero,
    /// A LEB128 number that is too large.
    BadLeb128,
    /// A section does not begin with its magic number.
    BadMagic,
    /// A section is for an ABI that is not known, or not for this target.
    UnknownAbi,
    /// A function's code is said to consist of blocks of no size.
    ZeroBlockSize,
    /// A row is out of order, outside its function, or has words that make no sense.
    BadRow,
    /// A personality routine that is not known: what it reads cannot be parsed.
    UnknownPersonality,
    /// Anything else that is malformed.
    Malformed,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Broken::UnexpectedEnd => "unexpected end",
            Broken::OutOfBounds => "offset out of bounds",
            Broken::UnknownVersion => "unknown version",
            Broken::UnknownAugmentation => "unknown augmentation",
            Broken::UnknownPointerEncoding => "unknown pointer encoding",
            Broken::BadCie => "bad CIE",
            Broken::BadFde => "bad FDE",
            Broken::BadIndex => "search table does not match its contents",
            Broken::UnknownInstruction => "unknown instruction",
            Broken::BadInstruction => "misplaced call frame instruction",
            Broken::RememberStackFull => "remember_state nested too deep",
            Broken::RememberStackEmpty => "restore_state without remember_state",
            Broken::OffsetTooLarge => "offset too large",
            Broken::NoCfa => "no CFA rule",
            Broken::NoReturnAddress => "no return address rule",
            Broken::UnknownOperation => "unknown expression operation",
            Broken::OutOfFuel => "expression ran out of fuel",
            Broken::ExpressionStackFull => "expression stack full",
            Broken::ExpressionStackEmpty => "expression stack empty",
            Broken::DivisionByZero => "expression divides by zero",
            Broken::BadLeb128 => "bad LEB128 number",
            Broken::BadMagic => "not the magic number",
            Broken::UnknownAbi => "unknown or foreign ABI",
            Broken::ZeroBlockSize => "blocks of no size",
            Broken::BadRow => "bad row",
            Broken::UnknownPersonality => "unknown personality routine",
            Broken::Malformed => "malformed",
        })
    }
}

/// A table covers the pc but is broken: what is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceError {
    /// What is wrong.
    pub broken: Broken,
    /// The offset in the section, as near as it is known: usually that of the entry.
    pub offset: u64,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {:#x}", self.broken, self.offset)
    }
}

impl core::error::Error for SourceError {}

/// Why a source could not answer. "Not covered here" is no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LookupError {
    /// The pc is covered, but what covers it is broken.
    Broken(SourceError),
    /// The target's memory could not be read. That says nothing about the table and must not be
    /// remembered.
    Memory(MemoryError),
    /// The rule needs a register whose value is not known in this frame.
    UnknownRegister(crate::Register),
    /// The rule computes an address outside the target's address space.
    AddressOverflow,
    /// The table says that frames of this code cannot be unwound: where threads begin, but also where
    /// code was built without unwind information.
    CannotUnwind,
}

impl From<SourceError> for LookupError {
    fn from(error: SourceError) -> Self {
        LookupError::Broken(error)
    }
}

impl From<MemoryError> for LookupError {
    fn from(error: MemoryError) -> Self {
        LookupError::Memory(error)
    }
}
