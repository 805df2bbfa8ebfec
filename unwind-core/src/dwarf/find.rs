//! The FDE that covers an address: by the header, by an index, or by a scan of the section.
//!
//! A search only says which entry may be the one. Each is then parsed, and has to cover the address.

use super::entry::{Fde, Here};
use super::hdr::{Ends, SearchTable};
use super::index::DwarfIndex;
use super::section::{Flavor, Input};
use crate::{LookupError, SourceError};

/// Puts the FDE that covers `svma` in the place of `fde`, and leaves `input` with its section: whether there is one.
#[inline(always)]
pub(super) fn find<'d>(input: &mut Input<'d, '_>, svma: u64, fde: &mut Fde<'d>) -> Result<bool, LookupError> {
    if input.turn_to(Flavor::EhFrame) {
        let found = match by_hdr(input, svma, fde)? {
            Search::Found => true,
            Search::NotCovered => false,
            Search::Unusable => without_hdr(input.sections.eh_frame_index.as_ref(), input, svma, fde)?,
        };
        if found {
            return Ok(true);
        }
    }
    Ok(input.turn_to(Flavor::DebugFrame)
        && without_hdr(input.sections.debug_frame_index.as_ref(), input, svma, fde)?)
}

/// What a search by the header came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Search {
    /// An FDE covers the address.
    Found,
    /// None does.
    NotCovered,
    /// The header cannot be searched, or does not tell the truth: `.eh_frame` must be scanned.
    Unusable,
}

#[inline(never)]
fn by_hdr<'d>(input: &mut Input<'d, '_>, svma: u64, fde: &mut Fde<'d>) -> Result<Search, LookupError> {
    let Some(table) = SearchTable::of(input) else { return Ok(Search::Unusable) };
    let Some(Ends { mut first, bisected }) = table.ends(input, svma)? else { return Ok(Search::Unusable) };
    // Twice at most.
    loop {
        let found = below(input, &table, svma, first, fde);
        if matches!(found, Ok(Search::Found)) || bisected == Some(first) {
            return found;
        }
        // Distances wrap around, far from the section: then the long way counts.
        match bisected {
            Some(after) => first = after,
            None => return Ok(Search::Unusable),
        }
    }
}

/// Finds the FDE that covers `svma` among the header's entries before this one.
#[inline(always)]
fn below<'d>(
    input: &mut Input<'d, '_>,
    table: &SearchTable,
    svma: u64,
    after: u64,
    fde: &mut Fde<'d>,
) -> Result<Search, LookupError> {
    // Functions of no length cover nothing: they share their address with the real one, or lie in the
    // midst of it. Where the table has nothing else below `svma`, this goes through all of them.
    let mut index = after;
    let mut real = None;
    while let Some(previous) = index.checked_sub(1) {
        let (start, offset) = table.start_and_fde(input, previous)?;
        if real.is_some_and(|real| real != start) {
            break;
        }
        match Fde::parse_at(input, offset, fde) {
            Ok(Here::Fde) if fde.start == start => {}
            Err(error) if fde.next > offset => return Err(error),
            _ => return Ok(Search::Unusable),
        }
        if fde.contains(svma) {
            return Ok(Search::Found);
        }
        if fde.length > 0 {
            real = Some(start);
        }
        index = previous;
    }
    Ok(Search::NotCovered)
}

/// Puts the FDE that covers `svma` in the place of `fde`, by the index if there is one: whether there is such.
#[inline(always)]
fn without_hdr<'d>(
    index: Option<&DwarfIndex<'_>>,
    input: &mut Input<'d, '_>,
    svma: u64,
    fde: &mut Fde<'d>,
) -> Result<bool, LookupError> {
    match index {
        Some(index) => by_index(index, input, svma, fde),
        None => scan(input, svma, fde),
    }
}

#[inline(never)]
fn by_index<'d>(
    index: &DwarfIndex<'_>,
    input: &mut Input<'d, '_>,
    svma: u64,
    fde: &mut Fde<'d>,
) -> Result<bool, LookupError> {
    for entry in index.candidates(svma) {
        if Fde::parse_at(input, entry.fde, fde)? == Here::Fde && fde.contains(svma) {
            return Ok(true);
        }
    }
    match index.broken() {
        Some(error) => Err(error.into()),
        None => Ok(false),
    }
}

/// The same, by a scan of the section from its beginning.
#[inline(never)]
fn scan<'d>(input: &mut Input<'d, '_>, svma: u64, fde: &mut Fde<'d>) -> Result<bool, LookupError> {
    let mut broken: Option<SourceError> = None;
    let mut offset = 0;
    // Every entry is at least four bytes long, so this ends.
    loop {
        match Fde::parse_at(input, offset, fde) {
            Ok(Here::Fde) if fde.contains(svma) => return Ok(true),
            Ok(Here::Fde | Here::Other) => {}
            Ok(Here::End) => break,
            Err(LookupError::Broken(error)) => {
                broken.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
        // The length of a broken one may be sound.
        if fde.next == offset {
            break;
        }
        offset = fde.next;
    }
    match broken {
        Some(error) => Err(error.into()),
        None => Ok(false),
    }
}
