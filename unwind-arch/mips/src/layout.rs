//! Register sets in the layouts that Linux gives them, parsed on any host.

use unwind_core::{Arch, ByteOrder, LayoutError, PerfLayout, Register, RegisterLayout, WordSize};

use crate::*;

impl Registers {
    /// The registers to ask perf for: the `sample_regs_user` of `struct perf_event_attr`.
    pub const PERF_MASK: u64 = IN_PERF_64.mask();

    /// The size of `elf_gregset_t`, in bytes: 180 under o32, else 360.
    pub const fn user_regs_size(arch: Mips) -> usize {
        gregset(arch.abi()).size
    }

    /// Where `struct elf_prstatus` has its `pr_reg`, in bytes: 112 under n64, else 72.
    pub const fn prstatus_regs(arch: Mips) -> usize {
        match arch.abi() {
            Abi::O32 | Abi::N32 => 72,
            Abi::N64 => 112,
        }
    }

    /// From `elf_gregset_t`: what ptrace's `PTRACE_GETREGSET` with `NT_PRSTATUS` gives. Linux
    /// `arch/mips/include/uapi/asm/reg.h`. (`PTRACE_GETREGS` gives something else: see
    /// [`from_getregs`](Registers::from_getregs).)
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_user_regs(arch: Mips, bytes: &[u8]) -> Result<Self, LayoutError> {
        gregset(arch.abi()).read(arch.byte_order(), bytes, 0)
    }

    /// From `struct pt_regs`: what ptrace's `PTRACE_GETREGS` gives, under every ABI with registers of 64
    /// bits. Linux `arch/mips/include/uapi/asm/ptrace.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_getregs(arch: Mips, bytes: &[u8]) -> Result<Self, LayoutError> {
        GETREGS.read(arch.byte_order(), bytes, 0)
    }

    /// From `struct elf_prstatus`: the descriptor of a core file's `NT_PRSTATUS` note. Linux
    /// `include/linux/elfcore.h`, `arch/mips/kernel/binfmt_elfn32.c`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_prstatus(arch: Mips, bytes: &[u8]) -> Result<Self, LayoutError> {
        gregset(arch.abi()).read(arch.byte_order(), bytes, Self::prstatus_regs(arch))
    }

    /// From `ucontext_t`: the third argument of a signal handler, also what `getcontext` fills.
    /// Needed are its bytes up to and with the general registers and the pc. Linux
    /// `arch/mips/include/uapi/asm/ucontext.h` and `arch/mips/include/uapi/asm/sigcontext.h`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn from_ucontext(arch: Mips, bytes: &[u8]) -> Result<Self, LayoutError> {
        let layout = match (arch.abi(), arch.byte_order()) {
            (Abi::O32, ByteOrder::Little) => IN_UCONTEXT_O32_LITTLE,
            (Abi::O32, ByteOrder::Big) => IN_UCONTEXT_O32_BIG,
            (Abi::N32, _) => IN_UCONTEXT_N32,
            (Abi::N64, _) => IN_UCONTEXT_N64,
        };
        layout.read(arch.byte_order(), bytes, 0)
    }

    /// From a perf sample: the bytes of its `PERF_SAMPLE_REGS_USER` part, which are `u64 abi` and a
    /// `u64` for each bit of `mask`, the event's `sample_regs_user`. A sample without user registers
    /// (`PERF_SAMPLE_REGS_ABI_NONE`, a kernel thread's) becomes [`Registers::absent`]. Linux
    /// `include/uapi/linux/perf_event.h`; the ABI is the registers', 64 bits under n32 (Linux
    /// `arch/mips/kernel/perf_regs.c`).
    ///
    /// # Errors
    /// [`LayoutError::TooShort`], [`LayoutError::Abi`].
    pub fn from_perf_sample(arch: Mips, mask: u64, bytes: &[u8]) -> Result<Self, LayoutError> {
        let layout = match arch.abi() {
            Abi::O32 => IN_PERF_32,
            Abi::N32 | Abi::N64 => IN_PERF_64,
        };
        layout.read(arch.byte_order(), mask, bytes)
    }

    /// The register with this number in perf's masks: `enum perf_event_mips_regs` of Linux
    /// `arch/mips/include/uapi/asm/perf_regs.h`. `None` for the pc, which has no DWARF number, for $26
    /// and $27, which the kernel does not give, and for what may follow.
    pub fn perf_register(number: u32) -> Option<Register> {
        IN_PERF_64.register(number)
    }
}

const fn gregset(abi: Abi) -> RegisterLayout {
    match abi {
        // `MIPS32_EF_R0` is 6, `MIPS32_EF_CP0_EPC` 40, in words; there are 45.
        Abi::O32 => RegisterLayout { size: 180, word: WordSize::Four, ip: Some(160), registers: &GREGSET_32 },
        // `MIPS64_EF_R0` is 0, `MIPS64_EF_CP0_EPC` 34.
        Abi::N32 | Abi::N64 => {
            RegisterLayout { size: 360, word: WordSize::Eight, ip: Some(272), registers: &GREGSET_64 }
        }
    }
}

