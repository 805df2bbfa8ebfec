//! Sections that are not what they should be.

use unwind_core::dwarf::{DwarfIndex, DwarfIndexEntry, DwarfSections, DwarfSource, Flavor, Section};
use unwind_core::{Broken, LookupError, Pc, Rule, SourceError};

use super::table::{EH_FRAME, HDR, Table, X86, lookup};

fn sections(bytes: &[u8]) -> DwarfSections<'_> {
    DwarfSections { eh_frame: Some(Section { data: bytes, svma: EH_FRAME }), ..DwarfSections::default() }
}

fn broken(found: Result<Option<Rule>, LookupError>) -> Broken {
    match found {
        Err(LookupError::Broken(SourceError { broken, .. })) => broken,
        other => panic!("{other:?}"),
    }
}

fn sound() -> Table {
    let mut table = Table::of(X86, 0x1000, 0x10, |program| {
        program.with(0x0e, &[16]).advance(4, 1).with(0x86, &[2]).with(0x0e, &[0x4000]);
    });
    table.function(0x1010, 0x10, |program| {
        program.with(0x0f, &[3]).bytes.data.extend([0x77, 0x08, 0x06]);
    });
    table.section.terminator();
    table
}

#[test]
fn h15_cut_at_every_byte() {
    let table = sound();
    let whole = &table.section.bytes.data;
    let header = table.header();
    let right = [0x1000, 0x1008, 0x1010].map(|pc| lookup(&X86, sections(whole), Pc::Exact(pc)));
    for len in 0..whole.len() {
        for (pc, right) in [0x1000, 0x1008, 0x1010].into_iter().zip(&right) {
            let cut = sections(&whole[..len]);
            let mut searched = cut;
            searched.eh_frame_hdr = Some(Section { data: &header, svma: HDR });
            for sections in [cut, searched] {
                // Right, or an error, or (where a scan saw the end first) nothing.
                match lookup(&X86, sections, Pc::Exact(pc)) {
                    found @ Ok(Some(_)) => assert_eq!(&found, right, "cut to {len}"),
                    Ok(None) | Err(LookupError::Broken(_)) => {}
                    other => panic!("cut to {len}: {other:?}"),
                }
            }
        }
        let mut room = vec![DwarfIndexEntry::default(); 4];
        let index = DwarfIndex::build(&X86, &sections(&whole[..len]), Flavor::EhFrame, &mut room);
        assert!(index.is_ok(), "cut to {len}: {index:?}");
    }
}

#[test]
fn h15_every_byte_changed() {
    let table = sound();
    let header = table.header();
    for at in 0..table.section.bytes.data.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = table.section.bytes.data.clone();
            bytes[at] = value;
            let mut searched = sections(&bytes);
            searched.eh_frame_hdr = Some(Section { data: &header, svma: HDR });
            for sections in [sections(&bytes), searched] {
                for pc in [0x1000, 0x1008, 0x1010, 0] {
                    // Whatever it is now, it is an answer.
                    let _ = lookup(&X86, sections, Pc::Exact(pc));
                }
                let _ = DwarfSource::new(sections).verify_hdr(&X86);
            }
        }
    }
}

#[test]
fn h15_numbers_that_are_too_long() {
    // A DW_CFA_def_cfa_offset of eleven bytes, one that never ends, and one padded with zeroes.
    let long = [&[0x0e][..], &[0xff; 10], &[0x01]].concat();
    let table = |bytes: &[u8]| {
        Table::of(X86, 0x1000, 0x10, |program| {
            program.bytes.data.extend(bytes);
        })
    };
    assert_eq!(broken(table(&long).lookup(Pc::Exact(0x1000))), Broken::BadLeb128);
    let mut endless = table(&[0x0e, 0xff, 0xff, 0xff, 0xff]);
    endless.section.alignment = 1;
    endless.function(0x2000, 0x10, |program| {
        program.bytes.data.extend([0x0e, 0x80, 0x80]);
    });
    assert_eq!(broken(endless.lookup(Pc::Exact(0x2000))), Broken::UnexpectedEnd);
    let padded = table(&[0x0e, 0x90, 0x80, 0x80, 0x00]);
    assert!(matches!(padded.lookup(Pc::Exact(0x1000)), Ok(Some(Rule::Frame(_)))));
}

