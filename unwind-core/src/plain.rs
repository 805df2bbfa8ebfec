//! Plain rules: what nearly every frame of every stack needs.

use core::fmt;
use core::num::NonZeroU32;

use crate::frame::PlainParts;
use crate::source::{Found, Rule, Trust, UnwindUserType};
use crate::{Pc, UnwindUserFrame};

/// A rule of the commonest shape, or that nobody called the frame, with what a walk has to know beside it. Two
/// words, so that it stays in registers.
#[derive(Clone, Copy)]
pub struct Plain {
    /// From the lowest bits on, 16 bits each: how far behind the base of the CFA the return address is; how far
    /// behind that the CFA is; the offset of the frame pointer from the CFA; and a hint, see
    /// [`hint`](Plain::hint). So the address that a walk waits for is one addition away.
    offsets: u64,
    /// As the constants below say, and other bits, which mean nothing. [`SET`] is never missing.
    meta: NonZeroU32,
}

/// The kind of source, 4 bits.
pub(crate) const KIND_SHIFT: u32 = 8;
const KIND: u32 = 0xf << KIND_SHIFT;
/// How far it can be trusted, 2 bits.
const TRUST_SHIFT: u32 = 12;
const TRUST: u32 = 3 << TRUST_SHIFT;
/// Whether the CFA is based on the frame pointer, and not on sp.
pub(crate) const USE_FP: u32 = 1 << 17;
/// Whether the caller's frame pointer is at an offset from the CFA, and not still in its register.
pub(crate) const SAVES_FP: u32 = 1 << 18;
pub(crate) const SET: u32 = 1 << 20;
/// Whether there is no caller.
pub(crate) const OUTERMOST: u32 = 1 << 21;
/// Whether the pc is the last address of its function: for a source itself, no part of the rule.
#[cfg(feature = "sframe")]
const IS_LAST: u32 = 1 << 22;
pub(crate) const META: u32 = KIND | TRUST | USE_FP | SAVES_FP | SET | OUTERMOST;
/// What a compiled table says of it.
#[cfg(feature = "table")]
const IN_TABLE: u32 = TRUST | USE_FP | SAVES_FP | OUTERMOST;

impl Plain {
    /// No CFA is as far from its base as this, no return address farther behind it, and no frame pointer farther
    /// from the CFA.
    pub(crate) const REACH: u64 = 1 << 16;

    /// In the place of a rule that is not plain: of a kind like no other.
    pub(crate) const NONE: Plain = Self::from_words(0, KIND);

    /// What a source of this kind found for a return pc, if it is plain.
    #[inline]
    pub fn new(kind: UnwindUserType, found: &Found) -> Option<Self> {
        match found.rule {
            Rule::Frame(frame) if !found.is_at_end => Self::of(kind, frame, found.trust),
            _ => None,
        }
    }

    /// A rule of this kind that can be trusted so far, if it is plain, and the pc not that behind
    /// its function.
    #[inline]
    pub fn of(kind: UnwindUserType, frame: UnwindUserFrame, trust: Trust) -> Option<Self> {
        if frame.sp_is_bound() { None } else { Self::of_chain(kind, frame, trust) }
    }

    /// The same, whether or not the CFA is just a bound of the caller's sp.
    #[inline]
    pub(crate) fn of_chain(kind: UnwindUserType, frame: UnwindUserFrame, trust: Trust) -> Option<Self> {
        if frame == UnwindUserFrame::OUTERMOST {
            return Some(Self::from_words(0, meta_of(kind, trust) | OUTERMOST));
        }
        Self::of_parts(kind, &frame.plain_parts()?, trust)
    }

    /// The rule that is made of these parts.
    #[inline(always)]
    pub(crate) fn of_parts(kind: UnwindUserType, parts: &PlainParts, trust: Trust) -> Option<Self> {
        let flag = |flag: u32, is_set: bool| if is_set { flag } else { 0 };
        let cfa_off = u64::from(parts.cfa_off);
        // Below the base, it is far above.
        let ra_at = cfa_off.wrapping_add_signed(parts.ra_off.into());
        if cfa_off | ra_at >= Self::REACH {
            return None;
        }
        let meta = meta_of(kind, trust) | flag(USE_FP, parts.use_fp) | flag(SAVES_FP, parts.saves_fp);
        let offsets = ra_at
            | u64::from(parts.ra_off.checked_neg()?.cast_unsigned()).wrapping_shl(16)
            | u64::from(parts.fp_off.cast_unsigned()).wrapping_shl(32);
        Some(Self::from_words(offsets, meta))
    }

