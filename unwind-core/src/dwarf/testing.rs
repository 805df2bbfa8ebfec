//! What the tests of this module have in common.

use crate::{Arch, ByteOrder, CfiVendor, Register, UnwindUserFrame, WordSize};

/// Architectures that differ in what matters to call frame information.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) word: WordSize,
    pub(super) order: ByteOrder,
    pub(super) ip: Option<Register>,
    pub(super) sp_bias: i32,
    pub(super) vendor: CfiVendor,
}

pub(super) const SP: u8 = 7;
pub(super) const FP: u8 = 6;
pub(super) const RA: u8 = 16;

pub(super) const KINDS: [Kind; 4] = [
    Kind {
        word: WordSize::Eight,
        order: ByteOrder::Little,
        ip: Some(Register(16)),
        sp_bias: 0,
        vendor: CfiVendor::Default,
    },
    Kind {
        word: WordSize::Eight,
        order: ByteOrder::Little,
        ip: None,
        sp_bias: 0,
        vendor: CfiVendor::AArch64,
    },
    Kind {
        word: WordSize::Eight,
        order: ByteOrder::Big,
        ip: None,
        sp_bias: -160,
        vendor: CfiVendor::Default,
    },
    Kind { word: WordSize::Four, order: ByteOrder::Big, ip: None, sp_bias: 0, vendor: CfiVendor::Default },
];

impl Arch for Kind {
    fn name(&self) -> &'static str {
        "test"
    }
    fn word_size(&self) -> WordSize {
        self.word
    }
    fn byte_order(&self) -> ByteOrder {
        self.order
    }
    fn sp(&self) -> Register {
        Register(SP.into())
    }
    fn fp(&self) -> Register {
        Register(FP.into())
    }
    fn ra(&self) -> Register {
        Register(RA.into())
    }
    fn ip(&self) -> Option<Register> {
        self.ip
    }
    fn is_callee_saved(&self, _: Register) -> bool {
        false
    }
    fn entry_rule(&self) -> UnwindUserFrame {
        UnwindUserFrame::plain(false, 8, -8, None)
    }
    fn frame_pointer_rule(&self) -> Option<UnwindUserFrame> {
        None
    }
    fn sp_bias(&self) -> i32 {
        self.sp_bias
    }
    fn cfi_vendor(&self) -> CfiVendor {
        self.vendor
    }
}

/// Four bytes of a section.
pub(super) fn four(order: ByteOrder, value: u64) -> [u8; 4] {
    match order {
        ByteOrder::Little => u32::try_from(value & 0xffff_ffff).unwrap_or_default().to_le_bytes(),
        ByteOrder::Big => u32::try_from(value & 0xffff_ffff).unwrap_or_default().to_be_bytes(),
    }
}
