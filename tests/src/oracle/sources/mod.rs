//! The same modules by other ways: compiled tables, with what they were made of behind them and without; a
//! cache of rules before either, of one slot, of two and of many; modules that are replaced by others at the
//! same addresses while the cache stays.
//!
//! Every stop of an oracle walks by its tables in place first, and that is what the judge compares with the
//! truth. Then it walks by these [`CONFIGURATIONS`], all or
//! some of them, and every frame, every register and the end have to be
//! what the walk in place said: then they pass wherever it does. One exception: without what it was made of
//! behind it a table does not cover what it leaves to that; the walk then may end, or go on marked.
//!
//! All threads of a test share one set of caches, and all programs of a test lie at about the same addresses.

mod compare;
mod compile;
mod counted;
mod replaced;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use unwind_core::{
    Arch, CacheSlot, Cached, FrameSource, Module, ModuleMap, Options, Pc, RegisterFile, RuleCache,
    UnwindUserType, Unwinder, UserRegisters,
};

pub use compile::Compilable;

use self::compare::{Difference, Leaves, follow};
use self::counted::Counted;
use self::replaced::Other;
use crate::oracle::judge::Walk;

/// What is walked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Configuration {
    /// Compiled tables; what they leave to the original comes from there.
    Table,
    /// Compiled tables and nothing behind them.
    TableAlone,
    /// A cache of 4,096 slots before the tables in place.
    Cache,
    /// A cache of this many slots before compiled tables.
    CacheAndTable(usize),
    /// The same cache before the tables in place, while other modules at the same addresses take turns with
    /// these.
    Replaced,
}

/// All of them.
pub const CONFIGURATIONS: [Configuration; 7] = [
    Configuration::Table,
    Configuration::TableAlone,
    Configuration::Cache,
    Configuration::CacheAndTable(1),
    Configuration::CacheAndTable(2),
    Configuration::CacheAndTable(4096),
    Configuration::Replaced,
];

static ONE: [CacheSlot; 1] = [const { CacheSlot::new() }; 1];
static TWO: [CacheSlot; 2] = [const { CacheSlot::new() }; 2];
static MANY: [CacheSlot; 4096] = [const { CacheSlot::new() }; 4096];

/// The next state of some modules: a number that none has had.
static GENERATION: AtomicU64 = AtomicU64::new(1);

fn new_generation() -> u64 {
    GENERATION.fetch_add(1, Ordering::Relaxed)
}

/// How many stops modules stay before others replace them, and these again.
const STAY: u64 = 8;

/// Every n-th stop is also walked from with all registers. What these cost most, evaluating call frame
/// information in full, is the same in every configuration.
const TRACKED: u64 = 8;

/// The modules of a process, for walks in every configuration.
pub struct Sources<A: Arch, S: Compilable<A>> {
    tables: Vec<Module<S::Compiled>>,
    alone: Vec<Module<S::Alone>>,
    in_place: Vec<Module<S>>,
    others: Vec<Module<Other<S>>>,
    /// Of the tables in place, of the compiled ones, of the others, and of those that are replaced by them.
    generations: [u64; 4],
    replacing: Replacing,
}

/// Whether a cache is told that modules were replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacing {
    /// By another generation, as it has to be.
    Told,
    /// Not at all: stale answers are to be expected. For a test of the oracle itself.
    Untold,
}

/// What is compared at one stop.
pub struct Stop<'s, A, Q> {
    /// For the walks.
    pub arch: A,
    /// For the walks. Tables count as allowed.
    pub options: &'s Options,
    /// Where they begin.
    pub registers: &'s dyn UserRegisters,
    /// What the walk of three registers found by the tables in place.
    pub plain: &'s Walk<Q>,
    /// The same for the walk of all registers.
    pub tracking: &'s Walk<Q>,
}

impl<A: Arch, S: Compilable<A>> Sources<A, S> {
    /// Makes everything out of the modules in place.
    pub fn new(arch: &A, modules: &[Module<S>], replacing: Replacing) -> Self {
        let compile = |module: &Module<S>| {
            let text = module.start.wrapping_sub(module.bias)..module.end.wrapping_sub(module.bias);
            let (compiled, alone) = module.source.compile(arch, text);
            (with(module, compiled), with(module, alone))
        };
        let (tables, alone) = modules.iter().map(compile).unzip();
        Sources {
            alone,
            tables,
            in_place: modules.to_vec(),
            others: modules.iter().map(|module| with(module, Other(module.source))).collect(),
            generations: [(); 4].map(|()| new_generation()),
            replacing,
        }
    }

