//! The target `maps`: the list of a process's mappings, lists of modules and of regions, and readers made of
//! readers.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use unwind_arch_x86_64::X86_64;
use unwind_core::{MemoryError, MemoryReader, Module, ModuleMap};
use unwind_mem::{Layers, Page, PageCache, Region, RegionMap, SliceReader, StackSnapshot};

/// What the fuzzer's bytes become.
#[derive(Clone, Debug, Arbitrary)]
pub enum MapsInput {
    /// Any text.
    Text(Vec<u8>),
    /// Lines as the kernel writes them.
    Lines(Vec<Line>),
    /// Modules by their ends, and addresses to look for.
    Modules(Vec<(u8, u8)>, Vec<u8>),
    /// Pieces of memory: a place, how far from the one before, and bytes; and what is read of it: where, and
    /// how much.
    Memory(u8, Vec<(u8, Vec<u8>)>, Vec<(u16, u8)>),
}

/// A line of `/proc/PID/maps`.
#[derive(Clone, Debug, Arbitrary)]
pub struct Line {
    start: u64,
    length: u64,
    is_executable: bool,
    offset: u64,
    device: (u32, u32),
    inode: u64,
    name: Vec<u8>,
}

/// Runs the target on the fuzzer's bytes.
///
/// # Panics
/// Where the library does something that it must not.
pub fn maps(data: &[u8]) {
    match MapsInput::arbitrary(&mut Unstructured::new(data)) {
        Ok(MapsInput::Text(text)) => text_is_parsed(&text),
        Ok(MapsInput::Lines(lines)) => lines_come_back(&lines),
        Ok(MapsInput::Modules(ends, addresses)) => modules(&ends, &addresses),
        Ok(MapsInput::Memory(place, pieces, reads)) => memory(place, &pieces, &reads),
        Err(_) => {}
    }
}

#[cfg(target_os = "linux")]
fn text_is_parsed(text: &[u8]) {
    let found = unwind_mem::process::mappings_of(text);
    assert!(found.len() <= text.split(|byte| *byte == b'\n').count());
    assert!(found.iter().all(|mapping| mapping.range.start < mapping.range.end));
}

#[cfg(target_os = "linux")]
fn lines_come_back(lines: &[Line]) {
    use std::io::Write;
    use std::os::unix::ffi::OsStrExt;

    let mut text = Vec::new();
    let mut expected = Vec::new();
    for line in lines {
        let Some(end) = line.start.checked_add(line.length).filter(|end| *end > line.start) else { continue };
        // A name ends at a zero, and begins behind blanks.
        let name = line.name.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii_start();
        let (major, minor) = line.device;
        let executable = if line.is_executable { 'x' } else { '-' };
        write!(text, "{:08x}-{end:08x} r-{executable}p {:08x} ", line.start, line.offset).expect("room");
        write!(text, "{major:02x}:{minor:02x} {} ", line.inode).expect("room");
        text.extend(b"                   ");
        for byte in name {
            // As the kernel's `seq_path` does, with nothing but a newline to escape.
            if *byte == b'\n' { text.extend(b"\\012") } else { text.push(*byte) }
        }
        text.push(b'\n');
        // A name that holds the escape itself is not told apart: the kernel does not escape backslashes.
        let is_plain = !name.windows(4).any(|window| window == b"\\012");
        expected.push((line.start..end, line.is_executable, line.offset, is_plain.then(|| name.to_vec())));
    }
    let found = unwind_mem::process::mappings_of(&text);
    assert_eq!(found.len(), expected.len());
    for (found, (range, executable, offset, name)) in found.iter().zip(expected) {
        assert_eq!((&found.range, found.executable, found.offset), (&range, executable, offset));
        let found = found.name.as_ref().map(|name| name.as_os_str().as_bytes()).unwrap_or_default();
        assert!(name.is_none_or(|name| name == found));
    }
}

#[cfg(not(target_os = "linux"))]
fn text_is_parsed(_: &[u8]) {}

#[cfg(not(target_os = "linux"))]
fn lines_come_back(_: &[Line]) {}

/// A map is made where the list is sorted, and then finds what a look at each module finds.
fn modules(ends: &[(u8, u8)], addresses: &[u8]) {
    let module = |(start, end): &(u8, u8)| Module {
        start: u64::from(*start) << 56,
        end: u64::from(*end) << 56,
        bias: 0,
        source: (),
    };
    let list: Vec<Module<()>> = ends.iter().map(module).collect();
    let is_sound = list.iter().all(|module| module.start < module.end)
        && list.is_sorted_by(|before, module| before.end <= module.start);
    let map = ModuleMap::new(&X86_64, &list);
    assert_eq!(map.is_ok(), is_sound);
    let Ok(map) = map else { return };
    for address in addresses {
        for address in [u64::from(*address) << 56, (u64::from(*address) << 56).wrapping_sub(1)] {
            let expected = list.iter().find(|module| (module.start..module.end).contains(&address));
            assert_eq!(map.find(address).map(|module| module.start), expected.map(|module| module.start));
        }
    }
}

/// Every reader reads what is there, and nothing else.
fn memory(place: u8, pieces: &[(u8, Vec<u8>)], reads: &[(u16, u8)]) {
    let base = match place % 4 {
        0 => 0,
        1 => 0x7fff_ffff_f000,
        2 => u64::MAX - 0xfff,
        _ => u64::MAX - 0x3_ffff,
    };
    let mut regions = Vec::new();
    let mut truth = BTreeMap::new();
    let mut next = Some(base);
    for (gap, bytes) in pieces.iter().take(32) {
        let Some(address) = next.and_then(|next| next.checked_add((*gap).into())) else { break };
        let Some(last) = address.checked_add((bytes.len() as u64).saturating_sub(1)) else { break };
        next = last.checked_add(1);
        if !bytes.is_empty() {
            regions.push(Region { address, bytes });
            truth.extend((address..=last).zip(bytes.iter().copied()));
        }
    }
    let map = RegionMap::new(&regions).expect("sorted, without overlap");
    let mut pages = vec![Page::<64>::EMPTY; 3];
    let mut cached = PageCache::new(map.clone(), &mut pages);
    let mut read_by_pages = |address, into: &mut [u8]| cached.read(address, into);
    for (offset, length) in reads {
        let address = base.wrapping_add(u64::from(*offset));
        let mut found = vec![0; usize::from(*length)];
        let at = |offset: usize| address.checked_add(offset as u64).and_then(|at| truth.get(&at).copied());
        let expected: Option<Vec<u8>> = (0..found.len()).map(at).collect();
        let first = regions.first().copied().unwrap_or(Region { address: base, bytes: &[] });
        let lower = RegionMap::new(regions.get(1..).unwrap_or_default()).expect("a part of a sorted list");
        let mut layers = Layers::new(StackSnapshot::new(first.address, first.bytes), lower);
        let results: [(&str, Result<(), MemoryError>, Vec<u8>); 3] = [
            ("regions", map.clone().read(address, &mut found), found.clone()),
            ("layers", layers.read(address, &mut found), found.clone()),
            ("pages", read_by_pages(address, &mut found), found.clone()),
        ];
        for (name, result, found) in results {
            match &expected {
                Some(expected) => assert_eq!((result, &found), (Ok(()), expected), "{name} at {address:#x}"),
                None => assert!(result.is_err(), "{name} at {address:#x}"),
            }
        }
        let mut slice = SliceReader::new(first.address, first.bytes);
        if slice.read(address, &mut found).is_ok() {
            assert_eq!(Some(found), expected, "a slice at {address:#x}");
        }
    }
}
