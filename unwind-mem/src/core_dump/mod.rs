//! ELF core dumps: of every architecture, either class and byte order, on any host.
//!
//! A core holds the registers of every thread and the memory that the process had of its own; code
//! and tables are taken from the files that it had mapped. [`CoreDump`] puts both together, so that
//! a walk finds what it found in the live process:
//!
//! ```no_run
//! use std::path::Path;
//!
//! use unwind_core::{ModuleMap, Unwinder};
//! use unwind_mem::core_dump::{CoreDump, FileSearch};
//! use unwind_mem::elf::IndexRoom;
//! use unwind_mem::{Page, PageCache};
//!
//! // Of another machine, whose files were copied to a folder.
//! let search = FileSearch { sysroot: Some("/srv/target".into()), executable: None };
//! let core = CoreDump::open(Path::new("core.1234"), &search)?;
//! for problem in core.problems() {
//!     eprintln!("{problem}");
//! }
//! let mut index_room = IndexRoom::default();
//! let sources = core.modules().sources(&mut index_room);
//! let mut page_room = vec![Page::<4096>::EMPTY; 64];
//! for thread in core.threads() {
//!     let mut map = ModuleMap::new(&thread.arch, &sources)?;
//!     if core.lists_all_code() {
//!         map = map.complete();
//!     }
//!     let unwinder = Unwinder::new(thread.arch, map);
//!     let memory = PageCache::new(core.memory(), &mut page_room);
//!     let mut frames = unwinder.frames_tracking::<72, _>(&thread.registers, memory)?;
//!     for frame in frames.by_ref() {
//!         println!("{:#x} {}", frame.pc.address(), frame.provenance);
//!     }
//!     println!("{:?}", frames.end());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where modules come from
//! * `NT_FILE`, which Linux and gdb write, lists what was mapped where.
//! * Without it (as in cores that qemu writes): the auxiliary vector says where the program is,
//!   which has to be given unless it is in memory or at the path of the command line; its dynamic
//!   section leads to the dynamic loader's list of libraries.
//! * The vDSO is in the core.
//!
//! A file is used if its ELF header, program headers and notes (the build id among them) equal what
//! the core has of them; where the core has nothing of them, it is used as
//! [not verified](crate::elf::ElfModule::verified). One that differs, or is not there, is among the
//! [missing files](CoreDump::missing_files), and taken from the core as far as that holds it.
//!
//! # Damage
//! Cores are untrusted and often cut off. Whatever their bytes: no panic, work in proportion to the
//! file, and [`CoreDump::problems`] says what is missing. Memory that should be there and is not
//! is unreadable, and a walk that needs it ends by saying so.

mod contents;
mod error;
mod files;
mod link_map;
mod memory;
mod modules;
mod notes;
mod segments;

use std::fmt;
use std::path::{Path, PathBuf};

use unwind_arch::AnyArch;

use contents::Contents;
pub use error::{CoreError, CoreProblem};
pub use files::FileSearch;
pub use memory::CoreMemory;
use modules::{Finder, Found};
pub use notes::CoreThread;
use notes::Notes;
use segments::Headers;

use crate::elf::{ElfError, ElfModules, tables};

/// A core dump, with the files that belong to it.
pub struct CoreDump {
    contents: Contents,
    headers: Headers,
    notes: Notes,
    arch: AnyArch,
    found: Found,
    problems: Vec<CoreProblem>,
}

/// A file that was mapped and is of no use now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingFile {
    /// Its path on the machine where the core was written; where the program was given, that path.
    pub path: PathBuf,
    /// Why.
    pub error: ElfError,
}

impl CoreDump {
    /// Opens a core file, and the files that it names.
    ///
    /// # Errors
    /// It cannot be read, is no core, is for a machine that is not supported, or its headers make
    /// no sense. Everything else that is wrong is among the [`problems`](CoreDump::problems).
    pub fn open(path: &Path, search: &FileSearch) -> Result<Self, CoreError> {
        let contents = Contents::open(path);
        Self::read(
            contents.map_err(|error| CoreError::Unreadable(error.raw_os_error().unwrap_or(0)))?,
            search,
        )
    }

