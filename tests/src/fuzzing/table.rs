//! The target `table`: any bytes as a compiled table; functions and rows → table → rows.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use unwind_arch_x86_64::X86_64;
use unwind_core::table::{Table, TableRoom, TableRule, TableSlot, TableSource, TableWriteError, TableWriter};
use unwind_core::{
    FrameSource, LookupError, MemoryError, Pc, Query, Trust, UnwindUserFrame, UnwindUserType, from_fn,
};

/// What the fuzzer's bytes become.
#[derive(Clone, Debug, Arbitrary)]
enum Input {
    /// A table as it comes, and addresses to look up.
    Bytes(Vec<u8>, Vec<u64>),
    /// A table with a sound header: base, sizes, what follows.
    Header { base: u64, pages: u8, rules: u8, wide: bool, rows: u8, body: Vec<u8> },
    /// Functions to write, and room for this many rules.
    Functions(Vec<FunctionInput>, u8),
}

#[derive(Clone, Debug, Arbitrary)]
struct FunctionInput {
    gap: u16,
    length: u16,
    is_left: bool,
    rows: Vec<(u8, RowInput)>,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum RowInput {
    NotCovered,
    AskOriginal,
    Frame { frame: UnwindUserFrame, trust: Trust, is_block: bool },
}

/// Where code begins.
const FIRST: u64 = 0x40_0080;

/// Runs the target on the fuzzer's bytes.
///
/// # Panics
/// Where the library does something that it must not.
pub fn table(data: &[u8]) {
    let Ok(input) = Input::arbitrary(&mut Unstructured::new(data)) else { return };
    match input {
        Input::Bytes(bytes, pcs) => look_up(&bytes, &pcs),
        Input::Header { base, pages, rules, wide, rows, body } => {
            let mut bytes = b"UWT\x01".to_vec();
            let width = if wide { 2u32 } else { 1 };
            bytes.extend(u32::from(rows).to_le_bytes());
            bytes.extend((base & !0xff).to_le_bytes());
            for word in [pages.into(), rules.into(), width, 0] {
                bytes.extend(u32::to_le_bytes(word));
            }
            bytes.extend(body);
            // What is missing is zero.
            bytes.resize(bytes.len().max(8000), 0);
            let pcs: Vec<u64> = (0..0x1_0100).step_by(97).map(|at| (base & !0xff).wrapping_add(at)).collect();
            look_up(&bytes, &pcs);
        }
        Input::Functions(functions, rules) => round_trip(&functions, usize::from(rules) + 2),
    }
}

/// Whatever the bytes are, a lookup ends, and says what is there or that the table is damaged.
fn look_up(bytes: &[u8], pcs: &[u64]) {
    let Ok(table) = Table::parse(bytes) else { return };
    assert!(table.rows() + table.rules() <= bytes.len());
    let source = TableSource { table, original: () };
    let mut memory = from_fn(|address, _: &mut [u8]| Err(MemoryError::Unreadable { address }));
    for pc in pcs {
        for query in [
            Query::new(Pc::Exact(*pc)),
            Query::new(Pc::Return(*pc)),
            Query { bias: 1, ..Query::new(Pc::Exact(*pc)) },
        ] {
            match source.lookup(&X86_64, UnwindUserType::Table, &query, &mut memory) {
                Ok(_) | Err(LookupError::Broken(_)) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}

fn round_trip(functions: &[FunctionInput], rules: usize) {
    let mut truth = BTreeMap::new();
    let mut written = Vec::new();
    let mut next = FIRST;
    for function in functions.iter().take(24) {
        let start = next + u64::from(function.gap % 600);
        let length = u64::from(function.length % 900);
        next = start + length;
        let mut at = 0;
        let rows: Vec<(u64, TableRule)> = function
            .rows
            .iter()
            .map(|(step, row)| {
                at += u64::from(*step);
                (at, row.rule())
            })
            .collect();
        if function.is_left {
            truth.extend((start..next).map(|address| (address, TableRule::AskOriginal)));
        } else {
            expect(&mut truth, start, length, &rows);
        }
        written.push((start, length, function.is_left, rows));
    }
    let run = |bytes: &mut [u8]| {
        let mut slots = vec![TableSlot::default(); rules];
        let mut writer = TableWriter::new(FIRST..next, TableRoom { bytes, rules: &mut slots })?;
        for (start, length, is_left, rows) in &written {
            if *is_left {
                writer.ask_original(*start..*start + *length)?;
            } else {
                writer.function(*start, *length, rows.iter().copied())?;
            }
        }
        writer.finish().map(<[u8]>::len)
    };
    let needed = match run(&mut []) {
        Err(TableWriteError::NoRoom { needed }) => needed,
        Err(TableWriteError::NoRules) => return,
        other => panic!("{other:?}"),
    };
    let mut bytes = vec![0xa5; needed];
    let len = run(&mut bytes).expect("there is room");
    let table = Table::parse(&bytes[..len]).expect("a table");
    for address in FIRST - 200..next + 600 {
        let expected = truth.get(&address).copied().unwrap_or(TableRule::NotCovered);
        match table.find(address) {
            Some(TableRule::AskOriginal) if matches!(expected, TableRule::Frame { .. }) => {
                assert!(table.rules() >= rules * 3 / 4, "there was room for the rule at {address:#x}");
            }
            found => assert_eq!(found, Some(expected), "{address:#x}"),
        }
    }
}

/// What the rows of a function say, address by address.
fn expect(truth: &mut BTreeMap<u64, TableRule>, start: u64, length: u64, rows: &[(u64, TableRule)]) {
    let mut kept: Vec<(u64, TableRule)> = Vec::new();
    for (at, rule) in rows {
        if *at < length && kept.last().is_none_or(|(last, _)| at > last) {
            kept.push((*at, *rule));
        }
    }
    for (place, (at, rule)) in kept.iter().enumerate() {
        let end = kept.get(place + 1).map_or(length, |(next, _)| *next);
        let rule = match *rule {
            TableRule::Frame { frame, trust, is_block, .. } => {
                TableRule::Frame { frame, trust, is_block, is_last: place + 1 == kept.len() }
            }
            rule => rule,
        };
        truth.extend((*at..end).map(|at| (start + at, rule)));
    }
}

impl RowInput {
    fn rule(self) -> TableRule {
        match self {
            RowInput::NotCovered => TableRule::NotCovered,
            RowInput::AskOriginal => TableRule::AskOriginal,
            RowInput::Frame { frame, trust, is_block } => {
                TableRule::Frame { frame, trust, is_block, is_last: false }
            }
        }
    }
}
