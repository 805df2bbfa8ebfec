//! What the instruction at an exact pc says by itself.
//!
//! Only what leaves no doubt, for code that no table covers; where there is doubt, there is no
//! rule. MIPS16 and microMIPS are not looked at.
//!
//! * **`jr $31`**, and what only leads to it: loads of registers from the stack, additions to sp,
//!   instructions that change other registers than $29, $30 and $31. They tell what will be executed
//!   next, and sp must then be the caller's again. The instruction behind the jump is executed before
//!   what is jumped to, and very often it is the one that moves sp: without it there is no rule. Nor is
//!   there one where the pc is behind a jump or a branch. (Processors give the address of the jump
//!   then; but whoever gives the other means that the jump is still to be made.) Call frame information
//!   of glibc 2.36, o32 and n64, says the same at 8,200 such places, but for 11: four in hand-written
//!   assembly that never says that sp moves, seven nops that are never reached.
//! * **`lui $28; addiu $28; addu $28, $28, $25`** of o32: they compute the global pointer from $25, the
//!   address at which the function is entered, and that must be the `lui`'s ("System V ABI, MIPS
//!   RISC Processor Supplement", section "Coding Examples", "Position-Independent Function Prologue").

use unwind_core::{Base, ByteOrder, CfaRule, Code, FpRule, RaRule, Register, UnwindUserFrame, WordSize};

use crate::*;

/// The rule that the instruction at the pc implies.
pub(crate) fn rule(arch: &Mips, code: &Code<'_>) -> Option<UnwindUserFrame> {
    if arch.abi() == Abi::O32 && is_gp_prologue(arch.byte_order(), code) {
        return Some(ENTRY);
    }
    let (_, before) = code.before.as_rchunks::<4>();
    if is_jump(word(arch.byte_order(), *before.last()?)) {
        return None;
    }
    epilogue(arch, code.at)
}

/// Whether the pc is at one of the three instructions.
fn is_gp_prologue(order: ByteOrder, code: &Code<'_>) -> bool {
    const LUI_GP: u32 = 0x3c1c;
    const ADDIU_GP_GP: u32 = 0x279c;
    const ADDU_GP_GP_T9: u32 = 0x0399_e021;
    let (_, before) = code.before.as_rchunks::<4>();
    let before = |back: usize| before.get(before.len().checked_sub(back)?).map(|bytes| word(order, *bytes));
    let at = |index| at(order, code.at, index);
    [[at(0), at(1), at(2)], [before(1), at(0), at(1)], [before(2), before(1), at(0)]].into_iter().any(
        |three| match three {
            [Some(lui), Some(addiu), Some(ADDU_GP_GP_T9)] => {
                lui >> 16 == LUI_GP && addiu >> 16 == ADDIU_GP_GP
            }
            _ => false,
        },
    )
}

/// Follows the instructions at the pc to the `jr $31`, if they lead straight there, and to the one
/// behind it.
fn epilogue(arch: &Mips, code: &[u8]) -> Option<UnwindUserFrame> {
    let mut state = State::default();
    let mut index = 0;
    // Every turn takes four of the window's 16 bytes.
    loop {
        let instruction = at(arch.byte_order(), code, index)?;
        index = index.checked_add(1)?;
        if is_return(instruction) {
            break;
        }
        state.follow(decode(arch, instruction)?)?;
    }
    let ra = state.ra;
    match decode(arch, at(arch.byte_order(), code, index)?)? {
        // It would be restored too late.
        Instruction::Load(RA, _) => return None,
        instruction => state.follow(instruction)?,
    }
    let ra = match ra {
        Some(at) => RaRule::AtCfa(at.checked_sub(state.sp)?),
        None => RaRule::InRegister { base: Base::Register(RA), offset: 0 },
    };
    let fp = match state.fp {
        Some(at) => FpRule::AtCfa(at.checked_sub(state.sp)?),
        None => FpRule::Unchanged,
    };
    UnwindUserFrame::new(CfaRule::Offset { base: Base::Sp, offset: state.sp }, ra, fp)
}

/// What the instructions have done so far; places are from sp at the pc.
#[derive(Default)]
struct State {
    sp: i32,
    ra: Option<i32>,
    fp: Option<i32>,
}

impl State {
    fn follow(&mut self, instruction: Instruction) -> Option<()> {
        match instruction {
            Instruction::AddToSp(size) if size > 0 => self.sp = self.sp.checked_add(size)?,
            Instruction::Load(RA, offset) => self.ra = Some(self.sp.checked_add(offset)?),
            Instruction::Load(S8, offset) => self.fp = Some(self.sp.checked_add(offset)?),
            Instruction::Load(register, _) | Instruction::Changes(register)
                if ![SP, S8, RA].contains(&register) => {}
            Instruction::Nothing => {}
            _ => return None,
        }
        Some(())
    }
}

