//! The index: which entry covers an address, and where its instructions are.

use super::instruction::Instructions;
use super::section::{ENTRY, EhabiSections, prel31, word};
use crate::{Broken, SourceError};

/// One entry of the index: the code from its start to that of the next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EhabiEntry {
    /// Where it is in the index.
    pub index: u32,
    /// The first address that it covers (svma), without a Thumb bit. That of a function; linkers
    /// merge the entries of neighbours that say the same.
    pub start: u64,
    /// The first address that it no longer covers (svma). Code without an entry of its own counts
    /// as that of the entry before it, unless the linker has put one in that cannot be unwound.
    pub end: u64,
}

impl EhabiEntry {
    /// Its offset in `.ARM.exidx`: where errors are said to be.
    pub fn offset(&self) -> u64 {
        u64::from(self.index).wrapping_mul(ENTRY)
    }
}

/// What an entry says.
#[derive(Clone, Debug)]
pub enum Unwinding<'d> {
    /// `EXIDX_CANTUNWIND`: frames of this code cannot be unwound.
    CannotUnwind,
    /// They are unwound by these instructions.
    Instructions {
        /// Who interprets the entry.
        personality: Personality,
        /// The instructions.
        instructions: Instructions<'d>,
    },
}

/// Who interprets an entry when an exception is thrown. All of them unwind alike; they differ in
/// what follows the instructions, which is of no interest here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Personality {
    /// The compact model: one of the routines 0, 1 and 2 that the ABI defines.
    Compact(u8),
    /// The generic model: the routine at this address (svma, without a Thumb bit), as GNU's and
    /// LLVM's assemblers write it for `.personality`: that of C++ is `__gxx_personality_v0`.
    Generic(u64),
}

/// `EXIDX_CANTUNWIND`.
const CANTUNWIND: u32 = 1;

const THUMB: u64 = 1;

impl<'d> EhabiSections<'d> {
    /// The entry at `index`.
    ///
    /// # Errors
    /// Where there is none.
    pub fn entry(&self, index: u32) -> Result<EhabiEntry, SourceError> {
        let start = self.start(index)?;
        let next = index.saturating_add(1);
        let end = if next < self.len() { self.start(next)? } else { self.text_end };
        Ok(EhabiEntry { index, start, end })
    }

