//! The unwinding instructions, decoded (EHABI32, "Frame unwinding instructions", table 4).

use core::fmt;

use super::section::word;
use crate::{Broken, ByteOrder, SourceError};

/// One unwinding instruction. What "pops" takes registers from the virtual stack pointer upwards,
/// the lowest numbered first, and moves it behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// The virtual stack pointer moves up by so many bytes: `00xxxxxx`, `10110010 uleb128`.
    AddVsp(u32),
    /// It moves down by so many bytes: `01xxxxxx`.
    SubVsp(u32),
    /// This frame is not to be unwound: `10000000 00000000`.
    Refuse,
    /// Pops core registers, bit n for rn: `1000iiii iiiiiiii`, `1010xnnn`, `10110001 0000iiii`.
    /// Where r13 is one of them, the virtual stack pointer becomes what was popped.
    Pop(u16),
    /// The virtual stack pointer becomes that register: `1001nnnn`.
    SetVsp(u8),
    /// The end: `10110000`.
    Finish,
    /// Pops double-precision registers, 8 bytes each: `11001000 sssscccc`, `11001001 sssscccc`,
    /// `11010nnn` as VPUSH saves them; `10110011 sssscccc`, `10111nnn` as FSTMFDX does, which adds
    /// a word.
    PopVfp {
        /// The number of the first register: 0 to 31.
        first: u8,
        /// How many: 1 to 16.
        count: u8,
        /// Whether they were saved as if by FSTMFDX.
        fstmfdx: bool,
    },
    /// Pops Wireless MMX data registers, 8 bytes each: `11000nnn`, `11000110 sssscccc`.
    PopWmmx {
        /// The number of the first register: 0 to 15.
        first: u8,
        /// How many: 1 to 16.
        count: u8,
    },
    /// Pops Wireless MMX control registers, bit n for wCGRn, 4 bytes each: `11000111 0000iiii`.
    PopWmmxControl(u8),
    /// Pops the return address authentication code, 4 bytes: `10110100`.
    PopAuthCode,
    /// The virtual stack pointer at this place is what the return address is authenticated with:
    /// `10110101`. Says nothing about registers.
    AuthModifier,
}

impl fmt::Display for Instruction {
    /// As `readelf -u` writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Instruction::AddVsp(bytes) => write!(f, "vsp = vsp + {bytes}"),
            Instruction::SubVsp(bytes) => write!(f, "vsp = vsp - {bytes}"),
            Instruction::Refuse => f.write_str("Refuse to unwind"),
            Instruction::Pop(mask) => list(f, "r", mask),
            Instruction::SetVsp(register) => write!(f, "vsp = r{register}"),
            Instruction::Finish => f.write_str("finish"),
            Instruction::PopVfp { first, count, .. } => range(f, "D", first, count),
            Instruction::PopWmmx { first, count } => range(f, "wR", first, count),
            Instruction::PopWmmxControl(mask) => list(f, "wCGR", mask.into()),
            Instruction::PopAuthCode => f.write_str("pop {ra_auth_code}"),
            Instruction::AuthModifier => f.write_str("vsp as modifier for PAC validation"),
        }
    }
}

/// The numbers of the bits that are set.
pub(super) fn bits(mask: u16) -> impl Iterator<Item = u8> {
    let mut left = mask;
    core::iter::from_fn(move || {
        let [number, ..] = left.trailing_zeros().to_le_bytes();
        let found = (left != 0).then_some(number);
        left &= left.wrapping_sub(1);
        found
    })
}

fn list(f: &mut fmt::Formatter<'_>, name: &str, mask: u16) -> fmt::Result {
    f.write_str("pop {")?;
    let mut before = "";
    for number in bits(mask) {
        write!(f, "{before}{name}{number}")?;
        before = ", ";
    }
    f.write_str("}")
}

fn range(f: &mut fmt::Formatter<'_>, name: &str, first: u8, count: u8) -> fmt::Result {
    match count.saturating_sub(1) {
        0 => write!(f, "pop {{{name}{first}}}"),
        more => write!(f, "pop {{{name}{first}-{name}{}}}", first.saturating_add(more)),
    }
}

/// The instructions of an entry, in the order in which they are carried out. Ends after
/// [`Instruction::Finish`], which is added where the entry does not say it, after
/// [`Instruction::Refuse`], and after an error.
#[derive(Clone, Debug)]
pub struct Instructions<'d> {
    /// What is left of the word at hand, in its uppermost bytes.
    word: u32,
    /// How many bytes that is.
    left: u8,
    /// The words that follow.
    rest: &'d [u8],
    order: ByteOrder,
    /// The offset of the entry.
    offset: u64,
    ended: bool,
}

impl<'d> Instructions<'d> {
    /// None at all.
    pub(super) const NONE: Self =
        Instructions { word: 0, left: 0, rest: &[], order: ByteOrder::Little, offset: 0, ended: false };

    /// Those in the lowest `left` bytes of a word, and in the words of `rest`.
    pub(super) fn new(first: u32, left: u8, rest: &'d [u8], order: ByteOrder, offset: u64) -> Self {
        let unused = 32u32.saturating_sub(u32::from(left).saturating_mul(8));
        Instructions { word: first.wrapping_shl(unused), left, rest, order, offset, ended: false }
    }