/// What matters here of an instruction.
enum Instruction {
    /// `addiu sp, sp, n`, and `daddiu` under n64.
    AddToSp(i32),
    /// A whole register, from sp plus n.
    Load(Register, i32),
    /// Another one that changes a single general register.
    Changes(Register),
    /// One that changes no general register.
    Nothing,
}

/// `jr $31`, `jr.hb $31`, and `jalr $0, $31`, which is the former since release 6.
fn is_return(instruction: u32) -> bool {
    matches!(instruction, 0x03e0_0008 | 0x03e0_0408 | 0x03e0_0009)
}

/// Whether the next instruction is executed before what this one jumps to.
fn is_jump(instruction: u32) -> bool {
    let branches_on_condition = matches!(instruction >> 21 & 0x1f, 8..=15);
    match instruction >> 26 {
        // SPECIAL: jr, jalr
        0 => matches!(instruction & 0x3f, 8 | 9),
        // REGIMM, j, jal, beq, bne, blez, bgtz, and the same with "likely"
        1..=7 | 20..=23 => true,
        // COP1, COP2
        17 | 18 => branches_on_condition,
        _ => false,
    }
}

/// What an instruction does. `None` for those that do not matter, jumps and branches of all releases
/// among them. "MIPS Architecture for Programmers, Volume II", the tables of opcodes.
fn decode(arch: &Mips, instruction: u32) -> Option<Instruction> {
    const ADDIU: u32 = 9;
    const DADDIU: u32 = 25;
    const LW: u32 = 35;
    const LD: u32 = 55;
    let (rs, rt, rd) =
        (register(instruction >> 21), register(instruction >> 16), register(instruction >> 11));
    let [low, high, ..] = instruction.to_le_bytes();
    let immediate = i32::from(i16::from_le_bytes([low, high]));
    let funct = instruction & 0x3f;
    let add = if arch.word_size() == WordSize::Eight { DADDIU } else { ADDIU };
    let load = if arch.register_size() == WordSize::Eight { LD } else { LW };
    Some(match instruction >> 26 {
        opcode if opcode == add && rs == SP && rt == SP => Instruction::AddToSp(immediate),
        opcode if opcode == load && rs == SP => Instruction::Load(rt, immediate),
        // SPECIAL: shifts, movz and movn, multiplications, arithmetic, doubleword arithmetic and shifts
        0 if matches!(funct, 0 | 2..=4 | 6 | 7 | 10 | 11 | 16..=47 | 56..=63) => Instruction::Changes(rd),
        // addiu, slti, sltiu, andi, ori, xori, lui, daddiu; ldl, ldr, and the other loads
        ADDIU..=15 | DADDIU..=27 | 32..=39 | LD => Instruction::Changes(rt),
        // COP1: mfc1 and its like change a general register; the others, but for branches, do not.
        17 => match instruction >> 21 & 0x1f {
            0..=3 => Instruction::Changes(rt),
            4..=7 | 16 | 17 | 20 | 21 => Instruction::Nothing,
            _ => return None,
        },
        // SPECIAL2: mul
        28 if funct == 2 => Instruction::Changes(rd),
        // SPECIAL3: ext, ins and their doubleword forms
        31 if funct < 8 => Instruction::Changes(rt),
        // Stores, and loads and stores of floating-point registers
        40..=46 | 49 | 53 | 57 | 61 | 63 => Instruction::Nothing,
        _ => return None,
    })
}

/// The register that the low five bits stand for.
fn register(bits: u32) -> Register {
    let [low, ..] = bits.to_le_bytes();
    Register(u16::from(low & 0x1f))
}

/// The instruction `index` places from the start of `code`.
fn at(order: ByteOrder, code: &[u8], index: usize) -> Option<u32> {
    let (words, _) = code.as_chunks::<4>();
    words.get(index).map(|bytes| word(order, *bytes))
}

