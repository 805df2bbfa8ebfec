//! Tables read slowly: every entry of the index in order, every word by itself.

use unwind_core::ByteOrder;
use unwind_core::ehabi::{EhabiSections, Section};

/// What an entry of the index says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Located {
    CannotUnwind,
    /// The instructions' bytes, and the personality routine: its number or its address.
    Bytes(Routine, Vec<u8>),
    /// It leads out of `.ARM.extab`.
    Outside,
    /// A routine that the ABI has reserved.
    Reserved,
    /// Not on a word boundary.
    Askew,
}

/// A personality routine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routine {
    Number(u8),
    At(u32),
}

/// The word at an address.
fn word(section: Section<'_>, order: ByteOrder, address: u32) -> Option<u32> {
    let base = u32::try_from(section.svma & 0xffff_ffff).unwrap();
    let offset = usize::try_from(address.wrapping_sub(base)).unwrap();
    let bytes: [u8; 4] = section.data.get(offset..offset.checked_add(4)?)?.try_into().unwrap();
    Some(if order == ByteOrder::Big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
}

/// Where the word at an address points to: 31 bits, of which the highest is the sign.
fn target(word: u32, address: u32) -> u32 {
    let magnitude = i64::from(word & 0x3fff_ffff);
    let offset = if word & 0x4000_0000 == 0 { magnitude } else { magnitude - 0x4000_0000 };
    u32::try_from((i64::from(address) + offset).rem_euclid(1 << 32)).unwrap()
}

fn place(sections: &EhabiSections<'_>, index: usize) -> u32 {
    let base = u32::try_from(sections.exidx.svma & 0xffff_ffff).unwrap();
    base.wrapping_add(u32::try_from(index * 8).unwrap())
}

/// Where each entry begins.
pub fn starts(sections: &EhabiSections<'_>) -> Vec<u32> {
    let count = sections.exidx.data.len() / 8;
    (0..count)
        .map(|index| {
            let at = place(sections, index);
            target(word(sections.exidx, sections.order, at).unwrap(), at) & !1
        })
        .collect()
}

/// What the entry at `index` says.
pub fn locate(sections: &EhabiSections<'_>, index: usize) -> Located {
    let at = place(sections, index).wrapping_add(4);
    let second = word(sections.exidx, sections.order, at).unwrap();
    if second == 1 {
        return Located::CannotUnwind;
    }
    let read = |address: u32| sections.extab.and_then(|extab| word(extab, sections.order, address));
    let mut bytes = Vec::new();
    let mut more = |address: u32, count: u8| {
        for number in 0..u32::from(count) {
            bytes.extend(read(address.wrapping_add(number * 4))?.to_be_bytes());
        }
        Some(std::mem::take(&mut bytes))
    };
    let (first, next) = if second >> 31 == 1 {
        (second, None)
    } else {
        let entry = target(second, at);
        if !entry.is_multiple_of(4) {
            return Located::Askew;
        }
        let Some(first) = read(entry) else { return Located::Outside };
        if first >> 31 == 0 {
            let routine = target(first, entry) & !1;
            let Some(second) = read(entry.wrapping_add(4)) else { return Located::Outside };
            let [count, a, b, c] = second.to_be_bytes();
            let Some(rest) = more(entry.wrapping_add(8), count) else { return Located::Outside };
            return Located::Bytes(Routine::At(routine), [vec![a, b, c], rest].concat());
        }
        (first, Some(entry.wrapping_add(4)))
    };
    let [head, a, b, c] = first.to_be_bytes();
    match (head, next) {
        (0x80, _) => Located::Bytes(Routine::Number(0), vec![a, b, c]),
        (0x81 | 0x82, None) if a == 0 => Located::Bytes(Routine::Number(head & 0x7f), vec![b, c]),
        (0x81 | 0x82, None) => Located::Outside,
        (0x81 | 0x82, Some(next)) => match more(next, a) {
            Some(rest) => Located::Bytes(Routine::Number(head & 0x7f), [vec![b, c], rest].concat()),
            None => Located::Outside,
        },
        _ => Located::Reserved,
    }
}
