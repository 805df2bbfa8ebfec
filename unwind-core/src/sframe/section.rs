//! A section, its functions and their rows, decoded where they lie.

use scroll::{Endian, Pread};

use super::header::{Header, Version, endian};
use super::row::{Row, Rows, StoredRow, read};
use crate::{Broken, SourceError};

/// One SFrame section: a header with its tables.
#[derive(Clone, Copy, Debug)]
pub struct SFrameSection<'d> {
    data: &'d [u8],
    svma: u64,
    header: Header,
    /// Whether a function's start is relative to the field that states it.
    is_pcrel: bool,
}

/// How wide the start of a row is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
#[non_exhaustive]
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
    #[inline]
    pub fn parse(data: &'d [u8], svma: u64) -> Result<Self, SourceError> {
        let header = Header::parse(data)?;
        let length = usize::try_from(header.size).unwrap_or(usize::MAX);
        let data = data.get(..length).unwrap_or(data);
        Ok(SFrameSection { data, svma, header, is_pcrel: header.is_pcrel() })
    }

    /// The same section with starts of functions taken relative to the fields that state them,
    /// whatever the flags say.
    ///
    /// lld links the sections that assemblers of versions 1 and 2 write as if they were data, and
    /// leaves them like that; by the definition, every start is then wrong. See
    /// [`has_starts_from_fields`](SFrameSection::has_starts_from_fields).
    pub fn with_starts_from_fields(mut self) -> Self {
        self.is_pcrel = true;
        self
    }

    /// Whether more functions begin where they do if their starts are relative to the fields that
    /// state them, although nothing says that they are. `begins` says whether a function begins at
    /// an address (svma), as symbols or another table have it. Work proportional to the number of
    /// functions.
    pub fn has_starts_from_fields(&self, mut begins: impl FnMut(u64) -> bool) -> bool {
        if self.is_pcrel {
            return false;
        }
        let meant = self.with_starts_from_fields();
        let (mut as_stated, mut as_meant) = (0u32, 0u32);
        for index in 0..self.header.fde_count {
            let hits = [self, &meant].map(|section| section.start(index).is_ok_and(&mut begins));
            as_stated = as_stated.saturating_add(u32::from(hits == [true, false]));
            as_meant = as_meant.saturating_add(u32::from(hits == [false, true]));
        }
        as_meant > as_stated
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
        match self.header.version {
            Version::V1 => self.starts::<V1>().get(index),
            Version::V2 => self.starts::<V2>().get(index),
            Version::V3 => self.starts::<V3>().get(index),
        }
        .ok_or(self.no_such_function())
    }

    /// Where the functions begin, from entries of this size.
    pub(super) fn starts<const SIZE: usize>(&self) -> Starts<'d, SIZE> {
        let (entries, _) = self.bytes_at(self.header.fde_offset).as_chunks();
        let entries = usize::try_from(self.header.fde_count).ok().and_then(|count| entries.get(..count));
        let (base, step_mask) = match self.is_pcrel {
            true => (self.svma.wrapping_add(self.header.fde_offset), u64::MAX),
            false => (self.svma, 0),
        };
        Starts { entries: entries.unwrap_or_default(), base, step_mask, endian: self.endian() }
    }

    /// The function at `index`.
    ///
    /// # Errors
    /// Where there is none, or its entry makes no sense.
    #[inline]
    pub fn fde(&self, index: u32) -> Result<Fde, SourceError> {
        match self.header.version {
            Version::V1 => self.fde_of(index, |entry: &[u8; V1]| self.entry(entry.first_chunk()?, 16)),
            Version::V2 => self.fde_of(index, |entry: &[u8; V2]| {
                let [.., block_size, _, _] = *entry;
                self.entry(entry.first_chunk()?, block_size)
            }),
            Version::V3 => self.fde_of(index, |entry| self.entry_of_v3(entry)),
        }
    }

    /// The part of an entry that versions 1 and 2 share. Version 1 does not state the size of a block;
    /// only AMD64's linkage tables use it, whose entries have 16 bytes.
    fn entry(&self, entry: &[u8; V1], block_size: u8) -> Option<Entry> {
        let [.., info] = *entry;
        Some(Entry {
            size: number(entry, 4, self.endian())?,
            rows: number::<u32>(entry, 8, self.endian())?.into(),
            row_count: number(entry, 12, self.endian())?,
            info,
            kind: 0,
            block_size,
        })
    }

    /// Version 3 has a part of each entry in front of its rows.
    fn entry_of_v3(&self, entry: &[u8; V3]) -> Option<Entry> {
        let attribute: u32 = number(entry, 12, self.endian())?;
        let attribute_at = self.header.fre_offset.saturating_add(attribute.into());
        let attributes: &[u8; 5] = self.bytes_at(attribute_at).first_chunk()?;
        let [_, _, info, kind, block_size] = *attributes;
        Some(Entry {
            size: number(entry, 8, self.endian())?,
            rows: u64::from(attribute).saturating_add(5),
            row_count: number::<u16>(attributes, 0, self.endian())?.into(),
            info,
            kind: kind & 0x1f,
            block_size,
        })
    }

    #[inline]
    fn fde_of<const SIZE: usize>(
        &self,
        index: u32,
        entry: impl FnOnce(&[u8; SIZE]) -> Option<Entry>,
    ) -> Result<Fde, SourceError> {
        let starts = self.starts::<SIZE>();
        let missing = self.no_such_function();
        let start = starts.get(index).ok_or(missing)?;
        let stored = starts.entry(index).ok_or(missing)?;
        let offset = self
            .header
            .fde_offset
            .saturating_add(u64::from(index).saturating_mul(u64::from(self.header.version.fde_size())));
        let error = |broken| SourceError { broken, offset };
        let Entry { size, rows, row_count, info, kind, block_size } =
            entry(stored).ok_or(error(Broken::OutOfBounds))?;
        let row_kind = match kind {
            0 => RowKind::Default,
            1 => RowKind::Flexible,
            // Another layout of data words.
            _ => return Err(error(Broken::BadFde)),
        };
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
            row_kind,
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
        Rows::new(self, fde)
    }

    /// The row of `fde` that holds at `svma`; `None` where there is none.
    ///
    /// # Errors
    /// Where that row makes no sense, or where it cannot be told whether it is the one.
    #[inline]
    pub fn row_at(&self, fde: &Fde, svma: u64) -> Result<Option<Row>, SourceError> {
        self.stored_row_at(fde, svma)?.map(|row| read(&self.header, fde.row_kind, &row)).transpose()
    }

    /// The same row, not yet read. In a function of its own: where it was looked for is not needed any more.
    #[inline(never)]
    fn stored_row_at(&self, fde: &Fde, svma: u64) -> Result<Option<StoredRow<'d>>, SourceError> {
        let offset = svma.wrapping_sub(fde.start);
        let offset = match fde.block_size {
            Some(block) => offset.checked_rem(u64::from(block)).unwrap_or(0),
            None => offset,
        };
        self.rows(fde).last_at(offset)
    }

    /// Its bytes from `offset` on; none behind the end.
    fn bytes_at(&self, offset: u64) -> &'d [u8] {
        usize::try_from(offset).ok().and_then(|offset| self.data.get(offset..)).unwrap_or_default()
    }

    /// Its rows from `offset` on; none where that is not among them.
    pub(super) fn row_bytes(&self, offset: u64) -> &'d [u8] {
        let end = self.header.fre_offset.saturating_add(u64::from(self.header.fre_size));
        let length = end.checked_sub(offset).and_then(|length| usize::try_from(length).ok());
        length.and_then(|length| self.bytes_at(offset).get(..length)).unwrap_or_default()
    }

    fn endian(&self) -> Endian {
        endian(self.header.abi.byte_order())
    }

    fn no_such_function(&self) -> SourceError {
        SourceError { broken: Broken::OutOfBounds, offset: self.header.fde_offset }
    }
}

