//! A slow, obvious unwinder to compare the library with.
//!
//! It is written from what `unwind-core` documents, and shares its data types but none of its
//! steps: numbers are 128 bits wide so that nothing wraps by accident, nothing is cached, nothing
//! is fast. It does not look for circles over signal frames; [`agree`] knows what the library may
//! do about those.

mod agreement;
mod conventions;
mod library;
mod state;

pub use agreement::{Walk, agree};
pub use library::walk_by_library;

use state::{Caller, State};
use unwind_core::{
    Arch, Base, CfaRule, CodeAt, Cut, End, Evaluated, Found, FpRule, Frame, FrameKind, FrameSource,
    LookupError, Mark, MemoryError, MemoryReader, Options, Pc, Provenance, Query, RaRule, Rule, StartError,
    StepError, Trust, Unusable, UnwindError, UnwindUserFrame, UnwindUserType, UnwindUserTypes, UserRegisters,
    WordSize,
};

/// Why a step led nowhere.
enum Stop {
    Complete(Mark),
    Memory(MemoryError),
    Error(StepError),
}

impl From<LookupError> for Stop {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Broken(error) => Stop::Error(StepError::Broken(error)),
            LookupError::Memory(error) => Stop::Memory(error),
            LookupError::UnknownRegister(register) => Stop::Error(StepError::UnknownRegister(register)),
            LookupError::AddressOverflow => Stop::Error(StepError::AddressOverflow),
            LookupError::CannotUnwind => Stop::Error(StepError::CannotUnwind),
            error => panic!("a lookup error that this reference does not know: {error:?}"),
        }
    }
}

/// Walks a whole stack. Memory is read in the same order as the documented checks need it, so that
/// the address that ends a walk is comparable.
pub fn walk<A: Arch, S: FrameSource<A>>(
    arch: &A,
    source: &S,
    options: &Options,
    registers: &dyn UserRegisters,
    memory: &mut dyn MemoryReader,
) -> Result<Walk, StartError> {
    if !registers.is_user() {
        return Err(StartError::NoUserRegisters);
    }
    let ip = registers.ip().ok_or(StartError::NoInstructionPointer)?;
    let sp = registers.get(arch.sp()).ok_or(StartError::NoStackPointer)?;
    let (word, saved) = (Word::of(arch.word_size()), Word::of(arch.register_size()));
    let state = State {
        ip: word.cut(arch.strip_code_pointer(ip).into()),
        exact: true,
        sp: word.cut(sp.into()),
        sp_is_bound: false,
        fp: registers.get(arch.fp()).map(|fp| word.cut(fp.into())),
        topmost: Some(registers),
        link: None,
    };
    let mut unwinder = Reference { arch, source, options, word, saved, memory };
    Ok(unwinder.walk(state))
}

/// What a word of the target is.
#[derive(Clone, Copy)]
struct Word {
    bytes: i128,
}

impl Word {
    fn of(size: WordSize) -> Self {
        Word {
            bytes: match size {
                WordSize::Four => 4,
                WordSize::Eight => 8,
            },
        }
    }

    /// One more than the highest address.
    fn space(self) -> i128 {
        1 << (8 * self.bytes)
    }

    fn cut(self, value: i128) -> i128 {
        value.rem_euclid(self.space())
    }

    fn in_space(self, value: i128) -> Result<i128, Stop> {
        if (0..self.space()).contains(&value) {
            Ok(value)
        } else {
            Err(Stop::Error(StepError::AddressOverflow))
        }
    }
}

fn narrow(value: i128) -> u64 {
    u64::try_from(value).expect("every address of the reference is inside its address space")
}

struct Reference<'a, A, S> {
    arch: &'a A,
    source: &'a S,
    options: &'a Options,
    word: Word,
    /// A register on the stack.
    saved: Word,
    memory: &'a mut dyn MemoryReader,
}

