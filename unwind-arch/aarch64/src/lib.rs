//! AArch64 (64-bit Arm) for [`unwind_core`]: its conventions, its signal frames, its register sets.
//!
//! Under AAPCS64 with 64-bit pointers (LP64), as Linux, the BSDs and others use it; either byte
//! order, with or without pointer authentication. Not ILP32.
//!
//! ```
//! use unwind_arch_aarch64::{Aarch64, Registers};
//! use unwind_core::{Unwinder, from_fn};
//!
//! // Two frame records at 0x1000: the caller's x29, the return address, which is signed here.
//! let stack: [u64; 4] = [0x1010, 0x0051_0000_0040_1234, 0, 0];
//! let memory = from_fn(|address, into: &mut [u8]| {
//!     let bytes: Vec<u8> = stack.iter().flat_map(|word| word.to_le_bytes()).collect();
//!     let at = address.wrapping_sub(0x1000) as usize;
//!     let found = at.checked_add(into.len()).and_then(|end| bytes.get(at..end));
//!     into.copy_from_slice(found.ok_or(unwind_core::MemoryError::Unreadable { address })?);
//!     Ok(())
//! });
//!
//! // Without any table: the architecture's conventions alone.
//! let registers = Registers::new(0x40_1000, 0x1000, 0x1000, 0);
//! let mut entries = [0; 16];
//! let trace = Unwinder::new(Aarch64::new(), ()).unwind_user(&registers, memory, &mut entries)?;
//! assert_eq!(entries[..trace.nr], [0x40_1000, 0x40_1234]);
//! # Ok::<(), unwind_core::StartError>(())
//! ```
//!
//! # Features
//! * `layout` (on by default): register sets from the bytes that Linux gives: ptrace, core notes,
//!   `ucontext_t`, perf.
//! * `capture`: the calling thread's own registers, where the host is AArch64. The only unsafe code.

#![no_std]
#![cfg_attr(not(feature = "capture"), forbid(unsafe_code))]
#![cfg_attr(feature = "capture", deny(unsafe_code))]

#[cfg(all(feature = "capture", target_arch = "aarch64", target_pointer_width = "64"))]
mod capture;
mod instruction;
#[cfg(feature = "layout")]
mod layout;
mod registers;
mod signal;

use unwind_core::{Arch, ByteOrder, CfiVendor, Code, Register, SignalFrame, UnwindUserFrame, WordSize};

#[cfg(all(feature = "capture", target_arch = "aarch64", target_pointer_width = "64"))]
pub use capture::with_registers;
pub use registers::*;

/// AArch64 under AAPCS64, with the byte order of its data and the mask of its pointer
/// authentication codes.
///
/// # The mask
/// A signed return address carries its code in the bits between the top byte and the highest bit
/// of a virtual address: 54 down to 48 where addresses have 48 bits, which is the default here.
/// Kernels with smaller address spaces (39 bits on many phones) have longer codes: take the mask
/// from the target, by [`with_pac_mask`](Aarch64::with_pac_mask) or
/// [`with_address_bits`](Aarch64::with_address_bits). Keys A and B leave the same field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aarch64 {
    byte_order: ByteOrder,
    /// Every bit of a code pointer that is not address: the authentication code and the top byte.
    extension: u64,
}

/// Bit 55 chooses the half of the address space. Neither a tag nor a code reaches it.
const HALF: u64 = 1 << 55;
/// The top byte: a tag, or more of an authentication code.
const TOP_BYTE: u64 = 0xff << 56;

impl Aarch64 {
    /// Little-endian data, addresses of 48 bits.
    pub const fn new() -> Self {
        Aarch64 { byte_order: ByteOrder::Little, extension: 0 }.with_address_bits(48)
    }

    /// Big-endian data, addresses of 48 bits. Code is little-endian all the same.
    pub const fn big_endian() -> Self {
        Self::new().with_byte_order(ByteOrder::Big)
    }

    /// The same with another order of bytes in data.
    #[must_use]
    pub const fn with_byte_order(self, byte_order: ByteOrder) -> Self {
        Aarch64 { byte_order, ..self }
    }

