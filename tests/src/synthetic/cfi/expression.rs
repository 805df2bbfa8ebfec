//! DWARF expressions.

use unwind_core::{ByteOrder, Register, WordSize};

use super::Bytes;

/// The operations of an expression, in the order in which they are called.
#[derive(Clone, Debug)]
pub struct Expression {
    bytes: Bytes,
}

impl Expression {
    /// No operation yet.
    pub fn new(word: WordSize, order: ByteOrder) -> Self {
        Expression { bytes: Bytes::new(word, order) }
    }

    /// The operations.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes.data
    }

    /// An operation without operands.
    pub fn op(mut self, opcode: u8) -> Self {
        self.bytes.u8(opcode);
        self
    }

    /// Bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.data.extend(bytes);
        self
    }

    /// `DW_OP_bregN`, or `DW_OP_bregx` where the number needs it.
    pub fn breg(mut self, register: Register, offset: i64) -> Self {
        match u8::try_from(register.0) {
            Ok(number @ 0..32) => self.bytes.u8(0x70 + number),
            _ => return self.bregx(register, offset),
        }
        self.bytes.sleb(offset);
        self
    }

    /// `DW_OP_bregx`.
    pub fn bregx(mut self, register: Register, offset: i64) -> Self {
        self.bytes.u8(0x92);
        self.bytes.uleb(register.0.into());
        self.bytes.sleb(offset);
        self
    }

    /// `DW_OP_deref`.
    pub fn deref(self) -> Self {
        self.op(0x06)
    }

    /// `DW_OP_plus`.
    pub fn plus(self) -> Self {
        self.op(0x22)
    }

    /// A constant, by the operation that `style` chooses among those that can hold it.
    pub fn constant(mut self, value: i64, style: u32) -> Self {
        let unsigned = value.cast_unsigned();
        match (style % 6, value) {
            (0, 0..32) => self.bytes.u8(0x30 + u8::try_from(value).expect("below 32")),
            (1, _) if i8::try_from(value).is_ok() => {
                self.bytes.u8(0x09);
                self.bytes.number(unsigned, 1);
            }
            (2, _) if i16::try_from(value).is_ok() => {
                self.bytes.u8(0x0b);
                self.bytes.number(unsigned, 2);
            }
            (3, _) if i32::try_from(value).is_ok() => {
                self.bytes.u8(0x0d);
                self.bytes.number(unsigned, 4);
            }
            (4, 0..) => {
                self.bytes.u8(0x10);
                self.bytes.uleb(unsigned);
            }
            _ => {
                self.bytes.u8(0x11);
                self.bytes.sleb(value);
            }
        }
        self
    }

    /// Adds a constant, in one of the ways that `style` chooses: `DW_OP_plus_uconst`, a constant and
    /// `DW_OP_plus`, or a constant and `DW_OP_minus`.
    pub fn add(mut self, value: i64, style: u32) -> Self {
        match style % 3 {
            0 if value >= 0 => {
                self.bytes.u8(0x23);
                self.bytes.uleb(value.cast_unsigned());
                self
            }
            1 => self.constant(-value, style / 3).op(0x1c),
            _ => self.constant(value, style / 3).plus(),
        }
    }

    /// The same value by a way that only an evaluation can follow: `x | 0`.
    pub fn opaque(self) -> Self {
        self.op(0x30).op(0x21)
    }
}
