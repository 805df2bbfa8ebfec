//! Random histories of entries, requests, NMIs, exits, cancels and registrations over several tasks and CPUs,
//! against a simple sequential model; and random records against a simple stitcher.

#[allow(dead_code, reason = "other tests use all of it")]
mod deferred_world;

use std::collections::BTreeMap;

use deferred_world::Machine;
use proptest::prelude::*;
use unwind_core::deferred::{
    self, Cookie, Missing, Processed, Registration, RequestError, Return, Standing, Stitched, Stitcher,
};

const TASKS: usize = 3;
const CPUS: u32 = 2;
const SLOTS: usize = 3;

#[derive(Clone, Debug)]
enum Event {
    /// A CPU runs this task from now on.
    Switch {
        task: usize,
        cpu: u32,
    },
    /// A request by the client that was registered in this turn, counted modulo all there were.
    Request {
        client: usize,
        in_nmi: bool,
    },
    /// The queued work runs, or work that was not queued.
    Process,
    /// The return to user space is tried once.
    TryToReturn,
    /// The whole way back.
    Leave,
    Exit,
    Register,
    Cancel {
        client: usize,
    },
    QueueFails(bool),
    WalkFails(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..TASKS, 0..CPUS).prop_map(|(task, cpu)| Event::Switch { task, cpu }),
        8 => (0..8usize, any::<bool>()).prop_map(|(client, in_nmi)| Event::Request { client, in_nmi }),
        3 => Just(Event::Process),
        2 => Just(Event::TryToReturn),
        3 => Just(Event::Leave),
        1 => prop::bool::weighted(0.2).prop_map(|exits| if exits { Event::Exit } else { Event::Leave }),
        2 => Just(Event::Register),
        1 => (0..8usize).prop_map(|client| Event::Cancel { client }),
        1 => prop::bool::weighted(0.3).prop_map(Event::QueueFails),
        1 => prop::bool::weighted(0.3).prop_map(Event::WalkFails),
    ]
}

/// The model: everything is said in words of the specification, with maps.
#[derive(Default)]
struct Model {
    tasks: [ModelTask; TASKS],
    /// The clients that are registered, by who they are, and their slot.
    clients: BTreeMap<u64, usize>,
    counts: [u64; CPUS as usize],
    calls: Vec<(u64, usize, Cookie, Vec<u64>)>,
}

#[derive(Default)]
struct ModelTask {
    cookie: Option<Cookie>,
    /// Who has requested in this entry, and whether it was called.
    requested: BTreeMap<u64, bool>,
    /// Whether work is queued, or was and has not run.
    has_work: bool,
    /// Whether the cache has the trace of this entry.
    is_cached: bool,
    has_exited: bool,
    stack: u64,
}

impl Model {
    fn request(
        &mut self,
        task: usize,
        cpu: u32,
        who: u64,
        queue_fails: bool,
    ) -> Result<(Cookie, Standing), RequestError> {
        let state = &mut self.tasks[task];
        if !self.clients.contains_key(&who) {
            return Err(RequestError::NotRegistered);
        }
        if state.has_exited {
            return Err(RequestError::Exiting);
        }
        let cookie = *state.cookie.get_or_insert_with(|| {
            self.counts[cpu as usize] += 1;
            Cookie::from_u64((u64::from(cpu) + 1) << 48 | self.counts[cpu as usize]).unwrap()
        });
        let standing = match state.requested.get(&who) {
            Some(false) => Standing::AlreadyQueued,
            Some(true) => Standing::AlreadyServed,
            None => {
                if !state.has_work && queue_fails {
                    return Err(RequestError::NotQueued);
                }
                state.has_work = true;
                state.requested.insert(who, false);
                Standing::Queued
            }
        };
        Ok((cookie, standing))
    }

    fn process(&mut self, task: usize, walk_fails: bool) -> Processed {
        let state = &mut self.tasks[task];
        state.has_work = false;
        let mut processed = Processed::default();
        // In the order of their slots.
        let mut waiting: Vec<_> =
            state.requested.iter().filter(|(_, served)| !**served).map(|(who, _)| *who).collect();
        waiting.sort_by_key(|who| self.clients[who]);
        for who in waiting {
            if !state.is_cached && processed.walks == 0 {
                processed.walks = 1;
                state.is_cached = !walk_fails;
            }
            let entries = if state.is_cached { vec![task as u64, state.stack + 1] } else { vec![] };
            self.calls.push((who, task, state.cookie.unwrap(), entries));
            state.requested.insert(who, true);
            processed.delivered += 1;
        }
        processed
    }

