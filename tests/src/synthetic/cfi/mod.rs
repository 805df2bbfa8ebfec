//! Writers of call frame information: every form that the formats allow, right and wrong ones.
//!
//! Written from DWARF 5 sections 6.4, 7.6, 7.7.1 and 7.24 and from the `.eh_frame` and
//! `.eh_frame_hdr` chapters of the Linux Standard Base; none of it is shared with what reads it.

mod bytes;
mod encode;
mod expression;
mod header;
mod program;
mod section;

pub use bytes::{Bytes, encoding};
pub use encode::{Style, encode_rule, return_address_column};
pub use expression::Expression;
pub use header::Header;
pub use program::Program;
pub use section::{CfiSection, Cie, Fde, Flavor};
