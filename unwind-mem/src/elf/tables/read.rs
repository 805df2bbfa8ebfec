//! Reading an ELF file.
//!
//! It may be hostile: sizes are limited, `object` and `gimli` check the rest.

use gimli::{BaseAddresses, EhFrameHdr, Pointer, RunTimeEndian, SectionBaseAddresses};
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable};
use object::{CompressedData, CompressionFormat, Endian, Endianness, FileKind, ReadRef};
use unwind_core::{ByteOrder, WordSize};

use super::{ElfError, ElfTables, Load, Mark, OwnedEhabi, OwnedSection, Start};

/// The most bytes of a section, or of anything else that is read in one piece. The largest
/// `.eh_frame` of large programs are below 100 MB.
const MAX_PIECE: u64 = 512 << 20;

/// The most bytes of notes that are compared with memory.
const MAX_NOTES: usize = 4096;

impl ElfTables {
    /// Reads them from the bytes of a file.
    pub(crate) fn read<'d, R: ReadRef<'d>>(data: R) -> Result<Self, ElfError> {
        let data = Limited(data);
        match FileKind::parse(data) {
            Ok(FileKind::Elf32) => Reader::<elf::FileHeader32<Endianness>, _>::new(data)?.tables(),
            Ok(FileKind::Elf64) => Reader::<elf::FileHeader64<Endianness>, _>::new(data)?.tables(),
            _ => Err(ElfError::NotElf),
        }
    }
}

/// Refuses to read pieces that no sound file has.
#[derive(Clone, Copy)]
struct Limited<R>(R);

impl<'d, R: ReadRef<'d>> ReadRef<'d> for Limited<R> {
    fn len(self) -> Result<u64, ()> {
        self.0.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'d [u8], ()> {
        if size > MAX_PIECE { Err(()) } else { self.0.read_bytes_at(offset, size) }
    }

    fn read_bytes_at_until(self, range: core::ops::Range<u64>, delimiter: u8) -> Result<&'d [u8], ()> {
        self.0.read_bytes_at_until(range, delimiter)
    }
}

/// An ELF file of one class being read.
struct Reader<'d, Elf: FileHeader<Endian = Endianness>, R: ReadRef<'d>> {
    data: R,
    endian: Endianness,
    header: &'d Elf,
    segments: &'d [Elf::ProgramHeader],
    /// Empty where there are none, or they are broken: they are not needed to run a program.
    sections: SectionTable<'d, Elf, R>,
}

