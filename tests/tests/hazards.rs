//! The conformance suite: a named test for every hazard, for every architecture it applies to, and beside
//! them what only this library can be asked: which error it is, which mark, which trust.
//!
//! The cases are data ([`unwind_tests::hazard`]), so that another unwinder can be put through them:
//! `cargo bench --bench hazards` prints how this library and others fare. `HAZARDS.md` is the list.
//!
//! What a hazard's test shows by an example, the property tests show for stacks and tables of every form.

use unwind_core::{Arch, ByteOrder};
use unwind_tests::hazard::{HAZARDS, Hazard, Ours, Unwinder, Verdict, judge};
use unwind_tests::synthetic::AnyArch;

#[path = "hazards/cfi.rs"]
mod cfi;
#[path = "hazards/context.rs"]
mod context;
#[path = "hazards/expression.rs"]
mod expression;
#[path = "hazards/lookup.rs"]
mod lookup;
#[path = "hazards/malformed.rs"]
mod malformed;
#[path = "hazards/step.rs"]
mod step;
#[path = "hazards/table.rs"]
mod table;

/// Every architecture, as the tests are called.
macro_rules! architectures {
    ($then:ident $($arguments:tt)*) => {
        $then! {
            [x86_64, aarch64, aarch64be, x86, arm, armbe, riscv64, riscv32, mips, mipsle, mips64, mips64le,
             s390x, powerpc64, powerpc64le, loongarch64]
            $($arguments)*
        }
    };
}

/// One module for each hazard, with one test for each architecture that it applies to.
macro_rules! suite {
    ($($module:ident::$hazard:ident: $scope:ident,)*) => {
        $(mod $hazard {
            scope!($scope $hazard);
        })*

        /// What each hazard's scope is.
        const SCOPES: &[(&str, &str)] = &[$((stringify!($hazard), stringify!($scope)),)*];
    };
}

macro_rules! scope {
    (all $hazard:ident) => { architectures!(tests $hazard); };
    (x86s $hazard:ident) => { tests!([x86_64, x86] $hazard); };
    (aarch64s $hazard:ident) => { tests!([aarch64, aarch64be] $hazard); };
    (trampolines $hazard:ident) => { tests!([x86_64, aarch64, aarch64be] $hazard); };
    (arms $hazard:ident) => { tests!([arm, armbe] $hazard); };
    (records $hazard:ident) => { tests!([aarch64, aarch64be, arm, armbe, riscv64, riscv32] $hazard); };
    (sframes $hazard:ident) => { tests!([x86_64, aarch64, aarch64be, s390x] $hazard); };
    // Those whose ABI has a frame pointer chain.
    (chains $hazard:ident) => {
        tests!([x86_64, aarch64, aarch64be, x86, arm, armbe, riscv64, riscv32, loongarch64] $hazard);
    };
}

macro_rules! tests {
    ([$($arch:ident),*] $hazard:ident) => {
        $(
            #[test]
            fn $arch() {
                super::check(stringify!($hazard), stringify!($arch));
            }
        )*
    };
}

unwind_tests::each_hazard!(suite);

/// The variants of an architecture that go by this name.
fn named(name: &str) -> Vec<AnyArch> {
    AnyArch::real().into_iter().filter(|arch| name_of(arch) == name).collect()
}

/// The architecture's name, and the byte order where it is not the usual one.
fn name_of(arch: &AnyArch) -> String {
    let is_big = arch.byte_order() == ByteOrder::Big;
    match (arch.name(), is_big) {
        (name @ ("aarch64" | "arm"), true) => format!("{name}be"),
        (name @ ("mips" | "mips64" | "powerpc64"), false) => format!("{name}le"),
        (name, _) => name.to_owned(),
    }
}

fn hazard(name: &str) -> Hazard {
    *HAZARDS.iter().find(|hazard| hazard.name == name).expect("it is on the list")
}

/// Puts this library through the cases of a hazard.
fn check(name: &str, arch: &str) {
    let mut count = 0;
    for arch in named(arch) {
        for case in (hazard(name).cases)(arch) {
            let walks = Ours.walk(&case).expect("every case is supported");
            for (way, found) in walks {
                let verdict = judge(&case.expect, &found);
                assert_eq!(
                    verdict,
                    Verdict::Pass,
                    "{name} on {arch:?}: {}, {way}: found {found:x?}, expected {:x?}",
                    case.name,
                    case.expect
                );
                count += 1;
            }
        }
    }
    assert!(count > 0, "{name} has no case for {arch}");
}

/// No hazard has cases for an architecture that it is not tested for, and none is left out.
#[test]
fn every_case_is_tested() {
    macro_rules! names {
        ([$($arch:ident),*]) => { [$(stringify!($arch)),*] };
    }
    let names = architectures!(names);
    assert_eq!(names.iter().map(|name| named(name).len()).sum::<usize>(), AnyArch::real().len());
    assert_eq!(SCOPES.len(), HAZARDS.len());
    for ((name, scope), hazard) in SCOPES.iter().zip(HAZARDS) {
        assert_eq!(*name, hazard.name);
        for arch in AnyArch::real() {
            let is_tested = match *scope {
                "all" => true,
                "x86s" => arch.name().starts_with("x86"),
                "chains" => arch.frame_pointer_rule().is_some(),
                "trampolines" => matches!(arch.name(), "x86_64" | "aarch64"),
                "arms" => arch.name() == "arm",
                "records" => matches!(arch.name(), "aarch64" | "arm" | "riscv64" | "riscv32"),
                "sframes" => matches!(arch.name(), "x86_64" | "aarch64" | "s390x"),
                "aarch64s" => arch.name() == "aarch64",
                other => panic!("{other} is no scope"),
            };
            assert_eq!(!(hazard.cases)(arch).is_empty(), is_tested, "{name} on {arch:?}");
        }
    }
}

/// `HAZARDS.md` lists them all, and none that there is not.
#[test]
fn the_list_is_complete() {
    let list = include_str!("../HAZARDS.md");
    let listed: Vec<&str> =
        list.split('`').filter(|word| word.starts_with('h') && word.contains('_')).collect();
    for hazard in HAZARDS {
        assert!(listed.contains(&hazard.name), "{} is not listed", hazard.name);
    }
    for name in listed.iter().filter(|name| name[1..3].parse::<u32>().is_ok()) {
        assert!(HAZARDS.iter().any(|hazard| hazard.name == *name), "{name} is no hazard");
    }
}
