//! The step from one frame to its caller.

use unwind_core::{Arch, CfaRule, FpRule, RaRule};

use super::cfi::scene_of;
use super::place::{IN_MAIN, MAIN, put_signal_frame, scratch, signal_frame};
use crate::hazard::{CODE, Case, Earlier, Image, NOISE, STACK, Scene, Then};
use crate::synthetic::AnyArch;

const START: u64 = CODE + 0x1000;

/// A wrong rule, "nothing has been pushed", for all code: it holds once, for a leaf, and must not be
/// believed again with the same sp. And signal frames, across which sp may go anywhere, can lead in a
/// circle. Profilers have hung on both.
pub fn h27_the_stack_does_not_shrink(arch: AnyArch) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut leaf = Scene::new(arch);
    leaf.function(START, 0x40, |scene, program| {
        program.def_cfa(arch.sp(), -i64::from(arch.sp_bias()), 0);
        if !arch.has_link_register() {
            program.offset(scene.arch.ra(), 0, false, 3);
        }
    });
    leaf.put(STACK, START + 8).register(arch.ra(), START + 8);
    let frames = [(START + 4, STACK), (START + 8, STACK)];
    cases.push(leaf.case("a leaf in a leaf", START + 4, &frames, Then::Stops));

    for length in [1u64, 2, 3, 16, 100] {
        let mut scene = Scene::new(arch);
        scene.signals(true).function(START, 0x1000, signal_frame);
        let place = |number: u64| STACK + 8 * arch.word() * (number % length);
        for number in 0..length {
            let pc = START + 4 * ((number + 1) % length);
            put_signal_frame(&mut scene, place(number), pc, place(number + 1));
        }
        let name = format!("a circle of {length} signal frames");
        cases.push(scene.case(name, START, &[(START, STACK)], Then::Anything));
    }
    cases
}

/// The ABI's frame record, if it has a chain of them: offsets from the frame pointer to the word of the
/// return address, to the caller's frame pointer, and to the end of the record.
fn record(arch: AnyArch) -> Option<[i64; 3]> {
    let rule = arch.frame_pointer_rule()?;
    let (CfaRule::Offset { offset, .. }, RaRule::AtCfa(ra), FpRule::AtCfa(fp)) =
        (rule.cfa(), rule.ra(), rule.fp())
    else {
        return None;
    };
    Some([offset + ra, offset + fp, offset].map(i64::from))
}

/// A module without any table below [`TABLES`], whose functions keep the frame pointer chain, and one with
/// a table from there on.
fn without_table(arch: AnyArch) -> Scene {
    let mut scene = Scene::new(arch);
    scene.image.code.0 = TABLES;
    scene.others = vec![Image { code: (CODE, TABLES), ..Image::default() }];
    scene.outermost(MAIN, 0x20).registers.clear();
    scene
}

const TABLES: u64 = CODE + 0x6000;

fn put_record(scene: &mut Scene, fp: u64, next: u64, return_address: u64) -> u64 {
    let [ra, saved, end] = record(scene.arch).expect("the architecture has a chain");
    scene.put(fp.wrapping_add_signed(ra), return_address).put(fp.wrapping_add_signed(saved), next);
    fp.wrapping_add_signed(end)
}

/// Frame pointers that are none: one that leads to itself, one that is misaligned, one below sp (another
/// stack, or a register with other contents), zero where the chain ends, the last word before a guard
/// page. What a walk by frame pointers must check is what the kernel's `unwind_user` checks.
pub fn h28_frame_pointers_that_are_none(arch: AnyArch) -> Vec<Case> {
    if record(arch).is_none() {
        return Vec::new();
    }
    let word = arch.word();
    let fp = STACK + 8 * word;
    let case = |name: &str, fp: u64, build: &dyn Fn(&mut Scene) -> Vec<(u64, u64)>, then| {
        let mut scene = without_table(arch);
        let frames = build(&mut scene);
        scene.register(arch.fp(), fp);
        scene.case(name, START, &[&[(START, STACK)], &frames[..]].concat(), then)
    };
    vec![
        case("to itself", fp, &|scene| vec![(START + 8, put_record(scene, fp, fp, START + 8))], Then::Stops),
        case("misaligned", fp + 1, &|_| vec![], Then::Stops),
        case(
            "below sp",
            STACK - 8 * word,
            &|scene| {
                put_record(scene, STACK - 8 * word, fp, START + 8);
                vec![]
            },
            Then::Stops,
        ),
        case(
            "zero at the end",
            fp,
            &|scene| vec![(START + 8, put_record(scene, fp, 0, START + 8))],
            Then::Complete,
        ),
        case(
            "at the end of what can be read",
            fp,
            &|scene| {
                let end = put_record(scene, fp, fp + 8 * word, START + 8);
                scene.memory.remove_range(end - word, end + 0x1000);
                vec![]
            },
            Then::Stops,
        ),
    ]
}

