//! A cache of rules: what a source answered for a pc, remembered in room that the caller gives.
//!
//! Stacks repeat: a profiler sees the same return addresses again and again. [`Cached`] stands before a
//! source, a whole [`ModuleMap`](crate::ModuleMap) for instance, and asks it only for what is not
//! remembered. Whatever could be mistaken for something else is part of the key: the address, whether it
//! is an exact or a return pc, the kind of source, and a generation that the embedder changes with the
//! modules. That a source does not cover a pc is remembered as well; errors, of memory above all, never
//! are.
//!
//! Any number of threads may share a cache, and an interrupt handler may use it in the midst of another
//! use: nothing waits. A slot that is being written is passed over by readers and writers alike.

mod answer;
mod slots;

use self::answer::{Answer, NO_KEY, key};
pub use self::slots::{CacheSlot, RuleCache};
use crate::memory::MemoryReader;
use crate::plain::Plain;
use crate::plain_step;
use crate::source::{CodeAt, Evaluated, Found, FrameSource, Query, UnwindUserType, UnwindUserTypes};
use crate::source_error::LookupError;
use crate::{Arch, CallerRegisters, Pc, RegisterFile};

/// A source behind a cache.
#[derive(Clone, Copy, Debug)]
pub struct Cached<'c, S> {
    /// The cache.
    pub cache: RuleCache<'c>,
    /// Which state of the source this is. Whoever changes what the source answers, by replacing a
    /// module for instance, takes another number, one that no source behind this cache has had.
    /// Sources of different processes have different numbers.
    pub generation: u64,
    /// The source.
    pub source: S,
}

impl<A: Arch, S: FrameSource<A>> FrameSource<A> for Cached<'_, S> {
    #[inline]
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
        let kinds = UnwindUserTypes::only(kind);
        if let Some(found) = self.recall(kinds, query) {
            return Ok(found.map(|(_, found)| found));
        }
        let found = self.source.lookup(arch, kind, query, memory);
        if let Ok(found) = &found {
            self.remember::<A>(kinds, query, found.as_ref().map(|found| (kind, found)));
        }
        found
    }

    #[inline]
    fn peek(&self, arch: &A, kinds: UnwindUserTypes, query: &Query) -> Option<Plain> {
        let pc = query.pc.address();
        let number = self.cache.number(pc, self.generation);
        match self.cache.get_plain(number, key(kinds, query), pc, self.generation) {
            None => self.peek_behind(arch, kinds, query.pc, query.bias),
            plain => plain,
        }
    }

    #[inline]
    fn peek_caller(
        &self,
        arch: &A,
        kinds: UnwindUserTypes,
        query: &Query,
        (pc, rule): (u64, &Plain),
    ) -> Option<Plain> {
        let hint = usize::from(rule.hint());
        match self.cache.get_plain(hint, key(kinds, query), query.pc.address(), self.generation) {
            None => self.peek_elsewhere(arch, kinds, query.pc, query.bias, (pc, rule)),
            plain => plain,
        }
    }

    fn lookup_best(
        &self,
        arch: &A,
        kinds: UnwindUserTypes,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<(UnwindUserType, Found)>, LookupError> {
        if let Some(found) = self.recall(kinds, query) {
            return Ok(found);
        }
        let found = self.source.lookup_best(arch, kinds, query, memory);
        if let Ok(found) = &found {
            self.remember::<A>(kinds, query, found.as_ref().map(|(kind, found)| (*kind, found)));
        }
        found
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

    #[inline]
    fn code_at(&self, address: u64) -> CodeAt {
        self.source.code_at(address)
    }
}

impl<S> Cached<'_, S> {
    /// What is not remembered, where the source has it at hand.
    #[cold]
    #[inline(never)]
    fn peek_behind<A: Arch>(&self, arch: &A, kinds: UnwindUserTypes, pc: Pc, bias: u64) -> Option<Plain>
    where
        S: FrameSource<A>,
    {
        let query = Query { pc, bias };
        let (key, pc) = (key(kinds, &query), pc.address());
        if let Some(answer) = self.cache.get(key, pc, self.generation) {
            return answer.plain();
        }
        let plain = self.source.peek(arch, kinds, &query)?;
        if key != NO_KEY {
            self.cache.put(key, pc, self.generation, Answer::of_plain(plain));
        }
        Some(plain)
    }

    /// What the callee's slot has no right hint for.
    #[inline(never)]
    fn peek_elsewhere<A: Arch>(
        &self,
        arch: &A,
        kinds: UnwindUserTypes,
        pc: Pc,
        bias: u64,
        (callee, rule): (u64, &Plain),
    ) -> Option<Plain>
    where
        S: FrameSource<A>,
    {
        let key = key(kinds, &Query { pc, bias });
        let own = self.cache.number(pc.address(), self.generation);
        let found = self.cache.get_plain(own, key, pc.address(), self.generation).map(|plain| (own, plain));
        let (number, plain) = match found {
            Some(found) => found,
            None => match self.cache.find(key, pc.address(), self.generation) {
                Some((number, answer)) => (number, answer.plain()?),
                None => (own, self.peek_behind(arch, kinds, pc, bias)?),
            },
        };
        self.cache.expect(callee, self.generation, rule, number);
        Some(plain)
    }

    /// What is remembered. In a function of its own, as what follows it is: a source behind a cache needs
    /// the stack.
    #[inline(never)]
    fn recall(&self, kinds: UnwindUserTypes, query: &Query) -> Option<Option<(UnwindUserType, Found)>> {
        let key = key(kinds, query);
        if key == NO_KEY {
            return None;
        }
        self.cache.get(key, query.pc.address(), self.generation).map(Answer::found)
    }

    /// Remembers what the source answered. What is not code is not to be peeked at.
    #[inline(never)]
    fn remember<A: Arch>(
        &self,
        kinds: UnwindUserTypes,
        query: &Query,
        found: Option<(UnwindUserType, &Found)>,
    ) where
        S: FrameSource<A>,
    {
        let (key, pc) = (key(kinds, query), query.pc.address());
        if key == NO_KEY {
            return;
        }
        let is_code = || query.pc.is_exact() || plain_step::may_be_code(&self.source, pc);
        let answer = match found {
            None => Some(Answer::NOT_COVERED),
            Some((kind, found)) => Answer::of(kind, found, is_code),
        };
        if let Some(answer) = answer {
            self.cache.put(key, pc, self.generation, answer);
        }
    }
}
