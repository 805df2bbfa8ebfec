//! What the instruction at an exact pc says by itself.
//!
//! Only **`ret`** (`jirl zero, ra, 0`): ra tells what will be executed next, and sp must be the
//! caller's again. (At every one of them in glibc 2.41 that call frame information covers and that can
//! be reached, it says CFA = sp.)
//!
//! Prologues leave doubt: `st.d ra` may stand anywhere in a function that has moved its sp before.

use unwind_core::{Code, UnwindUserFrame};

use crate::ENTRY;

/// `jirl zero, ra, 0`
const RET: &[u8] = &[0x20, 0x00, 0x00, 0x4c];

/// The rule that the instruction at the pc implies.
pub(crate) fn rule(code: &Code<'_>) -> Option<UnwindUserFrame> {
    code.at.starts_with(RET).then_some(ENTRY)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn says(instruction: u32) -> Option<UnwindUserFrame> {
        rule(&Code { before: &[], at: &instruction.to_le_bytes() })
    }

    #[test]
    fn a_return_says_where_it_goes() {
        assert_eq!(says(0x4c00_0020), Some(ENTRY));
    }

    #[test]
    fn nothing_else_does() {
        // As gas writes jirl ra, ra, 0; jirl zero, ra, 4; jr t0; nop.
        for instruction in [0x4c00_0021, 0x4c00_0420, 0x4c00_0180, 0x0340_0000] {
            assert_eq!(says(instruction), None, "{instruction:x}");
        }
        for bit in 0..32 {
            assert_eq!(says(0x4c00_0020 ^ 1 << bit), None, "bit {bit}");
        }
        let bytes = 0x4c00_0020u32.to_le_bytes();
        for cut in 0..4 {
            assert_eq!(rule(&Code { before: &bytes, at: &bytes[..cut] }), None);
        }
    }
}
