//! Many pieces of memory.

use core::fmt;

use unwind_core::{ByteOrder, MemoryError, MemoryReader, WordSize};

use crate::slice::in_address_space;
use crate::word;

/// Bytes of the target, and where they lie.
#[derive(Clone, Copy, Debug)]
pub struct Region<'b> {
    /// The address of the first byte (avma).
    pub address: u64,
    /// The bytes.
    pub bytes: &'b [u8],
}

impl Region<'_> {
    /// The address of the last byte; `None` where there is none, or it is beyond the top of the
    /// address space.
    fn last(&self) -> Option<u64> {
        self.address.checked_add(u64::try_from(self.bytes.len()).ok()?.checked_sub(1)?)
    }
}

/// Why a list of regions is no map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegionMapError {
    /// The region at this index has no bytes, or reaches beyond the top of the address space.
    BadRegion {
        /// The index.
        index: usize,
    },
    /// The region at this index begins before the end of the one before it: the list is not
    /// sorted, or the two overlap.
    Overlap {
        /// The index.
        index: usize,
    },
}

impl fmt::Display for RegionMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegionMapError::BadRegion { index } => {
                write!(f, "region {index} is empty or leaves the address space")
            }
            RegionMapError::Overlap { index } => {
                write!(f, "region {index} begins before the end of the one before it")
            }
        }
    }
}

impl core::error::Error for RegionMapError {}

/// A list of regions, borrowed: sorted by address and free of overlaps. Reads may go over from
/// one region to an adjacent one.
///
/// Lookup is a binary search, after one look at the region that answered last.
///
/// ```
/// use unwind_core::{ByteOrder, MemoryReader, WordSize};
/// use unwind_mem::{Region, RegionMap};
///
/// let regions = [
///     Region { address: 0x1000, bytes: &[1, 2] },
///     Region { address: 0x1002, bytes: &[3, 4] },
///     Region { address: 0x9000, bytes: &[5, 6, 7, 8] },
/// ];
/// let mut memory = RegionMap::new(&regions)?;
/// assert_eq!(memory.read_word(0x1000, WordSize::Four, ByteOrder::Big), Ok(0x0102_0304));
/// # Ok::<(), unwind_mem::RegionMapError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RegionMap<'m> {
    regions: &'m [Region<'m>],
    last: usize,
}

impl<'m> RegionMap<'m> {
    /// A map of these regions.
    ///
    /// # Errors
    /// Where one is empty or leaves the address space, or they are not in ascending order
    /// without overlap.
    pub fn new(regions: &'m [Region<'m>]) -> Result<Self, RegionMapError> {
        let mut previous = None;
        for (index, region) in regions.iter().enumerate() {
            let last = region.last().ok_or(RegionMapError::BadRegion { index })?;
            if previous.is_some_and(|previous| region.address <= previous) {
                return Err(RegionMapError::Overlap { index });
            }
            previous = Some(last);
        }
        Ok(RegionMap { regions, last: 0 })
    }

    /// The regions.
    pub fn regions(&self) -> &'m [Region<'m>] {
        self.regions
    }

    /// The bytes from `address` to the end of its region.
    #[inline]
    fn from(&mut self, address: u64) -> Option<&'m [u8]> {
        if let Some(bytes) = self.regions.get(self.last).and_then(|region| tail(region, address)) {
            return Some(bytes);
        }
        let index = self.regions.partition_point(|region| region.address <= address).checked_sub(1)?;
        let bytes = tail(self.regions.get(index)?, address)?;
        self.last = index;
        Some(bytes)
    }
}

/// The bytes of `region` from `address` on; `None` where there is none.
#[inline]
fn tail<'b>(region: &Region<'b>, address: u64) -> Option<&'b [u8]> {
    let offset = usize::try_from(address.checked_sub(region.address)?).ok()?;
    region.bytes.get(offset..).filter(|bytes| !bytes.is_empty())
}

