//! Arm, 32 bits, A32 and T32, little-endian, Linux. Instruction encodings from the "Arm Architecture Reference Manual", ARMv7-A:
//! chapters A5 (A32) and A6 (T32); the signal frames from the kernel's `arch/arm/kernel/signal.c` and `asm/ucontext.h`.

use super::target::{Asked, Flow, Slot, Target};
use crate::captured::NO_NUMBER;

/// r0 to r15 in the order of their DWARF numbers, and cpsr, which tells A32 from T32.
static SLOTS: [Slot; 17] = {
    let mut slots = [const { Slot { number: 0, asked: Asked::Together { offset: 0, size: 4 } } }; 17];
    let mut index = 0;
    while index < 17 {
        let number = if index < 16 { index as u16 } else { NO_NUMBER };
        slots[index] = Slot { number, asked: Asked::Together { offset: index * 4, size: 4 } };
        index += 1;
    }
    slots
};

/// Arm, 32 bits.
pub static TARGET: Target = Target {
    name: "arm",
    emulator: "qemu-arm",
    sysroot: "/usr/arm-linux-gnueabihf",
    guest_base: 0x1_0000_0000,
    slots: &SLOTS,
    pc: 15,
    sp: 13,
    big_endian: false,
    word: 4,
    // AAPCS32, section 6.1.1.
    preserved: &[4, 5, 6, 7, 8, 9, 10, 11],
    call_slot: 0,
    red_zone: 0,
    instruction: 4,
    breakpoint: 2,
    decode: |code, pc, registers| if registers[16] & 0x20 == 0 { a32(code, pc) } else { t32(code, pc) },
    delays: false,
    exits: None,
    link: Some(14),
    code_mask: !1,
    signal_pc: &[
        // ucontext up to uc_mcontext (20), trap number, error code, old mask (12), r0 to r14.
        20 + 12 + 60,
        // siginfo (128), and the same.
        128 + 20 + 12 + 60,
    ],
};

/// `bx lr`, `mov pc, lr`, `pop {…, pc}`, `pop {pc}`: mask and bits.
const RETURNS_A32: [(u32, u32); 4] = [
    (0x0fff_ffff, 0x012f_ff1e),
    (0x0fff_ffff, 0x01a0_f00e),
    (0x0fff_8000, 0x08bd_8000),
    (0x0fff_ffff, 0x049d_f004),
];

/// `bx`, `ldr pc`, `mov pc`, `add pc`, `ldm {…, pc}`, as far as they are no returns.
const JUMPS_A32: [(u32, u32); 5] = [
    (0x0fff_fff0, 0x012f_ff10),
    (0x0c10_f000, 0x0410_f000),
    (0x0fff_fff0, 0x01a0_f000),
    (0x0fe0_f010, 0x0080_f000),
    (0x0e10_8000, 0x0810_8000),
];

fn a32(code: &[u8], pc: u64) -> Flow {
    let Some(instruction) = code.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)) else {
        return Flow::Plain;
    };
    let next = pc.wrapping_add(4);
    if instruction >> 28 == 15 {
        // blx to T32; everything else without a condition is no branch.
        return if instruction & 0x0e00_0000 == 0x0a00_0000 { Flow::Call(next) } else { Flow::Plain };
    }
    let is = |mask: u32, bits: u32| instruction & mask == bits;
    if is(0x0f00_0000, 0x0b00_0000) || is(0x0fff_fff0, 0x012f_ff30) {
        Flow::Call(next) // bl, blx
    } else if RETURNS_A32.iter().any(|(mask, bits)| is(*mask, *bits)) {
        Flow::ReturnIf(next)
    } else if JUMPS_A32.iter().any(|(mask, bits)| is(*mask, *bits)) {
        Flow::Jump
    } else if is(0x0f00_0000, 0x0f00_0000) {
        Flow::SystemCall(next) // svc
    } else if is(0x0ff0_00f0, 0x0120_0070) {
        Flow::Trap // bkpt
    } else {
        Flow::Plain
    }
}