/// Words that lie across the end of what can be read, and sums that leave the address space: wrapped, they
/// read at its other end.
pub fn h29_ends_of_pages_and_of_the_address_space(arch: AnyArch) -> Vec<Case> {
    let mut cases = Vec::new();
    let pc = START + 4;
    let word = arch.word();
    let mut cut = scene_of(arch, |scene, program| scene.sized(program, 2));
    let second = cut.called(STACK, 2, IN_MAIN);
    cut.memory.remove_range(second - word / 2, second + 0x1000);
    cases.push(cut.case("half of the return address", pc, &[(pc, STACK)], Then::Stops));

    let top = arch.word_size().max_address();
    let sp = top - 4 * word + 1;
    for units in [4, 5, 8] {
        let mut scene = Scene::at(arch, sp);
        scene.plain(START, 0x40, units).outermost(MAIN, 0x20);
        // What wrapped sums would find.
        for slot in 0..16 {
            scene.put(slot * word, NOISE).put(sp.wrapping_add(slot % 4 * word), NOISE);
        }
        let name = format!("a frame of {units} where there is room for less");
        cases.push(scene.case(name, pc, &[(pc, sp)], Then::Stops).never(&[NOISE]));
    }
    cases
}

/// Functions with tables and functions that only keep the frame pointer, in turn. A frame pointer step says
/// nothing of the link register, nor of any other: a rule that needs one then must not be given the value
/// it had in the topmost frame.
pub fn h30_tables_and_frame_pointers_in_turn(arch: AnyArch) -> Vec<Case> {
    let Some([ra, saved, end]) = record(arch) else { return Vec::new() };
    let word = arch.word();
    let mut cases = Vec::new();
    let mut scene = without_table(arch);
    scene.plain(TABLES + 0x1000, 0x40, 2).function(TABLES + 0x2000, 0x40, |scene, program| {
        // By the frame pointer, as the convention has it.
        scene.sized(program, 2);
        program.def_cfa(arch.fp(), end - i64::from(arch.sp_bias()), 0);
        program.offset(arch.ra(), ra - end, false, 3).expect("words");
        program.offset(arch.fp(), saved - end, false, 3).expect("words");
    });
    let second = scene.called(STACK, 2, CODE + 0x3004);
    let (fp, outer) = (second + 8 * word, second + 32 * word);
    let third = put_record(&mut scene, fp, outer, TABLES + 0x2004);
    let fourth = put_record(&mut scene, outer, 0x1234_5678, IN_MAIN);
    scene.register(arch.fp(), fp);
    let frames =
        [(TABLES + 0x1004, STACK), (CODE + 0x3004, second), (TABLES + 0x2004, third), (IN_MAIN, fourth)];
    cases.push(scene.case("table, frame pointer, table", TABLES + 0x1004, &frames, Then::Complete));

    let mut stale = without_table(arch);
    let holder = if arch.has_link_register() { arch.ra() } else { scratch(arch) };
    stale.function(TABLES + 0x2000, 0x40, |scene, program| {
        scene.sized(program, 2);
        program.with(0x09, &[arch.ra().0.into(), holder.0.into()]);
        if holder == arch.ra() {
            program.with(0x08, &[holder.0.into()]);
        }
    });
    let second = put_record(&mut stale, STACK + 8 * word, STACK + 16 * word, TABLES + 0x2004);
    stale.register(arch.fp(), STACK + 8 * word).register(holder, NOISE);
    let frames = [(START + 4, STACK), (TABLES + 0x2004, second)];
    cases.push(
        stale.case("a rule that needs a lost register", START + 4, &frames, Then::Stops).never(&[NOISE]),
    );
    cases
}

/// In the first instructions of a function the frame pointer still is the caller's. A walk by it alone
/// skips the caller, and nothing shows that it did.
pub fn h31_the_first_instructions_of_a_function(arch: AnyArch) -> Vec<Case> {
    let mut scene = without_table(arch);
    let [before, at] = arch.entry_code();
    scene.memory.put(START - u64::try_from(before.len()).expect("short"), &before);
    scene.memory.put(START, &at);
    // Its caller is known by a table.
    scene.plain(TABLES + 0x2000, 0x40, 2);
    let second = scene.just_called(STACK, TABLES + 0x2008);
    let third = scene.called(second, 2, IN_MAIN);
    let fp = STACK + 0x40 * arch.word();
    if record(arch).is_some() {
        put_record(&mut scene, fp, 0, IN_MAIN);
    }
    scene.register(arch.fp(), fp);
    let frames = [(START, STACK), (TABLES + 0x2008, second), (IN_MAIN, third)];
    vec![scene.case("without a table", START, &frames, Then::Complete)]
}

