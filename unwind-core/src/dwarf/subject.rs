//! What a lookup in full is about: a pc, the FDE that covers it, and the row that holds there.

use super::entry::Fde;
use super::find::find;
use super::machine::{Mentioned, row_at};
use super::row::Row;
use super::rule::COLUMNS;
use super::section::{DwarfSections, Input};
use crate::memory::MemoryReader;
use crate::{Arch, CfiVendor, LookupError, Query, Register};

/// The parts of a lookup, each of which has left the stack before the next one begins: so what one leaves to another
/// is here, an error too.
pub(super) struct Subject<'d, 'm> {
    pub(super) input: Input<'d, 'm>,
    /// The pc to look up (svma).
    svma: u64,
    pub(super) fde: Fde<'d>,
    /// The row, of the columns last asked for.
    pub(super) row: Row<COLUMNS>,
    /// The registers that the function mentions.
    pub(super) mentioned: Mentioned,
    pub(super) error: Option<LookupError>,
}

impl<'d, 'm> Subject<'d, 'm> {
    /// Nothing is read yet. `None` where there is nothing to read.
    #[inline(always)]
    pub(super) fn new<A: Arch>(
        arch: &A,
        sections: &'m DwarfSections<'d>,
        query: &Query,
        svma: u64,
        memory: &'m mut dyn MemoryReader,
    ) -> Option<Self> {
        let input = Input::any(arch, sections, query.bias, memory)?;
        let (row, mentioned) = (Row::BLANK, Mentioned::NONE);
        Some(Subject { input, svma, fde: Fde::blank(), row, mentioned, error: None })
    }

    /// Finds the FDE: whether one covers the pc.
    #[inline(never)]
    pub(super) fn find(&mut self) -> bool {
        find(&mut self.input, self.svma, &mut self.fde).unwrap_or_else(|error| self.failed(error))
    }

    /// Reads the row: whether it could be read.
    #[inline(never)]
    pub(super) fn read_row(&mut self, vendor: CfiVendor, columns: &[Register; COLUMNS]) -> bool {
        match row_at(&mut self.input, vendor, &self.fde, self.svma, columns, &mut self.row) {
            Ok(mentioned) => {
                self.mentioned = mentioned;
                true
            }
            Err(error) => self.failed(error),
        }
    }

    /// Whether the pc is the last address that the FDE covers.
    pub(super) fn is_at_last(&self) -> bool {
        self.fde.ends_with(self.svma)
    }

    /// Leaves an error; never true.
    #[inline]
    pub(super) fn failed(&mut self, error: LookupError) -> bool {
        self.error = Some(error);
        false
    }
}
