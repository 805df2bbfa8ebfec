//! The modules of a process: which file is mapped where, and what unwind tables it has.
//!
//! A small loader of the oracle's own, so that the library's loader is not tested with itself.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SegmentFlags};
use unwind_core::dwarf::{DwarfSections, DwarfSource, Section};
use unwind_core::{Module, Pc};

/// A file with code, kept for the rest of the process.
pub struct Image {
    /// Its file name, without folders.
    pub name: String,
    /// Whether it was made for this test, not found on the system.
    pub ours: bool,
    /// Its call frame information.
    pub sections: DwarfSections<'static>,
    /// Where control is taken first (svma).
    pub entry: u64,
    /// Addresses (svma) that FDEs of `.eh_frame` cover, sorted.
    pub covered: Vec<Range<u64>>,
    /// Named functions and objects: where (svma), how long, which name; sorted.
    pub symbols: Vec<(u64, u64, String)>,
    /// Loadable segments: where in the file, where in memory (svma).
    segments: Vec<(Range<u64>, u64)>,
}

impl Image {
    /// Parses `data`.
    pub fn parse(name: String, ours: bool, data: &'static [u8]) -> Result<&'static Self, object::Error> {
        let file = object::File::parse(data)?;
        let section = |name: &str| {
            let section = file.section_by_name(name)?;
            let data = section.data().ok().filter(|data| !data.is_empty())?;
            Some(Section { data, svma: section.address() })
        };
        let address = |name: &str| file.section_by_name(name).map(|section| section.address());
        let sections = DwarfSections {
            eh_frame: section(".eh_frame"),
            eh_frame_hdr: section(".eh_frame_hdr"),
            debug_frame: None,
            text_svma: address(".text"),
            got_svma: address(".got"),
            ..DwarfSections::default()
        };
        let is_code = |flags| matches!(flags, SegmentFlags::Elf { p_flags, .. } if p_flags.0 & object::elf::PF_X.0 != 0);
        let segments = file
            .segments()
            .filter(|segment| is_code(segment.flags()))
            .map(|segment| {
                let (offset, length) = segment.file_range();
                (offset..offset + length, segment.address())
            })
            .collect();
        let mut symbols: Vec<_> = file
            .symbols()
            .chain(file.dynamic_symbols())
            .filter(|symbol| symbol.is_definition())
            .filter_map(|symbol| {
                let name = symbol.name().ok().filter(|name| !name.is_empty())?;
                Some((symbol.address(), symbol.size(), name.to_owned()))
            })
            .collect();
        symbols.sort();
        symbols.dedup();
        let covered = crate::oracle::cfi::covered(&sections);
        let entry = file.entry();
        Ok(Box::leak(Box::new(Image { name, ours, sections, entry, covered, symbols, segments })))
    }

    /// The image of the vDSO, which is no file; parsed once.
    pub fn vdso(data: Vec<u8>) -> Option<&'static Self> {
        static KNOWN: OnceLock<Option<&'static Image>> = OnceLock::new();
        *KNOWN.get_or_init(|| Image::parse("[vdso]".to_owned(), false, data.leak()).ok())
    }

    /// The image of a file; parsed once.
    pub fn of_file(path: &Path, ours: bool) -> io::Result<&'static Self> {
        type Known = Mutex<HashMap<std::path::PathBuf, &'static Image>>;
        static KNOWN: OnceLock<Known> = OnceLock::new();
        let mut known = KNOWN.get_or_init(Mutex::default).lock().map_err(|_| io::Error::other("poisoned"))?;
        if let Some(image) = known.get(path) {
            return Ok(image);
        }
        let data = fs::read(path)?.leak();
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let image = Image::parse(name, ours, data).map_err(io::Error::other)?;
        known.insert(path.to_owned(), image);
        Ok(image)
    }

    /// Whether an FDE covers `svma`.
    pub fn covers(&self, svma: u64) -> bool {
        let after = self.covered.partition_point(|range| range.start <= svma);
        // FDEs do not overlap but for empty ones, which are left out.
        after.checked_sub(1).is_some_and(|index| self.covered[index].contains(&svma))
    }

    /// The svma of the byte at `offset` of the file, if it is code.
    pub fn svma_of(&self, offset: u64) -> Option<u64> {
        const PAGE: u64 = 4096;
        self.segments.iter().find_map(|(file, svma)| {
            let range = file.start / PAGE * PAGE..file.end.next_multiple_of(PAGE);
            range.contains(&offset).then(|| svma.wrapping_add(offset).wrapping_sub(file.start))
        })
    }

    /// A symbol's svma and size.
    pub fn symbol(&self, name: &str) -> Option<(u64, u64)> {
        self.symbols.iter().find(|(_, _, known)| known == name).map(|(svma, size, _)| (*svma, *size))
    }

    /// The symbol at or below `svma`, and how far below.
    pub fn symbolize(&self, svma: u64) -> Option<(&str, u64)> {
        let after = self.symbols.partition_point(|(start, _, _)| *start <= svma);
        let candidates = self.symbols[..after].iter().rev().take(16);
        let mut candidates = candidates.filter(|(start, size, _)| svma < start + size.max(&1));
        candidates.next().map(|(start, _, name)| (name.as_str(), svma - start))
    }
}

