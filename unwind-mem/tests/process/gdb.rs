//! What gdb says about a process.

use std::collections::BTreeMap;
use std::process::Command;

use crate::children::skip;

/// One line for each thread: its id, then the pc of every frame that is one of the machine's (neither
/// inlined nor a tail call that gdb infers from debug information),
/// innermost first.
const SCRIPT: &str = "python
for thread in gdb.selected_inferior().threads():
    thread.switch()
    frame = gdb.newest_frame()
    pcs = []
    while frame is not None:
        if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
            pcs.append(hex(frame.pc()))
        frame = frame.older()
    print('STACK', thread.ptid[1], *pcs)
";

/// The pcs of every thread; `None`, said aloud, where gdb cannot do it here.
pub(crate) fn stacks(pid: u32) -> Option<BTreeMap<u32, Vec<u64>>> {
    let pid = pid.to_string();
    stacks_of(&["-p", &pid], &pid)
}

/// The same of what these arguments of gdb lead to.
pub(crate) fn stacks_of(target: &[&str], name: &str) -> Option<BTreeMap<u32, Vec<u64>>> {
    let script = std::env::temp_dir().join(format!("unwind-mem-{}-gdb-{name}", std::process::id()));
    std::fs::write(&script, SCRIPT).unwrap();
    let output = Command::new("gdb")
        .args(["-nx", "-batch", "-ex", "set backtrace past-main on", "-ex", "set backtrace past-entry on"])
        .args(["-ex", "set backtrace limit unlimited", "-x"])
        .arg(&script)
        .args(target)
        .env_remove("DEBUGINFOD_URLS")
        .output();
    std::fs::remove_file(&script).unwrap();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            skip(&format!("gdb cannot be started: {error}"));
            return None;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let stacks: BTreeMap<u32, Vec<u64>> = text
        .lines()
        .filter_map(|line| line.strip_prefix("STACK "))
        .map(|line| {
            let mut words = line.split(' ');
            let tid = words.next().unwrap().parse().unwrap();
            (tid, words.map(|pc| u64::from_str_radix(pc.trim_start_matches("0x"), 16).unwrap()).collect())
        })
        .collect();
    if stacks.is_empty() {
        skip(&format!("gdb gives no stacks here: {}", String::from_utf8_lossy(&output.stderr)));
        return None;
    }
    Some(stacks)
}
