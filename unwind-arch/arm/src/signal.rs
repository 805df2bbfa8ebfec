//! Signal trampolines, and the frames that they return from.
//!
//! A handler returns to one of two: to one that calls `rt_sigreturn` (system call 173), if it was
//! installed with `SA_SIGINFO`, or to one that calls `sigreturn` (119). Linux keeps four of them in a
//! page of its own (`arch/arm/kernel/sigreturn_codes.S`), for A32 and for T32 code, each for both ways to
//! state a system call: in r7 (EABI), and in the instruction (OABI). C libraries have their own, in r7.
//! The tables of the Arm ABI cannot describe any of them.

use unwind_core::{Base, ByteOrder, CfaRule, Code, FpRule, RaRule, Register, SignalFrame, UnwindUserFrame};

use crate::*;

const SIGRETURN: u8 = 119;
const RT_SIGRETURN: u8 = 173;

/// The signal frame, if `code` is a trampoline: at its first instruction, where the handler
/// returns to, or at its system call. sp is the same at both.
pub(crate) fn trampoline(arch: &Arm, code: &Code<'_>) -> Option<SignalFrame> {
    let registers = |call| match call {
        SIGRETURN => &PLAIN_REGISTERS,
        _ => &RT_REGISTERS,
    };
    // What is one in either order is nothing else in the other.
    let orders: &[ByteOrder] = match arch.byte_order() {
        ByteOrder::Little => &[ByteOrder::Little],
        ByteOrder::Big => &[ByteOrder::Little, ByteOrder::Big],
    };
    orders.iter().find_map(|order| {
        let call = [SIGRETURN, RT_SIGRETURN]
            .into_iter()
            .find(|call| is_a32(*order, code, *call) || is_t32(*order, code, *call))?;
        let start = match call {
            SIGRETURN => PLAIN_START,
            _ => RT_START,
        };
        Some(SignalFrame { frame: frame(start, arch.fp())?, registers: registers(call) })
    })
}

/// Whether A32 code makes this system call: `mov r7, #n` and `svc 0`, or `svc 0x900000 + n`, which the
/// kernel writes behind the `mov` too.
fn is_a32(order: ByteOrder, code: &Code<'_>, call: u8) -> bool {
    const SVC: u32 = 0xef00_0000;
    let mov = 0xe3a0_7000 | u32::from(call);
    let oabi = 0xef90_0000 | u32::from(call);
    let (_, before) = code.before.as_rchunks::<4>();
    let last = before.last().and_then(|last| word(order, last, 0));
    match (word(order, code.at, 0), word(order, code.at, 1)) {
        (Some(first), _) if first == oabi => true,
        (Some(SVC), _) => last == Some(mov),
        (Some(first), Some(second)) => first == mov && (second == SVC || second == oabi),
        _ => false,
    }
}

/// Whether T32 code makes this system call: `movs r7, #n` or `mov.w r7, #n`, and `svc 0`.
fn is_t32(order: ByteOrder, code: &Code<'_>, call: u8) -> bool {
    const SVC: u16 = 0xdf00;
    const MOV_W: u16 = 0xf04f;
    let movs = 0x2700 | u16::from(call);
    let mov_w = 0x0700 | u16::from(call);
    let at = |index| half(order, code.at, index);
    let (_, before) = code.before.as_rchunks::<2>();
    let before = |back: usize| half(order, before.get(before.len().checked_sub(back)?)?, 0);
    match (at(0), at(1), at(2)) {
        (Some(SVC), ..) => before(1) == Some(movs) || (before(2), before(1)) == (Some(MOV_W), Some(mov_w)),
        (Some(first), Some(SVC), _) => first == movs,
        (Some(MOV_W), Some(second), Some(SVC)) => second == mov_w,
        _ => false,
    }
}

