//! The ELF modules of a live process.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use unwind_arch::AnyArch;
use unwind_core::dwarf::{DwarfIndex, DwarfIndexEntry, DwarfSections, DwarfSource, Flavor};
use unwind_core::{MemoryError, Module};

use super::elf::{ElfError, ElfTables};
use super::maps::{self, FileId, Mapping};
use super::open::{Opened, Opener};
use super::{Access, ProcessError, ProcessMemory};

/// What is executable in a live process, and the call frame information for it: read once, owned
/// here, borrowed by [`sources`](ProcessModules::sources).
///
/// Every file is the one that is mapped: where it was deleted, or replaced on disk since, it is
/// reached through `/proc/PID/map_files` or `/proc/PID/exe`, and else read from the process's
/// memory. The process may run meanwhile; what it loads or unloads later is not seen.
#[derive(Debug)]
pub struct ProcessModules {
    arch: AnyArch,
    modules: Vec<ProcessModule>,
    bare: Vec<BareCode>,
}

/// An ELF file as it is loaded in a process. A file that is loaded twice is two of these.
#[derive(Debug)]
pub struct ProcessModule {
    /// Its path as the process sees it, in its own mount namespace, or a name like `[vdso]`.
    pub path: PathBuf,
    /// Whether the file at this path was deleted (or replaced by renaming another one to it).
    pub deleted: bool,
    /// The load bias: avma minus svma, modulo the address space.
    pub bias: u64,
    /// Its executable addresses (avma), ascending.
    pub ranges: Vec<Range<u64>>,
    /// Where the file's contents were found.
    pub origin: Origin,
    key: Key,
    tables: ElfTables,
}

/// Where a module's contents were found: for reading symbols from the same place.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Origin {
    /// A path that this process can open. Under `/proc/PID` it is valid as long as that process.
    File(PathBuf),
    /// The process's memory: a file's contents without what is not loaded (section headers,
    /// symbol tables, debug information).
    Memory(Vec<u8>),
}

/// Executable memory without call frame information: code that was generated at run time, or a
/// file that could not be used.
#[derive(Clone, Debug)]
pub struct BareCode {
    /// Its addresses (avma).
    pub range: Range<u64>,
    /// The name in the process's map, if it has one.
    pub name: Option<PathBuf>,
    /// Why the file was of no use; `None` where there is none.
    pub error: Option<ElfError>,
}

/// Room for the indexes of those modules that have no search table of their own; see
/// [`ProcessModules::sources`].
#[derive(Debug, Default)]
pub struct IndexRoom {
    eh_frame: Vec<Vec<DwarfIndexEntry>>,
    debug_frame: Vec<Vec<DwarfIndexEntry>>,
}

impl ProcessModules {
    /// Reads them.
    ///
    /// # Errors
    /// No such process, no permission, a kernel thread, a machine that is not supported. A file
    /// that cannot be used is no error: it is among [`bare_code`](ProcessModules::bare_code).
    pub fn read(pid: u32) -> Result<Self, ProcessError> {
        let error = |error| ProcessError::from_io(Access::Maps, &error);
        let mappings = maps::parse(&fs::read(format!("/proc/{pid}/maps")).map_err(error)?);
        if mappings.is_empty() {
            return Err(ProcessError::NoUserMemory);
        }
        let mut memory = ProcessMemory::new(pid);
        let mut opener = Opener { pid, memory: &mut memory };
        Self::of_mappings(&mappings, &mut opener).map_err(memory_error)?.finish()
    }

    fn of_mappings(mappings: &[Mapping], opener: &mut Opener<'_>) -> Result<Found, MemoryError> {
        let mut found = Found::default();
        for (index, mapping) in mappings.iter().enumerate() {
            let anonymous = !mapping.shows_file() && !is_vdso(mapping);
            if !mapping.executable {
                continue;
            }
            if !anonymous {
                found.load(mappings, mapping, opener)?;
                continue;
            }
            // Code of a file that was made anonymous (relocated text, huge pages) lies between
            // mappings of that file.
            let neighbours = [index.checked_sub(1), index.checked_add(1)].into_iter().flatten();
            for neighbour in neighbours.filter_map(|index| mappings.get(index)) {
                let adjacent = neighbour.end == mapping.start || mapping.end == neighbour.start;
                if adjacent && neighbour.shows_file() {
                    found.load(mappings, neighbour, opener)?;
                }
            }
        }
        for mapping in mappings.iter().filter(|mapping| mapping.executable) {
            found.assign(mapping);
        }
        Ok(found)
    }

