//! DWARF register numbers, and the registers at which a walk starts.
//!
//! Numbers: "DWARF for the Arm 64-bit Architecture (AArch64)", section 4.1 (DWARF register
//! names). Beyond those below, 34 is RA_SIGN_STATE, a pseudo-register of call frame information;
//! 46 is VG; 48 to 63 are the predicates p0 to p15; 64 to 95 are v0 to v31, of which the low halves
//! d8 to d15 of 72 to 79 are callee-saved; 96 to 127 are z0 to z31.

use unwind_core::{Register, register_set};

/// x0.
pub const X0: Register = Register(0);
/// x1.
pub const X1: Register = Register(1);
/// x2.
pub const X2: Register = Register(2);
/// x3.
pub const X3: Register = Register(3);
/// x4.
pub const X4: Register = Register(4);
/// x5.
pub const X5: Register = Register(5);
/// x6.
pub const X6: Register = Register(6);
/// x7.
pub const X7: Register = Register(7);
/// x8.
pub const X8: Register = Register(8);
/// x9.
pub const X9: Register = Register(9);
/// x10.
pub const X10: Register = Register(10);
/// x11.
pub const X11: Register = Register(11);
/// x12.
pub const X12: Register = Register(12);
/// x13.
pub const X13: Register = Register(13);
/// x14.
pub const X14: Register = Register(14);
/// x15.
pub const X15: Register = Register(15);
/// x16: may be changed by a veneer or PLT entry of a call.
pub const X16: Register = Register(16);
/// x17: may be changed by a veneer or PLT entry of a call.
pub const X17: Register = Register(17);
/// x18: the platform register, not callee-saved.
pub const X18: Register = Register(18);
/// x19, callee-saved.
pub const X19: Register = Register(19);
/// x20, callee-saved.
pub const X20: Register = Register(20);
/// x21, callee-saved.
pub const X21: Register = Register(21);
/// x22, callee-saved.
pub const X22: Register = Register(22);
/// x23, callee-saved.
pub const X23: Register = Register(23);
/// x24, callee-saved.
pub const X24: Register = Register(24);
/// x25, callee-saved.
pub const X25: Register = Register(25);
/// x26, callee-saved.
pub const X26: Register = Register(26);
/// x27, callee-saved.
pub const X27: Register = Register(27);
/// x28, callee-saved.
pub const X28: Register = Register(28);
/// x29, callee-saved: the frame pointer.
pub const X29: Register = Register(29);
/// x30: the link register, which holds the return address at function entry.
pub const X30: Register = Register(30);
/// The stack pointer.
pub const SP: Register = Register(31);
/// The program counter.
pub const PC: Register = Register(32);

register_set! {
    /// Values of the general registers, sp and pc, each known or unknown.
    ///
    /// `Default` knows nothing; a walk needs at least [`PC`] and [`SP`]. The set holds registers
    /// with numbers below [`Registers::COUNT`]; unwinding needs no other.
    ///
    /// ```
    /// use unwind_arch_aarch64::{Registers, X19};
    /// use unwind_core::{RegisterFile, UserRegisters};
    ///
    /// let registers = Registers::new(0x40_1000, 0xffff_ffff_e000, 0, 0x40_2000).with(X19, 5);
    /// assert_eq!(registers.ip(), Some(0x40_1000));
    /// assert_eq!(registers.get(X19), Some(5));
    /// assert_eq!(registers.get(unwind_arch_aarch64::X20), None);
    /// ```
    pub struct Registers { count: 33, ip: Some(PC) }
}

impl Registers {
    /// The registers of a plain walk: pc, sp, x29 and x30. More can be added by
    /// [`with`](Registers::with).
    pub fn new(ip: u64, sp: u64, fp: u64, lr: u64) -> Self {
        Registers::default().with(PC, ip).with(SP, sp).with(X29, fp).with(X30, lr)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::{RegisterFile, StartError, Unwinder, UserRegisters};

    use super::*;
    use crate::Aarch64;

    fn known(registers: &Registers) -> Vec<u16> {
        (0..=u16::MAX).filter(|number| registers.get(Register(*number)).is_some()).collect()
    }

    #[test]
    fn what_was_not_said_is_unknown() {
        assert_eq!(known(&Registers::default()), []);
        assert_eq!(Registers::default().ip(), None);
        let registers = Registers::new(1, 2, 3, 4);
        assert_eq!(known(&registers), [29, 30, 31, 32]);
        assert_eq!((registers.ip(), registers.get(PC)), (Some(1), Some(1)));
        assert_eq!((registers.get(SP), registers.get(X29), registers.get(X30)), (Some(2), Some(3), Some(4)));
        assert_eq!(known(&registers.with(X0, 0).without(SP)), [0, 29, 30, 32]);
        assert_eq!(Registers::default().with_ip(9).ip(), Some(9));
    }

    #[test]
    fn a_kernel_thread_is_refused() {
        let unwinder = Unwinder::new(Aarch64::new(), ());
        let start = |registers| unwinder.start(&registers).map(|state| state.ip());
        assert_eq!(start(Registers::absent()), Err(StartError::NoUserRegisters));
        assert_eq!(start(Registers::default()), Err(StartError::NoInstructionPointer));
        assert_eq!(start(Registers::default().with_ip(1)), Err(StartError::NoStackPointer));
        assert_eq!(start(Registers::default().with_ip(1).with(SP, 2)), Ok(1));
    }
}
