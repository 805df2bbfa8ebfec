//! Signal trampolines, and the frames that they return from.
//!
//! A handler returns to one of two: to one that calls `rt_sigreturn` (system call 173), if it was
//! installed with `SA_SIGINFO`, or to one that calls `sigreturn` (119). They are in the vDSO
//! (`__kernel_rt_sigreturn`, `__kernel_sigreturn`) or in the C library, which sets `SA_RESTORER`; all
//! write the same instructions, by which debuggers know them.
//!
//! The vDSO's call frame information (Linux `arch/x86/entry/vdso/vdso32/sigreturn.S`) has the same
//! places, before and after the `pop`. glibc's trampolines have none.

use unwind_core::{Base, CfaRule, Code, FpRule, RaRule, Register, SignalFrame, UnwindUserFrame};

use crate::*;

/// `pop %eax`
const POP_EAX: &[u8] = &[0x58];
/// `mov $119, %eax`
const MOV_SIGRETURN: &[u8] = &[0xb8, 0x77, 0x00, 0x00, 0x00];
/// `mov $173, %eax`
const MOV_RT_SIGRETURN: &[u8] = &[0xb8, 0xad, 0x00, 0x00, 0x00];
/// `int $0x80`
const INT_80: &[u8] = &[0xcd, 0x80];

/// The signal frame, if `code` is a trampoline: at its first instruction, where the handler returns
/// to, or at a later one.
pub(crate) fn trampoline(code: &Code<'_>) -> Option<SignalFrame> {
    let at = |mov: &[u8], code: &[u8]| code.strip_prefix(mov).is_some_and(|rest| rest.starts_with(INT_80));
    let in_or_behind =
        |mov: &[u8]| at(mov, code.at) || (code.before.ends_with(mov) && code.at.starts_with(INT_80));
    if in_or_behind(MOV_RT_SIGRETURN) {
        Some(SignalFrame { frame: RT, registers: &RT_REGISTERS })
    } else if in_or_behind(MOV_SIGRETURN) {
        Some(SignalFrame { frame: POPPED, registers: &POPPED_REGISTERS })
    } else if code.at.strip_prefix(POP_EAX).is_some_and(|rest| at(MOV_SIGRETURN, rest)) {
        Some(SignalFrame { frame: UNPOPPED, registers: &UNPOPPED_REGISTERS })
    } else {
        None
    }
}

/// Where the frames keep their `struct sigcontext_32` (Linux `arch/x86/include/uapi/asm/sigcontext.h`),
/// from sp at the trampoline. They are in `arch/x86/include/asm/sigframe.h`; the handler's `ret` has
/// taken their first word, `pretcode`.
///
/// `struct rt_sigframe_ia32` goes on with 12 bytes of arguments, a `siginfo` of 128 and a `struct
/// ucontext_ia32`, whose `uc_mcontext` is at 20.
const RT_START: i32 = 160;
/// `struct sigframe_ia32` goes on with the signal's number, which the trampoline pops.
const UNPOPPED_START: i32 = 4;
const POPPED_START: i32 = 0;

const RT: UnwindUserFrame = frame(RT_START);
const UNPOPPED: UnwindUserFrame = frame(UNPOPPED_START);
const POPPED: UnwindUserFrame = frame(POPPED_START);

/// sp is at 28 in the context, ip at 56, bp at 24.
#[allow(clippy::panic, reason = "in a constant: it would fail the build, never a walk")]
#[allow(clippy::arithmetic_side_effects, reason = "in a constant")]
const fn frame(start: i32) -> UnwindUserFrame {
    let cfa = CfaRule::Deref { base: Base::Sp, offset: start + 28, add: 0 };
    let ra = RaRule::AtRegister { base: Base::Sp, offset: start + 56 };
    let fp = FpRule::AtRegister { base: Base::Sp, offset: start + 24 };
    match UnwindUserFrame::new(cfa, ra, fp) {
        Some(frame) => frame.signal(),
        None => panic!("the offsets fit into a rule"),
    }
}

static RT_REGISTERS: [(Register, i32); 9] = [
    (EDI, 176),
    (ESI, 180),
    (EBP, 184),
    (ESP, 188),
    (EBX, 192),
    (EDX, 196),
    (ECX, 200),
    (EAX, 204),
    (EIP, 216),
];

