//! The sections a source is made of, and reading their words.

use crate::{Arch, Broken, ByteOrder, Register, SourceError, WordSize};

/// The bytes of a section, and the address its file states for it.
#[derive(Clone, Copy, Debug)]
pub struct Section<'d> {
    /// Its contents.
    pub data: &'d [u8],
    /// Its address (svma).
    pub svma: u64,
}

/// The exception handling tables of one module.
#[derive(Clone, Copy, Debug)]
pub struct EhabiSections<'d> {
    /// The order of bytes in data, as the ELF header states it. (Code may differ: BE8.)
    pub order: ByteOrder,
    /// `.ARM.exidx`, the index table. The segment `PT_ARM_EXIDX` holds the same.
    pub exidx: Section<'d>,
    /// `.ARM.extab`, the entries that do not fit into the index. Where a file has no section
    /// headers, give the whole segment that `PT_ARM_EXIDX` lies in.
    pub extab: Option<Section<'d>>,
    /// The first address of the module's code (svma).
    pub text_start: u64,
    /// The first address beyond the module's code (svma): where the last entry of the index ends,
    /// as the table itself does not say.
    pub text_end: u64,
    /// The personality routines (svma, without a Thumb bit) whose entries are laid out as GNU's:
    /// a word with a count and three instructions follows, and further words of instructions.
    /// `None`: all of them. Nobody is known to write anything else; of a routine that is not in
    /// the list, the entries are refused.
    pub personalities: Option<&'d [u64]>,
}

/// Bytes of an entry of the index.
pub(super) const ENTRY: u64 = 8;

impl<'d> EhabiSections<'d> {
    /// The tables of a module whose code is from `text_start` to `text_end` (svma).
    pub const fn new(
        order: ByteOrder,
        exidx: Section<'d>,
        extab: Option<Section<'d>>,
        text_start: u64,
        text_end: u64,
    ) -> Self {
        EhabiSections { order, exidx, extab, text_start, text_end, personalities: None }
    }

    /// How many entries the index has.
    pub fn len(&self) -> u32 {
        let whole = self.exidx.data.chunks_exact(8).len();
        u32::try_from(whole).unwrap_or(u32::MAX)
    }

    /// Whether the index has no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether these tables can be about this target: 32 bits, the core registers under their
    /// numbers, the same order of bytes.
    pub(super) fn is_for<A: Arch>(&self, arch: &A) -> bool {
        arch.word_size() == WordSize::Four
            && (arch.sp(), arch.ra()) == (Register(13), Register(14))
            && arch.byte_order() == self.order
    }

    /// One of the two words of an entry of the index, and its address (svma).
    pub(super) fn index_word(&self, index: u32, second: bool) -> Result<(u32, u64), SourceError> {
        let offset = u64::from(index).wrapping_mul(ENTRY);
        let error = SourceError { broken: Broken::UnexpectedEnd, offset };
        let offset = if second { offset.wrapping_add(4) } else { offset };
        let value = word(self.exidx.data, offset, self.order).ok_or(error)?;
        Ok((value, WordSize::Four.wrapping_offset(self.exidx.svma, offset)))
    }

    /// The part of `.ARM.extab` that begins at an address (svma).
    pub(super) fn extab_from(&self, svma: u64) -> Option<&'d [u8]> {
        let extab = self.extab?;
        let offset = WordSize::Four.truncate(svma.wrapping_sub(extab.svma));
        extab.data.get(usize::try_from(offset).ok()?..)
    }
}

/// The word at an offset.
pub(super) fn word(data: &[u8], offset: u64, order: ByteOrder) -> Option<u32> {
    let start = usize::try_from(offset).ok()?;
    let bytes = data.get(start..start.checked_add(4)?)?;
    let bytes = <[u8; 4]>::try_from(bytes).ok()?;
    Some(match order {
        ByteOrder::Little => u32::from_le_bytes(bytes),
        ByteOrder::Big => u32::from_be_bytes(bytes),
    })
}

/// Where the low 31 bits of the word at `place` point to: an offset with a sign, from the word
/// itself, modulo the address space (EHABI32, "Relocations").
pub(super) fn prel31(value: u32, place: u64) -> u64 {
    let sign = value & 0x4000_0000;
    let offset = (value & 0x7fff_ffff) | sign.wrapping_shl(1);
    WordSize::Four.wrapping_offset(place, u64::from(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_31_bits_have_a_sign_and_wrap() {
        for (value, place, target) in [
            (0, 0x1000, 0x1000),
            (8, 0x1000, 0x1008),
            (0x7fff_fff8, 0x1000, 0xff8),
            (0xffff_fff8, 0x1000, 0xff8),
            (0x3fff_ffff, 0, 0x3fff_ffff),
            (0x4000_0000, 0, 0xc000_0000),
            (0x4000_0000, 0x4000_0000, 0),
            (0x3fff_ffff, 0xffff_fffc, 0x3fff_fffb),
            (0x7fff_ffff, 0, 0xffff_ffff),
        ] {
            assert_eq!(prel31(value, place), target, "{value:#x} at {place:#x}");
        }
    }

    #[test]
    fn words_in_either_order() {
        let data = [0, 1, 2, 3, 4];
        assert_eq!(word(&data, 1, ByteOrder::Little), Some(0x0403_0201));
        assert_eq!(word(&data, 1, ByteOrder::Big), Some(0x0102_0304));
        assert_eq!(word(&data, 2, ByteOrder::Big), None);
        assert_eq!(word(&data, u64::MAX, ByteOrder::Big), None);
    }
}
