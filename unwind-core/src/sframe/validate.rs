//! The full check of a section, for those who take them from others.

use core::fmt;

use super::header::{Abi, FLAG_FRAME_POINTER, FLAG_PCREL, FLAG_SORTED, Version};
use super::rule;
use super::section::SFrameSection;
use crate::SourceError;

/// What is wrong with a section, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flaw {
    /// What.
    pub kind: FlawKind,
    /// The function, by its index in the table.
    pub fde: Option<u32>,
    /// The row, by its index in the function.
    pub row: Option<u32>,
}

/// What can be wrong with a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlawKind {
    /// A flag that its version does not have.
    UnknownFlag,
    /// It claims to be sorted; this function begins below the one before it.
    NotSorted,
    /// This function overlaps the one before it.
    Overlap,
    /// The functions have not as many rows in total as the header says.
    RowCount,
    /// The functions have more rows in total than there is room for: some share theirs. Nobody
    /// writes that, and it could make work that no longer is in proportion to the section.
    SharedRows,
    /// An entry or a row makes no sense.
    Broken(SourceError),
    /// A row says something that no frame can be.
    NoRule,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fde) = self.fde {
            write!(f, "function {fde}, ")?;
        }
        if let Some(row) = self.row {
            write!(f, "row {row}, ")?;
        }
        match self.kind {
            FlawKind::UnknownFlag => f.write_str("unknown flag"),
            FlawKind::NotSorted => f.write_str("not sorted by address"),
            FlawKind::Overlap => f.write_str("overlaps the function before it"),
            FlawKind::RowCount => f.write_str("the header has another number of rows"),
            FlawKind::SharedRows => f.write_str("functions share rows"),
            FlawKind::Broken(error) => error.fmt(f),
            FlawKind::NoRule => f.write_str("no frame can be like that"),
        }
    }
}

impl core::error::Error for Flaw {}

impl SFrameSection<'_> {
    /// Checks everything: every function and every row, their order, and what the header says of
    /// them. Work proportional to the section. A section that passes never fails at lookup.
    ///
    /// # Errors
    /// The first flaw.
    pub fn validate(&self) -> Result<(), Flaw> {
        let header = self.header();
        let of_section = |kind| Flaw { kind, fde: None, row: None };
        let flags = match header.version {
            Version::V1 => FLAG_SORTED | FLAG_FRAME_POINTER,
            Version::V2 => FLAG_SORTED | FLAG_FRAME_POINTER | FLAG_PCREL,
            Version::V3 => FLAG_SORTED | FLAG_PCREL,
        };
        if header.flags & !flags != 0 {
            return Err(of_section(FlawKind::UnknownFlag));
        }
        let mut rows_in_total = 0u64;
        let mut end = 0;
        for (index, fde) in (0..header.fde_count).zip(self.fdes()) {
            let of_function = |kind| Flaw { kind, fde: Some(index), row: None };
            let fde = fde.map_err(|error| of_function(FlawKind::Broken(error)))?;
            if header.is_sorted() {
                let before = index.checked_sub(1).map(|before| self.start(before)).transpose();
                let before = before.map_err(|error| of_function(FlawKind::Broken(error)))?;
                if before.is_some_and(|before| before > fde.start) {
                    return Err(of_function(FlawKind::NotSorted));
                }
                if fde.start < end && fde.size > 0 {
                    return Err(of_function(FlawKind::Overlap));
                }
                end = fde.start.saturating_add(u64::from(fde.size)).max(end);
            }
            rows_in_total = rows_in_total.saturating_add(u64::from(fde.row_count));
            // A row has two bytes at the least.
            if rows_in_total.saturating_mul(2) > u64::from(header.fre_size) {
                return Err(of_function(FlawKind::SharedRows));
            }
            for (number, row) in (0..fde.row_count).zip(self.rows(&fde)) {
                let of_row = |kind| Flaw { kind, fde: Some(index), row: Some(number) };
                let row = row.map_err(|error| of_row(FlawKind::Broken(error)))?;
                if rule::frame(header.abi, &fde, &row).is_none() {
                    return Err(of_row(FlawKind::NoRule));
                }
            }
        }
        if rows_in_total != u64::from(header.fre_count) {
            return Err(of_section(FlawKind::RowCount));
        }
        Ok(())
    }

    /// The ABI.
    pub fn abi(&self) -> Abi {
        self.header().abi
    }
}
