//! Cookies, and the counters they come from.

use core::fmt;
use core::num::NonZeroU64;

use crate::atomics::{AtomicU64, Ordering};

/// What joins the records of one entry into the kernel: the same for all requests of that entry, and
/// for the trace that answers them; never 0.
///
/// The CPU's number + 1 in the upper 16 bits, that CPU's count of cookies in the lower 48. So it differs
/// over all CPUs, and from every cookie of the last 2^48 on its CPU: at a million sampled entries
/// a second that is nine years. (The kernel has 32 bits for each.)
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cookie(NonZeroU64);

const COUNT_BITS: u32 = 48;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

impl Cookie {
    /// The number, for a record: all 64 bits of it, on targets of every word size.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The cookie of a record; `None` for 0.
    pub const fn from_u64(value: u64) -> Option<Self> {
        match NonZeroU64::new(value) {
            Some(value) => Some(Cookie(value)),
            None => None,
        }
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cookie({self})")
    }
}

impl fmt::Display for Cookie {
    /// Count and CPU: `17@3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.get();
        write!(f, "{}@{}", value & COUNT, value.wrapping_shr(COUNT_BITS).wrapping_sub(1))
    }
}

/// How many cookies a CPU has given out. One for each CPU, best on a cache line of its own.
#[derive(Debug)]
pub struct CpuCounter {
    count: AtomicU64,
}

impl CpuCounter {
    /// The highest number that a CPU can have: [`Cookie`] has room for no more.
    pub const MAX_CPU: u32 = 0xfffe;

    /// A counter that has given out none.
    pub const fn new() -> Self {
        Self::after(0)
    }

    /// A counter as it is after so many cookies (modulo 2^48): for an embedder that goes on where an
    /// earlier run ended.
    pub const fn after(count: u64) -> Self {
        CpuCounter { count: AtomicU64::new(count) }
    }

    /// The next cookie of CPU `cpu`, whose counter this must be; `None` above
    /// [`MAX_CPU`](CpuCounter::MAX_CPU).
    ///
    /// A request that has moved to another CPU since it looked where it runs takes a cookie here all
    /// the same: no two get the same.
    pub(super) fn next(&self, cpu: u32) -> Option<Cookie> {
        if cpu > Self::MAX_CPU {
            return None;
        }
        // Relaxed: the count is nobody's message. That no two increments return the same follows from
        // the order of changes of one word, which every ordering keeps.
        let count = self.count.fetch_add(1, Ordering::Relaxed).wrapping_add(1) & COUNT;
        Cookie::from_u64(u64::from(cpu).wrapping_add(1).wrapping_shl(COUNT_BITS) | count)
    }
}

impl Default for CpuCounter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn cpu_and_count_are_told_apart() {
        let counter = CpuCounter::new();
        let cookies = [0, 1, CpuCounter::MAX_CPU].map(|cpu| counter.next(cpu).unwrap());
        assert_eq!(cookies.map(|cookie| format!("{cookie}")), ["1@0", "2@1", "3@65534"]);
        assert_eq!(counter.next(CpuCounter::MAX_CPU + 1), None);
    }

    #[test]
    fn a_count_that_wraps_leaves_the_cpu_alone() {
        for start in [COUNT - 1, u64::MAX - 1, (7 << COUNT_BITS) - 2] {
            let counter = CpuCounter::after(start);
            let cookies = [(); 3].map(|()| counter.next(4).unwrap());
            assert_eq!(cookies.map(|cookie| cookie.get() >> COUNT_BITS), [5; 3]);
            assert_eq!(cookies.map(|cookie| cookie.get() & COUNT), [COUNT, 0, 1]);
        }
    }
}
