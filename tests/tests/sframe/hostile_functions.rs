//! Tables of functions.

use unwind_core::sframe::{FlawKind, SFrameIndex, SFrameIndexEntry};
use unwind_core::{Found, FrameSource, MemoryError, Query, UnwindUserType, from_fn};

use super::*;

#[test]
fn h23_index_is_the_number_of_functions() {
    for version in VERSIONS {
        for count in 0..3u32 {
            let functions = (0..count).map(|index| function(TEXT + u64::from(index) * 16, 16, 8));
            let bytes = section(version, functions.collect()).bytes(SVMA);
            let parsed = parse(&bytes);
            assert_eq!(parsed.fdes().count(), count as usize);
            for index in 0..count {
                assert_eq!(parsed.fde(index).unwrap().index, index);
            }
            for index in [count, count + 1, u32::MAX] {
                assert_eq!(parsed.fde(index).unwrap_err().broken, Broken::OutOfBounds);
            }
        }
    }
}

/// First, last and past-the-end of tables of 1 to 9 functions, with gaps between them.
#[test]
fn every_edge_of_small_tables() {
    for version in VERSIONS {
        for count in 1..10u64 {
            for is_sorted in [true, false] {
                let functions = (0..count).map(|index| function(TEXT + index * 32, 16, 8 + 8 * index as i32));
                let mut table = section(version, functions.collect());
                table.flags &= if is_sorted { 5 } else { 4 };
                let bytes = table.bytes(SVMA);
                for pc in TEXT - 40..TEXT + count * 32 + 40 {
                    let offset = pc.wrapping_sub(TEXT);
                    let covered = offset < count * 32 && offset % 32 < 16;
                    let expected = covered.then(|| 8 + 8 * (offset / 32) as i32);
                    assert_eq!(cfa_at(&bytes, pc), Ok(expected), "{version:?} {count} {pc:#x}");
                }
            }
        }
    }
}

#[test]
fn h23_block_of_size_0() {
    for version in VERSIONS {
        let table = |is_sorted: bool| {
            let bad = function(TEXT + 16, 16, 16).in_blocks(0);
            let functions = vec![function(TEXT, 16, 8), bad, function(TEXT + 32, 16, 24)];
            let mut table = section(version, functions);
            table.flags &= if is_sorted { 5 } else { 4 };
            table.bytes(SVMA)
        };
        for bytes in [table(true), table(false)] {
            let parsed = parse(&bytes);
            assert_eq!([cfa_at(&bytes, TEXT), cfa_at(&bytes, TEXT + 32)], [Ok(Some(8)), Ok(Some(24))]);
            if version == Version::V1 {
                // It does not say how large blocks are; the only ones there are have 16 bytes.
                assert_eq!(parsed.fde(1).unwrap().block_size, Some(16));
                assert_eq!(cfa_at(&bytes, TEXT + 16), Ok(Some(16)));
                assert_eq!(parsed.validate(), Ok(()));
                continue;
            }
            assert_eq!(parsed.fde(1).unwrap_err().broken, Broken::ZeroBlockSize);
            assert_eq!(cfa_at(&bytes, TEXT + 16), Err(Broken::ZeroBlockSize));
            let flaw = parsed.validate().unwrap_err();
            assert_eq!(flaw.fde, Some(1));
            assert!(matches!(flaw.kind, FlawKind::Broken(error) if error.broken == Broken::ZeroBlockSize));
        }
        // In an ordinary function it means nothing, as do sizes that linkers leave there.
        for block in [0, 16, 255] {
            let mut plain = function(TEXT, 16, 8);
            plain.block = block;
            let bytes = section(version, vec![plain]).bytes(SVMA);
            assert_eq!(parse(&bytes).fde(0).unwrap().block_size, None);
            assert_eq!(cfa_at(&bytes, TEXT + 15), Ok(Some(8)));
        }
    }
}

/// Rows of blocks hold at the offset in the block, counted from the function's start, wherever that
/// is and however many bytes are left over.
#[test]
fn blocks_of_every_size() {
    for version in VERSIONS {
        for block in [1u8, 2, 7, 8, 16, 20, 255] {
            let size = if version == Version::V1 { 16 } else { u64::from(block) };
            for start in [TEXT, TEXT + 1, TEXT + 9] {
                for length in [1, size - 1, size, size + 1, 5 * size + 3] {
                    let half = (size / 2).max(1);
                    let rows = [(0, 8), (half as u32, 16)].into_iter().take(size.min(2) as usize);
                    let rows = rows.map(|(start, cfa)| RowBytes::new(start, &[cfa])).collect();
                    let code = Function::new(start, length as u32, rows).in_blocks(block);
                    let bytes = section(version, vec![code]).bytes(SVMA);
                    assert_eq!(parse(&bytes).validate(), Ok(()));
                    for offset in 0..length {
                        let cfa = if offset % size >= half && size > 1 { 16 } else { 8 };
                        assert_eq!(cfa_at(&bytes, start + offset), Ok(Some(cfa)), "{size} {offset}");
                    }
                    assert_eq!(cfa_at(&bytes, start + length), Ok(None));
                }
            }
        }
    }
}

