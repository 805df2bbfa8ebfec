//! The shadow stack itself.

use std::ops::Range;

use unwind_core::Pc;

use super::event::{Event, Place, Planted, Seen, Settled, TrueFrame};

/// An entry of the shadow stack, for as long as the run lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryId(u64);

type Stack = usize;

#[derive(Clone, Debug)]
enum Link {
    Call {
        return_address: u64,
    },
    /// `sp` is the handler's when it returns.
    Signal {
        pc: u64,
        handler_sp: u64,
    },
}

#[derive(Clone, Debug)]
struct Entry<R> {
    id: EntryId,
    link: Link,
    /// The sp of the caller, or of the interrupted place.
    sp: u64,
    stack: Stack,
    registers: Option<R>,
}

#[derive(Clone, Debug)]
struct Context<R> {
    /// The stack on which it began.
    stack: Stack,
    entries: Vec<Entry<R>>,
}

/// The true call stack of a thread.
#[derive(Clone, Debug)]
pub struct Shadow<R> {
    slot: u64,
    /// The declared stacks; stack 0 is the thread's own, and everything that is not declared.
    stacks: Vec<Range<u64>>,
    contexts: Vec<Context<R>>,
    current: usize,
    limbo: bool,
    next_id: u64,
    /// Entries with smaller ids are suppositions.
    supposed_below: u64,
    seen: Seen,
}

impl<R: Clone> Shadow<R> {
    /// The stack of a thread at its very first instruction: nobody called it. `slot` is how many
    /// bytes below the caller's sp a call uses for the return address: 8 where it pushes it, 0 where it
    /// leaves it in a register.
    pub fn new(slot: u64) -> Self {
        Shadow {
            slot,
            stacks: Vec::new(),
            contexts: vec![Context { stack: 0, entries: Vec::new() }],
            current: 0,
            limbo: false,
            next_id: 0,
            supposed_below: 0,
            seen: Seen { contexts: 1, ..Seen::default() },
        }
    }

