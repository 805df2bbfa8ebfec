//! Rules from DWARF call frame information: `.eh_frame`, found through `.eh_frame_hdr`, through an
//! index or by a scan, and `.debug_frame`.
//!
//! Sections are borrowed slices, parsed in place at every lookup. Nothing is cached and nothing
//! allocated; a lookup uses at most 1.1 KiB of stack, and its work is bounded by the length of
//! the FDE it finds, or of the section where that has to be scanned.
//!
//! What linkers, compilers and assemblers usually write is read by a short way (`plain`): the search
//! table, the entries, the instructions that nearly all functions have. It gives up at anything else, and
//! the general way begins anew, which alone says what is wrong.
//!
//! The row machine keeps the columns that a walk tracks: return address, frame pointer and stack
//! pointer; others, for walks that track registers, as many at a time. `remember_state`
//! nests 8 deep; expressions have a stack of 16 entries and fuel for 512 operations.

mod bytes;
mod entry;
mod expression;
mod find;
mod full;
mod functions;
mod hdr;
mod index;
mod machine;
#[cfg(feature = "table")]
mod ordered;
mod plain;
mod plain_entry;
mod plain_row;
mod remembered;
mod row;
mod rule;
mod section;
mod subject;
mod symbolic;
#[cfg(test)]
mod testing;

use full::Full;
pub use functions::{DwarfFunction, DwarfFunctions, DwarfRow, DwarfRows, DwarfRule, NoFrame};
use hdr::SearchTable;
pub use index::{DwarfIndex, DwarfIndexEntry, DwarfIndexError};
use plain::PlainRule;
use rule::{RuleMaker, columns};
pub use section::{DwarfSections, Flavor, Section};
use section::{Input, NoMemory};
use subject::Subject;

use crate::memory::MemoryReader;
use crate::plain::Plain;
use crate::source::{Evaluated, Found, FrameSource, Query, Trust, UnwindUserType, UnwindUserTypes};
use crate::source_error::LookupError;
use crate::{Arch, CallerRegisters, RegisterFile, Rule};

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
        match SearchTable::of(&input) {
            Some(table) => table.verify(&mut input),
            None => Ok(()),
        }
    }

    /// The same source without `.eh_frame_hdr`.
    pub fn without_hdr(mut self) -> Self {
        self.sections.eh_frame_hdr = None;
        self
    }

    /// The rule at an address, by the short way, if that leads there.
    #[inline(never)]
    fn plain_rule<A: Arch>(&self, arch: &A, svma: u64) -> Option<PlainRule> {
        plain::rule_at(arch, self.sections.eh_frame?, self.sections.eh_frame_hdr?, svma)
    }

    /// The same, if it is plain and the pc not that behind its function.
    #[inline(never)]
    fn peek_at<A: Arch>(&self, arch: &A, svma: u64, is_exact: bool) -> Option<Plain> {
        let PlainRule { frame, is_last } =
            plain::rule_at(arch, self.sections.eh_frame?, self.sections.eh_frame_hdr?, svma)?;
        if is_last && !is_exact { None } else { Plain::of(UnwindUserType::Dwarf, frame, Trust::Exact) }
    }

    /// The rule of any row. What it calls, it calls one after another, so that one of them at a time is on the stack.
    #[inline(never)]
    fn lookup_in_full<A: Arch>(
        &self,
        arch: &A,
        query: &Query,
        svma: u64,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError> {
        let Some(mut subject) = Subject::new(arch, &self.sections, query, svma, memory) else {
            return Ok(None);
        };
        if subject.find()
            && subject.read_row(arch.cfi_vendor(), &columns(arch, subject.fde.cie.return_address))
        {
            let rule = RuleMaker { arch, input: &subject.input, pc: query.pc, fde: &subject.fde }
                .rule(&subject.row)?;
            let is_at_end = !query.pc.is_exact() && subject.is_at_last();
            return Ok(Some(Found::new(rule, Trust::Exact).at_end(is_at_end)));
        }
        match subject.error {
            Some(error) => Err(error),
            None => Ok(None),
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
        if let Some(PlainRule { frame, is_last }) = self.plain_rule(arch, svma) {
            let found = Found::new(Rule::Frame(frame), Trust::Exact);
            return Ok(Some(found.at_end(is_last && !query.pc.is_exact())));
        }
        self.lookup_in_full(arch, query, svma, memory)
    }

    #[inline]
    fn peek(&self, arch: &A, kinds: UnwindUserTypes, query: &Query) -> Option<Plain> {
        if !kinds.contains(UnwindUserType::Dwarf) {
            return None;
        }
        self.peek_at(arch, svma(arch, query), query.pc.is_exact())
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
        // What is evaluated has one place, which is the caller's.
        let mut evaluated = Ok(None);
        if kind == UnwindUserType::Dwarf
            && let Some(subject) = Subject::new(arch, &self.sections, query, svma(arch, query), memory)
        {
            Full { arch, query, registers, subject }.evaluate(caller, &mut evaluated);
        }
        evaluated
    }
}

/// The address to look up, as the file states it.
fn svma<A: Arch>(arch: &A, query: &Query) -> u64 {
    arch.word_size().truncate(query.pc.lookup_address().wrapping_sub(query.bias))
}
