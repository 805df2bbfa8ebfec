//! What a slot of a cache holds, and the key that it is found by.

use crate::plain::{self, Plain};
use crate::source::{Found, Query, Rule, Trust, UnwindUserType, UnwindUserTypes};
use crate::{Base, CfaRule, FpRule, FrameKind, RaRule, Register, UnwindUserFrame};

/// The answer beside its rule, in the lowest bits of a slot's state. Where the rule is plain, it lies there as
/// [`Plain`] has it; these are the other bits, and those of other rules, which are the same where both have them.
const TAG_BITS: u32 = 22;
pub(super) const TAG: u64 = (1 << TAG_BITS) - 1;
/// The part of it that is key: bits 0 to 4, the kinds that were asked, without which there is no answer;
/// bit 5, whether it is for an exact pc.
pub(super) const KEY: u64 = 0x3f;
const IS_EXACT: u64 = 1 << 5;
/// No key: nothing is found by it. What is being written has no other bit of it.
pub(super) const NO_KEY: u64 = WRITE | IS_EXACT;
const IS_SIGNAL: u64 = 1 << 6;
const IS_AT_END: u64 = 1 << 7;
/// The kind that answered, all bits of it where none covers the pc, and two bits of trust.
const ORIGIN_SHIFT: u32 = plain::KIND_SHIFT;
const ORIGIN: u64 = 0x3f;
const NOT_COVERED: u8 = 0xf;
const ORIGIN_KIND: u8 = 0xf;
const ORIGIN_TRUST_SHIFT: u32 = 4;
/// What the rule word holds, two bits: a rule that is left to the source to evaluate; one with the return
/// address at an offset from the CFA; one with it in a register; one without.
const SHAPE_SHIFT: u32 = 14;
const EVALUATE: u64 = 0;
const RA_AT_CFA: u64 = 1;
const RA_IN_REGISTER: u64 = 2;
const RA_UNDEFINED: u64 = 3;
/// Whether the CFA is based on the frame pointer, whether that is saved at an offset from the CFA, and whether
/// it is lost.
const USE_FP: u64 = widen(plain::USE_FP);
const SAVES_FP: u64 = widen(plain::SAVES_FP);
const FP_UNDEFINED: u64 = 1 << 19;
/// Whether the rule is a [`Plain`] one.
pub(super) const IS_PLAIN: u64 = widen(plain::SET);
/// One write begun, or ended.
pub(super) const WRITE: u64 = 1 << TAG_BITS;
/// What a plain rule has beside its offsets is above the key and below the count.
const _: () = assert!(widen(plain::META) & (KEY | IS_SIGNAL | IS_AT_END | !TAG) == 0);

const fn widen(bits: u32) -> u64 {
    let [a, b, c, d] = bits.to_le_bytes();
    u64::from_le_bytes([a, b, c, d, 0, 0, 0, 0])
}

/// The part of a tag that is key; [`NO_KEY`] where nothing is remembered, as conventions may be asked.
#[inline]
pub(super) fn key(kinds: UnwindUserTypes, query: &Query) -> u64 {
    let exact = if query.pc.is_exact() { IS_EXACT } else { 0 };
    let kinds = u64::from(kinds.bits());
    // A bias would be one more thing to tell apart: the place before a single module is before its map.
    if kinds == 0 || kinds & !(KEY & !IS_EXACT) != 0 || query.bias != 0 { NO_KEY } else { kinds | exact }
}

/// What a source found, in two words.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    pub(super) tag: u64,
    /// Of a plain rule, as there. Of others, 16 bits each from the lowest on: the offset of the CFA; that of the
    /// return address, or the number of the register that it is in; that of the frame pointer. The highest 16 are
    /// no part of any answer: a hint may be written there at any time.
    pub(super) rule: u64,
}

impl Answer {
    pub(super) const NOT_COVERED: Answer = Answer { tag: 0xf << ORIGIN_SHIFT, rule: 0 };

    pub(super) fn plain(self) -> Option<Plain> {
        let [a, b, c, d, ..] = self.tag.to_le_bytes();
        (self.tag & IS_PLAIN != 0).then(|| Plain::from_words(self.rule, u32::from_le_bytes([a, b, c, d])))
    }

    pub(super) fn of_plain(plain: Plain) -> Answer {
        let (rule, meta) = plain.to_words();
        Answer { tag: u64::from(meta), rule }
    }

