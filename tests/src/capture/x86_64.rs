//! x86-64, Linux. Instruction encodings from the "Intel 64 and IA-32 Architectures Software Developer's Manual",
//! volume 2, section 2.1 (prefixes, ModR/M) and appendix A (opcode maps); the signal frame from the kernel's
//! `arch/x86/include/asm/sigframe.h` and `asm/sigcontext.h`.

use super::target::{Flow, Slot, Target};

/// gdb's order (rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8 to r15, rip) in DWARF numbers (AMD64 psABI, figure 3.36).
static SLOTS: [Slot; 17] = {
    let mut slots = [const { Slot::together(0, 0) }; 17];
    let numbers = [0, 3, 2, 1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
    let mut index = 0;
    while index < numbers.len() {
        slots[index] = Slot::together(numbers[index], index * 8);
        index += 1;
    }
    slots
};

/// x86-64.
pub static TARGET: Target = Target {
    name: "x86_64",
    emulator: "qemu-x86_64",
    sysroot: "/usr/x86_64-linux-gnu",
    guest_base: 0,
    slots: &SLOTS,
    pc: 16,
    sp: 7,
    big_endian: false,
    word: 8,
    // AMD64 psABI, figure 3.4.
    preserved: &[3, 6, 12, 13, 14, 15],
    call_slot: 8,
    // AMD64 psABI, section 3.2.2.
    red_zone: 128,
    instruction: 15,
    breakpoint: 1,
    decode: |code, pc, _| decode_with(code, pc, true),
    delays: false,
    exits: None,
    link: None,
    code_mask: !0,
    // pretcode (8), ucontext up to uc_mcontext (40), r8 to r15 (64), rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp (64).
    signal_pc: &[8 + 40 + 64 + 64],
};

/// `long` is 64-bit mode, which has the REX prefix and `syscall`.
pub(super) fn decode_with(code: &[u8], pc: u64, long: bool) -> Flow {
    let legacy = |byte: &u8| {
        matches!(byte, 0x66 | 0x67 | 0xf2 | 0xf3 | 0xf0 | 0x2e | 0x36 | 0x3e | 0x26 | 0x64 | 0x65)
    };
    let prefixes = code.iter().take_while(|byte| legacy(byte)).count();
    let rex = long && code[prefixes..].first().is_some_and(|byte| byte & 0xf0 == 0x40);
    let opcode = prefixes + usize::from(rex);
    let after = |length: usize| pc.wrapping_add((opcode + length) as u64);
    match &code[opcode..] {
        [0xe8, ..] => Flow::Call(after(5)),
        [0xc2 | 0xc3, ..] => Flow::Return,
        [0xff, operand @ ..] => match operand.first().map(|modrm| modrm >> 3 & 7) {
            Some(2) => Flow::Call(after(1 + operand_size(operand))),
            Some(4) => Flow::Jump,
            _ => Flow::Plain,
        },
        [0x0f, 0x05, ..] if long => Flow::SystemCall(after(2)),
        [0xcd, 0x80, ..] => Flow::SystemCall(after(2)),
        [0xcc, ..] => Flow::Trap,
        _ => Flow::Plain,
    }
}

/// The size of ModR/M, SIB and displacement.
fn operand_size(operand: &[u8]) -> usize {
    let modrm = operand[0];
    let (form, base) = (modrm >> 6, modrm & 7);
    let sib = operand.get(1).filter(|_| form != 3 && base == 4);
    let displacement = match form {
        0 if base == 5 || sib.is_some_and(|sib| sib & 7 == 5) => 4,
        1 => 1,
        2 => 4,
        _ => 0,
    };
    1 + usize::from(sib.is_some()) + displacement
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the assembler encodes them.
    #[test]
    fn branches_are_told_apart() {
        let cases: &[(&[u8], Flow)] = &[
            (&[0xe8, 1, 0, 0, 0], Flow::Call(0x1005)),
            (&[0x66, 0x66, 0x48, 0xe8, 1, 2, 3, 4], Flow::Call(0x1008)), // call __tls_get_addr
            (&[0x67, 0xe8, 1, 2, 3, 4], Flow::Call(0x1006)),             // relaxed call *foo@GOTPCREL
            (&[0xff, 0xd0], Flow::Call(0x1002)),                         // call *%rax
            (&[0x41, 0xff, 0xd4], Flow::Call(0x1003)),                   // call *%r12
            (&[0x41, 0xff, 0x14, 0x24], Flow::Call(0x1004)),             // call *(%r12)
            (&[0xff, 0x55, 0xf8], Flow::Call(0x1003)),                   // call *-8(%rbp)
            (&[0xff, 0x54, 0x24, 8], Flow::Call(0x1004)),                // call *8(%rsp)
            (&[0xff, 0x14, 0xc5, 1, 2, 3, 4], Flow::Call(0x1007)),       // call *x(,%rax,8)
            (&[0xff, 0x90, 1, 2, 3, 4], Flow::Call(0x1006)),             // call *x(%rax)
            (&[0xff, 0x15, 1, 2, 3, 4], Flow::Call(0x1006)),             // call *x(%rip)
            (&[0x3e, 0xff, 0xe0], Flow::Jump),                           // notrack jmp *%rax
            (&[0xf2, 0xff, 0x25, 1, 2, 3, 4], Flow::Jump),               // bnd jmp *x(%rip)
            (&[0x41, 0xff, 0xe3], Flow::Jump),                           // jmp *%r11
            (&[0xff, 0x35, 1, 2, 3, 4], Flow::Plain),                    // push x(%rip)
            (&[0xc3], Flow::Return),
            (&[0xf3, 0xc3], Flow::Return),
            (&[0xc2, 8, 0], Flow::Return),
            (&[0x0f, 0x05], Flow::SystemCall(0x1002)),
            (&[0xcc], Flow::Trap),
            (&[0xf3, 0x0f, 0x1e, 0xfa], Flow::Plain), // endbr64
            (&[0xe9, 0, 0, 0, 0], Flow::Plain),
            (&[0x66], Flow::Plain),
            (&[], Flow::Plain),
        ];
        for (code, flow) in cases {
            assert_eq!(decode_with(code, 0x1000, true), *flow, "{code:02x?}");
        }
    }
}
