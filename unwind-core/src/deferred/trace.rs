//! Traces, and where they are kept for the rest of an entry.

use super::cookie::Cookie;
use crate::{StartError, UnwindStacktrace};

/// A user trace, as a client gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trace<'t> {
    /// The addresses (avma), innermost first. None where the walk could not begin.
    pub entries: &'t [u64],
    /// How the walk ended, and how much it is worth; or why it could not begin.
    pub outcome: Result<UnwindStacktrace, StartError>,
}

impl<'t> Trace<'t> {
    /// A trace, for those who call a client of theirs themselves.
    pub const fn new(entries: &'t [u64], outcome: Result<UnwindStacktrace, StartError>) -> Self {
        Trace { entries, outcome }
    }
}

/// Room for one trace, of the caller's size: an array, a slice, a vector of words. (A page of 4 KiB has room
/// for 508 of them beside what is kept here.)
///
/// A trace is kept under its cookie, so it is taken for nothing else: it is used again within its entry and,
/// as no other entry has that cookie, never afterwards. One for each task saves most walks; one for each CPU
/// works as well, as long as nothing else runs there during the use of it.
#[derive(Clone, Debug)]
pub struct TraceCache<B> {
    cookie: Option<Cookie>,
    outcome: Result<UnwindStacktrace, StartError>,
    entries: B,
}

impl<B> TraceCache<B> {
    /// A cache without a trace.
    pub const fn new(entries: B) -> Self {
        TraceCache { cookie: None, outcome: Err(StartError::NoRoom), entries }
    }
}

impl<B: AsRef<[u64]> + AsMut<[u64]>> TraceCache<B> {
    /// Whether it holds a trace under this cookie, one with entries: a failed walk is tried again.
    pub(super) fn holds(&self, cookie: Cookie) -> bool {
        self.cookie == Some(cookie) && self.outcome.is_ok_and(|outcome| outcome.nr > 0)
    }

    /// Keeps what `walk` puts into the room.
    pub(super) fn fill(
        &mut self,
        cookie: Cookie,
        walk: impl FnOnce(&mut [u64]) -> Result<UnwindStacktrace, StartError>,
    ) {
        // If `walk` does not return, the room holds nobody's trace.
        self.cookie = None;
        self.outcome = walk(self.entries.as_mut());
        self.cookie = Some(cookie);
    }

    pub(super) fn trace(&self) -> Trace<'_> {
        let room = self.entries.as_ref();
        let nr = self.outcome.map_or(0, |outcome| outcome.nr);
        Trace { entries: room.get(..nr).unwrap_or(room), outcome: self.outcome }
    }
}
