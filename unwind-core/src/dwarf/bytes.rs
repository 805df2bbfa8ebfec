//! Reading a section, with every error knowing where it happened.

use gimli::{EndianSlice, RunTimeEndian};

use crate::{Broken, ByteOrder, SourceError, WordSize};

/// A position in a section, and the end up to which it may be read.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'d> {
    rest: &'d [u8],
    /// The section offset of the end of `rest`, and [`IS_BIG`] where numbers begin with their highest byte: in
    /// one word, as many of these are on the stack.
    end: u64,
}

/// No section is that long.
const IS_BIG: u64 = 1 << 63;

impl<'d> Bytes<'d> {
    /// No bytes.
    pub(super) fn none() -> Self {
        Bytes::new(&[], 0, ByteOrder::Little)
    }

    /// The bytes of `section` from `offset` to its end; none where that is beyond it.
    pub(super) fn new(section: &'d [u8], offset: u64, order: ByteOrder) -> Self {
        let from = usize::try_from(offset).ok().and_then(|offset| section.get(offset..));
        let end = u64::try_from(section.len()).unwrap_or(u64::MAX) & !IS_BIG;
        let order = match order {
            ByteOrder::Little => 0,
            ByteOrder::Big => IS_BIG,
        };
        Bytes { rest: from.unwrap_or_default(), end: end | order }
    }

    /// What gimli left of `whole`.
    pub(super) fn from_slice(slice: EndianSlice<'d, RunTimeEndian>, whole: &Bytes<'d>) -> Self {
        whole.with_rest(slice.slice())
    }

    /// The section offset of the next byte.
    pub(super) fn offset(&self) -> u64 {
        self.end().saturating_sub(self.len())
    }

    /// The section offset behind the last byte.
    pub(super) fn end(&self) -> u64 {
        self.end & !IS_BIG
    }

