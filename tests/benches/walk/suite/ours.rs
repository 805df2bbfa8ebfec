//! This library, in the configurations that an embedder may choose.

use std::sync::atomic::{AtomicU64, Ordering};

use unwind_arch::host::HostArch;
use unwind_core::dwarf::DwarfSource;
use unwind_core::sframe::SFrameSource;
use unwind_core::table::TableSource;
use unwind_core::{
    CacheSlot, Cached, CallerRegisters, CodeAt, Evaluated, Found, FrameSource, LookupError, MemoryReader,
    Module, ModuleMap, Options, Query, RegisterFile, RuleCache, UnwindUserType, UnwindUserTypes, Unwinder,
};
use unwind_mem::StackSnapshot;

use super::contender::Contender;
use super::tables::Tables;
use super::workload::{Sample, Workload};

/// An unwinder for each process.
pub(crate) struct Ours<S> {
    name: String,
    pub(crate) unwinders: Vec<Unwinder<HostArch, S>>,
}

impl<S: FrameSource<HostArch> + Send> Contender for Ours<S> {
    fn name(&self) -> String {
        self.name.clone()
    }

    #[inline]
    fn walk(&mut self, _: usize, sample: &Sample, pcs: &mut [u64]) -> usize {
        let memory = StackSnapshot::new(sample.address, sample.stack);
        self.unwinders[sample.process].unwind_user(&sample.registers, memory, pcs).map_or(0, |trace| trace.nr)
    }
}

pub(crate) type Map<'w, S> = ModuleMap<'w, S>;
pub(crate) type OfTable<'w> = TableSource<'w, DwarfSource<'w>>;
pub(crate) type OfSFrame<'w> = (SFrameSource<'w>, DwarfSource<'w>);

/// The frame pointer chain alone.
pub(crate) fn frame_pointer(workload: &Workload) -> Ours<()> {
    let mut options = Options::default();
    options.types = UnwindUserTypes::only(UnwindUserType::FramePointer);
    let unwinder = || Unwinder::with_options(HostArch::host(), (), options.clone());
    Ours {
        name: "ours, frame pointer".into(),
        unwinders: workload.processes.iter().map(|_| unwinder()).collect(),
    }
}

/// `.eh_frame` as it is, through `.eh_frame_hdr`.
pub(crate) fn dwarf<'w>(workload: &'w Workload) -> Ours<Map<'w, DwarfSource<'w>>> {
    of_maps("ours, DWARF in place", workload, |image| workload.images[image].dwarf())
}

/// `.sframe` as it is, and `.eh_frame` for what that cannot say.
pub(crate) fn sframe<'w>(workload: &'w Workload, tables: &'w Tables) -> Ours<Map<'w, OfSFrame<'w>>> {
    of_maps("ours, SFrame in place", workload, |image| (tables.sframe(image), workload.images[image].dwarf()))
}

/// A compiled table, and `.eh_frame` for what that leaves to it.
pub(crate) fn table<'w>(workload: &'w Workload, tables: &'w Tables) -> Ours<Map<'w, OfTable<'w>>> {
    of_maps("ours, table", workload, |image| of_table(workload, tables, image))
}

/// The same behind a cache that all processes share.
pub(crate) fn cached<'w>(
    workload: &'w Workload,
    tables: &'w Tables,
    slots: usize,
) -> Ours<Cached<'w, Map<'w, OfTable<'w>>>> {
    let room: Vec<CacheSlot> = (0..slots).map(|_| CacheSlot::new()).collect();
    let cache = RuleCache::new(room.leak());
    let uncached = table(workload, tables);
    let behind = |(generation, unwinder): (u64, &Unwinder<HostArch, Map<'w, OfTable<'w>>>)| {
        let modules = unwinder.source().modules();
        let source = ModuleMap::new(&HostArch::host(), modules).expect("it was one before");
        Unwinder::new(HostArch::host(), Cached { cache, generation, source })
    };
    Ours {
        name: format!("ours, cache of {slots} + table"),
        unwinders: (1..).zip(&uncached.unwinders).map(behind).collect(),
    }
}

/// The same, counting what the cache does not answer.
pub(crate) fn counted<'w>(
    workload: &'w Workload,
    tables: &'w Tables,
    slots: usize,
) -> Ours<Cached<'w, Counted<Map<'w, OfTable<'w>>>>> {
    let Ours { name, unwinders } = cached(workload, tables, slots);
    let counted = unwinders.into_iter().map(|unwinder| {
        let Cached { cache, generation, source } = unwinder.source();
        let modules = source.modules();
        let source = ModuleMap::new(&HostArch::host(), modules).expect("it was one before");
        let source = Counted { source, asked: AtomicU64::new(0) };
        Unwinder::new(HostArch::host(), Cached { cache: *cache, generation: *generation, source })
    });
    Ours { name, unwinders: counted.collect() }
}

impl<S> Ours<Cached<'_, Counted<S>>>
where
    S: FrameSource<HostArch>,
{
    /// How many lookups the caches have passed on.
    pub(crate) fn misses(&self) -> u64 {
        self.unwinders.iter().map(|unwinder| unwinder.source().source.asked.load(Ordering::Relaxed)).sum()
    }
}

/// A source that counts how often it is asked.
pub(crate) struct Counted<S> {
    source: S,
    asked: AtomicU64,
}

impl<S: FrameSource<HostArch>> FrameSource<HostArch> for Counted<S> {
    fn types(&self) -> UnwindUserTypes {
        self.source.types()
    }

    fn lookup(
        &self,
        arch: &HostArch,
        kind: UnwindUserType,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.source.lookup(arch, kind, query, memory)
    }

    fn evaluate(
        &self,
        arch: &HostArch,
        kind: UnwindUserType,
        query: &Query,
        registers: &dyn RegisterFile,
        memory: &mut dyn MemoryReader,
        caller: &mut dyn CallerRegisters,
    ) -> Result<Option<Evaluated>, LookupError> {
        self.source.evaluate(arch, kind, query, registers, memory, caller)
    }

    fn code_at(&self, address: u64) -> CodeAt {
        self.source.code_at(address)
    }
}

fn of_table<'w>(workload: &'w Workload, tables: &'w Tables, image: usize) -> OfTable<'w> {
    TableSource { table: tables.table(image), original: workload.images[image].dwarf() }
}

/// The modules live as long as the program: what is measured is not how they go.
fn of_maps<'w, S: FrameSource<HostArch> + Copy + 'w>(
    name: &str,
    workload: &'w Workload,
    source: impl Fn(usize) -> S,
) -> Ours<Map<'w, S>> {
    let unwinders = workload.processes.iter().map(|process| {
        let modules = process.mappings.iter().map(|mapping| Module {
            start: mapping.start,
            end: mapping.end,
            bias: mapping.bias,
            source: source(mapping.image),
        });
        let modules: &'w [Module<S>] = modules.collect::<Vec<_>>().leak();
        Unwinder::new(HostArch::host(), ModuleMap::new(&HostArch::host(), modules).expect("sorted"))
    });
    Ours { name: name.into(), unwinders: unwinders.collect() }
}
