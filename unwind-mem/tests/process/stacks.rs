//! Our stacks against gdb's, thread by thread and pc by pc.

use std::collections::BTreeMap;

use unwind_core::{End, Frame, ModuleMap, Options, Unwinder};
use unwind_mem::elf::{ElfModules, IndexRoom};
use unwind_mem::process::{ProcessMemory, StoppedProcess};
use unwind_mem::{Page, PageCache};

use crate::children::{Target, stop};
use crate::gdb;

/// The frames of each thread, and how its walk ended.
pub(crate) fn walk(stopped: &StoppedProcess, modules: &ElfModules) -> BTreeMap<u32, (Vec<Frame>, End)> {
    walk_with(stopped, modules, Options::default())
}

pub(crate) fn walk_with(
    stopped: &StoppedProcess,
    modules: &ElfModules,
    options: Options,
) -> BTreeMap<u32, (Vec<Frame>, End)> {
    let mut index = IndexRoom::default();
    let sources = modules.sources(&mut index);
    let mut room = vec![Page::<4096>::EMPTY; 64];
    let mut stacks = BTreeMap::new();
    for thread in stopped.threads() {
        let map = ModuleMap::new(&thread.arch, &sources).unwrap().complete();
        let unwinder = Unwinder::with_options(thread.arch, map, options.clone());
        let memory = PageCache::new(ProcessMemory::new(stopped.pid()), &mut room);
        let mut frames = unwinder.frames_tracking::<33, _>(&thread.registers, memory).unwrap();
        let found = frames.by_ref().collect();
        stacks.insert(thread.tid, (found, frames.end().unwrap()));
    }
    stacks
}

/// Compares all stacks of a process whose threads sleep. Returns how many frames that were.
fn compare(target: &Target) -> Option<usize> {
    let stopped = stop(target.pid())?;
    let modules = ElfModules::of_process(target.pid()).unwrap();
    let ours = walk(&stopped, &modules);
    drop(stopped);
    let gdbs = gdb::stacks(target.pid())?;
    assert_eq!(ours.keys().collect::<Vec<_>>(), gdbs.keys().collect::<Vec<_>>());
    let mut count = 0;
    for (tid, (frames, end)) in &ours {
        let pcs: Vec<u64> = frames.iter().map(|frame| frame.pc.address()).collect();
        assert_eq!(hex(&pcs), hex(&gdbs[tid]), "thread {tid}, {end}");
        assert!(end.is_complete(), "thread {tid}: {end}");
        count += pcs.len();
    }
    Some(count)
}

fn hex(pcs: &[u64]) -> Vec<String> {
    pcs.iter().map(|pc| format!("{pc:#x}")).collect()
}

#[test]
fn python_with_threads_equals_gdb() {
    let script = "import threading, time\n\
        def deep(n):\n    time.sleep(600) if n == 0 else sorted([0], key=lambda _: deep(n - 1))\n\
        for n in range(4): threading.Thread(target=deep, args=(n * 5,), daemon=True).start()\n\
        deep(20)\n";
    let Some(target) = Target::start("python3", &["-c", script]) else { return };
    target.wait_until_asleep(5);
    if let Some(frames) = compare(&target) {
        assert!(frames > 100, "{frames}");
    }
}

#[test]
fn perl_equals_gdb() {
    let script = "sub deep { my $n = shift; if ($n) { my @x = sort { deep($n - 1) } 1, 2 } else { sleep 600 } } deep(10)";
    let Some(target) = Target::start("perl", &["-e", script]) else { return };
    target.wait_until_asleep(1);
    compare(&target);
}

#[test]
fn bash_equals_gdb() {
    let script = "f() { if (($1)); then f $(($1 - 1)); else read -t 600 x <> <(:); fi; }; f 20";
    let Some(target) = Target::start("bash", &["-c", script]) else { return };
    target.wait_until_asleep(1);
    compare(&target);
}

#[test]
fn sleep_equals_gdb() {
    let Some(target) = Target::start("sleep", &["600"]) else { return };
    target.wait_until_asleep(1);
    compare(&target);
}

