//! Clients, and the slots they are called through.
//!
//! # Why this is right
//!
//! A slot has one word: its phase, how many are inside, and the number of its registration. Requests and
//! calls enter by adding one and look at the phase that they found in that same addition, so in the order
//! of changes of this word each of them is either before the cancel, which then waits for it to leave, or
//! behind it, and then finds out.
//!
//! The phases go round: *free*, *claimed*, *active*, *cancelling*, and *free* again, which is not entered while
//! somebody is inside. So whoever has found a task's request and the slot *cancelling* may clear the request away:
//! until it leaves, the slot has no next client whose request would look the same. Whoever finds the slot *free* or
//! *claimed* has come so late that the request it saw is cleared away already.
//!
//! # Orderings
//!
//! * Entering acquires, publishing a client releases: whoever finds it active sees all that it was
//!   prepared with; and freeing a slot releases: whoever finds it free sees the tasks without its last client.
//! * Leaving releases, and a cancel that finds nobody inside acquires: all that was done inside, the bit set in
//!   a task or the call made, has happened before what the cancel does next. Additions in between do not break
//!   that chain, being changes of the same word.

use super::cookie::Cookie;
use super::trace::Trace;
use crate::atomics::{AtomicU64, Ordering};

/// Who is called with traces. `T` is the embedder's task.
///
/// Called in the context of the task, before it returns to user space or while it exits: what may be done
/// then is up to the embedder. A call may request (also for other clients), but must not cancel: a cancel
/// waits for calls to end.
pub trait Client<T: ?Sized> {
    /// Here is the trace that was requested under `cookie`. It is empty where the walk could not begin.
    fn deliver(&self, task: &T, cookie: Cookie, trace: &Trace<'_>);
}

impl<T: ?Sized, F: Fn(&T, Cookie, &Trace<'_>)> Client<T> for F {
    fn deliver(&self, task: &T, cookie: Cookie, trace: &Trace<'_>) {
        self(task, cookie, trace);
    }
}

/// Room for one client at a time: the embedder's value `C`, which is what is called, and has the data of
/// the client inside. Slots are used again: `C` is prepared by [`Deferred::register`] while nobody uses it.
///
/// [`Deferred::register`]: super::Deferred::register
#[derive(Debug, Default)]
pub struct ClientSlot<C> {
    word: AtomicU64,
    client: C,
}

/// Which registration a request is for. Once that is cancelled, requests with it are refused, whoever has
/// the slot then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientId {
    pub(super) slot: usize,
    pub(super) number: u64,
}

/// A client that is registered, until it is given to [`Deferred::cancel`](super::Deferred::cancel). There
/// is one of it, so nothing is cancelled twice.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is lost cannot be cancelled"]
pub struct Registration {
    pub(super) id: ClientId,
}

impl Registration {
    /// What to request with.
    pub const fn id(&self) -> ClientId {
        self.id
    }
}

/// Phases, in the lowest two bits. Each is the one before plus one.
const PHASE: u64 = 3;
const FREE: u64 = 0;
const CLAIMED: u64 = 1;
const ACTIVE: u64 = 2;
const CANCELLING: u64 = 3;
/// How many are inside: 30 bits.
const INSIDE_ONE: u64 = 1 << 2;
const INSIDE: u64 = NUMBER_ONE - INSIDE_ONE;
/// The number of the registration: 32 bits, which wrap.
const NUMBER_SHIFT: u32 = 32;
const NUMBER_ONE: u64 = 1 << NUMBER_SHIFT;

impl<C> ClientSlot<C> {
    /// A free slot.
    pub const fn new(client: C) -> Self {
        ClientSlot { word: AtomicU64::new(0), client }
    }

    /// The embedder's value.
    pub const fn client(&self) -> &C {
        &self.client
    }

    /// Whether this registration is active: a glance, true or false by now.
    #[inline]
    pub(super) fn is_active(&self, number: u64) -> bool {
        is_active(self.word.load(Ordering::Acquire), number)
    }

