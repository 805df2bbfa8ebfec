//! Walks against execution, on x86-64 Linux: programs are stepped one instruction at a time, and at every
//! instruction of a window the walk has to equal the call stack that the calls and returns built up.
//! See `unwind_tests::oracle` for what counts as right.
//!
//! Every comparison is counted and the counts are printed, also where a test passes; lines that begin
//! with `SKIPPED` say what could not be run here, and why. Places where a table is wrong are
//! listed in `unwind_tests::oracle::x86_64::LISTED`, with the proof. A wrong table that is not listed fails
//! the test, if it is one of a program that was made here, or if this is the system that the list was made
//! on (Debian 12); elsewhere it is printed as `UNLISTED`.
//!
//! # Environment
//! * `UNWIND_ORACLE_SCALE=n`: windows n times as large, for long runs (1, to begin with).
//! * `CC`, `CXX`, `RUSTC`: the compilers, where they are not `cc`, `c++` and `rustc`.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use unwind_core::dwarf::{DwarfSections, Section};
use unwind_tests::oracle::judge::Mode;
use unwind_tests::oracle::modules::Image;
use unwind_tests::oracle::programs::{Compiler, Workshop};
use unwind_tests::oracle::x86_64::{Begin, Case, Ended, From, LISTED, Report, Stop, Tables, Window, run};

#[test]
fn frames_at_every_level_of_optimisation() {
    let Some(shop) = Shop::open("levels", Compiler::c, "C") else { return };
    for level in ["-O0", "-O1", "-O2", "-O3", "-Os"] {
        for pointers in ["-fomit-frame-pointer", "-fno-omit-frame-pointer"] {
            // Conventions alone: right where the whole chain keeps frame pointers, marked everywhere.
            let conventions = pointers == "-fno-omit-frame-pointer";
            shop.program(&["frames.c"], &[level, pointers], &Plan { conventions, ..Plan::MAIN });
        }
    }
}

#[test]
fn frames_linked_in_every_way() {
    let Some(shop) = Shop::open("links", Compiler::c, "C") else { return };
    let ways: &[&[&str]] = &[
        &["-O2", "-Wl,-z,lazy"],
        &["-O2", "-Wl,-z,now"],
        &["-O2", "-fno-plt"],
        &["-O2", "-fcf-protection=full", "-Wl,-z,lazy", "-Wl,-z,ibtplt"],
        &["-O2", "-no-pie", "-fno-pie"],
        &["-O2", "-Wl,--no-eh-frame-hdr"],
    ];
    for flags in ways {
        shop.program(&["frames.c"], flags, &Plan::MAIN);
    }
    // The C library's own start, without the dynamic loader's help.
    for flags in [["-O2", "-static"], ["-O2", "-static-pie"]] {
        shop.program(&["frames.c"], &flags, &Plan { from: From::Start, per_place: 1, ..Plan::MAIN });
    }
}

#[test]
fn frames_with_more_options() {
    let Some(shop) = Shop::open("options", Compiler::c, "C") else { return };
    let options: &[&[&str]] = &[
        &["-O2", "-fstack-clash-protection"],
        &["-O2", "-fstack-protector-all"],
        &["-O2", "-fno-dwarf2-cfi-asm"],
        &["-O2", "-mno-red-zone"],
        &["-O2", "-maccumulate-outgoing-args"],
    ];
    for flags in options {
        shop.program(&["frames.c"], flags, &Plan::MAIN);
    }
    if is_x86_feature_detected!("avx2") {
        shop.program(&["frames.c"], &["-O2", "-mavx2"], &Plan::MAIN);
    } else {
        say("SKIPPED frames.c -mavx2: this processor has no AVX2\n");
    }
    if is_x86_feature_detected!("avx512f") {
        shop.program(&["frames.c"], &["-O2", "-mavx512f"], &Plan::MAIN);
    } else {
        say("SKIPPED frames.c -mavx512f: this processor has no AVX-512\n");
    }
}

