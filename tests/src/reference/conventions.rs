//! What an architecture knows without tables.

use unwind_core::{
    Arch, Code, CodeAt, Evaluated, Found, FrameKind, FrameSource, MemoryError, RaRule, Register, Rule,
    SignalFrame, StepError, Trust, UnwindUserType,
};

use super::state::{Recovered, State};
use super::{Reference, Stop, narrow};

/// No system maps code below this.
const LOWEST_CODE: i128 = 0x1000;

impl<A: Arch, S: FrameSource<A>> Reference<'_, A, S> {
    pub(super) fn convention(
        &mut self,
        state: &State<'_>,
        kind: UnwindUserType,
    ) -> Result<Option<Found>, Stop> {
        let (frame, trust) = match kind {
            UnwindUserType::SignalTrampoline => {
                (self.trampoline(state)?.map(|signal| signal.frame), Trust::Exact)
            }
            UnwindUserType::NullCall if state.exact => {
                let nothing_there = match self.source.code_at(narrow(state.ip)) {
                    CodeAt::Code => false,
                    CodeAt::NotCode => true,
                    CodeAt::Unknown => state.ip < LOWEST_CODE,
                };
                (nothing_there.then(|| self.arch.entry_rule()), Trust::Convention)
            }
            UnwindUserType::Instruction if state.exact => {
                let (before, at) = self.window(state)?;
                let rule = if at.is_empty() {
                    None
                } else {
                    self.arch.instruction_rule(&Code { before: &before, at: &at })
                };
                (rule, Trust::Convention)
            }
            UnwindUserType::BackChain => (self.arch.back_chain_rule(), Trust::Convention),
            UnwindUserType::FramePointer => (self.arch.frame_pointer_rule(), Trust::Convention),
            _ => (None, Trust::Convention),
        };
        Ok(frame.map(|frame| Found::new(Rule::Frame(frame), trust)))
    }

    pub(super) fn evaluate_trampoline(
        &mut self,
        state: &State<'_>,
        recovered: &mut Recovered,
    ) -> Result<Option<Evaluated>, Stop> {
        let Some(signal) = self.trampoline(state)? else { return Ok(None) };
        let unknown = Stop::Error(StepError::UnknownRegister(self.arch.sp()));
        if state.sp_is_bound {
            return Err(unknown);
        }
        let sp = self.saved(state, &signal, self.arch.sp())?.ok_or(unknown)?;
        let fp = self.saved(state, &signal, self.arch.fp())?;
        if let Some(link) = self.saved(state, &signal, self.arch.ra())? {
            recovered.value = Some(narrow(link));
        }
        let RaRule::AtRegister { offset, .. } = signal.frame.ra() else { return Ok(None) };
        let slot = self.word.in_space(state.sp + i128::from(offset))?;
        let ra = self.load(slot, self.saved)?;
        Ok(Some(Evaluated {
            cfa: narrow(sp),
            ra: Some(narrow(ra)),
            sp: Some(narrow(sp)),
            fp: fp.map(narrow),
            kind: FrameKind::Signal,
        }))
    }

    /// A register that the signal frame at sp holds.
    fn saved(
        &mut self,
        state: &State<'_>,
        signal: &SignalFrame,
        wanted: Register,
    ) -> Result<Option<i128>, Stop> {
        for (register, offset) in signal.registers {
            if *register == wanted {
                let slot = self.word.in_space(state.sp + i128::from(*offset))?;
                return self.load(slot, self.saved).map(Some);
            }
        }
        Ok(None)
    }

    fn trampoline(&mut self, state: &State<'_>) -> Result<Option<SignalFrame>, Stop> {
        let (before, at) = self.window(state)?;
        if at.is_empty() {
            return Ok(None);
        }
        Ok(self.arch.signal_trampoline(&Code { before: &before, at: &at }))
    }

    /// The code around the pc itself, even where that is a return address: a handler returns to
    /// the first instruction of its trampoline. Byte by byte, as far as it can be read.
    fn window(&mut self, state: &State<'_>) -> Result<(Vec<u8>, Vec<u8>), Stop> {
        let limit = i128::try_from(Code::WINDOW).expect("16");
        let mut at = Vec::new();
        while i128::try_from(at.len()).expect("small") < limit {
            let address = state.ip + i128::try_from(at.len()).expect("small");
            match self.code_byte(address)? {
                Some(byte) => at.push(byte),
                None => break,
            }
        }
        let mut before = Vec::new();
        while i128::try_from(before.len()).expect("small") < limit {
            let address = state.ip - 1 - i128::try_from(before.len()).expect("small");
            match self.code_byte(address)? {
                Some(byte) => before.push(byte),
                None => break,
            }
        }
        before.reverse();
        Ok((before, at))
    }

    fn code_byte(&mut self, address: i128) -> Result<Option<u8>, Stop> {
        if !(0..self.word.space()).contains(&address) {
            return Ok(None);
        }
        let mut byte = [0];
        match self.memory.read(narrow(address), &mut byte) {
            Ok(()) => Ok(Some(byte[0])),
            Err(MemoryError::Unreadable { .. }) => Ok(None),
            Err(error) => Err(Stop::Memory(error)),
        }
    }
}
