//! The programs that the tasks run, and the kernel that they call.

use std::hint::black_box;

use unwind_arch::host::with_registers;

use crate::cpu::Cpu;
use crate::machine::{Machine, TRACER, request};

/// The functions of the kernel, by number.
pub(crate) const KERNEL: [&str; 6] = ["", "sys_read", "vfs_read", "copy_page", "sys_futex", "do_exit"];

/// A task: recursions of various shapes until it is told to end. How many clients its exit called.
pub(crate) fn task(cpu: &'static Cpu, machine: &'static Machine) -> u32 {
    cpu.start();
    let mut random = Random(u64::from(cpu.number) + 1);
    while machine.is_running() {
        let depth = random.below(24) as u32;
        black_box(parse(cpu, machine, &mut random, depth));
    }
    black_box(end(cpu, machine))
}

#[inline(never)]
fn parse(cpu: &'static Cpu, machine: &'static Machine, random: &mut Random, depth: u32) -> u64 {
    if depth == 0 {
        return black_box(read(cpu, machine, random.below(60_000))) + 1;
    }
    // Two callees, so that stacks differ in more than their depth.
    let below = if random.below(2) == 0 {
        evaluate(cpu, machine, random, depth - 1)
    } else {
        parse(cpu, machine, random, depth - 1)
    };
    black_box(below) + 1
}

#[inline(never)]
fn evaluate(cpu: &'static Cpu, machine: &'static Machine, random: &mut Random, depth: u32) -> u64 {
    let room = black_box([depth; 32]);
    if depth.is_multiple_of(3) {
        black_box(wait(cpu, machine, random.below(1_000)));
    }
    let below = if depth == 0 { 0 } else { parse(cpu, machine, random, depth - 1) };
    black_box(below + u64::from(room[3]))
}

/// A system call that is read.
#[inline(never)]
fn read(cpu: &'static Cpu, machine: &'static Machine, work: u64) -> u64 {
    with_registers(|registers| {
        cpu.system_call(machine, registers, || {
            cpu.in_function(1, || {
                work_for(work / 4);
                cpu.in_function(2, || {
                    // A tracepoint: the tracer requests as well, in the midst of the sampler's signals.
                    if work.is_multiple_of(4) {
                        request(cpu, machine, TRACER);
                    }
                    work_for(work / 4);
                    cpu.in_function(3, || work_for(work / 2));
                });
            });
        });
    });
    work
}

/// A system call that waits.
#[inline(never)]
fn wait(cpu: &'static Cpu, machine: &'static Machine, work: u64) -> u64 {
    with_registers(|registers| {
        cpu.system_call(machine, registers, || cpu.in_function(4, || work_for(work)));
    });
    work
}

/// The last system call: something is requested, and the task does not return.
#[inline(never)]
fn end(cpu: &'static Cpu, machine: &'static Machine) -> u32 {
    with_registers(|registers| {
        cpu.exit(machine, registers, || cpu.in_function(5, || request(cpu, machine, TRACER)))
    })
}

#[inline(never)]
fn work_for(rounds: u64) {
    for round in 0..rounds {
        black_box(round);
    }
}

/// A linear congruential generator.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}
