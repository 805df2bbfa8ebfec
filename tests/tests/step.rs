//! Single steps by hand: each check of the step, what passes it by a word and what does not, and
//! that an earlier check wins over a later one.

use unwind_arch::aarch64::Aarch64;
use unwind_arch::x86_64::X86_64;
use unwind_core::{
    Arch, Base, Broken, ByteOrder, CfaRule, Cut, End, FpRule, Frame, LookupError, Mark, MemoryError, Options,
    Pc, RaRule, Register, SourceError, StartError, StepError, Trust, Unusable, UnwindError, UnwindUserFrame,
    UnwindUserType, UnwindUserTypes, Unwinder, WordSize,
};
use unwind_tests::reference::{Walk, agree, walk, walk_by_library};
use unwind_tests::synthetic::{Answer, AnyArch, Memory, Registers, Row, Rules, Synthetic};

const IP: u64 = 0x40_1000;
const SP: u64 = 0x7000;
const KIND: UnwindUserType = UnwindUserType::Dwarf;

/// A machine with one rule for every pc.
#[derive(Clone)]
struct Machine {
    arch: AnyArch,
    registers: Registers,
    memory: Memory,
    rules: Rules,
    options: Options,
}

impl Machine {
    fn new(arch: AnyArch, cfa: CfaRule, ra: RaRule, fp: FpRule) -> Self {
        Machine::with(arch, UnwindUserFrame::new(cfa, ra, fp).expect("it fits"))
    }

    fn with(arch: AnyArch, rule: UnwindUserFrame) -> Self {
        let mut rules = Rules::default();
        rules.push(0, u64::MAX, KIND, rule);
        let mut options = Options::default();
        options.max_frames = 2;
        let registers = Registers::new(IP, [(arch.sp(), SP), (arch.fp(), SP + 0x40)]);
        Machine { arch, registers, memory: Memory::new(), rules, options }
    }

    fn word(mut self, address: u64, value: u64) -> Self {
        self.memory.put_word(address, value, self.arch.word_size(), self.arch.byte_order());
        self
    }

    fn register(mut self, register: Register, value: u64) -> Self {
        self.registers.values.insert(register.0, value);
        self
    }

    /// The caller, or how the walk ended without one. The reference must say the same.
    fn step(&self) -> Result<Frame, End> {
        let unwinder = Unwinder::with_options(self.arch, &self.rules, self.options.clone());
        let library = walk_by_library(&unwinder, &self.registers, || &self.memory).expect("it starts");
        let reference = walk(&self.arch, &&self.rules, &self.options, &self.registers, &mut &self.memory);
        assert_eq!(agree(&library, &reference.expect("it starts")), Ok(()));
        let Walk { frames, end } = library;
        frames.get(1).copied().ok_or(end)
    }

    fn fails(&self) -> StepError {
        match self.step() {
            Err(End::Failed(UnwindError { cause, pc, source, .. })) => {
                assert_eq!((pc, source), (Pc::Exact(IP), Some(KIND)));
                cause
            }
            other => panic!("{other:?}"),
        }
    }
}

fn sp(offset: i32) -> CfaRule {
    CfaRule::Offset { base: Base::Sp, offset }
}

fn fp(offset: i32) -> CfaRule {
    CfaRule::Offset { base: Base::Fp, offset }
}

fn synthetic(word: WordSize) -> AnyArch {
    AnyArch::Synthetic(Synthetic {
        word,
        order: ByteOrder::Big,
        link: true,
        biased: false,
        bound: false,
        mode_bit: false,
    })
}

const X86: AnyArch = AnyArch::X86_64(X86_64);
const ARM: AnyArch = AnyArch::Aarch64(Aarch64::new());
const AT_CFA: RaRule = RaRule::AtCfa(-8);
const KEEP: FpRule = FpRule::Unchanged;

