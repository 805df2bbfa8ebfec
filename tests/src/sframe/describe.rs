//! Writes a section as it is described, with nothing checked: the opposite of the library's writer.

use unwind_core::ByteOrder;
use unwind_core::sframe::{Abi, Version};

/// A section. Every number that a header derives from the tables can be overridden.
#[derive(Clone)]
pub struct Section {
    pub version: Version,
    pub abi: Abi,
    pub flags: u8,
    pub fixed_fp: i8,
    pub fixed_ra: i8,
    pub auxiliary: Vec<u8>,
    /// Bytes between the header and the table, and between the table and the rows.
    pub gaps: (Vec<u8>, Vec<u8>),
    pub functions: Vec<Function>,
    pub fde_count: Option<u32>,
    pub fre_count: Option<u32>,
    pub fre_size: Option<u32>,
    pub fde_offset: Option<u32>,
    pub fre_offset: Option<u32>,
}

/// A function.
#[derive(Clone)]
pub struct Function {
    /// Address of its first instruction (svma).
    pub start: u64,
    pub size: u32,
    /// The info byte. Its low bits say how wide the starts of rows are.
    pub info: u8,
    /// Version 3's second info byte.
    pub info2: u8,
    /// The block size; version 1 has none.
    pub block: u8,
    pub rows: Vec<RowBytes>,
    pub row_count: Option<u32>,
    /// Where the rows (version 3: the attributes) are, in the area of rows.
    pub offset: Option<u32>,
}

/// A row: start, info byte and data words. The info byte says how wide the words are.
#[derive(Clone)]
pub struct RowBytes {
    pub start: u32,
    pub info: u8,
    pub words: Vec<i32>,
}

impl Section {
    /// A linked section: starts are relative to their fields where the version has that.
    pub fn new(version: Version, abi: Abi, functions: Vec<Function>) -> Self {
        Section {
            version,
            abi,
            flags: if version == Version::V1 { 1 } else { 5 },
            fixed_fp: 0,
            fixed_ra: if abi == Abi::Amd64 { -8 } else { 0 },
            auxiliary: Vec::new(),
            gaps: (Vec::new(), Vec::new()),
            functions,
            fde_count: None,
            fre_count: None,
            fre_size: None,
            fde_offset: None,
            fre_offset: None,
        }
    }

    /// Its bytes, for an address (svma).
    pub fn bytes(&self, svma: u64) -> Vec<u8> {
        let order = self.abi.byte_order();
        let tables = 28 + self.auxiliary.len() + self.gaps.0.len();
        let (mut fdes, mut fres) = (Vec::new(), Vec::new());
        for function in &self.functions {
            let field = svma.wrapping_add((tables + fdes.len()) as u64);
            let base = if self.flags & 4 == 0 { svma } else { field };
            let start = function.start.wrapping_sub(base);
            let offset = function.offset.unwrap_or(fres.len() as u32);
            let count = function.row_count.unwrap_or(function.rows.len() as u32);
            match self.version {
                Version::V1 | Version::V2 => {
                    fdes.extend(number(order, start, 4));
                    for field in [function.size, offset, count] {
                        fdes.extend(number(order, field.into(), 4));
                    }
                    fdes.push(function.info);
                    if self.version == Version::V2 {
                        fdes.extend([function.block, 0, 0]);
                    }
                }
                Version::V3 => {
                    fdes.extend(number(order, start, 8));
                    fdes.extend(number(order, function.size.into(), 4));
                    fdes.extend(number(order, offset.into(), 4));
                    fres.extend(number(order, count.into(), 2));
                    fres.extend([function.info, function.info2, function.block]);
                }
                version => panic!("{version:?} is not known here"),
            }
            for row in &function.rows {
                fres.extend(row.bytes(order, function.info));
            }
        }
        let rows: usize = self.functions.iter().map(|function| function.rows.len()).sum();
        let mut bytes = number(order, 0xdee2, 2);
        bytes.extend([self.version.number(), self.flags, self.abi.number()]);
        bytes.extend([self.fixed_fp.cast_unsigned(), self.fixed_ra.cast_unsigned()]);
        bytes.push(self.auxiliary.len() as u8);
        let fields = [
            self.fde_count.unwrap_or(self.functions.len() as u32),
            self.fre_count.unwrap_or(rows as u32),
            self.fre_size.unwrap_or(fres.len() as u32),
            self.fde_offset.unwrap_or(self.gaps.0.len() as u32),
            self.fre_offset.unwrap_or((self.gaps.0.len() + fdes.len() + self.gaps.1.len()) as u32),
        ];
        for field in fields {
            bytes.extend(number(order, field.into(), 4));
        }
        for part in [&self.auxiliary, &self.gaps.0, &fdes, &self.gaps.1, &fres] {
            bytes.extend(part);
        }
        bytes
    }
}

impl Function {
    /// Code with rows of one-byte starts.
    pub fn new(start: u64, size: u32, rows: Vec<RowBytes>) -> Self {
        Function { start, size, info: 0, info2: 0, block: 0, rows, row_count: None, offset: None }
    }

    /// The same with starts of 1, 2 or 4 bytes.
    pub fn with_wide_starts(mut self, bytes: u8) -> Self {
        self.info = self.info & 0xf0 | (bytes / 2);
        self
    }

    /// The same in blocks.
    pub fn in_blocks(mut self, size: u8) -> Self {
        self.info |= 0x10;
        self.block = size;
        self
    }

    /// The same with flexible rows.
    pub fn flexible(mut self) -> Self {
        self.info2 = 1;
        self
    }
}

impl RowBytes {
    /// A row with one-byte words whose CFA is on sp.
    pub fn new(start: u32, words: &[i32]) -> Self {
        RowBytes { start, info: (words.len() as u8) << 1 | 1, words: words.to_vec() }
    }

    /// The same with words of 1, 2 or 4 bytes.
    pub fn wide(mut self, bytes: u8) -> Self {
        self.info = self.info & 0x9f | (bytes / 2) << 5;
        self
    }

    /// The same with the CFA on fp.
    pub fn on_fp(mut self) -> Self {
        self.info &= 0xfe;
        self
    }

    fn bytes(&self, order: ByteOrder, function_info: u8) -> Vec<u8> {
        let width = match function_info & 0x0f {
            0 => 1,
            1 => 2,
            _ => 4,
        };
        let mut bytes = number(order, self.start.into(), width);
        bytes.push(self.info);
        let width = match self.info >> 5 & 3 {
            0 => 1,
            1 => 2,
            _ => 4,
        };
        for word in &self.words {
            bytes.extend(number(order, i64::from(*word).cast_unsigned(), width));
        }
        bytes
    }
}

/// The low bytes of a number.
fn number(order: ByteOrder, value: u64, width: usize) -> Vec<u8> {
    match order {
        ByteOrder::Little => value.to_le_bytes()[..width].to_vec(),
        ByteOrder::Big => value.to_be_bytes()[8 - width..].to_vec(),
    }
}
