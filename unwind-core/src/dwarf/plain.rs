//! The short way to a rule: through a search table as linkers write it, entries as compilers and assemblers
//! write them, and the instructions that nearly all functions have.
//!
//! It keeps what a walk needs, CFA, return address and frame pointer, in a few words, and gives up at
//! anything else: what it does not know, what is malformed, what the target's memory would have to be
//! read for. [`row_at`](super::machine::row_at) and [`RuleMaker`](super::rule::RuleMaker) then begin anew, and
//! they alone say what is wrong. Where it does answer, the answer is theirs.

use super::hdr::LinkedTable;
use super::plain_entry::{PlainCie, PlainFde};
use super::plain_row::{Columns, Machine, PlainRow, Slot};
use super::section::Section;
use crate::{Arch, Base, CfaRule, FpRule, RaRule, UnwindUserFrame};

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlainRule {
    pub(super) frame: UnwindUserFrame,
    /// Whether the address is the last one of its function.
    pub(super) is_last: bool,
}

/// The rule of the function that covers `svma`, by the search table of `.eh_frame`.
#[inline(always)]
pub(super) fn rule_at<A: Arch>(
    arch: &A,
    eh_frame: Section<'_>,
    hdr: Section<'_>,
    svma: u64,
) -> Option<PlainRule> {
    let (word, order) = (arch.word_size(), arch.byte_order());
    let table = LinkedTable::parse(hdr, word, order)?;
    let (start, address) = table.last_at_or_below(svma)?;
    let fde = PlainFde::parse(eh_frame, word.truncate(address.wrapping_sub(eh_frame.svma)), word, order)?;
    let wanted = word.truncate(svma.wrapping_sub(start));
    if fde.start != start || wanted >= fde.length {
        return None;
    }
    let cie = PlainCie::parse(eh_frame.data, fde.cie, word, order)?;
    let columns = Columns::of(arch, cie.return_address)?;
    let row = Machine::new(&cie, columns, order).row_at(cie.instructions, fde.instructions()?, wanted)?;
    let frame = frame(arch, &cie, &row)?;
    Some(PlainRule { frame, is_last: wanted == fde.length.wrapping_sub(1) })
}

/// What [`RuleMaker::rule`](super::rule::RuleMaker::rule) makes of such a row.
#[inline(always)]
fn frame<A: Arch>(arch: &A, cie: &PlainCie<'_>, row: &PlainRow) -> Option<UnwindUserFrame> {
    let ra = match row.ra {
        Slot::Offset(offset) => RaRule::AtCfa(offset),
        Slot::Unspecified if Some(cie.return_address) == arch.ip() => return None,
        Slot::Unspecified => RaRule::InRegister { base: Base::Register(cie.return_address), offset: 0 },
        Slot::Undefined => {
            let cfa = CfaRule::Offset { base: Base::Sp, offset: 0 };
            return UnwindUserFrame::new(cfa, RaRule::Undefined, FpRule::Undefined);
        }
    };
    let base = match row.cfa_register {
        register if register == arch.sp() => Base::Sp,
        register if register == arch.fp() => Base::Fp,
        _ => return None,
    };
    let frame = match (ra, row.fp) {
        // Nearly all.
        (RaRule::AtCfa(ra), Slot::Offset(fp)) => {
            UnwindUserFrame::plain(base == Base::Fp, row.cfa_offset, ra, Some(fp))
        }
        (RaRule::AtCfa(ra), Slot::Unspecified) => {
            UnwindUserFrame::plain(base == Base::Fp, row.cfa_offset, ra, None)
        }
        (ra, fp) => uncommon(base, row.cfa_offset, ra, fp)?,
    };
    Some(if cie.is_signal { frame.signal() } else { frame })
}

