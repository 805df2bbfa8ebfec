//! What an architecture knows without any table: rules that are constants, chosen by where the
//! walk stands and by the code bytes there.

use crate::memory::{MemoryError, MemoryReader};
use crate::source::{CodeAt, Evaluated, Found, Query, Rule, Trust, UnwindUserType};
use crate::source_error::LookupError;
use crate::{
    Arch, CallerRegisters, Code, FrameKind, FrameSource, Pc, RaRule, Register, RegisterFile, SignalFrame,
    UnwindUserFrame, WordSize,
};

/// Below this address no system maps code; a pc there comes from a null pointer, with or without
/// an offset.
const NULL_PAGE: u64 = 0x1000;

/// The rule of this kind, if the conventions of `arch` have one for `query.pc`.
///
/// `code_at` is what the tables' owner knows about the pc. Code that cannot be read is no error
/// here: then nothing is known about it.
#[inline(never)]
pub(crate) fn lookup<A: Arch, S: FrameSource<A> + ?Sized>(
    arch: &A,
    source: &S,
    kind: UnwindUserType,
    pc: Pc,
    memory: &mut dyn MemoryReader,
) -> Result<Option<Found>, LookupError> {
    let found = |rule, trust| Some(Found::new(Rule::Frame(rule), trust));
    Ok(match kind {
        UnwindUserType::SignalTrampoline => {
            trampoline(arch, pc, memory)?.and_then(|signal| found(signal.frame, Trust::Exact))
        }
        UnwindUserType::NullCall if pc.is_exact() => {
            let pc = pc.address();
            let no_code = match source.code_at(pc) {
                CodeAt::NotCode => true,
                CodeAt::Unknown => pc < NULL_PAGE,
                CodeAt::Code => false,
            };
            if no_code { found(arch.entry_rule(), Trust::Convention) } else { None }
        }
        UnwindUserType::Instruction if pc.is_exact() => {
            instruction(arch, pc, memory)?.and_then(|rule| found(rule, Trust::Convention))
        }
        UnwindUserType::BackChain => arch.back_chain_rule().and_then(|rule| found(rule, Trust::Convention)),
        UnwindUserType::FramePointer => {
            arch.frame_pointer_rule().and_then(|rule| found(rule, Trust::Convention))
        }
        _ => None,
    })
}

/// The registers that a signal frame holds, for states that track them.
pub(crate) fn evaluate_trampoline<A: Arch>(
    arch: &A,
    query: &Query,
    registers: &dyn RegisterFile,
    memory: &mut dyn MemoryReader,
    caller: &mut dyn CallerRegisters,
) -> Result<Option<Evaluated>, LookupError> {
    let Some(signal) = trampoline(arch, query.pc, memory)? else {
        return Ok(None);
    };
    let sp = registers.get(arch.sp()).ok_or(LookupError::UnknownRegister(arch.sp()))?;
    let mut word = |offset: i32| {
        let address = arch.word_size().offset(sp, i64::from(offset)).ok_or(LookupError::AddressOverflow)?;
        Ok::<u64, LookupError>(memory.read_word(address, arch.register_size(), arch.byte_order())?)
    };
    let mut held = |wanted: Register| {
        signal
            .registers
            .iter()
            .find(|(register, _)| *register == wanted)
            .map(|(_, offset)| word(*offset))
            .transpose()
    };
    let cfa = held(arch.sp())?.ok_or(LookupError::UnknownRegister(arch.sp()))?;
    let fp = held(arch.fp())?;
    for (register, _) in signal.registers {
        if caller.wants(*register)
            && let Some(value) = held(*register)?
        {
            caller.set(*register, value);
        }
    }
    let RaRule::AtRegister { offset, .. } = signal.frame.ra() else {
        return Ok(None);
    };
    let ra = Some(word(offset)?);
    Ok(Some(Evaluated { cfa, ra, sp: Some(cfa), fp, kind: FrameKind::Signal }))
}

/// The trampoline at `pc`, if the code there is one's. As everything that looks at code, in a function of its own,
/// whose stack frame is not there any more when what it found is carried out.
#[inline(never)]
fn trampoline<A: Arch>(
    arch: &A,
    pc: Pc,
    memory: &mut dyn MemoryReader,
) -> Result<Option<SignalFrame>, LookupError> {
    // A handler returns to the first instruction of its trampoline: that is the address to look
    // at, not the byte before it.
    let mut window = Window::default();
    Ok(window.read(pc.address(), arch.word_size(), memory)?.and_then(|code| arch.signal_trampoline(&code)))
}

/// What the instruction at `pc` says.
#[inline(never)]
fn instruction<A: Arch>(
    arch: &A,
    pc: Pc,
    memory: &mut dyn MemoryReader,
) -> Result<Option<UnwindUserFrame>, LookupError> {
    let mut window = Window::default();
    Ok(window.read(pc.address(), arch.word_size(), memory)?.and_then(|code| arch.instruction_rule(&code)))
}

/// Room for the code bytes around a pc.
#[derive(Default)]
struct Window {
    before: [u8; Code::WINDOW],
    at: [u8; Code::WINDOW],
}

impl Window {
    /// Reads what can be read around `pc`: at most five reads on each side. `None` where there is
    /// not one byte at the pc.
    #[inline]
    fn read(
        &mut self,
        pc: u64,
        word: WordSize,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<Code<'_>>, LookupError> {
        let at_len = read_from(pc, word, &mut self.at, memory)?;
        if at_len == 0 {
            return Ok(None);
        }
        let free = read_below(pc, &mut self.before, memory)?;
        let before = self.before.get(free..).unwrap_or_default();
        let at = self.at.get(..at_len).unwrap_or_default();
        Ok(Some(Code { before, at }))
    }
}

/// Reads what can be read from `pc` on: how many bytes.
#[inline(never)]
fn read_from(
    pc: u64,
    word: WordSize,
    into: &mut [u8; Code::WINDOW],
    memory: &mut dyn MemoryReader,
) -> Result<usize, MemoryError> {
    // Halves that can be read are added up, so that every number of bytes is reached.
    let mut length = 0usize;
    for half in HALVES {
        let end = length.saturating_add(half);
        let last = i64::try_from(end).unwrap_or(0).saturating_sub(1);
        if let Some(bytes) = into.get_mut(length..end)
            && word.offset(pc, last).is_some()
            && let Some(start) = pc.checked_add(u64::try_from(length).unwrap_or(0))
            && readable(memory.read(start, bytes))?
        {
            length = end;
        }
    }
    Ok(length)
}

/// Reads what can be read below `pc`: how many bytes at the beginning of `into` are none of that.
#[inline(never)]
fn read_below(
    pc: u64,
    into: &mut [u8; Code::WINDOW],
    memory: &mut dyn MemoryReader,
) -> Result<usize, MemoryError> {
    let mut free = Code::WINDOW;
    for half in HALVES {
        if let Some(below) = free.checked_sub(half)
            && let Some(distance) = Code::WINDOW.checked_sub(below)
            && let Some(bytes) = into.get_mut(below..free)
            && let Some(start) = pc.checked_sub(u64::try_from(distance).unwrap_or(0))
            && readable(memory.read(start, bytes))?
        {
            free = below;
        }
    }
    Ok(free)
}

/// How many bytes are read at once.
const HALVES: [usize; 5] = [Code::WINDOW, 8, 4, 2, 1];

/// An unreadable address is an answer here; a broken transport is not.
#[inline]
fn readable(result: Result<(), MemoryError>) -> Result<bool, MemoryError> {
    match result {
        Ok(()) => Ok(true),
        Err(MemoryError::Unreadable { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
