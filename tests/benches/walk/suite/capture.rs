//! The capturer: stops busy programs again and again, and copies registers, stacks and modules.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use unwind_arch::host::{HostArch, Registers};
use unwind_core::{Arch, MemoryReader, Register, RegisterFile, UserRegisters};
use unwind_mem::StackSnapshot;
use unwind_mem::elf::ElfModules;
use unwind_mem::process::{ProcessMemory, StoppedProcess, StoppedThread};

use super::modules::Gathered;
use super::ours;
use super::programs::Program;
use super::workload::{Sample, Workload};

/// How much is captured of each program.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) samples: usize,
    pub(crate) time: Duration,
}

/// Between two samples of a program.
const INTERVAL: Duration = Duration::from_micros(1_500);
/// The most bytes of a stack.
const MOST: u64 = 1 << 17;
/// Copied below the stack pointer, where functions keep what they have just popped, or use a red zone.
const BELOW: u64 = 128;
/// Kept of a stack beyond the last frame.
const MARGIN: u64 = 256;

/// Samples of all these programs, each after the other.
pub(crate) fn capture(programs: &[Program], limits: Limits) -> Workload {
    let mut gathered = Gathered::default();
    for program in programs {
        let before = gathered.workload.samples.len();
        match sample_program(program, limits, &mut gathered) {
            Ok(()) => {
                trim(&mut gathered.workload, before);
                println!("{}: {} samples", program.name, gathered.workload.samples.len() - before);
            }
            Err(error) => {
                gathered.workload.samples.truncate(before);
                println!("SKIPPED {}: {error}", program.name);
            }
        }
    }
    gathered.workload
}

fn sample_program(
    program: &Program,
    limits: Limits,
    gathered: &mut Gathered,
) -> Result<(), Box<dyn std::error::Error>> {
    let until = Instant::now() + limits.time;
    let enough = gathered.workload.samples.len() + limits.samples;
    // A process that ended is followed by another, with other addresses.
    while Instant::now() < until && gathered.workload.samples.len() < enough {
        let before = gathered.workload.samples.len();
        let mut running = Running::start(&mut program.command())?;
        let mut states = HashMap::new();
        let mut last = HashMap::new();
        while Instant::now() < until && gathered.workload.samples.len() < enough {
            std::thread::sleep(INTERVAL);
            if running.has_ended() {
                break;
            }
            // The process may end at any moment.
            let Ok(stopped) = StoppedProcess::stop(running.pid()) else { continue };
            sample_process(program.name, &stopped, &mut states, &mut last, gathered);
        }
        if gathered.workload.samples.len() == before {
            return Err("it ends before it can be sampled".into());
        }
    }
    Ok(())
}

/// What is executable in a process, as its map says, → the number of that state of it.
type States = HashMap<String, Option<usize>>;

/// Samples the threads that have moved.
fn sample_process(
    program: &str,
    stopped: &StoppedProcess,
    states: &mut States,
    last: &mut HashMap<u32, (u64, u64)>,
    gathered: &mut Gathered,
) {
    let pid = stopped.pid();
    let Ok(maps) = fs::read_to_string(format!("/proc/{pid}/maps")) else { return };
    let is_executable = |line: &&str| line.split(' ').nth(1).is_some_and(|flags| flags.contains('x'));
    let code: String = maps.lines().filter(is_executable).flat_map(|line| [line, "\n"]).collect();
    let state = states.entry(code).or_insert_with(|| {
        let modules = ElfModules::of_process(pid).ok()?;
        Some(gathered.process(program, &modules))
    });
    let Some(process) = *state else { return };
    for thread in stopped.threads() {
        if let Some(sample) = sample_thread(pid, process, thread, &maps)
            && last.insert(thread.tid, (sample.ip(), sample.sp())) != Some((sample.ip(), sample.sp()))
        {
            gathered.workload.samples.push(sample);
        }
    }
}

fn sample_thread(pid: u32, process: usize, thread: &StoppedThread, maps: &str) -> Option<Sample> {
    let registers = (0..Registers::COUNT).filter_map(|number| {
        let register = Register(u16::try_from(number).ok()?);
        Some((register, thread.registers.get(register)?))
    });
    let registers = Registers::from_dwarf(registers).with_ip(thread.registers.ip()?);
    let sp = registers.get(HostArch::host().sp())?;
    let mapping = maps.lines().filter_map(addresses).find(|addresses| addresses.contains(&sp))?;
    let address = sp.saturating_sub(BELOW).max(mapping.start);
    let mut stack = vec![0; usize::try_from((mapping.end - address).min(MOST)).ok()?];
    ProcessMemory::new(pid).read(address, &mut stack).ok()?;
    Some(Sample { process, registers, address, stack: stack.leak() })
}

/// The addresses of a line of a map.
fn addresses(line: &str) -> Option<Range<u64>> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
}

/// Leaves out what is beyond the last frame of the stacks from a number on: nobody reads it.
fn trim(workload: &mut Workload, from: usize) {
    let lengths: Vec<usize> = {
        let dwarf = ours::dwarf(workload);
        let length = |sample: &Sample| {
            let memory = StackSnapshot::new(sample.address, sample.stack);
            let mut frames = dwarf.unwinders[sample.process].frames(&sample.registers, memory).ok()?;
            let last = frames.by_ref().last()?;
            // Where more could not be read, it may be because the copy ends there.
            let is_complete = frames.end().is_some_and(|end| end.is_complete());
            let length = last.sp.saturating_sub(sample.address) + MARGIN;
            is_complete.then(|| usize::try_from(length).ok()).flatten()
        };
        workload.samples[from..].iter().map(|sample| length(sample).unwrap_or(usize::MAX)).collect()
    };
    for (sample, length) in workload.samples[from..].iter_mut().zip(lengths) {
        sample.stack = sample.stack.get(..length).unwrap_or(sample.stack);
    }
}

/// A running program, ended with this.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> std::io::Result<Self> {
        let parent = std::process::id();
        // SAFETY: two system calls, which may be made between fork and exec.
        unsafe {
            command.pre_exec(move || {
                // Some of the programs never end by themselves.
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                let is_orphan = std::os::unix::process::parent_id() != parent;
                if is_orphan { Err(nix::errno::Errno::ESRCH.into()) } else { Ok(()) }
            });
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(Running)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
