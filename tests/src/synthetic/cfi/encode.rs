//! Rules as call frame instructions.

use unwind_core::{Arch, Base, CfaRule, FpRule, RaRule, Register, UnwindUserFrame};

use super::{Expression, Program};
use crate::synthetic::{AnyArch, base_register};

/// How a rule shall be written.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Chooses among instructions and operations that say the same.
    pub choice: u32,
    /// Whether its expressions shall be such that only an evaluation can follow them.
    pub opaque: bool,
    /// Whether what the ABI decides is written all the same.
    pub explicit: bool,
    /// The column of the return address.
    pub return_address: Register,
}

/// The column that stands for the pc of a caller. Where that is not the link register's own, both
/// can be restored.
pub fn return_address_column(arch: &AnyArch, separate: bool) -> Register {
    if separate { arch.ip().unwrap_or(Register(60)) } else { arch.ra() }
}

/// Writes the instructions that make `rule` hold; what it does not mention is set back to what the
/// CIE says.
pub fn encode_rule(arch: &AnyArch, rule: UnwindUserFrame, style: Style, program: &mut Program) {
    let mut encoder = Encoder { arch, style, program };
    encoder.cfa(rule.cfa());
    encoder.ra(rule.ra());
    encoder.fp(rule.fp());
}

struct Encoder<'e> {
    arch: &'e AnyArch,
    style: Style,
    program: &'e mut Program,
}

impl Encoder<'_> {
    fn expression(&self) -> Expression {
        Expression::new(self.arch.word_size(), self.arch.byte_order())
    }

    fn finish(&self, expression: Expression) -> Expression {
        if self.style.opaque { expression.opaque() } else { expression }
    }

    fn register(&self, base: Base) -> Register {
        base_register(self.arch, base)
    }

    /// `base + offset` as an expression.
    fn sum(&self, base: Base, offset: i32) -> Expression {
        let register = self.register(base);
        let choice = self.style.choice >> 3;
        let expression = if choice.is_multiple_of(3) {
            self.expression().breg(register, offset.into())
        } else if choice % 3 == 1 {
            self.expression().bregx(register, offset.into())
        } else {
            self.expression().breg(register, 0).add(offset.into(), choice / 3)
        };
        self.finish(expression)
    }

    /// `CFA + offset` as an expression: the CFA is on its stack.
    fn cfa_sum(&self, offset: i32) -> Expression {
        self.finish(self.expression().add(offset.into(), self.style.choice >> 2))
    }

    fn cfa(&mut self, cfa: CfaRule) {
        match cfa {
            CfaRule::Offset { base, offset } => {
                let register = self.register(base);
                let plain = !self.style.opaque && !self.style.choice.is_multiple_of(4);
                if plain && self.program.def_cfa(register, offset.into(), self.style.choice).is_some() {
                    return;
                }
                let expression = self.sum(base, offset);
                self.program.cfa_expression(expression);
            }
            CfaRule::Deref { base, offset, add } => {
                let mut expression = self.sum(base, offset).deref();
                if add != 0 || self.style.explicit {
                    expression = expression.add(add.into(), self.style.choice);
                }
                let expression = self.finish(expression);
                self.program.cfa_expression(expression);
            }
        }
    }

    fn ra(&mut self, ra: RaRule) {
        let column = self.style.return_address;
        match ra {
            RaRule::Undefined => {
                self.program.with(0x07, &[column.0.into()]);
            }
            RaRule::AtCfa(offset) => self.saved(column, offset),
            RaRule::InRegister { base, offset: 0 } => self.same(column, self.register(base)),
            RaRule::InRegister { base, offset } => {
                let expression = self.sum(base, offset);
                self.program.with_expression(0x16, column, expression);
            }
            RaRule::AtRegister { base, offset } => self.saved_at(column, base, offset),
        }
    }

    fn fp(&mut self, fp: FpRule) {
        let column = self.arch.fp();
        match fp {
            FpRule::Unchanged => self.same(column, column),
            FpRule::Undefined => {
                self.program.with(0x07, &[column.0.into()]);
            }
            FpRule::AtCfa(offset) => self.saved(column, offset),
            FpRule::CfaOffset(offset) => {
                let plain = !self.style.opaque && !self.style.choice.is_multiple_of(5);
                if plain && self.program.offset(column, offset.into(), true, self.style.choice).is_some() {
                    return;
                }
                let expression = self.cfa_sum(offset);
                self.program.with_expression(0x16, column, expression);
            }
            FpRule::InRegister { base, offset: 0 } => self.same(column, self.register(base)),
            FpRule::InRegister { base, offset } => {
                let expression = self.sum(base, offset);
                self.program.with_expression(0x16, column, expression);
            }
            FpRule::AtRegister { base, offset } => self.saved_at(column, base, offset),
        }
    }

    /// A column whose value is in `holder`, which may be its own register.
    fn same(&mut self, column: Register, holder: Register) {
        let (column_number, holder_number) = (u64::from(column.0), u64::from(holder.0));
        if column != holder {
            self.program.with(0x09, &[column_number, holder_number]);
        } else if self.style.explicit {
            // DW_CFA_same_value
            self.program.with(0x08, &[column_number]);
        } else if column_number < 64 && self.style.choice.is_multiple_of(2) {
            self.program.op(0xc0 + u8::try_from(column_number).expect("six bits"));
        } else {
            // DW_CFA_restore_extended
            self.program.with(0x06, &[column_number]);
        }
    }

    fn saved(&mut self, column: Register, offset: i32) {
        let plain = !self.style.opaque && !self.style.choice.is_multiple_of(7);
        if plain && self.program.offset(column, offset.into(), false, self.style.choice).is_some() {
            return;
        }
        let expression = self.cfa_sum(offset);
        self.program.with_expression(0x10, column, expression);
    }

    fn saved_at(&mut self, column: Register, base: Base, offset: i32) {
        let expression = self.sum(base, offset);
        if self.style.choice.is_multiple_of(3) {
            let value = self.finish(expression.deref());
            self.program.with_expression(0x16, column, value);
        } else {
            self.program.with_expression(0x10, column, expression);
        }
    }
}
