//! Finding the function at an address.

use super::header::Version;
use super::section::{Fde, SFrameSection, Starts, V1, V2, V3};
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

#[cfg(feature = "table")]
impl SFrameIndex<'_> {
    /// How many functions it has.
    pub(super) fn count(&self) -> usize {
        self.entries.len()
    }

    /// Where the function at this place begins (svma), and where it is in the section's table.
    pub(super) fn at(&self, place: usize) -> Option<(u64, u32)> {
        self.entries.get(place).map(|entry| (entry.start, entry.fde))
    }
}

impl SFrameSection<'_> {
    /// The function at `svma`, by binary search where the table or an index is sorted, else by a
    /// scan of the whole table. It is the one that begins nearest below, and none where that one
    /// ends before `svma`, even if another one that it lies in goes on.
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
            && let Some(after) = self.search(svma)
        {
            return self.nearest(svma, (0..after).rev());
        }
        self.scan(svma)
    }

    /// The number of functions that begin at or below `svma`; `None` where the table turns out not
    /// to be sorted.
    #[inline(never)]
    fn search(&self, svma: u64) -> Option<u32> {
        match self.header().version {
            Version::V1 => self.starts::<V1>().search(svma),
            Version::V2 => self.starts::<V2>().search(svma),
            Version::V3 => self.starts::<V3>().search(svma),
        }
    }

    /// The first of `candidates`, nearest first, that covers `svma`. Only functions of no length,
    /// and others with the same start, may stand in the way.
    #[inline(never)]
    fn nearest(&self, svma: u64, candidates: impl Iterator<Item = u32>) -> Result<Option<Fde>, SourceError> {
        let mut nearest = None;
        // As many as begin at one address, and those of no size before them.
        for index in candidates {
            if let Some(nearest) = nearest
                && self.start(index)? != nearest
            {
                break;
            }
            let fde = self.fde(index)?;
            if fde.contains(svma) {
                return Ok(Some(fde));
            }
            if fde.size > 0 {
                nearest = Some(fde.start);
            }
        }
        Ok(None)
    }

    /// The same by looking at every function.
    #[inline(never)]
    fn scan(&self, svma: u64) -> Result<Option<Fde>, SourceError> {
        let mut nearest = (0, Ok(None));
        for index in 0..self.header().fde_count {
            let start = self.start(index)?;
            if start > svma || start < nearest.0 {
                continue;
            }
            let fde = self.fde(index);
            let counts = match &fde {
                Ok(fde) => fde.contains(svma) || (fde.size > 0 && start > nearest.0),
                Err(_) => true,
            };
            if counts {
                nearest = (start, fde.map(|fde| Some(fde).filter(|fde| fde.contains(svma))));
            }
        }
        nearest.1
    }
}

impl<const SIZE: usize> Starts<'_, SIZE> {
    /// The number of functions that begin at or below `svma`; `None` where the table turns out not
    /// to be sorted.
    fn search(&self, svma: u64) -> Option<u32> {
        let (mut low, mut high) = (0, self.count());
        let (mut least, mut most) = (0, u64::MAX);
        // Each turn halves the range: at most 32.
        while low < high {
            let middle = low.midpoint(high);
            let start = self.get(middle)?;
            if start < least || start > most {
                return None;
            }
            if start <= svma {
                low = middle.saturating_add(1);
                least = start;
            } else {
                high = middle;
                most = start;
            }
        }
        Some(low)
    }
}
