//! Call frame instructions.

use unwind_core::{Arch, Register};

use super::place::{IN_MAIN, MAIN, scratch};
use crate::hazard::{CODE, Case, NOISE, STACK, Scene, Then};
use crate::synthetic::AnyArch;
use crate::synthetic::cfi::Program;

const REMEMBER: u8 = 0x0a;
const RESTORE: u8 = 0x0b;
const START: u64 = CODE + 0x1000;

/// A function of 0x40 bytes at [`START`] with instructions of its own, and the one that calls it.
pub(super) fn scene_of(arch: AnyArch, write: impl FnOnce(&Scene, &mut Program)) -> Scene {
    let mut scene = Scene::new(arch);
    scene.function(START, 0x40, write).outermost(MAIN, 0x20);
    scene
}

/// A case at an offset in that function, whose frame has so many units there.
pub(super) fn at(scene: &Scene, offset: u64, units: u64) -> Case {
    let mut scene = scene.clone();
    let second = if units == 0 && scene.arch.has_link_register() {
        scene.just_called(STACK, IN_MAIN)
    } else {
        scene.called(STACK, units, IN_MAIN)
    };
    let pc = START + offset;
    let frames = [(pc, STACK), (IN_MAIN, second)];
    scene.case(format!("{units} units at {pc:#x}"), pc, &frames, Then::Complete)
}

/// A case in that function whose rule is broken: the walk must stop, and not guess.
pub(super) fn broken(scene: &Scene, name: impl Into<String>, offset: u64) -> Case {
    let pc = START + offset;
    scene.case(name, pc, &[(pc, STACK)], Then::Stops).never(&[NOISE])
}

/// `remember_state` nested deeper than an unwinder has room for, or restored without having been remembered
/// (DWARF 5, section 6.4.2.4, calls it a stack). Some then say that nothing covers the pc, and guess; some
/// restore nothing, or forget that the CFA is part of the state.
pub fn h11_remember_and_restore(arch: AnyArch) -> Vec<Case> {
    let mut cases = Vec::new();
    // Compilers nest once. Hand-written macros do more; four is what a common reader has room for.
    for depth in [1u64, 3, 4, 5, 8] {
        let scene = scene_of(arch, |scene, program| {
            for level in 0..depth {
                scene.sized(program, 2 + level);
                program.op(REMEMBER);
            }
            scene.sized(program, 16);
            for _ in 0..depth {
                program.advance(4, 0).op(RESTORE);
            }
        });
        cases.push(at(&scene, 0, 16));
        cases.extend((1..=depth).map(|level| at(&scene, 4 * level, 2 + depth - level)));
    }
    let empty = scene_of(arch, |scene, program| {
        scene.sized(program, 2);
        program.op(RESTORE);
    });
    cases.push(broken(&empty, "restored without having been remembered", 4));
    // More than there is room for anywhere: right or refused.
    let deep = scene_of(arch, |scene, program| {
        for level in 0..200 {
            scene.sized(program, 2 + level % 2);
            program.op(REMEMBER);
        }
        scene.sized(program, 3);
    });
    let mut deep = at(&deep, 4, 3).never(&[NOISE]);
    deep.expect.frames.truncate(1);
    deep.expect.then = Then::Anything;
    cases.push(deep);
    cases
}

/// A CFA by expression, and then by register and offset again, or the reverse: an unwinder that keeps the
/// two apart carries the stale one over.
pub fn h12_nothing_is_left_of_an_expression(arch: AnyArch) -> Vec<Case> {
    let bias = -i64::from(arch.sp_bias());
    let scene = scene_of(arch, |scene, program| {
        scene.sized(program, 2);
        let unit = i64::try_from(scene.unit()).expect("4 to 16");
        let cfa = scene.expression().breg(arch.sp(), 3 * unit + bias).opaque();
        program.advance(4, 0).cfa_expression(cfa);
        program.advance(4, 0);
        scene.sized(program, 4);
        program.advance(4, 0).cfa_expression(scene.expression().breg(arch.sp(), 5 * unit + bias));
        program.advance(4, 0).op(REMEMBER).advance(4, 0);
        scene.sized(program, 6);
        program.advance(4, 0).op(RESTORE);
    });
    [(0, 2), (4, 3), (8, 4), (12, 5), (16, 5), (20, 6), (24, 5)]
        .map(|(offset, units)| at(&scene, offset, units))
        .into()
}

/// Register numbers up to 65535 occur: vectors, pseudo-registers, other tools' private ones. An array
/// indexed by them is left at its end, and a reader that refuses them refuses the whole function.
pub fn h13_registers_of_every_number(arch: AnyArch) -> Vec<Case> {
    let mut cases = Vec::new();
    let tracked = [Some(arch.sp()), Some(arch.fp()), Some(arch.ra()), arch.ip()];
    for number in [0u16, 3, 17, 31, 32, 33, 63, 64, 95, 96, 127, 128, 255, 256, 1000, 65535] {
        let register = Register(number);
        if tracked.contains(&Some(register)) {
            continue;
        }
        let scene = scene_of(arch, |scene, program| {
            let number = u64::from(number);
            scene.sized(program, 4);
            program.offset(register, -4 * i64::try_from(arch.word()).expect("4 or 8"), false, 3);
            program.advance(4, 0).with(0x07, &[number]).advance(4, 0).with(0x06, &[number]);
            program.with(0x09, &[number, 65535 - number]).with_signed(0x15, register, 2);
            let expression = scene.expression().op(0x30);
            program
                .with_expression(0x10, register, expression.clone())
                .with_expression(0x16, register, expression);
        });
        cases.extend([0, 4, 8].map(|offset| {
            let mut case = at(&scene, offset, 4);
            case.name = format!("register {number}: {}", case.name);
            case
        }));
    }
    cases
}

