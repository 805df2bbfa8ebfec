//! How much one step reads of the target's memory, counted, for sources, registers and memory of any kind.
//!
//! The constants are those of `unwind-core`'s documentation ("Bounds"), taken apart. A table can make a step read
//! more than usual, but no table, whatever it says, can make it read more than this.

use unwind_core::dwarf::{DwarfSections, DwarfSource, Section};
use unwind_core::ehabi::EhabiSource;
use unwind_core::table::{Table, TableRoom, TableRule, TableSlot, TableSource, TableWriter};
use unwind_core::{
    Arch, ByteOrder, End, FrameSource, MemoryError, MemoryReader, Options, Pc, Query, Register, RegisterSet,
    UnwindUserFrame, UnwindUserState, UnwindUserType, UnwindUserTypes, Unwinder, UserRegisters, WordSize,
};
use unwind_tests::ehabi::{Body, Tables};
use unwind_tests::synthetic::cfi::{
    CfiSection, Cie, Expression, Fde, Flavor, Header, Program, encoding, return_address_column,
};
use unwind_tests::synthetic::chaos::{ChaosMemory, ChaosSource, mix};
use unwind_tests::synthetic::{AnyArch, Registers};

/// Looking at the code around a pc: five reads on each side, each half as long as the one before.
const WINDOW: usize = 10;
/// What is looked at in one step beside tables: once at the entry function; with what a source said, for a
/// trampoline and for an instruction, for each of five kinds of source; then for these two themselves, and for
/// the registers that a trampoline's frame holds.
const WINDOWS: usize = 1 + 2 * 5 + 3;
/// A rule: the word behind a CFA, the return address, the frame pointer. A chain looks at its link before.
const RULE: usize = 4;
/// Kinds of source whose rules are tried. Each may fail behind its reads, and a lesser one be a guess.
const KINDS: usize = 10;
/// ip, sp, fp and one register more, and those that are tracked.
const fn signal_frame(tracked: usize) -> usize {
    4 + tracked
}
/// A step by rules of whatever sources, beyond what the sources themselves read.
const fn step(tracked: usize) -> usize {
    WINDOWS * WINDOW + KINDS * RULE + signal_frame(tracked)
}
/// One read by every operation, and one of the word that the expression leads to.
const EXPRESSION: usize = 512 + 1;
/// A rule of call frame information in full: CFA, return address, frame pointer, sp, link register, and those
/// that are tracked.
const fn call_frame_information(tracked: usize) -> usize {
    (5 + tracked) * EXPRESSION
}
/// One read by every instruction of ARM's tables, for a stack pointer that is popped or taken from a popped register;
/// then each core register once.
const EXCEPTION_TABLE: usize = 1023 + 16;

/// How many registers are tracked here.
const TRACKED: usize = 96;

/// Counts reads.
struct Counting<M> {
    inner: M,
    reads: usize,
}

impl<M: MemoryReader> MemoryReader for Counting<M> {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        self.reads += 1;
        self.inner.read(address, into)
    }
}

/// The most reads of one step of a walk, and how many steps it took.
fn most_reads<A: Arch, S: FrameSource<A>, R: RegisterSet>(
    unwinder: &Unwinder<A, S>,
    mut state: UnwindUserState<R>,
    memory: impl MemoryReader,
) -> (usize, u32, End) {
    let mut memory = Counting { inner: memory, reads: 0 };
    let (mut most, mut steps) = (0, 0);
    loop {
        memory.reads = 0;
        let next = unwinder.next(&mut state, &mut memory);
        most = most.max(memory.reads);
        match next {
            Ok(_) => steps += 1,
            Err(end) => return (most, steps, end),
        }
    }
}

/// The most reads of a step that tracks nothing, and of one that tracks.
fn both<A: Arch, S: FrameSource<A>>(
    unwinder: &Unwinder<A, S>,
    registers: &dyn UserRegisters,
    memory: impl MemoryReader + Copy,
) -> (usize, usize) {
    let limit = unwinder.options().max_frames;
    let plain = most_reads(unwinder, unwinder.start(registers).expect("ip and sp"), memory);
    let tracking = unwinder.start_tracking::<TRACKED>(registers).expect("ip and sp");
    let tracking = most_reads(unwinder, tracking, memory);
    assert!(plain.1 < limit && tracking.1 < limit, "more steps than allowed");
    (plain.0, tracking.0)
}

