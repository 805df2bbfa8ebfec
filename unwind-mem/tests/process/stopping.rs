//! Threads are stopped, and they always run again.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::time::Duration;

use unwind_mem::process::{ProcessError, StoppedProcess};

use crate::children::{Target, states, stop, wait_for};

/// A process that prints a number whenever it has got one further.
fn counting() -> Option<Target> {
    Target::start("sh", &["-c", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.01; done"])
}

fn runs(target: &mut Target) {
    let number = |target: &mut Target| target.line().parse::<u64>().unwrap();
    let before = number(target);
    assert_eq!(number(target), before + 1);
    assert!(!states(target.pid()).contains(&'t'));
}

#[test]
fn stopped_and_running_again() {
    let Some(mut target) = counting() else { return };
    target.line();
    let Some(stopped) = stop(target.pid()) else { return };
    assert_eq!(states(target.pid()), ['t']);
    stopped.resume();
    runs(&mut target);
}

#[test]
fn running_again_after_an_error() {
    let Some(mut target) = counting() else { return };
    target.line();
    let Some(stopped) = stop(target.pid()) else { return };
    let by = std::process::id();
    assert_eq!(StoppedProcess::stop(target.pid()).err(), Some(ProcessError::Traced { by }));
    drop(stopped);
    runs(&mut target);
}

#[test]
fn running_again_after_a_panic() {
    let Some(mut target) = counting() else { return };
    target.line();
    let Some(stopped) = stop(target.pid()) else { return };
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _stopped = stopped;
        std::panic::resume_unwind(Box::new("on purpose"));
    }));
    assert!(panic.is_err());
    runs(&mut target);
}

/// Not a test of its own: the process that is killed by the next one while it holds another.
#[test]
fn hold_on_request() {
    let Ok(pid) = std::env::var("UNWIND_MEM_HOLD") else { return };
    let _stopped = StoppedProcess::stop(pid.parse().unwrap()).unwrap();
    println!("\nholding");
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn running_again_after_the_tracer_is_killed() {
    for signal in ["INT", "TERM", "KILL"] {
        let Some(mut target) = counting() else { return };
        target.line();
        if stop(target.pid()).is_none() {
            return;
        }
        let mut holder = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "stopping::hold_on_request", "--nocapture"])
            .env("UNWIND_MEM_HOLD", target.pid().to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "holding"), "the holder could not stop it");
        assert_eq!(states(target.pid()), ['t']);
        let kill = Command::new("sh").args(["-c", &format!("kill -{signal} {}", holder.id())]).status();
        assert!(kill.unwrap().success());
        holder.wait().unwrap();
        runs(&mut target);
    }
}

#[test]
fn job_control_is_left_alone() {
    let Some(mut target) = counting() else { return };
    target.line();
    target.signal("STOP");
    wait_for("job control to stop it", || states(target.pid()) == ['T']);
    for _ in 0..5 {
        let Some(stopped) = stop(target.pid()) else { return };
        assert_eq!(stopped.threads().len(), 1);
        drop(stopped);
        wait_for("it to be stopped as before", || states(target.pid()) == ['T']);
    }
    target.signal("CONT");
    runs(&mut target);
}

/// Signals arrive while it is stopped again and again; none is lost, real-time ones neither.
#[test]
fn no_signal_is_lost() {
    let script = "import signal, sys\n\
        def count(number, frame): print('got', flush=True)\n\
        signal.signal(signal.SIGUSR1, count); signal.signal(signal.SIGRTMIN + 3, count)\n\
        print('ready', flush=True)\n\
        while True: sum(range(1000))\n";
    let Some(mut target) = Target::start("python3", &["-c", script]) else { return };
    assert_eq!(target.line(), "ready");
    for round in 0..40 {
        // Also while it is held.
        let early = round % 2 == 0;
        if early {
            target.signal(if round % 4 == 0 { "USR1" } else { "RTMIN+3" });
        }
        let Some(stopped) = stop(target.pid()) else { return };
        if !early {
            target.signal(if round % 4 == 1 { "USR1" } else { "RTMIN+3" });
        }
        drop(stopped);
        assert_eq!(target.line(), "got");
    }
}

/// Signals in the very moment of stopping: a timer that fires all the time.
#[test]
fn a_timer_keeps_running() {
    let script = "import signal\n\
        ticks = 0\n\
        def tick(number, frame):\n    global ticks; ticks += 1\n    if ticks % 200 == 0: print(ticks, flush=True)\n\
        signal.signal(signal.SIGALRM, tick); signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)\n\
        while True: sum(range(100))\n";
    let Some(mut target) = Target::start("python3", &["-c", script]) else { return };
    target.line();
    for _ in 0..300 {
        let Some(stopped) = stop(target.pid()) else { return };
        assert_eq!(stopped.threads().len(), 1);
    }
    // It would hang here, had its one handler been interrupted for good.
    let before: u64 = target.line().parse().unwrap();
    assert!(target.line().parse::<u64>().unwrap() > before);
}

/// Threads come and go while the process is being stopped.
#[test]
fn every_thread_is_stopped() {
    let script = "import threading, time\n\
        def short(): time.sleep(0.001)\n\
        print('ready', flush=True)\n\
        while True:\n    t = [threading.Thread(target=short) for _ in range(5)]\n    [x.start() for x in t]\n    [x.join() for x in t]\n";
    let Some(mut target) = Target::start("python3", &["-c", script]) else { return };
    assert_eq!(target.line(), "ready");
    for _ in 0..50 {
        let Some(stopped) = stop(target.pid()) else { return };
        let ours: BTreeSet<u32> = stopped.threads().iter().map(|thread| thread.tid).collect();
        let tasks = fs::read_dir(format!("/proc/{}/task", target.pid())).unwrap();
        let tasks = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse::<u32>().ok());
        // One that was about to end may still be listed, as a zombie.
        let alive: BTreeSet<u32> = tasks.filter(|tid| states_of(target.pid(), *tid) == Some('t')).collect();
        assert_eq!(ours, alive);
        assert!(
            !states(target.pid()).iter().any(|state| "RSD".contains(*state)),
            "{:?}",
            states(target.pid())
        );
    }
    wait_for("it to run", || states(target.pid()).iter().any(|state| "RS".contains(*state)));
}

fn states_of(pid: u32, tid: u32) -> Option<char> {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).ok()?;
    status.split_once("State:")?.1.trim_start().chars().next()
}

#[test]
fn no_such_process() {
    assert_eq!(StoppedProcess::stop(u32::MAX).err(), Some(ProcessError::NoSuchProcess));
}

#[test]
fn a_process_killed_while_it_is_held() {
    let Some(mut target) = Target::start("sleep", &["600"]) else { return };
    target.wait_until_asleep(1);
    let Some(stopped) = stop(target.pid()) else { return };
    target.kill();
    target.wait();
    drop(stopped);
    assert_eq!(StoppedProcess::stop(target.pid()).err(), Some(ProcessError::NoSuchProcess));
}
