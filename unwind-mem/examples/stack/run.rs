//! A command, watched for crashes.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, exit};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use unwind_mem::elf::ElfModules;
use unwind_mem::process::{Crash, Ended, watch};

use crate::arguments::How;
use crate::live::{self, Report};

/// The first argument of this program where it is to stop itself and then execute the rest.
pub(crate) const STOPPED: &str = "--execute-stopped";

/// Runs the command to its end: the exit status.
pub(crate) fn show(command: &[OsString], how: &How) -> Result<i32, String> {
    let mut child = Command::new("/proc/self/exe");
    let child = child.arg0("stack").arg(STOPPED).args(command);
    let mut child = child.spawn().map_err(|error| format!("cannot start a process: {error}"))?;
    let pid = child.id();
    wait_until_stopped(pid)?;
    let ended = watch(pid, |crash| {
        let report = report(&crash, how).unwrap_or_else(|problem| format!("stack: {problem}\n"));
        // Whether anyone reads it is no reason to stop.
        let _ = std::io::stderr().write_all(report.as_bytes());
    });
    match ended {
        Ok(Ended::Exited(status)) => Ok(status),
        Ok(Ended::Killed(signal)) => Ok(128 + signal),
        Err(error) => {
            let problem = format!("the command: {}", live::explain(pid, error));
            // It has not begun and never will; if it is gone already, so much the better.
            let _ = child.kill();
            let _ = child.wait();
            Err(problem)
        }
    }
}

/// In the new process: waits to be watched, then becomes the command.
pub(crate) fn execute_stopped(mut words: impl Iterator<Item = OsString>) -> Infallible {
    let command = words.next().unwrap_or_default();
    // Nobody would let it go on if its parent were killed meanwhile.
    let stopped = set_pdeathsig(Signal::SIGKILL).and_then(|()| raise(Signal::SIGSTOP));
    if let Err(error) = stopped.and_then(|()| set_pdeathsig(None)) {
        eprintln!("stack: cannot stop: {error}");
        exit(125);
    }
    let error = Command::new(&command).args(words).exec();
    eprintln!("stack: {}: {error}", command.display());
    exit(if error.kind() == ErrorKind::NotFound { 127 } else { 126 })
}

fn wait_until_stopped(pid: u32) -> Result<(), String> {
    let pid = Pid::from_raw(i32::try_from(pid).map_err(|_| "no process id")?);
    loop {
        match waitpid(pid, Some(WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::Stopped(..)) => return Ok(()),
            Ok(WaitStatus::Exited(_, status)) => return Err(format!("the new process exited with {status}")),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Err(format!("{signal} ended the new process")),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(format!("cannot wait for the new process: {}", errno.desc())),
        }
    }
}

fn report(crash: &Crash, how: &How) -> Result<String, String> {
    let modules =
        ElfModules::of_process(crash.pid).map_err(|error| format!("process {}: {error}", crash.pid))?;
    let stacks = live::walk_all(crash.pid, &crash.threads, &modules, how)?;
    let mut report = Report::of_process(crash.pid, &modules, stacks);
    report.signal = Some(crash.signal);
    Ok(live::render(&report, how))
}
