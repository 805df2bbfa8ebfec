//! Expressions, and what is special to some architectures.

use unwind_core::Arch;

use super::cfi::{at, broken, scene_of};
use super::place::{IN_MAIN, MAIN};
use crate::hazard::{CODE, Case, NOISE, STACK, Scene, Then};
use crate::synthetic::AnyArch;
use crate::synthetic::cfi::Expression;

const START: u64 = CODE + 0x1000;

fn cfa_of(arch: AnyArch, expression: impl FnOnce(Expression) -> Expression) -> Scene {
    scene_of(arch, |scene, program| {
        scene.sized(program, 2);
        program.cfa_expression(expression(scene.expression()));
    })
}

/// DWARF expressions are programs: they branch (DWARF 5, section 2.5.1.5), so they need not end; they have
/// a stack, which can be empty; they divide. A walk by one that moves the CFA backwards never ends where
/// nobody looks.
pub fn h14_expressions_without_end_or_sense(arch: AnyArch) -> Vec<Case> {
    let sp = arch.sp();
    let expressions: [(&str, &dyn Fn(Expression) -> Expression); 13] = [
        ("a branch to itself", &|it| it.breg(sp, 0).raw(&[0x2f, 0xfd, 0xff])),
        // DW_OP_lit1, DW_OP_bra: to the constant again.
        ("a condition that always holds", &|it| it.breg(sp, 0).op(0x31).raw(&[0x28, 0xfc, 0xff])),
        ("a branch behind the end", &|it| it.breg(sp, 0).raw(&[0x2f, 0x10, 0])),
        ("a branch before the beginning", &|it| it.breg(sp, 0).raw(&[0x2f, 0, 0x80])),
        ("an empty stack", &|it| it.op(0x22)),
        ("nothing at all", &|it| it),
        ("one value where two are needed", &|it| it.breg(sp, 8).op(0x22)),
        ("a pick of nothing", &|it| it.breg(sp, 8).raw(&[0x15, 7])),
        ("a division by zero", &|it| it.breg(sp, 8).op(0x30).op(0x1b)),
        ("a remainder of zero", &|it| it.breg(sp, 8).op(0x30).op(0x1d)),
        ("an operation that nobody knows", &|it| it.breg(sp, 8).op(0xff)),
        ("a register's name, which is no value", &|it| it.op(0x50)),
        ("an operand that is cut off", &|it| it.raw(&[0x0c, 1])),
    ];
    let mut cases: Vec<Case> =
        expressions.iter().map(|(name, expression)| broken(&cfa_of(arch, expression), *name, 4)).collect();
    let many = cfa_of(arch, |it| (0..100).fold(it.breg(sp, 8), |it, _| it.op(0x12)));
    // As deep as it is, its result is right; or it is refused.
    let mut many = broken(&many, "a deep stack", 4);
    many.expect.then = Then::Anything;
    many.expect.never.clear();
    cases.push(many);

    // A CFA below sp.
    for (name, is_stored) in [("backwards", false), ("backwards, by a word of the stack", true)] {
        let mut scene = Scene::new(arch);
        scene.function(START, 0x40, |scene, program| {
            scene.sized(program, 2);
            let back = scene.expression().breg(sp, if is_stored { 0 } else { -64 });
            program.cfa_expression(if is_stored {
                back.deref().constant(64, 1).op(0x1c)
            } else {
                back.opaque()
            });
        });
        for slot in 0..32 {
            scene.put(STACK - 0x80 + slot * arch.word(), if is_stored { STACK } else { START + 8 });
        }
        cases.push(scene.case(name, START + 4, &[(START + 4, STACK)], Then::Stops));
    }
    cases
}

/// Return addresses that the processor has signed, for AArch64 ("DWARF for the Arm 64-bit Architecture",
/// section 4.3): three ways to say so, of which readers know one or none, and a code in the pointer that has
/// to be removed.
pub fn h18_signed_return_addresses(arch: AnyArch) -> Vec<Case> {
    if arch.name() != "aarch64" {
        return Vec::new();
    }
    let signed = IN_MAIN | 0x2a_0000_0000_0000;
    let mut cases = Vec::new();
    for (name, op, augmentation) in [
        ("DW_CFA_AARCH64_negate_ra_state", 0x2d, &b"zR"[..]),
        ("with the B key", 0x2d, b"zRB"),
        ("its form with a pc", 0x2c, b"zR"),
    ] {
        // paciasp; stp x29, x30, [sp, #-16]!; …; autiasp; ret
        let mut scene = Scene::new(arch);
        scene.next_cie(|cie| cie.augmentation = augmentation.to_vec());
        scene.function(START, 0x40, |scene, program| {
            program.advance(4, 0).op(op).advance(4, 0);
            scene.sized(program, 1);
            program.offset(arch.fp(), -16, false, 3);
            program.advance(8, 0).with(0x06, &[29]).with(0x06, &[30]).def_cfa(arch.sp(), 0, 0);
            program.advance(4, 0).op(op);
        });
        scene.next_cie(|cie| cie.augmentation = b"zR".to_vec()).outermost(MAIN, 0x20);
        for (offset, units) in [(0, 0), (4, 0), (8, 1), (12, 1), (16, 0), (20, 0)] {
            let mut scene = scene.clone();
            let is_signed = (4..20).contains(&offset);
            let stored = if is_signed { signed } else { IN_MAIN };
            let second = if units == 0 {
                scene.just_called(STACK, stored)
            } else {
                scene.called(STACK, units, stored)
            };
            let pc = START + offset;
            let frames = [(pc, STACK), (IN_MAIN, second)];
            cases.push(scene.case(format!("{name}, at {pc:#x}"), pc, &frames, Then::Complete));
        }
    }
    // RA_SIGN_STATE given by an expression, as for code that signs on a condition.
    let mut scene = scene_of(arch, |scene, program| {
        scene.sized(program, 1);
        program.with(0x16, &[34, 1, 0x31]);
    });
    let second = scene.called(STACK, 1, signed);
    let frames = [(START + 4, STACK), (IN_MAIN, second)];
    cases.push(scene.case("RA_SIGN_STATE as an expression", START + 4, &frames, Then::Complete));
    cases
}