static UNPOPPED_REGISTERS: [(Register, i32); 9] =
    [(EDI, 20), (ESI, 24), (EBP, 28), (ESP, 32), (EBX, 36), (EDX, 40), (ECX, 44), (EAX, 48), (EIP, 60)];

static POPPED_REGISTERS: [(Register, i32); 9] =
    [(EDI, 16), (ESI, 20), (EBP, 24), (ESP, 28), (EBX, 32), (EDX, 36), (ECX, 40), (EAX, 44), (EIP, 56)];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::FrameKind;

    use super::*;

    /// Where an instruction begins, and the context from sp there.
    type Instruction = (usize, i32);

    /// As gas writes them, where their instructions begin, and where the context is then: in C,
    /// `offsetof(struct sigframe, sc) - 4`, less the popped word, and `offsetof(struct rt_sigframe,
    /// uc.uc_mcontext) - 4`.
    const FORMS: [(&[u8], &[Instruction]); 2] = [
        (&[0x58, 0xb8, 0x77, 0, 0, 0, 0xcd, 0x80], &[(0, 4), (1, 0), (6, 0)]),
        (&[0xb8, 0xad, 0, 0, 0, 0xcd, 0x80], &[(0, 160), (5, 160)]),
    ];

    fn start(before: &[u8], at: &[u8]) -> Option<i32> {
        let frame = trampoline(&Code { before, at })?;
        let edi = frame.registers.iter().find(|(held, _)| *held == EDI).unwrap().1;
        Some(edi - 16)
    }

    #[test]
    fn both_are_known_at_every_instruction() {
        for (bytes, instructions) in FORMS {
            for (at, context) in instructions {
                let (before, at) = bytes.split_at(*at);
                assert_eq!(start(before, at), Some(*context));
                let (before, at) = ([&[0x90; 9], before].concat(), [at, &[0x90; 14]].concat());
                assert_eq!(start(&before, &at), Some(*context));
            }
        }
    }

    #[test]
    fn nothing_less_is_known() {
        for (bytes, instructions) in FORMS {
            for cut in 0..=bytes.len() {
                if cut != bytes.len() {
                    assert_eq!(start(&[0x90; 16], &bytes[..cut]), None, "cut to {cut}");
                }
                // A pc that is no instruction of it, and one after it.
                if instructions.iter().all(|(at, _)| *at != cut) {
                    let at = [&bytes[cut..], &[0x90; 8]].concat();
                    assert_eq!(start(&bytes[..cut], &at), None, "pc in the middle: {cut}");
                }
            }
            let syscall = bytes.len() - 2;
            for cut in syscall - 4..=syscall {
                assert_eq!(start(&bytes[cut..syscall], &bytes[syscall..]), None, "before cut from {cut}");
            }
            // Any other bit.
            for (pc, _) in instructions {
                for bit in pc * 8..bytes.len() * 8 {
                    let mut other = bytes.to_vec();
                    other[bit / 8] ^= 1 << (bit % 8);
                    assert_eq!(start(&[], &other[*pc..]), None, "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn the_rule_says_what_the_table_says() {
        for (bytes, instructions) in FORMS {
            for (pc, context) in instructions {
                let (before, at) = bytes.split_at(*pc);
                let frame = trampoline(&Code { before, at }).unwrap();
                let held = frame.registers.iter();
                let offset = |register| held.clone().find(|(held, _)| *held == register).unwrap().1;
                let rule = frame.frame;
                assert_eq!(rule.kind(), FrameKind::Signal);
                assert_eq!(rule.cfa(), CfaRule::Deref { base: Base::Sp, offset: offset(ESP), add: 0 });
                assert_eq!(rule.ra(), RaRule::AtRegister { base: Base::Sp, offset: offset(EIP) });
                assert_eq!(rule.fp(), FpRule::AtRegister { base: Base::Sp, offset: offset(EBP) });
                // In C: offsetof(ucontext_t, uc_mcontext.eax) - offsetof(ucontext_t, uc_mcontext) and
                // so on, by DWARF number.
                for (number, known) in (0..).zip([44, 40, 36, 32, 28, 24, 20, 16, 56]) {
                    assert_eq!(offset(Register(number)), context + known, "{number}");
                }
                let mut numbers: Vec<u16> = held.clone().map(|(register, _)| register.0).collect();
                numbers.sort_unstable();
                assert_eq!(numbers, (0..9).collect::<Vec<_>>());
            }
        }
    }
}
