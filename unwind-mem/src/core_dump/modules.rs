//! Finding the ELF modules of a core dump.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use unwind_arch::AnyArch;
use unwind_core::MemoryReader;

use super::contents::Contents;
use super::files::{FileSearch, Files};
use super::link_map::MAX_MODULES;
use super::memory::{CoreMemory, FilePiece};
use super::notes::{MappedFile, Notes};
use super::segments::Headers;
use super::{CoreProblem, MissingFile};
use crate::elf::tables::ElfTables;
use crate::elf::{BareCode, ElfError, ElfModule, ElfModules, Origin, image};

mod file_list;
mod program;

/// Types of the auxiliary vector (`include/uapi/linux/auxvec.h`).
const AT_PHDR: u64 = 3;
const AT_PAGESZ: u64 = 6;
const AT_ENTRY: u64 = 9;
const AT_SYSINFO_EHDR: u64 = 33;

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
        let lists_all_code = !self.modules.is_empty() && self.code.iter().all(|range| self.is_listed(range));
        let unreadable = self.vdso_left_out();
        self.code.extend(unreadable.iter().cloned());
        self.code.sort_by_key(|range| range.start);
        let bare = self.bare_code();
        self.modules.retain(|module| !module.ranges.is_empty());
        self.modules.sort_by_key(|module| module.ranges.first().map(|range| range.start));
        Found {
            modules: ElfModules::new(arch, self.modules, bare)
                .with_unreadable(unreadable)
                .with_entry(self.notes.aux(AT_ENTRY)),
            pieces: in_order(self.pieces),
            files: self.files.contents,
            missing: self.missing,
            lists_all_code,
        }
    }

    /// The first page of the vDSO, where the core has nothing of it, as those that qemu writes from version
    /// 8.2 on: the trampolines of signal handlers are there.
    fn vdso_left_out(&self) -> Vec<Range<u64>> {
        let Some(start) = self.notes.aux(AT_SYSINFO_EHDR) else { return Vec::new() };
        let mut memory = CoreMemory::of_core(self.headers, self.contents);
        if memory.read(start, &mut [0; 4]).is_ok() {
            return Vec::new();
        }
        match start.checked_add(self.page) {
            Some(end) if end.wrapping_sub(1) <= self.headers.word.max_address() => {
                without(start..end, &self.code)
            }
            _ => Vec::new(),
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
