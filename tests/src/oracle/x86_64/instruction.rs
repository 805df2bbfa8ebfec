//! What an instruction does to the call stack, from its bytes.
//!
//! "Intel 64 and IA-32 Architectures Software Developer's Manual", volume 2, section 2.1 (prefixes)
//! and appendix A (opcode maps).

/// The longest instruction.
pub const LONGEST: usize = 15;

/// What an instruction is, as far as the call stack is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// A near call. One to the very next instruction only fetches the pc and is none.
    Call,
    /// A near return.
    Return,
    /// A jump through a register or memory.
    Jump,
    /// `syscall`.
    SystemCall,
    /// Anything else.
    Other,
}

impl Instruction {
    /// Of the instruction at the start of `code`.
    pub fn at(code: &[u8]) -> Self {
        let legacy = |byte: &u8| {
            matches!(byte, 0x66 | 0x67 | 0xf2 | 0xf3 | 0xf0 | 0x2e | 0x36 | 0x3e | 0x26 | 0x64 | 0x65)
        };
        let prefixes = code.iter().take_while(|byte| legacy(byte)).count();
        let code = &code[prefixes..];
        let code = match code {
            [0x40..=0x4f, rest @ ..] => rest,
            code => code,
        };
        match code {
            [0xe8, 0, 0, 0, 0, ..] => Instruction::Other,
            [0xe8, ..] => Instruction::Call,
            [0xc2 | 0xc3, ..] => Instruction::Return,
            [0xff, modrm, ..] => match (modrm >> 3) & 7 {
                2 => Instruction::Call,
                4 => Instruction::Jump,
                _ => Instruction::Other,
            },
            [0x0f, 0x05, ..] => Instruction::SystemCall,
            _ => Instruction::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_as_the_assembler_writes_them() {
        let cases: &[(&[u8], Instruction)] = &[
            (&[0xe8, 1, 0, 0, 0], Instruction::Call),
            (&[0xe8, 0, 0, 0, 0], Instruction::Other),
            (&[0x66, 0x66, 0x48, 0xe8, 1, 2, 3, 4], Instruction::Call), // call __tls_get_addr
            (&[0x67, 0xe8, 1, 2, 3, 4], Instruction::Call),             // relaxed call *foo@GOTPCREL
            (&[0xff, 0xd0], Instruction::Call),                         // call *%rax
            (&[0x41, 0xff, 0xd4], Instruction::Call),                   // call *%r12
            (&[0xff, 0x15, 1, 2, 3, 4], Instruction::Call),             // call *x(%rip)
            (&[0x3e, 0xff, 0xe0], Instruction::Jump),                   // notrack jmp *%rax
            (&[0xf2, 0xff, 0x25, 1, 2, 3, 4], Instruction::Jump),       // bnd jmp *x(%rip)
            (&[0x41, 0xff, 0xe3], Instruction::Jump),                   // jmp *%r11
            (&[0xff, 0x35, 1, 2, 3, 4], Instruction::Other),            // push x(%rip)
            (&[0xff, 0xc0], Instruction::Other),                        // inc %eax
            (&[0xc3], Instruction::Return),
            (&[0xf3, 0xc3], Instruction::Return),
            (&[0xc2, 8, 0], Instruction::Return),
            (&[0x0f, 0x05], Instruction::SystemCall),
            (&[0xf3, 0x0f, 0x1e, 0xfa], Instruction::Other), // endbr64
            (&[0xc5, 0xe8, 0x57, 0xd2], Instruction::Other), // vxorps: e8 inside a VEX prefix
            (&[0xe9, 0, 0, 0, 0], Instruction::Other),
            (&[0x66], Instruction::Other),
            (&[], Instruction::Other),
        ];
        for (code, expected) in cases {
            assert_eq!(Instruction::at(code), *expected, "{code:02x?}");
        }
    }
}