    /// Of what a cache remembers: the offsets, and the rest, among other bits.
    #[inline]
    pub(crate) const fn from_words(offsets: u64, meta: u32) -> Self {
        let meta = match NonZeroU32::new(meta | SET) {
            Some(meta) => meta,
            None => NonZeroU32::MIN,
        };
        Plain { offsets, meta }
    }

    /// The offsets, and the rest.
    #[cfg(target_has_atomic = "64")]
    pub(crate) fn to_words(self) -> (u64, u32) {
        (self.offsets, self.meta.get() & META)
    }

    /// As a compiled table has it: the offsets, and the rest but for the kind, which is that of tables.
    #[cfg(feature = "table")]
    pub(crate) const fn to_table(self) -> (u64, u32) {
        (self.offsets & NO_HINT, self.meta.get() & IN_TABLE)
    }

    /// Of a compiled table, where that is some plain rule.
    #[cfg(feature = "table")]
    #[inline]
    pub(crate) fn of_table(offsets: u64, meta: u32) -> Option<Self> {
        const TABLE: u32 = UnwindUserType::Table.number().wrapping_shl(KIND_SHIFT);
        let plain = Self::from_words(offsets & NO_HINT, (meta & IN_TABLE) | TABLE);
        let cfa_off = u64::from(plain.ra_at()).wrapping_add_signed(plain.ra_to_cfa().into());
        // No CFA is at its base or below, and none out of reach.
        (plain.is_outermost() || cfa_off.wrapping_sub(1) < Self::REACH.wrapping_sub(1)).then_some(plain)
    }

    /// The same rule, found at the last address of its function or not.
    #[cfg(feature = "sframe")]
    #[inline(always)]
    pub(crate) fn at_last(self, is_last: bool) -> Self {
        Plain { meta: self.meta | if is_last { IS_LAST } else { 0 }, ..self }
    }

    /// Whether it was found there.
    #[cfg(feature = "sframe")]
    #[inline(always)]
    pub(crate) fn is_last(&self) -> bool {
        self.meta.get() & IS_LAST != 0
    }

    /// Where a cache has found the rule of the caller the last time.
    #[cfg(target_has_atomic = "64")]
    #[inline]
    pub(crate) fn hint(&self) -> u16 {
        let [.., a, b] = self.offsets.to_le_bytes();
        u16::from_le_bytes([a, b])
    }

    /// The offsets with another hint.
    #[cfg(target_has_atomic = "64")]
    pub(crate) fn with_hint(&self, hint: u16) -> u64 {
        (self.offsets & NO_HINT) | u64::from(hint).wrapping_shl(48)
    }

    /// The kind of source that the rule is from.
    #[inline]
    pub fn kind(&self) -> UnwindUserType {
        let [_, kind, ..] = self.meta.get().to_le_bytes();
        UnwindUserType::from_number(kind & 0xf)
    }

    /// How far it can be trusted.
    #[inline]
    pub fn trust(&self) -> Trust {
        let [trust, ..] = self.meta.get().wrapping_shr(TRUST_SHIFT).to_le_bytes();
        Trust::from_bits(trust)
    }

    /// Whether both are of the same kind, and trusted alike, and say where the caller is.
    #[inline]
    pub(crate) fn goes_on_like(&self, before: &Plain) -> bool {
        (self.meta.get() ^ before.meta.get()) & (KIND | TRUST | OUTERMOST) == 0
    }

    /// Whether nobody called the frame: there is nothing else to say about it.
    #[inline]
    pub fn is_outermost(&self) -> bool {
        self.meta.get() & OUTERMOST != 0
    }

    #[inline]
    pub(crate) fn use_fp(&self) -> bool {
        self.meta.get() & USE_FP != 0
    }

    #[inline]
    pub(crate) fn saves_fp(&self) -> bool {
        self.meta.get() & SAVES_FP != 0
    }

    /// Whether the instruction there has nothing to say first.
    #[inline]
    pub(crate) fn holds_at(&self, pc: Pc) -> bool {
        !pc.is_exact() || self.trust() != Trust::CallSite
    }

    /// The rule.
    pub fn frame(&self) -> UnwindUserFrame {
        if self.is_outermost() {
            return UnwindUserFrame::OUTERMOST;
        }
        let ra_off = i32::from(self.ra_to_cfa()).wrapping_neg();
        let cfa_off = i32::from(self.ra_to_cfa()).saturating_add(self.ra_at().into());
        let fp_off = self.saves_fp().then_some(i32::from(self.fp_off()));
        UnwindUserFrame::plain(self.use_fp(), cfa_off, ra_off, fp_off)
    }

    /// How far behind the base of the CFA the return address is.
    #[inline]
    pub(crate) fn ra_at(&self) -> u16 {
        let [a, b, ..] = self.offsets.to_le_bytes();
        u16::from_le_bytes([a, b])
    }

