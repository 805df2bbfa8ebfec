//! Cores cut off anywhere, and changed anywhere: an answer with a word about what is missing, or an
//! error.

use unwind_core::{End, MemoryReader};
use unwind_mem::core_dump::{CoreDump, CoreProblem};

use crate::walk::{core, search, walk};

/// Where the notes end and the memory begins: the first page of the file.
const MEMORY: usize = 4096;

/// Cut at every byte of the headers and notes, and around every page of the memory.
#[test]
fn cut_anywhere() {
    for name in ["i386", "s390x", "x86_64"] {
        let whole = core(name);
        let opened = CoreDump::from_bytes(whole.clone(), &search(name)).unwrap();
        let (frames, _) = walk(&opened, &opened.threads()[0]);
        let pages = (MEMORY..whole.len()).step_by(4096);
        let around = pages.flat_map(|page| [page, page + 1, page + 2048, page + 4095]);
        let (mut refused, mut cut_short) = (0, 0);
        for length in (0..MEMORY).chain(around).filter(|length| *length < whole.len()) {
            let Ok(core) = CoreDump::from_bytes(whole[..length].to_vec(), &search(name)) else {
                refused += 1;
                continue;
            };
            let told = core.problems().iter().any(|problem| {
                matches!(problem, CoreProblem::Truncated { .. } | CoreProblem::SegmentList { .. })
            });
            assert!(told, "{name} {length}: {:?}", core.problems());
            for thread in core.threads() {
                let (found, end) = walk(&core, thread);
                if length < MEMORY {
                    continue;
                }
                // Whatever is found is right, and where it stops memory was missing.
                assert_eq!(found, frames[..found.len()], "{name} {length}");
                if found.len() < frames.len() {
                    // Where the signal trampoline's code is missing, nothing tells that it is one.
                    let last = found.last().unwrap().pc.address();
                    let code_is_missing = core.memory().read(last, &mut [0; 8]).is_err();
                    let says_so = matches!(end, Ok(End::Truncated(_)));
                    assert!(says_so || code_is_missing, "{name} {length}: {end:?}");
                    cut_short += 1;
                }
            }
        }
        assert!(refused >= 64 && cut_short >= 10, "{name}: {refused} {cut_short}");
    }
}

/// Every byte of headers and notes changed in four ways.
#[test]
fn changed_anywhere() {
    let mut answers = 0;
    for name in ["i386", "s390x", "x86_64"] {
        let mut bytes = core(name);
        let notes = (0..MEMORY).rev().find(|index| bytes[*index] != 0).unwrap();
        for index in 0..=notes {
            for change in [0x01, 0x80, 0xff, bytes[index]] {
                let before = bytes[index];
                bytes[index] ^= change;
                if let Ok(core) = CoreDump::from_bytes(bytes.clone(), &search(name)) {
                    answers += 1;
                    for thread in core.threads() {
                        let _ = walk(&core, thread);
                    }
                    let mut into = [0; 64];
                    for address in [0, 0x40_0000, u64::MAX - 8, u64::from(u32::MAX) - 8] {
                        let _ = core.memory().read(address, &mut into);
                    }
                }
                bytes[index] = before;
            }
        }
    }
    assert!(answers > 5000, "{answers}");
}
