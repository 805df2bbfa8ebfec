//! What the instruction at an exact pc says by itself.
//!
//! Only what leaves no doubt, for code that no table covers; where there is doubt, there is no
//! rule.
//!
//! * **Returns** (`bx lr`, `mov pc, lr`, a `pop` with pc in it), and what only leads to them: other
//!   pops, additions to sp, `sub sp, fp, #n`, `mov` of other registers. They tell what will be executed
//!   next, and sp must then be the caller's again. Conditional ones say nothing, nor does T32 code that may
//!   be in an IT block.
//! * **A frame record being made**: `push` of fp and lr before the instruction that lets fp point at
//!   one of the two, and that instruction after it. The first of a function's instructions these need
//!   not be: sp is only a lower bound of the caller's.
//!
//! Code bytes do not say whether they are A32 or T32, and what is a return in one may be part of
//! something else in the other. Returns are looked at where the code before the pc leaves no doubt:
//! nearly all of A32's words say "always" in their highest four bits. What makes a frame record means
//! nothing in the other set.
//!
//! By the disassembly of glibc 2.36 for armhf, a return follows at all of the 4,600 places at which one
//! is found there, and about two thirds of its returns are found. There is no call frame information to
//! compare with but that of programs compiled with `-g`: at 148 such places, it says the same.

use unwind_core::{Arch, Base, ByteOrder, CfaRule, Code, FpRule, RaRule, Register, UnwindUserFrame};

use crate::*;

mod decode;

use decode::{Instruction, WIDE, a32, immediate, t32};

/// The rule that the instruction at the pc implies.
pub(crate) fn rule(arch: &Arm, code: &Code<'_>) -> Option<UnwindUserFrame> {
    let order = arch.code_order;
    prologue(order, code).or_else(|| match set(order, code.before)? {
        Set::A32 => follow(arch.fp(), code.at, |code| a32(word(order, code, 0)?)),
        Set::T32 => {
            // With what follows it, the first instruction must not look like one of A32 that is always
            // executed, or like a branch.
            let (first, next) = (half(order, code.at, 0)?, half(order, code.at, 1)?);
            let is_a32 = matches!(next >> 12, 0xe | 0xf) || (next >> 9) & 7 == 5;
            if (is_a32 && first < WIDE) || may_be_conditional(order, code.before) {
                return None;
            }
            follow(arch.fp(), code.at, |code| t32(half(order, code, 0)?, half(order, code, 1)))
        }
    })
}

/// The sets of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    A32,
    T32,
}

/// Which set the code before the pc is of: of its last three or four words, all say "always", or one
/// at most does.
fn set(order: ByteOrder, before: &[u8]) -> Option<Set> {
    let (_, words) = before.as_rchunks::<4>();
    let always = |bytes: &[u8; 4]| {
        let [first, .., last] = *bytes;
        let high = if order == ByteOrder::Little { last } else { first };
        high >> 4 == 0xe
    };
    let count = words.iter().fold(0usize, |count, word| count.wrapping_add(usize::from(always(word))));
    match (words.len(), count) {
        (words @ 3.., always) if always == words => Some(Set::A32),
        (3.., 0 | 1) => Some(Set::T32),
        _ => None,
    }
}

/// Whether the T32 instruction behind these bytes may be part of an IT block: among the seven halfwords
/// before it, which the block's first three instructions take at most, there is an `it`, or not all are
/// known.
fn may_be_conditional(order: ByteOrder, before: &[u8]) -> bool {
    let (_, halves) = before.as_rchunks::<2>();
    let is_it = |bytes: &[u8; 2]| half(order, bytes, 0).is_some_and(|it| it >> 8 == 0xbf && it & 0xf != 0);
    halves.len() < 7 || halves.iter().rev().take(7).any(is_it)
}

