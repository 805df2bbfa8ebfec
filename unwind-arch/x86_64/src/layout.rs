//! Register sets in the layouts that Linux gives them, parsed on any host.

use unwind_core::{Arch, LayoutError, PerfLayout, Register, RegisterLayout, WordSize};

use crate::signal::UCONTEXT;
use crate::{
    R8, R9, R10, R11, R12, R13, R14, R15, RAX, RBP, RBX, RCX, RDI, RDX, RIP, RSI, RSP, Registers, X86_64,
};

impl Registers {
    /// The size of `struct user_regs_struct`, in bytes.
    pub const USER_REGS_SIZE: usize = USER_REGS.size;

    /// Where `struct elf_prstatus` has its `pr_reg`, in bytes.
    pub const PRSTATUS_REGS: usize = 112;

    /// The registers to ask perf for: the `sample_regs_user` of `struct perf_event_attr`.
    pub const PERF_MASK: u64 = PERF.mask();

    /// From `struct user_regs_struct`: what ptrace's `PTRACE_GETREGS` and `PTRACE_GETREGSET` with
    /// `NT_PRSTATUS` give. Linux `arch/x86/include/asm/user_64.h`; the order is that of `struct
    /// pt_regs` in `arch/x86/include/uapi/asm/ptrace.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_user_regs(arch: X86_64, bytes: &[u8]) -> Result<Self, LayoutError> {
        USER_REGS.read(arch.byte_order(), bytes, 0)
    }

    /// From `struct elf_prstatus`: the descriptor of a core file's `NT_PRSTATUS` note. Linux
    /// `include/linux/elfcore.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_prstatus(arch: X86_64, bytes: &[u8]) -> Result<Self, LayoutError> {
        USER_REGS.read(arch.byte_order(), bytes, Self::PRSTATUS_REGS)
    }

    /// From `ucontext_t`: the third argument of a signal handler, also what `getcontext` fills.
    /// Needed are its bytes up to and with the general registers. Linux
    /// `include/uapi/asm-generic/ucontext.h` and `arch/x86/include/uapi/asm/sigcontext.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_ucontext(arch: X86_64, bytes: &[u8]) -> Result<Self, LayoutError> {
        UP_TO_RIP.read(arch.byte_order(), bytes, 0)
    }

    /// From a perf sample: the bytes of its `PERF_SAMPLE_REGS_USER` part, which are `u64 abi` and a
    /// `u64` for each bit of `mask`, the event's `sample_regs_user`. A sample without user registers
    /// (`PERF_SAMPLE_REGS_ABI_NONE`, a kernel thread's) becomes [`Registers::absent`]. Linux
    /// `include/uapi/linux/perf_event.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`], [`LayoutError::Abi`].
    pub fn from_perf_sample(arch: X86_64, mask: u64, bytes: &[u8]) -> Result<Self, LayoutError> {
        PERF.read(arch.byte_order(), mask, bytes)
    }

    /// The register with this number in perf's masks: `enum perf_event_x86_regs` of Linux
    /// `arch/x86/include/uapi/asm/perf_regs.h`. `None` for the flags, the segments and the vectors.
    pub fn perf_register(number: u32) -> Option<Register> {
        PERF.register(number)
    }
}

const USER_REGS: RegisterLayout =
    RegisterLayout { size: 216, word: WordSize::Eight, ip: None, registers: &IN_USER_REGS };

static IN_USER_REGS: [(Register, i32); 17] = [
    (R15, 0),
    (R14, 8),
    (R13, 16),
    (R12, 24),
    (RBP, 32),
    (RBX, 40),
    (R11, 48),
    (R10, 56),
    (R9, 64),
    (R8, 72),
    (RAX, 80),
    (RCX, 88),
    (RDX, 96),
    (RSI, 104),
    (RDI, 112),
    // orig_rax is between.
    (RIP, 128),
    // cs and eflags are between.
    (RSP, 152),
];

/// Up to the end of rip, the last general register.
const UP_TO_RIP: RegisterLayout =
    RegisterLayout { size: 176, word: WordSize::Eight, ip: None, registers: &UCONTEXT };

const PERF: PerfLayout = PerfLayout { abi: 2, ip: None, registers: &IN_PERF };

