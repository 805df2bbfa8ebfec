//! The row machine: DWARF 5 section 6.4.2, for the columns that are tracked and no others.

use super::bytes::Bytes;
use super::entry::{Cie, Fde};
use super::remembered::Remembered;
use super::row::{Cfa, Column, ExpressionAt, Holder, RaSign, Row};
use super::section::Input;
use crate::{Broken, CfiVendor, LookupError, Register, SourceError};

/// Puts the row of `fde` that holds at `svma`, with the columns of `registers`, in the place of `row`: which
/// registers anything was said of.
#[inline(always)]
pub(super) fn row_at<'d, const N: usize>(
    input: &mut Input<'d, '_>,
    vendor: CfiVendor,
    fde: &Fde<'d>,
    svma: u64,
    registers: &[Register; N],
    row: &mut Row<N>,
) -> Result<Mentioned, LookupError> {
    *row = Row::BLANK;
    let mut machine = Machine::blank(vendor, fde, registers);
    let mut bytes = fde.cie.instructions;
    // Two turns.
    for is_cie in [true, false] {
        machine.run(row, input, &mut bytes)?;
        if is_cie {
            machine.be_in_fde(row);
            machine.wanted = fde.cie.address_size.truncate(svma.wrapping_sub(fde.start));
            bytes = fde.instructions;
        }
    }
    Ok(machine.mentioned)
}

/// The registers that instructions have set a rule for: a bit each, those from 63 on the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mentioned(u64);

impl Mentioned {
    pub(super) const NONE: Self = Mentioned(0);

    #[inline]
    fn bit(Register(number): Register) -> u64 {
        1u64.wrapping_shl(u32::from(number.min(63)))
    }

    /// Whether there may be a rule for this one.
    pub(super) fn has(self, register: Register) -> bool {
        self.0 & Self::bit(register) != 0
    }
}

/// Where an instruction begins in the section.
#[derive(Clone, Copy)]
struct At(u64);

impl At {
    fn error(self, broken: Broken) -> SourceError {
        SourceError { broken, offset: self.0 }
    }
}

/// Carries out the instructions of an FDE. The row at hand is its user's.
#[derive(Clone)]
pub(super) struct Machine<'f, const N: usize> {
    vendor: CfiVendor,
    cie: &'f Cie<'f>,
    /// The FDE's first address (svma).
    start: u64,
    /// How far from `start` the wanted row is.
    wanted: u64,
    /// How far from `start` the row at hand begins.
    location: u64,
    registers: &'f [Register; N],
    /// The columns after the CIE's instructions.
    initial: [Column; N],
    remembered: Remembered<N>,
    mentioned: Mentioned,
}

impl<'f, const N: usize> Machine<'f, N> {
    /// A machine that has carried out nothing so far.
    #[inline]
    pub(super) fn blank(vendor: CfiVendor, fde: &'f Fde<'_>, registers: &'f [Register; N]) -> Self {
        Machine {
            vendor,
            cie: &fde.cie,
            start: fde.start,
            wanted: u64::MAX,
            location: 0,
            registers,
            initial: [Column::Unspecified; N],
            remembered: Remembered::new(),
            mentioned: Mentioned::NONE,
        }
    }

