//! The target `expression`: expressions of any operations, as CFA and as registers, judged by gimli.

use arbitrary::{Arbitrary, Unstructured};
use unwind_core::dwarf::{DwarfSections, Section};
use unwind_core::{Arch, Register};

use super::dwarf::check;
use crate::synthetic::AnyArch;
use crate::synthetic::cfi::{CfiSection, Cie, Expression, Fde, Flavor, Program, return_address_column};

/// What the fuzzer's bytes become.
#[derive(Clone, Debug, Arbitrary)]
pub struct ExpressionInput {
    arch: AnyArch,
    /// The CFA; without it, it is sp.
    cfa: Option<Vec<Op>>,
    /// The return address, and whether the expression is its place or its value.
    ra: Option<(bool, Vec<Op>)>,
    /// The frame pointer, the same way.
    fp: Option<(bool, Vec<Op>)>,
}

/// One operation: DWARF 5, section 2.5 and table 7.9.
#[derive(Clone, Debug, Arbitrary)]
pub enum Op {
    /// `DW_OP_lit0` and so on.
    Literal(u8),
    /// A constant, in one of its forms.
    Constant(i64, u8),
    /// A register and an offset.
    Breg(u8, i16),
    /// The same, with a number of any size.
    Bregx(u8, i16),
    /// `DW_OP_deref`.
    Deref,
    /// `DW_OP_deref_size`.
    DerefSize(u8),
    /// `DW_OP_dup` to `DW_OP_rot`.
    Stack(u8),
    /// `DW_OP_pick`.
    Pick(u8),
    /// Arithmetic, logic and comparison without an operand.
    Arithmetic(u8),
    /// `DW_OP_plus_uconst`.
    Plus(u16),
    /// `DW_OP_skip`, `DW_OP_bra`.
    Jump(bool, i8),
    /// `DW_OP_call_frame_cfa`, `DW_OP_nop`, `DW_OP_stack_value`, and what has no place here.
    Other(u8),
    /// Any bytes.
    Raw([u8; 2]),
}

/// Runs the target on the fuzzer's bytes.
///
/// # Panics
/// Where the library does something that it must not.
pub fn expression(data: &[u8]) {
    let Ok(input) = ExpressionInput::arbitrary(&mut Unstructured::new(data)) else { return };
    let (arch, word, order) = (input.arch, input.arch.word_size(), input.arch.byte_order());
    let ra = return_address_column(&arch, true);
    let mut program = Program::new(word, order, 1, -8);
    match &input.cfa {
        Some(ops) => program.cfa_expression(written(&arch, ops)),
        None => {
            let _ = program.def_cfa(arch.sp(), 16, 0);
            &mut program
        }
    };
    for (register, rule) in [(ra, &input.ra), (arch.fp(), &input.fp)] {
        if let Some((is_value, ops)) = rule {
            // DW_CFA_expression, DW_CFA_val_expression
            program.with_expression(if *is_value { 0x16 } else { 0x10 }, register, written(&arch, ops));
        }
    }
    let mut section = CfiSection::new(Flavor::EhFrame, word, order, 0x2000);
    let cie = Cie::usual(ra, Vec::new());
    let offset = section.cie(&cie);
    let fde = Fde { start: 0x1000, length: 0x100, instructions: program.into_bytes() };
    if section.fde(offset, &cie, &fde).is_none() {
        return;
    }
    section.terminator();
    let eh_frame = Some(Section { data: &section.bytes.data, svma: section.svma });
    check(arch, DwarfSections { eh_frame, ..DwarfSections::default() }, 0, &[0x1000, 0x1080, 0x1100]);
}

fn written(arch: &AnyArch, ops: &[Op]) -> Expression {
    let expression = Expression::new(arch.word_size(), arch.byte_order());
    ops.iter().take(64).fold(expression, |expression, op| match op {
        Op::Literal(number) => expression.op(0x30 + number % 32),
        Op::Constant(value, style) => expression.constant(*value, u32::from(*style)),
        Op::Breg(number, offset) => expression.breg(Register(u16::from(number % 32)), i64::from(*offset)),
        Op::Bregx(number, offset) => expression.bregx(Register(u16::from(*number)), i64::from(*offset)),
        Op::Deref => expression.deref(),
        Op::DerefSize(size) => expression.raw(&[0x94, *size]),
        Op::Stack(which) => expression.op([0x12, 0x13, 0x14, 0x16, 0x17][usize::from(which % 5)]),
        Op::Pick(index) => expression.raw(&[0x15, *index]),
        Op::Arithmetic(which) => {
            let plain = [
                0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x20, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x29,
                0x2a, 0x2b, 0x2c, 0x2d, 0x2e,
            ];
            expression.op(plain[usize::from(*which) % plain.len()])
        }
        Op::Plus(value) => {
            let [low, high] = [*value as u8 & 0x7f | 0x80, (value >> 7) as u8 & 0x7f];
            expression.raw(&[0x23, low, high])
        }
        Op::Jump(is_conditional, by) => {
            let by = i16::from(*by);
            let bytes = match arch.byte_order() {
                unwind_core::ByteOrder::Little => by.to_le_bytes(),
                unwind_core::ByteOrder::Big => by.to_be_bytes(),
            };
            expression.op(if *is_conditional { 0x28 } else { 0x2f }).raw(&bytes)
        }
        Op::Other(which) => {
            expression.op([0x9c, 0x96, 0x9f, 0x97, 0x98, 0x50, 0x90, 0xe0][usize::from(which % 8)])
        }
        Op::Raw(bytes) => expression.raw(bytes),
    })
}
