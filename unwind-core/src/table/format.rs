//! The bytes of a table, and the search in them.

use core::fmt;

use crate::{Trust, UnwindUserFrame};

/// What a row of a table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableRule {
    /// Nothing covers these addresses.
    NotCovered,
    /// The source that the table was made of has to be asked.
    AskOriginal,
    /// This rule.
    Frame {
        /// The rule.
        frame: UnwindUserFrame,
        /// How far it can be trusted.
        trust: Trust,
        /// Whether the row is the last one of its function.
        is_last: bool,
        /// Whether the rule only holds at exact pcs, and where the load bias is a multiple of 128:
        /// code in blocks, such as procedure linkage tables.
        is_block: bool,
    },
}

/// Why bytes are no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableError {
    /// They do not begin with the magic number.
    BadMagic,
    /// A version that is not supported.
    UnknownVersion {
        /// The version.
        version: u8,
    },
    /// The header contradicts itself.
    BadHeader,
    /// There are fewer bytes than the header says.
    TooShort {
        /// How many bytes the header says.
        needed: u64,
        /// How many there are.
        len: usize,
    },
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableError::BadMagic => f.write_str("not a compiled table"),
            TableError::UnknownVersion { version } => {
                write!(f, "compiled table of unknown version {version}")
            }
            TableError::BadHeader => f.write_str("the header of the compiled table contradicts itself"),
            TableError::TooShort { needed, len } => {
                write!(f, "compiled table of {len} bytes, where {needed} are needed")
            }
        }
    }
}

impl core::error::Error for TableError {}

pub(super) const MAGIC: [u8; 3] = *b"UWT";
pub(super) const VERSION: u8 = 1;
pub(super) const HEADER: usize = 32;
/// Bytes of code in a page, as a power of two.
pub(super) const PAGE_SHIFT: u32 = 8;
/// Bytes of a rule, without its flags.
pub(super) const RULE: usize = 16;

/// The flags of a rule: what it is, in the two lowest bits.
const KIND: u8 = 3;
const NOT_COVERED: u8 = 0;
const ASK_ORIGINAL: u8 = 1;
const FRAME: u8 = 2;
/// How far a frame can be trusted, in the next two.
const TRUST_SHIFT: u8 = 2;
const IS_LAST: u8 = 1 << 4;
const IS_BLOCK: u8 = 1 << 5;

impl TableRule {
    pub(super) fn to_bytes(self) -> ([u8; RULE], u8) {
        match self {
            TableRule::NotCovered => ([0; RULE], NOT_COVERED),
            TableRule::AskOriginal => ([0; RULE], ASK_ORIGINAL),
            TableRule::Frame { frame, trust, is_last, is_block } => {
                let last = if is_last { IS_LAST } else { 0 };
                let block = if is_block { IS_BLOCK } else { 0 };
                (frame.to_bytes(), FRAME | trust.to_bits() << TRUST_SHIFT | last | block)
            }
        }
    }

    #[inline]
    fn from_bytes(bytes: [u8; RULE], flags: u8) -> Self {
        match flags & KIND {
            NOT_COVERED => TableRule::NotCovered,
            FRAME => TableRule::Frame {
                frame: UnwindUserFrame::from_bytes(bytes),
                trust: Trust::from_bits(flags >> TRUST_SHIFT),
                is_last: flags & IS_LAST != 0,
                is_block: flags & IS_BLOCK != 0,
            },
            _ => TableRule::AskOriginal,
        }
    }
}

/// A compiled table: borrowed bytes, of which the header has been checked. What a search meets is
/// checked then.
#[derive(Clone, Copy)]
pub struct Table<'t> {
    base: u64,
    /// One more entry than there are pages.
    pages: &'t [[u8; 4]],
    addresses: &'t [u8],
    numbers: Numbers<'t>,
    rules: &'t [[u8; RULE]],
    flags: &'t [u8],
}

