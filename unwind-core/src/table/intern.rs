//! The distinct rules of a table, in room that the caller gives.

use super::rule::{RECORD, TableRule, number};
use crate::UnwindUserFrame;

/// Room for one distinct rule.
#[derive(Clone, Copy, Debug, Default)]
pub struct TableSlot {
    frame: [u64; 2],
    flags: u8,
    /// 0 where there is no rule.
    number: u16,
}

impl TableSlot {
    /// Whether this is its rule. Word by word, so that neither need be in memory.
    #[inline]
    fn is(&self, [low, high]: [u64; 2], flags: u8) -> bool {
        let [own_low, own_high] = self.frame;
        (own_low ^ low) | (own_high ^ high) | u64::from(self.flags ^ flags) == 0
    }
}

/// The distinct rules, each with a number: a hash table.
#[derive(Debug)]
pub(super) struct Rules<'r> {
    slots: &'r mut [TableSlot],
    /// How many numbers there are.
    count: u16,
    most: u16,
}

impl<'r> Rules<'r> {
    pub(super) fn new(slots: &'r mut [TableSlot]) -> Self {
        slots.fill(TableSlot::default());
        // A quarter of the slots is left free, so that a search ends soon.
        let room = slots.len().saturating_sub(slots.len().div_ceil(4)).saturating_add(2);
        let most = u16::try_from(room).unwrap_or(u16::MAX).min(number::COUNT);
        Rules { slots, count: 2, most }
    }

    /// How many numbers there are.
    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// The number of a rule, a new one where it has none yet. Where there is no room for it, that of
    /// [`TableRule::AskOriginal`].
    #[inline]
    pub(super) fn number(&mut self, rule: TableRule) -> u16 {
        let (frame, flags) = match rule {
            TableRule::NotCovered => return number::NOT_COVERED,
            TableRule::AskOriginal => return number::ASK_ORIGINAL,
            TableRule::Frame { frame, .. } => (frame.to_words(), rule.to_bytes().1),
        };
        let at = place(hash(frame, flags), self.slots.len());
        match self.slots.get(at) {
            Some(slot) if slot.is(frame, flags) && slot.number != 0 => slot.number,
            _ => self.search(frame, flags, at),
        }
    }

    /// The number of a rule that is not in the first slot it may be in.
    #[inline(never)]
    fn search(&mut self, frame: [u64; 2], flags: u8, first: usize) -> u16 {
        let (before, from) = self.slots.split_at_mut_checked(first).unwrap_or_default();
        for slot in from.iter_mut().chain(before) {
            if slot.number == 0 {
                if self.count >= self.most {
                    break;
                }
                *slot = TableSlot { frame, flags, number: self.count };
                self.count = self.count.saturating_add(1);
                return slot.number;
            }
            if slot.is(frame, flags) {
                return slot.number;
            }
        }
        number::ASK_ORIGINAL
    }

    /// Writes the rules, each at its number, into `bytes` from `at` on.
    pub(super) fn write(&self, bytes: &mut [u8], at: usize) {
        let Some((records, _)) = bytes.get_mut(at..).map(<[u8]>::as_chunks_mut::<RECORD>) else { return };
        for (record, rule) in records.iter_mut().zip([TableRule::NotCovered, TableRule::AskOriginal]) {
            *record = rule.to_record();
        }
        for slot in self.slots.iter().filter(|slot| slot.number != 0) {
            if let Some(record) = records.get_mut(usize::from(slot.number)) {
                let frame = UnwindUserFrame::from_words(slot.frame).to_bytes();
                *record = TableRule::from_bytes(frame, slot.flags).to_record();
            }
        }
    }
}

/// Rules that are alike are far apart.
#[inline]
pub(super) fn hash([low, high]: [u64; 2], flags: u8) -> u64 {
    let mixed = (low ^ u64::from(flags)).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ high;
    mixed.wrapping_mul(0xff51_afd7_ed55_8ccd)
}

/// One of so many places.
#[inline]
pub(super) fn place(hash: u64, places: usize) -> usize {
    // The upper half of the product of two halves is below the second.
    let count = u32::try_from(places).unwrap_or(u32::MAX);
    let product = hash.wrapping_shr(32).wrapping_mul(count.into()).wrapping_shr(32);
    usize::try_from(product).unwrap_or(0)
}
