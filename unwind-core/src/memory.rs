//! Reading the target's memory.

use core::fmt;

use crate::{ByteOrder, WordSize};

/// Why bytes of the target could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryError {
    /// Nothing readable at this address (avma): unmapped, protected, or outside a snapshot.
    /// It is the lowest address of the request that failed, as far as the reader can tell.
    Unreadable {
        /// The address.
        address: u64,
    },
    /// The way to the target failed, not an address: the process is gone, permission is missing,
    /// the connection broke. `code` is the transport's own (on Linux an `errno`).
    Transport {
        /// The transport's own error number.
        code: i32,
    },
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemoryError::Unreadable { address } => write!(f, "memory at {address:#x} is unreadable"),
            MemoryError::Transport { code } => write!(f, "the target cannot be reached (error {code})"),
        }
    }
}

impl core::error::Error for MemoryError {}

/// The memory of a target.
///
/// `&mut self`, because transports cache and count. Object safe: `&mut dyn MemoryReader` is itself
/// a `MemoryReader`.
///
/// # Contract
/// * `read` fills the whole of `into` or fails; what `into` then holds is unspecified.
/// * It does not panic and returns in bounded time, whatever the address.
/// * Nothing is assumed about two reads agreeing: the target may run meanwhile.
pub trait MemoryReader {
    /// Fills `into` with the bytes at `address` (avma).
    ///
    /// # Errors
    /// [`MemoryError::Unreadable`] where some of the bytes cannot be read (also where
    /// `address + into.len()` leaves the address space); [`MemoryError::Transport`] where nothing
    /// can be read any more.
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError>;

    /// Reads a word of the target. Override it where that is faster than through `read`.
    ///
    /// # Errors
    /// As for [`read`](MemoryReader::read).
    #[inline]
    fn read_word(&mut self, address: u64, size: WordSize, order: ByteOrder) -> Result<u64, MemoryError> {
        match size {
            WordSize::Four => {
                let mut bytes = [0; 4];
                self.read(address, &mut bytes)?;
                Ok(u64::from(match order {
                    ByteOrder::Little => u32::from_le_bytes(bytes),
                    ByteOrder::Big => u32::from_be_bytes(bytes),
                }))
            }
            WordSize::Eight => {
                let mut bytes = [0; 8];
                self.read(address, &mut bytes)?;
                Ok(match order {
                    ByteOrder::Little => u64::from_le_bytes(bytes),
                    ByteOrder::Big => u64::from_be_bytes(bytes),
                })
            }
        }
    }
}

impl<M: MemoryReader + ?Sized> MemoryReader for &mut M {
    #[inline]
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        (**self).read(address, into)
    }

    #[inline]
    fn read_word(&mut self, address: u64, size: WordSize, order: ByteOrder) -> Result<u64, MemoryError> {
        (**self).read_word(address, size, order)
    }
}

/// A closure as a [`MemoryReader`]; see [`from_fn`].
#[derive(Clone, Copy)]
pub struct FnReader<F>(F);

/// Makes a [`MemoryReader`] of a closure that fills a buffer from an address.
///
/// ```
/// use unwind_core::{from_fn, MemoryError, MemoryReader, ByteOrder, WordSize};
///
/// let stack = [0x11u8, 0x22, 0x33, 0x44];
/// let mut memory = from_fn(|address, into: &mut [u8]| {
///     let unreadable = MemoryError::Unreadable { address };
///     let at = usize::try_from(address.wrapping_sub(0x1000)).map_err(|_| unreadable)?;
///     let end = at.checked_add(into.len()).ok_or(unreadable)?;
///     into.copy_from_slice(stack.get(at..end).ok_or(unreadable)?);
///     Ok(())
/// });
/// assert_eq!(memory.read_word(0x1000, WordSize::Four, ByteOrder::Big), Ok(0x11223344));
/// assert!(memory.read_word(0x1001, WordSize::Four, ByteOrder::Big).is_err());
/// ```
pub fn from_fn<F>(read: F) -> FnReader<F>
where
    F: FnMut(u64, &mut [u8]) -> Result<(), MemoryError>,
{
    FnReader(read)
}

impl<F> MemoryReader for FnReader<F>
where
    F: FnMut(u64, &mut [u8]) -> Result<(), MemoryError>,
{
    #[inline]
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        (self.0)(address, into)
    }
}

impl<F> fmt::Debug for FnReader<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FnReader")
    }
}
