//! The threads of a core dump.

use std::path::Path;

use unwind_mem::core_dump::{CoreDump, FileSearch};
use unwind_mem::elf::IndexRoom;

use crate::arguments::How;
use crate::live::{self, Report};
use crate::symbols;
use crate::walk::{self, Stack};

/// Prints every thread. The exit status is 1 where there is none.
pub(crate) fn show(path: &Path, search: &FileSearch, how: &How) -> Result<i32, String> {
    let core = CoreDump::open(path, search).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut room = IndexRoom::default();
    let sources = core.modules().sources(&mut room);
    let entry = symbols::entry_function(core.modules());
    let name = String::from_utf8_lossy(core.name()).into_owned();
    let stacks = core.threads().iter().map(|thread| {
        let unwinder = walk::unwinder(thread.arch, &sources, core.lists_all_code(), entry.clone(), how)?;
        let (frames, end) = walk::walk_cached(&unwinder, &thread.registers, core.memory());
        Ok(Stack { tid: thread.tid, name: name.clone(), frames, end })
    });
    let stacks = stacks.collect::<Result<Vec<_>, String>>()?;
    let report = Report {
        pid: core.pid().unwrap_or(0),
        core: Some(String::from_utf8_lossy(core.command()).into_owned()),
        modules: core.modules(),
        stacks,
        unstoppable: Vec::new(),
        signal: core.signal(),
        warnings: warnings(&core),
    };
    print!("{}", live::render(&report, how));
    Ok(i32::from(report.stacks.is_empty()))
}

fn warnings(core: &CoreDump) -> Vec<String> {
    let mut warnings: Vec<String> = core.problems().iter().map(ToString::to_string).collect();
    for missing in core.missing_files() {
        warnings.push(format!("{}: {}", missing.path.display(), missing.error));
    }
    warnings.extend(live::sframe_warnings(core.modules()));
    let unverified = core.modules().modules().iter().filter(|module| !module.verified);
    let unverified: Vec<_> = unverified.map(|module| module.path.display().to_string()).collect();
    if !unverified.is_empty() {
        let names = unverified.join(", ");
        warnings.push(format!("the core has nothing to compare these files with: {names}"));
    }
    warnings
}
