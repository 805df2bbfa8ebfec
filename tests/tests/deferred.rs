//! Deferred unwinding, one operation after the other.

mod deferred_world;

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use deferred_world::{Machine, Task};
use unwind_core::deferred::{
    self, ClientId, ClientSlot, Cookie, CpuCounter, Deferred, Embedder, MAX_CLIENTS, NotQueued, Processed,
    RequestError, Return, Standing, TaskState, Trace, TraceCache,
};
use unwind_core::{End, Mark, StartError, Trust, UnwindStacktrace};

fn machine() -> Machine {
    Machine::new(2, 2, 3, || {})
}

/// What a call did, and nothing else.
fn processed(delivered: u32, walks: u32, cancelled: u32) -> Processed {
    let mut processed = Processed::default();
    (processed.delivered, processed.walks, processed.cancelled) = (delivered, walks, cancelled);
    processed
}

#[test]
fn clients_of_one_entry_share_cookie_and_walk() {
    let machine = machine();
    let [a, b] = [1, 2].map(|who| machine.register(who).unwrap());
    let first = machine.request(1, a.id()).unwrap();
    assert_eq!(first.standing, Standing::Queued);
    let again = machine.request(1, a.id()).unwrap();
    assert_eq!((again.cookie, again.standing), (first.cookie, Standing::AlreadyQueued));
    assert_eq!(machine.request(2, b.id()), Ok(first));
    let task = &machine.tasks[0];
    assert!(task.is_queued.get());
    assert_eq!(machine.deferred().return_to_user(task), Return::Pending);
    assert_eq!(machine.process(task), processed(2, 1, 0));
    let late = machine.request(1, a.id()).unwrap();
    assert_eq!((late.cookie, late.standing), (first.cookie, Standing::AlreadyServed));
    assert!(!task.is_queued.get(), "nothing is to be done for it");
    machine.leave(task);
    assert_ne!(machine.request(1, a.id()).unwrap().cookie, first.cookie);
    machine.leave(task);
    machine.check(&[], &"");
    assert_eq!(machine.walks.get(), 2);
}

#[test]
fn who_comes_after_the_walk_shares_it_through_the_cache() {
    let machine = machine();
    let [a, b] = [1, 2].map(|who| machine.register(who).unwrap());
    let task = &machine.tasks[0];
    machine.request(1, a.id()).unwrap();
    machine.process(task);
    assert_eq!(machine.request(2, b.id()).unwrap().standing, Standing::Queued);
    assert_eq!(machine.process(task), processed(1, 0, 0));
    machine.leave(task);
    machine.check(&[], &"");
}

#[test]
fn a_walk_that_fails_gives_an_empty_trace_and_is_tried_again_for_others() {
    let machine = machine();
    let [a, b, c] = [1, 2, 3].map(|who| machine.register(who).unwrap());
    let task = &machine.tasks[0];
    machine.walk_fails.set(true);
    machine.request(1, a.id()).unwrap();
    machine.request(2, b.id()).unwrap();
    assert_eq!(machine.process(task), processed(2, 1, 0));
    machine.check(&[], &"");
    machine.walk_fails.set(false);
    machine.request(3, c.id()).unwrap();
    assert_eq!(machine.process(task), processed(1, 1, 0));
    assert_eq!(machine.calls()[2].entries, [0, 1]);
}

#[test]
fn a_cache_serves_several_tasks() {
    let machine = machine();
    let a = machine.register(1).unwrap();
    let mut cache = TraceCache::new(vec![0; 8]);
    for round in 0..4 {
        let task = &machine.tasks[round % 2];
        machine.current.set(Some(task.number));
        machine.request(1, a.id()).unwrap();
        task.is_queued.set(false);
        assert_eq!(machine.deferred().process(task, &mut cache).walks, 1);
        machine.leave(task);
    }
    machine.check(&[], &"");
}

