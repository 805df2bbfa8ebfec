//! A program that runs under the emulator, one instruction at a time.

use std::collections::{BTreeMap, HashSet};
use std::io;

use unwind_core::Pc;

use super::chains::{Chains, Registers};
use super::guest::Guest;
use super::plan::{Plan, error};
use super::remote::{Remote, Stop};
use super::signals::read_word;
use super::stacks::Mirror;
use super::target::{Flow, Target};
use crate::captured::{Function, Sample};
use crate::oracle::truth::{Event, Place, Shadow, TrueFrame};

/// Its number in gdb's counting.
const SIGTRAP: u8 = 5;

/// The program, the truth about it, and the samples so far.
pub(super) struct Session<'p> {
    pub(super) target: &'static Target,
    pub(super) plan: &'p Plan,
    pub(super) remote: Remote,
    pub(super) guest: Guest,
    pub(super) registers: Vec<u64>,
    pub(super) shadow: Shadow<Registers>,
    pub(super) chains: Chains,
    pub(super) mirror: Mirror,
    pub(super) code: BTreeMap<u64, Vec<u8>>,
    pub(super) functions: BTreeMap<u64, Function>,
    /// The addresses whose code and function are known.
    pub(super) visited: HashSet<u64>,
    /// Where each signal that has not returned keeps the interrupted pc; the outermost first.
    pub(super) resume_at: Vec<u64>,
    /// A branch whose delay slot is being executed, and where it is.
    pub(super) delayed: Option<(Flow, Place)>,
    pub(super) handlers: HashSet<u64>,
    /// The chains that were left for other places.
    pub(super) left: Vec<Vec<TrueFrame<Registers>>>,
    /// Samples that were taken in limbo.
    pub(super) in_limbo: Vec<usize>,
    pub(super) known: HashSet<(u64, u64, Option<u32>)>,
    pub(super) samples: Vec<Sample>,
    pub(super) begin: Option<u64>,
    pub(super) stepped: u64,
    pub(super) repeats: u64,
    pub(super) thinned: u64,
    pub(super) at_once: u64,
    pub(super) turns: u64,
    pub(super) turns_elsewhere: u64,
    pub(super) redirected: u64,
    pub(super) injection: Injection,
}

/// Signals that the plan delivers.
#[derive(Default)]
pub(super) struct Injection {
    pub(super) begin: Option<u64>,
    pub(super) end: Option<u64>,
    pub(super) armed: bool,
    /// Samples since the last signal.
    pub(super) since: u64,
    pub(super) delivered: u64,
    /// Instructions since the injected signal that has not returned yet.
    pub(super) inside: Option<u64>,
}

impl<'p> Session<'p> {
    pub(super) fn new(
        target: &'static Target,
        plan: &'p Plan,
        mut remote: Remote,
        emulator: u32,
    ) -> io::Result<Self> {
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
            delayed: None,
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
    pub(super) fn run(&mut self) -> io::Result<Option<u8>> {
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
            let flow = (self.target.decode)(&code, place.pc, &self.registers);
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

    pub(super) fn place(&self) -> Place {
        Place { pc: self.registers[self.target.pc], sp: self.registers[self.target.sp] }
    }

    /// Takes note of the stack that `sp` is on.
    pub(super) fn stack_at(&mut self, sp: u64) -> io::Result<()> {
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
    pub(super) fn callers(&mut self) -> io::Result<Vec<TrueFrame<Registers>>> {
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

    pub(super) fn in_trampoline(&self) -> bool {
        let mut callers = Vec::new();
        self.shadow.callers(&mut callers);
        callers.first().is_some_and(|frame| frame.pc.is_exact())
    }

    /// Takes note of the instruction that was executed.
    pub(super) fn advance(&mut self, flow: Flow, returning: bool) -> io::Result<()> {
        let mut flow = flow;
        let mut before = self.place();
        let after = self.remote.registers(self.target)?;
        let mut registers: Registers = std::mem::replace(&mut self.registers, after).into();
        if self.target.delays && !matches!(flow, Flow::Plain | Flow::SystemCall(_) | Flow::Trap) {
            // The instruction behind the branch comes first.
            self.delayed = Some((flow, before));
            return self.happened(Event::Plain);
        }
        if let Some((branch, place)) = self.delayed.take() {
            // What a call preserves is what its delay slot has left.
            (flow, before, registers) = (branch, place, self.registers.clone().into());
        }
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
}
