//! What is made of the modules' tables before the walks.

use unwind_arch::host::HostArch;
use unwind_core::dwarf::Flavor;
use unwind_core::sframe::{SFrameSource, Version, convert_to_vec};
use unwind_core::table::{Table, compile_to_vec};

use super::workload::{Image, Workload};

/// For each image, its `.eh_frame` as a compiled table and as an SFrame section.
pub(crate) struct Tables {
    compiled: Vec<Vec<u8>>,
    /// Section and svma.
    sframe: Vec<(Vec<u8>, u64)>,
}

impl Tables {
    pub(crate) fn new(workload: &Workload) -> Self {
        Tables {
            compiled: workload.images.iter().map(compile).collect(),
            sframe: workload.images.iter().map(to_sframe).collect(),
        }
    }

    pub(crate) fn compiled(&self, image: usize) -> &[u8] {
        &self.compiled[image]
    }

    pub(crate) fn table(&self, image: usize) -> Table<'_> {
        Table::parse(&self.compiled[image]).expect("it has just been made")
    }

    /// Bytes of the SFrame section.
    pub(crate) fn sframe_size(&self, image: usize) -> usize {
        self.sframe[image].0.len()
    }

    pub(crate) fn sframe(&self, image: usize) -> SFrameSource<'_> {
        let (data, svma) = &self.sframe[image];
        SFrameSource::new(data, *svma)
    }
}

/// Its `.eh_frame` as a table.
pub(crate) fn compile(image: &Image) -> Vec<u8> {
    let table = compile_to_vec(HostArch::host(), image.dwarf(), image.text.clone(), |_| {});
    table.unwrap_or_else(|error| panic!("{}: {error:?}", image.path.display()))
}

/// The same as an SFrame section, which is said to be where `.eh_frame` is: distances are alike.
fn to_sframe(image: &Image) -> (Vec<u8>, u64) {
    let svma = image.eh_frame.svma & !7;
    let source = image.dwarf();
    // What SFrame cannot say stays with `.eh_frame`.
    let section = convert_to_vec(&HostArch::host(), &source, Flavor::EhFrame, Version::V3, svma, &mut |_| {});
    (section.expect("there is room"), svma)
}
