//! Call frame instructions.

use unwind_core::dwarf::{DwarfSource, Flavor, Section};
use unwind_core::{
    Arch, Base, Broken, CfaRule, End, FpRule, FrameSource, LookupError, Mark, MemoryError, Module, ModuleMap,
    Pc, Query, RaRule, Register, Rule, SourceError, StepError, UnwindUserType, Unwinder,
};
use unwind_tests::synthetic::cfi::{self, CfiSection, Cie, Fde, Program, encoding};
use unwind_tests::synthetic::{Memory, Registers};

use super::table::{ARM, EH_FRAME, Table, X86, index, lookup};

const REMEMBER: u8 = 0x0a;
const RESTORE: u8 = 0x0b;

fn broken(table: &Table, pc: u64) -> Broken {
    match table.lookup(Pc::Exact(pc)) {
        Err(LookupError::Broken(SourceError { broken, .. })) => broken,
        other => panic!("{other:?}"),
    }
}

fn cfa(table: &Table, pc: u64) -> CfaRule {
    table.rule(pc).cfa()
}

fn offset(base: Base, offset: i32) -> CfaRule {
    CfaRule::Offset { base, offset }
}

#[test]
fn h11_remember_and_restore() {
    let empty = Table::of(X86, 0x1000, 0x10, |program| {
        program.op(RESTORE);
    });
    assert_eq!(broken(&empty, 0x1000), Broken::RememberStackEmpty);

    let nested = |depth: u64| {
        Table::of(X86, 0x1000, 0x100, |program| {
            for level in 0..depth {
                program.with(0x0e, &[16 + 8 * level]).op(REMEMBER);
            }
            program.with(0x0e, &[0x1000]);
            for _ in 0..depth {
                program.advance(4, 0).op(RESTORE);
            }
        })
    };
    for depth in 1..=8 {
        let table = nested(depth);
        for (pc, level) in (0..depth).rev().zip(0..).map(|(level, step)| (0x1004 + 4 * step, level)) {
            let expected = i32::try_from(16 + 8 * level).expect("small");
            assert_eq!(cfa(&table, pc), offset(Base::Sp, expected), "{depth} deep at {pc:#x}");
        }
    }
    // Deeper than the documented eight: an error of its own, and not "no entry".
    assert_eq!(broken(&nested(9), 0x1004), Broken::RememberStackFull);
    // One that is never restored is no error.
    let unbalanced = Table::of(X86, 0x1000, 0x10, |program| {
        program.op(REMEMBER).with(0x0e, &[32]).advance(4, 0).op(RESTORE).op(REMEMBER);
    });
    assert_eq!(cfa(&unbalanced, 0x1000), offset(Base::Sp, 32));
    assert_eq!(cfa(&unbalanced, 0x1004), offset(Base::Sp, 8));
    // The CFA is part of the state, and so are columns set to nothing in between.
    let all = Table::of(X86, 0x1000, 0x10, |program| {
        program.with(0x86, &[2]).op(REMEMBER);
        program.with(0x0c, &[6, 16]).with(0x07, &[6]).advance(4, 0).op(RESTORE);
    });
    let rule = all.rule(0x1004);
    assert_eq!((rule.cfa(), rule.fp()), (offset(Base::Sp, 8), FpRule::AtCfa(-16)));
}

#[test]
fn h12_an_expression_leaves_nothing_behind() {
    let deref = CfaRule::Deref { base: Base::Sp, offset: 8, add: 0 };
    let table = Table::of(X86, 0x1000, 0x10, |program| {
        program.with(0x0f, &[3]).bytes.data.extend([0x77, 0x08, 0x06]);
        program.advance(4, 0).with(0x0c, &[6, 24]);
        program.advance(4, 0).with(0x0f, &[2]).bytes.data.extend([0x77, 0x30]);
    });
    assert_eq!(cfa(&table, 0x1000), deref);
    assert_eq!(cfa(&table, 0x1004), offset(Base::Fp, 24));
    assert_eq!(cfa(&table, 0x1008), offset(Base::Sp, 0x30));
    // What changes a half of "register + offset" has nothing to change after an expression; the
    // offset of the last such rule must not come back.
    for half in [&[0x0du8, 6][..], &[0x0e, 16], &[0x13, 1]] {
        let table = Table::of(X86, 0x1000, 0x10, |program| {
            program.with(0x0c, &[7, 40]).with(0x0f, &[3]).bytes.data.extend([0x77, 0x08, 0x06]);
            program.advance(4, 0).bytes.data.extend(half);
        });
        assert_eq!(cfa(&table, 0x1000), deref);
        assert_eq!(broken(&table, 0x1004), Broken::BadInstruction);
    }
}

