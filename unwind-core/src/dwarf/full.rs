//! Rows evaluated in full: rules that no frame can say, signal frames, and every register that a
//! debugger wants.

use super::entry::Fde;
use super::expression::{Concrete, STACK, evaluate};
use super::row::{Cfa, Column, ExpressionAt, Mentioned, Row, row_at};
use super::rule::{COLUMNS, columns};
use super::section::Input;
use crate::register::TRACKED;
use crate::{
    Arch, Broken, CallerRegisters, Evaluated, FrameKind, LookupError, MemoryError, Query, Register,
    RegisterFile, SourceError, WordSize,
};

/// How many columns are evaluated in one run over the row machine: as many as for any other row, so that there
/// is no larger one on the stack. Few functions say more about the other registers.
const BATCH: usize = COLUMNS;

/// Evaluates the row of `fde` at the pc of `query`.
pub(super) struct Full<'e, A> {
    pub(super) arch: &'e A,
    pub(super) query: &'e Query,
    /// The pc to look up (svma).
    pub(super) svma: u64,
    pub(super) registers: &'e dyn RegisterFile,
}

impl<A: Arch> Full<'_, A> {
    /// Puts the row in the place of `row`, and says which registers the function mentions.
    pub(super) fn row<'d>(
        &self,
        input: &mut Input<'d, '_>,
        fde: &Fde<'d>,
        row: &mut Row<COLUMNS>,
    ) -> Result<Mentioned, LookupError> {
        let columns = columns(self.arch, fde.cie.return_address);
        row_at(input, self.arch.cfi_vendor(), fde, self.svma, &columns, row)
    }

    /// Evaluates what a walk rests on.
    #[inline(never)]
    pub(super) fn evaluate(
        &self,
        input: &mut Input<'_, '_>,
        fde: &Fde<'_>,
        row: &Row<COLUMNS>,
    ) -> Result<Option<Evaluated>, LookupError> {
        let (arch, cie) = (self.arch, &fde.cie);
        let error = |broken| LookupError::Broken(SourceError { broken, offset: fde.offset });
        let kind = if cie.is_signal { FrameKind::Signal } else { FrameKind::Call };
        let [ra, fp, sp] = row.columns;
        if ra == Column::Undefined {
            return Ok(Some(Evaluated { cfa: 0, ra: None, sp: None, fp: None, kind }));
        }
        let cfa = match row.cfa {
            Cfa::Undefined => return Err(error(Broken::NoCfa)),
            Cfa::Register(register, offset) => {
                let base = self.get(register)?;
                self.word().offset(base, i64::from(offset)).ok_or(LookupError::AddressOverflow)?
            }
            Cfa::Expression(expression) => self.expression(input, expression, None)?,
        };
        let same = matches!(ra, Column::Unspecified | Column::SameValue);
        if (same && Some(cie.return_address) == arch.ip())
            || matches!(ra, Column::Register(holder) if Some(holder.register()) == arch.ip())
        {
            return Err(error(Broken::NoReturnAddress));
        }
        // Of the return address column the ABI's classes say nothing: where nothing was saved it is
        // in its register.
        let ra = if same { Column::SameValue } else { ra };
        let ra = self.column(input, ra, cie.return_address, cfa)?;
        let ra = Some(ra.ok_or(LookupError::UnknownRegister(cie.return_address))?);
        let fp = self.column(input, fp, arch.fp(), cfa)?;
        let sp = match sp {
            Column::Unspecified | Column::SameValue | Column::Undefined => None,
            rule => self.column(input, rule, arch.sp(), cfa)?,
        };
        Ok(Some(Evaluated { cfa, ra, sp, fp, kind }))
    }

    /// The wanted registers beside ip, sp and fp, a batch at a time where the function mentions them.
    #[inline(never)]
    pub(super) fn others<'d>(
        &self,
        input: &mut Input<'d, '_>,
        fde: &Fde<'d>,
        mentioned: Mentioned,
        cfa: u64,
        caller: &mut dyn CallerRegisters,
    ) -> Result<(), LookupError> {
        let arch = self.arch;
        let here = [arch.sp(), arch.fp(), fde.cie.return_address];
        let mut next = 0;
        // A pass over the function's rows for each batch: 128 registers, as many at a time as a batch has.
        while next < TRACKED {
            let mut batch = [Register(u16::MAX); BATCH];
            let mut slots = batch.iter_mut();
            let mut filled = 0usize;
            while next < TRACKED && filled < BATCH {
                let register = Register(next);
                next = next.saturating_add(1);
                if here.contains(&register) || Some(register) == arch.ip() || !caller.wants(register) {
                    continue;
                }
                if !mentioned.has(register) {
                    self.set(input, Column::Unspecified, register, cfa, caller)?;
                } else if let Some(slot) = slots.next() {
                    *slot = register;
                    filled = filled.saturating_add(1);
                }
            }
            if filled == 0 {
                return Ok(());
            }
            let mut row = Row::<BATCH>::BLANK;
            row_at(input, arch.cfi_vendor(), fde, self.svma, &batch, &mut row)?;
            for (register, rule) in batch.iter().zip(&row.columns).take(filled) {
                self.set(input, *rule, *register, cfa, caller)?;
            }
        }
        Ok(())
    }

    /// States the caller's value of a register, if it is known.
    #[inline(never)]
    fn set(
        &self,
        input: &mut Input<'_, '_>,
        rule: Column,
        register: Register,
        cfa: u64,
        caller: &mut dyn CallerRegisters,
    ) -> Result<(), LookupError> {
        if let Some(value) = self.value(input, rule, register, cfa)? {
            caller.set(register, value);
        }
        Ok(())
    }

    /// The caller's value of a register; `None` where it is lost.
    #[inline(never)]
    fn column(
        &self,
        input: &mut Input<'_, '_>,
        rule: Column,
        register: Register,
        cfa: u64,
    ) -> Result<Option<u64>, LookupError> {
        self.value(input, rule, register, cfa)
    }

    /// The same, in the stack frame of its caller.
    #[inline(always)]
    fn value(
        &self,
        input: &mut Input<'_, '_>,
        rule: Column,
        register: Register,
        cfa: u64,
    ) -> Result<Option<u64>, LookupError> {
        let at_cfa = |offset| self.word().offset(cfa, i64::from(offset)).ok_or(LookupError::AddressOverflow);
        Ok(match rule {
            Column::Undefined => None,
            Column::SameValue => self.registers.get(register),
            // Where the return address is elsewhere, the link register is left alone.
            Column::Unspecified if self.arch.is_callee_saved(register) || register == self.arch.ra() => {
                self.registers.get(register)
            }
            Column::Unspecified => None,
            Column::Offset(offset) => {
                let slot = at_cfa(offset)?;
                match input.read_register(slot, self.arch.register_size()) {
                    // An epilogue that has popped it, and a snapshot that begins at sp: it is not known.
                    Err(MemoryError::Unreadable { .. }) if self.may_be_gone(register, slot) => None,
                    word => Some(word?),
                }
            }
            Column::ValOffset(offset) => Some(at_cfa(offset)?),
            Column::Register(holder) => self.registers.get(holder.register()),
            Column::Expression(expression) => {
                let place = self.expression(input, expression, Some(cfa))?;
                Some(input.read_register(place, self.arch.register_size())?)
            }
            Column::ValExpression(expression) => Some(self.expression(input, expression, Some(cfa))?),
        })
    }

    /// Whether the word that a register was saved in is below sp where execution stopped: what a function
    /// has popped may not be there any more. What a step rests on always is.
    fn may_be_gone(&self, register: Register, slot: u64) -> bool {
        let is_needed = register == self.arch.ra() || register == self.arch.sp();
        let sp = self.registers.get(self.arch.sp());
        !is_needed && self.query.pc.is_exact() && sp.is_some_and(|sp| slot < sp)
    }

    fn expression(
        &self,
        input: &mut Input<'_, '_>,
        expression: ExpressionAt,
        cfa: Option<u64>,
    ) -> Result<u64, LookupError> {
        let bytes = expression.bytes(input)?;
        let mut concrete = Concrete {
            word: self.word(),
            order: self.arch.byte_order(),
            bias: self.query.bias,
            registers: self.registers,
            memory: input.memory,
        };
        evaluate::<_, STACK>(&mut concrete, self.word(), bytes, cfa)
    }

    fn get(&self, register: Register) -> Result<u64, LookupError> {
        self.registers.get(register).ok_or(LookupError::UnknownRegister(register))
    }

    fn word(&self) -> WordSize {
        self.arch.word_size()
    }
}
