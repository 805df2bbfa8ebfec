//! One kind of source being tried.
//!
//! Its rule is found, carried out, and the result checked. Only when all of that has come off is the state changed,
//! all at once.
//!
//! Each of these is a function of its own that leaves what it found in the [`Attempt`]: so there is never more than
//! one of their stack frames, nor of the large results of a source, while the source itself is at work.

use crate::check::{Caller, FrameRegisters, apply, base_value, check, offset_from};
use crate::convention;
use crate::memory::{MemoryError, MemoryReader};
use crate::outcome::{Cut, End, Failure, Mark, Provenance, StepError, Unusable, UnwindError};
use crate::source::{Evaluated, Found, FrameSource, Query, Rule, Trust, UnwindUserType};
use crate::source_error::LookupError;
use crate::{Arch, CfaRule, FrameKind, Options, Pc, RegisterSet, UnwindUserState, UnwindUserTypes, Unwinder};

/// What a kind of source comes to, or a part of the attempt by it.
pub(crate) enum Answer {
    /// What was asked for is there, at last: the state is at the caller.
    Done,
    /// It has nothing to say here.
    NotCovered,
    /// [`Attempt::failure`] says why.
    Failed,
}

/// One kind of source being tried, and what became of those before it.
pub(crate) struct Attempt {
    /// The rule that it has.
    pub(crate) found: Found,
    /// What went wrong with it.
    failure: Failure,
    /// The kinds that do not cover the pc.
    pub(crate) not_covered: UnwindUserTypes,
    /// The first kind that does but could not be used, and why.
    unusable: Option<(UnwindUserType, Unusable)>,
}

impl Attempt {
    pub(crate) const BLANK: Self = Attempt {
        found: Found::new(Rule::Evaluate, Trust::Guess),
        failure: Failure::Step(StepError::NotCovered),
        not_covered: UnwindUserTypes::NONE,
        unusable: None,
    };

    /// Tries one kind of source, whose rule is there already where it `is_at_hand`.
    #[inline(always)]
    pub(crate) fn by<A, S, M, R>(
        &mut self,
        unwinder: &Unwinder<A, S>,
        (kind, is_at_hand): (UnwindUserType, bool),
        state: &mut UnwindUserState<R>,
        memory: &mut M,
    ) -> Answer
    where
        A: Arch,
        S: FrameSource<A>,
        M: MemoryReader,
        R: RegisterSet,
    {
        let mut answer = rule(unwinder, (kind, is_at_hand), state.pc, memory, self);
        if !matches!(answer, Answer::Done) {
            return answer;
        }
        let is_chain = matches!(kind, UnwindUserType::FramePointer | UnwindUserType::BackChain);
        if is_chain && !state.pc.is_exact() {
            answer = chain_goes_on(unwinder, kind, state, memory, self);
            if !matches!(answer, Answer::Done) {
                return answer;
            }
        }
        answer = Answer::NotCovered;
        if R::TRACKS || !is_call(&self.found) {
            answer = take_in_full(unwinder, kind, state, memory, self);
        }
        if matches!(answer, Answer::NotCovered) {
            answer = take(unwinder, kind, state, memory, self);
        }
        if matches!((&answer, self.failure), (Answer::Failed, Failure::Complete(Mark::ZeroReturnAddress)))
            && (is_chain || (self.found.trust == Trust::CallSite && state.pc.is_exact()))
        {
            self.failure = link_to_zero(kind, state.pc);
        }
        answer
    }

    /// Whether the walk ends because of what went wrong with this kind; `state.end` then says how. If not, it is
    /// passed over for a guess.
    #[cold]
    #[inline(never)]
    pub(crate) fn ends_with<R>(
        &mut self,
        kind: UnwindUserType,
        options: &Options,
        state: &mut UnwindUserState<R>,
    ) -> bool {
        let at = |cause, source| End::Failed(UnwindError { cause, pc: state.pc, source: Some(source) });
        let why = match self.failure {
            Failure::Step(StepError::Broken(error)) => Unusable::Broken(error),
            Failure::Step(StepError::UnknownRegister(register)) => Unusable::UnknownRegister(register),
            Failure::Step(StepError::CannotUnwind) => Unusable::CannotUnwind,
            failure => {
                state.end = Some(match (failure, self.unusable) {
                    // That nothing can be read any more says nothing about guesses.
                    (Failure::Memory(error @ MemoryError::Transport { .. }), _) => {
                        End::Truncated(Cut::Memory(error))
                    }
                    // What a guess comes to, an end of the chain even, is not worth reporting: the reason
                    // why one was needed is.
                    (_, Some((first, why))) => at(why.into(), first),
                    (Failure::Complete(mark), None) => End::Complete(mark),
                    (Failure::Memory(error), None) => End::Truncated(Cut::Memory(error)),
                    (Failure::Step(cause), None) => at(cause, kind),
                });
                return true;
            }
        };
        let (first, why) = *self.unusable.get_or_insert((kind, why));
        if !options.guesses {
            state.end = Some(at(why.into(), first));
        }
        !options.guesses
    }