/// The numbers of the rows' rules.
#[derive(Clone, Copy)]
enum Numbers<'t> {
    Bytes(&'t [u8]),
    Words(&'t [[u8; 2]]),
}

impl<'t> Table<'t> {
    /// A table that `bytes` begin with. Work that does not depend on its size.
    ///
    /// # Errors
    /// Where they are no table, or not the whole of it.
    pub fn parse(bytes: &'t [u8]) -> Result<Self, TableError> {
        let len = bytes.len();
        let short = |needed| TableError::TooShort { needed, len };
        let header: &[u8; HEADER] = bytes.first_chunk().ok_or(short(32))?;
        let [m0, m1, m2, version, body @ ..] = header;
        if [*m0, *m1, *m2] != MAGIC {
            return Err(TableError::BadMagic);
        }
        if *version != VERSION {
            return Err(TableError::UnknownVersion { version: *version });
        }
        let [r0, r1, r2, r3, b0, b1, b2, b3, b4, b5, b6, b7, p0, p1, p2, p3, rest @ ..] = body;
        let [n0, n1, n2, n3, w0, w1, w2, w3, zero @ ..] = rest;
        let rows = u32::from_le_bytes([*r0, *r1, *r2, *r3]);
        let base = u64::from_le_bytes([*b0, *b1, *b2, *b3, *b4, *b5, *b6, *b7]);
        let pages = u32::from_le_bytes([*p0, *p1, *p2, *p3]);
        let rules = u32::from_le_bytes([*n0, *n1, *n2, *n3]);
        let width = u32::from_le_bytes([*w0, *w1, *w2, *w3]);
        let most = match width {
            1 => 1 << 8,
            2 => 1 << 16,
            _ => return Err(TableError::BadHeader),
        };
        if *zero != [0; 4] || rules > most || base & 0xff != 0 {
            return Err(TableError::BadHeader);
        }
        let (rows, pages, rules) = (u64::from(rows), u64::from(pages), u64::from(rules));
        let sizes = [
            pages.saturating_add(1).saturating_mul(4),
            rows,
            rows.saturating_mul(u64::from(width)),
            rules.saturating_mul(16),
            rules,
        ];
        let needed = sizes.iter().fold(32u64, |sum, size| sum.saturating_add(*size));
        let mut rest = bytes.get(HEADER..).unwrap_or_default();
        let mut part = |size: u64| {
            let size = usize::try_from(size).ok()?;
            let (part, after) = rest.split_at_checked(size)?;
            rest = after;
            Some(part)
        };
        let [pages, addresses, numbers, rules, flags] = sizes.map(&mut part);
        let (Some(pages), Some(addresses), Some(numbers), Some(rules), Some(flags)) =
            (pages, addresses, numbers, rules, flags)
        else {
            return Err(short(needed));
        };
        Ok(Table {
            base,
            pages: pages.as_chunks().0,
            addresses,
            numbers: match width {
                1 => Numbers::Bytes(numbers),
                _ => Numbers::Words(numbers.as_chunks().0),
            },
            rules: rules.as_chunks().0,
            flags,
        })
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.addresses.len()
    }

    /// The number of distinct rules.
    pub fn rules(&self) -> usize {
        self.flags.len()
    }

    /// What holds at `svma`. Addresses outside of the table are not covered. `None` where the table is
    /// damaged.
    ///
    /// A search among at most 256 rows, or fewer where the table is as [`TableWriter`] made it.
    ///
    /// [`TableWriter`]: super::TableWriter
    #[inline]
    pub fn find(&self, svma: u64) -> Option<TableRule> {
        match self.place(svma)? {
            (Some(row), _) => self.rule_of(row),
            (None, _) => Some(TableRule::NotCovered),
        }
    }

    /// The row that `svma` is in, if any, and whether it begins there. `None` where the table is damaged.
    #[inline]
    fn place(&self, svma: u64) -> Option<(Option<usize>, bool)> {
        let behind = svma.wrapping_sub(self.base);
        let page = usize::try_from(behind >> PAGE_SHIFT).unwrap_or(usize::MAX);
        let (Some(after), Some(first)) = (self.pages.get(page.saturating_add(1)), self.pages.get(page))
        else {
            return Some((None, false));
        };
        let [low, ..] = behind.to_le_bytes();
        let first = usize::try_from(u32::from_le_bytes(*first)).ok()?;
        let after = usize::try_from(u32::from_le_bytes(*after)).ok()?;
        let in_page = self.addresses.get(first..after)?;
        let up_to = in_page.partition_point(|address| *address <= low);
        let begins = up_to.checked_sub(1).and_then(|last| in_page.get(last)) == Some(&low);
        // Where none of this page's rows begins at or before it, the last row of a page before holds.
        Some((first.wrapping_add(up_to).checked_sub(1), begins))
    }

    /// Whether a row begins at `svma`, or it is outside.
    #[inline]
    pub(super) fn is_border(&self, svma: u64) -> bool {
        !matches!(self.place(svma), Some((Some(_), false)))
    }

    #[inline]
    fn rule_of(&self, row: usize) -> Option<TableRule> {
        let number = match self.numbers {
            Numbers::Bytes(bytes) => usize::from(*bytes.get(row)?),
            Numbers::Words(words) => usize::from(u16::from_le_bytes(*words.get(row)?)),
        };
        Some(TableRule::from_bytes(*self.rules.get(number)?, *self.flags.get(number)?))
    }
}

impl fmt::Debug for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("base", &self.base)
            .field("pages", &self.pages.len().saturating_sub(1))
            .field("rows", &self.rows())
            .field("rules", &self.rules())
            .finish()
    }
}
