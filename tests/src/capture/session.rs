//! Runs a program under the emulator, one instruction at a time, and keeps what a replay needs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use unwind_core::Pc;

use super::chains::{Chains, Registers};
use super::guest::Guest;
use super::remote::{Remote, Stop};
use super::stacks::Mirror;
use super::target::{EXCLUSIVE, Flow, Target};
use crate::captured::{CapturedModule, Function, Run, Sample};
use crate::oracle::truth::{Event, Place, Planted, Seen, Settled, Shadow, TrueFrame};

/// Its number in gdb's counting.
const SIGTRAP: u8 = 5;

/// Code is kept in pieces of this many bytes.
const PIECE: u64 = 64;

/// What to capture of a program.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What to call the run.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Options of the emulator.
    pub options: Vec<String>,
    /// The window begins where this function is first reached; at the program's very first instruction if `None`.
    pub from: Option<String>,
    /// The most samples.
    pub limit: usize,
    /// One of how many instructions that are not repeats becomes a sample.
    pub thin: u64,
    /// The same where pc is neither in the program itself nor in a library beside it, if that is another number.
    pub thin_elsewhere: Option<u64>,
    /// The sections that are kept of every file.
    pub sections: Vec<String>,
    /// Signals, in gdb's numbers, to deliver by turns between the calls of `injection_begins` and
    /// `injection_ends`, whenever so many samples have been taken there.
    pub inject: Vec<u8>,
    /// See `inject`.
    pub every: u64,
}

/// A run, its modules, and what the truth has seen.
pub struct Captured {
    /// The run.
    pub run: Run,
    /// Its modules.
    pub modules: Vec<CapturedModule>,
    /// Counts of events.
    pub seen: Seen,
    /// How often a handler had changed the pc that its signal returned to.
    pub redirected: u64,
    /// How many signals were delivered by the plan.
    pub injected: u64,
    /// How the program ended; `None` where the capture ended first.
    pub status: Option<u8>,
}

/// Captures a run. The program is found by a relative path, so that its stack does not depend on where it lies.
///
/// # Errors
/// Where the emulator cannot be run, or does what should not happen.
pub fn capture(target: &'static Target, plan: &Plan, socket: &Path) -> io::Result<Captured> {
    let folder = plan.program.parent().ok_or_else(|| error("the program has no folder"))?;
    let file = plan.program.file_name().ok_or_else(|| error("the program has no name"))?;
    let mut command = Command::new(target.emulator);
    command.args(["-L", target.sysroot, "-seed", "1"]).args(&plan.options);
    if target.guest_base != 0 {
        command.arg("-B").arg(format!("{:#x}", target.guest_base));
    }
    let shown = std::iter::once(target.emulator.to_owned()).chain(plan.options.iter().cloned());
    let shown = shown.collect::<Vec<_>>().join(" ");
    command.arg("-g").arg(socket).arg(Path::new(".").join(file)).current_dir(folder).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut emulator = Emulator(command.spawn()?);
    let remote = Remote::connect(socket, &mut emulator.0)?;
    let mut session = Session::new(target, plan, remote, emulator.0.id())?;
    let status = session.run()?;
    session.finish(shown, status)
}

/// The emulator's process, which does not outlive the session.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        // It may be over already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn error(text: impl Into<String>) -> io::Error {
    io::Error::other(text.into())
}

struct Session<'p> {
    target: &'static Target,
    plan: &'p Plan,
    remote: Remote,
    guest: Guest,
    registers: Vec<u64>,
    shadow: Shadow<Registers>,
    chains: Chains,
    mirror: Mirror,
    code: BTreeMap<u64, Vec<u8>>,
    functions: BTreeMap<u64, Function>,
    /// The addresses whose code and function are known.
    visited: HashSet<u64>,
    /// Where each signal that has not returned keeps the interrupted pc; the outermost first.
    resume_at: Vec<u64>,
    handlers: HashSet<u64>,
    /// The chains that were left for other places.
    left: Vec<Vec<TrueFrame<Registers>>>,
    /// Samples that were taken in limbo.
    in_limbo: Vec<usize>,
    known: HashSet<(u64, u64, Option<u32>)>,
    samples: Vec<Sample>,
    begin: Option<u64>,
    stepped: u64,
    repeats: u64,
    thinned: u64,
    at_once: u64,
    turns: u64,
    turns_elsewhere: u64,
    redirected: u64,
    injection: Injection,
}

