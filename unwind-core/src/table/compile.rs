//! A source → table.

use core::fmt;
use core::ops::Range;

use super::origin::{Functions, Group, TableOrigin, is_sorted};
use super::rule::TableRule;
use super::write::{TableRoom, TableWriteError, TableWriter};
use crate::Arch;

/// How far a [`TableCompiler`] has come, in functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// How many have been compiled.
    pub done: usize,
    /// How many there are.
    pub total: usize,
}

/// Why a table cannot be compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableCompileError {
    /// The source cannot tell its functions in the order of their addresses: it has no such section, or an
    /// index has to be built first, or it is for another target.
    NoOrder,
    /// The table cannot be written.
    Write(TableWriteError),
}

impl fmt::Display for TableCompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableCompileError::NoOrder => f.write_str("the functions are not in order, an index is needed"),
            TableCompileError::Write(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for TableCompileError {}

impl From<TableWriteError> for TableCompileError {
    fn from(error: TableWriteError) -> Self {
        TableCompileError::Write(error)
    }
}

/// Compiles the unwind information of a module, as many functions at a time as the caller likes: one pass
/// over each.
///
/// What the table then says at a pc is what its source says there. What a rule cannot say, what is broken,
/// and functions that begin at the same address, are left to the source.
///
/// Memory is what is lent, and a few KiB of stack.
#[derive(Debug)]
pub struct TableCompiler<'r, F> {
    functions: F,
    writer: TableWriter<'r>,
    done: usize,
    /// Whether the function compiled last would go on where the next one begins: it is cut short there, but that is
    /// not its end.
    is_cut: bool,
}

impl<'r> TableCompiler<'r, ()> {
    /// Begins to compile `origin`, for the addresses `text` (svma) of the module: its executable segments.
    /// Goes once over the starts of all functions.
    ///
    /// # Errors
    /// [`TableCompileError::NoOrder`]; as for [`TableWriter::new`].
    pub fn new<A: Arch, O: TableOrigin<A>>(
        arch: A,
        origin: O,
        text: Range<u64>,
        room: TableRoom<'r>,
    ) -> Result<TableCompiler<'r, O::Functions>, TableCompileError> {
        let functions = origin.functions_of(&arch).ok_or(TableCompileError::NoOrder)?;
        if !is_sorted(&functions) {
            return Err(TableCompileError::NoOrder);
        }
        let mut writer = TableWriter::new(text, room)?;
        if !functions.is_all() {
            writer = writer.with_gaps_left();
        }
        Ok(TableCompiler { functions, writer, done: 0, is_cut: false })
    }
}

impl<'r, F: Functions> TableCompiler<'r, F> {
    /// Compiles up to `functions` more functions, or a few more where some begin at the same address.
    ///
    /// # Errors
    /// As for [`TableWriter::function`].
    pub fn advance(&mut self, functions: usize) -> Result<Progress, TableCompileError> {
        let total = self.functions.count();
        let until = self.done.saturating_add(functions).min(total);
        while self.done < until {
            self.next()?;
        }
        Ok(Progress { done: self.done, total })
    }

    /// Compiles what is left, and finishes the table.
    ///
    /// # Errors
    /// As for [`TableWriter::finish`].
    pub fn finish(mut self) -> Result<&'r [u8], TableCompileError> {
        self.advance(usize::MAX)?;
        Ok(self.writer.finish()?)
    }

    fn next(&mut self) -> Result<(), TableCompileError> {
        let Some(group) = Group::at(&mut self.functions, self.done) else {
            // Nothing but functions that are passed over.
            self.done = self.functions.count();
            return Ok(());
        };
        self.done = group.after;
        let Range { start: first, end: last } = self.writer.text().clone();
        if group.next <= first || group.start >= last {
            return Ok(());
        }
        // A row that is not covered would be taken for the end of the function before.
        let not_covered = if self.is_cut { TableRule::AskOriginal } else { TableRule::NotCovered };
        self.is_cut = false;
        let place = match group.only {
            Some(place) if group.start >= first => place,
            _ => return Ok(self.writer.ask_original(group.start..group.next)?),
        };
        self.writer.begin(group.start)?;
        let limit = group.next.min(last).wrapping_sub(group.start);
        let writer = &mut self.writer;
        let mut is_first = true;
        let length = self.functions.rows(place, |at, rule| {
            if at < limit {
                if is_first && at > 0 {
                    writer.rule(group.start, not_covered);
                }
                let is_uncovered = is_first && at == 0 && rule == TableRule::NotCovered;
                is_first = false;
                writer.rule(group.start.wrapping_add(at), if is_uncovered { not_covered } else { rule });
            }
        });
        match length {
            Some(length) => {
                let end = group.start.checked_add(length);
                // Of one that goes on beyond the last address, that is not the end.
                let is_whole = end.is_some_and(|end| end <= group.next && end <= last);
                let end = end.unwrap_or(u64::MAX);
                self.is_cut = end > group.next;
                if is_first && end > group.start {
                    self.writer.rule(group.start, not_covered);
                }
                self.writer.end(end.min(group.next), is_whole && end > group.start);
            }
            None => {
                self.writer.rule(group.start, TableRule::AskOriginal);
                self.writer.end(group.next, false);
            }
        }
        Ok(())
    }
}

