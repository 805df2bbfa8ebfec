//! 64-bit PowerPC (POWER) for [`unwind_core`]: its conventions, its signal frames, its register sets.
//!
//! In either byte order, under ELFv1 ("64-bit PowerPC ELF ABI Supplement") and ELFv2 ("64-Bit ELF V2
//! ABI Specification" of OpenPOWER), as Linux and the BSDs use them: all that unwinding needs is the
//! same in both. Not 32-bit PowerPC.
//!
//! ```
//! use unwind_arch_powerpc64::{Powerpc64, Registers};
//! use unwind_core::{Unwinder, from_fn};
//!
//! // A frame at 0x1000 with a back chain to its caller's at 0x1020, and in that, at 16, the return
//! // address that the callee saved.
//! let stack: [u64; 8] = [0x1020, 0, 0, 0, 0, 0, 0x1000_1234, 0];
//! let memory = from_fn(|address, into: &mut [u8]| {
//!     let bytes: Vec<u8> = stack.iter().flat_map(|word| word.to_le_bytes()).collect();
//!     let at = address.wrapping_sub(0x1000) as usize;
//!     let found = at.checked_add(into.len()).and_then(|end| bytes.get(at..end));
//!     into.copy_from_slice(found.ok_or(unwind_core::MemoryError::Unreadable { address })?);
//!     Ok(())
//! });
//!
//! // Without any table: the architecture's conventions alone.
//! let registers = Registers::new(0x1000_1000, 0x1000, 0, 0);
//! let mut entries = [0; 16];
//! let trace = Unwinder::new(Powerpc64::little_endian(), ()).unwind_user(&registers, memory, &mut entries)?;
//! assert_eq!(entries[..trace.nr], [0x1000_1000, 0x1000_1234]);
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

use unwind_core::{
    Arch, Base, ByteOrder, CfaRule, Code, FpRule, RaRule, Register, SignalFrame, UnwindUserFrame, WordSize,
};

pub use registers::*;

/// 64-bit PowerPC, with its byte order.
///
/// # The back chain
/// Both ABIs demand it: the word at r1 is, at every instruction, the address of the caller's frame, and
/// a function that calls others has its return address at 16 in that ("The Stack Frame" in chapter 2 of
/// ELFv2, section 3.2.2 of ELFv1). So it is right at every return pc, whatever the compiler and its
/// options, and serves as what a frame pointer is elsewhere. At an exact pc it cannot know whether the
/// function has its frame yet, or ever will (functions that call no others may keep what they need below
/// r1): where it has not, the word is the caller's, and the walk skips the caller; where it has, but the
/// return address is not stored yet, the word at 16 is of an earlier call. r31 and the other
/// callee-saved registers are not restored, because the chain does not say which a frame has saved.
///
/// # The frame pointer
/// The ABIs have none: r31, where a function uses it as such, is no more than a copy of r1, and says
/// nothing that the back chain does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Powerpc64 {
    byte_order: ByteOrder,
}

impl Powerpc64 {
    /// Big-endian, as ELFv1 always is.
    pub const fn big_endian() -> Self {
        Powerpc64 { byte_order: ByteOrder::Big }
    }

    /// Little-endian (ppc64le), which is ELFv2.
    pub const fn little_endian() -> Self {
        Powerpc64 { byte_order: ByteOrder::Little }
    }

    /// This architecture, if the header of an ELF file or core says so: `e_machine` `EM_PPC64` (21),
    /// `e_ident[EI_CLASS]` `ELFCLASS64` (2), `e_ident[EI_DATA]` either order.
    pub const fn from_elf(e_machine: u16, ei_class: u8, ei_data: u8) -> Option<Self> {
        match (e_machine, ei_class, ei_data) {
            (21, 2, 1) => Some(Self::little_endian()),
            (21, 2, 2) => Some(Self::big_endian()),
            _ => None,
        }
    }
}

