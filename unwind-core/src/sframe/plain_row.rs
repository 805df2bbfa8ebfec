//! The rows of a usual function.

use super::plain::{Saved, u32_of};
use crate::UnwindUserFrame;
use crate::frame::PlainParts;
use crate::plain::Plain;
use crate::source::{Trust, UnwindUserType};

/// A row whose data words are offsets from sp or fp and from the CFA.
#[derive(Clone, Copy)]
pub(super) struct PlainRow {
    /// The first bytes of its words, in the order of the section.
    words: u64,
    /// Its form.
    info: u8,
}

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
    // So that no offset wraps around; a section has fewer bytes of rows.
    let rows = rows.get(..MOST_BYTES).unwrap_or(rows);
    // No start is above that.
    let most = u64::from(offset).min(key_from::<START>(0, 1).wrapping_sub(1));
    let mut left = count.checked_sub(1)?;
    let mut next = 0u32;
    let mut key = key_at::<START, IS_BIG>(rows, next)?;
    let mut least = 0;
    // The form of the rows before, and the size of each.
    let mut found = None;
    // As many turns as there are changes of form, and within them as there are rows.
    'rows: loop {
        let info = info_of::<START>(key);
        let form = key_from::<START>(0, info);
        let mut start = key.wrapping_sub(form);
        let row_size = words_size(info)?.wrapping_add(u32::try_from(START).ok()?).wrapping_add(1);
        if start > most {
            // It has to make sense as well.
            if start > size.into() || !holds(rows, next.wrapping_add(row_size)) {
                return None;
            }
            break;
        }
        found = Some((info, row_size));
        // One comparison: in a row of another form, that is far above.
        while start <= most {
            if start < least {
                return None;
            }
            least = start.wrapping_add(1);
            next = next.wrapping_add(row_size);
            if left == 0 {
                break 'rows;
            }
            left = left.wrapping_sub(1);
            // Still among the rows, or there is none.
            key = key_at::<START, IS_BIG>(rows, next)?;
            start = key.wrapping_sub(form);
        }
    }
    let (info, row_size) = found?;
    // Not all of it may be there.
    if !holds(rows, next) {
        return None;
    }
    let words = next.wrapping_sub(row_size).wrapping_add(u32::try_from(START).ok()?).wrapping_add(1);
    let words = rows.get(usize::try_from(words).ok()?..)?;
    Some(PlainRow::of::<IS_BIG>(info, words))
}

/// Less than 4 GiB, by more than a row.
const MOST_BYTES: usize = 0xffff_0000;

/// Whether rows go on up to there at the least.
#[inline(always)]
fn holds(rows: &[u8], end: u32) -> bool {
    usize::try_from(end).is_ok_and(|end| end <= rows.len())
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

/// The key of the row that begins at an offset.
#[inline(always)]
fn key_at<const START: usize, const IS_BIG: bool>(rows: &[u8], offset: u32) -> Option<u64> {
    let at = usize::try_from(offset).ok()?;
    // One read instead of two.
    if !IS_BIG {
        if START == 1 {
            return Some(u16::from_le_bytes(*rows.get(at..at.wrapping_add(2))?.first_chunk()?).into());
        }
        if START == 2
            && let Some(four) = rows.get(at..at.wrapping_add(4))
        {
            return Some(u64::from(u32::from_le_bytes(*four.first_chunk()?) & 0xff_ffff));
        }
    }
    let (start, rest) = rows.get(at..)?.split_first_chunk::<START>()?;
    let mut wide = [0; 4];
    if IS_BIG {
        *wide.last_chunk_mut()? = *start;
    } else {
        *wide.first_chunk_mut()? = *start;
    }
    Some(key_from::<START>(u32_of::<IS_BIG>(wide), *rest.first()?))
}

/// How many bytes the data words of a row of this form are.
#[inline(always)]
fn words_size(info: u8) -> Option<u32> {
    (info & 0x60 != 0x60).then_some(u32::from((info >> 1) & 0x0f).wrapping_shl(word_size_log2(info)))
}

#[inline(always)]
fn word_size_log2(info: u8) -> u32 {
    u32::from((info >> 5) & 3)
}

impl PlainRow {
    /// The row of this form whose words begin here.
    #[inline(always)]
    fn of<const IS_BIG: bool>(info: u8, words: &[u8]) -> Self {
        let words = match words.first_chunk() {
            Some(words) => *words,
            None => few(words),
        };
        let words = if IS_BIG { u64::from_be_bytes(words) } else { u64::from_le_bytes(words) };
        PlainRow { words, info }
    }

    /// The rule.
    #[inline(always)]
    pub(super) fn rule<const IS_BIG: bool>(&self, saved: Saved) -> Option<Plain> {
        let count = (self.info >> 1) & 0x0f;
        if count == 0 {
            return Plain::of(UnwindUserType::SFrame, UnwindUserFrame::OUTERMOST, Trust::Exact);
        }
        let cfa_off = u32::try_from(self.word::<IS_BIG>(0)?).ok().filter(|offset| *offset > 0)?;
        let mut used = 1u8;
        let ra_off = match saved.ra {
            0 => {
                used = 2;
                // 0 stands for none.
                i16::try_from(self.word::<IS_BIG>(1)?).ok().filter(|word| *word != 0)?
            }
            fixed => fixed.into(),
        };
        let fp_off = match saved.fp {
            0 if count > used => {
                let word = self.word::<IS_BIG>(used)?;
                used = used.wrapping_add(1);
                Some(i16::try_from(word).ok()?)
            }
            0 => None,
            fixed => Some(fixed.into()),
        };
        if count != used {
            return None;
        }
        let parts = PlainParts {
            use_fp: self.info & 1 == 0,
            saves_fp: fp_off.is_some(),
            cfa_off,
            ra_off,
            fp_off: fp_off.unwrap_or(0),
        };
        Plain::of_parts(UnwindUserType::SFrame, &parts, Trust::Exact)
    }

    /// The data word at `index`, if it is one of the first bytes. Others follow behind the last one.
    #[inline(always)]
    fn word<const IS_BIG: bool>(&self, index: u8) -> Option<i32> {
        let bits = 8u32.wrapping_shl(word_size_log2(self.info));
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
