//! The fixtures, and what tests need of an ELF file.

use std::path::{Path, PathBuf};

use object::read::elf::{ElfFile32, ProgramHeader};
use object::{Endianness, Object, ObjectSection, ObjectSymbol};
use unwind_core::ByteOrder;
use unwind_core::ehabi::{EhabiSections, EhabiSource, Section};

/// Where the fixtures are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/ehabi")
}

/// A file with exception handling tables.
#[derive(Clone, Debug)]
pub struct Elf {
    pub order: ByteOrder,
    exidx: (u64, Vec<u8>),
    extab: Option<(u64, Vec<u8>)>,
    /// The executable segments, from the first address to beyond the last.
    text: (u64, u64),
    pub debug_frame: Option<Vec<u8>>,
    /// Name and address, without a Thumb bit, of every function.
    pub functions: Vec<(String, u64)>,
}

impl Elf {
    pub fn read(path: &Path) -> Elf {
        let data = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let elf = ElfFile32::<Endianness>::parse(&*data).unwrap();
        let endian = elf.endian();
        let section = |name| {
            let section = elf.section_by_name(name)?;
            Some((section.address(), section.data().unwrap().to_vec()))
        };
        let segments = elf.elf_program_headers().iter().filter(|header| {
            header.p_type(endian) == object::elf::PT_LOAD
                && header.p_flags(endian).contains(object::elf::PF_X)
        });
        let ranges: Vec<(u64, u64)> = segments
            .map(|header| {
                let start = u64::from(header.p_vaddr(endian));
                (start, start + u64::from(header.p_memsz(endian)))
            })
            .collect();
        let text = (
            ranges.iter().map(|range| range.0).min().unwrap(),
            ranges.iter().map(|range| range.1).max().unwrap(),
        );
        Elf {
            order: if elf.is_little_endian() { ByteOrder::Little } else { ByteOrder::Big },
            exidx: section(".ARM.exidx").unwrap(),
            extab: section(".ARM.extab"),
            text,
            debug_frame: section(".debug_frame").map(|(_, data)| data),
            functions: elf
                .symbols()
                .filter(|symbol| symbol.kind() == object::SymbolKind::Text && symbol.is_definition())
                .map(|symbol| (symbol.name().unwrap().to_owned(), symbol.address() & !1))
                .collect(),
        }
    }

    /// The tables for the library.
    pub fn sections(&self) -> EhabiSections<'_> {
        EhabiSections::new(
            self.order,
            Section { svma: self.exidx.0, data: &self.exidx.1 },
            self.extab.as_ref().map(|(svma, data)| Section { svma: *svma, data }),
            self.text.0,
            self.text.1,
        )
    }

    /// A source over them.
    pub fn source(&self) -> EhabiSource<'_> {
        EhabiSource::new(self.sections())
    }

    /// The address of a function.
    pub fn function(&self, name: &str) -> u64 {
        self.functions.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{name}")).1
    }
}