static IN_PERF: [(u32, Register); 17] = [
    (0, RAX),
    (1, RBX),
    (2, RCX),
    (3, RDX),
    (4, RSI),
    (5, RDI),
    (6, RBP),
    (7, RSP),
    (8, RIP),
    // 9 to 15 are the flags and the segments.
    (16, R8),
    (17, R9),
    (18, R10),
    (19, R11),
    (20, R12),
    (21, R13),
    (22, R14),
    (23, R15),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::{RegisterFile, UserRegisters};

    use super::*;

    /// Offsets as a C compiler prints them: `offsetof(struct user_regs_struct, rax)` and so on.
    const TRUE_USER_REGS: [(Register, usize); 17] = [
        (RAX, 80),
        (RDX, 96),
        (RCX, 88),
        (RBX, 40),
        (RSI, 104),
        (RDI, 112),
        (RBP, 32),
        (RSP, 152),
        (R8, 72),
        (R9, 64),
        (R10, 56),
        (R11, 48),
        (R12, 24),
        (R13, 16),
        (R14, 8),
        (R15, 0),
        (RIP, 128),
    ];

    /// The same for `offsetof(ucontext_t, uc_mcontext.gregs[REG_RAX])` and so on.
    const TRUE_UCONTEXT: [(Register, usize); 17] = [
        (RAX, 144),
        (RDX, 136),
        (RCX, 152),
        (RBX, 128),
        (RSI, 112),
        (RDI, 104),
        (RBP, 120),
        (RSP, 160),
        (R8, 40),
        (R9, 48),
        (R10, 56),
        (R11, 64),
        (R12, 72),
        (R13, 80),
        (R14, 88),
        (R15, 96),
        (RIP, 168),
    ];

    /// Every byte is different from its neighbours, and every word from every other.
    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| u8::try_from((at * 7 + at / 256 * 3) % 251).unwrap()).collect()
    }

    fn word(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    type Offsets = [(Register, usize)];
    type Parser = fn(&[u8]) -> Result<Registers, LayoutError>;

    #[test]
    fn every_register_is_where_the_kernel_puts_it() {
        let parsers: [(Parser, usize, &Offsets); 3] = [
            (|bytes| Registers::from_user_regs(X86_64, bytes), 0, &TRUE_USER_REGS),
            (|bytes| Registers::from_prstatus(X86_64, bytes), 112, &TRUE_USER_REGS),
            (|bytes| Registers::from_ucontext(X86_64, bytes), 0, &TRUE_UCONTEXT),
        ];
        let bytes = bytes(1000);
        for (parse, start, offsets) in parsers {
            let registers = parse(&bytes).unwrap();
            for (register, offset) in offsets {
                assert_eq!(registers.get(*register), Some(word(&bytes, start + offset)), "{register:?}");
            }
            assert_eq!(registers.ip(), registers.get(RIP));
            assert!(registers.is_user());
        }
    }

    #[test]
    fn fewer_bytes_are_refused() {
        let parsers: [(Parser, usize); 4] = [
            (|bytes| Registers::from_user_regs(X86_64, bytes), 216),
            (|bytes| Registers::from_prstatus(X86_64, bytes), 328),
            (|bytes| Registers::from_ucontext(X86_64, bytes), 176),
            (|bytes| Registers::from_perf_sample(X86_64, Registers::PERF_MASK, bytes), 8 + 17 * 8),
        ];
        for (parse, needed) in parsers {
            let mut bytes = bytes(needed);
            bytes[..8].copy_from_slice(&2u64.to_le_bytes());
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
    fn sample(mask: u64) -> Vec<u8> {
        let values = (0..64).filter(|bit| mask >> bit & 1 == 1).map(|bit| bit + 100);
        [2].into_iter().chain(values).flat_map(u64::to_le_bytes).collect()
    }

    #[test]
    fn perf_samples_hold_the_registers_of_their_mask() {
        // Numbers of `enum perf_event_x86_regs`.
        let numbers = [0, 3, 2, 1, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23, 8];
        let masks = (0..64).map(|bit| 1 << bit);
        for mask in masks.chain([0, Registers::PERF_MASK, 0xff_0fff, 0x00ff_0180, u64::MAX]) {
            let registers = Registers::from_perf_sample(X86_64, mask, &sample(mask)).unwrap();
            for (register, number) in (0..).map(Register).zip(numbers) {
                let expected = (mask >> number & 1 == 1).then_some(number + 100);
                assert_eq!(registers.get(register), expected, "{register:?} of mask {mask:#x}");
            }
        }
        assert_eq!(Registers::PERF_MASK, numbers.iter().fold(0, |mask, number| mask | 1 << number));
        for number in (9..16).chain(24..80).chain([u32::MAX]) {
            assert_eq!(Registers::perf_register(number), None);
        }
    }

    #[test]
    fn a_recorded_sample() {
        // The PERF_SAMPLE_REGS_USER part of a PERF_RECORD_SAMPLE of `bash`, recorded with `perf record
        // --user-regs=ax,bx,…,ip,flags,r8,…,r15`, and how `perf script -D` prints it.
        let mask = 0xff_03ff;
        let words: [u64; 19] = [
            0x2,
            0x1f,
            0x2a00,
            0x1800,
            0x0,
            0x0,
            0x1,
            0x7ffc_4f81_7e38,
            0x7ffc_4f81_7da0,
            0x7fec_b63a_88c8,
            0x216,
            0x7,
            0x7ffc_4f81_7e10,
            0x37f,
            0x246,
            0x0,
            0x7fec_b63c_7ad0,
            0x7fec_b639_4000,
            0x7fec_b639_4500,
        ];
        let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        let printed = Registers::from_dwarf([
            (RAX, 0x1f),
            (RBX, 0x2a00),
            (RCX, 0x1800),
            (RDX, 0),
            (RSI, 0),
            (RDI, 1),
            (RBP, 0x7ffc_4f81_7e38),
            (RSP, 0x7ffc_4f81_7da0),
            (RIP, 0x7fec_b63a_88c8),
            (R8, 7),
            (R9, 0x7ffc_4f81_7e10),
            (R10, 0x37f),
            (R11, 0x246),
            (R12, 0),
            (R13, 0x7fec_b63c_7ad0),
            (R14, 0x7fec_b639_4000),
            (R15, 0x7fec_b639_4500),
        ]);
        assert_eq!(Registers::from_perf_sample(X86_64, mask, &bytes), Ok(printed));
    }

    #[test]
    fn perf_samples_of_another_abi_are_refused() {
        let with = |abi: u64| {
            let mut bytes = sample(Registers::PERF_MASK);
            bytes[..8].copy_from_slice(&abi.to_le_bytes());
            Registers::from_perf_sample(X86_64, Registers::PERF_MASK, &bytes)
        };
        assert_eq!(with(0), Ok(Registers::absent()));
        assert_eq!(Registers::from_perf_sample(X86_64, u64::MAX, &[0; 8]), Ok(Registers::absent()));
        for abi in [1, 3, 1 << 32, u64::MAX] {
            assert_eq!(with(abi), Err(LayoutError::Abi { abi }));
        }
    }
}
