//! Walks by SFrame alone against execution: programs of ours, assembled with `--gsframe` in every version that there is
//! an assembler for, captured under qemu-user and replayed without it. No other table is consulted, and of the
//! architecture's conventions only the signal trampolines, which nobody writes SFrame for.
//!
//! Where every pc of the chain has a row, the walk has to be exact to the end; where one has none (the C library's), it
//! has to be right up to there, and to say that it knows no more. `bare.c` and `linked.c` have nothing but functions of ours.
//!
//! See `unwind_tests::oracle::judge` for what counts as right, `unwind_tests::captured` for what a sample is, and
//! `tests/fixtures/build-sframe.sh` for how the runs were made. Every comparison is counted, and the counts are printed. Places
//! where a table is wrong are in [`LISTED`], with the proof; functions that an assembler left out in [`LEFT_OUT`].

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use unwind_arch_aarch64::Aarch64;
use unwind_arch_s390x::S390x;
use unwind_arch_x86_64::X86_64;
use unwind_core::{Arch, Register};
use unwind_tests::captured::{Kind, Library, Listed, Loaded, Report, Run, Subject};
use unwind_tests::oracle::judge::{Fault, Judge, Mode};

const LISTED: &[Listed] = &[
    Listed {
        name: "gcc: __builtin_longjmp",
        proof: "it loads the frame pointer of the context to be entered, then its sp, then jumps. gcc writes no call frame \
                information for that, so that the row before goes on to hold: the CFA on the frame pointer, which is the other \
                context's, or on an sp that no longer is.",
        applies: |spot, _| spot.function == "give_up" && spot.top == "give_up",
    },
    Listed {
        name: "gcc: the end of a function that realigns the stack",
        proof: "x86-64, frames with a pointer to the arguments (DRAP): the CFA is `*(rbp-8)`, rbp is at `*(rbp+0)`. At the end `pop \
                %rbp; lea -8(%r10),%rsp; ret`: behind the pop, rbp is the caller's, and gcc has changed the CFA alone (to r10, \
                then to rsp+8), not rbp's rule. `.eh_frame` says the same.",
        applies: |spot, fault| {
            matches!(fault, Fault::Register(1, Register(6)) | Fault::Frame(2) | Fault::End)
                && spot.function == "aligned_array"
                && ["c=r10+0 ra=*c-8 fp=*fp+0", "c=sp+8 ra=*c-8 fp=*fp+0"].contains(&spot.row.as_str())
        },
    },
    Listed {
        name: "gas 2.40 and 2.44: an undefined return address",
        proof: "`.cfi_undefined` of the return address is lost: versions 1 and 2 without errata have no such row. The start's row is \
                that of an ordinary function, and says that somebody called it.",
        applies: |spot, _| spot.function == "_start" && spot.outermost && !spot.row.starts_with("outermost"),
    },
];

/// Functions for which assemblers write no rows: where, and which.
const LEFT_OUT: &[(&str, &str)] = &[
    // Its CFA is on r10 for a while. 2.44 says so ("non-SP/FP register 10"), 2.40 is silent.
    ("x86_64/v1", "aligned_array"),
    ("x86_64/v2", "aligned_array"),
    // See `bare_machine.h`.
    ("/v1", "_start"),
    ("/v2", "_start"),
];

const fn numbers<const N: usize>(first: u16) -> [Register; N] {
    let mut registers = [Register(0); N];
    let mut index = 0;
    while index < N {
        registers[index] = Register(first + index as u16);
        index += 1;
    }
    registers
}

static ALL: [Register; 31] = numbers(0);

fn x86_64() -> Subject<'static, X86_64> {
    const PRESERVED: &[Register] =
        &[Register(3), Register(6), Register(12), Register(13), Register(14), Register(15)];
    subject(X86_64, 16, 128, 9, Judge { fp: Register(6), preserved: PRESERVED, all: &ALL[..16] })
}

fn aarch64() -> Subject<'static, Aarch64> {
    const PRESERVED: [Register; 11] = numbers(19);
    subject(Aarch64::new(), 32, 0, 8, Judge { fp: Register(29), preserved: &PRESERVED, all: &ALL })
}

fn s390x() -> Subject<'static, S390x> {
    const PRESERVED: [Register; 8] = numbers(6);
    subject(S390x, 65, 0, 2, Judge { fp: Register(11), preserved: &PRESERVED, all: &ALL[..16] })
}

fn subject<A>(
    arch: A,
    pc: u16,
    red_zone: u64,
    trampoline: u64,
    judge: Judge<'static>,
) -> Subject<'static, A> {
    Subject { arch, judge, pc, red_zone, trampoline, listed: LISTED, tables: Kind::SFrame, entry: None }
}

#[test]
fn x86_64_version_1() {
    check(x86_64(), "x86_64/v1");
}

