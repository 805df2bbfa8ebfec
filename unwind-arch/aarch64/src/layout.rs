//! Register sets in the layouts that Linux gives them, parsed on any host.
//!
//! All of them hold x0 to x30, sp and pc in this order, which is that of their DWARF numbers.

use core::fmt;

use scroll::{BE, Endian, LE, Pread};
use unwind_core::{Arch, ByteOrder, Register};

use crate::{Aarch64, Registers};

/// Why bytes are no register set of this architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// There are fewer bytes than the layout has. The registers of a 32-bit process are one cause.
    TooShort {
        /// How many bytes the layout needs.
        needed: usize,
        /// How many there are.
        len: usize,
    },
    /// A perf sample of another ABI: `PERF_SAMPLE_REGS_ABI_32` (1) is that of a 32-bit process.
    Abi {
        /// The sample's `abi`.
        abi: u64,
    },
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LayoutError::TooShort { needed, len } => {
                write!(f, "a register set of {len} bytes, where {needed} are needed")
            }
            LayoutError::Abi { abi } => write!(f, "a register sample of another ABI ({abi})"),
        }
    }
}

impl core::error::Error for LayoutError {}

impl Registers {
    /// The size of `struct user_pt_regs`, in bytes.
    pub const USER_REGS_SIZE: usize = 272;

    /// Where `struct elf_prstatus` has its `pr_reg`, in bytes.
    pub const PRSTATUS_REGS: usize = 112;

    /// The registers to ask perf for: the `sample_regs_user` of `struct perf_event_attr`.
    pub const PERF_MASK: u64 = 0x1_ffff_ffff;

    /// From `struct user_pt_regs` (`user_regs_struct` in C libraries): what ptrace's
    /// `PTRACE_GETREGSET` with `NT_PRSTATUS` gives. Linux `arch/arm64/include/uapi/asm/ptrace.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_user_regs(arch: Aarch64, bytes: &[u8]) -> Result<Self, LayoutError> {
        read(arch, bytes, Self::USER_REGS_SIZE, 0)
    }

    /// From `struct elf_prstatus`: the descriptor of a core file's `NT_PRSTATUS` note. Linux
    /// `include/linux/elfcore.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_prstatus(arch: Aarch64, bytes: &[u8]) -> Result<Self, LayoutError> {
        let needed = Self::PRSTATUS_REGS.saturating_add(Self::USER_REGS_SIZE);
        read(arch, bytes, needed, Self::PRSTATUS_REGS)
    }

    /// From `ucontext_t`: the third argument of a signal handler, also what `getcontext` fills.
    /// Needed are its bytes up to and with the general registers. Linux
    /// `arch/arm64/include/uapi/asm/ucontext.h` and `arch/arm64/include/uapi/asm/sigcontext.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_ucontext(arch: Aarch64, bytes: &[u8]) -> Result<Self, LayoutError> {
        read(arch, bytes, UCONTEXT_NEEDED, UCONTEXT_REGS)
    }

    /// From a perf sample: the bytes of its `PERF_SAMPLE_REGS_USER` part, which are `u64 abi` and a
    /// `u64` for each bit of `mask`, the event's `sample_regs_user`. A sample without user registers
    /// (`PERF_SAMPLE_REGS_ABI_NONE`, a kernel thread's) becomes [`Registers::absent`]. Linux
    /// `include/uapi/linux/perf_event.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`], [`LayoutError::Abi`].
    pub fn from_perf_sample(arch: Aarch64, mask: u64, bytes: &[u8]) -> Result<Self, LayoutError> {
        perf(endian(arch), mask, bytes)
    }

    /// The register with this number in perf's masks: `enum perf_event_arm_regs` of Linux
    /// `arch/arm64/include/uapi/asm/perf_regs.h`. `None` for VG and what may follow.
    pub fn perf_register(number: u32) -> Option<Register> {
        let register = Register(u16::try_from(number).ok()?);
        (usize::from(register.0) < Registers::COUNT).then_some(register)
    }
}

/// `uc_mcontext` is at 176, and in it `regs` at 8.
const UCONTEXT_REGS: usize = 184;

/// Up to the end of pc, the last general register.
const UCONTEXT_NEEDED: usize = 448;

fn endian(arch: Aarch64) -> Endian {
    match arch.byte_order() {
        ByteOrder::Little => LE,
        ByteOrder::Big => BE,
    }
}

/// Reads all registers from `offset` on, if there are `needed` bytes.
fn read(arch: Aarch64, bytes: &[u8], needed: usize, offset: usize) -> Result<Registers, LayoutError> {
    let too_short = LayoutError::TooShort { needed, len: bytes.len() };
    let bytes = bytes.get(..needed).ok_or(too_short)?;
    let mut offset = offset;
    (0..).take(Registers::COUNT).try_fold(Registers::default(), |set, number| {
        let value = bytes.gread_with(&mut offset, endian(arch)).map_err(|_| too_short)?;
        Ok(set.with(Register(number), value))
    })
}

