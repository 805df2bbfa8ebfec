//! The machine that a process runs on: its architecture and its registers.

use nix::errno::Errno;
use unwind_arch::{AnyArch, AnyRegisters};
use unwind_core::{ByteOrder, WordSize};

use super::{Access, ProcessError, sys};
use crate::elf::tables::ElfTables;

/// `NT_PRSTATUS` of elf.h: the general registers.
const GENERAL: i32 = 1;
/// `NT_ARM_PAC_MASK`: `struct user_pac_mask` of arch/arm64/include/uapi/asm/ptrace.h, two words
/// of which the second is that of code pointers.
const PAC_MASK: i32 = 0x406;

/// By the size of its general registers as ptrace gives them: the ELF machine that a thread runs
/// code of, and its `EI_CLASS`. A kernel gives the smaller set for a thread in 32-bit mode.
const SETS: [(usize, u16, u8); 4] = [(216, 62, 2), (272, 183, 2), (68, 3, 1), (72, 40, 1)];

/// The architecture and the registers of a thread that the calling thread has stopped.
pub(super) fn registers(tid: u32) -> Result<(AnyArch, AnyRegisters), ProcessError> {
    let thread = super::pid(tid);
    let mut bytes = [0; 1024];
    let failed = |errno| ProcessError::new(Access::Registers, errno);
    let size = sys::register_set(thread, GENERAL, &mut bytes).map_err(failed)?;
    let set = SETS.iter().find(|(bytes, _, _)| *bytes == size);
    let (_, machine, class) = *set.ok_or(ProcessError::UnknownMachine)?;
    // Only a machine's own processes can be stopped.
    let order = if cfg!(target_endian = "big") { ByteOrder::Big } else { ByteOrder::Little };
    let mut arch = arch(machine, class, order)?;
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
    Ok((arch, registers))
}

/// The architecture that an ELF file is for.
pub(super) fn arch_of(tables: &ElfTables) -> Result<AnyArch, ProcessError> {
    let class = match tables.word_size {
        WordSize::Four => 1,
        WordSize::Eight => 2,
    };
    arch(tables.machine, class, tables.byte_order)
}

fn arch(machine: u16, class: u8, order: ByteOrder) -> Result<AnyArch, ProcessError> {
    let data = match order {
        ByteOrder::Little => 1,
        ByteOrder::Big => 2,
    };
    let bits = if class == 2 { 64 } else { 32 };
    AnyArch::from_elf(machine, class, data).ok_or(ProcessError::UnsupportedMachine { machine, bits })
}
