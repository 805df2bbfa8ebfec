//! Room for tables that are made page by page.

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::intern::{hash, place};
use super::lazy::LazyTable;
use super::rule::{TableRule, number};
use crate::UnwindUserFrame;

/// Room for what is known of one page of 256 bytes of code: 16 bytes.
#[derive(Debug, Default)]
pub struct LazyPage {
    key: AtomicU64,
    /// 0 where there is none.
    known: AtomicU64,
}

/// Room for one row: 4 bytes.
#[derive(Debug, Default)]
pub struct LazyRow(AtomicU32);

/// Room for one distinct rule: 24 bytes.
#[derive(Debug, Default)]
pub struct LazyRule {
    frame: [AtomicU64; 2],
    /// 0 where there is none.
    flags: AtomicU32,
}

/// Room that tables are made in, page by page, when they are first asked for: for those who load many
/// modules and walk through little of each. One room serves all modules and threads; their rules are kept
/// once.
///
/// Nothing waits, and an interrupt handler may look up in the midst of another use: one thread adds a page
/// at a time, and lookups that would have to meanwhile are answered by the original source. What has been
/// added never changes. When the room is used up, whatever is not in it is left to the original sources.
///
/// A page of a busy program has about five rows; 512 rules are enough for most programs.
///
/// ```
/// use unwind_core::table::{LazyPage, LazyRoom, LazyRow, LazyRule};
///
/// fn some<T: Default>(count: usize) -> Vec<T> {
///     (0..count).map(|_| T::default()).collect()
/// }
///
/// let (mut pages, mut rows, mut rules) =
///     (some::<LazyPage>(4096), some::<LazyRow>(20_000), some::<LazyRule>(512));
/// let room = LazyRoom::new(&mut pages, &mut rows, &mut rules);
/// // For each module: room.table(dwarf, text). As a source, it is before `dwarf` in a walk.
/// # assert_eq!(room.pages(), 0);
/// ```
pub struct LazyRoom<'r> {
    /// A hash table.
    pages: &'r [LazyPage],
    /// Those of a page are together.
    rows: &'r [LazyRow],
    /// A hash table. The place of a rule is its number, less two.
    rules: &'r [LazyRule],
    used_pages: AtomicU32,
    used_rows: AtomicU32,
    used_rules: AtomicU32,
    /// How many modules there have been.
    modules: AtomicU32,
    is_full: AtomicBool,
    is_written: AtomicBool,
}

/// A row: the low byte of its address, the number of its rule, and this where a function ends before it.
pub(super) const ENDS: u32 = 1 << 31;
const NUMBER_SHIFT: u32 = 8;
/// The most rules, so that numbers do not reach `ENDS`.
const MOST_RULES: usize = 1 << 20;
/// In the flags of a rule, that it is one.
const IS_RULE: u32 = 1 << 8;
/// In what is known of a page: that it is known; that a function ends with it. Then how many rows there are
/// less one, and where they begin.
const IS_KNOWN: u64 = 1;
const ENDS_PAGE: u64 = 2;
const COUNT_SHIFT: u32 = 8;
const ROW_SHIFT: u32 = 32;

