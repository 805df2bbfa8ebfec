//! Source lines, and the functions that were inlined there.

use std::path::Path;

use addr2line::Loader;
use object::{Object, ReadCache};
use unwind_mem::elf::{ElfModule, Origin};

use crate::symbols::{debug_file, demangle};

/// A place in the source.
pub(crate) struct Line {
    pub(crate) function: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    pub(crate) column: Option<u32>,
}

/// The line tables of a module, if it has any.
#[derive(Default)]
pub(crate) struct Lines(Option<Loader>);

impl Lines {
    pub(crate) fn of(module: &ElfModule) -> Self {
        let path = debug_file(module).or_else(|| match &module.origin {
            Origin::File(path) => Some(path.clone()),
            _ => None,
        });
        Lines(path.and_then(|path| load(&path)))
    }

    /// The lines at `svma`, innermost function first.
    pub(crate) fn find(&self, svma: u64) -> Vec<Line> {
        let mut lines = Vec::new();
        let Some(mut frames) = self.0.as_ref().and_then(|loader| loader.find_frames(svma).ok()) else {
            return lines;
        };
        while let Ok(Some(frame)) = frames.next() {
            let function = frame.function.and_then(|name| Some(demangle(&name.raw_name().ok()?)));
            let location = frame.location;
            let line = Line {
                function,
                file: location.as_ref().and_then(|location| location.file.map(str::to_owned)),
                line: location.as_ref().and_then(|location| location.line),
                column: location.as_ref().and_then(|location| location.column),
            };
            if line.function.is_some() || line.file.is_some() {
                lines.push(line);
            }
        }
        lines
    }
}

fn load(path: &Path) -> Option<Loader> {
    // Debug packages share what several files have in common in one more file (dwz).
    let shared = std::fs::File::open(path).ok().and_then(|file| {
        let cache = ReadCache::new(file);
        let file = object::File::parse(&cache).ok()?;
        let (name, _) = file.gnu_debugaltlink().ok()??;
        let name = Path::new(std::str::from_utf8(name).ok()?);
        Some(std::fs::canonicalize(path).ok()?.parent()?.join(name)).filter(|path| path.is_file())
    });
    Loader::new_with_sup(path, shared).ok()
}
