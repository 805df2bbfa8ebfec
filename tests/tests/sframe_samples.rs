//! Every sample of `fixtures/sframe` against the text that its binutils' `objdump --sframe` prints.
//!
//! Twice: what [`SFrameSection::dump`] prints must be that text, line by line; and the values in the
//! text, read by a parser of its own, must be those that the library decodes, and those that lookups
//! at every pc of every function find. So neither of printer and reader can hide what the other does
//! wrong.
//!
//! Where a producer is known to be wrong, the file is named here with the reason; every file of the
//! folder is accounted for.

#[path = "sframe/meaning.rs"]
mod meaning;
#[path = "sframe/sample.rs"]
mod sample;
#[path = "sframe/text.rs"]
mod text;

use std::collections::BTreeSet;

use meaning::{abi, frame, rule};
use sample::{CONCATENATED, Sample, samples};
use text::{Function, Text};
use unwind_core::sframe::{
    Abi, Fde, FlawKind, Place, RowKind, RowRule, SFrameIndex, SFrameIndexEntry, SFrameSection,
    SFrameSections, SFrameSource,
};
use unwind_core::{Base, Broken, Found, LookupError, Pc, Rule, SourceError, Trust, UnwindUserFrame};
use unwind_tests::sframe::{Elf, folder, lookup};

/// Files that do not pass the full check, and why.
const FLAWED: [(&str, FlawKind, u32, Option<u32>); 5] = [
    // ld 2.40's FDE for .plt.sec runs over the .text behind it.
    ("v1/plt-ibt-x86_64", FlawKind::Overlap, 4, None),
    // `ld -r` of 2.40 and 2.44 writes relocations of the second input to wrong places and claims to
    // have sorted: every start is 0.
    ("quirks/ld-r-x86_64.v1.o", FlawKind::Overlap, 1, None),
    ("quirks/ld-r-x86_64.v2.o", FlawKind::Overlap, 1, None),
    // REFUSED_ROWS.
    ("v3/special-x86_64.o", BAD_ROW, 12, Some(1)),
    ("odd/odd-s390x.v2.o", BAD_ROW, 0, Some(11)),
];
const BAD_ROW: FlawKind = FlawKind::Broken(SourceError { broken: Broken::BadRow, offset: 0 });

/// The block sizes of the tables that no linker wrote: file, function, size.
const BLOCKS_BY_HAND: [(&str, u32, u32); 4] = [
    ("v3/v3hand-x86_64.o", 3, 8),
    ("odd/odd-x86_64.v3.o", 4, 20),
    ("odd/odd-aarch64.v2.o", 1, 16),
    ("odd/odd-aarch64.v3.o", 1, 16),
];

#[test]
fn dumps_equal_objdumps() {
    let mut lines = 0;
    for sample in samples() {
        for (section, text) in sample.sections().iter().zip(&sample.texts) {
            let dump = section.dump().to_string();
            for (ours, theirs) in dump.lines().zip(text.body.lines()) {
                assert_eq!(ours, theirs, "{}", sample.name);
                lines += 1;
            }
            assert_eq!(dump, text.body, "{}", sample.name);
        }
    }
    println!("{lines} lines");
    assert!(lines > 4_000);
}

#[test]
fn values_equal_the_texts() {
    let (mut sections, mut functions, mut rows) = (0, 0, 0);
    for sample in samples() {
        for (section, text) in sample.sections().iter().zip(&sample.texts) {
            sections += 1;
            compare_header(section, text, &sample.name);
            let fdes: Vec<Fde> = section.fdes().map(Result::unwrap).collect();
            assert_eq!(fdes.len(), text.functions.len(), "{}", sample.name);
            for (fde, function) in fdes.iter().zip(&text.functions) {
                functions += 1;
                compare_function(&sample, fde, function);
                rows += compare_rows(&sample, section, fde, function, text);
            }
        }
    }
    println!("{sections} sections, {functions} functions, {rows} rows");
    assert!(sections > 60 && functions > 450 && rows > 1_500);
}

