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
    /// A place as it is kept: in little room, as there is one for each register.
    type Kept: Copy;

    /// The value of a core register in the frame that is unwound.
    fn register(&mut self, number: u8) -> Self::Value;

    /// The word that lies there.
    fn load(&mut self, place: Place<Self::Value>) -> Result<Self::Value, LookupError>;

    /// What is to be kept of a place.
    fn keep(place: Place<Self::Value>) -> Self::Kept;

    /// The place of which that was kept.
    fn kept(kept: Self::Kept) -> Place<Self::Value>;
}

/// An address: so many bytes above a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place<V> {
    pub(super) base: V,
    pub(super) offset: i64,
}

/// What is left when the instructions have been carried out.
pub(super) struct Unwound<M: Values> {
    /// The caller's sp: the CFA.
    pub(super) vsp: Place<M::Value>,
    /// Where the caller's value of each core register lies, of those that were popped.
    saved: [Option<M::Kept>; 16],
}

impl<M: Values> Unwound<M> {
    /// Nothing has been carried out yet. `sp` is the stack pointer of the frame that is unwound.
    pub(super) fn new(sp: M::Value) -> Self {
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
            *slot = Some(M::keep(self.vsp));
        }
        self.move_vsp(4);
    }

    /// Where the caller's value of a core register lies, if it was popped.
    pub(super) fn saved(&self, number: u8) -> Option<Place<M::Value>> {
        self.saved.get(usize::from(number)).copied().flatten().map(M::kept)
    }

    /// Where the return address lies: what was popped into the program counter, else what was
    /// popped into the link register. `None`: it still is in there.
    pub(super) fn return_address(&self) -> Option<Place<M::Value>> {
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
    instructions: &mut Instructions<'_>,
    unwound: &mut Unwound<M>,
) -> Result<(), LookupError> {
    for instruction in instructions {
        match instruction? {
            Instruction::AddVsp(bytes) => unwound.move_vsp(i64::from(bytes)),
            Instruction::SubVsp(bytes) => unwound.move_vsp(i64::from(bytes).wrapping_neg()),
            Instruction::Refuse => return Err(LookupError::CannotUnwind),
            Instruction::Pop(mask) => {
                bits(mask).for_each(|number| unwound.pop(number));
                if mask & 1u16.wrapping_shl(SP.into()) != 0 {
                    set_vsp(values, SP, unwound)?;
                }
            }
            Instruction::SetVsp(number) => set_vsp(values, number, unwound)?,
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

/// Makes the virtual stack pointer what a register holds by now. In a function of its own, so that the memory is not
/// read on top of what decodes instructions.
#[inline(never)]
fn set_vsp<M: Values>(values: &mut M, number: u8, unwound: &mut Unwound<M>) -> Result<(), LookupError> {
    let base = match unwound.saved(number) {
        Some(place) => values.load(place)?,
        None => values.register(number),
    };
    unwound.vsp = Place { base, offset: 0 };
    Ok(())
}

/// Which core registers the instructions pop, bit n for rn: what they come to where nothing else matters.
pub(super) fn popped(instructions: &Instructions<'_>) -> Result<u16, LookupError> {
    let mut popped = 0;
    for instruction in instructions.clone() {
        match instruction? {
            Instruction::Refuse => return Err(LookupError::CannotUnwind),
            Instruction::Pop(mask) => popped |= mask,
            _ => {}
        }
    }
    Ok(popped)
}
