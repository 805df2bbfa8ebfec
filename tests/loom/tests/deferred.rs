//! Every pair of operations of deferred unwinding that can race, under every schedule; where those are too many,
//! under those with a bounded number of preemptions. A bound here is such that the whole takes less than a minute;
//! `LOOM_MAX_PREEMPTIONS=N` sets another one for all.
//!
//! Threads are CPUs here. An NMI on the same CPU has fewer schedules than a thread has: all of them are covered.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use deferred_loom::deferred::{
    Client, ClientId, ClientSlot, Cookie, CpuCounter, Deferred, Embedder, NotQueued, Registration,
    RequestError, Requested, Return, Standing, TaskState, Trace, TraceCache,
};
use deferred_loom::set_up;
use loom::thread;
use unwind_core::{End, Mark, StartError, Trust, UnwindStacktrace};

/// What is noted is in words that the checker does not see: it orders nothing.
#[derive(Debug)]
struct World {
    tasks: Vec<Task>,
    slots: Vec<ClientSlot<Recorder>>,
    counters: Vec<CpuCounter>,
    queue_fails: bool,
    queued: AtomicU32,
    walks: AtomicU32,
    told: Mutex<Vec<(u64, Cookie)>>,
}

#[derive(Debug)]
struct Task {
    state: TaskState,
    /// What its user stack looks like.
    stack: AtomicU64,
}

#[derive(Debug)]
struct Recorder {
    who: Who,
    cancelled: Mutex<Vec<u64>>,
    calls: Mutex<Vec<Call>>,
}

/// Who has the slot: no atomic word, so that the checker fails where it is written without the order of all reads
/// before and after.
#[derive(Debug)]
struct Who(loom::cell::UnsafeCell<u64>);

// SAFETY: the checker lets one thread run at a time, and fails before two accesses meet that nothing orders.
#[allow(unsafe_code, reason = "see above")]
unsafe impl Sync for Who {}

#[allow(unsafe_code, reason = "see above")]
impl Who {
    fn get(&self) -> u64 {
        // SAFETY: as above; the pointer is to a live value, and does not leave.
        self.0.with(|who| unsafe { *who })
    }

    fn set(&self, value: u64) {
        // SAFETY: as in `get`.
        self.0.with_mut(|who| unsafe { *who = value });
    }
}

type Call = (u64, Cookie, Vec<u64>);

impl AsRef<TaskState> for Task {
    fn as_ref(&self) -> &TaskState {
        &self.state
    }
}

impl Client<Task> for Recorder {
    fn deliver(&self, _: &Task, cookie: Cookie, trace: &Trace<'_>) {
        let who = self.who.get();
        assert!(!self.cancelled.lock().unwrap().contains(&who), "called after its cancel has returned");
        self.calls.lock().unwrap().push((who, cookie, trace.entries.to_vec()));
    }
}

impl Embedder for World {
    type Task = Task;

    fn current_task(&self) -> Option<&Task> {
        self.tasks.first()
    }

    fn current_cpu(&self) -> u32 {
        0
    }

    fn in_nmi(&self) -> bool {
        false
    }

    fn is_compare_exchange_nmi_safe(&self) -> bool {
        true
    }

    fn queue_work(&self, _: &Task) -> Result<(), NotQueued> {
        self.queued.fetch_add(1, Ordering::Relaxed);
        if self.queue_fails { Err(NotQueued) } else { Ok(()) }
    }

    fn walk(&self, task: &Task, entries: &mut [u64]) -> Result<UnwindStacktrace, StartError> {
        self.walks.fetch_add(1, Ordering::Relaxed);
        entries[0] = task.stack.load(Ordering::Relaxed);
        let end = End::Complete(Mark::UndefinedReturnAddress);
        Ok(UnwindStacktrace::new(1, end, Trust::Exact))
    }

    fn for_each_task(&self, visit: &mut dyn FnMut(&Task)) {
        self.tasks.iter().for_each(visit);
    }

    fn relax(&self) {
        thread::yield_now();
    }
}

impl World {
    fn new(tasks: usize, slots: usize) -> Self {
        World {
            tasks: (0..tasks).map(|_| Task { state: TaskState::new(), stack: AtomicU64::new(1) }).collect(),
            slots: (0..slots)
                .map(|_| {
                    ClientSlot::new(Recorder {
                        who: Who(loom::cell::UnsafeCell::new(0)),
                        cancelled: Mutex::default(),
                        calls: Mutex::default(),
                    })
                })
                .collect(),
            counters: vec![CpuCounter::new()],
            queue_fails: false,
            queued: AtomicU32::new(0),
            walks: AtomicU32::new(0),
            told: Mutex::default(),
        }
    }

