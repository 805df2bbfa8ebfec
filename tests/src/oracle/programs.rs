//! Compiles the programs that are stepped, with what the system has.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, id};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A folder for compiled programs, removed when dropped.
pub struct Workshop {
    folder: PathBuf,
    made: AtomicUsize,
}

impl Workshop {
    /// A new folder of this name.
    pub fn new(name: &str) -> io::Result<Self> {
        let folder = env::temp_dir().join(format!("unwind-oracle-{}-{name}", id()));
        fs::create_dir_all(&folder)?;
        // As `/proc/PID/maps` will show it.
        Ok(Workshop { folder: folder.canonicalize()?, made: AtomicUsize::new(0) })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Compiles `sources`, files of `programs/`, to a file of its own that bears this name.
    pub fn compile(
        &self,
        compiler: &Compiler,
        sources: &[&str],
        to: &str,
        flags: &[&str],
    ) -> io::Result<PathBuf> {
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
        let folder = self.folder.join(self.made.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&folder)?;
        let to = folder.join(to);
        let mut command = Command::new(&compiler.command);
        command
            .args(sources.iter().map(|source| programs.join(source)))
            .arg("-o")
            .arg(&to)
            .args(flags)
            .current_dir(&self.folder);
        let output = command.stdin(Stdio::null()).output()?;
        if output.status.success() {
            Ok(to)
        } else {
            let errors = String::from_utf8_lossy(&output.stderr);
            Err(io::Error::other(format!("{command:?}: {}\n{errors}", output.status)))
        }
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A compiler of the system.
pub struct Compiler {
    command: std::ffi::OsString,
}

impl Compiler {
    /// `cc`, or what the variable `CC` names. There wherever Rust links.
    pub fn c() -> Option<Self> {
        Self::find("CC", "cc")
    }

    /// `c++`, or what the variable `CXX` names.
    pub fn cpp() -> Option<Self> {
        Self::find("CXX", "c++")
    }

    /// The `rustc` of this toolchain.
    pub fn rust() -> Option<Self> {
        Self::find("RUSTC", "rustc")
    }

    fn find(variable: &str, usual: &str) -> Option<Self> {
        let command = env::var_os(variable).unwrap_or_else(|| OsStr::new(usual).to_owned());
        let mut probe = Command::new(&command);
        probe.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success()).then_some(Compiler { command })
    }
}
