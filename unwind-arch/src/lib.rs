//! The architectures that [`unwind_core`] can walk, each behind a feature of its name, and the one
//! chosen at run time.
//!
//! | feature | ELF machine | value | register set |
//! |---|---|---|---|
//! | `x86_64` | 62, 64-bit, little-endian | `X86_64` | `unwind_arch_x86_64::Registers` |
//! | `aarch64` | 183, 64-bit, both byte orders | `Aarch64` | `unwind_arch_aarch64::Registers` |
//! | `s390x` | 22, 64-bit, big-endian | `S390x` | `unwind_arch_s390x::Registers` |
//! | `riscv` | 243, 32-bit and 64-bit, little-endian | `Riscv` | `unwind_arch_riscv::Registers` |
//! | `x86` | 3, 32-bit, little-endian | `X86` | `unwind_arch_x86::Registers` |
//! | `powerpc64` | 21, 64-bit, both byte orders | `Powerpc64` | `unwind_arch_powerpc64::Registers` |
//! | `loongarch64` | 258, 64-bit, little-endian | `Loongarch64` | `unwind_arch_loongarch64::Registers` |
//! | `arm` | 40, 32-bit, both byte orders | `Arm` | `unwind_arch_arm::Registers` |
//! | `mips` | 8, 32-bit and 64-bit (o32, n32, n64), both byte orders | `Mips` | `unwind_arch_mips::Registers` |
//!
//! # Known when you build
//! Use the architecture's own value and register set: `unwind_arch::x86_64::X86_64` and
//! `unwind_arch::x86_64::Registers`. A kernel or a profiler of its own machine does this, and pays
//! nothing for the others.
//!
//! # Known when you run
//! [`AnyArch::from_elf`] picks one by the header of an ELF file or core, and [`AnyRegisters`] makes
//! its register sets.
#![cfg_attr(all(feature = "x86_64", feature = "layout"), doc = "```")]
#![cfg_attr(not(all(feature = "x86_64", feature = "layout")), doc = "```ignore")]
//! use unwind_arch::{AnyArch, AnyRegisters};
//! use unwind_core::{Arch, UserRegisters};
//!
//! // e_machine, e_ident[EI_CLASS] and e_ident[EI_DATA] of the ELF header.
//! let arch = AnyArch::from_elf(62, 2, 1).ok_or("no such architecture")?;
//! assert_eq!(arch.name(), "x86_64");
//!
//! // What ptrace's PTRACE_GETREGSET with NT_PRSTATUS gave.
//! let mut regset = [0u8; 216];
//! regset[128] = 0x10; // rip
//! let registers = AnyRegisters::from_user_regs(arch, &regset)?;
//! assert_eq!(registers.ip(), Some(0x10));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The calling thread
//! With feature `capture`, the module `host` is the architecture that the program runs on, where it
//! is one of these: its value, its register set, and `with_registers`, which reads the calling
//! thread's.
//!
//! # A new architecture
//! A folder with a crate in it, made after those here (the checklist is with
//! [`unwind_core::Arch`]); a dependency and a feature in this crate's manifest, and one line in
//! `any.rs`.

#![no_std]
#![forbid(unsafe_code)]

mod any;

pub use any::{AnyArch, AnyRegisters};
#[cfg(feature = "aarch64")]
pub use unwind_arch_aarch64 as aarch64;
#[cfg(feature = "arm")]
pub use unwind_arch_arm as arm;
#[cfg(feature = "loongarch64")]
pub use unwind_arch_loongarch64 as loongarch64;
#[cfg(feature = "mips")]
pub use unwind_arch_mips as mips;
#[cfg(feature = "powerpc64")]
pub use unwind_arch_powerpc64 as powerpc64;
#[cfg(feature = "riscv")]
pub use unwind_arch_riscv as riscv;
#[cfg(feature = "s390x")]
pub use unwind_arch_s390x as s390x;
#[cfg(feature = "x86")]
pub use unwind_arch_x86 as x86;
#[cfg(feature = "x86_64")]
pub use unwind_arch_x86_64 as x86_64;
#[cfg(feature = "layout")]
pub use unwind_core::LayoutError;

/// The architecture that this program runs on.
#[cfg(all(
    feature = "capture",
    any(all(feature = "x86_64", target_arch = "x86_64"), all(feature = "aarch64", target_arch = "aarch64")),
    target_pointer_width = "64"
))]
pub mod host {
    #[cfg(target_arch = "aarch64")]
    pub use unwind_arch_aarch64::{Aarch64 as HostArch, Registers, with_registers};
    #[cfg(target_arch = "x86_64")]
    pub use unwind_arch_x86_64::{Registers, X86_64 as HostArch, with_registers};
}
