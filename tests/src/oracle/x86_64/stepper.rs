//! A thread that is stepped, and its true call stack.

use std::io;
use std::path::Path;

use nix::sys::signal::Signal;
use unwind_arch_x86_64::{RAX, RDI, RDX};
use unwind_core::RegisterFile;

use super::case::Tables;
use super::instruction::{Instruction, LONGEST};
use super::registers::Registers;
use super::tracee::{Stop, Tracee};
use crate::oracle::modules::{Image, Modules};
use crate::oracle::truth::{Event, Place, Planted, Settled, Shadow};

/// A return address is pushed: a word.
const SLOT: u64 = 8;

// System call numbers: `asm/unistd_64.h`.
const MMAP: u64 = 9;
const MPROTECT: u64 = 10;
const MUNMAP: u64 = 11;
const RT_SIGRETURN: u64 = 15;
const SIGALTSTACK: u64 = 131;
const PROT_EXEC: u64 = 4;

/// A stopped thread.
pub(super) struct Stepper<'s> {
    pub(super) tracee: Tracee,
    pub(super) modules: Modules,
    pub(super) shadow: Shadow<Registers>,
    pub(super) registers: Registers,
    /// What contradicts the truth's own rules.
    pub(super) doubts: Vec<String>,
    ours: &'s Path,
    tables: Tables,
    makecontext: Option<u64>,
}

/// What a step did.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// The thread goes on.
    Went {
        /// Whether an instruction was executed.
        executed: bool,
        /// Whether the signal that was given entered its handler.
        entered: bool,
        /// What it meant for the call stack.
        settled: Settled,
        /// A signal that waits for delivery: to be given to the next step.
        pending: Option<Signal>,
    },
    /// The thread has ended.
    Ended(Stop),
}

impl<'s> Stepper<'s> {
    /// Takes over a tracee that has been stopped before its first instruction.
    pub(super) fn new(tracee: Tracee, ours: &'s Path, tables: Tables) -> io::Result<Self> {
        let mut stepper = Stepper {
            registers: tracee.registers()?,
            modules: read_modules(&tracee, ours, tables)?,
            shadow: Shadow::new(SLOT),
            doubts: Vec::new(),
            makecontext: None,
            tracee,
            ours,
            tables,
        };
        stepper.look_around()?;
        Ok(stepper)
    }

    /// Runs, unobserved, to the program's own entry.
    pub(super) fn run_to_entry(&mut self) -> io::Result<()> {
        let path = std::fs::read_link(format!("/proc/{}/exe", self.tracee.process()))?;
        let image = Image::of_file(&path, path.starts_with(self.ours))?;
        let mut mapped = self.modules.mapped.iter().filter(|mapped| std::ptr::eq(mapped.image, image));
        let mapped = mapped.next().ok_or_else(|| io::Error::other("the program is not mapped"))?;
        self.run_to(image.entry.wrapping_add(mapped.bias))
    }

    /// Runs, unobserved, to this function.
    pub(super) fn run_to_function(&mut self, name: &str) -> io::Result<()> {
        let function = self.function(name)?;
        self.run_to(function)
    }

    /// Runs, unobserved, until the program creates a thread, and goes on with that one.
    pub(super) fn run_to_thread(&mut self) -> io::Result<()> {
        match self.tracee.run_to_new_thread()? {
            Stop::NewThread(thread) => self.tracee.turn_to(thread)?,
            stop => return Err(io::Error::other(format!("no thread was created: {stop:?}"))),
        }
        self.look_around()
    }

    /// The address of a function (avma).
    pub(super) fn function(&self, name: &str) -> io::Result<u64> {
        let symbol = self.modules.symbol(name).map(|range| range.start);
        symbol.ok_or_else(|| io::Error::other(format!("there is no function {name}")))
    }

    /// Executes one instruction, or delivers a signal.
    pub(super) fn step(&mut self, signal: Option<Signal>) -> io::Result<Step> {
        let before = self.registers;
        let place = before.place();
        if self.makecontext == Some(place.pc) {
            // `makecontext(ucp, ...)`; in `struct ucontext` the `stack_t` is at 16.
            self.declare_stack(value(&before, RDI).wrapping_add(16));
        }
        let instruction = self.instruction();
        let is_system_call = instruction == Instruction::SystemCall;
        if is_system_call && value(&before, RAX) == SIGALTSTACK && value(&before, RDI) != 0 {
            self.declare_stack(value(&before, RDI));
        }
        let stop = self.tracee.step(signal)?;
        let pending = match stop {
            Stop::Step => None,
            Stop::Signal(signal) => Some(signal),
            Stop::NewThread(_) | Stop::NewProgram | Stop::Exited(_) | Stop::Killed(_) => {
                return Ok(Step::Ended(stop));
            }
        };
        self.registers = self.tracee.registers()?;
        let delivered = signal.and_then(|_| self.delivered(&before));
        let entered = delivered.is_some();
        // A signal comes before the instruction, or after it: a fault that it caused by jumping.
        let executed = !entered && (pending.is_none() || self.registers.place() != place);
        let event = match delivered {
            Some(event) => event,
            None if executed => self.event(instruction, &before),
            None => Event::Plain,
        };
        let tracee = &self.tracee;
        let now = self.registers.place();
        let settled = self.shadow.after(event, now, || {
            Some(Planted { return_address: tracee.word(now.sp).ok()?, sp: now.sp.wrapping_add(SLOT) })
        });
        if is_system_call && executed && changes_modules(&before) {
            self.look_around()?;
        }
        Ok(Step::Went { executed, entered, settled, pending })
    }

