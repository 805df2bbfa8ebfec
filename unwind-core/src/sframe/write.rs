//! Writing sections: of every version and ABI, out of the rules of any source, into room that the
//! caller gives.
//!
//! Nothing is approximated: what the format cannot say is left out, addresses and cause are told,
//! and a lookup there finds nothing. What is around it is kept, as functions of their own.

#[cfg(feature = "alloc")]
use alloc::vec::Vec;
use core::num::NonZeroU8;

use super::header::{Abi, Version};
use super::section::RowStart;
use super::write_room::{Entry, Refused, RowsAt, SFrameFormat, SectionRoom, WriteError, near};
use super::write_row::{Inexpressible, RowWords, Rowed, Word, row};
use crate::{FrameKind, UnwindUserFrame};

/// A function to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteFunction {
    /// Its first address (svma).
    pub start: u64,
    /// How many bytes of code.
    pub size: u32,
    /// For code in blocks of the same shape (a procedure linkage table), the size of a block: rows
    /// then apply to the offset in the block.
    pub block_size: Option<NonZeroU8>,
    /// AArch64: return addresses are signed with the B key, not the A key.
    pub key_b: bool,
}

/// A row to write: what holds from its start to the next one's, or to the end of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteRow {
    /// Where it begins: an offset from the function's start, or in the block.
    pub start: u32,
    /// The rule; `None` where nothing is known. Of an outermost frame only that is kept.
    pub frame: Option<UnwindUserFrame>,
    /// AArch64: the return address is signed here.
    pub is_mangled: bool,
}

/// Writes one section.
///
/// ```
/// use unwind_core::sframe::{Abi, SFrameFormat, SFrameWriter, Version, WriteFunction, WriteRow};
/// use unwind_core::UnwindUserFrame;
///
/// // push %rbp at 0x1000, mov %rsp,%rbp at 0x1001, …
/// let function = WriteFunction { start: 0x1000, size: 0x40, block_size: None, key_b: false };
/// let rows = [
///     (0, UnwindUserFrame::plain(false, 8, -8, None)),
///     (1, UnwindUserFrame::plain(false, 16, -8, Some(-16))),
///     (4, UnwindUserFrame::plain(true, 16, -8, Some(-16))),
/// ];
/// let rows = rows.map(|(start, frame)| WriteRow { start, frame: Some(frame), is_mangled: false });
/// let mut room = [0; 128];
/// let format = SFrameFormat { version: Version::V3, abi: Abi::Amd64, svma: 0x2000 };
/// let mut writer = SFrameWriter::new(format, &mut room);
/// writer.function(&function, rows.into_iter(), &mut |refused| panic!("{refused:?}"));
/// let section = writer.finish(&mut |refused| panic!("{refused:?}"))?;
/// assert_eq!(section.len(), 28 + 16 + 5 + 3 + 4 + 4);
/// # Ok::<(), unwind_core::sframe::WriteError>(())
/// ```
pub struct SFrameWriter<'r> {
    room: SectionRoom<'r>,
}

impl<'r> SFrameWriter<'r> {
    /// A section without functions so far, to be written into `room`.
    ///
    /// Where the room turns out too small, [`finish`](SFrameWriter::finish) tells how much is
    /// needed: none at all is a way to ask.
    pub fn new(format: SFrameFormat, room: &'r mut [u8]) -> Self {
        SFrameWriter { room: SectionRoom::new(format, room) }
    }

    /// What the section is to be.
    pub fn format(&self) -> SFrameFormat {
        self.room.format()
    }

    /// Adds a function, in whatever order. The rows are gone through up to four times.
    ///
    /// One without a length is left out. A function becomes several where something in its middle
    /// cannot be said, where signal frames and others meet, and where version 3 has no room for its
    /// number of rows.
    ///
    /// `refused` is told the addresses of the function that cannot be described.
    pub fn function<I>(&mut self, function: &WriteFunction, rows: I, refused: &mut dyn FnMut(Refused))
    where
        I: Iterator<Item = WriteRow> + Clone,
    {
        let WriteFunction { start, size, block_size, .. } = *function;
        let Some(beyond_first) = size.checked_sub(1) else {
            return;
        };
        let limit = block_size.map_or(size, |block| size.min(u32::from(block.get())));
        let mut refuse = |cause| refused(Refused { start, size: size.into(), cause });
        if start.checked_add(u64::from(beyond_first)).is_none() {
            return refuse(Inexpressible::Address);
        }
        if !are_in_order(rows.clone(), limit) {
            return refuse(Inexpressible::RowOrder);
        }
        let mut cursor = Cursor::new(rows, limit);
        if let Some(block_size) = block_size {
            return match self.in_blocks(block_size, &mut cursor) {
                Ok(Some(piece)) => self.add(function, &Piece { start: 0, end: size, ..piece }, refused),
                Ok(None) => {}
                Err(cause) => refuse(cause),
            };
        }
        while let Some(piece) = self.next_piece(function, &mut cursor, refused) {
            self.add(function, &piece, refused);
        }
    }

