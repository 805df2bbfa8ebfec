//! Reaches the entry points of core, of every architecture and of the memory readers, with values
//! that the compiler cannot know. `check` then looks at what was linked.

#![no_std]
#![no_main]

use core::fmt::Write;
use core::hint::black_box;

use unwind_arch::{AnyArch, AnyRegisters};
use unwind_core::deferred::{
    ClientSlot, Cookie, CpuCounter, Deferred, Embedder, NotQueued, Return, Stitched, Stitcher, TaskState,
    Trace, TraceCache,
};
use unwind_core::dwarf::{DwarfIndex, DwarfIndexEntry, DwarfSections, DwarfSource, Flavor, Section};
use unwind_core::ehabi::{self, EhabiSections, EhabiSource, Unwinding};
use unwind_core::sframe::{Check, RegistrySlot, SFrameIndex, SFrameIndexEntry, SFrameRegistry, SFrameSource};
use unwind_core::table::{
    LazyPage, LazyRoom, LazyRow, LazyRule, Table, TableCompiler, TableOrigin, TableRoom, TableSlot,
    TableSource,
};
use unwind_core::{
    Arch, ByteOrder, CacheSlot, Cached, FrameSource, MemoryError, MemoryReader, Module, ModuleMap, Options,
    Register, RegisterFile, RuleCache, StartError, UnwindStacktrace, UnwindUserTypes, Unwinder,
    UserRegisters, WordSize, from_fn,
};

/// Never called: `check` fails if it is linked.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The compiled core library names it, for a panic strategy that is not used here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[unsafe(no_mangle)]
extern "C" fn main(arguments: i32) -> i32 {
    let bytes = [black_box(0u8); 512];
    let bytes = black_box(&bytes[..]);
    let words = [black_box(0u64); 64];
    let words = black_box(&words[..]);
    let mut frames = 0usize;
    for (machine, class, data) in [(62, 2, 1), (183, 2, 2), (40, 1, 1)] {
        if let Some(arch) = AnyArch::from_elf(black_box(machine), black_box(class), black_box(data)) {
            frames = frames.wrapping_add(walks(arch, bytes, words));
            frames = frames.wrapping_add(layouts(arch, bytes));
        }
    }
    frames = frames.wrapping_add(walks(unwind_arch::x86_64::X86_64, bytes, words));
    frames = frames.wrapping_add(walks(unwind_arch::aarch64::Aarch64::default(), bytes, words));
    frames = frames.wrapping_add(walks(unwind_arch::arm::Arm::default(), bytes, words));
    frames = frames.wrapping_add(exception_tables(bytes));
    frames = frames.wrapping_add(own_stack());
    frames = frames.wrapping_add(deferred(words));
    i32::from(frames == 0).wrapping_add(arguments.wrapping_sub(arguments))
}

