//! RISC-V of 32 and 64 bits for [`unwind_core`]: its conventions, its signal frames, its register
//! sets.
//!
//! Under the standard calling conventions (ILP32, LP64 and their floating-point variants) of the
//! "RISC-V ABIs Specification", as Linux and the BSDs use them; little-endian.
//!
//! ```
//! use unwind_arch_riscv::{Registers, Riscv};
//! use unwind_core::{Unwinder, from_fn};
//!
//! // Two frame records, at 0x1000 and 0x1010: the caller's s0, the return address. s0 points behind
//! // the record.
//! let stack: [u64; 4] = [0x1020, 0x40_1234, 0, 0];
//! let memory = from_fn(|address, into: &mut [u8]| {
//!     let bytes: Vec<u8> = stack.iter().flat_map(|word| word.to_le_bytes()).collect();
//!     let at = address.wrapping_sub(0x1000) as usize;
//!     let found = at.checked_add(into.len()).and_then(|end| bytes.get(at..end));
//!     into.copy_from_slice(found.ok_or(unwind_core::MemoryError::Unreadable { address })?);
//!     Ok(())
//! });
//!
//! // Without any table: the architecture's conventions alone.
//! let registers = Registers::new(0x40_1000, 0x1000, 0x1010, 0);
//! let mut entries = [0; 16];
//! let trace = Unwinder::new(Riscv::new(), ()).unwind_user(&registers, memory, &mut entries)?;
//! assert_eq!(entries[..trace.nr], [0x40_1000, 0x40_1234]);
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

/// RISC-V under its standard calling conventions, of 32 or 64 bits.
///
/// # The frame pointer
/// Code that keeps one makes a frame record of the caller's s0 and ra, and lets s0 point right behind
/// it ("RISC-V ABIs Specification", "Frame Pointer Convention"). Two things to know about compilers:
/// * The specification has s0 be the CFA. GCC's variadic functions keep the registers of their
///   arguments between the two, so that s0 is only a lower bound of the caller's sp: the rule says
///   that.
/// * GCC's leaf functions store no ra, and s0 where ra would be. At an exact pc in one of these the
///   rule does not hold; a return pc is never in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Riscv {
    word_size: WordSize,
}

impl Riscv {
    /// RV64.
    pub const fn new() -> Self {
        Riscv { word_size: WordSize::Eight }
    }

    /// RV32.
    pub const fn rv32() -> Self {
        Riscv { word_size: WordSize::Four }
    }

    /// This architecture, if the header of an ELF file or core says so: `e_machine` `EM_RISCV`
    /// (243), `e_ident[EI_CLASS]` `ELFCLASS32` (1) or `ELFCLASS64` (2), `e_ident[EI_DATA]`
    /// `ELFDATA2LSB` (1).
    pub const fn from_elf(e_machine: u16, ei_class: u8, ei_data: u8) -> Option<Self> {
        match (e_machine, ei_class, ei_data) {
            (243, 1, 1) => Some(Self::rv32()),
            (243, 2, 1) => Some(Self::new()),
            _ => None,
        }
    }
}

/// RV64.
impl Default for Riscv {
    fn default() -> Self {
        Self::new()
    }
}

impl Arch for Riscv {
    fn name(&self) -> &'static str {
        match self.word_size {
            WordSize::Four => "riscv32",
            WordSize::Eight => "riscv64",
        }
    }

    #[inline]
    fn word_size(&self) -> WordSize {
        self.word_size
    }

    #[inline]
    fn byte_order(&self) -> ByteOrder {
        ByteOrder::Little
    }

    #[inline]
    fn sp(&self) -> Register {
        SP
    }

    #[inline]
    fn fp(&self) -> Register {
        S0
    }

    #[inline]
    fn ra(&self) -> Register {
        RA
    }

    #[inline]
    fn ip(&self) -> Option<Register> {
        None
    }

    /// sp, s0 to s11 and fs0 to fs11 ("RISC-V ABIs Specification", "Integer Register Convention" and
    /// "Floating-point Register Convention"); gp and tp too, which no function may modify.
    #[inline]
    fn is_callee_saved(&self, register: Register) -> bool {
        matches!(register.0, 2..=4 | 8 | 9 | 18..=27 | 40 | 41 | 50..=59)
    }

    #[inline]
    fn entry_rule(&self) -> UnwindUserFrame {
        ENTRY
    }

    #[inline]
    fn frame_pointer_rule(&self) -> Option<UnwindUserFrame> {
        let (ra, fp) = match self.word_size {
            WordSize::Four => (-4, -8),
            WordSize::Eight => (-8, -16),
        };
        Some(UnwindUserFrame::plain(true, 0, ra, Some(fp)).with_sp_bound())
    }

    fn instruction_rule(&self, code: &Code<'_>) -> Option<UnwindUserFrame> {
        instruction::rule(self.word_size, code)
    }

    fn signal_trampoline(&self, code: &Code<'_>) -> Option<SignalFrame> {
        signal::trampoline(self.word_size, code)
    }
}