fn compare_header(section: &SFrameSection<'_>, text: &Text, name: &str) {
    let header = section.header();
    assert_eq!(header.version.number(), text.version, "{name}");
    let flags = text.flags.iter().map(|flag| match flag.as_str() {
        "SFRAME_F_FDE_SORTED" => 1,
        "SFRAME_F_FRAME_POINTER" => 2,
        "SFRAME_F_FDE_FUNC_START_PCREL" => 4,
        other => panic!("{name}: {other}"),
    });
    assert_eq!(header.flags, flags.sum::<u8>(), "{name}");
    let abi = abi(text);
    assert_eq!(header.abi, abi, "{name}");
    assert_eq!((header.fde_count, header.fre_count), (text.fde_count, text.fre_count), "{name}");
    // objdump 2.40 does not print the fixed offsets.
    let fixed = match (text.version, abi) {
        (1, Abi::Amd64) => (0, -8),
        _ => (text.fixed_fp, text.fixed_ra),
    };
    assert_eq!((header.fixed_fp_offset.into(), header.fixed_ra_offset.into()), fixed, "{name}");
    assert_eq!(header.auxiliary_size, if name == "v3/v3hand-x86_64.o" { 8 } else { 0 }, "{name}");
}

fn compare_function(sample: &Sample, fde: &Fde, function: &Function) {
    let name = &sample.name;
    assert_eq!(fde.start, function.pc, "{name} {fde:?}");
    assert_eq!(fde.size, function.size, "{name} {fde:?}");
    assert_eq!(fde.is_signal, function.is_signal, "{name} {fde:?}");
    assert_eq!(fde.row_kind == RowKind::Flexible, function.is_flexible, "{name} {fde:?}");
    assert_eq!(fde.key_b, function.has_key_b, "{name} {fde:?}");
    // The text does not say how long a block is. The linker says it once more, though.
    let block = function.is_mask.then(|| {
        let by_hand = BLOCKS_BY_HAND.iter().find(|(file, index, _)| (*file, *index) == (name, fde.index));
        let tables = &sample.elf.linkage_tables;
        let table = || tables.iter().find(|(range, _)| range.contains(&function.pc)).unwrap();
        by_hand.map_or_else(|| u32::try_from(table().1).unwrap(), |(_, _, size)| *size)
    });
    assert_eq!(fde.block_size, block, "{name} {fde:?}");
}

fn compare_rows(
    sample: &Sample,
    section: &SFrameSection<'_>,
    fde: &Fde,
    function: &Function,
    text: &Text,
) -> usize {
    let name = &sample.name;
    let rows: Vec<_> = section.rows(fde).collect();
    assert_eq!(rows.len(), function.rows.len(), "{name} {fde:?}");
    assert_eq!(usize::try_from(fde.row_count), Ok(function.rows.len()), "{name} {fde:?}");
    for ((row, expected), index) in rows.iter().zip(&function.rows).zip(0..) {
        let row = match row {
            Ok(row) => row,
            Err(error) => {
                assert_eq!(error.broken, Broken::BadRow, "{name} {fde:?} row {index}");
                assert!(sample.is_refused(fde.index, index), "{name} {fde:?} row {index}: {error}");
                continue;
            }
        };
        assert!(!sample.is_refused(fde.index, index), "{name} {fde:?} row {index}: {row:?}");
        let start = if function.is_mask { 0 } else { function.pc };
        assert_eq!(start + u64::from(row.start), expected.pc, "{name} {fde:?} row {index}");
        let is_aarch64 = matches!(abi(text), Abi::Aarch64Little | Abi::Aarch64Big);
        let (rule, is_signed) = match &expected.columns {
            None => (RowRule::Outermost, false),
            // gas 2.40 sets the bit for AMD64's `.cfi_window_save`, where it means nothing.
            Some(columns) => (rule(columns, text, function), columns.is_signed && is_aarch64),
        };
        assert_eq!((row.rule, row.is_mangled), (rule, is_signed), "{name} {fde:?} row {index}");
    }
    rows.len()
}