impl<'d, Elf: FileHeader<Endian = Endianness>, R: ReadRef<'d>> Reader<'d, Elf, R> {
    fn new(data: R) -> Result<Self, ElfError> {
        let header = Elf::parse(data)?;
        let endian = header.endian()?;
        let segments = header.program_headers(endian, data)?;
        let sections = header.sections(endian, data).unwrap_or_default();
        Ok(Reader { data, endian, header, segments, sections })
    }

    fn tables(&self) -> Result<ElfTables, ElfError> {
        let eh_frame_hdr = self.section(b".eh_frame_hdr").or_else(|| self.segment(elf::PT_GNU_EH_FRAME));
        let eh_frame = self.section(b".eh_frame").or_else(|| self.eh_frame_behind(eh_frame_hdr.as_ref()?));
        let debug_frame = self.section(b".debug_frame").or_else(|| self.section(b".zdebug_frame"));
        let sframe = self.section(b".sframe").or_else(|| self.segment(elf::PT_GNU_SFRAME));
        Ok(ElfTables {
            machine: self.header.e_machine(self.endian).0,
            flags: self.header.e_flags(self.endian).0,
            word_size: if self.header.is_class_64() { WordSize::Eight } else { WordSize::Four },
            byte_order: if self.endian.is_big_endian() { ByteOrder::Big } else { ByteOrder::Little },
            loads: self.loads(),
            start: self.start(),
            marks: self.marks(),
            build_id: self.build_id(),
            eh_frame,
            eh_frame_hdr,
            debug_frame,
            sframe,
            ehabi: self.ehabi(),
            text_svma: self.address(b".text"),
            got_svma: self.address(b".got"),
        })
    }

    fn loads(&self) -> Vec<Load> {
        let loads = self.segments.iter().filter(|segment| segment.p_type(self.endian) == elf::PT_LOAD);
        loads
            .map(|segment| Load {
                svma: segment.p_vaddr(self.endian).into(),
                memory_size: segment.p_memsz(self.endian).into(),
                offset: segment.p_offset(self.endian).into(),
                file_size: segment.p_filesz(self.endian).into(),
                executable: segment.p_flags(self.endian).contains(elf::PF_X),
                writable: segment.p_flags(self.endian).contains(elf::PF_W),
            })
            .collect()
    }

    fn start(&self) -> Start {
        let address = |kind| {
            let segment = self.segments.iter().find(|segment| segment.p_type(self.endian) == kind)?;
            Some(segment.p_vaddr(self.endian).into())
        };
        let headers: u64 = self.header.e_phoff(self.endian).into();
        let loaded = self.loads().into_iter().find_map(|load| load.svma_of(headers));
        let interpreter =
            self.segments.iter().find_map(|segment| segment.interpreter(self.endian, self.data).ok()?);
        Start {
            entry: self.header.e_entry(self.endian).into(),
            headers: address(elf::PT_PHDR).or(loaded),
            header_count: u64::try_from(self.segments.len()).unwrap_or(u64::MAX),
            dynamic: address(elf::PT_DYNAMIC),
            interpreter: interpreter.map(<[u8]>::to_vec),
        }
    }

    fn marks(&self) -> Vec<Mark> {
        let mut marks = Vec::new();
        let mut mark = |offset: u64, size: u64| {
            if let Ok(bytes) = self.data.read_bytes_at(offset, size) {
                marks.push(Mark { offset, bytes: bytes.to_vec() });
            }
        };
        mark(0, self.header.e_ehsize(self.endian).into());
        let entry = u64::from(self.header.e_phentsize(self.endian));
        let count = u64::try_from(self.segments.len()).unwrap_or(0);
        mark(self.header.e_phoff(self.endian).into(), entry.saturating_mul(count));
        let mut room = MAX_NOTES;
        for segment in self.segments.iter().filter(|segment| segment.p_type(self.endian) == elf::PT_NOTE) {
            let (offset, size) = segment.file_range(self.endian);
            if let Some(left) = usize::try_from(size).ok().and_then(|size| room.checked_sub(size)) {
                room = left;
                mark(offset, size);
            }
        }
        marks
    }

    fn build_id(&self) -> Option<Vec<u8>> {
        for segment in self.segments {
            let Ok(Some(mut notes)) = segment.notes(self.endian, self.data) else { continue };
            while let Ok(Some(note)) = notes.next() {
                if note.name() == elf::ELF_NOTE_GNU && note.n_type(self.endian) == elf::NT_GNU_BUILD_ID {
                    return Some(note.desc().to_vec());
                }
            }
        }
        None
    }

    /// The contents of a section, decompressed; `None` where it is absent, empty or broken.
    fn section(&self, name: &[u8]) -> Option<OwnedSection> {
        let (_, header) = self.sections.section_by_name(self.endian, name)?;
        if header.sh_type(self.endian) == elf::SHT_NOBITS {
            return None;
        }
        let data = header.data(self.endian, self.data).ok()?;
        let data = match header.compression(self.endian, self.data).ok()? {
            Some((compression, offset, size)) => {
                use object::read::elf::CompressionHeader;
                let format = match compression.ch_type(self.endian) {
                    elf::ELFCOMPRESS_ZLIB => CompressionFormat::Zlib,
                    elf::ELFCOMPRESS_ZSTD => CompressionFormat::Zstandard,
                    _ => return None,
                };
                let data = self.data.read_bytes_at(offset, size).ok()?;
                decompress(format, data, compression.ch_size(self.endian).into())?
            }
            None if name.starts_with(b".z") => decompress_gnu(data)?,
            None => data.to_vec(),
        };
        (!data.is_empty()).then(|| OwnedSection { svma: header.sh_addr(self.endian).into(), data })
    }

    fn address(&self, name: &[u8]) -> Option<u64> {
        let (_, header) = self.sections.section_by_name(self.endian, name)?;
        Some(header.sh_addr(self.endian).into())
    }

    /// A section by the program header that shows it: for files without section headers.
    fn segment(&self, kind: elf::ProgramType) -> Option<OwnedSection> {
        let segment = self.segments.iter().find(|segment| segment.p_type(self.endian) == kind)?;
        let data = segment.data(self.endian, self.data).ok()?.to_vec();
        (!data.is_empty()).then(|| OwnedSection { svma: segment.p_vaddr(self.endian).into(), data })
    }

    /// `.ARM.exidx` and `.ARM.extab`; without section headers the latter is somewhere in the segment
    /// that holds the former.
    fn ehabi(&self) -> Option<OwnedEhabi> {
        if self.header.e_machine(self.endian) != elf::EM_ARM {
            return None;
        }
        let exidx = self.section(b".ARM.exidx").or_else(|| self.segment(elf::PT_ARM_EXIDX))?;
        let around = || {
            let loads = self.segments.iter().filter(|segment| segment.p_type(self.endian) == elf::PT_LOAD);
            let svma = |segment: &Elf::ProgramHeader| -> u64 { segment.p_vaddr(self.endian).into() };
            let holds = |segment: &&Elf::ProgramHeader| {
                let into = exidx.svma.checked_sub(svma(segment));
                into.is_some_and(|into| into < segment.p_filesz(self.endian).into())
            };
            let segment = loads.into_iter().find(holds)?;
            let data = segment.data(self.endian, self.data).ok()?.to_vec();
            Some(OwnedSection { svma: svma(segment), data })
        };
        let extab = self.section(b".ARM.extab").or_else(around);
        let code: Vec<Load> = self.loads().into_iter().filter(|load| load.executable).collect();
        let start = code.iter().map(|load| load.svma).min()?;
        let end = code.iter().map(|load| load.svma.saturating_add(load.memory_size)).max()?;
        let order = if self.endian.is_big_endian() { ByteOrder::Big } else { ByteOrder::Little };
        Some(OwnedEhabi { exidx, extab, text: start..end, order })
    }

    /// `.eh_frame` where its header says it is, to its terminator or to the end of the segment.
    fn eh_frame_behind(&self, hdr: &OwnedSection) -> Option<OwnedSection> {
        let endian = if self.endian.is_big_endian() { RunTimeEndian::Big } else { RunTimeEndian::Little };
        let bases = BaseAddresses {
            eh_frame_hdr: SectionBaseAddresses { section: Some(hdr.svma), text: None, data: Some(hdr.svma) },
            eh_frame: SectionBaseAddresses::default(),
        };
        let word = if self.header.is_class_64() { 8 } else { 4 };
        let hdr = EhFrameHdr::new(&hdr.data, endian).parse(&bases, word).ok()?;
        let Pointer::Direct(svma) = hdr.eh_frame_ptr() else {
            return None;
        };
        let loads = self.loads();
        let (load, into) = loads.iter().find_map(|load| {
            let into = svma.checked_sub(load.svma)?;
            (into < load.file_size).then_some((load, into))
        })?;
        let size = load.file_size.checked_sub(into)?;
        let data = self.data.read_bytes_at(load.offset.checked_add(into)?, size).ok()?;
        let data = up_to_terminator(data, self.endian);
        (!data.is_empty()).then(|| OwnedSection { svma, data: data.to_vec() })
    }
}

