//! What everybody walks: copied stacks, and the modules that were there.

use std::ops::Range;
use std::path::PathBuf;

use unwind_arch::host::{HostArch, Registers};
use unwind_core::dwarf::{DwarfSections, DwarfSource, Section};
use unwind_core::{Arch, RegisterFile, UserRegisters};

/// Samples, and what belongs to them.
#[derive(Default)]
pub(crate) struct Workload {
    pub(crate) images: Vec<Image>,
    pub(crate) processes: Vec<Process>,
    pub(crate) samples: Vec<Sample>,
}

/// The unwind tables of a file. A file that several processes have is one of these.
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    pub(crate) eh_frame: Piece,
    pub(crate) eh_frame_hdr: Piece,
    pub(crate) text_svma: Option<u64>,
    pub(crate) got_svma: Option<u64>,
    /// From the first to beyond the last executable address (svma) that a process has mapped.
    pub(crate) text: Range<u64>,
}

/// A section and the address that its file states.
#[derive(PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) svma: u64,
    pub(crate) data: Vec<u8>,
}

/// A process with one set of modules. One that loads another is two of these.
pub(crate) struct Process {
    pub(crate) program: String,
    /// Sorted.
    pub(crate) mappings: Vec<Mapping>,
}

/// Executable addresses (avma) that an image covers.
#[derive(Clone, Copy)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) bias: u64,
    pub(crate) image: usize,
}

/// A thread's registers and the bytes of its stack.
pub(crate) struct Sample {
    /// In [`Workload::processes`].
    pub(crate) process: usize,
    pub(crate) registers: Registers,
    /// Where the copy begins (avma): at the stack pointer, or below by what may lie there.
    pub(crate) address: u64,
    /// Lives as long as the program.
    pub(crate) stack: &'static [u8],
}

/// The most frames of a stack: room for all of them is given to everybody.
pub(crate) const MOST_FRAMES: usize = 1 << 12;

impl Workload {
    /// Puts the stacks one behind the other, as they are in a profiler's buffer, each with the same place in
    /// its cache lines as before.
    pub(crate) fn arrange(&mut self) {
        let line = |address: u64| usize::try_from(address % 64).expect("less than 64");
        let mut bytes = Vec::new();
        let mut starts = Vec::new();
        for sample in &self.samples {
            bytes.resize(bytes.len().next_multiple_of(64) + line(sample.address), 0);
            starts.push(bytes.len());
            bytes.extend_from_slice(sample.stack);
        }
        let bytes: &'static [u8] = bytes.leak();
        for (sample, start) in self.samples.iter_mut().zip(starts) {
            sample.stack = &bytes[start..start + sample.stack.len()];
        }
    }
}

impl Image {
    pub(crate) fn dwarf(&self) -> DwarfSource<'_> {
        DwarfSource::new(DwarfSections {
            eh_frame: Some(self.eh_frame.borrow()),
            eh_frame_hdr: Some(self.eh_frame_hdr.borrow()),
            text_svma: self.text_svma,
            got_svma: self.got_svma,
            ..DwarfSections::default()
        })
    }

    /// The bytes of its tables.
    pub(crate) fn size(&self) -> usize {
        self.eh_frame.data.len() + self.eh_frame_hdr.data.len()
    }

    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl Piece {
    pub(crate) fn new(section: Section<'_>) -> Self {
        Piece { svma: section.svma, data: section.data.to_vec() }
    }

    pub(crate) fn borrow(&self) -> Section<'_> {
        Section { data: &self.data, svma: self.svma }
    }
}

impl Sample {
    pub(crate) fn ip(&self) -> u64 {
        self.registers.ip().expect("a program counter")
    }

    pub(crate) fn sp(&self) -> u64 {
        self.registers.get(HostArch::host().sp()).expect("a stack pointer")
    }

    pub(crate) fn fp(&self) -> u64 {
        self.registers.get(HostArch::host().fp()).unwrap_or(0)
    }

    /// The link register.
    #[cfg(target_arch = "aarch64")]
    pub(crate) fn link(&self) -> u64 {
        self.registers.get(HostArch::host().ra()).unwrap_or(0)
    }

    /// The word at an address: what everybody but the library reads memory with.
    #[inline(always)]
    pub(crate) fn word(&self, address: u64) -> Option<u64> {
        let offset = usize::try_from(address.checked_sub(self.address)?).ok()?;
        Some(u64::from_le_bytes(*self.stack.get(offset..)?.first_chunk()?))
    }
}
