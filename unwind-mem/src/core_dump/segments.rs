//! The headers of a core file, and the memory that its segments hold.

use object::pod::slice_from_bytes;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{Endian, Endianness, FileKind, elf};
use unwind_core::{ByteOrder, WordSize};

use super::contents::Contents;
use super::{CoreError, CoreProblem};

/// The most program headers that are read. Linux allows some 65,530 mappings of a process, and
/// administrators a few times as many.
const MAX_SEGMENTS: u64 = 1 << 20;

/// What the headers say.
#[derive(Debug)]
pub(super) struct Headers {
    pub(super) machine: u16,
    pub(super) flags: u32,
    pub(super) word: WordSize,
    pub(super) order: ByteOrder,
    /// `PT_NOTE` segments: offset in the file and size.
    pub(super) notes: Vec<(u64, u64)>,
    /// `PT_LOAD` segments, ascending, none empty, no two overlapping.
    pub(super) memory: Vec<Segment>,
}

/// Memory of the target, as far as a core says something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// The first address (avma).
    pub(super) start: u64,
    /// The last address (avma).
    pub(super) last: u64,
    /// How many of its bytes the core should have, at `offset`.
    pub(super) dumped: u64,
    /// How many of them it has: fewer where the file is cut off.
    pub(super) present: u64,
    pub(super) offset: u64,
    pub(super) executable: bool,
}

impl Headers {
    pub(super) fn read(contents: &Contents, problems: &mut Vec<CoreProblem>) -> Result<Self, CoreError> {
        let start = contents.read_prefix(0, 64, 64);
        match FileKind::parse(start.as_slice()) {
            Ok(FileKind::Elf32) => of::<elf::FileHeader32<Endianness>>(contents, &start, problems),
            Ok(FileKind::Elf64) => of::<elf::FileHeader64<Endianness>>(contents, &start, problems),
            _ if start.starts_with(b"\x7fELF") => Err(CoreError::Malformed),
            _ => Err(CoreError::NotElf),
        }
    }

    /// The segment at `address`.
    pub(super) fn segment(&self, address: u64) -> Option<&Segment> {
        let index = self.memory.partition_point(|segment| segment.last < address);
        self.memory.get(index).filter(|segment| segment.start <= address)
    }
}

fn of<Elf: FileHeader<Endian = Endianness>>(
    contents: &Contents,
    start: &[u8],
    problems: &mut Vec<CoreProblem>,
) -> Result<Headers, CoreError> {
    let malformed = |_| CoreError::Malformed;
    let header = Elf::parse(start).map_err(malformed)?;
    let endian = header.endian().map_err(malformed)?;
    let kind = header.e_type(endian);
    if kind != elf::ET_CORE {
        return Err(CoreError::NotCore { kind: kind.0 });
    }
    let segments = program_headers(header, endian, contents, problems)?;
    let (segments, _) = slice_from_bytes::<Elf::ProgramHeader>(
        &segments,
        segments.len().checked_div(size_of::<Elf::ProgramHeader>()).unwrap_or(0),
    )
    .map_err(|()| CoreError::Malformed)?;
    let is_64 = header.is_class_64();
    let word = if is_64 { WordSize::Eight } else { WordSize::Four };
    let mut notes = Vec::new();
    let mut memory = Vec::new();
    for segment in segments {
        let (offset, size) = segment.file_range(endian);
        match segment.p_type(endian) {
            elf::PT_NOTE => notes.push((offset, size)),
            elf::PT_LOAD => {
                let start = segment.p_vaddr(endian).into();
                // Some writers leave the size in memory at 0.
                let size_in_memory = size.max(segment.p_memsz(endian).into());
                let Some(length) = size_in_memory.checked_sub(1) else { continue };
                let last = start.checked_add(length).filter(|last| *last <= word.max_address());
                let Some(last) = last else {
                    problems.push(CoreProblem::BadSegment { address: start });
                    continue;
                };
                memory.push(Segment {
                    start,
                    last,
                    dumped: size,
                    present: size.min(contents.length().saturating_sub(offset)),
                    offset,
                    executable: segment.p_flags(endian).contains(elf::PF_X),
                });
            }
            _ => {}
        }
    }
    let cut = notes.iter().copied().chain(memory.iter().map(|segment| (segment.offset, segment.dumped)));
    let expected = cut.filter(|(_, size)| *size > 0).map(|(offset, size)| offset.saturating_add(size)).max();
    if let Some(expected) = expected.filter(|expected| *expected > contents.length()) {
        problems.push(CoreProblem::Truncated { length: contents.length(), expected });
    }
    Ok(Headers {
        machine: header.e_machine(endian).0,
        flags: header.e_flags(endian).0,
        word,
        order: if endian.is_big_endian() { ByteOrder::Big } else { ByteOrder::Little },
        notes,
        memory: without_overlaps(memory, problems),
    })
}

/// The bytes of the program headers, as many as there are.
fn program_headers<Elf: FileHeader<Endian = Endianness>>(
    header: &Elf,
    endian: Endianness,
    contents: &Contents,
    problems: &mut Vec<CoreProblem>,
) -> Result<Vec<u8>, CoreError> {
    let size = u64::try_from(size_of::<Elf::ProgramHeader>()).unwrap_or(u64::MAX);
    if u64::from(header.e_phentsize(endian)) != size {
        return Err(CoreError::Malformed);
    }
    let mut expected = u64::from(header.e_phnum(endian));
    if header.e_phnum(endian) == elf::PN_XNUM {
        // The number is too large for its field: it is in the first section header (System V
        // ABI, chapter 5, "Program Header").
        let size = size_of::<Elf::SectionHeader>();
        let mut bytes = vec![0; size];
        if contents.read(header.e_shoff(endian).into(), &mut bytes)
            && let Ok((first, _)) = object::pod::from_bytes::<Elf::SectionHeader>(&bytes)
        {
            expected = first.sh_info(endian).into();
        }
    }
    let bytes = contents.read_prefix(
        header.e_phoff(endian).into(),
        expected.saturating_mul(size),
        MAX_SEGMENTS.saturating_mul(size),
    );
    let read = u64::try_from(bytes.len()).ok().and_then(|length| length.checked_div(size)).unwrap_or(0);
    if read == 0 {
        return Err(CoreError::Malformed);
    }
    if read < expected {
        problems.push(CoreProblem::SegmentList { read, expected });
    }
    Ok(bytes)
}

/// In ascending order; of two that overlap the one that begins first, or comes first, stays.
fn without_overlaps(mut memory: Vec<Segment>, problems: &mut Vec<CoreProblem>) -> Vec<Segment> {
    memory.sort_by_key(|segment| segment.start);
    let mut end = None;
    memory.retain(|segment| {
        let stays = end.is_none_or(|end| segment.start > end);
        if stays {
            end = Some(segment.last);
        } else {
            problems.push(CoreProblem::BadSegment { address: segment.start });
        }
        stays
    });
    memory
}