#[test]
fn frames_without_tables() {
    let Some(shop) = Shop::open("tableless", Compiler::c, "C") else { return };
    for level in ["-O0", "-O2"] {
        for (pointers, right) in [("-fomit-frame-pointer", 0), ("-fno-omit-frame-pointer", 50)] {
            let flags = [level, pointers, "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"];
            shop.program(&["frames.c"], &flags, &Plan { conventions: true, right, ..Plan::MAIN });
        }
    }
}

#[test]
fn a_program_of_frame_pointers_alone() {
    let Some(shop) = Shop::open("freestanding", Compiler::c, "C") else { return };
    for level in ["-O0", "-O1", "-O2"] {
        let flags = &[
            level,
            "-nostdlib",
            "-static",
            "-ffreestanding",
            "-fno-stack-protector",
            "-fno-omit-frame-pointer",
            "-mno-omit-leaf-frame-pointer",
            "-fno-asynchronous-unwind-tables",
            "-fno-unwind-tables",
        ];
        let plan = Plan { from: From::Start, per_place: 5, conventions: true, right: 60, ..Plan::MAIN };
        shop.program(&["freestanding.c"], flags, &plan);
    }
}

#[test]
fn hand_written_frames() {
    let Some(shop) = Shop::open("assembly", Compiler::c, "C") else { return };
    // Some functions have no tables.
    let plan = Plan { odd_returns: true, per_place: 4, right: 90, ..Plan::MAIN };
    shop.program(&["assembly.S", "assembly.c"], &["-O2"], &plan);
    shop.program(&["assembly.S", "assembly.c"], &["-O2", "-static"], &plan);
}

#[test]
fn the_dynamic_loader() {
    let Some(shop) = Shop::open("loader", Compiler::c, "C") else { return };
    let plan = Plan { begin: Begin::Loader, from: From::Start, odd_returns: true, ..Plan::MAIN };
    shop.program(&["assembly.S", "assembly.c"], &["-O2"], &plan);
    shop.program(&["assembly.S", "assembly.c"], &["-O2", "-Wl,-z,now"], &plan);
}

#[test]
fn signals() {
    let Some(shop) = Shop::open("signals", Compiler::c, "C") else { return };
    for flags in [&["-O0"][..], &["-O2"], &["-O2", "-static"], &["-O2", "-fno-omit-frame-pointer"]] {
        shop.program(&["signals.c"], flags, &Plan::MAIN);
    }
}

#[test]
fn signals_at_any_instruction() {
    let Some(shop) = Shop::open("injected", Compiler::c, "C") else { return };
    let plan = Plan { inject: Some((Signal::SIGPROF, 40)), arguments: &["12"], ..Plan::MAIN };
    shop.program(&["signals.c"], &["-O2"], &plan);
    shop.program(&["signals.c"], &["-O2", "-static"], &plan);
}

#[test]
fn contexts_and_jumps() {
    let Some(shop) = Shop::open("contexts", Compiler::c, "C") else { return };
    for flags in [&["-O0"][..], &["-O2"], &["-O2", "-static"]] {
        // Contexts end in code that no table covers.
        shop.program(&["contexts.c"], flags, &Plan { odd_returns: true, right: 75, ..Plan::MAIN });
    }
}

#[test]
fn children() {
    let Some(shop) = Shop::open("children", Compiler::c, "C") else { return };
    for flags in [&["-O2"][..], &["-O2", "-static"]] {
        shop.program(&["children.c"], flags, &Plan::MAIN);
    }
}

#[test]
fn exceptions() {
    let Some(shop) = Shop::open("exceptions", Compiler::cpp, "C++") else { return };
    let plan = Plan { per_place: 1, sample: 200, ..Plan::MAIN };
    let all: &[&[&str]] = &[
        &["-O0"],
        &["-O2"],
        &["-O2", "-fno-omit-frame-pointer"],
        &["-O2", "-static-libgcc", "-static-libstdc++"],
    ];
    for flags in all {
        shop.program(&["exceptions.cc"], flags, &plan);
    }
}

#[test]
fn what_rustc_makes() {
    let Some(shop) = Shop::open("rust", Compiler::rust, "Rust") else { return };
    let plan = Plan { per_place: 1, sample: 200, ..Plan::MAIN };
    for flags in [&["-O"][..], &["-Cdebuginfo=1"], &["-O", "-Cforce-frame-pointers"]] {
        shop.program(&["panics.rs"], flags, &plan);
    }
}

