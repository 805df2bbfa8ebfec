//! The walks at one place after another, and what becomes of those that disagree.

use std::fmt::Write as _;

use unwind_arch_x86_64::{RBP, RSP, X86_64};
use unwind_core::dwarf::DwarfSource;
use unwind_core::{
    Cut, End, MemoryError, ModuleMap, Options, Pc, Register, RegisterFile, RegisterSet, StepError,
    UnwindError, UnwindUserType, Unwinder,
};

use super::case::Failure;
use super::listed::{LISTED, Listed, Spot};
use super::registers::{ALL, PRESERVED, Registers};
use super::stepper::Stepper;
use super::tracee::Memory;
use crate::oracle::cfi;
use crate::oracle::judge::{Fault, Judge, Mode, Verdict, Walk};
use crate::oracle::modules::{Mapped, Modules};
use crate::oracle::sources::{Replacing, Sources, Stop};
use crate::oracle::tally::Tally;
use crate::oracle::truth::{EntryId, Settled, TrueFrame};

/// The number of DWARF registers that are tracked.
const COUNT: usize = unwind_arch_x86_64::Registers::COUNT;
const JUDGE: Judge<'_> = Judge { fp: RBP, preserved: PRESERVED, all: ALL };

/// The walks of a run.
pub(super) struct Walks {
    pub(super) tally: Tally,
    pub(super) failures: Vec<Failure>,
    pub(super) doubts: Vec<String>,
    conventions: bool,
    /// For the modules with this number.
    sources: Option<(u64, Sources<X86_64, DwarfSource<'static>>)>,
    /// Walks that disagree with the chain as it is; a transfer that is under way may explain them.
    doubtful: Vec<Doubtful>,
}

/// A walk that disagrees with the truth.
struct Doubtful {
    mode: Mode,
    walk: Walk<Known>,
    truth: Vec<TrueFrame<Registers>>,
    fault: Fault,
    /// The first frame that it has wrong, and the entry of the shadow stack that this comes from.
    frame: usize,
    entry: Option<EntryId>,
    spot: Spot,
    /// What the table says about the last frame that is right, according to gimli.
    opinion: String,
    /// Whether the walk does what the table says, according to gimli.
    table_agrees: bool,
}

/// The registers known in a frame.
#[derive(Clone, Debug)]
struct Known([Option<u64>; COUNT]);

impl RegisterFile for Known {
    fn get(&self, register: Register) -> Option<u64> {
        self.0.get(usize::from(register.0)).copied().flatten()
    }
}

impl Walks {
    pub(super) fn new(conventions: bool) -> Self {
        Walks {
            tally: Tally::default(),
            failures: Vec::new(),
            doubts: Vec::new(),
            conventions,
            sources: None,
            doubtful: Vec::new(),
        }
    }

    /// Whether walks wait for an explanation.
    pub(super) fn in_doubt(&self) -> bool {
        !self.doubtful.is_empty()
    }

    /// Begins the shadow with the callers that a walk finds.
    pub(super) fn suppose(&mut self, stepper: &mut Stepper<'_>) {
        if let Some(walk) = self.make(stepper, Mode::Tracking, usize::MAX) {
            let callers = walk.frames.iter().skip(1).map(|(frame, ..)| (frame.pc, frame.sp));
            stepper.shadow.suppose(callers);
        }
    }

    /// Walks at the place at hand, in all modes.
    pub(super) fn walk(&mut self, stepper: &mut Stepper<'_>) {
        stepper.refresh_signals();
        let truth = stepper.shadow.chain(stepper.registers.place(), stepper.registers);
        let module =
            stepper.modules.at(stepper.registers.place().pc).map_or("no module", |mapped| &mapped.image.name);
        *self.tally.modules.entry(module.to_owned()).or_insert(0) += 1;
        // A walk that describes a transfer may be longer than the chain as it is.
        let most = truth.len() + 64;
        let modes: &[Mode] = if self.conventions {
            &[Mode::Tracking, Mode::Plain, Mode::Conventions]
        } else {
            &[Mode::Tracking, Mode::Plain]
        };
        let walks: Vec<_> =
            modes.iter().map_while(|mode| Some((*mode, self.make(stepper, *mode, most)?))).collect();
        if let [(_, tracking), (_, plain), ..] = &*walks {
            self.by_other_ways(stepper, plain, tracking);
        }
        for (mode, walk) in walks {
            let (verdict, recovered) = JUDGE.compare(mode, &walk, &truth, |pc| stepper.modules.has_cfi(pc));
            self.tally.of(mode).add(&verdict, recovered, truth.len());
            if let Verdict::Wrong(fault) = verdict {
                self.doubtful.push(doubt(stepper, mode, walk, truth.clone(), fault));
            }
        }
    }

