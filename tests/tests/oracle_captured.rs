//! Walks against execution, on every architecture that has no test of its own: runs that were captured under qemu-user,
//! replayed without it. At every sample the walk has to equal the call stack that the calls and returns built up; see
//! `unwind_tests::oracle::judge` for what counts as right, `unwind_tests::captured` for what a sample is, and
//! `tests/fixtures/build-captured.sh` for how the runs were made.
//!
//! Every comparison is counted and the counts are printed, also where a test passes, with the functions in
//! which walks were less than exact. Places where a table is wrong are in [`LISTED`], with the proof.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use unwind_arch::AnyArch;
use unwind_core::{Arch, Register};
use unwind_tests::captured::{Kind, Library, Listed, Loaded, PC_ALONE, Report, Run, Subject};
use unwind_tests::oracle::judge::{Fault, Judge, Mode};
use unwind_tests::oracle::sources::{CONFIGURATIONS, Configuration, Replacing, SourceCounts};

const LISTED: &[Listed] = &[
    Listed {
        name: "glibc: __longjmp",
        proof: "`__longjmp(env, value)`, sysdeps/*/__longjmp.S: its row is that of a function that has just been entered (on \
                i386 that of the context to be entered), while it loads the registers of that context, the return address and \
                sp last, and then jumps there.",
        applies: |spot, _| {
            // In the shared library it has no symbol.
            let is_shared = spot.module.starts_with("libc.so") && spot.function.is_empty();
            let rows = [
                "c=r0+0 r3=*c+0 r4=r1 r5=*c+12 r6=*c+4 r7=*c+8 r8=r2",
                "c=r1+0",
                "c=r2+0",
                "c=r3+0",
                "c=r29+0",
            ];
            spot.function.ends_with("__longjmp") && spot.top == spot.function
                || is_shared && rows.contains(&spot.row.as_str())
        },
    },
    Listed {
        name: "gcc: what does not return",
        proof: "gcc saves no registers in functions that do not return, and uses those that a call should preserve: \
                `_exit` is an endless loop around a system call.",
        applies: |spot, fault| spot.function == "_exit" && matches!(fault, Fault::Register(1, _)),
    },
    Listed {
        name: "gcc: i386's get_pc_thunk",
        proof: "`__x86.get_pc_thunk.si` and its kin: `mov (%esp),%esi; ret`. They return their return address in a register that \
                other functions preserve; callers know.",
        applies: |spot, fault| {
            (spot.function.is_empty() || spot.function.starts_with("__x86.get_pc_thunk."))
                && spot.row == "c=r4+4 r8=*c-4"
                && matches!(fault, Fault::Register(1, Register(3 | 5 | 6 | 7)))
        },
    },
    Listed {
        name: "glibc: i386's memcpy",
        proof: "sysdeps/i386/i686/memcpy.S has no call frame information beyond its entry: `mov %edi,%eax; mov %esi,%edx` keep \
                these two in other registers, `push %eax` around the copying moves sp.",
        applies: |spot, fault| {
            let in_memcpy =
                spot.function == "memcpy" || spot.function.is_empty() && spot.module.contains(".so");
            in_memcpy
                && spot.row == "c=r4+4 r8=*c-4"
                && matches!(fault, Fault::Frame(_) | Fault::Register(_, Register(6 | 7)))
        },
    },
    Listed {
        name: "glibc: i386's system calls",
        proof: "those of one or two arguments, sysdeps/unix/sysv/linux/i386/sysdep.h: `mov %ebx,%edx` keeps ebx while the kernel has the \
                argument there, without call frame information.",
        applies: |spot, fault| {
            spot.function == "__sigaltstack"
                && spot.row == "c=r4+4 r8=*c-4"
                && matches!(fault, Fault::Register(1, Register(3)))
        },
    },
    Listed {
        name: "glibc: MIPS's setjmp",
        proof: "`__sigsetjmp` and its kin, sysdeps/mips/mips64/setjmp.S, make a gp of their own in $28 for a jump, the caller's being in \
                another register: without call frame information.",
        applies: |spot, fault| {
            spot.function.ends_with("setjmp") && matches!(fault, Fault::Register(1, Register(28)))
        },
    },
    Listed {
        name: "gcc: what MIPS's delay slots save",
        proof: "`jalr $t9; sd $s1,8($sp)`: the register is saved in the delay slot, and the row that says so begins at the jump, where it \
                has not been saved yet.",
        applies: |spot, fault| match fault {
            Fault::Register(1, Register(number @ 16..=23)) => {
                spot.row.starts_with("c=r29+") && spot.row.contains(&format!(" r{number}=*c-"))
            }
            _ => false,
        },
    },
    Listed {
        name: "glibc: PowerPC's setjmp",
        proof: "`__vmx__sigsetjmp`, sysdeps/powerpc/powerpc64/setjmp-common.S: its last row, `CFA = r1+32`, begins behind `stdu r1,-32(r1)`; \
                the two instructions behind `addi r1,r1,32` at its end have it still.",
        applies: |spot, _| spot.function.ends_with("sigsetjmp") && spot.row == "c=r1+32 r65=*c+16",
    },
    Listed {
        name: "gcc: LoongArch's epilogues",
        proof: "of functions with a frame pointer: `ld.d $fp,$sp,N`, then `addi.d $sp,$sp,M`, and only behind that the CFA is on sp: \
                in between it is on a frame pointer that is the caller's already (its rule says so: it has none any more).",
        applies: |spot, _| spot.row.starts_with("c=r22+0") && !spot.row.contains(" r22="),
    },
    Listed {
        name: "glibc: what does not return, on Arm",
        proof: "`__libc_start_main` and `__libc_start_call_main` end in `exit`: gcc saves none of the registers that they use beside those that \
                their tables name, `push {r7, fp, lr}` and then `mov r6, r2`; `push {lr}` and then `ldr r4, [sp]`.",
        applies: |spot, fault| {
            // In the shared library the latter has no symbol.
            let is_shared = spot.module.starts_with("libc.so") && spot.function.is_empty();
            let is_start = spot.function.starts_with("__libc_start_") && spot.row.starts_with("ehabi");
            (is_start || is_shared && spot.row == "ehabi AddVsp(52) AddVsp(256) Pop(16384) Finish")
                && matches!(fault, Fault::Register(_, Register(4..=10)))
        },
    },
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

static ALL: [Register; 32] = numbers(0);

/// What the ELF header of an architecture's programs says, and what the runs need to know.
struct Machine {
    folder: &'static str,
    e_machine: u16,
    ei_class: u8,
    ei_data: u8,
    /// The DWARF number of pc in the runs.
    pc: u16,
    red_zone: u64,
    /// The length of a signal trampoline.
    trampoline: u64,
    /// How many of the first registers a signal frame restores.
    general: usize,
    kind: Kind,
}

const RISCV64: Machine = Machine {
    folder: "riscv64",
    e_machine: 243,
    ei_class: 2,
    ei_data: 1,
    pc: PC_ALONE,
    red_zone: 0,
    trampoline: 8,
    general: 32,
    kind: Kind::Dwarf,
};

const S390X: Machine = Machine {
    folder: "s390x",
    e_machine: 22,
    ei_class: 2,
    ei_data: 2,
    pc: 65,
    red_zone: 0,
    trampoline: 2,
    general: 16,
    kind: Kind::Dwarf,
};

const X86: Machine = Machine {
    folder: "x86",
    e_machine: 3,
    ei_class: 1,
    ei_data: 1,
    pc: 8,
    red_zone: 0,
    trampoline: 8,
    general: 8,
    kind: Kind::Dwarf,
};

const POWERPC64LE: Machine = Machine {
    folder: "powerpc64le",
    e_machine: 21,
    ei_class: 2,
    ei_data: 1,
    pc: PC_ALONE,
    red_zone: 288,
    trampoline: 12,
    general: 32,
    kind: Kind::Dwarf,
};

const MIPS64EL: Machine = Machine {
    folder: "mips64el",
    e_machine: 8,
    ei_class: 2,
    ei_data: 1,
    pc: PC_ALONE,
    red_zone: 0,
    trampoline: 8,
    general: 32,
    kind: Kind::Dwarf,
};

const LOONGARCH64: Machine = Machine {
    folder: "loongarch64",
    e_machine: 258,
    ei_class: 2,
    ei_data: 1,
    pc: PC_ALONE,
    red_zone: 0,
    trampoline: 8,
    general: 32,
    kind: Kind::Dwarf,
};

/// A32 and T32.
const ARM: Machine = Machine {
    folder: "arm",
    e_machine: 40,
    ei_class: 1,
    ei_data: 1,
    pc: 15,
    red_zone: 0,
    trampoline: 8,
    general: 15,
    kind: Kind::Ehabi,
};

#[test]
fn riscv64() {
    check(&RISCV64);
}

#[test]
fn s390x() {
    check(&S390X);
}

#[test]
fn x86() {
    check(&X86);
}

#[test]
fn powerpc64le() {
    check(&POWERPC64LE);
}

#[test]
fn mips64el() {
    check(&MIPS64EL);
}

#[test]
fn loongarch64() {
    check(&LOONGARCH64);
}

#[test]
fn arm() {
    check(&ARM);
}

/// An oracle that cannot find a stale answer finds none: here a cache is not told that modules were replaced.
#[test]
fn stale_answers_are_noticed() {
    let (arch, folder) = (RISCV64.arch(), fixtures().join(RISCV64.folder));
    let run = runs_in(&folder).remove(0);
    let preserved: Vec<_> = run.preserved.iter().map(|number| Register(*number)).collect();
    let loaded = Loaded::new(&mut Library::new(arch, &folder), &run).expect("its modules are there");
    let subject = RISCV64.subject(arch, &preserved);
    for (replacing, is_stale) in [(Replacing::Told, false), (Replacing::Untold, true)] {
        let report = subject.check_replacing::<80>(&run, &loaded, replacing);
        for (configuration, counts) in CONFIGURATIONS.iter().zip(&report.sources.counts) {
            let is_stale = is_stale && *configuration == Configuration::Replaced;
            let SourceCounts { walks, different, .. } = counts;
            say(&format!(
                "{replacing:?}: {configuration:?}: {different} of {walks} walks and lookups differ\n"
            ));
            assert_eq!(*different > walks / 10, is_stale, "{replacing:?}: {configuration:?}");
            assert!(is_stale || *different == 0, "{replacing:?}: {configuration:?}: {different}");
        }
    }
}

impl Machine {
    fn arch(&self) -> AnyArch {
        let arch = AnyArch::from_elf(self.e_machine, self.ei_class, self.ei_data);
        arch.expect("an architecture that there is")
    }

    fn subject<'s>(&self, arch: AnyArch, preserved: &'s [Register]) -> Subject<'s, AnyArch> {
        Subject {
            arch,
            judge: Judge { fp: arch.fp(), preserved, all: &ALL[..self.general] },
            pc: self.pc,
            red_zone: self.red_zone,
            trampoline: self.trampoline,
            listed: LISTED,
            tables: self.kind,
            entry: None,
        }
    }
}

