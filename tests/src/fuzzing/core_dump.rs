//! The target `core`: any bytes as a core file, and files made of segments and notes of any kind.

use std::path::PathBuf;

use arbitrary::{Arbitrary, Unstructured};
use unwind_core::{ByteOrder, MemoryReader, ModuleMap, Options, Unwinder};
use unwind_mem::core_dump::{CoreDump, FileSearch};
use unwind_mem::elf::IndexRoom;

/// What the fuzzer's bytes become.
#[derive(Clone, Debug, Arbitrary)]
pub enum CoreInput {
    /// Any bytes behind the beginning of a core's header.
    Bytes(u8, Vec<u8>),
    /// Segments and notes, and bytes that are changed: where, and to what.
    Made(u8, Vec<Segment>, Vec<Note>, Vec<(u16, u8)>),
}

/// A part of memory.
#[derive(Clone, Debug, Arbitrary)]
pub struct Segment {
    /// Its address: a page, in one of four places.
    page: u16,
    /// `p_flags`.
    flags: u8,
    /// Bytes of it that the file does not have.
    missing: u16,
    /// Those that it has.
    data: Contents,
}

/// What memory holds.
#[derive(Clone, Debug, Arbitrary)]
pub enum Contents {
    /// Bytes.
    Bytes(Vec<u8>),
    /// Words that are small numbers, or point to pages.
    Words(Vec<u16>),
    /// The header of an ELF file, and what follows.
    Elf(Vec<u8>),
}

/// What a core tells about its process.
#[derive(Clone, Debug, Arbitrary)]
pub enum Note {
    /// A thread: so many bytes of registers, the words of which are these.
    Thread(Vec<u16>),
    /// `NT_FILE`: where files were mapped, by the numbers of segments, and their names.
    Files(Vec<(u8, u8, u8)>, Vec<u8>),
    /// The auxiliary vector.
    Auxiliary(Vec<(u8, u16)>),
    /// Any other.
    Other(u16, bool, Vec<u8>),
}

/// `e_machine`, class and order of what is supported.
const MACHINES: [(u16, u8, u8); 14] = [
    (62, 2, 1),
    (183, 2, 1),
    (183, 2, 2),
    (3, 1, 1),
    (40, 1, 1),
    (243, 2, 1),
    (22, 2, 2),
    (21, 2, 1),
    (21, 2, 2),
    (8, 2, 1),
    (8, 1, 2),
    (258, 2, 1),
    (62, 1, 1),
    (2, 1, 2),
];

/// Runs the target on the fuzzer's bytes.
///
/// # Panics
/// Where the library does something that it must not.
pub fn core(data: &[u8]) {
    match CoreInput::arbitrary(&mut Unstructured::new(data)) {
        Ok(CoreInput::Bytes(machine, bytes)) => {
            let mut writer = Writer::new(machine);
            writer.begin(0);
            writer.bytes.truncate(20);
            writer.bytes.extend(bytes);
            probe(writer.bytes);
        }
        Ok(CoreInput::Made(machine, segments, notes, damage)) => {
            let mut writer = Writer::new(machine);
            let mut bytes = writer.core(&segments, &notes);
            for (at, value) in damage {
                let at = usize::from(at) % bytes.len();
                bytes[at] = value;
            }
            probe(bytes);
        }
        Err(_) => {}
    }
}

