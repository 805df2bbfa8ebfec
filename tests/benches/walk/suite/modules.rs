//! From the ELF modules of processes to the images and mappings of a workload.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;

use unwind_mem::elf::{ElfModules, ElfSource, IndexRoom};

use super::workload::{Image, Mapping, Piece, Process, Workload};

/// A workload in the making.
#[derive(Default)]
pub(crate) struct Gathered {
    pub(crate) workload: Workload,
    /// By path and size of tables.
    images: HashMap<(PathBuf, usize), usize>,
}

impl Gathered {
    /// Adds a process. Modules without `.eh_frame_hdr` are left out: what needs an index first is no
    /// measure of lookups.
    pub(crate) fn process(&mut self, program: &str, modules: &ElfModules) -> usize {
        let mut room = IndexRoom::default();
        let sources = modules.sources(&mut room);
        let mut mappings = Vec::new();
        for module in &sources {
            let path = modules.find(module.start).map(|module| module.path.clone()).unwrap_or_default();
            let text = module.start.wrapping_sub(module.bias)..module.end.wrapping_sub(module.bias);
            let Some(source) = &module.source else { continue };
            let Some(image) = self.image(path, source, &text) else { continue };
            let known = &mut self.workload.images[image].text;
            *known = known.start.min(text.start)..known.end.max(text.end);
            mappings.push(Mapping { start: module.start, end: module.end, bias: module.bias, image });
        }
        self.workload.processes.push(Process { program: program.into(), mappings });
        self.workload.processes.len() - 1
    }

    fn image(&mut self, path: PathBuf, source: &ElfSource<'_>, text: &Range<u64>) -> Option<usize> {
        let sections = source.dwarf().sections();
        let (eh_frame, eh_frame_hdr) = sections.eh_frame.zip(sections.eh_frame_hdr)?;
        let images = &mut self.workload.images;
        let key = (path.clone(), eh_frame.data.len());
        let known = self.images.get(&key).copied();
        if let Some(known) = known.filter(|known| images[*known].eh_frame.data == eh_frame.data) {
            return Some(known);
        }
        images.push(Image {
            path,
            eh_frame: Piece::new(eh_frame),
            eh_frame_hdr: Piece::new(eh_frame_hdr),
            text_svma: sections.text_svma,
            got_svma: sections.got_svma,
            text: text.clone(),
        });
        self.images.insert(key, images.len() - 1);
        Some(images.len() - 1)
    }
}
