//! The threads of a live process.

use std::fs;
use std::os::unix::fs::MetadataExt;

use unwind_mem::elf::{ElfModules, IndexRoom};
use unwind_mem::process::{Access, ProcessError, StoppedProcess, StoppedThread};

use crate::arguments::How;
use crate::symbols::Symbolizer;
use crate::walk::{self, Stack};
use crate::{json, symbols, text};

/// Everything that is to be told about a process, live or dumped.
pub(crate) struct Report<'m> {
    pub(crate) pid: u32,
    /// Of a core dump: the command line.
    pub(crate) core: Option<String>,
    pub(crate) modules: &'m ElfModules,
    pub(crate) stacks: Vec<Stack>,
    /// Threads that did not stop.
    pub(crate) unstoppable: Vec<u32>,
    /// The signal that is about to end it.
    pub(crate) signal: Option<i32>,
    /// What is missing or could not be used.
    pub(crate) warnings: Vec<String>,
}

impl<'m> Report<'m> {
    pub(crate) fn of_process(pid: u32, modules: &'m ElfModules, stacks: Vec<Stack>) -> Self {
        let unused = modules.bare_code().iter().filter_map(|code| {
            let (name, error) = (code.name.as_ref()?, code.error?);
            Some(format!("no unwind information of {}: {error}", name.display()))
        });
        let warnings = unused.chain(sframe_warnings(modules)).collect();
        Report { pid, core: None, modules, stacks, unstoppable: Vec::new(), signal: None, warnings }
    }
}

pub(crate) fn sframe_warnings(modules: &ElfModules) -> Vec<String> {
    let unused = modules.modules().iter().filter_map(|module| {
        let error = module.sframe_error?;
        Some(format!(".sframe of {} is not used: {error}", module.path.display()))
    });
    unused.collect()
}

pub(crate) fn show(pid: u32, how: &How) -> Result<i32, String> {
    let explain = |error| format!("process {pid}: {}", explain(pid, error));
    let stopped = StoppedProcess::stop(pid).map_err(explain)?;
    let modules = ElfModules::of_process(pid).map_err(explain)?;
    let stacks = walk_all(pid, stopped.threads(), &modules, how)?;
    let unstoppable = stopped.unstoppable().to_vec();
    let complete = unstoppable.is_empty();
    let mut report = Report::of_process(pid, &modules, stacks);
    report.unstoppable = unstoppable;
    // Symbols are read while it is still stopped: its files are reached through /proc/PID.
    let out = render(&report, how);
    stopped.resume();
    print!("{out}");
    Ok(i32::from(!complete))
}

pub(crate) fn walk_all(
    pid: u32,
    threads: &[StoppedThread],
    modules: &ElfModules,
    how: &How,
) -> Result<Vec<Stack>, String> {
    let mut room = IndexRoom::default();
    let sources = modules.sources(&mut room);
    let entry = symbols::entry_function(modules);
    threads
        .iter()
        .map(|thread| {
            let unwinder = walk::unwinder(thread.arch, &sources, true, entry.clone(), how)?;
            let (frames, end) = walk::walk(&unwinder, &thread.registers, pid);
            Ok(Stack { tid: thread.tid, name: thread.name.clone(), frames, end })
        })
        .collect()
}

pub(crate) fn render(report: &Report<'_>, how: &How) -> String {
    let mut symbolizer = Symbolizer::new(report.modules, how.lines);
    if how.json { json::render(report, &mut symbolizer) } else { text::render(report, &mut symbolizer) }
}

/// What went wrong, and what to do about it.
pub(crate) fn explain(pid: u32, error: ProcessError) -> String {
    let what_to_do = match error {
        ProcessError::NoSuchProcess => "is it running, and is this its id? `ps -e` lists them".into(),
        ProcessError::Denied { access: Access::Stop | Access::Memory | Access::Maps | Access::Threads } => {
            permission(pid)
        }
        ProcessError::Traced { .. } => "a process has one tracer at a time: end gdb or strace first".into(),
        ProcessError::NoUserMemory => "there are no user frames in it".into(),
        _ => return error.to_string(),
    };
    format!("{error}: {what_to_do}")
}

fn permission(pid: u32) -> String {
    let owner = fs::metadata(format!("/proc/{pid}")).map(|metadata| metadata.uid());
    let own = fs::metadata("/proc/self").map(|metadata| metadata.uid());
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    match (owner, own, scope.trim()) {
        (_, Ok(0), "3") => {
            "tracing is switched off until the next boot (kernel.yama.ptrace_scope is 3)".into()
        }
        (_, Ok(0), _) => {
            "even root may be refused: by a container without the capability SYS_PTRACE (start it \
                          with --cap-add SYS_PTRACE) or with a strict seccomp profile, by a security module, \
                          or because the process has capabilities that you lack"
                .into()
        }
        (Ok(owner), Ok(own), _) if owner != own => {
            format!("it belongs to user {owner}: run this as that user, or as root (sudo)")
        }
        (_, _, "1") => "only its ancestors may trace it here: run this as root (sudo), or allow it with \
                        `sysctl kernel.yama.ptrace_scope=0`"
            .into(),
        (_, _, "2" | "3") => {
            "only root may trace here (kernel.yama.ptrace_scope): run this as root (sudo)".into()
        }
        _ => "it has more rights than you, or protects itself (prctl PR_SET_DUMPABLE), or a container's \
              seccomp profile forbids it: run this as root (sudo)"
            .into(),
    }
}