static GREGSET_32: [(Register, i32); 29] = places!(24, 4);
static GREGSET_64: [(Register, i32); 29] = places!(0, 8);

/// `cp0_epc` is behind the registers, lo and hi.
const GETREGS: RegisterLayout =
    RegisterLayout { size: 304, word: WordSize::Eight, ip: Some(272), registers: &GREGSET_64 };

/// `uc_mcontext` is at 24, and in it `sc_pc` at 8 and `sc_regs` at 16, each of 64 bits; the lower half
/// counts.
const IN_UCONTEXT_O32_LITTLE: RegisterLayout = RegisterLayout {
    size: 296,
    word: WordSize::Four,
    ip: Some(32),
    registers: &UCONTEXT_O32_LITTLE_REGISTERS,
};
const IN_UCONTEXT_O32_BIG: RegisterLayout =
    RegisterLayout { size: 296, word: WordSize::Four, ip: Some(36), registers: &UCONTEXT_O32_BIG_REGISTERS };
/// `uc_mcontext` is at 24, and in it `sc_regs` at 0 and `sc_pc` at 576.
const IN_UCONTEXT_N32: RegisterLayout =
    RegisterLayout { size: 608, word: WordSize::Eight, ip: Some(600), registers: &UCONTEXT_N32_REGISTERS };
/// `uc_mcontext` is at 40.
const IN_UCONTEXT_N64: RegisterLayout =
    RegisterLayout { size: 624, word: WordSize::Eight, ip: Some(616), registers: &UCONTEXT_N64_REGISTERS };

static UCONTEXT_O32_LITTLE_REGISTERS: [(Register, i32); 29] = places!(40, 8);
static UCONTEXT_O32_BIG_REGISTERS: [(Register, i32); 29] = places!(44, 8);
static UCONTEXT_N32_REGISTERS: [(Register, i32); 29] = places!(24, 8);
static UCONTEXT_N64_REGISTERS: [(Register, i32); 29] = places!(40, 8);

const IN_PERF_64: PerfLayout = PerfLayout { abi: 2, ip: Some(0), registers: &IN_PERF };
const IN_PERF_32: PerfLayout = PerfLayout { abi: 1, ..IN_PERF_64 };

