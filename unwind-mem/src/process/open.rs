//! Finding the contents of a file that a process has mapped.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use object::ReadCache;
use unwind_core::{MemoryError, MemoryReader};

use super::ProcessMemory;
use super::maps::Mapping;
use crate::elf::tables::ElfTables;
use crate::elf::{ElfError, Origin, image};

/// Finds the files of one process.
pub(super) struct Opener<'m> {
    pub(super) pid: u32,
    pub(super) memory: &'m mut ProcessMemory,
}

/// A file that was found.
pub(super) struct Opened {
    pub(super) tables: ElfTables,
    pub(super) origin: Origin,
}

/// Whether an ELF file is the one in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Likeness {
    /// Everything that could be compared is equal, a build id among it.
    Same,
    /// What could be compared is equal, but is no proof.
    Alike,
    Different,
}

impl Opener<'_> {
    /// The file that `mappings` show, at least one: by way of the kernel if it lets us, else by
    /// its path if that is still the same file, else from memory.
    pub(super) fn file(&mut self, mappings: &[&Mapping]) -> Result<Result<Opened, ElfError>, MemoryError> {
        if let Some(answer) = self.by_kernel(mappings) {
            return Ok(answer);
        }
        let error = match self.by_path(mappings)? {
            Ok(opened) => return Ok(Ok(opened)),
            Err(error) => error,
        };
        Ok(self.loaded_part(mappings)?.map_err(|_| error))
    }

    /// The kernel's own link to the mapped file; needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
    fn by_kernel(&self, mappings: &[&Mapping]) -> Option<Result<Opened, ElfError>> {
        let first = mappings.first()?;
        let link = format!("/proc/{}/map_files/{:x}-{:x}", self.pid, first.start, first.end);
        match read(Path::new(&link)) {
            Ok((tables, _)) => Some(Ok(Opened { tables, origin: Origin::File(link.into()) })),
            // It is the right file, and no ELF file.
            Err(error @ (ElfError::NotElf | ElfError::Malformed)) => Some(Err(error)),
            Err(_) => None,
        }
    }

    /// By its path, if what is there is what was mapped.
    fn by_path(&mut self, mappings: &[&Mapping]) -> Result<Result<Opened, ElfError>, MemoryError> {
        let mut error = ElfError::NotElf;
        let Some(first) = mappings.first() else {
            return Ok(Err(error));
        };
        for path in self.paths(first) {
            match read(&path) {
                Ok((tables, inode)) => {
                    let same_inode = inode == first.file.inode;
                    match self.compare(&tables, mappings)? {
                        Likeness::Different => error = ElfError::DoesNotFit,
                        Likeness::Alike if !same_inode => error = ElfError::DoesNotFit,
                        _ => return Ok(Ok(Opened { tables, origin: Origin::File(path) })),
                    }
                }
                Err(other) => error = other,
            }
        }
        Ok(Err(error))
    }

    /// As far as it is loaded.
    fn loaded_part(&mut self, mappings: &[&Mapping]) -> Result<Result<Opened, ElfError>, MemoryError> {
        let Some(beginning) = mappings.iter().find(|mapping| mapping.offset == 0) else {
            return Ok(Err(ElfError::DoesNotFit));
        };
        let image = image::of_segments(self.memory, beginning.start, image::MAX_IMAGE)?;
        Ok(image.and_then(opened_in_memory))
    }

    /// The vDSO, which is in memory only, and wholly so.
    pub(super) fn vdso(&mut self, mapping: &Mapping) -> Result<Result<Opened, ElfError>, MemoryError> {
        let image = image::of_mapping(self.memory, mapping.start, mapping.end)?;
        Ok(image.and_then(opened_in_memory))
    }

    /// Where the file may be, as seen from here: its path in the process's mount namespace and
    /// root directory; for the program itself, the kernel's link to it.
    fn paths(&self, mapping: &Mapping) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        let Some(name) = mapping.name.as_deref() else {
            return paths;
        };
        let program = PathBuf::from(format!("/proc/{}/exe", self.pid));
        if std::fs::read_link(&program).is_ok_and(|target| target == name) {
            paths.push(program);
        }
        let root = format!("/proc/{}/root", self.pid);
        let mut candidates = vec![name];
        // The name may really end like the kernel's mark.
        candidates.extend(mapping.path().filter(|(_, marked)| *marked).map(|(path, _)| path));
        for name in candidates.into_iter().filter(|name| name.is_absolute()) {
            let mut path = root.clone().into_bytes();
            path.extend_from_slice(name.as_os_str().as_bytes());
            paths.push(PathBuf::from(std::ffi::OsStr::from_bytes(&path)));
        }
        paths
    }

    /// Compares what the loader leaves as it is: headers and notes.
    fn compare(&mut self, tables: &ElfTables, mappings: &[&Mapping]) -> Result<Likeness, MemoryError> {
        let mut compared = 0usize;
        for mark in &tables.marks {
            let length = u64::try_from(mark.bytes.len()).unwrap_or(u64::MAX);
            let place = mappings.iter().find_map(|mapping| {
                let into = mark.offset.checked_sub(mapping.offset)?;
                let room = mapping.end.checked_sub(mapping.start)?;
                let fits = into.checked_add(length).is_some_and(|end| end <= room);
                fits.then(|| mapping.start.wrapping_add(into))
            });
            let Some(place) = place else { continue };
            let mut bytes = vec![0; mark.bytes.len()];
            match self.memory.read(place, &mut bytes) {
                Ok(()) if bytes == mark.bytes => compared = compared.saturating_add(1),
                Ok(()) => return Ok(Likeness::Different),
                Err(MemoryError::Unreadable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let all = compared == tables.marks.len();
        Ok(if all && tables.build_id.is_some() { Likeness::Same } else { Likeness::Alike })
    }
}

fn opened_in_memory(image: Vec<u8>) -> Result<Opened, ElfError> {
    let tables = ElfTables::read(image.as_slice())?;
    Ok(Opened { tables, origin: Origin::Memory(image) })
}

/// The tables of the file at `path`, and its inode.
fn read(path: &Path) -> Result<(ElfTables, u64), ElfError> {
    let unreadable = |error: io::Error| ElfError::Unreadable(error.raw_os_error().unwrap_or(0));
    let (file, inode) = open_regular(path).map_err(unreadable)?;
    Ok((ElfTables::read(&ReadCache::new(file))?, inode))
}

/// Opens a regular file and nothing else: a device or a pipe that lies there by now could block,
/// or do something.
fn open_regular(path: &Path) -> io::Result<(File, u64)> {
    let not_regular = || io::Error::from_raw_os_error(nix::libc::ENOEXEC);
    if !std::fs::metadata(path)?.is_file() {
        return Err(not_regular());
    }
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata.ino())) } else { Err(not_regular()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::as_conversions, reason = "tests")]
mod tests {
    use super::super::maps;
    use super::*;

