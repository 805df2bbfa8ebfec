//! Finding the files that were mapped, as they are here and now.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use object::ReadCache;
use unwind_core::{MemoryError, MemoryReader};

use super::contents::{Contents, regular};
use crate::elf::ElfError;
use crate::elf::tables::ElfTables;

/// Where to look for the files that a core was made with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSearch {
    /// The program, where it is not at the path that the core states, or the core states none (as
    /// those that qemu writes).
    pub executable: Option<PathBuf>,
    /// The folder that stands for `/` of the machine where the core was written. `None` for this
    /// machine's own.
    pub sysroot: Option<PathBuf>,
}

impl FileSearch {
    /// Where the file with this path on that machine is on this one; never outside of the
    /// sysroot, but for symbolic links.
    pub(super) fn find(&self, path: &Path) -> PathBuf {
        match &self.sysroot {
            None => path.to_owned(),
            Some(root) => {
                let plain = path.components().filter(|part| matches!(part, Component::Normal(_)));
                plain.fold(root.clone(), |path, part| path.join(part))
            }
        }
    }
}

/// Files that have been opened; each is read once, by whatever name.
#[derive(Debug, Default)]
pub(super) struct Files {
    known: HashMap<PathBuf, Result<OpenFile, ElfError>>,
    pub(super) contents: Vec<Contents>,
}

/// A file whose tables were read.
#[derive(Clone, Debug)]
pub(super) struct OpenFile {
    pub(super) tables: Arc<ElfTables>,
    /// Its index in [`Files::contents`].
    pub(super) index: usize,
}

impl Files {
    pub(super) fn open(&mut self, path: &Path) -> Result<OpenFile, ElfError> {
        let unreadable = |error: io::Error| ElfError::Unreadable(error.raw_os_error().unwrap_or(0));
        let path = fs::canonicalize(path).map_err(unreadable)?;
        if let Some(known) = self.known.get(&path) {
            return known.clone();
        }
        let opened = (|| {
            let tables = ElfTables::read(&ReadCache::new(regular(&path).map_err(unreadable)?))?;
            let contents = Contents::open(&path).map_err(unreadable)?;
            let index = self.contents.len();
            self.contents.push(contents);
            Ok(OpenFile { tables: Arc::new(tables), index })
        })();
        self.known.insert(path, opened.clone());
        opened
    }
}

/// Whether a file is what was mapped, by what the core holds of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    /// Headers or notes could be compared, and are equal.
    Same,
    /// Nothing of it is in the core.
    Unknown,
    Different,
}

/// Compares what the loader leaves as it is: ELF header, program headers, notes with the build id.
pub(super) fn compare(tables: &ElfTables, bias: u64, memory: &mut dyn MemoryReader) -> Likeness {
    let mut likeness = Likeness::Unknown;
    for mark in &tables.marks {
        let Some(svma) = tables.loads.iter().find_map(|load| load.svma_of(mark.offset)) else { continue };
        let mut bytes = vec![0; mark.bytes.len()];
        match memory.read(tables.word_size.wrapping_offset(svma, bias), &mut bytes) {
            Ok(()) if bytes == mark.bytes => likeness = Likeness::Same,
            Ok(()) => return Likeness::Different,
            Err(MemoryError::Unreadable { .. } | _) => {}
        }
    }
    likeness
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_sysroot() {
        let search = FileSearch { executable: None, sysroot: Some("/root/of".into()) };
        for (path, want) in [
            ("/lib/libc.so.6", "/root/of/lib/libc.so.6"),
            ("/lib/../../../etc/passwd", "/root/of/lib/etc/passwd"),
            ("relative/./name", "/root/of/relative/name"),
            ("..", "/root/of"),
        ] {
            assert_eq!(search.find(Path::new(path)), Path::new(want));
        }
        assert_eq!(FileSearch::default().find(Path::new("/lib/x")), Path::new("/lib/x"));
    }
}
