//! Rows evaluated in full: rules that no frame can say, signal frames, and every register that a
//! debugger wants.

use super::bytes::Bytes;
use super::expression::{Domain, STACK, evaluate};
use super::row::{Cfa, Column, ExpressionAt};
use super::rule::{COLUMNS, columns};
use super::subject::Subject;
use crate::register::TRACKED;
use crate::{
    Arch, Broken, ByteOrder, CallerRegisters, Evaluated, FrameKind, LookupError, MemoryError, Query,
    Register, RegisterFile, SourceError, WordSize,
};

/// How many columns are evaluated in one run over the row machine: as many as for any other row, so that there
/// is no larger one on the stack. Few functions say more about the other registers.
const BATCH: usize = COLUMNS;

/// A place in a batch that is free.
const NO_REGISTER: Register = Register(u16::MAX);

/// Evaluates the row that holds at the pc of `query`.
pub(super) struct Full<'e, 'd, 'm, A> {
    pub(super) arch: &'e A,
    pub(super) query: &'e Query,
    pub(super) registers: &'e dyn RegisterFile,
    pub(super) subject: Subject<'d, 'm>,
}

impl<A: Arch> Full<'_, '_, '_, A> {
    /// Evaluates what a walk rests on in the place of `evaluated`, and states the wanted registers to `caller`. What it
    /// calls, it calls one after another.
    #[inline(always)]
    pub(super) fn evaluate(
        &mut self,
        caller: &mut dyn CallerRegisters,
        evaluated: &mut Result<Option<Evaluated>, LookupError>,
    ) {
        if self.subject.find() {
            let mut batch = columns(self.arch, self.subject.fde.cie.return_address);
            let mut next = 0;
            // A pass over the function's rows for each batch of columns: first for what the walk rests on, then
            // for the wanted registers, of which there are 128.
            while self.subject.read_row(self.arch.cfi_vendor(), &batch) {
                if matches!(evaluated, Ok(None)) {
                    self.row(evaluated);
                } else {
                    self.set_all(&batch, evaluated, caller);
                }
                if !self.next_batch(&mut next, &mut batch, evaluated, caller) {
                    break;
                }
            }
        }
        if let Some(error) = self.subject.error {
            *evaluated = Err(error);
        }
    }

    /// Evaluates what a walk rests on.
    #[inline(never)]
    fn row(&mut self, into: &mut Result<Option<Evaluated>, LookupError>) {
        let kind = if self.subject.fde.cie.is_signal { FrameKind::Signal } else { FrameKind::Call };
        *into = Ok(Some(Evaluated { cfa: 0, ra: None, sp: None, fp: None, kind }));
        if let Ok(Some(evaluated)) = into
            && let Err(error) = self.fill(evaluated)
        {
            self.subject.failed(error);
        }
    }

    #[inline(always)]
    fn fill(&mut self, evaluated: &mut Evaluated) -> Result<(), LookupError> {
        let (arch, fde, row) = (self.arch, &self.subject.fde, self.subject.row);
        let (offset, return_address) = (fde.offset, fde.cie.return_address);
        let error = |broken| LookupError::Broken(SourceError { broken, offset });
        let [ra, fp, sp] = row.columns;
        if ra == Column::Undefined {
            return Ok(());
        }
        let cfa = match row.cfa {
            Cfa::Undefined => return Err(error(Broken::NoCfa)),
            Cfa::Register(register, offset) => {
                let base = self.get(register)?;
                self.word().offset(base, i64::from(offset)).ok_or(LookupError::AddressOverflow)?
            }
            Cfa::Expression(expression) => self.expression(expression, None)?,
        };
        evaluated.cfa = cfa;
        let same = matches!(ra, Column::Unspecified | Column::SameValue);
        if (same && Some(return_address) == arch.ip())
            || matches!(ra, Column::Register(holder) if Some(holder.register()) == arch.ip())
        {
            return Err(error(Broken::NoReturnAddress));
        }
        // Of the return address column the ABI's classes say nothing: where nothing was saved it is
        // in its register.
        let ra = if same { Column::SameValue } else { ra };
        let ra = self.value(ra, return_address, cfa)?;
        evaluated.ra = Some(ra.ok_or(LookupError::UnknownRegister(return_address))?);
        evaluated.fp = self.value(fp, arch.fp(), cfa)?;
        evaluated.sp = match sp {
            Column::Unspecified | Column::SameValue | Column::Undefined => None,
            rule => self.value(rule, arch.sp(), cfa)?,
        };
        Ok(())
    }

    /// Fills a batch with the wanted registers from `next` on that the function mentions, and states the others:
    /// whether there are any in it. `next` is the register after them then.
    #[inline(never)]
    fn next_batch(
        &mut self,
        next: &mut u16,
        batch: &mut [Register; BATCH],
        evaluated: &Result<Option<Evaluated>, LookupError>,
        caller: &mut dyn CallerRegisters,
    ) -> bool {
        // Without a return address, nobody is there whose they would be.
        let Ok(Some(Evaluated { cfa, ra: Some(_), .. })) = *evaluated else { return false };
        let arch = self.arch;
        let here = [arch.sp(), arch.fp(), self.subject.fde.cie.return_address];
        *batch = [NO_REGISTER; BATCH];
        let mut slots = batch.iter_mut();
        while *next < TRACKED && self.subject.error.is_none() {
            let register = Register(*next);
            if !here.contains(&register) && Some(register) != arch.ip() && caller.wants(register) {
                if !self.subject.mentioned.has(register) {
                    self.set(Column::Unspecified, register, cfa, caller);
                } else if let Some(slot) = slots.next() {
                    *slot = register;
                } else {
                    break;
                }
            }
            *next = next.saturating_add(1);
        }
        *batch != [NO_REGISTER; BATCH] && self.subject.error.is_none()
    }

    /// States the registers of a batch, by the row that was read for them.
    #[inline(never)]
    fn set_all(
        &mut self,
        batch: &[Register; BATCH],
        evaluated: &Result<Option<Evaluated>, LookupError>,
        caller: &mut dyn CallerRegisters,
    ) {
        let Ok(Some(Evaluated { cfa, .. })) = *evaluated else { return };
        let columns = self.subject.row.columns;
        for (register, rule) in batch.iter().zip(columns) {
            if *register != NO_REGISTER && self.subject.error.is_none() {
                self.set(rule, *register, cfa, caller);
            }
        }
    }

    /// States the caller's value of a register, if it is known.
    #[inline(always)]
    fn set(&mut self, rule: Column, register: Register, cfa: u64, caller: &mut dyn CallerRegisters) {
        match self.value(rule, register, cfa) {
            Ok(Some(value)) => caller.set(register, value),
            Ok(None) => {}
            Err(error) => {
                self.subject.failed(error);
            }
        }
    }

    /// The caller's value of a register; `None` where it is lost.
    #[inline(always)]
    fn value(&mut self, rule: Column, register: Register, cfa: u64) -> Result<Option<u64>, LookupError> {
        Ok(match rule {
            Column::Expression(expression) => {
                let place = self.expression(expression, Some(cfa))?;
                Some(self.subject.input.read_register(place, self.arch.register_size())?)
            }
            Column::ValExpression(expression) => Some(self.expression(expression, Some(cfa))?),
            rule => self.value_without_expression(rule, register, cfa)?,
        })
    }

    #[inline(never)]
    fn value_without_expression(
        &mut self,
        rule: Column,
        register: Register,
        cfa: u64,
    ) -> Result<Option<u64>, LookupError> {
        let word = self.word();
        let at_cfa = |offset| word.offset(cfa, i64::from(offset)).ok_or(LookupError::AddressOverflow);
        Ok(match rule {
            Column::Undefined | Column::Expression(_) | Column::ValExpression(_) => None,
            Column::SameValue => self.registers.get(register),
            // Where the return address is elsewhere, the link register is left alone.
            Column::Unspecified if self.arch.is_callee_saved(register) || register == self.arch.ra() => {
                self.registers.get(register)
            }
            Column::Unspecified => None,
            Column::Offset(offset) => {
                let slot = at_cfa(offset)?;
                match self.subject.input.read_register(slot, self.arch.register_size()) {
                    // An epilogue that has popped it, and a snapshot that begins at sp: it is not known.
                    Err(MemoryError::Unreadable { .. }) if self.may_be_gone(register, slot) => None,
                    word => Some(word?),
                }
            }
            Column::ValOffset(offset) => Some(at_cfa(offset)?),
            Column::Register(holder) => self.registers.get(holder.register()),
        })
    }

    /// Whether the word that a register was saved in is below sp where execution stopped: what a function
    /// has popped may not be there any more. What a step rests on always is.
    fn may_be_gone(&self, register: Register, slot: u64) -> bool {
        let is_needed = register == self.arch.ra() || register == self.arch.sp();
        let sp = self.registers.get(self.arch.sp());
        !is_needed && self.query.pc.is_exact() && sp.is_some_and(|sp| slot < sp)
    }

    /// What an expression comes to.
    #[inline(never)]
    fn expression(&mut self, expression: ExpressionAt, cfa: Option<u64>) -> Result<u64, LookupError> {
        let bytes = expression.bytes(&self.subject.input)?;
        let word = self.word();
        evaluate::<_, STACK>(self, word, bytes, cfa)
    }

    fn get(&self, register: Register) -> Result<u64, LookupError> {
        self.registers.get(register).ok_or(LookupError::UnknownRegister(register))
    }

    fn word(&self) -> WordSize {
        self.arch.word_size()
    }
}

