//! Where rules come from.

use core::fmt;

use crate::plain::Plain;
use crate::source_error::LookupError;
use crate::{Arch, CallerRegisters, FrameKind, MemoryReader, Pc, RegisterFile, UnwindUserFrame};

/// The kind of source that produced a frame, in order of priority: a walk asks them from first to
/// last for every frame, as the kernel does with `enum unwind_user_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
#[non_exhaustive]
#[repr(u8)]
pub enum UnwindUserType {
    /// A source of the embedder's own: a JIT compiler's frame maps, an emulator's knowledge.
    Embedder = 0,
    /// A compiled table.
    Table = 1,
    /// An SFrame section.
    SFrame = 2,
    /// DWARF call frame information.
    Dwarf = 3,
    /// ARM's exception handling tables.
    Ehabi = 4,
    /// A signal trampoline, recognised by its code bytes where no table covers it.
    SignalTrampoline = 5,
    /// The pc is no code (a call through a null or wild pointer): nothing has run there, so the
    /// return address is still where the call put it.
    NullCall = 6,
    /// The instruction at an exact pc says by itself where the return address is: the first ones
    /// of a function, or its return.
    Instruction = 7,
    /// The ABI's back chain.
    BackChain = 8,
    /// The ABI's frame pointer chain.
    FramePointer = 9,
}

impl UnwindUserType {
    /// All of them, best first.
    pub const ALL: [UnwindUserType; 10] = [
        UnwindUserType::Embedder,
        UnwindUserType::Table,
        UnwindUserType::SFrame,
        UnwindUserType::Dwarf,
        UnwindUserType::Ehabi,
        UnwindUserType::SignalTrampoline,
        UnwindUserType::NullCall,
        UnwindUserType::Instruction,
        UnwindUserType::BackChain,
        UnwindUserType::FramePointer,
    ];

    /// Its place in the order of priority.
    #[inline]
    pub(crate) const fn number(self) -> u32 {
        match self {
            UnwindUserType::Embedder => 0,
            UnwindUserType::Table => 1,
            UnwindUserType::SFrame => 2,
            UnwindUserType::Dwarf => 3,
            UnwindUserType::Ehabi => 4,
            UnwindUserType::SignalTrampoline => 5,
            UnwindUserType::NullCall => 6,
            UnwindUserType::Instruction => 7,
            UnwindUserType::BackChain => 8,
            UnwindUserType::FramePointer => 9,
        }
    }

    /// The kind with this number.
    #[inline]
    pub(crate) const fn from_number(number: u8) -> Self {
        match number {
            0 => UnwindUserType::Embedder,
            1 => UnwindUserType::Table,
            2 => UnwindUserType::SFrame,
            3 => UnwindUserType::Dwarf,
            4 => UnwindUserType::Ehabi,
            5 => UnwindUserType::SignalTrampoline,
            6 => UnwindUserType::NullCall,
            7 => UnwindUserType::Instruction,
            8 => UnwindUserType::BackChain,
            _ => UnwindUserType::FramePointer,
        }
    }

    #[inline]
    const fn bit(self) -> u16 {
        1u16.wrapping_shl(self.number())
    }
}

impl fmt::Display for UnwindUserType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UnwindUserType::Embedder => "embedder",
            UnwindUserType::Table => "table",
            UnwindUserType::SFrame => "sframe",
            UnwindUserType::Dwarf => "dwarf",
            UnwindUserType::Ehabi => "ehabi",
            UnwindUserType::SignalTrampoline => "signal-trampoline",
            UnwindUserType::NullCall => "null-call",
            UnwindUserType::Instruction => "instruction",
            UnwindUserType::BackChain => "back-chain",
            UnwindUserType::FramePointer => "frame-pointer",
        })
    }
}

/// A set of [`UnwindUserType`]s: the seed's `available_types` mask.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct UnwindUserTypes(u16);

impl UnwindUserTypes {
    /// None of them.
    pub const NONE: Self = UnwindUserTypes(0);
    /// Every one.
    pub const ALL: Self = UnwindUserTypes(0x3ff);
    /// Those that an architecture's conventions answer for where no source does.
    pub(crate) const CONVENTIONS: Self = UnwindUserTypes(0x3e0);

    /// The set of one.
    pub const fn only(kind: UnwindUserType) -> Self {
        UnwindUserTypes(kind.bit())
    }

