//! The program's memory and files, seen from beside the emulator, whose memory they are in.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::plan::Plan;
use super::symbols::Loaded;
use super::target::Target;
use crate::captured::Function;

/// A mapping of the program.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    /// The program's addresses.
    pub(super) range: Range<u64>,
    pub(super) writable: bool,
    /// The offset in its file.
    pub(super) offset: u64,
    path: PathBuf,
}

/// The program being captured.
pub(super) struct Guest {
    memory: File,
    maps: PathBuf,
    base: u64,
    program: PathBuf,
    sysroot: PathBuf,
    /// The sections that are kept of every file.
    sections: Vec<String>,
    code_mask: u64,
    pub(super) files: Vec<Loaded>,
    mappings: Vec<Mapping>,
    /// Pages of code that no file has: the signal trampoline's.
    strangers: Vec<u64>,
}

impl Guest {
    pub(super) fn new(emulator: u32, plan: &Plan, target: &Target) -> io::Result<Self> {
        let process = PathBuf::from(format!("/proc/{emulator}"));
        let mut guest = Guest {
            memory: File::open(process.join("mem"))?,
            maps: process.join("maps"),
            base: target.guest_base,
            program: plan.program.canonicalize()?,
            sysroot: plan.sysroot.clone(),
            sections: plan.sections.clone(),
            code_mask: target.code_mask,
            files: Vec::new(),
            mappings: Vec::new(),
            strangers: Vec::new(),
        };
        guest.refresh()?;
        Ok(guest)
    }

    pub(super) fn read(&self, address: u64, into: &mut [u8]) -> io::Result<()> {
        self.memory.read_exact_at(into, address.wrapping_add(self.base))
    }

    /// As many bytes as there are, up to `most`.
    pub(super) fn read_some(&self, address: u64, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; most];
        let read = self.memory.read_at(&mut bytes, address.wrapping_add(self.base)).unwrap_or(0);
        bytes.truncate(read);
        bytes
    }

    /// The writable mapping that `sp` points into, or to the end of.
    pub(super) fn stack_at(&mut self, sp: u64) -> io::Result<Option<Range<u64>>> {
        let around = |mapping: &&Mapping| mapping.range.start < sp && sp <= mapping.range.end;
        if self.mappings.iter().find(around).is_none_or(|mapping| !mapping.writable) {
            self.refresh()?;
        }
        let mapping = self.mappings.iter().find(around).filter(|mapping| mapping.writable);
        Ok(mapping.map(|mapping| mapping.range.clone()))
    }

    /// Takes note of the file that `pc` is in.
    pub(super) fn visit(&mut self, pc: u64) -> io::Result<()> {
        let page = pc >> 12;
        if !self.strangers.contains(&page) && !self.files.iter().any(|file| file.is_code(pc)) {
            self.refresh()?;
            if !self.files.iter().any(|file| file.is_code(pc)) {
                self.strangers.push(page);
            }
        }
        Ok(())
    }

    pub(super) fn function(&self, address: u64) -> Option<&Function> {
        self.files.iter().find(|file| file.is_code(address))?.function(address)
    }

    /// The functions of the program itself whose names begin with `prefix`.
    pub(super) fn named<'g>(&'g self, prefix: &'g str) -> impl Iterator<Item = &'g Function> {
        let program = self.files.iter().filter(|file| file.path == self.program);
        program.flat_map(move |file| file.named(prefix))
    }

    /// Whether `address` is in the program itself, or in a library beside it.
    pub(super) fn is_own(&self, address: u64) -> bool {
        let file = self.files.iter().find(|file| file.is_code(address));
        file.is_some_and(|file| file.path.starts_with(self.folder()))
    }

    fn folder(&self) -> &Path {
        self.program.parent().unwrap_or(&self.program)
    }

    fn refresh(&mut self) -> io::Result<()> {
        let maps = std::fs::read_to_string(&self.maps)?;
        self.mappings = maps.lines().filter_map(|line| mapping(line, self.base)).collect();
        let ours = |path: &&PathBuf| path.starts_with(self.folder()) || path.starts_with(&self.sysroot);
        let mut paths: Vec<_> =
            self.mappings.iter().map(|mapping| &mapping.path).filter(ours).cloned().collect();
        paths.dedup();
        for path in paths {
            if self.files.iter().any(|file| file.path == path) {
                continue;
            }
            let mappings = self.mappings.iter().filter(|mapping| mapping.path == path);
            let mappings: Vec<_> = mappings.cloned().collect();
            self.files.extend(Loaded::new(&path, &mappings, &self.sections, self.code_mask)?);
        }
        Ok(())
    }
}

/// A line of `/proc/PID/maps`: range, permissions, offset, device, inode, path.
fn mapping(line: &str, base: u64) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
    let path = fields.nth(2).unwrap_or_default().into();
    let address = |digits| u64::from_str_radix(digits, 16).ok()?.checked_sub(base);
    let range = address(start)?..address(end)?;
    Some(Mapping { range, writable: permissions.starts_with("rw"), offset, path })
}
