//! Making a table, in room that the caller gives.

use core::fmt;
use core::ops::Range;

use super::format::{HEADER, MAGIC, PAGE_SHIFT, RULE, TableRule, VERSION};

/// Room for a [`TableWriter`].
#[derive(Debug)]
pub struct TableRoom<'r> {
    /// For the table itself. [`TableWriteError::NoRoom`] says how much it should have been.
    pub bytes: &'r mut [u8],
    /// For the distinct rules, to find them again: at most three quarters of it are used, and no
    /// more than 65,536. Rules that find no room are left to the original source. 2,048 are
    /// enough for the largest libraries.
    pub rules: &'r mut [TableSlot],
}

/// Room for one distinct rule.
#[derive(Clone, Copy, Debug, Default)]
pub struct TableSlot {
    rule: Option<TableRule>,
    number: u16,
}

/// Why a table cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableWriteError {
    /// The room for bytes is too small; this many are needed.
    NoRoom {
        /// How many.
        needed: usize,
    },
    /// There is no room for a rule at all.
    NoRules,
    /// The range of addresses is larger than a table can be: 2^32 pages, or the rows 2^32.
    TooLarge,
    /// A function begins below the end of one that was added before.
    NotSorted {
        /// The first address of the function (svma).
        start: u64,
    },
}

impl fmt::Display for TableWriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableWriteError::NoRoom { needed } => write!(f, "room for {needed} bytes is needed"),
            TableWriteError::NoRules => f.write_str("room for rules is needed"),
            TableWriteError::TooLarge => f.write_str("too much for one table"),
            TableWriteError::NotSorted { start } => {
                write!(f, "function at {start:#x} is out of order, or overlaps")
            }
        }
    }
}

impl core::error::Error for TableWriteError {}

/// Writes a table, function by function in ascending order, without overlaps. Addresses where functions do
/// overlap are best [left to the original source](TableWriter::ask_original), which knows which of them counts.
///
/// ```
/// use unwind_core::table::{Table, TableRoom, TableRule, TableSlot, TableWriter};
/// use unwind_core::{Trust, UnwindUserFrame};
///
/// let plain = |cfa_off| TableRule::Frame {
///     frame: UnwindUserFrame::plain(false, cfa_off, -8, None),
///     trust: Trust::Exact,
///     is_last: false,
///     is_block: false,
/// };
/// let (mut bytes, mut rules) = ([0; 256], [TableSlot::default(); 16]);
/// let room = TableRoom { bytes: &mut bytes, rules: &mut rules };
/// let mut writer = TableWriter::new(0x1000..0x1200, room)?;
/// // push at its first instruction: two rows.
/// writer.function(0x1010, 0x30, [(0, plain(8)), (1, plain(16))])?;
/// let table = Table::parse(writer.finish()?).expect("a table");
/// assert_eq!(table.find(0x1010), Some(plain(8)));
/// assert!(matches!(table.find(0x103f), Some(TableRule::Frame { is_last: true, .. })));
/// assert_eq!(table.find(0x1040), Some(TableRule::NotCovered));
/// # Ok::<(), unwind_core::table::TableWriteError>(())
/// ```
#[derive(Debug)]
pub struct TableWriter<'r> {
    room: TableRoom<'r>,
    base: u64,
    /// The first address beyond (svma).
    end: u64,
    pages: usize,
    /// How many pages have their count of rows.
    begun: usize,
    rows: usize,
    rules: usize,
    /// The row written last: where it begins, and the number of its rule.
    last: Option<(u64, u16)>,
    /// The first address beyond what was added last (svma).
    covered: u64,
}

/// The number of [`TableRule::NotCovered`], and that of [`TableRule::AskOriginal`].
const NOT_COVERED: u16 = 0;
const ASK_ORIGINAL: u16 = 1;

impl<'r> TableWriter<'r> {
    /// An empty table for the addresses `text` (svma). Functions outside are left to the original
    /// source.
    ///
    /// # Errors
    /// [`TableWriteError::TooLarge`], [`TableWriteError::NoRules`].
    pub fn new(text: Range<u64>, room: TableRoom<'r>) -> Result<Self, TableWriteError> {
        let base = text.start & !0xff;
        let size = text.end.max(base).wrapping_sub(base);
        let pages = size.div_ceil(1 << PAGE_SHIFT);
        let pages = u32::try_from(pages).map_err(|_| TableWriteError::TooLarge)?;
        let pages = usize::try_from(pages).map_err(|_| TableWriteError::TooLarge)?;
        room.rules.fill(TableSlot::default());
        let mut writer = TableWriter {
            room,
            base,
            end: text.end,
            pages,
            begun: 0,
            rows: 0,
            rules: 0,
            last: None,
            covered: base,
        };
        for (rule, number) in [(TableRule::NotCovered, NOT_COVERED), (TableRule::AskOriginal, ASK_ORIGINAL)] {
            if writer.number(rule) != Some(number) {
                return Err(TableWriteError::NoRules);
            }
        }
        Ok(writer)
    }

