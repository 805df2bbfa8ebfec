//! What an instruction does, as far as it matters.

use unwind_core::{Register, WordSize};

use crate::{S0, SP};

/// What matters here of an instruction.
pub(super) enum Instruction {
    /// `ret`.
    Return,
    /// `addi sp, sp, n`.
    AddToSp(i32),
    /// `addi s0, sp, n`.
    PointFp(i32),
    /// A word of the target's size, from sp plus n.
    Load(Register, i32),
    /// A word of the target's size, to sp plus n.
    Store(Register, i32),
    /// Another one that changes a single integer register.
    Changes(Register),
    /// One that changes no integer register.
    Nothing,
}

/// The instruction that `code` begins with, and what follows it. `None` for those that do not matter,
/// jumps and calls among them. "The RISC-V Instruction Set Manual, Volume I", chapters on RV32I, RV64I
/// and the "C" extension.
pub(super) fn decode(word: WordSize, code: &[u8]) -> Option<(Instruction, &[u8])> {
    match code {
        [a, b, rest @ ..] if a & 3 != 3 => {
            Some((compressed(word, u32::from(u16::from_le_bytes([*a, *b])))?, rest))
        }
        [a, b, c, d, rest @ ..] if a & 0x1f != 0x1f => {
            Some((full(word, u32::from_le_bytes([*a, *b, *c, *d]))?, rest))
        }
        _ => None,
    }
}

/// An instruction of 32 bits.
fn full(word: WordSize, instruction: u32) -> Option<Instruction> {
    const RET: u32 = 0x0000_8067;
    let (rd, rs1, rs2) =
        (register(instruction >> 7), register(instruction >> 15), register(instruction >> 20));
    let immediate = instruction.cast_signed() >> 20;
    let word_funct3 = match word {
        WordSize::Four => 2,
        WordSize::Eight => 3,
    };
    let is_word_at_sp = (instruction >> 12) & 7 == word_funct3 && rs1 == SP;
    Some(match instruction & 0x7f {
        _ if instruction == RET => Instruction::Return,
        // addi
        0x13 if (instruction >> 12) & 7 == 0 && rs1 == SP && rd == SP => Instruction::AddToSp(immediate),
        0x13 if (instruction >> 12) & 7 == 0 && rs1 == SP && rd == S0 => Instruction::PointFp(immediate),
        0x03 if is_word_at_sp => Instruction::Load(rd, immediate),
        0x23 if is_word_at_sp => {
            let low = ((instruction >> 7) & 0x1f).cast_signed();
            Instruction::Store(rs2, (immediate & !0x1f) | low)
        }
        // LOAD, OP-IMM, AUIPC, OP-IMM-32, OP, LUI, OP-32
        0x03 | 0x13 | 0x17 | 0x1b | 0x33 | 0x37 | 0x3b => Instruction::Changes(rd),
        // LOAD-FP, STORE, STORE-FP
        0x07 | 0x23 | 0x27 => Instruction::Nothing,
        _ => return None,
    })
}

/// An instruction of 16 bits.
fn compressed(word: WordSize, instruction: u32) -> Option<Instruction> {
    const C_JR_RA: u32 = 0x8082;
    let rd = register(instruction >> 7);
    // Three bits stand for x8 to x15.
    let (short_rd, short_rs2) =
        (register(((instruction >> 7) & 7) | 8), register(((instruction >> 2) & 7) | 8));
    // Bits of the instruction, from `from` on, as bits of a number, from `to` on.
    let bits = |from: u32, count: u32, to: u32| {
        let mask = 1u32.wrapping_shl(count).wrapping_sub(1);
        (instruction.wrapping_shr(from) & mask).wrapping_shl(to)
    };
    let signed = |value: u32, sign: u32| {
        let shift = 31u32.wrapping_sub(sign);
        value.wrapping_shl(shift).cast_signed().wrapping_shr(shift)
    };
    let is_64 = word == WordSize::Eight;
    Some(match (instruction & 3, instruction >> 13) {
        _ if instruction == C_JR_RA => Instruction::Return,
        // c.addi4spn
        (0, 0) if instruction != 0 => {
            let offset = bits(11, 2, 4) | bits(7, 4, 6) | bits(6, 1, 2) | bits(5, 1, 3);
            if short_rs2 == S0 {
                Instruction::PointFp(offset.cast_signed())
            } else {
                Instruction::Changes(short_rs2)
            }
        }
        // c.lw; c.ld
        (0, 2) => Instruction::Changes(short_rs2),
        (0, 3) if is_64 => Instruction::Changes(short_rs2),
        // c.fld, c.flw, c.fsd, c.sw, c.sd or c.fsw
        (0, 1 | 3 | 5..=7) => Instruction::Nothing,
        // c.addi
        (1, 0) if rd == SP => Instruction::AddToSp(signed(bits(12, 1, 5) | bits(2, 5, 0), 5)),
        // c.addi16sp
        (1, 3) if rd == SP => {
            let size = bits(12, 1, 9) | bits(6, 1, 4) | bits(5, 1, 6) | bits(3, 2, 7) | bits(2, 1, 5);
            Instruction::AddToSp(signed(size, 9))
        }
        // c.addi, c.li, c.lui; c.addiw
        (1, 0 | 2 | 3) => Instruction::Changes(rd),
        (1, 1) if is_64 => Instruction::Changes(rd),
        // c.srli, c.srai, c.andi, c.sub, c.xor, c.or, c.and, c.subw, c.addw
        (1, 4) => Instruction::Changes(short_rd),
        // c.slli
        (2, 0) => Instruction::Changes(rd),
        // c.lwsp; c.ldsp
        (2, 2) if is_64 => Instruction::Changes(rd),
        (2, 2) => Instruction::Load(rd, (bits(12, 1, 5) | bits(4, 3, 2) | bits(2, 2, 6)).cast_signed()),
        (2, 3) if is_64 => {
            Instruction::Load(rd, (bits(12, 1, 5) | bits(5, 2, 3) | bits(2, 3, 6)).cast_signed())
        }
        // c.fldsp, c.flwsp
        (2, 1 | 3) => Instruction::Nothing,
        // c.mv, c.add; not c.jr, c.jalr, c.ebreak
        (2, 4) if bits(2, 5, 0) != 0 => Instruction::Changes(rd),
        // c.swsp; c.sdsp
        (2, 6) if is_64 => Instruction::Nothing,
        (2, 6) => {
            Instruction::Store(register(instruction >> 2), (bits(9, 4, 2) | bits(7, 2, 6)).cast_signed())
        }
        (2, 7) if is_64 => {
            Instruction::Store(register(instruction >> 2), (bits(10, 3, 3) | bits(7, 3, 6)).cast_signed())
        }
        // c.fswsp. (Where c.fsdsp is, others are too: push and pop of Zcmp.)
        (2, 7) => Instruction::Nothing,
        _ => return None,
    })
}

/// The register that the low five bits stand for.
fn register(bits: u32) -> Register {
    let [low, ..] = bits.to_le_bytes();
    Register(u16::from(low & 0x1f))
}
