//! The registry of SFrame sections: against a slow model, and with readers that race a writer.

#![allow(clippy::single_range_in_vec_init, reason = "a list of one range of text is meant")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;
use unwind_arch_x86_64::X86_64;
use unwind_core::sframe::{
    Check, FlawKind, GrowingRoom, RegistryError, RegistryRoom, RegistrySlot, SFrameRegistry,
};
use unwind_core::{
    Broken, CfaRule, FrameSource, MemoryError, MemoryReader, Pc, Query, Rule, SourceError, UnwindUserType,
    from_fn,
};

/// How long the text of one function in [`section`] is.
const TEXT: u32 = 0x100;

/// A section (version 3, AMD64) at `address` with one function at `text`, whose rule is
/// CFA = sp + `cfa`.
fn section(address: u64, text: u64, cfa: i16) -> Vec<u8> {
    let mut bytes = vec![0xe2, 0xde, 3, 5, 3, 0, 0xf8, 0];
    for field in [1u32, 1, 5 + 6, 0, 16] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(text.wrapping_sub(address + 28).to_le_bytes());
    bytes.extend(TEXT.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    // One row with two-byte starts and words: at 0, sp + cfa.
    bytes.extend([1, 0, 1, 0, 0]);
    bytes.extend([0, 0, 0b010_0011]);
    bytes.extend(cfa.to_le_bytes());
    bytes.push(0);
    bytes
}

fn no_memory() -> impl MemoryReader {
    from_fn(|address, _: &mut [u8]| Err(MemoryError::Unreadable { address }))
}

fn cfa_at(source: &impl FrameSource<X86_64>, pc: u64) -> Option<i32> {
    let found = source
        .lookup(&X86_64, UnwindUserType::SFrame, &Query::new(Pc::Exact(pc)), &mut no_memory())
        .unwrap_or_else(|error| panic!("{pc:#x}: {error:?}"))?;
    match found.rule {
        Rule::Frame(frame) => match frame.cfa() {
            CfaRule::Offset { offset, .. } => Some(offset),
            other => panic!("{other:?}"),
        },
        Rule::Evaluate => panic!("{pc:#x}"),
    }
}

/// Section number `n` of the model: its address and its text.
fn address(n: u8) -> u64 {
    0x10_0000 + u64::from(n) * 0x1000
}

fn text(n: u8) -> u64 {
    0x80_0000 + u64::from(n) * 0x1000
}

fn leaked(n: u8) -> &'static [u8] {
    section(address(n), text(n), i16::from(n) * 8 + 8).leak()
}

#[derive(Debug, Clone)]
enum Action {
    Add { section: u8, ranges: Vec<Range<u64>> },
    Remove { section: u8 },
}

fn action() -> impl Strategy<Value = Action> {
    // Ranges are taken from a small space, so that they collide.
    let range =
        (0u64..64, 0u64..6).prop_map(|(start, len)| text(0) + start * 0x80..text(0) + (start + len) * 0x80);
    prop_oneof![
        3 => (0u8..8, proptest::collection::vec(range, 0..3)).prop_map(|(section, ranges)| Action::Add { section, ranges }),
        1 => (0u8..8).prop_map(|section| Action::Remove { section }),
    ]
}

/// What the registry should be: section → its ranges.
#[derive(Default)]
struct Model(BTreeMap<u8, Vec<Range<u64>>>);

impl Model {
    fn covers(&self, address: u64) -> Option<u8> {
        self.0.iter().find(|(_, ranges)| ranges.iter().any(|range| range.contains(&address))).map(|(n, _)| *n)
    }

    /// Whether adding would succeed, by looking at every granule of the space.
    fn allows(&self, section: u8, ranges: &[Range<u64>], room: usize) -> bool {
        let mut seen = std::collections::HashSet::new();
        !ranges.is_empty()
            && !self.0.contains_key(&section)
            && ranges.iter().all(|range| !range.is_empty())
            && ranges
                .iter()
                .flat_map(|range| range.clone().step_by(0x80))
                .all(|granule| seen.insert(granule) && self.covers(granule).is_none())
            && self.0.values().map(Vec::len).sum::<usize>() + ranges.len() <= room
    }
}