#[test]
fn h12_a_cie_that_names_only_the_register() {
    // As gas writes them for RISC-V and LoongArch: DW_CFA_def_cfa_register before any offset.
    let mut table = Table::new(ARM);
    table.cie.instructions = vec![0x0d, 31];
    table.function(0x1000, 0x10, |program| {
        program.advance(4, 0).with(0x0e, &[32]);
    });
    assert_eq!(cfa(&table, 0x1000), offset(Base::Sp, 0));
    assert_eq!(cfa(&table, 0x1004), offset(Base::Sp, 32));
    // An offset from no register is no rule.
    let mut table = Table::new(ARM);
    table.cie.instructions = vec![0x0e, 32];
    table.function(0x1000, 0x10, |_| ());
    assert_eq!(broken(&table, 0x1000), Broken::BadInstruction);
}

#[test]
fn h13_register_numbers_of_every_size() {
    let numbers = [0u64, 3, 17, 31, 32, 63, 64, 127, 128, 253, 254, 255, 256, 1000, 65535];
    for arch in [X86, ARM] {
        let tracked = [arch.sp(), arch.fp(), arch.ra()].map(|register| u64::from(register.0));
        for number in numbers.into_iter().filter(|number| !tracked.contains(number)) {
            // Every instruction that names a register, but those of the CFA.
            let write = |program: &mut Program| {
                program.with(0x0c, &[arch.sp().0.into(), 32]);
                if number < 64 {
                    let low = u8::try_from(number).expect("six bits");
                    program.with(0x80 + low, &[3]).op(0xc0 + low);
                }
                program
                    .with(0x05, &[number, 2])
                    .with(0x06, &[number])
                    .with(0x07, &[number])
                    .with(0x08, &[number]);
                program
                    .with(0x09, &[number, 65535 - number])
                    .with(0x11, &[number, 2])
                    .with(0x14, &[number, 2]);
                program.with(0x15, &[number, 2]).with(0x2f, &[number, 2]);
                program.with(0x10, &[number, 1, 0x30]).with(0x16, &[number, 1, 0x30]);
            };
            let rule = Table::of(arch, 0x1000, 0x10, write).rule(0x1000);
            let plain = Table::of(arch, 0x1000, 0x10, |program| {
                program.with(0x0c, &[arch.sp().0.into(), 32]);
            });
            assert_eq!(rule, plain.rule(0x1000), "register {number}");

            let based = Table::of(arch, 0x1000, 0x10, |program| {
                program.with(0x0c, &[number, 16]);
            });
            match (based.lookup(Pc::Exact(0x1000)), u16::try_from(number)) {
                (Ok(Some(Rule::Frame(frame))), Ok(named @ 0..254)) => {
                    assert_eq!(frame.cfa(), offset(Base::Register(Register(named)), 16));
                }
                // The rule has no room for such a number; the evaluation has.
                (Ok(Some(Rule::Evaluate)), Ok(254..)) => {}
                other => panic!("a CFA on register {number}: {other:?}"),
            }
        }
        // No register has such a number.
        for number in [65536, u64::from(u32::MAX), u64::MAX] {
            for opcode in [0x05, 0x06, 0x07, 0x08, 0x0c] {
                let table = Table::of(arch, 0x1000, 0x10, |program| {
                    program.with(opcode, &[number, 1]);
                });
                assert_eq!(broken(&table, 0x1000), Broken::Malformed, "{opcode:#x} on {number}");
            }
        }
    }
}

#[test]
fn h16_an_epilogue_in_the_middle() {
    // push %rbp; mov %rsp, %rbp; … pop %rbp; ret; … and the body goes on.
    let table = Table::of(X86, 0x1000, 0x40, |program| {
        program.advance(1, 0).with(0x0e, &[16]).with(0x86, &[2]);
        program.advance(3, 0).with(0x0d, &[6]);
        program.advance(0x10, 0).op(REMEMBER).with(0x0c, &[7, 8]).op(0xc6);
        program.advance(1, 0).op(RESTORE);
        program.advance(0x20, 0).with(0x0c, &[7, 8]).op(0xc6);
    });
    for pc in 0x1000..0x1040u64 {
        let (base, size, fp) = match pc - 0x1000 {
            0 | 0x14 | 0x35.. => (Base::Sp, 8, FpRule::Unchanged),
            1..4 => (Base::Sp, 16, FpRule::AtCfa(-16)),
            _ => (Base::Fp, 16, FpRule::AtCfa(-16)),
        };
        let rule = table.rule(pc);
        assert_eq!(
            (rule.cfa(), rule.ra(), rule.fp()),
            (offset(base, size), RaRule::AtCfa(-8), fp),
            "at {pc:#x}"
        );
    }
}