impl<A: Arch, S: FrameSource<A>> Reference<'_, A, S> {
    fn walk(&mut self, mut state: State<'_>) -> Walk {
        let mut frames = vec![state.frame(Provenance::REGISTERS)];
        let end = loop {
            // What follows the entry function may be a trampoline.
            if let Some(entry) = &self.options.entry_function
                && entry.contains(&narrow(state.lookup_address()))
            {
                let is_behind = !state.exact && narrow(state.ip) == entry.end;
                let says = is_behind.then(|| self.says(&state, UnwindUserType::SignalTrampoline));
                match says {
                    Some(Ok(true)) => {}
                    Some(Err(Stop::Memory(error))) => break End::Truncated(Cut::Memory(error)),
                    _ => break End::Complete(Mark::EntryFunction),
                }
            }
            let limit = usize::try_from(self.options.max_frames).expect("usize has 32 bits");
            if frames.len() >= limit {
                break End::Truncated(Cut::FrameLimit);
            }
            match self.step(&state) {
                Ok((caller, provenance)) => {
                    state = caller.into_state();
                    frames.push(state.frame(provenance));
                }
                Err(end) => break end,
            }
        };
        Walk { frames, end }
    }

    /// Asks one kind of source after the other.
    fn step(&mut self, state: &State<'_>) -> Result<(Caller, Provenance), End> {
        let mut not_covered = UnwindUserTypes::NONE;
        let mut passed_over: Vec<(UnwindUserType, StepError, Unusable)> = Vec::new();
        let failed = |cause, source| End::Failed(UnwindError::new(cause, state.pc(), source));
        for kind in UnwindUserType::ALL {
            if !self.options.types.contains(kind) {
                continue;
            }
            match self.attempt(state, kind) {
                Ok(None) => not_covered = not_covered.with(kind),
                Ok(Some((caller, trust))) => {
                    let unusable = passed_over.first().map(|(kind, _, why)| (*kind, *why));
                    let trust = if unusable.is_some() { Trust::Guess } else { trust };
                    let mut provenance = Provenance::new(kind, trust);
                    (provenance.not_covered, provenance.unusable) = (not_covered, unusable);
                    return Ok((caller, provenance));
                }
                Err(Stop::Error(StepError::Broken(error))) => {
                    passed_over.push((kind, StepError::Broken(error), Unusable::Broken(error)));
                }
                Err(Stop::Error(StepError::UnknownRegister(register))) => {
                    let cause = StepError::UnknownRegister(register);
                    passed_over.push((kind, cause, Unusable::UnknownRegister(register)));
                }
                Err(Stop::Error(StepError::CannotUnwind)) => {
                    passed_over.push((kind, StepError::CannotUnwind, Unusable::CannotUnwind));
                }
                // The target is out of reach: whatever was tried, that is the reason.
                Err(Stop::Memory(error @ MemoryError::Transport { .. })) => {
                    return Err(End::Truncated(Cut::Memory(error)));
                }
                // A guess that leads nowhere says nothing: why one was needed is the reason.
                Err(_) if !passed_over.is_empty() => break,
                Err(Stop::Complete(mark)) => return Err(End::Complete(mark)),
                Err(Stop::Memory(error)) => return Err(End::Truncated(Cut::Memory(error))),
                Err(Stop::Error(other)) => return Err(failed(other, Some(kind))),
            }
            if !passed_over.is_empty() && !self.options.guesses {
                break;
            }
        }
        Err(match passed_over.first() {
            Some((kind, cause, _)) => failed(*cause, Some(*kind)),
            None => failed(StepError::NotCovered, None),
        })
    }

    fn attempt(&mut self, state: &State<'_>, kind: UnwindUserType) -> Result<Option<(Caller, Trust)>, Stop> {
        let query = Query::new(state.pc());
        let from_source = self.source.types().contains(kind);
        let found = if from_source {
            match self.source.lookup(self.arch, kind, &query, self.memory) {
                // Trampolines have no table, and may be marked as what cannot be unwound.
                Err(LookupError::CannotUnwind) if self.says(state, UnwindUserType::SignalTrampoline)? => None,
                found => found?,
            }
        } else {
            self.convention(state, kind)?
        };
        let Some(found) = found else { return Ok(None) };
        // Right behind a function there may be a trampoline, which nobody called.
        if found.is_at_end && self.says(state, UnwindUserType::SignalTrampoline)? {
            return Ok(None);
        }
        // An instruction that leaves no doubt is better than a table of calls, where execution stopped.
        if found.trust == Trust::CallSite && state.exact && self.says(state, UnwindUserType::Instruction)? {
            return Ok(None);
        }
        // The frame pointer chain ends with zero; but where execution stopped it may be anything.
        if kind == UnwindUserType::FramePointer && state.fp == Some(0) && !state.exact {
            return Err(Stop::Complete(Mark::ZeroFramePointer));
        }

        // So does the back chain.
        if kind == UnwindUserType::BackChain
            && !state.exact
            && let Rule::Frame(frame) = found.rule
            && let CfaRule::Deref { base, offset, .. } = frame.cfa()
        {
            let link = self.based(state, base, offset)?;
            if self.load(link, self.word)? == 0 {
                return Err(Stop::Complete(Mark::ZeroBackChain));
            }
        }

        match self.follow(state, kind, &found, &query) {
            Err(Stop::Complete(Mark::ZeroReturnAddress)) => Err(match (kind, state.exact) {
                (UnwindUserType::FramePointer | UnwindUserType::BackChain, true) => {
                    Stop::Error(StepError::NotCode { address: 0 })
                }
                (_, true) if found.trust == Trust::CallSite => Stop::Error(StepError::NotCode { address: 0 }),
                (UnwindUserType::FramePointer, false) => Stop::Complete(Mark::ZeroFrameRecord),
                (UnwindUserType::BackChain, false) => Stop::Complete(Mark::ZeroBackChain),
                _ => Stop::Complete(Mark::ZeroReturnAddress),
            }),
            followed => followed.map(|caller| Some((caller, found.trust))),
        }
    }

    /// Whether this convention, if it may be asked, has a rule.
    fn says(&mut self, state: &State<'_>, kind: UnwindUserType) -> Result<bool, Stop> {
        let may_be_asked = self.options.types.contains(kind) && !self.source.types().contains(kind);
        Ok(may_be_asked && self.convention(state, kind)?.is_some())
    }

    /// Carries out what was found.
    fn follow(
        &mut self,
        state: &State<'_>,
        kind: UnwindUserType,
        found: &Found,
        query: &Query,
    ) -> Result<Caller, Stop> {
        let from_source = self.source.types().contains(kind);
        let view = state.registers(self.arch);
        let mut recovered = state::Recovered::only(self.arch.ra());
        // Signal frames are evaluated in full where the source can do so: they restore registers.
        let in_full = match found.rule {
            Rule::Evaluate => true,
            Rule::Frame(frame) => frame.kind() == FrameKind::Signal,
        };
        let evaluated = if !in_full {
            None
        } else if from_source {
            self.source.evaluate(self.arch, kind, query, &view, self.memory, &mut recovered)?
        } else if kind == UnwindUserType::SignalTrampoline {
            self.evaluate_trampoline(state, &mut recovered)?
        } else {
            None
        };
        match (evaluated, found.rule) {
            (Some(evaluated), _) => {
                let mut caller = self.judge(state, &evaluated, false)?;
                caller.link = recovered.value.map(|value| self.word.cut(value.into()));
                Ok(caller)
            }
            (None, Rule::Evaluate) => Err(Stop::Error(StepError::NotExpressible)),
            (None, Rule::Frame(frame)) => self.apply(state, frame),
        }
    }

    /// Checks 2 to 9 of the documentation, each on its line.
    fn apply(&mut self, state: &State<'_>, frame: UnwindUserFrame) -> Result<Caller, Stop> {
        // 2. outermost
        if frame.ra() == RaRule::Undefined {
            return Err(Stop::Complete(Mark::UndefinedReturnAddress));
        }
        // 3. base of the CFA
        let (CfaRule::Offset { base, .. } | CfaRule::Deref { base, .. }) = frame.cfa();
        if base == Base::Fp
            && frame.kind() == FrameKind::Call
            && let Some(fp) = state.fp
            && fp < state.sp
        {
            let (fp, sp) = (narrow(fp), narrow(state.sp));
            return Err(Stop::Error(StepError::FramePointerBelowStack { fp, sp }));
        }
        // 4. CFA
        let cfa = match frame.cfa() {
            CfaRule::Offset { base, offset } => self.based(state, base, offset)?,
            CfaRule::Deref { base, offset, add } => {
                let slot = self.based(state, base, offset)?;
                self.word.in_space(self.load(slot, self.word)? + i128::from(add))?
            }
        };
        // 5. and 6., before anything is read on the CFA's word
        self.caller_sp(state, cfa, None, frame.kind())?;
        // 7. return address
        let ra = match frame.ra() {
            RaRule::AtCfa(offset) => {
                let slot = self.word.in_space(cfa + i128::from(offset))?;
                self.load(slot, self.saved)?
            }
            RaRule::InRegister { base, offset } => self.based(state, base, offset)?,
            RaRule::AtRegister { base, offset } => {
                let slot = self.based(state, base, offset)?;
                self.load(slot, self.saved)?
            }
            RaRule::Undefined => unreachable!("check 2"),
        };
        self.return_address(ra, frame.kind())?;
        // 8. frame pointer
        let fp = self.frame_pointer(state, frame.fp(), cfa)?.map(|fp| self.word.cut(fp));
        let evaluated = Evaluated {
            cfa: narrow(cfa),
            ra: Some(narrow(ra)),
            sp: None,
            fp: fp.map(narrow),
            kind: frame.kind(),
        };
        self.judge(state, &evaluated, frame.sp_is_bound())
    }

    fn frame_pointer(&mut self, state: &State<'_>, rule: FpRule, cfa: i128) -> Result<Option<i128>, Stop> {
        Ok(match rule {
            FpRule::Unchanged => state.fp,
            FpRule::AtCfa(offset) => {
                let slot = self.word.in_space(cfa + i128::from(offset))?;
                match self.load(slot, self.saved) {
                    // Popped by an epilogue, and no longer there: nobody knows it.
                    Err(Stop::Memory(MemoryError::Unreadable { .. })) if state.exact && slot < state.sp => {
                        None
                    }
                    word => Some(word?),
                }
            }
            FpRule::CfaOffset(offset) => Some(self.word.in_space(cfa + i128::from(offset))?),
            FpRule::InRegister { base, offset } => Some(self.based(state, base, offset)?),
            FpRule::AtRegister { base, offset } => {
                let slot = self.based(state, base, offset)?;
                Some(self.load(slot, self.saved)?)
            }
            FpRule::Undefined => None,
        })
    }

    /// What every result has to pass, whoever computed it.
    fn judge(&mut self, state: &State<'_>, found: &Evaluated, sp_is_bound: bool) -> Result<Caller, Stop> {
        let Some(ra) = found.ra else {
            return Err(Stop::Complete(Mark::UndefinedReturnAddress));
        };
        let cfa = i128::from(found.cfa);
        let sp = self.caller_sp(state, cfa, found.sp.map(i128::from), found.kind)?;
        let ip = self.return_address(ra.into(), found.kind)?;
        // 9. something must have changed. A return pc is another place than an exact one at the same
        // address: what was called last of all may begin where the call returns to.
        let exact = found.kind == FrameKind::Signal;
        if ip == state.ip && exact == state.exact && sp == state.sp {
            return Err(Stop::Error(StepError::Loop));
        }
        let fp = found.fp.map(|fp| self.word.cut(fp.into()));
        Ok(Caller { ip, exact, sp, sp_is_bound, fp, link: None })
    }

    /// The caller's sp: 5. it is above ours (or equal, where the pc is exact), 6. the CFA is
    /// aligned. Neither is asked of a signal frame.
    fn caller_sp(
        &self,
        state: &State<'_>,
        cfa: i128,
        stated: Option<i128>,
        kind: FrameKind,
    ) -> Result<i128, Stop> {
        let sp = match stated {
            Some(sp) => self.word.cut(sp),
            None => self.word.in_space(cfa + i128::from(self.arch.sp_bias()))?,
        };
        if kind == FrameKind::Signal {
            return Ok(sp);
        }
        if sp < state.sp || (sp == state.sp && !state.exact) {
            let (caller_sp, sp) = (narrow(sp), narrow(state.sp));
            return Err(Stop::Error(StepError::StackNotShrinking { caller_sp, sp }));
        }
        if cfa % self.word.bytes != 0 {
            return Err(Stop::Error(StepError::Misaligned { cfa: narrow(cfa) }));
        }
        Ok(sp)
    }

    /// The pc of the caller: stripped, not zero, not known to be no code. The pc that a signal
    /// interrupted may be anything: a call through a null pointer is one way to get a signal.
    fn return_address(&self, ra: i128, kind: FrameKind) -> Result<i128, Stop> {
        let ip = self.word.cut(self.arch.strip_code_pointer(narrow(ra)).into());
        if kind == FrameKind::Signal {
            return Ok(ip);
        }
        if ip == 0 {
            return Err(Stop::Complete(Mark::ZeroReturnAddress));
        }
        // The call right before it may be the last instruction of all code; the trampoline that a
        // handler returns to may be the first.
        if [ip, ip - 1].iter().all(|at| self.source.code_at(narrow(*at)) == CodeAt::NotCode) {
            return Err(Stop::Error(StepError::NotCode { address: narrow(ip) }));
        }
        Ok(ip)
    }

    fn based(&self, state: &State<'_>, base: Base, offset: i32) -> Result<i128, Stop> {
        let register = crate::synthetic::base_register(self.arch, base);
        let value =
            state.value(self.arch, register).ok_or(Stop::Error(StepError::UnknownRegister(register)))?;
        self.word.in_space(value + i128::from(offset))
    }

    fn load(&mut self, address: i128, size: Word) -> Result<i128, Stop> {
        let mut bytes = vec![0; usize::try_from(size.bytes).expect("4 or 8")];
        self.memory.read(narrow(address), &mut bytes).map_err(Stop::Memory)?;
        if self.arch.byte_order() == unwind_core::ByteOrder::Little {
            bytes.reverse();
        }
        Ok(bytes.iter().fold(0, |value, byte| value * 256 + i128::from(*byte)))
    }
}

impl State<'_> {
    fn frame(&self, provenance: Provenance) -> Frame {
        let mut frame = Frame::new(self.pc(), narrow(self.sp), self.fp.map(narrow), provenance);
        frame.sp_is_bound = self.sp_is_bound;
        frame
    }

    fn pc(&self) -> Pc {
        if self.exact { Pc::Exact(narrow(self.ip)) } else { Pc::Return(narrow(self.ip)) }
    }
}
