//! Rules from SFrame sections: versions 1 to 3, of every ABI, in both byte orders, on any host.
//!
//! Sections are borrowed slices and searched in place: the functions by their addresses, the rows
//! of a function one after another. What is checked is what a lookup meets; [`SFrameSection::validate`]
//! checks a whole section, and one that passes never fails at lookup.
//!
//! The format is that of "The SFrame format", versions 1 (binutils 2.40), 2 (2.44, and its errata)
//! and 3 (2.47). Where producers differ from it, this reader does what they mean:
//!
//! * the size of a section and of a segment are upper bounds; the header tells;
//! * several sections may follow one another ([`SFrameSections`]);
//! * a table that claims to be sorted and is not, is scanned;
//! * lld leaves the starts of versions 1 and 2 relative to their fields without saying so: only
//!   another table tells ([`SFrameSection::has_starts_from_fields`]), so the caller decides;
//! * a function without rows says nothing about its frames. (The manual of version 3 calls it
//!   outermost; assemblers write it for functions they could not describe.)

mod dump;
mod find;
mod header;
#[cfg(feature = "table")]
mod ordered;
mod plain;
mod plain_row;
#[cfg(target_has_atomic = "64")]
mod registry;
#[cfg(target_has_atomic = "64")]
mod registry_check;
#[cfg(target_has_atomic = "64")]
mod registry_room;
mod row;
mod rule;
mod samples;
mod section;
mod sections;
mod validate;
mod write;
#[cfg(feature = "dwarf")]
mod write_dwarf;
mod write_room;
mod write_row;

pub use dump::Dump;
pub use find::{SFrameIndex, SFrameIndexEntry};
pub use header::{Abi, FLAG_FRAME_POINTER, FLAG_PCREL, FLAG_SORTED, Header, Version};
#[cfg(target_has_atomic = "64")]
pub use registry::{RegistrySlot, SFrameRegistry, SectionBytes};
#[cfg(target_has_atomic = "64")]
pub use registry_check::{Check, RegistryError};
#[cfg(all(feature = "alloc", target_has_atomic = "64"))]
pub use registry_room::GrowingRoom;
#[cfg(target_has_atomic = "64")]
pub use registry_room::RegistryRoom;
pub use row::{Place, Row, RowRule, Rows};
pub use section::{Fde, RowKind, RowStart, SFrameSection};
pub use sections::SFrameSections;
pub use validate::{Flaw, FlawKind};
#[cfg(feature = "alloc")]
pub use write::write_to_vec;
pub use write::{SFrameWriter, WriteFunction, WriteRow};
#[cfg(all(feature = "alloc", feature = "dwarf"))]
pub use write_dwarf::convert_to_vec;
#[cfg(feature = "dwarf")]
pub use write_dwarf::{Unconverted, convert};
pub use write_room::{Refused, SFrameFormat, WriteError};
pub use write_row::Inexpressible;

use plain::PlainSection;
use samples::Samples;

use crate::memory::MemoryReader;
use crate::plain::Plain;
use crate::source::{Found, FrameSource, Query, Rule, Trust, UnwindUserType, UnwindUserTypes};
use crate::source_error::LookupError;
use crate::{Arch, Broken, ByteOrder, SourceError, UnwindUserFrame};

/// The `.sframe` of one module as a [`FrameSource`]. Addresses are those its file states;
/// [`Query::bias`] relocates them.
#[derive(Clone, Copy, Debug)]
pub struct SFrameSource<'d> {
    data: &'d [u8],
    svma: u64,
    index: Option<SFrameIndex<'d>>,
    starts_from_fields: bool,
    /// The first section, for lookups that find something usual there.
    plain: Option<PlainSection<'d>>,
    /// Where functions of that section begin.
    samples: Option<Samples>,
}

impl<'d> SFrameSource<'d> {
    /// A source over the contents of `.sframe`, or of the segment that holds it, at `svma`. All of
    /// the sections that lie there one after another count. Looks at the first one's header, and at the
    /// starts of no more than 64 of its functions.
    pub fn new(data: &'d [u8], svma: u64) -> Self {
        Self::for_one_lookup(data, svma).with_samples()
    }

    /// The same for one lookup, which samples are not worth.
    fn for_one_lookup(data: &'d [u8], svma: u64) -> Self {
        SFrameSource { data, svma, index: None, starts_from_fields: false, plain: None, samples: None }
            .with_plain()
    }

    /// The same source with an index of its first section, for tables that are not sorted.
    pub fn with_index(mut self, index: SFrameIndex<'d>) -> Self {
        self.index = Some(index);
        self.with_plain()
    }

    /// The same source for a file in which lld has left starts relative to their fields: each of its
    /// sections [`with_starts_from_fields`](SFrameSection::with_starts_from_fields).
    pub fn with_starts_from_fields(mut self) -> Self {
        self.starts_from_fields = true;
        self.with_plain().with_samples()
    }

    /// Checks the header once for all lookups that find something usual. Work that does not depend on the
    /// number of functions.
    fn with_plain(mut self) -> Self {
        let first = self.sections().next().and_then(Result::ok);
        self.plain = first.filter(|_| self.index.is_none()).and_then(|first| PlainSection::new(&first));
        self.samples = None;
        self
    }

