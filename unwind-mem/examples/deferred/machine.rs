//! The machine: its CPUs, the signals that sample them, and a client that comes and goes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::os::unix::thread::JoinHandleExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::c_int;
use nix::sys::pthread::{Pthread, pthread_kill};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use unwind_arch::host::HostArch;
use unwind_core::deferred::{
    ClientId, ClientSlot, CpuCounter, Deferred, Registration, RequestError, Standing,
};
use unwind_core::{ModuleMap, Unwinder};
use unwind_mem::elf::{ElfModules, IndexRoom};

use crate::cpu::{Cpu, HostUnwinder, Recorder, count, this_cpu};
use crate::record::{Part, Record, now};
use crate::report::Report;
use crate::user;

/// The machine, there before a signal comes.
static MACHINE: OnceLock<Machine> = OnceLock::new();

const CPUS: u32 = 3;

/// Clients, by the place of their id: two samplers, each with a signal of its own, and a tracer.
pub(crate) const SAMPLERS: [usize; 2] = [0, 1];
pub(crate) const TRACER: usize = 2;

pub(crate) struct Machine {
    pub(crate) unwinder: HostUnwinder,
    pub(crate) modules: &'static ElfModules,
    pub(crate) cpus: Vec<Cpu>,
    slots: Vec<ClientSlot<Recorder>>,
    counters: Vec<CpuCounter>,
    clients: [Known; 3],
    is_running: AtomicBool,
}

/// Who requests: in words that a signal handler may read while they change.
struct Known {
    /// The number of the client, from 1, and an index of its id in `ids`.
    who: AtomicU64,
    ids: [OnceLock<ClientId>; ROUNDS],
}

/// How many clients follow each other in the place of the second sampler.
const ROUNDS: usize = 64;

impl Machine {
    fn new(unwinder: HostUnwinder, modules: &'static ElfModules) -> Self {
        Machine {
            unwinder,
            modules,
            cpus: (0..CPUS).map(Cpu::new).collect(),
            slots: (0..3).map(|_| ClientSlot::new(Recorder::default())).collect(),
            counters: (0..CPUS).map(|_| CpuCounter::new()).collect(),
            clients: [(); 3]
                .map(|()| Known { who: AtomicU64::new(0), ids: [const { OnceLock::new() }; ROUNDS] }),
            is_running: AtomicBool::new(true),
        }
    }

    pub(crate) fn deferred(&self) -> Deferred<'_, &Machine, Recorder> {
        Deferred::new(self, &self.slots, &self.counters)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Relaxed)
    }

    /// Registers the `round`th client of a place. Its number is `round * 3 + place + 1`.
    fn register(&self, place: usize, round: usize) -> Result<Registration, String> {
        let who = (round * 3 + place + 1) as u64;
        let registration = self.deferred().register(|recorder| {
            recorder.who.store(who, Ordering::Relaxed);
            recorder.is_expected.store(true, Ordering::Release);
        });
        let registration = registration.map_err(|error| error.to_string())?;
        let _ = self.clients[place].ids[round].set(registration.id());
        self.clients[place].who.store(who, Ordering::Release);
        Ok(registration)
    }

    /// Whose calls came after their cancel.
    pub(crate) fn called_after_cancel(&self) -> u64 {
        self.slots.iter().map(|slot| slot.client().called_after_cancel.load(Ordering::Relaxed)).sum()
    }

    /// Cancels the second sampler and registers the next, over and over: who was cancelled.
    fn come_and_go(&self, mut registration: Registration, until: Instant) -> Result<Vec<u64>, String> {
        let mut cancelled = Vec::new();
        let step = until.saturating_duration_since(Instant::now()) / (ROUNDS as u32 + 1);
        for round in 1..ROUNDS {
            thread::sleep(step);
            // Its slot is the one that has its number: nobody else registers.
            let who = self.clients[SAMPLERS[1]].who.load(Ordering::Relaxed);
            let slot = self.slots.iter().find(|slot| slot.client().who.load(Ordering::Relaxed) == who);
            self.deferred().cancel(registration).map_err(|_| "a registration is not known")?;
            if let Some(slot) = slot {
                slot.client().is_expected.store(false, Ordering::Release);
            }
            cancelled.push(who);
            registration = self.register(SAMPLERS[1], round)?;
        }
        thread::sleep(until.saturating_duration_since(Instant::now()));
        Ok(cancelled)
    }
}

