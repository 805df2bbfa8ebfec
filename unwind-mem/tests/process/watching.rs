//! Processes watched for crashes.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use unwind_mem::process::{Access, Ended, ProcessError, watch};

use crate::children::{skip, states, wait_for};

/// Watches a shell script from its beginning: what crashed, by which signal, and how it ended.
fn watched(script: &str) -> Option<(Vec<(i32, usize)>, Ended)> {
    let mut child = Command::new("sh");
    let child = child.args(["-c", "kill -STOP $$; exec sh -c \"$0\"", script]).stderr(Stdio::null());
    let child = child.spawn().unwrap();
    wait_for("the shell to stop itself", || states(child.id()) == ['T']);
    let mut crashes = Vec::new();
    match watch(child.id(), |crash| crashes.push((crash.signal, crash.threads.len()))) {
        Ok(ended) => Some((crashes, ended)),
        Err(ProcessError::Denied { access: Access::Stop }) => {
            let mut child = child;
            child.kill().unwrap();
            child.wait().unwrap();
            skip("ptrace is not allowed here");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn exit_statuses_pass() {
    for status in [0, 1, 42, 255] {
        if let Some(answer) = watched(&format!("exit {status}")) {
            assert_eq!(answer, (vec![], Ended::Exited(status)));
        }
    }
}

#[test]
fn crashes_are_reported() {
    for (name, number) in [("SEGV", 11), ("ABRT", 6), ("BUS", 7), ("QUIT", 3)] {
        if let Some(answer) = watched(&format!("kill -{name} $$")) {
            assert_eq!(answer, (vec![(number, 1)], Ended::Killed(number)));
        }
    }
}

#[test]
fn other_ends_are_no_crashes() {
    for (name, number) in [("TERM", 15), ("KILL", 9), ("USR1", 10)] {
        if let Some(answer) = watched(&format!("kill -{name} $$")) {
            assert_eq!(answer, (vec![], Ended::Killed(number)));
        }
    }
}

#[test]
fn handled_and_ignored_signals_are_no_crashes() {
    let scripts = ["trap 'exit 5' SEGV; kill -SEGV $$", "trap '' ABRT; kill -ABRT $$; exit 5"];
    for script in scripts {
        if let Some(answer) = watched(script) {
            assert_eq!(answer, (vec![], Ended::Exited(5)));
        }
    }
}

#[test]
fn descendants_are_watched_too() {
    if let Some(answer) = watched("sh -c 'kill -SEGV $$'; sh -c 'kill -ABRT $$'; exit 3") {
        assert_eq!(answer, (vec![(11, 1), (6, 1)], Ended::Exited(3)));
    }
}

#[test]
fn job_control_works_while_watched() {
    if let Some(answer) = watched("(sleep 0.2; kill -CONT $$) & kill -STOP $$; wait; exit 6") {
        assert_eq!(answer, (vec![], Ended::Exited(6)));
    }
}

/// Not a test of its own: a watcher that dies at the first crash, see the next one.
#[test]
#[allow(clippy::zombie_processes, reason = "`watch` waits for it, or it outlives this process on purpose")]
fn watch_on_request() {
    if std::env::var_os("UNWIND_MEM_WATCH").is_none() {
        return;
    }
    let child = Command::new("sh")
        .args(["-c", "kill -STOP $$; kill -SEGV $$; exec sleep 60"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the shell to stop itself", || states(child.id()) == ['T']);
    println!("\nwatching {}", child.id());
    watch(child.id(), |_| {
        println!("\ncrashed");
        std::process::exit(0);
    })
    .unwrap();
}

/// As Ctrl-C may do it: the watcher dies while a signal is on its way through it.
#[test]
fn a_signal_is_not_lost_with_the_watcher() {
    if watched("exit 0").is_none() {
        return;
    }
    let mut watcher = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "watching::watch_on_request", "--nocapture"])
        .env("UNWIND_MEM_WATCH", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<String> =
        BufReader::new(watcher.stdout.take().unwrap()).lines().map_while(Result::ok).collect();
    watcher.wait().unwrap();
    let pid = lines.iter().find_map(|line| line.strip_prefix("watching ")?.parse::<u32>().ok()).unwrap();
    assert!(lines.iter().any(|line| line == "crashed"), "{lines:?}");
    // Whoever inherits it may leave a zombie.
    wait_for("the signal to end it", || matches!(states(pid).as_slice(), [] | ['Z']));
}
