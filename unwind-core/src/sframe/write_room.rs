//! A section growing in the caller's room.
//!
//! Rows grow from the front, where they will almost be; entries of functions are put down from the
//! end of the room, in no order. At the end these are sorted, and moved before the rows.

use core::fmt;

use scroll::{Endian, Pread, Pwrite, ctx::TryIntoCtx};

use super::header::{Abi, FLAG_PCREL, FLAG_SORTED, HEADER_SIZE, Version, endian};
use super::write_row::{AMD64_RA_OFFSET, Inexpressible};

/// What a section is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SFrameFormat {
    /// The version. In version 2, rows of outermost frames and the ABI s390x need a reader that
    /// knows its errata.
    pub version: Version,
    /// The ABI.
    pub abi: Abi,
    /// The address that the section will have (svma). In it, functions are stated relative to the
    /// section; nothing in it changes when all of the module is relocated.
    pub svma: u64,
}

/// Addresses that a section does not describe, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// The first one (svma).
    pub start: u64,
    /// How many bytes.
    pub size: u64,
    /// Why.
    pub cause: Inexpressible,
}

/// Why a section could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteError {
    /// The room is too small.
    NoRoom {
        /// How many bytes are needed.
        needed: usize,
    },
    /// The section would be larger than its own offsets can say, or than memory is.
    TooLarge,
    /// The version does not have this ABI: s390x before version 2.
    NoSuchAbi,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::NoRoom { needed } => write!(f, "room for {needed} bytes is needed"),
            WriteError::TooLarge => f.write_str("larger than a section can be"),
            WriteError::NoSuchAbi => f.write_str("the version does not have this ABI"),
        }
    }
}

impl core::error::Error for WriteError {}

/// One function, as its entry states it.
pub(super) struct Entry {
    /// svma.
    pub(super) start: u64,
    pub(super) size: u32,
    pub(super) row_count: u32,
    /// The info byte.
    pub(super) info: u8,
    /// Version 3: rows are flexible.
    pub(super) is_flexible: bool,
    pub(super) block_size: u8,
}

pub(super) struct SectionRoom<'r> {
    format: SFrameFormat,
    room: &'r mut [u8],
    endian: Endian,
    /// How many bytes of rows there are.
    rows_size: u64,
    /// How many rows.
    row_count: u64,
    /// How many functions.
    entry_count: u64,
    /// Something did not fit.
    is_full: bool,
}

impl<'r> SectionRoom<'r> {
    pub(super) fn new(format: SFrameFormat, room: &'r mut [u8]) -> Self {
        let endian = endian(format.abi.byte_order());
        SectionRoom { format, room, endian, rows_size: 0, row_count: 0, entry_count: 0, is_full: false }
    }

    pub(super) fn format(&self) -> SFrameFormat {
        self.format
    }

    /// The size in bytes of what a function's rows begin with.
    fn attribute_size(&self) -> u64 {
        if self.format.version == Version::V3 { 5 } else { 0 }
    }

    fn entry_size(&self) -> u64 {
        u64::from(self.format.version.fde_size())
    }

    /// How much room is needed for what there is.
    fn needed(&self) -> u64 {
        let entries = self.entry_count.saturating_mul(self.entry_size());
        HEADER_SIZE.saturating_add(self.rows_size).saturating_add(entries)
    }

    /// Adds a function whose rows will be `rows_size` bytes long. Where to write these; `None` where
    /// there is no room, or no longer: then it is only counted.
    pub(super) fn add(&mut self, entry: &Entry, rows_size: u64) -> Option<RowsAt> {
        let offset = self.rows_size;
        self.rows_size = offset.saturating_add(self.attribute_size()).saturating_add(rows_size);
        self.row_count = self.row_count.saturating_add(u64::from(entry.row_count));
        self.entry_count = self.entry_count.saturating_add(1);
        let room = u64::try_from(self.room.len()).unwrap_or(u64::MAX);
        if self.needed() > room {
            self.is_full = true;
        }
        if self.is_full {
            return None;
        }
        let at = room.checked_sub(self.entry_count.saturating_mul(self.entry_size()))?;
        self.put_entry(entry, at, u32::try_from(offset).ok()?);
        Some(RowsAt(HEADER_SIZE.saturating_add(offset).saturating_add(self.attribute_size())))
    }

