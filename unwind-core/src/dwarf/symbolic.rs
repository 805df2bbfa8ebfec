//! Expressions as formulas: what a rule can say, found by evaluating with unknown registers.
//!
//! The pc is known when a rule is looked up, so the expression of a PLT entry, which depends on it
//! alone, comes out as `sp + constant`; so do `*(sp + off) + const` of assembly that keeps the old
//! sp on the stack, and `*(fp + off)` of realigned frames. Anything else is no formula, and is
//! evaluated when its values are known.

use gimli::{Encoding, Format, Operation};

use super::bytes::Bytes;
use super::expression::{Domain, evaluate, signed};
use crate::{Arch, Broken, Pc, Register, SourceError, WordSize};

/// A value as far as it can be told without registers and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Formula {
    Constant(u64),
    /// Register + offset.
    Register(Register, i64),
    /// CFA + offset.
    Cfa(i64),
    /// `*(register + offset) + add`.
    Deref(Register, i32, i32),
}

/// The formula of an expression, if it is one. `with_cfa`: its stack begins with the CFA, as it
/// does for a register's rule. `bias` relocates the addresses it states.
///
/// # Errors
/// Where the expression is malformed.
#[inline(always)]
pub(super) fn formula<A: Arch>(
    arch: &A,
    pc: Pc,
    bias: u64,
    expression: Bytes<'_>,
    with_cfa: bool,
) -> Result<Option<Formula>, SourceError> {
    let mut domain = Symbolic::new(arch, pc.address(), bias);
    let first = with_cfa.then_some(Formula::Cfa(0));
    match evaluate::<_, STACK>(&mut domain, arch.word_size(), expression, first) {
        Ok(formula) => Ok(Some(formula)),
        Err(NoFormula::Beyond) => Ok(None),
        Err(NoFormula::Broken(error)) => Err(error),
    }
}

/// Whether what an expression comes to may depend on the pc, or on where the module was loaded.
pub(super) fn depends_on_place<A: Arch>(arch: &A, expression: Bytes<'_>, with_cfa: bool) -> bool {
    let mut domain = Symbolic::new(arch, 0, 0);
    let first = with_cfa.then_some(Formula::Cfa(0));
    // Until it asks for the place, it takes the same course everywhere.
    let _ = evaluate::<_, STACK>(&mut domain, arch.word_size(), expression, first);
    domain.asked_for_place
}

/// The shape of an expression that depends on the pc as those of linkers for PLT entries do:
/// `sp + a + ((pc & (block - 1) >= split) << b)`. What comes of it then depends on whether the pc's
/// offset in its block, a power of two, is below `split`, and on nothing else.
pub(super) fn blocks<A: Arch>(arch: &A, expression: Bytes<'_>) -> Option<Blocks> {
    use gimli::Operation::*;
    let encoding = Encoding { address_size: arch.word_size().bytes(), format: Format::Dwarf32, version: 4 };
    let mut operations = expression.slice();
    let mut next = || Operation::parse(&mut operations, encoding).ok();
    let is = |operation, wanted| match operation {
        RegisterOffset { register, .. } => wanted == Some(Register(register.0)),
        _ => false,
    };
    if !is(next()?, Some(arch.sp())) {
        return None;
    }
    let pc = next()?;
    if !is(pc, arch.ip()) || !matches!(pc, RegisterOffset { offset: 0, .. }) {
        return None;
    }
    let (UnsignedConstant { value: mask }, And) = (next()?, next()?) else { return None };
    let (UnsignedConstant { value: split }, Ge) = (next()?, next()?) else { return None };
    let (UnsignedConstant { value: _ }, Shl, Plus) = (next()?, next()?, next()?) else { return None };
    let block = mask.checked_add(1).filter(|block| block.is_power_of_two())?;
    let blocks = Blocks { size: u8::try_from(block).ok()?, split: u8::try_from(split).ok()? };
    (operations.is_empty() && blocks.split > 0 && blocks.split < blocks.size).then_some(blocks)
}

/// Code in blocks of the same shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocks {
    /// How long a block is, a power of two; it is aligned to that.
    pub(super) size: u8,
    /// Where in a block the rule changes; in 1..size.
    pub(super) split: u8,
}

/// Formulas are recognised on a smaller stack than expressions are evaluated on: the ones that
/// occur need four entries.
const STACK: usize = 4;

struct Symbolic {
    word: WordSize,
    ip: Option<Register>,
    pc: u64,
    bias: u64,
    /// Whether it was asked for the pc, or for an address stated in the file.
    asked_for_place: bool,
}

impl Symbolic {
    fn new<A: Arch>(arch: &A, pc: u64, bias: u64) -> Self {
        Symbolic { word: arch.word_size(), ip: arch.ip(), pc, bias, asked_for_place: false }
    }
}

enum NoFormula {
    /// Registers or memory decide.
    Beyond,
    Broken(SourceError),
}

impl From<SourceError> for NoFormula {
    fn from(error: SourceError) -> Self {
        // What does not fit on the small stack may fit on the large one.
        if error.broken == Broken::ExpressionStackFull { NoFormula::Beyond } else { NoFormula::Broken(error) }
    }
}

impl Domain for Symbolic {
    type Value = Formula;
    type Error = NoFormula;

    fn constant(&self, value: u64) -> Formula {
        Formula::Constant(value)
    }

    fn address(&mut self, svma: u64) -> Formula {
        self.asked_for_place = true;
        Formula::Constant(self.word.wrapping_offset(svma, self.bias))
    }

    fn register(&mut self, register: Register, offset: i64) -> Result<Formula, NoFormula> {
        Ok(if Some(register) == self.ip {
            self.asked_for_place = true;
            Formula::Constant(self.word.wrapping_offset(self.pc, offset.cast_unsigned()))
        } else {
            Formula::Register(register, offset)
        })
    }

    fn read(&mut self, address: Formula, size: u8, _: &Bytes<'_>) -> Result<Formula, NoFormula> {
        match address {
            Formula::Register(register, offset) if size == self.word.bytes() => {
                // No rule could say it otherwise.
                let offset = i32::try_from(offset).map_err(|_| NoFormula::Beyond)?;
                Ok(Formula::Deref(register, offset, 0))
            }
            _ => Err(NoFormula::Beyond),
        }
    }

    fn number(&self, value: Formula) -> Result<u64, NoFormula> {
        match value {
            Formula::Constant(value) => Ok(value),
            _ => Err(NoFormula::Beyond),
        }
    }

    fn add(&self, a: Formula, b: Formula) -> Result<Formula, NoFormula> {
        let ((Formula::Constant(constant), other) | (other, Formula::Constant(constant))) = (a, b) else {
            return Err(NoFormula::Beyond);
        };
        let by = signed(self.word, constant);
        Ok(match other {
            Formula::Constant(value) => Formula::Constant(self.word.wrapping_offset(value, constant)),
            Formula::Register(register, offset) => Formula::Register(register, offset.wrapping_add(by)),
            Formula::Cfa(offset) => Formula::Cfa(offset.wrapping_add(by)),
            Formula::Deref(register, offset, add) => {
                let add = i64::from(add).checked_add(by).and_then(|add| i32::try_from(add).ok());
                Formula::Deref(register, offset, add.ok_or(NoFormula::Beyond)?)
            }
        })
    }
}