    /// Carries out what the CIE says, on a blank row.
    #[inline]
    pub(super) fn begin<'d>(
        &mut self,
        row: &mut Row<N>,
        input: &mut Input<'d, '_>,
        fde: &Fde<'d>,
    ) -> Result<(), LookupError> {
        self.run(row, input, &mut { fde.cie.instructions })?;
        self.be_in_fde(row);
        Ok(())
    }

    /// What the CIE says is done, and came to `row`.
    #[inline]
    pub(super) fn be_in_fde(&mut self, row: &Row<N>) {
        self.initial = row.columns;
        self.location = 0;
    }

    /// Carries out what the CIE says, on a blank row; whether that comes to the same for every FDE: without
    /// locations, and without a state that is still remembered.
    #[cfg(feature = "table")]
    pub(super) fn begin_for_all<'d>(
        &mut self,
        row: &mut Row<N>,
        input: &mut Input<'d, '_>,
        fde: &Fde<'d>,
    ) -> bool {
        let is_done = self.run(row, input, &mut { fde.cie.instructions }).is_ok();
        is_done && self.remembered.depth() == 0 && self.location == 0
    }

    /// How far from the FDE's first address the row at hand begins.
    pub(super) fn location(&self) -> u64 {
        self.location
    }

    /// Completes the row that begins at [`location`](Machine::location), and goes on in `bytes`: the row
    /// holds up to the location afterwards. Whether there is more; if not, it holds to the end of the FDE.
    #[inline]
    pub(super) fn complete_row<'d>(
        &mut self,
        row: &mut Row<N>,
        input: &mut Input<'d, '_>,
        bytes: &mut Bytes<'d>,
    ) -> Result<bool, LookupError> {
        self.wanted = self.location;
        self.run(row, input, bytes)?;
        Ok(self.location > self.wanted)
    }

    /// Carries instructions out until the row that holds at the wanted pc is complete, and leaves the
    /// others in `bytes`. Each takes at least one byte, so this ends.
    #[inline(always)]
    fn run<'d>(
        &mut self,
        row: &mut Row<N>,
        input: &mut Input<'d, '_>,
        bytes: &mut Bytes<'d>,
    ) -> Result<(), LookupError> {
        let factor = self.cie.code_alignment;
        let mut rest = bytes.rest();
        while let Some((opcode, after)) = rest.split_first() {
            let here = rest;
            // The most frequent instructions are carried out here, where their operand has one byte.
            let delta = match (*opcode, after) {
                (0x40..=0x7f, _) => {
                    rest = after;
                    u64::from(*opcode & 0x3f)
                }
                (0x02, [delta, after @ ..]) => {
                    rest = after;
                    u64::from(*delta)
                }
                _ => {
                    if let Some(after) = self.frequent(row, *opcode, after) {
                        rest = after;
                        continue;
                    }
                    let at = At(bytes.with_rest(here).offset());
                    *bytes = bytes.with_rest(after);
                    let is_complete = self.any(row, input, *opcode, bytes, at)?;
                    rest = bytes.rest();
                    if is_complete {
                        break;
                    }
                    continue;
                }
            };
            let location = delta.checked_mul(factor).and_then(|delta| self.location.checked_add(delta));
            self.location = location.ok_or_else(|| bytes.with_rest(here).error(Broken::BadInstruction))?;
            if self.location > self.wanted {
                break;
            }
        }
        *bytes = bytes.with_rest(rest);
        Ok(())
    }

    /// One of the frequent instructions that do not move the location, if it is such, and what is left
    /// behind it.
    #[inline]
    fn frequent<'d>(&mut self, row: &mut Row<N>, opcode: u8, after: &'d [u8]) -> Option<&'d [u8]> {
        let low = Register(u16::from(opcode & 0x3f));
        match (opcode, after) {
            (0x80..=0xbf, [operand @ 0..0x80, after @ ..]) => {
                let offset = i64::from(*operand).checked_mul(self.cie.data_alignment)?;
                self.set(row, low, Column::Offset(i32::try_from(offset).ok()?));
                Some(after)
            }
            (0x0e, [offset @ 0..0x80, after @ ..]) => {
                let Cfa::Register(_, current) = &mut row.cfa else { return None };
                *current = i32::from(*offset);
                Some(after)
            }
            (0xc0.., after) => {
                self.restore(row, low);
                Some(after)
            }
            (0x00, after) => Some(after),
            _ => None,
        }
    }

    /// Any instruction. Whether the wanted row is complete.
    #[inline(never)]
    fn any<'d>(
        &mut self,
        row: &mut Row<N>,
        input: &mut Input<'d, '_>,
        opcode: u8,
        bytes: &mut Bytes<'d>,
        at: At,
    ) -> Result<bool, LookupError> {
        let low = opcode & 0x3f;
        match opcode & 0xc0 {
            0x40 => return Ok(self.advance(u64::from(low), self.cie.code_alignment, at)?),
            0x80 => {
                let offset = self.factored_unsigned(bytes)?;
                self.set(row, Register(u16::from(low)), Column::Offset(offset));
            }
            0xc0 => self.restore(row, Register(u16::from(low))),
            _ => return self.extended(row, input, opcode, bytes, at),
        }
        Ok(false)
    }

    /// An instruction whose opcode takes the whole byte. Whether the wanted row is complete.
    fn extended<'d>(
        &mut self,
        row: &mut Row<N>,
        input: &mut Input<'d, '_>,
        opcode: u8,
        bytes: &mut Bytes<'d>,
        at: At,
    ) -> Result<bool, LookupError> {
        let factor = self.cie.code_alignment;
        match opcode {
            // DW_CFA_nop
            0x00 => {}
            // DW_CFA_set_loc
            0x01 => {
                let target = input.pointer(bytes, self.cie.pointer_encoding, self.cie.address_size)?;
                let location = self.cie.address_size.truncate(target.wrapping_sub(self.start));
                let delta = location.checked_sub(self.location).ok_or(at.error(Broken::BadInstruction))?;
                return Ok(self.advance(delta, 1, at)?);
            }
            // DW_CFA_advance_loc1, 2, 4; DW_CFA_MIPS_advance_loc8
            0x02 => return Ok(self.advance(u64::from(bytes.u8()?), factor, at)?),
            0x03 => return Ok(self.advance(u64::from(bytes.u16()?), factor, at)?),
            0x04 => return Ok(self.advance(u64::from(bytes.u32()?), factor, at)?),
            0x1d => return Ok(self.advance(bytes.u64()?, factor, at)?),
            // DW_CFA_offset_extended
            0x05 => {
                let register = register(bytes)?;
                let offset = self.factored_unsigned(bytes)?;
                self.set(row, register, Column::Offset(offset));
            }
            // DW_CFA_restore_extended
            0x06 => {
                let register = register(bytes)?;
                self.restore(row, register);
            }
            // DW_CFA_undefined
            0x07 => {
                let register = register(bytes)?;
                self.set(row, register, Column::Undefined);
            }
            // DW_CFA_same_value
            0x08 => {
                let register = register(bytes)?;
                self.set(row, register, Column::SameValue);
            }
            // DW_CFA_register
            0x09 => {
                let saved = register(bytes)?;
                let holder = register(bytes)?;
                self.set(row, saved, Column::Register(Holder::new(holder)));
            }
            // DW_CFA_remember_state
            0x0a => {
                self.remembered.push(row).ok_or(at.error(Broken::RememberStackFull))?;
            }
            // DW_CFA_restore_state
            0x0b => {
                self.remembered.pop(row).ok_or(at.error(Broken::RememberStackEmpty))?;
            }
            // DW_CFA_def_cfa
            0x0c => {
                let register = register(bytes)?;
                row.cfa = Cfa::Register(register, unsigned(bytes)?);
            }
            // DW_CFA_def_cfa_register
            0x0d => {
                let register = register(bytes)?;
                let offset = match row.cfa {
                    Cfa::Register(_, offset) => offset,
                    // The assembler's CIEs for RISC-V and LoongArch say no more than this at first.
                    Cfa::Undefined => 0,
                    Cfa::Expression(_) => return Err(at.error(Broken::BadInstruction).into()),
                };
                row.cfa = Cfa::Register(register, offset);
            }
            // DW_CFA_def_cfa_offset
            0x0e => {
                let offset = unsigned(bytes)?;
                set_cfa_offset(row, offset, at)?;
            }
            // DW_CFA_def_cfa_expression
            0x0f => row.cfa = Cfa::Expression(expression(bytes)?),
            // DW_CFA_expression
            0x10 => {
                let register = register(bytes)?;
                let expression = expression(bytes)?;
                self.set(row, register, Column::Expression(expression));
            }
            // DW_CFA_offset_extended_sf
            0x11 => {
                let register = register(bytes)?;
                let offset = self.factored_signed(bytes)?;
                self.set(row, register, Column::Offset(offset));
            }
            // DW_CFA_def_cfa_sf
            0x12 => {
                let register = register(bytes)?;
                row.cfa = Cfa::Register(register, self.factored_signed(bytes)?);
            }
            // DW_CFA_def_cfa_offset_sf
            0x13 => {
                let offset = self.factored_signed(bytes)?;
                set_cfa_offset(row, offset, at)?;
            }
            // DW_CFA_val_offset
            0x14 => {
                let register = register(bytes)?;
                let offset = self.factored_unsigned(bytes)?;
                self.set(row, register, Column::ValOffset(offset));
            }
            // DW_CFA_val_offset_sf
            0x15 => {
                let register = register(bytes)?;
                let offset = self.factored_signed(bytes)?;
                self.set(row, register, Column::ValOffset(offset));
            }
            // DW_CFA_val_expression
            0x16 => {
                let register = register(bytes)?;
                let expression = expression(bytes)?;
                self.set(row, register, Column::ValExpression(expression));
            }
            // DW_CFA_AARCH64_negate_ra_state_with_pc, DW_CFA_AARCH64_negate_ra_state: whether the
            // return address is signed. It is stripped in any case.
            0x2c if self.vendor == CfiVendor::AArch64 => negate_ra_sign(row, RaSign::SignedWithPc),
            0x2d if self.vendor == CfiVendor::AArch64 => negate_ra_sign(row, RaSign::Signed),
            // DW_CFA_GNU_args_size
            0x2e => {
                bytes.uleb128()?;
            }
            // DW_CFA_GNU_negative_offset_extended
            0x2f => {
                let register = register(bytes)?;
                let too_large = at.error(Broken::OffsetTooLarge);
                let offset = self.factored_unsigned(bytes)?.checked_neg().ok_or(too_large)?;
                self.set(row, register, Column::Offset(offset));
            }
            _ => return Err(at.error(Broken::UnknownInstruction).into()),
        }
        Ok(false)
    }

    /// Moves the location on. Whether the row at hand is the wanted one, and complete.
    fn advance(&mut self, delta: u64, factor: u64, at: At) -> Result<bool, SourceError> {
        let location = delta.checked_mul(factor).and_then(|delta| self.location.checked_add(delta));
        self.location = location.ok_or(at.error(Broken::BadInstruction))?;
        Ok(self.location > self.wanted)
    }

    /// Sets the rule of a column, if it is tracked.
    fn set(&mut self, row: &mut Row<N>, register: Register, rule: Column) {
        self.mentioned.0 |= Mentioned::bit(register);
        for (tracked, column) in self.registers.iter().zip(&mut row.columns) {
            if *tracked == register {
                *column = rule;
            }
        }
    }

    /// Sets a column back to what the CIE says.
    fn restore(&self, row: &mut Row<N>, register: Register) {
        for ((tracked, column), initial) in self.registers.iter().zip(&mut row.columns).zip(&self.initial) {
            if *tracked == register {
                *column = *initial;
            }
        }
    }

    fn factored_unsigned(&self, bytes: &mut Bytes<'_>) -> Result<i32, SourceError> {
        let too_large = bytes.error(Broken::OffsetTooLarge);
        let value = i64::try_from(bytes.uleb128()?).map_err(|_| too_large)?;
        self.factored(value).ok_or(too_large)
    }

    fn factored_signed(&self, bytes: &mut Bytes<'_>) -> Result<i32, SourceError> {
        let too_large = bytes.error(Broken::OffsetTooLarge);
        self.factored(bytes.sleb128()?).ok_or(too_large)
    }

    fn factored(&self, value: i64) -> Option<i32> {
        value.checked_mul(self.cie.data_alignment).and_then(|offset| i32::try_from(offset).ok())
    }
}

