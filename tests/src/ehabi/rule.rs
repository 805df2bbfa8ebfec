//! Rules carried out slowly, to see whether one says what the instructions do.

use unwind_core::{Base, CfaRule, FpRule, RaRule, Register, UnwindUserFrame};

use super::reference::Registers;

/// What a rule says about the caller; a part that cannot be had is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub cfa: Option<u32>,
    pub ra: Option<u32>,
    pub fp: Option<u32>,
}

/// Carries `rule` out, where the frame pointer is r`fp`.
pub fn apply(
    rule: &UnwindUserFrame,
    fp: u16,
    frame: &Registers,
    read: &mut dyn FnMut(u32) -> Option<u32>,
) -> Caller {
    let register = |base: Base| {
        let number = match base {
            Base::Sp => 13,
            Base::Fp => fp,
            Base::Register(Register(number)) => number,
        };
        frame[usize::from(number)]
    };
    let add = |value: Option<u32>, offset: i32| {
        value.and_then(|value| u32::try_from(i64::from(value) + i64::from(offset)).ok())
    };
    let cfa = match rule.cfa() {
        CfaRule::Offset { base, offset } => add(register(base), offset),
        CfaRule::Deref { base, offset, add: more } => {
            add(add(register(base), offset).and_then(&mut *read), more.into())
        }
    };
    let ra = match rule.ra() {
        RaRule::AtCfa(offset) => add(cfa, offset).and_then(&mut *read),
        RaRule::InRegister { base, offset } => add(register(base), offset),
        RaRule::AtRegister { base, offset } => add(register(base), offset).and_then(&mut *read),
        RaRule::Undefined => None,
    };
    let fp = match rule.fp() {
        FpRule::Unchanged => register(Base::Fp),
        FpRule::AtCfa(offset) => add(cfa, offset).and_then(&mut *read),
        FpRule::CfaOffset(offset) => add(cfa, offset),
        FpRule::InRegister { base, offset } => add(register(base), offset),
        FpRule::AtRegister { base, offset } => add(register(base), offset).and_then(&mut *read),
        FpRule::Undefined => None,
    };
    Caller { cfa, ra, fp }
}
