//! DWARF expressions: DWARF 5 section 2.5, as far as section 6.4.2 allows them in call frame
//! information.
//!
//! One machine, over two kinds of values: words of the target ([`Full`](super::full::Full)), and formulas over
//! the registers and the CFA ([`Symbolic`](super::symbolic::Symbolic)), by which the expressions
//! that compilers and assemblers write are recognised and become plain rules.

use gimli::{Encoding, Format, Operation};

use super::bytes::{Bytes, broken};
use crate::{Broken, Register, SourceError, WordSize};

/// The most operations of one evaluation. Real expressions have a dozen; a loop ends here.
pub(super) const FUEL: u32 = 512;

/// The depth of the stack. Real expressions need four or five.
pub(super) const STACK: usize = 16;

/// What an expression computes with.
pub(super) trait Domain {
    type Value: Copy;
    type Error: From<SourceError>;

    fn constant(&self, value: u64) -> Self::Value;
    /// An address stated in the file (svma).
    fn address(&mut self, svma: u64) -> Self::Value;
    fn register(&mut self, register: Register, offset: i64) -> Result<Self::Value, Self::Error>;
    /// The word, or the `size` bytes, at an address.
    fn read(&mut self, address: Self::Value, size: u8, here: &Bytes<'_>) -> Result<Self::Value, Self::Error>;
    /// The value as a number.
    fn number(&self, value: Self::Value) -> Result<u64, Self::Error>;
    fn add(&self, a: Self::Value, b: Self::Value) -> Result<Self::Value, Self::Error>;
}

/// Evaluates an expression whose stack begins with `first`.
#[inline(always)]
pub(super) fn evaluate<D: Domain, const DEPTH: usize>(
    domain: &mut D,
    word: WordSize,
    expression: Bytes<'_>,
    first: Option<D::Value>,
) -> Result<D::Value, D::Error> {
    let encoding = Encoding { address_size: word.bytes(), format: Format::Dwarf32, version: 4 };
    let mut stack = Stack::<D::Value, DEPTH>::new(domain.constant(0));
    if let Some(first) = first {
        stack.push(first, &expression)?;
    }
    let mut operations = expression.slice();
    for _ in 0..FUEL {
        let here = Bytes::from_slice(operations, &expression);
        if operations.is_empty() {
            return Ok(stack.pop(&here)?);
        }
        // Operations are large: each is looked at where it was parsed.
        let operation = &Operation::parse(&mut operations, encoding);
        let jump = match operation {
            Err(error) => return Err(here.error(broken(*error)).into()),
            Ok(Operation::Skip { target }) => Some(*target),
            Ok(Operation::Bra { target }) => {
                let condition = stack.pop(&here)?;
                (domain.number(condition)? != 0).then_some(*target)
            }
            Ok(other) => {
                operate(domain, word, &mut stack, other, &here)?;
                None
            }
        };
        if let Some(target) = jump {
            let position = expression.len().wrapping_sub(Bytes::from_slice(operations, &expression).len());
            let position =
                position.checked_add_signed(i64::from(target)).ok_or(here.error(Broken::OutOfBounds))?;
            let mut rest = expression;
            rest.split(position)?;
            operations = rest.slice();
        }
    }
    Err(expression.error(Broken::OutOfFuel).into())
}

/// Carries out one operation that does not branch. In a function of its own, as its values are not needed while
/// the next one is parsed.
#[inline(never)]
fn operate<'d, D: Domain, const DEPTH: usize>(
    domain: &mut D,
    word: WordSize,
    stack: &mut Stack<D::Value, DEPTH>,
    operation: &Operation<gimli::EndianSlice<'d, gimli::RunTimeEndian>>,
    here: &Bytes<'d>,
) -> Result<(), D::Error> {
    let generic = gimli::UnitOffset(0);
    let value = match *operation {
        Operation::Nop => return Ok(()),
        Operation::UnsignedConstant { value } => domain.constant(word.truncate(value)),
        Operation::SignedConstant { value } => domain.constant(word.truncate(value.cast_unsigned())),
        Operation::Address { address } => domain.address(address),
        Operation::RegisterOffset { register, offset, base_type } if base_type == generic => {
            domain.register(Register(register.0), offset)?
        }
        Operation::Deref { base_type, size, space: false } if base_type == generic => {
            let address = stack.pop(here)?;
            domain.read(address, size, here)?
        }
        Operation::Drop => {
            stack.pop(here)?;
            return Ok(());
        }
        Operation::Pick { index } => stack.pick(index, here)?,
        Operation::Swap => {
            let (a, b) = (stack.pop(here)?, stack.pop(here)?);
            stack.push(a, here)?;
            b
        }
        Operation::Rot => {
            // The top entry goes below the two that were under it.
            let (a, b, c) = (stack.pop(here)?, stack.pop(here)?, stack.pop(here)?);
            stack.push(a, here)?;
            stack.push(c, here)?;
            b
        }
        Operation::PlusConstant { value } => {
            let base = stack.pop(here)?;
            let value = domain.constant(word.truncate(value));
            domain.add(base, value)?
        }
        Operation::Plus => {
            let (b, a) = (stack.pop(here)?, stack.pop(here)?);
            domain.add(a, b)?
        }
        Operation::Minus => {
            let (b, a) = (stack.pop(here)?, stack.pop(here)?);
            let negated = word.truncate(domain.number(b)?.wrapping_neg());
            domain.add(a, domain.constant(negated))?
        }
        Operation::Abs | Operation::Neg | Operation::Not => {
            let top = stack.pop(here)?;
            let a = domain.number(top)?;
            let result = match operation {
                Operation::Abs => signed(word, a).unsigned_abs(),
                Operation::Neg => a.wrapping_neg(),
                _ => !a,
            };
            domain.constant(word.truncate(result))
        }
        _ => {
            let operation = Binary::of(operation).ok_or(here.error(Broken::UnknownOperation))?;
            let (b, a) = (stack.pop(here)?, stack.pop(here)?);
            let (a, b) = (domain.number(a)?, domain.number(b)?);
            let result = operation.apply(word, a, b).ok_or(here.error(Broken::DivisionByZero))?;
            domain.constant(word.truncate(result))
        }
    };
    stack.push(value, here)?;
    Ok(())
}