/// Replays the runs of an architecture.
fn check(machine: &Machine) {
    let arch = machine.arch();
    let folder = fixtures().join(machine.folder);
    let mut library = Library::new(arch, &folder);
    let (mut samples, mut wrong, mut whole) = (0, 0, 0);
    for run in runs_in(&folder) {
        // The capturer's list. The architecture's may have more: registers that no function touches.
        let preserved: Vec<_> = run.preserved.iter().map(|number| Register(*number)).collect();
        let forgotten = preserved.iter().find(|register| !arch.is_callee_saved(**register));
        assert_eq!(forgotten, None, "{} does not preserve it", arch.name());
        let loaded = Loaded::new(&mut library, &run).expect("its modules are there");
        let subject = machine.subject(arch, &preserved);
        let report = subject.check::<80>(&run, &loaded);
        say(&describe(machine, &run, &report));
        assert_eq!(report.samples, run.samples.len() as u64);
        report.sources.assert_same(&run.program);
        assert!(report.counts.iter().all(|counts| counts.adds_up() && counts.walks == report.samples));
        samples += report.samples;
        whole += report.whole[Mode::Tracking as usize];
        wrong += report.failures.values().map(|(count, _)| count).sum::<u64>();
    }
    assert!(samples > 1000, "{samples} samples");
    assert_eq!(wrong, 0);
    // A walk may end where there is no table (on Arm: memcpy, memset, sigaction, the loader); these are not the rule.
    assert!(whole * 5 > samples * 2, "{whole} whole chains in {samples} samples");
}

fn describe(machine: &Machine, run: &Run, report: &Report) -> String {
    let mut text = format!(
        "{} {} ({}): {} instructions in the window: {} repeats, {} thinned out, {} samples at {} places\n",
        machine.folder,
        run.program,
        run.command,
        run.stepped,
        run.repeats,
        run.thinned,
        report.samples,
        report.places
    );
    for (mode, counts) in ["tracking", "plain", "conventions"].iter().zip(&report.counts) {
        let _ = writeln!(text, "    {mode:<11} {counts}");
    }
    let recovered = report.counts[Mode::Tracking as usize].recovered;
    let _ = writeln!(text, "    whole chains: {:?}", report.whole);
    let _ =
        writeln!(text, "    registers recovered: {} right, {} unknown", recovered.right, recovered.unknown);
    text += &report.sources.to_string();
    for (name, count) in &report.listed {
        let _ = writeln!(text, "    listed: {name}: {count} walks");
    }
    for (name, count) in &report.doubts {
        let _ = writeln!(text, "    {name}: {count}");
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
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/captured")
}

/// Prints past the test harness, which hides what a passing test prints.
fn say(text: &str) {
    // Nobody may be listening.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
