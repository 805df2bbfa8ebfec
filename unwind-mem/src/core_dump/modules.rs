//! Finding the ELF modules of a core dump.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use unwind_arch::AnyArch;
use unwind_core::MemoryReader;

use super::contents::Contents;
use super::files::{FileSearch, Files, Likeness, compare};
use super::link_map::{LinkMap, MAX_MODULES};
use super::memory::{CoreMemory, FilePiece};
use super::notes::{MappedFile, Notes};
use super::segments::Headers;
use super::{CoreProblem, MissingFile};
use crate::elf::tables::ElfTables;
use crate::elf::{BareCode, ElfError, ElfModule, ElfModules, Origin, image};

/// Types of the auxiliary vector (`include/uapi/linux/auxvec.h`).
const AT_PHDR: u64 = 3;
const AT_PHNUM: u64 = 5;
const AT_PAGESZ: u64 = 6;
const AT_BASE: u64 = 7;
const AT_ENTRY: u64 = 9;
const AT_SYSINFO_EHDR: u64 = 33;

/// How often one file may be loaded: dynamic loaders load it once, for each of their namespaces.
const MAX_BIASES: usize = 32;

/// What looking for a module in the core costs, whether there is one or not.
const IMAGE_COST: u64 = 64 << 10;

/// What there is to find them with, and what has been found so far.
pub(super) struct Finder<'c> {
    pub(super) headers: &'c Headers,
    pub(super) contents: &'c Contents,
    pub(super) notes: &'c Notes,
    pub(super) search: &'c FileSearch,
    pub(super) problems: &'c mut Vec<CoreProblem>,
    files: Files,
    page: u64,
    /// How many bytes of modules may still be put together from the core: no more than it has.
    image_room: u64,
    modules: Vec<ElfModule>,
    /// Of the modules, ascending, without overlaps.
    code: Vec<Range<u64>>,
    pieces: Vec<FilePiece>,
    missing: Vec<MissingFile>,
}

/// Everything about modules.
pub(super) struct Found {
    pub(super) modules: ElfModules,
    pub(super) pieces: Vec<FilePiece>,
    pub(super) files: Vec<Contents>,
    pub(super) missing: Vec<MissingFile>,
    /// Whether the core's segments tell of all code, also of what they leave out.
    pub(super) lists_all_code: bool,
}

/// Contents of a module: the tables, where they come from, and the file's index if it is one.
struct Loadable {
    tables: Arc<ElfTables>,
    origin: Origin,
    file: Option<usize>,
}

impl<'c> Finder<'c> {
    pub(super) fn new(
        headers: &'c Headers,
        contents: &'c Contents,
        notes: &'c Notes,
        search: &'c FileSearch,
        problems: &'c mut Vec<CoreProblem>,
    ) -> Self {
        let page = notes.aux(AT_PAGESZ).filter(|page| page.is_power_of_two() && *page <= 1 << 20);
        let present = headers.memory.iter().map(|segment| segment.present);
        Finder {
            headers,
            contents,
            notes,
            search,
            problems,
            files: Files::default(),
            page: page.unwrap_or(4096),
            image_room: present.fold(0, u64::saturating_add).min(image::MAX_IMAGE),
            modules: Vec::new(),
            code: Vec::new(),
            pieces: Vec::new(),
            missing: Vec::new(),
        }
    }

    pub(super) fn find(mut self, arch: AnyArch) -> Found {
        match &self.notes.files {
            Some(files) => self.by_file_list(files),
            None => self.by_program(),
        }
        self.vdso();
        let bare = self.bare_code();
        let lists_all_code = !self.modules.is_empty() && self.code.iter().all(|range| self.is_listed(range));
        self.modules.retain(|module| !module.ranges.is_empty());
        self.modules.sort_by_key(|module| module.ranges.first().map(|range| range.start));
        Found {
            modules: ElfModules::new(arch, self.modules, bare),
            pieces: in_order(self.pieces),
            files: self.files.contents,
            missing: self.missing,
            lists_all_code,
        }
    }

