//! Stacks for programs.

use serde_json::{Value, json};
use unwind_core::{Arch, End, Frame};

use crate::live::Report;
use crate::symbols::{Place, Symbolizer};
use crate::text::signal_name;
use crate::walk::Stack;

pub(crate) fn render(report: &Report<'_>, symbolizer: &mut Symbolizer<'_>) -> String {
    let mut threads = Vec::new();
    for stack in &report.stacks {
        threads.push(thread(stack, symbolizer));
    }
    let modules: Vec<Value> = report
        .modules
        .modules()
        .iter()
        .map(|module| {
            let build_id =
                module.build_id().map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
            let ranges: Vec<Value> =
                module.ranges.iter().map(|range| json!([hex(range.start), hex(range.end)])).collect();
            json!({
                "path": module.path.to_string_lossy(),
                "deleted": module.deleted,
                "bias": hex(module.bias),
                "ranges": ranges,
                "build_id": build_id,
                "verified": module.verified,
            })
        })
        .collect();
    let document = json!({
        "pid": report.pid,
        "core": report.core,
        "warnings": report.warnings,
        "architecture": report.modules.arch().name(),
        "signal": report.signal.map(signal_name),
        "threads": threads,
        "not_stopped": report.unstoppable,
        "modules": modules,
    });
    format!("{document}\n")
}

fn thread(stack: &Stack, symbolizer: &mut Symbolizer<'_>) -> Value {
    let (kind, end) = match &stack.end {
        Ok(end @ End::Complete(_)) => ("complete", end.to_string()),
        Ok(end @ End::Truncated(_)) => ("truncated", end.to_string()),
        Ok(end @ End::Failed(_)) => ("failed", end.to_string()),
        Err(error) => ("not-started", error.to_string()),
    };
    let places = symbolizer.places(&stack.frames);
    let frames: Vec<Value> =
        stack.frames.iter().zip(&places).map(|(found, place)| frame(found, place)).collect();
    json!({
        "tid": stack.tid,
        "name": stack.name,
        "end": kind,
        "end_reason": end,
        "frames": frames,
    })
}

/// Addresses are strings: not every reader of JSON has integers of 64 bits.
fn frame(frame: &Frame, place: &Place<'_>) -> Value {
    let lines: Vec<Value> = place
        .lines
        .iter()
        .enumerate()
        .map(|(index, line)| {
            json!({
                "function": line.function,
                "file": line.file,
                "line": line.line,
                "column": line.column,
                "inlined": index + 1 < place.lines.len(),
            })
        })
        .collect();
    json!({
        "pc": hex(frame.pc.address()),
        "exact": frame.pc.is_exact(),
        "sp": hex(frame.sp),
        "sp_is_bound": frame.sp_is_bound,
        "fp": frame.fp.map(hex),
        "function": place.function.as_ref().map(|function| &function.name),
        "symbol": place.function.as_ref().map(|function| &function.raw),
        "offset": place.function.as_ref().map(|function| function.offset),
        "module": place.module.map(|module| module.path.to_string_lossy()),
        "address_in_file": place.module.map(|_| hex(place.svma)),
        "source": frame.provenance.source.map(|source| source.to_string()),
        "provenance": frame.provenance.to_string(),
        "signal_frame": place.signal_frame,
        "lines": lines,
    })
}

fn hex(number: u64) -> String {
    format!("{number:#x}")
}
