//! Bytes that lie at one address of the target.

use unwind_core::{ByteOrder, MemoryError, MemoryReader, WordSize};

/// A slice as the target's memory from one address on. Everything else is unreadable.
///
/// ```
/// use unwind_core::{ByteOrder, MemoryError, MemoryReader, WordSize};
/// use unwind_mem::SliceReader;
///
/// let mut memory = SliceReader::new(0x1000, &[1, 0, 0, 0, 0, 0, 0, 0, 2]);
/// assert_eq!(memory.read_word(0x1000, WordSize::Eight, ByteOrder::Little), Ok(1));
/// // The first address that is missing is told.
/// assert_eq!(
///     memory.read_word(0x1008, WordSize::Eight, ByteOrder::Little),
///     Err(MemoryError::Unreadable { address: 0x1009 })
/// );
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SliceReader<'b> {
    address: u64,
    bytes: &'b [u8],
}

impl<'b> SliceReader<'b> {
    /// `bytes` at `address` (avma). Bytes that would lie beyond the top of the address space are
    /// left out.
    pub fn new(address: u64, bytes: &'b [u8]) -> Self {
        let last = usize::try_from(u64::MAX.wrapping_sub(address)).unwrap_or(usize::MAX);
        let bytes = bytes.get(..=last).unwrap_or(bytes);
        SliceReader { address, bytes }
    }

    /// The address of the first byte.
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// The bytes.
    pub const fn bytes(&self) -> &'b [u8] {
        self.bytes
    }

    /// The bytes from `address` on, as far as they go.
    #[inline]
    fn from(&self, address: u64) -> Option<&'b [u8]> {
        let offset = address.checked_sub(self.address)?;
        self.bytes.get(usize::try_from(offset).ok()?..)
    }

    /// The `N` bytes at `address`.
    #[inline]
    fn chunk<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        // An address below the first is far beyond the last.
        let offset = usize::try_from(address.wrapping_sub(self.address)).ok()?;
        self.bytes.get(offset..)?.first_chunk().copied()
    }

    /// Why `length` bytes at `address` are not all here.
    #[cold]
    fn missing(&self, address: u64) -> MemoryError {
        let here = self.from(address).map_or(0, <[u8]>::len);
        // Everything up to the top of the address space may be here, and the request go beyond.
        let first = u64::try_from(here).ok().and_then(|here| address.checked_add(here)).unwrap_or(u64::MAX);
        MemoryError::Unreadable { address: first }
    }
}

impl MemoryReader for SliceReader<'_> {
    #[inline]
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        if let Some(bytes) = self.from(address).and_then(|bytes| bytes.get(..into.len())) {
            into.copy_from_slice(bytes);
            return Ok(());
        }
        if into.is_empty() { Ok(()) } else { Err(self.missing(address)) }
    }

    #[inline]
    fn read_word(&mut self, address: u64, size: WordSize, order: ByteOrder) -> Result<u64, MemoryError> {
        let word = match size {
            WordSize::Eight => self.chunk(address).map(|bytes| match order {
                ByteOrder::Little => u64::from_le_bytes(bytes),
                ByteOrder::Big => u64::from_be_bytes(bytes),
            }),
            WordSize::Four => self.chunk(address).map(|bytes| {
                u64::from(match order {
                    ByteOrder::Little => u32::from_le_bytes(bytes),
                    ByteOrder::Big => u32::from_be_bytes(bytes),
                })
            }),
        };
        word.ok_or_else(|| self.missing(address))
    }
}

/// Whether the last of `length` bytes at `address` is in the 64-bit address space.
#[inline]
pub(crate) fn in_address_space(address: u64, length: usize) -> bool {
    let Some(beyond_first) = u64::try_from(length).ok().map(|length| length.saturating_sub(1)) else {
        return false;
    };
    address.checked_add(beyond_first).is_some()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests"
)]
mod tests {
    use super::*;

    const BYTES: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

    fn unreadable<T>(address: u64) -> Result<T, MemoryError> {
        Err(MemoryError::Unreadable { address })
    }

    #[test]
    fn words_of_both_sizes_and_orders() {
        let mut memory = SliceReader::new(0x1000, &BYTES);
        let mut word = |size, order| memory.read_word(0x1008, size, order).unwrap();
        assert_eq!(word(WordSize::Eight, ByteOrder::Little), 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(word(WordSize::Eight, ByteOrder::Big), 0x0809_0a0b_0c0d_0e0f);
        assert_eq!(word(WordSize::Four, ByteOrder::Little), 0x0b0a_0908);
        assert_eq!(word(WordSize::Four, ByteOrder::Big), 0x0809_0a0b);
    }

    #[test]
    fn the_first_missing_address_is_named() {
        let mut memory = SliceReader::new(0x1000, &BYTES);
        for address in 0xff0..0x1020u64 {
            for length in 0..24usize {
                let mut into = [0xee; 24];
                let into = into.get_mut(..length).unwrap();
                let missing = (address..).take(length).find(|byte| !(0x1000..0x1010).contains(byte));
                match missing {
                    Some(missing) => assert_eq!(memory.read(address, into), unreadable(missing)),
                    None => {
                        assert_eq!(memory.read(address, into), Ok(()));
                        let want = (address..).take(length).map(|byte| (byte & 0xff) as u8);
                        assert!(into.iter().copied().eq(want));
                    }
                }
            }
        }
    }

    #[test]
    fn both_ends_of_the_address_space() {
        let mut low = SliceReader::new(0, &BYTES);
        assert_eq!(low.read_word(0, WordSize::Four, ByteOrder::Big), Ok(0x0001_0203));
        assert_eq!(low.read_word(13, WordSize::Four, ByteOrder::Big), unreadable(16));
        assert_eq!(low.read_word(u64::MAX, WordSize::Four, ByteOrder::Big), unreadable(u64::MAX));

        let top = u64::MAX - 15;
        let mut high = SliceReader::new(top, &BYTES);
        assert_eq!(high.read_word(top + 8, WordSize::Eight, ByteOrder::Big), Ok(0x0809_0a0b_0c0d_0e0f));
        assert_eq!(high.read_word(top + 9, WordSize::Eight, ByteOrder::Big), unreadable(u64::MAX));
        assert_eq!(high.read(u64::MAX, &mut [0; 1]), Ok(()));
        assert_eq!(high.read(u64::MAX, &mut [0; 2]), unreadable(u64::MAX));
        assert_eq!(high.read(0, &mut [0; 1]), unreadable(0));
    }

    #[test]
    fn bytes_beyond_the_top_are_never_found() {
        let mut memory = SliceReader::new(u64::MAX - 3, &BYTES);
        assert_eq!(memory.read(u64::MAX - 3, &mut [0; 4]), Ok(()));
        assert_eq!(memory.read(u64::MAX - 3, &mut [0; 5]), unreadable(u64::MAX));
        assert_eq!(memory.read_word(u64::MAX, WordSize::Eight, ByteOrder::Little), unreadable(u64::MAX));
        assert_eq!(memory.read(0, &mut [0; 1]), unreadable(0));
    }

    #[test]
    fn nothing_at_all() {
        let mut memory = SliceReader::new(0x1000, &[]);
        assert_eq!(memory.read(0x1000, &mut [0; 1]), unreadable(0x1000));
        assert_eq!(memory.read(0x1000, &mut []), Ok(()));
        assert_eq!(memory.read(0x2000, &mut []), Ok(()));
    }
}
