//! Numbers as bytes.

use unwind_core::{ByteOrder, WordSize};

/// Pointer encodings: Linux Standard Base, "DWARF Exception Header Encoding".
pub mod encoding {
    /// A word, as it is.
    pub const ABSPTR: u8 = 0x00;
    /// The formats that are numbers of a fixed size, or of a varying one.
    pub const FORMATS: [u8; 9] = [0x00, 0x01, 0x02, 0x03, 0x04, 0x09, 0x0a, 0x0b, 0x0c];
    /// Relative to the place of the pointer.
    pub const PCREL: u8 = 0x10;
    /// Relative to the text section.
    pub const TEXTREL: u8 = 0x20;
    /// Relative to the global offset table, or to `.eh_frame_hdr`.
    pub const DATAREL: u8 = 0x30;
    /// An absolute word, after padding to its alignment.
    pub const ALIGNED: u8 = 0x50;
    /// The address at which the pointer is stored.
    pub const INDIRECT: u8 = 0x80;
    /// There is none.
    pub const OMIT: u8 = 0xff;
}

/// Bytes being written, for a target.
#[derive(Clone, Debug)]
pub struct Bytes {
    /// What has been written.
    pub data: Vec<u8>,
    /// The size of an address.
    pub word: WordSize,
    /// The order of bytes.
    pub order: ByteOrder,
    /// How many needless bytes a LEB128 number gets.
    pub leb_padding: usize,
}

impl Bytes {
    /// Nothing yet.
    pub fn new(word: WordSize, order: ByteOrder) -> Self {
        Bytes { data: Vec::new(), word, order, leb_padding: 0 }
    }

    /// Where the next byte goes.
    pub fn offset(&self) -> u64 {
        u64::try_from(self.data.len()).expect("it fits into memory")
    }

    /// The low `size` bytes of a number.
    pub fn number(&mut self, value: u64, size: usize) {
        let mut bytes = value.to_le_bytes()[..size].to_vec();
        if self.order == ByteOrder::Big {
            bytes.reverse();
        }
        self.data.extend(bytes);
    }

    /// The same over what has been written.
    pub fn patch(&mut self, offset: usize, value: u64, size: usize) {
        let mut number = Bytes::new(self.word, self.order);
        number.number(value, size);
        self.data[offset..offset + size].copy_from_slice(&number.data);
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.data.push(value);
    }

    /// An address.
    pub fn word(&mut self, value: u64) {
        self.number(value, usize::from(self.word.bytes()));
    }

    /// An unsigned LEB128 number.
    pub fn uleb(&mut self, mut value: u64) {
        let mut needless = self.leb_padding;
        loop {
            let low = u8::try_from(value % 128).expect("seven bits");
            value /= 128;
            if value == 0 && needless == 0 {
                return self.u8(low);
            }
            if value == 0 {
                needless -= 1;
            }
            self.u8(low | 0x80);
        }
    }

    /// A signed LEB128 number.
    pub fn sleb(&mut self, mut value: i64) {
        let mut needless = self.leb_padding;
        loop {
            let low = u8::try_from(value.rem_euclid(128)).expect("seven bits");
            value = value.div_euclid(128);
            let done = (value == 0 && low < 0x40) || (value == -1 && low >= 0x40);
            if done && needless == 0 {
                return self.u8(low);
            }
            if done {
                needless -= 1;
            }
            self.u8(low | 0x80);
        }
    }

    /// A number in the format that the low bits of a pointer encoding name.
    ///
    /// Returns whether it can hold the value: for formats that are narrower than a word, whether
    /// reading it back, modulo the address space, gives it again.
    #[must_use]
    pub fn formatted(&mut self, format: u8, value: u64) -> bool {
        let bits = 8 * u32::from(self.word.bytes());
        // As a signed number of the target's size.
        let signed = value.wrapping_shl(64 - bits).cast_signed() >> (64 - bits);
        let fits_signed =
            |size: u32| size >= bits || (signed >> (size - 1) == 0 || signed >> (size - 1) == -1);
        let fits_unsigned = |size: u32| size >= bits || value >> size == 0;
        let (size, fits) = match format & 0x0f {
            0x00 | 0x08 => (usize::from(self.word.bytes()), true),
            0x01 => {
                self.uleb(value);
                return true;
            }
            0x09 => {
                self.sleb(signed);
                return true;
            }
            0x02 => (2, fits_unsigned(16)),
            0x03 => (4, fits_unsigned(32)),
            0x0a => (2, fits_signed(16)),
            0x0b => (4, fits_signed(32)),
            0x04 => (8, true),
            0x0c => {
                self.number(signed.cast_unsigned(), 8);
                return true;
            }
            _ => panic!("{format:#x} is no format"),
        };
        self.number(value, size);
        fits
    }
}
