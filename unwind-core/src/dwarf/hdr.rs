//! `.eh_frame_hdr`, searched in place: Linux Standard Base, "The .eh_frame_hdr section".

use super::bytes::Bytes;
use super::entry::{FORMAT, Fde, encoded_value, entry_at};
use super::section::{Input, Section};
use crate::{Broken, ByteOrder, LookupError, SourceError, WordSize};

/// The search table: pairs of a function's address and its FDE's, sorted by the former.
#[derive(Clone, Copy)]
pub(super) struct SearchTable<'d> {
    section: Section<'d>,
    /// Where the table begins in the section.
    offset: u64,
    pub(super) count: u64,
    encoding: u8,
    entry_size: u64,
    word: WordSize,
    order: ByteOrder,
    text_svma: Option<u64>,
}

/// What a search in the table came to.
pub(super) enum Search<'d> {
    /// This FDE covers the address.
    Found(Fde<'d>),
    /// None does.
    NotCovered,
    /// The table cannot be searched, or does not tell the truth: `.eh_frame` must be scanned.
    Unusable,
}

impl<'d> SearchTable<'d> {
    /// Reads the header. `None` where there is no table that can be searched in place.
    pub(super) fn parse(section: Section<'d>, input: &Input<'d, '_>) -> Option<Self> {
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
        let value_size = match encoding & FORMAT {
            0x00 | 0x08 => u64::from(word.bytes()),
            0x02 | 0x0a => 2,
            0x03 | 0x0b => 4,
            0x04 | 0x0c => 8,
            // Numbers of varying length cannot be searched.
            _ => return None,
        };
        let entry_size = value_size.checked_mul(2)?;
        let fits = bytes.len().checked_div(entry_size)?;
        let table = SearchTable {
            section,
            offset: bytes.offset(),
            count: count.min(fits),
            encoding,
            entry_size,
            word,
            order: input.order,
            text_svma: input.text_svma,
        };
        table.base(0)?;
        Some(table)
    }

    /// Finds the FDE that covers `svma`.
    pub(super) fn search(&self, input: &mut Input<'d, '_>, svma: u64) -> Result<Search<'d>, LookupError> {
        // Entries below `low` begin at or below `svma`, those from `high` on above it. The values at
        // both ends bound every value between them, unless the table is not sorted.
        let (mut low, mut high) = (0, self.count);
        let (mut least, mut most) = (0, u64::MAX);
        // Each turn halves the range: at most 64.
        while low < high {
            let middle = low.midpoint(high);
            let start = self.start(middle)?;
            if start < least || start > most {
                return Ok(Search::Unusable);
            }
            if start <= svma {
                low = middle.saturating_add(1);
                least = start;
            } else {
                high = middle;
                most = start;
            }
        }
        // Functions of no length cover nothing: they share their address with the real one, or lie in the
        // midst of it. Where the table has nothing else below `svma`, this goes through all of them.
        let mut index = low;
        let mut real = None;
        while let Some(previous) = index.checked_sub(1) {
            let start = self.start(previous)?;
            if real.is_some_and(|real| real != start) {
                break;
            }
            let Some(fde) = self.fde(input, previous)? else {
                return Ok(Search::Unusable);
            };
            if fde.start != start {
                return Ok(Search::Unusable);
            }
            if fde.contains(svma) {
                return Ok(Search::Found(fde));
            }
            if fde.length > 0 {
                real = Some(start);
            }
            index = previous;
        }
        Ok(Search::NotCovered)
    }

    /// Compares every entry with what it points to, and their order.
    pub(super) fn verify(&self, input: &mut Input<'d, '_>) -> Result<(), LookupError> {
        let mut last = 0;
        for index in 0..self.count {
            let start = self.start(index)?;
            let fde = self.fde(input, index)?;
            if start < last || fde.is_none_or(|fde| fde.start != start) {
                let offset = self.offset.saturating_add(index.saturating_mul(self.entry_size));
                return Err(SourceError { broken: Broken::BadIndex, offset }.into());
            }
            last = start;
        }
        Ok(())
    }

    /// The address (svma) at which the function of an entry begins.
    pub(super) fn start(&self, index: u64) -> Result<u64, SourceError> {
        Ok(self.entry(index)?.0)
    }

    /// The address (svma) at which the function of an entry begins, and where in its section its FDE does.
    #[cfg(feature = "table")]
    pub(super) fn start_and_fde(&self, index: u64, input: &Input<'d, '_>) -> Option<(u64, u64)> {
        let (start, address) = self.entry(index).ok()?;
        Some((start, self.word.truncate(address.wrapping_sub(input.svma()))))
    }

    /// The FDE that an entry points to; `None` where it points to none.
    fn fde(&self, input: &mut Input<'d, '_>, index: u64) -> Result<Option<Fde<'d>>, LookupError> {
        let address = self.entry(index)?.1;
        let offset = self.word.truncate(address.wrapping_sub(input.svma()));
        match entry_at(input, offset) {
            Ok(Some(entry)) if entry.offset == offset && entry.cie.is_some() => entry.parse_fde(input),
            _ => Ok(None),
        }
    }

    /// The two addresses of an entry.
    #[inline]
    fn entry(&self, index: u64) -> Result<(u64, u64), SourceError> {
        // What every linker writes: two distances from the section.
        const DATAREL_SDATA4: u8 = 0x3b;
        if self.encoding == DATAREL_SDATA4
            && let Some(at) = usize::try_from(self.offset.saturating_add(index.saturating_mul(8))).ok()
            && let Some([a, b, c, d, e, f, g, h]) = self.section.data.get(at..).and_then(<[u8]>::first_chunk)
        {
            let read = match self.order {
                ByteOrder::Little => i32::from_le_bytes,
                ByteOrder::Big => i32::from_be_bytes,
            };
            let pointer = |bytes| {
                let value = i64::from(read(bytes)).cast_unsigned();
                self.word.wrapping_offset(self.section.svma, value)
            };
            return Ok((pointer([*a, *b, *c, *d]), pointer([*e, *f, *g, *h])));
        }
        self.entry_of_any(index)
    }

    #[inline(never)]
    fn entry_of_any(&self, index: u64) -> Result<(u64, u64), SourceError> {
        let offset = self.offset.saturating_add(index.saturating_mul(self.entry_size));
        let mut bytes = Bytes::new(self.section.data, offset, self.order);
        let mut value = || {
            let unknown = bytes.error(Broken::UnknownPointerEncoding);
            let base = self.base(bytes.offset()).ok_or(unknown)?;
            let value = encoded_value(&mut bytes, self.encoding & FORMAT, self.word)?;
            Ok::<u64, SourceError>(self.word.wrapping_offset(base, value))
        };
        Ok((value()?, value()?))
    }

    /// What a value at `offset` is relative to; `None` for encodings that make no sense here.
    fn base(&self, offset: u64) -> Option<u64> {
        match self.encoding & !FORMAT {
            0x00 => Some(0),
            0x10 => Some(self.section.svma.wrapping_add(offset)),
            0x20 => self.text_svma,
            0x30 => Some(self.section.svma),
            _ => None,
        }
    }
}
