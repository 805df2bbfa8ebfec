//! A stack that was copied.

use unwind_core::{ByteOrder, MemoryError, MemoryReader, WordSize};

use crate::SliceReader;

/// A copy of a stack, from the stack pointer upwards: what a profiler takes (perf's
/// `PERF_SAMPLE_STACK_USER`), or a crash handler.
///
/// A copy has a size limit, so it may be cut. A walk that comes to its end ends with
/// `Truncated(Memory(Unreadable { address }))`, where `address` is [`end`](StackSnapshot::end), the
/// first address that was not copied; the frames until then are right. Put it over the live
/// process with [`Layers`](crate::Layers) to read on there.
///
/// ```
/// use unwind_core::{ByteOrder, MemoryError, MemoryReader, WordSize};
/// use unwind_mem::StackSnapshot;
///
/// let mut stack = StackSnapshot::new(0x7fff_0010, &[0xaa; 16]);
/// assert!(stack.read_word(0x7fff_0018, WordSize::Eight, ByteOrder::Little).is_ok());
/// assert_eq!(
///     stack.read_word(0x7fff_001c, WordSize::Eight, ByteOrder::Little),
///     Err(MemoryError::Unreadable { address: 0x7fff_0020 })
/// );
/// ```
#[derive(Clone, Copy, Debug)]
pub struct StackSnapshot<'b> {
    bytes: SliceReader<'b>,
}

impl<'b> StackSnapshot<'b> {
    /// `bytes` were copied from the stack pointer `sp` (avma) upwards. Where red zones matter,
    /// `sp` may be any lower address that the copy began at.
    pub fn new(sp: u64, bytes: &'b [u8]) -> Self {
        StackSnapshot { bytes: SliceReader::new(sp, bytes) }
    }

    /// Where the copy begins (avma).
    pub const fn sp(&self) -> u64 {
        self.bytes.address()
    }

    /// The first address that was not copied (avma); `None` where the copy reaches the top of the
    /// address space.
    pub fn end(&self) -> Option<u64> {
        self.sp().checked_add(u64::try_from(self.bytes.bytes().len()).ok()?)
    }

    /// The same copy, cut before `address` (avma).
    pub fn cut(&self, address: u64) -> Self {
        let keep = usize::try_from(address.saturating_sub(self.sp())).unwrap_or(usize::MAX);
        let bytes = self.bytes.bytes();
        StackSnapshot::new(self.sp(), bytes.get(..keep).unwrap_or(bytes))
    }
}

impl MemoryReader for StackSnapshot<'_> {
    #[inline]
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        self.bytes.read(address, into)
    }

    #[inline]
    fn read_word(&mut self, address: u64, size: WordSize, order: ByteOrder) -> Result<u64, MemoryError> {
        self.bytes.read_word(address, size, order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_at_every_byte_names_the_cut() {
        let bytes = [0x5a; 64];
        let whole = StackSnapshot::new(0x1000, &bytes);
        assert_eq!(whole.end(), Some(0x1040));
        for cut in 0x1000..0x1040u64 {
            let mut stack = whole.cut(cut);
            assert_eq!(stack.end(), Some(cut));
            for address in (0x1000..0x1040u64).step_by(8) {
                let got = stack.read_word(address, WordSize::Eight, ByteOrder::Little);
                if address + 8 <= cut {
                    assert_eq!(got, Ok(0x5a5a_5a5a_5a5a_5a5a));
                } else {
                    assert_eq!(got, Err(MemoryError::Unreadable { address: address.max(cut) }));
                }
            }
        }
    }

    #[test]
    fn below_sp_and_beyond_the_end_nothing_is_cut() {
        let bytes = [0; 16];
        let mut stack = StackSnapshot::new(0x1000, &bytes);
        assert_eq!(stack.read(0xff8, &mut [0; 8]), Err(MemoryError::Unreadable { address: 0xff8 }));
        assert_eq!(stack.cut(0x2000).end(), Some(0x1010));
        assert_eq!(stack.cut(0).end(), Some(0x1000));
    }

    #[test]
    fn up_to_the_top_of_the_address_space() {
        let bytes = [7; 16];
        let mut stack = StackSnapshot::new(u64::MAX - 15, &bytes);
        assert_eq!(stack.end(), None);
        assert_eq!(stack.read_word(u64::MAX - 3, WordSize::Four, ByteOrder::Little), Ok(0x0707_0707));
    }
}
