//! What tables can be made of: sources that can name their functions in the order of their addresses.

use super::rule::TableRule;
use crate::{Arch, FrameSource};

/// A source that tables can be made of: `DwarfSource` (with `.eh_frame_hdr`, or an index in its sections),
/// `SFrameSource` (one that is sorted, or has an index) and `EhabiSource`. Not for others to implement.
///
/// Of a source with both `.eh_frame` and `.debug_frame`, the former is compiled; of several SFrame sections
/// one after another, the first. What only the others cover is left to the source.
pub trait TableOrigin<A: Arch>: FrameSource<A> + Copy {
    /// Its functions.
    #[doc(hidden)]
    type Functions: Functions;

    /// Its functions in the order of their addresses; `None` where it cannot tell. Work that does not depend
    /// on their number.
    #[doc(hidden)]
    fn functions_of(&self, arch: &A) -> Option<Self::Functions>;
}

/// Functions in the order of their addresses.
///
/// Of two functions that overlap, a lookup finds the one that begins nearest below; whatever that is, if it
/// is not the only one to begin there, is left to the original source.
pub trait Functions {
    /// How many there are.
    fn count(&self) -> usize;

    /// Where the function at this place begins (svma).
    fn start(&self, place: usize) -> Option<u64>;

    /// Whether lookups pass the function at this place over, as if it were not there.
    fn is_passed_over(&mut self, place: usize) -> bool {
        let _ = place;
        false
    }

    /// Whether the source covers nothing but these functions.
    fn is_all(&self) -> bool;

    /// Visits the rows of the function at this place, in ascending order, with their distances from its
    /// start; the first is at its start, unless that is not covered. How many bytes it has; `None`, and not
    /// a row, where it cannot be told.
    fn rows(&mut self, place: usize, row: impl FnMut(u64, TableRule)) -> Option<u64>;
}

/// Functions with the same start: most often one. What they say ends where the next ones begin.
pub(super) struct Group {
    /// Where they begin, and where the next ones do (svma).
    pub(super) start: u64,
    pub(super) next: u64,
    /// The one function, if it is one.
    pub(super) only: Option<usize>,
    /// The place behind it.
    pub(super) after: usize,
}

impl Group {
    /// The group that begins at this place. `None` at the end, or where starts cannot be read.
    #[inline]
    pub(super) fn at(functions: &mut impl Functions, place: usize) -> Option<Group> {
        let count = functions.count();
        let mut place = place;
        // Each function is passed over once.
        while place < count && functions.is_passed_over(place) {
            place = place.saturating_add(1);
        }
        // What a table holds behind its last function is none.
        let start = if place < count { functions.start(place)? } else { return None };
        let mut is_only = true;
        let mut after = place.saturating_add(1);
        let next = loop {
            if after >= count {
                break u64::MAX;
            }
            let next = functions.start(after)?;
            if !functions.is_passed_over(after) {
                if next != start {
                    break next;
                }
                is_only = false;
            }
            after = after.saturating_add(1);
        };
        Some(Group { start, next, only: is_only.then_some(place), after })
    }

    /// The place of the group that a lookup of `svma` comes to, or of the first one above it.
    #[cfg(target_has_atomic = "64")]
    pub(super) fn place(functions: &mut impl Functions, svma: u64) -> Option<usize> {
        let (mut low, mut high) = (0, functions.count());
        // Each turn halves the range; then as many as begin at one address, or are passed over.
        while low < high {
            let middle = low.midpoint(high);
            if functions.start(middle)? <= svma {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        while let Some(before) = low.checked_sub(1) {
            low = before;
            if !functions.is_passed_over(before) {
                break;
            }
        }
        let start = functions.start(low)?;
        while let Some(before) = low.checked_sub(1)
            && functions.start(before)? == start
        {
            low = before;
        }
        Some(low)
    }
}

/// Whether the functions are in order: otherwise nothing can be told.
pub(super) fn is_sorted(functions: &impl Functions) -> bool {
    let mut last = 0;
    (0..functions.count()).all(|place| match functions.start(place) {
        Some(start) if start >= last => {
            last = start;
            true
        }
        _ => false,
    })
}
