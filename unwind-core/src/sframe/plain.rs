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
use super::samples::Samples;
use super::section::{SFrameSection, Starts, V1, V2, V3};
use crate::plain::Plain;

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
    size: u32,
    row_count: u32,
    /// The kind of its rows, and how wide their starts are.
    info: u8,
    rows: &'d [u8],
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

    /// The rule at `svma`, if it is usual, and whether that is the last address of its function. `IS_BIG` is the
    /// section's byte order.
    ///
    /// In a function of its own, and a rule is two words, so that callers have it in registers.
    #[inline(never)]
    pub(super) fn rule_at<const IS_BIG: bool>(&self, samples: Option<&Samples>, svma: u64) -> Option<Plain> {
        let among = match samples {
            Some(samples) => Some(samples.around(svma)?),
            None => None,
        };
        let (offset, function) = match &self.functions {
            Functions::V1(starts) => {
                let (offset, entry) = starts.last_at::<IS_BIG>(among, svma)?;
                (offset, self.function::<IS_BIG>(entry.first_chunk()?)?)
            }
            Functions::V2(starts) => {
                let (offset, entry) = starts.last_at::<IS_BIG>(among, svma)?;
                (offset, self.function::<IS_BIG>(entry.first_chunk()?)?)
            }
            Functions::V3(starts) => {
                let (offset, entry) = starts.last_at::<IS_BIG>(among, svma)?;
                (offset, self.function_of_v3::<IS_BIG>(entry)?)
            }
        };
        let start = svma.wrapping_sub(offset);
        let offset = u32::try_from(offset).ok()?;
        if offset >= function.size || start.checked_add(function.size.into()).is_none() {
            return None;
        }
        let rule = function.row_at::<IS_BIG>(offset)?.rule::<IS_BIG>(self.saved)?;
        Some(rule.at_last(offset == function.size.wrapping_sub(1)))
    }

    #[inline(always)]
    fn function<const IS_BIG: bool>(&self, entry: &[u8; V1]) -> Option<Function<'d>> {
        let [_, _, _, _, s0, s1, s2, s3, r0, r1, r2, r3, c0, c1, c2, c3, info] = *entry;
        let rows = usize::try_from(u32_of::<IS_BIG>([r0, r1, r2, r3])).ok()?;
        Some(Function {
            size: u32_of::<IS_BIG>([s0, s1, s2, s3]),
            row_count: u32_of::<IS_BIG>([c0, c1, c2, c3]),
            // What only version 3 has means nothing here.
            info: info & 0x1f,
            rows: self.rows.get(rows..)?,
        })
    }

    #[inline(always)]
    fn function_of_v3<const IS_BIG: bool>(&self, entry: &[u8; V3]) -> Option<Function<'d>> {
        let [_, _, _, _, _, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3] = *entry;
        let attribute = usize::try_from(u32_of::<IS_BIG>([a0, a1, a2, a3])).ok()?;
        let (attributes, rows) = self.rows.get(attribute..)?.split_first_chunk()?;
        let [c0, c1, info, kind, _] = *attributes;
        if kind & 0x1f != 0 {
            return None;
        }
        let row_count = if IS_BIG { u16::from_be_bytes([c0, c1]) } else { u16::from_le_bytes([c0, c1]) };
        Some(Function {
            size: u32_of::<IS_BIG>([s0, s1, s2, s3]),
            row_count: row_count.into(),
            // Not the key that return addresses are signed with.
            info: info & 0x9f,
            rows,
        })
    }
}

