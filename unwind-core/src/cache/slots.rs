//! The slots of a cache.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use super::answer::{Answer, IS_PLAIN, KEY, TAG, WRITE};
use crate::plain::Plain;

/// Room for one answer: 32 bytes.
#[derive(Debug, Default)]
#[repr(align(32))]
pub struct CacheSlot {
    /// How often the slot was written, times two, and odd while it is being written; in the lowest bits,
    /// the answer beside its rule.
    state: AtomicU64,
    pc: AtomicU64,
    generation: AtomicU64,
    rule: AtomicU64,
}

impl CacheSlot {
    /// A slot without an answer.
    pub const fn new() -> Self {
        CacheSlot {
            state: AtomicU64::new(0),
            pc: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            rule: AtomicU64::new(0),
        }
    }
}

/// A cache in borrowed slots. Each question has one slot that its answer is in, or that slot's neighbour if
/// another answer has taken its place; the more slots, the fewer share one. 4,096 slots answer for nearly all
/// frames of a busy program. Only a power of two of them is used, as many as there are, up to 65,536. Rules with
/// offsets of more than 16 bits, or with other base registers than sp and fp, are not remembered;
/// hardly any function has one.
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
    /// How many are used, less one.
    mask: usize,
}

impl<'c> RuleCache<'c> {
    /// A cache in these slots. Without slots nothing is remembered.
    pub const fn new(slots: &'c [CacheSlot]) -> Self {
        let mask = match slots.len().checked_ilog2() {
            // So that a hint can name each of them.
            Some(16..) => 0xffff,
            Some(bits) => 1usize.wrapping_shl(bits).wrapping_sub(1),
            None => 0,
        };
        RuleCache { slots, mask }
    }

    /// The number of the slot that the answer for a pc is in.
    #[inline]
    pub(super) fn number(&self, pc: u64, generation: u64) -> usize {
        // A walk waits for this number. Return addresses differ in their lower bits; those above a
        // page's tell apart what lies alike in its page.
        let [a, b, c, d, ..] = (pc.wrapping_shr(11) ^ (pc ^ generation)).to_le_bytes();
        usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(0) & self.mask
    }

