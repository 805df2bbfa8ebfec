//! An interrupt that requests, before every access to an atomic word of every operation, and before every access
//! of that interrupt another one; also wherever the embedder or a client is called. It cannot wait for what it
//! has interrupted: that an operation ends at all is a part of the test.
//!
//! The module is compiled here a second time, over words that let the interrupt in.

#[allow(dead_code, unreachable_pub, unused_imports, reason = "the library's, of which a part is tested here")]
#[path = "../../unwind-core/src/deferred/mod.rs"]
mod deferred;
mod deferred_world;

use std::cell::RefCell;
use std::fmt::Debug;
use std::rc::Rc;

use deferred::{ClientId, Registration, RequestError, Requested};
use deferred_world::Machine;
// What the module takes from the rest of its crate.
use unwind_core::{StartError, UnwindStacktrace};

/// Words that let an interrupt in before every access.
mod atomics {
    pub(crate) use std::sync::atomic::Ordering;

    use super::access;

    #[derive(Debug, Default)]
    pub(crate) struct AtomicU64(std::sync::atomic::AtomicU64);

    impl AtomicU64 {
        pub(crate) const fn new(value: u64) -> Self {
            AtomicU64(std::sync::atomic::AtomicU64::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> u64 {
            access();
            self.0.load(order)
        }

        pub(crate) fn compare_exchange(
            &self,
            from: u64,
            to: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            access();
            self.0.compare_exchange(from, to, success, failure)
        }

        pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
            access();
            self.0.fetch_add(value, order)
        }

        pub(crate) fn fetch_sub(&self, value: u64, order: Ordering) -> u64 {
            access();
            self.0.fetch_sub(value, order)
        }

        pub(crate) fn fetch_and(&self, value: u64, order: Ordering) -> u64 {
            access();
            self.0.fetch_and(value, order)
        }

        pub(crate) fn fetch_or(&self, value: u64, order: Ordering) -> u64 {
            access();
            self.0.fetch_or(value, order)
        }
    }
}

thread_local! {
    static INTERRUPTS: RefCell<Interrupts> = RefCell::default();
}

/// When an interrupt comes, and what it does.
#[derive(Default)]
struct Interrupts {
    handler: Option<Rc<dyn Fn()>>,
    /// How deep in interrupts we are, and how many accesses each depth has made so far.
    depth: usize,
    accesses: [usize; 3],
    /// The accesses before which one comes: two in what is interrupted, one in the first of these.
    at: [Vec<usize>; 2],
}

/// An access to an atomic word, or a place as good as one.
fn access() {
    let handler = INTERRUPTS.with_borrow_mut(|interrupts| {
        let depth = interrupts.depth;
        let access = interrupts.accesses[depth];
        interrupts.accesses[depth] += 1;
        let comes = interrupts.at.get(depth).is_some_and(|at| at.contains(&access));
        let handler = interrupts.handler.clone().filter(|_| comes)?;
        interrupts.depth += 1;
        Some(handler)
    });
    if let Some(handler) = handler {
        handler();
        INTERRUPTS.with_borrow_mut(|interrupts| interrupts.depth -= 1);
    }
}

/// Runs `operation` with interrupts at these accesses: how many accesses each depth has made.
fn interrupted(at: [Vec<usize>; 2], handler: Rc<dyn Fn()>, operation: impl FnOnce()) -> [usize; 3] {
    INTERRUPTS.set(Interrupts { handler: Some(handler), at, ..Interrupts::default() });
    operation();
    INTERRUPTS.take().accesses
}

/// What is interrupted.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Operation {
    Request,
    RequestWhoseQueueFails,
    Process,
    Leave,
    Exit,
    Register,
    Cancel,
}

const OPERATIONS: [Operation; 7] = [
    Operation::Request,
    Operation::RequestWhoseQueueFails,
    Operation::Process,
    Operation::Leave,
    Operation::Exit,
    Operation::Register,
    Operation::Cancel,
];

