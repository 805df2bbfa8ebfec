//! Rules from DWARF call frame information: `.eh_frame`, found through `.eh_frame_hdr`, through an
//! index or by a scan, and `.debug_frame`.
//!
//! Sections are borrowed slices, parsed in place at every lookup. Nothing is cached and nothing
//! allocated; a lookup uses a few hundred bytes of stack, and its work is bounded by the length of
//! the FDE it finds, or of the section where that has to be scanned.
//!
//! The row machine keeps the columns that a walk tracks: return address, frame pointer and stack
//! pointer for the ordinary one, eight at a time for one that tracks registers. `remember_state`
//! nests 8 deep; expressions have a stack of 32 entries and fuel for 512 operations.

mod bytes;
mod entry;
mod expression;
mod full;
mod functions;
mod hdr;
mod index;
#[cfg(feature = "table")]
mod ordered;
mod row;
mod rule;
mod section;
mod symbolic;

use entry::Fde;
use full::Full;
pub use functions::{DwarfFunction, DwarfFunctions, DwarfRow, DwarfRows, DwarfRule, NoFrame};
use hdr::{Search, SearchTable};
pub use index::{DwarfIndex, DwarfIndexEntry, DwarfIndexError};
use rule::RuleMaker;
pub use section::{DwarfSections, Flavor, Section};
use section::{Input, NoMemory};

use crate::memory::MemoryReader;
use crate::source::{
    Evaluated, Found, FrameSource, LookupError, Query, Trust, UnwindUserType, UnwindUserTypes,
};
use crate::{Arch, CallerRegisters, RegisterFile};

/// The call frame information of one module as a [`FrameSource`]. Addresses are those its file
/// states; [`Query::bias`] relocates them.
#[derive(Clone, Copy, Debug, Default)]
pub struct DwarfSource<'d> {
    sections: DwarfSections<'d>,
}

impl<'d> DwarfSource<'d> {
    /// A source over these sections. Nothing is read yet.
    pub fn new(sections: DwarfSections<'d>) -> Self {
        DwarfSource { sections }
    }

    /// The sections.
    pub fn sections(&self) -> &DwarfSections<'d> {
        &self.sections
    }

    /// Compares the whole of `.eh_frame_hdr` with what it indexes: for sections from a source that
    /// may be mistaken. A lookup itself only checks the entries that it meets. Work proportional
    /// to the number of functions.
    ///
    /// # Errors
    /// [`Broken::BadIndex`](crate::Broken::BadIndex) at the first entry that is out of order or
    /// points to something else; what is wrong with the first FDE that is malformed. A source
    /// without the header ([`without_hdr`](DwarfSource::without_hdr)) then still works.
    pub fn verify_hdr<A: Arch>(&self, arch: &A) -> Result<(), LookupError> {
        let mut no_memory = NoMemory;
        let Some(mut input) = Input::new(arch, &self.sections, Flavor::EhFrame, 0, &mut no_memory) else {
            return Ok(());
        };
        match self.sections.eh_frame_hdr.and_then(|hdr| SearchTable::parse(hdr, &input)) {
            Some(table) => table.verify(&mut input),
            None => Ok(()),
        }
    }

    /// The same source without `.eh_frame_hdr`.
    pub fn without_hdr(mut self) -> Self {
        self.sections.eh_frame_hdr = None;
        self
    }

    /// The FDE that covers `svma`, and the section it is in.
    fn find<'m, A: Arch>(
        &self,
        arch: &A,
        query: &Query,
        svma: u64,
        memory: &'m mut dyn MemoryReader,
    ) -> Result<Option<(Fde<'d>, Input<'d, 'm>)>, LookupError> {
        // Two passes, because the memory can be lent to one section at a time only.
        let mut flavor = Flavor::EhFrame;
        let mut found = None;
        for candidate in [Flavor::EhFrame, Flavor::DebugFrame] {
            if let Some(mut input) = Input::new(arch, &self.sections, candidate, query.bias, memory)
                && let Some(fde) = self.find_in(&mut input, svma)?
            {
                flavor = candidate;
                found = Some(fde);
                break;
            }
        }
        let input = Input::new(arch, &self.sections, flavor, query.bias, memory);
        Ok(found.zip(input))
    }

    fn find_in(&self, input: &mut Input<'d, '_>, svma: u64) -> Result<Option<Fde<'d>>, LookupError> {
        let (hdr, index) = match input.flavor {
            Flavor::EhFrame => (self.sections.eh_frame_hdr, self.sections.eh_frame_index),
            Flavor::DebugFrame => (None, self.sections.debug_frame_index),
        };
        if let Some(table) = hdr.and_then(|hdr| SearchTable::parse(hdr, input)) {
            match table.search(input, svma)? {
                Search::Found(fde) => return Ok(Some(fde)),
                Search::NotCovered => return Ok(None),
                Search::Unusable => {}
            }
        }
        match index {
            Some(index) => index.search(input, svma),
            None => index::scan(input, svma),
        }
    }
}

impl<A: Arch> FrameSource<A> for DwarfSource<'_> {
    fn types(&self) -> UnwindUserTypes {
        if self.sections.eh_frame.is_some() || self.sections.debug_frame.is_some() {
            UnwindUserTypes::only(UnwindUserType::Dwarf)
        } else {
            UnwindUserTypes::NONE
        }
    }

    fn lookup(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError> {
        if kind != UnwindUserType::Dwarf {
            return Ok(None);
        }
        let svma = svma(arch, query);
        let Some((fde, mut input)) = self.find(arch, query, svma, memory)? else {
            return Ok(None);
        };
        let columns = rule::columns(arch, fde.cie.return_address);
        let row = row::row_at(&mut input, arch.cfi_vendor(), &fde, svma, &columns)?;
        let maker = RuleMaker {
            arch,
            input: &input,
            pc: query.pc,
            bias: query.bias,
            offset: fde.offset,
            return_address: fde.cie.return_address,
            is_signal: fde.cie.is_signal,
        };
        let found = Found::new(maker.rule(&row)?, Trust::Exact);
        Ok(Some(found.at_end(!query.pc.is_exact() && fde.ends_with(svma))))
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
        if kind != UnwindUserType::Dwarf {
            return Ok(None);
        }
        let svma = svma(arch, query);
        let Some((fde, mut input)) = self.find(arch, query, svma, memory)? else {
            return Ok(None);
        };
        let full = Full { arch, query, svma, registers };
        full.evaluate(&mut input, &fde, caller).map(Some)
    }
}

/// The address to look up, as the file states it.
fn svma<A: Arch>(arch: &A, query: &Query) -> u64 {
    arch.word_size().truncate(query.pc.lookup_address().wrapping_sub(query.bias))
}