impl MemoryReader for RegionMap<'_> {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let mut at = Some(address);
        let mut rest = into;
        while !rest.is_empty() {
            // Beyond the top of the address space there is nothing to name but its last address.
            let address = at.ok_or(MemoryError::Unreadable { address: u64::MAX })?;
            let bytes = self.from(address).ok_or(MemoryError::Unreadable { address })?;
            let length = bytes.len().min(rest.len());
            let (Some((here, beyond)), Some(bytes)) =
                (rest.split_at_mut_checked(length), bytes.get(..length))
            else {
                return Err(MemoryError::Unreadable { address });
            };
            here.copy_from_slice(bytes);
            rest = beyond;
            at = u64::try_from(length).ok().and_then(|length| address.checked_add(length));
        }
        Ok(())
    }

    #[inline]
    fn read_word(&mut self, address: u64, size: WordSize, order: ByteOrder) -> Result<u64, MemoryError> {
        if in_address_space(address, usize::from(size.bytes()))
            && let Some(word) = self.from(address).and_then(|bytes| word::decode(bytes, size, order))
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
    use super::*;

    #[test]
    fn every_read_over_gaps_and_seams() {
        // 0x10..0x14, 0x14..0x15, 0x15..0x20 are adjacent; 0x28..0x30 stands apart.
        let bytes: [u8; 64] = core::array::from_fn(|index| index as u8);
        let region =
            |from: usize, to: usize| Region { address: from as u64, bytes: bytes.get(from..to).unwrap() };
        let regions = [region(0x10, 0x14), region(0x14, 0x15), region(0x15, 0x20), region(0x28, 0x30)];
        let mut memory = RegionMap::new(&regions).unwrap();
        let here = |address: u64| (0x10..0x20).contains(&address) || (0x28..0x30).contains(&address);
        for address in 0..64u64 {
            for length in 0..40usize {
                let mut into = [0xee; 40];
                let into = into.get_mut(..length).unwrap();
                let got = memory.read(address, into);
                match (address..).take(length).find(|byte| !here(*byte)) {
                    Some(missing) => assert_eq!(got, Err(MemoryError::Unreadable { address: missing })),
                    None => {
                        assert_eq!(got, Ok(()));
                        assert!(into.iter().copied().eq((address..).take(length).map(|byte| byte as u8)));
                    }
                }
            }
            for size in [WordSize::Four, WordSize::Eight] {
                let mut into = [0; 8];
                let into = into.get_mut(..usize::from(size.bytes())).unwrap();
                let want =
                    memory.read(address, into).map(|()| word::decode(into, size, ByteOrder::Big).unwrap());
                assert_eq!(memory.read_word(address, size, ByteOrder::Big), want);
            }
        }
    }

    #[test]
    fn both_ends_of_the_address_space() {
        let bytes = [9; 8];
        let regions = [
            Region { address: 0, bytes: &bytes },
            Region { address: u64::MAX - 11, bytes: &bytes },
            Region { address: u64::MAX - 3, bytes: &[8; 4] },
        ];
        let mut memory = RegionMap::new(&regions).unwrap();
        assert_eq!(memory.read(0, &mut [0; 8]), Ok(()));
        let word = memory.read_word(u64::MAX - 7, WordSize::Eight, ByteOrder::Big);
        assert_eq!(word, Ok(0x0909_0909_0808_0808));
        // A read over the top does not go on at 0.
        assert_eq!(memory.read(u64::MAX, &mut [0; 2]), Err(MemoryError::Unreadable { address: u64::MAX }));
        assert_eq!(
            memory.read_word(u64::MAX - 6, WordSize::Eight, ByteOrder::Big),
            Err(MemoryError::Unreadable { address: u64::MAX })
        );
    }

    #[test]
    fn lists_that_are_no_map() {
        let bytes = [0; 8];
        let region = |address| Region { address, bytes: &bytes };
        let bad = |regions: &[Region<'_>]| RegionMap::new(regions).err();
        assert_eq!(bad(&[region(8), region(15)]), Some(RegionMapError::Overlap { index: 1 }));
        assert_eq!(bad(&[region(8), region(0)]), Some(RegionMapError::Overlap { index: 1 }));
        assert_eq!(bad(&[region(8), region(8)]), Some(RegionMapError::Overlap { index: 1 }));
        assert_eq!(bad(&[Region { address: 8, bytes: &[] }]), Some(RegionMapError::BadRegion { index: 0 }));
        assert_eq!(bad(&[region(8), region(u64::MAX - 6)]), Some(RegionMapError::BadRegion { index: 1 }));
        assert_eq!(bad(&[region(8), region(16), region(u64::MAX - 7)]), None);
    }

    #[test]
    fn no_regions() {
        let mut memory = RegionMap::new(&[]).unwrap();
        assert_eq!(memory.read(5, &mut [0; 1]), Err(MemoryError::Unreadable { address: 5 }));
        assert_eq!(memory.read(5, &mut []), Ok(()));
    }
}
