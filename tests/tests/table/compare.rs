//! One table and its source, at one address after another.

use std::collections::BTreeSet;
use std::ops::Range;

use unwind_core::table::{
    LazyPage, LazyRoom, LazyRow, LazyRule, Progress, Table, TableCompileError, TableCompiler, TableOrigin,
    TableRoom, TableRule, TableSlot, TableSource, TableWriteError, compile_to_vec,
};
use unwind_core::{
    Arch, Found, FrameSource, LookupError, MemoryError, MemoryReader, Pc, Query, Rule, UnwindUserType,
    from_fn,
};

pub(crate) fn no_memory() -> impl MemoryReader {
    from_fn(|address, _: &mut [u8]| Err(MemoryError::Unreadable { address }))
}

/// How many lookups were answered by rules, left to the original, and not covered; and how many were left
/// although the original has a rule for all pcs of the address.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) rules: usize,
    pub(crate) left: usize,
    pub(crate) not_covered: usize,
    pub(crate) lost: usize,
}

/// Compiles in every way; the tables are the same.
pub(crate) fn compile<A: Arch, O: TableOrigin<A>>(arch: A, origin: O, text: Range<u64>) -> Vec<u8> {
    let mut last: Option<Progress> = None;
    let bytes =
        compile_to_vec(arch, origin, text.clone(), |progress| last = Some(progress)).expect("in order");
    let last = last.expect("told at the end at the latest");
    assert_eq!(last.done, last.total);
    let run = |bytes: &mut [u8]| {
        let mut rules = vec![TableSlot::default(); 4096];
        let room = TableRoom { bytes, rules: &mut rules };
        let mut compiler = TableCompiler::new(arch, origin, text.clone(), room).expect("in order");
        while compiler.advance(7).is_ok_and(|progress| progress.done < progress.total) {}
        compiler.finish().map(<[u8]>::len)
    };
    let no_room = TableCompileError::Write(TableWriteError::NoRoom { needed: bytes.len() });
    assert_eq!(run(&mut []), Err(no_room));
    let mut stepped = vec![0xa5; bytes.len()];
    assert_eq!(run(&mut stepped[..bytes.len() - 1]), Err(no_room));
    assert_eq!(run(&mut stepped), Ok(bytes.len()));
    assert!(stepped == bytes, "in steps as in one");
    bytes
}

/// Compares the table of a source with it, whose kind this is, at both kinds of pcs and with several load
/// biases, at these addresses and at the ends of the table.
pub(crate) fn compare<A: Arch, O: TableOrigin<A>>(
    arch: A,
    origin: O,
    kind: UnwindUserType,
    text: Range<u64>,
    mut addresses: BTreeSet<u64>,
) -> (Vec<u8>, Counts) {
    let bytes = compile(arch, origin, text.clone());
    let table = Table::parse(&bytes).expect("a table");
    let compiled = TableSource { table, original: origin };
    let (mut pages, mut rows, mut rules) = lazy_room(2 * addresses.len() + 64, 4096);
    let room = LazyRoom::new(&mut pages, &mut rows, &mut rules);
    let lazy = room.table(origin, text.clone());
    let (mut counts, mut of_lazy) = (Counts::default(), Counts::default());
    let ends = [text.start.wrapping_sub(1), text.start, text.end.wrapping_sub(1), text.end, 0, u64::MAX];
    addresses.extend(ends);
    for address in addresses {
        let svma = arch.word_size().truncate(address);
        let rule = table.find(svma).expect("a sound table");
        for bias in [0, 0x7f00_0000_0000, 0x10] {
            for pc in [Pc::Exact, Pc::Return] {
                let behind = u64::from(!pc(0).is_exact());
                let avma = arch.word_size().truncate(svma.wrapping_add(bias).wrapping_add(behind));
                let query = Query { bias, ..Query::new(pc(avma)) };
                // The highest address has no return pc.
                if query.pc.lookup_address().wrapping_sub(bias) == svma {
                    let original = origin.lookup(&arch, kind, &query, &mut no_memory());
                    one(&arch, &compiled, original, Some(rule), kind, &query, &mut counts);
                    one(&arch, &lazy, original, None, kind, &query, &mut of_lazy);
                }
            }
        }
    }
    assert!(!room.is_full(), "{room:?}");
    assert_eq!(
        (counts.rules, counts.left + counts.not_covered),
        (of_lazy.rules, of_lazy.left),
        "page by page"
    );
    (bytes, counts)
}

/// Room for a table that is made page by page: for so many pages, and rules.
pub(crate) fn lazy_room(pages: usize, rules: usize) -> (Vec<LazyPage>, Vec<LazyRow>, Vec<LazyRule>) {
    fn some<T: Default>(count: usize) -> Vec<T> {
        (0..count).map(|_| T::default()).collect()
    }
    (some(pages), some(pages * 12), some(rules))
}

/// Compares one answer with the original's. `rule`: what the table is known to say.
fn one<A: Arch>(
    arch: &A,
    compiled: &impl FrameSource<A>,
    original: Result<Option<Found>, LookupError>,
    rule: Option<TableRule>,
    kind: UnwindUserType,
    query: &Query,
    counts: &mut Counts,
) {
    let memory = &mut no_memory();
    match compiled.lookup(arch, UnwindUserType::Table, query, memory) {
        Ok(Some(found)) => {
            assert_eq!(original, Ok(Some(found)), "{query:x?}");
            counts.rules += 1;
        }
        Ok(None) => {
            assert_eq!(compiled.lookup(arch, kind, query, memory), original);
            if rule == Some(TableRule::NotCovered) {
                assert!(matches!(original, Ok(None)), "{query:x?}: {original:?} is not in the table");
                counts.not_covered += 1;
            } else {
                counts.left += 1;
                let has_rule = matches!(original, Ok(Some(found)) if found.rule != Rule::Evaluate);
                counts.lost += usize::from(has_rule && rule == Some(TableRule::AskOriginal));
            }
        }
        Err(error) => panic!("{query:x?}: {error:?}"),
    }
}

/// Looks an address up in a table that may be damaged.
pub(crate) fn does_no_harm<A: Arch>(arch: &A, source: &impl FrameSource<A>, address: u64) {
    for pc in [Pc::Exact(address), Pc::Return(address)] {
        match source.lookup(arch, UnwindUserType::Table, &Query::new(pc), &mut no_memory()) {
            Ok(_) | Err(LookupError::Broken(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}