    /// Looks at a few functions for all those lookups. As many, however many there are.
    fn with_samples(mut self) -> Self {
        let first = self.sections().next().and_then(Result::ok);
        self.samples = first.filter(|_| self.plain.is_some()).and_then(|first| Samples::new(&first));
        self
    }

    /// The sections.
    pub fn sections(&self) -> SFrameSections<'d> {
        let sections = SFrameSections::new(self.data, self.svma);
        if self.starts_from_fields { sections.with_starts_from_fields() } else { sections }
    }
}

impl<A: Arch> FrameSource<A> for SFrameSource<'_> {
    fn types(&self) -> UnwindUserTypes {
        UnwindUserTypes::only(UnwindUserType::SFrame)
    }

    #[inline]
    fn lookup(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        _: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError> {
        if kind != UnwindUserType::SFrame {
            return Ok(None);
        }
        let svma = query.pc.lookup_address().wrapping_sub(query.bias);
        if let Some(rule) = self.plain_rule_at(arch, svma) {
            let found = Found::new(Rule::Frame(rule.frame()), rule.trust());
            return Ok(Some(found.at_end(rule.is_last() && !query.pc.is_exact())));
        }
        self.rule_at(Abi::of(arch), svma, query.pc.is_exact())
    }

    #[inline]
    fn lookup_best(
        &self,
        arch: &A,
        kinds: UnwindUserTypes,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<(UnwindUserType, Found)>, LookupError> {
        let kind = UnwindUserType::SFrame;
        if !kinds.contains(kind) {
            return Ok(None);
        }
        Ok(self.lookup(arch, kind, query, memory)?.map(|found| (kind, found)))
    }

    #[inline]
    fn peek(&self, arch: &A, kinds: UnwindUserTypes, query: &Query) -> Option<Plain> {
        if !kinds.contains(UnwindUserType::SFrame) {
            return None;
        }
        let svma = query.pc.lookup_address().wrapping_sub(query.bias);
        self.plain_rule_at(arch, svma).filter(|rule| !rule.is_last() || query.pc.is_exact())
    }
}

impl<'d> SFrameSource<'d> {
    /// The rule at `svma`, where it is usual.
    #[inline]
    fn plain_rule_at<A: Arch>(&self, arch: &A, svma: u64) -> Option<Plain> {
        let abi = Abi::of(arch)?;
        let plain = self.plain.as_ref().filter(|plain| plain.abi() == abi)?;
        match abi.byte_order() {
            ByteOrder::Little => plain.rule_at::<false>(self.samples.as_ref(), svma),
            ByteOrder::Big => plain.rule_at::<true>(self.samples.as_ref(), svma),
        }
    }

    /// The rule at `svma` in sections for this ABI.
    #[inline(never)]
    fn rule_at(&self, abi: Option<Abi>, svma: u64, is_exact: bool) -> Result<Option<Found>, LookupError> {
        // One of the sections is on the stack, and the function found in it, and nothing twice.
        let mut section = Ok(None);
        let mut index = self.index;
        // Each turn is for a section, of 28 bytes at least, that begins behind the one before.
        loop {
            self.next_section(&mut section);
            let section = match &section {
                Ok(Some(section)) => section,
                Ok(None) => return Ok(None),
                Err(error) => return Err(LookupError::Broken(*error)),
            };
            // Offsets in errors count from the beginning of the first section.
            let offset = section.svma().wrapping_sub(self.svma);
            if Some(section.abi()) != abi {
                return Err(SourceError { broken: Broken::UnknownAbi, offset: 4 }.behind(offset).into());
            }
            match &section.find(svma, index.take()) {
                Ok(Some(fde)) => match section.frame_at(fde, svma) {
                    Ok(Some(frame)) => {
                        // The rows that linkers write for their own PLT entries are wrong in known cases.
                        let trust = if fde.block_size.is_some() { Trust::CallSite } else { Trust::Exact };
                        let is_last = svma.wrapping_sub(fde.start) == u64::from(fde.size).wrapping_sub(1);
                        return Ok(Some(Found::new(Rule::Frame(frame), trust).at_end(is_last && !is_exact)));
                    }
                    Ok(None) => {}
                    Err(error) => return Err(error.behind(offset).into()),
                },
                Ok(None) => {}
                Err(error) => return Err(error.behind(offset).into()),
            }
        }
    }

    /// Puts the section behind `at`, the first where there is none, in its place.
    #[inline(never)]
    fn next_section(&self, at: &mut Result<Option<SFrameSection<'d>>, SourceError>) {
        let sections = match at {
            Ok(Some(section)) => self.sections().behind(section),
            _ => self.sections(),
        };
        *at = { sections }.next().transpose();
    }
}

impl SFrameSection<'_> {
    /// The rule of the row of `fde` that holds at `svma`.
    #[inline(never)]
    fn frame_at(&self, fde: &Fde, svma: u64) -> Result<Option<UnwindUserFrame>, SourceError> {
        let Some(row) = self.row_at(fde, svma)? else { return Ok(None) };
        let broken = SourceError { broken: Broken::BadRow, offset: fde.rows_offset };
        rule::frame(self.abi(), fde, &row).ok_or(broken).map(Some)
    }
}