    fn try_to_return(&mut self, task: usize) -> Return {
        let state = &mut self.tasks[task];
        if state.has_work || state.requested.values().any(|served| !served) {
            return Return::Pending;
        }
        state.cookie = None;
        state.requested.clear();
        state.is_cached = false;
        Return::Ready
    }

    fn cancel(&mut self, who: u64) {
        self.clients.remove(&who);
        for task in &mut self.tasks {
            task.requested.remove(&who);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3000) })]

    #[test]
    fn as_the_model_says(events in prop::collection::vec(event(), 1..120)) {
        let machine = Machine::new(TASKS, CPUS as usize, SLOTS, || {});
        let mut model = Model::default();
        let mut registrations: BTreeMap<u64, Registration> = BTreeMap::new();
        // Of all there ever were: cancelled ones go on requesting.
        let mut ids = Vec::new();
        let mut cancelled = Vec::new();
        let (mut task, mut cpu) = (0, 0);
        for event in events {
            let queue_fails = machine.queue_fails.get();
            let walk_fails = machine.walk_fails.get();
            match event {
                Event::Switch { task: next, cpu: on } => {
                    (task, cpu) = (next, on);
                    machine.current.set(Some(task));
                    machine.cpu.set(cpu);
                }
                Event::Request { client, in_nmi } => {
                    let Some((who, id)) = ids.get(client % ids.len().max(1)).copied() else { continue };
                    machine.is_nmi.set(in_nmi);
                    let expected = model.request(task, cpu, who, queue_fails);
                    let told = machine.request(who, id).map(|told| (told.cookie, told.standing));
                    prop_assert_eq!(told, expected);
                    machine.is_nmi.set(false);
                }
                Event::Process => {
                    let expected = model.process(task, walk_fails);
                    prop_assert_eq!(machine.process(&machine.tasks[task]), expected);
                }
                Event::TryToReturn => {
                    let expected = model.try_to_return(task);
                    let result = machine.deferred().return_to_user(&machine.tasks[task]);
                    prop_assert_eq!(result, expected);
                    if result == Return::Ready {
                        machine.tasks[task].stack.set(machine.tasks[task].stack.get() + 1);
                        model.tasks[task].stack += 1;
                    }
                }
                Event::Leave => {
                    machine.leave(&machine.tasks[task]);
                    while model.try_to_return(task) == Return::Pending {
                        model.process(task, walk_fails);
                    }
                    model.tasks[task].stack += 1;
                }
                Event::Exit => {
                    model.tasks[task].has_exited = true;
                    let expected = model.process(task, walk_fails);
                    prop_assert_eq!(machine.exit(&machine.tasks[task]), expected);
                }
                Event::Register => {
                    let who = ids.len() as u64 + 1;
                    let slot = (0..SLOTS).find(|slot| !model.clients.values().any(|taken| taken == slot));
                    let registration = machine.register(who);
                    prop_assert_eq!(registration.is_ok(), slot.is_some());
                    if let (Ok(registration), Some(slot)) = (registration, slot) {
                        ids.push((who, registration.id()));
                        registrations.insert(who, registration);
                        model.clients.insert(who, slot);
                    }
                }
                Event::Cancel { client } => {
                    let Some((who, _)) = ids.get(client % ids.len().max(1)).copied() else { continue };
                    let Some(registration) = registrations.remove(&who) else { continue };
                    prop_assert!(machine.deferred().cancel(registration).is_ok());
                    model.cancel(who);
                    cancelled.push(who);
                }
                Event::QueueFails(fails) => machine.queue_fails.set(fails),
                Event::WalkFails(fails) => machine.walk_fails.set(fails),
            }
        }
        machine.walk_fails.set(false);
        for (number, task) in machine.tasks.iter().enumerate() {
            machine.leave(task);
            while model.try_to_return(number) == Return::Pending {
                model.process(number, false);
            }
        }
        let mut calls: Vec<_> =
            machine.calls().into_iter().map(|call| (call.who, call.task, call.cookie, call.entries)).collect();
        calls.sort();
        model.calls.sort();
        prop_assert_eq!(&calls, &model.calls);
        // And what is promised, whatever the model says.
        for told in machine.told.borrow().iter() {
            let count = calls.iter().filter(|(who, _, cookie, _)| (*who, *cookie) == (told.who, told.cookie)).count();
            prop_assert!(count == 1 || count == 0 && cancelled.contains(&told.who), "{:?}: {}", told, count);
        }
    }
}

/// A record of one task, and whether it is lost on the way.
#[derive(Clone, Debug)]
struct Record {
    cookie: Cookie,
    /// The kernel's part, numbered; or the user's.
    kernel: Option<u32>,
}

