//! The step: from one frame to its caller.
//!
//! [`step`] finds the rule, [`apply`] carries it out, [`check`] decides whether the result can be
//! a caller. Only then is the state changed, all at once.

use crate::convention;
use crate::memory::{MemoryError, MemoryReader};
use crate::outcome::{Cut, End, Failure, Mark, Provenance, StepError, Unusable, UnwindError};
use crate::plain_step::{self, Stepped};
use crate::source::{CodeAt, Evaluated, Found, FrameSource, LookupError, Query, Rule, Trust, UnwindUserType};
use crate::{
    Arch, Base, CfaRule, FpRule, FrameKind, Options, Pc, RaRule, Register, RegisterFile, RegisterSet,
    UnwindUserFrame, UnwindUserState, UnwindUserTypes, WordSize,
};

/// Moves `state` to the caller's frame, or says how the walk ends and leaves it as it was.
pub(crate) fn step<A, S, M, R>(
    arch: &A,
    source: &S,
    options: &Options,
    state: &mut UnwindUserState<R>,
    memory: &mut M,
) -> Result<(), End>
where
    A: Arch,
    S: FrameSource<A> + ?Sized,
    M: MemoryReader,
    R: RegisterSet,
{
    if let Some(entry) = &options.entry_function
        && entry.contains(&state.pc.lookup_address())
    {
        // A signal trampoline may be right behind it; nothing is called from there.
        let is_behind = state.pc == Pc::Return(entry.end);
        let trampoline = UnwindUserType::SignalTrampoline;
        match is_behind.then(|| says(trampoline, arch, source, options, state, memory)) {
            Some(Ok(true)) => {}
            Some(Err(Failure::Memory(error))) => return Err(End::Truncated(Cut::Memory(error))),
            _ => return Err(End::Complete(Mark::EntryFunction)),
        }
    }
    if state.depth >= options.max_frames.saturating_sub(1) {
        return Err(End::Truncated(Cut::FrameLimit));
    }
    // What all tables together say; where that is an error, they are asked one by one below.
    let known =
        source.lookup_best(arch, plain_step::tables(source, options), &Query::new(state.pc), memory).ok();
    if let Some(Some((kind, found))) = &known {
        if !R::TRACKS && is_outermost(found, state.pc) {
            return Err(End::Complete(Mark::UndefinedReturnAddress));
        }
        match plain_step::step(arch, source, options, state, memory, (*kind, found)) {
            Stepped::Taken => return Ok(()),
            Stepped::NotPlain => {}
            Stepped::Ended(end) => return Err(end),
        }
    }
    let mut not_covered = UnwindUserTypes::NONE;
    let mut unusable = None;
    let pc = state.pc;
    let at = |cause, source| End::Failed(UnwindError { cause, pc, source });
    let better = match &known {
        Some(Some((kind, _))) => UnwindUserTypes::ALL.better_than(*kind),
        Some(None) => UnwindUserTypes::ALL,
        None => UnwindUserTypes::NONE,
    };
    let tables = plain_step::tables(source, options);
    for kind in options.types.iter() {
        // No convention answers for tables.
        if plain_step::TABLES.contains(kind) && (better.contains(kind) || !tables.contains(kind)) {
            not_covered = not_covered.with(kind);
            continue;
        }
        let failure = match attempt(arch, source, options, (kind, known.as_ref()), state, memory) {
            Ok(Some((caller, mut trust))) => {
                if unusable.is_some() {
                    trust = Trust::Guess;
                }
                let provenance = Provenance { source: Some(kind), trust, not_covered, unusable };
                commit(state, caller, provenance);
                return Ok(());
            }
            Ok(None) => {
                not_covered = not_covered.with(kind);
                continue;
            }
            Err(failure) => failure,
        };
        let why = match failure {
            Failure::Step(StepError::Broken(error)) => Unusable::Broken(error),
            Failure::Step(StepError::UnknownRegister(register)) => Unusable::UnknownRegister(register),
            Failure::Step(StepError::CannotUnwind) => Unusable::CannotUnwind,
            // That nothing can be read any more says nothing about guesses.
            Failure::Memory(error @ MemoryError::Transport { .. }) => {
                return Err(End::Truncated(Cut::Memory(error)));
            }
            // What a guess comes to, an end of the chain even, is not worth reporting: the reason
            // why one was needed is.
            _ if unusable.is_some() => break,
            Failure::Complete(mark) => return Err(End::Complete(mark)),
            Failure::Memory(error) => return Err(End::Truncated(Cut::Memory(error))),
            Failure::Step(cause) => return Err(at(cause, Some(kind))),
        };
        let (first, first_why) = *unusable.get_or_insert((kind, why));
        if !options.guesses {
            return Err(at(first_why.into(), Some(first)));
        }
    }
    Err(match unusable {
        Some((kind, why)) => at(why.into(), Some(kind)),
        None => at(StepError::NotCovered, None),
    })
}

