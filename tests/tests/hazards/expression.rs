//! Expressions.

use unwind_arch::arm::Arm;
use unwind_core::{
    Arch, Base, Broken, CfaRule, End, LookupError, Pc, RaRule, Register, Rule, SourceError, StepError,
    UnwindError,
};
use unwind_tests::synthetic::cfi::{Expression, Program};
use unwind_tests::synthetic::{AnyArch, Memory, Registers};

use super::table::{Table, X86};

fn expression() -> Expression {
    Expression::new(X86.word_size(), X86.byte_order())
}

fn cfa_of(expression: Expression) -> Table {
    Table::of(X86, 0x1000, 0x10, |program: &mut Program| {
        program.cfa_expression(expression);
    })
}

/// What is wrong with an expression, found when it is looked up or when it is evaluated.
fn broken(expression: Expression) -> Broken {
    let table = cfa_of(expression);
    let registers = Registers::new(0x1000, [(X86.sp(), 0x7000), (X86.fp(), 0x7010)]);
    let (frames, end) = table.walk(&registers, &Memory::new());
    assert_eq!(frames.len(), 1);
    match end {
        End::Failed(UnwindError { cause: StepError::Broken(SourceError { broken, .. }), .. }) => broken,
        other => panic!("{other:?}"),
    }
}

#[test]
fn h14_expressions_without_end_or_sense() {
    const SKIP: u8 = 0x2f;
    const BRA: u8 = 0x28;
    // Branches to themselves, unconditional, on a constant, and on what only an evaluation knows.
    assert_eq!(broken(expression().raw(&[SKIP, 0xfd, 0xff])), Broken::OutOfFuel);
    assert_eq!(broken(expression().op(0x31).raw(&[BRA, 0xfc, 0xff])), Broken::OutOfFuel);
    assert_eq!(broken(expression().breg(X86.sp(), 0).raw(&[BRA, 0xfb, 0xff])), Broken::OutOfFuel);
    // Beyond both ends.
    for target in [[0x10, 0], [0xff, 0x7f], [0, 0x80], [0xfb, 0xff]] {
        let found = broken(expression().op(0x31).op(SKIP).raw(&target));
        assert!(matches!(found, Broken::OutOfBounds | Broken::UnexpectedEnd), "{target:x?}: {found:?}");
    }
    // More on the stack than there is room, by repetition and by a loop.
    let many = (0..100).fold(expression(), |expression, _| expression.op(0x31));
    assert_eq!(broken(many), Broken::ExpressionStackFull);
    assert_eq!(broken(expression().op(0x31).raw(&[SKIP, 0xfc, 0xff])), Broken::ExpressionStackFull);
    // Less than is needed.
    for operation in
        [0x06, 0x12, 0x13, 0x14, 0x16, 0x17, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x20, 0x22, 0x2e]
    {
        let found = broken(expression().op(operation));
        assert_eq!(found, Broken::ExpressionStackEmpty, "{operation:#x}");
    }
    assert_eq!(broken(expression()), Broken::ExpressionStackEmpty);
    assert_eq!(broken(expression().op(0x31).raw(&[0x15, 1])), Broken::ExpressionStackEmpty);
    // By zero, both divisions.
    for division in [0x1b, 0x1d] {
        assert_eq!(broken(expression().op(0x31).op(0x30).op(division)), Broken::DivisionByZero);
        let late = expression().breg(X86.sp(), 0).op(0x30).op(division);
        assert_eq!(broken(late), Broken::DivisionByZero);
    }
    // The least number by -1 has no quotient that fits: a wrong frame, but no panic.
    let least = expression().op(0x31).constant(63, 1).op(0x24).constant(-1, 1).op(0x1b);
    let (frames, _) = cfa_of(least).walk(&Registers::new(0x1000, [(X86.sp(), 0x7000)]), &Memory::new());
    assert_eq!(frames.len(), 1);
    // Operations that have no place here, or that nobody knows.
    for operation in [0x50, 0x9c, 0x98, 0xe0, 0xff, 0x97] {
        let found = broken(expression().op(operation).raw(&[0, 0, 0, 0, 0, 0, 0, 0]));
        assert!(matches!(found, Broken::UnknownOperation | Broken::Malformed), "{operation:#x}: {found:?}");
    }
}

/// What is on the stack is as wide as an address (DWARF 5, section 2.5.1): the shift is by one.
#[test]
fn a_constant_wider_than_a_word_is_cut_to_one() {
    let arch = AnyArch::Arm(Arm::default());
    let expression = || Expression::new(arch.word_size(), arch.byte_order());
    for wide in [1, 0x1_0000_0001, 0x0f00_0000_0000_0001] {
        // (sp + sp) >> wide, as the CFA of a leaf.
        let cfa = expression().breg(arch.sp(), 0).op(0x12).op(0x22).constant(wide, 5).op(0x25);
        let table = Table::of(arch, 0x1000, 0x10, |program: &mut Program| {
            program.cfa_expression(cfa);
        });
        let registers = Registers::new(0x1000, [(arch.sp(), 0x7000), (arch.ra(), 0x2000)]);
        let (frames, _) = table.walk(&registers, &Memory::new());
        assert_eq!(frames.len(), 2, "{wide:#x}");
        assert_eq!((frames[1].pc, frames[1].sp), (Pc::Return(0x2000), 0x7000), "{wide:#x}");
    }
}

