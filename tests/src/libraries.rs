//! The libraries of this system, for tests of what compilers and linkers really write.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The libraries that matter most.
const NAMES: [&str; 9] = [
    "libc.so.6",
    "libm.so.6",
    "libstdc++.so.6",
    "libgcc_s.so.1",
    "libcrypto.so.3",
    "libssl.so.3",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
    "libpthread.so.0",
];

/// Where the host's are, and those of AArch64.
const FOLDERS: [&str; 6] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib/aarch64-linux-gnu",
    "/usr/aarch64-linux-gnu/lib",
];

/// Where cross packages put the C libraries of the other architectures. Arm's has the tables of its own ABI instead.
const CROSS: [&str; 11] = [
    "/usr/i686-linux-gnu/lib",
    "/usr/loongarch64-linux-gnu/lib",
    "/usr/mips-linux-gnu/lib",
    "/usr/mips64-linux-gnuabi64/lib",
    "/usr/mips64el-linux-gnuabi64/lib",
    "/usr/mips64el-linux-gnuabi64/lib32",
    "/usr/mipsel-linux-gnu/lib",
    "/usr/powerpc64-linux-gnu/lib",
    "/usr/powerpc64le-linux-gnu/lib",
    "/usr/riscv64-linux-gnu/lib",
    "/usr/s390x-linux-gnu/lib",
];

/// The files to try: those that `UNWIND_ROWS=FILE[:FILE…]` names, otherwise `found`; and this program.
pub fn named_or(found: impl FnOnce() -> BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = match std::env::var_os("UNWIND_ROWS") {
        Some(list) => std::env::split_paths(&list).collect(),
        None => found().into_iter().collect(),
    };
    files.extend(std::env::current_exe());
    files
}

/// The libraries of this machine that matter most, and those of AArch64 where they are installed. Says which folders
/// are not there.
pub fn system_libraries() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for folder in FOLDERS.map(Path::new) {
        if !folder.exists() {
            println!("SKIPPED {}: not on this machine", folder.display());
        }
        found.extend(NAMES.iter().filter_map(|name| std::fs::canonicalize(folder.join(name)).ok()));
    }
    found
}

/// The same, and the C library of every other architecture whose cross package is installed.
pub fn of_all_architectures() -> BTreeSet<PathBuf> {
    let mut found = system_libraries();
    for folder in CROSS.map(Path::new) {
        match std::fs::canonicalize(folder.join("libc.so.6")) {
            Ok(real) => drop(found.insert(real)),
            Err(_) => println!("SKIPPED the C library in {}: not on this machine", folder.display()),
        }
    }
    found
}
