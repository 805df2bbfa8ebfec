//! Prints stacks: of its own threads, of a live process, of a command where it crashes, of a core dump.
//!
//! `cargo run --release --example stack -- --help` tells more.

#![allow(
    clippy::exit,
    clippy::arithmetic_side_effects,
    reason = "a program may exit; what it computes with are sizes of its own"
)]

#[cfg(target_os = "linux")]
mod arguments;
#[cfg(target_os = "linux")]
mod core;
#[cfg(target_os = "linux")]
mod json;
#[cfg(target_os = "linux")]
mod lines;
#[cfg(target_os = "linux")]
mod live;
#[cfg(target_os = "linux")]
mod own;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod symbols;
#[cfg(target_os = "linux")]
mod text;
#[cfg(target_os = "linux")]
mod walk;

#[cfg(target_os = "linux")]
fn main() {
    use std::process::exit;

    use arguments::{Arguments, HELP, Target};

    let mut words = std::env::args_os().skip(1).peekable();
    if words.next_if(|word| word == run::STOPPED).is_some() {
        run::execute_stopped(words);
    }
    let arguments = match Arguments::parse(words) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("stack: {problem}; --help tells what there is");
            exit(2);
        }
    };
    let answer = match &arguments.target {
        Target::Help => {
            print!("{HELP}");
            Ok(0)
        }
        Target::Own => own::show(&arguments.how),
        Target::Live(pid) => live::show(*pid, &arguments.how),
        Target::Core(file, search) => core::show(file, search, &arguments.how),
        Target::Command(command) => run::show(command, &arguments.how),
    };
    match answer {
        Ok(status) => exit(status),
        Err(problem) => {
            eprintln!("stack: {problem}");
            exit(if matches!(arguments.target, Target::Command(_)) { 125 } else { 1 });
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("stack: live processes are supported on Linux only");
    std::process::exit(1);
}
