//! Signals, and whatever else is executed in one go.

use std::io;

use super::chains::Registers;
use super::guest::Guest;
use super::plan::error;
use super::remote::Stop;
use super::session::Session;
use super::target::{EXCLUSIVE, Flow, Target};
use crate::oracle::truth::Event;

impl Session<'_> {
    /// A signal is due after this instruction, or because of it.
    pub(super) fn interrupted(&mut self, signal: u8, flow: Flow) -> io::Result<()> {
        // A fault leaves the instruction undone; a system call is done.
        let pc = self.remote.registers(self.target)?[self.target.pc];
        if pc != self.place().pc {
            let returning = matches!(flow, Flow::SystemCall(_)) && self.in_trampoline();
            self.advance(flow, returning)?;
        }
        self.deliver(signal)
    }
    /// Delivers a signal at the place at hand and goes on to its handler's first instruction.
    pub(super) fn deliver(&mut self, signal: u8) -> io::Result<()> {
        let interrupted = self.place();
        self.remote.complete(&mut self.registers, self.target)?;
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
    pub(super) fn return_from_signal(&mut self) -> io::Result<Stop> {
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
    pub(super) fn run_exclusive(&mut self) -> io::Result<Stop> {
        let pc = self.place().pc;
        let code = self.guest.read_some(pc, EXCLUSIVE * self.target.instruction);
        let exits = self.target.exits.map_or(Vec::new(), |exits| exits(&code, pc));
        if exits.is_empty() {
            return Err(error(format!("the load-exclusive at {pc:#x} has no end")));
        }
        self.at_once += u64::from(self.begin.is_none());
        self.run_to(&exits)
    }
    /// Goes on to one of these addresses. A step would execute one instruction too many after a system call.
    pub(super) fn run_to(&mut self, places: &[u64]) -> io::Result<Stop> {
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
}

/// Where a function that has just been entered returns to.
pub(super) fn entry_return_address(guest: &Guest, target: &Target, registers: &[u64]) -> io::Result<u64> {
    match target.link {
        Some(slot) => Ok(registers[slot] & target.code_mask),
        None => read_word(guest, target, registers[target.sp]),
    }
}

pub(super) fn read_word(guest: &Guest, target: &Target, address: u64) -> io::Result<u64> {
    let mut bytes = [0; 8];
    guest.read(address, &mut bytes[..target.word])?;
    Ok(target.word_of(&bytes[..target.word]))
}
