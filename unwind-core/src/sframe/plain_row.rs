//! The rows of a usual function.

use core::num::NonZeroU32;

use super::plain::{Saved, u32_of};
use super::rule::outermost;
use crate::UnwindUserFrame;

/// A row whose data words are offsets from sp or fp and from the CFA. Two words, so that it stays in registers.
#[derive(Clone, Copy)]
pub(super) struct PlainRow {
    /// The first bytes of its words, in the order of the section.
    words: u64,
    /// Its form, and [`IS_LAST`]. [`SET`] is never missing.
    bits: NonZeroU32,
}

/// Whether the row was found for the last address of its function.
const IS_LAST: u32 = 1 << 8;
const SET: NonZeroU32 = match NonZeroU32::new(1 << 9) {
    Some(set) => set,
    None => NonZeroU32::MIN,
};

/// The last of `count` rows, with starts of so many bytes, that begins at `offset` or below, in a function of
/// `size` bytes. `None` where there is none, or a row on the way or right behind makes no sense.
///
/// Where a row begins depends on the form of the one before, so that a processor would read one after another;
/// but most rows have the same form as the one before, and that it can guess.
#[inline(always)]
pub(super) fn last_at<const START: usize, const IS_BIG: bool>(
    rows: &[u8],
    count: u32,
    offset: u32,
    size: u32,
) -> Option<PlainRow> {
    // No start is above that.
    let most = u64::from(offset).min(key_from::<START>(0, 1).wrapping_sub(1));
    let mut next = 0usize;
    let mut found = 0;
    let mut least = 0;
    let mut left = count;
    // The form of the row before, and the size of such rows. Nothing has the first of these forms.
    let mut form = key_from::<START>(0, 0xff);
    let mut row_size = usize::MAX;
    // As many turns as there are rows.
    while left > 0 {
        let row = rows.get(next..)?;
        let key = key_of::<START, IS_BIG>(row)?;
        // One comparison: in a row of another form, that is far above.
        let mut start = key.wrapping_sub(form);
        if start > most {
            let info = info_of::<START>(key);
            form = key_from::<START>(0, info);
            start = key.wrapping_sub(form);
            let its_size = START.wrapping_add(1).wrapping_add(words_size(info)?);
            if start > most {
                // It has to make sense as well.
                if start > size.into() || row.len() < its_size {
                    return None;
                }
                break;
            }
            row_size = its_size;
        }
        if start < least {
            return None;
        }
        least = start.wrapping_add(1);
        found = next;
        // Still among the rows, or the next turn tells.
        next = next.wrapping_add(row_size);
        left = left.wrapping_sub(1);
    }
    // Nothing is found so far, or not all of it is there.
    if least == 0 || next > rows.len() {
        return None;
    }
    PlainRow::of::<START, IS_BIG>(rows.get(found..)?)
}

/// Start and form of a row as a number: the start in the lowest bytes, the form above.
#[inline(always)]
fn key_from<const START: usize>(start: u32, info: u8) -> u64 {
    let bits = if START == 1 {
        8
    } else if START == 2 {
        16
    } else {
        32
    };
    u64::from(info).wrapping_shl(bits) | u64::from(start)
}

/// The form in a key.
#[inline(always)]
fn info_of<const START: usize>(key: u64) -> u8 {
    let [_, one, two, _, four, ..] = key.to_le_bytes();
    if START == 1 {
        one
    } else if START == 2 {
        two
    } else {
        four
    }
}

/// The key of the row that begins here.
#[inline(always)]
fn key_of<const START: usize, const IS_BIG: bool>(row: &[u8]) -> Option<u64> {
    // One read instead of two.
    if START == 2
        && !IS_BIG
        && let Some(four) = row.first_chunk()
    {
        return Some(u64::from(u32::from_le_bytes(*four) & 0xff_ffff));
    }
    let (start, info) = head::<START, IS_BIG>(row)?;
    Some(key_from::<START>(start, info))
}

