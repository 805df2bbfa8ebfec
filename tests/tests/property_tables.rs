//! Valid tables of every format with bits flipped and words replaced, on every architecture: never a panic,
//! never an endless walk, and every frame before the first that the damage concerns still right.
//!
//! Which frames it concerns follows from where each format keeps what it says of a function: an FDE and its
//! CIE, an SFrame function's entry and its rows, an EHABI entry and its words in `.ARM.extab`. What a
//! lookup reads of other functions is said at each test.

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;
use unwind_core::dwarf::{DwarfSections, DwarfSource, Section};
use unwind_core::ehabi::EhabiSource;
use unwind_core::sframe::{Abi, SFrameFormat, SFrameSource, Version, WriteFunction, WriteRow, write_to_vec};
use unwind_core::table::{Table, TableSource, compile_to_vec};
use unwind_core::{
    Arch, Frame, FrameSource, Module, ModuleMap, Options, Pc, Query, UnwindUserFrame, UnwindUserType,
    Unwinder,
};
use unwind_tests::ehabi::{Body, Tables};
use unwind_tests::hazard::{CODE, STACK, Scene};
use unwind_tests::synthetic::chaos::mix;
use unwind_tests::synthetic::{AnyArch, Memory, Registers, strategy};

/// Where each function begins, one after another; each has so many bytes.
const FIRST: u64 = CODE + 0x1000;
const LENGTH: u64 = 0x40;
/// How many functions there are, the outermost last.
const FUNCTIONS: usize = 7;
const MOST_FRAMES: u32 = 300;

fn start(function: usize) -> u64 {
    FIRST + LENGTH * u64::try_from(function).expect("few")
}

/// How many units the frame of a function has.
fn units(function: usize) -> u64 {
    2 + u64::try_from(function).expect("few")
}

/// A chain of calls, innermost first: functions, as the tables of every format describe them.
#[derive(Clone, Debug)]
struct World {
    arch: AnyArch,
    chain: Vec<usize>,
    /// What a walk over sound tables finds: pc and sp.
    truth: Vec<(u64, u64)>,
    registers: Registers,
    memory: Memory,
}

impl World {
    /// `is_alone`: the outermost has a return address of zero, where its table cannot say undefined.
    fn new(arch: AnyArch, calls: &[usize], seed: u64, is_alone: bool) -> Self {
        let mut chain: Vec<usize> = calls.iter().map(|call| call % (FUNCTIONS - 1)).collect();
        chain.push(FUNCTIONS - 1);
        let mut scene = Scene::new(arch);
        let pc = |depth: usize| {
            let random = mix(seed ^ u64::try_from(depth).expect("few"));
            // Calls are no first instructions, and may be the last ones.
            start(chain[depth]) + 4 + random % (LENGTH / 4) * 4
        };
        // Execution has stopped inside, not behind.
        let topmost = start(chain[0]) + 4 + seed % (LENGTH / 4 - 1) * 4;
        let (mut sp, mut truth) = (STACK, vec![(topmost, STACK)]);
        for depth in 1..chain.len() {
            sp = scene.called(sp, units(chain[depth - 1]), pc(depth));
            truth.push((pc(depth), sp));
        }
        if is_alone {
            scene.called(sp, units(FUNCTIONS - 1), 0);
        }
        let registers = Registers::new(topmost, [(arch.sp(), STACK)]);
        World { arch, chain, truth, registers, memory: scene.memory }
    }

    /// How many frames are right for certain where a step by one of these functions may go wrong.
    fn right(&self, is_damaged: impl Fn(usize) -> bool) -> usize {
        self.chain
            .iter()
            .position(|function| is_damaged(*function))
            .map_or(self.chain.len(), |index| index + 1)
    }

    fn walk<S: FrameSource<AnyArch>>(&self, source: S) -> Vec<Frame> {
        let modules = [Module { start: CODE, end: CODE + 0x1_0000, bias: 0, source }];
        let map = ModuleMap::new(&self.arch, &modules).expect("one module");
        let mut options = Options::default();
        options.max_frames = MOST_FRAMES;
        let unwinder = Unwinder::with_options(self.arch, map, options);
        unwinder.frames(&self.registers, &self.memory).expect("ip and sp are known").collect()
    }

