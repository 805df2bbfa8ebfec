//! Arbitrary bytes as exception handling tables, and well-formed tables of arbitrary instructions.

use unwind_core::ByteOrder;
use unwind_core::ehabi::{EhabiSections, Section};

use crate::ehabi::{Arm, Body, Built, Frame, Made, Tables, probe};

/// The first four bytes say how the others are meant; see [`probe`] for what must hold.
pub fn ehabi(data: &[u8]) {
    let Some(([kind, split, seed, place], rest)) = data.split_first_chunk::<4>() else { return };
    let order = if kind & 1 == 0 { ByteOrder::Little } else { ByteOrder::Big };
    let arch = Arm { order, fp: if kind & 2 == 0 { 11 } else { 7 } };
    let frame = Frame {
        made: Made { seed: u64::from(*seed), order },
        known: if kind & 4 == 0 { 0xffff } else { u16::from_be_bytes([*seed, *split]) },
        has_holes: kind & 8 != 0,
    };
    if kind & 16 == 0 {
        bytes(&arch, usize::from(*split) * 8, *place, rest, frame);
    } else {
        functions(&arch, *place, rest, frame);
    }
}

/// The index is the first `split` bytes, `.ARM.extab` the others.
fn bytes(arch: &Arm, split: usize, place: u8, data: &[u8], frame: Frame) {
    let (exidx, extab) = data.split_at(split.min(data.len()));
    // Everywhere in the address space, and over its end.
    let high = u64::from(place) << 24;
    let exidx_svma = if place & 1 == 0 { high | 0xffff00 } else { high };
    // Behind the index, or before it as linkers place it.
    let extab_svma = match place & 8 {
        0 => exidx_svma.wrapping_add(exidx.len() as u64),
        _ => exidx_svma.wrapping_sub(extab.len() as u64),
    };
    let mut sections = EhabiSections::new(
        arch.order,
        Section { data: exidx, svma: exidx_svma & 0xffff_ffff },
        (place & 2 == 0).then_some(Section { data: extab, svma: extab_svma & 0xffff_ffff }),
        0,
        0x1_0000_0000,
    );
    if place & 4 != 0 {
        sections.text_start = exidx_svma & 0xffff_ffff;
        sections.text_end = sections.text_start + (u64::from(place) << 4);
    }
    probe(arch, &sections, frame);
}

fn functions(arch: &Arm, place: u8, data: &[u8], frame: Frame) {
    probe(arch, &built(arch.order, place, data).sections(), frame);
}

/// Functions of 16 bytes, each with so many of the bytes as its first one says.
pub(super) fn built(order: ByteOrder, place: u8, mut data: &[u8]) -> Built {
    let mut tables = Tables::new(order);
    tables.exidx_svma = u32::from(place) << 24;
    let mut start = 0x1_0000;
    while let Some((head, rest)) = data.split_first() {
        let (bytes, rest) = rest.split_at(usize::from(head >> 3).min(rest.len()));
        data = rest;
        let body = match head & 7 {
            0 => Body::CannotUnwind,
            1 => Body::Inline(bytes.iter().copied().take(3).collect()),
            2 => Body::Short(bytes.iter().copied().take(3).collect()),
            3 => Body::Long(1, bytes.to_vec()),
            4 => Body::Long(2, bytes.to_vec()),
            5 => Body::Words(
                bytes.chunks_exact(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect(),
            ),
            6 => Body::Generic(0x1_2345, bytes.to_vec()),
            _ => match bytes.first_chunk() {
                Some(second) => Body::Second(u32::from_be_bytes(*second)),
                None => Body::CannotUnwind,
            },
        };
        tables = tables.function(start, body);
        start += 16;
    }
    tables.text_end = u64::from(start) + 4;
    tables.build()
}
