//! Frames that several hazards need.

use unwind_core::{Arch, Register};

use crate::hazard::{CODE, Scene};
use crate::synthetic::AnyArch;
use crate::synthetic::cfi::Program;

/// The function that nobody called, and a return pc in it.
pub const MAIN: u64 = CODE + 0x9000;
pub const IN_MAIN: u64 = MAIN + 0x10;

/// Instructions for a signal frame at sp: the interrupted sp in its word 4, the interrupted pc in its word
/// 5, the frame pointer's in its word 6. The same means by which kernels describe theirs: a dereferenced
/// CFA, and expressions for columns.
pub fn signal_frame(scene: &Scene, program: &mut Program) {
    let arch = scene.arch;
    let word = i64::try_from(arch.word()).expect("4 or 8");
    let at = |slot: i64| scene.expression().breg(arch.sp(), slot * word);
    // The CFA is the interrupted sp, with the ABI's bias.
    let bias = -i64::from(arch.sp_bias());
    let cfa = at(4).deref();
    program.cfa_expression(if bias == 0 { cfa } else { cfa.add(bias, 0) });
    program.with_expression(0x10, arch.ra(), at(5));
    program.with_expression(0x10, arch.fp(), at(6));
}

/// What [`signal_frame`] describes.
pub fn put_signal_frame(scene: &mut Scene, sp: u64, pc: u64, interrupted_sp: u64) {
    let word = scene.arch.word();
    let fp = scene.registers.iter().find(|(register, _)| *register == scene.arch.fp()).map_or(0, |it| it.1);
    scene.put(sp + 4 * word, interrupted_sp).put(sp + 5 * word, pc).put(sp + 6 * word, fp);
}

/// A register that is neither ip, sp, fp nor the return address's.
pub fn scratch(arch: AnyArch) -> Register {
    arch.scratch(1)[0]
}
