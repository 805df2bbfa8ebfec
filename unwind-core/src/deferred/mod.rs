//! Deferred unwinding: a user trace that is requested where user memory cannot be touched, and taken
//! where it can.
//!
//! A sampler often runs in an interrupt or NMI. It [requests](Deferred::request) a user trace and gets a
//! [`Cookie`], which it records beside the kernel's part of the stack. Just before the task returns to user space
//! its stack is walked once, and [every client](Client) that has requested is called with the trace and that
//! cookie. Whoever reads the records joins the parts again ([`Stitcher`]).
//!
//! An *entry* is what lies between two returns to user space. The user's stack does not change in it, so one
//! walk serves all requests of an entry, and one cookie names it.
//!
//! # What you supply, and what you call
//!
//! | in | call |
//! |---|---|
//! | the task's structure | a [`TaskState`], 24 bytes; a [`TraceCache`] of the size you like, for it or for its CPU |
//! | statics | a [`ClientSlot`] for each client there may be, a [`CpuCounter`] for each CPU |
//! | [`Embedder`] | current task and CPU, NMIs, how work is queued, how a task's stack is walked, all tasks |
//! | anywhere | [`Deferred::request`] |
//! | the queued work | [`Deferred::process`] |
//! | the last thing before the return to user space | [`Deferred::return_to_user`]; where it says *pending*, process and ask again |
//! | exit, while memory is there | [`Deferred::exit`] |
//! | where waiting is allowed | [`Deferred::register`], [`Deferred::cancel`] |
//!
//! # Guarantees
//!
//! 1. A request never waits, allocates, takes a lock or touches user memory. It is right in an NMI that has
//!    interrupted another operation of the same task, slot or counter between any two instructions.
//! 2. Who is told a cookie is called exactly once with it, whether it requests once or often; with an
//!    empty trace if the walk could not begin.
//! 3. Clients that request in one entry share one walk. Those that come after it share it as well, as long as
//!    the cache holds it.
//! 4. All requests of an entry get one cookie; those of another entry another one, also where the first
//!    client was cancelled meanwhile. No trace of one entry is delivered with the cookie of another.
//! 5. A client is not called once its cancel has returned, and whoever has its slot next is called for its own
//!    requests alone. (Who requests while its own cancel is under way may be told a cookie and not be called.)
//! 6. A task that exits hands over what was requested; later requests are refused. None falls in between.
//! 7. Where work cannot be queued, that request is refused; others that came in meanwhile keep what they
//!    were told.
//!
//! 1, 2, 4 and 6 also hold for requests from another CPU than the task's ([`Deferred::request_for`]).
//!
//! They are shown by a model checker over every pair of operations that can race (`tests/loom`), by an interrupt
//! before every access to an atomic word of every operation (`tests/tests/deferred_interrupt.rs`), and against a
//! sequential model (`tests/tests/deferred_property.rs`).
//!
//! # How
//!
//! A task has one word that says who has requested, who was served and which entry it is. All that must be
//! decided at once is decided in it; the argument, with the memory orderings, is in `task.rs`. A
//! client's slot has another one, which says who is inside; see `client.rs`. There is no lock, and nothing is freed, so
//! nothing has to be kept from being freed: cancelling waits until nobody is inside.
//!
//! # Beside Linux
//!
//! After `kernel/unwind/deferred.c`. The differences:
//!
//! | there | here, and why |
//! |---|---|
//! | up to 62 clients | [`MAX_CLIENTS`], as *requested*, *served* and the entry are in one word |
//! | mask and cookie are cleared one after the other | the word is changed once: an NMI between the two would get the cookie of an entry that has ended |
//! | who was served is known only if there is a cache | always |
//! | a queue that fails clears the mask | work is queued before the client's bit is set, and a bit that is set stands: an NMI may have told others of it |
//! | 32 bits of CPU and of count, claimed by halves | 16 and 48, claimed at once |
//! | clients in a list under SRCU | slots that are counted in and out of |

mod client;
mod cookie;
mod embedder;
mod process;
mod register;
mod request;
mod stitch;
mod task;
mod trace;
mod word;

pub use client::{Client, ClientId, ClientSlot, Registration};
pub use cookie::{Cookie, CpuCounter};
pub use embedder::{Embedder, NotQueued};
pub use process::{Processed, Return};
pub use register::NoSlot;
pub use request::{Deferred, RequestError, Requested, Standing};
pub use stitch::{Missing, Stitched, Stitcher};
pub use task::TaskState;
pub use trace::{Trace, TraceCache};

/// The most clients there can be at a time: what a task's word has room for.
pub const MAX_CLIENTS: usize = 20;
