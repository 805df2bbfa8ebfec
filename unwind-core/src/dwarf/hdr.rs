//! `.eh_frame_hdr`, searched in place: Linux Standard Base, "The .eh_frame_hdr section".

use super::bytes::Bytes;
use super::entry::{FORMAT, Fde, Here, encoded_value};
use super::plain_entry::{number, size};
use super::section::{Input, Section};
use crate::{Broken, ByteOrder, LookupError, SourceError, WordSize};

/// The search table: pairs of a function's address and its FDE's, sorted by the former. It is in the header of the
/// sections that an [`Input`] reads.
#[derive(Clone, Copy)]
pub(super) struct SearchTable {
    /// Where the table begins in the section.
    offset: u64,
    pub(super) count: u64,
    encoding: u8,
}

/// How many functions of a search table begin at or below an address.
pub(super) struct Ends {
    /// By the short way, if that can be gone.
    pub(super) first: u64,
    /// By the long way; `None` where the table is not sorted.
    pub(super) bisected: Option<u64>,
}

impl SearchTable {
    /// The header of the sections that `input` is of, if it has a table that can be searched in place.
    #[inline(never)]
    pub(super) fn of(input: &Input<'_, '_>) -> Option<Self> {
        let section = input.sections.eh_frame_hdr?;
        let word = input.word;
        let mut bytes = Bytes::new(section.data, 0, input.order);
        let version = bytes.u8().ok()?;
        let pointer_encoding = bytes.u8().ok()?;
        let count_encoding = bytes.u8().ok()?;
        let encoding = bytes.u8().ok()?;
        if version != 1 || count_encoding == 0xff || encoding == 0xff {
            return None;
        }
        if pointer_encoding != 0xff {
            encoded_value(&mut bytes, pointer_encoding & FORMAT, word).ok()?;
        }
        let count = encoded_value(&mut bytes, count_encoding & FORMAT, word).ok()?;
        // Numbers of varying length cannot be searched.
        let fits = bytes.len().checked_div(entry_size(encoding, word)?)?;
        let table = SearchTable { offset: bytes.offset(), count: count.min(fits), encoding };
        table.base(input, section, 0)?;
        Some(table)
    }

    /// How many functions begin at or below `svma`; `None` where the table cannot be searched. Of those, the last one
    /// may cover it.
    #[inline(never)]
    pub(super) fn ends(&self, input: &Input<'_, '_>, svma: u64) -> Result<Option<Ends>, SourceError> {
        let bisected = self.bisect(input, svma)?;
        let first = linked_after(input, svma).or(bisected);
        Ok(first.map(|first| Ends { first, bisected }))
    }

    /// How many entries begin at or below `svma`; `None` where the table is not sorted.
    #[inline(always)]
    fn bisect(&self, input: &Input<'_, '_>, svma: u64) -> Result<Option<u64>, SourceError> {
        // Entries below `low` begin at or below `svma`, those from `high` on above it. The values at
        // both ends bound every value between them, unless the table is not sorted.
        let (mut low, mut high) = (0, self.count);
        let (mut least, mut most) = (0, u64::MAX);
        // Each turn halves the range: at most 64.
        while low < high {
            let middle = low.midpoint(high);
            let start = self.start(input, middle)?;
            if start < least || start > most {
                return Ok(None);
            }
            if start <= svma {
                low = middle.saturating_add(1);
                least = start;
            } else {
                high = middle;
                most = start;
            }
        }
        Ok(Some(low))
    }

    /// Compares every entry with what it points to, and their order.
    pub(super) fn verify(&self, input: &mut Input<'_, '_>) -> Result<(), LookupError> {
        let mut last = 0;
        let mut fde = Fde::blank();
        for index in 0..self.count {
            let (start, at) = self.start_and_fde(input, index)?;
            let is_one = match Fde::parse_at(input, at, &mut fde) {
                Err(error) if fde.next > at => return Err(error),
                parsed => parsed == Ok(Here::Fde) && fde.start == start,
            };
            if start < last || !is_one {
                let offset = self.place(input, index);
                return Err(SourceError { broken: Broken::BadIndex, offset }.into());
            }
            last = start;
        }
        Ok(())
    }

    /// The address (svma) at which the function of an entry begins.
    #[inline(always)]
    pub(super) fn start(&self, input: &Input<'_, '_>, index: u64) -> Result<u64, SourceError> {
        Ok(self.entry(input, index)?.0)
    }

    /// The address (svma) at which the function of an entry begins, and where in its section its FDE does.
    #[inline(never)]
    pub(super) fn start_and_fde(&self, input: &Input<'_, '_>, index: u64) -> Result<(u64, u64), SourceError> {
        let (start, address) = self.entry(input, index)?;
        Ok((start, input.word.truncate(address.wrapping_sub(input.svma()))))
    }

