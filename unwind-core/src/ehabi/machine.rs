//! Carrying instructions out, on values that are known or on such that are only named.

use super::instruction::{Instruction, Instructions, bits};
use crate::LookupError;

/// SP, LR and PC among the core registers.
pub(super) const SP: u8 = 13;
pub(super) const LR: u8 = 14;
pub(super) const PC: u8 = 15;

/// What the virtual stack pointer can be based on.
pub(super) trait Values {
    /// The value of a register, or its name.
    type Value: Copy;

    /// The value of a core register in the frame that is unwound.
    fn register(&mut self, number: u8) -> Self::Value;

    /// The word that lies there.
    fn load(&mut self, place: Place<Self::Value>) -> Result<Self::Value, LookupError>;
}

/// An address: so many bytes above a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place<V> {
    pub(super) base: V,
    pub(super) offset: i64,
}

/// What is left when the instructions have been carried out.
pub(super) struct Unwound<V> {
    /// The caller's sp: the CFA.
    pub(super) vsp: Place<V>,
    /// Where the caller's value of each core register lies, of those that were popped.
    saved: [Option<Place<V>>; 16],
}

impl<V: Copy> Unwound<V> {
    /// Nothing has been carried out yet. `sp` is the stack pointer of the frame that is unwound.
    pub(super) fn new(sp: V) -> Self {
        Unwound { vsp: Place { base: sp, offset: 0 }, saved: [None; 16] }
    }

    fn move_vsp(&mut self, bytes: i64) {
        // An entry has at most a thousand instructions, of less than 4 GiB each.
        self.vsp.offset = self.vsp.offset.saturating_add(bytes);
    }

    /// Pops registers that are of no interest.
    fn skip(&mut self, bytes: i64, count: u32) {
        self.move_vsp(bytes.saturating_mul(count.into()));
    }

    fn pop(&mut self, number: u8) {
        if let Some(slot) = self.saved.get_mut(usize::from(number)) {
            *slot = Some(self.vsp);
        }
        self.move_vsp(4);
    }

    /// Where the caller's value of a core register lies, if it was popped.
    pub(super) fn saved(&self, number: u8) -> Option<Place<V>> {
        self.saved.get(usize::from(number)).copied().flatten()
    }

    /// Where the return address lies: what was popped into the program counter, else what was
    /// popped into the link register. `None`: it still is in there.
    pub(super) fn return_address(&self) -> Option<Place<V>> {
        self.saved(PC).or_else(|| self.saved(LR))
    }

    /// Whether every core register was popped. No call gives r0-r3 and r12 back: that is a signal
    /// frame, as C libraries describe their trampolines.
    pub(super) fn is_signal(&self) -> bool {
        self.saved.iter().all(Option::is_some)
    }
}

/// Carries the instructions out on `unwound`. Work is bounded by their number: at most 1023.
pub(super) fn run<M: Values>(
    values: &mut M,
    instructions: Instructions<'_>,
    unwound: &mut Unwound<M::Value>,
) -> Result<(), LookupError> {
    for instruction in instructions {
        match instruction? {
            Instruction::AddVsp(bytes) => unwound.move_vsp(i64::from(bytes)),
            Instruction::SubVsp(bytes) => unwound.move_vsp(i64::from(bytes).wrapping_neg()),
            Instruction::Refuse => return Err(LookupError::CannotUnwind),
            Instruction::Pop(mask) => {
                bits(mask).for_each(|number| unwound.pop(number));
                if bits(mask).any(|number| number == SP)
                    && let Some(place) = unwound.saved(SP)
                {
                    unwound.vsp = Place { base: values.load(place)?, offset: 0 };
                }
            }
            Instruction::SetVsp(number) => {
                let base = match unwound.saved(number) {
                    Some(place) => values.load(place)?,
                    None => values.register(number),
                };
                unwound.vsp = Place { base, offset: 0 };
            }
            Instruction::PopVfp { count, fstmfdx, .. } => {
                unwound.skip(8, count.into());
                if fstmfdx {
                    unwound.skip(4, 1);
                }
            }
            Instruction::PopWmmx { count, .. } => unwound.skip(8, count.into()),
            Instruction::PopWmmxControl(mask) => unwound.skip(4, mask.count_ones()),
            Instruction::PopAuthCode => unwound.skip(4, 1),
            Instruction::AuthModifier => {}
            Instruction::Finish => break,
        }
    }
    Ok(())
}
