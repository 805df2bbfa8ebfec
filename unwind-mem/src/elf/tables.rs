//! What unwinding needs of an ELF file, copied out of it.

mod read;

use core::fmt;
use core::ops::Range;

use object::elf;
use unwind_arch::AnyArch;
use unwind_core::dwarf::Section;
use unwind_core::ehabi::{self, EhabiSections};
use unwind_core::sframe::{SFrameSections, SFrameSource};
use unwind_core::{Arch, Broken, ByteOrder, SourceError, WordSize};

/// The tables of one ELF file, and how it is laid out.
#[derive(Clone, Debug)]
pub(crate) struct ElfTables {
    pub(crate) machine: u16,
    pub(crate) flags: u32,
    pub(crate) word_size: WordSize,
    pub(crate) byte_order: ByteOrder,
    pub(crate) loads: Vec<Load>,
    #[cfg_attr(not(feature = "core-dump"), allow(dead_code, reason = "only core dumps need it"))]
    pub(crate) start: Start,
    /// What stays the same in memory and tells one build from another: the ELF header, the
    /// program headers, the notes.
    pub(crate) marks: Vec<Mark>,
    pub(crate) build_id: Option<Vec<u8>>,
    pub(crate) eh_frame: Option<OwnedSection>,
    pub(crate) eh_frame_hdr: Option<OwnedSection>,
    pub(crate) debug_frame: Option<OwnedSection>,
    pub(crate) sframe: Option<OwnedSection>,
    pub(crate) ehabi: Option<OwnedEhabi>,
    pub(crate) text_svma: Option<u64>,
    pub(crate) got_svma: Option<u64>,
}

/// A `PT_LOAD` segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) svma: u64,
    pub(crate) memory_size: u64,
    pub(crate) offset: u64,
    pub(crate) file_size: u64,
    pub(crate) executable: bool,
    pub(crate) writable: bool,
}

impl Load {
    /// Where a byte of the file is loaded; `None` where this segment does not show it.
    pub(crate) fn svma_of(&self, offset: u64) -> Option<u64> {
        let into = offset.checked_sub(self.offset)?;
        (into < self.file_size).then(|| self.svma.wrapping_add(into))
    }
}

/// What the kernel and the dynamic loader use of a file to start a program, as svma.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) entry: u64,
    /// The program headers, where they are loaded; and how many.
    pub(crate) headers: Option<u64>,
    pub(crate) header_count: u64,
    pub(crate) dynamic: Option<u64>,
    /// The path of the dynamic loader.
    pub(crate) interpreter: Option<Vec<u8>>,
}

/// Bytes of the file by which it can be recognised in memory.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

/// A section's bytes and the address its file states.
#[derive(Clone, Debug)]
pub(crate) struct OwnedSection {
    pub(crate) svma: u64,
    pub(crate) data: Vec<u8>,
}

impl OwnedSection {
    pub(crate) fn borrow(&self) -> Section<'_> {
        Section { data: &self.data, svma: self.svma }
    }

    pub(crate) fn sframe(&self) -> SFrameSource<'_> {
        SFrameSource::new(&self.data, self.svma)
    }
}

/// ARM's exception handling tables.
#[derive(Clone, Debug)]
pub(crate) struct OwnedEhabi {
    pub(crate) exidx: OwnedSection,
    pub(crate) extab: Option<OwnedSection>,
    /// From the first to beyond the last executable address (svma).
    pub(crate) text: Range<u64>,
    pub(crate) order: ByteOrder,
}

impl OwnedEhabi {
    pub(crate) fn borrow(&self) -> EhabiSections<'_> {
        fn borrow(section: &OwnedSection) -> ehabi::Section<'_> {
            ehabi::Section { data: &section.data, svma: section.svma }
        }
        let extab = self.extab.as_ref().map(borrow);
        EhabiSections::new(self.order, borrow(&self.exidx), extab, self.text.start, self.text.end)
    }
}

/// Why a file gives no tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ElfError {
    /// It could not be opened or read; the system's error number, or 0.
    Unreadable(i32),
    /// It is no ELF file.
    NotElf,
    /// Its headers make no sense.
    Malformed,
    /// It has no segment that fits where it is mapped.
    DoesNotFit,
    /// It is not what was mapped: its headers or its build id differ from those in memory.
    OtherBuild,
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ElfError::Unreadable(0) => f.write_str("cannot be read"),
            ElfError::Unreadable(errno) => {
                write!(f, "cannot be read: {}", std::io::Error::from_raw_os_error(*errno))
            }
            ElfError::NotElf => f.write_str("not an ELF file"),
            ElfError::Malformed => f.write_str("malformed ELF file"),
            ElfError::DoesNotFit => f.write_str("not the ELF file that is mapped"),
            ElfError::OtherBuild => f.write_str("another build of the ELF file than the one that is mapped"),
        }
    }
}

impl core::error::Error for ElfError {}

impl From<object::read::Error> for ElfError {
    fn from(_: object::read::Error) -> Self {
        ElfError::Malformed
    }
}

/// The architecture that an ELF header is for, if it is supported.
pub(crate) fn arch(machine: u16, word_size: WordSize, order: ByteOrder, flags: u32) -> Option<AnyArch> {
    let class = match word_size {
        WordSize::Four => elf::ELFCLASS32,
        WordSize::Eight => elf::ELFCLASS64,
    };
    let data = match order {
        ByteOrder::Little => elf::ELFDATA2LSB,
        ByteOrder::Big => elf::ELFDATA2MSB,
    };
    AnyArch::from_elf_flags(machine, class.0, data.0, flags)
}

impl ElfTables {
    /// The load bias of a mapping of `length` bytes at `start` (avma) that shows the file from
    /// `offset` on; `None` where no segment does.
    pub(crate) fn bias(&self, start: u64, length: u64, offset: u64, executable: bool) -> Option<u64> {
        let end = offset.saturating_add(length);
        let shown = |load: &&Load| load.offset < end && load.offset.saturating_add(load.file_size) > offset;
        // At the seam of two segments one page of the file may be mapped for both.
        let load = self.loads.iter().filter(|load| load.executable == executable).find(shown);
        let load = load.or_else(|| self.loads.iter().find(shown))?;
        Some(start.wrapping_sub(offset).wrapping_add(load.offset).wrapping_sub(load.svma))
    }

    /// The architecture that the file is for, if it is supported.
    pub(crate) fn arch(&self) -> Option<AnyArch> {
        arch(self.machine, self.word_size, self.byte_order, self.flags)
    }

    /// Whether `.sframe` can be used on `arch`: every section in it has a header that makes sense
    /// and names the ABI of `arch`. What the entries say is checked as they are looked up.
    pub(crate) fn check_sframe<A: Arch>(&self, arch: &A) -> Result<(), SourceError> {
        let Some(section) = &self.sframe else { return Ok(()) };
        for section in SFrameSections::new(&section.data, section.svma) {
            if !section?.header().abi.is_for(arch) {
                return Err(SourceError { broken: Broken::UnknownAbi, offset: 4 });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
