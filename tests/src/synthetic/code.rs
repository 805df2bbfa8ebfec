//! Where functions are.

use unwind_core::{Arch, UnwindUserFrame, UnwindUserType};

use super::layout::{BROKEN, Layout};
use super::spec::{ChainSpec, FrameSpec, Place};
use super::{Answer, AnyArch, Row, Rules};

/// A function: first and last address, and the pc at which it is executing.
pub(super) struct Function {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) pc: u64,
}

/// Hands out addresses for functions: upwards, or downwards from the end of the address space.
pub(super) struct Text {
    cursor: u64,
    downwards: bool,
    /// The last address of all.
    end: u64,
    /// Every function so far.
    pub(super) functions: Vec<(u64, u64)>,
}

/// Functions begin, and instructions and calls end, at multiples of this.
const UNIT: u64 = 4;

impl Text {
    pub(super) fn new(arch: AnyArch, spec: &ChainSpec) -> Self {
        let place = match (spec.code, spec.stack) {
            (Place::Top, Place::Top) => Place::High,
            (place, _) => place,
        };
        let (cursor, downwards) = match (place, arch.word()) {
            (Place::Bottom, _) if spec.stack == Place::Bottom => (0x0800_0000, false),
            // Below are null pointers.
            (Place::Bottom, _) => (0x1000, false),
            (Place::Low, 8) => (0x5555_5555_4000, false),
            (Place::Low, _) => (0x5655_6000, false),
            (Place::High, 8) => (0xffff_ffff_8100_0000, false),
            (Place::High, _) => (0xd000_0000, false),
            (Place::Top, _) => (arch.word_size().max_address(), true),
        };
        Text { cursor, downwards, end: arch.word_size().max_address(), functions: Vec::new() }
    }

    /// An address near the functions.
    pub(super) fn somewhere(&self) -> u64 {
        if self.downwards { self.cursor - 0xfff1 } else { self.cursor + 0xfff0 }
    }

    /// A new function. Where it is covered there may be a gap after it in which a source of the
    /// same kind is broken, so that a lookup beyond the function's end does not go unnoticed.
    pub(super) fn function(
        &mut self,
        rules: &mut Rules,
        covered_by: Option<UnwindUserType>,
        spec: &FrameSpec,
        exact: bool,
    ) -> Function {
        let shape = u64::from(spec.shape);
        let length = UNIT * (4 + shape % 16);
        let gap = UNIT * ((shape >> 8) % 3);
        // What is not covered keeps its distance: a trampoline is looked up one byte before it.
        let distance = if covered_by.is_none() { 32 } else { 0 };
        let (first, last) = if self.downwards {
            let last = self.cursor - gap;
            let first = last - (length - 1);
            self.cursor = first - 1 - distance;
            (first, last)
        } else {
            let first = self.cursor + distance;
            let last = first + (length - 1);
            self.cursor = last + 1 + gap;
            (first, last)
        };
        if let Some(kind) = covered_by
            && gap > 0
        {
            rules.rows.push(Row { first: last + 1, last: last + gap, kind, answer: Answer::Fails(BROKEN) });
        }
        self.functions.push((first, last));
        if let Some(code) = &mut rules.code {
            code.push((first, last));
        }
        let instructions = length / UNIT;
        let pc = if exact {
            first + UNIT * ((shape >> 12) % instructions)
        } else if spec.call_is_last && last != self.end {
            last + 1
        } else {
            first + UNIT * (1 + (shape >> 12) % (instructions - 1))
        };
        Function { first, last, pc }
    }
}

impl Layout<'_> {
    /// Makes a rule hold in a function.
    pub(super) fn cover(
        &mut self,
        function: &Function,
        kind: UnwindUserType,
        rule: UnwindUserFrame,
        spec: &FrameSpec,
    ) {
        let answer = Answer::Frame(rule, super::place::trust(spec));
        self.rules.rows.push(Row { first: function.first, last: function.last, kind, answer });
    }

    /// Makes a source of this kind fail in a function.
    pub(super) fn fail(&mut self, function: &Function, kind: UnwindUserType) {
        let answer = Answer::Fails(BROKEN);
        self.rules.rows.push(Row { first: function.first, last: function.last, kind, answer });
    }

    /// Stores a function's code: before its pc and at it these bytes, which tell something, and
    /// elsewhere what tells nothing. The latter only where code shall be readable.
    pub(super) fn put_code(&mut self, function: &Function, [before, at]: [&[u8]; 2]) {
        if self.spec.code_readable {
            let length = usize::try_from(function.last - function.first).expect("short") + 1;
            let plain = self.arch.plain_code();
            let code: Vec<u8> = plain.iter().copied().cycle().take(length).collect();
            self.memory.put(function.first, &code);
        }
        let len = u64::try_from(before.len()).expect("short");
        self.memory.put(function.pc.wrapping_sub(len), before);
        self.memory.put(function.pc, at);
    }
}
