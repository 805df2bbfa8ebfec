//! The scoreboard: every hazard, this library and another unwinder, as a table in Markdown.
//!
//! `cargo bench -p unwind-tests --bench hazards` prints it: how this library fares on all architectures, and
//! beside each other on those that both support. `-- --cases` names every case that did not pass. Which
//! verdict a walk gets, [`judge`] says; a hazard gets the worst of its cases. What the other unwinder does not
//! support is counted neither for it nor against it.
//!
//! That a walk panics or never ends is a verdict like others: the walks run in a process of their own, which
//! is ended where it is silent for too long, and begun again behind that walk.

#[path = "framehop.rs"]
mod peer;

use std::io::{BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use unwind_core::{Arch, ByteOrder};
use unwind_tests::hazard::{Case, HAZARDS, Ours, Unwinder, Verdict, judge};
use unwind_tests::synthetic::AnyArch;

use peer::Framehop;

/// How long a walk may take. All of them together take less.
const LONGEST: Duration = Duration::from_secs(10);

/// A verdict, or that the unwinder does not support the case.
type Outcome = Option<Verdict>;

const OUTCOMES: [(&str, Outcome); 7] = [
    ("n/a", None),
    ("pass", Some(Verdict::Pass)),
    ("wrong end", Some(Verdict::WrongEnd)),
    ("frames missing", Some(Verdict::Missing)),
    ("wrong frames", Some(Verdict::Wrong)),
    ("panic", Some(Verdict::Panic)),
    ("endless", Some(Verdict::Endless)),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, which, from] = &arguments[..]
        && flag == "--walk"
    {
        return walk(unwinder(which), from.parse().expect("a number"));
    }
    let shows_cases = arguments.iter().any(|argument| argument == "--cases");
    let cases: Vec<(&str, Case)> = cases().collect();
    let [ours, theirs] = ["ours", "framehop"].map(|which| outcomes(which, cases.len()));
    let mut totals = [Total::default(), Total::default(), Total::default()];
    println!("| hazard | unwind-core, all architectures | unwind-core | framehop 0.16 |");
    println!("|---|---|---|---|");
    for hazard in HAZARDS {
        let mut scores = [Score::default(), Score::default(), Score::default()];
        for ((name, case), (ours, theirs)) in cases.iter().zip(ours.iter().zip(&theirs)) {
            if *name != hazard.name {
                continue;
            }
            scores[0].add(*ours);
            if !is_common(&case.arch) {
                continue;
            }
            scores[1].add(*ours);
            scores[2].add(*theirs);
            if shows_cases && !matches!(theirs, None | Some(Verdict::Pass)) {
                eprintln!("framehop, {}, {name}: {}: {theirs:?}", case.arch.name(), case.name);
            }
        }
        println!("| {} | {} | {} | {} |", hazard.name, scores[0], scores[1], scores[2]);
        for (total, score) in totals.iter_mut().zip(&scores) {
            total.add(score);
        }
    }
    println!("| **passed** | {} | {} | {} |", totals[0], totals[1], totals[2]);
}

/// Whether both support an architecture.
fn is_common(arch: &AnyArch) -> bool {
    matches!(arch.name(), "x86_64" | "aarch64") && arch.byte_order() == ByteOrder::Little
}

fn cases() -> impl Iterator<Item = (&'static str, Case)> {
    HAZARDS.iter().flat_map(|hazard| {
        let cases = AnyArch::real().into_iter().flat_map(hazard.cases);
        cases.map(|case| (hazard.name, case))
    })
}

fn unwinder(which: &str) -> Box<dyn Unwinder> {
    match which {
        "ours" => Box::new(Ours),
        _ => Box::new(Framehop),
    }
}

/// In a process of its own: puts an unwinder through the cases from one on, and prints what each came to.
fn walk(unwinder: Box<dyn Unwinder>, from: usize) {
    // What panics is a verdict, not a message.
    std::panic::set_hook(Box::new(|_| {}));
    let mut out = std::io::stdout();
    for (_, case) in cases().skip(from) {
        let walks = catch_unwind(AssertUnwindSafe(|| unwinder.walk(&case)));
        let outcome = match walks {
            Ok(walks) => walks.and_then(|walks| walks.iter().map(|it| judge(&case.expect, &it.1)).max()),
            Err(_) => Some(Verdict::Panic),
        };
        let name = OUTCOMES.iter().find(|it| it.1 == outcome).expect("all are listed").0;
        writeln!(out, "{name}").expect("somebody listens");
    }
}

/// What every case came to.
fn outcomes(which: &str, count: usize) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    while outcomes.len() < count {
        let (mut child, lines) = begin(which, outcomes.len());
        while let Ok(line) = lines.recv_timeout(LONGEST) {
            outcomes.push(OUTCOMES.iter().find(|it| it.0 == line).expect("a line of ours").1);
        }
        // It is over, or it is silent.
        if outcomes.len() < count {
            let has_died = child.try_wait().expect("it is a child of ours").is_some();
            outcomes.push(Some(if has_died { Verdict::Panic } else { Verdict::Endless }));
        }
        let _ = child.kill();
        child.wait().expect("it is a child of ours");
    }
    outcomes
}

fn begin(which: &str, from: usize) -> (Child, Receiver<String>) {
    let mut child = Command::new(std::env::current_exe().expect("this program's path"))
        .args(["--walk", which, &from.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program can be run");
    let out = child.stdout.take().expect("it is piped");
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines() {
            if line.map(|line| sender.send(line).is_err()).unwrap_or(true) {
                break;
            }
        }
    });
    (child, receiver)
}

/// How an unwinder fared with a hazard.
#[derive(Default)]
struct Score {
    worst: Outcome,
    passed: usize,
    cases: usize,
}

impl Score {
    fn add(&mut self, outcome: Outcome) {
        self.cases += usize::from(outcome.is_some());
        self.passed += usize::from(outcome == Some(Verdict::Pass));
        self.worst = self.worst.max(outcome);
    }
}

impl std::fmt::Display for Score {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = OUTCOMES.iter().find(|it| it.1 == self.worst).expect("all are listed").0;
        match self.worst {
            None => f.write_str(name),
            Some(_) => write!(f, "{name} ({}/{})", self.passed, self.cases),
        }
    }
}

/// How an unwinder fared with all of them.
#[derive(Default)]
struct Total {
    hazards: usize,
    passed: usize,
    cases: Score,
}

impl Total {
    fn add(&mut self, score: &Score) {
        self.hazards += usize::from(score.worst.is_some());
        self.passed += usize::from(score.worst == Some(Verdict::Pass));
        self.cases.passed += score.passed;
        self.cases.cases += score.cases;
    }
}

impl std::fmt::Display for Total {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "**{} of {}** ({}/{} cases)",
            self.passed, self.hazards, self.cases.passed, self.cases.cases
        )
    }
}