#[test]
fn a_plt_and_libraries_loaded_on_the_way() {
    let Some(shop) = Shop::open("library", Compiler::c, "C") else { return };
    let library = |name: &str| {
        shop.workshop.compile(&shop.compiler, &["library.c"], name, &["-O2", "-shared", "-fPIC"])
    };
    let (first, second) = match (library("libfirst.so"), library("libsecond.so")) {
        (Ok(first), Ok(second)) => (first, second),
        (first, second) => return say(&format!("SKIPPED library.c: {:?} {:?}\n", first.err(), second.err())),
    };
    let (Some(first), Some(second)) = (first.to_str(), second.to_str()) else {
        return say("SKIPPED library.c: the temporary folder's name is no UTF-8\n");
    };
    for binding in ["-Wl,-z,lazy", "-Wl,-z,now"] {
        let plan = Plan { arguments: &[second], ..Plan::MAIN };
        shop.program(&["uses_library.c"], &["-O2", first, binding, "-ldl"], &plan);
    }
}

#[test]
fn threads() {
    let Some(shop) = Shop::open("threads", Compiler::c, "C") else { return };
    let plan = Plan { begin: Begin::Thread, from: From::Start, ..Plan::MAIN };
    shop.program(&["threads.c"], &["-O2", "-pthread"], &plan);
    // Without pthread_exit: to unwind, a static program first sorts all its tables.
    let plan = Plan { arguments: &["return"], per_place: 5, ..plan };
    shop.program(&["threads.c"], &["-O2", "-pthread", "-static"], &plan);
}

#[test]
fn programs_of_the_system() {
    let Some(shop) = Shop::open("system", Compiler::c, "C") else { return };
    let text = shop.workshop.folder().join("text");
    if let Err(error) = fs::write(&text, "pear\napple\nfig\nquince\n") {
        return say(&format!("SKIPPED programs of the system: {error}\n"));
    }
    let text = text.display().to_string();
    shop.system(
        "sh",
        &["-c", "for a in 1 2; do case $a in 1) b=$((a+1));; esac; done; echo $b"],
        &Plan::SYSTEM,
    );
    shop.system("ls", &["-l", "/"], &Plan::SYSTEM);
    shop.system("sort", &["-r", &text], &Plan::SYSTEM);
}

#[test]
fn interpreters_in_mid_run() {
    let Some(shop) = Shop::open("interpreters", Compiler::c, "C") else { return };
    let plan = Plan { begin: Begin::Function("getppid"), ..Plan::SYSTEM };
    let perl = "sub f { my $n = shift; $n ? f($n - 1) + 1 : getppid() } my @a = map { f($_) } 1 .. 4;
                my $s = join ',', sort { $a <=> $b } @a; $s =~ s/(\\d+)/<$1>/g;";
    shop.system("perl", &["-e", perl], &plan);
    let python = "import os
def f(n): return f(n - 1) + 1 if n else os.getppid()
sorted([f(n) for n in range(4)], key=lambda x: -x)";
    shop.system("python3", &["-S", "-c", python], &plan);
}

/// An oracle that cannot find anything finds nothing: here the tables are wrong.
#[test]
fn the_oracle_notices_wrong_tables() {
    let Some(shop) = Shop::open("sabotage", Compiler::c, "C") else { return };
    let faults: [(&str, Tables); 2] = [("every CFA 8 too high", cfa_too_high), ("no tables", no_tables)];
    for (what, tables) in faults {
        let plan = Plan { tables, ..Plan::MAIN };
        let path = shop.workshop.compile(&shop.compiler, &["frames.c"], "frames", &["-O1"]);
        let path = path.unwrap_or_else(|error| panic!("{error}"));
        let Some(report) = shop.run(what, Command::new(path), &plan) else { return };
        // What the tables lead to is wrong, and gimli reads them otherwise: the true ones.
        let found = report.failures.iter().filter(|failure| !failure.table_agrees).count();
        say(&format!("oracle: {what}: {found} wrong walks found\n"));
        assert!(found > 1000, "{what}: only {found} wrong walks");
    }
}

