//! Modules by the program and the dynamic loader's list: for cores without a list of files.

use std::path::Path;
use std::sync::Arc;

use super::super::files::{Likeness, compare};
use super::super::link_map::LinkMap;
use super::super::memory::CoreMemory;
use super::super::{CoreProblem, MissingFile};
use super::{AT_ENTRY, AT_PHDR, AT_SYSINFO_EHDR, Finder, Loadable, in_order, path};
use crate::elf::tables::ElfTables;
use crate::elf::{ElfError, ElfModule, Origin};

/// Types of the auxiliary vector (`include/uapi/linux/auxvec.h`).
const AT_PHNUM: u64 = 5;
const AT_BASE: u64 = 7;

impl Finder<'_> {
    /// Without `NT_FILE`: by the program, which the auxiliary vector tells the place of, and the
    /// dynamic loader's list, which the program leads to.
    pub(super) fn by_program(&mut self) {
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
        let vdso = self.notes.aux(AT_SYSINFO_EHDR).and_then(|start| self.headers.segment(start)).copied();
        for linked in list.iter().skip(1) {
            match &linked.name {
                Some(name) if name.contains(&b'/') => {
                    self.linked(&path(name), |_| Some(word.truncate(linked.bias)));
                }
                None if vdso != self.headers.segment(linked.dynamic).copied() => {
                    self.problems.push(CoreProblem::ModuleList);
                }
                _ => {}
            }
        }
        let base = self.notes.aux(AT_BASE).filter(|base| *base != 0);
        if let (Some(base), Some(interpreter)) = (base, &tables.start.interpreter)
            && !self.modules.iter().any(|module| self.is_first_address(module, base))
            && !self.missing.iter().any(|missing| missing.path == path(interpreter))
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
}
