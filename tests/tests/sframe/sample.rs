//! The samples, with the texts of their sections.

use std::path::Path;

use unwind_core::sframe::{SFrameSection, SFrameSections};
use unwind_tests::sframe::{Elf, files};

use super::text::Text;

/// Rows that no register file has a rule for: file, function, row. The reader refuses the row, and
/// it alone.
const REFUSED_ROWS: [(&str, u32, u32); 2] = [
    // gas 2.47 writes register 536870911 for `DW_CFA_expression(FP, breg7+n)`.
    ("v3/special-x86_64.o", 12, 1),
    // By hand: RA in register -1.
    ("odd/odd-s390x.v2.o", 0, 11),
];

/// Files with a section that no objdump prints: 2.40 and 2.44 abort on rows at a function's end, and
/// the empty section of ld 2.47 has nothing to print.
const WITHOUT_TEXT: [&str; 3] =
    ["odd/behind-x86_64.v1.o", "odd/behind-x86_64.v2.o", "quirks/ld247-empty-x86_64"];

/// Files that hold two sections, one after another.
pub const CONCATENATED: [&str; 4] = [
    "quirks/ld244-concat-x86_64.v3",
    "quirks/lld22-concat-noflag-x86_64.v2",
    "quirks/lld22-concat-x86_64.v3",
    "v2pcrel/chain-clang22-lld22-x86_64",
];

/// A sample, with the texts of its sections.
pub struct Sample {
    pub name: String,
    pub elf: Elf,
    pub texts: Vec<Text>,
    /// The section as its text has it. objdump 2.47 carries out relocations; 2.40 and 2.44, which
    /// read what has no flag for relative starts, do not.
    printed: Vec<u8>,
}

impl Sample {
    pub fn sections(&self) -> Vec<SFrameSection<'_>> {
        let sections: Result<Vec<_>, _> = SFrameSections::new(&self.printed, self.elf.svma).collect();
        let sections = sections.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        if WITHOUT_TEXT.contains(&self.name.as_str()) {
            return Vec::new();
        }
        assert_eq!(sections.len(), self.texts.len(), "{}: sections", self.name);
        sections
    }

    pub fn is_refused(&self, fde: u32, row: u32) -> bool {
        REFUSED_ROWS.contains(&(self.name.as_str(), fde, row))
    }
}

/// All of them. Panics where a file has no text and is not known to have none.
pub fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for (name, path) in files() {
        let texts = texts(&path);
        assert_eq!(texts.is_empty(), WITHOUT_TEXT.contains(&&*name), "{name}");
        assert_eq!(texts.len() == 2, CONCATENATED.contains(&&*name), "{name}");
        let elf = Elf::read(&path);
        let is_pcrel = texts.iter().any(|text| text.flags.iter().any(|flag| flag.ends_with("PCREL")));
        let printed = if is_pcrel { elf.relocated() } else { elf.sframe.clone() };
        samples.push(Sample { name, elf, texts, printed });
    }
    samples
}

fn texts(path: &Path) -> Vec<Text> {
    let file = |end: &str| format!("{}.{end}", path.display());
    let files = [file("objdump.txt"), file("second.objdump.txt")];
    let texts = files.iter().filter_map(|file| std::fs::read_to_string(file).ok());
    texts.map(|text| Text::parse(&text)).collect()
}
