//! 32-bit Arm (A32 and T32 code) for [`unwind_core`]: its conventions, its signal frames, its register
//! sets.
//!
//! Under the "Procedure Call Standard for the Arm Architecture" (AAPCS32), as Linux and others use it;
//! either byte order. Also for 32-bit processes of an AArch64 system.
//!
//! ```
//! use unwind_arch_arm::{Arm, Registers};
//! use unwind_core::{Unwinder, from_fn};
//!
//! // Two frames as GCC makes them in A32 code, at 0x1000: the caller's fp, the return address. fp
//! // points at the latter.
//! let stack: [u32; 4] = [0x100c, 0x1_0234, 0, 0];
//! let memory = from_fn(|address, into: &mut [u8]| {
//!     let bytes: Vec<u8> = stack.iter().flat_map(|word| word.to_le_bytes()).collect();
//!     let at = address.wrapping_sub(0x1000) as usize;
//!     let found = at.checked_add(into.len()).and_then(|end| bytes.get(at..end));
//!     into.copy_from_slice(found.ok_or(unwind_core::MemoryError::Unreadable { address })?);
//!     Ok(())
//! });
//!
//! // Without any table: the architecture's conventions alone.
//! let registers = Registers::new(0x1_0000, 0x1000, 0x1004, 0);
//! let mut entries = [0; 16];
//! let trace = Unwinder::new(Arm::new(), ()).unwind_user(&registers, memory, &mut entries)?;
//! assert_eq!(entries[..trace.nr], [0x1_0000, 0x1_0234]);
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

/// 32-bit Arm under AAPCS32, with the byte order of its data and the convention of its frame pointers.
///
/// # Byte order
/// Code of big-endian programs is little-endian since Armv6 (BE8), which is taken for granted here, and
/// big-endian before (BE32): see [`with_code_order`](Arm::with_code_order). Only signal trampolines are
/// looked for in both orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arm {
    byte_order: ByteOrder,
    code_order: ByteOrder,
    frame_pointer: FramePointer,
}

/// What a frame pointer points at. Compilers agree neither with each other nor with themselves.
///
/// The one that does not hold leads astray, and nothing but the checks of the step notices: choose
/// [`FramePointer::None`] where it is not known, and where code is T32 code of GCC, whose r7 is only
/// the lower end of a frame.
///
/// In leaf functions GCC stores fp alone, where it otherwise stores lr. At an exact pc in one of these
/// no convention holds; a return pc is never in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FramePointer {
    /// r11 points at the saved lr, and the caller's r11 is below: A32 code of GCC
    /// (`push {fp, lr}; add fp, sp, #4`).
    #[default]
    GccA32,
    /// r11 points at a frame record: the caller's r11 and above it the saved lr. AAPCS32, section
    /// "The Frame Pointer" (`push {fp, lr}; mov fp, sp`): A32 code of Clang, and all code with
    /// `-mframe-chain=aapcs`.
    Record,
    /// r7 points at a frame record: T32 code of Clang (`push {r7, lr}; mov r7, sp`), and Apple's.
    RecordR7,
    /// r11 points at the saved pc, below which are lr, sp and the caller's r11: the APCS of before
    /// 2003, GCC's `-mapcs-frame` (`mov ip, sp; push {fp, ip, lr, pc}; sub fp, ip, #4`).
    Apcs,
    /// There are none.
    None,
}

impl Arm {
    /// Little-endian data, frame pointers as [`FramePointer::GccA32`].
    pub const fn new() -> Self {
        Arm {
            byte_order: ByteOrder::Little,
            code_order: ByteOrder::Little,
            frame_pointer: FramePointer::GccA32,
        }
    }

    /// Big-endian data, little-endian code.
    pub const fn big_endian() -> Self {
        Self::new().with_byte_order(ByteOrder::Big)
    }

    /// The same with another order of bytes in data.
    #[must_use]
    pub const fn with_byte_order(self, byte_order: ByteOrder) -> Self {
        Arm { byte_order, ..self }
    }

    /// The same with another order of bytes in code: big-endian in files with big-endian data whose
    /// `e_flags` lack `EF_ARM_BE8` (0x0080_0000).
    #[must_use]
    pub const fn with_code_order(self, code_order: ByteOrder) -> Self {
        Arm { code_order, ..self }
    }

    /// The same with another convention of frame pointers. It also says which register is
    /// [`fp`](Arch::fp).
    #[must_use]
    pub const fn with_frame_pointer(self, frame_pointer: FramePointer) -> Self {
        Arm { frame_pointer, ..self }
    }

    /// This architecture, if the header of an ELF file or core says so: `e_machine` `EM_ARM` (40),
    /// `e_ident[EI_CLASS]` `ELFCLASS32` (1), `e_ident[EI_DATA]` either order.
    pub const fn from_elf(e_machine: u16, ei_class: u8, ei_data: u8) -> Option<Self> {
        match (e_machine, ei_class, ei_data) {
            (40, 1, 1) => Some(Self::new()),
            (40, 1, 2) => Some(Self::big_endian()),
            _ => None,
        }
    }

