//! Looking up the rule: which function is it?

use unwind_core::{Arch, WordSize};

use super::place::{IN_MAIN, MAIN, put_signal_frame, signal_frame};
use crate::hazard::{CODE, Case, Image, NOISE, STACK, Scene, Then};
use crate::synthetic::AnyArch;

/// Where another function's rule would lead.
const NEIGHBOUR: u64 = CODE + 0x77c0;

/// A call of a function that does not return may be the last instruction of its caller: what it would
/// return to is in another function, or in none. Unwinders that look return addresses up as they are take
/// the wrong rule. DWARF 5, section 6.4.4, looks up the instruction before.
pub fn h01_a_call_is_the_last_instruction(arch: AnyArch) -> Vec<Case> {
    let mut scene = Scene::new(arch);
    let (start, next) = (CODE + 0x1000, CODE + 0x1020);
    scene.plain(start, 0x20, 2).plain(next, 0x20, 4).plain(CODE + 0x3000, 0x20, 2).outermost(MAIN, 0x20);
    let second = scene.called(STACK, 2, next);
    let third = scene.called(second, 2, IN_MAIN);
    scene.called(second, 4, NEIGHBOUR);
    let pc = CODE + 0x3004;
    let beside = scene.case(
        "another function follows",
        pc,
        &[(pc, STACK), (next, second), (IN_MAIN, third)],
        Then::Complete,
    );

    let mut scene = Scene::new(arch);
    let end = CODE + 0x1_0000;
    scene.plain(CODE + 0x3000, 0x20, 2).plain(end - 0x20, 0x20, 2).outermost(MAIN, 0x20);
    let second = scene.called(STACK, 2, end);
    let third = scene.called(second, 2, IN_MAIN);
    let last =
        scene.case("no code follows", pc, &[(pc, STACK), (end, second), (IN_MAIN, third)], Then::Complete);
    vec![beside, last]
}

/// A signal arrives before the first instruction of a function. Its pc is no return address; unwinders
/// that take every pc but the topmost for one look it up in the function before. The augmentation `S` of
/// the signal frame's CIE says so (gcc's `unwind-dw2.c`, and glibc's `sigaction.c` since 2005).
pub fn h02_a_signal_arrives_at_the_first_instruction(arch: AnyArch) -> Vec<Case> {
    let mut cases = Vec::new();
    let (before, start) = (CODE + 0x1000, CODE + 0x1020);
    let mut scene = Scene::new(arch);
    scene.plain(before, 0x20, 4).plain(start, 0x20, 2).outermost(MAIN, 0x20);
    let second = scene.called(STACK, 2, IN_MAIN);
    scene.called(STACK, 4, NEIGHBOUR);
    let name = "execution stopped there";
    cases.push(scene.case(name, start, &[(start, STACK), (IN_MAIN, second)], Then::Complete));

    scene.signals(true).function(CODE + 0x5000, 0x20, signal_frame);
    let interrupted = STACK + 0x20 * arch.word();
    put_signal_frame(&mut scene, STACK, start, interrupted);
    let second = scene.called(interrupted, 2, IN_MAIN);
    scene.called(interrupted, 4, NEIGHBOUR);
    let pc = CODE + 0x5000;
    let frames = [(pc, STACK), (start, interrupted), (IN_MAIN, second)];
    cases.push(scene.case("a signal frame says so", pc, &frames, Then::Complete));
    cases
}

/// A pc between functions, in padding, below the first entry or behind the last is covered by none. A
/// search that takes the nearest entry below, without looking at where it ends, takes the neighbour's rule;
/// some take the first entry for everything below it.
pub fn h03_gaps_belong_to_nobody(arch: AnyArch) -> Vec<Case> {
    let gaps = [0x0, 0xffc, 0x1020, 0x103c, 0x1060, 0x2ffc, 0x3004, 0xfffc];
    let mut cases = Vec::new();
    for gap in gaps.map(|offset| CODE + offset) {
        for is_topmost in [true, false] {
            let mut scene = Scene::new(arch);
            scene.plain(CODE + 0x1000, 0x20, 2).plain(CODE + 0x1040, 0x20, 3).plain(CODE + 0x3000, 4, 4);
            // Each function's rule leads to the neighbour.
            let sp = if is_topmost { STACK } else { STACK + 2 * scene.unit() };
            for units in 2..=4 {
                scene.called(sp, units, NEIGHBOUR);
            }
            let (pc, frames) = if is_topmost {
                (gap, vec![(gap, sp)])
            } else {
                // The call is right before it.
                let gap = gap + 4;
                scene.called(STACK, 2, gap);
                (CODE + 0x1004, vec![(CODE + 0x1004, STACK), (gap, sp)])
            };
            let name =
                format!("{} {gap:#x}", if is_topmost { "execution stopped at" } else { "a return to" });
            cases.push(scene.case(name, pc, &frames, Then::Anything).never(&[NEIGHBOUR]));
        }
    }
    cases
}

