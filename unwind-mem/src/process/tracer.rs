//! What a tracing thread does: seize, interrupt, wait, read, detach (ptrace(2)).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace;

use super::status::Status;
use super::sys::{self, News};
use super::{Access, ProcessError, StoppedThread, pid as as_pid};

/// The threads that the calling thread traces. Dropping it detaches them; see
/// [`StoppedProcess`](super::StoppedProcess) for those that cannot be detached then.
#[derive(Debug, Default)]
pub(super) struct Tracer {
    threads: BTreeMap<u32, Standing>,
}

/// How a thread stands to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Seized and interrupted.
    Stopping,
    Stopped,
    /// Did not stop in time.
    Late,
    Gone,
}

/// What [`Tracer::stop_all`] found.
#[derive(Debug)]
pub(super) struct Stopped {
    pub(super) threads: Vec<StoppedThread>,
    pub(super) late: Vec<u32>,
}

impl Tracer {
    /// Stops every thread of `pid`, those too that are created meanwhile: a thread that is not
    /// stopped yet can create more, so the list is read again until it has nothing new.
    pub(super) fn stop_all(&mut self, pid: u32, deadline: Option<Instant>) -> Result<Stopped, ProcessError> {
        loop {
            let mut found_new = false;
            for tid in threads_of(pid)? {
                // The id of a thread that has ended is not given to another so soon.
                if let Entry::Vacant(entry) = self.threads.entry(tid) {
                    found_new = true;
                    entry.insert(seize(pid, tid)?);
                }
            }
            if !found_new {
                break;
            }
            for (tid, standing) in &mut self.threads {
                if *standing == Standing::Stopping {
                    *standing = wait_for_stop(*tid, deadline)?;
                }
            }
        }
        let mut stopped = Stopped { threads: Vec::new(), late: Vec::new() };
        for (tid, standing) in &self.threads {
            match standing {
                Standing::Stopped => match StoppedThread::read(pid, *tid) {
                    Ok(thread) => stopped.threads.push(thread),
                    // Killed since it stopped.
                    Err(ProcessError::NoSuchProcess) => {}
                    Err(error) => return Err(error),
                },
                Standing::Late | Standing::Stopping => stopped.late.push(*tid),
                Standing::Gone => {}
            }
        }
        if stopped.threads.is_empty() && stopped.late.is_empty() {
            return Err(ProcessError::NoSuchProcess);
        }
        Ok(stopped)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        for (tid, standing) in &self.threads {
            if *standing == Standing::Stopped {
                // One that was killed meanwhile cannot be detached and need not be.
                let _ = ptrace::detach(as_pid(*tid), None);
            }
        }
    }
}

pub(super) fn threads_of(pid: u32) -> Result<Vec<u32>, ProcessError> {
    let error = |error| ProcessError::from_io(Access::Threads, &error);
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).map_err(error)? {
        let name = entry.map_err(error)?.file_name();
        threads.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    threads.sort_unstable();
    Ok(threads)
}

fn seize(pid: u32, tid: u32) -> Result<Standing, ProcessError> {
    match ptrace::seize(as_pid(tid), ptrace::Options::empty()) {
        Ok(()) => {}
        Err(Errno::ESRCH) => return Ok(Standing::Gone),
        Err(errno) => return why_not(pid, tid, errno),
    }
    match ptrace::interrupt(as_pid(tid)) {
        Ok(()) => Ok(Standing::Stopping),
        Err(Errno::ESRCH) => Ok(Standing::Gone),
        Err(errno) => Err(ProcessError::new(Access::Stop, errno)),
    }
}

/// `EPERM` has many reasons.
fn why_not(pid: u32, tid: u32, errno: Errno) -> Result<Standing, ProcessError> {
    let Ok(status) = Status::read(tid) else {
        return Ok(Standing::Gone);
    };
    match (status.field("State").bytes().next(), status.field("TracerPid").parse::<u32>()) {
        // A main thread that has ended before the others stays as a zombie.
        (Some(b'Z' | b'X' | b'x'), _) if tid != pid || threads_of(pid)?.len() > 1 => Ok(Standing::Gone),
        (Some(b'Z' | b'X' | b'x'), _) => Err(ProcessError::NoUserMemory),
        (_, Ok(by)) if by != 0 => Err(ProcessError::Traced { by: process_of(by) }),
        // Only processes with memory of their own have a size.
        _ if status.field("VmSize").is_empty() => Err(ProcessError::NoUserMemory),
        _ => Err(ProcessError::new(Access::Stop, errno)),
    }
}

/// The process of a thread: a tracer is a thread.
fn process_of(tid: u32) -> u32 {
    Status::read(tid).ok().and_then(|status| status.field("Tgid").parse().ok()).unwrap_or(tid)
}

/// Waits until a thread that was interrupted is in a stop where nothing is lost: a signal that
/// was about to be delivered goes its way first.
fn wait_for_stop(tid: u32, deadline: Option<Instant>) -> Result<Standing, ProcessError> {
    let mut pause = Duration::from_micros(20);
    loop {
        match sys::news(as_pid(tid)) {
            Ok(Some(News::Stopped { event: 0, signal })) => {
                // The interrupt is still pending: the thread stops again at the first
                // instruction of the signal's handler, or where it was.
                match sys::resume(as_pid(tid), signal) {
                    Ok(()) => continue,
                    Err(Errno::ESRCH) => return Ok(Standing::Gone),
                    Err(errno) => return Err(ProcessError::new(Access::Stop, errno)),
                }
            }
            Ok(Some(News::Stopped { .. })) => return Ok(Standing::Stopped),
            Ok(Some(News::Exited(_) | News::Killed(_))) | Err(Errno::ECHILD | Errno::ESRCH) => {
                return Ok(Standing::Gone);
            }
            Ok(None) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(ProcessError::new(Access::Stop, errno)),
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(Standing::Late);
        }
        std::thread::sleep(pause);
        pause = pause.saturating_mul(2).min(Duration::from_millis(2));
    }
}
