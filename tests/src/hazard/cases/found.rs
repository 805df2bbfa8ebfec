//! Hazards that were found while this library was built, in its own code or in others'.

use unwind_core::{Arch, CfaRule, FpRule, RaRule};

use super::place::{IN_MAIN, MAIN};
use crate::hazard::{CODE, Case, Image, NOISE, STACK, Scene, Then};
use crate::synthetic::AnyArch;

const START: u64 = CODE + 0x1000;

/// A signal trampoline without a table (musl's, and many static programs') right behind a function with
/// one: a handler returns to its first instruction, which nobody called. Looked up one byte before, as
/// return addresses are, it is the last byte of the function. Only the code tells. The frames are the
/// kernel's: `struct rt_sigframe` of arch/x86 and arch/arm64, with the registers in `struct sigcontext`.
pub fn h43_a_trampoline_right_behind_a_function(arch: AnyArch) -> Vec<Case> {
    // Offsets of sp and pc from sp at the trampoline, and of the frame pointer.
    let [sp_at, pc_at, fp_at] = match arch.name() {
        // After the return, at `struct ucontext`: uc_flags, uc_link, uc_stack take 40 bytes; then r8 to r15,
        // rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip.
        "x86_64" => [40 + 15 * 8, 40 + 16 * 8, 40 + 10 * 8],
        // `siginfo` takes 128 bytes; uc_flags, uc_link, uc_stack and the mask 168, padded to 176; then
        // fault_address, x0 to x30, sp, pc.
        "aarch64" => [128 + 176 + 8 + 31 * 8, 128 + 176 + 8 + 32 * 8, 128 + 176 + 8 + 29 * 8],
        _ => return Vec::new(),
    };
    let mut scene = Scene::new(arch);
    let trampoline = START + 0x40;
    // The function before it has a frame of another size; the handler is elsewhere.
    scene
        .plain(START, 0x40, 4)
        .plain(CODE + 0x2000, 0x40, 2)
        .plain(CODE + 0x3000, 0x40, 2)
        .outermost(MAIN, 0x20);
    scene.memory.put(trampoline, &arch.trampoline_code());
    let first = scene.called(STACK, 2, trampoline);
    let interrupted = first + 0x400;
    scene.put(first + sp_at, interrupted).put(first + pc_at, CODE + 0x3000).put(first + fp_at, NOISE);
    let second = scene.called(interrupted, 2, IN_MAIN);
    let frames =
        [(CODE + 0x2008, STACK), (trampoline, first), (CODE + 0x3000, interrupted), (IN_MAIN, second)];
    vec![scene.case("a handler's return", CODE + 0x2008, &frames, Then::Complete)]
}

/// A function that has just been entered, called by the last instruction of the function before it: it
/// returns to where it is. On machines with a link register sp is the same too. The pc is an exact one the
/// first time and a return address the second: they are not the same place, and this is no loop.
pub fn h44_a_return_to_where_execution_is(arch: AnyArch) -> Vec<Case> {
    let mut scene = Scene::new(arch);
    let callee = START + 0x40;
    scene.plain(START, 0x40, 2);
    scene.function(callee, 0x40, |scene, program| {
        program.advance(4, 0);
        scene.sized(program, 4);
    });
    scene.outermost(MAIN, 0x20);
    let second = scene.just_called(STACK, callee);
    let third = scene.called(second, 2, IN_MAIN);
    let frames = [(callee, STACK), (callee, second), (IN_MAIN, third)];
    vec![scene.case("a call as the last instruction", callee, &frames, Then::Complete)]
}