/// Two entries for one pc, of which one has no length: discarded sections leave them behind. And an entry
/// of length 0 ends the section (Linux Standard Base, "Exception Frames"): what follows it is nothing. A
/// binary search may end at the empty one.
pub fn h04_functions_of_no_length_lose(arch: AnyArch) -> Vec<Case> {
    let pc = CODE + 0x1004;
    let mut cases = Vec::new();
    for empties in [[true, false], [false, true]] {
        let mut scene = Scene::new(arch);
        for is_empty in empties {
            let (length, units) = if is_empty { (0, 4) } else { (0x20, 2) };
            scene.plain(CODE + 0x1000, length, units);
        }
        scene.plain(CODE + 0x1010, 0, 4).outermost(MAIN, 0x20);
        let second = scene.called(STACK, 2, IN_MAIN);
        scene.called(STACK, 4, NEIGHBOUR);
        for pc in [CODE + 0x1000, pc, CODE + 0x1010, CODE + 0x101c] {
            let name = format!("{pc:#x}, the empty one {}", if empties[0] { "first" } else { "last" });
            cases.push(scene.case(name, pc, &[(pc, STACK), (IN_MAIN, second)], Then::Complete));
        }
    }
    let mut scene = Scene::new(arch);
    scene.plain(CODE + 0x1000, 0x20, 2).outermost(MAIN, 0x20);
    let sound = scene.entries.clone();
    scene.section.terminator();
    scene.plain(CODE + 0x2000, 0x20, 2);
    scene.entries = sound;
    let second = scene.called(STACK, 2, IN_MAIN);
    cases.push(scene.case("before the end", pc, &[(pc, STACK), (IN_MAIN, second)], Then::Complete));
    cases
}

/// First, last and past-the-end: off by one in a search shows at the ends, and in tables of no entry and
/// of one.
pub fn h05_the_ends_of_tables(arch: AnyArch) -> Vec<Case> {
    let mut cases = Vec::new();
    for count in [0u64, 1, 2, 3, 4, 7, 8, 9] {
        let mut scene = Scene::new(arch);
        let at = |number: u64| CODE + 0x1000 + 0x20 * number;
        for number in 0..count {
            scene.plain(at(number), 0x10, 2 + number);
        }
        for number in 0..count {
            let mut scene = scene.clone();
            let caller = scene.called(STACK, 2 + number, CODE + 0xe004);
            for pc in [at(number), at(number) + 0xc] {
                let frames = [(pc, STACK), (CODE + 0xe004, caller)];
                cases.push(scene.case(format!("{pc:#x} of {count}"), pc, &frames, Then::Anything));
            }
        }
        for number in 0..count {
            scene.called(STACK, 2 + number, NEIGHBOUR);
        }
        for pc in [CODE + 0xffc, at(count), at(count) - 0x10] {
            let name = format!("{pc:#x}, outside of {count}");
            cases.push(scene.case(name, pc, &[(pc, STACK)], Then::Anything).never(&[NEIGHBOUR]));
        }
    }
    cases
}

/// Offsets in search tables are signed and relative to the table: below it they are negative, and on a
/// 32-bit target the sum wraps in 32 bits. Readers that add in 64 bits find nothing in the upper half.
pub fn h06_offsets_from_the_table_wrap(arch: AnyArch) -> Vec<Case> {
    let mut places = vec![0x1000, CODE, 0x4f_0000 - 0x40, 0x60_0000];
    if arch.word_size() == WordSize::Four {
        places.extend([0x8000_0000, 0xffff_0000]);
    }
    let mut cases = Vec::new();
    for start in places {
        let mut scene = Scene::new(arch);
        scene.image.code = (start, start + 0x40);
        scene.plain(start, 0x20, 2).outermost(start + 0x20, 0x20);
        let second = scene.called(STACK, 2, start + 0x30);
        for pc in [start, start + 0x1c] {
            let frames = [(pc, STACK), (start + 0x30, second)];
            cases.push(scene.case(format!("{pc:#x}"), pc, &frames, Then::Complete));
        }
    }
    cases
}