    /// The two addresses of an entry.
    #[inline(always)]
    fn entry(&self, input: &Input<'_, '_>, index: u64) -> Result<(u64, u64), SourceError> {
        if self.encoding == DATAREL_SDATA4
            && let Some(section) = input.sections.eh_frame_hdr
            && let Ok(at) = usize::try_from(self.offset.saturating_add(index.saturating_mul(8)))
            && let Some([a, b, c, d, e, f, g, h]) = section.data.get(at..).and_then(<[u8]>::first_chunk)
        {
            let address = |bytes| datarel(section.svma, input.word, input.order, bytes);
            return Ok((address([*a, *b, *c, *d]), address([*e, *f, *g, *h])));
        }
        self.entry_of_any(input, index)
    }

    #[inline(never)]
    fn entry_of_any(&self, input: &Input<'_, '_>, index: u64) -> Result<(u64, u64), SourceError> {
        let section = input.sections.eh_frame_hdr.unwrap_or(Section { data: &[], svma: 0 });
        let mut bytes = Bytes::new(section.data, self.place(input, index), input.order);
        let mut value = || {
            let unknown = bytes.error(Broken::UnknownPointerEncoding);
            let base = self.base(input, section, bytes.offset()).ok_or(unknown)?;
            let value = encoded_value(&mut bytes, self.encoding & FORMAT, input.word)?;
            Ok::<u64, SourceError>(input.word.wrapping_offset(base, value))
        };
        Ok((value()?, value()?))
    }

    /// Where in its section an entry is.
    fn place(&self, input: &Input<'_, '_>, index: u64) -> u64 {
        let size = entry_size(self.encoding, input.word).unwrap_or(0);
        self.offset.saturating_add(index.saturating_mul(size))
    }

    /// What a value at `offset` is relative to; `None` for encodings that make no sense here.
    fn base(&self, input: &Input<'_, '_>, section: Section<'_>, offset: u64) -> Option<u64> {
        match self.encoding & !FORMAT {
            0x00 => Some(0),
            0x10 => Some(section.svma.wrapping_add(offset)),
            0x20 => input.sections.text_svma,
            0x30 => Some(section.svma),
            _ => None,
        }
    }
}

/// How long an entry of two values of this encoding is; `None` where that varies.
fn entry_size(encoding: u8, word: WordSize) -> Option<u64> {
    match encoding & FORMAT {
        0x00 | 0x08 => u64::from(word.bytes()).checked_mul(2),
        0x02 | 0x0a => Some(4),
        0x03 | 0x0b => Some(8),
        0x04 | 0x0c => Some(16),
        _ => None,
    }
}

/// How many entries begin at or below `svma`, by the short way.
#[inline(never)]
fn linked_after(input: &Input<'_, '_>, svma: u64) -> Option<u64> {
    LinkedTable::parse(input.sections.eh_frame_hdr?, input.word, input.order).map(|table| table.after(svma))
}

/// The encoding that every linker writes: distances from the section.
const DATAREL_SDATA4: u8 = 0x3b;

/// An address of this encoding, for a section at `svma`.
#[inline]
fn datarel(svma: u64, word: WordSize, order: ByteOrder, bytes: [u8; 4]) -> u64 {
    let distance = i64::from(number(order, bytes).cast_signed());
    word.wrapping_offset(svma, distance.cast_unsigned())
}

/// A search table as every linker writes it, for the short way.
pub(super) struct LinkedTable<'d> {
    entries: &'d [[u8; 8]],
    svma: u64,
    word: WordSize,
    order: ByteOrder,
}

impl<'d> LinkedTable<'d> {
    /// Reads the header: `None` where it says anything uncommon.
    #[inline]
    pub(super) fn parse(section: Section<'d>, word: WordSize, order: ByteOrder) -> Option<Self> {
        let (head, table) = section.data.split_first_chunk()?;
        // The version, `.eh_frame`'s address and the number of entries, both of four bytes.
        let [1, 0x03 | 0x0b | 0x13 | 0x1b | 0x3b, 0x03, DATAREL_SDATA4, _, _, _, _, c0, c1, c2, c3] = *head
        else {
            return None;
        };
        let (entries, _) = table.as_chunks();
        let count = size(order, [c0, c1, c2, c3])?;
        Some(LinkedTable {
            entries: entries.get(..count).unwrap_or(entries),
            svma: section.svma,
            word,
            order,
        })
    }

    /// How many entries begin at or below `svma`.
    #[inline]
    fn after(&self, svma: u64) -> u64 {
        u64::try_from(self.partition(svma)).unwrap_or(u64::MAX)
    }

