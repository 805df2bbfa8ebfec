//! A program without the standard library and without an allocator that walks its own stack, as a
//! crash handler would. From the C library it takes the list of loaded modules and `write`.
//!
//! `cargo run --manifest-path unwind-mem/examples/no_std/Cargo.toml`; it exits with 0 if the walk
//! came to the outermost frame.

#![no_std]
#![no_main]

use core::ffi::{c_char, c_int, c_void};
use core::fmt::{self, Write};
use core::slice;

use unwind_arch::host::{HostArch, with_registers};
use unwind_core::dwarf::{DwarfSections, DwarfSource, Section};
use unwind_core::{Arch, MemoryError, Module, ModuleMap, RegisterFile, Unwinder, from_fn};

/// `struct dl_phdr_info` of link.h, as far as it is needed.
#[repr(C)]
struct ModuleInfo {
    bias: u64,
    name: *const c_char,
    segments: *const Segment,
    count: u16,
}

/// `Elf64_Phdr` of elf.h.
#[repr(C)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    svma: u64,
    physical: u64,
    file_size: u64,
    memory_size: u64,
    align: u64,
}

const PT_LOAD: u32 = 1;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const PF_X: u32 = 1;

#[link(name = "c")]
unsafe extern "C" {
    fn dl_iterate_phdr(
        callback: unsafe extern "C" fn(*const ModuleInfo, usize, *mut c_void) -> c_int,
        data: *mut c_void,
    ) -> c_int;
    fn write(file: c_int, bytes: *const u8, count: usize) -> isize;
    fn abort() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: it takes nothing and does not return.
    unsafe { abort() }
}

/// The `core` that comes with the compiler was made for unwinding panics and names this function
/// in its tables. Here panics abort, and nobody calls it.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// Room for the modules: no allocator.
struct Modules {
    room: [Module<DwarfSource<'static>>; 16],
    count: usize,
}

/// Adds what one module has of code, with its `.eh_frame_hdr` and what that points to.
///
/// # Safety
/// `info` and `data` come from the call of `dl_iterate_phdr` below.
unsafe extern "C" fn add(info: *const ModuleInfo, _: usize, data: *mut c_void) -> c_int {
    // SAFETY: the C library passes a description of a loaded module, and `data` as we gave it:
    // nothing else uses it meanwhile.
    let (info, modules) = unsafe { (&*info, &mut *data.cast::<Modules>()) };
    // SAFETY: the program headers stay loaded with the module; this program unloads none.
    let segments: &'static [Segment] = unsafe { slice::from_raw_parts(info.segments, info.count.into()) };
    // SAFETY: `svma` up to `end` lies within a loaded segment of the module, see the callers.
    let bytes = |svma: u64, end: u64| unsafe {
        slice::from_raw_parts(info.bias.wrapping_add(svma) as *const u8, end.wrapping_sub(svma) as usize)
    };
    let load_of = |svma: u64| {
        let loads = segments.iter().filter(|segment| segment.kind == PT_LOAD);
        loads.clone().find(|load| svma >= load.svma && svma - load.svma < load.file_size)
    };
    let Some(hdr) = segments.iter().find(|segment| segment.kind == PT_GNU_EH_FRAME) else { return 0 };
    let hdr = Section { data: bytes(hdr.svma, hdr.svma + hdr.memory_size), svma: hdr.svma };
    // Every linker writes the pointer to .eh_frame as a signed 32-bit distance (0x1b).
    let [1, 0x1b, _, _, a, b, c, d, ..] = *hdr.data else { return 0 };
    let eh_frame = hdr.svma.wrapping_add(4).wrapping_add_signed(i32::from_ne_bytes([a, b, c, d]).into());
    let Some(load) = load_of(eh_frame) else { return 0 };
    let eh_frame = Section { data: bytes(eh_frame, load.svma + load.file_size), svma: eh_frame };
    let source = DwarfSource::new(DwarfSections {
        eh_frame: Some(eh_frame),
        eh_frame_hdr: Some(hdr),
        ..DwarfSections::default()
    });
    for code in segments.iter().filter(|segment| segment.kind == PT_LOAD && segment.flags & PF_X != 0) {
        let start = info.bias.wrapping_add(code.svma);
        if let Some(slot) = modules.room.get_mut(modules.count) {
            *slot = Module { start, end: start.wrapping_add(code.memory_size), bias: info.bias, source };
            modules.count += 1;
        }
    }
    0
}

/// Standard output.
struct Out;

impl Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: the bytes of `text` are readable.
        let written = unsafe { write(1, text.as_ptr(), text.len()) };
        if usize::try_from(written) == Ok(text.len()) { Ok(()) } else { Err(fmt::Error) }
    }
}

/// Walks the stack up to `end`: whether it came to the outermost frame.
#[inline(never)]
fn walk(end: u64) -> Result<bool, fmt::Error> {
    let nothing = DwarfSource::new(DwarfSections::default());
    let none = Module { start: 0, end: 0, bias: 0, source: nothing };
    let mut modules = Modules { room: [none; 16], count: 0 };
    // SAFETY: `add` is what the function expects, and gets `modules`, which lives until after.
    unsafe { dl_iterate_phdr(add, (&raw mut modules).cast()) };
    let modules = &mut modules.room[..modules.count];
    modules.sort_unstable_by_key(|module| module.start);
    #[allow(clippy::default_constructed_unit_structs, reason = "on other hosts it is not a unit")]
    let arch = HostArch::default();
    let Ok(map) = ModuleMap::new(&arch, modules) else { return Ok(false) };
    let unwinder = Unwinder::new(arch, map);
    with_registers(|registers| {
        let sp = registers.get(arch.sp()).unwrap_or(end);
        let stack = from_fn(|address, into: &mut [u8]| {
            for (byte, address) in into.iter_mut().zip(address..) {
                if !(sp..end).contains(&address) {
                    return Err(MemoryError::Unreadable { address });
                }
                // SAFETY: from sp to the arguments of `main` is the stack that is in use, so it is
                // mapped. It changes while it is read, by this very code: hence volatile, and as
                // bytes any contents will do.
                *byte = unsafe { core::ptr::read_volatile(address as *const u8) };
            }
            Ok(())
        });
        let Ok(mut frames) = unwinder.frames(registers, stack) else { return Ok(false) };
        for frame in frames.by_ref() {
            writeln!(Out, "{:#018x} [{}]", frame.pc.address(), frame.provenance)?;
        }
        let Some(end) = frames.end() else { return Ok(false) };
        writeln!(Out, "{end}")?;
        Ok(end.is_complete())
    })
}

/// A few frames to walk over.
#[inline(never)]
fn descend(depth: u32, end: u64) -> Result<bool, fmt::Error> {
    let answer = if depth == 0 { walk(end) } else { descend(depth - 1, end) };
    core::hint::black_box(answer)
}

#[unsafe(no_mangle)]
extern "C" fn main(_: c_int, arguments: *const *const c_char) -> c_int {
    // The kernel puts the arguments above every frame.
    let end = arguments as u64;
    c_int::from(descend(3, end) != Ok(true))
}
