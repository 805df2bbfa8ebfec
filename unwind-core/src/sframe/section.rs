//! A section, its functions and their rows, decoded where they lie.

use scroll::{Endian, Pread};

use super::header::{Header, Version, endian};
use super::row::{Row, Rows};
use crate::{Broken, SourceError};

/// One SFrame section: a header with its tables.
#[derive(Clone, Copy, Debug)]
pub struct SFrameSection<'d> {
    data: &'d [u8],
    svma: u64,
    header: Header,
}

/// How wide the start of a row is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowStart {
    /// 1 byte.
    Addr1,
    /// 2 bytes.
    Addr2,
    /// 4 bytes.
    Addr4,
}

impl RowStart {
    /// The size in bytes.
    pub const fn size(self) -> u8 {
        match self {
            RowStart::Addr1 => 1,
            RowStart::Addr2 => 2,
            RowStart::Addr4 => 4,
        }
    }
}

/// How the data words of a function's rows are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// Offsets from sp or fp, and from the CFA.
    Default,
    /// Pairs of a control word and an offset (version 3).
    Flexible,
}

/// One function of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fde {
    /// Where it is in the table.
    pub index: u32,
    /// The address of its first instruction (svma).
    pub start: u64,
    /// How many bytes of code.
    pub size: u32,
    /// How many rows.
    pub row_count: u32,
    /// How wide the start of a row is stored.
    pub row_start: RowStart,
    /// How its rows are read.
    pub row_kind: RowKind,
    /// For code in blocks of the same shape (a PLT), the size of a block: rows then apply to the
    /// offset in the block. `None` for ordinary code.
    pub block_size: Option<u32>,
    /// AArch64: return addresses are signed with the B key, not the A key.
    pub key_b: bool,
    /// The frames of this function are signal frames (version 3).
    pub is_signal: bool,
    /// Where its rows begin in the section.
    pub rows_offset: u64,
}

impl Fde {
    /// Whether `svma` is in it.
    pub fn contains(&self, svma: u64) -> bool {
        svma.wrapping_sub(self.start) < u64::from(self.size)
    }

    /// What the start of a row must not be above.
    pub(super) fn row_limit(&self) -> u32 {
        self.block_size.unwrap_or(self.size)
    }
}

impl<'d> SFrameSection<'d> {
    /// The section at the beginning of `data`, whose header is at `svma`. `data` may be longer:
    /// neither a segment's size nor a section's is to be trusted.
    ///
    /// # Errors
    /// As for [`Header::parse`].
    pub fn parse(data: &'d [u8], svma: u64) -> Result<Self, SourceError> {
        let header = Header::parse(data)?;
        let length = usize::try_from(header.size).unwrap_or(usize::MAX);
        Ok(SFrameSection { data: data.get(..length).unwrap_or(data), svma, header })
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Its bytes, without what follows it.
    pub fn data(&self) -> &'d [u8] {
        self.data
    }

    /// The address of its header (svma).
    pub fn svma(&self) -> u64 {
        self.svma
    }

    /// The address at which the function at `index` begins (svma), read from the table alone.
    ///
    /// # Errors
    /// Where the table has no such entry.
    pub(super) fn start(&self, index: u32) -> Result<u64, SourceError> {
        let offset = self.fde_offset(index)?;
        let value = match self.header.version {
            Version::V1 | Version::V2 => i64::from(self.read::<i32>(offset)?).cast_unsigned(),
            Version::V3 => self.read::<u64>(offset)?,
        };
        let base = if self.header.is_pcrel() { self.svma.wrapping_add(offset) } else { self.svma };
        Ok(base.wrapping_add(value))
    }

    /// The function at `index`.
    ///
    /// # Errors
    /// Where there is none, or its entry makes no sense.
    pub fn fde(&self, index: u32) -> Result<Fde, SourceError> {
        let offset = self.fde_offset(index)?;
        let error = |broken| SourceError { broken, offset };
        let start = self.start(index)?;
        let at = |field: u64| offset.wrapping_add(field);
        let (size, rows, row_count, info, kind, block_size);
        match self.header.version {
            Version::V1 | Version::V2 => {
                size = self.read::<u32>(at(4))?;
                rows = u64::from(self.read::<u32>(at(8))?);
                row_count = self.read::<u32>(at(12))?;
                info = self.read::<u8>(at(16))?;
                kind = RowKind::Default;
                // Version 1 does not state it; only AMD64's PLTs use it, whose entries have 16 bytes.
                block_size = if self.header.version == Version::V1 { 16 } else { self.read::<u8>(at(17))? };
            }
            Version::V3 => {
                size = self.read::<u32>(at(8))?;
                let attribute = u64::from(self.read::<u32>(at(12))?);
                let attribute_offset = self.header.fre_offset.saturating_add(attribute);
                let at = |field: u64| attribute_offset.saturating_add(field);
                row_count = u32::from(self.read::<u16>(at(0)).map_err(|_| error(Broken::OutOfBounds))?);
                info = self.read::<u8>(at(2)).map_err(|_| error(Broken::OutOfBounds))?;
                kind = match self.read::<u8>(at(3)).map_err(|_| error(Broken::OutOfBounds))? & 0x1f {
                    0 => RowKind::Default,
                    1 => RowKind::Flexible,
                    // Another layout of data words.
                    _ => return Err(error(Broken::BadFde)),
                };
                block_size = self.read::<u8>(at(4)).map_err(|_| error(Broken::OutOfBounds))?;
                rows = attribute.saturating_add(5);
            }
        }
        let row_start = match info & 0x0f {
            0 => RowStart::Addr1,
            1 => RowStart::Addr2,
            2 => RowStart::Addr4,
            _ => return Err(error(Broken::BadFde)),
        };
        let is_mask = info & 0x10 != 0;
        if is_mask && block_size == 0 {
            return Err(error(Broken::ZeroBlockSize));
        }
        if start.checked_add(u64::from(size).saturating_sub(1)).is_none() {
            return Err(error(Broken::OutOfBounds));
        }
        // A row has its start and one byte at the least.
        let least = u64::from(row_count).saturating_mul(u64::from(row_start.size()).saturating_add(1));
        if rows.saturating_add(least) > u64::from(self.header.fre_size) {
            return Err(error(Broken::OutOfBounds));
        }
        Ok(Fde {
            index,
            start,
            size,
            row_count,
            row_start,
            row_kind: kind,
            block_size: is_mask.then_some(u32::from(block_size)),
            key_b: info & 0x20 != 0,
            is_signal: self.header.version == Version::V3 && info & 0x80 != 0,
            rows_offset: self.header.fre_offset.saturating_add(rows),
        })
    }

