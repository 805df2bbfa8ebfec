//! Everything that an embedder can do with bytes that claim to be exception handling tables.

use std::collections::BTreeSet;

use unwind_core::ehabi::{EhabiSections, EhabiSource, Personality, Unwinding};
use unwind_core::{Broken, FrameSource, LookupError, Pc, Query, UnwindUserType, from_fn};

use super::arch::Arm;
use super::judge::{Frame, Verdict, judge};
use super::locate::{Located, Routine, locate, starts};

/// What there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    pub entries: usize,
    pub lookups: usize,
    pub unwound: usize,
    pub in_words: usize,
    pub broken: usize,
    pub refused: usize,
    pub lacking: usize,
}

/// The most entries that are looked at closely.
const MOST: usize = 64;

/// Opens, checks, searches and unwinds, at every address of interest. Panics where the library does
/// not say what slow readers say, or breaks a promise: tables that pass the full check never fail
/// for what they say.
pub fn probe(arch: &Arm, sections: &EhabiSections<'_>, frame: Frame) -> Probe {
    let mut probe = Probe::default();
    let starts = starts(sections);
    assert_eq!(usize::try_from(sections.len()), Ok(starts.len()));
    assert_eq!(sections.is_empty(), starts.is_empty());
    let verified = sections.verify();
    let is_sorted = starts.is_sorted();
    for (index, entry) in (0..).zip(sections.entries()).take(MOST) {
        let entry = entry.unwrap();
        probe.entries += 1;
        let slot = usize::try_from(index).unwrap();
        assert_eq!((entry.index, entry.start), (index, starts[slot].into()));
        let next = starts.get(slot + 1).map_or(sections.text_end, |next| u64::from(*next));
        assert_eq!((entry.end, entry.offset()), (next, u64::from(index) * 8));
        let unwinding = sections.unwinding(&entry);
        let broken = match (locate(sections, slot), unwinding) {
            (Located::CannotUnwind, Ok(Unwinding::CannotUnwind)) => None,
            (Located::Bytes(routine, bytes), Ok(Unwinding::Instructions { personality, instructions })) => {
                match (routine, personality) {
                    (Routine::Number(number), Personality::Compact(said)) => assert_eq!(number, said),
                    (Routine::At(address), Personality::Generic(said)) => {
                        assert_eq!(u64::from(address), said)
                    }
                    other => panic!("{other:x?}"),
                }
                assert!(bytes.len() <= 3 + 255 * 4);
                assert!(instructions.clone().count() <= bytes.len() + 1);
                None
            }
            (Located::Outside, Err(error)) => Some((error, Broken::OutOfBounds)),
            (Located::Reserved, Err(error)) => Some((error, Broken::UnknownPersonality)),
            (Located::Askew, Err(error)) => Some((error, Broken::Malformed)),
            other => panic!("{other:x?}"),
        };
        if let Some((error, expected)) = broken {
            assert_eq!((error.broken, error.offset), (expected, entry.offset()));
            assert!(verified.is_err());
        }
    }

    let source = EhabiSource::new(*sections);
    for svma in pcs_of_interest(sections, &starts) {
        for pc in [Pc::Exact(svma), Pc::Return(svma.saturating_add(1))] {
            probe.lookups += 1;
            let query = Query::new(pc);
            let mut nothing = from_fn(|_, _: &mut [u8]| panic!("a lookup reads no memory"));
            let found = source.lookup(arch, UnwindUserType::Ehabi, &query, &mut nothing);
            if let Err(LookupError::Broken(error)) = found {
                assert!(verified.is_err(), "{error} at {svma:#x} of verified tables");
            }
            if !is_sorted {
                continue;
            }
            let in_text = (sections.text_start..sections.text_end).contains(&svma);
            let Some(index) = starts.iter().rposition(|start| u64::from(*start) <= svma).filter(|_| in_text)
            else {
                assert_eq!(found, Ok(None));
                continue;
            };
            match locate(sections, index) {
                Located::CannotUnwind => assert_eq!(found, Err(LookupError::CannotUnwind)),
                Located::Bytes(_, bytes) => {
                    if let Ok(Some(found)) = found {
                        let next = starts.get(index + 1).map_or(sections.text_end, |next| u64::from(*next));
                        assert_eq!(found.is_at_end, pc == Pc::Return(next));
                    }
                    match judge(arch, &source, pc, starts[index].into(), &bytes, frame) {
                        Verdict::Unwound { in_words } => {
                            probe.unwound += 1;
                            probe.in_words += usize::from(in_words);
                        }
                        Verdict::Broken => probe.broken += 1,
                        Verdict::Refused => probe.refused += 1,
                        Verdict::Lacking => probe.lacking += 1,
                    }
                }
                Located::Outside | Located::Reserved | Located::Askew => {
                    assert!(matches!(found, Err(LookupError::Broken(_))), "{found:?}");
                    probe.broken += 1;
                }
            }
        }
    }
    probe
}

/// Where entries begin and end, what lies beside, and the ends of all.
fn pcs_of_interest(sections: &EhabiSections<'_>, starts: &[u32]) -> BTreeSet<u64> {
    let edges = starts.iter().take(MOST).map(|start| u64::from(*start));
    let mut pcs = BTreeSet::new();
    for edge in edges.chain([0, sections.text_start, sections.text_end, 0xffff_ffff]) {
        pcs.extend([edge.saturating_sub(1), edge, edge + 2]);
    }
    // What is not an address of this target.
    pcs.retain(|pc| *pc < 0xffff_ffff);
    pcs
}
