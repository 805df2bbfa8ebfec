//! SFrame sections for tests: made from descriptions, good and bad, and put through everything that
//! an embedder can do with them.

mod describe;
mod elf;
mod probe;
mod target;

pub use describe::{Function, RowBytes, Section};
pub use elf::{Elf, files, folder};
pub use probe::{Probe, pcs_of_interest, probe, probe_at};
pub use target::{S390x, lookup};
