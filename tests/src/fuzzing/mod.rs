//! What the fuzz targets do with their input: library code, so that the same runs as an ordinary
//! test over the seeds, and that a finding is a regression test without a fuzzer.

mod compile;
mod core_dump;
mod dwarf;
mod ehabi;
mod expression;
mod hdr;
mod judge;
mod maps;
#[cfg(target_has_atomic = "64")]
mod memory;
mod sframe;
mod sframe_roundtrip;
mod table;
mod walk;

pub use compile::compile;
pub use core_dump::core;
pub use dwarf::{DwarfInput, SectionsInput, dwarf};
pub use ehabi::ehabi;
pub use expression::expression;
pub use hdr::eh_frame_hdr;
pub use maps::maps;
#[cfg(target_has_atomic = "64")]
pub use memory::memory;
pub use sframe::sframe;
pub use sframe_roundtrip::sframe_roundtrip;
pub use table::table;
pub use walk::{Damage, RuleInput, TableInput, Value, WalkInput, walk};
