//! A workload in a file: captured once, walked again and again, under a profiler for instance.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use unwind_arch::host::Registers;
use unwind_core::{Register, RegisterFile};

use super::workload::{Image, Mapping, Piece, Process, Sample, Workload};

/// Changed with the order of what is written.
const MAGIC: u64 = u64::from_le_bytes(*b"walk 1\0\0");

pub(crate) fn store(workload: &Workload, path: &Path) -> io::Result<()> {
    let mut out = Vec::new();
    number(&mut out, MAGIC);
    number(&mut out, workload.images.len() as u64);
    for image in &workload.images {
        bytes(&mut out, image.path.to_string_lossy().as_bytes());
        for piece in [&image.eh_frame, &image.eh_frame_hdr] {
            number(&mut out, piece.svma);
            bytes(&mut out, &piece.data);
        }
        for svma in [image.text_svma, image.got_svma] {
            number(&mut out, svma.unwrap_or(u64::MAX));
        }
        number(&mut out, image.text.start);
        number(&mut out, image.text.end);
    }
    number(&mut out, workload.processes.len() as u64);
    for process in &workload.processes {
        bytes(&mut out, process.program.as_bytes());
        number(&mut out, process.mappings.len() as u64);
        for mapping in &process.mappings {
            for word in [mapping.start, mapping.end, mapping.bias, mapping.image as u64] {
                number(&mut out, word);
            }
        }
    }
    number(&mut out, workload.samples.len() as u64);
    for sample in &workload.samples {
        number(&mut out, sample.process as u64);
        number(&mut out, sample.ip());
        for register in registers() {
            // Absent ones are told apart by a flag before the value.
            let value = sample.registers.get(register);
            number(&mut out, value.is_some().into());
            number(&mut out, value.unwrap_or(0));
        }
        number(&mut out, sample.address);
        bytes(&mut out, sample.stack);
    }
    fs::write(path, out)
}

pub(crate) fn load(path: &Path) -> io::Result<Workload> {
    let file = fs::read(path)?.leak();
    parse(&mut &*file).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no stored workload"))
}

fn parse(input: &mut &'static [u8]) -> Option<Workload> {
    if take(input)? != MAGIC {
        return None;
    }
    let mut workload = Workload::default();
    for _ in 0..take(input)? {
        let path = PathBuf::from(text(input)?);
        let eh_frame = Piece { svma: take(input)?, data: take_bytes(input)?.to_vec() };
        let eh_frame_hdr = Piece { svma: take(input)?, data: take_bytes(input)?.to_vec() };
        let text_svma = Some(take(input)?).filter(|svma| *svma != u64::MAX);
        let got_svma = Some(take(input)?).filter(|svma| *svma != u64::MAX);
        let text = take(input)?..take(input)?;
        workload.images.push(Image { path, eh_frame, eh_frame_hdr, text_svma, got_svma, text });
    }
    for _ in 0..take(input)? {
        let program = text(input)?;
        let mut mappings = Vec::new();
        for _ in 0..take(input)? {
            let (start, end, bias) = (take(input)?, take(input)?, take(input)?);
            let image = usize::try_from(take(input)?).ok().filter(|image| *image < workload.images.len())?;
            mappings.push(Mapping { start, end, bias, image });
        }
        workload.processes.push(Process { program, mappings });
    }
    for _ in 0..take(input)? {
        let process = usize::try_from(take(input)?).ok().filter(|at| *at < workload.processes.len())?;
        let mut known = Registers::default().with_ip(take(input)?);
        for register in registers() {
            let (is_known, value) = (take(input)?, take(input)?);
            if is_known != 0 {
                known = known.with(register, value);
            }
        }
        let address = take(input)?;
        let stack = take_bytes(input)?;
        workload.samples.push(Sample { process, registers: known, address, stack });
    }
    Some(workload)
}

fn registers() -> impl Iterator<Item = Register> {
    (0..Registers::COUNT).map(|number| Register(number as u16))
}

fn number(out: &mut Vec<u8>, number: u64) {
    out.extend(number.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend(bytes);
}

fn take(input: &mut &'static [u8]) -> Option<u64> {
    let (number, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(u64::from_le_bytes(*number))
}

fn take_bytes(input: &mut &'static [u8]) -> Option<&'static [u8]> {
    let length = usize::try_from(take(input)?).ok()?;
    let (bytes, rest) = input.split_at_checked(length)?;
    *input = rest;
    Some(bytes)
}

fn text(input: &mut &'static [u8]) -> Option<String> {
    String::from_utf8(take_bytes(input)?.to_vec()).ok()
}