    /// By `NT_FILE`, which says for each mapping which part of which file it shows.
    fn by_file_list(&mut self, files: &'c [MappedFile]) {
        let mut by_name: BTreeMap<&[u8], Vec<&MappedFile>> = BTreeMap::new();
        for file in files {
            by_name.entry(&file.name).or_default().push(file);
        }
        let program = self.notes.aux(AT_PHDR).or(self.notes.aux(AT_ENTRY));
        for (name, shown) in by_name {
            let code: Vec<&MappedFile> =
                shown.iter().copied().filter(|file| self.may_be_code(file)).collect();
            if code.is_empty() {
                continue;
            }
            if self.modules.len().saturating_add(self.missing.len()) >= MAX_MODULES {
                self.problems.push(CoreProblem::ModuleList);
                return;
            }
            let (path, deleted) = path_and_mark(name);
            let is_program = program
                .is_some_and(|address| shown.iter().any(|file| (file.start..file.end).contains(&address)));
            let here = match &self.search.executable {
                Some(executable) if is_program => executable.clone(),
                _ => self.search.find(&path),
            };
            if let Err(error) = self.shown(&path, deleted, &here, &shown, &code) {
                if is_program && self.search.executable.is_some() && error == ElfError::OtherBuild {
                    self.problems.push(CoreProblem::OtherProgram);
                }
                // Data, of which the core does not say that it is none of code.
                let is_data = code.iter().all(|file| self.is_code(file.start).is_none());
                if error != ElfError::NotElf || !is_data {
                    self.missing.push(MissingFile { path, error });
                }
            }
        }
    }

    /// A file by its mappings, `code` of which may be executable: from here, if it is the same,
    /// else from the core, if that has it.
    fn shown(
        &mut self,
        path: &Path,
        deleted: bool,
        here: &Path,
        shown: &[&MappedFile],
        code: &[&MappedFile],
    ) -> Result<(), ElfError> {
        let mut error = ElfError::DoesNotFit;
        let opened = self.files.open(here);
        match &opened {
            Ok(file) => {
                let biases = self.biases(&file.tables, code);
                let mut memory = CoreMemory::of_core(self.headers, self.contents);
                let likeness: Vec<_> =
                    biases.iter().map(|bias| compare(&file.tables, *bias, &mut memory)).collect();
                if likeness.contains(&Likeness::Different) {
                    error = ElfError::OtherBuild;
                } else if !biases.is_empty() {
                    let origin = Origin::File(here.to_owned());
                    for (bias, likeness) in biases.into_iter().zip(likeness) {
                        let loadable = Loadable {
                            tables: Arc::clone(&file.tables),
                            origin: origin.clone(),
                            file: Some(file.index),
                        };
                        self.place(path, deleted, loadable, bias, likeness == Likeness::Same);
                    }
                    return Ok(());
                }
            }
            Err(other) => error = *other,
        }
        let mut placed = false;
        for first in shown.iter().filter(|file| file.offset == 0).take(MAX_BIASES) {
            if let Some(loadable) = self.in_core(first.start) {
                for bias in self.biases(&loadable.tables, &[first]) {
                    let Loadable { tables, origin, .. } = &loadable;
                    let loadable =
                        Loadable { tables: Arc::clone(tables), origin: origin.clone(), file: None };
                    self.place(path, deleted, loadable, bias, true);
                    placed = true;
                }
            }
        }
        if placed { Ok(()) } else { Err(error) }
    }

    fn biases(&self, tables: &ElfTables, mappings: &[&MappedFile]) -> Vec<u64> {
        let bias = |file: &&MappedFile| {
            let executable = self.is_code(file.start).unwrap_or(false);
            let bias =
                tables.bias(file.start, file.end.saturating_sub(file.start), file.offset, executable)?;
            Some(self.headers.word.truncate(bias))
        };
        let mut biases: Vec<u64> = mappings.iter().filter_map(bias).collect();
        biases.sort_unstable();
        biases.dedup();
        biases.truncate(MAX_BIASES);
        biases
    }

    /// Without `NT_FILE`: by the program, which the auxiliary vector tells the place of, and the
    /// dynamic loader's list, which the program leads to.
    fn by_program(&mut self) {
        let Some((tables, bias)) = self.program() else {
            self.problems.push(CoreProblem::NoProgram);
            return;
        };
        let word = self.headers.word;
        let mut list = Vec::new();
        if let Some(dynamic) = tables.start.dynamic {
            // Names of libraries are also in the part of files that the core leaves out.
            let pieces = in_order(self.pieces.clone());
            let mut memory = CoreMemory {
                headers: self.headers,
                contents: self.contents,
                pieces: &pieces,
                files: &self.files.contents,
            };
            let mut map = LinkMap { memory: &mut memory, word, order: self.headers.order };
            let whole = map.read(word.wrapping_offset(dynamic, bias), &mut list);
            if whole.is_none() && tables.start.interpreter.is_some() {
                self.problems.push(CoreProblem::ModuleList);
            }
        }
        // The first is the program. The vDSO has a name without a path, which qemu leaves out.
        let vdso = self.notes.aux(AT_SYSINFO_EHDR);
        for linked in list.iter().skip(1) {
            match &linked.name {
                Some(name) if name.contains(&b'/') => {
                    self.linked(&path(name), |_| Some(word.truncate(linked.bias)));
                }
                None if vdso != Some(linked.bias) => self.problems.push(CoreProblem::ModuleList),
                _ => {}
            }
        }
        let base = self.notes.aux(AT_BASE).filter(|base| *base != 0);
        if let (Some(base), Some(interpreter)) = (base, &tables.start.interpreter)
            && !self.modules.iter().any(|module| self.is_first_address(module, base))
        {
            // It has crashed before it could list itself.
            self.linked(&path(interpreter), |tables| {
                let first = tables.loads.iter().map(|load| load.svma).min()?;
                Some(word.truncate(base.wrapping_sub(first)))
            });
        }
    }

