//! SFrame sections for tests: made from descriptions, good and bad, and put through everything that
//! an embedder can do with them.

mod describe;
mod elf;
mod frames;
mod probe;
mod roundtrip;
mod target;

pub use describe::{Function, RowBytes, Section};
pub use elf::{Elf, files, folder};
pub use frames::FrameSections;
pub use probe::{Probe, pcs_of_interest, probe, probe_at};
pub use roundtrip::{Written, canonical, round_trip};
pub use target::lookup;