/// A CFA near 0, sp of 0: what is subtracted from it leaves the address space.
pub fn h32_nothing_below_zero(arch: AnyArch) -> Vec<Case> {
    let mut cases = Vec::new();
    let word = i64::try_from(arch.word()).expect("4 or 8");
    let pc = START + 4;
    for sp in [0, 4, 8, 16] {
        for back in [2, 4, 8, 100] {
            let mut scene = Scene::at(arch, sp);
            scene.function(START, 0x40, |scene, program| {
                program.def_cfa(arch.sp(), word - i64::from(arch.sp_bias()), 0);
                program
                    .offset(arch.ra(), i64::from(scene.arch.sp_bias()) - back * word, false, 3)
                    .expect("words");
            });
            let cfa = i64::try_from(sp).expect("small") + word;
            if cfa - back * word >= 0 {
                continue;
            }
            let name = format!("sp {sp}, {back} words below the CFA");
            cases.push(scene.case(name, pc, &[(pc, sp)], Then::Stops));
        }
        let mut scene = Scene::at(arch, sp);
        scene.function(START, 0x40, |_, program| {
            program.def_cfa(arch.sp(), -i64::from(arch.sp_bias()) - 4 * word - 16, 0);
        });
        cases.push(scene.case(format!("sp {sp}, a CFA below 0"), pc, &[(pc, sp)], Then::Stops));
    }
    cases
}

/// A read that fails once: a page that was not there yet, a snapshot that was too short. It says nothing of
/// the table; a cache that keeps what was guessed then gives the guess for ever.
pub fn h33_a_read_that_failed_is_not_remembered(arch: AnyArch) -> Vec<Case> {
    let mut cases = Vec::new();
    let pc = START + 4;
    for (name, opaque) in [("of a plain frame", false), ("of one by an expression", true)] {
        let mut scene = scene_of(arch, |scene, program| {
            scene.sized(program, 2);
            if opaque {
                let unit = i64::try_from(scene.unit()).expect("4 to 16");
                let cfa = scene.expression().breg(arch.sp(), 2 * unit - i64::from(arch.sp_bias())).opaque();
                program.cfa_expression(cfa);
            }
        });
        let second = scene.called(STACK, 2, IN_MAIN);
        let mut memory = scene.memory.clone();
        memory.remove(second - arch.word(), arch.word());
        let frames = [(pc, STACK), (IN_MAIN, second)];
        let images = vec![scene.built()];
        let case = scene.case(name, pc, &frames, Then::Complete);
        cases.push(case.after(Earlier { images, memory, changes: 0 }));
    }
    cases
}

/// A return address is not only an address: authentication codes and tags (AArch64), the Thumb bit (Arm),
/// the ISA mode bit (MIPS), bits that branches ignore (PowerPC). Looked up with them, it is in no module.
/// And one that is in no module, all code being known, is none.
pub fn h34_return_addresses_that_are_more_than_that(arch: AnyArch) -> Vec<Case> {
    let bits: &[u64] = match arch.name() {
        "aarch64" => &[0x2a << 48, 0x7 << 49],
        "arm" | "mips" | "mips64" => &[1],
        "powerpc64" => &[1, 2, 3],
        _ => &[],
    };
    let pc = START + 4;
    let mut cases = Vec::new();
    for bits in bits {
        let mut scene = scene_of(arch, |scene, program| scene.sized(program, 2));
        let second = scene.called(STACK, 2, (START + 8) | bits);
        let third = scene.called(second, 2, IN_MAIN | bits);
        let frames = [(pc, STACK), (START + 8, second), (IN_MAIN, third)];
        cases.push(scene.case(format!("bits {bits:#x}"), pc, &frames, Then::Complete));
        let mut zero = scene_of(arch, |scene, program| scene.sized(program, 2));
        let second = zero.called(STACK, 2, START + 8);
        zero.called(second, 2, *bits);
        let frames = [(pc, STACK), (START + 8, second)];
        cases.push(zero.case(format!("bits {bits:#x} of a zero"), pc, &frames, Then::Complete));
    }
    let mut outside = scene_of(arch, |scene, program| scene.sized(program, 2));
    outside.is_all_code = true;
    let second = outside.called(STACK, 2, START + 8);
    outside.called(second, 2, 0x900_0000);
    let frames = [(pc, STACK), (START + 8, second)];
    cases.push(outside.case("no code", pc, &frames, Then::Stops).never(&[0x900_0000]));
    cases
}

/// A task whose entry has its own address in the return address register (RISC-V's kernel threads were set
/// up so): every step leads to where it came from.
pub fn h35_a_return_address_that_is_its_own(arch: AnyArch) -> Vec<Case> {
    let mut cases = Vec::new();
    for units in [0, 2] {
        let mut scene = Scene::new(arch);
        scene.function(START, 0x40, |scene, program| {
            scene.sized(program, units);
            if units == 0 && !arch.has_link_register() {
                program.offset(arch.ra(), 0, false, 3);
            }
        });
        scene.register(arch.ra(), START + 4);
        for slot in 0..0x180 {
            scene.put(STACK + slot * arch.word(), START + 4);
        }
        let name = if units == 0 { "nothing pushed" } else { "everywhere on the stack" };
        cases.push(scene.case(name, START + 4, &[(START + 4, STACK)], Then::Anything));
    }
    cases
}
