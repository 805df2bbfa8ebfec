//! The step: from one frame to its caller.
//!
//! [`step`] finds the rule, [`apply`] carries it out, [`check`] decides whether the result can be
//! a caller. Only then is the state changed, all at once.

use crate::check::{Caller, FrameRegisters, apply, base_value, check, offset_from};
use crate::convention;
use crate::memory::{MemoryError, MemoryReader};
use crate::outcome::{Cut, End, Failure, Mark, Provenance, StepError, Unusable, UnwindError};
use crate::plain_step::{self, Stepped};
use crate::source::{Found, FrameSource, LookupError, Query, Rule, Trust, UnwindUserType};
use crate::{Arch, CfaRule, FrameKind, Options, Pc, RaRule, RegisterSet, UnwindUserState, UnwindUserTypes};

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
