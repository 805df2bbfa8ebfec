//! What the text of a row means.

use unwind_core::sframe::{Abi, Place, RowRule};
use unwind_core::{Base, CfaRule, FpRule, FrameKind, RaRule, Register, UnwindUserFrame};

use super::text::{Cell, Columns, Function, Text};

/// The ABI by the name that ELF tools give the file's format.
pub fn abi(text: &Text) -> Abi {
    match text.format.as_str() {
        "elf64-x86-64" => Abi::Amd64,
        "elf64-littleaarch64" => Abi::Aarch64Little,
        "elf64-bigaarch64" => Abi::Aarch64Big,
        "elf64-s390" => Abi::S390x,
        other => panic!("{other}"),
    }
}

/// What a row of the text says.
pub fn rule(columns: &Columns, text: &Text, function: &Function) -> RowRule {
    let fixed = |offset: i32| Some(Place { base: None, offset, deref: true });
    let cfa = place(&columns.cfa, text).unwrap();
    let ra = match (&columns.ra, abi(text)) {
        // Version 1's objdump prints it as unchanged. It is where the call put it.
        (Cell::Unchanged, Abi::Amd64) if text.version == 1 => fixed(-8),
        (Cell::Fixed, _) => fixed(text.fixed_ra),
        (Cell::Padding, _) if text.fixed_ra != 0 => fixed(text.fixed_ra),
        (Cell::Unchanged | Cell::Padding, abi) => {
            assert_ne!(abi, Abi::Amd64);
            None
        }
        (cell, _) => place(cell, text),
    };
    let fp = match &columns.fp {
        // The manual: without a rule, a fixed offset applies. Flexible rows are printed without it.
        Cell::Unchanged if function.is_flexible && text.fixed_fp != 0 => fixed(text.fixed_fp),
        Cell::Unchanged => None,
        cell => place(cell, text),
    };
    RowRule::Frame { cfa, ra, fp }
}

fn place(cell: &Cell, text: &Text) -> Option<Place> {
    let Cell::Sum { base, offset, deref } = cell else { panic!("{cell:?}") };
    let offset = i32::try_from(*offset).unwrap();
    Some(match base.as_str() {
        // No sample has a register that is at an offset from the CFA itself.
        "c" => Place { base: None, offset, deref: true },
        "sp" => Place { base: Some(Base::Sp), offset, deref: *deref },
        "fp" => Place { base: Some(Base::Fp), offset, deref: *deref },
        register => {
            let number = register.strip_prefix('r').unwrap().parse().unwrap();
            assert!(![abi(text).sp(), abi(text).fp()].contains(&Register(number)));
            Place { base: Some(Base::Register(Register(number))), offset, deref: *deref }
        }
    })
}

/// The rule of a frame that such a row describes.
pub fn frame(rule: RowRule, abi: Abi, is_signal: bool) -> UnwindUserFrame {
    let RowRule::Frame { cfa, ra, fp } = rule else {
        let cfa = CfaRule::Offset { base: Base::Sp, offset: 0 };
        return UnwindUserFrame::new(cfa, RaRule::Undefined, FpRule::Undefined).unwrap();
    };
    let base = cfa.base.unwrap();
    let cfa = match cfa.deref {
        true => CfaRule::Deref { base, offset: cfa.offset, add: 0 },
        false => CfaRule::Offset { base, offset: cfa.offset },
    };
    let ra = match ra {
        None => RaRule::InRegister { base: Base::Register(abi.ra()), offset: 0 },
        Some(Place { base: None, offset, .. }) => RaRule::AtCfa(offset),
        Some(Place { base: Some(base), offset, deref: true }) => RaRule::AtRegister { base, offset },
        Some(Place { base: Some(base), offset, deref: false }) => RaRule::InRegister { base, offset },
    };
    let fp = match fp {
        None => FpRule::Unchanged,
        Some(Place { base: None, offset, .. }) => FpRule::AtCfa(offset),
        Some(Place { base: Some(base), offset, deref: true }) => FpRule::AtRegister { base, offset },
        Some(Place { base: Some(base), offset, deref: false }) => FpRule::InRegister { base, offset },
    };
    let frame = UnwindUserFrame::new(cfa, ra, fp).unwrap();
    let frame = if is_signal { frame.signal() } else { frame };
    assert_eq!(frame.kind(), if is_signal { FrameKind::Signal } else { FrameKind::Call });
    frame
}