/// The sizes of entries in the tables of functions.
pub(super) const V1: usize = 17;
pub(super) const V2: usize = 20;
pub(super) const V3: usize = 16;

/// What an entry says beside where its function begins, as it is stored.
struct Entry {
    size: u32,
    /// Where its rows begin, from the beginning of all rows.
    rows: u64,
    row_count: u32,
    info: u8,
    kind: u8,
    block_size: u8,
}

/// Where the functions begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Starts<'d, const SIZE: usize> {
    entries: &'d [[u8; SIZE]],
    /// What the first start is relative to.
    pub(super) base: u64,
    /// All bits, where that of each next one is further by the size of an entry; else none.
    pub(super) step_mask: u64,
    endian: Endian,
}

impl<'d, const SIZE: usize> Starts<'d, SIZE> {
    /// The address at which the function at `index` begins (svma).
    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<u64> {
        let entry = self.entry(index)?;
        let value = match SIZE {
            V3 => number::<u64>(entry, 0, self.endian)?,
            _ => i64::from(number::<i32>(entry, 0, self.endian)?).cast_unsigned(),
        };
        let step = u64::from(index).wrapping_mul(u64::try_from(SIZE).ok()?) & self.step_mask;
        Some(self.base.wrapping_add(step).wrapping_add(value))
    }

    pub(super) fn entries(&self) -> &'d [[u8; SIZE]] {
        self.entries
    }

    /// How many functions there are.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    #[inline]
    pub(super) fn entry(&self, index: u32) -> Option<&'d [u8; SIZE]> {
        self.entries.get(usize::try_from(index).ok()?)
    }
}

/// A number at an offset, which need not be aligned.
#[inline]
pub(super) fn number<'n, T>(bytes: &'n [u8], offset: usize, endian: Endian) -> Option<T>
where
    T: scroll::ctx::TryFromCtx<'n, Endian, Error = scroll::Error>,
{
    bytes.pread_with(offset, endian).ok()
}
