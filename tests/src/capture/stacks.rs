//! What is live on the stacks, and what of it has changed.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use super::guest::Guest;

const PAGE: u64 = 4096;

/// The stacks as far as samples have told of them. All zero to begin with.
#[derive(Default)]
pub(super) struct Mirror {
    stacks: Vec<Stack>,
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
}

struct Stack {
    mapping: Range<u64>,
    /// From here on it is live, or was when it was left last.
    live: u64,
    /// The lowest address that was live.
    lowest: u64,
}

impl Stack {
    /// Whether `sp` points into it or to its end.
    fn holds(&self, sp: u64) -> bool {
        self.mapping.start < sp && sp <= self.mapping.end
    }
}

impl Mirror {
    /// Whether the stack that `sp` points into, or to the end of, is known.
    pub(super) fn knows(&self, sp: u64) -> bool {
        self.stacks.iter().any(|stack| stack.holds(sp))
    }

    pub(super) fn add(&mut self, mapping: Range<u64>) {
        let end = mapping.end;
        self.stacks.push(Stack { mapping, live: end, lowest: end });
    }

    /// Brings the live part of the stacks up to date and returns what has changed, in words. `sps` are
    /// those of the frames of the chain: on each of their stacks, what is above the lowest is live. Other stacks are
    /// as they were when they were left; what other contexts write there is seen all the same.
    pub(super) fn update(&mut self, guest: &Guest, sps: &[u64]) -> io::Result<Vec<(u64, [u8; 8])>> {
        let mut writes = Vec::new();
        for stack in &mut self.stacks {
            if let Some(live) = sps.iter().filter(|sp| stack.holds(**sp)).min() {
                stack.live = live & !7;
                stack.lowest = stack.live.min(stack.lowest);
            }
            let live = stack.live..stack.mapping.end;
            let mut contents = vec![0; (live.end - live.start) as usize];
            guest.read(live.start, &mut contents)?;
            for (index, word) in contents.chunks_exact(8).enumerate() {
                let address = live.start + index as u64 * 8;
                let page = self.pages.entry(address / PAGE).or_insert_with(|| Box::new([0; PAGE as usize]));
                let at = (address % PAGE) as usize;
                let old = &mut page[at..at + 8];
                if old != word {
                    old.copy_from_slice(word);
                    writes.push((address, word.try_into().expect("8 bytes")));
                }
            }
        }
        Ok(writes)
    }

    /// The parts of the stacks that were live at some time.
    pub(super) fn ranges(&self) -> Vec<Range<u64>> {
        let used = self.stacks.iter().filter(|stack| stack.lowest < stack.mapping.end);
        let mut ranges: Vec<_> = used.map(|stack| stack.lowest..stack.mapping.end).collect();
        ranges.sort_by_key(|range| range.start);
        ranges
    }

    /// Whether no stack is known yet.
    pub(super) fn is_empty(&self) -> bool {
        self.stacks.is_empty()
    }
}
