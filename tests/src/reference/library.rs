//! The library's walk, in each of its three ways.

use std::fmt::Debug;

use unwind_core::{
    Arch, Cut, End, Frame, FrameSource, MemoryReader, RegisterSet, StartError, Trust, UnwindUserState,
    Unwinder, UserRegisters,
};

use super::Walk;

/// Walks with the iterator, step by step, and into buffers, and demands that all agree; that a step
/// that failed left the state as it was; and that it fails again with the same answer. `memory`
/// makes a reader for each walk.
///
/// # Panics
/// Where two ways do not agree.
pub fn walk_by_library<A: Arch, S: FrameSource<A>, M: MemoryReader>(
    unwinder: &Unwinder<A, S>,
    registers: &dyn UserRegisters,
    memory: impl Fn() -> M,
) -> Result<Walk, StartError> {
    let stepped = step_by_step(unwinder, registers, &mut memory());
    let iterated = iterate(unwinder, registers, memory());
    assert_eq!(stepped, iterated, "start and next, against the iterator");
    match &iterated {
        Ok(walk) => check_buffers(unwinder, registers, &memory, walk),
        Err(error) => {
            assert_eq!(unwinder.unwind_user(registers, memory(), &mut [0]), Err(*error));
            assert_eq!(unwinder.depth(registers, memory()), Err(*error));
        }
    }
    iterated
}

fn iterate<A: Arch, S: FrameSource<A>, M: MemoryReader>(
    unwinder: &Unwinder<A, S>,
    registers: &dyn UserRegisters,
    memory: M,
) -> Result<Walk, StartError> {
    let mut iterator = unwinder.frames(registers, memory)?;
    let frames: Vec<Frame> = iterator.by_ref().collect();
    assert!(iterator.next().is_none(), "the iterator goes on after its end");
    let end = iterator.end().expect("an iterator that has ended knows how");
    assert_eq!(Some(&iterator.state().frame()), frames.last(), "the state is at the last frame");
    Ok(Walk { frames, end })
}

fn step_by_step<A: Arch, S: FrameSource<A>, M: MemoryReader>(
    unwinder: &Unwinder<A, S>,
    registers: &dyn UserRegisters,
    memory: &mut M,
) -> Result<Walk, StartError> {
    let mut state = unwinder.start(registers)?;
    assert!(state.topmost());
    let mut frames = vec![state.frame()];
    let end = loop {
        let before = Seen::of(&state);
        match unwinder.next(&mut state, memory) {
            Ok(frame) => {
                assert_eq!(frame, state.frame());
                assert!(!state.topmost());
                frames.push(frame);
            }
            Err(end) => {
                assert_eq!(before, Seen::of(&state), "a failed step changes nothing");
                break end;
            }
        }
    };
    assert_eq!(state.end(), Some(end));
    assert_eq!(usize::try_from(state.depth()), Ok(frames.len() - 1));
    // Without a retry, nothing is tried again.
    let mut nothing = unwind_core::from_fn(|address, _: &mut [u8]| -> Result<(), unwind_core::MemoryError> {
        panic!("memory at {address:#x} is read after the end of the walk")
    });
    for _ in 0..2 {
        assert_eq!(unwinder.next(&mut state, &mut nothing), Err(end));
    }
    // With one, it fails again in the same way, as long as nothing has changed.
    state.retry();
    assert_eq!(unwinder.next(&mut state, memory), Err(end), "the same step, tried again");
    Ok(Walk { frames, end })
}

/// Everything of a state that can be seen from outside, but how it ended.
#[derive(Debug, PartialEq)]
struct Seen {
    frame: Frame,
    topmost: bool,
    weakest: Trust,
    depth: u32,
    registers: String,
}

impl Seen {
    fn of<R: RegisterSet + Debug>(state: &UnwindUserState<R>) -> Self {
        Seen {
            frame: state.frame(),
            topmost: state.topmost(),
            weakest: state.weakest(),
            depth: state.depth(),
            registers: format!("{:?}", state.registers()),
        }
    }
}

/// Buffers of no entry, of one, one short, exact, and with room left.
fn check_buffers<A: Arch, S: FrameSource<A>, M: MemoryReader>(
    unwinder: &Unwinder<A, S>,
    registers: &dyn UserRegisters,
    memory: &impl Fn() -> M,
    walk: &Walk,
) {
    let depth = walk.frames.len();
    assert_eq!(unwinder.unwind_user(registers, memory(), &mut []), Err(StartError::NoRoom));
    assert_eq!(unwinder.depth(registers, memory()), Ok((depth, walk.end)));
    for room in [1, depth.saturating_sub(1).max(1), depth, depth + 1] {
        let unused = 0x5a5a_5a5a_5a5a_5a5a;
        let mut entries = vec![unused; room];
        let trace = unwinder.unwind_user(registers, memory(), &mut entries).expect("it starts");
        let expected = room.min(depth);
        assert_eq!(trace.nr, expected, "room for {room} of {depth}");
        for (entry, frame) in entries.iter().zip(&walk.frames).take(expected) {
            assert_eq!(*entry, frame.pc.address());
        }
        assert!(
            entries.iter().skip(expected).all(|entry| *entry == unused),
            "entries beyond nr are untouched"
        );
        let end = if room < depth { End::Truncated(Cut::BufferFull) } else { walk.end };
        assert_eq!(trace.end, end, "room for {room} of {depth}");
        let trusts = walk.frames.iter().take(expected).map(|frame| frame.provenance.trust);
        assert_eq!(Some(trace.weakest), trusts.min(), "the least trusted of {expected}");
    }
}
