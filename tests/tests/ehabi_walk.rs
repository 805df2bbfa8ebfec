//! Walks by exception handling tables, and the hazards of those tables: an index at its limits, code that
//! cannot be unwound, signal frames, exact pcs, tables that make no sense.

use unwind_core::ehabi::{EhabiSections, EhabiSource};
use unwind_core::{
    Arch, Base, Broken, ByteOrder, CfaRule, Cut, End, Found, FpRule, FrameKind, FrameSource, LookupError,
    MemoryError, Module, ModuleMap, Options, Pc, Query, RaRule, Register, RegisterFile, Rule, SourceError,
    StepError, Trust, Unusable, UnwindError, UnwindUserFrame, UnwindUserType, Unwinder, WordSize,
};
use unwind_tests::ehabi::{Arm, Body, Elf, Made, Tables, folder};
use unwind_tests::reference::walk_by_library;
use unwind_tests::synthetic::{AnyArch, Memory, Registers};

const SP: Register = Register(13);
const LR: Register = Register(14);
const STACK: u64 = 0x8000_0000;

/// `_start`, a function with a frame of two words, one with a frame pointer in r7, a leaf.
fn tables(order: ByteOrder) -> Tables {
    Tables::new(order)
        .function(0x1_0000, Body::CannotUnwind)
        .function(0x1_0100, Body::Inline(vec![0xa8]))
        .function(0x1_0200, Body::Long(1, vec![0x97, 0x01, 0x84, 0x08]))
        .function(0x1_0300, Body::Inline(vec![]))
        .function(0x1_0400, Body::Generic(0x1_0501, vec![0x02, 0x84, 0x80]))
        .function(0x1_0500, Body::CannotUnwind)
}

fn stack(order: ByteOrder, words: &[u64]) -> Memory {
    let mut memory = Memory::new();
    for (address, word) in (STACK..).step_by(4).zip(words) {
        memory.put_word(address, *word, WordSize::Four, order);
    }
    memory
}

fn lookup(arch: &Arm, source: &EhabiSource<'_>, pc: Pc) -> Result<Option<Found>, LookupError> {
    source.lookup(arch, UnwindUserType::Ehabi, &Query::new(pc), &mut &Memory::new())
}

fn frame(found: Result<Option<Found>, LookupError>) -> UnwindUserFrame {
    match found.unwrap().unwrap().rule {
        Rule::Frame(frame) => frame,
        Rule::Evaluate => panic!("a rule without words"),
    }
}

fn broken(found: Result<Option<Found>, LookupError>) -> (Broken, u64) {
    match found {
        Err(LookupError::Broken(SourceError { broken, offset })) => (broken, offset),
        other => panic!("{other:?}"),
    }
}

fn cannot_unwind(pc: u64) -> End {
    let cause = StepError::CannotUnwind;
    End::Failed(UnwindError::new(cause, Pc::Return(pc), Some(UnwindUserType::Ehabi)))
}

/// The stack of a leaf in r7's function in a C++ function in an ordinary one in `_start`.
fn nested(order: ByteOrder) -> (Memory, Registers) {
    let memory = stack(
        order,
        &[
            // Space of the function at 0x1_0200, which it has taken at run time: its r7 is behind.
            0x71, 0x72, 0x73, 0x74, // Two words, r7 and lr.
            0x81, 0x82, 0x7777, 0x1_0411, // The function at 0x1_0400: three words, r11 and lr.
            0x91, 0x92, 0x93, 0xbbbb, 0x1_0109, // The function at 0x1_0100: r4 and lr.
            0x4444, 0x1_0009,
        ],
    );
    let values =
        [(SP, STACK), (LR, 0x1_0221), (Register(7), STACK + 16), (Register(11), 0), (Register(4), 4)];
    (memory, Registers::new(0x1_0308, values))
}

