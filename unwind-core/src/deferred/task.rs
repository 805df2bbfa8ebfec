//! A task's part: one word, and the cookie of its entry. Every access to them is in this file.
//!
//! # Why this is right
//!
//! Whatever is decided, is decided by a compare-exchange (or one fetch-and-modify) of the word. As the
//! word has the entry's number in it, a decision made on what was read in one entry fails in another.
//!
//! The cookie of entry *e* is in place *e* mod 2. It becomes one by a compare-exchange from 0 before the
//! first bit of the entry is set, so all requests of an entry find the same. Before entry *e* + 1 begins, its
//! place is cleared of what entry *e* - 1 had there. Nothing has to be cleared afterwards, so there is no
//! moment in which an entry has begun and its predecessor's cookie is still to be seen.
//!
//! A request on another CPU that was held up since entry *e* - 1 may put a fresh cookie into that place
//! at any time. It is told to nobody in *e* - 1, as the request's compare-exchange of the word then fails; it
//! is as good a cookie for *e* + 1 as any.
//!
//! # Orderings
//!
//! * The word is read with acquire and changed with acquire and release. Whoever sees a bit of an entry
//!   also sees its cookie, which was there before the bit; whoever sees an entry begun also sees
//!   its place cleared, and has nothing of an older entry left to see.
//! * A cookie is read with acquire and changed with release. Whoever reads one of a later entry
//!   therefore sees that entry's word afterwards, and finds that the entry's number has changed.
//! * Nothing needs an order over several words (`SeqCst`): no decision rests on two words having been
//!   read in the same instant, but on one word not having changed.

use super::cookie::Cookie;
use super::word::{EXITING, Place, QUEUED, Word};
use crate::atomics::{AtomicU64, Ordering};

/// What deferred unwinding keeps of a task: 24 bytes, to be embedded in the task's structure.
///
/// Its place in memory is the embedder's; it is shared by reference, and all its operations are those of
/// [`Deferred`](super::Deferred).
#[derive(Debug)]
pub struct TaskState {
    word: AtomicU64,
    cookies: [AtomicU64; 2],
}

impl TaskState {
    /// A task that nothing was requested of.
    pub const fn new() -> Self {
        TaskState { word: AtomicU64::new(0), cookies: [AtomicU64::new(0), AtomicU64::new(0)] }
    }

    /// Whether something is to be done before the task returns to user space.
    #[inline]
    pub fn is_pending(&self) -> bool {
        self.load().is_pending()
    }

    #[inline]
    fn load(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    #[inline]
    fn exchange(&self, from: Word, to: Word) -> Result<(), Word> {
        match self.word.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(now) => Err(Word(now)),
        }
    }

    #[inline]
    fn place_of_cookie(&self, word: Word) -> &AtomicU64 {
        let [even, odd] = &self.cookies;
        if word.entry() & 1 == 0 { even } else { odd }
    }

    /// The word, and the cookie of its entry; no cookie where the word has no bits.
    ///
    /// Goes round once more only if the task has returned to user space meanwhile, which it does not
    /// while its own context is here.
    #[inline]
    pub(super) fn snapshot(&self) -> (Word, Option<Cookie>) {
        let mut word = self.load();
        loop {
            let cookie = self.place_of_cookie(word).load(Ordering::Acquire);
            let now = self.load();
            // In between, the entry was this one: its cookie never changes once it is there.
            if now.is_same_entry(word) {
                return (word, Cookie::from_u64(cookie));
            }
            word = now;
        }
    }