impl<'r> LazyRoom<'r> {
    /// Empty room. Work proportional to it.
    pub fn new(
        pages: &'r mut [LazyPage],
        rows: &'r mut [LazyRow],
        rules: &'r mut [LazyRule],
    ) -> LazyRoom<'r> {
        pages.fill_with(LazyPage::default);
        rules.fill_with(LazyRule::default);
        let rules: &'r [LazyRule] = rules;
        LazyRoom {
            pages,
            rows,
            rules: rules.get(..MOST_RULES).unwrap_or(rules),
            used_pages: AtomicU32::new(0),
            used_rows: AtomicU32::new(0),
            used_rules: AtomicU32::new(0),
            modules: AtomicU32::new(0),
            is_full: AtomicBool::new(false),
            is_written: AtomicBool::new(false),
        }
    }

    /// The table of a module, with nothing in it so far: of `original`, for the addresses `text` (svma) of the
    /// module, its executable segments. Work that does not depend on its size.
    ///
    /// Room that was used for a module is not given back when the module is gone.
    pub fn table<O>(&self, original: O, text: Range<u64>) -> LazyTable<'_, O> {
        let next = |modules: u32| modules.checked_add(1);
        let module = self.modules.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok();
        LazyTable::new(self, module, original, text)
    }

    /// How many pages are known.
    pub fn pages(&self) -> u32 {
        self.used_pages.load(Ordering::Relaxed)
    }

    /// How many rows they have together.
    pub fn rows(&self) -> u32 {
        self.used_rows.load(Ordering::Relaxed)
    }

    /// How many distinct rules.
    pub fn rules(&self) -> u32 {
        self.used_rules.load(Ordering::Relaxed)
    }

    /// Whether a page found no room: nothing is added any more.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// What is known of a page.
    #[inline]
    pub(super) fn find(&self, key: u64) -> Option<Known<'_>> {
        let (before, from) = self.pages.split_at_checked(self.first(key))?;
        for page in from.iter().chain(before) {
            let known = page.known.load(Ordering::Acquire);
            if known == 0 {
                return None;
            }
            if page.key.load(Ordering::Relaxed) == key {
                let first = usize::try_from(known >> ROW_SHIFT).ok()?;
                let [_, count, ..] = known.to_le_bytes();
                let rows = self.rows.get(first..)?.get(..=usize::from(count))?;
                return Some(Known { rows, ends: known & ENDS_PAGE != 0 });
            }
        }
        None
    }

    /// Where the search for a key begins.
    #[inline]
    fn first(&self, key: u64) -> usize {
        place((key ^ (key >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15), self.pages.len())
    }

    /// The rule with a number.
    #[inline]
    pub(super) fn rule(&self, number: u32) -> Option<TableRule> {
        match number.checked_sub(2) {
            Some(place) => {
                let rule = self.rules.get(usize::try_from(place).ok()?)?;
                let [flags, ..] = rule.flags.load(Ordering::Relaxed).to_le_bytes();
                let [low, high] = &rule.frame;
                let words = [low.load(Ordering::Relaxed), high.load(Ordering::Relaxed)];
                Some(TableRule::from_bytes(UnwindUserFrame::from_words(words).to_bytes(), flags))
            }
            None if number == u32::from(number::NOT_COVERED) => Some(TableRule::NotCovered),
            None => Some(TableRule::AskOriginal),
        }
    }

    /// Begins to add a page, unless somebody else is at it or there is no room.
    pub(super) fn begin(&self) -> Option<Adding<'_>> {
        if self.is_full() || self.is_written.swap(true, Ordering::Acquire) {
            return None;
        }
        Some(Adding { room: self, first: self.used_rows.load(Ordering::Relaxed), count: 0 })
    }
}

impl fmt::Debug for LazyRoom<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyRoom")
            .field("pages", &self.pages())
            .field("rows", &self.rows())
            .field("rules", &self.rules())
            .field("is_full", &self.is_full())
            .finish_non_exhaustive()
    }
}

/// What is known of a page: at least one row, the first of which is at its beginning.
pub(super) struct Known<'k> {
    rows: &'k [LazyRow],
    /// Whether a function ends with the page.
    ends: bool,
}

impl Known<'_> {
    /// The number of the rule at an address with this low byte, and whether a function ends there.
    #[inline]
    pub(super) fn at(&self, low: u8) -> (u32, bool) {
        let mut found = u32::from(number::ASK_ORIGINAL) << NUMBER_SHIFT;
        for row in self.rows {
            let row = row.0.load(Ordering::Relaxed);
            let [address, ..] = row.to_le_bytes();
            if address > low {
                let ends = row & ENDS != 0 && address == low.wrapping_add(1);
                return (number_of(found), ends);
            }
            found = row;
        }
        (number_of(found), self.ends && low == u8::MAX)
    }
}

