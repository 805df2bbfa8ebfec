//! What a task's word says. Pure: one word in, another out.

use super::MAX_CLIENTS;

/// The place of a client in the word: below [`MAX_CLIENTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    pub(super) fn new(index: usize) -> Option<Self> {
        (index < MAX_CLIENTS).then(|| u32::try_from(index).ok().map(Place))?
    }

    pub(super) fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(MAX_CLIENTS)
    }

    const fn requested(self) -> u64 {
        1u64.wrapping_shl(self.0)
    }

    const fn served(self) -> u64 {
        1u64.wrapping_shl(self.0.wrapping_add(SERVED_SHIFT))
    }

    /// Both of its bits.
    pub(super) const fn both(self) -> u64 {
        self.requested() | self.served()
    }
}

/// A task's word. From the lowest bit up:
///
/// | bits | meaning |
/// |---|---|
/// | 20 | requested: one for each client |
/// | 20 | served: those of the requested that have been, or are being, called |
/// | 1 | queued: work was queued, and has not begun |
/// | 1 | used: somebody may have been told this entry's cookie |
/// | 1 | exiting: nothing may be requested any more |
/// | 21 | the entry's number, which wraps |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

/// 20, said once more as a number of bits.
const SERVED_SHIFT: u32 = 20;
const CLIENTS: u64 = (1 << SERVED_SHIFT) - 1;
const SERVED: u64 = CLIENTS << SERVED_SHIFT;
pub(super) const QUEUED: u64 = 1 << 40;
const USED: u64 = 1 << 41;
pub(super) const EXITING: u64 = 1 << 42;
const ENTRY_SHIFT: u32 = 43;
const ENTRY_ONE: u64 = 1 << ENTRY_SHIFT;

impl Word {
    /// The number of the entry, modulo 2^21.
    pub(super) const fn entry(self) -> u64 {
        self.0.wrapping_shr(ENTRY_SHIFT)
    }

    pub(super) const fn is_same_entry(self, other: Word) -> bool {
        self.entry() == other.entry()
    }

    pub(super) const fn is_exiting(self) -> bool {
        self.0 & EXITING != 0
    }

    pub(super) const fn is_requested(self, place: Place) -> bool {
        self.0 & place.requested() != 0
    }

    pub(super) const fn is_served(self, place: Place) -> bool {
        self.0 & place.served() != 0
    }

    pub(super) const fn is_queued(self) -> bool {
        self.0 & QUEUED != 0
    }

    /// The clients that are requested and not served, as a mask by place.
    pub(super) const fn waiting(self) -> u64 {
        self.0 & CLIENTS & !(self.0 & SERVED).wrapping_shr(SERVED_SHIFT)
    }

    /// The first of the waiting clients.
    pub(super) fn next_waiting(self) -> Option<Place> {
        Place::new(usize::try_from(self.waiting().trailing_zeros()).ok()?)
    }

    /// Whether something is to be done before the task returns to user space.
    pub(super) const fn is_pending(self) -> bool {
        self.waiting() != 0 || self.is_queued()
    }

    /// Whether this entry has not been used: the common case at the return to user space.
    pub(super) const fn is_untouched(self) -> bool {
        self.0 & (ENTRY_ONE.wrapping_sub(1)) & !EXITING == 0
    }

    pub(super) const fn with_work(self) -> Word {
        Word(self.0 | QUEUED | USED)
    }

    pub(super) const fn with_request(self, place: Place) -> Word {
        Word(self.0 | place.requested() | USED)
    }

    pub(super) const fn with_served(self, place: Place) -> Word {
        Word(self.0 | place.served())
    }

    /// The word at the beginning of the next entry.
    pub(super) const fn next_entry(self) -> Word {
        Word(self.entry().wrapping_add(1).wrapping_shl(ENTRY_SHIFT) | self.0 & EXITING)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn places_do_not_meet() {
        let mut seen = QUEUED | USED | EXITING;
        for index in 0..MAX_CLIENTS {
            let place = Place::new(index).unwrap();
            assert_eq!(place.index(), index);
            for bit in [place.requested(), place.served()] {
                assert_eq!((bit.count_ones(), seen & bit), (1, 0));
                seen |= bit;
            }
        }
        assert_eq!(Place::new(MAX_CLIENTS), None);
        assert_eq!(seen, ENTRY_ONE.wrapping_sub(1), "no bit is left over");
    }

    #[test]
    fn an_entry_that_wraps_touches_nothing_else() {
        let last = Word(!EXITING).next_entry();
        assert_eq!(last.0, 0);
        let last = Word(!0).next_entry();
        assert_eq!(last.0, EXITING);
        assert!(last.is_untouched() && last.is_exiting());
    }

    #[test]
    fn waiting_is_requested_and_not_served() {
        let [a, b] = [3, 19].map(|index| Place::new(index).unwrap());
        let word = Word(7 << ENTRY_SHIFT).with_work().with_request(a).with_request(b);
        assert_eq!(word.next_waiting(), Some(a));
        let word = word.with_served(a);
        assert_eq!(word.next_waiting(), Some(b));
        let word = word.with_served(b);
        assert_eq!(word.next_waiting(), None);
        assert!(word.is_pending(), "the work is still queued");
        let word = Word(word.0 & !QUEUED);
        assert!(!word.is_pending() && !word.is_untouched() && word.entry() == 7);
        assert_eq!(word.next_entry(), Word(8 << ENTRY_SHIFT));
    }
}