/// Where the frames keep r0 to r15, from sp at the trampoline. `struct sigframe` of Linux
/// `arch/arm/include/asm/signal.h` (2.6.18 and later) begins with a `struct ucontext`
/// (`arch/arm/include/asm/ucontext.h`), whose `uc_mcontext` is at 20; in that, a `struct sigcontext`
/// (`arch/arm/include/uapi/asm/sigcontext.h`), the registers are at 12.
const PLAIN_START: i32 = 32;
/// `struct rt_sigframe` has a `siginfo` of 128 bytes before it.
const RT_START: i32 = 160;

/// The rule, for a frame that has r0 at `start`.
fn frame(start: i32, fp: Register) -> Option<UnwindUserFrame> {
    let offset = |register: Register| start.checked_add(i32::from(register.0).checked_mul(4)?);
    let cfa = CfaRule::Deref { base: Base::Sp, offset: offset(SP)?, add: 0 };
    let ra = RaRule::AtRegister { base: Base::Sp, offset: offset(PC)? };
    let fp = FpRule::AtRegister { base: Base::Sp, offset: offset(fp)? };
    Some(UnwindUserFrame::new(cfa, ra, fp)?.signal())
}

static PLAIN_REGISTERS: [(Register, i32); 16] = [
    (R0, 32),
    (R1, 36),
    (R2, 40),
    (R3, 44),
    (R4, 48),
    (R5, 52),
    (R6, 56),
    (R7, 60),
    (R8, 64),
    (R9, 68),
    (R10, 72),
    (R11, 76),
    (R12, 80),
    (SP, 84),
    (LR, 88),
    (PC, 92),
];