    /// Whether the loaded file begins at `address`.
    fn is_first_address(&self, module: &ElfModule, address: u64) -> bool {
        let first = module.tables.loads.iter().map(|load| load.svma).min();
        first.is_some_and(|first| {
            let start = self.headers.word.wrapping_offset(first, module.bias);
            start & !self.page.wrapping_sub(1) == address
        })
    }

    /// A file of the dynamic loader's list.
    fn linked(&mut self, path: &Path, bias: impl Fn(&ElfTables) -> Option<u64>) {
        let here = self.search.find(path);
        let added = self.files.open(&here).and_then(|file| {
            let bias = bias(&file.tables).ok_or(ElfError::DoesNotFit)?;
            let mut memory = CoreMemory::of_core(self.headers, self.contents);
            let likeness = compare(&file.tables, bias, &mut memory);
            if likeness == Likeness::Different {
                return Err(ElfError::OtherBuild);
            }
            let loadable =
                Loadable { tables: file.tables, origin: Origin::File(here.clone()), file: Some(file.index) };
            self.place(path, false, loadable, bias, likeness == Likeness::Same);
            Ok(())
        });
        if let Err(error) = added {
            self.missing.push(MissingFile { path: path.to_owned(), error });
        }
    }

    /// Adds the program: the file that was given; the one that the command line names; or what is
    /// in memory. Its tables and its bias.
    fn program(&mut self) -> Option<(Arc<ElfTables>, u64)> {
        let named = self.notes.process.command.split(|byte| *byte == b' ').next().unwrap_or_default();
        let named = Some(path(named)).filter(|path| path.is_absolute()).map(|path| self.search.find(&path));
        let given = self.search.executable.clone();
        let is_given = given.is_some();
        let in_file = given.or(named).and_then(|here| self.program_in_file(&here, is_given));
        if in_file.is_some() {
            return in_file;
        }
        // The program headers lie right behind the ELF header, as all linkers put them.
        let header = match self.headers.word {
            unwind_core::WordSize::Four => 52,
            unwind_core::WordSize::Eight => 64,
        };
        let loadable = self.in_core(self.notes.aux(AT_PHDR)?.checked_sub(header)?)?;
        let bias = self.bias_of_program(&loadable.tables)?;
        let tables = Arc::clone(&loadable.tables);
        let name = path(&self.notes.process.name);
        self.place(&name, false, loadable, bias, true);
        Some((tables, bias))
    }

    fn program_in_file(&mut self, here: &Path, is_given: bool) -> Option<(Arc<ElfTables>, u64)> {
        let file = match self.files.open(here) {
            Ok(file) => file,
            Err(error) => {
                if is_given {
                    self.missing.push(MissingFile { path: here.to_owned(), error });
                }
                return None;
            }
        };
        let mut memory = CoreMemory::of_core(self.headers, self.contents);
        let bias = self.bias_of_program(&file.tables);
        let likeness = bias.map(|bias| compare(&file.tables, bias, &mut memory));
        let (Some(bias), Some(likeness @ (Likeness::Same | Likeness::Unknown))) = (bias, likeness) else {
            if is_given {
                self.problems.push(CoreProblem::OtherProgram);
            }
            return None;
        };
        let tables = Arc::clone(&file.tables);
        let origin = Origin::File(here.to_owned());
        let loadable = Loadable { tables: file.tables, origin, file: Some(file.index) };
        self.place(here, false, loadable, bias, likeness == Likeness::Same);
        Some((tables, bias))
    }

