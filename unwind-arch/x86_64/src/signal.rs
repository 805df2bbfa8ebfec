//! Signal trampolines, and the frame that they return from.
//!
//! A handler returns to code that calls `rt_sigreturn` (system call 15). On x86-64 that code is
//! always the C library's (`SA_RESTORER`); glibc, musl, bionic and Go all write it as one of the two
//! forms below, and nothing else loads 15 right before a system call.

use unwind_core::{Base, CfaRule, Code, FpRule, RaRule, Register, SignalFrame, UnwindUserFrame};

use crate::{R8, R9, R10, R11, R12, R13, R14, R15, RAX, RBP, RBX, RCX, RDI, RDX, RIP, RSI, RSP};

/// `mov $15, %rax`
const MOV_RAX: &[u8] = &[0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00];
/// `mov $15, %eax`
const MOV_EAX: &[u8] = &[0xb8, 0x0f, 0x00, 0x00, 0x00];
/// `syscall`
const SYSCALL: &[u8] = &[0x0f, 0x05];

/// The signal frame, if `code` is a trampoline: at its first instruction, where the handler
/// returns to, or at its system call. sp is the same at both.
pub(crate) fn trampoline(code: &Code<'_>) -> Option<SignalFrame> {
    let found = [MOV_RAX, MOV_EAX].into_iter().any(|mov| {
        let at_mov = code.at.strip_prefix(mov).is_some_and(|rest| rest.starts_with(SYSCALL));
        at_mov || (code.before.ends_with(mov) && code.at.starts_with(SYSCALL))
    });
    found.then_some(SignalFrame { frame: FRAME, registers: &UCONTEXT })
}

/// Where the kernel's `struct ucontext` keeps each register: `uc_mcontext`, a `struct
/// sigcontext_64`, is at 40. Linux `include/uapi/asm-generic/ucontext.h` and
/// `arch/x86/include/uapi/asm/sigcontext.h`.
///
/// The same offsets hold from sp at the trampoline: the frame is `struct rt_sigframe` of
/// `arch/x86/include/asm/sigframe.h`, and the handler's `ret` has taken its first word,
/// `pretcode`, so that sp points at the next, the `ucontext`.
pub(crate) static UCONTEXT: [(Register, i32); 17] = [
    (R8, 40),
    (R9, 48),
    (R10, 56),
    (R11, 64),
    (R12, 72),
    (R13, 80),
    (R14, 88),
    (R15, 96),
    (RDI, 104),
    (RSI, 112),
    (RBP, 120),
    (RBX, 128),
    (RDX, 136),
    (RAX, 144),
    (RCX, 152),
    (RSP, 160),
    (RIP, 168),
];

#[allow(clippy::panic, reason = "in a constant: it would fail the build, never a walk")]
const FRAME: UnwindUserFrame = match UnwindUserFrame::new(
    CfaRule::Deref { base: Base::Sp, offset: 160, add: 0 },
    RaRule::AtRegister { base: Base::Sp, offset: 168 },
    FpRule::AtRegister { base: Base::Sp, offset: 120 },
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

    /// Both forms, as gas writes them; the offset is that of the system call.
    const FORMS: [(&[u8], usize); 2] =
        [(&[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05], 7), (&[0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05], 5)];

    fn known(before: &[u8], at: &[u8]) -> bool {
        trampoline(&Code { before, at }).is_some()
    }

    #[test]
    fn both_forms_are_known_at_both_instructions() {
        for (bytes, syscall) in FORMS {
            let (before, at) = bytes.split_at(syscall);
            assert!(known(&[], bytes));
            assert!(known(&[0xcc; 16], &[bytes, &[0xcc; 7]].concat()));
            assert!(known(before, at));
            assert!(known(&[&[0x90; 9], before].concat(), &[at, &[0x90; 14]].concat()));
        }
    }

    #[test]
    fn nothing_less_is_known() {
        for (bytes, syscall) in FORMS {
            for cut in 0..bytes.len() {
                assert!(!known(&[0x90; 16], &bytes[..cut]), "cut to {cut}");
                // A pc that is no instruction of it, and one after it.
                if cut != 0 && cut != syscall {
                    assert!(!known(&bytes[..cut], &bytes[cut..]), "pc in the middle: {cut}");
                }
            }
            assert!(!known(bytes, &[0x90; 16]));
            for cut in 1..=syscall {
                assert!(!known(&bytes[cut..syscall], &bytes[syscall..]), "before cut from {cut}");
            }
            // Any other bit.
            for bit in 0..bytes.len() * 8 {
                let mut other = bytes.to_vec();
                other[bit / 8] ^= 1 << (bit % 8);
                let same = FORMS.iter().any(|(form, _)| other.starts_with(form));
                assert_eq!(known(&[], &other), same, "bit {bit}");
            }
        }
    }

    #[test]
    fn the_rule_says_what_the_table_says() {
        let frame = trampoline(&Code { before: &[], at: FORMS[0].0 }).unwrap();
        let offset = |register| frame.registers.iter().find(|(held, _)| *held == register).unwrap().1;
        let rule = frame.frame;
        assert_eq!(rule.kind(), FrameKind::Signal);
        assert_eq!(rule.cfa(), CfaRule::Deref { base: Base::Sp, offset: offset(RSP), add: 0 });
        assert_eq!(rule.ra(), RaRule::AtRegister { base: Base::Sp, offset: offset(RIP) });
        assert_eq!(rule.fp(), FpRule::AtRegister { base: Base::Sp, offset: offset(RBP) });
        let mut numbers: Vec<u16> = frame.registers.iter().map(|(register, _)| register.0).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..17).collect::<Vec<_>>());
    }
}