/// Follows the instructions at the pc to a return, if they lead straight there. `decode` says what
/// the next one is, and how many bytes it has.
fn follow(
    fp: Register,
    code: &[u8],
    decode: impl Fn(&[u8]) -> Option<(Instruction, usize)>,
) -> Option<UnwindUserFrame> {
    let mut rest = code;
    let mut base = Base::Sp;
    // From the base.
    let mut sp: i32 = 0;
    let (mut saved_lr, mut saved_pc, mut saved_fp) = (None, None, None);
    // Every turn takes at least two of the window's 16 bytes.
    loop {
        let (instruction, size) = decode(rest)?;
        match instruction {
            Instruction::Return => break,
            Instruction::Pop(list) => {
                for number in (0..16).filter(|number| list & 1u16.wrapping_shl((*number).into()) != 0) {
                    match Register(number) {
                        LR => saved_lr = Some(sp),
                        PC => saved_pc = Some(sp),
                        register if register == fp => saved_fp = Some(sp),
                        _ => {}
                    }
                    sp = sp.checked_add(4)?;
                }
                if saved_pc.is_some() {
                    break;
                }
            }
            Instruction::AddToSp(size) => sp = sp.checked_add(size)?,
            // Only while nothing has been loaded.
            Instruction::FromFp(register, below) if register == fp && rest.len() == code.len() => {
                base = Base::Fp;
                sp = 0i32.checked_sub(below)?;
            }
            Instruction::FromFp(..) => return None,
            Instruction::Other => {}
        }
        rest = rest.get(size..)?;
    }
    let ra = match saved_pc.or(saved_lr) {
        Some(at) => RaRule::AtCfa(at.checked_sub(sp)?),
        None => RaRule::InRegister { base: Base::Register(LR), offset: 0 },
    };
    let fp = match saved_fp {
        Some(at) => FpRule::AtCfa(at.checked_sub(sp)?),
        None => FpRule::Unchanged,
    };
    UnwindUserFrame::new(CfaRule::Offset { base, offset: sp }, ra, fp)
}

/// The rule where a frame record is being made.
fn prologue(order: ByteOrder, code: &Code<'_>) -> Option<UnwindUserFrame> {
    let (_, before) = code.before.as_rchunks::<4>();
    let (_, before_half) = code.before.as_rchunks::<2>();
    let pushed_a32 = |first: Option<u32>, second: Option<u32>| made_in_a32(first?, second?);
    let pushed_t32 = |first: Option<u16>, second: Option<u16>| made_in_t32(first?, second?);
    let at = |index| word(order, code.at, index);
    let half_at = |index| half(order, code.at, index);
    let leaf = |size| Some(UnwindUserFrame::leaf(size, LR)?.with_sp_bound());
    if pushed_a32(at(0), at(1)).or_else(|| pushed_t32(half_at(0), half_at(1))).is_some() {
        return leaf(0);
    }
    let last = before.last().and_then(|last| word(order, last, 0));
    let last_half = before_half.last().and_then(|last| half(order, last, 0));
    leaf(pushed_a32(last, at(0)).or_else(|| pushed_t32(last_half, half_at(0)))?)
}

/// How many bytes `push {…, fp, lr}` pushes, if the next instruction lets fp point at lr (GCC) or fp
/// (AAPCS32).
fn made_in_a32(push: u32, next: u32) -> Option<i32> {
    const MOV_FP_SP: u32 = 0xe1a0_b00d;
    let [low, high, ..] = push.to_le_bytes();
    let list = u16::from_le_bytes([low, high]);
    // Neither sp nor pc; r12 would be between the two.
    if push >> 16 != 0xe92d || list & 0xf800 != 0x4800 || list & 0x1000 != 0 {
        return None;
    }
    let size = i32::try_from(list.count_ones()).ok()?.checked_mul(4)?;
    let fp_at = size.checked_sub(8)?;
    let points_at = match next {
        MOV_FP_SP => 0,
        // add fp, sp, #n
        0xe28d_b000..=0xe28d_bfff => immediate(next)?,
        _ => return None,
    };
    (points_at == fp_at || points_at == fp_at.checked_add(4)?).then_some(size)
}

