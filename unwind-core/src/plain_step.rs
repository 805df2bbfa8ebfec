//! A plain step: by a rule that a source has at hand.
//!
//! [`FrameSource::peek`] hands out a plain rule where it has one at hand; carrying it out takes two loads.
//! Whatever is not plain, or does not pass every check of a step, is left to [`crate::step`], which begins
//! the frame anew and says what is the matter. So this is a short cut and decides nothing: it takes a step
//! only where the full one would take the same.

use crate::memory::{MemoryError, MemoryReader};
use crate::outcome::{Cut, End, Mark};
use crate::plain::Plain;
use crate::source::{CodeAt, Found, FrameSource, Query, Trust, UnwindUserType, UnwindUserTypes};
use crate::{Arch, Options, Pc, Provenance, RegisterSet, UnwindUserState, Unwinder};

/// Where plain steps stand: at a pc whose sp and frame pointer are known. There are at least
/// [`Plain::REACH`] bytes below sp.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) pc: u64,
    pub(crate) sp: u64,
    pub(crate) fp: u64,
}

/// Where a table says that nobody called the frame.
pub(crate) const OUTERMOST: End = End::Complete(Mark::UndefinedReturnAddress);

/// The kinds that no convention answers for.
pub(crate) const TABLES: UnwindUserTypes = UnwindUserTypes::NONE
    .with(UnwindUserType::Embedder)
    .with(UnwindUserType::Table)
    .with(UnwindUserType::SFrame)
    .with(UnwindUserType::Dwarf)
    .with(UnwindUserType::Ehabi);

/// The kinds to ask a source for before any convention is asked.
#[inline]
pub(crate) fn tables<A: Arch, S: FrameSource<A> + ?Sized>(source: &S, options: &Options) -> UnwindUserTypes {
    options.types.intersection(source.types()).intersection(TABLES)
}

/// Whether the walk ends where a rule could not be carried out, which `end` then says. If not, it is for the full
/// step to tell.
#[inline]
fn stops(end: &mut Option<End>, rule: &Plain, stop: Option<Stop>) -> bool {
    *end = stop.and_then(|stop| stop.end(rule));
    end.is_some()
}

/// What a rule led to that is known to end the walk.
#[derive(Clone, Copy)]
pub(crate) enum Stop {
    Memory(MemoryError),
    /// A return address of zero.
    Zero,
}

impl Stop {
    /// `None` where the full step has to tell.
    pub(crate) fn end(self, rule: &Plain) -> Option<End> {
        match self {
            Stop::Memory(error) => Some(End::Truncated(Cut::Memory(error))),
            Stop::Zero if rule.kind() == UnwindUserType::FramePointer => None,
            Stop::Zero => Some(End::Complete(Mark::ZeroReturnAddress)),
        }
    }
}

/// Takes one plain step, if it is one, or ends the walk: whether it did either. If not, it is for the full step.
/// `ahead`, for those who will take the next one as well, is the rule of the frame at hand, if it is known already,
/// and then that of the caller.
///
/// In a function of its own, so that its stack frame is not there while the full step runs.
#[inline(never)]
pub(crate) fn next<A, S, M, R>(
    arch: &A,
    source: &S,
    options: &Options,
    state: &mut UnwindUserState<R>,
    memory: &mut M,
    mut ahead: Option<&mut Option<Plain>>,
) -> bool
where
    A: Arch,
    S: FrameSource<A>,
    M: MemoryReader,
    R: RegisterSet,
{
    let known = ahead.as_deref_mut().and_then(Option::take);
    let Some(at) = Place::of(state) else { return false };
    if state.depth >= options.max_frames.saturating_sub(1) {
        return false;
    }
    let tables = tables(source, options);
    let rule = match known {
        Some(_) if state.sp_is_bound || Entry::of(options).has(at.pc) => None,
        Some(rule) => Some(rule),
        None => begin(arch, source, options, state, tables, memory),
    };
    let Some(rule) = rule else { return false };
    if rule.is_outermost() {
        state.end = Some(OUTERMOST);
        return true;
    }
    let mut stop = None;
    let Some(to) = Ahead::of(arch, &rule, &at, memory, &mut stop) else {
        return stops(&mut state.end, &rule, stop);
    };
    let mut after = source.peek(arch, tables, &Query::new(Pc::Return(to.pc)));
    if after.is_none() {
        if !may_be_code(source, to.pc) {
            return false;
        }
        if ahead.is_some() {
            after = ask(arch, source, tables, Pc::Return(to.pc), memory);
        }
    }
    let Some(fp) = caller_fp(arch, &rule, &at, &to, memory, &mut stop) else {
        return stops(&mut state.end, &rule, stop);
    };
    commit(arch, options, state, &Place { pc: to.pc, sp: to.sp, fp }, &rule);
    if let Some(ahead) = ahead {
        *ahead = after;
    }
    true
}

