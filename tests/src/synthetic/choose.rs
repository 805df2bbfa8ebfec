//! The rule of a frame that a source covers: as the specification wants it, as far as the numbers
//! allow.

use unwind_core::{Arch, Base, CfaRule, FpRule, RaRule, Register};

use super::layout::Layout;
use super::place::{Outer, Room};
use super::spec::{BaseSpec, FpSpec, RaSpec, Role};

/// A rule, and what it rests on.
pub(super) struct Choice {
    pub(super) cfa: CfaRule,
    pub(super) ra: RaRule,
    pub(super) fp: FpRule,
    pub(super) own_fp: u64,
    pub(super) reads_fp: bool,
    pub(super) reads_sp: bool,
    /// The words that the rule reads, in order.
    pub(super) reads: Vec<u64>,
    pub(super) ra_slot: Option<u64>,
    /// How many of the reads come before that of the frame pointer.
    pub(super) judged_after: usize,
    pub(super) link: Option<u64>,
}

impl Layout<'_> {
    pub(super) fn choose(&mut self, room: &Room, outer: &Outer) -> Choice {
        let fp_spec = settle_fp(room, outer);
        let own_fp = self.own_fp(room, outer, fp_spec);
        let scratch = self.arch.scratch(3);
        let mut chooser = Chooser {
            layout: self,
            room,
            own_fp,
            scratch,
            reads_fp: false,
            reads_sp: false,
            reads: Vec::new(),
        };
        let cfa = chooser.cfa();
        let (ra, ra_slot, link) = chooser.ra(outer);
        let judged_after = chooser.reads.len();
        let fp = chooser.fp(outer, fp_spec);
        let Chooser { reads_fp, reads_sp, reads, .. } = chooser;
        Choice { cfa, ra, fp, own_fp, reads_fp, reads_sp, reads, ra_slot, judged_after, link }
    }

    /// What the frame pointer register holds in this frame.
    fn own_fp(&self, room: &Room, outer: &Outer, fp_spec: FpSpec) -> u64 {
        let spec = &room.spec;
        let word = self.arch.word();
        let points_into_frame = spec.cfa == BaseSpec::Fp
            || spec.ra == RaSpec::At(BaseSpec::Fp)
            || fp_spec == FpSpec::At(BaseSpec::Fp);
        let small = u64::from(spec.shape >> 5) % 300;
        if fp_spec == FpSpec::Unchanged {
            outer.fp
        } else if points_into_frame {
            room.bottom + word * (u64::from(spec.shape >> 7) % (room.words + 1)) + small % 2
        } else if spec.ra == RaSpec::In(BaseSpec::Fp) {
            self.arch.word_size().truncate(outer.stored_pc.wrapping_sub(small))
        } else if fp_spec == FpSpec::In(BaseSpec::Fp) {
            self.arch.word_size().truncate(outer.fp.wrapping_sub(small))
        } else {
            self.noise()
        }
    }
}

/// What the frame can do with the frame pointer.
fn settle_fp(room: &Room, outer: &Outer) -> FpSpec {
    match room.spec.fp {
        FpSpec::Undefined if outer.needs_fp => {
            if room.words == 0 {
                FpSpec::Unchanged
            } else {
                FpSpec::AtCfa
            }
        }
        FpSpec::AtCfa | FpSpec::At(_) | FpSpec::CfaOffset | FpSpec::In(_) if room.words == 0 => {
            FpSpec::Unchanged
        }
        other => other,
    }
}

struct Chooser<'c, 's> {
    layout: &'c mut Layout<'s>,
    room: &'c Room,
    own_fp: u64,
    /// Registers that are still free, in the topmost frame.
    scratch: Vec<Register>,
    reads_fp: bool,
    reads_sp: bool,
    reads: Vec<u64>,
}

impl Chooser<'_, '_> {
    fn cfa(&mut self) -> CfaRule {
        let cfa = self.room.cfa;
        // A frame pointer below the stack pointer is no base of a CFA.
        let wanted = match self.room.spec.cfa {
            BaseSpec::Fp if self.own_fp < self.room.sp => BaseSpec::Sp,
            wanted => wanted,
        };
        if !self.room.spec.deref || self.room.words == 0 {
            if let Some((base, offset)) = self.reach(wanted, cfa, i32::MAX) {
                return CfaRule::Offset { base, offset };
            }
            if let Some((base, offset)) = self.reach(BaseSpec::Sp, cfa, i32::MAX) {
                return CfaRule::Offset { base, offset };
            }
        }
        let slot = self.slot(0);
        let add = i16::from(self.room.spec.shape.to_le_bytes()[2].cast_signed());
        let word = self.layout.arch.word_size();
        let stored = word.offset(cfa, -i64::from(add));
        let add = if stored.is_some() { add } else { 0 };
        self.layout.put(slot, stored.unwrap_or(cfa));
        self.reads.push(slot);
        let most = 0x3f_ffff;
        let (base, offset) = match self.reach(wanted, slot, most) {
            Some(reached) => reached,
            None => self.reach(BaseSpec::Sp, slot, most).expect("slots are near sp"),
        };
        CfaRule::Deref { base, offset, add }
    }