    fn opener(memory: &mut ProcessMemory) -> Opener<'_> {
        Opener { pid: std::process::id(), memory }
    }

    /// The mappings of this program, and of the C library if there is one.
    fn files(mappings: &[Mapping]) -> Vec<Vec<&Mapping>> {
        let program = std::env::current_exe().unwrap();
        let is_libc = |path: &Path| path.to_string_lossy().contains("/libc.so");
        let library = mappings.iter().filter_map(|mapping| mapping.name.clone()).find(|path| is_libc(path));
        let names = [Some(program), library].into_iter().flatten();
        let of = |name: PathBuf| {
            mappings.iter().filter(move |mapping| mapping.name.as_ref() == Some(&name)).collect()
        };
        names.map(of).collect()
    }

    #[test]
    fn by_path_if_it_is_the_same_file() {
        let mappings = maps::parse(&std::fs::read("/proc/self/maps").unwrap());
        let mut memory = ProcessMemory::of_this_process();
        for file in files(&mappings) {
            let opened = opener(&mut memory).by_path(&file).unwrap().unwrap();
            assert!(matches!(opened.origin, Origin::File(_)));
            assert_ne!(opener(&mut memory).compare(&opened.tables, &file).unwrap(), Likeness::Different);
        }
    }

    #[test]
    fn another_file_is_told_apart() {
        let mappings = maps::parse(&std::fs::read("/proc/self/maps").unwrap());
        let mut memory = ProcessMemory::of_this_process();
        let files = files(&mappings);
        let [program, library] = files.as_slice() else { return };
        let other = opener(&mut memory).by_path(library).unwrap().unwrap().tables;
        assert_eq!(opener(&mut memory).compare(&other, program).unwrap(), Likeness::Different);
        // Another build of the same program: all but one byte of its notes is equal.
        let mut newer = opener(&mut memory).by_path(program).unwrap().unwrap().tables;
        *newer.marks.last_mut().unwrap().bytes.last_mut().unwrap() ^= 1;
        assert_eq!(opener(&mut memory).compare(&newer, program).unwrap(), Likeness::Different);
    }

    #[test]
    fn memory_has_the_same_tables_as_the_file() {
        let mappings = maps::parse(&std::fs::read("/proc/self/maps").unwrap());
        let mut memory = ProcessMemory::of_this_process();
        for file in files(&mappings) {
            let from_file = opener(&mut memory).by_path(&file).unwrap().unwrap().tables;
            let opened = opener(&mut memory).loaded_part(&file).unwrap().unwrap();
            assert!(matches!(opened.origin, Origin::Memory(_)));
            let tables = opened.tables;
            let section = |section: &Option<crate::elf::tables::OwnedSection>| {
                section.as_ref().map(|section| (section.svma, section.data.clone())).unwrap()
            };
            assert_eq!(section(&tables.eh_frame_hdr), section(&from_file.eh_frame_hdr));
            assert_eq!(section(&tables.eh_frame), section(&from_file.eh_frame));
            assert_eq!((tables.build_id, tables.loads), (from_file.build_id, from_file.loads));
            assert_eq!(tables.debug_frame.map(|section| section.svma), None);
        }
    }
}