fn perf(order: Endian, mask: u64, bytes: &[u8]) -> Result<Registers, LayoutError> {
    const NONE: u64 = 0;
    const ABI_64: u64 = 2;
    let too_short = |words: u32| LayoutError::TooShort {
        needed: usize::try_from(words).unwrap_or(usize::MAX).saturating_mul(8),
        len: bytes.len(),
    };
    match bytes.pread_with(0, order).map_err(|_| too_short(1))? {
        NONE => return Ok(Registers::absent()),
        ABI_64 => {}
        abi => return Err(LayoutError::Abi { abi }),
    }
    let mut offset = 8;
    let mut set = Registers::default();
    for number in (0..64).filter(|number| mask & 1u64.wrapping_shl(*number) != 0) {
        let all = mask.count_ones().saturating_add(1);
        let value = bytes.gread_with(&mut offset, order).map_err(|_| too_short(all))?;
        if let Some(register) = Registers::perf_register(number) {
            set = set.with(register, value);
        }
    }
    Ok(set)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::{RegisterFile, UserRegisters};

    use super::*;
    use crate::{PC, SP, X0, X15, X30};

    /// Offsets as a C compiler prints them: `offsetof(struct user_pt_regs, sp)` and so on.
    const IN_USER_REGS: [(Register, usize); 5] = [(X0, 0), (X15, 120), (X30, 240), (SP, 248), (PC, 256)];

    /// The same for `offsetof(ucontext_t, uc_mcontext.sp)` and so on.
    const IN_UCONTEXT: [(Register, usize); 5] = [(X0, 184), (X15, 304), (X30, 424), (SP, 432), (PC, 440)];

    /// Every byte is different from its neighbours, and every word from every other.
    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| u8::try_from((at * 7 + at / 256 * 3) % 251).unwrap()).collect()
    }

    const BOTH: [Aarch64; 2] = [Aarch64::new(), Aarch64::big_endian()];

    fn word(arch: Aarch64, bytes: &[u8], at: usize) -> u64 {
        let bytes = bytes[at..at + 8].try_into().unwrap();
        if arch == BOTH[0] { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) }
    }

    type Offsets = [(Register, usize)];
    type Parser = fn(Aarch64, &[u8]) -> Result<Registers, LayoutError>;

    #[test]
    fn every_register_is_where_the_kernel_puts_it() {
        let parsers: [(Parser, usize, &Offsets); 3] = [
            (Registers::from_user_regs, 0, &IN_USER_REGS),
            (Registers::from_prstatus, 112, &IN_USER_REGS),
            (Registers::from_ucontext, 0, &IN_UCONTEXT),
        ];
        let bytes = bytes(1000);
        for (parse, start, offsets) in parsers {
            for arch in BOTH {
                let registers = parse(arch, &bytes).unwrap();
                for (register, offset) in offsets {
                    let expected = word(arch, &bytes, start + offset);
                    assert_eq!(registers.get(*register), Some(expected), "{register:?}");
                }
                for number in 0..31 {
                    let expected = word(arch, &bytes, start + offsets[0].1 + 8 * usize::from(number));
                    assert_eq!(registers.get(Register(number)), Some(expected), "x{number}");
                }
                assert_eq!(registers.ip(), registers.get(PC));
                assert!(registers.is_user());
            }
        }
    }

    #[test]
    fn fewer_bytes_are_refused() {
        let parsers: [(Parser, usize); 4] = [
            (Registers::from_user_regs, 272),
            (Registers::from_prstatus, 384),
            (Registers::from_ucontext, 448),
            (|arch, bytes| Registers::from_perf_sample(arch, Registers::PERF_MASK, bytes), 8 + 33 * 8),
        ];
        for (parse, needed) in parsers {
            let mut bytes = bytes(needed);
            bytes[..8].copy_from_slice(&2u64.to_le_bytes());
            let parse = |bytes| parse(Aarch64::new(), bytes);
            assert!(parse(&bytes).is_ok());
            for len in 8..needed {
                assert_eq!(parse(&bytes[..len]), Err(LayoutError::TooShort { needed, len }));
            }
            for len in 0..8 {
                assert!(
                    matches!(parse(&bytes[..len]), Err(LayoutError::TooShort { len: told, .. }) if told == len)
                );
            }
        }
    }

    /// A sample with `mask`: the word for bit n is n + 100.
    fn sample(arch: Aarch64, abi: u64, mask: u64) -> Vec<u8> {
        let values = (0..64).filter(|bit| mask >> bit & 1 == 1).map(|bit| bit + 100);
        let words = [abi].into_iter().chain(values);
        words.flat_map(if arch == BOTH[0] { u64::to_le_bytes } else { u64::to_be_bytes }).collect()
    }

    #[test]
    fn perf_samples_hold_the_registers_of_their_mask() {
        let masks = (0..64).map(|bit| 1 << bit);
        for mask in masks.chain([0, Registers::PERF_MASK, 0x1_c000_0000, u64::MAX]) {
            for arch in BOTH {
                let registers = Registers::from_perf_sample(arch, mask, &sample(arch, 2, mask)).unwrap();
                // Numbers of `enum perf_event_arm_regs`: the same as DWARF's.
                for number in 0..33 {
                    let expected = (mask >> number & 1 == 1).then_some(u64::from(number) + 100);
                    assert_eq!(registers.get(Register(number)), expected, "{number} of mask {mask:#x}");
                }
            }
        }
        for number in (33..80).chain([0x1_0000, u32::MAX]) {
            assert_eq!(Registers::perf_register(number), None);
        }
    }

    #[test]
    fn perf_samples_of_another_abi_are_refused() {
        let with = |arch, abi: u64| {
            let mask = Registers::PERF_MASK;
            Registers::from_perf_sample(arch, mask, &sample(arch, abi, mask))
        };
        for arch in BOTH {
            assert_eq!(with(arch, 0), Ok(Registers::absent()));
            assert_eq!(Registers::from_perf_sample(arch, u64::MAX, &[0; 8]), Ok(Registers::absent()));
            for abi in [1, 3, 1 << 32, u64::MAX] {
                assert_eq!(with(arch, abi), Err(LayoutError::Abi { abi }));
            }
        }
    }
}
