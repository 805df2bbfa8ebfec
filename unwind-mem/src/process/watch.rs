//! A process watched until it ends, for crashes.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::status::Status;
use super::sys::{self, News};
use super::threads::StoppedThread;
use super::tracer::threads_of;
use super::{Access, ProcessError, pid as as_pid};

/// A process that is about to be ended by a signal. All its threads are stopped.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Crash {
    /// The process id: the watched process, or one of its descendants.
    pub pid: u32,
    /// The thread that the signal is for.
    pub tid: u32,
    /// The signal: one that ends a process with a core dump, and is neither handled nor ignored.
    pub signal: i32,
    /// The threads; the one with the signal first.
    pub threads: Vec<StoppedThread>,
}

/// How a watched process ended: there are these two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// How long the other threads of a crashing process may take to stop.
const PATIENCE: Duration = Duration::from_secs(3);

/// Watches a process until it ends, and calls `crashed` whenever it, or a process that it starts,
/// is about to be ended by a signal that means a crash. Signals, job control and exit statuses
/// are otherwise as without watching.
///
/// For a process that is to be watched from its beginning: let it stop itself
/// (`raise(SIGSTOP)`) before it executes the program in question. It is sent a `SIGCONT` here.
///
/// `pid` may be a child of the calling process; its end is then told here, and not to `wait`.
/// As with [`StoppedProcess`](super::StoppedProcess), whatever is traced is let go when this
/// returns, panics or is killed.
///
/// # Errors
/// The process cannot be traced: it is gone, permission is missing, it is traced already.
pub fn watch(pid: u32, crashed: impl FnMut(Crash) + Send) -> Result<Ended, ProcessError> {
    // The kernel lets go of what a thread traces when the thread ends.
    let watching = thread::scope(|scope| scope.spawn(|| watch_here(pid, crashed)).join());
    watching.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn watch_here(pid: u32, mut crashed: impl FnMut(Crash)) -> Result<Ended, ProcessError> {
    let options = Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC;
    let failed = |errno| ProcessError::new(Access::Stop, errno);
    ptrace::seize(as_pid(pid), options).map_err(failed)?;
    kill(as_pid(pid), Signal::SIGCONT).map_err(failed)?;
    loop {
        let (thread, news) = match sys::any_news() {
            Ok(news) => news,
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(failed(errno)),
        };
        let signal = match news {
            News::Exited(status) if thread == as_pid(pid) => return Ok(Ended::Exited(status)),
            News::Killed(signal) if thread == as_pid(pid) => return Ok(Ended::Killed(signal)),
            News::Exited(_) | News::Killed(_) => continue,
            News::Stopped { event: 0, signal } => {
                if is_crash(thread, signal) {
                    report(thread, signal, &mut crashed);
                }
                signal
            }
            News::Stopped { event, signal } if is_job_control(event, signal) => {
                ignore_gone(sys::leave_stopped(thread)).map_err(failed)?;
                continue;
            }
            News::Stopped { .. } => 0,
        };
        ignore_gone(sys::resume(thread, signal)).map_err(failed)?;
    }
}

/// A thread may be killed at any time.
fn ignore_gone(answer: Result<(), Errno>) -> Result<(), Errno> {
    answer.or_else(|errno| if errno == Errno::ESRCH { Ok(()) } else { Err(errno) })
}

/// A group-stop, against the other stops of the same event (ptrace(2)).
fn is_job_control(event: i32, signal: i32) -> bool {
    let stops = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    event == libc::PTRACE_EVENT_STOP && stops.contains(&signal)
}

/// Whether the signal ends the process, with a core dump (signal(7)).
fn is_crash(thread: Pid, signal: i32) -> bool {
    let dumps = [
        libc::SIGQUIT,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGSEGV,
        libc::SIGXCPU,
        libc::SIGXFSZ,
        libc::SIGSYS,
    ];
    let Some(status) = number(thread).and_then(|tid| Status::read(tid).ok()) else {
        return false;
    };
    let left_alone = !status.has_signal("SigCgt", signal) && !status.has_signal("SigIgn", signal);
    dumps.contains(&signal) && left_alone
}

fn number(thread: Pid) -> Option<u32> {
    u32::try_from(thread.as_raw()).ok()
}

/// Stops the other threads of the process, reports, and lets those run again.
fn report(thread: Pid, signal: i32, crashed: &mut impl FnMut(Crash)) {
    let Some(tid) = number(thread) else { return };
    let Some(pid) = Status::read(tid).ok().and_then(|status| status.field("Tgid").parse().ok()) else {
        return;
    };
    let mut others = Others::default();
    others.stop(pid, tid);
    let tids = std::iter::once(tid).chain(others.stops.keys().copied());
    // Threads that are killed meanwhile are left out.
    let threads: Vec<_> = tids.filter_map(|tid| StoppedThread::read(pid, tid).ok()).collect();
    if threads.first().is_some_and(|first| first.tid == tid) {
        crashed(Crash { pid, tid, signal, threads });
    }
}

/// The other threads of a crashing process, and what each has stopped for: the signal to go on
/// with. Dropping it lets them run.
#[derive(Default)]
struct Others {
    stops: BTreeMap<u32, Stop>,
}

enum Stop {
    Signal(i32),
    JobControl,
}

impl Others {
    fn stop(&mut self, pid: u32, except: u32) {
        let deadline = Instant::now().checked_add(PATIENCE);
        loop {
            let new: Vec<u32> = threads_of(pid)
                .unwrap_or_default()
                .into_iter()
                .filter(|tid| *tid != except && !self.stops.contains_key(tid))
                .filter(|tid| ptrace::interrupt(as_pid(*tid)).is_ok())
                .collect();
            let before = self.stops.len();
            for tid in new {
                if let Some(stop) = wait_for_stop(as_pid(tid), deadline) {
                    self.stops.insert(tid, stop);
                }
            }
            // Those that end, or do not stop in time, are given up.
            if self.stops.len() == before {
                return;
            }
        }
    }
}

fn wait_for_stop(thread: Pid, deadline: Option<Instant>) -> Option<Stop> {
    loop {
        match sys::news(thread) {
            Ok(Some(News::Stopped { event: 0, signal })) => return Some(Stop::Signal(signal)),
            Ok(Some(News::Stopped { event, signal })) if is_job_control(event, signal) => {
                return Some(Stop::JobControl);
            }
            Ok(Some(News::Stopped { .. })) => return Some(Stop::Signal(0)),
            Ok(Some(News::Exited(_) | News::Killed(_))) => return None,
            Ok(None) | Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return None;
        }
        thread::sleep(Duration::from_micros(200));
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        for (tid, stop) in &self.stops {
            // One that was killed meanwhile needs nothing.
            let _ = match stop {
                Stop::Signal(signal) => sys::resume(as_pid(*tid), *signal),
                Stop::JobControl => sys::leave_stopped(as_pid(*tid)),
            };
        }
    }
}
