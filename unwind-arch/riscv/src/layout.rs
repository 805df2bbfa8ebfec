//! Register sets in the layouts that Linux gives them, parsed on any host.
//!
//! All of them hold the pc and x1 to x31 in this order; slots are of the target's word.

use unwind_core::{Arch, LayoutError, PerfLayout, Register, RegisterLayout, WordSize};

use crate::*;

impl Registers {
    /// The registers to ask perf for: the `sample_regs_user` of `struct perf_event_attr`.
    pub const PERF_MASK: u64 = IN_PERF_64.mask();

    /// The size of `struct user_regs_struct`, in bytes: 128 or 256.
    pub const fn user_regs_size(arch: Riscv) -> usize {
        user_regs(arch).size
    }

    /// Where `struct elf_prstatus` has its `pr_reg`, in bytes: 72 or 112.
    pub const fn prstatus_regs(arch: Riscv) -> usize {
        match arch.word_size {
            WordSize::Four => 72,
            WordSize::Eight => 112,
        }
    }

    /// From `struct user_regs_struct`: what ptrace's `PTRACE_GETREGSET` with `NT_PRSTATUS` gives.
    /// Linux `arch/riscv/include/uapi/asm/ptrace.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_user_regs(arch: Riscv, bytes: &[u8]) -> Result<Self, LayoutError> {
        user_regs(arch).read(arch.byte_order(), bytes, 0)
    }

    /// From `struct elf_prstatus`: the descriptor of a core file's `NT_PRSTATUS` note. Linux
    /// `include/linux/elfcore.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_prstatus(arch: Riscv, bytes: &[u8]) -> Result<Self, LayoutError> {
        user_regs(arch).read(arch.byte_order(), bytes, Self::prstatus_regs(arch))
    }

    /// From `ucontext_t`: the third argument of a signal handler, also what `getcontext` fills.
    /// Needed are its bytes up to and with the general registers. Linux
    /// `arch/riscv/include/uapi/asm/ucontext.h` and `arch/riscv/include/uapi/asm/sigcontext.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_ucontext(arch: Riscv, bytes: &[u8]) -> Result<Self, LayoutError> {
        // `uc_mcontext` begins with them.
        let start = match arch.word_size {
            WordSize::Four => 160,
            WordSize::Eight => 176,
        };
        user_regs(arch).read(arch.byte_order(), bytes, start)
    }

    /// From a perf sample: the bytes of its `PERF_SAMPLE_REGS_USER` part, which are `u64 abi` and a
    /// `u64` for each bit of `mask`, the event's `sample_regs_user`. A sample without user registers
    /// (`PERF_SAMPLE_REGS_ABI_NONE`, a kernel thread's) becomes [`Registers::absent`]. Linux
    /// `include/uapi/linux/perf_event.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`], [`LayoutError::Abi`].
    pub fn from_perf_sample(arch: Riscv, mask: u64, bytes: &[u8]) -> Result<Self, LayoutError> {
        let layout = match arch.word_size {
            WordSize::Four => IN_PERF_32,
            WordSize::Eight => IN_PERF_64,
        };
        layout.read(arch.byte_order(), mask, bytes)
    }

    /// The register with this number in perf's masks: `enum perf_event_riscv_regs` of Linux
    /// `arch/riscv/include/uapi/asm/perf_regs.h`. `None` for the pc, which has no DWARF number, and for
    /// what may follow.
    pub fn perf_register(number: u32) -> Option<Register> {
        IN_PERF_64.register(number)
    }
}

const fn user_regs(arch: Riscv) -> RegisterLayout {
    match arch.word_size {
        WordSize::Four => {
            RegisterLayout { size: 128, word: WordSize::Four, ip: Some(0), registers: &IN_USER_REGS_32 }
        }
        WordSize::Eight => {
            RegisterLayout { size: 256, word: WordSize::Eight, ip: Some(0), registers: &IN_USER_REGS_64 }
        }
    }
}

const IN_PERF_64: PerfLayout = PerfLayout { abi: 2, ip: Some(0), registers: &IN_PERF };
const IN_PERF_32: PerfLayout = PerfLayout { abi: 1, ..IN_PERF_64 };

