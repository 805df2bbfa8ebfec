//! Register sets in the layouts that Linux gives them, parsed on any host.
//!
//! All of them have r0 to r31 in the order of their numbers, the program counter, and LR four words
//! behind it.

use unwind_core::{Arch, LayoutError, PerfLayout, Register, RegisterFile, RegisterLayout, WordSize};

use crate::*;

impl Registers {
    /// The size of `elf_gregset_t`, in bytes.
    pub const USER_REGS_SIZE: usize = USER_REGS.size;

    /// Where `struct elf_prstatus` has its `pr_reg`, in bytes.
    pub const PRSTATUS_REGS: usize = 112;

    /// The registers to ask perf for: the `sample_regs_user` of `struct perf_event_attr`.
    pub const PERF_MASK: u64 = PERF.mask();

    /// From `elf_gregset_t`, which begins with a `struct pt_regs`: what ptrace's `PTRACE_GETREGSET` with
    /// `NT_PRSTATUS` gives. Needed are its bytes up to and with LR, so that a `struct pt_regs`, which
    /// `PTRACE_GETREGS` gives, is enough. Linux `arch/powerpc/include/uapi/asm/ptrace.h` and `elf.h`
    /// beside it. The floating point registers are not in it: see
    /// [`with_fp_regs`](Registers::with_fp_regs).
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_user_regs(arch: Powerpc64, bytes: &[u8]) -> Result<Self, LayoutError> {
        UP_TO_LR.read(arch.byte_order(), bytes, 0)
    }

    /// From `struct elf_prstatus`: the descriptor of a core file's `NT_PRSTATUS` note. Linux
    /// `include/linux/elfcore.h`. The floating point registers are in a note of their own: see
    /// [`with_fp_regs`](Registers::with_fp_regs).
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_prstatus(arch: Powerpc64, bytes: &[u8]) -> Result<Self, LayoutError> {
        USER_REGS.read(arch.byte_order(), bytes, Self::PRSTATUS_REGS)
    }

    /// The same set, with f0 to f31 from `elf_fpregset_t`: what ptrace gives for `NT_FPREGSET` (2), and
    /// the descriptor of a core file's note of that type. Needed are its bytes up to and with f31.
    /// Linux `arch/powerpc/include/uapi/asm/elf.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn with_fp_regs(self, arch: Powerpc64, bytes: &[u8]) -> Result<Self, LayoutError> {
        let floating: Registers = FP_REGS.read(arch.byte_order(), bytes, 0)?;
        let known = |(register, _): &(Register, i32)| Some((*register, floating.get(*register)?));
        let values = IN_FP_REGS.iter().filter_map(known);
        Ok(values.fold(self, |set, (register, value)| set.with(register, value)))
    }

    /// From `ucontext_t`: the third argument of a signal handler, also what `getcontext` fills.
    /// Needed are its bytes up to and with the floating point registers. Linux
    /// `arch/powerpc/include/uapi/asm/ucontext.h` and `arch/powerpc/include/uapi/asm/sigcontext.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_ucontext(arch: Powerpc64, bytes: &[u8]) -> Result<Self, LayoutError> {
        MCONTEXT.read(arch.byte_order(), bytes, UCONTEXT_REGS)
    }

    /// From a perf sample: the bytes of its `PERF_SAMPLE_REGS_USER` part, which are `u64 abi` and a
    /// `u64` for each bit of `mask`, the event's `sample_regs_user`. A sample without user registers
    /// (`PERF_SAMPLE_REGS_ABI_NONE`, a kernel thread's) becomes [`Registers::absent`]. Linux
    /// `include/uapi/linux/perf_event.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`], [`LayoutError::Abi`].
    pub fn from_perf_sample(arch: Powerpc64, mask: u64, bytes: &[u8]) -> Result<Self, LayoutError> {
        PERF.read(arch.byte_order(), mask, bytes)
    }

    /// The register with this number in perf's masks: `enum perf_event_powerpc_regs` of Linux
    /// `arch/powerpc/include/uapi/asm/perf_regs.h`. `None` for NIP, which has no DWARF number, and for
    /// those that unwinding has no use for.
    pub fn perf_register(number: u32) -> Option<Register> {
        PERF.register(number)
    }
}

/// `uc_mcontext.gp_regs`.
const UCONTEXT_REGS: usize = 232;

const USER_REGS: RegisterLayout =
    RegisterLayout { size: 384, word: WordSize::Eight, ip: Some(256), registers: &IN_USER_REGS };

