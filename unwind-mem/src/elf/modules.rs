//! ELF files where they are loaded.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use unwind_arch::AnyArch;
use unwind_core::dwarf::{DwarfIndex, DwarfIndexEntry, DwarfSections, DwarfSource, Flavor};
use unwind_core::ehabi::EhabiSource;
use unwind_core::sframe::{SFrameIndex, SFrameIndexEntry};
use unwind_core::{Module, SourceError};

use super::tables::{ElfTables, OwnedSection};
use super::{ElfError, ElfSource};

/// What is executable in a target, and the unwind tables for it: read once, owned here, borrowed
/// by [`sources`](ElfModules::sources).
#[derive(Debug)]
pub struct ElfModules {
    arch: AnyArch,
    modules: Vec<ElfModule>,
    bare: Vec<BareCode>,
    /// Code that is known to be there and cannot be read (avma).
    unreadable: Vec<Range<u64>>,
    entry: Option<u64>,
}

/// An ELF file as it is loaded in a target. A file that is loaded twice is two of these.
#[derive(Debug)]
pub struct ElfModule {
    /// Its path as the target sees it, or a name like `[vdso]`.
    pub path: PathBuf,
    /// Whether the file at this path was deleted (or replaced by renaming another one to it).
    pub deleted: bool,
    /// The load bias: avma minus svma, modulo the address space.
    pub bias: u64,
    /// Its executable addresses (avma), ascending.
    pub ranges: Vec<Range<u64>>,
    /// Where the file's contents were found.
    pub origin: Origin,
    /// What is wrong with its `.sframe`, which is then left aside: it is of a version that is not
    /// known, or for another ABI.
    pub sframe_error: Option<SourceError>,
    /// Whether the contents are known to be those that were mapped: the kernel said so, or headers
    /// and build id were there to be compared with the target's memory.
    pub verified: bool,
    pub(crate) tables: Arc<ElfTables>,
}

/// Where a module's contents were found: for reading symbols from the same place.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Origin {
    /// A path that this process can open. Under `/proc/PID` it is valid as long as that process.
    File(PathBuf),
    /// The target's memory: a file's contents without what is not loaded (section headers,
    /// symbol tables, debug information).
    Memory(Vec<u8>),
}

/// Executable memory without unwind tables: code that was generated at run time, or a file that
/// could not be used.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BareCode {
    /// Its addresses (avma).
    pub range: Range<u64>,
    /// The name in the target's map, if it has one.
    pub name: Option<PathBuf>,
    /// Why the file was of no use; `None` where there is none.
    pub error: Option<ElfError>,
}

/// Room for the indexes of those tables that cannot be searched as they are; see
/// [`ElfModules::sources`].
#[derive(Debug, Default)]
pub struct IndexRoom(Vec<ModuleRoom>);

#[derive(Debug, Default)]
struct ModuleRoom {
    eh_frame: Vec<DwarfIndexEntry>,
    debug_frame: Vec<DwarfIndexEntry>,
    sframe: Vec<SFrameIndexEntry>,
}

impl ElfModules {
    /// The modules of a target of this architecture, and what else is executable there.
    pub(crate) fn new(arch: AnyArch, mut modules: Vec<ElfModule>, bare: Vec<BareCode>) -> Self {
        for module in &mut modules {
            module.sframe_error = module.tables.check_sframe(&arch).err();
        }
        ElfModules { arch, modules, bare, unreadable: Vec::new(), entry: None }
    }

    /// The same with code that is known to be there and cannot be read: apart from the other ranges.
    #[cfg(feature = "core-dump")]
    pub(crate) fn with_unreadable(mut self, unreadable: Vec<Range<u64>>) -> Self {
        self.unreadable = unreadable;
        self
    }

    /// The same for a target whose program begins at `entry` (avma).
    pub(crate) fn with_entry(mut self, entry: Option<u64>) -> Self {
        self.entry = entry;
        self
    }