#[test]
fn h17_undefined_same_value_and_unspecified_are_three_states() {
    let undefined = Table::of(X86, 0x1000, 0x10, |program| {
        program.with(0x86, &[2]).with(0x07, &[16]);
    });
    // Other registers are saved; it is the outermost frame all the same.
    let (frames, end) = undefined.walk(&Registers::new(0x1000, [(X86.sp(), 0x7000)]), &Memory::new());
    assert_eq!((frames.len(), end), (1, End::Complete(Mark::UndefinedReturnAddress)));
    // Without any rule for the CFA too.
    let mut bare = Table::new(X86);
    bare.cie.instructions.clear();
    bare.function(0x1000, 0x10, |program| {
        program.with(0x07, &[16]);
    });
    assert_eq!(bare.rule(0x1000).ra(), RaRule::Undefined);

    // x86-64 has no register in which the return address could have stayed.
    for say_so in [true, false] {
        let mut table = Table::new(X86);
        table.cie.instructions = vec![0x0c, 7, 8];
        table.function(0x1000, 0x10, |program| {
            if say_so {
                program.with(0x08, &[16]);
            }
        });
        assert_eq!(broken(&table, 0x1000), Broken::NoReturnAddress, "said: {say_so}");
    }
    // vfork keeps it in %rdi.
    let vfork = Table::of(X86, 0x1000, 0x10, |program| {
        program.with(0x0e, &[0]).with(0x09, &[16, 5]);
    });
    assert_eq!(vfork.rule(0x1000).ra(), RaRule::InRegister { base: Base::Register(Register(5)), offset: 0 });
    let registers = Registers::new(0x1000, [(X86.sp(), 0x7000), (Register(5), 0x4444)]);
    let (frames, _) = vfork.walk(&registers, &Memory::new());
    assert_eq!((frames[1].pc, frames[1].sp), (Pc::Return(0x4444), 0x7000));

    // AArch64 has: a leaf says nothing about it.
    for say_so in [true, false] {
        let leaf = Table::of(ARM, 0x1000, 0x10, |program| {
            if say_so {
                program.with(0x08, &[30]);
            }
        });
        assert_eq!(
            leaf.rule(0x1000).ra(),
            RaRule::InRegister { base: Base::Register(Register(30)), offset: 0 }
        );
    }
    // And a frame pointer is unchanged unless it is said to be lost.
    let lost = Table::of(X86, 0x1000, 0x10, |program| {
        program.advance(4, 0).with(0x07, &[6]).advance(4, 0).with(0x08, &[6]);
    });
    let fps = [0x1000, 0x1004, 0x1008].map(|pc| lost.rule(pc).fp());
    assert_eq!(fps, [FpRule::Unchanged, FpRule::Undefined, FpRule::Unchanged]);
}

#[test]
fn h18_signed_return_addresses() {
    // paciasp; stp x29, x30, [sp, #-16]!; …; autiasp; ret, with the B key and a tagged stack.
    let mut table = Table::new(ARM);
    table.cie.augmentation = b"zRBG".to_vec();
    table.function(0x1000, 0x20, |program| {
        program.advance(4, 0).op(0x2d);
        program.advance(4, 0).with(0x0e, &[16]).with(0x05, &[29, 2]).with(0x05, &[30, 1]);
        program.advance(8, 0).with(0x06, &[29]).with(0x06, &[30]).with(0x0e, &[0]).op(0x2d);
        // DW_CFA_AARCH64_negate_ra_state_with_pc
        program.advance(4, 0).op(0x2c);
        // RA_SIGN_STATE as a value of its own, and as an expression.
        program.advance(4, 0).with(0x16, &[34, 1, 0x31]);
    });
    let link = RaRule::InRegister { base: Base::Register(Register(30)), offset: 0 };
    for (pc, size, ra) in [(0x1000, 0, link), (0x1004, 0, link), (0x1008, 16, RaRule::AtCfa(-8))] {
        assert_eq!((table.rule(pc).cfa(), table.rule(pc).ra()), (offset(Base::Sp, size), ra), "at {pc:#x}");
    }
    for pc in [0x1010, 0x1014, 0x1018] {
        assert_eq!(table.rule(pc).ra(), link, "at {pc:#x}");
    }
    // The code in the pointer is taken off: x30 at the leaf, the stack in the frame.
    let signed = 0x0055_1234_5678_u64 | 0x5a << 48;
    let mut memory = Memory::new();
    memory.put_word(0x7000, 0, ARM.word_size(), ARM.byte_order());
    memory.put_word(0x7008, signed, ARM.word_size(), ARM.byte_order());
    for (pc, sp) in [(0x1004, 0x7000), (0x1008, 0x7010)] {
        let registers = Registers::new(pc, [(ARM.sp(), 0x7000), (ARM.ra(), signed)]);
        let (frames, _) = table.walk(&registers, &memory);
        assert_eq!((frames[1].pc, frames[1].sp), (Pc::Return(0x55_1234_5678), sp));
    }
    // On another architecture these numbers are other instructions, or none.
    let x86 = Table::of(X86, 0x1000, 0x10, |program| {
        program.op(0x2c);
    });
    assert_eq!(broken(&x86, 0x1000), Broken::UnknownInstruction);
}

