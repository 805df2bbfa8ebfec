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
    /// The word that lies so many words above what it holds.
    Word(u8, i32),
    /// A word at an address that is itself read from the stack.
    Beyond,
}

/// A place by name: 12 bytes. Entries move the stack pointer by whole words, so nothing is lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    base: Name,
    words: i32,
}

impl Values for Names {
    type Value = Name;
    type Kept = Kept;

    fn register(&mut self, number: u8) -> Name {
        Name::Register(number)
    }

    fn load(&mut self, place: Place<Name>) -> Result<Name, LookupError> {
        Ok(match place.base {
            Name::Register(number) => Name::Word(number, words(place.offset)),
            Name::Word(..) | Name::Beyond => Name::Beyond,
        })
    }

    fn keep(place: Place<Name>) -> Kept {
        Kept { base: place.base, words: words(place.offset) }
    }

    fn kept(kept: Kept) -> Place<Name> {
        Place { base: kept.base, offset: bytes(kept.words) }
    }
}

/// The words in so many bytes. More than 8 GiB either way are not told apart: no rule can say any of them.
fn words(bytes: i64) -> i32 {
    let words = bytes.wrapping_shr(2);
    i32::try_from(words).unwrap_or(if words < 0 { i32::MIN } else { i32::MAX })
}

fn bytes(words: i32) -> i64 {
    i64::from(words).wrapping_mul(4)
}

/// The rule, or that there is none that says this.
pub(super) fn rule<A: Arch>(arch: &A, unwound: &Unwound<Names>) -> Rule {
    frame(arch, unwound).map_or(Rule::Evaluate, Rule::Frame)
}

fn frame<A: Arch>(arch: &A, unwound: &Unwound<Names>) -> Option<UnwindUserFrame> {
    let cfa = match unwound.vsp {
        Place { base: Name::Register(number), offset } => {
            CfaRule::Offset { base: base(arch, number), offset: small(offset)? }
        }
        Place { base: Name::Word(number, inner), offset } => CfaRule::Deref {
            base: base(arch, number),
            offset: small(bytes(inner))?,
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

fn slot<A: Arch>(arch: &A, unwound: &Unwound<Names>, place: Place<Name>) -> Option<Slot> {
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
