//! A CPU, its task, and what the library asks of them.

use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use unwind_arch::host::{HostArch, Registers};
use unwind_core::deferred::{Client, Cookie, Embedder, NotQueued, Return, TaskState, Trace, TraceCache};
use unwind_core::{ModuleMap, StartError, UnwindStacktrace, Unwinder};
use unwind_mem::elf::ElfSource;
use unwind_mem::process::ProcessMemory;

use crate::machine::Machine;
use crate::record::{Part, Record, Records, now};

pub(crate) type HostUnwinder = Unwinder<HostArch, ModuleMap<'static, Option<ElfSource<'static>>>>;

/// The longest trace that is kept.
pub(crate) const ROOM: usize = 250;

/// A CPU and the one task that it runs.
pub(crate) struct Cpu {
    pub(crate) number: u32,
    pub(crate) state: TaskState,
    /// Whether the task is in the kernel. Signals that find it in user space have nothing to defer.
    is_in_kernel: AtomicBool,
    /// Whether work is queued: looked at on the way back.
    has_work: AtomicBool,
    /// Whether a signal has interrupted the thread, and how often one interrupted another.
    is_in_nmi: AtomicBool,
    pub(crate) nested: AtomicU64,
    /// The functions of the kernel that are running, one in each byte, innermost lowest.
    path: AtomicU64,
    pub(crate) records: Records,
    pub(crate) counts: Counts,
    /// What the thread alone uses, outside of signal handlers.
    own: Mutex<Own>,
}

/// What happened on a CPU.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) entries: AtomicU64,
    pub(crate) used_entries: AtomicU64,
    pub(crate) signals: AtomicU64,
    pub(crate) in_user: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// By `Standing`.
    pub(crate) queued: AtomicU64,
    pub(crate) already_queued: AtomicU64,
    pub(crate) already_served: AtomicU64,
    pub(crate) walks: AtomicU64,
    pub(crate) deliveries: AtomicU64,
    pub(crate) from_cache: AtomicU64,
    pub(crate) compared: AtomicU64,
    pub(crate) different: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[derive(Default)]
struct Own {
    /// The user's registers at the system call.
    registers: Option<Registers>,
    /// The stack as it was when the system call began, where that is compared.
    expected: Option<Vec<u64>>,
    traces: Vec<Vec<u64>>,
}

impl AsRef<TaskState> for Cpu {
    fn as_ref(&self) -> &TaskState {
        &self.state
    }
}

thread_local! {
    /// The CPU that this thread is.
    static THIS: Cell<Option<&'static Cpu>> = const { Cell::new(None) };
}

/// The CPU that runs the caller: a load, in signal handlers as well.
pub(crate) fn this_cpu() -> Option<&'static Cpu> {
    THIS.get()
}

impl Cpu {
    pub(crate) fn new(number: u32) -> Self {
        Cpu {
            number,
            state: TaskState::new(),
            is_in_kernel: AtomicBool::new(false),
            has_work: AtomicBool::new(false),
            is_in_nmi: AtomicBool::new(false),
            nested: AtomicU64::new(0),
            path: AtomicU64::new(0),
            records: Records::new(1 << 18),
            counts: Counts::default(),
            own: Mutex::default(),
        }
    }

    /// The calling thread is this CPU from now on.
    pub(crate) fn start(&'static self) {
        THIS.set(Some(self));
    }

    /// A signal has come: whatever it does is marked as in an NMI.
    pub(crate) fn nmi(&self, run: impl FnOnce()) {
        let outer = self.is_in_nmi.swap(true, Ordering::Relaxed);
        if outer {
            count(&self.nested);
        }
        run();
        self.is_in_nmi.store(outer, Ordering::Relaxed);
    }

    pub(crate) fn is_in_nmi(&self) -> bool {
        self.is_in_nmi.load(Ordering::Relaxed)
    }

    /// A system call: `run` is the kernel's part of it.
    pub(crate) fn system_call(&self, machine: &Machine, registers: &Registers, run: impl FnOnce()) {
        let number = self.counts.entries.fetch_add(1, Ordering::Relaxed);
        {
            let Ok(mut own) = self.own.lock() else { return };
            own.registers = Some(*registers);
            own.expected = number.is_multiple_of(8).then(|| {
                let mut entries = vec![0; ROOM];
                let found = machine.unwinder.unwind_user(registers, memory(), &mut entries);
                entries.truncate(found.map_or(0, |found| found.nr));
                entries
            });
        }
        let mut cache = TraceCache::new([0; ROOM]);
        self.is_in_kernel.store(true, Ordering::Relaxed);
        run();
        self.leave(machine, &mut cache);
    }

