//! Signal trampolines, and the frame that they return from.
//!
//! A handler returns to code that calls `rt_sigreturn` (system call 139): `__vdso_rt_sigreturn`, which is
//! the only one, for the kernel does not heed `SA_RESTORER`. Debuggers know it by these two instructions,
//! so the kernel keeps them.
//!
//! The vDSO's call frame information (Linux `arch/loongarch/include/asm/linkage.h`, `SYM_SIGFUNC_START`,
//! from 7.1 on) says the same, with the pc in column 0. Before, it said that the return address is still
//! in ra: not for a handler's return address, which is looked up one byte before, but where a thread
//! stopped exactly at the trampoline, the walk goes astray with the table.

use unwind_core::{Base, CfaRule, Code, FpRule, RaRule, Register, SignalFrame, UnwindUserFrame};

use crate::*;

/// `ori a7, zero, 139` and `syscall 0`.
const ORI_A7: &[u8] = &[0x0b, 0x2c, 0x82, 0x03];
const SYSCALL: &[u8] = &[0x00, 0x00, 0x2b, 0x00];

/// The signal frame, if `code` is a trampoline: at its first instruction, where the handler
/// returns to, or at its system call. sp is the same at both.
pub(crate) fn trampoline(code: &Code<'_>) -> Option<SignalFrame> {
    let at_ori = code.at.strip_prefix(ORI_A7).is_some_and(|rest| rest.starts_with(SYSCALL));
    let at_syscall = code.before.ends_with(ORI_A7) && code.at.starts_with(SYSCALL);
    (at_ori || at_syscall).then_some(SignalFrame { frame: FRAME, registers: &REGISTERS })
}

/// Where the frame keeps each register, from sp at the trampoline: `struct rt_sigframe` of Linux
/// `arch/loongarch/kernel/signal.c` is a `siginfo` of 128 bytes and a `struct ucontext`
/// (`arch/loongarch/include/uapi/asm/ucontext.h`), whose `uc_mcontext`, a `struct sigcontext`
/// (`arch/loongarch/include/uapi/asm/sigcontext.h`), is at 176: in that, the pc is at 0, r0 to r31 are
/// at 8. Floating point registers follow in records of different kinds.
static REGISTERS: [(Register, i32); 32] = [
    (R0, 312),
    (RA, 320),
    (R2, 328),
    (SP, 336),
    (R4, 344),
    (R5, 352),
    (R6, 360),
    (R7, 368),
    (R8, 376),
    (R9, 384),
    (R10, 392),
    (R11, 400),
    (R12, 408),
    (R13, 416),
    (R14, 424),
    (R15, 432),
    (R16, 440),
    (R17, 448),
    (R18, 456),
    (R19, 464),
    (R20, 472),
    (R21, 480),
    (FP, 488),
    (R23, 496),
    (R24, 504),
    (R25, 512),
    (R26, 520),
    (R27, 528),
    (R28, 536),
    (R29, 544),
    (R30, 552),
    (R31, 560),
];

#[allow(clippy::panic, reason = "in a constant: it would fail the build, never a walk")]
const FRAME: UnwindUserFrame = match UnwindUserFrame::new(
    CfaRule::Deref { base: Base::Sp, offset: 336, add: 0 },
    RaRule::AtRegister { base: Base::Sp, offset: 304 },
    FpRule::AtRegister { base: Base::Sp, offset: 488 },
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
    const FORM: &[u8] = &[0x0b, 0x2c, 0x82, 0x03, 0x00, 0x00, 0x2b, 0x00];

    fn known(before: &[u8], at: &[u8]) -> bool {
        trampoline(&Code { before, at }).is_some()
    }

    #[test]
    fn it_is_known_at_both_instructions() {
        let nops = [0x00, 0x00, 0x40, 0x03].repeat(2);
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
        assert_eq!(rule.fp(), FpRule::AtRegister { base: Base::Sp, offset: offset(FP) });
        // In C: sizeof(siginfo_t) + offsetof(ucontext_t, uc_mcontext.__pc), and of __gregs[n].
        assert_eq!(rule.ra(), RaRule::AtRegister { base: Base::Sp, offset: 128 + 176 });
        for number in 0..32 {
            assert_eq!(offset(Register(number)), 128 + 184 + 8 * i32::from(number));
        }
        let mut numbers: Vec<u16> = frame.registers.iter().map(|(register, _)| register.0).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..32).collect::<Vec<_>>());
    }
}
