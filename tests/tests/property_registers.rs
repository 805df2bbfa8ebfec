//! Walks that track every register: random chains whose functions save, move, compute and lose
//! callee-saved registers, and base their CFAs on them. What is known must be right, and what is
//! lost must be unknown.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use unwind_core::dwarf::{DwarfSections, DwarfSource, Section};
use unwind_core::{
    Arch, End, Mark, Options, Register, RegisterFile, UnwindUserType, UnwindUserTypes, Unwinder,
};
use unwind_tests::synthetic::cfi::{CfiSection, Cie, Expression, Fde, Flavor, Program};
use unwind_tests::synthetic::chaos::mix;
use unwind_tests::synthetic::{AnyArch, Memory, Registers, strategy};

/// What a function does with a register that it must hand back.
#[derive(Clone, Copy, Debug)]
enum Action {
    Keep,
    Save,
    SaveByExpression,
    /// The caller's value is the CFA plus a constant: what `mov %rsp, %rbp` leaves behind.
    Value,
    ValueByExpression(i16),
    /// The caller's value is in another register, which is saved.
    Move,
    Lose,
}

#[derive(Clone, Debug)]
struct FunctionSpec {
    actions: Vec<Action>,
    words: u8,
    /// Which register the CFA is based on; sp, if there is no such one.
    base: Option<u8>,
    seed: u64,
}

fn function() -> impl Strategy<Value = FunctionSpec> {
    let action = prop_oneof![
        3 => Just(Action::Keep),
        3 => Just(Action::Save),
        1 => Just(Action::SaveByExpression),
        1 => Just(Action::Value),
        1 => any::<i16>().prop_map(Action::ValueByExpression),
        1 => Just(Action::Move),
        1 => Just(Action::Lose),
    ];
    (vec(action, 12), any::<u8>(), any::<Option<u8>>(), any::<u64>())
        .prop_map(|(actions, words, base, seed)| FunctionSpec { actions, words, base, seed })
}

/// A frame as it really is.
#[derive(Clone, Debug)]
struct Real {
    sp: u64,
    values: BTreeMap<Register, u64>,
    /// The registers whose values its rule, or one further out, needs.
    needed: BTreeSet<Register>,
}

struct Machine<'p> {
    arch: AnyArch,
    /// sp excluded, fp included.
    callee_saved: Vec<Register>,
    memory: Memory,
    section: CfiSection,
    cie: (u64, Cie),
    functions: &'p [FunctionSpec],
    /// What each function does in the end, innermost first.
    done: Vec<BTreeMap<Register, Done>>,
}

/// Where the caller's value of a register is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Done {
    Kept,
    Found,
    In(Register),
    Lost,
}

const CODE: u64 = 0x40_0000;

impl<'p> Machine<'p> {
    fn new(arch: AnyArch, functions: &'p [FunctionSpec]) -> Self {
        let callee_saved: Vec<Register> = (0..64)
            .map(Register)
            .filter(|register| arch.is_callee_saved(*register) && *register != arch.sp())
            .take(11)
            .chain([arch.fp()])
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let mut section = CfiSection::new(Flavor::EhFrame, arch.word_size(), arch.byte_order(), 0x60_0000);
        let cie = Cie { data_alignment: -4, ..Cie::usual(arch.ra(), Vec::new()) };
        let offset = section.cie(&cie);
        Machine {
            arch,
            callee_saved,
            memory: Memory::new(),
            section,
            cie: (offset, cie),
            functions,
            done: vec![BTreeMap::new(); functions.len()],
        }
    }

    fn put(&mut self, address: u64, value: u64) {
        self.memory.put_word(address, value, self.arch.word_size(), self.arch.byte_order());
    }

    fn random(&self, seed: u64) -> u64 {
        self.arch.word_size().truncate(mix(seed))
    }

    fn pc(index: usize) -> u64 {
        CODE + 64 * u64::try_from(index).expect("few") + 32
    }

