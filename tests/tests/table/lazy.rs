//! Tables made page by page: one room for several modules and threads, and what happens when it is used up.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use unwind_arch::AnyArch;
use unwind_core::dwarf::{DwarfSource, Flavor};
use unwind_core::table::{LazyRoom, LazyTable, compile_to_vec};
use unwind_core::{Found, FrameSource, Pc, Query, UnwindUserType};
use unwind_tests::sframe::FrameSections;
use unwind_tests::synthetic::chaos::mix;

use super::compare::{lazy_room, no_memory};
use super::dwarf::{arch_of, text_of};

/// This program.
struct Program {
    arch: AnyArch,
    sections: FrameSections,
    text: Range<u64>,
}

impl Program {
    fn read() -> Self {
        let data = std::fs::read(std::env::current_exe().expect("a path")).expect("this program");
        let file = object::File::parse(&*data).expect("ELF");
        let arch = arch_of(&data).expect("this machine");
        Program { arch, sections: FrameSections::of(&file), text: text_of(&file) }
    }

    fn dwarf(&self) -> DwarfSource<'_> {
        DwarfSource::new(self.sections.borrow(Flavor::EhFrame))
    }

    fn lookup(&self, source: &impl FrameSource<AnyArch>, kind: UnwindUserType, pc: u64) -> Option<Found> {
        let found = source.lookup(&self.arch, kind, &Query::new(Pc::Return(pc)), &mut no_memory());
        found.expect("nothing is broken")
    }

    /// Return pcs all over the program, in no order.
    fn pcs(&self, seed: u64, count: u64) -> impl Iterator<Item = u64> {
        let Range { start, end } = self.text.clone();
        (0..count).map(move |number| start + mix(seed << 32 | number) % (end - start))
    }

    /// Compares one answer with the original's. Whether there was one.
    fn is_answered(&self, table: &LazyTable<'_, DwarfSource<'_>>, pc: u64) -> bool {
        let found = self.lookup(table, UnwindUserType::Table, pc);
        let original = self.lookup(table.original(), UnwindUserType::Dwarf, pc);
        assert!(found.is_none() || found == original, "{pc:#x}: {found:?}, {original:?}");
        found.is_some()
    }
}

#[test]
fn threads_share_what_they_add() {
    let program = &Program::read();
    let (mut pages, mut rows, mut rules) = lazy_room(40_000, 1024);
    let room = LazyRoom::new(&mut pages, &mut rows, &mut rules);
    let table = &room.table(program.dwarf(), program.text.clone());
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let count = program.pcs(1, 20_000).filter(|pc| program.is_answered(table, *pc)).count();
                answered.fetch_add(count, Ordering::Relaxed);
            });
        }
    });
    // One after another, everything is there.
    let alone = program.pcs(1, 20_000).filter(|pc| program.is_answered(table, *pc)).count();
    assert!(alone > 1_000 && answered.into_inner() <= 4 * alone);
    let touched: HashSet<u64> = program.pcs(1, 20_000).map(|pc| (pc - 1) >> 8).collect();
    assert!(usize::try_from(room.pages()).is_ok_and(|pages| pages <= touched.len()), "{room:?}");
    assert!(!room.is_full() && room.rules() > 20, "{room:?}");
}

#[test]
fn modules_share_a_room_and_not_their_pages() {
    let program = &Program::read();
    let (mut pages, mut rows, mut rules) = lazy_room(10_000, 1024);
    let room = LazyRoom::new(&mut pages, &mut rows, &mut rules);
    let table = room.table(program.dwarf(), program.text.clone());
    let moved = Range { start: program.text.start + 0x1000, end: program.text.end };
    let again = room.table(program.dwarf(), moved);
    let nothing = room.table(DwarfSource::default(), program.text.clone());
    assert_eq!((room.pages(), room.rows(), room.rules()), (0, 0, 0), "modules cost nothing");
    for pc in program.pcs(2, 2_000) {
        let is_answered = program.is_answered(&table, pc);
        assert!(program.is_answered(&again, pc) == is_answered || pc <= program.text.start + 0x1000);
        assert_eq!(program.lookup(&nothing, UnwindUserType::Table, pc), None);
    }
    let rules = room.rules();
    let third = room.table(program.dwarf(), program.text.clone());
    program.pcs(2, 2_000).for_each(|pc| assert!(program.is_answered(&third, pc) || pc > 0));
    assert_eq!(room.rules(), rules, "rules are kept once");
}

#[test]
fn room_that_is_used_up_leaves_the_rest() {
    let program = &Program::read();
    for (pages, rows, rules) in
        [(0, 64, 64), (1, 64, 64), (64, 10_000, 64), (4096, 100, 64), (4096, 10_000, 3)]
    {
        let (mut pages, _, mut rules) = lazy_room(pages, rules);
        let (_, mut rows, _) = lazy_room(rows / 12, 0);
        let room = LazyRoom::new(&mut pages, &mut rows, &mut rules);
        let table = room.table(program.dwarf(), program.text.clone());
        let mut answered = 0;
        for pc in program.pcs(3, 3_000) {
            answered += usize::from(program.is_answered(&table, pc));
        }
        println!("{room:?}: {answered}");
        assert!(answered < 2_500);
    }
}

#[test]
fn the_first_lookup_of_a_module_does_not_go_through_it() {
    // What one page costs is bounded by what it touches: the rows of the whole table are many more.
    let program = &Program::read();
    let (mut pages, mut rows, mut rules) = lazy_room(64, 64);
    let room = LazyRoom::new(&mut pages, &mut rows, &mut rules);
    let table = room.table(program.dwarf(), program.text.clone());
    let whole =
        compile_to_vec(program.arch, program.dwarf(), program.text.clone(), |_| {}).expect("in order");
    let pc = program.pcs(4, 1_000).find(|pc| program.is_answered(&table, *pc)).expect("code");
    assert!(program.is_answered(&table, pc));
    assert!(room.rows() < 2_000 && whole.len() > 10_000, "{room:?}");
}