#[test]
fn h23_rows_outside() {
    for version in VERSIONS {
        let attribute = if version == Version::V3 { 5 } else { 0 };
        // Two functions, 3 bytes of rows each.
        let area = 2 * (attribute + 3);
        let bad = |change: &dyn Fn(&mut Function)| {
            let mut functions = vec![function(TEXT, 16, 8), function(TEXT + 16, 16, 16)];
            change(&mut functions[1]);
            let bytes = section(version, functions).bytes(SVMA);
            let flaw = parse(&bytes).validate().unwrap_err();
            assert_eq!(cfa_at(&bytes, TEXT), Ok(Some(8)));
            (cfa_at(&bytes, TEXT + 16), flaw)
        };
        for offset in [area, area + 1, 0x7fff_ffff, u32::MAX - 4, u32::MAX] {
            let (found, flaw) = bad(&|function| function.offset = Some(offset));
            assert_eq!((found, flaw.fde), (Err(Broken::OutOfBounds), Some(1)), "{offset:#x}");
        }
        if version == Version::V3 {
            // Only some of the attributes are there.
            for offset in area - 4..area {
                let (found, flaw) = bad(&|function| function.offset = Some(offset));
                assert!(matches!(found, Err(Broken::OutOfBounds | Broken::BadFde)), "{offset}: {found:?}");
                assert_eq!(flaw.fde, Some(1));
            }
        }
        // More rows than there can be: refused before any is looked at.
        let most = if version == Version::V3 { 0xffff } else { u32::MAX };
        for count in [3, 4, 0x100, 0xffff, most] {
            let (found, flaw) = bad(&|function| function.row_count = Some(count));
            assert_eq!((found, flaw.fde), (Err(Broken::OutOfBounds), Some(1)), "{count}");
        }
    }
}

#[test]
fn unknown_widths_and_layouts_of_rows() {
    for version in VERSIONS {
        for width in 3..16 {
            let mut bad = function(TEXT + 16, 16, 16);
            bad.info = width;
            let bytes = section(version, vec![function(TEXT, 16, 8), bad]).bytes(SVMA);
            assert_eq!([cfa_at(&bytes, TEXT), cfa_at(&bytes, TEXT + 16)], [Ok(Some(8)), Err(Broken::BadFde)]);
            assert_eq!(parse(&bytes).validate().unwrap_err().fde, Some(1));
        }
    }
    for layout in 0..=255 {
        let mut later = function(TEXT, 16, 8);
        later.info2 = layout;
        let bytes = section(Version::V3, vec![later]).bytes(SVMA);
        match layout & 0x1f {
            0 => assert_eq!(cfa_at(&bytes, TEXT), Ok(Some(8))),
            // A flexible row of one word: a control word without its offset.
            1 => assert_eq!(cfa_at(&bytes, TEXT), Err(Broken::BadRow)),
            _ => assert_eq!(cfa_at(&bytes, TEXT), Err(Broken::BadFde)),
        }
    }
}

/// They say nothing, signal frames or not: assemblers write them for what they cannot describe.
#[test]
fn h23_functions_without_rows() {
    for version in VERSIONS {
        for (info, info2) in [(0, 0), (1, 0), (2, 0), (0x80, 0), (0x80, 1), (0x20, 0)] {
            let mut empty = Function::new(TEXT + 16, 16, Vec::new());
            (empty.info, empty.info2) = (info, info2);
            let functions = vec![function(TEXT, 16, 8), empty, function(TEXT + 32, 16, 24)];
            let bytes = section(version, functions).bytes(SVMA);
            assert_eq!(parse(&bytes).validate(), Ok(()));
            assert_eq!(cfa_at(&bytes, TEXT + 15), Ok(Some(8)));
            for pc in TEXT + 16..TEXT + 32 {
                assert_eq!(cfa_at(&bytes, pc), Ok(None));
            }
            assert_eq!(cfa_at(&bytes, TEXT + 32), Ok(Some(24)));
        }
        // At the end of the area, where its rows would begin outside.
        let bytes = section(version, vec![Function::new(TEXT, 16, Vec::new())]).bytes(SVMA);
        assert_eq!(parse(&bytes).validate(), Ok(()));
        assert_eq!(cfa_at(&bytes, TEXT), Ok(None));
    }
}