/// An executable mapping of an image.
#[derive(Clone, Copy)]
pub struct Mapped {
    /// First address (avma).
    pub start: u64,
    /// First address beyond (avma).
    pub end: u64,
    /// avma minus svma.
    pub bias: u64,
    /// What is mapped.
    pub image: &'static Image,
}

/// The modules of a process, in ascending order.
#[derive(Clone, Default)]
pub struct Modules {
    /// The mappings.
    pub mapped: Vec<Mapped>,
    /// The same, for a walk.
    pub map: Vec<Module<DwarfSource<'static>>>,
    /// Which reading of the list this is: no other has the number.
    pub id: u64,
}

impl Modules {
    /// The modules that `maps`, the text of `/proc/PID/maps`, lists. Files below `ours` were made
    /// for this test. Walks use the `tables` of an image; `vdso` makes an image of a range of the target's memory.
    pub fn read(
        maps: &str,
        ours: &Path,
        tables: fn(&'static Image) -> DwarfSections<'static>,
        mut vdso: impl FnMut(Range<u64>) -> Option<&'static Image>,
    ) -> io::Result<Self> {
        let mut mapped = Vec::new();
        for line in maps.lines() {
            let mut fields = line.split_ascii_whitespace();
            let (Some(range), Some(mode), Some(offset)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let path = fields.nth(2).unwrap_or_default();
            let number = |text: &str| u64::from_str_radix(text, 16).map_err(io::Error::other);
            let (start, end) = range.split_once('-').ok_or_else(|| io::Error::other("no range"))?;
            let (start, end, offset) = (number(start)?, number(end)?, number(offset)?);
            if !mode.contains('x') {
                continue;
            }
            let image = if path == "[vdso]" {
                vdso(start..end)
            } else if path.starts_with('/') {
                Some(Image::of_file(Path::new(path), Path::new(path).starts_with(ours))?)
            } else {
                None
            };
            if let Some((image, svma)) = image.and_then(|image| Some((image, image.svma_of(offset)?))) {
                mapped.push(Mapped { start, end, bias: start.wrapping_sub(svma), image });
            }
        }
        mapped.sort_by_key(|mapped| mapped.start);
        let module = |mapped: &Mapped| Module {
            start: mapped.start,
            end: mapped.end,
            bias: mapped.bias,
            source: DwarfSource::new(tables(mapped.image)),
        };
        let map = mapped.iter().map(module).collect();
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ok(Modules { mapped, map, id: NEXT.fetch_add(1, Ordering::Relaxed) })
    }

    /// The mapping at `address` (avma).
    pub fn at(&self, address: u64) -> Option<&Mapped> {
        let index = self.mapped.partition_point(|mapped| mapped.end <= address);
        self.mapped.get(index).filter(|mapped| mapped.start <= address)
    }

    /// Whether call frame information covers `pc`.
    pub fn has_cfi(&self, pc: Pc) -> bool {
        let address = pc.lookup_address();
        self.at(address).is_some_and(|mapped| mapped.image.covers(address.wrapping_sub(mapped.bias)))
    }

    /// The address (avma) of a symbol, in the first module that has it.
    pub fn symbol(&self, name: &str) -> Option<Range<u64>> {
        self.mapped.iter().find_map(|mapped| {
            let (svma, size) = mapped.image.symbol(name)?;
            let start = svma.wrapping_add(mapped.bias);
            Some(start..start.wrapping_add(size))
        })
    }

    /// `address` for people: module, symbol, offsets.
    pub fn describe(&self, address: u64) -> String {
        let Some(mapped) = self.at(address) else {
            return format!("{address:#x}");
        };
        let svma = address.wrapping_sub(mapped.bias);
        match mapped.image.symbolize(svma) {
            Some((name, offset)) => format!("{}+{svma:#x} <{name}+{offset:#x}>", mapped.image.name),
            None => format!("{}+{svma:#x}", mapped.image.name),
        }
    }
}
