//! Plain steps, many in a row.
//!
//! [`FrameSource::peek`] hands out a plain rule where it has one at hand; carrying it out takes two loads.
//! Whatever is not plain, or does not pass every check of a step, is left to [`crate::step`], which begins
//! the frame anew and says what is the matter. So this is a short cut and decides nothing: it takes a step
//! only where the full one would take the same.

use crate::memory::{MemoryError, MemoryReader};
use crate::outcome::{Cut, End};
use crate::plain::Plain;
use crate::source::{CodeAt, Found, FrameSource, Query, Trust, UnwindUserType, UnwindUserTypes};
use crate::{Arch, Options, Pc, Provenance, RegisterSet, UnwindUserState};

/// Where plain steps stand: at a pc whose sp and frame pointer are known.
#[derive(Clone, Copy)]
struct Place {
    pc: u64,
    sp: u64,
    fp: u64,
}

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

/// Takes plain steps from `state` as long as there are, at most one for each of `entries`, and stores the
/// callers' addresses there. How many.
#[inline]
pub(crate) fn run<A, S, M, R>(
    arch: &A,
    source: &S,
    options: &Options,
    state: &mut UnwindUserState<R>,
    memory: &mut M,
    entries: &mut [u64],
) -> usize
where
    A: Arch,
    S: FrameSource<A>,
    M: MemoryReader,
    R: RegisterSet,
{
    let Some(mut place) = Place::of(state) else { return 0 };
    let left = options.max_frames.saturating_sub(1).saturating_sub(state.depth);
    let left = usize::try_from(left).unwrap_or(usize::MAX).min(entries.len());
    let Some(entries) = entries.get_mut(..left) else { return 0 };
    let tables = tables(source, options);
    let Some(rule) = begin(arch, source, options, state, tables, memory) else { return 0 };
    let entry = Entry::of(options);
    let (nr, failed) = match rule.kind() {
        UnwindUserType::FramePointer => chain_run(arch, source, entry, &mut place, memory, entries),
        _ => table_run(arch, source, tables, rule, entry, &mut place, memory, entries),
    };
    if nr > 0 {
        commit(arch, options, state, &place, &rule);
        let before = u32::try_from(nr).unwrap_or(u32::MAX).saturating_sub(1);
        state.depth = state.depth.saturating_add(before);
    }
    if let Some(error) = failed {
        state.end = Some(End::Truncated(Cut::Memory(error)));
    }
    nr
}

/// Takes one plain step, if it is one: whether it has. `ahead`, for those who will take the next one as well,
/// is the rule of the frame at hand, if it is known already, and then that of the caller.
///
/// # Errors
/// Where it would be one, but memory cannot be read.
#[inline]
pub(crate) fn next<A, S, M, R>(
    arch: &A,
    source: &S,
    options: &Options,
    state: &mut UnwindUserState<R>,
    memory: &mut M,
    mut ahead: Option<&mut Option<Plain>>,
) -> Result<bool, MemoryError>
where
    A: Arch,
    S: FrameSource<A>,
    M: MemoryReader,
    R: RegisterSet,
{
    let known = ahead.as_deref_mut().and_then(Option::take);
    let Some(at) = Place::of(state) else { return Ok(false) };
    if state.depth >= options.max_frames.saturating_sub(1) {
        return Ok(false);
    }
    let tables = tables(source, options);
    let rule = match known {
        Some(_) if state.sp_is_bound || Entry::of(options).has(at.pc) => None,
        Some(rule) => Some(rule),
        None => begin(arch, source, options, state, tables, memory),
    };
    let Some(rule) = rule else { return Ok(false) };
    let mut failed = None;
    let Some(Ahead { cfa, sp, pc }) = Ahead::of(arch, &rule, &at, memory, &mut failed) else {
        return failed.map_or(Ok(false), Err);
    };
    let mut after = source.peek(arch, tables, &Query::new(Pc::Return(pc)));
    if after.is_none() {
        if !may_be_code(source, pc) {
            return Ok(false);
        }
        if ahead.is_some() {
            after = ask(arch, source, tables, Pc::Return(pc), memory);
        }
    }
    let Some(fp) = caller_fp(arch, &rule, &at, cfa, memory, &mut failed) else {
        return failed.map_or(Ok(false), Err);
    };
    commit(arch, options, state, &Place { pc, sp, fp }, &rule);
    if let Some(ahead) = ahead {
        *ahead = after;
    }
    Ok(true)
}

