//! Any of the architectures that stacks are laid out for.

use unwind_arch_aarch64::Aarch64;
use unwind_arch_x86_64::X86_64;
use unwind_core::{Arch, ByteOrder, CfiVendor, Code, Register, SignalFrame, UnwindUserFrame, WordSize};

use super::Synthetic;

/// One of the real architectures, or the made-up one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnyArch {
    /// x86-64.
    X86_64,
    /// AArch64, with this order of bytes in data.
    Aarch64(ByteOrder),
    /// Made up.
    Synthetic(Synthetic),
}

macro_rules! each {
    ($arch:expr, $real:ident => $answer:expr) => {
        match $arch {
            AnyArch::X86_64 => {
                let $real = X86_64;
                $answer
            }
            AnyArch::Aarch64(order) => {
                let $real = Aarch64::new().with_byte_order(*order);
                $answer
            }
            AnyArch::Synthetic($real) => $answer,
        }
    };
}

impl AnyArch {
    /// Every architecture, word size, byte order and call convention.
    pub fn all() -> Vec<AnyArch> {
        let mut all =
            vec![AnyArch::X86_64, AnyArch::Aarch64(ByteOrder::Little), AnyArch::Aarch64(ByteOrder::Big)];
        all.extend(Synthetic::all().map(AnyArch::Synthetic));
        all.extend(Synthetic::all().map(|arch| {
            AnyArch::Synthetic(Synthetic { biased: arch.link, bound: !arch.link, mode_bit: true, ..arch })
        }));
        all
    }

    /// Whether a call leaves the return address in a register.
    pub fn has_link_register(&self) -> bool {
        match self {
            AnyArch::X86_64 => false,
            AnyArch::Aarch64(_) => true,
            AnyArch::Synthetic(arch) => arch.link,
        }
    }

    /// The code of a signal trampoline.
    pub fn trampoline_code(&self) -> &'static [u8] {
        match self {
            // mov $15, %rax; syscall
            AnyArch::X86_64 => &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05],
            // mov x8, #139; svc #0: code is little-endian whatever data is
            AnyArch::Aarch64(_) => &[0x68, 0x11, 0x80, 0xd2, 0x01, 0, 0, 0xd4],
            AnyArch::Synthetic(_) => &Synthetic::TRAMPOLINE,
        }
    }

    /// Code of a function's first instructions.
    pub fn entry_code(&self) -> &'static [u8] {
        match self {
            // endbr64; push %rbp; mov %rsp, %rbp
            AnyArch::X86_64 => &[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5],
            // bti c; mov x0, x1; mov x0, x1
            AnyArch::Aarch64(_) => &[0x5f, 0x24, 0x03, 0xd5, 0xe0, 0x03, 0x01, 0xaa, 0xe0, 0x03, 0x01, 0xaa],
            AnyArch::Synthetic(_) => &[Synthetic::ENTER],
        }
    }

    /// Code that tells nothing: moves between registers.
    pub fn plain_code(&self) -> &'static [u8] {
        match self {
            // mov %eax, %eax: seen from any of its bytes, it says nothing either
            AnyArch::X86_64 => &[0x89, 0xc0],
            AnyArch::Aarch64(_) => &[0xe0, 0x03, 0x01, 0xaa],
            AnyArch::Synthetic(_) => &[0x00],
        }
    }

    /// The size of a word in bytes.
    pub fn word(&self) -> u64 {
        u64::from(self.word_size().bytes())
    }

    /// The registers that are not ip, sp, fp or the return address's, lowest first.
    pub fn scratch(&self, count: usize) -> Vec<Register> {
        let named = [Some(self.sp()), Some(self.fp()), Some(self.ra()), self.ip()];
        (0..64).map(Register).filter(|register| !named.contains(&Some(*register))).take(count).collect()
    }
}

impl Arch for AnyArch {
    fn name(&self) -> &'static str {
        each!(self, arch => arch.name())
    }

    fn word_size(&self) -> WordSize {
        each!(self, arch => arch.word_size())
    }

    fn byte_order(&self) -> ByteOrder {
        each!(self, arch => arch.byte_order())
    }

    fn sp(&self) -> Register {
        each!(self, arch => arch.sp())
    }

    fn fp(&self) -> Register {
        each!(self, arch => arch.fp())
    }

    fn ra(&self) -> Register {
        each!(self, arch => arch.ra())
    }

    fn ip(&self) -> Option<Register> {
        each!(self, arch => arch.ip())
    }

    fn is_callee_saved(&self, register: Register) -> bool {
        each!(self, arch => arch.is_callee_saved(register))
    }

    fn entry_rule(&self) -> UnwindUserFrame {
        each!(self, arch => arch.entry_rule())
    }

    fn frame_pointer_rule(&self) -> Option<UnwindUserFrame> {
        each!(self, arch => arch.frame_pointer_rule())
    }

    fn back_chain_rule(&self) -> Option<UnwindUserFrame> {
        each!(self, arch => arch.back_chain_rule())
    }

    fn instruction_rule(&self, code: &Code<'_>) -> Option<UnwindUserFrame> {
        each!(self, arch => arch.instruction_rule(code))
    }

    fn signal_trampoline(&self, code: &Code<'_>) -> Option<SignalFrame> {
        each!(self, arch => arch.signal_trampoline(code))
    }

    fn strip_code_pointer(&self, pointer: u64) -> u64 {
        each!(self, arch => arch.strip_code_pointer(pointer))
    }

    fn sp_bias(&self) -> i32 {
        each!(self, arch => arch.sp_bias())
    }

    fn cfi_vendor(&self) -> CfiVendor {
        each!(self, arch => arch.cfi_vendor())
    }
}

impl<'a> arbitrary::Arbitrary<'a> for AnyArch {
    fn arbitrary(input: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match input.int_in_range(0..=3)? {
            0 => AnyArch::X86_64,
            1 => AnyArch::Aarch64(input.arbitrary()?),
            _ => AnyArch::Synthetic(input.arbitrary()?),
        })
    }
}
