//! A trap with known registers: the kernel's signal frame, read in both ways, gives them back.
#![allow(clippy::unwrap_used, clippy::panic, clippy::as_conversions, reason = "tests")]
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "tests")]
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

mod own;

use std::ffi::{c_int, c_void};
use std::sync::Mutex;

use nix::libc::siginfo_t;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use own::Own;
use unwind_arch::host::{HostArch, Registers, with_registers};
use unwind_core::{Arch, Pc, Register, RegisterFile, UnwindUserType, UserRegisters};

/// What the handler saw.
struct Seen {
    /// The `ucontext` that it was given.
    given: Registers,
    /// The frame that its walk came to over the trampoline: pc, sp, fp, and every register.
    pc: Pc,
    sp: u64,
    fp: Option<u64>,
    registers: Registers,
    /// The pcs of that frame's callers.
    callers: Vec<u64>,
}

static SEEN: Mutex<Option<Seen>> = Mutex::new(None);

/// May allocate and lock: the signal comes from the trap below, not from inside an allocator.
extern "C" fn handler(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's context has at least these bytes, and lives as long as the handler runs.
    let bytes = unsafe { std::slice::from_raw_parts(context.cast::<u8>(), NEEDED) };
    let given = Registers::from_ucontext(HostArch::host(), bytes).unwrap();
    let own = Own::new();
    let modules = own.modules();
    let unwinder = own::unwinder(&modules);
    let seen = with_registers(|registers| {
        let mut frames =
            unwinder.frames_tracking::<{ Registers::COUNT }, _>(registers, own::memory()).unwrap();
        let interrupted = frames
            .find(|frame| frame.provenance.source == Some(UnwindUserType::SignalTrampoline))
            .unwrap_or_else(|| panic!("the walk did not come over the trampoline: {:?}", frames.end()));
        let state = *frames.state().registers();
        let known = (0..).take(Registers::COUNT).map(Register);
        let registers =
            Registers::from_dwarf(known.filter_map(|register| Some((register, state.get(register)?))))
                .with_ip(interrupted.pc.address());
        let callers = frames.map(|frame| frame.pc.address()).collect();
        Seen { given, pc: interrupted.pc, sp: interrupted.sp, fp: interrupted.fp, registers, callers }
    });
    *SEEN.lock().unwrap() = Some(seen);
    step_over_trap(context);
}

/// What the processor held at the trap, as the code around it stored it.
struct Truth {
    pc: u64,
    sp: u64,
    fp: u64,
    others: Vec<(Register, u64)>,
}

#[cfg(target_arch = "x86_64")]
use x86_64::{NEEDED, step_over_trap, trap};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::ffi::c_void;

    use unwind_arch::x86_64::*;

    use super::Truth;

    pub(super) const NEEDED: usize = 176;

    /// The pc is already behind it.
    pub(super) fn step_over_trap(_: *mut c_void) {}

    #[inline(never)]
    pub(super) fn trap() -> Truth {
        let mut stored = [0u64; 4];
        // SAFETY: writes the 32 bytes of `stored`; every register it changes is declared. The
        // handler returns right behind the trap, with all registers as they were.
        unsafe {
            std::arch::asm!(
                "mov [r15], rsp",
                "mov [r15 + 8], rbp",
                "mov [r15 + 16], rbx",
                "lea rax, [rip + 2f]",
                "mov [r15 + 24], rax",
                "movabs rax, 0xa0a0a0a0a0a0a0a0",
                "int3",
                "2:",
                out("rax") _,
                in("rdx") 0xd1d1_d1d1_d1d1_d1d1u64,
                in("rcx") 0xc2c2_c2c2_c2c2_c2c2u64,
                in("rsi") 0xe4e4_e4e4_e4e4_e4e4u64,
                in("rdi") 0xf5f5_f5f5_f5f5_f5f5u64,
                in("r8") 0x0808_0808_0808_0808u64,
                in("r9") 0x0909_0909_0909_0909u64,
                in("r10") 0x1010_1010_1010_1010u64,
                in("r11") 0x1111_1111_1111_1111u64,
                in("r12") 0x1212_1212_1212_1212u64,
                in("r13") 0x1313_1313_1313_1313u64,
                in("r14") 0x1414_1414_1414_1414u64,
                in("r15") stored.as_mut_ptr(),
            );
        }
        let [sp, fp, rbx, pc] = stored;
        let others = vec![
            (RAX, 0xa0a0_a0a0_a0a0_a0a0),
            (RDX, 0xd1d1_d1d1_d1d1_d1d1),
            (RCX, 0xc2c2_c2c2_c2c2_c2c2),
            (RBX, rbx),
            (RSI, 0xe4e4_e4e4_e4e4_e4e4),
            (RDI, 0xf5f5_f5f5_f5f5_f5f5),
            (R8, 0x0808_0808_0808_0808),
            (R9, 0x0909_0909_0909_0909),
            (R10, 0x1010_1010_1010_1010),
            (R11, 0x1111_1111_1111_1111),
            (R12, 0x1212_1212_1212_1212),
            (R13, 0x1313_1313_1313_1313),
            (R14, 0x1414_1414_1414_1414),
            (R15, (&raw const stored) as u64),
        ];
        Truth { pc, sp, fp, others }
    }
}

