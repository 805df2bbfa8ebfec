//! Cores made by hand.

use std::time::{Duration, Instant};

use unwind_core::{Arch, Cut, End, MemoryError, MemoryReader, ModuleMap, Register, RegisterFile, Unwinder};
use unwind_mem::core_dump::{CoreDump, CoreProblem, FileSearch};
use unwind_mem::elf::IndexRoom;

const X86_64: u16 = 62;
const AARCH64: u16 = 183;
const POWERPC64: u16 = 21;

/// A segment: flags, address, size in the file, size in memory.
type Segment = (u32, u64, u64, u64);

/// A 64-bit little-endian core: headers, notes, then the segments' bytes, which count up.
fn core(machine: u16, notes: &[u8], segments: &[Segment]) -> Vec<u8> {
    let count = segments.len() as u64 + 1;
    let many = count >= 0xffff;
    let headers = 64 + 56 * count;
    let mut offset = headers + notes.len() as u64;
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0".to_vec();
    bytes.extend(machine.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    let total: u64 = segments.iter().map(|segment| segment.2).sum();
    let section_headers = if many { offset + total } else { 0 };
    for field in [0, 64, section_headers] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(0u32.to_le_bytes());
    let number = if many { 0xffff } else { count as u16 };
    for field in [64, 56, number, 64, u16::from(many), 0] {
        bytes.extend(field.to_le_bytes());
    }
    let mut header = |kind: u32, flags: u32, offset: u64, address: u64, size: u64, in_memory: u64| {
        bytes.extend(kind.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        for field in [offset, address, 0, size, in_memory, 0] {
            bytes.extend(field.to_le_bytes());
        }
    };
    header(4, 0, headers, 0, notes.len() as u64, 0);
    for (flags, address, size, in_memory) in segments {
        header(1, *flags, offset, *address, *size, *in_memory);
        offset += size;
    }
    bytes.extend(notes);
    bytes.extend((0..total).map(|byte| byte as u8));
    if many {
        // The first section header: its `sh_info` is the number of program headers.
        let mut section = [0; 64];
        section[44..48].copy_from_slice(&(count as u32).to_le_bytes());
        bytes.extend(section);
    }
    bytes
}

fn note(name: &[u8], kind: u32, description: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [name.len() as u32 + 1, description.len() as u32, kind] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(name);
    bytes.resize((bytes.len() + 1).next_multiple_of(4), 0);
    bytes.extend(description);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// `struct elf_prstatus` of AArch64, with a signal and a thread id.
fn prstatus(signal: u16, tid: u32) -> Vec<u8> {
    let mut bytes = vec![0; 392];
    bytes[12..14].copy_from_slice(&signal.to_le_bytes());
    bytes[32..36].copy_from_slice(&tid.to_le_bytes());
    note(b"CORE", 1, &bytes)
}

fn open(bytes: Vec<u8>) -> CoreDump {
    CoreDump::from_bytes(bytes, &FileSearch::default()).unwrap()
}

/// `NT_ARM_PAC_MASK` holds for the thread that it follows, and its second word is that of code.
#[test]
fn pointer_authentication_masks() {
    let mask = [0x007f_ff80_0000_0000u64, 0x007f_0000_0000_0000].map(u64::to_le_bytes).concat();
    let other = [0u64, 0x007f_ff80_0000_0000].map(u64::to_le_bytes).concat();
    let notes = [
        prstatus(11, 70),
        note(b"LINUX", 0x406, &mask),
        prstatus(0, 71),
        note(b"LINUX", 0x406, &other),
        prstatus(0, 72),
        note(b"OTHER", 0x406, &other),
    ];
    let core = open(core(AARCH64, &notes.concat(), &[(6, 0x1000, 16, 16)]));
    let tids: Vec<u32> = core.threads().iter().map(|thread| thread.tid).collect();
    assert_eq!((tids, core.signal(), core.pid()), (vec![70, 71, 72], Some(11), Some(70)));
    let strip = |thread: usize| core.threads()[thread].arch.strip_code_pointer(0x0055_5512_3456_789c);
    assert_eq!([strip(0), strip(1), strip(2)], [0x5512_3456_789c, 0x12_3456_789c, 0x5512_3456_789c]);
}

/// `NT_FPREGSET` holds for the thread that it follows, where unwinding has a use for it.
#[test]
fn floating_point_registers() {
    // `elf_gregset_t` of powerpc64 has 48 words, at 112; `elf_fpregset_t` f0 to f31 and fpscr.
    let prstatus = note(b"CORE", 1, &[0; 112 + 48 * 8 + 8]);
    let floating: Vec<u8> = (0..33u64).flat_map(|number| (number * 0x111).to_le_bytes()).collect();
    let notes = [
        prstatus.clone(),
        note(b"CORE", 2, &floating),
        prstatus.clone(),
        prstatus,
        note(b"CORE", 2, &floating[..100]),
    ];
    let core = open(core(POWERPC64, &notes.concat(), &[(6, 0x1000, 16, 16)]));
    let f14 = core.threads().iter().map(|thread| thread.registers.get(Register(32 + 14)));
    assert_eq!(f14.collect::<Vec<_>>(), [Some(14 * 0x111), None, None]);
}

/// Where the vDSO should be and is not, trampolines may be: a walk is cut off there, and says so.
#[test]
fn a_vdso_that_was_left_out() {
    let auxv = |start: u64| note(b"CORE", 6, &[33u64, start, 0, 0].map(u64::to_le_bytes).concat());
    let ends = |vdso: u64, segments: &[Segment]| {
        let notes = [prstatus(11, 70), auxv(vdso)];
        let core = open(core(AARCH64, &notes.concat(), segments));
        let mut room = IndexRoom::default();
        let sources = core.modules().sources(&mut room);
        let thread = &core.threads()[0];
        let map = ModuleMap::new(&thread.arch, &sources).unwrap();
        let unwinder = Unwinder::new(thread.arch, map);
        let registers = thread.registers.with_ip(0x7000_0010).with(thread.arch.sp(), 0x1000);
        unwinder.depth(&registers, core.memory()).unwrap()
    };
    let stack = (6, 0x1000, 64, 64);
    let cut = (1, End::Truncated(Cut::Memory(MemoryError::Unreadable { address: 0x7000_0010 })));
    assert_eq!(ends(0x7000_0000, &[stack]), cut);
    // Listed, without contents.
    assert_eq!(ends(0x7000_0000, &[stack, (5, 0x7000_0000, 0, 0x2000)]), cut);
    // There, or elsewhere.
    assert_ne!(ends(0x7000_0000, &[stack, (5, 0x7000_0000, 0x1000, 0x1000)]), cut);
    assert_ne!(ends(0x6000_0000, &[stack]), cut);
    assert_ne!(ends(u64::MAX, &[stack]), cut);
}

/// More program headers than their field can say.
#[test]
fn seventy_thousand_segments() {
    let segments: Vec<Segment> =
        (0..70_000).map(|index| (7, 0x10_0000 + index * 0x2000, 1, 0x1000)).collect();
    let mut bytes = core(X86_64, &[], &segments);
    let begun = Instant::now();
    let core = open(bytes.clone());
    assert_eq!(core.problems(), [CoreProblem::NoThreads, CoreProblem::NoProgram]);
    assert_eq!(core.modules().bare_code().len(), 70_000);
    let mut byte = [0];
    let address = 0x10_0000 + 69_999 * 0x2000;
    assert_eq!(core.memory().read(address, &mut byte), Ok(()));
    assert_eq!(byte, [69_999u64 as u8]);
    assert_eq!(
        core.memory().read(address + 1, &mut byte),
        Err(MemoryError::Unreadable { address: address + 1 })
    );
    // Without the section header the number is not known: as many as the field can say.
    bytes.truncate(bytes.len() - 1);
    let core = open(bytes);
    assert_eq!(core.modules().bare_code().len(), 65_534);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// Segments that overlap, are empty, or leave the address space.
#[test]
fn segments_that_make_no_sense() {
    let segments = [
        (7, 0x3000, 16, 16),
        (7, 0x1000, 16, 16),
        (7, 0x1008, 16, 16),
        (7, 0x3000, 16, 16),
        (7, 0x5000, 0, 0),
        (7, u64::MAX - 3, 8, 8),
        (7, u64::MAX - 3, 4, 4),
    ];
    let core = open(core(X86_64, &[], &segments));
    let bad: Vec<_> =
        core.problems().iter().filter(|problem| matches!(problem, CoreProblem::BadSegment { .. })).collect();
    let at = |address| CoreProblem::BadSegment { address };
    assert_eq!(bad, [&at(u64::MAX - 3), &at(0x1008), &at(0x3000)]);
    let mut into = [0; 4];
    assert_eq!(core.memory().read(0x1000, &mut into), Ok(()));
    assert_eq!(into, [16, 17, 18, 19]);
    assert_eq!(core.memory().read(u64::MAX - 3, &mut into), Ok(()));
    assert_eq!(core.memory().read(0x1010, &mut into), Err(MemoryError::Unreadable { address: 0x1010 }));
}

/// A list of files that names everything there is, many times over: bounded, and told.
#[test]
fn a_list_of_many_files() {
    let program = std::env::current_exe().unwrap();
    let count = 20_000u64;
    let mut list = [count.to_le_bytes(), 4096u64.to_le_bytes()].concat();
    for index in 0..count {
        let start = 0x10_0000 + index * 0x1000;
        for value in [start, start + 0x1000, index % 7] {
            list.extend(value.to_le_bytes());
        }
    }
    for index in 0..count {
        // The same file by other names.
        let dots = "./".repeat(index as usize % 50);
        list.extend(format!("/{dots}/{}", program.display()).bytes());
        list.extend(if index % 3 == 0 { b" (deleted)\0".as_slice() } else { b"\0".as_slice() });
    }
    let begun = Instant::now();
    let core = open(core(X86_64, &note(b"CORE", 0x4649_4c45, &list), &[(5, 0x10_0000, 0, count * 0x1000)]));
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let mut room = Default::default();
    let sources = core.modules().sources(&mut room);
    assert!(sources.windows(2).all(|pair| pair[0].end <= pair[1].start));
}
