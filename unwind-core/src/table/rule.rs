//! What a table says at an address, and its bytes.

use crate::plain::Plain;
use crate::{Trust, UnwindUserFrame, UnwindUserType};

/// What a row of a table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableRule {
    /// Nothing covers these addresses.
    NotCovered,
    /// The source that the table was made of has to be asked.
    AskOriginal,
    /// This rule.
    Frame {
        /// The rule.
        frame: UnwindUserFrame,
        /// How far it can be trusted.
        trust: Trust,
        /// At which pcs. At others, the original has to be asked.
        holds: Holds,
    },
}

/// At which pcs of its addresses a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holds {
    /// At all.
    Everywhere,
    /// At exact pcs.
    AtExact,
    /// At exact pcs, where the load bias is a multiple of 128: code in blocks, such as procedure linkage
    /// tables, whose rules depend on where in its block an address (avma) is.
    InBlocks,
    /// At all; but at exact ones it is only of [`Trust::CallSite`].
    ForCalls,
}

impl TableRule {
    /// A rule that holds everywhere.
    pub const fn exact(frame: UnwindUserFrame) -> Self {
        TableRule::Frame { frame, trust: Trust::Exact, holds: Holds::Everywhere }
    }
}

/// Bytes of a rule: 16 of its frame, or of what is plain, and its flags.
pub(super) const RECORD: usize = 17;

/// The flags of a rule: what it is, in the two lowest bits.
const KIND: u8 = 3;
const NOT_COVERED: u8 = 0;
const ASK_ORIGINAL: u8 = 1;
const FRAME: u8 = 2;
/// A frame, as a walk wants it. Its trust is beside its offsets.
const PLAIN: u8 = 3;
/// How far a frame can be trusted, in the next two.
const TRUST_SHIFT: u8 = 2;
/// At which pcs, in the next two.
const HOLDS_SHIFT: u8 = 4;
const HOLDS: u8 = 3 << HOLDS_SHIFT;

impl TableRule {
    /// The frame in 16 bytes, and flags.
    #[inline]
    pub(super) const fn to_bytes(self) -> ([u8; 16], u8) {
        match self {
            TableRule::NotCovered => ([0; 16], NOT_COVERED),
            TableRule::AskOriginal => ([0; 16], ASK_ORIGINAL),
            TableRule::Frame { frame, trust, holds } => {
                (frame.to_bytes(), FRAME | trust.to_bits() << TRUST_SHIFT | holds.to_bits() << HOLDS_SHIFT)
            }
        }
    }

    #[inline]
    pub(super) const fn from_bytes(frame: [u8; 16], flags: u8) -> Self {
        match flags & KIND {
            FRAME => TableRule::Frame {
                frame: UnwindUserFrame::from_bytes(frame),
                trust: Trust::from_bits(flags >> TRUST_SHIFT),
                holds: Holds::from_bits(flags >> HOLDS_SHIFT),
            },
            NOT_COVERED => TableRule::NotCovered,
            _ => TableRule::AskOriginal,
        }
    }

    /// The record of a table for this rule.
    pub(super) fn to_record(self) -> [u8; RECORD] {
        let (bytes, flags) = match self.to_plain() {
            Some((plain, holds)) => {
                let (offsets, meta) = plain.to_table();
                let [a, b, c, d, e, f, g, h] = offsets.to_le_bytes();
                let [i, j, k, l] = meta.to_le_bytes();
                let bytes = [a, b, c, d, e, f, g, h, i, j, k, l, 0, 0, 0, 0];
                (bytes, PLAIN | holds.to_bits() << HOLDS_SHIFT)
            }
            None => self.to_bytes(),
        };
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, flags]
    }

    /// The frame as a plain rule, if that says all of it.
    fn to_plain(self) -> Option<(Plain, Holds)> {
        let TableRule::Frame { frame, trust, holds } = self else { return None };
        let plain = Plain::of(UnwindUserType::Table, frame, trust)?;
        (plain.frame() == frame).then_some((plain, holds))
    }

    /// What a record says. A plain rule that makes no sense is left to the original source.
    #[inline]
    pub(super) fn of_record(record: &[u8; RECORD]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, flags] = *record;
        if flags & KIND != PLAIN {
            return Self::from_bytes([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p], flags);
        }
        match Self::plain(record) {
            Some(plain) => TableRule::Frame {
                frame: plain.frame(),
                trust: plain.trust(),
                holds: Holds::from_bits(flags >> HOLDS_SHIFT),
            },
            None => TableRule::AskOriginal,
        }
    }

    /// The rule of a record, if it is plain and holds at this kind of pc without more ado.
    #[inline]
    pub(super) fn plain_of_record(record: &[u8; RECORD], is_exact: bool) -> Option<Plain> {
        const EVERYWHERE: u8 = PLAIN | Holds::Everywhere.to_bits() << HOLDS_SHIFT;
        const FOR_CALLS: u8 = PLAIN | Holds::ForCalls.to_bits() << HOLDS_SHIFT;
        let [.., flags] = *record;
        let holds = flags & (KIND | HOLDS);
        if holds == EVERYWHERE || holds == FOR_CALLS && !is_exact { Self::plain(record) } else { None }
    }

    #[inline]
    fn plain(record: &[u8; RECORD]) -> Option<Plain> {
        // As words: taken apart into bytes, it would be read byte by byte.
        let (offsets, rest) = record.split_first_chunk()?;
        Plain::of_table(u64::from_le_bytes(*offsets), u32::from_le_bytes(*rest.first_chunk()?))
    }
}

