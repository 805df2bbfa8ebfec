//! Records of one CPU, in the order in which they were made: by its thread and by the signals that interrupt it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// What a record says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) client: u64,
    pub(crate) cookie: u64,
    /// When it was made, in nanoseconds of this program.
    pub(crate) time: u64,
    pub(crate) part: Part,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// The functions of the kernel that were interrupted, one in each byte, innermost lowest.
    Kernel(u64),
    /// The number of the trace.
    User(usize),
}

/// A buffer that never blocks: what has no room is counted, as a sampler's is.
pub(crate) struct Records {
    slots: Vec<[AtomicU64; 4]>,
    next: AtomicUsize,
}

/// Set in the client of a record that is a user part.
const IS_USER: u64 = 1 << 63;

impl Records {
    pub(crate) fn new(room: usize) -> Self {
        Records { slots: (0..room).map(|_| Default::default()).collect(), next: AtomicUsize::new(0) }
    }

    /// Made by the CPU's thread, or in a signal handler on it: each takes a slot of its own.
    pub(crate) fn push(&self, record: Record) {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(slot) = self.slots.get(index) else { return };
        let (client, value) = match record.part {
            Part::Kernel(path) => (record.client, path),
            Part::User(trace) => (record.client | IS_USER, trace as u64),
        };
        for (word, value) in slot.iter().zip([client, record.cookie, record.time, value]) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// All that were made, once the thread has ended.
    pub(crate) fn all(&self) -> Vec<Record> {
        let made = self.next.load(Ordering::Relaxed).min(self.slots.len());
        let record = |slot: &[AtomicU64; 4]| {
            let [client, cookie, time, value] = slot.each_ref().map(|word| word.load(Ordering::Relaxed));
            let part = if client & IS_USER == 0 { Part::Kernel(value) } else { Part::User(value as usize) };
            Record { client: client & !IS_USER, cookie, time, part }
        };
        self.slots[..made].iter().map(record).collect()
    }

    pub(crate) fn lost(&self) -> usize {
        self.next.load(Ordering::Relaxed).saturating_sub(self.slots.len())
    }
}

static BEGIN: OnceLock<Instant> = OnceLock::new();

/// Nanoseconds since the first call, which must not be in a signal handler.
pub(crate) fn now() -> u64 {
    BEGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}