/// Start and form of the row that begins here.
#[inline(always)]
fn head<const START: usize, const IS_BIG: bool>(bytes: &[u8]) -> Option<(u32, u8)> {
    let (start, rest) = bytes.split_first_chunk::<START>()?;
    let mut wide = [0; 4];
    if IS_BIG {
        *wide.last_chunk_mut()? = *start;
    } else {
        *wide.first_chunk_mut()? = *start;
    }
    Some((u32_of::<IS_BIG>(wide), *rest.first()?))
}

/// How many bytes the data words of a row of this form are.
#[inline(always)]
fn words_size(info: u8) -> Option<usize> {
    (info & 0x60 != 0x60).then_some(usize::from((info >> 1) & 0x0f).wrapping_shl(word_size_log2(info)))
}

#[inline(always)]
fn word_size_log2(info: u8) -> u32 {
    u32::from((info >> 5) & 3)
}

impl PlainRow {
    /// The row that begins here.
    #[inline(always)]
    fn of<const START: usize, const IS_BIG: bool>(bytes: &[u8]) -> Option<Self> {
        let (_, info) = head::<START, IS_BIG>(bytes)?;
        let words = bytes.get(START.wrapping_add(1)..)?;
        let words = match words.first_chunk() {
            Some(words) => *words,
            None => few(words),
        };
        let words = if IS_BIG { u64::from_be_bytes(words) } else { u64::from_le_bytes(words) };
        Some(PlainRow { words, bits: SET | u32::from(info) })
    }

    /// The row, found for the last address of its function or not.
    #[inline(always)]
    pub(super) fn at_last(self, is_last: bool) -> Self {
        PlainRow { bits: self.bits | if is_last { IS_LAST } else { 0 }, ..self }
    }

    /// Whether it was found for the last address of its function.
    #[inline(always)]
    pub(super) fn is_last(&self) -> bool {
        self.bits.get() & IS_LAST != 0
    }

    #[inline(always)]
    fn info(&self) -> u8 {
        let [info, ..] = self.bits.get().to_le_bytes();
        info
    }

    /// The rule.
    #[inline(always)]
    pub(super) fn frame<const IS_BIG: bool>(&self, saved: Saved) -> Option<UnwindUserFrame> {
        let info = self.info();
        let count = (info >> 1) & 0x0f;
        if count == 0 {
            return outermost();
        }
        let cfa = self.word::<IS_BIG>(0)?;
        let mut used = 1u8;
        let ra = match saved.ra {
            0 => {
                used = 2;
                // 0 stands for none.
                self.word::<IS_BIG>(1).filter(|word| *word != 0)?
            }
            fixed => fixed.into(),
        };
        let fp = match saved.fp {
            0 if count > used => {
                let word = self.word::<IS_BIG>(used)?;
                used = used.wrapping_add(1);
                Some(word)
            }
            0 => None,
            fixed => Some(fixed.into()),
        };
        let is_on_fp = info & 1 == 0;
        (count == used).then_some(UnwindUserFrame::plain(is_on_fp, cfa, ra, fp))
    }

    /// The data word at `index`, if it is one of the first bytes. Others follow behind the last one.
    #[inline(always)]
    fn word<const IS_BIG: bool>(&self, index: u8) -> Option<i32> {
        let bits = 8u32.wrapping_shl(word_size_log2(self.info()));
        let before = bits.wrapping_mul(index.into());
        if before >= 64 {
            return None;
        }
        let unused = 64u32.wrapping_sub(bits);
        let word = match IS_BIG {
            true => self.words.wrapping_shl(before),
            false => self.words.wrapping_shr(before).wrapping_shl(unused),
        };
        // No more than 32 bits are left.
        let [a, b, c, d, ..] = word.cast_signed().wrapping_shr(unused).to_le_bytes();
        Some(i32::from_le_bytes([a, b, c, d]))
    }
}

/// The last bytes of all rows, which are fewer than eight, and zeros behind.
#[cold]
fn few(bytes: &[u8]) -> [u8; 8] {
    let mut eight = [0; 8];
    for (to, from) in eight.iter_mut().zip(bytes) {
        *to = *from;
    }
    eight
}
