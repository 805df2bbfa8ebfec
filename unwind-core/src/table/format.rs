//! The bytes of a table, and the search in them.

use core::fmt;
use core::hint::select_unpredictable;
use core::ops::Range;

use super::rule::{RECORD, TableRule, number};
use crate::plain::Plain;

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
pub(super) const VERSION: u8 = 2;
pub(super) const HEADER: usize = 32;
/// Bytes of code in a page, as a power of two.
pub(super) const PAGE_SHIFT: u32 = 8;
/// Bytes of a slot: the low byte of an address, and a byte of a rule's number.
pub(super) const SLOT: usize = 2;

/// A compiled table: borrowed bytes, of which the header has been checked. What a search meets is
/// checked then.
#[derive(Clone, Copy)]
pub struct Table<'t> {
    base: u64,
    /// One more entry than there are pages.
    pages: &'t [[u8; 4]],
    /// How many slots there are.
    count: u32,
    /// The slots, and what follows them.
    slots: &'t [u8],
    rules: &'t [[u8; RECORD]],
}

/// Where a search ends.
#[derive(Clone, Copy)]
struct Place {
    /// The first slot behind the address that was searched for.
    next: u32,
    /// The first slot behind its page.
    after: u32,
    page: usize,
    /// The low byte of the address.
    low: u8,
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
        let [s0, s1, s2, s3, b0, b1, b2, b3, b4, b5, b6, b7, p0, p1, p2, p3, rest @ ..] = body;
        let [n0, n1, n2, n3, zero @ ..] = rest;
        let count = u32::from_le_bytes([*s0, *s1, *s2, *s3]);
        let base = u64::from_le_bytes([*b0, *b1, *b2, *b3, *b4, *b5, *b6, *b7]);
        let pages = u32::from_le_bytes([*p0, *p1, *p2, *p3]);
        let rules = u32::from_le_bytes([*n0, *n1, *n2, *n3]);
        if *zero != [0; 8] || !(2..=u32::from(number::COUNT)).contains(&rules) || base & 0xff != 0 {
            return Err(TableError::BadHeader);
        }
        let (slots, pages, rules) = (u64::from(count), u64::from(pages), u64::from(rules));
        let pages = pages.saturating_add(1).saturating_mul(4);
        let slots = slots.saturating_mul(2);
        let rules = rules.saturating_mul(17);
        let needed = pages.saturating_add(slots).saturating_add(rules).saturating_add(32);
        let split = |bytes: &'t [u8], size: u64| {
            usize::try_from(size).ok().and_then(|size| bytes.split_at_checked(size)).ok_or(short(needed))
        };
        let body = bytes.get(HEADER..).unwrap_or_default();
        let (pages, slots_on) = split(body, pages)?;
        let (_, rules_on) = split(slots_on, slots)?;
        let (rules, _) = split(rules_on, rules)?;
        Ok(Table { base, pages: pages.as_chunks().0, count, slots: slots_on, rules: rules.as_chunks().0 })
    }

    /// The number of slots: one for each row, another for those with rare rules, and one for each function's
    /// end.
    pub fn slots(&self) -> u32 {
        self.count
    }

    /// The number of distinct rules, with the two that are no frames.
    pub fn rules(&self) -> usize {
        self.rules.len()
    }

    /// What holds at `svma`. Outside of the table, the original has to be asked. `None` where the table is
    /// damaged.
    ///
    /// Goes through at most the slots of one page: in a table as [`TableWriter`] made it, no more than three
    /// for each byte of code that a row begins at.
    ///
    /// [`TableWriter`]: super::TableWriter
    #[inline]
    pub fn find(&self, svma: u64) -> Option<TableRule> {
        match self.place(svma) {
            Some(place) => self.rule_before(place.next),
            None => Some(TableRule::AskOriginal),
        }
    }

    /// What holds at `svma`, and whether that is the last address of a function: where the call was that a
    /// return pc belongs to, and whether nothing of its function follows.
    #[inline]
    pub fn find_with_end(&self, svma: u64) -> Option<(TableRule, bool)> {
        match self.place(svma) {
            Some(place) => Some((self.rule_before(place.next)?, self.is_end(place))),
            None => Some((TableRule::AskOriginal, false)),
        }
    }

    /// What holds at `svma` without more ado; at a return pc, where its function does not end right behind it.
    #[inline]
    pub(super) fn plain(&self, svma: u64, is_exact: bool) -> Option<Plain> {
        let place = self.place(svma)?;
        let plain = TableRule::plain_of_record(self.record_before(place.next)?, is_exact)?;
        if !is_exact && self.is_end(place) { None } else { Some(plain) }
    }

    /// The rows of the table, in ascending order: their addresses (svma), what holds there, and whether a
    /// function ends with them. Ends where the table is damaged.
    pub fn ranges(&self) -> TableRanges<'t> {
        TableRanges { table: *self, next: Some(self.base) }
    }

    /// The place of `svma`; `None` outside of the table.
    #[inline]
    fn place(&self, svma: u64) -> Option<Place> {
        let behind = svma.wrapping_sub(self.base);
        let page = usize::try_from(behind >> PAGE_SHIFT).ok()?;
        let [first, after] = self.pages.get(page..)?.first_chunk()?;
        let (first, after) = (u32::from_le_bytes(*first), u32::from_le_bytes(*after));
        let [low, ..] = behind.to_le_bytes();
        // How many slots there are is asked, and not whether all of them were passed over: what is behind the
        // last one of the page may begin anywhere.
        let left = after.saturating_sub(first);
        let mut next = first.wrapping_add(begun(self.sixteen(first)?, left, low));
        if left > SIXTEEN {
            next = self.pass_over(first, after, low)?;
        }
        Some(Place { next: next.min(after), after, page, low })
    }

    /// The first slot of a full page that does not begin at `low` or before it. Apart, so that there is no loop
    /// where a walk waits.
    #[inline(never)]
    fn pass_over(&self, first: u32, after: u32, low: u8) -> Option<u32> {
        let mut next = first;
        // Each turn but the last passes over sixteen slots. A page has at most 512 where nothing is damaged;
        // otherwise the end of the slots ends this.
        loop {
            let left = after.saturating_sub(next);
            let begun = begun(self.sixteen(next)?, left, low);
            next = next.wrapping_add(begun);
            if left <= SIXTEEN || begun < SIXTEEN {
                return Some(next);
            }
        }
    }

    /// Sixteen slots, from this one on.
    #[inline]
    fn sixteen(&self, slot: u32) -> Option<[u64; 4]> {
        // Two rules at least follow the slots, so that there always are 32 bytes.
        let words: &[[u8; 8]; 4] = self.slots.get(byte_of(slot)..)?.as_chunks().0.first_chunk()?;
        Some(words.map(u64::from_le_bytes))
    }

    #[inline]
    fn rule_before(&self, next: u32) -> Option<TableRule> {
        self.record_before(next).map(TableRule::of_record)
    }

    /// The rule that the slot before this one names.
    #[inline]
    fn record_before(&self, next: u32) -> Option<&'t [u8; RECORD]> {
        let number = match *self.slots.get(..byte_of(next))? {
            [.., first] if first < number::WIDE => u16::from(first),
            [.., second, _, first] => number::join(first, second),
            // Before the first row.
            [] => number::ASK_ORIGINAL,
            _ => return None,
        };
        self.rules.get(usize::from(number))
    }

    /// Whether the function that the place is in ends right behind it.
    #[inline]
    fn is_end(&self, place: Place) -> bool {
        // What is not covered begins there. One comparison: that it does somewhere says nothing.
        let end = u16::from(place.low.wrapping_add(1)).to_le_bytes();
        match self.slots.get(byte_of(place.next)..).and_then(<[u8]>::first_chunk::<2>) {
            Some(slot) if u16::from_ne_bytes(*slot) == u16::from_ne_bytes(end) => self.is_near(place),
            _ => false,
        }
    }

    /// Whether the next slot is in the page of the next address.
    fn is_near(&self, place: Place) -> bool {
        if place.low != u8::MAX {
            return place.next < place.after;
        }
        let after = self.pages.get(place.page.saturating_add(2)).map(|page| u32::from_le_bytes(*page));
        place.next == place.after && after.is_some_and(|after| place.next < after)
    }

    /// The first address above `svma` at which a row begins, or the table ends; `None` from there on.
    fn border_above(&self, svma: u64) -> Option<u64> {
        let mut place = self.place(svma)?;
        let mut page_start = svma & !0xff;
        loop {
            if place.next < place.after {
                let [low, _] = *self.slots.get(byte_of(place.next)..)?.first_chunk()?;
                return Some(page_start | u64::from(low));
            }
            // Each turn is another page.
            page_start = page_start.checked_add(1 << PAGE_SHIFT)?;
            let page = place.page.saturating_add(1);
            let Some(after) = self.pages.get(page.saturating_add(1)) else { return Some(page_start) };
            place = Place { next: place.after, after: u32::from_le_bytes(*after), page, low: 0 };
        }
    }
}

