//! The calling thread's own registers. Only where the host is AArch64.

use unwind_core::ByteOrder;

use crate::{Aarch64, PC, Registers, SP, X19, X20, X21, X22, X23, X24, X25, X26, X27, X28, X29, X30};

impl Aarch64 {
    /// The architecture of the program that this is compiled into: its byte order, and the pointer
    /// authentication mask of the machine that it runs on.
    #[allow(unsafe_code, reason = "the mask is known to the processor only")]
    pub fn host() -> Self {
        const ONES: u64 = !(1 << 55);
        let stripped: u64;
        // SAFETY: xpaclri takes the authentication code off the pointer in x30, which is declared
        // as changed, and does nothing else. Processors without it take it for a nop: it is one
        // of the hints.
        unsafe {
            core::arch::asm!(
                "xpaclri",
                inout("x30") ONES => stripped,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        let order = if cfg!(target_endian = "big") { ByteOrder::Big } else { ByteOrder::Little };
        Aarch64::new().with_byte_order(order).with_pac_mask(ONES & !stripped)
    }
}

/// Calls `walk` with the registers of the calling thread: pc, sp, x30 and the callee-saved ones, as
/// they are at one instruction inside this call. All others are unknown.
///
/// A closure, because registers describe a stack only as long as the frame lives that they were
/// read in: values that a function returned would have the stack pointer of a frame that is gone,
/// and whatever is called next would overwrite its return address. Here that frame waits for
/// `walk` to return. Being inlined, it is the caller's own: a walk begins with the caller at the
/// place of this call. (Where the compiler does not inline it, there is one frame more.)
///
/// ```
/// use unwind_core::UserRegisters;
///
/// let ip = unwind_arch_aarch64::with_registers(|registers| registers.ip());
/// assert!(ip.is_some());
/// ```
#[inline(always)]
#[allow(unsafe_code, reason = "registers can be read by assembly only")]
pub fn with_registers<T>(walk: impl FnOnce(&Registers) -> T) -> T {
    let mut values = [0u64; 14];
    // SAFETY:
    // * The only memory that is written are the 112 bytes from x9 on, which are `values`: a live,
    //   exclusively borrowed local of this size. Nothing is read from memory.
    // * The only registers that are changed are x10 and x11, which are declared. The others are
    //   read, not changed, whatever the compiler keeps in them; for that reason the operands are
    //   in scratch registers by name, so that none of those read is one.
    // * None of the instructions changes a flag, and nothing is pushed: preserves_flags, nostack.
    //   There is no jump; control leaves at the end.
    unsafe {
        core::arch::asm!(
            "adr x10, .",
            "mov x11, sp",
            "stp x10, x11, [x9]",
            "stp x19, x20, [x9, #16]",
            "stp x21, x22, [x9, #32]",
            "stp x23, x24, [x9, #48]",
            "stp x25, x26, [x9, #64]",
            "stp x27, x28, [x9, #80]",
            "stp x29, x30, [x9, #96]",
            in("x9") values.as_mut_ptr(),
            out("x10") _,
            out("x11") _,
            options(nostack, preserves_flags),
        );
    }
    let registers = [PC, SP, X19, X20, X21, X22, X23, X24, X25, X26, X27, X28, X29, X30];
    walk(&Registers::from_dwarf(registers.into_iter().zip(values)))
}

#[cfg(test)]
#[allow(unsafe_code, reason = "tests: only the processor can sign a pointer")]
mod tests {
    use unwind_core::Arch;

    use super::*;

    #[test]
    fn the_hosts_mask_takes_the_processors_codes_off() {
        let plain = 0x0000_1234_5678_9abc;
        for modifier in 0..64 {
            let (mut a, mut b) = (plain, plain);
            // SAFETY: these sign x17 with x16 for a modifier, which both are declared, and do nothing
            // else; processors without authentication take them for nops.
            unsafe {
                core::arch::asm!("pacia1716", inout("x17") a, in("x16") modifier);
                core::arch::asm!("pacib1716", inout("x17") b, in("x16") modifier);
            }
            assert_eq!(Aarch64::host().strip_code_pointer(a), plain, "{a:#x}");
            assert_eq!(Aarch64::host().strip_code_pointer(b), plain, "{b:#x}");
        }
    }
}
