//! Files made by hand, and broken in every place.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "tests"
)]

use object::Endianness;

use super::read::up_to_terminator;
use super::*;

/// Where the loaded segment begins in memory: its bytes are the whole file.
const BASE: u64 = 0x40_0000;

/// A section to be written: name, type, flags, contents.
type NewSection<'a> = (&'a str, u32, u64, &'a [u8]);

/// A 64-bit little-endian file: ELF header, program headers (one PT_LOAD, one PT_NOTE with a
/// build id, one PT_GNU_EH_FRAME if there is a section of that name), contents, section headers.
fn file(sections: &[NewSection<'_>]) -> Vec<u8> {
    let note = [&[4, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0][..], b"GNU\0", &[0xb1, 0xd2, 0xd3, 0xd4]].concat();
    let hdr = sections.iter().position(|section| section.0 == ".eh_frame_hdr");
    let segments = 2 + usize::from(hdr.is_some());
    let mut bytes = vec![0; 64 + 56 * segments];
    let note_offset = bytes.len() as u64;
    bytes.extend_from_slice(&note);
    let mut names = vec![0u8];
    let mut headers = vec![vec![0u8; 64]];
    let strings: &[u8] = &[];
    let mut places = Vec::new();
    for (name, kind, flags, contents) in sections.iter().chain([&(".shstrtab", 3, 0, strings)]) {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let offset = bytes.len() as u64;
        let name_offset = names.len() as u32;
        names.extend_from_slice(name.as_bytes());
        names.push(0);
        let contents = if *name == ".shstrtab" { names.as_slice() } else { contents };
        bytes.extend_from_slice(contents);
        let size = contents.len() as u64;
        places.push((offset, size));
        let mut header = [name_offset.to_le_bytes(), kind.to_le_bytes()].concat();
        for field in [*flags, BASE + offset, offset, size, 0, 1, 0] {
            header.extend_from_slice(&field.to_le_bytes());
        }
        headers.push(header);
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let section_headers = bytes.len() as u64;
    let count = headers.len() as u16;
    bytes.extend(headers.into_iter().flatten());

    let end = bytes.len() as u64;
    let mut segment = |index: usize, kind: u32, flags: u32, offset: u64, size: u64| {
        let mut header = [kind.to_le_bytes(), flags.to_le_bytes()].concat();
        for field in [offset, BASE + offset, BASE + offset, size, size, 4] {
            header.extend_from_slice(&field.to_le_bytes());
        }
        bytes[64 + 56 * index..][..56].copy_from_slice(&header);
    };
    segment(0, 1, 5, 0, end);
    segment(1, 4, 4, note_offset, note.len() as u64);
    if let Some(hdr) = hdr {
        segment(2, 0x6474_e550, 4, places[hdr].0, places[hdr].1);
    }
    bytes[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0");
    bytes[20] = 1;
    bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
    bytes[40..48].copy_from_slice(&section_headers.to_le_bytes());
    let sizes = [64, 56, segments as u16, 64, count, count - 1];
    for (index, size) in sizes.into_iter().enumerate() {
        bytes[52 + 2 * index..][..2].copy_from_slice(&size.to_le_bytes());
    }
    bytes
}

/// A zlib stream (RFC 1950) of one stored block.
fn zlib(contents: &[u8]) -> Vec<u8> {
    let length = contents.len() as u16;
    let (mut a, mut b) = (1u32, 0u32);
    for byte in contents {
        a = (a + u32::from(*byte)) % 65521;
        b = (b + a) % 65521;
    }
    let adler = (b << 16 | a).to_be_bytes();
    [&[0x78, 0x01, 0x01][..], &length.to_le_bytes(), &(!length).to_le_bytes(), contents, &adler].concat()
}

/// Entries of lengths 8 and 4, and a terminator; then what is no longer part of the section.
const EH_FRAME: [u8; 28] =
    [8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 4, 0, 0, 0, 9, 9, 9, 9, 0, 0, 0, 0, 0xee, 0xee, 0xee, 0xee];

/// A header that points `distance` bytes behind its own pointer, with an empty search table.
fn hdr(distance: i32) -> Vec<u8> {
    [&[1, 0x1b, 0x03, 0x3b][..], &distance.to_le_bytes(), &[0; 4]].concat()
}

fn data(section: &Option<OwnedSection>) -> Option<&[u8]> {
    section.as_ref().map(|section| section.data.as_slice())
}

#[test]
fn sections_by_name() {
    let bytes = file(&[
        (".text", 1, 6, &[0x90; 8]),
        (".eh_frame", 1, 2, &EH_FRAME),
        (".debug_frame", 1, 0, &[7; 12]),
    ]);
    let tables = ElfTables::read(bytes.as_slice()).unwrap();
    assert_eq!(
        (tables.machine, tables.word_size, tables.byte_order),
        (62, WordSize::Eight, ByteOrder::Little)
    );
    assert_eq!(data(&tables.eh_frame), Some(&EH_FRAME[..]));
    assert_eq!(data(&tables.debug_frame), Some(&[7; 12][..]));
    assert_eq!(data(&tables.eh_frame_hdr), None);
    assert_eq!(tables.build_id, Some(vec![0xb1, 0xd2, 0xd3, 0xd4]));
    let svma = tables.eh_frame.unwrap().svma;
    assert_eq!(bytes[(svma - BASE) as usize..][..28], EH_FRAME);
    assert!(tables.text_svma.is_some() && tables.got_svma.is_none());
}

#[test]
fn compressed_sections_both_ways() {
    let contents = [0x5a; 100];
    let stream = zlib(&contents);
    let header = [&1u32.to_le_bytes()[..], &[0; 4], &100u64.to_le_bytes(), &1u64.to_le_bytes()].concat();
    let gabi = file(&[(".debug_frame", 1, 0x800, &[header, stream.clone()].concat())]);
    assert_eq!(data(&ElfTables::read(gabi.as_slice()).unwrap().debug_frame), Some(&contents[..]));
    let gnu = file(&[(".zdebug_frame", 1, 0, &[b"ZLIB", &100u64.to_be_bytes()[..], &stream].concat())]);
    assert_eq!(data(&ElfTables::read(gnu.as_slice()).unwrap().debug_frame), Some(&contents[..]));
    // One that claims to become larger than anything.
    let bomb = file(&[(".zdebug_frame", 1, 0, &[b"ZLIB", &u64::MAX.to_be_bytes()[..], &stream].concat())]);
    assert_eq!(data(&ElfTables::read(bomb.as_slice()).unwrap().debug_frame), None);
}

#[test]
fn without_section_headers() {
    // The header is 12 bytes, so that .eh_frame follows it at the next multiple of 8.
    let mut bytes = file(&[(".eh_frame_hdr", 1, 2, &hdr(12)), (".eh_frame", 1, 2, &EH_FRAME)]);
    let whole = ElfTables::read(bytes.as_slice()).unwrap();
    bytes[40..48].fill(0);
    bytes[58..64].fill(0);
    let stripped = ElfTables::read(bytes.as_slice()).unwrap();
    assert_eq!(data(&stripped.eh_frame_hdr), data(&whole.eh_frame_hdr));
    assert_eq!(data(&stripped.eh_frame), Some(&EH_FRAME[..24]));
    assert_eq!(stripped.eh_frame.unwrap().svma, whole.eh_frame.unwrap().svma);
    // Pointers that lead nowhere.
    for distance in [i32::MIN, -1 << 20, 1 << 20, i32::MAX] {
        let mut bytes = file(&[(".eh_frame_hdr", 1, 2, &hdr(distance)), (".eh_frame", 1, 2, &EH_FRAME)]);
        bytes[40..48].fill(0);
        bytes[58..64].fill(0);
        assert_eq!(data(&ElfTables::read(bytes.as_slice()).unwrap().eh_frame), None);
    }
}

/// A header of version 3 for AMD64 without functions, and the second section that a linker might
/// have put behind it.
fn sframe(second: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![0; 56];
    bytes[..5].copy_from_slice(&[0xe2, 0xde, 3, 1, 3]);
    bytes[28..32].copy_from_slice(&second);
    bytes[32] = 3;
    bytes
}

#[test]
fn sframe_by_name_and_by_segment() {
    let contents = sframe([0xe2, 0xde, 3, 1]);
    let mut bytes = file(&[(".sframe", 1, 2, &contents), (".eh_frame_hdr", 1, 2, &hdr(12))]);
    let arch = unwind_arch::AnyArch::from_elf(62, 2, 1).unwrap();
    let by_name = ElfTables::read(bytes.as_slice()).unwrap();
    assert_eq!(data(&by_name.sframe), Some(contents.as_slice()));
    assert_eq!(by_name.check_sframe(&arch), Ok(()));
    // Without section headers, and the third segment, now PT_GNU_SFRAME, shows it.
    let svma = by_name.sframe.as_ref().unwrap().svma;
    bytes[40..48].fill(0);
    bytes[58..64].fill(0);
    let segment = &mut bytes[64 + 56 * 2..][..56];
    segment[..4].copy_from_slice(&0x6474_e554u32.to_le_bytes());
    for (field, value) in [(8, svma - BASE), (16, svma), (32, 56), (40, 56)] {
        segment[field..field + 8].copy_from_slice(&value.to_le_bytes());
    }
    let by_segment = ElfTables::read(bytes.as_slice()).unwrap();
    assert_eq!(data(&by_segment.sframe), Some(contents.as_slice()));
    assert_eq!(by_segment.sframe.unwrap().svma, svma);
}

#[test]
fn sframe_of_another_version_or_machine() {
    let arch = unwind_arch::AnyArch::from_elf(62, 2, 1).unwrap();
    let other = unwind_arch::AnyArch::from_elf(183, 2, 1).unwrap();
    let check = |contents: &[u8], arch| {
        let bytes = file(&[(".sframe", 1, 2, contents)]);
        ElfTables::read(bytes.as_slice()).unwrap().check_sframe(arch).map_err(|error| error.broken)
    };
    let right = sframe([0xe2, 0xde, 3, 1]);
    assert_eq!(check(&right, &arch), Ok(()));
    assert_eq!(check(&right, &other), Err(Broken::UnknownAbi));
    assert_eq!(check(&sframe([0xe2, 0xde, 9, 1]), &arch), Err(Broken::UnknownVersion));
    assert_eq!(check(&right[..20], &arch), Err(Broken::UnexpectedEnd));
    assert_eq!(check(&[1; 40], &arch), Err(Broken::BadMagic));
}

#[test]
fn sections_without_contents_are_none() {
    let bytes = file(&[(".eh_frame", 8, 2, &EH_FRAME), (".debug_frame", 1, 0, &[])]);
    let tables = ElfTables::read(bytes.as_slice()).unwrap();
    assert_eq!((data(&tables.eh_frame), data(&tables.debug_frame)), (None, None));
}

#[test]
fn entries_up_to_the_terminator() {
    let end = |data: &[u8]| up_to_terminator(data, Endianness::Little).len();
    assert_eq!(end(&EH_FRAME), 24);
    assert_eq!(end(&EH_FRAME[..20]), 20);
    assert_eq!(end(&[]), 0);
    assert_eq!(end(&[0, 0, 0, 0, 1]), 4);
    // 64-bit DWARF: a length of four bytes, then a terminator; and one that is cut.
    let wide = [255, 255, 255, 255, 4, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 9];
    assert_eq!(end(&wide), 20);
    assert_eq!(end(&wide[..9]), 9);
    assert_eq!(end(&[255; 16]), 16);
}

#[test]
fn biases_of_mappings() {
    let load = |svma, offset, file_size, executable| Load {
        svma,
        memory_size: file_size,
        offset,
        file_size,
        executable,
        writable: false,
    };
    let bytes = file(&[]);
    let mut tables = ElfTables::read(bytes.as_slice()).unwrap();
    // As linkers lay it out: the first page of the code is the last of the header segment.
    tables.loads = vec![
        load(0, 0, 0x1234, false),
        load(0x2234, 0x1234, 0x3000, true),
        load(0x6000, 0x4234, 0x100, false),
    ];
    assert_eq!(tables.bias(0x7000_0000, 0x2000, 0, false), Some(0x7000_0000));
    assert_eq!(tables.bias(0x7000_2000, 0x4000, 0x1000, true), Some(0x7000_0000 + 0x2000 - 0x1000 - 0x1000));
    // The second half of a text mapping that was split.
    assert_eq!(tables.bias(0x7000_4000, 0x2000, 0x3000, true), Some(0x7000_4000 - 0x3000 - 0x1000));
    assert_eq!(tables.bias(0x7000_0000, 0x1000, 0x9000, true), None);
    // A bias below zero is one modulo the address space.
    assert_eq!(tables.bias(0, 0x1000, 0x2000, true), Some(0u64.wrapping_sub(0x3000)));
    assert_eq!(tables.bias(u64::MAX, u64::MAX, u64::MAX, true), None);
}

#[test]
fn what_is_no_elf_file() {
    for bytes in [&b""[..], b"\x7fELF", b"#!/bin/sh\n", &[0; 64]] {
        assert_eq!(ElfTables::read(bytes).err(), Some(ElfError::NotElf));
    }
    let mut header_only = file(&[]);
    header_only.truncate(64);
    assert_eq!(ElfTables::read(header_only.as_slice()).err(), Some(ElfError::Malformed));
}

/// Cut anywhere, and every byte changed: an answer or an error.
#[test]
fn hostile_files() {
    let compressed =
        [&1u32.to_le_bytes()[..], &[0; 4], &9u64.to_le_bytes(), &1u64.to_le_bytes(), &zlib(&[1; 9])].concat();
    let sections: [NewSection<'_>; 4] = [
        (".eh_frame_hdr", 1, 2, &hdr(12)),
        (".eh_frame", 1, 2, &EH_FRAME),
        (".debug_frame", 1, 0x800, &compressed),
        (".text", 1, 6, &[0x90; 4]),
    ];
    let whole = file(&sections);
    let mut stripped = whole.clone();
    stripped[40..48].fill(0);
    stripped[58..64].fill(0);
    let mut answers = 0;
    for bytes in [whole, stripped] {
        for length in 0..bytes.len() {
            answers += usize::from(ElfTables::read(&bytes[..length]).is_ok());
        }
        let mut changed = bytes.clone();
        for index in 0..bytes.len() {
            for change in [0x01, 0x80, 0xff, bytes[index]] {
                changed[index] = bytes[index] ^ change;
                if let Ok(tables) = ElfTables::read(changed.as_slice()) {
                    answers += 1;
                    tables.bias(0x1000, 0x1000, 0, true);
                }
            }
            changed[index] = bytes[index];
        }
    }
    assert!(answers > 1000, "{answers}");
}
