//! The pieces that files of this folder are made of.

use std::fmt;

use miniz_oxide::deflate::compress_to_vec_zlib;
use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;

/// The largest body of a file, once decompressed.
const MOST: usize = 64 << 20;

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// It does not begin as such a file does.
    Magic,
    /// It cannot be decompressed.
    Compression,
    /// It ends in the middle of something, or a length leads out of it.
    UnexpectedEnd,
    /// A number that makes no sense where it stands; which one.
    Value(&'static str),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormatError::Magic => f.write_str("not such a file"),
            FormatError::Compression => f.write_str("cannot be decompressed"),
            FormatError::UnexpectedEnd => f.write_str("unexpected end"),
            FormatError::Value(which) => write!(f, "bad {which}"),
        }
    }
}

impl std::error::Error for FormatError {}

/// Writes numbers (LEB128), words (8 bytes, little-endian), bytes and names.
#[derive(Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// A difference, modulo 2^64: small ones of either sign are short.
    pub(super) fn difference(&mut self, from: u64, to: u64) {
        let difference = to.wrapping_sub(from) as i64;
        self.number(((difference << 1) ^ (difference >> 63)) as u64);
    }

    pub(super) fn word(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn blob(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn name(&mut self, name: &str) {
        self.blob(name.as_bytes());
    }

    /// The file: the magic, and the rest compressed.
    pub(super) fn file(&self, magic: &[u8; 8]) -> Vec<u8> {
        let mut file = magic.to_vec();
        file.extend(compress_to_vec_zlib(&self.bytes, 10));
        file
    }
}

/// The body of a file that [`Writer::file`] made.
pub(super) fn body(magic: &[u8; 8], file: &[u8]) -> Result<Vec<u8>, FormatError> {
    let rest = file.strip_prefix(magic.as_slice()).ok_or(FormatError::Magic)?;
    decompress_to_vec_zlib_with_limit(rest, MOST).map_err(|_| FormatError::Compression)
}

/// Reads what [`Writer`] wrote.
pub(super) struct Reader<'b> {
    pub(super) bytes: &'b [u8],
}

impl<'b> Reader<'b> {
    pub(super) fn number(&mut self) -> Result<u64, FormatError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.bytes.split_first().ok_or(FormatError::UnexpectedEnd)?;
            self.bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(FormatError::Value("number"))
    }

    /// A number of things that take at least a byte each.
    pub(super) fn count(&mut self) -> Result<usize, FormatError> {
        let count = self.number()? as usize;
        if count > self.bytes.len() { Err(FormatError::UnexpectedEnd) } else { Ok(count) }
    }

    pub(super) fn difference(&mut self, from: u64) -> Result<u64, FormatError> {
        let zigzag = self.number()?;
        Ok(from.wrapping_add((zigzag >> 1) ^ (zigzag & 1).wrapping_neg()))
    }

    pub(super) fn word(&mut self) -> Result<u64, FormatError> {
        let (word, rest) = self.bytes.split_first_chunk().ok_or(FormatError::UnexpectedEnd)?;
        self.bytes = rest;
        Ok(u64::from_le_bytes(*word))
    }

    pub(super) fn blob(&mut self) -> Result<&'b [u8], FormatError> {
        let length = self.count()?;
        let (blob, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        Ok(blob)
    }

    pub(super) fn name(&mut self) -> Result<String, FormatError> {
        String::from_utf8(self.blob()?.to_vec()).map_err(|_| FormatError::Value("name"))
    }

    pub(super) fn end(&self) -> Result<(), FormatError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(FormatError::Value("length")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_differences_come_back() {
        let values = [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::MAX, u64::MAX / 2, 1 << 63];
        let mut writer = Writer::default();
        for value in values {
            writer.number(value);
            writer.difference(0x1234, value);
            writer.word(value);
        }
        let mut reader = Reader { bytes: &writer.bytes };
        for value in values {
            assert_eq!(reader.number(), Ok(value));
            assert_eq!(reader.difference(0x1234), Ok(value));
            assert_eq!(reader.word(), Ok(value));
        }
        assert_eq!(reader.end(), Ok(()));
        assert_eq!(reader.number(), Err(FormatError::UnexpectedEnd));
    }

    #[test]
    fn a_file_comes_back_and_a_cut_one_does_not() {
        let mut writer = Writer::default();
        writer.name("a name");
        writer.blob(&[7; 300]);
        let file = writer.file(b"MAGIC__1");
        let body_of = |file: &[u8]| body(b"MAGIC__1", file);
        assert_eq!(body_of(&file).as_ref(), Ok(&writer.bytes));
        for length in 0..file.len() {
            assert!(body_of(&file[..length]).is_err());
        }
    }
}