    /// Completes the section, and returns it. Functions that overlap each other are left out, and
    /// told to `refused`.
    ///
    /// # Errors
    /// Where the room is too small, or a section cannot be that large.
    pub fn finish(self, refused: &mut dyn FnMut(Refused)) -> Result<&'r [u8], WriteError> {
        self.room.finish(refused)
    }

    fn row(&self, frame: &UnwindUserFrame) -> Result<Rowed, Inexpressible> {
        let SFrameFormat { version, abi, .. } = self.format();
        row(version, abi, frame)
    }

    /// The rows of a block, which must be one piece.
    fn in_blocks<I>(
        &self,
        block_size: NonZeroU8,
        cursor: &mut Cursor<I>,
    ) -> Result<Option<Piece<I>>, Inexpressible>
    where
        I: Iterator<Item = WriteRow> + Clone,
    {
        let is_v1 = self.format().version == Version::V1;
        let mut piece: Option<Piece<I>> = None;
        while let Some(row) = cursor.next {
            if is_v1 && block_size.get() != V1_BLOCK_SIZE {
                return Err(Inexpressible::Blocks);
            }
            let rowed = self.row(&row.frame.ok_or(Inexpressible::Blocks)?)?;
            let piece = piece.get_or_insert_with(|| Piece::new(cursor));
            if !piece.joins(&rowed, self.most_rows()) {
                return Err(Inexpressible::Blocks);
            }
            piece.join(&row, &rowed, cursor.advance());
        }
        Ok(piece)
    }

    /// The next rows that can be said as one function.
    fn next_piece<I>(
        &self,
        function: &WriteFunction,
        cursor: &mut Cursor<I>,
        refused: &mut dyn FnMut(Refused),
    ) -> Option<Piece<I>>
    where
        I: Iterator<Item = WriteRow> + Clone,
    {
        let mut piece: Option<Piece<I>> = None;
        while let Some(row) = cursor.next {
            let rowed = row.frame.map(|frame| self.row(&frame));
            let rowed = match rowed {
                Some(Ok(rowed)) => rowed,
                _ if piece.is_some() => break,
                hole => {
                    let end = cursor.advance();
                    if let Some(Err(cause)) = hole {
                        let start = function.start.wrapping_add(u64::from(row.start));
                        let size = end.saturating_sub(row.start).into();
                        refused(Refused { start, size, cause });
                    }
                    continue;
                }
            };
            let piece = piece.get_or_insert_with(|| Piece::new(cursor));
            if !piece.joins(&rowed, self.most_rows()) {
                break;
            }
            piece.join(&row, &rowed, cursor.advance());
        }
        piece
    }

    /// Writes a piece of a function.
    fn add<I>(&mut self, function: &WriteFunction, piece: &Piece<I>, refused: &mut dyn FnMut(Refused))
    where
        I: Iterator<Item = WriteRow> + Clone,
    {
        let SFrameFormat { version, abi, svma } = self.format();
        let start = function.start.wrapping_add(u64::from(piece.start));
        let size = piece.end.saturating_sub(piece.start);
        if version != Version::V3 && near(svma, start).is_none() {
            return refused(Refused { start, size: size.into(), cause: Inexpressible::Address });
        }
        let is_aarch64 = matches!(abi, Abi::Aarch64Big | Abi::Aarch64Little);
        let last_row = piece.last_row.saturating_sub(piece.start);
        let (row_start, number) = match last_row {
            0..=0xff => (RowStart::Addr1, 0),
            0x100..=0xffff => (RowStart::Addr2, 1),
            _ => (RowStart::Addr4, 2),
        };
        let mut info: u8 = number;
        if function.block_size.is_some() {
            info |= 0x10;
        }
        if is_aarch64 && function.key_b {
            info |= 0x20;
        }
        if piece.kind == Some(FrameKind::Signal) {
            info |= 0x80;
        }
        let entry = Entry {
            start,
            size,
            row_count: piece.row_count,
            info,
            is_flexible: piece.default_size.is_none(),
            block_size: function.block_size.map_or(0, NonZeroU8::get),
        };
        let words_size = piece.default_size.unwrap_or(piece.flexible_size);
        let starts_size = u64::from(piece.row_count).saturating_mul(u64::from(row_start.size()));
        let Some(mut at) = self.room.add(&entry, starts_size.saturating_add(words_size)) else {
            return;
        };
        let mut cursor = piece.rows.clone();
        for _ in 0..piece.row_count {
            let Some(row) = cursor.next else { break };
            cursor.advance();
            let Some(Ok(rowed)) = row.frame.map(|frame| self.row(&frame)) else { break };
            let words = if entry.is_flexible { rowed.flexible } else { rowed.default };
            let Some(words) = words else { break };
            let offset = row.start.saturating_sub(piece.start);
            self.put_row(&mut at, row_start, offset, &words, is_aarch64 && row.is_mangled);
        }
    }

    fn put_row(
        &mut self,
        at: &mut RowsAt,
        row_start: RowStart,
        start: u32,
        words: &RowWords,
        is_mangled: bool,
    ) {
        let room = &mut self.room;
        let [low, high, ..] = start.to_le_bytes();
        match row_start {
            RowStart::Addr1 => at.put(room, low),
            RowStart::Addr2 => at.put(room, u16::from_le_bytes([low, high])),
            RowStart::Addr4 => at.put(room, start),
        }
        let size = match words.word_size() {
            1 => 0,
            2 => 1 << 5,
            _ => 2 << 5,
        };
        let mangled = if is_mangled && words.count() > 0 { 0x80 } else { 0 };
        at.put(room, u8::from(words.on_sp) | words.count().wrapping_shl(1) | size | mangled);
        for word in words.words() {
            let value = match word {
                Word::Offset(offset) => *offset,
                Word::Control(control) => i32::from(*control),
            };
            let [low, high, ..] = value.to_le_bytes();
            match words.word_size() {
                1 => at.put(room, low),
                2 => at.put(room, u16::from_le_bytes([low, high])),
                _ => at.put(room, value),
            }
        }
    }

    /// The most rows that a function can have.
    fn most_rows(&self) -> u32 {
        if self.format().version == Version::V3 { u32::from(u16::MAX) } else { u32::MAX }
    }
}