/// Where a slot begins among the bytes of all.
#[inline]
fn byte_of(slot: u32) -> usize {
    const SIZE: u64 = 2;
    usize::try_from(u64::from(slot).wrapping_mul(SIZE)).unwrap_or(usize::MAX)
}

/// How many slots are looked at together.
const SIXTEEN: u32 = 16;

/// How many of sixteen slots begin at `low` or before it, up to the first that does not; only `left` of them
/// count. Without a branch: rows are where they are, and nothing tells in advance how many.
#[inline]
fn begun([a, b, c, d]: [u64; 4], left: u32, low: u8) -> u32 {
    const LANES: u64 = 0x0001_0001_0001_0001;
    // Where none is above, this is: a bit behind those of all lanes.
    const BEHIND: u64 = 1 << 63;
    let above = |slots: u64| {
        let addresses = slots & 0x00ff_00ff_00ff_00ff;
        // In each lane, bit 8 is left where the address is not above.
        let difference = (u64::from(low) | 0x100).wrapping_mul(LANES).wrapping_sub(addresses);
        (!difference & 0x0100_0100_0100_0100) >> 8
    };
    let [ninth, ..] = c.to_le_bytes();
    let is_second = (left > 8) & (ninth <= low);
    let first = above(select_unpredictable(is_second, c, a));
    let second = above(select_unpredictable(is_second, d, b));
    let is_first = first != 0;
    let lanes = select_unpredictable(is_first, first, second) | BEHIND;
    let passed = lanes.trailing_zeros().wrapping_add(15) / 16;
    let eight = select_unpredictable(is_second, 8, 0u32);
    passed.wrapping_add(select_unpredictable(is_first, 0, 4)).wrapping_add(eight)
}