    /// Writes an entry at `at`; its start in version 3 as an address, until entries are in their places.
    fn put_entry(&mut self, entry: &Entry, at: u64, rows: u32) {
        let svma = self.format.svma;
        let field = |offset: u64| at.saturating_add(offset);
        if self.format.version == Version::V3 {
            self.put(field(0), entry.start);
            self.put(field(8), entry.size);
            self.put(field(12), rows);
            let attribute = HEADER_SIZE.saturating_add(u64::from(rows));
            let field = |offset: u64| attribute.saturating_add(offset);
            match u16::try_from(entry.row_count) {
                Ok(count) => self.put(field(0), count),
                Err(_) => self.is_full = true,
            }
            self.put(field(2), entry.info);
            self.put(field(3), u8::from(entry.is_flexible));
            self.put(field(4), entry.block_size);
            return;
        }
        match near(svma, entry.start) {
            Some(start) => self.put(field(0), start),
            None => self.is_full = true,
        }
        self.put(field(4), entry.size);
        self.put(field(8), rows);
        self.put(field(12), entry.row_count);
        self.put(field(16), entry.info);
        if self.format.version == Version::V2 {
            self.put(field(17), entry.block_size);
            self.put(field(18), 0u16);
        }
    }

    /// Writes a number.
    pub(super) fn put<T: TryIntoCtx<Endian, Error = scroll::Error>>(&mut self, at: u64, value: T) {
        let written =
            usize::try_from(at).ok().and_then(|at| self.room.pwrite_with(value, at, self.endian).ok());
        if written.is_none() {
            self.is_full = true;
        }
    }

    fn get<T>(&self, at: u64) -> Option<T>
    where
        T: for<'a> scroll::ctx::TryFromCtx<'a, Endian, Error = scroll::Error>,
    {
        self.room.pread_with(usize::try_from(at).ok()?, self.endian).ok()
    }

