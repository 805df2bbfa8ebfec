//! Sections one after another.

use super::section::SFrameSection;
use crate::SourceError;

/// The sections that lie one after another in a file's `.sframe`: linkers concatenate what they do
/// not understand. Each has a base of its own.
///
/// Ends after the first that makes no sense, and where no further one begins; the offset in an error
/// counts from the beginning of the first. No data, no section: linkers write that where they have
/// dropped every one.
#[derive(Clone, Copy, Debug)]
pub struct SFrameSections<'d> {
    rest: &'d [u8],
    svma: u64,
    /// How far `rest` is from the beginning.
    offset: u64,
    starts_from_fields: bool,
    /// The size of the section that `rest` begins with and that was the last one; `None` before
    /// the first.
    last: Option<u64>,
}

impl<'d> SFrameSections<'d> {
    /// The sections in `data`, the first of which is at `svma`.
    pub fn new(data: &'d [u8], svma: u64) -> Self {
        SFrameSections {
            rest: data,
            svma,
            offset: 0,
            starts_from_fields: false,
            last: data.is_empty().then_some(0),
        }
    }

    /// The same sections, each [`with_starts_from_fields`](SFrameSection::with_starts_from_fields).
    pub fn with_starts_from_fields(mut self) -> Self {
        self.starts_from_fields = true;
        self
    }

    /// Those behind `section`, which is one of these.
    pub(super) fn behind(mut self, section: &SFrameSection<'_>) -> Self {
        let distance = section.svma().wrapping_sub(self.svma);
        let rest = usize::try_from(distance).ok().and_then(|distance| self.rest.get(distance..));
        self.rest = rest.unwrap_or_default();
        self.svma = section.svma();
        self.offset = distance;
        self.last = Some(section.header().size);
        self
    }
}

impl<'d> Iterator for SFrameSections<'d> {
    type Item = Result<SFrameSection<'d>, SourceError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if let Some(size) = self.last {
            let length = padded(self.rest, size);
            let rest = usize::try_from(length).ok().and_then(|length| self.rest.get(length..));
            self.rest = rest.unwrap_or_default();
            self.svma = self.svma.wrapping_add(length);
            self.offset = self.offset.saturating_add(length);
            // What follows a section is padding, or belongs to something else.
            match self.rest {
                [0xe2, 0xde, ..] | [0xde, 0xe2, ..] => {}
                _ => return None,
            }
        }
        let mut parsed = SFrameSection::parse(self.rest, self.svma);
        if self.starts_from_fields {
            parsed = parsed.map(SFrameSection::with_starts_from_fields);
        }
        self.last = Some(parsed.map_or(u64::MAX, |section| section.header().size));
        Some(parsed.map_err(|error| error.behind(self.offset)))
    }
}

impl SourceError {
    /// The same error, where what it counts from is so far from the beginning.
    pub(super) fn behind(mut self, offset: u64) -> Self {
        self.offset = self.offset.saturating_add(offset);
        self
    }
}

/// `size` and the zero bytes behind it, up to a multiple of eight.
fn padded(data: &[u8], size: u64) -> u64 {
    let end = size.checked_next_multiple_of(8).unwrap_or(size);
    let padding =
        usize::try_from(size).ok().zip(usize::try_from(end).ok()).and_then(|(from, to)| data.get(from..to));
    match padding {
        Some(padding) if padding.iter().all(|byte| *byte == 0) => end,
        _ => size,
    }
}
