//! Instructions carried out on values: every register of the caller.

use super::instruction::Instructions;
use super::machine::{LR, PC, Place, SP, Unwound, Values, run};
use crate::{
    Arch, CallerRegisters, Evaluated, FrameKind, LookupError, MemoryError, MemoryReader, Register,
    RegisterFile,
};

/// The frame that is unwound: its registers, and its stack.
pub(super) struct Full<'e, A> {
    pub(super) arch: &'e A,
    pub(super) registers: &'e dyn RegisterFile,
    pub(super) memory: &'e mut dyn MemoryReader,
}

/// A value, or the register that would have held it. Not to know one matters only where it is used.
type Value = Result<u64, Register>;

impl<A: Arch> Values for Full<'_, A> {
    type Value = Value;

    fn register(&mut self, number: u8) -> Value {
        let register = Register(number.into());
        let value = self.registers.get(register).ok_or(register)?;
        Ok(self.arch.word_size().truncate(value))
    }

    fn load(&mut self, place: Place<Value>) -> Result<Value, LookupError> {
        self.read(place).map(Ok)
    }
}

impl<A: Arch> Full<'_, A> {
    #[inline(never)]
    pub(super) fn evaluate(
        mut self,
        instructions: Instructions<'_>,
        caller: &mut dyn CallerRegisters,
    ) -> Result<Evaluated, LookupError> {
        let mut unwound = Unwound::new(self.register(SP));
        run(&mut self, instructions, &mut unwound)?;
        let cfa = self.address(unwound.vsp)?;
        let is_signal = unwound.is_signal();
        let ra = match unwound.return_address() {
            Some(place) => self.read(place)?,
            None => self.register(LR).map_err(LookupError::UnknownRegister)?,
        };
        let fp = match u8::try_from(self.arch.fp().0) {
            Ok(number) => self.recovered(&unwound, number)?,
            Err(_) => None,
        };
        for number in 0..SP {
            let register = Register(number.into());
            if register != self.arch.fp()
                && caller.wants(register)
                && let Some(value) = self.recovered(&unwound, number)?
            {
                caller.set(register, value);
            }
        }
        // Calls leave nothing in the link register that could be told. That of an interrupted
        // function is known.
        if unwound.saved(PC).is_some()
            && caller.wants(Register(LR.into()))
            && let Some(place) = unwound.saved(LR)
            && let Some(value) = known(self.read(place))?
        {
            caller.set(Register(LR.into()), value);
        }
        Ok(Evaluated {
            cfa,
            ra: Some(ra),
            sp: is_signal.then_some(cfa),
            fp,
            kind: if is_signal { FrameKind::Signal } else { FrameKind::Call },
        })
    }

    /// The caller's value of a core register; `None` where it is lost.
    fn recovered(&mut self, unwound: &Unwound<Value>, number: u8) -> Result<Option<u64>, LookupError> {
        match unwound.saved(number) {
            Some(place) => known(self.read(place)),
            None if self.arch.is_callee_saved(Register(number.into())) => Ok(self.register(number).ok()),
            None => Ok(None),
        }
    }

    fn read(&mut self, place: Place<Value>) -> Result<u64, LookupError> {
        let address = self.address(place)?;
        Ok(self.memory.read_word(address, self.arch.word_size(), self.arch.byte_order())?)
    }

    fn address(&self, place: Place<Value>) -> Result<u64, LookupError> {
        let base = place.base.map_err(LookupError::UnknownRegister)?;
        self.arch.word_size().offset(base, place.offset).ok_or(LookupError::AddressOverflow)
    }
}

/// A saved register that cannot be had is unknown, which is no reason to lose the frame. What is
/// wrong with the way to the target is.
fn known(value: Result<u64, LookupError>) -> Result<Option<u64>, LookupError> {
    match value {
        Ok(value) => Ok(Some(value)),
        Err(
            LookupError::Memory(MemoryError::Unreadable { .. })
            | LookupError::UnknownRegister(_)
            | LookupError::AddressOverflow,
        ) => Ok(None),
        Err(error) => Err(error),
    }
}
