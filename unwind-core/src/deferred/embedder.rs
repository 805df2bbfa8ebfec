//! What only the embedder knows.

use core::fmt;

use super::task::TaskState;
use crate::{StartError, UnwindStacktrace};

/// What only the embedder knows: tasks and CPUs, how work is queued, how a task's user stack is walked.
///
/// The first five are asked by requests, wherever these come from: they must not block, fault or take a lock
/// that the code they may have interrupted holds. The others are asked where waiting is allowed.
pub trait Embedder {
    /// The embedder's task, which has a [`TaskState`] inside.
    type Task: AsRef<TaskState> + ?Sized;

    /// The task that the caller runs for. `None` where it has no user space to return to, whatever its flags
    /// say: kernel threads, workers that borrow a user's address space, the idle task.
    fn current_task(&self) -> Option<&Self::Task>;

    /// The number of the CPU that the caller runs on: of its counter, that is, from 0.
    fn current_cpu(&self) -> u32;

    /// Whether the caller is where an ordinary interrupt could not be: in an NMI.
    fn in_nmi(&self) -> bool;

    /// Whether this machine's compare-exchange of 64 bits is right in an NMI that may interrupt another. Where
    /// it is made of a lock or of disabled interrupts, it is not, and requests are refused there.
    fn is_compare_exchange_nmi_safe(&self) -> bool;

    /// Sees to it that [`Deferred::process`](super::Deferred::process) is called for `task` before that
    /// returns to user space.
    ///
    /// It may be asked where the way back has been gone already, by an NMI that has interrupted its very last
    /// instructions. Then the task has to be led back before it runs: by an interrupt to this CPU, which comes once
    /// they are enabled.
    ///
    /// Called once, and not again before `process` has begun or this has failed. It may be called while
    /// `process` runs. If requests come from elsewhere than the task's own context (from another CPU) and this
    /// can fail, it must bear being asked twice.
    ///
    /// # Errors
    /// It cannot be queued. The request is refused then; but other requests may have come in meanwhile and
    /// been told that they are queued. They are kept, and
    /// [`Deferred::return_to_user`](super::Deferred::return_to_user) tells of them.
    fn queue_work(&self, task: &Self::Task) -> Result<(), NotQueued>;

    /// Walks the user stack of `task` into `entries`: with its user registers, its memory and its tables,
    /// which only the embedder can reach. Mostly one call of
    /// [`Unwinder::unwind_user`](crate::Unwinder::unwind_user).
    ///
    /// # Errors
    /// Where the walk cannot begin.
    fn walk(&self, task: &Self::Task, entries: &mut [u64]) -> Result<UnwindStacktrace, StartError>;

    /// Shows `visit` every task that a request may have been made for: from before the first request until
    /// [`Deferred::exit`](super::Deferred::exit) has returned. Tasks may come and go meanwhile.
    fn for_each_task(&self, visit: &mut dyn FnMut(&Self::Task));

    /// Called over and over while a cancel waits. Whoever it waits for may need this very CPU.
    fn relax(&self) {
        core::hint::spin_loop();
    }
}

impl<E: Embedder + ?Sized> Embedder for &E {
    type Task = E::Task;

    #[inline]
    fn current_task(&self) -> Option<&Self::Task> {
        (**self).current_task()
    }

    #[inline]
    fn current_cpu(&self) -> u32 {
        (**self).current_cpu()
    }

    #[inline]
    fn in_nmi(&self) -> bool {
        (**self).in_nmi()
    }

    #[inline]
    fn is_compare_exchange_nmi_safe(&self) -> bool {
        (**self).is_compare_exchange_nmi_safe()
    }

    fn queue_work(&self, task: &Self::Task) -> Result<(), NotQueued> {
        (**self).queue_work(task)
    }

    fn walk(&self, task: &Self::Task, entries: &mut [u64]) -> Result<UnwindStacktrace, StartError> {
        (**self).walk(task, entries)
    }

    fn for_each_task(&self, visit: &mut dyn FnMut(&Self::Task)) {
        (**self).for_each_task(visit);
    }

    fn relax(&self) {
        (**self).relax();
    }
}

/// Work could not be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotQueued;

impl fmt::Display for NotQueued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the work could not be queued")
    }
}

impl core::error::Error for NotQueued {}
