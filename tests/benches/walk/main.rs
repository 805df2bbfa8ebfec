//! What a walk costs, beside its peers.
//!
//! `cargo bench -p unwind-tests --bench walk` prints tables in Markdown: some minutes, no network, nothing
//! needed but what is on the machine.
//!
//! # How it is measured
//! All in one process, on the same copies of stacks, in rounds in which everybody has a turn; by the clock
//! of the thread. The median over the rounds, and the tenth percentile, which is what a quiet machine shows:
//! ratios are made of it. Nanoseconds depend on the machine, ratios less so. Everybody stores the address of each frame, and is
//! charged for the frames that it finds itself. Nobody allocates while walking.
//!
//! # Workloads
//! * **One deep stack**: a thread of this program at the end of a chain of 64 different functions without
//!   frame pointers, again and again: everything is warm, branches are learned. The chain is chosen so that
//!   framehop's cache has no collisions. For frame pointers, a stack of frame records with frames of the same
//!   sizes.
//! * **Real stacks**: programs that are found on the machine, and this one, are run and stopped every
//!   1.5 ms; registers, stack (from 128 bytes below sp, at most 128 KiB) and modules are copied. Only stacks
//!   that everybody walks alike are timed; how many are not is told. They are walked
//!   one program after the other; the same with the bytes of 32 stacks at a time just brought into the
//!   processor's cache, as a profiler finds those that the kernel has copied; and mixed up, so that every
//!   stack is another program's.
//! * **Modules**: adding one, compiling one; sizes.
//!
//! # Who is compared
//! * The floor: following frame records, two loads a frame, checked to be in the stack and to go up; and
//!   *rules known*, which carries out the right rule of each frame from a list. On real stacks also *rules by pc*,
//!   which has to look it up by the pc, in a hash table that holds what these stacks need and checks nothing; and
//!   *SFrame's functions searched*, which finds module and function by the pc, in sorted arrays of the functions'
//!   starts, and then knows the rule: no row is read. *SFrame's rows passed over* also goes over the rows up to the one
//!   that holds, in the section, and checks nothing: what SFrame in place could reach at best.
//! * This library: a `ModuleMap` of `DwarfSource`, of SFrame (version 3, converted from `.eh_frame`) with
//!   DWARF behind it, of compiled tables with DWARF behind them, and that behind a cache which all processes
//!   share.
//! * framehop with the same sections and one cache of its own for all processes; and made to miss its cache
//!   at nearly every step, by taking turns between 16 unwinders with the same modules: what one of them left
//!   in the cache is not for the others.
//! * gimli used directly: the FDE through `.eh_frame_hdr`, its rows up to the pc, the rules of sp, fp and
//!   return address.
//! * The crate `backtrace`, which is libgcc's unwinder, on the live stack that the deep one is a copy of.
//!
//! # To see where instructions go
//! `valgrind --tool=callgrind target/release/deps/walk-… --count NAME PASSES` walks the deep stack alone so
//! many times with the first contender whose name contains `NAME`; the difference of two runs, divided by
//! the frames that one has more, is what a frame costs. `--count-real` does so with the real stacks. With
//! `WALK_SAMPLES=FILE` these are captured once, stored there, and taken from there in later runs; `WALK_PROGRAMS=python3,bash` captures
//! those of these programs alone, and with `WALK_MOST=NUMBER` only so many stacks, evenly spaced, are walked.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod suite;

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn main() {
    suite::main();
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn main() {
    println!("SKIPPED: needs Linux on x86-64 or AArch64");
}