    /// Walks in every configuration, and compares.
    pub fn check<const N: usize, Q>(
        &mut self,
        stop: &Stop<'_, A, Q>,
        mut memory: impl unwind_core::MemoryReader,
        tally: &mut SourcesTally,
    ) where
        Q: RegisterFile,
    {
        if tally.stops.is_multiple_of(STAY) && self.replacing == Replacing::Told {
            let [_, _, others, replaced] = &mut self.generations;
            (*others, *replaced) = (new_generation(), new_generation());
        }
        tally.stops += 1;
        let (is_even, is_fourth) = (tally.stops.is_multiple_of(2), tally.stops.is_multiple_of(4));
        let [in_place, compiled, others, replaced] = self.generations;
        let memory = &mut memory;
        let cached = |slots: &'static [CacheSlot], generation| (RuleCache::new(slots), generation);
        for (configuration, counts) in CONFIGURATIONS.iter().zip(&mut tally.counts) {
            let is_tracked = tally.stops.is_multiple_of(TRACKED);
            let mut run = Run { stop, counts, memory: &mut *memory, is_tracked };
            match configuration {
                Configuration::Table if is_fourth => run.both::<N, _>(map(&stop.arch, &self.tables)),
                Configuration::TableAlone => {
                    let leaves = |pc| leaves::<A, S>(&self.alone, pc);
                    run.plain(map(&stop.arch, &self.alone), Some(&leaves));
                }
                Configuration::Cache if is_fourth => {
                    run.cached::<N, _>(&self.in_place, cached(&MANY, in_place));
                }
                // These two take turns. (What the others above do alone, the last ones do together.)
                Configuration::CacheAndTable(1) if is_even => {
                    run.cached::<N, _>(&self.tables, cached(&ONE, compiled));
                }
                Configuration::CacheAndTable(2) if !is_even => {
                    run.cached::<N, _>(&self.tables, cached(&TWO, compiled));
                }
                Configuration::CacheAndTable(3..) => {
                    run.cached::<N, _>(&self.tables, cached(&MANY, compiled));
                }
                Configuration::Replaced if is_even => {
                    let (others, replaced) = match self.replacing {
                        Replacing::Told => (others, replaced),
                        Replacing::Untold => (others, others),
                    };
                    if is_fourth {
                        run.lookups(&self.others, cached(&MANY, others));
                    }
                    run.cached::<N, _>(&self.in_place, cached(&MANY, replaced));
                }
                _ => {}
            }
        }
    }
}

fn with<S, T>(module: &Module<S>, source: T) -> Module<T> {
    Module { start: module.start, end: module.end, bias: module.bias, source }
}

fn map<'m, A: Arch, S: FrameSource<A>>(arch: &A, modules: &'m [Module<S>]) -> ModuleMap<'m, S> {
    ModuleMap::new(arch, modules).expect("modules are sorted and do not overlap")
}

/// Whether the table leaves the rule at `pc` to what it was made of.
fn leaves<A: Arch, S: Compilable<A>>(alone: &[Module<S::Alone>], pc: Pc) -> bool {
    let address = pc.lookup_address();
    let module = alone.iter().find(|module| (module.start..module.end).contains(&address));
    module.is_some_and(|module| S::leaves(&module.source, address.wrapping_sub(module.bias)))
}

/// One configuration at one stop.
struct Run<'r, 's, A, Q, M> {
    stop: &'r Stop<'s, A, Q>,
    counts: &'r mut SourceCounts,
    memory: &'r mut M,
    is_tracked: bool,
}

