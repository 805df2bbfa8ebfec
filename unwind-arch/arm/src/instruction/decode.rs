//! What an instruction does on the way to a return.

use unwind_core::Register;

use crate::*;

/// A halfword from here on begins a T32 instruction of 32 bits.
pub(super) const WIDE: u16 = 0xe800;

/// What matters here of an instruction on the way to a return.
pub(super) enum Instruction {
    /// To lr.
    Return,
    /// Loads these registers from sp on and adds their size to sp; a return, if pc is one of them.
    Pop(u16),
    /// Adds to sp.
    AddToSp(i32),
    /// Sets sp to this register minus that.
    FromFp(Register, i32),
    /// Changes neither sp, lr, pc nor a frame pointer.
    Other,
}

/// sp, which no list of a pop may have, as a bit of one.
const SP_BIT: u16 = 1 << 13;

/// An instruction of A32 that is always executed.
pub(super) fn a32(instruction: u32) -> Option<(Instruction, usize)> {
    const BX_LR: u32 = 0xe12f_ff1e;
    const MOV_PC_LR: u32 = 0xe1a0_f00e;
    let [low, high, ..] = instruction.to_le_bytes();
    let list = u16::from_le_bytes([low, high]);
    let rd = Register(u16::from(high >> 4));
    Some((
        match instruction >> 16 {
            _ if matches!(instruction, BX_LR | MOV_PC_LR) => Instruction::Return,
            // pop {…}: ldm sp!, {…}
            0xe8bd if list & SP_BIT == 0 => Instruction::Pop(list),
            // pop {rd}: ldr rd, [sp], #4
            0xe49d if list & 0xfff == 4 && rd != SP => Instruction::Pop(1u16.wrapping_shl(rd.0.into())),
            // vpop {d…}: vldm sp!, {d…}
            0xecbd if list & 0x0f01 == 0x0b00 => Instruction::AddToSp(i32::from(low).checked_mul(4)?),
            // add sp, sp, #n
            0xe28d if rd == SP => Instruction::AddToSp(immediate(instruction)?),
            // sub sp, fp, #n; add sp, fp, #0; mov sp, fp
            0xe24b if rd == SP => Instruction::FromFp(R11, immediate(instruction)?),
            _ if matches!(instruction, 0xe28b_d000 | 0xe1a0_d00b) => Instruction::FromFp(R11, 0),
            // mov rd, #n; mvn rd, #n; mov rd, rm
            0xe3a0 | 0xe3e0 | 0xe1a0 if changes_freely(rd) => Instruction::Other,
            _ => return None,
        },
        4,
    ))
}

/// The constant of an A32 instruction: 8 bits, rotated to the right by twice another 4.
pub(super) fn immediate(instruction: u32) -> Option<i32> {
    let [value, rotation, ..] = instruction.to_le_bytes();
    let rotation = u32::from(rotation & 0xf).checked_mul(2)?;
    i32::try_from(u32::from(value).rotate_right(rotation)).ok()
}

/// An instruction of T32, of one halfword or of two.
pub(super) fn t32(first: u16, second: Option<u16>) -> Option<(Instruction, usize)> {
    const BX_LR: u16 = 0x4770;
    if first >= WIDE {
        let second = second?;
        let rt = second >> 12;
        let instruction = match first {
            // pop.w {…}
            0xe8bd if second & SP_BIT == 0 => Instruction::Pop(second),
            // pop.w {rt}: ldr.w rt, [sp], #4
            0xf85d if second & 0xfff == 0xb04 && rt != SP.0 => Instruction::Pop(1u16.wrapping_shl(rt.into())),
            // vpop {d…}
            0xecbd if second & 0x0f01 == 0x0b00 => {
                Instruction::AddToSp(i32::from(second & 0xff).checked_mul(4)?)
            }
            _ => return None,
        };
        return Some((instruction, 4));
    }
    let low = first & 0xff;
    // Of `mov rd, rm`.
    let (rd, rm) = (Register((first & 7) | ((first >> 4) & 8)), Register((first >> 3) & 0xf));
    let instruction = match first >> 8 {
        _ if first == BX_LR => Instruction::Return,
        // pop {…}, pop {…, pc}
        0xbc => Instruction::Pop(low),
        0xbd => Instruction::Pop(low | 1 << 15),
        // add sp, #n
        0xb0 if low < 0x80 => Instruction::AddToSp(i32::from(low).checked_mul(4)?),
        // mov sp, r7
        0x46 if rd == SP && rm == R7 => Instruction::FromFp(R7, 0),
        0x46 if changes_freely(rd) => Instruction::Other,
        // movs rd, #n
        0x20..0x28 if changes_freely(Register((first >> 8) & 7)) => Instruction::Other,
        _ => return None,
    };
    Some((instruction, 2))
}

/// Whether a change of this register does not matter.
fn changes_freely(register: Register) -> bool {
    ![R7, R11, SP, LR, PC].contains(&register)
}
