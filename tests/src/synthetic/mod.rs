//! Stacks that no program has made: laid out word by word, so that the truth is known.

mod any;
mod arch;
pub mod cfi;
pub mod chaos;
mod choose;
mod code;
mod convention;
mod layout;
mod memory;
mod module;
mod place;
mod real;
mod registers;
mod rules;
mod spec;
mod stack;
pub mod strategy;

pub use any::AnyArch;
pub use arch::Synthetic;
pub use layout::lay_out;
pub use memory::{Changing, Counting, FailsOnce, Memory};
pub use module::{DwarfModule, Form, ModuleSpec, SectionsSpec, describe};
pub use registers::Registers;
pub use rules::{Answer, Row, Rules, base_register, carry_out};
pub use spec::{BaseSpec, ChainSpec, EndSpec, FpSpec, FrameSpec, Place, RaSpec, Role, Size, TableKind};
pub use stack::{Reads, Stack};
