//! Signal trampolines, and the frame that they return from.
//!
//! A handler returns to code that calls `rt_sigreturn` (system call 139): `__vdso_rt_sigreturn` of the
//! vDSO, or, on machines without a memory management unit, a copy in the frame. Debuggers know it by
//! these two instructions, so the kernel keeps them.
//!
//! The vDSO's call frame information (Linux `arch/riscv/kernel/vdso/rt_sigreturn.S`) marks it as a signal
//! frame, but has no rule for any register: by it, sp is the interrupted one and ra the interrupted pc.
//! A handler's return address is looked up one byte before, between two functions, so that it does not
//! count; where a thread stopped exactly at the trampoline, it does, and the walk goes astray with the
//! table. An embedder that minds leaves the vDSO's table out.

use unwind_core::{Base, CfaRule, Code, FpRule, RaRule, Register, SignalFrame, UnwindUserFrame, WordSize};

use crate::*;

/// `li a7, 139` and `ecall`. Code is little-endian.
const LI_A7: &[u8] = &[0x93, 0x08, 0xb0, 0x08];
const ECALL: &[u8] = &[0x73, 0x00, 0x00, 0x00];

/// The signal frame, if `code` is a trampoline: at its first instruction, where the handler
/// returns to, or at its system call. sp is the same at both.
pub(crate) fn trampoline(word: WordSize, code: &Code<'_>) -> Option<SignalFrame> {
    let at_li = code.at.strip_prefix(LI_A7).is_some_and(|rest| rest.starts_with(ECALL));
    let at_ecall = code.before.ends_with(LI_A7) && code.at.starts_with(ECALL);
    (at_li || at_ecall).then_some(match word {
        WordSize::Four => SignalFrame { frame: FRAME_32, registers: &REGISTERS_32 },
        WordSize::Eight => SignalFrame { frame: FRAME_64, registers: &REGISTERS_64 },
    })
}

const FRAME_32: UnwindUserFrame = frame(RT_32, 4);
const FRAME_64: UnwindUserFrame = frame(RT_64, 8);

/// Where the registers of the frame begin, from sp at the trampoline: `struct rt_sigframe` of Linux
/// `arch/riscv/kernel/signal.c` is a `siginfo` of 128 bytes and a `struct ucontext`
/// (`arch/riscv/include/uapi/asm/ucontext.h`), whose `uc_mcontext` (`struct sigcontext` of
/// `arch/riscv/include/uapi/asm/sigcontext.h`, aligned to 16) is at 160 where words have 32 bits, at
/// 176 where they have 64. It begins with `struct user_regs_struct`: the pc, then x1 to x31.
const RT_32: i32 = 128 + 160;
const RT_64: i32 = 128 + 176;

/// The pc is the return address: the interrupted instruction, of which no register of a walk is the
/// number.
#[allow(clippy::panic, reason = "in a constant: it would fail the build, never a walk")]
#[allow(clippy::arithmetic_side_effects, reason = "in a constant")]
const fn frame(start: i32, word: i32) -> UnwindUserFrame {
    let cfa = CfaRule::Deref { base: Base::Sp, offset: start + 2 * word, add: 0 };
    let ra = RaRule::AtRegister { base: Base::Sp, offset: start };
    let fp = FpRule::AtRegister { base: Base::Sp, offset: start + 8 * word };
    match UnwindUserFrame::new(cfa, ra, fp) {
        Some(frame) => frame.signal(),
        None => panic!("the offsets fit into a rule"),
    }
}

static REGISTERS_32: [(Register, i32); 31] = [
    (RA, 292),
    (SP, 296),
    (GP, 300),
    (TP, 304),
    (T0, 308),
    (T1, 312),
    (T2, 316),
    (S0, 320),
    (S1, 324),
    (A0, 328),
    (A1, 332),
    (A2, 336),
    (A3, 340),
    (A4, 344),
    (A5, 348),
    (A6, 352),
    (A7, 356),
    (S2, 360),
    (S3, 364),
    (S4, 368),
    (S5, 372),
    (S6, 376),
    (S7, 380),
    (S8, 384),
    (S9, 388),
    (S10, 392),
    (S11, 396),
    (T3, 400),
    (T4, 404),
    (T5, 408),
    (T6, 412),
];

static REGISTERS_64: [(Register, i32); 31] = [
    (RA, 312),
    (SP, 320),
    (GP, 328),
    (TP, 336),
    (T0, 344),
    (T1, 352),
    (T2, 360),
    (S0, 368),
    (S1, 376),
    (A0, 384),
    (A1, 392),
    (A2, 400),
    (A3, 408),
    (A4, 416),
    (A5, 424),
    (A6, 432),
    (A7, 440),
    (S2, 448),
    (S3, 456),
    (S4, 464),
    (S5, 472),
    (S6, 480),
    (S7, 488),
    (S8, 496),
    (S9, 504),
    (S10, 512),
    (S11, 520),
    (T3, 528),
    (T4, 536),
    (T5, 544),
    (T6, 552),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::FrameKind;

    use super::*;

    /// As gas writes it; the system call is at 4.
    const FORM: &[u8] = &[0x93, 0x08, 0xb0, 0x08, 0x73, 0x00, 0x00, 0x00];

    const BOTH: [WordSize; 2] = [WordSize::Four, WordSize::Eight];

    fn known(before: &[u8], at: &[u8]) -> bool {
        let known = BOTH.map(|word| trampoline(word, &Code { before, at }).is_some());
        assert_eq!(known[0], known[1]);
        known[0]
    }

    #[test]
    fn it_is_known_at_both_instructions() {
        let nops = [0x13, 0x00, 0x00, 0x00].repeat(2);
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
        // In C: sizeof(siginfo_t) + offsetof(ucontext_t, uc_mcontext), and offsetof(struct
        // user_regs_struct, …) of sp, s0, a0 and t6.
        let offsets = [(128 + 160, [8, 32, 40, 124]), (128 + 176, [16, 64, 80, 248])];
        for (word, (start, known)) in BOTH.into_iter().zip(offsets) {
            let frame = trampoline(word, &Code { before: &[], at: FORM }).unwrap();
            let offset = |register| frame.registers.iter().find(|(held, _)| *held == register).unwrap().1;
            let rule = frame.frame;
            assert_eq!(rule.kind(), FrameKind::Signal);
            assert_eq!(rule.cfa(), CfaRule::Deref { base: Base::Sp, offset: offset(SP), add: 0 });
            assert_eq!(rule.ra(), RaRule::AtRegister { base: Base::Sp, offset: start });
            assert_eq!(rule.fp(), FpRule::AtRegister { base: Base::Sp, offset: offset(S0) });
            for (register, known) in [SP, S0, A0, T6].into_iter().zip(known) {
                assert_eq!(offset(register), start + known, "{register:?}");
            }
            for number in 1..32 {
                let size = if word == WordSize::Four { 4 } else { 8 };
                assert_eq!(offset(Register(number)), start + size * i32::from(number));
            }
            let numbers: Vec<u16> = frame.registers.iter().map(|(register, _)| register.0).collect();
            assert_eq!(numbers, (1..32).collect::<Vec<_>>());
        }
    }
}