/// What has happened in the entry before.
#[derive(Clone, Copy, Debug)]
enum Before {
    Nothing,
    Requested(&'static [u64]),
    Served(&'static [u64]),
    /// Client 1 was called, client 2 has requested since.
    Both,
    WalkFails,
}

const BEFORE: [Before; 7] = [
    Before::Nothing,
    Before::Requested(&[1]),
    Before::Requested(&[2]),
    Before::Requested(&[1, 2]),
    Before::Served(&[1]),
    Before::Both,
    Before::WalkFails,
];

/// The clients that an interrupt requests for.
const WANTED: [&[u64]; 4] = [&[1], &[2], &[1, 2], &[2, 1, 2]];

struct Scene {
    machine: Machine,
    ids: [ClientId; 2],
}

impl Scene {
    fn request(&self, who: u64) -> Result<Requested, RequestError> {
        self.machine.request(who, self.ids[who as usize - 1])
    }
}

/// One run of one case: how many accesses there were at each depth.
fn run(operation: Operation, before: Before, wanted: &'static [u64], at: [Vec<usize>; 2]) -> [usize; 3] {
    let machine = Machine::new(1, 1, 3, access);
    let [first, second]: [Registration; 2] = [1, 2].map(|who| machine.register(who).unwrap());
    let ids = [first.id(), second.id()];
    let scene = Rc::new(Scene { machine, ids });
    let machine = &scene.machine;
    let task = &machine.tasks[0];
    machine.walk_fails.set(matches!(before, Before::WalkFails));
    match before {
        Before::Nothing => {}
        Before::WalkFails => assert!(scene.request(1).is_ok()),
        Before::Requested(clients) => clients.iter().for_each(|who| assert!(scene.request(*who).is_ok())),
        Before::Served(clients) => {
            clients.iter().for_each(|who| assert!(scene.request(*who).is_ok()));
            machine.process(task);
        }
        Before::Both => {
            scene.request(1).unwrap();
            machine.process(task);
            scene.request(2).unwrap();
        }
    }
    let context: (_, _, _, &dyn Debug) = (operation, before, wanted, &at.clone());
    let nmi = Rc::clone(&scene);
    let handler = Rc::new(move || {
        let queue_fails = nmi.machine.queue_fails.replace(false);
        let is_nmi = nmi.machine.is_nmi.replace(true);
        for who in wanted {
            match nmi.request(*who) {
                Ok(_) => {}
                Err(RequestError::Exiting) => assert_eq!(operation, Operation::Exit),
                Err(RequestError::NotRegistered) => assert_eq!((operation, *who), (Operation::Cancel, 1)),
                Err(other) => panic!("{other:?}"),
            }
        }
        nmi.machine.is_nmi.set(is_nmi);
        nmi.machine.queue_fails.set(queue_fails);
    });
    let mut cancelled: &[u64] = &[];
    let accesses = interrupted(at, handler, || match operation {
        Operation::Request => assert!(scene.request(1).is_ok()),
        Operation::RequestWhoseQueueFails => {
            machine.queue_fails.set(true);
            let result = scene.request(1);
            assert!(matches!(result, Ok(_) | Err(RequestError::NotQueued)), "{result:?}");
            machine.queue_fails.set(false);
        }
        Operation::Process => assert!(machine.process(task).walks < 2),
        Operation::Leave => machine.leave(task),
        Operation::Exit => assert!(machine.exit(task).walks < 2),
        Operation::Register => assert!(machine.register(3).is_ok()),
        Operation::Cancel => {
            cancelled = &[1];
            machine.deferred().cancel(first).unwrap();
        }
    });
    let calls_of_cancelled = calls(machine, cancelled);
    if operation != Operation::Exit {
        machine.leave(task);
        let result = scene.request(1);
        assert_eq!(result.is_ok(), operation != Operation::Cancel, "{result:?}: {context:?}");
        if operation == Operation::Cancel {
            // The next one has the same slot, and is called for itself alone.
            let third = machine.register(3).unwrap();
            machine.request(3, third.id()).unwrap();
        }
        machine.leave(task);
    }
    assert!(!task.state.is_pending(), "{context:?}");
    assert_eq!(calls(machine, cancelled), calls_of_cancelled, "{context:?}");
    machine.check(cancelled, &context);
    accesses
}

fn calls(machine: &Machine, of: &[u64]) -> usize {
    machine.calls().iter().filter(|call| of.contains(&call.who)).count()
}

#[test]
fn an_interrupt_at_every_access() {
    let mut runs = 0;
    for operation in OPERATIONS {
        for before in BEFORE {
            for wanted in WANTED {
                let [accesses, ..] = run(operation, before, wanted, [vec![], vec![]]);
                assert!(accesses > 0, "nothing is counted");
                for first in 0..accesses {
                    let [more, nested, _] = run(operation, before, wanted, [vec![first], vec![]]);
                    assert!(nested > 0, "no interrupt came");
                    // In the interrupt another one,
                    for second in 0..nested {
                        let [_, _, innermost] = run(operation, before, wanted, [vec![first], vec![second]]);
                        assert!(innermost > 0, "no nested interrupt came");
                        runs += 1;
                    }
                    // or behind it.
                    for second in first + 1..more {
                        run(operation, before, wanted, [vec![first, second], vec![]]);
                        runs += 1;
                    }
                }
            }
        }
    }
    assert!(runs > 10_000, "{runs}");
}
