//! The threads of a process, stopped.

use std::fmt;
use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use unwind_arch::{AnyArch, AnyRegisters};

use super::tracer::Tracer;
use super::{ProcessError, machine};

/// A process whose threads are stopped, until this is dropped.
///
/// Threads are stopped by `PTRACE_SEIZE` and `PTRACE_INTERRUPT`: they see no signal, and a stop
/// by job control that they may be in is left as it is. A signal that arrives meanwhile is
/// delivered as ever. Threads that end meanwhile are left out, new ones are stopped too.
///
/// # They are always let go again
/// A thread of this process does the tracing and nothing else; the kernel releases whatever a
/// thread traces when it ends, however it ends. So they run again when this is dropped (by an
/// early return or a panic as well), when an error ends the attempt to stop them, and when this
/// process is killed by any signal: Ctrl-C, `SIGTERM`, `SIGKILL`.
///
/// # What to mind
/// `waitpid(-1)` elsewhere in this process would take the news that the tracing thread waits for.
#[derive(Debug)]
pub struct StoppedProcess {
    pid: u32,
    threads: Vec<StoppedThread>,
    unstoppable: Vec<u32>,
    /// Ends with the last field of this that is dropped.
    hold: Hold,
}

/// A thread that is stopped.
#[derive(Clone, Debug)]
pub struct StoppedThread {
    /// Its thread id.
    pub tid: u32,
    /// Its name (`/proc/PID/task/TID/comm`); empty where it has none.
    pub name: String,
    /// Its registers.
    pub registers: AnyRegisters,
    /// The architecture that they are of, with the pointer authentication mask of the process.
    pub arch: AnyArch,
}

impl StoppedProcess {
    /// How long a thread may take to stop: one that waits in the kernel for a disk or a network
    /// file system does not stop before it comes back.
    pub const PATIENCE: Duration = Duration::from_secs(3);

    /// Stops every thread of the process with this id.
    ///
    /// # Errors
    /// No such process, or it is gone meanwhile; no permission; traced already; a kernel thread; a
    /// machine that is not supported. All threads
    /// run again then.
    pub fn stop(pid: u32) -> Result<Self, ProcessError> {
        Self::stop_within(pid, Self::PATIENCE)
    }

    /// As [`stop`](StoppedProcess::stop), with another limit on how long a thread may take.
    ///
    /// # Errors
    /// As for [`stop`](StoppedProcess::stop).
    pub fn stop_within(pid: u32, patience: Duration) -> Result<Self, ProcessError> {
        let (report, answer) = mpsc::sync_channel(1);
        let (hold, released) = mpsc::channel::<std::convert::Infallible>();
        let tracing = thread::Builder::new()
            .name("tracer".into())
            .spawn(move || {
                let mut tracer = Tracer::default();
                let stopped = tracer.stop_all(pid, Instant::now().checked_add(patience));
                let failed = stopped.is_err();
                if report.send(stopped).is_ok() && !failed {
                    // Returns as soon as the other end is dropped: nothing is ever sent.
                    let _ = released.recv();
                }
            })
            .map_err(|error| ProcessError::from_io(super::Access::Stop, &error))?;
        let hold = Hold { hold: Some(hold), tracing: Some(tracing) };
        // The tracing thread always answers, unless it panics; then there is nothing to hold.
        let stopped = answer.recv().map_err(|_| ProcessError::NoSuchProcess)??;
        Ok(StoppedProcess { pid, threads: stopped.threads, unstoppable: stopped.late, hold })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The threads, in ascending order of their ids; the main thread is the one whose id is that
    /// of the process.
    pub fn threads(&self) -> &[StoppedThread] {
        &self.threads
    }

    /// Threads that did not stop in time, because they wait in the kernel: their registers are not
    /// known.
    pub fn unstoppable(&self) -> &[u32] {
        &self.unstoppable
    }

    /// Lets the threads run again: what dropping does.
    pub fn resume(self) {
        drop(self.hold);
    }
}

/// Keeps the tracing thread, and so the threads that it has stopped.
struct Hold {
    hold: Option<mpsc::Sender<std::convert::Infallible>>,
    tracing: Option<thread::JoinHandle<()>>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.hold = None;
        if let Some(tracing) = self.tracing.take() {
            // A panic over there has let everything go as well.
            let _ = tracing.join();
        }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}

impl StoppedThread {
    /// A thread that the calling thread has stopped.
    pub(super) fn read(pid: u32, tid: u32) -> Result<Self, ProcessError> {
        let (arch, registers) = machine::registers(tid)?;
        Ok(StoppedThread { tid, name: name(pid, tid), registers, arch })
    }
}

fn name(pid: u32, tid: u32) -> String {
    let name = fs::read(format!("/proc/{pid}/task/{tid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(name.trim_ascii_end()).into_owned()
}
