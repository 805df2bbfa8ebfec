//! Every function of a section, and every row of a function in one pass: for those who put call
//! frame information into another form.

use core::fmt;

use super::DwarfSource;
use super::bytes::Bytes;
use super::entry::{Fde, entry_at};
use super::machine::Machine;
use super::row::{Cfa, Column, ExpressionAt, RaSign, Row};
use super::rule::{COLUMNS, RuleMaker, columns};
use super::section::{DwarfSections, Flavor, Input, NoMemory};
use super::symbolic::{blocks, depends_on_place};
use crate::{Arch, Broken, CfiVendor, LookupError, Pc, Register, Rule, SourceError, UnwindUserFrame};

impl<'d> DwarfSource<'d> {
    /// The functions of the section of this flavor, in the order of the section; none where there
    /// is no such section. Functions of no length are left out.
    pub fn functions<A: Arch>(&self, arch: &A, flavor: Flavor) -> DwarfFunctions<'d, A> {
        DwarfFunctions { arch: *arch, sections: *self.sections(), flavor, next: Some(0) }
    }
}

/// The functions of a section; see [`DwarfSource::functions`].
///
/// An entry that cannot be parsed is an error, after which the next entry follows where the length
/// of the broken one is sound. Pointers into the target's memory cannot be followed here.
#[derive(Clone, Debug)]
pub struct DwarfFunctions<'d, A> {
    arch: A,
    sections: DwarfSections<'d>,
    flavor: Flavor,
    /// Where the next entry begins; `None` at the end.
    next: Option<u64>,
}