#[derive(Default)]
struct Injection {
    begin: Option<u64>,
    end: Option<u64>,
    armed: bool,
    /// Samples since the last signal.
    since: u64,
    delivered: u64,
    /// Instructions since the injected signal that has not returned yet.
    inside: Option<u64>,
}

impl<'p> Session<'p> {
    fn new(target: &'static Target, plan: &'p Plan, mut remote: Remote, emulator: u32) -> io::Result<Self> {
        let guest = Guest::new(emulator, plan, target)?;
        let registers = remote.registers(target)?;
        let mut direct = [0; 16];
        guest.read(registers[target.sp], &mut direct)?;
        if direct.as_slice() != remote.memory(registers[target.sp], 16)? {
            return Err(error("the program's memory is not where it should be in the emulator's"));
        }
        let start = |name: &str| {
            let mut functions = guest.named(name).filter(|function| function.name == name);
            functions.next().map(|function| function.start)
        };
        let begin = match &plan.from {
            None => Some(registers[target.pc]),
            Some(name) => Some(start(name).ok_or_else(|| error(format!("there is no function {name}")))?),
        };
        let injection = Injection {
            begin: start("injection_begins"),
            end: start("injection_ends"),
            ..Injection::default()
        };
        let handlers: HashSet<_> = guest.named("handle_").map(|function| function.start).collect();
        Ok(Session {
            target,
            plan,
            remote,
            registers,
            shadow: Shadow::new(target.call_slot),
            chains: Chains::default(),
            mirror: Mirror::default(),
            code: BTreeMap::new(),
            functions: BTreeMap::new(),
            visited: HashSet::new(),
            resume_at: Vec::new(),
            handlers,
            left: Vec::new(),
            in_limbo: Vec::new(),
            known: HashSet::new(),
            samples: Vec::new(),
            begin,
            stepped: 0,
            repeats: 0,
            thinned: 0,
            at_once: 0,
            turns: 0,
            turns_elsewhere: 0,
            redirected: 0,
            injection,
            guest,
        })
    }

    /// Executes the program until it ends or the limit is reached.
    fn run(&mut self) -> io::Result<Option<u8>> {
        self.stack_at(self.place().sp)?;
        loop {
            let place = self.place();
            self.stack_at(place.sp)?;
            if self.begin == Some(place.pc) {
                self.begin = None;
            }
            let signal = if self.begin.is_none() { self.look(place)? } else { None };
            if self.samples.len() >= self.plan.limit {
                return Ok(None);
            }
            if let Some(signal) = signal {
                self.deliver(signal)?;
                continue;
            }
            let code = self.guest.read_some(place.pc, self.target.instruction);
            let flow = (self.target.decode)(&code, place.pc);
            let returning = matches!(flow, Flow::SystemCall(_)) && self.in_trampoline();
            let stop = match flow {
                Flow::SystemCall(_) if returning => self.return_from_signal()?,
                Flow::SystemCall(next) => self.run_to(&[next])?,
                Flow::LoadExclusive => self.run_exclusive()?,
                _ => self.remote.step()?,
            };
            match stop {
                Stop::Trap if flow == Flow::Trap => self.interrupted(SIGTRAP, flow)?,
                Stop::Trap => self.advance(flow, returning)?,
                Stop::Exited(status) => return Ok(Some(status)),
                Stop::Killed(signal) => {
                    return Err(error(format!("the program was killed by signal {signal}")));
                }
                Stop::Signal(signal) => self.interrupted(signal, flow)?,
            }
        }
    }

    fn place(&self) -> Place {
        Place { pc: self.registers[self.target.pc], sp: self.registers[self.target.sp] }
    }