    /// The functions, in the order of the table.
    pub fn fdes(&self) -> impl Iterator<Item = Result<Fde, SourceError>> + use<'d> {
        let section = *self;
        (0..section.header.fde_count).map(move |index| section.fde(index))
    }

    /// The rows of a function of this section. Ends where it cannot be told where the next one is.
    pub fn rows(&self, fde: &Fde) -> Rows<'d> {
        Rows::new(*self, fde)
    }

    /// The row of `fde` that holds at `svma`; `None` where there is none.
    ///
    /// # Errors
    /// Where that row makes no sense, or where it cannot be told whether it is the one.
    pub fn row_at(&self, fde: &Fde, svma: u64) -> Result<Option<Row>, SourceError> {
        let offset = svma.wrapping_sub(fde.start);
        let offset = match fde.block_size {
            Some(block) => offset.checked_rem(u64::from(block)).unwrap_or(0),
            None => offset,
        };
        let mut rows = self.rows(fde);
        let mut found = None;
        while let Some(row) = rows.next_stored() {
            match row {
                Ok(row) if u64::from(row.start) <= offset => found = Some(row),
                Ok(_) => break,
                Err(error) => return Err(error),
            }
        }
        found.map(|row| rows.read(&row)).transpose()
    }

    /// Where the entry of a function is in the section.
    fn fde_offset(&self, index: u32) -> Result<u64, SourceError> {
        if index >= self.header.fde_count {
            return Err(SourceError { broken: Broken::OutOfBounds, offset: self.header.fde_offset });
        }
        let size = u64::from(self.header.version.fde_size());
        Ok(self.header.fde_offset.saturating_add(u64::from(index).saturating_mul(size)))
    }

    /// A number at an offset, which need not be aligned.
    pub(super) fn read<T>(&self, offset: u64) -> Result<T, SourceError>
    where
        T: scroll::ctx::TryFromCtx<'d, Endian, Error = scroll::Error>,
    {
        let error = SourceError { broken: Broken::UnexpectedEnd, offset };
        let at = usize::try_from(offset).map_err(|_| error)?;
        self.data.pread_with(at, endian(self.header.abi.byte_order())).map_err(|_| error)
    }
}

/// The sections that lie one after another in a file's `.sframe`: linkers concatenate what they do
/// not understand. Each has a base of its own.
///
/// Ends after the first that makes no sense, and where no further one begins. No data, no section:
/// linkers write that where they have dropped every one.
#[derive(Clone, Copy, Debug)]
pub struct SFrameSections<'d> {
    rest: &'d [u8],
    svma: u64,
    begun: bool,
}

impl<'d> SFrameSections<'d> {
    /// The sections in `data`, the first of which is at `svma`.
    pub fn new(data: &'d [u8], svma: u64) -> Self {
        SFrameSections { rest: data, svma, begun: data.is_empty() }
    }
}

impl<'d> Iterator for SFrameSections<'d> {
    type Item = Result<SFrameSection<'d>, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.begun {
            // What follows a section is padding, or belongs to something else.
            match self.rest {
                [0xe2, 0xde, ..] | [0xde, 0xe2, ..] => {}
                _ => return None,
            }
        }
        self.begun = true;
        let parsed = SFrameSection::parse(self.rest, self.svma);
        let length = match &parsed {
            Ok(section) => padded(self.rest, section.header.size),
            Err(_) => u64::MAX,
        };
        self.rest =
            usize::try_from(length).ok().and_then(|length| self.rest.get(length..)).unwrap_or_default();
        self.svma = self.svma.wrapping_add(length);
        Some(parsed)
    }
}

/// `size` and the zero bytes behind it, up to a multiple of eight.
fn padded(data: &[u8], size: u64) -> u64 {
    let end = size.checked_next_multiple_of(8).unwrap_or(size);
    let padding =
        usize::try_from(size).ok().zip(usize::try_from(end).ok()).and_then(|(from, to)| data.get(from..to));
    match padding {
        Some(padding) if padding.iter().all(|byte| *byte == 0) => end,
        _ => size,
    }
}
