//! A machine for deferred unwinding, with tasks and CPUs that one thread plays. It notes what was told and
//! who was called, and knows what must hold of that in the end.
//!
//! `crate::deferred` is the module under test: the library's own, or its source over other atomic words.

use std::cell::{Cell, RefCell};
use std::fmt::Debug;

use unwind_core::{End, Mark, StartError, Trust, UnwindStacktrace};

use crate::deferred::{
    Client, ClientId, ClientSlot, Cookie, CpuCounter, Deferred, Embedder, NoSlot, NotQueued, Processed,
    Registration, RequestError, Requested, Return, TaskState, Trace, TraceCache,
};

pub struct Task {
    pub state: TaskState,
    pub number: usize,
    /// What its user stack looks like: another one after each return to user space.
    pub stack: Cell<u64>,
    /// A list of works, as kernels have them, would be broken by the same work taken twice.
    pub is_queued: Cell<bool>,
    pub cache: RefCell<TraceCache<[u64; 8]>>,
}

impl AsRef<TaskState> for Task {
    fn as_ref(&self) -> &TaskState {
        &self.state
    }
}

pub struct Machine {
    pub tasks: Vec<Task>,
    pub slots: Vec<ClientSlot<Recorder>>,
    pub counters: Vec<CpuCounter>,
    pub current: Cell<Option<usize>>,
    pub cpu: Cell<u32>,
    pub is_nmi: Cell<bool>,
    pub is_nmi_safe: Cell<bool>,
    pub queue_fails: Cell<bool>,
    pub walk_fails: Cell<bool>,
    pub walks: Cell<u32>,
    pub told: RefCell<Vec<Told>>,
    /// Called where a walk reads memory, and where a client is called: an interrupt may come there.
    pub interrupt: fn(),
}

/// A client's data: who has the slot.
pub struct Recorder {
    pub who: Cell<u64>,
    pub calls: RefCell<Vec<Call>>,
    interrupt: fn(),
}

/// A request that was told a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub who: u64,
    pub task: usize,
    pub cookie: Cookie,
    pub stack: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub who: u64,
    pub task: usize,
    pub cookie: Cookie,
    pub entries: Vec<u64>,
}

impl Client<Task> for Recorder {
    fn deliver(&self, task: &Task, cookie: Cookie, trace: &Trace<'_>) {
        (self.interrupt)();
        let call = Call { who: self.who.get(), task: task.number, cookie, entries: trace.entries.to_vec() };
        self.calls.borrow_mut().push(call);
        (self.interrupt)();
    }
}

impl Embedder for Machine {
    type Task = Task;

    fn current_task(&self) -> Option<&Task> {
        self.tasks.get(self.current.get()?)
    }

    fn current_cpu(&self) -> u32 {
        self.cpu.get()
    }

    fn in_nmi(&self) -> bool {
        self.is_nmi.get()
    }

    fn is_compare_exchange_nmi_safe(&self) -> bool {
        self.is_nmi_safe.get()
    }

    fn queue_work(&self, task: &Task) -> Result<(), NotQueued> {
        (self.interrupt)();
        if self.queue_fails.get() {
            return Err(NotQueued);
        }
        assert!(!task.is_queued.replace(true), "the same work is queued twice");
        Ok(())
    }

    fn walk(&self, task: &Task, entries: &mut [u64]) -> Result<UnwindStacktrace, StartError> {
        (self.interrupt)();
        self.walks.set(self.walks.get() + 1);
        if self.walk_fails.get() {
            return Err(StartError::NoStackPointer);
        }
        entries[..2].copy_from_slice(&[task.number as u64, task.stack.get()]);
        (self.interrupt)();
        let end = End::Complete(Mark::UndefinedReturnAddress);
        Ok(UnwindStacktrace::new(2, end, Trust::Exact))
    }

    fn for_each_task(&self, visit: &mut dyn FnMut(&Task)) {
        self.tasks.iter().for_each(visit);
    }

    fn relax(&self) {
        panic!("one thread waits for itself");
    }
}

