//! This library as an unwinder of cases.

use unwind_core::dwarf::{DwarfIndex, DwarfIndexEntry, DwarfSections, DwarfSource, Flavor, Section};
use unwind_core::ehabi::{self, EhabiSections, EhabiSource};
use unwind_core::sframe::SFrameSource;
use unwind_core::table::{Table, TableSource, compile_to_vec};
use unwind_core::{
    Arch, CacheSlot, Cached, Cut, End, FrameSource, MemoryReader, Module, ModuleMap, Options, RuleCache,
    Unwinder as Core,
};

use super::case::{Case, Ended, Found, Image, MOST_FRAMES, Memories, Unwinder};
use crate::synthetic::{AnyArch, Changing};

/// This library, in each of its forms: sections searched as they are, scanned, by an index, compiled
/// tables, and rules remembered.
pub struct Ours;

/// How a module's call frame information is searched.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    AsItIs,
    Scanned,
    Indexed,
    Compiled,
}

const FORMS: [(Form, &str); 4] = [
    (Form::AsItIs, "as it is"),
    (Form::Scanned, "scanned"),
    (Form::Indexed, "by an index"),
    (Form::Compiled, "by a compiled table"),
];

impl Unwinder for Ours {
    fn name(&self) -> &'static str {
        "unwind-core"
    }

    fn walk(&self, case: &Case) -> Option<Vec<(&'static str, Found)>> {
        let mut all = Vec::new();
        for (form, name) in FORMS {
            all.push((name, walk(case, form, None)));
        }
        let slots: Vec<CacheSlot> = (0..64).map(|_| CacheSlot::new()).collect();
        let cache = RuleCache::new(&slots);
        // Twice: what is remembered must be what was found.
        for name in ["with an empty cache", "with a full cache"] {
            all.push((name, walk(case, Form::AsItIs, Some(cache))));
        }
        Some(all)
    }
}

/// All that describes a module: compiled tables, and what they were made of.
type Source<'p> = (Compiled<'p>, Plain<'p>);
type Plain<'p> = (Option<DwarfSource<'p>>, (Option<SFrameSource<'p>>, Option<EhabiSource<'p>>));
type Compiled<'p> = (
    Option<TableSource<'p, DwarfSource<'p>>>,
    (Option<TableSource<'p, SFrameSource<'p>>>, Option<TableSource<'p, EhabiSource<'p>>>),
);

fn walk(case: &Case, form: Form, cache: Option<RuleCache<'_>>) -> Found {
    if let (Some(earlier), Some(_)) = (&case.earlier, cache) {
        let memory = Memories::Still(earlier.memory.clone());
        with_modules(case, &earlier.images, form, cache.map(|cache| (cache, 1)), &memory);
    }
    let changes = case.earlier.as_ref().map_or(0, |earlier| earlier.changes);
    with_modules(case, &case.images, form, cache.map(|cache| (cache, 1 + changes)), &case.memory)
}

fn with_modules(
    case: &Case,
    images: &[Image],
    form: Form,
    cache: Option<(RuleCache<'_>, u64)>,
    memory: &Memories,
) -> Found {
    let arch = &case.arch;
    let mut rooms: Vec<[Vec<DwarfIndexEntry>; 2]> = images.iter().map(|image| rooms(arch, image)).collect();
    let indices: Vec<[Option<DwarfIndex<'_>>; 2]> =
        rooms.iter_mut().zip(images).map(|(room, image)| indices(arch, image, room)).collect();
    let plain: Vec<Plain<'_>> =
        images.iter().zip(&indices).map(|(image, index)| plain(arch, image, form, index)).collect();
    let tables: Vec<[Option<Vec<u8>>; 3]> = images
        .iter()
        .zip(&plain)
        .map(
            |(image, plain)| {
                if form == Form::Compiled { compile(arch, image, plain) } else { [None, None, None] }
            },
        )
        .collect();
    let modules: Vec<Module<Source<'_>>> = images
        .iter()
        .zip(&plain)
        .zip(&tables)
        .map(|((image, plain), tables)| Module {
            start: image.code.0,
            end: image.code.1,
            bias: image.bias,
            source: source(*plain, tables),
        })
        .collect();
    let map = ModuleMap::new(arch, &modules).expect("images are in ascending order");
    let map = if case.is_all_code { map.complete() } else { map };
    match cache {
        Some((cache, generation)) => with_source(case, Cached { cache, generation, source: map }, memory),
        None => with_source(case, map, memory),
    }
}

fn with_source(case: &Case, source: impl FrameSource<AnyArch>, memory: &Memories) -> Found {
    match memory {
        Memories::Still(memory) => with_memory(case, source, memory),
        Memories::Changing(memory, seed) => with_memory(case, source, Changing::new(memory, *seed)),
    }
}

fn with_memory(case: &Case, source: impl FrameSource<AnyArch>, memory: impl MemoryReader) -> Found {
    let mut options = Options::default();
    options.max_frames = u32::try_from(MOST_FRAMES).expect("few");
    let unwinder = Core::with_options(case.arch, source, options);
    let mut walk = unwinder.frames(&case.registers, memory).expect("ip and sp are known");
    let frames = (&mut walk).map(|frame| (frame.pc.address(), frame.sp)).collect();
    let ended = match walk.end().expect("it has ended") {
        End::Complete(_) => Ended::Complete,
        End::Truncated(Cut::FrameLimit) => Ended::Endless,
        End::Truncated(_) | End::Failed(_) => Ended::Incomplete,
    };
    Found { frames, ended }
}

const FLAVORS: [Flavor; 2] = [Flavor::EhFrame, Flavor::DebugFrame];

fn rooms(arch: &AnyArch, image: &Image) -> [Vec<DwarfIndexEntry>; 2] {
    let room = |flavor| DwarfIndex::room(arch, &sections(image), flavor).unwrap_or(0);
    FLAVORS.map(|flavor| vec![DwarfIndexEntry::default(); room(flavor)])
}

/// An index of each section that can be indexed.
fn indices<'r>(
    arch: &AnyArch,
    image: &Image,
    [eh_frame, debug_frame]: &'r mut [Vec<DwarfIndexEntry>; 2],
) -> [Option<DwarfIndex<'r>>; 2] {
    let build = |flavor, room: &'r mut Vec<DwarfIndexEntry>| {
        DwarfIndex::build(arch, &sections(image), flavor, room).ok()
    };
    [build(Flavor::EhFrame, eh_frame), build(Flavor::DebugFrame, debug_frame)]
}