impl Arch for Powerpc64 {
    fn name(&self) -> &'static str {
        "powerpc64"
    }

    #[inline]
    fn word_size(&self) -> WordSize {
        WordSize::Eight
    }

    #[inline]
    fn byte_order(&self) -> ByteOrder {
        self.byte_order
    }

    #[inline]
    fn sp(&self) -> Register {
        R1
    }

    #[inline]
    fn fp(&self) -> Register {
        R31
    }

    #[inline]
    fn ra(&self) -> Register {
        LR
    }

    #[inline]
    fn ip(&self) -> Option<Register> {
        None
    }

    /// r1, r14 to r31, f14 to f31, cr2 to cr4, v20 to v31 ("Registers" in chapter 2 of ELFv2,
    /// section 3.2.1 of ELFv1).
    #[inline]
    fn is_callee_saved(&self, register: Register) -> bool {
        matches!(register.0, 1 | 14..=31 | 46..=63 | 70..=72 | 97..=108)
    }

    #[inline]
    fn entry_rule(&self) -> UnwindUserFrame {
        ENTRY
    }

    fn frame_pointer_rule(&self) -> Option<UnwindUserFrame> {
        None
    }

    #[inline]
    fn back_chain_rule(&self) -> Option<UnwindUserFrame> {
        Some(BACK_CHAIN)
    }

    fn instruction_rule(&self, code: &Code<'_>) -> Option<UnwindUserFrame> {
        instruction::rule(self.byte_order, code)
    }

    fn signal_trampoline(&self, code: &Code<'_>) -> Option<SignalFrame> {
        signal::trampoline(self.byte_order, code)
    }

    /// The processor ignores the two lowest bits of a branch target in LR (Power ISA, Book I, section
    /// 2.4, "Branch Instructions").
    #[inline]
    fn strip_code_pointer(&self, pointer: u64) -> u64 {
        pointer & !3
    }
}

/// Nothing stored, the return address in LR.
#[allow(clippy::panic, reason = "in a constant: it would fail the build, never a walk")]
const ENTRY: UnwindUserFrame = match UnwindUserFrame::leaf(0, LR) {
    Some(frame) => frame,
    None => panic!("LR fits into a rule"),
};

