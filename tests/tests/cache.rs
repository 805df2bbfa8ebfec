//! The rule cache: a walk through it is the walk without it, whatever its size, whoever shares it, and
//! whatever was at the same addresses before.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use unwind_arch_x86_64::X86_64;
use unwind_core::{
    Arch, CacheSlot, Cached, Found, FrameSource, LookupError, MemoryError, MemoryReader, Pc, Query, Rule,
    RuleCache, Trust, UnwindUserFrame, UnwindUserType, UnwindUserTypes, Unwinder, from_fn,
};
use unwind_tests::reference::walk_by_library;
use unwind_tests::synthetic::chaos::mix;
use unwind_tests::synthetic::{lay_out, strategy};

fn slots(count: usize) -> Vec<CacheSlot> {
    (0..count).map(|_| CacheSlot::new()).collect()
}

fn no_memory() -> impl MemoryReader {
    from_fn(|address, _: &mut [u8]| Err(MemoryError::Unreadable { address }))
}

proptest! {
    #![proptest_config(strategy::cases(300))]

    /// All stacks share a cache and lie at about the same addresses; each walks twice, so that what the
    /// first walk left is used.
    #[test]
    fn walks_are_the_same(arch in strategy::arch(), specs in prop::collection::vec(strategy::chain(12), 1..4)) {
        for count in [0, 1, 2, 64, 4096] {
            let slots = slots(count);
            let cache = RuleCache::new(&slots);
            for (generation, spec) in (0..).zip(&specs) {
                let stack = lay_out(arch, spec);
                let plain = Unwinder::with_options(stack.arch, &stack.rules, stack.options.clone());
                let plain = walk_by_library(&plain, &stack.registers, || &stack.memory).expect("it starts");
                for _ in 0..2 {
                    let source = Cached { cache, generation, source: &stack.rules };
                    let cached = Unwinder::with_options(stack.arch, source, stack.options.clone());
                    let cached = walk_by_library(&cached, &stack.registers, || &stack.memory).expect("it starts");
                    prop_assert_eq!(&cached.frames, &plain.frames);
                    prop_assert_eq!(cached.end, plain.end);
                }
            }
        }
    }
}

/// Answers by what it is asked alone, and counts how often.
struct Made {
    generation: u64,
    asked: AtomicU64,
}

impl Made {
    fn new(generation: u64) -> Self {
        Made { generation, asked: AtomicU64::new(0) }
    }

    fn truth(&self, kind: UnwindUserType, pc: Pc) -> Option<Found> {
        let exact = u64::from(pc.is_exact());
        let random = mix(pc.address() ^ mix(self.generation) ^ (exact << 40) ^ ((kind as u64) << 50));
        let trust =
            [Trust::Guess, Trust::Convention, Trust::CallSite, Trust::Exact][(random >> 8) as usize % 4];
        // Rules whose offsets need more than 16 bits are not remembered; here, one of eight.
        let off = |at: u32| {
            if random >> 61 == 0 { (random >> at) as i32 } else { i32::from((random >> at) as i16) }
        };
        let fp_off = (random >> 36) as i16;
        let fp_off = (fp_off & 1 == 0).then_some(i32::from(fp_off));
        let frame = UnwindUserFrame::plain(random & 1 == 0, off(16), off(20), fp_off);
        match random % 7 {
            0 => None,
            1 => Some(Found::new(Rule::Evaluate, trust)),
            _ => Some(Found::new(Rule::Frame(frame), trust).at_end(random & 2 == 0)),
        }
    }
}

const KINDS: UnwindUserTypes = UnwindUserTypes::only(UnwindUserType::Table).with(UnwindUserType::Dwarf);

impl<A: Arch> FrameSource<A> for Made {
    fn types(&self) -> UnwindUserTypes {
        KINDS
    }

    fn lookup(
        &self,
        _: &A,
        kind: UnwindUserType,
        query: &Query,
        _: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(self.truth(kind, query.pc))
    }
}

