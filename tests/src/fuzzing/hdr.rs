//! The target `eh_frame_hdr`: the search table of functions beside each other, right and damaged.

use arbitrary::{Arbitrary, Unstructured};
use unwind_core::dwarf::{DwarfSections, DwarfSource, Section};
use unwind_core::{Arch, FrameSource, Pc, Query, Register, UnwindUserType};

use super::judge::Made;
use crate::synthetic::AnyArch;
use crate::synthetic::cfi::{CfiSection, Cie, Fde, Flavor, Header, Program, encoding, return_address_column};

/// What the fuzzer's bytes become.
#[derive(Clone, Debug, Arbitrary)]
pub struct HdrInput {
    arch: AnyArch,
    /// Of each function: addresses before it that nothing covers, and its length.
    functions: Vec<(u8, u8)>,
    /// Where the sections are.
    place: u8,
    /// Of the table's entries, of the number of them, of the pointer to `.eh_frame`.
    encodings: [u8; 3],
    /// Bytes of the table that are changed: where, and to what.
    damage: Vec<(u16, u8)>,
    /// How much of it is missing at its end.
    missing: u8,
    /// Whether the terminator is there.
    is_terminated: bool,
}

/// What linkers write, and what they may.
const ENCODINGS: [u8; 6] = [
    0x0b | encoding::DATAREL,
    0x0b | encoding::DATAREL,
    0x03,
    0x0c | encoding::DATAREL,
    0x0b | encoding::PCREL,
    encoding::ABSPTR,
];

/// Runs the target on the fuzzer's bytes.
///
/// # Panics
/// Where the library does something that it must not.
pub fn eh_frame_hdr(data: &[u8]) {
    let Ok(mut input) = HdrInput::arbitrary(&mut Unstructured::new(data)) else { return };
    input.functions.truncate(200);
    let (arch, word) = (input.arch, input.arch.word_size());
    let base = match input.place % 4 {
        0 => 0x1000,
        1 => 0x4000_0000,
        2 => word.max_address() - 0xf_ffff,
        _ => (word.max_address() / 2) & !0xfff,
    };
    let mut section = CfiSection::new(Flavor::EhFrame, word, arch.byte_order(), base + 0x8_0000);
    let mut program = Program::new(word, arch.byte_order(), 1, -8);
    let ra = return_address_column(&arch, true);
    let _ = program.def_cfa(arch.sp(), 16, 0).and(program.offset(ra, -8, false, 0));
    let cie = Cie::usual(ra, program.into_bytes());
    let cie_offset = section.cie(&cie);
    let (mut next, mut entries, mut pcs) = (base, Vec::new(), vec![0, base.wrapping_sub(1), base + 0x7_ffff]);
    for (index, (gap, length)) in (0u64..).zip(&input.functions) {
        let start = next + u64::from(*gap);
        next = start + u64::from(*length);
        // Something to tell them apart by.
        let mut program = Program::new(word, arch.byte_order(), 1, -8);
        let _ = program.def_cfa(Register(1), (index * 8).cast_signed(), 0);
        let fde = Fde { start, length: u64::from(*length), instructions: program.into_bytes() };
        let Some(offset) = section.fde(cie_offset, &cie, &fde) else { continue };
        entries.push((start, section.svma + offset));
        pcs.extend([
            start.wrapping_sub(1),
            start,
            start + u64::from(*length) / 2,
            next.wrapping_sub(1),
            next,
        ]);
    }
    if input.is_terminated {
        section.terminator();
    }
    let [table, count, pointer] = input.encodings;
    let choose = |choice: u8, from: &[u8]| from[usize::from(choice) % from.len()];
    let svma = base + 0x7_0000;
    let mut header = Header::usual(svma, entries);
    header.table_encoding = choose(table, &ENCODINGS);
    header.count_encoding = choose(count, &[0x03, 0x03, 0x04, 0x02, 0x01, encoding::ABSPTR]);
    header.pointer_encoding =
        choose(pointer, &[0x0b | encoding::PCREL, 0x0b | encoding::DATAREL, encoding::ABSPTR]);
    // The table is never empty.
    let Some(mut bytes) = header.write(word, arch.byte_order(), section.svma) else { return };
    for (at, value) in &input.damage {
        let at = usize::from(*at) % bytes.len();
        bytes[at] = *value;
    }
    bytes.truncate(bytes.len() - usize::from(input.missing).min(bytes.len()));
    let is_whole = input.damage.is_empty() && input.missing == 0;
    let eh_frame = Some(Section { data: &section.bytes.data, svma: section.svma });
    let eh_frame_hdr = Some(Section { data: &bytes, svma });
    let scanned = DwarfSource::new(DwarfSections { eh_frame, ..DwarfSections::default() });
    let searched = DwarfSource::new(DwarfSections { eh_frame, eh_frame_hdr, ..DwarfSections::default() });
    let is_right = searched.verify_hdr(&arch).is_ok();
    let usual = ENCODINGS[0] == header.table_encoding;
    assert!(is_right || !is_whole || !usual, "a table as linkers write it passes the full check");
    for pc in pcs {
        let (mut memory, query) = (Made { arch, pc }, Query::new(Pc::Exact(word.truncate(pc))));
        let by_scan = scanned.lookup(&arch, UnwindUserType::Dwarf, &query, &mut memory);
        let by_search = searched.lookup(&arch, UnwindUserType::Dwarf, &query, &mut memory);
        // The full check does not tell whether functions are left out.
        let is_left_out = !is_whole && by_search == Ok(None);
        if is_right && !is_left_out {
            assert_eq!(by_search, by_scan, "at {pc:#x}");
        }
    }
}
