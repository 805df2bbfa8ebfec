//! Captures runs of programs under `qemu-user`, for [`captured`](crate::captured) to replay.
//!
//! The emulator is driven through its gdb stub, one instruction at a time; calls and returns are
//! recognised by decoding the instruction that is executed, and [`Shadow`](crate::oracle::truth::Shadow)
//! keeps the true chain of them. No unwind table is consulted.
//!
//! What differs between architectures is one [`Target`], in one small file.

#![cfg(all(target_os = "linux", target_has_atomic = "64"))]

mod aarch64;
mod arm;
mod chains;
mod guest;
mod loongarch64;
mod mips64el;
mod plan;
mod powerpc64le;
mod remote;
mod riscv64;
mod s390x;
mod samples;
mod session;
mod signals;
mod stacks;
mod symbols;
mod target;
mod transfers;
mod x86;
mod x86_64;

pub use plan::{Captured, Plan, capture};
pub use target::{TARGETS, Target};
