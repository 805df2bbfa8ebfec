//! MIPS of 32 and 64 bits for [`unwind_core`]: its conventions, its signal frames, its register sets.
//!
//! Under the ABIs o32, n32 and n64, as Linux and others use them; either byte order, which code and
//! data share.
//!
//! There is no chain of frame pointers: the ABIs have none. Where a function keeps $30 as a frame
//! pointer, it points at the lower end of the frame, and nothing says how large that is. Without tables
//! a walk gets no further than what instructions say by themselves.
//!
//! ```
//! use unwind_arch_mips::{Abi, Mips, Registers};
//! use unwind_core::{ByteOrder, Unwinder, from_fn};
//!
//! // move v0, s0; addiu sp, sp, 32; lw ra, -4(sp); jr ra; nop: the end of a function.
//! let code: [u32; 5] = [0x0200_1025, 0x27bd_0020, 0x8fbf_fffc, 0x03e0_0008, 0];
//! let memory = from_fn(|address, into: &mut [u8]| {
//!     let (start, words) =
//!         if address < 0x40_2000 { (0x40_1000, &code[..]) } else { (0x7fff_001c, &[0x40_1234][..]) };
//!     let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
//!     let at = address.wrapping_sub(start) as usize;
//!     let found = at.checked_add(into.len()).and_then(|end| bytes.get(at..end));
//!     into.copy_from_slice(found.ok_or(unwind_core::MemoryError::Unreadable { address })?);
//!     Ok(())
//! });
//!
//! let arch = Mips::new(Abi::O32, ByteOrder::Big);
//! let registers = Registers::new(0x40_1004, 0x7fff_0000, 0);
//! let mut entries = [0; 16];
//! let trace = Unwinder::new(arch, ()).unwind_user(&registers, memory, &mut entries)?;
//! assert_eq!(entries[..trace.nr], [0x40_1004, 0x40_1234]);
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

/// MIPS under one of its ABIs, with its byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mips {
    abi: Abi,
    byte_order: ByteOrder,
}

/// An ABI of MIPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abi {
    /// Addresses and registers of 32 bits: "System V ABI, MIPS RISC Processor Supplement".
    O32,
    /// Addresses of 32 bits, registers of 64: "MIPSpro N32 ABI Handbook".
    N32,
    /// Addresses and registers of 64 bits: "MIPSpro 64-Bit Porting and Transition Guide".
    N64,
}

/// `EF_MIPS_ABI2` of `e_flags`: n32.
const EF_MIPS_ABI2: u32 = 0x20;
/// The field `EF_MIPS_ABI` of `e_flags`.
const EF_MIPS_ABI: u32 = 0xf000;
/// Its value for o32 (`E_MIPS_ABI_O32`); others are o64 and the EABIs.
const E_MIPS_ABI_O32: u32 = 0x1000;

impl Mips {
    /// MIPS under this ABI, with this order of bytes.
    pub const fn new(abi: Abi, byte_order: ByteOrder) -> Self {
        Mips { abi, byte_order }
    }

    /// The same under another ABI.
    #[must_use]
    pub const fn with_abi(self, abi: Abi) -> Self {
        Mips { abi, ..self }
    }

    /// The same with another order of bytes.
    #[must_use]
    pub const fn with_byte_order(self, byte_order: ByteOrder) -> Self {
        Mips { byte_order, ..self }
    }

    /// The ABI.
    pub const fn abi(&self) -> Abi {
        self.abi
    }

    /// This architecture, if the header of an ELF file or core says so: `e_machine` `EM_MIPS` (8),
    /// `e_ident[EI_CLASS]` `ELFCLASS32` (1) or `ELFCLASS64` (2), `e_ident[EI_DATA]` either order. A
    /// 32-bit file is taken for o32; what is n32 only `e_flags` say: see
    /// [`from_elf_flags`](Mips::from_elf_flags).
    pub const fn from_elf(e_machine: u16, ei_class: u8, ei_data: u8) -> Option<Self> {
        Self::from_elf_flags(e_machine, ei_class, ei_data, 0)
    }

    /// The same with the header's `e_flags`: `EF_MIPS_ABI2` (0x20) makes a 32-bit file one of n32. `None`
    /// for o64 and the EABIs too.
    pub const fn from_elf_flags(e_machine: u16, ei_class: u8, ei_data: u8, e_flags: u32) -> Option<Self> {
        let byte_order = match ei_data {
            1 => ByteOrder::Little,
            2 => ByteOrder::Big,
            _ => return None,
        };
        let abi = match (ei_class, e_flags & EF_MIPS_ABI, e_flags & EF_MIPS_ABI2) {
            (1, 0 | E_MIPS_ABI_O32, 0) => Abi::O32,
            (1, 0, EF_MIPS_ABI2) => Abi::N32,
            (2, 0, _) => Abi::N64,
            _ => return None,
        };
        match e_machine {
            8 => Some(Mips { abi, byte_order }),
            _ => None,
        }
    }
}

