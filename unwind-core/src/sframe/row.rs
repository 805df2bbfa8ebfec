//! The rows of a function.

use scroll::Endian;

use super::header::{Abi, Header, Version, endian};
use super::section::{Fde, RowKind, RowStart, SFrameSection, number};
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
#[non_exhaustive]
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
    header: Header,
    row_start: RowStart,
    row_kind: RowKind,
    /// How many rows are left.
    left: u32,
    next: Position<'d>,
}

/// Where a row begins, and what its start may be.
#[derive(Clone, Copy, Debug)]
struct Position<'d> {
    /// All rows of the section from this one on.
    rest: &'d [u8],
    least: u64,
    most: u32,
    endian: Endian,
}

/// A row as it is stored: its data words are found, but not read.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredRow<'d> {
    pub(super) start: u32,
    info: u8,
    words: &'d [u8],
    /// How many bytes there are from its beginning to the end of all rows.
    length_to_end: usize,
}

impl<'d> Rows<'d> {
    pub(super) fn new(section: &SFrameSection<'d>, fde: &Fde) -> Self {
        let header = *section.header();
        let next = Position {
            rest: section.row_bytes(fde.rows_offset),
            least: 0,
            most: fde.row_limit(),
            endian: endian(header.abi.byte_order()),
        };
        Rows { header, row_start: fde.row_start, row_kind: fde.row_kind, left: fde.row_count, next }
    }

    /// The next row, as it is stored. After an error there is none: where the next one would begin
    /// is not known.
    pub(super) fn next_stored(&mut self) -> Option<Result<StoredRow<'d>, SourceError>> {
        self.left = self.left.checked_sub(1)?;
        let length_to_end = self.next.rest.len();
        let row = match self.row_start {
            RowStart::Addr1 => self.next.row::<1>(),
            RowStart::Addr2 => self.next.row::<2>(),
            RowStart::Addr4 => self.next.row::<4>(),
        };
        Some(row.map_err(|broken| {
            self.left = 0;
            self.error(broken, length_to_end)
        }))
    }

    /// The last of the next rows that begins at `offset` or below.
    #[inline]
    pub(super) fn last_at(&self, offset: u64) -> Result<Option<StoredRow<'d>>, SourceError> {
        let found = match self.row_start {
            RowStart::Addr1 => self.next.last_at::<1>(self.left, offset),
            RowStart::Addr2 => self.next.last_at::<2>(self.left, offset),
            RowStart::Addr4 => self.next.last_at::<4>(self.left, offset),
        };
        found.map_err(|(broken, length_to_end)| self.error(broken, length_to_end))
    }

    /// The data words of a row of this function.
    pub(super) fn words(&self, row: &StoredRow<'d>) -> Words<'d> {
        Words::of(&self.header, row)
    }

    /// What a row of this function says.
    #[inline]
    pub(super) fn read(&self, row: &StoredRow<'d>) -> Result<Row, SourceError> {
        read(&self.header, self.row_kind, row)
    }

    /// An error in the row that begins so many bytes before the end of all rows.
    fn error(&self, broken: Broken, length_to_end: usize) -> SourceError {
        error(&self.header, broken, length_to_end)
    }
}

/// An error in the row of a section that begins so many bytes before the end of all rows.
fn error(header: &Header, broken: Broken, length_to_end: usize) -> SourceError {
    let end = header.fre_offset.saturating_add(u64::from(header.fre_size));
    let length = u64::try_from(length_to_end).unwrap_or(u64::MAX);
    SourceError { broken, offset: end.saturating_sub(length) }
}

/// What a stored row of a section says.
#[inline]
pub(super) fn read(header: &Header, kind: RowKind, row: &StoredRow<'_>) -> Result<Row, SourceError> {
    let words = Words::of(header, row);
    let rule = match (words.count, kind) {
        (0, _) => RowRule::Outermost,
        (_, RowKind::Default) => default_rule(header, &words, row.is_on_sp())?,
        (_, RowKind::Flexible) => flexible_rule(header, &words)?,
    };
    let is_aarch64 = matches!(header.abi, Abi::Aarch64Big | Abi::Aarch64Little);
    Ok(Row { start: row.start, is_mangled: is_aarch64 && row.is_mangled(), rule })
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let stored = self.next_stored()?;
        Some(stored.and_then(|row| self.read(&row)))
    }
}

impl<'d> Position<'d> {
    /// The row that begins here, with its start in so many bytes; goes on behind it.
    #[inline]
    fn row<const START: usize>(&mut self) -> Result<StoredRow<'d>, Broken> {
        let (start, rest) = self.rest.split_first_chunk::<START>().ok_or(Broken::UnexpectedEnd)?;
        let start = match START {
            1 => number::<u8>(start, 0, self.endian).map(u32::from),
            2 => number::<u16>(start, 0, self.endian).map(u32::from),
            _ => number(start, 0, self.endian),
        };
        let start = start.ok_or(Broken::UnexpectedEnd)?;
        // Assemblers put a row at the very end where directives follow the last instruction, or
        // where there is none. No pc will ever be in it.
        if start > self.most || u64::from(start) < self.least {
            return Err(Broken::BadRow);
        }
        let (info, rest) = rest.split_first().ok_or(Broken::UnexpectedEnd)?;
        if info & 0x60 == 0x60 {
            return Err(Broken::BadRow);
        }
        let row = StoredRow { start, info: *info, words: &[], length_to_end: self.rest.len() };
        let (words, rest) = rest.split_at_checked(row.words_size()).ok_or(Broken::UnexpectedEnd)?;
        self.rest = rest;
        self.least = u64::from(start).saturating_add(1);
        Ok(StoredRow { words, ..row })
    }

    /// The last of `count` rows from here on that begins at `offset` or below. With an error, how
    /// far its row is from the end.
    fn last_at<const START: usize>(
        mut self,
        count: u32,
        offset: u64,
    ) -> Result<Option<StoredRow<'d>>, (Broken, usize)> {
        let mut found = None;
        // Each row takes bytes of the section, and its end is an error.
        for _ in 0..count {
            let length_to_end = self.rest.len();
            let row = self.row::<START>().map_err(|broken| (broken, length_to_end))?;
            if u64::from(row.start) > offset {
                break;
            }
            found = Some(row);
        }
        Ok(found)
    }
}

