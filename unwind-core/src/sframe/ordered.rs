//! The functions of a section as tables are made of them.

use super::SFrameSource;
use super::find::SFrameIndex;
use super::header::Abi;
use super::row::{Rows, StoredRow};
use super::rule;
use super::section::{Fde, SFrameSection};
use crate::table::{Functions, Holds, TableOrigin, TableRule};
use crate::{Arch, Trust};

impl<'d, A: Arch> TableOrigin<A> for SFrameSource<'d> {
    type Functions = OrderedFdes<'d>;

    fn functions_of(&self, arch: &A) -> Option<Self::Functions> {
        let mut sections = self.sections();
        let section = sections.next()?.ok()?;
        let is_in_order = self.index.is_some() || section.header().is_sorted();
        if Some(section.abi()) != Abi::of(arch) || !is_in_order {
            return None;
        }
        Some(OrderedFdes { section, index: self.index, is_all: sections.next().is_none() })
    }
}

/// The functions of a source's first section, in the order of their addresses.
#[derive(Clone, Copy, Debug)]
pub struct OrderedFdes<'d> {
    section: SFrameSection<'d>,
    index: Option<SFrameIndex<'d>>,
    /// Whether there is no further section.
    is_all: bool,
}

/// The most rows that the rows of a function in blocks are made into.
const MOST_BLOCK_ROWS: u64 = 1 << 16;

impl Functions for OrderedFdes<'_> {
    fn count(&self) -> usize {
        match self.index {
            Some(index) => index.count(),
            None => usize::try_from(self.section.header().fde_count).unwrap_or(usize::MAX),
        }
    }

    fn start(&self, place: usize) -> Option<u64> {
        match self.index {
            Some(index) => index.at(place).map(|(start, _)| start),
            None => self.section.start(u32::try_from(place).ok()?).ok(),
        }
    }

    fn is_passed_over(&mut self, place: usize) -> bool {
        self.fde(place).is_some_and(|fde| fde.size == 0)
    }

    fn is_all(&self) -> bool {
        self.is_all
    }

    fn rows(&mut self, place: usize, mut row: impl FnMut(u64, TableRule)) -> Option<u64> {
        let fde = self.fde(place)?;
        let size = u64::from(fde.size);
        // What no row covers, another section may. In blocks, the function does not end before it.
        let is_gap = self.is_all && fde.block_size.is_none();
        let uncovered = if is_gap { TableRule::NotCovered } else { TableRule::AskOriginal };
        let block = fde.block_size.map_or(size, u64::from);
        let trust = if fde.block_size.is_some() { Trust::CallSite } else { Trust::Exact };
        let blocks = size.div_ceil(block.max(1));
        let rows = blocks.saturating_mul(u64::from(fde.row_count).saturating_add(1));
        if blocks > 1 && rows > MOST_BLOCK_ROWS {
            row(0, TableRule::AskOriginal);
            return Some(size);
        }
        for number in 0..blocks {
            let start = number.saturating_mul(block);
            let room = block.min(size.saturating_sub(start));
            let mut is_covered = false;
            self.visit(&fde, trust, |at, rule| {
                if at < room {
                    if at > 0 && !is_covered {
                        row(start, uncovered);
                    }
                    is_covered = true;
                    row(start.saturating_add(at), rule);
                }
            });
            if !is_covered {
                row(start, uncovered);
            }
        }
        Some(size)
    }
}

impl OrderedFdes<'_> {
    fn fde(&self, place: usize) -> Option<Fde> {
        let index = match self.index {
            Some(index) => index.at(place)?.1,
            None => u32::try_from(place).ok()?,
        };
        self.section.fde(index).ok()
    }

    /// The rows of a function, as a lookup finds them: to be sure of one, it looks at the next.
    fn visit(&self, fde: &Fde, trust: Trust, mut row: impl FnMut(u64, TableRule)) {
        let mut rows = self.section.rows(fde);
        let mut pending: Option<StoredRow<'_>> = None;
        while let Some(next) = rows.next_stored() {
            let start = pending.map_or(0, |pending| u64::from(pending.start));
            let Ok(next) = next else {
                row(start, TableRule::AskOriginal);
                return;
            };
            if let Some(pending) = pending.replace(next) {
                row(start, self.rule(fde, &rows, &pending, trust));
            }
        }
        if let Some(pending) = pending {
            row(pending.start.into(), self.rule(fde, &rows, &pending, trust));
        }
    }

    fn rule(&self, fde: &Fde, rows: &Rows<'_>, stored: &StoredRow<'_>, trust: Trust) -> TableRule {
        let row = rows.read(stored).ok();
        match row.and_then(|row| rule::frame(self.section.abi(), fde, &row)) {
            Some(frame) => TableRule::Frame { frame, trust, holds: Holds::Everywhere },
            None => TableRule::AskOriginal,
        }
    }
}
