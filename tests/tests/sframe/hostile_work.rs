//! How much work a section can make.

use std::fmt::{self, Write};
use std::time::{Duration, Instant};

use unwind_core::sframe::{FlawKind, SFrameIndex, SFrameIndexEntry, SFrameSections};

use super::*;

/// Rows visited at most: one for every start that there can be, and for every two bytes of the area.
#[test]
fn rows_are_bounded_by_their_bytes_and_their_starts() {
    for version in VERSIONS {
        for (width, starts) in [(1, 0x100u32), (2, 0x1_0000), (4, 0x2_0000)] {
            let count = (starts + 64).min(if version == Version::V3 { 0xffff } else { u32::MAX });
            let described = (0..starts).map(|start| RowBytes { start, info: 0, words: Vec::new() });
            let mut code = Function::new(TEXT, u32::MAX, described.collect()).with_wide_starts(width);
            // Rows that begin again from 0 follow, and more are claimed.
            code.rows.extend((0..64).map(|start| RowBytes { start, info: 0, words: Vec::new() }));
            code.row_count = Some(count);
            let bytes = section(version, vec![code]).bytes(SVMA);
            let parsed = SFrameSection::parse(&bytes, SVMA).unwrap();
            let fde = parsed.fde(0).unwrap();
            let visited = parsed.rows(&fde).count();
            // The one too many is the error.
            assert_eq!(visited, count.min(starts + 1) as usize, "{version:?} {width}");
            assert!(visited as u64 * 2 <= u64::from(parsed.header().fre_size));
        }
    }
}

/// Functions that share one run of rows: the full check gives up as soon as there are more rows than
/// room for them, so that its work stays in proportion to the section.
#[test]
fn functions_that_share_their_rows() {
    for version in VERSIONS {
        let described: Vec<_> = (0..0x8000).map(|start| RowBytes::new(start, &[8])).collect();
        let mut first = Function::new(TEXT, 0x8000, described).with_wide_starts(2);
        first.offset = Some(0);
        let mut functions = vec![first.clone()];
        first.rows = Vec::new();
        first.row_count = Some(0x8000);
        functions.extend((1..40_000).map(|index| {
            let mut other = first.clone();
            other.start += 0x8000 * index;
            other
        }));
        let mut sharing = section(version, functions);
        sharing.fre_count = Some(0x8000 * 40_000);
        let bytes = sharing.bytes(SVMA);
        let parsed = SFrameSection::parse(&bytes, SVMA).unwrap();
        let begun = Instant::now();
        let flaw = parsed.validate().unwrap_err();
        assert_eq!(flaw.kind, FlawKind::SharedRows);
        // 3 functions' rows are as many as there is room for by count.
        assert!(flaw.fde.is_some_and(|fde| fde < 12), "{flaw}");
        // Each lookup sees the rows of one function.
        let last = TEXT + 0x8000 * 39_999;
        assert_eq!(cfa_at(&bytes, last + 0x7fff), Ok(Some(8)));
        // Whoever prints it can stop.
        let mut sink = Sink { left: 100_000 };
        assert!(write!(sink, "{}", parsed.dump()).is_err());
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}

/// Tables of functions without length and of functions at one address, through which a search for the
/// nearest has to pass.
#[test]
fn long_ways_to_the_nearest_function() {
    for version in VERSIONS {
        for size in [0, 1] {
            let mut functions = vec![function(TEXT, 64, 8)];
            functions.extend((0..20_000).map(|_| function(TEXT + 8, size, 16)));
            let bytes = section(version, functions).bytes(SVMA);
            let parsed = SFrameSection::parse(&bytes, SVMA).unwrap();
            let mut room = vec![SFrameIndexEntry::default(); 20_001];
            let index = SFrameIndex::build(&parsed, &mut room).unwrap();
            let begun = Instant::now();
            for pc in [TEXT + 9, TEXT + 10, TEXT + 63, TEXT + 64] {
                // Beside functions of no length the long one counts; beside others it does not.
                let expected = (size == 0 && pc < TEXT + 64).then_some(0);
                assert_eq!(parsed.find(pc, None).unwrap().map(|fde| fde.index), expected);
                assert_eq!(parsed.find(pc, index).unwrap().map(|fde| fde.index), expected);
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        }
    }
}

/// As many headers as fit.
#[test]
fn nothing_but_headers() {
    let header = section(Version::V3, Vec::new()).bytes(SVMA);
    let bytes = header.iter().chain(&[0; 4]).copied().cycle().take(32 * 1000).collect::<Vec<_>>();
    assert_eq!(SFrameSections::new(&bytes, SVMA).filter(Result::is_ok).count(), 1000);
    assert_eq!(cfa_at(&bytes, TEXT), Ok(None));
}

struct Sink {
    left: usize,
}

impl Write for Sink {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.left = self.left.checked_sub(text.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}
