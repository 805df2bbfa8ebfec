//! Valid tables of every format with bits flipped and words replaced, and stacks, on every architecture: never a
//! panic, never an endless walk, and every frame before the first that the damage concerns still right.
//!
//! Which frames it concerns follows from where each format keeps what it says of a function: an FDE and its
//! CIE, an SFrame function's entry and its rows, an EHABI entry and its words in `.ARM.extab`. What a
//! lookup reads of other functions is said at each test.

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;
use unwind_core::dwarf::{self, DwarfIndex, DwarfIndexEntry, DwarfSections, DwarfSource, Section};
use unwind_core::ehabi::EhabiSource;
use unwind_core::sframe::{Abi, SFrameSource, Version};
use unwind_core::table::{Table, TableSource, compile_to_vec};
use unwind_core::{Arch, Frame, FrameSource, Pc, Query, UnwindUserType};
use unwind_tests::ehabi::{Body, Tables};
use unwind_tests::hazard::CODE;
use unwind_tests::synthetic::cfi::Flavor;
use unwind_tests::synthetic::{AnyArch, strategy};

#[path = "property_tables/tables.rs"]
mod tables;
#[path = "property_tables/world.rs"]
mod world;

use tables::{SFRAME, described, sframe_section};
use world::{FUNCTIONS, MOST_FRAMES, World, apply, damage, stack_damage, start, units};

fn arms() -> Vec<AnyArch> {
    AnyArch::real().into_iter().filter(|arch| arch.name() == "arm").collect()
}

fn arch() -> impl Strategy<Value = AnyArch> {
    prop::sample::select(AnyArch::real())
}

fn calls() -> impl Strategy<Value = Vec<usize>> {
    vec(0..FUNCTIONS - 1, 1..8)
}

/// By an index that was made of the damaged section: all functions' addresses are read, and the instructions of
/// one.
fn by_index(
    world: &World,
    sections: DwarfSections<'_>,
    flavor: dwarf::Flavor,
    cie: &Range<usize>,
    fdes: &[Range<usize>],
    is_in: &dyn Fn(&Range<usize>) -> bool,
) -> Result<(), TestCaseError> {
    let mut room = vec![DwarfIndexEntry::default(); 4 * FUNCTIONS];
    let Ok(index) = DwarfIndex::build(&world.arch, &sections, flavor, &mut room) else { return Ok(()) };
    let (eh_frame_index, debug_frame_index) = match flavor {
        dwarf::Flavor::EhFrame => (Some(index), None),
        dwarf::Flavor::DebugFrame => (None, Some(index)),
    };
    let sections = DwarfSections { eh_frame_index, debug_frame_index, ..sections };
    // Length, CIE, address, length of the code, augmentation.
    let is_misplaced = fdes.iter().any(|fde| is_in(&(fde.start..fde.start + 25)));
    let right = world.right(|function| is_misplaced || is_in(cie) || is_in(&fdes[function]));
    world.check(DwarfSource::new(sections), right)
}

