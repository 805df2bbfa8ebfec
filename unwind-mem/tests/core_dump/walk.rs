//! Cores from the folder, and walks over them.

use std::path::{Path, PathBuf};

use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};
use unwind_core::{End, Frame, ModuleMap, Options, StartError, UnwindUserTypes, Unwinder};
use unwind_mem::core_dump::{CoreDump, CoreThread, FileSearch};
use unwind_mem::elf::IndexRoom;
use unwind_mem::{Page, PageCache};

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cores"))
}

/// The core of this name, decompressed.
pub(crate) fn core(name: &str) -> Vec<u8> {
    let compressed = std::fs::read(folder().join(format!("{name}.core.zlib"))).unwrap();
    miniz_oxide::inflate::decompress_to_vec_zlib(&compressed).unwrap()
}

/// Where the program of a core is.
pub(crate) fn search(name: &str) -> FileSearch {
    FileSearch { executable: Some(folder().join(name)), sysroot: Some(folder().join("nothing")) }
}

/// The frames of a thread, and how its walk ended. At most 200 frames, for hostile cores.
pub(crate) fn walk(core: &CoreDump, thread: &CoreThread) -> (Vec<Frame>, Result<End, StartError>) {
    walk_by(core, thread, UnwindUserTypes::ALL)
}

pub(crate) fn walk_by(
    core: &CoreDump,
    thread: &CoreThread,
    types: UnwindUserTypes,
) -> (Vec<Frame>, Result<End, StartError>) {
    let mut room = IndexRoom::default();
    let sources = core.modules().sources(&mut room);
    let mut map = ModuleMap::new(&thread.arch, &sources).expect("modules do not overlap");
    if core.lists_all_code() {
        map = map.complete();
    }
    let mut options = Options::default();
    options.max_frames = 200;
    options.types = types;
    let unwinder = Unwinder::with_options(thread.arch, map, options);
    let mut pages = vec![Page::<4096>::EMPTY; 16];
    let memory = PageCache::new(core.memory(), &mut pages);
    let mut frames = match unwinder.frames_tracking::<72, _>(&thread.registers, memory) {
        Ok(frames) => frames,
        Err(error) => return (Vec::new(), Err(error)),
    };
    let found = frames.by_ref().collect();
    (found, Ok(frames.end().unwrap()))
}

/// The functions of a program: first address, size, name.
pub(crate) fn functions(name: &str) -> Vec<(u64, u64, String)> {
    functions_of(&folder().join(name))
}

pub(crate) fn functions_of(program: &Path) -> Vec<(u64, u64, String)> {
    let data = std::fs::read(program).unwrap();
    let file = object::File::parse(&*data).unwrap();
    let symbols = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text);
    symbols
        .map(|symbol| {
            let mut start = symbol.address();
            // ELFv1 of 64-bit PowerPC: a symbol is that of a descriptor, whose first word is the
            // address of the code.
            let section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
            if let Some(section) = section.filter(|section| section.name() == Ok(".opd")) {
                let word = section.data_range(start, 8).unwrap().unwrap();
                start = u64::from_be_bytes(word.try_into().unwrap());
            }
            // The lowest bit of Thumb functions is no part of the address.
            let start = if file.architecture() == object::Architecture::Arm { start & !1 } else { start };
            (start, symbol.size(), symbol.name().unwrap().to_owned())
        })
        .collect()
}
