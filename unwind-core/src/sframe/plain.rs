//! The rules of usual rows of usual functions, straight from the bytes.
//!
//! A section's header is checked once; then a lookup reads the starts of some functions, one entry, and the
//! rows up to the one that holds. Where anything is unusual, or not as it should be, there is no answer here:
//! [`SFrameSection::find`] and [`SFrameSection::row_at`] say what is the matter. Where there is an answer, it
//! is theirs; but where functions are not sorted as they claim to be, and overlap, it may be another of those
//! that cover the address.

use core::hint::select_unpredictable;

use super::header::{Abi, Version};
use super::plain_row::{PlainRow, last_at};
use super::section::{SFrameSection, Starts, V1, V2, V3};
use crate::UnwindUserFrame;

/// What lookups need of a section whose functions claim to be sorted.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlainSection<'d> {
    functions: Functions<'d>,
    /// All rows.
    rows: &'d [u8],
    abi: Abi,
    saved: Saved,
}

/// Where every row of a section has registers saved: from the header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Saved {
    /// 0: rows tell.
    pub(super) ra: i8,
    /// 0: rows tell.
    pub(super) fp: i8,
}

/// Where functions begin, by the version of the section.
#[derive(Clone, Copy, Debug)]
enum Functions<'d> {
    V1(Starts<'d, V1>),
    V2(Starts<'d, V2>),
    V3(Starts<'d, V3>),
}

/// What an entry says about its function.
struct Function<'d> {
    start: u64,
    size: u32,
    row_count: u32,
    /// The kind of its rows, and how wide their starts are.
    info: u8,
    rows: &'d [u8],
}

/// A rule, and whether its pc is the last address of its function.
pub(super) struct PlainRule {
    pub(super) frame: UnwindUserFrame,
    pub(super) is_last: bool,
}

impl<'d> PlainSection<'d> {
    pub(super) fn new(section: &SFrameSection<'d>) -> Option<Self> {
        let header = section.header();
        // On s390x, offsets are stored in another way.
        if !header.is_sorted() || header.abi == Abi::S390x {
            return None;
        }
        let functions = match header.version {
            Version::V1 => Functions::V1(section.starts()),
            Version::V2 => Functions::V2(section.starts()),
            Version::V3 => Functions::V3(section.starts()),
        };
        let saved = Saved { ra: header.fixed_ra_offset, fp: header.fixed_fp_offset };
        Some(PlainSection { functions, rows: section.row_bytes(header.fre_offset), abi: header.abi, saved })
    }

    /// The ABI.
    pub(super) fn abi(&self) -> Abi {
        self.abi
    }

    /// The rule at `svma`, if it is usual. `IS_BIG` is the section's byte order.
    #[inline(never)]
    pub(super) fn rule_at<const IS_BIG: bool>(&self, svma: u64) -> Option<PlainRule> {
        let function = match &self.functions {
            Functions::V1(starts) => {
                let (start, entry) = starts.last_at::<IS_BIG>(svma)?;
                self.function::<IS_BIG>(start, entry.first_chunk()?)?
            }
            Functions::V2(starts) => {
                let (start, entry) = starts.last_at::<IS_BIG>(svma)?;
                self.function::<IS_BIG>(start, entry.first_chunk()?)?
            }
            Functions::V3(starts) => {
                let (start, entry) = starts.last_at::<IS_BIG>(svma)?;
                self.function_of_v3::<IS_BIG>(start, entry)?
            }
        };
        let offset = u32::try_from(svma.wrapping_sub(function.start)).ok()?;
        if offset >= function.size || function.start.checked_add(function.size.into()).is_none() {
            return None;
        }
        let row = function.row_at::<IS_BIG>(offset)?;
        Some(PlainRule {
            frame: row.frame::<IS_BIG>(self.saved)?,
            is_last: offset == function.size.wrapping_sub(1),
        })
    }

    #[inline(always)]
    fn function<const IS_BIG: bool>(&self, start: u64, entry: &[u8; V1]) -> Option<Function<'d>> {
        let [_, _, _, _, s0, s1, s2, s3, r0, r1, r2, r3, c0, c1, c2, c3, info] = *entry;
        let rows = usize::try_from(u32_of::<IS_BIG>([r0, r1, r2, r3])).ok()?;
        Some(Function {
            start,
            size: u32_of::<IS_BIG>([s0, s1, s2, s3]),
            row_count: u32_of::<IS_BIG>([c0, c1, c2, c3]),
            // What only version 3 has means nothing here.
            info: info & 0x1f,
            rows: self.rows.get(rows..)?,
        })
    }

    #[inline(always)]
    fn function_of_v3<const IS_BIG: bool>(&self, start: u64, entry: &[u8; V3]) -> Option<Function<'d>> {
        let [_, _, _, _, _, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3] = *entry;
        let attribute = usize::try_from(u32_of::<IS_BIG>([a0, a1, a2, a3])).ok()?;
        let (attributes, rows) = self.rows.get(attribute..)?.split_first_chunk()?;
        let [c0, c1, info, kind, _] = *attributes;
        if kind & 0x1f != 0 {
            return None;
        }
        let row_count = if IS_BIG { u16::from_be_bytes([c0, c1]) } else { u16::from_le_bytes([c0, c1]) };
        Some(Function {
            start,
            size: u32_of::<IS_BIG>([s0, s1, s2, s3]),
            row_count: row_count.into(),
            // Not the key that return addresses are signed with.
            info: info & 0x9f,
            rows,
        })
    }
}