impl Holds {
    #[inline]
    const fn to_bits(self) -> u8 {
        match self {
            Holds::Everywhere => 0,
            Holds::AtExact => 1,
            Holds::InBlocks => 2,
            Holds::ForCalls => 3,
        }
    }

    #[inline]
    const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Holds::Everywhere,
            1 => Holds::AtExact,
            2 => Holds::InBlocks,
            _ => Holds::ForCalls,
        }
    }
}

/// Which rule a slot names, by a number: those of the frequent rules are a byte of its slot, the others
/// take another slot before it.
pub(super) mod number {
    /// The numbers of the rules that are not frames.
    pub(in crate::table) const NOT_COVERED: u16 = 0;
    pub(in crate::table) const ASK_ORIGINAL: u16 = 1;

    /// From this byte on, a number has a second byte, in the slot before.
    pub(in crate::table) const WIDE: u8 = 224;
    /// That second byte is not 0: it is never taken for [`NOT_COVERED`].
    const SECONDS: u16 = 255;
    /// How many numbers there are.
    pub(in crate::table) const COUNT: u16 = 224 + 32 * SECONDS;

    /// The two bytes of a number; the second is 0 where one is enough.
    #[inline]
    pub(in crate::table) fn split(number: u16) -> [u8; 2] {
        match number.checked_sub(u16::from(WIDE)) {
            None => {
                let [low, ..] = number.to_le_bytes();
                [low, 0]
            }
            Some(wide) => {
                let [first, ..] = (wide / SECONDS).to_le_bytes();
                let [second, ..] = (wide % SECONDS).wrapping_add(1).to_le_bytes();
                [first.saturating_add(WIDE), second]
            }
        }
    }

    /// The number with these two bytes, of which the first is at least [`WIDE`].
    #[inline]
    pub(in crate::table) fn join(first: u8, second: u8) -> u16 {
        let block = u16::from(first.wrapping_sub(WIDE)).wrapping_mul(SECONDS);
        block.wrapping_add(u16::from(second.wrapping_sub(1))).wrapping_add(u16::from(WIDE))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::number::{COUNT, WIDE, join, split};
    use super::*;
    use crate::{Base, CfaRule, FpRule, RaRule, Register};

    #[test]
    fn numbers_come_back() {
        for number in 0..COUNT {
            match split(number) {
                [first, 0] => assert!(first < WIDE && u16::from(first) == number),
                [first, second] => assert_eq!((join(first, second), first >= WIDE), (number, true)),
            }
        }
    }

    #[test]
    fn rules_come_back_from_their_records() {
        let plain = |use_fp, cfa_off, ra_off, fp_off| UnwindUserFrame::plain(use_fp, cfa_off, ra_off, fp_off);
        let in_register = RaRule::InRegister { base: Base::Register(Register(30)), offset: 0 };
        let leaf = CfaRule::Offset { base: Base::Sp, offset: 0 };
        let frames = [
            (plain(false, 8, -8, None), true),
            (plain(true, 16, -8, Some(-16)), true),
            (plain(false, 65_535, -32_767, Some(-32_768)), true),
            (UnwindUserFrame::OUTERMOST, true),
            // The CFA at its base, or out of reach; the return address below the base.
            (plain(false, 0, 8, None), false),
            (plain(false, 65_536, -8, None), false),
            (plain(false, 8, -16, None), false),
            (plain(false, 16, -8, Some(32_768)), false),
            (plain(false, 16, -8, None).signal(), false),
            (plain(false, 16, -8, None).with_sp_bound(), false),
            (UnwindUserFrame::new(leaf, in_register, FpRule::Unchanged).unwrap(), false),
        ];
        for (frame, is_plain) in frames {
            for trust in [Trust::Guess, Trust::Convention, Trust::CallSite, Trust::Exact] {
                for holds in [Holds::Everywhere, Holds::AtExact, Holds::InBlocks, Holds::ForCalls] {
                    let rule = TableRule::Frame { frame, trust, holds };
                    let record = rule.to_record();
                    assert_eq!(TableRule::of_record(&record), rule);
                    let at_hand = |is_exact| TableRule::plain_of_record(&record, is_exact);
                    let whole = Plain::of(UnwindUserType::Table, frame, trust).filter(|_| is_plain);
                    let exact = matches!(holds, Holds::Everywhere);
                    assert_eq!(at_hand(true), whole.filter(|_| exact), "{frame:?} {trust:?} {holds:?}");
                    let for_calls = exact || matches!(holds, Holds::ForCalls);
                    assert_eq!(at_hand(false), whole.filter(|_| for_calls), "{frame:?} {trust:?} {holds:?}");
                }
            }
        }
        for rule in [TableRule::NotCovered, TableRule::AskOriginal] {
            assert_eq!(TableRule::of_record(&rule.to_record()), rule);
            assert_eq!(TableRule::plain_of_record(&rule.to_record(), false), None);
        }
    }

    /// In a damaged table, a CFA may be said to be at its base or below.
    #[test]
    fn a_plain_rule_without_sense_is_left_to_the_original() {
        for (ra_at, ra_to_cfa) in [(0u16, 0i16), (8, -8), (8, -9), (0, -32_768), (65_535, 1)] {
            let ([a, b], [c, d]) = (ra_at.to_le_bytes(), ra_to_cfa.to_le_bytes());
            let record = [a, b, c, d, 0, 0, 0, 0, 0xff, 0xff, 0xdf, 0xff, 0, 0, 0, 0, PLAIN];
            assert_eq!(TableRule::of_record(&record), TableRule::AskOriginal);
            assert_eq!(TableRule::plain_of_record(&record, false), None);
        }
    }
}