impl StoredRow<'_> {
    /// The base of the CFA, in a default row: sp, else fp.
    pub(super) fn is_on_sp(&self) -> bool {
        self.info & 1 != 0
    }

    /// The return address is signed, where return addresses can be.
    pub(super) fn is_mangled(&self) -> bool {
        self.info & 0x80 != 0
    }

    /// How many bytes the data words are.
    fn words_size(&self) -> usize {
        usize::from(self.word_count()).wrapping_shl(self.word_size_log2())
    }

    fn word_count(&self) -> u8 {
        (self.info >> 1) & 0x0f
    }

    /// 0, 1 or 2: the size of a data word in bytes is two to this.
    fn word_size_log2(&self) -> u32 {
        u32::from((self.info >> 5) & 3)
    }
}

/// The data words of a row.
pub(super) struct Words<'d> {
    words: &'d [u8],
    size_log2: u32,
    pub(super) count: u8,
    endian: Endian,
    error: SourceError,
}

impl<'d> Words<'d> {
    /// Those of a row.
    fn of(header: &Header, row: &StoredRow<'d>) -> Self {
        Words {
            words: row.words,
            size_log2: row.word_size_log2(),
            count: row.word_count(),
            endian: endian(header.abi.byte_order()),
            error: error(header, Broken::BadRow, row.length_to_end),
        }
    }

    /// The word as an offset, if the row has it.
    pub(super) fn signed(&self, index: u8) -> Option<i32> {
        let at = usize::from(index).wrapping_shl(self.size_log2);
        match self.size_log2 {
            0 => number::<i8>(self.words, at, self.endian).map(i32::from),
            1 => number::<i16>(self.words, at, self.endian).map(i32::from),
            _ => number(self.words, at, self.endian),
        }
    }

    /// The word as a control word, if the row has it.
    pub(super) fn unsigned(&self, index: u8) -> Option<u32> {
        let at = usize::from(index).wrapping_shl(self.size_log2);
        match self.size_log2 {
            0 => number::<u8>(self.words, at, self.endian).map(u32::from),
            1 => number::<u16>(self.words, at, self.endian).map(u32::from),
            _ => number(self.words, at, self.endian),
        }
    }

    /// That they make no sense.
    pub(super) fn error(&self) -> SourceError {
        self.error
    }
}

/// Offsets: the CFA's from sp or fp, then the return address's and the frame pointer's from the
/// CFA, as far as the header does not fix them.
fn default_rule(header: &Header, words: &Words<'_>, on_sp: bool) -> Result<RowRule, SourceError> {
    let base = Some(if on_sp { Base::Sp } else { Base::Fp });
    let offset = cfa_offset(header, words.signed(0).ok_or(words.error())?, words)?;
    let cfa = Place { base, offset, deref: false };
    let mut next = 1;
    let ra = match header.fixed_ra_offset {
        0 => {
            next = 2;
            match words.signed(1) {
                Some(word) if is_padding(header, word) => None,
                Some(word) => Some(saved(header, word, words)?),
                None => None,
            }
        }
        fixed => Some(Place::at_cfa(i32::from(fixed))),
    };
    let fp = match header.fixed_fp_offset {
        0 => match words.signed(next) {
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
fn saved(header: &Header, word: i32, words: &Words<'_>) -> Result<Place, SourceError> {
    let Some(number) = named_register(header, word) else {
        return Ok(Place::at_cfa(word));
    };
    let number = u16::try_from(number).map_err(|_| words.error())?;
    Ok(Place { base: Some(base(header.abi, number, words)?), offset: 0, deref: false })
}

/// Pairs of a control word and an offset; a control word of 0 stands alone, for the ABI's default.
fn flexible_rule(header: &Header, words: &Words<'_>) -> Result<RowRule, SourceError> {
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

fn flexible_place(header: &Header, words: &Words<'_>, next: &mut u8) -> Result<Option<Place>, SourceError> {
    let Some(control) = words.unsigned(*next) else {
        return Ok(None);
    };
    *next = next.saturating_add(1);
    if control == 0 {
        return Ok(None);
    }
    if control & 4 != 0 {
        return Err(words.error());
    }
    let offset = words.signed(*next).ok_or(words.error())?;
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
fn cfa_offset(header: &Header, word: i32, words: &Words<'_>) -> Result<i32, SourceError> {
    match header.abi {
        Abi::S390x => word.checked_mul(8).and_then(|offset| offset.checked_add(160)).ok_or(words.error()),
        _ => Ok(word),
    }
}

/// A register that a row names. Some producers write numbers that no register has.
fn base(abi: Abi, number: u16, words: &Words<'_>) -> Result<Base, SourceError> {
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
