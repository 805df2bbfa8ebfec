//! DWARF register numbers, and the registers at which a walk starts.
//!
//! Numbers: those of the general registers are their own. No ABI document has the others; GCC
//! (`gcc/config/mips/mips.h`, "Register numbers"), binutils and LLVM agree on 32 to 63 for $f0 to $f31
//! and 64 and 65 for hi and lo. The program counter has none.

use unwind_core::{Register, register_set};

/// $0: always 0.
pub const ZERO: Register = Register(0);
/// $1: the assembler's.
pub const AT: Register = Register(1);
/// $2.
pub const V0: Register = Register(2);
/// $3.
pub const V1: Register = Register(3);
/// $4.
pub const A0: Register = Register(4);
/// $5.
pub const A1: Register = Register(5);
/// $6.
pub const A2: Register = Register(6);
/// $7.
pub const A3: Register = Register(7);
/// $8: t0 under o32, a4 under n32 and n64.
pub const R8: Register = Register(8);
/// $9: t1 under o32, a5 under n32 and n64.
pub const R9: Register = Register(9);
/// $10: t2 under o32, a6 under n32 and n64.
pub const R10: Register = Register(10);
/// $11: t3 under o32, a7 under n32 and n64.
pub const R11: Register = Register(11);
/// $12: t4 under o32, t0 under n32 and n64.
pub const R12: Register = Register(12);
/// $13: t5 under o32, t1 under n32 and n64.
pub const R13: Register = Register(13);
/// $14: t6 under o32, t2 under n32 and n64.
pub const R14: Register = Register(14);
/// $15: t7 under o32, t3 under n32 and n64.
pub const R15: Register = Register(15);
/// $16, callee-saved.
pub const S0: Register = Register(16);
/// $17, callee-saved.
pub const S1: Register = Register(17);
/// $18, callee-saved.
pub const S2: Register = Register(18);
/// $19, callee-saved.
pub const S3: Register = Register(19);
/// $20, callee-saved.
pub const S4: Register = Register(20);
/// $21, callee-saved.
pub const S5: Register = Register(21);
/// $22, callee-saved.
pub const S6: Register = Register(22);
/// $23, callee-saved.
pub const S7: Register = Register(23);
/// $24.
pub const T8: Register = Register(24);
/// $25: the address of the called function, in position-independent code.
pub const T9: Register = Register(25);
/// $26: the kernel's.
pub const K0: Register = Register(26);
/// $27: the kernel's.
pub const K1: Register = Register(27);
/// $28: the global pointer, callee-saved but under o32.
pub const GP: Register = Register(28);
/// $29, the stack pointer.
pub const SP: Register = Register(29);
/// $30 (fp), callee-saved: the lower end of the frame, where a function keeps it.
pub const S8: Register = Register(30);
/// $31: the link register, which holds the return address at function entry.
pub const RA: Register = Register(31);

register_set! {
    /// Values of the general registers and the pc, each known or unknown.
    ///
    /// `Default` knows nothing; a walk needs at least the pc and [`SP`]. The set holds registers
    /// with numbers below [`Registers::COUNT`]; unwinding needs no other.
    ///
    /// ```
    /// use unwind_arch_mips::{RA, Registers, S0};
    /// use unwind_core::{RegisterFile, UserRegisters};
    ///
    /// let registers = Registers::new(0x40_1000, 0x7fff_e000, 0x40_2000).with(S0, 5);
    /// assert_eq!((registers.ip(), registers.get(RA)), (Some(0x40_1000), Some(0x40_2000)));
    /// assert_eq!(registers.get(S0), Some(5));
    /// assert_eq!(registers.get(unwind_arch_mips::S1), None);
    /// ```
    pub struct Registers { count: 32, ip: None }
}

impl Registers {
    /// The registers of a plain walk: pc, sp and $31. More can be added by [`with`](Registers::with):
    /// $30, which tables base the CFA on where functions have variable frames.
    pub fn new(ip: u64, sp: u64, ra: u64) -> Self {
        Registers::default().with_ip(ip).with(SP, sp).with(RA, ra)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::{ByteOrder, RegisterFile, StartError, Unwinder, UserRegisters};

    use super::*;
    use crate::{Abi, Mips};

    fn known(registers: &Registers) -> Vec<u16> {
        (0..=u16::MAX).filter(|number| registers.get(Register(*number)).is_some()).collect()
    }

    #[test]
    fn what_was_not_said_is_unknown() {
        assert_eq!(known(&Registers::default()), []);
        assert_eq!(Registers::default().ip(), None);
        let registers = Registers::new(1, 2, 3);
        assert_eq!(known(&registers), [29, 31]);
        assert_eq!(registers.ip(), Some(1));
        assert_eq!((registers.get(SP), registers.get(RA)), (Some(2), Some(3)));
        assert_eq!(known(&registers.with(V0, 0).without(SP)), [2, 31]);
        assert_eq!(Registers::default().with_ip(9).ip(), Some(9));
    }

    #[test]
    fn a_kernel_thread_is_refused() {
        for abi in [Abi::O32, Abi::N32, Abi::N64] {
            let unwinder = Unwinder::new(Mips::new(abi, ByteOrder::Big), ());
            let start = |registers| unwinder.start(&registers).map(|state| state.ip());
            assert_eq!(start(Registers::absent()), Err(StartError::NoUserRegisters));
            assert_eq!(start(Registers::default()), Err(StartError::NoInstructionPointer));
            assert_eq!(start(Registers::default().with_ip(4)), Err(StartError::NoStackPointer));
            // A pc of microMIPS code.
            assert_eq!(start(Registers::default().with_ip(5).with(SP, 2)), Ok(4));
        }
    }
}
