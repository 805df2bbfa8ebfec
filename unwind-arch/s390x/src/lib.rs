//! s390x (64-bit IBM Z, z/Architecture) for [`unwind_core`]: its conventions, its signal frames, its
//! register sets.
//!
//! Under the ELF ABI's s390x supplement, as Linux uses it: 64-bit addresses, big-endian. Not the
//! 31-bit ABI, whose return addresses carry the addressing mode in their highest bit.
//!
//! ```
//! use unwind_arch_s390x::{Registers, S390x};
//! use unwind_core::{Unwinder, from_fn};
//!
//! // A frame at 0x1000 with a back chain to its caller's at 0x10a0, and in that, 112 bytes above
//! // its beginning, r14 as the callee saved it.
//! let mut stack = [0u64; 60];
//! stack[0] = 0x10a0;
//! stack[20 + 14] = 0x100_1234;
//! let memory = from_fn(|address, into: &mut [u8]| {
//!     let bytes: Vec<u8> = stack.iter().flat_map(|word| word.to_be_bytes()).collect();
//!     let at = address.wrapping_sub(0x1000) as usize;
//!     let found = at.checked_add(into.len()).and_then(|end| bytes.get(at..end));
//!     into.copy_from_slice(found.ok_or(unwind_core::MemoryError::Unreadable { address })?);
//!     Ok(())
//! });
//!
//! // Without any table: the architecture's conventions alone.
//! let registers = Registers::new(0x100_1000, 0x1000, 0, 0);
//! let mut entries = [0; 16];
//! let trace = Unwinder::new(S390x, ()).unwind_user(&registers, memory, &mut entries)?;
//! assert_eq!(entries[..trace.nr], [0x100_1000, 0x100_1234]);
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

/// s390x under the ELF ABI's supplement.
///
/// # The CFA
/// It is 160 bytes above the caller's sp: above the save area that every caller has at the end of its
/// frame, for its callees to store their registers in ("The stack frame" in chapter 1 of the ABI). So
/// r14 of a function that saved it is at CFA - 48.
///
/// # The back chain
/// The ABI has one, but compilers write it only by `-mbackchain`: the first word of a frame is then
/// the address of the caller's frame. At a return pc of such code the rule is right; nothing tells
/// whether code was compiled so, and where it was not the word is whatever the frame keeps there: a
/// zero ends the walk as if it were the chain's end.
/// Nor does the rule know at an exact pc whether the function has its frame yet: where it has not, or
/// never gets one, the word is the caller's and the walk skips the caller; between storing r14 and
/// storing the chain it is unset. With `-mpacked-stack`, which kernels are compiled with, the words
/// are elsewhere. Frame pointers are not restored, because the chain does not say which registers a
/// frame has saved.
///
/// # The frame pointer
/// The ABI has no frame pointer chain: r11, where a function uses it as such, is no more than a copy
/// of sp, and says nothing about the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct S390x;

impl S390x {
    /// This architecture, if the header of an ELF file or core says so: `e_machine` `EM_S390` (22),
    /// `e_ident[EI_CLASS]` `ELFCLASS64` (2), `e_ident[EI_DATA]` `ELFDATA2MSB` (2).
    pub const fn from_elf(e_machine: u16, ei_class: u8, ei_data: u8) -> Option<Self> {
        match (e_machine, ei_class, ei_data) {
            (22, 2, 2) => Some(S390x),
            _ => None,
        }
    }
}

impl Arch for S390x {
    fn name(&self) -> &'static str {
        "s390x"
    }

    #[inline]
    fn word_size(&self) -> WordSize {
        WordSize::Eight
    }

    #[inline]
    fn byte_order(&self) -> ByteOrder {
        ByteOrder::Big
    }

    #[inline]
    fn sp(&self) -> Register {
        R15
    }

    #[inline]
    fn fp(&self) -> Register {
        R11
    }

    #[inline]
    fn ra(&self) -> Register {
        R14
    }

    #[inline]
    fn ip(&self) -> Option<Register> {
        Some(PSWA)
    }

    /// r6 to r13, r15, and f8 to f15 ("Registers" in chapter 1 of the ABI).
    #[inline]
    fn is_callee_saved(&self, register: Register) -> bool {
        matches!(register.0, 6..=13 | 15 | 24..=31)
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
        instruction::rule(code)
    }

    fn signal_trampoline(&self, code: &Code<'_>) -> Option<SignalFrame> {
        signal::trampoline(code)
    }

    #[inline]
    fn sp_bias(&self) -> i32 {
        -160
    }
}

/// Nothing stored, the return address in r14.
#[allow(clippy::panic, reason = "in a constant: it would fail the build, never a walk")]
const ENTRY: UnwindUserFrame = match UnwindUserFrame::leaf(160, R14) {
    Some(frame) => frame,
    None => panic!("r14 fits into a rule"),
};

