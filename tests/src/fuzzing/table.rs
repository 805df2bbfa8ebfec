//! The target `table`: any bytes as a compiled table; functions and rows → table → rows, sound and damaged.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use unwind_arch_x86_64::X86_64;
use unwind_core::table::{
    Holds, Table, TableRoom, TableRule, TableSlot, TableSource, TableWriteError, TableWriter,
};
use unwind_core::{
    Found, FrameSource, LookupError, MemoryError, Pc, Query, Rule, Trust, UnwindUserFrame, UnwindUserType,
    UnwindUserTypes, from_fn,
};

/// What the fuzzer's bytes become.
#[derive(Clone, Debug, Arbitrary)]
enum Input {
    /// A table as it comes, and addresses to look up.
    Bytes(Vec<u8>, Vec<u64>),
    /// A table with a sound header: base, sizes, what follows.
    Header { base: u64, pages: u8, rules: u16, slots: u16, body: Vec<u8> },
    /// Functions to write, and room for this many rules.
    Functions(Vec<FunctionInput>, u8),
    /// The same, and bytes to change in the table: where, and to what.
    Damaged(Vec<FunctionInput>, Vec<(u16, u8)>),
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
    Frame {
        frame: UnwindUserFrame,
        trust: Trust,
        holds: u8,
    },
    /// One of many.
    Plain(u16),
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
        Input::Header { base, pages, rules, slots, body } => {
            let mut bytes = b"UWT\x02".to_vec();
            bytes.extend(u32::from(slots).to_le_bytes());
            bytes.extend((base & !0xff).to_le_bytes());
            for word in [u32::from(pages), u32::from(rules), 0, 0] {
                bytes.extend(u32::to_le_bytes(word));
            }
            bytes.extend(body);
            // What is missing is zero.
            bytes.resize(bytes.len().max(8000), 0);
            let pcs: Vec<u64> = (0..0x1_0100).step_by(97).map(|at| (base & !0xff).wrapping_add(at)).collect();
            look_up(&bytes, &pcs);
        }
        Input::Functions(functions, rules) => round_trip(&functions, usize::from(rules)),
        Input::Damaged(functions, changes) => {
            let Written { mut bytes, end, .. } = write(&functions, 64);
            for (at, value) in changes {
                let at = usize::from(at) % bytes.len();
                bytes[at] = value;
            }
            look_up(&bytes, &(FIRST - 200..end + 600).step_by(7).collect::<Vec<u64>>());
        }
    }
}

/// Whatever the bytes are, a lookup ends, and says what is there or that the table is damaged; what is at hand is
/// the same; and so does going through the rows.
fn look_up(bytes: &[u8], pcs: &[u64]) {
    let Ok(table) = Table::parse(bytes) else { return };
    assert!(table.slots() as usize * 2 + table.rules() * 17 <= bytes.len());
    let source = TableSource { table, original: () };
    let mut memory = from_fn(|address, _: &mut [u8]| Err(MemoryError::Unreadable { address }));
    for pc in pcs {
        assert_eq!(table.find_with_end(*pc).map(|(rule, _)| rule), table.find(*pc));
        for query in [
            Query::new(Pc::Exact(*pc)),
            Query::new(Pc::Return(*pc)),
            Query { bias: 1, ..Query::new(Pc::Exact(*pc)) },
        ] {
            let found = source.lookup(&X86_64, UnwindUserType::Table, &query, &mut memory);
            if let Some(plain) = source.peek(&X86_64, UnwindUserTypes::only(UnwindUserType::Table), &query) {
                let at_hand = Found::new(Rule::Frame(plain.frame()), plain.trust());
                assert_eq!(found, Ok(Some(at_hand)), "at {pc:#x}");
            }
            assert!(matches!(found, Ok(_) | Err(LookupError::Broken(_))), "{found:?}");
        }
    }
    let mut last = None;
    for (range, _, _) in table.ranges() {
        assert!(range.start < range.end && last.is_none_or(|last| last == range.start), "{range:x?}");
        last = Some(range.end);
    }
}

/// A table, and what it has to say.
struct Written {
    bytes: Vec<u8>,
    /// Address → its rule, and whether it is the last one of its function. What is not here is not covered.
    truth: BTreeMap<u64, (TableRule, bool)>,
    end: u64,
}

fn write(functions: &[FunctionInput], rules: usize) -> Written {
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
            truth.extend((start..next).map(|address| (address, (TableRule::AskOriginal, false))));
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
        other => panic!("{other:?}"),
    };
    let mut bytes = vec![0xa5; needed];
    assert_eq!(run(&mut bytes), Ok(needed));
    Written { bytes, truth, end: next }
}

fn round_trip(functions: &[FunctionInput], rules: usize) {
    let Written { bytes, truth, end } = write(functions, rules);
    let table = Table::parse(&bytes).expect("a table");
    let truth = |address: u64| {
        let is_inside = (FIRST..end).contains(&address);
        let default = if is_inside { TableRule::NotCovered } else { TableRule::AskOriginal };
        truth.get(&address).copied().unwrap_or((default, false))
    };
    let same = |address: u64, found: (TableRule, bool)| match (found, truth(address)) {
        ((TableRule::AskOriginal, _), (TableRule::Frame { .. }, _)) => {
            assert!(table.rules() >= rules * 3 / 4, "there was room for the rule at {address:#x}");
        }
        // Which row is the last one matters where there is a rule.
        ((found, is_end), (expected, is_last)) => {
            assert_eq!(found, expected, "{address:#x}");
            assert!(is_end == is_last || !matches!(found, TableRule::Frame { .. }), "{address:#x}");
        }
    };
    for address in FIRST - 200..end + 600 {
        let found = table.find_with_end(address).expect("a sound table");
        assert_eq!(table.find(address), Some(found.0));
        same(address, found);
    }
    let mut next = FIRST & !0xff;
    for (range, rule, ends) in table.ranges() {
        assert_eq!(range.start, next);
        next = range.end;
        for address in range.clone() {
            same(address, (rule, ends && address + 1 == range.end));
        }
    }
    assert!(next > end);
}

/// What the rows of a function say, address by address.
fn expect(truth: &mut BTreeMap<u64, (TableRule, bool)>, start: u64, length: u64, rows: &[(u64, TableRule)]) {
    let mut kept: Vec<(u64, TableRule)> = Vec::new();
    for (at, rule) in rows {
        if *at < length && kept.last().is_none_or(|(last, _)| at > last) {
            kept.push((*at, *rule));
        }
    }
    for (place, (at, rule)) in kept.iter().enumerate() {
        let (end, follows) = kept.get(place + 1).map_or((length, None), |(next, rule)| (*next, Some(*rule)));
        // A function ends where nothing of it follows, though it go on further up.
        let is_last = follows.is_none() || follows == Some(TableRule::NotCovered);
        truth.extend((*at..end).map(|at| (start + at, (*rule, is_last && at + 1 == end))));
    }
}

impl RowInput {
    fn rule(self) -> TableRule {
        match self {
            RowInput::NotCovered => TableRule::NotCovered,
            RowInput::AskOriginal => TableRule::AskOriginal,
            RowInput::Frame { frame, trust, holds } => {
                let all = [Holds::Everywhere, Holds::AtExact, Holds::InBlocks, Holds::ForCalls];
                TableRule::Frame { frame, trust, holds: all[usize::from(holds % 4)] }
            }
            RowInput::Plain(offset) => {
                TableRule::exact(UnwindUserFrame::plain(false, i32::from(offset), -8, None))
            }
        }
    }
}
