//! Call frame information as an SFrame section.

#[cfg(feature = "alloc")]
use alloc::vec::Vec;

use super::header::{Abi, Version};
use super::write::{SFrameWriter, WriteFunction, WriteRow};
use super::write_room::{Refused, SFrameFormat, WriteError};
use super::write_row::Inexpressible;
use crate::dwarf::{DwarfFunction, DwarfRow, DwarfRule, DwarfSource, Flavor, NoFrame};
use crate::{Arch, LookupError};

/// Something that a converted section does not describe, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unconverted {
    /// An entry that cannot be parsed; nobody knows which addresses it covers.
    Entry(LookupError),
    /// DWARF does not state a frame there.
    NoFrame {
        /// The first address (svma).
        start: u64,
        /// How many bytes.
        length: u64,
        /// Why.
        cause: NoFrame,
    },
    /// SFrame cannot state it.
    Refused(Refused),
}

/// Converts `.eh_frame` or `.debug_frame` into an SFrame section of this version, which will be at
/// `svma`, in the caller's room.
///
/// Wherever the section covers a pc, its rule is the one that DWARF has there. Whatever cannot be
/// converted is told to `unconverted`, and not covered. (A rule that does not depend on the pc
/// is the same for an exact and for a return pc. The one that does is a linkage table's, which no
/// return address points into. And what an entry covers whose address is a pointer in the target's
/// memory, which a lookup may follow, nobody knows here: [`Unconverted::Entry`].)
///
/// # Errors
/// [`WriteError::NoRoom`] where the room is too small, [`WriteError::NoSuchAbi`] where SFrame has no
/// ABI for this architecture.
pub fn convert<'r, A: Arch>(
    arch: &A,
    source: &DwarfSource<'_>,
    flavor: Flavor,
    version: Version,
    svma: u64,
    room: &'r mut [u8],
    unconverted: &mut dyn FnMut(Unconverted),
) -> Result<&'r [u8], WriteError> {
    let abi = Abi::of(arch).ok_or(WriteError::NoSuchAbi)?;
    let mut writer = SFrameWriter::new(SFrameFormat { version, abi, svma }, room);
    for function in source.functions(arch, flavor) {
        match function {
            Ok(function) => add(&mut writer, &function, unconverted),
            Err(error) => unconverted(Unconverted::Entry(error)),
        }
    }
    writer.finish(&mut |refused| unconverted(Unconverted::Refused(refused)))
}

/// [`convert`], into a vector that is just as long as it must be.
///
/// # Errors
/// As for [`convert`]; there always is room.
#[cfg(feature = "alloc")]
pub fn convert_to_vec<A: Arch>(
    arch: &A,
    source: &DwarfSource<'_>,
    flavor: Flavor,
    version: Version,
    svma: u64,
    unconverted: &mut dyn FnMut(Unconverted),
) -> Result<Vec<u8>, WriteError> {
    let needed = match convert(arch, source, flavor, version, svma, &mut [], &mut |_| {}) {
        Err(WriteError::NoRoom { needed }) => needed,
        Err(error) => return Err(error),
        Ok(section) => section.len(),
    };
    let mut room = alloc::vec![0; needed];
    let size = convert(arch, source, flavor, version, svma, &mut room, unconverted)?.len();
    room.truncate(size);
    Ok(room)
}

fn add<A: Arch>(
    writer: &mut SFrameWriter<'_>,
    function: &DwarfFunction<'_, A>,
    unconverted: &mut dyn FnMut(Unconverted),
) {
    let (start, key_b) = (function.start(), function.is_key_b());
    let Ok(size) = u32::try_from(function.length()) else {
        let refused = Refused { start, size: function.length(), cause: Inexpressible::Address };
        return unconverted(Unconverted::Refused(refused));
    };
    let mut has_blocks = false;
    for row in function.rows() {
        match row.rule {
            DwarfRule::Frame(_) => {}
            DwarfRule::Blocks { .. } => has_blocks = true,
            DwarfRule::None(cause) => {
                unconverted(Unconverted::NoFrame { start: row.start, length: row.length, cause });
            }
        }
    }
    let mut refused = |refused| unconverted(Unconverted::Refused(refused));
    let rows = function.rows().map(move |row| WriteRow {
        start: offset(start, row.start),
        frame: match row.rule {
            DwarfRule::Frame(frame) => Some(frame),
            _ => None,
        },
        is_mangled: row.is_ra_signed,
    });
    writer.function(&WriteFunction { start, size, block_size: None, key_b }, rows, &mut refused);
    if !has_blocks {
        return;
    }
    for row in function.rows() {
        add_blocks(writer, &row, key_b, &mut refused);
    }
}

/// Adds a row of code in blocks, as a function of its own.
fn add_blocks(writer: &mut SFrameWriter<'_>, row: &DwarfRow, key_b: bool, refused: &mut dyn FnMut(Refused)) {
    let DwarfRule::Blocks { size, split, first, second } = row.rule else {
        return;
    };
    let is_mangled = row.is_ra_signed;
    let rows = [(0, first), (split, second)].map(|(start, frame)| WriteRow {
        start: u32::from(start),
        frame: Some(frame),
        is_mangled,
    });
    // A row is no longer than its function.
    let length = u32::try_from(row.length).unwrap_or(u32::MAX);
    // The last block may be cut short.
    let reached = usize::from(length > u32::from(split)).saturating_add(1);
    let block_size = core::num::NonZeroU8::new(size);
    let function = WriteFunction { start: row.start, size: length, block_size, key_b };
    writer.function(&function, rows.into_iter().take(reached), refused);
}

/// How far an address is from the start of its function.
fn offset(start: u64, svma: u64) -> u32 {
    u32::try_from(svma.wrapping_sub(start)).unwrap_or(u32::MAX)
}