fn t32(code: &[u8], pc: u64) -> Flow {
    let half = |at: usize| code.get(at..at + 2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    let Some(first) = half(0) else { return Flow::Plain };
    let after = |length: u64| pc.wrapping_add(length);
    if first < 0xe800 {
        return match first {
            0x4770 | 0x46f7 => Flow::ReturnIf(after(2)), // bx lr, mov pc, lr
            _ if first & 0xff87 == 0x4780 => Flow::Call(after(2)), // blx
            _ if first & 0xff87 == 0x4700 || first & 0xff87 == 0x4687 => Flow::Jump, // bx, mov pc
            _ if first & 0xff87 == 0x4487 => Flow::Jump, // add pc
            _ if first & 0xff00 == 0xbd00 => Flow::ReturnIf(after(2)), // pop {…, pc}
            _ if first & 0xff00 == 0xdf00 => Flow::SystemCall(after(2)), // svc
            _ if first & 0xff00 == 0xbe00 => Flow::Trap, // bkpt
            _ => Flow::Plain,
        };
    }
    let Some(second) = half(2) else { return Flow::Plain };
    match (first, second) {
        _ if first & 0xf800 == 0xf000 && second & 0xc000 == 0xc000 => Flow::Call(after(4)), // bl, blx
        (0xe8bd, _) if second & 0x8000 != 0 => Flow::ReturnIf(after(4)),                    // pop.w {…, pc}
        (0xf85d, 0xfb04) => Flow::ReturnIf(after(4)),                                       // pop.w {pc}
        _ if first & 0xfe50 == 0xe810 && second & 0x8000 != 0 => Flow::Jump,                // ldm.w {…, pc}
        _ if first & 0xff70 == 0xf850 && second & 0xf000 == 0xf000 => Flow::Jump,           // ldr.w pc
        _ if first & 0xfff0 == 0xe8d0 && second & 0xffe0 == 0xf000 => Flow::Jump,           // tbb, tbh
        _ => Flow::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `arm-linux-gnueabihf-as -mcpu=cortex-a8` encodes them.
    #[test]
    fn branches_are_told_apart_in_a32() {
        let cases: [(u32, Flow); 17] = [
            (0xeb00_0000, Flow::Call(0x1004)),       // bl .+8
            (0x1b00_0000, Flow::Call(0x1004)),       // blne .+8
            (0xfa00_0000, Flow::Call(0x1004)),       // blx .+8
            (0xe12f_ff33, Flow::Call(0x1004)),       // blx r3
            (0xea00_0000, Flow::Plain),              // b .+8
            (0xe12f_ff1e, Flow::ReturnIf(0x1004)),   // bx lr
            (0x112f_ff1e, Flow::ReturnIf(0x1004)),   // bxne lr
            (0xe1a0_f00e, Flow::ReturnIf(0x1004)),   // mov pc, lr
            (0xe8bd_8010, Flow::ReturnIf(0x1004)),   // pop {r4, pc}
            (0xe49d_f004, Flow::ReturnIf(0x1004)),   // pop {pc}
            (0xe12f_ff1c, Flow::Jump),               // bx ip
            (0xe5bc_f04c, Flow::Jump),               // ldr pc, [ip, #76]!
            (0xe79f_f103, Flow::Jump),               // ldr pc, [pc, r3, lsl #2]
            (0xef00_0000, Flow::SystemCall(0x1004)), // svc 0
            (0xe120_0070, Flow::Trap),               // bkpt 0
            (0xe8bd_4010, Flow::Plain),              // pop {r4, lr}
            (0xf57f_f05b, Flow::Plain),              // dmb ish
        ];
        for (instruction, flow) in cases {
            assert_eq!(a32(&instruction.to_le_bytes(), 0x1000), flow, "{instruction:#x}");
        }
        assert_eq!(a32(&[], 0x1000), Flow::Plain);
    }

    #[test]
    fn branches_are_told_apart_in_t32() {
        let cases: [(&[u16], Flow); 16] = [
            (&[0xf000, 0xf802], Flow::Call(0x1004)),     // bl .+8
            (&[0xf000, 0xe802], Flow::Call(0x1004)),     // blx .+8
            (&[0x4798], Flow::Call(0x1002)),             // blx r3
            (&[0xe002], Flow::Plain),                    // b .+8
            (&[0xf000, 0xb802], Flow::Plain),            // b.w .+8
            (&[0x4770], Flow::ReturnIf(0x1002)),         // bx lr
            (&[0xbd10], Flow::ReturnIf(0x1002)),         // pop {r4, pc}
            (&[0xe8bd, 0x81f0], Flow::ReturnIf(0x1004)), // pop.w {r4-r8, pc}
            (&[0xf85d, 0xfb04], Flow::ReturnIf(0x1004)), // pop.w {pc}
            (&[0x4760], Flow::Jump),                     // bx ip
            (&[0xf85c, 0xf000], Flow::Jump),             // ldr.w pc, [ip, r0]
            (&[0xe8df, 0xf003], Flow::Jump),             // tbb [pc, r3]
            (&[0xdf00], Flow::SystemCall(0x1002)),       // svc 0
            (&[0xbe00], Flow::Trap),                     // bkpt 0
            (&[0xbc10], Flow::Plain),                    // pop {r4}
            (&[0xe8bd, 0x41f0], Flow::Plain),            // pop.w {r4-r8, lr}
        ];
        for (halves, flow) in cases {
            let code: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
            assert_eq!(t32(&code, 0x1000), flow, "{halves:04x?}");
        }
        assert_eq!(t32(&[], 0x1000), Flow::Plain);
    }
}