static RT_REGISTERS: [(Register, i32); 16] = [
    (R0, 160),
    (R1, 164),
    (R2, 168),
    (R3, 172),
    (R4, 176),
    (R5, 180),
    (R6, 184),
    (R7, 188),
    (R8, 192),
    (R9, 196),
    (R10, 200),
    (R11, 204),
    (R12, 208),
    (SP, 212),
    (LR, 216),
    (PC, 220),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::FrameKind;

    use super::*;

    /// A trampoline: its units of 4 or 2 bytes as gas writes them, the units where its instructions
    /// begin, and where r0 is from sp: in C, `offsetof(struct sigframe, uc.uc_mcontext.arm_r0)` and the
    /// same of `struct rt_sigframe`.
    struct Form {
        units: &'static [u32],
        size: usize,
        instructions: &'static [usize],
        start: i32,
    }

    const FORMS: [Form; 10] = [
        // mov r7, #119; svc 0
        Form { units: &[0xe3a0_7077, 0xef00_0000], size: 4, instructions: &[0, 1], start: 32 },
        // mov r7, #119; svc 0x900077
        Form { units: &[0xe3a0_7077, 0xef90_0077], size: 4, instructions: &[0, 1], start: 32 },
        // svc 0x900077
        Form { units: &[0xef90_0077], size: 4, instructions: &[0], start: 32 },
        // movs r7, #119; svc 0
        Form { units: &[0x2777, 0xdf00], size: 2, instructions: &[0, 1], start: 32 },
        // mov.w r7, #119; svc 0, as glibc has it
        Form { units: &[0xf04f, 0x0777, 0xdf00], size: 2, instructions: &[0, 2], start: 32 },
        // The same with 173.
        Form { units: &[0xe3a0_70ad, 0xef00_0000], size: 4, instructions: &[0, 1], start: 160 },
        Form { units: &[0xe3a0_70ad, 0xef90_00ad], size: 4, instructions: &[0, 1], start: 160 },
        Form { units: &[0xef90_00ad], size: 4, instructions: &[0], start: 160 },
        Form { units: &[0x27ad, 0xdf00], size: 2, instructions: &[0, 1], start: 160 },
        Form { units: &[0xf04f, 0x07ad, 0xdf00], size: 2, instructions: &[0, 2], start: 160 },
    ];

    /// Its bytes, and the offset of each instruction.
    fn laid_out(form: &Form, order: ByteOrder) -> (Vec<u8>, Vec<usize>) {
        let bytes = form.units.iter().flat_map(|unit| match order {
            ByteOrder::Little => unit.to_le_bytes()[..form.size].to_vec(),
            ByteOrder::Big => unit.to_be_bytes()[4 - form.size..].to_vec(),
        });
        (bytes.collect(), form.instructions.iter().map(|unit| unit * form.size).collect())
    }

    fn start(arch: Arm, before: &[u8], at: &[u8]) -> Option<i32> {
        Some(trampoline(&arch, &Code { before, at })?.registers[0].1)
    }

    #[test]
    fn all_are_known_at_every_instruction_in_every_order() {
        for form in FORMS {
            for order in [ByteOrder::Little, ByteOrder::Big] {
                let (bytes, instructions) = laid_out(&form, order);
                for pc in instructions {
                    let (before, at) = bytes.split_at(pc);
                    assert_eq!(start(Arm::big_endian(), before, at), Some(form.start));
                    // Code of little-endian programs is little-endian.
                    let expected = (order == ByteOrder::Little).then_some(form.start);
                    assert_eq!(start(Arm::new(), before, at), expected);
                    let (before, at) = ([&[0xaa; 8], before].concat(), [at, &[0xaa; 8]].concat());
                    assert_eq!(start(Arm::big_endian(), &before, &at), Some(form.start));
                }
            }
        }
    }

    #[test]
    fn nothing_less_is_known() {
        for form in FORMS {
            for order in [ByteOrder::Little, ByteOrder::Big] {
                let (bytes, instructions) = laid_out(&form, order);
                let known = |before: &[u8], at: &[u8]| start(Arm::big_endian(), before, at);
                for cut in 0..=bytes.len() {
                    if cut != bytes.len() {
                        assert_eq!(known(&[], &bytes[..cut]), None, "cut to {cut}");
                    }
                    // A pc that is no instruction of it, and one after it.
                    if !instructions.contains(&cut) {
                        let at = [&bytes[cut..], &[0; 8]].concat();
                        assert_eq!(known(&bytes[..cut], &at), None, "pc in the middle: {cut}");
                    }
                }
                // Any other bit.
                for bit in 0..bytes.len() * 8 {
                    let mut other = bytes.clone();
                    other[bit / 8] ^= 1 << (bit % 8);
                    assert_eq!(known(&[], &other), None, "bit {bit}");
                }
                // Without the number, `svc 0` may be any call.
                if form.units.len() > 1 && form.units.last().is_some_and(|last| last & 0xff == 0) {
                    let pc = *instructions.last().unwrap();
                    for cut in 1..=pc {
                        assert_eq!(known(&bytes[cut..pc], &bytes[pc..]), None, "before cut from {cut}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_rule_says_what_the_table_says() {
        for form in FORMS {
            let (bytes, _) = laid_out(&form, ByteOrder::Little);
            for kind in [FramePointer::GccA32, FramePointer::RecordR7] {
                let arch = Arm::new().with_frame_pointer(kind);
                let frame = trampoline(&arch, &Code { before: &[], at: &bytes }).unwrap();
                let held = frame.registers.iter();
                let offset = |register| held.clone().find(|(held, _)| *held == register).unwrap().1;
                let rule = frame.frame;
                assert_eq!(rule.kind(), FrameKind::Signal);
                assert_eq!(rule.cfa(), CfaRule::Deref { base: Base::Sp, offset: offset(SP), add: 0 });
                assert_eq!(rule.ra(), RaRule::AtRegister { base: Base::Sp, offset: offset(PC) });
                assert_eq!(rule.fp(), FpRule::AtRegister { base: Base::Sp, offset: offset(arch.fp()) });
                for number in 0..16 {
                    assert_eq!(offset(Register(number)), form.start + 4 * i32::from(number));
                }
                assert_eq!(frame.registers.len(), 16);
            }
        }
    }
}
