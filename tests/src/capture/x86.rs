//! i386, Linux. Instruction encodings as for [x86-64](super::x86_64), without its prefix; the signal frames from the kernel's
//! `arch/x86/include/asm/sigframe.h` and `asm/sigcontext.h`.

use super::target::{Asked, Slot, Target};
use super::x86_64::decode_with;

/// eax, ecx, edx, ebx, esp, ebp, esi, edi, eip: gdb's order is that of the DWARF numbers ("System V ABI, Intel386 Architecture
/// Processor Supplement", table 2.14).
static SLOTS: [Slot; 9] = {
    let mut slots = [const { Slot { number: 0, asked: Asked::Together { offset: 0, size: 4 } } }; 9];
    let mut index = 0;
    while index < 9 {
        slots[index] = Slot { number: index as u16, asked: Asked::Together { offset: index * 4, size: 4 } };
        index += 1;
    }
    slots
};

/// i386.
pub static TARGET: Target = Target {
    name: "x86",
    emulator: "qemu-i386",
    sysroot: "/usr/i686-linux-gnu",
    guest_base: 0x1_0000_0000,
    slots: &SLOTS,
    pc: 8,
    sp: 4,
    big_endian: false,
    word: 4,
    // The same supplement, section 2.2.2.
    preserved: &[3, 5, 6, 7],
    call_slot: 4,
    red_zone: 0,
    instruction: 15,
    breakpoint: 1,
    decode: |code, pc, _| decode_with(code, pc, false),
    delays: false,
    exits: None,
    link: None,
    code_mask: !0,
    signal_pc: &[
        // pretcode and signal (8), sigcontext: four segments (16), edi to eax (32), trap number and error code (8).
        8 + 16 + 32 + 8,
        // pretcode, signal and two pointers (16), siginfo (128), ucontext up to uc_mcontext (20), and the same.
        16 + 128 + 20 + 16 + 32 + 8,
    ],
};

#[cfg(test)]
mod tests {
    use super::super::target::Flow;
    use super::*;

    #[test]
    fn system_calls_are_interrupts() {
        let decode = |code: &[u8]| decode_with(code, 0x1000, false);
        assert_eq!(decode(&[0xcd, 0x80]), Flow::SystemCall(0x1002));
        assert_eq!(decode(&[0x41, 0xe8]), Flow::Plain); // inc %ecx
        assert_eq!(decode(&[0x65, 0xff, 0x15, 0x10, 0, 0, 0]), Flow::Call(0x1007)); // call *%gs:0x10
        assert_eq!(decode(&[0xff, 0x93, 1, 2, 3, 4]), Flow::Call(0x1006)); // call *x(%ebx)
        assert_eq!(decode(&[0xc2, 4, 0]), Flow::Return);
    }
}