    /// Puts everything into place. The section.
    pub(super) fn finish(mut self, refused: &mut dyn FnMut(Refused)) -> Result<&'r [u8], WriteError> {
        if self.format.version == Version::V1 && self.format.abi == Abi::S390x {
            return Err(WriteError::NoSuchAbi);
        }
        let needed = usize::try_from(self.needed()).map_err(|_| WriteError::TooLarge)?;
        if self.rows_size > u64::from(u32::MAX) {
            return Err(WriteError::TooLarge);
        }
        if needed > self.room.len() || self.is_full {
            return Err(WriteError::NoRoom { needed });
        }
        self.sort();
        self.leave_out_overlaps(refused);
        let size = self.place_entries().ok_or(WriteError::TooLarge)?;
        self.put_header();
        self.room.get(..size).ok_or(WriteError::TooLarge)
    }

    /// Where the entry at this place is, before entries are moved.
    fn entry_at(&self, index: u64) -> u64 {
        let room = u64::try_from(self.room.len()).unwrap_or(u64::MAX);
        let entries = self.entry_count.saturating_mul(self.entry_size());
        room.saturating_sub(entries).saturating_add(index.saturating_mul(self.entry_size()))
    }

    fn sort(&mut self) {
        let SFrameFormat { version, svma, .. } = self.format;
        let endian = self.endian;
        let from = usize::try_from(self.entry_at(0)).unwrap_or(usize::MAX);
        let entries = self.room.get_mut(from..).unwrap_or_default();
        match version {
            Version::V1 => {
                entries.as_chunks_mut::<17>().0.sort_unstable_by_key(|e| start(version, svma, e, endian))
            }
            Version::V2 => {
                entries.as_chunks_mut::<20>().0.sort_unstable_by_key(|e| start(version, svma, e, endian))
            }
            Version::V3 => {
                entries.as_chunks_mut::<16>().0.sort_unstable_by_key(|e| start(version, svma, e, endian))
            }
        }
    }

    /// The first and the last address of a sorted entry.
    fn range(&self, index: u64) -> Option<(u64, u64)> {
        if index >= self.entry_count {
            return None;
        }
        let at = self.entry_at(index);
        let entry = self.room.get(usize::try_from(at).ok()?..)?;
        let start = start(self.format.version, self.format.svma, entry, self.endian)?;
        let size: u32 = self.get(at.saturating_add(self.size_field()))?;
        Some((start, start.saturating_add(u64::from(size).saturating_sub(1))))
    }

    /// Where an entry has the function's size.
    fn size_field(&self) -> u64 {
        if self.format.version == Version::V3 { 8 } else { 4 }
    }

    fn rows_of(&self, index: u64) -> Option<u64> {
        let at = self.entry_at(index);
        if self.format.version != Version::V3 {
            return self.get::<u32>(at.saturating_add(12)).map(u64::from);
        }
        let rows: u32 = self.get(at.saturating_add(12))?;
        self.get::<u16>(HEADER_SIZE.saturating_add(u64::from(rows))).map(u64::from)
    }

    /// Takes the entries out that overlap others, and moves the rest to the front of the entries.
    /// Their rows stay, unused.
    fn leave_out_overlaps(&mut self, refused: &mut dyn FnMut(Refused)) {
        let mut kept = 0u64;
        let mut rows_kept = 0u64;
        let mut covered: Option<u64> = None;
        for index in 0..self.entry_count {
            let Some((start, last)) = self.range(index) else { continue };
            let is_alone = covered.is_none_or(|covered| start > covered)
                && self.range(index.saturating_add(1)).is_none_or(|(next, _)| next > last);
            covered = Some(covered.map_or(last, |covered| covered.max(last)));
            if !is_alone {
                let size = last.wrapping_sub(start).saturating_add(1);
                refused(Refused { start, size, cause: Inexpressible::Overlap });
                continue;
            }
            rows_kept = rows_kept.saturating_add(self.rows_of(index).unwrap_or(0));
            self.copy(self.entry_at(index), self.entry_at(kept), self.entry_size());
            kept = kept.saturating_add(1);
        }
        let first = self.entry_at(0);
        self.entry_count = kept;
        self.row_count = rows_kept;
        self.copy(first, self.entry_at(0), kept.saturating_mul(self.entry_size()));
    }

    /// Moves bytes within the room; the two places may overlap.
    fn copy(&mut self, from: u64, to: u64, size: u64) {
        let place = |at: u64| Some(usize::try_from(at).ok()?..usize::try_from(at.checked_add(size)?).ok()?);
        match place(from).zip(place(to)) {
            Some((from, to)) if from.end.max(to.end) <= self.room.len() => {
                self.room.copy_within(from, to.start);
            }
            _ => self.is_full = true,
        }
    }

    /// Moves the entries between the header and the rows, and makes their starts relative. The size
    /// of the section.
    fn place_entries(&mut self) -> Option<usize> {
        let entries_size = self.entry_count.saturating_mul(self.entry_size());
        let rows_end = HEADER_SIZE.saturating_add(self.rows_size);
        self.copy(self.entry_at(0), rows_end, entries_size);
        let end = usize::try_from(rows_end.saturating_add(entries_size)).ok()?;
        let tables = self.room.get_mut(usize::try_from(HEADER_SIZE).ok()?..end)?;
        let by = usize::try_from(entries_size).ok().filter(|by| *by <= tables.len())?;
        tables.rotate_right(by);
        if self.format.version == Version::V3 {
            for index in 0..self.entry_count {
                let at = HEADER_SIZE.saturating_add(index.saturating_mul(self.entry_size()));
                let start: u64 = self.get(at)?;
                self.put(at, start.wrapping_sub(self.format.svma.wrapping_add(at)));
            }
        }
        Some(end)
    }

    fn put_header(&mut self) {
        let SFrameFormat { version, abi, .. } = self.format;
        let flags = if version == Version::V3 { FLAG_SORTED | FLAG_PCREL } else { FLAG_SORTED };
        let fixed_ra = match abi {
            Abi::Amd64 => i8::try_from(AMD64_RA_OFFSET).unwrap_or(0),
            _ => 0,
        };
        self.put(0, 0xdee2u16);
        self.put(2, version.number());
        self.put(3, flags);
        self.put(4, abi.number());
        self.put(5, 0u8);
        self.put(6, fixed_ra);
        self.put(7, 0u8);
        // All of these were found to fit when the room was.
        let entries_size = self.entry_count.saturating_mul(self.entry_size());
        for (at, value) in
            [(8, self.entry_count), (12, self.row_count), (16, self.rows_size), (20, 0), (24, entries_size)]
        {
            match u32::try_from(value) {
                Ok(value) => self.put(at, value),
                Err(_) => self.is_full = true,
            }
        }
    }
}

/// Where a function's rows are to be written.
pub(super) struct RowsAt(u64);

impl RowsAt {
    /// Writes the next number of the rows.
    pub(super) fn put<T>(&mut self, room: &mut SectionRoom<'_>, value: T)
    where
        T: TryIntoCtx<Endian, Error = scroll::Error>,
    {
        let size = u64::try_from(size_of::<T>()).unwrap_or(0);
        room.put(self.0, value);
        self.0 = self.0.saturating_add(size);
    }
}

/// The start of a function relative to the section, where 32 bits can say it.
pub(super) fn near(svma: u64, start: u64) -> Option<i32> {
    i32::try_from(start.wrapping_sub(svma).cast_signed()).ok()
}

/// Where the function of an entry begins (svma), before starts are made relative.
fn start(version: Version, svma: u64, entry: &[u8], endian: Endian) -> Option<u64> {
    match version {
        Version::V1 | Version::V2 => {
            let start: i32 = entry.pread_with(0, endian).ok()?;
            Some(svma.wrapping_add(i64::from(start).cast_unsigned()))
        }
        Version::V3 => entry.pread_with(0, endian).ok(),
    }
}
