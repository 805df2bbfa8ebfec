//! Headers.

use unwind_core::sframe::{FlawKind, SFrameSection, SFrameSections};
use unwind_core::{ByteOrder, Pc};

use super::*;

#[test]
fn no_bytes_and_no_functions() {
    assert_eq!(refused(&[]).broken, Broken::UnexpectedEnd);
    assert_eq!(SFrameSections::new(&[], SVMA).count(), 0);
    assert_eq!(lookup(Abi::Amd64, &SFrameSource::new(&[], SVMA), Pc::Exact(TEXT)), Ok(None));
    for version in VERSIONS {
        let bytes = section(version, Vec::new()).bytes(SVMA);
        assert_eq!(bytes.len(), 28);
        let parsed = parse(&bytes);
        assert_eq!(parsed.validate(), Ok(()));
        assert_eq!(parsed.fdes().count(), 0);
        assert_eq!(cfa_at(&bytes, TEXT), Ok(None));
        for length in 0..28 {
            assert_eq!(refused(&bytes[..length]).broken, Broken::UnexpectedEnd, "{length}");
        }
    }
}

#[test]
fn h23_wrong_version() {
    let mut bytes = section(Version::V2, vec![function(TEXT, 16, 8)]).bytes(SVMA);
    for version in (0..=255).filter(|version| !(1..=3).contains(version)) {
        bytes[2] = version;
        let error = refused(&bytes);
        assert_eq!((error.broken, error.offset), (Broken::UnknownVersion, 2));
        assert_eq!(cfa_at(&bytes, TEXT), Err(Broken::UnknownVersion));
    }
}

#[test]
fn wrong_magic_and_abi() {
    let bytes = section(Version::V2, vec![function(TEXT, 16, 8)]).bytes(SVMA);
    for (at, value) in [(0, 0xe3), (0, 0xde), (1, 0xdf), (1, 0xe2), (0, 0), (1, 0)] {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        assert_eq!(refused(&bytes).broken, Broken::BadMagic);
    }
    for abi in (0..=255).filter(|abi| !(1..=4).contains(abi)) {
        let mut bytes = bytes.clone();
        bytes[4] = abi;
        let error = refused(&bytes);
        assert_eq!((error.broken, error.offset), (Broken::UnknownAbi, 4));
    }
}

/// The magic number and the ABI must agree, and the ABI must be the target's.
#[test]
fn h23_foreign_byte_order() {
    for version in VERSIONS {
        for abi in ABIS {
            let bytes = Section::new(version, abi, vec![function(TEXT, 16, 8)]).bytes(SVMA);
            assert_eq!(parse(&bytes).validate(), Ok(()), "{version:?} {abi:?}");
            assert_eq!(bytes[0] == 0xde, abi.byte_order() == ByteOrder::Big);
            let mut foreign = bytes.clone();
            foreign.swap(0, 1);
            let error = refused(&foreign);
            assert_eq!((error.broken, error.offset), (Broken::UnknownAbi, 4));
            for other in ABIS {
                let found = lookup(other, &SFrameSource::new(&bytes, SVMA), Pc::Exact(TEXT));
                match other == abi {
                    true => assert!(found.unwrap().is_some()),
                    false => {
                        let error = SourceError { broken: Broken::UnknownAbi, offset: 4 };
                        assert_eq!(found, Err(LookupError::Broken(error)));
                    }
                }
            }
        }
    }
}

