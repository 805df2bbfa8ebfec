//! The tables of one ELF file as a source of rules.

use unwind_core::dwarf::DwarfSource;
use unwind_core::ehabi::EhabiSource;
use unwind_core::sframe::SFrameSource;
use unwind_core::{
    Arch, CallerRegisters, Evaluated, Found, FrameSource, LookupError, MemoryError, MemoryReader, Query,
    RegisterFile, UnwindUserType, UnwindUserTypes,
};

/// The unwind tables of one ELF file: SFrame, DWARF and ARM's EHABI, each if it is there.
///
/// A walk asks for one kind at a time, in the order of [`UnwindUserType`]: SFrame first, as the
/// kernel does, and DWARF for what that does not cover. SFrame knows ip, sp and fp alone; to have
/// every callee-saved register of every frame, take
/// [`UnwindUserType::SFrame`] out of [`Options::types`](unwind_core::Options::types).
#[derive(Clone, Copy, Debug)]
pub struct ElfSource<'m> {
    pub(super) sframe: Option<SFrameSource<'m>>,
    pub(super) dwarf: DwarfSource<'m>,
    pub(super) ehabi: Option<EhabiSource<'m>>,
    /// Whether this stands for code that is known to be there and cannot be read, tables and all.
    pub(super) is_unreadable: bool,
}

impl<'m> ElfSource<'m> {
    /// Of code that is known to be there and cannot be read. A walk that comes to it is cut off there: what
    /// the code would have been, a signal trampoline perhaps, nobody can tell.
    pub(super) fn unreadable() -> Self {
        ElfSource { sframe: None, dwarf: DwarfSource::default(), ehabi: None, is_unreadable: true }
    }

    /// `.sframe`, where there is one for this architecture.
    pub fn sframe(&self) -> Option<&SFrameSource<'m>> {
        self.sframe.as_ref()
    }

    /// `.eh_frame` and `.debug_frame`.
    pub fn dwarf(&self) -> &DwarfSource<'m> {
        &self.dwarf
    }

    /// `.ARM.exidx` and `.ARM.extab`, of files for 32-bit Arm.
    pub fn ehabi(&self) -> Option<&EhabiSource<'m>> {
        self.ehabi.as_ref()
    }
}

impl<A: Arch> FrameSource<A> for ElfSource<'_> {
    fn types(&self) -> UnwindUserTypes {
        if self.is_unreadable {
            return UnwindUserTypes::only(UnwindUserType::Dwarf);
        }
        let sframe = FrameSource::<A>::types(&self.sframe);
        let ehabi = FrameSource::<A>::types(&self.ehabi);
        sframe.union(FrameSource::<A>::types(&self.dwarf)).union(ehabi)
    }

    fn lookup(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError> {
        match kind {
            UnwindUserType::Dwarf if self.is_unreadable => {
                Err(MemoryError::Unreadable { address: query.pc.lookup_address() }.into())
            }
            UnwindUserType::SFrame => self.sframe.lookup(arch, kind, query, memory),
            UnwindUserType::Dwarf => self.dwarf.lookup(arch, kind, query, memory),
            UnwindUserType::Ehabi => self.ehabi.lookup(arch, kind, query, memory),
            _ => Ok(None),
        }
    }

    fn evaluate(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        registers: &dyn RegisterFile,
        memory: &mut dyn MemoryReader,
        caller: &mut dyn CallerRegisters,
    ) -> Result<Option<Evaluated>, LookupError> {
        match kind {
            UnwindUserType::SFrame => self.sframe.evaluate(arch, kind, query, registers, memory, caller),
            UnwindUserType::Dwarf => self.dwarf.evaluate(arch, kind, query, registers, memory, caller),
            UnwindUserType::Ehabi => self.ehabi.evaluate(arch, kind, query, registers, memory, caller),
            _ => Ok(None),
        }
    }
}
