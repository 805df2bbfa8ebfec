//! Walks against execution, on AArch64: runs that were captured under `qemu-aarch64`, replayed without it.
//! At every sample the walk has to equal the call stack that the calls and returns built up; see
//! `unwind_tests::oracle::judge` for what counts as right, `unwind_tests::captured` for what a sample is, and
//! `tests/fixtures/build.sh` for how the runs were made.
//!
//! Every comparison is counted and the counts are printed, also where a test passes, with the functions in
//! which walks were less than exact. Places where a table is wrong are in [`LISTED`], with the proof.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use unwind_arch_aarch64::{Aarch64, Registers};
use unwind_core::{Arch, Register};
use unwind_tests::captured::{Kind, Library, Listed, Loaded, Report, Run, Subject};
use unwind_tests::oracle::judge::{Fault, Judge, Mode};

/// Which runs there are, by the beginnings of their names: each is one test, so that they run side by side.
const GROUPS: [&str; 8] =
    ["calls-O0", "calls-O1", "calls-O2", "calls-O", "start-", "signals-", "interrupted-", ""];

const LISTED: &[Listed] = &[
    Listed {
        name: "glibc: longjmp",
        proof: "`__longjmp(env, value)`, sysdeps/aarch64/__longjmp.S: from the second instruction on the row is `CFA = \
                x0`, the address of the jmp_buf, with x19 to x30 in the words of it. These are the registers of the context to \
                be entered, not of the caller; sp there is not the CFA but in a word of the jmp_buf, and both sp and x30 are \
                mangled (`eor x30, x4, x3`). When they have been loaded, they are `same_value`, and the CFA is the jmp_buf \
                still. The caller's x30 and sp are in place until `eor x30` and `mov sp, x5`.",
        applies: |spot, _| spot.row.starts_with("c=r0+0 r19="),
    },
    Listed {
        name: "glibc: setcontext",
        proof: "`__setcontext`, sysdeps/unix/sysv/linux/aarch64/setcontext.S: from `mov x0, x9` on the row is `CFA = x0`, \
                the address of the ucontext, with x18 to x30 in the words of it: the context to be entered, which no call \
                leads to. Its sp is not the CFA but in a word of it.",
        applies: |spot, _| spot.row.starts_with("c=r0+0 r18="),
    },
    Listed {
        name: "glibc: swapcontext",
        proof: "`__swapcontext`, sysdeps/unix/sysv/linux/aarch64/swapcontext.S: its FDE is empty, so that x30 holds the \
                return address throughout. But its third instruction is `adr x30, 2f`, the address that the context \
                resumes at. From there on the return address is in the saved context alone, as its x1, until the context \
                is resumed and `mov x30, x1` behind the label has been executed.",
        applies: |spot, _| is(&spot.function, &["__swapcontext", "swapcontext"]) && spot.row == "c=r31+0",
    },
    Listed {
        name: "glibc: __startcontext",
        proof: "what a context's function returns to, and what it jumps to (`cbnz x0, __setcontext`): the FDE is empty, so that x30 \
                holds the return address. But nobody called it: makecontext has put its own address into x30.",
        applies: |spot, _| {
            is(&spot.function, &["__startcontext", "__setcontext", "setcontext"])
                && spot.outermost
                && spot.row == "c=r31+0"
        },
    },
    Listed {
        name: "glibc: _dl_runtime_resolve",
        proof: "sysdeps/aarch64/dl-trampoline.S, in ld.so; no symbol names it. The first PLT entry has pushed x16 and x30 before it \
                jumps here (`stp x16, x30, [sp, #-16]!`), so that the caller's sp is 16 above sp at its entry. The table begins with \
                `CFA = sp`, adds what the function itself pushes, and gives x30 at CFA + 8: the return address and x29 \
                are right, the CFA and with it the caller's sp is 16 too low: below sp itself, once the entry's words \
                have been dropped.",
        applies: |spot, fault| {
            spot.module.starts_with("ld-linux-aarch64")
                && match fault {
                    // Its last two instructions: below sp, where the table looks for registers, nothing is left.
                    Fault::End => spot.row.contains(" r30=*c+8 "),
                    _ => spot.sp_off == Some(-16) && spot.row.starts_with("c=r31+"),
                }
        },
    },
    Listed {
        name: "libgcc: a context being installed",
        proof: "`_Unwind_RaiseException` and its kin end in `__builtin_eh_return`: `uw_install_context_1` copies the \
                registers of the frame to be entered over their own saved registers, `str x1, [x29, #8]` puts its pc over their \
                return address, and `add sp, sp, x4` adds the difference of the two frames last. From the first copy to the `ret` the \
                saved words are no longer those of the caller; the table has no notion of that.",
        applies: |spot, _| {
            spot.function.starts_with("_Unwind_")
                && is(&spot.top, &["uw_install_context_1", "_Unwind_DebugHook", &spot.function])
        },
    },
];

fn is(name: &str, one_of: &[&str]) -> bool {
    one_of.contains(&name)
}

const fn numbers<const N: usize>(first: u16) -> [Register; N] {
    let mut registers = [Register(0); N];
    let mut index = 0;
    while index < N {
        registers[index] = Register(first + index as u16);
        index += 1;
    }
    registers
}

/// AAPCS64, section 6.1.1.
const PRESERVED: [Register; 11] = numbers(19);
const ALL: [Register; 31] = numbers(0);

