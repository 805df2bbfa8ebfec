//! Walks at every sample of a run, compared with the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use unwind_core::{
    Arch, Cut, End, MemoryError, ModuleMap, Options, Pc, Register, RegisterFile, RegisterSet, StepError,
    UnwindError, UnwindUserType, Unwinder,
};

use super::replay::{CapturedRegisters, Moment, Replay};
use super::run::Run;
use super::tables::Loaded;
use crate::oracle::cfi;
use crate::oracle::judge::{Fault, Judge, Mode, Recovered, Verdict, Walk};
use crate::oracle::tally::Counts;
use crate::oracle::truth::TrueFrame;

/// An architecture whose runs are checked.
pub struct Subject<'s, A> {
    /// For the walks.
    pub arch: A,
    /// Compares.
    pub judge: Judge<'s>,
    /// The DWARF number of pc in the runs.
    pub pc: u16,
    /// How many bytes below sp are in use.
    pub red_zone: u64,
    /// The length of a signal trampoline. No table covers it, yet it has to be recognised.
    pub trampoline: u64,
    /// Where tables are wrong.
    pub listed: &'s [Listed],
}

/// Where a walk went astray: the frame whose rule did it.
#[derive(Clone, Debug, Default)]
pub struct Spot {
    /// Its pc.
    pub pc: Option<Pc>,
    /// Its module's file name.
    pub module: String,
    /// Its function.
    pub function: String,
    /// The function of the topmost frame.
    pub top: String,
    /// How far in the function the pc is.
    pub offset: u64,
    /// Whether it is the outermost frame in truth.
    pub outermost: bool,
    /// Whether control is on its way to another place without a return.
    pub under_way: bool,
    /// By how much the walk's sp of the next frame differs from the true one.
    pub sp_off: Option<i64>,
    /// The table's row, as [`cfi::row`] writes it.
    pub row: String,
}

/// A place where a table is wrong.
pub struct Listed {
    /// What, in a few words.
    pub name: &'static str,
    /// Which instruction, what the table says, what is true.
    pub proof: &'static str,
    /// Whether this is the place. Asked only where gimli reads the table as the walk did.
    pub applies: fn(&Spot, &Fault) -> bool,
}

/// What came of a run.
#[derive(Default)]
pub struct Report {
    /// Samples.
    pub samples: u64,
    /// Different addresses among them.
    pub places: usize,
    /// Verdicts by kind of walk.
    pub counts: [Counts; 3],
    /// How often each listed place was met.
    pub listed: BTreeMap<&'static str, u64>,
    /// Where walks with all sources were less than exact, without being wrong: the verdict and the function.
    pub doubts: BTreeMap<String, u64>,
    /// Samples whose walk by conventions names an address that is no frame of the chain, or names frames
    /// in another order; by function.
    pub strays: BTreeMap<String, u64>,
    /// Wrong walks that nothing explains: by what they have in common, how many, and the first.
    pub failures: BTreeMap<String, (u64, String)>,
}

/// A walk with the registers that it knows in each frame, by DWARF number.
type Found = Walk<Values>;

struct Values(Vec<Option<u64>>);

impl RegisterFile for Values {
    fn get(&self, register: Register) -> Option<u64> {
        self.0.get(usize::from(register.0)).copied().flatten()
    }
}

type Truth<'r> = Vec<TrueFrame<CapturedRegisters<'r>>>;

impl<A: Arch> Subject<'_, A> {
    /// Checks every sample of `run`. `N` registers are tracked.
    pub fn check<const N: usize>(&self, run: &Run, loaded: &Loaded) -> Report {
        let map = ModuleMap::new(&self.arch, &loaded.map).expect("captured modules do not overlap");
        let trampolines = trampolines(run);
        let mut options = Options::default();
        options.types = options.types.without(UnwindUserType::Dwarf);
        let all = Unwinder::new(self.arch, &map);
        let conventions = Unwinder::with_options(self.arch, &map, options);
        let mut replay = Replay::new(run, self.pc, self.arch.sp().0, self.red_zone);
        let mut report = Report::default();
        let mut places = BTreeSet::new();
        while let Some(moment) = replay.next() {
            report.samples += 1;
            places.insert(moment.registers.pc());
            let most = moment.chain.len() + 64;
            let checked = Checked { subject: self, run, loaded, trampolines: &trampolines, moment: &moment };
            for mode in [Mode::Tracking, Mode::Plain, Mode::Conventions] {
                let memory = &mut replay.memory;
                let begun = "registers have pc and sp";
                let found = match mode {
                    Mode::Tracking => known(
                        N,
                        Walk::run(all.frames_tracking::<N, _>(&moment.registers, memory).expect(begun), most),
                    ),
                    Mode::Plain => {
                        known(N, Walk::run(all.frames(&moment.registers, memory).expect(begun), most))
                    }
                    Mode::Conventions => {
                        known(N, Walk::run(conventions.frames(&moment.registers, memory).expect(begun), most))
                    }
                };
                if mode == Mode::Conventions && !is_part_of(&found, &moment.chain) {
                    *report.strays.entry(checked.function(moment.registers.pc())).or_insert(0) += 1;
                }
                checked.judge(mode, &found, &replay, &mut report);
            }
        }
        report.places = places.len();
        report
    }
}

