//! 64-bit LoongArch for [`unwind_core`]: its conventions, its signal frames, its register sets.
//!
//! Under the LoongArch ELF psABI with 64-bit pointers (LP64, with any floating point ABI), as Linux
//! uses it: little-endian. Not LA32.
//!
//! ```
//! use unwind_arch_loongarch64::{Loongarch64, Registers};
//! use unwind_core::{Unwinder, from_fn};
//!
//! // A frame below 0x1010, which fp points to: the caller's fp at -16, the return address at -8.
//! let stack: [u64; 4] = [0x1020, 0x1_2000_1234, 0, 0];
//! let memory = from_fn(|address, into: &mut [u8]| {
//!     let bytes: Vec<u8> = stack.iter().flat_map(|word| word.to_le_bytes()).collect();
//!     let at = address.wrapping_sub(0x1000) as usize;
//!     let found = at.checked_add(into.len()).and_then(|end| bytes.get(at..end));
//!     into.copy_from_slice(found.ok_or(unwind_core::MemoryError::Unreadable { address })?);
//!     Ok(())
//! });
//!
//! // Without any table: the architecture's conventions alone.
//! let registers = Registers::new(0x1_2000_1000, 0x1000, 0x1010, 0);
//! let mut entries = [0; 16];
//! let trace = Unwinder::new(Loongarch64, ()).unwind_user(&registers, memory, &mut entries)?;
//! assert_eq!(entries[..trace.nr], [0x1_2000_1000, 0x1_2000_1234]);
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

/// 64-bit LoongArch under the ELF psABI.
///
/// # The frame pointer
/// fp is the caller's sp, with the return address 8 bytes below it and the caller's fp 16 bytes below
/// it ("DWARF for the LoongArch Architecture", section "CFA"), in code compiled by
/// `-fno-omit-frame-pointer`, and in functions whose frame has no fixed size. A function that calls no
/// other saves fp alone, in the upper word: in such a one, which only an exact pc can be in, the rule
/// takes the caller's fp for the return address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Loongarch64;

impl Loongarch64 {
    /// This architecture, if the header of an ELF file or core says so: `e_machine` `EM_LOONGARCH`
    /// (258), `e_ident[EI_CLASS]` `ELFCLASS64` (2), `e_ident[EI_DATA]` `ELFDATA2LSB` (1).
    pub const fn from_elf(e_machine: u16, ei_class: u8, ei_data: u8) -> Option<Self> {
        match (e_machine, ei_class, ei_data) {
            (258, 2, 1) => Some(Loongarch64),
            _ => None,
        }
    }
}

impl Arch for Loongarch64 {
    fn name(&self) -> &'static str {
        "loongarch64"
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
        SP
    }

    #[inline]
    fn fp(&self) -> Register {
        FP
    }

    #[inline]
    fn ra(&self) -> Register {
        RA
    }

    #[inline]
    fn ip(&self) -> Option<Register> {
        None
    }

    /// sp, fp, s0 to s8, fs0 to fs7 ("Procedure Call Standard for the LoongArch Architecture", sections
    /// "General-purpose Registers" and "Floating-point Registers": the static ones).
    #[inline]
    fn is_callee_saved(&self, register: Register) -> bool {
        matches!(register.0, 3 | 22..=31 | 56..=63)
    }

    #[inline]
    fn entry_rule(&self) -> UnwindUserFrame {
        ENTRY
    }

    #[inline]
    fn frame_pointer_rule(&self) -> Option<UnwindUserFrame> {
        Some(UnwindUserFrame::plain(true, 0, -8, Some(-16)))
    }

    fn instruction_rule(&self, code: &Code<'_>) -> Option<UnwindUserFrame> {
        instruction::rule(code)
    }

    fn signal_trampoline(&self, code: &Code<'_>) -> Option<SignalFrame> {
        signal::trampoline(code)
    }
}

