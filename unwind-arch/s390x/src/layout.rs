//! Register sets in the layouts that Linux gives them, parsed on any host.
//!
//! All of them begin with the program status word (mask, address) and r0 to r15; only some have the
//! floating point registers, in which functions that call no others may keep general registers.

use unwind_core::{Arch, LayoutError, PerfLayout, Register, RegisterFile, RegisterLayout, WordSize};

use crate::*;

impl Registers {
    /// The size of `s390_regs`, in bytes.
    pub const USER_REGS_SIZE: usize = USER_REGS.size;

    /// Where `struct elf_prstatus` has its `pr_reg`, in bytes.
    pub const PRSTATUS_REGS: usize = 112;

    /// The registers to ask perf for: the `sample_regs_user` of `struct perf_event_attr`.
    pub const PERF_MASK: u64 = PERF.mask();

    /// From `s390_regs`: what ptrace's `PTRACE_GETREGSET` with `NT_PRSTATUS` gives. Linux
    /// `arch/s390/include/uapi/asm/ptrace.h`. The floating point registers are not in it: see
    /// [`with_fp_regs`](Registers::with_fp_regs).
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_user_regs(arch: S390x, bytes: &[u8]) -> Result<Self, LayoutError> {
        USER_REGS.read(arch.byte_order(), bytes, 0)
    }

    /// From `struct elf_prstatus`: the descriptor of a core file's `NT_PRSTATUS` note. Linux
    /// `include/linux/elfcore.h`. The floating point registers are in a note of their own: see
    /// [`with_fp_regs`](Registers::with_fp_regs).
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_prstatus(arch: S390x, bytes: &[u8]) -> Result<Self, LayoutError> {
        USER_REGS.read(arch.byte_order(), bytes, Self::PRSTATUS_REGS)
    }

    /// The same set, with f0 to f15 from `s390_fp_regs`: what ptrace gives for `NT_FPREGSET` (2), and
    /// the descriptor of a core file's note of that type. Linux `arch/s390/include/uapi/asm/ptrace.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn with_fp_regs(self, arch: S390x, bytes: &[u8]) -> Result<Self, LayoutError> {
        let floating: Registers = FP_REGS.read(arch.byte_order(), bytes, 0)?;
        let known = |(register, _): &(Register, i32)| Some((*register, floating.get(*register)?));
        let values = IN_FP_REGS.iter().filter_map(known);
        Ok(values.fold(self, |set, (register, value)| set.with(register, value)))
    }

    /// From `ucontext_t`: the third argument of a signal handler, also what `getcontext` fills.
    /// Needed are its bytes up to and with the floating point registers. Linux
    /// `arch/s390/include/uapi/asm/ucontext.h` and `arch/s390/include/uapi/asm/sigcontext.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_ucontext(arch: S390x, bytes: &[u8]) -> Result<Self, LayoutError> {
        SIGREGS.read(arch.byte_order(), bytes, UCONTEXT_REGS)
    }

    /// From a perf sample: the bytes of its `PERF_SAMPLE_REGS_USER` part, which are `u64 abi` and a
    /// `u64` for each bit of `mask`, the event's `sample_regs_user`. A sample without user registers
    /// (`PERF_SAMPLE_REGS_ABI_NONE`, a kernel thread's) becomes [`Registers::absent`]. Linux
    /// `include/uapi/linux/perf_event.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`], [`LayoutError::Abi`].
    pub fn from_perf_sample(arch: S390x, mask: u64, bytes: &[u8]) -> Result<Self, LayoutError> {
        PERF.read(arch.byte_order(), mask, bytes)
    }

    /// The register with this number in perf's masks: `enum perf_event_s390_regs` of Linux
    /// `arch/s390/include/uapi/asm/perf_regs.h`. `None` for what may follow.
    pub fn perf_register(number: u32) -> Option<Register> {
        PERF.register(number)
    }
}

/// `uc_mcontext`.
const UCONTEXT_REGS: usize = 40;