#[test]
fn every_rule_leads_where_it_says() {
    let r3 = Base::Register(Register(3));
    let cfas = [
        (sp(0x20), SP + 0x20),
        (fp(0x10), SP + 0x50),
        (CfaRule::Offset { base: r3, offset: -8 }, SP + 0x18),
        (CfaRule::Deref { base: Base::Sp, offset: 8, add: 16 }, SP + 0x60),
        (CfaRule::Deref { base: Base::Fp, offset: -0x38, add: -8 }, SP + 0x48),
        (CfaRule::Deref { base: r3, offset: -0x18, add: 0 }, SP + 0x50),
    ];
    let ras = [
        (RaRule::AtCfa(-8), None),
        (RaRule::InRegister { base: r3, offset: 4 }, Some(SP + 0x24)),
        (RaRule::InRegister { base: Base::Fp, offset: 0 }, Some(SP + 0x40)),
        (RaRule::InRegister { base: Base::Sp, offset: 4 }, Some(SP + 4)),
        (RaRule::AtRegister { base: Base::Sp, offset: 16 }, Some(0x50_0000)),
        (RaRule::AtRegister { base: Base::Fp, offset: -0x30 }, Some(0x50_0000)),
        (RaRule::AtRegister { base: r3, offset: -0x10 }, Some(0x50_0000)),
    ];
    let fps = [
        (FpRule::Unchanged, Some(SP + 0x40)),
        (FpRule::Undefined, None),
        (FpRule::CfaOffset(0), Some(0)),
        (FpRule::InRegister { base: r3, offset: 1 }, Some(SP + 0x21)),
        (FpRule::AtRegister { base: Base::Sp, offset: 24 }, Some(0x99)),
        (FpRule::AtRegister { base: Base::Fp, offset: -0x28 }, Some(0x99)),
        (FpRule::AtRegister { base: r3, offset: -8 }, Some(0x99)),
        (FpRule::AtCfa(0), Some(0x77)),
    ];
    for arch in [X86, ARM, AnyArch::Aarch64(Aarch64::big_endian()), synthetic(WordSize::Eight)] {
        for (cfa, at) in cfas {
            for (ra, pc) in ras {
                for (fp, value) in fps {
                    let machine = Machine::new(arch, cfa, ra, fp)
                        .register(Register(3), SP + 0x20)
                        .word(SP + 8, SP + 0x50)
                        .word(SP + 16, 0x50_0000)
                        .word(SP + 24, 0x99)
                        .word(at - 8, 0x60_0000)
                        .word(at, 0x77);
                    let frame = machine.step().expect("nothing is wrong");
                    let clash = at == SP + 0x18 || at - 8 == SP + 0x18;
                    assert_eq!(frame.sp, at);
                    if !clash {
                        assert_eq!(frame.pc, Pc::Return(pc.unwrap_or(0x60_0000)), "{cfa:?} {ra:?}");
                        let value = if fp == FpRule::CfaOffset(0) { Some(at) } else { value };
                        assert_eq!(frame.fp, value, "{cfa:?} {fp:?}");
                    }
                    assert_eq!((frame.provenance.source, frame.provenance.trust), (Some(KIND), Trust::Exact));
                }
            }
        }
    }
}

#[test]
fn an_undefined_return_address_ends_before_anything_else_is_asked() {
    let unknown = Base::Register(Register(3));
    let machine = Machine::new(
        X86,
        CfaRule::Deref { base: unknown, offset: 0, add: 0 },
        RaRule::Undefined,
        FpRule::AtCfa(0),
    );
    assert_eq!(machine.step(), Err(End::Complete(Mark::UndefinedReturnAddress)));
    let signal = UnwindUserFrame::new(sp(0), RaRule::Undefined, KEEP).expect("it fits").signal();
    assert_eq!(Machine::with(X86, signal).step(), Err(End::Complete(Mark::UndefinedReturnAddress)));
}

#[test]
fn a_frame_pointer_below_sp_is_no_base() {
    for cfa in [fp(16), CfaRule::Deref { base: Base::Fp, offset: 16, add: 0 }] {
        let machine = Machine::new(X86, cfa, AT_CFA, KEEP).word(SP + 8, 1).word(SP + 0x10, SP + 0x10);
        let below = machine.clone().register(X86.fp(), SP - 1);
        assert_eq!(below.fails(), StepError::FramePointerBelowStack { fp: SP - 1, sp: SP });
        // Before the CFA is found to be out of range, or its word to be missing.
        let zero = machine.clone().register(X86.fp(), 0);
        assert_eq!(zero.fails(), StepError::FramePointerBelowStack { fp: 0, sp: SP });
        assert!(machine.register(X86.fp(), SP).step().is_ok());
    }
    // A signal frame may have its frame pointer anywhere.
    let rule = UnwindUserFrame::new(fp(16), RaRule::AtRegister { base: Base::Sp, offset: 0 }, KEEP);
    let machine = Machine::with(X86, rule.expect("it fits").signal()).word(SP, 0x50_0000);
    assert_eq!(machine.register(X86.fp(), 0x10).step().map(|frame| frame.sp), Ok(0x20));
}

