//! What is kept of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::chains::Registers;
use super::plan::Captured;
use super::session::Session;
use super::symbols::Loaded;
use crate::captured::{Run, Sample};
use crate::oracle::truth::{Place, TrueFrame};

/// Code is kept in pieces of this many bytes.
const PIECE: u64 = 64;

impl Session<'_> {
    /// Looks at the instruction to be executed: takes a sample, or not; and says whether a signal is due.
    pub(super) fn look(&mut self, place: Place) -> io::Result<Option<u8>> {
        self.stepped += 1;
        let callers = self.callers()?;
        let call = self.chains.intern(&callers);
        let in_signal = !self.resume_at.is_empty();
        if self.injection.begin == Some(place.pc) {
            self.injection.armed = true;
        }
        if self.injection.end == Some(place.pc) {
            self.injection.armed = false;
        }
        let wanted = match &mut self.injection.inside {
            None => true,
            Some(count) => {
                *count += 1;
                *count == 1 || *count == 2 + self.injection.delivered % 24
            }
        };
        if !self.known.insert((place.pc, place.sp, self.chains.shape(call))) {
            self.repeats += 1;
            return Ok(None);
        }
        self.guest.visit(place.pc)?;
        let (turns, thin) = match self.plan.thin_elsewhere {
            Some(thin) if !self.guest.is_own(place.pc) => (&mut self.turns_elsewhere, thin),
            _ => (&mut self.turns, self.plan.thin),
        };
        *turns += 1;
        // Nothing stops between a branch and its delay slot, and tables do not describe what stands there.
        if !wanted || !turns.is_multiple_of(thin) || self.delayed.is_some() {
            self.thinned += 1;
            return Ok(None);
        }
        self.sample(place, call, &callers)?;
        Ok(self.injection_due(in_signal))
    }
    pub(super) fn sample(
        &mut self,
        place: Place,
        call: Option<u32>,
        callers: &[TrueFrame<Registers>],
    ) -> io::Result<()> {
        let red = |sp: u64| sp.saturating_sub(self.target.red_zone);
        let sps: Vec<_> =
            std::iter::once(place.sp).chain(callers.iter().map(|frame| frame.sp)).map(red).collect();
        let writes = self.mirror.update(&self.guest, &sps)?;
        self.remote.complete(&mut self.registers, self.target)?;
        if self.shadow.in_limbo() {
            self.in_limbo.push(self.samples.len());
        }
        self.samples.push(Sample { call, under_way: None, registers: self.registers.clone(), writes });
        let pcs = callers.iter().map(|frame| frame.pc.lookup_address()).chain([place.pc]);
        for pc in pcs.collect::<BTreeSet<_>>() {
            self.keep_code(pc)?;
        }
        Ok(())
    }
    /// Keeps the code around `pc`, as far as conventions look, and the function it is in.
    pub(super) fn keep_code(&mut self, pc: u64) -> io::Result<()> {
        if !self.visited.insert(pc) {
            return Ok(());
        }
        self.guest.visit(pc)?;
        let (first, last) = (pc.saturating_sub(16) / PIECE, pc.saturating_add(32) / PIECE);
        for piece in first..=last {
            let code = self.guest.read_some(piece * PIECE, PIECE as usize);
            self.code.insert(piece * PIECE, code);
        }
        if let Some(function) = self.guest.function(pc) {
            self.functions.entry(function.start).or_insert_with(|| function.clone());
        }
        Ok(())
    }
    pub(super) fn injection_due(&mut self, in_signal: bool) -> Option<u8> {
        let injection = &mut self.injection;
        // Hardware cannot be interrupted between a branch and its delay slot.
        if self.delayed.is_some()
            || !injection.armed
            || in_signal
            || self.plan.inject.is_empty()
            || self.shadow.in_limbo()
        {
            return None;
        }
        injection.since += 1;
        if injection.since < self.plan.every {
            return None;
        }
        injection.since = 0;
        injection.inside = Some(0);
        let turn = injection.delivered as usize % self.plan.inject.len();
        injection.delivered += 1;
        Some(self.plan.inject[turn])
    }
    pub(super) fn finish(mut self, command: String, status: Option<u8>) -> io::Result<Captured> {
        let used = self.samples.iter().flat_map(|sample| [sample.call, sample.under_way.flatten()]).flatten();
        let (calls, numbers) = self.chains.finish(used, self.target);
        let renumber = |call: Option<u32>| call.map(|call| numbers[&call]);
        for sample in &mut self.samples {
            sample.call = sample.call.map(|call| numbers[&call]);
            sample.under_way = sample.under_way.map(renumber);
        }
        let visited = |file: &&Loaded| self.code.keys().any(|piece| file.is_code(*piece));
        let files: Vec<_> = self.guest.files.iter().filter(visited).collect();
        let run = Run {
            target: self.target.name.into(),
            program: self.plan.name.clone(),
            command,
            stepped: self.stepped,
            repeats: self.repeats,
            thinned: self.thinned,
            at_once: self.at_once,
            slots: self.target.slots.iter().map(|slot| slot.number).collect(),
            preserved: self.target.preserved.to_vec(),
            modules: files.iter().map(|file| file.loaded()).collect(),
            stacks: self.mirror.ranges(),
            code: joined(self.code),
            functions: self.functions.into_values().collect(),
            calls,
            samples: self.samples,
        };
        let modules = files.into_iter().map(|file| file.module.clone()).collect();
        Ok(Captured {
            run,
            modules,
            seen: self.shadow.seen(),
            redirected: self.redirected,
            injected: self.injection.delivered,
            status,
        })
    }
}

/// Neighbouring pieces put together.
fn joined(pieces: BTreeMap<u64, Vec<u8>>) -> Vec<(u64, Vec<u8>)> {
    let mut joined: Vec<(u64, Vec<u8>)> = Vec::new();
    for (address, bytes) in pieces.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
        match joined.last_mut() {
            Some((start, before)) if *start + before.len() as u64 == address => before.extend(bytes),
            _ => joined.push((address, bytes)),
        }
    }
    joined
}