const USER_REGS: RegisterLayout =
    RegisterLayout { size: 216, word: WordSize::Eight, ip: None, registers: &IN_USER_REGS };

const FP_REGS: RegisterLayout =
    RegisterLayout { size: 136, word: WordSize::Eight, ip: None, registers: &IN_FP_REGS };

/// `_sigregs`.
const SIGREGS: RegisterLayout =
    RegisterLayout { size: 344, word: WordSize::Eight, ip: None, registers: &IN_SIGREGS };

const PERF: PerfLayout = PerfLayout { abi: 2, ip: None, registers: &IN_PERF };

static IN_USER_REGS: [(Register, i32); 18] = [
    (PSWM, 0),
    (PSWA, 8),
    (R0, 16),
    (R1, 24),
    (R2, 32),
    (R3, 40),
    (R4, 48),
    (R5, 56),
    (R6, 64),
    (R7, 72),
    (R8, 80),
    (R9, 88),
    (R10, 96),
    (R11, 104),
    (R12, 112),
    (R13, 120),
    (R14, 128),
    (R15, 136),
];

static IN_FP_REGS: [(Register, i32); 16] = [
    (F0, 8),
    (F1, 16),
    (F2, 24),
    (F3, 32),
    (F4, 40),
    (F5, 48),
    (F6, 56),
    (F7, 64),
    (F8, 72),
    (F9, 80),
    (F10, 88),
    (F11, 96),
    (F12, 104),
    (F13, 112),
    (F14, 120),
    (F15, 128),
];

static IN_SIGREGS: [(Register, i32); 34] = [
    (PSWM, 0),
    (PSWA, 8),
    (R0, 16),
    (R1, 24),
    (R2, 32),
    (R3, 40),
    (R4, 48),
    (R5, 56),
    (R6, 64),
    (R7, 72),
    (R8, 80),
    (R9, 88),
    (R10, 96),
    (R11, 104),
    (R12, 112),
    (R13, 120),
    (R14, 128),
    (R15, 136),
    (F0, 216),
    (F1, 224),
    (F2, 232),
    (F3, 240),
    (F4, 248),
    (F5, 256),
    (F6, 264),
    (F7, 272),
    (F8, 280),
    (F9, 288),
    (F10, 296),
    (F11, 304),
    (F12, 312),
    (F13, 320),
    (F14, 328),
    (F15, 336),
];

