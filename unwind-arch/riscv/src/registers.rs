//! DWARF register numbers, and the registers at which a walk starts.
//!
//! Numbers: "RISC-V ABIs Specification", section "DWARF Register Numbers". Beyond those below, 32 to
//! 63 are f0 to f31, of which fs0 and fs1 (40, 41) and fs2 to fs11 (50 to 59) are callee-saved; 64 is
//! the Alternate Frame Return Column, meant for the interrupted pc of a signal frame; 96 to 127
//! are v0 to v31; from 4096 on, the control and status registers. The program counter has none.

use unwind_core::{Register, register_set};

/// zero: always 0.
pub const ZERO: Register = Register(0);
/// ra: the link register, which holds the return address at function entry.
pub const RA: Register = Register(1);
/// sp, the stack pointer.
pub const SP: Register = Register(2);
/// gp: the global pointer, never modified.
pub const GP: Register = Register(3);
/// tp: the thread pointer, never modified.
pub const TP: Register = Register(4);
/// t0: the alternate link register.
pub const T0: Register = Register(5);
/// t1.
pub const T1: Register = Register(6);
/// t2.
pub const T2: Register = Register(7);
/// s0, callee-saved: the frame pointer.
pub const S0: Register = Register(8);
/// s1, callee-saved.
pub const S1: Register = Register(9);
/// a0.
pub const A0: Register = Register(10);
/// a1.
pub const A1: Register = Register(11);
/// a2.
pub const A2: Register = Register(12);
/// a3.
pub const A3: Register = Register(13);
/// a4.
pub const A4: Register = Register(14);
/// a5.
pub const A5: Register = Register(15);
/// a6.
pub const A6: Register = Register(16);
/// a7.
pub const A7: Register = Register(17);
/// s2, callee-saved.
pub const S2: Register = Register(18);
/// s3, callee-saved.
pub const S3: Register = Register(19);
/// s4, callee-saved.
pub const S4: Register = Register(20);
/// s5, callee-saved.
pub const S5: Register = Register(21);
/// s6, callee-saved.
pub const S6: Register = Register(22);
/// s7, callee-saved.
pub const S7: Register = Register(23);
/// s8, callee-saved.
pub const S8: Register = Register(24);
/// s9, callee-saved.
pub const S9: Register = Register(25);
/// s10, callee-saved.
pub const S10: Register = Register(26);
/// s11, callee-saved.
pub const S11: Register = Register(27);
/// t3.
pub const T3: Register = Register(28);
/// t4.
pub const T4: Register = Register(29);
/// t5.
pub const T5: Register = Register(30);
/// t6.
pub const T6: Register = Register(31);

register_set! {
    /// Values of the general registers and the pc, each known or unknown.
    ///
    /// `Default` knows nothing; a walk needs at least the pc and [`SP`]. The set holds registers
    /// with numbers below [`Registers::COUNT`]; unwinding needs no other.
    ///
    /// ```
    /// use unwind_arch_riscv::{Registers, S1};
    /// use unwind_core::{RegisterFile, UserRegisters};
    ///
    /// let registers = Registers::new(0x40_1000, 0x3f_ffff_e000, 0, 0x40_2000).with(S1, 5);
    /// assert_eq!(registers.ip(), Some(0x40_1000));
    /// assert_eq!(registers.get(S1), Some(5));
    /// assert_eq!(registers.get(unwind_arch_riscv::S2), None);
    /// ```
    pub struct Registers { count: 32, ip: None }
}

impl Registers {
    /// The registers of a plain walk: pc, sp, s0 and ra. More can be added by
    /// [`with`](Registers::with).
    pub fn new(ip: u64, sp: u64, fp: u64, ra: u64) -> Self {
        Registers::default().with_ip(ip).with(SP, sp).with(S0, fp).with(RA, ra)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::{RegisterFile, StartError, Unwinder, UserRegisters};

    use super::*;
    use crate::Riscv;

    fn known(registers: &Registers) -> Vec<u16> {
        (0..=u16::MAX).filter(|number| registers.get(Register(*number)).is_some()).collect()
    }

    #[test]
    fn what_was_not_said_is_unknown() {
        assert_eq!(known(&Registers::default()), []);
        assert_eq!(Registers::default().ip(), None);
        let registers = Registers::new(1, 2, 3, 4);
        assert_eq!(known(&registers), [1, 2, 8]);
        assert_eq!(registers.ip(), Some(1));
        assert_eq!((registers.get(SP), registers.get(S0), registers.get(RA)), (Some(2), Some(3), Some(4)));
        assert_eq!(known(&registers.with(A0, 0).without(SP)), [1, 8, 10]);
        assert_eq!(Registers::default().with_ip(9).ip(), Some(9));
    }

    #[test]
    fn a_kernel_thread_is_refused() {
        for arch in [Riscv::new(), Riscv::rv32()] {
            let unwinder = Unwinder::new(arch, ());
            let start = |registers| unwinder.start(&registers).map(|state| state.ip());
            assert_eq!(start(Registers::absent()), Err(StartError::NoUserRegisters));
            assert_eq!(start(Registers::default()), Err(StartError::NoInstructionPointer));
            assert_eq!(start(Registers::default().with_ip(1)), Err(StartError::NoStackPointer));
            assert_eq!(start(Registers::default().with_ip(1).with(SP, 2)), Ok(1));
        }
    }
}