/// How many bytes `push {…, r7, lr}` pushes, if the next instruction lets r7 point at r7.
fn made_in_t32(push: u16, next: u16) -> Option<i32> {
    const MOV_R7_SP: u16 = 0x466f;
    if push & 0xff80 != 0xb580 {
        return None;
    }
    let size = i32::try_from((push & 0x1ff).count_ones()).ok()?.checked_mul(4)?;
    let points_at = match next {
        MOV_R7_SP => 0,
        // add r7, sp, #n
        0xaf00..=0xafff => i32::from(next & 0xff).checked_mul(4)?,
        _ => return None,
    };
    (points_at == size.checked_sub(8)?).then_some(size)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    /// Instructions, as gas writes them.
    enum Bytes<'u> {
        A32(&'u [u32]),
        T32(&'u [u16]),
    }
    use Bytes::{A32, T32};

    fn bytes(order: ByteOrder, units: &Bytes<'_>) -> Vec<u8> {
        let little = order == ByteOrder::Little;
        match units {
            A32(units) => {
                units.iter().flat_map(|it| if little { it.to_le_bytes() } else { it.to_be_bytes() }).collect()
            }
            T32(units) => {
                units.iter().flat_map(|it| if little { it.to_le_bytes() } else { it.to_be_bytes() }).collect()
            }
        }
    }

    /// What is said in little-endian code, which must be what is said in big-endian code.
    fn says(arch: Arm, before: &Bytes<'_>, at: &Bytes<'_>) -> Option<UnwindUserFrame> {
        let said =
            |arch: Arm, order| rule(&arch, &Code { before: &bytes(order, before), at: &bytes(order, at) });
        let little = said(arch, ByteOrder::Little);
        let big = arch.with_byte_order(ByteOrder::Big);
        assert_eq!(said(big, ByteOrder::Little), little);
        assert_eq!(said(big.with_code_order(ByteOrder::Big), ByteOrder::Big), little);
        little
    }

    /// ldr r3, [r4]; mov r0, r4; blx r3
    const A32_CODE: Bytes<'_> = A32(&[0xe594_3000, 0xe1a0_0004, 0xe12f_ff33]);
    /// adds r4, #4; ldr r3, [r4, #0]; mov r0, r4; blx r3; cmp r0, #0; beq; movs r0, #1
    const T32_CODE: Bytes<'_> = T32(&[0x3404, 0x6823, 0x4620, 0x4798, 0x2800, 0xd000, 0x2001]);

    fn after_a32(at: &[u32]) -> Option<UnwindUserFrame> {
        says(Arm::new(), &A32_CODE, &A32(at))
    }

    /// With a nop behind, as there is always something.
    fn after_t32(at: &[u16]) -> Option<UnwindUserFrame> {
        says(Arm::new(), &T32_CODE, &T32(&[at, &[0xbf00, 0xbf00]].concat()))
    }

    /// CFA = base + `cfa`; the return address and fp in their registers, or below it.
    fn frame(base: Base, cfa: i32, ra: Option<i32>, fp: Option<i32>) -> Option<UnwindUserFrame> {
        let in_lr = RaRule::InRegister { base: Base::Register(LR), offset: 0 };
        UnwindUserFrame::new(
            CfaRule::Offset { base, offset: cfa },
            ra.map_or(in_lr, RaRule::AtCfa),
            fp.map_or(FpRule::Unchanged, FpRule::AtCfa),
        )
    }

    const SP: Base = Base::Sp;
    const FP: Base = Base::Fp;

    #[test]
    fn returns_of_a32() {
        // bx lr; mov pc, lr
        for ret in [0xe12f_ff1e, 0xe1a0_f00e] {
            assert_eq!(after_a32(&[ret]), frame(SP, 0, None, None));
            // add sp, sp, #16
            assert_eq!(after_a32(&[0xe28d_d010, ret]), frame(SP, 16, None, None));
            // pop {fp, lr}; add sp, sp, #16: a variadic function
            assert_eq!(after_a32(&[0xe8bd_4800, 0xe28d_d010, ret]), frame(SP, 24, Some(-20), Some(-24)));
            // pop {fp}; pop {lr}; add sp, sp, #4096
            assert_eq!(after_a32(&[0xe49d_b004, ret]), frame(SP, 4, None, Some(-4)));
            assert_eq!(after_a32(&[0xe49d_e004, ret]), frame(SP, 4, Some(-4), None));
            assert_eq!(after_a32(&[0xe28d_da01, ret]), frame(SP, 4096, None, None));
            // add sp, fp, #0; pop {fp}, and mov sp, fp
            assert_eq!(after_a32(&[0xe28b_d000, 0xe49d_b004, ret]), frame(FP, 4, None, Some(-4)));
            assert_eq!(after_a32(&[0xe1a0_d00b, 0xe49d_b004, ret]), frame(FP, 4, None, Some(-4)));
        }
        // pop {r4, fp, pc}; ldr pc, [sp], #4
        assert_eq!(after_a32(&[0xe8bd_8810]), frame(SP, 12, Some(-4), Some(-8)));
        assert_eq!(after_a32(&[0xe49d_f004]), frame(SP, 4, Some(-4), None));
        // sub sp, fp, #8; vpop {d8-d9}; mov r0, r4; mov r0, #0; mvn r0, #0
        let pop = 0xe8bd_8810;
        assert_eq!(after_a32(&[0xe24b_d008, pop]), frame(FP, 4, Some(-4), Some(-8)));
        assert_eq!(after_a32(&[0xecbd_8b04, pop]), frame(SP, 28, Some(-4), Some(-8)));
        for mov in [0xe1a0_0004, 0xe3a0_0000, 0xe3e0_0000] {
            assert_eq!(after_a32(&[mov, pop]), frame(SP, 12, Some(-4), Some(-8)));
        }
        // The same where r7 is the frame pointer.
        let arch = Arm::new().with_frame_pointer(FramePointer::RecordR7);
        assert_eq!(says(arch, &A32_CODE, &A32(&[pop])), frame(SP, 12, Some(-4), None));
        assert_eq!(says(arch, &A32_CODE, &A32(&[0xe8bd_8080])), frame(SP, 8, Some(-4), Some(-8)));
        assert_eq!(says(arch, &A32_CODE, &A32(&[0xe24b_d008, pop])), None);
    }

    #[test]
    fn returns_of_t32() {
        assert_eq!(after_t32(&[0x4770]), frame(SP, 0, None, None));
        // pop {r4, r7, pc}; pop {pc}; pop.w {r4-r11, pc}; ldr.w pc, [sp], #4
        assert_eq!(after_t32(&[0xbd90]), frame(SP, 12, Some(-4), None));
        assert_eq!(after_t32(&[0xbd00]), frame(SP, 4, Some(-4), None));
        assert_eq!(after_t32(&[0xe8bd, 0x8ff0]), frame(SP, 36, Some(-4), Some(-8)));
        assert_eq!(after_t32(&[0xf85d, 0xfb04]), frame(SP, 4, Some(-4), None));
        // add sp, #16; pop.w {r7, lr}; ldr.w lr, [sp], #4; pop {r4, r5}; vpop {d8-d9}
        assert_eq!(after_t32(&[0xb004, 0x4770]), frame(SP, 16, None, None));
        let popped = [0xe8bd, 0x4080, 0xb004, 0x4770];
        assert_eq!(after_t32(&popped), frame(SP, 24, Some(-20), None));
        assert_eq!(after_t32(&[0xf85d, 0xeb04, 0x4770]), frame(SP, 4, Some(-4), None));
        assert_eq!(after_t32(&[0xbc30, 0x4770]), frame(SP, 8, None, None));
        assert_eq!(after_t32(&[0xecbd, 0x8b04, 0xbd00]), frame(SP, 20, Some(-4), None));
        // mov r0, r4; movs r0, #0
        assert_eq!(after_t32(&[0x4620, 0xbd00]), frame(SP, 4, Some(-4), None));
        assert_eq!(after_t32(&[0x2000, 0xbd00]), frame(SP, 4, Some(-4), None));
        // mov sp, r7 where that is the frame pointer, and where not.
        let arch = Arm::new().with_frame_pointer(FramePointer::RecordR7);
        let at = T32(&[0x46bd, 0xbd80, 0xbf00]);
        assert_eq!(says(arch, &T32_CODE, &at), frame(FP, 8, Some(-4), Some(-8)));
        assert_eq!(says(Arm::new(), &T32_CODE, &at), None);
    }

    #[test]
    fn what_does_not_surely_return_says_nothing() {
        // bxeq lr; popne {r4, pc}; bx r3; ldm sp, {r4, fp, sp, pc}; pop {sp, pc}; mov lr, r3 and bx lr;
        // mov fp, r3 and bx lr; sub sp, sp, #8 and bx lr
        let nothing: [&[u32]; 8] = [
            &[0x012f_ff1e],
            &[0x18bd_8010],
            &[0xe12f_ff13],
            &[0xe89d_a810],
            &[0xe8bd_a000],
            &[0xe1a0_e003, 0xe12f_ff1e],
            &[0xe1a0_b003, 0xe12f_ff1e],
            &[0xe24d_d008, 0xe12f_ff1e],
        ];
        for at in nothing {
            assert_eq!(after_a32(at), None, "{at:x?}");
        }
        // bx r3; mov lr, r3 and bx lr; mov r7, r3 and bx lr; sub sp, #8 and bx lr
        let nothing: [&[u16]; 4] = [&[0x4718], &[0x469e, 0x4770], &[0x461f, 0x4770], &[0xb082, 0x4770]];
        for at in nothing {
            assert_eq!(after_t32(at), None, "{at:x?}");
        }
    }

    #[test]
    fn returns_need_code_that_tells_its_set() {
        // Of the other set, of none, and too little.
        let little = |arch: Arm, before: &[u8], at: &Bytes<'_>| {
            rule(&arch, &Code { before, at: &bytes(ByteOrder::Little, at) })
        };
        let a32_code = bytes(ByteOrder::Little, &A32_CODE);
        let t32_code = bytes(ByteOrder::Little, &T32_CODE);
        let a32 = A32(&[0xe8bd_8810]);
        let t32 = T32(&[0xbd90, 0xbf00]);
        assert!(little(Arm::new(), &a32_code, &a32).is_some());
        assert!(little(Arm::new(), &t32_code, &t32).is_some());
        for before in [&a32_code[4..], &t32_code[4..], &[]] {
            assert_eq!(little(Arm::new(), before, &a32), None);
            assert_eq!(little(Arm::new(), before, &t32), None);
        }
        assert_eq!(little(Arm::new(), &a32_code, &t32), None);
        // strh r0, [r2, r0]; pop.w …: the same bytes as pop {r4, fp, pc} of A32.
        assert_eq!(little(Arm::new(), &t32_code, &a32), None);
        // bx lr, then push.w {r4-r6, r8-r10, lr}: with it, e92d4770 of A32 pushes.
        let pushes = T32(&[0x4770, 0xe92d]);
        assert_eq!(little(Arm::new(), &t32_code, &pushes), None);
        // Conditional and other words in between.
        let mixed = [&t32_code[..4], &a32_code[4..], &t32_code[..4]].concat();
        assert_eq!(little(Arm::new(), &mixed, &a32), None);
        assert_eq!(little(Arm::new(), &mixed, &t32), None);
    }

    #[test]
    fn in_an_it_block_there_is_no_rule() {
        // it eq; itee ne, and up to three instructions of the block, of 2 or 4 bytes.
        let plain = [0x6823, 0x4620, 0x4798, 0x2800, 0xd000, 0x2001, 0x2102, 0x2203];
        for it in [0xbf08, 0xbf16] {
            for at in 1..=8 {
                let mut before = plain;
                before[8 - at] = it;
                let said = says(Arm::new(), &T32(&before), &T32(&[0x4770, 0xbf00]));
                assert_eq!(said, if at == 8 { frame(SP, 0, None, None) } else { None }, "{at} before");
            }
        }
        // nop; yield
        for hint in [0xbf00, 0xbf10] {
            let before = [&plain[1..], &[hint]].concat();
            assert!(says(Arm::new(), &T32(&before), &T32(&[0x4770, 0xbf00])).is_some());
        }
        // it eq; bxeq lr as the second of two instructions on the way.
        assert_eq!(after_t32(&[0xbc30, 0xbf08, 0x4770]), None);
    }

    #[test]
    fn a_frame_record_being_made() {
        let bound = |size| frame(SP, size, None, None).map(UnwindUserFrame::with_sp_bound);
        // push {fp, lr}; push {r4, fp, lr}, and what lets fp point at lr or fp: add fp, sp, #4; mov fp,
        // sp; add fp, sp, #8; add fp, sp, #4.
        let made = [
            (0xe92d_4800, 0xe28d_b004, 8),
            (0xe92d_4800, 0xe1a0_b00d, 8),
            (0xe92d_4810, 0xe28d_b008, 12),
            (0xe92d_4810, 0xe28d_b004, 12),
        ];
        for (push, set, size) in made {
            for before in [&[][..], &[0xe12f_ff1e], &[0]] {
                assert_eq!(says(Arm::new(), &A32(before), &A32(&[push, set])), bound(0));
                let pushed = [before, &[push]].concat();
                assert_eq!(says(Arm::new(), &A32(&pushed), &A32(&[set])), bound(size));
            }
            // cmp r0, #0
            assert_eq!(says(Arm::new(), &A32(&[]), &A32(&[push, 0xe350_0000])), None);
            assert_eq!(says(Arm::new(), &A32(&[set]), &A32(&[0xe350_0000])), None);
        }
        // push {r4, lr}; push {fp, ip, lr}; push {fp, lr, pc}; and fp elsewhere.
        for (push, set) in [
            (0xe92d_4010, 0xe28d_b004),
            (0xe92d_5800, 0xe28d_b008),
            (0xe92d_c800, 0xe28d_b004),
            (0xe92d_4810, 0xe1a0_b00d),
            (0xe92d_4800, 0xe28d_b008),
        ] {
            assert_eq!(says(Arm::new(), &A32(&[]), &A32(&[push, set])), None);
            assert_eq!(says(Arm::new(), &A32(&[push]), &A32(&[set])), None);
        }
        // push {r4-r7, lr}; add r7, sp, #12, and push {r7, lr}; mov r7, sp or add r7, sp, #0
        for (push, set, size) in [(0xb5f0, 0xaf03, 20), (0xb580, 0x466f, 8), (0xb580, 0xaf00, 8)] {
            for before in [&[][..], &[0x4770], &[0, 0]] {
                assert_eq!(says(Arm::new(), &T32(before), &T32(&[push, set])), bound(0));
                let pushed = [before, &[push]].concat();
                assert_eq!(says(Arm::new(), &T32(&pushed), &T32(&[set, 0xbf00])), bound(size));
            }
        }
        // push {r4, lr}; push {r7}; GCC's push {r4, r7, lr}; add r7, sp, #0
        for (push, set) in [(0xb510, 0xaf01), (0xb480, 0xaf00), (0xb590, 0xaf00)] {
            assert_eq!(says(Arm::new(), &T32(&[]), &T32(&[push, set])), None);
            assert_eq!(says(Arm::new(), &T32(&[push]), &T32(&[set])), None);
        }
    }

    #[test]
    fn a_shorter_window_never_says_something_else_than_less() {
        // push {r4, fp, lr}; add fp, sp, #8; nop; sub sp, fp, #8; mov r0, #0; pop {r4, fp, pc}
        let a32 =
            A32(&[0xe92d_4810, 0xe28d_b008, 0xe320_f000, 0xe24b_d008, 0xe3a0_0000, 0xe8bd_8810, 0xe320_f000]);
        let all: [Vec<u8>; 2] = [&A32_CODE, &T32_CODE].map(|code| {
            let middle = if matches!(code, A32(_)) {
                bytes(ByteOrder::Little, &a32)
            } else {
                // push {r7, lr}; mov r7, sp; movs; movs; movs; movs; pop.w {r7, lr}; add sp, #16; bx lr
                let t32 = T32(&[
                    0xb580, 0x466f, 0x2000, 0x2101, 0x2202, 0x2303, 0xe8bd, 0x4080, 0xb004, 0x4770, 0xbf00,
                ]);
                bytes(ByteOrder::Little, &t32)
            };
            [bytes(ByteOrder::Little, code), middle].concat()
        });
        for all in all {
            for pc in (0..all.len()).step_by(2) {
                let say = |start: usize, end: usize| {
                    rule(&Arm::new(), &Code { before: &all[start..pc], at: &all[pc..end] })
                };
                let (first, last) = (pc.saturating_sub(16), all.len().min(pc + 16));
                let full = say(first, last);
                for end in pc..last {
                    let cut = say(first, end);
                    assert!(cut.is_none() || cut == full, "at {pc} cut to {end}");
                }
                for start in first..=pc {
                    let cut = say(start, last);
                    assert!(cut.is_none() || cut == full, "at {pc} from {start}");
                }
            }
        }
    }
}
