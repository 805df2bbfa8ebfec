//! i386 (32-bit x86) for [`unwind_core`]: its conventions, its signal frames, its register sets.
//!
//! Under the System V ABI, as Linux, the BSDs and others use it; also for 32-bit processes of a 64-bit
//! system.
//!
//! ```
//! use unwind_arch_x86::{Registers, X86};
//! use unwind_core::{Unwinder, from_fn};
//!
//! // Two frames with frame pointers, at 0x1000: the caller's %ebp, the return address.
//! let stack: [u32; 4] = [0x1008, 0x804_9234, 0, 0];
//! let memory = from_fn(|address, into: &mut [u8]| {
//!     let bytes: Vec<u8> = stack.iter().flat_map(|word| word.to_le_bytes()).collect();
//!     let at = address.wrapping_sub(0x1000) as usize;
//!     let found = at.checked_add(into.len()).and_then(|end| bytes.get(at..end));
//!     into.copy_from_slice(found.ok_or(unwind_core::MemoryError::Unreadable { address })?);
//!     Ok(())
//! });
//!
//! // Without any table: the architecture's conventions alone.
//! let registers = Registers::new(0x804_9000, 0x1000, 0x1000);
//! let mut entries = [0; 16];
//! let trace = Unwinder::new(X86, ()).unwind_user(&registers, memory, &mut entries)?;
//! assert_eq!(entries[..trace.nr], [0x804_9000, 0x804_9234]);
//! # Ok::<(), unwind_core::StartError>(())
//! ```
//!
//! # Features
//! * `layout` (on by default): register sets from the bytes that Linux gives: ptrace, core notes,
//!   `ucontext_t`, perf.

#![no_std]
#![forbid(unsafe_code)]

mod instruction;
#[cfg(feature = "layout")]
mod layout;
mod registers;
mod signal;

use unwind_core::{Arch, ByteOrder, Code, Register, SignalFrame, UnwindUserFrame, WordSize};

pub use registers::*;

/// i386 under the System V ABI.
///
/// # The frame pointer
/// Functions that realign their stack (GCC's `main` is one) push a copy of the return address before
/// %ebp, and 8 bytes above that %ebp is not where the caller's stack is: the rule says that its CFA is
/// only a lower bound of the caller's sp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct X86;

impl X86 {
    /// This architecture, if the header of an ELF file or core says so: `e_machine` `EM_386`
    /// (3), `e_ident[EI_CLASS]` `ELFCLASS32` (1), `e_ident[EI_DATA]` `ELFDATA2LSB` (1).
    pub const fn from_elf(e_machine: u16, ei_class: u8, ei_data: u8) -> Option<Self> {
        match (e_machine, ei_class, ei_data) {
            (3, 1, 1) => Some(X86),
            _ => None,
        }
    }
}

impl Arch for X86 {
    fn name(&self) -> &'static str {
        "x86"
    }

    #[inline]
    fn word_size(&self) -> WordSize {
        WordSize::Four
    }

    #[inline]
    fn byte_order(&self) -> ByteOrder {
        ByteOrder::Little
    }

    #[inline]
    fn sp(&self) -> Register {
        ESP
    }

    #[inline]
    fn fp(&self) -> Register {
        EBP
    }

    #[inline]
    fn ra(&self) -> Register {
        EIP
    }

    #[inline]
    fn ip(&self) -> Option<Register> {
        Some(EIP)
    }

    /// %ebx, %esp, %ebp, %esi and %edi ("System V ABI, Intel386 Architecture Processor Supplement",
    /// section "Registers").
    #[inline]
    fn is_callee_saved(&self, register: Register) -> bool {
        matches!(register, EBX | ESP | EBP | ESI | EDI)
    }

    #[inline]
    fn entry_rule(&self) -> UnwindUserFrame {
        UnwindUserFrame::plain(false, 4, -4, None)
    }

    #[inline]
    fn frame_pointer_rule(&self) -> Option<UnwindUserFrame> {
        Some(UnwindUserFrame::plain(true, 8, -4, Some(-8)).with_sp_bound())
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
    fn only_32_bit_little_endian_files_are_for_it() {
        for machine in 0..=u16::MAX {
            for class in 0..4 {
                for data in 0..4 {
                    let ours = (machine, class, data) == (3, 1, 1);
                    assert_eq!(X86::from_elf(machine, class, data), ours.then_some(X86));
                }
            }
        }
        assert_eq!(
            (X86.name(), X86.word_size(), X86.register_size()),
            ("x86", WordSize::Four, WordSize::Four)
        );
    }

    #[test]
    fn what_a_function_must_hand_back() {
        let saved = [3, 4, 5, 6, 7];
        for number in 0..=u16::MAX {
            assert_eq!(X86.is_callee_saved(Register(number)), saved.contains(&number));
        }
    }

    #[test]
    fn the_conventions() {
        let entry = X86.entry_rule();
        assert_eq!(entry.cfa(), CfaRule::Offset { base: Base::Sp, offset: 4 });
        assert_eq!((entry.ra(), entry.fp()), (RaRule::AtCfa(-4), FpRule::Unchanged));
        let frame = X86.frame_pointer_rule();
        assert_eq!(frame.map(|frame| frame.cfa()), Some(CfaRule::Offset { base: Base::Fp, offset: 8 }));
        assert_eq!(frame.map(|frame| frame.ra()), Some(RaRule::AtCfa(-4)));
        assert_eq!(frame.map(|frame| (frame.fp(), frame.sp_is_bound())), Some((FpRule::AtCfa(-8), true)));
        assert_eq!(X86.back_chain_rule(), None);
        for pointer in [0, 0x804_9001, 0xffff_ffff] {
            assert_eq!(X86.strip_code_pointer(pointer), pointer);
        }
    }
}