#[test]
fn every_pc_finds_what_the_text_says() {
    let mut pcs = 0;
    for sample in samples() {
        // Every function of these begins at 0, by FLAWED; and their tables claim to be sorted.
        let is_unusable = ["quirks/ld-r-x86_64.v1.o", "quirks/ld-r-x86_64.v2.o"].contains(&&*sample.name);
        if is_unusable || sample.texts.is_empty() {
            continue;
        }
        // For lookups, starts are wanted in files without the flag as well.
        let data = sample.elf.relocated();
        let sections: Vec<_> = SFrameSections::new(&data, sample.elf.svma).map(Result::unwrap).collect();
        let source = SFrameSource::new(&data, sample.elf.svma);
        let mut functions = Vec::new();
        for (section, text) in sections.iter().zip(&sample.texts) {
            for (fde, function) in section.fdes().map(Result::unwrap).zip(&text.functions) {
                let target = sample.elf.relocations.iter().find(|(offset, _)| {
                    let size = u64::from(section.header().version.fde_size());
                    *offset == section.header().fde_offset + u64::from(fde.index) * size
                });
                let start = target.map_or(function.pc, |(_, target)| *target);
                if sample.elf.is_relocatable {
                    assert!(target.is_some(), "{} {fde:?}", sample.name);
                }
                assert_eq!(fde.start, start, "{} {fde:?}", sample.name);
                functions.push((start, fde, function, text));
            }
        }
        let mut room = vec![SFrameIndexEntry::default(); functions.len()];
        let index = match sections.as_slice() {
            [only] => SFrameIndex::build(only, &mut room).unwrap(),
            _ => None,
        };
        assert_eq!(index.is_none(), CONCATENATED.contains(&&*sample.name), "{}", sample.name);
        // Of large functions, what lies around their rows and one in 61; of others, everything.
        let ends = functions.iter().flat_map(|(start, fde, function, _)| {
            let end = start + u64::from(fde.size);
            let step = if fde.size > 0x1000 { 61 } else { 1 };
            let rows = function.rows.iter().map(move |row| start + (row.pc - function.pc.min(row.pc)));
            let edges = rows.flat_map(|row| [row.saturating_sub(1), row, row + 1]);
            let ends = [start.wrapping_sub(1), end.wrapping_sub(1), end, end + 1];
            (*start..end).step_by(step).chain(edges).chain(ends)
        });
        for pc in BTreeSet::from_iter(ends.chain([0, 1, u64::MAX])) {
            // The nearest start that covers it; of several, the last in the table.
            let covering = functions.iter().filter(|(start, fde, ..)| {
                pc.checked_sub(*start).is_some_and(|offset| offset < u64::from(fde.size))
            });
            let expected = covering.max_by_key(|(start, fde, ..)| (*start, fde.index));
            let expected = expected.map(|(start, fde, function, text)| {
                let offset = pc - start;
                let is_last = offset == u64::from(fde.size) - 1;
                (expected_rule(&sample, fde, function, text, offset), is_last, fde.block_size)
            });
            check_pc(&sample, &source, pc, expected);
            if let Some(index) = index {
                check_pc(&sample, &source.with_index(index), pc, expected);
            }
            pcs += 1;
        }
    }
    println!("{pcs} pcs");
    assert!(pcs > 30_000);
}

/// What a lookup at this offset in a function finds: no row, a row that is refused, a rule.
fn expected_rule(
    sample: &Sample,
    fde: &Fde,
    function: &Function,
    text: &Text,
    offset: u64,
) -> Option<Result<UnwindUserFrame, Broken>> {
    let offset = fde.block_size.map_or(offset, |block| offset % u64::from(block));
    let base = if function.is_mask { 0 } else { function.pc };
    let (row, index) = function.rows.iter().zip(0..).take_while(|(row, _)| row.pc - base <= offset).last()?;
    if sample.is_refused(fde.index, index) {
        return Some(Err(Broken::BadRow));
    }
    let rule = row.columns.as_ref().map_or(RowRule::Outermost, |columns| rule(columns, text, function));
    Some(Ok(frame(rule, abi(text), function.is_signal)))
}

type Expected = (Option<Result<UnwindUserFrame, Broken>>, bool, Option<u32>);

fn check_pc(sample: &Sample, source: &SFrameSource<'_>, pc: u64, expected: Option<Expected>) {
    let abi = abi(&sample.texts[0]);
    for query in [Some(Pc::Exact(pc)), pc.checked_add(1).map(Pc::Return)].into_iter().flatten() {
        let found = lookup(abi, source, query);
        let is_right = match (expected, found) {
            (None | Some((None, ..)), found) => found == Ok(None),
            (Some((Some(Err(broken)), ..)), Err(LookupError::Broken(error))) => error.broken == broken,
            (Some((Some(Ok(frame)), is_last, block)), Ok(Some(found))) => {
                let trust = if block.is_some() { Trust::CallSite } else { Trust::Exact };
                found == Found::new(Rule::Frame(frame), trust).at_end(is_last && !query.is_exact())
            }
            _ => false,
        };
        assert!(is_right, "{} {query:x?}: {found:?}, not {expected:?}", sample.name);
    }
}