    /// The slot that an answer goes to when another one takes its own: its neighbour.
    fn neighbour(&self, number: usize) -> Option<&'c CacheSlot> {
        self.slots.get((number ^ 1) & self.mask)
    }

    /// What is remembered for this key, and where.
    pub(super) fn find(&self, key: u64, pc: u64, generation: u64) -> Option<(usize, Answer)> {
        let number = self.number(pc, generation);
        [number, (number ^ 1) & self.mask].into_iter().find_map(|number| {
            let held = self.slots.get(number)?.read()?;
            let is_it = (held.answer.tag & KEY, held.pc, held.generation) == (key, pc, generation);
            is_it.then_some((number, held.answer))
        })
    }

    /// What is remembered for this key.
    pub(super) fn get(&self, key: u64, pc: u64, generation: u64) -> Option<Answer> {
        self.find(key, pc, generation).map(|(_, answer)| answer)
    }

    /// Has the slot of a pc, which had this rule, say that its caller's is in the slot of this number. That is
    /// no part of the answer: whoever follows it compares the whole key there. So a walk need not wait for a
    /// return address to arrive before it looks for the next rule.
    pub(super) fn expect(&self, pc: u64, generation: u64, rule: &Plain, number: usize) {
        let slot = self.slots.get(self.number(pc, generation));
        if let (Some(slot), Ok(hint)) = (slot, u16::try_from(number)) {
            let (word, _) = rule.to_words();
            // Whatever answer has the same word now, the hint is no part of it.
            let _ =
                slot.rule.compare_exchange(word, rule.with_hint(hint), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// What is remembered for this key in a slot, if it is plain. A walk waits for this.
    #[inline]
    pub(super) fn get_plain(&self, number: usize, key: u64, pc: u64, generation: u64) -> Option<Plain> {
        let slot = self.slots.get(number)?;
        let state = slot.state.load(Ordering::Acquire);
        let rule = slot.rule.load(Ordering::Relaxed);
        if state & (KEY | WRITE | IS_PLAIN) != key | IS_PLAIN
            || slot.pc.load(Ordering::Relaxed) != pc
            || slot.generation.load(Ordering::Relaxed) != generation
        {
            return None;
        }
        // As for all of a slot.
        fence(Ordering::Acquire);
        if slot.state.load(Ordering::Relaxed) != state {
            return None;
        }
        let [a, b, c, d, ..] = state.to_le_bytes();
        Some(Plain::from_words(rule, u32::from_le_bytes([a, b, c, d])))
    }

    /// Remembers an answer, unless somebody else is writing there. What was in its slot goes to the neighbour.
    pub(super) fn put(&self, key: u64, pc: u64, generation: u64, answer: Answer) {
        let number = self.number(pc, generation);
        let (Some(own), Some(neighbour)) = (self.slots.get(number), self.neighbour(number)) else { return };
        if let Some(held) = own.read()
            && held.generation == generation
            && held.pc != pc
        {
            neighbour.write(&held);
        }
        own.write(&Held { pc, generation, answer: Answer { tag: answer.tag | key, rule: answer.rule } });
    }
}

/// What is in a slot.
struct Held {
    pc: u64,
    generation: u64,
    /// With the key in its tag.
    answer: Answer,
}

impl CacheSlot {
    /// All of it, if there is something, and nobody is writing.
    fn read(&self) -> Option<Held> {
        let state = self.state.load(Ordering::Acquire);
        if state & WRITE != 0 || state & TAG == 0 {
            return None;
        }
        let answer = Answer { tag: state & TAG, rule: self.rule.load(Ordering::Relaxed) };
        let (pc, generation) = (self.pc.load(Ordering::Relaxed), self.generation.load(Ordering::Relaxed));
        // If nobody has written meanwhile, all of it belongs together.
        fence(Ordering::Acquire);
        (self.state.load(Ordering::Relaxed) == state).then_some(Held { pc, generation, answer })
    }

    /// Unless somebody else is writing.
    fn write(&self, held: &Held) {
        let state = self.state.load(Ordering::Relaxed);
        if state & WRITE != 0 {
            return;
        }
        let count = state & !TAG;
        // No reader takes a slot that is being written for its own: the flag is part of what it compares.
        let writing = count | WRITE;
        if self.state.compare_exchange(state, writing, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return;
        }
        fence(Ordering::Release);
        self.pc.store(held.pc, Ordering::Relaxed);
        self.generation.store(held.generation, Ordering::Relaxed);
        self.rule.store(held.answer.rule, Ordering::Relaxed);
        self.state.store(writing.wrapping_add(WRITE) | held.answer.tag, Ordering::Release);
    }
}

impl fmt::Debug for RuleCache<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleCache").field("slots", &self.slots.len()).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::source::{Found, Query, Rule, Trust, UnwindUserType, UnwindUserTypes};
    use crate::{Pc, UnwindUserFrame};

    /// Somebody else's answer may have taken the slot, and look like the rule that the hint is for.
    #[test]
    fn a_hint_changes_no_answer() {
        let kind = UnwindUserType::Dwarf;
        let rule = UnwindUserFrame::plain(false, 16, -8, None);
        let plain = Plain::of(kind, rule, Trust::Exact).unwrap();
        let frame = UnwindUserFrame::plain(false, 8, 8, Some(0));
        let found = Found::new(Rule::Frame(frame), Trust::Exact).at_end(true);
        let answer = Answer::of(kind, &found, || true).unwrap();
        assert_eq!(answer.rule, plain.to_words().0, "or nothing is shown");
        let slots = [CacheSlot::new()];
        let cache = RuleCache::new(&slots);
        let (pc, generation) = (0x1234, 7);
        let key = super::super::answer::key(UnwindUserTypes::only(kind), &Query::new(Pc::Return(pc)));
        cache.put(key, pc, generation, answer);
        cache.expect(pc, generation, &plain, 0xffff);
        assert_eq!(cache.get(key, pc, generation).map(Answer::found), Some(Some((kind, found))));
    }
}
