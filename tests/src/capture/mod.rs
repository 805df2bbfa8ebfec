//! Captures runs of programs under `qemu-user`, for [`captured`](crate::captured) to replay.
//!
//! The emulator is driven through its gdb stub, one instruction at a time; calls and returns are
//! recognised by decoding the instruction that is executed, and [`Shadow`](crate::oracle::truth::Shadow)
//! keeps the true chain of them. No unwind table is consulted.
//!
//! What differs between architectures is one [`Target`], in one small file.

#![cfg(target_os = "linux")]

mod aarch64;
mod chains;
mod guest;
mod remote;
mod s390x;
mod session;
mod stacks;
mod symbols;
mod target;
mod x86_64;

pub use session::{Captured, Plan, capture};
pub use target::{TARGETS, Target};