#[test]
fn h15_entry_lengths() {
    // The entry's length is replaced; the sound entries before it still answer.
    let mut table = sound();
    table.section.bytes.data.truncate(table.section.bytes.data.len() - 4);
    let last = usize::try_from(table.entries[1].1 - EH_FRAME).expect("small");
    let length = table.section.bytes.data.len() - last - 4;
    for wrong in [0xffff_ffffu32, 0xffff_fff0, 0x8000_0000, u32::try_from(length).expect("small") + 1, 3] {
        table.section.bytes.patch(last, wrong.into(), 4);
        let bytes = &table.section.bytes.data;
        assert!(matches!(lookup(&X86, sections(bytes), Pc::Exact(0x1000)), Ok(Some(_))), "{wrong:#x}");
        assert!(
            matches!(lookup(&X86, sections(bytes), Pc::Exact(0x1010)), Err(LookupError::Broken(_))),
            "{wrong:#x}"
        );
    }
    // A length of zero is the end of the section.
    table.section.bytes.patch(last, 0, 4);
    assert_eq!(lookup(&X86, sections(&table.section.bytes.data), Pc::Exact(0x1010)), Ok(None));
    // A 64-bit length that is larger than any section.
    let huge = [&[0xff; 4][..], &[0xff; 8], &[0; 16]].concat();
    assert_eq!(broken(lookup(&X86, sections(&huge), Pc::Exact(0x1000))), Broken::OutOfBounds);
}

#[test]
fn h15_a_cie_pointer_that_leads_to_no_cie() {
    let mut table = sound();
    let fde = usize::try_from(table.entries[0].1 - EH_FRAME).expect("small");
    let pointer = fde + 4;
    // To itself, to the middle of something, before the section, behind itself.
    for to in [4u32, u32::try_from(pointer).expect("small") - 8, 0x7000, 0xffff_ffc0] {
        let pc = Pc::Exact(0x1000);
        table.section.bytes.patch(pointer, to.into(), 4);
        assert!(lookup(&X86, sections(&table.section.bytes.data), pc).is_err(), "{to:#x}");
    }
    // In `.debug_frame`, where it is an offset, a CIE can point to itself.
    let itself = [&16u32.to_le_bytes()[..], &0u32.to_le_bytes(), &[0; 12]].concat();
    let debug_frame = Some(Section { data: &itself, svma: 0 });
    let sections = DwarfSections { debug_frame, ..DwarfSections::default() };
    assert_eq!(broken(lookup(&X86, sections, Pc::Exact(0))), Broken::BadCie);
}

#[test]
fn h15_augmentations_and_versions() {
    let with = |version: u8, augmentation: &[u8]| {
        let mut table = Table::new(X86);
        table.cie.version = version;
        table.cie.augmentation = augmentation.to_vec();
        table.function(0x1000, 0x10, |program| {
            program.with(0x0e, &[16]);
        });
        lookup(&X86, sections(&table.section.bytes.data), Pc::Exact(0x1000))
    };
    let right = with(1, b"zR");
    assert!(matches!(right, Ok(Some(Rule::Frame(_)))));
    assert_eq!(with(3, b"zR"), right);
    assert_eq!(with(1, b"zRB"), right);
    for version in [0, 2, 5, 255] {
        assert_eq!(broken(with(version, b"zR")), Broken::UnknownVersion, "{version}");
    }
    for augmentation in [&b"zRX"[..], b"R", b"Rz", b"armcc+", b"zRz"] {
        assert_eq!(broken(with(1, augmentation)), Broken::UnknownAugmentation, "{augmentation:?}");
    }
    // One that is not terminated: a CIE of nothing but letters, and more behind it.
    let letters = [&12u32.to_le_bytes()[..], &[0; 4], &[1], b"zRRRRRR", &[0x61; 64]].concat();
    let fde = [
        &12u32.to_le_bytes()[..],
        &(4 + u32::try_from(letters.len()).expect("small")).to_le_bytes(),
        &[0; 8],
    ];
    let unterminated = [letters, fde.concat()].concat();
    assert!(matches!(lookup(&X86, sections(&unterminated), Pc::Exact(0)), Err(LookupError::Broken(_))));
}