    /// This set and `kind`.
    pub const fn with(self, kind: UnwindUserType) -> Self {
        UnwindUserTypes(self.0 | kind.bit())
    }

    /// This set without `kind`.
    pub const fn without(self, kind: UnwindUserType) -> Self {
        UnwindUserTypes(self.0 & !kind.bit())
    }

    /// What is in both.
    pub const fn intersection(self, other: Self) -> Self {
        UnwindUserTypes(self.0 & other.0)
    }

    /// The members that are asked before `kind`.
    pub const fn better_than(self, kind: UnwindUserType) -> Self {
        UnwindUserTypes(self.0 & kind.bit().wrapping_sub(1))
    }

    /// The other members: `kind` itself, and those that are asked after it.
    pub(crate) const fn not_better_than(self, kind: UnwindUserType) -> Self {
        UnwindUserTypes(self.0 & !kind.bit().wrapping_sub(1))
    }

    /// What is in either.
    pub const fn union(self, other: Self) -> Self {
        UnwindUserTypes(self.0 | other.0)
    }

    /// Whether `kind` is in the set.
    #[inline]
    pub const fn contains(self, kind: UnwindUserType) -> bool {
        self.0 & kind.bit() != 0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 & Self::ALL.0 == 0
    }

    #[cfg(target_has_atomic = "64")]
    #[inline]
    pub(crate) const fn bits(self) -> u16 {
        self.0
    }

    /// The members, best first.
    pub fn iter(self) -> impl Iterator<Item = UnwindUserType> {
        let mut left = self.0 & Self::ALL.0;
        core::iter::from_fn(move || {
            let [number, ..] = left.trailing_zeros().to_le_bytes();
            let found = (left != 0).then_some(UnwindUserType::from_number(number));
            left &= left.wrapping_sub(1);
            found
        })
    }
}

impl fmt::Debug for UnwindUserTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// How far a rule can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum Trust {
    /// A guess: a better source covers this pc but could not be used.
    Guess,
    /// The ABI's convention, not a statement about this code: right where the code keeps it.
    Convention,
    /// A table that is right at call sites and may be wrong in prologues and epilogues. It does not cover
    /// an exact pc whose instruction says by itself where the return address is.
    CallSite,
    /// A table that describes every instruction.
    Exact,
}

impl Trust {
    /// As two bits, for tables and caches.
    #[inline]
    pub(crate) const fn to_bits(self) -> u8 {
        match self {
            Trust::Guess => 0,
            Trust::Convention => 1,
            Trust::CallSite => 2,
            Trust::Exact => 3,
        }
    }

    /// Of the two lowest bits.
    #[inline]
    pub(crate) const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Trust::Guess,
            1 => Trust::Convention,
            2 => Trust::CallSite,
            _ => Trust::Exact,
        }
    }
}

/// What a walk asks a source about.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// The pc (avma).
    pub pc: Pc,
    /// The load bias of the module that is being asked: avma minus svma, modulo the address
    /// space. [`ModuleMap`](crate::ModuleMap) sets it.
    pub bias: u64,
}

impl Query {
    /// A query for a module that was loaded where its file says.
    pub const fn new(pc: Pc) -> Self {
        Query { pc, bias: 0 }
    }
}

/// A rule that a source found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// The rule.
    pub rule: Rule,
    /// How far it can be trusted.
    pub trust: Trust,
    /// See [`at_end`](Found::at_end).
    pub is_at_end: bool,
}

impl Found {
    /// A rule, and how far it can be trusted.
    pub const fn new(rule: Rule, trust: Trust) -> Self {
        Found { rule, trust, is_at_end: false }
    }

    /// States that the return pc is the first address behind the function whose rule this is.
    /// Then a call that does not return was its last instruction; or the pc is that of a signal
    /// trampoline without a table, which a handler returns to without having been called from
    /// there. The walk looks at the code to tell.
    pub const fn at_end(mut self, is_at_end: bool) -> Self {
        self.is_at_end = is_at_end;
        self
    }
}

/// The rule that holds at a pc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// One that [`UnwindUserFrame`] can say.
    Frame(UnwindUserFrame),
    /// One that it cannot: it is never approximated, the source evaluates it in full
    /// ([`FrameSource::evaluate`]).
    Evaluate,
}