impl Machine {
    pub fn new(tasks: usize, cpus: usize, slots: usize, interrupt: fn()) -> Self {
        let task = |number| Task {
            state: TaskState::new(),
            number,
            stack: Cell::new(1),
            is_queued: Cell::new(false),
            cache: RefCell::new(TraceCache::new([0; 8])),
        };
        let recorder = || Recorder { who: Cell::new(0), calls: RefCell::default(), interrupt };
        Machine {
            tasks: (0..tasks).map(task).collect(),
            slots: (0..slots).map(|_| ClientSlot::new(recorder())).collect(),
            counters: (0..cpus).map(|_| CpuCounter::new()).collect(),
            current: Cell::new(Some(0)),
            cpu: Cell::new(0),
            is_nmi: Cell::new(false),
            is_nmi_safe: Cell::new(true),
            queue_fails: Cell::new(false),
            walk_fails: Cell::new(false),
            walks: Cell::new(0),
            told: RefCell::default(),
            interrupt,
        }
    }

    pub fn deferred(&self) -> Deferred<'_, &Machine, Recorder> {
        Deferred::new(self, &self.slots, &self.counters)
    }

    pub fn register(&self, who: u64) -> Result<Registration, NoSlot> {
        self.deferred().register(|recorder| recorder.who.set(who))
    }

    /// Requests for client `who`, and notes what was told.
    pub fn request(&self, who: u64, id: ClientId) -> Result<Requested, RequestError> {
        let result = self.deferred().request(id);
        if let (Ok(Requested { cookie, .. }), Some(task)) = (result, self.current_task()) {
            let stack = task.stack.get();
            self.told.borrow_mut().push(Told { who, task: task.number, cookie, stack });
        }
        result
    }

    /// The queued work runs.
    pub fn process(&self, task: &Task) -> Processed {
        task.is_queued.set(false);
        self.deferred().process(task, &mut *task.cache.borrow_mut())
    }

    /// The way back to user space, as a kernel has it. A request that comes at its very end has queued work, and
    /// so leads back before the task has run.
    pub fn leave(&self, task: &Task) {
        loop {
            while task.is_queued.get() {
                self.process(task);
            }
            match self.deferred().return_to_user(task) {
                Return::Pending => assert!(self.process(task).walks < 2),
                Return::Ready if !task.is_queued.get() => break,
                Return::Ready => {}
            }
        }
        task.stack.set(task.stack.get() + 1);
    }

    pub fn exit(&self, task: &Task) -> Processed {
        task.is_queued.set(false);
        self.deferred().exit(task, &mut *task.cache.borrow_mut())
    }

    /// All calls, of all slots.
    pub fn calls(&self) -> Vec<Call> {
        self.slots.iter().flat_map(|slot| slot.client().calls.borrow().clone()).collect()
    }

    /// What must hold once every task has left or exited: who was told is called once with that cookie and with the
    /// stack that the task had then, nobody else is called, and a cookie is that of one entry of one task. Clients
    /// in `cancelled` need not have been called.
    #[track_caller]
    pub fn check(&self, cancelled: &[u64], context: &dyn Debug) {
        let (told, calls) = (self.told.borrow(), self.calls());
        for told in told.iter() {
            let mine: Vec<_> =
                calls.iter().filter(|call| (call.who, call.cookie) == (told.who, told.cookie)).collect();
            assert!(
                mine.len() == 1 || mine.is_empty() && cancelled.contains(&told.who),
                "{told:?} was called {mine:?}: {context:?}"
            );
            for call in mine {
                let stack = if self.walk_fails.get() { vec![] } else { vec![told.task as u64, told.stack] };
                assert_eq!((call.task, &call.entries), (told.task, &stack), "{told:?}: {context:?}");
            }
            for other in told_with(&told.cookie, &self.told.borrow()) {
                assert_eq!((other.task, other.stack), (told.task, told.stack), "{told:?}: {context:?}");
            }
        }
        for call in &calls {
            assert!(
                told.iter().any(|told| (told.who, told.cookie) == (call.who, call.cookie)),
                "nobody asked for {call:?}: {context:?}"
            );
        }
    }
}

fn told_with(cookie: &Cookie, told: &[Told]) -> Vec<Told> {
    told.iter().filter(|told| told.cookie == *cookie).copied().collect()
}
