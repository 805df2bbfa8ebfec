//! The architecture chosen at run time does what the chosen one does.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
#![cfg(all(feature = "all", feature = "layout"))]

use unwind_arch::aarch64::Aarch64;
use unwind_arch::arm::{Arm, FramePointer};
use unwind_arch::loongarch64::Loongarch64;
use unwind_arch::mips::{Abi, Mips};
use unwind_arch::powerpc64::Powerpc64;
use unwind_arch::riscv::Riscv;
use unwind_arch::s390x::S390x;
use unwind_arch::x86::X86;
use unwind_arch::x86_64::X86_64;
use unwind_arch::{AnyArch, AnyRegisters, LayoutError};
use unwind_core::{
    Arch, ByteOrder, Code, Register, RegisterFile, StartError, Unwinder, UserRegisters, WordSize,
};

/// `e_machine`, `EI_CLASS` and `EI_DATA` of every ELF header that is known, and what it is.
const HEADERS: &[((u16, u8, u8), AnyArch)] = &[
    ((62, 2, 1), AnyArch::X86_64(X86_64)),
    ((183, 2, 1), AnyArch::Aarch64(Aarch64::new())),
    ((183, 2, 2), AnyArch::Aarch64(Aarch64::big_endian())),
    ((22, 2, 2), AnyArch::S390x(S390x)),
    ((243, 2, 1), AnyArch::Riscv(Riscv::new())),
    ((243, 1, 1), AnyArch::Riscv(Riscv::rv32())),
    ((3, 1, 1), AnyArch::X86(X86)),
    ((40, 1, 1), AnyArch::Arm(Arm::new())),
    ((40, 1, 2), AnyArch::Arm(Arm::big_endian())),
    ((21, 2, 1), AnyArch::Powerpc64(Powerpc64::little_endian())),
    ((21, 2, 2), AnyArch::Powerpc64(Powerpc64::big_endian())),
    ((8, 1, 1), AnyArch::Mips(Mips::new(Abi::O32, ByteOrder::Little))),
    ((8, 1, 2), AnyArch::Mips(Mips::new(Abi::O32, ByteOrder::Big))),
    ((8, 2, 1), AnyArch::Mips(Mips::new(Abi::N64, ByteOrder::Little))),
    ((8, 2, 2), AnyArch::Mips(Mips::new(Abi::N64, ByteOrder::Big))),
    ((258, 2, 1), AnyArch::Loongarch64(Loongarch64)),
];

#[test]
fn elf_headers_choose() {
    let mut found = 0;
    for machine in 0..=u16::MAX {
        for (class, data) in (0..4).flat_map(|class| (0..4).map(move |data| (class, data))) {
            let header = (machine, class, data);
            let expected = HEADERS.iter().find(|(known, _)| *known == header).map(|(_, arch)| *arch);
            assert_eq!(AnyArch::from_elf(machine, class, data), expected, "{header:?}");
            found += usize::from(expected.is_some());
        }
    }
    assert_eq!(found, HEADERS.len());
}

#[test]
fn flags_choose_among_abis() {
    for (header, arch) in HEADERS {
        let (machine, class, data) = *header;
        assert_eq!(AnyArch::from_elf_flags(machine, class, data, 0), Some(*arch));
    }
    // EF_MIPS_ABI2: n32. EABI 5 without EF_ARM_BE8: big-endian code.
    let n32 = Mips::new(Abi::N32, ByteOrder::Big);
    assert_eq!(AnyArch::from_elf_flags(8, 1, 2, 0x8000_0027), Some(AnyArch::Mips(n32)));
    let be32 = Arm::big_endian().with_code_order(ByteOrder::Big);
    assert_eq!(AnyArch::from_elf_flags(40, 1, 2, 0x0500_0200), Some(AnyArch::Arm(be32)));
    assert_eq!(AnyArch::from_elf_flags(62, 2, 1, u32::MAX), Some(AnyArch::X86_64(X86_64)));
    assert_eq!(AnyArch::from_elf_flags(1, 2, 1, 0), None);
}

