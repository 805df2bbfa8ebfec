//! Processes to look at, and what they are doing.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use unwind_mem::process::{Access, ProcessError, StoppedProcess};

/// A child that is killed when the test is over.
pub(crate) struct Target {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Target {
    /// Starts a program; `None`, said aloud, where there is none of this name.
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Option<Target> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        // A file that was just written is busy as long as a child of another test, between fork
        // and exec, has inherited it.
        let deadline = Instant::now() + Duration::from_secs(5);
        let child = loop {
            match command.spawn() {
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                    sleep(Duration::from_millis(5));
                }
                child => break child,
            }
        };
        match child {
            Ok(mut child) => {
                let lines = BufReader::new(child.stdout.take().unwrap());
                Some(Target { child, lines })
            }
            Err(error) => {
                skip(&format!("{program} cannot be started: {error}"));
                None
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its output.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Waits until each of its threads sleeps in the kernel, `threads` of them or more.
    pub(crate) fn wait_until_asleep(&self, threads: usize) {
        wait_for("the threads to sleep", || {
            let states = states(self.pid());
            states.len() >= threads && states.iter().all(|state| *state == 'S')
        });
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.pid())]).status();
        assert!(status.unwrap().success());
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    pub(crate) fn wait(&mut self) {
        self.child.wait().unwrap();
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The state letters of a process's threads (proc_pid_status(5)): `t` is stopped by a tracer, `T`
/// by job control.
pub(crate) fn states(pid: u32) -> Vec<char> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let status = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok());
    status.filter_map(|status| status.split_once("State:")?.1.trim_start().chars().next()).collect()
}

pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        sleep(Duration::from_millis(5));
    }
}

/// Says that a test does not test anything here. Not captured, whether it passes or not.
pub(crate) fn skip(why: &str) {
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {name}: {why}");
}

/// Stops a process; `None`, said aloud, where that is not allowed here.
pub(crate) fn stop(pid: u32) -> Option<StoppedProcess> {
    match StoppedProcess::stop(pid) {
        Err(ProcessError::Denied { access: Access::Stop }) => {
            skip("ptrace is not allowed here");
            None
        }
        stopped => Some(stopped.unwrap()),
    }
}
