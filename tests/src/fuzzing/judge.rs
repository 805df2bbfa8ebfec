//! gimli's unwind tables and expressions as the judge of ours. Where it cannot read a table, or
//! does not support what is in it, it does not judge.

use gimli::{
    BaseAddresses, CallFrameInstruction, EndianSlice, EvaluationResult, RunTimeEndian, UnwindSection,
};
use unwind_core::dwarf::{DwarfSections, Section};
use unwind_core::{Arch, ByteOrder, MemoryError, MemoryReader, Register, RegisterFile};

use crate::synthetic::AnyArch;
use crate::synthetic::chaos::mix;

type Slice<'d> = EndianSlice<'d, RunTimeEndian>;

/// What the caller's registers are, by gimli.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    /// `None` where the return address is undefined: then the others do not matter.
    pub(super) cfa: Option<u64>,
    pub(super) ra: Option<u64>,
    pub(super) fp: Option<u64>,
}

/// Registers and memory that are made up: every register and every byte has a value, and different
/// ones have different values.
#[derive(Clone, Copy)]
pub(super) struct Made {
    pub(super) arch: AnyArch,
    pub(super) pc: u64,
}

impl RegisterFile for Made {
    fn get(&self, register: Register) -> Option<u64> {
        if Some(register) == self.arch.ip() {
            return Some(self.pc);
        }
        // In the middle of the address space, so that small offsets stay inside.
        let middle = self.arch.word_size().max_address() / 4;
        Some(middle + (mix(register.0.into()) & 0x00ff_fff8))
    }
}

impl MemoryReader for Made {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        for (offset, byte) in (0u64..).zip(into) {
            *byte = mix(address.wrapping_add(offset)).to_le_bytes()[3];
        }
        Ok(())
    }
}

impl Made {
    fn bytes(mut self, address: u64, size: u8) -> u64 {
        let mut bytes = vec![0; usize::from(size)];
        self.read(address, &mut bytes).expect("everything can be read");
        if self.arch.byte_order() == ByteOrder::Little {
            bytes.reverse();
        }
        bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    fn word(self, address: u64) -> u64 {
        self.bytes(address, self.arch.word_size().bytes())
    }
}

/// Judges `.eh_frame` alone.
pub(super) fn eh_frame(made: Made, sections: &DwarfSections<'_>, section: Section<'_>) -> Option<Judgement> {
    let mut bases = BaseAddresses::default().set_eh_frame(section.svma);
    if let Some(text) = sections.text_svma {
        bases = bases.set_text(text);
    }
    if let Some(got) = sections.got_svma {
        bases = bases.set_got(got);
    }
    let mut parsed = gimli::EhFrame::new(section.data, endian(made.arch));
    parsed.set_address_size(made.arch.word_size().bytes());
    parsed.set_vendor(vendor(made.arch));
    judge(made, &parsed, &bases)
}

/// Judges `.debug_frame` alone.
pub(super) fn debug_frame(made: Made, section: Section<'_>) -> Option<Judgement> {
    let mut parsed = gimli::DebugFrame::new(section.data, endian(made.arch));
    parsed.set_address_size(made.arch.word_size().bytes());
    parsed.set_vendor(vendor(made.arch));
    judge(made, &parsed, &BaseAddresses::default())
}

fn endian(arch: AnyArch) -> RunTimeEndian {
    match arch.byte_order() {
        ByteOrder::Little => RunTimeEndian::Little,
        ByteOrder::Big => RunTimeEndian::Big,
    }
}

fn vendor(arch: AnyArch) -> gimli::Vendor {
    match arch {
        AnyArch::Aarch64(_) => gimli::Vendor::AArch64,
        _ => gimli::Vendor::Default,
    }
}

fn judge<'d, S: UnwindSection<Slice<'d>>>(
    made: Made,
    section: &S,
    bases: &BaseAddresses,
) -> Option<Judgement> {
    let fde = section.fde_for_address(bases, made.pc, S::cie_from_offset).ok()?;
    let size = made.arch.word_size();
    // gimli takes an indirect pointer for the address, and has no wrapping ranges: what it found is
    // not what counts, or what it passed over is.
    let mut entries = section.entries(bases);
    loop {
        let gimli::CieOrFde::Fde(entry) = entries.next().ok()?? else { continue };
        let entry = entry.parse(S::cie_from_offset).ok()?;
        let is_indirect = entry.cie().fde_address_encoding().is_some_and(|encoding| encoding.0 & 0x80 != 0);
        let end = entry.initial_address().checked_add(entry.len())?;
        if is_indirect || end > size.max_address() {
            return None;
        }
        if entry.offset() == fde.offset() {
            break;
        }
    }
    let cie = fde.cie();
    if cie.address_size() != size.bytes() {
        return None;
    }
    // What a CIE says about locations has no meaning.
    let mut initial = cie.instructions(section, bases);
    while let Some(instruction) = initial.next().ok()? {
        if matches!(
            instruction,
            CallFrameInstruction::AdvanceLoc { .. } | CallFrameInstruction::SetLoc { .. }
        ) {
            return None;
        }
    }
    let mut context = gimli::UnwindContext::new();
    let row = fde.unwind_info_for_address(section, bases, &mut context, made.pc).ok()?;
    let column = cie.return_address_register();
    let ra_rule = row.register(column);
    if ra_rule == Some(gimli::RegisterRule::Undefined) {
        return Some(Judgement { cfa: None, ra: None, fp: None });
    }
    let evaluator = Evaluator { made, section, encoding: cie.encoding(), marker: std::marker::PhantomData };
    let cfa = match row.cfa() {
        gimli::CfaRule::RegisterAndOffset { register, offset } => {
            let base = made.get(Register(register.0))?;
            size.offset(base, *offset)?
        }
        gimli::CfaRule::Expression(expression) => evaluator.expression(expression, None)?,
    };
    let ra = evaluator.register(ra_rule, Register(column.0), cfa)??;
    let fp = evaluator.register(row.register(gimli::Register(made.arch.fp().0)), made.arch.fp(), cfa)?;
    Some(Judgement { cfa: Some(cfa), ra: Some(ra), fp })
}

struct Evaluator<'e, 'd, S> {
    made: Made,
    section: &'e S,
    encoding: gimli::Encoding,
    marker: std::marker::PhantomData<&'d ()>,
}

impl<'d, S: UnwindSection<Slice<'d>>> Evaluator<'_, 'd, S> {
    /// The caller's value of a register: `None` where there is no judgement, `Some(None)` where it
    /// is lost.
    fn register(
        &self,
        rule: Option<gimli::RegisterRule<usize>>,
        register: Register,
        cfa: u64,
    ) -> Option<Option<u64>> {
        let arch = self.made.arch;
        let word = arch.word_size();
        let kept = arch.is_callee_saved(register) || register == arch.ra();
        Some(match rule {
            None if kept && Some(register) != arch.ip() => self.made.get(register),
            None | Some(gimli::RegisterRule::Undefined) => None,
            Some(gimli::RegisterRule::SameValue) => self.made.get(register),
            Some(gimli::RegisterRule::Offset(offset)) => Some(self.made.word(word.offset(cfa, offset)?)),
            Some(gimli::RegisterRule::ValOffset(offset)) => Some(word.offset(cfa, offset)?),
            Some(gimli::RegisterRule::Register(holder)) => self.made.get(Register(holder.0)),
            Some(gimli::RegisterRule::Expression(expression)) => {
                Some(self.made.word(self.expression(&expression, Some(cfa))?))
            }
            Some(gimli::RegisterRule::ValExpression(expression)) => {
                Some(self.expression(&expression, Some(cfa))?)
            }
            Some(_) => return None,
        })
    }