    /// The same with the header's `e_flags`: a file of big-endian data that names an EABI and is not
    /// marked `EF_ARM_BE8` (0x0080_0000) has big-endian code. (Linux's cores have no flags.)
    pub const fn from_elf_flags(e_machine: u16, ei_class: u8, ei_data: u8, e_flags: u32) -> Option<Self> {
        const EF_ARM_EABIMASK: u32 = 0xff00_0000;
        const EF_ARM_BE8: u32 = 0x0080_0000;
        let is_be32 = e_flags & EF_ARM_EABIMASK != 0 && e_flags & EF_ARM_BE8 == 0;
        match Self::from_elf(e_machine, ei_class, ei_data) {
            Some(arch @ Arm { byte_order: ByteOrder::Big, .. }) if is_be32 => {
                Some(arch.with_code_order(ByteOrder::Big))
            }
            found => found,
        }
    }

    /// What its frame pointers point at.
    pub const fn frame_pointer(&self) -> FramePointer {
        self.frame_pointer
    }
}

impl Default for Arm {
    fn default() -> Self {
        Self::new()
    }
}

impl Arch for Arm {
    fn name(&self) -> &'static str {
        "arm"
    }

    #[inline]
    fn word_size(&self) -> WordSize {
        WordSize::Four
    }

    #[inline]
    fn byte_order(&self) -> ByteOrder {
        self.byte_order
    }

    #[inline]
    fn sp(&self) -> Register {
        SP
    }

    /// r7 under [`FramePointer::RecordR7`], else r11.
    #[inline]
    fn fp(&self) -> Register {
        match self.frame_pointer {
            FramePointer::RecordR7 => R7,
            _ => R11,
        }
    }

    #[inline]
    fn ra(&self) -> Register {
        LR
    }

    #[inline]
    fn ip(&self) -> Option<Register> {
        Some(PC)
    }

    /// r4 to r11, sp, and d8 to d15 by their own numbers and by those of s16 to s31 (AAPCS32,
    /// sections "Core registers" and "Co-processor Registers"). r9 is among them where the platform has
    /// no other use for it, as on Linux.
    #[inline]
    fn is_callee_saved(&self, register: Register) -> bool {
        matches!(register.0, 4..=11 | 13 | 80..=95 | 264..=271)
    }

    #[inline]
    fn entry_rule(&self) -> UnwindUserFrame {
        ENTRY
    }

    #[inline]
    fn frame_pointer_rule(&self) -> Option<UnwindUserFrame> {
        match self.frame_pointer {
            FramePointer::GccA32 => Some(UnwindUserFrame::plain(true, 4, -4, Some(-8)).with_sp_bound()),
            FramePointer::Record | FramePointer::RecordR7 => {
                Some(UnwindUserFrame::plain(true, 8, -4, Some(-8)).with_sp_bound())
            }
            FramePointer::Apcs => Some(APCS),
            FramePointer::None => None,
        }
    }

    fn instruction_rule(&self, code: &Code<'_>) -> Option<UnwindUserFrame> {
        instruction::rule(self, code)
    }

    fn signal_trampoline(&self, code: &Code<'_>) -> Option<SignalFrame> {
        signal::trampoline(self, code)
    }

    /// Bit 0 says that the code is T32.
    #[inline]
    fn strip_code_pointer(&self, pointer: u64) -> u64 {
        pointer & !1
    }
}

/// Nothing pushed, the return address in lr.
#[allow(clippy::panic, reason = "in a constant: it would fail the build, never a walk")]
const ENTRY: UnwindUserFrame = match UnwindUserFrame::leaf(0, LR) {
    Some(frame) => frame,
    None => panic!("lr fits into a rule"),
};

/// The saved sp is the caller's.
#[allow(clippy::panic, reason = "in a constant: it would fail the build, never a walk")]
const APCS: UnwindUserFrame = match UnwindUserFrame::new(
    CfaRule::Deref { base: Base::Fp, offset: -8, add: 0 },
    RaRule::AtRegister { base: Base::Fp, offset: -4 },
    FpRule::AtRegister { base: Base::Fp, offset: -12 },
) {
    Some(frame) => frame,
    None => panic!("the offsets fit into a rule"),
};

/// The word of code `index` places from the start of `code`.
fn word(order: ByteOrder, code: &[u8], index: usize) -> Option<u32> {
    let (words, _) = code.as_chunks::<4>();
    Some(match order {
        ByteOrder::Little => u32::from_le_bytes(*words.get(index)?),
        ByteOrder::Big => u32::from_be_bytes(*words.get(index)?),
    })
}