fn options(seed: u64) -> Options {
    let mut options = Options::default();
    options.max_frames = 64;
    options.guesses = seed & 1 == 0;
    if seed & 6 == 0 {
        options.entry_function = Some(0..seed);
    }
    options
}

/// Rules of any kind and any nonsense, in memory with holes: whatever the sources say, and change their minds
/// about.
#[test]
fn any_rules() {
    let (mut plain, mut tracking) = (0, 0);
    for arch in AnyArch::all() {
        for turn in 0..800u64 {
            let seed = mix(turn);
            let [signals, nonsense, holes, spread, ..] = seed.to_le_bytes().map(|byte| u64::from(byte % 9));
            let source = ChaosSource::new(seed, turn % 3 == 0, signals, nonsense, UnwindUserTypes::ALL);
            let word = (arch.word_size(), arch.byte_order());
            let memory = ChaosMemory { seed, holes, nonsense, spread, word };
            let sp = 0x1_0000 + 8 * (seed % 64);
            let registers = Registers::new(seed, [(arch.sp(), sp), (arch.fp(), sp + 16), (arch.ra(), seed)]);
            let unwinder = Unwinder::with_options(arch, &source, options(seed));
            let found = both(&unwinder, &registers, memory);
            (plain, tracking) = (plain.max(found.0), tracking.max(found.1));
        }
    }
    report("any rules", (plain, tracking), (step(0), step(TRACKED)));
}

/// No source, and code that can be read in pieces only, or trampolines everywhere.
#[test]
fn conventions() {
    let (mut plain, mut tracking) = (0, 0);
    for arch in AnyArch::all() {
        let trampoline = arch.trampoline_code();
        for holes in [1, 2, 3, 5, 16, 1000] {
            for pc in [0x10_0000u64, 0x10_0001, 0x10_0007, 0, arch.word_size().max_address() - 3] {
                let memory = Code { code: &trampoline, at: pc, holes };
                let registers = Registers::new(pc, [(arch.sp(), 0x20_0000), (arch.fp(), 0x20_0010)]);
                let unwinder = Unwinder::with_options(arch, (), options(pc));
                let found = both(&unwinder, &registers, memory);
                (plain, tracking) = (plain.max(found.0), tracking.max(found.1));
            }
        }
    }
    report("conventions", (plain, tracking), (step(0), step(TRACKED)));
}

/// A trampoline at a place, and repeated behind it; in between bytes that are missing.
#[derive(Clone, Copy)]
struct Code<'c> {
    code: &'c [u8],
    at: u64,
    holes: u64,
}

impl MemoryReader for Code<'_> {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        for (offset, byte) in (0u64..).zip(into) {
            let at = address.wrapping_add(offset);
            if (at.wrapping_sub(self.at).wrapping_add(1)).is_multiple_of(self.holes.max(2) * 7) {
                return Err(MemoryError::Unreadable { address: at });
            }
            let index = at.wrapping_sub(self.at) % self.code.len().max(1) as u64;
            *byte = self.code.get(index as usize).copied().unwrap_or(0);
        }
        Ok(())
    }
}

/// Every word is its own address: whoever follows pointers never comes to an end.
#[derive(Clone, Copy)]
struct Endless(WordSize, ByteOrder);

impl MemoryReader for Endless {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let size = usize::from(self.0.bytes());
        let mut bytes = address.to_le_bytes();
        if self.1 == ByteOrder::Big {
            bytes[..size].reverse();
        }
        into.fill(0);
        into.iter_mut().zip(&bytes[..size]).for_each(|(into, byte)| *into = *byte);
        Ok(())
    }
}