    /// Walks by compiled tables and caches, too.
    fn by_other_ways(&mut self, stepper: &Stepper<'_>, plain: &Walk<Known>, tracking: &Walk<Known>) {
        let id = stepper.modules.id;
        if self.sources.as_ref().is_none_or(|(known, _)| *known != id) {
            self.sources = Some((id, Sources::new(&X86_64, &stepper.modules.map, Replacing::Told)));
        }
        let Some((_, sources)) = &mut self.sources else { return };
        let (options, registers) = (&Options::default(), &stepper.registers);
        let stop = Stop { arch: X86_64, options, registers, plain, tracking };
        sources.check::<COUNT, _>(&stop, Memory(&stepper.tracee), &mut self.tally.sources);
    }

    /// Makes one walk.
    fn make(&mut self, stepper: &Stepper<'_>, mode: Mode, most: usize) -> Option<Walk<Known>> {
        let map = match ModuleMap::new(&X86_64, &stepper.modules.map) {
            Ok(map) => map,
            Err(error) => {
                self.doubts.push(format!("no module map: {error}"));
                return None;
            }
        };
        let mut options = Options::default();
        if mode == Mode::Conventions {
            options.types = options.types.without(UnwindUserType::Dwarf);
        }
        let unwinder = Unwinder::with_options(X86_64, map, options);
        let memory = Memory(&stepper.tracee);
        let walk = match mode {
            Mode::Tracking => unwinder
                .frames_tracking::<COUNT, _>(&stepper.registers, memory)
                .map(|frames| compress(Walk::run(frames, most))),
            Mode::Plain | Mode::Conventions => {
                unwinder.frames(&stepper.registers, memory).map(|frames| compress(Walk::run(frames, most)))
            }
        };
        walk.map_err(|error| self.doubts.push(format!("a walk did not begin: {error}"))).ok()
    }

    /// Takes note of where control has gone.
    pub(super) fn settle(&mut self, stepper: &Stepper<'_>, settled: Settled) {
        if self.doubtful.is_empty() {
            return;
        }
        let left = matches!(settled, Settled::Moved | Settled::NoCall);
        if left {
            self.judge_again(stepper, settled);
        }
        // Where the functions that they are about have ended, nothing will explain them any more.
        let alive = |doubtful: &Doubtful| doubtful.entry.is_some_and(|entry| stepper.shadow.is_alive(entry));
        let (kept, failed) = std::mem::take(&mut self.doubtful).into_iter().partition(alive);
        self.doubtful = kept;
        self.fail(&stepper.modules, failed, left);
    }

    /// The run is over.
    pub(super) fn end(&mut self, stepper: &Stepper<'_>) {
        let doubtful = std::mem::take(&mut self.doubtful);
        self.fail(&stepper.modules, doubtful, false);
    }

    /// Control has moved to the place at hand. A walk that already said so was right: its frames up to the
    /// one that it seemed to have wrong are followed by the place that control moved to, or,
    /// where a call turned out to be none, by the callers of that place.
    fn judge_again(&mut self, stepper: &Stepper<'_>, settled: Settled) {
        let mut callers = Vec::new();
        let place = stepper.registers.place();
        if settled == Settled::Moved {
            let registers = Some(stepper.registers);
            callers.push(TrueFrame { pc: Pc::Return(place.pc), sp: place.sp, registers });
        }
        stepper.shadow.callers(&mut callers);
        let tally = &mut self.tally;
        self.doubtful.retain(|doubtful| {
            let mut truth = doubtful.truth.clone();
            truth.truncate(doubtful.frame);
            truth.extend(callers.iter().cloned());
            let (verdict, _) =
                JUDGE.compare(doubtful.mode, &doubtful.walk, &truth, |pc| stepper.modules.has_cfi(pc));
            let wrong = matches!(verdict, Verdict::Wrong(_));
            tally.of(doubtful.mode).in_transfer += u64::from(!wrong);
            wrong
        });
    }