/// A sample being checked.
struct Checked<'c, 'r, A> {
    subject: &'c Subject<'c, A>,
    run: &'c Run,
    loaded: &'c Loaded,
    trampolines: &'c BTreeSet<u64>,
    moment: &'c Moment<'r>,
}

impl<A: Arch> Checked<'_, '_, A> {
    fn judge(&self, mode: Mode, walk: &Found, replay: &Replay<'_>, report: &mut Report) {
        let truth = &self.moment.chain;
        let (verdict, recovered) = self.compare(mode, walk, truth);
        let counts = &mut report.counts[mode as usize];
        counts.add(&verdict, recovered, truth.len());
        let place = || self.function(self.moment.registers.pc());
        let doubt = match verdict {
            Verdict::MarkedRight => Some(format!("marked right: {}", place())),
            Verdict::MarkedWrong(index) => Some(format!("marked wrong from #{index}: {}", place())),
            Verdict::Unknown => Some(format!("unknown: {}", place())),
            Verdict::Exact | Verdict::Wrong(_) => None,
        };
        if let Some(doubt) = doubt.filter(|_| mode == Mode::Plain) {
            *report.doubts.entry(doubt).or_insert(0) += 1;
        }
        let Verdict::Wrong(fault) = verdict else { return };
        if let Some(other) = &self.moment.under_way
            && !matches!(self.compare(mode, walk, other).0, Verdict::Wrong(_))
        {
            counts.in_transfer += 1;
            return;
        }
        let (spot, opinion) = self.spot(walk, &fault, replay);
        let listed = self.subject.listed.iter();
        let mut listed = listed.filter(|listed| opinion.is_ok() && (listed.applies)(&spot, &fault));
        match listed.next() {
            Some(listed) => {
                counts.listed += 1;
                *report.listed.entry(listed.name).or_insert(0) += 1;
            }
            None => {
                counts.wrong += 1;
                let place = format!("{mode:?} walks, {} {} {}", spot.module, spot.function, spot.row);
                let first = || self.report(mode, walk, &fault, &spot, &opinion);
                report.failures.entry(place).or_insert_with(|| (0, first())).0 += 1;
            }
        }
    }

    fn compare(&self, mode: Mode, walk: &Found, truth: &Truth<'_>) -> (Verdict, Recovered) {
        let length = self.subject.trampoline;
        self.subject.judge.compare(mode, walk, truth, |pc| {
            let address = pc.address();
            let trampoline = self.trampolines.range(..=address).next_back();
            self.loaded.has_cfi(pc) || trampoline.is_some_and(|start| address - start < length)
        })
    }

    /// Where the walk went astray; and `Ok` if gimli reads the table as the walk did, else what it reads.
    fn spot(&self, walk: &Found, fault: &Fault, replay: &Replay<'_>) -> (Spot, Result<(), String>) {
        let wrong = match fault {
            Fault::Frame(index) | Fault::Register(index, _) => *index,
            Fault::End | Fault::Trust => walk.frames.len(),
        };
        let mut spot = Spot {
            outermost: wrong >= self.moment.chain.len(),
            under_way: self.moment.under_way.is_some(),
            top: self.function(self.moment.registers.pc()),
            ..Spot::default()
        };
        if let (Some((found, ..)), Some(truth)) = (walk.frames.get(wrong), self.moment.chain.get(wrong)) {
            spot.sp_off = Some(found.sp.wrapping_sub(truth.sp).cast_signed());
        }
        let at = wrong.saturating_sub(1);
        let Some((frame, values, _)) = walk.frames.get(at) else { return (spot, Err("no frame".into())) };
        let address = frame.pc.lookup_address();
        spot.pc = Some(frame.pc);
        if let Some(function) = self.run.function(address) {
            spot.function = function.name.clone();
            spot.offset = frame.pc.address() - function.start;
        }
        let Some((tables, svma)) = self.loaded.at(address) else { return (spot, Err("no module".into())) };
        spot.module = tables.name.clone();
        spot.row = cfi::row(&tables.for_gimli, svma).unwrap_or_default();
        let (sp, fp) = (self.subject.arch.sp().0, self.subject.arch.fp().0);
        let mut values = values.0.clone();
        values[usize::from(sp)] = Some(frame.sp);
        values[usize::from(fp)] = frame.fp;
        let ra = self.subject.arch.ra().0;
        let preserved = |number| number == sp || number == ra || self.run.preserved.contains(&number);
        let read = |address| replay.memory.word(address, &self.subject.arch);
        let frame = cfi::Frame { svma, values: &values, sp, preserved: &preserved, read: &read };
        let caller = cfi::caller(&tables.for_gimli, &frame);
        let agrees = match (&caller, walk.frames.get(at + 1)) {
            (Ok(Some(cfi::Caller::Registers { values, return_address, .. })), Some((next, ..))) => {
                next.pc.address() == self.subject.arch.strip_code_pointer(*return_address)
                    && values[usize::from(sp)] == Some(next.sp)
                    && (next.fp.is_none() || values[usize::from(fp)] == next.fp)
            }
            (Ok(None), _) | (_, Some(_)) => false,
            // The table leads to where a walk does not go: memory that cannot be read, a stack that does not shrink, a
            // return address of zero or in a register that is lost.
            (Ok(Some(cfi::Caller::Registers { return_address: 0, .. })), None) => walk.end.is_complete(),
            (Ok(Some(cfi::Caller::Outermost)), None) => {
                walk.end.is_complete() || not_shrinking(walk) || lacks(walk, self.subject.arch.ra())
            }
            (Ok(Some(cfi::Caller::Registers { unreadable, .. })), None) => match walk.end {
                End::Truncated(Cut::Memory(MemoryError::Unreadable { address })) => {
                    unreadable.contains(&address)
                }
                _ => not_shrinking(walk),
            },
            (Err(text), None) => {
                text.ends_with("unreadable") && (matches!(walk.end, End::Truncated(_)) || not_shrinking(walk))
            }
        };
        (spot, if agrees { Ok(()) } else { Err(format!("{caller:x?}")) })
    }

