//! Architectures for the ABIs of SFrame.

use unwind_arch_aarch64::Aarch64;
use unwind_arch_s390x::S390x;
use unwind_arch_x86_64::X86_64;
use unwind_core::sframe::{Abi, SFrameSource};
use unwind_core::{Found, FrameSource, LookupError, MemoryError, Pc, Query, UnwindUserType, from_fn};

/// Looks a pc up, on the architecture that the ABI is of. Reading memory is an error.
pub fn lookup(abi: Abi, source: &SFrameSource<'_>, pc: Pc) -> Result<Option<Found>, LookupError> {
    let mut memory = from_fn(|address, _: &mut [u8]| Err(MemoryError::Unreadable { address }));
    let (kind, query) = (UnwindUserType::SFrame, Query::new(pc));
    match abi {
        Abi::Amd64 => source.lookup(&X86_64, kind, &query, &mut memory),
        Abi::Aarch64Little => source.lookup(&Aarch64::new(), kind, &query, &mut memory),
        Abi::Aarch64Big => source.lookup(&Aarch64::big_endian(), kind, &query, &mut memory),
        Abi::S390x => source.lookup(&S390x, kind, &query, &mut memory),
        abi => panic!("no architecture for {abi:?}"),
    }
}