/// What [`FrameSource::evaluate`] found out about the caller, beside its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluated {
    /// The CFA.
    pub cfa: u64,
    /// The return address, pointer authentication bits included; `None` where it is undefined.
    pub ra: Option<u64>,
    /// The caller's sp, where the source says something else than the CFA plus the ABI's bias.
    pub sp: Option<u64>,
    /// The caller's frame pointer, if known.
    pub fp: Option<u64>,
    /// What kind of frame this is.
    pub kind: FrameKind,
}

/// What is known about an address without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeAt {
    /// Executable memory of the target.
    Code,
    /// Certainly not: a pc there is a wild jump, a return address there is none.
    NotCode,
    /// Nobody can tell.
    Unknown,
}

/// Something that answers "which rule holds at this pc?".
///
/// `&self`, and shareable between CPUs; object safe. A source may answer for several kinds
/// ([`types`](FrameSource::types)); a walk asks for one kind at a time, best first.
pub trait FrameSource<A: Arch> {
    /// The kinds this source may answer for.
    fn types(&self) -> UnwindUserTypes;

    /// The rule at `query.pc`, from information of this kind: `Ok(None)` where it is not covered.
    ///
    /// # Errors
    /// Covered, but broken; or the target's memory had to be read and could not.
    fn lookup(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError>;

    /// The rule at `query.pc` from the best of `kinds`, where it is plain and at hand: without reading
    /// the target's memory, and sooner than a [`lookup`](FrameSource::lookup) would have it. It must be
    /// what asking `lookup` for one kind after the other would have found; and where it has a rule for a
    /// return pc, [`code_at`](FrameSource::code_at) would not have called that no code.
    ///
    /// `None`, the default, says nothing: the walk then asks `lookup`.
    #[inline]
    fn peek(&self, arch: &A, kinds: UnwindUserTypes, query: &Query) -> Option<Plain> {
        let _ = (arch, kinds, query);
        None
    }

    /// What [`peek`](FrameSource::peek) has, for the caller of a frame whose pc (avma) and rule, as a peek had it, are
    /// told: in case that helps to find it. It must be the same answer.
    #[inline]
    fn peek_caller(
        &self,
        arch: &A,
        kinds: UnwindUserTypes,
        query: &Query,
        callee: (u64, &Plain),
    ) -> Option<Plain> {
        let _ = callee;
        self.peek(arch, kinds, query)
    }

    /// The rule at `query.pc` from the best of `kinds` that covers it, and which that is.
    ///
    /// The default asks [`lookup`](FrameSource::lookup) for one kind after the other.
    ///
    /// # Errors
    /// That of the first kind that has one.
    fn lookup_best(
        &self,
        arch: &A,
        kinds: UnwindUserTypes,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<(UnwindUserType, Found)>, LookupError> {
        for kind in kinds.intersection(self.types()).iter() {
            if let Some(found) = self.lookup(arch, kind, query, memory)? {
                return Ok(Some((kind, found)));
            }
        }
        Ok(None)
    }

    /// Evaluates the rule at `query.pc` in full: what [`Rule::Evaluate`] could not say, and every
    /// register that `caller` wants. `registers` are those of the frame at `query.pc`.
    ///
    /// `Ok(None)`, the default, where this source knows nothing beyond the rule.
    ///
    /// # Errors
    /// As for [`lookup`](FrameSource::lookup), and where the rule itself cannot be carried out.
    fn evaluate(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        registers: &dyn RegisterFile,
        memory: &mut dyn MemoryReader,
        caller: &mut dyn CallerRegisters,
    ) -> Result<Option<Evaluated>, LookupError> {
        let _ = (arch, kind, query, registers, memory, caller);
        Ok(None)
    }

    /// Whether `address` (avma) is code, as far as this source knows.
    fn code_at(&self, address: u64) -> CodeAt {
        let _ = address;
        CodeAt::Unknown
    }
}

/// No source at all: a walk by the architecture's conventions alone.
impl<A: Arch> FrameSource<A> for () {
    fn types(&self) -> UnwindUserTypes {
        UnwindUserTypes::NONE
    }

    fn lookup(
        &self,
        _: &A,
        _: UnwindUserType,
        _: &Query,
        _: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError> {
        Ok(None)
    }
}
