//! Words of the target out of bytes.

use unwind_core::{ByteOrder, WordSize};

/// The word that `bytes` begin with; `None` where they are too few.
#[inline]
pub(crate) fn decode(bytes: &[u8], size: WordSize, order: ByteOrder) -> Option<u64> {
    Some(match (size, order) {
        (WordSize::Eight, ByteOrder::Little) => u64::from_le_bytes(*bytes.first_chunk()?),
        (WordSize::Eight, ByteOrder::Big) => u64::from_be_bytes(*bytes.first_chunk()?),
        (WordSize::Four, ByteOrder::Little) => u64::from(u32::from_le_bytes(*bytes.first_chunk()?)),
        (WordSize::Four, ByteOrder::Big) => u64::from(u32::from_be_bytes(*bytes.first_chunk()?)),
    })
}
