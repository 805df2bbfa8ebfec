//! Compiled tables against what they were made of: for the libraries at hand, and for files of one's own
//! (`UNWIND_ROWS=FILE[:FILE…]`), the table says at every row of every function, at both its ends, and
//! between functions, what call frame information says. Tables that are damaged do no harm.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSegment};
use unwind_arch::AnyArch;
use unwind_core::dwarf::{DwarfIndex, DwarfIndexEntry, DwarfSource, Flavor};
use unwind_core::table::{
    Table, TableCompiler, TableError, TableRoom, TableRule, TableSlot, TableSource, TableWriteError,
    TableWriter,
};
use unwind_core::{
    FrameSource, LookupError, MemoryError, MemoryReader, Pc, Query, Trust, UnwindUserFrame, UnwindUserType,
    from_fn,
};
use unwind_tests::sframe::FrameSections;
use unwind_tests::synthetic::chaos::mix;

#[test]
fn tables_say_what_they_were_made_of() {
    let mut files: Vec<PathBuf> = match std::env::var_os("UNWIND_ROWS") {
        Some(list) => std::env::split_paths(&list).collect(),
        None => system_libraries(),
    };
    files.push(std::env::current_exe().expect("this program's path"));
    let mut functions = 0;
    for path in files {
        match std::fs::read(&path) {
            Ok(data) => functions += compare_file(&path, &data),
            Err(error) => println!("SKIPPED {}: {error}", path.display()),
        }
    }
    assert!(functions > 1_000, "no library was found");
}

