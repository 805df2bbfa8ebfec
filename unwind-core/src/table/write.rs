//! Making a table, in room that the caller gives.

use core::fmt;
use core::ops::Range;

use super::format::{HEADER, MAGIC, PAGE_SHIFT, SLOT, VERSION};
use super::intern::{Rules, TableSlot};
use super::rule::{RECORD, TableRule, number};

/// Room for a [`TableWriter`].
#[derive(Debug)]
pub struct TableRoom<'r> {
    /// For the table itself. [`TableWriteError::NoRoom`] says how much it should have been.
    pub bytes: &'r mut [u8],
    /// For the distinct rules, to find them again: three quarters of it are used, and no more than 8,382.
    /// Addresses whose rules find no room are left to the original source. 2,048 are enough for the largest
    /// libraries.
    pub rules: &'r mut [TableSlot],
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
    /// The range of addresses is larger than a table can be: 2^32 pages, or the slots 2^32.
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
            TableWriteError::TooLarge => f.write_str("too much for one table"),
            TableWriteError::NotSorted { start } => {
                write!(f, "function at {start:#x} is out of order, or overlaps")
            }
        }
    }
}

impl core::error::Error for TableWriteError {}

/// Writes a table, function by function in ascending order, without overlaps. Addresses where functions do
/// overlap are best [left to the original source](TableWriter::ask_original), which knows which of them
/// counts.
///
/// ```
/// use unwind_core::UnwindUserFrame;
/// use unwind_core::table::{Table, TableRoom, TableRule, TableSlot, TableWriter};
///
/// let plain = |cfa_off| TableRule::exact(UnwindUserFrame::plain(false, cfa_off, -8, None));
/// let (mut bytes, mut rules) = ([0; 256], [TableSlot::default(); 16]);
/// let room = TableRoom { bytes: &mut bytes, rules: &mut rules };
/// let mut writer = TableWriter::new(0x1000..0x1200, room)?;
/// // push at its first instruction: two rows.
/// writer.function(0x1010, 0x30, [(0, plain(8)), (1, plain(16))])?;
/// let table = Table::parse(writer.finish()?).expect("a table");
/// assert_eq!(table.find(0x1010), Some(plain(8)));
/// assert_eq!(table.find_with_end(0x103f), Some((plain(16), true)));
/// assert_eq!(table.find(0x1040), Some(TableRule::NotCovered));
/// assert_eq!(table.find(0x1200), Some(TableRule::AskOriginal));
/// # Ok::<(), unwind_core::table::TableWriteError>(())
/// ```
#[derive(Debug)]
pub struct TableWriter<'r> {
    bytes: &'r mut [u8],
    rules: Rules<'r>,
    base: u64,
    /// The first address (svma), and the first one beyond.
    text: Range<u64>,
    /// What is said of addresses that no function covers.
    gap: u16,
    pages: usize,
    /// How many pages have their count of slots.
    begun: usize,
    /// The first address (svma) of a page that has none.
    unbegun: u64,
    /// Where in `bytes` the next slot will be.
    next: usize,
    /// The number of the rule of the row written last; [`NO_ROW`] before the first.
    last: u16,
    /// The first address beyond what was added last (svma), and whether a function ends there.
    covered: u64,
    ends: bool,
}

/// The number of no rule.
const NO_ROW: u16 = u16::MAX;

impl<'r> TableWriter<'r> {
    /// An empty table for the addresses `text` (svma). What is outside is left to the original source.
    ///
    /// # Errors
    /// [`TableWriteError::TooLarge`].
    pub fn new(text: Range<u64>, room: TableRoom<'r>) -> Result<Self, TableWriteError> {
        let text = text.start..text.end.max(text.start);
        let base = text.start & !0xff;
        // The first address beyond has a page.
        let pages = (text.end.wrapping_sub(base) >> PAGE_SHIFT).saturating_add(1);
        let pages = u32::try_from(pages).map_err(|_| TableWriteError::TooLarge)?;
        let pages = usize::try_from(pages).map_err(|_| TableWriteError::TooLarge)?;
        let mut writer = TableWriter {
            bytes: room.bytes,
            rules: Rules::new(room.rules),
            base,
            covered: text.start,
            text,
            gap: number::NOT_COVERED,
            pages,
            begun: 0,
            unbegun: base,
            next: pages.saturating_add(1).saturating_mul(4).saturating_add(HEADER),
            last: NO_ROW,
            ends: false,
        };
        if writer.text.start > base {
            writer.row(base, number::ASK_ORIGINAL);
        }
        Ok(writer)
    }

    /// The same, where addresses that no function covers are left to the original source: some of its
    /// functions may be missing here.
    pub fn with_gaps_left(mut self) -> Self {
        self.gap = number::ASK_ORIGINAL;
        self
    }

    /// Adds a function: its first address (svma), how many bytes of code it has, and its rows, each with
    /// its distance from the start, ascending. Rows cover the function from the first one on; those that
    /// are out of order or outside are left out.
    ///
    /// # Errors
    /// [`TableWriteError::NotSorted`]. That room is missing, or that there is too much, is told at the end.
    pub fn function(
        &mut self,
        start: u64,
        length: u64,
        rows: impl IntoIterator<Item = (u64, TableRule)>,
    ) -> Result<(), TableWriteError> {
        let Some(end) = start.checked_add(length) else { return self.ask_original(start..u64::MAX) };
        if length == 0 {
            return Ok(());
        }
        if start < self.text.start {
            return self.ask_original(start..end);
        }
        self.begin(start)?;
        let limit = end.min(self.text.end);
        let mut least = start;
        for (at, rule) in rows {
            let Some(at) = start.checked_add(at).filter(|at| *at < limit) else { continue };
            if at >= least {
                if least == start && at > start {
                    self.row(start, number::NOT_COVERED);
                }
                self.rule(at, rule);
                least = at.saturating_add(1);
            }
        }
        if least == start && start < limit {
            self.row(start, number::NOT_COVERED);
        }
        self.end(end, end <= self.text.end);
        Ok(())
    }