/// In the tables of programs made here `DW_CFA_def_cfa_offset 16` becomes 24.
fn cfa_too_high(image: &'static Image) -> DwarfSections<'static> {
    let mut sections = image.sections;
    if let Some(section) = sections.eh_frame.filter(|_| image.ours) {
        let mut data = section.data.to_vec();
        for at in 1..data.len() {
            if data[at - 1..=at] == [0x0e, 16] {
                data[at] = 24;
            }
        }
        sections.eh_frame = Some(Section { data: data.leak(), ..section });
    }
    sections
}

/// Programs made here have no tables: conventions take their place, and where these are wrong, they say that
/// they may be. But every pc is covered in truth, so that this is not enough.
fn no_tables(image: &'static Image) -> DwarfSections<'static> {
    if image.ours { DwarfSections::default() } else { image.sections }
}

/// How a program is to be stepped.
#[derive(Clone, Copy)]
struct Plan<'p> {
    arguments: &'p [&'p str],
    begin: Begin,
    from: From,
    /// Visits of a place that are walked from, and one in how many of the others.
    per_place: u32,
    sample: u64,
    /// Instructions to walk at, at most.
    walks: u64,
    /// Instructions, at most.
    instructions: u64,
    /// Whether it may still be running then.
    endless: bool,
    conventions: bool,
    odd_returns: bool,
    inject: Option<(Signal, u64)>,
    tables: Tables,
    /// How many walks, in per cent, have to be right to the end, marked or not: a walk that knows
    /// nothing is never wrong.
    right: u64,
}

impl Plan<'_> {
    /// A program made here, from `main` to the end.
    const MAIN: Self = Plan {
        arguments: &[],
        begin: Begin::Program,
        from: From::Function("main"),
        per_place: 2,
        sample: 50,
        walks: 20_000,
        instructions: 3_000_000,
        endless: false,
        conventions: false,
        odd_returns: false,
        inject: None,
        tables: |image| image.sections,
        right: 95,
    };

    /// A program of the system, from its entry on.
    const SYSTEM: Self = Plan {
        from: From::Start,
        per_place: 1,
        sample: 100,
        walks: 15_000,
        instructions: 150_000,
        endless: true,
        ..Plan::MAIN
    };
}

/// A folder, a compiler, and what is done with them.
struct Shop {
    workshop: Workshop,
    compiler: Compiler,
}

impl Shop {
    /// Opens it, if there is such a compiler.
    fn open(name: &str, compiler: impl FnOnce() -> Option<Compiler>, language: &str) -> Option<Self> {
        let workshop = Workshop::new(name).unwrap_or_else(|error| panic!("no temporary folder: {error}"));
        match compiler() {
            Some(compiler) => Some(Shop { workshop, compiler }),
            None => {
                say(&format!("SKIPPED {name}: there is no {language} compiler\n"));
                None
            }
        }
    }

    /// Compiles, runs and judges a program. A way to compile or link it that not every system knows
    /// is skipped where that fails.
    fn program(&self, sources: &[&str], flags: &[&str], plan: &Plan<'_>) {
        let name = format!("{} {}", sources.join(" "), flags.join(" "));
        let everywhere = |flag: &&str| {
            flag.starts_with("-O") || flag.ends_with("omit-frame-pointer") || !flag.starts_with('-')
        };
        match self.workshop.compile(&self.compiler, sources, "program", flags) {
            Ok(path) => self.judge(&name, Command::new(path), plan),
            Err(error) if flags.iter().all(everywhere) => panic!("{name}: {error}"),
            Err(error) => {
                let error = error.to_string();
                let reason = error.lines().find(|line| line.contains("rror")).unwrap_or(&error);
                say(&format!("SKIPPED {name}: {reason}\n"));
            }
        }
    }

    /// Runs and judges a program of the system, if it is there.
    fn system(&self, program: &str, arguments: &[&str], plan: &Plan<'_>) {
        let found = ["/usr/bin", "/bin"]
            .iter()
            .map(|folder| Path::new(folder).join(program))
            .find(|path| path.is_file());
        match found.map(fs::canonicalize) {
            Some(Ok(path)) => self.judge(program, Command::new(path), &Plan { arguments, ..*plan }),
            _ => say(&format!("SKIPPED {program}: this system has none\n")),
        }
    }