    /// Nothing else is left to be asked.
    #[cold]
    #[inline(never)]
    pub(crate) fn was_the_last<R>(&self, state: &mut UnwindUserState<R>) {
        let (cause, source) = match self.unusable {
            Some((kind, why)) => (why.into(), Some(kind)),
            None => (StepError::NotCovered, None),
        };
        state.end = Some(End::Failed(UnwindError { cause, pc: state.pc, source }));
    }

    /// What became of this one, whose failure is kept.
    #[inline(always)]
    fn answer<E: Into<Failure>>(&mut self, result: Result<Answer, E>) -> Answer {
        result.unwrap_or_else(|error| {
            self.failure = error.into();
            Answer::Failed
        })
    }
}

/// Finds the rule that this kind of source has for the frame at hand, as [`Attempt::found`].
#[inline(never)]
fn rule<A, S, M>(
    unwinder: &Unwinder<A, S>,
    (kind, is_at_hand): (UnwindUserType, bool),
    pc: Pc,
    memory: &mut M,
    attempt: &mut Attempt,
) -> Answer
where
    A: Arch,
    S: FrameSource<A>,
    M: MemoryReader,
{
    let covers = covers(unwinder, (kind, is_at_hand), pc, memory, &mut attempt.found);
    attempt.answer(covers.map(|covers| if covers { Answer::Done } else { Answer::NotCovered }))
}