/// Three registers are not enough for a frame that rests on r7; every register is.
#[test]
fn a_walk_ends_where_nothing_can_be_unwound() {
    for order in [ByteOrder::Little, ByteOrder::Big] {
        let arch = Arm { order, fp: 11 };
        let built = tables(order).build();
        let (memory, registers) = nested(order);
        let unwinder = Unwinder::new(arch, built.source());
        let mut frames = unwinder.frames_tracking::<16, _>(&registers, &memory).unwrap();
        let found: Vec<_> =
            frames.by_ref().map(|frame| (frame.pc, frame.sp, frame.provenance.trust)).collect();
        assert_eq!(
            found,
            [
                (Pc::Exact(0x1_0308), STACK, Trust::Exact),
                (Pc::Return(0x1_0220), STACK, Trust::CallSite),
                (Pc::Return(0x1_0410), STACK + 32, Trust::Exact),
                (Pc::Return(0x1_0108), STACK + 52, Trust::Exact),
                (Pc::Return(0x1_0008), STACK + 60, Trust::Exact),
            ]
        );
        assert_eq!(frames.end(), Some(cannot_unwind(0x1_0008)));
        let state = frames.state();
        assert_eq!(state.fp(), Some(0xbbbb));
        let [r4, r7, lr] = [4, 7, 14].map(|number| state.registers().get(Register(number)));
        assert_eq!((r4, r7, lr), (Some(0x4444), Some(0x7777), None));

        let walk = walk_by_library(&unwinder, &registers, || &memory).unwrap();
        assert_eq!(walk.frames.len(), 2);
        let cause = StepError::UnknownRegister(Register(7));
        let pc = Pc::Return(0x1_0220);
        assert_eq!(walk.end, End::Failed(UnwindError::new(cause, pc, Some(UnwindUserType::Ehabi))));
        // Where r7 is the frame pointer, three registers are.
        let walk =
            walk_by_library(&Unwinder::new(Arm { order, fp: 7 }, built.source()), &registers, || &memory);
        assert_eq!(walk.unwrap().frames.len(), 5);
    }
}

/// What cannot be unwound is neither complete nor broken; the embedder may know better, or allow guesses.
#[test]
fn what_cannot_be_unwound_is_no_proof_of_an_end() {
    let built = tables(ByteOrder::Little).build();
    // A frame record: the AAPCS has r11 point to it.
    let memory = stack(ByteOrder::Little, &[STACK + 16, 0x1_0511, 0, 0, 0, 0]);
    let registers = Registers::new(0x1_0010, [(SP, STACK), (LR, 0x1_0511), (Register(11), STACK)]);
    let walk = |options: &Options| {
        let unwinder = Unwinder::with_options(Arm::LITTLE, built.source(), options.clone());
        walk_by_library(&unwinder, &registers, || &memory).unwrap()
    };
    let mut options = Options::default();
    let alone = walk(&options);
    assert_eq!(alone.frames.len(), 1);
    let error = |pc| UnwindError::new(StepError::CannotUnwind, pc, Some(UnwindUserType::Ehabi));
    assert_eq!(alone.end, End::Failed(error(Pc::Exact(0x1_0010))));
    assert!(!alone.end.is_complete());
    assert_eq!(
        alone.end.to_string(),
        "failed at pc 0x10010: its unwind information says that it cannot be unwound (ehabi)"
    );

    options.guesses = true;
    let guessed = walk(&options);
    assert_eq!(guessed.frames.len(), 2);
    let provenance = guessed.frames[1].provenance;
    assert_eq!(provenance.trust, Trust::Guess);
    assert_eq!(provenance.unusable, Some((UnwindUserType::Ehabi, Unusable::CannotUnwind)));
    // The next one cannot be unwound either. That the chain ends there is not reported: a guess said so.
    assert_eq!(guessed.end, End::Failed(error(Pc::Return(0x1_0510))));

    options.guesses = false;
    options.entry_function = Some(0x1_0000..0x1_0100);
    assert!(walk(&options).end.is_complete());
}

/// Row after row that cannot be unwound, and an instruction that refuses: one answer, at once.
#[test]
fn h24_consecutive_entries_that_cannot_be_unwound_terminate() {
    let mut tables = Tables::new(ByteOrder::Little);
    for number in 0..1000 {
        let body = if number % 2 == 0 { Body::CannotUnwind } else { Body::Inline(vec![0x80, 0x00]) };
        tables = tables.function(0x1_0000 + number * 4, body);
    }
    let built = tables.build();
    for address in (0x1_0001..0x1_0fa0).step_by(2) {
        let found = lookup(&Arm::LITTLE, &built.source(), Pc::Return(address));
        assert_eq!(found, Err(LookupError::CannotUnwind));
    }
    assert_eq!(built.sections().verify(), Ok(()));
}

