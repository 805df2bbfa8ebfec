//! What came of it: counts, latencies, and kernel and user parts joined.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use addr2line::Loader;
use unwind_core::deferred::{Cookie, Missing, Stitched, Stitcher};
use unwind_mem::elf::{ElfModules, Origin};

use crate::cpu::{Counts, Cpu};
use crate::machine::Machine;
use crate::record::{Part, Record};
use crate::user::KERNEL;

/// How many kernel parts of one client may wait for their user part: the memory of a stitcher.
const WAITING: usize = 64;

#[derive(Default)]
pub(crate) struct Report {
    entries: u64,
    used_entries: u64,
    signals: u64,
    nested: u64,
    in_user: u64,
    refused: u64,
    queued: u64,
    already_queued: u64,
    already_served: u64,
    walks: u64,
    deliveries: u64,
    from_cache: u64,
    at_exit: u32,
    cancelled_clients: usize,
    compared: u64,
    different: u64,
    called_after_cancel: u64,
    in_handler: u64,
    lost: usize,
    frames: usize,
    /// Nanoseconds from a request to its trace, ascending.
    latencies: Vec<u64>,
    whole: u64,
    of_cancelled: u64,
    never_came: u64,
    no_room: u64,
    at_end: u64,
    user_only: u64,
    examples: Vec<String>,
}

impl Report {
    pub(crate) fn new(machine: &Machine, cancelled: &[u64], at_exit: u32, in_handler: u64) -> Self {
        let sum = |counter: fn(&Counts) -> &AtomicU64| {
            machine.cpus.iter().map(|cpu| counter(&cpu.counts).load(Ordering::Relaxed)).sum()
        };
        let mut report = Report {
            entries: sum(|counts| &counts.entries),
            used_entries: sum(|counts| &counts.used_entries),
            signals: sum(|counts| &counts.signals),
            nested: machine.cpus.iter().map(|cpu| cpu.nested.load(Ordering::Relaxed)).sum(),
            in_user: sum(|counts| &counts.in_user),
            refused: sum(|counts| &counts.refused),
            queued: sum(|counts| &counts.queued),
            already_queued: sum(|counts| &counts.already_queued),
            already_served: sum(|counts| &counts.already_served),
            walks: sum(|counts| &counts.walks),
            deliveries: sum(|counts| &counts.deliveries),
            from_cache: sum(|counts| &counts.from_cache),
            compared: sum(|counts| &counts.compared),
            different: sum(|counts| &counts.different),
            called_after_cancel: machine.called_after_cancel(),
            cancelled_clients: cancelled.len(),
            at_exit,
            in_handler,
            lost: machine.cpus.iter().map(|cpu| cpu.records.lost()).sum(),
            ..Report::default()
        };
        let mut names = Names::new(machine.modules);
        for cpu in &machine.cpus {
            report.stitch(cpu, cancelled, &mut names);
        }
        report.latencies.sort_unstable();
        report
    }

