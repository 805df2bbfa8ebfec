//! Register sets in the layouts that Linux gives them, parsed on any host.
//!
//! ptrace's has r0 to r31 and then, behind one word more, the pc; that of signals has the pc first.

use unwind_core::{Arch, LayoutError, PerfLayout, Register, RegisterLayout, WordSize};

use crate::*;

impl Registers {
    /// The size of `struct user_pt_regs`, in bytes.
    pub const USER_REGS_SIZE: usize = USER_REGS.size;

    /// Where `struct elf_prstatus` has its `pr_reg`, in bytes.
    pub const PRSTATUS_REGS: usize = 112;

    /// The registers to ask perf for: the `sample_regs_user` of `struct perf_event_attr`.
    pub const PERF_MASK: u64 = PERF.mask();

    /// From `struct user_pt_regs`: what ptrace's `PTRACE_GETREGSET` with `NT_PRSTATUS` gives. Linux
    /// `arch/loongarch/include/uapi/asm/ptrace.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_user_regs(arch: Loongarch64, bytes: &[u8]) -> Result<Self, LayoutError> {
        USER_REGS.read(arch.byte_order(), bytes, 0)
    }

    /// From `struct elf_prstatus`: the descriptor of a core file's `NT_PRSTATUS` note. Linux
    /// `include/linux/elfcore.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_prstatus(arch: Loongarch64, bytes: &[u8]) -> Result<Self, LayoutError> {
        USER_REGS.read(arch.byte_order(), bytes, Self::PRSTATUS_REGS)
    }

    /// From `ucontext_t`: the third argument of a signal handler, also what `getcontext` fills.
    /// Needed are its bytes up to and with the general registers. Linux
    /// `arch/loongarch/include/uapi/asm/ucontext.h` and `arch/loongarch/include/uapi/asm/sigcontext.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_ucontext(arch: Loongarch64, bytes: &[u8]) -> Result<Self, LayoutError> {
        SIGCONTEXT.read(arch.byte_order(), bytes, UCONTEXT_REGS)
    }

    /// From a perf sample: the bytes of its `PERF_SAMPLE_REGS_USER` part, which are `u64 abi` and a
    /// `u64` for each bit of `mask`, the event's `sample_regs_user`. A sample without user registers
    /// (`PERF_SAMPLE_REGS_ABI_NONE`, a kernel thread's) becomes [`Registers::absent`]. Linux
    /// `include/uapi/linux/perf_event.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`], [`LayoutError::Abi`].
    pub fn from_perf_sample(arch: Loongarch64, mask: u64, bytes: &[u8]) -> Result<Self, LayoutError> {
        PERF.read(arch.byte_order(), mask, bytes)
    }

    /// The register with this number in perf's masks: `enum perf_event_loongarch_regs` of Linux
    /// `arch/loongarch/include/uapi/asm/perf_regs.h`. `None` for the pc, which has no DWARF number, and
    /// for what may follow.
    pub fn perf_register(number: u32) -> Option<Register> {
        PERF.register(number)
    }
}

/// `uc_mcontext`.
const UCONTEXT_REGS: usize = 176;

const USER_REGS: RegisterLayout =
    RegisterLayout { size: 360, word: WordSize::Eight, ip: Some(264), registers: &IN_USER_REGS };

const SIGCONTEXT: RegisterLayout =
    RegisterLayout { size: 264, word: WordSize::Eight, ip: Some(0), registers: &IN_SIGCONTEXT };

const PERF: PerfLayout = PerfLayout { abi: 2, ip: Some(0), registers: &IN_PERF };

static IN_USER_REGS: [(Register, i32); 32] = [
    (R0, 0),
    (RA, 8),
    (R2, 16),
    (SP, 24),
    (R4, 32),
    (R5, 40),
    (R6, 48),
    (R7, 56),
    (R8, 64),
    (R9, 72),
    (R10, 80),
    (R11, 88),
    (R12, 96),
    (R13, 104),
    (R14, 112),
    (R15, 120),
    (R16, 128),
    (R17, 136),
    (R18, 144),
    (R19, 152),
    (R20, 160),
    (R21, 168),
    (FP, 176),
    (R23, 184),
    (R24, 192),
    (R25, 200),
    (R26, 208),
    (R27, 216),
    (R28, 224),
    (R29, 232),
    (R30, 240),
    (R31, 248),
];

static IN_SIGCONTEXT: [(Register, i32); 32] = [
    (R0, 8),
    (RA, 16),
    (R2, 24),
    (SP, 32),
    (R4, 40),
    (R5, 48),
    (R6, 56),
    (R7, 64),
    (R8, 72),
    (R9, 80),
    (R10, 88),
    (R11, 96),
    (R12, 104),
    (R13, 112),
    (R14, 120),
    (R15, 128),
    (R16, 136),
    (R17, 144),
    (R18, 152),
    (R19, 160),
    (R20, 168),
    (R21, 176),
    (FP, 184),
    (R23, 192),
    (R24, 200),
    (R25, 208),
    (R26, 216),
    (R27, 224),
    (R28, 232),
    (R29, 240),
    (R30, 248),
    (R31, 256),
];