impl core::fmt::Debug for SFrameWriter<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SFrameWriter").field("format", &self.format()).finish_non_exhaustive()
    }
}

/// Writes a section into a vector that is just as long as it must be.
///
/// `functions` adds the functions, and passes on what it is given for refusals. It is called twice,
/// and must do the same both times; the first time is for the size alone.
///
/// # Errors
/// As for [`SFrameWriter::finish`].
#[cfg(feature = "alloc")]
pub fn write_to_vec(
    format: SFrameFormat,
    mut functions: impl FnMut(&mut SFrameWriter<'_>, &mut dyn FnMut(Refused)),
    refused: &mut dyn FnMut(Refused),
) -> Result<Vec<u8>, WriteError> {
    let mut writer = SFrameWriter::new(format, &mut []);
    functions(&mut writer, &mut |_| {});
    let needed = match writer.finish(&mut |_| {}) {
        Err(WriteError::NoRoom { needed }) => needed,
        Err(error) => return Err(error),
        Ok(section) => section.len(),
    };
    let mut room = alloc::vec![0; needed];
    let mut writer = SFrameWriter::new(format, &mut room);
    functions(&mut writer, refused);
    let size = writer.finish(refused)?.len();
    room.truncate(size);
    Ok(room)
}

/// The size of a block in version 1, which does not state it.
const V1_BLOCK_SIZE: u8 = 16;

fn are_in_order(rows: impl Iterator<Item = WriteRow>, limit: u32) -> bool {
    let mut last = None;
    for row in rows {
        if row.start >= limit || last.is_some_and(|last| row.start <= last) {
            return false;
        }
        last = Some(row.start);
    }
    true
}

/// Goes through rows, one ahead.
#[derive(Clone)]
struct Cursor<I> {
    rows: I,
    next: Option<WriteRow>,
    limit: u32,
}

impl<I: Iterator<Item = WriteRow>> Cursor<I> {
    fn new(mut rows: I, limit: u32) -> Self {
        let next = rows.next();
        Cursor { rows, next, limit }
    }

    /// Goes on to the next row. Where the one before ends.
    fn advance(&mut self) -> u32 {
        self.next = self.rows.next();
        self.next.map_or(self.limit, |row| row.start)
    }
}

/// Rows that become one function of the section.
#[derive(Clone)]
struct Piece<I> {
    /// Where it begins, from the function's start. The starts of its rows count from here.
    start: u32,
    /// Where it ends.
    end: u32,
    /// At its first row.
    rows: Cursor<I>,
    row_count: u32,
    /// Where its last row begins.
    last_row: u32,
    kind: Option<FrameKind>,
    /// The size of its rows without their starts, as default rows; `None` where they cannot be.
    default_size: Option<u64>,
    /// The same as flexible rows.
    flexible_size: u64,
}

impl<I: Iterator<Item = WriteRow> + Clone> Piece<I> {
    /// A piece without rows so far, the first of which will be the next of `rows`.
    fn new(rows: &Cursor<I>) -> Self {
        let start = rows.next.map_or(rows.limit, |row| row.start);
        Piece {
            start,
            end: start,
            rows: rows.clone(),
            row_count: 0,
            last_row: start,
            kind: None,
            default_size: Some(0),
            flexible_size: 0,
        }
    }

    /// Whether a row can be a part of it.
    fn joins(&self, row: &Rowed, most: u32) -> bool {
        self.row_count < most && (self.kind.is_none() || row.kind.is_none() || self.kind == row.kind)
    }

    /// Adds a row that ends at `end`.
    fn join(&mut self, row: &WriteRow, rowed: &Rowed, end: u32) {
        self.end = end;
        self.row_count = self.row_count.saturating_add(1);
        self.last_row = row.start;
        self.kind = self.kind.or(rowed.kind);
        let add = |size: u64, words: &RowWords| size.saturating_add(words.size());
        self.default_size = self.default_size.zip(rowed.default).map(|(size, words)| add(size, &words));
        self.flexible_size = rowed.flexible.map_or(0, |words| add(self.flexible_size, &words));
    }
}
