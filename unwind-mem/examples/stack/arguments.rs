//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use unwind_core::{UnwindUserType, UnwindUserTypes};
use unwind_mem::core_dump::FileSearch;

pub(crate) const HELP: &str = "\
Prints stacks, with where each frame comes from and how the walk ended.

  stack [OPTIONS]                 the threads of this program itself
  stack [OPTIONS] PID             every thread of a live process
  stack [OPTIONS] run COMMAND...  runs COMMAND and prints the stacks where it, or a
                                  process that it starts, crashes (to standard error)
  stack [OPTIONS] core FILE       every thread of a core dump, of any machine
      [--exe FILE]                the program, where it is not where the core says, or the core
                                  does not say
      [--sysroot DIR]             the folder that stands for / of the machine of the core

Options:
  --lines        source file and line, and inlined functions, where there is debug information
  --json         one JSON document (for run: one a line for each crash)
  --guesses      where a better source covers a frame but cannot be used, go on with a lesser
                 one, and say so; --no-guesses, the default, ends the walk with the reason
  --types LIST   sources to use, of: sframe, dwarf, signal-trampoline, null-call, instruction,
                 back-chain, frame-pointer, ... ; all by default, in this order for every frame
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
    Core(PathBuf, FileSearch),
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
        let (mut pid, mut core) = (None, None);
        let mut search = FileSearch::default();
        while let Some(word) = words.next() {
            let word = word.into_string().map_err(|word| format!("{word:?} is no argument"))?;
            let mut path = || words.next().map(PathBuf::from).ok_or_else(|| format!("{word} needs a value"));
            let value = |path: PathBuf| {
                path.into_os_string()
                    .into_string()
                    .map_err(|value| format!("{value:?} is no value of {word}"))
            };
            match word.as_str() {
                "--help" | "-h" => return Ok(Arguments { target: Target::Help, how }),
                "--lines" => how.lines = true,
                "--json" => how.json = true,
                "--guesses" => how.guesses = true,
                "--no-guesses" => how.guesses = false,
                "--types" => how.types = types(&value(path()?)?)?,
                "--frames" => {
                    let frames = value(path()?)?;
                    let number = frames.parse().ok().filter(|frames| *frames > 0);
                    how.frames = Some(number.ok_or_else(|| format!("{frames} is no number of frames"))?);
                }
                "--exe" => search.executable = Some(path()?),
                "--sysroot" => search.sysroot = Some(path()?),
                "core" if pid.is_none() && core.is_none() => core = Some(path()?),
                "run" if pid.is_none() && core.is_none() => {
                    let command: Vec<OsString> = words.collect();
                    if command.is_empty() {
                        return Err("run needs a command".into());
                    }
                    return Ok(Arguments { target: Target::Command(command), how });
                }
                word if pid.is_none() && core.is_none() => {
                    let number = word.parse().ok().filter(|pid| *pid > 0);
                    pid =
                        Some(number.ok_or_else(|| format!("{word} is neither an option nor a process id"))?);
                }
                word => return Err(format!("{word} is one argument too many")),
            }
        }
        if core.is_none() && search != FileSearch::default() {
            return Err("--exe and --sysroot are for core dumps".into());
        }
        let target = match core {
            Some(file) => Target::Core(file, search),
            None => pid.map_or(Target::Own, Target::Live),
        };
        Ok(Arguments { target, how })
    }
}

fn types(list: &str) -> Result<UnwindUserTypes, String> {
    list.split(',').try_fold(UnwindUserTypes::NONE, |types, name| {
        let kind = UnwindUserType::ALL.into_iter().find(|kind| kind.to_string() == name);
        let all = || UnwindUserType::ALL.map(|kind| kind.to_string()).join(", ");
        Ok(types.with(kind.ok_or_else(|| format!("{name} is no type; there are {}", all()))?))
    })
}