    fn check<S: FrameSource<AnyArch>>(&self, source: S, right: usize) -> Result<(), TestCaseError> {
        let found: Vec<(u64, u64)> =
            self.walk(source).iter().map(|frame| (frame.pc.address(), frame.sp)).collect();
        prop_assert!(found.len() <= usize::try_from(MOST_FRAMES).expect("few"));
        prop_assert!(found.len() >= right, "{} frames, {right} must be right", found.len());
        prop_assert_eq!(&found[..right], &self.truth[..right]);
        Ok(())
    }
}

/// Bits that are flipped, or words that are replaced.
#[derive(Clone, Debug)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Replace(prop::sample::Index, u32),
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let index = any::<prop::sample::Index>();
    let word = prop_oneof![Just(0), Just(u32::MAX), Just(1), Just(0x7fff_ffff), any::<u32>()];
    let one = prop_oneof![
        3 => (index, 1u8..).prop_map(|(index, bits)| Damage::Flip(index, bits)),
        2 => (any::<prop::sample::Index>(), word).prop_map(|(index, word)| Damage::Replace(index, word)),
    ];
    vec(one, 1..3)
}

/// Damages bytes, and says which of them are others now.
fn apply(damages: &[Damage], bytes: &mut [u8]) -> Vec<usize> {
    let before = bytes.to_vec();
    for damage in damages {
        match damage {
            Damage::Flip(index, bits) if !bytes.is_empty() => bytes[index.index(before.len())] ^= bits,
            Damage::Replace(index, word) if bytes.len() >= 4 => {
                let at = index.index(before.len() / 4) * 4;
                bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
            }
            _ => {}
        }
    }
    (0..before.len()).filter(|at| before[*at] != bytes[*at]).collect()
}

fn arch() -> impl Strategy<Value = AnyArch> {
    prop::sample::select(AnyArch::real())
}

fn calls() -> impl Strategy<Value = Vec<usize>> {
    vec(0..FUNCTIONS - 1, 1..8)
}

/// The functions as call frame information: plain rules, expressions, remembered states. Gives the ranges of
/// the CIE's bytes and of each FDE's.
fn described(arch: AnyArch) -> (Scene, Range<usize>, Vec<Range<usize>>) {
    let mut scene = Scene::new(arch);
    let mut ends = Vec::new();
    for function in 0..FUNCTIONS {
        scene.function(start(function), LENGTH, |scene, program| match function {
            _ if function == FUNCTIONS - 1 => {
                program.with(0x07, &[arch.ra().0.into()]);
            }
            1 | 4 => {
                scene.sized(program, units(function));
                let size = i64::try_from(scene.unit() * units(function)).expect("small");
                let cfa = scene.expression().breg(arch.sp(), size - i64::from(arch.sp_bias()));
                program.cfa_expression(if function == 1 { cfa } else { cfa.opaque() });
            }
            2 => {
                scene.sized(program, units(function));
                program.op(0x0a).advance(0x20, 0).op(0x0b);
            }
            _ => scene.sized(program, units(function)),
        });
        ends.push(scene.section.bytes.data.len());
    }
    let svma = scene.section.svma;
    let begins = scene.entries.iter().map(|entry| usize::try_from(entry.1 - svma).expect("small"));
    let fdes: Vec<Range<usize>> = begins.zip(ends).map(|(begin, end)| begin..end).collect();
    let cie = 0..fdes[0].start;
    (scene, cie, fdes)
}

