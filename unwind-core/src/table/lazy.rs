//! Tables made page by page, when they are first asked for.

use core::fmt;
use core::ops::Range;

use super::format::PAGE_SHIFT;
use super::lazy_room::{Adding, LazyRoom};
use super::origin::{Functions, Group, TableOrigin};
use super::rule::{TableRule, number};
use super::source::{answer, evaluate};
use crate::memory::MemoryReader;
use crate::plain::Plain;
use crate::source::{CodeAt, Evaluated, Found, FrameSource, Query, UnwindUserType, UnwindUserTypes};
use crate::source_error::{Broken, LookupError, SourceError};
use crate::{Arch, CallerRegisters, RegisterFile};

/// The table of a module that is made page by page in a [`LazyRoom`], as a [`FrameSource`], over the source
/// that it is made of: the first lookup in a page compiles the functions that it touches, with a few KiB of
/// stack, further ones are answered by it.
///
/// What it answers is what the original does. Its functions are found by a binary search: an original whose
/// search table may be out of order has to be verified before.
#[derive(Clone, Copy)]
pub struct LazyTable<'r, O> {
    room: &'r LazyRoom<'r>,
    /// Its number in the room; `None` where there are no more.
    module: Option<u32>,
    original: O,
    /// Its first address (svma), and the first one beyond.
    start: u64,
    end: u64,
}

impl<'r, O> LazyTable<'r, O> {
    pub(super) fn new(room: &'r LazyRoom<'r>, module: Option<u32>, original: O, text: Range<u64>) -> Self {
        let Range { start, end } = text;
        LazyTable { room, module, original, start, end }
    }

    /// What it is made of.
    pub fn original(&self) -> &O {
        &self.original
    }

    /// The key of the page that `svma` is in.
    #[inline]
    fn key(&self, svma: u64) -> Option<u64> {
        if svma < self.start || svma >= self.end {
            return None;
        }
        let page = (svma >> PAGE_SHIFT).wrapping_sub(self.start >> PAGE_SHIFT);
        let page = u64::from(u32::try_from(page).ok()?);
        Some(u64::from(self.module?).wrapping_shl(32) | page)
    }

    /// What holds at `svma`, and whether a function ends there; `None` where that is not known.
    #[inline]
    fn known(&self, key: u64, svma: u64) -> Option<Option<(TableRule, bool)>> {
        let [low, ..] = svma.to_le_bytes();
        let (number, ends) = self.room.find(key)?.at(low);
        Some(self.room.rule(number).map(|rule| (rule, ends)))
    }

    /// Adds the page that `svma` is in to the room, if that can be done now.
    #[cold]
    fn add<A: Arch>(&self, arch: &A, key: u64, svma: u64)
    where
        O: TableOrigin<A>,
    {
        let Some(adding) = self.room.begin() else { return };
        // Somebody else may just have done it.
        if self.room.find(key).is_some() {
            return;
        }
        let Some(mut functions) = self.original.functions_of(arch) else { return };
        let gap = if functions.is_all() { number::NOT_COVERED } else { number::ASK_ORIGINAL };
        let first = svma & !0xff;
        let mut page = Page { adding, first, at: first, number: gap.into(), ends: false, last: None };
        if page.compile(&mut functions, gap.into()).is_none() {
            page.leave();
        }
        page.finish(key);
    }
}

/// A page on its way into the room.
struct Page<'a> {
    adding: Adding<'a>,
    first: u64,
    /// The row that may still change: where it begins, the number of its rule, whether a function ends before
    /// it. At first, what holds before the page.
    at: u64,
    number: u32,
    ends: bool,
    /// The number of the row added last.
    last: Option<u32>,
}