/// Walks by every kind of source and every way in.
fn walks<A: Arch>(arch: A, bytes: &[u8], words: &[u64]) -> usize {
    let section = Section { data: bytes, svma: black_box(0x1000) };
    let sections = DwarfSections {
        eh_frame: Some(section),
        eh_frame_hdr: Some(Section { data: black_box(bytes), svma: black_box(0x2000) }),
        debug_frame: Some(section),
        text_svma: Some(black_box(1)),
        got_svma: Some(black_box(2)),
        ..DwarfSections::default()
    };
    let mut room = [DwarfIndexEntry::default(); 64];
    let needed = DwarfIndex::room(&arch, &sections, Flavor::EhFrame).unwrap_or(0);
    let debug_frame_index = DwarfIndex::build(&arch, &sections, Flavor::DebugFrame, &mut room).ok();
    let dwarf = DwarfSource::new(DwarfSections { debug_frame_index, ..sections });
    let verified = dwarf.verify_hdr(&arch).is_ok();

    let (mut table, mut rules) = ([0; 512], [TableSlot::default(); 16]);
    let room = TableRoom { bytes: black_box(&mut table), rules: black_box(&mut rules) };
    let text = black_box(0x1000)..black_box(0x2000);
    let table = TableCompiler::new(arch, dwarf, text, room)
        .ok()
        .and_then(|mut compiler| compiler.advance(black_box(3)).and_then(|_| compiler.finish()).ok())
        .and_then(|_| Table::parse(bytes).ok());
    let table = table.map(|table| TableSource { table, original: () });

    let mut room = [SFrameIndexEntry::default(); 64];
    let mut sframe = SFrameSource::new(bytes, black_box(3));
    let mut sound = 0usize;
    for section in sframe.sections().flatten() {
        sound = sound.wrapping_add(usize::from(section.validate().is_ok()));
        for fde in section.fdes().flatten() {
            sound = section
                .rows(&fde)
                .flatten()
                .fold(sound, |sound, row| sound.wrapping_add(usize::from(row.is_mangled)));
        }
    }
    if let Some(Ok(section)) = sframe.sections().next()
        && let Ok(Some(index)) = SFrameIndex::build(&section, &mut room)
    {
        sframe = sframe.with_index(index);
    }
    let slots: [RegistrySlot; 4] = Default::default();
    let list = [(black_box(5), bytes)];
    let registry = SFrameRegistry::new(slots, list.as_slice());
    let added = registry.add(&[black_box(7)..black_box(9)], 5, black_box(4), Check::Full).is_ok();

    let modules = [Module {
        start: black_box(1),
        end: black_box(100),
        bias: 7,
        source: (table, (Some(dwarf), Some(sframe))),
    }];
    let Ok(map) = ModuleMap::new(&arch, &modules) else { return 0 };
    let mut options = Options::default();
    options.guesses = black_box(true);
    options.types = black_box(UnwindUserTypes::ALL);
    let ehabi = EhabiSource::new(exception_sections(bytes));
    let (mut pages, mut rows, mut page_rules) = lazy_room();
    let room = LazyRoom::new(&mut pages, &mut rows, &mut page_rules);
    let text = || black_box(1)..black_box(0x2000);
    let lazy = (room.table(dwarf, text()), (room.table(sframe, text()), room.table(ehabi, text())));
    let compiled = compiled(arch, sframe, words).wrapping_add(compiled(arch, ehabi, words));
    let slots = [const { CacheSlot::new() }; 8];
    let map = Cached { cache: RuleCache::new(&slots), generation: black_box(1), source: map.complete() };
    let unwinder = Unwinder::with_options(arch, ((map, registry), (ehabi, lazy)), options);
    let registers = Numbers(words);
    let mut entries = [0u64; 32];
    let mut text = Sink(0);
    let trace = unwinder.unwind_user(&registers, memory(), black_box(&mut entries));
    if let Ok(trace) = &trace {
        let _ = write!(text, "{}", trace.end);
    }
    let depth = unwinder.depth(&registers, memory()).map_or(0, |(depth, _)| depth);
    if let Ok(frames) = unwinder.frames_tracking::<33, _>(&registers, memory()) {
        for frame in frames {
            let _ = write!(text, "{}", frame.provenance);
        }
    }
    if let Ok(mut state) = unwinder.start(&registers) {
        let _ = unwinder.next(&mut state, &mut memory());
        state.retry();
        let _ = unwinder.next(&mut state, &mut memory());
    }
    let named = usize::from(FrameSource::<A>::types(unwinder.source()).is_empty());
    [
        needed,
        compiled,
        usize::from(verified),
        sound,
        usize::from(added),
        depth,
        named,
        text.0,
        trace.map_or(0, |trace| trace.nr),
    ]
    .into_iter()
    .fold(0, usize::wrapping_add)
}

/// A table of another source, and its rows.
fn compiled<A: Arch, O: TableOrigin<A>>(arch: A, origin: O, words: &[u64]) -> usize {
    let (mut bytes, mut rules) = ([0; 512], [TableSlot::default(); 16]);
    let room = TableRoom { bytes: black_box(&mut bytes), rules: black_box(&mut rules) };
    let table = TableCompiler::new(arch, origin, black_box(0x1000)..black_box(0x2000), room)
        .and_then(|compiler| compiler.finish())
        .ok()
        .and_then(|bytes| Table::parse(bytes).ok());
    let ends = table.map_or(0, |table| {
        table.ranges().fold(0usize, |sum, (_, _, ends)| sum.wrapping_add(usize::from(ends)))
    });
    ends.wrapping_add(words.len())
}

fn lazy_room() -> ([LazyPage; 4], [LazyRow; 64], [LazyRule; 8]) {
    (Default::default(), core::array::from_fn(|_| LazyRow::default()), Default::default())
}

/// Everything that can be asked of exception handling tables beside walks.
fn exception_tables(bytes: &[u8]) -> usize {
    let sections = exception_sections(bytes);
    let mut text = Sink(usize::from(sections.verify().is_ok()));
    if let Ok(Some(entry)) = sections.find(black_box(5)) {
        text.0 = text.0.wrapping_add(usize::from(entry.offset() == 0));
    }
    for entry in sections.entries().flatten() {
        if let Ok(Unwinding::Instructions { instructions, .. }) = sections.unwinding(&entry) {
            for instruction in instructions.flatten() {
                let _ = write!(text, "{instruction}");
            }
        }
    }
    text.0
}

fn exception_sections(bytes: &[u8]) -> EhabiSections<'_> {
    let section = |svma| ehabi::Section { data: black_box(bytes), svma: black_box(svma) };
    let order = if black_box(true) { ByteOrder::Little } else { ByteOrder::Big };
    EhabiSections::new(order, section(6), Some(section(7)), black_box(1), black_box(100))
}

/// Register sets out of every layout.
fn layouts(arch: AnyArch, bytes: &[u8]) -> usize {
    let sets = [
        AnyRegisters::from_user_regs(arch, bytes),
        AnyRegisters::from_prstatus(arch, bytes),
        AnyRegisters::from_ucontext(arch, bytes),
        AnyRegisters::from_perf_sample(arch, black_box(0xffff_ffff), bytes),
        Ok(AnyRegisters::from_dwarf(arch, [(Register(black_box(3)), 5)])),
        Ok(AnyRegisters::new(arch, black_box(1), black_box(2), black_box(3), Some(black_box(4)))),
    ];
    sets.into_iter().flatten().fold(0, |known, set| known.wrapping_add(usize::from(set.ip().is_some())))
}