/// `.eh_frame_hdr` is only as good as the tool that wrote it: not sorted, of another version, pointing to
/// the wrong entries, cut off. A reader that believes it takes another function's rule. A right rule or
/// none will do here.
pub fn h07_search_tables_that_lie(arch: AnyArch) -> Vec<Case> {
    let mut scene = Scene::new(arch);
    for number in 0..16u64 {
        let at = number * 7 % 16;
        scene.plain(CODE + 0x1000 + 0x20 * at, 0x20, 2 + at);
    }
    let usual = scene.header();
    let unsorted = crate::synthetic::cfi::Header { entries: scene.entries.clone(), ..usual.clone() };
    let mut exchanged = usual.clone();
    for pair in exchanged.entries.chunks_mut(2) {
        let first = pair[0].1;
        pair[0].1 = pair[1].1;
        pair[1].1 = first;
    }
    let mut shifted = usual.clone();
    for entry in &mut shifted.entries {
        entry.0 += 8;
    }
    let mut into_entries = usual.clone();
    for entry in &mut into_entries.entries {
        entry.1 += 4;
    }
    let mut other_version = usual.clone();
    other_version.version = 2;
    let mut too_many = usual.clone();
    too_many.entries.truncate(8);
    let lies = [
        ("not sorted", unsorted),
        ("pointers exchanged", exchanged),
        ("addresses shifted", shifted),
        ("pointers into entries", into_entries),
        ("of version 2", other_version),
        ("half of it", too_many),
    ];
    let mut cases = Vec::new();
    for (name, header) in lies {
        let bytes = scene.header_bytes(&header);
        for (name, bytes) in
            [(name.to_owned(), bytes.clone()), (format!("{name}, cut"), bytes[..40].to_vec())]
        {
            for number in [0, 5, 15] {
                let mut scene = scene.clone();
                scene.image.eh_frame_hdr = Some((bytes.clone(), scene.hdr_svma));
                for units in 2..18 {
                    scene.called(STACK, units, NEIGHBOUR);
                }
                // The only right one.
                scene.called(STACK, 2 + number, NOISE);
                let pc = CODE + 0x1000 + 0x20 * number + 4;
                cases.push(scene.case(name.clone(), pc, &[(pc, STACK)], Then::Anything).never(&[NEIGHBOUR]));
            }
        }
    }
    cases
}

/// Where files are loaded: with a bias that may be negative, in several pieces, beside one another. A
/// single range per file, or a bias added once too often, finds another module's rule.
pub fn h08_modules_and_their_biases(arch: AnyArch) -> Vec<Case> {
    let mut cases = Vec::new();
    for (bias, name) in [(0x10_0000u64, "above its addresses"), (0u64.wrapping_sub(0x30_0000), "below them")]
    {
        let mut scene = Scene::new(arch);
        scene.plain(CODE + 0x1000, 0x20, 2).plain(CODE + 0x1020, 0x20, 3).outermost(MAIN, 0x20);
        scene.image.bias = bias;
        let loaded = |svma: u64| arch.word_size().truncate(svma.wrapping_add(bias));
        scene.image.code = (loaded(CODE), loaded(CODE + 0x1_0000));
        let second = scene.called(STACK, 2, loaded(CODE + 0x1024));
        let third = scene.called(second, 3, loaded(IN_MAIN));
        let pc = loaded(CODE + 0x1004);
        let frames = [(pc, STACK), (loaded(CODE + 0x1024), second), (loaded(IN_MAIN), third)];
        cases.push(scene.case(format!("loaded {name}"), pc, &frames, Then::Complete));
    }
    // The same file twice, one right behind the other, and one with other rules.
    let mut other = Scene::new(arch);
    other.plain(CODE + 0x1000, 0x20, 4).outermost(MAIN, 0x20);
    let mut scene = Scene::new(arch);
    scene.plain(CODE + 0x1000, 0x20, 2).plain(CODE + 0xffe0, 0x20, 2);
    let beside = |image: &Image, number: u64| {
        let bias = 0x1_0000 * number;
        Image { code: (CODE + bias, CODE + bias + 0x1_0000), bias, ..image.clone() }
    };
    scene.others = vec![beside(&scene.built(), 1), beside(&other.built(), 2)];
    let second = scene.called(STACK, 2, CODE + 0x1_1004);
    // The call is the last instruction of its module.
    let third = scene.called(second, 2, CODE + 0x1_0000);
    let fourth = scene.called(third, 2, CODE + 0x2_1004);
    let fifth = scene.called(fourth, 4, 0x2_0000 + IN_MAIN);
    let pc = CODE + 0x1004;
    let frames = [
        (pc, STACK),
        (CODE + 0x1_1004, second),
        (CODE + 0x1_0000, third),
        (CODE + 0x2_1004, fourth),
        (0x2_0000 + IN_MAIN, fifth),
    ];
    cases.push(scene.case("one right behind the other", pc, &frames, Then::Complete));
    cases
}