#[cfg(feature = "alloc")]
pub use to_vec::compile_to_vec;

#[cfg(feature = "alloc")]
mod to_vec {
    use alloc::vec::Vec;
    use core::ops::Range;

    use super::{Progress, TableCompileError, TableCompiler};
    use crate::Arch;
    use crate::table::{TableOrigin, TableRoom, TableSlot, TableWriteError};

    /// How many functions are compiled between two reports.
    const STEP: usize = 1024;
    /// Room for rules: enough for the largest libraries.
    const RULES: usize = 4096;

    /// The compiled table of `origin`, for the addresses `text` (svma) of the module: its executable segments.
    /// `progress` is told from time to time how far it has come; once more from the beginning where the room
    /// that was guessed at first turns out to be too small.
    ///
    /// # Errors
    /// As for [`TableCompiler`].
    pub fn compile_to_vec<A: Arch, O: TableOrigin<A>>(
        arch: A,
        origin: O,
        text: Range<u64>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Vec<u8>, TableCompileError> {
        let mut rules = alloc::vec![TableSlot::default(); RULES];
        let mut bytes = alloc::vec![0; guess(&arch, &origin, &text)];
        loop {
            let room = TableRoom { bytes: &mut bytes, rules: &mut rules };
            let mut compiler = TableCompiler::new(arch, origin, text.clone(), room)?;
            loop {
                let now = compiler.advance(STEP)?;
                progress(now);
                if now.done >= now.total {
                    break;
                }
            }
            let needed = match compiler.finish() {
                Ok(table) => {
                    let len = table.len();
                    bytes.truncate(len);
                    bytes.shrink_to_fit();
                    return Ok(bytes);
                }
                Err(TableCompileError::Write(TableWriteError::NoRoom { needed })) => needed,
                Err(error) => return Err(error),
            };
            bytes = alloc::vec![0; needed];
        }
    }

    /// Enough bytes for most modules: functions have about ten rows.
    fn guess<A: Arch, O: TableOrigin<A>>(arch: &A, origin: &O, text: &Range<u64>) -> usize {
        use crate::table::origin::Functions;
        let functions = origin.functions_of(arch).map_or(0, |functions| functions.count());
        let pages = text.end.saturating_sub(text.start) >> 8;
        let pages = usize::try_from(pages).unwrap_or(0).min(functions.saturating_mul(64));
        let slots = functions.saturating_mul(32);
        pages.saturating_mul(4).saturating_add(slots).saturating_add(1 << 13)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::UnwindUserFrame;
    use crate::table::{Table, TableSlot};

    const START: u64 = u64::MAX - 0x1f;

    /// One function, whose length leads beyond the last address.
    struct Endless;

    impl Functions for Endless {
        fn count(&self) -> usize {
            1
        }

        fn start(&self, place: usize) -> Option<u64> {
            (place == 0).then_some(START)
        }

        fn is_all(&self) -> bool {
            true
        }

        fn rows(&mut self, _: usize, mut row: impl FnMut(u64, TableRule)) -> Option<u64> {
            row(0, rule(0));
            row(0x10, rule(0x10));
            Some(0x100)
        }
    }

    fn rule(offset: i32) -> TableRule {
        TableRule::exact(UnwindUserFrame::plain(false, offset.wrapping_add(8), -8, None))
    }

    #[test]
    fn a_function_beyond_the_last_address_keeps_its_rows() {
        let room = TableRoom { bytes: &mut [0; 0x1000], rules: &mut [TableSlot::default(); 0x100] };
        let text = START.wrapping_sub(0x100)..u64::MAX;
        let writer = TableWriter::new(text, room).unwrap();
        let compiler = TableCompiler { functions: Endless, writer, done: 0, is_cut: false };
        let table = Table::parse(compiler.finish().unwrap()).unwrap();
        assert_eq!(table.find(START.wrapping_sub(1)), Some(TableRule::NotCovered));
        for at in 0..0x1f {
            let expected = rule(if at < 0x10 { 0 } else { 0x10 });
            assert_eq!(table.find_with_end(START.wrapping_add(at)), Some((expected, false)), "{at:#x}");
        }
    }
}
