//! DWARF register numbers, and the registers at which a walk starts.
//!
//! Numbers: "System V ABI, AMD64 Architecture Processor Supplement", figure 3.36 (DWARF Register
//! Number Mapping).

use unwind_core::{Register, register_set};

/// %rax.
pub const RAX: Register = Register(0);
/// %rdx: not in the order of the instruction encoding.
pub const RDX: Register = Register(1);
/// %rcx.
pub const RCX: Register = Register(2);
/// %rbx, callee-saved.
pub const RBX: Register = Register(3);
/// %rsi.
pub const RSI: Register = Register(4);
/// %rdi.
pub const RDI: Register = Register(5);
/// %rbp, callee-saved: the frame pointer.
pub const RBP: Register = Register(6);
/// %rsp, the stack pointer.
pub const RSP: Register = Register(7);
/// %r8.
pub const R8: Register = Register(8);
/// %r9.
pub const R9: Register = Register(9);
/// %r10.
pub const R10: Register = Register(10);
/// %r11.
pub const R11: Register = Register(11);
/// %r12, callee-saved.
pub const R12: Register = Register(12);
/// %r13, callee-saved.
pub const R13: Register = Register(13);
/// %r14, callee-saved.
pub const R14: Register = Register(14);
/// %r15, callee-saved.
pub const R15: Register = Register(15);
/// The return address column, which also stands for %rip.
pub const RIP: Register = Register(16);

register_set! {
    /// Values of the general registers and %rip, each known or unknown.
    ///
    /// `Default` knows nothing; a walk needs at least [`RIP`] and [`RSP`]. The set holds registers
    /// with numbers below [`Registers::COUNT`]; unwinding needs no other.
    ///
    /// ```
    /// use unwind_arch_x86_64::{R12, Registers};
    /// use unwind_core::{RegisterFile, UserRegisters};
    ///
    /// let registers = Registers::new(0x40_1000, 0x7fff_ffff_e000, 0).with(R12, 5);
    /// assert_eq!(registers.ip(), Some(0x40_1000));
    /// assert_eq!(registers.get(R12), Some(5));
    /// assert_eq!(registers.get(unwind_arch_x86_64::RBX), None);
    /// ```
    pub struct Registers { count: 17, ip: Some(RIP) }
}

impl Registers {
    /// The three registers of a plain walk: %rip, %rsp and %rbp. More can be added by
    /// [`with`](Registers::with).
    pub fn new(ip: u64, sp: u64, fp: u64) -> Self {
        Registers::default().with(RIP, ip).with(RSP, sp).with(RBP, fp)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::{RegisterFile, StartError, Unwinder, UserRegisters};

    use super::*;
    use crate::X86_64;

    fn known(registers: &Registers) -> Vec<u16> {
        (0..=u16::MAX).filter(|number| registers.get(Register(*number)).is_some()).collect()
    }

    #[test]
    fn what_was_not_said_is_unknown() {
        assert_eq!(known(&Registers::default()), []);
        assert_eq!(Registers::default().ip(), None);
        let registers = Registers::new(1, 2, 3);
        assert_eq!(known(&registers), [6, 7, 16]);
        assert_eq!((registers.ip(), registers.get(RIP)), (Some(1), Some(1)));
        assert_eq!((registers.get(RSP), registers.get(RBP)), (Some(2), Some(3)));
        assert_eq!(known(&registers.with(RAX, 0).without(RSP)), [0, 6, 16]);
        assert_eq!(Registers::default().with_ip(9).ip(), Some(9));
    }

    #[test]
    fn a_kernel_thread_is_refused() {
        let unwinder = Unwinder::new(X86_64, ());
        let start = |registers| unwinder.start(&registers).map(|state| state.ip());
        assert_eq!(start(Registers::absent()), Err(StartError::NoUserRegisters));
        assert_eq!(start(Registers::default()), Err(StartError::NoInstructionPointer));
        assert_eq!(start(Registers::default().with_ip(1)), Err(StartError::NoStackPointer));
        assert_eq!(start(Registers::default().with_ip(1).with(RSP, 2)), Ok(1));
    }
}
