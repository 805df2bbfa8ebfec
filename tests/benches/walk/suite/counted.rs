//! How much memory is in use.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// The system's allocator, counting the bytes that are lent out. Walks do not allocate: it costs them
/// nothing.
struct Counting;

static LENT: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is the system's allocator's; counters are no part of what it promises.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LENT.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LENT.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What `make` returns, and how many bytes of memory it keeps.
pub(crate) fn kept<T>(make: impl FnOnce() -> T) -> (T, u64) {
    let before = LENT.load(Ordering::Relaxed);
    let made = make();
    (made, LENT.load(Ordering::Relaxed).saturating_sub(before))
}
