//! Rounds in which everybody has a turn, so that a busy machine is busy for all.

use std::hint::black_box;

use nix::time::{ClockId, clock_gettime};

use super::contender::{Contender, room};
use super::workload::Workload;

/// What a contender needed.
pub(crate) struct Measured {
    pub(crate) name: String,
    /// Frames in one pass over a workload.
    pub(crate) frames: u64,
    /// What it says about its walks.
    pub(crate) note: Option<String>,
    /// Nanoseconds of thread time per frame, in ascending order: one value per round.
    per_frame: Vec<f64>,
}

impl Measured {
    pub(crate) fn median(&self) -> f64 {
        self.quantile(1, 2)
    }

    /// What a quiet machine shows: ratios are made of it.
    pub(crate) fn tenth_percentile(&self) -> f64 {
        self.quantile(1, 10)
    }

    fn quantile(&self, part: usize, of: usize) -> f64 {
        self.per_frame[(self.per_frame.len() - 1) * part / of]
    }
}

/// The time that the calling thread has run, in nanoseconds.
pub(crate) fn thread_time() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every Linux has this clock");
    time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64
}

/// What the stacks' bytes are when they are walked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stacks {
    /// Where the last pass over all stacks has left them: in memory, if they are many.
    AsTheyAre,
    /// In the processor's cache: as many as a profiler takes from the kernel's buffer at once have just been
    /// copied.
    Fresh,
}

/// As many stacks as are fresh at once.
const BATCH: usize = 32;

/// A turn takes at least this long, in nanoseconds.
const TURN: f64 = 1e6;

/// Times contenders, each on a workload of its own choice, in `rounds` rounds.
pub(crate) fn measure(
    rounds: usize,
    stacks: Stacks,
    contenders: &mut [(&mut dyn Contender, &Workload)],
) -> Vec<Measured> {
    let mut pcs = room();
    let mut measured = Vec::new();
    let mut passes = Vec::new();
    for (contender, workload) in contenders.iter_mut() {
        // Twice to warm up; the third pass tells how many make a turn.
        contender.pass(workload, &mut pcs);
        let frames = contender.pass(workload, &mut pcs);
        let begin = thread_time();
        contender.pass(workload, &mut pcs);
        let pass = thread_time() - begin;
        passes.push((TURN / pass.max(1.0)).ceil() as u64);
        contender.note();
        measured.push(Measured { name: contender.name(), frames, note: None, per_frame: Vec::new() });
    }
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            // Nobody always comes after the same one.
            let step = if round % 2 == 0 { turn } else { contenders.len() - 1 - turn };
            let at = (step + round) % contenders.len();
            let (contender, workload) = &mut contenders[at];
            let time = match stacks {
                Stacks::AsTheyAre => {
                    let begin = thread_time();
                    for _ in 0..passes[at] {
                        contender.pass(workload, &mut pcs);
                    }
                    (thread_time() - begin) / passes[at] as f64
                }
                Stacks::Fresh => pass_in_batches(*contender, workload, &mut pcs),
            };
            let measured = &mut measured[at];
            measured.per_frame.push(time / measured.frames.max(1) as f64);
        }
    }
    for (measured, (contender, _)) in measured.iter_mut().zip(contenders) {
        measured.note = contender.note();
        measured.per_frame.sort_by(f64::total_cmp);
    }
    measured
}

/// The time of one pass without that for reading every line of a batch's stacks before it is walked.
fn pass_in_batches(contender: &mut dyn Contender, workload: &Workload, pcs: &mut [u64]) -> f64 {
    let mut time = 0.0;
    for start in (0..workload.samples.len()).step_by(BATCH) {
        let batch = start..workload.samples.len().min(start + BATCH);
        for sample in &workload.samples[batch.clone()] {
            black_box(sample.stack.iter().step_by(64).fold(0, |sum, byte| sum ^ byte));
        }
        let begin = thread_time();
        contender.part(workload, batch, pcs);
        time += thread_time() - begin;
    }
    time
}
