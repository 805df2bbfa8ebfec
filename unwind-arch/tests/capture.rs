//! Walks from captured registers, judged by the compiler's own unwinder on the same stack.
#![allow(clippy::unwrap_used, clippy::panic, clippy::as_conversions, reason = "tests")]
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "tests")]
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

mod own;

use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::sync::Mutex;

use own::Own;
use unwind_arch::host::{Registers, with_registers};
use unwind_core::{End, Pc, Register, RegisterFile, StepError, UserRegisters};

// Part of every Rust program: what panics unwind with.
unsafe extern "C-unwind" {
    fn _Unwind_Backtrace(
        step: extern "C" fn(*mut c_void, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
    fn _Unwind_GetCFA(context: *mut c_void) -> usize;
}

/// Return address and stack pointer of every frame, innermost first.
#[inline(never)]
fn judge() -> Vec<(u64, u64)> {
    extern "C" fn step(context: *mut c_void, frames: *mut c_void) -> c_int {
        // SAFETY: `frames` is the vector below, used by nobody else meanwhile; the context is valid
        // during this call.
        unsafe {
            let frames = &mut *frames.cast::<Vec<(u64, u64)>>();
            frames.push((_Unwind_GetIP(context) as u64, _Unwind_GetCFA(context) as u64));
        }
        0
    }
    let mut frames = Vec::new();
    // SAFETY: the vector outlives the call.
    unsafe { _Unwind_Backtrace(step, (&raw mut frames).cast()) };
    frames
}

struct Walked {
    frames: Vec<(Pc, u64)>,
    end: Option<End>,
    judged: Vec<(u64, u64)>,
    sp: u64,
}

/// Recurses, with frames of many sizes, and walks at the bottom.
#[inline(never)]
fn descend(own: &Own, depth: usize, room: &mut [u64]) -> Walked {
    if depth == 0 {
        return with_registers(|registers| {
            let modules = own.modules();
            let unwinder = own::unwinder(&modules);
            let mut walk = unwinder.frames(registers, own::memory()).unwrap();
            let frames: Vec<_> = walk.by_ref().map(|frame| (frame.pc, frame.sp)).collect();
            let sp = registers.get(unwind_core::Arch::sp(unwinder.arch())).unwrap();
            assert_eq!(frames[0], (Pc::Exact(registers.ip().unwrap()), sp));
            Walked { frames, end: walk.end(), judged: judge(), sp }
        });
    }
    let mut more = [0u64; 13];
    more[depth % 13] = room[depth % room.len()];
    let walked = if depth.is_multiple_of(2) {
        descend(own, depth - 1, black_box(&mut more[..5]))
    } else {
        wide(own, depth, room)
    };
    black_box(&mut more);
    walked
}

#[inline(never)]
fn wide(own: &Own, depth: usize, room: &mut [u64]) -> Walked {
    let mut page = [room[0]; 600];
    let walked = descend(own, depth - 1, black_box(&mut page));
    black_box(&mut page);
    walked
}

#[test]
fn a_walk_from_captured_registers_is_right() {
    let own = Own::new();
    let [module] = own.modules();
    let code = module.start..module.end;
    for depth in [0, 1, 2, 9, 100] {
        let walked = descend(&own, depth, &mut [1, 2, 3]);
        // The frame that the registers were read in: both know its sp, and the judge its callees.
        let start = walked.judged.iter().position(|(_, sp)| *sp == walked.sp).unwrap();
        let judged = &walked.judged[start + 1..];
        let ours = &walked.frames[1..];
        // The walk leaves the program where the thread's beginning in libc called it.
        let in_program = ours.iter().take_while(|(pc, _)| code.contains(&pc.address())).count();
        assert!(in_program > depth + depth / 2, "{in_program} frames at depth {depth}");
        assert_eq!(ours.len(), in_program + 1);
        let ours: Vec<_> = ours.iter().map(|(pc, sp)| (pc.address(), *sp)).collect();
        assert_eq!(ours, judged[..ours.len()]);
        let cause = walked.end.map(|end| match end {
            End::Failed(error) => error.cause,
            end => panic!("{end:?}"),
        });
        assert_eq!(cause, Some(StepError::NotCovered));
    }
}

#[test]
fn only_what_was_read_is_known() {
    use unwind_core::Arch;
    with_registers(|registers| {
        let arch = unwind_arch::host::HostArch::host();
        for number in 0..200 {
            let register = Register(number);
            let general = number < 64;
            let known = (arch.is_callee_saved(register) && general)
                || Some(register) == arch.ip()
                || register == arch.ra();
            assert_eq!(registers.get(register).is_some(), known, "{register:?}");
        }
    });
}

/// Values that a caller keeps in callee-saved registers, and how the walk gets them back.
static KEPT: Mutex<Vec<Option<u64>>> = Mutex::new(Vec::new());

extern "C" fn look_for_kept_values() {
    let own = Own::new();
    with_registers(|registers| {
        let modules = own.modules();
        let unwinder = own::unwinder(&modules);
        let mut frames =
            unwinder.frames_tracking::<{ Registers::COUNT }, _>(registers, own::memory()).unwrap();
        frames.nth(1).unwrap();
        let state = frames.state().registers();
        *KEPT.lock().unwrap() = KEPT_IN.iter().map(|number| state.get(Register(*number))).collect();
    });
}

/// DWARF numbers of r12 to r15, of x20 to x28: callee-saved, and not the compiler's own.
#[cfg(target_arch = "x86_64")]
const KEPT_IN: [u16; 4] = [12, 13, 14, 15];
#[cfg(target_arch = "aarch64")]
const KEPT_IN: [u16; 9] = [20, 21, 22, 23, 24, 25, 26, 27, 28];

/// Calls the function above with `1 << 32 | number` in each.
#[inline(never)]
fn keep_values_and_call() {
    // SAFETY: calls a function that takes nothing and returns nothing, with every register declared
    // that such a call may change; those it may not change are inputs.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!(
            "call {callee}",
            callee = sym look_for_kept_values,
            in("r12") 1u64 << 32 | 12,
            in("r13") 1u64 << 32 | 13,
            in("r14") 1u64 << 32 | 14,
            in("r15") 1u64 << 32 | 15,
            clobber_abi("C"),
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!(
            "bl {callee}",
            callee = sym look_for_kept_values,
            in("x20") 1u64 << 32 | 20,
            in("x21") 1u64 << 32 | 21,
            in("x22") 1u64 << 32 | 22,
            in("x23") 1u64 << 32 | 23,
            in("x24") 1u64 << 32 | 24,
            in("x25") 1u64 << 32 | 25,
            in("x26") 1u64 << 32 | 26,
            in("x27") 1u64 << 32 | 27,
            in("x28") 1u64 << 32 | 28,
            clobber_abi("C"),
        );
    }
}

#[test]
fn what_a_caller_keeps_in_registers_is_found() {
    keep_values_and_call();
    let expected = KEPT_IN.map(|number| Some(1 << 32 | u64::from(number)));
    assert_eq!(*KEPT.lock().unwrap(), expected);
}
