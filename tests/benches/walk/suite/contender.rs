//! What is compared.

use std::ops::Range;

use super::workload::{MOST_FRAMES, Sample, Workload};

/// An unwinder, with everything that it needs to know about a workload's modules.
pub(crate) trait Contender: Send {
    /// Its name in the table.
    fn name(&self) -> String;

    /// Walks one stack from the registers on, and stores the address of each frame, innermost first: for
    /// all but the first, where the call returns to. How many there are.
    fn walk(&mut self, index: usize, sample: &Sample, pcs: &mut [u64]) -> usize;

    /// Something to say about the walks since it was last asked.
    fn note(&mut self) -> Option<String> {
        None
    }

    /// Walks some stacks of a workload. How many frames were found.
    fn part(&mut self, workload: &Workload, part: Range<usize>, pcs: &mut [u64]) -> u64 {
        let mut frames = 0;
        for (index, sample) in part.clone().zip(&workload.samples[part]) {
            frames += self.walk(index, sample, pcs) as u64;
        }
        frames
    }

    /// Walks all of them.
    fn pass(&mut self, workload: &Workload, pcs: &mut [u64]) -> u64 {
        self.part(workload, 0..workload.samples.len(), pcs)
    }
}

/// Room for the frames of any stack.
pub(crate) fn room() -> Vec<u64> {
    vec![0; MOST_FRAMES]
}
