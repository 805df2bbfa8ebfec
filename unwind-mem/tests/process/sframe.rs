//! Programs with `.sframe`, which the system's assembler writes if it can.

use std::path::{Path, PathBuf};
use std::process::Command;

use unwind_core::{End, Frame, Options, UnwindUserType, UnwindUserTypes};
use unwind_mem::elf::ElfModules;

use crate::children::{Target, skip, stop};
use crate::stacks::walk_with;

/// Ordinary frames, one with an array of variable size, a recursion, and at the end a system call.
const SOURCE: &str = r#"
#include <stdio.h>
#include <unistd.h>
static volatile int zero;
__attribute__((noinline)) static int bottom(void) { pause(); return zero; }
__attribute__((noinline)) static int array(int n) { volatile char room[n + 1]; room[n] = 1; return room[n] + bottom(); }
__attribute__((noinline)) static int again(int n) { return n ? 1 + again(n - 1) + zero : array(100 + zero) + zero; }
int main(void) { puts("ready"); fflush(stdout); return again(5) + zero; }
"#;

/// How many of its frames are functions of the source: `bottom`, `array`, `again` six times, `main`.
const FRAMES: usize = 9;

/// The program, in a file of its own; `None`, said aloud, where it cannot be built.
fn build(name: &str) -> Option<PathBuf> {
    let path = std::env::temp_dir().join(format!("unwind-mem-{}-{name}", std::process::id()));
    let source = path.with_extension("c");
    std::fs::write(&source, SOURCE).unwrap();
    let gcc = Command::new("gcc")
        .args(["-O2", "-fno-optimize-sibling-calls", "-fasynchronous-unwind-tables", "-Wa,--gsframe", "-o"])
        .args([&path, &source])
        .output();
    std::fs::remove_file(&source).unwrap();
    match gcc {
        Ok(output) if output.status.success() => Some(path),
        Ok(output) => {
            skip(&format!("gcc -Wa,--gsframe: {}", String::from_utf8_lossy(&output.stderr)));
            None
        }
        Err(error) => {
            skip(&format!("gcc cannot be started: {error}"));
            None
        }
    }
}

/// The stack of the program's thread by these kinds of source.
fn stack(pid: u32, modules: &ElfModules, types: UnwindUserTypes) -> Option<(Vec<Frame>, End)> {
    let stopped = stop(pid)?;
    let mut options = Options::default();
    options.types = types;
    walk_with(&stopped, modules, options).into_values().next()
}

fn check(pid: u32, path: &Path) {
    let modules = ElfModules::of_process(pid).unwrap();
    let program = modules.modules().iter().find(|module| module.path == path).unwrap();
    assert_eq!(program.sframe_error, None);
    let Some((frames, end)) = stack(pid, &modules, UnwindUserTypes::ALL) else { return };
    assert!(end.is_complete(), "{end}");
    // A frame says what led to it, that is what covers the one before it.
    let in_program = |pc: u64| program.ranges.iter().any(|range| range.contains(&pc));
    let mut by_sframe = 0;
    for pair in frames.windows(2) {
        let source = pair[1].provenance.source.unwrap();
        if source == UnwindUserType::SFrame {
            assert!(in_program(pair[0].pc.lookup_address()), "{pair:x?}");
            by_sframe += 1;
        }
    }
    assert_eq!(by_sframe, FRAMES, "{frames:x?}");
    let without = UnwindUserTypes::ALL.without(UnwindUserType::SFrame);
    let Some((by_dwarf, dwarf_end)) = stack(pid, &modules, without) else { return };
    let places =
        |frames: &[Frame]| -> Vec<_> { frames.iter().map(|frame| (frame.pc, frame.sp, frame.fp)).collect() };
    assert_eq!(places(&frames), places(&by_dwarf));
    assert_eq!(dwarf_end, end);
    assert!(by_dwarf.iter().all(|frame| frame.provenance.source != Some(UnwindUserType::SFrame)));
}

#[test]
fn sframe_equals_dwarf() {
    let Some(path) = build("sframe") else { return };
    if let Some(mut target) = Target::start(path.to_str().unwrap(), &[]) {
        assert_eq!(target.line(), "ready");
        target.wait_until_asleep(1);
        check(target.pid(), &path);
    }
    std::fs::remove_file(&path).unwrap();
}
