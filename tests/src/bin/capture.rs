//! Captures a run of a program under qemu-user. `tests/fixtures/build.sh` calls it.

#[cfg(all(target_os = "linux", target_has_atomic = "64"))]
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[cfg(all(target_os = "linux", target_has_atomic = "64"))]
use unwind_tests::capture::{Plan, Target, capture};

#[cfg(all(target_os = "linux", target_has_atomic = "64"))]
const USAGE: &str =
    "usage: capture TARGET NAME PROGRAM FOLDER [--from FUNCTION | --from-start] [--limit SAMPLES]
       [--thin N] [--elsewhere N] [--sections NAME,NAME…] [--inject SIGNAL,SIGNAL… --every N]
       [--emulator PATH] [--sysroot DIR] [-- EMULATOR-OPTION…]

Runs PROGRAM and writes FOLDER/NAME.run, and FOLDER/FILE.module for every file of the program that is
not there yet, with these sections (.eh_frame and .eh_frame_hdr). One of N instructions that are no repeats
becomes a sample; one of --elsewhere N in files that are not beside PROGRAM. Signals are numbers as gdb counts them.";

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("capture: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(all(target_os = "linux", target_has_atomic = "64")))]
fn run(_: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
    Err("only on Linux, with atomic words of 64 bits".into())
}

#[cfg(all(target_os = "linux", target_has_atomic = "64"))]
fn run(arguments: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
    let [target, name, program, folder, rest @ ..] = arguments.as_slice() else {
        return Err(USAGE.into());
    };
    let target = Target::by_name(target).ok_or_else(|| format!("unknown target {target}"))?;
    let mut plan = Plan {
        name: name.clone(),
        program: PathBuf::from(program),
        options: Vec::new(),
        from: Some("main".into()),
        limit: 5000,
        thin: 1,
        thin_elsewhere: None,
        emulator: target.emulator.into(),
        sysroot: target.sysroot.into(),
        sections: vec![".eh_frame".into(), ".eh_frame_hdr".into()],
        inject: Vec::new(),
        every: 1,
    };
    let mut rest = rest.iter();
    while let Some(option) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{option} needs a value"));
        match option.as_str() {
            "--from" => plan.from = Some(value()?.clone()),
            "--from-start" => plan.from = None,
            "--limit" => plan.limit = value()?.parse()?,
            "--thin" => plan.thin = value()?.parse()?,
            "--elsewhere" => plan.thin_elsewhere = Some(value()?.parse()?),
            "--sections" => plan.sections = value()?.split(',').map(str::to_owned).collect(),
            "--emulator" => plan.emulator = value()?.into(),
            "--sysroot" => plan.sysroot = value()?.into(),
            "--every" => plan.every = value()?.parse()?,
            "--inject" => plan.inject = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--" => plan.options = rest.by_ref().cloned().collect(),
            _ => return Err(USAGE.into()),
        }
    }
    let socket = plan.program.with_extension("socket");
    // One that was left behind would be in the way.
    let _ = std::fs::remove_file(&socket);
    let captured = capture(target, &plan, &socket);
    // The emulator makes the socket; where it did not come so far there is none.
    let _ = std::fs::remove_file(&socket);
    let captured = captured?;
    let folder = Path::new(folder);
    let file = captured.run.to_file();
    std::fs::write(folder.join(format!("{name}.run")), &file)?;
    for module in &captured.modules {
        let path = folder.join(format!("{}.module", module.name));
        let contents = module.to_file();
        match std::fs::read(&path) {
            Ok(there) if there == contents => {}
            Ok(_) => return Err(format!("{} is there and differs", path.display()).into()),
            Err(_) => std::fs::write(path, contents)?,
        }
    }
    let run = &captured.run;
    println!(
        "{name}: {} instructions in the window, {} repeats, {} thinned out, {} samples ({} under way), {} calls, \
         {} bytes; ended with {:?}; {} signals injected, {} redirected",
        run.stepped,
        run.repeats,
        run.thinned,
        run.samples.len(),
        run.samples.iter().filter(|sample| sample.under_way.is_some()).count(),
        run.calls.len(),
        file.len(),
        captured.status,
        captured.injected,
        captured.redirected,
    );
    println!("    {:?}", captured.seen);
    Ok(())
}
