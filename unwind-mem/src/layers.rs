//! One reader over another.

use unwind_core::{ByteOrder, MemoryError, MemoryReader, WordSize};

/// Two readers as one: the first that has the bytes answers. Nest them for more.
///
/// What only one of them has may begin in the one and end in the other. Only
/// [`MemoryError::Unreadable`] falls through; [`MemoryError::Transport`] says nothing about an
/// address, and propagates from either.
///
/// ```
/// use unwind_core::{ByteOrder, MemoryReader, WordSize};
/// use unwind_mem::{Layers, SliceReader, StackSnapshot};
///
/// let stack = StackSnapshot::new(0x7000, &[1; 8]);
/// let text = SliceReader::new(0x1000, &[2; 8]);
/// let mut memory = Layers::new(stack, text);
/// assert_eq!(memory.read_word(0x7000, WordSize::Four, ByteOrder::Big), Ok(0x0101_0101));
/// assert_eq!(memory.read_word(0x1000, WordSize::Four, ByteOrder::Big), Ok(0x0202_0202));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Layers<A, B> {
    upper: A,
    lower: B,
}

impl<A, B> Layers<A, B> {
    /// `upper` over `lower`.
    pub const fn new(upper: A, lower: B) -> Self {
        Layers { upper, lower }
    }

    /// The two readers.
    pub fn into_parts(self) -> (A, B) {
        (self.upper, self.lower)
    }
}

impl<A: MemoryReader, B: MemoryReader> Layers<A, B> {
    /// Reads as much as one of the two has at `address`, and says how much that was: all of
    /// `into`, or less and then at least one byte.
    fn read_some(&mut self, address: u64, into: &mut [u8]) -> Result<usize, MemoryError> {
        let Some(upper_lacks) = unreadable(self.upper.read(address, into))? else {
            return Ok(into.len());
        };
        let Some(lower_lacks) = unreadable(self.lower.read(address, into))? else {
            return Ok(into.len());
        };
        // Neither has it all. Readers say how far they came; the one that came further gets its
        // part, which it is asked for anew: what a failed read has left in `into` is unspecified.
        let first = upper_lacks.max(lower_lacks);
        let error = MemoryError::Unreadable { address: first };
        let here = first.checked_sub(address).and_then(|here| usize::try_from(here).ok()).unwrap_or(0);
        let part = into.get_mut(..here).filter(|part| !part.is_empty()).ok_or(error)?;
        if upper_lacks >= lower_lacks {
            self.upper.read(address, part)?;
        } else {
            self.lower.read(address, part)?;
        }
        Ok(here)
    }
}

/// The address that a read failed at, if it was an address that failed.
#[inline]
fn unreadable(result: Result<(), MemoryError>) -> Result<Option<u64>, MemoryError> {
    match result {
        Ok(()) => Ok(None),
        Err(MemoryError::Unreadable { address }) => Ok(Some(address)),
        Err(error) => Err(error),
    }
}