#[inline]
fn number_of(row: u32) -> u32 {
    (row & !ENDS) >> NUMBER_SHIFT
}

/// A page that is being added. Nobody sees it before it is [finished](Adding::finish), and there is only one
/// at a time.
pub(super) struct Adding<'a> {
    room: &'a LazyRoom<'a>,
    first: u32,
    count: u32,
}

impl Drop for Adding<'_> {
    fn drop(&mut self) {
        self.room.is_written.store(false, Ordering::Release);
    }
}

impl Adding<'_> {
    /// The number of a rule, a new one where it has none yet; that of [`TableRule::AskOriginal`] where there
    /// is no room for it.
    pub(super) fn number(&self, rule: TableRule) -> u32 {
        let (frame, flags) = match rule {
            TableRule::NotCovered => return number::NOT_COVERED.into(),
            TableRule::AskOriginal => return number::ASK_ORIGINAL.into(),
            TableRule::Frame { frame, .. } => (frame.to_words(), rule.to_bytes().1),
        };
        let rules = self.room.rules;
        let first = place(hash(frame, flags), rules.len());
        let places = (first..rules.len()).chain(0..first);
        let wanted = u32::from(flags) | IS_RULE;
        for at in places {
            let Some(rule) = rules.get(at) else { break };
            let found = rule.flags.load(Ordering::Relaxed);
            let [low, high] = &rule.frame;
            if found == 0 {
                let [first, second] = frame;
                low.store(first, Ordering::Relaxed);
                high.store(second, Ordering::Relaxed);
                rule.flags.store(wanted, Ordering::Relaxed);
                self.room.used_rules.fetch_add(1, Ordering::Relaxed);
            }
            let is_it = [low, high].map(|word| word.load(Ordering::Relaxed)) == frame;
            if found == 0 || (found == wanted && is_it) {
                return u32::try_from(at).map_or(u32::from(number::ASK_ORIGINAL), |at| at.saturating_add(2));
            }
        }
        number::ASK_ORIGINAL.into()
    }

    /// Takes all rows back.
    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    /// Adds a row: the low byte of its address, its rule's number, whether a function ends before it.
    pub(super) fn row(&mut self, low: u8, number: u32, ends: bool) {
        let at = usize::try_from(self.first.saturating_add(self.count)).unwrap_or(usize::MAX);
        let row = u32::from(low) | number.wrapping_shl(NUMBER_SHIFT) | if ends { ENDS } else { 0 };
        match self.room.rows.get(at) {
            Some(place) => place.0.store(row, Ordering::Relaxed),
            None => self.room.is_full.store(true, Ordering::Relaxed),
        }
        self.count = self.count.saturating_add(1);
    }

    /// Makes the page known, if there was room for it; `ends`: a function ends with it.
    pub(super) fn finish(self, key: u64, ends: bool) {
        let room = self.room;
        let most = room.pages.len().saturating_sub(room.pages.len().div_ceil(4));
        let is_too_many = usize::try_from(room.pages()).map_or(true, |pages| pages >= most);
        let (Some(less_one), false, false) = (self.count.checked_sub(1), room.is_full(), is_too_many) else {
            room.is_full.store(true, Ordering::Relaxed);
            return;
        };
        let known = IS_KNOWN
            | if ends { ENDS_PAGE } else { 0 }
            | u64::from(less_one & 0xff).wrapping_shl(COUNT_SHIFT)
            | u64::from(self.first).wrapping_shl(ROW_SHIFT);
        let first = room.first(key);
        let (before, from) = room.pages.split_at_checked(first).unwrap_or_default();
        let free = from.iter().chain(before).find(|page| page.known.load(Ordering::Relaxed) == 0);
        if let Some(page) = free {
            room.used_rows.store(self.first.saturating_add(self.count), Ordering::Relaxed);
            room.used_pages.fetch_add(1, Ordering::Relaxed);
            page.key.store(key, Ordering::Relaxed);
            page.known.store(known, Ordering::Release);
        }
    }
}
