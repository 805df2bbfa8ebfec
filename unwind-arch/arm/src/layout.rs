//! Register sets in the layouts that Linux gives them, parsed on any host.
//!
//! All of them hold r0 to r15 in this order, which is that of their DWARF numbers.

use unwind_core::{Arch, LayoutError, PerfLayout, Register, RegisterLayout, WordSize};

use crate::*;

impl Registers {
    /// The size of `struct pt_regs`, in bytes.
    pub const USER_REGS_SIZE: usize = USER_REGS.size;

    /// Where `struct elf_prstatus` has its `pr_reg`, in bytes.
    pub const PRSTATUS_REGS: usize = 72;

    /// The registers to ask perf for: the `sample_regs_user` of `struct perf_event_attr`.
    pub const PERF_MASK: u64 = PERF.mask();

    /// From `struct pt_regs` (`user_regs` in C libraries): what ptrace's `PTRACE_GETREGS`, and
    /// `PTRACE_GETREGSET` with `NT_PRSTATUS`, give. Linux `arch/arm/include/uapi/asm/ptrace.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_user_regs(arch: Arm, bytes: &[u8]) -> Result<Self, LayoutError> {
        USER_REGS.read(arch.byte_order(), bytes, 0)
    }

    /// From `struct elf_prstatus`: the descriptor of a core file's `NT_PRSTATUS` note. Linux
    /// `include/linux/elfcore.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_prstatus(arch: Arm, bytes: &[u8]) -> Result<Self, LayoutError> {
        USER_REGS.read(arch.byte_order(), bytes, Self::PRSTATUS_REGS)
    }

    /// From `ucontext_t`: the third argument of a signal handler, also what `getcontext` fills.
    /// Needed are its bytes up to and with the general registers. Linux
    /// `arch/arm/include/asm/ucontext.h` and `arch/arm/include/uapi/asm/sigcontext.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_ucontext(arch: Arm, bytes: &[u8]) -> Result<Self, LayoutError> {
        UP_TO_PC.read(arch.byte_order(), bytes, UCONTEXT_REGS)
    }

    /// From a perf sample: the bytes of its `PERF_SAMPLE_REGS_USER` part, which are `u64 abi` and a
    /// `u64` for each bit of `mask`, the event's `sample_regs_user`. A sample without user registers
    /// (`PERF_SAMPLE_REGS_ABI_NONE`, a kernel thread's) becomes [`Registers::absent`]. Linux
    /// `include/uapi/linux/perf_event.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`], [`LayoutError::Abi`].
    pub fn from_perf_sample(arch: Arm, mask: u64, bytes: &[u8]) -> Result<Self, LayoutError> {
        PERF.read(arch.byte_order(), mask, bytes)
    }

    /// The register with this number in perf's masks: `enum perf_event_arm_regs` of Linux
    /// `arch/arm/include/uapi/asm/perf_regs.h`. `None` for what may follow.
    pub fn perf_register(number: u32) -> Option<Register> {
        PERF.register(number)
    }
}

/// `uc_mcontext` is at 20, and in it `arm_r0` at 12.
const UCONTEXT_REGS: usize = 32;

const USER_REGS: RegisterLayout =
    RegisterLayout { size: 72, word: WordSize::Four, ip: None, registers: &IN_USER_REGS };

/// Up to the end of pc, the last core register.
const UP_TO_PC: RegisterLayout = RegisterLayout { size: 64, ..USER_REGS };

const PERF: PerfLayout = PerfLayout { abi: 1, ip: None, registers: &IN_PERF };

static IN_USER_REGS: [(Register, i32); 16] = [
    (R0, 0),
    (R1, 4),
    (R2, 8),
    (R3, 12),
    (R4, 16),
    (R5, 20),
    (R6, 24),
    (R7, 28),
    (R8, 32),
    (R9, 36),
    (R10, 40),
    (R11, 44),
    (R12, 48),
    (SP, 52),
    (LR, 56),
    (PC, 60),
];

