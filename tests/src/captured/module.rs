//! What unwinding needs of one file: where its code is, and its tables.

use std::ops::Range;

use super::bytes::{FormatError, Reader, Writer, body};

const MAGIC: &[u8; 8] = b"UWMODUL1";

/// A section, as its file states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedSection {
    /// Its name, with the dot.
    pub name: String,
    /// Its address (svma).
    pub svma: u64,
    /// Its contents.
    pub data: Vec<u8>,
}

/// One file of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedModule {
    /// The file's name, without folders.
    pub name: String,
    /// Its executable segments (svma).
    pub code: Vec<Range<u64>>,
    /// Those that unwinding needs, as far as the file has them.
    pub sections: Vec<CapturedSection>,
}

impl CapturedModule {
    /// The section of this name.
    pub fn section(&self, name: &str) -> Option<&CapturedSection> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// The file that stands for this module.
    pub fn to_file(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.name(&self.name);
        writer.number(self.code.len() as u64);
        for range in &self.code {
            writer.number(range.start);
            writer.number(range.end - range.start);
        }
        writer.number(self.sections.len() as u64);
        for section in &self.sections {
            writer.name(&section.name);
            writer.number(section.svma);
            writer.blob(&section.data);
        }
        writer.file(MAGIC)
    }

    /// The module that `file` stands for.
    ///
    /// # Errors
    /// Where it is none.
    pub fn from_file(file: &[u8]) -> Result<Self, FormatError> {
        let body = body(MAGIC, file)?;
        let mut reader = Reader { bytes: &body };
        let name = reader.name()?;
        let mut code = Vec::new();
        for _ in 0..reader.count()? {
            let start = reader.number()?;
            let end = start.checked_add(reader.number()?).ok_or(FormatError::Value("range"))?;
            code.push(start..end);
        }
        let mut sections = Vec::new();
        for _ in 0..reader.count()? {
            let name = reader.name()?;
            let svma = reader.number()?;
            sections.push(CapturedSection { name, svma, data: reader.blob()?.to_vec() });
        }
        reader.end()?;
        Ok(CapturedModule { name, code, sections })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_back() {
        let module = CapturedModule {
            name: "libexample.so.1".into(),
            code: vec![0x1000..0x3000, 0x8000..0x8004],
            sections: vec![
                CapturedSection { name: ".eh_frame".into(), svma: 0x4000, data: (0..255).collect() },
                CapturedSection { name: ".eh_frame_hdr".into(), svma: 0x5000, data: Vec::new() },
            ],
        };
        let file = module.to_file();
        assert_eq!(CapturedModule::from_file(&file), Ok(module));
        assert_eq!(CapturedModule::from_file(&file[1..]), Err(FormatError::Magic));
    }
}