proptest! {
    #![proptest_config(strategy::cases(1500))]

    /// `.eh_frame` damaged, its search table sound: a lookup reads one FDE and its CIE, and of the others
    /// nothing. By a scan it reads those before it, and none behind.
    #[test]
    fn call_frame_information(arch in arch(), calls in calls(), seed in any::<u64>(), damage in damage()) {
        let (scene, cie, fdes) = described(arch);
        let world = World::new(arch, &calls, seed, false);
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
    }

    /// The search table damaged, `.eh_frame` sound: it may not find what is there, but whatever it finds
    /// covers the pc. Frames are right as long as they are this source's.
    #[test]
    fn search_tables(arch in arch(), calls in calls(), seed in any::<u64>(), damage in damage()) {
        let (scene, ..) = described(arch);
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
        version in prop::sample::select(vec![Version::V2, Version::V3]),
        calls in calls(),
        seed in any::<u64>(),
        damage in damage(),
    ) {
        let arch = AnyArch::real().into_iter().find(|arch| abi.is_for(arch)).expect("all are supported");
        let world = World::new(arch, &calls, seed, true);
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
    ) {
        let world = World::new(arch, &calls, seed, false);
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
    fn compiled_tables(arch in arch(), calls in calls(), seed in any::<u64>(), damage in damage()) {
        let (scene, ..) = described(arch);
        let world = World::new(arch, &calls, seed, false);
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
        world.check(sound_source, world.truth.len())?;
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
        world.check(damaged, right)?;
        let alone = TableSource { table, original: () };
        prop_assert!(world.walk(alone).len() <= usize::try_from(MOST_FRAMES).expect("few"));
    }
}

const SFRAME: u64 = CODE + 0xf_0000;

fn arms() -> Vec<AnyArch> {
    AnyArch::real().into_iter().filter(|arch| arch.name() == "arm").collect()
}

/// The section, and where each function's rows are in it.
fn sframe_section(arch: AnyArch, abi: Abi, version: Version) -> (Vec<u8>, Vec<Range<usize>>) {
    let scene = Scene::new(arch);
    let (bias, word) = (arch.sp_bias(), i32::from(arch.word_size().bytes()));
    let row = |function: usize, at: u32| {
        let size = i32::try_from(scene.unit() * units(function)).expect("small");
        let frame = UnwindUserFrame::plain(false, size - bias, bias - word, None);
        WriteRow { start: at, frame: Some(frame), is_mangled: false }
    };
    let bytes = write_to_vec(
        SFrameFormat { version, abi, svma: SFRAME },
        |writer, refused| {
            for function in 0..FUNCTIONS {
                let size = u32::try_from(LENGTH).expect("small");
                let start = start(function);
                let written = WriteFunction { start, size, block_size: None, key_b: false };
                writer.function(&written, [row(function, 0), row(function, 0x20)].into_iter(), refused);
            }
        },
        &mut |refused| panic!("{refused:?}"),
    )
    .expect("it fits");
    // In the order of the functions: the field of each entry that says where its rows begin.
    let entry_size = usize::from(version.fde_size());
    let at = if version == Version::V3 { 12 } else { 8 };
    let rows_begin = 28 + FUNCTIONS * entry_size;
    let mut begins: Vec<usize> = (0..FUNCTIONS)
        .map(|function| {
            let field: [u8; 4] = bytes[28 + function * entry_size + at..][..4].try_into().expect("four");
            let offset = match arch.byte_order() {
                unwind_core::ByteOrder::Little => u32::from_le_bytes(field),
                unwind_core::ByteOrder::Big => u32::from_be_bytes(field),
            };
            rows_begin + usize::try_from(offset).expect("small")
        })
        .collect();
    assert!(begins.is_sorted());
    begins.push(bytes.len());
    (bytes, begins.windows(2).map(|pair| pair[0]..pair[1]).collect())
}

/// The tests above prove nothing where damage never leaves a frame.
#[test]
fn sound_tables_are_walked_to_the_end() {
    for arch in AnyArch::real() {
        let (scene, ..) = described(arch);
        let world = World::new(arch, &[0, 1, 2, 3, 4, 5], 7, false);
        let image = scene.built();
        let (eh_frame, svma) = image.eh_frame.expect("it was written");
        let section = Some(Section { data: &eh_frame, svma });
        let sections = DwarfSections { eh_frame: section, ..DwarfSections::default() };
        assert_eq!(world.walk(DwarfSource::new(sections)).len(), 7, "{arch:?}");
        if let Some(abi) = Abi::of(&arch) {
            let world = World::new(arch, &[0, 1, 2, 3, 4, 5], 7, true);
            for version in [Version::V2, Version::V3] {
                let (bytes, _) = sframe_section(arch, abi, version);
                assert_eq!(world.walk(SFrameSource::new(&bytes, SFRAME)).len(), 7, "{arch:?} {version:?}");
            }
        }
    }
}
