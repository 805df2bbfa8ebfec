//! From a specification to a stack: first how it ends, then frame after frame inwards, as if the
//! program had run.

use std::collections::BTreeSet;

use unwind_core::{
    Arch, Cut, End, Frame, LookupError, Mark, MemoryError, Options, Pc, Provenance, SourceError, StepError,
    Trust, UnwindError, UnwindUserType, UnwindUserTypes,
};

use super::code::Text;
use super::place::{Outer, Placed};
use super::spec::{ChainSpec, EndSpec, FrameSpec, Place, RaSpec, Role, Size};
use super::{AnyArch, Memory, Reads, Registers, Rules, Stack};

/// More frames than this are left out: their sum fits between two stacks.
const MOST_FRAMES: usize = 20;

/// What a broken table says in these stacks.
pub(super) const BROKEN: LookupError =
    LookupError::Broken(SourceError { broken: unwind_core::Broken::Malformed, offset: 0x66 });

/// Lays a chain out for an architecture.
pub fn lay_out(arch: AnyArch, spec: &ChainSpec) -> Stack {
    let mut spec = spec.clone();
    spec.frames.truncate(MOST_FRAMES);
    if spec.frames.is_empty() {
        return lay_out(arch, &ChainSpec { frames: vec![FrameSpec::PLAIN], ..spec });
    }
    settle_roles(arch, &mut spec);
    if spec.stack != Place::Bottom {
        let top = stack_top(arch, spec.stack);
        return Layout::new(arch, &spec, top).finish();
    }
    // The lowest byte shall be at address 0: lay it out once to see how much there is.
    let assumed = 0x0700_0000;
    let lowest = Layout::new(arch, &spec, assumed).lay_frames().lowest_of_main;
    Layout::new(arch, &spec, assumed - lowest / 16 * 16).finish()
}

fn stack_top(arch: AnyArch, place: Place) -> u64 {
    match (place, arch.word()) {
        (Place::Bottom, _) => 0x0700_0000,
        (Place::Low, 8) => 0x7ffd_1234_0000,
        (Place::Low, _) => 0x7f12_0000,
        (Place::High, 8) => 0xffff_8880_1234_0000,
        (Place::High, _) => 0xc812_0000,
        // The CFA of an ABI with a bias is above the caller's sp.
        (Place::Top, word) => {
            arch.word_size().max_address() - (word - 1) - u64::from(arch.sp_bias().unsigned_abs())
        }
    }
}

/// Replaces what cannot be where it stands.
fn settle_roles(arch: AnyArch, spec: &mut ChainSpec) {
    if spec.end == EndSpec::NotCode {
        spec.code_known = true;
    }
    let last = spec.frames.len() - 1;
    let mut exact = true;
    let mut link_known = arch.has_link_register();
    for index in 0..=last {
        let frame = &mut spec.frames[index];
        let enters = matches!(frame.role, Role::Entered | Role::NullCall);
        let without_link = arch.has_link_register() && !link_known;
        let no_fp_rule = arch.frame_pointer_rule().is_none() || spec.end == EndSpec::NotCovered;
        if (enters && (!exact || without_link)) || (frame.role == Role::FramePointer && no_fp_rule) {
            frame.role = Role::Call;
        }
        if index == last && matches!(frame.role, Role::Signal | Role::Trampoline) {
            frame.role = Role::Call;
        }
        if index == last && spec.end == EndSpec::Unreadable {
            frame.role = Role::Call;
            frame.ra = RaSpec::AtCfa;
            frame.size = Size::Words(1);
            frame.evaluated = false;
        }
        if frame.ra == RaSpec::InLink && !link_known {
            frame.ra = RaSpec::AtCfa;
        }
        if spec.end == EndSpec::Broken {
            frame.better_is_broken = false;
        }
        // A bound is a word of the rule, so it takes a rule.
        if frame.role == Role::BoundedCall {
            frame.evaluated = false;
        }
        if index == last && spec.end == EndSpec::ZeroFramePointer && (exact || no_fp_rule) {
            spec.end = EndSpec::ZeroReturnAddress;
        }
        let frame = spec.frames[index];
        let signal = matches!(frame.role, Role::Signal | Role::Trampoline);
        exact = signal;
        link_known = arch.has_link_register()
            && (frame.role == Role::Trampoline || (frame.role == Role::Signal && frame.evaluated));
    }
}

/// The chain being laid out, outermost frame first.
pub(super) struct Layout<'s> {
    pub(super) arch: AnyArch,
    pub(super) spec: &'s ChainSpec,
    pub(super) memory: Memory,
    /// The words of all stacks.
    pub(super) words: BTreeSet<u64>,
    pub(super) rules: Rules,
    pub(super) registers: Registers,
    pub(super) text: Text,
    pub(super) guesses: bool,
    /// How many stacks are in use.
    pub(super) stacks: u64,
    top: u64,
    pub(super) lowest_of_main: u64,
    entry: Option<(u64, u64)>,
    /// Outermost first.
    placed: Vec<Placed>,
}

