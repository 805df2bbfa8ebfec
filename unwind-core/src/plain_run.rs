//! Plain steps, many in a row: how a walk into a buffer spends nearly all of its time.
//!
//! A loop in a function of its own, in registers, that looks up the rule of the caller while the step to it is
//! still under way. Where it ends is where [`crate::step`] begins.

use crate::memory::MemoryReader;
use crate::outcome::{End, Mark};
use crate::plain::Plain;
use crate::plain_step::{
    Ahead, Entry, OUTERMOST, Place, Stop, ask, begin, caller_fp, chain_rule, commit, may_be_code, tables,
};
use crate::source::{FrameSource, Query, UnwindUserType, UnwindUserTypes};
use crate::{Arch, Options, Pc, RegisterSet, UnwindUserState};

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
        let next = AlongChain { arch, source };
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

    /// The one rule for all steps, if there is but one.
    #[inline(always)]
    fn only(&self) -> Option<Plain> {
        None
    }

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
}

impl<A: Arch, S: FrameSource<A>, M> Rules<A, M> for AlongChain<'_, A, S> {
    #[inline(always)]
    fn arch(&self) -> &A {
        self.arch
    }

    /// Most architectures have a constant rule, of which a compiler makes a loop of constants.
    #[inline(always)]
    fn only(&self) -> Option<Plain> {
        chain_rule(self.arch)
    }

    #[inline(always)]
    fn next(&self, pc: u64, _: (u64, &Plain), _: &mut M) -> Option<Plain> {
        may_be_code(self.source, pc).then(|| chain_rule(self.arch).unwrap_or(Plain::NONE))
    }
}

impl Run {
    /// Steps by the rule `first`, and then by what `rules` say, as far as there are `entries`; up to `entry`, if there
    /// `IS_ENTRY`, of which the full step knows.
    #[inline(never)]
    fn go<A: Arch, M: MemoryReader, N: Rules<A, M>, const IS_ENTRY: bool>(
        &mut self,
        rules: &N,
        entry: Entry,
        first: Plain,
        memory: &mut M,
        entries: &mut [u64],
    ) {
        let arch = rules.arch();
        let mut rule = rules.only().unwrap_or(first);
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
