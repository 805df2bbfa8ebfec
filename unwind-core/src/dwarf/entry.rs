//! CIEs and FDEs: DWARF 5 section 6.4.1, and the `.eh_frame` chapter of the Linux Standard Base.
//!
//! Their headers and instructions are decoded here rather than by gimli's call frame types, which
//! refuse whole CIEs with Arm's `B` and `G` augmentations, have no `negate_ra_state_with_pc`, no
//! segment selectors, and take an indirect pointer for the address itself. gimli's own tables then
//! are an independent judge in the tests.

use super::bytes::Bytes;
use super::section::{Flavor, Input};
use crate::{Broken, LookupError, Register, SourceError, WordSize};

/// The most letters of an augmentation. A CIE is parsed for each of its FDEs, so that a long one would make a
/// scan quadratic; those that are known are seven.
const LETTERS: usize = 16;

/// One entry of a section: its identity, before anything else of it is parsed.
#[derive(Clone, Copy)]
pub(super) struct Entry<'d> {
    /// Where it begins in the section.
    pub(super) offset: u64,
    /// For an FDE, the offset of its CIE.
    pub(super) cie: Option<u64>,
    body: Bytes<'d>,
}

/// What a Common Information Entry says.
#[derive(Clone, Copy)]
pub(super) struct Cie<'d> {
    pub(super) code_alignment: u64,
    pub(super) data_alignment: i64,
    /// The column of the return address.
    pub(super) return_address: Register,
    /// The frames described are signal trampolines' (augmentation `S`).
    pub(super) is_signal: bool,
    /// Return addresses are signed with the B key, not the A key (augmentation `B`).
    pub(super) is_key_b: bool,
    pub(super) instructions: Bytes<'d>,
    pub(super) pointer_encoding: u8,
    /// The size of an address here; `.debug_frame` of version 4 states it.
    pub(super) address_size: WordSize,
    segment_size: u8,
    has_augmentation_data: bool,
}

/// What a Frame Description Entry says.
#[derive(Clone, Copy)]
pub(super) struct Fde<'d> {
    pub(super) offset: u64,
    /// Where the next entry begins.
    pub(super) next: u64,
    /// The first address (svma).
    pub(super) start: u64,
    /// How many bytes of code.
    pub(super) length: u64,
    pub(super) cie: Cie<'d>,
    pub(super) instructions: Bytes<'d>,
}

/// What is at a place in a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Here {
    Fde,
    /// A CIE, or an FDE of another segment.
    Other,
    /// The terminator, or the end of the section.
    End,
}

impl<'d> Fde<'d> {
    /// Parses the FDE that begins at `offset`, or behind padding there, in the place of `fde`. Its parts are functions of
    /// their own, so that one of them at a time is on the stack.
    ///
    /// # Errors
    /// Where an entry is malformed; [`next`](Fde::next) then says whether its length is sound.
    #[inline(never)]
    pub(super) fn parse_at(
        input: &mut Input<'d, '_>,
        offset: u64,
        fde: &mut Fde<'d>,
    ) -> Result<Here, LookupError> {
        fde.next = offset;
        // It is large: looked at where it is.
        match &entry_at(input, offset) {
            Ok(Some(entry)) => {
                fde.next = entry.next();
                let is_one = entry.parse_fde_into(input, fde);
                is_one.map(|is_one| if is_one { Here::Fde } else { Here::Other })
            }
            Ok(None) => Ok(Here::End),
            Err(error) => Err((*error).into()),
        }
    }

    /// Room for an FDE.
    pub(super) fn blank() -> Self {
        Fde {
            offset: 0,
            next: 0,
            start: 0,
            length: 0,
            cie: Cie::blank(WordSize::Eight),
            instructions: Bytes::none(),
        }
    }

    /// Whether `svma` is in the range, which may wrap around the end of the address space.
    pub(super) fn contains(&self, svma: u64) -> bool {
        self.cie.address_size.truncate(svma.wrapping_sub(self.start)) < self.length
    }

    /// Whether `svma` is the last address of the range.
    pub(super) fn ends_with(&self, svma: u64) -> bool {
        self.cie.address_size.truncate(svma.wrapping_sub(self.start)) == self.length.wrapping_sub(1)
    }
}

