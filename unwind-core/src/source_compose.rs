//! Sources made of sources: references, options, pairs.

use crate::plain::Plain;
use crate::plain_step::may_be_code;
use crate::source::{CodeAt, Evaluated, Found, FrameSource, Query, UnwindUserType, UnwindUserTypes};
use crate::source_error::LookupError;
use crate::{Arch, CallerRegisters, MemoryReader, RegisterFile};

impl<A: Arch, S: FrameSource<A> + ?Sized> FrameSource<A> for &S {
    #[inline]
    fn types(&self) -> UnwindUserTypes {
        (**self).types()
    }

    #[inline]
    fn lookup(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError> {
        (**self).lookup(arch, kind, query, memory)
    }

    #[inline]
    fn peek(&self, arch: &A, kinds: UnwindUserTypes, query: &Query) -> Option<Plain> {
        (**self).peek(arch, kinds, query)
    }

    #[inline]
    fn peek_caller(
        &self,
        arch: &A,
        kinds: UnwindUserTypes,
        query: &Query,
        callee: (u64, &Plain),
    ) -> Option<Plain> {
        (**self).peek_caller(arch, kinds, query, callee)
    }

    #[inline]
    fn lookup_best(
        &self,
        arch: &A,
        kinds: UnwindUserTypes,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<(UnwindUserType, Found)>, LookupError> {
        (**self).lookup_best(arch, kinds, query, memory)
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
        (**self).evaluate(arch, kind, query, registers, memory, caller)
    }

    #[inline]
    fn code_at(&self, address: u64) -> CodeAt {
        (**self).code_at(address)
    }
}

/// A source that may be absent.
impl<A: Arch, S: FrameSource<A>> FrameSource<A> for Option<S> {
    #[inline]
    fn types(&self) -> UnwindUserTypes {
        self.as_ref().map_or(UnwindUserTypes::NONE, FrameSource::types)
    }

    #[inline]
    fn lookup(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError> {
        match self {
            Some(source) => source.lookup(arch, kind, query, memory),
            None => Ok(None),
        }
    }

    #[inline]
    fn peek(&self, arch: &A, kinds: UnwindUserTypes, query: &Query) -> Option<Plain> {
        self.as_ref()?.peek(arch, kinds, query)
    }

    #[inline]
    fn lookup_best(
        &self,
        arch: &A,
        kinds: UnwindUserTypes,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<(UnwindUserType, Found)>, LookupError> {
        match self {
            Some(source) => source.lookup_best(arch, kinds, query, memory),
            None => Ok(None),
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
        match self {
            Some(source) => source.evaluate(arch, kind, query, registers, memory, caller),
            None => Ok(None),
        }
    }

    #[inline]
    fn code_at(&self, address: u64) -> CodeAt {
        self.as_ref().map_or(CodeAt::Unknown, |source| source.code_at(address))
    }
}

/// Two sources. Where both answer for the same kind, the first that covers the pc does.
impl<A: Arch, S: FrameSource<A>, T: FrameSource<A>> FrameSource<A> for (S, T) {
    #[inline]
    fn types(&self) -> UnwindUserTypes {
        self.0.types().union(self.1.types())
    }

    #[inline]
    fn lookup(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError> {
        if self.0.types().contains(kind)
            && let Some(found) = self.0.lookup(arch, kind, query, memory)?
        {
            return Ok(Some(found));
        }
        if self.1.types().contains(kind) { self.1.lookup(arch, kind, query, memory) } else { Ok(None) }
    }

    #[inline]
    fn peek(&self, arch: &A, kinds: UnwindUserTypes, query: &Query) -> Option<Plain> {
        // What the first one has at hand counts where the second has nothing better to say.
        let found = self.0.peek(arch, kinds, query)?;
        let better = kinds.better_than(found.kind()).intersection(self.1.types());
        // What the first one knows nothing about may be no code for the second.
        let is_code = query.pc.is_exact() || may_be_code(self, query.pc.address());
        (better.is_empty() && is_code).then_some(found)
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
        // The one that answered `lookup` is the one that evaluates.
        if self.0.types().contains(kind) && self.0.lookup(arch, kind, query, memory)?.is_some() {
            return self.0.evaluate(arch, kind, query, registers, memory, caller);
        }
        if self.1.types().contains(kind) {
            self.1.evaluate(arch, kind, query, registers, memory, caller)
        } else {
            Ok(None)
        }
    }

    #[inline]
    fn code_at(&self, address: u64) -> CodeAt {
        match self.0.code_at(address) {
            CodeAt::Unknown => self.1.code_at(address),
            known => known,
        }
    }
}
