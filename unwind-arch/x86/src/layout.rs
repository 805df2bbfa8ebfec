//! Register sets in the layouts that Linux gives them, parsed on any host.

use unwind_core::{Arch, LayoutError, PerfLayout, Register, RegisterLayout, WordSize};

use crate::*;

impl Registers {
    /// The size of `struct user_regs_struct`, in bytes.
    pub const USER_REGS_SIZE: usize = USER_REGS.size;

    /// Where `struct elf_prstatus` has its `pr_reg`, in bytes.
    pub const PRSTATUS_REGS: usize = 72;

    /// The registers to ask perf for: the `sample_regs_user` of `struct perf_event_attr`.
    pub const PERF_MASK: u64 = PERF.mask();

    /// From `struct user_regs_struct`: what ptrace's `PTRACE_GETREGS`, and `PTRACE_GETREGSET` with
    /// `NT_PRSTATUS`, give for a 32-bit process. Linux `arch/x86/include/asm/user_32.h` and
    /// `arch/x86/include/asm/user32.h`; the order is that of `struct pt_regs` in
    /// `arch/x86/include/uapi/asm/ptrace.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_user_regs(arch: X86, bytes: &[u8]) -> Result<Self, LayoutError> {
        USER_REGS.read(arch.byte_order(), bytes, 0)
    }

    /// From `struct elf_prstatus` (`compat_elf_prstatus` of a 64-bit kernel): the descriptor of a core
    /// file's `NT_PRSTATUS` note. Linux `include/linux/elfcore.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_prstatus(arch: X86, bytes: &[u8]) -> Result<Self, LayoutError> {
        USER_REGS.read(arch.byte_order(), bytes, Self::PRSTATUS_REGS)
    }

    /// From `ucontext_t`: the third argument of a signal handler, also what `getcontext` fills.
    /// Needed are its bytes up to and with the general registers. Linux
    /// `include/uapi/asm-generic/ucontext.h` and `arch/x86/include/uapi/asm/sigcontext.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_ucontext(arch: X86, bytes: &[u8]) -> Result<Self, LayoutError> {
        UP_TO_EIP.read(arch.byte_order(), bytes, 0)
    }

    /// From a perf sample: the bytes of its `PERF_SAMPLE_REGS_USER` part, which are `u64 abi` and a
    /// `u64` for each bit of `mask`, the event's `sample_regs_user`. A sample without user registers
    /// (`PERF_SAMPLE_REGS_ABI_NONE`, a kernel thread's) becomes [`Registers::absent`]. Linux
    /// `include/uapi/linux/perf_event.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`], [`LayoutError::Abi`].
    pub fn from_perf_sample(arch: X86, mask: u64, bytes: &[u8]) -> Result<Self, LayoutError> {
        PERF.read(arch.byte_order(), mask, bytes)
    }

    /// The register with this number in perf's masks: `enum perf_event_x86_regs` of Linux
    /// `arch/x86/include/uapi/asm/perf_regs.h`. `None` for the flags, the segments and the vectors.
    pub fn perf_register(number: u32) -> Option<Register> {
        PERF.register(number)
    }
}

const USER_REGS: RegisterLayout =
    RegisterLayout { size: 68, word: WordSize::Four, ip: None, registers: &IN_USER_REGS };

static IN_USER_REGS: [(Register, i32); 9] = [
    (EBX, 0),
    (ECX, 4),
    (EDX, 8),
    (ESI, 12),
    (EDI, 16),
    (EBP, 20),
    (EAX, 24),
    // The segments and orig_eax are between.
    (EIP, 48),
    // cs and eflags are between.
    (ESP, 60),
];

/// Up to the end of eip, the last general register. `uc_mcontext` is at 20.
const UP_TO_EIP: RegisterLayout =
    RegisterLayout { size: 80, word: WordSize::Four, ip: None, registers: &IN_UCONTEXT };

static IN_UCONTEXT: [(Register, i32); 9] =
    [(EDI, 36), (ESI, 40), (EBP, 44), (ESP, 48), (EBX, 52), (EDX, 56), (ECX, 60), (EAX, 64), (EIP, 76)];

const PERF: PerfLayout = PerfLayout { abi: 1, ip: None, registers: &IN_PERF };

