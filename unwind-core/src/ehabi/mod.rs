//! Rules from ARM's exception handling tables, `.ARM.exidx` and `.ARM.extab`: 32-bit Arm, in both
//! byte orders, on any host.
//!
//! The format is that of "Exception Handling ABI for the Arm Architecture" (EHABI32): the index is
//! searched in place; entries in the index and in `.ARM.extab`; personality routines 0, 1 and 2, and
//! the generic model as GNU's and LLVM's assemblers fill it; every instruction of table 4. What
//! follows the instructions, about exceptions, is left alone. Nothing is cached and nothing
//! allocated; a lookup carries out at most 1023 instructions, and uses at most 700 bytes of stack.
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
use machine::{SP, Unwound, Values, popped, run};
use rule::Names;

use crate::memory::MemoryReader;
use crate::source::{Evaluated, Found, FrameSource, Query, Rule, Trust, UnwindUserType, UnwindUserTypes};
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

    /// [`lookup`](FrameSource::lookup). In a function of its own, for the sake of its callers' stack frames.
    #[inline(never)]
    fn found<A: Arch>(&self, arch: &A, query: &Query) -> Result<Option<Found>, LookupError> {
        let mut covering = Covering::NONE;
        if !self.covers(arch, query, &mut covering)? {
            return Ok(None);
        }
        let trust = if query.pc.is_exact() { Trust::CallSite } else { Trust::Exact };
        Ok(Some(Found::new(covering.rule(arch)?, trust).at_end(covering.is_at_end)))
    }

    /// Whether the pc of `query` is covered, and then by what. In a function of its own, so that nothing of the search
    /// is on the stack while the instructions are carried out.
    #[inline(never)]
    fn covers<A: Arch>(
        &self,
        arch: &A,
        query: &Query,
        covering: &mut Covering<'d>,
    ) -> Result<bool, LookupError> {
        if !self.sections.is_for(arch) {
            return Err(SourceError { broken: Broken::UnknownAbi, offset: 0 }.into());
        }
        let svma = arch.word_size().truncate(query.pc.lookup_address().wrapping_sub(query.bias));
        let Some(entry) = self.sections.find(svma)? else {
            return Ok(false);
        };
        let Unwinding::Instructions { instructions, .. } = self.sections.unwinding(&entry)? else {
            return Err(LookupError::CannotUnwind);
        };
        covering.instructions = instructions;
        covering.is_at_start = query.pc.is_exact() && svma == entry.start;
        covering.is_at_end = matches!(query.pc, Pc::Return(_)) && svma.wrapping_add(1) == entry.end;
        Ok(true)
    }
}

/// What covers a pc.
struct Covering<'d> {
    instructions: Instructions<'d>,
    /// Nothing of the function has run, unless this is a signal frame.
    is_at_start: bool,
    is_at_end: bool,
}

impl Covering<'_> {
    const NONE: Self = Covering { instructions: Instructions::NONE, is_at_start: false, is_at_end: false };

    /// What holds at the pc, as a rule.
    #[inline(never)]
    fn rule<A: Arch>(&mut self, arch: &A) -> Result<Rule, LookupError> {
        let mut unwound = entered();
        run(&mut Names, &mut self.instructions, &mut unwound)?;
        if self.is_at_start && !unwound.is_signal() {
            unwound = entered();
        }
        Ok(rule::rule(arch, &unwound))
    }

    /// Leaves the instructions that are to be carried out at the pc, when all of the entry's have turned out to make
    /// sense: what is wrong with the table is said before what is wrong with the stack.
    #[inline(never)]
    fn check(&mut self) -> Result<(), LookupError> {
        let is_signal = popped(&self.instructions)? == u16::MAX;
        if self.is_at_start && !is_signal {
            self.instructions = Instructions::NONE;
        }
        Ok(())
    }
}

/// A frame before any instruction.
fn entered() -> Unwound<Names> {
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
        self.found(arch, query)
    }

    #[inline(never)]
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
        let mut covering = Covering::NONE;
        if !self.covers(arch, query, &mut covering)? {
            return Ok(None);
        }
        covering.check()?;
        let mut frame = Full { arch, registers, memory };
        let mut unwound = frame.entered();
        run(&mut frame, &mut covering.instructions, &mut unwound)?;
        frame.caller(&unwound, caller)
    }
}