    fn deferred(&self) -> Deferred<'_, &World, Recorder> {
        Deferred::new(self, &self.slots, &self.counters)
    }

    fn register(&self, who: u64) -> Registration {
        self.deferred().register(|recorder| recorder.who.set(who)).unwrap()
    }

    fn request(&self, who: u64, id: ClientId) -> Result<Requested, RequestError> {
        let result = self.deferred().request(id);
        if let Ok(Requested { cookie, .. }) = result {
            self.told.lock().unwrap().push((who, cookie));
        }
        result
    }

    fn process(&self) -> u32 {
        self.deferred().process(&self.tasks[0], &mut TraceCache::new([0; 1])).delivered
    }

    fn exit(&self) -> u32 {
        self.deferred().exit(&self.tasks[0], &mut TraceCache::new([0; 1])).delivered
    }

    /// The way back to user space, of the one context that goes it.
    fn leave(&self) {
        while self.deferred().return_to_user(&self.tasks[0]) == Return::Pending {
            self.process();
        }
        self.tasks[0].stack.fetch_add(1, Ordering::Relaxed);
    }

    fn cancel(&self, who: u64, registration: Registration) {
        let slot = &self.slots[0];
        self.deferred().cancel(registration).unwrap();
        slot.client().cancelled.lock().unwrap().push(who);
    }

    fn calls(&self) -> Vec<Call> {
        self.slots.iter().flat_map(|slot| slot.client().calls.lock().unwrap().clone()).collect()
    }

    /// Who was told is called once, nobody else is; a cookie has one trace, and a trace of an entry no other's
    /// cookie. Clients in `cancelled` need not have been called.
    fn check(&self, cancelled: &[u64]) {
        let (told, calls) = (self.told.lock().unwrap().clone(), self.calls());
        for told in &told {
            let mine = calls.iter().filter(|(who, cookie, _)| (*who, *cookie) == *told).count();
            assert!(mine == 1 || mine == 0 && cancelled.contains(&told.0), "{told:?} is called {mine} times");
        }
        for (who, cookie, stack) in &calls {
            assert!(told.contains(&(*who, *cookie)), "nobody asked for {who} {cookie}");
            for (_, other_cookie, other) in &calls {
                assert!(cookie != other_cookie || stack == other, "{cookie} has two traces");
            }
        }
    }
}

/// Checks every schedule of `test`; with a bound, those with so many preemptions at most.
fn model(bound: Option<usize>, test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(bound);
    builder.check(test);
}

fn world(tasks: usize, slots: usize) -> Arc<World> {
    set_up(|| Arc::new(World::new(tasks, slots)))
}

fn spawn<T: 'static>(world: &Arc<World>, run: impl FnOnce(&World) -> T + 'static) -> thread::JoinHandle<T> {
    let world = Arc::clone(world);
    thread::spawn(move || run(&world))
}

#[test]
fn request_and_request_of_one_client() {
    model(Some(5), || {
        let world = world(1, 1);
        let a = world.register(1).id();
        let other = spawn(&world, move |world| world.request(1, a).unwrap());
        let mine = world.request(1, a).unwrap();
        let other = other.join().unwrap();
        assert_eq!(mine.cookie, other.cookie);
        let standings = [mine.standing, other.standing];
        assert!(standings.contains(&Standing::Queued), "{standings:?}");
        assert_eq!(world.queued.load(Ordering::Relaxed), 1);
        world.leave();
        assert_eq!(world.calls(), [(1, mine.cookie, vec![1])]);
    });
}

#[test]
fn request_and_request_of_two_clients() {
    model(None, || {
        let world = world(1, 2);
        let [a, b] = [1, 2].map(|who| world.register(who).id());
        let other = spawn(&world, move |world| world.request(2, b).unwrap());
        let mine = world.request(1, a).unwrap();
        assert_eq!(other.join().unwrap(), mine);
        assert_eq!(world.queued.load(Ordering::Relaxed), 1);
        assert_eq!(world.process(), 2);
        assert_eq!(world.walks.load(Ordering::Relaxed), 1);
        world.leave();
        world.check(&[]);
    });
}

#[test]
fn request_and_request_that_cannot_be_queued() {
    model(Some(3), || {
        let world = set_up(|| Arc::new(World { queue_fails: true, ..World::new(1, 2) }));
        let [a, b] = [1, 2].map(|who| world.register(who).id());
        let other = spawn(&world, move |world| world.request(2, b).is_ok());
        let _ = world.request(1, a);
        other.join().unwrap();
        // Of the same client: what is told must hold for both.
        let other = spawn(&world, move |world| world.request(1, a).is_ok());
        let _ = world.request(1, a);
        other.join().unwrap();
        world.leave();
        world.check(&[]);
    });
}

