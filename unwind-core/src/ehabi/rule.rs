//! Instructions carried out on names: the rule that they come to.

use super::machine::{Place, Unwound, Values};
use crate::{Arch, Base, CfaRule, FpRule, LookupError, RaRule, Register, Rule, UnwindUserFrame};

/// Registers and stack by name.
pub(super) struct Names;

/// The name of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// What this core register holds in the frame that is unwound.
    Register(u8),
    /// The word that lies so many bytes above what it holds.
    Word(u8, i64),
    /// A word at an address that is itself read from the stack.
    Beyond,
}

impl Values for Names {
    type Value = Name;

    fn register(&mut self, number: u8) -> Name {
        Name::Register(number)
    }

    fn load(&mut self, place: Place<Name>) -> Result<Name, LookupError> {
        Ok(match place.base {
            Name::Register(number) => Name::Word(number, place.offset),
            Name::Word(..) | Name::Beyond => Name::Beyond,
        })
    }
}

/// The rule, or that there is none that says this.
pub(super) fn rule<A: Arch>(arch: &A, unwound: &Unwound<Name>) -> Rule {
    frame(arch, unwound).map_or(Rule::Evaluate, Rule::Frame)
}

fn frame<A: Arch>(arch: &A, unwound: &Unwound<Name>) -> Option<UnwindUserFrame> {
    let cfa = match unwound.vsp {
        Place { base: Name::Register(number), offset } => {
            CfaRule::Offset { base: base(arch, number), offset: small(offset)? }
        }
        Place { base: Name::Word(number, inner), offset } => CfaRule::Deref {
            base: base(arch, number),
            offset: small(inner)?,
            add: i16::try_from(offset).ok()?,
        },
        Place { base: Name::Beyond, .. } => return None,
    };
    let ra = match unwound.return_address() {
        None => RaRule::InRegister { base: Base::Register(arch.ra()), offset: 0 },
        Some(place) => match slot(arch, unwound, place)? {
            Slot::AtCfa(offset) => RaRule::AtCfa(offset),
            Slot::AtRegister(base, offset) => RaRule::AtRegister { base, offset },
        },
    };
    let fp = match u8::try_from(arch.fp().0).ok().and_then(|number| unwound.saved(number)) {
        None => FpRule::Unchanged,
        Some(place) => match slot(arch, unwound, place)? {
            Slot::AtCfa(offset) => FpRule::AtCfa(offset),
            Slot::AtRegister(base, offset) => FpRule::AtRegister { base, offset },
        },
    };
    let frame = UnwindUserFrame::new(cfa, ra, fp)?;
    Some(if unwound.is_signal() { frame.signal() } else { frame })
}

/// Where a register lies, in the words of a rule.
enum Slot {
    AtCfa(i32),
    AtRegister(Base, i32),
}

fn slot<A: Arch>(arch: &A, unwound: &Unwound<Name>, place: Place<Name>) -> Option<Slot> {
    let cfa = unwound.vsp;
    match place.base {
        Name::Beyond => None,
        name if name == cfa.base => Some(Slot::AtCfa(small(place.offset.checked_sub(cfa.offset)?)?)),
        Name::Register(number) => Some(Slot::AtRegister(base(arch, number), small(place.offset)?)),
        Name::Word(..) => None,
    }
}

fn base<A: Arch>(arch: &A, number: u8) -> Base {
    let register = Register(number.into());
    if register == arch.sp() {
        Base::Sp
    } else if register == arch.fp() {
        Base::Fp
    } else {
        Base::Register(register)
    }
}

fn small(offset: i64) -> Option<i32> {
    i32::try_from(offset).ok()
}