/// Takes the step that `found`, the answer of a source, says, if it is a plain one, or ends the walk: whether it
/// did either.
#[inline(never)]
pub(crate) fn step<A, S, M, R>(
    unwinder: &Unwinder<A, S>,
    state: &mut UnwindUserState<R>,
    memory: &mut M,
    (kind, found): (UnwindUserType, &Found),
) -> bool
where
    A: Arch,
    S: FrameSource<A>,
    M: MemoryReader,
    R: RegisterSet,
{
    let (arch, source, options) = (unwinder.arch(), unwinder.source(), unwinder.options());
    let rule = Plain::new(kind, found).filter(|rule| !state.sp_is_bound && rule.holds_at(state.pc));
    let (Some(at), Some(rule)) = (Place::of(state), rule) else { return false };
    if rule.is_outermost() {
        state.end = Some(OUTERMOST);
        return true;
    }
    let mut stop = None;
    let Some(to) = Ahead::of(arch, &rule, &at, memory, &mut stop) else {
        return stops(&mut state.end, &rule, stop);
    };
    if !may_be_code(source, to.pc) {
        return false;
    }
    let Some(fp) = caller_fp(arch, &rule, &at, &to, memory, &mut stop) else {
        return stops(&mut state.end, &rule, stop);
    };
    commit(arch, options, state, &Place { pc: to.pc, sp: to.sp, fp }, &rule);
    true
}

/// The rule of the frame at hand, where it is plain.
#[inline]
pub(crate) fn begin<A, S, M, R>(
    arch: &A,
    source: &S,
    options: &Options,
    state: &UnwindUserState<R>,
    tables: UnwindUserTypes,
    memory: &mut M,
) -> Option<Plain>
where
    A: Arch,
    S: FrameSource<A>,
    M: MemoryReader,
    R: RegisterSet,
{
    if options.entry_function.as_ref().is_some_and(|entry| entry.contains(&state.pc.lookup_address())) {
        return None;
    }
    if let Some(rule) = chain(arch, source, options, state.pc) {
        return Some(rule);
    }
    if state.sp_is_bound {
        return None;
    }
    let rule = source
        .peek(arch, tables, &Query::new(state.pc))
        .or_else(|| ask(arch, source, tables, state.pc, memory))?;
    rule.holds_at(state.pc).then_some(rule)
}

impl Place {
    /// Where `state` is, if plain steps may begin there.
    #[inline]
    pub(crate) fn of<R: RegisterSet>(state: &UnwindUserState<R>) -> Option<Place> {
        match (state.fp, R::TRACKS, state.end) {
            (Some(fp), false, None) if state.sp >= Plain::REACH => {
                Some(Place { pc: state.pc.address(), sp: state.sp, fp })
            }
            _ => None,
        }
    }
}

/// Moves the state to the caller: all of it, at once.
#[inline]
pub(crate) fn commit<A: Arch, R: RegisterSet>(
    arch: &A,
    options: &Options,
    state: &mut UnwindUserState<R>,
    caller: &Place,
    rule: &Plain,
) {
    let (kind, trust) = (rule.kind(), rule.trust());
    state.pc = Pc::Return(caller.pc);
    state.sp = caller.sp;
    state.sp_is_bound = matches!(kind, UnwindUserType::FramePointer) && chain_is_bound(arch);
    state.fp = Some(caller.fp);
    state.registers.forget();
    state.topmost = false;
    state.depth = state.depth.saturating_add(1);
    state.weakest = state.weakest.min(trust);
    let not_covered = options.types.better_than(kind);
    state.provenance = Provenance { source: Some(kind), trust, not_covered, unusable: None };
}

/// Where walks are complete: from the first return pc of the entry function on, so many bytes.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    first: u64,
    pub(crate) length: u64,
}

impl Entry {
    #[inline]
    pub(crate) fn of(options: &Options) -> Self {
        match &options.entry_function {
            // A return pc is looked up one byte before it.
            Some(entry) => {
                Entry { first: entry.start.wrapping_add(1), length: entry.end.saturating_sub(entry.start) }
            }
            None => Entry { first: 0, length: 0 },
        }
    }

    #[inline]
    pub(crate) fn has(self, pc: u64) -> bool {
        pc.wrapping_sub(self.first) < self.length
    }
}

/// The rule at a pc, if it is plain.
#[inline(never)]
pub(crate) fn ask<A, S, M>(
    arch: &A,
    source: &S,
    tables: UnwindUserTypes,
    pc: Pc,
    memory: &mut M,
) -> Option<Plain>
where
    A: Arch,
    S: FrameSource<A>,
    M: MemoryReader,
{
    let (kind, found) = source.lookup_best(arch, tables, &Query::new(pc), memory).ok()??;
    Plain::new(kind, &found)
}