const UP_TO_LR: RegisterLayout = RegisterLayout { size: 296, ..USER_REGS };

const FP_REGS: RegisterLayout =
    RegisterLayout { size: 256, word: WordSize::Eight, ip: None, registers: &IN_FP_REGS };

/// `gp_regs` and, behind them, `fp_regs`.
const MCONTEXT: RegisterLayout =
    RegisterLayout { size: 640, word: WordSize::Eight, ip: Some(256), registers: &IN_MCONTEXT };

const PERF: PerfLayout = PerfLayout { abi: 2, ip: Some(32), registers: &IN_PERF };

static IN_USER_REGS: [(Register, i32); 33] = [
    (R0, 0),
    (R1, 8),
    (R2, 16),
    (R3, 24),
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
    (R22, 176),
    (R23, 184),
    (R24, 192),
    (R25, 200),
    (R26, 208),
    (R27, 216),
    (R28, 224),
    (R29, 232),
    (R30, 240),
    (R31, 248),
    (LR, 288),
];

static IN_FP_REGS: [(Register, i32); 32] = [
    (F0, 0),
    (F1, 8),
    (F2, 16),
    (F3, 24),
    (F4, 32),
    (F5, 40),
    (F6, 48),
    (F7, 56),
    (F8, 64),
    (F9, 72),
    (F10, 80),
    (F11, 88),
    (F12, 96),
    (F13, 104),
    (F14, 112),
    (F15, 120),
    (F16, 128),
    (F17, 136),
    (F18, 144),
    (F19, 152),
    (F20, 160),
    (F21, 168),
    (F22, 176),
    (F23, 184),
    (F24, 192),
    (F25, 200),
    (F26, 208),
    (F27, 216),
    (F28, 224),
    (F29, 232),
    (F30, 240),
    (F31, 248),
];

static IN_MCONTEXT: [(Register, i32); 65] = [
    (R0, 0),
    (R1, 8),
    (R2, 16),
    (R3, 24),
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
    (R22, 176),
    (R23, 184),
    (R24, 192),
    (R25, 200),
    (R26, 208),
    (R27, 216),
    (R28, 224),
    (R29, 232),
    (R30, 240),
    (R31, 248),
    (LR, 288),
    (F0, 384),
    (F1, 392),
    (F2, 400),
    (F3, 408),
    (F4, 416),
    (F5, 424),
    (F6, 432),
    (F7, 440),
    (F8, 448),
    (F9, 456),
    (F10, 464),
    (F11, 472),
    (F12, 480),
    (F13, 488),
    (F14, 496),
    (F15, 504),
    (F16, 512),
    (F17, 520),
    (F18, 528),
    (F19, 536),
    (F20, 544),
    (F21, 552),
    (F22, 560),
    (F23, 568),
    (F24, 576),
    (F25, 584),
    (F26, 592),
    (F27, 600),
    (F28, 608),
    (F29, 616),
    (F30, 624),
    (F31, 632),
];