#[test]
fn request_and_process() {
    model(Some(5), || {
        let world = world(1, 2);
        let [a, b] = [1, 2].map(|who| world.register(who).id());
        let first = world.request(1, a).unwrap();
        let other = spawn(&world, move |world| {
            let told = world.request(1, a).unwrap();
            assert_eq!(told.cookie, world.request(2, b).unwrap().cookie);
            told.cookie
        });
        world.process();
        assert_eq!(other.join().unwrap(), first.cookie);
        world.leave();
        world.check(&[]);
    });
}

#[test]
fn request_and_return_to_user() {
    model(Some(2), || {
        let world = world(1, 2);
        let [a, b] = [1, 2].map(|who| world.register(who).id());
        let other = spawn(&world, move |world| world.request(1, a).is_ok());
        let first = world.request(2, b).unwrap();
        world.leave();
        let second = world.request(2, b).unwrap();
        assert_ne!(first.cookie, second.cookie);
        world.leave();
        assert!(other.join().unwrap());
        world.leave();
        world.check(&[]);
        let calls = world.calls();
        for (cookie, stack) in [(first.cookie, 1), (second.cookie, 2)] {
            assert!(calls.contains(&(2, cookie, vec![stack])));
        }
    });
}

#[test]
fn request_held_up_over_two_entries() {
    model(Some(2), || {
        let world = world(1, 2);
        let [a, b] = [1, 2].map(|who| world.register(who).id());
        let other = spawn(&world, move |world| world.request(1, a).is_ok());
        for _ in 0..2 {
            let _ = world.request(2, b).unwrap();
            world.leave();
        }
        assert!(other.join().unwrap());
        world.leave();
        world.check(&[]);
    });
}

/// The cookie of an entry lies where that of the entry before last lay: one that is read late must not be taken for
/// the other. These are the two ways round.
#[test]
fn request_that_sees_a_later_entry_and_an_earlier_cookie() {
    model(Some(4), || {
        let world = world(1, 2);
        let [a, b] = [1, 2].map(|who| world.register(who).id());
        let _ = world.request(2, b).unwrap();
        world.leave();
        let _ = world.request(2, b).unwrap();
        world.process();
        // The end of this entry clears the first one's cookie away.
        let other = spawn(&world, move |world| world.request(1, a).is_ok());
        world.leave();
        let _ = world.request(1, a).unwrap();
        assert!(other.join().unwrap());
        world.leave();
        world.check(&[]);
    });
}

#[test]
fn request_that_sees_an_earlier_entry_and_a_later_cookie() {
    model(Some(2), || {
        let world = world(1, 2);
        let [a, b] = [1, 2].map(|who| world.register(who).id());
        let _ = world.request(1, a).unwrap();
        world.process();
        let other = spawn(&world, move |world| world.request(1, a).is_ok());
        world.leave();
        let _ = world.request(2, b).unwrap();
        world.leave();
        let _ = world.request(2, b).unwrap();
        assert!(other.join().unwrap());
        world.leave();
        world.check(&[]);
    });
}

#[test]
fn process_and_return_to_user() {
    // The work runs elsewhere than the way back: a trace of one entry must not go to the next.
    model(Some(3), || {
        let world = world(1, 1);
        let a = world.register(1).id();
        let first = world.request(1, a).unwrap();
        let other = spawn(&world, |world| world.process());
        world.leave();
        let second = world.request(1, a).unwrap();
        assert_ne!(first.cookie, second.cookie);
        world.leave();
        other.join().unwrap();
        world.check(&[]);
    });
}

#[test]
fn process_and_exit() {
    model(Some(4), || {
        let world = world(1, 2);
        let [a, b] = [1, 2].map(|who| world.register(who).id());
        let _ = world.request(1, a).unwrap();
        let _ = world.request(2, b).unwrap();
        let other = spawn(&world, |world| world.process());
        let mine = world.exit();
        assert_eq!(mine + other.join().unwrap(), 2);
        assert_eq!(world.request(1, a), Err(RequestError::Exiting));
        world.check(&[]);
    });
}

#[test]
fn request_and_exit() {
    model(None, || {
        let world = world(1, 2);
        let [a, b] = [1, 2].map(|who| world.register(who).id());
        let _ = world.request(1, a).unwrap();
        let other = spawn(&world, move |world| world.request(2, b));
        world.exit();
        let other = other.join().unwrap();
        assert!(matches!(other, Ok(_) | Err(RequestError::Exiting)), "{other:?}");
        // Handed over at exit, or refused: there is nothing that would call it later.
        world.check(&[]);
    });
}

