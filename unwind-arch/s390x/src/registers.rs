//! DWARF register numbers, and the registers at which a walk starts.
//!
//! Numbers: "ELF Application Binary Interface s390x Supplement" (IBM, 1.6), section 1.6, "DWARF
//! definition", table "DWARF register number mapping". The floating point registers are not in
//! order: first those that can begin a pair of an odd kind of number, and so on. Beyond those below,
//! 32 to 47 are the control registers, 48 to 63 the access registers, and 68 to 83 the vector
//! registers v16 to v31, in the same order as the floating point registers; v0 to v15 contain these
//! and have their numbers.

use unwind_core::{Register, register_set};

/// r0.
pub const R0: Register = Register(0);
/// r1.
pub const R1: Register = Register(1);
/// r2.
pub const R2: Register = Register(2);
/// r3.
pub const R3: Register = Register(3);
/// r4.
pub const R4: Register = Register(4);
/// r5.
pub const R5: Register = Register(5);
/// r6, callee-saved.
pub const R6: Register = Register(6);
/// r7, callee-saved.
pub const R7: Register = Register(7);
/// r8, callee-saved.
pub const R8: Register = Register(8);
/// r9, callee-saved.
pub const R9: Register = Register(9);
/// r10, callee-saved.
pub const R10: Register = Register(10);
/// r11, callee-saved: the frame pointer of functions that have one.
pub const R11: Register = Register(11);
/// r12, callee-saved: the pointer to the global offset table, where there is one.
pub const R12: Register = Register(12);
/// r13, callee-saved: the literal pool pointer, where there is one.
pub const R13: Register = Register(13);
/// r14: the link register, which holds the return address at function entry.
pub const R14: Register = Register(14);
/// r15, callee-saved: the stack pointer.
pub const R15: Register = Register(15);
/// f0.
pub const F0: Register = Register(16);
/// f2.
pub const F2: Register = Register(17);
/// f4.
pub const F4: Register = Register(18);
/// f6.
pub const F6: Register = Register(19);
/// f1.
pub const F1: Register = Register(20);
/// f3.
pub const F3: Register = Register(21);
/// f5.
pub const F5: Register = Register(22);
/// f7.
pub const F7: Register = Register(23);
/// f8, callee-saved.
pub const F8: Register = Register(24);
/// f10, callee-saved.
pub const F10: Register = Register(25);
/// f12, callee-saved.
pub const F12: Register = Register(26);
/// f14, callee-saved.
pub const F14: Register = Register(27);
/// f9, callee-saved.
pub const F9: Register = Register(28);
/// f11, callee-saved.
pub const F11: Register = Register(29);
/// f13, callee-saved.
pub const F13: Register = Register(30);
/// f15, callee-saved.
pub const F15: Register = Register(31);
/// The mask of the program status word.
pub const PSWM: Register = Register(64);
/// The address of the program status word: the program counter.
pub const PSWA: Register = Register(65);

register_set! {
    /// Values of the general and floating point registers and the program status word, each known or
    /// unknown.
    ///
    /// `Default` knows nothing; a walk needs at least [`PSWA`] and [`R15`]. The floating point
    /// registers matter because functions that call no others save general registers in them:
    /// without them such a function can only be left if it saved neither r14 nor r15 there.
    ///
    /// ```
    /// use unwind_arch_s390x::{F1, Registers};
    /// use unwind_core::{RegisterFile, UserRegisters};
    ///
    /// let registers = Registers::new(0x100_1000, 0x3ff_ffff_e000, 0, 0x100_2000).with(F1, 5);
    /// assert_eq!(registers.ip(), Some(0x100_1000));
    /// assert_eq!(registers.get(F1), Some(5));
    /// assert_eq!(registers.get(unwind_arch_s390x::F2), None);
    /// ```
    pub struct Registers { count: 65, ip: Some(PSWA) }
}

impl Registers {
    /// The registers of a plain walk: the address of the program status word, r15, r11 and r14.
    pub fn new(pswa: u64, r15: u64, r11: u64, r14: u64) -> Self {
        Self::default().with_ip(pswa).with(R15, r15).with(R11, r11).with(R14, r14)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::{RegisterFile, StartError, Unwinder, UserRegisters};

    use super::*;
    use crate::S390x;

    fn known(registers: &Registers) -> Vec<u16> {
        (0..=u16::MAX).filter(|number| registers.get(Register(*number)).is_some()).collect()
    }

    #[test]
    fn numbers_of_the_abi() {
        // As gcc numbers them: `.cfi_register %r11, %fN` and so on, assembled, f0 to f15.
        let floating = [F0, F1, F2, F3, F4, F5, F6, F7, F8, F9, F10, F11, F12, F13, F14, F15];
        let numbers = [16, 20, 17, 21, 18, 22, 19, 23, 24, 28, 25, 29, 26, 30, 27, 31];
        assert_eq!(floating.map(|register| register.0), numbers);
        let general = [R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10, R11, R12, R13, R14, R15];
        assert!(general.into_iter().zip(0..).all(|(register, number)| register.0 == number));
        assert_eq!((PSWM.0, PSWA.0), (64, 65));
    }

    #[test]
    fn what_was_not_said_is_unknown() {
        assert_eq!(known(&Registers::default()), []);
        assert_eq!(Registers::default().ip(), None);
        let registers = Registers::new(1, 2, 3, 4);
        assert_eq!(known(&registers), [11, 14, 15, 65]);
        assert_eq!((registers.ip(), registers.get(PSWA)), (Some(1), Some(1)));
        assert_eq!((registers.get(R15), registers.get(R11), registers.get(R14)), (Some(2), Some(3), Some(4)));
        assert_eq!(known(&registers.with(PSWM, 0).with(F15, 0).without(R15)), [11, 14, 31, 64, 65]);
        assert_eq!(Registers::default().with_ip(9).ip(), Some(9));
    }

    #[test]
    fn a_kernel_thread_is_refused() {
        let unwinder = Unwinder::new(S390x, ());
        let start = |registers| unwinder.start(&registers).map(|state| state.ip());
        assert_eq!(start(Registers::absent()), Err(StartError::NoUserRegisters));
        assert_eq!(start(Registers::default()), Err(StartError::NoInstructionPointer));
        assert_eq!(start(Registers::default().with_ip(1)), Err(StartError::NoStackPointer));
        assert_eq!(start(Registers::default().with_ip(1).with(R15, 2)), Ok(1));
    }
}