    /// Joins the records of a CPU's task, client by client.
    fn stitch(&mut self, cpu: &Cpu, cancelled: &[u64], names: &mut Names<'_>) {
        let traces = cpu.traces();
        self.frames += traces.iter().map(Vec::len).sum::<usize>();
        let mut clients: BTreeMap<u64, Vec<Record>> = BTreeMap::new();
        for record in cpu.records.all() {
            clients.entry(record.client).or_default().push(record);
        }
        for (client, records) in clients {
            let mut slots = [None; WAITING];
            let mut stitcher = Stitcher::new(&mut slots);
            let mut out = |stitched: Stitched<'_, (u64, u64), (usize, u64)>| match stitched {
                Stitched::Whole { cookie, kernel: (path, requested), user: (trace, delivered) } => {
                    self.whole += 1;
                    // A request that came after the walk has its trace already.
                    self.latencies.push(delivered.saturating_sub(requested));
                    if self.examples.len() < 2 && traces[*trace].len() > 12 && path >> 8 != 0 {
                        self.examples.push(names.stack(cookie, path, &traces[*trace]));
                    }
                }
                // Requests of a client that was cancelled before it was called.
                Stitched::KernelOnly { .. } if cancelled.contains(&client) => self.of_cancelled += 1,
                Stitched::KernelOnly { why: Missing::NoRoom, .. } => self.no_room += 1,
                Stitched::KernelOnly { why: Missing::End, .. } => self.at_end += 1,
                Stitched::KernelOnly { .. } => self.never_came += 1,
                Stitched::UserOnly { .. } => self.user_only += 1,
            };
            for Record { cookie, time, part, .. } in records {
                let Some(cookie) = Cookie::from_u64(cookie) else { continue };
                match part {
                    Part::Kernel(path) => stitcher.kernel(cookie, (path, time), &mut out),
                    Part::User(trace) => stitcher.user(cookie, (trace, time), &mut out),
                }
            }
            stitcher.finish(&mut out);
        }
    }

    /// Whether everything that is promised held. (Records that had no room in their buffer prove nothing.)
    pub(crate) fn is_as_promised(&self) -> bool {
        let parts = self.never_came + self.at_end + self.user_only;
        self.different == 0
            && self.compared > 0
            && self.called_after_cancel == 0
            && self.in_handler == 0
            && (parts == 0 || self.lost > 0)
    }

    fn latency(&self, per_mille: usize) -> f64 {
        let at = self.latencies.len().saturating_sub(1) * per_mille / 1000;
        self.latencies.get(at).map_or(0.0, |nanoseconds| *nanoseconds as f64 / 1000.0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = self.queued + self.already_queued + self.already_served;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, value: u64, note: &str| {
            writeln!(f, "  {name:<34} {value:>10}{}{note}", if note.is_empty() { "" } else { "  " })
        };
        writeln!(f, "entries and requests")?;
        line(f, "system calls", self.entries, "")?;
        line(f, "with a walk", self.used_entries, "")?;
        line(f, "signals", self.signals, &format!("{} of them interrupted another", self.nested))?;
        line(f, "that found the user", self.in_user, "nothing to defer")?;
        line(f, "refused", self.refused, "the client was just being cancelled")?;
        line(f, "requests with a cookie", requests, "")?;
        line(f, "first of their client and entry", self.queued, "")?;
        line(f, "already queued", self.already_queued, "")?;
        line(f, "already served", self.already_served, "")?;
        writeln!(f, "walks")?;
        line(f, "walks", self.walks, &format!("{} frames kept", self.frames))?;
        line(f, "clients called", self.deliveries, &format!("{} of them at exit", self.at_exit))?;
        line(
            f,
            "walks saved by sharing",
            self.deliveries.saturating_sub(self.walks),
            "by clients of an entry",
        )?;
        line(f, "processings without a walk", self.from_cache, "the cache had the trace")?;
        line(f, "saved in all", requests.saturating_sub(self.walks), "against one walk for each request")?;
        writeln!(f, "latency from request to trace, in microseconds")?;
        writeln!(
            f,
            "  median {:.1}, 99 % {:.1}, worst {:.1}",
            self.latency(500),
            self.latency(990),
            self.latency(1000)
        )?;
        writeln!(f, "stitching")?;
        line(f, "kernel parts with their user part", self.whole, "")?;
        line(f, "of a client cancelled meanwhile", self.of_cancelled, "")?;
        line(f, "whose user part never came", self.never_came, "must be 0")?;
        line(f, "that still waited in the end", self.at_end, "must be 0")?;
        line(f, "that had no room", self.no_room, "")?;
        line(f, "user parts alone", self.user_only, "must be 0")?;
        line(f, "records without room", self.lost as u64, "")?;
        writeln!(f, "promises")?;
        let compared = format!("of {} compared with the stack at the system call; must be 0", self.compared);
        line(f, "traces that differ", self.different, &compared)?;
        let cancels = format!("after {} cancels; must be 0", self.cancelled_clients);
        line(f, "calls after their cancel", self.called_after_cancel, &cancels)?;
        line(f, "allocations in signal handlers", self.in_handler, "must be 0")?;
        for example in &self.examples {
            write!(f, "\n{example}")?;
        }
        Ok(())
    }
}

/// Names of functions, by the symbols of the modules they are in.
struct Names<'m> {
    modules: &'m ElfModules,
    loaders: BTreeMap<u64, Option<Loader>>,
}

impl<'m> Names<'m> {
    fn new(modules: &'m ElfModules) -> Self {
        Names { modules, loaders: BTreeMap::new() }
    }

    /// A whole stack, innermost first.
    fn stack(&mut self, cookie: Cookie, path: u64, trace: &[u64]) -> String {
        let mut text = format!("cookie {cookie}\n");
        for function in path.to_le_bytes().into_iter().take_while(|function| *function != 0) {
            let name = KERNEL.get(usize::from(function)).copied().unwrap_or("?");
            text += &format!("  kernel  {name}\n");
        }
        for (at, address) in trace.iter().enumerate() {
            // Where a call returns to may be the next function already.
            let name = self.name(address - u64::from(at > 0));
            text += &format!("  user    {address:#x}  {name}\n");
        }
        text
    }

    fn name(&mut self, address: u64) -> String {
        let Some(module) = self.modules.find(address) else { return "?".into() };
        let loader = self.loaders.entry(module.bias).or_insert_with(|| match &module.origin {
            Origin::File(path) => Loader::new(path).ok(),
            _ => None,
        });
        let symbol = loader.as_ref().and_then(|loader| loader.find_symbol(address.wrapping_sub(module.bias)));
        match symbol {
            Some(symbol) => format!("{:#}", rustc_demangle::demangle(symbol)),
            None => module.path.display().to_string(),
        }
    }
}