#[test]
fn unknown_registers_are_named() {
    let r9 = Register(9);
    let base = Base::Register(r9);
    let mut without_fp = Machine::new(X86, fp(16), AT_CFA, KEEP);
    without_fp.registers.values.remove(&X86.fp().0);
    assert_eq!(without_fp.fails(), StepError::UnknownRegister(X86.fp()));
    let machines = [
        Machine::new(X86, CfaRule::Offset { base, offset: 0 }, AT_CFA, KEEP),
        Machine::new(X86, CfaRule::Deref { base, offset: 0, add: 0 }, AT_CFA, KEEP),
        Machine::new(X86, sp(16), RaRule::InRegister { base, offset: 0 }, KEEP),
        Machine::new(X86, sp(16), RaRule::AtRegister { base, offset: 0 }, KEEP),
        Machine::new(X86, sp(16), AT_CFA, FpRule::InRegister { base, offset: 0 }),
        Machine::new(X86, sp(16), AT_CFA, FpRule::AtRegister { base, offset: 0 }),
    ];
    for machine in machines {
        assert_eq!(machine.word(SP + 8, 0x50_0000).fails(), StepError::UnknownRegister(r9));
    }
    // An unknown frame pointer that stays where it is remains unknown.
    let mut machine = Machine::new(X86, sp(16), AT_CFA, KEEP).word(SP + 8, 0x50_0000);
    machine.registers.values.remove(&X86.fp().0);
    assert_eq!(machine.step().map(|frame| frame.fp), Ok(None));
}

#[test]
fn nothing_wraps_around() {
    for arch in [synthetic(WordSize::Four), synthetic(WordSize::Eight)] {
        let word = u64::from(arch.word_size().bytes());
        let max = arch.word_size().max_address();
        let last = max - (word - 1);
        let link = RaRule::InRegister { base: Base::Register(arch.ra()), offset: 0 };
        let at = |sp_value: u64, cfa: CfaRule, ra: RaRule, fp: FpRule| {
            Machine::new(arch, cfa, ra, fp)
                .register(arch.sp(), sp_value)
                .register(arch.fp(), sp_value)
                .register(arch.ra(), 0x50_0000)
        };
        let step = i32::try_from(word).expect("small");
        // The last word of all is a CFA, one more is none.
        assert_eq!(at(last - word, sp(step), link, KEEP).step().map(|frame| frame.sp), Ok(last));
        assert_eq!(at(last, sp(step), link, KEEP).fails(), StepError::AddressOverflow);
        assert_eq!(at(last, sp(i32::MAX), link, KEEP).fails(), StepError::AddressOverflow);
        // At 0 too.
        assert_eq!(at(0, sp(step), link, KEEP).step().map(|frame| frame.sp), Ok(word));
        assert_eq!(at(word, sp(-2 * step), link, KEEP).fails(), StepError::AddressOverflow);
        assert_eq!(at(0, sp(i32::MIN), link, KEEP).fails(), StepError::AddressOverflow);
        // Places and sums behind the CFA.
        let deref = |offset, add| CfaRule::Deref { base: Base::Sp, offset, add };
        assert_eq!(at(0, deref(-1, 0), link, KEEP).fails(), StepError::AddressOverflow);
        assert_eq!(at(0, deref(0, 1), link, KEEP).word(0, max).fails(), StepError::AddressOverflow);
        assert_eq!(at(0, deref(0, -1), link, KEEP).word(0, 0).fails(), StepError::AddressOverflow);
        assert_eq!(at(0, sp(step), RaRule::AtCfa(-2 * step), KEEP).fails(), StepError::AddressOverflow);
        assert_eq!(at(last - word, sp(step), RaRule::AtCfa(step), KEEP).fails(), StepError::AddressOverflow);
        assert_eq!(at(0, sp(step), link, FpRule::CfaOffset(-2 * step)).fails(), StepError::AddressOverflow);
        assert_eq!(at(0, sp(step), link, FpRule::AtCfa(-2 * step)).fails(), StepError::AddressOverflow);
        for base in [Base::Sp, Base::Fp] {
            let ra = RaRule::InRegister { base, offset: -1 };
            assert_eq!(at(0, sp(step), ra, KEEP).fails(), StepError::AddressOverflow);
            let fp = FpRule::AtRegister { base, offset: -1 };
            assert_eq!(at(0, sp(step), link, fp).fails(), StepError::AddressOverflow);
        }
    }
}