#[test]
fn h20_large_frames_and_odd_ones() {
    for size in [0x1_0000, 540_128, 0x10_0000, 0x7fff_fff8] {
        let table = Table::of(X86, 0x1000, 0x10, |program| {
            program.with(0x0e, &[size]).with(0x86, &[size / 8]);
        });
        let rule = table.rule(0x1000);
        let wide = i32::try_from(size).expect("31 bits");
        assert_eq!((rule.cfa(), rule.fp()), (offset(Base::Sp, wide), FpRule::AtCfa(-wide)));
    }
    for size in [0x8000_0000, 0xffff_ffff, 0x1_0000_0010, u64::MAX] {
        let table = Table::of(X86, 0x1000, 0x10, |program| {
            program.with(0x0e, &[size]);
        });
        assert_eq!(broken(&table, 0x1000), Broken::OffsetTooLarge, "{size:#x}");
        let table = Table::of(X86, 0x1000, 0x10, |program| {
            program.with(0x86, &[size]);
        });
        assert_eq!(broken(&table, 0x1000), Broken::OffsetTooLarge, "{size:#x} times -8");
    }
    // CFA = sp + 12: refused, not rounded.
    let table = Table::of(X86, 0x1000, 0x10, |program| {
        program.with(0x0e, &[12]);
    });
    assert_eq!(cfa(&table, 0x1000), offset(Base::Sp, 12));
    let mut memory = Memory::new();
    memory.put(0x7000, &[0x44; 32]);
    let (frames, end) = table.walk(&Registers::new(0x1000, [(X86.sp(), 0x7000)]), &memory);
    assert_eq!(frames.len(), 1);
    assert!(
        matches!(end, End::Failed(error) if error.cause == StepError::Misaligned { cfa: 0x700c }),
        "{end:?}"
    );
    // On a stack that is odd by as much it is right.
    let (frames, _) = table.walk(&Registers::new(0x1000, [(X86.sp(), 0x7004)]), &memory);
    assert_eq!(frames[1].sp, 0x7010);
}

#[test]
fn h21_functions_that_save_every_register() {
    for arch in [X86, ARM] {
        let word = 8;
        // Every register but sp, fp and the return address, from the CFA downwards.
        let others: Vec<u16> =
            (0..64).filter(|number| ![arch.sp().0, arch.fp().0, arch.ra().0].contains(number)).collect();
        let table = Table::of(arch, 0x1000, 0x10, |program| {
            program.with(0x0c, &[arch.sp().0.into(), 800]).with(0x80 + fp_number(arch), &[2]);
            program.with(0x80 + ra_number(arch), &[1]);
            for (number, slot) in others.iter().zip(3..) {
                program.with(0x05, &[u64::from(*number), slot]);
            }
        });
        let rule = table.rule(0x1000);
        assert_eq!((rule.cfa(), rule.fp()), (offset(Base::Sp, 800), FpRule::AtCfa(-2 * word)));
        assert_eq!(rule.ra(), RaRule::AtCfa(-word));
        // All of them come back, each from its own slot.
        let mut memory = Memory::new();
        for slot in 1..=100u64 {
            memory.put_word(0x7000 + 800 - 8 * slot, 0x1000 + slot, arch.word_size(), arch.byte_order());
        }
        let unwinder = Unwinder::new(arch, DwarfSource::new(table.sections()));
        let registers = Registers::new(0x1000, [(arch.sp(), 0x7000), (arch.fp(), 1)]);
        let mut state = unwinder.start_tracking::<64>(&registers).expect("it starts");
        let frame = unwinder.next(&mut state, &mut &memory).expect("nothing is missing");
        assert_eq!((frame.pc, frame.fp), (Pc::Return(0x1001), Some(0x1002)));
        for (number, slot) in others.iter().zip(3..) {
            let value = unwind_core::RegisterFile::get(state.registers(), Register(*number));
            let ip = arch.ip() == Some(Register(*number));
            assert!(value == Some(0x1000 + slot) || ip, "register {number} of {}: {value:x?}", arch.name());
        }
    }
}

