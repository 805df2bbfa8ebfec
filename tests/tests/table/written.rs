//! Tables written by hand, and damaged ones.

use std::ops::Range;

use unwind_arch_x86_64::X86_64;
use unwind_core::UnwindUserFrame;
use unwind_core::table::{
    Table, TableError, TableRoom, TableRule, TableSlot, TableSource, TableWriteError, TableWriter,
};
use unwind_tests::synthetic::chaos::mix;

use super::compare::does_no_harm;

fn rule(cfa_off: i32) -> TableRule {
    TableRule::exact(UnwindUserFrame::plain(false, cfa_off, -8, None))
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
            rows.push((at, rule(8 * (mix(start + at) % 400) as i32)));
            at += 1 + mix(start ^ at) % 40;
        }
        for (place, (at, row)) in rows.iter().enumerate() {
            let next = rows.get(place + 1).map(|(next, _)| *next);
            let end = next.unwrap_or(length);
            truth.extend((*at..end).map(|at| (start + at, (*row, next.is_none() && at + 1 == end))));
        }
        functions.push((start, length, rows));
        next = start + length;
    }
    let text = 0x1_0f80..next + 0x345;
    for rules in [4096, 700, 60, 8, 0] {
        let bytes = write(text.clone(), &functions, rules);
        let table = Table::parse(&bytes).expect("a table");
        let mut asked = 0;
        for address in (0x1_0000..next + 0x1000).chain([0, u64::MAX, 0x1_0f80 + (1 << 40)]) {
            let gap = if text.contains(&address) { TableRule::NotCovered } else { TableRule::AskOriginal };
            let (expected, is_last) = truth.get(&address).copied().unwrap_or((gap, false));
            match table.find_with_end(address) {
                Some((TableRule::AskOriginal, _)) if expected != gap => asked += 1,
                Some((found, is_end)) => {
                    assert_eq!(found, expected, "{address:#x}");
                    assert!(is_end == is_last || expected == gap, "{address:#x}");
                }
                None => panic!("a sound table"),
            }
        }
        // Only where rules have no room.
        assert_eq!(asked == 0, rules >= 700, "{rules}: {asked}");
        assert!(asked == 0 || table.rules() == rules * 3 / 4 + 2, "{rules}: {}", table.rules());
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
    let room = TableRoom { bytes: &mut bytes, rules: &mut slots };
    let mut writer = TableWriter::new(0x1000..0x2000, room).expect("room");
    writer.function(0x1100, 0x10, [(0, rule(8))]).expect("the first");
    for start in [0x1100, 0x110f, 0x1000] {
        assert_eq!(writer.function(start, 0x10, []), Err(TableWriteError::NotSorted { start }));
    }
    writer.ask_original(0x1180..0x1190).expect("in order");
    // Outside, or nothing.
    for (start, length) in [(0x900, 0x10), (0x1200, 0), (0x1ff8, 0x10), (0x3000, 1), (u64::MAX, 2)] {
        writer.function(start, length, [(0, rule(8))]).expect("left to the original");
    }
    let table = Table::parse(writer.finish().expect("room")).expect("a table");
    assert_eq!(table.find_with_end(0x110f), Some((rule(8), true)));
    assert_eq!(table.find(0x1ff7), Some(TableRule::NotCovered));
    assert_eq!(table.find(0x1110), Some(TableRule::NotCovered));
    assert_eq!(table.find(0x1188), Some(TableRule::AskOriginal));
    // Where its end is not in the table, a function does not end there.
    assert_eq!(table.find_with_end(0x1fff), Some((rule(8), false)));
}

#[test]
fn damaged_tables_do_no_harm() {
    let rows = |count: u64| (0..count).map(|at| (at * 3, rule(8 * at as i32))).collect::<Vec<_>>();
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
    for version in [0, 1, 3] {
        assert_eq!(with(3, version), Err(TableError::UnknownVersion { version }));
    }
    for (at, value) in [(8, 1), (20, 0), (20, 1), (23, 1), (24, 1), (31, 1)] {
        assert_eq!(with(at, value), Err(TableError::BadHeader), "{at}");
    }
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
            does_no_harm(&X86_64, &source, 0xff0 + mix(seed ^ step) % 0x500);
        }
        assert!(table.ranges().count() <= 0x600);
    }
}

#[test]
fn whatever_is_written_is_read_and_whatever_is_read_ends() {
    for seed in 0..4_000u64 {
        let random = (0..1 + mix(seed) % 900).map(|at| mix(seed << 20 | at));
        // Where a list goes on, its flag is odd.
        let bytes = random.map(|random| {
            let odd = u8::from(!random.is_multiple_of(16));
            (random >> 32) as u8 | if seed.is_multiple_of(4) { 0 } else { odd }
        });
        unwind_tests::fuzzing::table(&bytes.collect::<Vec<u8>>());
    }
}
