//! The oracle on x86-64 Linux: ptrace steps, the truth judges.
//!
//! [`run`] takes a [`Case`] and gives a [`Report`]. `tracee` is a process under ptrace, `stepper` its
//! thread with the true call stack, `walks` what is compared with it.

mod case;
mod instruction;
mod listed;
mod registers;
mod run;
mod stepper;
mod tracee;
mod walks;
mod window;

pub use case::{Begin, Case, Ended, Failure, Report, Tables};
pub use listed::{LISTED, Listed, Spot};
pub use run::run;
pub use tracee::Stop;
pub use window::{From, Window};