/// Nothing pushed, the return address in ra.
#[allow(clippy::panic, reason = "in a constant: it would fail the build, never a walk")]
const ENTRY: UnwindUserFrame = match UnwindUserFrame::leaf(0, RA) {
    Some(frame) => frame,
    None => panic!("ra fits into a rule"),
};

#[cfg(test)]
mod tests {
    use unwind_core::{Base, CfaRule, FpRule, RaRule};

    use super::*;

    #[test]
    fn only_little_endian_files_are_for_it_of_either_class() {
        for machine in 0..=u16::MAX {
            for class in 0..4 {
                for data in 0..4 {
                    let expected = match (machine, class, data) {
                        (243, 1, 1) => Some(Riscv::rv32()),
                        (243, 2, 1) => Some(Riscv::new()),
                        _ => None,
                    };
                    assert_eq!(Riscv::from_elf(machine, class, data), expected);
                }
            }
        }
        assert_eq!(Riscv::default(), Riscv::new());
        for (arch, name, word) in
            [(Riscv::new(), "riscv64", WordSize::Eight), (Riscv::rv32(), "riscv32", WordSize::Four)]
        {
            assert_eq!((arch.name(), arch.word_size(), arch.register_size()), (name, word, word));
        }
    }

    #[test]
    fn what_a_function_must_hand_back() {
        // x2, x8, x9, x18 to x27, f8, f9, f18 to f27; x3 and x4 are never modified.
        let integer = |number| matches!(number, 2 | 3 | 4 | 8 | 9) || (18..28).contains(&number);
        let float = |number| matches!(number, 8 | 9) || (18..28).contains(&number);
        for number in 0..=u16::MAX {
            let saved = if number < 32 { integer(number) } else { number < 64 && float(number % 32) };
            assert_eq!(Riscv::new().is_callee_saved(Register(number)), saved, "{number}");
            assert_eq!(Riscv::rv32().is_callee_saved(Register(number)), saved, "{number}");
        }
    }

    #[test]
    fn the_conventions() {
        for (arch, word) in [(Riscv::new(), 8), (Riscv::rv32(), 4)] {
            let entry = arch.entry_rule();
            assert_eq!(entry.cfa(), CfaRule::Offset { base: Base::Sp, offset: 0 });
            assert_eq!(entry.ra(), RaRule::InRegister { base: Base::Register(Register(1)), offset: 0 });
            assert_eq!((entry.fp(), entry.sp_is_bound()), (FpRule::Unchanged, false));
            let frame = arch.frame_pointer_rule();
            assert_eq!(frame.map(|frame| frame.cfa()), Some(CfaRule::Offset { base: Base::Fp, offset: 0 }));
            assert_eq!(frame.map(|frame| frame.ra()), Some(RaRule::AtCfa(-word)));
            assert_eq!(frame.map(|frame| frame.fp()), Some(FpRule::AtCfa(-2 * word)));
            assert_eq!(frame.map(|frame| frame.sp_is_bound()), Some(true));
            assert_eq!((arch.back_chain_rule(), arch.ip(), arch.sp_bias()), (None, None, 0));
            for pointer in [0, 2, 0x3f_ffff_fffe, u64::MAX] {
                assert_eq!(arch.strip_code_pointer(pointer), pointer);
            }
        }
    }
}
