//! One frame: which rule describes it, and what it leaves on the stack.

use unwind_core::{Arch, Base, CfaRule, FpRule, RaRule, Trust, UnwindUserFrame, UnwindUserType};

use super::code::Function;
use super::layout::Layout;
use super::spec::{BaseSpec, FpSpec, FrameSpec, RaSpec, Role, Size, TableKind};
use super::{Answer, Reads, Row};

/// What a frame finds in the registers when it begins to run: its caller's state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outer {
    /// Its pc, as it is stored.
    pub(super) stored_pc: u64,
    pub(super) sp: u64,
    pub(super) fp: u64,
    /// Whether its rule, or one further out, reads its fp.
    pub(super) needs_fp: bool,
    /// Whether its rule reads its sp.
    pub(super) needs_sp: bool,
    /// What the link register must hold for its rule.
    pub(super) link: Option<u64>,
}

/// What is known about a frame that has been placed.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) pc: u64,
    pub(super) sp: u64,
    pub(super) fp: u64,
    /// The sp that its rule gives its caller.
    pub(super) caller_sp: u64,
    pub(super) sp_is_bound: bool,
    pub(super) fp_rule: FpEffect,
    pub(super) is_signal: bool,
    pub(super) kind: UnwindUserType,
    pub(super) trust: Trust,
    pub(super) better_is_broken: Option<UnwindUserType>,
    pub(super) reads: Reads,
    pub(super) ra_slot: Option<u64>,
    /// How many of its reads come before the return address is judged.
    pub(super) judged_after: usize,
}

/// What a rule does to the knowledge of the frame pointer.
#[derive(Clone, Copy, Debug)]
pub(super) enum FpEffect {
    Keeps,
    Finds,
    Loses,
}

impl FpEffect {
    pub(super) fn of(rule: FpRule) -> Self {
        match rule {
            FpRule::Unchanged => FpEffect::Keeps,
            FpRule::Undefined => FpEffect::Loses,
            _ => FpEffect::Finds,
        }
    }

    /// The caller's frame pointer as a walk knows it: ours is `own`, its true one is `truth`.
    pub(super) fn of_caller(self, own: Option<u64>, truth: u64) -> Option<u64> {
        match self {
            FpEffect::Keeps => own,
            FpEffect::Finds => Some(truth),
            FpEffect::Loses => None,
        }
    }
}

impl Placed {
    pub(super) fn outermost(pc: u64, outer: &Outer, kind: UnwindUserType) -> Self {
        Placed {
            pc,
            sp: outer.sp,
            fp: outer.fp,
            caller_sp: 0,
            sp_is_bound: false,
            fp_rule: FpEffect::Loses,
            is_signal: false,
            kind,
            trust: Trust::Exact,
            better_is_broken: None,
            reads: Reads::default(),
            ra_slot: None,
            judged_after: 0,
        }
    }
}

/// The rule of a frame that nobody called: nothing but its return address matters.
pub(super) fn outermost_rule(spec: &FrameSpec) -> UnwindUserFrame {
    let offset = i32::try_from(spec.shape % 4096).expect("small") - 2048;
    let base = if spec.deref { Base::Fp } else { Base::Sp };
    UnwindUserFrame::new(CfaRule::Offset { base, offset }, RaRule::Undefined, FpRule::Undefined)
        .expect("sp and fp fit")
}

pub(super) fn trust(spec: &FrameSpec) -> Trust {
    if spec.shape & 0x8000 == 0 { Trust::Exact } else { Trust::CallSite }
}

/// The room of a frame, and the values on which its rule can rest.
pub(super) struct Room {
    pub(super) index: usize,
    pub(super) spec: FrameSpec,
    /// Its sp: the lowest address of the frame, or, where a signal interrupted it, a little less.
    pub(super) sp: u64,
    /// The lowest slot.
    pub(super) bottom: u64,
    /// How many words it has.
    pub(super) words: u64,
    pub(super) cfa: u64,
}

