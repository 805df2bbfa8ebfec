//! What surrounds a walk.

use unwind_core::{Arch, WordSize};

use super::cfi::scene_of;
use super::place::{IN_MAIN, MAIN, put_signal_frame, signal_frame};
use crate::hazard::{CODE, Case, STACK, Scene, Then};
use crate::synthetic::AnyArch;

const START: u64 = CODE + 0x1000;
const TRAMPOLINE: u64 = CODE + 0x5000;

/// Signals on a stack of their own (`sigaltstack`): across a signal frame sp may go down, and up by any
/// distance; nowhere else. Unwinders that demand that it rises lose everything that was interrupted, those
/// that demand nothing never end.
pub fn h36_signals_on_every_stack(arch: AnyArch) -> Vec<Case> {
    let mut cases = Vec::new();
    let word = arch.word();
    for (name, interrupted, again) in [
        ("on the same stack", STACK + 0x20 * word, None),
        ("on another one above", STACK - 0x20_0000, None),
        ("on another one below", STACK + 0x20_0000, None),
        ("nested, from one to the other and back", STACK - 0x20_0000, Some(STACK + 0x80 * word)),
    ] {
        let mut scene = Scene::new(arch);
        // A handler of two units, the frame that the kernel has built above it, and what it interrupted.
        scene.plain(START, 0x40, 2).outermost(MAIN, 0x20);
        scene.signals(true).function(TRAMPOLINE, 0x20, signal_frame);
        let first = scene.called(STACK, 2, TRAMPOLINE + 4);
        put_signal_frame(&mut scene, first, START + 0x10, interrupted);
        let mut frames = vec![(START + 8, STACK), (TRAMPOLINE + 4, first), (START + 0x10, interrupted)];
        let mut sp = interrupted;
        if let Some(again) = again {
            let second = scene.called(interrupted, 2, TRAMPOLINE + 4);
            put_signal_frame(&mut scene, second, START + 0x14, again);
            frames.extend([(TRAMPOLINE + 4, second), (START + 0x14, again)]);
            sp = again;
        }
        frames.push((IN_MAIN, scene.called(sp, 2, IN_MAIN)));
        cases.push(scene.case(name, START + 8, &frames, Then::Complete));
    }
    cases
}

/// A snapshot of a stack ends somewhere. What was found until then is right, and the walk is not complete:
/// reported as the stack's end, a cut makes a profile wrong at its root.
pub fn h37_snapshots_cut_at_every_word(arch: AnyArch) -> Vec<Case> {
    let mut scene = Scene::new(arch);
    scene.plain(START, 0x40, 2).plain(CODE + 0x2000, 0x40, 5).outermost(MAIN, 0x20);
    let mut frames = vec![(START + 4, STACK)];
    let mut sp = STACK;
    for (units, pc) in [(2, CODE + 0x2008), (5, START + 8), (2, CODE + 0x2008), (5, IN_MAIN)] {
        sp = scene.called(sp, units, pc);
        frames.push((pc, sp));
    }
    let mut cases = Vec::new();
    for cut in (STACK..=sp).step_by(usize::try_from(arch.word()).expect("4 or 8")) {
        let mut scene = scene.clone();
        scene.memory.remove_range(cut, sp + 0x1_0000);
        let known = frames.iter().filter(|(_, sp)| *sp <= cut).count();
        let then = if known == frames.len() { Then::Complete } else { Then::Stops };
        cases.push(scene.case(format!("cut at {cut:#x}"), START + 4, &frames[..known], then));
    }
    cases
}

/// Fibers and other stacks that a program switches to by itself: the frame at the switch keeps the other
/// stack's sp in a word. Upwards that is an ordinary step, however far it goes. Downwards it cannot be told
/// from a damaged stack, and no signal explains it: what was found until then is right, and there it stops.
pub fn h38_stacks_that_a_program_switches(arch: AnyArch) -> Vec<Case> {
    let mut cases = Vec::new();
    let far = if arch.word_size() == WordSize::Eight { 0x7fff_0000_0000 } else { 0x7fff_0000 };
    for (name, other, is_up) in [("to one above", far, true), ("to one below", 0x1_0000, false)] {
        let mut scene = scene_of(arch, |scene, program| {
            scene.sized(program, 2);
            let cfa = scene.expression().breg(arch.sp(), 0).deref();
            let bias = -i64::from(arch.sp_bias());
            program.cfa_expression(if bias == 0 { cfa } else { cfa.add(bias, 0) });
        });
        scene.put(STACK, other).put(other - arch.word(), IN_MAIN);
        let pc = START + 4;
        let frames = [(pc, STACK), (IN_MAIN, other)];
        let (known, then) = if is_up { (2, Then::Complete) } else { (1, Then::Stops) };
        cases.push(scene.case(name, pc, &frames[..known], then));
    }
    cases
}

/// A thread that runs while its stack is read: a word may be another one the second time, or gone. What is
/// found may be wrong then; but nothing may be relied on so much that it panics or never ends.
pub fn h39_memory_that_changes_between_reads(arch: AnyArch) -> Vec<Case> {
    let mut scene = Scene::new(arch);
    scene.plain(START, 0x40, 2).outermost(MAIN, 0x20);
    scene.signals(true).function(TRAMPOLINE, 0x20, signal_frame);
    let mut sp = STACK;
    for _ in 0..4 {
        sp = scene.called(sp, 2, START + 8);
        sp = scene.called(sp, 2, TRAMPOLINE + 4);
        put_signal_frame(&mut scene, sp, START + 0x10, STACK);
        sp += 8 * arch.word();
    }
    let case = scene.case("another thread writes", START + 4, &[(START + 4, STACK)], Then::Anything);
    (0..20).map(|seed| case.clone().changing(seed * 0x9e37_79b9 + 1)).collect()
}

/// Words of the target's size, in the target's byte order, with all of their bytes in use: a host that
/// reads them as its own finds other addresses.
pub fn h41_words_and_byte_orders_of_the_target(arch: AnyArch) -> Vec<Case> {
    let is_wide = arch.word_size() == WordSize::Eight;
    let code = if is_wide { 0x7f12_3456_7000 } else { 0x7123_4000 };
    let sp = if is_wide { 0x7ffe_dcba_9870 } else { 0x7edc_ba90 };
    let mut scene = Scene::at(arch, sp);
    scene.section.svma = code - 0x10_0000;
    scene.hdr_svma = code - 0x11_0000;
    scene.image.code = (code, code + 0x1_0000);
    scene.plain(code + 0x89c, 0x40, 2).plain(code + 0x2344, 0x40, 3).outermost(code + 0x9abc, 0x20);
    let second = scene.called(sp, 2, code + 0x2350);
    let third = scene.called(second, 3, code + 0x8a4);
    let fourth = scene.called(third, 2, code + 0x9ac4);
    let pc = code + 0x8a0;
    let frames = [(pc, sp), (code + 0x2350, second), (code + 0x8a4, third), (code + 0x9ac4, fourth)];
    vec![scene.case("addresses of many bytes", pc, &frames, Then::Complete)]
}
