//! The rule of one frame.
//!
//! Every format decodes into [`UnwindUserFrame`], and one function ([`crate::step`]) applies it. The
//! three enums say what a rule can be; the frame packs them into 16 bytes.

use crate::Register;

/// A register that a rule starts from.
///
/// Stack and frame pointer are words of their own, so that the step need not know their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum Base {
    /// The stack pointer.
    Sp,
    /// The frame pointer.
    Fp,
    /// Another register; its number must be below 254 to fit into a rule.
    Register(Register),
}

/// How the canonical frame address is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum CfaRule {
    /// `base + offset`.
    Offset {
        /// The register to start from.
        base: Base,
        /// In bytes.
        offset: i32,
    },
    /// `*(base + offset) + add`: realigned stacks, assembly that keeps the old sp on the stack.
    Deref {
        /// The register to start from.
        base: Base,
        /// In bytes, before the word is read. Must fit into 23 bits.
        offset: i32,
        /// In bytes, added to the word. Must fit into 9 bits: enough for the 160 bytes of s390x.
        add: i16,
    },
}

/// How the return address is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum RaRule {
    /// In the word at `CFA + offset`.
    AtCfa(i32),
    /// In a register (the link register of a leaf, or any other), plus a constant.
    InRegister {
        /// The register.
        base: Base,
        /// In bytes; nearly always 0.
        offset: i32,
    },
    /// In the word at `base + offset`.
    AtRegister {
        /// The register to start from.
        base: Base,
        /// In bytes.
        offset: i32,
    },
    /// There is none: this is the outermost frame.
    Undefined,
}

/// How the caller's frame pointer is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum FpRule {
    /// It still is in the frame pointer register.
    Unchanged,
    /// In the word at `CFA + offset`.
    AtCfa(i32),
    /// It is `CFA + offset` itself.
    CfaOffset(i32),
    /// In a register, plus a constant.
    InRegister {
        /// The register.
        base: Base,
        /// In bytes.
        offset: i32,
    },
    /// In the word at `base + offset`.
    AtRegister {
        /// The register to start from.
        base: Base,
        /// In bytes.
        offset: i32,
    },
    /// It is lost.
    Undefined,
}

/// What kind of frame a rule describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
#[non_exhaustive]
pub enum FrameKind {
    /// An ordinary call: the caller's pc is a return pc, and the stack shrinks.
    Call,
    /// A signal or trap frame: the interrupted pc is exact, and sp may go anywhere.
    Signal,
}

/// The rule of one frame: how to find the CFA, the return address and the caller's frame pointer.
///
/// The seed's `struct unwind_user_frame` has `cfa_off`, `ra_off`, `fp_off` and `use_fp`; these are
/// [`CfaRule::Offset`], [`RaRule::AtCfa`], [`FpRule::AtCfa`] and [`Base::Fp`] here. What else a
/// rule can say is what real tables need beyond them.
///
/// 16 bytes, `Copy`. Constructors refuse what does not fit; nothing is ever narrowed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnwindUserFrame {
    cfa_off: i32,
    ra_off: i32,
    fp_off: i32,
    cfa_base: u8,
    ra_base: u8,
    fp_base: u8,
    /// Bit 0: CFA is dereferenced. Bits 1-2: RA kind. Bits 3-5: FP kind. Bit 6: signal frame.
    /// Bit 7: the caller's sp is only known to be at or above the CFA.
    tags: u8,
}

const BASE_SP: u8 = 255;
const BASE_FP: u8 = 254;

const CFA_DEREF: u8 = 1;
const RA_SHIFT: u8 = 1;
const RA_MASK: u8 = 3;
const RA_UNDEFINED: u8 = 3;
const FP_SHIFT: u8 = 3;
const FP_MASK: u8 = 7;
const FP_UNDEFINED: u8 = 5;
const SIGNAL: u8 = 1 << 6;
const SP_IS_BOUND: u8 = 1 << 7;

