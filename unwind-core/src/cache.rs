//! A cache of rules: what a source answered for a pc, remembered in room that the caller gives.
//!
//! Stacks repeat: a profiler sees the same return addresses again and again. [`Cached`] stands before a
//! source, a whole [`ModuleMap`](crate::ModuleMap) for instance, and asks it only for what is not
//! remembered. Whatever could be mistaken for something else is part of the key: the address, whether it
//! is an exact or a return pc, the kind of source, and a generation that the embedder changes with the
//! modules. That a source does not cover a pc is remembered as well; errors, of memory above all, never
//! are.
//!
//! Any number of threads may share a cache, and an interrupt handler may use it in the midst of another
//! use: nothing waits. A slot that is being written is passed over by readers and writers alike.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use crate::memory::MemoryReader;
use crate::plain::{self, Plain};
use crate::plain_step;
use crate::source::{
    CodeAt, Evaluated, Found, FrameSource, LookupError, Query, Rule, Trust, UnwindUserType, UnwindUserTypes,
};
use crate::{
    Arch, Base, CallerRegisters, CfaRule, FpRule, FrameKind, Pc, RaRule, Register, RegisterFile,
    UnwindUserFrame,
};

/// Room for one answer: 32 bytes.
#[derive(Debug, Default)]
#[repr(align(32))]
pub struct CacheSlot {
    /// How often the slot was written, times two, and odd while it is being written; in the lowest bits,
    /// the answer beside its rule.
    state: AtomicU64,
    pc: AtomicU64,
    generation: AtomicU64,
    rule: AtomicU64,
}

impl CacheSlot {
    /// A slot without an answer.
    pub const fn new() -> Self {
        CacheSlot {
            state: AtomicU64::new(0),
            pc: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            rule: AtomicU64::new(0),
        }
    }
}

/// A cache in borrowed slots. Each question has one slot that its answer is in, or that slot's neighbour if
/// another answer has taken its place; the more slots, the fewer share one. 4,096 slots answer for nearly all frames of a busy program. Only a power of two of them
/// is used, as many as there are. Rules with offsets from the CFA of more than 16 bits, or with other base
/// registers than sp and fp, are not remembered; hardly any function has one.
///
/// ```
/// use unwind_core::{CacheSlot, Cached, RuleCache, UnwindUserFrame};
///
/// static SLOTS: [CacheSlot; 512] = [const { CacheSlot::new() }; 512];
///
/// let cache = RuleCache::new(&SLOTS);
/// // Before the modules of a process, which are in their 7th state.
/// let source = Cached { cache, generation: 7, source: () };
/// # let _ = source;
/// ```
#[derive(Clone, Copy)]
pub struct RuleCache<'c> {
    slots: &'c [CacheSlot],
    /// How many are used, less one.
    mask: usize,
}

/// The answer beside its rule, in the lowest bits of a slot's state. Where the rule is plain, it lies there as
/// [`Plain`] has it; these are the other bits, and those of other rules, which are the same where both have them.
const TAG_BITS: u32 = 22;
const TAG: u64 = (1 << TAG_BITS) - 1;
/// The part of it that is key: bits 0 to 4, the kinds that were asked, without which there is no answer;
/// bit 5, whether it is for an exact pc.
const KEY: u64 = 0x3f;
const IS_EXACT: u64 = 1 << 5;
/// No key: nothing is found by it. What is being written has no other bit of it.
const NO_KEY: u64 = WRITE | IS_EXACT;
const IS_SIGNAL: u64 = 1 << 6;
const IS_AT_END: u64 = 1 << 7;
/// The kind that answered, all bits of it where none covers the pc, and two bits of trust.
const ORIGIN_SHIFT: u32 = plain::KIND_SHIFT;
const ORIGIN: u64 = 0x3f;
const NOT_COVERED: u8 = 0xf;
const ORIGIN_KIND: u8 = 0xf;
const ORIGIN_TRUST_SHIFT: u32 = 4;
/// What the rule word holds, two bits: a rule that is left to the source to evaluate; one with the return
/// address at an offset from the CFA; one with it in a register; one without.
const SHAPE_SHIFT: u32 = 14;
const EVALUATE: u64 = 0;
const RA_AT_CFA: u64 = 1;
const RA_IN_REGISTER: u64 = 2;
const RA_UNDEFINED: u64 = 3;
/// Whether the CFA is based on the frame pointer, whether that is saved at an offset from the CFA, and whether
/// it is lost.
const USE_FP: u64 = widen(plain::USE_FP);
const SAVES_FP: u64 = widen(plain::SAVES_FP);
const FP_UNDEFINED: u64 = 1 << 19;
/// Whether the rule is a [`Plain`] one.
const IS_PLAIN: u64 = widen(plain::SET);
/// One write begun, or ended.
const WRITE: u64 = 1 << TAG_BITS;
/// What a plain rule has beside its offsets is above the key and below the count.
const _: () = assert!(widen(plain::META) & (KEY | IS_SIGNAL | IS_AT_END | !TAG) == 0);