impl<'d, A: Arch> Iterator for DwarfFunctions<'d, A> {
    type Item = Result<DwarfFunction<'d, A>, LookupError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut no_memory = NoMemory;
        let mut input = Input::new(&self.arch, &self.sections, self.flavor, 0, &mut no_memory)?;
        // Every entry is at least four bytes long, so this ends.
        while let Some(offset) = self.next.take() {
            let entry = match entry_at(&input, offset) {
                Ok(entry) => entry?,
                Err(error) => return Some(Err(error.into())),
            };
            self.next = Some(entry.next());
            match entry.parse_fde(&mut input) {
                Ok(Some(fde)) if fde.length > 0 => {
                    return Some(Ok(DwarfFunction::new(&self.arch, &self.sections, self.flavor, fde)));
                }
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

/// "DWARF for the Arm 64-bit Architecture", section 4.1.
const RA_SIGN_STATE: Register = Register(34);

/// A column that no instruction sets, as good as.
const NO_REGISTER: Register = Register(u16::MAX);

/// One function of a section, as its FDE describes it.
#[derive(Clone)]
pub struct DwarfFunction<'d, A> {
    arch: A,
    sections: DwarfSections<'d>,
    flavor: Flavor,
    fde: Fde<'d>,
    columns: [Register; 4],
}

impl<'d, A: Arch> DwarfFunction<'d, A> {
    pub(super) fn new(arch: &A, sections: &DwarfSections<'d>, flavor: Flavor, fde: Fde<'d>) -> Self {
        let [ra, fp, sp] = columns(arch, fde.cie.return_address);
        let ra_sign = match arch.cfi_vendor() {
            CfiVendor::AArch64 => RA_SIGN_STATE,
            _ => NO_REGISTER,
        };
        DwarfFunction { arch: *arch, sections: *sections, flavor, fde, columns: [ra, fp, sp, ra_sign] }
    }

    /// Its first address (svma).
    pub fn start(&self) -> u64 {
        self.fde.start
    }

    /// How many bytes of code; not 0.
    pub fn length(&self) -> u64 {
        self.fde.length
    }

    /// Where its FDE is in the section.
    pub fn offset(&self) -> u64 {
        self.fde.offset
    }

    /// Whether its frames are signal frames.
    pub fn is_signal(&self) -> bool {
        self.fde.cie.is_signal
    }

    /// AArch64: whether return addresses are signed with the B key, not the A key.
    pub fn is_key_b(&self) -> bool {
        self.fde.cie.is_key_b
    }

    /// Its rows. Together they cover the whole function.
    pub fn rows(&self) -> DwarfRows<'_, 'd, A> {
        let mut no_memory = NoMemory;
        let mut machine = Machine::blank(self.arch.cfi_vendor(), &self.fde, &self.columns);
        let mut row = Row::BLANK;
        let begun =
            self.input(&mut no_memory).and_then(|mut input| machine.begin(&mut row, &mut input, &self.fde));
        let (machine, broken) = match begun {
            Ok(()) => (Some(machine), None),
            Err(error) => (None, Some(self.row(0, self.fde.length, false, DwarfRule::None(error.into())))),
        };
        DwarfRows { function: self, machine, row, instructions: self.fde.instructions, pending: broken }
    }

    /// The rule of the row from `location` on.
    fn rule(&self, input: &Input<'d, '_>, location: u64, row: &Row<4>) -> Result<DwarfRule, NoFrame> {
        let [ra, fp, sp, _] = row.columns;
        let row = Row { cfa: row.cfa, columns: [ra, fp, sp], ra_sign: row.ra_sign };
        let start = self.fde.cie.address_size.wrapping_offset(self.fde.start, location);
        // Nothing else matters to an outermost frame.
        if ra == Column::Undefined || !self.depends_on_place(input, &row)? {
            return match self.rule_at(input, start, &row)? {
                Rule::Frame(frame) => Ok(DwarfRule::Frame(frame)),
                Rule::Evaluate => Err(self.cause(input, start, &row)?),
            };
        }
        let Cfa::Expression(expression) = row.cfa else {
            return Err(NoFrame::DependsOnPlace);
        };
        let elsewhere = Row { cfa: Cfa::Undefined, ..row };
        let blocks = match blocks(&self.arch, expression.bytes(input)?) {
            Some(blocks) if !self.depends_on_place(input, &elsewhere)? => blocks,
            _ => return Err(NoFrame::DependsOnPlace),
        };
        let size = u64::from(blocks.size);
        if start.checked_rem(size) != Some(0) {
            return Err(NoFrame::DependsOnPlace);
        }
        let behind = start.saturating_add(u64::from(blocks.split));
        match (self.rule_at(input, start, &row)?, self.rule_at(input, behind, &row)?) {
            (Rule::Frame(first), Rule::Frame(second)) => {
                Ok(DwarfRule::Blocks { size: blocks.size, split: blocks.split, first, second })
            }
            _ => Err(self.cause(input, start, &row)?),
        }
    }

    /// The same for a row without the column of the return address's signature, which a table does not state.
    #[cfg(feature = "table")]
    pub(super) fn rule_of(&self, input: &Input<'d, '_>, location: u64, row: &Row<COLUMNS>) -> DwarfRule {
        self.rule(input, location, &row.with_plain_sign()).unwrap_or_else(DwarfRule::None)
    }

    fn rule_at(&self, input: &Input<'d, '_>, svma: u64, row: &Row<COLUMNS>) -> Result<Rule, SourceError> {
        self.maker(input, svma).rule(row)
    }

    /// Which part of a row no frame can say.
    fn cause(&self, input: &Input<'d, '_>, svma: u64, row: &Row<COLUMNS>) -> Result<NoFrame, SourceError> {
        let maker = self.maker(input, svma);
        let [ra, fp, sp] = row.columns;
        let (cfa, formula) = maker.cfa(row.cfa)?;
        Ok(if cfa.is_none() {
            NoFrame::Cfa
        } else if maker.ra(ra)?.is_none() {
            NoFrame::ReturnAddress
        } else if maker.fp(fp)?.is_none() {
            NoFrame::FramePointer
        } else if !maker.sp_is_cfa(sp, formula)? {
            NoFrame::StackPointer
        } else {
            NoFrame::TooLarge
        })
    }

    fn maker<'r, 'm>(&'r self, input: &'r Input<'d, 'm>, svma: u64) -> RuleMaker<'r, 'd, 'm, A> {
        RuleMaker { arch: &self.arch, input, pc: Pc::Exact(svma), fde: &self.fde }
    }

    /// Whether what the row says is not the same at every pc and wherever the module is loaded.
    fn depends_on_place(&self, input: &Input<'d, '_>, row: &Row<COLUMNS>) -> Result<bool, SourceError> {
        let cfa = match row.cfa {
            Cfa::Expression(expression) => Some((expression, false)),
            _ => None,
        };
        let columns = row.columns.iter().filter_map(|column| Some((expression_of(*column)?, true)));
        for (expression, with_cfa) in cfa.into_iter().chain(columns) {
            if depends_on_place(&self.arch, expression.bytes(input)?, with_cfa) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the return address is signed in this row.
    fn is_ra_signed(&self, input: &Input<'d, '_>, row: &Row<4>) -> Result<bool, NoFrame> {
        let [.., stated] = row.columns;
        match (stated, row.ra_sign) {
            (Column::Unspecified, RaSign::Plain) => Ok(false),
            (Column::Unspecified, RaSign::Signed) => Ok(true),
            (Column::ValExpression(expression), RaSign::Plain) => {
                let value = self.maker(input, self.fde.start).constant(expression)?;
                value.map(|value| value & 1 != 0).ok_or(NoFrame::ReturnAddressSign)
            }
            _ => Err(NoFrame::ReturnAddressSign),
        }
    }

    fn row(&self, location: u64, length: u64, is_ra_signed: bool, rule: DwarfRule) -> DwarfRow {
        let start = self.fde.cie.address_size.wrapping_offset(self.fde.start, location);
        DwarfRow { start, length, is_ra_signed, rule }
    }

    fn input<'m>(&'m self, memory: &'m mut NoMemory) -> Result<Input<'d, 'm>, LookupError> {
        let missing = SourceError { broken: Broken::Malformed, offset: self.fde.offset };
        Ok(Input::new(&self.arch, &self.sections, self.flavor, 0, memory).ok_or(missing)?)
    }
}

impl<A> fmt::Debug for DwarfFunction<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DwarfFunction")
            .field("start", &self.fde.start)
            .field("length", &self.fde.length)
            .field("offset", &self.fde.offset)
            .finish_non_exhaustive()
    }
}

