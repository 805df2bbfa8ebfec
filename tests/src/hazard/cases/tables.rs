//! Tables other than DWARF's, and what is made of tables.

use unwind_core::sframe::{Abi, SFrameFormat, Version, WriteFunction, WriteRow, write_to_vec};
use unwind_core::{Arch, UnwindUserFrame};

use super::place::{IN_MAIN, MAIN};
use crate::ehabi::{Body, Tables};
use crate::hazard::{CODE, Case, Earlier, NOISE, STACK, Scene, Then};
use crate::synthetic::AnyArch;

const START: u64 = CODE + 0x1000;
/// Where another function's rule would lead.
const NEIGHBOUR: u64 = CODE + 0x77c0;
const SFRAME: u64 = CODE + 0xf_0000;

/// Functions of an SFrame section, version 2: start, size, and rows of so many units from so many bytes on.
type Functions<'f> = &'f [(u64, u32, &'f [(u32, u64)])];

/// What is done to the bytes of a section.
type Damage<'d> = &'d dyn Fn(&mut Vec<u8>);

fn sframe(scene: &Scene, abi: Abi, functions: Functions<'_>) -> Vec<u8> {
    let bias = scene.arch.sp_bias();
    let word = i32::from(scene.arch.word_size().bytes());
    let format = SFrameFormat { version: Version::V2, abi, svma: SFRAME };
    let unit = i32::try_from(scene.unit()).expect("8 or 16");
    let row = |&(start, units): &(u32, u64)| {
        let size = unit * i32::try_from(units).expect("few");
        let frame = UnwindUserFrame::plain(false, size - bias, bias - word, None);
        WriteRow { start, frame: Some(frame), is_mangled: false }
    };
    let section = write_to_vec(
        format,
        |writer, refused| {
            for &(start, size, rows) in functions {
                let function = WriteFunction { start, size, block_size: None, key_b: false };
                writer.function(&function, rows.iter().map(row), refused);
            }
        },
        &mut |refused| panic!("{refused:?}"),
    );
    section.expect("it fits")
}

/// SFrame's header and entries are numbers that readers use as they are: a block size that they divide by,
/// a number of functions that they index with, offsets that they add. The fields are those of "The SFrame
/// format", version 2: a header of 28 bytes, then 20 bytes for each function.
pub fn h23_sframe_sections_that_make_no_sense(arch: AnyArch) -> Vec<Case> {
    let Some(abi) = Abi::of(&arch) else { return Vec::new() };
    let scene = Scene::new(arch);
    let far: &[(u32, u64)] = &[(0, 1), (0x80, 2), (0x100, 3), (0x1_0000, 4), (0x1_0100, 2)];
    let functions: Functions<'_> = &[
        (START, 0x20, &[(0, 1), (4, 2)]),
        (START + 0x20, 0x200, &[(0, 1), (4, 4)]),
        (CODE + 0x2000, 0x1_8000, far),
    ];
    let sound = sframe(&scene, abi, functions);
    let put = |bytes: &mut Vec<u8>, at: usize, value: u64, size: usize| {
        let mut all = crate::synthetic::cfi::Bytes::new(arch.word_size(), arch.byte_order());
        all.data.clone_from(bytes);
        all.patch(at, value, size);
        *bytes = all.data;
    };
    let mut cases = Vec::new();
    let with = |bytes: Vec<u8>| {
        let mut scene = scene.clone();
        scene.image.code = (CODE, CODE + 0x4_0000);
        scene.image.sframe = Some((bytes, SFRAME));
        scene
    };
    // Starts of rows in 1, 2 and 4 bytes, the first and the last of them.
    for (pc, units) in [
        (START + 4, 2),
        (START + 0x1c, 2),
        (START + 0x24, 4),
        (START + 0x21c, 4),
        (CODE + 0x2000, 1),
        (CODE + 0x2080, 2),
        (CODE + 0x2100, 3),
        (CODE + 0x1_1ffc, 3),
        (CODE + 0x1_2000, 4),
        (CODE + 0x1_9ffc, 2),
    ] {
        let mut scene = with(sound.clone());
        let second = scene.called(STACK, units, START + 8);
        scene.called(second, 2, 0);
        let frames = [(pc, STACK), (START + 8, second)];
        cases.push(scene.case(format!("sound, at {pc:#x}"), pc, &frames, Then::Complete));
    }
    // An auxiliary header of 8 bytes: everything moves on by as much.
    let mut auxiliary = sound.clone();
    auxiliary[7] = 8;
    auxiliary.splice(28..28, [0xa5; 8]);
    for number in 0..3 {
        // Starts are relative to the section's beginning, so they stay.
        assert_eq!(auxiliary[36 + 20 * number..][..4], sound[28 + 20 * number..][..4]);
    }
    let mut moved = with(auxiliary);
    let second = moved.called(STACK, 2, START + 8);
    moved.called(second, 2, 0);
    let frames = [(START + 4, STACK), (START + 8, second)];
    cases.push(moved.case("an auxiliary header", START + 4, &frames, Then::Complete));

    let damages: [(&str, Damage<'_>); 12] = [
        ("blocks of no size", &|bytes| bytes[28 + 16] |= 0x10),
        ("version 9", &|bytes| bytes[2] = 9),
        ("another magic number", &|bytes| bytes[0] ^= 0x55),
        ("the other byte order", &|bytes| bytes[..2].reverse()),
        ("another ABI", &|bytes| bytes[4] = 77),
        ("more functions than there are", &|bytes| put(bytes, 8, 0xffff_ffff, 4)),
        ("functions outside", &|bytes| put(bytes, 20, 0xffff_fff0, 4)),
        ("rows outside", &|bytes| put(bytes, 24, 0xffff_fff0, 4)),
        ("a function's rows outside", &|bytes| put(bytes, 28 + 8, 0xffff_fff0, 4)),
        ("more rows than there are", &|bytes| put(bytes, 28 + 12, 0xffff_fff0, 4)),
        ("starts of rows of no size", &|bytes| bytes[28 + 16] |= 0x0f),
        ("cut in its header", &|bytes| bytes.truncate(20)),
    ];
    for (name, damage) in damages {
        let mut bytes = sound.clone();
        damage(&mut bytes);
        let pc = START + 4;
        cases.push(with(bytes).case(name, pc, &[(pc, STACK)], Then::Stops).never(&[NOISE]));
    }
    // Beyond the last function: its index is the number of functions, which is no index. And a function
    // without rows.
    let mut without_rows = sound.clone();
    put(&mut without_rows, 28 + 12, 0, 4);
    for (name, bytes, pc) in [
        ("below the first function", sound.clone(), START - 4),
        ("behind the last function", sound, CODE + 0x1_a000),
        ("a function without rows", without_rows, START + 4),
    ] {
        let mut scene = with(bytes);
        for units in 1..5 {
            scene.called(STACK, units, NEIGHBOUR);
        }
        // A convention may be tried: that of a function's entry does not lead there.
        scene.called(STACK, 1, NOISE);
        cases.push(scene.case(name, pc, &[(pc, STACK)], Then::Anything).never(&[NEIGHBOUR]));
    }
    cases
}

/// Arm's tables ("Exception Handling ABI for the Arm Architecture"): entries that forbid unwinding, one
/// after another, on which readers have looped; entries in the index and beside it; offsets of 31 bits from
/// one end of the address space to the other; a popped sp; an instruction that refuses.
pub fn h24_exception_handling_tables(arch: AnyArch) -> Vec<Case> {
    if arch.name() != "arm" {
        return Vec::new();
    }
    let at = |offset: u64| u32::try_from(CODE + offset).expect("32 bits");
    let mut cases = Vec::new();
    // Half of the address space is as far as an offset of 31 bits reaches, in either direction.
    for (exidx, extab) in [(0x50_0000u32, 0x51_0000u32), (0xffff_f000, 0x1000), (0x1000, 0x3fff_f000)] {
        let mut tables = Tables::new(arch.byte_order());
        (tables.exidx_svma, tables.extab_svma) = (exidx, extab);
        (tables.text_start, tables.text_end) = (CODE, CODE + 0x1_0000);
        let built = tables
            // pop {r4, lr}
            .function(at(0x1000), Body::Inline(vec![0xa8]))
            // add sp, #8; pop {r4, r5, lr}: five words
            .function(at(0x1100), Body::Short(vec![0x01, 0xa9]))
            // Personality routine 1: add sp, #0x204 and 4 more; pop {lr}
            .function(at(0x1200), Body::Long(1, vec![0xb2, 0x00, 0x00, 0x84, 0x00]))
            // "Refuse to unwind", and entries that cannot.
            .function(at(0x1300), Body::Inline(vec![0x80, 0x00]))
            .function(at(0x1400), Body::CannotUnwind)
            .function(at(0x1500), Body::CannotUnwind)
            .function(at(0x1600), Body::CannotUnwind)
            // pop {r4, sp, lr}
            .function(at(0x1700), Body::Inline(vec![0x86, 0x01]))
            .function(u32::try_from(MAIN).expect("32 bits"), Body::CannotUnwind)
            .build();
        let mut scene = Scene::new(arch);
        scene.image.ehabi = Some([(built.exidx, exidx.into()), (built.extab, extab.into())]);
        let words = [2, 5, (0x204 + 8) / 4];
        let mut frames = vec![(START + 4, STACK)];
        let mut sp = STACK;
        for (words, pc) in words.into_iter().zip([CODE + 0x1108, CODE + 0x1208, IN_MAIN]) {
            sp = scene.called(sp, words, pc);
            frames.push((pc, sp));
        }
        // Main cannot be unwound; that it is the outermost nobody says.
        let name = format!("index at {exidx:#x}");
        cases.push(scene.case(name, START + 4, &frames, Then::Stops));
        for (name, pc) in [
            ("an instruction that refuses", CODE + 0x1308),
            ("the first of many that cannot be unwound", CODE + 0x1408),
            ("one of many", CODE + 0x1508),
            ("the last of many", CODE + 0x1608),
        ] {
            cases.push(scene.case(name, pc, &[(pc, STACK)], Then::Stops).never(&[NOISE]));
        }
        let other = STACK + 0x100;
        let mut popped = scene.clone();
        popped.put(STACK + 4, other).put(STACK + 8, IN_MAIN);
        let pc = CODE + 0x1708;
        cases.push(popped.case("a popped sp", pc, &[(pc, STACK), (IN_MAIN, other)], Then::Stops));
    }
    cases
}

/// Arm's tables hold at calls. At a function's first instruction nothing of what they undo has been done,
/// and at its last everything has been undone: asked there, they skip the caller or take something else for
/// it. ("Exception Handling ABI for the Arm Architecture", section 4: unwinding begins at a call.)
pub fn h25_tables_of_calls_asked_elsewhere(arch: AnyArch) -> Vec<Case> {
    if arch.name() != "arm" {
        return Vec::new();
    }
    let at = |address: u64| u32::try_from(address).expect("32 bits");
    let mut tables = Tables::new(arch.byte_order());
    (tables.exidx_svma, tables.extab_svma) = (0x50_0000, 0x51_0000);
    (tables.text_start, tables.text_end) = (CODE, CODE + 0x1_0000);
    let built =
        tables.function(at(START), Body::Inline(vec![0xa8])).function(at(MAIN), Body::CannotUnwind).build();
    let mut scene = Scene::new(arch);
    scene.image.ehabi = Some([(built.exidx, 0x50_0000), (built.extab, 0x51_0000)]);
    scene.register(arch.ra(), START + 0x24);
    let second = scene.called(STACK, 2, IN_MAIN);
    let frames = |pc| [(pc, STACK), (START + 0x24, STACK), (IN_MAIN, second)];
    let first = scene.case("the first instruction", START, &frames(START), Then::Stops);
    let [before, code] = arch.entry_code();
    scene.memory.put(START + 0x40 - u64::try_from(before.len()).expect("short"), &before);
    scene.memory.put(START + 0x40, &code);
    let last = scene.case("the last instruction, `bx lr`", START + 0x40, &frames(START + 0x40), Then::Stops);
    vec![first, last]
}

/// What is made of tables: rules compiled by pages of code, whose first pc is described by a row of the page
/// before; and rules remembered by pc, which are another module's after one was replaced by another at the
/// same address. Generations of 16 bits wrap after 65,536 changes.
pub fn h26_compiled_and_remembered_rules(arch: AnyArch) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut pages = Scene::new(arch);
    pages.function(CODE + 0x10f0, 0x400, |scene, program| {
        scene.sized(program, 2);
        program.advance(0x310, 3);
        scene.sized(program, 3);
    });
    pages.outermost(MAIN, 0x20);
    for (offset, units) in [
        (0x10f0, 2),
        (0x10fc, 2),
        (0x1100, 2),
        (0x11fc, 2),
        (0x1200, 2),
        (0x13fc, 2),
        (0x1400, 3),
        (0x14ec, 3),
    ] {
        let pc = CODE + offset;
        let mut scene = pages.clone();
        let second = scene.called(STACK, units, IN_MAIN);
        let frames = [(pc, STACK), (IN_MAIN, second)];
        cases.push(scene.case(format!("the page of {pc:#x}"), pc, &frames, Then::Complete));
    }
    let pc = START + 4;
    for changes in [2, 65_536] {
        let mut old = Scene::new(arch);
        old.plain(START, 0x40, 4).outermost(MAIN, 0x20);
        let mut scene = Scene::new(arch);
        scene.plain(START, 0x40, 2).outermost(MAIN, 0x20);
        scene.called(STACK, 4, NEIGHBOUR);
        let second = scene.called(STACK, 2, IN_MAIN);
        let frames = [(pc, STACK), (IN_MAIN, second)];
        let earlier = Earlier { images: vec![old.built()], memory: scene.memory.clone(), changes };
        let name = format!("another module after {changes} changes");
        cases.push(scene.case(name, pc, &frames, Then::Complete).after(earlier));
    }
    cases
}
