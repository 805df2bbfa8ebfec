//! The system calls that nix has no safe form for: the one place with unsafe code.
//!
//! nix knows signals by an enum that leaves out the real-time ones, so that its `waitpid` fails on
//! a thread that stops for one, and its `PTRACE_CONT` cannot hand it on; it would be lost. Its
//! `PTRACE_GETREGSET` neither knows `NT_ARM_PAC_MASK` nor says how many bytes the kernel wrote,
//! which is what tells a 32-bit thread's registers from a 64-bit one's.

#![allow(unsafe_code)]

use core::mem::MaybeUninit;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

/// What is new about a traced thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It has stopped.
    Stopped {
        /// By which signal.
        signal: i32,
        /// Which `PTRACE_EVENT_` it is; 0 where the signal is about to be delivered.
        event: i32,
    },
    /// It has ended by itself, with this status.
    Exited(i32),
    /// It was ended by this signal.
    Killed(i32),
}

/// What is new about a thread that the calling thread traces, if anything. It is only looked at and
/// can be asked for again, until the thread is let go on.
///
/// To take the news of a stop would be to take the signal from the thread: it would be lost if this
/// process were killed before it hands it back (the kernel keeps it in `exit_code`, which waiting
/// clears). And an end may be news for someone else too.
pub(super) fn news(thread: Pid) -> Result<Option<News>, Errno> {
    let options = libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT | libc::WNOHANG;
    Ok(wait(libc::P_PID, number(thread)?, options)?.map(|(_, news)| news))
}

/// Waits until there is something new about one of the threads that the calling thread traces. A
/// stop is only looked at, as by [`news`]; an end is not told twice.
pub(super) fn any_news() -> Result<(Pid, News), Errno> {
    let options = libc::__WNOTHREAD | libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT;
    let (thread, news) = wait(libc::P_ALL, 0, options)?.ok_or(Errno::ECHILD)?;
    if !matches!(news, News::Stopped { .. }) {
        wait(libc::P_PID, number(thread)?, libc::WEXITED | libc::WNOHANG)?;
    }
    Ok((thread, news))
}

fn number(thread: Pid) -> Result<libc::id_t, Errno> {
    libc::id_t::try_from(thread.as_raw()).map_err(|_| Errno::ESRCH)
}

fn wait(kind: libc::idtype_t, id: libc::id_t, options: i32) -> Result<Option<(Pid, News)>, Errno> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the kernel writes at most one `siginfo_t` to the address (waitid(2)), which is that
    // of a local variable of this type.
    Errno::result(unsafe { libc::waitid(kind, id, info.as_mut_ptr(), options | libc::__WALL) })?;
    // SAFETY: `siginfo_t` is plain integers and pointers, for which all bits zero is valid, and
    // the kernel has written nothing else than such.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid fills the SIGCHLD members of the union, or leaves the zeroes there where
    // nothing is new. They are integers either way.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let news = match info.si_code {
        _ if pid == 0 => return Ok(None),
        libc::CLD_EXITED => News::Exited(status),
        libc::CLD_KILLED | libc::CLD_DUMPED => News::Killed(status),
        _ => News::Stopped { signal: status & 0xff, event: status >> 8 },
    };
    Ok(Some((Pid::from_raw(pid), news)))
}

/// Lets a stopped thread run again, with the signal that it stopped for; 0 for none.
pub(super) fn resume(thread: Pid, signal: i32) -> Result<(), Errno> {
    command(libc::PTRACE_CONT, thread, signal)
}

/// Leaves a thread that job control has stopped as it is, until job control lets it go on.
pub(super) fn leave_stopped(thread: Pid) -> Result<(), Errno> {
    command(libc::PTRACE_LISTEN, thread, 0)
}

/// `PTRACE_CONT` or `PTRACE_LISTEN`.
fn command(request: libc::c_uint, thread: Pid, signal: i32) -> Result<(), Errno> {
    let (address, signal): (libc::c_long, libc::c_long) = (0, signal.into());
    // SAFETY: the two requests take numbers, and touch no memory of this process (ptrace(2)).
    let answer = unsafe { libc::ptrace(request, thread.as_raw(), address, signal) };
    Errno::result(answer).map(drop)
}

/// Reads a register set (an `NT_` number of elf.h) of a thread that the calling thread has
/// stopped: how many bytes of `into` the kernel has filled, at most all of it.
pub(super) fn register_set(thread: Pid, set: i32, into: &mut [u8]) -> Result<usize, Errno> {
    let mut vector = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let request = libc::PTRACE_GETREGSET;
    // SAFETY: the kernel writes to the `iov_len` bytes at `iov_base` and to `vector` itself
    // (ptrace(2), PTRACE_GETREGSET). Both are borrowed mutably by this function until the call
    // returns, `into` is `iov_len` bytes long, and any bytes are valid `u8`s. Nothing else of this
    // process is touched, whatever `thread` and `set` are: if they are wrong the call fails.
    let answer = unsafe { libc::ptrace(request, thread.as_raw(), libc::c_long::from(set), &raw mut vector) };
    Errno::result(answer).map(|_| vector.iov_len.min(into.len()))
}