#[test]
fn h23_tables_outside() {
    for version in VERSIONS {
        let functions = vec![function(TEXT, 16, 8), function(TEXT + 16, 16, 16)];
        let good = section(version, functions);
        let length = u32::try_from(good.bytes(SVMA).len()).unwrap();
        assert_eq!(parse(&good.bytes(SVMA)).header().size, u64::from(length));
        let outside = |change: &dyn Fn(&mut Section)| {
            let mut bad = good.clone();
            change(&mut bad);
            let bytes = bad.bytes(SVMA);
            assert_eq!(refused(&bytes).broken, Broken::OutOfBounds, "{version:?}");
            assert_eq!(cfa_at(&bytes, TEXT), Err(Broken::OutOfBounds));
        };
        for huge in [3, 0x8000_0000 / 20, 0xffff_ffff / 17, u32::MAX] {
            outside(&|section| section.fde_count = Some(huge));
        }
        for far in [length, 0x7fff_ffff, u32::MAX - 27, u32::MAX] {
            outside(&|section| section.fde_offset = Some(far));
            outside(&|section| section.fre_offset = Some(far));
            outside(&|section| section.fre_size = Some(far));
        }
        // By one byte.
        let rows = parse(&good.bytes(SVMA)).header().fre_size;
        outside(&|section| section.fre_size = Some(rows + 1));
        outside(&|section| section.fre_offset = Some(length - 28 - rows + 1));
        // The table and the rows overlap.
        outside(&|section| section.fre_offset = Some(0));
        outside(&|section| section.fre_offset = Some(1));
        outside(&|section| section.fre_offset = Some(u32::from(version.fde_size()) * 2 - 1));
        outside(&|section| section.fde_offset = Some(1));
    }
}

/// The rows may lie before the table, and there may be room around both.
#[test]
fn tables_in_another_order_and_with_gaps() {
    for version in VERSIONS {
        let functions = vec![function(TEXT, 16, 8), function(TEXT + 16, 16, 16)];
        let mut gaps = section(version, functions.clone());
        gaps.gaps = (vec![0xaa; 5], vec![0xbb; 3]);
        let bytes = gaps.bytes(SVMA);
        assert_eq!(parse(&bytes).validate(), Ok(()));
        assert_eq!([cfa_at(&bytes, TEXT), cfa_at(&bytes, TEXT + 31)], [Ok(Some(8)), Ok(Some(16))]);

        // Starts relative to the section do not change when the table moves.
        let mut good = section(version, functions);
        good.flags = 1;
        let bytes = good.bytes(SVMA);
        let table = usize::from(version.fde_size()) * 2;
        let mut swapped = bytes[..28].to_vec();
        swapped.extend(&bytes[28 + table..]);
        let rows = swapped.len() - 28;
        swapped.extend(&bytes[28..28 + table]);
        swapped[20..24].copy_from_slice(&u32::try_from(rows).unwrap().to_le_bytes());
        swapped[24..28].copy_from_slice(&[0; 4]);
        assert_eq!(parse(&swapped).validate(), Ok(()));
        assert_eq!([cfa_at(&swapped, TEXT), cfa_at(&swapped, TEXT + 31)], [Ok(Some(8)), Ok(Some(16))]);
    }
}

#[test]
fn h23_auxiliary_header() {
    for version in VERSIONS {
        for size in [0, 1, 8, 27, 255] {
            let mut with = section(version, vec![function(TEXT, 16, 8)]);
            // What looks like a header is none.
            with.auxiliary = [0xe2, 0xde, 3, 4, 3, 0, 0xf8, 0].into_iter().cycle().take(size).collect();
            let bytes = with.bytes(SVMA);
            let parsed = parse(&bytes);
            assert_eq!(usize::from(parsed.header().auxiliary_size), size);
            assert_eq!(parsed.validate(), Ok(()));
            assert_eq!([cfa_at(&bytes, TEXT), cfa_at(&bytes, TEXT + 16)], [Ok(Some(8)), Ok(None)]);
            assert_eq!(SFrameSections::new(&bytes, SVMA).count(), 1);
        }
        // One that is not there.
        let mut bytes = section(version, Vec::new()).bytes(SVMA);
        bytes[7] = 1;
        assert_eq!(refused(&bytes).broken, Broken::OutOfBounds);
    }
}

