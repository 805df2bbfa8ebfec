//! ARM exception handling tables for tests: made from descriptions, read from files, and a slow
//! decoder to compare the library with.

mod arch;
mod elf;
mod judge;
mod locate;
mod probe;
mod readelf;
mod reference;
mod rule;
mod tables;

pub use arch::{Arm, Made};
pub use elf::{Elf, folder};
pub use judge::{Frame, Verdict, judge};
pub use locate::{Located, Routine, locate, starts};
pub use probe::{Probe, probe};
pub use readelf::{Entry, Listed, Opcode, parse_readelf};
pub use reference::{Registers, Stop, execute, parse};
pub use rule::{Caller, apply};
pub use tables::{Body, Built, Tables};