static IN_USER_REGS_32: [(Register, i32); 31] = [
    (RA, 4),
    (SP, 8),
    (GP, 12),
    (TP, 16),
    (T0, 20),
    (T1, 24),
    (T2, 28),
    (S0, 32),
    (S1, 36),
    (A0, 40),
    (A1, 44),
    (A2, 48),
    (A3, 52),
    (A4, 56),
    (A5, 60),
    (A6, 64),
    (A7, 68),
    (S2, 72),
    (S3, 76),
    (S4, 80),
    (S5, 84),
    (S6, 88),
    (S7, 92),
    (S8, 96),
    (S9, 100),
    (S10, 104),
    (S11, 108),
    (T3, 112),
    (T4, 116),
    (T5, 120),
    (T6, 124),
];

static IN_USER_REGS_64: [(Register, i32); 31] = [
    (RA, 8),
    (SP, 16),
    (GP, 24),
    (TP, 32),
    (T0, 40),
    (T1, 48),
    (T2, 56),
    (S0, 64),
    (S1, 72),
    (A0, 80),
    (A1, 88),
    (A2, 96),
    (A3, 104),
    (A4, 112),
    (A5, 120),
    (A6, 128),
    (A7, 136),
    (S2, 144),
    (S3, 152),
    (S4, 160),
    (S5, 168),
    (S6, 176),
    (S7, 184),
    (S8, 192),
    (S9, 200),
    (S10, 208),
    (S11, 216),
    (T3, 224),
    (T4, 232),
    (T5, 240),
    (T6, 248),
];

