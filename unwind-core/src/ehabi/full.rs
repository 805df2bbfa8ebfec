//! Instructions carried out on values: every register of the caller.

use super::machine::{LR, PC, Place, SP, Unwound, Values};
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
type Value = Result<u32, u8>;

/// A place by value: 8 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kept {
    /// Its address.
    At(u32),
    /// The register that would tell it.
    Unknown(u8),
    /// It is outside the address space.
    Nowhere,
}

impl<A: Arch> Values for Full<'_, A> {
    type Value = Value;
    type Kept = Kept;

    fn register(&mut self, number: u8) -> Value {
        self.registers.get(Register(number.into())).map(word).ok_or(number)
    }

    fn load(&mut self, place: Place<Value>) -> Result<Value, LookupError> {
        self.read(place).map(|value| Ok(word(value)))
    }

    fn keep(place: Place<Value>) -> Kept {
        match place.base {
            Ok(base) => match i64::from(base).checked_add(place.offset).map(u32::try_from) {
                Some(Ok(address)) => Kept::At(address),
                _ => Kept::Nowhere,
            },
            Err(number) => Kept::Unknown(number),
        }
    }

    fn kept(kept: Kept) -> Place<Value> {
        match kept {
            Kept::At(address) => Place { base: Ok(address), offset: 0 },
            Kept::Unknown(number) => Place { base: Err(number), offset: 0 },
            Kept::Nowhere => Place { base: Ok(0), offset: -1 },
        }
    }
}

impl<A: Arch> Full<'_, A> {
    /// The frame before any instruction.
    pub(super) fn entered(&mut self) -> Unwound<Self> {
        Unwound::new(self.register(SP))
    }

    /// The caller, when the instructions have been carried out: nothing of it is on the stack while they are. What reads
    /// memory is in functions of its own, as its results, errors included, are larger than all that is kept of them.
    #[inline(never)]
    pub(super) fn caller(
        &mut self,
        unwound: &Unwound<Self>,
        caller: &mut dyn CallerRegisters,
    ) -> Result<Option<Evaluated>, LookupError> {
        let cfa = self.address(unwound.vsp)?;
        let is_signal = unwound.is_signal();
        let ra = self.return_address(unwound)?;
        let fp = match u8::try_from(self.arch.fp().0) {
            Ok(number) => self.recovered(unwound, number)?,
            Err(_) => None,
        };
        for number in 0..SP {
            let register = Register(number.into());
            if register != self.arch.fp()
                && caller.wants(register)
                && let Some(value) = self.recovered(unwound, number)?
            {
                caller.set(register, value);
            }
        }
        // Calls leave nothing in the link register that could be told. That of an interrupted
        // function is known.
        if unwound.saved(PC).is_some()
            && caller.wants(Register(LR.into()))
            && let Some(place) = unwound.saved(LR)
            && let Some(value) = self.recalled(place)?
        {
            caller.set(Register(LR.into()), value);
        }
        Ok(Some(Evaluated {
            cfa,
            ra: Some(ra),
            sp: is_signal.then_some(cfa),
            fp,
            kind: if is_signal { FrameKind::Signal } else { FrameKind::Call },
        }))
    }

    /// The return address. Where it cannot be had, the frame is lost.
    #[inline(never)]
    fn return_address(&mut self, unwound: &Unwound<Self>) -> Result<u64, LookupError> {
        match unwound.return_address() {
            Some(place) => self.read(place),
            None => Ok(self.register(LR).map_err(unknown)?.into()),
        }
    }

    /// The caller's value of a core register; `None` where it is lost.
    #[inline]
    fn recovered(&mut self, unwound: &Unwound<Self>, number: u8) -> Result<Option<u64>, LookupError> {
        match unwound.saved(number) {
            Some(place) => self.recalled(place),
            None if self.arch.is_callee_saved(Register(number.into())) => {
                Ok(self.register(number).ok().map(u64::from))
            }
            None => Ok(None),
        }
    }

    /// A saved register. One that cannot be had is unknown, which is no reason to lose the frame. What is wrong with the
    /// way to the target is.
    #[inline(never)]
    fn recalled(&mut self, place: Place<Value>) -> Result<Option<u64>, LookupError> {
        match self.read(place) {
            Ok(value) => Ok(Some(value)),
            Err(
                LookupError::Memory(MemoryError::Unreadable { .. })
                | LookupError::UnknownRegister(_)
                | LookupError::AddressOverflow,
            ) => Ok(None),
            Err(error) => Err(error),
        }
    }

    #[inline]
    fn read(&mut self, place: Place<Value>) -> Result<u64, LookupError> {
        let address = self.address(place)?;
        Ok(self.memory.read_word(address, self.arch.word_size(), self.arch.byte_order())?)
    }

    fn address(&self, place: Place<Value>) -> Result<u64, LookupError> {
        let base = place.base.map_err(unknown)?;
        self.arch.word_size().offset(base.into(), place.offset).ok_or(LookupError::AddressOverflow)
    }
}

/// A word of the target: what its registers may have been extended to has no meaning.
fn word(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn unknown(number: u8) -> LookupError {
    LookupError::UnknownRegister(Register(number.into()))
}