/// Takes the step that `found`, the answer of a source, says, if it is a plain one: whether it has.
///
/// # Errors
/// Where it would be one, but memory cannot be read.
#[inline(never)]
pub(crate) fn step<A, S, M, R>(
    arch: &A,
    source: &S,
    options: &Options,
    state: &mut UnwindUserState<R>,
    memory: &mut M,
    (kind, found): (UnwindUserType, &Found),
) -> Result<bool, MemoryError>
where
    A: Arch,
    S: FrameSource<A> + ?Sized,
    M: MemoryReader,
    R: RegisterSet,
{
    let rule = Plain::new(kind, found).filter(|rule| !state.sp_is_bound && rule.holds_at(state.pc));
    let (Some(at), Some(rule)) = (Place::of(state), rule) else { return Ok(false) };
    let mut failed = None;
    let Some(Ahead { cfa, sp, pc }) = Ahead::of(arch, &rule, &at, memory, &mut failed) else {
        return failed.map_or(Ok(false), Err);
    };
    if !may_be_code(source, pc) {
        return Ok(false);
    }
    let Some(fp) = caller_fp(arch, &rule, &at, cfa, memory, &mut failed) else {
        return failed.map_or(Ok(false), Err);
    };
    commit(arch, options, state, &Place { pc, sp, fp }, &rule);
    Ok(true)
}

/// The rule of the frame at hand, where it is plain.
#[inline]
fn begin<A, S, M, R>(
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
        // A frame pointer of zero ends the chain, which is for the full step to say.
        return (state.fp != Some(0)).then_some(rule);
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
    fn of<R: RegisterSet>(state: &UnwindUserState<R>) -> Option<Place> {
        match (state.fp, R::TRACKS, state.end) {
            (Some(fp), false, None) => Some(Place { pc: state.pc.address(), sp: state.sp, fp }),
            _ => None,
        }
    }
}

