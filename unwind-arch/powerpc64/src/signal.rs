//! Signal trampolines, and the frame that they return from.
//!
//! A handler returns to code that gives up the frame it ran on and calls `rt_sigreturn` (system call
//! 172): `__kernel_sigtramp_rt64` of the vDSO, or the same three instructions on the stack where
//! there is no vDSO. Debuggers know it by them, so the kernel keeps them. (The `sigreturn` of 32-bit
//! programs, system call 119, is never made by a 64-bit one.) qemu's user mode, whose core files are
//! read too, leaves the first of them out; what comes before the system call tells its versions, whose
//! frames differ, apart.
//!
//! The kernel's vDSO has call frame information for it, marked as a signal frame, with the same offsets
//! but through the pointer to the registers that `uc_mcontext` has, which points to where they are here.

use unwind_core::{Base, ByteOrder, CfaRule, Code, FpRule, RaRule, Register, SignalFrame, UnwindUserFrame};

use crate::instruction::word;
use crate::*;

/// `addi r1, r1, 128`
const ADDI: u32 = 0x3821_0080;
/// `li r0, 172`
const LI: u32 = 0x3800_00ac;
/// `sc`
const SC: u32 = 0x4400_0002;
/// What is before qemu's: `nop` from version 8.2 on, no instruction at all up to then.
const QEMU: u32 = 0x6000_0000;
const OLD_QEMU: u32 = 0;

/// The signal frame, if `code` is a trampoline: at its first instruction, where the handler returns to,
/// or at one behind it. Instructions have the byte order of data.
pub(crate) fn trampoline(order: ByteOrder, code: &Code<'_>) -> Option<SignalFrame> {
    let (at, _) = code.at.as_chunks::<4>();
    let (_, before) = code.before.as_rchunks::<4>();
    let at = |index: usize| at.get(index).map(|bytes| word(order, bytes));
    let before = |index| {
        let place = before.len().checked_sub(index)?;
        before.get(place).map(|bytes| word(order, bytes))
    };
    if (at(0), at(1), at(2)) == (Some(ADDI), Some(LI), Some(SC)) {
        return signal_frame(128, &BELOW_128);
    }
    let first = if (at(0), at(1)) == (Some(LI), Some(SC)) {
        before(1)?
    } else if (before(1), at(0)) == (Some(LI), Some(SC)) {
        before(2)?
    } else {
        return None;
    };
    match first {
        ADDI => signal_frame(0, &BELOW_0),
        QEMU => signal_frame(128, &BELOW_128),
        OLD_QEMU => signal_frame(144, &BELOW_144),
        _ => None,
    }
}

/// The frame where sp is `below` bytes below the `ucontext`.
fn signal_frame(below: i32, registers: &'static [(Register, i32)]) -> Option<SignalFrame> {
    let offset = |place: i32| below.checked_add(place);
    let frame = UnwindUserFrame::new(
        CfaRule::Deref { base: Base::Sp, offset: offset(240)?, add: 0 },
        RaRule::AtRegister { base: Base::Sp, offset: offset(488)? },
        FpRule::AtRegister { base: Base::Sp, offset: offset(480)? },
    )?;
    Some(SignalFrame { frame: frame.signal(), registers })
}

/// Where the frame keeps each register, from sp that is so many bytes below the `ucontext`: `struct
/// rt_sigframe` of Linux `arch/powerpc/kernel/signal_64.c` begins with it, and the handler was called on
/// a frame of 128 bytes below (`__SIGNAL_FRAMESIZE`). Its `uc_mcontext` is at 168; in that, a `struct
/// sigcontext` (`arch/powerpc/include/uapi/asm/sigcontext.h`), `gp_regs` is at 64, with r0 to r31 in the
/// order of their numbers, LR at 36 words, and `fp_regs` at 448.
macro_rules! registers_below {
    ($below:literal) => {
        [
            (R0, $below + 232),
            (R1, $below + 240),
            (R2, $below + 248),
            (R3, $below + 256),
            (R4, $below + 264),
            (R5, $below + 272),
            (R6, $below + 280),
            (R7, $below + 288),
            (R8, $below + 296),
            (R9, $below + 304),
            (R10, $below + 312),
            (R11, $below + 320),
            (R12, $below + 328),
            (R13, $below + 336),
            (R14, $below + 344),
            (R15, $below + 352),
            (R16, $below + 360),
            (R17, $below + 368),
            (R18, $below + 376),
            (R19, $below + 384),
            (R20, $below + 392),
            (R21, $below + 400),
            (R22, $below + 408),
            (R23, $below + 416),
            (R24, $below + 424),
            (R25, $below + 432),
            (R26, $below + 440),
            (R27, $below + 448),
            (R28, $below + 456),
            (R29, $below + 464),
            (R30, $below + 472),
            (R31, $below + 480),
            (LR, $below + 520),
            (F0, $below + 616),
            (F1, $below + 624),
            (F2, $below + 632),
            (F3, $below + 640),
            (F4, $below + 648),
            (F5, $below + 656),
            (F6, $below + 664),
            (F7, $below + 672),
            (F8, $below + 680),
            (F9, $below + 688),
            (F10, $below + 696),
            (F11, $below + 704),
            (F12, $below + 712),
            (F13, $below + 720),
            (F14, $below + 728),
            (F15, $below + 736),
            (F16, $below + 744),
            (F17, $below + 752),
            (F18, $below + 760),
            (F19, $below + 768),
            (F20, $below + 776),
            (F21, $below + 784),
            (F22, $below + 792),
            (F23, $below + 800),
            (F24, $below + 808),
            (F25, $below + 816),
            (F26, $below + 824),
            (F27, $below + 832),
            (F28, $below + 840),
            (F29, $below + 848),
            (F30, $below + 856),
            (F31, $below + 864),
        ]
    };
}

