//! The atomic words that [`deferred`](crate::deferred) is made of.
//!
//! That module names them by this path alone. Tests compile its files a second time, in a crate whose
//! module of this name has words that a model checker schedules (`tests/loom`), or that let an interrupt
//! in before every access (`tests/tests/deferred_interrupt.rs`): what is shipped knows of neither.

pub(crate) use core::sync::atomic::{AtomicU64, Ordering};
