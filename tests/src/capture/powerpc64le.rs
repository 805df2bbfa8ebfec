//! PowerPC, 64 bits, little-endian (ELFv2), Linux. Instruction encodings from the "Power ISA", book I, section 2.4 (branches), 2.5
//! (condition register and `bclr`, `bcctr`), 4.3 (system call); the signal frame from the kernel's `arch/powerpc/kernel/signal_64.c`.

use super::target::{Asked, Flow, Slot, Target};
use crate::captured::PC_ALONE;

/// r0 to r31; pc; cr (as the column of its field 2, which call frame information uses for all that is preserved), lr and ctr.
/// DWARF numbers: "64-bit ELF V2 ABI", section 2.4.
static SLOTS: [Slot; 36] = {
    let mut slots = [const { Slot::together(PC_ALONE, 256) }; 36];
    let mut index = 0;
    while index < 32 {
        slots[index] = Slot::together(index as u16, index * 8);
        index += 1;
    }
    slots[33] = Slot { number: 70, asked: Asked::Together { offset: 272, size: 4 } };
    slots[34] = Slot::together(65, 276);
    slots[35] = Slot::together(66, 284);
    slots
};

/// PowerPC, 64 bits, little-endian.
pub static TARGET: Target = Target {
    name: "powerpc64",
    emulator: "qemu-ppc64le",
    sysroot: "/usr/powerpc64le-linux-gnu",
    guest_base: 0,
    slots: &SLOTS,
    pc: 32,
    sp: 1,
    big_endian: false,
    word: 8,
    // "64-bit ELF V2 ABI", section 2.2.2.1: r14 to r31.
    preserved: &[14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31],
    call_slot: 0,
    // "64-bit ELF V2 ABI", section 2.2.2.4 ("Protected Zone").
    red_zone: 288,
    instruction: 4,
    breakpoint: 4,
    decode: |code, pc, _| decode(code, pc),
    delays: false,
    exits: Some(exits),
    link: Some(34),
    code_mask: !0,
    // Room for the callee (128; 144 in qemu before version 8), ucontext up to uc_mcontext (flags, link, stack, 1024 bits of
    // mask: 168), sigcontext up to its registers (64), r0 to r31.
    signal_pc: &[128 + 168 + 64 + 256, 144 + 168 + 64 + 256],
};

fn decode(code: &[u8], pc: u64) -> Flow {
    let Some(instruction) = code.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)) else {
        return Flow::Plain;
    };
    let next = pc.wrapping_add(4);
    let links = instruction & 1 != 0;
    let always = instruction >> 21 & 0x14 == 0x14;
    match (instruction >> 26, instruction >> 1 & 0x3ff) {
        // bcl 20,31,.+4 only fetches the pc.
        (16 | 18, _) if links => Flow::Call(next),       // bl, bcl
        (17, _) => Flow::SystemCall(next),               // sc
        (19, 16 | 528) if links => Flow::Call(next),     // bclrl, bctrl
        (19, 16) if always => Flow::Return,              // blr
        (19, 16) => Flow::ReturnIf(next),                // bclr
        (19, 528) => Flow::Jump,                         // bctr
        (31, 20 | 52 | 84 | 116) => Flow::LoadExclusive, // lwarx, lbarx, ldarx, lharx
        _ if instruction == 0x7fe0_0008 => Flow::Trap,
        _ => Flow::Plain,
    }
}

/// The instruction after the store-conditional, and where branches before it lead.
fn exits(code: &[u8], pc: u64) -> Vec<u64> {
    let mut exits = Vec::new();
    let words =
        code.chunks_exact(4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    for (instruction, at) in words.zip((pc..).step_by(4)) {
        let target = match instruction >> 26 {
            16 => Some(at.wrapping_add_signed(i64::from((instruction & 0xfffc) as i16))), // bc
            18 => {
                Some(at.wrapping_add_signed(i64::from(((instruction & 0x03ff_fffc) << 6).cast_signed() >> 6)))
            } // b
            _ => None,
        };
        exits.extend(target.filter(|target| !(pc..=at).contains(target)));
        // stwcx., stbcx., stdcx., sthcx.
        if instruction >> 26 == 31 && matches!(instruction >> 1 & 0x3ff, 150 | 694 | 214 | 726) {
            exits.push(at + 4);
            break;
        }
    }
    exits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `powerpc64le-linux-gnu-as` encodes them.
    #[test]
    fn branches_are_told_apart() {
        let cases: [(u32, Flow); 12] = [
            (0x4800_0009, Flow::Call(0x1004)),       // bl .+8
            (0x4800_0008, Flow::Plain),              // b .+8
            (0x429f_0005, Flow::Call(0x1004)),       // bcl 20,31,.+4
            (0x4182_0008, Flow::Plain),              // beq .+8
            (0x4e80_0020, Flow::Return),             // blr
            (0x4d82_0020, Flow::ReturnIf(0x1004)),   // beqlr
            (0x4e80_0421, Flow::Call(0x1004)),       // bctrl
            (0x4e80_0420, Flow::Jump),               // bctr
            (0x4400_0002, Flow::SystemCall(0x1004)), // sc
            (0x7d20_1828, Flow::LoadExclusive),      // lwarx r9,0,r3
            (0x7fe0_0008, Flow::Trap),               // trap
            (0x6000_0000, Flow::Plain),              // nop
        ];
        for (instruction, flow) in cases {
            assert_eq!(decode(&instruction.to_le_bytes(), 0x1000), flow, "{instruction:#x}");
        }
        assert_eq!(decode(&[], 0x1000), Flow::Plain);
    }
    #[test]
    fn exclusive_sequences_end() {
        // lwarx r9,0,r3; cmpw r9,r5; bne .+12; stwcx. r10,0,r3; bne .-16; isync
        let words: [u32; 6] = [0x7d20_1828, 0x7c09_2800, 0x4082_000c, 0x7d40_192d, 0x40a2_fff0, 0x4c00_012c];
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(exits(&code, 0x1000), [0x1014, 0x1010]);
    }
}