#[test]
fn the_stack_must_shrink() {
    let not_shrinking = |caller_sp| StepError::StackNotShrinking { caller_sp, sp: SP };
    for arch in [X86, ARM] {
        let link = RaRule::InRegister { base: Base::Register(Register(3)), offset: 0 };
        let machine = |offset| Machine::new(arch, sp(offset), link, KEEP).register(Register(3), 0x50_0000);
        assert_eq!(machine(8).step().map(|frame| frame.sp), Ok(SP + 8));
        // A leaf.
        assert_eq!(machine(0).step().map(|frame| frame.sp), Ok(SP));
        assert_eq!(machine(-8).fails(), not_shrinking(SP - 8));
        // Before its alignment is looked at.
        assert_eq!(machine(-1).fails(), not_shrinking(SP - 1));
        assert_eq!(machine(1).fails(), StepError::Misaligned { cfa: SP + 1 });
        assert_eq!(machine(12).fails(), StepError::Misaligned { cfa: SP + 12 });
    }
    let four = synthetic(WordSize::Four);
    assert!(Machine::new(four, sp(12), RaRule::AtCfa(-4), KEEP).word(SP + 8, 0x50_0000).step().is_ok());
}

#[test]
fn only_where_execution_stopped_may_sp_stay() {
    let stays = |arch: AnyArch| {
        let mut rules = Rules::default();
        let at_sp = |offset| RaRule::AtRegister { base: Base::Sp, offset };
        rules.push(IP, IP, KIND, UnwindUserFrame::new(sp(0), at_sp(0), KEEP).expect("it fits"));
        let signal =
            UnwindUserFrame::new(CfaRule::Deref { base: Base::Sp, offset: 8, add: 0 }, at_sp(16), KEEP);
        rules.push(0x50_0000, 0x50_0fff, KIND, signal.expect("it fits").signal());
        rules.push(
            0x60_0000,
            0x60_0fff,
            KIND,
            UnwindUserFrame::new(sp(0), at_sp(24), KEEP).expect("it fits"),
        );
        let mut machine = Machine::with(arch, UnwindUserFrame::plain(false, 8, -8, None));
        machine.rules = rules;
        machine.options.max_frames = 9;
        machine.word(SP, 0x50_0010).word(SP + 8, SP).word(SP + 16, 0x60_0010).word(SP + 24, 0x60_0020)
    };
    for arch in [X86, ARM] {
        let machine = stays(arch);
        let unwinder = Unwinder::with_options(arch, &machine.rules, machine.options.clone());
        let walk = walk_by_library(&unwinder, &machine.registers, || &machine.memory).expect("it starts");
        let places: Vec<(Pc, u64)> = walk.frames.iter().map(|frame| (frame.pc, frame.sp)).collect();
        let expected = [
            (Pc::Exact(IP), SP),
            (Pc::Return(0x50_0010), SP),
            (Pc::Exact(0x60_0010), SP),
            (Pc::Return(0x60_0020), SP),
        ];
        assert_eq!(places, expected);
        let cause = StepError::StackNotShrinking { caller_sp: SP, sp: SP };
        let pc = Pc::Return(0x60_0020);
        assert_eq!(walk.end, End::Failed(UnwindError::new(cause, pc, Some(KIND))));
    }
}

