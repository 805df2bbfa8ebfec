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

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use crate::memory::MemoryReader;
use crate::source::{
    CodeAt, Evaluated, Found, FrameSource, LookupError, Query, Rule, Trust, UnwindUserType, UnwindUserTypes,
};
use crate::{Arch, CallerRegisters, Pc, RegisterFile, UnwindUserFrame};

/// Room for one answer: 40 bytes.
#[derive(Debug, Default)]
pub struct CacheSlot {
    /// How often the slot was written, times two, and odd while it is being written; in the lowest bits,
    /// the answer beside its rule.
    state: AtomicU64,
    pc: AtomicU64,
    generation: AtomicU64,
    rule: [AtomicU64; 2],
}

impl CacheSlot {
    /// A slot without an answer.
    pub const fn new() -> Self {
        CacheSlot {
            state: AtomicU64::new(0),
            pc: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            rule: [AtomicU64::new(0), AtomicU64::new(0)],
        }
    }
}

/// A cache in borrowed slots. Each question has one slot that its answer can be in; the more slots, the
/// fewer share one. 4,096 slots answer for nearly all frames of a busy program.
///
/// ```
/// use unwind_core::{CacheSlot, Cached, RuleCache, UnwindUserFrame};
///
/// static SLOTS: [CacheSlot; 512] = [const { CacheSlot::new() }; 512];
///
/// let cache = RuleCache::new(&SLOTS);
/// // Before the modules of a process, which are in their 7th state.
/// let source = Cached { cache, generation: 7, source: () };
/// # let _ = source;
/// ```
#[derive(Clone, Copy)]
pub struct RuleCache<'c> {
    slots: &'c [CacheSlot],
}

/// The answer beside its rule, in the lowest bits of a slot's state.
const TAG_BITS: u32 = 12;
const TAG: u64 = (1 << TAG_BITS) - 1;
/// The part of it that is key: bit 0, whether there is an answer at all; bit 1, whether it is for an exact
/// pc; bits 2 to 5, the kind.
const KEY: u64 = 0x3f;
const IS_ANSWER: u64 = 1;
const IS_EXACT: u64 = 1 << 1;
const KIND_SHIFT: u32 = 2;
/// Whether the source covers the pc; whether there is a rule; whether it is the last of its function.
const IS_COVERED: u64 = 1 << 6;
const IS_FRAME: u64 = 1 << 7;
const IS_AT_END: u64 = 1 << 8;
/// Two bits.
const TRUST_SHIFT: u32 = 9;
/// One write begun, or ended.
const WRITE: u64 = 1 << TAG_BITS;

impl<'c> RuleCache<'c> {
    /// A cache in these slots. Without slots nothing is remembered.
    pub const fn new(slots: &'c [CacheSlot]) -> Self {
        RuleCache { slots }
    }

    /// The slot that the answer for a key is in.
    #[inline]
    fn slot(&self, key: u64, pc: u64, generation: u64) -> Option<&'c CacheSlot> {
        // Return addresses differ in their lower bits. The product's upper half is below the number of
        // slots.
        let all = pc ^ key.wrapping_shl(56) ^ generation.wrapping_shl(40);
        let mixed = (all ^ all.wrapping_shr(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_shr(32);
        let count = u64::try_from(self.slots.len()).ok()?;
        let index = mixed.wrapping_mul(count).wrapping_shr(32);
        self.slots.get(usize::try_from(index).ok()?)
    }

    /// What is remembered for this key.
    #[inline]
    fn get(&self, key: u64, pc: u64, generation: u64) -> Option<Option<Found>> {
        let slot = self.slot(key, pc, generation)?;
        let state = slot.state.load(Ordering::Acquire);
        if state & (KEY | WRITE) != key
            || slot.pc.load(Ordering::Relaxed) != pc
            || slot.generation.load(Ordering::Relaxed) != generation
        {
            return None;
        }
        let [low, high] = &slot.rule;
        let rule = [low.load(Ordering::Relaxed), high.load(Ordering::Relaxed)];
        // If nobody has written meanwhile, all of it belongs together.
        fence(Ordering::Acquire);
        if slot.state.load(Ordering::Relaxed) != state {
            return None;
        }
        Some(answer(state, rule))
    }

    /// Remembers an answer, unless somebody else is writing there.
    fn put(&self, key: u64, pc: u64, generation: u64, found: Option<Found>) {
        let Some(slot) = self.slot(key, pc, generation) else { return };
        let state = slot.state.load(Ordering::Relaxed);
        if state & WRITE != 0 {
            return;
        }
        let count = state & !TAG;
        // No reader takes a slot that is being written for its own: the flag is part of what it compares.
        let writing = count | WRITE;
        if slot.state.compare_exchange(state, writing, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return;
        }
        fence(Ordering::Release);
        let (tag, rule) = tag(found);
        let [low, high] = &slot.rule;
        slot.pc.store(pc, Ordering::Relaxed);
        slot.generation.store(generation, Ordering::Relaxed);
        for (place, word) in [low, high].into_iter().zip(rule) {
            place.store(word, Ordering::Relaxed);
        }
        let written = writing.wrapping_add(WRITE) | key | tag;
        slot.state.store(written, Ordering::Release);
    }
}

impl fmt::Debug for RuleCache<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleCache").field("slots", &self.slots.len()).finish()
    }
}

/// The part of a tag that is key.
#[inline]
fn key(kind: UnwindUserType, pc: Pc) -> u64 {
    let exact = if pc.is_exact() { IS_EXACT } else { 0 };
    IS_ANSWER | exact | u64::from(kind.number()).wrapping_shl(KIND_SHIFT)
}

fn tag(found: Option<Found>) -> (u64, [u64; 2]) {
    let Some(Found { rule, trust, is_at_end }) = found else {
        return (0, [0; 2]);
    };
    let (is_frame, rule) = match rule {
        Rule::Frame(frame) => (IS_FRAME, frame.to_words()),
        Rule::Evaluate => (0, [0; 2]),
    };
    let trust = u64::from(trust.to_bits());
    let at_end = if is_at_end { IS_AT_END } else { 0 };
    (IS_COVERED | is_frame | at_end | trust.wrapping_shl(TRUST_SHIFT), rule)
}

#[inline]
fn answer(tag: u64, rule: [u64; 2]) -> Option<Found> {
    if tag & IS_COVERED == 0 {
        return None;
    }
    let rule = match tag & IS_FRAME {
        0 => Rule::Evaluate,
        _ => Rule::Frame(UnwindUserFrame::from_words(rule)),
    };
    let [trust, ..] = tag.wrapping_shr(TRUST_SHIFT).to_le_bytes();
    Some(Found::new(rule, Trust::from_bits(trust)).at_end(tag & IS_AT_END != 0))
}

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

    #[inline]
    fn lookup(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError> {
        // A bias would be one more thing to tell apart: the place before a single module is before its map.
        if query.bias != 0 {
            return self.source.lookup(arch, kind, query, memory);
        }
        let (key, pc) = (key(kind, query.pc), query.pc.address());
        if let Some(found) = self.cache.get(key, pc, self.generation) {
            return Ok(found);
        }
        let found = self.source.lookup(arch, kind, query, memory)?;
        self.cache.put(key, pc, self.generation, found);
        Ok(found)
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