/// Words of the target.
impl<A: Arch> Domain for Full<'_, '_, '_, A> {
    type Value = u64;
    type Error = LookupError;

    fn constant(&self, value: u64) -> u64 {
        value
    }

    fn address(&mut self, svma: u64) -> u64 {
        self.word().wrapping_offset(svma, self.query.bias)
    }

    fn register(&mut self, register: Register, offset: i64) -> Result<u64, LookupError> {
        Ok(self.word().wrapping_offset(self.get(register)?, offset.cast_unsigned()))
    }

    #[inline]
    fn read(&mut self, address: u64, size: u8, here: &Bytes<'_>) -> Result<u64, LookupError> {
        let mut bytes = [0; 8];
        let read = bytes.get_mut(..usize::from(size)).ok_or(here.error(Broken::UnknownOperation))?;
        if size > self.word().bytes() {
            return Err(here.error(Broken::UnknownOperation).into());
        }
        self.subject.input.memory.read(address, read)?;
        Ok(match self.arch.byte_order() {
            ByteOrder::Little => u64::from_le_bytes(bytes),
            ByteOrder::Big => u64::from_be_bytes(bytes)
                .checked_shr(64u32.saturating_sub(u32::from(size).saturating_mul(8)))
                .unwrap_or(0),
        })
    }

    fn number(&self, value: u64) -> Result<u64, LookupError> {
        Ok(value)
    }

    fn add(&self, a: u64, b: u64) -> Result<u64, LookupError> {
        Ok(self.word().wrapping_offset(a, b))
    }
}
