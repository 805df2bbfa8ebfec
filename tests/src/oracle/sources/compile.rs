//! Tables compiled from what a module has.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, OnceLock, PoisonError};

use unwind_core::dwarf::{DwarfIndex, DwarfIndexEntry, DwarfSections, DwarfSource, Flavor};
use unwind_core::ehabi::EhabiSource;
use unwind_core::sframe::SFrameSource;
use unwind_core::table::{
    Holds, Table, TableRoom, TableRule, TableSlot, TableSource, TableWriteError, TableWriter, compile_to_vec,
};
use unwind_core::{Arch, FrameSource};

/// A source that tables can be compiled from.
pub trait Compilable<A: Arch>: FrameSource<A> + Copy + 'static {
    /// Its tables, with what they were made of behind them.
    type Compiled: FrameSource<A> + Copy + 'static;
    /// Its tables with nothing behind them.
    type Alone: FrameSource<A> + Copy + 'static;

    /// The tables of the addresses `text` (svma), both ways.
    fn compile(&self, arch: &A, text: Range<u64>) -> (Self::Compiled, Self::Alone);

    /// Whether a table leaves the rule at an address (svma) to what it was made of.
    fn leaves(alone: &Self::Alone, svma: u64) -> bool;
}

/// Of one kind of source.
fn one<A: Arch, S: Tabled<A>>(
    source: S,
    arch: &A,
    text: Range<u64>,
) -> (TableSource<'static, S>, TableSource<'static, ()>) {
    let table = source.table(arch, text);
    (TableSource { table, original: source }, TableSource { table, original: () })
}

fn is_left(alone: &TableSource<'static, ()>, svma: u64) -> bool {
    match alone.table.find(svma) {
        Some(TableRule::AskOriginal) => true,
        Some(TableRule::Frame { holds, .. }) => holds == Holds::InBlocks,
        Some(TableRule::NotCovered) | None => false,
    }
}

macro_rules! by_one_table {
    ($source:ty) => {
        impl<A: Arch> Compilable<A> for $source {
            type Compiled = TableSource<'static, Self>;
            type Alone = TableSource<'static, ()>;

            fn compile(&self, arch: &A, text: Range<u64>) -> (Self::Compiled, Self::Alone) {
                one(*self, arch, text)
            }

            fn leaves(alone: &Self::Alone, svma: u64) -> bool {
                is_left(alone, svma)
            }
        }
    };
}

by_one_table!(DwarfSource<'static>);
by_one_table!(Option<SFrameSource<'static>>);

/// A table of each: that of the exception handling tables holds at calls only, and is asked where the other covers
/// nothing.
impl<A: Arch> Compilable<A> for (DwarfSource<'static>, Option<EhabiSource<'static>>) {
    type Compiled =
        (TableSource<'static, DwarfSource<'static>>, TableSource<'static, Option<EhabiSource<'static>>>);
    type Alone = (TableSource<'static, ()>, TableSource<'static, ()>);

    fn compile(&self, arch: &A, text: Range<u64>) -> (Self::Compiled, Self::Alone) {
        let (dwarf, ehabi) = (one(self.0, arch, text.clone()), one(self.1, arch, text));
        ((dwarf.0, ehabi.0), (dwarf.1, ehabi.1))
    }

    fn leaves(alone: &Self::Alone, svma: u64) -> bool {
        is_left(&alone.0, svma) || is_left(&alone.1, svma)
    }
}

/// A source that one table is compiled from.
trait Tabled<A: Arch>: FrameSource<A> + Copy {
    /// The table of the addresses `text` (svma).
    fn table(&self, arch: &A, text: Range<u64>) -> Table<'static>;
}

/// Of `.eh_frame`, or where there is none, of `.debug_frame`.
impl<A: Arch> Tabled<A> for DwarfSource<'static> {
    fn table(&self, arch: &A, text: Range<u64>) -> Table<'static> {
        let sections = *self.sections();
        let (flavor, section) = match (sections.eh_frame, sections.debug_frame) {
            (Some(section), _) => (Flavor::EhFrame, section),
            (None, Some(section)) => (Flavor::DebugFrame, section),
            (None, None) => return empty(text),
        };
        kept(section.data, &text, || {
            if let Ok(table) = compile_to_vec(*arch, *self, text.clone(), |_| {}) {
                return Some(table);
            }
            // Without `.eh_frame_hdr`, an index has to say where functions begin.
            let count = DwarfIndex::room(arch, &sections, flavor).ok()?;
            let mut entries = vec![DwarfIndexEntry::default(); count];
            let index = DwarfIndex::build(arch, &sections, flavor, &mut entries).ok()?;
            let sections = match flavor {
                Flavor::EhFrame => {
                    DwarfSections { eh_frame_hdr: None, eh_frame_index: Some(index), ..sections }
                }
                Flavor::DebugFrame => DwarfSections { debug_frame_index: Some(index), ..sections },
            };
            compile_to_vec(*arch, DwarfSource::new(sections), text.clone(), |_| {}).ok()
        })
        .unwrap_or_else(|| all_left(text))
    }
}

