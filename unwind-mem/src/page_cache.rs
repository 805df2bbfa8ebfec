//! Whole pages kept in front of a slow reader.

use unwind_core::{ByteOrder, MemoryError, MemoryReader, WordSize};

use crate::slice::in_address_space;
use crate::word;

/// Room for one page of `SIZE` bytes; see [`PageCache`].
#[derive(Clone, Debug)]
pub struct Page<const SIZE: usize = 4096> {
    /// The address of its first byte, while it holds one.
    address: Option<u64>,
    bytes: [u8; SIZE],
}

impl<const SIZE: usize> Page<SIZE> {
    /// An empty page.
    pub const EMPTY: Self = Page { address: None, bytes: [0; SIZE] };

    fn holds(&self, base: u64) -> Option<&[u8; SIZE]> {
        (self.address == Some(base)).then_some(&self.bytes)
    }
}

impl<const SIZE: usize> Default for Page<SIZE> {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// A cache of pages over another reader, for targets where a read costs the same whatever its
/// size: another process, a remote stub.
///
/// The room is the caller's: any number of [`Page`]s, of a size (a power of two) that need not be
/// the target's. Every page has one place that it can be in; neighbours do not displace each other.
///
/// The cache does not notice that the target runs on: call [`invalidate`](PageCache::invalidate)
/// whenever it may have. A page that could not be read is not remembered in any way, and what was
/// asked for is then read exactly, for it may be the part that can be read.
///
/// ```
/// use unwind_core::{ByteOrder, MemoryReader, WordSize};
/// use unwind_mem::{Page, PageCache, SliceReader};
///
/// let slow = SliceReader::new(0x1000, &[7; 4096]);
/// let mut room: [Page; 16] = [Page::EMPTY; 16];
/// let mut memory = PageCache::new(slow, &mut room);
/// assert_eq!(memory.read_word(0x1ff8, WordSize::Four, ByteOrder::Little), Ok(0x0707_0707));
/// ```
#[derive(Debug)]
pub struct PageCache<'p, M, const SIZE: usize = 4096> {
    reader: M,
    pages: &'p mut [Page<SIZE>],
}

impl<'p, M, const SIZE: usize> PageCache<'p, M, SIZE> {
    /// The low bits of an address, that say where in its page it is.
    const OFFSET: u64 = {
        assert!(SIZE.is_power_of_two(), "the size of a page is a power of two");
        let mut bits = 0u64;
        let mut size = SIZE;
        while size > 1 {
            bits = (bits << 1) | 1;
            size >>= 1;
        }
        bits
    };

    /// A cache over `reader`, empty whatever `pages` held. With no pages at all, everything is
    /// read from `reader`.
    pub fn new(reader: M, pages: &'p mut [Page<SIZE>]) -> Self {
        let mut cache = PageCache { reader, pages };
        cache.invalidate();
        cache
    }

    /// Forgets everything.
    pub fn invalidate(&mut self) {
        for page in self.pages.iter_mut() {
            page.address = None;
        }
    }

    /// The reader below.
    pub fn reader(&mut self) -> &mut M {
        &mut self.reader
    }

    /// Gives the reader back.
    pub fn into_reader(self) -> M {
        self.reader
    }

    /// The place of the page at `base`.
    #[inline]
    fn place(&self, base: u64) -> Option<usize> {
        let number = base >> SIZE.trailing_zeros();
        usize::try_from(number.checked_rem(u64::try_from(self.pages.len()).ok()?)?).ok()
    }
}

