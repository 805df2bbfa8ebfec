//! RISC-V, 64 bits, Linux. Instruction encodings from "The RISC-V Instruction Set Manual", volume I: chapters "RV32I" (control
//! transfer), "A" (load-reserved), "C" (compressed jumps); the signal frame from the kernel's
//! `arch/riscv/kernel/signal.c` and `asm/ucontext.h`.

use super::target::{Flow, Slot, Target};
use crate::captured::PC_ALONE;

/// x0 to x31 in the order of their DWARF numbers, then pc, which has none.
static SLOTS: [Slot; 33] = {
    let mut slots = [const { Slot::together(PC_ALONE, 32 * 8) }; 33];
    let mut index = 0;
    while index < 32 {
        slots[index] = Slot::together(index as u16, index * 8);
        index += 1;
    }
    slots
};

/// RISC-V, 64 bits.
pub static TARGET: Target = Target {
    name: "riscv64",
    emulator: "qemu-riscv64",
    sysroot: "/usr/riscv64-linux-gnu",
    guest_base: 0,
    slots: &SLOTS,
    pc: 32,
    sp: 2,
    big_endian: false,
    word: 8,
    // "RISC-V Calling Conventions", integer registers: s0 to s11. (gp and tp are nobody's.)
    preserved: &[8, 9, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27],
    call_slot: 0,
    red_zone: 0,
    instruction: 4,
    breakpoint: 2,
    decode: |code, pc, _| decode(code, pc),
    delays: false,
    exits: None,
    link: Some(1),
    code_mask: !0,
    // siginfo (128), ucontext up to uc_mcontext (flags, link, stack, 1024 bits of mask: 168, aligned to 16). pc comes first.
    signal_pc: &[128 + 176],
};

/// The registers that jumps use as links: ra and t0.
fn is_link(register: u32) -> bool {
    matches!(register, 1 | 5)
}

fn decode(code: &[u8], pc: u64) -> Flow {
    let Some(half) = code.first_chunk().map(|bytes| u16::from_le_bytes(*bytes)) else { return Flow::Plain };
    if half & 3 != 3 {
        return match (half & 0xf07f, u32::from(half >> 7 & 31)) {
            (_, _) if half == 0x9002 => Flow::Trap,            // c.ebreak
            (0x8002, 1 | 5) => Flow::Return,                   // c.jr
            (0x8002, register) if register != 0 => Flow::Jump, // c.jr
            (0x9002, _) => Flow::Call(pc.wrapping_add(2)),     // c.jalr
            _ => Flow::Plain,
        };
    }
    let Some(instruction) = code.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)) else {
        return Flow::Plain;
    };
    let next = pc.wrapping_add(4);
    let (destination, source) = (instruction >> 7 & 31, instruction >> 15 & 31);
    match instruction & 0x7f {
        0x6f if is_link(destination) => Flow::Call(next), // jal
        0x67 if is_link(destination) => Flow::Call(next), // jalr
        0x67 if destination == 0 && is_link(source) => Flow::Return,
        0x67 => Flow::Jump,
        0x73 if instruction == 0x0000_0073 => Flow::SystemCall(next), // ecall
        0x73 if instruction == 0x0010_0073 => Flow::Trap,             // ebreak
        _ => Flow::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `riscv64-linux-gnu-as` encodes them.
    #[test]
    fn branches_are_told_apart() {
        let cases: [(u32, Flow); 14] = [
            (0x0080_00ef, Flow::Call(0x1004)),       // jal ra, .+8
            (0x0080_02ef, Flow::Call(0x1004)),       // jal t0, .+8
            (0x0080_006f, Flow::Plain),              // j .+8
            (0x0007_80e7, Flow::Call(0x1004)),       // jalr a5
            (0x000e_0367, Flow::Jump),               // jalr t1, t3
            (0x0007_8067, Flow::Jump),               // jr a5
            (0x0000_8067, Flow::Return),             // ret
            (0x0000_0073, Flow::SystemCall(0x1004)), // ecall
            (0x0010_0073, Flow::Trap),               // ebreak
            (0x8082, Flow::Return),                  // c.jr ra
            (0x8782, Flow::Jump),                    // c.jr a5
            (0x9782, Flow::Call(0x1002)),            // c.jalr a5
            (0x9002, Flow::Trap),                    // c.ebreak
            (0x853e, Flow::Plain),                   // c.mv a0, a5
        ];
        for (instruction, flow) in cases {
            assert_eq!(decode(&instruction.to_le_bytes(), 0x1000), flow, "{instruction:#x}");
        }
        assert_eq!(decode(&[], 0x1000), Flow::Plain);
    }
}
