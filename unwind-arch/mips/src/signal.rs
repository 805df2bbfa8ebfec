//! Signal trampolines, and the frames that they return from.
//!
//! A handler returns to the vDSO or to the C library's own: under o32 to one that calls `rt_sigreturn`
//! (system call 4193), if it was installed with `SA_SIGINFO`, or else to one that calls `sigreturn`
//! (4119); under n32 and n64 always to one that calls `rt_sigreturn` (6211 and 5211).
//! None has call frame information in memory: the vDSO's is in `.debug_frame`.

use unwind_core::{Base, ByteOrder, CfaRule, Code, FpRule, RaRule, Register, SignalFrame, UnwindUserFrame};

use crate::*;

/// The signal frame, if `code` is a trampoline: at its first instruction, where the handler
/// returns to, or at its system call. sp is the same at both.
pub(crate) fn trampoline(arch: &Mips, code: &Code<'_>) -> Option<SignalFrame> {
    let calls = |number| is_call(arch.byte_order(), code, number);
    match (arch.abi(), arch.byte_order()) {
        (Abi::O32, ByteOrder::Little) if calls(4119) => Some(O32_LITTLE),
        (Abi::O32, ByteOrder::Little) if calls(4193) => Some(O32_RT_LITTLE),
        (Abi::O32, ByteOrder::Big) if calls(4119) => Some(O32_BIG),
        (Abi::O32, ByteOrder::Big) if calls(4193) => Some(O32_RT_BIG),
        (Abi::N32, ByteOrder::Little) if calls(6211) => Some(N32_LITTLE),
        (Abi::N32, ByteOrder::Big) if calls(6211) => Some(N32_BIG),
        (Abi::N64, _) if calls(5211) => Some(N64),
        _ => None,
    }
}

/// Whether the code makes this system call: `li $2, n` and `syscall`, or the two in microMIPS, as a
/// kernel has them that is built so.
fn is_call(order: ByteOrder, code: &Code<'_>, number: u16) -> bool {
    /// `addiu $2, $0, n`; the words of microMIPS are two halves, the first the upper one in either order.
    const LI: [u16; 2] = [0x2402, 0x3040];
    const SYSCALL: [[u16; 2]; 2] = [[0x0000, 0x000c], [0x0000, 0x8b7c]];
    let word = |micro: bool, [upper, lower]: [u16; 2]| {
        let ([a, b], [c, d]) = (upper.to_be_bytes(), lower.to_be_bytes());
        match (order, micro) {
            (ByteOrder::Big, _) => [a, b, c, d],
            (ByteOrder::Little, false) => [d, c, b, a],
            (ByteOrder::Little, true) => [b, a, d, c],
        }
    };
    LI.into_iter().zip(SYSCALL).zip([false, true]).any(|((li, syscall), micro)| {
        let (li, syscall) = (word(micro, [li, number]), word(micro, syscall));
        let at_li = code.at.strip_prefix(&li).is_some_and(|rest| rest.starts_with(&syscall));
        at_li || (code.before.ends_with(&li) && code.at.starts_with(&syscall))
    })
}

/// Where the frames keep the registers, from sp at the trampoline. They are in Linux
/// `arch/mips/kernel/signal.c`, `signal_o32.c` and `signal_n32.c`; each begins with 24 bytes for
/// arguments. `struct sigframe` (o32) goes on with a `struct sigcontext`; `struct rt_sigframe` with a
/// `siginfo` of 128 bytes and a `struct ucontext`, whose `uc_mcontext` is at 24, under n64 at 40.
///
/// `struct sigcontext` (`arch/mips/include/uapi/asm/sigcontext.h`) has, under o32, the pc at 8 and the
/// registers at 16, in slots of 64 bits, of which the lower half counts; under n32 and n64 the
/// registers at 0 and the pc at 576.
const O32_CONTEXT: i32 = 24;
const O32_RT_CONTEXT: i32 = 24 + 128 + 24;
const N32_CONTEXT: i32 = 24 + 128 + 24;
const N64_CONTEXT: i32 = 24 + 128 + 40;
/// The lower half of a slot, in big-endian order.
const LOWER: i32 = 4;

const O32_LITTLE: SignalFrame = frame(O32_CONTEXT + 16, O32_CONTEXT + 8, 0, &O32_LITTLE_REGISTERS);
const O32_BIG: SignalFrame = frame(O32_CONTEXT + 16 + LOWER, O32_CONTEXT + 8 + LOWER, 0, &O32_BIG_REGISTERS);
const O32_RT_LITTLE: SignalFrame =
    frame(O32_RT_CONTEXT + 16, O32_RT_CONTEXT + 8, 0, &O32_RT_LITTLE_REGISTERS);
const O32_RT_BIG: SignalFrame =
    frame(O32_RT_CONTEXT + 16 + LOWER, O32_RT_CONTEXT + 8 + LOWER, 0, &O32_RT_BIG_REGISTERS);
