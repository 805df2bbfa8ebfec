//! Cores of processes of this machine, against the live process and against gdb.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use unwind_core::{Frame, ModuleMap, Unwinder};
use unwind_mem::core_dump::{CoreDump, FileSearch};
use unwind_mem::elf::{ElfModules, IndexRoom};
use unwind_mem::{Page, PageCache};

use crate::children::{Target, skip, stop};
use crate::gdb;
use crate::stacks::walk;

/// A folder that is deleted when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("unwind-mem-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    /// The one core file in it.
    fn core(&self) -> Option<PathBuf> {
        let mut files = std::fs::read_dir(&self.0).unwrap().map(|file| file.unwrap().path());
        files.find(|path| path.file_name().unwrap().to_string_lossy().contains("core"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The frames of each thread. Every walk must be complete, every file found and compared.
fn frames(core: &CoreDump) -> BTreeMap<u32, Vec<Frame>> {
    assert_eq!((core.problems(), core.missing_files()), (&[][..], &[][..]));
    assert!(core.modules().modules().iter().all(|module| module.verified));
    let mut room = IndexRoom::default();
    let sources = core.modules().sources(&mut room);
    let mut pages = vec![Page::<4096>::EMPTY; 64];
    let mut stacks = BTreeMap::new();
    for thread in core.threads() {
        let map = ModuleMap::new(&thread.arch, &sources).unwrap();
        let map = if core.lists_all_code() { map.complete() } else { map };
        let unwinder = Unwinder::new(thread.arch, map);
        let memory = PageCache::new(core.memory(), &mut pages);
        let mut frames = unwinder.frames_tracking::<33, _>(&thread.registers, memory).unwrap();
        let found: Vec<Frame> = frames.by_ref().collect();
        let end = frames.end().unwrap();
        assert!(end.is_complete(), "{}: {end}", thread.tid);
        stacks.insert(thread.tid, found);
    }
    stacks
}

fn pcs(frames: &[Frame]) -> Vec<u64> {
    frames.iter().map(|frame| frame.pc.address()).collect()
}

/// A core that gdb writes of a live process has the stacks that the process has.
#[test]
fn a_core_by_gdb_equals_the_live_process() {
    let script = "import threading, time\n\
        def deep(n):\n    time.sleep(600) if n == 0 else sorted([0], key=lambda _: deep(n - 1))\n\
        for n in range(2): threading.Thread(target=deep, args=(n * 5,), daemon=True).start()\n\
        deep(7)\n";
    let Some(target) = Target::start("python3", &["-c", script]) else { return };
    target.wait_until_asleep(3);
    let folder = Folder::new("gcore");
    let file = folder.0.join("core");
    let gdb = Command::new("gdb")
        .args(["-nx", "-batch", "-p", &target.pid().to_string()])
        .args(["-ex", &format!("generate-core-file {}", file.display())])
        .env_remove("DEBUGINFOD_URLS")
        .output();
    if gdb.is_err() || !file.is_file() {
        skip("gdb writes no core here");
        return;
    }
    let Some(stopped) = stop(target.pid()) else { return };
    let live = walk(&stopped, &ElfModules::of_process(target.pid()).unwrap());
    drop(stopped);
    let core = CoreDump::open(&file, &FileSearch::default()).unwrap();
    assert_eq!(core.pid(), Some(target.pid()));
    let dumped = frames(&core);
    assert_eq!(dumped.len(), 3);
    for (tid, (frames, end)) in live {
        assert!(end.is_complete(), "{end}");
        let place =
            |frames: &[Frame]| -> Vec<_> { frames.iter().map(|frame| (frame.pc, frame.sp)).collect() };
        assert_eq!(place(&frames), place(&dumped[&tid]), "thread {tid}");
    }
}

/// A program that the kernel dumps: its crashed thread first, all threads as gdb has them.
#[test]
fn a_core_by_the_kernel_equals_gdb() {
    let Some((core, folder, file)) = kernel_core("kernel-core") else { return };
    assert_eq!(core.signal(), Some(6));
    assert_eq!(core.threads()[0].tid, core.pid().unwrap());
    assert!(core.lists_all_code());
    let python =
        core.modules().modules().iter().find(|module| module.path.to_string_lossy().contains("python"));
    let python = python.unwrap().path.to_string_lossy().into_owned();
    let ours = frames(&core);
    assert_eq!(ours.len(), 2);
    let Some(gdbs) = gdb::stacks_of(&[&python, file.to_str().unwrap()], "core") else { return };
    let gdbs: Vec<_> = gdbs.into_iter().collect();
    let ours: Vec<_> = ours.iter().map(|(tid, frames)| (*tid, pcs(frames))).collect();
    assert_eq!(ours, gdbs);
    drop(folder);
}

/// The same core cut, and with its headers changed; and one whose files are not to be found.
#[test]
fn a_damaged_core_by_the_kernel() {
    let Some((whole, folder, file)) = kernel_core("kernel-damaged") else { return };
    let full = frames(&whole);
    // Nothing is found here, which is quicker, and leaves the modules that the core holds: the vDSO.
    let nowhere = FileSearch { executable: None, sysroot: Some(folder.0.clone()) };
    let without_files = CoreDump::open(&file, &nowhere).unwrap();
    assert!(without_files.missing_files().len() > 2, "{:?}", without_files.missing_files());
    let bytes = std::fs::read(&file).unwrap();
    for part in 1..16 {
        let length = bytes.len() / 16 * part;
        let core = CoreDump::from_bytes(bytes[..length].to_vec(), &FileSearch::default()).unwrap();
        assert!(!core.problems().is_empty());
        let mut room = IndexRoom::default();
        let sources = core.modules().sources(&mut room);
        for thread in core.threads() {
            let unwinder = Unwinder::new(thread.arch, ModuleMap::new(&thread.arch, &sources).unwrap());
            let frames = unwinder.frames_tracking::<33, _>(&thread.registers, core.memory()).unwrap();
            let found: Vec<u64> = frames.map(|frame| frame.pc.address()).collect();
            assert_eq!(found, pcs(&full[&thread.tid])[..found.len()], "{part}");
        }
    }
    let headers = 16 << 10;
    let mut bytes = bytes[..headers * 4].to_vec();
    for index in (0..headers).step_by(61) {
        for change in [1, 0x80, 0xff] {
            bytes[index] ^= change;
            if let Ok(core) = CoreDump::from_bytes(bytes.clone(), &nowhere) {
                let mut room = IndexRoom::default();
                let sources = core.modules().sources(&mut room);
                ModuleMap::new(&core.arch(), &sources).unwrap();
            }
            bytes[index] ^= change;
        }
    }
}

/// Python aborts in a deep call, while another thread sleeps. `None`, said aloud, where the kernel
/// does not write cores into the working folder.
fn kernel_core(name: &str) -> Option<(CoreDump, Folder, PathBuf)> {
    let folder = Folder::new(name);
    let script = "import os, threading, time\n\
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n\
        time.sleep(0.1)\n\
        def deep(n): return os.abort() if n == 0 else sorted([0], key=lambda _: deep(n - 1))\n\
        deep(5)\n";
    let status = Command::new("sh")
        .args(["-c", "ulimit -c unlimited && exec python3 -c \"$0\"", script])
        .current_dir(&folder.0)
        .stderr(std::process::Stdio::null())
        .status();
    let file = status.ok().and_then(|_| folder.core());
    let Some(file) = file else {
        skip("python3 or the kernel leaves no core in the working folder here");
        return None;
    };
    let core = CoreDump::open(Path::new(&file), &FileSearch::default()).unwrap();
    Some((core, folder, file))
}