/// The body of a function goes on behind an epilogue. Tables of the first and last rows, and heuristics
/// that take a `ret` for the end, are wrong from there on.
pub fn h16_an_epilogue_in_the_middle(arch: AnyArch) -> Vec<Case> {
    let entered = if arch.has_link_register() { 0 } else { 1 };
    let scene = scene_of(arch, |scene, program| {
        program.advance(4, 0);
        scene.sized(program, 4);
        program.advance(16, 0).op(REMEMBER);
        scene.sized(program, 1);
        program.with(0x08, &[arch.ra().0.into()]);
        if entered == 1 {
            scene.sized(program, 1);
        } else {
            program.def_cfa(arch.sp(), -i64::from(arch.sp_bias()), 0);
        }
        program.advance(4, 0).op(RESTORE);
    });
    (0..0x40)
        .step_by(4)
        .map(|offset| at(&scene, offset, if [0, 20].contains(&offset) { entered } else { 4 }))
        .collect()
}

/// Undefined, same-value and unspecified are three states of the return address's column. Undefined is the
/// outermost frame, whatever else is saved; same-value is a leaf whose return address is in its register;
/// and in another register it is in vfork, which has taken it from the stack.
pub fn h17_the_states_of_the_return_address(arch: AnyArch) -> Vec<Case> {
    let mut cases = Vec::new();
    let pc = START + 4;
    // Other registers are saved; nobody has called it all the same.
    let undefined = scene_of(arch, |scene, program| {
        scene.sized(program, 4);
        program.offset(arch.fp(), -4 * i64::try_from(arch.word()).expect("4 or 8"), false, 3);
        program.with(0x07, &[arch.ra().0.into()]);
    });
    cases.push(undefined.case("undefined", pc, &[(pc, STACK)], Then::Complete));
    // Even without any rule for the CFA.
    let mut bare = Scene::new(arch);
    bare.cie.instructions.clear();
    bare.function(START, 0x40, |_, program| {
        program.with(0x07, &[arch.ra().0.into()]);
    });
    cases.push(bare.case("undefined, and nothing else", pc, &[(pc, STACK)], Then::Complete));

    // In another register.
    let other = scratch(arch);
    let mut moved = scene_of(arch, |scene, program| {
        scene.sized(program, 0);
        program.with(0x09, &[arch.ra().0.into(), other.0.into()]);
    });
    moved.register(other, IN_MAIN);
    let frames = [(pc, STACK), (IN_MAIN, STACK)];
    cases.push(moved.case("in another register, as in vfork", pc, &frames, Then::Complete));

    for (name, is_said) in [("same value", true), ("unspecified", false)] {
        let mut scene = Scene::new(arch);
        scene.cie.instructions.clear();
        scene.function(START, 0x40, |_, program| {
            program.def_cfa(arch.sp(), -i64::from(arch.sp_bias()), 0);
            if is_said {
                program.with(0x08, &[arch.ra().0.into()]);
            }
        });
        scene.outermost(MAIN, 0x20);
        if arch.has_link_register() {
            // The ABI's default for its register.
            scene.register(arch.ra(), IN_MAIN);
            cases.push(scene.case(name, pc, &frames, Then::Complete));
        } else {
            // There is no register that it could have stayed in.
            cases.push(broken(&scene, name, 4));
        }
    }
    cases
}

/// Frames of 64 KiB to 1 MiB and more exist (540,128 bytes in one library); rules that keep offsets in 16
/// bits narrow them. And a CFA of sp + 12 on a machine of 8-byte words is exact or refused, never rounded.
pub fn h20_large_and_odd_frames(arch: AnyArch) -> Vec<Case> {
    let mut cases = Vec::new();
    for size in [0x7ff0i64, 0x8000, 0xfff0, 0x1_0000, 0x7_fff0, 0x8_0000, 540_128, 0x10_0000, 0x400_0000] {
        let scene = scene_of(arch, |scene, program| scene.framed(program, size));
        let units = size.cast_unsigned() / scene.unit();
        let mut case = at(&scene, 4, units);
        case.name = format!("{size} bytes");
        cases.push(case);
    }
    let half = i64::try_from(arch.word()).expect("4 or 8") / 2;
    let scene = scene_of(arch, |scene, program| {
        let bias = -i64::from(arch.sp_bias());
        program.cfa_expression(scene.expression().breg(arch.sp(), 2 * half + half + bias));
        program.offset(arch.ra(), -half - half - bias, false, 3);
    });
    let mut odd = broken(&scene, "one and a half words", 4);
    odd.name = "one and a half words".to_owned();
    cases.push(odd);
    cases
}

/// Functions that save every register (context switches, trampolines of interpreters): readers with room
/// for a compiler's usual eight or so run out of it.
pub fn h21_functions_that_save_every_register(arch: AnyArch) -> Vec<Case> {
    let word = i64::try_from(arch.word()).expect("4 or 8");
    let special = [Some(arch.sp()), Some(arch.ra()), arch.ip()];
    let scene = scene_of(arch, |scene, program| {
        scene.sized(program, 200);
        let others = (0..128).map(Register).filter(|register| !special.contains(&Some(*register)));
        for (register, slot) in others.zip(2..) {
            program.offset(register, i64::from(arch.sp_bias()) - slot * word, false, 3);
        }
    });
    vec![at(&scene, 0, 200), at(&scene, 0x3c, 200)]
}