#[test]
fn the_stack_is_checked_before_it_is_read() {
    // No word of memory is there at all.
    let machine = Machine::new(X86, sp(-8), AT_CFA, FpRule::AtCfa(-16));
    assert!(matches!(machine.fails(), StepError::StackNotShrinking { .. }));
    let machine = Machine::new(X86, sp(12), AT_CFA, FpRule::AtCfa(-16));
    assert!(matches!(machine.fails(), StepError::Misaligned { .. }));
}

#[test]
fn return_addresses_are_judged_before_the_frame_pointer_is_read() {
    let machine = Machine::new(X86, sp(16), AT_CFA, FpRule::AtCfa(-16));
    let missing = |address| Err(End::Truncated(Cut::Memory(MemoryError::Unreadable { address })));
    assert_eq!(machine.step(), missing(SP + 8));
    assert_eq!(machine.clone().word(SP + 8, 0).step(), Err(End::Complete(Mark::ZeroReturnAddress)));
    let mut known = machine.clone().word(SP + 8, 0x50_0000);
    assert_eq!(known.step(), missing(SP));
    known.rules.code = Some(vec![(IP, IP + 0xfff)]);
    assert_eq!(known.fails(), StepError::NotCode { address: 0x50_0000 });
}

#[test]
fn guesses_are_marked_and_give_the_reason() {
    let broken = SourceError { broken: Broken::BadFde, offset: 0x30 };
    let mut machine = Machine::with(X86, UnwindUserFrame::plain(false, 16, -8, None)).word(SP + 8, 0x50_0000);
    let answer = Answer::Fails(LookupError::Broken(broken));
    machine.rules.rows.push(Row { first: 0, last: u64::MAX, kind: UnwindUserType::Table, answer });
    let cause = StepError::Broken(broken);
    let failed = End::Failed(UnwindError::new(cause, Pc::Exact(IP), Some(UnwindUserType::Table)));
    assert_eq!(machine.step(), Err(failed));
    machine.options.guesses = true;
    let provenance = machine.step().expect("a guess").provenance;
    assert_eq!((provenance.source, provenance.trust), (Some(KIND), Trust::Guess));
    assert_eq!(provenance.unusable, Some((UnwindUserType::Table, Unusable::Broken(broken))));
    let asked = UnwindUserTypes::only(UnwindUserType::Embedder).with(UnwindUserType::SFrame);
    assert_eq!(provenance.not_covered, asked);
    // The kinds that are not allowed are not asked.
    machine.options.types = UnwindUserTypes::only(KIND);
    let provenance = machine.step().expect("it is covered").provenance;
    assert_eq!((provenance.trust, provenance.unusable), (Trust::Exact, None));
    assert_eq!(provenance.not_covered, UnwindUserTypes::NONE);
}

#[test]
fn a_bound_of_sp_is_no_base() {
    let rule = UnwindUserFrame::plain(false, 16, -8, None).with_sp_bound();
    let mut machine = Machine::with(X86, rule).word(SP + 8, 0x50_0000).word(SP + 24, 0x50_0000);
    let frame = machine.step().expect("the first step knows sp");
    assert!(frame.sp_is_bound);
    machine.options.max_frames = 3;
    let unwinder = Unwinder::with_options(X86, &machine.rules, machine.options.clone());
    let walk = walk_by_library(&unwinder, &machine.registers, || &machine.memory).expect("it starts");
    let cause = StepError::UnknownRegister(X86.sp());
    let error = UnwindError::new(cause, Pc::Return(0x50_0000), Some(KIND));
    assert_eq!((walk.frames.len(), walk.end), (2, End::Failed(error)));
}

#[test]
fn a_walk_that_cannot_begin_says_why() {
    let rules = Rules::default();
    let unwinder = Unwinder::new(X86, &rules);
    let memory = Memory::new();
    let full = Registers::new(IP, [(X86.sp(), SP)]);
    let start = |registers: &Registers| {
        walk_by_library(&unwinder, registers, || &memory).map(|walk| walk.frames.len())
    };
    assert_eq!(start(&full), Ok(1));
    assert_eq!(start(&Registers { kernel_thread: true, ..full.clone() }), Err(StartError::NoUserRegisters));
    assert_eq!(start(&Registers { ip: None, ..full.clone() }), Err(StartError::NoInstructionPointer));
    assert_eq!(start(&Registers { values: [].into(), ..full.clone() }), Err(StartError::NoStackPointer));
    // No room is an error even where there is nothing to record.
    let kernel = Registers { kernel_thread: true, ..full };
    assert_eq!(unwinder.unwind_user(&kernel, &memory, &mut []), Err(StartError::NoRoom));
}