    /// Runs the program from the outermost function inwards; returns its frames, innermost first.
    fn run(&mut self) -> Vec<Real> {
        let values = self.callee_saved.iter().map(|register| (*register, self.random(register.0.into())));
        let mut caller = Real { sp: 0x7fff_0000, values: values.collect(), needed: BTreeSet::new() };
        let mut frames = Vec::new();
        for index in (0..self.functions.len()).rev() {
            let is_last = index + 1 == self.functions.len();
            let frame = self.call(index, &caller, if is_last { 0 } else { Self::pc(index + 1) });
            frames.push(frame.clone());
            caller = frame;
        }
        frames.reverse();
        frames
    }

    /// Calls a function: what it does to the registers and the stack, and what its FDE says.
    fn call(&mut self, index: usize, caller: &Real, return_address: u64) -> Real {
        let spec = self.functions[index].clone();
        let word = self.arch.word();
        let bias = self.arch.sp_bias();
        let cfa = caller.sp.wrapping_sub(i64::from(bias).cast_unsigned());
        let words = 20 + u64::from(spec.words);
        let sp = caller.sp - word * words;
        let (size, order) = (self.arch.word_size(), self.arch.byte_order());
        let mut program = Program::new(size, order, 1, -4);
        let mut next_slot = 0;
        let mut slot = || {
            next_slot += 1;
            caller.sp - word * next_slot
        };
        let from_cfa = |slot: u64| slot.wrapping_sub(cfa).cast_signed();

        let ra_slot = slot();
        self.put(ra_slot, return_address);
        program.offset(self.arch.ra(), from_cfa(ra_slot), false, 3).expect("aligned");

        let registers = self.callee_saved.clone();
        let mut values: BTreeMap<Register, u64> = registers
            .iter()
            .map(|register| (*register, self.random(spec.seed ^ u64::from(register.0))))
            .collect();
        let mut done = BTreeMap::new();
        let mut needed = BTreeSet::new();
        // Registers that hold others' values must be saved themselves, and hold one only.
        let mut holders: BTreeSet<Register> = BTreeSet::new();
        let mut moved: BTreeMap<Register, Register> = BTreeMap::new();
        for (number, register) in registers.iter().enumerate() {
            let holder = registers[(number + 1) % registers.len()];
            let is_move = matches!(spec.actions.get(number), Some(Action::Move));
            if is_move
                && !moved.contains_key(&holder)
                && !holders.contains(register)
                && holder != self.arch.fp()
            {
                holders.insert(holder);
                moved.insert(*register, holder);
            }
        }
        for (number, register) in registers.iter().enumerate() {
            let theirs = caller.values[register];
            let is_needed = caller.needed.contains(register);
            let mut action = spec.actions.get(number).copied().unwrap_or(Action::Keep);
            if let Some(holder) = moved.get(register) {
                values.insert(*holder, theirs);
                done.insert(*register, Done::In(*holder));
                program.with(0x09, &[register.0.into(), holder.0.into()]);
                if is_needed {
                    needed.insert(*holder);
                }
                continue;
            }
            if matches!(action, Action::Move)
                || holders.contains(register)
                || (is_needed && matches!(action, Action::Lose))
            {
                action = Action::Save;
            }
            // A value that is not near the CFA is not computed from it.
            let constant = theirs.wrapping_sub(cfa).cast_signed();
            let computable = i32::try_from(constant).is_ok() && constant % 4 == 0;
            if !computable && matches!(action, Action::Value | Action::ValueByExpression(_)) {
                action = Action::Save;
            }
            let result = match action {
                Action::Keep => {
                    values.insert(*register, theirs);
                    if is_needed {
                        needed.insert(*register);
                    }
                    Done::Kept
                }
                Action::Save => {
                    let slot = slot();
                    self.put(slot, theirs);
                    program
                        .offset(*register, from_cfa(slot), false, u32::try_from(number).expect("few"))
                        .expect("aligned");
                    Done::Found
                }
                Action::SaveByExpression => {
                    let slot = slot();
                    self.put(slot, theirs);
                    let offset = (slot - sp).cast_signed();
                    let place = Expression::new(size, order).breg(self.arch.sp(), offset);
                    program.with_expression(0x10, *register, place);
                    Done::Found
                }
                Action::Value => {
                    program.offset(*register, constant, true, 3).expect("a multiple of four");
                    Done::Found
                }
                Action::ValueByExpression(style) => {
                    let sum = Expression::new(size, order).add(constant, style.unsigned_abs().into());
                    program.with_expression(0x16, *register, sum);
                    Done::Found
                }
                Action::Lose => {
                    program.with(0x07, &[register.0.into()]);
                    Done::Lost
                }
                Action::Move => unreachable!("replaced above"),
            };
            done.insert(*register, result);
        }
        // What the CFA rests on: sp, or a register that this function has set.
        let base = spec.base.map(|base| registers[usize::from(base) % registers.len()]);
        // A value that somebody else's depends on stays as it is.
        let free = |register: &Register| done[register] != Done::Kept && !holders.contains(register);
        let base = base.filter(free).unwrap_or(self.arch.sp());
        if base == self.arch.sp() {
            program.def_cfa(base, cfa.wrapping_sub(sp).cast_signed(), 0);
        } else {
            values.insert(base, sp + 4 * word);
            needed.insert(base);
            program.def_cfa(base, cfa.wrapping_sub(sp + 4 * word).cast_signed(), 0);
        }
        let start = CODE + 64 * u64::try_from(index).expect("few");
        let (offset, cie) = &self.cie;
        let fde = Fde { start, length: 64, instructions: program.into_bytes() };
        self.section.fde(*offset, cie, &fde).expect("it is near");
        self.done[index] = done;
        Real { sp, values, needed }
    }
}

