//! The command line.

use std::ffi::OsString;

use unwind_core::{UnwindUserType, UnwindUserTypes};

pub(crate) const HELP: &str = "\
Prints stacks, with where each frame comes from and how the walk ended.

  stack [OPTIONS]                 the threads of this program itself
  stack [OPTIONS] PID             every thread of a live process
  stack [OPTIONS] run COMMAND...  runs COMMAND and prints the stacks where it, or a
                                  process that it starts, crashes (to standard error)

Options:
  --lines        source file and line, and inlined functions, where there is debug information
  --json         one JSON document (for run: one a line for each crash)
  --guesses      where a better source covers a frame but cannot be used, go on with a lesser
                 one, and say so; --no-guesses, the default, ends the walk with the reason
  --types LIST   sources to use, of: dwarf, signal-trampoline, null-call, instruction,
                 back-chain, frame-pointer, ... ; all by default
  --frames N     at most N frames of each thread
  --help         this

A frame is printed as
  #NUMBER ADDRESS FUNCTION+OFFSET (MODULE+ADDRESS IN FILE) sp=STACK POINTER [SOURCE]
where ADDRESS is where the call returns to, or where execution stopped. FUNCTION is that of
the call itself, one byte before. Rust and C++ names are demangled.

Exit status: 0 when every stack was printed, 1 when that was not possible, 2 for a wrong
command line. With run: that of COMMAND, 128 + N if signal N ended it, 125 if it cannot be
traced, 126 if it cannot be executed, 127 if it is not found.
";

pub(crate) struct Arguments {
    pub(crate) target: Target,
    pub(crate) how: How,
}

pub(crate) enum Target {
    Help,
    Own,
    Live(u32),
    Command(Vec<OsString>),
}

/// How to walk and to print.
pub(crate) struct How {
    pub(crate) lines: bool,
    pub(crate) json: bool,
    pub(crate) guesses: bool,
    pub(crate) types: UnwindUserTypes,
    pub(crate) frames: Option<u32>,
}

impl Arguments {
    pub(crate) fn parse(words: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut words = words.peekable();
        let mut how =
            How { lines: false, json: false, guesses: false, types: UnwindUserTypes::ALL, frames: None };
        let mut pid = None;
        while let Some(word) = words.next() {
            let word = word.into_string().map_err(|word| format!("{word:?} is no argument"))?;
            let mut value = || {
                let value = words.next().and_then(|value| value.into_string().ok());
                value.ok_or_else(|| format!("{word} needs a value"))
            };
            match word.as_str() {
                "--help" | "-h" => return Ok(Arguments { target: Target::Help, how }),
                "--lines" => how.lines = true,
                "--json" => how.json = true,
                "--guesses" => how.guesses = true,
                "--no-guesses" => how.guesses = false,
                "--types" => how.types = types(&value()?)?,
                "--frames" => {
                    let frames = value()?;
                    let number = frames.parse().ok().filter(|frames| *frames > 0);
                    how.frames = Some(number.ok_or_else(|| format!("{frames} is no number of frames"))?);
                }
                "run" if pid.is_none() => {
                    let command: Vec<OsString> = words.collect();
                    if command.is_empty() {
                        return Err("run needs a command".into());
                    }
                    return Ok(Arguments { target: Target::Command(command), how });
                }
                word if pid.is_none() => {
                    let number = word.parse().ok().filter(|pid| *pid > 0);
                    pid =
                        Some(number.ok_or_else(|| format!("{word} is neither an option nor a process id"))?);
                }
                word => return Err(format!("{word} is one argument too many")),
            }
        }
        Ok(Arguments { target: pid.map_or(Target::Own, Target::Live), how })
    }
}

fn types(list: &str) -> Result<UnwindUserTypes, String> {
    list.split(',').try_fold(UnwindUserTypes::NONE, |types, name| {
        let kind = UnwindUserType::ALL.into_iter().find(|kind| kind.to_string() == name);
        let all = || UnwindUserType::ALL.map(|kind| kind.to_string()).join(", ");
        Ok(types.with(kind.ok_or_else(|| format!("{name} is no type; there are {}", all()))?))
    })
}
