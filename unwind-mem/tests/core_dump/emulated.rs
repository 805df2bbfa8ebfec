//! Cores that qemu writes of programs with a C library, dynamic and static, built by the cross
//! compilers that are installed: the modules are found through the dynamic loader's list.

#![cfg(unix)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use unwind_mem::core_dump::{CoreDump, FileSearch};

use crate::walk::{functions_of, walk};

/// A crash below `qsort`, in a signal handler.
const SOURCE: &str = r"
#include <signal.h>
#include <stdlib.h>
static int compare(const void *a, const void *b) { *(volatile int *)8 = 1; return 0; }
__attribute__((noinline)) int deep(int n) {
    int room[2] = { n, 1 };
    if (n) deep(n - 1); else qsort(room, 2, 4, compare);
    return room[0];
}
static void handler(int signal) { deep(2); }
int main(void) { signal(SIGUSR1, handler); raise(SIGUSR1); return 0; }
";

/// What the stack has of the program itself, but for where it starts.
const STACK: [&str; 6] = ["compare", "deep", "deep", "deep", "handler", "main"];

/// Debian's name of the machine, and qemu's. (riscv64 and loongarch64 return from handlers by way of
/// the vDSO, which qemu leaves out of the core.)
const MACHINES: [(&str, &str); 9] = [
    ("aarch64-linux-gnu", "aarch64"),
    ("arm-linux-gnueabihf", "arm"),
    ("i686-linux-gnu", "i386"),
    ("mips-linux-gnu", "mips"),
    ("mips64el-linux-gnuabi64", "mips64el"),
    ("mipsel-linux-gnu", "mipsel"),
    ("powerpc64-linux-gnu", "ppc64"),
    ("powerpc64le-linux-gnu", "ppc64le"),
    ("s390x-linux-gnu", "s390x"),
];

#[test]
fn programs_with_a_c_library() {
    let folder = std::env::temp_dir().join(format!("unwind-mem-{}-emulated", std::process::id()));
    for (machine, qemu) in MACHINES {
        for kind in ["-static", "-dynamic"] {
            std::fs::create_dir_all(&folder).unwrap();
            match build_and_crash(&folder, machine, qemu, kind) {
                Ok(core) => check(&folder, &core, machine, kind),
                Err(why) => {
                    let _ = writeln!(std::io::stderr(), "skipped: {machine} {kind}: {why}");
                }
            }
            // qemu's own core, which the kernel writes, is large.
            std::fs::remove_dir_all(&folder).unwrap();
        }
    }
}

/// Where the core is, or why there is none.
fn build_and_crash(folder: &Path, machine: &str, qemu: &str, kind: &str) -> Result<PathBuf, String> {
    std::fs::write(folder.join("crash.c"), SOURCE).unwrap();
    let compiler = format!("{machine}-gcc");
    let kind = if kind == "-static" { kind } else { "-O1" };
    let built = Command::new(&compiler)
        .args(["-O1", "-fasynchronous-unwind-tables", kind, "-o", "crash", "crash.c"])
        .current_dir(folder)
        .output()
        .map_err(|error| format!("{compiler}: {error}"))?;
    if !built.status.success() {
        return Err(format!("{compiler}: {}", String::from_utf8_lossy(&built.stderr)));
    }
    let script = format!("ulimit -c unlimited && exec qemu-{qemu} -L /usr/{machine} ./crash");
    Command::new("sh")
        .args(["-c", &script])
        .current_dir(folder)
        .output()
        .map_err(|error| error.to_string())?;
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let is_core = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("qemu_crash_");
    files.into_iter().find(is_core).ok_or_else(|| format!("qemu-{qemu} is not there or writes no core"))
}

fn check(folder: &Path, core: &Path, machine: &str, kind: &str) {
    let program = folder.join("crash");
    let sysroot = Path::new("/usr").join(machine);
    let search = FileSearch { executable: Some(program.clone()), sysroot: Some(sysroot) };
    let core = CoreDump::open(core, &search).unwrap();
    assert_eq!((core.problems(), core.missing_files()), (&[][..], &[][..]), "{machine} {kind}");
    let modules = core.modules();
    let has =
        |name: &str| modules.modules().iter().any(|module| module.path.to_string_lossy().contains(name));
    assert_eq!(has("libc.so"), kind == "-dynamic", "{machine} {kind}");
    assert_eq!(has("/ld"), kind == "-dynamic", "{machine} {kind}");
    let (frames, end) = walk(&core, &core.threads()[0]);
    let functions = functions_of(&program);
    let names: Vec<&str> = frames
        .iter()
        .filter_map(|frame| {
            let at = frame.pc.lookup_address();
            let module = modules.find(at).filter(|module| module.path == program)?;
            let at = at.wrapping_sub(module.bias);
            let function = functions.iter().find(|(start, size, _)| (*start..start + size).contains(&at));
            function.map(|(_, _, name)| name.as_str())
        })
        .filter(|name| ["compare", "deep", "handler", "main"].contains(name))
        .collect();
    assert_eq!(names, STACK, "{machine} {kind}: {end:?} {frames:x?}");
}
