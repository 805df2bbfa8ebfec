//! Frames that no table describes: those that keep to a convention, and the system's signal
//! trampolines.

use unwind_core::{
    Arch, CfaRule, Code, FpRule, FrameKind, RaRule, Register, Trust, UnwindUserFrame, UnwindUserType,
};

use super::Reads;
use super::layout::Layout;
use super::place::{FpEffect, Outer, Placed};

impl Layout<'_> {
    /// A frame of which nothing is known but a convention.
    pub(super) fn place_convention(
        &mut self,
        index: usize,
        outer: &Outer,
        rule: UnwindUserFrame,
        kind: UnwindUserType,
    ) -> Outer {
        let spec = self.spec.frames[index];
        let word = self.arch.word();
        let by_fp = kind == UnwindUserType::FramePointer;
        let words = match (by_fp, rule.ra()) {
            (true, _) => spec.words(),
            (false, RaRule::AtCfa(_)) => 1,
            (false, _) => 0,
        };
        let gap = if rule.sp_is_bound() { word * u64::from((spec.shape >> 4) % 4) } else { 0 };
        let caller_sp = outer.sp - gap;
        let mut room = self.room(index, outer, caller_sp, words);
        if !by_fp {
            // It has pushed what it has pushed.
            room.sp = room.bottom;
        }
        let CfaRule::Offset { offset, .. } = rule.cfa() else { unreachable!("conventions have plain CFAs") };
        let base = room.cfa.wrapping_sub(i64::from(offset).cast_unsigned());
        let own_fp = if by_fp { base } else { outer.fp };
        let at_cfa = |offset: i32| room.cfa.wrapping_add(i64::from(offset).cast_unsigned());
        let mut reads = Vec::new();
        let mut link = None;
        match rule.ra() {
            RaRule::AtCfa(offset) => {
                self.put(at_cfa(offset), outer.stored_pc);
                reads.push(at_cfa(offset));
            }
            _ => link = Some(outer.stored_pc),
        }
        if let FpRule::AtCfa(offset) = rule.fp() {
            self.put(at_cfa(offset), outer.fp);
            reads.push(at_cfa(offset));
        }
        let (pc, better_is_broken) = if kind == UnwindUserType::NullCall {
            (u64::from(spec.shape % 2) * 0x20, None)
        } else {
            let [before, at] = if by_fp { [vec![], vec![]] } else { self.arch.entry_code() };
            let exact = self.is_exact(index);
            let mut function = self.text.function(&mut self.rules, None, &spec, exact);
            if !by_fp {
                function.pc = function.first;
            }
            self.put_code(&function, [&before, &at]);
            (function.pc, self.break_better(&function, kind, &spec))
        };
        let ra_slot = matches!(rule.ra(), RaRule::AtCfa(_)).then(|| reads[0]);
        self.push(Placed {
            pc,
            sp: room.sp,
            fp: own_fp,
            caller_sp,
            sp_is_bound: rule.sp_is_bound(),
            fp_rule: FpEffect::of(rule.fp()),
            is_signal: false,
            kind,
            trust: Trust::Convention,
            better_is_broken,
            reads: Reads { words: reads, in_order: true, guess: better_is_broken.is_some() },
            ra_slot,
            judged_after: 1,
        });
        Outer {
            stored_pc: self.tagged(pc),
            sp: room.sp,
            fp: own_fp,
            needs_fp: by_fp || outer.needs_fp,
            needs_sp: !by_fp,
            link,
        }
    }

    /// A signal frame behind the system's trampoline.
    pub(super) fn place_trampoline(&mut self, index: usize, outer: &Outer) -> Outer {
        let spec = self.spec.frames[index];
        let code = self.arch.trampoline_code();
        let signal =
            self.arch.signal_trampoline(&Code { before: &[], at: &code }).expect("the code of a trampoline");
        assert_eq!(signal.frame.kind(), FrameKind::Signal);
        let RaRule::AtRegister { offset: ra_offset, .. } = signal.frame.ra() else {
            unreachable!("trampolines find the pc on the stack")
        };
        let highest = signal.registers.iter().map(|(_, offset)| *offset).fold(ra_offset, i32::max);
        let word = self.arch.word();
        let words = u64::try_from(highest).expect("above sp") / word + 1 + u64::from(spec.shape % 4);
        let mut room = self.room(index, outer, outer.sp, words);
        room.sp = room.bottom;
        if self.stacks == 1 {
            self.lowest_of_main = room.sp;
        }
        let at = |offset: i32| room.sp.wrapping_add(i64::from(offset).cast_unsigned());
        let mut reads = vec![at(ra_offset)];
        let mut keeps_fp = false;
        for (register, offset) in signal.registers {
            let value = self.interrupted(*register, outer);
            self.put(at(*offset), value);
            if [self.arch.sp(), self.arch.fp(), self.arch.ra()].contains(register) {
                reads.push(at(*offset));
            }
            keeps_fp |= *register == self.arch.fp();
        }
        self.put(at(ra_offset), outer.stored_pc);
        assert!(keeps_fp, "trampolines keep every register");
        let mut function = self.text.function(&mut self.rules, None, &spec, true);
        // The handler returns to its first instruction.
        function.pc = function.first;
        self.put_code(&function, [&[], &code]);
        self.push(Placed {
            pc: function.pc,
            sp: room.sp,
            fp: self.noise(),
            caller_sp: outer.sp,
            sp_is_bound: false,
            fp_rule: FpEffect::Finds,
            is_signal: true,
            kind: UnwindUserType::SignalTrampoline,
            trust: Trust::Exact,
            better_is_broken: None,
            reads: Reads { words: reads, in_order: false, guess: false },
            ra_slot: None,
            judged_after: 0,
        });
        Outer {
            stored_pc: self.tagged(function.pc),
            sp: room.sp,
            fp: self.noise(),
            needs_fp: false,
            needs_sp: true,
            link: None,
        }
    }

    /// The interrupted frame's value of a register.
    fn interrupted(&self, register: Register, outer: &Outer) -> u64 {
        if register == self.arch.sp() {
            outer.sp
        } else if register == self.arch.fp() {
            outer.fp
        } else if register == self.arch.ra() {
            outer.link.unwrap_or(self.noise())
        } else {
            self.noise() ^ u64::from(register.0)
        }
    }
}
