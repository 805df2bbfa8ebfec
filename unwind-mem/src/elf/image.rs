//! ELF files as they lie in a process's memory: the vDSO, and files that are gone.

use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, FileKind};
use unwind_core::{MemoryError, MemoryReader};

use super::ElfError;
use super::tables::Load;

/// The most bytes of an image.
pub(crate) const MAX_IMAGE: u64 = 512 << 20;

/// The most bytes of the headers at the start of a file.
const MAX_HEADERS: u64 = 64 << 10;

/// What is read at once: pages that cannot be read are left zero.
const PAGE: usize = 4096;

/// Puts together the file of which the beginning is mapped at `start` (avma): every loaded
/// segment at its place in the file. What is not loaded (section headers, symbols, debug
/// information) is missing, and the headers then say so.
///
/// `Ok(Err(_))` where what lies there is no ELF file, or one of more than `most` bytes.
pub(crate) fn of_segments(
    memory: &mut dyn MemoryReader,
    start: u64,
    most: u64,
) -> Result<Result<Vec<u8>, ElfError>, MemoryError> {
    let mut headers = Vec::new();
    append(memory, start, MAX_HEADERS, &mut headers)?;
    let Some((layout, size)) = layout(&headers, most) else {
        return Ok(Err(ElfError::NotElf));
    };
    // The loader maps the first segment so that the file's beginning is at `start`.
    let Some(bias) = layout
        .iter()
        .min_by_key(|load| load.offset)
        .map(|first| start.wrapping_add(first.offset).wrapping_sub(first.svma))
    else {
        return Ok(Err(ElfError::Malformed));
    };
    let mut image = vec![0; size];
    for load in &layout {
        let part = usize::try_from(load.offset).ok().zip(usize::try_from(load.file_size).ok());
        let part = part.and_then(|(offset, size)| image.get_mut(offset..)?.get_mut(..size));
        let Some(part) = part else {
            return Ok(Err(ElfError::Malformed));
        };
        fill(memory, bias.wrapping_add(load.svma), part)?;
    }
    forget_sections(&mut image, &layout);
    Ok(Ok(image))
}

/// A mapping that is a whole file, as the vDSO is.
pub(crate) fn of_mapping(
    memory: &mut dyn MemoryReader,
    start: u64,
    end: u64,
) -> Result<Result<Vec<u8>, ElfError>, MemoryError> {
    let mut image = Vec::new();
    append(memory, start, end.saturating_sub(start).min(MAX_HEADERS), &mut image)?;
    Ok(if image.is_empty() { Err(ElfError::Unreadable(0)) } else { Ok(image) })
}

/// Appends up to `most` bytes at `address`, up to the first that cannot be read.
fn append(
    memory: &mut dyn MemoryReader,
    address: u64,
    most: u64,
    into: &mut Vec<u8>,
) -> Result<(), MemoryError> {
    let mut page = [0; PAGE];
    let step = u64::try_from(PAGE).unwrap_or(u64::MAX);
    let mut offset = 0u64;
    while offset < most {
        match memory.read(address.wrapping_add(offset), &mut page) {
            Ok(()) => into.extend_from_slice(&page),
            Err(MemoryError::Unreadable { .. }) => break,
            Err(error) => return Err(error),
        }
        offset = offset.saturating_add(step);
    }
    Ok(())
}

/// Fills `into` with what can be read from `address` on.
fn fill(memory: &mut dyn MemoryReader, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
    let mut address = address;
    for chunk in into.chunks_mut(PAGE.saturating_mul(256)) {
        if let Err(error) = memory.read(address, chunk) {
            if !matches!(error, MemoryError::Unreadable { .. }) {
                return Err(error);
            }
            let mut at = address;
            for page in chunk.chunks_mut(PAGE) {
                match memory.read(at, page) {
                    Ok(()) => {}
                    Err(MemoryError::Unreadable { .. }) => page.fill(0),
                    Err(error) => return Err(error),
                }
                at = at.wrapping_add(u64::try_from(page.len()).unwrap_or(0));
            }
        }
        address = address.wrapping_add(u64::try_from(chunk.len()).unwrap_or(0));
    }
    Ok(())
}

/// The segments that headers describe, and the size of the file as far as it is loaded.
fn layout(headers: &[u8], most: u64) -> Option<(Vec<Load>, usize)> {
    let loads = match FileKind::parse(headers).ok()? {
        FileKind::Elf32 => loads::<elf::FileHeader32<Endianness>>(headers),
        FileKind::Elf64 => loads::<elf::FileHeader64<Endianness>>(headers),
        _ => None,
    }?;
    let end = loads.iter().map(|load| load.offset.saturating_add(load.file_size)).max()?;
    let size = usize::try_from(end).ok().filter(|_| end <= most)?;
    Some((loads, size))
}

fn loads<Elf: FileHeader<Endian = Endianness>>(headers: &[u8]) -> Option<Vec<Load>> {
    let header = Elf::parse(headers).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, headers).ok()?;
    let loads = segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD);
    let loads = loads.map(|segment| Load {
        svma: segment.p_vaddr(endian).into(),
        memory_size: segment.p_memsz(endian).into(),
        offset: segment.p_offset(endian).into(),
        file_size: segment.p_filesz(endian).into(),
        executable: segment.p_flags(endian).contains(elf::PF_X),
        writable: segment.p_flags(endian).contains(elf::PF_W),
    });
    Some(loads.collect())
}

/// Section headers that were not loaded would be read from zeroes, or from what lies behind the
/// file in its last page: the header is made to say that there are none.
fn forget_sections(image: &mut [u8], layout: &[Load]) {
    // e_ident[EI_CLASS], and where e_shoff, e_shnum and e_shstrndx are in either class.
    let is_64 = image.get(4) == Some(&elf::ELFCLASS64.0);
    let (shoff, shnum) = if is_64 { (40..48, 60..64) } else { (32..36, 48..52) };
    let loaded = section_headers(image).is_some_and(|(offset, size)| {
        layout.iter().any(|load| {
            let end = load.offset.saturating_add(load.file_size);
            load.offset <= offset && offset.saturating_add(size) <= end
        })
    });
    for field in [shoff, shnum].into_iter().filter(|_| !loaded) {
        if let Some(field) = image.get_mut(field) {
            field.fill(0);
        }
    }
}

/// Where the section headers are in the file, and how large.
fn section_headers(image: &[u8]) -> Option<(u64, u64)> {
    fn of<Elf: FileHeader<Endian = Endianness>>(image: &[u8]) -> Option<(u64, u64)> {
        let header = Elf::parse(image).ok()?;
        let endian = header.endian().ok()?;
        let size = u64::from(header.e_shentsize(endian)).checked_mul(header.e_shnum(endian).into())?;
        Some((header.e_shoff(endian).into(), size)).filter(|(offset, size)| *offset != 0 && *size != 0)
    }
    match FileKind::parse(image).ok()? {
        FileKind::Elf32 => of::<elf::FileHeader32<Endianness>>(image),
        FileKind::Elf64 => of::<elf::FileHeader64<Endianness>>(image),
        _ => None,
    }
}