#[test]
fn x86_64_version_2() {
    check(x86_64(), "x86_64/v2");
}

#[test]
fn x86_64_version_3() {
    check(x86_64(), "x86_64/v3");
}

#[test]
fn aarch64_version_1() {
    check(aarch64(), "aarch64/v1");
}

#[test]
fn aarch64_version_2() {
    check(aarch64(), "aarch64/v2");
}

#[test]
fn aarch64_version_3() {
    check(aarch64(), "aarch64/v3");
}

#[test]
fn s390x_version_3() {
    check(s390x(), "s390x/v3");
}

/// Replays the runs of a folder.
fn check<A: Arch>(mut subject: Subject<'static, A>, folder: &str) {
    let path = fixtures().join(folder);
    let mut library = Library::new(subject.arch, &path);
    let mut samples = 0;
    let mut wrong = 0;
    for run in runs_in(&path) {
        let name = &run.program;
        let is_own = ["bare-", "signals-", "linked-"].iter().any(|prefix| name.starts_with(prefix));
        // Before version 3, tables cannot say where a thread begins.
        let undescribed = is_own && !folder.ends_with("v3") && name != "bare-described";
        subject.entry = undescribed.then_some("_start");
        let loaded = Loaded::new(&mut library, &run).expect("its modules are there");
        let report = subject.check::<32>(&run, &loaded);
        say(&describe(folder, &run, &report));
        assert_eq!(report.samples, run.samples.len() as u64);
        report.sources.assert_same(&run.program);
        samples += report.samples;
        wrong += report.failures.values().map(|(count, _)| count).sum::<u64>();
        expect(folder, name, &report);
    }
    assert!(samples > 1000, "{samples} samples");
    assert_eq!(wrong, 0);
}

/// What else has to be so.
fn expect(folder: &str, name: &str, report: &Report) {
    for mode in [Mode::Tracking, Mode::Plain] {
        let counts = &report.counts[mode as usize];
        assert!(counts.adds_up() && counts.walks == report.samples);
        assert_eq!(counts.marked_wrong, 0, "{folder} {name}");
        // A walk knows all that there is to know; it may lack registers that signals interrupted.
        let lacking = report.lacking.iter().filter(|(place, _)| place.starts_with(&format!("{mode:?}")));
        let lacking: u64 = lacking.map(|(_, count)| count).sum();
        assert!(counts.unknown <= report.gaps + lacking, "{folder} {name}: {counts}");
    }
    // On s390x leaf functions keep r11 and r15 in floating-point registers. Where a signal interrupted one, a walk that
    // tracks three registers does not know them; one that tracks more does.
    for place in report.lacking.keys() {
        let interrupted = folder.starts_with("s390x") && (name.starts_with("signals-"));
        assert!(interrupted && place.starts_with("Plain"), "{folder} {name}: lacks a register: {place}");
    }
    if name.starts_with("bare-") || name.starts_with("signals-") {
        for function in report.uncovered.keys() {
            let left_out = |(place, left_out): &&(&str, &str)| folder.contains(place) && left_out == function;
            assert!(LEFT_OUT.iter().any(|entry| left_out(&entry)), "{folder} {name}: no rows for {function}");
        }
    }
}

fn describe(folder: &str, run: &Run, report: &Report) -> String {
    let mut text = format!(
        "{} {} ({}): {} instructions in the window: {} repeats, {} thinned out, {} samples at {} places\n",
        folder,
        run.program,
        run.command,
        run.stepped,
        run.repeats,
        run.thinned,
        report.samples,
        report.places
    );
    for (mode, counts) in ["tracking", "plain"].iter().zip(&report.counts) {
        let _ = writeln!(text, "    {mode:<8} {counts}");
    }
    text += &report.sources.to_string();
    for (name, count) in &report.listed {
        let _ = writeln!(text, "    listed: {name}: {count} walks");
    }
    let uncovered: u64 = report.uncovered.values().sum();
    let _ = writeln!(
        text,
        "    {} samples with a pc in their chain that no table covers; at {uncovered}, in {} functions, it is the topmost",
        report.gaps,
        report.uncovered.len()
    );
    for (place, count) in &report.lacking {
        let _ = writeln!(text, "    lacks a register: {place}: {count}");
    }
    for (place, (count, first)) in &report.failures {
        let _ = writeln!(text, "    WRONG: {count} {place}; the first:\n{first}");
    }
    text
}

/// The runs of a folder, by name.
fn runs_in(folder: &Path) -> Vec<Run> {
    let entries = std::fs::read_dir(folder).expect("the fixtures are there");
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "run")).collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let file = std::fs::read(path).expect("the run can be read");
        Run::from_file(&file).expect("the run is sound")
    };
    paths.iter().map(read).collect()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sframe-runs")
}

/// Prints past the test harness, which hides what a passing test prints.
fn say(text: &str) {
    // Nobody may be listening.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