const fn widen(bits: u32) -> u64 {
    let [a, b, c, d] = bits.to_le_bytes();
    u64::from_le_bytes([a, b, c, d, 0, 0, 0, 0])
}

impl<'c> RuleCache<'c> {
    /// A cache in these slots. Without slots nothing is remembered.
    pub const fn new(slots: &'c [CacheSlot]) -> Self {
        let mask = match slots.len().checked_ilog2() {
            Some(bits) => 1usize.wrapping_shl(bits).wrapping_sub(1),
            None => 0,
        };
        RuleCache { slots, mask }
    }

    /// The number of the slot that the answer for a pc is in.
    #[inline]
    fn number(&self, pc: u64, generation: u64) -> usize {
        // A walk waits for this number. Return addresses differ in their lower bits; those above a
        // page's tell apart what lies alike in its page.
        let [a, b, c, d, ..] = (pc.wrapping_shr(11) ^ (pc ^ generation)).to_le_bytes();
        usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(0) & self.mask
    }

    /// The slot that an answer goes to when another one takes its own: its neighbour.
    fn neighbour(&self, number: usize) -> Option<&'c CacheSlot> {
        self.slots.get((number ^ 1) & self.mask)
    }

    /// What is remembered for this key.
    fn get(&self, key: u64, pc: u64, generation: u64) -> Option<Answer> {
        let number = self.number(pc, generation);
        let of = |slot: &CacheSlot| {
            let held = slot.read()?;
            ((held.answer.tag & KEY, held.pc, held.generation) == (key, pc, generation))
                .then_some(held.answer)
        };
        self.slots.get(number).and_then(of).or_else(|| of(self.neighbour(number)?))
    }

    /// What is remembered for this key in its own slot, if it is plain. A walk waits for this.
    #[inline]
    fn get_plain(&self, key: u64, pc: u64, generation: u64) -> Option<Plain> {
        let slot = self.slots.get(self.number(pc, generation))?;
        let state = slot.state.load(Ordering::Acquire);
        let rule = slot.rule.load(Ordering::Relaxed);
        if state & (KEY | WRITE | IS_PLAIN) != key | IS_PLAIN
            || slot.pc.load(Ordering::Relaxed) != pc
            || slot.generation.load(Ordering::Relaxed) != generation
        {
            return None;
        }
        // As for all of a slot.
        fence(Ordering::Acquire);
        if slot.state.load(Ordering::Relaxed) != state {
            return None;
        }
        let [a, b, c, d, ..] = state.to_le_bytes();
        Some(Plain::from_words(rule, u32::from_le_bytes([a, b, c, d])))
    }

    /// Remembers an answer, unless somebody else is writing there. What was in its slot goes to the neighbour.
    fn put(&self, key: u64, pc: u64, generation: u64, answer: Answer) {
        let number = self.number(pc, generation);
        let (Some(own), Some(neighbour)) = (self.slots.get(number), self.neighbour(number)) else { return };
        if let Some(held) = own.read()
            && held.generation == generation
            && held.pc != pc
        {
            neighbour.write(&held);
        }
        own.write(&Held { pc, generation, answer: Answer { tag: answer.tag | key, rule: answer.rule } });
    }
}