/// The caller's sp is at sp, and the return address 16 bytes above it.
#[allow(clippy::panic, reason = "in a constant: it would fail the build, never a walk")]
const BACK_CHAIN: UnwindUserFrame = match UnwindUserFrame::new(
    CfaRule::Deref { base: Base::Sp, offset: 0, add: 0 },
    RaRule::AtCfa(16),
    FpRule::Undefined,
) {
    Some(frame) => frame,
    None => panic!("the offsets fit into a rule"),
};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::collections::BTreeMap;
    use std::vec::Vec;

    use unwind_core::{End, Frame, Mark, MemoryError, MemoryReader, Pc, UnwindUserType, Unwinder, from_fn};

    use super::*;

    const BOTH: [Powerpc64; 2] = [Powerpc64::big_endian(), Powerpc64::little_endian()];

    #[test]
    fn only_64_bit_files_are_for_it_in_either_order() {
        for machine in 0..=u16::MAX {
            for class in 0..4 {
                for data in 0..4 {
                    let expected = match (machine, class, data) {
                        (21, 2, 1) => Some(Powerpc64::little_endian()),
                        (21, 2, 2) => Some(Powerpc64::big_endian()),
                        _ => None,
                    };
                    assert_eq!(Powerpc64::from_elf(machine, class, data), expected);
                }
            }
        }
        assert_eq!(BOTH.map(|arch| arch.byte_order()), [ByteOrder::Big, ByteOrder::Little]);
    }

    #[test]
    fn what_a_function_must_hand_back() {
        for arch in BOTH {
            for number in 0..=u16::MAX {
                let general = number == 1 || (14..=31).contains(&number);
                let floating = (32 + 14..=32 + 31).contains(&number);
                let condition = (68 + 2..=68 + 4).contains(&number);
                let vector = (77 + 20..=77 + 31).contains(&number);
                let saved = general || floating || condition || vector;
                assert_eq!(arch.is_callee_saved(Register(number)), saved, "{number}");
            }
        }
    }

    #[test]
    fn the_conventions() {
        for arch in BOTH {
            let entry = arch.entry_rule();
            assert_eq!(entry.cfa(), CfaRule::Offset { base: Base::Sp, offset: 0 });
            assert_eq!(entry.ra(), RaRule::InRegister { base: Base::Register(Register(65)), offset: 0 });
            assert_eq!((entry.fp(), entry.sp_is_bound()), (FpRule::Unchanged, false));
            let chain = arch.back_chain_rule().unwrap();
            assert_eq!(chain.cfa(), CfaRule::Deref { base: Base::Sp, offset: 0, add: 0 });
            assert_eq!((chain.ra(), chain.fp()), (RaRule::AtCfa(16), FpRule::Undefined));
            assert!(!chain.sp_is_bound());
            assert_eq!(arch.frame_pointer_rule(), None);
            assert_eq!((arch.sp(), arch.fp(), arch.ra()), (Register(1), Register(31), Register(65)));
            assert_eq!((arch.ip(), arch.sp_bias()), (None, 0));
        }
    }

    #[test]
    fn two_bits_of_a_return_address_mean_nothing() {
        for arch in BOTH {
            for low in 0..4 {
                assert_eq!(arch.strip_code_pointer(0x7fff_1234_5674 | low), 0x7fff_1234_5674);
                assert_eq!(arch.strip_code_pointer(low), 0);
            }
            assert_eq!(arch.strip_code_pointer(u64::MAX), u64::MAX - 3);
        }
    }

    fn memory_of(arch: Powerpc64, words: &BTreeMap<u64, u64>) -> impl MemoryReader + '_ {
        from_fn(move |address, into: &mut [u8]| {
            let word = words.get(&address).filter(|_| into.len() == 8);
            let word = *word.ok_or(MemoryError::Unreadable { address })?;
            into.copy_from_slice(&match arch.byte_order() {
                ByteOrder::Big => word.to_be_bytes(),
                ByteOrder::Little => word.to_le_bytes(),
            });
            Ok(())
        })
    }

    /// Three functions' frames as the ABIs draw them, the innermost of 32 bytes (the least of ELFv2),
    /// the others larger. The word at 16 is where each frame's *callee* saves LR.
    fn stack() -> BTreeMap<u64, u64> {
        let (inner, middle, outer, first) = (0x7fff_f000, 0x7fff_f020, 0x7fff_f0a0, 0x7fff_f110);
        BTreeMap::from([
            (inner, middle),
            // Of an earlier callee.
            (inner + 16, 0x1000_0999),
            (middle, outer),
            (middle + 16, 0x1000_0200),
            (outer, first),
            (outer + 16, 0x1000_0300),
            // The frame that the program begins in ends the chain.
            (first, 0),
            (first + 16, 0x1000_0400),
        ])
    }

    #[test]
    fn the_back_chain_leads_to_its_end() {
        let words = stack();
        for arch in BOTH {
            let unwinder = Unwinder::new(arch, ());
            let registers = Registers::new(0x1000_0100, 0x7fff_f000, 5, 0x1000_0998);
            let mut frames = unwinder.frames(&registers, memory_of(arch, &words)).unwrap();
            let found: Vec<Frame> = frames.by_ref().collect();
            assert_eq!(frames.end(), Some(End::Complete(Mark::ZeroBackChain)));
            let at: Vec<(Pc, u64)> = found.iter().map(|frame| (frame.pc, frame.sp)).collect();
            assert_eq!(
                at,
                [
                    (Pc::Exact(0x1000_0100), 0x7fff_f000),
                    (Pc::Return(0x1000_0200), 0x7fff_f020),
                    (Pc::Return(0x1000_0300), 0x7fff_f0a0),
                    (Pc::Return(0x1000_0400), 0x7fff_f110),
                ]
            );
            for frame in &found[1..] {
                assert_eq!(frame.provenance.source, Some(UnwindUserType::BackChain));
                assert_eq!((frame.fp, frame.sp_is_bound), (None, false));
            }
        }
    }
}
