//! Call frame information → table.

use super::format::TableRule;
use super::write::{TableRoom, TableWriteError, TableWriter};
use crate::dwarf::{DwarfFunction, DwarfIndex, DwarfRow, DwarfRule, DwarfSource, Flavor};
use crate::{Arch, Trust};
use core::ops::Range;

/// How far a [`TableCompiler`] has come, in functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How many have been compiled.
    pub done: usize,
    /// How many there are.
    pub total: usize,
}

/// Compiles the call frame information of a module, as many functions at a time as the caller likes: one
/// pass over the instructions of each.
///
/// What the table then says at a pc is what [`DwarfSource`] says there; rows beyond a rule, broken ones,
/// and addresses that several functions cover are left to it.
#[derive(Debug)]
pub struct TableCompiler<'d, 'r, A> {
    arch: A,
    source: DwarfSource<'d>,
    flavor: Flavor,
    index: DwarfIndex<'d>,
    writer: TableWriter<'r>,
    done: usize,
    /// Addresses that are left to the source, and may go on.
    left: Range<u64>,
}

/// The most rows that one row of code in blocks is made into.
const MOST_BLOCKS: u64 = 1 << 16;

impl<'d, 'r, A: Arch> TableCompiler<'d, 'r, A> {
    /// Begins to compile the section of `source` that `index` is the index of, for the addresses `text`
    /// (svma) of the module: its executable segments.
    ///
    /// # Errors
    /// As for [`TableWriter::new`].
    pub fn new(
        arch: A,
        source: DwarfSource<'d>,
        flavor: Flavor,
        index: DwarfIndex<'d>,
        text: Range<u64>,
        room: TableRoom<'r>,
    ) -> Result<Self, TableWriteError> {
        let writer = TableWriter::new(text, room)?;
        Ok(TableCompiler { arch, source, flavor, index, writer, done: 0, left: 0..0 })
    }

    /// Compiles up to `functions` more functions.
    ///
    /// # Errors
    /// As for [`TableWriter::function`].
    pub fn advance(&mut self, functions: usize) -> Result<Progress, TableWriteError> {
        let total = self.index.len();
        for _ in 0..functions.min(total.saturating_sub(self.done)) {
            self.next()?;
            self.done = self.done.saturating_add(1);
        }
        Ok(Progress { done: self.done, total })
    }

    /// Compiles what is left, and finishes the table.
    ///
    /// # Errors
    /// As for [`TableWriter::finish`].
    pub fn finish(mut self) -> Result<&'r [u8], TableWriteError> {
        self.advance(usize::MAX)?;
        self.flush()?;
        self.writer.finish()
    }

    fn next(&mut self) -> Result<(), TableWriteError> {
        let Some(start) = self.index.start(self.done) else { return Ok(()) };
        let function = self.source.function(&self.arch, self.flavor, self.index, self.done);
        // A pointer into the target's memory, or an entry that is broken now: the source knows.
        let Some(function) = function else {
            return self.leave(start..start.saturating_add(1));
        };
        let end = function.start().saturating_add(function.length());
        if start < self.left.end {
            return self.leave(start..end);
        }
        self.flush()?;
        let next = self.index.start(self.done.saturating_add(1)).unwrap_or(u64::MAX);
        if next >= end {
            return self.write(&function, function.length(), true);
        }
        self.write(&function, next.saturating_sub(start), false)?;
        self.leave(next..end)
    }

    fn write(
        &mut self,
        function: &DwarfFunction<'d, A>,
        length: u64,
        is_whole: bool,
    ) -> Result<(), TableWriteError> {
        let start = function.start();
        let rows = function.rows().flat_map(|row| Blocks::of(start, row));
        self.writer.part(start, length, rows, is_whole)
    }

    /// Leaves addresses to the source, together with those before if they are beside each other.
    fn leave(&mut self, addresses: Range<u64>) -> Result<(), TableWriteError> {
        if addresses.start > self.left.end {
            self.flush()?;
            self.left = addresses;
        } else if self.left.is_empty() {
            self.left = addresses;
        } else {
            self.left.end = self.left.end.max(addresses.end);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), TableWriteError> {
        let left = core::mem::replace(&mut self.left, 0..0);
        if left.is_empty() { Ok(()) } else { self.writer.ask_original(left) }
    }
}

/// The rows of a table that one row of call frame information becomes: one, or two for each block of code.
struct Blocks {
    /// The first address, from the start of the function.
    at: u64,
    end: u64,
    step: [u64; 2],
    rules: [TableRule; 2],
}

impl Blocks {
    fn of(start: u64, row: DwarfRow) -> Self {
        let at = row.start.wrapping_sub(start);
        let end = at.saturating_add(row.length);
        let whole = |rule| Blocks { at, end, step: [row.length, 0], rules: [rule, rule] };
        let rule =
            |frame, is_block| TableRule::Frame { frame, trust: Trust::Exact, is_last: false, is_block };
        match row.rule {
            DwarfRule::Frame(frame) => whole(rule(frame, false)),
            DwarfRule::Blocks { size, split, first, second }
                if row.length.checked_div(size.into()).is_some_and(|blocks| blocks < MOST_BLOCKS)
                    && (1..size).contains(&split) =>
            {
                let step = [split.into(), size.wrapping_sub(split).into()];
                Blocks { at, end, step, rules: [rule(first, true), rule(second, true)] }
            }
            _ => whole(TableRule::AskOriginal),
        }
    }
}

impl Iterator for Blocks {
    type Item = (u64, TableRule);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let ([step, other_step], [rule, other_rule]) = (self.step, self.rules);
        let at = self.at;
        self.at = at.saturating_add(step.max(1));
        self.step = [other_step, step];
        self.rules = [other_rule, rule];
        Some((at, rule))
    }
}