/// Moves the state to the caller: all of it, at once.
#[inline]
fn commit<A: Arch, R: RegisterSet>(
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
struct Entry {
    first: u64,
    length: u64,
}

impl Entry {
    #[inline]
    fn of(options: &Options) -> Self {
        match &options.entry_function {
            // A return pc is looked up one byte before it.
            Some(entry) => {
                Entry { first: entry.start.wrapping_add(1), length: entry.end.saturating_sub(entry.start) }
            }
            None => Entry { first: 0, length: 0 },
        }
    }

    #[inline]
    fn has(self, pc: u64) -> bool {
        pc.wrapping_sub(self.first) < self.length
    }
}

/// A run by tables, all rules of which are from one kind of source and equally trusted: how many steps, and
/// which memory the next one failed for.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the inner loop, in registers")]
fn table_run<A, S, M>(
    arch: &A,
    source: &S,
    tables: UnwindUserTypes,
    mut rule: Plain,
    entry: Entry,
    place: &mut Place,
    memory: &mut M,
    entries: &mut [u64],
) -> (usize, Option<MemoryError>)
where
    A: Arch,
    S: FrameSource<A>,
    M: MemoryReader,
{
    let mut at = *place;
    let mut nr = 0usize;
    let mut failed = None;
    while let Some(slot) = entries.get_mut(nr) {
        let Some(Ahead { cfa, sp, pc }) = Ahead::of(arch, &rule, &at, memory, &mut failed) else { break };
        // What is handed out at hand is code by contract.
        let mut next = source.peek(arch, tables, &Query::new(Pc::Return(pc)));
        if next.is_none() {
            if !may_be_code(source, pc) {
                break;
            }
            next = ask(arch, source, tables, Pc::Return(pc), memory);
        }
        let Some(fp) = caller_fp(arch, &rule, &at, cfa, memory, &mut failed) else { break };
        at = Place { pc, sp, fp };
        *slot = pc;
        nr = nr.wrapping_add(1);
        match next {
            Some(next) if next.is_like(&rule) && !entry.has(pc) => rule = next,
            _ => break,
        }
    }
    *place = at;
    (nr, failed)
}

/// A run along the frame pointers: how many steps, and which memory the next one failed for.
#[inline(always)]
fn chain_run<A, S, M>(
    arch: &A,
    source: &S,
    entry: Entry,
    place: &mut Place,
    memory: &mut M,
    entries: &mut [u64],
) -> (usize, Option<MemoryError>)
where
    A: Arch,
    S: FrameSource<A>,
    M: MemoryReader,
{
    let mut at = *place;
    let mut nr = 0usize;
    let mut failed = None;
    let Some(rule) = chain_rule(arch) else { return (0, None) };
    while let Some(slot) = entries.get_mut(nr) {
        let Some(Ahead { cfa, sp, pc }) = Ahead::of(arch, &rule, &at, memory, &mut failed) else { break };
        if !may_be_code(source, pc) {
            break;
        }
        let Some(fp) = caller_fp(arch, &rule, &at, cfa, memory, &mut failed) else { break };
        at = Place { pc, sp, fp };
        *slot = pc;
        nr = nr.wrapping_add(1);
        // A frame pointer of zero ends the chain, which is for the full step to say.
        if fp == 0 || entry.has(pc) {
            break;
        }
    }
    *place = at;
    (nr, failed)
}

/// The rule at a pc, if it is plain.
#[inline(never)]
fn ask<A, S, M>(arch: &A, source: &S, tables: UnwindUserTypes, pc: Pc, memory: &mut M) -> Option<Plain>
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
fn chain_rule<A: Arch>(arch: &A) -> Option<Plain> {
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

/// What a step leads to, but for the caller's frame pointer, which is read when the pc is known to be code.
struct Ahead {
    cfa: u64,
    sp: u64,
    pc: u64,
}

impl Ahead {
    /// Carries a rule out, with all the checks of a step but for code. `None` where one of them fails, and
    /// near the ends of the address space; `failed` says whether it was memory.
    #[inline(always)]
    fn of<A: Arch, M: MemoryReader>(
        arch: &A,
        rule: &Plain,
        at: &Place,
        memory: &mut M,
        failed: &mut Option<MemoryError>,
    ) -> Option<Self> {
        /// No offset from the CFA, nor what is read there, leads beyond this distance.
        const REACH: u64 = 1 << 16;
        let word = arch.word_size();
        let base = if rule.use_fp() { at.fp } else { at.sp };
        // Below sp, a frame pointer is none.
        if base < at.sp {
            return None;
        }
        let cfa = base.checked_add(u64::from(rule.cfa_off()))?;
        if cfa.wrapping_sub(REACH) > word.max_address().wrapping_sub(REACH << 1) || !word.is_aligned(cfa) {
            return None;
        }
        let bias = arch.sp_bias();
        let sp = cfa.wrapping_add_signed(i64::from(bias));
        // The offset of a plain rule's CFA is positive.
        if bias < 0 && sp <= at.sp {
            return None;
        }
        let ra = saved(arch, cfa, rule.ra_off(), memory, failed)?;
        let pc = word.truncate(arch.strip_code_pointer(ra));
        (pc != 0).then_some(Ahead { cfa, sp, pc })
    }
}

#[inline(always)]
fn caller_fp<A: Arch, M: MemoryReader>(
    arch: &A,
    rule: &Plain,
    at: &Place,
    cfa: u64,
    memory: &mut M,
    failed: &mut Option<MemoryError>,
) -> Option<u64> {
    if !rule.saves_fp() {
        return Some(at.fp);
    }
    let Some(fp) = saved(arch, cfa, rule.fp_off(), memory, failed) else {
        // Below sp it may not be there any more, which is for the full step to say.
        if cfa.wrapping_add_signed(i64::from(rule.fp_off())) < at.sp {
            *failed = None;
        }
        return None;
    };
    Some(arch.word_size().truncate(fp))
}

/// The register that is saved at an offset from the CFA.
#[inline(always)]
fn saved<A: Arch, M: MemoryReader>(
    arch: &A,
    cfa: u64,
    offset: i16,
    memory: &mut M,
    failed: &mut Option<MemoryError>,
) -> Option<u64> {
    let address = cfa.wrapping_add_signed(i64::from(offset));
    match memory.read_word(address, arch.register_size(), arch.byte_order()) {
        Ok(word) => Some(word),
        Err(error) => {
            *failed = Some(error);
            None
        }
    }
}