fn subject() -> Subject<'static, Aarch64> {
    Subject {
        arch: Aarch64::new(),
        judge: Judge { fp: Register(29), preserved: &PRESERVED, all: &ALL },
        pc: 32,
        red_zone: 0,
        // mov x8, #139; svc #0
        trampoline: 8,
        listed: LISTED,
        tables: Kind::Dwarf,
        entry: None,
    }
}

#[test]
fn calls_without_optimisation() {
    check(0);
}

#[test]
fn calls_at_level_1() {
    check(1);
}

#[test]
fn calls_at_level_2() {
    check(2);
}

#[test]
fn calls_at_other_levels() {
    check(3);
}

#[test]
fn starts() {
    check(4);
}

#[test]
fn signals() {
    check(5);
}

#[test]
fn signals_at_every_instruction() {
    check(6);
}

#[test]
fn contexts_exceptions_and_assembly() {
    check(7);
}

/// The fixtures are what this is about: a walk that never meets a signed address says nothing about signing.
#[test]
fn signed_addresses_are_there() {
    let arch = Aarch64::new();
    let mut runs = 0;
    for run in runs_in(|name| name.contains("-pac") || name.contains("-standard")) {
        let link = run.slots.iter().position(|number| *number == 30).expect("x30 is captured");
        let signed = |value: u64| {
            value != arch.strip_code_pointer(value) && run.function(arch.strip_code_pointer(value)).is_some()
        };
        let in_register = run.samples.iter().filter(|sample| signed(sample.registers[link])).count();
        let words = run.samples.iter().flat_map(|sample| &sample.writes);
        let in_memory = words.filter(|(_, bytes)| signed(u64::from_le_bytes(*bytes))).count();
        say(&format!(
            "{}: x30 signed in {in_register} samples, {in_memory} signed words on the stack\n",
            run.program
        ));
        assert!(in_register > 0 && in_memory > 10, "{}", run.program);
        runs += 1;
    }
    assert!(runs >= 7, "{runs}");
}

/// Replays the runs of a group.
fn check(group: usize) {
    let folder = fixtures();
    let mut library = Library::new(Aarch64::new(), &folder);
    let mut samples = 0;
    let mut wrong = 0;
    for run in runs_in(|name| GROUPS.iter().position(|prefix| name.starts_with(prefix)) == Some(group)) {
        let loaded = Loaded::new(&mut library, &run).expect("its modules are there");
        let report = subject().check::<{ Registers::COUNT }>(&run, &loaded);
        say(&describe(&run, &report));
        assert_eq!(report.samples, run.samples.len() as u64);
        report.sources.assert_same(&run.program);
        assert!(report.counts.iter().all(|counts| counts.adds_up() && counts.walks == report.samples));
        samples += report.samples;
        wrong += report.failures.values().map(|(count, _)| count).sum::<u64>();
        expect(&run, &report);
    }
    assert!(samples > 1000, "{samples} samples");
    assert_eq!(wrong, 0);
}

/// What else has to be so.
fn expect(run: &Run, report: &Report) {
    let name = &run.program;
    // Nothing is lost or interrupted in these, and everything keeps frame pointers: a walk by them may skip
    // a caller, but it invents none.
    if name.starts_with("calls-") && !name.contains("-omit") {
        assert!(report.strays.is_empty(), "{name}: {:?}", report.strays);
    }
    for mode in [Mode::Tracking, Mode::Plain] {
        let counts = &report.counts[mode as usize];
        assert!(counts.exact * 100 > counts.walks * 40, "{name}: {mode:?}: {counts}");
    }
}

fn describe(run: &Run, report: &Report) -> String {
    let mut text = format!(
        "{} ({}): {} instructions in the window: {} repeats, {} thinned out, {} samples at {} places\n",
        run.program, run.command, run.stepped, run.repeats, run.thinned, report.samples, report.places
    );
    for (mode, counts) in ["tracking", "plain", "conventions"].iter().zip(&report.counts) {
        let _ = writeln!(text, "    {mode:<11} {counts}");
    }
    let recovered = report.counts[Mode::Tracking as usize].recovered;
    let _ =
        writeln!(text, "    registers recovered: {} right, {} unknown", recovered.right, recovered.unknown);
    text += &report.sources.to_string();
    for (name, count) in &report.listed {
        let _ = writeln!(text, "    listed: {name}: {count} walks");
    }
    for (name, count) in &report.doubts {
        let _ = writeln!(text, "    {name}: {count}");
    }
    for (name, count) in &report.strays {
        let _ = writeln!(text, "    by conventions, strays in {name}: {count}");
    }
    for (place, (count, first)) in &report.failures {
        let _ = writeln!(text, "    WRONG: {count} {place}; the first:\n{first}");
    }
    text
}

/// The runs whose names are wanted, by name.
fn runs_in(wanted: impl Fn(&str) -> bool) -> Vec<Run> {
    let entries = std::fs::read_dir(fixtures()).expect("the fixtures are there");
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "run"))
        .filter(|path| wanted(&path.file_stem().unwrap_or_default().to_string_lossy()))
        .collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let file = std::fs::read(path).expect("the run can be read");
        Run::from_file(&file).expect("the run is sound")
    };
    paths.iter().map(read).collect()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/aarch64")
}

/// Prints past the test harness, which hides what a passing test prints.
fn say(text: &str) {
    // Nobody may be listening.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
