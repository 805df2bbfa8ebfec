//! The rows of a function.

use super::header::{Abi, Header, Version};
use super::section::{Fde, RowKind, RowStart, SFrameSection};
use crate::{Base, Broken, Register, SourceError};

/// One row: what holds from its start to the next one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// Where it begins: an offset from the function's start, or in the block.
    pub start: u32,
    /// AArch64: the return address is signed here.
    pub is_mangled: bool,
    /// What it says.
    pub rule: RowRule,
}

/// What a row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowRule {
    /// The return address is undefined: nobody called this.
    Outermost,
    /// Where the CFA, the return address and the caller's frame pointer are.
    Frame {
        /// `base + offset`, or the word there.
        cfa: Place,
        /// `None`: in its register.
        ra: Option<Place>,
        /// `None`: unchanged.
        fp: Option<Place>,
    },
}

/// `base + offset`, or the word stored there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// `None`: the CFA.
    pub base: Option<Base>,
    /// In bytes.
    pub offset: i32,
    /// Whether it is the word stored there.
    pub deref: bool,
}

impl Place {
    /// The word stored at CFA + offset.
    const fn at_cfa(offset: i32) -> Self {
        Place { base: None, offset, deref: true }
    }
}

/// The rows of a function, in order.
#[derive(Clone, Debug)]
pub struct Rows<'d> {
    section: SFrameSection<'d>,
    row_start: RowStart,
    row_kind: RowKind,
    limit: u32,
    left: u32,
    offset: u64,
    last: Option<u32>,
}

/// A row as it is stored: its data words are found, but not read.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredRow {
    pub(super) start: u32,
    info: u8,
    /// Where it is in the section.
    offset: u64,
    words_at: u64,
}

impl<'d> Rows<'d> {
    pub(super) fn new(section: SFrameSection<'d>, fde: &Fde) -> Self {
        Rows {
            section,
            row_start: fde.row_start,
            row_kind: fde.row_kind,
            limit: fde.row_limit(),
            left: fde.row_count,
            offset: fde.rows_offset,
            last: None,
        }
    }

    /// The next row, as it is stored. After an error there is none: where the next one would begin
    /// is not known.
    pub(super) fn next_stored(&mut self) -> Option<Result<StoredRow, SourceError>> {
        self.left = self.left.checked_sub(1)?;
        let row = self.parse();
        if row.is_err() {
            self.left = 0;
        }
        Some(row)
    }

    fn parse(&mut self) -> Result<StoredRow, SourceError> {
        let section = &self.section;
        let offset = self.offset;
        let error = |broken| SourceError { broken, offset };
        let start = match self.row_start {
            RowStart::Addr1 => u32::from(section.read::<u8>(offset)?),
            RowStart::Addr2 => u32::from(section.read::<u16>(offset)?),
            RowStart::Addr4 => section.read::<u32>(offset)?,
        };
        // Assemblers put a row at the very end where directives follow the last instruction, or
        // where there is none. No pc will ever be in it.
        if start > self.limit {
            return Err(error(Broken::BadRow));
        }
        if self.last.is_some_and(|last| start <= last) {
            return Err(error(Broken::BadRow));
        }
        let info_at = offset.saturating_add(u64::from(self.row_start.size()));
        let info = section.read::<u8>(info_at)?;
        if info & 0x60 == 0x60 {
            return Err(error(Broken::BadRow));
        }
        let row = StoredRow { start, info, offset, words_at: info_at.saturating_add(1) };
        let end = row.words(section).end();
        let header = section.header();
        if end > header.fre_offset.saturating_add(u64::from(header.fre_size)) {
            return Err(error(Broken::UnexpectedEnd));
        }
        self.offset = end;
        self.last = Some(start);
        Ok(row)
    }

    /// What a stored row says.
    pub(super) fn read(&self, row: &StoredRow) -> Result<Row, SourceError> {
        let header = self.section.header();
        let words = row.words(&self.section);
        let rule = match (words.count, self.row_kind) {
            (0, _) => RowRule::Outermost,
            (_, RowKind::Default) => default_rule(header, &words, row.is_on_sp())?,
            (_, RowKind::Flexible) => flexible_rule(header, &words)?,
        };
        let is_aarch64 = matches!(header.abi, Abi::Aarch64Big | Abi::Aarch64Little);
        Ok(Row { start: row.start, is_mangled: is_aarch64 && row.is_mangled(), rule })
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let stored = self.next_stored()?;
        Some(stored.and_then(|row| self.read(&row)))
    }
}

impl StoredRow {
    /// The base of the CFA, in a default row: sp, else fp.
    pub(super) fn is_on_sp(&self) -> bool {
        self.info & 1 != 0
    }

    /// The return address is signed, where return addresses can be.
    pub(super) fn is_mangled(&self) -> bool {
        self.info & 0x80 != 0
    }

    pub(super) fn words<'s, 'd>(&self, section: &'s SFrameSection<'d>) -> Words<'s, 'd> {
        let size = match (self.info >> 5) & 3 {
            0 => 1,
            1 => 2,
            _ => 4,
        };
        Words { section, at: self.words_at, size, count: (self.info >> 1) & 0x0f, row: self.offset }
    }
}

/// The data words of a row.
pub(super) struct Words<'s, 'd> {
    section: &'s SFrameSection<'d>,
    at: u64,
    size: u8,
    pub(super) count: u8,
    row: u64,
}

impl Words<'_, '_> {
    fn end(&self) -> u64 {
        self.at.saturating_add(u64::from(self.size).saturating_mul(u64::from(self.count)))
    }

    fn offset(&self, index: u8) -> u64 {
        self.at.saturating_add(u64::from(self.size).saturating_mul(u64::from(index)))
    }