#[test]
fn no_room_for_entries_is_an_empty_trace() {
    let machine = machine();
    let seen = AtomicU64::new(0);
    let client = |_: &Task, _: Cookie, trace: &Trace<'_>| {
        seen.fetch_add(1 + trace.entries.len() as u64, Ordering::Relaxed);
    };
    let slots = [ClientSlot::new(client)];
    let embedder = Short(&machine);
    let deferred = Deferred::new(&embedder, &slots, &machine.counters);
    let a = deferred.register(|_| {}).unwrap();
    let task = &machine.tasks[0];
    deferred.request(a.id()).unwrap();
    deferred.process(task, &mut TraceCache::new([]));
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}

/// Says that it has found more than there is room for: it must not be believed.
struct Short<'m>(&'m Machine);

impl Embedder for Short<'_> {
    type Task = Task;

    fn current_task(&self) -> Option<&Task> {
        self.0.current_task()
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

    fn queue_work(&self, task: &Task) -> Result<(), NotQueued> {
        self.0.queue_work(task)
    }

    fn walk(&self, _: &Task, _: &mut [u64]) -> Result<UnwindStacktrace, StartError> {
        let end = End::Complete(Mark::UndefinedReturnAddress);
        Ok(UnwindStacktrace::new(7, end, Trust::Exact))
    }

    fn for_each_task(&self, visit: &mut dyn FnMut(&Task)) {
        self.0.for_each_task(visit);
    }
}

#[test]
fn an_exiting_task_hands_over_and_then_refuses() {
    let machine = machine();
    let [a, b] = [1, 2].map(|who| machine.register(who).unwrap());
    machine.request(1, a.id()).unwrap();
    assert_eq!(machine.exit(&machine.tasks[0]).delivered, 1);
    for (who, id) in [(1, a.id()), (2, b.id())] {
        assert_eq!(machine.request(who, id), Err(RequestError::Exiting));
    }
    assert_eq!(machine.exit(&machine.tasks[0]), Processed::default());
    machine.check(&[], &"");
}

#[test]
fn what_cannot_be_is_refused() {
    let machine = machine();
    let a = machine.register(1).unwrap();
    machine.current.set(None);
    assert_eq!(machine.request(1, a.id()), Err(RequestError::NoUser));
    machine.current.set(Some(0));
    machine.is_nmi_safe.set(false);
    machine.is_nmi.set(true);
    assert_eq!(machine.request(1, a.id()), Err(RequestError::NotNmiSafe));
    machine.is_nmi.set(false);
    machine.cpu.set(2);
    assert_eq!(machine.request(1, a.id()), Err(RequestError::NoCounter { cpu: 2 }));
    machine.cpu.set(1);
    machine.queue_fails.set(true);
    assert_eq!(machine.request(1, a.id()), Err(RequestError::NotQueued));
    machine.queue_fails.set(false);
    assert_eq!(machine.calls(), []);
    assert!(!machine.tasks[0].state.is_pending());
    assert_eq!(machine.request(1, a.id()).unwrap().standing, Standing::Queued);
    machine.leave(&machine.tasks[0]);
    machine.check(&[], &"");
}

#[test]
fn cookies_tell_cpus_apart_and_entries() {
    let machine = machine();
    let a = machine.register(1).unwrap();
    let mut cookies = Vec::new();
    for round in 0..6 {
        machine.current.set(Some(round % 2));
        machine.cpu.set(round as u32 / 2 % 2);
        cookies.push(machine.request(1, a.id()).unwrap().cookie.get());
        machine.leave(&machine.tasks[round % 2]);
    }
    let (one, two) = (1 << 48, 2 << 48);
    assert_eq!(cookies, [one | 1, one | 2, two | 1, two | 2, one | 3, one | 4]);
}

#[test]
fn there_are_as_many_clients_as_the_mask_has_room_for() {
    let machine = Machine::new(1, 1, MAX_CLIENTS + 3, || {});
    let mut clients: Vec<_> =
        (0..MAX_CLIENTS as u64).map(|who| (who, machine.register(who).unwrap())).collect();
    assert!(machine.register(99).is_err());
    for (who, client) in &clients {
        machine.request(*who, client.id()).unwrap();
    }
    assert_eq!(machine.process(&machine.tasks[0]).delivered, MAX_CLIENTS as u32);
    machine.leave(&machine.tasks[0]);
    let (_, client) = clients.swap_remove(7);
    machine.deferred().cancel(client).unwrap();
    assert!(machine.register(99).is_ok());
    machine.check(&[], &"");
}

