//! Reading a section, with every error knowing where it happened.

use gimli::{EndianSlice, Reader, RunTimeEndian};

use crate::{Broken, ByteOrder, SourceError, WordSize};

/// A position in a section, and the end up to which it may be read.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'d> {
    slice: EndianSlice<'d, RunTimeEndian>,
    /// The section offset of the end of `slice`.
    end: u64,
}

impl<'d> Bytes<'d> {
    /// The bytes of `section` from `offset` to its end; none where that is beyond it.
    pub(super) fn new(section: &'d [u8], offset: u64, order: ByteOrder) -> Self {
        let from = usize::try_from(offset).ok().and_then(|offset| section.get(offset..));
        let slice = EndianSlice::new(from.unwrap_or_default(), endian(order));
        Bytes { slice, end: u64::try_from(section.len()).unwrap_or(u64::MAX) }
    }

    /// What gimli left of `whole`.
    pub(super) fn from_slice(slice: EndianSlice<'d, RunTimeEndian>, whole: &Bytes<'d>) -> Self {
        Bytes { slice, end: whole.end }
    }

    /// The section offset of the next byte.
    pub(super) fn offset(&self) -> u64 {
        self.end.saturating_sub(self.len())
    }

    /// How many bytes are left.
    pub(super) fn len(&self) -> u64 {
        u64::try_from(self.slice.len()).unwrap_or(u64::MAX)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slice.is_empty()
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
        match self.slice.slice().split_first_chunk() {
            Some((bytes, rest)) => {
                *self = self.with_rest(rest);
                Ok(*bytes)
            }
            None => Err(self.error(Broken::UnexpectedEnd)),
        }
    }

    #[inline]
    fn is_little(&self) -> bool {
        self.slice.endian() == RunTimeEndian::Little
    }

    /// What is left, as it lies there.
    #[inline]
    pub(super) fn rest(&self) -> &'d [u8] {
        self.slice.slice()
    }

    /// The same position further on, where `rest`, an end of what was left, begins.
    #[inline]
    pub(super) fn with_rest(&self, rest: &'d [u8]) -> Self {
        Bytes { slice: EndianSlice::new(rest, self.slice.endian()), end: self.end }
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

    #[inline(never)]
    fn long_uleb128(&mut self) -> Result<u64, SourceError> {
        let at = *self;
        self.slice.read_uleb128().map_err(|error| at.error(broken(error)))
    }

    pub(super) fn sleb128(&mut self) -> Result<i64, SourceError> {
        let at = *self;
        self.slice.read_sleb128().map_err(|error| at.error(broken(error)))
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
        Ok(Bytes { end: self.offset(), ..first })
    }

    /// The bytes up to the next zero, which is skipped.
    pub(super) fn null_terminated(&mut self) -> Result<&'d [u8], SourceError> {
        let at = *self;
        let slice = self.slice.read_null_terminated_slice().map_err(|error| at.error(broken(error)))?;
        Ok(slice.slice())
    }

    /// What is left, for gimli to parse.
    pub(super) fn slice(&self) -> EndianSlice<'d, RunTimeEndian> {
        self.slice
    }
}

fn endian(order: ByteOrder) -> RunTimeEndian {
    match order {
        ByteOrder::Little => RunTimeEndian::Little,
        ByteOrder::Big => RunTimeEndian::Big,
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