/// perf's numbers are DWARF's, but for 0, the pc.
static IN_PERF: [(u32, Register); 29] = [
    (1, AT),
    (2, V0),
    (3, V1),
    (4, A0),
    (5, A1),
    (6, A2),
    (7, A3),
    (8, R8),
    (9, R9),
    (10, R10),
    (11, R11),
    (12, R12),
    (13, R13),
    (14, R14),
    (15, R15),
    (16, S0),
    (17, S1),
    (18, S2),
    (19, S3),
    (20, S4),
    (21, S5),
    (22, S6),
    (23, S7),
    (24, T8),
    (25, T9),
    (28, GP),
    (29, SP),
    (30, S8),
    (31, RA),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use unwind_core::{RegisterFile, UserRegisters};

    use super::*;

    const ABIS: [Abi; 3] = [Abi::O32, Abi::N32, Abi::N64];
    const ORDERS: [ByteOrder; 2] = [ByteOrder::Little, ByteOrder::Big];

    /// Where a structure has $0, the pc and the step from one register to the next, and its size, as
    /// far as it is needed, for each ABI; as a C compiler prints them: `EF_R0 * sizeof(elf_greg_t)` and
    /// so on, `offsetof(struct ucontext, uc_mcontext.sc_regs)`.
    type Places = [(usize, usize, usize, usize); 3];
    const TRUE_GREGSET: Places = [(24, 160, 4, 180), (0, 272, 8, 360), (0, 272, 8, 360)];
    const TRUE_PRSTATUS: Places =
        [(72 + 24, 72 + 160, 4, 252), (72, 72 + 272, 8, 432), (112, 112 + 272, 8, 472)];
    const TRUE_UCONTEXT: Places = [(40, 32, 8, 296), (24, 600, 8, 608), (40, 616, 8, 624)];
    const TRUE_PT_REGS: Places = [(0, 272, 8, 304); 3];

    /// Every byte is different from its neighbours, and every word from every other.
    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| u8::try_from((at * 7 + at / 256 * 3) % 251).unwrap()).collect()
    }

    /// The register at `at`, of as many bytes as its slot has.
    fn word(arch: Mips, bytes: &[u8], at: usize, size: usize) -> u64 {
        let slot = &bytes[at..at + size];
        let value = |bytes: &mut dyn Iterator<Item = &u8>| {
            bytes.fold(0u64, |value, byte| value << 8 | u64::from(*byte))
        };
        match arch.byte_order() {
            ByteOrder::Big => value(&mut slot.iter()),
            ByteOrder::Little => value(&mut slot.iter().rev()),
        }
    }

    type Parser = fn(Mips, &[u8]) -> Result<Registers, LayoutError>;
    const PARSERS: [(Parser, Places); 4] = [
        (Registers::from_user_regs, TRUE_GREGSET),
        (Registers::from_prstatus, TRUE_PRSTATUS),
        (Registers::from_ucontext, TRUE_UCONTEXT),
        (Registers::from_getregs, TRUE_PT_REGS),
    ];

    #[test]
    fn every_register_is_where_the_kernel_puts_it() {
        let bytes = bytes(1000);
        for (which, (parse, places)) in PARSERS.into_iter().enumerate() {
            for (abi, (start, pc, step, _)) in ABIS.into_iter().zip(places) {
                for order in ORDERS {
                    let arch = Mips::new(abi, order);
                    let registers = parse(arch, &bytes).unwrap();
                    // o32's context has 64 bits for registers of 32; ptrace gives what is there.
                    let cut = if abi == Abi::O32 && which != 3 { 0xffff_ffff } else { u64::MAX };
                    for number in 0..32 {
                        let expected = word(arch, &bytes, start + step * usize::from(number), step) & cut;
                        let expected = (![0, 26, 27].contains(&number)).then_some(expected);
                        assert_eq!(registers.get(Register(number)), expected, "{arch:?} ${number}");
                    }
                    assert_eq!(registers.ip(), Some(word(arch, &bytes, pc, step) & cut), "{arch:?}");
                    assert!(registers.is_user());
                }
            }
        }
    }

    #[test]
    fn fewer_bytes_are_refused() {
        let perf: Parser = |arch, bytes| Registers::from_perf_sample(arch, Registers::PERF_MASK, bytes);
        for (parse, places) in PARSERS.into_iter().chain([(perf, [(0, 0, 8, 8 + 30 * 8); 3])]) {
            for (abi, (.., needed)) in ABIS.into_iter().zip(places) {
                let mut bytes = bytes(needed);
                bytes[..8].copy_from_slice(&if abi == Abi::O32 { 1u64 } else { 2 }.to_be_bytes());
                let parse = |bytes| parse(Mips::new(abi, ByteOrder::Big), bytes);
                assert!(parse(&bytes).is_ok());
                for len in 8..needed {
                    assert_eq!(parse(&bytes[..len]), Err(LayoutError::TooShort { needed, len }));
                }
                for len in 0..8 {
                    let error = parse(&bytes[..len]);
                    assert!(matches!(error, Err(LayoutError::TooShort { len: told, .. }) if told == len));
                }
            }
        }
        let archs = ABIS.map(|abi| Mips::new(abi, ByteOrder::Big));
        assert_eq!(archs.map(Registers::user_regs_size), [180, 360, 360]);
        assert_eq!(archs.map(Registers::prstatus_regs), [72, 72, 112]);
    }

    /// A sample with `mask`: the word for bit n is n + 100.
    fn sample(arch: Mips, abi: u64, mask: u64) -> Vec<u8> {
        let values = (0..64).filter(|bit| mask >> bit & 1 == 1).map(|bit| bit + 100);
        let words = [abi].into_iter().chain(values);
        let little = arch.byte_order() == ByteOrder::Little;
        words.flat_map(if little { u64::to_le_bytes } else { u64::to_be_bytes }).collect()
    }

    #[test]
    fn perf_samples_hold_the_registers_of_their_mask() {
        assert_eq!(Registers::PERF_MASK, 0xf3ff_ffff);
        let masks = (0..64).map(|bit| 1 << bit);
        for mask in masks.chain([0, Registers::PERF_MASK, 0xa000_0001, u64::MAX]) {
            for (abi, perf_abi) in ABIS.into_iter().zip([1, 2, 2]) {
                for arch in ORDERS.map(|order| Mips::new(abi, order)) {
                    let sample = sample(arch, perf_abi, mask);
                    let registers = Registers::from_perf_sample(arch, mask, &sample).unwrap();
                    // Numbers of `enum perf_event_mips_regs`: the pc, then $1 to $31.
                    let expected = |number: u16| (mask >> number & 1 == 1).then_some(u64::from(number) + 100);
                    assert_eq!(registers.ip(), expected(0), "pc of mask {mask:#x}");
                    for number in (1..32).filter(|number| ![26, 27].contains(number)) {
                        let got = registers.get(Register(number));
                        assert_eq!(got, expected(number), "{number} of mask {mask:#x}");
                    }
                    for number in [0, 26, 27] {
                        assert_eq!(registers.get(Register(number)), None);
                    }
                }
            }
        }
        for number in [0, 26, 27].into_iter().chain(32..80).chain([0x1_0000, u32::MAX]) {
            assert_eq!(Registers::perf_register(number), None);
        }
    }

    #[test]
    fn perf_samples_of_another_abi_are_refused() {
        let mask = Registers::PERF_MASK;
        for (abi, ours) in ABIS.into_iter().zip([1, 2, 2]) {
            for arch in ORDERS.map(|order| Mips::new(abi, order)) {
                let with = |abi: u64| Registers::from_perf_sample(arch, mask, &sample(arch, abi, mask));
                assert_eq!(with(0), Ok(Registers::absent()));
                assert_eq!(Registers::from_perf_sample(arch, u64::MAX, &[0; 8]), Ok(Registers::absent()));
                for abi in [3 - ours, 3, 1 << 32, u64::MAX] {
                    assert_eq!(with(abi), Err(LayoutError::Abi { abi }));
                }
            }
        }
    }
}
