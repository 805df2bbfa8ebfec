//! The memory of the target, out of the core and of the files that were mapped.

use unwind_core::{MemoryError, MemoryReader};

use super::contents::Contents;
use super::segments::Headers;

/// Memory that a file shows: read where the core leaves it out.
#[derive(Clone, Copy, Debug)]
pub(super) struct FilePiece {
    /// The first address (avma).
    pub(super) start: u64,
    /// The last address (avma).
    pub(super) last: u64,
    /// Where in the file it begins.
    pub(super) offset: u64,
    /// Which file, of those that were opened.
    pub(super) file: usize,
}

/// The memory of a core dump: what the core holds, and where it says that it left something out,
/// or does not know an address at all, the read-only part of the modules' files.
///
/// What a truncated core should hold and does not is unreadable, and never taken from a file: it
/// may have been changed. A read may go over from one to the other. With a file below, every read
/// is a system call: put a [`PageCache`](crate::PageCache) in front.
#[derive(Clone, Copy, Debug)]
pub struct CoreMemory<'c> {
    pub(super) headers: &'c Headers,
    pub(super) contents: &'c Contents,
    /// Ascending, without overlaps.
    pub(super) pieces: &'c [FilePiece],
    pub(super) files: &'c [Contents],
}

/// Where a run of bytes is.
struct Run<'c> {
    contents: &'c Contents,
    offset: u64,
    /// How many bytes, at least 1.
    length: u64,
}

impl<'c> CoreMemory<'c> {
    /// The core alone.
    pub(super) fn of_core(headers: &'c Headers, contents: &'c Contents) -> Self {
        CoreMemory { headers, contents, pieces: &[], files: &[] }
    }

    fn run(&self, address: u64) -> Option<Run<'c>> {
        let segments = &self.headers.memory;
        let index = segments.partition_point(|segment| segment.last < address);
        let next = segments.get(index);
        let mut last = u64::MAX;
        if let Some(segment) = next {
            if let Some(into) = address.checked_sub(segment.start) {
                if into < segment.present {
                    return Some(Run {
                        contents: self.contents,
                        offset: segment.offset.checked_add(into)?,
                        length: segment.present.saturating_sub(into),
                    });
                }
                if into < segment.dumped {
                    return None;
                }
                last = segment.last;
            } else {
                last = segment.start.saturating_sub(1);
            }
        }
        let index = self.pieces.partition_point(|piece| piece.last < address);
        let piece = self.pieces.get(index)?;
        let into = address.checked_sub(piece.start)?;
        let length = piece.last.min(last).saturating_sub(address).saturating_add(1);
        Some(Run { contents: self.files.get(piece.file)?, offset: piece.offset.checked_add(into)?, length })
    }
}

impl MemoryReader for CoreMemory<'_> {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let mut at = Some(address);
        let mut rest = into;
        while !rest.is_empty() {
            let address = at.ok_or(MemoryError::Unreadable { address: u64::MAX })?;
            let unreadable = MemoryError::Unreadable { address };
            let run = self.run(address).ok_or(unreadable)?;
            let length = usize::try_from(run.length).unwrap_or(usize::MAX).min(rest.len());
            let (here, beyond) = rest.split_at_mut_checked(length).ok_or(unreadable)?;
            if !run.contents.read(run.offset, here) {
                return Err(unreadable);
            }
            rest = beyond;
            at = u64::try_from(length).ok().and_then(|length| address.checked_add(length));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests"
)]
mod tests {
    use unwind_core::{ByteOrder, WordSize};

    use super::super::segments::Segment;
    use super::*;

    /// 0x10..0x14 in the core; 0x14..0x18 left out, the file has it; 0x18..0x1c cut off, the file
    /// has something there too; 0x1c..0x20 not mentioned, in the file.
    #[test]
    fn core_over_files() {
        let segment = |start, dumped, present, offset| Segment {
            start,
            last: start + 3,
            dumped,
            present,
            offset,
            executable: false,
        };
        let headers = Headers {
            machine: 62,
            flags: 0,
            word: WordSize::Eight,
            order: ByteOrder::Little,
            notes: Vec::new(),
            memory: vec![segment(0x10, 4, 4, 2), segment(0x14, 0, 0, 6), segment(0x18, 4, 1, 6)],
        };
        let core = Contents::Bytes((0..7).collect());
        let files = [Contents::Bytes((100..120).collect())];
        let pieces = [FilePiece { start: 0x10, last: 0x1f, offset: 1, file: 0 }];
        let mut memory = CoreMemory { headers: &headers, contents: &core, pieces: &pieces, files: &files };
        let want = |address: u64| match address {
            0x10..0x14 => Some(address as u8 - 0x10 + 2),
            0x14..0x18 | 0x1c..0x20 => Some(101 + address as u8 - 0x10),
            0x18 => Some(6),
            _ => None,
        };
        for address in 0..0x30u64 {
            for length in 0..0x30usize {
                let mut into = vec![0; length];
                let got = memory.read(address, &mut into);
                match (address..).take(length).find(|byte| want(*byte).is_none()) {
                    Some(missing) => assert_eq!(got, Err(MemoryError::Unreadable { address: missing })),
                    None => {
                        assert_eq!(got, Ok(()));
                        assert!(into.iter().copied().map(Some).eq((address..).take(length).map(want)));
                    }
                }
            }
        }
        let mut core_alone = CoreMemory::of_core(&headers, &core);
        assert_eq!(core_alone.read(0x14, &mut [0]), Err(MemoryError::Unreadable { address: 0x14 }));
        assert_eq!(core_alone.read(u64::MAX, &mut [0]), Err(MemoryError::Unreadable { address: u64::MAX }));
    }
}
