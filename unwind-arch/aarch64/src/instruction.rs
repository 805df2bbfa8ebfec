//! What the instruction at an exact pc says by itself.
//!
//! Only what leaves no doubt, for code that no table covers; where there is doubt, there is no
//! rule.
//!
//! * **`paciasp`, `pacibsp`, `autiasp`, `autibsp`** sign and check x30 against sp, which call frame
//!   information takes to be the CFA: the return address is in x30 and sp is the CFA.
//! * **`bti c`** is where calls arrive. (`bti j` and `bti jc` are not taken: jumps inside a function
//!   arrive there too.)
//! * **`ret`, `retaa`, `retab`**: x30 tells what will be executed next, and sp must be the caller's
//!   again. So does `ldp x29, x30, [sp], #n` right before one.
//! * **`stp x29, x30, [sp, #-n]!` before `mov x29, sp`, and that `mov` after it**: the frame record is
//!   being made, so x30 is, or has just been stored as, the return address. The first of a
//!   function's instructions it need not be: glibc's `_dl_tlsdesc_dynamic` moves sp, and makes its
//!   frame record later. So sp is only a lower bound of the caller's, unless one of the
//!   instructions of the first two points comes right before.

use unwind_core::{Base, CfaRule, Code, FpRule, RaRule, UnwindUserFrame};

use crate::ENTRY;

const BTI_C: u32 = 0xd503_245f;
const PACIASP: u32 = 0xd503_233f;
const PACIBSP: u32 = 0xd503_237f;
const AUTIASP: u32 = 0xd503_23bf;
const AUTIBSP: u32 = 0xd503_23ff;
const RET: u32 = 0xd65f_03c0;
const RETAA: u32 = 0xd65f_0bff;
const RETAB: u32 = 0xd65f_0fff;
/// `mov x29, sp`
const MOV_FP_SP: u32 = 0x9100_03fd;

/// The rule that the instruction at the pc implies.
pub(crate) fn rule(code: &Code<'_>) -> Option<UnwindUserFrame> {
    match at(code, 0)? {
        BTI_C | PACIASP | PACIBSP | AUTIASP | AUTIBSP | RET | RETAA | RETAB => Some(ENTRY),
        MOV_FP_SP => {
            let size = pushed(before(code, 1)?)?;
            let first = before(code, 2).is_some_and(is_entry);
            record(size).map(|frame| if first { frame } else { frame.with_sp_bound() })
        }
        instruction => {
            if let Some(size) = popped(instruction) {
                let returns = match at(code, 1)? {
                    RET | RETAA | RETAB => true,
                    AUTIASP | AUTIBSP => at(code, 2) == Some(RET),
                    _ => false,
                };
                return if returns { record(size) } else { None };
            }
            pushed(instruction)?;
            if at(code, 1)? != MOV_FP_SP {
                return None;
            }
            let first = before(code, 1).is_some_and(is_entry);
            Some(if first { ENTRY } else { ENTRY.with_sp_bound() })
        }
    }
}

/// The frame record is at sp, and the CFA `size` bytes above it.
fn record(size: i32) -> Option<UnwindUserFrame> {
    let fp = 0i32.checked_sub(size)?;
    UnwindUserFrame::new(
        CfaRule::Offset { base: Base::Sp, offset: size },
        RaRule::AtCfa(fp.checked_add(8)?),
        FpRule::AtCfa(fp),
    )
}

/// Whether `instruction` is one that stands where sp is the CFA.
fn is_entry(instruction: u32) -> bool {
    matches!(instruction, BTI_C | PACIASP | PACIBSP)
}

/// The `n` of `stp x29, x30, [sp, #-n]!`.
fn pushed(instruction: u32) -> Option<i32> {
    let size = 0i32.checked_sub(pair_offset(instruction, 0xa980_7bfd)?)?;
    (size > 0).then_some(size)
}

/// The `n` of `ldp x29, x30, [sp], #n`.
fn popped(instruction: u32) -> Option<i32> {
    pair_offset(instruction, 0xa8c0_7bfd).filter(|size| *size > 0)
}

