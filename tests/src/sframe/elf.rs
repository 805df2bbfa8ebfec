//! The samples, and what tests need of an ELF file.

use std::ops::Range;
use std::path::{Path, PathBuf};

use object::read::elf::{ElfFile64, ProgramHeader, SectionHeader};
use object::{
    Endianness, Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SymbolKind, elf,
};

/// Where the samples are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sframe")
}

/// Every sample: its name, and where it is.
pub fn files() -> Vec<(String, PathBuf)> {
    let root = folder();
    let mut all = Vec::new();
    for folder in ["v1", "v2", "v3", "v2pcrel", "quirks", "odd"] {
        let files = std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        for path in files.filter(|path| path.extension().is_none_or(|end| end != "txt")) {
            all.push((path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), path));
        }
    }
    all.sort();
    assert_eq!(all.len(), 70);
    all
}

/// A file with an SFrame section.
pub struct Elf {
    pub is_relocatable: bool,
    /// The contents of `.sframe`, as the file has them.
    pub sframe: Vec<u8>,
    pub svma: u64,
    /// The contents of the segment `PT_GNU_SFRAME`, which claims to hold the section.
    pub segment: Option<(Vec<u8>, u64)>,
    /// The fields of `.sframe` that relocations fill: where, and the address that each is about.
    pub relocations: Vec<(u64, u64)>,
    /// Name and range of every function.
    pub functions: Vec<(String, Range<u64>)>,
    /// Range and size of entries of every procedure linkage table.
    pub linkage_tables: Vec<(Range<u64>, u64)>,
}

impl Elf {
    pub fn read(path: &Path) -> Elf {
        let data = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let elf = ElfFile64::<Endianness>::parse(&*data).unwrap();
        let endian = elf.endian();
        let section = elf.section_by_name(".sframe").unwrap();
        let relocations = section.relocations().map(|(offset, relocation)| {
            assert!(is_pc_relative(relocation.flags()), "{}: {relocation:?}", path.display());
            let RelocationTarget::Symbol(symbol) = relocation.target() else { panic!("{}", path.display()) };
            let symbol = elf.symbol_by_index(symbol).unwrap();
            (offset, symbol.address().wrapping_add_signed(relocation.addend()))
        });
        let segment = elf.elf_program_headers().iter().find(|header| header.p_type(endian).0 == 0x6474_e554);
        let functions = elf.symbols().filter(|symbol| {
            matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Unknown) && symbol.is_definition()
        });
        let tables =
            elf.sections().filter(|section| section.name().is_ok_and(|name| name.starts_with(".plt")));
        Elf {
            is_relocatable: elf.kind() == object::ObjectKind::Relocatable,
            sframe: section.data().unwrap().to_vec(),
            svma: section.address(),
            segment: segment
                .map(|header| (header.data(endian, &*data).unwrap().to_vec(), header.p_vaddr(endian))),
            relocations: relocations.collect(),
            functions: functions
                .map(|symbol| {
                    let range = symbol.address()..symbol.address() + symbol.size();
                    (symbol.name().unwrap().to_owned(), range)
                })
                .collect(),
            linkage_tables: tables
                .map(|section| {
                    let range = section.address()..section.address() + section.size();
                    (range, section.elf_section_header().sh_entsize(endian))
                })
                .collect(),
        }
    }

    /// The section with its relocations carried out as the flag says that its fields are read:
    /// relative to the field, or to the section.
    pub fn relocated(&self) -> Vec<u8> {
        let mut data = self.sframe.clone();
        if self.relocations.is_empty() {
            return data;
        }
        let is_big = data[0] == 0xde;
        let (version, is_pcrel) = (data[2], data[3] & 4 != 0);
        for (offset, target) in &self.relocations {
            let base = if is_pcrel { self.svma + offset } else { self.svma };
            let value = target.wrapping_sub(base);
            let width = if version == 3 { 8 } else { 4 };
            let bytes = if is_big {
                value.to_be_bytes()[8 - width..].to_vec()
            } else {
                value.to_le_bytes()[..width].to_vec()
            };
            let offset = usize::try_from(*offset).unwrap();
            data[offset..offset + width].copy_from_slice(&bytes);
        }
        data
    }
}

/// S + A - P, in 32 or 64 bits. (No machine of SFrame's uses the number of another's.)
fn is_pc_relative(flags: RelocationFlags) -> bool {
    let RelocationFlags::Elf { r_type } = flags else { return false };
    let types = [
        elf::R_X86_64_PC32,
        elf::R_X86_64_PC64,
        elf::R_AARCH64_PREL32,
        elf::R_AARCH64_PREL64,
        elf::R_390_PC32,
        elf::R_390_PC64,
    ];
    types.contains(&r_type)
}
