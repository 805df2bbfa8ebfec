//! Thousands of stacks of real programs.

use std::collections::BTreeSet;

use super::contender::{Contender, room};
use super::floor::{RulesByPc, RulesKnown};
use super::floor_search::FunctionsSearched;
use super::random::Random;
use super::rounds::{Measured, Stacks, measure};
use super::tables::Tables;
use super::workload::{MOST_FRAMES, Workload};
use super::{ours, peer_framehop, peer_gimli};

/// As a profiler of the whole system meets them: all programs' in one row.
pub(crate) fn shuffle(workload: &mut Workload) {
    let mut random = Random::new(3);
    let samples = &mut workload.samples;
    for at in 0..samples.len() {
        let other = at + random.below((samples.len() - at) as u64) as usize;
        samples.swap(at, other);
    }
}

/// Keeps so many stacks, as far apart as can be.
pub(crate) fn thin_out(workload: &mut Workload, most: usize) {
    let step = workload.samples.len().div_ceil(most.max(1)).max(1);
    let mut index = 0..;
    workload.samples.retain(|_| index.next().is_some_and(|index: usize| index.is_multiple_of(step)));
}

/// Takes out the stacks that not everybody walks alike, and says how many.
pub(crate) fn keep_agreed(workload: &mut Workload, tables: &Tables) {
    let disagreed = disagreement(workload, tables);
    let mut disagreed = disagreed.iter();
    workload.samples.retain(|_| disagreed.next() == Some(&false));
}

/// For each sample, whether somebody differs from what this library finds by DWARF.
fn disagreement(workload: &Workload, tables: &Tables) -> Vec<bool> {
    let truth = walks(&mut ours::dwarf(workload), workload);
    let mut disagreed: Vec<bool> = truth.iter().map(|pcs| pcs.len() == MOST_FRAMES).collect();
    println!(
        "\n| contender | stacks that differ from ours by DWARF | shorter | frames in all |\n|---|---|---|---|"
    );
    let mut compare = |contender: &mut dyn Contender| {
        let found = walks(contender, workload);
        let (mut differ, mut shorter, mut frames) = (0, 0, 0);
        for ((found, truth), disagreed) in found.iter().zip(&truth).zip(&mut disagreed) {
            frames += found.len();
            differ += usize::from(found != truth);
            shorter += usize::from(found.len() < truth.len() && truth.starts_with(found));
            *disagreed |= found != truth;
        }
        println!("| {} | {differ} | {shorter} | {frames} |", contender.name());
    };
    compare(&mut ours::dwarf(workload));
    compare(&mut ours::sframe(workload, tables));
    compare(&mut ours::table(workload, tables));
    compare(&mut ours::cached(workload, tables, 4096));
    compare(&mut RulesKnown::record(workload, &ours::dwarf(workload).unwinders));
    compare(&mut peer_framehop::cached("framehop", workload));
    compare(&mut peer_gimli::Direct::new(workload));
    disagreed
}

fn walks(contender: &mut dyn Contender, workload: &Workload) -> Vec<Vec<u64>> {
    let mut pcs = room();
    let walk = |(index, sample)| {
        let count = contender.walk(index, sample, &mut pcs);
        pcs[..count].to_vec()
    };
    workload.samples.iter().enumerate().map(walk).collect()
}

/// How often caches of some sizes answer, once they have seen all stacks.
pub(crate) fn print_hits(workload: &Workload, tables: &Tables) {
    for slots in [512, 4096, 16384] {
        let mut counted = ours::counted(workload, tables, slots);
        let mut pcs = room();
        counted.pass(workload, &mut pcs);
        let before = counted.misses();
        let frames = counted.pass(workload, &mut pcs);
        let misses = counted.misses() - before;
        println!(
            "A cache of {slots} slots misses {:.1} times in 100 frames.",
            misses as f64 * 100.0 / frames as f64
        );
    }
}

/// What each program contributes.
pub(crate) fn print_programs(workload: &Workload) {
    let frames = walks(&mut ours::dwarf(workload), workload);
    let mut programs: Vec<(&str, BTreeSet<usize>, usize, usize)> = Vec::new();
    for (sample, frames) in workload.samples.iter().zip(&frames) {
        let program = &workload.processes[sample.process].program;
        if programs.last().is_none_or(|(name, ..)| name != program) {
            programs.push((program, BTreeSet::new(), 0, 0));
        }
        if let Some((_, processes, samples, all)) = programs.last_mut() {
            processes.insert(sample.process);
            (*samples, *all) = (*samples + 1, *all + frames.len());
        }
    }
    println!("\n| program | sets of modules | stacks | frames per stack |\n|---|---|---|---|");
    for (name, processes, samples, frames) in programs {
        println!("| {name} | {} | {samples} | {:.1} |", processes.len(), frames as f64 / samples as f64);
    }
    let bytes: usize = workload.samples.iter().map(|sample| sample.stack.len()).sum();
    println!("\n{} stacks, {} kB.", workload.samples.len(), bytes / 1000);
}

/// Everybody on these stacks.
pub(crate) fn run(workload: &Workload, tables: &Tables, rounds: usize, stacks: Stacks) -> Vec<Measured> {
    with_contenders(workload, tables, |contenders| measure(rounds, stacks, contenders))
}

/// Lends out everybody who walks stacks of any process.
pub(crate) fn with_contenders<T>(
    workload: &Workload,
    tables: &Tables,
    use_them: impl FnOnce(&mut [(&mut dyn Contender, &Workload)]) -> T,
) -> T {
    let mut dwarf = ours::dwarf(workload);
    let mut known = RulesKnown::record(workload, &dwarf.unwinders);
    println!("Of the rules known, {} are not plain.", known.others());
    let mut by_pc = RulesByPc::new(workload, &known);
    let known_too = RulesKnown::record(workload, &dwarf.unwinders);
    let mut searched = FunctionsSearched::<false>::new(workload, tables, &known_too);
    let mut passed_over = FunctionsSearched::<true>::new(workload, tables, &known_too);
    let mut sframe = ours::sframe(workload, tables);
    let mut table = ours::table(workload, tables);
    let mut cached = ours::cached(workload, tables, 4096);
    let mut small = ours::cached(workload, tables, 512);
    let mut framehop = peer_framehop::cached("framehop, steady state", workload);
    let mut framehop_missing = peer_framehop::missing(workload);
    let mut direct = peer_gimli::Direct::new(workload);
    use_them(&mut [
        (&mut known, workload),
        (&mut by_pc, workload),
        (&mut searched, workload),
        (&mut passed_over, workload),
        (&mut cached, workload),
        (&mut small, workload),
        (&mut table, workload),
        (&mut sframe, workload),
        (&mut dwarf, workload),
        (&mut framehop, workload),
        (&mut framehop_missing, workload),
        (&mut direct, workload),
    ])
}
