//! The starts of some functions of a section, evenly spaced and side by side.
//!
//! A search among many functions reads far apart places one after another, each of which waits for the one
//! before. A few of the starts, kept where they are all at hand, tell between which of them to search. They are
//! as many for any section, so that a source is made in constant time and room.

use super::section::SFrameSection;

/// How many samples are in a group, and how many groups there are: all that are compared at once lie in a line of a
/// processor's cache.
const SIDE: usize = 8;

/// The starts, as distances from the first one, below [`FAR`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Samples {
    /// The address (svma) at which the first function begins.
    first: u64,
    /// How many functions there are.
    count: u32,
    /// How many it is from one sample to the next.
    apart: u32,
    /// The first of each group.
    groups: [u32; SIDE],
    all: [[u32; SIDE]; SIDE],
}

impl Samples {
    /// Samples of a section whose functions claim to be sorted. `None` where they are too far from each other.
    pub(super) fn new(section: &SFrameSection<'_>) -> Option<Self> {
        let count = section.header().fde_count;
        let room = u32::try_from(SIDE.wrapping_mul(SIDE)).ok()?;
        let apart = count.div_ceil(room);
        let first = section.start(0).ok()?;
        // Beyond the last function, there is what begins above any pc.
        let mut all = [[FAR; SIDE]; SIDE];
        let mut index = 0u32;
        for sample in all.as_flattened_mut() {
            if index >= count {
                break;
            }
            let start = section.start(index).ok()?;
            *sample = near(start.wrapping_sub(first))?;
            index = index.saturating_add(apart);
        }
        Some(Samples { first, count, apart, groups: all.map(|[first, ..]| first), all })
    }

    /// The functions among which is the last that begins at or below `svma`, provided that they are sorted: the
    /// index of the first of them, and how many. `None` where it is below or far above all.
    #[inline(always)]
    pub(super) fn around(&self, svma: u64) -> Option<(u32, u32)> {
        let at = near(svma.wrapping_sub(self.first))?;
        let group = not_above(&self.groups, at).wrapping_sub(1);
        let within = self.all.get(usize::try_from(group).ok()?)?;
        let sample = not_above(within, at).wrapping_sub(1);
        let samples = group.wrapping_mul(u32::try_from(SIDE).ok()?).wrapping_add(sample);
        let index = samples.wrapping_mul(self.apart);
        Some((index, self.count.checked_sub(index)?.min(self.apart)))
    }
}

/// No sample is as far from the first function as this, and no pc is looked for there.
const FAR: u32 = u32::MAX >> 1;

#[inline(always)]
fn near(distance: u64) -> Option<u32> {
    u32::try_from(distance).ok().filter(|distance| *distance < FAR)
}

/// How many are not above.
#[inline(always)]
fn not_above(starts: &[u32; SIDE], at: u32) -> u32 {
    // The sign of a difference, as vector units can add up at once what they can shift.
    let above = |start: &u32| at.wrapping_sub(*start).wrapping_shr(31);
    let above = starts.iter().fold(0u32, |count, start| count.wrapping_add(above(start)));
    u32::try_from(SIDE).unwrap_or(0).wrapping_sub(above)
}