fn expression_of(column: Column) -> Option<ExpressionAt> {
    match column {
        Column::Expression(expression) | Column::ValExpression(expression) => Some(expression),
        _ => None,
    }
}

/// What holds over a range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DwarfRow {
    /// The first address (svma).
    pub start: u64,
    /// How many bytes; not 0.
    pub length: u64,
    /// AArch64: whether the return address is signed here.
    pub is_ra_signed: bool,
    /// What holds: what [`FrameSource::lookup`](crate::FrameSource::lookup) finds at every exact pc
    /// of the range.
    pub rule: DwarfRule,
}

/// What a row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DwarfRule {
    /// This rule.
    Frame(UnwindUserFrame),
    /// The entries of a procedure linkage table, or other code in blocks of the same shape: which
    /// rule holds depends on where in its block a pc is. The row begins with a block. It is right
    /// wherever the load bias is a multiple of the block's size.
    Blocks {
        /// How long a block is: a power of two.
        size: u8,
        /// Where in a block the rule changes; in `1..size`.
        split: u8,
        /// The rule before.
        first: UnwindUserFrame,
        /// The rule from there on.
        second: UnwindUserFrame,
    },
    /// No frame can say it, or it is broken.
    None(NoFrame),
}

/// Why a row is not one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoFrame {
    /// The CFA is an expression beyond what a frame can say.
    Cfa,
    /// The rule for the return address is one.
    ReturnAddress,
    /// The rule for the frame pointer is one.
    FramePointer,
    /// The caller's stack pointer is something else than the CFA.
    StackPointer,
    /// A register number or an offset does not fit into a frame.
    TooLarge,
    /// An expression depends on the pc, or on where the module is loaded, and is not of the known
    /// form that linkers write.
    DependsOnPlace,
    /// How the return address is signed cannot be told by one bit.
    ReturnAddressSign,
    /// The table is broken, and so it is for a lookup.
    Broken(LookupError),
}