fn word(order: ByteOrder, bytes: [u8; 4]) -> u32 {
    match order {
        ByteOrder::Little => u32::from_le_bytes(bytes),
        ByteOrder::Big => u32::from_be_bytes(bytes),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    // All as gas writes them.
    const JR_RA: u32 = 0x03e0_0008;
    const NOP: u32 = 0;
    /// addiu sp, sp, 56; daddiu sp, sp, 128
    const ADDIU: u32 = 0x27bd_0038;
    const DADDIU: u32 = 0x67bd_0080;

    fn bytes(order: ByteOrder, instructions: &[u32]) -> Vec<u8> {
        let bytes = |it: &u32| if order == ByteOrder::Big { it.to_be_bytes() } else { it.to_le_bytes() };
        instructions.iter().flat_map(bytes).collect()
    }

    /// What is said in one order, which must be what is said in the other.
    fn says(abi: Abi, before: &[u32], at: &[u32]) -> Option<UnwindUserFrame> {
        let said = [ByteOrder::Little, ByteOrder::Big].map(|order| {
            let code = (bytes(order, before), bytes(order, at));
            rule(&Mips::new(abi, order), &Code { before: &code.0, at: &code.1 })
        });
        assert_eq!(said[0], said[1]);
        said[0]
    }

    const ABIS: [Abi; 3] = [Abi::O32, Abi::N32, Abi::N64];

    /// CFA = sp + `cfa`; the return address and $30 in their registers, or below it.
    fn sp(cfa: i32, ra: Option<i32>, fp: Option<i32>) -> Option<UnwindUserFrame> {
        let in_ra = RaRule::InRegister { base: Base::Register(RA), offset: 0 };
        UnwindUserFrame::new(
            CfaRule::Offset { base: Base::Sp, offset: cfa },
            ra.map_or(in_ra, RaRule::AtCfa),
            fp.map_or(FpRule::Unchanged, FpRule::AtCfa),
        )
    }

    #[test]
    fn a_return_says_where_it_goes_with_what_is_behind_it() {
        for abi in ABIS {
            // jr ra; jr.hb ra; jalr zero, ra
            for ret in [JR_RA, 0x03e0_0408, 0x03e0_0009] {
                // nop; move v0, a0; li v0, 4119; sw a0, 4(a1); mtc1 v0, $f0; mfc1 v0, $f0; lui gp, 1;
                // ext v0, v0, 0, 8
                for harmless in [
                    NOP,
                    0x0080_1025,
                    0x2402_1017,
                    0xaca4_0004,
                    0x4482_0000,
                    0x4402_0000,
                    0x3c1c_0001,
                    0x7c42_3800,
                ] {
                    assert_eq!(says(abi, &[NOP], &[ret, harmless]), sp(0, None, None), "{harmless:x}");
                    assert_eq!(says(abi, &[NOP], &[harmless, ret, NOP]), sp(0, None, None));
                }
                let (add, other, size) =
                    if abi == Abi::N64 { (DADDIU, ADDIU, 128) } else { (ADDIU, DADDIU, 56) };
                assert_eq!(says(abi, &[NOP], &[ret, add]), sp(size, None, None));
                assert_eq!(says(abi, &[NOP], &[add, ret, NOP]), sp(size, None, None));
                assert_eq!(says(abi, &[NOP], &[ret, other]), None);
                // Not known what is behind.
                assert_eq!(says(abi, &[NOP], &[ret]), None);
            }
        }
    }

    #[test]
    fn what_is_loaded_on_the_way() {
        // lw ra, 52(sp); lw s8, 48(sp); jr ra; addiu sp, sp, 56
        let all = [0x8fbf_0034, 0x8fbe_0030, JR_RA, ADDIU];
        assert_eq!(says(Abi::O32, &[NOP], &all), sp(56, Some(-4), Some(-8)));
        assert_eq!(says(Abi::O32, &all[..1], &all[1..]), sp(56, None, Some(-8)));
        // Half of a register.
        assert_eq!(says(Abi::N32, &[NOP], &all), None);
        // ld ra, 56(sp); ld s8, 48(sp); jr ra; daddiu sp, sp, 128, or addiu sp, sp, 56
        let all = [0xdfbf_0038, 0xdfbe_0030, JR_RA, DADDIU];
        assert_eq!(says(Abi::N64, &[NOP], &all), sp(128, Some(-72), Some(-80)));
        assert_eq!(says(Abi::N32, &[NOP], &[&all[..3], &[ADDIU]].concat()), sp(56, Some(0), Some(-8)));
        // lw s0, 40(sp); lw gp, 16(sp): of no matter.
        assert_eq!(says(Abi::O32, &[NOP], &[0x8fb0_0028, 0x8fbc_0010, JR_RA, ADDIU]), sp(56, None, None));
        // Behind the jump: s8 is restored, ra too late.
        assert_eq!(says(Abi::O32, &[NOP], &[ADDIU, JR_RA, 0x8fbe_fff8]), sp(56, None, Some(-8)));
        assert_eq!(says(Abi::O32, &[NOP], &[ADDIU, JR_RA, 0x8fbf_fffc]), None);
        // After sp has moved: lw ra, -4(sp)
        assert_eq!(says(Abi::O32, &[NOP], &[ADDIU, 0x8fbf_fffc, JR_RA, NOP]), sp(56, Some(-4), None));
    }

    #[test]
    fn what_does_not_surely_return_says_nothing() {
        // jr t9; jalr t9; b; beq; bal; j; jal; syscall; break; move sp, s8; lw sp, 8(sp); move ra, v0;
        // move s8, v0; addiu sp, sp, -56; bc1f; eret; balc and beqzc of release 6
        let nothing = [
            0x0320_0008,
            0x0320_f809,
            0x1000_0004,
            0x1040_0004,
            0x0411_0004,
            0x0810_0004,
            0x0c10_0004,
            0x0000_000c,
            0x0000_000d,
            0x03c0_e825,
            0x8fbd_0008,
            0x0040_f825,
            0x0040_f025,
            0x27bd_ffc8,
            0x4500_0004,
            0x4200_0018,
            0xe800_0004,
            0xd840_0004,
        ];
        for abi in ABIS {
            for other in nothing {
                assert_eq!(says(abi, &[NOP], &[other, NOP]), None, "{other:x}");
                assert_eq!(says(abi, &[NOP], &[other, JR_RA, NOP]), None, "{other:x}");
                assert_eq!(says(abi, &[NOP], &[JR_RA, other]), None, "{other:x}");
            }
            assert_eq!(says(abi, &[NOP], &[NOP, NOP, NOP, NOP]), None);
        }
    }

    #[test]
    fn behind_a_jump_there_is_no_rule() {
        // jr t9; jalr t9; b; beq; bnel; bal; j; jal; bc1f; bltz
        for jump in [
            0x0320_0008,
            0x0320_f809,
            0x1000_0004,
            0x1040_0004,
            0x5440_0004,
            0x0411_0004,
            0x0810_0004,
            0x0c10_0004,
            0x4500_0004,
            0x0440_0004,
        ] {
            for abi in ABIS {
                assert_eq!(says(abi, &[jump], &[NOP, JR_RA, NOP]), None, "{jump:x}");
                assert_eq!(says(abi, &[jump, NOP], &[NOP, JR_RA, NOP]), sp(0, None, None), "{jump:x}");
                // It is not known what is before.
                assert_eq!(says(abi, &[], &[NOP, JR_RA, NOP]), None);
            }
        }
        // mfc1 v0, $f0; add.s $f0, $f0, $f0
        for other in [0x4402_0000, 0x4600_0000] {
            assert_eq!(says(Abi::O32, &[other], &[JR_RA, NOP]), sp(0, None, None), "{other:x}");
        }
    }

    #[test]
    fn the_global_pointer_is_computed_where_the_function_is_entered() {
        // lui gp, 1; addiu gp, gp, 1; addu gp, gp, t9
        let all = [0x3c1c_0001, 0x279c_0001, 0x0399_e021];
        for pc in 0..3 {
            let (before, at) = all.split_at(pc);
            assert_eq!(says(Abi::O32, before, at), sp(0, None, None), "{pc}");
            // addiu sp, sp, -56
            let (before, at) = ([&[JR_RA, NOP], before].concat(), [at, &[0x27bd_ffc8]].concat());
            assert_eq!(says(Abi::O32, &before, &at), sp(0, None, None), "{pc}");
            for abi in [Abi::N32, Abi::N64] {
                assert_eq!(says(abi, &before, &at), None);
            }
        }
        assert_eq!(says(Abi::O32, &all, &[0x27bd_ffc8]), None);
        for missing in 0..3 {
            for pc in 0..3 {
                let mut other = all;
                other[missing] ^= 1 << 16;
                let (before, at) = other.split_at(pc);
                assert_eq!(says(Abi::O32, before, at), None);
            }
        }
    }

    #[test]
    fn a_shorter_window_never_says_something_else() {
        let all = [
            JR_RA,
            NOP,
            0x3c1c_0001,
            0x279c_0001,
            0x0399_e021,
            0x27bd_ffc8,
            0x8fbf_0034,
            0x8fbe_0030,
            JR_RA,
            ADDIU,
            NOP,
        ];
        for order in [ByteOrder::Little, ByteOrder::Big] {
            let all = bytes(order, &all);
            let arch = Mips::new(Abi::O32, order);
            for pc in 0..all.len() {
                let say = |start: usize, end: usize| {
                    rule(&arch, &Code { before: &all[start..pc], at: &all[pc..end] })
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