/// n64, little-endian.
impl Default for Mips {
    fn default() -> Self {
        Self::new(Abi::N64, ByteOrder::Little)
    }
}

impl Arch for Mips {
    fn name(&self) -> &'static str {
        match self.abi {
            Abi::O32 => "mips",
            Abi::N32 => "mipsn32",
            Abi::N64 => "mips64",
        }
    }

    #[inline]
    fn word_size(&self) -> WordSize {
        match self.abi {
            Abi::O32 | Abi::N32 => WordSize::Four,
            Abi::N64 => WordSize::Eight,
        }
    }

    #[inline]
    fn register_size(&self) -> WordSize {
        match self.abi {
            Abi::O32 => WordSize::Four,
            Abi::N32 | Abi::N64 => WordSize::Eight,
        }
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
        S8
    }

    #[inline]
    fn ra(&self) -> Register {
        RA
    }

    #[inline]
    fn ip(&self) -> Option<Register> {
        None
    }

    /// $16 to $23, $29 and $30; $28 (gp) but under o32; of the floating-point registers $f20 to $f31
    /// under o32, the even ones of these under n32, $f24 to $f31 under n64 (the register conventions of
    /// the documents that [`Abi`] names).
    #[inline]
    fn is_callee_saved(&self, register: Register) -> bool {
        match (register.0, self.abi) {
            (16..=23 | 29 | 30, _) => true,
            (28, Abi::N32 | Abi::N64) => true,
            (52..=63, Abi::O32) => true,
            (number @ 52..=63, Abi::N32) => number & 1 == 0,
            (56..=63, Abi::N64) => true,
            _ => false,
        }
    }

    #[inline]
    fn entry_rule(&self) -> UnwindUserFrame {
        ENTRY
    }

    #[inline]
    fn frame_pointer_rule(&self) -> Option<UnwindUserFrame> {
        None
    }

    fn instruction_rule(&self, code: &Code<'_>) -> Option<UnwindUserFrame> {
        instruction::rule(self, code)
    }

    fn signal_trampoline(&self, code: &Code<'_>) -> Option<SignalFrame> {
        signal::trampoline(self, code)
    }

    /// Bit 0 says that the code is MIPS16 or microMIPS.
    #[inline]
    fn strip_code_pointer(&self, pointer: u64) -> u64 {
        pointer & !1
    }
}

/// Nothing pushed, the return address in $31.
#[allow(clippy::panic, reason = "in a constant: it would fail the build, never a walk")]
const ENTRY: UnwindUserFrame = match UnwindUserFrame::leaf(0, RA) {
    Some(frame) => frame,
    None => panic!("$31 fits into a rule"),
};

/// The same for $1 to $25 and $28 to $31, each with its place: `$start` and `$step` for every number
/// before. ($26 and $27 are the kernel's; what it stores there means nothing.)
macro_rules! places {
    ($start:expr, $step:expr) => {
        [
            (AT, $start + $step),
            (V0, $start + 2 * $step),
            (V1, $start + 3 * $step),
            (A0, $start + 4 * $step),
            (A1, $start + 5 * $step),
            (A2, $start + 6 * $step),
            (A3, $start + 7 * $step),
            (R8, $start + 8 * $step),
            (R9, $start + 9 * $step),
            (R10, $start + 10 * $step),
            (R11, $start + 11 * $step),
            (R12, $start + 12 * $step),
            (R13, $start + 13 * $step),
            (R14, $start + 14 * $step),
            (R15, $start + 15 * $step),
            (S0, $start + 16 * $step),
            (S1, $start + 17 * $step),
            (S2, $start + 18 * $step),
            (S3, $start + 19 * $step),
            (S4, $start + 20 * $step),
            (S5, $start + 21 * $step),
            (S6, $start + 22 * $step),
            (S7, $start + 23 * $step),
            (T8, $start + 24 * $step),
            (T9, $start + 25 * $step),
            (GP, $start + 28 * $step),
            (SP, $start + 29 * $step),
            (S8, $start + 30 * $step),
            (RA, $start + 31 * $step),
        ]
    };
}
use places;