impl<A: MemoryReader, B: MemoryReader> MemoryReader for Layers<A, B> {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let mut at = Some(address);
        let mut rest = into;
        while !rest.is_empty() {
            let address = at.ok_or(MemoryError::Unreadable { address: u64::MAX })?;
            let length = self.read_some(address, rest)?;
            rest = rest.get_mut(length..).unwrap_or_default();
            at = u64::try_from(length).ok().and_then(|length| address.checked_add(length));
        }
        Ok(())
    }

    #[inline]
    fn read_word(&mut self, address: u64, size: WordSize, order: ByteOrder) -> Result<u64, MemoryError> {
        match self.upper.read_word(address, size, order) {
            Err(MemoryError::Unreadable { .. }) => {}
            answer => return answer,
        }
        match self.lower.read_word(address, size, order) {
            Err(MemoryError::Unreadable { .. }) => {}
            answer => return answer,
        }
        let mut bytes = [0; 8];
        let unreadable = MemoryError::Unreadable { address };
        let bytes = bytes.get_mut(..usize::from(size.bytes())).ok_or(unreadable)?;
        self.read(address, bytes)?;
        crate::word::decode(bytes, size, order).ok_or(unreadable)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use unwind_core::from_fn;

    use super::*;
    use crate::SliceReader;

    const GONE: MemoryError = MemoryError::Transport { code: 3 };

    #[test]
    fn the_upper_one_answers_first() {
        let mut memory = Layers::new(SliceReader::new(0x1000, &[1; 8]), SliceReader::new(0xff8, &[2; 24]));
        let mut word = |address| memory.read_word(address, WordSize::Four, ByteOrder::Big);
        assert_eq!(word(0x1000), Ok(0x0101_0101));
        assert_eq!(word(0xff8), Ok(0x0202_0202));
        assert_eq!(word(0x1008), Ok(0x0202_0202));
        assert_eq!(word(0x1010), Err(MemoryError::Unreadable { address: 0x1010 }));
    }

    #[test]
    fn a_read_may_begin_in_one_and_end_in_the_other() {
        for (upper, lower) in [(0x1000, 0x1004), (0x1004, 0x1000)] {
            let mut memory =
                Layers::new(SliceReader::new(upper, &[1, 2, 3, 4]), SliceReader::new(lower, &[5, 6, 7, 8]));
            let mut bytes = [0; 8];
            assert_eq!(memory.read(0x1000, &mut bytes), Ok(()));
            let want = if upper < lower { [1, 2, 3, 4, 5, 6, 7, 8] } else { [5, 6, 7, 8, 1, 2, 3, 4] };
            assert_eq!(bytes, want);
            let word = memory.read_word(0x1000, WordSize::Eight, ByteOrder::Big);
            assert_eq!(word, Ok(u64::from_be_bytes(want)));
            let beyond = memory.read(0x1002, &mut [0; 8]);
            assert_eq!(beyond, Err(MemoryError::Unreadable { address: 0x1008 }));
        }
    }

    #[test]
    fn h42_a_transport_that_failed_does_not_fall_through() {
        let gone = || from_fn(|_, _: &mut [u8]| Err(GONE));
        let here = SliceReader::new(0x1000, &[1; 8]);
        let word = |memory: &mut dyn MemoryReader, address| {
            memory.read_word(address, WordSize::Four, ByteOrder::Big)
        };
        assert_eq!(word(&mut Layers::new(gone(), here), 0x1000), Err(GONE));
        assert_eq!(word(&mut Layers::new(here, gone()), 0x1000), Ok(0x0101_0101));
        assert_eq!(word(&mut Layers::new(here, gone()), 0x2000), Err(GONE));
        assert_eq!(Layers::new(gone(), here).read(0x1000, &mut [0; 2]), Err(GONE));
        assert_eq!(Layers::new(here, gone()).read(0x1006, &mut [0; 4]), Err(GONE));
    }

    #[test]
    fn readers_that_cannot_tell_where_they_failed() {
        // Names the request's address, or one far off: no progress, no endless loop.
        for named in [0, 0x1000, 0x1004, u64::MAX] {
            let vague = || from_fn(move |_, _: &mut [u8]| Err(MemoryError::Unreadable { address: named }));
            let mut memory = Layers::new(vague(), vague());
            assert!(matches!(memory.read(0x1000, &mut [0; 8]), Err(MemoryError::Unreadable { .. })));
        }
    }

    #[test]
    fn both_ends_of_the_address_space() {
        let mut memory = Layers::new(SliceReader::new(0, &[1; 4]), SliceReader::new(u64::MAX - 3, &[2; 4]));
        assert_eq!(memory.read(0, &mut [0; 4]), Ok(()));
        assert_eq!(memory.read(u64::MAX - 3, &mut [0; 4]), Ok(()));
        let over = memory.read(u64::MAX - 3, &mut [0; 5]);
        assert_eq!(over, Err(MemoryError::Unreadable { address: u64::MAX }));
    }

    #[test]
    fn nested() {
        let slice = |address, bytes| SliceReader::new(address, bytes);
        let mut memory = Layers::new(
            slice(0, &[1]),
            Layers::new(slice(1, &[2]), Layers::new(slice(2, &[3]), slice(3, &[4]))),
        );
        assert_eq!(memory.read_word(0, WordSize::Four, ByteOrder::Big).unwrap(), 0x0102_0304);
    }
}
