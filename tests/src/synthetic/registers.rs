//! Registers of a made-up target.

use std::collections::BTreeMap;

use unwind_core::{CallerRegisters, Register, RegisterFile, UserRegisters};

/// Values by DWARF number; what is not there is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// The program counter.
    pub ip: Option<u64>,
    /// Every other register.
    pub values: BTreeMap<u16, u64>,
    /// Whether this is a kernel thread, which has no user registers.
    pub kernel_thread: bool,
}

impl Registers {
    /// A pc and some registers.
    pub fn new<const N: usize>(ip: u64, values: [(Register, u64); N]) -> Self {
        Registers {
            ip: Some(ip),
            values: values.into_iter().map(|(register, value)| (register.0, value)).collect(),
            kernel_thread: false,
        }
    }
}

impl RegisterFile for Registers {
    fn get(&self, register: Register) -> Option<u64> {
        self.values.get(&register.0).copied()
    }
}

impl UserRegisters for Registers {
    fn ip(&self) -> Option<u64> {
        self.ip
    }

    fn is_user(&self) -> bool {
        !self.kernel_thread
    }
}

/// Keeps every register that a source recovers, wanted or not.
impl CallerRegisters for Registers {
    fn wants(&self, _: Register) -> bool {
        true
    }

    fn set(&mut self, register: Register, value: u64) {
        self.values.insert(register.0, value);
    }
}