/// Whether a table says that nobody called the frame at hand, and no instruction or trampoline could gainsay
/// it: how most walks end.
#[inline]
fn is_outermost(found: &Found, pc: Pc) -> bool {
    let Rule::Frame(frame) = found.rule else { return false };
    matches!((frame.ra(), frame.kind()), (RaRule::Undefined, FrameKind::Call))
        && !found.is_at_end
        && !(found.trust == Trust::CallSite && pc.is_exact())
}

/// The caller, as far as it is known before it is committed.
#[derive(Clone, Copy)]
struct Caller {
    pc: Pc,
    sp: u64,
    sp_is_bound: bool,
    fp: Option<u64>,
}

/// What all tables together say: which of them is the best that covers the pc, and its rule.
type Known = Option<(UnwindUserType, Found)>;

/// Tries one kind of source: the caller, whose registers beyond ip, sp and fp are in `state` already, and
/// how far the rule can be trusted.
#[inline]
fn attempt<A, S, M, R>(
    arch: &A,
    source: &S,
    options: &Options,
    (kind, known): (UnwindUserType, Option<&Known>),
    state: &mut UnwindUserState<R>,
    memory: &mut M,
) -> Result<Option<(Caller, Trust)>, Failure>
where
    A: Arch,
    S: FrameSource<A> + ?Sized,
    M: MemoryReader,
    R: RegisterSet,
{
    let Some(found) = rule(arch, source, options, (kind, known), state, memory)? else {
        return Ok(None);
    };
    let is_chain = matches!(kind, UnwindUserType::FramePointer | UnwindUserType::BackChain);
    if is_chain && !state.pc.is_exact() {
        chain_goes_on(arch, kind, found.rule, state, memory)?;
    }
    let caller = match found.rule {
        Rule::Frame(frame) if !R::TRACKS && matches!(frame.kind(), FrameKind::Call) => {
            apply(arch, source, frame, state, memory).inspect(|_| state.registers.forget())
        }
        rule => attempt_in_full(arch, source, kind, rule, state, memory),
    };
    match caller {
        Ok(caller) => Ok(Some((caller, found.trust))),
        Err(Failure::Complete(Mark::ZeroReturnAddress))
            if is_chain || (found.trust == Trust::CallSite && state.pc.is_exact()) =>
        {
            Err(link_to_zero(kind, state.pc))
        }
        Err(failure) => Err(failure),
    }
}

/// The rule that this kind of source has for the frame at hand.
#[inline(never)]
fn rule<A, S, M, R>(
    arch: &A,
    source: &S,
    options: &Options,
    (kind, known): (UnwindUserType, Option<&Known>),
    state: &UnwindUserState<R>,
    memory: &mut M,
) -> Result<Option<Found>, Failure>
where
    A: Arch,
    S: FrameSource<A> + ?Sized,
    M: MemoryReader,
    R: RegisterSet,
{
    let found = if let Some(Some((_, found))) = known.filter(|known| known.is_some_and(|best| best.0 == kind))
    {
        Some(*found)
    } else if source.types().contains(kind) {
        match source.lookup(arch, kind, &Query::new(state.pc), memory) {
            // The code that handlers return to, marked like everything else without a table.
            Err(LookupError::CannotUnwind)
                if says(UnwindUserType::SignalTrampoline, arch, source, options, state, memory)? =>
            {
                None
            }
            found => found?,
        }
    } else {
        convention::lookup(arch, source, kind, state.pc, memory)?
    };
    let Some(found) = found else {
        return Ok(None);
    };
    if found.is_at_end && says(UnwindUserType::SignalTrampoline, arch, source, options, state, memory)? {
        return Ok(None);
    }
    // What holds at calls does not cover a pc where the instruction itself says what holds.
    if found.trust == Trust::CallSite
        && state.pc.is_exact()
        && says(UnwindUserType::Instruction, arch, source, options, state, memory)?
    {
        return Ok(None);
    }
    Ok(Some(found))
}

/// Whether the frame pointer chain or the back chain ends here, with zero. Not asked at an exact pc:
/// there, register and stack may hold anything.
#[inline]
fn chain_goes_on<A, M, R>(
    arch: &A,
    kind: UnwindUserType,
    rule: Rule,
    state: &UnwindUserState<R>,
    memory: &mut M,
) -> Result<(), Failure>
where
    A: Arch,
    M: MemoryReader,
    R: RegisterSet,
{
    if kind == UnwindUserType::FramePointer {
        return match state.fp {
            Some(0) => Err(Failure::Complete(Mark::ZeroFramePointer)),
            _ => Ok(()),
        };
    }
    if let Rule::Frame(frame) = rule
        && let CfaRule::Deref { base, offset, .. } = frame.cfa()
    {
        let link = offset_from(arch.word_size(), base_value(arch, state, base)?, offset)?;
        if memory.read_word(link, arch.word_size(), arch.byte_order())? == 0 {
            return Err(Failure::Complete(Mark::ZeroBackChain));
        }
    }
    Ok(())
}

