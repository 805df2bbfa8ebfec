//! Names for addresses.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use object::read::elf::{Dyn, ElfFile64, GnuHashTable, HashTable, ProgramHeader, Sym};
use object::{Endianness, Object, ObjectSection, ObjectSymbol, ReadCache, ReadRef, elf};
use unwind_core::{Frame, Pc};
use unwind_mem::elf::{ElfModule, ElfModules, Origin};

use crate::lines::{Line, Lines};

/// What is known about a frame's pc.
#[derive(Default)]
pub(crate) struct Place<'m> {
    pub(crate) module: Option<&'m ElfModule>,
    /// The pc as the module's file states it.
    pub(crate) svma: u64,
    pub(crate) function: Option<Function>,
    /// Innermost first; the last is the function itself, those before it are inlined.
    pub(crate) lines: Vec<Line>,
    /// Whether this is what the kernel put on the stack to call a signal handler.
    pub(crate) signal_frame: bool,
}

pub(crate) struct Function {
    pub(crate) name: String,
    /// As it is in the symbol table.
    pub(crate) raw: String,
    pub(crate) offset: u64,
}

/// Finds names; what it needs of a module is read when the module is first asked for.
pub(crate) struct Symbolizer<'m> {
    modules: &'m ElfModules,
    lines: bool,
    /// By the address of the module's description.
    known: HashMap<usize, (Symbols, Lines)>,
}

impl<'m> Symbolizer<'m> {
    pub(crate) fn new(modules: &'m ElfModules, lines: bool) -> Self {
        Symbolizer { modules, lines, known: HashMap::new() }
    }

    /// The place of each frame.
    ///
    /// A signal trampoline was not called: the handler "returns" to its first instruction. Such a
    /// frame is known by the exact pc of the one above it.
    pub(crate) fn places(&mut self, frames: &[Frame]) -> Vec<Place<'m>> {
        let callers = frames.iter().skip(1).map(Some).chain([None]);
        let places = frames.iter().zip(callers).map(|(frame, caller)| {
            let signal_frame = caller.is_some_and(|caller| caller.pc.is_exact());
            let pc = if signal_frame { Pc::Exact(frame.pc.address()) } else { frame.pc };
            Place { signal_frame, ..self.place(pc) }
        });
        places.collect()
    }

    fn place(&mut self, pc: Pc) -> Place<'m> {
        let Some(module) = self.modules.find(pc.lookup_address()) else {
            return Place::default();
        };
        let (symbols, lines) = self.known.entry(std::ptr::from_ref(module).addr()).or_insert_with(|| {
            let lines = if self.lines { Lines::of(module) } else { Lines::default() };
            (Symbols::of(module), lines)
        });
        let svma = pc.address().wrapping_sub(module.bias);
        let lookup = pc.lookup_address().wrapping_sub(module.bias);
        let function = symbols.find(lookup).map(|symbol| Function {
            name: demangle(&symbol.name),
            raw: symbol.name.clone(),
            offset: svma.wrapping_sub(symbol.start),
        });
        Place { module: Some(module), svma, function, lines: lines.find(lookup), signal_frame: false }
    }
}

/// The function that the program begins with (avma), if its symbol says how long it is.
pub(crate) fn entry_function(modules: &ElfModules) -> Option<Range<u64>> {
    let entry = modules.entry()?;
    let module = modules.find(entry)?;
    let symbols = Symbols::of(module);
    let function = symbols.find(entry.wrapping_sub(module.bias))?;
    let at = |svma: u64| svma.wrapping_add(module.bias);
    Some(at(function.start)..at(function.end)).filter(|function| function.start == entry)
}

pub(crate) fn demangle(name: &str) -> String {
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return format!("{rust:#}");
    }
    let cpp = cpp_demangle::Symbol::new(name).ok().filter(|_| name.starts_with("_Z"));
    cpp.and_then(|symbol| symbol.demangle().ok()).unwrap_or_else(|| name.to_owned())
}

