//! Room for a registry's ranges of text.

use super::registry::RegistrySlot;

/// Slots that stay where they are as long as the registry lives.
pub trait RegistryRoom {
    /// The slot at `index`, if there is room that far.
    fn slot(&self, index: usize) -> Option<&RegistrySlot>;

    /// Makes room for this many ranges of text, which take two slots each. Whether there is.
    fn reserve(&self, ranges: usize) -> bool;
}

/// Room that the caller lends.
impl RegistryRoom for &[RegistrySlot] {
    fn slot(&self, index: usize) -> Option<&RegistrySlot> {
        self.get(index)
    }

    fn reserve(&self, ranges: usize) -> bool {
        ranges.checked_mul(2).is_some_and(|slots| slots <= self.len())
    }
}

/// Room in an array, which the registry then owns.
impl<const N: usize> RegistryRoom for [RegistrySlot; N] {
    fn slot(&self, index: usize) -> Option<&RegistrySlot> {
        self.get(index)
    }

    fn reserve(&self, ranges: usize) -> bool {
        self.as_slice().reserve(ranges)
    }
}

/// Room that grows by itself: piece by piece, each twice as large as all before it, so that slots
/// never move under a reader.
#[cfg(feature = "alloc")]
#[derive(Debug, Default)]
pub struct GrowingRoom {
    pieces: [once_cell::race::OnceBox<alloc::boxed::Box<[RegistrySlot]>>; PIECES],
}

/// The first piece has this many slots.
#[cfg(feature = "alloc")]
const FIRST: usize = 16;

/// Enough for 2^28 ranges of text.
#[cfg(feature = "alloc")]
const PIECES: usize = 26;

#[cfg(feature = "alloc")]
impl GrowingRoom {
    /// No room yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The piece that holds the slot at `index`, and where in it.
    fn place(index: usize) -> Option<(usize, usize)> {
        // Pieces hold 16, 16, 32, 64 … slots: the piece's number is the index's magnitude.
        let magnitude = index.checked_div(FIRST)?.checked_ilog2();
        match magnitude {
            None => Some((0, index)),
            Some(magnitude) => {
                let piece = usize::try_from(magnitude).ok()?.checked_add(1)?;
                let first = FIRST.checked_shl(magnitude)?;
                Some((piece, index.checked_sub(first)?))
            }
        }
    }

    fn piece_len(piece: usize) -> Option<usize> {
        match piece.checked_sub(1) {
            None => Some(FIRST),
            Some(magnitude) => FIRST.checked_shl(u32::try_from(magnitude).ok()?),
        }
    }
}

#[cfg(feature = "alloc")]
impl RegistryRoom for GrowingRoom {
    fn slot(&self, index: usize) -> Option<&RegistrySlot> {
        let (piece, index) = Self::place(index)?;
        self.pieces.get(piece)?.get()?.get(index)
    }

    fn reserve(&self, ranges: usize) -> bool {
        let Some(last) = ranges.checked_mul(2).map(|slots| slots.saturating_sub(1)) else {
            return false;
        };
        let Some((last, _)) = Self::place(last) else {
            return false;
        };
        for (piece, room) in self.pieces.iter().enumerate().take(last.saturating_add(1)) {
            let Some(len) = Self::piece_len(piece) else {
                return false;
            };
            room.get_or_init(|| {
                let slots = core::iter::repeat_with(RegistrySlot::default).take(len).collect();
                alloc::boxed::Box::new(slots)
            });
        }
        last < PIECES
    }
}

#[cfg(all(test, feature = "alloc"))]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_a_place_of_its_own() {
        let mut next = (0, 0);
        for index in 0..5_000 {
            let place = GrowingRoom::place(index).unwrap();
            assert_eq!(place, next, "{index}");
            next.1 += 1;
            if next.1 == GrowingRoom::piece_len(next.0).unwrap() {
                next = (next.0 + 1, 0);
            }
        }
    }

    #[test]
    fn room_grows_and_slots_stay() {
        let room = GrowingRoom::new();
        assert!(room.slot(0).is_none());
        assert!(room.reserve(1));
        let first = core::ptr::from_ref(room.slot(0).unwrap());
        assert!(room.reserve(1_000));
        assert!(room.slot(1_999).is_some());
        assert_eq!(core::ptr::from_ref(room.slot(0).unwrap()), first);
    }
}