    fn report(
        &self,
        mode: Mode,
        walk: &Found,
        fault: &Fault,
        spot: &Spot,
        opinion: &Result<(), String>,
    ) -> String {
        let mut text =
            format!("{}, sample {}: {mode:?} walk: {fault:?}\n", self.run.program, self.moment.index);
        let truth = &self.moment.chain;
        for index in 0..truth.len().max(walk.frames.len()).min(12) {
            let truth = truth.get(index);
            let truth = truth.map(|frame| {
                format!("{:x?} sp {:#x} {}", frame.pc, frame.sp, self.describe(frame.pc.lookup_address()))
            });
            let walk = walk.frames.get(index);
            let walk =
                walk.map(|(frame, ..)| format!("{:x?} sp {:#x} ({})", frame.pc, frame.sp, frame.provenance));
            let (truth, walk) = (truth.unwrap_or_default(), walk.unwrap_or_default());
            let _ = writeln!(text, "  #{index} true {truth} | walk {walk}");
        }
        if let Fault::Register(index, register) = fault {
            let (frame, values, _) = &walk.frames[*index];
            let truth = truth[*index].registers.as_ref().and_then(|registers| registers.get(*register));
            let _ =
                writeln!(text, "  true {truth:x?}, walk {:x?}, fp {:x?}", values.get(*register), frame.fp);
        }
        let _ = writeln!(
            text,
            "  walk ended: {}\n  at {spot:x?}\n  the table, read by gimli: {opinion:?}",
            walk.end
        );
        text
    }

    fn function(&self, address: u64) -> String {
        match self.run.function(address) {
            Some(function) => function.name.clone(),
            None => format!("{address:#x}"),
        }
    }

    fn describe(&self, address: u64) -> String {
        match self.run.function(address) {
            Some(function) => format!("{}+{:#x}", function.name, address - function.start),
            None => format!("{address:#x}"),
        }
    }
}

/// The addresses that handlers return to.
fn trampolines(run: &Run) -> BTreeSet<u64> {
    let exact = |parent: u32| run.calls.get(parent as usize).is_some_and(|parent| parent.pc.is_exact());
    run.calls.iter().filter(|call| call.parent.is_some_and(exact)).map(|call| call.pc.address()).collect()
}

/// The walk, with `count` registers of each frame.
fn known<R: RegisterSet>(count: usize, walk: Walk<R>) -> Found {
    let values = |registers: &R| {
        Values((0..count).map(|number| registers.get(Register(u16::try_from(number).ok()?))).collect())
    };
    let frames = walk.frames.iter().map(|(frame, registers, trust)| (*frame, values(registers), *trust));
    Walk { frames: frames.collect(), end: walk.end }
}

fn not_shrinking(walk: &Found) -> bool {
    matches!(walk.end, End::Failed(UnwindError { cause: StepError::StackNotShrinking { .. }, .. }))
}

fn lacks(walk: &Found, register: Register) -> bool {
    matches!(walk.end, End::Failed(UnwindError { cause: StepError::UnknownRegister(lacking), .. }) if lacking == register)
}

/// Whether every frame of the walk is one of the chain, in the chain's order.
fn is_part_of(walk: &Found, chain: &Truth<'_>) -> bool {
    let mut rest = chain.iter();
    walk.frames.iter().all(|(frame, ..)| rest.any(|truth| truth.pc == frame.pc))
}
