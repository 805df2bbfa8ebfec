//! From a row to a rule.

use super::entry::Fde;
use super::row::{Cfa, Column, ExpressionAt, Row};
use super::section::Input;
use super::symbolic::{Formula, formula};
use crate::{Arch, Base, Broken, CfaRule, FpRule, Pc, RaRule, Register, Rule, SourceError, UnwindUserFrame};

/// The columns of the three-register walk.
pub(super) const COLUMNS: usize = 3;

/// The return address, the frame pointer and the stack pointer.
pub(super) fn columns<A: Arch>(arch: &A, return_address: Register) -> [Register; COLUMNS] {
    [return_address, arch.fp(), arch.sp()]
}

/// Puts rows into words, for one pc.
pub(super) struct RuleMaker<'r, 'd, 'm, A> {
    pub(super) arch: &'r A,
    pub(super) input: &'r Input<'d, 'm>,
    pub(super) pc: Pc,
    pub(super) fde: &'r Fde<'d>,
}

impl<A: Arch> RuleMaker<'_, '_, '_, A> {
    /// The rule that `row` states, over the columns of [`columns`]. [`Rule::Evaluate`] where a
    /// frame cannot say it.
    ///
    /// # Errors
    /// Where the row is no rule at all, or one of its expressions is malformed.
    #[inline(never)]
    pub(super) fn rule(&self, row: &Row<COLUMNS>) -> Result<Rule, SourceError> {
        let [ra, fp, sp] = row.columns;
        // Whoever called the outermost function, it was not through this stack: nothing else of
        // the row matters, and often there is nothing else.
        if ra == Column::Undefined {
            let cfa = CfaRule::Offset { base: Base::Sp, offset: 0 };
            return Ok(Self::frame(Some(cfa), Some(RaRule::Undefined), Some(FpRule::Undefined)));
        }
        let (cfa, cfa_formula) = self.cfa(row.cfa)?;
        let ra = self.ra(ra)?;
        let fp = self.fp(fp)?;
        if !self.sp_is_cfa(sp, cfa_formula)? {
            return Ok(Rule::Evaluate);
        }
        Ok(match Self::frame(cfa, ra, fp) {
            Rule::Frame(frame) if self.fde.cie.is_signal => Rule::Frame(frame.signal()),
            rule => rule,
        })
    }

    fn frame(cfa: Option<CfaRule>, ra: Option<RaRule>, fp: Option<FpRule>) -> Rule {
        match (cfa, ra, fp) {
            (Some(cfa), Some(ra), Some(fp)) => {
                UnwindUserFrame::new(cfa, ra, fp).map_or(Rule::Evaluate, Rule::Frame)
            }
            _ => Rule::Evaluate,
        }
    }

    #[inline]
    pub(super) fn cfa(&self, cfa: Cfa) -> Result<(Option<CfaRule>, Option<Formula>), SourceError> {
        match cfa {
            Cfa::Undefined => Err(self.error(Broken::NoCfa)),
            Cfa::Register(register, offset) => {
                let rule = CfaRule::Offset { base: self.base(register), offset };
                Ok((Some(rule), Some(Formula::Register(register, i64::from(offset)))))
            }
            Cfa::Expression(expression) => {
                let formula = self.formula(expression, false)?;
                let rule = match formula {
                    Some(Formula::Register(register, offset)) => i32::try_from(offset)
                        .ok()
                        .map(|offset| CfaRule::Offset { base: self.base(register), offset }),
                    Some(Formula::Deref(register, offset, add)) => i16::try_from(add)
                        .ok()
                        .map(|add| CfaRule::Deref { base: self.base(register), offset, add }),
                    _ => None,
                };
                Ok((rule, formula))
            }
        }
    }

    #[inline]
    pub(super) fn ra(&self, column: Column) -> Result<Option<RaRule>, SourceError> {
        Ok(match column {
            Column::Unspecified | Column::SameValue => Some(self.ra_in(self.fde.cie.return_address)?),
            Column::Register(holder) => Some(self.ra_in(holder.register())?),
            Column::Undefined => Some(RaRule::Undefined),
            Column::Offset(offset) => Some(RaRule::AtCfa(offset)),
            Column::ValOffset(_) => None,
            Column::Expression(expression) => match self.formula(expression, true)? {
                Some(Formula::Cfa(offset)) => i32::try_from(offset).ok().map(RaRule::AtCfa),
                Some(Formula::Register(register, offset)) => i32::try_from(offset)
                    .ok()
                    .map(|offset| RaRule::AtRegister { base: self.base(register), offset }),
                _ => None,
            },
            Column::ValExpression(expression) => match self.formula(expression, true)? {
                Some(Formula::Register(register, offset)) => i32::try_from(offset)
                    .ok()
                    .map(|offset| RaRule::InRegister { base: self.base(register), offset }),
                Some(Formula::Deref(register, offset, 0)) => {
                    Some(RaRule::AtRegister { base: self.base(register), offset })
                }
                _ => None,
            },
        })
    }

    /// The return address is in a register, which cannot be the program counter itself.
    fn ra_in(&self, register: Register) -> Result<RaRule, SourceError> {
        if Some(register) == self.arch.ip() {
            return Err(self.error(Broken::NoReturnAddress));
        }
        Ok(RaRule::InRegister { base: self.base(register), offset: 0 })
    }

    #[inline]
    pub(super) fn fp(&self, column: Column) -> Result<Option<FpRule>, SourceError> {
        Ok(match column {
            Column::Unspecified | Column::SameValue => Some(FpRule::Unchanged),
            Column::Undefined => Some(FpRule::Undefined),
            Column::Offset(offset) => Some(FpRule::AtCfa(offset)),
            Column::ValOffset(offset) => Some(FpRule::CfaOffset(offset)),
            Column::Register(holder) if holder.register() == self.arch.fp() => Some(FpRule::Unchanged),
            Column::Register(holder) => {
                Some(FpRule::InRegister { base: self.base(holder.register()), offset: 0 })
            }
            Column::Expression(expression) => match self.formula(expression, true)? {
                Some(Formula::Cfa(offset)) => i32::try_from(offset).ok().map(FpRule::AtCfa),
                Some(Formula::Register(register, offset)) => i32::try_from(offset)
                    .ok()
                    .map(|offset| FpRule::AtRegister { base: self.base(register), offset }),
                _ => None,
            },
            Column::ValExpression(expression) => match self.formula(expression, true)? {
                Some(Formula::Cfa(offset)) => i32::try_from(offset).ok().map(FpRule::CfaOffset),
                Some(Formula::Register(register, offset)) => i32::try_from(offset)
                    .ok()
                    .map(|offset| FpRule::InRegister { base: self.base(register), offset }),
                Some(Formula::Deref(register, offset, 0)) => {
                    Some(FpRule::AtRegister { base: self.base(register), offset })
                }
                _ => None,
            },
        })
    }

    /// Whether the row's rule for sp, if it has one, says no more than that it is the CFA plus the
    /// ABI's bias.
    #[inline]
    pub(super) fn sp_is_cfa(&self, column: Column, cfa: Option<Formula>) -> Result<bool, SourceError> {
        let bias = self.arch.sp_bias();
        let (formula, place) = match column {
            Column::Unspecified | Column::SameValue | Column::Undefined => return Ok(true),
            Column::ValOffset(offset) => return Ok(offset == bias),
            // Where the ABI biases the CFA (s390x), functions save sp as they do any register that
            // is the caller's. What they saved is the CFA plus the bias: that is what a CFA is.
            Column::Offset(_) if bias != 0 => return Ok(true),
            Column::Offset(_) | Column::Register(_) => return Ok(false),
            Column::Expression(expression) => (self.formula(expression, true)?, true),
            Column::ValExpression(expression) => (self.formula(expression, true)?, false),
        };
        let value = match (formula, place) {
            (Some(Formula::Register(register, offset)), true) => {
                i32::try_from(offset).ok().map(|offset| Formula::Deref(register, offset, 0))
            }
            (_, true) => None,
            (formula, false) => formula,
        };
        Ok(value == Some(Formula::Cfa(i64::from(bias))) || (bias == 0 && value.is_some() && value == cfa))
    }

    /// What an expression for a register comes to, if that is a number.
    pub(super) fn constant(&self, expression: ExpressionAt) -> Result<Option<u64>, SourceError> {
        Ok(match self.formula(expression, true)? {
            Some(Formula::Constant(value)) => Some(value),
            _ => None,
        })
    }

    #[inline(never)]
    fn formula(&self, expression: ExpressionAt, with_cfa: bool) -> Result<Option<Formula>, SourceError> {
        formula(self.arch, self.pc, self.input.bias, expression.bytes(self.input)?, with_cfa)
    }

    fn base(&self, register: Register) -> Base {
        if register == self.arch.sp() {
            Base::Sp
        } else if register == self.arch.fp() {
            Base::Fp
        } else {
            Base::Register(register)
        }
    }

    fn error(&self, broken: Broken) -> SourceError {
        SourceError { broken, offset: self.fde.offset }
    }
}
