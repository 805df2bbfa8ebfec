//! The bare work: nothing is looked up.

use unwind_arch::host::HostArch;
use unwind_core::{
    Base, CfaRule, FpRule, FrameKind, FrameSource, Pc, RaRule, Rule, UnwindUserFrame, UnwindUserTypes,
    Unwinder, from_fn,
};
use unwind_mem::StackSnapshot;

use super::contender::Contender;
use super::workload::{Sample, Workload};

/// Follows frame records: two loads a frame, checked to be in the stack and to go up.
pub(crate) struct Chase;

impl Contender for Chase {
    fn name(&self) -> String {
        "floor: bare frame-pointer chase".into()
    }

    #[inline]
    fn walk(&mut self, _: usize, sample: &Sample, pcs: &mut [u64]) -> usize {
        let mut fp = sample.fp();
        let mut count = 0;
        let mut pc = sample.ip();
        for entry in pcs {
            *entry = pc;
            count += 1;
            let (Some(next), Some(ra)) = (sample.word(fp), sample.word(fp.wrapping_add(8))) else { break };
            if ra == 0 || (next <= fp && next != 0) {
                break;
            }
            (fp, pc) = (next, ra);
        }
        count
    }
}

/// A rule in as few words as it takes.
#[derive(Clone, Copy)]
pub(super) struct Known {
    /// From sp, or from fp where [`ON_FP`] is set; offsets are even.
    pub(super) cfa: i32,
    /// From the CFA.
    ra: i32,
    /// From the CFA, [`UNCHANGED`] or [`OTHER`].
    pub(super) fp: i32,
}

const ON_FP: i32 = 1;
const UNCHANGED: i32 = i32::MAX;
/// What this rule leads to is in [`RulesKnown::others`] at the index `cfa`.
pub(super) const OTHER: i32 = i32::MIN;

/// Carries out the right rule of every frame, which are listed for each stack.
pub(crate) struct RulesKnown {
    pub(super) rules: Vec<Known>,
    /// Where the rules of each sample begin.
    pub(super) starts: Vec<usize>,
    /// pc, sp and fp after a step whose rule is not plain.
    pub(super) others: Vec<[u64; 3]>,
}

impl RulesKnown {
    /// Writes down what unwinders, one for each process, find.
    pub(crate) fn record<S: FrameSource<HostArch>>(
        workload: &Workload,
        unwinders: &[Unwinder<HostArch, S>],
    ) -> Self {
        let mut known = RulesKnown { rules: Vec::new(), starts: Vec::new(), others: Vec::new() };
        for sample in &workload.samples {
            known.starts.push(known.rules.len());
            let unwinder = &unwinders[sample.process];
            let mut memory = StackSnapshot::new(sample.address, sample.stack);
            let mut state = unwinder.start(&sample.registers).expect("registers");
            loop {
                let before = (state.pc(), state.sp(), state.fp().unwrap_or(0));
                let Ok(frame) = unwinder.next(&mut state, &mut memory) else { break };
                let after = [frame.pc.address(), frame.sp, frame.fp.unwrap_or(0)];
                known.add(rule_at(unwinder, before.0), sample, (before.1, before.2), after);
            }
        }
        known.starts.push(known.rules.len());
        known
    }

    /// How many rules are not plain.
    pub(crate) fn others(&self) -> usize {
        self.others.len()
    }

    fn add(&mut self, rule: Option<UnwindUserFrame>, sample: &Sample, (sp, fp): (u64, u64), after: [u64; 3]) {
        let plain = rule.and_then(plain).filter(|plain| {
            let found = carry_out(*plain, sample, sp, fp);
            found == Some((after[0], after[1], after[2]))
        });
        self.rules.push(plain.unwrap_or_else(|| {
            self.others.push(after);
            Known { cfa: i32::try_from(self.others.len() - 1).expect("few"), ra: 0, fp: OTHER }
        }));
    }
}

/// The rule that the best source has.
fn rule_at<S: FrameSource<HostArch>>(unwinder: &Unwinder<HostArch, S>, pc: Pc) -> Option<UnwindUserFrame> {
    let mut no_memory =
        from_fn(|address, _: &mut [u8]| Err(unwind_core::MemoryError::Unreadable { address }));
    let types: UnwindUserTypes = unwinder.source().types();
    let found = types.iter().find_map(|kind| {
        let query = unwind_core::Query::new(pc);
        unwinder.source().lookup(unwinder.arch(), kind, &query, &mut no_memory).ok()?
    })?;
    match found.rule {
        Rule::Frame(frame) => Some(frame),
        Rule::Evaluate => None,
    }
}

fn plain(rule: UnwindUserFrame) -> Option<Known> {
    let CfaRule::Offset { base, offset } = rule.cfa() else { return None };
    let cfa = match base {
        Base::Sp if offset & ON_FP == 0 => offset,
        Base::Fp if offset & ON_FP == 0 => offset | ON_FP,
        _ => return None,
    };
    let RaRule::AtCfa(ra) = rule.ra() else { return None };
    let fp = match rule.fp() {
        FpRule::Unchanged => UNCHANGED,
        FpRule::AtCfa(offset) => offset,
        _ => return None,
    };
    matches!(rule.kind(), FrameKind::Call).then_some(Known { cfa, ra, fp })
}