/// What is in a slot.
struct Held {
    pc: u64,
    generation: u64,
    /// With the key in its tag.
    answer: Answer,
}

impl CacheSlot {
    /// All of it, if there is something, and nobody is writing.
    fn read(&self) -> Option<Held> {
        let state = self.state.load(Ordering::Acquire);
        if state & WRITE != 0 || state & TAG == 0 {
            return None;
        }
        let answer = Answer { tag: state & TAG, rule: self.rule.load(Ordering::Relaxed) };
        let (pc, generation) = (self.pc.load(Ordering::Relaxed), self.generation.load(Ordering::Relaxed));
        // If nobody has written meanwhile, all of it belongs together.
        fence(Ordering::Acquire);
        (self.state.load(Ordering::Relaxed) == state).then_some(Held { pc, generation, answer })
    }

    /// Unless somebody else is writing.
    fn write(&self, held: &Held) {
        let state = self.state.load(Ordering::Relaxed);
        if state & WRITE != 0 {
            return;
        }
        let count = state & !TAG;
        // No reader takes a slot that is being written for its own: the flag is part of what it compares.
        let writing = count | WRITE;
        if self.state.compare_exchange(state, writing, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return;
        }
        fence(Ordering::Release);
        self.pc.store(held.pc, Ordering::Relaxed);
        self.generation.store(held.generation, Ordering::Relaxed);
        self.rule.store(held.answer.rule, Ordering::Relaxed);
        self.state.store(writing.wrapping_add(WRITE) | held.answer.tag, Ordering::Release);
    }
}

impl fmt::Debug for RuleCache<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleCache").field("slots", &self.slots.len()).finish()
    }
}

/// The part of a tag that is key; [`NO_KEY`] where nothing is remembered, as conventions may be asked.
#[inline]
fn key(kinds: UnwindUserTypes, query: &Query) -> u64 {
    let exact = if query.pc.is_exact() { IS_EXACT } else { 0 };
    let kinds = u64::from(kinds.bits());
    // A bias would be one more thing to tell apart: the place before a single module is before its map.
    if kinds == 0 || kinds & !(KEY & !IS_EXACT) != 0 || query.bias != 0 { NO_KEY } else { kinds | exact }
}

/// What a source found, in two words.
#[derive(Clone, Copy)]
struct Answer {
    tag: u64,
    /// From the lowest bits on: the offset of the CFA, 32 bits; those of the return address and of the
    /// frame pointer, 16 bits each; or the number of the register that the return address is in.
    rule: u64,
}

impl Answer {
    const NOT_COVERED: Answer = Answer { tag: 0xf << ORIGIN_SHIFT, rule: 0 };

    fn plain(self) -> Option<Plain> {
        let [a, b, c, d, ..] = self.tag.to_le_bytes();
        (self.tag & IS_PLAIN != 0).then(|| Plain::from_words(self.rule, u32::from_le_bytes([a, b, c, d])))
    }

    fn of_plain(plain: Plain) -> Answer {
        let (rule, meta) = plain.to_words();
        Answer { tag: u64::from(meta), rule }
    }