impl<'d> Function<'d> {
    /// The row that holds at an offset in the function.
    #[inline(always)]
    fn row_at<const IS_BIG: bool>(&self, offset: u32) -> Option<PlainRow<'d>> {
        let row_start = self.info;
        // A row has its start and one byte at the least.
        let least = u64::from(self.row_count).wrapping_mul(u64::from(row_start).wrapping_add(2));
        if u64::try_from(self.rows.len()).is_ok_and(|length| length < least) {
            return None;
        }
        match row_start {
            0 => last_at::<1, IS_BIG>(self.rows, self.row_count, offset, self.size),
            1 => last_at::<2, IS_BIG>(self.rows, self.row_count, offset, self.size),
            2 => last_at::<4, IS_BIG>(self.rows, self.row_count, offset, self.size),
            // Code in blocks, signal frames, and starts of widths that are not known.
            _ => None,
        }
    }
}

impl<'d, const SIZE: usize> Starts<'d, SIZE> {
    /// The last function that begins at or below `svma`, provided that they are sorted: where it begins, and
    /// its entry. The first one, where all begin above.
    #[inline(always)]
    fn last_at<const IS_BIG: bool>(&self, svma: u64) -> Option<(u64, &'d [u8; SIZE])> {
        let distance = svma.wrapping_sub(self.base).cast_signed();
        let is_past = |index: u64| Some(self.distance::<IS_BIG>(index)? <= distance);
        let mut low = 0u32;
        let mut count = self.count();
        // It is one of `count` from `low` on. Each turn leaves a quarter: its three reads wait for the turn before,
        // but not for each other, and nothing has to be guessed.
        while count > 3 {
            let quarter = count / 4;
            let from = u64::from(low);
            let step = u64::from(quarter);
            let third = from.wrapping_add(step.wrapping_mul(3));
            let is_third = is_past(third)?;
            let is_second = is_past(from.wrapping_add(step.wrapping_mul(2)))?;
            let is_first = is_past(from.wrapping_add(step))?;
            let second = low.wrapping_add(quarter);
            low = select_unpredictable(is_first, second, low);
            low = select_unpredictable(is_second, second.wrapping_add(quarter), low);
            low = select_unpredictable(is_third, second.wrapping_add(quarter).wrapping_add(quarter), low);
            count = count.wrapping_sub(quarter.wrapping_mul(3));
        }
        while count > 1 {
            let next = low.wrapping_add(1);
            low = select_unpredictable(is_past(next.into())?, next, low);
            count = count.wrapping_sub(1);
        }
        let start = self.base.wrapping_add_signed(self.distance::<IS_BIG>(low.into())?);
        Some((start, self.entry(low)?))
    }

    /// How far from the base of the first function's start that of the function at `index` is.
    #[inline(always)]
    fn distance<const IS_BIG: bool>(&self, index: u64) -> Option<i64> {
        let entry = self.entries().get(usize::try_from(index).ok()?)?;
        let stated = if SIZE == V3 {
            let bytes = *entry.first_chunk()?;
            if IS_BIG { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) }
        } else {
            i64::from(u32_of::<IS_BIG>(*entry.first_chunk()?).cast_signed())
        };
        let at = index.wrapping_mul(u64::try_from(SIZE).ok()?) & self.step_mask;
        Some(stated.wrapping_add_unsigned(at))
    }
}

#[inline(always)]
pub(super) fn u32_of<const IS_BIG: bool>(bytes: [u8; 4]) -> u32 {
    if IS_BIG { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
}
