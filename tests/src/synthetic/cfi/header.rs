//! `.eh_frame_hdr`.

use unwind_core::{ByteOrder, WordSize};

use super::{Bytes, encoding};

/// What the header says.
#[derive(Clone, Debug)]
pub struct Header {
    /// 1; others are wrong.
    pub version: u8,
    /// The encoding of the pointer to `.eh_frame`.
    pub pointer_encoding: u8,
    /// The encoding of the number of entries.
    pub count_encoding: u8,
    /// The encoding of the entries.
    pub table_encoding: u8,
    /// The address of the header (svma).
    pub svma: u64,
    /// The address of the text section (svma).
    pub text_svma: u64,
    /// The functions and their FDEs (svma), in the order in which they are written.
    pub entries: Vec<(u64, u64)>,
}

impl Header {
    /// What the linker writes: entries of 4 bytes relative to the header, sorted.
    pub fn usual(svma: u64, mut entries: Vec<(u64, u64)>) -> Self {
        entries.sort_unstable();
        Header {
            version: 1,
            pointer_encoding: 0x0b | encoding::PCREL,
            count_encoding: 0x03,
            table_encoding: 0x0b | encoding::DATAREL,
            svma,
            text_svma: 0,
            entries,
        }
    }

    /// The bytes; `None` where a value does not fit into its encoding.
    pub fn write(&self, word: WordSize, order: ByteOrder, eh_frame_svma: u64) -> Option<Vec<u8>> {
        let mut bytes = Bytes::new(word, order);
        bytes.u8(self.version);
        bytes.u8(self.pointer_encoding);
        bytes.u8(self.count_encoding);
        bytes.u8(self.table_encoding);
        self.value(&mut bytes, self.pointer_encoding, eh_frame_svma)?;
        let count = u64::try_from(self.entries.len()).expect("it fits into memory");
        if self.count_encoding != encoding::OMIT && !bytes.formatted(self.count_encoding & 0x0f, count) {
            return None;
        }
        if self.table_encoding != encoding::OMIT {
            for (start, fde) in &self.entries {
                self.value(&mut bytes, self.table_encoding, *start)?;
                self.value(&mut bytes, self.table_encoding, *fde)?;
            }
        }
        Some(bytes.data)
    }

    fn value(&self, bytes: &mut Bytes, pointer_encoding: u8, target: u64) -> Option<()> {
        if pointer_encoding == encoding::OMIT {
            return Some(());
        }
        let base = match pointer_encoding & 0x70 {
            0 => 0,
            encoding::PCREL => self.svma.wrapping_add(bytes.offset()),
            encoding::TEXTREL => self.text_svma,
            encoding::DATAREL => self.svma,
            other => panic!("{other:#x} is no base"),
        };
        let value = bytes.word.truncate(target.wrapping_sub(base));
        bytes.formatted(pointer_encoding & 0x0f, value).then_some(())
    }
}
