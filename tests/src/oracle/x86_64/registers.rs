//! Registers of a stopped thread.

use nix::libc::user_regs_struct;
use unwind_arch_x86_64 as x;
use unwind_core::{Register, RegisterFile, UserRegisters};

use crate::oracle::truth::Place;

/// What a call preserves beside sp: "System V ABI, AMD64 Architecture Processor Supplement",
/// figure 3.4.
pub const PRESERVED: &[Register] = &[x::RBX, x::RBP, x::R12, x::R13, x::R14, x::R15];

/// The general registers but sp: what a signal frame brings back.
pub const ALL: &[Register] = &[
    x::RAX,
    x::RDX,
    x::RCX,
    x::RBX,
    x::RSI,
    x::RDI,
    x::RBP,
    x::R8,
    x::R9,
    x::R10,
    x::R11,
    x::R12,
    x::R13,
    x::R14,
    x::R15,
];

/// General registers and rip, by DWARF number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers(pub [u64; 17]);

impl Registers {
    /// As ptrace gives them.
    pub fn new(r: &user_regs_struct) -> Self {
        Registers([
            r.rax, r.rdx, r.rcx, r.rbx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13,
            r.r14, r.r15, r.rip,
        ])
    }

    /// rip and rsp.
    pub fn place(&self) -> Place {
        Place { pc: self.0[16], sp: self.0[7] }
    }

    /// The same registers at another pc.
    pub fn at(mut self, pc: u64) -> Self {
        self.0[16] = pc;
        self
    }
}

impl RegisterFile for Registers {
    fn get(&self, register: Register) -> Option<u64> {
        self.0.get(usize::from(register.0)).copied()
    }
}

impl UserRegisters for Registers {
    fn ip(&self) -> Option<u64> {
        Some(self.0[16])
    }
}
