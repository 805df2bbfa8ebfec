//! CIEs and FDEs.

use unwind_core::{ByteOrder, Register, WordSize};

use super::{Bytes, encoding};

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// `.eh_frame`.
    EhFrame,
    /// `.debug_frame`.
    DebugFrame,
}

/// What a CIE says.
#[derive(Clone, Debug)]
pub struct Cie {
    /// 1, 3 or 4; others are wrong.
    pub version: u8,
    /// Whether its length, and those of its FDEs, have 64 bits.
    pub is_64: bool,
    /// The augmentation string.
    pub augmentation: Vec<u8>,
    /// The encoding of its FDEs' addresses (augmentation `R`).
    pub pointer_encoding: u8,
    /// The encodings of personality routine and LSDA (augmentations `P` and `L`).
    pub other_encoding: u8,
    /// What locations are divided by.
    pub code_alignment: u64,
    /// What offsets are divided by.
    pub data_alignment: i64,
    /// The column of the return address.
    pub return_address: Register,
    /// The size of a segment selector (version 4).
    pub segment_size: u8,
    /// The instructions that begin every FDE.
    pub instructions: Vec<u8>,
}

impl Cie {
    /// What `as` writes for a target: `zR` with 4-byte pc-relative addresses.
    pub fn usual(return_address: Register, instructions: Vec<u8>) -> Self {
        Cie {
            version: 1,
            is_64: false,
            augmentation: b"zR".to_vec(),
            pointer_encoding: 0x0b | encoding::PCREL,
            other_encoding: 0x0b | encoding::PCREL,
            code_alignment: 1,
            data_alignment: -8,
            return_address,
            segment_size: 0,
            instructions,
        }
    }

    /// As `.debug_frame` has it: no augmentation, plain addresses.
    pub fn debug(return_address: Register, instructions: Vec<u8>) -> Self {
        Cie { augmentation: Vec::new(), pointer_encoding: 0, ..Cie::usual(return_address, instructions) }
    }

    fn has(&self, letter: u8) -> bool {
        self.augmentation.contains(&letter)
    }
}

/// What an FDE says.
#[derive(Clone, Debug)]
pub struct Fde {
    /// The first address (svma).
    pub start: u64,
    /// How many bytes.
    pub length: u64,
    /// The instructions.
    pub instructions: Vec<u8>,
}

/// A section being written.
#[derive(Clone, Debug)]
pub struct CfiSection {
    /// What has been written.
    pub bytes: Bytes,
    /// Which format.
    pub flavor: Flavor,
    /// Its address (svma).
    pub svma: u64,
    /// The address of the text section (svma).
    pub text_svma: u64,
    /// The address of the global offset table (svma).
    pub got_svma: u64,
    /// Pointers that are stored elsewhere: the place (svma) and the pointer (svma).
    pub indirect: Vec<(u64, u64)>,
    /// What entries are padded to: a multiple of this, with `DW_CFA_nop`.
    pub alignment: usize,
}

impl CfiSection {
    /// An empty section.
    pub fn new(flavor: Flavor, word: WordSize, order: ByteOrder, svma: u64) -> Self {
        CfiSection {
            bytes: Bytes::new(word, order),
            flavor,
            svma,
            text_svma: 0,
            got_svma: 0,
            indirect: Vec::new(),
            alignment: 4,
        }
    }

    /// The address of the next byte (svma).
    pub fn here(&self) -> u64 {
        self.bytes.word.truncate(self.svma.wrapping_add(self.bytes.offset()))
    }

    /// Writes a CIE and returns its offset.
    pub fn cie(&mut self, cie: &Cie) -> u64 {
        let offset = self.bytes.offset();
        let open = self.begin(cie.is_64);
        match (self.flavor, cie.is_64) {
            (Flavor::EhFrame, _) => self.bytes.number(0, 4),
            (Flavor::DebugFrame, false) => self.bytes.number(u64::MAX, 4),
            (Flavor::DebugFrame, true) => self.bytes.number(u64::MAX, 8),
        }
        self.bytes.u8(cie.version);
        self.bytes.data.extend(&cie.augmentation);
        self.bytes.u8(0);
        if cie.augmentation.starts_with(b"eh") {
            self.bytes.word(0x1234);
        }
        if cie.version == 4 {
            self.bytes.u8(self.bytes.word.bytes());
            self.bytes.u8(cie.segment_size);
        }
        self.bytes.uleb(cie.code_alignment);
        self.bytes.sleb(cie.data_alignment);
        if cie.version == 1 {
            self.bytes.number(cie.return_address.0.into(), 1);
        } else {
            self.bytes.uleb(cie.return_address.0.into());
        }
        if cie.augmentation.first() == Some(&b'z') {
            self.augmentation_data(cie);
        }
        self.bytes.data.extend(&cie.instructions);
        self.end(open);
        offset
    }