#[cfg(test)]
mod tests {
    use unwind_core::{Base, CfaRule, FpRule, RaRule};

    use super::*;

    const ABIS: [Abi; 3] = [Abi::O32, Abi::N32, Abi::N64];
    const ORDERS: [ByteOrder; 2] = [ByteOrder::Little, ByteOrder::Big];

    #[test]
    fn files_of_either_class_and_order_are_for_it() {
        for machine in 0..=u16::MAX {
            for class in 0..4 {
                for data in 0..4 {
                    let expected = match (machine, class, data) {
                        (8, 1, 1) => Some(Mips::new(Abi::O32, ByteOrder::Little)),
                        (8, 1, 2) => Some(Mips::new(Abi::O32, ByteOrder::Big)),
                        (8, 2, 1) => Some(Mips::default()),
                        (8, 2, 2) => Some(Mips::default().with_byte_order(ByteOrder::Big)),
                        _ => None,
                    };
                    assert_eq!(Mips::from_elf(machine, class, data), expected);
                }
            }
        }
    }

    #[test]
    fn flags_tell_the_abis_apart() {
        // As readelf prints the files of Debian's compilers: 0x70001005 (o32), 0x80000027 (n32),
        // 0x80000007 (n64).
        for (data, order) in [(1, ByteOrder::Little), (2, ByteOrder::Big)] {
            for (class, flags, abi) in
                [(1, 0x7000_1005, Abi::O32), (1, 0x8000_0027, Abi::N32), (2, 0x8000_0007, Abi::N64)]
            {
                let found = Mips::from_elf_flags(8, class, data, flags);
                assert_eq!(found, Some(Mips::new(abi, order)));
                assert_eq!(found.map(|arch| arch.abi()), Some(abi));
                for machine in [0, 7, 9, 62] {
                    assert_eq!(Mips::from_elf_flags(machine, class, data, flags), None);
                }
            }
            // o64, EABI32, EABI64, and what contradicts itself.
            for (class, flags) in [(1, 0x2000), (1, 0x3000), (2, 0x4000), (1, 0x1020), (2, 0x1000)] {
                assert_eq!(Mips::from_elf_flags(8, class, data, flags), None);
            }
        }
        assert_eq!(Mips::default().with_abi(Abi::N32), Mips::new(Abi::N32, ByteOrder::Little));
    }

    #[test]
    fn words_and_registers() {
        use WordSize::{Eight, Four};
        let expected = [("mips", Four, Four), ("mipsn32", Four, Eight), ("mips64", Eight, Eight)];
        for (abi, expected) in ABIS.into_iter().zip(expected) {
            for order in ORDERS {
                let arch = Mips::new(abi, order);
                assert_eq!((arch.name(), arch.word_size(), arch.register_size()), expected);
                assert_eq!(arch.byte_order(), order);
            }
        }
    }

    #[test]
    fn what_a_function_must_hand_back() {
        for abi in ABIS {
            let arch = Mips::new(abi, ByteOrder::Big);
            for number in 0..=u16::MAX {
                let integer = (16..=23).contains(&number) || number == 29 || number == 30;
                let gp = number == 28 && abi != Abi::O32;
                let float = match abi {
                    Abi::O32 => (32 + 20..=32 + 31).contains(&number),
                    Abi::N32 => [20, 22, 24, 26, 28, 30].map(|float| 32 + float).contains(&number),
                    Abi::N64 => (32 + 24..=32 + 31).contains(&number),
                };
                assert_eq!(
                    arch.is_callee_saved(Register(number)),
                    integer || gp || float,
                    "{abi:?} {number}"
                );
            }
        }
    }

    #[test]
    fn the_conventions() {
        for abi in ABIS {
            let arch = Mips::new(abi, ByteOrder::Little);
            let entry = arch.entry_rule();
            assert_eq!(entry.cfa(), CfaRule::Offset { base: Base::Sp, offset: 0 });
            assert_eq!(entry.ra(), RaRule::InRegister { base: Base::Register(Register(31)), offset: 0 });
            assert_eq!((entry.fp(), entry.sp_is_bound()), (FpRule::Unchanged, false));
            assert_eq!((arch.frame_pointer_rule(), arch.back_chain_rule()), (None, None));
            assert_eq!((arch.ip(), arch.sp_bias()), (None, 0));
            for pointer in [0, 2, 0x40_1234, 0xff_ffff_fffe] {
                assert_eq!(arch.strip_code_pointer(pointer), pointer);
                assert_eq!(arch.strip_code_pointer(pointer | 1), pointer);
            }
        }
    }
}
