//! A source that counts how often it is asked.

use std::sync::atomic::{AtomicU64, Ordering};

use unwind_core::{
    Arch, CallerRegisters, CodeAt, Evaluated, Found, FrameSource, LookupError, MemoryReader, Plain, Query,
    RegisterFile, UnwindUserType, UnwindUserTypes,
};

/// Another source, counted.
pub(super) struct Counted<S> {
    source: S,
    asked: AtomicU64,
}

impl<S> Counted<S> {
    pub(super) fn new(source: S) -> Self {
        Counted { source, asked: AtomicU64::new(0) }
    }

    /// How often it was asked for a rule.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// What was not at hand is asked for again.
    fn counted(&self, found: Option<Plain>) -> Option<Plain> {
        self.asked.fetch_add(u64::from(found.is_some()), Ordering::Relaxed);
        found
    }
}

impl<A: Arch, S: FrameSource<A>> FrameSource<A> for Counted<S> {
    fn types(&self) -> UnwindUserTypes {
        self.source.types()
    }

    fn lookup(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.source.lookup(arch, kind, query, memory)
    }

    fn peek(&self, arch: &A, kinds: UnwindUserTypes, query: &Query) -> Option<Plain> {
        self.counted(self.source.peek(arch, kinds, query))
    }

    fn peek_caller(
        &self,
        arch: &A,
        kinds: UnwindUserTypes,
        query: &Query,
        callee: (u64, &Plain),
    ) -> Option<Plain> {
        self.counted(self.source.peek_caller(arch, kinds, query, callee))
    }

    fn lookup_best(
        &self,
        arch: &A,
        kinds: UnwindUserTypes,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<(UnwindUserType, Found)>, LookupError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.source.lookup_best(arch, kinds, query, memory)
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
        self.source.evaluate(arch, kind, query, registers, memory, caller)
    }

    fn code_at(&self, address: u64) -> CodeAt {
        self.source.code_at(address)
    }
}
