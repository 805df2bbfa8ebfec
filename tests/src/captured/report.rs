//! What comes of checking a run.

use std::collections::BTreeMap;

use unwind_core::Pc;

use crate::oracle::judge::Fault;
use crate::oracle::sources::SourcesTally;
use crate::oracle::tally::Counts;

/// Where a walk went astray: the frame whose rule did it.
#[derive(Clone, Debug, Default)]
pub struct Spot {
    /// Its pc.
    pub pc: Option<Pc>,
    /// Its module's file name.
    pub module: String,
    /// Its function.
    pub function: String,
    /// The function of the topmost frame.
    pub top: String,
    /// How far in the function the pc is.
    pub offset: u64,
    /// Whether it is the outermost frame in truth.
    pub outermost: bool,
    /// Whether control is on its way to another place without a return.
    pub under_way: bool,
    /// By how much the walk's sp of the next frame differs from the true one.
    pub sp_off: Option<i64>,
    /// The table's row, for people: as `oracle::cfi::row` writes it, or `captured::sframe::row`.
    pub row: String,
}

/// A place where a table is wrong.
pub struct Listed {
    /// What, in a few words.
    pub name: &'static str,
    /// Which instruction, what the table says, what is true.
    pub proof: &'static str,
    /// Whether this is the place. Asked only where gimli reads call frame information as the walk did.
    pub applies: fn(&Spot, &Fault) -> bool,
}

/// What came of a run.
#[derive(Default)]
pub struct Report {
    /// Samples.
    pub samples: u64,
    /// Different addresses among them.
    pub places: usize,
    /// Verdicts by kind of walk.
    pub counts: [Counts; 3],
    /// Walks, by kind, that found every frame of the true chain and no other.
    pub whole: [u64; 3],
    /// How often each listed place was met.
    pub listed: BTreeMap<&'static str, u64>,
    /// Where walks with all sources were less than exact, without being wrong: the verdict and the function.
    pub doubts: BTreeMap<String, u64>,
    /// Samples whose walk by conventions names an address that is no frame of the chain, or names frames
    /// in another order; by function.
    pub strays: BTreeMap<String, u64>,
    /// Functions of the innermost frame that no table covers: how often a sample was taken there.
    pub uncovered: BTreeMap<String, u64>,
    /// Samples with a pc in their chain that no table covers, other than where threads begin.
    pub gaps: u64,
    /// Where walks lacked a register that the table needs: their kind, the function, and how often.
    pub lacking: BTreeMap<String, u64>,
    /// The same walks by other ways.
    pub sources: SourcesTally,
    /// Wrong walks that nothing explains: by what they have in common, how many, and the first.
    pub failures: BTreeMap<String, (u64, String)>,
}
