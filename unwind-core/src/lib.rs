//! An architecture-generic stack unwinding core: `no_std`, no allocation, no unsafe code, no panic
//! on any input.
//!
//! Give it a machine state, a way to read the target's memory and the target's unwind tables, and
//! it yields the call chain, with an origin for every frame and a reason for the end. The target
//! need not be the host: architecture, word size and byte order are values.
//!
//! # What you supply, and what you get
//!
//! | you supply | as |
//! |---|---|
//! | the architecture | a value that implements [`Arch`] (crates `unwind-arch-*`) |
//! | registers | [`UserRegisters`]: by DWARF number, "unknown" is an answer |
//! | memory | [`MemoryReader`]: bytes at an address, or an error that names it |
//! | rules | a [`FrameSource`]: `DwarfSource` (feature `dwarf`), `SFrameSource` (`sframe`), `EhabiSource` (`ehabi`), a [`ModuleMap`] of those, your own, or `()` for the architecture's conventions alone |
//!
//! An [`Unwinder`] then walks: into a buffer ([`Unwinder::unwind_user`]), as an iterator
//! ([`Unwinder::frames`]), or step by step ([`Unwinder::start`], [`Unwinder::next`]).
//!
//! # The rule
//!
//! Its model is Linux's `unwind_user`: one small state ([`UnwindUserState`]), one small rule
//! ([`UnwindUserFrame`]), one step, and many sources of rules behind it. Sources are asked in
//! the order of [`UnwindUserType`] for every frame. *Not covered* passes on to the next source;
//! *covered but broken* is an error that is reported, and a lesser source is used only where
//! [`Options::guesses`] allows it, and says so in its [`Provenance`].
//!
//! # A step's checks
//!
//! In this order, and nothing is changed until all have passed:
//!
//! 1. A signal frame restores the interrupted registers; sp may go anywhere, the next pc is exact.
//! 2. An undefined return address ends the walk, complete.
//! 3. A CFA on the frame pointer needs it at or above sp; one on a register that is not known
//!    here fails.
//! 4. The CFA is computed in the target's word size, without wrap-around at either end.
//! 5. The stack must shrink: the caller's sp is above this frame's, or equal to it where the pc
//!    is exact (a leaf that keeps its return address in a register).
//! 6. The CFA is aligned to the target's word.
//! 7. The return address is read, and stripped by the architecture. Zero ends the walk, complete; but
//!    where a frame pointer, a back chain or a table of calls led to it from an exact pc, it shows that
//!    this was wrong, and the step fails. A return address that is certainly not code fails.
//! 8. The frame pointer is read. Where execution stopped it may have been popped from a word that is below
//!    sp by now: if that cannot be read, it is unknown.
//! 9. (ip, sp) differs from before. Then ip, sp and fp are committed together.
//!
//! # Bounds
//!
//! A step asks each kind of source once, for a rule of at most four words. It looks at code up to fourteen times, in
//! ten reads each where the code is full of holes. Beyond that it reads what a table that has to be evaluated says: with DWARF
//! 513 words for each of CFA, return address, frame pointer, sp, link register and every tracked register, the fuel
//! of an expression and the word that it leads to; with ARM's tables one for each of 1,023 instructions and one
//! for each register; and the registers of a signal frame, each once. Pointers that a table has the loader
//! store elsewhere are read once for each function that a search meets, and a search without an index meets all.
//! Work on a table is linear in its size where it has no index, or one that is not sorted. Every step but one per signal frame
//! moves sp up, circles over signal frames are found, and [`Options::max_frames`] ends what is
//! left: no walk is endless, whatever tables and memory say. (`tests/tests/bounds.rs` counts.)
//!
//! # From the kernel's names to ours
//!
//! The seed is "unwind_user: Add user space unwinding API", and what the series became.
//!
//! | seed | here | what differs, and why |
//! |---|---|---|
//! | `unwind_user(trace, max)` | [`Unwinder::unwind_user`] | fills a slice; says how the walk ended. No room is an error there and here ([`StartError::NoRoom`]); a kernel thread is success with no entries there, [`StartError::NoUserRegisters`] here |
//! | `unwind_user_start(state)` | [`Unwinder::start`] | registers come from [`UserRegisters`], not from `task_pt_regs` |
//! | `unwind_user_next(state)` | [`Unwinder::next`] | failing, it ends the walk: the seed's left `done` unset, so that a loop recorded one ip until the buffer was full |
//! | `for_each_user_frame(state)` | [`Unwinder::frames`] | an iterator; frames found before an error are never lost |
//! | `struct unwind_stacktrace { nr, entries }` | [`UnwindStacktrace`] | the entries are the caller's slice; the end and the weakest rule are told |
//! | `struct unwind_user_frame { cfa_off, ra_off, fp_off, use_fp }` | [`UnwindUserFrame`] | [`UnwindUserFrame::plain`] is the seed's; a rule also says dereferenced CFAs, registers, undefined and signal frames, as the later series does |
//! | `struct unwind_user_state { ip, sp, fp, type, done }` | [`UnwindUserState`] | `ip` is a [`Pc`], exact or return; fp may be unknown; `done` is an [`End`]; `type` is [`Provenance::source`] |
//! | `enum unwind_user_type` | [`UnwindUserType`] | the kernel has NONE, FP and later SFRAME; NONE is `None` of an `Option` here |
//! | `state.available_types` | [`Options::types`] | what the embedder allows; what there is, the source says ([`FrameSource::types`]) |
//! | `state.topmost`, `state.ws` | [`UnwindUserState::topmost`], [`UnwindUserState::word_size`] | |
//!
//! Return addresses are looked up one byte earlier (the kernel looks them up as they are), zero
//! return addresses end the walk, authentication codes are stripped, and a failed memory read is
//! never a reason to forget a table.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(any(test, feature = "arbitrary"))]
extern crate std;

