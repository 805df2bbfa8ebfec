//! A source whose rules are listed one by one.

use unwind_core::{
    Arch, Base, CallerRegisters, CfaRule, CodeAt, Evaluated, Found, FpRule, FrameSource, LookupError,
    MemoryReader, Query, RaRule, Register, RegisterFile, Rule, Trust, UnwindUserFrame, UnwindUserType,
    UnwindUserTypes,
};

/// What a source says about a range of pcs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    /// A rule.
    Frame(UnwindUserFrame, Trust),
    /// The same rule, but one that the source insists on evaluating itself. With it goes the
    /// offset from sp of the word that holds the caller's link register, if the frame keeps it.
    Evaluate(UnwindUserFrame, Trust, Option<i32>),
    /// It fails.
    Fails(LookupError),
}

/// An answer and where it holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// The first pc.
    pub first: u64,
    /// The last pc: the end of the address space belongs to it too.
    pub last: u64,
    /// Which kind of source knows it.
    pub kind: UnwindUserType,
    /// What it says.
    pub answer: Answer,
}

/// A list of rows in no order; the first that fits is the answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// The rows.
    pub rows: Vec<Row>,
    /// Where there is code, first and last address; `None` where nobody can tell.
    pub code: Option<Vec<(u64, u64)>>,
}

impl Rules {
    /// A rule of this kind for a range of pcs.
    pub fn push(&mut self, first: u64, last: u64, kind: UnwindUserType, frame: UnwindUserFrame) {
        self.rows.push(Row { first, last, kind, answer: Answer::Frame(frame, Trust::Exact) });
    }

    /// The first row of this kind that covers an address.
    pub fn find(&self, kind: UnwindUserType, address: u64) -> Option<&Row> {
        self.rows.iter().find(|row| row.kind == kind && (row.first..=row.last).contains(&address))
    }
}

impl<A: Arch> FrameSource<A> for Rules {
    fn types(&self) -> UnwindUserTypes {
        self.rows.iter().fold(UnwindUserTypes::NONE, |types, row| types.with(row.kind))
    }

    fn lookup(
        &self,
        _: &A,
        kind: UnwindUserType,
        query: &Query,
        _: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError> {
        match self.find(kind, query.pc.lookup_address()).map(|row| row.answer) {
            None => Ok(None),
            Some(Answer::Frame(frame, trust)) => Ok(Some(Found::new(Rule::Frame(frame), trust))),
            Some(Answer::Evaluate(_, trust, _)) => Ok(Some(Found::new(Rule::Evaluate, trust))),
            Some(Answer::Fails(error)) => Err(error),
        }
    }

    fn evaluate(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        registers: &dyn RegisterFile,
        memory: &mut dyn MemoryReader,
        caller: &mut dyn CallerRegisters,
    ) -> Result<Option<Evaluated>, LookupError> {
        let row = self.find(kind, query.pc.lookup_address());
        let Some(&Row { answer: Answer::Evaluate(frame, _, link), .. }) = row else {
            return Ok(None);
        };
        let mut machine = Machine { arch, registers, memory };
        let evaluated = machine.evaluate(frame)?;
        if let Some(offset) = link
            && caller.wants(arch.ra())
        {
            let value = machine.load(machine.base(Base::Sp, offset)?)?;
            caller.set(arch.ra(), value);
        }
        Ok(Some(evaluated))
    }

    fn code_at(&self, address: u64) -> CodeAt {
        match &self.code {
            None => CodeAt::Unknown,
            Some(ranges) if ranges.iter().any(|(first, last)| (*first..=*last).contains(&address)) => {
                CodeAt::Code
            }
            Some(_) => CodeAt::NotCode,
        }
    }
}

/// What a rule comes to, without any of a step's checks.
///
/// # Errors
/// Where a register is unknown, memory missing, or an address out of the address space.
pub fn carry_out<A: Arch>(
    arch: &A,
    frame: UnwindUserFrame,
    registers: &dyn RegisterFile,
    memory: &mut dyn MemoryReader,
) -> Result<Evaluated, LookupError> {
    Machine { arch, registers, memory }.evaluate(frame)
}

/// Carries a rule out.
struct Machine<'m, A> {
    arch: &'m A,
    registers: &'m dyn RegisterFile,
    memory: &'m mut dyn MemoryReader,
}

impl<A: Arch> Machine<'_, A> {
    fn evaluate(&mut self, frame: UnwindUserFrame) -> Result<Evaluated, LookupError> {
        let cfa = match frame.cfa() {
            CfaRule::Offset { base, offset } => self.base(base, offset)?,
            CfaRule::Deref { base, offset, add } => {
                let word = self.load(self.base(base, offset)?)?;
                self.add(word, i32::from(add))?
            }
        };
        let ra = match frame.ra() {
            RaRule::AtCfa(offset) => Some(self.load(self.add(cfa, offset)?)?),
            RaRule::InRegister { base, offset } => Some(self.base(base, offset)?),
            RaRule::AtRegister { base, offset } => Some(self.load(self.base(base, offset)?)?),
            RaRule::Undefined => None,
        };
        let fp = match frame.fp() {
            FpRule::Unchanged => self.registers.get(self.arch.fp()),
            FpRule::AtCfa(offset) => Some(self.load(self.add(cfa, offset)?)?),
            FpRule::CfaOffset(offset) => Some(self.add(cfa, offset)?),
            FpRule::InRegister { base, offset } => Some(self.base(base, offset)?),
            FpRule::AtRegister { base, offset } => Some(self.load(self.base(base, offset)?)?),
            FpRule::Undefined => None,
        };
        Ok(Evaluated { cfa, ra, sp: None, fp, kind: frame.kind() })
    }

    fn base(&self, base: Base, offset: i32) -> Result<u64, LookupError> {
        let register = match base {
            Base::Sp => self.arch.sp(),
            Base::Fp => self.arch.fp(),
            Base::Register(register) => register,
        };
        let value = self.registers.get(register).ok_or(LookupError::UnknownRegister(register))?;
        self.add(value, offset)
    }

    fn add(&self, address: u64, offset: i32) -> Result<u64, LookupError> {
        let sum = i128::from(address) + i128::from(offset);
        u64::try_from(sum)
            .ok()
            .filter(|sum| *sum <= self.arch.word_size().max_address())
            .ok_or(LookupError::AddressOverflow)
    }

    fn load(&mut self, address: u64) -> Result<u64, LookupError> {
        Ok(self.memory.read_word(address, self.arch.word_size(), self.arch.byte_order())?)
    }
}

/// The number of a base register on an architecture.
pub fn base_register<A: Arch>(arch: &A, base: Base) -> Register {
    match base {
        Base::Sp => arch.sp(),
        Base::Fp => arch.fp(),
        Base::Register(register) => register,
    }
}
