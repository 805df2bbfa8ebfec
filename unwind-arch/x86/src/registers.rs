//! DWARF register numbers, and the registers at which a walk starts.
//!
//! Numbers: "System V ABI, Intel386 Architecture Processor Supplement", table "DWARF Register Number
//! Mapping", which are those of `.debug_frame` and `.eh_frame` in ELF files. (Darwin's `.eh_frame` has
//! 4 and 5 in each other's place.)

use unwind_core::{Register, register_set};

/// %eax.
pub const EAX: Register = Register(0);
/// %ecx.
pub const ECX: Register = Register(1);
/// %edx.
pub const EDX: Register = Register(2);
/// %ebx, callee-saved.
pub const EBX: Register = Register(3);
/// %esp, the stack pointer.
pub const ESP: Register = Register(4);
/// %ebp, callee-saved: the frame pointer.
pub const EBP: Register = Register(5);
/// %esi, callee-saved.
pub const ESI: Register = Register(6);
/// %edi, callee-saved.
pub const EDI: Register = Register(7);
/// The return address column, which also stands for %eip.
pub const EIP: Register = Register(8);

register_set! {
    /// Values of the general registers and %eip, each known or unknown.
    ///
    /// `Default` knows nothing; a walk needs at least [`EIP`] and [`ESP`]. The set holds registers
    /// with numbers below [`Registers::COUNT`]; unwinding needs no other.
    ///
    /// ```
    /// use unwind_arch_x86::{EBX, Registers};
    /// use unwind_core::{RegisterFile, UserRegisters};
    ///
    /// let registers = Registers::new(0x804_9000, 0xffff_e000, 0).with(EBX, 5);
    /// assert_eq!(registers.ip(), Some(0x804_9000));
    /// assert_eq!(registers.get(EBX), Some(5));
    /// assert_eq!(registers.get(unwind_arch_x86::ESI), None);
    /// ```
    pub struct Registers { count: 9, ip: Some(EIP) }
}

impl Registers {
    /// The three registers of a plain walk: %eip, %esp and %ebp. More can be added by
    /// [`with`](Registers::with).
    pub fn new(ip: u64, sp: u64, fp: u64) -> Self {
        Registers::default().with(EIP, ip).with(ESP, sp).with(EBP, fp)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::{RegisterFile, StartError, Unwinder, UserRegisters};

    use super::*;
    use crate::X86;

    fn known(registers: &Registers) -> Vec<u16> {
        (0..=u16::MAX).filter(|number| registers.get(Register(*number)).is_some()).collect()
    }

    #[test]
    fn what_was_not_said_is_unknown() {
        assert_eq!(known(&Registers::default()), []);
        assert_eq!(Registers::default().ip(), None);
        let registers = Registers::new(1, 2, 3);
        assert_eq!(known(&registers), [4, 5, 8]);
        assert_eq!((registers.ip(), registers.get(EIP)), (Some(1), Some(1)));
        assert_eq!((registers.get(ESP), registers.get(EBP)), (Some(2), Some(3)));
        assert_eq!(known(&registers.with(EAX, 0).without(ESP)), [0, 5, 8]);
        assert_eq!(Registers::default().with_ip(9).ip(), Some(9));
    }

    #[test]
    fn a_kernel_thread_is_refused() {
        let unwinder = Unwinder::new(X86, ());
        let start = |registers| unwinder.start(&registers).map(|state| state.ip());
        assert_eq!(start(Registers::absent()), Err(StartError::NoUserRegisters));
        assert_eq!(start(Registers::default()), Err(StartError::NoInstructionPointer));
        assert_eq!(start(Registers::default().with_ip(1)), Err(StartError::NoStackPointer));
        assert_eq!(start(Registers::default().with_ip(1).with(ESP, 2)), Ok(1));
    }
}