/// A trampoline has no table: what covers it says that it cannot be unwound.
#[test]
fn a_trampoline_that_is_marked_like_other_code_without_tables() {
    let built = tables(ByteOrder::Little).build();
    let mut memory = stack(ByteOrder::Little, &[1, 2, 0x1_0301, STACK + 32, 0xf0, 6, 7, 8, 9]);
    memory.put(0x1_0510, &Arm::TRAMPOLINE);
    for start in [Pc::Exact(0x1_0510), Pc::Return(0x1_0510)] {
        let registers = match start {
            Pc::Exact(address) => Registers::new(address, [(SP, STACK), (LR, 0x1_0501)]),
            // A leaf that returns there.
            Pc::Return(address) => Registers::new(0x1_0308, [(SP, STACK), (LR, address)]),
        };
        let unwinder = Unwinder::new(Arm::LITTLE, built.source());
        let walk = walk_by_library(&unwinder, &registers, || &memory).unwrap();
        let index = if start.is_exact() { 1 } else { 2 };
        let interrupted = walk.frames[index];
        assert_eq!((interrupted.pc, interrupted.sp), (Pc::Exact(0x1_0300), STACK + 32));
        assert_eq!(interrupted.fp, Some(0xf0));
        assert_eq!(interrupted.provenance.source, Some(UnwindUserType::SignalTrampoline));
        assert!(interrupted.provenance.not_covered.contains(UnwindUserType::Ehabi));
    }
}

/// glibc describes its trampolines: everything is restored, and the pc is where the signal came.
#[test]
fn an_entry_that_restores_everything_is_a_signal_frame() {
    let elf = Elf::read(&folder().join("opcodes-arm.elf"));
    let (source, start) = (elf.source(), elf.function("every_register"));
    let rule = frame(lookup(&Arm::LITTLE, &source, Pc::Return(start + 4)));
    assert_eq!(rule.kind(), FrameKind::Signal);
    assert_eq!(rule.cfa(), CfaRule::Deref { base: Base::Sp, offset: 160 + 13 * 4, add: 0 });
    assert_eq!(rule.ra(), RaRule::AtRegister { base: Base::Sp, offset: 160 + 15 * 4 });
    assert_eq!(rule.fp(), FpRule::AtRegister { base: Base::Sp, offset: 160 + 11 * 4 });
    // At its first instruction too: nobody calls a trampoline.
    assert_eq!(frame(lookup(&Arm::LITTLE, &source, Pc::Exact(start))), rule);

    // The interrupted function is a leaf, on a stack far below.
    let interrupted = elf.function("nothing_saved");
    let mut words = vec![0; 40];
    words.extend((0..16).map(|number| 0xa0 + number));
    words[40 + 13] = STACK - 0x1000;
    words[40 + 14] = start | 1;
    words[40 + 15] = interrupted + 4;
    let memory = stack(ByteOrder::Little, &words);
    let registers = Registers::new(start + 4, [(SP, STACK), (Register(11), 1)]);
    let unwinder = Unwinder::new(Arm::LITTLE, source);
    let mut frames = unwinder.frames_tracking::<16, _>(&registers, &memory).unwrap();
    let found = frames.nth(1).unwrap();
    assert_eq!((found.pc, found.sp), (Pc::Exact(interrupted + 4), STACK - 0x1000));
    let state = frames.state();
    let known: Vec<_> = (0..15).map(|number| state.registers().get(Register(number))).collect();
    let expected: Vec<Option<u64>> = (0..11).map(|number| Some(0xa0 + number)).collect();
    assert_eq!(known[..11], expected);
    assert_eq!((known[12], known[14], state.fp()), (Some(0xac), Some(start | 1), Some(0xab)));
    // Its return address is in the link register again.
    assert_eq!(frames.next().unwrap().pc, Pc::Return(start));
}