/// Around a function of some length, any number of functions of none.
#[test]
fn functions_of_no_length() {
    for version in VERSIONS {
        for flags in [4, 5] {
            for before in 0..3 {
                for behind in 0..3 {
                    let none = |start| function(start, 0, 64);
                    let mut functions: Vec<_> = (0..before).map(|_| none(TEXT)).collect();
                    functions.push(function(TEXT, 16, 8));
                    functions.extend((0..behind).map(|index| none(TEXT + 8 * index)));
                    functions.push(function(TEXT + 16, 16, 16));
                    functions.push(none(TEXT + 40));
                    if flags & 1 != 0 {
                        functions.sort_by_key(|function| function.start);
                    }
                    let mut table = section(version, functions);
                    table.flags = flags & if version == Version::V1 { 1 } else { 5 };
                    let bytes = table.bytes(SVMA);
                    assert_eq!(parse(&bytes).validate(), Ok(()));
                    for (pc, cfa) in [(0, Some(8)), (15, Some(8)), (16, Some(16)), (32, None), (40, None)] {
                        assert_eq!(cfa_at(&bytes, TEXT + pc), Ok(cfa), "{version:?} {before} {behind} {pc}");
                    }
                }
            }
        }
    }
}

/// The function that begins nearest below counts, in every kind of table.
#[test]
fn overlapping_functions() {
    for version in VERSIONS {
        for flags in [0, 1] {
            // A long one, one inside it, one that runs over its end.
            let functions =
                vec![function(TEXT, 64, 8), function(TEXT + 16, 8, 16), function(TEXT + 48, 32, 24)];
            let mut table = section(version, functions);
            table.flags = flags;
            let bytes = table.bytes(SVMA);
            let parsed = parse(&bytes);
            let flaw = (flags == 1).then_some(FlawKind::Overlap);
            assert_eq!(parsed.validate().err().map(|flaw| flaw.kind), flaw);
            let mut room = [SFrameIndexEntry::default(); 3];
            let index = SFrameIndex::build(&parsed, &mut room).unwrap();
            let expected = [
                (0, Some(8)),
                (15, Some(8)),
                (16, Some(16)),
                (23, Some(16)),
                // Behind the inner one, nothing is certain.
                (24, None),
                (47, None),
                (48, Some(24)),
                (63, Some(24)),
                (64, Some(24)),
                (79, Some(24)),
                (80, None),
            ];
            for (offset, cfa) in expected {
                assert_eq!(cfa_at(&bytes, TEXT + offset), Ok(cfa), "{version:?} {flags} {offset}");
                let found = parsed.find(TEXT + offset, index).unwrap();
                assert_eq!(found, parsed.find(TEXT + offset, None).unwrap());
            }
        }
        // Two with the same start: the shorter one is not in the way of the longer.
        for flags in [0, 1] {
            for sizes in [[8, 16], [16, 8]] {
                let mut table =
                    section(version, sizes.map(|size| function(TEXT, size, size as i32)).to_vec());
                table.flags = flags;
                let bytes = table.bytes(SVMA);
                parse(&bytes);
                assert!(cfa_at(&bytes, TEXT).unwrap().is_some());
                assert_eq!(cfa_at(&bytes, TEXT + 12), Ok(Some(16)), "{version:?} {flags} {sizes:?}");
            }
        }
    }
}

/// Tables in every order of six functions, with and without an index, honest about it or not.
#[test]
fn tables_that_are_not_sorted() {
    for version in VERSIONS {
        for order in permutations(6) {
            let functions: Vec<_> =
                order.iter().map(|index| function(TEXT + 16 * index, 16, 8 * *index as i32)).collect();
            let is_sorted = order.is_sorted();
            let mut table = section(version, functions);
            table.flags = 0;
            let honest = table.bytes(SVMA);
            assert_eq!(SFrameSection::parse(&honest, SVMA).unwrap().validate(), Ok(()));
            table.flags = 1;
            let lying = table.bytes(SVMA);
            let parsed = SFrameSection::parse(&lying, SVMA).unwrap();
            let flaw = parsed.validate().err().map(|flaw| flaw.kind);
            assert_eq!(flaw, (!is_sorted).then_some(FlawKind::NotSorted));
            let mut room = [SFrameIndexEntry::default(); 6];
            let index = SFrameIndex::build(&parsed, &mut room).unwrap().unwrap();
            for pc in (TEXT - 1..=TEXT + 96).step_by(4) {
                let offset = pc.wrapping_sub(TEXT);
                let expected = (offset < 96).then(|| 8 * (offset / 16) as i32);
                assert_eq!(cfa_at(&honest, pc), Ok(expected));
                let found =
                    lookup(Abi::Amd64, &SFrameSource::new(&lying, SVMA).with_index(index), Pc::Exact(pc));
                assert_eq!(found.unwrap().is_some(), expected.is_some());
                assert_eq!(
                    parsed.find(pc, Some(index)).unwrap().map(|fde| fde.start),
                    expected.map(|_| pc & !15)
                );
                // A binary search may miss a function in a table that lies, but never finds another.
                let found = cfa_at(&lying, pc).unwrap();
                assert!(found.is_none() || found == expected);
            }
        }
    }
}