/// Every answer that `arch` gives.
fn answers(arch: impl Arch) -> String {
    let registers = (0..100).map(|number| arch.is_callee_saved(Register(number)));
    let registers: Vec<_> = registers.collect();
    let codes: &[&[u8]] = &[
        &[0x24, 0x02, 0x18, 0x43, 0, 0, 0, 0x0c],
        &[0x03, 0xe0, 0, 0x08, 0, 0, 0, 0],
        &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05],
        &[0xc3, 0, 0, 0],
        &[0x68, 0x11, 0x80, 0xd2, 0x01, 0, 0, 0xd4],
        &[0xc0, 0x03, 0x5f, 0xd6],
        &[0x93, 0x08, 0xb0, 0x08, 0x73, 0, 0, 0],
        &[0x82, 0x80],
        &[0xb8, 0xad, 0, 0, 0, 0xcd, 0x80],
        &[0x77, 0x70, 0xa0, 0xe3, 0, 0, 0, 0xef],
        &[0x0a, 0x77],
        &[0x07, 0xfe],
        &[0x38, 0x21, 0, 0x80, 0x38, 0, 0, 0xac, 0x44, 0, 0, 0x02],
        &[0x80, 0, 0x21, 0x38, 0xac, 0, 0, 0x38, 0x02, 0, 0, 0x44],
        &[0x4e, 0x80, 0, 0x20],
        &[0x0b, 0x2c, 0x82, 0x03, 0, 0, 0x2b, 0],
        &[0x20, 0, 0, 0x4c],
    ];
    let codes = codes.iter().map(|at| {
        let code = Code { before: &[], at };
        (arch.instruction_rule(&code), arch.signal_trampoline(&code))
    });
    let codes: Vec<_> = codes.collect();
    let sizes = (arch.word_size(), arch.register_size(), arch.byte_order());
    let numbers = (arch.sp(), arch.fp(), arch.ra(), arch.ip(), arch.sp_bias());
    let rules = (arch.entry_rule(), arch.frame_pointer_rule(), arch.back_chain_rule());
    let stripped = arch.strip_code_pointer(0x5a7f_1234_5678_9abc);
    let identity = (arch.name(), sizes, arch.cfi_vendor());
    format!("{identity:?} {numbers:?} {rules:?} {registers:?} {codes:?} {stripped:x}")
}

#[test]
fn the_chosen_one_answers() {
    assert_eq!(answers(AnyArch::X86_64(X86_64)), answers(X86_64));
    for arch in [Aarch64::new(), Aarch64::big_endian(), Aarch64::new().with_address_bits(39)] {
        assert_eq!(answers(AnyArch::Aarch64(arch)), answers(arch));
    }
    assert_eq!(answers(AnyArch::S390x(S390x)), answers(S390x));
    for arch in [Riscv::new(), Riscv::rv32()] {
        assert_eq!(answers(AnyArch::Riscv(arch)), answers(arch));
    }
    assert_eq!(answers(AnyArch::X86(X86)), answers(X86));
    for abi in [Abi::O32, Abi::N32, Abi::N64] {
        for arch in [ByteOrder::Little, ByteOrder::Big].map(|order| Mips::new(abi, order)) {
            assert_eq!(answers(AnyArch::Mips(arch)), answers(arch));
        }
    }
    for arch in [Arm::new(), Arm::big_endian().with_frame_pointer(FramePointer::None)] {
        assert_eq!(answers(AnyArch::Arm(arch)), answers(arch));
    }
    for arch in [Powerpc64::little_endian(), Powerpc64::big_endian()] {
        assert_eq!(answers(AnyArch::Powerpc64(arch)), answers(arch));
    }
    assert_eq!(answers(AnyArch::Loongarch64(Loongarch64)), answers(Loongarch64));
    assert_ne!(answers(X86_64), answers(Aarch64::new()));
    assert_ne!(answers(Aarch64::new()), answers(Aarch64::new().with_address_bits(39)));
}

#[test]
fn registers_of_the_chosen_one() {
    for (_, arch) in HEADERS.iter().copied() {
        let registers = AnyRegisters::new(arch, 1, 2, 3, Some(4));
        assert_eq!(registers.ip(), Some(1));
        let get = |register| registers.get(register);
        assert_eq!((get(arch.sp()), get(arch.fp())), (Some(2), Some(3)));
        // x86 has no link register: the column for the return address stays the ip.
        let pushes = matches!(arch, AnyArch::X86_64(_) | AnyArch::X86(_));
        assert_eq!(get(arch.ra()), Some(if pushes { 1 } else { 4 }));
        assert_eq!(registers.without(arch.fp()).get(arch.fp()), None);
        let without = AnyRegisters::new(arch, 1, 2, 3, None);
        assert_eq!(without.get(arch.ra()), pushes.then_some(1));

        let list = [(arch.sp(), 5), (Register(0), 6), (Register(999), 7)];
        let registers = AnyRegisters::from_dwarf(arch, list).with_ip(8);
        assert_eq!((registers.ip(), registers.get(arch.sp())), (Some(8), Some(5)));
        assert_eq!((registers.get(Register(0)), registers.get(arch.fp())), (Some(6), None));
        assert_eq!(AnyRegisters::unknown(arch), AnyRegisters::from_dwarf(arch, []));

        let unwinder = Unwinder::new(arch, ());
        let absent = AnyRegisters::absent(arch);
        assert_eq!(unwinder.start(&absent).err(), Some(StartError::NoUserRegisters));
    }
}