/// perf's numbers are DWARF's, but for 0, which is the pc.
static IN_PERF: [(u32, Register); 31] = [
    (1, RA),
    (2, R2),
    (3, SP),
    (4, R4),
    (5, R5),
    (6, R6),
    (7, R7),
    (8, R8),
    (9, R9),
    (10, R10),
    (11, R11),
    (12, R12),
    (13, R13),
    (14, R14),
    (15, R15),
    (16, R16),
    (17, R17),
    (18, R18),
    (19, R19),
    (20, R20),
    (21, R21),
    (22, FP),
    (23, R23),
    (24, R24),
    (25, R25),
    (26, R26),
    (27, R27),
    (28, R28),
    (29, R29),
    (30, R30),
    (31, R31),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::{RegisterFile, UserRegisters};

    use super::*;

    /// Every byte is different from its neighbours, and every word from every other.
    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| u8::try_from((at * 7 + at / 256 * 3) % 251).unwrap()).collect()
    }

    fn word(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    type Parser = fn(Loongarch64, &[u8]) -> Result<Registers, LayoutError>;

    #[test]
    fn every_register_is_where_the_kernel_puts_it() {
        // Offsets as a C compiler prints them, of regs[0], regs[31] and csr_era; of sc_regs and sc_pc.
        let parsers: [(Parser, [usize; 3]); 3] = [
            (Registers::from_user_regs, [0, 248, 264]),
            (Registers::from_prstatus, [112, 112 + 248, 112 + 264]),
            (Registers::from_ucontext, [184, 432, 176]),
        ];
        let bytes = bytes(1000);
        for (parse, [first, last, pc]) in parsers {
            let registers = parse(Loongarch64, &bytes).unwrap();
            assert_eq!(registers.ip(), Some(word(&bytes, pc)));
            assert_eq!(registers.get(R31), Some(word(&bytes, last)));
            for number in 0..32 {
                let expected = word(&bytes, first + 8 * usize::from(number));
                assert_eq!(registers.get(Register(number)), Some(expected), "r{number}");
            }
            assert!(registers.is_user());
        }
    }

    #[test]
    fn fewer_bytes_are_refused() {
        let parsers: [(Parser, usize); 4] = [
            (Registers::from_user_regs, 360),
            (Registers::from_prstatus, 472),
            (Registers::from_ucontext, 440),
            (|arch, bytes| Registers::from_perf_sample(arch, Registers::PERF_MASK, bytes), 8 + 32 * 8),
        ];
        for (parse, needed) in parsers {
            let mut bytes = bytes(needed);
            bytes[..8].copy_from_slice(&2u64.to_le_bytes());
            let parse = |bytes| parse(Loongarch64, bytes);
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
    fn sample(abi: u64, mask: u64) -> Vec<u8> {
        let values = (0..64).filter(|bit| mask >> bit & 1 == 1).map(|bit| bit + 100);
        [abi].into_iter().chain(values).flat_map(u64::to_le_bytes).collect()
    }

    #[test]
    fn perf_samples_hold_the_registers_of_their_mask() {
        let masks = (0..64).map(|bit| 1 << bit);
        for mask in masks.chain([0, Registers::PERF_MASK, 0x40_000b, u64::MAX]) {
            let registers = Registers::from_perf_sample(Loongarch64, mask, &sample(2, mask)).unwrap();
            let held = |bit: u64| (mask >> bit & 1 == 1).then_some(bit + 100);
            // `enum perf_event_loongarch_regs`: PC is 0, R1 to R31 are 1 to 31.
            assert_eq!(registers.ip(), held(0), "{mask:#x}");
            for number in 1..32 {
                assert_eq!(registers.get(Register(number)), held(number.into()), "{number} of {mask:#x}");
                assert_eq!(Registers::perf_register(number.into()), Some(Register(number)));
            }
        }
        assert_eq!(Registers::PERF_MASK, 0xffff_ffff);
        for number in [0].into_iter().chain(32..80).chain([0x1_0000, u32::MAX]) {
            assert_eq!(Registers::perf_register(number), None);
        }
    }

    #[test]
    fn perf_samples_of_another_abi_are_refused() {
        let mask = Registers::PERF_MASK;
        let with = |abi: u64| Registers::from_perf_sample(Loongarch64, mask, &sample(abi, mask));
        assert_eq!(with(0), Ok(Registers::absent()));
        assert_eq!(Registers::from_perf_sample(Loongarch64, u64::MAX, &[0; 8]), Ok(Registers::absent()));
        for abi in [1, 3, 1 << 32, u64::MAX] {
            assert_eq!(with(abi), Err(LayoutError::Abi { abi }));
        }
    }
}
