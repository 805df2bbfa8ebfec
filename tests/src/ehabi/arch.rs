//! The least that a walk over 32-bit Arm needs to know, and registers and memory that are made up.

use unwind_core::{
    Arch, Base, ByteOrder, Code, MemoryError, MemoryReader, RaRule, Register, RegisterFile, SignalFrame,
    UnwindUserFrame, UserRegisters, WordSize,
};

use crate::synthetic::chaos::mix;

/// 32-bit Arm with a frame pointer of choice: r11 by the AAPCS, r7 in Thumb code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arm {
    pub order: ByteOrder,
    pub fp: u16,
}

impl Arm {
    /// Little-endian, with r11.
    pub const LITTLE: Arm = Arm { order: ByteOrder::Little, fp: 11 };
    /// Big-endian, with r11.
    pub const BIG: Arm = Arm { order: ByteOrder::Big, fp: 11 };
    /// The first instructions of a signal trampoline of no system.
    pub const TRAMPOLINE: [u8; 4] = [0x51, 0x6e, 0xa1, 0x57];
    /// Where its frame holds pc and sp, and r11.
    pub const TRAMPOLINE_FRAME: [(Register, i32); 3] =
        [(Register(15), 8), (Register(13), 12), (Register(11), 16)];
}

impl Arch for Arm {
    fn name(&self) -> &'static str {
        "arm"
    }

    fn word_size(&self) -> WordSize {
        WordSize::Four
    }

    fn byte_order(&self) -> ByteOrder {
        self.order
    }

    fn sp(&self) -> Register {
        Register(13)
    }

    fn fp(&self) -> Register {
        Register(self.fp)
    }

    fn ra(&self) -> Register {
        Register(14)
    }

    fn ip(&self) -> Option<Register> {
        Some(Register(15))
    }

    /// AAPCS32, "Core registers": r4-r11 and sp.
    fn is_callee_saved(&self, register: Register) -> bool {
        matches!(register.0, 4..=11 | 13)
    }

    fn entry_rule(&self) -> UnwindUserFrame {
        UnwindUserFrame::leaf(0, self.ra()).expect("it fits")
    }

    fn frame_pointer_rule(&self) -> Option<UnwindUserFrame> {
        // The frame record of the AAPCS: the caller's frame pointer, then the return address.
        Some(UnwindUserFrame::plain(true, 8, -4, Some(-8)).with_sp_bound())
    }

    fn signal_trampoline(&self, code: &Code<'_>) -> Option<SignalFrame> {
        if !code.at.starts_with(&Self::TRAMPOLINE) {
            return None;
        }
        let frame = UnwindUserFrame::new(
            unwind_core::CfaRule::Deref { base: Base::Sp, offset: 12, add: 0 },
            RaRule::AtRegister { base: Base::Sp, offset: 8 },
            unwind_core::FpRule::AtRegister { base: Base::Sp, offset: 16 },
        )?;
        Some(SignalFrame { frame: frame.signal(), registers: &Self::TRAMPOLINE_FRAME })
    }

    fn strip_code_pointer(&self, pointer: u64) -> u64 {
        pointer & !1
    }
}

/// Registers and memory that are made up from a seed: every register and every word has a value,
/// different ones have different values, and each could be a stack address.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    pub seed: u64,
    pub order: ByteOrder,
}

impl Made {
    fn value(self, what: u64) -> u32 {
        let low = u32::try_from(mix(self.seed ^ what) & 0x00ff_fffc).expect("24 bits");
        0x4000_0000 + low
    }

    /// The value of a core register.
    pub fn core(self, number: u8) -> u32 {
        self.value(0x100 | u64::from(number))
    }

    /// The word that lies at an address; aligned or not, they have nothing to do with one another.
    pub fn word(self, address: u32) -> u32 {
        self.value(u64::from(address) << 16)
    }
}

impl RegisterFile for Made {
    fn get(&self, register: Register) -> Option<u64> {
        let number = u8::try_from(register.0).ok().filter(|number| *number < 16)?;
        Some(self.core(number).into())
    }
}

impl UserRegisters for Made {
    fn ip(&self) -> Option<u64> {
        self.get(Register(15))
    }
}

impl MemoryReader for Made {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let unreadable = MemoryError::Unreadable { address };
        let word = self.word(u32::try_from(address).map_err(|_| unreadable)?);
        let bytes = match self.order {
            ByteOrder::Little => word.to_le_bytes(),
            ByteOrder::Big => word.to_be_bytes(),
        };
        into.copy_from_slice(bytes.get(..into.len()).ok_or(unreadable)?);
        Ok(())
    }
}
