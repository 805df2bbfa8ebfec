//! What a request of a deferred user trace costs: what a sampler pays in its NMI.
//!
//! `cargo bench -p unwind-tests --bench deferred` prints the time of each path and, where valgrind is installed, its
//! instructions: those of a long run less those of a short one, divided by how many rounds more it makes, less the
//! same of the path that it is compared with. To see by hand where they go:
//!
//! `valgrind --tool=callgrind target/release/deps/deferred-… PATH ROUNDS`
//!
//! Every round of every path but `already-queued` and `return` has a task of its own, in its first entry.

use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use unwind_core::deferred::{
    ClientSlot, Cookie, CpuCounter, Deferred, Embedder, NotQueued, Return, TaskState, Trace, TraceCache,
};
use unwind_core::{End, Mark, StartError, Trust, UnwindStacktrace};

/// A path, what it is compared with, and what the difference is.
const PATHS: [(&str, &str, &str); 5] = [
    ("already-queued", "loop", "request of a client that has requested in this entry"),
    ("first", "task", "first request of an entry: makes the cookie, queues the work"),
    ("second", "first", "request of a second client in the entry"),
    ("return", "loop", "return to user space, where nothing was requested"),
    ("entry", "first", "processing for one client, its walk (two words stored), the return"),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match &arguments[..] {
        [] => compare(),
        [path, rounds] => drop(black_box(run(path, rounds.parse().unwrap()))),
        _ => panic!("PATH ROUNDS"),
    }
}

fn compare() {
    println!("sizes: task {} bytes, slot {}, counter {}", size_of::<TaskState>(), 8, size_of::<CpuCounter>());
    for (path, with, what) in PATHS {
        let time = nanoseconds(path) - nanoseconds(with);
        let instructions = match (instructions(path), instructions(with)) {
            (Some(path), Some(with)) => format!("{:5.0} instructions", path - with),
            _ => "SKIPPED instructions: no valgrind".to_owned(),
        };
        println!("  {path:<16} {instructions}, {time:6.1} ns  {what}");
    }
}

/// The best of some runs, by round.
fn nanoseconds(path: &str) -> f64 {
    const ROUNDS: u32 = 200_000;
    let time = |()| {
        let begin = Instant::now();
        black_box(run(path, ROUNDS));
        begin.elapsed().as_nanos() as f64 / f64::from(ROUNDS)
    };
    [(); 12].map(time).into_iter().fold(f64::INFINITY, f64::min)
}

fn instructions(path: &str) -> Option<f64> {
    const SHORT: u32 = 1_000;
    const LONG: u32 = 21_000;
    let count = |rounds: u32| {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(std::env::current_exe().unwrap())
            .args([path, &rounds.to_string()])
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let (_, collected) = text.split_once("Collected : ")?;
        collected.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some((count(LONG)? - count(SHORT)?) as f64 / f64::from(LONG - SHORT))
}

fn run(path: &str, rounds: u32) -> u64 {
    let slots = [ClientSlot::new(called), ClientSlot::new(called)];
    let counters = [CpuCounter::new()];
    let mut cache = TraceCache::new([0; 500]);
    let machine = Machine { task: TaskState::new() };
    let deferred = Deferred::new(&machine, black_box(&slots), black_box(&counters));
    let [first, second] = [(); 2].map(|()| deferred.register(|_| {}).unwrap().id());
    deferred.request(first).unwrap();
    let untouched = TaskState::new();
    // Told apart here, not in each round.
    match path {
        "loop" => repeat(rounds, || 1),
        "already-queued" => repeat(rounds, || deferred.request(black_box(first)).unwrap().cookie.get()),
        "return" => {
            repeat(rounds, || u64::from(deferred.return_to_user(black_box(&untouched)) == Return::Ready))
        }
        "task" => repeat(rounds, || {
            let task = TaskState::new();
            black_box(&task);
            1
        }),
        "first" => repeat(rounds, || {
            let task = TaskState::new();
            deferred.request_for(black_box(&task), black_box(first)).unwrap().cookie.get()
        }),
        "second" => repeat(rounds, || {
            let task = TaskState::new();
            let told = deferred.request_for(black_box(&task), black_box(first)).unwrap().cookie.get();
            told + deferred.request_for(black_box(&task), black_box(second)).unwrap().cookie.get()
        }),
        "entry" => repeat(rounds, || {
            let task = TaskState::new();
            let told = deferred.request_for(black_box(&task), black_box(first)).unwrap().cookie.get();
            let done = deferred.process(&task, &mut cache).delivered;
            assert!(deferred.return_to_user(&task) == Return::Ready);
            told + u64::from(done)
        }),
        other => panic!("no path {other}"),
    }
}

#[inline(always)]
fn repeat(rounds: u32, mut round: impl FnMut() -> u64) -> u64 {
    (0..rounds).fold(0, |sum, _| black_box(sum ^ round()))
}

fn called(_: &TaskState, cookie: Cookie, trace: &Trace<'_>) {
    black_box((cookie, trace.entries.len()));
}

struct Machine {
    task: TaskState,
}

impl Embedder for Machine {
    type Task = TaskState;

    #[inline]
    fn current_task(&self) -> Option<&TaskState> {
        Some(&self.task)
    }

    #[inline]
    fn current_cpu(&self) -> u32 {
        0
    }

    #[inline]
    fn in_nmi(&self) -> bool {
        true
    }

    #[inline]
    fn is_compare_exchange_nmi_safe(&self) -> bool {
        true
    }

    #[inline]
    fn queue_work(&self, task: &TaskState) -> Result<(), NotQueued> {
        black_box(task);
        Ok(())
    }

    fn walk(&self, _: &TaskState, entries: &mut [u64]) -> Result<UnwindStacktrace, StartError> {
        entries[..2].copy_from_slice(&[1, 2]);
        let end = End::Complete(Mark::UndefinedReturnAddress);
        Ok(UnwindStacktrace::new(2, end, Trust::Exact))
    }

    fn for_each_task(&self, visit: &mut dyn FnMut(&TaskState)) {
        visit(&self.task);
    }
}
