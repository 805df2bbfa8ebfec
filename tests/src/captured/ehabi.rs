//! The exception handling tables of captured modules: what they cover, and their entries for people.

use std::fmt::Write;
use std::ops::Range;

use unwind_core::ByteOrder;
use unwind_core::ehabi::{EhabiSections, EhabiSource, Section, Unwinding};

use super::module::CapturedModule;

/// The tables of `module`, whose code begins and ends where its executable segments do.
pub(super) fn source(
    order: ByteOrder,
    module: &'static CapturedModule,
    code: &[Range<u64>],
) -> Option<EhabiSource<'static>> {
    let section = |name| {
        let section = module.section(name)?;
        Some(Section { data: &section.data, svma: section.svma })
    };
    let start = code.iter().map(|range| range.start).min()?;
    let end = code.iter().map(|range| range.end).max()?;
    let sections = EhabiSections::new(order, section(".ARM.exidx")?, section(".ARM.extab"), start, end);
    Some(EhabiSource::new(sections))
}

/// Whether an entry with instructions is about `svma`.
pub(super) fn covers(source: &EhabiSource<'_>, svma: u64) -> bool {
    instructions(source, svma).is_some()
}

/// The instructions for `svma`, for people.
pub(super) fn row(source: &EhabiSource<'_>, svma: u64) -> Option<String> {
    let mut text = String::from("ehabi");
    for instruction in instructions(source, svma)? {
        let _ = match instruction {
            Ok(instruction) => write!(text, " {instruction:?}"),
            Err(error) => write!(text, " {error:?}"),
        };
    }
    Some(text)
}

/// Panics where the tables are malformed: they are what an assembler and a linker wrote.
fn instructions<'d>(source: &EhabiSource<'d>, svma: u64) -> Option<unwind_core::ehabi::Instructions<'d>> {
    let sections = source.sections();
    let entry = sections.find(svma).expect("a captured index is sound")?;
    match sections.unwinding(&entry).expect("a captured entry is sound") {
        Unwinding::Instructions { instructions, .. } => Some(instructions),
        Unwinding::CannotUnwind => None,
    }
}