/// The operations that need both operands as numbers.
#[derive(Clone, Copy)]
enum Binary {
    And,
    Or,
    Xor,
    Div,
    Mod,
    Mul,
    Shl,
    Shr,
    Shra,
    Eq,
    Ne,
    Ge,
    Gt,
    Le,
    Lt,
}

impl Binary {
    fn of<R: gimli::Reader>(operation: &Operation<R>) -> Option<Binary> {
        Some(match operation {
            Operation::And => Binary::And,
            Operation::Or => Binary::Or,
            Operation::Xor => Binary::Xor,
            Operation::Div => Binary::Div,
            Operation::Mod => Binary::Mod,
            Operation::Mul => Binary::Mul,
            Operation::Shl => Binary::Shl,
            Operation::Shr => Binary::Shr,
            Operation::Shra => Binary::Shra,
            Operation::Eq => Binary::Eq,
            Operation::Ne => Binary::Ne,
            Operation::Ge => Binary::Ge,
            Operation::Gt => Binary::Gt,
            Operation::Le => Binary::Le,
            Operation::Lt => Binary::Lt,
            _ => return None,
        })
    }

    /// `None` for a division by zero. Division and comparison are signed, modulo is not, as
    /// section 2.5.1.4 has it for the generic type.
    fn apply(self, word: WordSize, a: u64, b: u64) -> Option<u64> {
        let (signed_a, signed_b) = (signed(word, a), signed(word, b));
        let bits = u64::from(word.bytes()).saturating_mul(8);
        let shift = u32::try_from(b).ok().filter(|_| b < bits);
        Some(match self {
            Binary::And => a & b,
            Binary::Or => a | b,
            Binary::Xor => a ^ b,
            Binary::Div if signed_b == 0 => return None,
            // The least number divided by -1 wraps around to itself.
            Binary::Div => signed_a.checked_div(signed_b).unwrap_or(signed_a).cast_unsigned(),
            Binary::Mod => a.checked_rem(b)?,
            Binary::Mul => a.wrapping_mul(b),
            Binary::Shl => shift.map_or(0, |shift| a.wrapping_shl(shift)),
            Binary::Shr => shift.map_or(0, |shift| a.wrapping_shr(shift)),
            Binary::Shra => signed_a.wrapping_shr(shift.unwrap_or(63)).cast_unsigned(),
            Binary::Eq => u64::from(a == b),
            Binary::Ne => u64::from(a != b),
            Binary::Ge => u64::from(signed_a >= signed_b),
            Binary::Gt => u64::from(signed_a > signed_b),
            Binary::Le => u64::from(signed_a <= signed_b),
            Binary::Lt => u64::from(signed_a < signed_b),
        })
    }
}

/// A word as a signed number.
pub(super) fn signed(word: WordSize, value: u64) -> i64 {
    match word {
        WordSize::Eight => value.cast_signed(),
        WordSize::Four => value.wrapping_shl(32).cast_signed().wrapping_shr(32),
    }
}

/// A stack of fixed depth.
struct Stack<V, const DEPTH: usize> {
    values: [V; DEPTH],
    depth: usize,
}

impl<V: Copy, const DEPTH: usize> Stack<V, DEPTH> {
    fn new(blank: V) -> Self {
        Stack { values: [blank; DEPTH], depth: 0 }
    }

    fn push(&mut self, value: V, here: &Bytes<'_>) -> Result<(), SourceError> {
        let slot = self.values.get_mut(self.depth).ok_or(here.error(Broken::ExpressionStackFull))?;
        *slot = value;
        self.depth = self.depth.saturating_add(1);
        Ok(())
    }

    fn pop(&mut self, here: &Bytes<'_>) -> Result<V, SourceError> {
        let value = self.pick(0, here)?;
        self.depth = self.depth.saturating_sub(1);
        Ok(value)
    }

    /// The value `index` below the top.
    fn pick(&self, index: u8, here: &Bytes<'_>) -> Result<V, SourceError> {
        let at = self.depth.checked_sub(usize::from(index).saturating_add(1));
        let value = at.and_then(|at| self.values.get(at)).copied();
        value.ok_or(here.error(Broken::ExpressionStackEmpty))
    }
}