    /// Nothing explains these walks but a table that is listed as wrong. `left` says that the
    /// functions that they are about were left by a transfer.
    fn fail(&mut self, modules: &Modules, failed: Vec<Doubtful>, left: bool) {
        for mut doubtful in failed {
            doubtful.spot.left = left;
            let listed = LISTED.iter().find(|listed: &&Listed| {
                let in_question = doubtful.table_agrees || doubtful.spot.row.is_empty();
                in_question && (listed.applies)(&doubtful.spot, &doubtful.fault)
            });
            match listed {
                Some(listed) => {
                    self.tally.of(doubtful.mode).listed += 1;
                    *self.tally.listed.entry(listed.name).or_insert(0) += 1;
                }
                None => {
                    self.tally.of(doubtful.mode).wrong += 1;
                    self.failures.push(Failure {
                        text: describe(modules, self.tally.instructions, &doubtful),
                        table_agrees: doubtful.table_agrees,
                        ours: doubtful.spot.ours,
                    });
                }
            }
        }
    }
}

fn compress<R: RegisterSet>(walk: Walk<R>) -> Walk<Known> {
    let known = |registers: R| {
        Known(std::array::from_fn(|number| {
            registers.get(Register(u16::try_from(number).unwrap_or(u16::MAX)))
        }))
    };
    let frames = walk.frames.into_iter();
    Walk {
        frames: frames.map(|(frame, registers, trust)| (frame, known(registers), trust)).collect(),
        end: walk.end,
    }
}

/// Notes everything about a walk that disagrees, while memory still is as it was.
fn doubt(
    stepper: &Stepper<'_>,
    mode: Mode,
    walk: Walk<Known>,
    truth: Vec<TrueFrame<Registers>>,
    fault: Fault,
) -> Doubtful {
    let wrong = match fault {
        Fault::Frame(index) | Fault::Register(index, _) => index,
        Fault::End | Fault::Trust => walk.frames.len(),
    };
    let complete = walk.end.is_complete() && wrong == walk.frames.len();
    let mut spot = Spot { complete, outermost: wrong >= truth.len(), ..Spot::default() };
    let (mut opinion, mut table_agrees) = ("none".to_owned(), false);
    // The rule that was applied to this frame led astray.
    let at = wrong.saturating_sub(1);
    if let Some((frame, known, _)) = walk.frames.get(at) {
        let address = frame.pc.lookup_address();
        spot.pc = frame.pc.address();
        spot.exact = frame.pc.is_exact();
        if let Some(Mapped { bias, image, .. }) = stepper.modules.at(address) {
            let svma = address.wrapping_sub(*bias);
            spot.module = image.name.clone();
            spot.ours = image.ours;
            spot.function = image.symbolize(svma).map(|(name, _)| name.to_owned()).unwrap_or_default();
            spot.row = cfi::row(&image.sections, svma).unwrap_or_default();
            let mut values = known.0.to_vec();
            values[usize::from(RSP.0)] = Some(frame.sp);
            values[usize::from(RBP.0)] = frame.fp;
            let caller = cfi::caller(
                &image.sections,
                &cfi::Frame {
                    svma,
                    values: &values,
                    sp: RSP.0,
                    preserved: &|number| number == RSP.0 || PRESERVED.contains(&Register(number)),
                    read: &|address| stepper.tracee.word(address).ok(),
                },
            );
            opinion = format!("{caller:x?}");
            table_agrees = agrees(&caller, &walk, at);
        }
    }
    let entry = stepper.shadow.entry(wrong);
    Doubtful { mode, walk, truth, fault, frame: wrong, entry, spot, opinion, table_agrees }
}

/// Whether the walk did, after its frame `at`, what the table says.
fn agrees(caller: &Result<Option<cfi::Caller>, String>, walk: &Walk<Known>, at: usize) -> bool {
    match (caller, walk.frames.get(at + 1)) {
        (Ok(Some(cfi::Caller::Registers { values, return_address, is_signal, .. })), Some((next, ..))) => {
            next.pc.address() == *return_address
                && next.pc.is_exact() == *is_signal
                && values[usize::from(RSP.0)] == Some(next.sp)
                && (next.fp.is_none() || values[usize::from(RBP.0)] == next.fp)
        }
        (Ok(Some(cfi::Caller::Registers { unreadable, .. })), None) => match walk.end {
            End::Truncated(Cut::Memory(MemoryError::Unreadable { address })) => unreadable.contains(&address),
            End::Failed(UnwindError { cause: StepError::StackNotShrinking { .. }, .. }) => true,
            _ => false,
        },
        (Ok(Some(cfi::Caller::Outermost)), None) => walk.end.is_complete(),
        _ => false,
    }
}

fn describe(modules: &Modules, instruction: u64, doubtful: &Doubtful) -> String {
    let Doubtful { mode, walk, truth, fault, spot, opinion, table_agrees, .. } = doubtful;
    let mut text = format!("{mode:?} walk: {fault:?}; instruction {instruction}\n");
    for index in 0..truth.len().max(walk.frames.len()) {
        let truth = truth.get(index).map(|frame| {
            format!("{:x?} sp {:#x} {}", frame.pc, frame.sp, modules.describe(frame.pc.address()))
        });
        let walk = walk
            .frames
            .get(index)
            .map(|(frame, ..)| format!("{:x?} sp {:#x} ({})", frame.pc, frame.sp, frame.provenance));
        let (truth, walk) = (truth.as_deref().unwrap_or("-"), walk.as_deref().unwrap_or("-"));
        let _ = writeln!(text, "  #{index} true {truth} | walk {walk}");
    }
    if let Fault::Register(index, register) = fault {
        let truth = truth[*index].registers.and_then(|registers| registers.get(*register));
        let (frame, known, _) = &walk.frames[*index];
        let walk = if *register == RBP { frame.fp } else { known.get(*register) };
        let _ = writeln!(text, "  register {} of #{index}: true {truth:x?}, walk {walk:x?}", register.0);
    }
    let agrees = if *table_agrees { "agrees with the walk" } else { "does not agree with the walk" };
    let _ = writeln!(
        text,
        "  walk ended: {}\n  at {spot:x?}\n  the table, read by gimli ({agrees}): {opinion}",
        walk.end
    );
    text
}