fn against_model<R: RegistryRoom>(room: R, limit: usize, actions: &[Action]) -> Result<(), TestCaseError> {
    let sections: Vec<&'static [u8]> = (0..8).map(leaked).collect();
    let bytes = move |at: u64, _: u64| (0..8).find(|n| address(*n) == at).map(|n| sections[usize::from(n)]);
    let registry = SFrameRegistry::new(room, bytes);
    let mut model = Model::default();
    for action in actions {
        match action {
            Action::Add { section, ranges } => {
                let allowed = model.allows(*section, ranges, limit);
                let added = registry.add(ranges, address(*section), 0x1000, Check::Full);
                prop_assert_eq!(added.is_ok(), allowed, "{:?}: {:?}", action, added);
                if allowed {
                    model.0.insert(*section, ranges.clone());
                }
            }
            Action::Remove { section } => {
                let removed = registry.remove(address(*section));
                prop_assert_eq!(removed.is_ok(), model.0.remove(section).is_some());
            }
        }
        prop_assert_eq!(registry.len(), model.0.values().map(Vec::len).sum::<usize>());
        for granule in 0..80 {
            let pc = text(0) + granule * 0x80;
            let registered = FrameSource::<X86_64>::code_at(&registry, pc) == unwind_core::CodeAt::Code;
            prop_assert_eq!(registered, model.covers(pc).is_some());
            // The section only describes its own function, wherever it was registered for.
            let expected = model.covers(pc).filter(|n| (text(*n)..text(*n) + u64::from(TEXT)).contains(&pc));
            prop_assert_eq!(cfa_at(&registry, pc), expected.map(|n| i32::from(n) * 8 + 8));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn lent_room_equals_the_model(actions in proptest::collection::vec(action(), 0..40)) {
        let slots: [RegistrySlot; 12] = Default::default();
        against_model(slots, 6, &actions)?;
    }

    #[test]
    fn growing_room_equals_the_model(actions in proptest::collection::vec(action(), 0..40)) {
        against_model(GrowingRoom::new(), usize::MAX, &actions)?;
    }
}

#[test]
fn what_is_wrong_is_said() {
    let good = leaked(0);
    let mut foreign = good.to_vec();
    foreign[0] = 0;
    let mut flawed = good.to_vec();
    flawed[12] = 7;
    let list = [(address(0), good), (address(1), foreign.as_slice()), (address(2), flawed.as_slice())];
    let slots: [RegistrySlot; 4] = Default::default();
    let registry = SFrameRegistry::new(slots, list.as_slice());
    let length = good.len() as u64;
    let all = [text(0)..text(0) + 0x100];
    assert_eq!(registry.add(&all, address(5), length, Check::Header), Err(RegistryError::NoBytes));
    let Err(RegistryError::Broken(error)) = registry.add(&all, address(1), length, Check::Header) else {
        panic!()
    };
    assert_eq!(error.broken, Broken::BadMagic);
    let Err(RegistryError::Flaw { section, flaw }) = registry.add(&all, address(2), length, Check::Full)
    else {
        panic!()
    };
    assert_eq!((section, flaw.kind), (address(2), FlawKind::RowCount));
    assert_eq!(registry.add(&[], address(0), length, Check::Full), Err(RegistryError::EmptyRange));
    assert!(registry.is_empty());
    registry.add(&all, address(0), length, Check::Full).unwrap();
    assert_eq!(registry.add(&[0..1], address(0), length, Check::Full), Err(RegistryError::Duplicate));
    let over = text(0) + 0x80..text(0) + 0x180;
    let overlap = RegistryError::Overlap { address: over.start };
    assert_eq!(registry.add(&[over], address(2), length, Check::Header), Err(overlap));
    assert_eq!(registry.add(&[0..1, 1..2], address(2), length, Check::Header), Err(RegistryError::NoRoom));
    assert_eq!(registry.remove(address(2)), Err(RegistryError::NotFound));
    registry.remove(address(0)).unwrap();
    assert!(registry.is_empty());
}

/// Two sections one after another, as linkers leave them: both count, and both are checked.
#[test]
fn sections_that_follow_one_another() {
    let first = section(address(0), text(0), 8);
    let second_at = address(0) + first.len().next_multiple_of(8) as u64;
    let both = |second: &[u8]| {
        let mut bytes = first.clone();
        bytes.resize((second_at - address(0)) as usize, 0);
        bytes.extend(second);
        bytes
    };
    let all = [text(0)..text(0) + 0x2000];
    let second = section(second_at, text(1), 24);
    let add = |bytes: &[u8], check| {
        let list = [(address(0), bytes)];
        let slots: [RegistrySlot; 2] = Default::default();
        let registry = SFrameRegistry::new(slots, list.as_slice());
        registry.add(&all, address(0), bytes.len() as u64, check)?;
        Ok([0, 1].map(|n| cfa_at(&registry, text(n) + 4)))
    };
    for check in [Check::Header, Check::Full] {
        assert_eq!(add(&both(&second), check), Ok([Some(8), Some(24)]));
        // One that makes no sense spoils both, because nobody knows what it covers.
        let second_offset = second_at - address(0);
        for (at, value, broken, offset) in [
            (2, 9, Broken::UnknownVersion, 2),
            // For AArch64, not for AMD64 as the first.
            (4, 2, Broken::UnknownAbi, 4),
            (16, 0xff, Broken::OutOfBounds, 24),
        ] {
            let mut wrong = second.clone();
            wrong[at] = value;
            let error = SourceError { broken, offset: second_offset + offset };
            assert_eq!(add(&both(&wrong), check), Err(RegistryError::Broken(error)));
        }
    }
    let mut flawed = second.clone();
    flawed[12] = 7;
    assert_eq!(add(&both(&flawed), Check::Header), Ok([Some(8), Some(24)]));
    let Err(RegistryError::Flaw { section, flaw }) = add(&both(&flawed), Check::Full) else {
        panic!("the second one is flawed");
    };
    assert_eq!((section, flaw.kind, flaw.fde, flaw.row), (second_at, FlawKind::RowCount, None, None));
    // What follows and is no section does not matter.
    assert_eq!(add(&both(&[0x7f; 40]), Check::Full), Ok([Some(8), None]));
}

/// How many times a racing writer adds or removes. An interpreter is slower.
const CHANGES: u32 = if cfg!(miri) { 20 } else { 300 };

/// Writers that want the same text race each other: one of them gets it, and a reader sees all
/// ranges of a section or none.
#[test]
fn writers_race_each_other() {
    let sections: Vec<&'static [u8]> = (0..8).map(leaked).collect();
    let bytes = |at: u64, _: u64| (0..8).find(|n| address(*n) == at).map(|n| sections[usize::from(n)]);
    let registry = SFrameRegistry::new(GrowingRoom::new(), bytes);
    let holders = [const { AtomicU64::new(0) }; 2];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4u8)
            .map(|n| {
                let (registry, holders) = (&registry, &holders);
                scope.spawn(move || {
                    // Writers 0 and 2 want one place, 1 and 3 the other.
                    let place = usize::from(n % 2);
                    let base = text(8) + place as u64 * 0x1_0000;
                    let ranges = [0, 1, 2].map(|part| base + part * 0x1000..base + part * 0x1000 + 0x800);
                    let mut won = 0;
                    // They wait for each other without sleeping.
                    for _ in 0..CHANGES / 4 {
                        match registry.add(&ranges, address(n), 0x1000, Check::Full) {
                            Ok(()) => {
                                assert_eq!(holders[place].fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                                std::thread::yield_now();
                                assert_eq!(holders[place].fetch_sub(1, Ordering::SeqCst), 1);
                                registry.remove(address(n)).unwrap();
                                won += 1;
                            }
                            Err(error) => assert_eq!(error, RegistryError::Overlap { address: base }),
                        }
                    }
                    assert_eq!(registry.remove(address(n)), Err(RegistryError::NotFound));
                    won
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                let ranges = registry.len();
                assert!(ranges.is_multiple_of(3) && ranges <= 6, "{ranges} ranges");
                most = most.max(ranges);
            }
            most
        });
        let won: Vec<u32> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        // The first that asks for a place gets it.
        assert!(won[0] + won[2] > 0 && won[1] + won[3] > 0, "{won:?}");
    });
    assert!(registry.is_empty());
}

/// Readers look up while a writer adds and removes. A reader must find the right rule or none, and
/// must never ask for the bytes of a section whose `remove` has returned.
#[test]
fn readers_race_a_writer() {
    static LIVE: [AtomicBool; 8] = [const { AtomicBool::new(false) }; 8];
    let sections: Vec<&'static [u8]> = (0..8).map(leaked).collect();
    let dead = AtomicU64::new(0);
    let bytes = |at: u64, _: u64| {
        let n = (0..8).find(|n| address(*n) == at)?;
        // The writer gets every chance to come between.
        for _ in 0..4 {
            if !LIVE[usize::from(n)].load(Ordering::SeqCst) {
                dead.fetch_add(1, Ordering::SeqCst);
            }
            std::thread::yield_now();
        }
        Some(sections[usize::from(n)])
    };
    let registry = SFrameRegistry::new(GrowingRoom::new(), bytes);
    let done = AtomicBool::new(false);
    let hits = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for reader in 0..3u8 {
            let (registry, done, hits) = (&registry, &done, &hits);
            scope.spawn(move || {
                let mut n = reader;
                while !done.load(Ordering::Relaxed) {
                    n = (n + 1) % 8;
                    if let Some(cfa) = cfa_at(registry, text(n) + 8) {
                        assert_eq!(cfa, i32::from(n) * 8 + 8);
                        hits.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let mut state = 1u64;
        for _ in 0..CHANGES {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let n = (state >> 40) as u8 % 8;
            let live = &LIVE[usize::from(n)];
            if live.load(Ordering::SeqCst) {
                registry.remove(address(n)).unwrap();
                live.store(false, Ordering::SeqCst);
            } else {
                live.store(true, Ordering::SeqCst);
                registry.add(&[text(n)..text(n) + 0x100], address(n), 0x1000, Check::Header).unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(dead.load(Ordering::SeqCst), 0, "a removed section was looked at");
    assert!(hits.load(Ordering::SeqCst) > 0, "no reader ever found anything");
}