#[cfg(target_arch = "aarch64")]
use aarch64::{NEEDED, step_over_trap, trap};

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::ffi::c_void;

    use unwind_core::Register;

    use super::Truth;

    pub(super) const NEEDED: usize = 448;

    /// The pc is at it, in the last word that is needed.
    pub(super) fn step_over_trap(context: *mut c_void) {
        // SAFETY: the word is inside the kernel's context, which is writable.
        unsafe { *context.cast::<u8>().add(440).cast::<u64>() += 4 };
    }

    #[inline(never)]
    pub(super) fn trap() -> Truth {
        let mut stored = [0u64; 5];
        // x19 and x29 are the compiler's, x18 the platform's; x30 is changed here.
        let free = |number: &u16| !matches!(number, 9 | 18 | 19 | 20 | 29 | 30);
        let mut values = [0u64; 29];
        for number in (0..29).filter(free) {
            values[usize::from(number)] = u64::from(number) * 0x0101_0101_0101_0101;
        }
        // SAFETY: writes the 40 bytes of `stored`; every register it changes is declared. The
        // handler returns right behind the trap, with all registers as they were.
        unsafe {
            std::arch::asm!(
                "mov x9, sp",
                "str x9, [x20]",
                "str x29, [x20, #8]",
                "str x18, [x20, #16]",
                "str x19, [x20, #24]",
                "adr x9, 2f",
                "str x9, [x20, #32]",
                "movz x9, #0x99",
                "movz x30, #0x3030",
                "2:",
                "brk #0",
                in("x0") values[0], in("x1") values[1], in("x2") values[2], in("x3") values[3],
                in("x4") values[4], in("x5") values[5], in("x6") values[6], in("x7") values[7],
                in("x8") values[8], out("x9") _, in("x10") values[10], in("x11") values[11],
                in("x12") values[12], in("x13") values[13], in("x14") values[14], in("x15") values[15],
                in("x16") values[16], in("x17") values[17], in("x20") stored.as_mut_ptr(),
                in("x21") values[21], in("x22") values[22], in("x23") values[23], in("x24") values[24],
                in("x25") values[25], in("x26") values[26], in("x27") values[27], in("x28") values[28],
                out("x30") _,
            );
        }
        let [sp, fp, x18, x19, pc] = stored;
        let mut others: Vec<_> =
            (0..29).filter(free).map(|number| (Register(number), values[usize::from(number)])).collect();
        others.extend([
            (Register(9), 0x99),
            (Register(18), x18),
            (Register(19), x19),
            (Register(20), (&raw const stored) as u64),
            (Register(30), 0x3030),
        ]);
        Truth { pc, sp, fp, others }
    }
}

#[test]
fn the_signal_frame_gives_back_what_the_processor_held() {
    let action = SigAction::new(SigHandler::SigAction(handler), SaFlags::SA_SIGINFO, SigSet::empty());
    // SAFETY: the handler runs where the trap is alone, between two of its instructions.
    unsafe { sigaction(Signal::SIGTRAP, &action) }.unwrap();
    let truth = trap();
    let seen = SEEN.lock().unwrap().take().unwrap();
    assert_eq!((seen.pc, seen.sp, seen.fp), (Pc::Exact(truth.pc), truth.sp, Some(truth.fp)));
    assert_eq!((seen.given.ip(), seen.registers.ip()), (Some(truth.pc), Some(truth.pc)));
    let arch = HostArch::host();
    let mut all = truth.others;
    all.extend([(arch.sp(), truth.sp), (arch.fp(), truth.fp)]);
    for (register, value) in &all {
        assert_eq!(seen.given.get(*register), Some(*value), "{register:?} of the context");
        if ![arch.sp(), arch.fp()].contains(register) {
            assert_eq!(seen.registers.get(*register), Some(*value), "{register:?} over the trampoline");
        }
    }
    assert_eq!(all.len(), Registers::COUNT - 1);
    // This function called the one with the trap.
    assert!(seen.callers.len() > 2, "{:?}", seen.callers);
}
