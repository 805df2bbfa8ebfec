//! What the instruction at an exact pc says by itself.
//!
//! Only what leaves no doubt, for code that no table covers; where there is doubt, there is no
//! rule.
//!
//! * **`ret`** (`jr ra`), and what only leads to it: loads of words from the stack, additions to sp,
//!   instructions that change other registers than ra, sp and s0. They tell what will be executed
//!   next, and sp must then be the caller's again. (At each of the 4,500 such places of glibc 2.36 that
//!   call frame information covers, it says the same.)
//! * **A frame record being made**: `addi sp, sp, -n`, stores of ra and s0 beside each other, and
//!   `addi s0, sp, m` that lets s0 point right behind them; other stores may be in between. The first
//!   of a function's instructions these need not be: sp is only a lower bound of the caller's.
//!
//! There is no rule for the first instruction as such: nothing marks it. (`lpad` of Zicfilp also
//! marks the targets of computed jumps.)

use unwind_core::{Base, CfaRule, Code, FpRule, RaRule, UnwindUserFrame, WordSize};

use crate::{RA, S0, SP};

mod decode;

use decode::{Instruction, decode};

/// The rule that the instruction at the pc implies.
pub(crate) fn rule(word: WordSize, code: &Code<'_>) -> Option<UnwindUserFrame> {
    epilogue(word, code.at).or_else(|| prologue(word, code))
}

/// Follows the instructions at the pc to the `ret`, if they lead straight there.
fn epilogue(word: WordSize, mut rest: &[u8]) -> Option<UnwindUserFrame> {
    // From sp at the pc.
    let mut sp: i32 = 0;
    let (mut ra, mut fp) = (None, None);
    // Every turn takes at least two of the window's 16 bytes.
    loop {
        let instruction;
        (instruction, rest) = decode(word, rest)?;
        match instruction {
            Instruction::Return => break,
            Instruction::AddToSp(size) if size > 0 => sp = sp.checked_add(size)?,
            Instruction::Load(RA, offset) => ra = Some(sp.checked_add(offset)?),
            Instruction::Load(S0, offset) => fp = Some(sp.checked_add(offset)?),
            Instruction::Load(register, _) | Instruction::Changes(register)
                if ![RA, SP, S0].contains(&register) => {}
            Instruction::Nothing => {}
            _ => return None,
        }
    }
    let ra = match ra {
        Some(at) => RaRule::AtCfa(at.checked_sub(sp)?),
        None => RaRule::InRegister { base: Base::Register(RA), offset: 0 },
    };
    let fp = match fp {
        Some(at) => FpRule::AtCfa(at.checked_sub(sp)?),
        None => FpRule::Unchanged,
    };
    UnwindUserFrame::new(CfaRule::Offset { base: Base::Sp, offset: sp }, ra, fp)
}

/// Looks for the making of a frame record around the pc. Nothing that the pc can be before has changed
/// ra or s0.
fn prologue(word: WordSize, code: &Code<'_>) -> Option<UnwindUserFrame> {
    if record_size(word, &[], code.at).is_some() {
        return Some(UnwindUserFrame::leaf(0, RA)?.with_sp_bound());
    }
    // The pc may be at a later instruction of it; the first has 2 or 4 bytes.
    let mut before = code.before;
    while !before.is_empty() {
        if let Some(size) = record_size(word, before, code.at) {
            return Some(UnwindUserFrame::leaf(size, RA)?.with_sp_bound());
        }
        before = before.get(2..).unwrap_or_default();
    }
    None
}

