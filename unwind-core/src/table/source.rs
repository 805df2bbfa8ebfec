//! Walking with a table, and with the source that it was made of.

use super::format::{Table, TableRule};
use crate::memory::MemoryReader;
use crate::source::{
    Broken, CodeAt, Evaluated, Found, FrameSource, LookupError, Query, Rule, SourceError, UnwindUserType,
    UnwindUserTypes,
};
use crate::{Arch, CallerRegisters, Pc, RegisterFile};

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
        let damaged = SourceError { broken: Broken::BadRow, offset: svma };
        match self.table.find(svma).ok_or(damaged)? {
            TableRule::Frame { frame, trust, is_last, is_block } => {
                if is_block && !(query.pc.is_exact() && query.bias & 0x7f == 0) {
                    return Ok(None);
                }
                let found = Found::new(Rule::Frame(frame), trust);
                let is_at_end = is_last && !query.pc.is_exact() && self.ends_before(arch, query);
                Ok(Some(found.at_end(is_at_end)))
            }
            TableRule::NotCovered | TableRule::AskOriginal => Ok(None),
        }
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
        for kind in self.original.types().iter() {
            let evaluated = self.original.evaluate(arch, kind, query, registers, memory, caller)?;
            if evaluated.is_some() {
                return Ok(evaluated);
            }
        }
        Ok(None)
    }

    #[inline]
    fn code_at(&self, address: u64) -> CodeAt {
        self.original.code_at(address)
    }
}

impl<S> TableSource<'_, S> {
    /// Whether the row that a return pc was looked up in ends right before it.
    #[inline]
    fn ends_before<A: Arch>(&self, arch: &A, query: &Query) -> bool {
        let Pc::Return(pc) = query.pc else { return false };
        let svma = arch.word_size().truncate(pc.wrapping_sub(query.bias));
        self.table.is_border(svma)
    }
}
