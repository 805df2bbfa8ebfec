//! Core dumps of programs of ours, of every architecture, and damaged ones. `tests/cores` has the
//! source, and the script that made them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "tests"
)]

mod damaged;
mod emulated;
mod fixtures;
mod synthetic;
mod walk;