    /// `None` where it does not fit. What is no code is not plain.
    fn of(kind: UnwindUserType, found: &Found, is_code: impl FnOnce() -> bool) -> Option<Answer> {
        if let Some(plain) = Plain::new(kind, found).filter(|_| is_code()) {
            let answer = Answer::of_plain(plain);
            // A plain rule says less than a frame may.
            return (answer.found() == Some((kind, *found))).then_some(answer);
        }
        let at_end = if found.is_at_end { IS_AT_END } else { 0 };
        let trust = u64::from(found.trust.to_bits()).wrapping_shl(ORIGIN_TRUST_SHIFT);
        let tag = (u64::from(kind.number()) | trust).wrapping_shl(ORIGIN_SHIFT) | at_end;
        let frame = match found.rule {
            Rule::Frame(frame) => frame,
            Rule::Evaluate => return Some(Answer { tag: tag | EVALUATE << SHAPE_SHIFT, rule: 0 }),
        };
        let (use_fp, cfa_off) = match frame.cfa() {
            CfaRule::Offset { base: Base::Sp, offset } => (0, offset),
            CfaRule::Offset { base: Base::Fp, offset } => (USE_FP, offset),
            _ => return None,
        };
        let (shape, ra) = match frame.ra() {
            RaRule::AtCfa(offset) => (RA_AT_CFA, i16::try_from(offset).ok()?.to_le_bytes()),
            RaRule::InRegister { base: Base::Register(Register(number)), offset: 0 } => {
                (RA_IN_REGISTER, number.to_le_bytes())
            }
            RaRule::Undefined => (RA_UNDEFINED, [0; 2]),
            _ => return None,
        };
        let (fp_kind, fp) = match frame.fp() {
            FpRule::Unchanged => (0, 0),
            FpRule::AtCfa(offset) => (SAVES_FP, i16::try_from(offset).ok()?),
            FpRule::Undefined => (FP_UNDEFINED, 0),
            _ => return None,
        };
        let signal = match frame.kind() {
            FrameKind::Call => 0,
            FrameKind::Signal => IS_SIGNAL,
        };
        let ([c0, c1, c2, c3], [r0, r1], [f0, f1]) = (cfa_off.to_le_bytes(), ra, fp.to_le_bytes());
        let answer = Answer {
            tag: tag | shape << SHAPE_SHIFT | use_fp | fp_kind | signal,
            rule: u64::from_le_bytes([c0, c1, c2, c3, r0, r1, f0, f1]),
        };
        // What a rule says beyond these, if anything, is not lost.
        (answer.found() == Some((kind, *found))).then_some(answer)
    }

    /// `None` where no source covers the pc.
    fn found(self) -> Option<(UnwindUserType, Found)> {
        if let Some(plain) = self.plain() {
            return Some((plain.kind(), Found::new(Rule::Frame(plain.frame()), plain.trust())));
        }
        let origin = self.origin();
        if origin & ORIGIN_KIND == NOT_COVERED {
            return None;
        }
        let kind = UnwindUserType::from_number(origin & ORIGIN_KIND);
        let [c0, c1, c2, c3, r0, r1, f0, f1] = self.rule.to_le_bytes();
        let base = if self.tag & USE_FP == 0 { Base::Sp } else { Base::Fp };
        let cfa = CfaRule::Offset { base, offset: i32::from_le_bytes([c0, c1, c2, c3]) };
        let fp = match self.tag & (SAVES_FP | FP_UNDEFINED) {
            0 => FpRule::Unchanged,
            SAVES_FP => FpRule::AtCfa(i32::from(i16::from_le_bytes([f0, f1]))),
            _ => FpRule::Undefined,
        };
        let ra = match self.tag.wrapping_shr(SHAPE_SHIFT) & 3 {
            RA_AT_CFA => Some(RaRule::AtCfa(i32::from(i16::from_le_bytes([r0, r1])))),
            RA_IN_REGISTER => Some(RaRule::InRegister {
                base: Base::Register(Register(u16::from_le_bytes([r0, r1]))),
                offset: 0,
            }),
            RA_UNDEFINED => Some(RaRule::Undefined),
            _ => None,
        };
        let rule = match ra.and_then(|ra| UnwindUserFrame::new(cfa, ra, fp)) {
            Some(frame) if self.tag & IS_SIGNAL != 0 => Rule::Frame(frame.signal()),
            Some(frame) => Rule::Frame(frame),
            None => Rule::Evaluate,
        };
        let trust = Trust::from_bits(origin.wrapping_shr(ORIGIN_TRUST_SHIFT));
        Some((kind, Found::new(rule, trust).at_end(self.tag & IS_AT_END != 0)))
    }

