//! Call frame instructions: DWARF 5 section 6.4.2, and the GNU and Arm extensions.

use unwind_core::{ByteOrder, Register, WordSize};

use super::{Bytes, Expression};

/// Instructions, in the order in which they are called.
#[derive(Clone, Debug)]
pub struct Program {
    /// The bytes.
    pub bytes: Bytes,
    /// What locations are divided by.
    pub code_alignment: u64,
    /// What offsets are divided by.
    pub data_alignment: i64,
}

impl Program {
    /// No instruction yet.
    pub fn new(word: WordSize, order: ByteOrder, code_alignment: u64, data_alignment: i64) -> Self {
        Program { bytes: Bytes::new(word, order), code_alignment, data_alignment }
    }

    /// The instructions.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes.data
    }

    /// An instruction without operands: 0x00 is `DW_CFA_nop`, 0x0a `DW_CFA_remember_state`, 0x0b
    /// `DW_CFA_restore_state`, 0x2d `DW_CFA_AARCH64_negate_ra_state`.
    pub fn op(&mut self, opcode: u8) -> &mut Self {
        self.bytes.u8(opcode);
        self
    }

    /// An instruction with unsigned LEB128 operands.
    pub fn with(&mut self, opcode: u8, operands: &[u64]) -> &mut Self {
        self.bytes.u8(opcode);
        for operand in operands {
            self.bytes.uleb(*operand);
        }
        self
    }

    /// An instruction with a register and a signed LEB128 operand.
    pub fn with_signed(&mut self, opcode: u8, register: Register, operand: i64) -> &mut Self {
        self.with(opcode, &[register.0.into()]);
        self.bytes.sleb(operand);
        self
    }

    /// An instruction with a register and an expression.
    pub fn with_expression(&mut self, opcode: u8, register: Register, expression: Expression) -> &mut Self {
        self.with(opcode, &[register.0.into()]);
        self.block(expression)
    }

    /// `DW_CFA_def_cfa_expression`.
    pub fn cfa_expression(&mut self, expression: Expression) -> &mut Self {
        self.op(0x0f);
        self.block(expression)
    }

    fn block(&mut self, expression: Expression) -> &mut Self {
        let operations = expression.into_bytes();
        self.bytes.uleb(u64::try_from(operations.len()).expect("short"));
        self.bytes.data.extend(operations);
        self
    }

    /// Moves the location on by bytes of code, with the instruction that `style` chooses.
    pub fn advance(&mut self, by: u64, style: u32) -> &mut Self {
        assert_eq!(by % self.code_alignment, 0, "locations are multiples of the code alignment");
        let delta = by / self.code_alignment;
        match (style % 4, delta) {
            (0, 0..0x40) => self.bytes.u8(0x40 + u8::try_from(delta).expect("six bits")),
            (0 | 1, 0..0x100) => {
                self.bytes.u8(0x02);
                self.bytes.number(delta, 1);
            }
            (0..=2, 0..0x1_0000) => {
                self.bytes.u8(0x03);
                self.bytes.number(delta, 2);
            }
            (_, 0..0x1_0000_0000) => {
                self.bytes.u8(0x04);
                self.bytes.number(delta, 4);
            }
            _ => {
                self.bytes.u8(0x1d);
                self.bytes.number(delta, 8);
            }
        }
        self
    }

    /// The offset divided by the data alignment, where that is possible.
    pub fn factored(&self, offset: i64) -> Option<i64> {
        (offset % self.data_alignment == 0).then(|| offset / self.data_alignment)
    }

    /// `DW_CFA_def_cfa` or its signed form; `None` where neither can say it.
    pub fn def_cfa(&mut self, register: Register, offset: i64, style: u32) -> Option<()> {
        match u64::try_from(offset) {
            Ok(offset) if style.is_multiple_of(2) => {
                self.with(0x0c, &[register.0.into(), offset]);
            }
            _ => {
                let offset = self.factored(offset)?;
                self.with_signed(0x12, register, offset);
            }
        }
        Some(())
    }

    /// A register that is saved at CFA + offset, or whose value that is, by the instruction that
    /// `style` chooses; `None` where none can say it.
    pub fn offset(&mut self, register: Register, offset: i64, value: bool, style: u32) -> Option<()> {
        let factored = self.factored(offset)?;
        let number = u64::from(register.0);
        let (unsigned_form, signed_form) = if value { (0x14, 0x15) } else { (0x05, 0x11) };
        match (style % 4, u64::try_from(factored)) {
            (0, Ok(factored)) if !value && number < 64 => {
                self.with(0x80 + u8::try_from(number).expect("six bits"), &[factored]);
            }
            (1, Ok(factored)) => {
                self.with(unsigned_form, &[number, factored]);
            }
            // DW_CFA_GNU_negative_offset_extended
            (2, Err(_)) if !value => {
                self.with(0x2f, &[number, factored.unsigned_abs()]);
            }
            _ => {
                self.with_signed(signed_form, register, factored);
            }
        }
        Some(())
    }
}
