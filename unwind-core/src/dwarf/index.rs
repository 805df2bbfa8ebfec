//! An index of the FDEs of a section, in room that the caller gives.

use core::fmt;

use super::entry::{Fde, entry_at};
use super::section::{DwarfSections, Flavor, Input, NoMemory};
use crate::sort::sort;
use crate::{Arch, Broken, LookupError, SourceError};

/// One function in a [`DwarfIndex`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DwarfIndexEntry {
    /// Where the function begins (svma).
    start: u64,
    /// Where its FDE begins in the section.
    pub(super) fde: u64,
}

/// The functions that a section describes, sorted by address: for sections without a search
/// table, which are scanned from their beginning for every lookup otherwise.
#[derive(Clone, Copy, Debug)]
pub struct DwarfIndex<'i> {
    entries: &'i [DwarfIndexEntry],
    /// The first entry that could not be parsed and is not in the index.
    broken: Option<SourceError>,
}

/// Why an index could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DwarfIndexError {
    /// The room is too small; this many entries are needed.
    NoRoom {
        /// How many.
        needed: usize,
    },
    /// The sections have none of this flavor.
    NoSection,
}

impl fmt::Display for DwarfIndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DwarfIndexError::NoRoom { needed } => write!(f, "room for {needed} entries is needed"),
            DwarfIndexError::NoSection => f.write_str("there is no such section"),
        }
    }
}

impl core::error::Error for DwarfIndexError {}

impl<'i> DwarfIndex<'i> {
    /// How much room [`build`](DwarfIndex::build) needs: the number of functions in the section.
    ///
    /// # Errors
    /// [`DwarfIndexError::NoSection`].
    pub fn room<A: Arch>(
        arch: &A,
        sections: &DwarfSections<'_>,
        flavor: Flavor,
    ) -> Result<usize, DwarfIndexError> {
        let mut no_memory = NoMemory;
        let mut input =
            Input::new(arch, sections, flavor, 0, &mut no_memory).ok_or(DwarfIndexError::NoSection)?;
        let mut count = 0usize;
        for_each(&mut input, |_| count = count.saturating_add(1));
        Ok(count)
    }

    /// Builds the index of the section of this flavor. Two passes over the section, and a sort in
    /// place.
    ///
    /// Entries that cannot be parsed are left out, and the first of them is remembered: a pc that
    /// no other entry covers is then reported as broken, not as "not covered".
    ///
    /// # Errors
    /// Where `room` is too small, or there is no such section.
    pub fn build<A: Arch>(
        arch: &A,
        sections: &DwarfSections<'_>,
        flavor: Flavor,
        room: &'i mut [DwarfIndexEntry],
    ) -> Result<Self, DwarfIndexError> {
        let mut no_memory = NoMemory;
        let mut input =
            Input::new(arch, sections, flavor, 0, &mut no_memory).ok_or(DwarfIndexError::NoSection)?;
        let mut needed = 0usize;
        let mut slots = room.iter_mut();
        let broken = for_each(&mut input, |fde| {
            needed = needed.saturating_add(1);
            if let Some(slot) = slots.next() {
                *slot = DwarfIndexEntry { start: fde.start, fde: fde.offset };
            }
        });
        let entries = room.get_mut(..needed).ok_or(DwarfIndexError::NoRoom { needed })?;
        sort(entries);
        Ok(DwarfIndex { entries, broken })
    }

    /// How many functions it has.
    #[cfg(feature = "table")]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The first address (svma) of the function at this place.
    #[cfg(feature = "table")]
    pub(super) fn start(&self, place: usize) -> Option<u64> {
        self.entries.get(place).map(|entry| entry.start)
    }

    /// Where the FDE of the function at this place is in the section.
    #[cfg(feature = "table")]
    pub(super) fn fde(&self, place: usize) -> Option<u64> {
        self.entries.get(place).map(|entry| entry.fde)
    }

    /// The functions that may cover `svma`: as many as begin at one address, one, and what has no length.
    pub(super) fn candidates(&self, svma: u64) -> impl Iterator<Item = &DwarfIndexEntry> {
        let after = self.entries.partition_point(|entry| entry.start <= svma);
        let candidates = self.entries.get(..after).unwrap_or_default();
        let start = candidates.last().map(|entry| entry.start);
        candidates.iter().rev().take_while(move |entry| Some(entry.start) == start)
    }

    /// The first error of the section, if there may be functions that are not in it.
    pub(super) fn broken(&self) -> Option<SourceError> {
        self.broken
    }
}

/// Visits every FDE that covers anything, and returns the first error. A broken entry whose length
/// is sound is stepped over; indirect pointers cannot be followed here and count as broken.
pub(super) fn for_each<'d>(input: &mut Input<'d, '_>, mut visit: impl FnMut(Fde<'d>)) -> Option<SourceError> {
    let mut broken = None;
    let mut offset = 0;
    // Every entry is at least four bytes long, so this ends.
    loop {
        match entry_at(input, offset) {
            Ok(Some(entry)) => {
                offset = entry.next();
                match entry.parse_fde(input) {
                    Ok(Some(fde)) if fde.length > 0 => visit(fde),
                    Ok(_) => {}
                    Err(LookupError::Broken(error)) => {
                        broken.get_or_insert(error);
                    }
                    Err(_) => {
                        broken.get_or_insert(SourceError {
                            broken: Broken::UnknownPointerEncoding,
                            offset: entry.offset,
                        });
                    }
                }
            }
            Ok(None) => return broken,
            Err(error) => return broken.or(Some(error)),
        }
    }
}