/// A call through a null pointer, or a jump into the void. Nothing has run there, so the return address is
/// still where the call put it; unwinders without a rule for that follow the frame pointer, which still is
/// the caller's, and lose the caller.
pub fn h09_calls_into_nothing(arch: AnyArch) -> Vec<Case> {
    let mut cases = Vec::new();
    for (pc, is_all_code, name) in [
        (0, false, "a null pointer"),
        (0x20, false, "a null pointer with an offset"),
        (0, true, "a null pointer, all code being known"),
        (0x900_0000, true, "where there is no code"),
    ] {
        let mut scene = Scene::new(arch);
        scene.is_all_code = is_all_code;
        scene.plain(CODE + 0x1000, 0x20, 2).outermost(MAIN, 0x20);
        let second = scene.just_called(STACK, CODE + 0x1004);
        let third = scene.called(second, 2, IN_MAIN);
        let frames = [(pc, STACK), (CODE + 0x1004, second), (IN_MAIN, third)];
        cases.push(scene.case(name, pc, &frames, Then::Complete));
    }
    cases
}

/// Both ends of the address space, and the kernel's half, are addresses like others. Signed arithmetic,
/// `pc - 1` where pc is 0, ends that wrap to 0, and sums that overflow are found there.
pub fn h10_both_ends_of_the_address_space(arch: AnyArch) -> Vec<Case> {
    let top = arch.word_size().max_address();
    let places = [
        ("high", top - 0x3ff_ffff, top - 0xfff_ffff),
        ("the uppermost", top - 0x1_ffff, top - 0x3fff),
        ("code low, stack high", CODE, top - 0x3fff),
        ("code high, stack low", top - 0x1_ffff, 0x1000),
    ];
    let mut cases = Vec::new();
    for (name, code, stack) in places {
        let mut scene = Scene::at(arch, stack);
        scene.section.svma = code.wrapping_sub(0x20_0000);
        scene.hdr_svma = code.wrapping_sub(0x21_0000);
        scene.image.code = (code, code + 0x1_0000);
        scene.plain(code + 0x1000, 0x20, 2).plain(code + 0x1020, 0x20, 3).outermost(code + 0x9000, 0x20);
        let second = scene.called(stack, 2, code + 0x1024);
        let third = scene.called(second, 3, code + 0x9004);
        let pc = code + 0x1004;
        let frames = [(pc, stack), (code + 0x1024, second), (code + 0x9004, third)];
        cases.push(scene.case(name, pc, &frames, Then::Complete));

        let mut scene = Scene::at(arch, stack);
        scene.section.svma = code.wrapping_sub(0x20_0000);
        scene.hdr_svma = code.wrapping_sub(0x21_0000);
        scene.image.code = (code, code + 0x1_0000);
        scene.function(code + 0x1000, 0x20, |scene, program| {
            scene.sized(program, 2);
            let size = i64::try_from(2 * scene.unit()).expect("small") - i64::from(arch.sp_bias());
            program.cfa_expression(scene.expression().breg(arch.sp(), size).opaque());
        });
        scene.outermost(code + 0x9000, 0x20);
        let second = scene.called(stack, 2, code + 0x9004);
        let frames = [(pc, stack), (code + 0x9004, second)];
        cases.push(scene.case(format!("{name}, by an expression"), pc, &frames, Then::Complete));
    }
    // A return address of 0, where a table says that it is, has been the mark of the outermost frame since
    // before there were tables.
    let mut scene = Scene::new(arch);
    scene.plain(CODE + 0x1000, 0x20, 2);
    let second = scene.called(STACK, 2, CODE + 0x1008);
    scene.called(second, 2, 0);
    let pc = CODE + 0x1004;
    let frames = [(pc, STACK), (CODE + 0x1008, second)];
    cases.push(scene.case("a return address of 0", pc, &frames, Then::Complete));
    cases
}