mod address;
mod arch;
#[cfg(all(feature = "deferred", target_has_atomic = "64"))]
mod atomics;
mod attempt;
#[cfg(target_has_atomic = "64")]
mod cache;
mod check;
mod convention;
#[cfg(all(feature = "deferred", target_has_atomic = "64"))]
pub mod deferred;
#[cfg(feature = "dwarf")]
pub mod dwarf;
#[cfg(feature = "ehabi")]
pub mod ehabi;
mod frame;
#[cfg(feature = "layout")]
mod layout;
mod memory;
mod module_map;
mod outcome;
mod plain;
mod plain_run;
mod plain_step;
mod register;
mod register_set;
#[cfg(feature = "sframe")]
pub mod sframe;
#[cfg(any(feature = "dwarf", feature = "sframe"))]
mod sort;
mod source;
mod source_compose;
mod source_error;
mod state;
mod step;
#[cfg(feature = "table")]
pub mod table;
mod walk;

pub use address::{ByteOrder, Pc, WordSize};
pub use arch::{Arch, CfiVendor, Code, SignalFrame};
#[cfg(target_has_atomic = "64")]
pub use cache::{CacheSlot, Cached, RuleCache};
pub use frame::{Base, CfaRule, FpRule, FrameKind, RaRule, UnwindUserFrame};
#[cfg(feature = "layout")]
pub use layout::{LayoutError, PerfLayout, RegisterLayout};
pub use memory::{FnReader, MemoryError, MemoryReader, from_fn};
pub use module_map::{Module, ModuleMap, ModuleMapError};
pub use outcome::{Cut, End, Frame, Mark, Provenance, StartError, StepError, Unusable, UnwindError};
pub use plain::Plain;
pub use register::{
    CallerRegisters, FillRegisters, Register, RegisterFile, RegisterSet, TopmostRegisters, TrackedRegisters,
    UserRegisters,
};
pub use source::{
    CodeAt, Evaluated, Found, FrameSource, Query, Rule, Trust, UnwindUserType, UnwindUserTypes,
};
pub use source_error::{Broken, LookupError, SourceError};
pub use state::UnwindUserState;
pub use walk::{Frames, Options, UnwindStacktrace, Unwinder};