/// The caller's sp is at sp; r14 was stored 112 bytes above it.
#[allow(clippy::panic, reason = "in a constant: it would fail the build, never a walk")]
const BACK_CHAIN: UnwindUserFrame = match UnwindUserFrame::new(
    CfaRule::Deref { base: Base::Sp, offset: 0, add: 160 },
    RaRule::AtCfa(-48),
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

    #[test]
    fn only_64_bit_big_endian_files_are_for_it() {
        for machine in 0..=u16::MAX {
            for class in 0..4 {
                for data in 0..4 {
                    let ours = (machine, class, data) == (22, 2, 2);
                    assert_eq!(S390x::from_elf(machine, class, data), ours.then_some(S390x));
                }
            }
        }
    }

    #[test]
    fn what_a_function_must_hand_back() {
        // f8 to f15, which are the numbers 24 to 31 in another order.
        let floating = [F8, F9, F10, F11, F12, F13, F14, F15].map(|register| register.0);
        for number in 0..=u16::MAX {
            let general = (6..=13).contains(&number) || number == 15;
            assert_eq!(S390x.is_callee_saved(Register(number)), general || floating.contains(&number));
        }
    }

    #[test]
    fn the_conventions() {
        let entry = S390x.entry_rule();
        assert_eq!(entry.cfa(), CfaRule::Offset { base: Base::Sp, offset: 160 });
        assert_eq!(entry.ra(), RaRule::InRegister { base: Base::Register(Register(14)), offset: 0 });
        assert_eq!((entry.fp(), entry.sp_is_bound()), (FpRule::Unchanged, false));
        let chain = S390x.back_chain_rule();
        let cfa = CfaRule::Deref { base: Base::Sp, offset: 0, add: 160 };
        assert_eq!(chain.map(|frame| frame.cfa()), Some(cfa));
        assert_eq!(chain.map(|frame| frame.ra()), Some(RaRule::AtCfa(-48)));
        assert_eq!(chain.map(|frame| (frame.fp(), frame.sp_is_bound())), Some((FpRule::Undefined, false)));
        assert_eq!(S390x.frame_pointer_rule(), None);
        assert_eq!((S390x.sp(), S390x.fp(), S390x.ra()), (Register(15), Register(11), Register(14)));
        assert_eq!((S390x.ip(), S390x.sp_bias()), (Some(Register(65)), -160));
        for pointer in [0, 0x3ff_ffff_ffff, 0x8000_0000, 0xffff_8000_0000_0001, u64::MAX] {
            assert_eq!(S390x.strip_code_pointer(pointer), pointer);
        }
    }

    fn memory_of(words: &BTreeMap<u64, u64>) -> impl MemoryReader + '_ {
        from_fn(|address, into: &mut [u8]| {
            let word = words.get(&address).filter(|_| into.len() == 8);
            into.copy_from_slice(&word.ok_or(MemoryError::Unreadable { address })?.to_be_bytes());
            Ok(())
        })
    }

    /// Three functions compiled by `gcc -mbackchain`, as the ABI draws their frames, from the lowest
    /// address: the chain at 0, r6 to r15 as the *callee* saved them at 48 to 120.
    fn stack() -> BTreeMap<u64, u64> {
        let (inner, middle, outer, first) =
            (0x3ff_0000_1000, 0x3ff_0000_10a0, 0x3ff_0000_1180, 0x3ff_0000_1300);
        BTreeMap::from([
            (inner, middle),
            (middle, outer),
            // The inner function's stmg %r14, %r15, 112(%r15), with sp at the middle frame.
            (middle + 112, 0x100_0200),
            (middle + 120, middle),
            (outer, first),
            // The middle function's stmg %r11, %r15, 88(%r15).
            (outer + 88, 0xb0b),
            (outer + 112, 0x100_0300),
            (outer + 120, outer),
            // The frame that the program begins in ends the chain.
            (first, 0),
            (first + 112, 0x100_0400),
        ])
    }

    #[test]
    fn the_back_chain_leads_to_its_end() {
        let words = stack();
        let unwinder = Unwinder::new(S390x, ());
        let registers = Registers::new(0x100_0100, 0x3ff_0000_1000, 0, 0);
        let mut frames = unwinder.frames(&registers, memory_of(&words)).unwrap();
        let found: Vec<Frame> = frames.by_ref().collect();
        assert_eq!(frames.end(), Some(End::Complete(Mark::ZeroBackChain)));
        let at: Vec<(Pc, u64)> = found.iter().map(|frame| (frame.pc, frame.sp)).collect();
        assert_eq!(
            at,
            [
                (Pc::Exact(0x100_0100), 0x3ff_0000_1000),
                (Pc::Return(0x100_0200), 0x3ff_0000_10a0),
                (Pc::Return(0x100_0300), 0x3ff_0000_1180),
                (Pc::Return(0x100_0400), 0x3ff_0000_1300),
            ]
        );
        for frame in &found[1..] {
            assert_eq!(frame.provenance.source, Some(UnwindUserType::BackChain));
            assert_eq!((frame.fp, frame.sp_is_bound), (None, false));
        }
    }
}
