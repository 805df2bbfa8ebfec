//! The step: from one frame to its caller.
//!
//! [`step`] asks the tables, all at once, and then each kind of source by itself, as an [`Attempt`].

use crate::attempt::{Answer, Attempt, says};
use crate::memory::MemoryReader;
use crate::outcome::{Cut, End, Mark};
use crate::plain_step;
use crate::source::{Found, FrameSource, Query, Rule, Trust, UnwindUserType};
use crate::source_error::LookupError;
use crate::{Arch, FrameKind, Pc, RaRule, RegisterSet, UnwindUserState, UnwindUserTypes, Unwinder};

/// Moves `state` to the caller's frame; or says in `state.end` how the walk ends, and leaves the rest as it was.
///
/// What needs much stack below here, a table that is searched or an expression that is evaluated, is each called
/// from here, and has returned before the next one begins. What they find out goes into one [`Attempt`].
#[inline(never)]
pub(crate) fn step<A, S, M, R>(unwinder: &Unwinder<A, S>, state: &mut UnwindUserState<R>, memory: &mut M)
where
    A: Arch,
    S: FrameSource<A>,
    M: MemoryReader,
    R: RegisterSet,
{
    if state.end.is_some() || is_over(unwinder, state, memory) {
        return;
    }
    let mut attempt = Attempt::BLANK;
    let tables = plain_step::tables(unwinder.source(), unwinder.options());
    // What all tables together say; where that is an error, they are asked one by one below.
    let best = best(unwinder, tables, state.pc, memory, &mut attempt.found);
    let mut at_hand = None;
    let worse = match best {
        Best::Unknown => tables,
        Best::None => UnwindUserTypes::NONE,
        Best::Of(kind) => {
            at_hand = Some(kind);
            if !R::TRACKS && is_outermost(&attempt.found, state.pc) {
                state.end = Some(End::Complete(Mark::UndefinedReturnAddress));
                return;
            }
            if plain_step::step(unwinder, state, memory, (kind, &attempt.found)) {
                return;
            }
            tables.not_better_than(kind)
        }
    };
    // No convention answers for tables.
    let asked = worse.union(UnwindUserTypes::CONVENTIONS);
    for kind in unwinder.options().types.iter() {
        let answer = if asked.contains(kind) {
            // The tables' best is the first that is asked.
            let is_at_hand = at_hand.take() == Some(kind);
            attempt.by(unwinder, (kind, is_at_hand), state, memory)
        } else {
            Answer::NotCovered
        };
        match answer {
            Answer::Done => return,
            Answer::NotCovered => attempt.not_covered = attempt.not_covered.with(kind),
            Answer::Failed => {
                if attempt.ends_with(kind, unwinder.options(), state) {
                    return;
                }
            }
        }
    }
    attempt.was_the_last(state);
}

/// Whether the walk is over before any rule is looked for; `state.end` then says how.
#[inline(never)]
fn is_over<A, S, M, R>(unwinder: &Unwinder<A, S>, state: &mut UnwindUserState<R>, memory: &mut M) -> bool
where
    A: Arch,
    S: FrameSource<A>,
    M: MemoryReader,
    R: RegisterSet,
{
    let options = unwinder.options();
    if let Some(entry) = &options.entry_function
        && entry.contains(&state.pc.lookup_address())
    {
        // A signal trampoline may be right behind it; nothing is called from there.
        let is_behind = state.pc == Pc::Return(entry.end);
        match is_behind.then(|| says(UnwindUserType::SignalTrampoline, unwinder, state.pc, memory)) {
            Some(Ok(true)) => {}
            Some(Err(LookupError::Memory(error))) => state.end = Some(End::Truncated(Cut::Memory(error))),
            _ => state.end = Some(End::Complete(Mark::EntryFunction)),
        }
    }
    if state.end.is_none() && state.depth >= options.max_frames.saturating_sub(1) {
        state.end = Some(End::Truncated(Cut::FrameLimit));
    }
    state.end.is_some()
}

/// What all tables together say.
enum Best {
    /// Not the same as one by one.
    Unknown,
    /// None covers the pc.
    None,
    /// The best that does is of this kind.
    Of(UnwindUserType),
}

/// Asks all tables at once, and puts the rule in the place of `found`.
#[inline(never)]
fn best<A, S, M>(
    unwinder: &Unwinder<A, S>,
    tables: UnwindUserTypes,
    pc: Pc,
    memory: &mut M,
    found: &mut Found,
) -> Best
where
    A: Arch,
    S: FrameSource<A>,
    M: MemoryReader,
{
    match unwinder.source().lookup_best(unwinder.arch(), tables, &Query::new(pc), memory) {
        Ok(Some((kind, best))) => {
            *found = best;
            Best::Of(kind)
        }
        Ok(None) => Best::None,
        Err(_) => Best::Unknown,
    }
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