/// How far sp is moved down, if the making of a frame record begins with `before` and reaches its end
/// in `at`. The border between the two must be one of instructions.
fn record_size<'c>(word: WordSize, mut before: &'c [u8], mut at: &'c [u8]) -> Option<i32> {
    let mut next = || {
        let is_after = before.is_empty();
        let part = if is_after { &mut at } else { &mut before };
        let (instruction, rest) = decode(word, part)?;
        *part = rest;
        Some((instruction, is_after))
    };
    let (Instruction::AddToSp(down @ ..0), _) = next()? else {
        return None;
    };
    let size = 0i32.checked_sub(down)?;
    let (mut ra, mut fp) = (None, None);
    loop {
        match next()? {
            (Instruction::Store(RA, offset), _) if ra.is_none() => ra = Some(offset),
            (Instruction::Store(S0, offset), _) if fp.is_none() => fp = Some(offset),
            (Instruction::Store(..), _) => {}
            (Instruction::PointFp(offset), true) => {
                let bytes = match word {
                    WordSize::Four => 4,
                    WordSize::Eight => 8,
                };
                let behind = |at: Option<i32>| at?.checked_add(bytes);
                let is_record = behind(ra) == Some(offset) && behind(fp) == ra && offset <= size;
                return is_record.then_some(size);
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    const W64: WordSize = WordSize::Eight;
    const W32: WordSize = WordSize::Four;

    // All as gas writes them.
    const RET: &[u8] = &[0x67, 0x80, 0x00, 0x00];
    const C_RET: &[u8] = &[0x82, 0x80];
    const NOP: &[u8] = &[0x13, 0x00, 0x00, 0x00];

    fn says(word: WordSize, before: &[&[u8]], at: &[&[u8]]) -> Option<UnwindUserFrame> {
        rule(word, &Code { before: &before.concat(), at: &at.concat() })
    }

    /// CFA = sp + `cfa`; the return address and s0 in their registers, or below it.
    fn sp(cfa: i32, ra: Option<i32>, fp: Option<i32>) -> Option<UnwindUserFrame> {
        let in_ra = RaRule::InRegister { base: Base::Register(RA), offset: 0 };
        UnwindUserFrame::new(
            CfaRule::Offset { base: Base::Sp, offset: cfa },
            ra.map_or(in_ra, RaRule::AtCfa),
            fp.map_or(FpRule::Unchanged, FpRule::AtCfa),
        )
    }

    fn bound(frame: Option<UnwindUserFrame>) -> Option<UnwindUserFrame> {
        frame.map(UnwindUserFrame::with_sp_bound)
    }

    #[test]
    fn a_return_says_where_it_goes() {
        for word in [W32, W64] {
            for ret in [RET, C_RET] {
                assert_eq!(says(word, &[NOP], &[ret]), sp(0, None, None));
                // c.addi16sp sp, 32; c.addi16sp sp, 496; c.addi sp, 16; addi sp, sp, 32
                for (add, size) in [
                    (&[0x05, 0x61][..], 32),
                    (&[0x7d, 0x61], 496),
                    (&[0x41, 0x01], 16),
                    (&[0x13, 0x01, 0x01, 0x02], 32),
                ] {
                    assert_eq!(says(word, &[], &[add, ret]), sp(size, None, None));
                    // c.mv a0, a5; c.fldsp fs0, 8(sp)
                    for other in [&[0x3e, 0x85][..], &[0x22, 0x24]] {
                        assert_eq!(says(word, &[], &[other, add, ret]), sp(size, None, None));
                        assert_eq!(says(word, &[], &[add, other, ret]), sp(size, None, None));
                    }
                    assert_eq!(says(word, &[], &[add]), None);
                    assert_eq!(says(word, &[], &[add, NOP]), None);
                }
                // c.addi16sp sp, -32; c.addi sp, -16; addi sp, sp, -32
                for add in [&[0x3d, 0x71][..], &[0x41, 0x11], &[0x13, 0x01, 0x01, 0xfe]] {
                    assert_eq!(says(word, &[], &[add, ret]), None);
                }
            }
            // jr t0; jalr ra; c.jr t0; c.jalr ra; c.ebreak; ecall
            for other in [
                &[0x67, 0x80, 0x02, 0x00][..],
                &[0xe7, 0x80, 0x00, 0x00],
                &[0x82, 0x82],
                &[0x82, 0x90],
                &[0x02, 0x90],
                &[0x73, 0x00, 0x00, 0x00],
            ] {
                assert_eq!(says(word, &[], &[other]), None, "{other:x?}");
                assert_eq!(says(word, &[], &[other, C_RET]), None, "{other:x?}");
            }
        }
    }

    #[test]
    fn what_is_loaded_on_the_way() {
        // c.ldsp ra, 24(sp); c.ldsp s0, 16(sp); c.ldsp s1, 504(sp); c.addi16sp sp, 32
        let all: [&[u8]; 5] = [&[0xe2, 0x60], &[0x42, 0x64], &[0xfe, 0x74], &[0x05, 0x61], C_RET];
        assert_eq!(says(W64, &[], &all), sp(32, Some(-8), Some(-16)));
        assert_eq!(says(W64, &all[..1], &all[1..]), sp(32, None, Some(-16)));
        assert_eq!(says(W64, &all[..2], &all[2..]), sp(32, None, None));
        // The same bytes are floating-point loads of RV32.
        assert_eq!(says(W32, &[], &all), sp(32, None, None));
        // ld ra, 24(sp); ld s0, -8(sp); addi sp, sp, 32
        let all: [&[u8]; 4] =
            [&[0x83, 0x30, 0x81, 0x01], &[0x03, 0x34, 0x81, 0xff], &[0x13, 0x01, 0x01, 0x02], C_RET];
        assert_eq!(says(W64, &[], &all), sp(32, Some(-8), Some(-40)));
        // lw ra, 12(sp); c.lwsp s0, 8(sp); c.lwsp ra, 252(sp); c.addi sp, 16
        let add = &[0x41, 0x01];
        for ra in [&[0x83, 0x20, 0xc1, 0x00][..], &[0xb2, 0x40]] {
            assert_eq!(says(W32, &[], &[ra, &[0x22, 0x44], add, C_RET]), sp(16, Some(-4), Some(-8)));
            // Half of a word.
            assert_eq!(says(W64, &[], &[ra, add, C_RET]), None);
        }
        assert_eq!(says(W32, &[], &[&[0xfe, 0x50], add, C_RET]), sp(16, Some(236), None));
        // Behind the addition. ld ra, 24(sp)
        assert_eq!(says(W64, &[], &[add, &[0xe2, 0x60], C_RET]), sp(16, Some(24), None));
        // c.mv ra, a5; c.mv s0, a5; c.mv sp, s0; ld sp, 8(sp); c.addi4spn s0, sp, 32
        for other in
            [&[0xbe, 0x80][..], &[0x3e, 0x84], &[0x22, 0x81], &[0x03, 0x31, 0x81, 0x00], &[0x00, 0x10]]
        {
            assert_eq!(says(W64, &[], &[other, C_RET]), None, "{other:x?}");
        }
    }

    /// The making of a frame record, as GCC does it: how sp is moved, and the instructions.
    const RECORDS: [(WordSize, i32, &[&[u8]]); 4] = [
        // c.addi16sp sp, -32; c.sdsp ra, 24(sp); c.sdsp s0, 16(sp); c.addi4spn s0, sp, 32
        (W64, 32, &[&[0x3d, 0x71], &[0x06, 0xec], &[0x22, 0xe8], &[0x00, 0x10]]),
        // A variadic one: c.addi16sp sp, -112; ra at 40, s0 at 32, c.addi4spn s0, sp, 48
        (W64, 112, &[&[0x59, 0x71], &[0x06, 0xf4], &[0x22, 0xf0], &[0x00, 0x18]]),
        // addi sp, sp, -32; sd ra, 24(sp); sd s0, 16(sp); addi s0, sp, 32
        (
            W64,
            32,
            &[
                &[0x13, 0x01, 0x01, 0xfe],
                &[0x23, 0x3c, 0x11, 0x00],
                &[0x23, 0x38, 0x81, 0x00],
                &[0x13, 0x04, 0x01, 0x02],
            ],
        ),
        // c.addi sp, -16; c.swsp ra, 12(sp); c.swsp s0, 8(sp); c.addi4spn s0, sp, 16
        (W32, 16, &[&[0x41, 0x11], &[0x06, 0xc6], &[0x22, 0xc4], &[0x00, 0x08]]),
    ];

    #[test]
    fn a_frame_record_being_made() {
        for (word, size, all) in RECORDS {
            for before in [&[][..], NOP, C_RET] {
                assert_eq!(says(word, &[before], all), bound(sp(0, None, None)));
                for made in 1..4 {
                    let done = [&[before], &all[..made]].concat();
                    assert_eq!(says(word, &done, &all[made..]), bound(sp(size, None, None)), "{made}");
                }
                // The frame pointer tells from here on.
                assert_eq!(says(word, &[&[before], all].concat(), &[NOP]), None);
            }
            // Without one of them, there is no record.
            for missing in 0..4 {
                let rest: Vec<_> = (0..4).filter(|at| *at != missing).map(|at| all[at]).collect();
                for pc in 0..3 {
                    assert_eq!(says(word, &rest[..pc], &rest[pc..]), None);
                }
            }
        }
        // c.sdsp s1, 24(sp) in between; ra and s0 in each other's place.
        let [down, ra, s0, fp] = [0, 1, 2, 3].map(|at| RECORDS[0].2[at]);
        let s1: &[u8] = &[0x26, 0xec];
        assert_eq!(says(W64, &[], &[down, ra, s0, s1, fp]), bound(sp(0, None, None)));
        assert_eq!(says(W64, &[down, ra], &[s0, s1, fp]), bound(sp(32, None, None)));
        let turned: [&[u8]; 4] = [down, &[0x22, 0xec], &[0x06, 0xe8], fp];
        assert_eq!(says(W64, &[], &turned), None);
        // c.addi4spn s0, sp, 48: not right behind them, and above the caller's sp.
        assert_eq!(says(W64, &[], &[down, ra, s0, &[0x00, 0x18]]), None);
    }

    #[test]
    fn every_size_of_frame() {
        for size in (16..2048u32).step_by(16) {
            let add = (size << 20 | 0x0001_0113).to_le_bytes();
            let size = size.cast_signed();
            assert_eq!(says(W64, &[], &[&add, RET]), sp(size, None, None));
            assert_eq!(says(W32, &[], &[&add, RET]), sp(size, None, None));
        }
        for size in (16..512u32).step_by(16) {
            // c.addi16sp: bits 9, 4, 6, 8:7, 5 of the number.
            let bit = |from: u32, to: u32| (size >> from & 1) << to;
            let add = 0x6101 | bit(9, 12) | bit(4, 6) | bit(6, 5) | bit(7, 3) | bit(8, 4) | bit(5, 2);
            let add = u16::try_from(add).unwrap().to_le_bytes();
            assert_eq!(says(W64, &[], &[&add, RET]), sp(size.cast_signed(), None, None));
        }
    }

    #[test]
    fn a_shorter_window_never_says_something_else() {
        let epilogue: &[&[u8]] = &[&[0xe2, 0x60], &[0x42, 0x64], &[0x05, 0x61], C_RET];
        for record in RECORDS {
            let all: Vec<u8> = [NOP, &record.2.concat(), &epilogue.concat(), NOP].concat();
            for pc in 0..all.len() {
                let code = |start: usize, end: usize| Code { before: &all[start..pc], at: &all[pc..end] };
                let (first, last) = (pc.saturating_sub(16), all.len().min(pc + 16));
                let full = rule(record.0, &code(first, last));
                for end in pc..last {
                    let cut = rule(record.0, &code(first, end));
                    assert!(cut.is_none() || cut == full, "at {pc} cut to {end}");
                }
                for start in first..=pc {
                    let cut = rule(record.0, &code(start, last));
                    assert!(cut.is_none() || cut == full, "at {pc} from {start}");
                }
            }
        }
    }

    #[test]
    fn every_halfword_is_decoded_or_not() {
        for first in 0..=u16::MAX {
            for word in [W32, W64] {
                let bytes = [&first.to_le_bytes()[..], &[0; 2]].concat();
                // Nothing but the end of the code ends the search.
                let _ = rule(word, &Code { before: &bytes, at: &bytes });
            }
        }
    }
}