impl Function<'_> {
    /// The row that holds at an offset in the function.
    #[inline(always)]
    fn row_at<const IS_BIG: bool>(&self, offset: u32) -> Option<PlainRow> {
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
    /// The last function that begins at or below `svma`, provided that they are sorted, and that it is one of
    /// so many from an index on, or all begin above: how far below, and its entry.
    #[inline(always)]
    fn last_at<const IS_BIG: bool>(
        &self,
        among: Option<(u32, u32)>,
        svma: u64,
    ) -> Option<(u64, &'d [u8; SIZE])> {
        let size = u64::try_from(SIZE).ok()?;
        let (index, mut count) = among.unwrap_or((0, self.count()));
        // It is one of the first `count` of the rest; `distance` is from what the first start there is relative to.
        let mut rest = self.entries().get(usize::try_from(index).ok()?..)?.as_flattened();
        let mut distance = svma.wrapping_sub(self.base);
        distance = distance.wrapping_sub(u64::from(index).wrapping_mul(size) & self.step_mask);
        // Each turn leaves a quarter: its three reads wait for the turn before, but not for each other, and nothing
        // has to be guessed. What a turn waits for is kept short: an addition, a read, a comparison, two choices.
        while count > 8 {
            let quarter = count / 4;
            let first = u64::from(quarter).wrapping_mul(size);
            let (second, third) = (first.wrapping_mul(2), first.wrapping_mul(3));
            let step = first & self.step_mask;
            let from_first = distance.wrapping_sub(step);
            let from_second = from_first.wrapping_sub(step);
            let from_third = from_second.wrapping_sub(step);
            let is_past = |at: u64, distance: u64| {
                let entry = rest.get(usize::try_from(at).ok()?..)?;
                Some(stated::<SIZE, IS_BIG>(entry)? <= distance.cast_signed())
            };
            // Is there, and so are the others.
            let is_third = is_past(third, from_third)?;
            let is_first = is_past(first, from_first)?;
            let is_second = is_past(second, from_second)?;
            let below = select_unpredictable(is_first, first, 0);
            let above = select_unpredictable(is_third, third, second);
            let at = select_unpredictable(is_second, above, below);
            rest = rest.get(usize::try_from(at).ok()?..)?;
            distance = distance.wrapping_sub(at & self.step_mask);
            count = count.wrapping_sub(quarter.wrapping_mul(3));
        }
        let (entries, _) = rest.as_chunks::<SIZE>();
        let step = size & self.step_mask;
        let past = match entries.first_chunk::<8>() {
            // Those that are no candidates begin above. To compare them as well takes no loop.
            Some(eight) => count_past::<SIZE, IS_BIG>(eight, distance, step),
            None => count_past::<SIZE, IS_BIG>(entries.get(..usize::try_from(count).ok()?)?, distance, step),
        };
        let entry = entries.get(usize::try_from(past).ok()?)?;
        let distance = distance.wrapping_sub(past.wrapping_mul(step));
        Some((distance.wrapping_sub(stated::<SIZE, IS_BIG>(entry)?.cast_unsigned()), entry))
    }
}

/// How many of a few functions but for the first one begin not beyond so far from the base of the first one's
/// start, where that of the next one is further by `step`.
#[inline(always)]
fn count_past<const SIZE: usize, const IS_BIG: bool>(
    entries: &[[u8; SIZE]],
    mut distance: u64,
    step: u64,
) -> u64 {
    let mut past = 0u64;
    for entry in entries.iter().skip(1) {
        distance = distance.wrapping_sub(step);
        let is_past = stated::<SIZE, IS_BIG>(entry).is_some_and(|stated| stated <= distance.cast_signed());
        past = past.wrapping_add(is_past.into());
    }
    past
}

/// The start that an entry states.
#[inline(always)]
fn stated<const SIZE: usize, const IS_BIG: bool>(entry: &[u8]) -> Option<i64> {
    Some(if SIZE == V3 {
        let bytes = *entry.first_chunk()?;
        if IS_BIG { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) }
    } else {
        i64::from(u32_of::<IS_BIG>(*entry.first_chunk()?).cast_signed())
    })
}

#[inline(always)]
pub(super) fn u32_of<const IS_BIG: bool>(bytes: [u8; 4]) -> u32 {
    if IS_BIG { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
}
