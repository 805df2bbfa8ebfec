//! Deferred unwinding itself, and requests.

use core::fmt;

use super::client::{ClientId, ClientSlot};
use super::cookie::{Cookie, CpuCounter};
use super::embedder::Embedder;
use super::task::{Refused, TaskState};
use super::word::{Place, Word};

/// Deferred unwinding for all tasks of an embedder. It is a view: what it knows is in the slots, in the
/// counters and in the tasks, so that any number of them may be made of the same, and be shared or copied.
#[derive(Debug)]
pub struct Deferred<'c, E, C> {
    pub(super) embedder: E,
    pub(super) slots: &'c [ClientSlot<C>],
    counters: &'c [CpuCounter],
}

impl<E: Clone, C> Clone for Deferred<'_, E, C> {
    fn clone(&self) -> Self {
        Deferred { embedder: self.embedder.clone(), slots: self.slots, counters: self.counters }
    }
}

impl<E: Copy, C> Copy for Deferred<'_, E, C> {}

/// What a request was told: the cookie to record beside what was sampled, and where the request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Requested {
    /// The entry's cookie.
    pub cookie: Cookie,
    /// Where this client stands in this entry.
    pub standing: Standing,
}

/// Where a client stands in an entry: new to it, waiting, or served. These are all there can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// This is its first request: it will be called once.
    Queued,
    /// It has requested before, and will be called once for all of them.
    AlreadyQueued,
    /// It has been called with this cookie already, or is being called now: that trace holds for this request
    /// as well, as the user's stack has not changed since.
    AlreadyServed,
}

/// Why nothing was requested. There is no cookie then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// There is no user space to return to.
    NoUser,
    /// The task is exiting: there may be no memory left to walk.
    Exiting,
    /// In an NMI, where this machine's compare-exchange does not work.
    NotNmiSafe,
    /// The client is not registered, or not any more.
    NotRegistered,
    /// This CPU has no counter.
    NoCounter {
        /// Its number.
        cpu: u32,
    },
    /// The embedder could not queue the work.
    NotQueued,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RequestError::NoUser => "there is no user space to return to",
            RequestError::Exiting => "the task is exiting",
            RequestError::NotNmiSafe => "in an NMI without an NMI-safe compare-exchange",
            RequestError::NotRegistered => "the client is not registered",
            RequestError::NoCounter { cpu } => return write!(f, "CPU {cpu} has no counter"),
            RequestError::NotQueued => "the work could not be queued",
        })
    }
}

impl core::error::Error for RequestError {}

impl<'c, E: Embedder, C> Deferred<'c, E, C> {
    /// Deferred unwinding with room for as many clients as there are slots, at most [`MAX_CLIENTS`](super::MAX_CLIENTS), and one
    /// counter for each CPU, at its number.
    pub fn new(embedder: E, slots: &'c [ClientSlot<C>], counters: &'c [CpuCounter]) -> Self {
        Deferred { embedder, slots, counters }
    }

    /// The embedder.
    pub fn embedder(&self) -> &E {
        &self.embedder
    }

    /// Requests a user trace of the current task, from wherever: also from an NMI that has interrupted
    /// another request, a walk, a call or the return to user space at any instruction.
    ///
    /// Who was told a cookie is called exactly once with it, unless cancelled.
    ///
    /// # Errors
    /// See [`RequestError`]. This client will not be called for this request.
    #[inline]
    pub fn request(&self, client: ClientId) -> Result<Requested, RequestError> {
        self.request_for(self.embedder.current_task().ok_or(RequestError::NoUser)?, client)
    }

    /// Requests a user trace of `task`, which has a user space and need not be the current one: what is
    /// requested while it runs there is answered before it next returns there.
    ///
    /// (An entry has a number of 21 bits in the word that requests change. From the task's own context that is
    /// exact. A request from elsewhere that is held up, between two of its instructions, for exactly 2^21
    /// entries of the task in which something was requested, and finds the same clients requested as before,
    /// would return the cookie of the old entry; no trace would be delivered with a wrong one.)
    ///
    /// # Errors
    /// As for [`request`](Deferred::request).
    #[inline]
    pub fn request_for(&self, task: &E::Task, client: ClientId) -> Result<Requested, RequestError> {
        if !self.embedder.is_compare_exchange_nmi_safe() && self.embedder.in_nmi() {
            return Err(RequestError::NotNmiSafe);
        }
        let (slot, place) = self.slot(client.slot).ok_or(RequestError::NotRegistered)?;
        if !slot.is_active(client.number) {
            return Err(RequestError::NotRegistered);
        }
        let state = task.as_ref();
        let (word, cookie) = state.snapshot();
        match cookie {
            Some(cookie) if word.is_requested(place) && !word.is_exiting() => {
                Ok(Requested { cookie, standing: standing(word, place) })
            }
            _ => self.request_first(task, state, slot, place, client.number),
        }
    }

    /// The first request of this client in this entry.
    fn request_first(
        &self,
        task: &E::Task,
        state: &TaskState,
        slot: &ClientSlot<C>,
        place: Place,
        number: u64,
    ) -> Result<Requested, RequestError> {
        // Until this is dropped, a cancel waits: it will find the bit that is set here.
        let _inside = slot.enter_as(number).ok_or(RequestError::NotRegistered)?;
        let cpu = self.embedder.current_cpu();
        let fresh = || {
            let counter = self.counters.get(usize::try_from(cpu).ok()?)?;
            counter.next(cpu)
        };
        let queue = || self.embedder.queue_work(task).is_ok();
        let (before, cookie) = state.request(place, fresh, queue).map_err(|refused| match refused {
            Refused::Exiting => RequestError::Exiting,
            Refused::NoCookie => RequestError::NoCounter { cpu },
            Refused::NotQueued => RequestError::NotQueued,
        })?;
        Ok(Requested { cookie, standing: standing(before, place) })
    }

    /// The slot of this number, and its place in the tasks' words.
    #[inline]
    pub(super) fn slot(&self, index: usize) -> Option<(&'c ClientSlot<C>, Place)> {
        let place = Place::new(index)?;
        self.slots.get(index).map(|slot| (slot, place))
    }
}

fn standing(before: Word, place: Place) -> Standing {
    match (before.is_requested(place), before.is_served(place)) {
        (false, _) => Standing::Queued,
        (true, false) => Standing::AlreadyQueued,
        (true, true) => Standing::AlreadyServed,
    }
}