    /// Leaves addresses (svma) to the original source.
    ///
    /// # Errors
    /// As for [`function`](TableWriter::function).
    pub fn ask_original(&mut self, addresses: Range<u64>) -> Result<(), TableWriteError> {
        let start = addresses.start.max(self.text.start);
        if addresses.is_empty() || addresses.end <= self.text.start {
            return Ok(());
        }
        self.begin(start)?;
        if start < self.text.end {
            self.row(start, number::ASK_ORIGINAL);
        }
        self.end(addresses.end, false);
        Ok(())
    }

    /// Begins what is added next. `start` is not below the table.
    #[inline]
    pub(super) fn begin(&mut self, start: u64) -> Result<(), TableWriteError> {
        if start < self.covered {
            return Err(TableWriteError::NotSorted { start });
        }
        if self.ends && self.covered <= self.text.end {
            self.row(self.covered, number::NOT_COVERED);
        }
        if start > self.covered && self.covered < self.text.end {
            self.row(self.covered, self.gap);
        }
        self.covered = start;
        self.ends = false;
        Ok(())
    }

    /// Adds a row. Those of a function are in ascending order, and not beyond the table.
    #[inline]
    pub(super) fn rule(&mut self, at: u64, rule: TableRule) {
        let number = self.rules.number(rule);
        self.row(at, number);
    }

    /// Ends what was begun: whether it is a whole function.
    #[inline]
    pub(super) fn end(&mut self, end: u64, is_whole: bool) {
        self.covered = end;
        self.ends = is_whole;
    }

    /// The addresses that the table is for.
    pub(super) fn text(&self) -> &Range<u64> {
        &self.text
    }

    /// The finished table.
    ///
    /// # Errors
    /// [`TableWriteError::NoRoom`], [`TableWriteError::TooLarge`].
    pub fn finish(mut self) -> Result<&'r [u8], TableWriteError> {
        let end = self.text.end;
        self.begin(end.max(self.covered))?;
        self.row(end, number::ASK_ORIGINAL);
        self.begin_pages(self.pages.saturating_add(1));
        let rules = self.next;
        let needed = rules.saturating_add(usize::from(self.rules.count()).saturating_mul(RECORD));
        let no_room = TableWriteError::NoRoom { needed };
        if self.bytes.len() < needed {
            return Err(no_room);
        }
        let header = self.header()?;
        put(self.bytes, 0, header);
        self.rules.write(self.bytes, rules);
        self.bytes.get(..needed).ok_or(no_room)
    }

    fn header(&self) -> Result<[u8; HEADER], TableWriteError> {
        let too_large = |_| TableWriteError::TooLarge;
        let pages = u32::try_from(self.pages).map_err(too_large)?;
        let slots = u32::try_from(self.slots()).map_err(too_large)?;
        let mut header = [0; HEADER];
        put(&mut header, 0, MAGIC);
        put(&mut header, 3, [VERSION]);
        put(&mut header, 4, slots.to_le_bytes());
        put(&mut header, 8, self.base.to_le_bytes());
        put(&mut header, 16, pages.to_le_bytes());
        put(&mut header, 20, u32::from(self.rules.count()).to_le_bytes());
        Ok(header)
    }

    /// How many slots there are so far.
    fn slots(&self) -> usize {
        let first = self.pages.saturating_add(1).saturating_mul(4).saturating_add(HEADER);
        self.next.saturating_sub(first) / SLOT
    }

    /// Notes for all pages below `page` that have none yet, how many slots there are before it.
    fn begin_pages(&mut self, page: usize) {
        let slots = u32::try_from(self.slots()).unwrap_or(u32::MAX).to_le_bytes();
        while self.begun < page {
            put(self.bytes, self.begun.saturating_mul(4).saturating_add(HEADER), slots);
            self.begun = self.begun.saturating_add(1);
        }
    }

    /// Writes a row, unless it says the same as the one before. It is not beyond the table.
    #[inline]
    fn row(&mut self, at: u64, number: u16) {
        if self.last == number {
            return;
        }
        self.last = number;
        if at >= self.unbegun {
            self.begin_pages_up_to(at);
        }
        let [low, ..] = at.to_le_bytes();
        let [first, second] = number::split(number);
        if second != 0 {
            self.slot([low, second]);
        }
        self.slot([low, first]);
    }

    #[inline(never)]
    fn begin_pages_up_to(&mut self, at: u64) {
        let page = at.wrapping_sub(self.base) >> PAGE_SHIFT;
        self.begin_pages(usize::try_from(page).unwrap_or(usize::MAX).min(self.pages).saturating_add(1));
        self.unbegun = (at | 0xff).saturating_add(1);
    }

    #[inline]
    fn slot(&mut self, slot: [u8; SLOT]) {
        put(self.bytes, self.next, slot);
        self.next = self.next.wrapping_add(SLOT);
    }
}

#[inline]
fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *place = value;
    }
}
