//! From a rule to a row's data words.

use core::fmt;

use super::header::{Abi, Version};
use crate::{Base, CfaRule, FpRule, FrameKind, RaRule, Register, UnwindUserFrame};

/// Why a section cannot say something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Inexpressible {
    /// The frame is a signal frame; version 3 is the first that can say so.
    SignalFrame,
    /// The frame is outermost; version 2 is the first that can say so.
    Outermost,
    /// The CFA is only a lower bound of the caller's sp.
    SpIsBound,
    /// The CFA rests on a register other than sp and fp; version 3 is the first that can say so.
    CfaRegister,
    /// The CFA is a word in memory; version 3 is the first that can say so.
    CfaInMemory,
    /// The CFA is a word in memory plus a constant.
    CfaSum,
    /// The CFA's offset is not 160 more than a multiple of 8, as it always is on s390x.
    CfaOffset,
    /// The return address is somewhere that rows of this version and ABI cannot say.
    ReturnAddress,
    /// The caller's frame pointer is somewhere that rows of this version and ABI cannot say.
    FramePointer,
    /// The frame pointer is saved and the return address is not: on AArch64, version 3 is the first
    /// that can say so without doubt.
    FramePointerAlone,
    /// The caller's frame pointer is lost.
    FramePointerLost,
    /// A register with a number that has no place in a row.
    RegisterNumber,
    /// A function is longer than 4 GiB, ends beyond the last address, or begins further from the
    /// section than its version can say (2 GiB before version 3).
    Address,
    /// Rows are not in ascending order, or begin behind the end of the function.
    RowOrder,
    /// Rows of code in blocks: a row that cannot be said leaves the rest without meaning; and
    /// version 1 knows blocks of 16 bytes only.
    Blocks,
    /// Another function covers some of the same addresses. Which of the two holds there nobody can
    /// tell, so neither is written.
    Overlap,
}

impl fmt::Display for Inexpressible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Inexpressible::SignalFrame => "signal frame",
            Inexpressible::Outermost => "outermost frame",
            Inexpressible::SpIsBound => "CFA that is a lower bound",
            Inexpressible::CfaRegister => "CFA on another register",
            Inexpressible::CfaInMemory => "CFA in memory",
            Inexpressible::CfaSum => "CFA in memory plus a constant",
            Inexpressible::CfaOffset => "CFA offset of the wrong alignment",
            Inexpressible::ReturnAddress => "place of the return address",
            Inexpressible::FramePointer => "place of the frame pointer",
            Inexpressible::FramePointerAlone => "frame pointer saved without return address",
            Inexpressible::FramePointerLost => "lost frame pointer",
            Inexpressible::RegisterNumber => "register number",
            Inexpressible::Address => "address or length out of range",
            Inexpressible::RowOrder => "rows out of order",
            Inexpressible::Blocks => "code in blocks",
            Inexpressible::Overlap => "overlap with another function",
        })
    }
}

impl core::error::Error for Inexpressible {}

/// The words of a row, in the kind of rows it fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowWords {
    /// A default row's CFA is based on sp, not on fp.
    pub(super) on_sp: bool,
    words: [Word; 6],
    count: u8,
}

/// One data word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Stored as a signed number.
    Offset(i32),
    /// Stored as an unsigned number.
    Control(u16),
}

impl RowWords {
    /// The row of an outermost frame, of either kind: no words.
    const NONE: RowWords = RowWords { on_sp: false, words: [Word::Offset(0); 6], count: 0 };

    fn push(&mut self, word: Word) {
        if let Some(slot) = self.words.get_mut(usize::from(self.count)) {
            *slot = word;
            self.count = self.count.saturating_add(1);
        }
    }

    fn push_place(&mut self, control: u16, offset: i32) {
        self.push(Word::Control(control));
        self.push(Word::Offset(offset));
    }

    /// The words, in order.
    pub(super) fn words(&self) -> &[Word] {
        self.words.get(..usize::from(self.count)).unwrap_or_default()
    }

    pub(super) fn count(&self) -> u8 {
        self.count
    }

    /// The size in bytes of each word: the least that every one fits into.
    pub(super) fn word_size(&self) -> u8 {
        self.words().iter().map(Word::size).max().unwrap_or(1)
    }

    /// The size in bytes of the row without its start.
    pub(super) fn size(&self) -> u64 {
        u64::from(self.count).saturating_mul(u64::from(self.word_size())).saturating_add(1)
    }
}

