//! The row machine of the short way: three columns, instructions with operands of few bytes.

use core::slice::Iter;

use super::plain_entry::{PlainCie, number};
use crate::{Arch, ByteOrder, CfiVendor, Register};

/// The columns that are kept, and one that may make a difference.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    ra: Register,
    fp: Register,
    sp: Register,
    /// Those of them below 64, a bit each.
    mask: u64,
    /// Where the ABI biases the CFA, functions save sp as they do any other register, which says nothing.
    may_save_sp: bool,
    vendor: CfiVendor,
}

impl Columns {
    /// `None` where a register is in two columns.
    #[inline(always)]
    pub(super) fn of<A: Arch>(arch: &A, ra: Register) -> Option<Self> {
        let (fp, sp, vendor) = (arch.fp(), arch.sp(), arch.cfi_vendor());
        let may_save_sp = arch.sp_bias() != 0;
        let mask = bit(ra) | bit(fp) | bit(sp);
        (ra != fp && ra != sp && fp != sp).then_some(Columns { ra, fp, sp, mask, may_save_sp, vendor })
    }
}

#[inline(always)]
fn bit(Register(number): Register) -> u64 {
    1u64.checked_shl(u32::from(number)).unwrap_or(0)
}

/// The rule of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Nothing was said, or that the value is the same, which comes to the same here.
    Unspecified,
    Undefined,
    /// Stored at CFA + offset.
    Offset(i32),
}

/// The rules that hold at one pc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlainRow {
    /// What the CFA is based on.
    pub(super) cfa_register: Register,
    pub(super) cfa_offset: i32,
    pub(super) ra: Slot,
    pub(super) fp: Slot,
}

impl PlainRow {
    /// The first one: nothing is said but for the CFA.
    const fn on(register: u8, offset: u8) -> Self {
        let cfa_register = Register(u16::from_le_bytes([register, 0]));
        let cfa_offset = i32::from_le_bytes([offset, 0, 0, 0]);
        PlainRow { cfa_register, cfa_offset, ra: Slot::Unspecified, fp: Slot::Unspecified }
    }

    const BLANK: Self = Self::on(0, 0);
}

/// How deep `remember_state` may nest: as deep as compilers nest it.
const REMEMBERED: usize = 2;

/// Rows that are remembered.
struct Remembered {
    rows: [PlainRow; REMEMBERED],
    depth: usize,
}

impl Remembered {
    const NONE: Self = Remembered { rows: [PlainRow::BLANK; REMEMBERED], depth: 0 };

    #[inline(always)]
    fn push(&mut self, row: PlainRow) -> Option<()> {
        *self.rows.get_mut(self.depth)? = row;
        self.depth = self.depth.wrapping_add(1);
        Some(())
    }

    #[inline(always)]
    fn pop(&mut self) -> Option<PlainRow> {
        self.depth = self.depth.checked_sub(1)?;
        self.rows.get(self.depth).copied()
    }
}

/// Carries instructions out. Factors have seven bits and operands at most 21, so that no offset overflows.
#[derive(Clone, Copy)]
pub(super) struct Machine {
    columns: Columns,
    order: ByteOrder,
    code_factor: u64,
    data_factor: i32,
}

impl Machine {
    #[inline(always)]
    pub(super) fn new(cie: &PlainCie<'_>, columns: Columns, order: ByteOrder) -> Self {
        let (code_factor, data_factor) = (u64::from(cie.code_factor), i32::from(cie.data_factor));
        Machine { columns, order, code_factor, data_factor }
    }

    /// The row that holds so many bytes behind the first address: what the instructions of the CIE and then
    /// those of the FDE come to.
    #[inline(always)]
    pub(super) fn row_at(&self, of_cie: &[u8], of_fde: &[u8], wanted: u64) -> Option<PlainRow> {
        // The CFA is defined first of all, so that it always is.
        let (mut row, rest) = match of_cie {
            // DW_CFA_def_cfa, DW_CFA_def_cfa_register
            [0x0c, register @ 0..0x80, offset @ 0..0x80, rest @ ..] => {
                (PlainRow::on(*register, *offset), rest)
            }
            [0x0d, register @ 0..0x80, rest @ ..] => (PlainRow::on(*register, 0), rest),
            _ => return None,
        };
        match rest {
            // DW_CFA_offset for the return address, DW_CFA_nop: what x86 has.
            [register, offset @ 0..0x80]
            | [register, offset @ 0..0x80, 0]
            | [register, offset @ 0..0x80, 0, 0]
            | [register, offset @ 0..0x80, 0, 0, 0]
                if u16::from(*register) == self.columns.ra.0.wrapping_add(0x80) && *register < 0xc0 =>
            {
                row.ra = Slot::Offset(i32::from(*offset).wrapping_mul(self.data_factor));
            }
            [] | [0] | [0, 0] | [0, 0, 0] => {}
            _ => row = self.run(row, rest, None)?,
        }
        self.run(row, of_fde, Some(wanted))
    }

