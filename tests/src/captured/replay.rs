//! Plays a run again, sample by sample.

use unwind_core::{Pc, Register, RegisterFile, UserRegisters};

use super::memory::CapturedMemory;
use super::run::{NO_NUMBER, Run, Sample};
use crate::oracle::truth::TrueFrame;

/// Registers of a sample or of a call, by DWARF number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedRegisters<'r> {
    slots: &'r [u16],
    values: &'r [u64],
    pc: u64,
}

impl CapturedRegisters<'_> {
    /// The pc.
    pub fn pc(&self) -> u64 {
        self.pc
    }
}

impl RegisterFile for CapturedRegisters<'_> {
    fn get(&self, register: Register) -> Option<u64> {
        let slot = self.slots.iter().position(|number| *number == register.0 && *number != NO_NUMBER)?;
        self.values.get(slot).copied()
    }
}

impl UserRegisters for CapturedRegisters<'_> {
    fn ip(&self) -> Option<u64> {
        Some(self.pc)
    }
}

/// One sample, and the truth about it.
pub struct Moment<'r> {
    /// Its index.
    pub index: usize,
    /// The machine's registers.
    pub registers: CapturedRegisters<'r>,
    /// The true chain, innermost first.
    pub chain: Vec<TrueFrame<CapturedRegisters<'r>>>,
    /// Where control is on its way to another place: the chain that will hold there, with the
    /// sample's own place on top.
    pub under_way: Option<Vec<TrueFrame<CapturedRegisters<'r>>>>,
}

/// A run being played again.
pub struct Replay<'r> {
    run: &'r Run,
    /// The memory at the sample that [`next`](Replay::next) returned.
    pub memory: CapturedMemory<'r>,
    sp: u16,
    pc: u16,
    red_zone: u64,
    index: usize,
}

impl<'r> Replay<'r> {
    /// Plays `run`. `pc` and `sp` are the DWARF numbers of these registers; below sp, `red_zone` bytes are in use.
    pub fn new(run: &'r Run, pc: u16, sp: u16, red_zone: u64) -> Self {
        Replay { run, memory: CapturedMemory::new(run), sp, pc, red_zone, index: 0 }
    }

    /// The next sample.
    ///
    /// # Panics
    /// Where the run contradicts itself: a sample without pc or sp, or a write outside the stacks.
    #[allow(
        clippy::should_implement_trait,
        reason = "the memory between two samples is borrowed by the user"
    )]
    pub fn next(&mut self) -> Option<Moment<'r>> {
        let run = self.run;
        let sample = run.samples.get(self.index)?;
        for (address, bytes) in &sample.writes {
            assert!(self.memory.write(*address, *bytes), "{}: write to {address:#x}", run.program);
        }
        let registers = self.registers(&sample.registers);
        let sp = registers.get(Register(self.sp)).expect("a captured sample has sp");
        self.memory.set_live(sp.saturating_sub(self.red_zone));
        let moment = Moment {
            index: self.index,
            chain: self.chain(sample, sample.call),
            under_way: sample.under_way.map(|call| self.chain(sample, call)),
            registers,
        };
        self.index += 1;
        Some(moment)
    }

    fn registers(&self, values: &'r [u64]) -> CapturedRegisters<'r> {
        let mut registers = CapturedRegisters { slots: &self.run.slots, values, pc: 0 };
        registers.pc = registers.get(Register(self.pc)).expect("captured registers have pc");
        registers
    }

    fn chain(&self, sample: &'r Sample, call: Option<u32>) -> Vec<TrueFrame<CapturedRegisters<'r>>> {
        let registers = self.registers(&sample.registers);
        let sp = registers.get(Register(self.sp)).expect("a captured sample has sp");
        let mut chain = vec![TrueFrame { pc: Pc::Exact(registers.pc), sp, registers: Some(registers) }];
        let mut next = call;
        while let Some(call) = next.and_then(|index| self.run.calls.get(index as usize)) {
            let registers = call.registers.as_deref().map(|values| self.registers(values));
            chain.push(TrueFrame { pc: call.pc, sp: call.sp, registers });
            next = call.parent;
        }
        chain
    }
}
