//! FDEs and CIEs as compilers and assemblers write them: lengths of 32 bits, addresses relative to their
//! field, numbers of one byte. Anything else is left to [`entry`](super::entry).

use super::entry::FORMAT;
use super::section::Section;
use crate::{ByteOrder, Register, WordSize};

/// `DW_EH_PE_pcrel | DW_EH_PE_sdata4`: what addresses have to be.
const PCREL_SDATA4: u8 = 0x1b;
/// The most letters of an augmentation: `zPLRSBG` are all that there are.
const LETTERS: usize = 8;

/// A CIE from its augmentation on: the letters, three numbers, the length of the data, the encoding.
const ZR: u64 = u64::from_le_bytes([b'z', b'R', 0, 0, 0, 0, 1, PCREL_SDATA4]);
const ZR_MASK: u64 = u64::from_le_bytes([0xff, 0xff, 0xff, 0, 0, 0, 0xff, 0xff]);
/// The letters, and three numbers.
const ZPLR: u64 = u64::from_le_bytes([b'z', b'P', b'L', b'R', 0, 0, 0, 0]);
const ZPLR_MASK: u64 = u64::from_le_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0]);

/// What a Frame Description Entry says.
pub(super) struct PlainFde<'d> {
    /// The first address (svma), if addresses are what they have to be.
    pub(super) start: u64,
    /// How many bytes of code.
    pub(super) length: u64,
    /// Where its CIE is in the section.
    pub(super) cie: usize,
    /// What follows the addresses.
    rest: &'d [u8],
}

impl<'d> PlainFde<'d> {
    /// Reads the FDE at this offset.
    #[inline]
    pub(super) fn parse(section: Section<'d>, offset: u64, word: WordSize, order: ByteOrder) -> Option<Self> {
        let at = usize::try_from(offset).ok()?;
        // No larger offset is ever read, and no length of 32 bits is special.
        let is_small = u32::try_from(section.data.len()).is_ok_and(|length| length < 0xffff_fff0);
        let (head, rest) = section.data.get(at..)?.split_first_chunk::<16>()?;
        let ([size_of, to_cie, start, length], []) = head.as_chunks() else { return None };
        let rest = rest.get(..size(order, *size_of)?.checked_sub(12)?)?;
        let to_cie = size(order, *to_cie)?;
        let field = section.svma.wrapping_add(offset).wrapping_add(8);
        let start = i64::from(number(order, *start).cast_signed());
        let length = u64::try_from(number(order, *length).cast_signed()).ok()?;
        (is_small && to_cie != 0).then_some(())?;
        Some(PlainFde {
            start: word.wrapping_offset(field, start.cast_unsigned()),
            length,
            cie: at.checked_add(4)?.checked_sub(to_cie)?,
            rest,
        })
    }

    /// The instructions; what is before them are data of the augmentation.
    #[inline]
    pub(super) fn instructions(&self) -> Option<&'d [u8]> {
        let (length @ 0..0x80, rest) = self.rest.split_first()? else { return None };
        rest.get(usize::from(*length)..)
    }
}

/// What a Common Information Entry says whose addresses are [`PCREL_SDATA4`] and whose FDEs have data of an
/// augmentation.
pub(super) struct PlainCie<'d> {
    /// Below 128.
    pub(super) code_factor: u8,
    /// Of 7 bits.
    pub(super) data_factor: i8,
    pub(super) return_address: Register,
    pub(super) is_signal: bool,
    pub(super) instructions: &'d [u8],
}

impl<'d> PlainCie<'d> {
    /// Reads the CIE at this offset of a section of `.eh_frame`.
    #[inline]
    pub(super) fn parse(section: &'d [u8], at: usize, word: WordSize, order: ByteOrder) -> Option<Self> {
        let (head, rest) = section.get(at..)?.split_first_chunk::<9>()?;
        let ([size_of, [0, 0, 0, 0]], [1 | 3 | 4]) = head.as_chunks() else { return None };
        let body = rest.get(..size(order, *size_of)?.checked_sub(5)?)?;
        let (code, data, ra, instructions) = match body.split_first_chunk::<8>() {
            // `zR`.
            Some((head, instructions)) if u64::from_le_bytes(*head) & ZR_MASK == ZR => {
                let [_, _, _, code, data, ra, _, _] = *head;
                (code, data, ra, instructions)
            }
            // `zPLR`.
            Some((head, [7, p, _, _, _, _, _, PCREL_SDATA4, instructions @ ..]))
                if u64::from_le_bytes(*head) & ZPLR_MASK == ZPLR && has_four_bytes(*p) =>
            {
                let [_, _, _, _, _, code, data, ra] = *head;
                (code, data, ra, instructions)
            }
            _ => return Self::parse_any(body, word),
        };
        Self::new(code, data, ra, false, instructions)
    }

    /// What follows the version, with any letters that are known.
    #[inline(never)]
    fn parse_any(body: &'d [u8], word: WordSize) -> Option<Self> {
        let seen = body.get(..LETTERS).unwrap_or(body);
        let end = seen.iter().position(|letter| *letter == 0)?;
        let ([b'z', letters @ ..], [0, code, data, ra, length @ 0..0x80, rest @ ..]) =
            body.split_at_checked(end)?
        else {
            return None;
        };
        let (mut values, instructions) = rest.split_at_checked(usize::from(*length))?;
        let (mut encoding, mut is_signal) = (None, false);
        for letter in letters {
            let skipped = match (letter, values) {
                (b'R', [stated, ..]) => {
                    encoding = Some(*stated);
                    1
                }
                (b'L', _) => 1,
                (b'P', [p, ..]) if has_four_bytes(*p) => 5,
                (b'P', [p, ..]) if has_a_word(*p) => usize::from(word.bytes()).saturating_add(1),
                (b'S', _) => {
                    is_signal = true;
                    0
                }
                (b'B' | b'G', _) => 0,
                _ => return None,
            };
            values = values.get(skipped..)?;
        }
        (encoding == Some(PCREL_SDATA4)).then_some(())?;
        Self::new(*code, *data, *ra, is_signal, instructions)
    }

    /// `None` where a number does not have one byte alone.
    #[inline]
    fn new(code: u8, data: u8, ra: u8, is_signal: bool, instructions: &'d [u8]) -> Option<Self> {
        (code < 0x80 && data < 0x80 && ra < 0x80).then_some(PlainCie {
            code_factor: code,
            data_factor: data.wrapping_shl(1).cast_signed().wrapping_shr(1),
            return_address: Register(u16::from(ra)),
            is_signal,
            instructions,
        })
    }
}

/// Whether a pointer of this encoding has four bytes, without padding before it.
#[inline]
fn has_four_bytes(encoding: u8) -> bool {
    matches!(encoding & FORMAT, 0x03 | 0x0b) && is_unaligned(encoding)
}

/// Whether a pointer of this encoding is a word, without padding before it.
fn has_a_word(encoding: u8) -> bool {
    matches!(encoding & FORMAT, 0x00 | 0x08) && is_unaligned(encoding)
}

#[inline]
fn is_unaligned(encoding: u8) -> bool {
    encoding & 0x70 != 0x50
}

#[inline]
pub(super) fn number(order: ByteOrder, bytes: [u8; 4]) -> u32 {
    match order {
        ByteOrder::Little => u32::from_le_bytes(bytes),
        ByteOrder::Big => u32::from_be_bytes(bytes),
    }
}

#[inline]
pub(super) fn size(order: ByteOrder, bytes: [u8; 4]) -> Option<usize> {
    usize::try_from(number(order, bytes)).ok()
}
