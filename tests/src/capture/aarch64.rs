//! AArch64, little-endian, Linux. Instruction encodings from the Arm Architecture Reference Manual, C4.1
//! ("Unconditional branch (register)", "Unconditional branch (immediate)", "Conditional branch", "Compare and branch", "Test
//! and branch", "Exception generation", "Load/store exclusive");
//! the signal frame from the kernel's `asm/sigcontext.h` and `asm/ucontext.h`.

use super::target::{Asked, Flow, Slot, Target};
use crate::captured::NO_NUMBER;

const fn slots() -> [Slot; 34] {
    let mut slots = [const { Slot::together(0, 0) }; 34];
    let mut index = 0;
    // x0 to x30, sp, pc: in the order of their DWARF numbers.
    while index < 33 {
        slots[index] = Slot::together(index as u16, index * 8);
        index += 1;
    }
    // pstate
    slots[33] = Slot { number: NO_NUMBER, asked: Asked::Together { offset: 33 * 8, size: 4 } };
    slots
}

static SLOTS: [Slot; 34] = slots();

/// AArch64.
pub static TARGET: Target = Target {
    name: "aarch64",
    emulator: "qemu-aarch64",
    sysroot: "/usr/aarch64-linux-gnu",
    guest_base: 0,
    slots: &SLOTS,
    pc: 32,
    sp: 31,
    big_endian: false,
    word: 8,
    // AAPCS64, section 6.1.1.
    preserved: &[19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29],
    call_slot: 0,
    red_zone: 0,
    instruction: 4,
    breakpoint: 4,
    decode: |code, pc, _| decode(code, pc),
    delays: false,
    exits: Some(exits),
    link: Some(30),
    code_mask: !0,
    // siginfo (128), ucontext up to uc_mcontext (176), fault_address (8), x0 to x30 (248), sp (8).
    signal_pc: &[128 + 176 + 8 + 248 + 8],
};

/// o2 = 0: the exclusive ones; L (bit 22) tells loads from stores.
const EXCLUSIVE_MASK: u32 = 0x3fc0_0000;
const LOAD_EXCLUSIVE: u32 = 0x0840_0000;
const STORE_EXCLUSIVE: u32 = 0x0800_0000;

fn decode(code: &[u8], pc: u64) -> Flow {
    let Some(instruction) = code.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)) else {
        return Flow::Plain;
    };
    let next = pc.wrapping_add(4);
    if instruction & 0xfc00_0000 == 0x9400_0000 {
        return Flow::Call(next); // bl
    }
    if instruction & 0xffe0_001f == 0xd400_0001 {
        return Flow::SystemCall(next); // svc
    }
    if instruction & 0xffe0_001f == 0xd420_0000 {
        return Flow::Trap; // brk
    }
    if instruction & EXCLUSIVE_MASK == LOAD_EXCLUSIVE {
        return Flow::LoadExclusive;
    }
    if instruction & 0xfe00_0000 != 0xd600_0000 {
        return Flow::Plain;
    }
    // Bit 24 of opc tells the authenticating forms with a modifier (braa, blraa).
    match instruction >> 21 & 0xf {
        0b0000 | 0b1000 if instruction >> 5 & 31 == 30 => Flow::Return, // br x30
        0b0000 | 0b1000 => Flow::Jump,                                  // br, braa
        0b0001 | 0b1001 => Flow::Call(next),                            // blr, blraa
        0b0010 => Flow::Return,                                         // ret, retaa
        _ => Flow::Plain,
    }
}

/// The instruction after the store-exclusive, and where branches before it lead.
fn exits(code: &[u8], pc: u64) -> Vec<u64> {
    let mut exits = Vec::new();
    let words =
        code.chunks_exact(4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    for (instruction, at) in words.zip((pc..).step_by(4)) {
        exits.extend(branch_target(instruction, at).filter(|target| !(pc..=at).contains(target)));
        if instruction & EXCLUSIVE_MASK == STORE_EXCLUSIVE {
            exits.push(at + 4);
            break;
        }
    }
    exits
}

/// Where a direct, conditional or unconditional, branch leads.
fn branch_target(instruction: u32, pc: u64) -> Option<u64> {
    let (low, bits) = if instruction & 0xff00_0000 == 0x5400_0000 || instruction & 0x7e00_0000 == 0x3400_0000
    {
        (5, 19) // b.cond, cbz, cbnz
    } else if instruction & 0x7e00_0000 == 0x3600_0000 {
        (5, 14) // tbz, tbnz
    } else if instruction & 0xfc00_0000 == 0x1400_0000 {
        (0, 26) // b
    } else {
        return None;
    };
    let field = i64::from(instruction >> low) << (64 - bits) >> (64 - bits);
    Some(pc.wrapping_add_signed(field * 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `aarch64-linux-gnu-as` encodes them.
    #[test]
    fn branches_are_told_apart() {
        let cases: [(u32, Flow); 20] = [
            (0x9400_0001, Flow::Call(0x1004)),       // bl
            (0x97ff_ffff, Flow::Call(0x1004)),       // bl, backwards
            (0xd63f_0200, Flow::Call(0x1004)),       // blr x16
            (0xd63f_0a1f, Flow::Call(0x1004)),       // blraaz x16
            (0xd73f_0a11, Flow::Call(0x1004)),       // blraa x16, x17
            (0xd61f_0220, Flow::Jump),               // br x17
            (0xd71f_0a11, Flow::Jump),               // braa x16, x17
            (0xd61f_03c0, Flow::Return),             // br x30
            (0xd65f_03c0, Flow::Return),             // ret
            (0xd65f_0120, Flow::Return),             // ret x9
            (0xd65f_0bff, Flow::Return),             // retaa
            (0xd65f_0fff, Flow::Return),             // retab
            (0xd400_0001, Flow::SystemCall(0x1004)), // svc #0
            (0xd420_0020, Flow::Trap),               // brk #1
            (0x1400_0001, Flow::Plain),              // b
            (0x5400_0020, Flow::Plain),              // b.eq
            (0x885f_fc40, Flow::LoadExclusive),      // ldaxr w0, [x2]
            (0xc87f_0440, Flow::LoadExclusive),      // ldxp x0, x1, [x2]
            (0x8811_7c41, Flow::Plain),              // stxr w17, w1, [x2]
            (0x88df_fc40, Flow::Plain),              // ldar w0, [x2]
        ];
        for (instruction, flow) in cases {
            assert_eq!(decode(&instruction.to_le_bytes(), 0x1000), flow, "{instruction:#x}");
        }
        assert_eq!(decode(&[], 0x1000), Flow::Plain);
    }
    #[test]
    fn exclusive_sequences_end() {
        // ldaxr; cmp; b.ne +12; stxr; cbnz -16; ret
        let words: [u32; 6] = [0x885f_fc40, 0x6b10_001f, 0x5400_0061, 0x8811_7c41, 0x35ff_ff91, 0xd65f_03c0];
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(exits(&code, 0x1000), [0x1014, 0x1010]);
        assert_eq!(branch_target(0x35ff_ff91, 0x1010), Some(0x1000));
    }
}