/// Where nothing has run yet, the return address is in its register, whatever the table says of calls.
#[test]
fn h25_at_the_first_instruction_nothing_has_run() {
    let built = tables(ByteOrder::Little).build();
    let source = built.source();
    for start in [0x1_0100, 0x1_0200, 0x1_0300, 0x1_0400] {
        let found = lookup(&Arm::LITTLE, &source, Pc::Exact(start)).unwrap().unwrap();
        assert_eq!((found.rule, found.trust), (Rule::Frame(Arm::LITTLE.entry_rule()), Trust::CallSite));
        // Behind it the table is asked, and not to be relied upon.
        let found = lookup(&Arm::LITTLE, &source, Pc::Exact(start + 2)).unwrap().unwrap();
        let at_call = lookup(&Arm::LITTLE, &source, Pc::Return(start + 2)).unwrap().unwrap();
        assert_eq!((found.rule, found.trust), (at_call.rule, Trust::CallSite));
        assert_eq!(at_call.trust, Trust::Exact);
        assert_eq!(found.rule == Rule::Frame(Arm::LITTLE.entry_rule()), start == 0x1_0300);
    }
    assert_eq!(lookup(&Arm::LITTLE, &source, Pc::Exact(0x1_0000)), Err(LookupError::CannotUnwind));
}

/// The link register as a scratch register: what was popped into the program counter counts.
#[test]
fn h24_the_program_counter_before_the_link_register() {
    let bodies = [
        (vec![0x88, 0x00], RaRule::AtCfa(-4)),
        (vec![0x84, 0x00], RaRule::AtCfa(-4)),
        (vec![0x8c, 0x00], RaRule::AtCfa(-4)),
        (vec![0x84, 0x00, 0x01], RaRule::AtCfa(-12)),
        (vec![0x88, 0x00, 0x84, 0x00], RaRule::AtCfa(-8)),
        (vec![0x84, 0x00, 0x84, 0x00], RaRule::AtCfa(-4)),
        (vec![0x03], RaRule::InRegister { base: Base::Register(LR), offset: 0 }),
        (vec![0x9e, 0x03], RaRule::InRegister { base: Base::Register(LR), offset: 0 }),
    ];
    for (bytes, expected) in bodies {
        let built = Tables::new(ByteOrder::Little).function(0x1_0000, Body::Long(1, bytes.clone())).build();
        let rule = frame(lookup(&Arm::LITTLE, &built.source(), Pc::Return(0x1_0010)));
        assert_eq!(rule.ra(), expected, "{bytes:02x?}");
    }
}

/// Popping the stack pointer: it becomes what was popped when the instruction is over.
#[test]
fn h24_a_stack_pointer_that_is_popped() {
    // pop {r4, sp, lr}: as functions with -mapcs-frame do.
    let body = Body::Inline(vec![0x86, 0x01]);
    let built = Tables::new(ByteOrder::Little).function(0x1_0000, body).build();
    let rule = frame(lookup(&Arm::LITTLE, &built.source(), Pc::Return(0x1_0010)));
    assert_eq!(rule.cfa(), CfaRule::Deref { base: Base::Sp, offset: 4, add: 0 });
    assert_eq!(rule.ra(), RaRule::AtRegister { base: Base::Sp, offset: 8 });
    // What follows is relative to it.
    let body = Body::Long(1, vec![0x86, 0x01, 0x00, 0x84, 0x00]);
    let built = Tables::new(ByteOrder::Little).function(0x1_0000, body).build();
    let rule = frame(lookup(&Arm::LITTLE, &built.source(), Pc::Return(0x1_0010)));
    assert_eq!(rule.cfa(), CfaRule::Deref { base: Base::Sp, offset: 4, add: 8 });
    assert_eq!(rule.ra(), RaRule::AtCfa(-4));
}