#[test]
fn request_and_process_and_exit() {
    model(Some(2), || {
        let world = world(1, 2);
        let [a, b] = [1, 2].map(|who| world.register(who).id());
        let _ = world.request(1, a).unwrap();
        let request = spawn(&world, move |world| world.request(2, b).is_ok());
        let process = spawn(&world, |world| world.process());
        world.exit();
        request.join().unwrap();
        process.join().unwrap();
        world.check(&[]);
    });
}

#[test]
fn request_and_cancel() {
    model(None, || {
        let world = world(1, 1);
        let a = world.register(1);
        let id = a.id();
        let other = spawn(&world, move |world| match world.request(1, id) {
            Ok(_) | Err(RequestError::NotRegistered) => {}
            other => panic!("{other:?}"),
        });
        world.cancel(1, a);
        // The slot is another's at once, who has requested nothing yet.
        let b = world.register(2).id();
        world.leave();
        other.join().unwrap();
        world.leave();
        assert_eq!(world.request(1, id), Err(RequestError::NotRegistered));
        assert_eq!(world.calls(), []);
        let told = world.request(2, b).unwrap();
        assert_eq!(told.standing, Standing::Queued);
        world.leave();
        world.check(&[1]);
    });
}

#[test]
fn process_and_cancel() {
    model(Some(5), || {
        let world = world(1, 1);
        let a = world.register(1);
        let _ = world.request(1, a.id()).unwrap();
        let other = spawn(&world, |world| world.process());
        world.cancel(1, a);
        // In the same entry, at the same place of the word.
        let b = world.register(2).id();
        let told = world.request(2, b).unwrap();
        assert_eq!(told.standing, Standing::Queued);
        other.join().unwrap();
        world.leave();
        world.check(&[1]);
    });
}

#[test]
fn exit_and_cancel() {
    model(Some(5), || {
        let world = world(1, 1);
        let a = world.register(1);
        let _ = world.request(1, a.id()).unwrap();
        let other = spawn(&world, |world| world.exit());
        world.cancel(1, a);
        let b = world.register(2).id();
        let _ = world.request(2, b);
        other.join().unwrap();
        world.check(&[1]);
    });
}

#[test]
fn request_and_process_and_cancel() {
    model(Some(2), || {
        let world = world(1, 1);
        let a = world.register(1);
        let id = a.id();
        let request = spawn(&world, move |world| world.request(1, id).is_ok());
        let process = spawn(&world, |world| world.process());
        world.cancel(1, a);
        let b = world.register(2).id();
        let _ = world.request(2, b).unwrap();
        request.join().unwrap();
        process.join().unwrap();
        world.leave();
        world.check(&[1]);
    });
}

#[test]
fn request_and_register() {
    model(None, || {
        let world = world(1, 1);
        let published: Arc<Mutex<Option<ClientId>>> = Arc::default();
        // Says that it is there, and orders nothing.
        let is_published = Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let (seen, is_seen) = (Arc::clone(&published), Arc::clone(&is_published));
        let other = spawn(&world, move |world| {
            if is_seen.load(Ordering::Relaxed) {
                let id = seen.lock().unwrap().unwrap();
                // It may not see it yet; but if it does, it sees all of it.
                if world.request(7, id).is_ok() {
                    assert_eq!(world.process(), 1);
                }
            }
        });
        let id = world.register(7).id();
        *published.lock().unwrap() = Some(id);
        is_published.store(true, Ordering::Relaxed);
        other.join().unwrap();
        world.leave();
        world.check(&[]);
    });
}

#[test]
fn register_and_register() {
    model(None, || {
        let world = world(1, 2);
        let other = spawn(&world, |world| world.register(1));
        let mine = world.register(2);
        let other = other.join().unwrap();
        assert_ne!(mine.id(), other.id());
        let _ = world.request(1, other.id()).unwrap();
        let _ = world.request(2, mine.id()).unwrap();
        world.leave();
        world.check(&[]);
    });
}

#[test]
fn a_counter_that_wraps() {
    model(None, || {
        let counters = || vec![CpuCounter::after((1 << 48) - 2)];
        let world = set_up(|| Arc::new(World { counters: counters(), ..World::new(2, 1) }));
        let a = world.register(1).id();
        let other =
            spawn(&world, move |world| world.deferred().request_for(&world.tasks[1], a).unwrap().cookie);
        let mine = world.deferred().request_for(&world.tasks[0], a).unwrap().cookie;
        let mut counts = [mine, other.join().unwrap()].map(Cookie::get);
        counts.sort();
        assert_eq!(counts, [1 << 48, (1 << 48) | 0xffff_ffff_ffff]);
    });
}