impl<'s> Layout<'s> {
    fn new(arch: AnyArch, spec: &'s ChainSpec, top: u64) -> Self {
        Layout {
            arch,
            spec,
            memory: Memory::new(),
            words: BTreeSet::new(),
            rules: Rules { rows: Vec::new(), code: spec.code_known.then(Vec::new) },
            registers: Registers::default(),
            text: Text::new(arch, spec),
            guesses: false,
            stacks: 1,
            top,
            lowest_of_main: top,
            entry: None,
            placed: Vec::new(),
        }
    }

    fn lay_frames(mut self) -> Self {
        let last = self.spec.frames.len() - 1;
        let (mut outer, rest) = match self.spec.end {
            EndSpec::Undefined
            | EndSpec::EntryFunction
            | EndSpec::NotCovered
            | EndSpec::Broken
            | EndSpec::ZeroFramePointer => (self.place_outermost(last), last),
            end => (self.nobody(end), last + 1),
        };
        for index in (0..rest).rev() {
            outer = self.place(index, &outer);
        }
        self.registers.ip = Some(outer.stored_pc);
        let (sp, fp) = (self.arch.sp(), self.arch.fp());
        self.registers.values.insert(sp.0, outer.sp);
        if outer.needs_fp || !self.spec.fp_unknown {
            self.registers.values.insert(fp.0, outer.fp);
        }
        if let Some(link) = outer.link {
            self.registers.values.insert(self.arch.ra().0, link);
        }
        self
    }

    /// Who would be the caller of the outermost frame, were it one.
    fn nobody(&self, end: EndSpec) -> Outer {
        let stored_pc = match end {
            EndSpec::ZeroReturnAddress => 0,
            EndSpec::NotCode => 0x900,
            _ => self.text.somewhere(),
        };
        let stored_pc = self.tagged(stored_pc);
        Outer { stored_pc, sp: self.top, fp: self.noise(), needs_fp: false, needs_sp: false, link: None }
    }

    /// The outermost frame, where it has no caller at all.
    fn place_outermost(&mut self, index: usize) -> Outer {
        let spec = self.spec.frames[index];
        let exact = self.is_exact(index);
        let covered = !matches!(self.spec.end, EndSpec::NotCovered | EndSpec::ZeroFramePointer);
        let kind = spec.kind.kind();
        let function = self.text.function(&mut self.rules, covered.then_some(kind), &spec, exact);
        self.put_code(&function, [&[], &[]]);
        match self.spec.end {
            EndSpec::Undefined => self.cover(&function, kind, super::place::outermost_rule(&spec), &spec),
            EndSpec::Broken => self.fail(&function, kind),
            EndSpec::EntryFunction => {
                self.entry = Some((function.first, function.last));
                self.fail(&function, kind);
            }
            _ => {}
        }
        let chain_ends = self.spec.end == EndSpec::ZeroFramePointer;
        let outer = Outer {
            stored_pc: self.tagged(function.pc),
            sp: self.top - 4 * self.arch.word(),
            fp: if chain_ends { 0 } else { self.noise() },
            needs_fp: chain_ends,
            needs_sp: false,
            link: None,
        };
        self.lowest_of_main = outer.sp;
        self.placed.push(Placed::outermost(function.pc, &outer, kind));
        outer
    }

    pub(super) fn push(&mut self, placed: Placed) {
        self.placed.push(placed);
    }

    /// Whether execution stopped in this frame.
    pub(super) fn is_exact(&self, index: usize) -> bool {
        let below = index.checked_sub(1).map(|below| self.spec.frames[below].role);
        matches!(below, None | Some(Role::Signal | Role::Trampoline))
    }

    /// The same code pointer with the bits that are not address set to something.
    pub(super) fn tagged(&self, pc: u64) -> u64 {
        if !self.spec.tagged {
            return pc;
        }
        let word = self.arch.word_size();
        let candidates = [self.spec.noise & 0xff7f_0000_0000_0000, 0x55 << 48, 1];
        let tagged = candidates.map(|bits| word.truncate(pc ^ bits));
        tagged.into_iter().find(|tagged| self.arch.strip_code_pointer(*tagged) == pc).unwrap_or(pc)
    }

    pub(super) fn noise(&self) -> u64 {
        self.arch.word_size().truncate(self.spec.noise)
    }