fn permutations(count: u64) -> Vec<Vec<u64>> {
    let mut all = vec![Vec::new()];
    for next in 0..count {
        all = all
            .into_iter()
            .flat_map(|order| {
                (0..=order.len()).map(move |at| {
                    let mut longer: Vec<u64> = order.clone();
                    longer.insert(at, next);
                    longer
                })
            })
            .collect();
    }
    all
}

/// An index that was made of another section: no wrong row, no panic.
#[test]
fn a_foreign_index() {
    let large = section(Version::V3, (0..20).map(|index| function(TEXT + index * 16, 16, 8)).collect());
    let (large, small) = (large.bytes(SVMA), section(Version::V3, vec![function(TEXT, 16, 64)]).bytes(SVMA));
    let (large, small) = (parse(&large), parse(&small));
    let mut room = [SFrameIndexEntry::default(); 20];
    assert!(SFrameIndex::build(&large, &mut room[..19]).unwrap().is_none());
    let index = SFrameIndex::build(&large, &mut room).unwrap();
    for pc in TEXT..TEXT + 320 {
        match small.find(pc, index) {
            Ok(found) => assert!(found.is_none_or(|fde| fde.contains(pc))),
            Err(error) => assert_eq!(error.broken, Broken::OutOfBounds),
        }
    }
}

/// Functions at both ends of the address space.
#[test]
fn both_ends_of_the_address_space() {
    for svma in [0, u64::MAX - 0xfff] {
        for (start, size) in [(0, 16), (u64::MAX - 15, 16), (u64::MAX, 1), (u64::MAX - 31, 31)] {
            let bytes = section(Version::V3, vec![function(start, size, 8)]).bytes(svma);
            probe(&bytes, svma);
            let parsed = SFrameSection::parse(&bytes, svma).unwrap();
            assert_eq!(parsed.validate(), Ok(()));
            let fde = parsed.fde(0).unwrap();
            for offset in [0, u64::from(size) - 1] {
                assert_eq!(parsed.find(start + offset, None).unwrap(), Some(fde));
                assert!(parsed.row_at(&fde, start + offset).unwrap().is_some());
            }
            assert_eq!(parsed.find(start.wrapping_sub(1), None).unwrap(), None);
            assert_eq!(parsed.find(start.wrapping_add(size.into()), None).unwrap(), None);
        }
        for (start, size) in [(u64::MAX - 15, 17), (u64::MAX, 2), (u64::MAX, u32::MAX)] {
            let bytes = section(Version::V3, vec![function(start, size, 8)]).bytes(svma);
            probe(&bytes, svma);
            let parsed = SFrameSection::parse(&bytes, svma).unwrap();
            assert_eq!(parsed.fde(0).unwrap_err().broken, Broken::OutOfBounds);
        }
    }
    // Starts of 32 bits go both ways from the section.
    for version in [Version::V1, Version::V2] {
        for start in [SVMA.wrapping_add(0x7fff_ff00), SVMA.wrapping_sub(0x8000_0000)] {
            let mut far = section(version, vec![function(start, 16, 8)]);
            far.flags = 1;
            let bytes = far.bytes(SVMA);
            assert_eq!(parse(&bytes).fde(0).unwrap().start, start);
        }
    }
}

/// A module that was loaded elsewhere than its file says.
#[test]
fn the_load_bias_moves_everything() {
    for version in VERSIONS {
        let bytes = section(version, vec![function(TEXT, 16, 8)]).bytes(SVMA);
        let source = SFrameSource::new(&bytes, SVMA);
        for bias in [0x7f12_3456_7000, 0u64.wrapping_sub(TEXT), u64::MAX << 40] {
            let look = |pc: u64| -> Option<Found> {
                let mut memory = from_fn(|address, _: &mut [u8]| Err(MemoryError::Unreadable { address }));
                let query = Query { pc: Pc::Exact(pc), bias };
                let arch = unwind_arch_x86_64::X86_64;
                source.lookup(&arch, UnwindUserType::SFrame, &query, &mut memory).unwrap()
            };
            assert!(look(TEXT.wrapping_add(bias)).is_some());
            assert!(look(TEXT.wrapping_add(bias).wrapping_add(15)).is_some());
            assert!(look(TEXT.wrapping_add(bias).wrapping_add(16)).is_none());
            assert!(look(TEXT).is_none());
        }
    }
}
