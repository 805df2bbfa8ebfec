//! Sources and memory without any sense, for walks that must end all the same.

use std::cell::Cell;

use arbitrary::{Arbitrary, Unstructured};
use unwind_core::{
    Arch, Base, Broken, ByteOrder, CallerRegisters, CfaRule, CodeAt, Evaluated, Found, FpRule, FrameKind,
    FrameSource, LookupError, MemoryError, MemoryReader, Query, RaRule, Register, RegisterFile, Rule,
    SourceError, Trust, UnwindUserFrame, UnwindUserType, UnwindUserTypes, WordSize,
};

/// The steps of splitmix64.
pub fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A source that answers anything: the same at the same pc, or, if it is `fickle`, something else
/// every time.
#[derive(Debug)]
pub struct ChaosSource {
    /// Decides every answer.
    pub seed: u64,
    /// Whether an answer changes from call to call.
    pub fickle: bool,
    /// Of how many rules one is a signal frame; 0 for none.
    pub signals: u64,
    /// Of how many answers one is complete nonsense; 0 for none. The others are rules that might be
    /// a compiler's, so that a walk gets somewhere.
    pub nonsense: u64,
    /// What it claims to know.
    pub types: UnwindUserTypes,
    asked: Cell<u64>,
}

impl ChaosSource {
    /// A source.
    pub fn new(seed: u64, fickle: bool, signals: u64, nonsense: u64, types: UnwindUserTypes) -> Self {
        ChaosSource { seed, fickle, signals, nonsense, types, asked: Cell::new(0) }
    }

    fn random(&self, what: u64) -> u64 {
        let asked = self.asked.get().wrapping_add(1);
        self.asked.set(asked);
        mix(self.seed ^ mix(what ^ if self.fickle { asked } else { 0 }))
    }

    fn is_nonsense(&self, random: u64) -> bool {
        self.nonsense != 0 && mix(random ^ 1).is_multiple_of(self.nonsense)
    }

    fn is_signal(&self, random: u64) -> bool {
        self.signals != 0 && mix(random ^ 2).is_multiple_of(self.signals)
    }

    /// A rule: all of it random, or only its numbers.
    fn rule(&self, random: u64, word: i32) -> Option<UnwindUserFrame> {
        if self.is_nonsense(mix(random)) {
            let bytes: Vec<u8> = (0..8u64).flat_map(|turn| mix(random ^ turn).to_le_bytes()).collect();
            return UnwindUserFrame::arbitrary(&mut Unstructured::new(&bytes)).ok();
        }
        let [a, b, c, ..] = mix(random ^ 4).to_le_bytes().map(|byte| i32::from(byte % 8) * word);
        if self.is_signal(random) {
            let frame = UnwindUserFrame::new(
                CfaRule::Deref { base: Base::Sp, offset: a, add: 0 },
                RaRule::AtRegister { base: Base::Sp, offset: b },
                FpRule::AtRegister { base: Base::Sp, offset: c },
            );
            return frame.map(UnwindUserFrame::signal);
        }
        let by_fp = random.is_multiple_of(29);
        Some(UnwindUserFrame::plain(by_fp, a + word, -b, (random & 16 != 0).then_some(-c)))
    }
}

impl<A: Arch> FrameSource<A> for ChaosSource {
    fn types(&self) -> UnwindUserTypes {
        self.types
    }

    fn lookup(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError> {
        let random = self.random(query.pc.lookup_address() ^ (kind_number(kind) << 56));
        if self.is_nonsense(random) {
            match random % 8 {
                0 => return Ok(None),
                1 => {
                    return Err(LookupError::Broken(SourceError {
                        broken: Broken::Malformed,
                        offset: random,
                    }));
                }
                2 => return Err(LookupError::UnknownRegister(Register(3))),
                3 => return Err(LookupError::AddressOverflow),
                5 => return Err(LookupError::CannotUnwind),
                4 => return memory.read(random, &mut [0; 5]).map(|()| None).map_err(LookupError::Memory),
                _ => {}
            }
        }
        let rule = match random & 0xf0 {
            0 => Some(Rule::Evaluate),
            _ => self.rule(random, i32::from(arch.word_size().bytes())).map(Rule::Frame),
        };
        Ok(rule.map(|rule| Found::new(rule, Trust::Exact).at_end(random & 0xf00 == 0)))
    }

    fn evaluate(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        registers: &dyn RegisterFile,
        _: &mut dyn MemoryReader,
        caller: &mut dyn CallerRegisters,
    ) -> Result<Option<Evaluated>, LookupError> {
        let random = self.random(!query.pc.address() ^ (kind_number(kind) << 56));
        caller.set(arch.ra(), mix(random));
        caller.set(Register(3), random);
        let word = arch.word_size();
        let sp = registers.get(arch.sp()).unwrap_or(random);
        let value = |number: u64| {
            let value = mix(random ^ number);
            if self.is_nonsense(value) { value } else { word.truncate(sp.wrapping_add(8 * (value % 64))) }
        };
        let kind = if self.is_signal(random) { FrameKind::Signal } else { FrameKind::Call };
        Ok((random & 0x3f != 0).then(|| Evaluated {
            cfa: value(1),
            ra: (random & 0x7f00 != 0).then(|| value(2)),
            sp: (random & 0x8000 != 0).then(|| value(3)),
            fp: (random & 0x30000 != 0).then(|| word.truncate(value(4))),
            kind,
        }))
    }

    fn code_at(&self, address: u64) -> CodeAt {
        match mix(self.seed ^ address) % 16 {
            0 if self.is_nonsense(address) => CodeAt::NotCode,
            0..=4 => CodeAt::Code,
            _ => CodeAt::Unknown,
        }
    }
}

fn kind_number(kind: UnwindUserType) -> u64 {
    UnwindUserType::ALL.iter().zip(0..).find(|(other, _)| **other == kind).map_or(0, |(_, number)| number)
}

/// Memory that holds a function of the address, everywhere but where it says it is unreadable: the
/// same word every time. Most words are pointers into the same few, so that chains are long and
/// close to circles.
#[derive(Clone, Copy, Debug)]
pub struct ChaosMemory {
    /// Decides every byte.
    pub seed: u64,
    /// Of how many pages one is missing; 0 for none.
    pub holes: u64,
    /// Of how many words one is complete nonsense; 0 for none.
    pub nonsense: u64,
    /// How many words there are to point to.
    pub spread: u64,
    /// The size of a word, and the order of its bytes.
    pub word: (WordSize, ByteOrder),
}

impl MemoryReader for ChaosMemory {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let size = u64::from(self.word.0.bytes());
        for (offset, byte) in (0u64..).zip(into) {
            let at = address.checked_add(offset).ok_or(MemoryError::Unreadable { address })?;
            if self.holes != 0 && mix(self.seed ^ (at >> 12)).is_multiple_of(self.holes) {
                return Err(MemoryError::Unreadable { address: at });
            }
            let word = at / size * size;
            let random = mix(self.seed ^ word);
            let near = (word & !0xffff).wrapping_add(size * (random % self.spread.max(1)));
            let nonsense = self.nonsense != 0 && mix(random).is_multiple_of(self.nonsense);
            let value = if nonsense { random } else { near };
            let index = usize::try_from(at - word).expect("below 8");
            *byte = match self.word.1 {
                ByteOrder::Little => value.to_le_bytes()[index],
                ByteOrder::Big => value.to_be_bytes()[index + 8 - usize::from(self.word.0.bytes())],
            };
        }
        Ok(())
    }
}
