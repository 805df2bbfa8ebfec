//! A process that is stepped with ptrace.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::personality::{self, Persona};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use unwind_core::{MemoryError, MemoryReader};

use super::registers::Registers;

const PAGE: usize = 4096;

/// Tracees do not outlive the tracer.
const OPTIONS: Options = Options::PTRACE_O_EXITKILL.union(Options::PTRACE_O_TRACEEXEC);

/// A stopped process, or one of its threads. Killed when dropped.
pub struct Tracee {
    process: Pid,
    thread: Pid,
    /// `/proc/PID/mem`.
    memory: File,
    /// Pages of code that cannot be written.
    code: RefCell<HashMap<u64, Box<[u8; PAGE]>>>,
    /// Pages read since the last step.
    fresh: RefCell<Vec<(u64, Box<[u8; PAGE]>)>>,
    alive: bool,
}

/// Why a tracee stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// After one instruction, or at the first instruction of a signal handler.
    Step,
    /// Before this signal is delivered.
    Signal(Signal),
    /// It began another thread.
    NewThread(Pid),
    /// It has become another program.
    NewProgram,
    /// It has ended: with this code, or by this signal.
    Exited(i32),
    /// It was killed.
    Killed(Signal),
}

impl Tracee {
    /// Starts `command`, stopped at the first instruction of its loader, at addresses that do not
    /// vary, with neither input nor output.
    pub fn start(mut command: Command) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        stay_on_one_processor();
        let prepare = || {
            ptrace::traceme()?;
            // Where that is not permitted, addresses vary; the truth does not depend on them.
            let _ = personality::get().map(|now| personality::set(now | Persona::ADDR_NO_RANDOMIZE));
            Ok(())
        };
        // SAFETY: between fork and exec `prepare` makes system calls alone; it neither allocates
        // nor takes a lock.
        unsafe { command.pre_exec(prepare) };
        let child = command.spawn()?;
        let process = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        let mut tracee = Tracee {
            process,
            thread: process,
            memory: File::open("/dev/null")?,
            code: RefCell::default(),
            fresh: RefCell::default(),
            alive: true,
        };
        match waitpid(process, Some(WaitPidFlag::__WALL))? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
            other => return Err(io::Error::other(format!("not stopped by exec: {other:?}"))),
        }
        ptrace::setoptions(process, OPTIONS)?;
        // It belongs to the program that the process is now: not to be opened before the stop.
        tracee.memory = File::open(format!("/proc/{process}/mem"))?;
        Ok(tracee)
    }

    /// The process.
    pub fn process(&self) -> Pid {
        self.process
    }

    /// Runs until a thread is created.
    pub fn run_to_new_thread(&mut self) -> nix::Result<Stop> {
        self.fresh.get_mut().clear();
        ptrace::setoptions(self.process, OPTIONS | Options::PTRACE_O_TRACECLONE)?;
        ptrace::cont(self.thread, None)?;
        self.wait()
    }

    /// Lets the thread at hand run, and turns to `thread`, a new one, when that has stopped.
    pub fn turn_to(&mut self, thread: Pid) -> nix::Result<()> {
        waitpid(thread, Some(WaitPidFlag::__WALL))?;
        // Only this one: others that the program creates run untraced.
        ptrace::setoptions(self.thread, OPTIONS)?;
        ptrace::cont(self.thread, None)?;
        self.thread = thread;
        self.fresh.get_mut().clear();
        Ok(())
    }

    /// Whether the process has a handler for `signal`, and does not block it.
    pub fn catches(&self, signal: Signal) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.thread)).unwrap_or_default();
        let mask = |name| {
            let value = status.lines().find_map(|line| line.strip_prefix(name))?;
            u64::from_str_radix(value.trim(), 16).ok()
        };
        let bit = 1 << (signal as u32 - 1);
        mask("SigCgt:").is_some_and(|caught| caught & bit != 0)
            && mask("SigBlk:").is_some_and(|blocked| blocked & bit == 0)
    }

    /// The registers.
    pub fn registers(&self) -> nix::Result<Registers> {
        ptrace::getregs(self.thread).map(|registers| Registers::new(&registers))
    }

    /// One instruction, or the delivery of `signal`.
    pub fn step(&mut self, signal: Option<Signal>) -> nix::Result<Stop> {
        self.fresh.get_mut().clear();
        ptrace::step(self.thread, signal)?;
        self.wait()
    }

    /// Runs until `address` (avma) is reached.
    pub fn run_to(&mut self, address: u64) -> nix::Result<Stop> {
        self.fresh.get_mut().clear();
        let at = address as ptrace::AddressType;
        let original = ptrace::read(self.thread, at)?;
        ptrace::write(self.thread, at, (original & !0xff) | 0xcc)?;
        ptrace::cont(self.thread, None)?;
        let stop = self.wait()?;
        if matches!(stop, Stop::Step) {
            ptrace::write(self.thread, at, original)?;
            let mut registers = ptrace::getregs(self.thread)?;
            registers.rip = address;
            ptrace::setregs(self.thread, registers)?;
        }
        self.code.get_mut().clear();
        Ok(stop)
    }

    fn wait(&mut self) -> nix::Result<Stop> {
        const CLONE: i32 = nix::libc::PTRACE_EVENT_CLONE;
        const EXEC: i32 = nix::libc::PTRACE_EVENT_EXEC;
        let stop = match waitpid(self.thread, Some(WaitPidFlag::__WALL))? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => Stop::Step,
            WaitStatus::Stopped(_, signal) => Stop::Signal(signal),
            WaitStatus::PtraceEvent(_, _, CLONE) => {
                let thread = ptrace::getevent(self.thread)?;
                Stop::NewThread(Pid::from_raw(i32::try_from(thread).map_err(|_| Errno::EOVERFLOW)?))
            }
            WaitStatus::PtraceEvent(_, _, EXEC) => Stop::NewProgram,
            WaitStatus::Exited(_, code) => Stop::Exited(code),
            WaitStatus::Signaled(_, signal, _) => Stop::Killed(signal),
            _ => return Err(Errno::EPROTO),
        };
        if matches!(stop, Stop::Exited(_) | Stop::Killed(_)) && self.thread == self.process {
            self.alive = false;
        }
        Ok(stop)
    }

    /// Forgets what was read of code: mappings have changed.
    pub fn forget_code(&mut self) {
        self.code.get_mut().clear();
    }

    /// Reads bytes of code that nothing writes to; remembered.
    pub fn read_code(&self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let mut pages = self.code.borrow_mut();
        read_pages(address, into, |page, offset, into| {
            let bytes = match pages.entry(page) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(vacant) => vacant.insert(self.page(page)?),
            };
            into.copy_from_slice(&bytes[offset..offset + into.len()]);
            Ok(())
        })
    }

    /// Reads memory as it is now.
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let mut pages = self.fresh.borrow_mut();
        read_pages(address, into, |page, offset, into| {
            if !pages.iter().any(|(known, _)| *known == page) {
                pages.push((page, self.page(page)?));
            }
            if let Some((_, bytes)) = pages.iter().find(|(known, _)| *known == page) {
                into.copy_from_slice(&bytes[offset..offset + into.len()]);
            }
            Ok(())
        })
    }

    /// Reads a word.
    pub fn word(&self, address: u64) -> Result<u64, MemoryError> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn page(&self, page: u64) -> Result<Box<[u8; PAGE]>, MemoryError> {
        let mut bytes = Box::new([0; PAGE]);
        match self.memory.read_exact_at(&mut *bytes, page) {
            Ok(()) => Ok(bytes),
            Err(error) => match error.raw_os_error() {
                None | Some(nix::libc::EIO | nix::libc::EFAULT | nix::libc::EINVAL) => {
                    Err(MemoryError::Unreadable { address: page })
                }
                Some(code) => Err(MemoryError::Transport { code }),
            },
        }
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        if self.alive {
            let _ = kill(self.process, Signal::SIGKILL);
            // The process is not reported dead before its traced threads have been waited for. All
            // are children of this thread, and it has no other ones.
            let any = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            while let Ok(status) = waitpid(None, Some(any)) {
                let ended = matches!(status, WaitStatus::Signaled(..) | WaitStatus::Exited(..));
                if ended && status.pid() == Some(self.process) {
                    break;
                }
            }
        }
    }
}

