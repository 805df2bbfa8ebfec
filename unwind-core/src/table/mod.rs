//! Compiled tables: the unwind information of a module in a compact, read-only form, made once.
//!
//! A million rows of call frame information have only hundreds of distinct rules. A table therefore is
//! sorted addresses, a byte each, in pages of 256 bytes of code; the number of a rule for each; and the
//! rules, each once. A search takes one look at a page and goes through the few rows of it. Ranges that nothing covers are explicit. Whatever a rule cannot say, or the
//! original source has wrong, is a row that says "ask the original": exactness is never traded.
//!
//! [`TableWriter`] makes one out of rows in ascending order, in room that the caller gives;
//! `TableCompiler` (with feature `dwarf`) feeds it from call frame information, as many functions at
//! a time as the caller likes. [`Table`] reads one from a borrowed slice or a mapped file: the bytes
//! are independent of position, host and byte order, and are not trusted. [`TableSource`] walks with
//! it.
//!
//! # Format, version 1
//! Little-endian. A header of 32 bytes:
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 4 | magic: `UWT` and the version, 1 |
//! | 4 | 4 | number of rows |
//! | 8 | 8 | base: the first address (svma), a multiple of 256 |
//! | 16 | 4 | number of pages |
//! | 20 | 4 | number of rules |
//! | 24 | 4 | bytes of a rule number: 1 or 2 |
//! | 28 | 4 | 0 |
//!
//! Then, without gaps: for each page and once more at the end, the number of rows before it (4 bytes);
//! for each row, the low byte of its address; for each row, the number of its rule; for each rule, 16
//! bytes of [`UnwindUserFrame`](crate::UnwindUserFrame); for each rule, a byte of flags.

#[cfg(feature = "dwarf")]
mod compile;
mod format;
mod source;
mod write;

#[cfg(feature = "dwarf")]
pub use compile::{Progress, TableCompiler};
pub use format::{Table, TableError, TableRule};
pub use source::TableSource;
pub use write::{TableRoom, TableSlot, TableWriteError, TableWriter};