#[test]
fn nothing_is_mistaken_for_something_else() {
    for count in [1, 2, 3, 64, 1000] {
        let slots = slots(count);
        let cache = RuleCache::new(&slots);
        let mut asked = 0;
        for turn in 0..20_000u64 {
            let random = mix(turn);
            let source = Made::new(random % 3);
            let cached = Cached { cache, generation: random % 3, source: &source };
            let address = 0x1000 + (random >> 8) % 40 * 16;
            let pc = if random & 0x10 == 0 { Pc::Exact(address) } else { Pc::Return(address) };
            let kind = if random & 0x20 == 0 { UnwindUserType::Table } else { UnwindUserType::Dwarf };
            let found = cached.lookup(&X86_64, kind, &Query::new(pc), &mut no_memory());
            assert_eq!(found, Ok(source.truth(kind, pc)));
            asked += source.asked.load(Ordering::Relaxed);
        }
        println!("{count} slots: asked {asked} times of 20000");
        // The kinds, and an exact and a return pc, share a slot.
        assert!(count < 1000 || asked < 17_000, "it remembers something");
        assert!(asked >= 480, "there are 480 different questions");
    }
}

#[test]
fn what_is_asked_again_is_known() {
    let slots = slots(4096);
    let source = Made::new(1);
    let cached = Cached { cache: RuleCache::new(&slots), generation: 1, source: &source };
    for _ in 0..10 {
        for pc in [Pc::Exact(0x1000), Pc::Return(0x2005)] {
            let _ = cached.lookup(&X86_64, UnwindUserType::Dwarf, &Query::new(pc), &mut no_memory());
        }
    }
    assert_eq!(source.asked.load(Ordering::Relaxed), 2);
    // Below a module map: the place does not say which module it is.
    for _ in 0..3 {
        let query = Query { bias: 0x1000, ..Query::new(Pc::Exact(0x1000)) };
        let _ = cached.lookup(&X86_64, UnwindUserType::Dwarf, &query, &mut no_memory());
    }
    assert_eq!(source.asked.load(Ordering::Relaxed), 5);
}

/// Fails for a while, in every way there is.
struct Failing(RefCell<Vec<LookupError>>);

impl<A: Arch> FrameSource<A> for Failing {
    fn types(&self) -> UnwindUserTypes {
        KINDS
    }

    fn lookup(
        &self,
        _: &A,
        _: UnwindUserType,
        _: &Query,
        _: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError> {
        match self.0.borrow_mut().pop() {
            Some(error) => Err(error),
            None => Ok(None),
        }
    }
}

#[test]
fn errors_are_not_remembered() {
    let errors = [
        LookupError::Memory(MemoryError::Unreadable { address: 8 }),
        LookupError::Memory(MemoryError::Transport { code: 5 }),
        LookupError::AddressOverflow,
    ];
    let slots = slots(16);
    let source = Failing(RefCell::new(errors.to_vec()));
    let cached = Cached { cache: RuleCache::new(&slots), generation: 0, source };
    let ask = || {
        let query = Query::new(Pc::Exact(1));
        cached.lookup(&X86_64, UnwindUserType::Dwarf, &query, &mut no_memory())
    };
    for error in errors.iter().rev() {
        assert_eq!(ask(), Err(*error));
    }
    assert_eq!(ask(), Ok(None));
}

#[test]
fn threads_share_it() {
    for count in [1, 2, 64] {
        let slots = slots(count);
        let cache = RuleCache::new(&slots);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                scope.spawn(move || {
                    let source = Made::new(thread % 2);
                    let cached = Cached { cache, generation: thread % 2, source: &source };
                    for turn in 0..200_000u64 {
                        let random = mix(thread << 32 | turn);
                        let pc = Pc::Return(0x4000 + random % 8);
                        let query = Query::new(pc);
                        let found = cached.lookup(&X86_64, UnwindUserType::Dwarf, &query, &mut no_memory());
                        assert_eq!(found, Ok(source.truth(UnwindUserType::Dwarf, pc)));
                    }
                });
            }
        });
    }
}