/// Where the distribution's debug packages put a file's symbols and debug information.
pub(crate) fn debug_file(module: &ElfModule) -> Option<PathBuf> {
    let hex: String = module.build_id()?.iter().map(|byte| format!("{byte:02x}")).collect();
    let path =
        Path::new("/usr/lib/debug/.build-id").join(hex.get(..2)?).join(format!("{}.debug", hex.get(2..)?));
    path.is_file().then_some(path)
}

/// The functions of a module, sorted by address.
#[derive(Default)]
struct Symbols(Vec<Symbol>);

struct Symbol {
    start: u64,
    end: u64,
    name: String,
}

/// A symbol, and how much it is liked among those at one address: sized before unsized, global
/// before weak before local, plain names before reserved ones.
type Candidate = (u64, u64, (bool, u8, usize), String);

impl Symbols {
    fn of(module: &ElfModule) -> Self {
        let mut found = Vec::new();
        match &module.origin {
            Origin::File(path) => read_file(path, &mut found),
            Origin::Memory(image) => {
                // The vDSO is whole; of other files only what is loaded is there.
                read_tables(image.as_slice(), &mut found);
                if found.is_empty() {
                    read_dynamic(image, module.bias, &mut found);
                }
            }
            _ => {}
        }
        if let Some(path) = debug_file(module) {
            read_file(&path, &mut found);
        }
        Self::sorted(found)
    }

    fn sorted(mut found: Vec<Candidate>) -> Self {
        found.sort_unstable_by(|one, other| {
            (one.0, &one.2, one.1, &one.3).cmp(&(other.0, &other.2, other.1, &other.3))
        });
        found.dedup_by_key(|candidate| candidate.0);
        let starts: Vec<u64> = found.iter().skip(1).map(|candidate| candidate.0).chain([u64::MAX]).collect();
        let symbols = found.into_iter().zip(starts).map(|((start, size, _, name), next)| {
            // Assembly often does not say how long a function is: to the next one, within reason.
            let end =
                if size == 0 { next.min(start.saturating_add(4096)) } else { start.saturating_add(size) };
            Symbol { start, end, name }
        });
        Symbols(symbols.collect())
    }

    fn find(&self, svma: u64) -> Option<&Symbol> {
        let before = self.0.get(..self.0.partition_point(|symbol| symbol.start <= svma))?;
        // A function may lie within another's range: the innermost one counts.
        before.iter().rev().take(16).find(|symbol| svma < symbol.end)
    }
}

fn read_file(path: &Path, found: &mut Vec<Candidate>) {
    if let Ok(file) = File::open(path) {
        read_tables(&ReadCache::new(file), found);
    }
}

/// `.symtab` and `.dynsym`.
fn read_tables<'d, R: ReadRef<'d>>(data: R, found: &mut Vec<Candidate>) {
    let Ok(file) = object::File::parse(data) else { return };
    let is_code =
        |index| file.section_by_index(index).is_ok_and(|section| section.kind() == object::SectionKind::Text);
    for symbol in file.symbols().chain(file.dynamic_symbols()) {
        let object::SymbolFlags::Elf { st_info, .. } = symbol.flags() else { continue };
        let kind = st_info.st_type();
        let untyped_code = kind == elf::STT_NOTYPE && symbol.section_index().is_some_and(is_code);
        let is_function = kind == elf::STT_FUNC || kind == elf::STT_GNU_IFUNC || untyped_code;
        if let Ok(name) = symbol.name()
            && is_function
            && symbol.is_definition()
        {
            let section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
            let address = match (file.architecture(), section) {
                // The lowest bit says that the function is in T32 code.
                (object::Architecture::Arm, _) => symbol.address() & !1,
                // ELFv1: the symbol is that of a descriptor, whose first word is the code's address.
                (object::Architecture::PowerPc64, Some(section)) if section.name() == Ok(".opd") => {
                    match first_word(&section, symbol.address()) {
                        Some(address) => address,
                        None => continue,
                    }
                }
                _ => symbol.address(),
            };
            found.extend(candidate(address, symbol.size(), st_info.st_bind(), name));
        }
    }
}

