//! Captured runs: what a program did, instruction by instruction, under an emulator; so that a
//! machine without emulator and cross compiler can compare walks with the truth.
//!
//! `unwind_tests::capture` writes them, `tests/fixtures/build.sh` says how. A **run** (`*.run`) is one
//! execution of one program, a **module** (`*.module`) what unwinding needs of one of its files.
//! Runs name their modules, so that a shared library is stored once.
//!
//! # Format
//! Both begin with eight bytes of magic; the rest is one zlib stream, made of
//!
//! * *numbers*: unsigned LEB128;
//! * *differences*: a number; zigzag of a signed 64-bit difference from the value before;
//! * *words*: 8 bytes, least significant first; where they stand for memory, they are its bytes in
//!   order, whatever the target's byte order;
//! * *blobs* and *names*: a number, then as many bytes.
//!
//! A module: name; number of executable ranges, each start and length (svma, numbers); number of
//! sections, each name, svma (number), contents (blob).
//!
//! A run: target (name of the architecture); program (name); command (name: how the emulator was
//! called); instructions stepped, repeats, thinned out, executed at once (numbers: see [`Run`]); the register slots: a number of
//! them, then the DWARF number of each; the preserved registers, the same way; modules, stacks, code,
//! functions, calls, samples. Each of these is a number, then as many records:
//!
//! | record | made of |
//! |---|---|
//! | module | name, bias, number of its functions |
//! | stack | start, length (numbers) |
//! | code | address (difference from the end of the one before), blob |
//! | function | start (difference), size, name |
//! | call | see [`Call`]: parent + 1, or 0 (number); 1 if exact, + 2 if registers are known (number); pc and sp (differences from the call before); if registers are known, a changed set and words |
//! | sample | call + 1, or 0 (number); the call it is on the way to + 2, or 1 for none, or 0 if it is not under way (number); a changed set and words; number of writes, each its address (difference from the write before, in words) and its word |
//!
//! A changed set is a number with a bit for each slot whose value differs from the sample or call before;
//! the new values follow as words. Samples, and the writes of each, are kept in columns (heads, then register words,
//! then write addresses, then written words, each a blob) because that compresses better.
//!
//! # Memory
//! The stacks are readable and zero to begin with; writes of a sample are applied before it. They are the
//! differences of what is live: from sp less the red zone upwards, on every stack that the true
//! chain is on. What lies below is stale, and [`Replay`] refuses to read it.

mod bytes;
mod call_sites;
mod check;
mod ehabi;
mod memory;
mod module;
mod replay;
mod report;
mod run;
mod run_file;
mod sframe;
mod tables;

pub use bytes::FormatError;
pub use check::Subject;
pub use memory::CapturedMemory;
pub use module::{CapturedModule, CapturedSection};
pub use replay::{CapturedRegisters, Moment, Replay};
pub use report::{Listed, Report, Spot};
pub use run::{Call, Function, LoadedModule, NO_NUMBER, PC_ALONE, Run, Sample};
pub use tables::{Kind, Library, Loaded, Tables};