    /// As [`open`](CoreDump::open), of a core that is in memory: one that was received, or
    /// decompressed.
    ///
    /// # Errors
    /// As for [`open`](CoreDump::open).
    pub fn from_bytes(bytes: Vec<u8>, search: &FileSearch) -> Result<Self, CoreError> {
        Self::read(Contents::Bytes(bytes), search)
    }

    fn read(contents: Contents, search: &FileSearch) -> Result<Self, CoreError> {
        let mut problems = Vec::new();
        let headers = Headers::read(&contents, &mut problems)?;
        let of_flags = |flags| tables::arch(headers.machine, headers.word, headers.order, flags);
        let bits = headers.word.bytes().saturating_mul(8);
        let arch = of_flags(headers.flags);
        let arch = arch.ok_or(CoreError::UnsupportedMachine { machine: headers.machine, bits })?;
        let in_headers = problems.clone();
        let notes = Notes::read(arch, &headers, &contents, &mut problems);
        let found = Finder::new(&headers, &contents, &notes, search, &mut problems).find(arch);
        // Some writers leave out the flags, which the program has: they tell two ABIs of MIPS apart.
        let of_program = found.modules.modules().first().and_then(|module| module.tables.arch());
        if let Some(arch) = of_program.filter(|of_program| headers.flags == 0 && *of_program != arch) {
            problems = in_headers;
            let notes = Notes::read(arch, &headers, &contents, &mut problems);
            let found = Finder::new(&headers, &contents, &notes, search, &mut problems).find(arch);
            return Ok(CoreDump { contents, headers, notes, arch, found, problems });
        }
        Ok(CoreDump { contents, headers, notes, arch, found, problems })
    }

    /// The architecture. Each thread has its own, with its pointer authentication mask.
    pub fn arch(&self) -> AnyArch {
        self.arch
    }

    /// The threads; the one that crashed is the first.
    pub fn threads(&self) -> &[CoreThread] {
        &self.notes.threads
    }

    /// The signal that ended the process; `None` where none did (a core of a process that goes
    /// on, as gdb and gcore write it).
    pub fn signal(&self) -> Option<i32> {
        self.notes.threads.first().map(|thread| thread.signal).filter(|signal| *signal != 0)
    }

    /// The process id.
    pub fn pid(&self) -> Option<u32> {
        self.notes.process.pid.or_else(|| self.notes.threads.first().map(|thread| thread.tid))
    }

    /// The program's name, cut after 15 bytes. Empty where it is not there.
    pub fn name(&self) -> &[u8] {
        &self.notes.process.name
    }

    /// The command line, cut after 79 bytes. Empty where it is not there.
    pub fn command(&self) -> &[u8] {
        &self.notes.process.command
    }

    /// The modules with code, and their tables.
    pub fn modules(&self) -> &ElfModules {
        &self.found.modules
    }

    /// Files that were mapped as code and cannot be used.
    pub fn missing_files(&self) -> &[MissingFile] {
        &self.found.missing
    }

    /// Whether [`modules`](CoreDump::modules) are all code that there was, so that a
    /// [`ModuleMap`](unwind_core::ModuleMap) of them may be called
    /// [`complete`](unwind_core::ModuleMap::complete). Linux lists also mappings that it leaves
    /// out of the core; other writers do not.
    pub fn lists_all_code(&self) -> bool {
        self.found.lists_all_code
    }

    /// The memory: what the core holds, over the files.
    pub fn memory(&self) -> CoreMemory<'_> {
        CoreMemory {
            headers: &self.headers,
            contents: &self.contents,
            pieces: &self.found.pieces,
            files: &self.found.files,
        }
    }

    /// What is missing in the core, or wrong with it.
    pub fn problems(&self) -> &[CoreProblem] {
        &self.problems
    }
}

impl fmt::Debug for CoreDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoreDump")
            .field("arch", &self.arch)
            .field("threads", &self.notes.threads.len())
            .field("modules", &self.found.modules.modules().len())
            .field("problems", &self.problems)
            .finish_non_exhaustive()
    }
}