    /// Takes note of the stack that `sp` is on.
    fn stack_at(&mut self, sp: u64) -> io::Result<()> {
        if !self.mirror.knows(sp)
            && let Some(stack) = self.guest.stack_at(sp)?
        {
            if !self.mirror.is_empty() {
                self.shadow.declare_stack(stack.clone());
            }
            self.mirror.add(stack);
        }
        Ok(())
    }

    /// The callers of the place at hand, as handlers have left them.
    fn callers(&mut self) -> io::Result<Vec<TrueFrame<Registers>>> {
        let mut callers = Vec::new();
        self.shadow.callers(&mut callers);
        let interrupted = callers.iter().filter(|frame| frame.pc.is_exact()).count();
        if interrupted > self.resume_at.len() {
            return Err(error("a signal was not seen"));
        }
        self.resume_at.truncate(interrupted);
        let signals = callers.iter_mut().rev().filter(|frame| frame.pc.is_exact());
        for (frame, at) in signals.zip(&self.resume_at) {
            frame.pc = Pc::Exact(read_word(&self.guest, self.target, *at)?);
        }
        Ok(callers)
    }

    fn in_trampoline(&self) -> bool {
        let mut callers = Vec::new();
        self.shadow.callers(&mut callers);
        callers.first().is_some_and(|frame| frame.pc.is_exact())
    }

    /// Looks at the instruction to be executed: takes a sample, or not; and says whether a signal is due.
    fn look(&mut self, place: Place) -> io::Result<Option<u8>> {
        self.stepped += 1;
        let callers = self.callers()?;
        let call = self.chains.intern(&callers);
        let in_signal = !self.resume_at.is_empty();
        if self.injection.begin == Some(place.pc) {
            self.injection.armed = true;
        }
        if self.injection.end == Some(place.pc) {
            self.injection.armed = false;
        }
        let wanted = match &mut self.injection.inside {
            None => true,
            Some(count) => {
                *count += 1;
                *count == 1 || *count == 2 + self.injection.delivered % 24
            }
        };
        if !self.known.insert((place.pc, place.sp, self.chains.shape(call))) {
            self.repeats += 1;
            return Ok(None);
        }
        self.guest.visit(place.pc)?;
        let (turns, thin) = match self.plan.thin_elsewhere {
            Some(thin) if !self.guest.is_own(place.pc) => (&mut self.turns_elsewhere, thin),
            _ => (&mut self.turns, self.plan.thin),
        };
        *turns += 1;
        if !wanted || !turns.is_multiple_of(thin) {
            self.thinned += 1;
            return Ok(None);
        }
        self.sample(place, call, &callers)?;
        Ok(self.injection_due(in_signal))
    }

    fn sample(
        &mut self,
        place: Place,
        call: Option<u32>,
        callers: &[TrueFrame<Registers>],
    ) -> io::Result<()> {
        let red = |sp: u64| sp.saturating_sub(self.target.red_zone);
        let sps: Vec<_> =
            std::iter::once(place.sp).chain(callers.iter().map(|frame| frame.sp)).map(red).collect();
        let writes = self.mirror.update(&self.guest, &sps)?;
        if self.shadow.in_limbo() {
            self.in_limbo.push(self.samples.len());
        }
        self.samples.push(Sample { call, under_way: None, registers: self.registers.clone(), writes });
        let pcs = callers.iter().map(|frame| frame.pc.lookup_address()).chain([place.pc]);
        for pc in pcs.collect::<BTreeSet<_>>() {
            self.keep_code(pc)?;
        }
        Ok(())
    }

    /// Keeps the code around `pc`, as far as conventions look, and the function it is in.
    fn keep_code(&mut self, pc: u64) -> io::Result<()> {
        if !self.visited.insert(pc) {
            return Ok(());
        }
        self.guest.visit(pc)?;
        let (first, last) = (pc.saturating_sub(16) / PIECE, pc.saturating_add(32) / PIECE);
        for piece in first..=last {
            let code = self.guest.read_some(piece * PIECE, PIECE as usize);
            self.code.insert(piece * PIECE, code);
        }
        if let Some(function) = self.guest.function(pc) {
            self.functions.entry(function.start).or_insert_with(|| function.clone());
        }
        Ok(())
    }

