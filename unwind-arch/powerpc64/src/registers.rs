//! DWARF register numbers, and the registers at which a walk starts.
//!
//! Numbers: "64-Bit ELF V2 ABI Specification, Power Architecture" (OpenPOWER), section "DWARF
//! Definition", table "Mappings of Common Registers". gcc and binutils use them for ELFv1 as well, in
//! `.eh_frame` and `.debug_frame`, where that ABI's document has other ones. Beyond those below, 66 is
//! CTR, 68 to 75 are the fields of the condition register, of which 70 stands for all of it in call
//! frame information; 76 is XER, 77 to 108 are the vector registers. The program counter has no number.

use unwind_core::{Register, register_set};

/// r0.
pub const R0: Register = Register(0);
/// r1, callee-saved: the stack pointer.
pub const R1: Register = Register(1);
/// r2: the pointer to the table of contents, restored by the caller where it matters.
pub const R2: Register = Register(2);
/// r3.
pub const R3: Register = Register(3);
/// r4.
pub const R4: Register = Register(4);
/// r5.
pub const R5: Register = Register(5);
/// r6.
pub const R6: Register = Register(6);
/// r7.
pub const R7: Register = Register(7);
/// r8.
pub const R8: Register = Register(8);
/// r9.
pub const R9: Register = Register(9);
/// r10.
pub const R10: Register = Register(10);
/// r11.
pub const R11: Register = Register(11);
/// r12.
pub const R12: Register = Register(12);
/// r13: the thread pointer.
pub const R13: Register = Register(13);
/// r14, callee-saved.
pub const R14: Register = Register(14);
/// r15, callee-saved.
pub const R15: Register = Register(15);
/// r16, callee-saved.
pub const R16: Register = Register(16);
/// r17, callee-saved.
pub const R17: Register = Register(17);
/// r18, callee-saved.
pub const R18: Register = Register(18);
/// r19, callee-saved.
pub const R19: Register = Register(19);
/// r20, callee-saved.
pub const R20: Register = Register(20);
/// r21, callee-saved.
pub const R21: Register = Register(21);
/// r22, callee-saved.
pub const R22: Register = Register(22);
/// r23, callee-saved.
pub const R23: Register = Register(23);
/// r24, callee-saved.
pub const R24: Register = Register(24);
/// r25, callee-saved.
pub const R25: Register = Register(25);
/// r26, callee-saved.
pub const R26: Register = Register(26);
/// r27, callee-saved.
pub const R27: Register = Register(27);
/// r28, callee-saved.
pub const R28: Register = Register(28);
/// r29, callee-saved.
pub const R29: Register = Register(29);
/// r30, callee-saved.
pub const R30: Register = Register(30);
/// r31, callee-saved: the frame pointer of functions that have one.
pub const R31: Register = Register(31);
/// f0.
pub const F0: Register = Register(32);
/// f1.
pub const F1: Register = Register(33);
/// f2.
pub const F2: Register = Register(34);
/// f3.
pub const F3: Register = Register(35);
/// f4.
pub const F4: Register = Register(36);
/// f5.
pub const F5: Register = Register(37);
/// f6.
pub const F6: Register = Register(38);
/// f7.
pub const F7: Register = Register(39);
/// f8.
pub const F8: Register = Register(40);
/// f9.
pub const F9: Register = Register(41);
/// f10.
pub const F10: Register = Register(42);
/// f11.
pub const F11: Register = Register(43);
/// f12.
pub const F12: Register = Register(44);
/// f13.
pub const F13: Register = Register(45);
/// f14, callee-saved.
pub const F14: Register = Register(46);
/// f15, callee-saved.
pub const F15: Register = Register(47);
/// f16, callee-saved.
pub const F16: Register = Register(48);
/// f17, callee-saved.
pub const F17: Register = Register(49);
/// f18, callee-saved.
pub const F18: Register = Register(50);
/// f19, callee-saved.
pub const F19: Register = Register(51);
/// f20, callee-saved.
pub const F20: Register = Register(52);
/// f21, callee-saved.
pub const F21: Register = Register(53);
/// f22, callee-saved.
pub const F22: Register = Register(54);
/// f23, callee-saved.
pub const F23: Register = Register(55);
/// f24, callee-saved.
pub const F24: Register = Register(56);
/// f25, callee-saved.
pub const F25: Register = Register(57);
/// f26, callee-saved.
pub const F26: Register = Register(58);
/// f27, callee-saved.
pub const F27: Register = Register(59);
/// f28, callee-saved.
pub const F28: Register = Register(60);
/// f29, callee-saved.
pub const F29: Register = Register(61);
/// f30, callee-saved.
pub const F30: Register = Register(62);
/// f31, callee-saved.
pub const F31: Register = Register(63);
/// LR: the link register, which holds the return address at function entry.
pub const LR: Register = Register(65);

register_set! {
    /// Values of the general and floating point registers, LR and the program counter, each known or
    /// unknown.
    ///
    /// `Default` knows nothing; a walk needs at least the program counter and [`R1`].
    ///
    /// ```
    /// use unwind_arch_powerpc64::{R14, Registers};
    /// use unwind_core::{RegisterFile, UserRegisters};
    ///
    /// let registers = Registers::new(0x1000_1000, 0x7fff_ffff_e000, 0, 0x1000_2000).with(R14, 5);
    /// assert_eq!(registers.ip(), Some(0x1000_1000));
    /// assert_eq!(registers.get(R14), Some(5));
    /// assert_eq!(registers.get(unwind_arch_powerpc64::R15), None);
    /// ```
    pub struct Registers { count: 66, ip: None }
}

impl Registers {
    /// The registers of a plain walk: the program counter, r1, r31 and LR.
    pub fn new(nip: u64, r1: u64, r31: u64, lr: u64) -> Self {
        Self::default().with_ip(nip).with(R1, r1).with(R31, r31).with(LR, lr)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::{RegisterFile, StartError, Unwinder, UserRegisters};

    use super::*;
    use crate::Powerpc64;

    fn known(registers: &Registers) -> Vec<u16> {
        (0..=u16::MAX).filter(|number| registers.get(Register(*number)).is_some()).collect()
    }

    #[test]
    fn what_was_not_said_is_unknown() {
        assert_eq!(known(&Registers::default()), []);
        assert_eq!(Registers::default().ip(), None);
        let registers = Registers::new(1, 2, 3, 4);
        assert_eq!(known(&registers), [1, 31, 65]);
        assert_eq!((registers.get(R1), registers.get(R31), registers.get(LR)), (Some(2), Some(3), Some(4)));
        assert_eq!(registers.ip(), Some(1));
        assert_eq!(known(&registers.with(R0, 0).with(F31, 0).without(R1)), [0, 31, 63, 65]);
        assert_eq!(known(&registers.with(Register(66), 1).with(Register(70), 1)), [1, 31, 65]);
        assert_eq!(Registers::default().with_ip(9).ip(), Some(9));
    }

    #[test]
    fn a_kernel_thread_is_refused() {
        let unwinder = Unwinder::new(Powerpc64::big_endian(), ());
        let start = |registers| unwinder.start(&registers).map(|state| state.ip());
        assert_eq!(start(Registers::absent()), Err(StartError::NoUserRegisters));
        assert_eq!(start(Registers::default()), Err(StartError::NoInstructionPointer));
        assert_eq!(start(Registers::default().with_ip(4)), Err(StartError::NoStackPointer));
        assert_eq!(start(Registers::default().with_ip(4).with(R1, 2)), Ok(4));
    }
}
