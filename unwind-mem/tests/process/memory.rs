//! Reading another process's memory.

use unwind_core::{MemoryError, MemoryReader};
use unwind_mem::elf::ElfModules;
use unwind_mem::process::ProcessMemory;

use crate::children::{Target, skip, states, wait_for};

/// Where a process surely has memory: its code.
fn code(target: &Target) -> Option<u64> {
    match ElfModules::of_process(target.pid()) {
        Ok(modules) => Some(modules.modules()[0].ranges[0].start),
        Err(error) => {
            skip(&error.to_string());
            None
        }
    }
}

#[test]
fn both_ways_read_the_same() {
    let Some(target) = Target::start("sleep", &["600"]) else { return };
    target.wait_until_asleep(1);
    let Some(code) = code(&target) else { return };
    let mut bytes = [[0; 4096]; 2];
    assert_eq!(ProcessMemory::new(target.pid()).read(code, &mut bytes[0]), Ok(()));
    assert_eq!(ProcessMemory::through_proc(target.pid()).read(code, &mut bytes[1]), Ok(()));
    assert_eq!(bytes[0], bytes[1]);
    assert_ne!(bytes[0], [0; 4096]);
}

#[test]
fn h42_a_process_that_is_killed_becomes_a_transport_error() {
    let Some(mut target) = Target::start("sleep", &["600"]) else { return };
    target.wait_until_asleep(1);
    let Some(code) = code(&target) else { return };
    let mut readers = [ProcessMemory::new(target.pid()), ProcessMemory::through_proc(target.pid())];
    for memory in &mut readers {
        assert_eq!(memory.read(code, &mut [0; 8]), Ok(()));
    }
    target.kill();
    wait_for("the process to be a zombie", || states(target.pid()) == ['Z']);
    for memory in &mut readers {
        let got = memory.read(code, &mut [0; 8]);
        assert!(matches!(got, Err(MemoryError::Transport { .. })), "zombie: {got:?} {memory:?}");
    }
    target.wait();
    for memory in &mut readers {
        let got = memory.read(code, &mut [0; 8]);
        assert!(matches!(got, Err(MemoryError::Transport { .. })), "gone: {got:?} {memory:?}");
    }
}
