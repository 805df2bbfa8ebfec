//! The machine that a process runs on: its architecture and its registers.

use nix::errno::Errno;
use unwind_arch::{AnyArch, AnyRegisters};
use unwind_core::{ByteOrder, WordSize};

use super::{Access, ProcessError, sys};
use crate::elf::tables::{self, ElfTables};

/// `NT_PRSTATUS` of elf.h: the general registers.
const GENERAL: i32 = 1;
/// `NT_FPREGSET`: the floating point registers.
const FLOATING: i32 = 2;
/// `NT_ARM_PAC_MASK`: `struct user_pac_mask` of arch/arm64/include/uapi/asm/ptrace.h, two words
/// of which the second is that of code pointers.
const PAC_MASK: i32 = 0x406;

/// For a host, as Rust names it: the ELF machine that a thread runs code of, and its word size, by the
/// size of its general registers as ptrace gives them. A kernel gives the smaller set for a thread in
/// 32-bit mode. (`user_regs_struct` or its like in the `ptrace.h` of each machine in Linux `arch`;
/// PowerPC gives `ELF_NGREG` words.)
const SETS: [(&str, usize, u16, WordSize); 8] = [
    ("x86_64", 216, 62, WordSize::Eight),
    ("x86_64", 68, 3, WordSize::Four),
    ("aarch64", 272, 183, WordSize::Eight),
    ("aarch64", 72, 40, WordSize::Four),
    ("riscv64", 256, 243, WordSize::Eight),
    ("s390x", 216, 22, WordSize::Eight),
    ("powerpc64", 384, 21, WordSize::Eight),
    ("loongarch64", 360, 258, WordSize::Eight),
];

/// The architecture and the registers of a thread that the calling thread has stopped.
pub(super) fn registers(tid: u32) -> Result<(AnyArch, AnyRegisters), ProcessError> {
    let thread = super::pid(tid);
    let mut bytes = [0; 1024];
    let failed = |errno| ProcessError::new(Access::Registers, errno);
    let size = sys::register_set(thread, GENERAL, &mut bytes).map_err(failed)?;
    let host = std::env::consts::ARCH;
    let set = SETS.iter().find(|(of, bytes, _, _)| *of == host && *bytes == size);
    let (_, _, machine, word) = *set.ok_or(ProcessError::UnknownMachine)?;
    // Only a machine's own processes can be stopped.
    let order = if cfg!(target_endian = "big") { ByteOrder::Big } else { ByteOrder::Little };
    let arch = tables::arch(machine, word, order, 0);
    let mut arch = arch.ok_or(unsupported(machine, word))?;
    if let AnyArch::Aarch64(aarch64) = arch {
        let mut masks = [0; 16];
        match sys::register_set(thread, PAC_MASK, &mut masks) {
            Ok(16) => {
                let [_, _, _, _, _, _, _, _, mask @ ..] = masks;
                arch = AnyArch::Aarch64(aarch64.with_pac_mask(u64::from_ne_bytes(mask)));
            }
            // No such processor, or an old kernel.
            Ok(_) | Err(Errno::EINVAL | Errno::ENODEV | Errno::EIO) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    let bytes = bytes.get(..size).unwrap_or_default();
    let registers = AnyRegisters::from_user_regs(arch, bytes).map_err(|_| ProcessError::UnknownMachine)?;
    // Some functions keep general registers in these; a walk that misses them says so.
    let mut floating = [0; 1024];
    let size = sys::register_set(thread, FLOATING, &mut floating).unwrap_or(0);
    let with = registers.with_fp_regs(arch, floating.get(..size).unwrap_or_default());
    Ok((arch, with.unwrap_or(registers)))
}

/// The architecture that an ELF file is for.
pub(super) fn arch_of(tables: &ElfTables) -> Result<AnyArch, ProcessError> {
    tables.arch().ok_or(unsupported(tables.machine, tables.word_size))
}

fn unsupported(machine: u16, word: WordSize) -> ProcessError {
    ProcessError::UnsupportedMachine { machine, bits: word.bytes().saturating_mul(8) }
}
