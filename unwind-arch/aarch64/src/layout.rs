//! Register sets in the layouts that Linux gives them, parsed on any host.
//!
//! All of them hold x0 to x30, sp and pc in this order, which is that of their DWARF numbers.

use unwind_core::{Arch, LayoutError, PerfLayout, Register, RegisterLayout, WordSize};

use crate::*;

impl Registers {
    /// The size of `struct user_pt_regs`, in bytes.
    pub const USER_REGS_SIZE: usize = USER_REGS.size;

    /// Where `struct elf_prstatus` has its `pr_reg`, in bytes.
    pub const PRSTATUS_REGS: usize = 112;

    /// The registers to ask perf for: the `sample_regs_user` of `struct perf_event_attr`.
    pub const PERF_MASK: u64 = PERF.mask();

    /// From `struct user_pt_regs` (`user_regs_struct` in C libraries): what ptrace's
    /// `PTRACE_GETREGSET` with `NT_PRSTATUS` gives. Linux `arch/arm64/include/uapi/asm/ptrace.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_user_regs(arch: Aarch64, bytes: &[u8]) -> Result<Self, LayoutError> {
        USER_REGS.read(arch.byte_order(), bytes, 0)
    }

    /// From `struct elf_prstatus`: the descriptor of a core file's `NT_PRSTATUS` note. Linux
    /// `include/linux/elfcore.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_prstatus(arch: Aarch64, bytes: &[u8]) -> Result<Self, LayoutError> {
        USER_REGS.read(arch.byte_order(), bytes, Self::PRSTATUS_REGS)
    }

    /// From `ucontext_t`: the third argument of a signal handler, also what `getcontext` fills.
    /// Needed are its bytes up to and with the general registers. Linux
    /// `arch/arm64/include/uapi/asm/ucontext.h` and `arch/arm64/include/uapi/asm/sigcontext.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_ucontext(arch: Aarch64, bytes: &[u8]) -> Result<Self, LayoutError> {
        UP_TO_PC.read(arch.byte_order(), bytes, UCONTEXT_REGS)
    }

    /// From a perf sample: the bytes of its `PERF_SAMPLE_REGS_USER` part, which are `u64 abi` and a
    /// `u64` for each bit of `mask`, the event's `sample_regs_user`. A sample without user registers
    /// (`PERF_SAMPLE_REGS_ABI_NONE`, a kernel thread's) becomes [`Registers::absent`]. Linux
    /// `include/uapi/linux/perf_event.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`], [`LayoutError::Abi`].
    pub fn from_perf_sample(arch: Aarch64, mask: u64, bytes: &[u8]) -> Result<Self, LayoutError> {
        PERF.read(arch.byte_order(), mask, bytes)
    }

    /// The register with this number in perf's masks: `enum perf_event_arm_regs` of Linux
    /// `arch/arm64/include/uapi/asm/perf_regs.h`. `None` for VG and what may follow.
    pub fn perf_register(number: u32) -> Option<Register> {
        PERF.register(number)
    }
}

/// `uc_mcontext` is at 176, and in it `regs` at 8.
const UCONTEXT_REGS: usize = 184;

const USER_REGS: RegisterLayout =
    RegisterLayout { size: 272, word: WordSize::Eight, ip: None, registers: &IN_USER_REGS };

/// Up to the end of pc, the last general register.
const UP_TO_PC: RegisterLayout = RegisterLayout { size: 264, ..USER_REGS };

const PERF: PerfLayout = PerfLayout { abi: 2, ip: None, registers: &IN_PERF };

static IN_USER_REGS: [(Register, i32); 33] = [
    (X0, 0),
    (X1, 8),
    (X2, 16),
    (X3, 24),
    (X4, 32),
    (X5, 40),
    (X6, 48),
    (X7, 56),
    (X8, 64),
    (X9, 72),
    (X10, 80),
    (X11, 88),
    (X12, 96),
    (X13, 104),
    (X14, 112),
    (X15, 120),
    (X16, 128),
    (X17, 136),
    (X18, 144),
    (X19, 152),
    (X20, 160),
    (X21, 168),
    (X22, 176),
    (X23, 184),
    (X24, 192),
    (X25, 200),
    (X26, 208),
    (X27, 216),
    (X28, 224),
    (X29, 232),
    (X30, 240),
    (SP, 248),
    (PC, 256),
];

/// perf's numbers are DWARF's.
static IN_PERF: [(u32, Register); 33] = [
    (0, X0),
    (1, X1),
    (2, X2),
    (3, X3),
    (4, X4),
    (5, X5),
    (6, X6),
    (7, X7),
    (8, X8),
    (9, X9),
    (10, X10),
    (11, X11),
    (12, X12),
    (13, X13),
    (14, X14),
    (15, X15),
    (16, X16),
    (17, X17),
    (18, X18),
    (19, X19),
    (20, X20),
    (21, X21),
    (22, X22),
    (23, X23),
    (24, X24),
    (25, X25),
    (26, X26),
    (27, X27),
    (28, X28),
    (29, X29),
    (30, X30),
    (31, SP),
    (32, PC),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::{RegisterFile, UserRegisters};

    use super::*;

    /// Offsets as a C compiler prints them: `offsetof(struct user_pt_regs, sp)` and so on.
    const TRUE_USER_REGS: [(Register, usize); 5] = [(X0, 0), (X15, 120), (X30, 240), (SP, 248), (PC, 256)];

    /// The same for `offsetof(ucontext_t, uc_mcontext.sp)` and so on.
    const TRUE_UCONTEXT: [(Register, usize); 5] = [(X0, 184), (X15, 304), (X30, 424), (SP, 432), (PC, 440)];

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
            (Registers::from_user_regs, 0, &TRUE_USER_REGS),
            (Registers::from_prstatus, 112, &TRUE_USER_REGS),
            (Registers::from_ucontext, 0, &TRUE_UCONTEXT),
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
