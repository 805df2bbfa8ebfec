//! Walks at every sample of a run, compared with the truth.

use std::collections::BTreeSet;
use std::fmt::Write;

use unwind_core::{
    Arch, Cut, End, MemoryError, Module, ModuleMap, Options, Pc, Register, RegisterFile, RegisterSet,
    StepError, UnwindError, UnwindUserType, UnwindUserTypes, Unwinder,
};

use super::call_sites;
use super::replay::{CapturedRegisters, Moment, Replay};
use super::report::{Listed, Report, Spot};
use super::run::{Function, Run};
use super::tables::{Kind, Loaded};
use crate::oracle::cfi;
use crate::oracle::judge::{Fault, Judge, Mode, Recovered, Verdict, Walk};
use crate::oracle::sources::{Compilable, Replacing, Sources, Stop};
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
    /// Which tables the walks use. By SFrame alone they have nothing beside it but signal trampolines.
    pub tables: Kind,
    /// Where threads begin, for walks whose tables cannot tell.
    pub entry: Option<&'s str>,
}

/// A walk with the registers that it knows in each frame, by DWARF number.
type Found = Walk<Values>;

#[derive(Clone)]
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
        self.check_replacing::<N>(run, loaded, Replacing::Told)
    }

    /// The same; for a test of the oracle itself a cache may not be told that modules were replaced.
    pub fn check_replacing<const N: usize>(
        &self,
        run: &Run,
        loaded: &Loaded,
        replacing: Replacing,
    ) -> Report {
        match self.tables {
            Kind::Dwarf => self.check_with::<N, _>(run, loaded, &loaded.map, replacing),
            Kind::SFrame => self.check_with::<N, _>(run, loaded, &loaded.sframe, replacing),
            Kind::Ehabi => self.check_with::<N, _>(run, loaded, &loaded.ehabi, replacing),
        }
    }

    fn check_with<const N: usize, S: Compilable<A>>(
        &self,
        run: &Run,
        loaded: &Loaded,
        modules: &[Module<S>],
        replacing: Replacing,
    ) -> Report {
        let map = ModuleMap::new(&self.arch, modules).expect("captured modules do not overlap");
        let trampolines = trampolines(run);
        let with_tables = Unwinder::with_options(self.arch, &map, self.options(run));
        let mut options = Options::default();
        options.types = options.types.without(UnwindUserType::Dwarf).without(UnwindUserType::Ehabi);
        let conventions = Unwinder::with_options(self.arch, &map, options);
        let modes: &[Mode] = match self.tables {
            Kind::Dwarf | Kind::Ehabi => &[Mode::Tracking, Mode::Plain, Mode::Conventions],
            Kind::SFrame => &[Mode::Tracking, Mode::Plain],
        };
        let mut replay = Replay::new(run, self.pc, self.arch.sp().0, self.red_zone);
        let mut report = Report::default();
        let mut places = BTreeSet::new();
        let mut sources = Sources::new(&self.arch, modules, replacing);
        while let Some(moment) = replay.next() {
            report.samples += 1;
            places.insert(moment.registers.pc());
            let most = moment.chain.len() + 64;
            let checked = Checked { subject: self, run, loaded, trampolines: &trampolines, moment: &moment };
            checked.count_uncovered(&mut report);
            let mut tracking = None;
            for mode in modes {
                let (registers, memory) = (&moment.registers, &mut replay.memory);
                let begun = "registers have pc and sp";
                let found = match mode {
                    Mode::Tracking => {
                        let frames = with_tables.frames_tracking::<N, _>(registers, memory);
                        known(N, Walk::run(frames.expect(begun), most))
                    }
                    Mode::Plain => {
                        known(N, Walk::run(with_tables.frames(registers, memory).expect(begun), most))
                    }
                    Mode::Conventions => {
                        known(N, Walk::run(conventions.frames(registers, memory).expect(begun), most))
                    }
                };
                if *mode == Mode::Conventions && !is_part_of(&found, &moment.chain) {
                    *report.strays.entry(checked.function(moment.registers.pc())).or_insert(0) += 1;
                }
                checked.judge(*mode, &found, &replay, &mut report);
                match (mode, &tracking) {
                    (Mode::Tracking, _) => tracking = Some(found),
                    (Mode::Plain, Some(tracking)) => {
                        let options = with_tables.options();
                        let stop = Stop { arch: self.arch, options, registers, plain: &found, tracking };
                        sources.check::<N, _>(&stop, &mut replay.memory, &mut report.sources);
                    }
                    _ => {}
                }
            }
        }
        report.places = places.len();
        report
    }

    fn options(&self, run: &Run) -> Options {
        let mut options = Options::default();
        if self.tables == Kind::SFrame {
            let sframe = UnwindUserTypes::only(UnwindUserType::SFrame);
            options.types = sframe.with(UnwindUserType::SignalTrampoline);
        }
        let is_entry = |function: &&Function| self.entry == Some(function.name.as_str());
        let entry = run.functions.iter().find(is_entry);
        options.entry_function = entry.map(|function| function.start..function.start + function.size);
        options
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
    fn count_uncovered(&self, report: &mut Report) {
        let pc = self.moment.registers.pc();
        if !self.covers(Pc::Exact(pc)) {
            *report.uncovered.entry(self.function(pc)).or_insert(0) += 1;
        }
        let is_entry = |pc: Pc| {
            let function = self.run.function(pc.lookup_address());
            function.is_some_and(|function| self.subject.entry == Some(function.name.as_str()))
        };
        let gap = self.moment.chain.iter().any(|frame| !self.covers(frame.pc) && !is_entry(frame.pc));
        report.gaps += u64::from(gap);
    }

    fn judge(&self, mode: Mode, walk: &Found, replay: &Replay<'_>, report: &mut Report) {
        let truth = &self.moment.chain;
        let (verdict, recovered) = self.compare(mode, walk, truth);
        let counts = &mut report.counts[mode as usize];
        counts.add(&verdict, recovered, truth.len());
        let pcs = walk.frames.iter().map(|(frame, ..)| frame.pc);
        report.whole[mode as usize] += u64::from(pcs.eq(truth.iter().map(|frame| frame.pc)));
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
        if verdict == Verdict::Unknown
            && let End::Failed(UnwindError { cause: StepError::UnknownRegister(_), pc, .. }) = walk.end
        {
            let place = format!("{mode:?} {}", self.function(pc.lookup_address()));
            *report.lacking.entry(place).or_insert(0) += 1;
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
        // SFrame knows three registers, however many are tracked.
        let mode = if self.subject.tables == Kind::SFrame { Mode::Plain } else { mode };
        let (judge, covers) = (&self.subject.judge, |pc| self.covers(pc));
        match self.subject.tables {
            Kind::Ehabi => call_sites::compare(judge, mode, walk, truth, covers),
            Kind::Dwarf | Kind::SFrame => judge.compare(mode, walk, truth, covers),
        }
    }

    /// Whether the tables cover `pc`, or it is in a trampoline.
    fn covers(&self, pc: Pc) -> bool {
        let address = pc.address();
        let trampoline = self.trampolines.range(..=address).next_back();
        let in_trampoline = trampoline.is_some_and(|start| address - start < self.subject.trampoline);
        in_trampoline || self.loaded.covers(self.subject.tables, pc)
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
        spot.row = tables.row(self.subject.tables, svma).unwrap_or_default();
        if self.subject.tables != Kind::Dwarf {
            // What their readers say is what objdump and readelf say: other tests compare all of it.
            return (spot, Ok(()));
        }
        let (sp, fp) = (self.subject.arch.sp().0, self.subject.arch.fp().0);
        let mut values = values.0.clone();
        values[usize::from(sp)] = Some(frame.sp);
        values[usize::from(fp)] = frame.fp;
        let ra = self.subject.arch.ra().0;
        let preserved = |number| number == sp || number == ra || self.run.preserved.contains(&number);
        let read = |address| replay.memory.word(address, &self.subject.arch);
        let frame = cfi::Frame { svma, values: &values, sp, preserved: &preserved, read: &read };
        let caller = cfi::caller(&tables.for_gimli, &frame);
        // gimli's reading takes the CFA for the caller's sp where sp has no rule of its own.
        let biased = |sp: u64| Some(sp.wrapping_sub(i64::from(self.subject.arch.sp_bias()).cast_unsigned()));
        let agrees = match (&caller, walk.frames.get(at + 1)) {
            (Ok(Some(cfi::Caller::Registers { values, return_address, .. })), Some((next, ..))) => {
                next.pc.address() == self.subject.arch.strip_code_pointer(*return_address)
                    && (values[usize::from(sp)] == Some(next.sp)
                        || values[usize::from(sp)] == biased(next.sp))
                    && (next.fp.is_none() || values[usize::from(fp)] == next.fp)
            }
            (Ok(None), _) | (_, Some(_)) => false,
            // The table leads to where a walk does not go: memory that cannot be read, a stack that does not shrink or is misaligned, a
            // return address of zero or in a register that is lost.
            (Ok(Some(cfi::Caller::Registers { return_address: 0, .. })), None) => walk.end.is_complete(),
            (Ok(Some(cfi::Caller::Outermost)), None) => {
                walk.end.is_complete() || refused(walk) || lacks(walk, self.subject.arch.ra())
            }
            (Ok(Some(cfi::Caller::Registers { unreadable, .. })), None) => match walk.end {
                End::Truncated(Cut::Memory(MemoryError::Unreadable { address })) => {
                    unreadable.contains(&address)
                }
                _ => refused(walk),
            },
            (Err(text), None) => {
                text.ends_with("unreadable") && (matches!(walk.end, End::Truncated(_)) || refused(walk))
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

fn refused(walk: &Found) -> bool {
    let causes = |cause: &StepError| {
        matches!(
            cause,
            StepError::StackNotShrinking { .. }
                | StepError::Misaligned { .. }
                | StepError::FramePointerBelowStack { .. }
                | StepError::AddressOverflow
        )
    };
    matches!(walk.end, End::Failed(UnwindError { cause, .. }) if causes(&cause))
}

fn lacks(walk: &Found, register: Register) -> bool {
    matches!(walk.end, End::Failed(UnwindError { cause: StepError::UnknownRegister(lacking), .. }) if lacking == register)
}

/// Whether every frame of the walk is one of the chain, in the chain's order.
fn is_part_of(walk: &Found, chain: &Truth<'_>) -> bool {
    let mut rest = chain.iter();
    walk.frames.iter().all(|(frame, ..)| rest.any(|truth| truth.pc == frame.pc))
}
