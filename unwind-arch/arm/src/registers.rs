//! DWARF register numbers, and the registers at which a walk starts.
//!
//! Numbers: "DWARF for the Arm Architecture" (AADWARF32), section "DWARF register names". Beyond those
//! below, 64 to 95 are s0 to s31 (old; s16 to s31 are callee-saved), 143 is RA_AUTH_CODE, and 256 to 287
//! are d0 to d31, of which d8 to d15 (264 to 271) are callee-saved.

use unwind_core::{Register, register_set};

/// r0.
pub const R0: Register = Register(0);
/// r1.
pub const R1: Register = Register(1);
/// r2.
pub const R2: Register = Register(2);
/// r3.
pub const R3: Register = Register(3);
/// r4, callee-saved.
pub const R4: Register = Register(4);
/// r5, callee-saved.
pub const R5: Register = Register(5);
/// r6, callee-saved.
pub const R6: Register = Register(6);
/// r7, callee-saved: the frame pointer of some T32 code.
pub const R7: Register = Register(7);
/// r8, callee-saved.
pub const R8: Register = Register(8);
/// r9, callee-saved where the platform has no other use for it.
pub const R9: Register = Register(9);
/// r10, callee-saved.
pub const R10: Register = Register(10);
/// r11 (fp), callee-saved: the frame pointer.
pub const R11: Register = Register(11);
/// r12 (ip): may be changed by a veneer or PLT entry of a call.
pub const R12: Register = Register(12);
/// r13, the stack pointer.
pub const SP: Register = Register(13);
/// r14: the link register, which holds the return address at function entry.
pub const LR: Register = Register(14);
/// r15, the program counter.
pub const PC: Register = Register(15);

register_set! {
    /// Values of the core registers, each known or unknown.
    ///
    /// `Default` knows nothing; a walk needs at least [`PC`] and [`SP`]. The set holds registers
    /// with numbers below [`Registers::COUNT`]; unwinding needs no other.
    ///
    /// ```
    /// use unwind_arch_arm::{R4, Registers};
    /// use unwind_core::{RegisterFile, UserRegisters};
    ///
    /// let registers = Registers::new(0x1_0000, 0xfffe_e000, 0, 0x1_2000).with(R4, 5);
    /// assert_eq!(registers.ip(), Some(0x1_0000));
    /// assert_eq!(registers.get(R4), Some(5));
    /// assert_eq!(registers.get(unwind_arch_arm::R5), None);
    /// ```
    pub struct Registers { count: 16, ip: Some(PC) }
}

impl Registers {
    /// The registers of a plain walk: pc, sp, r11 and lr. More can be added by
    /// [`with`](Registers::with): r7, where that is the frame pointer.
    pub fn new(ip: u64, sp: u64, fp: u64, lr: u64) -> Self {
        Registers::default().with(PC, ip).with(SP, sp).with(R11, fp).with(LR, lr)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::{RegisterFile, StartError, Unwinder, UserRegisters};

    use super::*;
    use crate::Arm;

    fn known(registers: &Registers) -> Vec<u16> {
        (0..=u16::MAX).filter(|number| registers.get(Register(*number)).is_some()).collect()
    }

    #[test]
    fn what_was_not_said_is_unknown() {
        assert_eq!(known(&Registers::default()), []);
        assert_eq!(Registers::default().ip(), None);
        let registers = Registers::new(1, 2, 3, 4);
        assert_eq!(known(&registers), [11, 13, 14, 15]);
        assert_eq!((registers.ip(), registers.get(PC)), (Some(1), Some(1)));
        assert_eq!((registers.get(SP), registers.get(R11), registers.get(LR)), (Some(2), Some(3), Some(4)));
        assert_eq!(known(&registers.with(R0, 0).without(SP)), [0, 11, 14, 15]);
        assert_eq!(Registers::default().with_ip(9).ip(), Some(9));
    }

    #[test]
    fn a_kernel_thread_is_refused() {
        let unwinder = Unwinder::new(Arm::new(), ());
        let start = |registers| unwinder.start(&registers).map(|state| state.ip());
        assert_eq!(start(Registers::absent()), Err(StartError::NoUserRegisters));
        assert_eq!(start(Registers::default()), Err(StartError::NoInstructionPointer));
        assert_eq!(start(Registers::default().with_ip(4)), Err(StartError::NoStackPointer));
        // A pc of T32 code.
        assert_eq!(start(Registers::default().with_ip(5).with(SP, 2)), Ok(4));
    }
}