/// The offset in bytes of a load or store of a pair, if it is `opcode` in all but the offset: bits
/// 15 to 21, signed, in units of 8.
fn pair_offset(instruction: u32, opcode: u32) -> Option<i32> {
    const OFFSET: u32 = 0x7f << 15;
    if instruction & !OFFSET != opcode {
        return None;
    }
    let field = i32::try_from((instruction & OFFSET) >> 15).ok()?;
    let units = if field < 64 { field } else { field.checked_sub(128)? };
    units.checked_mul(8)
}

/// The instruction `index` places after the pc. Code is little-endian whatever data are.
fn at(code: &Code<'_>, index: usize) -> Option<u32> {
    let (words, _) = code.at.as_chunks::<4>();
    words.get(index).map(|bytes| u32::from_le_bytes(*bytes))
}

/// The instruction `index` places before the pc, 1 the nearest.
fn before(code: &Code<'_>, index: usize) -> Option<u32> {
    let (_, words) = code.before.as_rchunks::<4>();
    words.get(words.len().checked_sub(index)?).map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    /// stp x29, x30, [sp, #-32]!; ldp x29, x30, [sp], #32, as gas writes them.
    const STP: u32 = 0xa9be_7bfd;
    const LDP: u32 = 0xa8c2_7bfd;
    const NOP: u32 = 0xd503_201f;

    fn bytes(instructions: &[u32]) -> Vec<u8> {
        instructions.iter().flat_map(|instruction| instruction.to_le_bytes()).collect()
    }

    fn says(before: &[u32], at: &[u32]) -> Option<UnwindUserFrame> {
        rule(&Code { before: &bytes(before), at: &bytes(at) })
    }

    /// The frame record is at sp, in a frame of 32 bytes.
    fn saved() -> UnwindUserFrame {
        UnwindUserFrame::plain(false, 32, -24, Some(-32))
    }

    #[test]
    fn signing_and_landing_stand_where_sp_is_the_cfa() {
        for instruction in [BTI_C, PACIASP, PACIBSP, AUTIASP, AUTIBSP] {
            assert_eq!(says(&[], &[instruction]), Some(ENTRY));
            assert_eq!(says(&[NOP; 4], &[instruction, STP, MOV_FP_SP]), Some(ENTRY));
        }
        // bti; bti j; bti jc; nop; xpaclri; autia1716
        for hint in [0xd503_241f, 0xd503_249f, 0xd503_24df, NOP, 0xd503_20ff, 0xd503_219f] {
            assert_eq!(says(&[], &[hint, STP, MOV_FP_SP]), None, "{hint:x}");
        }
    }

    #[test]
    fn a_return_says_where_it_goes() {
        for ret in [RET, RETAA, RETAB] {
            assert_eq!(says(&[LDP], &[ret]), Some(ENTRY));
            assert_eq!(says(&[], &[LDP, ret]), Some(saved()));
        }
        for aut in [AUTIASP, AUTIBSP] {
            assert_eq!(says(&[], &[LDP, aut, RET]), Some(saved()));
            assert_eq!(says(&[], &[LDP, aut, NOP]), None);
            assert_eq!(says(&[], &[LDP, aut]), None);
        }
        // ret x9; br x30; blr x30; eret
        for other in [0xd65f_0120, 0xd61f_03c0, 0xd63f_03c0, 0xd69f_03e0, NOP] {
            assert_eq!(says(&[], &[other]), None, "{other:x}");
            assert_eq!(says(&[], &[LDP, other]), None, "{other:x}");
        }
        assert_eq!(says(&[], &[LDP]), None);
    }

    #[test]
    fn a_frame_record_being_made() {
        for first in [PACIASP, PACIBSP, BTI_C] {
            assert_eq!(says(&[first], &[STP, MOV_FP_SP]), Some(ENTRY));
            assert_eq!(says(&[first, STP], &[MOV_FP_SP]), Some(saved()));
        }
        // Not where the function is seen to begin: sp may have moved. glibc 2.36's ld.so at 0x12994
        // goes on like this after a ret, 32 bytes below the CFA.
        for before in [&[][..], &[RET], &[NOP], &[0xa9be_0be1]] {
            assert_eq!(says(before, &[STP, MOV_FP_SP]), Some(ENTRY.with_sp_bound()));
            let pushed = [before, &[STP]].concat();
            assert_eq!(says(&pushed, &[MOV_FP_SP]), Some(saved().with_sp_bound()));
        }
        // The frame pointer tells from here on.
        assert_eq!(says(&[PACIASP, STP, MOV_FP_SP], &[NOP]), None);
    }

    #[test]
    fn other_pairs_say_nothing() {
        let others = [
            // stp x29, x30, [sp, #32]; stp x29, x30, [sp, #32]!; ldp x29, x30, [sp, #-32]!
            0xa902_7bfd,
            0xa982_7bfd,
            0xa9fe_7bfd,
            // stp x30, x29; stp x19, x30; stp x29, x19, all [sp, #-32]!
            0xa9be_77fe,
            0xa9be_7bf3,
            0xa9be_4ffd,
            // stp x29, x30, [x0, #-32]!; stp w29, w30, [sp, #-32]!
            0xa9be_7c1d,
            0x29be_7bfd,
            // stp x29, x30, [sp, #0]!
            0xa980_7bfd,
        ];
        for other in others {
            assert_eq!(says(&[PACIASP], &[other, MOV_FP_SP]), None, "{other:x}");
            assert_eq!(says(&[PACIASP, other], &[MOV_FP_SP]), None, "{other:x}");
        }
        // ldp x29, x30, [sp, #32]; ldp x29, x30, [sp], #-32; ldp x29, x30, [sp], #0; ldp x29, x19
        for other in [0xa942_7bfd, 0xa8fe_7bfd, 0xa8c0_7bfd, 0xa8c2_4ffd] {
            assert_eq!(says(&[], &[other, RET]), None, "{other:x}");
        }
        // mov x29, x0; add x29, sp, #16
        for other in [0xaa00_03fd, 0x9100_43fd] {
            assert_eq!(says(&[PACIASP, STP], &[other]), None);
            assert_eq!(says(&[PACIASP], &[STP, other]), None);
        }
    }

    #[test]
    fn every_size_of_frame() {
        for size in (8..=512).step_by(8) {
            let field = (128 - size / 8) << 15;
            let stp = 0xa980_7bfd | field;
            let size = i32::try_from(size).unwrap();
            let frame = UnwindUserFrame::plain(false, size, 8 - size, Some(-size));
            assert_eq!(says(&[PACIASP, stp], &[MOV_FP_SP]), Some(frame));
        }
        for size in (8..=504).step_by(8) {
            let ldp = 0xa8c0_7bfd | ((size / 8) << 15);
            let size = i32::try_from(size).unwrap();
            let frame = UnwindUserFrame::plain(false, size, 8 - size, Some(-size));
            assert_eq!(says(&[], &[ldp, RET]), Some(frame));
        }
    }

    #[test]
    fn a_shorter_window_never_says_something_else_than_less() {
        let all = bytes(&[PACIASP, STP, MOV_FP_SP, LDP, AUTIASP, RET, BTI_C]);
        for pc in 0..all.len() {
            let full = rule(&Code { before: &all[..pc], at: &all[pc..] });
            for end in pc..all.len() {
                let cut = rule(&Code { before: &all[..pc], at: &all[pc..end] });
                assert!(cut.is_none() || cut == full, "at {pc} cut to {end}");
            }
            for start in 0..=pc {
                let cut = rule(&Code { before: &all[start..pc], at: &all[pc..] });
                let bound = full.map(UnwindUserFrame::with_sp_bound);
                assert!(cut.is_none() || cut == full || cut == bound, "at {pc} from {start}");
            }
        }
    }
}
