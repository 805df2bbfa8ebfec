//! The dynamic loader's list of modules, in the target's memory.
//!
//! `struct r_debug` and `struct link_map` of glibc's and musl's `<link.h>`; System V ABI,
//! "Dynamic Linking". The list is the target's and may be anything: every length is limited.

use unwind_core::{ByteOrder, MemoryError, MemoryReader, WordSize};

/// A module of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Linked {
    /// The load bias: `l_addr`.
    pub(super) bias: u64,
    /// `l_name`: empty for the program itself; `None` where it cannot be read.
    pub(super) name: Option<Vec<u8>>,
    /// Where its dynamic section is (avma): `l_ld`.
    pub(super) dynamic: u64,
}

/// The most entries of a dynamic section, modules, and bytes of a name.
const MAX_ENTRIES: u64 = 1024;
pub(super) const MAX_MODULES: usize = 4096;
const MAX_NAME: usize = 4096;

/// `d_tag`s: `DT_DEBUG` holds the address of `r_debug`; on MIPS, where the section is read-only,
/// `DT_MIPS_RLD_MAP` and `DT_MIPS_RLD_MAP_REL` say where that address is.
const DT_DEBUG: u64 = 21;
const DT_MIPS_RLD_MAP: u64 = 0x7000_0016;
const DT_MIPS_RLD_MAP_REL: u64 = 0x7000_0035;

/// Reads words of the target.
pub(super) struct LinkMap<'m> {
    pub(super) memory: &'m mut dyn MemoryReader,
    pub(super) word: WordSize,
    pub(super) order: ByteOrder,
}

