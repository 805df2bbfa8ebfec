//! The bare work of whoever searches the functions of an SFrame section.

use unwind_core::sframe::SFrameSection;

use super::contender::Contender;
use super::floor::{OTHER, RulesKnown, carry_out};
use super::tables::Tables;
use super::workload::{Mapping, Sample, Workload};

/// Finds, for every frame, the module and the number of its function in that module's SFrame section; the rule is
/// then known, as by [`RulesKnown`]. No row is read and nothing is checked, and the functions' starts are not those
/// of the section, but copied into arrays that are made for searching: what is left is what even a reader whose
/// rows cost nothing would have to do. A reader that kept such arrays would not be one in place.
pub(crate) struct FunctionsSearched<'w> {
    workload: &'w Workload,
    known: &'w RulesKnown,
    /// For each of the rules that are known, the number of the function that it is for.
    numbers: Vec<u32>,
    /// For each image.
    functions: Vec<Functions>,
    /// The number of the mapping that was found last.
    last: usize,
}

/// Where there is no module.
const NONE: u32 = u32::MAX;

impl<'w> FunctionsSearched<'w> {
    pub(crate) fn new(workload: &'w Workload, tables: &Tables, known: &'w RulesKnown) -> Self {
        let section = |image| tables.sframe(image).sections().next().and_then(Result::ok);
        let sections: Vec<Option<SFrameSection<'_>>> = (0..workload.images.len()).map(section).collect();
        let functions = sections.iter().map(|section| Functions::new(section.as_ref())).collect();
        let mut searched =
            FunctionsSearched { workload, known, numbers: vec![NONE; known.rules.len()], functions, last: 0 };
        for (sample, range) in workload.samples.iter().zip(known.starts.windows(2)) {
            let (mut pc, mut sp, mut fp) = (sample.ip(), sample.sp(), sample.fp());
            for at in range[0]..range[1] {
                let address = pc.wrapping_sub(u64::from(at > range[0]));
                let number = searched.number(sample.process, address);
                searched.numbers[at] = number;
                searched.check(sample.process, address, number, &sections);
                let rule = known.rules[at];
                if rule.fp == OTHER {
                    [pc, sp, fp] = known.others[rule.cfa as usize];
                } else if let Some(caller) = carry_out(rule, sample, sp, fp) {
                    (pc, sp, fp) = caller;
                }
            }
        }
        searched
    }

    /// The number is that of the function that the section has there, if it has one.
    fn check(&mut self, process: usize, address: u64, number: u32, sections: &[Option<SFrameSection<'_>>]) {
        let Some(mapping) = self.mapping(process, address) else { return };
        let Some(section) = sections[mapping.image].as_ref() else { return };
        if let Ok(Some(function)) = section.find(address.wrapping_sub(mapping.bias), None) {
            assert_eq!(number, function.index);
        }
    }

    #[inline(always)]
    fn number(&mut self, process: usize, address: u64) -> u32 {
        match self.mapping(process, address) {
            Some(mapping) => self.functions[mapping.image].last_at(address.wrapping_sub(mapping.bias)),
            None => NONE,
        }
    }

    #[inline(always)]
    fn mapping(&mut self, process: usize, address: u64) -> Option<Mapping> {
        let mappings = &self.workload.processes[process].mappings;
        let holds = |mapping: &&Mapping| mapping.start <= address && address < mapping.end;
        if let Some(mapping) = mappings.get(self.last).filter(holds) {
            return Some(*mapping);
        }
        self.last = mappings.partition_point(|mapping| mapping.end <= address);
        mappings.get(self.last).filter(holds).copied()
    }
}

impl Contender for FunctionsSearched<'_> {
    fn name(&self) -> String {
        "floor: SFrame's functions searched, rules known".into()
    }

    #[inline]
    fn walk(&mut self, index: usize, sample: &Sample, pcs: &mut [u64]) -> usize {
        let known = self.known;
        let range = known.starts[index]..known.starts[index + 1];
        let (mut pc, mut sp, mut fp) = (sample.ip(), sample.sp(), sample.fp());
        let mut count = 1;
        let Some((first, rest)) = pcs.split_first_mut() else { return 0 };
        *first = pc;
        for (at, entry) in range.zip(rest) {
            let number = self.number(sample.process, pc.wrapping_sub(u64::from(count > 1)));
            // Its own place, but not before the search is done: what is found has to be waited for.
            let Some(rule) = known.rules.get(at.wrapping_add((number ^ self.numbers[at]) as usize)) else {
                break;
            };
            if rule.fp == OTHER {
                [pc, sp, fp] = known.others[rule.cfa as usize];
            } else if let Some(caller) = carry_out(*rule, sample, sp, fp) {
                (pc, sp, fp) = caller;
            } else {
                break;
            }
            *entry = pc;
            count += 1;
        }
        count
    }
}

const WIDE: usize = 16;

/// Where the functions of a section begin: every one, every sixteenth, and so on until no more than sixteen are left.
/// Each level is searched by sixteen comparisons side by side, without a branch: faster than the halving of a sorted
/// array.
struct Functions {
    /// The address (svma) of the first one.
    first: u64,
    /// As distances from the first, the coarsest level first; each is filled up by [`FAR`].
    levels: Vec<Vec<[u32; WIDE]>>,
}

/// No function is so far behind the first one.
const FAR: u32 = u32::MAX >> 1;

impl Functions {
    fn new(section: Option<&SFrameSection<'_>>) -> Self {
        let starts: Vec<u64> =
            section.map_or(Vec::new(), |section| section.fdes().flatten().map(|fde| fde.start).collect());
        assert!(
            starts.is_sorted()
                && section.is_none_or(|section| starts.len() == section.header().fde_count as usize)
        );
        let first = starts.first().copied().unwrap_or(0);
        let distance = |start: u64| u32::try_from(start - first).ok().filter(|far| *far < FAR).expect("near");
        let mut level: Vec<u32> = starts.into_iter().map(distance).collect();
        let mut levels = Vec::new();
        loop {
            let groups = level.chunks(WIDE).map(|chunk| {
                let mut group = [FAR; WIDE];
                group[..chunk.len()].copy_from_slice(chunk);
                group
            });
            levels.insert(0, groups.collect::<Vec<_>>());
            if level.len() <= WIDE {
                break;
            }
            level = level.into_iter().step_by(WIDE).collect();
        }
        Functions { first, levels }
    }

    /// The number of the last one that begins at or below an address (svma) beyond the first.
    #[inline(always)]
    fn last_at(&self, svma: u64) -> u32 {
        let at = svma.wrapping_sub(self.first) as u32;
        let mut number = 0;
        for level in &self.levels {
            let Some(group) = level.get(number as usize) else { return NONE };
            // The sign of a difference, as vector units can add up at once what they can shift.
            let above = group.iter().fold(0u32, |above, start| above + (at.wrapping_sub(*start) >> 31));
            number = (number * WIDE as u32 + WIDE as u32).wrapping_sub(above).wrapping_sub(1);
        }
        number
    }
}