    /// The bias of the program, if the auxiliary vector can be that of this file. Without an
    /// auxiliary vector, a program that is linked to where it runs has none.
    fn bias_of_program(&self, tables: &ElfTables) -> Option<u64> {
        let word = self.headers.word;
        if (tables.machine, tables.word_size, tables.byte_order)
            != (self.headers.machine, word, self.headers.order)
        {
            return None;
        }
        let entry =
            self.notes.aux(AT_ENTRY).map(|entry| word.truncate(entry.wrapping_sub(tables.start.entry)));
        let headers = self.notes.aux(AT_PHDR).zip(tables.start.headers);
        let headers = headers.map(|(avma, svma)| word.truncate(avma.wrapping_sub(svma)));
        let count = self.notes.aux(AT_PHNUM).unwrap_or(tables.start.header_count);
        match (headers, entry) {
            _ if count != tables.start.header_count => None,
            (Some(headers), Some(entry)) if headers != entry => None,
            (Some(bias), _) | (None, Some(bias)) => Some(bias),
            (None, None) => Some(0),
        }
    }

    /// The vDSO, which is in the core wholly.
    fn vdso(&mut self) {
        let Some(start) = self.notes.aux(AT_SYSINFO_EHDR) else { return };
        let Some(segment) = self.headers.segment(start) else { return };
        let mut memory = CoreMemory::of_core(self.headers, self.contents);
        let image = image::of_mapping(&mut memory, start, segment.last.saturating_add(1));
        let Ok(Ok(image)) = image else { return };
        let Ok(tables) = ElfTables::read(image.as_slice()) else { return };
        let Some(first) = tables.loads.iter().map(|load| load.svma).min() else { return };
        let bias = self.headers.word.truncate(start.wrapping_sub(first));
        let loadable = Loadable { tables: Arc::new(tables), origin: Origin::Memory(image), file: None };
        self.place(Path::new("[vdso]"), false, loadable, bias, true);
    }

    /// The file that begins at `start` (avma), as far as the core has it. Tables that are not there
    /// wholly are left out; `None` where none is left.
    fn in_core(&mut self, start: u64) -> Option<Loadable> {
        let mut memory = CoreMemory::of_core(self.headers, self.contents);
        memory.read(start, &mut [0; 16]).ok()?;
        let most = self.image_room;
        self.image_room = most.checked_sub(1)?.saturating_sub(IMAGE_COST);
        let image = image::of_segments(&mut memory, start, most).ok()?.ok()?;
        self.image_room = most.saturating_sub(u64::try_from(image.len()).unwrap_or(u64::MAX));
        let mut tables = ElfTables::read(image.as_slice()).ok()?;
        let first = tables.loads.iter().min_by_key(|load| load.offset)?;
        let bias = start.wrapping_add(first.offset).wrapping_sub(first.svma);
        let word = self.headers.word;
        for section in [&mut tables.eh_frame, &mut tables.eh_frame_hdr, &mut tables.sframe] {
            let is_there = section.as_ref().is_some_and(|section| {
                let mut bytes = vec![0; section.data.len()];
                memory.read(word.wrapping_offset(section.svma, bias), &mut bytes).is_ok()
            });
            if !is_there {
                *section = None;
            }
        }
        (tables.debug_frame, tables.ehabi) = (None, None);
        let any = tables.eh_frame.is_some() || tables.sframe.is_some();
        any.then(|| Loadable { tables: Arc::new(tables), origin: Origin::Memory(image), file: None })
    }

    /// Adds a module, unless others are all over its place already.
    fn place(&mut self, path: &Path, deleted: bool, loadable: Loadable, bias: u64, verified: bool) {
        let Loadable { tables, origin, file } = loadable;
        let word = self.headers.word;
        let in_page = self.page.wrapping_sub(1);
        let (mut ranges, mut pieces) = (Vec::new(), Vec::new());
        for load in &tables.loads {
            let start = word.wrapping_offset(load.svma, bias);
            if load.executable
                && let Some(end) = start.checked_add(load.memory_size)
                && let Some(end) = end.checked_add(in_page).map(|end| end & !in_page)
                && end.wrapping_sub(1) <= word.max_address()
            {
                ranges.extend(without(start & !in_page..end, &self.code));
            }
            if let Some(file) = file
                && !load.writable
                && let Some(size) = load.file_size.checked_sub(1)
                && let Some(last) = start.checked_add(size)
            {
                // A mapping begins with a page.
                let before = (start & in_page).min(load.offset);
                let start = start.wrapping_sub(before);
                pieces.push(FilePiece { start, last, offset: load.offset.wrapping_sub(before), file });
            }
        }
        if ranges.is_empty() || self.modules.len() >= MAX_MODULES {
            return;
        }
        ranges.sort_by_key(|range| range.start);
        self.pieces.extend(pieces);
        self.code.extend(ranges.iter().cloned());
        self.code.sort_by_key(|range| range.start);
        self.modules.push(ElfModule {
            path: path.to_owned(),
            deleted,
            bias,
            ranges,
            origin,
            sframe_error: None,
            verified,
            tables,
        });
    }

