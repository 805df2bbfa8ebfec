//! Words and program counters of the target, as values.

/// The size of a target word: of an address, a saved register, a stack slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum WordSize {
    /// 4 bytes: ILP32 targets; addresses live in `0..=0xffff_ffff`.
    Four,
    /// 8 bytes.
    Eight,
}

impl WordSize {
    /// The size in bytes: 4 or 8.
    #[inline]
    pub const fn bytes(self) -> u8 {
        match self {
            WordSize::Four => 4,
            WordSize::Eight => 8,
        }
    }

    /// The highest address of this address space.
    #[inline]
    pub const fn max_address(self) -> u64 {
        match self {
            WordSize::Four => 0xffff_ffff,
            WordSize::Eight => u64::MAX,
        }
    }

    /// `value` cut to a word. Registers of a 32-bit target may arrive sign-extended.
    #[inline]
    pub const fn truncate(self, value: u64) -> u64 {
        value & self.max_address()
    }

    /// `address + offset`, or `None` where that leaves the address space at either end.
    #[inline]
    pub const fn offset(self, address: u64, offset: i64) -> Option<u64> {
        match address.checked_add_signed(offset) {
            Some(sum) if sum <= self.max_address() => Some(sum),
            _ => None,
        }
    }

    /// `address + offset`, modulo the address space. For computations that wrap by definition:
    /// PC-relative table fields, DWARF expressions, load biases.
    #[inline]
    pub const fn wrapping_offset(self, address: u64, offset: u64) -> u64 {
        self.truncate(address.wrapping_add(offset))
    }

    /// Whether `address` is a multiple of the word size.
    #[inline]
    pub const fn is_aligned(self, address: u64) -> bool {
        match self {
            WordSize::Four => address & 3 == 0,
            WordSize::Eight => address & 7 == 0,
        }
    }

    /// The size of a word of `bytes` bytes, if targets have such words.
    pub const fn from_bytes(bytes: u8) -> Option<WordSize> {
        match bytes {
            4 => Some(WordSize::Four),
            8 => Some(WordSize::Eight),
            _ => None,
        }
    }
}

/// The order of the bytes of a word in the target's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum ByteOrder {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

/// A program counter (avma), and what it means.
///
/// A call may be the last instruction of its function: the address it returns to then belongs to
/// whatever follows. So a return address is looked up one byte earlier, inside the call, while a
/// pc where execution really stopped (the topmost frame, a frame that a signal interrupted) is
/// looked up as it is. Confusing the two picks the wrong function; hence a type and not a `bool`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum Pc {
    /// Execution stopped before the instruction at this address.
    Exact(u64),
    /// A call will return to this address.
    Return(u64),
}

impl Pc {
    /// The address itself, as a register or a stack slot held it.
    #[inline]
    pub const fn address(self) -> u64 {
        match self {
            Pc::Exact(address) | Pc::Return(address) => address,
        }
    }

    /// The address to look up in tables: inside the instruction that was being executed.
    ///
    /// A return pc of 0 has nothing before it and stays 0.
    #[inline]
    pub const fn lookup_address(self) -> u64 {
        match self {
            Pc::Exact(address) => address,
            Pc::Return(address) => address.saturating_sub(1),
        }
    }

    /// Whether execution stopped here: the topmost frame, or one that a signal interrupted.
    #[inline]
    pub const fn is_exact(self) -> bool {
        matches!(self, Pc::Exact(_))
    }
}