fn fp_number(arch: unwind_tests::synthetic::AnyArch) -> u8 {
    u8::try_from(arch.fp().0).expect("six bits")
}

fn ra_number(arch: unwind_tests::synthetic::AnyArch) -> u8 {
    u8::try_from(arch.ra().0).expect("six bits")
}

#[test]
fn h22_two_sections_that_disagree() {
    let table = Table::of(X86, 0x1000, 0x20, |program| {
        program.with(0x0e, &[16]);
    });
    let debug = |is_64: bool, version: u8, segment_size: u8| {
        let mut section = CfiSection::new(cfi::Flavor::DebugFrame, X86.word_size(), X86.byte_order(), 0);
        let cie = Cie { is_64, version, segment_size, ..Cie::debug(X86.ra(), vec![0x0c, 7, 8, 0x90, 1]) };
        let at = section.cie(&cie);
        for (start, size) in [(0x1000, 48), (0x2000, 64)] {
            let instructions = vec![0x0e, size];
            section.fde(at, &cie, &Fde { start, length: 0x20, instructions }).expect("it fits");
        }
        section
    };
    for (is_64, version, segment_size) in
        [(false, 1, 0), (true, 3, 0), (false, 4, 0), (true, 4, 0), (true, 4, 4), (false, 4, 1)]
    {
        let section = debug(is_64, version, segment_size);
        let mut sections = table.sections();
        sections.debug_frame = Some(Section { data: &section.bytes.data, svma: 0 });
        let mut room = Vec::new();
        let mut indexed = sections;
        indexed.debug_frame_index = Some(index(&X86, &sections, Flavor::DebugFrame, &mut room));
        for sections in [sections, indexed] {
            let size = |pc| match lookup(&X86, sections, Pc::Exact(pc)) {
                Ok(Some(Rule::Frame(frame))) => Some(frame.cfa()),
                Ok(None) => None,
                other => panic!("{other:?}"),
            };
            // Where both speak, `.eh_frame` counts.
            assert_eq!(size(0x1000), Some(offset(Base::Sp, 16)), "version {version}");
            assert_eq!(size(0x2000), Some(offset(Base::Sp, 64)), "version {version}");
            assert_eq!(size(0x2020), None);
        }
    }
}

#[test]
fn h22_an_indirect_pointer_that_cannot_be_read_is_no_gap() {
    let mut table = Table::new(X86);
    table.cie.pointer_encoding = 0x0b | encoding::PCREL | encoding::INDIRECT;
    table.section.got_svma = 0x60_0000;
    table.function(0x1000, 0x10, |program| {
        program.with(0x0e, &[16]);
    });
    let (place, target) = table.section.indirect[0];
    let bias = 0x10_0000;
    let modules =
        [Module { start: 0x10_1000, end: 0x10_2000, bias, source: DwarfSource::new(table.sections()) }];
    let map = ModuleMap::new(&X86, &modules).expect("one module");
    let mut memory = Memory::new();
    let query = Query::new(Pc::Exact(0x10_1008));
    let missing = LookupError::Memory(MemoryError::Unreadable { address: place + bias });
    assert_eq!(map.lookup(&X86, UnwindUserType::Dwarf, &query, &mut &memory), Err(missing));
    // A loader has relocated it.
    memory.put_word(place + bias, target + bias, X86.word_size(), X86.byte_order());
    let found = map.lookup(&X86, UnwindUserType::Dwarf, &query, &mut &memory).expect("it can be read now");
    let Some(Rule::Frame(frame)) = found.map(|found| found.rule) else { panic!("{found:?}") };
    assert_eq!(frame.cfa(), offset(Base::Sp, 16));
    assert_eq!(EH_FRAME, table.section.svma);
}
