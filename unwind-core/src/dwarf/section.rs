//! The sections a source is made of, and one of them being read on behalf of a target.

use super::bytes::Bytes;
use super::index::DwarfIndex;
use crate::memory::MemoryReader;
use crate::{Arch, ByteOrder, MemoryError, WordSize};

/// The bytes of a section, and the address its file states for it.
#[derive(Clone, Copy, Debug)]
pub struct Section<'d> {
    /// Its contents.
    pub data: &'d [u8],
    /// Its address (svma).
    pub svma: u64,
}

/// The call frame information of one module.
#[derive(Clone, Copy, Debug, Default)]
pub struct DwarfSections<'d> {
    /// `.eh_frame`. Where it and `.debug_frame` both cover a pc, this one counts.
    pub eh_frame: Option<Section<'d>>,
    /// `.eh_frame_hdr`: the search table of `.eh_frame`. Without it `.eh_frame` is scanned, or
    /// found through an index.
    pub eh_frame_hdr: Option<Section<'d>>,
    /// `.debug_frame`.
    pub debug_frame: Option<Section<'d>>,
    /// The address of `.text` (svma): the base of text-relative pointers.
    pub text_svma: Option<u64>,
    /// The address of `.got` (svma): the base of data-relative pointers in `.eh_frame`.
    pub got_svma: Option<u64>,
    /// An index of `.eh_frame`, for modules without `.eh_frame_hdr`.
    pub eh_frame_index: Option<DwarfIndex<'d>>,
    /// An index of `.debug_frame`.
    pub debug_frame_index: Option<DwarfIndex<'d>>,
}

impl<'d> DwarfSections<'d> {
    /// The section of this flavor.
    pub(super) fn of(&self, flavor: Flavor) -> Option<Section<'d>> {
        match flavor {
            Flavor::EhFrame => self.eh_frame,
            Flavor::DebugFrame => self.debug_frame,
        }
    }
}

/// Which of the two formats a section has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// `.eh_frame`: the Linux Standard Base's.
    EhFrame,
    /// `.debug_frame`: DWARF's.
    DebugFrame,
}

/// A section being read on behalf of a target.
pub(super) struct Input<'d, 'm> {
    pub(super) sections: &'m DwarfSections<'d>,
    pub(super) flavor: Flavor,
    pub(super) word: WordSize,
    pub(super) order: ByteOrder,
    pub(super) bias: u64,
    pub(super) memory: &'m mut dyn MemoryReader,
}

impl<'d, 'm> Input<'d, 'm> {
    /// The section of this flavor, if there is one.
    pub(super) fn new<A: Arch>(
        arch: &A,
        sections: &'m DwarfSections<'d>,
        flavor: Flavor,
        bias: u64,
        memory: &'m mut dyn MemoryReader,
    ) -> Option<Self> {
        let (word, order) = (arch.word_size(), arch.byte_order());
        let mut input = Input { sections, flavor, word, order, bias, memory };
        input.turn_to(flavor).then_some(input)
    }

    /// Any section that there is.
    pub(super) fn any<A: Arch>(
        arch: &A,
        sections: &'m DwarfSections<'d>,
        bias: u64,
        memory: &'m mut dyn MemoryReader,
    ) -> Option<Self> {
        let flavor = if sections.eh_frame.is_some() { Flavor::EhFrame } else { Flavor::DebugFrame };
        Input::new(arch, sections, flavor, bias, memory)
    }

    /// Goes on with the section of this flavor: whether there is one.
    pub(super) fn turn_to(&mut self, flavor: Flavor) -> bool {
        let is_there = self.sections.of(flavor).is_some();
        if is_there {
            self.flavor = flavor;
        }
        is_there
    }

    /// The section at hand. It is there.
    fn section(&self) -> Section<'d> {
        self.sections.of(self.flavor).unwrap_or(Section { data: &[], svma: 0 })
    }

    /// The address of the section (svma).
    pub(super) fn svma(&self) -> u64 {
        self.section().svma
    }

    /// The section from `offset` on.
    pub(super) fn at(&self, offset: u64) -> Bytes<'d> {
        Bytes::new(self.section().data, offset, self.order)
    }

    /// A register that the target saved at `address` (avma).
    pub(super) fn read_register(&mut self, address: u64, size: WordSize) -> Result<u64, MemoryError> {
        self.memory.read_word(address, size, self.order)
    }

    /// The pointer (svma) that the target's memory holds at `place` (svma). What a loader wrote
    /// there is an avma.
    pub(super) fn indirect(&mut self, place: u64, word: WordSize) -> Result<u64, MemoryError> {
        let place = word.wrapping_offset(place, self.bias);
        let avma = self.memory.read_word(place, word, self.order)?;
        Ok(word.truncate(avma.wrapping_sub(self.bias)))
    }
}

/// The memory of no target.
pub(super) struct NoMemory;

impl MemoryReader for NoMemory {
    fn read(&mut self, address: u64, _: &mut [u8]) -> Result<(), MemoryError> {
        Err(MemoryError::Unreadable { address })
    }
}
