//! Everything that an embedder can do with bytes that claim to be SFrame sections.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use unwind_core::sframe::{
    Fde, Row, SFrameIndex, SFrameIndexEntry, SFrameSection, SFrameSections, SFrameSource,
};
use unwind_core::{LookupError, Pc, SourceError};

use super::target::lookup;

/// What there was in the bytes, and how many of the sections are without a flaw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    pub sections: usize,
    pub valid: usize,
    pub functions: usize,
    pub rows: usize,
    pub lookups: usize,
}

/// The most functions that are looked at closely, and the most characters that are printed.
const MOST_FUNCTIONS: u32 = 64;
const MOST_TEXT: usize = 1 << 16;

/// Opens, checks, searches and prints. Panics where the library breaks a promise:
///
/// * a section that passes the full check never fails at lookup, with an index or without;
/// * a scan finds what an index finds, in whatever state the table is;
/// * the short way to a rule leads where the long one does;
/// * what is found covers the address, and its row is the one that a walk over the rows gives;
/// * no more sections, functions and rows come out than there are bytes for.
pub fn probe(data: &[u8], svma: u64) -> Probe {
    probe_at(data, svma, usize::MAX)
}

/// The same at no more than so many addresses in each section, evenly spread over those of interest.
pub fn probe_at(data: &[u8], svma: u64, most: usize) -> Probe {
    let mut probe = Probe::default();
    for section in SFrameSections::new(data, svma) {
        probe.sections += 1;
        assert!(probe.sections <= data.len() / 28 + 1);
        let Ok(section) = section else { continue };
        probe_section(&section, most, &mut probe);
    }
    probe
}

fn probe_section(section: &SFrameSection<'_>, most: usize, probe: &mut Probe) {
    let header = section.header();
    let is_valid = section.validate().is_ok();
    probe.valid += usize::from(is_valid);
    let fde_size = u64::from(header.version.fde_size());
    assert!(
        u64::from(header.fde_count) * fde_size + u64::from(header.fre_size) <= section.data().len() as u64
    );

    let mut room = vec![SFrameIndexEntry::default(); header.fde_count as usize];
    let index = SFrameIndex::build(section, &mut room).unwrap().unwrap();
    assert!(header.fde_count == 0 || SFrameIndex::build(section, &mut []).unwrap().is_none());

    for fde in section.fdes().take(MOST_FUNCTIONS as usize).flatten() {
        probe.functions += 1;
        probe.rows += section.rows(&fde).count();
        assert!(section.rows(&fde).count() as u64 * 2 <= u64::from(header.fre_size));
    }
    let pcs = pcs_of_interest(section);
    let step = pcs.len().div_ceil(most);
    for svma in pcs.into_iter().step_by(step) {
        probe.lookups += 1;
        let found = section.find(svma, None);
        let by_index = section.find(svma, Some(index));
        if is_valid || !header.is_sorted() {
            assert_eq!(found, by_index, "{svma:#x}");
        }
        assert!(!is_valid || found.is_ok(), "{svma:#x}: {found:?}");
        for fde in [found, by_index].into_iter().flatten().flatten() {
            assert!(fde.contains(svma), "{svma:#x}: {fde:?}");
            let row = section.row_at(&fde, svma);
            assert!(!is_valid || row.is_ok(), "{svma:#x}: {row:?}");
            check_row(section, &fde, svma, row);
        }
        probe_source(section, index, svma, is_valid);
    }

    let mut sink = Sink { left: MOST_TEXT };
    let _ = write!(sink, "{}", section.dump());
    assert!(sink.left < MOST_TEXT);
}

/// The same through the source, for the architecture that the section is for.
fn probe_source(section: &SFrameSection<'_>, index: SFrameIndex<'_>, svma: u64, is_valid: bool) {
    let source = SFrameSource::new(section.data(), section.svma());
    // With an index, every entry and row is read in full.
    let in_full = source.with_index(index);
    if is_valid || !section.header().is_sorted() {
        let [found, truth] = [source, in_full].map(|source| lookup(section.abi(), &source, Pc::Exact(svma)));
        assert_eq!(found, truth, "{svma:#x}");
    }
    for source in [source, in_full] {
        let exact = lookup(section.abi(), &source, Pc::Exact(svma));
        assert!(!is_valid || exact.is_ok(), "{svma:#x}: {exact:?}");
        assert!(!matches!(exact, Err(LookupError::Memory(_))));
        let Some(next) = svma.checked_add(1) else { continue };
        let mut back = lookup(section.abi(), &source, Pc::Return(next));
        if let Ok(Some(found)) = &mut back {
            found.is_at_end = false;
        }
        assert_eq!(exact, back, "{svma:#x}");
    }
}

/// Compares a row that was looked up with all of the function's. One row that makes no sense spoils
/// itself, and those before it only where its start is unknown.
fn check_row(section: &SFrameSection<'_>, fde: &Fde, svma: u64, found: Result<Option<Row>, SourceError>) {
    let offset = svma - fde.start;
    let offset = fde.block_size.map_or(offset, |block| offset % u64::from(block));
    let rows: Vec<_> = section.rows(fde).collect();
    let last = rows.iter().flatten().rfind(|row| u64::from(row.start) <= offset);
    match found {
        Ok(found) => assert_eq!(found.as_ref(), last, "{svma:#x} {fde:?}"),
        Err(error) => assert!(rows.contains(&Err(error)), "{svma:#x} {fde:?}: {error}"),
    }
}

/// The addresses at which something begins or ends, those beside them, and the ends of all.
pub fn pcs_of_interest(section: &SFrameSection<'_>) -> BTreeSet<u64> {
    let mut pcs = BTreeSet::from([0, 1, section.svma(), u64::MAX - 1, u64::MAX]);
    for fde in section.fdes().take(MOST_FUNCTIONS as usize).flatten() {
        let rows = section.rows(&fde).take(64).flatten().map(|row| fde.start.wrapping_add(row.start.into()));
        let end = fde.start.wrapping_add(fde.size.into());
        let block = u64::from(fde.block_size.unwrap_or(0));
        for edge in rows.chain([fde.start, end, fde.start.wrapping_add(block)]) {
            pcs.extend([edge.wrapping_sub(1), edge, edge.wrapping_add(1)]);
        }
    }
    pcs
}

/// Counts characters, and has enough at some point.
struct Sink {
    left: usize,
}

impl Write for Sink {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.left = self.left.checked_sub(text.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}
