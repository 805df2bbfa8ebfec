//! The notes of a core file: registers of threads, the auxiliary vector, the list of files.
//!
//! Layouts: Linux `include/uapi/linux/elfcore.h` and `include/linux/elfcore-compat.h` (`struct
//! elf_prstatus`, `struct elf_prpsinfo`), `fs/binfmt_elf.c` (`NT_FILE`, at `fill_files_note`),
//! `arch/arm64/include/uapi/asm/ptrace.h` (`struct user_pac_mask`).

use object::read::elf::{FileHeader, NoteIterator};
use object::{Endianness, elf};
use unwind_arch::{AnyArch, AnyRegisters};
use unwind_core::{ByteOrder, WordSize};

use super::CoreProblem;
use super::contents::Contents;
use super::segments::Headers;

/// The most bytes of notes that are read. A thread has some kilobytes of registers.
const MAX_NOTES: u64 = 512 << 20;

/// `NT_ARM_PAC_MASK` of `include/uapi/linux/elf.h`.
const NT_ARM_PAC_MASK: u32 = 0x406;

/// A thread as it was when the core was written.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CoreThread {
    /// The thread id.
    pub tid: u32,
    /// The signal that it was about to take, or took: `pr_cursig`. 0 for none.
    pub signal: i32,
    /// The registers.
    pub registers: AnyRegisters,
    /// The architecture, with what only the thread says: the pointer authentication mask.
    pub arch: AnyArch,
}

/// What the notes say.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// The one that crashed first: writers put it there.
    pub(super) threads: Vec<CoreThread>,
    pub(super) auxv: Vec<(u64, u64)>,
    /// `None` where there is no such note.
    pub(super) files: Option<Vec<MappedFile>>,
    pub(super) process: Process,
}

/// Of `NT_PRPSINFO`.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) pid: Option<u32>,
    /// The first 15 bytes of the program's name.
    pub(super) name: Vec<u8>,
    /// The first 79 bytes of the command line.
    pub(super) command: Vec<u8>,
}

/// A line of `NT_FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MappedFile {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Where in the file it begins, in bytes.
    pub(super) offset: u64,
    pub(super) name: Vec<u8>,
}

impl Notes {
    pub(super) fn read(
        arch: AnyArch,
        headers: &Headers,
        contents: &Contents,
        problems: &mut Vec<CoreProblem>,
    ) -> Self {
        let mut notes = Notes::default();
        let layout = Layout { word: headers.word, order: headers.order };
        let mut room = MAX_NOTES;
        for (offset, size) in &headers.notes {
            let bytes = contents.read_prefix(*offset, *size, room);
            let there = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            room = room.saturating_sub(there);
            let whole = match headers.word {
                WordSize::Four => {
                    notes.segment::<elf::FileHeader32<Endianness>>(arch, layout, &bytes, problems)
                }
                WordSize::Eight => {
                    notes.segment::<elf::FileHeader64<Endianness>>(arch, layout, &bytes, problems)
                }
            };
            if !whole || there < *size {
                problems.push(CoreProblem::Notes { offset: *offset });
            }
        }
        if notes.threads.is_empty() {
            problems.push(CoreProblem::NoThreads);
        }
        notes
    }

    /// The value of an entry of the auxiliary vector.
    pub(super) fn aux(&self, kind: u64) -> Option<u64> {
        self.auxv.iter().find(|(found, _)| *found == kind).map(|(_, value)| *value)
    }

