//! Architectures for the ABIs of SFrame.

use unwind_arch_aarch64::Aarch64;
use unwind_arch_x86_64::X86_64;
use unwind_core::sframe::{Abi, SFrameSource};
use unwind_core::{
    Arch, ByteOrder, Found, FrameSource, LookupError, MemoryError, Pc, Query, Register, UnwindUserFrame,
    UnwindUserType, WordSize, from_fn,
};

/// As much of s390x as a source needs to know.
#[derive(Clone, Copy)]
pub struct S390x;

impl Arch for S390x {
    fn name(&self) -> &'static str {
        "s390x"
    }

    fn word_size(&self) -> WordSize {
        WordSize::Eight
    }

    fn byte_order(&self) -> ByteOrder {
        ByteOrder::Big
    }

    fn sp(&self) -> Register {
        Register(15)
    }

    fn fp(&self) -> Register {
        Register(11)
    }

    fn ra(&self) -> Register {
        Register(14)
    }

    fn ip(&self) -> Option<Register> {
        None
    }

    fn is_callee_saved(&self, register: Register) -> bool {
        (6..=15).contains(&register.0)
    }

    fn entry_rule(&self) -> UnwindUserFrame {
        UnwindUserFrame::leaf(160, Register(14)).unwrap()
    }

    fn frame_pointer_rule(&self) -> Option<UnwindUserFrame> {
        None
    }

    fn sp_bias(&self) -> i32 {
        -160
    }
}

/// Looks a pc up, on the architecture that the ABI is of. Reading memory is an error.
pub fn lookup(abi: Abi, source: &SFrameSource<'_>, pc: Pc) -> Result<Option<Found>, LookupError> {
    let mut memory = from_fn(|address, _: &mut [u8]| Err(MemoryError::Unreadable { address }));
    let (kind, query) = (UnwindUserType::SFrame, Query::new(pc));
    match abi {
        Abi::Amd64 => source.lookup(&X86_64, kind, &query, &mut memory),
        Abi::Aarch64Little => source.lookup(&Aarch64::new(), kind, &query, &mut memory),
        Abi::Aarch64Big => source.lookup(&Aarch64::big_endian(), kind, &query, &mut memory),
        Abi::S390x => source.lookup(&S390x, kind, &query, &mut memory),
    }
}
