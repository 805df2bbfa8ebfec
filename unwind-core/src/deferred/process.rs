//! Walking once, and calling everybody: before the return to user space, and at exit.

use super::MAX_CLIENTS;
use super::client::Client;
use super::embedder::Embedder;
use super::request::Deferred;
use super::trace::TraceCache;

/// What [`Deferred::process`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Processed {
    /// How many clients were called.
    pub delivered: u32,
    /// How many walks that took: 0 where the cache had the trace of this entry, otherwise 1. (More only if
    /// a walk failed and was tried again, or several entries went by.)
    pub walks: u32,
    /// How many requests were dropped, as their client is being cancelled.
    pub cancelled: u32,
}

/// What is to be done at the return to user space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "where something is pending, it is to be processed first"]
pub enum Return {
    /// The task may return: its entry has ended.
    Ready,
    /// Something is pending: call [`Deferred::process`], and ask again.
    Pending,
}

impl<E: Embedder, C: Client<E::Task>> Deferred<'_, E, C> {
    /// Does what was requested of `task`: walks its stack, unless `cache` has the trace of this entry, and calls
    /// every client that waits. Where the walk cannot begin, they get an empty trace.
    ///
    /// Called by the queued work, in the task's own context, where user memory can be reached. Whoever calls it
    /// otherwise, while the work is still queued, takes that off its queue, or has a queue that bears taking the same
    /// work twice. Where nothing is requested it does nothing.
    ///
    /// Clients that request during a call are served as well. What is left after `2 *`[`MAX_CLIENTS`] calls and
    /// tries, which takes clients that come and go in this very moment, stays pending.
    pub fn process<B: AsRef<[u64]> + AsMut<[u64]>>(
        &self,
        task: &E::Task,
        cache: &mut TraceCache<B>,
    ) -> Processed {
        let state = task.as_ref();
        let mut processed = Processed::default();
        if state.is_pending() {
            state.begin_work();
        }
        // A failed walk is not tried again for the other clients of the same work.
        let mut walked = None;
        for _ in 0..MAX_CLIENTS.saturating_mul(2) {
            let (word, cookie) = state.snapshot();
            let Some(place) = word.next_waiting() else { break };
            let Some(cookie) = cookie else { break };
            // First inside, then served: whoever is served here cannot be cancelled before it is called, and
            // what is served is a request of the client that is there now.
            let Some((slot, _)) = self.slot(place.index()) else {
                state.forget(place);
                continue;
            };
            let inside = slot.enter();
            if !inside.is_active() {
                // A client that is being cancelled: its slot has no other as long as we are inside. In any other
                // phase the bit is cleared by now, and what would be cleared here might be the next client's.
                if inside.is_cancelling() {
                    state.forget(place);
                    processed.cancelled = processed.cancelled.saturating_add(1);
                }
                continue;
            }
            if walked != Some(cookie) && !cache.holds(cookie) {
                cache.fill(cookie, |entries| self.embedder.walk(task, entries));
                walked = Some(cookie);
                processed.walks = processed.walks.saturating_add(1);
            }
            if state.serve(place, word) {
                slot.client().deliver(task, cookie, &cache.trace());
                processed.delivered = processed.delivered.saturating_add(1);
            }
        }
        processed
    }

    /// The last thing before every return to user space: ends the entry, if nothing is pending.
    ///
    /// The common case, in which nothing was requested, is one test of the task's word.
    ///
    /// `while deferred.return_to_user(task) == Return::Pending { deferred.process(task, cache); }`
    #[inline]
    pub fn return_to_user(&self, task: &E::Task) -> Return {
        if task.as_ref().end_entry() { Return::Ready } else { Return::Pending }
    }

    /// The task exits: requests are refused from now on, and what is pending is processed, while its memory is
    /// still there. The task may be forgotten by [`Embedder::for_each_task`] once this has returned.
    pub fn exit<B: AsRef<[u64]> + AsMut<[u64]>>(
        &self,
        task: &E::Task,
        cache: &mut TraceCache<B>,
    ) -> Processed {
        task.as_ref().begin_exit();
        self.process(task, cache)
    }
}
