//! Compiled tables against what they were made of: for the libraries at hand, for the fixtures of every
//! architecture, and for files of one's own (`UNWIND_ROWS=FILE[:FILE…]`), the table says at every row of
//! every function, at both its ends, and between functions, what its source says: from DWARF, SFrame and
//! ARM's exception handling tables, compiled at once, in steps, and page by page. Tables that are damaged do
//! no harm.

#[path = "table/compare.rs"]
mod compare;
#[path = "table/dwarf.rs"]
mod dwarf;
#[path = "table/ehabi.rs"]
mod ehabi;
#[path = "table/lazy.rs"]
mod lazy;
#[path = "table/sframe.rs"]
mod sframe;
#[path = "table/written.rs"]
mod written;
