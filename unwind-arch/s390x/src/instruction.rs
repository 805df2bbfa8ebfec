//! What the instruction at an exact pc says by itself.
//!
//! Only **`br %r14`** and its conditional forms: r14 tells what will be executed next, and sp must be
//! the caller's again. (At every one of them in glibc 2.36 and gcc 12's libstdc++ that call frame
//! information covers, it says CFA = r15 + 160.)
//!
//! Prologues leave doubt: `stmg` of r14 may store it anywhere in a function that has moved its sp
//! before.

use unwind_core::{Code, UnwindUserFrame};

use crate::ENTRY;

/// The rule that the instruction at the pc implies.
pub(crate) fn rule(code: &Code<'_>) -> Option<UnwindUserFrame> {
    match code.at {
        // bcr m, %r14. With a mask of 0 it never branches.
        [0x07, second, ..] if second & 0x0f == 14 && *second >= 0x10 => Some(ENTRY),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(at: &[u8]) -> Option<UnwindUserFrame> {
        rule(&Code { before: &[], at })
    }

    #[test]
    fn a_return_says_where_it_goes() {
        // As gas writes br, ber, bner, bhr, bler and bor, each with %r14.
        for second in [0xfe, 0x8e, 0x7e, 0x2e, 0xce, 0x1e] {
            assert_eq!(says(&[0x07, second]), Some(ENTRY));
            assert_eq!(says(&[0x07, second, 0x07, 0x07]), Some(ENTRY));
        }
    }

    #[test]
    fn nothing_else_does() {
        let mut known = 0;
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                let is_return = first == 0x07 && second & 0x0f == 14 && second != 0x0e;
                assert_eq!(says(&[first, second, 0, 0]).is_some(), is_return, "{first:x} {second:x}");
                known += u32::from(is_return);
            }
            assert_eq!(says(&[first]), None);
        }
        assert_eq!((known, says(&[])), (15, None));
        // br %r1; basr %r14, %r14; nopr %r14; the br %r14 two bytes on.
        for other in [&[0x07, 0xf1][..], &[0x0d, 0xee], &[0x07, 0x0e], &[0x07, 0x07, 0x07, 0xfe]] {
            assert_eq!(says(other), None);
        }
        assert_eq!(rule(&Code { before: &[0x07, 0xfe], at: &[0x07, 0x07] }), None);
    }
}
