//! Modules by `NT_FILE`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::super::files::{Likeness, compare};
use super::super::link_map::MAX_MODULES;
use super::super::memory::CoreMemory;
use super::super::notes::MappedFile;
use super::super::{CoreProblem, MissingFile};
use super::{AT_ENTRY, AT_PHDR, Finder, Loadable, path_and_mark};
use crate::elf::tables::ElfTables;
use crate::elf::{ElfError, Origin};

/// How often one file may be loaded: dynamic loaders load it once, for each of their namespaces.
const MAX_BIASES: usize = 32;

impl<'c> Finder<'c> {
    /// By `NT_FILE`, which says for each mapping which part of which file it shows.
    pub(super) fn by_file_list(&mut self, files: &'c [MappedFile]) {
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
}