proptest! {
    #![proptest_config(strategy::cases(150))]

    #[test]
    fn every_register_comes_back(arch in strategy::arch(), functions in vec(function(), 1..8)) {
        let mut program = Machine::new(arch, &functions);
        let frames = program.run();
        let eh_frame = Some(Section { data: &program.section.bytes.data, svma: program.section.svma });
        let sections = DwarfSections { eh_frame, ..DwarfSections::default() };
        let mut options = Options::default();
        options.types = UnwindUserTypes::only(UnwindUserType::Dwarf);
        let unwinder = Unwinder::with_options(arch, DwarfSource::new(sections), options);

        let scratch = arch.scratch(3).into_iter().find(|register| !arch.is_callee_saved(*register));
        let scratch = scratch.expect("one of three");
        let innermost = &frames[0];
        let mut registers = Registers::new(Machine::pc(0), [(arch.sp(), innermost.sp), (scratch, 7)]);
        registers.values.extend(innermost.values.iter().map(|(register, value)| (register.0, *value)));
        if arch.has_link_register() {
            registers.values.insert(arch.ra().0, 0x1234);
        }
        let mut known: BTreeMap<Register, Option<u64>> =
            innermost.values.iter().map(|(register, value)| (*register, Some(*value))).collect();
        let mut state = unwinder.start_tracking::<128>(&registers).expect("ip and sp are known");
        for (index, caller) in frames.iter().enumerate().skip(1) {
            let frame = unwinder.next(&mut state, &mut &program.memory);
            let frame = frame.map_err(|end| TestCaseError::fail(format!("frame {index}: {end:?}")))?;
            prop_assert_eq!((frame.pc.address(), frame.sp), (Machine::pc(index), caller.sp));
            let before = known.clone();
            for (register, done) in &program.done[index - 1] {
                let value = match done {
                    Done::Kept => before[register],
                    Done::Found => Some(caller.values[register]),
                    Done::In(holder) => before[holder],
                    Done::Lost => None,
                };
                known.insert(*register, value);
            }
            for (register, value) in &known {
                let found = if *register == arch.fp() { frame.fp } else { state.registers().get(*register) };
                prop_assert_eq!(found, *value, "{:?} in frame {}", register, index);
            }
            // Nobody must hand these back.
            prop_assert_eq!(state.registers().get(scratch), None);
            prop_assert_eq!(state.registers().get(arch.ra()), None);
        }
        let end = unwinder.next(&mut state, &mut &program.memory);
        prop_assert_eq!(end, Err(End::Complete(Mark::ZeroReturnAddress)));
    }
}
