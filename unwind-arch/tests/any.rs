//! The architecture chosen at run time does what the chosen one does.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
#![cfg(all(feature = "x86_64", feature = "aarch64", feature = "s390x", feature = "layout"))]

use unwind_arch::aarch64::Aarch64;
use unwind_arch::s390x::S390x;
use unwind_arch::x86_64::X86_64;
use unwind_arch::{AnyArch, AnyRegisters, LayoutError};
use unwind_core::{Arch, Code, Register, RegisterFile, StartError, Unwinder, UserRegisters};

#[test]
fn elf_headers_choose() {
    let mut found = 0;
    for machine in 0..=u16::MAX {
        for (class, data) in [(0, 0), (0, 1), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (2, 3), (3, 1)] {
            let expected = match (machine, class, data) {
                (62, 2, 1) => Some(AnyArch::X86_64(X86_64)),
                (183, 2, 1) => Some(AnyArch::Aarch64(Aarch64::new())),
                (183, 2, 2) => Some(AnyArch::Aarch64(Aarch64::big_endian())),
                (22, 2, 2) => Some(AnyArch::S390x(S390x)),
                _ => None,
            };
            assert_eq!(AnyArch::from_elf(machine, class, data), expected);
            found += u32::from(expected.is_some());
        }
    }
    assert_eq!(found, 4);
}

/// Every answer that `arch` gives.
fn answers(arch: impl Arch) -> String {
    let registers = (0..100).map(|number| arch.is_callee_saved(Register(number)));
    let registers: Vec<_> = registers.collect();
    let codes: [&[u8]; 4] = [
        &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05],
        &[0xc3, 0, 0, 0],
        &[0x68, 0x11, 0x80, 0xd2, 0x01, 0, 0, 0xd4],
        &[0xc0, 0x03, 0x5f, 0xd6],
    ];
    let codes = codes.map(|at| {
        let code = Code { before: &[], at };
        (arch.instruction_rule(&code), arch.signal_trampoline(&code))
    });
    let identity = (arch.name(), arch.word_size(), arch.byte_order(), arch.cfi_vendor());
    let numbers = (arch.sp(), arch.fp(), arch.ra(), arch.ip(), arch.sp_bias());
    let rules = (arch.entry_rule(), arch.frame_pointer_rule(), arch.back_chain_rule());
    let stripped = arch.strip_code_pointer(0x5a7f_1234_5678_9abc);
    format!("{identity:?} {numbers:?} {rules:?} {registers:?} {codes:?} {stripped:x}")
}

#[test]
fn the_chosen_one_answers() {
    assert_eq!(answers(AnyArch::X86_64(X86_64)), answers(X86_64));
    for arch in [Aarch64::new(), Aarch64::big_endian(), Aarch64::new().with_address_bits(39)] {
        assert_eq!(answers(AnyArch::Aarch64(arch)), answers(arch));
    }
    assert_eq!(answers(AnyArch::S390x(S390x)), answers(S390x));
    assert_ne!(answers(X86_64), answers(Aarch64::new()));
    assert_ne!(answers(Aarch64::new()), answers(Aarch64::new().with_address_bits(39)));
}

const BOTH: [AnyArch; 2] = [AnyArch::X86_64(X86_64), AnyArch::Aarch64(Aarch64::new())];

#[test]
fn registers_of_the_chosen_one() {
    for arch in BOTH {
        let registers = AnyRegisters::new(arch, 1, 2, 3, Some(4));
        assert_eq!(registers.ip(), Some(1));
        let get = |register| registers.get(register);
        assert_eq!((get(arch.sp()), get(arch.fp())), (Some(2), Some(3)));
        // x86-64 has no link register: the column for the return address stays the ip.
        let link = if arch == BOTH[0] { 1 } else { 4 };
        assert_eq!(get(arch.ra()), Some(link));
        assert_eq!(registers.without(arch.fp()).get(arch.fp()), None);
        let without = AnyRegisters::new(arch, 1, 2, 3, None);
        assert_eq!(without.get(arch.ra()), (arch == BOTH[0]).then_some(1));

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

#[test]
fn bytes_of_the_chosen_one() {
    type Parser = fn(AnyArch, &[u8]) -> Result<AnyRegisters, LayoutError>;
    let perf: Parser = |arch, bytes| AnyRegisters::from_perf_sample(arch, 0xff, bytes);
    // Bytes needed, and offset of sp, by a C compiler's offsetof.
    let parsers: [(Parser, [(usize, usize); 2]); 4] = [
        (AnyRegisters::from_user_regs, [(216, 152), (272, 248)]),
        (AnyRegisters::from_prstatus, [(328, 264), (384, 360)]),
        (AnyRegisters::from_ucontext, [(176, 160), (448, 432)]),
        (perf, [(72, 64), (72, 64)]),
    ];
    let mut bytes = [0; 1000];
    bytes[0] = 2;
    for (parse, sizes) in parsers {
        for (arch, (needed, sp)) in BOTH.into_iter().zip(sizes) {
            let mut bytes = bytes;
            bytes[sp] = 0x77;
            let registers = parse(arch, &bytes).unwrap();
            // Bit 7 of the mask is sp on the one, x7 on the other.
            let at = if needed == 72 { Register(7) } else { arch.sp() };
            assert_eq!(registers.get(at), Some(0x77));
            assert!(parse(arch, &bytes[..needed]).is_ok());
            let error = parse(arch, &bytes[..needed - 1]).unwrap_err();
            let told = format!("a register set of {} bytes, where {needed} are needed", needed - 1);
            assert_eq!(format!("{error}"), told);
        }
    }
}
