//! Register sets from bytes, as an operating system lays them out: ptrace, core notes, `ucontext_t`,
//! perf samples. An architecture crate says where each register is; reading is done here.

use core::fmt;

use scroll::{BE, Endian, LE, Pread};

use crate::{ByteOrder, FillRegisters, Register, WordSize};

/// Why bytes are no register set of an architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// There are fewer bytes than the layout has. The registers of a 32-bit process on a 64-bit machine
    /// are one cause.
    TooShort {
        /// How many bytes the layout needs.
        needed: usize,
        /// How many there are.
        len: usize,
    },
    /// A perf sample of another ABI: of a 32-bit process where one of 64 bits was meant, or the other
    /// way around.
    Abi {
        /// The sample's `abi`: Linux `enum perf_sample_regs_abi`.
        abi: u64,
    },
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LayoutError::TooShort { needed, len } => {
                write!(f, "a register set of {len} bytes, where {needed} are needed")
            }
            LayoutError::Abi { abi } => write!(f, "a register sample of another ABI ({abi})"),
        }
    }
}

impl core::error::Error for LayoutError {}

/// Where a structure keeps registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterLayout {
    /// How many bytes of the structure are needed: up to the end of its last register, or all of it.
    pub size: usize,
    /// The size of each register. (A register may be narrower than its slot: then its offset is that of
    /// the part that counts.)
    pub word: WordSize,
    /// The offset of the program counter, in bytes, if `registers` does not have it.
    pub ip: Option<i32>,
    /// Each register, and its offset in bytes.
    pub registers: &'static [(Register, i32)],
}

impl RegisterLayout {
    /// Reads a register set from a structure that begins at `start` in `bytes`.
    ///
    /// # Errors
    /// [`LayoutError::TooShort`].
    pub fn read<R: FillRegisters>(
        &self,
        order: ByteOrder,
        bytes: &[u8],
        start: usize,
    ) -> Result<R, LayoutError> {
        let needed = start.saturating_add(self.size);
        let too_short = LayoutError::TooShort { needed, len: bytes.len() };
        let bytes = bytes.get(start..needed).ok_or(too_short)?;
        let word = |offset: i32| {
            let offset = usize::try_from(offset).ok()?;
            match self.word {
                WordSize::Four => bytes.pread_with::<u32>(offset, endian(order)).ok().map(u64::from),
                WordSize::Eight => bytes.pread_with(offset, endian(order)).ok(),
            }
        };
        let mut set = R::default();
        for (register, offset) in self.registers {
            set = set.with(*register, word(*offset).ok_or(too_short)?);
        }
        if let Some(offset) = self.ip {
            set = set.with_ip(word(offset).ok_or(too_short)?);
        }
        Ok(set)
    }
}

/// Which registers the bits of perf's masks stand for: `sample_regs_user` of `struct
/// perf_event_attr`, and the `PERF_SAMPLE_REGS_USER` part of a sample. Linux
/// `include/uapi/linux/perf_event.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerfLayout {
    /// The ABI whose registers these are: `PERF_SAMPLE_REGS_ABI_32` (1) or `PERF_SAMPLE_REGS_ABI_64` (2).
    pub abi: u64,
    /// The bit of the program counter, if `registers` does not have it.
    pub ip: Option<u32>,
    /// The bit of each register.
    pub registers: &'static [(u32, Register)],
}

impl PerfLayout {
    /// The registers to ask perf for: every bit that is known here.
    pub const fn mask(&self) -> u64 {
        let mut mask = match self.ip {
            Some(bit) => bit_of(bit),
            None => 0,
        };
        let mut rest = self.registers;
        while let [(bit, _), after @ ..] = rest {
            mask |= bit_of(*bit);
            rest = after;
        }
        mask
    }

    /// The register with this bit. `None` for those that unwinding has no use for, and for the program
    /// counter where it has no DWARF number.
    pub fn register(&self, bit: u32) -> Option<Register> {
        let (_, register) = self.registers.iter().find(|(known, _)| *known == bit)?;
        Some(*register)
    }

    /// Reads a register set from a sample: `u64 abi`, and a `u64` for each bit of `mask`, the event's
    /// `sample_regs_user`. A sample without user registers (`PERF_SAMPLE_REGS_ABI_NONE`, a kernel
    /// thread's) becomes [`FillRegisters::absent`].
    ///
    /// # Errors
    /// [`LayoutError::TooShort`], [`LayoutError::Abi`].
    pub fn read<R: FillRegisters>(
        &self,
        order: ByteOrder,
        mask: u64,
        bytes: &[u8],
    ) -> Result<R, LayoutError> {
        const NONE: u64 = 0;
        let too_short = |words: u32| LayoutError::TooShort {
            needed: usize::try_from(words).unwrap_or(usize::MAX).saturating_mul(8),
            len: bytes.len(),
        };
        let abi: u64 = bytes.pread_with(0, endian(order)).map_err(|_| too_short(1))?;
        if abi == NONE {
            return Ok(R::absent());
        }
        if abi != self.abi {
            return Err(LayoutError::Abi { abi });
        }
        let all = mask.count_ones().saturating_add(1);
        let mut offset = 8;
        let mut set = R::default();
        for bit in (0..64).filter(|bit| mask & bit_of(*bit) != 0) {
            let value = bytes.gread_with(&mut offset, endian(order)).map_err(|_| too_short(all))?;
            if Some(bit) == self.ip {
                set = set.with_ip(value);
            } else if let Some(register) = self.register(bit) {
                set = set.with(register, value);
            }
        }
        Ok(set)
    }
}