fn system_libraries() -> Vec<PathBuf> {
    let names = ["libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "libcrypto.so.3"];
    let loaders = ["ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"];
    let folders = ["/lib/x86_64-linux-gnu", "/lib64", "/lib/aarch64-linux-gnu", "/usr/aarch64-linux-gnu/lib"];
    let mut found = BTreeSet::new();
    for folder in folders.map(Path::new) {
        let names = names.iter().chain(&loaders);
        found.extend(names.filter_map(|name| std::fs::canonicalize(folder.join(name)).ok()));
    }
    found.into_iter().collect()
}

/// Everything that compiling takes.
struct Compiled {
    bytes: Vec<u8>,
    arch: AnyArch,
    text: Range<u64>,
}

fn arch_of(data: &[u8]) -> AnyArch {
    let machine = u16::from_le_bytes([data[18], data[19]]);
    let machine = if data[5] == 2 { machine.swap_bytes() } else { machine };
    AnyArch::from_elf(machine, data[4], data[5]).expect("a supported machine")
}

fn compile(data: &[u8], sections: &FrameSections, flavor: Flavor, step: usize) -> Compiled {
    let file = object::File::parse(data).expect("an ELF file");
    let arch = arch_of(data);
    let executable = |flags| matches!(flags, object::SegmentFlags::Elf { p_flags, .. } if p_flags.0 & 1 != 0);
    let segments = file.segments().filter(|segment| executable(segment.flags()));
    let text = segments.fold(Range { start: u64::MAX, end: 0 }, |text, segment| {
        text.start.min(segment.address())..text.end.max(segment.address() + segment.size())
    });
    let borrowed = sections.borrow(flavor);
    let room = DwarfIndex::room(&arch, &borrowed, flavor).expect("a section");
    let mut entries = vec![DwarfIndexEntry::default(); room];
    let index = DwarfIndex::build(&arch, &borrowed, flavor, &mut entries).expect("room was asked for");
    let source = DwarfSource::new(borrowed);
    let run = |bytes: &mut [u8]| {
        let mut rules = vec![TableSlot::default(); 4096];
        let room = TableRoom { bytes, rules: &mut rules };
        let mut compiler =
            TableCompiler::new(arch, source, flavor, index, text.clone(), room).expect("room for rules");
        loop {
            let progress = compiler.advance(step).expect("sorted");
            if progress.done == progress.total {
                break;
            }
        }
        compiler.finish().map(<[u8]>::len)
    };
    let Err(TableWriteError::NoRoom { needed }) = run(&mut []) else { panic!("there was no room") };
    let mut bytes = vec![0; needed];
    assert_eq!(run(&mut bytes[..needed - 1]), Err(TableWriteError::NoRoom { needed }));
    let len = run(&mut bytes).expect("there is room");
    bytes.truncate(len);
    Compiled { bytes, arch, text }
}

fn no_memory() -> impl MemoryReader {
    from_fn(|address, _: &mut [u8]| Err(MemoryError::Unreadable { address }))
}

fn compare_file(path: &Path, data: &[u8]) -> usize {
    let file = object::File::parse(data).expect("an ELF file");
    let sections = FrameSections::of(&file);
    let mut functions = 0;
    for flavor in [Flavor::EhFrame, Flavor::DebugFrame] {
        let borrowed = sections.borrow(flavor);
        let size = match flavor {
            Flavor::EhFrame => borrowed
                .eh_frame
                .map(|eh| eh.data.len() + borrowed.eh_frame_hdr.map_or(0, |hdr| hdr.data.len())),
            Flavor::DebugFrame => borrowed.debug_frame.map(|section| section.data.len()),
        };
        let Some(size) = size.filter(|size| *size > 0) else { continue };
        let Compiled { bytes, arch, text } = compile(data, &sections, flavor, usize::MAX);
        assert!(compile(data, &sections, flavor, 7).bytes == bytes, "in steps as in one");
        let table = Table::parse(&bytes).expect("a table");
        let source = DwarfSource::new(borrowed);
        let mut counts = [0usize; 3];
        let mut addresses = BTreeSet::from([text.start, text.end - 1, text.end, 0, u64::MAX]);
        for function in source.functions(&arch, flavor).filter_map(Result::ok) {
            functions += 1;
            for row in function.rows() {
                addresses.extend([row.start, row.start + row.length - 1, row.start + row.length]);
            }
            addresses.insert(function.start().wrapping_sub(1));
        }
        for address in addresses {
            for bias in [0, 0x7f00_0000_0000, 0x10] {
                let avma = address.wrapping_add(bias);
                for pc in [Pc::Exact(avma), Pc::Return(avma.wrapping_add(1))] {
                    counts[compare(arch, table, source, Query { bias, ..Query::new(pc) })] += 1;
                }
            }
        }
        println!(
            "{} {flavor:?}: {} rows, {} rules, {} of {size} bytes ({} %); lookups: {} by rules, {} left, {} not covered",
            path.display(),
            table.rows(),
            table.rules(),
            bytes.len(),
            bytes.len() * 100 / size,
            counts[0],
            counts[1],
            counts[2],
        );
        assert!(counts[0] > 100 * counts[1], "little is left to the original");
    }
    functions
}

/// Compares one lookup: with a rule (0), left to the original (1), or not covered (2).
fn compare(arch: AnyArch, table: Table<'_>, source: DwarfSource<'_>, query: Query) -> usize {
    let memory = &mut no_memory();
    let original = source.lookup(&arch, UnwindUserType::Dwarf, &query, memory);
    let compiled = TableSource { table, original: source };
    match compiled.lookup(&arch, UnwindUserType::Table, &query, memory) {
        Ok(Some(found)) => {
            assert_eq!(original, Ok(Some(found)), "{query:x?}");
            0
        }
        Ok(None) => {
            assert_eq!(compiled.lookup(&arch, UnwindUserType::Dwarf, &query, memory), original);
            // Nothing but the original can say it, or it says nothing.
            let svma = query.pc.lookup_address().wrapping_sub(query.bias);
            match table.find(svma) {
                Some(TableRule::NotCovered) => {
                    assert!(matches!(original, Ok(None)), "{query:x?}: {original:?} is not in the table");
                    2
                }
                _ => 1,
            }
        }
        Err(error) => panic!("{query:x?}: {error:?}"),
    }
}

fn rule(cfa_off: i32, is_last: bool) -> TableRule {
    let frame = UnwindUserFrame::plain(false, cfa_off, -8, None);
    TableRule::Frame { frame, trust: Trust::Exact, is_last, is_block: false }
}

/// Start, length, rows.
type Function = (u64, u64, Vec<(u64, TableRule)>);

fn write(text: Range<u64>, functions: &[Function], rules: usize) -> Vec<u8> {
    let run = |bytes: &mut [u8]| {
        let mut slots = vec![TableSlot::default(); rules];
        let mut writer = TableWriter::new(text.clone(), TableRoom { bytes, rules: &mut slots })?;
        for (start, length, rows) in functions {
            writer.function(*start, *length, rows.iter().copied())?;
        }
        writer.finish().map(<[u8]>::len)
    };
    let Err(TableWriteError::NoRoom { needed }) = run(&mut []) else { panic!("there was no room") };
    let mut bytes = vec![0; needed];
    let len = run(&mut bytes).expect("there is room");
    bytes.truncate(len);
    bytes
}

#[test]
fn every_address_has_its_rule() {
    // Functions with and without gaps between them, over several pages, some without rows at their
    // beginning.
    let mut functions = Vec::new();
    let mut truth = std::collections::BTreeMap::new();
    let mut next = 0x1_0ff0u64;
    for number in 0..200u64 {
        let start = next + [0, 0, 1, 15, 700][(mix(number) % 5) as usize];
        let length = 1 + mix(number ^ 0x55) % 300;
        let mut rows = Vec::new();
        let mut at = if number % 17 == 3 { length / 3 } else { 0 };
        while at < length {
            rows.push((at, rule(8 * (mix(start + at) % 400) as i32, false)));
            at += 1 + mix(start ^ at) % 40;
        }
        for (place, (at, row)) in rows.iter().enumerate() {
            let end = rows.get(place + 1).map_or(length, |(next, _)| *next);
            let TableRule::Frame { frame, trust, is_block, .. } = *row else { panic!("a frame") };
            let row = TableRule::Frame { frame, trust, is_last: place + 1 == rows.len(), is_block };
            truth.extend((*at..end).map(|at| (start + at, row)));
        }
        functions.push((start, length, rows));
        next = start + length;
    }
    for rules in [4096, 700, 60, 8] {
        let bytes = write(0x1_0f80..next + 0x345, &functions, rules);
        let table = Table::parse(&bytes).expect("a table");
        let mut asked = 0;
        for address in (0x1_0000..next + 0x1000).chain([0, u64::MAX, 0x1_0f80 + (1 << 40)]) {
            let expected = truth.get(&address).copied().unwrap_or(TableRule::NotCovered);
            match table.find(address) {
                Some(TableRule::AskOriginal) if expected != TableRule::NotCovered => asked += 1,
                found => assert_eq!(found, Some(expected), "{address:#x}"),
            }
        }
        // Only where rules have no room.
        assert_eq!(asked == 0, rules == 4096 || table.rules() < rules * 3 / 4, "{rules}: {asked}");
    }
}

#[test]
fn what_cannot_be_written_is_refused() {
    let (mut bytes, mut slots) = ([0; 4096], [TableSlot::default(); 64]);
    let mut writer =
        |text| TableWriter::new(text, TableRoom { bytes: &mut bytes, rules: &mut slots }).map(|_| ());
    assert_eq!(writer(0..(1 << 40)), Err(TableWriteError::TooLarge));
    assert_eq!(writer(0..u64::MAX), Err(TableWriteError::TooLarge));
    assert_eq!(writer(Range { start: 0x100, end: 0 }), Ok(()));
    for few in 0..3 {
        let room = TableRoom { bytes: &mut [], rules: &mut slots[..few] };
        let made = TableWriter::new(0..0x100, room).map(|_| ());
        assert_eq!(made, if few < 2 { Err(TableWriteError::NoRules) } else { Ok(()) }, "{few}");
    }
    let room = TableRoom { bytes: &mut bytes, rules: &mut slots };
    let mut writer = TableWriter::new(0x1000..0x2000, room).expect("room");
    writer.function(0x1100, 0x10, [(0, rule(8, false))]).expect("the first");
    for start in [0x1100, 0x110f, 0x1000] {
        assert_eq!(writer.function(start, 0x10, []), Err(TableWriteError::NotSorted { start }));
    }
    // Outside, or nothing.
    for (start, length) in [(0x900, 0x10), (0x1ff8, 0x10), (0x3000, 1), (0x1200, 0), (u64::MAX, 2)] {
        writer.function(start, length, [(0, rule(8, false))]).expect("left to the original");
    }
    writer.ask_original(0x1180..0x1190).expect("in order");
    let table = Table::parse(writer.finish().expect("room")).expect("a table");
    assert_eq!(table.find(0x110f), Some(rule(8, true)));
    assert_eq!(table.find(0x1110), Some(TableRule::NotCovered));
    assert_eq!(table.find(0x1188), Some(TableRule::AskOriginal));
    assert_eq!(table.find(0x1ff8), Some(TableRule::NotCovered));
}

#[test]
fn damaged_tables_do_no_harm() {
    let rows = |count: u64| (0..count).map(|at| (at * 3, rule(8 * at as i32, false))).collect::<Vec<_>>();
    let functions = [(0x1000, 0x280, rows(200)), (0x1300, 0x80, rows(9))];
    let sound = write(0x1000..0x1400, &functions, 512);
    for len in 0..sound.len() {
        let error = Table::parse(&sound[..len]).map(|_| ());
        let needed = if len < 32 { 32 } else { sound.len() as u64 };
        assert_eq!(error, Err(TableError::TooShort { needed, len }));
    }
    let with = |at: usize, value: u8| {
        let mut bytes = sound.clone();
        bytes[at] = value;
        Table::parse(&bytes).map(|_| ())
    };
    assert_eq!(with(0, b'u'), Err(TableError::BadMagic));
    assert_eq!(with(3, 2), Err(TableError::UnknownVersion { version: 2 }));
    for (at, value) in [(8, 1), (24, 3), (24, 0), (28, 1), (31, 1), (23, 1)] {
        assert_eq!(with(at, value), Err(TableError::BadHeader), "{at}");
    }
    let arch = arch_of(&std::fs::read(std::env::current_exe().expect("a path")).expect("this program"));
    for seed in 0..20_000u64 {
        let mut bytes = sound.clone();
        for turn in 0..1 + mix(seed) % 4 {
            let random = mix(seed << 8 | turn);
            let at = (random >> 8) as usize % bytes.len();
            bytes[at] = random as u8;
        }
        let Ok(table) = Table::parse(&bytes) else { continue };
        let source = TableSource { table, original: () };
        for step in 0..40 {
            let address = 0xff0 + mix(seed ^ step) % 0x500;
            for pc in [Pc::Exact(address), Pc::Return(address)] {
                match source.lookup(&arch, UnwindUserType::Table, &Query::new(pc), &mut no_memory()) {
                    Ok(_) | Err(LookupError::Broken(_)) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
    }
}