proptest! {
    #![proptest_config(strategy::cases(1500))]

    /// `.eh_frame` damaged, its search table sound: a lookup reads one FDE and its CIE, and of the others
    /// nothing. By a scan it reads those before it, and none behind.
    #[test]
    fn call_frame_information(
        arch in arch(),
        calls in calls(),
        seed in any::<u64>(),
        damage in damage(),
        stack in stack_damage(),
    ) {
        let (scene, cie, fdes) = described(arch, Flavor::EhFrame);
        let mut world = World::new(arch, &calls, seed, false);
        world.damage_stack(&stack);
        let image = scene.built();
        let (mut eh_frame, svma) = image.eh_frame.expect("it was written");
        let (hdr, hdr_svma) = image.eh_frame_hdr.expect("it was written");
        let changed = apply(&damage, &mut eh_frame);
        let section = Some(Section { data: &eh_frame, svma });
        let mut sections = DwarfSections { eh_frame: section, ..DwarfSections::default() };
        let is_in = |range: &Range<usize>| changed.iter().any(|at| range.contains(at));
        let scanned = world.right(|function| is_in(&cie) || fdes[..=function].iter().any(is_in));
        world.check(DwarfSource::new(sections), scanned)?;
        sections.eh_frame_hdr = Some(Section { data: &hdr, svma: hdr_svma });
        let searched = world.right(|function| is_in(&cie) || is_in(&fdes[function]));
        world.check(DwarfSource::new(sections), searched)?;
        sections.eh_frame_hdr = None;
        by_index(&world, sections, dwarf::Flavor::EhFrame, &cie, &fdes, &is_in)?;
    }

    /// The same of `.debug_frame`, which has no search table.
    #[test]
    fn call_frame_information_for_debuggers(
        arch in arch(),
        calls in calls(),
        seed in any::<u64>(),
        damage in damage(),
        stack in stack_damage(),
    ) {
        let (scene, cie, fdes) = described(arch, Flavor::DebugFrame);
        let mut world = World::new(arch, &calls, seed, false);
        world.damage_stack(&stack);
        let mut debug_frame = scene.section.bytes.data;
        let changed = apply(&damage, &mut debug_frame);
        let section = Some(Section { data: &debug_frame, svma: 0 });
        let sections = DwarfSections { debug_frame: section, ..DwarfSections::default() };
        let is_in = |range: &Range<usize>| changed.iter().any(|at| range.contains(at));
        let scanned = world.right(|function| is_in(&cie) || fdes[..=function].iter().any(is_in));
        world.check(DwarfSource::new(sections), scanned)?;
        by_index(&world, sections, dwarf::Flavor::DebugFrame, &cie, &fdes, &is_in)?;
    }

    /// The search table damaged, `.eh_frame` sound: it may not find what is there, but whatever it finds
    /// covers the pc. Frames are right as long as they are this source's.
    #[test]
    fn search_tables(arch in arch(), calls in calls(), seed in any::<u64>(), damage in damage()) {
        let (scene, ..) = described(arch, Flavor::EhFrame);
        let world = World::new(arch, &calls, seed, false);
        let image = scene.built();
        let (eh_frame, svma) = image.eh_frame.expect("it was written");
        let (mut hdr, hdr_svma) = image.eh_frame_hdr.expect("it was written");
        apply(&damage, &mut hdr);
        let sections = DwarfSections {
            eh_frame: Some(Section { data: &eh_frame, svma }),
            eh_frame_hdr: Some(Section { data: &hdr, svma: hdr_svma }),
            ..DwarfSections::default()
        };
        let found = world.walk(DwarfSource::new(sections));
        let by_table = |frame: &&Frame| matches!(frame.provenance.source, None | Some(UnwindUserType::Dwarf));
        let found: Vec<(u64, u64)> =
            found.iter().take_while(by_table).map(|frame| (frame.pc.address(), frame.sp)).collect();
        prop_assert!(found.len() <= world.truth.len());
        prop_assert_eq!(&found[..], &world.truth[..found.len()]);
    }

    /// A lookup reads the starts of some functions, one entry, and its rows.
    #[test]
    fn sframe(
        abi in prop::sample::select(vec![Abi::Amd64, Abi::Aarch64Little, Abi::Aarch64Big, Abi::S390x]),
        version in prop::sample::select(vec![Version::V1, Version::V2, Version::V3]),
        calls in calls(),
        seed in any::<u64>(),
        damage in damage(),
        stack in stack_damage(),
    ) {
        let arch = AnyArch::real().into_iter().find(|arch| abi.is_for(arch)).expect("all are supported");
        // Version 1 has no s390x.
        let version = if abi == Abi::S390x { version.max(Version::V2) } else { version };
        let mut world = World::new(arch, &calls, seed, true);
        world.damage_stack(&stack);
        let (mut bytes, rows) = sframe_section(arch, abi, version);
        let changed = apply(&damage, &mut bytes);
        let entry_size = usize::from(version.fde_size());
        let start_size = if version == Version::V3 { 8 } else { 4 };
        let entries = 28..28 + FUNCTIONS * entry_size;
        let right = world.right(|function| changed.iter().any(|at| {
            let is_start = entries.contains(at) && (at - 28) % entry_size < start_size;
            let own = 28 + function * entry_size;
            *at < 28 || is_start || (own..own + entry_size).contains(at) || rows[function].contains(at)
        }));
        world.check(SFrameSource::new(&bytes, SFRAME), right)?;
    }

    /// A lookup reads the starts of some functions, the second word of one entry, and its words in
    /// `.ARM.extab`.
    #[test]
    fn exception_handling_tables(
        arch in prop::sample::select(arms()),
        calls in calls(),
        seed in any::<u64>(),
        damage in damage(),
        is_index in any::<bool>(),
        stack in stack_damage(),
    ) {
        let mut world = World::new(arch, &calls, seed, false);
        world.damage_stack(&stack);
        let mut tables = Tables::new(arch.byte_order());
        (tables.exidx_svma, tables.extab_svma) = (0x50_0000, 0x51_0000);
        (tables.text_start, tables.text_end) = (CODE, CODE + 0x1_0000);
        for function in 0..FUNCTIONS {
            // pop {r4 to …, lr}: as many words as the frame has; by the index, or by personality routine 1.
            let words = u8::try_from(units(function)).expect("few");
            let body = match function {
                _ if function == FUNCTIONS - 1 => Body::CannotUnwind,
                0..3 => Body::Inline(vec![0xa8 + (words - 2)]),
                _ => Body::Long(1, vec![0xa8 + (words - 2), 0xb0, 0xb0, 0xb0, 0xb0, 0xb0]),
            };
            tables = tables.function(u32::try_from(start(function)).expect("32 bits"), body);
        }
        let mut built = tables.build();
        let changed = apply(&damage, if is_index { &mut built.exidx } else { &mut built.extab });
        let right = world.right(|function| changed.iter().any(|at| match is_index {
            true => at % 8 < 4 || at / 8 == function,
            // Two words for each, from the fourth function on.
            false => at / 8 + 3 == function,
        }));
        world.check(EhabiSource::new(built.sections()), right)?;
    }

    /// A compiled table that is damaged and still one, over its original and without it: the walk is right up
    /// to the first pc for which the table says something else than it did.
    #[test]
    fn compiled_tables(
        arch in arch(),
        calls in calls(),
        seed in any::<u64>(),
        damage in damage(),
        stack in stack_damage(),
    ) {
        let (scene, ..) = described(arch, Flavor::EhFrame);
        let mut world = World::new(arch, &calls, seed, false);
        world.damage_stack(&stack);
        let image = scene.built();
        let (eh_frame, svma) = image.eh_frame.expect("it was written");
        let (hdr, hdr_svma) = image.eh_frame_hdr.expect("it was written");
        let original = DwarfSource::new(DwarfSections {
            eh_frame: Some(Section { data: &eh_frame, svma }),
            eh_frame_hdr: Some(Section { data: &hdr, svma: hdr_svma }),
            ..DwarfSections::default()
        });
        let sound = compile_to_vec(arch, original, CODE..CODE + 0x1_0000, |_| {}).expect("sound sections");
        let sound_source = TableSource { table: Table::parse(&sound).expect("just written"), original };
        let by_sound_tables = world.right(|_| false);
        world.check(sound_source, by_sound_tables)?;
        let mut bytes = sound.clone();
        apply(&damage, &mut bytes);
        let Ok(table) = Table::parse(&bytes) else { return Ok(()) };
        let damaged = TableSource { table, original };
        let same = |(index, pc): (usize, &(u64, u64))| {
            let pc = if index == 0 { Pc::Exact(pc.0) } else { Pc::Return(pc.0) };
            let memory = &mut &world.memory;
            let kind = UnwindUserType::Table;
            let before = sound_source.lookup(&arch, kind, &Query::new(pc), memory);
            let now = damaged.lookup(&arch, kind, &Query::new(pc), memory);
            before == now
        };
        let right = world.truth.iter().enumerate().position(|it| !same(it)).map_or(world.truth.len(), |at| at + 1);
        world.check(damaged, right.min(by_sound_tables))?;
        let alone = TableSource { table, original: () };
        prop_assert!(world.walk(alone).len() <= usize::try_from(MOST_FRAMES).expect("few"));
    }
}

/// The tests above prove nothing where damage never leaves a frame.
#[test]
fn sound_tables_are_walked_to_the_end() {
    for arch in AnyArch::real() {
        let (scene, ..) = described(arch, Flavor::EhFrame);
        let world = World::new(arch, &[0, 1, 2, 3, 4, 5], 7, false);
        let image = scene.built();
        let (eh_frame, svma) = image.eh_frame.expect("it was written");
        let section = Some(Section { data: &eh_frame, svma });
        let sections = DwarfSections { eh_frame: section, ..DwarfSections::default() };
        assert_eq!(world.walk(DwarfSource::new(sections)).len(), 7, "{arch:?}");
        if let Some(abi) = Abi::of(&arch) {
            let world = World::new(arch, &[0, 1, 2, 3, 4, 5], 7, true);
            let versions = [Version::V1, Version::V2, Version::V3];
            for version in versions.into_iter().filter(|version| abi != Abi::S390x || *version != Version::V1)
            {
                let (bytes, _) = sframe_section(arch, abi, version);
                assert_eq!(world.walk(SFrameSource::new(&bytes, SFRAME)).len(), 7, "{arch:?} {version:?}");
            }
        }
    }
}
