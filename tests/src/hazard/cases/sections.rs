//! Sections that are not what they should be, and those that are in rare forms.

use unwind_core::Arch;

use super::cfi::{broken, scene_of};
use super::place::{IN_MAIN, MAIN};
use crate::hazard::{CODE, Case, NOISE, STACK, Scene, Then};
use crate::synthetic::AnyArch;
use crate::synthetic::cfi::{CfiSection, Cie, Fde, Flavor, encoding};

const START: u64 = CODE + 0x1000;

/// Numbers that never end, entries longer than their section, pointers to no CIE, augmentations and
/// versions that nobody knows (Linux Standard Base, "Exception Frames"; DWARF 5, section 6.4.1). What
/// covers the pc is broken then: a reader that says "not covered" goes on to guess, one that trusts a
/// length reads beyond the end.
pub fn h15_malformed_sections(arch: AnyArch) -> Vec<Case> {
    let mut cases = Vec::new();
    // DW_CFA_def_cfa_offset with a number of eleven bytes, and with one that is cut off.
    for (name, number) in [
        ("a number that is too large", [&[0xff; 10][..], &[1]].concat()),
        ("a number without an end", vec![0xff; 9]),
        ("an instruction that nobody knows", vec![0x10, 0x3f]),
    ] {
        let mut scene = Scene::new(arch);
        scene.section.alignment = 1;
        scene.function(START, 0x40, |scene, program| {
            scene.sized(program, 2);
            program.op(0x0e).bytes.data.extend(&number);
        });
        cases.push(broken(&scene, name, 4));
    }
    let usual = || scene_of(arch, |scene, program| scene.sized(program, 2));
    let fde_of = |scene: &Scene, number: usize| {
        usize::try_from(scene.entries[number].1 - scene.section.svma).expect("small")
    };
    // What an entry says of its length and of its CIE.
    for (name, offset, value) in [
        ("a length beyond the section", 0, 0xffff_fff0u64),
        ("a length that is too short", 0, 3),
        ("a CIE pointer to itself", 4, 0),
        ("a CIE pointer before the section", 4, 0xffff_ff00),
        ("a CIE pointer into the CIE", 4, 0x10),
    ] {
        let mut scene = usual();
        let fde = fde_of(&scene, 0);
        scene.section.bytes.patch(fde + offset, value, 4);
        let mut case = broken(&scene, name, 4);
        if value == 0 || offset == 0 {
            // By the length 0 and by a CIE's id it is something else than an FDE: nothing covers the pc.
            case.expect.then = Then::Anything;
            case.expect.never.clear();
        }
        cases.push(case);
    }
    for (name, version, augmentation) in [
        ("version 2", 2u8, &b"zR"[..]),
        ("version 255", 255, b"zR"),
        ("an unknown letter", 1, b"zRX"),
        ("an unknown vendor's", 1, b"armcc+"),
    ] {
        let mut scene = Scene::new(arch);
        scene.next_cie(|cie| {
            cie.version = version;
            cie.augmentation = augmentation.to_vec();
        });
        if augmentation.first() != Some(&b'z') {
            scene.next_cie(|cie| cie.pointer_encoding = 0);
        }
        scene.function(START, 0x40, |scene, program| scene.sized(program, 2));
        cases.push(broken(&scene, name, 4));
    }
    // An augmentation without an end, and sections cut anywhere: right, broken or not covered, but never
    // read beyond.
    let whole = usual();
    for len in (0..whole.section.bytes.data.len()).step_by(3) {
        let mut scene = whole.clone();
        let header = scene.header_bytes(&scene.header());
        scene.image.eh_frame = Some((scene.section.bytes.data[..len].to_vec(), scene.section.svma));
        scene.image.eh_frame_hdr = Some((header, scene.hdr_svma));
        scene.called(STACK, 2, IN_MAIN);
        let pc = START + 4;
        cases.push(scene.case(format!("cut after {len} bytes"), pc, &[(pc, STACK)], Then::Anything));
    }
    let mut endless = usual();
    let letters = [&12u32.to_le_bytes()[..], &[0; 4], &[1], b"zRRRRRR", &[0x61; 64]].concat();
    endless.image.eh_frame = Some((letters, endless.section.svma));
    let pc = START + 4;
    cases.push(endless.case("an augmentation without an end", pc, &[(pc, STACK)], Then::Anything));
    cases
}

