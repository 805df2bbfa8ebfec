//! Finding the ELF modules of a live process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use unwind_arch::AnyArch;
use unwind_core::{Arch, ByteOrder, MemoryError};

use super::maps::{self, FileId, Mapping};
use super::open::{Opened, Opener};
use super::{Access, ProcessError, ProcessMemory};
use crate::elf::tables::ElfTables;
use crate::elf::{BareCode, ElfError, ElfModule, ElfModules};

impl ElfModules {
    /// What is executable in the process with this id.
    ///
    /// Every file is the one that is mapped: where it was deleted, or replaced on disk since, it
    /// is reached through `/proc/PID/map_files` or `/proc/PID/exe`, and else read from the
    /// process's memory. The process may run meanwhile; what it loads or unloads later is not
    /// seen.
    ///
    /// # Errors
    /// No such process, no permission, a kernel thread, a machine that is not supported. A file
    /// that cannot be used is no error: it is among [`bare_code`](ElfModules::bare_code).
    pub fn of_process(pid: u32) -> Result<Self, ProcessError> {
        let error = |error| ProcessError::from_io(Access::Maps, &error);
        let mappings = maps::parse(&fs::read(format!("/proc/{pid}/maps")).map_err(error)?);
        if mappings.is_empty() {
            return Err(ProcessError::NoUserMemory);
        }
        let mut memory = ProcessMemory::new(pid);
        let mut opener = Opener { pid, memory: &mut memory };
        let found = of_mappings(&mappings, &mut opener).map_err(memory_error)?.finish()?;
        let entry = fs::read(format!("/proc/{pid}/auxv")).ok().and_then(|auxv| entry(&found.arch(), &auxv));
        Ok(found.with_entry(entry))
    }
}

/// `AT_ENTRY` of the auxiliary vector: pairs of words.
fn entry(arch: &AnyArch, auxv: &[u8]) -> Option<u64> {
    let size = usize::from(arch.word_size().bytes());
    let mut words = auxv.chunks_exact(size).map(|word| {
        let mut bytes = [0; 8];
        match arch.byte_order() {
            ByteOrder::Little => bytes.get_mut(..size)?.copy_from_slice(word),
            ByteOrder::Big => bytes.get_mut(8usize.checked_sub(size)?..)?.copy_from_slice(word),
        }
        Some(match arch.byte_order() {
            ByteOrder::Little => u64::from_le_bytes(bytes),
            ByteOrder::Big => u64::from_be_bytes(bytes),
        })
    });
    while let (Some(Some(kind)), Some(value)) = (words.next(), words.next()) {
        if kind == 9 {
            return value;
        }
    }
    None
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
    modules: Vec<(Key, ElfModule)>,
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
            let tables = Arc::new(tables);
            let (path, deleted) = mapping.path().unwrap_or((Path::new(""), false));
            for bias in &biases {
                let module = ElfModule {
                    path: path.to_owned(),
                    deleted,
                    bias: *bias,
                    ranges: Vec::new(),
                    origin: origin.clone(),
                    sframe_error: None,
                    verified: true,
                    tables: Arc::clone(&tables),
                };
                self.modules.push((key.clone(), module));
            }
            if biases.is_empty() { Err(ElfError::DoesNotFit) } else { Ok(()) }
        });
        self.files.insert(key, loaded);
        Ok(())
    }

    /// Gives an executable mapping to the module whose executable segment is there.
    fn assign(&mut self, mapping: &Mapping) {
        let key = key(mapping);
        let owner = self.modules.iter_mut().find(|(of, module)| {
            if mapping.shows_file() || is_vdso(mapping) {
                return *of == key && bias(&module.tables, mapping) == Some(module.bias);
            }
            module.tables.loads.iter().filter(|load| load.executable).any(|load| {
                let start = module.bias.wrapping_add(load.svma);
                start < mapping.end && mapping.start < start.saturating_add(load.memory_size)
            })
        });
        match owner {
            Some((_, module)) => module.ranges.push(mapping.range()),
            None => self.bare.push(BareCode {
                range: mapping.range(),
                name: mapping.name.clone(),
                error: self.files.get(&key).and_then(|file| file.err()),
            }),
        }
    }

    fn finish(self) -> Result<ElfModules, ProcessError> {
        let modules = self.modules.into_iter().map(|(_, module)| module);
        let mut modules: Vec<_> = modules.filter(|module| !module.ranges.is_empty()).collect();
        modules.sort_by_key(|module| module.ranges.first().map(|range| range.start));
        // The program itself is as good as any: they are all of one architecture.
        let tables = &modules.first().ok_or(ProcessError::UnknownMachine)?.tables;
        let arch = super::machine::arch_of(tables)?;
        Ok(ElfModules::new(arch, modules, self.bare))
    }
}

fn bias(tables: &ElfTables, mapping: &Mapping) -> Option<u64> {
    let length = mapping.end.saturating_sub(mapping.start);
    tables.bias(mapping.start, length, mapping.offset, mapping.executable)
}
