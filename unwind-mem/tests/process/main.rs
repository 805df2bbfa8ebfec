//! Live processes, and cores of them: Linux only. Where ptrace or a program that a test needs is not to be had, the
//! test says so and passes.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::exit,
    reason = "tests"
)]

mod children;
mod compat;
mod dumped;
mod gdb;
mod memory;
mod modules;
mod sframe;
mod stacks;
mod stopping;
mod watching;