    fn ra(&mut self, outer: &Outer) -> (RaRule, Option<u64>, Option<u64>) {
        let link_register = self.layout.arch.ra();
        let target = outer.stored_pc;
        let in_link = self.room.spec.ra == RaSpec::InLink;
        if in_link {
            let base = Base::Register(link_register);
            return (RaRule::InRegister { base, offset: 0 }, None, Some(target));
        }
        if let RaSpec::In(wanted) = self.room.spec.ra
            && let Some((base, offset)) = self.reach(wanted, target, i32::MAX)
        {
            return (RaRule::InRegister { base, offset }, None, None);
        }
        let slot = self.slot(1);
        self.layout.put(slot, target);
        self.reads.push(slot);
        if let RaSpec::At(wanted) = self.room.spec.ra
            && let Some((base, offset)) = self.reach(wanted, slot, i32::MAX)
        {
            return (RaRule::AtRegister { base, offset }, Some(slot), None);
        }
        if let Some(offset) = offset_between(self.room.cfa, slot, i32::MAX) {
            return (RaRule::AtCfa(offset), Some(slot), None);
        }
        let (base, offset) = self.reach(BaseSpec::Sp, slot, i32::MAX).expect("slots are near sp");
        (RaRule::AtRegister { base, offset }, Some(slot), None)
    }

    fn fp(&mut self, outer: &Outer, spec: FpSpec) -> FpRule {
        match spec {
            FpSpec::Unchanged => return FpRule::Unchanged,
            FpSpec::Undefined => return FpRule::Undefined,
            FpSpec::CfaOffset => {
                if let Some(offset) = offset_between(self.room.cfa, outer.fp, i32::MAX) {
                    return FpRule::CfaOffset(offset);
                }
            }
            FpSpec::In(wanted) => {
                if let Some((base, offset)) = self.reach(wanted, outer.fp, i32::MAX) {
                    return FpRule::InRegister { base, offset };
                }
            }
            FpSpec::AtCfa | FpSpec::At(_) => {}
        }
        let slot = self.slot(2);
        self.layout.put(slot, outer.fp);
        self.reads.push(slot);
        if let FpSpec::At(wanted) = spec
            && let Some((base, offset)) = self.reach(wanted, slot, i32::MAX)
        {
            return FpRule::AtRegister { base, offset };
        }
        if let Some(offset) = offset_between(self.room.cfa, slot, i32::MAX) {
            return FpRule::AtCfa(offset);
        }
        let (base, offset) = self.reach(BaseSpec::Sp, slot, i32::MAX).expect("slots are near sp");
        FpRule::AtRegister { base, offset }
    }

    /// A word of the frame: three of them, anywhere, and never the same.
    fn slot(&self, number: u64) -> u64 {
        let word = self.layout.arch.word();
        // The last word of small frames, and the eighth, belong to others.
        let usable = if self.room.spec.role == Role::Signal { 7 } else { self.room.words };
        let start = u64::from(self.room.spec.shape >> 3) % usable;
        self.room.bottom + word * ((start + number * (usable / 3)) % usable)
    }

    /// A base register and the offset from it to `target`, at most `most`. A register that nobody
    /// uses is given a value.
    fn reach(&mut self, wanted: BaseSpec, target: u64, most: i32) -> Option<(Base, i32)> {
        let arch = self.layout.arch;
        let alias = self.room.spec.shape & 0x2_0000 != 0;
        let name = |base, register| if alias { Base::Register(register) } else { base };
        match wanted {
            BaseSpec::Fp => {
                let offset = offset_between(self.own_fp, target, most)?;
                self.reads_fp = true;
                Some((name(Base::Fp, arch.fp()), offset))
            }
            BaseSpec::Other if self.room.index == 0 && !self.scratch.is_empty() => {
                let register = self.scratch.remove(0);
                let offset = i32::from(self.room.spec.shape.to_le_bytes()[1].cast_signed());
                // Not beyond an end of the address space.
                let word = arch.word_size();
                let (value, offset) = match word.offset(target, -i64::from(offset)) {
                    Some(value) => (value, offset),
                    None => (target, 0),
                };
                self.layout.registers.values.insert(register.0, value);
                Some((Base::Register(register), offset))
            }
            BaseSpec::Sp | BaseSpec::Other => {
                let offset = offset_between(self.room.sp, target, most)?;
                self.reads_sp = true;
                Some((name(Base::Sp, arch.sp()), offset))
            }
        }
    }
}

fn offset_between(from: u64, to: u64, most: i32) -> Option<i32> {
    let difference = i128::from(to) - i128::from(from);
    i32::try_from(difference).ok().filter(|offset| offset.checked_abs().is_some_and(|size| size <= most))
}