impl LinkMap<'_> {
    /// The list that the dynamic section at `dynamic` (avma) leads to, as far as it can be read
    /// into `list`. `None` where it ends before its end; `Some` also where there is none, as in a
    /// program without shared libraries.
    pub(super) fn read(&mut self, dynamic: u64, list: &mut Vec<Linked>) -> Option<()> {
        let debug = self.debug(dynamic).ok()?;
        // `r_version` is padded to a word. 0: the loader has not run yet.
        if debug == 0 {
            return Some(());
        }
        let mut entry = self.at(debug, 1).ok()?;
        while entry != 0 {
            if list.len() >= MAX_MODULES {
                return None;
            }
            let bias = self.at(entry, 0).ok()?;
            let name = self.at(entry, 1).ok()?;
            let dynamic = self.at(entry, 2).ok()?;
            list.push(Linked { bias, name: self.text(name), dynamic });
            entry = self.at(entry, 3).ok()?;
        }
        Some(())
    }

    /// The address of `r_debug`; 0 where there is none.
    fn debug(&mut self, dynamic: u64) -> Result<u64, MemoryError> {
        let mut at = dynamic;
        for _ in 0..MAX_ENTRIES {
            let value = self.at(at, 1)?;
            match self.at(at, 0)? {
                0 => break,
                DT_DEBUG if value != 0 => return Ok(value),
                DT_MIPS_RLD_MAP => return self.at(value, 0),
                DT_MIPS_RLD_MAP_REL => return self.at(self.word.wrapping_offset(at, value), 0),
                _ => {}
            }
            at = self.word.wrapping_offset(at, u64::from(self.word.bytes()).saturating_mul(2));
        }
        Ok(0)
    }

    /// The word at this index of what is at `address`.
    fn at(&mut self, address: u64, index: u64) -> Result<u64, MemoryError> {
        let offset = index.saturating_mul(self.word.bytes().into());
        self.memory.read_word(self.word.wrapping_offset(address, offset), self.word, self.order)
    }

    /// A text up to its zero.
    fn text(&mut self, address: u64) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        while text.len() < MAX_NAME {
            let mut byte = [0];
            let at = self.word.wrapping_offset(address, u64::try_from(text.len()).ok()?);
            self.memory.read(at, &mut byte).ok()?;
            match byte {
                [0] => return Some(text),
                [byte] => text.push(byte),
            }
        }
        None
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
    use crate::SliceReader;

    /// Words from 0x1000 on, then two names.
    fn memory(word: WordSize, order: ByteOrder, words: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for value in words {
            let (little, big) = (value.to_le_bytes(), value.to_be_bytes());
            match (word, order) {
                (WordSize::Eight, ByteOrder::Little) => bytes.extend(little),
                (WordSize::Eight, ByteOrder::Big) => bytes.extend(big),
                (WordSize::Four, ByteOrder::Little) => bytes.extend(little.first_chunk::<4>().unwrap()),
                (WordSize::Four, ByteOrder::Big) => bytes.extend(big.last_chunk::<4>().unwrap()),
            }
        }
        bytes.extend(b"\0/lib/c\0");
        bytes
    }

    /// A dynamic section of three entries, `r_debug`, two modules of which the second's next is
    /// `next`: an index of a word.
    fn list(word: WordSize, tag: u64, debug: u64, next: Option<u64>) -> Vec<u64> {
        let at = |index: u64| 0x1000 + index * u64::from(word.bytes());
        let debug = if debug == 0 { at(7) } else { debug };
        let text = at(20);
        vec![
            1,
            5,
            tag,
            debug,
            0,
            0,     // the dynamic section
            at(7), // for MIPS: where r_debug is
            1,
            at(10),
            0, // r_debug
            0x5000,
            text,
            0,
            at(15),
            0, // the program
            0x7000,
            text + 1,
            0,
            next.map_or(0, at),
            at(10), // a library
        ]
    }

    fn read(word: WordSize, order: ByteOrder, words: &[u64]) -> (Option<()>, Vec<Linked>) {
        let bytes = memory(word, order, words);
        let mut memory = SliceReader::new(0x1000, &bytes);
        let mut list = Vec::new();
        let whole = LinkMap { memory: &mut memory, word, order }.read(0x1000, &mut list);
        (whole, list)
    }

    #[test]
    fn lists_of_both_classes_and_byte_orders() {
        let want = [
            Linked { bias: 0x5000, name: Some(Vec::new()), dynamic: 0 },
            Linked { bias: 0x7000, name: Some(b"/lib/c".to_vec()), dynamic: 0 },
        ];
        for word in [WordSize::Four, WordSize::Eight] {
            for order in [ByteOrder::Little, ByteOrder::Big] {
                let size = u64::from(word.bytes());
                let direct = list(word, DT_DEBUG, 0, None);
                let mips = list(word, DT_MIPS_RLD_MAP, 0x1000 + 6 * size, None);
                // Relative to its own entry, the second.
                let relative = list(word, DT_MIPS_RLD_MAP_REL, 4 * size, None);
                for words in [direct, mips, relative] {
                    assert_eq!(read(word, order, &words), (Some(()), want.to_vec()));
                }
            }
        }
    }

    #[test]
    fn lists_that_do_not_end_or_lead_nowhere() {
        let (word, order) = (WordSize::Eight, ByteOrder::Little);
        // A circle.
        let (whole, list_of) = read(word, order, &list(word, DT_DEBUG, 0, Some(10)));
        assert_eq!((whole, list_of.len()), (None, MAX_MODULES));
        // Into the void: what was read until then counts.
        let (whole, list_of) = read(word, order, &list(word, DT_DEBUG, 0, Some(1 << 40)));
        assert_eq!((whole, list_of.len()), (None, 2));
        assert_eq!(read(word, order, &list(word, DT_DEBUG, 0x9000, None)), (None, Vec::new()));
        // No loader, or it has not run.
        assert_eq!(read(word, order, &list(word, 6, 0, None)), (Some(()), Vec::new()));
        assert_eq!(read(word, order, &[DT_DEBUG, 0, 0, 0]), (Some(()), Vec::new()));
        // A dynamic section without an end.
        assert_eq!(read(word, order, &[1, 5, 1, 5]).0, None);
    }
}