    /// The architecture of the process's program.
    pub fn arch(&self) -> AnyArch {
        self.arch
    }

    /// The modules that have code.
    pub fn modules(&self) -> &[ProcessModule] {
        &self.modules
    }

    /// Executable memory that belongs to none of the modules.
    pub fn bare_code(&self) -> &[BareCode] {
        &self.bare
    }

    /// The module with code at `address` (avma).
    pub fn find(&self, address: u64) -> Option<&ProcessModule> {
        self.modules.iter().find(|module| module.ranges.iter().any(|range| range.contains(&address)))
    }

    /// Sources of rules for everything executable: what [`ModuleMap`](unwind_core::ModuleMap)
    /// takes, sorted. It may be called [`complete`](unwind_core::ModuleMap::complete) for a
    /// process that was stopped when this was read.
    ///
    /// `room` will hold the indexes of modules without a search table, which would be scanned
    /// from their beginning for every frame otherwise; start with an empty one.
    pub fn sources<'m>(&'m self, room: &'m mut IndexRoom) -> Vec<Module<Option<DwarfSource<'m>>>> {
        room.eh_frame.clear();
        room.eh_frame.resize_with(self.modules.len(), Vec::new);
        room.debug_frame.clear();
        room.debug_frame.resize_with(self.modules.len(), Vec::new);
        let rooms = room.eh_frame.iter_mut().zip(room.debug_frame.iter_mut());
        let mut sources = Vec::new();
        for (module, (eh_frame, debug_frame)) in self.modules.iter().zip(rooms) {
            let source = Some(module.source(&self.arch, eh_frame, debug_frame));
            let ranges = module.ranges.iter();
            sources.extend(ranges.map(|range| Module {
                start: range.start,
                end: range.end,
                bias: module.bias,
                source,
            }));
        }
        let bare = self.bare.iter();
        sources.extend(bare.map(|code| Module {
            start: code.range.start,
            end: code.range.end,
            bias: 0,
            source: None,
        }));
        sources.sort_by_key(|module| module.start);
        sources
    }
}

impl ProcessModule {
    /// The file's GNU build id, if it has one.
    pub fn build_id(&self) -> Option<&[u8]> {
        self.tables.build_id.as_deref()
    }

    fn source<'m>(
        &'m self,
        arch: &AnyArch,
        eh_frame: &'m mut Vec<DwarfIndexEntry>,
        debug_frame: &'m mut Vec<DwarfIndexEntry>,
    ) -> DwarfSource<'m> {
        let tables = &self.tables;
        let mut sections = DwarfSections {
            eh_frame: tables.eh_frame.as_ref().map(|section| section.borrow()),
            eh_frame_hdr: tables.eh_frame_hdr.as_ref().map(|section| section.borrow()),
            debug_frame: tables.debug_frame.as_ref().map(|section| section.borrow()),
            text_svma: tables.text_svma,
            got_svma: tables.got_svma,
            ..DwarfSections::default()
        };
        if sections.eh_frame_hdr.is_none() {
            sections.eh_frame_index = index(arch, &sections, Flavor::EhFrame, eh_frame);
        }
        sections.debug_frame_index = index(arch, &sections, Flavor::DebugFrame, debug_frame);
        DwarfSource::new(sections)
    }
}

fn index<'i>(
    arch: &AnyArch,
    sections: &DwarfSections<'_>,
    flavor: Flavor,
    room: &'i mut Vec<DwarfIndexEntry>,
) -> Option<DwarfIndex<'i>> {
    room.resize(DwarfIndex::room(arch, sections, flavor).ok()?, DwarfIndexEntry::default());
    DwarfIndex::build(arch, sections, flavor, room).ok()
}