fn negate_ra_sign<const N: usize>(row: &mut Row<N>, signed: RaSign) {
    row.ra_sign = if row.ra_sign == RaSign::Plain { signed } else { RaSign::Plain };
}

fn set_cfa_offset<const N: usize>(row: &mut Row<N>, offset: i32, at: At) -> Result<(), SourceError> {
    let Cfa::Register(register, _) = row.cfa else {
        return Err(at.error(Broken::BadInstruction));
    };
    row.cfa = Cfa::Register(register, offset);
    Ok(())
}

/// A register number. Those that no register has are rules for columns that nobody tracks.
fn register(bytes: &mut Bytes<'_>) -> Result<Register, SourceError> {
    let malformed = bytes.error(Broken::Malformed);
    u16::try_from(bytes.uleb128()?).map(Register).map_err(|_| malformed)
}

fn unsigned(bytes: &mut Bytes<'_>) -> Result<i32, SourceError> {
    let too_large = bytes.error(Broken::OffsetTooLarge);
    i32::try_from(bytes.uleb128()?).map_err(|_| too_large)
}

fn expression(bytes: &mut Bytes<'_>) -> Result<ExpressionAt, SourceError> {
    let too_large = bytes.error(Broken::OffsetTooLarge);
    let at = u32::try_from(bytes.offset()).map_err(|_| too_large)?;
    let length = bytes.uleb128()?;
    bytes.split(length)?;
    u16::try_from(length).map_err(|_| too_large)?;
    Ok(ExpressionAt(at))
}
