//! Signal trampolines, and the frame that they return from.
//!
//! A handler returns to code that calls `rt_sigreturn` (system call 139): `__kernel_rt_sigreturn`
//! of the vDSO, or the C library's own where it sets `SA_RESTORER`. Debuggers know it by these two
//! instructions, so the kernel keeps them.

use unwind_core::{Base, CfaRule, Code, FpRule, RaRule, Register, SignalFrame, UnwindUserFrame};

use crate::*;

/// `mov x8, #139` and `svc #0`. Code is little-endian whatever data are.
const MOV_X8: &[u8] = &[0x68, 0x11, 0x80, 0xd2];
const SVC: &[u8] = &[0x01, 0x00, 0x00, 0xd4];

/// The signal frame, if `code` is a trampoline: at its first instruction, where the handler
/// returns to, or at its system call. sp is the same at both.
pub(crate) fn trampoline(code: &Code<'_>) -> Option<SignalFrame> {
    let at_mov = code.at.strip_prefix(MOV_X8).is_some_and(|rest| rest.starts_with(SVC));
    let at_svc = code.before.ends_with(MOV_X8) && code.at.starts_with(SVC);
    (at_mov || at_svc).then_some(SignalFrame { frame: FRAME, registers: &REGISTERS })
}

/// Where the frame keeps each register, from sp at the trampoline: `struct rt_sigframe` of Linux
/// `arch/arm64/kernel/signal.c` is a `siginfo` of 128 bytes and a `struct ucontext`
/// (`arch/arm64/include/uapi/asm/ucontext.h`), whose `uc_mcontext` is at 176; in that, a `struct
/// sigcontext` (`arch/arm64/include/uapi/asm/sigcontext.h`), the registers are at 8.
static REGISTERS: [(Register, i32); 33] = [
    (X0, 312),
    (X1, 320),
    (X2, 328),
    (X3, 336),
    (X4, 344),
    (X5, 352),
    (X6, 360),
    (X7, 368),
    (X8, 376),
    (X9, 384),
    (X10, 392),
    (X11, 400),
    (X12, 408),
    (X13, 416),
    (X14, 424),
    (X15, 432),
    (X16, 440),
    (X17, 448),
    (X18, 456),
    (X19, 464),
    (X20, 472),
    (X21, 480),
    (X22, 488),
    (X23, 496),
    (X24, 504),
    (X25, 512),
    (X26, 520),
    (X27, 528),
    (X28, 536),
    (X29, 544),
    (X30, 552),
    (SP, 560),
    (PC, 568),
];

#[allow(clippy::panic, reason = "in a constant: it would fail the build, never a walk")]
const FRAME: UnwindUserFrame = match UnwindUserFrame::new(
    CfaRule::Deref { base: Base::Sp, offset: 560, add: 0 },
    RaRule::AtRegister { base: Base::Sp, offset: 568 },
    FpRule::AtRegister { base: Base::Sp, offset: 544 },
) {
    Some(frame) => frame.signal(),
    None => panic!("the offsets fit into a rule"),
};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::FrameKind;

    use super::*;

    /// As gas writes it; the system call is at 4.
    const FORM: &[u8] = &[0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4];

    fn known(before: &[u8], at: &[u8]) -> bool {
        trampoline(&Code { before, at }).is_some()
    }

    #[test]
    fn it_is_known_at_both_instructions() {
        let nops = [0x1f, 0x20, 0x03, 0xd5].repeat(2);
        let (before, at) = FORM.split_at(4);
        assert!(known(&[], FORM));
        assert!(known(&nops, &[FORM, &nops].concat()));
        assert!(known(before, at));
        assert!(known(&[&nops, before].concat(), &[at, &nops].concat()));
    }

    #[test]
    fn nothing_less_is_known() {
        for cut in 0..FORM.len() {
            assert!(!known(&[], &FORM[..cut]), "cut to {cut}");
            // A pc that is no instruction of it, and one after it.
            if cut != 0 && cut != 4 {
                assert!(!known(&FORM[..cut], &FORM[cut..]), "pc in the middle: {cut}");
            }
        }
        assert!(!known(FORM, &[0; 16]));
        for cut in 1..=4 {
            assert!(!known(&FORM[cut..4], &FORM[4..]), "before cut from {cut}");
        }
        for bit in 0..FORM.len() * 8 {
            let mut other = FORM.to_vec();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!known(&[], &other), "bit {bit}");
            assert!(!known(&other[..4], &other[4..]), "bit {bit}");
        }
    }

    #[test]
    fn the_rule_says_what_the_table_says() {
        let frame = trampoline(&Code { before: &[], at: FORM }).unwrap();
        let offset = |register| frame.registers.iter().find(|(held, _)| *held == register).unwrap().1;
        let rule = frame.frame;
        assert_eq!(rule.kind(), FrameKind::Signal);
        assert_eq!(rule.cfa(), CfaRule::Deref { base: Base::Sp, offset: offset(SP), add: 0 });
        assert_eq!(rule.ra(), RaRule::AtRegister { base: Base::Sp, offset: offset(PC) });
        assert_eq!(rule.fp(), FpRule::AtRegister { base: Base::Sp, offset: offset(X29) });
        // In C: sizeof(siginfo_t) + offsetof(ucontext_t, uc_mcontext.regs[n]).
        for number in 0..31 {
            assert_eq!(offset(Register(number)), 128 + 184 + 8 * i32::from(number));
        }
        assert_eq!((offset(SP), offset(PC)), (128 + 432, 128 + 440));
        let mut numbers: Vec<u16> = frame.registers.iter().map(|(register, _)| register.0).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..33).collect::<Vec<_>>());
    }
}
