//! Where call frame information itself is wrong, with the proof.

use crate::oracle::judge::Fault;

/// Where a walk went astray: the frame whose rule did it.
#[derive(Clone, Debug, Default)]
pub struct Spot {
    /// Its pc (avma).
    pub pc: u64,
    /// Whether execution stopped there.
    pub exact: bool,
    /// The module's file name.
    pub module: String,
    /// Whether it was made for this test.
    pub ours: bool,
    /// Whether control left the functions from there on by a transfer, not by returns.
    pub left: bool,
    /// Whether the walk ended there, and claims that it is complete.
    pub complete: bool,
    /// Whether this frame is the outermost one in truth.
    pub outermost: bool,
    /// The table's row, as [`cfi::row`](crate::oracle::cfi::row) writes it.
    pub row: String,
    /// The symbol, if there is one.
    pub function: String,
}

/// A place where walks are wrong, for a known reason.
pub struct Listed {
    /// What, in a few words.
    pub name: &'static str,
    /// Which instruction, what the table says, what is true.
    pub proof: &'static str,
    /// Whether this is the place. Asked only where gimli reads the table as the walk did, or no table
    /// covers the place.
    pub applies: fn(&Spot, &Fault) -> bool,
}

/// All of them.
pub const LISTED: &[Listed] = &[
    Listed {
        name: "gcc: %rbp in the epilogue of a realigned frame",
        proof: "`leave; lea -8(%r10),%rsp; ret`: from `leave` on %rbp already is the caller's, while the rule \
                for it still is the expression `DW_OP_breg6 (rbp): 0`, that is: the word that %rbp points to. \
                CFA and return address are right. Seen with gcc 12.2 on functions with 32- or 64-byte alignment \
                and stack arguments or alloca, at every level of optimisation.",
        applies: |spot, _| spot.exact && spot.row.contains("r6=*[76, 00]") && !spot.row.starts_with("c=["),
    },
    Listed {
        name: "libgcc: a context being installed",
        proof: "`_Unwind_RaiseException` and its kin end in `__builtin_eh_return`: they copy the registers of \
                the frame to be entered, and its pc, over their own saved registers and return address, \
                one by one, and add the difference of the two frames to %rsp in the last instructions. From \
                the first copy to the jump the saved words are no longer those of the caller, and the CFA is \
                not yet that of the frame to be entered; the table has no notion of that.",
        applies: |spot, _| spot.left && spot.function.starts_with("_Unwind_"),
    },
    Listed {
        name: "glibc: setcontext to a stack further down",
        proof: "from the instruction that loads the new %rsp on, the row is `c=r1+0 r7=*c+160 ... r16=*c+168`: \
                it describes the context to be entered, which no call leads to. Where its stack is below \
                the present one, the caller's stack pointer is not above this frame's, and the walk refuses the \
                step, as it has to.",
        applies: |spot, fault| {
            *fault == Fault::End && spot.row.starts_with("c=r1+0") && spot.row.ends_with("r16=*c+168")
        },
    },
    Listed {
        name: "glibc: swapcontext while it switches",
        proof: "its FDE is empty, so that `CFA = %rsp + 8` and %r12 unchanged hold throughout. But `mov \
                %rsi,%r12` keeps an argument in %r12 until the new context's is loaded; and between `mov \
                0xa0(%rdx),%rsp` and the `push` of the new context's pc, no return address is at %rsp.",
        applies: |spot, _| spot.exact && spot.function == "swapcontext" && spot.row == "c=r7+8 r16=*c-8",
    },
    Listed {
        name: "glibc: __start_context",
        proof: "what a context's function returns to (libc.so has no symbol for it). Its FDE is empty: `CFA = %rsp + 8`, \
                return address below. But nobody called it: %rsp points to the link that makecontext left \
                there, and what is above are remains.",
        applies: |spot, _| {
            spot.outermost
                && (spot.module.starts_with("libc.so") || spot.function == "__start_context")
                && spot.row == "c=r7+8 r16=*c-8"
        },
    },
];