impl Page<'_> {
    /// Goes through the functions that the page touches. `None` where their order cannot be told.
    fn compile(&mut self, functions: &mut impl Functions, gap: u32) -> Option<()> {
        if functions.count() == 0 {
            return Some(());
        }
        let last = self.first | 0xff;
        let mut place = Group::place(functions, self.first)?;
        let mut least = 0;
        while let Some(group) = Group::at(functions, place) {
            if group.start < least || group.start > group.next {
                return None;
            }
            if group.start > last {
                break;
            }
            least = group.start;
            place = group.after;
            if let Some(end) = self.group(functions, &group) {
                self.row(end, gap, end > group.start);
            }
        }
        Some(())
    }

    /// The rows of the functions with one start. Where the function ends; `None` where it goes on up to the
    /// next.
    fn group(&mut self, functions: &mut impl Functions, group: &Group) -> Option<u64> {
        let ask = u32::from(number::ASK_ORIGINAL);
        let Some(place) = group.only else {
            self.row(group.start, ask, false);
            return None;
        };
        self.row(group.start, number::NOT_COVERED.into(), false);
        let room = group.next.wrapping_sub(group.start);
        let length = functions.rows(place, |at, rule| {
            if at < room {
                let number = self.adding.number(rule);
                self.row(group.start.wrapping_add(at), number, false);
            }
        });
        let Some(length) = length else {
            self.row(group.start, ask, false);
            return None;
        };
        group.start.checked_add(length).filter(|end| *end <= group.next)
    }

    /// Leaves the page to the original.
    fn leave(&mut self) {
        self.adding.clear();
        (self.at, self.number, self.ends, self.last) = (self.first, number::ASK_ORIGINAL.into(), false, None);
    }

    /// A row. Those at the same address follow each other, and the last of them counts.
    fn row(&mut self, at: u64, number: u32, ends: bool) {
        let ends = ends || (self.ends && at == self.at);
        if at > self.first && at != self.at {
            self.flush();
        }
        (self.at, self.number, self.ends) = (at.max(self.first), number, ends && at > self.first);
    }

    /// Adds the row that no longer changes, if it is in the page.
    fn flush(&mut self) {
        let Some([low, 0, ..]) = self.at.checked_sub(self.first).map(u64::to_le_bytes) else { return };
        if self.at.wrapping_sub(self.first) <= 0xff && (self.last != Some(self.number) || self.ends) {
            self.adding.row(low, self.number, self.ends);
            self.last = Some(self.number);
        }
    }

    fn finish(mut self, key: u64) {
        self.flush();
        let ends = self.ends && self.at.wrapping_sub(self.first) == 0x100;
        self.adding.finish(key, ends);
    }
}

impl<A: Arch, O: TableOrigin<A>> FrameSource<A> for LazyTable<'_, O> {
    #[inline]
    fn types(&self) -> UnwindUserTypes {
        self.original.types().with(UnwindUserType::Table)
    }

    #[inline]
    fn lookup(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError> {
        if kind != UnwindUserType::Table {
            return self.original.lookup(arch, kind, query, memory);
        }
        let svma = arch.word_size().truncate(query.pc.lookup_address().wrapping_sub(query.bias));
        let Some(key) = self.key(svma) else { return Ok(None) };
        let found = match self.known(key, svma) {
            Some(found) => found,
            None => {
                self.add(arch, key, svma);
                match self.known(key, svma) {
                    Some(found) => found,
                    None => return Ok(None),
                }
            }
        };
        let (rule, ends) = found.ok_or(SourceError { broken: Broken::BadRow, offset: svma })?;
        Ok(answer(rule, ends && !query.pc.is_exact(), query))
    }

    #[inline]
    fn peek(&self, arch: &A, kinds: UnwindUserTypes, query: &Query) -> Option<Plain> {
        let kind = UnwindUserType::Table;
        if !kinds.contains(kind) || !kinds.better_than(kind).is_empty() {
            return None;
        }
        let svma = arch.word_size().truncate(query.pc.lookup_address().wrapping_sub(query.bias));
        let (rule, ends) = self.known(self.key(svma)?, svma)??;
        Plain::new(kind, &answer(rule, ends && !query.pc.is_exact(), query)?)
    }

    fn evaluate(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        registers: &dyn RegisterFile,
        memory: &mut dyn MemoryReader,
        caller: &mut dyn CallerRegisters,
    ) -> Result<Option<Evaluated>, LookupError> {
        if kind != UnwindUserType::Table {
            return self.original.evaluate(arch, kind, query, registers, memory, caller);
        }
        evaluate(&self.original, arch, query, registers, memory, caller)
    }

    #[inline]
    fn code_at(&self, address: u64) -> CodeAt {
        self.original.code_at(address)
    }
}

impl<O: fmt::Debug> fmt::Debug for LazyTable<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyTable")
            .field("module", &self.module)
            .field("text", &(self.start..self.end))
            .field("original", &self.original)
            .finish_non_exhaustive()
    }
}