/// perf's numbers are DWARF's, but for 0, the pc.
static IN_PERF: [(u32, Register); 31] = [
    (1, RA),
    (2, SP),
    (3, GP),
    (4, TP),
    (5, T0),
    (6, T1),
    (7, T2),
    (8, S0),
    (9, S1),
    (10, A0),
    (11, A1),
    (12, A2),
    (13, A3),
    (14, A4),
    (15, A5),
    (16, A6),
    (17, A7),
    (18, S2),
    (19, S3),
    (20, S4),
    (21, S5),
    (22, S6),
    (23, S7),
    (24, S8),
    (25, S9),
    (26, S10),
    (27, S11),
    (28, T3),
    (29, T4),
    (30, T5),
    (31, T6),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::{RegisterFile, UserRegisters};

    use super::*;

    const BOTH: [Riscv; 2] = [Riscv::rv32(), Riscv::new()];

    /// Offsets as a C compiler prints them, for both: `offsetof(struct user_regs_struct, ra)` and so
    /// on. The pc is at 0.
    const TRUE_USER_REGS: [(Register, [usize; 2]); 14] = [
        (RA, [4, 8]),
        (SP, [8, 16]),
        (GP, [12, 24]),
        (TP, [16, 32]),
        (T0, [20, 40]),
        (T2, [28, 56]),
        (S0, [32, 64]),
        (S1, [36, 72]),
        (A0, [40, 80]),
        (A7, [68, 136]),
        (S2, [72, 144]),
        (S11, [108, 216]),
        (T3, [112, 224]),
        (T6, [124, 248]),
    ];

    /// The same for `offsetof(struct elf_prstatus, pr_reg)`.
    const TRUE_PR_REG: [usize; 2] = [72, 112];
    /// The same for `offsetof(struct ucontext, uc_mcontext)`.
    const TRUE_MCONTEXT: [usize; 2] = [160, 176];

    /// Every byte is different from its neighbours, and every word from every other.
    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| u8::try_from((at * 7 + at / 256 * 3) % 251).unwrap()).collect()
    }

    fn word(arch: Riscv, bytes: &[u8], at: usize) -> u64 {
        if arch == Riscv::new() {
            u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
        } else {
            u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()).into()
        }
    }

    type Parser = fn(Riscv, &[u8]) -> Result<Registers, LayoutError>;

    #[test]
    fn every_register_is_where_the_kernel_puts_it() {
        let parsers: [(Parser, [usize; 2]); 3] = [
            (Registers::from_user_regs, [0; 2]),
            (Registers::from_prstatus, TRUE_PR_REG),
            (Registers::from_ucontext, TRUE_MCONTEXT),
        ];
        let bytes = bytes(1000);
        for (parse, starts) in parsers {
            for (which, arch) in BOTH.into_iter().enumerate() {
                let registers = parse(arch, &bytes).unwrap();
                let start = starts[which];
                for (register, offsets) in TRUE_USER_REGS {
                    let expected = word(arch, &bytes, start + offsets[which]);
                    assert_eq!(registers.get(register), Some(expected), "{register:?}");
                }
                for number in 1..32 {
                    let size = [4, 8][which];
                    let expected = word(arch, &bytes, start + size * usize::from(number));
                    assert_eq!(registers.get(Register(number)), Some(expected), "x{number}");
                }
                assert_eq!(registers.get(ZERO), None);
                assert_eq!(registers.ip(), Some(word(arch, &bytes, start)));
                assert!(registers.is_user());
            }
        }
        assert_eq!(BOTH.map(Registers::prstatus_regs), TRUE_PR_REG);
    }

    #[test]
    fn fewer_bytes_are_refused() {
        // sizeof(struct user_regs_struct) is 128 and 256.
        let perf: Parser = |arch, bytes| Registers::from_perf_sample(arch, Registers::PERF_MASK, bytes);
        let parsers: [(Parser, [usize; 2]); 4] = [
            (Registers::from_user_regs, [128, 256]),
            (Registers::from_prstatus, [200, 368]),
            (Registers::from_ucontext, [288, 432]),
            (perf, [8 + 32 * 8; 2]),
        ];
        for (parse, sizes) in parsers {
            for ((arch, needed), abi) in BOTH.into_iter().zip(sizes).zip([1u64, 2]) {
                let mut bytes = bytes(needed);
                bytes[..8].copy_from_slice(&abi.to_le_bytes());
                assert!(parse(arch, &bytes).is_ok());
                for len in 8..needed {
                    assert_eq!(parse(arch, &bytes[..len]), Err(LayoutError::TooShort { needed, len }));
                }
                for len in 0..8 {
                    let error = parse(arch, &bytes[..len]);
                    assert!(matches!(error, Err(LayoutError::TooShort { len: told, .. }) if told == len));
                }
            }
        }
        assert_eq!(BOTH.map(Registers::user_regs_size), [128, 256]);
    }

    /// A sample with `mask`: the word for bit n is n + 100.
    fn sample(abi: u64, mask: u64) -> Vec<u8> {
        let values = (0..64).filter(|bit| mask >> bit & 1 == 1).map(|bit| bit + 100);
        [abi].into_iter().chain(values).flat_map(u64::to_le_bytes).collect()
    }

    #[test]
    fn perf_samples_hold_the_registers_of_their_mask() {
        assert_eq!(Registers::PERF_MASK, 0xffff_ffff);
        let masks = (0..64).map(|bit| 1 << bit);
        for mask in masks.chain([0, Registers::PERF_MASK, 0x105, u64::MAX]) {
            for (arch, abi) in BOTH.into_iter().zip([1, 2]) {
                let registers = Registers::from_perf_sample(arch, mask, &sample(abi, mask)).unwrap();
                // Numbers of `enum perf_event_riscv_regs`: the pc, then x1 to x31.
                let expected = |number: u16| (mask >> number & 1 == 1).then_some(u64::from(number) + 100);
                assert_eq!(registers.ip(), expected(0), "pc of mask {mask:#x}");
                assert_eq!(registers.get(ZERO), None);
                for number in 1..32 {
                    let got = registers.get(Register(number));
                    assert_eq!(got, expected(number), "{number} of mask {mask:#x}");
                }
            }
        }
        for number in [0].into_iter().chain(32..80).chain([0x1_0000, u32::MAX]) {
            assert_eq!(Registers::perf_register(number), None);
        }
    }

    #[test]
    fn perf_samples_of_another_abi_are_refused() {
        let mask = Registers::PERF_MASK;
        for (arch, ours) in BOTH.into_iter().zip([1, 2]) {
            let with = |abi: u64| Registers::from_perf_sample(arch, mask, &sample(abi, mask));
            assert_eq!(with(0), Ok(Registers::absent()));
            assert_eq!(Registers::from_perf_sample(arch, u64::MAX, &[0; 8]), Ok(Registers::absent()));
            for abi in [3 - ours, 3, 1 << 32, u64::MAX] {
                assert_eq!(with(abi), Err(LayoutError::Abi { abi }));
            }
        }
    }
}
