//! The threads of this program itself. Each walks its own stack, which needs no privileges.

use std::hint::black_box;
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::c_int;
use nix::sys::pthread::pthread_kill;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use unwind_arch::AnyArch;
use unwind_arch::host::with_registers;
use unwind_core::{End, Frame, StartError, Unwinder};
use unwind_mem::elf::{ElfModules, IndexRoom};
use unwind_mem::process::ProcessMemory;

use crate::arguments::How;
use crate::live::{self, Report};
use crate::walk::{self, Source, Stack, walk, walk_into};

/// What the signal handler needs, there before a signal comes.
static SAMPLER: OnceLock<Sampler> = OnceLock::new();

struct Sampler {
    unwinder: Unwinder<AnyArch, Source<'static>>,
    sample: Mutex<Sample>,
    taken: AtomicBool,
}

/// A stack as the signal handler leaves it: in room that was there before.
struct Sample {
    frames: Vec<Frame>,
    end: Result<End, StartError>,
}

const ROOM: usize = 256;
const DEEP: u32 = 100;

pub(crate) fn show(how: &How) -> Result<i32, String> {
    let pid = std::process::id();
    let modules = ElfModules::of_process(pid).map_err(|error| format!("this process: {error}"))?;
    // They live as long as the signal handler may be called.
    let modules: &'static ElfModules = Box::leak(Box::new(modules));
    let sources = Box::leak(Box::new(modules.sources(Box::leak(Box::new(IndexRoom::default())))));
    let unwinder = walk::unwinder(modules.arch(), sources, true, None, how)?;
    let sampler = SAMPLER.get_or_init(|| Sampler {
        unwinder,
        sample: Mutex::new(Sample { frames: Vec::with_capacity(ROOM), end: Err(StartError::NoRoom) }),
        taken: AtomicBool::new(false),
    });
    let stacks = vec![own_stack(sampler, "main"), deep_stack(sampler)?, interrupted_stack(sampler)?];
    let report = Report::of_process(pid, modules, stacks);
    print!("{}", live::render(&report, how));
    Ok(0)
}

/// The stack of the calling thread.
#[inline(never)]
fn own_stack(sampler: &Sampler, name: &str) -> Stack {
    let (frames, end) = with_registers(|registers| walk(&sampler.unwinder, registers, std::process::id()));
    Stack { tid: tid(), name: name.into(), frames, end }
}

/// The stack of a thread at the end of a deep recursion.
fn deep_stack(sampler: &'static Sampler) -> Result<Stack, String> {
    let deep = thread::Builder::new().name("deep".into()).spawn(|| descend(sampler, DEEP));
    deep.map_err(|error| error.to_string())?.join().map_err(|_| "the deep thread panicked".into())
}

#[inline(never)]
fn descend(sampler: &Sampler, depth: u32) -> Stack {
    let stack = if depth == 0 { own_stack(sampler, "deep") } else { descend(sampler, depth - 1) };
    // Something to do after the call, or it would be a jump.
    black_box(stack)
}

/// The stack of a thread that waits, from inside a signal handler.
fn interrupted_stack(sampler: &'static Sampler) -> Result<Stack, String> {
    let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler only does what is async-signal-safe: it reads registers and memory,
    // takes a lock if that is free, and writes to room that was allocated before.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.map_err(|error| error.to_string())?;
    let (say, heard) = mpsc::channel();
    let waiting = thread::Builder::new().name("interrupted".into()).spawn(move || {
        // The main thread listens.
        let _ = say.send(tid());
        wait(sampler);
    });
    let waiting = waiting.map_err(|error| error.to_string())?;
    let tid = heard.recv().map_err(|_| "the waiting thread has ended")?;
    // It goes to sleep now; a signal that comes before shows it awake.
    thread::sleep(Duration::from_millis(20));
    pthread_kill(waiting.as_pthread_t(), Signal::SIGUSR1).map_err(|error| error.to_string())?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !sampler.taken.load(Ordering::Acquire) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    waiting.thread().unpark();
    waiting.join().map_err(|_| "the waiting thread panicked")?;
    let sample = sampler.sample.lock().map_err(|_| "the signal handler panicked")?;
    Ok(Stack { tid, name: "interrupted".into(), frames: sample.frames.clone(), end: sample.end })
}

#[inline(never)]
fn wait(sampler: &Sampler) {
    while !sampler.taken.load(Ordering::Acquire) {
        thread::park_timeout(Duration::from_secs(10));
    }
}

extern "C" fn on_signal(_: c_int) {
    let Some(sampler) = SAMPLER.get() else { return };
    let Ok(mut sample) = sampler.sample.try_lock() else { return };
    let frames = &mut sample.frames;
    let end = with_registers(|registers| {
        walk_into(&sampler.unwinder, registers, ProcessMemory::of_this_process(), &mut |frame| {
            if frames.len() < frames.capacity() {
                frames.push(frame);
            }
        })
    });
    sample.end = end;
    sampler.taken.store(true, Ordering::Release);
}

fn tid() -> u32 {
    u32::try_from(nix::unistd::gettid().as_raw()).unwrap_or(0)
}