const fn bit_of(number: u32) -> u64 {
    1u64.wrapping_shl(number)
}

fn endian(order: ByteOrder) -> Endian {
    match order {
        ByteOrder::Little => LE,
        ByteOrder::Big => BE,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;
    use crate::{RegisterFile, UserRegisters};

    #[allow(dead_code, unreachable_pub, reason = "the macro makes all of an embedder's set")]
    mod set {
        crate::register_set! {
            /// As a small machine has them.
            pub struct Registers { count: 4, ip: None }
        }
    }
    use set::Registers;

    const LAYOUT: RegisterLayout = RegisterLayout {
        size: 20,
        word: WordSize::Four,
        ip: Some(12),
        registers: &[(Register(0), 4), (Register(3), 0)],
    };
    const WIDE: RegisterLayout =
        RegisterLayout { size: 16, word: WordSize::Eight, ip: Some(0), registers: &[(Register(1), 8)] };
    const PERF: PerfLayout =
        PerfLayout { abi: 1, ip: Some(0), registers: &[(3, Register(1)), (63, Register(2))] };

    #[test]
    fn registers_are_where_the_layout_says() {
        let bytes: Vec<u8> = (0..40).collect();
        let little: Registers = LAYOUT.read(ByteOrder::Little, &bytes, 10).unwrap();
        assert_eq!(little.get(Register(3)), Some(0x0d0c_0b0a));
        assert_eq!(little.get(Register(0)), Some(0x1110_0f0e));
        assert_eq!((little.ip(), little.get(Register(1))), (Some(0x1918_1716), None));
        let big: Registers = LAYOUT.read(ByteOrder::Big, &bytes, 10).unwrap();
        assert_eq!((big.get(Register(3)), big.ip()), (Some(0x0a0b_0c0d), Some(0x1617_1819)));
        let wide: Registers = WIDE.read(ByteOrder::Big, &bytes, 0).unwrap();
        assert_eq!(
            (wide.ip(), wide.get(Register(1))),
            (Some(0x0001_0203_0405_0607), Some(0x0809_0a0b_0c0d_0e0f))
        );
    }

    #[test]
    fn fewer_bytes_are_refused() {
        for len in 0..30 {
            let read = LAYOUT.read::<Registers>(ByteOrder::Big, &[0; 30][..len], 10);
            assert_eq!(read, Err(LayoutError::TooShort { needed: 30, len }));
        }
        assert!(LAYOUT.read::<Registers>(ByteOrder::Big, &[0; 30], 10).is_ok());
        assert!(LAYOUT.read::<Registers>(ByteOrder::Big, &[0; 30], usize::MAX).is_err());
        // A layout that is wrong about itself.
        for offset in [17, 20, -1, i32::MIN, i32::MAX] {
            let wrong = RegisterLayout { ip: Some(offset), ..LAYOUT };
            let read = wrong.read::<Registers>(ByteOrder::Big, &[0; 20], 0);
            assert_eq!(read, Err(LayoutError::TooShort { needed: 20, len: 20 }));
        }
    }

    /// A sample with `mask`: the word for bit n is n + 100.
    fn sample(abi: u64, mask: u64) -> Vec<u8> {
        let values = (0..64).filter(|bit| mask >> bit & 1 == 1).map(|bit| bit + 100);
        [abi].into_iter().chain(values).flat_map(u64::to_be_bytes).collect()
    }

    #[test]
    fn perf_samples_hold_the_registers_of_their_mask() {
        assert_eq!(PERF.mask(), 1 << 63 | 1 << 3 | 1);
        assert_eq!((PERF.register(0), PERF.register(3), PERF.register(4)), (None, Some(Register(1)), None));
        for mask in (0..64).map(|bit| 1 << bit).chain([0, PERF.mask(), u64::MAX, 0x8000_0000_0000_0008]) {
            let read: Registers = PERF.read(ByteOrder::Big, mask, &sample(1, mask)).unwrap();
            let expected = |bit: u64| (mask >> bit & 1 == 1).then_some(bit + 100);
            assert_eq!(read.ip(), expected(0), "{mask:#x}");
            assert_eq!(read.get(Register(1)), expected(3), "{mask:#x}");
            assert_eq!(read.get(Register(2)), expected(63), "{mask:#x}");
            assert_eq!((read.get(Register(0)), read.get(Register(3))), (None, None));
        }
    }

    #[test]
    fn other_samples_are_refused() {
        let read = |bytes: &[u8]| PERF.read::<Registers>(ByteOrder::Big, 0b1001, bytes);
        assert_eq!(read(&sample(0, 0)), Ok(Registers::absent()));
        assert_eq!(read(&sample(2, 0b1001)), Err(LayoutError::Abi { abi: 2 }));
        for len in 0..24 {
            let needed = if len < 8 { 8 } else { 24 };
            assert_eq!(read(&sample(1, 0b1001)[..len]), Err(LayoutError::TooShort { needed, len }));
        }
    }
}