    fn injection_due(&mut self, in_signal: bool) -> Option<u8> {
        let injection = &mut self.injection;
        if !injection.armed || in_signal || self.plan.inject.is_empty() || self.shadow.in_limbo() {
            return None;
        }
        injection.since += 1;
        if injection.since < self.plan.every {
            return None;
        }
        injection.since = 0;
        injection.inside = Some(0);
        let turn = injection.delivered as usize % self.plan.inject.len();
        injection.delivered += 1;
        Some(self.plan.inject[turn])
    }

    /// Takes note of the instruction that was executed.
    fn advance(&mut self, flow: Flow, returning: bool) -> io::Result<()> {
        let before = self.place();
        let after = self.remote.registers(self.target)?;
        let registers: Registers = std::mem::replace(&mut self.registers, after).into();
        let event = match flow {
            Flow::SystemCall(_) if returning => {
                self.injection.inside = self.injection.inside.filter(|_| self.resume_at.len() > 1);
                Event::SignalReturn
            }
            Flow::Call(next) | Flow::ReturnIf(next) if self.place().pc == next => Event::Plain,
            Flow::Plain | Flow::SystemCall(_) | Flow::Trap | Flow::LoadExclusive => Event::Plain,
            Flow::Call(return_address) => Event::Call { return_address, sp: before.sp, registers },
            Flow::Return | Flow::ReturnIf(_) => Event::Return,
            Flow::Jump if self.lands_in_caller(before.pc)? => Event::Return,
            Flow::Jump => Event::Jump,
        };
        self.happened(event)
    }

    /// Where calls take no room on the stack, sp does not tell a jump back into the function that made the innermost call
    /// (`__builtin_longjmp`) from one to a function that goes on in its place (a tail call, a linkage table's). A
    /// function is entered at its beginning; a jump that stays within the function at hand is its own affair.
    fn lands_in_caller(&mut self, before: u64) -> io::Result<bool> {
        let after = self.place().pc;
        if self.target.call_slot > 0 || self.same_function(before, after)? {
            return Ok(false);
        }
        let caller = self.callers()?.first().map(|frame| frame.pc.lookup_address());
        let entered = self.guest.function(after).is_none_or(|function| function.start == after);
        Ok(!entered && caller.map_or(Ok(false), |caller| self.same_function(caller, after))?)
    }

    fn happened(&mut self, event: Event<Registers>) -> io::Result<()> {
        let place = self.place();
        self.stack_at(place.sp)?;
        let (guest, target, registers) = (&self.guest, self.target, &self.registers);
        let planted = || {
            let return_address = entry_return_address(guest, target, registers).ok()?;
            Some(Planted { return_address, sp: place.sp.wrapping_add(target.call_slot) })
        };
        let mut before = Vec::new();
        if self.shadow.in_limbo() || matches!(event, Event::Return | Event::Jump) {
            self.shadow.callers(&mut before);
        }
        match self.shadow.after(event, place, planted) {
            Settled::Limbo => {}
            Settled::Here => self.in_limbo.clear(),
            // Where a call takes no room there is nothing of it that a return could misuse.
            Settled::NoCall if self.target.call_slot > 0 => {
                return Err(error(format!("the call that {:#x} is reached from was none", place.pc)));
            }
            Settled::Moved | Settled::NoCall => {
                self.left.push(before);
                self.put_back_callers(place)?;
                let callers = self.callers()?;
                let parent = self.chains.intern(&callers);
                let here = TrueFrame { pc: Pc::Return(place.pc), sp: place.sp, registers: None };
                let here = self.chains.frame(parent, &here);
                for index in self.in_limbo.drain(..) {
                    self.samples[index].under_way = Some(Some(here));
                }
            }
        }
        Ok(())
    }