    /// The same with another pointer authentication mask: `insn_mask` of Linux's `struct
    /// user_pac_mask` (ptrace `NT_ARM_PAC_MASK`, also a note of core files). The top byte is
    /// always taken off as well; bit 55 never is.
    #[must_use]
    pub const fn with_pac_mask(self, mask: u64) -> Self {
        Aarch64 { extension: (mask | TOP_BYTE) & !HALF, ..self }
    }

    /// The same for virtual addresses of `bits` bits (36 to 55; others count as the nearest of
    /// these).
    #[must_use]
    pub const fn with_address_bits(self, bits: u8) -> Self {
        let bits = match bits {
            0..36 => 36,
            36..=55 => bits,
            _ => 55,
        };
        self.with_pac_mask(u64::MAX << bits)
    }

    /// This architecture, if the header of an ELF file or core says so: `e_machine` `EM_AARCH64`
    /// (183), `e_ident[EI_CLASS]` `ELFCLASS64` (2), `e_ident[EI_DATA]` either order.
    pub const fn from_elf(e_machine: u16, ei_class: u8, ei_data: u8) -> Option<Self> {
        match (e_machine, ei_class, ei_data) {
            (183, 2, 1) => Some(Self::new()),
            (183, 2, 2) => Some(Self::big_endian()),
            _ => None,
        }
    }

    /// The bits that [`strip_code_pointer`](Arch::strip_code_pointer) fills with bit 55.
    pub const fn pac_mask(&self) -> u64 {
        self.extension
    }
}

impl Default for Aarch64 {
    fn default() -> Self {
        Self::new()
    }
}

impl Arch for Aarch64 {
    fn name(&self) -> &'static str {
        "aarch64"
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
        SP
    }

    #[inline]
    fn fp(&self) -> Register {
        X29
    }

    #[inline]
    fn ra(&self) -> Register {
        X30
    }

    #[inline]
    fn ip(&self) -> Option<Register> {
        Some(PC)
    }

    /// x19 to x29, sp, and the low halves of v8 to v15 (AAPCS64, sections 6.1.1 and 6.1.2).
    #[inline]
    fn is_callee_saved(&self, register: Register) -> bool {
        matches!(register.0, 19..=29 | 31 | 72..=79)
    }

    #[inline]
    fn entry_rule(&self) -> UnwindUserFrame {
        ENTRY
    }

    #[inline]
    fn frame_pointer_rule(&self) -> Option<UnwindUserFrame> {
        Some(UnwindUserFrame::plain(true, 16, -8, Some(-16)).with_sp_bound())
    }

    fn instruction_rule(&self, code: &Code<'_>) -> Option<UnwindUserFrame> {
        instruction::rule(code)
    }

    fn signal_trampoline(&self, code: &Code<'_>) -> Option<SignalFrame> {
        signal::trampoline(code)
    }

    #[inline]
    fn strip_code_pointer(&self, pointer: u64) -> u64 {
        if pointer & HALF == 0 { pointer & !self.extension } else { pointer | self.extension }
    }

    #[inline]
    fn cfi_vendor(&self) -> CfiVendor {
        CfiVendor::AArch64
    }
}

/// Nothing pushed, the return address in x30.
#[allow(clippy::panic, reason = "in a constant: it would fail the build, never a walk")]
const ENTRY: UnwindUserFrame = match UnwindUserFrame::leaf(0, X30) {
    Some(frame) => frame,
    None => panic!("x30 fits into a rule"),
};

#[cfg(test)]
mod tests {
    use unwind_core::{Base, CfaRule, FpRule, RaRule};

    use super::*;

    #[test]
    fn only_64_bit_files_are_for_it_in_either_order() {
        for machine in 0..=u16::MAX {
            for class in 0..4 {
                for data in 0..4 {
                    let expected = match (machine, class, data) {
                        (183, 2, 1) => Some(Aarch64::new()),
                        (183, 2, 2) => Some(Aarch64::big_endian()),
                        _ => None,
                    };
                    assert_eq!(Aarch64::from_elf(machine, class, data), expected);
                }
            }
        }
        assert_eq!(Aarch64::default().byte_order(), ByteOrder::Little);
        assert_eq!(Aarch64::big_endian().byte_order(), ByteOrder::Big);
    }

