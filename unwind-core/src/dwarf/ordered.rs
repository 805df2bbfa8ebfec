//! The functions of a section in the order of their addresses, and their rows in one pass each: what tables
//! are made of.

use super::DwarfSource;
use super::entry::{Cie, Fde, entry_at};
use super::functions::{DwarfFunction, DwarfRule};
use super::hdr::SearchTable;
use super::index::DwarfIndex;
use super::machine::Machine;
use super::row::{Cfa, Column, RaSign, Row};
use super::rule::{COLUMNS, columns};
use super::section::{DwarfSections, Flavor, Input, NoMemory};
use crate::table::{Functions, Holds, TableOrigin, TableRule};
use crate::{Arch, Register, Trust, UnwindUserFrame};

impl<'d, A: Arch> TableOrigin<A> for DwarfSource<'d> {
    type Functions = OrderedFunctions<'d, A>;

    fn functions_of(&self, arch: &A) -> Option<Self::Functions> {
        let sections = *self.sections();
        let mut no_memory = NoMemory;
        let input = Input::any(arch, &sections, 0, &mut no_memory)?;
        let (flavor, hdr, index) = match input.flavor {
            Flavor::EhFrame => (Flavor::EhFrame, SearchTable::of(&input), sections.eh_frame_index),
            Flavor::DebugFrame => (Flavor::DebugFrame, None, sections.debug_frame_index),
        };
        let order = match hdr {
            Some(table) => Order::Hdr(table),
            None => Order::Index(index?),
        };
        Some(OrderedFunctions {
            arch: *arch,
            sections,
            flavor,
            order,
            cies: [None; CIES],
            next_cie: 0,
            parsed: [NOTHING; 2],
        })
    }
}

/// The functions of `.eh_frame`, or of `.debug_frame` where there is no other, as a lookup finds them.
#[derive(Clone)]
pub struct OrderedFunctions<'d, A> {
    arch: A,
    sections: DwarfSections<'d>,
    flavor: Flavor,
    order: Order<'d>,
    /// Those that were met last: a section has few. The next one takes the place of this.
    cies: [Option<Begun<'d>>; CIES],
    next_cie: usize,
    /// The functions parsed last, one at an even place and one at an odd one.
    parsed: [Parsed<'d>; 2],
}

const CIES: usize = 4;

/// The function at a place, and the offset of its CIE; `None` where it cannot be parsed.
#[derive(Clone, Copy)]
struct Parsed<'d> {
    place: usize,
    function: Option<(Fde<'d>, u64)>,
}

#[derive(Clone, Copy)]
enum Order<'d> {
    Hdr(SearchTable),
    Index(DwarfIndex<'d>),
}

/// A CIE whose instructions have been carried out.
#[derive(Clone, Copy)]
struct Begun<'d> {
    offset: u64,
    cie: Cie<'d>,
    columns: [Register; COLUMNS],
    initial: Row<COLUMNS>,
}

impl<'d, A: Arch> Functions for OrderedFunctions<'d, A> {
    #[inline]
    fn count(&self) -> usize {
        match self.order {
            Order::Hdr(table) => usize::try_from(table.count).unwrap_or(usize::MAX),
            Order::Index(index) => index.len(),
        }
    }

    #[inline]
    fn start(&self, place: usize) -> Option<u64> {
        match self.order {
            Order::Hdr(table) => {
                let mut no_memory = NoMemory;
                let input = Input::new(&self.arch, &self.sections, self.flavor, 0, &mut no_memory)?;
                table.start(&input, u64::try_from(place).ok()?).ok()
            }
            Order::Index(index) => index.start(place),
        }
    }

    fn is_passed_over(&mut self, place: usize) -> bool {
        // An index has none of them.
        if matches!(self.order, Order::Index(_)) {
            return false;
        }
        self.parse_at(place);
        self.kept(place).is_some_and(|(fde, _)| fde.length == 0)
    }

    fn is_all(&self) -> bool {
        let is_other = self.flavor == Flavor::EhFrame && self.sections.debug_frame.is_some();
        let is_broken = match self.order {
            Order::Hdr(_) => false,
            Order::Index(index) => index.broken().is_some(),
        };
        !is_other && !is_broken
    }

    fn rows(&mut self, place: usize, mut row: impl FnMut(u64, TableRule)) -> Option<u64> {
        let mut no_memory = NoMemory;
        let sections = self.sections;
        let mut input = Input::new(&self.arch, &sections, self.flavor, 0, &mut no_memory)?;
        self.parse_at(place);
        self.begin(&mut input, place)?;
        let (fde, cie) = self.kept(place)?;
        let begun = self.known(*cie)?;
        let machine = &mut Machine::blank(self.arch.cfi_vendor(), fde, &begun.columns);
        machine.be_in_fde(&begun.initial);
        let at_hand = &mut { begun.initial };
        let mut instructions = fde.instructions;
        loop {
            let at = machine.location();
            if at >= fde.length {
                break;
            }
            let Ok(has_more) = machine.complete_row(at_hand, &mut input, &mut instructions) else {
                row(at, TableRule::AskOriginal);
                break;
            };
            match self.plain(fde, at_hand) {
                Some(frame) => row(at, TableRule::exact(frame)),
                None => {
                    let end = if has_more { machine.location().min(fde.length) } else { fde.length };
                    let rule = self.any_rule(&input, fde, at, at_hand);
                    Blocks { at, end }.visit(rule, &mut row);
                }
            }
            if !has_more {
                break;
            }
        }
        Some(fde.length)
    }
}

