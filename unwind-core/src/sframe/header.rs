//! The header of a section, and the ABI it names.

use scroll::{Endian, Pread};

use crate::{Arch, Broken, ByteOrder, Register, SourceError, WordSize};

/// The size of the header without the auxiliary header that may follow it.
pub(super) const HEADER_SIZE: u64 = 28;

/// The format's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Version {
    /// binutils 2.40.
    V1,
    /// binutils 2.41 to 2.45, with and without errata; LLVM 22.
    V2,
    /// binutils 2.46 and later.
    V3,
}

impl Version {
    /// Its number.
    pub const fn number(self) -> u8 {
        match self {
            Version::V1 => 1,
            Version::V2 => 2,
            Version::V3 => 3,
        }
    }

    /// The size in bytes of an entry in the table of functions.
    pub const fn fde_size(self) -> u8 {
        match self {
            Version::V1 => 17,
            Version::V2 => 20,
            Version::V3 => 16,
        }
    }
}

/// The ABI and byte order that a section is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Abi {
    /// AArch64, big endian.
    Aarch64Big,
    /// AArch64, little endian.
    Aarch64Little,
    /// AMD64.
    Amd64,
    /// s390x. The CFA is 160 bytes above sp at the call.
    S390x,
}

impl Abi {
    /// The number that stands for it in a header.
    pub const fn number(self) -> u8 {
        match self {
            Abi::Aarch64Big => 1,
            Abi::Aarch64Little => 2,
            Abi::Amd64 => 3,
            Abi::S390x => 4,
        }
    }

    /// The ABI with this number.
    pub const fn from_number(number: u8) -> Option<Abi> {
        Some(match number {
            1 => Abi::Aarch64Big,
            2 => Abi::Aarch64Little,
            3 => Abi::Amd64,
            4 => Abi::S390x,
            _ => return None,
        })
    }

    /// The ABI of sections that describe code of `arch`, if there is one.
    pub fn of<A: Arch>(arch: &A) -> Option<Abi> {
        [Abi::Amd64, Abi::Aarch64Little, Abi::Aarch64Big, Abi::S390x].into_iter().find(|abi| abi.is_for(arch))
    }

    /// Its byte order.
    pub const fn byte_order(self) -> ByteOrder {
        match self {
            Abi::Aarch64Little | Abi::Amd64 => ByteOrder::Little,
            Abi::Aarch64Big | Abi::S390x => ByteOrder::Big,
        }
    }

    /// The stack pointer.
    pub const fn sp(self) -> Register {
        match self {
            Abi::Aarch64Big | Abi::Aarch64Little => Register(31),
            Abi::Amd64 => Register(7),
            Abi::S390x => Register(15),
        }
    }

    /// The frame pointer.
    pub const fn fp(self) -> Register {
        match self {
            Abi::Aarch64Big | Abi::Aarch64Little => Register(29),
            Abi::Amd64 => Register(6),
            Abi::S390x => Register(11),
        }
    }

    /// The return address: a register, or AMD64's column 16.
    pub const fn ra(self) -> Register {
        match self {
            Abi::Aarch64Big | Abi::Aarch64Little => Register(30),
            Abi::Amd64 => Register(16),
            Abi::S390x => Register(14),
        }
    }

    /// Whether a section for this ABI describes code of `arch`.
    pub fn is_for<A: Arch>(self, arch: &A) -> bool {
        arch.word_size() == WordSize::Eight
            && arch.byte_order() == self.byte_order()
            && (arch.sp(), arch.fp(), arch.ra()) == (self.sp(), self.fp(), self.ra())
    }
}

/// The functions are sorted by address.
pub const FLAG_SORTED: u8 = 1;
/// Every function keeps a frame pointer. A hint, which no known producer gives.
pub const FLAG_FRAME_POINTER: u8 = 2;
/// A function's start is relative to the field that states it, not to the section.
pub const FLAG_PCREL: u8 = 4;

