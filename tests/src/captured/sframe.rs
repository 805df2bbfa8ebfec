//! The SFrame sections of captured modules: what they cover, and their rows for people.

use std::fmt::Write;
use std::ops::Range;

use unwind_core::dwarf::Section;
use unwind_core::sframe::{Fde, Place, Row, RowRule, SFrameSection, SFrameSource};
use unwind_core::{Base, Register};

/// The tables of one module.
pub(super) struct SFrameTables {
    pub(super) source: SFrameSource<'static>,
    /// Of every section, the functions that have rows: each with its addresses (svma) from the first row on, in the
    /// order of the table.
    functions: Vec<(Range<u64>, SFrameSection<'static>, Fde)>,
}

impl SFrameTables {
    /// Panics where the section is malformed: it is what an assembler and a linker wrote.
    pub(super) fn new(section: Section<'static>) -> Self {
        let source = SFrameSource::new(section.data, section.svma);
        let mut functions = Vec::new();
        for section in source.sections() {
            let section = section.expect("a captured section is sound");
            for index in 0..section.header().fde_count {
                let fde = section.fde(index).expect("a captured section is sound");
                let first = section.rows(&fde).next().and_then(Result::ok);
                if let Some(first) = first {
                    let start = fde.start + u64::from(first.start);
                    functions.push((start..fde.start + u64::from(fde.size), section, fde));
                }
            }
        }
        SFrameTables { source, functions }
    }

    /// Whether a row is about `svma`, other than one that a linker wrote for its linkage tables: those are known to be wrong
    /// at times, and a walk by them says that it may be. Looks at every function, one after another.
    pub(super) fn covers(&self, svma: u64) -> bool {
        self.at(svma).is_some_and(|(_, _, fde)| fde.block_size.is_none())
    }

    fn at(&self, svma: u64) -> Option<&(Range<u64>, SFrameSection<'static>, Fde)> {
        self.functions.iter().find(|(range, ..)| range.contains(&svma))
    }

    /// The row for `svma`, as [`row`] writes it.
    pub(super) fn row(&self, svma: u64) -> Option<String> {
        let (_, section, fde) = self.at(svma)?;
        let offset = svma - fde.start;
        let offset = fde.block_size.map_or(offset, |size| offset % u64::from(size));
        let rows = section.rows(fde).map_while(Result::ok);
        let last = rows.take_while(|row| u64::from(row.start) <= offset).last()?;
        Some(row(fde, &last))
    }
}

/// A row for people: the CFA, then the return address and the caller's frame pointer where they have a rule. `c` is the CFA, `*`
/// stands before what is a place in memory.
fn row(fde: &Fde, row: &Row) -> String {
    let RowRule::Frame { cfa, ra, fp } = row.rule else { return "outermost".into() };
    let mut text = format!("c={}", place(&cfa));
    for (name, rule) in [("ra", ra), ("fp", fp)] {
        if let Some(rule) = rule {
            let _ = write!(text, " {name}={}", place(&rule));
        }
    }
    for (mark, is_set) in [(" block", fde.block_size.is_some()), (" signal", fde.is_signal)] {
        text += if is_set { mark } else { "" };
    }
    text
}

fn place(place: &Place) -> String {
    let base = match place.base {
        None => "c".to_owned(),
        Some(Base::Sp) => "sp".to_owned(),
        Some(Base::Fp) => "fp".to_owned(),
        Some(Base::Register(Register(number))) => format!("r{number}"),
    };
    format!("{}{base}{:+}", if place.deref { "*" } else { "" }, place.offset)
}
