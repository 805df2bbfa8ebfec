//! The oracle: execution itself says what the call chain is, and every walk has to agree.
//!
//! A real program is stepped one instruction at a time. [`truth`] keeps the call stack from the
//! calls and returns that happen; [`judge`] compares a walk with it; [`tally`] counts every single
//! comparison, so that nothing is skipped in silence. These three know no architecture and no operating
//! system. [`programs`] compiles what is stepped, [`modules`] finds the unwind tables of a process,
//! [`cfi`] asks a second, independent reader what those tables say.

pub mod cfi;
pub mod judge;
pub mod modules;
pub mod programs;
pub mod sources;
pub mod tally;
pub mod truth;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod x86_64;
