//! The calling thread's own registers. Only where the host is x86-64.

use crate::{R12, R13, R14, R15, RBP, RBX, RIP, RSP, Registers, X86_64};

impl X86_64 {
    /// The architecture of the program that this is compiled into.
    pub fn host() -> Self {
        X86_64
    }
}

/// Calls `walk` with the registers of the calling thread: %rip, %rsp and the callee-saved ones, as
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
/// let ip = unwind_arch_x86_64::with_registers(|registers| registers.ip());
/// assert!(ip.is_some());
/// ```
#[inline(always)]
#[allow(unsafe_code, reason = "registers can be read by assembly only")]
pub fn with_registers<T>(walk: impl FnOnce(&Registers) -> T) -> T {
    let mut values = [0u64; 8];
    // SAFETY:
    // * The only memory that is written are the 64 bytes from rax on, which are `values`: a live,
    //   exclusively borrowed local of this size. Nothing is read from memory.
    // * The only register that is changed is rcx, which is declared. The others are read, not
    //   changed, whatever the compiler keeps in them; for that reason the inputs are in scratch
    //   registers by name, so that none of those read is an operand.
    // * `lea` and `mov` change no flags, and nothing is pushed: preserves_flags, nostack. There is no
    //   jump; control leaves at the end.
    // * This is compiled for 64-bit pointers alone (`lib.rs`), so that rax holds a whole one.
    unsafe {
        core::arch::asm!(
            "lea rcx, [rip]",
            "mov [rax], rcx",
            "mov [rax + 8], rsp",
            "mov [rax + 16], rbp",
            "mov [rax + 24], rbx",
            "mov [rax + 32], r12",
            "mov [rax + 40], r13",
            "mov [rax + 48], r14",
            "mov [rax + 56], r15",
            in("rax") values.as_mut_ptr(),
            out("rcx") _,
            options(nostack, preserves_flags),
        );
    }
    walk(&Registers::from_dwarf([RIP, RSP, RBP, RBX, R12, R13, R14, R15].into_iter().zip(values)))
}
