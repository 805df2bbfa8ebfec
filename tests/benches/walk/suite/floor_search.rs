//! The bare work of whoever searches the functions of an SFrame section, and passes over the rows of one.

use unwind_core::sframe::{Fde, RowStart, SFrameSection};

use super::contender::Contender;
use super::floor::{OTHER, RulesKnown, carry_out};
use super::tables::Tables;
use super::workload::{Mapping, Sample, Workload};

/// Finds, for every frame, the module and the number of its function in that module's SFrame section, and goes over
/// the rows up to the one that holds where it `PASSES_ROWS`; the rule is then known, as by [`RulesKnown`]. Nothing is
/// checked, and the functions' starts are not those of the section, but copied into arrays that are made for searching:
/// what is left is what even a reader whose rows, or whose rules and checks, cost nothing would have to do. A reader
/// that kept such arrays would not be one in place.
pub(crate) struct FunctionsSearched<'w, const PASSES_ROWS: bool> {
    workload: &'w Workload,
    known: &'w RulesKnown,
    /// For each of the rules that are known, the number of the function that it is for, and that of the row in it.
    numbers: Vec<[u32; 2]>,
    /// For each image.
    functions: Vec<Functions>,
    /// The number of the mapping that was found last.
    last: usize,
}

/// Where there is no module.
const NONE: u32 = u32::MAX;

impl<'w, const PASSES_ROWS: bool> FunctionsSearched<'w, PASSES_ROWS> {
    pub(crate) fn new(workload: &'w Workload, tables: &Tables, known: &'w RulesKnown) -> Self {
        let section = |image| tables.sframe(image).sections().next().and_then(Result::ok);
        let sections: Vec<Option<SFrameSection<'_>>> = (0..workload.images.len()).map(section).collect();
        let functions = sections.iter().map(|section| Functions::new(section.as_ref())).collect();
        let mut searched = FunctionsSearched {
            workload,
            known,
            numbers: vec![[NONE; 2]; known.rules.len()],
            functions,
            last: 0,
        };
        for (sample, range) in workload.samples.iter().zip(known.starts.windows(2)) {
            let (mut pc, mut sp, mut fp) = (sample.ip(), sample.sp(), sample.fp());
            for at in range[0]..range[1] {
                let address = pc.wrapping_sub(u64::from(at > range[0]));
                let found = searched.find(sample.process, address);
                searched.numbers[at] = found;
                searched.check(sample.process, address, found, &sections);
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

    /// The numbers are those of the function and the row that the section has there, if it has one.
    fn check(
        &mut self,
        process: usize,
        address: u64,
        found: [u32; 2],
        sections: &[Option<SFrameSection<'_>>],
    ) {
        let Some(mapping) = self.mapping(process, address) else { return };
        let Some(section) = sections[mapping.image].as_ref() else { return };
        let svma = address.wrapping_sub(mapping.bias);
        if let Ok(Some(function)) = section.find(svma, None) {
            let offset = svma.wrapping_sub(function.start) as u32;
            let at_or_below = section.rows(&function).flatten().filter(|row| row.start <= offset).count();
            assert_eq!(found, [function.index, if PASSES_ROWS { at_or_below as u32 } else { 0 }]);
        }
    }

    #[inline(always)]
    fn find(&mut self, process: usize, address: u64) -> [u32; 2] {
        let Some(mapping) = self.mapping(process, address) else { return [NONE; 2] };
        let svma = address.wrapping_sub(mapping.bias);
        let functions = &self.functions[mapping.image];
        let number = functions.last_at(svma);
        [number, if PASSES_ROWS { functions.rows_passed(number, svma) } else { 0 }]
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

impl<const PASSES_ROWS: bool> Contender for FunctionsSearched<'_, PASSES_ROWS> {
    fn name(&self) -> String {
        match PASSES_ROWS {
            false => "floor: SFrame's functions searched, rules known".into(),
            true => "floor: SFrame's rows passed over, rules known".into(),
        }
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
            let [number, row] = self.find(sample.process, pc.wrapping_sub(u64::from(count > 1)));
            let [its_number, its_row] = self.numbers[at];
            // Its own place, but not before the search is done: what is found has to be waited for.
            let differs = (number ^ its_number) | (row ^ its_row);
            let Some(rule) = known.rules.get(at.wrapping_add(differs as usize)) else { break };
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
    rows: Vec<Rows>,
    /// The section, and so much behind that every row can be read.
    data: Vec<u8>,
}

/// No function is so far behind the first one.
const FAR: u32 = u32::MAX >> 1;

impl Functions {
    fn new(section: Option<&SFrameSection<'_>>) -> Self {
        let fdes: Vec<Fde> = section.map_or(Vec::new(), |section| section.fdes().flatten().collect());
        let starts: Vec<u64> = fdes.iter().map(|fde| fde.start).collect();
        let rows = fdes.iter().map(|fde| Rows {
            start: fde.start,
            offset: fde.rows_offset as usize,
            count: fde.row_count,
            width: fde.row_start,
        });
        let mut data = section.map_or(Vec::new(), |section| section.data().to_vec());
        data.extend([0; 8]);
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
        Functions { first, levels, rows: rows.collect(), data }
    }

    /// How many rows of a function begin at or below an address (svma).
    #[inline(always)]
    fn rows_passed(&self, number: u32, svma: u64) -> u32 {
        let Some(rows) = self.rows.get(number as usize) else { return NONE };
        let at = svma.wrapping_sub(rows.start) as u32;
        match rows.width {
            RowStart::Addr1 => rows.passed::<1>(&self.data, at),
            RowStart::Addr2 => rows.passed::<2>(&self.data, at),
            _ => rows.passed::<4>(&self.data, at),
        }
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

/// Where the rows of a function are.
struct Rows {
    /// The first address of the function (svma).
    start: u64,
    /// In the section.
    offset: usize,
    count: u32,
    /// How wide their starts are.
    width: RowStart,
}

impl Rows {
    /// How many begin no further from the function's start.
    #[inline(always)]
    fn passed<const START: usize>(&self, data: &[u8], offset: u32) -> u32 {
        let mut place = self.offset;
        let mut passed = 0;
        while passed < self.count {
            let Some(eight) = data.get(place..place + 8) else { break };
            let row = u64::from_le_bytes(eight.try_into().expect("eight"));
            // Where the next row is depends on the form of this one. A processor may guess it from the branch, and need
            // not wait then.
            let info = (row >> (8 * START)) as u8;
            if (row & ((1 << (8 * START)) - 1)) as u32 > offset {
                break;
            }
            passed += 1;
            place += START
                + 1
                + match info & 0x7e {
                    0x02 => 1,
                    0x04 => 2,
                    0x24 => 4,
                    form => usize::from(form >> 1 & 0x0f) << (form >> 5),
                };
        }
        passed
    }
}
