//! What to capture, and what comes of it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::remote::Remote;
use super::session::Session;
use super::target::Target;
use crate::captured::{CapturedModule, Run};
use crate::oracle::truth::Seen;

/// What to capture of a program.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What to call the run.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Options of the emulator.
    pub options: Vec<String>,
    /// The window begins where this function is first reached; at the program's very first instruction if `None`.
    pub from: Option<String>,
    /// The most samples.
    pub limit: usize,
    /// One of how many instructions that are not repeats becomes a sample.
    pub thin: u64,
    /// The same where pc is neither in the program itself nor in a library beside it, if that is another number.
    pub thin_elsewhere: Option<u64>,
    /// The emulator.
    pub emulator: PathBuf,
    /// Where the emulator looks for the dynamic linker and shared libraries.
    pub sysroot: PathBuf,
    /// The sections that are kept of every file.
    pub sections: Vec<String>,
    /// Signals, in gdb's numbers, to deliver by turns between the calls of `injection_begins` and
    /// `injection_ends`, whenever so many samples have been taken there.
    pub inject: Vec<u8>,
    /// See `inject`.
    pub every: u64,
}

/// A run, its modules, and what the truth has seen.
pub struct Captured {
    /// The run.
    pub run: Run,
    /// Its modules.
    pub modules: Vec<CapturedModule>,
    /// Counts of events.
    pub seen: Seen,
    /// How often a handler had changed the pc that its signal returned to.
    pub redirected: u64,
    /// How many signals were delivered by the plan.
    pub injected: u64,
    /// How the program ended; `None` where the capture ended first.
    pub status: Option<u8>,
}

/// Captures a run. The program is found by a relative path, so that its stack does not depend on where it lies.
///
/// # Errors
/// Where the emulator cannot be run, or does what should not happen.
pub fn capture(target: &'static Target, plan: &Plan, socket: &Path) -> io::Result<Captured> {
    let folder = plan.program.parent().ok_or_else(|| error("the program has no folder"))?;
    let file = plan.program.file_name().ok_or_else(|| error("the program has no name"))?;
    let mut command = Command::new(&plan.emulator);
    command.arg("-L").arg(&plan.sysroot).args(["-seed", "1"]).args(&plan.options);
    if target.guest_base != 0 {
        command.arg("-B").arg(format!("{:#x}", target.guest_base));
    }
    let shown = std::iter::once(target.emulator.to_owned()).chain(plan.options.iter().cloned());
    let shown = shown.collect::<Vec<_>>().join(" ");
    command.arg("-g").arg(socket).arg(Path::new(".").join(file)).current_dir(folder).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut emulator = Emulator(command.spawn()?);
    let remote = Remote::connect(socket, &mut emulator.0)?;
    let mut session = Session::new(target, plan, remote, emulator.0.id())?;
    let status = session.run()?;
    session.finish(shown, status)
}

/// The emulator's process, which does not outlive the session.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        // It may be over already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn error(text: impl Into<String>) -> io::Error {
    io::Error::other(text.into())
}
