//! The checks of a step: whether what a rule leads to can be a caller.
//!
//! [`apply`] carries a rule out, [`check`] takes what a source evaluated. Neither changes anything.

use crate::memory::{MemoryError, MemoryReader};
use crate::outcome::{Failure, Mark, StepError};
use crate::source::{CodeAt, Evaluated, FrameSource};
use crate::{
    Arch, Base, CfaRule, FpRule, FrameKind, Pc, RaRule, Register, RegisterFile, RegisterSet, UnwindUserFrame,
    UnwindUserState, WordSize,
};

/// The caller, as far as it is known before it is committed.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) pc: Pc,
    pub(crate) sp: u64,
    pub(crate) sp_is_bound: bool,
    pub(crate) fp: Option<u64>,
}

/// Carries a rule out. These are the checks of a step, in order.
#[inline(never)]
pub(crate) fn apply<A, S, M, R>(
    arch: &A,
    source: &S,
    frame: UnwindUserFrame,
    state: &UnwindUserState<R>,
    memory: &mut M,
) -> Result<Caller, Failure>
where
    A: Arch,
    S: FrameSource<A> + ?Sized,
    M: MemoryReader,
    R: RegisterSet,
{
    let word = arch.word_size();
    let order = arch.byte_order();
    let kind = frame.kind();
    if matches!(frame.ra(), RaRule::Undefined) {
        return Err(Failure::Complete(Mark::UndefinedReturnAddress));
    }
    let (CfaRule::Offset { base, offset } | CfaRule::Deref { base, offset, .. }) = frame.cfa();
    if matches!(base, Base::Fp)
        && matches!(kind, FrameKind::Call)
        && let Some(fp) = state.fp
        && fp < state.sp
    {
        return Err(StepError::FramePointerBelowStack { fp, sp: state.sp }.into());
    }
    let based = offset_from(word, base_value(arch, state, base)?, offset)?;
    let cfa = match frame.cfa() {
        CfaRule::Offset { .. } => based,
        CfaRule::Deref { add, .. } => {
            offset_from(word, memory.read_word(based, word, order)?, i32::from(add))?
        }
    };
    // The stack is checked before memory is read on its word.
    let sp = caller_sp(arch, cfa, None, kind, state)?;
    let saved = arch.register_size();
    let ra = match frame.ra() {
        RaRule::AtCfa(offset) => memory.read_word(offset_from(word, cfa, offset)?, saved, order)?,
        RaRule::InRegister { base, offset } => offset_from(word, base_value(arch, state, base)?, offset)?,
        RaRule::AtRegister { base, offset } => {
            memory.read_word(offset_from(word, base_value(arch, state, base)?, offset)?, saved, order)?
        }
        RaRule::Undefined => return Err(Failure::Complete(Mark::UndefinedReturnAddress)),
    };
    let pc = caller_pc(arch, source, ra, kind)?;
    let fp = match frame.fp() {
        FpRule::Unchanged => state.fp,
        FpRule::AtCfa(offset) => {
            let slot = offset_from(word, cfa, offset)?;
            match memory.read_word(slot, saved, order) {
                // An epilogue that has popped it, and a snapshot that begins at sp: it is not known.
                Err(MemoryError::Unreadable { .. }) if state.pc.is_exact() && slot < state.sp => None,
                word => Some(word?),
            }
        }
        FpRule::CfaOffset(offset) => Some(offset_from(word, cfa, offset)?),
        FpRule::InRegister { base, offset } => {
            Some(offset_from(word, base_value(arch, state, base)?, offset)?)
        }
        FpRule::AtRegister { base, offset } => Some(memory.read_word(
            offset_from(word, base_value(arch, state, base)?, offset)?,
            saved,
            order,
        )?),
        FpRule::Undefined => None,
    };
    let fp = fp.map(|fp| word.truncate(fp));
    has_moved(pc, sp, kind, state)?;
    Ok(Caller { pc, sp, sp_is_bound: frame.sp_is_bound(), fp })
}

/// Whether what a source evaluated can be a caller: the same checks.
#[inline]
pub(crate) fn check<A, S, R>(
    arch: &A,
    source: &S,
    found: &Evaluated,
    state: &UnwindUserState<R>,
) -> Result<Caller, Failure>
where
    A: Arch,
    S: FrameSource<A> + ?Sized,
    R: RegisterSet,
{
    let Some(ra) = found.ra else {
        return Err(Failure::Complete(Mark::UndefinedReturnAddress));
    };
    let sp = caller_sp(arch, found.cfa, found.sp, found.kind, state)?;
    let pc = caller_pc(arch, source, ra, found.kind)?;
    has_moved(pc, sp, found.kind, state)?;
    let fp = found.fp.map(|fp| arch.word_size().truncate(fp));
    Ok(Caller { pc, sp, sp_is_bound: false, fp })
}

