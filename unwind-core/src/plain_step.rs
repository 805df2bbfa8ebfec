//! Plain steps, many in a row.
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
struct Place {
    pc: u64,
    sp: u64,
    fp: u64,
}

/// Where a table says that nobody called the frame.
const OUTERMOST: End = End::Complete(Mark::UndefinedReturnAddress);

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
    let Some(place) = Place::of(state) else { return 0 };
    let left = options.max_frames.saturating_sub(1).saturating_sub(state.depth);
    let left = usize::try_from(left).unwrap_or(usize::MAX).min(entries.len());
    let entries = match entries.get_mut(..left) {
        Some(entries) if left > 0 => entries,
        _ => return 0,
    };
    let tables = tables(source, options);
    let Some(rule) = begin(arch, source, options, state, tables, memory) else { return 0 };
    if rule.is_outermost() {
        state.end = Some(OUTERMOST);
        return 0;
    }
    let mut run = Run { nr: 0, place, end: None };
    let entry = Entry::of(options);
    if rule.kind() == UnwindUserType::FramePointer {
        let next = AlongChain { arch, source, rule };
        match entry.length {
            0 => run.go::<_, _, _, false>(&next, entry, rule, memory, entries),
            _ => run.go::<_, _, _, true>(&next, entry, rule, memory, entries),
        }
    } else {
        let next = ByTables { arch, source, tables };
        match entry.length {
            0 => run.go::<_, _, _, false>(&next, entry, rule, memory, entries),
            _ => run.go::<_, _, _, true>(&next, entry, rule, memory, entries),
        }
    }
    if run.nr > 0 {
        commit(arch, options, state, &run.place, &rule);
        let before = u32::try_from(run.nr).unwrap_or(u32::MAX).saturating_sub(1);
        state.depth = state.depth.saturating_add(before);
    }
    state.end = run.end;
    run.nr
}

/// Many plain steps, all by rules of one kind of source that are trusted alike.
struct Run {
    /// How many have been taken.
    nr: usize,
    /// Where they led.
    place: Place,
    /// How the walk has ended, if it has.
    end: Option<End>,
}

/// Where the rules of many plain steps are from.
trait Rules<A, M> {
    fn arch(&self) -> &A;

    /// The rule at a return pc, [`Plain::NONE`] where it is not plain; `None` where that is no code.
    fn next(&self, pc: u64, callee: (u64, &Plain), memory: &mut M) -> Option<Plain>;
}

/// From tables.
struct ByTables<'a, A, S> {
    arch: &'a A,
    source: &'a S,
    tables: UnwindUserTypes,
}

impl<A: Arch, S: FrameSource<A>, M: MemoryReader> Rules<A, M> for ByTables<'_, A, S> {
    #[inline(always)]
    fn arch(&self) -> &A {
        self.arch
    }

    #[inline(always)]
    fn next(&self, pc: u64, callee: (u64, &Plain), memory: &mut M) -> Option<Plain> {
        // What is handed out at hand is code by contract.
        match self.source.peek_caller(self.arch, self.tables, &Query::new(Pc::Return(pc)), callee) {
            None if !may_be_code(self.source, pc) => None,
            None => {
                let rule = ask(self.arch, self.source, self.tables, Pc::Return(pc), memory);
                Some(rule.unwrap_or(Plain::NONE))
            }
            rule => rule,
        }
    }
}

/// Along the frame pointers.
struct AlongChain<'a, A, S> {
    arch: &'a A,
    source: &'a S,
    rule: Plain,
}

impl<A: Arch, S: FrameSource<A>, M> Rules<A, M> for AlongChain<'_, A, S> {
    #[inline(always)]
    fn arch(&self) -> &A {
        self.arch
    }

    #[inline(always)]
    fn next(&self, pc: u64, _: (u64, &Plain), _: &mut M) -> Option<Plain> {
        may_be_code(self.source, pc).then_some(self.rule)
    }
}

impl Run {
    /// Steps by `rule`, and then by what `rules` say, as far as there are `entries`; up to `entry`, if there
    /// `IS_ENTRY`, of which the full step knows.
    #[inline(never)]
    fn go<A: Arch, M: MemoryReader, N: Rules<A, M>, const IS_ENTRY: bool>(
        &mut self,
        rules: &N,
        entry: Entry,
        mut rule: Plain,
        memory: &mut M,
        entries: &mut [u64],
    ) {
        let arch = rules.arch();
        let mut at = self.place;
        let mut nr = 0usize;
        let mut stop = None;
        // A step for each entry at most.
        while let Some(slot) = entries.get_mut(nr) {
            let Some(ahead) = Ahead::of(arch, &rule, &at, memory, &mut stop) else {
                // Nothing is known about an exact pc from which a chain does not go on.
                if rule.kind() == UnwindUserType::FramePointer && nr > 0 {
                    self.end = chain_end(at.fp, stop);
                }
                break;
            };
            let Some(next) = rules.next(ahead.pc, (at.pc, &rule), memory) else { break };
            let Some(fp) = caller_fp(arch, &rule, &at, &ahead, memory, &mut stop) else { break };
            at = Place { pc: ahead.pc, sp: ahead.sp, fp };
            *slot = ahead.pc;
            nr = nr.wrapping_add(1);
            if IS_ENTRY && entry.has(ahead.pc) {
                break;
            }
            if !next.goes_on_like(&rule) {
                // At the most frames, that is what the full step says.
                if next.is_outermost() && nr < entries.len() {
                    self.end = Some(OUTERMOST);
                }
                break;
            }
            rule = next;
        }
        if let Some(end) = stop.and_then(|stop| stop.end(&rule)) {
            self.end = Some(end);
        }
        (self.nr, self.place) = (nr, at);
    }
}

/// How a chain of frame pointers ends at a return pc, if it does.
fn chain_end(fp: u64, stop: Option<Stop>) -> Option<End> {
    match stop {
        None if fp == 0 => Some(End::Complete(Mark::ZeroFramePointer)),
        Some(Stop::Zero) => Some(End::Complete(Mark::ZeroFrameRecord)),
        _ => None,
    }
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
enum Stop {
    Memory(MemoryError),
    /// A return address of zero.
    Zero,
}

impl Stop {
    /// `None` where the full step has to tell.
    fn end(self, rule: &Plain) -> Option<End> {
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
    fn of<R: RegisterSet>(state: &UnwindUserState<R>) -> Option<Place> {
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

/// What a step leads to, but for the caller's frame pointer, which is looked at when the pc is known to be code.
struct Ahead {
    cfa: u64,
    sp: u64,
    pc: u64,
}

impl Ahead {
    /// Carries a rule out, with all the checks of a step but for code. `None` where one of them fails, and
    /// near the ends of the address space; `stop` says what is known to end the walk.
    #[inline(always)]
    fn of<A: Arch, M: MemoryReader>(
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
        let cfa = slot.wrapping_add_signed(i64::from(rule.ra_to_cfa()));
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
        Some(Ahead { cfa, sp, pc })
    }
}

#[inline(always)]
fn caller_fp<A: Arch, M: MemoryReader>(
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
    let slot = ahead.cfa.wrapping_add_signed(i64::from(rule.fp_off()));
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