/// The first, the last and beyond; tables of none and of one; two at one place.
#[test]
fn h24_the_limits_of_the_index() {
    let source_of = |tables: Tables| tables.build();
    let none = source_of(Tables::new(ByteOrder::Little));
    assert_eq!(lookup(&Arm::LITTLE, &none.source(), Pc::Exact(0x1_0000)), Ok(None));
    assert!(none.sections().is_empty());
    assert_eq!(none.sections().verify(), Ok(()));

    let one = source_of(Tables::new(ByteOrder::Little).function(0x1_0100, Body::Inline(vec![0xa8])));
    let at = |built: &unwind_tests::ehabi::Built, pc| {
        lookup(&Arm::LITTLE, &built.source(), pc).map(|found| found.is_some())
    };
    for (pc, covered) in [
        (Pc::Exact(0), false),
        (Pc::Exact(0x1_00ff), false),
        (Pc::Return(0x1_0100), false),
        (Pc::Exact(0x1_0100), true),
        (Pc::Return(0x1_0101), true),
        // The last entry reaches to the end of the code.
        (Pc::Exact(0x1_ffff), true),
        (Pc::Return(0x2_0000), true),
        (Pc::Exact(0x2_0000), false),
        (Pc::Exact(0xffff_ffff), false),
    ] {
        assert_eq!(at(&one, pc), Ok(covered), "{pc:x?}");
    }
    let last = lookup(&Arm::LITTLE, &one.source(), Pc::Return(0x2_0000)).unwrap().unwrap();
    assert!(last.is_at_end);

    // Of two that begin at one place, the first is empty.
    let two = source_of(
        Tables::new(ByteOrder::Little)
            .function(0x1_0100, Body::CannotUnwind)
            .function(0x1_0100, Body::Inline(vec![0xa8]))
            .function(0x1_0200, Body::CannotUnwind),
    );
    assert_eq!(at(&two, Pc::Exact(0x1_0100)), Ok(true));
    assert_eq!(two.sections().verify(), Ok(()));

    // A Thumb bit in the index.
    let thumb = source_of(Tables::new(ByteOrder::Little).function(0x1_0101, Body::Inline(vec![0xa8])));
    assert_eq!(at(&thumb, Pc::Exact(0x1_0100)), Ok(true));
    assert_eq!(at(&thumb, Pc::Exact(0x1_00ff)), Ok(false));

    // A piece of an entry at the end.
    let whole = one.sections();
    let bytes = [one.exidx.as_slice(), &[0; 7]].concat();
    let mut longer = whole;
    longer.exidx.data = &bytes;
    assert_eq!(longer.len(), 1);
    assert_eq!(longer.verify(), Err(SourceError { broken: Broken::UnexpectedEnd, offset: 8 }));
}

/// Offsets of 31 bits reach half of the address space in either direction, and wrap.
#[test]
fn h24_tables_far_from_the_code() {
    for (exidx, extab, text) in [
        (0xffff_fff0_u32, 0x1000, 0x1_0000_u32),
        (0x1000, 0xffff_fff8, 0xffff_0000),
        (0x4000_f000, 0x8000_0000, 0x1_0000),
        (0, 0x4000_0000, 0x3fff_fff8),
        (0xffff_fff8, 0xbfff_ffff & !3, 0xffff_0000),
    ] {
        let mut tables = Tables::new(ByteOrder::Big)
            .function(text, Body::Long(1, vec![0xb2, 0x00, 0xaf]))
            .function(text.wrapping_add(0x100), Body::CannotUnwind);
        tables.exidx_svma = exidx;
        tables.extab_svma = extab;
        tables.text_start = text.into();
        tables.text_end = u64::from(text) + 0x200;
        let built = tables.build();
        let rule = frame(lookup(&Arm::BIG, &built.source(), Pc::Return(u64::from(text) + 0x100)));
        assert_eq!(rule.cfa(), CfaRule::Offset { base: Base::Sp, offset: 0x204 + 36 });
        assert_eq!((rule.ra(), rule.fp()), (RaRule::AtCfa(-4), FpRule::AtCfa(-8)));
        assert_eq!(built.sections().verify(), Ok(()), "{exidx:#x}");
    }
}

/// Loaded elsewhere: below where the file says, and over the end of the address space.
#[test]
fn biases() {
    let built = tables(ByteOrder::Little).build();
    for bias in [0, 0x7fff_0000, 0xffff_8000_u64, 0xffff_ffff_ffff_8000] {
        let start = 0x1_0000_u64.wrapping_add(bias) & 0xffff_ffff;
        let modules = [Module { start, end: start + 0x600, bias, source: built.source() }];
        let map = ModuleMap::new(&Arm::LITTLE, &modules).unwrap();
        let memory = stack(ByteOrder::Little, &[0x4444, start + 9]);
        let registers = Registers::new(start + 0x308, [(SP, STACK), (LR, start + 0x111)]);
        let walk = walk_by_library(&Unwinder::new(Arm::LITTLE, map), &registers, || &memory).unwrap();
        let pcs: Vec<u64> = walk.frames.iter().map(|frame| frame.pc.address()).collect();
        assert_eq!(pcs, [start + 0x308, start + 0x110, start + 8]);
        assert_eq!(walk.end, cannot_unwind(start + 8));
    }
}