/// The entry at `offset`: `None` at the terminator and at the end of the section.
#[inline(never)]
pub(super) fn entry_at<'d>(input: &Input<'d, '_>, offset: u64) -> Result<Option<Entry<'d>>, SourceError> {
    let mut bytes = input.at(offset);
    // Each turn takes four bytes of padding, and the end of the section ends this.
    loop {
        if bytes.is_empty() {
            return Ok(None);
        }
        let offset = bytes.offset();
        let error = |broken| SourceError { broken, offset };
        let mut length = u64::from(bytes.u32()?);
        if length == 0 {
            if input.flavor == Flavor::EhFrame {
                return Ok(None);
            }
            // Some assemblers pad `.debug_frame` with zero lengths.
            continue;
        }
        let is_64 = length == 0xffff_ffff;
        if is_64 {
            length = bytes.u64()?;
        } else if length >= 0xffff_fff0 {
            return Err(error(Broken::Malformed));
        }
        let mut body = bytes.split(length).map_err(|_| error(Broken::OutOfBounds))?;
        let id_offset = body.offset();
        // In `.eh_frame` the CIE pointer has 4 bytes even where the length has 8.
        let id = match (input.flavor, is_64) {
            (Flavor::DebugFrame, true) => body.u64()?,
            _ => u64::from(body.u32()?),
        };
        let cie = match (input.flavor, is_64) {
            (Flavor::EhFrame, _) if id == 0 => None,
            (Flavor::EhFrame, _) => Some(id_offset.checked_sub(id).ok_or(error(Broken::BadFde))?),
            (Flavor::DebugFrame, false) if id == 0xffff_ffff => None,
            (Flavor::DebugFrame, true) if id == u64::MAX => None,
            (Flavor::DebugFrame, _) => Some(id),
        };
        return Ok(Some(Entry { offset, cie, body }));
    }
}

impl<'d> Entry<'d> {
    /// Where the next one begins.
    pub(super) fn next(&self) -> u64 {
        self.body.end()
    }

    /// Parses this entry as a CIE, up to its augmentation data: the letters that say what these are.
    fn parse_cie(&self, input: &Input<'d, '_>, cie: &mut Cie<'d>) -> Result<&'d [u8], SourceError> {
        let error = |broken| SourceError { broken, offset: self.offset };
        if self.cie.is_some() {
            return Err(error(Broken::BadCie));
        }
        let mut bytes = self.body;
        let version = bytes.u8()?;
        if !matches!(version, 1 | 3 | 4) {
            return Err(error(Broken::UnknownVersion));
        }
        let augmentation = bytes.null_terminated(LETTERS)?.ok_or(error(Broken::UnknownAugmentation))?;
        *cie = Cie::blank(input.word);
        if input.flavor == Flavor::DebugFrame && version == 4 {
            cie.address_size = WordSize::from_bytes(bytes.u8()?).ok_or(error(Broken::BadCie))?;
            cie.segment_size = bytes.u8()?;
        }
        if augmentation == b"eh" {
            // GCC 2's: the address of an exception table.
            bytes.word(cie.address_size)?;
        }
        cie.code_alignment = bytes.uleb128()?;
        cie.data_alignment = bytes.sleb128()?;
        let number = if version == 1 { u64::from(bytes.u8()?) } else { bytes.uleb128()? };
        cie.return_address = Register(u16::try_from(number).map_err(|_| error(Broken::BadCie))?);
        cie.instructions = bytes;
        Ok(if augmentation == b"eh" { &[] } else { augmentation })
    }

    /// Parses this entry as an FDE; `None` if it is a CIE, or belongs to another segment.
    pub(super) fn parse_fde(&self, input: &mut Input<'d, '_>) -> Result<Option<Fde<'d>>, LookupError> {
        let mut fde = Fde::blank();
        Ok(self.parse_fde_into(input, &mut fde)?.then_some(fde))
    }

    /// The same, in the place of `fde`: whether it is one.
    #[inline(always)]
    pub(super) fn parse_fde_into(
        &self,
        input: &mut Input<'d, '_>,
        fde: &mut Fde<'d>,
    ) -> Result<bool, LookupError> {
        let Some(cie_offset) = self.cie else {
            return Ok(false);
        };
        let augmentation = self.parse_its_cie(cie_offset, input, &mut fde.cie)?;
        fde.cie.parse_augmentation(augmentation, input, cie_offset)?;
        self.parse_fde_of(input, fde)
    }