static IN_PERF: [(u32, Register); 33] = [
    (0, R0),
    (1, R1),
    (2, R2),
    (3, R3),
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
    (22, R22),
    (23, R23),
    (24, R24),
    (25, R25),
    (26, R26),
    (27, R27),
    (28, R28),
    (29, R29),
    (30, R30),
    (31, R31),
    (36, LR),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::{ByteOrder, UserRegisters};

    use super::*;

    const BOTH: [Powerpc64; 2] = [Powerpc64::big_endian(), Powerpc64::little_endian()];

    /// Every byte is different from its neighbours, and every word from every other.
    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| u8::try_from((at * 7 + at / 256 * 3) % 251).unwrap()).collect()
    }

    fn word(arch: Powerpc64, bytes: &[u8], at: usize) -> u64 {
        let bytes = bytes[at..at + 8].try_into().unwrap();
        match arch.byte_order() {
            ByteOrder::Big => u64::from_be_bytes(bytes),
            ByteOrder::Little => u64::from_le_bytes(bytes),
        }
    }

    type Parser = fn(Powerpc64, &[u8]) -> Result<Registers, LayoutError>;

    #[test]
    fn every_register_is_where_the_kernel_puts_it() {
        // Offsets as a C compiler prints them, of gpr[0], nip, link and, in a ucontext, fp_regs.
        let parsers: [(Parser, [usize; 3], Option<usize>); 3] = [
            (Registers::from_user_regs, [0, 256, 288], None),
            (Registers::from_prstatus, [112, 112 + 256, 112 + 288], None),
            (Registers::from_ucontext, [232, 488, 520], Some(616)),
        ];
        let bytes = bytes(1000);
        for (parse, [first, nip, link], floating) in parsers {
            for arch in BOTH {
                let registers = parse(arch, &bytes).unwrap();
                assert_eq!(registers.ip(), Some(word(arch, &bytes, nip)));
                assert_eq!(registers.get(LR), Some(word(arch, &bytes, link)));
                for number in 0..32 {
                    let place = 8 * usize::from(number);
                    let expected = word(arch, &bytes, first + place);
                    assert_eq!(registers.get(Register(number)), Some(expected), "r{number}");
                    let expected = floating.map(|first| word(arch, &bytes, first + place));
                    assert_eq!(registers.get(Register(32 + number)), expected, "f{number}");
                }
                assert!(registers.is_user());
            }
        }
    }

    #[test]
    fn floating_point_registers_are_added() {
        let bytes = bytes(264);
        let registers = Registers::new(1, 2, 3, 4).with(F3, 9);
        for arch in BOTH {
            let added = registers.with_fp_regs(arch, &bytes).unwrap();
            for number in 0..32 {
                let expected = word(arch, &bytes, 8 * usize::from(number));
                assert_eq!(added.get(Register(32 + number)), Some(expected));
            }
            assert_eq!((added.ip(), added.get(R1), added.get(R0)), (Some(1), Some(2), None));
            for len in 0..256 {
                let refused = registers.with_fp_regs(arch, &bytes[..len]);
                assert_eq!(refused, Err(LayoutError::TooShort { needed: 256, len }));
            }
        }
    }

    #[test]
    fn fewer_bytes_are_refused() {
        let parsers: [(Parser, usize); 4] = [
            (Registers::from_user_regs, 296),
            (Registers::from_prstatus, 496),
            (Registers::from_ucontext, 872),
            (|arch, bytes| Registers::from_perf_sample(arch, Registers::PERF_MASK, bytes), 8 + 34 * 8),
        ];
        for (parse, needed) in parsers {
            let mut bytes = bytes(needed);
            bytes[..8].copy_from_slice(&2u64.to_be_bytes());
            let parse = |bytes| parse(Powerpc64::big_endian(), bytes);
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
    fn sample(arch: Powerpc64, abi: u64, mask: u64) -> Vec<u8> {
        let values = (0..64).filter(|bit| mask >> bit & 1 == 1).map(|bit| bit + 100);
        let words = [abi].into_iter().chain(values);
        words.flat_map(if arch == BOTH[0] { u64::to_be_bytes } else { u64::to_le_bytes }).collect()
    }

    #[test]
    fn perf_samples_hold_the_registers_of_their_mask() {
        let masks = (0..64).map(|bit| 1 << bit);
        for mask in masks.chain([0, Registers::PERF_MASK, 0x11_0000_0002, u64::MAX]) {
            for arch in BOTH {
                let registers = Registers::from_perf_sample(arch, mask, &sample(arch, 2, mask)).unwrap();
                let held = |bit: u64| (mask >> bit & 1 == 1).then_some(bit + 100);
                // `enum perf_event_powerpc_regs`: R0 to R31 are 0 to 31, NIP is 32, LINK is 36.
                for number in 0..32 {
                    assert_eq!(registers.get(Register(number)), held(number.into()), "{mask:#x}");
                }
                assert_eq!((registers.ip(), registers.get(LR)), (held(32), held(36)), "{mask:#x}");
            }
        }
        assert_eq!(Registers::PERF_MASK, 0x11_ffff_ffff);
        assert_eq!((Registers::perf_register(31), Registers::perf_register(36)), (Some(R31), Some(LR)));
        for number in (32..36).chain(37..80).chain([0x1_0000, u32::MAX]) {
            assert_eq!(Registers::perf_register(number), None);
        }
    }

    #[test]
    fn perf_samples_of_another_abi_are_refused() {
        let mask = Registers::PERF_MASK;
        for arch in BOTH {
            let with = |abi: u64| Registers::from_perf_sample(arch, mask, &sample(arch, abi, mask));
            assert_eq!(with(0), Ok(Registers::absent()));
            assert_eq!(Registers::from_perf_sample(arch, u64::MAX, &[0; 8]), Ok(Registers::absent()));
            for abi in [1, 3, 1 << 32, u64::MAX] {
                assert_eq!(with(abi), Err(LayoutError::Abi { abi }));
            }
        }
    }
}