/// Nothing stored, the return address in ra.
#[allow(clippy::panic, reason = "in a constant: it would fail the build, never a walk")]
const ENTRY: UnwindUserFrame = match UnwindUserFrame::leaf(0, RA) {
    Some(frame) => frame,
    None => panic!("ra fits into a rule"),
};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::collections::BTreeMap;
    use std::vec::Vec;

    use unwind_core::{
        Base, CfaRule, End, FpRule, Frame, Mark, MemoryError, Pc, RaRule, UnwindUserType, Unwinder, from_fn,
    };

    use super::*;

    #[test]
    fn only_64_bit_little_endian_files_are_for_it() {
        for machine in 0..=u16::MAX {
            for class in 0..4 {
                for data in 0..4 {
                    let ours = (machine, class, data) == (258, 2, 1);
                    assert_eq!(Loongarch64::from_elf(machine, class, data), ours.then_some(Loongarch64));
                }
            }
        }
    }

    #[test]
    fn what_a_function_must_hand_back() {
        let fs = [24, 25, 26, 27, 28, 29, 30, 31].map(|number| 32 + number);
        for number in 0..=u16::MAX {
            let saved = number == 3 || (22..=31).contains(&number) || fs.contains(&number);
            assert_eq!(Loongarch64.is_callee_saved(Register(number)), saved);
        }
    }

    #[test]
    fn the_conventions() {
        let arch = Loongarch64;
        let entry = arch.entry_rule();
        assert_eq!(entry.cfa(), CfaRule::Offset { base: Base::Sp, offset: 0 });
        assert_eq!(entry.ra(), RaRule::InRegister { base: Base::Register(Register(1)), offset: 0 });
        assert_eq!((entry.fp(), entry.sp_is_bound()), (FpRule::Unchanged, false));
        let frame = arch.frame_pointer_rule().unwrap();
        assert_eq!(frame.cfa(), CfaRule::Offset { base: Base::Fp, offset: 0 });
        assert_eq!((frame.ra(), frame.fp()), (RaRule::AtCfa(-8), FpRule::AtCfa(-16)));
        assert!(!frame.sp_is_bound());
        assert_eq!(arch.back_chain_rule(), None);
        assert_eq!((arch.sp(), arch.fp(), arch.ra()), (Register(3), Register(22), Register(1)));
        assert_eq!((arch.ip(), arch.sp_bias()), (None, 0));
        for pointer in [0, 0x7fff_ffff_fffc, 0x9000_0000_0000_0000, u64::MAX] {
            assert_eq!(arch.strip_code_pointer(pointer), pointer);
        }
    }

    /// Three frames as `gcc -fno-omit-frame-pointer` makes them: of 32, 240 and 16 bytes.
    #[test]
    fn the_frame_pointer_chain_leads_to_its_end() {
        let inner = 0x7fff_f000;
        let (middle, outer, first) = (inner + 32, inner + 32 + 240, inner + 32 + 240 + 16);
        let words = BTreeMap::from([
            (middle - 16, outer),
            (middle - 8, 0x1_2000_0200),
            (outer - 16, first),
            (outer - 8, 0x1_2000_0300),
            // The program's first function was entered with fp = 0.
            (first - 16, 0),
            (first - 8, 0x1_2000_0400),
        ]);
        let memory = from_fn(|address: u64, into: &mut [u8]| {
            let word: Option<&u64> = words.get(&address).filter(|_| into.len() == 8);
            into.copy_from_slice(&word.ok_or(MemoryError::Unreadable { address })?.to_le_bytes());
            Ok(())
        });
        let unwinder = Unwinder::new(Loongarch64, ());
        let registers = Registers::new(0x1_2000_0100, inner, middle, 0);
        let mut frames = unwinder.frames(&registers, memory).unwrap();
        let found: Vec<Frame> = frames.by_ref().collect();
        assert_eq!(frames.end(), Some(End::Complete(Mark::ZeroFramePointer)));
        let at: Vec<_> = found.iter().map(|frame| (frame.pc, frame.sp, frame.fp)).collect();
        assert_eq!(
            at,
            [
                (Pc::Exact(0x1_2000_0100), inner, Some(middle)),
                (Pc::Return(0x1_2000_0200), middle, Some(outer)),
                (Pc::Return(0x1_2000_0300), outer, Some(first)),
                (Pc::Return(0x1_2000_0400), first, Some(0)),
            ]
        );
        for frame in &found[1..] {
            assert_eq!(frame.provenance.source, Some(UnwindUserType::FramePointer));
        }
    }
}
