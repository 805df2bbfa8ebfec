//! The entries of the index as tables are made of them.

use super::EhabiSource;
use super::entered;
use super::index::Unwinding;
use super::machine::{Unwound, run};
use super::rule::{Names, rule};
use super::section::EhabiSections;
use crate::table::{Functions, Holds, TableOrigin, TableRule};
use crate::{Arch, Rule, Trust};

impl<'d, A: Arch> TableOrigin<A> for EhabiSource<'d> {
    type Functions = OrderedEntries<'d, A>;

    fn functions_of(&self, arch: &A) -> Option<Self::Functions> {
        let sections = *self.sections();
        sections.is_for(arch).then_some(OrderedEntries { arch: *arch, sections })
    }
}

/// The entries of an index, which are in the order of their addresses.
#[derive(Clone, Copy, Debug)]
pub struct OrderedEntries<'d, A> {
    arch: A,
    sections: EhabiSections<'d>,
}

impl<A: Arch> Functions for OrderedEntries<'_, A> {
    fn count(&self) -> usize {
        usize::try_from(self.sections.len()).unwrap_or(usize::MAX)
    }

    fn start(&self, place: usize) -> Option<u64> {
        self.sections.start(u32::try_from(place).ok()?).ok()
    }

    /// Of entries with the same start, the last one counts.
    fn is_passed_over(&mut self, place: usize) -> bool {
        let next = place.saturating_add(1);
        next < self.count() && self.start(next) == self.start(place)
    }

    fn is_all(&self) -> bool {
        true
    }

    fn rows(&mut self, place: usize, mut row: impl FnMut(u64, TableRule)) -> Option<u64> {
        let entry = self.sections.entry(u32::try_from(place).ok()?).ok()?;
        let length = entry.end.checked_sub(entry.start)?;
        if entry.start < self.sections.text_start || entry.end > self.sections.text_end {
            return None;
        }
        let mut unwound = entered();
        let mut instructions = match self.sections.unwinding(&entry) {
            Ok(Unwinding::Instructions { instructions, .. }) => instructions,
            Ok(Unwinding::CannotUnwind) | Err(_) => return None,
        };
        run(&mut Names, &mut instructions, &mut unwound).ok()?;
        if unwound.is_signal() {
            row(0, self.rule(&unwound, Trust::Exact, Holds::ForCalls));
            return Some(length);
        }
        // Where nothing has run yet, if execution stopped there.
        row(0, self.rule(&entered(), Trust::CallSite, Holds::AtExact));
        if length > 1 {
            row(1, self.rule(&unwound, Trust::Exact, Holds::ForCalls));
        }
        Some(length)
    }
}

impl<A: Arch> OrderedEntries<'_, A> {
    fn rule(&self, unwound: &Unwound<Names>, trust: Trust, holds: Holds) -> TableRule {
        match rule(&self.arch, unwound) {
            Rule::Frame(frame) => TableRule::Frame { frame, trust, holds },
            Rule::Evaluate => TableRule::AskOriginal,
        }
    }
}