impl fmt::Debug for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("base", &self.base)
            .field("pages", &self.pages.len().saturating_sub(1))
            .field("slots", &self.count)
            .field("rules", &self.rules())
            .finish()
    }
}

/// The rows of a table; see [`Table::ranges`].
#[derive(Clone, Debug)]
pub struct TableRanges<'t> {
    table: Table<'t>,
    next: Option<u64>,
}

impl Iterator for TableRanges<'_> {
    /// Addresses (svma), what holds there, whether a function ends there.
    type Item = (Range<u64>, TableRule, bool);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.next.take()?;
        let end = self.table.border_above(start)?;
        let (rule, ends) = self.table.find_with_end(end.wrapping_sub(1))?;
        // In a damaged table, slots may be out of order.
        self.next = Some(end).filter(|end| *end > start);
        Some((start..end, rule, ends))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use std::vec::Vec;

    use super::begun;

    #[test]
    fn sixteen_slots_at_once() {
        let bytes = [0u8, 1, 0x7f, 0x80, 0x81, 0xff];
        let rules = [0xffu8, 0, 0x80, 1];
        // Sorted slots with every address at every place, what is behind them, and every address to look for.
        for count in 0..=16usize {
            for step in 0..6 {
                for behind in bytes {
                    for low in bytes {
                        let address = |at: usize| bytes[(at * step / 5).min(5)];
                        let begin = |at: usize| if at < count { address(at) } else { behind };
                        let word = |word: usize| {
                            let slots = (word * 4..word * 4 + 4).flat_map(|at| [begin(at), rules[at % 4]]);
                            u64::from_le_bytes(slots.collect::<Vec<u8>>().try_into().unwrap())
                        };
                        let expected = (0..count).position(|at| begin(at) > low).unwrap_or(count);
                        let left = u32::try_from(count).unwrap();
                        let found = begun([0, 1, 2, 3].map(word), left, low).min(left);
                        assert_eq!(
                            usize::try_from(found).unwrap(),
                            expected,
                            "{count} {step} {behind} {low}"
                        );
                    }
                }
            }
        }
    }
}