    #[inline]
    fn origin(self) -> u8 {
        let [origin, ..] = (self.tag.wrapping_shr(ORIGIN_SHIFT) & ORIGIN).to_le_bytes();
        origin
    }
}

/// A source behind a cache.
#[derive(Clone, Copy, Debug)]
pub struct Cached<'c, S> {
    /// The cache.
    pub cache: RuleCache<'c>,
    /// Which state of the source this is. Whoever changes what the source answers, by replacing a
    /// module for instance, takes another number, one that no source behind this cache has had.
    /// Sources of different processes have different numbers.
    pub generation: u64,
    /// The source.
    pub source: S,
}

impl<A: Arch, S: FrameSource<A>> FrameSource<A> for Cached<'_, S> {
    #[inline]
    fn types(&self) -> UnwindUserTypes {
        self.source.types()
    }

    fn lookup(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError> {
        let is_code = |pc| plain_step::may_be_code(&self.source, pc);
        let found = self.through(UnwindUserTypes::only(kind), query, is_code, || {
            Ok(self.source.lookup(arch, kind, query, memory)?.map(|found| (kind, found)))
        })?;
        Ok(found.map(|(_, found)| found))
    }

    #[inline]
    fn peek(&self, arch: &A, kinds: UnwindUserTypes, query: &Query) -> Option<Plain> {
        match self.cache.get_plain(key(kinds, query), query.pc.address(), self.generation) {
            None => self.peek_behind(arch, kinds, query.pc, query.bias),
            plain => plain,
        }
    }

    fn lookup_best(
        &self,
        arch: &A,
        kinds: UnwindUserTypes,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<(UnwindUserType, Found)>, LookupError> {
        let is_code = |pc| plain_step::may_be_code(&self.source, pc);
        self.through(kinds, query, is_code, || self.source.lookup_best(arch, kinds, query, memory))
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
        self.source.evaluate(arch, kind, query, registers, memory, caller)
    }

    #[inline]
    fn code_at(&self, address: u64) -> CodeAt {
        self.source.code_at(address)
    }
}

impl<S> Cached<'_, S> {
    /// What is not remembered, where the source has it at hand.
    #[cold]
    #[inline(never)]
    fn peek_behind<A: Arch>(&self, arch: &A, kinds: UnwindUserTypes, pc: Pc, bias: u64) -> Option<Plain>
    where
        S: FrameSource<A>,
    {
        let query = Query { pc, bias };
        let (key, pc) = (key(kinds, &query), pc.address());
        if let Some(answer) = self.cache.get(key, pc, self.generation) {
            return answer.plain();
        }
        let plain = self.source.peek(arch, kinds, &query)?;
        if key != NO_KEY {
            self.cache.put(key, pc, self.generation, Answer::of_plain(plain));
        }
        Some(plain)
    }

    /// What is remembered, or else what `ask` finds. What is not code is not to be peeked at.
    fn through(
        &self,
        kinds: UnwindUserTypes,
        query: &Query,
        is_code: impl FnOnce(u64) -> bool,
        ask: impl FnOnce() -> Result<Option<(UnwindUserType, Found)>, LookupError>,
    ) -> Result<Option<(UnwindUserType, Found)>, LookupError> {
        let (key, pc) = (key(kinds, query), query.pc.address());
        if key == NO_KEY {
            return ask();
        }
        if let Some(found) = self.cache.get(key, pc, self.generation).map(Answer::found) {
            return Ok(found);
        }
        let found = ask()?;
        let answer = match &found {
            None => Some(Answer::NOT_COVERED),
            Some((kind, found)) => Answer::of(*kind, found, || query.pc.is_exact() || is_code(pc)),
        };
        if let Some(answer) = answer {
            self.cache.put(key, pc, self.generation, answer);
        }
        Ok(found)
    }
}
