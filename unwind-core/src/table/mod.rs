//! Compiled tables: the unwind information of a module in a compact, read-only form.
//!
//! A million rows of unwind information have only hundreds of distinct rules. A table therefore is sorted
//! addresses, a byte each, in pages of 256 bytes of code; beside each the number of its rule, a byte for
//! nearly all; and the rules, each once. A search takes one look at a page and goes through the few rows of
//! it. What nothing covers is explicit, to the byte. Whatever a rule cannot say, or the original source has
//! wrong, is a row that says "ask the original": exactness is never traded.
//!
//! | | |
//! |---|---|
//! | [`TableCompiler`] | makes a table of a [`TableOrigin`]: `DwarfSource`, `SFrameSource` or `EhabiSource`, as many functions at a time as the caller likes, in one pass over each and in room that the caller gives |
//! | `compile_to_vec` | the same in one call, with a callback that is told how far it has come (feature `alloc`) |
//! | [`TableWriter`] | makes one of rows in ascending order, for other forms of unwind information |
//! | [`Table`] | reads one from a borrowed slice or a mapped file: the bytes are independent of position, host and byte order, and are not trusted |
//! | [`TableSource`] | walks with one, over the source it was made of |
//! | [`LazyRoom`], [`LazyTable`] | tables made page by page, when they are first asked for: many modules, many threads, one room |
//!
//! Tables take 35 to 60 % of `.eh_frame` and `.eh_frame_hdr` of x86-64 libraries, less on other machines.
//!
//! # Format, version 2
//! Little-endian. A header of 32 bytes:
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 4 | magic: `UWT` and the version, 2 |
//! | 4 | 4 | number of slots |
//! | 8 | 8 | base: the first address (svma), a multiple of 256 |
//! | 16 | 4 | number of pages of 256 bytes of code |
//! | 20 | 4 | number of rules, at least 2 |
//! | 24 | 8 | 0 |
//!
//! Then, without gaps:
//!
//! * for each page and once more at the end, the number of slots before it (4 bytes);
//! * the slots, 2 bytes each: the low byte of an address, and the first byte of a rule's number;
//! * the rules, 17 bytes each. The last one, flags, says in bits 0 and 1 what the others are (0: not covered, 1: ask
//!   the original, 2: a frame, 3: a plain rule), and in bits 4 and 5 where the rule [`Holds`]. A frame is the 16
//!   bytes of [`UnwindUserFrame`](crate::UnwindUserFrame), with its [`Trust`](crate::Trust) in bits 2 and 3 of the
//!   flags. A plain rule is what a walk wants to know of nearly every frame, ready for use:
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 2 | how far behind the base of the CFA the return address is |
//! | 2 | 2 | how far behind that the CFA is (signed); the CFA is above its base by 1 to 65,535 |
//! | 4 | 2 | the offset of the caller's frame pointer from the CFA (signed) |
//! | 6 | 2 | 0 |
//! | 8 | 4 | bits 12 and 13: its trust; bit 17: the CFA is based on the frame pointer, not on sp; bit 18: the caller's frame pointer is at that offset, not unchanged; bit 21: nobody called the frame, nothing else counts |
//! | 12 | 4 | 0 |
//!
//! A row holds from its address up to that of the next one, over the ends of pages. A first byte below 224 is
//! the number itself. One of 224 or more says that the slot before, with the same address, has a second byte
//! from 1 to 255; the number then is 224 + (first - 224) * 255 + second - 1. Numbers are given in the order in
//! which rules first occur: the frequent ones are among the first. Rule 0 is "not covered", rule 1 "ask the
//! original".
//!
//! A function ends where a row that is not covered follows, be it of no length: it then is a slot before that
//! of the next function, with the same address. So a lookup knows whether a return pc is the first address
//! behind its function.

mod compile;
mod format;
mod intern;
#[cfg(target_has_atomic = "64")]
mod lazy;
#[cfg(target_has_atomic = "64")]
mod lazy_room;
mod origin;
mod rule;
mod source;
mod write;

#[cfg(feature = "alloc")]
pub use compile::compile_to_vec;
pub use compile::{Progress, TableCompileError, TableCompiler};
pub use format::{Table, TableError, TableRanges};
pub use intern::TableSlot;
#[cfg(target_has_atomic = "64")]
pub use lazy::LazyTable;
#[cfg(target_has_atomic = "64")]
pub use lazy_room::{LazyPage, LazyRoom, LazyRow, LazyRule};
#[doc(hidden)]
pub use origin::Functions;
pub use origin::TableOrigin;
pub use rule::{Holds, TableRule};
pub use source::TableSource;
pub use write::{TableRoom, TableWriteError, TableWriter};