/// `.eh_frame` up to and with its terminator, an entry of length 0 (Linux Standard Base, 10.6).
pub(super) fn up_to_terminator(data: &[u8], endian: Endianness) -> &[u8] {
    let mut rest = data;
    // Every entry is at least four bytes long, so this ends.
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = endian.read_u32(*length);
        let (length, after) = match (length, after.split_first_chunk::<8>()) {
            (0, _) => {
                let whole = data.len().saturating_sub(after.len());
                return data.get(..whole).unwrap_or(data);
            }
            (u32::MAX, Some((length, after))) => (endian.read_u64(*length), after),
            (length, _) => (u64::from(length), after),
        };
        let next = usize::try_from(length).ok().and_then(|length| after.get(length..));
        let Some(next) = next else { break };
        rest = next;
    }
    data
}

fn decompress(format: CompressionFormat, data: &[u8], uncompressed_size: u64) -> Option<Vec<u8>> {
    if uncompressed_size > MAX_PIECE {
        return None;
    }
    Some(CompressedData { format, data, uncompressed_size }.decompress().ok()?.into_owned())
}

/// The old GNU way: `ZLIB`, the size as eight bytes in big-endian order, then the stream.
fn decompress_gnu(data: &[u8]) -> Option<Vec<u8>> {
    let (size, stream) = data.strip_prefix(b"ZLIB")?.split_first_chunk::<8>()?;
    decompress(CompressionFormat::Zlib, stream, u64::from_be_bytes(*size))
}
