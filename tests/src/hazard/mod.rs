//! The hazards as data: cases that any unwinder can be put through, made for every architecture.
//!
//! A hazard is a place where unwinders go wrong. Each has a number, a name and a function that makes its
//! cases for an architecture: modules as bytes, registers, memory, and what must be found. What must be
//! found is argued from the format's specification, the ABI or the kernel, where the case is made, and
//! never computed by this library.
//!
//! [`Unwinder`] is the adapter that an unwinder needs to take part. [`Ours`] is this library's; the
//! scoreboard (`cargo bench --bench hazards`) has another one.

mod case;
mod cases;
mod list;
#[cfg(target_has_atomic = "64")]
mod ours;
mod scene;

pub use case::{
    Case, Earlier, Ended, Expect, Found, Image, MOST_FRAMES, Memories, Then, Unwinder, Verdict, judge,
};
pub use list::{HAZARDS, Hazard};
#[cfg(target_has_atomic = "64")]
pub use ours::Ours;
pub use scene::{CODE, NOISE, STACK, Scene};
