//! Walking with a table, and with the source that it was made of.

use super::format::Table;
use super::rule::{Holds, TableRule};
use crate::memory::MemoryReader;
use crate::plain::Plain;
use crate::source::{
    CodeAt, Evaluated, Found, FrameSource, Query, Rule, Trust, UnwindUserType, UnwindUserTypes,
};
use crate::source_error::{Broken, LookupError, SourceError};
use crate::{Arch, CallerRegisters, RegisterFile};

/// A compiled table as a [`FrameSource`], over the source that it was made of: what the table leaves to
/// the original, and every register beside ip, sp and fp, comes from there. `original` may be `()` where
/// there is none any more; what is left to it then is not covered.
#[derive(Clone, Copy, Debug)]
pub struct TableSource<'t, S> {
    /// The table.
    pub table: Table<'t>,
    /// What it was made of.
    pub original: S,
}

impl<A: Arch, S: FrameSource<A>> FrameSource<A> for TableSource<'_, S> {
    #[inline]
    fn types(&self) -> UnwindUserTypes {
        self.original.types().with(UnwindUserType::Table)
    }

    #[inline]
    fn lookup(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError> {
        if kind != UnwindUserType::Table {
            return self.original.lookup(arch, kind, query, memory);
        }
        let svma = arch.word_size().truncate(query.pc.lookup_address().wrapping_sub(query.bias));
        let found = if query.pc.is_exact() {
            self.table.find(svma).map(|rule| (rule, false))
        } else {
            self.table.find_with_end(svma)
        };
        let (rule, is_end) = found.ok_or(SourceError { broken: Broken::BadRow, offset: svma })?;
        Ok(answer(rule, is_end, query))
    }

    #[inline]
    fn peek(&self, arch: &A, kinds: UnwindUserTypes, query: &Query) -> Option<Plain> {
        let kind = UnwindUserType::Table;
        if !kinds.contains(kind) || !kinds.better_than(kind).is_empty() {
            return None;
        }
        let svma = arch.word_size().truncate(query.pc.lookup_address().wrapping_sub(query.bias));
        self.table.plain(svma, query.pc.is_exact())
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
        if kind != UnwindUserType::Table {
            return self.original.evaluate(arch, kind, query, registers, memory, caller);
        }
        evaluate(&self.original, arch, query, registers, memory, caller)
    }

    #[inline]
    fn code_at(&self, address: u64) -> CodeAt {
        self.original.code_at(address)
    }
}

/// What a rule of a table answers; `None` where the original has to be asked.
#[inline]
pub(super) fn answer(rule: TableRule, is_end: bool, query: &Query) -> Option<Found> {
    let TableRule::Frame { frame, mut trust, holds } = rule else { return None };
    let is_exact = query.pc.is_exact();
    match holds {
        Holds::Everywhere => {}
        Holds::ForCalls if is_exact => trust = Trust::CallSite,
        Holds::ForCalls => {}
        Holds::AtExact if is_exact => {}
        Holds::InBlocks if is_exact && query.bias & 0x7f == 0 => {}
        Holds::AtExact | Holds::InBlocks => return None,
    }
    Some(Found::new(Rule::Frame(frame), trust).at_end(is_end))
}

/// Evaluates a frame whose rule a table has, by the source that the table was made of.
pub(super) fn evaluate<A: Arch>(
    original: &impl FrameSource<A>,
    arch: &A,
    query: &Query,
    registers: &dyn RegisterFile,
    memory: &mut dyn MemoryReader,
    caller: &mut dyn CallerRegisters,
) -> Result<Option<Evaluated>, LookupError> {
    // One place for all of them, which is the caller's: it is large.
    let mut evaluated = Ok(None);
    for kind in original.types().iter() {
        evaluated = original.evaluate(arch, kind, query, registers, memory, caller);
        if !matches!(evaluated, Ok(None)) {
            break;
        }
    }
    evaluated
}