impl fmt::Display for NoFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoFrame::Cfa => "CFA by an expression",
            NoFrame::ReturnAddress => "return address by an expression",
            NoFrame::FramePointer => "frame pointer by an expression",
            NoFrame::StackPointer => "stack pointer other than the CFA",
            NoFrame::TooLarge => "register or offset too large for a frame",
            NoFrame::DependsOnPlace => "expression that depends on the pc",
            NoFrame::ReturnAddressSign => "return address signed in an uncommon way",
            NoFrame::Broken(LookupError::Broken(error)) => return error.fmt(f),
            NoFrame::Broken(_) => "pointer into the target's memory",
        })
    }
}

impl core::error::Error for NoFrame {}

impl From<LookupError> for NoFrame {
    fn from(error: LookupError) -> Self {
        NoFrame::Broken(error)
    }
}

impl From<SourceError> for NoFrame {
    fn from(error: SourceError) -> Self {
        NoFrame::Broken(error.into())
    }
}

/// The rows of a function, in ascending order, without gaps; neighbours differ. See
/// [`DwarfFunction::rows`].
#[derive(Clone)]
pub struct DwarfRows<'f, 'd, A> {
    function: &'f DwarfFunction<'d, A>,
    /// `None` behind the last row.
    machine: Option<Machine<'f, 4>>,
    row: Row<4>,
    instructions: Bytes<'d>,
    /// A row that may go on.
    pending: Option<DwarfRow>,
}

impl<A: Arch> DwarfRows<'_, '_, A> {
    /// The next row as the instructions have it.
    fn raw(&mut self) -> Option<DwarfRow> {
        let function = self.function;
        let machine = self.machine.as_mut()?;
        let start = machine.location();
        let end_of_function = function.fde.length;
        let left = end_of_function.checked_sub(start).filter(|left| *left > 0);
        let Some(left) = left else {
            self.machine = None;
            return None;
        };
        let mut no_memory = NoMemory;
        let row = &mut self.row;
        let completed = function.input(&mut no_memory).and_then(|mut input| {
            Ok((machine.complete_row(row, &mut input, &mut self.instructions)?, input))
        });
        let (has_more, input) = match completed {
            Ok(completed) => completed,
            Err(error) => {
                self.machine = None;
                return Some(function.row(start, left, false, DwarfRule::None(error.into())));
            }
        };
        let length = if has_more { machine.location().wrapping_sub(start).min(left) } else { left };
        let rule = function.rule(&input, start, row);
        let signed = function.is_ra_signed(&input, row);
        if !has_more {
            self.machine = None;
        }
        Some(match (rule, signed) {
            (Ok(rule), Ok(signed)) => function.row(start, length, signed, rule),
            (Err(cause), _) | (_, Err(cause)) => function.row(start, length, false, DwarfRule::None(cause)),
        })
    }
}

impl<A: Arch> Iterator for DwarfRows<'_, '_, A> {
    type Item = DwarfRow;

    fn next(&mut self) -> Option<DwarfRow> {
        // Each turn takes at least one row of the function, or is the last.
        loop {
            let next = self.raw();
            match (&mut self.pending, next) {
                (Some(row), Some(next)) if row.continues_as(&next) => {
                    row.length = row.length.saturating_add(next.length);
                }
                _ => {
                    let whole = core::mem::replace(&mut self.pending, next);
                    if whole.is_some() || next.is_none() {
                        return whole;
                    }
                }
            }
        }
    }
}

impl DwarfRow {
    fn continues_as(&self, next: &DwarfRow) -> bool {
        (self.rule, self.is_ra_signed) == (next.rule, next.is_ra_signed)
    }
}

impl<A> fmt::Debug for DwarfRows<'_, '_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DwarfRows").field("pending", &self.pending).finish_non_exhaustive()
    }
}