    /// Adds a function: its first address (svma), how many bytes of code it has, and its rows, each with
    /// its distance from the start, ascending. Rows cover the function from the first one on; those that
    /// are out of order or outside are left out. The flag `is_last` of their rules is set here.
    ///
    /// # Errors
    /// [`TableWriteError::NotSorted`], [`TableWriteError::TooLarge`]. That room is missing is told at the
    /// end.
    pub fn function(
        &mut self,
        start: u64,
        length: u64,
        rows: impl IntoIterator<Item = (u64, TableRule)>,
    ) -> Result<(), TableWriteError> {
        self.part(start, length, rows, true)
    }

    /// Leaves addresses (svma) to the original source.
    ///
    /// # Errors
    /// As for [`function`](TableWriter::function).
    pub fn ask_original(&mut self, addresses: Range<u64>) -> Result<(), TableWriteError> {
        let Range { start, end } = addresses;
        let length = end.saturating_sub(start);
        self.part(start, length, [(0, TableRule::AskOriginal)], false)
    }

    /// Adds a function, or the beginning of one where `is_whole` is false.
    pub(super) fn part(
        &mut self,
        start: u64,
        length: u64,
        rows: impl IntoIterator<Item = (u64, TableRule)>,
        is_whole: bool,
    ) -> Result<(), TableWriteError> {
        let Some(end) = start.checked_add(length) else { return Ok(()) };
        if length == 0 || start < self.base || end > self.end {
            return Ok(());
        }
        if start < self.covered {
            return Err(TableWriteError::NotSorted { start });
        }
        if start > self.covered {
            self.row(self.covered, NOT_COVERED)?;
        }
        let mut seen = None;
        let mut rows = rows.into_iter().filter(|(at, _)| {
            let fits = *at < length && seen.is_none_or(|last| *at > last);
            if fits {
                seen = Some(*at);
            }
            fits
        });
        let mut pending = rows.next();
        if pending.is_none_or(|(at, _)| at != 0) {
            self.row(start, NOT_COVERED)?;
        }
        while let Some((at, rule)) = pending {
            pending = rows.next();
            let is_last = is_whole && pending.is_none();
            let number = self.number(with_last(rule, is_last)).unwrap_or(ASK_ORIGINAL);
            self.row(start.saturating_add(at), number)?;
        }
        self.covered = end;
        Ok(())
    }