/// Expressions for everything, which read with every operation and go round in circles.
#[test]
fn hostile_expressions() {
    let (mut plain, mut tracking) = (0, 0);
    for arch in AnyArch::real() {
        let (word, order) = (arch.word_size(), arch.byte_order());
        let endless = || {
            let reads = Expression::new(word, order).breg(arch.sp(), 0);
            (0..510).fold(reads, |expression, _| expression.deref())
        };
        let circle = || {
            let jump = match order {
                ByteOrder::Little => (-5i16).to_le_bytes(),
                ByteOrder::Big => (-5i16).to_be_bytes(),
            };
            Expression::new(word, order).breg(arch.sp(), 0).deref().deref().op(0x2f).raw(&jump)
        };
        let ra = return_address_column(&arch, true);
        for is_endless in [true, false] {
            let expression: &dyn Fn() -> Expression = if is_endless { &endless } else { &circle };
            let mut program = Program::new(word, order, 1, -8);
            program.cfa_expression(expression());
            for number in (0..TRACKED as u16).map(Register).chain([ra]) {
                // DW_CFA_expression
                program.with_expression(0x10, number, expression());
            }
            let section =
                section(&arch, encoding::PCREL | 0x0b, [(0x1000, 0x100)].into_iter(), program.into_bytes());
            let eh_frame = Some(Section { data: &section.bytes.data, svma: section.svma });
            let source = DwarfSource::new(DwarfSections { eh_frame, ..DwarfSections::default() });
            let registers = Registers::new(0x1010, [(arch.sp(), 0x20_0000), (arch.fp(), 0x20_0010)]);
            let unwinder = Unwinder::with_options(arch, source, options(0));
            let found = both(&unwinder, &registers, Endless(word, order));
            (plain, tracking) = (plain.max(found.0), tracking.max(found.1));
            assert!(
                !is_endless || found.0 > 2 * 510,
                "{arch:?}: the expressions are not even evaluated: {found:?}"
            );
        }
    }
    let most = |tracked| step(tracked) + call_frame_information(tracked);
    report("hostile expressions", (plain, tracking), (most(0), most(TRACKED)));
}

/// A section with one CIE and these functions.
fn section(
    arch: &AnyArch,
    pointer_encoding: u8,
    functions: impl Iterator<Item = (u64, u64)>,
    instructions: Vec<u8>,
) -> CfiSection {
    let mut section = CfiSection::new(Flavor::EhFrame, arch.word_size(), arch.byte_order(), 0x8000);
    section.got_svma = 0x6000;
    let ra = return_address_column(arch, true);
    let cie = Cie { pointer_encoding, ..Cie::usual(ra, Vec::new()) };
    let offset = section.cie(&cie);
    for (start, length) in functions {
        let fde = Fde { start, length, instructions: instructions.clone() };
        section.fde(offset, &cie, &fde).expect("it fits");
    }
    section.terminator();
    section
}

/// Pointers that are stored in the target's memory, one for each function. With a search table a step reads those that it
/// comes to; without it a scan reads all of them: no more than there are.
#[test]
fn indirect_pointers() {
    const FUNCTIONS: u64 = 500;
    let arch = AnyArch::X86_64(unwind_arch_x86_64::X86_64);
    let section = section(
        &arch,
        encoding::INDIRECT | encoding::PCREL | 0x0b,
        (0..FUNCTIONS).map(|number| (0x10_0000 + number * 16, 16)),
        Vec::new(),
    );
    let eh_frame = Some(Section { data: &section.bytes.data, svma: section.svma });
    let sections = DwarfSections { eh_frame, ..DwarfSections::default() };
    let registers = Registers::new(0x50_0000, [(arch.sp(), 0x20_0000), (arch.fp(), 0x20_0010)]);
    let unwinder = Unwinder::with_options(arch, DwarfSource::new(sections), options(0));
    let found = both(&unwinder, &registers, Endless(arch.word_size(), arch.byte_order()));
    let most = step(0) + 2 * FUNCTIONS as usize;
    report("indirect pointers, scanned", found, (most, most + TRACKED));
    // Every entry leads to the one function that is not there.
    let entries = (0..FUNCTIONS).map(|number| (0x10_0000 + number * 16, section.svma)).collect();
    let header = Header::usual(0x7000, entries).write(arch.word_size(), arch.byte_order(), section.svma);
    let header = header.expect("it fits");
    let eh_frame_hdr = Some(Section { data: &header, svma: 0x7000 });
    let source = DwarfSource::new(DwarfSections { eh_frame_hdr, ..sections });
    let unwinder = Unwinder::with_options(arch, source, options(0));
    let found = both(&unwinder, &registers, Endless(arch.word_size(), arch.byte_order()));
    report("indirect pointers, searched", found, (most, most + TRACKED));
}