/// What the header of a section says. Sizes are in bytes; offsets are relative to the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// The version.
    pub version: Version,
    /// The flags, unknown ones included.
    pub flags: u8,
    /// The ABI.
    pub abi: Abi,
    /// Where the caller's frame pointer is saved, from the CFA, in every function; 0: rows tell.
    pub fixed_fp_offset: i8,
    /// Where the return address is saved, from the CFA, in every function; 0: rows tell.
    pub fixed_ra_offset: i8,
    /// The size of the auxiliary header.
    pub auxiliary_size: u8,
    /// How many functions there are.
    pub fde_count: u32,
    /// How many rows there are in total. Nothing relies on it.
    pub fre_count: u32,
    /// The size of the rows.
    pub fre_size: u32,
    /// Where the table of functions begins.
    pub fde_offset: u64,
    /// Where the rows begin.
    pub fre_offset: u64,
    /// How long the section is: up to the end of its table or its rows, whichever is later.
    pub size: u64,
}

impl Header {
    /// Reads and checks the header at the beginning of `data`.
    ///
    /// # Errors
    /// Too short, not the magic number, a version or ABI that is not known, a byte order that is
    /// not the ABI's, or tables that overlap or do not fit into `data`.
    #[inline]
    pub fn parse(data: &[u8]) -> Result<Header, SourceError> {
        let error = |broken, offset| SourceError { broken, offset };
        // The magic number 0xdee2, in the section's own byte order.
        let order = match data.first_chunk() {
            Some([0xe2, 0xde]) => ByteOrder::Little,
            Some([0xde, 0xe2]) => ByteOrder::Big,
            Some(_) => return Err(error(Broken::BadMagic, 0)),
            None => return Err(error(Broken::UnexpectedEnd, 0)),
        };
        let too_short = error(Broken::UnexpectedEnd, 0);
        let fields: &[u8; 28] = data.first_chunk().ok_or(too_short)?;
        let [_, _, version, flags, abi, fixed_fp_offset, fixed_ra_offset, auxiliary_size, ..] = *fields;
        let u32_at = |offset| fields.pread_with::<u32>(offset, endian(order)).map_err(|_| too_short);
        let version = match version {
            1 => Version::V1,
            2 => Version::V2,
            3 => Version::V3,
            _ => return Err(error(Broken::UnknownVersion, 2)),
        };
        let abi = Abi::from_number(abi).ok_or(error(Broken::UnknownAbi, 4))?;
        if abi.byte_order() != order {
            return Err(error(Broken::UnknownAbi, 4));
        }
        let (fde_count, fre_count, fre_size) = (u32_at(8)?, u32_at(12)?, u32_at(16)?);
        let tables = HEADER_SIZE.saturating_add(u64::from(auxiliary_size));
        let fde_offset = tables.saturating_add(u64::from(u32_at(20)?));
        let fre_offset = tables.saturating_add(u64::from(u32_at(24)?));
        let fde_end =
            fde_offset.saturating_add(u64::from(fde_count).saturating_mul(u64::from(version.fde_size())));
        let fre_end = fre_offset.saturating_add(u64::from(fre_size));
        let size = fde_end.max(fre_end);
        if u64::try_from(data.len()).is_ok_and(|length| length < size) {
            return Err(error(Broken::OutOfBounds, if fde_end > fre_end { 20 } else { 24 }));
        }
        let both = fde_count > 0 && fre_size > 0;
        if both && fde_offset < fre_end && fre_offset < fde_end {
            return Err(error(Broken::OutOfBounds, 20));
        }
        Ok(Header {
            version,
            flags,
            abi,
            fixed_fp_offset: fixed_fp_offset.cast_signed(),
            fixed_ra_offset: fixed_ra_offset.cast_signed(),
            auxiliary_size,
            fde_count,
            fre_count,
            fre_size,
            fde_offset,
            fre_offset,
            size,
        })
    }

    /// Whether it says that the functions are sorted by address.
    pub const fn is_sorted(&self) -> bool {
        self.flags & FLAG_SORTED != 0
    }

    /// Whether a function's start is relative to the field that states it.
    pub const fn is_pcrel(&self) -> bool {
        self.flags & FLAG_PCREL != 0
    }
}

pub(super) fn endian(order: ByteOrder) -> Endian {
    match order {
        ByteOrder::Little => scroll::LE,
        ByteOrder::Big => scroll::BE,
    }
}
