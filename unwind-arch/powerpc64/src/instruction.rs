//! What the instruction at an exact pc says by itself.
//!
//! Only **`blr`** and its conditional forms (`bclr` that does not link, with the hint that it is a
//! return): LR tells what will be executed next, and sp must be the caller's again. (At all of them in
//! glibc 2.36 and gcc 12's libstdc++ that call frame information covers, in both byte orders, it says
//! CFA = r1, but for a dozen in hand-written assembly where it is wrong: in `getcontext`, `_mcount` and
//! a few more it still adds the size of the frame that has just been given up.)
//!
//! Prologues leave doubt: `mflr` may follow a branch that was made only to learn the pc.

use unwind_core::{ByteOrder, Code, UnwindUserFrame};

use crate::ENTRY;

/// `bclr BO, BI, 0`, which does not link, and the bits that are not BO and BI.
const BCLR: u32 = 0x4c00_0020;
const BCLR_MASK: u32 = 0xfc00_ffff;

/// The rule that the instruction at the pc implies. Instructions have the byte order of data.
pub(crate) fn rule(order: ByteOrder, code: &Code<'_>) -> Option<UnwindUserFrame> {
    let instruction = word(order, code.at.first_chunk()?);
    (instruction & BCLR_MASK == BCLR).then_some(ENTRY)
}

pub(crate) fn word(order: ByteOrder, bytes: &[u8; 4]) -> u32 {
    match order {
        ByteOrder::Little => u32::from_le_bytes(*bytes),
        ByteOrder::Big => u32::from_be_bytes(*bytes),
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn says(instruction: u32) -> Option<UnwindUserFrame> {
        let big = rule(ByteOrder::Big, &Code { before: &[], at: &instruction.to_be_bytes() });
        let little = rule(ByteOrder::Little, &Code { before: &[], at: &instruction.to_le_bytes() });
        assert_eq!(big, little);
        big
    }

    #[test]
    fn a_return_says_where_it_goes() {
        // As gas writes blr, beqlr, bnelr+, bdnzlr.
        for instruction in [0x4e80_0020, 0x4d82_0020, 0x4ce2_0020, 0x4e00_0020] {
            assert_eq!(says(instruction), Some(ENTRY), "{instruction:x}");
        }
    }

    #[test]
    fn nothing_else_does() {
        // blrl, bctr, bctrl, bcl 20,31,$+4, blr with the hint that it is none, mflr r0, nop.
        let others =
            [0x4e80_0021, 0x4e80_0420, 0x4e80_0421, 0x429f_0005, 0x4e80_0820, 0x7c08_02a6, 0x6000_0000];
        for instruction in others {
            assert_eq!(says(instruction), None, "{instruction:x}");
        }
        // Any other bit but those of BO and BI.
        for bit in (0..16).chain(26..32) {
            assert_eq!(says(0x4e80_0020 ^ 1 << bit), None, "bit {bit}");
        }
        let bytes = [0x4e, 0x80, 0x00, 0x20];
        for cut in 0..4 {
            assert_eq!(rule(ByteOrder::Big, &Code { before: &bytes, at: &bytes[..cut] }), None);
        }
        // The other byte order.
        assert_eq!(rule(ByteOrder::Little, &Code { before: &[], at: &bytes }), None);
    }
}