    /// Where calls take no room on the stack, sp does not tell whether control was handed over to a function or
    /// to one that it had called and that has no frame (`setcontext` resumes `swapcontext`), and the shadow has
    /// dropped the calls made at this sp. Those of the function at hand are over, and those inside them; the
    /// others are not.
    fn put_back_callers(&mut self, place: Place) -> io::Result<()> {
        if self.target.call_slot > 0 {
            return Ok(());
        }
        let callers = self.callers()?;
        let same = |one: &TrueFrame<Registers>, other: &TrueFrame<Registers>| {
            (one.pc, one.sp) == (other.pc, other.sp)
        };
        let at_this_sp = self.left.iter().rev().find_map(|chain| {
            let (inner, outer) = chain.split_at(chain.len().checked_sub(callers.len())?);
            let first = inner.iter().rposition(|frame| frame.sp != place.sp).map_or(0, |index| index + 1);
            let matches = outer.iter().zip(&callers).all(|(one, other)| same(one, other));
            (matches && first < inner.len()).then(|| inner[first..].to_vec())
        });
        let mut going_on = Vec::new();
        for frame in at_this_sp.into_iter().flatten().rev() {
            if self.same_function(place.pc, frame.pc.lookup_address())? {
                break;
            }
            going_on.push(frame);
        }
        for TrueFrame { pc, sp, registers } in going_on {
            let registers = registers.unwrap_or_else(|| self.registers.clone().into());
            self.shadow.after(Event::Call { return_address: pc.address(), sp, registers }, place, || None);
        }
        Ok(())
    }

    /// Whether both addresses are in one function, the part of it that is split off as cold included.
    fn same_function(&mut self, one: u64, other: u64) -> io::Result<bool> {
        self.guest.visit(one)?;
        self.guest.visit(other)?;
        let name =
            |address| self.guest.function(address).map(|function| function.name.trim_end_matches(".cold"));
        Ok(name(one) == name(other))
    }

    /// A signal is due after this instruction, or because of it.
    fn interrupted(&mut self, signal: u8, flow: Flow) -> io::Result<()> {
        // A fault leaves the instruction undone; a system call is done.
        let pc = self.remote.registers(self.target)?[self.target.pc];
        if pc != self.place().pc {
            let returning = matches!(flow, Flow::SystemCall(_)) && self.in_trampoline();
            self.advance(flow, returning)?;
        }
        self.deliver(signal)
    }

    /// Delivers a signal at the place at hand and goes on to its handler's first instruction.
    fn deliver(&mut self, signal: u8) -> io::Result<()> {
        let interrupted = self.place();
        let registers: Registers = self.registers.clone().into();
        for handler in &self.handlers {
            self.remote.breakpoint(true, *handler, self.target)?;
        }
        let stop = self.remote.go_on(signal)?;
        if stop != Stop::Trap {
            return Err(error(format!("signal {signal} at {:#x} leads to {stop:?}", interrupted.pc)));
        }
        for handler in &self.handlers {
            self.remote.breakpoint(false, *handler, self.target)?;
        }
        self.registers = self.remote.registers(self.target)?;
        let place = self.place();
        if !self.handlers.contains(&place.pc) {
            return Err(error(format!("signal {signal} leads to {:#x}, which is no handler", place.pc)));
        }
        self.stack_at(place.sp)?;
        let holds =
            |at: &u64| read_word(&self.guest, self.target, *at).is_ok_and(|word| word == interrupted.pc);
        let at = self.target.signal_pc.iter().map(|offset| place.sp.wrapping_add(*offset)).find(holds);
        let Some(at) = at else {
            return Err(error("the signal frame does not hold the interrupted pc"));
        };
        // Signals that were left by longjmp are gone.
        self.callers()?;
        self.resume_at.push(at);
        let trampoline = entry_return_address(&self.guest, self.target, &self.registers)?;
        let sp = place.sp.wrapping_add(self.target.call_slot);
        self.happened(Event::Signal { interrupted, registers, trampoline, sp })
    }