/// Tracer and tracee never run at the same time; on one processor they take turns about half as fast
/// again. Holds for this thread and the children that it will have.
fn stay_on_one_processor() {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static DONE: Cell<bool> = const { Cell::new(false) });
    if DONE.replace(true) {
        return;
    }
    let Ok(allowed) = sched_getaffinity(Pid::from_raw(0)) else { return };
    let allowed: Vec<usize> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu) == Ok(true)).collect();
    let mut one = CpuSet::new();
    if let Some(cpu) = allowed.get(NEXT.fetch_add(1, Ordering::Relaxed) % allowed.len().max(1))
        && one.set(*cpu).is_ok()
    {
        // Only a matter of speed.
        let _ = sched_setaffinity(Pid::from_raw(0), &one);
    }
}

/// The memory of a tracee as a walk reads it.
#[derive(Clone, Copy)]
pub struct Memory<'t>(pub &'t Tracee);

impl MemoryReader for Memory<'_> {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        self.0.read(address, into)
    }
}

/// Fills `into` page by page: `copy` gets a page, an offset in it, and the part to fill.
fn read_pages(
    address: u64,
    into: &mut [u8],
    mut copy: impl FnMut(u64, usize, &mut [u8]) -> Result<(), MemoryError>,
) -> Result<(), MemoryError> {
    let mut done = 0;
    while done < into.len() {
        let at = address.checked_add(done as u64).ok_or(MemoryError::Unreadable { address })?;
        let offset = at as usize % PAGE;
        let length = (PAGE - offset).min(into.len() - done);
        copy(at - offset as u64, offset, &mut into[done..done + length]).map_err(|error| match error {
            MemoryError::Unreadable { .. } => MemoryError::Unreadable { address: at },
            error => error,
        })?;
        done += length;
    }
    Ok(())
}