/// What a return address of zero means that a chain led to: its end, by convention; at an exact pc
/// nothing but that this was no link. The same goes there for a rule that holds at calls.
fn link_to_zero(kind: UnwindUserType, pc: Pc) -> Failure {
    match (pc, kind) {
        (Pc::Exact(_), _) => StepError::NotCode { address: 0 }.into(),
        (_, UnwindUserType::BackChain) => Failure::Complete(Mark::ZeroBackChain),
        _ => Failure::Complete(Mark::ZeroFrameRecord),
    }
}

/// Whether the convention of this kind has a rule for the pc: a signal trampoline that no table
/// describes, right behind a function that one does; an instruction that leaves no doubt.
#[inline(never)]
fn says<A, S, M, R>(
    kind: UnwindUserType,
    arch: &A,
    source: &S,
    options: &Options,
    state: &UnwindUserState<R>,
    memory: &mut M,
) -> Result<bool, Failure>
where
    A: Arch,
    S: FrameSource<A> + ?Sized,
    M: MemoryReader,
    R: RegisterSet,
{
    Ok(options.types.contains(kind)
        && !source.types().contains(kind)
        && convention::lookup(arch, source, kind, state.pc, memory)?.is_some())
}

/// The slow way: signal frames, rules beyond [`UnwindUserFrame`], and states that track registers.
#[inline(never)]
fn attempt_in_full<A, S, M, R>(
    arch: &A,
    source: &S,
    kind: UnwindUserType,
    rule: Rule,
    state: &mut UnwindUserState<R>,
    memory: &mut M,
) -> Result<Caller, Failure>
where
    A: Arch,
    S: FrameSource<A> + ?Sized,
    M: MemoryReader,
    R: RegisterSet,
{
    let query = Query::new(state.pc);
    let mut registers = state.registers.clone();
    registers.forget();
    let view = FrameRegisters { arch, state };
    let evaluated = if source.types().contains(kind) {
        source.evaluate(arch, kind, &query, &view, memory, &mut registers)?
    } else if kind == UnwindUserType::SignalTrampoline {
        convention::evaluate_trampoline(arch, &query, &view, memory, &mut registers)?
    } else {
        None
    };
    match (evaluated, rule) {
        (Some(evaluated), _) => {
            let caller = check(arch, source, &evaluated, state)?;
            state.registers = registers;
            Ok(caller)
        }
        (None, Rule::Frame(frame)) => {
            let caller = apply(arch, source, frame, state, memory)?;
            match kind {
                // Nothing of the callee has run, or it has put everything back.
                UnwindUserType::NullCall | UnwindUserType::Instruction => {
                    state.registers.retain(&|register| arch.is_callee_saved(register));
                }
                _ => state.registers.forget(),
            }
            Ok(caller)
        }
        (None, Rule::Evaluate) => Err(StepError::NotExpressible.into()),
    }
}

/// Carries a rule out. These are the checks of a step, in order.
#[inline(never)]
fn apply<A, S, M, R>(
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
fn check<A, S, R>(
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
fn offset_from(word: WordSize, address: u64, offset: i32) -> Result<u64, StepError> {
    word.offset(address, i64::from(offset)).ok_or(StepError::AddressOverflow)
}

#[inline]
fn base_value<A: Arch, R: RegisterSet>(
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
struct FrameRegisters<'s, A, R> {
    arch: &'s A,
    state: &'s UnwindUserState<R>,
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

/// Moves the state to the caller.
#[inline]
fn commit<R: RegisterSet>(state: &mut UnwindUserState<R>, caller: Caller, provenance: Provenance) {
    if caller.pc.is_exact() {
        let trail = &mut state.signals;
        trail.seen = trail.seen.saturating_add(1);
        if trail.seen.is_power_of_two() {
            trail.pc = caller.pc.address();
            trail.sp = caller.sp;
        }
    }
    state.pc = caller.pc;
    state.sp = caller.sp;
    state.sp_is_bound = caller.sp_is_bound;
    state.fp = caller.fp;
    state.topmost = false;
    state.depth = state.depth.saturating_add(1);
    state.weakest = state.weakest.min(provenance.trust);
    state.provenance = provenance;
}