    /// The row that holds at `wanted`; that behind all instructions, where nothing may move the location, if
    /// it is `None`.
    #[inline(never)]
    fn run(&self, initial: PlainRow, instructions: &[u8], wanted: Option<u64>) -> Option<PlainRow> {
        let restored = if wanted.is_some() { initial } else { PlainRow::BLANK };
        // How far the wanted location is from that of the row at hand.
        let mut left = wanted.unwrap_or(0);
        let mut row = initial;
        let mut remembered = Remembered::NONE;
        let mut bytes = instructions.iter();
        // Each turn takes at least one byte.
        while let Some(opcode) = bytes.next() {
            let opcode = *opcode;
            // The two most frequent ones first: DW_CFA_advance_loc, DW_CFA_def_cfa_offset.
            let advance = opcode.wrapping_sub(0x40);
            let delta = if advance < 0x40 {
                u64::from(advance)
            } else if opcode == 0x0e {
                row.cfa_offset = unsigned(&mut bytes)?;
                continue;
            } else {
                let low = opcode & 0x3f;
                match opcode {
                    // DW_CFA_offset
                    0x80..=0xbf => {
                        let value = unsigned(&mut bytes)?;
                        if self.is_kept(low) {
                            let offset = Slot::Offset(value.wrapping_mul(self.data_factor));
                            row =
                                self.set(row, Register(u16::from(low)), offset, self.columns.may_save_sp)?;
                        }
                        continue;
                    }
                    // DW_CFA_restore
                    0xc0..=0xff => {
                        if self.is_kept(low) {
                            row = self.restore(row, restored, Register(u16::from(low)));
                        }
                        continue;
                    }
                    // DW_CFA_nop
                    0x00 => continue,
                    // DW_CFA_advance_loc1
                    0x02 => u64::from(*bytes.next()?),
                    // DW_CFA_advance_loc2, DW_CFA_advance_loc4
                    0x03 | 0x04 => {
                        let (delta, rest) = delta_of(opcode, self.order, bytes.as_slice())?;
                        bytes = rest.iter();
                        u64::from(delta)
                    }
                    // DW_CFA_remember_state
                    0x0a => {
                        // Those of a CIE would have to be kept.
                        wanted?;
                        remembered.push(row)?;
                        continue;
                    }
                    // DW_CFA_restore_state
                    0x0b => {
                        row = remembered.pop()?;
                        continue;
                    }
                    // DW_CFA_def_cfa
                    0x0c => {
                        row.cfa_register = register(&mut bytes)?;
                        row.cfa_offset = unsigned(&mut bytes)?;
                        continue;
                    }
                    // DW_CFA_def_cfa_register
                    0x0d => {
                        row.cfa_register = register(&mut bytes)?;
                        continue;
                    }
                    other => {
                        let rest;
                        (row, rest) = self.rare(row, restored, other, bytes.as_slice())?;
                        bytes = rest.iter();
                        continue;
                    }
                }
            };
            match left.checked_sub(delta.wrapping_mul(self.code_factor)) {
                Some(after) => left = after,
                None => return wanted.and(Some(row)),
            }
        }
        Some(row)
    }