/// What makes no sense is an error that says where, never a rule.
#[test]
fn h24_tables_that_make_no_sense() {
    let cases = [
        (Body::Second(0x8300_0000), Broken::UnknownPersonality),
        (Body::Second(0x8f00_0000), Broken::UnknownPersonality),
        (Body::Second(0x9000_0000), Broken::UnknownPersonality),
        (Body::Second(0xffff_ffff), Broken::UnknownPersonality),
        // Further words, of which the index has none.
        (Body::Second(0x8101_b0b0), Broken::OutOfBounds),
        // Outside of `.ARM.extab`, and astride.
        (Body::Second(0x0000_0100), Broken::OutOfBounds),
        (Body::Second(0x7fff_0002), Broken::Malformed),
        (Body::Words(vec![]), Broken::OutOfBounds),
        (Body::Words(vec![0x8102_b0b0, 0]), Broken::OutOfBounds),
        (Body::Words(vec![0x82ff_b0b0, 0]), Broken::OutOfBounds),
        (Body::Words(vec![0x8400_0000]), Broken::UnknownPersonality),
        // A personality routine without anything behind it, and with too little.
        (Body::Words(vec![0x0000_1000]), Broken::OutOfBounds),
        (Body::Words(vec![0x0000_1000, 0x0200_0000, 0]), Broken::OutOfBounds),
        (Body::Inline(vec![0xff]), Broken::UnknownInstruction),
        (Body::Inline(vec![0xb0, 0xb0, 0x80]), Broken::Malformed),
        (Body::Inline(vec![0x00, 0x00, 0x80]), Broken::UnexpectedEnd),
        (Body::Inline(vec![0x00, 0xb2, 0x80]), Broken::UnexpectedEnd),
    ];
    for (body, expected) in cases {
        let built = Tables::new(ByteOrder::Little)
            .function(0x1_0000, Body::CannotUnwind)
            .function(0x1_0100, body.clone())
            .build();
        let found = lookup(&Arm::LITTLE, &built.source(), Pc::Return(0x1_0110));
        if matches!(&body, Body::Inline(bytes) if bytes[0] == 0xb0) {
            // Behind the end anything may stand.
            assert!(found.is_ok());
            continue;
        }
        assert_eq!(broken(found), (expected, 8), "{body:x?}");
        assert_eq!(built.sections().verify(), Err(SourceError { broken: expected, offset: 8 }), "{body:x?}");
        // Its neighbour is as good as ever.
        assert_eq!(
            lookup(&Arm::LITTLE, &built.source(), Pc::Exact(0x1_0010)),
            Err(LookupError::CannotUnwind)
        );
    }
    // No `.ARM.extab` at all.
    let built = Tables::new(ByteOrder::Little).function(0x1_0000, Body::Short(vec![0xa8])).build();
    let sections = EhabiSections { extab: None, ..built.sections() };
    let found = lookup(&Arm::LITTLE, &EhabiSource::new(sections), Pc::Return(0x1_0010));
    assert_eq!(broken(found), (Broken::OutOfBounds, 0));
}

/// An index that is not sorted says nowhere where an entry ends.
#[test]
fn an_index_that_is_not_sorted() {
    let mut tables = Tables::new(ByteOrder::Little);
    for number in [0, 1, 2, 9, 4, 5, 6, 7] {
        tables = tables.function(0x1_0000 + number * 0x100, Body::Inline(vec![0xa8]));
    }
    let built = tables.build();
    assert_eq!(built.sections().verify(), Err(SourceError { broken: Broken::BadIndex, offset: 32 }));
    let found: Vec<_> = (0..10)
        .map(|number| lookup(&Arm::LITTLE, &built.source(), Pc::Return(0x1_0010 + number * 0x100)))
        .collect();
    assert!(found.iter().any(|found| matches!(found, Err(LookupError::Broken(_)))));
    for found in found {
        assert!(matches!(found, Ok(Some(_))) || broken(found) == (Broken::BadIndex, 24), "{found:?}");
    }
}