impl<A: Arch, Q: RegisterFile, M: unwind_core::MemoryReader> Run<'_, '_, A, Q, M> {
    fn cached<const N: usize, S: FrameSource<A>>(
        &mut self,
        modules: &[Module<S>],
        (cache, generation): (RuleCache<'_>, u64),
    ) {
        let source = Counted::new(map(&self.stop.arch, modules));
        let cached = Cached { cache, generation, source: &source };
        let cached = Counted::new(cached);
        self.both::<N, _>(&cached);
        self.counts.asked += cached.asked();
        self.counts.passed_on += source.asked();
    }

    fn both<const N: usize, S: FrameSource<A>>(&mut self, source: S) {
        self.plain(&source, None);
        if !self.is_tracked {
            return;
        }
        let unwinder = self.unwinder(source);
        let frames = unwinder.frames_tracking::<N, _>(self.stop.registers, &mut *self.memory);
        let frames = frames.expect("the walk in place began");
        let count = u16::try_from(N).unwrap_or(u16::MAX);
        self.counts.add(follow(frames, self.stop.tracking, count, None));
    }

    fn plain<S: FrameSource<A>>(&mut self, source: S, leaves: Leaves<'_>) {
        let unwinder = self.unwinder(source);
        let frames = unwinder.frames(self.stop.registers, &mut *self.memory);
        let frames = frames.expect("the walk in place began");
        self.counts.add(follow(frames, self.stop.plain, 0, leaves));
        if leaves.is_none() {
            self.at_once(&unwinder);
        }
    }

    /// The same walk by `unwind_user`, which goes from rule to rule in a loop of its own.
    fn at_once<S: FrameSource<A>>(&mut self, unwinder: &Unwinder<A, S>) {
        let mut entries = vec![0; self.stop.plain.frames.len()];
        let trace = unwinder.unwind_user(self.stop.registers, &mut *self.memory, &mut entries);
        let trace = trace.expect("the walk in place began");
        let outcome = compare::at_once(&trace, &entries, self.stop.plain);
        self.counts.add(outcome);
    }

    fn unwinder<S: FrameSource<A>>(&self, source: S) -> Unwinder<A, S> {
        let mut options = self.stop.options.clone();
        options.types = options.types.with(UnwindUserType::Table);
        Unwinder::with_options(self.stop.arch, source, options)
    }

    /// Asks for the rule at every pc of the walk, through a cache and without it.
    fn lookups<S: FrameSource<A>>(
        &mut self,
        modules: &[Module<S>],
        (cache, generation): (RuleCache<'_>, u64),
    ) {
        let source = map(&self.stop.arch, modules);
        let cached = Cached { cache, generation, source: &source };
        for (frame, ..) in &self.stop.plain.frames {
            let query = unwind_core::Query::new(frame.pc);
            for kind in source.types().iter() {
                let without = source.lookup(&self.stop.arch, kind, &query, &mut *self.memory);
                let with = cached.lookup(&self.stop.arch, kind, &query, &mut *self.memory);
                if with != without {
                    self.counts.add(Err(Difference::of_rules(frame.pc, &with, &without)));
                }
            }
        }
    }
}

/// What came of one configuration.
#[derive(Clone, Debug, Default)]
pub struct SourceCounts {
    /// Walks that were compared.
    pub walks: u64,
    /// Frames that are the same in both walks.
    pub frames: u64,
    /// Walks up to a pc that the table leaves to what it was made of.
    pub left: u64,
    /// Questions that a cache was asked, and those that it passed on.
    pub asked: u64,
    /// See [`asked`](SourceCounts::asked).
    pub passed_on: u64,
    /// Walks that are not the same, and lookups.
    pub different: u64,
    /// The first few of them.
    pub first: Vec<String>,
}

impl SourceCounts {
    fn add(&mut self, outcome: Result<compare::Same, Difference>) {
        self.walks += 1;
        match outcome {
            Ok(same) => {
                self.frames += same.frames;
                self.left += u64::from(same.is_left);
            }
            Err(difference) => {
                self.different += 1;
                if self.first.len() < 3 {
                    self.first.push(difference.text);
                }
            }
        }
    }
}

/// What came of all configurations.
#[derive(Clone, Debug, Default)]
pub struct SourcesTally {
    /// Stops at which they were compared.
    pub stops: u64,
    /// One for each of [`CONFIGURATIONS`].
    pub counts: [SourceCounts; CONFIGURATIONS.len()],
}

impl SourcesTally {
    /// Panics where a walk differs, or where too little was compared to mean anything.
    pub fn assert_same(&self, name: &str) {
        for (configuration, counts) in CONFIGURATIONS.iter().zip(&self.counts) {
            let first = counts.first.join("\n");
            let different = counts.different;
            assert_eq!(
                different, 0,
                "{name}: {configuration:?}: {different} walks differ, the first ones:\n{first}"
            );
            assert!(counts.walks >= self.stops / 4, "{name}: {configuration:?}: {} walks", counts.walks);
        }
    }

    /// Adds those of another run.
    pub fn merge(&mut self, other: &SourcesTally) {
        self.stops += other.stops;
        for (counts, other) in self.counts.iter_mut().zip(&other.counts) {
            counts.walks += other.walks;
            counts.frames += other.frames;
            counts.left += other.left;
            counts.asked += other.asked;
            counts.passed_on += other.passed_on;
            counts.different += other.different;
            counts.first.extend(other.first.iter().cloned());
        }
    }
}

impl fmt::Display for SourcesTally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (configuration, counts) in CONFIGURATIONS.iter().zip(&self.counts) {
            let SourceCounts { walks, frames, left, asked, passed_on, different, .. } = counts;
            let name = format!("{configuration:?}");
            write!(f, "    {name:<20} {walks:>7} walks {frames:>8} frames the same, {different} DIFFERENT")?;
            if *left > 0 {
                write!(f, "; {left} up to where the table asks for the original")?;
            }
            if *asked > 0 {
                write!(f, "; {} % answered by the cache", (asked - passed_on) * 100 / asked)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
