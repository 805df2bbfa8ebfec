//! An architecture chosen at run time, and its registers.
#![allow(unused_variables, reason = "with every architecture's feature off, nothing is left to do")]

#[cfg(feature = "layout")]
use unwind_core::LayoutError;
use unwind_core::{
    Arch, ByteOrder, CfiVendor, Code, Register, RegisterFile, SignalFrame, UnwindUserFrame, UserRegisters,
    WordSize,
};

/// The list of architectures, a line for each: feature, type (and variant), crate. Hands it to
/// another macro.
macro_rules! architectures {
    ($then:ident! $($arguments:tt)*) => {
        $then! {
            [
                "x86_64" X86_64 unwind_arch_x86_64,
                "aarch64" Aarch64 unwind_arch_aarch64,
                "s390x" S390x unwind_arch_s390x,
                "riscv" Riscv unwind_arch_riscv,
                "x86" X86 unwind_arch_x86,
                "powerpc64" Powerpc64 unwind_arch_powerpc64,
                "loongarch64" Loongarch64 unwind_arch_loongarch64,
                "arm" Arm unwind_arch_arm,
                "mips" Mips unwind_arch_mips,
            ]
            $($arguments)*
        }
    };
}

macro_rules! enums {
    ([$($feature:literal $name:ident $krate:ident,)*]) => {
        /// An architecture chosen at run time. Does what the chosen one does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum AnyArch {
            $(
                #[doc = concat!("`", $feature, "`")]
                #[cfg(feature = $feature)]
                $name($krate::$name),
            )*
        }

        /// The registers of an architecture chosen at run time.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum AnyRegisters {
            $(
                #[doc = concat!("Those of `", $feature, "`")]
                #[cfg(feature = $feature)]
                $name($krate::Registers),
            )*
        }
    };
}

architectures!(enums!);

/// Tries every architecture's `from_elf`.
macro_rules! from_elf {
    ([$($feature:literal $name:ident $krate:ident,)*] $machine:ident, $class:ident, $data:ident) => {
        $(
            #[cfg(feature = $feature)]
            if let Some(arch) = $krate::$name::from_elf($machine, $class, $data) {
                return Some(AnyArch::$name(arch));
            }
        )*
    };
}

/// The same expression for whichever variant it is.
macro_rules! each {
    ([$($feature:literal $name:ident $krate:ident,)*] $any:ident($inner:ident) = $value:expr => $body:expr) => {
        match $value {
            $(
                #[cfg(feature = $feature)]
                $any::$name(ref $inner) => $body,
            )*
        }
    };
}

/// The same change to whichever register set it is.
macro_rules! map {
    ([$($feature:literal $name:ident $krate:ident,)*] $value:expr, $inner:ident => $body:expr) => {
        match $value {
            $(
                #[cfg(feature = $feature)]
                AnyRegisters::$name($inner) => AnyRegisters::$name($body),
            )*
        }
    };
}

/// A register set of the architecture that `$arch` is, by a constructor without arguments.
macro_rules! make {
    ([$($feature:literal $name:ident $krate:ident,)*] $arch:ident => $constructor:ident) => {
        match $arch {
            $(
                #[cfg(feature = $feature)]
                AnyArch::$name(_) => AnyRegisters::$name($krate::Registers::$constructor()),
            )*
        }
    };
}

/// A register set of the architecture that `$arch` is, out of bytes.
#[cfg(feature = "layout")]
macro_rules! parse {
    ([$($feature:literal $name:ident $krate:ident,)*] $arch:ident as $inner:ident => $constructor:ident $arguments:tt) => {
        match $arch {
            $(
                #[cfg(feature = $feature)]
                AnyArch::$name($inner) => $krate::Registers::$constructor $arguments
                    .map(AnyRegisters::$name),

            )*
        }
    };
}

impl AnyArch {
    /// The architecture of an ELF file or core, by the `e_machine`, `e_ident[EI_CLASS]` and
    /// `e_ident[EI_DATA]` of its header. `None` for one that is not supported, or whose feature is
    /// off. Where the header is at hand, [`from_elf_flags`](AnyArch::from_elf_flags) knows more.
    pub fn from_elf(e_machine: u16, ei_class: u8, ei_data: u8) -> Option<AnyArch> {
        architectures!(from_elf! e_machine, ei_class, ei_data);
        None
    }