impl<A: Arch> Tabled<A> for Option<SFrameSource<'static>> {
    fn table(&self, arch: &A, text: Range<u64>) -> Table<'static> {
        let Some(source) = *self else { return empty(text) };
        let Some(Ok(first)) = source.sections().next() else { return empty(text) };
        let make = || compile_to_vec(*arch, source, text.clone(), |_| {}).ok();
        kept(first.data(), &text, make).unwrap_or_else(|| all_left(text))
    }
}

impl<A: Arch> Tabled<A> for Option<EhabiSource<'static>> {
    fn table(&self, arch: &A, text: Range<u64>) -> Table<'static> {
        let Some(source) = *self else { return empty(text) };
        let make = || compile_to_vec(*arch, source, text.clone(), |_| {}).ok();
        kept(source.sections().exidx.data, &text, make).unwrap_or_else(|| all_left(text))
    }
}

/// A table that covers nothing.
fn empty(text: Range<u64>) -> Table<'static> {
    leaked(written(|room| TableWriter::new(text.clone(), room)?.finish().map(<[u8]>::len)))
}

/// A table that leaves everything to what it was made of.
fn all_left(text: Range<u64>) -> Table<'static> {
    leaked(written(|room| {
        let mut writer = TableWriter::new(text.clone(), room)?;
        writer.ask_original(text.clone())?;
        writer.finish().map(<[u8]>::len)
    }))
}

/// The table of this section and these addresses, made once and kept for the rest of the process, as the section is.
fn kept(
    section: &'static [u8],
    text: &Range<u64>,
    make: impl FnOnce() -> Option<Vec<u8>>,
) -> Option<Table<'static>> {
    type Key = (usize, usize, u64, u64);
    static KNOWN: OnceLock<Mutex<HashMap<Key, Option<Table<'static>>>>> = OnceLock::new();
    let key = (section.as_ptr().addr(), section.len(), text.start, text.end);
    let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    *known.entry(key).or_insert_with(|| make().map(leaked))
}

fn leaked(bytes: Vec<u8>) -> Table<'static> {
    Table::parse(bytes.leak()).expect("a table that was just written")
}

/// The bytes that `write` writes, once it has been told how many there are.
fn written(write: impl Fn(TableRoom<'_>) -> Result<usize, TableWriteError>) -> Vec<u8> {
    let mut rules = vec![TableSlot::default(); 4096];
    let mut bytes = Vec::new();
    loop {
        match write(TableRoom { bytes: &mut bytes, rules: &mut rules }) {
            Ok(length) => {
                bytes.truncate(length);
                return bytes;
            }
            Err(TableWriteError::NoRoom { needed }) if needed > bytes.len() => bytes.resize(needed, 0),
            Err(error) => panic!("no table: {error}"),
        }
    }
}