/// The big-endian word at an address of a section.
fn first_word<'d>(section: &impl ObjectSection<'d>, address: u64) -> Option<u64> {
    let word = section.data_range(address, 8).ok()??;
    Some(u64::from_be_bytes(word.try_into().ok()?))
}

fn candidate(start: u64, size: u64, bind: elf::SymbolBind, name: &str) -> Option<Candidate> {
    // Mapping symbols ($x, $d) and local labels are no functions.
    if name.is_empty() || name.starts_with(['$', '.']) {
        return None;
    }
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    let bind = match bind {
        elf::STB_GLOBAL => 0,
        elf::STB_WEAK => 1,
        _ => 2,
    };
    let reserved = name.bytes().take_while(|byte| *byte == b'_').count();
    // Sizes differ among aliases of one function only by mistake; the sort puts the best first.
    Some((start, size, (size == 0, bind, reserved), name.to_owned()))
}

/// The dynamic symbols of a file without section headers: by its dynamic segment.
fn read_dynamic(image: &[u8], bias: u64, found: &mut Vec<Candidate>) -> Option<()> {
    let file = ElfFile64::<Endianness>::parse(image).ok()?;
    let endian = file.endian();
    let segments = file.elf_program_headers();
    let dynamic = segments.iter().find_map(|segment| segment.dynamic(endian, image).ok()?)?;
    let value =
        |tag| dynamic.iter().find(|entry| entry.d_tag(endian) == tag).map(|entry| entry.d_val(endian));
    // The dynamic loader may have relocated them already.
    let bytes_at = |address: u64| {
        [address, address.wrapping_sub(bias)].into_iter().find_map(|svma| {
            segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD).find_map(|segment| {
                let into = svma
                    .checked_sub(segment.p_vaddr(endian))
                    .filter(|into| *into < segment.p_filesz(endian))?;
                image.get(usize::try_from(segment.p_offset(endian).checked_add(into)?).ok()?..)
            })
        })
    };
    let strings = bytes_at(value(elf::DT_STRTAB)?)?;
    let symbols = bytes_at(value(elf::DT_SYMTAB)?)?;
    let by_hash = value(elf::DT_HASH).and_then(bytes_at).and_then(|bytes| {
        Some(HashTable::<elf::FileHeader64<Endianness>>::parse(endian, bytes).ok()?.symbol_table_length())
    });
    let by_gnu_hash = value(elf::DT_GNU_HASH).and_then(bytes_at).and_then(|bytes| {
        GnuHashTable::<elf::FileHeader64<Endianness>>::parse(endian, bytes).ok()?.symbol_table_length(endian)
    });
    let count = usize::try_from(by_gnu_hash.or(by_hash)?).ok()?;
    let count = count.min(symbols.len() / size_of::<elf::Sym64<Endianness>>());
    let (symbols, _) = object::pod::slice_from_bytes::<elf::Sym64<Endianness>>(symbols, count).ok()?;
    for symbol in symbols {
        let defined = symbol.st_shndx(endian) != elf::SHN_UNDEF;
        let name = strings.get(usize::try_from(symbol.st_name(endian)).ok()?..);
        let name = name.and_then(|name| std::str::from_utf8(name.split(|byte| *byte == 0).next()?).ok());
        if let Some(name) = name
            && defined
            && [elf::STT_FUNC, elf::STT_GNU_IFUNC].contains(&symbol.st_type())
        {
            found.extend(candidate(symbol.st_value(endian), symbol.st_size(endian), symbol.st_bind(), name));
        }
    }
    Some(())
}
