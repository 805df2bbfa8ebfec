//! What can go wrong with a live process.

use core::fmt;

use nix::errno::Errno;

/// What was tried with a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Reading `/proc/PID/maps`.
    Maps,
    /// Listing `/proc/PID/task`.
    Threads,
    /// Stopping a thread through ptrace.
    Stop,
    /// Reading the registers of a stopped thread.
    Registers,
    /// Reading memory.
    Memory,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Maps => "read its memory map",
            Access::Threads => "list its threads",
            Access::Stop => "stop its threads",
            Access::Registers => "read its registers",
            Access::Memory => "read its memory",
        })
    }
}

/// Why something could not be done with a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessError {
    /// There is no such process, or none any more.
    NoSuchProcess,
    /// The kernel does not allow it: another user's process, a process that is not dumpable,
    /// Yama's `ptrace_scope`, a container's seccomp filter.
    Denied {
        /// What was tried.
        access: Access,
    },
    /// Another process traces it already; there can be only one.
    Traced {
        /// The process id of the tracer; 0 where that is in another pid namespace.
        by: u32,
    },
    /// It has no memory of its own: a kernel thread, or a zombie.
    NoUserMemory,
    /// Its program is for a machine that is not supported here.
    UnsupportedMachine {
        /// `e_machine` of its ELF header.
        machine: u16,
        /// The size of its words, in bits.
        bits: u8,
    },
    /// No ELF file could be read in it, so that its machine is not known.
    UnknownMachine,
    /// A system call failed for another reason.
    System {
        /// What was tried.
        access: Access,
        /// The kernel's error number.
        errno: i32,
    },
}

impl ProcessError {
    pub(crate) fn new(access: Access, errno: Errno) -> Self {
        match errno {
            Errno::ESRCH | Errno::ENOENT => ProcessError::NoSuchProcess,
            Errno::EPERM | Errno::EACCES => ProcessError::Denied { access },
            errno => ProcessError::System { access, errno: errno_number(errno) },
        }
    }

    pub(crate) fn from_io(access: Access, error: &std::io::Error) -> Self {
        Self::new(access, Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO)))
    }
}

/// The number behind the name.
#[allow(clippy::as_conversions, reason = "the discriminants of a repr(i32) enum")]
pub(crate) const fn errno_number(errno: Errno) -> i32 {
    errno as i32
}

impl fmt::Display for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProcessError::NoSuchProcess => f.write_str("no such process"),
            ProcessError::Denied { access } => write!(f, "not allowed to {access}"),
            ProcessError::Traced { by: 0 } => f.write_str("traced by another process already"),
            ProcessError::Traced { by } => write!(f, "traced by process {by} already"),
            ProcessError::NoUserMemory => f.write_str("a kernel thread or a zombie: it has no memory"),
            ProcessError::UnsupportedMachine { machine, bits } => {
                write!(f, "ELF machine {machine} with {bits}-bit words is not supported")
            }
            ProcessError::UnknownMachine => f.write_str("none of its ELF files could be read"),
            ProcessError::System { access, errno } => {
                write!(f, "cannot {access}: {}", Errno::from_raw(*errno).desc())
            }
        }
    }
}

impl core::error::Error for ProcessError {}