    #[inline(always)]
    fn partition(&self, svma: u64) -> usize {
        let distance = match self.word {
            WordSize::Eight => svma.wrapping_sub(self.svma).cast_signed(),
            // Addresses wrap around, and distances with them.
            WordSize::Four => i64::from(low_half(svma.wrapping_sub(self.svma)).cast_signed()),
        };
        let Ok(distance) = i32::try_from(distance) else {
            return if distance < 0 { 0 } else { self.entries.len() };
        };
        let order = self.order;
        self.entries
            .partition_point(|[a, b, c, d, ..]| number(order, [*a, *b, *c, *d]).cast_signed() <= distance)
    }

    /// The last function that begins at or below `svma`: its address, and its FDE's.
    #[inline(always)]
    pub(super) fn last_at_or_below(&self, svma: u64) -> Option<(u64, u64)> {
        let [a, b, c, d, e, f, g, h] = *self.entries.get(self.partition(svma).checked_sub(1)?)?;
        Some((self.address([a, b, c, d]), self.address([e, f, g, h])))
    }

    #[inline]
    fn address(&self, bytes: [u8; 4]) -> u64 {
        datarel(self.svma, self.word, self.order, bytes)
    }
}

#[inline]
fn low_half(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::unwrap_used, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use crate::dwarf::testing::{KINDS, Kind, RA, SP, four};
    use crate::dwarf::{DwarfSections, DwarfSource, Section};
    use crate::{
        ByteOrder, FrameSource, MemoryError, Pc, Query, Rule, UnwindUserFrame, UnwindUserType, WordSize,
        from_fn,
    };

    /// How long each function is.
    const LENGTH: u64 = 0x10;

    fn word(kind: &Kind, value: u64) -> Vec<u8> {
        match (kind.word, kind.order) {
            (WordSize::Four, order) => four(order, value).to_vec(),
            (WordSize::Eight, ByteOrder::Little) => value.to_le_bytes().to_vec(),
            (WordSize::Eight, ByteOrder::Big) => value.to_be_bytes().to_vec(),
        }
    }

    /// `.eh_frame` of these functions: a CIE, and an FDE each; and where these begin.
    fn eh_frame(kind: &Kind, starts: &[u64]) -> (Vec<u8>, Vec<u64>) {
        // No augmentation, factors of 1 and -8; the CFA is 16 above sp, the return address 8 below it.
        let cie = [0, 0, 0, 0, 1, 0, 1, 0x78, RA, 0x0c, SP, 16, 0x80 | RA, 1, 0, 0];
        let mut section = four(kind.order, 16).to_vec();
        section.extend(cie);
        let mut fdes = Vec::new();
        for start in starts {
            let at = u64::try_from(section.len()).unwrap();
            fdes.push(at);
            section.extend(four(kind.order, 4 + 2 * u64::from(kind.word.bytes())));
            section.extend(four(kind.order, at + 4));
            section.extend(word(kind, *start));
            section.extend(word(kind, LENGTH));
        }
        (section, fdes)
    }

    #[test]
    fn functions_at_both_ends_of_the_address_space_are_found_through_a_table_between() {
        for kind in KINDS {
            let top = kind.word.max_address();
            // So near to the top that the distances of those at the bottom wrap around: by address they come first, by
            // distance last.
            let (hdr_svma, svma) = (top - 0xffff, top - 0xefff);
            let starts = [0x1000, 0x1020, 0x3000, top - 0x3_ffff, top - 0x2_ffff];
            let (eh_frame, fdes) = eh_frame(&kind, &starts);
            let mut hdr = [1, 0x1b, 0x03, 0x3b].to_vec();
            hdr.extend(four(kind.order, svma.wrapping_sub(hdr_svma + 4)));
            hdr.extend(four(kind.order, u64::try_from(starts.len()).unwrap()));
            for (start, fde) in starts.iter().zip(fdes) {
                hdr.extend(four(kind.order, start.wrapping_sub(hdr_svma)));
                hdr.extend(four(kind.order, (svma + fde).wrapping_sub(hdr_svma)));
            }
            let source = DwarfSource::new(DwarfSections {
                eh_frame: Some(Section { data: &eh_frame, svma }),
                eh_frame_hdr: Some(Section { data: &hdr, svma: hdr_svma }),
                ..DwarfSections::default()
            });
            assert_eq!(source.verify_hdr(&kind), Ok(()), "{kind:?}");
            for start in starts {
                for at in [start - 1, start, start + LENGTH - 1, start + LENGTH] {
                    let memory =
                        &mut from_fn(|address, _: &mut [u8]| Err(MemoryError::Unreadable { address }));
                    let query = Query::new(Pc::Exact(at));
                    let found = source.lookup(&kind, UnwindUserType::Dwarf, &query, memory);
                    let is_in = (start..start + LENGTH).contains(&at);
                    let frame = Rule::Frame(UnwindUserFrame::plain(false, 16, -8, None));
                    assert_eq!(
                        found.map(|found| found.map(|found| found.rule)),
                        Ok(is_in.then_some(frame)),
                        "{kind:?} {at:#x}"
                    );
                }
            }
        }
    }
}