/// Of personality routines that are not known, the layout is not known either.
#[test]
fn personality_routines_that_the_embedder_does_not_list() {
    let built = tables(ByteOrder::Little).build();
    let mut sections = built.sections();
    let pc = Pc::Return(0x1_0410);
    for (list, is_known) in [(None, true), (Some(&[0x1_0500_u64][..]), true), (Some(&[0x1_0502]), false)] {
        sections.personalities = list;
        let found = lookup(&Arm::LITTLE, &EhabiSource::new(sections), pc);
        if is_known {
            assert!(found.unwrap().is_some());
        } else {
            assert_eq!(broken(found), (Broken::UnknownPersonality, 32));
        }
    }
}

/// Tables of 32-bit Arm, asked on behalf of something else.
#[test]
fn another_target() {
    let built = tables(ByteOrder::Little).build();
    let source = built.source();
    assert_eq!(broken(lookup(&Arm::BIG, &source, Pc::Exact(0x1_0308))), (Broken::UnknownAbi, 0));
    let memory = Memory::new();
    let others = AnyArch::all()
        .into_iter()
        .filter(|arch| (arch.word_size(), arch.byte_order()) != (WordSize::Four, ByteOrder::Little));
    for arch in others {
        let query = Query::new(Pc::Exact(0x1_0308));
        let found = source.lookup(&arch, UnwindUserType::Ehabi, &query, &mut &memory);
        assert_eq!(broken(found), (Broken::UnknownAbi, 0));
    }
    // Another kind of table.
    let query = Query::new(Pc::Exact(0x1_0308));
    assert_eq!(source.lookup(&Arm::LITTLE, UnwindUserType::Dwarf, &query, &mut &memory), Ok(None));
    let made = Made { seed: 0, order: ByteOrder::Little };
    let mut caller = Registers::default();
    let found =
        source.evaluate(&Arm::LITTLE, UnwindUserType::Dwarf, &query, &made, &mut &memory, &mut caller);
    assert_eq!(found, Ok(None));
}

/// A saved register that cannot be read is unknown; a return address that cannot be read is where the
/// walk is cut.
#[test]
fn stacks_that_are_cut() {
    let built = tables(ByteOrder::Little).build();
    let (whole, registers) = nested(ByteOrder::Little);
    let unwinder = Unwinder::new(Arm::LITTLE, built.source());
    for words in 0..15u64 {
        let mut memory = whole.clone();
        memory.remove(STACK + words * 4, 64);
        let mut frames = unwinder.frames_tracking::<16, _>(&registers, &memory).unwrap();
        let count = frames.by_ref().count();
        let (expected, at) = match words {
            0..8 => (2, 7),
            8..13 => (3, 12),
            _ => (4, 14),
        };
        assert_eq!(count, expected, "{words} words");
        let address = STACK + at * 4;
        assert_eq!(frames.end(), Some(End::Truncated(Cut::Memory(MemoryError::Unreadable { address }))));
    }
    // r4 alone is missing: the return address above it is there.
    let mut memory = whole.clone();
    memory.remove(STACK + 13 * 4, 4);
    let mut frames = unwinder.frames_tracking::<16, _>(&registers, &memory).unwrap();
    assert_eq!(frames.by_ref().count(), 5);
    assert_eq!(frames.state().registers().get(Register(4)), None);

    // Where the target is out of reach, nothing is known at all.
    let lost = MemoryError::Transport { code: 5 };
    let memory = unwind_core::from_fn(|address, into: &mut [u8]| match address {
        address if address == STACK + 13 * 4 => Err(lost),
        address => unwind_core::MemoryReader::read(&mut &whole, address, into),
    });
    let mut frames = unwinder.frames_tracking::<16, _>(&registers, memory).unwrap();
    assert_eq!(frames.by_ref().count(), 4);
    assert_eq!(frames.end(), Some(End::Truncated(Cut::Memory(lost))));
}