    /// The finished table.
    ///
    /// # Errors
    /// [`TableWriteError::NoRoom`], [`TableWriteError::TooLarge`].
    pub fn finish(mut self) -> Result<&'r [u8], TableWriteError> {
        let behind = self.covered.wrapping_sub(self.base) >> PAGE_SHIFT;
        if usize::try_from(behind).is_ok_and(|page| page < self.pages) {
            self.row(self.covered, NOT_COVERED)?;
        }
        self.begin_pages(self.pages.saturating_add(1));
        let width = if self.rules > 256 { 2 } else { 1 };
        let addresses = self.addresses();
        let numbers = addresses.saturating_add(self.rows);
        let rules = numbers.saturating_add(self.rows.saturating_mul(width));
        let flags = rules.saturating_add(self.rules.saturating_mul(RULE));
        let size = flags.saturating_add(self.rules);
        // While it is written, a number takes two bytes.
        let needed = size.max(addresses.saturating_add(self.rows.saturating_mul(3)));
        let no_room = TableWriteError::NoRoom { needed };
        let header = self.header(width)?;
        let len = self.room.bytes.len();
        if len < needed {
            return Err(no_room);
        }
        // The numbers were written from the end of the room down.
        let backward = self.rows.saturating_mul(2);
        let from = len.saturating_sub(backward);
        if let Some(backward) = self.room.bytes.get_mut(from..) {
            backward.as_chunks_mut::<2>().0.reverse();
        }
        for row in 0..self.rows {
            let at = from.saturating_add(row.saturating_mul(2));
            let number = self.room.bytes.get(at..).and_then(<[u8]>::first_chunk::<2>).copied();
            let number = number.unwrap_or_default();
            let to = numbers.saturating_add(row.saturating_mul(width));
            match (width, number) {
                (1, [low, _]) => put(self.room.bytes, to, [low]),
                _ => put(self.room.bytes, to, number),
            }
        }
        for slot in self.room.rules.iter() {
            let Some(rule) = slot.rule else { continue };
            let (bytes, flag) = rule.to_bytes();
            let number = usize::from(slot.number);
            put(self.room.bytes, rules.saturating_add(number.saturating_mul(RULE)), bytes);
            put(self.room.bytes, flags.saturating_add(number), [flag]);
        }
        put(self.room.bytes, 0, header);
        self.room.bytes.get(..size).ok_or(no_room)
    }

    fn header(&self, width: usize) -> Result<[u8; HEADER], TableWriteError> {
        let too_large = |_| TableWriteError::TooLarge;
        let rows = u32::try_from(self.rows).map_err(too_large)?.to_le_bytes();
        let base = self.base.to_le_bytes();
        let pages = u32::try_from(self.pages).map_err(too_large)?.to_le_bytes();
        let rules = u32::try_from(self.rules).map_err(too_large)?.to_le_bytes();
        let width = u32::try_from(width).map_err(too_large)?.to_le_bytes();
        let mut header = [0; HEADER];
        put(&mut header, 0, MAGIC);
        put(&mut header, 3, [VERSION]);
        put(&mut header, 4, rows);
        put(&mut header, 8, base);
        put(&mut header, 16, pages);
        put(&mut header, 20, rules);
        put(&mut header, 24, width);
        Ok(header)
    }

    /// The number of a rule, a new one where it has none yet. `None` where there is no room for it.
    fn number(&mut self, rule: TableRule) -> Option<u16> {
        let slots = self.room.rules.len();
        let full = slots.saturating_sub(slots / 4).min(1 << 16);
        let mut at = usize::try_from(hash(rule)).ok()?.checked_rem(slots)?;
        // A free slot ends this: a quarter of them is.
        for _ in 0..slots {
            let slot = self.room.rules.get_mut(at)?;
            match slot.rule {
                Some(known) if known == rule => return Some(slot.number),
                Some(_) => {}
                None if self.rules >= full => return None,
                None => {
                    let number = u16::try_from(self.rules).ok()?;
                    *slot = TableSlot { rule: Some(rule), number };
                    self.rules = self.rules.saturating_add(1);
                    return Some(number);
                }
            }
            at = at.saturating_add(1).checked_rem(slots)?;
        }
        None
    }

    /// Where the addresses of rows begin in the table.
    fn addresses(&self) -> usize {
        self.pages.saturating_add(1).saturating_mul(4).saturating_add(HEADER)
    }

    /// Notes for all pages below `page` that have none yet, how many rows there are before it.
    fn begin_pages(&mut self, page: usize) {
        let rows = u32::try_from(self.rows).unwrap_or(u32::MAX).to_le_bytes();
        while self.begun < page {
            put(self.room.bytes, self.begun.saturating_mul(4).saturating_add(HEADER), rows);
            self.begun = self.begun.saturating_add(1);
        }
    }

    /// Writes a row, unless it is one without a rule as the one before.
    fn row(&mut self, at: u64, number: u16) -> Result<(), TableWriteError> {
        let has_no_rule = matches!(number, NOT_COVERED | ASK_ORIGINAL);
        if has_no_rule && self.last.is_some_and(|(_, last)| last == number) {
            return Ok(());
        }
        let behind = at.wrapping_sub(self.base);
        let page = usize::try_from(behind >> PAGE_SHIFT).map_err(|_| TableWriteError::TooLarge)?;
        self.begin_pages(page.saturating_add(1));
        let [low, ..] = behind.to_le_bytes();
        let after = self.rows.saturating_add(1);
        // The two parts must not meet.
        let address = self.addresses().saturating_add(self.rows);
        let distance = after.saturating_mul(2);
        if let Some(place) = self.room.bytes.len().checked_sub(distance).filter(|place| *place > address) {
            put(self.room.bytes, address, [low]);
            put(self.room.bytes, place, number.to_le_bytes());
        }
        u32::try_from(after).map_err(|_| TableWriteError::TooLarge)?;
        self.rows = after;
        self.last = Some((at, number));
        Ok(())
    }
}

/// Sets the flag of a function's last row.
fn with_last(rule: TableRule, is_last: bool) -> TableRule {
    match rule {
        TableRule::Frame { frame, trust, is_block, .. } => {
            TableRule::Frame { frame, trust, is_last, is_block }
        }
        rule => rule,
    }
}

/// Numbers that are alike are far apart: FNV-1a, over words.
fn hash(rule: TableRule) -> u32 {
    let (bytes, flags) = rule.to_bytes();
    let mut hash = 0x811c_9dc5u32 ^ u32::from(flags);
    for word in bytes.as_chunks::<4>().0 {
        hash = (hash ^ u32::from_le_bytes(*word)).wrapping_mul(0x0100_0193);
        hash ^= hash >> 15;
    }
    hash
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *place = value;
    }
}
