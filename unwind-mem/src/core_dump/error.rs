//! What can be wrong with a core file.

use core::fmt;

/// Why a file is no core dump that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CoreError {
    /// It could not be opened or read; the system's error number, or 0.
    Unreadable(i32),
    /// It is no ELF file.
    NotElf,
    /// It is an ELF file of another kind: a program, a library, an object file.
    NotCore {
        /// Its `e_type`.
        kind: u16,
    },
    /// It is for a machine that is not supported here.
    UnsupportedMachine {
        /// Its `e_machine`.
        machine: u16,
        /// The size of its words, in bits.
        bits: u8,
    },
    /// Its headers make no sense, or the file ends before them.
    Malformed,
}

impl fmt::Display for CoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CoreError::Unreadable(0) => f.write_str("cannot be read"),
            CoreError::Unreadable(errno) => {
                write!(f, "cannot be read: {}", std::io::Error::from_raw_os_error(*errno))
            }
            CoreError::NotElf => f.write_str("not an ELF file"),
            CoreError::NotCore { kind } => {
                let kind = match kind {
                    1 => "an object file",
                    2 => "a program",
                    3 => "a program or library",
                    _ => "an ELF file of another kind",
                };
                write!(f, "{kind}, not a core dump")
            }
            CoreError::UnsupportedMachine { machine, bits } => {
                write!(f, "ELF machine {machine} with {bits}-bit words is not supported")
            }
            CoreError::Malformed => f.write_str("its headers are malformed or cut off"),
        }
    }
}

impl core::error::Error for CoreError {}

/// Something that is missing in a core file or wrong with it, and that was done without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CoreProblem {
    /// The file is shorter than its headers say: the disk was full, or the limit on its size
    /// (`ulimit -c`) too low. The memory that should have come last is missing.
    Truncated {
        /// How many bytes it has.
        length: u64,
        /// How many it should have.
        expected: u64,
    },
    /// The list of its segments is cut off, or longer than any real one.
    SegmentList {
        /// How many of them could be read.
        read: u64,
        /// How many there should be.
        expected: u64,
    },
    /// A segment overlaps another one, or leaves the address space, and is left aside.
    BadSegment {
        /// Its address (avma).
        address: u64,
    },
    /// The notes (registers, list of files) are cut off or broken at this offset in the file.
    Notes {
        /// The offset.
        offset: u64,
    },
    /// The registers of a thread are of an unknown layout; the thread is left out.
    Registers {
        /// Its id; 0 where not even that is there.
        tid: u32,
    },
    /// There are no threads' registers in it.
    NoThreads,
    /// The list of mapped files (`NT_FILE`) is broken; what could be read of it is used.
    FileList,
    /// There is no list of mapped files, and the program is not known: it has to be given.
    NoProgram,
    /// The program that was given is not the one that the core is of: it begins elsewhere, or its
    /// build id is another.
    OtherProgram,
    /// The dynamic loader's list of modules cannot be followed to its end.
    ModuleList,
}

impl fmt::Display for CoreProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CoreProblem::Truncated { length, expected } => {
                write!(f, "the core is truncated: {length} of {expected} bytes are there")
            }
            CoreProblem::SegmentList { read, expected } => {
                write!(f, "{read} of {expected} program headers could be read")
            }
            CoreProblem::BadSegment { address } => {
                write!(f, "the segment at {address:#x} overlaps another one or leaves the address space")
            }
            CoreProblem::Notes { offset } => {
                write!(f, "the notes are cut off or broken at offset {offset:#x}")
            }
            CoreProblem::Registers { tid } => {
                write!(f, "the registers of thread {tid} are of an unknown layout")
            }
            CoreProblem::NoThreads => f.write_str("there are no registers of any thread"),
            CoreProblem::FileList => f.write_str("the list of mapped files is broken"),
            CoreProblem::NoProgram => f.write_str(
                "there is no list of mapped files, and the program is not in memory: it has to be given",
            ),
            CoreProblem::OtherProgram => {
                f.write_str("the program that was given is not the one that crashed")
            }
            CoreProblem::ModuleList => {
                f.write_str("the dynamic loader's list of modules cannot be followed to its end")
            }
        }
    }
}
