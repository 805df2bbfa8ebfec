//! The unwind tables of captured modules, ready for walks.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use unwind_core::dwarf::{DwarfIndex, DwarfIndexEntry, DwarfSections, DwarfSource, Flavor, Section};
use unwind_core::ehabi::EhabiSource;
use unwind_core::sframe::SFrameSource;
use unwind_core::{Arch, Module, Pc};

use super::ehabi;
use super::module::CapturedModule;
use super::run::Run;
use super::sframe::SFrameTables;
use crate::oracle::cfi;

/// A kind of table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Call frame information.
    Dwarf,
    /// SFrame.
    SFrame,
    /// ARM's exception handling tables, and call frame information where a module has it. The former count as tables
    /// of return pcs only.
    Ehabi,
}

/// A module's tables, kept for the rest of the process.
pub struct Tables {
    /// The file's name.
    pub name: String,
    /// Its executable segments (svma).
    pub code: Vec<Range<u64>>,
    /// Its call frame information.
    pub sections: DwarfSections<'static>,
    /// The same, for gimli.
    pub for_gimli: DwarfSections<'static>,
    /// The addresses (svma) that FDEs cover, as gimli reads them; sorted.
    covered: Vec<Range<u64>>,
    sframe: Option<SFrameTables>,
    ehabi: Option<EhabiSource<'static>>,
}

impl Tables {
    /// Where there is no `.eh_frame_hdr`, an index is built.
    pub fn new<A: Arch>(arch: &A, module: CapturedModule) -> &'static Self {
        let module: &'static CapturedModule = Box::leak(Box::new(module));
        let section = |name| {
            let section = module.section(name)?;
            Some(Section { data: &section.data, svma: section.svma })
        };
        let mut sections = DwarfSections {
            eh_frame: section(".eh_frame"),
            eh_frame_hdr: section(".eh_frame_hdr"),
            debug_frame: section(".debug_frame"),
            ..DwarfSections::default()
        };
        if sections.eh_frame_hdr.is_none()
            && let Ok(count) = DwarfIndex::room(arch, &sections, Flavor::EhFrame)
        {
            let room = vec![DwarfIndexEntry::default(); count].leak();
            sections.eh_frame_index = DwarfIndex::build(arch, &sections, Flavor::EhFrame, room).ok();
        }
        if let Ok(count) = DwarfIndex::room(arch, &sections, Flavor::DebugFrame) {
            let room = vec![DwarfIndexEntry::default(); count].leak();
            sections.debug_frame_index = DwarfIndex::build(arch, &sections, Flavor::DebugFrame, room).ok();
        }
        let mut for_gimli = sections;
        for_gimli.eh_frame =
            sections.eh_frame.map(|section| Section { data: without_key(section.data), ..section });
        let covered = cfi::covered(&for_gimli);
        let (name, code) = (module.name.clone(), module.code.clone());
        let sframe = section(".sframe").map(SFrameTables::new);
        let ehabi = ehabi::source(arch.byte_order(), module, &code);
        Box::leak(Box::new(Tables { name, code, sections, for_gimli, covered, sframe, ehabi }))
    }

    /// The row of this kind of table for `svma`, for people.
    pub(super) fn row(&self, kind: Kind, svma: u64) -> Option<String> {
        match kind {
            Kind::Dwarf => cfi::row(&self.for_gimli, svma),
            Kind::SFrame => self.sframe.as_ref()?.row(svma),
            Kind::Ehabi if self.covers(svma) => cfi::row(&self.for_gimli, svma),
            Kind::Ehabi => ehabi::row(self.ehabi.as_ref()?, svma),
        }
    }

    fn covers(&self, svma: u64) -> bool {
        let after = self.covered.partition_point(|range| range.start <= svma);
        after.checked_sub(1).is_some_and(|index| self.covered[index].contains(&svma))
    }
}

/// `.eh_frame` with `S` (a signal frame) where an augmentation says `B` (return addresses are signed with key B):
/// gimli does not know that letter, and what it says about coverage and rows is the same for both.
fn without_key(section: &[u8]) -> &'static [u8] {
    let section = section.to_vec().leak();
    let mut entries = &mut *section;
    // An entry: its length, then 0 for a CIE, its version, and the augmentation up to a 0.
    while let Some((length, rest)) = entries.split_first_chunk_mut::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 || length > rest.len() {
            break;
        }
        let (entry, rest) = rest.split_at_mut(length);
        if let Some((&mut [0, 0, 0, 0, _], rest)) = entry.split_first_chunk_mut::<5>() {
            let letters = rest.iter_mut().take_while(|letter| **letter != 0);
            letters.filter(|letter| **letter == b'B').for_each(|letter| *letter = b'S');
        }
        entries = rest;
    }
    section
}