    /// States that `range` is a stack of its own, and a new one: what waited on it waits no more.
    pub fn declare_stack(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        match self.stacks.iter().position(|stack| *stack == range) {
            None => self.stacks.push(range),
            Some(index) => {
                let current = self.current;
                let waiting = self
                    .contexts
                    .iter_mut()
                    .enumerate()
                    .filter(|(other, context)| *other != current && context.stack == index + 1);
                waiting.for_each(|(_, context)| context.entries.clear());
            }
        }
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Whether the chain is undecided; see the module's rules.
    pub fn in_limbo(&self) -> bool {
        self.limbo
    }

    /// How many entries the current context has.
    pub fn depth(&self) -> usize {
        self.entries().len()
    }

    /// The entry that frame `index` of the chain at hand comes from; the topmost frame has none.
    pub fn entry(&self, index: usize) -> Option<EntryId> {
        let index = self.depth().checked_sub(index).filter(|_| index > 0)?;
        self.entries().get(index).map(|entry| entry.id)
    }

    /// Whether an entry has not ended yet: it may be one of a context that is not running.
    pub fn is_alive(&self, id: EntryId) -> bool {
        self.contexts.iter().any(|context| context.entries.iter().any(|entry| entry.id == id))
    }

    /// A handler may change what it returns to, registers and all. Asks for every signal of the current
    /// context, by the sp that its handler leaves behind, what its frame holds now.
    pub fn refresh_signals(&mut self, mut now: impl FnMut(u64) -> Option<(Place, R)>) {
        for entry in self.entries_mut() {
            if let Link::Signal { pc, handler_sp } = &mut entry.link
                && let Some((place, registers)) = now(*handler_sp)
            {
                *pc = place.pc;
                entry.sp = place.sp;
                entry.registers = Some(registers);
            }
        }
    }

    /// Where the innermost call returns to, or 0 where there is none.
    pub fn caller(&self) -> u64 {
        match self.entries().last() {
            Some(Entry { link: Link::Call { return_address }, .. }) => *return_address,
            Some(Entry { link: Link::Signal { pc, .. }, .. }) => *pc,
            None => 0,
        }
    }

    /// The true chain at `place`, innermost first. In limbo: the one that held before it.
    pub fn chain(&self, place: Place, registers: R) -> Vec<TrueFrame<R>> {
        let mut chain = Vec::with_capacity(self.depth() + 1);
        chain.push(TrueFrame { pc: Pc::Exact(place.pc), sp: place.sp, registers: Some(registers) });
        self.callers(&mut chain);
        chain
    }

    /// Appends the callers of the place at hand to `chain`, innermost first.
    pub fn callers(&self, chain: &mut Vec<TrueFrame<R>>) {
        chain.extend(self.entries().iter().rev().map(|entry| TrueFrame {
            pc: match entry.link {
                Link::Call { return_address } => Pc::Return(return_address),
                Link::Signal { pc, .. } => Pc::Exact(pc),
            },
            sp: entry.sp,
            registers: entry.registers.clone(),
        }));
    }

    /// Supposes that these are the callers of the place at hand, innermost first: for a shadow that begins in
    /// mid-run. Every return to one of them confirms it ([`Seen::confirmed`]); any other return is odd.
    pub fn suppose(&mut self, callers: impl DoubleEndedIterator<Item = (Pc, u64)>) {
        for (pc, sp) in callers.rev() {
            let link = match pc {
                Pc::Return(return_address) => Link::Call { return_address },
                Pc::Exact(pc) => Link::Signal { pc, handler_sp: 0 },
            };
            self.push(link, sp, None);
            self.seen.supposed += 1;
        }
        self.supposed_below = self.next_id;
    }

    /// Takes note of what the last instruction did; execution now stands at `place`. `planted` says
    /// what a function at this place would return to if it had just been entered, and is asked only
    /// where a new context begins.
    pub fn after(
        &mut self,
        event: Event<R>,
        place: Place,
        planted: impl FnOnce() -> Option<Planted>,
    ) -> Settled {
        match event {
            Event::Call { return_address, sp, registers } => {
                self.seen.calls += 1;
                self.push(Link::Call { return_address }, sp, Some(registers));
                self.settle(place)
            }
            Event::Signal { interrupted, registers, trampoline, sp } => {
                self.seen.signals += 1;
                let link = Link::Signal { pc: interrupted.pc, handler_sp: sp };
                self.push(link, interrupted.sp, Some(registers));
                self.push(Link::Call { return_address: trampoline }, sp, None);
                self.settle(place)
            }
            Event::SignalReturn => {
                self.seen.signal_returns += 1;
                // A handler may have changed the place to return to; that it returned is certain.
                let signal = |entry: &Entry<R>| matches!(entry.link, Link::Signal { .. });
                match self.entries().iter().rposition(signal) {
                    Some(index) => self.entries_mut().truncate(index),
                    None => return self.transfer(place, planted),
                }
                self.settle(place)
            }
            Event::Return | Event::Jump => {
                let is_return = matches!(event, Event::Return);
                if self.returned_to(place) {
                    self.seen.returns += 1;
                    let supposed =
                        self.entries_mut().pop().is_some_and(|entry| entry.id.0 < self.supposed_below);
                    self.seen.confirmed += u64::from(supposed);
                    let settled = if self.limbo { Settled::Moved } else { Settled::Here };
                    self.limbo = false;
                    return settled;
                }
                self.seen.odd_returns += u64::from(is_return);
                if self.is_here(place) && !(is_return && self.slot == 0) {
                    self.limbo = false;
                    return Settled::Here;
                }
                let took_slot = is_return && self.entries().last().is_some_and(|entry| entry.sp == place.sp);
                match self.transfer(place, planted) {
                    Settled::Moved if took_slot => Settled::NoCall,
                    settled => settled,
                }
            }
            Event::Plain => self.settle(place),
        }
    }

    fn entries(&self) -> &[Entry<R>] {
        &self.contexts[self.current].entries
    }

    fn entries_mut(&mut self) -> &mut Vec<Entry<R>> {
        &mut self.contexts[self.current].entries
    }

    fn stack_of(&self, sp: u64) -> Stack {
        // An empty stack's sp is at its end.
        self.stacks.iter().position(|stack| stack.start < sp && sp <= stack.end).map_or(0, |index| index + 1)
    }

    fn push(&mut self, link: Link, sp: u64, registers: Option<R>) {
        let stack = self.stack_of(sp);
        let id = EntryId(self.next_id);
        self.next_id += 1;
        self.entries_mut().push(Entry { id, link, sp, stack, registers });
        self.limbo = false;
    }

    /// Whether this is where the top entry's call returns to.
    fn returned_to(&self, place: Place) -> bool {
        self.entries().last().is_some_and(|entry| {
            matches!(entry.link, Link::Call { return_address } if return_address == place.pc)
                && entry.sp == place.sp
        })
    }

    /// Whether the top entry's callee, as far as sp tells, is still running.
    fn is_here(&self, place: Place) -> bool {
        let stack = self.stack_of(place.sp);
        match self.entries().last() {
            None => stack == self.contexts[self.current].stack,
            // A handler has returned to its trampoline: sp is where it pleases.
            Some(Entry { link: Link::Signal { .. }, .. }) => true,
            Some(entry) => entry.stack == stack && place.sp.saturating_add(self.slot) <= entry.sp,
        }
    }

    fn settle(&mut self, place: Place) -> Settled {
        self.limbo = !self.is_here(place);
        if self.limbo { Settled::Limbo } else { Settled::Here }
    }

    /// Control has left the top entry's callee for `place`.
    fn transfer(&mut self, place: Place, planted: impl FnOnce() -> Option<Planted>) -> Settled {
        self.seen.transfers += 1;
        self.limbo = false;
        let stack = self.stack_of(place.sp);
        let is_on = |context: &Context<R>| {
            context.stack == stack || context.entries.iter().any(|entry| entry.stack == stack)
        };
        if !is_on(&self.contexts[self.current]) {
            self.current = match self.contexts.iter().position(is_on) {
                Some(context) => context,
                None => {
                    self.seen.contexts += 1;
                    self.contexts.push(Context { stack, entries: Vec::new() });
                    self.contexts.len() - 1
                }
            };
        }
        while let Some(entry) = self.entries().last() {
            if entry.stack == stack && entry.sp > place.sp {
                break;
            }
            self.entries_mut().pop();
            self.seen.abandoned += 1;
        }
        if self.current != 0
            && self.entries().is_empty()
            && let Some(planted) = planted()
        {
            self.push(Link::Call { return_address: planted.return_address }, planted.sp, None);
        }
        Settled::Moved
    }
}