    /// Parses the CIE of this FDE, up to its augmentation data.
    #[inline(never)]
    fn parse_its_cie(
        &self,
        offset: u64,
        input: &Input<'d, '_>,
        cie: &mut Cie<'d>,
    ) -> Result<&'d [u8], SourceError> {
        let bad_cie = SourceError { broken: Broken::BadCie, offset: self.offset };
        // Padding is no CIE. It is not passed over here, or as many entries as there are could each do so.
        if input.flavor == Flavor::DebugFrame && input.at(offset).u32() == Ok(0) {
            return Err(bad_cie);
        }
        let entry = entry_at(input, offset)?.filter(|entry| entry.offset == offset).ok_or(bad_cie)?;
        entry.parse_cie(input, cie)
    }

    /// Parses this entry as an FDE whose CIE is that of `fde`: whether it is one.
    #[inline(never)]
    pub(super) fn parse_fde_of(
        &self,
        input: &mut Input<'d, '_>,
        fde: &mut Fde<'d>,
    ) -> Result<bool, LookupError> {
        let cie = &fde.cie;
        let mut bytes = self.body;
        let mut segment = bytes.split(u64::from(cie.segment_size))?;
        // At most 255 times: the size is a byte.
        while !segment.is_empty() {
            if segment.u8()? != 0 {
                return Ok(false);
            }
        }
        let encoding = cie.pointer_encoding;
        fde.offset = self.offset;
        fde.start = input.pointer(&mut bytes, encoding, cie.address_size)?;
        let length = encoded_value(&mut bytes, encoding & FORMAT, cie.address_size)?;
        fde.length = cie.address_size.truncate(length);
        if cie.has_augmentation_data {
            let length = bytes.uleb128()?;
            bytes.split(length)?;
        }
        fde.instructions = bytes;
        Ok(true)
    }
}

impl<'d> Cie<'d> {
    fn blank(address_size: WordSize) -> Self {
        Cie {
            code_alignment: 0,
            data_alignment: 0,
            return_address: Register(0),
            is_signal: false,
            is_key_b: false,
            instructions: Bytes::none(),
            pointer_encoding: 0,
            address_size,
            segment_size: 0,
            has_augmentation_data: false,
        }
    }

    #[inline(never)]
    fn parse_augmentation(
        &mut self,
        augmentation: &[u8],
        input: &Input<'d, '_>,
        offset: u64,
    ) -> Result<(), SourceError> {
        let unknown = SourceError { broken: Broken::UnknownAugmentation, offset };
        let mut data = None;
        // Once for each byte of the entry at most; the first letter that is not known ends it.
        for (index, letter) in augmentation.iter().enumerate() {
            match (letter, &mut data) {
                (b'z', _) if index == 0 => {
                    self.has_augmentation_data = true;
                    let length = self.instructions.uleb128()?;
                    data = Some(self.instructions.split(length)?);
                }
                (b'R', Some(data)) => self.pointer_encoding = data.u8()?,
                (b'L', Some(data)) => {
                    data.u8()?;
                }
                (b'P', Some(data)) => {
                    let encoding = data.u8()?;
                    input.align(data, encoding, self.address_size)?;
                    encoded_value(data, encoding & FORMAT, self.address_size)?;
                }
                (b'S', _) => self.is_signal = true,
                // "DWARF for the Arm 64-bit Architecture": the frame's return address is signed
                // with the B key; its stack is tagged. Neither changes a rule.
                (b'B', _) => self.is_key_b = true,
                (b'G', _) => {}
                _ => return Err(unknown),
            }
        }
        Ok(())
    }
}

/// The bits of a pointer encoding that say how it is stored.
pub(super) const FORMAT: u8 = 0x0f;
/// The bits that say what it is relative to.
const APPLICATION: u8 = 0x70;
/// The bit that says that the pointer is stored at the address.
const INDIRECT: u8 = 0x80;
/// No pointer at all.
const OMIT: u8 = 0xff;
/// An absolute word, aligned.
const ALIGNED: u8 = 0x50;