#[test]
fn a_cancelled_client_is_not_called_and_its_slot_is_another_s() {
    let machine = machine();
    let [a, b] = [1, 2].map(|who| machine.register(who).unwrap());
    let old = a.id();
    machine.request(1, old).unwrap();
    let told = machine.request(2, b.id()).unwrap();
    machine.deferred().cancel(a).unwrap();
    let c = machine.register(3).unwrap();
    assert_eq!(machine.request(1, old), Err(RequestError::NotRegistered));
    // In the same entry, under the same cookie; but its own request.
    assert_eq!(machine.request(3, c.id()), Ok(told));
    machine.leave(&machine.tasks[0]);
    assert_eq!(machine.calls().iter().map(|call| call.who).collect::<Vec<_>>(), [3, 2]);
    machine.check(&[1], &"");
}

#[test]
fn a_cookie_is_not_used_again_where_its_only_client_was_cancelled() {
    let machine = machine();
    let [a, b] = [1, 2].map(|who| machine.register(who).unwrap());
    let first = machine.request(1, a.id()).unwrap();
    machine.deferred().cancel(a).unwrap();
    machine.leave(&machine.tasks[0]);
    assert_ne!(machine.request(2, b.id()).unwrap().cookie, first.cookie);
    machine.leave(&machine.tasks[0]);
    machine.check(&[1], &"");
}

#[test]
fn a_registration_of_elsewhere_is_given_back() {
    let (here, there) = (machine(), Machine::new(1, 1, 0, || {}));
    let a = here.register(1).unwrap();
    let a = there.deferred().cancel(a).unwrap_err();
    assert!(here.deferred().cancel(a).is_ok());
}

thread_local! {
    static LATE: Cell<Option<(&'static Machine, ClientId)>> = const { Cell::new(None) };
}

#[test]
fn a_call_may_request() {
    // Whenever client 1 is called, client 2 requests.
    let machine = Box::leak(Box::new(Machine::new(1, 1, 2, || {
        let Some((machine, late)) = LATE.get() else { return };
        if machine.calls().len() == 1 {
            LATE.set(None);
            assert_eq!(machine.request(2, late).unwrap().standing, Standing::Queued);
        }
    })));
    let [a, b] = [1, 2].map(|who| machine.register(who).unwrap());
    LATE.set(Some((machine, b.id())));
    machine.request(1, a.id()).unwrap();
    let task = &machine.tasks[0];
    assert_eq!(machine.process(task), processed(2, 1, 0));
    assert_eq!(machine.deferred().return_to_user(task), Return::Pending, "its work is still queued");
    machine.leave(task);
    machine.check(&[], &"");
}

#[test]
fn sizes() {
    assert_eq!(size_of::<TaskState>(), 24);
    assert_eq!(size_of::<ClientSlot<()>>(), 8);
    assert_eq!(size_of::<CpuCounter>(), 8);
    assert_eq!(size_of::<Option<Cookie>>(), 8);
    let page = size_of::<TraceCache<[u64; 500]>>();
    assert!(page <= 4096, "{page}");
}

#[test]
fn entries_are_told_apart_when_their_number_wraps() {
    let machine = machine();
    let a = machine.register(1).unwrap();
    let task = &machine.tasks[0];
    let mut cookies = Vec::new();
    for entry in 0..(1u32 << 21) + 5 {
        let told = machine.deferred().request(a.id()).unwrap();
        assert_eq!(told.standing, Standing::Queued);
        assert!(cookies.last() < Some(&told.cookie));
        cookies.push(told.cookie);
        machine.process(task);
        let call = machine.slots[0].client().calls.borrow_mut().pop().unwrap();
        assert_eq!((call.cookie, call.entries[1]), (told.cookie, u64::from(entry) + 1));
        assert_eq!(machine.deferred().return_to_user(task), Return::Ready);
        task.stack.set(task.stack.get() + 1);
    }
}