/// Whether this kind of source covers the pc, and its rule is in the place of `at` then.
#[inline(always)]
fn covers<A, S, M>(
    unwinder: &Unwinder<A, S>,
    (kind, is_at_hand): (UnwindUserType, bool),
    pc: Pc,
    memory: &mut M,
    at: &mut Found,
) -> Result<bool, LookupError>
where
    A: Arch,
    S: FrameSource<A>,
    M: MemoryReader,
{
    let (arch, source) = (unwinder.arch(), unwinder.source());
    if !is_at_hand {
        let found = if source.types().contains(kind) {
            source.lookup(arch, kind, &Query::new(pc), memory)
        } else {
            convention::lookup(arch, source, kind, pc, memory)
        };
        match found {
            Ok(Some(found)) => *at = found,
            Ok(None) => return Ok(false),
            // The code that handlers return to, marked like everything else without a table.
            Err(LookupError::CannotUnwind)
                if says(UnwindUserType::SignalTrampoline, unwinder, pc, memory)? =>
            {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
    }
    if at.is_at_end && says(UnwindUserType::SignalTrampoline, unwinder, pc, memory)? {
        return Ok(false);
    }
    // What holds at calls does not cover a pc where the instruction itself says what holds.
    let may_say = at.trust == Trust::CallSite && pc.is_exact();
    Ok(!(may_say && says(UnwindUserType::Instruction, unwinder, pc, memory)?))
}

/// Whether the frame pointer chain or the back chain goes on, and does not end here with zero. Not asked at an exact
/// pc: there, register and stack may hold anything.
#[inline(never)]
fn chain_goes_on<A, S, M, R>(
    unwinder: &Unwinder<A, S>,
    kind: UnwindUserType,
    state: &UnwindUserState<R>,
    memory: &mut M,
    attempt: &mut Attempt,
) -> Answer
where
    A: Arch,
    S: FrameSource<A>,
    M: MemoryReader,
    R: RegisterSet,
{
    if kind == UnwindUserType::FramePointer {
        if state.fp != Some(0) {
            return Answer::Done;
        }
        attempt.failure = Failure::Complete(Mark::ZeroFramePointer);
        return Answer::Failed;
    }
    let goes_on = back_chain_goes_on(unwinder.arch(), attempt.found.rule, state, memory);
    attempt.answer(goes_on.map(|()| Answer::Done))
}

#[inline(always)]
fn back_chain_goes_on<A, M, R>(
    arch: &A,
    rule: Rule,
    state: &UnwindUserState<R>,
    memory: &mut M,
) -> Result<(), Failure>
where
    A: Arch,
    M: MemoryReader,
    R: RegisterSet,
{
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
pub(crate) fn says<A, S, M>(
    kind: UnwindUserType,
    unwinder: &Unwinder<A, S>,
    pc: Pc,
    memory: &mut M,
) -> Result<bool, LookupError>
where
    A: Arch,
    S: FrameSource<A>,
    M: MemoryReader,
{
    Ok(unwinder.options().types.contains(kind)
        && !unwinder.source().types().contains(kind)
        && convention::lookup(unwinder.arch(), unwinder.source(), kind, pc, memory)?.is_some())
}

/// Takes the step that a source evaluates, if it does: signal frames, rules beyond
/// [`UnwindUserFrame`](crate::UnwindUserFrame), and states that track registers.
#[inline(never)]
fn take_in_full<A, S, M, R>(
    unwinder: &Unwinder<A, S>,
    kind: UnwindUserType,
    state: &mut UnwindUserState<R>,
    memory: &mut M,
    attempt: &mut Attempt,
) -> Answer
where
    A: Arch,
    S: FrameSource<A>,
    M: MemoryReader,
    R: RegisterSet,
{
    let (arch, source) = (unwinder.arch(), unwinder.source());
    let mut registers = state.registers.clone();
    registers.forget();
    let view = FrameRegisters { arch, state };
    let evaluated = if source.types().contains(kind) {
        source.evaluate(arch, kind, &Query::new(state.pc), &view, memory, &mut registers)
    } else if kind == UnwindUserType::SignalTrampoline {
        convention::evaluate_trampoline(arch, &Query::new(state.pc), &view, memory, &mut registers)
    } else {
        return Answer::NotCovered;
    };
    match evaluated {
        Ok(Some(evaluated)) => {
            let answer = go_to(unwinder, kind, &evaluated, state, attempt);
            if matches!(answer, Answer::Done) {
                state.registers = registers;
            }
            answer
        }
        Ok(None) => Answer::NotCovered,
        Err(error) => attempt.answer(Err(error)),
    }
}

/// Moves the state to what a source evaluated, if that can be a caller.
#[inline(never)]
fn go_to<A, S, R>(
    unwinder: &Unwinder<A, S>,
    kind: UnwindUserType,
    evaluated: &Evaluated,
    state: &mut UnwindUserState<R>,
    attempt: &mut Attempt,
) -> Answer
where
    A: Arch,
    S: FrameSource<A>,
    R: RegisterSet,
{
    let checked = check(unwinder.arch(), unwinder.source(), evaluated, state);
    attempt.answer(checked.map(|caller| commit(state, caller, kind, attempt)))
}

/// Takes the step that a frame's rule says.
#[inline(never)]
fn take<A, S, M, R>(
    unwinder: &Unwinder<A, S>,
    kind: UnwindUserType,
    state: &mut UnwindUserState<R>,
    memory: &mut M,
    attempt: &mut Attempt,
) -> Answer
where
    A: Arch,
    S: FrameSource<A>,
    M: MemoryReader,
    R: RegisterSet,
{
    let arch = unwinder.arch();
    let applied = match attempt.found.rule {
        Rule::Frame(frame) => apply(arch, unwinder.source(), frame, state, memory),
        Rule::Evaluate => Err(StepError::NotExpressible.into()),
    };
    if applied.is_ok() {
        match kind {
            // Nothing of the callee has run, or it has put everything back.
            UnwindUserType::NullCall | UnwindUserType::Instruction
                if R::TRACKS || !is_call(&attempt.found) =>
            {
                state.registers.retain(&|register| arch.is_callee_saved(register));
            }
            _ => state.registers.forget(),
        }
    }
    attempt.answer(applied.map(|caller| commit(state, caller, kind, attempt)))
}

/// Whether a rule is for an ordinary call, and a frame can say it.
#[inline]
fn is_call(found: &Found) -> bool {
    matches!(found.rule, Rule::Frame(frame) if matches!(frame.kind(), FrameKind::Call))
}

/// Moves the state to the caller, by the rule that was found.
#[inline]
fn commit<R: RegisterSet>(
    state: &mut UnwindUserState<R>,
    caller: Caller,
    kind: UnwindUserType,
    attempt: &Attempt,
) -> Answer {
    if caller.pc.is_exact() {
        let trail = &mut state.signals;
        trail.seen = trail.seen.saturating_add(1);
        if trail.seen.is_power_of_two() {
            trail.pc = caller.pc.address();
            trail.sp = caller.sp;
        }
    }
    let Attempt { not_covered, unusable, .. } = *attempt;
    let trust = if unusable.is_some() { Trust::Guess } else { attempt.found.trust };
    state.pc = caller.pc;
    state.sp = caller.sp;
    state.sp_is_bound = caller.sp_is_bound;
    state.fp = caller.fp;
    state.topmost = false;
    state.depth = state.depth.saturating_add(1);
    state.weakest = state.weakest.min(trust);
    state.provenance = Provenance { source: Some(kind), trust, not_covered, unusable };
    Answer::Done
}