/// Everything that can be asked of a core.
fn probe(bytes: Vec<u8>) {
    const MOST_FRAMES: u32 = 100;
    // No file of this machine is opened.
    let search = FileSearch { executable: None, sysroot: Some(PathBuf::from("/nonexistent")) };
    let core = match CoreDump::from_bytes(bytes, &search) {
        Ok(core) => core,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let mut length = core.name().len() + core.command().len() + core.missing_files().len();
    length += core.problems().iter().map(|problem| problem.to_string().len()).sum::<usize>();
    length += usize::from(core.signal().is_some()) + usize::from(core.pid().is_some());
    std::hint::black_box(length);
    let modules = core.modules();
    for module in modules.modules() {
        std::hint::black_box(module.build_id());
    }
    let mut room = IndexRoom::default();
    let sources = modules.sources(&mut room);
    let mut read = [0; 64];
    for address in sources.iter().flat_map(|module| [module.start, module.end.wrapping_sub(64)]) {
        let _ = core.memory().read(address, &mut read);
    }
    for thread in core.threads().iter().take(4) {
        let map = ModuleMap::new(&thread.arch, &sources).expect("modules are sorted and do not overlap");
        let map = if core.lists_all_code() { map.complete() } else { map };
        let mut options = Options::default();
        options.max_frames = MOST_FRAMES;
        let unwinder = Unwinder::with_options(thread.arch, map, options);
        if let Ok(mut frames) = unwinder.frames_tracking::<72, _>(&thread.registers, core.memory()) {
            let found = frames.by_ref().count();
            assert!(found <= MOST_FRAMES as usize, "{found} frames");
            assert!(frames.end().is_some());
        }
    }
}

/// Writes ELF files of either size and order.
struct Writer {
    machine: u16,
    is_64: bool,
    order: ByteOrder,
    bytes: Vec<u8>,
}

impl Writer {
    fn new(machine: u8) -> Self {
        let (machine, class, data) = MACHINES[usize::from(machine) % MACHINES.len()];
        let order = if data == 1 { ByteOrder::Little } else { ByteOrder::Big };
        Writer { machine, is_64: class == 2, order, bytes: Vec::new() }
    }

    fn number(&mut self, value: u64, size: usize) {
        let little = value.to_le_bytes();
        match self.order {
            ByteOrder::Little => self.bytes.extend(&little[..size]),
            ByteOrder::Big => self.bytes.extend(little[..size].iter().rev()),
        }
    }

    fn word_size(&self) -> usize {
        if self.is_64 { 8 } else { 4 }
    }

    fn word(&mut self, value: u64) {
        self.number(value, self.word_size());
    }

    /// The ELF header of a core with so many program headers right behind it.
    fn begin(&mut self, headers: u64) {
        let (class, order) = (1 + u8::from(self.is_64), 1 + u8::from(self.order == ByteOrder::Big));
        self.bytes.extend([0x7f, b'E', b'L', b'F', class, order, 1, 0]);
        self.bytes.extend([0; 8]);
        let (header, entry) = if self.is_64 { (64, 56) } else { (52, 32) };
        self.number(4, 2);
        self.number(self.machine.into(), 2);
        self.number(1, 4);
        self.word(0);
        self.word(header);
        self.word(0);
        self.number(0, 4);
        for field in [header, entry, headers, 0, 0, 0] {
            self.number(field, 2);
        }
    }

    fn program_header(&mut self, kind: u64, flags: u64, place: [u64; 4]) {
        let [offset, address, in_file, in_memory] = place;
        self.number(kind, 4);
        if self.is_64 {
            self.number(flags, 4);
        }
        for field in [offset, address, 0, in_file, in_memory] {
            self.word(field);
        }
        if !self.is_64 {
            self.number(flags, 4);
        }
        self.word(1);
    }

    fn core(&mut self, segments: &[Segment], notes: &[Note]) -> Vec<u8> {
        let segments = &segments[..segments.len().min(16)];
        let parts: Vec<_> =
            segments.iter().map(|segment| self.apart(|part| part.contents(&segment.data))).collect();
        let notes = self.apart(|part| notes.iter().take(16).for_each(|note| part.note(segments, note)));
        self.begin(1 + segments.len() as u64);
        let headers = self.bytes.len() + (1 + segments.len()) * if self.is_64 { 56 } else { 32 };
        let mut offset = headers as u64;
        self.program_header(4, 0, [offset, 0, notes.len() as u64, 0]);
        offset += notes.len() as u64;
        for (segment, part) in segments.iter().zip(&parts) {
            let length = part.len() as u64;
            let in_memory = length + u64::from(segment.missing);
            self.program_header(
                1,
                u64::from(segment.flags % 8),
                [offset, self.address(segment), length, in_memory],
            );
            offset += length;
        }
        self.bytes.extend(notes);
        self.bytes.extend(parts.into_iter().flatten());
        std::mem::take(&mut self.bytes)
    }

    /// What `write` writes, by itself.
    fn apart(&mut self, write: impl FnOnce(&mut Self)) -> Vec<u8> {
        let whole = std::mem::take(&mut self.bytes);
        write(self);
        std::mem::replace(&mut self.bytes, whole)
    }

    fn address(&self, segment: &Segment) -> u64 {
        let page = u64::from(segment.page & 0x3fff) << 12;
        match (segment.page >> 14, self.is_64) {
            (0, _) => page,
            (1, _) => page + 0x4000_0000,
            (_, false) => page + 0xf000_0000,
            (2, true) => page + 0x7fff_0000_0000,
            (_, true) => page.wrapping_sub(1 << 26),
        }
    }

    fn contents(&mut self, contents: &Contents) {
        match contents {
            Contents::Bytes(bytes) => self.bytes.extend(bytes),
            Contents::Words(words) => words.iter().for_each(|word| self.value(*word)),
            Contents::Elf(bytes) => {
                self.begin(2);
                self.bytes.extend(bytes);
            }
        }
    }

    /// A small number, or an address in a page.
    fn value(&mut self, word: u16) {
        let [low, high] = word.to_le_bytes();
        self.word(if high < 0x80 { word.into() } else { u64::from(high & 0x7f) << 12 | u64::from(low) << 3 });
    }

    fn note(&mut self, segments: &[Segment], note: &Note) {
        let (kind, is_core, description) = match note {
            Note::Thread(words) => {
                (1, true, self.apart(|part| words.iter().take(256).for_each(|word| part.value(*word))))
            }
            Note::Files(files, names) => {
                let description = self.apart(|part| {
                    part.word(files.len() as u64);
                    part.word(0x1000);
                    for (segment, pages, offset) in files {
                        let segment = segments.get(usize::from(*segment) % segments.len().max(1));
                        let start = segment.map_or(0, |segment| part.address(segment));
                        part.word(start);
                        part.word(start.wrapping_add(u64::from(*pages) << 12));
                        part.word(u64::from(*offset));
                    }
                    part.bytes.extend(names);
                });
                (0x4649_4c45, true, description)
            }
            Note::Auxiliary(entries) => {
                let description = self.apart(|part| {
                    for (kind, value) in entries {
                        part.word(u64::from(*kind));
                        part.value(*value);
                    }
                });
                (6, true, description)
            }
            Note::Other(kind, is_core, bytes) => (u64::from(*kind), *is_core, bytes.clone()),
        };
        self.number(if is_core { 5 } else { 6 }, 4);
        self.number(description.len() as u64, 4);
        self.number(kind, 4);
        self.bytes.extend(if is_core { b"CORE\0\0\0\0" } else { b"LINUX\0\0\0" });
        let padding = description.len().next_multiple_of(4) - description.len();
        self.bytes.extend(description);
        self.bytes.extend(vec![0; padding]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is made is a core, or the target would not come far.
    #[test]
    fn made_cores_are_read() {
        let mut threads = 0;
        for machine in 0..MACHINES.len() as u8 {
            let segment = |page, flags, data| Segment { page, flags, missing: 0, data };
            let segments = [
                segment(1, 5, Contents::Elf(vec![0; 200])),
                segment(9, 6, Contents::Words((0..64).map(|word| 0x8900 | word).collect())),
            ];
            let notes = [
                Note::Thread((0..128).map(|word| 0x8900 | word).collect()),
                Note::Files(vec![(0, 1, 0)], b"/bin/program\0".to_vec()),
                Note::Auxiliary(vec![(9, 0x8110), (0, 0)]),
                Note::Thread(vec![0x8910; 128]),
            ];
            let bytes = Writer::new(machine).core(&segments, &notes);
            probe(bytes.clone());
            let search = FileSearch { executable: None, sysroot: Some(PathBuf::from("/nonexistent")) };
            let Ok(core) = CoreDump::from_bytes(bytes, &search) else { continue };
            let mut word = [0; 4];
            assert_eq!(core.memory().read(0x1000, &mut word), Ok(()), "{machine}");
            assert_eq!(&word, b"\x7fELF");
            threads += core.threads().len();
        }
        assert!(threads > 15, "{threads} threads");
    }
}