    /// Enters for a request: `None` where the registration is not active.
    pub(super) fn enter_as(&self, number: u64) -> Option<Inside<'_>> {
        let inside = self.enter();
        is_active(inside.found, number).then_some(inside)
    }

    /// Enters for a call.
    pub(super) fn enter(&self) -> Inside<'_> {
        let found = self.word.fetch_add(INSIDE_ONE, Ordering::AcqRel);
        Inside { word: &self.word, found }
    }

    /// Takes the slot for a new client, if it is free.
    pub(super) fn claim(&self) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        // Goes round once more only if somebody has come, or gone.
        while word & PHASE == FREE {
            match self.step(word) {
                Ok(()) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// The client is prepared: from here on it is called. Its registration's number.
    pub(super) fn publish(&self) -> u64 {
        // The upper half may wrap, and nothing lies above it.
        let before = self.word.fetch_add(NUMBER_ONE | (ACTIVE - CLAIMED), Ordering::AcqRel);
        before.wrapping_add(NUMBER_ONE).wrapping_shr(NUMBER_SHIFT)
    }

    /// Ends a registration: from here on, who enters finds it cancelled. False where it is not active.
    pub(super) fn begin_cancel(&self, number: u64) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while is_active(word, number) {
            match self.step(word) {
                Ok(()) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Whether nobody is inside.
    pub(super) fn is_empty(&self) -> bool {
        self.word.load(Ordering::Acquire) & INSIDE == 0
    }

    /// Makes a slot free whose client is being cancelled, if nobody is inside.
    pub(super) fn free(&self) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        // From the last phase to the first, without a carry into the bits above.
        word & INSIDE == 0
            && self.word.compare_exchange(word, word & !PHASE, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Goes to the next phase, unless the word has changed. Not from the last.
    fn step(&self, word: u64) -> Result<(), u64> {
        let next = word.wrapping_add(1);
        self.word.compare_exchange(word, next, Ordering::AcqRel, Ordering::Relaxed).map(|_| ())
    }
}

fn is_active(word: u64, number: u64) -> bool {
    word & PHASE == ACTIVE && word.wrapping_shr(NUMBER_SHIFT) == number
}

/// Being inside a slot: its client stays what it is. Ends when dropped.
#[derive(Debug)]
pub(super) struct Inside<'s> {
    word: &'s AtomicU64,
    /// The slot's word when it was entered.
    found: u64,
}

impl Inside<'_> {
    /// Whether there is a client to be called.
    pub(super) fn is_active(&self) -> bool {
        self.found & PHASE == ACTIVE
    }

    /// Whether the client is being cancelled, and the slot therefore kept until this is dropped.
    pub(super) fn is_cancelling(&self) -> bool {
        self.found & PHASE == CANCELLING
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.word.fetch_sub(INSIDE_ONE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_wraps_touches_nothing_else() {
        // The last number; somebody inside who came for an older registration.
        let slot = ClientSlot { word: AtomicU64::new(!(NUMBER_ONE - 1) | CLAIMED | INSIDE_ONE), client: () };
        assert_eq!(slot.publish(), 0);
        assert_eq!(slot.word.load(Ordering::Relaxed), ACTIVE | INSIDE_ONE);
    }

    #[test]
    fn a_slot_is_kept_while_somebody_is_inside() {
        let slot = ClientSlot::new(());
        let late = slot.enter();
        assert!(!late.is_active() && !late.is_cancelling());
        assert!(slot.claim() && !slot.claim());
        let number = slot.publish();
        drop(late);
        assert!(slot.enter_as(number + 1).is_none());
        let inside = slot.enter_as(number);
        assert!(slot.begin_cancel(number) && !slot.begin_cancel(number));
        assert!(!slot.is_empty() && !slot.free() && !slot.claim());
        assert!(slot.enter_as(number).is_none() && slot.enter().is_cancelling());
        drop(inside);
        assert!(
            slot.is_empty() && slot.free() && slot.word.load(Ordering::Relaxed) == number << NUMBER_SHIFT
        );
    }
}
