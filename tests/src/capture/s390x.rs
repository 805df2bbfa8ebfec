//! s390x, Linux. Instruction encodings from the "z/Architecture Principles of Operation", chapter 7 (BRANCH AND SAVE, BRANCH
//! ON CONDITION, BRANCH RELATIVE AND SAVE, SUPERVISOR CALL); the signal frames from the kernel's
//! `arch/s390/kernel/signal.c` and `asm/sigcontext.h`, as qemu's `linux-user/s390x/signal.c` lays them out too.

use super::target::{Asked, Flow, Slot, Target};
use crate::captured::NO_NUMBER;

/// gdb's numbers of the floating-point registers begin here.
const FPR: u32 = 35;

/// The PSW's mask, its address, r0 to r15; then f0, f2, f4, f6, f1, f3, f5, f7, in which leaf functions keep
/// general registers. DWARF numbers: s390x ELF ABI supplement, section 1.6 ("DWARF register number mapping").
static SLOTS: [Slot; 26] = {
    let mut slots = [const { Slot::together(NO_NUMBER, 0) }; 26];
    slots[1] = Slot::together(65, 8);
    let mut index = 0;
    while index < 16 {
        slots[2 + index] = Slot::together(index as u16, 16 + index * 8);
        index += 1;
    }
    let floating = [0, 2, 4, 6, 1, 3, 5, 7];
    let mut index = 0;
    while index < floating.len() {
        slots[18 + index] = Slot { number: 16 + index as u16, asked: Asked::Alone(FPR + floating[index]) };
        index += 1;
    }
    slots
};

/// s390x.
pub static TARGET: Target = Target {
    name: "s390x",
    emulator: "qemu-s390x",
    sysroot: "/usr/s390x-linux-gnu",
    guest_base: 0,
    slots: &SLOTS,
    pc: 1,
    sp: 2 + 15,
    big_endian: true,
    word: 8,
    // s390x ELF ABI supplement, section 1.2.2.1: r6 to r13 and r15. (r6 is the fifth argument as well.)
    preserved: &[6, 7, 8, 9, 10, 11, 12, 13],
    call_slot: 0,
    red_zone: 0,
    instruction: 6,
    breakpoint: 2,
    decode: |code, pc, _| decode(code, pc),
    // COMPARE AND SWAP is one instruction.
    delays: false,
    exits: None,
    link: Some(2 + 14),
    code_mask: !0,
    signal_pc: &[
        // Room for the callee (160), the old mask (8), a pointer to the registers (8), the PSW's mask (8).
        160 + 8 + 8 + 8,
        // With siginfo: room (160), the trampoline (8 with padding), siginfo (128), ucontext up to uc_mcontext (40), mask (8).
        160 + 8 + 128 + 40 + 8,
    ],
};

fn decode(code: &[u8], pc: u64) -> Flow {
    let [first, second, ..] = *code else { return Flow::Plain };
    let (high, low) = (second >> 4, second & 15);
    match first {
        // basr; with r0 for a target it does not branch.
        0x0d if low != 0 => Flow::Call(pc.wrapping_add(2)),
        // bras, brasl
        0xa7 if low == 5 => Flow::Call(pc.wrapping_add(4)),
        0xc0 if low == 5 => Flow::Call(pc.wrapping_add(6)),
        // bcr
        0x07 if high == 15 && low == 14 => Flow::Return,
        0x07 if high != 0 && low == 14 => Flow::ReturnIf(pc.wrapping_add(2)),
        0x07 if high != 0 && low != 0 => Flow::Jump,
        0x0a => Flow::SystemCall(pc.wrapping_add(2)),
        _ => Flow::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `s390x-linux-gnu-as` encodes them.
    #[test]
    fn branches_are_told_apart() {
        let cases: &[(&[u8], Flow)] = &[
            (&[0x0d, 0xe1], Flow::Call(0x1002)),             // basr %r14,%r1
            (&[0x0d, 0xd0], Flow::Plain),                    // basr %r13,0
            (&[0xa7, 0xe5, 0, 4], Flow::Call(0x1004)),       // bras %r14,.+8
            (&[0xc0, 0xe5, 0, 0, 0, 4], Flow::Call(0x1006)), // brasl %r14,.+8
            (&[0xc0, 0x10, 0, 0, 0, 4], Flow::Plain),        // larl %r1,.+8
            (&[0xa7, 0xf4, 0, 4], Flow::Plain),              // j .+8
            (&[0x07, 0xfe], Flow::Return),                   // br %r14
            (&[0x07, 0x8e], Flow::ReturnIf(0x1002)),         // ber %r14
            (&[0x07, 0xf1], Flow::Jump),                     // br %r1
            (&[0x07, 0x07], Flow::Plain),                    // nopr %r7
            (&[0x07, 0xf0], Flow::Plain),                    // br 0: a serialisation
            (&[0x0a, 0x01], Flow::SystemCall(0x1002)),       // svc 1
            (&[0x00, 0x00], Flow::Plain),
            (&[0x07], Flow::Plain),
            (&[], Flow::Plain),
        ];
        for (code, flow) in cases {
            assert_eq!(decode(code, 0x1000), *flow, "{code:02x?}");
        }
    }
}