const N32_LITTLE: SignalFrame = frame(N32_CONTEXT, N32_CONTEXT + 576, 0, &N32_REGISTERS);
const N32_BIG: SignalFrame = frame(N32_CONTEXT, N32_CONTEXT + 576, LOWER, &N32_REGISTERS);
const N64: SignalFrame = frame(N64_CONTEXT, N64_CONTEXT + 576, 0, &N64_REGISTERS);

static O32_LITTLE_REGISTERS: [(Register, i32); 29] = places!(O32_CONTEXT + 16, 8);
static O32_BIG_REGISTERS: [(Register, i32); 29] = places!(O32_CONTEXT + 16 + LOWER, 8);
static O32_RT_LITTLE_REGISTERS: [(Register, i32); 29] = places!(O32_RT_CONTEXT + 16, 8);
static O32_RT_BIG_REGISTERS: [(Register, i32); 29] = places!(O32_RT_CONTEXT + 16 + LOWER, 8);
static N32_REGISTERS: [(Register, i32); 29] = places!(N32_CONTEXT, 8);
static N64_REGISTERS: [(Register, i32); 29] = places!(N64_CONTEXT, 8);

/// The frame that has $0 and the pc at these places. A dereferenced CFA is an address, the others are
/// registers: where these are wider, `address` is where an address is in one.
#[allow(clippy::panic, reason = "in a constant: it would fail the build, never a walk")]
#[allow(clippy::arithmetic_side_effects, reason = "in a constant")]
const fn frame(start: i32, pc: i32, address: i32, registers: &'static [(Register, i32)]) -> SignalFrame {
    let cfa = CfaRule::Deref { base: Base::Sp, offset: start + 29 * 8 + address, add: 0 };
    let ra = RaRule::AtRegister { base: Base::Sp, offset: pc };
    let fp = FpRule::AtRegister { base: Base::Sp, offset: start + 30 * 8 };
    match UnwindUserFrame::new(cfa, ra, fp) {
        Some(frame) => SignalFrame { frame: frame.signal(), registers },
        None => panic!("the offsets fit into a rule"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::{FrameKind, MemoryError, Pc, RegisterFile, Unwinder};

    use super::*;

    /// A trampoline: its ABI, its instructions as gas writes them for big-endian targets, those of
    /// microMIPS after them, and where $0 and the pc are from sp: in C, `offsetof(struct rt_sigframe,
    /// rs_uc.uc_mcontext.sc_regs)`, `offsetof(struct sigframe, sf_sc.sc_pc)` and so on.
    type Form = (Abi, [[u8; 8]; 2], i32, i32);

    const FORMS: [Form; 4] = [
        (
            Abi::O32,
            [[0x24, 0x02, 0x10, 0x17, 0, 0, 0, 0x0c], [0x30, 0x40, 0x10, 0x17, 0, 0, 0x8b, 0x7c]],
            40,
            32,
        ),
        (
            Abi::O32,
            [[0x24, 0x02, 0x10, 0x61, 0, 0, 0, 0x0c], [0x30, 0x40, 0x10, 0x61, 0, 0, 0x8b, 0x7c]],
            192,
            184,
        ),
        (
            Abi::N32,
            [[0x24, 0x02, 0x18, 0x43, 0, 0, 0, 0x0c], [0x30, 0x40, 0x18, 0x43, 0, 0, 0x8b, 0x7c]],
            176,
            752,
        ),
        (
            Abi::N64,
            [[0x24, 0x02, 0x14, 0x5b, 0, 0, 0, 0x0c], [0x30, 0x40, 0x14, 0x5b, 0, 0, 0x8b, 0x7c]],
            192,
            768,
        ),
    ];

    /// The bytes of every form, for each order.
    fn forms() -> impl Iterator<Item = (Mips, Vec<u8>, i32, i32)> {
        FORMS.into_iter().flat_map(|(abi, bytes, start, pc)| {
            let lower = if abi == Abi::O32 { 4 } else { 0 };
            let plain_unit = |micro: usize| if micro == 0 { 4 } else { 2 };
            [0, 1].into_iter().flat_map(move |micro| {
                let swapped = bytes[micro].chunks(plain_unit(micro)).flat_map(|unit| unit.iter().rev());
                [
                    (Mips::new(abi, ByteOrder::Big), bytes[micro].to_vec(), start + lower, pc + lower),
                    (Mips::new(abi, ByteOrder::Little), swapped.copied().collect(), start, pc),
                ]
            })
        })
    }

    fn known(arch: Mips, before: &[u8], at: &[u8]) -> bool {
        trampoline(&arch, &Code { before, at }).is_some()
    }

    #[test]
    fn gas_writes_these_for_little_endian_targets() {
        let little: Vec<_> = forms().filter(|form| form.0 == Mips::default()).map(|form| form.1).collect();
        let plain = [0x5b, 0x14, 0x02, 0x24, 0x0c, 0, 0, 0];
        let micro = [0x40, 0x30, 0x5b, 0x14, 0, 0, 0x7c, 0x8b];
        assert_eq!(little, [plain, micro]);
    }

    #[test]
    fn all_are_known_at_both_instructions() {
        for (arch, bytes, ..) in forms() {
            let (before, at) = bytes.split_at(4);
            assert!(known(arch, &[], &bytes));
            assert!(known(arch, &[0; 8], &[&bytes[..], &[0; 8]].concat()));
            assert!(known(arch, before, at));
            assert!(known(arch, &[&[0; 8], before].concat(), &[at, &[0; 8]].concat()));
        }
    }

    #[test]
    fn nothing_less_is_known() {
        for (arch, bytes, ..) in forms() {
            for cut in 0..bytes.len() {
                assert!(!known(arch, &[], &bytes[..cut]), "cut to {cut}");
                // A pc that is no instruction of it, and one after it.
                if cut != 0 && cut != 4 {
                    assert!(!known(arch, &bytes[..cut], &bytes[cut..]), "pc in the middle: {cut}");
                }
            }
            assert!(!known(arch, &bytes, &[0; 16]));
            for cut in 1..=4 {
                assert!(!known(arch, &bytes[cut..4], &bytes[4..]), "before cut from {cut}");
            }
            for bit in 0..bytes.len() * 8 {
                let mut other = bytes.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                assert!(!known(arch, &[], &other), "bit {bit}");
                assert!(!known(arch, &other[..4], &other[4..]), "bit {bit}");
            }
            // Under another ABI, and in the other order.
            for abi in [Abi::O32, Abi::N32, Abi::N64] {
                assert_eq!(known(arch.with_abi(abi), &[], &bytes), abi == arch.abi());
            }
            let other = if arch.byte_order() == ByteOrder::Big { ByteOrder::Little } else { ByteOrder::Big };
            assert!(!known(arch.with_byte_order(other), &[], &bytes));
        }
    }

    /// Through core: registers wider than words among them.
    #[test]
    fn a_walk_goes_on_in_the_interrupted_function() {
        const CODE: u64 = 0x40_1000;
        const STACK: u64 = 0x7fff_0000;
        for (arch, code, start, pc) in forms() {
            let mut stack = [0xa5; 1024];
            let mut put = |offset: i32, value: u64| {
                let at = usize::try_from(offset).unwrap();
                // The lower half is what the forms give under o32.
                let size = if arch.abi() == Abi::O32 { 4 } else { 8 };
                match arch.byte_order() {
                    ByteOrder::Little => stack[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]),
                    ByteOrder::Big => stack[at..at + size].copy_from_slice(&value.to_be_bytes()[8 - size..]),
                }
            };
            for number in 1..32 {
                put(start + 8 * number, 0x1000 + u64::try_from(number).unwrap());
            }
            put(start + 8 * 29, STACK + 0x8000);
            put(pc, 0x40_3000);
            let memory = unwind_core::from_fn(|address, into: &mut [u8]| {
                let (start, bytes) = if address < STACK { (CODE, &code[..]) } else { (STACK, &stack[..]) };
                let at = usize::try_from(address.wrapping_sub(start)).unwrap_or(usize::MAX);
                let found = at.checked_add(into.len()).and_then(|end| bytes.get(at..end));
                into.copy_from_slice(found.ok_or(MemoryError::Unreadable { address })?);
                Ok(())
            });
            let unwinder = Unwinder::new(arch, ());
            let mut state = unwinder.start_tracking::<32>(&Registers::new(CODE, STACK, 0)).unwrap();
            let frame = unwinder.next(&mut state, &mut { memory }).unwrap();
            assert_eq!((frame.pc, frame.sp), (Pc::Exact(0x40_3000), STACK + 0x8000), "{arch:?}");
            assert_eq!(frame.fp, Some(0x101e), "{arch:?}");
            for number in [1, 16, 23, 28, 31] {
                let value = state.registers().get(Register(number));
                assert_eq!(value, Some(0x1000 + u64::from(number)), "{arch:?} ${number}");
            }
        }
    }

    #[test]
    fn the_rule_says_what_the_table_says() {
        for (arch, bytes, start, pc) in forms() {
            let frame = trampoline(&arch, &Code { before: &[], at: &bytes }).unwrap();
            let offset = |register| frame.registers.iter().find(|(held, _)| *held == register).unwrap().1;
            let rule = frame.frame;
            assert_eq!(rule.kind(), FrameKind::Signal);
            // The address in a register of 64 bits.
            let address = if arch == Mips::new(Abi::N32, ByteOrder::Big) { 4 } else { 0 };
            assert_eq!(rule.cfa(), CfaRule::Deref { base: Base::Sp, offset: offset(SP) + address, add: 0 });
            assert_eq!(rule.ra(), RaRule::AtRegister { base: Base::Sp, offset: pc });
            assert_eq!(rule.fp(), FpRule::AtRegister { base: Base::Sp, offset: offset(S8) });
            for number in (1..32).filter(|number| ![26, 27].contains(number)) {
                assert_eq!(offset(Register(number)), start + 8 * i32::from(number));
            }
            assert_eq!(frame.registers.len(), 29);
        }
    }
}
