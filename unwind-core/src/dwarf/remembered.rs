//! The rows that `remember_state` has put aside, packed: a lookup has little stack.

use super::row::{Cfa, Column, ExpressionAt, Holder, RaSign, Row};
use crate::Register;

/// How deep `remember_state` may nest. Compilers do not nest it; macros of assembly may.
const DEPTH: usize = 8;

/// A stack of rows.
#[derive(Clone)]
pub(super) struct Remembered<const N: usize> {
    rows: [Packed<N>; DEPTH],
    depth: usize,
}

impl<const N: usize> Remembered<N> {
    #[inline]
    pub(super) fn new() -> Self {
        Remembered { rows: [Packed { kinds: 0, cfa: 0, columns: [0; N], cfa_register: 0 }; DEPTH], depth: 0 }
    }

    /// How many there are.
    #[cfg(feature = "table")]
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Puts a row aside; `None` where there is no room.
    #[inline]
    pub(super) fn push(&mut self, row: &Row<N>) -> Option<()> {
        *self.rows.get_mut(self.depth)? = Packed::of(row);
        self.depth = self.depth.saturating_add(1);
        Some(())
    }

    /// Puts the row that was put aside last, which is forgotten, in the place of `row`; `None` where there is none.
    #[inline]
    pub(super) fn pop(&mut self, row: &mut Row<N>) -> Option<()> {
        self.depth = self.depth.checked_sub(1)?;
        *row = self.rows.get(self.depth)?.row();
        Some(())
    }
}

/// A row in few bytes.
#[derive(Clone, Copy)]
struct Packed<const N: usize> {
    /// What the words mean: three bits for each column, from the lowest on, then two for the CFA and two for the
    /// signature of the return address.
    kinds: u32,
    cfa: u32,
    columns: [u32; N],
    cfa_register: u16,
}

/// No row has more columns.
const MOST: usize = 8;
const COLUMN_BITS: u32 = 3;
const CFA_SHIFT: u32 = 24;
const SIGN_SHIFT: u32 = 26;

impl<const N: usize> Packed<N> {
    const FITS: () = assert!(N <= MOST);

    fn of(row: &Row<N>) -> Self {
        let () = Self::FITS;
        let (cfa_kind, cfa, cfa_register) = match row.cfa {
            Cfa::Undefined => (0u32, 0, 0),
            Cfa::Register(Register(register), offset) => (1, offset.cast_unsigned(), register),
            Cfa::Expression(ExpressionAt(offset)) => (2, offset, 0),
        };
        let sign = match row.ra_sign {
            RaSign::Plain => 0u32,
            RaSign::Signed => 1,
            RaSign::SignedWithPc => 2,
        };
        let mut kinds = cfa_kind.wrapping_shl(CFA_SHIFT) | sign.wrapping_shl(SIGN_SHIFT);
        let mut columns = [0; N];
        let mut shift = 0u32;
        for (packed, column) in columns.iter_mut().zip(row.columns) {
            let (kind, word) = match column {
                Column::Unspecified => (0u32, 0),
                Column::Undefined => (1, 0),
                Column::SameValue => (2, 0),
                Column::Offset(offset) => (3, offset.cast_unsigned()),
                Column::ValOffset(offset) => (4, offset.cast_unsigned()),
                Column::Register(Holder(register)) => (5, register),
                Column::Expression(ExpressionAt(offset)) => (6, offset),
                Column::ValExpression(ExpressionAt(offset)) => (7, offset),
            };
            kinds |= kind.wrapping_shl(shift);
            shift = shift.wrapping_add(COLUMN_BITS);
            *packed = word;
        }
        Packed { kinds, cfa, columns, cfa_register }
    }

    fn row(&self) -> Row<N> {
        let cfa = match self.kinds.wrapping_shr(CFA_SHIFT) & 3 {
            0 => Cfa::Undefined,
            1 => Cfa::Register(Register(self.cfa_register), self.cfa.cast_signed()),
            _ => Cfa::Expression(ExpressionAt(self.cfa)),
        };
        let ra_sign = match self.kinds.wrapping_shr(SIGN_SHIFT) & 3 {
            0 => RaSign::Plain,
            1 => RaSign::Signed,
            _ => RaSign::SignedWithPc,
        };
        let mut columns = [Column::Unspecified; N];
        let mut kinds = self.kinds;
        for (column, word) in columns.iter_mut().zip(self.columns) {
            *column = match kinds & 7 {
                0 => Column::Unspecified,
                1 => Column::Undefined,
                2 => Column::SameValue,
                3 => Column::Offset(word.cast_signed()),
                4 => Column::ValOffset(word.cast_signed()),
                5 => Column::Register(Holder(word)),
                6 => Column::Expression(ExpressionAt(word)),
                _ => Column::ValExpression(ExpressionAt(word)),
            };
            kinds = kinds.wrapping_shr(COLUMN_BITS);
        }
        Row { cfa, columns, ra_sign }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_in_order_as_they_were() {
        let expression = ExpressionAt(u32::MAX);
        let columns = [
            Column::Unspecified,
            Column::Undefined,
            Column::SameValue,
            Column::Offset(i32::MIN),
            Column::ValOffset(i32::MAX),
            Column::Register(Holder(u32::from(u16::MAX))),
            Column::Expression(expression),
            Column::ValExpression(expression),
        ];
        let cfas = [Cfa::Undefined, Cfa::Register(Register(u16::MAX), -1), Cfa::Expression(expression)];
        let signs = [RaSign::Plain, RaSign::Signed, RaSign::SignedWithPc];
        let mut rows = [Row { cfa: Cfa::Undefined, columns, ra_sign: RaSign::Plain }; DEPTH];
        let mut at = 0;
        for row in &mut rows {
            row.columns.rotate_left(at);
            row.cfa = *cfas.iter().cycle().nth(at).unwrap_or(&Cfa::Undefined);
            row.ra_sign = *signs.iter().rev().cycle().nth(at).unwrap_or(&RaSign::Plain);
            at = at.wrapping_add(1);
        }
        let mut remembered = Remembered::new();
        for row in &rows {
            assert_eq!(remembered.push(row), Some(()));
        }
        assert_eq!(remembered.push(&rows.map(|row| row)[0]), None);
        let mut popped = Row::BLANK;
        for row in rows.iter().rev() {
            assert_eq!(remembered.pop(&mut popped), Some(()));
            assert_eq!(popped, *row);
        }
        assert_eq!(remembered.pop(&mut popped), None);
    }
}
