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

    pub(super) fn u8(&mut self) -> Result<u8, SourceError> {
        let at = *self;
        self.slice.read_u8().map_err(|error| at.error(broken(error)))
    }

    pub(super) fn u16(&mut self) -> Result<u16, SourceError> {
        let at = *self;
        self.slice.read_u16().map_err(|error| at.error(broken(error)))
    }

    pub(super) fn u32(&mut self) -> Result<u32, SourceError> {
        let at = *self;
        self.slice.read_u32().map_err(|error| at.error(broken(error)))
    }

    pub(super) fn u64(&mut self) -> Result<u64, SourceError> {
        let at = *self;
        self.slice.read_u64().map_err(|error| at.error(broken(error)))
    }

    /// A word of the target.
    pub(super) fn word(&mut self, size: WordSize) -> Result<u64, SourceError> {
        match size {
            WordSize::Four => self.u32().map(u64::from),
            WordSize::Eight => self.u64(),
        }
    }

    pub(super) fn uleb128(&mut self) -> Result<u64, SourceError> {
        let at = *self;
        self.slice.read_uleb128().map_err(|error| at.error(broken(error)))
    }

    pub(super) fn sleb128(&mut self) -> Result<i64, SourceError> {
        let at = *self;
        self.slice.read_sleb128().map_err(|error| at.error(broken(error)))
    }

    /// The next `length` bytes, on their own.
    pub(super) fn split(&mut self, length: u64) -> Result<Bytes<'d>, SourceError> {
        let at = *self;
        let length = usize::try_from(length).map_err(|_| at.error(Broken::OutOfBounds))?;
        let slice = self.slice.split(length).map_err(|error| at.error(broken(error)))?;
        Ok(Bytes { slice, end: self.offset() })
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