/// perf's numbers are DWARF's.
static IN_PERF: [(u32, Register); 16] = [
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
    (13, SP),
    (14, LR),
    (15, PC),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::{RegisterFile, UserRegisters};

    use super::*;

    /// Offsets as a C compiler prints them: `offsetof(struct pt_regs, ARM_sp)` and so on.
    const TRUE_USER_REGS: [(Register, usize); 5] = [(R0, 0), (R7, 28), (LR, 56), (SP, 52), (PC, 60)];

    /// The same for `offsetof(ucontext_t, uc_mcontext.arm_sp)` and so on.
    const TRUE_UCONTEXT: [(Register, usize); 5] = [(R0, 32), (R7, 60), (LR, 88), (SP, 84), (PC, 92)];

    /// Every byte is different from its neighbours, and every word from every other.
    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| u8::try_from((at * 7 + at / 256 * 3) % 251).unwrap()).collect()
    }

    const BOTH: [Arm; 2] = [Arm::new(), Arm::big_endian()];

    fn word(arch: Arm, bytes: &[u8], at: usize) -> u64 {
        let bytes = bytes[at..at + 4].try_into().unwrap();
        let word = if arch == BOTH[0] { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) };
        word.into()
    }

    type Offsets = [(Register, usize)];
    type Parser = fn(Arm, &[u8]) -> Result<Registers, LayoutError>;

    #[test]
    fn every_register_is_where_the_kernel_puts_it() {
        let parsers: [(Parser, usize, &Offsets); 3] = [
            (Registers::from_user_regs, 0, &TRUE_USER_REGS),
            (Registers::from_prstatus, 72, &TRUE_USER_REGS),
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
                for number in 0..16 {
                    let expected = word(arch, &bytes, start + offsets[0].1 + 4 * usize::from(number));
                    assert_eq!(registers.get(Register(number)), Some(expected), "r{number}");
                }
                assert_eq!(registers.ip(), registers.get(PC));
                assert!(registers.is_user());
            }
        }
    }

    #[test]
    fn fewer_bytes_are_refused() {
        let parsers: [(Parser, usize); 4] = [
            (Registers::from_user_regs, 72),
            (Registers::from_prstatus, 144),
            (Registers::from_ucontext, 96),
            (|arch, bytes| Registers::from_perf_sample(arch, Registers::PERF_MASK, bytes), 8 + 16 * 8),
        ];
        for (parse, needed) in parsers {
            let mut bytes = bytes(needed);
            bytes[..8].copy_from_slice(&1u64.to_le_bytes());
            let parse = |bytes| parse(Arm::new(), bytes);
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
    fn sample(arch: Arm, abi: u64, mask: u64) -> Vec<u8> {
        let values = (0..64).filter(|bit| mask >> bit & 1 == 1).map(|bit| bit + 100);
        let words = [abi].into_iter().chain(values);
        words.flat_map(if arch == BOTH[0] { u64::to_le_bytes } else { u64::to_be_bytes }).collect()
    }

    #[test]
    fn perf_samples_hold_the_registers_of_their_mask() {
        let masks = (0..64).map(|bit| 1 << bit);
        for mask in masks.chain([0, Registers::PERF_MASK, 0xa800, u64::MAX]) {
            for arch in BOTH {
                let registers = Registers::from_perf_sample(arch, mask, &sample(arch, 1, mask)).unwrap();
                // Numbers of `enum perf_event_arm_regs`: the same as DWARF's.
                for number in 0..16 {
                    let expected = (mask >> number & 1 == 1).then_some(u64::from(number) + 100);
                    assert_eq!(registers.get(Register(number)), expected, "{number} of mask {mask:#x}");
                }
            }
        }
        for number in (16..80).chain([0x1_0000, u32::MAX]) {
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
            for abi in [2, 3, 1 << 32, u64::MAX] {
                assert_eq!(with(arch, abi), Err(LayoutError::Abi { abi }));
            }
        }
    }
}
