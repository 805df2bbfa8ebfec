//! One deep stack: this program's own, at the end of a chain of 64 different functions.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::thread;

use unwind_arch::host::{HostArch, Registers, with_registers};
use unwind_core::{Arch, MemoryReader, RegisterFile};
use unwind_mem::elf::ElfModules;
use unwind_mem::process::ProcessMemory;

use super::modules::Gathered;
use super::random::Random;
use super::workload::{Sample, Workload};

/// Called at the end of the chain.
type Bottom<'b> = &'b mut (dyn FnMut() + Send);

/// The functions of a chain that are yet to be called.
type Level = fn(&[usize], Bottom<'_>) -> u64;

/// A function of its own for every number: another frame size, other registers saved.
#[inline(never)]
fn level<const N: usize>(rest: &[usize], bottom: Bottom<'_>) -> u64 {
    let mut room = [N as u64; N];
    black_box(&mut room);
    let [a, b, c] = black_box([N as u64, rest.len() as u64, 7]);
    let below = match rest {
        [] => {
            bottom();
            0
        }
        [next, rest @ ..] => LEVELS[*next](rest, bottom),
    };
    // Something to do after the call, with what was there before, or no register need be saved.
    let kept = match N % 4 {
        0 => 0,
        1 => a,
        2 => a ^ b,
        _ => a ^ (b << 1) ^ (c << 2),
    };
    black_box(&mut room);
    below ^ kept ^ room[0]
}

macro_rules! levels {
    ($($n:literal)*) => { [$(level::<$n>),*] };
}

static LEVELS: [Level; 96] = levels!(
    1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32
    33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64
    65 66 67 68 69 70 71 72 73 74 75 76 77 78 79 80 81 82 83 84 85 86 87 88 89 90 91 92 93 94 95 96
);

/// How many of them are on the stack.
const DEPTH: usize = 64;

/// Numbers of functions, in the order in which they call each other.
pub(crate) type Path = Vec<usize>;

/// A chain in any order.
pub(crate) fn path(seed: u64) -> Path {
    let mut random = Random::new(seed);
    let mut path: Path = (0..LEVELS.len()).collect();
    for at in 0..DEPTH {
        let other = at + random.below((path.len() - at) as u64) as usize;
        path.swap(at, other);
    }
    path.truncate(DEPTH);
    path
}

/// Calls `bottom` at the end of a chain, on a thread of its own.
pub(crate) fn descend(path: &[usize], bottom: Bottom<'_>) {
    let [first, rest @ ..] = path else { return };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("deep".into()).spawn_scoped(scope, || {
            black_box(LEVELS[*first](rest, bottom));
        });
        thread.expect("a thread").join().expect("it does not panic");
    });
}

/// The modules of this program, without a stack yet.
pub(crate) fn modules() -> Workload {
    let modules = ElfModules::of_process(std::process::id()).expect("this process");
    let mut gathered = Gathered::default();
    gathered.process("this program", &modules);
    gathered.workload
}

/// A copy of the stack at the end of a chain.
pub(crate) fn sample(path: &[usize]) -> Sample {
    let mut sample = None;
    descend(path, &mut || sample = Some(with_registers(copy)));
    sample.expect("a path")
}

/// The most bytes of a stack.
const MOST: usize = 1 << 18;

/// The stack of this thread, from here up.
fn copy(registers: &Registers) -> Sample {
    let sp = registers.get(HostArch::host().sp()).expect("always known");
    let mut memory = ProcessMemory::of_this_process();
    let mut stack = Vec::new();
    let mut page = [0; 256];
    while stack.len() < MOST && memory.read(sp + stack.len() as u64, &mut page).is_ok() {
        stack.extend(page);
    }
    Sample { process: 0, registers: *registers, address: sp, stack: stack.leak() }
}

/// Of some hundred chains, that whose addresses, which `pcs` finds, most often have a slot of their own in
/// framehop's cache: its best case.
pub(crate) fn without_collisions(mut pcs: impl FnMut(&Sample) -> Vec<u64>) -> Path {
    const SLOTS: u64 = 509;
    const CHAINS: u64 = 600;
    // All but the first are return addresses, which are looked up one byte earlier.
    let slot = |(at, pc): (usize, &u64)| (pc - u64::from(at > 0)) % SLOTS;
    let collisions = |path: &Path| {
        let pcs = pcs(&sample(path));
        pcs.len() - pcs.iter().enumerate().map(slot).collect::<BTreeSet<u64>>().len()
    };
    (0..CHAINS).map(path).min_by_key(collisions).expect("there are some")
}