impl UnwindUserFrame {
    /// Puts a rule together, or `None` where it does not fit: a base register above 253, or a
    /// dereferenced CFA whose offset needs more than 23 bits, or what is added to it more than 9.
    #[inline]
    pub const fn new(cfa: CfaRule, ra: RaRule, fp: FpRule) -> Option<Self> {
        let (cfa_base, cfa_off, deref) = match cfa {
            CfaRule::Offset { base, offset } => (base, offset, 0),
            CfaRule::Deref { base, offset, add } => match pack_deref(offset, add) {
                Some(packed) => (base, packed, CFA_DEREF),
                None => return None,
            },
        };
        let (ra_tag, ra_base, ra_off) = match ra {
            RaRule::AtCfa(offset) => (0, Base::Sp, offset),
            RaRule::InRegister { base, offset } => (1, base, offset),
            RaRule::AtRegister { base, offset } => (2, base, offset),
            RaRule::Undefined => (RA_UNDEFINED, Base::Sp, 0),
        };
        let (fp_tag, fp_base, fp_off) = match fp {
            FpRule::Unchanged => (0, Base::Sp, 0),
            FpRule::AtCfa(offset) => (1, Base::Sp, offset),
            FpRule::CfaOffset(offset) => (2, Base::Sp, offset),
            FpRule::InRegister { base, offset } => (3, base, offset),
            FpRule::AtRegister { base, offset } => (4, base, offset),
            FpRule::Undefined => (FP_UNDEFINED, Base::Sp, 0),
        };
        let tags = deref | (ra_tag << RA_SHIFT) | (fp_tag << FP_SHIFT);
        match (pack_base(cfa_base), pack_base(ra_base), pack_base(fp_base)) {
            (Some(cfa_base), Some(ra_base), Some(fp_base)) => {
                Some(UnwindUserFrame { cfa_off, ra_off, fp_off, cfa_base, ra_base, fp_base, tags })
            }
            _ => None,
        }
    }

    /// The rule in the seed's own terms: `CFA = (use_fp ? fp : sp) + cfa_off`, the return address
    /// at `CFA + ra_off`, the caller's frame pointer at `CFA + fp_off` or unchanged.
    ///
    /// ```
    /// use unwind_core::{Base, CfaRule, FpRule, RaRule, UnwindUserFrame};
    ///
    /// // push %rbp; mov %rsp, %rbp
    /// let frame = UnwindUserFrame::plain(true, 16, -8, Some(-16));
    /// assert_eq!(frame.cfa(), CfaRule::Offset { base: Base::Fp, offset: 16 });
    /// assert_eq!((frame.ra(), frame.fp()), (RaRule::AtCfa(-8), FpRule::AtCfa(-16)));
    /// ```
    pub const fn plain(use_fp: bool, cfa_off: i32, ra_off: i32, fp_off: Option<i32>) -> Self {
        let (fp_tag, fp_off) = match fp_off {
            Some(offset) => (1, offset),
            None => (0, 0),
        };
        UnwindUserFrame {
            cfa_off,
            ra_off,
            fp_off,
            cfa_base: if use_fp { BASE_FP } else { BASE_SP },
            ra_base: BASE_SP,
            fp_base: BASE_SP,
            tags: fp_tag << FP_SHIFT,
        }
    }

    /// The rule of a function that has saved nothing: `CFA = sp + cfa_off`, the return address
    /// still in `link_register`, which must be below 254.
    pub const fn leaf(cfa_off: i32, link_register: Register) -> Option<Self> {
        Self::new(
            CfaRule::Offset { base: Base::Sp, offset: cfa_off },
            RaRule::InRegister { base: Base::Register(link_register), offset: 0 },
            FpRule::Unchanged,
        )
    }