    /// How far behind the return address the CFA is.
    #[inline]
    pub(crate) fn ra_to_cfa(&self) -> i16 {
        let [_, _, a, b, ..] = self.offsets.to_le_bytes();
        i16::from_le_bytes([a, b])
    }

    /// How far behind its base the CFA is.
    #[inline]
    pub(crate) fn cfa_off(&self) -> u64 {
        u64::from(self.ra_at()).wrapping_add_signed(self.ra_to_cfa().into())
    }

    #[inline]
    pub(crate) fn fp_off(&self) -> i16 {
        let [.., a, b, _, _] = self.offsets.to_le_bytes();
        i16::from_le_bytes([a, b])
    }
}

/// Kind and trust as a rule has them.
#[inline(always)]
fn meta_of(kind: UnwindUserType, trust: Trust) -> u32 {
    kind.number().wrapping_shl(KIND_SHIFT) | u32::from(trust.to_bits()).wrapping_shl(TRUST_SHIFT)
}

/// All but the hint.
const NO_HINT: u64 = u64::MAX >> 16;

impl PartialEq for Plain {
    fn eq(&self, other: &Self) -> bool {
        (self.offsets & NO_HINT, self.meta.get() & META) == (other.offsets & NO_HINT, other.meta.get() & META)
    }
}

impl Eq for Plain {}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain")
            .field("frame", &self.frame())
            .field("kind", &self.kind())
            .field("trust", &self.trust())
            .finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{CfaRule, FpRule, RaRule};

    fn of(frame: UnwindUserFrame) -> Option<Plain> {
        Plain::of(UnwindUserType::SFrame, frame, Trust::CallSite)
    }

    #[test]
    fn what_is_plain_comes_back() {
        for use_fp in [false, true] {
            for cfa_off in [1, 8, 0x7fff, 0xffff] {
                for ra_off in [0, -8, 8, i32::from(i16::MAX), i32::from(i16::MIN)] {
                    for fp_off in [None, Some(0), Some(-16), Some(i16::MAX.into()), Some(i16::MIN.into())] {
                        let frame = UnwindUserFrame::plain(use_fp, cfa_off, ra_off, fp_off);
                        // The distance from it to the CFA is as wide.
                        let fits = (0..0x1_0000).contains(&cfa_off.wrapping_add(ra_off))
                            && ra_off != i16::MIN.into();
                        let plain = of(frame);
                        assert_eq!(plain.is_some(), fits, "{frame:?}");
                        let Some(plain) = plain else { continue };
                        let expected = (frame, UnwindUserType::SFrame, Trust::CallSite, false);
                        assert_eq!(
                            (plain.frame(), plain.kind(), plain.trust(), plain.is_outermost()),
                            expected
                        );
                        let hinted = Plain::from_words(plain.with_hint(0xffff), plain.to_words().1);
                        assert_eq!((hinted, hinted.frame(), hinted.hint()), (plain, frame, 0xffff));
                    }
                }
            }
        }
    }

    #[test]
    fn outermost_is_like_no_other() {
        let outermost = of(UnwindUserFrame::OUTERMOST).unwrap();
        assert!(outermost.is_outermost());
        assert_eq!(outermost.frame(), UnwindUserFrame::OUTERMOST);
        let cfa = CfaRule::Offset { base: crate::Base::Sp, offset: 0 };
        let said = UnwindUserFrame::new(cfa, RaRule::Undefined, FpRule::Undefined);
        assert_eq!(said, Some(UnwindUserFrame::OUTERMOST));
        let plain = of(UnwindUserFrame::plain(false, 8, -8, None)).unwrap();
        assert!(!outermost.goes_on_like(&plain) && !Plain::NONE.goes_on_like(&plain));
        assert!(plain.goes_on_like(&plain));
    }

    #[test]
    fn what_is_not_plain_is_refused() {
        let plain = UnwindUserFrame::plain(false, 16, -8, None);
        assert!(of(plain).is_some());
        let far = [0, -8, 0x1_0000, i32::MAX].map(|cfa_off| UnwindUserFrame::plain(false, cfa_off, 0, None));
        let wide = [0x8000, -0x8001].map(|off| UnwindUserFrame::plain(false, 0x9000, off, None));
        let wide_fp = [0x8000, -0x8001].map(|off| UnwindUserFrame::plain(false, 16, -8, Some(off)));
        let others = [plain.signal(), plain.with_sp_bound()];
        for frame in far.into_iter().chain(wide).chain(wide_fp).chain(others) {
            assert_eq!(of(frame), None, "{frame:?}");
        }
        let at_end = Found::new(Rule::Frame(plain), Trust::Exact).at_end(true);
        assert_eq!(Plain::new(UnwindUserType::Dwarf, &at_end), None);
    }
}
