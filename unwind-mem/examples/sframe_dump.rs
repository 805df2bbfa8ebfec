//! Prints the SFrame sections of ELF files, as `objdump --sframe` does.
//!
//! ```text
//! cargo run -p unwind-mem --example sframe_dump -- [--check] FILE…
//! ```
//!
//! Unlike objdump, it prints all of the sections that linkers have put one after another, reads
//! versions 1, 2 and 3 of every machine, finds the segment `PT_GNU_SFRAME` where a file has lost its
//! section headers, and shows the addresses of functions in relocatable files of every version.
//! `--check` adds what the full check of each section finds. The exit status is 1 where something is
//! wrong with a file.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use object::read::elf::{ElfFile64, ElfSection64, ProgramHeader};
use object::{Architecture, Endianness, FileKind, Object, ObjectKind, ObjectSection, ObjectSymbol};
use object::{RelocationFlags, RelocationTarget, elf};
use unwind_core::sframe::{SFrameSection, SFrameSections};

/// `PT_GNU_SFRAME`.
const SEGMENT: u32 = 0x6474_e554;

const USAGE: &str = "usage: sframe_dump [--check] FILE…";

type Elf<'d> = ElfFile64<'d, Endianness>;

fn main() -> ExitCode {
    let mut check = false;
    let mut files = Vec::new();
    for argument in std::env::args_os().skip(1) {
        match argument.to_str() {
            Some("--check") => check = true,
            Some("-h" | "--help") => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            _ => files.push(PathBuf::from(argument)),
        }
    }
    if files.is_empty() {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    let mut code = ExitCode::SUCCESS;
    for file in files {
        match print_file(&file, check) {
            Ok(true) => {}
            Ok(false) => code = ExitCode::FAILURE,
            // Whoever reads has seen enough.
            Err(error) if is_broken_pipe(&*error) => return code,
            Err(error) => {
                eprintln!("{}: {error}", file.display());
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Prints the sections of one file. Whether all of them pass the check, if there is to be one.
fn print_file(path: &Path, check: bool) -> Result<bool, Box<dyn Error>> {
    let data = std::fs::read(path)?;
    match FileKind::parse(&*data) {
        Ok(FileKind::Elf64) => {}
        Ok(FileKind::Elf32) => return Err("a 32-bit file: SFrame has no ABI of such".into()),
        _ => return Err("not an ELF file".into()),
    }
    let elf = Elf::parse(&*data)?;
    let (name, bytes, svma) = contents(&elf, &data)?;
    let mut out = io::stdout().lock();
    writeln!(out, "\n{}:     file format {}", path.display(), format(&elf))?;
    if bytes.is_empty() {
        writeln!(out, "\nThe SFrame {name} is empty.")?;
    }
    let mut is_right = true;
    for section in SFrameSections::new(&bytes, svma) {
        let section = section.map_err(|error| format!("SFrame {name}: {error}"))?;
        match section.svma().wrapping_sub(svma) {
            0 => writeln!(out, "\nContents of the SFrame {name}:")?,
            offset => writeln!(out, "\nContents of the SFrame {name}, at offset {offset:#x}:")?,
        }
        write!(out, "{}", section.dump())?;
        if check {
            is_right &= print_check(&mut out, &section)?;
        }
    }
    Ok(is_right)
}

fn print_check(out: &mut impl Write, section: &SFrameSection<'_>) -> io::Result<bool> {
    let result = section.validate();
    match result {
        Ok(()) => writeln!(out, "\n  Check: nothing is wrong")?,
        Err(flaw) => writeln!(out, "\n  Check: {flaw}")?,
    }
    Ok(result.is_ok())
}

/// What holds the sections (`section .sframe` or the segment), its contents and its address.
fn contents(elf: &Elf<'_>, data: &[u8]) -> Result<(&'static str, Vec<u8>, u64), Box<dyn Error>> {
    if let Some(section) = elf.section_by_name(".sframe") {
        let mut bytes = section.data()?.to_vec();
        if elf.kind() == ObjectKind::Relocatable {
            relocate(elf, &section, &mut bytes);
        }
        return Ok(("section .sframe", bytes, section.address()));
    }
    let endian = elf.endian();
    let segment = elf.elf_program_headers().iter().find(|header| header.p_type(endian).0 == SEGMENT);
    let segment = segment.ok_or("no section .sframe and no segment PT_GNU_SFRAME")?;
    let bytes = segment.data(endian, data).map_err(|()| "the segment PT_GNU_SFRAME is not in the file")?;
    Ok(("segment PT_GNU_SFRAME", bytes.to_vec(), segment.p_vaddr(endian)))
}

/// Puts the starts of functions in, as the header's flag says that they are read: relative to the
/// field, or to the section. (objdump 2.40 and 2.44 do not, so that every function begins at 0.)
fn relocate(elf: &Elf<'_>, section: &ElfSection64<'_, '_, Endianness>, bytes: &mut [u8]) {
    let is_pcrel = bytes.get(3).is_some_and(|flags| flags & unwind_core::sframe::FLAG_PCREL != 0);
    for (offset, relocation) in section.relocations() {
        let RelocationFlags::Elf { r_type } = relocation.flags() else { continue };
        let width = match (elf.architecture(), r_type) {
            (Architecture::X86_64, elf::R_X86_64_PC32)
            | (Architecture::Aarch64, elf::R_AARCH64_PREL32)
            | (Architecture::S390x, elf::R_390_PC32) => 4,
            (Architecture::X86_64, elf::R_X86_64_PC64)
            | (Architecture::Aarch64, elf::R_AARCH64_PREL64)
            | (Architecture::S390x, elf::R_390_PC64) => 8,
            _ => continue,
        };
        let RelocationTarget::Symbol(symbol) = relocation.target() else { continue };
        let Ok(symbol) = elf.symbol_by_index(symbol) else { continue };
        let base = section.address().wrapping_add(if is_pcrel { offset } else { 0 });
        let value = symbol.address().wrapping_add_signed(relocation.addend()).wrapping_sub(base);
        let value = match (elf.endian(), width) {
            (Endianness::Little, _) => value.to_le_bytes(),
            (Endianness::Big, 4) => value.wrapping_shl(32).to_be_bytes(),
            (Endianness::Big, _) => value.to_be_bytes(),
        };
        let field = usize::try_from(offset).ok().and_then(|offset| bytes.get_mut(offset..)?.get_mut(..width));
        if let (Some(field), Some(value)) = (field, value.get(..width)) {
            field.copy_from_slice(value);
        }
    }
}

/// What binutils call a file of this machine.
fn format(elf: &Elf<'_>) -> String {
    match (elf.architecture(), elf.endian()) {
        (Architecture::X86_64, _) => "elf64-x86-64".to_owned(),
        (Architecture::Aarch64, Endianness::Little) => "elf64-littleaarch64".to_owned(),
        (Architecture::Aarch64, Endianness::Big) => "elf64-bigaarch64".to_owned(),
        (Architecture::S390x, _) => "elf64-s390".to_owned(),
        (other, _) => format!("elf64, {other:?}"),
    }
}