    /// The same with the header's `e_flags`, which alone tell MIPS n32 from o32 and the order of
    /// Arm's code in files of big-endian data.
    pub fn from_elf_flags(e_machine: u16, ei_class: u8, ei_data: u8, e_flags: u32) -> Option<AnyArch> {
        let found = AnyArch::from_elf(e_machine, ei_class, ei_data)?;
        #[allow(unreachable_patterns, reason = "where these two are all that there is")]
        match found {
            #[cfg(feature = "mips")]
            AnyArch::Mips(_) => {
                let arch = unwind_arch_mips::Mips::from_elf_flags(e_machine, ei_class, ei_data, e_flags);
                arch.map(AnyArch::Mips)
            }
            #[cfg(feature = "arm")]
            AnyArch::Arm(_) => {
                let arch = unwind_arch_arm::Arm::from_elf_flags(e_machine, ei_class, ei_data, e_flags);
                arch.map(AnyArch::Arm)
            }
            _ => Some(found),
        }
    }
}

impl Arch for AnyArch {
    fn name(&self) -> &'static str {
        architectures!(each! AnyArch(arch) = *self => arch.name())
    }

    #[inline]
    fn word_size(&self) -> WordSize {
        architectures!(each! AnyArch(arch) = *self => arch.word_size())
    }

    #[inline]
    fn register_size(&self) -> WordSize {
        architectures!(each! AnyArch(arch) = *self => arch.register_size())
    }

    #[inline]
    fn byte_order(&self) -> ByteOrder {
        architectures!(each! AnyArch(arch) = *self => arch.byte_order())
    }

    #[inline]
    fn sp(&self) -> Register {
        architectures!(each! AnyArch(arch) = *self => arch.sp())
    }

    #[inline]
    fn fp(&self) -> Register {
        architectures!(each! AnyArch(arch) = *self => arch.fp())
    }

    #[inline]
    fn ra(&self) -> Register {
        architectures!(each! AnyArch(arch) = *self => arch.ra())
    }

    #[inline]
    fn ip(&self) -> Option<Register> {
        architectures!(each! AnyArch(arch) = *self => arch.ip())
    }

    #[inline]
    fn is_callee_saved(&self, register: Register) -> bool {
        architectures!(each! AnyArch(arch) = *self => arch.is_callee_saved(register))
    }

    #[inline]
    fn entry_rule(&self) -> UnwindUserFrame {
        architectures!(each! AnyArch(arch) = *self => arch.entry_rule())
    }

    #[inline]
    fn frame_pointer_rule(&self) -> Option<UnwindUserFrame> {
        architectures!(each! AnyArch(arch) = *self => arch.frame_pointer_rule())
    }

    #[inline]
    fn back_chain_rule(&self) -> Option<UnwindUserFrame> {
        architectures!(each! AnyArch(arch) = *self => arch.back_chain_rule())
    }

    fn instruction_rule(&self, code: &Code<'_>) -> Option<UnwindUserFrame> {
        architectures!(each! AnyArch(arch) = *self => arch.instruction_rule(code))
    }

    fn signal_trampoline(&self, code: &Code<'_>) -> Option<SignalFrame> {
        architectures!(each! AnyArch(arch) = *self => arch.signal_trampoline(code))
    }

    #[inline]
    fn strip_code_pointer(&self, pointer: u64) -> u64 {
        architectures!(each! AnyArch(arch) = *self => arch.strip_code_pointer(pointer))
    }

    #[inline]
    fn sp_bias(&self) -> i32 {
        architectures!(each! AnyArch(arch) = *self => arch.sp_bias())
    }

    #[inline]
    fn cfi_vendor(&self) -> CfiVendor {
        architectures!(each! AnyArch(arch) = *self => arch.cfi_vendor())
    }
}

impl AnyRegisters {
    /// The registers of a plain walk. `link` is the link register's value; it is not used on
    /// architectures whose calls push the return address. More can be added by
    /// [`with`](AnyRegisters::with).
    #[allow(unreachable_code, reason = "without any architecture there are no registers")]
    pub fn new(arch: AnyArch, ip: u64, sp: u64, fp: u64, link: Option<u64>) -> Self {
        let set = Self::unknown(arch).with_ip(ip).with(arch.sp(), sp).with(arch.fp(), fp);
        match link.filter(|_| arch.ip() != Some(arch.ra())) {
            Some(link) => set.with(arch.ra(), link),
            None => set,
        }
    }

