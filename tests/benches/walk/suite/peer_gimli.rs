//! gimli used directly: the FDE through `.eh_frame_hdr`, its rows up to the pc, the rules of the three
//! registers that a walk needs.

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, EndianSlice, EvaluationResult, FrameDescriptionEntry,
    Location, NativeEndian, ParsedEhFrameHdr, Register, RegisterRule, UnwindContext, UnwindExpression,
    UnwindSection, Value,
};
use unwind_arch::host::HostArch;
use unwind_core::{Arch, RegisterFile};

use super::contender::Contender;
use super::workload::{Image, Mapping, Sample, Workload};

type Slice<'w> = EndianSlice<'w, NativeEndian>;

/// One context for all walks, and a parsed header for each image.
pub(crate) struct Direct<'w> {
    workload: &'w Workload,
    images: Vec<Parsed<'w>>,
    context: UnwindContext<usize>,
}

struct Parsed<'w> {
    eh_frame: EhFrame<Slice<'w>>,
    hdr: ParsedEhFrameHdr<Slice<'w>>,
    bases: BaseAddresses,
}

const ADDRESS_SIZE: u8 = 8;

impl<'w> Parsed<'w> {
    fn new(image: &'w Image) -> Self {
        let mut bases = BaseAddresses::default()
            .set_eh_frame(image.eh_frame.svma)
            .set_eh_frame_hdr(image.eh_frame_hdr.svma);
        if let Some(text) = image.text_svma {
            bases = bases.set_text(text);
        }
        if let Some(got) = image.got_svma {
            bases = bases.set_got(got);
        }
        let mut eh_frame = EhFrame::new(&image.eh_frame.data, NativeEndian);
        eh_frame.set_address_size(ADDRESS_SIZE);
        let hdr = EhFrameHdr::new(&image.eh_frame_hdr.data, NativeEndian).parse(&bases, ADDRESS_SIZE);
        Parsed { eh_frame, hdr: hdr.expect("it was good enough for the loader"), bases }
    }
}

/// Where a walk stands.
struct At<'s> {
    sample: &'s Sample,
    pc: u64,
    /// Whether the pc is where execution stopped, or was interrupted by a signal.
    is_exact: bool,
    is_topmost: bool,
    sp: u64,
    fp: u64,
}

impl At<'_> {
    fn register(&self, register: Register) -> Option<u64> {
        let host = HostArch::host();
        match unwind_core::Register(register.0) {
            register if register == host.sp() => Some(self.sp),
            register if register == host.fp() => Some(self.fp),
            register if self.is_topmost => self.sample.registers.get(register),
            _ => None,
        }
    }
}

impl<'w> Direct<'w> {
    pub(crate) fn new(workload: &'w Workload) -> Self {
        let images = workload.images.iter().map(Parsed::new).collect();
        Direct { workload, images, context: UnwindContext::new() }
    }

    /// Moves to the caller.
    #[inline]
    fn step(&mut self, at: &mut At<'_>) -> Option<()> {
        let lookup = if at.is_exact { at.pc } else { at.pc - 1 };
        let mappings = &self.workload.processes[at.sample.process].mappings;
        let index = mappings.partition_point(|mapping: &Mapping| mapping.end <= lookup);
        let mapping = mappings.get(index).filter(|mapping| mapping.start <= lookup)?;
        let image = &self.images[mapping.image];
        let svma = lookup.wrapping_sub(mapping.bias);
        let table = image.hdr.table()?;
        let fde =
            table.fde_for_address(&image.eh_frame, &image.bases, svma, EhFrame::cie_from_offset).ok()?;
        let row = fde.unwind_info_for_address(&image.eh_frame, &image.bases, &mut self.context, svma).ok()?;
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                at.register(*register)?.wrapping_add_signed(*offset)
            }
            CfaRule::Expression(expression) => evaluate(image, &fde, *expression, at, None)?,
        };
        let saved = |register: unwind_core::Register| match row.register(Register(register.0)) {
            None | Some(RegisterRule::SameValue) => at.register(Register(register.0)),
            Some(RegisterRule::Offset(offset)) => at.sample.word(cfa.wrapping_add_signed(offset)),
            Some(RegisterRule::ValOffset(offset)) => Some(cfa.wrapping_add_signed(offset)),
            Some(RegisterRule::Register(other)) => at.register(other),
            Some(RegisterRule::Expression(expression)) => {
                at.sample.word(evaluate(image, &fde, expression, at, Some(cfa))?)
            }
            Some(RegisterRule::ValExpression(expression)) => evaluate(image, &fde, expression, at, Some(cfa)),
            _ => None,
        };
        let host = HostArch::host();
        let pc = saved(host.ra()).filter(|pc| *pc != 0)?;
        let sp = match row.register(Register(host.sp().0)) {
            None => cfa,
            Some(_) => saved(host.sp())?,
        };
        let fp = saved(host.fp()).unwrap_or(0);
        let is_signal = fde.is_signal_trampoline();
        if sp <= at.sp && !is_signal && !at.is_topmost {
            return None;
        }
        (at.pc, at.sp, at.fp, at.is_exact, at.is_topmost) = (pc, sp, fp, is_signal, false);
        Some(())
    }
}

/// What an expression comes to.
#[cold]
fn evaluate(
    image: &Parsed<'_>,
    fde: &FrameDescriptionEntry<Slice<'_>>,
    expression: UnwindExpression<usize>,
    at: &At<'_>,
    cfa: Option<u64>,
) -> Option<u64> {
    let mut evaluation = expression.get(&image.eh_frame).ok()?.evaluation(fde.cie().encoding());
    if let Some(cfa) = cfa {
        evaluation.set_initial_value(cfa);
    }
    let mut state = evaluation.evaluate().ok()?;
    loop {
        state = match state {
            EvaluationResult::Complete => break,
            EvaluationResult::RequiresRegister { register, .. } => {
                // Expressions of linkage tables want the pc.
                let is_pc = register.0 == HostArch::host().ra().0;
                let value = if is_pc { at.pc } else { at.register(register)? };
                evaluation.resume_with_register(Value::Generic(value)).ok()?
            }
            EvaluationResult::RequiresMemory { address, .. } => {
                evaluation.resume_with_memory(Value::Generic(at.sample.word(address)?)).ok()?
            }
            _ => return None,
        };
    }
    match evaluation.as_result() {
        [piece] => match piece.location {
            Location::Address { address } => Some(address),
            _ => None,
        },
        _ => None,
    }
}

impl Contender for Direct<'_> {
    fn name(&self) -> String {
        "gimli used directly".into()
    }

    #[inline]
    fn walk(&mut self, _: usize, sample: &Sample, pcs: &mut [u64]) -> usize {
        let (pc, sp, fp) = (sample.ip(), sample.sp(), sample.fp());
        let mut at = At { sample, pc, is_exact: true, is_topmost: true, sp, fp };
        let mut count = 0;
        for entry in pcs {
            *entry = at.pc;
            count += 1;
            if self.step(&mut at).is_none() {
                break;
            }
        }
        count
    }
}