    /// Requests for the client at `place`: the word before, and the entry's cookie, for which `fresh` is asked
    /// where there is none yet. Where no work is queued, `queue` is asked to queue it before the client's
    /// bit is set: a bit that is set stands, as an interrupt may have found it and told others so.
    ///
    /// Goes round again only if the word has changed: by the step before, or by somebody else. Another request has
    /// added its bit, the work has begun, a client was served or cancelled, or the entry is another. Requests nested
    /// in this one can do that at most once for each client.
    pub(super) fn request(
        &self,
        place: Place,
        mut fresh: impl FnMut() -> Option<Cookie>,
        queue: impl Fn() -> bool,
    ) -> Result<(Word, Cookie), Refused> {
        let mut spare = None;
        let mut word = self.load();
        loop {
            if word.is_exiting() {
                return Err(Refused::Exiting);
            }
            let slot = self.place_of_cookie(word);
            let cookie = match Cookie::from_u64(slot.load(Ordering::Acquire)) {
                Some(cookie) => cookie,
                None => {
                    let new = spare.take().or_else(&mut fresh).ok_or(Refused::NoCookie)?;
                    match slot.compare_exchange(0, new.get(), Ordering::AcqRel, Ordering::Acquire) {
                        Ok(_) => new,
                        Err(other) => {
                            spare = Some(new);
                            Cookie::from_u64(other).unwrap_or(new)
                        }
                    }
                }
            };
            if word.is_requested(place) {
                let now = self.load();
                if now.is_same_entry(word) {
                    return Ok((word, cookie));
                }
                word = now;
                continue;
            }
            let is_queued = word.is_queued();
            let next = if is_queued { word.with_request(place) } else { word.with_work() };
            if let Err(now) = self.exchange(word, next) {
                word = now;
                continue;
            }
            if is_queued {
                return Ok((word, cookie));
            }
            if !queue() {
                let now = Word(self.word.fetch_and(!QUEUED, Ordering::AcqRel));
                // An interrupt may have requested the same meanwhile.
                let is_requested = now.is_same_entry(next) && now.is_requested(place);
                return if is_requested { Ok((now, cookie)) } else { Err(Refused::NotQueued) };
            }
            word = self.load();
        }
    }

    /// The queued work begins: whoever requests from now on queues it again.
    pub(super) fn begin_work(&self) {
        self.word.fetch_and(!QUEUED, Ordering::AcqRel);
    }

    /// Marks the client as served, for whoever calls it: true for one caller alone, and only in the
    /// entry of `word`.
    pub(super) fn serve(&self, place: Place, of: Word) -> bool {
        let mut word = self.load();
        while word.is_same_entry(of) && word.is_requested(place) && !word.is_served(place) {
            match self.exchange(word, word.with_served(place)) {
                Ok(()) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Forgets a client, requested or served: it is being cancelled.
    pub(super) fn forget(&self, place: Place) {
        self.word.fetch_and(!place.both(), Ordering::AcqRel);
    }

    /// Refuses all requests from now on. Those that were not refused are in the word.
    pub(super) fn begin_exit(&self) {
        self.word.fetch_or(EXITING, Ordering::AcqRel);
    }

    /// Ends the entry, unless something is pending: false then.
    ///
    /// Goes round once more only if somebody has changed the word.
    #[inline]
    pub(super) fn end_entry(&self) -> bool {
        let word = self.load();
        word.is_untouched() || self.end_used_entry(word)
    }

    fn end_used_entry(&self, mut word: Word) -> bool {
        loop {
            if word.is_untouched() {
                return true;
            }
            if word.is_pending() {
                return false;
            }
            let next = word.next_entry();
            let place = self.place_of_cookie(next);
            let old = place.load(Ordering::Acquire);
            // If this is still the entry, `old` is of one before it, and will never be put there again:
            // however late the exchange below comes, it clears nothing else.
            let now = self.load();
            if now != word {
                word = now;
                continue;
            }
            if old != 0 {
                // Where it fails, somebody else has cleared it.
                let _ = place.compare_exchange(old, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
            match self.exchange(word, next) {
                Ok(()) => return true,
                Err(now) => word = now,
            }
        }
    }
}

impl AsRef<TaskState> for TaskState {
    fn as_ref(&self) -> &TaskState {
        self
    }
}

impl Default for TaskState {
    fn default() -> Self {
        Self::new()
    }
}

/// Why nothing was requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Exiting,
    NoCookie,
    NotQueued,
}