    /// How many bytes are left.
    pub(super) fn len(&self) -> u64 {
        u64::try_from(self.rest.len()).unwrap_or(u64::MAX)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// An error here.
    pub(super) fn error(&self, broken: Broken) -> SourceError {
        SourceError { broken, offset: self.offset() }
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, SourceError> {
        self.take().map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, SourceError> {
        let is_little = self.is_little();
        self.take().map(|bytes| if is_little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, SourceError> {
        let is_little = self.is_little();
        self.take().map(|bytes| if is_little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    #[inline]
    pub(super) fn u64(&mut self) -> Result<u64, SourceError> {
        let is_little = self.is_little();
        self.take().map(|bytes| if is_little { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) })
    }

    /// The next bytes.
    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], SourceError> {
        match self.rest.split_first_chunk() {
            Some((bytes, rest)) => {
                *self = self.with_rest(rest);
                Ok(*bytes)
            }
            None => Err(self.error(Broken::UnexpectedEnd)),
        }
    }

    #[inline]
    fn is_little(&self) -> bool {
        self.end & IS_BIG == 0
    }

    /// What is left, as it lies there.
    #[inline]
    pub(super) fn rest(&self) -> &'d [u8] {
        self.rest
    }

    /// The same position further on, where `rest`, an end of what was left, begins.
    #[inline]
    pub(super) fn with_rest(&self, rest: &'d [u8]) -> Self {
        Bytes { rest, end: self.end }
    }

    /// A word of the target.
    pub(super) fn word(&mut self, size: WordSize) -> Result<u64, SourceError> {
        match size {
            WordSize::Four => self.u32().map(u64::from),
            WordSize::Eight => self.u64(),
        }
    }

    #[inline]
    pub(super) fn uleb128(&mut self) -> Result<u64, SourceError> {
        if let Some((byte @ 0..0x80, rest)) = self.rest().split_first() {
            *self = self.with_rest(rest);
            return Ok(u64::from(*byte));
        }
        self.long_uleb128()
    }

    /// gimli's needs 88 bytes of stack, at the deepest places that there are.
    #[inline(never)]
    fn long_uleb128(&mut self) -> Result<u64, SourceError> {
        let mut value = 0;
        let mut shift = 0u32;
        let mut rest = self.rest;
        // The tenth byte has room for one bit and is the last.
        while let Some((byte, after)) = rest.split_first() {
            if shift == 63 && *byte > 1 {
                return Err(self.error(Broken::BadLeb128));
            }
            value |= u64::from(byte & 0x7f).wrapping_shl(shift);
            if byte & 0x80 == 0 {
                self.rest = after;
                return Ok(value);
            }
            shift = shift.wrapping_add(7);
            rest = after;
        }
        Err(self.error(Broken::UnexpectedEnd))
    }

    pub(super) fn sleb128(&mut self) -> Result<i64, SourceError> {
        let mut value = 0;
        let mut shift = 0u32;
        let mut rest = self.rest;
        // The tenth byte has room for the sign and is the last.
        while let Some((byte, after)) = rest.split_first() {
            if shift == 63 && !matches!(byte, 0 | 0x7f) {
                return Err(self.error(Broken::BadLeb128));
            }
            value |= i64::from(byte & 0x7f).wrapping_shl(shift);
            shift = shift.wrapping_add(7);
            if byte & 0x80 == 0 {
                self.rest = after;
                let sign = if byte & 0x40 == 0 { Some(0) } else { (-1i64).checked_shl(shift) };
                return Ok(value | sign.unwrap_or(0));
            }
            rest = after;
        }
        Err(self.error(Broken::UnexpectedEnd))
    }

    /// The next `length` bytes, on their own.
    #[inline]
    pub(super) fn split(&mut self, length: u64) -> Result<Bytes<'d>, SourceError> {
        let length = usize::try_from(length).map_err(|_| self.error(Broken::OutOfBounds))?;
        let Some((first, rest)) = self.rest().split_at_checked(length) else {
            return Err(self.error(Broken::UnexpectedEnd));
        };
        let first = self.with_rest(first);
        *self = self.with_rest(rest);
        Ok(Bytes { end: self.offset() | (self.end & IS_BIG), ..first })
    }

    /// The bytes up to the next zero, which is skipped; `None` where there are more than `most`.
    pub(super) fn null_terminated(&mut self, most: usize) -> Result<Option<&'d [u8]>, SourceError> {
        let rest = self.rest();
        let seen = rest.get(..=most).unwrap_or(rest);
        let Some(length) = seen.iter().position(|byte| *byte == 0) else {
            return if rest.len() > most { Ok(None) } else { Err(self.error(Broken::UnexpectedEnd)) };
        };
        let (string, behind) = rest.split_at_checked(length).unwrap_or_default();
        *self = self.with_rest(behind.get(1..).unwrap_or_default());
        Ok(Some(string))
    }

    /// What is left, for gimli to parse.
    pub(super) fn slice(&self) -> EndianSlice<'d, RunTimeEndian> {
        let endian = if self.is_little() { RunTimeEndian::Little } else { RunTimeEndian::Big };
        EndianSlice::new(self.rest, endian)
    }
}

/// gimli's error in our words.
pub(super) fn broken(error: gimli::Error) -> Broken {
    match error {
        gimli::Error::UnexpectedEof(_) => Broken::UnexpectedEnd,
        gimli::Error::BadUnsignedLeb128 | gimli::Error::BadSignedLeb128 => Broken::BadLeb128,
        gimli::Error::InvalidExpression(_) => Broken::UnknownOperation,
        _ => Broken::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use gimli::Reader;

    use super::*;

    /// What gimli makes of them, and what is left then.
    fn judged<T>(
        bytes: &Bytes<'_>,
        read: impl Fn(&mut EndianSlice<'_, RunTimeEndian>) -> gimli::Result<T>,
    ) -> Result<(T, u64), SourceError> {
        let mut slice = bytes.slice();
        let value = read(&mut slice).map_err(|error| bytes.error(broken(error)))?;
        Ok((value, Bytes::from_slice(slice, bytes).len()))
    }

    #[test]
    fn numbers_of_any_length_are_those_that_gimli_reads() {
        let last = [0, 1, 2, 0x3f, 0x40, 0x7e, 0x7f, 0x80, 0xff];
        for length in 0..12 {
            for before in [0x80, 0x81, 0xaa, 0xff] {
                for byte in last {
                    let mut section = [before; 13];
                    for end in section.iter_mut().skip(length) {
                        *end = byte;
                    }
                    for end in [length, length.saturating_add(1), 13] {
                        let bytes = Bytes::new(section.get(..end).unwrap_or_default(), 0, ByteOrder::Little);
                        let mut read = bytes;
                        let unsigned = read.uleb128().map(|value| (value, read.len()));
                        assert_eq!(unsigned, judged(&bytes, |slice| slice.read_uleb128()), "{section:x?}");
                        read = bytes;
                        let signed = read.sleb128().map(|value| (value, read.len()));
                        assert_eq!(signed, judged(&bytes, |slice| slice.read_sleb128()), "{section:x?}");
                    }
                }
            }
        }
    }
}