#[test]
fn the_ends_that_the_embedder_sets() {
    let mut machine = Machine::with(X86, UnwindUserFrame::plain(false, 16, -8, None)).word(SP + 8, IP + 0x10);
    machine.options.entry_function = Some(IP + 1..IP + 0x10);
    // Exact pcs as they are, return pcs one byte earlier.
    assert!(machine.step().is_ok());
    machine.options.max_frames = 9;
    let unwinder = Unwinder::with_options(X86, &machine.rules, machine.options.clone());
    let walk = walk_by_library(&unwinder, &machine.registers, || &machine.memory).expect("it starts");
    assert_eq!((walk.frames.len(), walk.end), (2, End::Complete(Mark::EntryFunction)));
    machine.options.entry_function = Some(IP..IP + 1);
    assert_eq!(machine.step(), Err(End::Complete(Mark::EntryFunction)));
    for limit in [0, 1] {
        machine.options.entry_function = None;
        machine.options.max_frames = limit;
        assert_eq!(machine.step(), Err(End::Truncated(Cut::FrameLimit)));
    }
}

#[test]
fn registers_of_32_bits_may_arrive_sign_extended() {
    let arch = synthetic(WordSize::Four);
    let mut machine = Machine::new(arch, sp(8), RaRule::AtCfa(-4), KEEP)
        .register(arch.sp(), 0xffff_ffff_8000_7000)
        .register(arch.fp(), 0xffff_ffff_8000_7010)
        .word(0x8000_7004, 0x9000_0000);
    machine.registers.ip = Some(0xffff_ffff_c000_0000);
    let frame = machine.step().expect("nothing is wrong");
    assert_eq!((frame.pc, frame.sp, frame.fp), (Pc::Return(0x9000_0000), 0x8000_7008, Some(0x8000_7010)));
}

#[test]
fn a_frame_record_without_return_address_ends_the_chain_but_where_execution_stopped() {
    let mut machine = Machine::new(X86, sp(8), AT_CFA, KEEP);
    machine.rules = Rules::default();
    // The record that the frame pointer leads to, at SP + 0x40.
    let mut machine = machine.word(SP + 0x40, 0).word(SP + 0x48, 0);
    let by_fp = Some(UnwindUserType::FramePointer);
    let no_code = UnwindError::new(StepError::NotCode { address: 0 }, Pc::Exact(IP), by_fp);
    assert_eq!(machine.step(), Err(End::Failed(no_code)));
    // The same record, from the frame that called.
    let mut machine = {
        machine.rules.push(IP, IP, KIND, UnwindUserFrame::plain(false, 16, -8, None));
        machine.word(SP + 8, 0x50_0000)
    };
    machine.options.max_frames = 3;
    let unwinder = Unwinder::with_options(X86, &machine.rules, machine.options.clone());
    let walk = walk_by_library(&unwinder, &machine.registers, || &machine.memory).expect("it starts");
    assert_eq!((walk.frames.len(), walk.end), (2, End::Complete(Mark::ZeroFrameRecord)));
    assert_eq!(walk.frames[1].provenance.trust, Trust::Exact);
}

#[test]
fn where_execution_stopped_an_instruction_is_better_than_a_table_of_calls() {
    let mut machine = Machine::new(X86, sp(64), AT_CFA, KEEP).word(SP, 0x50_0000).word(SP + 56, 0x60_0000);
    let rule = UnwindUserFrame::plain(false, 64, -8, None);
    let row = |trust| Row { first: 0, last: u64::MAX, kind: KIND, answer: Answer::Frame(rule, trust) };
    let caller = |machine: &Machine| {
        let frame = machine.step().expect("it has a caller");
        (frame.pc, frame.provenance.source, frame.provenance.trust)
    };
    machine.rules.rows = vec![row(Trust::CallSite)];
    let by_table = (Pc::Return(0x60_0000), Some(KIND), Trust::CallSite);
    assert_eq!(caller(&machine), by_table);
    // `ret`
    machine.memory.put(IP, &[0xc3]);
    let by_instruction = (Pc::Return(0x50_0000), Some(UnwindUserType::Instruction), Trust::Convention);
    assert_eq!(caller(&machine), by_instruction);
    machine.options.types = UnwindUserTypes::ALL.without(UnwindUserType::Instruction);
    assert_eq!(caller(&machine), by_table);
    machine.options.types = UnwindUserTypes::ALL;
    machine.rules.rows = vec![row(Trust::Exact)];
    assert_eq!(caller(&machine), (Pc::Return(0x60_0000), Some(KIND), Trust::Exact));
}

