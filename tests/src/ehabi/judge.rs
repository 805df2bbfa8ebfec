//! Whether the library unwinds a frame as the slow decoder does.

use std::collections::BTreeMap;

use unwind_core::ehabi::EhabiSource;
use unwind_core::{
    Broken, CallerRegisters, FrameKind, FrameSource, LookupError, MemoryError, MemoryReader, Pc, Query,
    Register, RegisterFile, Rule, Trust, UnwindUserType,
};

use super::arch::{Arm, Made};
use super::reference::{Op, Registers, Stop, execute, parse};
use super::rule::apply;
use crate::synthetic::chaos::mix;

/// A frame to unwind: made-up registers, of which some may be unknown, on a made-up stack, some of
/// which may be unreadable.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub made: Made,
    /// Bit n: rn is known.
    pub known: u16,
    /// Whether every fifth word of the stack cannot be read.
    pub has_holes: bool,
}

impl Frame {
    /// A frame of which everything is known.
    pub fn whole(made: Made) -> Self {
        Frame { made, known: 0xffff, has_holes: false }
    }

    fn registers(self) -> Registers {
        let mut number = 0;
        [(); 16].map(|()| {
            let register = (self.known & 1 << number != 0).then(|| self.made.core(number));
            number += 1;
            register
        })
    }

    fn is_hole(self, address: u64) -> bool {
        self.has_holes && mix(address ^ 0x601e).is_multiple_of(5)
    }
}

impl RegisterFile for Frame {
    fn get(&self, register: Register) -> Option<u64> {
        self.registers().get(usize::from(register.0)).copied().flatten().map(u64::from)
    }
}

impl MemoryReader for Frame {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        if self.is_hole(address) {
            Err(MemoryError::Unreadable { address })
        } else {
            self.made.read(address, into)
        }
    }
}

/// Every register that is stated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stated(BTreeMap<u16, u64>);

impl CallerRegisters for Stated {
    fn wants(&self, _: Register) -> bool {
        true
    }

    fn set(&mut self, register: Register, value: u64) {
        assert_eq!(self.0.insert(register.0, value), None, "{register:?} is stated twice");
    }
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was unwound, by a rule of words or in full only.
    Unwound { in_words: bool },
    /// The entry makes no sense.
    Broken,
    /// The entry refuses.
    Refused,
    /// Something that it needs is not there.
    Lacking,
}

/// Unwinds a frame at `pc`, which an entry of these instruction bytes covers that begins at `start`
/// (svma; the bias is 0), and demands that rule and full evaluation say what the slow decoder says.
pub fn judge(
    arch: &Arm,
    source: &EhabiSource<'_>,
    pc: Pc,
    start: u64,
    bytes: &[u8],
    frame: Frame,
) -> Verdict {
    let query = Query::new(pc);
    let mut memory = frame;
    let found = source.lookup(arch, UnwindUserType::Ehabi, &query, &mut memory);
    let mut stated = Stated::default();
    let evaluated = source.evaluate(arch, UnwindUserType::Ehabi, &query, &frame, &mut memory, &mut stated);

    let mut ops = match parse(bytes) {
        Ok(ops) => ops,
        Err(stop) => {
            let broken = match stop {
                Stop::Spare => Broken::UnknownInstruction,
                Stop::Truncated => Broken::UnexpectedEnd,
                Stop::TooLarge => Broken::BadLeb128,
                other => panic!("no fault of the bytes: {other:?}"),
            };
            for error in [found.map(|_| ()), evaluated.map(|_| ())].map(Result::unwrap_err) {
                assert!(matches!(error, LookupError::Broken(error) if error.broken == broken), "{error:?}");
            }
            return Verdict::Broken;
        }
    };
    if ops.contains(&Op::Refuse) {
        assert_eq!((found, evaluated), (Err(LookupError::CannotUnwind), Err(LookupError::CannotUnwind)));
        return Verdict::Refused;
    }
    let popped = ops.iter().fold(0, |popped, op| if let Op::Pop(mask) = op { popped | mask } else { popped });
    let is_signal = popped == 0xffff;
    // Nothing has run at the first instruction.
    if pc == Pc::Exact(start) && !is_signal {
        ops.clear();
    }

    let found = found.unwrap().expect("it is covered");
    assert_eq!(found.trust, if pc.is_exact() { Trust::CallSite } else { Trust::Exact });
    let mut read = |address: u32| (!frame.is_hole(address.into())).then(|| frame.made.word(address));
    let registers = frame.registers();
    let expected = execute(&ops, &registers, &mut read);
    if let Rule::Frame(rule) = found.rule {
        assert_eq!(rule.kind() == FrameKind::Signal, is_signal);
        assert!(!rule.sp_is_bound());
        if let Ok((expected, _)) = expected {
            let caller = apply(&rule, arch.fp, &registers, &mut read);
            assert_eq!(caller.cfa, expected[13]);
            assert_eq!(caller.ra, expected[15]);
            assert_eq!(caller.fp, expected[usize::from(arch.fp)]);
        }
    } else {
        assert!(is_hard(&ops), "a rule has words for {ops:x?}");
    }

    let (expected, popped) = match expected {
        Ok((expected, popped)) if expected[15].is_some() => (expected, popped),
        lacking => {
            let error = evaluated.unwrap_err();
            match (lacking, error) {
                (Err(Stop::Unknown(number)), LookupError::UnknownRegister(Register(name))) => {
                    assert_eq!(u16::from(number), name);
                }
                (_, LookupError::Broken(_) | LookupError::CannotUnwind) => panic!("{error:?} of {lacking:?}"),
                _ => {}
            }
            return Verdict::Lacking;
        }
    };
    let evaluated = evaluated.unwrap().expect("it is covered");
    let wide = |number: u16| expected[usize::from(number)].map(u64::from);
    assert_eq!(Some(evaluated.cfa), wide(13));
    assert_eq!(evaluated.ra, wide(15));
    assert_eq!(evaluated.sp, wide(13).filter(|_| is_signal));
    assert_eq!(evaluated.kind == FrameKind::Signal, is_signal);
    assert_eq!(evaluated.fp, wide(arch.fp));
    let is_known = |number: u16| match number {
        13 | 15 => false,
        14 => popped & 0xc000 == 0xc000,
        fp if fp == arch.fp => false,
        4..=11 => true,
        _ => popped & 1 << number != 0,
    };
    let known: BTreeMap<u16, u64> = (0..16)
        .filter(|number| is_known(*number))
        .filter_map(|number| Some((number, wide(number)?)))
        .collect();
    assert_eq!(stated.0, known);
    Verdict::Unwound { in_words: matches!(found.rule, Rule::Frame(_)) }
}

/// Whether something in these instructions may be more than a rule has words for: the stack pointer
/// out of a register that was itself popped, or sums beyond 31 bits.
fn is_hard(ops: &[Op]) -> bool {
    let mut popped = 0u16;
    let mut sum = 0i64;
    ops.iter().any(|op| match *op {
        Op::Pop(mask) => {
            popped |= mask;
            mask & 1 << 13 != 0
        }
        Op::Set(number) => popped & 1 << number != 0,
        Op::Move(bytes) => {
            sum += bytes.abs();
            sum > 0x7fff_0000
        }
        _ => false,
    })
}