/// The rule of the frame pointer chain, where nothing else is asked at a pc.
#[inline]
fn chain<A: Arch, S: FrameSource<A>>(arch: &A, source: &S, options: &Options, pc: Pc) -> Option<Plain> {
    let kind = UnwindUserType::FramePointer;
    let of_source = options.types.intersection(source.types());
    let mut others = of_source.union(options.types.intersection(UnwindUserTypes::CONVENTIONS)).without(kind);
    if !pc.is_exact() {
        others = others.without(UnwindUserType::NullCall).without(UnwindUserType::Instruction);
    }
    if arch.back_chain_rule().is_none() {
        others = others.without(UnwindUserType::BackChain);
    }
    if !others.union(of_source).is_empty() || !options.types.contains(kind) {
        return None;
    }
    chain_rule(arch)
}

/// The rule of the frame pointer chain, if it is one that rests on the frame pointer alone.
#[inline(always)]
pub(crate) fn chain_rule<A: Arch>(arch: &A) -> Option<Plain> {
    let frame = arch.frame_pointer_rule()?;
    let rule = Plain::of_chain(UnwindUserType::FramePointer, frame, Trust::Convention)?;
    rule.use_fp().then_some(rule)
}

/// Whether the frame pointer chain only tells a bound of sp.
#[inline]
fn chain_is_bound<A: Arch>(arch: &A) -> bool {
    arch.frame_pointer_rule().is_some_and(|rule| rule.sp_is_bound())
}

/// Whether nobody knows that a return pc is no code.
#[inline]
pub(crate) fn may_be_code<A: Arch, S: FrameSource<A> + ?Sized>(source: &S, pc: u64) -> bool {
    source.code_at(pc) != CodeAt::NotCode || source.code_at(pc.saturating_sub(1)) != CodeAt::NotCode
}

/// What a step leads to, but for the caller's frame pointer, which is looked at when the pc is known to be code.
pub(crate) struct Ahead {
    /// What the CFA is based on.
    base: u64,
    pub(crate) sp: u64,
    pub(crate) pc: u64,
}

impl Ahead {
    /// Carries a rule out, with all the checks of a step but for code. `None` where one of them fails, and
    /// near the ends of the address space; `stop` says what is known to end the walk.
    #[inline(always)]
    pub(crate) fn of<A: Arch, M: MemoryReader>(
        arch: &A,
        rule: &Plain,
        at: &Place,
        memory: &mut M,
        stop: &mut Option<Stop>,
    ) -> Option<Self> {
        let word = arch.word_size();
        let base = if rule.use_fp() { at.fp } else { at.sp };
        // Below sp, a frame pointer is none. From the highest base on, nothing that a rule names is beyond the
        // address space; nor is it below, as sp never falls.
        let highest = word.max_address().wrapping_sub(Plain::REACH.wrapping_mul(4));
        if base < at.sp || base > highest {
            return None;
        }
        let slot = base.wrapping_add(u64::from(rule.ra_at()));
        // From the base as well, which is what a walk waits for; the offset of a rule is known by then.
        let cfa = base.wrapping_add(rule.cfa_off());
        if !word.is_aligned(cfa) {
            return None;
        }
        let bias = arch.sp_bias();
        let sp = cfa.wrapping_add_signed(i64::from(bias));
        // The offset of a plain rule's CFA is positive.
        if bias < 0 && sp <= at.sp {
            return None;
        }
        let ra = saved(arch, slot, memory, stop)?;
        let pc = word.truncate(arch.strip_code_pointer(ra));
        if pc == 0 {
            *stop = Some(Stop::Zero);
            return None;
        }
        Some(Ahead { base, sp, pc })
    }
}

#[inline(always)]
pub(crate) fn caller_fp<A: Arch, M: MemoryReader>(
    arch: &A,
    rule: &Plain,
    at: &Place,
    ahead: &Ahead,
    memory: &mut M,
    stop: &mut Option<Stop>,
) -> Option<u64> {
    if !rule.saves_fp() {
        return Some(at.fp);
    }
    let slot = ahead.base.wrapping_add(rule.cfa_off().wrapping_add_signed(rule.fp_off().into()));
    let Some(fp) = saved(arch, slot, memory, stop) else {
        // Below sp it may not be there any more, which is for the full step to say.
        if slot < at.sp {
            *stop = None;
        }
        return None;
    };
    Some(arch.word_size().truncate(fp))
}

/// The register that is saved at an address.
#[inline(always)]
fn saved<A: Arch, M: MemoryReader>(
    arch: &A,
    slot: u64,
    memory: &mut M,
    stop: &mut Option<Stop>,
) -> Option<u64> {
    match memory.read_word(slot, arch.register_size(), arch.byte_order()) {
        Ok(word) => Some(word),
        Err(error) => {
            match error {
                MemoryError::Unreadable { address } => unreadable(stop, address),
                error => *stop = Some(Stop::Memory(error)),
            }
            None
        }
    }
}

/// In a function of its own, so that the loop has nothing to do with it.
#[cold]
#[inline(never)]
fn unreadable(stop: &mut Option<Stop>, address: u64) {
    *stop = Some(Stop::Memory(MemoryError::Unreadable { address }));
}