static IN_PERF: [(u32, Register); 34] = [
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
    (16, F0),
    (17, F1),
    (18, F2),
    (19, F3),
    (20, F4),
    (21, F5),
    (22, F6),
    (23, F7),
    (24, F8),
    (25, F9),
    (26, F10),
    (27, F11),
    (28, F12),
    (29, F13),
    (30, F14),
    (31, F15),
    (32, PSWM),
    (33, PSWA),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::UserRegisters;

    use super::*;

    /// Every byte is different from its neighbours, and every word from every other.
    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| u8::try_from((at * 7 + at / 256 * 3) % 251).unwrap()).collect()
    }

    fn word(bytes: &[u8], at: usize) -> u64 {
        u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    const FLOATING: [Register; 16] = [F0, F1, F2, F3, F4, F5, F6, F7, F8, F9, F10, F11, F12, F13, F14, F15];

    type Parser = fn(S390x, &[u8]) -> Result<Registers, LayoutError>;

    #[test]
    fn every_register_is_where_the_kernel_puts_it() {
        // Offsets as a C compiler prints them, of psw.mask, psw.addr, gprs[0], gprs[15] and fprs[0].
        let parsers: [(Parser, [usize; 4], Option<usize>); 3] = [
            (Registers::from_user_regs, [0, 8, 16, 136], None),
            (Registers::from_prstatus, [112, 112 + 8, 112 + 16, 112 + 136], None),
            (Registers::from_ucontext, [40, 48, 56, 176], Some(256)),
        ];
        let bytes = bytes(1000);
        for (parse, [mask, address, first, last], floating) in parsers {
            let registers = parse(S390x, &bytes).unwrap();
            assert_eq!(registers.get(PSWM), Some(word(&bytes, mask)));
            assert_eq!(registers.get(PSWA), Some(word(&bytes, address)));
            assert_eq!(registers.get(R15), Some(word(&bytes, last)));
            for number in 0..16 {
                let expected = word(&bytes, first + 8 * usize::from(number));
                assert_eq!(registers.get(Register(number)), Some(expected), "r{number}");
                let expected = floating.map(|first| word(&bytes, first + 8 * usize::from(number)));
                assert_eq!(registers.get(FLOATING[usize::from(number)]), expected, "f{number}");
            }
            assert_eq!(registers.ip(), registers.get(PSWA));
            assert!(registers.is_user());
        }
    }

    #[test]
    fn floating_point_registers_are_added() {
        let bytes = bytes(136);
        let registers = Registers::new(1, 2, 3, 4).with(F3, 9);
        let added = registers.with_fp_regs(S390x, &bytes).unwrap();
        // In C: offsetof(s390_fp_regs, fprs), sizeof(s390_fp_regs).
        for (index, register) in FLOATING.into_iter().enumerate() {
            assert_eq!(added.get(register), Some(word(&bytes, 8 + 8 * index)));
        }
        assert_eq!((added.ip(), added.get(R15), added.get(R0)), (Some(1), Some(2), None));
        for len in 0..136 {
            let refused = registers.with_fp_regs(S390x, &bytes[..len]);
            assert_eq!(refused, Err(LayoutError::TooShort { needed: 136, len }));
        }
    }

    #[test]
    fn fewer_bytes_are_refused() {
        let parsers: [(Parser, usize); 4] = [
            (Registers::from_user_regs, 216),
            (Registers::from_prstatus, 328),
            (Registers::from_ucontext, 384),
            (|arch, bytes| Registers::from_perf_sample(arch, Registers::PERF_MASK, bytes), 8 + 34 * 8),
        ];
        for (parse, needed) in parsers {
            let mut bytes = bytes(needed);
            bytes[..8].copy_from_slice(&2u64.to_be_bytes());
            let parse = |bytes| parse(S390x, bytes);
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
        [abi].into_iter().chain(values).flat_map(u64::to_be_bytes).collect()
    }

    #[test]
    fn perf_samples_hold_the_registers_of_their_mask() {
        // `enum perf_event_s390_regs`: R0 is 0, FP0 is 16, MASK is 32, PC is 33.
        let general = (0..16).map(Register);
        let truth: Vec<Register> = general.chain(FLOATING).chain([PSWM, PSWA]).collect();
        let masks = (0..64).map(|bit| 1 << bit);
        for mask in masks.chain([0, Registers::PERF_MASK, 0x2_0000_c800, u64::MAX]) {
            let registers = Registers::from_perf_sample(S390x, mask, &sample(2, mask)).unwrap();
            for (bit, register) in truth.iter().enumerate() {
                let expected = (mask >> bit & 1 == 1).then_some(u64::try_from(bit).unwrap() + 100);
                assert_eq!(registers.get(*register), expected, "{bit} of mask {mask:#x}");
                assert_eq!(Registers::perf_register(u32::try_from(bit).unwrap()), Some(*register));
            }
        }
        assert_eq!(Registers::PERF_MASK, (1 << 34) - 1);
        for number in (34..80).chain([0x1_0000, u32::MAX]) {
            assert_eq!(Registers::perf_register(number), None);
        }
    }

    #[test]
    fn perf_samples_of_another_abi_are_refused() {
        let mask = Registers::PERF_MASK;
        let with = |abi: u64| Registers::from_perf_sample(S390x, mask, &sample(abi, mask));
        assert_eq!(with(0), Ok(Registers::absent()));
        assert_eq!(Registers::from_perf_sample(S390x, u64::MAX, &[0; 8]), Ok(Registers::absent()));
        for abi in [1, 3, 1 << 32, u64::MAX] {
            assert_eq!(with(abi), Err(LayoutError::Abi { abi }));
        }
    }
}
