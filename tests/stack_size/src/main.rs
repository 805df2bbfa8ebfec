//! Entry points of core, each a function with a name of its own that is not inlined, over every kind of
//! source. `check` then adds up the stack frames of what they call. State, memory and result are the
//! caller's, so that what is counted is what the entry point itself needs. What a reader of memory needs
//! comes on top; the one here is a slice.

#![no_std]
#![no_main]

use unwind_arch::AnyArch;
use unwind_arch::aarch64::Aarch64;
use unwind_arch::arm::Arm;
use unwind_arch::s390x::S390x;
use unwind_arch::x86_64::X86_64;
use unwind_core::dwarf::{
    DwarfIndex, DwarfIndexEntry, DwarfIndexError, DwarfSections, DwarfSource, Flavor, Section,
};
use unwind_core::ehabi::{EhabiSections, EhabiSource};
use unwind_core::sframe::{
    Check, Flaw, RegistryError, RegistrySlot, SFrameIndex, SFrameIndexEntry, SFrameRegistry, SFrameSection,
    SFrameSource,
};
use unwind_core::table::{
    Progress, Table, TableCompileError, TableCompiler, TableError, TableOrigin, TableRoom, TableSource,
};
use unwind_core::{
    Cached, End, Frame, Frames, LookupError, Module, ModuleMap, Register, RegisterFile, SourceError,
    StartError, TopmostRegisters, TrackedRegisters, UnwindStacktrace, UnwindUserState, Unwinder,
    UserRegisters,
};
use unwind_mem::SliceReader;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The compiled core library names it, for a panic strategy that is not used here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// Nothing is called: `check` reads the program.
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    0
}