    /// The notes of one segment. Whether it could be read to its end.
    fn segment<Elf: FileHeader<Endian = Endianness>>(
        &mut self,
        arch: AnyArch,
        layout: Layout,
        bytes: &[u8],
        problems: &mut Vec<CoreProblem>,
    ) -> bool {
        let endian = match layout.order {
            ByteOrder::Little => Endianness::Little,
            ByteOrder::Big => Endianness::Big,
        };
        // Notes of cores are aligned to 4 bytes whatever the class: what 0 stands for.
        let Ok(mut notes) = NoteIterator::<Elf>::new(endian, Elf::Word::default(), bytes) else {
            return false;
        };
        loop {
            let note = match notes.next() {
                Ok(Some(note)) => note,
                Ok(None) => return true,
                Err(_) => return false,
            };
            let description = note.desc();
            match (note.name(), note.n_type(endian).0) {
                (b"CORE", kind) if kind == elf::NT_PRSTATUS.0 => match thread(arch, layout, description) {
                    Ok(thread) => self.threads.push(thread),
                    Err(tid) => problems.push(CoreProblem::Registers { tid }),
                },
                (b"CORE", kind) if kind == elf::NT_PRPSINFO.0 => {
                    self.process = process(layout, description).unwrap_or_default();
                }
                (b"CORE", kind) if kind == elf::NT_AUXV.0 => self.auxv = auxv(layout, description),
                (b"CORE", kind) if kind == elf::NT_FILE.0 => {
                    let mut files = Vec::new();
                    if file_list(layout, description, &mut files).is_none() {
                        problems.push(CoreProblem::FileList);
                    }
                    self.files = Some(files);
                }
                // Of the thread whose registers came last, as the next. One that is cut off is not missed but
                // where functions keep general registers in these.
                (b"CORE", kind) if kind == elf::NT_FPREGSET.0 => {
                    if let Some(thread) = self.threads.last_mut() {
                        let with = thread.registers.with_fp_regs(thread.arch, description);
                        thread.registers = with.unwrap_or(thread.registers);
                    }
                }
                (b"LINUX", NT_ARM_PAC_MASK) => {
                    if let Some(thread) = self.threads.last_mut()
                        && let AnyArch::Aarch64(aarch64) = thread.arch
                        && let Some(mask) = layout.u64(description, 8)
                    {
                        thread.arch = AnyArch::Aarch64(aarch64.with_pac_mask(mask));
                    }
                }
                _ => {}
            }
        }
    }
}

/// How numbers are stored.
#[derive(Clone, Copy, Debug)]
struct Layout {
    word: WordSize,
    order: ByteOrder,
}

impl Layout {
    fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
        bytes.get(offset..)?.first_chunk::<N>().copied()
    }

    fn u16(self, bytes: &[u8], offset: usize) -> Option<u16> {
        let bytes = Self::array(bytes, offset)?;
        Some(match self.order {
            ByteOrder::Little => u16::from_le_bytes(bytes),
            ByteOrder::Big => u16::from_be_bytes(bytes),
        })
    }

    fn u32(self, bytes: &[u8], offset: usize) -> Option<u32> {
        let bytes = Self::array(bytes, offset)?;
        Some(match self.order {
            ByteOrder::Little => u32::from_le_bytes(bytes),
            ByteOrder::Big => u32::from_be_bytes(bytes),
        })
    }

    fn u64(self, bytes: &[u8], offset: usize) -> Option<u64> {
        let bytes = Self::array(bytes, offset)?;
        Some(match self.order {
            ByteOrder::Little => u64::from_le_bytes(bytes),
            ByteOrder::Big => u64::from_be_bytes(bytes),
        })
    }

    /// The word at this index.
    fn word(self, bytes: &[u8], index: usize) -> Option<u64> {
        let offset = index.checked_mul(usize::from(self.word.bytes()))?;
        match self.word {
            WordSize::Four => self.u32(bytes, offset).map(u64::from),
            WordSize::Eight => self.u64(bytes, offset),
        }
    }
}

/// `struct elf_prstatus`: `pr_cursig` behind the three numbers of `pr_info`; `pr_pid` behind two
/// words of signal sets, which are aligned to 4 or 8 bytes. `Err` has the thread id.
fn thread(arch: AnyArch, layout: Layout, bytes: &[u8]) -> Result<CoreThread, u32> {
    let tid = match layout.word {
        WordSize::Four => layout.u32(bytes, 24),
        WordSize::Eight => layout.u32(bytes, 32),
    };
    let tid = tid.unwrap_or(0);
    let registers = AnyRegisters::from_prstatus(arch, bytes).map_err(|_| tid)?;
    let signal = layout.u16(bytes, 12).unwrap_or(0);
    Ok(CoreThread { tid, signal: signal.into(), registers, arch })
}

/// `struct elf_prpsinfo`: what comes first differs between machines (the width of user ids); its
/// end is four process ids, `pr_fname` of 16 bytes, `pr_psargs` of 80.
fn process(layout: Layout, bytes: &[u8]) -> Option<Process> {
    let name = bytes.len().checked_sub(96)?;
    let text = |from: usize, length: usize| {
        let bytes = bytes.get(from..)?.get(..length)?;
        Some(bytes.split(|byte| *byte == 0).next()?.to_vec())
    };
    // The kernel puts a space behind every argument.
    let mut command = text(name.checked_add(16)?, 80)?;
    while command.last() == Some(&b' ') {
        command.pop();
    }
    Some(Process {
        pid: name.checked_sub(16).and_then(|pid| layout.u32(bytes, pid)),
        name: text(name, 16)?,
        command,
    })
}