    /// What the core's segments say is executable and no module has, and mappings of missing files
    /// that may be.
    fn bare_code(&self) -> Vec<BareCode> {
        let mut files: Vec<&MappedFile> = self.notes.files.iter().flatten().collect();
        files.sort_by_key(|file| file.start);
        let errors: BTreeMap<&Path, ElfError> =
            self.missing.iter().map(|missing| (missing.path.as_path(), missing.error)).collect();
        let segments = self.headers.memory.iter().filter(|segment| segment.executable);
        let segments = segments.filter_map(|segment| Some(segment.start..segment.last.checked_add(1)?));
        let unlisted = files.iter().filter(|file| {
            self.is_code(file.start).is_none() && errors.contains_key(path_and_mark(&file.name).0.as_path())
        });
        let unlisted = unlisted.map(|file| file.start..file.end);
        let mut ranges: Vec<Range<u64>> = segments.chain(unlisted).collect();
        ranges.sort_by_key(|range| range.start);
        let mut bare: Vec<BareCode> = Vec::new();
        let mut end = 0;
        for range in ranges {
            for range in without(range.start.max(end)..range.end, &self.code) {
                end = range.end;
                let index = files.partition_point(|file| file.start <= range.start).checked_sub(1);
                let file = index.and_then(|index| files.get(index)).filter(|file| range.start < file.end);
                let name = file.map(|file| path_and_mark(&file.name).0);
                let error = name.as_ref().and_then(|name| errors.get(name.as_path()).copied());
                bare.push(BareCode { range, name, error });
            }
        }
        bare
    }

    /// Whether there is code at `address`; `None` where the core does not list that address.
    fn is_code(&self, address: u64) -> Option<bool> {
        Some(self.headers.segment(address)?.executable)
    }

    fn may_be_code(&self, file: &MappedFile) -> bool {
        self.is_code(file.start).unwrap_or(true)
    }

    fn is_listed(&self, range: &Range<u64>) -> bool {
        self.is_code(range.start) == Some(true)
    }
}

/// In ascending order; of two that overlap the one that begins first stays.
fn in_order(mut pieces: Vec<FilePiece>) -> Vec<FilePiece> {
    pieces.sort_by_key(|piece| piece.start);
    let mut last = None;
    pieces.retain(|piece| {
        let stays = last.is_none_or(|last| piece.start > last);
        last = if stays { Some(piece.last) } else { last };
        stays
    });
    pieces
}

/// What is left of a range without those in `taken`, which are sorted and free of overlaps.
fn without(range: Range<u64>, taken: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    let mut start = range.start;
    let first = taken.partition_point(|other| other.end <= range.start);
    for other in taken.iter().skip(first).take_while(|other| other.start < range.end) {
        if other.start > start {
            left.push(start..other.start);
        }
        start = start.max(other.end);
    }
    if start < range.end {
        left.push(start..range.end);
    }
    left
}

/// A path as the kernel writes it, without its mark that the file was deleted, and whether it had one.
fn path_and_mark(name: &[u8]) -> (PathBuf, bool) {
    match name.strip_suffix(b" (deleted)") {
        Some(name) => (path(name), true),
        None => (path(name), false),
    }
}

/// A path of the target.
fn path(name: &[u8]) -> PathBuf {
    #[cfg(unix)]
    {
        PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name))
    }
    #[cfg(not(unix))]
    {
        PathBuf::from(String::from_utf8_lossy(name).into_owned())
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn ranges_without_others() {
        let taken = [10..20, 30..40];
        for (range, want) in [
            (0..5, vec![0..5]),
            (0..10, vec![0..10]),
            (0..15, vec![0..10]),
            (15..18, vec![]),
            (15..25, vec![20..25]),
            (20..30, vec![20..30]),
            (0..50, vec![0..10, 20..30, 40..50]),
            (10..40, vec![20..30]),
            (40..41, vec![40..41]),
        ] {
            assert_eq!(without(range.clone(), &taken), want, "{range:?}");
        }
        assert_eq!(without(3..4, &[]), [3..4]);
    }
}