/// Every entry of a section claims that its CIE is where the padding begins. A scan goes over the padding once; once
/// for each entry would be more than ten thousand million steps.
#[test]
fn padding_is_passed_over_once() {
    const ENTRIES: u32 = 10_000;
    let mut data = Vec::new();
    for _ in 0..ENTRIES {
        data.extend([12u32, ENTRIES * 16, 0x1000, 0x100].map(u32::to_le_bytes).concat());
    }
    data.resize(data.len() + (4 << 20), 0);
    let arch = AnyArch::all().into_iter().find(|arch| matches!(arch, AnyArch::X86(_))).expect("x86");
    let debug_frame = Some(Section { data: &data, svma: 0 });
    let source = DwarfSource::new(DwarfSections { debug_frame, ..DwarfSections::default() });
    let started = std::time::Instant::now();
    let query = Query::new(Pc::Exact(0x1010));
    let memory = &mut Endless(WordSize::Four, ByteOrder::Little);
    let found = source.lookup(&arch, UnwindUserType::Dwarf, &query, memory);
    assert!(found.is_err(), "{found:?}");
    let elapsed = started.elapsed();
    println!("a scan over {ENTRIES} entries and 4 MB of padding: {elapsed:?}");
    assert!(elapsed.as_secs() < 10, "{elapsed:?}");
}

/// As many registers as instructions can pop.
#[test]
fn hostile_exception_tables() {
    let arch = unwind_arch::arm::Arm::default();
    let (mut plain, mut tracking) = (0, 0);
    // Pop r4 to r11 and lr; pop r4 to r15; pop r0 to r3; pop r4, and take it for the stack pointer.
    let all = [
        vec![0xaf; 1000],
        [0x8f, 0xff].repeat(500),
        [0xb1, 0x0f].repeat(500),
        [vec![0xa0], vec![0x94; 999]].concat(),
    ];
    for instructions in all {
        let built = Tables::new(ByteOrder::Little).function(0x1_0000, Body::Long(1, instructions)).build();
        let source: EhabiSource<'_> = built.source();
        let registers = Registers::new(0x1_0010, [(arch.sp(), 0x20_0000), (arch.fp(), 0x20_0010)]);
        let unwinder = Unwinder::with_options(arch, source, options(0));
        let found = both(&unwinder, &registers, Endless(WordSize::Four, ByteOrder::Little));
        (plain, tracking) = (plain.max(found.0), tracking.max(found.1));
    }
    assert!(tracking > 900, "the instructions are not even carried out: {tracking}");
    let most = |tracked| step(tracked) + EXCEPTION_TABLE;
    report("hostile exception tables", (plain, tracking), (most(0), most(TRACKED)));
}

/// Compiled tables are not in the target: to look into one reads nothing of it, damaged or not.
#[test]
fn compiled_tables() {
    let (mut bytes, mut rules) = ([0; 4096], [TableSlot::default(); 64]);
    let room = TableRoom { bytes: &mut bytes, rules: &mut rules };
    let mut writer = TableWriter::new(0x1000..0x3000, room).expect("room");
    for start in (0x1000..0x3000).step_by(64) {
        let rows =
            [0, 1, 4].map(|at| (at, TableRule::exact(UnwindUserFrame::plain(at == 4, 16, -8, Some(-16)))));
        writer.function(start, 50, rows).expect("in order");
    }
    let sound = writer.finish().expect("room").to_vec();
    let (mut damaged, mut broken) = (0, 0);
    for seed in 0..4000u64 {
        let mut bytes = sound.clone();
        let random = mix(seed);
        let at = 32 + (random >> 8) as usize % (bytes.len() - 32);
        bytes[at] = random as u8;
        let Ok(table) = Table::parse(&bytes) else { continue };
        damaged += 1;
        let source = TableSource { table, original: () };
        let mut memory = Counting { inner: Endless(WordSize::Eight, ByteOrder::Little), reads: 0 };
        for address in (0xf00..0x3100).step_by(37) {
            let query = Query::new(Pc::Exact(address));
            let found =
                source.lookup(&unwind_arch_x86_64::X86_64, UnwindUserType::Table, &query, &mut memory);
            broken += usize::from(found.is_err());
        }
        assert_eq!(memory.reads, 0);
    }
    println!("{damaged} damaged tables, {broken} lookups in them failed");
    assert!(damaged > 1000 && broken > 0);
}

/// Prints the figures and checks them: plain and tracking.
fn report(what: &str, found: (usize, usize), most: (usize, usize)) {
    println!(
        "{what}: at most {} reads by a step, {} by one that tracks {TRACKED} registers; allowed {} and {}",
        found.0, found.1, most.0, most.1
    );
    assert!(found.0 <= most.0, "{what}: {} reads", found.0);
    assert!(found.1 <= most.1, "{what}: {} reads by a step that tracks", found.1);
}
