//! Deferred unwinding, played by this very process.
//!
//! `cargo run --release --example deferred [SECONDS]`
//!
//! Threads stand for CPUs, each with a task. The task's user code recurses and makes system calls; what runs in those
//! is the kernel. Samples arrive as signals, which are the NMIs of user space: they interrupt anything, each other
//! included, and only request. On its way back from the system call the task walks its own stack by the library and
//! calls the clients. Kernel parts and user parts are joined in the end.
//!
//! It fails where anything is not as promised: a trace differs from the stack that was there when the system call
//! began, a request is not answered, a client is called after its cancel, a handler allocates.
//!
//! # Why the handler is async-signal-safe
//!
//! It reads a thread-local word that is initialised in the program's image and has no destructor (a load relative to
//! the thread pointer; nothing is made on first use), calls `Deferred::request`, reads the clock (`clock_gettime`
//! is in POSIX's list) and stores to atomic words that were there before. `request` is in a crate without allocator,
//! of which `tests/no_panic` shows that nothing in it panics; it waits for nothing and takes no lock, which
//! `tests/tests/deferred_interrupt.rs` shows by interrupting it before every access. What it calls of the embedder is in
//! `cpu.rs`: loads and stores. And the allocator of this program counts who comes to it from a handler.

#![allow(
    clippy::exit,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "a program may exit; what it computes with are its own numbers"
)]

#[cfg(target_os = "linux")]
mod cpu;
#[cfg(target_os = "linux")]
mod machine;
#[cfg(target_os = "linux")]
mod record;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod user;

#[cfg(target_os = "linux")]
fn main() {
    let seconds = std::env::args().nth(1).and_then(|seconds| seconds.parse().ok()).unwrap_or(2.0);
    match machine::run(std::time::Duration::from_secs_f64(seconds)) {
        Ok(report) => {
            print!("{report}");
            if !report.is_as_promised() {
                eprintln!("not as promised: see above");
                std::process::exit(1);
            }
        }
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(2);
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("this example needs Linux");
    std::process::exit(2);
}