    fn finish(self) -> Stack {
        let mut layout = self.lay_frames();
        layout.placed.reverse();
        let innermost = &layout.placed[0];
        let mut fp = layout.registers.values.get(&layout.arch.fp().0).copied();
        let mut frames = vec![Frame::new(Pc::Exact(innermost.pc), innermost.sp, fp, Provenance::REGISTERS)];
        let options = layout.options();
        for (callee, caller) in layout.placed.iter().zip(layout.placed.iter().skip(1)) {
            fp = callee.fp_rule.of_caller(fp, caller.fp);
            let pc = if callee.is_signal { Pc::Exact(caller.pc) } else { Pc::Return(caller.pc) };
            let mut frame = Frame::new(pc, callee.caller_sp, fp, callee.provenance(&options));
            frame.sp_is_bound = callee.sp_is_bound;
            frames.push(frame);
        }
        let mut reads: Vec<Reads> = layout.placed.iter().map(|placed| placed.reads.clone()).collect();
        let end = layout.end(&mut reads);
        let Layout { arch, memory, words, rules, registers, text, .. } = layout;
        let functions = text.functions;
        Stack { arch, registers, memory, words, functions, rules, options, frames, end, reads }
    }

    fn options(&self) -> Options {
        let mut options = Options::default();
        options.guesses = self.guesses;
        if self.spec.end == EndSpec::NotCovered {
            options.types =
                UnwindUserTypes::ALL.without(UnwindUserType::FramePointer).without(UnwindUserType::BackChain);
        }
        if self.spec.end == EndSpec::FrameLimit {
            options.max_frames = u32::try_from(self.spec.frames.len()).expect("few");
        }
        if let Some((first, last)) = self.entry {
            options.entry_function = Some(first..last.saturating_add(1));
        }
        options
    }

    /// How the walk must end. Takes away the word that shall be missing.
    fn end(&mut self, reads: &mut [Reads]) -> End {
        let outermost = self.placed.last().expect("at least one frame");
        let reads = reads.last_mut().expect("as many as frames");
        let pc = if self.is_exact(self.placed.len() - 1) {
            Pc::Exact(outermost.pc)
        } else {
            Pc::Return(outermost.pc)
        };
        let failed = |cause, source| End::Failed(UnwindError::new(cause, pc, source));
        let LookupError::Broken(broken) = BROKEN else { unreachable!("it is broken") };
        if self.spec.end == EndSpec::Unreadable {
            self.memory.remove(outermost.ra_slot.expect("it is on the stack"), self.arch.word());
        }
        if matches!(self.spec.end, EndSpec::ZeroReturnAddress | EndSpec::NotCode | EndSpec::Unreadable) {
            reads.words.truncate(outermost.judged_after);
        }
        // A guess that leads nowhere says nothing: why one was needed is the reason.
        let is_guess = outermost.better_is_broken;
        if let (Some(better), false) = (is_guess, self.spec.end == EndSpec::FrameLimit) {
            return failed(StepError::Broken(broken), Some(better));
        }
        match self.spec.end {
            EndSpec::Undefined => End::Complete(Mark::UndefinedReturnAddress),
            // What a chain leads to is an end by convention, and none at all at an exact pc.
            EndSpec::ZeroReturnAddress if outermost.kind == UnwindUserType::FramePointer => match pc {
                Pc::Exact(_) => failed(StepError::NotCode { address: 0 }, Some(outermost.kind)),
                Pc::Return(_) => End::Complete(Mark::ZeroFrameRecord),
            },
            // Nor is what a table of calls says there.
            EndSpec::ZeroReturnAddress if outermost.trust == Trust::CallSite && pc.is_exact() => {
                failed(StepError::NotCode { address: 0 }, Some(outermost.kind))
            }
            EndSpec::ZeroReturnAddress => End::Complete(Mark::ZeroReturnAddress),
            EndSpec::ZeroFramePointer => End::Complete(Mark::ZeroFramePointer),
            EndSpec::EntryFunction => End::Complete(Mark::EntryFunction),
            EndSpec::NotCovered => failed(StepError::NotCovered, None),
            EndSpec::NotCode => failed(StepError::NotCode { address: 0x900 }, Some(outermost.kind)),
            EndSpec::Broken => failed(StepError::Broken(broken), Some(outermost.kind)),
            EndSpec::FrameLimit => {
                reads.words.clear();
                End::Truncated(Cut::FrameLimit)
            }
            EndSpec::Unreadable => {
                let slot = outermost.ra_slot.expect("it is on the stack");
                End::Truncated(Cut::Memory(MemoryError::Unreadable { address: slot }))
            }
        }
    }
}

impl Placed {
    fn provenance(&self, options: &Options) -> Provenance {
        let better = UnwindUserType::ALL.into_iter().filter(|kind| *kind < self.kind);
        let not_covered = better
            .filter(|kind| options.types.contains(*kind) && self.better_is_broken != Some(*kind))
            .fold(UnwindUserTypes::NONE, UnwindUserTypes::with);
        let unusable = self.better_is_broken.map(|kind| {
            let LookupError::Broken(error) = BROKEN else { unreachable!("it is broken") };
            (kind, unwind_core::Unusable::Broken(error))
        });
        let trust = if unusable.is_some() { Trust::Guess } else { self.trust };
        let mut provenance = Provenance::new(self.kind, trust);
        (provenance.not_covered, provenance.unusable) = (not_covered, unusable);
        provenance
    }
}