    /// The entries, in the order of the table.
    pub fn entries(&self) -> impl Iterator<Item = Result<EhabiEntry, SourceError>> + use<'d> {
        let sections = *self;
        (0..self.len()).map(move |index| sections.entry(index))
    }

    /// The entry that covers `svma`: the last one that begins at or below it. A binary search.
    ///
    /// # Errors
    /// [`Broken::BadIndex`] where the table turns out not to be sorted: then nothing says where an
    /// entry ends.
    pub fn find(&self, svma: u64) -> Result<Option<EhabiEntry>, SourceError> {
        if svma < self.text_start || svma >= self.text_end {
            return Ok(None);
        }
        let (mut low, mut high) = (0, self.len());
        let (mut least, mut most) = (0, u64::MAX);
        while low < high {
            let middle = low.midpoint(high);
            let start = self.start(middle)?;
            if start < least || start > most {
                return Err(bad_index(middle));
            }
            if start <= svma {
                low = middle.saturating_add(1);
                least = start;
            } else {
                high = middle;
                most = start;
            }
        }
        low.checked_sub(1).map(|index| self.entry(index)).transpose()
    }

    /// What `entry` says.
    ///
    /// # Errors
    /// [`Broken::OutOfBounds`] where it leads out of `.ARM.extab`, [`Broken::UnknownPersonality`]
    /// for a routine that the ABI has reserved or that
    /// [`personalities`](EhabiSections::personalities) does not list, [`Broken::Malformed`] for an
    /// entry that is not on a word boundary. The offset is that of the entry in `.ARM.exidx`.
    pub fn unwinding(&self, entry: &EhabiEntry) -> Result<Unwinding<'d>, SourceError> {
        let offset = entry.offset();
        let error = |broken| SourceError { broken, offset };
        let (second, place) = self.index_word(entry.index, true)?;
        if second == CANTUNWIND {
            return Ok(Unwinding::CannotUnwind);
        }
        // An entry in the index is a word of the compact model. Nothing follows it.
        if second & COMPACT != 0 {
            return self.compact(second, &[], offset);
        }
        let place = prel31(second, place);
        if place & 3 != 0 {
            return Err(error(Broken::Malformed));
        }
        let data = self.extab_from(place).ok_or(error(Broken::OutOfBounds))?;
        let first = word(data, 0, self.order).ok_or(error(Broken::OutOfBounds))?;
        let rest = data.get(4..).unwrap_or_default();
        if first & COMPACT != 0 {
            return self.compact(first, rest, offset);
        }
        let routine = prel31(first, place) & !THUMB;
        if self.personalities.is_some_and(|known| !known.contains(&routine)) {
            return Err(error(Broken::UnknownPersonality));
        }
        let first = word(rest, 0, self.order).ok_or(error(Broken::OutOfBounds))?;
        let [count, ..] = first.to_be_bytes();
        let more = words(rest.get(4..).unwrap_or_default(), count).ok_or(error(Broken::OutOfBounds))?;
        let instructions = Instructions::new(first, 3, more, self.order, offset);
        Ok(Unwinding::Instructions { personality: Personality::Generic(routine), instructions })
    }

    /// Checks everything: the order of the index and every instruction of every entry. Work
    /// proportional to the tables, where no two entries share instructions. Tables that pass never
    /// fail at lookup.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(&self) -> Result<(), SourceError> {
        let whole = u64::from(self.len()).wrapping_mul(ENTRY);
        if u64::try_from(self.exidx.data.len()) != Ok(whole) {
            return Err(SourceError { broken: Broken::UnexpectedEnd, offset: whole });
        }
        for entry in self.entries() {
            let entry = entry?;
            let is_last = entry.index.saturating_add(1) >= self.len();
            if !is_last && entry.end < entry.start {
                return Err(bad_index(entry.index.saturating_add(1)));
            }
            if let Unwinding::Instructions { mut instructions, .. } = self.unwinding(&entry)? {
                instructions.try_for_each(|instruction| instruction.map(|_| ()))?;
            }
        }
        Ok(())
    }

    /// The address at which the entry at `index` begins.
    pub(super) fn start(&self, index: u32) -> Result<u64, SourceError> {
        let (first, place) = self.index_word(index, false)?;
        // A relocation against a Thumb function's symbol sets bit 0.
        Ok(prel31(first, place) & !THUMB)
    }

    /// The compact model: the routine's number in bits 24-27, with bits 28-30 clear. Routine 0 has
    /// three instructions in the word, 1 and 2 a count of further words and two.
    fn compact(&self, first: u32, rest: &'d [u8], offset: u64) -> Result<Unwinding<'d>, SourceError> {
        let error = |broken| SourceError { broken, offset };
        let [head, count, ..] = first.to_be_bytes();
        let number = head & 0x7f;
        let instructions = match number {
            0 => Instructions::new(first, 3, &[], self.order, offset),
            1 | 2 => {
                let more = words(rest, count).ok_or(error(Broken::OutOfBounds))?;
                Instructions::new(first, 2, more, self.order, offset)
            }
            _ => return Err(error(Broken::UnknownPersonality)),
        };
        Ok(Unwinding::Instructions { personality: Personality::Compact(number), instructions })
    }
}

/// Bit 31 of the first word: the compact model.
const COMPACT: u32 = 1 << 31;

/// The first `count` words.
fn words(data: &[u8], count: u8) -> Option<&[u8]> {
    data.get(..usize::from(count).checked_mul(4)?)
}

fn bad_index(index: u32) -> SourceError {
    SourceError { broken: Broken::BadIndex, offset: u64::from(index).wrapping_mul(ENTRY) }
}
