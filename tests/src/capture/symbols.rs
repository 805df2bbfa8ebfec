//! The files of a program: where they are loaded, their functions and tables.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SegmentFlags, SymbolKind};

use super::guest::Mapping;
use crate::captured::{CapturedModule, CapturedSection, Function, LoadedModule};

/// A loaded file.
pub(super) struct Loaded {
    pub(super) path: PathBuf,
    pub(super) module: CapturedModule,
    pub(super) bias: u64,
    /// By first address (avma).
    functions: BTreeMap<u64, Function>,
}

impl Loaded {
    /// The file at `path`, of which `mappings` are mapped, with these of its sections. The bits in `code_mask` of a function's
    /// symbol are its address. `None` where none of the mappings is one of its segments.
    pub(super) fn new(
        path: &Path,
        mappings: &[Mapping],
        sections: &[String],
        code_mask: u64,
    ) -> io::Result<Option<Self>> {
        let data = std::fs::read(path)?;
        let file = object::File::parse(&*data).map_err(io::Error::other)?;
        let bias = file.segments().find_map(|segment| {
            let offset = segment.file_range().0;
            let mapping = mappings.iter().find(|mapping| mapping.offset == offset & !0xfff)?;
            Some(mapping.range.start.wrapping_sub(segment.address() & !0xfff))
        });
        let Some(bias) = bias else { return Ok(None) };
        let executable = |flags| matches!(flags, SegmentFlags::Elf { p_flags, .. } if p_flags.0 & object::elf::PF_X.0 != 0);
        let code = file.segments().filter(|segment| executable(segment.flags()));
        let sections = sections.iter().filter_map(|name| file.section_by_name(name));
        let sections = sections.map(|section| {
            Ok(CapturedSection {
                name: section.name().map_err(io::Error::other)?.to_owned(),
                svma: section.address(),
                data: section.data().map_err(io::Error::other)?.to_vec(),
            })
        });
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let module = CapturedModule {
            name,
            code: code.map(|segment| segment.address()..segment.address() + segment.size()).collect(),
            sections: sections.collect::<io::Result<_>>()?,
        };
        let mut functions = BTreeMap::new();
        for symbol in file.dynamic_symbols().chain(file.symbols()) {
            if symbol.kind() == SymbolKind::Text && symbol.is_definition() {
                let start = (symbol.address() & code_mask).wrapping_add(bias);
                let name = symbol.name().map_err(io::Error::other)?.to_owned();
                functions.insert(start, Function { start, size: symbol.size(), name });
            }
        }
        Ok(Some(Loaded { path: path.to_owned(), module, bias, functions }))
    }

    pub(super) fn is_code(&self, address: u64) -> bool {
        let svma = address.wrapping_sub(self.bias);
        self.module.code.iter().any(|range| range.contains(&svma))
    }

    pub(super) fn function(&self, address: u64) -> Option<&Function> {
        let (_, function) = self.functions.range(..=address).next_back()?;
        (address - function.start < function.size).then_some(function)
    }

    /// The functions whose names begin with `prefix`.
    pub(super) fn named(&self, prefix: &str) -> impl Iterator<Item = &Function> {
        self.functions.values().filter(move |function| function.name.starts_with(prefix))
    }

    pub(super) fn loaded(&self) -> LoadedModule {
        LoadedModule { name: self.module.name.clone(), bias: self.bias }
    }
}