/// Deferred unwinding, from every way in.
fn deferred(words: &[u64]) -> usize {
    let embedder = Tasks { task: TaskState::new(), words };
    let slots = [const { ClientSlot::new(called) }; 3];
    let counters = [CpuCounter::new(), CpuCounter::after(black_box(5))];
    let deferred = Deferred::new(&embedder, black_box(&slots), black_box(&counters));
    let mut cache = TraceCache::new([0; 16]);
    let mut sum = 0usize;
    let registered = [deferred.register(|_| {}), deferred.register(|_| {})];
    for registration in registered.into_iter().flatten() {
        let mut text = Sink(0);
        for _ in 0..black_box(3) {
            match deferred.request(registration.id()) {
                Ok(told) => drop(write!(text, "{} {:?}", told.cookie, told.standing)),
                Err(error) => drop(write!(text, "{error}")),
            }
            while deferred.return_to_user(&embedder.task) == Return::Pending {
                let done = deferred.process(&embedder.task, &mut cache);
                sum = sum.wrapping_add(usize::from(done.delivered > 0));
            }
        }
        sum = sum.wrapping_add(text.0).wrapping_add(usize::from(deferred.cancel(registration).is_ok()));
    }
    let done = deferred.exit(&embedder.task, &mut cache);
    let mut slots = [None; 4];
    let mut stitcher = Stitcher::new(black_box(&mut slots));
    let mut out = |stitched: Stitched<'_, u64, u64>| {
        sum = sum.wrapping_add(usize::from(matches!(stitched, Stitched::Whole { .. })));
    };
    for &word in words {
        let Some(cookie) = Cookie::from_u64(black_box(word)) else { continue };
        match black_box(word) & 3 {
            0 => stitcher.lost(),
            1 => stitcher.user(cookie, word, &mut out),
            _ => stitcher.kernel(cookie, word, &mut out),
        }
    }
    stitcher.finish(&mut out);
    sum.wrapping_add(usize::from(done.walks > 0))
}

/// A client.
fn called(_: &TaskState, cookie: Cookie, trace: &Trace<'_>) {
    black_box((cookie, trace.entries.len()));
}

/// One task, whose user registers are words.
struct Tasks<'w> {
    task: TaskState,
    words: &'w [u64],
}

impl Embedder for Tasks<'_> {
    type Task = TaskState;

    fn current_task(&self) -> Option<&TaskState> {
        Some(&self.task)
    }

    fn current_cpu(&self) -> u32 {
        black_box(1)
    }

    fn in_nmi(&self) -> bool {
        black_box(true)
    }

    fn is_compare_exchange_nmi_safe(&self) -> bool {
        black_box(true)
    }

    fn queue_work(&self, _: &TaskState) -> Result<(), NotQueued> {
        if black_box(true) { Ok(()) } else { Err(NotQueued) }
    }

    fn walk(&self, _: &TaskState, entries: &mut [u64]) -> Result<UnwindStacktrace, StartError> {
        Unwinder::new(unwind_arch::x86_64::X86_64, ()).unwind_user(&Numbers(self.words), memory(), entries)
    }

    fn for_each_task(&self, visit: &mut dyn FnMut(&TaskState)) {
        visit(&self.task);
    }
}

/// This very stack.
fn own_stack() -> usize {
    let unwinder = Unwinder::new(unwind_arch::host::HostArch::host(), ());
    unwind_arch::host::with_registers(|registers| {
        unwinder.depth(registers, memory()).map_or(0, |(depth, _)| depth)
    })
}

/// The registers are words by number.
struct Numbers<'w>(&'w [u64]);

impl RegisterFile for Numbers<'_> {
    fn get(&self, register: Register) -> Option<u64> {
        self.0.get(usize::from(register.0)).copied()
    }
}

impl UserRegisters for Numbers<'_> {
    fn ip(&self) -> Option<u64> {
        self.0.last().copied()
    }
}

/// Memory that holds what the compiler cannot know, where it can be read.
fn memory() -> impl MemoryReader {
    from_fn(|address, into: &mut [u8]| {
        into.fill(black_box(0));
        if black_box(address) & 1 == 0 { Ok(()) } else { Err(MemoryError::Unreadable { address }) }
    })
}

/// Counts what is printed.
struct Sink(usize);

impl Write for Sink {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.0 = self.0.wrapping_add(text.len());
        Ok(())
    }
}

/// Keeps the word readers of every size and order in the program.
#[unsafe(no_mangle)]
extern "C" fn read_words(address: u64) -> u64 {
    let mut sum = 0u64;
    for size in [WordSize::Four, WordSize::Eight] {
        for order in [ByteOrder::Little, ByteOrder::Big] {
            sum = sum.wrapping_add(memory().read_word(address, size, order).unwrap_or(0));
        }
    }
    sum
}
