//! The rules of a row: DWARF 5 section 6.4.1, for the columns that are tracked and no others.

use super::bytes::Bytes;
use super::section::Input;
use crate::{Register, SourceError};

/// Where an expression is in the section: that of its length, which is followed by its operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExpressionAt(pub(super) u32);

/// The rule for the CFA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cfa {
    Undefined,
    Register(Register, i32),
    Expression(ExpressionAt),
}

/// The rule of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// Nothing was said: the ABI decides.
    Unspecified,
    Undefined,
    SameValue,
    /// Stored at CFA + offset.
    Offset(i32),
    /// CFA + offset itself.
    ValOffset(i32),
    Register(Holder),
    /// Stored where the expression says.
    Expression(ExpressionAt),
    /// What the expression says.
    ValExpression(ExpressionAt),
}

/// The register that another one is in. As wide as what else a column may say, so that columns are packed fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder(pub(super) u32);

impl Holder {
    pub(super) fn new(Register(number): Register) -> Self {
        Holder(u32::from(number))
    }

    pub(super) fn register(self) -> Register {
        let [low, high, ..] = self.0.to_le_bytes();
        Register(u16::from_le_bytes([low, high]))
    }
}

/// Whether the return address is signed: "DWARF for the Arm 64-bit Architecture", section 4.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RaSign {
    Plain,
    /// With sp as the modifier.
    Signed,
    /// With sp and the pc of the signing instruction.
    SignedWithPc,
}

/// The rules that hold at one pc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row<const N: usize> {
    pub(super) cfa: Cfa,
    pub(super) columns: [Column; N],
    pub(super) ra_sign: RaSign,
}

impl<const N: usize> Row<N> {
    /// Nothing is said.
    pub(super) const BLANK: Self =
        Row { cfa: Cfa::Undefined, columns: [Column::Unspecified; N], ra_sign: RaSign::Plain };
}

impl ExpressionAt {
    /// The operations.
    pub(super) fn bytes<'d>(self, input: &Input<'d, '_>) -> Result<Bytes<'d>, SourceError> {
        let mut bytes = input.at(u64::from(self.0));
        let length = bytes.uleb128()?;
        bytes.split(length)
    }
}