impl<'d, A: Arch> OrderedFunctions<'d, A> {
    /// The rule of a row as nearly all are: with the return address, and the frame pointer if it is saved, on
    /// the stack.
    #[inline]
    fn plain(&self, fde: &Fde<'d>, row: &Row<COLUMNS>) -> Option<UnwindUserFrame> {
        let Cfa::Register(register, offset) = row.cfa else { return None };
        let use_fp = match register {
            register if register == self.arch.sp() => false,
            register if register == self.arch.fp() => true,
            _ => return None,
        };
        let [Column::Offset(ra), fp, Column::Unspecified] = row.columns else { return None };
        let fp = match fp {
            Column::Unspecified => None,
            Column::Offset(offset) => Some(offset),
            _ => return None,
        };
        let frame = UnwindUserFrame::plain(use_fp, offset, ra, fp);
        Some(if fde.cie.is_signal { frame.signal() } else { frame })
    }

    /// The rule of any row.
    #[inline(never)]
    fn any_rule(&self, input: &Input<'d, '_>, fde: &Fde<'d>, at: u64, row: &Row<COLUMNS>) -> DwarfRule {
        DwarfFunction::new(&self.arch, &self.sections, self.flavor, *fde).rule_of(input, at, row)
    }

    /// Parses the function at this place, unless that has been done.
    #[inline]
    fn parse_at(&mut self, place: usize) {
        let [even, odd] = &self.parsed;
        let kept = if place & 1 == 0 { even } else { odd };
        if kept.place != place {
            let function = self.parse(place);
            let [even, odd] = &mut self.parsed;
            let kept = if place & 1 == 0 { even } else { odd };
            *kept = Parsed { place, function };
        }
    }

    /// The function at this place, which has been parsed, and the offset of its CIE.
    #[inline]
    fn kept(&self, place: usize) -> Option<&(Fde<'d>, u64)> {
        let [even, odd] = &self.parsed;
        let kept = if place & 1 == 0 { even } else { odd };
        kept.function.as_ref().filter(|_| kept.place == place)
    }

    fn parse(&mut self, place: usize) -> Option<(Fde<'d>, u64)> {
        let mut no_memory = NoMemory;
        let sections = self.sections;
        let mut input = Input::new(&self.arch, &sections, self.flavor, 0, &mut no_memory)?;
        let (start, offset) = match self.order {
            Order::Hdr(table) => table.start_and_fde(&input, u64::try_from(place).ok()?).ok()?,
            Order::Index(index) => (index.start(place)?, index.fde(place)?),
        };
        let entry = entry_at(&input, offset).ok()?.filter(|entry| entry.offset == offset)?;
        let cie_offset = entry.cie?;
        let mut fde = Fde::blank();
        let is_one = match self.known(cie_offset) {
            Some(begun) => {
                fde.cie = begun.cie;
                entry.parse_fde_of(&mut input, &mut fde)
            }
            None => entry.parse_fde_into(&mut input, &mut fde),
        };
        (is_one.ok()? && fde.start == start).then_some((fde, cie_offset))
    }

    #[inline]
    fn known(&self, offset: u64) -> Option<&Begun<'d>> {
        self.cies.iter().flatten().find(|begun| begun.offset == offset)
    }

    /// Carries out the instructions of a function's CIE, unless that has been done. `None` where they do not
    /// come to the same for all of its FDEs.
    #[inline]
    fn begin(&mut self, input: &mut Input<'d, '_>, place: usize) -> Option<()> {
        let (fde, offset) = self.kept(place)?;
        if self.known(*offset).is_none() {
            let (fde, offset) = (*fde, *offset);
            let columns = columns(&self.arch, fde.cie.return_address);
            let mut machine = Machine::blank(self.arch.cfi_vendor(), &fde, &columns);
            let mut initial = Row::BLANK;
            if !machine.begin_for_all(&mut initial, input, &fde) {
                return None;
            }
            let next = self.next_cie;
            self.next_cie = next.wrapping_add(1) % CIES;
            *self.cies.get_mut(next)? = Some(Begun { offset, cie: fde.cie, columns, initial });
        }
        Some(())
    }
}

const NOTHING: Parsed<'static> = Parsed { place: usize::MAX, function: None };

/// The addresses of a row, from the start of its function.
struct Blocks {
    at: u64,
    end: u64,
}

/// The most blocks that one row is made into.
const MOST_BLOCKS: u64 = 1 << 16;

impl Blocks {
    /// The rows of a table that one row of call frame information becomes: one, or two for each block of
    /// code.
    fn visit(self, rule: DwarfRule, row: &mut impl FnMut(u64, TableRule)) {
        let in_blocks =
            |frame: UnwindUserFrame| TableRule::Frame { frame, trust: Trust::Exact, holds: Holds::InBlocks };
        let length = self.end.saturating_sub(self.at);
        match rule {
            DwarfRule::Frame(frame) => row(self.at, TableRule::exact(frame)),
            DwarfRule::Blocks { size, split, first, second }
                if length.checked_div(size.into()).is_some_and(|blocks| blocks < MOST_BLOCKS)
                    && (1..size).contains(&split) =>
            {
                let mut block = self.at;
                while block < self.end {
                    row(block, in_blocks(first));
                    row(block.saturating_add(u64::from(split)), in_blocks(second));
                    block = block.saturating_add(u64::from(size));
                }
            }
            _ => row(self.at, TableRule::AskOriginal),
        }
    }
}

impl<A> core::fmt::Debug for OrderedFunctions<'_, A> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("OrderedFunctions").field("flavor", &self.flavor).finish_non_exhaustive()
    }
}

/// The row with the column of the return address's signature, which does not matter here.
impl Row<COLUMNS> {
    pub(super) fn with_plain_sign(&self) -> Row<4> {
        let [ra, fp, sp] = self.columns;
        Row { cfa: self.cfa, columns: [ra, fp, sp, Column::Unspecified], ra_sign: RaSign::Plain }
    }
}