    /// The word as an offset, if the row has it.
    pub(super) fn signed(&self, index: u8) -> Result<Option<i32>, SourceError> {
        if index >= self.count {
            return Ok(None);
        }
        let at = self.offset(index);
        Ok(Some(match self.size {
            1 => i32::from(self.section.read::<i8>(at)?),
            2 => i32::from(self.section.read::<i16>(at)?),
            _ => self.section.read::<i32>(at)?,
        }))
    }

    /// The word as a control word, if the row has it.
    pub(super) fn unsigned(&self, index: u8) -> Result<Option<u32>, SourceError> {
        if index >= self.count {
            return Ok(None);
        }
        let at = self.offset(index);
        Ok(Some(match self.size {
            1 => u32::from(self.section.read::<u8>(at)?),
            2 => u32::from(self.section.read::<u16>(at)?),
            _ => self.section.read::<u32>(at)?,
        }))
    }

    pub(super) fn error(&self) -> SourceError {
        SourceError { broken: Broken::BadRow, offset: self.row }
    }
}

/// Offsets: the CFA's from sp or fp, then the return address's and the frame pointer's from the
/// CFA, as far as the header does not fix them.
fn default_rule(header: &Header, words: &Words<'_, '_>, on_sp: bool) -> Result<RowRule, SourceError> {
    let base = Some(if on_sp { Base::Sp } else { Base::Fp });
    let offset = cfa_offset(header, words.signed(0)?.ok_or(words.error())?, words)?;
    let cfa = Place { base, offset, deref: false };
    let mut next = 1;
    let ra = match header.fixed_ra_offset {
        0 => {
            next = 2;
            match words.signed(1)? {
                Some(word) if is_padding(header, word) => None,
                Some(word) => Some(saved(header, word, words)?),
                None => None,
            }
        }
        fixed => Some(Place::at_cfa(i32::from(fixed))),
    };
    let fp = match header.fixed_fp_offset {
        0 => match words.signed(next)? {
            Some(word) => {
                next = next.saturating_add(1);
                Some(saved(header, word, words)?)
            }
            None => None,
        },
        fixed => Some(Place::at_cfa(i32::from(fixed))),
    };
    if words.count > next {
        return Err(words.error());
    }
    Ok(RowRule::Frame { cfa, ra, fp })
}

/// Whether this word stands where the return address's offset would, so that the frame pointer's can
/// follow. The manual has it for s390x; binutils 2.47 reads it so for every ABI.
pub(super) fn is_padding(header: &Header, word: i32) -> bool {
    word == 0 && header.version != Version::V1
}

/// The number of the register that this word names instead of a slot: s390x before version 3.
pub(super) fn named_register(header: &Header, word: i32) -> Option<i32> {
    let names = header.abi == Abi::S390x && header.version != Version::V3 && word & 1 != 0;
    names.then_some(word >> 1)
}

/// Where a default row says that a register is saved.
fn saved(header: &Header, word: i32, words: &Words<'_, '_>) -> Result<Place, SourceError> {
    let Some(number) = named_register(header, word) else {
        return Ok(Place::at_cfa(word));
    };
    let number = u16::try_from(number).map_err(|_| words.error())?;
    Ok(Place { base: Some(base(header.abi, number, words)?), offset: 0, deref: false })
}

/// Pairs of a control word and an offset; a control word of 0 stands alone, for the ABI's default.
fn flexible_rule(header: &Header, words: &Words<'_, '_>) -> Result<RowRule, SourceError> {
    let mut next = 0;
    let mut cfa = flexible_place(header, words, &mut next)?.ok_or(words.error())?;
    if cfa.base.is_none() {
        return Err(words.error());
    }
    cfa.offset = cfa_offset(header, cfa.offset, words)?;
    let ra = flexible_place(header, words, &mut next)?;
    let fp = flexible_place(header, words, &mut next)?;
    if words.count > next {
        return Err(words.error());
    }
    let default = |fixed| if fixed == 0 { None } else { Some(Place::at_cfa(i32::from(fixed))) };
    let ra = ra.or(default(header.fixed_ra_offset));
    let fp = fp.or(default(header.fixed_fp_offset));
    Ok(RowRule::Frame { cfa, ra, fp })
}

fn flexible_place(
    header: &Header,
    words: &Words<'_, '_>,
    next: &mut u8,
) -> Result<Option<Place>, SourceError> {
    let Some(control) = words.unsigned(*next)? else {
        return Ok(None);
    };
    *next = next.saturating_add(1);
    if control == 0 {
        return Ok(None);
    }
    if control & 4 != 0 {
        return Err(words.error());
    }
    let offset = words.signed(*next)?.ok_or(words.error())?;
    *next = next.saturating_add(1);
    let base = if control & 1 != 0 {
        let number = u16::try_from(control >> 3).map_err(|_| words.error())?;
        Some(base(header.abi, number, words)?)
    } else {
        None
    };
    Ok(Some(Place { base, offset, deref: control & 2 != 0 }))
}

/// On s390x the offset of the CFA is stored without its bias, in words.
fn cfa_offset(header: &Header, word: i32, words: &Words<'_, '_>) -> Result<i32, SourceError> {
    match header.abi {
        Abi::S390x => word.checked_mul(8).and_then(|offset| offset.checked_add(160)).ok_or(words.error()),
        _ => Ok(word),
    }
}

/// A register that a row names. Some producers write numbers that no register has.
fn base(abi: Abi, number: u16, words: &Words<'_, '_>) -> Result<Base, SourceError> {
    let register = Register(number);
    Ok(if register == abi.sp() {
        Base::Sp
    } else if register == abi.fp() {
        Base::Fp
    } else if number < 128 {
        Base::Register(register)
    } else {
        return Err(words.error());
    })
}
