//! `unwind_core::deferred`, compiled over atomic words that a model checker schedules: every access is a place
//! where another thread may go on, and a load sees any value that C11's memory model allows.
//!
//! `cargo test --release --manifest-path tests/loom/Cargo.toml`

#[path = "../../../unwind-core/src/deferred/mod.rs"]
pub mod deferred;

// What the module takes from the rest of its crate.
use unwind_core::{StartError, UnwindStacktrace};

/// The words that the module is made of here.
mod atomics {
    pub(crate) use loom::sync::atomic::Ordering;
    use std::cell::{Cell, OnceCell};
    use std::fmt;

    /// The checker's words cannot be made in constants, as the module's constructors do. So a word is made when it
    /// is first used; which must be before there are threads, as it would order them otherwise.
    #[derive(Default)]
    pub(crate) struct AtomicU64 {
        value: u64,
        word: OnceCell<loom::sync::atomic::AtomicU64>,
    }

    // SAFETY: the checker runs its threads one at a time, all on one thread of the system, and switches in its own
    // words' operations alone, so not during the making of a word, and `get` refuses to make one where there are
    // several.
    #[allow(unsafe_code, reason = "see above")]
    unsafe impl Sync for AtomicU64 {}

    thread_local! {
        static IS_SETTING_UP: Cell<bool> = const { Cell::new(false) };
    }

    /// Whether words may be made.
    pub(super) fn set_up(is_setting_up: bool) {
        IS_SETTING_UP.set(is_setting_up);
    }

    impl AtomicU64 {
        pub(crate) const fn new(value: u64) -> Self {
            AtomicU64 { value, word: OnceCell::new() }
        }

        fn get(&self) -> &loom::sync::atomic::AtomicU64 {
            self.word.get_or_init(|| {
                assert!(IS_SETTING_UP.get(), "a word that was not made before the threads");
                loom::sync::atomic::AtomicU64::new(self.value)
            })
        }

        pub(crate) fn load(&self, order: Ordering) -> u64 {
            self.get().load(order)
        }

        pub(crate) fn compare_exchange(
            &self,
            from: u64,
            to: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            self.get().compare_exchange(from, to, success, failure)
        }

        pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
            self.get().fetch_add(value, order)
        }

        pub(crate) fn fetch_sub(&self, value: u64, order: Ordering) -> u64 {
            self.get().fetch_sub(value, order)
        }

        pub(crate) fn fetch_and(&self, value: u64, order: Ordering) -> u64 {
            self.get().fetch_and(value, order)
        }

        pub(crate) fn fetch_or(&self, value: u64, order: Ordering) -> u64 {
            self.get().fetch_or(value, order)
        }
    }

    impl fmt::Debug for AtomicU64 {
        /// Makes the word, which is what it is used for.
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.get();
            f.write_str("word")
        }
    }
}

/// Makes what `make` makes, and every atomic word in it.
pub fn set_up<T: std::fmt::Debug>(make: impl FnOnce() -> T) -> T {
    atomics::set_up(true);
    let made = make();
    // Visits every word.
    let _ = format!("{made:?}");
    atomics::set_up(false);
    made
}