impl Word {
    fn size(&self) -> u8 {
        match self {
            Word::Offset(offset) if i8::try_from(*offset).is_ok() => 1,
            Word::Offset(offset) if i16::try_from(*offset).is_ok() => 2,
            Word::Offset(_) => 4,
            Word::Control(control) if u8::try_from(*control).is_ok() => 1,
            Word::Control(_) => 2,
        }
    }
}

/// A rule as a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rowed {
    /// As a default row, if it can be one.
    pub(super) default: Option<RowWords>,
    /// As a flexible row, if it can be one. In version 3 whatever can be a default row can.
    pub(super) flexible: Option<RowWords>,
    /// Whether it is a signal frame; an outermost frame fits into functions of both kinds.
    pub(super) kind: Option<FrameKind>,
}

/// The row that says what `frame` says.
pub(super) fn row(version: Version, abi: Abi, frame: &UnwindUserFrame) -> Result<Rowed, Inexpressible> {
    if frame.ra() == RaRule::Undefined {
        if version == Version::V1 {
            return Err(Inexpressible::Outermost);
        }
        let flexible = (version == Version::V3).then_some(RowWords::NONE);
        return Ok(Rowed { default: Some(RowWords::NONE), flexible, kind: None });
    }
    if frame.sp_is_bound() {
        return Err(Inexpressible::SpIsBound);
    }
    if frame.kind() == FrameKind::Signal && version != Version::V3 {
        return Err(Inexpressible::SignalFrame);
    }
    let rules = Rules { version, abi, cfa: frame.cfa(), ra: frame.ra(), fp: frame.fp() };
    let kind = Some(frame.kind());
    match (rules.default(), version) {
        (default, Version::V3) => {
            let flexible = rules.flexible()?;
            Ok(Rowed { default: default.ok(), flexible: Some(flexible), kind })
        }
        (default, _) => Ok(Rowed { default: Some(default?), flexible: None, kind }),
    }
}

/// What a frame says, for a section of this version and ABI.
struct Rules {
    version: Version,
    abi: Abi,
    cfa: CfaRule,
    ra: RaRule,
    fp: FpRule,
}

/// A saved register as a default row has it.
enum Saved {
    /// In its register.
    No,
    Word(i32),
}

impl Rules {
    fn default(&self) -> Result<RowWords, Inexpressible> {
        let mut row = RowWords::NONE;
        let CfaRule::Offset { base, offset } = self.cfa else {
            return Err(Inexpressible::CfaInMemory);
        };
        row.on_sp = match self.number(base)? {
            number if number == self.abi.sp().0 => true,
            number if number == self.abi.fp().0 => false,
            _ => return Err(Inexpressible::CfaRegister),
        };
        row.push(Word::Offset(self.cfa_word(offset)?));
        let fp = self.default_fp()?;
        if self.abi == Abi::Amd64 {
            // Where the return address is, the header says.
            if self.ra != RaRule::AtCfa(AMD64_RA_OFFSET) {
                return Err(Inexpressible::ReturnAddress);
            }
        } else {
            match (self.default_ra()?, &fp) {
                (Saved::Word(word), _) => row.push(Word::Offset(word)),
                (Saved::No, Saved::No) => {}
                (Saved::No, Saved::Word(_)) if self.abi == Abi::S390x => row.push(Word::Offset(0)),
                (Saved::No, Saved::Word(_)) => return Err(Inexpressible::FramePointerAlone),
            }
        }
        if let Saved::Word(word) = fp {
            row.push(Word::Offset(word));
        }
        Ok(row)
    }

    fn default_ra(&self) -> Result<Saved, Inexpressible> {
        match self.ra {
            RaRule::InRegister { base, offset: 0 } if self.number(base)? == self.abi.ra().0 => Ok(Saved::No),
            RaRule::InRegister { base, offset: 0 } => self.named(base).ok_or(Inexpressible::ReturnAddress),
            // 0 is padding.
            RaRule::AtCfa(offset) if offset != 0 || self.version == Version::V1 => {
                self.slot(offset).ok_or(Inexpressible::ReturnAddress)
            }
            _ => Err(Inexpressible::ReturnAddress),
        }
    }