/// Entries of so many kernel parts before and after a user part, if there is one; and which records are lost.
fn records() -> impl Strategy<Value = Vec<(Record, bool)>> {
    let entry = (0..5usize, 0..3usize, prop::bool::weighted(0.8));
    let entries = prop::collection::vec(entry, 0..12);
    (entries, prop::collection::vec(prop::bool::weighted(0.15), 100)).prop_map(|(entries, losses)| {
        let mut records = Vec::new();
        let mut number = 0;
        for (at, (before, after, has_user)) in entries.into_iter().enumerate() {
            let cookie = Cookie::from_u64(at as u64 + 1).unwrap();
            let kernels = (before, if has_user { after } else { 0 });
            for _ in 0..kernels.0 {
                number += 1;
                records.push(Record { cookie, kernel: Some(number) });
            }
            if has_user {
                records.push(Record { cookie, kernel: None });
            }
            for _ in 0..kernels.1 {
                number += 1;
                records.push(Record { cookie, kernel: Some(number) });
            }
        }
        records.into_iter().zip(losses).collect()
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Out {
    Whole(u32, u64),
    Alone(u32, u64),
    User(u64),
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    /// Every part comes out once: joined where both of one cookie arrived and there was room, alone otherwise.
    #[test]
    fn parts_are_joined(records in records(), room in 0..6usize) {
        let mut slots = vec![None; room];
        let mut stitcher = Stitcher::new(&mut slots);
        let (mut found, mut reasons) = (Vec::new(), Vec::new());
        let mut out = |stitched: Stitched<'_, u32, u64>| match stitched {
            Stitched::Whole { cookie, kernel, user } => {
                assert_eq!(cookie.get(), *user);
                found.push(Out::Whole(kernel, *user));
            }
            Stitched::KernelOnly { cookie, kernel, why } => {
                found.push(Out::Alone(kernel, cookie.get()));
                reasons.push((cookie, why));
            }
            Stitched::UserOnly { cookie, user } => {
                assert_eq!(cookie.get(), user);
                found.push(Out::User(user));
            }
        };
        let mut has_losses = false;
        for (Record { cookie, kernel }, is_lost) in &records {
            if *is_lost {
                has_losses = true;
                stitcher.lost();
                continue;
            }
            match kernel {
                Some(kernel) => stitcher.kernel(*cookie, *kernel, &mut out),
                None => stitcher.user(*cookie, cookie.get(), &mut out),
            }
            prop_assert!(stitcher.waiting() <= room);
        }
        stitcher.finish(&mut out);
        let arrived: Vec<_> = records.iter().filter(|(_, is_lost)| !is_lost).map(|(record, _)| record).collect();
        let mut expected = Vec::new();
        for (at, record) in arrived.iter().enumerate() {
            let of_entry = |other: &&&Record| other.cookie == record.cookie;
            let user = arrived.iter().position(|other| other.cookie == record.cookie && other.kernel.is_none());
            match (record.kernel, user) {
                (Some(kernel), Some(user)) => {
                    // Those before the user part wait, as many as there is room for.
                    let before = arrived[..at].iter().filter(of_entry).count();
                    let fits = at > user || before < room;
                    let cookie = record.cookie.get();
                    expected.push(if fits { Out::Whole(kernel, cookie) } else { Out::Alone(kernel, cookie) });
                }
                (Some(kernel), None) => expected.push(Out::Alone(kernel, record.cookie.get())),
                (None, _) => {
                    let before = arrived[..at].iter().filter(of_entry).count();
                    let after = arrived[at + 1..].iter().filter(of_entry).count();
                    if before.min(room) + after == 0 {
                        expected.push(Out::User(record.cookie.get()));
                    }
                }
            }
        }
        found.sort();
        expected.sort();
        prop_assert_eq!(found, expected);
        // Reasons: what ended with the records, what had no room, and, where nothing was lost, never came.
        let last = arrived.last().map(|record| record.cookie);
        for (cookie, why) in reasons {
            match why {
                Missing::End => prop_assert_eq!(Some(cookie), last),
                Missing::Lost => prop_assert!(has_losses),
                Missing::NeverCame => {
                    let lost = records.iter().any(|(record, is_lost)| *is_lost && record.cookie == cookie && record.kernel.is_none());
                    prop_assert!(!lost, "it was lost");
                }
                Missing::NoRoom => prop_assert!(arrived.iter().filter(|record| record.cookie == cookie).count() > room),
                why => prop_assert!(false, "{why:?} is not known here"),
            }
        }
    }
}
