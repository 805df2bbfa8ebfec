//! LoongArch, 64 bits, Linux. Instruction encodings from the "LoongArch Reference Manual", volume 1, section 2.2.7 and
//! appendix B; the signal frame from the kernel's `arch/loongarch/kernel/signal.c` and `asm/ucontext.h`.

use super::target::{Flow, Slot, Target};
use crate::captured::PC_ALONE;

/// r0 to r31 in the order of their DWARF numbers, then (behind the first argument of the system call) pc, which has none.
static SLOTS: [Slot; 33] = {
    let mut slots = [const { Slot::together(PC_ALONE, 33 * 8) }; 33];
    let mut index = 0;
    while index < 32 {
        slots[index] = Slot::together(index as u16, index * 8);
        index += 1;
    }
    slots
};

/// LoongArch, 64 bits.
pub static TARGET: Target = Target {
    name: "loongarch64",
    emulator: "qemu-loongarch64",
    sysroot: "/usr/loongarch64-linux-gnu",
    guest_base: 0,
    slots: &SLOTS,
    pc: 32,
    sp: 3,
    big_endian: false,
    word: 8,
    // "LoongArch ELF psABI", integer registers: fp and s0 to s8.
    preserved: &[22, 23, 24, 25, 26, 27, 28, 29, 30, 31],
    call_slot: 0,
    red_zone: 0,
    instruction: 4,
    breakpoint: 4,
    decode: |code, pc, _| decode(code, pc),
    delays: false,
    exits: None,
    link: Some(1),
    code_mask: !0,
    // siginfo (128), ucontext up to uc_mcontext (flags, link, stack, 1024 bits of mask: 168, aligned to 16). pc comes first.
    signal_pc: &[128 + 176],
};

fn decode(code: &[u8], pc: u64) -> Flow {
    let Some(instruction) = code.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)) else {
        return Flow::Plain;
    };
    let next = pc.wrapping_add(4);
    match (instruction >> 26, instruction & 31, instruction >> 5 & 31) {
        (0b01_0101, ..) => Flow::Call(next),   // bl
        (0b01_0011, 1, _) => Flow::Call(next), // jirl $ra
        (0b01_0011, 0, 1) => Flow::Return,     // jr $ra
        (0b01_0011, ..) => Flow::Jump,         // jirl
        _ if instruction & 0xffff_8000 == 0x002b_0000 => Flow::SystemCall(next),
        _ if instruction & 0xffff_8000 == 0x002a_0000 => Flow::Trap, // break
        _ => Flow::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `loongarch64-linux-gnu-as` encodes them.
    #[test]
    fn branches_are_told_apart() {
        let cases: [(u32, Flow); 9] = [
            (0x5400_0800, Flow::Call(0x1004)),       // bl .+8
            (0x5000_0800, Flow::Plain),              // b .+8
            (0x4c00_0181, Flow::Call(0x1004)),       // jirl $ra, $t0, 0
            (0x4c00_01ed, Flow::Jump),               // jirl $t1, $t3, 0
            (0x4c00_0180, Flow::Jump),               // jr $t0
            (0x4c00_0020, Flow::Return),             // ret
            (0x002b_0000, Flow::SystemCall(0x1004)), // syscall 0
            (0x002a_0000, Flow::Trap),               // break 0
            (0x0340_0000, Flow::Plain),              // nop
        ];
        for (instruction, flow) in cases {
            assert_eq!(decode(&instruction.to_le_bytes(), 0x1000), flow, "{instruction:#x}");
        }
        assert_eq!(decode(&[], 0x1000), Flow::Plain);
    }
}