/// The modules of a folder, each read once.
pub struct Library<A> {
    arch: A,
    folder: PathBuf,
    read: HashMap<String, &'static Tables>,
}

impl<A: Arch> Library<A> {
    /// The `*.module` files in `folder`.
    pub fn new(arch: A, folder: &Path) -> Self {
        Library { arch, folder: folder.to_owned(), read: HashMap::new() }
    }

    /// The module of this name.
    ///
    /// # Errors
    /// Where there is none, or it is malformed.
    pub fn get(&mut self, name: &str) -> io::Result<&'static Tables> {
        if let Some(tables) = self.read.get(name) {
            return Ok(tables);
        }
        let file = std::fs::read(self.folder.join(format!("{name}.module")))?;
        let tables = Tables::new(&self.arch, CapturedModule::from_file(&file).map_err(io::Error::other)?);
        self.read.insert(name.to_owned(), tables);
        Ok(tables)
    }
}

/// The modules of a run where they were loaded.
pub struct Loaded {
    mapped: Vec<(Range<u64>, u64, &'static Tables)>,
    /// The same, for a walk by call frame information.
    pub map: Vec<Module<DwarfSource<'static>>>,
    /// The same, for a walk by SFrame.
    pub sframe: Vec<Module<Option<SFrameSource<'static>>>>,
    /// The same, for a walk by ARM's tables beside call frame information.
    pub ehabi: Vec<Module<(DwarfSource<'static>, Option<EhabiSource<'static>>)>>,
}

impl Loaded {
    /// The modules of `run`.
    ///
    /// # Errors
    /// As for [`Library::get`].
    pub fn new<A: Arch>(library: &mut Library<A>, run: &Run) -> io::Result<Self> {
        let mut mapped = Vec::new();
        for module in &run.modules {
            let tables = library.get(&module.name)?;
            let avma = |svma: u64| svma.wrapping_add(module.bias);
            let ranges =
                tables.code.iter().map(|code| (avma(code.start)..avma(code.end), module.bias, tables));
            mapped.extend(ranges);
        }
        mapped.sort_by_key(|(range, ..)| range.start);
        let sframe = |tables: &Tables| Some(tables.sframe.as_ref()?.source);
        Ok(Loaded {
            map: modules(&mapped, |tables| DwarfSource::new(tables.sections)),
            sframe: modules(&mapped, sframe),
            ehabi: modules(&mapped, |tables| (DwarfSource::new(tables.sections), tables.ehabi)),
            mapped,
        })
    }

    /// The module at `address` (avma), and the address as its file states it.
    pub fn at(&self, address: u64) -> Option<(&'static Tables, u64)> {
        let (_, bias, tables) = self.mapped.iter().find(|(range, ..)| range.contains(&address))?;
        Some((tables, address.wrapping_sub(*bias)))
    }

    /// Whether a table of this kind covers `pc`.
    pub fn covers(&self, kind: Kind, pc: Pc) -> bool {
        let Some((tables, svma)) = self.at(pc.lookup_address()) else { return false };
        match kind {
            Kind::Dwarf => tables.covers(svma),
            Kind::SFrame => tables.sframe.as_ref().is_some_and(|sframe| sframe.covers(svma)),
            Kind::Ehabi => {
                let at_calls = || tables.ehabi.as_ref().is_some_and(|source| ehabi::covers(source, svma));
                tables.covers(svma) || !pc.is_exact() && at_calls()
            }
        }
    }
}

fn modules<S>(
    mapped: &[(Range<u64>, u64, &'static Tables)],
    source: impl Fn(&Tables) -> S,
) -> Vec<Module<S>> {
    let module = |(range, bias, tables): &(Range<u64>, u64, &'static Tables)| Module {
        start: range.start,
        end: range.end,
        bias: *bias,
        source: source(tables),
    };
    mapped.iter().map(module).collect()
}