/// The caller's sp: as stated, or the CFA with the ABI's bias. The stack must shrink, or stay where
/// nothing need have been pushed, and the CFA be aligned; but a signal may have interrupted anything,
/// and come from another stack.
#[inline]
fn caller_sp<A: Arch, R>(
    arch: &A,
    cfa: u64,
    stated: Option<u64>,
    kind: FrameKind,
    state: &UnwindUserState<R>,
) -> Result<u64, StepError> {
    let word = arch.word_size();
    let sp = match stated {
        Some(sp) => word.truncate(sp),
        None => offset_from(word, cfa, arch.sp_bias())?,
    };
    if matches!(kind, FrameKind::Signal) {
        return Ok(sp);
    }
    let shrinks = sp > state.sp || (sp == state.sp && state.pc.is_exact());
    if !shrinks {
        return Err(StepError::StackNotShrinking { caller_sp: sp, sp: state.sp });
    }
    if !word.is_aligned(cfa) {
        return Err(StepError::Misaligned { cfa });
    }
    Ok(sp)
}

/// The caller's pc. That of a signal frame may be anything: a call through a null pointer is one way
/// to get a signal.
#[inline]
fn caller_pc<A, S>(arch: &A, source: &S, ra: u64, kind: FrameKind) -> Result<Pc, Failure>
where
    A: Arch,
    S: FrameSource<A> + ?Sized,
{
    let address = arch.word_size().truncate(arch.strip_code_pointer(ra));
    if matches!(kind, FrameKind::Signal) {
        return Ok(Pc::Exact(address));
    }
    if address == 0 {
        return Err(Failure::Complete(Mark::ZeroReturnAddress));
    }
    let pc = Pc::Return(address);
    // The call before it may be the last instruction of all code; a signal trampoline, which nobody
    // called, may be the first.
    if source.code_at(address) == CodeAt::NotCode && source.code_at(pc.lookup_address()) == CodeAt::NotCode {
        return Err(StepError::NotCode { address }.into());
    }
    Ok(pc)
}

/// Whether the caller is somewhere else than the frame at hand, and than a signal frame seen before.
#[inline]
fn has_moved<R>(pc: Pc, sp: u64, kind: FrameKind, state: &UnwindUserState<R>) -> Result<(), StepError> {
    // As pcs and not as addresses: a function that has just been entered may have been called by
    // the last instruction of the one before it, and then returns to where it is.
    let stays = sp == state.sp && pc == state.pc;
    let circles = matches!(kind, FrameKind::Signal)
        && state.signals.seen > 0
        && (pc.address(), sp) == (state.signals.pc, state.signals.sp);
    if stays || circles { Err(StepError::Loop) } else { Ok(()) }
}

#[inline]
pub(crate) fn offset_from(word: WordSize, address: u64, offset: i32) -> Result<u64, StepError> {
    word.offset(address, i64::from(offset)).ok_or(StepError::AddressOverflow)
}

#[inline]
pub(crate) fn base_value<A: Arch, R: RegisterSet>(
    arch: &A,
    state: &UnwindUserState<R>,
    base: Base,
) -> Result<u64, StepError> {
    let value = match base {
        Base::Sp if !state.sp_is_bound => return Ok(state.sp),
        Base::Fp => state.fp,
        Base::Sp | Base::Register(_) => None,
    };
    let register = match base {
        Base::Sp => arch.sp(),
        Base::Fp => arch.fp(),
        Base::Register(register) => register,
    };
    match value.or_else(|| FrameRegisters { arch, state }.get(register)) {
        Some(value) => Ok(value),
        None => Err(StepError::UnknownRegister(register)),
    }
}

/// The registers of the frame at hand, by DWARF number.
pub(crate) struct FrameRegisters<'s, A, R> {
    pub(crate) arch: &'s A,
    pub(crate) state: &'s UnwindUserState<R>,
}

impl<A: Arch, R: RegisterSet> RegisterFile for FrameRegisters<'_, A, R> {
    fn get(&self, register: Register) -> Option<u64> {
        if register == self.arch.sp() {
            (!self.state.sp_is_bound).then_some(self.state.sp)
        } else if register == self.arch.fp() {
            self.state.fp
        } else if Some(register) == self.arch.ip() {
            Some(self.state.pc.address())
        } else {
            self.state.registers.get(register).map(|value| self.arch.word_size().truncate(value))
        }
    }
}