#[test]
fn h14_a_cfa_that_moves_backwards_ends_the_walk() {
    // *(sp) - 64, and sp - 64 in a way that only an evaluation can follow.
    let backwards = [
        expression().breg(X86.sp(), 0).deref().constant(64, 1).op(0x1c),
        expression().breg(X86.sp(), -64).opaque(),
    ];
    for cfa in backwards {
        let table = cfa_of(cfa);
        let mut memory = Memory::new();
        for slot in 0..64 {
            memory.put_word(0x6f00 + 8 * slot, 0x7000, X86.word_size(), X86.byte_order());
        }
        let (frames, end) = table.walk(&Registers::new(0x1000, [(X86.sp(), 0x7000)]), &memory);
        assert_eq!(frames.len(), 1);
        let caller_sp = 0x7000 - 64;
        let expected = StepError::StackNotShrinking { caller_sp, sp: 0x7000 };
        assert!(matches!(end, End::Failed(error) if error.cause == expected), "{end:?}");
    }
}

#[test]
fn h19_the_procedure_linkage_table() {
    // rsp + 8 + (((rip & 15) >= 11) << 3): binutils' CFI of a lazy PLT, where `push $index` is at 6
    // to 10 and `jmp` after it.
    let table = Table::of(X86, 0x1000, 0x40, |program| {
        let plt =
            expression().breg(X86.sp(), 8).breg(X86.ra(), 0).raw(&[0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22]);
        program.cfa_expression(plt);
    });
    for pc in 0x1000..0x1040u64 {
        let size = if pc % 16 >= 11 { 16 } else { 8 };
        let rule = table.rule(pc);
        assert_eq!(rule.cfa(), CfaRule::Offset { base: Base::Sp, offset: size }, "at {pc:#x}");
        assert_eq!(rule.ra(), RaRule::AtCfa(-8));
    }
}

#[test]
fn h19_the_old_sp_on_the_stack() {
    // OpenSSL's assembly: CFA = *(rsp + 96) + 8.
    for (slot, add) in [(96, 8), (0, 0), (-128, -8), (0x3f_ffff, 255), (-0x40_0000, -256)] {
        let table = cfa_of(expression().breg(X86.sp(), slot).deref().add(add, 2));
        let offset = i32::try_from(slot).expect("23 bits");
        let add = i16::try_from(add).expect("9 bits");
        assert_eq!(table.rule(0x1000).cfa(), CfaRule::Deref { base: Base::Sp, offset, add });
    }
    // What a rule has no room for is evaluated, not narrowed.
    for (slot, add) in [(0x40_0000, 0), (-0x40_0001, 0), (8, 256), (8, -257), (1 << 40, 8)] {
        let table = cfa_of(expression().breg(X86.sp(), slot).deref().add(add, 2));
        assert_eq!(table.lookup(Pc::Exact(0x1000)), Ok(Some(Rule::Evaluate)), "{slot:#x} {add}");
        let mut memory = Memory::new();
        let sp = 0x7fff_0000_0000u64;
        memory.put_word(sp.wrapping_add_signed(slot), sp + 0x1000, X86.word_size(), X86.byte_order());
        let cfa = (sp + 0x1000).wrapping_add_signed(add);
        if cfa % 8 == 0 {
            memory.put_word(cfa - 8, 0x4444, X86.word_size(), X86.byte_order());
            let (frames, _) = table.walk(&Registers::new(0x1000, [(X86.sp(), sp)]), &memory);
            assert_eq!((frames[1].pc, frames[1].sp), (Pc::Return(0x4444), cfa));
        }
    }
}

#[test]
fn h19_a_cfa_on_any_register() {
    // rax, rbx, r10, r11: assembly and realigned stacks.
    for number in [0u16, 3, 10, 11] {
        let register = Register(number);
        let table = Table::of(X86, 0x1000, 0x10, |program| {
            program.with(0x0c, &[number.into(), 8]);
        });
        let rule = CfaRule::Offset { base: Base::Register(register), offset: 8 };
        assert_eq!(table.rule(0x1000).cfa(), rule);
        let mut memory = Memory::new();
        memory.put_word(0x7100, 0x1004, X86.word_size(), X86.byte_order());
        let registers = Registers::new(0x1000, [(X86.sp(), 0x7000), (register, 0x7100)]);
        let (frames, end) = table.walk(&registers, &memory);
        assert_eq!((frames.len(), frames[1].sp), (2, 0x7108));
        // In the caller nobody knows it any more: not the old value, and not another register.
        assert!(
            matches!(end, End::Failed(error) if error.cause == StepError::UnknownRegister(register)),
            "{end:?}"
        );
    }
    // DRAP: the CFA is in a word below the frame pointer.
    let table = cfa_of(expression().breg(X86.fp(), -8).deref());
    assert_eq!(table.rule(0x1000).cfa(), CfaRule::Deref { base: Base::Fp, offset: -8, add: 0 });
}

#[test]
fn h14_a_broken_expression_elsewhere_does_no_harm() {
    let table = Table::of(X86, 0x1000, 0x10, |program| {
        program.advance(8, 0).cfa_expression(expression().op(0xff));
    });
    assert_eq!(table.rule(0x1007).cfa(), CfaRule::Offset { base: Base::Sp, offset: 8 });
    assert!(matches!(table.lookup(Pc::Exact(0x1008)), Err(LookupError::Broken(_))));
}