static BELOW_0: [(Register, i32); 65] = registers_below!(0);
static BELOW_128: [(Register, i32); 65] = registers_below!(128);
static BELOW_144: [(Register, i32); 65] = registers_below!(144);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::FrameKind;

    use super::*;

    /// As gas writes it, big-endian.
    const FORM: [u8; 12] = [0x38, 0x21, 0x00, 0x80, 0x38, 0x00, 0x00, 0xac, 0x44, 0x00, 0x00, 0x02];

    /// qemu's from 8.2 on and before; the first word is what stands before it.
    const OF_QEMU: [[u8; 12]; 2] = [
        [0x60, 0x00, 0x00, 0x00, 0x38, 0x00, 0x00, 0xac, 0x44, 0x00, 0x00, 0x02],
        [0x00, 0x00, 0x00, 0x00, 0x38, 0x00, 0x00, 0xac, 0x44, 0x00, 0x00, 0x02],
    ];

    fn in_order(order: ByteOrder, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        if order == ByteOrder::Little {
            for word in bytes.chunks_mut(4) {
                word.reverse();
            }
        }
        bytes
    }

    const ORDERS: [ByteOrder; 2] = [ByteOrder::Big, ByteOrder::Little];

    #[test]
    fn it_is_known_at_all_its_instructions() {
        for order in ORDERS {
            let form = in_order(order, &FORM);
            let nop = in_order(order, &[0x60, 0, 0, 0]);
            for pc in [0, 4, 8] {
                let (before, at) = form.split_at(pc);
                assert!(trampoline(order, &Code { before, at }).is_some());
                let (before, at) = ([&nop, before].concat(), [at, &nop].concat());
                assert!(trampoline(order, &Code { before: &before, at: &at }).is_some());
            }
        }
    }

    #[test]
    fn those_of_qemu_are_known_by_what_is_before_them() {
        for order in ORDERS {
            for form in OF_QEMU {
                let form = in_order(order, &form);
                for pc in [4, 8] {
                    assert!(trampoline(order, &Code { before: &form[..pc], at: &form[pc..] }).is_some());
                }
                assert!(trampoline(order, &Code { before: &[], at: &form }).is_none());
            }
        }
    }

    #[test]
    fn nothing_less_is_known() {
        for order in ORDERS {
            for form in [FORM, OF_QEMU[0], OF_QEMU[1]] {
                let form = in_order(order, &form);
                let known = |before: &[u8], at: &[u8]| trampoline(order, &Code { before, at }).is_some();
                for cut in 0..form.len() {
                    assert!(!known(&[], &form[..cut]), "cut to {cut}");
                    // A pc that is no instruction of it.
                    if cut % 4 != 0 {
                        assert!(!known(&form[..cut], &form[cut..]), "pc in the middle: {cut}");
                    }
                }
                assert!(!known(&form, &[0; 16]));
                for pc in [4, 8] {
                    for cut in 1..=pc {
                        assert!(!known(&form[cut..pc], &form[pc..]), "before {pc} cut from {cut}");
                    }
                    for cut in pc..form.len() {
                        assert!(!known(&form[..pc], &form[pc..cut]), "at {pc} cut to {cut}");
                    }
                }
                for bit in 0..form.len() * 8 {
                    let mut other = form.clone();
                    other[bit / 8] ^= 1 << (bit % 8);
                    for pc in [0, 4, 8] {
                        assert!(!known(&other[..pc], &other[pc..]), "bit {bit}");
                    }
                }
            }
        }
        // The other byte order.
        assert!(trampoline(ByteOrder::Little, &Code { before: &[], at: &FORM }).is_none());
    }

    #[test]
    fn the_rules_say_what_the_tables_say() {
        // The ucontext is 128 bytes above the sp that a handler was called with; qemu has 16 bytes more
        // in its older versions, and leaves sp as it is.
        let forms = [(FORM, 0, 128), (FORM, 4, 0), (FORM, 8, 0)];
        let of_qemu = [(0, 4, 128), (0, 8, 128), (1, 4, 144), (1, 8, 144)];
        let of_qemu = of_qemu.map(|(index, pc, start)| (OF_QEMU[index], pc, start));
        for (form, pc, start) in forms.into_iter().chain(of_qemu) {
            let code = Code { before: &form[..pc], at: &form[pc..] };
            let frame = trampoline(ByteOrder::Big, &code).unwrap();
            let offset = |register| frame.registers.iter().find(|(held, _)| *held == register).unwrap().1;
            let rule = frame.frame;
            assert_eq!(rule.kind(), FrameKind::Signal);
            assert_eq!(rule.cfa(), CfaRule::Deref { base: Base::Sp, offset: offset(R1), add: 0 });
            assert_eq!(rule.fp(), FpRule::AtRegister { base: Base::Sp, offset: offset(R31) });
            // In C: offsetof(ucontext_t, uc_mcontext.gp_regs[PT_NIP]), of [PT_LNK], of gp_regs, of fp_regs.
            assert_eq!(rule.ra(), RaRule::AtRegister { base: Base::Sp, offset: start + 488 });
            assert_eq!(offset(LR), start + 520);
            for number in 0..32 {
                assert_eq!(offset(Register(number)), start + 232 + 8 * i32::from(number));
                assert_eq!(offset(Register(32 + number)), start + 616 + 8 * i32::from(number));
            }
            let mut held: Vec<u16> = frame.registers.iter().map(|(register, _)| register.0).collect();
            held.sort_unstable();
            assert_eq!(held, (0..64).chain([65]).collect::<Vec<_>>());
        }
    }
}