#[test]
fn the_full_check_finds_what_is_known_to_be_wrong() {
    for sample in samples() {
        let data = sample.elf.relocated();
        let flawed = FLAWED.iter().find(|(name, ..)| *name == sample.name);
        for section in SFrameSections::new(&data, sample.elf.svma) {
            match (section.unwrap().validate(), flawed) {
                (Ok(()), None) => {}
                (Err(flaw), Some((name, kind, fde, row))) => {
                    let kinds = match (flaw.kind, *kind) {
                        (FlawKind::Broken(error), FlawKind::Broken(expected)) => {
                            error.broken == expected.broken
                        }
                        (kind, expected) => kind == expected,
                    };
                    assert!(kinds, "{name}: {flaw}");
                    assert_eq!((flaw.fde, flaw.row), (Some(*fde), *row), "{name}: {flaw}");
                }
                (result, _) => panic!("{}: {result:?}", sample.name),
            }
        }
    }
}

#[test]
fn a_segment_longer_than_its_section_holds_the_same() {
    let (mut segments, mut longer) = (0, 0);
    for sample in samples() {
        let Some((segment, svma)) = &sample.elf.segment else { continue };
        segments += 1;
        longer += usize::from(segment.len() > sample.elf.sframe.len());
        assert_eq!(*svma, sample.elf.svma, "{}", sample.name);
        let of_segment: Vec<_> = SFrameSections::new(segment, *svma).map(Result::unwrap).collect();
        let of_section = sample.sections();
        assert_eq!(of_segment.len(), of_section.len(), "{}", sample.name);
        for (a, b) in of_segment.iter().zip(&of_section) {
            assert_eq!((a.data(), a.svma()), (b.data(), b.svma()), "{}", sample.name);
        }
    }
    println!("{segments} segments, {longer} of them longer than the section");
    assert!(segments >= 30 && longer >= 10);
}

/// Functions begin where symbols do: in linked files, and in relocatable ones after relocation. Only
/// linkage tables have no symbols.
#[test]
fn functions_begin_at_symbols() {
    let (mut starts, mut starts_from_fields) = (0, 0);
    for sample in samples() {
        let data = sample.elf.relocated();
        let symbols = BTreeSet::from_iter(sample.elf.functions.iter().map(|(_, range)| range.start));
        if sample.name == "quirks/lld22-concat-noflag-x86_64.v2" {
            // lld leaves starts relative to their fields where nothing says so. By the definition, they
            // are wrong; as they are meant, right.
            for section in SFrameSections::new(&data, sample.elf.svma).map(Result::unwrap) {
                assert!(section.has_starts_from_fields(|svma| symbols.contains(&svma)));
                assert!(
                    !section.has_starts_from_fields(|_| true) && !section.has_starts_from_fields(|_| false)
                );
                let meant = section.with_starts_from_fields();
                for (fde, meant) in section.fdes().zip(meant.fdes()).map(|(a, b)| (a.unwrap(), b.unwrap())) {
                    assert!(!symbols.contains(&fde.start), "{fde:?}");
                    assert!(symbols.contains(&meant.start), "{meant:?}");
                    starts_from_fields += 1;
                }
            }
            // Where a function begins, its row is the first one then.
            let source = SFrameSource::new(&data, sample.elf.svma).with_starts_from_fields();
            for (name, range) in &sample.elf.functions {
                let Some(found) = lookup(Abi::Amd64, &source, Pc::Exact(range.start)).unwrap() else {
                    continue;
                };
                let entry = UnwindUserFrame::plain(false, 8, -8, None);
                assert_eq!(found.rule, Rule::Frame(entry), "{name}");
            }
            continue;
        }
        for section in SFrameSections::new(&data, sample.elf.svma).map(Result::unwrap) {
            assert!(!section.has_starts_from_fields(|svma| symbols.contains(&svma)), "{}", sample.name);
            for fde in section.fdes().map(Result::unwrap) {
                if sample.elf.linkage_tables.iter().any(|(range, _)| range.contains(&fde.start)) {
                    continue;
                }
                assert!(symbols.contains(&fde.start), "{} {fde:x?}", sample.name);
                starts += 1;
            }
        }
    }
    println!("{starts} starts");
    assert!(starts > 400 && starts_from_fields == 3);
}

