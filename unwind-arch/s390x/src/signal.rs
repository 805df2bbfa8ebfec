//! Signal trampolines, and the frame that they return from.
//!
//! A handler returns to a system call instruction that has its number in itself: `svc 119`
//! (`sigreturn`) or, where the handler asked for `SA_SIGINFO`, `svc 173` (`rt_sigreturn`). It is in the
//! vDSO (`__kernel_sigreturn` and `__kernel_rt_sigreturn`), on the stack with older kernels, or in the
//! C library where that sets `SA_RESTORER` (musl). Nothing else executes these two instructions: the C
//! library's `syscall` uses `svc 0`.
//!
//! The vDSO's own call frame information describes both as ordinary functions without a frame (Linux
//! `arch/s390/kernel/vdso64/vdso_user_wrapper.S`), which they are not. A handler's return address is
//! looked up one byte before, between two functions, so that it does not count; where a thread
//! stopped exactly at the `svc`, it does, and the walk goes astray with the table. An embedder that
//! minds leaves the vDSO's table out.

use unwind_core::{Base, CfaRule, Code, FpRule, RaRule, Register, SignalFrame, UnwindUserFrame};

use crate::*;

/// `svc 119`
const SIGRETURN: &[u8] = &[0x0a, 119];
/// `svc 173`
const RT_SIGRETURN: &[u8] = &[0x0a, 173];

/// The signal frame, if `code` is at a trampoline: a single instruction.
pub(crate) fn trampoline(code: &Code<'_>) -> Option<SignalFrame> {
    if code.at.starts_with(SIGRETURN) {
        Some(SignalFrame { frame: frame(312, 184, 280)?, registers: &IN_SIGFRAME })
    } else if code.at.starts_with(RT_SIGRETURN) {
        Some(SignalFrame { frame: frame(472, 344, 440)?, registers: &IN_RT_SIGFRAME })
    } else {
        None
    }
}

/// From the offsets of r15, of the address of the program status word, and of r11.
fn frame(r15: i32, pswa: i32, r11: i32) -> Option<UnwindUserFrame> {
    let frame = UnwindUserFrame::new(
        CfaRule::Deref { base: Base::Sp, offset: r15, add: 160 },
        RaRule::AtRegister { base: Base::Sp, offset: pswa },
        FpRule::AtRegister { base: Base::Sp, offset: r11 },
    )?;
    Some(frame.signal())
}

/// Where the frame of `sigreturn` keeps each register, from sp at the trampoline: `struct sigframe` of
/// Linux `arch/s390/kernel/signal.c` is a save area of 160 bytes, a `struct sigcontext` of 16 bytes, and
/// the `_sigregs` that this points to (`arch/s390/include/uapi/asm/sigcontext.h`): the program status
/// word, r0 to r15, a0 to a15, the floating point control register and f0 to f15.
static IN_SIGFRAME: [(Register, i32); 34] = [
    (PSWM, 176),
    (PSWA, 184),
    (R0, 192),
    (R1, 200),
    (R2, 208),
    (R3, 216),
    (R4, 224),
    (R5, 232),
    (R6, 240),
    (R7, 248),
    (R8, 256),
    (R9, 264),
    (R10, 272),
    (R11, 280),
    (R12, 288),
    (R13, 296),
    (R14, 304),
    (R15, 312),
    (F0, 392),
    (F1, 400),
    (F2, 408),
    (F3, 416),
    (F4, 424),
    (F5, 432),
    (F6, 440),
    (F7, 448),
    (F8, 456),
    (F9, 464),
    (F10, 472),
    (F11, 480),
    (F12, 488),
    (F13, 496),
    (F14, 504),
    (F15, 512),
];

/// The same for `rt_sigreturn`: `struct rt_sigframe` is a save area of 160 bytes, the `svc` and 6
/// bytes of padding, a `siginfo` of 128, and a `struct ucontext`, whose `uc_mcontext`, the `_sigregs`,
/// is at 40 (`arch/s390/include/uapi/asm/ucontext.h`).
static IN_RT_SIGFRAME: [(Register, i32); 34] = [
    (PSWM, 336),
    (PSWA, 344),
    (R0, 352),
    (R1, 360),
    (R2, 368),
    (R3, 376),
    (R4, 384),
    (R5, 392),
    (R6, 400),
    (R7, 408),
    (R8, 416),
    (R9, 424),
    (R10, 432),
    (R11, 440),
    (R12, 448),
    (R13, 456),
    (R14, 464),
    (R15, 472),
    (F0, 552),
    (F1, 560),
    (F2, 568),
    (F3, 576),
    (F4, 584),
    (F5, 592),
    (F6, 600),
    (F7, 608),
    (F8, 616),
    (F9, 624),
    (F10, 632),
    (F11, 640),
    (F12, 648),
    (F13, 656),
    (F14, 664),
    (F15, 672),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::FrameKind;

    use super::*;

    fn known(before: &[u8], at: &[u8]) -> bool {
        trampoline(&Code { before, at }).is_some()
    }

    #[test]
    fn both_are_known_whatever_surrounds_them() {
        for form in [[0x0a, 0x77], [0x0a, 0xad]] {
            assert!(known(&[], &form));
            assert!(known(&[0x07; 16], &[form[0], form[1], 0, 0, 7, 7]));
        }
    }

    #[test]
    fn nothing_less_is_known() {
        let mut found = 0;
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                let is_known = known(&[], &[first, second, 0, 0]);
                // svc 119 and svc 173 as gas writes them.
                assert_eq!(is_known, matches!((first, second), (0x0a, 0x77 | 0xad)));
                found += u32::from(is_known);
            }
            assert!(!known(&[], &[first]));
            assert!(!known(&[0x0a], &[first]));
        }
        assert!(found == 2 && !known(&[], &[]));
        // Behind them.
        assert!(!known(&[0x0a, 0xad], &[0, 0]));
    }

    #[test]
    fn the_rules_say_what_the_tables_say() {
        // In C, with the kernel's headers: offsets from the frame's beginning of psw.mask, psw.addr,
        // gprs[0], fprs[0]; and the table is complete.
        for (form, mask, address, general, floating) in
            [([0x0a, 0x77], 176, 184, 192, 392), ([0x0a, 0xad], 336, 344, 352, 552)]
        {
            let frame = trampoline(&Code { before: &[], at: &form }).unwrap();
            let offset = |register| frame.registers.iter().find(|(held, _)| *held == register).unwrap().1;
            let rule = frame.frame;
            assert_eq!(rule.kind(), FrameKind::Signal);
            assert_eq!(rule.cfa(), CfaRule::Deref { base: Base::Sp, offset: offset(R15), add: 160 });
            assert_eq!(rule.ra(), RaRule::AtRegister { base: Base::Sp, offset: offset(PSWA) });
            assert_eq!(rule.fp(), FpRule::AtRegister { base: Base::Sp, offset: offset(R11) });
            assert_eq!((offset(PSWM), offset(PSWA)), (mask, address));
            for number in 0..16 {
                assert_eq!(offset(Register(number)), general + 8 * i32::from(number));
            }
            let numbers = [F0, F1, F2, F3, F4, F5, F6, F7, F8, F9, F10, F11, F12, F13, F14, F15];
            for (register, index) in numbers.into_iter().zip(0..) {
                assert_eq!(offset(register), floating + 8 * index);
            }
            let mut held: Vec<u16> = frame.registers.iter().map(|(register, _)| register.0).collect();
            held.sort_unstable();
            assert_eq!(held, (0..32).chain([64, 65]).collect::<Vec<_>>());
        }
    }
}
