//! The functions of a [`World`](super::world::World) as call frame information and as SFrame.

use std::ops::Range;

use unwind_core::sframe::{Abi, SFrameFormat, Version, WriteFunction, WriteRow, write_to_vec};
use unwind_core::{Arch, UnwindUserFrame};
use unwind_tests::hazard::{CODE, Scene};
use unwind_tests::synthetic::AnyArch;
use unwind_tests::synthetic::cfi::{CfiSection, Flavor};

use super::world::{FUNCTIONS, LENGTH, start, units};

/// The functions as call frame information: plain rules, expressions, remembered states. Gives the ranges of
/// the CIE's bytes and of each FDE's.
pub fn described(arch: AnyArch, flavor: Flavor) -> (Scene, Range<usize>, Vec<Range<usize>>) {
    let mut scene = Scene::new(arch);
    if flavor == Flavor::DebugFrame {
        scene.section = CfiSection::new(flavor, arch.word_size(), arch.byte_order(), scene.section.svma);
        scene.next_cie(|cie| (cie.augmentation, cie.pointer_encoding) = (Vec::new(), 0));
    }
    let mut ends = Vec::new();
    for function in 0..FUNCTIONS {
        scene.function(start(function), LENGTH, |scene, program| match function {
            _ if function == FUNCTIONS - 1 => {
                program.with(0x07, &[arch.ra().0.into()]);
            }
            1 | 4 => {
                scene.sized(program, units(function));
                let size = i64::try_from(scene.unit() * units(function)).expect("small");
                let cfa = scene.expression().breg(arch.sp(), size - i64::from(arch.sp_bias()));
                program.cfa_expression(if function == 1 { cfa } else { cfa.opaque() });
            }
            2 => {
                scene.sized(program, units(function));
                program.op(0x0a).advance(0x20, 0).op(0x0b);
            }
            _ => scene.sized(program, units(function)),
        });
        ends.push(scene.section.bytes.data.len());
    }
    let svma = scene.section.svma;
    let begins = scene.entries.iter().map(|entry| usize::try_from(entry.1 - svma).expect("small"));
    let fdes: Vec<Range<usize>> = begins.zip(ends).map(|(begin, end)| begin..end).collect();
    let cie = 0..fdes[0].start;
    (scene, cie, fdes)
}

/// Where the SFrame section is.
pub const SFRAME: u64 = CODE + 0xf_0000;

/// The section, and where each function's rows are in it.
pub fn sframe_section(arch: AnyArch, abi: Abi, version: Version) -> (Vec<u8>, Vec<Range<usize>>) {
    let scene = Scene::new(arch);
    let (bias, word) = (arch.sp_bias(), i32::from(arch.word_size().bytes()));
    let row = |function: usize, at: u32| {
        let size = i32::try_from(scene.unit() * units(function)).expect("small");
        let frame = UnwindUserFrame::plain(false, size - bias, bias - word, None);
        WriteRow { start: at, frame: Some(frame), is_mangled: false }
    };
    let bytes = write_to_vec(
        SFrameFormat { version, abi, svma: SFRAME },
        |writer, refused| {
            for function in 0..FUNCTIONS {
                let size = u32::try_from(LENGTH).expect("small");
                let start = start(function);
                let written = WriteFunction { start, size, block_size: None, key_b: false };
                writer.function(&written, [row(function, 0), row(function, 0x20)].into_iter(), refused);
            }
        },
        &mut |refused| panic!("{refused:?}"),
    )
    .expect("it fits");
    // In the order of the functions: the field of each entry that says where its rows begin.
    let entry_size = usize::from(version.fde_size());
    let at = if version == Version::V3 { 12 } else { 8 };
    let rows_begin = 28 + FUNCTIONS * entry_size;
    let mut begins: Vec<usize> = (0..FUNCTIONS)
        .map(|function| {
            let field: [u8; 4] = bytes[28 + function * entry_size + at..][..4].try_into().expect("four");
            let offset = match arch.byte_order() {
                unwind_core::ByteOrder::Little => u32::from_le_bytes(field),
                unwind_core::ByteOrder::Big => u32::from_be_bytes(field),
            };
            rows_begin + usize::try_from(offset).expect("small")
        })
        .collect();
    assert!(begins.is_sorted());
    begins.push(bytes.len());
    (bytes, begins.windows(2).map(|pair| pair[0]..pair[1]).collect())
}
