//! Any of the architectures that stacks are laid out for.

use unwind_arch::aarch64::Aarch64;
use unwind_arch::arm::Arm;
use unwind_arch::loongarch64::Loongarch64;
use unwind_arch::mips::Mips;
use unwind_arch::powerpc64::Powerpc64;
use unwind_arch::riscv::Riscv;
use unwind_arch::s390x::S390x;
use unwind_arch::x86::X86;
use unwind_arch::x86_64::X86_64;
use unwind_core::{Arch, ByteOrder, CfiVendor, Code, Register, SignalFrame, UnwindUserFrame, WordSize};

use super::Synthetic;
use super::real::Machine;

/// The list of architectures, the made-up one last: hands it to another macro.
macro_rules! architectures {
    ($then:ident! $($arguments:tt)*) => {
        $then! {
            [X86_64, Aarch64, X86, Arm, Riscv, Mips, S390x, Powerpc64, Loongarch64, Synthetic]
            $($arguments)*
        }
    };
}

macro_rules! any_arch {
    ([$($name:ident),*]) => {
        /// One of the real architectures, or the made-up one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum AnyArch {
            $(
                #[doc = concat!("`", stringify!($name), "`.")]
                $name($name),
            )*
        }

        impl AnyArch {
            /// Every architecture, word size, byte order and call convention.
            pub fn all() -> Vec<AnyArch> {
                let mut all = Vec::new();
                $(all.extend(<$name as Machine>::every().into_iter().map(AnyArch::$name));)*
                all
            }
        }
    };
}

architectures!(any_arch!);

macro_rules! each_name {
    ([$($name:ident),*] $any:expr, $arch:ident => $answer:expr) => {
        match $any {
            $(AnyArch::$name($arch) => $answer,)*
        }
    };
}

macro_rules! each {
    ($any:expr, $arch:ident => $answer:expr) => {
        architectures!(each_name! $any, $arch => $answer)
    };
}

impl AnyArch {
    /// Every real one.
    pub fn real() -> Vec<AnyArch> {
        Self::all().into_iter().filter(|arch| !matches!(arch, AnyArch::Synthetic(_))).collect()
    }

    /// Whether a call leaves the return address in a register.
    pub fn has_link_register(&self) -> bool {
        match self {
            AnyArch::Synthetic(arch) => arch.link,
            _ => self.ip() != Some(self.ra()),
        }
    }

    /// The code of a signal trampoline.
    pub fn trampoline_code(&self) -> Vec<u8> {
        each!(self, arch => arch.trampoline_code())
    }

    /// The code around a pc at which a function's caller is found by the entry rule: what comes before
    /// it, and what is at it.
    pub fn entry_code(&self) -> [Vec<u8>; 2] {
        each!(self, arch => arch.entry_code())
    }

    /// Code that tells nothing.
    pub fn plain_code(&self) -> Vec<u8> {
        each!(self, arch => arch.plain_code())
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

    fn register_size(&self) -> WordSize {
        each!(self, arch => arch.register_size())
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
            0 => AnyArch::X86_64(X86_64),
            1 => AnyArch::Aarch64(Aarch64::new().with_byte_order(input.arbitrary()?)),
            2 => *input.choose(&AnyArch::real())?,
            _ => AnyArch::Synthetic(input.arbitrary()?),
        })
    }
}