    fn augmentation_data(&mut self, cie: &Cie) {
        // The data's length is not known before it is written, and its pointers depend on where it
        // is; a LEB128 number of one byte is always enough.
        let length_at = self.bytes.data.len();
        self.bytes.u8(0);
        for letter in cie.augmentation.iter().skip(1) {
            match letter {
                b'R' => self.bytes.u8(cie.pointer_encoding),
                b'L' => self.bytes.u8(cie.other_encoding),
                b'P' => {
                    self.bytes.u8(cie.other_encoding);
                    let target = self.svma;
                    let _ = self.pointer(cie.other_encoding, target);
                }
                _ => {}
            }
        }
        let length = self.bytes.data.len() - length_at - 1;
        self.bytes.data[length_at] = u8::try_from(length).expect("a short augmentation");
    }

    /// Writes an FDE of the CIE at `cie_offset` and returns its offset; `None` where its addresses
    /// do not fit into the CIE's pointer encoding, and nothing is written then.
    pub fn fde(&mut self, cie_offset: u64, cie: &Cie, fde: &Fde) -> Option<u64> {
        let offset = self.bytes.offset();
        let open = self.begin(cie.is_64);
        let here = self.bytes.offset();
        match (self.flavor, cie.is_64) {
            // Backwards from this very field, and 4 bytes wide even in a 64-bit entry.
            (Flavor::EhFrame, _) => self.bytes.number(here - cie_offset, 4),
            (Flavor::DebugFrame, false) => self.bytes.number(cie_offset, 4),
            (Flavor::DebugFrame, true) => self.bytes.number(cie_offset, 8),
        }
        if cie.version == 4 {
            self.bytes.number(0, usize::from(cie.segment_size));
        }
        let encoded = cie.has(b'R') && cie.augmentation.first() == Some(&b'z');
        let pointer_encoding = if encoded { cie.pointer_encoding } else { encoding::ABSPTR };
        let indirect_before = self.indirect.len();
        let start_fits = self.pointer(pointer_encoding, fde.start);
        let length_fits = self.bytes.formatted(pointer_encoding & 0x0f, fde.length);
        if !start_fits || !length_fits {
            self.bytes.data.truncate(usize::try_from(offset).expect("it fits into memory"));
            self.indirect.truncate(indirect_before);
            return None;
        }
        if cie.augmentation.first() == Some(&b'z') {
            let length_at = self.bytes.data.len();
            self.bytes.u8(0);
            if cie.has(b'L') && cie.other_encoding != encoding::OMIT {
                let target = self.svma;
                let _ = self.pointer(cie.other_encoding, target);
            }
            let length = self.bytes.data.len() - length_at - 1;
            self.bytes.data[length_at] = u8::try_from(length).expect("a short augmentation");
        }
        self.bytes.data.extend(&fde.instructions);
        self.end(open);
        Some(offset)
    }

    /// The end of `.eh_frame`.
    pub fn terminator(&mut self) {
        self.bytes.number(0, 4);
    }

    /// Writes a pointer to `target` (svma), and returns whether the encoding can hold it.
    pub fn pointer(&mut self, pointer_encoding: u8, target: u64) -> bool {
        if pointer_encoding == encoding::OMIT {
            return true;
        }
        let word = self.bytes.word;
        let stored = if pointer_encoding & encoding::INDIRECT != 0 {
            let count = u64::try_from(self.indirect.len()).expect("few");
            let table = if self.flavor == Flavor::EhFrame { 0x100 } else { 0x8000 };
            let place = word.truncate(self.got_svma.wrapping_add(table + 8 * count));
            self.indirect.push((place, target));
            place
        } else {
            target
        };
        if pointer_encoding & 0x70 == encoding::ALIGNED {
            while !self.here().is_multiple_of(u64::from(word.bytes())) {
                self.bytes.u8(0);
            }
            self.bytes.word(stored);
            return true;
        }
        let base = match pointer_encoding & 0x70 {
            0 => 0,
            encoding::PCREL => self.here(),
            encoding::TEXTREL => self.text_svma,
            encoding::DATAREL => self.got_svma,
            other => panic!("{other:#x} is no base"),
        };
        self.bytes.formatted(pointer_encoding & 0x0f, word.truncate(stored.wrapping_sub(base)))
    }

    /// Begins an entry: where its length is, and how wide.
    fn begin(&mut self, is_64: bool) -> (usize, usize) {
        if is_64 {
            self.bytes.number(0xffff_ffff, 4);
        }
        let size = if is_64 { 8 } else { 4 };
        let at = self.bytes.data.len();
        self.bytes.number(0, size);
        (at, size)
    }

    /// Pads the entry and states its length.
    fn end(&mut self, (at, size): (usize, usize)) {
        while !self.bytes.data.len().is_multiple_of(self.alignment) {
            self.bytes.u8(0);
        }
        let length = u64::try_from(self.bytes.data.len() - at - size).expect("it fits into memory");
        self.bytes.patch(at, length, size);
    }
}