    /// Executes the system call of the trampoline.
    fn return_from_signal(&mut self) -> io::Result<Stop> {
        let callers = self.callers()?;
        let (Some(frame), Some(at)) = (callers.first(), self.resume_at.last()) else {
            return Err(error("no signal to return from"));
        };
        let resume = read_word(&self.guest, self.target, *at)?;
        let mut interrupted = Vec::new();
        self.shadow.callers(&mut interrupted);
        self.redirected += u64::from(interrupted.first().map(|frame| frame.pc) != Some(frame.pc));
        let stop = self.run_to(&[resume])?;
        let pc = self.remote.registers(self.target)?[self.target.pc];
        if pc != resume {
            return Err(error(format!("a signal returned to {pc:#x}, not to {resume:#x}")));
        }
        Ok(stop)
    }

    /// Executes a load-exclusive and what follows it up to the store-exclusive at once.
    fn run_exclusive(&mut self) -> io::Result<Stop> {
        let pc = self.place().pc;
        let code = self.guest.read_some(pc, EXCLUSIVE * self.target.instruction);
        let exits = (self.target.exits)(&code, pc);
        if exits.is_empty() {
            return Err(error(format!("the load-exclusive at {pc:#x} has no end")));
        }
        self.at_once += u64::from(self.begin.is_none());
        self.run_to(&exits)
    }

    /// Goes on to one of these addresses. A step would execute one instruction too many after a system call.
    fn run_to(&mut self, places: &[u64]) -> io::Result<Stop> {
        for place in places {
            self.remote.breakpoint(true, *place, self.target)?;
        }
        let stop = self.remote.go_on(0)?;
        if !matches!(stop, Stop::Exited(_) | Stop::Killed(_)) {
            for place in places {
                self.remote.breakpoint(false, *place, self.target)?;
            }
        }
        Ok(stop)
    }

    fn finish(mut self, command: String, status: Option<u8>) -> io::Result<Captured> {
        let used = self.samples.iter().flat_map(|sample| [sample.call, sample.under_way.flatten()]).flatten();
        let (calls, numbers) = self.chains.finish(used, self.target);
        let renumber = |call: Option<u32>| call.map(|call| numbers[&call]);
        for sample in &mut self.samples {
            sample.call = sample.call.map(|call| numbers[&call]);
            sample.under_way = sample.under_way.map(renumber);
        }
        let visited = |file: &&super::symbols::Loaded| self.code.keys().any(|piece| file.is_code(*piece));
        let files: Vec<_> = self.guest.files.iter().filter(visited).collect();
        let run = Run {
            target: self.target.name.into(),
            program: self.plan.name.clone(),
            command,
            stepped: self.stepped,
            repeats: self.repeats,
            thinned: self.thinned,
            at_once: self.at_once,
            slots: self.target.slots.iter().map(|slot| slot.number).collect(),
            preserved: self.target.preserved.to_vec(),
            modules: files.iter().map(|file| file.loaded()).collect(),
            stacks: self.mirror.ranges(),
            code: joined(self.code),
            functions: self.functions.into_values().collect(),
            calls,
            samples: self.samples,
        };
        let modules = files.into_iter().map(|file| file.module.clone()).collect();
        Ok(Captured {
            run,
            modules,
            seen: self.shadow.seen(),
            redirected: self.redirected,
            injected: self.injection.delivered,
            status,
        })
    }
}

/// Where a function that has just been entered returns to.
fn entry_return_address(guest: &Guest, target: &Target, registers: &[u64]) -> io::Result<u64> {
    match target.link {
        Some(slot) => Ok(registers[slot]),
        None => read_word(guest, target, registers[target.sp]),
    }
}

fn read_word(guest: &Guest, target: &Target, address: u64) -> io::Result<u64> {
    let mut bytes = [0; 8];
    guest.read(address, &mut bytes[..target.word])?;
    Ok(target.word_of(&bytes[..target.word]))
}

/// Neighbouring pieces put together.
fn joined(pieces: BTreeMap<u64, Vec<u8>>) -> Vec<(u64, Vec<u8>)> {
    let mut joined: Vec<(u64, Vec<u8>)> = Vec::new();
    for (address, bytes) in pieces.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
        match joined.last_mut() {
            Some((start, before)) if *start + before.len() as u64 == address => before.extend(bytes),
            _ => joined.push((address, bytes)),
        }
    }
    joined
}