fn auxv(layout: Layout, bytes: &[u8]) -> Vec<(u64, u64)> {
    let mut entries = Vec::new();
    for index in (0..).step_by(2) {
        let value = layout.word(bytes, index).zip(layout.word(bytes, index.saturating_add(1)));
        match value {
            // AT_NULL.
            Some((0, _)) | None => break,
            Some(entry) => entries.push(entry),
        }
    }
    entries
}

/// A count, the unit of offsets, three words for each mapping, then the names. `None` where it
/// ends too early or makes no sense; `files` then has those before.
fn file_list(layout: Layout, bytes: &[u8], files: &mut Vec<MappedFile>) -> Option<()> {
    let count = usize::try_from(layout.word(bytes, 0)?).ok()?;
    let unit = layout.word(bytes, 1)?;
    let names = count.checked_mul(3)?.checked_add(2)?.checked_mul(usize::from(layout.word.bytes()))?;
    let mut names = bytes.get(names..)?.split(|byte| *byte == 0);
    for index in 0..count {
        let at = index.checked_mul(3)?.checked_add(2)?;
        let start = layout.word(bytes, at)?;
        let end = layout.word(bytes, at.checked_add(1)?)?;
        let offset = layout.word(bytes, at.checked_add(2)?)?.checked_mul(unit)?;
        let name = names.next()?.to_vec();
        if start >= end || name.is_empty() {
            return None;
        }
        files.push(MappedFile { start, end, offset, name });
    }
    Some(())
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
    use super::*;

    #[test]
    fn file_lists_of_both_classes_and_byte_orders() {
        for word in [WordSize::Four, WordSize::Eight] {
            for order in [ByteOrder::Little, ByteOrder::Big] {
                let layout = Layout { word, order };
                let mut bytes = Vec::new();
                for value in [2u64, 4096, 0x1000, 0x3000, 0, 0x3000, 0x4000, 2] {
                    match (word, order) {
                        (WordSize::Eight, ByteOrder::Little) => bytes.extend(value.to_le_bytes()),
                        (WordSize::Eight, ByteOrder::Big) => bytes.extend(value.to_be_bytes()),
                        (WordSize::Four, ByteOrder::Little) => bytes.extend(&value.to_le_bytes()[..4]),
                        (WordSize::Four, ByteOrder::Big) => bytes.extend(&value.to_be_bytes()[4..]),
                    }
                }
                bytes.extend(b"/bin/a\0/lib/b (deleted)\0");
                let mut files = Vec::new();
                assert_eq!(file_list(layout, &bytes, &mut files), Some(()));
                let want =
                    |start, end, offset, name: &[u8]| MappedFile { start, end, offset, name: name.into() };
                let want =
                    [want(0x1000, 0x3000, 0, b"/bin/a"), want(0x3000, 0x4000, 0x2000, b"/lib/b (deleted)")];
                assert_eq!(files, want);
                for length in 0..bytes.len() {
                    let mut files = Vec::new();
                    // Without its last zero a name is still one.
                    let whole = file_list(layout, &bytes[..length], &mut files).is_some();
                    assert!(!whole || files.len() == 2, "{length}");
                }
            }
        }
    }

    #[test]
    fn a_file_list_that_claims_too_much() {
        let layout = Layout { word: WordSize::Eight, order: ByteOrder::Little };
        for count in [u64::MAX, u64::MAX / 3, 1 << 40, 3] {
            let bytes = [count.to_le_bytes(), 1u64.to_le_bytes()].concat();
            let mut files = Vec::new();
            assert_eq!(file_list(layout, &bytes, &mut files), None);
            assert_eq!(files, []);
        }
    }

    #[test]
    fn the_end_of_prpsinfo_is_the_same_everywhere() {
        for (word, start) in [(WordSize::Eight, 24), (WordSize::Four, 12), (WordSize::Four, 16)] {
            let mut bytes = vec![0xff; start];
            bytes.extend(77u32.to_be_bytes());
            bytes.extend([0; 12]);
            bytes.extend(b"name\0\0\0\0\0\0\0\0\0\0\0\0");
            bytes.extend(b"name --option ");
            bytes.resize(start + 112, 0);
            let process = process(Layout { word, order: ByteOrder::Big }, &bytes).unwrap();
            assert_eq!(process.pid, Some(77));
            assert_eq!(
                (process.name.as_slice(), process.command.as_slice()),
                (&b"name"[..], &b"name --option"[..])
            );
        }
    }
}