impl<M: MemoryReader, const SIZE: usize> PageCache<'_, M, SIZE> {
    /// The page of `address`, read if it has to be; `None` where it cannot be read as a whole.
    fn page(&mut self, address: u64) -> Result<Option<&[u8; SIZE]>, MemoryError> {
        let base = address & !Self::OFFSET;
        let Some(place) = self.place(base) else {
            return Ok(None);
        };
        let Some(page) = self.pages.get_mut(place) else {
            return Ok(None);
        };
        if page.address != Some(base) {
            page.address = None;
            match self.reader.read(base, &mut page.bytes) {
                Ok(()) => page.address = Some(base),
                Err(MemoryError::Unreadable { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(page.holds(base))
    }

    /// Reads what lies within one page.
    fn read_within(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        if let Some(page) = self.page(address)? {
            let offset = usize::try_from(address & Self::OFFSET).unwrap_or(SIZE);
            if let Some(bytes) = page.get(offset..).and_then(|bytes| bytes.get(..into.len())) {
                into.copy_from_slice(bytes);
                return Ok(());
            }
        }
        self.reader.read(address, into)
    }
}

impl<M: MemoryReader, const SIZE: usize> MemoryReader for PageCache<'_, M, SIZE> {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        if !in_address_space(address, into.len()) {
            return self.reader.read(address, into);
        }
        let mut address = address;
        let mut rest = into;
        while !rest.is_empty() {
            let offset = usize::try_from(address & Self::OFFSET).unwrap_or(0);
            let length = SIZE.saturating_sub(offset).min(rest.len());
            let Some((here, beyond)) = rest.split_at_mut_checked(length) else {
                return Err(MemoryError::Unreadable { address });
            };
            self.read_within(address, here)?;
            rest = beyond;
            // Wraps to 0 only after the last byte of the address space, with nothing left to read.
            address = address.wrapping_add(u64::try_from(length).unwrap_or(0));
        }
        Ok(())
    }

    #[inline]
    fn read_word(&mut self, address: u64, size: WordSize, order: ByteOrder) -> Result<u64, MemoryError> {
        let base = address & !Self::OFFSET;
        if let Some(page) = self.place(base).and_then(|place| self.pages.get(place)?.holds(base))
            && let Ok(offset) = usize::try_from(address & Self::OFFSET)
            && let Some(word) = page.get(offset..).and_then(|bytes| word::decode(bytes, size, order))
        {
            return Ok(word);
        }
        let mut bytes = [0; 8];
        let unreadable = MemoryError::Unreadable { address };
        let bytes = bytes.get_mut(..usize::from(size.bytes())).ok_or(unreadable)?;
        self.read(address, bytes)?;
        word::decode(bytes, size, order).ok_or(unreadable)
    }
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
    use std::cell::{Cell, RefCell};
    use std::vec::Vec;

    use unwind_core::from_fn;

    use super::*;
    use crate::SliceReader;

    /// A reader over `bytes` at `base` that notes every read.
    fn noting<'a>(
        base: u64,
        bytes: &'a [u8],
        reads: &'a RefCell<Vec<(u64, usize)>>,
    ) -> impl MemoryReader + use<'a> {
        from_fn(move |address, into: &mut [u8]| {
            reads.borrow_mut().push((address, into.len()));
            SliceReader::new(base, bytes).read(address, into)
        })
    }

    #[test]
    fn pages_are_read_once() {
        let bytes: Vec<u8> = (0..64).collect();
        let reads = RefCell::default();
        let mut room = [Page::<16>::EMPTY; 4];
        let mut memory = PageCache::new(noting(0x1000, &bytes, &reads), &mut room);
        for address in 0x1000..0x1038 {
            let word = memory.read_word(address, WordSize::Eight, ByteOrder::Little).unwrap();
            assert_eq!(word.to_le_bytes(), bytes[(address - 0x1000) as usize..][..8]);
        }
        assert_eq!(*reads.borrow(), [(0x1000, 16), (0x1010, 16), (0x1020, 16), (0x1030, 16)]);
        memory.invalidate();
        assert_eq!(memory.read(0x1012, &mut [0; 1]), Ok(()));
        assert_eq!(reads.borrow().len(), 5);
    }

    #[test]
    fn more_pages_than_room() {
        let bytes: Vec<u8> = (0..=255).collect();
        for places in 0..5 {
            let mut room = std::vec![Page::<8>::EMPTY; places];
            let mut memory = PageCache::new(SliceReader::new(0, &bytes), &mut room);
            for round in 0..3 {
                for address in (0..249u64).rev().step_by(1 + round) {
                    let word = memory.read_word(address, WordSize::Eight, ByteOrder::Big).unwrap();
                    assert_eq!(word.to_be_bytes(), bytes[address as usize..][..8]);
                }
            }
        }
    }

    #[test]
    fn h29_reads_across_page_ends_into_nothing() {
        // Readable up to the middle of a page and not from its start either.
        let bytes = [3; 24];
        let reads = RefCell::default();
        let mut room = [Page::<16>::EMPTY; 4];
        let mut memory = PageCache::new(noting(0x1008, &bytes, &reads), &mut room);
        for address in 0x1000..0x1030u64 {
            for length in 1..32usize {
                let mut into = [0; 32];
                let into = into.get_mut(..length).unwrap();
                let missing = (address..).take(length).find(|byte| !(0x1008..0x1020).contains(byte));
                let got = memory.read(address, into);
                match missing {
                    Some(address) => assert_eq!(got, Err(MemoryError::Unreadable { address })),
                    None => assert!(got == Ok(()) && into.iter().all(|byte| *byte == 3)),
                }
            }
        }
        // Only the whole page was kept: the others are asked for anew every time.
        reads.borrow_mut().clear();
        assert_eq!(memory.read(0x1010, &mut [0; 16]), Ok(()));
        assert_eq!(*reads.borrow(), []);
        assert_eq!(memory.read(0x1008, &mut [0; 8]), Ok(()));
        assert_eq!(*reads.borrow(), [(0x1000, 16), (0x1008, 8)]);
    }

    #[test]
    fn h33_a_failure_is_not_remembered() {
        let works = Cell::new(true);
        let mut room = [Page::<16>::EMPTY; 2];
        let flaky = from_fn(|address, into: &mut [u8]| {
            // A failing read leaves rubbish behind.
            into.fill(if works.get() { 1 } else { 0xee });
            if works.get() { Ok(()) } else { Err(MemoryError::Unreadable { address }) }
        });
        let mut memory = PageCache::new(flaky, &mut room);
        let word = |memory: &mut dyn MemoryReader, address| {
            memory.read_word(address, WordSize::Four, ByteOrder::Big)
        };
        assert_eq!(word(&mut memory, 0x100), Ok(0x0101_0101));
        works.set(false);
        assert_eq!(word(&mut memory, 0x100), Ok(0x0101_0101));
        // 0x120 has the same place as 0x100.
        assert_eq!(word(&mut memory, 0x120), Err(MemoryError::Unreadable { address: 0x120 }));
        assert_eq!(word(&mut memory, 0x100), Err(MemoryError::Unreadable { address: 0x100 }));
        works.set(true);
        assert_eq!(word(&mut memory, 0x120), Ok(0x0101_0101));
        assert_eq!(word(&mut memory, 0x100), Ok(0x0101_0101));
    }

    #[test]
    fn h42_a_transport_that_failed_propagates() {
        let gone = MemoryError::Transport { code: 3 };
        let reads = Cell::new(0);
        let mut room = [Page::<16>::EMPTY; 2];
        let dead = from_fn(|_, _: &mut [u8]| {
            reads.set(reads.get() + 1);
            Err(gone)
        });
        let mut memory = PageCache::new(dead, &mut room);
        assert_eq!(memory.read_word(0x100, WordSize::Four, ByteOrder::Big), Err(gone));
        assert_eq!(reads.get(), 1);
    }

    #[test]
    fn both_ends_of_the_address_space() {
        let bytes: Vec<u8> = (0..32).collect();
        let mut room = [Page::<16>::EMPTY; 2];
        let mut memory = PageCache::new(SliceReader::new(u64::MAX - 31, &bytes), &mut room);
        let word = memory.read_word(u64::MAX - 7, WordSize::Eight, ByteOrder::Big);
        assert_eq!(word.unwrap().to_be_bytes(), bytes[24..]);
        let mut all = [0; 32];
        assert_eq!(memory.read(u64::MAX - 31, &mut all), Ok(()));
        assert_eq!(all[..], bytes[..]);
        let over = Err(MemoryError::Unreadable { address: u64::MAX });
        assert_eq!(memory.read(u64::MAX - 3, &mut [0; 8]), over);
        assert_eq!(memory.read_word(u64::MAX - 3, WordSize::Eight, ByteOrder::Big).map(|_| ()), over);

        let mut room = [Page::<16>::EMPTY; 2];
        let mut memory = PageCache::new(SliceReader::new(0, &bytes), &mut room);
        assert_eq!(memory.read_word(0, WordSize::Eight, ByteOrder::Big).unwrap().to_be_bytes(), bytes[..8]);
    }
}