static IN_PERF: [(u32, Register); 9] =
    [(0, EAX), (1, EBX), (2, ECX), (3, EDX), (4, ESI), (5, EDI), (6, EBP), (7, ESP), (8, EIP)];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::{RegisterFile, UserRegisters};

    use super::*;

    /// Offsets as a C compiler prints them: `offsetof(struct user_regs_struct, eax)` and so on.
    const TRUE_USER_REGS: [(Register, usize); 9] =
        [(EAX, 24), (ECX, 4), (EDX, 8), (EBX, 0), (ESP, 60), (EBP, 20), (ESI, 12), (EDI, 16), (EIP, 48)];

    /// The same for `offsetof(ucontext_t, uc_mcontext.gregs[REG_EAX])` and so on.
    const TRUE_UCONTEXT: [(Register, usize); 9] =
        [(EAX, 64), (ECX, 60), (EDX, 56), (EBX, 52), (ESP, 48), (EBP, 44), (ESI, 40), (EDI, 36), (EIP, 76)];

    /// Every byte is different from its neighbours, and every word from every other.
    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| u8::try_from((at * 7 + at / 256 * 3) % 251).unwrap()).collect()
    }

    fn word(bytes: &[u8], at: usize) -> u64 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()).into()
    }

    type Offsets = [(Register, usize)];
    type Parser = fn(&[u8]) -> Result<Registers, LayoutError>;

    #[test]
    fn every_register_is_where_the_kernel_puts_it() {
        let parsers: [(Parser, usize, &Offsets); 3] = [
            (|bytes| Registers::from_user_regs(X86, bytes), 0, &TRUE_USER_REGS),
            (|bytes| Registers::from_prstatus(X86, bytes), 72, &TRUE_USER_REGS),
            (|bytes| Registers::from_ucontext(X86, bytes), 0, &TRUE_UCONTEXT),
        ];
        let bytes = bytes(1000);
        for (parse, start, offsets) in parsers {
            let registers = parse(&bytes).unwrap();
            for (register, offset) in offsets {
                assert_eq!(registers.get(*register), Some(word(&bytes, start + offset)), "{register:?}");
            }
            assert_eq!(registers.ip(), registers.get(EIP));
            assert!(registers.is_user());
        }
    }

    #[test]
    fn fewer_bytes_are_refused() {
        // sizeof(struct user_regs_struct) is 68.
        let parsers: [(Parser, usize); 4] = [
            (|bytes| Registers::from_user_regs(X86, bytes), 68),
            (|bytes| Registers::from_prstatus(X86, bytes), 140),
            (|bytes| Registers::from_ucontext(X86, bytes), 80),
            (|bytes| Registers::from_perf_sample(X86, Registers::PERF_MASK, bytes), 8 + 9 * 8),
        ];
        for (parse, needed) in parsers {
            let mut bytes = bytes(needed);
            bytes[..8].copy_from_slice(&1u64.to_le_bytes());
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
        [1].into_iter().chain(values).flat_map(u64::to_le_bytes).collect()
    }

    #[test]
    fn perf_samples_hold_the_registers_of_their_mask() {
        // Numbers of `enum perf_event_x86_regs`.
        let numbers = [0, 2, 3, 1, 7, 6, 4, 5, 8];
        let masks = (0..64).map(|bit| 1 << bit);
        for mask in masks.chain([0, Registers::PERF_MASK, 0x0fff, 0x0180, u64::MAX]) {
            let registers = Registers::from_perf_sample(X86, mask, &sample(mask)).unwrap();
            for (register, number) in (0..).map(Register).zip(numbers) {
                let expected = (mask >> number & 1 == 1).then_some(number + 100);
                assert_eq!(registers.get(register), expected, "{register:?} of mask {mask:#x}");
            }
        }
        assert_eq!(Registers::PERF_MASK, 0x1ff);
        for number in (9..80).chain([u32::MAX]) {
            assert_eq!(Registers::perf_register(number), None);
        }
    }

    #[test]
    fn perf_samples_of_another_abi_are_refused() {
        let with = |abi: u64| {
            let mut bytes = sample(Registers::PERF_MASK);
            bytes[..8].copy_from_slice(&abi.to_le_bytes());
            Registers::from_perf_sample(X86, Registers::PERF_MASK, &bytes)
        };
        assert_eq!(with(0), Ok(Registers::absent()));
        assert_eq!(Registers::from_perf_sample(X86, u64::MAX, &[0; 8]), Ok(Registers::absent()));
        for abi in [2, 3, 1 << 32, u64::MAX] {
            assert_eq!(with(abi), Err(LayoutError::Abi { abi }));
        }
    }
}