/// gas writes a row at a function's end for directives behind its last instruction. The rows before
/// it hold all the same, in every version; versions 1 and 2 against the text of version 3.
#[test]
fn a_row_at_the_end_of_a_function_does_no_harm() {
    let samples = samples();
    let find = |name: &str| samples.iter().find(|sample| sample.name == name).unwrap();
    let text = &find("odd/behind-x86_64.v3.o").texts[0];
    for version in ["v1", "v2", "v3"] {
        let elf = &find(&format!("odd/behind-x86_64.{version}.o")).elf;
        let data = elf.relocated();
        let section = SFrameSection::parse(&data, elf.svma).unwrap();
        assert_eq!(section.validate(), Ok(()), "{version}");
        for (fde, function) in section.fdes().map(Result::unwrap).zip(&text.functions) {
            assert_eq!((fde.start, fde.size), (function.pc, function.size), "{version}");
            let rows: Vec<_> = section.rows(&fde).map(Result::unwrap).collect();
            assert_eq!(rows.len(), function.rows.len(), "{version}");
            for (row, expected) in rows.iter().zip(&function.rows) {
                assert_eq!(fde.start + u64::from(row.start), expected.pc, "{version}");
                let columns = expected.columns.as_ref().unwrap();
                assert_eq!(row.rule, rule(columns, text, function), "{version}");
            }
            for pc in fde.start..fde.start + u64::from(fde.size) {
                let row = section.row_at(&fde, pc).unwrap().unwrap();
                assert!(u64::from(row.start) <= pc - fde.start && row.start < fde.size);
            }
        }
    }
}

/// ld 2.47 drops what it does not read and leaves a section without contents: nothing is covered,
/// and nothing is broken.
#[test]
fn an_empty_section_covers_nothing() {
    let elf = Elf::read(&folder().join("quirks/ld247-empty-x86_64"));
    assert_eq!(elf.sframe, []);
    assert!(elf.segment.is_none());
    let source = SFrameSource::new(&elf.sframe, elf.svma);
    assert_eq!(source.sections().count(), 0);
    for (name, range) in &elf.functions {
        let found = lookup(Abi::Amd64, &source, Pc::Exact(range.start));
        assert_eq!(found, Ok(None), "{name}");
    }
}

/// The same section as LLVM's reader sees it.
#[test]
fn values_equal_llvm_readelfs() {
    let name = "v2pcrel/chain-clang22-lld22-x86_64";
    let elf = Elf::read(&folder().join(name));
    let text = std::fs::read_to_string(folder().join(format!("{name}.llvm-readelf.txt"))).unwrap();
    let section = SFrameSections::new(&elf.sframe, elf.svma).next().unwrap().unwrap();
    let fields = |name: &'static str| {
        let values = text.lines().filter_map(move |line| line.trim().strip_prefix(name));
        values.map(|value| value.trim().split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let hex = |value: u64| format!("0x{value:X}");
    let fdes: Vec<_> = section.fdes().map(Result::unwrap).collect();
    let rows: Vec<_> =
        fdes.iter().flat_map(|fde| section.rows(fde).map(move |row| (fde, row.unwrap()))).collect();
    assert_eq!(fields("PC:"), fdes.iter().map(|fde| hex(fde.start)).collect::<Vec<_>>());
    assert_eq!(fields("Size:"), fdes.iter().map(|fde| hex(fde.size.into())).collect::<Vec<_>>());
    let starts = rows.iter().map(|(fde, row)| hex(fde.start + u64::from(row.start)));
    assert_eq!(fields("Start Address:"), starts.collect::<Vec<_>>());
    let (mut bases, mut cfas, mut fps) = (Vec::new(), Vec::new(), Vec::new());
    for (_, row) in &rows {
        let RowRule::Frame { cfa, ra, fp } = row.rule else { panic!("{row:?}") };
        bases.push(if cfa.base == Some(Base::Sp) { "SP" } else { "FP" });
        cfas.push(cfa.offset.to_string());
        fps.extend(fp.map(|fp| fp.offset.to_string()));
        assert_eq!(ra, Some(Place { base: None, offset: -8, deref: true }));
    }
    assert_eq!(fields("Base Register:"), bases);
    assert_eq!(fields("CFA Offset:"), cfas);
    assert_eq!(fields("FP Offset:"), fps);
    assert_eq!(rows.len(), 37);
}
