//! Finding the function at an address.

use super::section::{Fde, SFrameSection};
use crate::SourceError;
use crate::sort::sort;

/// One function in an [`SFrameIndex`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SFrameIndexEntry {
    /// Where it begins (svma).
    start: u64,
    /// Where it is in the section's table.
    fde: u32,
}

/// The functions of a section whose table is not sorted, sorted by address, in room that the
/// caller gives.
#[derive(Clone, Copy, Debug)]
pub struct SFrameIndex<'i> {
    entries: &'i [SFrameIndexEntry],
}

impl<'i> SFrameIndex<'i> {
    /// Builds the index. `None` where `room` has fewer entries than the section has functions.
    ///
    /// # Errors
    /// Where the table cannot be read.
    pub fn build(
        section: &SFrameSection<'_>,
        room: &'i mut [SFrameIndexEntry],
    ) -> Result<Option<Self>, SourceError> {
        let count = section.header().fde_count;
        let Some(entries) = usize::try_from(count).ok().and_then(|count| room.get_mut(..count)) else {
            return Ok(None);
        };
        for (index, entry) in (0..count).zip(entries.iter_mut()) {
            *entry = SFrameIndexEntry { start: section.start(index)?, fde: index };
        }
        sort(entries);
        Ok(Some(SFrameIndex { entries }))
    }
}

impl SFrameSection<'_> {
    /// The function at `svma`, by binary search where the table or an index is sorted, else by a
    /// scan of the whole table.
    ///
    /// # Errors
    /// Where the function's entry makes no sense.
    pub fn find(&self, svma: u64, index: Option<SFrameIndex<'_>>) -> Result<Option<Fde>, SourceError> {
        if let Some(index) = index {
            let after = index.entries.partition_point(|entry| entry.start <= svma);
            let before = index.entries.get(..after).unwrap_or_default();
            return self.nearest(svma, before.iter().rev().map(|entry| entry.fde));
        }
        if self.header().is_sorted()
            && let Some(after) = self.search(svma)?
        {
            return self.nearest(svma, (0..after).rev());
        }
        self.scan(svma)
    }

    /// The number of functions that begin at or below `svma`; `None` where the table turns out not
    /// to be sorted.
    fn search(&self, svma: u64) -> Result<Option<u32>, SourceError> {
        let (mut low, mut high) = (0, self.header().fde_count);
        let (mut least, mut most) = (0, u64::MAX);
        while low < high {
            let middle = low.midpoint(high);
            let start = self.start(middle)?;
            if start < least || start > most {
                return Ok(None);
            }
            if start <= svma {
                low = middle.saturating_add(1);
                least = start;
            } else {
                high = middle;
                most = start;
            }
        }
        Ok(Some(low))
    }

    /// The first of `candidates`, nearest first, that covers `svma`. Only functions of no length
    /// may stand in the way.
    fn nearest(&self, svma: u64, candidates: impl Iterator<Item = u32>) -> Result<Option<Fde>, SourceError> {
        for index in candidates {
            let fde = self.fde(index)?;
            if fde.contains(svma) {
                return Ok(Some(fde));
            }
            if fde.size > 0 {
                break;
            }
        }
        Ok(None)
    }

    /// The function with the highest start that covers `svma`.
    fn scan(&self, svma: u64) -> Result<Option<Fde>, SourceError> {
        let mut nearest: Option<Fde> = None;
        let mut broken = None;
        for fde in self.fdes() {
            match fde {
                Ok(fde) if fde.contains(svma) && nearest.is_none_or(|nearest| nearest.start <= fde.start) => {
                    nearest = Some(fde);
                }
                Ok(_) => {}
                Err(error) => {
                    broken.get_or_insert(error);
                }
            }
        }
        match (nearest, broken) {
            (None, Some(error)) => Err(error),
            (nearest, _) => Ok(nearest),
        }
    }
}
