//! x86-64 (AMD64) for [`unwind_core`]: its conventions, its signal frames, its register sets.
//!
//! Under the System V ABI with 64-bit pointers (LP64), as Linux, the BSDs and others use it. Not x32,
//! which has 32-bit pointers.
//!
//! ```
//! use unwind_arch_x86_64::{Registers, X86_64};
//! use unwind_core::{Unwinder, from_fn};
//!
//! // Two frames with frame pointers, at 0x1000: the caller's %rbp, the return address.
//! let stack: [u64; 4] = [0x1010, 0x40_1234, 0, 0];
//! let memory = from_fn(|address, into: &mut [u8]| {
//!     let bytes: Vec<u8> = stack.iter().flat_map(|word| word.to_le_bytes()).collect();
//!     let at = address.wrapping_sub(0x1000) as usize;
//!     let found = at.checked_add(into.len()).and_then(|end| bytes.get(at..end));
//!     into.copy_from_slice(found.ok_or(unwind_core::MemoryError::Unreadable { address })?);
//!     Ok(())
//! });
//!
//! // Without any table: the architecture's conventions alone.
//! let registers = Registers::new(0x40_1000, 0x1000, 0x1000);
//! let mut entries = [0; 16];
//! let trace = Unwinder::new(X86_64, ()).unwind_user(&registers, memory, &mut entries)?;
//! assert_eq!(entries[..trace.nr], [0x40_1000, 0x40_1234]);
//! # Ok::<(), unwind_core::StartError>(())
//! ```
//!
//! # Features
//! * `layout` (on by default): register sets from the bytes that Linux gives: ptrace, core notes,
//!   `ucontext_t`, perf.
//! * `capture`: the calling thread's own registers, where the host is x86-64. The only unsafe code.

#![no_std]
#![cfg_attr(not(feature = "capture"), forbid(unsafe_code))]
#![cfg_attr(feature = "capture", deny(unsafe_code))]

#[cfg(all(feature = "capture", target_arch = "x86_64", target_pointer_width = "64"))]
mod capture;
mod instruction;
#[cfg(feature = "layout")]
mod layout;
mod registers;
mod signal;

use unwind_core::{Arch, ByteOrder, Code, Register, SignalFrame, UnwindUserFrame, WordSize};

#[cfg(all(feature = "capture", target_arch = "x86_64", target_pointer_width = "64"))]
pub use capture::with_registers;
pub use registers::*;

/// x86-64 under the System V ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct X86_64;

impl X86_64 {
    /// This architecture, if the header of an ELF file or core says so: `e_machine` `EM_X86_64`
    /// (62), `e_ident[EI_CLASS]` `ELFCLASS64` (2), `e_ident[EI_DATA]` `ELFDATA2LSB` (1).
    pub const fn from_elf(e_machine: u16, ei_class: u8, ei_data: u8) -> Option<Self> {
        match (e_machine, ei_class, ei_data) {
            (62, 2, 1) => Some(X86_64),
            _ => None,
        }
    }
}

impl Arch for X86_64 {
    fn name(&self) -> &'static str {
        "x86_64"
    }

    #[inline]
    fn word_size(&self) -> WordSize {
        WordSize::Eight
    }

    #[inline]
    fn byte_order(&self) -> ByteOrder {
        ByteOrder::Little
    }

    #[inline]
    fn sp(&self) -> Register {
        RSP
    }

    #[inline]
    fn fp(&self) -> Register {
        RBP
    }

    #[inline]
    fn ra(&self) -> Register {
        RIP
    }

    #[inline]
    fn ip(&self) -> Option<Register> {
        Some(RIP)
    }

    #[inline]
    fn is_callee_saved(&self, register: Register) -> bool {
        matches!(register, RBX | RBP | RSP | R12 | R13 | R14 | R15)
    }

    #[inline]
    fn entry_rule(&self) -> UnwindUserFrame {
        UnwindUserFrame::plain(false, 8, -8, None)
    }

    #[inline]
    fn frame_pointer_rule(&self) -> Option<UnwindUserFrame> {
        Some(UnwindUserFrame::plain(true, 16, -8, Some(-16)))
    }

    fn instruction_rule(&self, code: &Code<'_>) -> Option<UnwindUserFrame> {
        instruction::rule(code)
    }

    fn signal_trampoline(&self, code: &Code<'_>) -> Option<SignalFrame> {
        signal::trampoline(code)
    }
}

#[cfg(test)]
mod tests {
    use unwind_core::{Base, CfaRule, FpRule, RaRule};

    use super::*;

    #[test]
    fn only_64_bit_little_endian_files_are_for_it() {
        for machine in 0..=u16::MAX {
            for class in 0..4 {
                for data in 0..4 {
                    let ours = (machine, class, data) == (62, 2, 1);
                    assert_eq!(X86_64::from_elf(machine, class, data), ours.then_some(X86_64));
                }
            }
        }
    }

    #[test]
    fn what_a_function_must_hand_back() {
        // AMD64 psABI, figure 3.4: %rbx, %rsp, %rbp and %r12 to %r15.
        let saved = [3, 6, 7, 12, 13, 14, 15];
        for number in 0..=u16::MAX {
            assert_eq!(X86_64.is_callee_saved(Register(number)), saved.contains(&number));
        }
    }

    #[test]
    fn the_conventions() {
        let entry = X86_64.entry_rule();
        assert_eq!(entry.cfa(), CfaRule::Offset { base: Base::Sp, offset: 8 });
        assert_eq!((entry.ra(), entry.fp()), (RaRule::AtCfa(-8), FpRule::Unchanged));
        let frame = X86_64.frame_pointer_rule();
        assert_eq!(frame.map(|frame| frame.cfa()), Some(CfaRule::Offset { base: Base::Fp, offset: 16 }));
        assert_eq!(frame.map(|frame| frame.ra()), Some(RaRule::AtCfa(-8)));
        assert_eq!(frame.map(|frame| (frame.fp(), frame.sp_is_bound())), Some((FpRule::AtCfa(-16), false)));
        assert_eq!(X86_64.back_chain_rule(), None);
        for pointer in [0, 0x7fff_ffff_ffff, 0xffff_8000_0000_0001, u64::MAX] {
            assert_eq!(X86_64.strip_code_pointer(pointer), pointer);
        }
    }
}