    /// The rule as 16 bytes, for tables of rules. Two rules are equal where their bytes are.
    #[cfg(feature = "table")]
    #[inline]
    pub(crate) const fn to_bytes(self) -> [u8; 16] {
        let [c0, c1, c2, c3] = self.cfa_off.to_le_bytes();
        let [r0, r1, r2, r3] = self.ra_off.to_le_bytes();
        let [f0, f1, f2, f3] = self.fp_off.to_le_bytes();
        let [cfa, ra, fp] = [self.cfa_base, self.ra_base, self.fp_base];
        [c0, c1, c2, c3, r0, r1, r2, r3, f0, f1, f2, f3, cfa, ra, fp, self.tags]
    }

    /// The rule of 16 bytes. All bytes are some rule.
    #[cfg(feature = "table")]
    #[inline]
    pub(crate) const fn from_bytes(bytes: [u8; 16]) -> Self {
        let [c0, c1, c2, c3, r0, r1, r2, r3, f0, f1, f2, f3, cfa_base, ra_base, fp_base, tags] = bytes;
        UnwindUserFrame {
            cfa_off: i32::from_le_bytes([c0, c1, c2, c3]),
            ra_off: i32::from_le_bytes([r0, r1, r2, r3]),
            fp_off: i32::from_le_bytes([f0, f1, f2, f3]),
            cfa_base,
            ra_base,
            fp_base,
            tags,
        }
    }

    /// The rule as two words, for tables of rules.
    #[cfg(feature = "table")]
    #[inline]
    pub(crate) const fn to_words(self) -> [u64; 2] {
        let [a, b, c, d, e, f, g, h, rest @ ..] = self.to_bytes();
        [u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes(rest)]
    }

