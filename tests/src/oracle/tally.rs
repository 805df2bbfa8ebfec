//! Counts of everything that was compared.

use std::collections::BTreeMap;
use std::fmt;

use crate::oracle::judge::{Mode, Recovered, Verdict};
use crate::oracle::sources::SourcesTally;

/// The verdicts on one kind of walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Walks judged.
    pub walks: u64,
    /// Frames of the true chains that they were compared with.
    pub frames: u64,
    /// Registers beside pc and sp that walks recovered.
    pub recovered: Recovered,
    /// Right to the end, without a doubt.
    pub exact: u64,
    /// Right to the end, and marked.
    pub marked_right: u64,
    /// Wrong, and marked.
    pub marked_wrong: u64,
    /// Right as far as they go; more is not known, and the walk says so.
    pub unknown: u64,
    /// Right about where a control transfer, already under way, was leading.
    pub in_transfer: u64,
    /// The table is wrong, as listed.
    pub listed: u64,
    /// Wrong. Every one is a failure.
    pub wrong: u64,
}

impl Counts {
    /// Counts a verdict on a walk whose true chain has `frames` frames. A wrong one is not counted
    /// here: whoever finds out more about it decides which counter it belongs to.
    pub fn add(&mut self, verdict: &Verdict, recovered: Recovered, frames: usize) {
        self.walks += 1;
        self.recovered.right += recovered.right;
        self.recovered.unknown += recovered.unknown;
        self.frames += frames as u64;
        match verdict {
            Verdict::Exact => self.exact += 1,
            Verdict::MarkedRight => self.marked_right += 1,
            Verdict::MarkedWrong(_) => self.marked_wrong += 1,
            Verdict::Unknown => self.unknown += 1,
            Verdict::Wrong(_) => {}
        }
    }

    /// Whether every walk is in exactly one counter.
    pub fn adds_up(&self) -> bool {
        let Counts { exact, marked_right, marked_wrong, unknown, in_transfer, listed, wrong, .. } = *self;
        self.walks == exact + marked_right + marked_wrong + unknown + in_transfer + listed + wrong
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>7} walks {:>8} frames: {:>7} exact {:>6} marked right {:>5} marked wrong {:>6} unknown \
             {:>4} in transfer {:>4} listed {:>2} WRONG",
            self.walks,
            self.frames,
            self.exact,
            self.marked_right,
            self.marked_wrong,
            self.unknown,
            self.in_transfer,
            self.listed,
            self.wrong,
        )
    }
}

/// The counts of one program.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Instructions stepped.
    pub instructions: u64,
    /// Instructions inside the window.
    pub in_window: u64,
    /// Instructions at which walks were made.
    pub walked: u64,
    /// Different addresses among these.
    pub places: u64,
    /// Verdicts by kind of walk.
    pub counts: [Counts; 3],
    /// The same walks by other ways.
    pub sources: SourcesTally,
    /// Instructions at which walks were made, by the module that they are in.
    pub modules: BTreeMap<String, u64>,
    /// How often which listed exception was met.
    pub listed: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// The counts of one kind of walk.
    pub fn of(&mut self, mode: Mode) -> &mut Counts {
        &mut self.counts[mode as usize]
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} instructions, {} in the window, walks at {} of these ({} different addresses)",
            self.instructions, self.in_window, self.walked, self.places
        )?;
        for (name, counts) in ["tracking", "plain", "conventions"].iter().zip(&self.counts) {
            if counts.walks > 0 {
                writeln!(f, "    {name:<11} {counts}")?;
            }
        }
        write!(f, "{}", self.sources)?;
        let modules: Vec<_> = self.modules.iter().map(|(name, walked)| format!("{name} {walked}")).collect();
        writeln!(f, "    at instructions of: {}", modules.join(", "))?;
        let Recovered { right, unknown } = self.counts[Mode::Tracking as usize].recovered;
        writeln!(
            f,
            "    callee-saved and interrupted registers: {right} right, {unknown} not known to the walk"
        )?;
        for (name, times) in &self.listed {
            writeln!(f, "    listed: {name}: {times} walks")?;
        }
        Ok(())
    }
}
