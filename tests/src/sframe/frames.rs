//! The call frame information that a section was, or will be, converted from.

use object::{Object, ObjectSection};
use unwind_core::dwarf::{DwarfSections, Flavor, Section};

/// The call frame information of a file, owned.
pub struct FrameSections {
    eh_frame: Option<(Vec<u8>, u64)>,
    hdr: Option<(Vec<u8>, u64)>,
    debug_frame: Option<(Vec<u8>, u64)>,
    text_svma: Option<u64>,
    got_svma: Option<u64>,
}

impl FrameSections {
    /// Panics where a section cannot be decompressed.
    pub fn of(file: &object::File<'_>) -> Self {
        let section = |name: &str| {
            let section = file.section_by_name(name)?;
            Some((section.uncompressed_data().expect("a sound file").into_owned(), section.address()))
        };
        let address = |name| file.section_by_name(name).map(|section| section.address());
        FrameSections {
            eh_frame: section(".eh_frame"),
            hdr: section(".eh_frame_hdr"),
            debug_frame: section(".debug_frame"),
            text_svma: address(".text"),
            got_svma: address(".got"),
        }
    }

    /// The section of one flavor, with what belongs to it.
    pub fn borrow(&self, flavor: Flavor) -> DwarfSections<'_> {
        fn section(owned: &Option<(Vec<u8>, u64)>) -> Option<Section<'_>> {
            owned.as_ref().map(|(data, svma)| Section { data, svma: *svma })
        }
        let sections =
            DwarfSections { text_svma: self.text_svma, got_svma: self.got_svma, ..DwarfSections::default() };
        match flavor {
            Flavor::EhFrame => DwarfSections {
                eh_frame: section(&self.eh_frame),
                eh_frame_hdr: section(&self.hdr),
                ..sections
            },
            Flavor::DebugFrame => DwarfSections { debug_frame: section(&self.debug_frame), ..sections },
        }
    }
}