    /// The way back to user space.
    fn leave(&self, machine: &Machine, cache: &mut TraceCache<[u64; ROOM]>) {
        let mut walks = 0;
        loop {
            while self.has_work.swap(false, Ordering::Relaxed) {
                let done = machine.deferred().process(self, cache);
                if done.walks == 0 && done.delivered > 0 {
                    count(&self.counts.from_cache);
                }
                walks += u64::from(done.walks);
                self.counts.deliveries.fetch_add(done.delivered.into(), Ordering::Relaxed);
            }
            match machine.deferred().return_to_user(self) {
                Return::Pending => self.has_work.store(true, Ordering::Relaxed),
                Return::Ready => {
                    // A signal that came in between has queued work; one that comes later finds the user.
                    self.is_in_kernel.store(false, Ordering::Relaxed);
                    if !self.has_work.load(Ordering::Relaxed) {
                        break;
                    }
                    self.is_in_kernel.store(true, Ordering::Relaxed);
                }
            }
        }
        self.counts.walks.fetch_add(walks, Ordering::Relaxed);
        if walks > 0 {
            count(&self.counts.used_entries);
        }
    }

    /// The task's last system call.
    pub(crate) fn exit(&self, machine: &Machine, registers: &Registers, run: impl FnOnce()) -> u32 {
        if let Ok(mut own) = self.own.lock() {
            own.registers = Some(*registers);
            own.expected = None;
        }
        self.is_in_kernel.store(true, Ordering::Relaxed);
        run();
        let done = machine.deferred().exit(self, &mut TraceCache::new([0; ROOM]));
        self.counts.walks.fetch_add(done.walks.into(), Ordering::Relaxed);
        self.counts.deliveries.fetch_add(done.delivered.into(), Ordering::Relaxed);
        done.delivered
    }

    /// Runs a function of the kernel.
    pub(crate) fn in_function<T>(&self, function: u8, run: impl FnOnce() -> T) -> T {
        let path = self.path.load(Ordering::Relaxed);
        self.path.store(path << 8 | u64::from(function), Ordering::Relaxed);
        let result = run();
        self.path.store(path, Ordering::Relaxed);
        result
    }

    pub(crate) fn path(&self) -> u64 {
        self.path.load(Ordering::Relaxed)
    }

    pub(crate) fn traces(&self) -> Vec<Vec<u64>> {
        self.own.lock().map(|own| own.traces.clone()).unwrap_or_default()
    }
}

fn memory() -> ProcessMemory {
    ProcessMemory::of_this_process()
}

impl Embedder for Machine {
    type Task = Cpu;

    fn current_task(&self) -> Option<&Cpu> {
        this_cpu().filter(|cpu| cpu.is_in_kernel.load(Ordering::Relaxed))
    }

    fn current_cpu(&self) -> u32 {
        this_cpu().map_or(0, |cpu| cpu.number)
    }

    fn in_nmi(&self) -> bool {
        this_cpu().is_some_and(Cpu::is_in_nmi)
    }

    /// A single instruction, or a loop of two, on every machine that has `capture`: signals do not hurt it.
    fn is_compare_exchange_nmi_safe(&self) -> bool {
        true
    }

    fn queue_work(&self, task: &Cpu) -> Result<(), NotQueued> {
        task.has_work.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn walk(&self, task: &Cpu, entries: &mut [u64]) -> Result<UnwindStacktrace, StartError> {
        let registers = task.own.lock().ok().and_then(|own| own.registers);
        let registers = registers.ok_or(StartError::NoUserRegisters)?;
        self.unwinder.unwind_user(&registers, memory(), entries)
    }

    fn for_each_task(&self, visit: &mut dyn FnMut(&Cpu)) {
        self.cpus.iter().for_each(visit);
    }

    fn relax(&self) {
        thread::yield_now();
    }
}

/// A slot's client.
#[derive(Default)]
pub(crate) struct Recorder {
    /// Who it is: a number that no other client of this run has.
    pub(crate) who: AtomicU64,
    /// Whether it may be called, as the program sees it.
    pub(crate) is_expected: AtomicBool,
    pub(crate) called_after_cancel: AtomicU64,
}

impl Client<Cpu> for Recorder {
    fn deliver(&self, task: &Cpu, cookie: Cookie, trace: &Trace<'_>) {
        if !self.is_expected.load(Ordering::Acquire) {
            count(&self.called_after_cancel);
        }
        let Ok(mut own) = task.own.lock() else { return };
        if let Some(expected) = &own.expected {
            count(&task.counts.compared);
            if expected != trace.entries {
                count(&task.counts.different);
            }
        }
        let number = own.traces.len();
        own.traces.push(trace.entries.to_vec());
        let client = self.who.load(Ordering::Relaxed);
        let part = Part::User(number);
        task.records.push(Record { client, cookie: cookie.get(), time: now(), part });
    }
}
