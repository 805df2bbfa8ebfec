//! What the tests of this workspace share: oracles, captured runs, synthetic stacks, a slow
//! reference unwinder. Nothing here is published.

pub mod capture;
// The oracles walk with rule caches, which are for hosts with atomic words of 64 bits.
#[cfg(target_has_atomic = "64")]
pub mod captured;
pub mod ehabi;
pub mod fuzzing;
pub mod hazard;
pub mod libraries;
#[cfg(target_has_atomic = "64")]
pub mod oracle;
pub mod reference;
pub mod sframe;
pub mod synthetic;

/// The README's example is compiled and run like the others.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