    /// Where the program begins (avma), without the bit that stands for Arm's T32 code: the auxiliary
    /// vector's `AT_ENTRY`. The function that begins there is the outermost one of the main thread,
    /// which not every C library's tables say: with its symbol's size it makes
    /// [`Options::entry_function`](unwind_core::Options::entry_function).
    pub fn entry(&self) -> Option<u64> {
        let is_arm = matches!(self.arch, AnyArch::Arm(_));
        self.entry.map(|entry| if is_arm { entry & !1 } else { entry })
    }

    /// The architecture of the target's program.
    pub fn arch(&self) -> AnyArch {
        self.arch
    }

    /// The modules that have code, in ascending order of their addresses.
    pub fn modules(&self) -> &[ElfModule] {
        &self.modules
    }

    /// Executable memory that belongs to none of the modules.
    pub fn bare_code(&self) -> &[BareCode] {
        &self.bare
    }

    /// The module with code at `address` (avma).
    pub fn find(&self, address: u64) -> Option<&ElfModule> {
        self.modules.iter().find(|module| module.ranges.iter().any(|range| range.contains(&address)))
    }

    /// Sources of rules for everything executable: what [`ModuleMap`](unwind_core::ModuleMap)
    /// takes, sorted. It may be called [`complete`](unwind_core::ModuleMap::complete) for a
    /// process that was stopped when this was read.
    ///
    /// `room` will hold the indexes of modules without a search table, which would be scanned
    /// from their beginning for every frame otherwise; start with an empty one.
    pub fn sources<'m>(&'m self, room: &'m mut IndexRoom) -> Vec<Module<Option<ElfSource<'m>>>> {
        room.0.clear();
        room.0.resize_with(self.modules.len(), ModuleRoom::default);
        let mut sources = Vec::new();
        for (module, room) in self.modules.iter().zip(&mut room.0) {
            let source = Some(module.source(&self.arch, room));
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
        let unreadable = self.unreadable.iter();
        sources.extend(unreadable.map(|range| Module {
            start: range.start,
            end: range.end,
            bias: 0,
            source: Some(ElfSource::unreadable()),
        }));
        sources.sort_by_key(|module| module.start);
        sources
    }
}

impl ElfModule {
    /// The file's GNU build id, if it has one.
    pub fn build_id(&self) -> Option<&[u8]> {
        self.tables.build_id.as_deref()
    }

    fn source<'m>(&'m self, arch: &AnyArch, room: &'m mut ModuleRoom) -> ElfSource<'m> {
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
            sections.eh_frame_index = dwarf_index(arch, &sections, Flavor::EhFrame, &mut room.eh_frame);
        }
        sections.debug_frame_index = dwarf_index(arch, &sections, Flavor::DebugFrame, &mut room.debug_frame);
        let usable = tables.sframe.as_ref().filter(|_| self.sframe_error.is_none());
        let sframe = usable.map(|section| match sframe_index(section, &mut room.sframe) {
            Some(index) => section.sframe().with_index(index),
            None => section.sframe(),
        });
        let ehabi = tables.ehabi.as_ref().map(|tables| EhabiSource::new(tables.borrow()));
        ElfSource { sframe, dwarf: DwarfSource::new(sections), ehabi, is_unreadable: false }
    }
}

fn dwarf_index<'i>(
    arch: &AnyArch,
    sections: &DwarfSections<'_>,
    flavor: Flavor,
    room: &'i mut Vec<DwarfIndexEntry>,
) -> Option<DwarfIndex<'i>> {
    room.resize(DwarfIndex::room(arch, sections, flavor).ok()?, DwarfIndexEntry::default());
    DwarfIndex::build(arch, sections, flavor, room).ok()
}

/// An index of the first section, where its table is not sorted.
fn sframe_index<'i>(section: &OwnedSection, room: &'i mut Vec<SFrameIndexEntry>) -> Option<SFrameIndex<'i>> {
    let first = section.sframe().sections().next()?.ok()?;
    if first.header().is_sorted() {
        return None;
    }
    room.resize(usize::try_from(first.header().fde_count).ok()?, SFrameIndexEntry::default());
    SFrameIndex::build(&first, room).ok()?
}
