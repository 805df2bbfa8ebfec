//! Live processes on Linux: their memory, the ELF modules they are made of, their threads stopped
//! through ptrace.
//!
//! [`StoppedProcess`] stops the threads and has their registers,
//! [`ElfModules::of_process`](crate::elf::ElfModules::of_process) finds the tables,
//! [`ProcessMemory`] reads the stacks. Together they are what a walk needs:
//!
//! ```no_run
//! use unwind_core::{ModuleMap, Unwinder};
//! use unwind_mem::elf::{ElfModules, IndexRoom};
//! use unwind_mem::process::{ProcessMemory, StoppedProcess};
//! use unwind_mem::{Page, PageCache};
//!
//! let pid = 1234;
//! let stopped = StoppedProcess::stop(pid)?;
//! let modules = ElfModules::of_process(pid)?;
//! let mut index_room = IndexRoom::default();
//! let sources = modules.sources(&mut index_room);
//! let mut page_room = vec![Page::<4096>::EMPTY; 64];
//! for thread in stopped.threads() {
//!     // The process is stopped, so there is no executable memory that the modules do not have.
//!     let map = ModuleMap::new(&thread.arch, &sources)?.complete();
//!     let unwinder = Unwinder::new(thread.arch, map);
//!     let memory = PageCache::new(ProcessMemory::new(pid), &mut page_room);
//!     // Tracks registers, as stacks of live processes are walked from anywhere in a function.
//!     let mut frames = unwinder.frames_tracking::<33, _>(&thread.registers, memory)?;
//!     for frame in frames.by_ref() {
//!         println!("{:#x} {}", frame.pc.address(), frame.provenance);
//!     }
//!     println!("{:?}", frames.end());
//! }
//! // Dropping `stopped` lets the threads run again.
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`watch`] is for crashes: it runs along with a process and hands over the stopped threads of
//! whatever is about to be ended by a signal.
//!
//! On a 64-bit kernel also 32-bit processes (i386 on x86-64, Arm on AArch64): the registers that the
//! kernel gives for a thread tell which it is.

mod error;
mod machine;
mod maps;
mod memory;
mod modules;
mod open;
mod status;
mod sys;
mod threads;
mod tracer;
mod watch;

use nix::unistd::Pid;

pub use error::{Access, ProcessError};
#[doc(hidden)]
pub use maps::{ListedMapping, mappings_of};
pub use memory::ProcessMemory;
pub use threads::{StoppedProcess, StoppedThread};
pub use watch::{Crash, Ended, watch};

/// A process or thread id as the kernel has it. There are none beyond its limit of 2^22.
fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap_or(i32::MAX))
}
