//! Rules from ARM's exception handling tables, `.ARM.exidx` and `.ARM.extab`: 32-bit Arm, in both
//! byte orders, on any host.
//!
//! The format is that of "Exception Handling ABI for the Arm Architecture" (EHABI32): the index is
//! searched in place; entries in the index and in `.ARM.extab`; personality routines 0, 1 and 2, and
//! the generic model as GNU's and LLVM's assemblers fill it; every instruction of table 4. What
//! follows the instructions, about exceptions, is left alone. Nothing is cached and nothing
//! allocated; a lookup carries out at most 1023 instructions, and uses less than 3 KiB of stack.
//! Evaluating a frame reads at most one word for each core register that is wanted, and one for each
//! time that the stack pointer is taken out of a register that was popped.
//!
//! # How far it can be trusted
//!
//! An entry describes a function at its calls. At a return pc it is exact. At an exact pc the frame
//! may not be set up yet or may be taken down already, and the table does not say where that is:
//! rules found there are of [`Trust::CallSite`]. Only at the very address at which an entry begins
//! is something known: nothing has run, so the return address is in its register.
//!
//! # What cannot be unwound
//!
//! `EXIDX_CANTUNWIND`, and the instruction that refuses, are [`LookupError::CannotUnwind`], and a
//! walk that meets them ends for that reason. They stand where threads begin (`_start`, the code
//! that `clone` returns to), so that is how most walks by these tables alone end; but also where a
//! function was built without tables (GCC writes them for C only with `-funwind-tables` or
//! `-fexceptions`), or the linker filled a gap. So the end is neither taken for complete nor for a
//! broken table. An embedder who knows where threads begin says so in
//! [`Options::entry_function`](crate::Options::entry_function); one who allows guesses gets the next
//! kind of source asked. (Others: libgcc calls it the end of the stack, the kernel a failure;
//! libunwind, which perf uses, and LLVM's libunwind stop; gdb reads the function's first instructions
//! instead, and goes on.)
//!
//! # Which registers
//!
//! GCC's frame pointer in Thumb code is r7, and such frames rest on it wherever they allocate room at
//! run time. A walk of three registers knows one frame pointer, the architecture's; one that meets
//! such a frame and r7 is not it, ends for want of it.
//! [`frames_tracking::<16>`](crate::Unwinder::frames_tracking) has all of them.
//!
//! # Signal frames
//!
//! An entry that restores every core register, r0 to r3 included, is that of a signal trampoline, as
//! glibc describes `__default_sa_restorer`: the caller's pc is then exact.

mod full;
mod index;
mod instruction;
mod machine;
#[cfg(feature = "table")]
mod ordered;
mod rule;
mod section;

pub use index::{EhabiEntry, Personality, Unwinding};
pub use instruction::{Instruction, Instructions};
pub use section::{EhabiSections, Section};

use full::Full;
use machine::{SP, Unwound, Values, run};
use rule::{Name, Names};

use crate::memory::MemoryReader;
use crate::source::{Evaluated, Found, FrameSource, Query, Trust, UnwindUserType, UnwindUserTypes};
use crate::source_error::LookupError;
use crate::{Arch, Broken, CallerRegisters, Pc, RegisterFile, SourceError};

/// The exception handling tables of one module as a [`FrameSource`]. Addresses are those its file
/// states; [`Query::bias`] relocates them.
#[derive(Clone, Copy, Debug)]
pub struct EhabiSource<'d> {
    sections: EhabiSections<'d>,
}

impl<'d> EhabiSource<'d> {
    /// A source over these tables. Nothing is read yet; [`EhabiSections::verify`] reads everything.
    pub fn new(sections: EhabiSections<'d>) -> Self {
        EhabiSource { sections }
    }

    /// The tables.
    pub fn sections(&self) -> &EhabiSections<'d> {
        &self.sections
    }

    /// What unwinds the frame at the pc of `query`, for those who carry it out by values. Where the registers lie
    /// by name is not needed then, and takes much of the stack.
    #[inline(never)]
    fn covering<A: Arch>(&self, arch: &A, query: &Query) -> Result<Option<Covering<'d>>, LookupError> {
        self.find(arch, query, &mut entered())
    }

    /// What unwinds the frame at the pc of `query`; what that comes to is left in `unwound`.
    #[inline]
    fn find<A: Arch>(
        &self,
        arch: &A,
        query: &Query,
        unwound: &mut Unwound<Name>,
    ) -> Result<Option<Covering<'d>>, LookupError> {
        if !self.sections.is_for(arch) {
            return Err(SourceError { broken: Broken::UnknownAbi, offset: 0 }.into());
        }
        let svma = arch.word_size().truncate(query.pc.lookup_address().wrapping_sub(query.bias));
        let Some(entry) = self.sections.find(svma)? else {
            return Ok(None);
        };
        let Unwinding::Instructions { mut instructions, .. } = self.sections.unwinding(&entry)? else {
            return Err(LookupError::CannotUnwind);
        };
        run(&mut Names, instructions.clone(), unwound)?;
        // A function that has just been entered.
        if query.pc.is_exact() && svma == entry.start && !unwound.is_signal() {
            instructions = Instructions::none();
            *unwound = entered();
        }
        let is_at_end = matches!(query.pc, Pc::Return(_)) && svma.wrapping_add(1) == entry.end;
        Ok(Some(Covering { instructions, is_at_end }))
    }
}

/// What covers a pc.
struct Covering<'d> {
    instructions: Instructions<'d>,
    is_at_end: bool,
}

/// A frame before any instruction.
fn entered() -> Unwound<Name> {
    Unwound::new(Names.register(SP))
}

impl<A: Arch> FrameSource<A> for EhabiSource<'_> {
    fn types(&self) -> UnwindUserTypes {
        UnwindUserTypes::only(UnwindUserType::Ehabi)
    }

    fn lookup(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        _: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError> {
        if kind != UnwindUserType::Ehabi {
            return Ok(None);
        }
        let mut unwound = entered();
        let Some(covering) = self.find(arch, query, &mut unwound)? else {
            return Ok(None);
        };
        let trust = if query.pc.is_exact() { Trust::CallSite } else { Trust::Exact };
        Ok(Some(Found::new(rule::rule(arch, &unwound), trust).at_end(covering.is_at_end)))
    }

    fn evaluate(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        registers: &dyn RegisterFile,
        memory: &mut dyn MemoryReader,
        caller: &mut dyn CallerRegisters,
    ) -> Result<Option<Evaluated>, LookupError> {
        if kind != UnwindUserType::Ehabi {
            return Ok(None);
        }
        match self.covering(arch, query) {
            Ok(Some(covering)) => {
                Full { arch, registers, memory }.evaluate(covering.instructions, caller).map(Some)
            }
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