/// Every flag byte: relative starts are read where the bit says so, the order is relied on where it
/// is there, nothing else matters; and the full check knows which version has which.
#[test]
fn h23_flags() {
    for version in VERSIONS {
        for flags in 0..=255 {
            let functions = [(TEXT, 8), (TEXT + 16, 16), (TEXT + 32, 24)];
            let functions = functions.map(|(start, cfa)| function(start, 16, cfa));
            let mut flagged = section(version, functions.to_vec());
            flagged.flags = flags;
            let bytes = flagged.bytes(SVMA);
            let parsed = parse(&bytes);
            assert_eq!(parsed.header().flags, flags);
            assert_eq!(
                (parsed.header().is_sorted(), parsed.header().is_pcrel()),
                (flags & 1 != 0, flags & 4 != 0)
            );
            for (pc, cfa) in [(TEXT, 8), (TEXT + 31, 16), (TEXT + 47, 24)] {
                assert_eq!(cfa_at(&bytes, pc), Ok(Some(cfa)), "{version:?} {flags:#x}");
            }
            let known = match version {
                Version::V1 => 0b011,
                Version::V2 => 0b111,
                Version::V3 => 0b101,
                _ => panic!("which flags does {version:?} have?"),
            };
            match flags & !known {
                0 => assert_eq!(parsed.validate(), Ok(())),
                _ => assert_eq!(parsed.validate().unwrap_err().kind, FlawKind::UnknownFlag),
            }
        }
    }
}

#[test]
fn a_wrong_number_of_rows_is_a_flaw_but_no_matter() {
    for version in VERSIONS {
        for count in [0, 1, 3, u32::MAX] {
            let mut lying = section(version, vec![function(TEXT, 16, 8), function(TEXT + 16, 16, 16)]);
            lying.fre_count = Some(count);
            let bytes = lying.bytes(SVMA);
            assert_eq!(parse(&bytes).validate().unwrap_err().kind, FlawKind::RowCount);
            assert_eq!(cfa_at(&bytes, TEXT + 20), Ok(Some(16)));
        }
    }
}

/// Linkers put sections one after another. Whatever stands behind the last one is not theirs.
#[test]
fn sections_one_after_another() {
    let count =
        |bytes: &[u8]| SFrameSections::new(bytes, SVMA).map(|section| section.is_ok()).collect::<Vec<_>>();
    for version in VERSIONS {
        let saving = Function::new(TEXT, 16, vec![RowBytes::new(0, &[8, -16])]);
        let first = section(version, vec![saving]).bytes(SVMA);
        let mut padded = first.clone();
        padded.resize(first.len().next_multiple_of(8), 0);
        assert_ne!(padded.len(), first.len());
        let next = SVMA + padded.len() as u64;
        let second = section(version, vec![function(TEXT + 16, 16, 16)]).bytes(next);
        let both = [&*padded, &second].concat();
        assert_eq!(count(&both), [true, true]);
        assert_eq!([cfa_at(&both, TEXT), cfa_at(&both, TEXT + 16)], [Ok(Some(8)), Ok(Some(16))]);
        assert_eq!(cfa_at(&both, TEXT + 32), Ok(None));
        for behind in [&[][..], &[0], &[0; 40], &[0xff; 40], &[0, 0, 0, 0, 0, 0, 0, 0, 0xe2, 0xde]] {
            let bytes = [&*both, behind].concat();
            probe(&bytes, SVMA);
            assert_eq!(count(&bytes), [true, true], "{behind:x?}");
            assert_eq!(cfa_at(&bytes, TEXT + 32), Ok(None));
        }
        // Padding that is none: the second section is not looked for behind it.
        let mut dirty = both.clone();
        dirty[first.len()] = 1;
        assert_eq!(count(&dirty), [true]);
        // The second one is broken: what the first says holds.
        let mut broken = both;
        broken[padded.len() + 2] = 9;
        probe(&broken, SVMA);
        assert_eq!(count(&broken), [true, false]);
        assert_eq!(cfa_at(&broken, TEXT), Ok(Some(8)));
        assert_eq!(cfa_at(&broken, TEXT + 16), Err(Broken::UnknownVersion));
    }
}

/// Neither a segment's size nor a section's is to be trusted.
#[test]
fn bytes_behind_a_section_do_not_belong_to_it() {
    for version in VERSIONS {
        let bytes = section(version, vec![function(TEXT, 16, 8)]).bytes(SVMA);
        for more in [1, 7, 64] {
            let long = [&*bytes, &vec![0x5a; more]].concat();
            let parsed = SFrameSection::parse(&long, SVMA).unwrap();
            assert_eq!(parsed.data(), bytes);
            assert_eq!(SFrameSections::new(&long, SVMA).count(), 1);
        }
    }
}
