//! The rows of a usual function.

use super::plain::{Saved, u32_of};
use super::rule::outermost;
use crate::UnwindUserFrame;

/// A row whose data words are offsets from sp or fp and from the CFA.
pub(super) struct PlainRow<'d> {
    info: u8,
    /// Its words and all that follows.
    words: &'d [u8],
}

/// The last of `count` rows, with starts of so many bytes, that begins at `offset` or below, in a function of
/// `size` bytes. `None` where there is none, or a row on the way or right behind makes no sense.
#[inline(always)]
pub(super) fn last_at<const START: usize, const IS_BIG: bool>(
    rows: &[u8],
    count: u32,
    offset: u32,
    size: u32,
) -> Option<PlainRow<'_>> {
    let mut rest = rows;
    let mut left = count;
    let mut least = 0;
    let mut found_size = 0;
    // Each turn takes bytes of the section.
    'rows: while left > 0 {
        let (_, info) = head::<START, IS_BIG>(rest)?;
        let row_size = START.wrapping_add(1).wrapping_add(words_size(info)?);
        // Most rows have the form of the one before: then where they begin need not be computed from that.
        let mut is_first = true;
        while let Some((row, behind)) = rest.split_at_checked(row_size)
            && let Some((start, row_info)) = head::<START, IS_BIG>(row)
            && row_info == info
        {
            is_first = false;
            if start > offset {
                if start > size {
                    return None;
                }
                break 'rows;
            }
            if start < least {
                return None;
            }
            least = start.wrapping_add(1);
            found_size = row_size;
            rest = behind;
            left = left.wrapping_sub(1);
            if left == 0 {
                break 'rows;
            }
        }
        if is_first {
            return None;
        }
    }
    // None, where there is none, so far.
    let found = rows.len().checked_sub(rest.len())?.checked_sub(found_size).filter(|_| found_size > 0)?;
    let found = rows.get(found..)?;
    let (_, info) = head::<START, IS_BIG>(found)?;
    Some(PlainRow { info, words: found.get(START.wrapping_add(1)..)? })
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

impl PlainRow<'_> {
    /// The rule. `None` also near the end of all rows, where not every word can be read as four bytes.
    #[inline(always)]
    pub(super) fn frame<const IS_BIG: bool>(&self, saved: Saved) -> Option<UnwindUserFrame> {
        let count = (self.info >> 1) & 0x0f;
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
                let word = self.word::<IS_BIG>(used.into())?;
                used = used.wrapping_add(1);
                Some(word)
            }
            0 => None,
            fixed => Some(fixed.into()),
        };
        let is_on_fp = self.info & 1 == 0;
        (count == used).then_some(UnwindUserFrame::plain(is_on_fp, cfa, ra, fp))
    }

    /// The data word at `index`. Reads beyond it, to the same number of bytes for all widths.
    #[inline(always)]
    fn word<const IS_BIG: bool>(&self, index: usize) -> Option<i32> {
        let size_log2 = word_size_log2(self.info);
        let bytes = *self.words.get(index.wrapping_shl(size_log2)..)?.first_chunk()?;
        let unused = 32u32.wrapping_sub(8u32.wrapping_shl(size_log2));
        let word = if IS_BIG { u32_of::<true>(bytes) } else { u32_of::<false>(bytes).wrapping_shl(unused) };
        Some(word.cast_signed().wrapping_shr(unused))
    }
}
