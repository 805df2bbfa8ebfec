//! What the capturer needs to know of an architecture.

use super::{aarch64, arm, loongarch64, mips64el, powerpc64le, riscv64, s390x, x86, x86_64};

/// All that can be captured.
pub const TARGETS: &[&Target] = &[
    &aarch64::TARGET,
    &arm::TARGET,
    &loongarch64::TARGET,
    &mips64el::TARGET,
    &powerpc64le::TARGET,
    &riscv64::TARGET,
    &s390x::TARGET,
    &x86::TARGET,
    &x86_64::TARGET,
];

/// An architecture under qemu-user.
pub struct Target {
    /// Its name, as `Arch::name` has it.
    pub name: &'static str,
    /// The emulator, a program in the search path.
    pub emulator: &'static str,
    /// Where the emulator looks for the dynamic linker and shared libraries, where Debian's cross packages put them.
    pub sysroot: &'static str,
    /// Where the emulator is told to put the program's address 0 (`-B`): 0 where the program has 64 bits.
    pub guest_base: u64,
    /// The registers that are kept.
    pub slots: &'static [Slot],
    /// The slot of pc.
    pub pc: usize,
    /// The slot of sp.
    pub sp: usize,
    /// Whether the bytes of a word in memory and in `g` replies come most significant first.
    pub big_endian: bool,
    /// The size of a word.
    pub word: usize,
    /// The DWARF numbers of the registers that a call preserves, but sp.
    pub preserved: &'static [u16],
    /// How many bytes of the stack a call takes for the return address.
    pub call_slot: u64,
    /// How many bytes below sp are in use.
    pub red_zone: u64,
    /// The longest instruction, in bytes.
    pub instruction: usize,
    /// The `kind` of `Z0` packets.
    pub breakpoint: u8,
    /// What the instruction in these bytes does, at this pc, with these registers (by slot).
    pub decode: fn(code: &[u8], pc: u64, registers: &[u64]) -> Flow,
    /// Whether branches are delayed: the instruction behind them is executed, as a step of its own, before they take effect.
    pub delays: bool,
    /// Only where stopping between a load-exclusive instruction and its store-exclusive makes the store fail, for ever:
    /// where control leaves the sequence, given the code from its begin (`EXCLUSIVE` instructions) and its pc.
    pub exits: Option<Exits>,
    /// Where a function that has just been entered returns to, if the return address is in a
    /// register: its slot. `None` where it is the word at sp.
    pub link: Option<usize>,
    /// The bits of a code pointer that are its address.
    pub code_mask: u64,
    /// Where signal frames hold the interrupted pc: offsets from sp at the handler's first instruction, one for
    /// each layout that the kernel has.
    pub signal_pc: &'static [u64],
}

/// Given code and its pc, the addresses at which control leaves it.
pub type Exits = fn(code: &[u8], pc: u64) -> Vec<u64>;

/// A register that is kept.
pub struct Slot {
    /// Its DWARF number, or `captured::NO_NUMBER`.
    pub number: u16,
    /// How it is asked for.
    pub asked: Asked,
}

/// How the stub is asked for a register.
#[derive(Clone, Copy)]
pub enum Asked {
    /// All at once: it is so many bytes (at most 8) of the `g` reply, from `offset` on.
    Together {
        /// Where it begins in the reply.
        offset: usize,
        /// Its size in bytes.
        size: usize,
    },
    /// Alone, by gdb's number: the first 8 bytes of the `p` reply. Asked only for samples and where signals interrupt.
    Alone(u32),
}

impl Slot {
    /// A register of 8 bytes in the `g` reply.
    pub const fn together(number: u16, offset: usize) -> Self {
        Slot { number, asked: Asked::Together { offset, size: 8 } }
    }
}

/// What an instruction does, as far as the call stack is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Anything else; direct jumps as well.
    Plain,
    /// Calls, unless control goes on there: on a condition, or only to fetch the pc. The return address.
    Call(u64),
    /// Returns, or jumps to the address in the link register.
    Return,
    /// Does so on a condition. The address of the next instruction.
    ReturnIf(u64),
    /// Jumps to a computed address.
    Jump,
    /// Calls the kernel. The address of the next instruction.
    SystemCall(u64),
    /// Traps: the stub reports the signal as it reports the end of a step.
    Trap,
    /// Loads a word that a later store-exclusive instruction stores to.
    LoadExclusive,
}

/// The longest sequence from a load-exclusive to its store-exclusive, in instructions.
pub const EXCLUSIVE: usize = 16;

impl Target {
    /// The target of this name.
    pub fn by_name(name: &str) -> Option<&'static Target> {
        TARGETS.iter().copied().find(|target| target.name == name)
    }

    /// The word in these bytes of memory.
    pub fn word_of(&self, bytes: &[u8]) -> u64 {
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        if self.big_endian { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) }
    }
}