/// pc, sp and fp of the caller.
#[inline(always)]
pub(super) fn carry_out(rule: Known, sample: &Sample, sp: u64, fp: u64) -> Option<(u64, u64, u64)> {
    let base = if rule.cfa & ON_FP != 0 { fp } else { sp };
    let cfa = base.wrapping_add_signed(i64::from(rule.cfa & !ON_FP));
    let pc = sample.word(cfa.wrapping_add_signed(i64::from(rule.ra)))?;
    let fp = match rule.fp {
        UNCHANGED => fp,
        offset => sample.word(cfa.wrapping_add_signed(i64::from(offset)))?,
    };
    Some((pc, cfa, fp))
}

impl Contender for RulesKnown {
    fn name(&self) -> String {
        "floor: rules known, execution only".into()
    }

    #[inline]
    fn walk(&mut self, index: usize, sample: &Sample, pcs: &mut [u64]) -> usize {
        let rules = &self.rules[self.starts[index]..self.starts[index + 1]];
        let (mut pc, mut sp, mut fp) = (sample.ip(), sample.sp(), sample.fp());
        let mut count = 1;
        let Some((first, rest)) = pcs.split_first_mut() else { return 0 };
        *first = pc;
        for (rule, entry) in rules.iter().zip(rest) {
            if rule.fp == OTHER {
                [pc, sp, fp] = self.others[rule.cfa as usize];
            } else if let Some(caller) = carry_out(*rule, sample, sp, fp) {
                (pc, sp, fp) = caller;
            } else {
                break;
            }
            *entry = pc;
            count += 1;
        }
        count
    }
}

/// Looks the rule of every frame up by its pc, in a hash table that holds the rules of these stacks and nothing else:
/// nobody checks whether they still count, and every slot is found at the first look, or nearly. Whoever has a pc and
/// wants a rule reads at least one place that waits for the return address; this is what that costs.
pub(crate) struct RulesByPc {
    slots: Vec<Slot>,
    /// From the upper end of a hash down to the number of a slot.
    shift: u32,
}

/// 16 bytes.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// 0 where there is none.
    key: u64,
    /// As of [`Known`].
    cfa: i32,
    ra: i16,
    /// [`SAME`] where it is unchanged.
    fp: i16,
}

const SAME: i16 = i16::MAX;

impl RulesByPc {
    /// The rules that are known. A stack with one that is not plain, or larger than usual, ends there.
    pub(crate) fn new(workload: &Workload, known: &RulesKnown) -> Self {
        let bits = known.rules.len().max(2).ilog2() + 1;
        let mut by_pc = RulesByPc { slots: vec![Slot::default(); 1 << bits], shift: 64 - bits };
        for (sample, range) in workload.samples.iter().zip(known.starts.windows(2)) {
            let (mut pc, mut sp, mut fp) = (sample.ip(), sample.sp(), sample.fp());
            for (number, rule) in known.rules[range[0]..range[1]].iter().enumerate() {
                let Some(slot) = Slot::of(key(sample, pc, number == 0), *rule) else { break };
                let at = by_pc.place(slot.key);
                by_pc.slots[at] = slot;
                let Some(caller) = carry_out(*rule, sample, sp, fp) else { break };
                (pc, sp, fp) = caller;
            }
        }
        by_pc
    }

    /// The slot with this key, or where it would be. Half of the slots are free at least.
    #[inline(always)]
    fn place(&self, key: u64) -> usize {
        let mut at = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize;
        while self.slots[at].key != key && self.slots[at].key != 0 {
            at = (at + 1) & (self.slots.len() - 1);
        }
        at
    }
}

impl Slot {
    fn of(key: u64, rule: Known) -> Option<Self> {
        let fp = match rule.fp {
            UNCHANGED => SAME,
            offset => i16::try_from(offset).ok().filter(|offset| *offset != SAME)?,
        };
        Some(Slot { key, cfa: rule.cfa, ra: i16::try_from(rule.ra).ok()?, fp })
    }
}

/// What tells a pc apart from all others: those of other processes, and whether it is exact.
#[inline(always)]
fn key(sample: &Sample, pc: u64, is_exact: bool) -> u64 {
    pc << 16 | (sample.process as u64) << 1 | u64::from(is_exact)
}

impl Contender for RulesByPc {
    fn name(&self) -> String {
        "floor: rules by pc, nothing checked".into()
    }

    #[inline]
    fn walk(&mut self, _: usize, sample: &Sample, pcs: &mut [u64]) -> usize {
        let (mut pc, mut sp, mut fp) = (sample.ip(), sample.sp(), sample.fp());
        let mut count = 0;
        for entry in pcs {
            *entry = pc;
            count += 1;
            let slot = self.slots[self.place(key(sample, pc, count == 1))];
            let unchanged = if slot.fp == SAME { UNCHANGED } else { slot.fp.into() };
            let rule = Known { cfa: slot.cfa, ra: slot.ra.into(), fp: unchanged };
            match carry_out(rule, sample, sp, fp) {
                Some(caller) if slot.key != 0 => (pc, sp, fp) = caller,
                _ => break,
            }
        }
        count
    }
}