    /// The rule of two words.
    #[cfg(feature = "table")]
    #[inline]
    pub(crate) const fn from_words([first, second]: [u64; 2]) -> Self {
        let [a, b, c, d, e, f, g, h] = first.to_le_bytes();
        let [i, j, k, l, m, n, o, p] = second.to_le_bytes();
        Self::from_bytes([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }

    /// The rule of a frame that nobody called, as sources say it: nothing else of it matters.
    pub(crate) const OUTERMOST: Self = UnwindUserFrame {
        cfa_off: 0,
        ra_off: 0,
        fp_off: 0,
        cfa_base: BASE_SP,
        ra_base: BASE_SP,
        fp_base: BASE_SP,
        tags: RA_UNDEFINED << RA_SHIFT | FP_UNDEFINED << FP_SHIFT,
    };

    /// What a [`Plain`](crate::Plain) rule is made of. `None` where the rule is not plain.
    #[inline]
    pub(crate) fn plain_parts(&self) -> Option<PlainParts> {
        const SAVES_FP: u8 = 1 << FP_SHIFT;
        if self.tags & !(SAVES_FP | SP_IS_BOUND) != 0 || self.cfa_base < BASE_FP {
            return None;
        }
        let saves_fp = self.tags & SAVES_FP != 0;
        Some(PlainParts {
            use_fp: self.cfa_base == BASE_FP,
            saves_fp,
            cfa_off: u32::try_from(self.cfa_off).ok().filter(|offset| *offset > 0)?,
            ra_off: i16::try_from(self.ra_off).ok()?,
            fp_off: if saves_fp { i16::try_from(self.fp_off).ok()? } else { 0 },
        })
    }

    /// The same rule for a signal or trap frame.
    pub const fn signal(mut self) -> Self {
        self.tags |= SIGNAL;
        self
    }

    /// The same rule, where the CFA is only a lower bound of the caller's sp: an AArch64 frame
    /// record says where the next record is, not how large its frame is. A walk then cannot base
    /// the caller's CFA on sp.
    pub const fn with_sp_bound(mut self) -> Self {
        self.tags |= SP_IS_BOUND;
        self
    }

    /// How the CFA is found.
    #[inline]
    pub const fn cfa(&self) -> CfaRule {
        let base = unpack_base(self.cfa_base);
        if self.tags & CFA_DEREF == 0 {
            CfaRule::Offset { base, offset: self.cfa_off }
        } else {
            let (offset, add) = unpack_deref(self.cfa_off);
            CfaRule::Deref { base, offset, add }
        }
    }

    /// How the return address is found.
    #[inline]
    pub const fn ra(&self) -> RaRule {
        let base = unpack_base(self.ra_base);
        match (self.tags >> RA_SHIFT) & RA_MASK {
            0 => RaRule::AtCfa(self.ra_off),
            1 => RaRule::InRegister { base, offset: self.ra_off },
            2 => RaRule::AtRegister { base, offset: self.ra_off },
            _ => RaRule::Undefined,
        }
    }

    /// How the caller's frame pointer is found.
    #[inline]
    pub const fn fp(&self) -> FpRule {
        let base = unpack_base(self.fp_base);
        match (self.tags >> FP_SHIFT) & FP_MASK {
            0 => FpRule::Unchanged,
            1 => FpRule::AtCfa(self.fp_off),
            2 => FpRule::CfaOffset(self.fp_off),
            3 => FpRule::InRegister { base, offset: self.fp_off },
            4 => FpRule::AtRegister { base, offset: self.fp_off },
            _ => FpRule::Undefined,
        }
    }

    /// What kind of frame this is.
    #[inline]
    pub const fn kind(&self) -> FrameKind {
        if self.tags & SIGNAL == 0 { FrameKind::Call } else { FrameKind::Signal }
    }

    /// Whether the CFA is only a lower bound of the caller's sp; see
    /// [`with_sp_bound`](UnwindUserFrame::with_sp_bound).
    #[inline]
    pub const fn sp_is_bound(&self) -> bool {
        self.tags & SP_IS_BOUND != 0
    }
}

/// A rule as it mostly is: the CFA at a positive offset from sp or the frame pointer; the return address at an
/// offset from it; the frame pointer there too, or unchanged.
pub(crate) struct PlainParts {
    pub(crate) use_fp: bool,
    pub(crate) saves_fp: bool,
    pub(crate) cfa_off: u32,
    pub(crate) ra_off: i16,
    pub(crate) fp_off: i16,
}

impl core::fmt::Debug for UnwindUserFrame {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("UnwindUserFrame")
            .field("cfa", &self.cfa())
            .field("ra", &self.ra())
            .field("fp", &self.fp())
            .field("kind", &self.kind())
            .field("sp_is_bound", &self.sp_is_bound())
            .finish()
    }
}

#[cfg(feature = "arbitrary")]
impl<'a> arbitrary::Arbitrary<'a> for UnwindUserFrame {
    fn arbitrary(u: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<Self> {
        let mut frame = UnwindUserFrame::new(u.arbitrary()?, u.arbitrary()?, u.arbitrary()?)
            .ok_or(arbitrary::Error::IncorrectFormat)?;
        if u.arbitrary()? {
            frame = frame.signal();
        }
        if u.arbitrary()? {
            frame = frame.with_sp_bound();
        }
        Ok(frame)
    }
}

const fn pack_base(base: Base) -> Option<u8> {
    match base {
        Base::Sp => Some(BASE_SP),
        Base::Fp => Some(BASE_FP),
        Base::Register(Register(number)) => match number.to_le_bytes() {
            [low, 0] if low < BASE_FP => Some(low),
            _ => None,
        },
    }
}

#[inline]
const fn unpack_base(packed: u8) -> Base {
    match packed {
        BASE_SP => Base::Sp,
        BASE_FP => Base::Fp,
        number => Base::Register(Register(u16::from_le_bytes([number, 0]))),
    }
}

/// How many bits of a packed word are the addend of a dereferenced CFA; the others are its offset.
const ADD_BITS: u32 = 9;

/// Offset and addend of a dereferenced CFA in one word, `None` where they do not fit.
const fn pack_deref(offset: i32, add: i16) -> Option<i32> {
    let [low, high] = add.to_le_bytes();
    let add_bits = i32::from_le_bytes([low, high & 1, 0, 0]);
    let packed = offset.wrapping_shl(ADD_BITS) | add_bits;
    let back = unpack_deref(packed);
    if back.0 == offset && back.1 == add { Some(packed) } else { None }
}

#[inline]
const fn unpack_deref(packed: i32) -> (i32, i16) {
    let unused = i32::BITS.wrapping_sub(ADD_BITS);
    let [low, high, ..] = packed.wrapping_shl(unused).wrapping_shr(unused).to_le_bytes();
    (packed.wrapping_shr(ADD_BITS), i16::from_le_bytes([low, high]))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_16_bytes() {
        assert_eq!(size_of::<UnwindUserFrame>(), 16);
    }

    #[test]
    fn what_is_packed_comes_back() {
        let bases = [Base::Sp, Base::Fp, Base::Register(Register(0)), Base::Register(Register(253))];
        for base in bases {
            for offset in [0, 1, -1, 8, 540_128, i32::MAX, i32::MIN] {
                let cfas = [
                    Some(CfaRule::Offset { base, offset }),
                    Some(CfaRule::Deref { base, offset: -8, add: -256 }),
                    Some(CfaRule::Deref { base, offset: 0x3f_ffff, add: 255 }),
                    Some(CfaRule::Deref { base, offset: -0x40_0000, add: 160 }),
                ];
                let ras = [
                    RaRule::AtCfa(offset),
                    RaRule::InRegister { base, offset },
                    RaRule::AtRegister { base, offset },
                    RaRule::Undefined,
                ];
                let fps = [
                    FpRule::Unchanged,
                    FpRule::AtCfa(offset),
                    FpRule::CfaOffset(offset),
                    FpRule::InRegister { base, offset },
                    FpRule::AtRegister { base, offset },
                    FpRule::Undefined,
                ];
                for cfa in cfas.into_iter().flatten() {
                    for ra in ras {
                        for fp in fps {
                            let frame = UnwindUserFrame::new(cfa, ra, fp).unwrap();
                            assert_eq!((frame.cfa(), frame.ra(), frame.fp()), (cfa, ra, fp));
                            assert_eq!((frame.kind(), frame.sp_is_bound()), (FrameKind::Call, false));
                            let frame = frame.signal().with_sp_bound();
                            assert_eq!((frame.cfa(), frame.ra(), frame.fp()), (cfa, ra, fp));
                            assert_eq!((frame.kind(), frame.sp_is_bound()), (FrameKind::Signal, true));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let sp = CfaRule::Offset { base: Base::Sp, offset: 8 };
        for number in [254, 255, 256, u16::MAX] {
            let base = Base::Register(Register(number));
            assert_eq!(
                UnwindUserFrame::new(
                    CfaRule::Offset { base, offset: 0 },
                    RaRule::AtCfa(-8),
                    FpRule::Unchanged
                ),
                None
            );
            assert_eq!(
                UnwindUserFrame::new(sp, RaRule::InRegister { base, offset: 0 }, FpRule::Unchanged),
                None
            );
            assert_eq!(
                UnwindUserFrame::new(sp, RaRule::Undefined, FpRule::AtRegister { base, offset: 0 }),
                None
            );
        }
        let far = [0x40_0000, -0x40_0001, i32::MAX, i32::MIN].map(|offset| (offset, 0));
        for (offset, add) in far.into_iter().chain([256, -257, i16::MAX, i16::MIN].map(|add| (8, add))) {
            let cfa = CfaRule::Deref { base: Base::Sp, offset, add };
            assert_eq!(UnwindUserFrame::new(cfa, RaRule::AtCfa(-8), FpRule::Unchanged), None);
        }
    }
}
