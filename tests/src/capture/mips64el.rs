//! MIPS, 64 bits, little-endian, n64, Linux. Instruction encodings from the "MIPS64 Architecture for Programmers", volume II-A
//! (JAL, JALR, JR, BGEZAL, SYSCALL, BREAK); the signal frame from the kernel's `arch/mips/kernel/signal.c` and
//! `asm/ucontext.h`.

use super::target::{Flow, Slot, Target};
use crate::captured::PC_ALONE;

/// r0 to r31 in the order of their DWARF numbers, then (behind sr, lo, hi, bad address and cause) pc, which has none.
static SLOTS: [Slot; 33] = {
    let mut slots = [const { Slot::together(PC_ALONE, 37 * 8) }; 33];
    let mut index = 0;
    while index < 32 {
        slots[index] = Slot::together(index as u16, index * 8);
        index += 1;
    }
    slots
};

/// MIPS, 64 bits, little-endian.
pub static TARGET: Target = Target {
    name: "mips64el",
    emulator: "qemu-mips64el",
    sysroot: "/usr/mips64el-linux-gnuabi64",
    guest_base: 0,
    slots: &SLOTS,
    pc: 32,
    sp: 29,
    big_endian: false,
    word: 8,
    // "MIPSpro N32 ABI Handbook", table 2-1, which holds for n64: s0 to s7, gp, s8.
    preserved: &[16, 17, 18, 19, 20, 21, 22, 23, 28, 30],
    call_slot: 0,
    red_zone: 0,
    instruction: 4,
    breakpoint: 4,
    decode: |code, pc, _| decode(code, pc),
    delays: true,
    exits: None,
    link: Some(31),
    code_mask: !0,
    // Room for arguments (16), for a trampoline (8), siginfo (128), ucontext up to uc_mcontext (40), general (256) and floating-point
    // registers (256), hi and lo of four accumulators (64).
    signal_pc: &[16 + 8 + 128 + 40 + 256 + 256 + 64],
};

fn decode(code: &[u8], pc: u64) -> Flow {
    let Some(instruction) = code.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)) else {
        return Flow::Plain;
    };
    // Behind the delay slot.
    let behind = pc.wrapping_add(8);
    let (source, target, destination) =
        (instruction >> 21 & 31, instruction >> 16 & 31, instruction >> 11 & 31);
    match (instruction >> 26, instruction & 0x3f) {
        (3, _) => Flow::Call(behind),                          // jal
        (1, _) if target & 0x1c == 0x10 => Flow::Call(behind), // bgezal and its kin, bal
        (0, 9) if destination == 31 => Flow::Call(behind),     // jalr
        (0, 8 | 9) if source == 31 => Flow::Return,            // jr $ra
        (0, 8 | 9) => Flow::Jump,                              // jr
        (0, 12) => Flow::SystemCall(pc.wrapping_add(4)),       // syscall
        (0, 13) => Flow::Trap,                                 // break
        _ => Flow::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `mips64el-linux-gnuabi64-as` encodes them.
    #[test]
    fn branches_are_told_apart() {
        let cases: [(u32, Flow); 10] = [
            (0x0c00_0400, Flow::Call(0x1008)),       // jal
            (0x0411_0002, Flow::Call(0x1008)),       // bal
            (0x0320_f809, Flow::Call(0x1008)),       // jalr $t9
            (0x03e0_0008, Flow::Return),             // jr $ra
            (0x0320_0008, Flow::Jump),               // jr $t9
            (0x1000_0002, Flow::Plain),              // b
            (0x0441_0002, Flow::Plain),              // bgez $v0
            (0x0000_000c, Flow::SystemCall(0x1004)), // syscall
            (0x0000_000d, Flow::Trap),               // break
            (0x0000_0000, Flow::Plain),              // nop
        ];
        for (instruction, flow) in cases {
            assert_eq!(decode(&instruction.to_le_bytes(), 0x1000), flow, "{instruction:#x}");
        }
        assert_eq!(decode(&[], 0x1000), Flow::Plain);
    }
}
