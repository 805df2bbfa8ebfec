//! Memory of unwinding targets: implementations of [`MemoryReader`](unwind_core::MemoryReader).
//!
//! | reader | for |
//! |---|---|
//! | [`SliceReader`] | bytes that lie at one address: an emulator's RAM, a kernel's copy of a stack |
//! | [`StackSnapshot`] | a stack that was copied from sp on, whole or cut: a profiler's sample |
//! | [`RegionMap`] | many such pieces: a core file's segments, the files under a minidump |
//! | [`Layers`] | one reader over another: a snapshot over a live process |
//! | [`PageCache`] | whole pages kept in front of a slow reader: a remote stub, another process |
//!
//! Closures become readers through [`unwind_core::from_fn`]. These need no allocator and no
//! standard library.
//!
//! With the feature `process`, on Linux, module `process` has live processes: their memory, their
//! threads stopped through ptrace. With the feature `core-dump`, on any host, module `core_dump` has
//! ELF core files of any machine. Both find the ELF files that a target is made of, and the tables
//! in them (module `elf`). They need std.

#![cfg_attr(not(any(test, feature = "core-dump", all(feature = "process", target_os = "linux"))), no_std)]
#![cfg_attr(not(feature = "process"), forbid(unsafe_code))]
#![cfg_attr(feature = "process", deny(unsafe_code))]

#[cfg(feature = "core-dump")]
pub mod core_dump;
#[cfg(any(feature = "core-dump", all(feature = "process", target_os = "linux")))]
pub mod elf;
mod layers;
mod page_cache;
#[cfg(all(feature = "process", target_os = "linux"))]
pub mod process;
mod regions;
mod slice;
mod snapshot;
mod word;

pub use layers::Layers;
pub use page_cache::{Page, PageCache};
pub use regions::{Region, RegionMap, RegionMapError};
pub use slice::SliceReader;
pub use snapshot::StackSnapshot;
