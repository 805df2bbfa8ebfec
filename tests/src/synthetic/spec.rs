//! What a stack shall look like, before it is laid out: only choices, no address. Every value is
//! a valid stack; a choice that is impossible where it stands is replaced by the nearest possible.

use arbitrary::Arbitrary;
use unwind_core::UnwindUserType;

/// A call chain, innermost frame first.
#[derive(Clone, Debug, Arbitrary)]
pub struct ChainSpec {
    /// Where the stack is.
    pub stack: Place,
    /// Where the code is.
    pub code: Place,
    /// The frames, innermost first.
    pub frames: Vec<FrameSpec>,
    /// How the chain ends.
    pub end: EndSpec,
    /// Whether the source knows where code is.
    pub code_known: bool,
    /// Whether code can be read.
    pub code_readable: bool,
    /// Whether return addresses carry bits that are not address, where the architecture has such.
    pub tagged: bool,
    /// Whether the frame pointer is unknown at the start, if nothing needs it.
    pub fp_unknown: bool,
    /// What unused words hold.
    pub noise: u64,
}

/// A part of the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum Place {
    /// From address 0 on.
    Bottom,
    /// Where programs are.
    Low,
    /// The kernel's half.
    High,
    /// Up to the last address.
    Top,
}

/// One frame.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct FrameSpec {
    /// What it is.
    pub role: Role,
    /// Which kind of source knows it, where its role leaves that open.
    pub kind: TableKind,
    /// Where its CFA comes from.
    pub cfa: BaseSpec,
    /// Whether the CFA is the word stored there.
    pub deref: bool,
    /// Where its return address is.
    pub ra: RaSpec,
    /// Where its caller's frame pointer is.
    pub fp: FpSpec,
    /// Its size.
    pub size: Size,
    /// Whether the source evaluates it by itself.
    pub evaluated: bool,
    /// Whether a better source claims its pc and is broken.
    pub better_is_broken: bool,
    /// Whether the call is the last instruction of the function.
    pub call_is_last: bool,
    /// Decides everything small: which slots, which offsets.
    pub shape: u32,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum Role {
    /// An ordinary call.
    Call,
    /// An ordinary call whose rule tells only a bound of the caller's sp.
    BoundedCall,
    /// No source knows it, but it keeps to the frame pointer convention.
    FramePointer,
    /// A function that has just been entered, by its code. Topmost or interrupted.
    Entered,
    /// A jump to nowhere. Topmost or interrupted.
    NullCall,
    /// A signal frame that a source knows.
    Signal,
    /// A signal frame known by its trampoline's code.
    Trampoline,
}

/// The kinds of source that the rules are spread over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum TableKind {
    /// The embedder's own.
    Embedder,
    /// A compiled table.
    Table,
    /// SFrame.
    SFrame,
    /// DWARF.
    Dwarf,
    /// EHABI.
    Ehabi,
}

impl TableKind {
    /// As the library names it.
    pub fn kind(self) -> UnwindUserType {
        match self {
            TableKind::Embedder => UnwindUserType::Embedder,
            TableKind::Table => UnwindUserType::Table,
            TableKind::SFrame => UnwindUserType::SFrame,
            TableKind::Dwarf => UnwindUserType::Dwarf,
            TableKind::Ehabi => UnwindUserType::Ehabi,
        }
    }
}

/// A base register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum BaseSpec {
    /// The stack pointer.
    Sp,
    /// The frame pointer.
    Fp,
    /// Another one; only the topmost frame has others.
    Other,
}

/// Where the return address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum RaSpec {
    /// Stored relative to the CFA.
    AtCfa,
    /// Stored relative to a register.
    At(BaseSpec),
    /// In a register, plus a constant.
    In(BaseSpec),
    /// In the link register.
    InLink,
}

/// Where the caller's frame pointer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum FpSpec {
    /// Where it was.
    Unchanged,
    /// Stored relative to the CFA.
    AtCfa,
    /// It is the CFA plus a constant.
    CfaOffset,
    /// Stored relative to a register.
    At(BaseSpec),
    /// In a register, plus a constant.
    In(BaseSpec),
    /// Lost, where no later frame needs it.
    Undefined,
}

/// How large a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum Size {
    /// Nothing was pushed, where that is possible.
    Nothing,
    /// A few words.
    Words(u8),
    /// Some KiB.
    Pages(u8),
    /// Up to 4 MiB.
    Large(u8),
}

/// How the chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum EndSpec {
    /// The outermost return address is undefined.
    Undefined,
    /// It is zero.
    ZeroReturnAddress,
    /// The frame pointer chain ends with zero.
    ZeroFramePointer,
    /// The embedder named the entry function.
    EntryFunction,
    /// No source covers the last pc.
    NotCovered,
    /// The return address cannot be read.
    Unreadable,
    /// The return address is no code.
    NotCode,
    /// The table of the last pc is broken.
    Broken,
    /// The walk may not go further.
    FrameLimit,
}