    /// From DWARF numbers and values, as debuggers and emulators have them. Numbers that the set
    /// has no room for are left out; of two values for one register the last counts.
    pub fn from_dwarf(arch: AnyArch, values: impl IntoIterator<Item = (Register, u64)>) -> Self {
        values.into_iter().fold(Self::unknown(arch), |set, (register, value)| set.with(register, value))
    }

    /// A set that knows nothing yet.
    pub fn unknown(arch: AnyArch) -> Self {
        architectures!(make! arch => default)
    }

    /// There are no user registers: a kernel thread. A walk is refused, with that reason.
    pub fn absent(arch: AnyArch) -> Self {
        architectures!(make! arch => absent)
    }

    /// The same set, with `register` known. One that the set has no room for is left out.
    #[must_use]
    pub fn with(self, register: Register, value: u64) -> Self {
        architectures!(map! self, set => set.with(register, value))
    }

    /// The same set, with the program counter known.
    #[must_use]
    pub fn with_ip(self, ip: u64) -> Self {
        architectures!(map! self, set => set.with_ip(ip))
    }

    /// The same set, with `register` unknown.
    #[must_use]
    pub fn without(self, register: Register) -> Self {
        architectures!(map! self, set => set.without(register))
    }
}

#[cfg(feature = "layout")]
impl AnyRegisters {
    /// From ptrace's general registers: `user_regs_struct`, the regset `NT_PRSTATUS`.
    ///
    /// # Errors
    /// Where these bytes are no such registers of `arch`.
    pub fn from_user_regs(arch: AnyArch, bytes: &[u8]) -> Result<Self, LayoutError> {
        architectures!(parse! arch as known => from_user_regs(known, bytes))
    }

    /// From the descriptor of a core file's `NT_PRSTATUS` note: `struct elf_prstatus`.
    ///
    /// # Errors
    /// Where these bytes are no such descriptor of `arch`.
    pub fn from_prstatus(arch: AnyArch, bytes: &[u8]) -> Result<Self, LayoutError> {
        architectures!(parse! arch as known => from_prstatus(known, bytes))
    }

    /// From `ucontext_t`: the third argument of a signal handler.
    ///
    /// # Errors
    /// Where these bytes are no such context of `arch`.
    pub fn from_ucontext(arch: AnyArch, bytes: &[u8]) -> Result<Self, LayoutError> {
        architectures!(parse! arch as known => from_ucontext(known, bytes))
    }

    /// From the `PERF_SAMPLE_REGS_USER` part of a perf sample: `u64 abi`, and a `u64` for each bit of
    /// `mask`, the event's `sample_regs_user`.
    ///
    /// # Errors
    /// Where these bytes are no such sample of `arch`.
    pub fn from_perf_sample(arch: AnyArch, mask: u64, bytes: &[u8]) -> Result<Self, LayoutError> {
        architectures!(parse! arch as known => from_perf_sample(known, mask, bytes))
    }

    /// The same set, with the floating point registers that ptrace and core files give for `NT_FPREGSET`
    /// (2), on machines whose functions keep general registers in them (s390x) or whose calls preserve
    /// them whole (powerpc64). Elsewhere the set as it is: unwinding has no use for them there.
    ///
    /// # Errors
    /// Where these bytes are no such registers of `arch`.
    pub fn with_fp_regs(self, arch: AnyArch, bytes: &[u8]) -> Result<Self, LayoutError> {
        #[allow(unreachable_patterns, reason = "where these two are all that there is")]
        match (self, arch) {
            #[cfg(feature = "s390x")]
            (AnyRegisters::S390x(set), AnyArch::S390x(arch)) => {
                set.with_fp_regs(arch, bytes).map(AnyRegisters::S390x)
            }
            #[cfg(feature = "powerpc64")]
            (AnyRegisters::Powerpc64(set), AnyArch::Powerpc64(arch)) => {
                set.with_fp_regs(arch, bytes).map(AnyRegisters::Powerpc64)
            }
            _ => Ok(self),
        }
    }
}

impl RegisterFile for AnyRegisters {
    #[inline]
    fn get(&self, register: Register) -> Option<u64> {
        architectures!(each! AnyRegisters(set) = *self => set.get(register))
    }
}

impl UserRegisters for AnyRegisters {
    #[inline]
    fn ip(&self) -> Option<u64> {
        architectures!(each! AnyRegisters(set) = *self => set.ip())
    }

    #[inline]
    fn is_user(&self) -> bool {
        architectures!(each! AnyRegisters(set) = *self => set.is_user())
    }
}