impl FrameSpec {
    /// An ordinary frame.
    pub const PLAIN: FrameSpec = FrameSpec {
        role: Role::Call,
        kind: TableKind::Dwarf,
        cfa: BaseSpec::Sp,
        deref: false,
        ra: RaSpec::AtCfa,
        fp: FpSpec::Unchanged,
        size: Size::Words(0),
        evaluated: false,
        better_is_broken: false,
        call_is_last: false,
        shape: 0,
    };

    pub(super) fn words(&self) -> u64 {
        8 + match self.size {
            Size::Nothing => 0,
            Size::Words(words) => u64::from(words % 32),
            Size::Pages(pages) => 512 * u64::from(pages % 16),
            Size::Large(units) => 4096 * u64::from(units % 128),
        }
    }
}

impl Layout<'_> {
    /// Places the frame that `outer` calls, or that interrupts it, and returns its state.
    pub(super) fn place(&mut self, index: usize, outer: &Outer) -> Outer {
        let spec = self.spec.frames[index];
        match spec.role {
            Role::FramePointer => {
                let rule = self.arch.frame_pointer_rule().expect("settled before");
                if rule.sp_is_bound() && outer.needs_sp {
                    return self.place_covered(index, outer);
                }
                self.place_convention(index, outer, rule, UnwindUserType::FramePointer)
            }
            Role::Entered => {
                let rule = self.arch.entry_rule();
                self.place_convention(index, outer, rule, UnwindUserType::Instruction)
            }
            Role::NullCall => {
                let rule = self.arch.entry_rule();
                self.place_convention(index, outer, rule, UnwindUserType::NullCall)
            }
            Role::Trampoline => self.place_trampoline(index, outer),
            Role::Call | Role::BoundedCall | Role::Signal => self.place_covered(index, outer),
        }
    }

    /// Makes room below the caller, or on another stack.
    pub(super) fn room(&mut self, index: usize, outer: &Outer, caller_sp: u64, words: u64) -> Room {
        let spec = self.spec.frames[index];
        let word = self.arch.word();
        let exact = self.is_exact(index);
        let top = if matches!(spec.role, Role::Signal | Role::Trampoline) {
            self.signal_stack(&spec, outer)
        } else {
            outer.sp
        };
        let bottom = top - words * word;
        // Execution stops anywhere, also where sp is no multiple of anything.
        let odd = if exact && words > 0 { u64::from((spec.shape >> 20) % 8) } else { 0 };
        let sp = bottom.saturating_sub(odd);
        if self.stacks == 1 {
            self.lowest_of_main = sp;
        }
        // What real programs leave there.
        if words <= 64 {
            for slot in 0..words {
                let noise = self.noise().wrapping_mul(slot | 1).wrapping_add(slot);
                self.put(bottom + slot * word, noise);
            }
        }
        let cfa = caller_sp.wrapping_sub(self.bias());
        Room { index, spec, sp, bottom, words, cfa }
    }

    /// Where the stack of a signal frame begins: below the interrupted function's, beyond the red
    /// zone, or elsewhere.
    fn signal_stack(&mut self, spec: &FrameSpec, outer: &Outer) -> u64 {
        if spec.shape & 0x1_0000 != 0 || self.stacks > 6 {
            return (outer.sp - 128) / 16 * 16;
        }
        let number = self.stacks;
        self.stacks += 1;
        match (number % 2, self.arch.word()) {
            (_, 4) => 0x1000_0000 + number * 0x0800_0000,
            (0, _) => 0x7fff_0000_0000 + number * 0x1000_0000,
            (_, _) => 0x1000_0000 + number * 0x1000_0000,
        }
    }

    /// The ABI's bias as an unsigned number to add.
    pub(super) fn bias(&self) -> u64 {
        i64::from(self.arch.sp_bias()).cast_unsigned()
    }

    /// Stores a word.
    pub(super) fn put(&mut self, address: u64, value: u64) {
        let word = self.arch.word_size();
        self.words.insert(address);
        self.memory.put_word(address, word.truncate(value), word, self.arch.byte_order());
    }

    /// A frame whose rule a source has.
    fn place_covered(&mut self, index: usize, outer: &Outer) -> Outer {
        let spec = self.spec.frames[index];
        let signal = spec.role == Role::Signal;
        let bound = spec.role == Role::BoundedCall && !outer.needs_sp;
        let word = self.arch.word();
        let exact = self.is_exact(index);
        let in_register = spec.ra == RaSpec::InLink || (index == 0 && spec.ra == RaSpec::In(BaseSpec::Other));
        // A frame that would have kept to the convention has its size, wherever the stack is.
        let may_push_nothing = matches!(spec.role, Role::Call | Role::BoundedCall);
        let nothing = spec.size == Size::Nothing && exact && may_push_nothing && in_register;
        let words = if nothing { 0 } else { spec.words() };
        let gap = if bound && !nothing { word * u64::from((spec.shape >> 4) % 4) } else { 0 };
        let caller_sp = outer.sp - gap;
        let room = self.room(index, outer, caller_sp, words);
        let choice = self.choose(&room, outer);

        let mut rule = UnwindUserFrame::new(choice.cfa, choice.ra, choice.fp).expect("small registers fit");
        if signal {
            rule = rule.signal();
        }
        if bound {
            rule = rule.with_sp_bound();
        }
        let mut reads = choice.reads;
        // A source that evaluates does so to the end.
        let judged_after = if spec.evaluated { reads.len() } else { choice.judged_after };
        let mut link_offset = None;
        if signal && spec.evaluated {
            let slot = room.bottom + 7 * word;
            let value = outer.link.unwrap_or(self.noise());
            self.put(slot, value);
            link_offset = Some(i32::try_from(slot - room.sp).expect("a short way"));
            reads.push(slot);
        }
        let kind = spec.kind.kind();
        let function = self.text.function(&mut self.rules, Some(kind), &spec, exact);
        self.put_code(&function, [&[], &[]]);
        let answer = if spec.evaluated {
            Answer::Evaluate(rule, trust(&spec), link_offset)
        } else {
            Answer::Frame(rule, trust(&spec))
        };
        self.rules.rows.push(Row { first: function.first, last: function.last, kind, answer });
        let better_is_broken = self.break_better(&function, kind, &spec);
        self.push(Placed {
            pc: function.pc,
            sp: room.sp,
            fp: choice.own_fp,
            caller_sp,
            sp_is_bound: bound,
            fp_rule: FpEffect::of(choice.fp),
            is_signal: signal,
            kind,
            trust: trust(&spec),
            better_is_broken,
            reads: Reads { words: reads, in_order: true, guess: better_is_broken.is_some() },
            ra_slot: choice.ra_slot,
            judged_after,
        });
        Outer {
            stored_pc: self.tagged(function.pc),
            sp: room.sp,
            fp: choice.own_fp,
            needs_fp: choice.reads_fp || (choice.fp == FpRule::Unchanged && outer.needs_fp),
            needs_sp: choice.reads_sp || link_offset.is_some(),
            link: choice.link,
        }
    }

    /// A better source that claims the function and is broken.
    pub(super) fn break_better(
        &mut self,
        function: &Function,
        kind: UnwindUserType,
        spec: &FrameSpec,
    ) -> Option<UnwindUserType> {
        if !spec.better_is_broken {
            return None;
        }
        let tables = [TableKind::Embedder, TableKind::Table, TableKind::SFrame, TableKind::Dwarf];
        let better: Vec<UnwindUserType> =
            tables.into_iter().map(TableKind::kind).filter(|better| *better < kind).collect();
        let chosen = *better.get(usize::try_from(spec.shape >> 24).expect("small") % better.len().max(1))?;
        self.guesses = true;
        self.fail(function, chosen);
        Some(chosen)
    }
}