/// The embedder's registers: words by number.
struct Numbers(&'static [u64]);

impl RegisterFile for Numbers {
    fn get(&self, register: Register) -> Option<u64> {
        self.0.get(usize::from(register.0)).copied()
    }
}

impl UserRegisters for Numbers {
    fn ip(&self) -> Option<u64> {
        self.0.first().copied()
    }
}

#[used]
static REGISTERS: &(dyn UserRegisters + Sync) = &Numbers(&[]);

/// A function that stays in the program, under its name.
macro_rules! entry {
    ($name:ident, ($($argument:ident: $type:ty),* $(,)?), $body:expr) => {
        #[unsafe(no_mangle)]
        fn $name($($argument: $type),*) {
            $body
        }
        const _: () = {
            #[used]
            static KEPT: fn($($type),*) = $name;
        };
    };
}

type Memory = SliceReader<'static>;
type Topmost = TopmostRegisters<'static>;
/// All that DWARF numbers of AArch64 need.
type Tracked = TrackedRegisters<96>;

/// One step, by this kind of source.
macro_rules! step {
    ($name:ident, $arch:ty, $source:ty) => {
        step!($name, $arch, $source, Topmost);
    };
    ($name:ident, $arch:ty, $source:ty, $registers:ty) => {
        entry!(
            $name,
            (
                unwinder: &Unwinder<$arch, $source>,
                state: &mut UnwindUserState<$registers>,
                memory: &mut Memory,
                into: &mut Result<Frame, End>,
            ),
            *into = unwinder.next(state, memory)
        );
    };
}

type Dwarf = DwarfSource<'static>;
type SFrame = SFrameSource<'static>;
type Compiled = TableSource<'static, Dwarf>;
type Modules<S> = ModuleMap<'static, S>;
type Everything = Cached<
    'static,
    (
        Modules<TableSource<'static, (Option<Dwarf>, Option<SFrame>)>>,
        (SFrameRegistry<&'static [RegistrySlot], &'static [(u64, &'static [u8])]>, EhabiSource<'static>),
    ),
>;

step!(step_conventions, X86_64, ());
step!(step_conventions_aarch64, Aarch64, ());
step!(step_conventions_s390x, S390x, ());
step!(step_conventions_any, AnyArch, ());
step!(step_table, X86_64, TableSource<'static, ()>);
step!(step_table_over_dwarf, X86_64, Compiled);
step!(step_sframe, X86_64, SFrame);
step!(step_sframe_any, AnyArch, SFrame);
step!(step_dwarf, X86_64, Dwarf);
step!(step_dwarf_aarch64, Aarch64, Dwarf);
step!(step_dwarf_any, AnyArch, Dwarf);
step!(step_ehabi, Arm, EhabiSource<'static>);
step!(step_modules_of_dwarf, X86_64, Modules<Dwarf>);
step!(step_cache_table_dwarf, X86_64, Cached<'static, Modules<Compiled>>);
step!(step_everything, X86_64, Everything);
step!(step_everything_any, AnyArch, Everything);
step!(step_tracking_conventions, Aarch64, (), Tracked);
step!(step_tracking_dwarf, Aarch64, Dwarf, Tracked);
step!(step_tracking_everything, X86_64, Everything, Tracked);
step!(step_tracking_everything_any, AnyArch, Everything, Tracked);

entry!(
    walk_dwarf,
    (
        unwinder: &Unwinder<X86_64, Dwarf>,
        registers: &dyn UserRegisters,
        memory: &mut Memory,
        entries: &mut [u64],
        into: &mut Result<UnwindStacktrace, StartError>,
    ),
    *into = unwinder.unwind_user(registers, memory, entries)
);
entry!(
    walk_everything,
    (
        unwinder: &Unwinder<X86_64, Everything>,
        registers: &dyn UserRegisters,
        memory: &mut Memory,
        entries: &mut [u64],
        into: &mut Result<UnwindStacktrace, StartError>,
    ),
    *into = unwinder.unwind_user(registers, memory, entries)
);
entry!(
    start,
    (
        unwinder: &Unwinder<X86_64, Dwarf>,
        registers: &'static dyn UserRegisters,
        into: &mut Result<UnwindUserState<Topmost>, StartError>,
    ),
    *into = unwinder.start(registers)
);
entry!(
    make_module_map,
    (
        modules: &'static [Module<Compiled>],
        into: &mut Option<Modules<Compiled>>,
    ),
    *into = ModuleMap::new(&X86_64, modules).ok()
);
entry!(
    dwarf_index,
    (
        sections: &DwarfSections<'static>,
        room: &'static mut [DwarfIndexEntry],
        into: &mut Result<DwarfIndex<'static>, DwarfIndexError>,
    ),
    *into = DwarfIndex::build(&X86_64, sections, Flavor::EhFrame, room)
);
entry!(
    dwarf_verify,
    (source: &Dwarf, into: &mut Result<(), LookupError>),
    *into = source.verify_hdr(&X86_64)
);
entry!(
    sframe_validate,
    (section: &SFrameSection<'static>, into: &mut Option<Flaw>),
    *into = section.validate().err()
);
entry!(
    sframe_index,
    (
        section: &SFrameSection<'static>,
        room: &'static mut [SFrameIndexEntry],
        into: &mut Result<Option<SFrameIndex<'static>>, SourceError>,
    ),
    *into = SFrameIndex::build(section, room)
);
entry!(
    sframe_register,
    (
        registry: &SFrameRegistry<&'static [RegistrySlot], &'static [(u64, &'static [u8])]>,
        into: &mut Result<(), RegistryError>,
    ),
    *into = registry.add(&[7..9], 5, 4, Check::Full)
);
entry!(
    ehabi_verify,
    (sections: &EhabiSections<'static>, into: &mut Option<SourceError>),
    *into = sections.verify().err()
);
entry!(
    table_parse,
    (bytes: &'static [u8], into: &mut Result<Table<'static>, TableError>),
    *into = Table::parse(bytes)
);
entry!(
    table_compile,
    (
        compiler: &mut TableCompiler<'static, <Dwarf as TableOrigin<X86_64>>::Functions>,
        into: &mut Result<Progress, TableCompileError>,
    ),
    *into = compiler.advance(100)
);
entry!(
    table_begin,
    (
        arguments: &mut Option<(Dwarf, TableRoom<'static>)>,
        into: &mut Option<Result<&'static [u8], TableCompileError>>,
    ),
    if let Some((source, room)) = arguments.take()
        && let Ok(compiler) = TableCompiler::new(X86_64, source, 1..2, room)
    {
        *into = Some(compiler.finish());
    }
);
entry!(
    section_svma,
    (section: &Section<'static>, into: &mut u64),
    *into = section.svma
);

/// How large an object is that the embedder keeps: the size of a symbol.
macro_rules! size {
    ($name:ident, $type:ty) => {
        #[used]
        #[unsafe(no_mangle)]
        #[allow(non_upper_case_globals, reason = "a name to be printed")]
        static $name: [u8; size_of::<$type>()] = [0; size_of::<$type>()];
    };
}

size!(size_cursor, UnwindUserState<Topmost>);
size!(size_cursor_tracking_17, UnwindUserState<TrackedRegisters<17>>);
size!(size_cursor_tracking_96, UnwindUserState<Tracked>);
size!(size_frames, Frames<'static, X86_64, Everything, &'static mut Memory, Topmost>);
size!(size_frame, Frame);
size!(size_end, End);
size!(size_result_of_a_step, Result<Frame, End>);
size!(size_unwinder_of_dwarf, Unwinder<X86_64, Dwarf>);
size!(size_dwarf_source, Dwarf);
