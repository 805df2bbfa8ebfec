//! This test program as a target: its memory and its call frame information.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use object::read::elf::{FileHeader, ProgramHeader};
use object::{Object, ObjectSection};
use unwind_arch::host::HostArch;
use unwind_core::dwarf::{DwarfSections, DwarfSource, Section};
use unwind_core::{
    MemoryError, MemoryReader, Module, ModuleMap, Options, UnwindUserType, UnwindUserTypes, Unwinder, from_fn,
};

/// What is kept of the program's file.
pub(crate) struct Own {
    eh_frame: (Vec<u8>, u64),
    eh_frame_hdr: (Vec<u8>, u64),
    /// Start and end of its code (avma).
    code: (u64, u64),
    bias: u64,
}

impl Own {
    pub(crate) fn new() -> Self {
        let data = fs::read("/proc/self/exe").unwrap();
        let file = object::File::parse(&*data).unwrap();
        let section = |name| {
            let section = file.section_by_name(name).unwrap();
            (section.uncompressed_data().unwrap().into_owned(), section.address())
        };
        let header = object::elf::FileHeader64::<object::Endianness>::parse(&*data).unwrap();
        let endian = header.endian().unwrap();
        let bias = entry_point().wrapping_sub(file.entry());
        let code = header
            .program_headers(endian, &*data)
            .unwrap()
            .iter()
            .filter(|segment| {
                segment.p_type(endian) == object::elf::PT_LOAD
                    && segment.p_flags(endian) & object::elf::PF_X == object::elf::PF_X
            })
            .map(|segment| {
                let start = segment.p_vaddr(endian).wrapping_add(bias);
                (start, start.wrapping_add(segment.p_memsz(endian)))
            })
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
            .unwrap();
        Own { eh_frame: section(".eh_frame"), eh_frame_hdr: section(".eh_frame_hdr"), code, bias }
    }

    /// The module to look up in. Code of libraries is in none.
    pub(crate) fn modules(&self) -> [Module<DwarfSource<'_>>; 1] {
        let source = DwarfSource::new(DwarfSections {
            eh_frame: Some(Section { data: &self.eh_frame.0, svma: self.eh_frame.1 }),
            eh_frame_hdr: Some(Section { data: &self.eh_frame_hdr.0, svma: self.eh_frame_hdr.1 }),
            ..DwarfSections::default()
        });
        [Module { start: self.code.0, end: self.code.1, bias: self.bias, source }]
    }
}

/// Of the architecture's conventions, it has the trampolines: frame pointers are not kept here, and
/// would lead anywhere.
pub(crate) fn unwinder<'m>(
    modules: &'m [Module<DwarfSource<'m>>],
) -> Unwinder<HostArch, ModuleMap<'m, DwarfSource<'m>>> {
    let arch = HostArch::host();
    let mut options = Options::default();
    options.types = UnwindUserTypes::only(UnwindUserType::Dwarf).with(UnwindUserType::SignalTrampoline);
    Unwinder::with_options(arch, ModuleMap::new(&arch, modules).unwrap(), options)
}

/// The memory of this process.
pub(crate) fn memory() -> impl MemoryReader {
    let file = File::open("/proc/self/mem").unwrap();
    from_fn(move |address, into: &mut [u8]| {
        file.read_exact_at(into, address).map_err(|_| MemoryError::Unreadable { address })
    })
}

/// Where the kernel says that this program begins: `AT_ENTRY` of the auxiliary vector.
fn entry_point() -> u64 {
    const AT_ENTRY: u64 = 9;
    let vector = fs::read("/proc/self/auxv").unwrap();
    let (words, _) = vector.as_chunks::<8>();
    let mut words = words.iter().map(|word| u64::from_ne_bytes(*word));
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        if key == AT_ENTRY {
            return value;
        }
    }
    panic!("no AT_ENTRY");
}