impl<'d> Input<'d, '_> {
    /// A pointer in this section (svma).
    pub(super) fn pointer(
        &mut self,
        bytes: &mut Bytes<'d>,
        encoding: u8,
        word: WordSize,
    ) -> Result<u64, LookupError> {
        let unknown = bytes.error(Broken::UnknownPointerEncoding);
        if encoding == OMIT {
            return Err(unknown.into());
        }
        let base = match encoding & APPLICATION {
            0x00 => Some(0),
            0x10 => Some(self.svma().wrapping_add(bytes.offset())),
            0x20 => self.sections.text_svma,
            0x30 => self.sections.got_svma,
            ALIGNED => {
                self.align(bytes, encoding, word)?;
                Some(0)
            }
            _ => None,
        };
        let base = base.ok_or(unknown)?;
        let value = encoded_value(bytes, encoding & FORMAT, word)?;
        let pointer = word.wrapping_offset(base, value);
        if encoding & INDIRECT == 0 { Ok(pointer) } else { Ok(self.indirect(pointer, word)?) }
    }

    /// Skips the padding before an aligned pointer.
    fn align(&self, bytes: &mut Bytes<'d>, encoding: u8, word: WordSize) -> Result<(), SourceError> {
        if encoding & APPLICATION == ALIGNED && encoding != OMIT {
            let address = self.svma().wrapping_add(bytes.offset());
            let mask = u64::from(word.bytes()).wrapping_sub(1);
            bytes.split(address.wrapping_neg() & mask)?;
        }
        Ok(())
    }
}

/// A number stored as the low bits of a pointer encoding say, sign-extended where it is signed.
pub(super) fn encoded_value(bytes: &mut Bytes<'_>, format: u8, word: WordSize) -> Result<u64, SourceError> {
    let unknown = bytes.error(Broken::UnknownPointerEncoding);
    match format {
        0x00 => bytes.word(word),
        0x01 => bytes.uleb128(),
        0x02 => bytes.u16().map(u64::from),
        0x03 => bytes.u32().map(u64::from),
        0x04 | 0x0c => bytes.u64(),
        // A signed word: wrapping addition needs no sign at the full width.
        0x08 => bytes.word(word),
        0x09 => bytes.sleb128().map(i64::cast_unsigned),
        0x0a => bytes.u16().map(|value| i64::from(value.cast_signed()).cast_unsigned()),
        0x0b => bytes.u32().map(|value| i64::from(value.cast_signed()).cast_unsigned()),
        _ => Err(unknown),
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::dwarf::testing::{KINDS, Kind, four};
    use crate::dwarf::{DwarfSections, DwarfSource, Section};

    /// A CIE whose augmentation has so many letters, and an FDE.
    fn section(kind: &Kind, letters: usize) -> Vec<u8> {
        let mut cie = vec![0, 0, 0, 0, 1, b'z'];
        cie.extend(vec![b'S'; letters - 1]);
        // Factors, return address, no data.
        cie.extend([0, 1, 0x78, 16, 0]);
        let mut fde = four(kind.order, cie.len() as u64 + 8).to_vec();
        // An address and a length of a word each, no data.
        fde.extend(vec![1; 2 * usize::from(kind.word.bytes())]);
        fde.push(0);
        let mut section = Vec::new();
        for entry in [cie, fde] {
            section.extend(four(kind.order, entry.len() as u64));
            section.extend(entry);
        }
        section
    }

    #[test]
    fn an_augmentation_has_no_more_letters_than_are_read() {
        for kind in &KINDS {
            for letters in [1, LETTERS, LETTERS + 1, 1000] {
                let data = section(kind, letters);
                let eh_frame = Some(Section { data: &data, svma: 0 });
                let source = DwarfSource::new(DwarfSections { eh_frame, ..DwarfSections::default() });
                let function = source.functions(kind, Flavor::EhFrame).next();
                let function = function.map(|function| function.map(|function| function.is_signal()));
                let unknown = SourceError { broken: Broken::UnknownAugmentation, offset: 0 };
                let expected = if letters > LETTERS { Err(unknown.into()) } else { Ok(letters > 1) };
                assert_eq!(function, Some(expected), "{letters}");
            }
        }
    }
}