    /// An instruction that few functions have, and what is behind it.
    #[inline(never)]
    fn rare<'d>(
        &self,
        mut row: PlainRow,
        initial: PlainRow,
        opcode: u8,
        rest: &'d [u8],
    ) -> Option<(PlainRow, &'d [u8])> {
        match opcode {
            // DW_CFA_GNU_args_size
            0x2e => return Some((row, long(rest)?.1)),
            // DW_CFA_AARCH64_negate_ra_state and its form with the pc: the return address is stripped
            // in any case.
            0x2c | 0x2d if self.columns.vendor == CfiVendor::AArch64 => return Some((row, rest)),
            // DW_CFA_def_cfa_offset_sf
            0x13 => {
                let (offset, rest) = signed(rest)?;
                row.cfa_offset = offset.wrapping_mul(self.data_factor);
                return Some((row, rest));
            }
            _ => {}
        }
        let (number, mut rest) = long(rest)?;
        let register = Register(u16::try_from(number).ok()?);
        let is_kept = [self.columns.ra, self.columns.fp, self.columns.sp].contains(&register);
        match opcode {
            // DW_CFA_offset_extended, and with a signed offset
            0x05 | 0x11 => {
                let offset;
                (offset, rest) = if opcode == 0x05 { long(rest)? } else { signed(rest)? };
                let offset = Slot::Offset(offset.wrapping_mul(self.data_factor));
                row = self.set(row, register, offset, self.columns.may_save_sp)?;
            }
            // DW_CFA_restore_extended
            0x06 => row = self.restore(row, initial, register),
            // DW_CFA_undefined
            0x07 => row = self.set(row, register, Slot::Undefined, false)?,
            // DW_CFA_same_value
            0x08 => row = self.set(row, register, Slot::Unspecified, false)?,
            // DW_CFA_register
            0x09 if !is_kept => {
                let holder;
                (holder, rest) = long(rest)?;
                u16::try_from(holder).ok()?;
            }
            // DW_CFA_def_cfa_sf
            0x12 => {
                let offset;
                (offset, rest) = signed(rest)?;
                row.cfa_register = register;
                row.cfa_offset = offset.wrapping_mul(self.data_factor);
            }
            // DW_CFA_expression, DW_CFA_val_expression
            0x10 | 0x16 if !is_kept => {
                let length;
                (length, rest) = long(rest)?;
                // No longer one is one elsewhere.
                rest = rest.get(usize::from(u16::try_from(length).ok()?)..)?;
            }
            _ => return None,
        }
        Some((row, rest))
    }

    /// Whether the column of a register below 64 is kept, or is that of sp.
    #[inline(always)]
    fn is_kept(&self, low: u8) -> bool {
        self.columns.mask.wrapping_shr(u32::from(low)) & 1 != 0
    }

    /// Sets the rule of a column, if it is kept. `None` for that of sp, unless that does not matter.
    #[inline(always)]
    fn set(&self, mut row: PlainRow, register: Register, slot: Slot, may_be_sp: bool) -> Option<PlainRow> {
        if register == self.columns.fp {
            row.fp = slot;
        } else if register == self.columns.ra {
            row.ra = slot;
        } else if register == self.columns.sp && !may_be_sp {
            return None;
        }
        Some(row)
    }

    /// Sets a column back to what the CIE says. Of sp that is nothing that matters.
    #[inline(always)]
    fn restore(&self, mut row: PlainRow, initial: PlainRow, register: Register) -> PlainRow {
        if register == self.columns.fp {
            row.fp = initial.fp;
        } else if register == self.columns.ra {
            row.ra = initial.ra;
        }
        row
    }
}

/// The operand of a `DW_CFA_advance_loc2` or `DW_CFA_advance_loc4`, and what is behind it.
#[inline(never)]
fn delta_of(opcode: u8, order: ByteOrder, rest: &[u8]) -> Option<(u32, &[u8])> {
    Some(match (opcode, order, rest) {
        (0x03, ByteOrder::Little, [a, b, rest @ ..]) => (u32::from_le_bytes([*a, *b, 0, 0]), rest),
        (0x03, ByteOrder::Big, [a, b, rest @ ..]) => (u32::from_be_bytes([0, 0, *a, *b]), rest),
        (0x04, order, [a, b, c, d, rest @ ..]) => (number(order, [*a, *b, *c, *d]), rest),
        _ => return None,
    })
}

/// A ULEB128 number of at most three bytes: 21 bits.
#[inline(always)]
fn unsigned(bytes: &mut Iter<'_, u8>) -> Option<i32> {
    let all = bytes.clone();
    let first = *bytes.next()?;
    if first < 0x80 {
        return Some(i32::from(first));
    }
    let (value, rest) = long(all.as_slice())?;
    *bytes = rest.iter();
    Some(value)
}

/// A register whose number has one byte.
#[inline(always)]
fn register(bytes: &mut Iter<'_, u8>) -> Option<Register> {
    bytes.next().filter(|number| **number < 0x80).map(|number| Register(u16::from(*number)))
}

#[inline(never)]
fn long(bytes: &[u8]) -> Option<(i32, &[u8])> {
    leb128(bytes).map(|(value, _, rest)| (value, rest))
}

/// A SLEB128 number of at most three bytes.
#[inline(never)]
fn signed(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (value, bits, rest) = leb128(bytes)?;
    let unused = i32::BITS.wrapping_sub(bits);
    Some((value.wrapping_shl(unused).wrapping_shr(unused), rest))
}

/// The bits of a LEB128 number of at most three bytes, how many there are, and what is behind it.
#[inline(always)]
fn leb128(bytes: &[u8]) -> Option<(i32, u32, &[u8])> {
    let part = |byte: &u8, shift| i32::from(*byte & 0x7f).wrapping_shl(shift);
    Some(match bytes {
        [a @ 0..0x80, rest @ ..] => (part(a, 0), 7, rest),
        [a, b @ 0..0x80, rest @ ..] => (part(a, 0) | part(b, 7), 14, rest),
        [a, b, c @ 0..0x80, rest @ ..] => (part(a, 0) | part(b, 7) | part(c, 14), 21, rest),
        _ => return None,
    })
}