/// The halfword of code `index` places from the start of `code`.
fn half(order: ByteOrder, code: &[u8], index: usize) -> Option<u16> {
    let (halves, _) = code.as_chunks::<2>();
    Some(match order {
        ByteOrder::Little => u16::from_le_bytes(*halves.get(index)?),
        ByteOrder::Big => u16::from_be_bytes(*halves.get(index)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_32_bit_files_are_for_it_in_either_order() {
        for machine in 0..=u16::MAX {
            for class in 0..4 {
                for data in 0..4 {
                    let expected = match (machine, class, data) {
                        (40, 1, 1) => Some(Arm::new()),
                        (40, 1, 2) => Some(Arm::big_endian()),
                        _ => None,
                    };
                    assert_eq!(Arm::from_elf(machine, class, data), expected);
                }
            }
        }
        assert_eq!((Arm::default().byte_order(), Arm::new().name()), (ByteOrder::Little, "arm"));
        assert_eq!(Arm::big_endian().byte_order(), ByteOrder::Big);
        assert_eq!((Arm::new().word_size(), Arm::new().register_size()), (WordSize::Four, WordSize::Four));
    }

    #[test]
    fn flags_tell_the_order_of_code() {
        let be32 = Arm::big_endian().with_code_order(ByteOrder::Big);
        // EABI 5 with and without BE8, and none.
        for (flags, big) in [(0x0580_0200, Arm::big_endian()), (0x0500_0200, be32), (0, Arm::big_endian())] {
            assert_eq!(Arm::from_elf_flags(40, 1, 2, flags), Some(big));
            assert_eq!(Arm::from_elf_flags(40, 1, 1, flags), Some(Arm::new()));
            assert_eq!(Arm::from_elf_flags(40, 2, 2, flags), None);
            assert_eq!(Arm::from_elf_flags(41, 1, 2, flags), None);
        }
    }

    #[test]
    fn what_a_function_must_hand_back() {
        for number in 0..=u16::MAX {
            // r4 to r11 and r13; s16 to s31, from 64 on; d8 to d15, from 256 on.
            let saved = (4..=11).contains(&number)
                || number == 13
                || (64 + 16..=64 + 31).contains(&number)
                || (256 + 8..=256 + 15).contains(&number);
            assert_eq!(Arm::new().is_callee_saved(Register(number)), saved);
        }
    }

    #[test]
    fn the_conventions() {
        let arch = Arm::new();
        let entry = arch.entry_rule();
        assert_eq!(entry.cfa(), CfaRule::Offset { base: Base::Sp, offset: 0 });
        assert_eq!(entry.ra(), RaRule::InRegister { base: Base::Register(Register(14)), offset: 0 });
        assert_eq!((entry.fp(), entry.sp_is_bound()), (FpRule::Unchanged, false));
        assert_eq!((arch.back_chain_rule(), arch.sp_bias()), (None, 0));
        for pointer in [0, 2, 0x1_0234, 0xffff_fffe] {
            assert_eq!(arch.strip_code_pointer(pointer), pointer);
            assert_eq!(arch.strip_code_pointer(pointer | 1), pointer);
        }
    }

    #[test]
    fn every_convention_of_frame_pointers() {
        assert_eq!(Arm::new().frame_pointer(), FramePointer::GccA32);
        let rule = |kind| Arm::new().with_frame_pointer(kind).frame_pointer_rule();
        // push {fp, lr}; add fp, sp, #4
        let gcc = UnwindUserFrame::new(
            CfaRule::Offset { base: Base::Fp, offset: 4 },
            RaRule::AtCfa(-4),
            FpRule::AtCfa(-8),
        );
        assert_eq!(rule(FramePointer::GccA32), gcc.map(UnwindUserFrame::with_sp_bound));
        // push {fp, lr}; mov fp, sp
        let record = UnwindUserFrame::new(
            CfaRule::Offset { base: Base::Fp, offset: 8 },
            RaRule::AtCfa(-4),
            FpRule::AtCfa(-8),
        );
        assert_eq!(rule(FramePointer::Record), record.map(UnwindUserFrame::with_sp_bound));
        assert_eq!(rule(FramePointer::RecordR7), rule(FramePointer::Record));
        // mov ip, sp; push {fp, ip, lr, pc}; sub fp, ip, #4
        let apcs = UnwindUserFrame::new(
            CfaRule::Deref { base: Base::Fp, offset: -8, add: 0 },
            RaRule::AtRegister { base: Base::Fp, offset: -4 },
            FpRule::AtRegister { base: Base::Fp, offset: -12 },
        );
        assert_eq!(rule(FramePointer::Apcs), apcs);
        assert_eq!(rule(FramePointer::None), None);
        for kind in [FramePointer::GccA32, FramePointer::Record, FramePointer::Apcs, FramePointer::None] {
            assert_eq!(Arm::big_endian().with_frame_pointer(kind).fp(), Register(11));
        }
        assert_eq!(Arm::new().with_frame_pointer(FramePointer::RecordR7).fp(), Register(7));
    }
}