#[inline(never)]
fn uncommon(base: Base, offset: i32, ra: RaRule, fp: Slot) -> Option<UnwindUserFrame> {
    let fp = match fp {
        Slot::Unspecified => FpRule::Unchanged,
        Slot::Undefined => FpRule::Undefined,
        Slot::Offset(offset) => FpRule::AtCfa(offset),
    };
    UnwindUserFrame::new(CfaRule::Offset { base, offset }, ra, fp)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;
    use std::{println, vec};

    use super::*;
    use crate::dwarf::section::NoMemory;
    use crate::dwarf::testing::{FP, KINDS, Kind, RA, SP, four};
    use crate::dwarf::{DwarfSections, DwarfSource};
    use crate::{ByteOrder, Found, Pc, Query, Rule, Trust};

    /// A sequence of numbers that look random: xorshift.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
        }

        fn below(&mut self, bound: usize) -> usize {
            (self.next() % bound as u64) as usize
        }

        fn is_one_in(&mut self, bound: usize) -> bool {
            self.below(bound) == 0
        }

        fn pick<T: Copy>(&mut self, from: &[T]) -> T {
            from[self.below(from.len())]
        }
    }

    /// A LEB128 number, most of them short.
    fn leb128(random: &mut Random, bytes: &mut Vec<u8>) {
        for _ in 0..random.pick(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 9]) {
            bytes.push(random.next() as u8 | 0x80);
        }
        bytes.push(random.next() as u8 & if random.is_one_in(4) { 0x7f } else { 0x1f });
    }

    fn register(random: &mut Random, bytes: &mut Vec<u8>) {
        if random.is_one_in(20) {
            leb128(random, bytes);
        } else {
            bytes.push(random.pick(&[SP, FP, RA, 3, 12, 65]));
        }
    }

    /// Instructions: common ones most often, any byte as an opcode at times.
    fn program(random: &mut Random, order: ByteOrder, is_cie: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        let low = |random: &mut Random| random.pick(&[FP, FP, RA, 3, 12, 3, 12, 15, 14, 40, 41, 42, SP]);
        if is_cie && !random.is_one_in(10) {
            bytes.extend([0x0c, SP, 8]);
            if !random.is_one_in(4) {
                bytes.extend([0x80 | RA, 1]);
            }
        }
        let is_wild = random.is_one_in(2);
        for _ in 0..random.below(if is_cie { 2 } else { 24 }) {
            let kinds = if is_wild && random.is_one_in(4) { 40 } else { 9 };
            let kind = random.below(kinds);
            match kind {
                0..=2 if !is_cie => bytes.push(0x40 | random.below(16) as u8),
                0..=4 => {
                    bytes.push(0x0e);
                    leb128(random, &mut bytes);
                }
                5 | 6 => {
                    bytes.push(0x80 | low(random));
                    leb128(random, &mut bytes);
                }
                7 => bytes.push(0xc0 | low(random)),
                8 if random.is_one_in(4) => bytes.push(random.pick(&[0x0a, 0x0b])),
                8 => bytes.push(0x4f),
                9 => {
                    bytes.push(random.pick(&[0x0d, 0x07, 0x08, 0x06]));
                    register(random, &mut bytes);
                }
                10..=24 => {
                    bytes.push(random.pick(&[0x05, 0x09, 0x0c, 0x11, 0x12, 0x14, 0x15, 0x2f]));
                    register(random, &mut bytes);
                    leb128(random, &mut bytes);
                }
                25..=27 => {
                    bytes.push(random.pick(&[0x13, 0x2e]));
                    leb128(random, &mut bytes);
                }
                28 => bytes.extend([random.pick(&[0x2d, 0x2c])]),
                29..=31 => {
                    bytes.push(random.pick(&[0x10, 0x16]));
                    register(random, &mut bytes);
                    // DW_OP_breg7 and an offset.
                    bytes.extend([2, 0x77, random.below(64) as u8]);
                }
                32 => bytes.extend([0x0f, 2, 0x77, 16]),
                33 => bytes.extend([0x02, random.next() as u8]),
                34 => {
                    let [a, b] = match order {
                        ByteOrder::Little => 5u16.to_le_bytes(),
                        ByteOrder::Big => 5u16.to_be_bytes(),
                    };
                    bytes.extend([0x03, a, b]);
                }
                35 => {
                    bytes.push(0x04);
                    bytes.extend(four(order, random.next() % 64));
                }
                36 => bytes.extend([0; 3]),
                _ => bytes.push(random.next() as u8),
            }
        }
        bytes.extend(vec![0; random.below(4)]);
        bytes
    }

    /// The sections of three functions beside each other, and their addresses.
    struct Made {
        eh_frame: Vec<u8>,
        hdr: Vec<u8>,
        bounds: Vec<u64>,
    }

    const EH_FRAME: u64 = 0x8000;
    const HDR: u64 = 0x7000;

    fn make(random: &mut Random, order: ByteOrder) -> Made {
        let mut eh_frame = Vec::new();
        let mut cie: Vec<u8> = vec![random.pick(&[1, 1, 1, 1, 3, 4, 2])];
        let augmentation = random.pick(&[
            "zR", "zR", "zR", "zR", "zR", "zPLR", "zPLR", "zRS", "zLR", "zRB", "zPR", "zRG", "", "zS", "zRX",
        ]);
        cie.extend(augmentation.bytes().chain([0]));
        cie.push(random.pick(&[1, 1, 1, 4, 2, 0]));
        cie.push(random.pick(&[0x78, 0x78, 0x78, 0x7c, 0x01, 0x40]));
        cie.push(random.pick(&[RA, RA, RA, RA, RA, RA, FP, 3, 65]));
        let mut data = Vec::new();
        for letter in augmentation.bytes() {
            match letter {
                b'R' if random.is_one_in(10) => data.push(random.pick(&[0x03, 0x9b, 0x1c])),
                b'R' => data.push(0x1b),
                b'L' => data.push(0x1b),
                b'P' => match random.pick(&[0x9b, 0x9b, 0x9b, 0x00]) {
                    0 => data.extend([0; 9]),
                    encoding => data.extend([encoding, 1, 2, 3, 4]),
                },
                _ => {}
            }
        }
        if augmentation.starts_with('z') {
            cie.push(data.len() as u8);
            cie.extend(data);
        }
        cie.extend(program(random, order, true));
        eh_frame.extend(four(order, cie.len() as u64 + 4));
        eh_frame.extend([0; 4]);
        eh_frame.extend(cie);
        let (mut bounds, mut entries) = (vec![0x1000u64], Vec::new());
        for _ in 0..3 {
            let (start, length) = (bounds[bounds.len() - 1], 1 + random.below(100) as u64);
            let offset = eh_frame.len() as u64;
            let mut body = four(order, start.wrapping_sub(EH_FRAME + offset + 8)).to_vec();
            body.extend(four(order, length));
            if augmentation.starts_with('z') {
                let length = random.pick(&[0u8, 0, 0, 4]);
                body.push(length);
                body.extend(vec![0xee; length.into()]);
            }
            body.extend(program(random, order, false));
            eh_frame.extend(four(order, body.len() as u64 + 4));
            eh_frame.extend(four(order, offset + 4));
            eh_frame.extend(body);
            entries.push((start, EH_FRAME + offset));
            bounds.push(start + length);
        }
        eh_frame.extend([0; 4]);
        let mut hdr = vec![1, 0x1b, 3, 0x3b];
        hdr.extend(four(order, EH_FRAME.wrapping_sub(HDR + 4)));
        hdr.extend(four(order, entries.len() as u64));
        for (start, fde) in entries {
            hdr.extend(four(order, start.wrapping_sub(HDR)));
            hdr.extend(four(order, fde.wrapping_sub(HDR)));
        }
        Made { eh_frame, hdr, bounds }
    }

    /// How many addresses the short way had an answer for, of how many.
    fn compare(kind: &Kind, made: &Made) -> (u64, u64) {
        let eh_frame = Section { data: &made.eh_frame, svma: EH_FRAME };
        let hdr = Section { data: &made.hdr, svma: HDR };
        let source = DwarfSource::new(DwarfSections {
            eh_frame: Some(eh_frame),
            eh_frame_hdr: Some(hdr),
            ..DwarfSections::default()
        });
        let (mut answered, mut all) = (0, 0);
        for svma in made.bounds[0] - 1..=made.bounds[3] {
            all += 1;
            let Some(rule) = rule_at(kind, eh_frame, hdr, svma) else { continue };
            answered += 1;
            for pc in [Pc::Exact(svma), Pc::Return(svma + 1)] {
                let found = source.lookup_in_full(kind, &Query::new(pc), svma, &mut NoMemory);
                let expected = Found::new(Rule::Frame(rule.frame), Trust::Exact);
                let expected = expected.at_end(rule.is_last && !pc.is_exact());
                assert_eq!(
                    found,
                    Ok(Some(expected)),
                    "{kind:?} {pc:?} {:02x?} {:02x?}",
                    eh_frame.data,
                    hdr.data
                );
            }
        }
        (answered, all)
    }

    #[test]
    fn the_short_way_leads_where_the_long_one_does() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let (mut answered, mut all) = (0, 0);
        for turn in 0..20_000 {
            let kind = random.pick(&KINDS);
            let mut made = make(&mut random, kind.order);
            if turn % 2 == 0 {
                for _ in 0..=random.below(3) {
                    let bytes = if random.is_one_in(4) { &mut made.hdr } else { &mut made.eh_frame };
                    let at = random.below(bytes.len());
                    bytes[at] = random.next() as u8;
                }
            }
            let (these, of) = compare(&kind, &made);
            answered += these;
            all += of;
        }
        println!("{answered} of {all}");
        // Or nothing was compared.
        assert!(answered > all / 10, "{answered} of {all}");
    }
}