pub(crate) fn run(duration: Duration) -> Result<Report, String> {
    now();
    let modules = ElfModules::of_process(std::process::id()).map_err(|error| error.to_string())?;
    // They live as long as signals may come.
    let modules: &'static ElfModules = Box::leak(Box::new(modules));
    let sources: &'static _ = Box::leak(Box::new(modules.sources(Box::leak(Box::<IndexRoom>::default()))));
    let arch = HostArch::host();
    let map = ModuleMap::new(&arch, sources).map_err(|error| error.to_string())?;
    let machine = MACHINE.get_or_init(|| Machine::new(Unwinder::new(arch, map.complete()), modules));
    let first = machine.register(SAMPLERS[0], 0)?;
    let second = machine.register(SAMPLERS[1], 0)?;
    let tracer = machine.register(TRACER, 0)?;
    for (signal, handler) in SIGNALS {
        // Any signal may interrupt any other, as NMIs of different kinds do, but not itself.
        let action = SigAction::new(SigHandler::Handler(handler), SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: the handler does only what is async-signal-safe: see `main.rs`.
        unsafe { sigaction(signal, &action) }.map_err(|error| error.to_string())?;
    }
    let until = Instant::now() + duration;
    let threads: Vec<_> =
        machine.cpus.iter().map(|cpu| thread::spawn(move || user::task(cpu, machine))).collect();
    let targets: Vec<Pthread> = threads.iter().map(JoinHandleExt::as_pthread_t).collect();
    let samplers = SIGNALS.map(|(signal, _)| {
        let targets = targets.clone();
        thread::spawn(move || sample(&targets, signal, until))
    });
    let cancelled = machine.come_and_go(second, until)?;
    // The samplers end before the threads do that they send signals to.
    for sampler in samplers {
        sampler.join().map_err(|_| "a sampler panicked")?;
    }
    machine.is_running.store(false, Ordering::Relaxed);
    let mut at_exit = 0;
    for thread in threads {
        at_exit += thread.join().map_err(|_| "a task panicked")?;
    }
    drop((first, tracer));
    Ok(Report::new(machine, &cancelled, at_exit, IN_HANDLER.load(Ordering::Relaxed)))
}

const SIGNALS: [(Signal, extern "C" fn(c_int)); 2] =
    [(Signal::SIGUSR1, on_first), (Signal::SIGUSR2, on_second)];

/// Sends signals at irregular intervals.
fn sample(targets: &[Pthread], signal: Signal, until: Instant) {
    let mut random = user::Random(signal as u64);
    while Instant::now() < until {
        for target in targets {
            // A thread that has not been joined is still there.
            let _ = pthread_kill(*target, signal);
        }
        thread::sleep(Duration::from_micros(20 + random.below(60)));
    }
}

extern "C" fn on_first(_: c_int) {
    on_signal(SAMPLERS[0]);
}

extern "C" fn on_second(_: c_int) {
    on_signal(SAMPLERS[1]);
}

fn on_signal(client: usize) {
    let (Some(cpu), Some(machine)) = (this_cpu(), MACHINE.get()) else { return };
    cpu.nmi(|| {
        count(&cpu.counts.signals);
        request(cpu, machine, client);
    });
}

/// A sample: a request, and a record of the kernel's part under the cookie.
pub(crate) fn request(cpu: &Cpu, machine: &Machine, place: usize) {
    let known = &machine.clients[place];
    let who = known.who.load(Ordering::Acquire);
    let Some(round) = (who as usize).checked_sub(place + 1).map(|rest| rest / 3) else { return };
    let Some(id) = known.ids.get(round).and_then(OnceLock::get) else { return };
    let told = machine.deferred().request(*id);
    match told {
        Ok(told) => {
            count(match told.standing {
                Standing::Queued => &cpu.counts.queued,
                Standing::AlreadyQueued => &cpu.counts.already_queued,
                Standing::AlreadyServed => &cpu.counts.already_served,
            });
            let part = Part::Kernel(cpu.path());
            cpu.records.push(Record { client: who, cookie: told.cookie.get(), time: now(), part });
        }
        Err(RequestError::NoUser) => count(&cpu.counts.in_user),
        Err(_) => count(&cpu.counts.refused),
    }
}

/// The system's allocator, which counts who comes to it from a signal handler.
struct Counting;

static IN_HANDLER: AtomicU64 = AtomicU64::new(0);

fn note() {
    if this_cpu().is_some_and(Cpu::is_in_nmi) {
        IN_HANDLER.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: everything is passed on to the system's allocator; beside that, words are counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note();
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
