//! Stacks for people.

use std::fmt::{self, Write};

use nix::sys::signal::Signal;
use unwind_core::Frame;
use unwind_mem::elf::Origin;

use crate::live::Report;
use crate::symbols::{Place, Symbolizer};
use crate::walk::Stack;

/// More frames than this at one address are told in one line.
const RUN: usize = 4;

pub(crate) fn render(report: &Report<'_>, symbolizer: &mut Symbolizer<'_>) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, report, symbolizer);
    out
}

fn write(out: &mut String, report: &Report<'_>, symbolizer: &mut Symbolizer<'_>) -> fmt::Result {
    let threads = report.stacks.len();
    let plural = if threads == 1 { "" } else { "s" };
    match &report.core {
        Some(command) => write!(out, "core of process {}, \"{command}\"", report.pid)?,
        None => write!(out, "process {}", report.pid)?,
    }
    write!(out, ", {}, {threads} thread{plural}", name(report))?;
    match report.signal {
        Some(signal) => writeln!(out, ", ended by {}", signal_name(signal))?,
        None => writeln!(out)?,
    }
    for warning in &report.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    for stack in &report.stacks {
        write_stack(out, stack, symbolizer)?;
    }
    for tid in &report.unstoppable {
        writeln!(
            out,
            "\nthread {tid} did not stop: it waits in the kernel, and its registers are not known"
        )?;
    }
    Ok(())
}

/// The machine, for the head line.
fn name(report: &Report<'_>) -> &'static str {
    use unwind_core::Arch;
    report.modules.arch().name()
}

pub(crate) fn signal_name(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string())
}

fn write_stack(out: &mut String, stack: &Stack, symbolizer: &mut Symbolizer<'_>) -> fmt::Result {
    let frames = &stack.frames;
    let plural = if frames.len() == 1 { "" } else { "s" };
    write!(out, "\nthread {} \"{}\", {} frame{plural}, ", stack.tid, stack.name, frames.len())?;
    match &stack.end {
        Ok(end) => writeln!(out, "{end}")?,
        Err(error) => writeln!(out, "no walk: {error}")?,
    }
    let places = symbolizer.places(frames);
    let mut hidden = 0;
    for (number, (frame, place)) in frames.iter().zip(&places).enumerate() {
        if hidden > 0 {
            hidden -= 1;
            continue;
        }
        write_frame(out, number, frame, place)?;
        let run = frames.iter().skip(number).take_while(|other| other.pc == frame.pc).count();
        if run > RUN {
            // The last one is told again.
            hidden = run - 2;
            writeln!(out, "     ... {hidden} more frames at this address ...")?;
        }
    }
    Ok(())
}

fn write_frame(out: &mut String, number: usize, frame: &Frame, place: &Place<'_>) -> fmt::Result {
    write!(out, "#{number:<3} {:#018x} ", frame.pc.address())?;
    if place.signal_frame {
        out.write_str("<signal handler called> ")?;
    }
    match &place.function {
        Some(function) => write!(out, "{}+{:#x} ", function.name, function.offset)?,
        None if place.signal_frame => {}
        None => out.write_str("?? ")?,
    }
    match place.module {
        Some(module) => {
            let file = module.path.file_name().unwrap_or(module.path.as_os_str());
            let mark = match (&module.origin, module.deleted) {
                (Origin::Memory(_), true) => ", deleted, read from memory",
                (Origin::Memory(_), false) if place.svma != frame.pc.address() && !is_vdso(place) => {
                    ", read from memory"
                }
                (_, true) => ", deleted",
                _ => "",
            };
            write!(out, "({}+{:#x}{mark}) ", file.display(), place.svma)?;
        }
        None => out.write_str("(no module) ")?,
    }
    let bound = if frame.sp_is_bound { ">=" } else { "=" };
    writeln!(out, "sp{bound}{:#x} [{}]", frame.sp, frame.provenance)?;
    for (index, line) in place.lines.iter().enumerate() {
        let inlined = index + 1 < place.lines.len();
        out.write_str("       ")?;
        if inlined {
            write!(out, "{} inlined ", line.function.as_deref().unwrap_or("??"))?;
        }
        write!(out, "at {}", line.file.as_deref().unwrap_or("??"))?;
        if let Some(number) = line.line {
            write!(out, ":{number}")?;
        }
        if let Some(column) = line.column.filter(|column| *column > 0) {
            write!(out, ":{column}")?;
        }
        out.write_char('\n')?;
    }
    Ok(())
}

fn is_vdso(place: &Place<'_>) -> bool {
    place.module.is_some_and(|module| module.path.as_os_str() == "[vdso]")
}
