//! The memory of a captured run, as it was at the sample at hand.

use std::ops::Range;

use unwind_core::{Arch, ByteOrder, MemoryError, MemoryReader};

use super::run::Run;

/// Stacks and pieces of code. What lies below sp, less the red zone, on the stack at hand is refused:
/// nobody may rely on it.
pub struct CapturedMemory<'r> {
    stacks: Vec<(Range<u64>, Vec<u8>)>,
    code: &'r [(u64, Vec<u8>)],
    stale: Range<u64>,
}

impl<'r> CapturedMemory<'r> {
    pub(super) fn new(run: &'r Run) -> Self {
        let zeros = |stack: &Range<u64>| vec![0; (stack.end - stack.start) as usize];
        CapturedMemory {
            stacks: run.stacks.iter().map(|stack| (stack.clone(), zeros(stack))).collect(),
            code: &run.code,
            stale: 0..0,
        }
    }

    /// The word at `address`, for who only looks.
    pub fn word<A: Arch>(&self, address: u64, arch: &A) -> Option<u64> {
        let bytes = self.bytes(address, usize::from(arch.word_size().bytes()))?;
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(match arch.byte_order() {
            ByteOrder::Little => bytes.iter().rev().fold(0, fold),
            ByteOrder::Big => bytes.iter().fold(0, fold),
        })
    }

    /// Applies a write of a sample. `false` where no stack is there.
    pub(super) fn write(&mut self, address: u64, bytes: [u8; 8]) -> bool {
        let stack = self.stacks.iter_mut().find(|(range, _)| range.contains(&address));
        let place = stack.and_then(|(range, contents)| {
            let start = (address - range.start) as usize;
            contents.get_mut(start..start + 8)
        });
        match place {
            Some(place) => {
                place.copy_from_slice(&bytes);
                true
            }
            None => false,
        }
    }

    /// States that nothing below `live` is, on the stack that `live` is on.
    pub(super) fn set_live(&mut self, live: u64) {
        let stack = self.stacks.iter().find(|(range, _)| range.contains(&live));
        self.stale = stack.map_or(0..0, |(range, _)| range.start..live);
    }

    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        let end = address.checked_add(length as u64)?;
        if address < self.stale.end && self.stale.start < end {
            return None;
        }
        let within = |start: u64, contents: &'_ [u8]| {
            let from = usize::try_from(address.checked_sub(start)?).ok()?;
            (from.checked_add(length)? <= contents.len()).then_some(from)
        };
        for (range, contents) in &self.stacks {
            if let Some(from) = within(range.start, contents) {
                return contents.get(from..from + length);
            }
        }
        let after = self.code.partition_point(|(start, _)| *start <= address);
        let (start, contents) = self.code.get(after.checked_sub(1)?)?;
        let from = within(*start, contents)?;
        contents.get(from..from + length)
    }
}

impl MemoryReader for CapturedMemory<'_> {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let bytes = self.bytes(address, into.len()).ok_or(MemoryError::Unreadable { address })?;
        into.copy_from_slice(bytes);
        Ok(())
    }
}