/// For each architecture: the bytes needed, and the offset of sp, of ptrace's general registers, of an
/// `NT_PRSTATUS` note and of `ucontext_t`, by a C compiler's `sizeof` and `offsetof`; the ABI of perf's
/// samples, and the bit of sp in their masks.
type Sizes = [(usize, usize); 3];
const LAYOUTS: &[(AnyArch, Sizes, (u8, u32))] = &[
    (AnyArch::X86_64(X86_64), [(216, 152), (328, 264), (176, 160)], (2, 7)),
    (AnyArch::Aarch64(Aarch64::new()), [(272, 248), (384, 360), (448, 432)], (2, 31)),
    (AnyArch::S390x(S390x), [(216, 136), (328, 248), (384, 176)], (2, 15)),
    (AnyArch::Riscv(Riscv::new()), [(256, 16), (368, 128), (432, 192)], (2, 2)),
    (AnyArch::Riscv(Riscv::rv32()), [(128, 8), (200, 80), (288, 168)], (1, 2)),
    (AnyArch::Powerpc64(Powerpc64::little_endian()), [(296, 8), (496, 120), (872, 240)], (2, 1)),
    (AnyArch::Powerpc64(Powerpc64::big_endian()), [(296, 8), (496, 120), (872, 240)], (2, 1)),
    (AnyArch::Loongarch64(Loongarch64), [(360, 24), (472, 136), (440, 208)], (2, 3)),
    (AnyArch::X86(X86), [(68, 60), (140, 132), (80, 48)], (1, 7)),
    (AnyArch::Arm(Arm::new()), [(72, 52), (144, 124), (96, 84)], (1, 13)),
    (AnyArch::Arm(Arm::big_endian()), [(72, 52), (144, 124), (96, 84)], (1, 13)),
    (AnyArch::Mips(Mips::new(Abi::O32, ByteOrder::Little)), [(180, 140), (252, 212), (296, 272)], (1, 29)),
    (AnyArch::Mips(Mips::new(Abi::N32, ByteOrder::Little)), [(360, 232), (432, 304), (608, 256)], (2, 29)),
    (AnyArch::Mips(Mips::new(Abi::N64, ByteOrder::Little)), [(360, 232), (472, 344), (624, 272)], (2, 29)),
    (AnyArch::Mips(Mips::new(Abi::O32, ByteOrder::Big)), [(180, 140), (252, 212), (296, 276)], (1, 29)),
    (AnyArch::Mips(Mips::new(Abi::N32, ByteOrder::Big)), [(360, 232), (432, 304), (608, 256)], (2, 29)),
    (AnyArch::Mips(Mips::new(Abi::N64, ByteOrder::Big)), [(360, 232), (472, 344), (624, 272)], (2, 29)),
];

#[test]
fn floating_point_registers_where_they_matter() {
    for (_, arch) in HEADERS.iter().copied() {
        let registers = AnyRegisters::new(arch, 1, 2, 3, Some(4));
        // In C: the size up to the end of the last register, the first one's offset and DWARF number.
        let (needed, at, first) = match arch {
            AnyArch::S390x(_) => (136, 8, Register(16)),
            AnyArch::Powerpc64(_) => (256, 0, Register(32)),
            _ => {
                assert_eq!(registers.with_fp_regs(arch, &[]), Ok(registers));
                continue;
            }
        };
        let mut bytes = vec![0; needed];
        bytes[low_byte(arch, at, WordSize::Eight)] = 0x77;
        let added = registers.with_fp_regs(arch, &bytes).unwrap();
        assert_eq!((added.get(first), added.get(arch.sp())), (Some(0x77), Some(2)), "{arch:?}");
        let error = registers.with_fp_regs(arch, &bytes[1..]).unwrap_err();
        assert_eq!(error, LayoutError::TooShort { needed, len: needed - 1 });
    }
}

/// The offset of a register's low byte, if the register is at `at`.
fn low_byte(arch: AnyArch, at: usize, size: WordSize) -> usize {
    let last = if size == WordSize::Four { 3 } else { 7 };
    if arch.byte_order() == ByteOrder::Big { at + last } else { at }
}

#[test]
fn bytes_of_the_chosen_one() {
    type Parser = fn(AnyArch, &[u8]) -> Result<AnyRegisters, LayoutError>;
    let parsers: [Parser; 3] =
        [AnyRegisters::from_user_regs, AnyRegisters::from_prstatus, AnyRegisters::from_ucontext];
    for (arch, sizes, perf) in LAYOUTS.iter().copied() {
        for (parse, (needed, sp)) in parsers.into_iter().zip(sizes) {
            let mut bytes = vec![0; needed];
            bytes[low_byte(arch, sp, arch.register_size())] = 0x77;
            check(arch, &bytes, |bytes| parse(arch, bytes));
        }
        let (abi, bit) = perf;
        let mut bytes = [0; 16];
        bytes[low_byte(arch, 0, WordSize::Eight)] = abi;
        bytes[low_byte(arch, 8, WordSize::Eight)] = 0x77;
        check(arch, &bytes, |bytes| AnyRegisters::from_perf_sample(arch, 1 << bit, bytes));
    }
}

/// sp is 0x77 in `bytes`, and one byte less is refused.
fn check(arch: AnyArch, bytes: &[u8], parse: impl Fn(&[u8]) -> Result<AnyRegisters, LayoutError>) {
    assert_eq!(parse(bytes).unwrap().get(arch.sp()), Some(0x77), "{arch:?}, {} bytes", bytes.len());
    let (needed, len) = (bytes.len(), bytes.len() - 1);
    let error = parse(&bytes[..len]).unwrap_err();
    assert_eq!(error, LayoutError::TooShort { needed, len }, "{arch:?}");
    let told = format!("a register set of {len} bytes, where {needed} are needed");
    assert_eq!(format!("{error}"), told);
}