    /// The next byte: the most significant of the word at hand.
    fn byte(&mut self) -> Option<u8> {
        if self.left == 0 {
            self.word = word(self.rest, 0, self.order)?;
            self.rest = self.rest.get(4..).unwrap_or_default();
            self.left = 4;
        }
        let [byte, ..] = self.word.to_be_bytes();
        self.word = self.word.wrapping_shl(8);
        self.left = self.left.saturating_sub(1);
        Some(byte)
    }

    /// The second byte of an instruction.
    fn operand(&mut self) -> Result<u8, Broken> {
        self.byte().ok_or(Broken::UnexpectedEnd)
    }

    fn decode(&mut self) -> Result<Instruction, Broken> {
        let Some(byte) = self.byte() else {
            return Ok(Instruction::Finish);
        };
        let low = byte & 0x0f;
        // 1 to 8 registers.
        let few = (byte & 0x07).saturating_add(1);
        Ok(match byte {
            0x00..=0x3f => Instruction::AddVsp(words(byte)),
            0x40..=0x7f => Instruction::SubVsp(words(byte)),
            0x80..=0x8f => match u16::from_be_bytes([low, self.operand()?]) {
                0 => Instruction::Refuse,
                mask => Instruction::Pop(mask.wrapping_shl(4)),
            },
            // Reserved for moves between registers.
            0x9d | 0x9f => return Err(Broken::UnknownInstruction),
            0x90..=0x9f => Instruction::SetVsp(low),
            0xa0..=0xaf => {
                let from_r4 = 0x0ff0u16 & !0xfff0u16.wrapping_shl(u32::from(few));
                let lr = if byte & 0x08 == 0 { 0 } else { 1 << 14 };
                Instruction::Pop(from_r4 | lr)
            }
            0xb0 => Instruction::Finish,
            0xb1 => Instruction::Pop(u16::from(self.mask()?)),
            0xb2 => Instruction::AddVsp(self.uleb128()?),
            0xb3 => self.vfp(0, 15, true)?,
            0xb4 => Instruction::PopAuthCode,
            0xb5 => Instruction::AuthModifier,
            0xb8..=0xbf => Instruction::PopVfp { first: 8, count: few, fstmfdx: true },
            0xc0..=0xc5 => Instruction::PopWmmx { first: 10, count: few },
            0xc6 => {
                let (first, count) = self.run(15)?;
                Instruction::PopWmmx { first, count }
            }
            0xc7 => Instruction::PopWmmxControl(self.mask()?),
            0xc8 => self.vfp(16, 31, false)?,
            0xc9 => self.vfp(0, 31, false)?,
            0xd0..=0xd7 => Instruction::PopVfp { first: 8, count: few, fstmfdx: false },
            // Spare; 0xb6 and 0xb7 were for FPA registers.
            0xb6 | 0xb7 | 0xca..=0xcf | 0xd8..=0xff => return Err(Broken::UnknownInstruction),
        })
    }

    /// An operand `0000iiii`, not all of them 0. Others are spare.
    fn mask(&mut self) -> Result<u8, Broken> {
        match self.operand()? {
            mask @ 0x01..=0x0f => Ok(mask),
            _ => Err(Broken::UnknownInstruction),
        }
    }

    /// An operand `sssscccc`: registers ssss to ssss + cccc, as first and count. Ranges beyond
    /// register `last` are reserved.
    fn run(&mut self, last: u8) -> Result<(u8, u8), Broken> {
        let operand = self.operand()?;
        let (first, more) = (operand.wrapping_shr(4), operand & 0x0f);
        if first.saturating_add(more) > last {
            return Err(Broken::UnknownInstruction);
        }
        Ok((first, more.saturating_add(1)))
    }

    /// The same for double-precision registers from `base` to `last`.
    fn vfp(&mut self, base: u8, last: u8, fstmfdx: bool) -> Result<Instruction, Broken> {
        let (first, count) = self.run(last.saturating_sub(base))?;
        Ok(Instruction::PopVfp { first: first.saturating_add(base), count, fstmfdx })
    }

    /// 0x204 and four times a LEB128 number: together below 4 GiB.
    fn uleb128(&mut self) -> Result<u32, Broken> {
        let mut value = 0u64;
        let mut shift = 0u32;
        // Each turn takes a byte of the entry, and its end is an error.
        loop {
            let byte = self.operand()?;
            let bits = u64::from(byte & 0x7f);
            if shift < 35 {
                value |= bits.wrapping_shl(shift);
            } else if bits != 0 {
                value = u64::MAX;
            }
            shift = shift.saturating_add(7);
            if byte & 0x80 == 0 {
                break;
            }
        }
        let bytes = value.saturating_mul(4).saturating_add(0x204);
        u32::try_from(bytes).map_err(|_| Broken::BadLeb128)
    }
}

impl Iterator for Instructions<'_> {
    type Item = Result<Instruction, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let decoded = self.decode();
        self.ended = matches!(decoded, Err(_) | Ok(Instruction::Finish | Instruction::Refuse));
        Some(decoded.map_err(|broken| SourceError { broken, offset: self.offset }))
    }
}

/// `xxxxxx`: 4 to 256 bytes.
fn words(byte: u8) -> u32 {
    u32::from(byte & 0x3f).wrapping_shl(2).wrapping_add(4)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests;