    #[test]
    fn what_a_function_must_hand_back() {
        for number in 0..=u16::MAX {
            let saved = (19..=29).contains(&number) || number == 31 || (72..=79).contains(&number);
            assert_eq!(Aarch64::new().is_callee_saved(Register(number)), saved);
        }
    }

    #[test]
    fn the_conventions() {
        let arch = Aarch64::new();
        let entry = arch.entry_rule();
        assert_eq!(entry.cfa(), CfaRule::Offset { base: Base::Sp, offset: 0 });
        assert_eq!(entry.ra(), RaRule::InRegister { base: Base::Register(Register(30)), offset: 0 });
        assert_eq!((entry.fp(), entry.sp_is_bound()), (FpRule::Unchanged, false));
        let frame = arch.frame_pointer_rule();
        assert_eq!(frame.map(|frame| frame.cfa()), Some(CfaRule::Offset { base: Base::Fp, offset: 16 }));
        assert_eq!(frame.map(|frame| frame.ra()), Some(RaRule::AtCfa(-8)));
        assert_eq!(frame.map(|frame| (frame.fp(), frame.sp_is_bound())), Some((FpRule::AtCfa(-16), true)));
        assert_eq!(arch.back_chain_rule(), None);
        assert_eq!(arch.cfi_vendor(), CfiVendor::AArch64);
    }

    #[test]
    fn codes_and_tags_are_taken_off_in_both_halves() {
        let user = 0x0000_aaaa_bbbb_cccc;
        let kernel = 0xffff_8000_bbbb_cccc;
        let arch = Aarch64::new();
        for plain in [0, 4, user, 0x0000_ffff_ffff_fffc, kernel, 0xffff_ffff_ffff_fffc] {
            assert_eq!(arch.strip_code_pointer(plain), plain);
            // Any code in bits 48 to 54, any tag; either key leaves them there.
            for code in 0..128 {
                for tag in [0, 1, 0x5a, 0x80, 0xff] {
                    let signed = plain & !0xff7f_0000_0000_0000 | code << 48 | tag << 56;
                    assert_eq!(arch.strip_code_pointer(signed), plain, "{signed:#x}");
                }
            }
        }
        // What would be left by clearing the bits of a kernel address is no address.
        assert_ne!(arch.strip_code_pointer(0x00ff_8000_bbbb_cccc), 0x0080_8000_bbbb_cccc);
    }

    #[test]
    fn the_mask_can_be_the_targets_own() {
        assert_eq!(Aarch64::new().pac_mask(), 0xff7f_0000_0000_0000);
        // Of Linux with 39, 48 and 52 bits of address: GENMASK(54, bits).
        for (mask, bits) in
            [(0x007f_ff80_0000_0000, 39), (0x007f_0000_0000_0000, 48), (0x0070_0000_0000_0000, 52)]
        {
            let arch = Aarch64::new().with_pac_mask(mask);
            assert_eq!(arch, Aarch64::new().with_address_bits(bits));
            assert_eq!(arch.strip_code_pointer(!HALF), !HALF & !(mask | TOP_BYTE));
            assert_eq!(arch.strip_code_pointer(HALF), HALF | mask | TOP_BYTE);
        }
        // A mask that says too much, or nothing, as from a processor without authentication.
        let all = Aarch64::new().with_pac_mask(u64::MAX);
        assert_eq!((all.strip_code_pointer(!HALF), all.strip_code_pointer(HALF)), (0, u64::MAX));
        assert_eq!(Aarch64::new().with_pac_mask(0).pac_mask(), TOP_BYTE);
        for (bits, nearest) in [(0, 36), (35, 36), (56, 55), (255, 55)] {
            assert_eq!(Aarch64::new().with_address_bits(bits), Aarch64::new().with_address_bits(nearest));
        }
        let other = Aarch64::new().with_byte_order(ByteOrder::Big).with_address_bits(39);
        assert_eq!((other.byte_order(), other.pac_mask()), (ByteOrder::Big, 0xff7f_ff80_0000_0000));
    }
}