/// Compiled from the index, as a source without `.eh_frame_hdr` is looked up in.
/// A table of each source that one can be made of.
fn compile(arch: &AnyArch, image: &Image, plain: &Plain<'_>) -> [Option<Vec<u8>>; 3] {
    let svma = |avma: u64| arch.word_size().truncate(avma.wrapping_sub(image.bias));
    let text = svma(image.code.0)..svma(image.code.1);
    let (dwarf, (sframe, ehabi)) = plain;
    [
        dwarf.and_then(|source| compile_to_vec(*arch, source, text.clone(), |_| {}).ok()),
        sframe.and_then(|source| compile_to_vec(*arch, source, text.clone(), |_| {}).ok()),
        ehabi.and_then(|source| compile_to_vec(*arch, source, text, |_| {}).ok()),
    ]
}

/// What there is a table of is asked through it.
fn source<'p>(plain: Plain<'p>, tables: &'p [Option<Vec<u8>>; 3]) -> Source<'p> {
    fn over<'p, S: Copy>(source: &mut Option<S>, bytes: &'p Option<Vec<u8>>) -> Option<TableSource<'p, S>> {
        let table = Table::parse(bytes.as_ref()?).expect("it was written by this library");
        source.take().map(|original| TableSource { table, original })
    }
    let (mut dwarf, (mut sframe, mut ehabi)) = plain;
    let [dwarf_table, sframe_table, ehabi_table] = tables;
    let compiled =
        (over(&mut dwarf, dwarf_table), (over(&mut sframe, sframe_table), over(&mut ehabi, ehabi_table)));
    (compiled, (dwarf, (sframe, ehabi)))
}

fn plain<'p>(
    arch: &AnyArch,
    image: &'p Image,
    form: Form,
    [eh_frame_index, debug_frame_index]: &[Option<DwarfIndex<'p>>; 2],
) -> Plain<'p> {
    let mut sections = sections(image);
    if form != Form::AsItIs {
        sections.eh_frame_hdr = None;
    }
    if matches!(form, Form::Indexed | Form::Compiled) {
        sections.eh_frame_index = *eh_frame_index;
        sections.debug_frame_index = *debug_frame_index;
    }
    let is_there = sections.eh_frame.is_some() || sections.debug_frame.is_some();
    let dwarf = is_there.then(|| DwarfSource::new(sections));
    let sframe = image.sframe.as_ref().map(|(data, svma)| SFrameSource::new(data, *svma));
    let ehabi = image.ehabi.as_ref().map(|[exidx, extab]| {
        fn section((data, svma): &(Vec<u8>, u64)) -> ehabi::Section<'_> {
            ehabi::Section { data, svma: *svma }
        }
        let (start, end) = (image.code.0.wrapping_sub(image.bias), image.code.1.wrapping_sub(image.bias));
        let sections =
            EhabiSections::new(arch.byte_order(), section(exidx), Some(section(extab)), start, end);
        EhabiSource::new(sections)
    });
    (dwarf, (sframe, ehabi))
}

fn sections(image: &Image) -> DwarfSections<'_> {
    DwarfSections {
        eh_frame: image.eh_frame.as_ref().map(|(data, svma)| Section { data, svma: *svma }),
        eh_frame_hdr: image.eh_frame_hdr.as_ref().map(|(data, svma)| Section { data, svma: *svma }),
        debug_frame: image.debug_frame.as_ref().map(|data| Section { data, svma: 0 }),
        text_svma: image.text_svma,
        got_svma: image.got_svma,
        ..DwarfSections::default()
    }
}
