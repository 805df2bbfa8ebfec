//! What an instruction meant for the chain of calls.

use std::io;

use unwind_core::Pc;

use super::chains::Registers;
use super::plan::error;
use super::session::Session;
use super::signals::entry_return_address;
use crate::oracle::truth::{Event, Place, Planted, Settled, TrueFrame};

impl Session<'_> {
    /// Where calls take no room on the stack, sp does not tell a jump back into the function that made the innermost call
    /// (`__builtin_longjmp`) from one to a function that goes on in its place (a tail call, a linkage table's). A
    /// function is entered at its beginning; a jump that stays within the function at hand is its own affair.
    pub(super) fn lands_in_caller(&mut self, before: u64) -> io::Result<bool> {
        let after = self.place().pc;
        if self.target.call_slot > 0 || self.same_function(before, after)? {
            return Ok(false);
        }
        let caller = self.callers()?.first().map(|frame| frame.pc.lookup_address());
        let entered = self.guest.function(after).is_none_or(|function| function.start == after);
        Ok(!entered && caller.map_or(Ok(false), |caller| self.same_function(caller, after))?)
    }
    pub(super) fn happened(&mut self, event: Event<Registers>) -> io::Result<()> {
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
    pub(super) fn put_back_callers(&mut self, place: Place) -> io::Result<()> {
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
    pub(super) fn same_function(&mut self, one: u64, other: u64) -> io::Result<bool> {
        self.guest.visit(one)?;
        self.guest.visit(other)?;
        let name =
            |address| self.guest.function(address).map(|function| function.name.trim_end_matches(".cold"));
        Ok(name(one) == name(other))
    }
}
