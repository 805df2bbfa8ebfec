//! What a walk needs to know of an architecture.

use crate::{ByteOrder, Register, UnwindUserFrame, WordSize};

/// An architecture and ABI: a small `Copy` value, so that it can carry a byte order, a word size
/// or a pointer mask.
///
/// # Porting checklist
/// A new architecture is one crate that implements this trait; core needs no edit. Take every
/// answer from the ABI's own document and name the section beside it.
///
/// 1. **Words**: [`word_size`](Arch::word_size), [`byte_order`](Arch::byte_order); ILP32 variants
///    are values of the same type, with a [`register_size`](Arch::register_size) of their own where
///    registers are wider than addresses.
/// 2. **DWARF numbers** of [`sp`](Arch::sp), [`fp`](Arch::fp), [`ra`](Arch::ra) and
///    [`ip`](Arch::ip). `ra` is the register that holds the return address at function entry; on
///    a machine that pushes it, the column that call frame information uses for it, which then
///    also is `ip`.
/// 3. **[`is_callee_saved`](Arch::is_callee_saved)**: the registers that a function must hand back.
///    Call frame information leaves them out where they are unchanged; all others are lost.
/// 4. **[`sp_bias`](Arch::sp_bias)**: only where the ABI defines the CFA as something else than sp
///    before the call (s390x: 160 bytes above it).
/// 5. **Conventions**, each a constant rule: [`entry_rule`](Arch::entry_rule),
///    [`frame_pointer_rule`](Arch::frame_pointer_rule), [`back_chain_rule`](Arch::back_chain_rule).
///    Use [`UnwindUserFrame::with_sp_bound`] where the chain does not tell the caller's sp.
/// 6. **[`instruction_rule`](Arch::instruction_rule)**: the instructions that say by themselves
///    where the return address is. Only ones that leave no doubt: compare with the rows of a C
///    library's call frame information at every one of them.
/// 7. **[`signal_trampoline`](Arch::signal_trampoline)**: the code bytes that the kernel and the C
///    libraries use, and where the signal frame holds each register, from the kernel's uapi headers.
///    The rule's CFA is the interrupted sp minus [`sp_bias`](Arch::sp_bias). qemu's user mode may have a
///    trampoline and a frame of its own; run a handler under it.
/// 8. **[`strip_code_pointer`](Arch::strip_code_pointer)**: pointer authentication, Thumb, mode bits.
/// 9. **[`cfi_vendor`](Arch::cfi_vendor)**: vendor call frame instructions.
/// 10. **Registers**: [`register_set!`](crate::register_set) in the crate's `registers.rs`, beside the
///     DWARF numbers by name; the layouts of ptrace, core notes, `ucontext` and perf, as tables, in
///     its `layout.rs` (`RegisterLayout` and `PerfLayout`, feature `layout`).
///     Room is needed for every register that call frame information may put another one in: s390x
///     keeps callee-saved registers in f0 to f15.
/// 11. **Choice at run time**: `from_elf`, by the `e_machine`, `EI_CLASS` and `EI_DATA` of an ELF
///     header, and `from_elf_flags` where only `e_flags` tell ABIs apart; a feature, a dependency and
///     a line in the facade crate `unwind-arch`, rows in its `tests/any.rs`.
/// 12. **Tests for all**: the code of a trampoline, of a return and of nothing, in
///     `tests/src/synthetic/real.rs`; property and hazard tests then run for it. Its C library in
///     `tests/tests/rows.rs` and in `unwind-arch/tests/instruction.rs`.
pub trait Arch: Copy {
    /// The architecture's usual name, in lower case.
    fn name(&self) -> &'static str;

    /// The size of an address and of a saved register.
    fn word_size(&self) -> WordSize;

    /// The size of a register as it is saved on the stack: the word size, but where addresses are
    /// narrower than registers (MIPS n32, x32). What is read is cut to a word.
    #[inline]
    fn register_size(&self) -> WordSize {
        self.word_size()
    }

    /// The order of bytes in data. (Code may differ; see [`Code`].)
    fn byte_order(&self) -> ByteOrder;

    /// The stack pointer.
    fn sp(&self) -> Register;

    /// The frame pointer: the register that the ABI reserves or recommends for it.
    fn fp(&self) -> Register;

    /// The register that holds the return address at function entry, or the column that stands
    /// for it.
    fn ra(&self) -> Register;

    /// The program counter, where the ABI gives it a DWARF number.
    fn ip(&self) -> Option<Register>;

    /// Whether a function must hand `register` back unchanged. The stack pointer counts as such.
    fn is_callee_saved(&self, register: Register) -> bool;

    /// The rule of a function that has just been entered and has changed nothing.
    fn entry_rule(&self) -> UnwindUserFrame;

    /// The rule of a function that has set up the frame pointer as the ABI says.
    fn frame_pointer_rule(&self) -> Option<UnwindUserFrame>;

    /// The rule of the ABI's back chain.
    fn back_chain_rule(&self) -> Option<UnwindUserFrame> {
        None
    }

    /// The rule that the instruction at an exact pc implies by itself.
    fn instruction_rule(&self, code: &Code<'_>) -> Option<UnwindUserFrame> {
        let _ = code;
        None
    }

    /// The signal frame that the trampoline at `code` returns from.
    fn signal_trampoline(&self, code: &Code<'_>) -> Option<SignalFrame> {
        let _ = code;
        None
    }

    /// A code address as the hardware would jump to it: authentication codes, tags and mode bits
    /// removed. Applied to every return address and to the pc that a walk starts at.
    fn strip_code_pointer(&self, pointer: u64) -> u64 {
        pointer
    }

    /// The caller's sp minus the CFA, in bytes. 0 but where the ABI biases the CFA.
    fn sp_bias(&self) -> i32 {
        0
    }

    /// Whose vendor-specific call frame instructions are in use.
    fn cfi_vendor(&self) -> CfiVendor {
        CfiVendor::Default
    }
}

/// The vendor of the call frame instructions from `DW_CFA_lo_user` on: 0x2d means
/// `DW_CFA_GNU_window_save` on one machine and `DW_CFA_AARCH64_negate_ra_state` on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CfiVendor {
    /// GNU's.
    Default,
    /// Arm's: "DWARF for the Arm 64-bit Architecture", section 4.3.
    AArch64,
}

/// The code bytes around a pc, as far as they could be read: at most [`Code::WINDOW`] on each side.
#[derive(Clone, Copy, Debug)]
pub struct Code<'c> {
    /// The bytes that end right before the pc.
    pub before: &'c [u8],
    /// The bytes that begin at the pc.
    pub at: &'c [u8],
}

impl Code<'_> {
    /// The most bytes on either side.
    pub const WINDOW: usize = 16;
}

/// Where a signal frame keeps the interrupted registers.
#[derive(Clone, Copy, Debug)]
pub struct SignalFrame {
    /// The rule for ip, sp and fp; of kind [`FrameKind::Signal`](crate::FrameKind::Signal).
    pub frame: UnwindUserFrame,
    /// Each register that the frame holds, and its offset from sp at the trampoline.
    pub registers: &'static [(Register, i32)],
}