    fn default_fp(&self) -> Result<Saved, Inexpressible> {
        match self.fp {
            FpRule::Unchanged => Ok(Saved::No),
            FpRule::AtCfa(offset) => self.slot(offset).ok_or(Inexpressible::FramePointer),
            FpRule::InRegister { base, offset: 0 } => self.named(base).ok_or(Inexpressible::FramePointer),
            FpRule::Undefined => Err(Inexpressible::FramePointerLost),
            _ => Err(Inexpressible::FramePointer),
        }
    }

    /// The word for "saved at CFA + offset".
    fn slot(&self, offset: i32) -> Option<Saved> {
        (offset & 1 == 0 || !self.names_registers()).then_some(Saved::Word(offset))
    }

    /// The word for "in this register".
    fn named(&self, base: Base) -> Option<Saved> {
        if !self.names_registers() {
            return None;
        }
        let number = i32::from(self.number(base).ok()?);
        Some(Saved::Word(number.checked_mul(2)? | 1))
    }

    /// Whether an odd word is the name of a register.
    fn names_registers(&self) -> bool {
        self.abi == Abi::S390x && self.version == Version::V2
    }

    fn flexible(&self) -> Result<RowWords, Inexpressible> {
        let mut row = RowWords::NONE;
        let (base, offset, deref) = match self.cfa {
            CfaRule::Offset { base, offset } => (base, offset, 0),
            CfaRule::Deref { base, offset, add: 0 } => (base, offset, DEREF),
            CfaRule::Deref { .. } => return Err(Inexpressible::CfaSum),
        };
        row.push_place(self.control(base)? | deref, self.cfa_word(offset)?);
        let ra = match self.ra {
            RaRule::AtCfa(AMD64_RA_OFFSET) if self.abi == Abi::Amd64 => None,
            RaRule::InRegister { base, offset: 0 }
                if self.abi != Abi::Amd64 && self.number(base)? == self.abi.ra().0 =>
            {
                None
            }
            RaRule::AtCfa(offset) => Some((DEREF, offset)),
            RaRule::InRegister { base, offset } => Some((self.control(base)?, offset)),
            RaRule::AtRegister { base, offset } => Some((self.control(base)? | DEREF, offset)),
            RaRule::Undefined => return Err(Inexpressible::Outermost),
        };
        let fp = match self.fp {
            FpRule::Unchanged => None,
            FpRule::AtCfa(offset) => Some((DEREF, offset)),
            FpRule::InRegister { base, offset } => Some((self.control(base)?, offset)),
            FpRule::AtRegister { base, offset } => Some((self.control(base)? | DEREF, offset)),
            // Its control word would be that of the default.
            FpRule::CfaOffset(_) => return Err(Inexpressible::FramePointer),
            FpRule::Undefined => return Err(Inexpressible::FramePointerLost),
        };
        match (ra, fp) {
            (Some((control, offset)), _) => row.push_place(control, offset),
            (None, Some(_)) => row.push(Word::Control(0)),
            (None, None) => {}
        }
        if let Some((control, offset)) = fp {
            row.push_place(control, offset);
        }
        Ok(row)
    }

    /// The control word for a base register.
    fn control(&self, base: Base) -> Result<u16, Inexpressible> {
        let number = self.number(base)?;
        Ok(number.wrapping_shl(3) | ON_REGISTER)
    }

    /// The DWARF number of a base register.
    fn number(&self, base: Base) -> Result<u16, Inexpressible> {
        let Register(number) = match base {
            Base::Sp => self.abi.sp(),
            Base::Fp => self.abi.fp(),
            Base::Register(register) => register,
        };
        if number < REGISTERS { Ok(number) } else { Err(Inexpressible::RegisterNumber) }
    }

    /// The word for the CFA's offset: without its bias and in words on s390x.
    fn cfa_word(&self, offset: i32) -> Result<i32, Inexpressible> {
        if self.abi != Abi::S390x {
            return Ok(offset);
        }
        match offset.checked_sub(160) {
            Some(unbiased) if unbiased & 7 == 0 => Ok(unbiased.wrapping_shr(3)),
            _ => Err(Inexpressible::CfaOffset),
        }
    }
}

/// Where AMD64's call instruction puts the return address, from the CFA.
pub(super) const AMD64_RA_OFFSET: i32 = -8;

/// Control word: the base is a register, whose number is in the bits from 3 on.
const ON_REGISTER: u16 = 1;

/// Control word: the word stored there.
const DEREF: u16 = 2;

/// Numbers from here on are no registers to a reader.
const REGISTERS: u16 = 128;