fn is_vdso(mapping: &Mapping) -> bool {
    mapping.name.as_deref() == Some(Path::new("[vdso]"))
}

fn memory_error(error: MemoryError) -> ProcessError {
    match error {
        MemoryError::Transport { code } => {
            ProcessError::new(Access::Memory, nix::errno::Errno::from_raw(code))
        }
        _ => ProcessError::System { access: Access::Memory, errno: nix::libc::EFAULT },
    }
}

/// A file in the map. The vDSO has no inode but a name of its own.
type Key = (FileId, Option<PathBuf>);

fn key(mapping: &Mapping) -> Key {
    (mapping.file, mapping.name.clone())
}

/// What has been found so far.
#[derive(Default)]
struct Found {
    files: BTreeMap<Key, Result<(), ElfError>>,
    modules: Vec<ProcessModule>,
    bare: Vec<BareCode>,
}

impl Found {
    /// Opens the file that `mapping` shows, and finds everywhere that it is loaded.
    fn load(
        &mut self,
        mappings: &[Mapping],
        mapping: &Mapping,
        opener: &mut Opener<'_>,
    ) -> Result<(), MemoryError> {
        let key = key(mapping);
        if self.files.contains_key(&key) {
            return Ok(());
        }
        let shown: Vec<&Mapping> = mappings
            .iter()
            .filter(|other| other.file == mapping.file && other.name == mapping.name)
            .collect();
        let opened = if is_vdso(mapping) { opener.vdso(mapping)? } else { opener.file(&shown)? };
        let loaded = opened.and_then(|Opened { tables, origin }| {
            let mut biases: Vec<u64> = shown.iter().filter_map(|mapping| bias(&tables, mapping)).collect();
            biases.sort_unstable();
            biases.dedup();
            let (path, deleted) = mapping.path().unwrap_or((Path::new(""), false));
            for bias in &biases {
                self.modules.push(ProcessModule {
                    path: path.to_owned(),
                    deleted,
                    bias: *bias,
                    ranges: Vec::new(),
                    origin: origin.clone(),
                    key: key.clone(),
                    tables: tables.clone(),
                });
            }
            if biases.is_empty() { Err(ElfError::DoesNotFit) } else { Ok(()) }
        });
        self.files.insert(key, loaded);
        Ok(())
    }

    /// Gives an executable mapping to the module whose executable segment is there.
    fn assign(&mut self, mapping: &Mapping) {
        let key = key(mapping);
        let owner = self.modules.iter_mut().find(|module| {
            if mapping.shows_file() || is_vdso(mapping) {
                return module.key == key && bias(&module.tables, mapping) == Some(module.bias);
            }
            module.tables.loads.iter().filter(|load| load.executable).any(|load| {
                let start = module.bias.wrapping_add(load.svma);
                start < mapping.end && mapping.start < start.saturating_add(load.memory_size)
            })
        });
        match owner {
            Some(module) => module.ranges.push(mapping.range()),
            None => self.bare.push(BareCode {
                range: mapping.range(),
                name: mapping.name.clone(),
                error: self.files.get(&key).and_then(|file| file.err()),
            }),
        }
    }

    fn finish(mut self) -> Result<ProcessModules, ProcessError> {
        self.modules.retain(|module| !module.ranges.is_empty());
        self.modules.sort_by_key(|module| module.ranges.first().map(|range| range.start));
        // The program itself is as good as any: they are all of one architecture.
        let tables = &self.modules.first().ok_or(ProcessError::UnknownMachine)?.tables;
        let arch = super::machine::arch_of(tables)?;
        Ok(ProcessModules { arch, modules: self.modules, bare: self.bare })
    }
}

fn bias(tables: &ElfTables, mapping: &Mapping) -> Option<u64> {
    let length = mapping.end.saturating_sub(mapping.start);
    tables.bias(mapping.start, length, mapping.offset, mapping.executable)
}
