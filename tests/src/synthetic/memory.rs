//! Memory of a made-up target, and readers that misbehave in ways that real ones do.

use std::collections::BTreeMap;

use unwind_core::{ByteOrder, MemoryError, MemoryReader, WordSize};

/// Bytes at addresses: what is not there cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Lines of 64 bytes, by their number.
    lines: BTreeMap<u64, Line>,
}

/// 64 bytes, and a bit for each that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    bytes: [u8; 64],
    known: u64,
}

fn place(address: u64) -> (u64, usize) {
    (address / 64, usize::try_from(address % 64).expect("below 64"))
}

impl Memory {
    /// Memory without a byte.
    pub fn new() -> Self {
        Memory::default()
    }

    /// Stores bytes, wrapping at the end of the 64-bit space.
    pub fn put(&mut self, address: u64, bytes: &[u8]) {
        for (offset, byte) in (0u64..).zip(bytes) {
            let (line, index) = place(address.wrapping_add(offset));
            let line = self.lines.entry(line).or_insert(Line { bytes: [0; 64], known: 0 });
            line.bytes[index] = *byte;
            line.known |= 1 << index;
        }
    }

    /// Stores a word.
    pub fn put_word(&mut self, address: u64, value: u64, size: WordSize, order: ByteOrder) {
        let little = value.to_le_bytes();
        let mut bytes = little[..usize::from(size.bytes())].to_vec();
        if order == ByteOrder::Big {
            bytes.reverse();
        }
        self.put(address, &bytes);
    }

    /// Takes bytes away.
    pub fn remove(&mut self, address: u64, len: u64) {
        for offset in 0..len {
            let (line, index) = place(address.wrapping_add(offset));
            if let Some(line) = self.lines.get_mut(&line) {
                line.known &= !(1 << index);
            }
        }
    }

    /// Takes away every byte from `start` on that is below `end`.
    pub fn remove_range(&mut self, start: u64, end: u64) {
        for (number, line) in self.lines.range_mut(start / 64..=end / 64) {
            for index in (0..64).filter(|index| (start..end).contains(&(number * 64 + index))) {
                line.known &= !(1 << index);
            }
        }
    }

    /// The byte at an address.
    pub fn get(&self, address: u64) -> Option<u8> {
        let (line, index) = place(address);
        let line = self.lines.get(&line)?;
        (line.known >> index & 1 != 0).then(|| line.bytes[index])
    }

    /// Changes the byte at an address, if there is one.
    pub fn flip(&mut self, address: u64, bits: u8) {
        let (line, index) = place(address);
        if let Some(line) = self.lines.get_mut(&line) {
            line.bytes[index] ^= bits;
        }
    }
}

/// Names the first byte that is missing.
impl MemoryReader for &Memory {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let mut at = Some(address);
        let mut line: Option<(u64, &Line)> = None;
        for (offset, slot) in (0u64..).zip(into) {
            // Nothing wraps here: what is beyond the end of the address space is not readable.
            let missing = MemoryError::Unreadable { address: address.wrapping_add(offset) };
            let (number, index) = place(at.ok_or(missing)?);
            if line.is_none_or(|(held, _)| held != number) {
                line = Some((number, self.lines.get(&number).ok_or(missing)?));
            }
            let Some((_, held)) = line.filter(|(_, held)| held.known >> index & 1 != 0) else {
                return Err(missing);
            };
            *slot = held.bytes[index];
            at = at.and_then(|at| at.checked_add(1));
        }
        Ok(())
    }
}

/// Counts reads, and remembers them.
#[derive(Clone, Debug, Default)]
pub struct Counting<M> {
    inner: M,
    /// Address and length of every read so far.
    pub reads: Vec<(u64, usize)>,
}

impl<M> Counting<M> {
    /// Counts the reads from `inner`.
    pub fn new(inner: M) -> Self {
        Counting { inner, reads: Vec::new() }
    }
}

impl<M: MemoryReader> MemoryReader for Counting<M> {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        self.reads.push((address, into.len()));
        self.inner.read(address, into)
    }
}

/// Fails once, at the read with this number, and never again.
#[derive(Clone, Debug)]
pub struct FailsOnce<M> {
    inner: M,
    /// How many reads will still succeed before the one that fails.
    pub countdown: Option<u32>,
    error: MemoryError,
}

impl<M> FailsOnce<M> {
    /// Fails with `error` after `countdown` reads.
    pub fn new(inner: M, countdown: u32, error: MemoryError) -> Self {
        FailsOnce { inner, countdown: Some(countdown), error }
    }
}

impl<M: MemoryReader> MemoryReader for FailsOnce<M> {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        match self.countdown {
            Some(0) => {
                self.countdown = None;
                return Err(self.error);
            }
            Some(left) => self.countdown = Some(left - 1),
            None => {}
        }
        self.inner.read(address, into)
    }
}

/// Memory that another thread writes to: some reads see something else than what is there, or
/// nothing at all.
#[derive(Clone, Debug)]
pub struct Changing<M> {
    inner: M,
    random: u64,
}

impl<M> Changing<M> {
    /// Changes what `inner` holds, in a way that `seed` decides.
    pub fn new(inner: M, seed: u64) -> Self {
        Changing { inner, random: seed | 1 }
    }

    fn random(&mut self) -> u64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

impl<M: MemoryReader> MemoryReader for Changing<M> {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        self.inner.read(address, into)?;
        match self.random() % 8 {
            0 => Err(MemoryError::Unreadable { address }),
            1 | 2 => {
                let bits = self.random().to_le_bytes();
                for (byte, bits) in into.iter_mut().zip(bits) {
                    *byte ^= bits;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
