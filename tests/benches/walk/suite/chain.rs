//! A stack of frame records, after the model of a real one.

use unwind_arch::host::{HostArch, Registers};
use unwind_core::{Arch, FrameSource, Unwinder};
use unwind_mem::StackSnapshot;

use super::workload::{Process, Sample, Workload};

/// The stack of a workload as it would be had every function kept a frame pointer: the same return
/// addresses, the same sizes of frames.
pub(crate) fn of<S: FrameSource<HostArch>>(deep: &Workload, unwinder: &Unwinder<HostArch, S>) -> Workload {
    let [sample] = &deep.samples[..] else { panic!("one stack") };
    let memory = StackSnapshot::new(sample.address, sample.stack);
    let frames: Vec<_> = unwinder.frames(&sample.registers, memory).expect("registers").collect();
    let mut stack = vec![0u8; sample.stack.len()];
    let mut put = |address: u64, word: u64| {
        let at = (address - sample.address) as usize;
        stack[at..at + 8].copy_from_slice(&word.to_le_bytes());
    };
    // A record is right below the caller's sp: the caller's fp, and the return address.
    let records: Vec<u64> = frames.iter().skip(1).map(|caller| caller.sp - 16).collect();
    for (at, (record, caller)) in records.iter().zip(frames.iter().skip(1)).enumerate() {
        put(*record, records.get(at + 1).copied().unwrap_or(0));
        put(*record + 8, caller.pc.address());
    }
    let host = HostArch::host();
    let registers = Registers::default()
        .with_ip(sample.ip())
        .with(host.sp(), sample.sp())
        .with(host.fp(), records.first().copied().unwrap_or(0));
    Workload {
        images: Vec::new(),
        processes: vec![Process { program: "frame records".into(), mappings: Vec::new() }],
        samples: vec![Sample { process: 0, registers, address: sample.address, stack: stack.leak() }],
    }
}