    /// Brings the interrupted places in the shadow up to date with the kernel's signal frames, which
    /// handlers may change.
    pub(super) fn refresh_signals(&mut self) {
        let tracee = &self.tracee;
        self.shadow.refresh_signals(|sp| signal_frame(tracee, sp).map(|frame| (frame.place(), frame)));
    }

    fn run_to(&mut self, address: u64) -> io::Result<()> {
        match self.tracee.run_to(address)? {
            Stop::Step => self.look_around(),
            stop => Err(io::Error::other(format!("{address:#x} was not reached: {stop:?}"))),
        }
    }

    /// Registers, modules, and what depends on them.
    fn look_around(&mut self) -> io::Result<()> {
        self.tracee.forget_code();
        self.registers = self.tracee.registers()?;
        self.modules = read_modules(&self.tracee, self.ours, self.tables)?;
        self.makecontext = self.function("makecontext").ok();
        // Programs name the stacks that they switch to by hand.
        for mapped in self.modules.mapped.iter().filter(|mapped| mapped.image.ours) {
            for (svma, size, name) in &mapped.image.symbols {
                if name.starts_with("oracle_stack") {
                    let start = svma.wrapping_add(mapped.bias);
                    self.shadow.declare_stack(start..start + size);
                }
            }
        }
        Ok(())
    }

    /// The instruction at hand.
    fn instruction(&self) -> Instruction {
        let mut code = [0; LONGEST];
        let pc = self.registers.place().pc;
        let readable =
            (1..=LONGEST).rev().find(|length| self.tracee.read_code(pc, &mut code[..*length]).is_ok());
        Instruction::at(&code[..readable.unwrap_or(0)])
    }

    /// What the instruction at `before` did.
    fn event(&mut self, instruction: Instruction, before: &Registers) -> Event<Registers> {
        let Place { pc, sp } = before.place();
        match instruction {
            Instruction::Call => {
                let now = self.registers.place();
                match self.tracee.word(now.sp) {
                    Ok(return_address)
                        if now.sp == sp.wrapping_sub(SLOT)
                            && (2..=LONGEST as u64).contains(&return_address.wrapping_sub(pc)) =>
                    {
                        Event::Call { return_address, sp, registers: before.at(return_address) }
                    }
                    _ => {
                        self.doubts.push(format!("a call at {pc:#x} pushed no return address"));
                        Event::Plain
                    }
                }
            }
            Instruction::Return => Event::Return,
            Instruction::Jump => Event::Jump,
            Instruction::SystemCall if value(before, RAX) == RT_SIGRETURN => Event::SignalReturn,
            Instruction::SystemCall | Instruction::Other => Event::Plain,
        }
    }

    /// Whether a signal handler has just been entered, from `before`: the kernel's own signal frame
    /// says so.
    fn delivered(&self, before: &Registers) -> Option<Event<Registers>> {
        let now = self.registers.place();
        let sp = now.sp.wrapping_add(SLOT);
        let registers = signal_frame(&self.tracee, sp)?;
        let interrupted = registers.place();
        // A system call that is to be restarted is put back by the length of its instruction.
        let restarted = interrupted.pc == before.place().pc.wrapping_sub(2);
        let entered =
            interrupted.sp == before.place().sp && (interrupted.pc == before.place().pc || restarted);
        if !entered || now.pc == interrupted.pc {
            return None;
        }
        let trampoline = self.tracee.word(now.sp).ok()?;
        Some(Event::Signal { interrupted, registers, trampoline, sp })
    }

    /// Declares the stack of a `stack_t` in the target's memory: `ss_sp`, `ss_flags`, `ss_size`.
    fn declare_stack(&mut self, address: u64) {
        if let (Ok(start), Ok(size)) = (self.tracee.word(address), self.tracee.word(address.wrapping_add(16)))
        {
            self.shadow.declare_stack(start..start.saturating_add(size));
        }
    }
}

fn value(registers: &Registers, register: unwind_core::Register) -> u64 {
    registers.get(register).unwrap_or(0)
}

/// Whether a system call made at `before` may have changed what is mapped executable.
fn changes_modules(before: &Registers) -> bool {
    match value(before, RAX) {
        MMAP | MPROTECT => value(before, RDX) & PROT_EXEC != 0,
        MUNMAP => true,
        _ => false,
    }
}

/// What the kernel's signal frame holds that a handler leaves at `sp`: after the return address of
/// `struct rt_sigframe`, a `ucontext` whose `sigcontext` begins at 40 (`asm/sigcontext.h`,
/// `asm-generic/ucontext.h`).
fn signal_frame(tracee: &Tracee, sp: u64) -> Option<Registers> {
    // By DWARF number: rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, r8 to r15, rip.
    const WORDS: [u64; 17] = [13, 12, 14, 11, 9, 8, 10, 15, 0, 1, 2, 3, 4, 5, 6, 7, 16];
    let mut values = [0; 17];
    for (value, word) in values.iter_mut().zip(WORDS) {
        *value = tracee.word(sp.checked_add(40 + 8 * word)?).ok()?;
    }
    Some(Registers(values))
}

fn read_modules(tracee: &Tracee, ours: &Path, tables: Tables) -> io::Result<Modules> {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", tracee.process()))?;
    Modules::read(&maps, ours, tables, |range| {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).ok()?];
        tracee.read_code(range.start, &mut bytes).ok()?;
        Image::vdso(bytes)
    })
}