/// Versions 1 and 3 of the CIE differ in one byte, and 64-bit lengths, `.debug_frame` beside `.eh_frame`
/// and segment selectors are rare enough that readers are not tried on them. `.eh_frame` is what the
/// program itself would be unwound by: where the two disagree, it counts.
pub fn h22_sections_in_rare_forms(arch: AnyArch) -> Vec<Case> {
    let mut cases = Vec::new();
    let pc = START + 4;
    for (is_64, version, segment_size) in
        [(false, 1, 0), (true, 1, 0), (false, 3, 0), (true, 3, 0), (false, 4, 0), (true, 4, 0), (false, 4, 4)]
    {
        let mut debug = Scene::new(arch);
        let mut section = CfiSection::new(Flavor::DebugFrame, arch.word_size(), arch.byte_order(), 0);
        let cie = Cie {
            is_64,
            version,
            segment_size,
            data_alignment: -4,
            ..Cie::debug(arch.ra(), debug.cie.instructions.clone())
        };
        let offset = section.cie(&cie);
        let mut program = |start, units| {
            let mut program = crate::synthetic::cfi::Program::new(arch.word_size(), arch.byte_order(), 1, -4);
            debug.sized(&mut program, units);
            if units == 9 {
                program.with(0x07, &[arch.ra().0.into()]);
            }
            let fde = Fde { start, length: 0x20, instructions: program.into_bytes() };
            section.fde(offset, &cie, &fde).expect("addresses of full size");
        };
        program(START, 3);
        program(START + 0x20, 4);
        program(MAIN, 9);
        debug.image.debug_frame = Some(section.bytes.data.clone());
        let name = format!("version {version}{}", if is_64 { ", 64-bit" } else { "" });
        let name = if segment_size > 0 { format!("{name}, segments") } else { name };
        let mut alone = debug.clone();
        let second = alone.called(STACK, 3, START + 0x28);
        let third = alone.called(second, 4, IN_MAIN);
        let frames = [(pc, STACK), (START + 0x28, second), (IN_MAIN, third)];
        cases.push(alone.case(format!(".debug_frame, {name}"), pc, &frames, Then::Complete));
        // `.eh_frame` knows the first function, and better.
        let mut both = debug;
        both.plain(START, 0x20, 2);
        let second = both.called(STACK, 2, START + 0x28);
        let third = both.called(second, 4, IN_MAIN);
        let frames = [(pc, STACK), (START + 0x28, second), (IN_MAIN, third)];
        cases.push(both.case(format!("both sections, {name}"), pc, &frames, Then::Complete));
        if version == 4 {
            continue;
        }
        let mut scene = Scene::new(arch);
        scene.next_cie(|cie| {
            cie.is_64 = is_64;
            cie.version = version;
        });
        scene.plain(START, 0x20, 2).outermost(MAIN, 0x20);
        let second = scene.called(STACK, 2, IN_MAIN);
        let frames = [(pc, STACK), (IN_MAIN, second)];
        cases.push(scene.case(format!(".eh_frame, {name}"), pc, &frames, Then::Complete));
    }
    cases
}

/// Pointer encodings of every kind (Linux Standard Base, "DWARF Exception Header Encoding"): assemblers
/// write two of them, other tools any.
pub fn h22_pointer_encodings_of_every_kind(arch: AnyArch) -> Vec<Case> {
    let mut cases = Vec::new();
    let pc = START + 4;
    for base in [0, encoding::PCREL, encoding::TEXTREL, encoding::DATAREL, encoding::ALIGNED] {
        for format in encoding::FORMATS {
            if base == encoding::ALIGNED && format != 0 {
                continue;
            }
            for indirect in [0, encoding::INDIRECT] {
                // 2 bytes reach nowhere, and no file has an aligned pointer to a pointer.
                let is_narrow = matches!(format, 0x02 | 0x0a);
                let is_odd = base == encoding::ALIGNED && indirect != 0;
                if is_narrow || is_odd {
                    continue;
                }
                let mut scene = Scene::new(arch);
                scene.section.text_svma = CODE;
                scene.section.got_svma = CODE + 0xa_0000;
                scene.image.text_svma = Some(CODE);
                scene.image.got_svma = Some(CODE + 0xa_0000);
                if base == encoding::TEXTREL || base == encoding::DATAREL {
                    // Unsigned offsets reach upwards alone.
                    scene.section.got_svma = CODE;
                    scene.image.got_svma = Some(CODE);
                }
                scene.next_cie(|cie| cie.pointer_encoding = format | base | indirect);
                let unsigned = matches!(format, 0x01 | 0x03);
                if unsigned && base == encoding::PCREL {
                    scene.section.svma = CODE - 0x10_0000;
                    scene.hdr_svma = CODE - 0x11_0000;
                }
                scene.plain(START, 0x20, 2).outermost(MAIN, 0x20);
                for (place, target) in scene.section.indirect.clone() {
                    scene.put(place, target);
                }
                let second = scene.called(STACK, 2, IN_MAIN);
                let frames = [(pc, STACK), (IN_MAIN, second)];
                let name = format!("encoding {:#04x}", format | base | indirect);
                let mut case = scene.case(name, pc, &frames, Then::Complete);
                if indirect != 0 {
                    // Only the loaded program knows such a pointer's target: right, or refused.
                    case.expect.frames.truncate(1);
                    case.expect.then = Then::Anything;
                    case.expect.never.push(NOISE);
                }
                cases.push(case);
            }
        }
    }
    cases
}