    /// `None` where it does not fit. What is no code is not plain.
    pub(super) fn of(kind: UnwindUserType, found: &Found, is_code: impl FnOnce() -> bool) -> Option<Answer> {
        if let Some(plain) = Plain::new(kind, found).filter(|_| is_code()) {
            let answer = Answer::of_plain(plain);
            // A plain rule says less than a frame may.
            return (answer.found() == Some((kind, *found))).then_some(answer);
        }
        let at_end = if found.is_at_end { IS_AT_END } else { 0 };
        let trust = u64::from(found.trust.to_bits()).wrapping_shl(ORIGIN_TRUST_SHIFT);
        let tag = (u64::from(kind.number()) | trust).wrapping_shl(ORIGIN_SHIFT) | at_end;
        let frame = match found.rule {
            Rule::Frame(frame) => frame,
            Rule::Evaluate => return Some(Answer { tag: tag | EVALUATE << SHAPE_SHIFT, rule: 0 }),
        };
        let (use_fp, cfa_off) = match frame.cfa() {
            CfaRule::Offset { base: Base::Sp, offset } => (0, i16::try_from(offset).ok()?),
            CfaRule::Offset { base: Base::Fp, offset } => (USE_FP, i16::try_from(offset).ok()?),
            _ => return None,
        };
        let (shape, ra) = match frame.ra() {
            RaRule::AtCfa(offset) => (RA_AT_CFA, i16::try_from(offset).ok()?.to_le_bytes()),
            RaRule::InRegister { base: Base::Register(Register(number)), offset: 0 } => {
                (RA_IN_REGISTER, number.to_le_bytes())
            }
            RaRule::Undefined => (RA_UNDEFINED, [0; 2]),
            _ => return None,
        };
        let (fp_kind, fp) = match frame.fp() {
            FpRule::Unchanged => (0, 0),
            FpRule::AtCfa(offset) => (SAVES_FP, i16::try_from(offset).ok()?),
            FpRule::Undefined => (FP_UNDEFINED, 0),
            _ => return None,
        };
        let signal = match frame.kind() {
            FrameKind::Call => 0,
            FrameKind::Signal => IS_SIGNAL,
        };
        let ([c0, c1], [r0, r1], [f0, f1]) = (cfa_off.to_le_bytes(), ra, fp.to_le_bytes());
        let answer = Answer {
            tag: tag | shape << SHAPE_SHIFT | use_fp | fp_kind | signal,
            rule: u64::from_le_bytes([c0, c1, r0, r1, f0, f1, 0, 0]),
        };
        // What a rule says beyond these, if anything, is not lost.
        (answer.found() == Some((kind, *found))).then_some(answer)
    }

    /// `None` where no source covers the pc.
    pub(super) fn found(self) -> Option<(UnwindUserType, Found)> {
        if let Some(plain) = self.plain() {
            return Some((plain.kind(), Found::new(Rule::Frame(plain.frame()), plain.trust())));
        }
        let origin = self.origin();
        if origin & ORIGIN_KIND == NOT_COVERED {
            return None;
        }
        let kind = UnwindUserType::from_number(origin & ORIGIN_KIND);
        let [c0, c1, r0, r1, f0, f1, _, _] = self.rule.to_le_bytes();
        let base = if self.tag & USE_FP == 0 { Base::Sp } else { Base::Fp };
        let cfa = CfaRule::Offset { base, offset: i16::from_le_bytes([c0, c1]).into() };
        let fp = match self.tag & (SAVES_FP | FP_UNDEFINED) {
            0 => FpRule::Unchanged,
            SAVES_FP => FpRule::AtCfa(i32::from(i16::from_le_bytes([f0, f1]))),
            _ => FpRule::Undefined,
        };
        let ra = match self.tag.wrapping_shr(SHAPE_SHIFT) & 3 {
            RA_AT_CFA => Some(RaRule::AtCfa(i32::from(i16::from_le_bytes([r0, r1])))),
            RA_IN_REGISTER => Some(RaRule::InRegister {
                base: Base::Register(Register(u16::from_le_bytes([r0, r1]))),
                offset: 0,
            }),
            RA_UNDEFINED => Some(RaRule::Undefined),
            _ => None,
        };
        let rule = match ra.and_then(|ra| UnwindUserFrame::new(cfa, ra, fp)) {
            Some(frame) if self.tag & IS_SIGNAL != 0 => Rule::Frame(frame.signal()),
            Some(frame) => Rule::Frame(frame),
            None => Rule::Evaluate,
        };
        let trust = Trust::from_bits(origin.wrapping_shr(ORIGIN_TRUST_SHIFT));
        Some((kind, Found::new(rule, trust).at_end(self.tag & IS_AT_END != 0)))
    }

    #[inline]
    fn origin(self) -> u8 {
        let [origin, ..] = (self.tag.wrapping_shr(ORIGIN_SHIFT) & ORIGIN).to_le_bytes();
        origin
    }
}