    fn expression(&self, expression: &gimli::UnwindExpression<usize>, cfa: Option<u64>) -> Option<u64> {
        let expression = expression.get(self.section).ok()?;
        // What is on the stack is as wide as an address (DWARF 5, section 2.5.1). gimli leaves a constant as it is
        // stated until something is computed with it, and shifts by more bits than there are.
        let mut operations = expression.operations(self.encoding);
        while let Ok(Some(operation)) = operations.next() {
            let fits = |value: u64| value <= self.made.arch.word_size().max_address();
            let is_wide = match operation {
                gimli::Operation::UnsignedConstant { value } => !fits(value),
                gimli::Operation::SignedConstant { value } => !fits(value.unsigned_abs()),
                _ => false,
            };
            if is_wide {
                return None;
            }
        }
        let mut evaluation = expression.evaluation(self.encoding);
        evaluation.set_max_iterations(400);
        if let Some(cfa) = cfa {
            evaluation.set_initial_value(cfa);
        }
        let generic = gimli::UnitOffset(0);
        let mut state = evaluation.evaluate().ok()?;
        loop {
            state = match state {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, base_type } if base_type == generic => {
                    let value = self.made.get(Register(register.0))?;
                    evaluation.resume_with_register(gimli::Value::Generic(value)).ok()?
                }
                EvaluationResult::RequiresMemory { address, size, space: None, base_type }
                    if base_type == generic && (1..=8).contains(&size) =>
                {
                    let value = self.made.bytes(address, size);
                    evaluation.resume_with_memory(gimli::Value::Generic(value)).ok()?
                }
                EvaluationResult::RequiresRelocatedAddress(address) => {
                    evaluation.resume_with_relocated_address(address).ok()?
                }
                _ => return None,
            };
        }
        match evaluation.result().as_slice() {
            [gimli::Piece { location: gimli::Location::Address { address }, .. }] => Some(*address),
            _ => None,
        }
    }
}
