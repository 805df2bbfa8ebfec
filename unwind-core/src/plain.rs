//! Plain rules: what nearly every frame of every stack needs.

use core::fmt;
use core::num::NonZeroU32;

use crate::source::{Found, Rule, Trust, UnwindUserType};
use crate::{Pc, UnwindUserFrame};

/// A rule of the commonest shape, or that nobody called the frame, with what a walk has to know beside it. Two
/// words, so that it stays in registers.
#[derive(Clone, Copy)]
pub struct Plain {
    /// From the lowest bits on: how far behind the base of the CFA the return address is, 32 bits; how far
    /// behind that the CFA is, and the offset of the frame pointer from the CFA, 16 bits each. So the address
    /// that a walk waits for is one addition away.
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
pub(crate) const META: u32 = KIND | TRUST | USE_FP | SAVES_FP | SET | OUTERMOST;

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
        let flag = |flag: u32, is_set: bool| if is_set { flag } else { 0 };
        let meta =
            kind.number().wrapping_shl(KIND_SHIFT) | u32::from(trust.to_bits()).wrapping_shl(TRUST_SHIFT);
        if frame == UnwindUserFrame::OUTERMOST {
            return Some(Self::from_words(0, meta | OUTERMOST));
        }
        let parts = frame.plain_parts()?;
        let ra_at = parts.cfa_off.checked_add_signed(i32::from(parts.ra_off))?;
        if u64::from(parts.cfa_off | ra_at) >= Self::REACH {
            return None;
        }
        let meta = meta | flag(USE_FP, parts.use_fp) | flag(SAVES_FP, parts.saves_fp);
        let offsets = u64::from(ra_at)
            | u64::from(parts.ra_off.wrapping_neg().cast_unsigned()).wrapping_shl(32)
            | u64::from(parts.fp_off.cast_unsigned()).wrapping_shl(48);
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
    pub(crate) fn to_words(self) -> (u64, u32) {
        (self.offsets, self.meta.get() & META)
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
        let cfa_off = i32::from(self.ra_to_cfa()).saturating_add_unsigned(self.ra_at());
        let fp_off = self.saves_fp().then_some(i32::from(self.fp_off()));
        UnwindUserFrame::plain(self.use_fp(), cfa_off, ra_off, fp_off)
    }

    /// How far behind the base of the CFA the return address is.
    #[inline]
    pub(crate) fn ra_at(&self) -> u32 {
        let [a, b, c, d, ..] = self.offsets.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// How far behind the return address the CFA is.
    #[inline]
    pub(crate) fn ra_to_cfa(&self) -> i16 {
        let [.., a, b, _, _] = self.offsets.to_le_bytes();
        i16::from_le_bytes([a, b])
    }

    #[inline]
    pub(crate) fn fp_off(&self) -> i16 {
        let [.., a, b] = self.offsets.to_le_bytes();
        i16::from_le_bytes([a, b])
    }
}

impl PartialEq for Plain {
    fn eq(&self, other: &Self) -> bool {
        self.to_words() == other.to_words()
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
