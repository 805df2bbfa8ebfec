//! Architectures to lay stacks out for: the real ones, and a made-up one whose every property is a
//! value.

use unwind_core::{
    Arch, Base, ByteOrder, CfaRule, CfiVendor, Code, FpRule, RaRule, Register, SignalFrame, UnwindUserFrame,
    WordSize,
};

/// An architecture of no manufacturer, for the word sizes, byte orders and ABI shapes that the real
/// crates do not have yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, arbitrary::Arbitrary)]
pub struct Synthetic {
    /// The size of a word.
    pub word: WordSize,
    /// The order of bytes in data.
    pub order: ByteOrder,
    /// Whether a call leaves the return address in a register; else it pushes it.
    pub link: bool,
    /// Whether the ABI biases the CFA: the caller's sp is [`Synthetic::BIAS`] below it.
    pub biased: bool,
    /// Whether the frame pointer chain tells only a bound of the caller's sp.
    pub bound: bool,
    /// Whether bit 0 of a code pointer is a mode bit, as on Arm and microMIPS.
    pub mode_bit: bool,
}

impl Synthetic {
    /// The registers below this number exist.
    pub const REGISTERS: u16 = 40;
    /// How far below the CFA the caller's sp is where the ABI biases it.
    pub const BIAS: u8 = 96;
    /// The instruction with which a function begins.
    pub const ENTER: u8 = 0xe1;
    /// The instructions of a signal trampoline.
    pub const TRAMPOLINE: [u8; 4] = [0x51, 0x6e, 0xa1, 0x57];

    /// Every combination of word size, byte order and call convention, without the rarer options.
    pub fn all() -> impl Iterator<Item = Synthetic> {
        [WordSize::Four, WordSize::Eight].into_iter().flat_map(|word| {
            [ByteOrder::Little, ByteOrder::Big].into_iter().flat_map(move |order| {
                [false, true].into_iter().map(move |link| Synthetic {
                    word,
                    order,
                    link,
                    biased: false,
                    bound: false,
                    mode_bit: false,
                })
            })
        })
    }

    fn words(self, count: i32) -> i32 {
        count * i32::from(self.word.bytes())
    }
}

/// Where a [`Synthetic`] signal frame keeps registers: the first row for 4-byte words, then for 8.
static SIGNAL_REGISTERS: [[(Register, i32); 5]; 2] = [
    [(SP, 12), (FP, 16), (RA, 20), (Register(12), 24), (Register(15), 28)],
    [(SP, 24), (FP, 32), (RA, 40), (Register(12), 48), (Register(15), 56)],
];

const SP: Register = Register(13);
const FP: Register = Register(11);
const RA: Register = Register(14);

impl Arch for Synthetic {
    fn name(&self) -> &'static str {
        "synthetic"
    }

    fn word_size(&self) -> WordSize {
        self.word
    }

    fn byte_order(&self) -> ByteOrder {
        self.order
    }

    fn sp(&self) -> Register {
        SP
    }

    fn fp(&self) -> Register {
        FP
    }

    fn ra(&self) -> Register {
        RA
    }

    fn ip(&self) -> Option<Register> {
        if self.link { None } else { Some(RA) }
    }

    fn is_callee_saved(&self, register: Register) -> bool {
        register == SP || register == FP || (20..30).contains(&register.0)
    }

    fn entry_rule(&self) -> UnwindUserFrame {
        let bias = -self.sp_bias();
        let (cfa, ra) = if self.link {
            (bias, RaRule::InRegister { base: Base::Register(RA), offset: 0 })
        } else {
            (self.words(1) + bias, RaRule::AtCfa(self.words(-1) - bias))
        };
        UnwindUserFrame::new(CfaRule::Offset { base: Base::Sp, offset: cfa }, ra, FpRule::Unchanged)
            .expect("fits")
    }

    fn frame_pointer_rule(&self) -> Option<UnwindUserFrame> {
        let bias = -self.sp_bias();
        let rule = UnwindUserFrame::plain(
            true,
            self.words(2) + bias,
            self.words(-1) - bias,
            Some(self.words(-2) - bias),
        );
        Some(if self.bound { rule.with_sp_bound() } else { rule })
    }

    fn instruction_rule(&self, code: &Code<'_>) -> Option<UnwindUserFrame> {
        (code.at.first() == Some(&Self::ENTER)).then(|| self.entry_rule())
    }

    fn signal_trampoline(&self, code: &Code<'_>) -> Option<SignalFrame> {
        if !code.at.starts_with(&Self::TRAMPOLINE) {
            return None;
        }
        let at = |words| RaRule::AtRegister { base: Base::Sp, offset: self.words(words) };
        let frame = UnwindUserFrame::new(
            CfaRule::Deref { base: Base::Sp, offset: self.words(3), add: 0 },
            at(2),
            FpRule::AtRegister { base: Base::Sp, offset: self.words(4) },
        )?;
        let registers = match self.word {
            WordSize::Four => &SIGNAL_REGISTERS[0],
            WordSize::Eight => &SIGNAL_REGISTERS[1],
        };
        Some(SignalFrame { frame: frame.signal(), registers })
    }

    fn strip_code_pointer(&self, pointer: u64) -> u64 {
        if self.mode_bit { pointer & !1 } else { pointer }
    }

    fn sp_bias(&self) -> i32 {
        if self.biased { -i32::from(Self::BIAS) } else { 0 }
    }

    fn cfi_vendor(&self) -> CfiVendor {
        CfiVendor::Default
    }
}