    fn judge(&self, name: &str, command: Command, plan: &Plan<'_>) {
        let Some(report) = self.run(name, command, plan) else { return };
        let on_the_list_s_system = is_debian_12();
        let (failures, unlisted): (Vec<_>, Vec<_>) = report
            .failures
            .iter()
            .partition(|failure| failure.ours || !failure.table_agrees || on_the_list_s_system);
        for failure in unlisted {
            say(&format!("UNLISTED, the table is wrong: {}", failure.text));
        }
        let mut tally = report.tally.clone();
        let tracking = *tally.of(Mode::Tracking);
        assert!(tracking.walks > 100, "{name}: hardly any walks");
        let right = (tracking.exact + tracking.marked_right) * 100 / tracking.walks;
        assert!(right >= plan.right, "{name}: only {right} % of the walks are right to the end");
        report.tally.sources.assert_same(name);
        assert_eq!(tracking.recovered.unknown, 0, "{name}: preserved registers are lost");
        assert!(plan.inject.is_none() || report.injected > 20, "{name}: hardly any signals");
        let ended = match report.ended {
            Ended::Stop(stop) => stop == Stop::Exited(0),
            Ended::Enough => plan.endless,
        };
        assert!(ended, "{name}: {:?}", report.ended);
        assert!(report.doubts.is_empty(), "{name}: {:?}", report.doubts);
        let first: String = failures.iter().take(5).map(|failure| failure.text.as_str()).collect();
        assert!(failures.is_empty(), "{name}: {} wrong walks, the first ones:\n{first}", failures.len());
    }

    /// Runs a program and prints its counts; `None` where that is not permitted.
    fn run(&self, name: &str, mut command: Command, plan: &Plan<'_>) -> Option<Report> {
        let scale: u64 =
            env::var("UNWIND_ORACLE_SCALE").ok().and_then(|n| n.parse().ok()).unwrap_or(1).max(1);
        command.args(plan.arguments).current_dir(self.workshop.folder()).env_clear();
        let case = Case {
            name: name.to_owned(),
            command,
            ours: self.workshop.folder(),
            begin: plan.begin,
            window: Window {
                from: plan.from,
                per_place: plan.per_place * u32::try_from(scale).unwrap_or(u32::MAX),
                sample: (plan.sample / scale).max(1),
                most: plan.walks * scale,
            },
            conventions: plan.conventions,
            odd_returns: plan.odd_returns,
            inject: plan.inject,
            most: plan.instructions * scale,
            tables: plan.tables,
        };
        match run(case) {
            Ok(report) => {
                print(&report);
                Some(report)
            }
            Err(error) if is_refused(&error) => {
                say(&format!("SKIPPED {name}: processes must not be traced here: {error}\n"));
                None
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

fn is_refused(error: &io::Error) -> bool {
    let not_there = [nix::libc::EPERM, nix::libc::EACCES, nix::libc::ENOSYS];
    error.raw_os_error().is_some_and(|code| not_there.contains(&code))
}

fn is_debian_12() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    release.lines().any(|line| line == "ID=debian") && release.lines().any(|line| line == "VERSION_ID=\"12\"")
}

fn print(report: &Report) {
    let seen = report.seen;
    let mut text = format!("oracle: {}: {}", report.name, report.tally);
    text += &format!(
        "    truth: {} calls, {} returns ({} odd), {} transfers ended {} calls, {} signals, {} contexts",
        seen.calls,
        seen.returns,
        seen.odd_returns,
        seen.transfers,
        seen.abandoned,
        seen.signals,
        seen.contexts
    );
    if seen.supposed > 0 {
        text += &format!(", {} of {} supposed callers confirmed", seen.confirmed, seen.supposed);
    }
    if report.ended == Ended::Enough {
        text += "; stopped in mid-run";
    }
    for listed in LISTED.iter().filter(|listed| report.tally.listed.contains_key(listed.name)) {
        text += &format!("\n    proof of \"{}\": {}", listed.name, listed.proof);
    }
    text.push('\n');
    say(&text);
}

/// Prints, whether the test passes or not: the counts are the result.
fn say(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