/// The frame pointer chain in a module without tables, at a pc where execution stopped: the register may
/// hold anything there, so zero in it, or a record that leads to zero, is no end of the stack. Said to be
/// complete, a walk that has lost all of it looks right.
pub fn h45_no_end_where_execution_stopped(arch: AnyArch) -> Vec<Case> {
    let Some(rule) = arch.frame_pointer_rule() else { return Vec::new() };
    let (CfaRule::Offset { offset, .. }, RaRule::AtCfa(ra), FpRule::AtCfa(fp)) =
        (rule.cfa(), rule.ra(), rule.fp())
    else {
        return Vec::new();
    };
    let mut cases = Vec::new();
    for (name, value) in [("the register is zero", 0), ("the record is zero", STACK + 0x40)] {
        let mut scene = bare(arch);
        scene.put(value.max(STACK).wrapping_add_signed(i64::from(offset + ra)), 0);
        scene.put(value.max(STACK).wrapping_add_signed(i64::from(offset + fp)), 0);
        scene.register(arch.fp(), value);
        cases.push(scene.case(name, START + 4, &[(START + 4, STACK)], Then::Stops));
    }
    cases
}

/// A module without a table.
fn bare(arch: AnyArch) -> Scene {
    let mut scene = Scene::new(arch);
    scene.registers.clear();
    scene.image = Image { code: scene.image.code, ..Image::default() };
    scene
}

/// A frame record says where the next one is, not how large its frame is: on AArch64, Arm, i386 and RISC-V
/// compilers put it anywhere in the frame, or realign the stack above it. After a step by it the caller's sp
/// is not known, and a rule that rests on sp must not be carried out with the end of the record.
pub fn h46_sp_behind_a_frame_record(arch: AnyArch) -> Vec<Case> {
    let is_anywhere = matches!(arch.name(), "aarch64" | "arm" | "riscv64" | "riscv32");
    let Some(rule) = arch.frame_pointer_rule().filter(|_| is_anywhere) else { return Vec::new() };
    let (CfaRule::Offset { offset, .. }, RaRule::AtCfa(ra), FpRule::AtCfa(fp)) =
        (rule.cfa(), rule.ra(), rule.fp())
    else {
        return Vec::new();
    };
    // The function without a table is in a module of its own.
    let mut scene = Scene::new(arch);
    scene.registers.clear();
    scene.image.code = (CODE + 0x8000, CODE + 0x1_0000);
    scene.others = vec![Image { code: (CODE, CODE + 0x8000), ..Image::default() }];
    scene.plain(CODE + 0x8000, 0x40, 2).outermost(MAIN, 0x20);
    let record = STACK + 8 * arch.word();
    scene.put(record.wrapping_add_signed(i64::from(offset + ra)), CODE + 0x8008);
    scene.put(record.wrapping_add_signed(i64::from(offset + fp)), STACK + 0x80 * arch.word());
    scene.register(arch.fp(), record);
    // There are locals above the record: the caller's frame begins 16 words further up, not here.
    let mut case = scene.case("locals above the record", START + 4, &[(START + 4, STACK)], Then::Anything);
    case.expect.never.push(NOISE);
    vec![case]
}

/// In an epilogue that has popped the frame pointer, compilers leave its row as it was: saved in a word that
/// is below sp by now. Snapshots begin at sp (perf's do, and a debugger's stub may refuse what is below): that
/// the word cannot be read is no reason to lose the whole stack; nor to make up what it held.
pub fn h47_a_saved_register_below_sp(arch: AnyArch) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, is_opaque) in [("in an epilogue", false), ("in one whose CFA is an expression", true)] {
        let mut scene = Scene::new(arch);
        scene.function(START, 0x40, |scene, program| {
            scene.sized(program, 1);
            let word = i64::try_from(arch.word()).expect("4 or 8");
            let size = i64::try_from(scene.unit()).expect("4 to 16");
            let slot = i64::from(arch.sp_bias()) - size - word;
            program.offset(arch.fp(), slot, false, 3).expect("a multiple of the alignment");
            if is_opaque {
                let cfa = scene.expression().breg(arch.sp(), size - i64::from(arch.sp_bias()));
                program.cfa_expression(cfa.opaque());
            }
        });
        scene.outermost(MAIN, 0x20);
        let second = scene.called(STACK, 1, IN_MAIN);
        scene.memory.remove_range(STACK - 0x1000, STACK);
        let frames = [(START + 4, STACK), (IN_MAIN, second)];
        cases.push(scene.case(name, START + 4, &frames, Then::Complete));
    }
    cases
}
