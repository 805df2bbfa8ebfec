//! Plain rules: what nearly every frame of every stack needs.

use core::fmt;
use core::num::NonZeroU32;

use crate::source::{Found, Rule, Trust, UnwindUserType};
use crate::{Pc, UnwindUserFrame};

/// A rule of the commonest shape, with what a walk has to know beside it. Two words, so that it stays in
/// registers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Plain {
    /// From the lowest bits on: the offset of the CFA, 32 bits, which is positive; those of the return
    /// address and of the frame pointer, 16 bits each.
    offsets: u64,
    /// As the constants below say. [`SET`] is never missing.
    meta: NonZeroU32,
}

/// The kind of source, 4 bits, and how far it can be trusted, 2 bits.
pub(crate) const ORIGIN_SHIFT: u32 = 8;
const ORIGIN: u32 = 0x3f << ORIGIN_SHIFT;
const TRUST_SHIFT: u32 = 12;
/// Whether the CFA is based on the frame pointer, and not on sp.
pub(crate) const USE_FP: u32 = 1 << 16;
/// Whether the caller's frame pointer is at an offset from the CFA, and not still in its register.
pub(crate) const SAVES_FP: u32 = 1 << 17;
pub(crate) const SET: u32 = 1 << 19;
const META: u32 = ORIGIN | USE_FP | SAVES_FP | SET;

impl Plain {
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
        let (offsets, use_fp, saves_fp) = frame.plain_parts()?;
        let origin =
            kind.number().wrapping_shl(ORIGIN_SHIFT) | u32::from(trust.to_bits()).wrapping_shl(TRUST_SHIFT);
        let use_fp = if use_fp { USE_FP } else { 0 };
        let saves_fp = if saves_fp { SAVES_FP } else { 0 };
        Self::from_words(offsets, origin | use_fp | saves_fp | SET)
    }

    /// Of what a cache remembers: the offsets, and the rest, among other bits. `None` where [`SET`] is not
    /// set. The offset of the CFA must be positive.
    #[inline]
    pub(crate) fn from_words(offsets: u64, meta: u32) -> Option<Self> {
        let meta = NonZeroU32::new(if meta & SET == 0 { 0 } else { meta & META })?;
        Some(Plain { offsets, meta })
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

    #[inline]
    pub(crate) fn use_fp(&self) -> bool {
        self.meta.get() & USE_FP != 0
    }

    #[inline]
    pub(crate) fn saves_fp(&self) -> bool {
        self.meta.get() & SAVES_FP != 0
    }

    /// Whether both are of the same kind, and trusted alike.
    #[inline]
    pub(crate) fn is_like(&self, other: &Plain) -> bool {
        (self.meta.get() ^ other.meta.get()) & ORIGIN == 0
    }

    /// Whether the instruction there has nothing to say first.
    #[inline]
    pub(crate) fn holds_at(&self, pc: Pc) -> bool {
        !pc.is_exact() || self.trust() != Trust::CallSite
    }

    /// The rule.
    pub fn frame(&self) -> UnwindUserFrame {
        let fp_off = self.saves_fp().then_some(i32::from(self.fp_off()));
        let cfa_off = i32::try_from(self.cfa_off()).unwrap_or(i32::MAX);
        UnwindUserFrame::plain(self.use_fp(), cfa_off, i32::from(self.ra_off()), fp_off)
    }

    #[inline]
    pub(crate) fn cfa_off(&self) -> u32 {
        let [a, b, c, d, ..] = self.offsets.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    #[inline]
    pub(crate) fn ra_off(&self) -> i16 {
        let [.., a, b, _, _] = self.offsets.to_le_bytes();
        i16::from_le_bytes([a, b])
    }

    #[inline]
    pub(crate) fn fp_off(&self) -> i16 {
        let [.., a, b] = self.offsets.to_le_bytes();
        i16::from_le_bytes([a, b])
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain")
            .field("frame", &self.frame())
            .field("kind", &self.kind())
            .field("trust", &self.trust())
            .finish()
    }
}
