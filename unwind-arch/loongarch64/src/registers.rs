//! DWARF register numbers, and the registers at which a walk starts.
//!
//! Numbers: "DWARF for the LoongArch Architecture", section "DWARF Register Numbers". Beyond those below,
//! 32 to 63 are f0 to f31, of which fs0 to fs7, 56 to 63, are callee-saved. The program counter has no
//! number.

use unwind_core::{Register, register_set};

/// r0: always zero.
pub const R0: Register = Register(0);
/// r1, ra: the link register, which holds the return address at function entry.
pub const RA: Register = Register(1);
/// r2, tp: the thread pointer.
pub const R2: Register = Register(2);
/// r3, callee-saved: the stack pointer.
pub const SP: Register = Register(3);
/// r4, a0.
pub const R4: Register = Register(4);
/// r5, a1.
pub const R5: Register = Register(5);
/// r6, a2.
pub const R6: Register = Register(6);
/// r7, a3.
pub const R7: Register = Register(7);
/// r8, a4.
pub const R8: Register = Register(8);
/// r9, a5.
pub const R9: Register = Register(9);
/// r10, a6.
pub const R10: Register = Register(10);
/// r11, a7.
pub const R11: Register = Register(11);
/// r12, t0.
pub const R12: Register = Register(12);
/// r13, t1.
pub const R13: Register = Register(13);
/// r14, t2.
pub const R14: Register = Register(14);
/// r15, t3.
pub const R15: Register = Register(15);
/// r16, t4.
pub const R16: Register = Register(16);
/// r17, t5.
pub const R17: Register = Register(17);
/// r18, t6.
pub const R18: Register = Register(18);
/// r19, t7.
pub const R19: Register = Register(19);
/// r20, t8.
pub const R20: Register = Register(20);
/// r21: reserved.
pub const R21: Register = Register(21);
/// r22, callee-saved: the frame pointer.
pub const FP: Register = Register(22);
/// r23, s0, callee-saved.
pub const R23: Register = Register(23);
/// r24, s1, callee-saved.
pub const R24: Register = Register(24);
/// r25, s2, callee-saved.
pub const R25: Register = Register(25);
/// r26, s3, callee-saved.
pub const R26: Register = Register(26);
/// r27, s4, callee-saved.
pub const R27: Register = Register(27);
/// r28, s5, callee-saved.
pub const R28: Register = Register(28);
/// r29, s6, callee-saved.
pub const R29: Register = Register(29);
/// r30, s7, callee-saved.
pub const R30: Register = Register(30);
/// r31, s8, callee-saved.
pub const R31: Register = Register(31);

register_set! {
    /// Values of the general registers and the program counter, each known or unknown.
    ///
    /// `Default` knows nothing; a walk needs at least the program counter and [`SP`].
    ///
    /// ```
    /// use unwind_arch_loongarch64::{R23, Registers};
    /// use unwind_core::{RegisterFile, UserRegisters};
    ///
    /// let registers = Registers::new(0x1_2000_1000, 0x7fff_ffff_e000, 0, 0x1_2000_2000).with(R23, 5);
    /// assert_eq!(registers.ip(), Some(0x1_2000_1000));
    /// assert_eq!(registers.get(R23), Some(5));
    /// assert_eq!(registers.get(unwind_arch_loongarch64::R24), None);
    /// ```
    pub struct Registers { count: 32, ip: None }
}

impl Registers {
    /// The registers of a plain walk: the program counter, sp, fp and ra.
    pub fn new(pc: u64, sp: u64, fp: u64, ra: u64) -> Self {
        Self::default().with_ip(pc).with(SP, sp).with(FP, fp).with(RA, ra)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::{RegisterFile, StartError, Unwinder, UserRegisters};

    use super::*;
    use crate::Loongarch64;

    fn known(registers: &Registers) -> Vec<u16> {
        (0..=u16::MAX).filter(|number| registers.get(Register(*number)).is_some()).collect()
    }

    #[test]
    fn what_was_not_said_is_unknown() {
        assert_eq!(known(&Registers::default()), []);
        assert_eq!(Registers::default().ip(), None);
        let registers = Registers::new(1, 2, 3, 4);
        assert_eq!(known(&registers), [1, 3, 22]);
        assert_eq!((registers.get(SP), registers.get(FP), registers.get(RA)), (Some(2), Some(3), Some(4)));
        assert_eq!(registers.ip(), Some(1));
        assert_eq!(known(&registers.with(R31, 0).with(Register(32), 1).without(SP)), [1, 22, 31]);
        assert_eq!(Registers::default().with_ip(9).ip(), Some(9));
    }

    #[test]
    fn a_kernel_thread_is_refused() {
        let unwinder = Unwinder::new(Loongarch64, ());
        let start = |registers| unwinder.start(&registers).map(|state| state.ip());
        assert_eq!(start(Registers::absent()), Err(StartError::NoUserRegisters));
        assert_eq!(start(Registers::default()), Err(StartError::NoInstructionPointer));
        assert_eq!(start(Registers::default().with_ip(1)), Err(StartError::NoStackPointer));
        assert_eq!(start(Registers::default().with_ip(1).with(SP, 2)), Ok(1));
    }
}
