//! The ELF files that a target is made of, where they are loaded, and the unwind tables in them.
//!
//! [`ElfModules`] owns what was read, and lends it to walks: [`ElfModules::sources`] gives a
//! [`Module`](unwind_core::Module) for every executable range, with an [`ElfSource`] each. Live
//! processes (module `process`) and core dumps (module `core_dump`) both come down to this.

pub(crate) mod image;
mod modules;
mod source;
pub(crate) mod tables;

pub use modules::{BareCode, ElfModule, ElfModules, IndexRoom, Origin};
pub use source::ElfSource;
pub use tables::ElfError;