#[test]
fn a_trampoline_right_behind_the_entry_function_is_none_of_it() {
    let tramp = 0x50_0100;
    let mut machine = Machine::new(X86, sp(8), AT_CFA, KEEP).word(SP, tramp);
    machine.rules = Rules::default();
    machine.rules.push(IP, IP, KIND, UnwindUserFrame::plain(false, 8, -8, None));
    machine.options.entry_function = Some(tramp - 0x100..tramp);
    machine.options.max_frames = 3;
    // The signal frame: rbp, rsp and rip.
    let mut machine =
        machine.word(SP + 8 + 120, 0).word(SP + 8 + 160, SP + 0x800).word(SP + 8 + 168, 0x60_0000);
    let walk_it = |machine: &Machine| {
        let unwinder = Unwinder::with_options(X86, &machine.rules, machine.options.clone());
        let library = walk_by_library(&unwinder, &machine.registers, || &machine.memory).expect("it starts");
        let reference =
            walk(&X86, &&machine.rules, &machine.options, &machine.registers, &mut &machine.memory);
        assert_eq!(agree(&library, &reference.expect("it starts")), Ok(()));
        library
    };
    let found = walk_it(&machine);
    assert_eq!((found.frames.len(), found.end), (2, End::Complete(Mark::EntryFunction)));
    // mov $15, %rax; syscall
    machine.memory.put(tramp, &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05]);
    let found = walk_it(&machine);
    assert_eq!((found.frames.len(), found.frames[2].pc), (3, Pc::Exact(0x60_0000)));
}

/// A chain of frame records that ends with zero, in the one way or the other: at any number of frames, and where
/// the embedder has set an end of its own.
#[test]
fn a_chain_ends_where_something_else_does_not_before() {
    const STACK: u64 = 0x7f00_0000;
    const RECORDS: u64 = 4;
    for arch in [X86, ARM] {
        for last in [(0, 0x40_5000), (STACK + 0x400, 0)] {
            let mut machine = Machine::new(arch, sp(8), RaRule::Undefined, FpRule::Unchanged);
            machine.rules = Rules::default();
            machine.options.types = UnwindUserTypes::only(UnwindUserType::FramePointer);
            machine = machine.register(arch.sp(), STACK).register(arch.fp(), STACK + 0x40);
            for number in 1..=RECORDS {
                let record = STACK + 0x40 * number;
                let (next, ra) = match number {
                    RECORDS => last,
                    _ => (record + 0x40, 0x40_1000 + number * 0x1000),
                };
                machine = machine.word(record, next).word(record + 8, ra);
            }
            let mut ends = Vec::new();
            for entry in [None, Some(0x40_5000), Some(0x40_4000), Some(0x40_2000)] {
                machine.options.entry_function = entry.map(|pc| pc - 0x10..pc + 0x10);
                for max_frames in 1..=7 {
                    machine.options.max_frames = max_frames;
                    ends.push(machine.step().err());
                    let unwinder =
                        Unwinder::with_options(machine.arch, &machine.rules, machine.options.clone());
                    let found = walk_by_library(&unwinder, &machine.registers, || &machine.memory);
                    ends.push(Some(found.expect("it starts").end));
                }
            }
            let mark = if last.0 == 0 { Mark::ZeroFramePointer } else { Mark::ZeroFrameRecord };
            for end in
                [End::Complete(mark), End::Complete(Mark::EntryFunction), End::Truncated(Cut::FrameLimit)]
            {
                assert!(ends.contains(&Some(end)), "{end:?} is none of {ends:?}");
            }
        }
    }
}
