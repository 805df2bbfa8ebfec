//! From a row to a rule.

use super::header::Abi;
use super::row::{Place, Row, RowRule};
use super::section::Fde;
use crate::{Base, CfaRule, FpRule, RaRule, UnwindUserFrame};

/// The rule of a frame that nobody called.
pub(super) const fn outermost() -> Option<UnwindUserFrame> {
    let cfa = CfaRule::Offset { base: Base::Sp, offset: 0 };
    UnwindUserFrame::new(cfa, RaRule::Undefined, FpRule::Undefined)
}

/// The rule that a row states; `None` where no frame can be like that.
#[inline]
pub(super) fn frame(abi: Abi, fde: &Fde, row: &Row) -> Option<UnwindUserFrame> {
    let (cfa, ra, fp) = match row.rule {
        RowRule::Outermost => {
            return outermost();
        }
        RowRule::Frame { cfa, ra, fp } => (cfa, ra, fp),
    };
    let cfa = match cfa {
        Place { base: Some(base), offset, deref: false } => CfaRule::Offset { base, offset },
        Place { base: Some(base), offset, deref: true } => CfaRule::Deref { base, offset, add: 0 },
        Place { base: None, .. } => return None,
    };
    let ra = match ra {
        Some(Place { base: None, offset, deref: true }) => RaRule::AtCfa(offset),
        // A return address is no stack address.
        Some(Place { base: None, deref: false, .. }) => return None,
        Some(Place { base: Some(base), offset, deref: false }) => RaRule::InRegister { base, offset },
        Some(Place { base: Some(base), offset, deref: true }) => RaRule::AtRegister { base, offset },
        None if abi == Abi::Amd64 => return None,
        None => RaRule::InRegister { base: Base::Register(abi.ra()), offset: 0 },
    };
    let fp = match fp {
        None => FpRule::Unchanged,
        Some(Place { base: None, offset, deref: true }) => FpRule::AtCfa(offset),
        Some(Place { base: None, offset, deref: false }) => FpRule::CfaOffset(offset),
        Some(Place { base: Some(base), offset, deref: false }) => FpRule::InRegister { base, offset },
        Some(Place { base: Some(base), offset, deref: true }) => FpRule::AtRegister { base, offset },
    };
    let frame = UnwindUserFrame::new(cfa, ra, fp)?;
    Some(if fde.is_signal { frame.signal() } else { frame })
}