/// The procedure linkage table: one expression for all its entries, by the low bits of pc (binutils writes
/// it, `elf_x86_64_eh_frame_lazy_plt`). At 10 the index is being pushed, at 11 it has been. Readers that know
/// no expressions, or cache by function, lose the caller in every lazy binding.
pub fn h19_the_procedure_linkage_table(arch: AnyArch) -> Vec<Case> {
    let word = match arch.name() {
        "x86_64" | "x86" => i64::try_from(arch.word()).expect("4 or 8"),
        _ => return Vec::new(),
    };
    let shift = if word == 8 { 0x33 } else { 0x32 };
    let scene = scene_of(arch, |scene, program| {
        let plt = scene.expression().breg(arch.sp(), word).breg(arch.ra(), 0);
        // DW_OP_lit15, and, lit11, ge, lit3 or lit2, shl, plus
        program.cfa_expression(plt.raw(&[0x3f, 0x1a, 0x3b, 0x2a, shift, 0x24, 0x22]));
    });
    (0..0x40).map(|offset| at(&scene, offset, if offset % 16 >= 11 { 2 } else { 1 })).collect()
}

/// `*(sp + off) + const`: assembly that has saved the old sp on the stack, such as OpenSSL's. Rules of one
/// register and an offset cannot say it; readers that read no memory in expressions stop here.
pub fn h19_the_old_sp_on_the_stack(arch: AnyArch) -> Vec<Case> {
    let word = i64::try_from(arch.word()).expect("4 or 8");
    let bias = -i64::from(arch.sp_bias());
    let mut cases = Vec::new();
    for (slot, add) in [(12, 0), (12, word), (0, 2 * word), (-3, -2 * word), (100, 1000 * word)] {
        let mut scene = scene_of(arch, |scene, program| {
            scene.sized(program, 2);
            let cfa = scene.expression().breg(arch.sp(), slot * word).deref().add(add + bias, 0);
            program.cfa_expression(cfa);
        });
        let second = STACK + 0x40 * arch.word();
        scene.put(STACK.wrapping_add_signed(slot * word), second.wrapping_add_signed(-add));
        scene.put(second - arch.word(), IN_MAIN);
        let frames = [(START + 4, STACK), (IN_MAIN, second)];
        let name = format!("*(sp + {slot} words) + {add}");
        cases.push(scene.case(name, START + 4, &frames, Then::Complete));
    }
    cases
}

/// A CFA on another register: realigned stacks, assembly, prologues of functions with variable frames. In
/// the topmost frame all registers are known; further up only those that were saved, and what is not known
/// must not be taken from the frame below.
pub fn h19_a_cfa_on_another_register(arch: AnyArch) -> Vec<Case> {
    let mut cases = Vec::new();
    let bias = -i64::from(arch.sp_bias());
    let word = i64::try_from(arch.word()).expect("4 or 8");
    for register in arch.scratch(8) {
        let write = move |scene: &Scene, program: &mut crate::synthetic::cfi::Program| {
            scene.sized(program, 2);
            program.def_cfa(register, 2 * word + bias, 0);
        };
        let mut scene = scene_of(arch, write);
        scene.register(register, STACK + 0x20 * arch.word());
        let second = STACK + 0x22 * arch.word();
        scene.put(second - arch.word(), IN_MAIN);
        let frames = [(START + 4, STACK), (IN_MAIN, second)];
        let name = format!("register {}", register.0);
        cases.push(scene.case(name, START + 4, &frames, Then::Complete));
        // The same function once more, above one that says nothing of the register.
        let mut scene = scene_of(arch, write);
        scene.plain(CODE + 0x2000, 0x20, 2);
        scene.register(register, STACK + 0x20 * arch.word());
        let second = scene.called(STACK, 2, START + 8);
        let pc = CODE + 0x2004;
        let frames = [(pc, STACK), (START + 8, second)];
        // Saved by convention, it may be known; lost, it is not.
        if !arch.is_callee_saved(register) {
            let name = format!("register {}, lost", register.0);
            cases.push(scene.case(name, pc, &frames, Then::Stops).never(&[NOISE]));
        }
    }
    // DRAP: what the CFA is, is a word below the frame pointer.
    let mut scene = scene_of(arch, |scene, program| {
        scene.sized(program, 2);
        let cfa = scene.expression().breg(arch.fp(), -word).deref();
        program.cfa_expression(if bias == 0 { cfa } else { cfa.add(bias, 0) });
    });
    let (fp, second) = (STACK + 0x10 * arch.word(), STACK + 0x20 * arch.word());
    scene.registers.clear();
    scene.register(arch.fp(), fp).put(fp - arch.word(), second).put(second - arch.word(), IN_MAIN);
    let frames = [(START + 4, STACK), (IN_MAIN, second)];
    cases.push(scene.case("a word below the frame pointer", START + 4, &frames, Then::Complete));
    cases
}