/// Text in pieces: a page of the C library's code that is anonymous by now, between the rest of
/// the file's mapping, and another one with other permissions.
#[test]
fn split_text_equals_gdb() {
    let script = "import ctypes, mmap, time\n\
        libc = ctypes.CDLL(None)\n\
        libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p\n\
        number, pointer = ctypes.c_long, ctypes.c_void_p\n\
        def page(name): return ctypes.cast(getattr(libc, name), pointer).value & ~4095\n\
        there, size = page('clock_nanosleep'), 8192\n\
        copy = libc.mmap(None, number(size), 7, 0x22, -1, number(0))\n\
        ctypes.memmove(copy, there, size)\n\
        moved = libc.mremap(pointer(copy), number(size), number(size), 3, pointer(there))\n\
        rest = libc.mprotect(pointer(page('qsort')), number(4096), 7)\n\
        print(moved == there, rest, flush=True)\n\
        time.sleep(600)\n";
    let Some(mut target) = Target::start("python3", &["-c", script]) else { return };
    let line = target.line();
    if line != "True 0" {
        crate::children::skip(&format!("the C library's code cannot be moved here: {line}"));
        return;
    }
    target.wait_until_asleep(1);
    let Some(stopped) = stop(target.pid()) else { return };
    let modules = ElfModules::of_process(target.pid()).unwrap();
    let top = unwind_core::UserRegisters::ip(&stopped.threads()[0].registers).unwrap();
    drop(stopped);
    let module = modules.find(top).unwrap();
    assert!(module.path.to_string_lossy().contains("libc"), "{module:?}");
    assert!(module.ranges.len() >= 4, "{:x?}", module.ranges);
    compare(&target);
}

/// A signal handler that waits, on the stack of what it interrupted.
#[test]
fn signal_handler_equals_gdb() {
    // A handler in C, as Python runs its own ones later: the one of faulthandler, which waits for
    // a reader of the pipe that it writes to.
    let script = "import faulthandler, os, signal, time\n\
        r, w = os.pipe(); os.set_blocking(w, False)\n\
        try:\n    while True: os.write(w, b'x' * 4096)\n\
        except BlockingIOError: pass\n\
        os.set_blocking(w, True)\n\
        faulthandler.register(signal.SIGUSR1, file=w)\n\
        print('ready', flush=True); time.sleep(600)\n";
    let Some(mut target) = Target::start("python3", &["-c", script]) else { return };
    assert_eq!(target.line(), "ready");
    target.wait_until_asleep(1);
    target.signal("USR1");
    // The handler sleeps in write(2), number 1 on x86-64, 64 on AArch64.
    let syscall = format!("/proc/{}/syscall", target.pid());
    if std::fs::read_to_string(&syscall).is_ok() {
        crate::children::wait_for("the handler to write", || {
            let now = std::fs::read_to_string(&syscall).unwrap();
            now.starts_with("1 ") || now.starts_with("64 ")
        });
    }
    target.wait_until_asleep(1);
    let Some(stopped) = stop(target.pid()) else { return };
    let modules = ElfModules::of_process(target.pid()).unwrap();
    let (frames, end) = walk(&stopped, &modules).into_values().next().unwrap();
    drop(stopped);
    assert!(frames.iter().skip(1).any(|frame| frame.pc.is_exact()), "no signal frame: {end}");
    compare(&target);
}

/// The vDSO has no file: its tables are read from memory.
#[test]
fn vdso_frames() {
    let script =
        "import time\nclock = time.clock_gettime\nprint('ready', flush=True)\nwhile True: clock(1)\n";
    let Some(mut target) = Target::start("python3", &["-c", script]) else { return };
    assert_eq!(target.line(), "ready");
    let Some(stopped) = stop(target.pid()) else { return };
    let modules = ElfModules::of_process(target.pid()).unwrap();
    let Some(vdso) = modules.modules().iter().find(|module| module.path.as_os_str() == "[vdso]") else {
        crate::children::skip("this kernel gives no vDSO");
        return;
    };
    drop(stopped);
    let mut seen = 0;
    for _ in 0..3000 {
        let Some(stopped) = stop(target.pid()) else { return };
        for (frames, end) in walk(&stopped, &modules).into_values() {
            assert!(end.is_complete(), "{end}: {frames:x?}");
            let inside =
                |frame: &Frame| vdso.ranges.iter().any(|range| range.contains(&frame.pc.lookup_address()));
            seen += usize::from(frames.first().is_some_and(inside));
        }
        if seen >= 20 {
            return;
        }
    }
    assert!(seen > 0, "never stopped in the vDSO");
}
