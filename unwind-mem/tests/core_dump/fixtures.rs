//! Every architecture's core unwinds to `_start`, by way of the functions that the source says.

use unwind_core::{Arch, ByteOrder, End, Frame, Mark, UnwindUserType, UnwindUserTypes, WordSize};
use unwind_mem::core_dump::{CoreDump, CoreError, CoreProblem, FileSearch};

use crate::walk::{core, folder, functions, search, walk, walk_by};

/// All that lie in the folder.
const NAMES: [&str; 12] = [
    "aarch64",
    "arm",
    "i386",
    "loongarch64",
    "mips",
    "mips64el",
    "mipsel",
    "powerpc64",
    "powerpc64le",
    "riscv64",
    "s390x",
    "x86_64",
];

/// What `crash.c` says; the fourth is the signal trampoline, which has no name of its own.
const STACK: [&str; 11] =
    ["crash", "array", "handler", "", "callback", "again", "again", "again", "again", "main", "_start"];

/// The stack of this core: two are made without a signal handler.
fn stack(name: &str) -> &'static [&'static str] {
    if ["loongarch64", "riscv64"].contains(&name) { &STACK[4..] } else { &STACK }
}

#[test]
fn the_folder_has_these() {
    let files = std::fs::read_dir(folder()).unwrap();
    let names = files.filter_map(|file| file.unwrap().file_name().into_string().ok());
    let mut names: Vec<_> =
        names.filter_map(|name| Some(name.strip_suffix(".core.zlib")?.to_owned())).collect();
    names.sort();
    assert_eq!(names, NAMES);
}

#[test]
fn down_to_start_by_the_functions_of_the_source() {
    for name in NAMES {
        let core = CoreDump::from_bytes(core(name), &search(name)).unwrap();
        assert_eq!(core.problems(), [], "{name}");
        assert_eq!(core.missing_files(), [], "{name}");
        assert_eq!((core.signal(), core.threads().len()), (Some(4), 1), "{name}");
        assert_eq!(core.name(), b"crash", "{name}");
        assert_eq!(core.command(), b"./crash", "{name}");
        assert_eq!(core.pid(), Some(core.threads()[0].tid), "{name}");
        let (frames, end) = walk(&core, &core.threads()[0]);
        let mark = if name == "arm" { Mark::ZeroReturnAddress } else { Mark::UndefinedReturnAddress };
        assert_eq!(end, Ok(End::Complete(mark)), "{name}: {frames:x?}");
        let stack = stack(name);
        assert_eq!(frames.len(), stack.len(), "{name}: {frames:x?}");
        let functions = functions(name);
        // Where the signal came: behind the trampoline.
        let interrupted = stack.iter().position(|name| name.is_empty()).map(|trampoline| trampoline + 1);
        for (index, (frame, want)) in frames.iter().zip(stack).enumerate() {
            let at = frame.pc.lookup_address();
            let found = functions.iter().find(|(start, size, _)| (*start..start + size).contains(&at));
            let source = frame.provenance.source;
            if !want.is_empty() {
                assert_eq!(
                    found.map(|(_, _, name)| name.as_str()),
                    Some(*want),
                    "{name} {index}: {frames:x?}"
                );
            }
            // The frame behind the trampoline is by its code, all others are by the tables.
            let by = match index {
                0 => None,
                _ if interrupted == Some(index) => Some(UnwindUserType::SignalTrampoline),
                _ => Some(UnwindUserType::Dwarf),
            };
            assert_eq!(source, by, "{name} {index}");
            assert_eq!(frame.pc.is_exact(), index == 0 || interrupted == Some(index), "{name} {index}");
        }
    }
}

/// Arm without `.debug_frame`: by `.ARM.exidx`.
#[test]
fn arm_by_its_exception_tables() {
    let core = CoreDump::from_bytes(core("arm"), &search("arm")).unwrap();
    let (by_dwarf, _) = walk(&core, &core.threads()[0]);
    let types = UnwindUserTypes::ALL.without(UnwindUserType::Dwarf);
    let (frames, end) = walk_by(&core, &core.threads()[0], types);
    let places = |frames: &[Frame]| -> Vec<_> { frames.iter().map(|frame| (frame.pc, frame.sp)).collect() };
    assert_eq!(places(&frames), places(&by_dwarf), "{end:?}");
    let by_ehabi = frames.iter().filter(|frame| frame.provenance.source == Some(UnwindUserType::Ehabi));
    assert_eq!(by_ehabi.count(), STACK.len() - 2);
}

#[test]
fn architectures_by_the_header() {
    for (name, word, order) in [
        ("aarch64", WordSize::Eight, ByteOrder::Little),
        ("arm", WordSize::Four, ByteOrder::Little),
        ("loongarch64", WordSize::Eight, ByteOrder::Little),
        ("riscv64", WordSize::Eight, ByteOrder::Little),
        ("mips", WordSize::Four, ByteOrder::Big),
        ("mips64el", WordSize::Eight, ByteOrder::Little),
        ("mipsel", WordSize::Four, ByteOrder::Little),
        ("powerpc64", WordSize::Eight, ByteOrder::Big),
        ("powerpc64le", WordSize::Eight, ByteOrder::Little),
        ("i386", WordSize::Four, ByteOrder::Little),
        ("s390x", WordSize::Eight, ByteOrder::Big),
        ("x86_64", WordSize::Eight, ByteOrder::Little),
    ] {
        let arch = CoreDump::from_bytes(core(name), &search(name)).unwrap().arch();
        assert_eq!((arch.word_size(), arch.byte_order()), (word, order), "{name}");
    }
}

/// With the program's build id in the core, another program is refused; without a program, the
/// stack is walked as far as conventions go. The problem is told.
#[test]
fn the_wrong_program_and_none() {
    for name in NAMES {
        for other in NAMES.into_iter().filter(|other| *other != name) {
            let core = CoreDump::from_bytes(core(name), &search(other)).unwrap();
            assert!(core.problems().contains(&CoreProblem::OtherProgram), "{name} {other}");
            assert!(core.modules().modules().iter().all(|module| module.path != folder().join(other)));
        }
        let nowhere = FileSearch { executable: Some("/no/such/file".into()), sysroot: None };
        let core = CoreDump::from_bytes(core(name), &nowhere).unwrap();
        assert_eq!(core.missing_files().len(), 1, "{name}");
        assert_eq!(core.missing_files()[0].path.to_str(), Some("/no/such/file"));
        let (frames, _) = walk(&core, &core.threads()[0]);
        assert!(!frames.is_empty(), "{name}");
    }
}

/// A program that is the same but for its build id: what the core has of it tells.
#[test]
fn another_build_of_the_program() {
    let data = std::fs::read(folder().join("x86_64")).unwrap();
    let file = object::File::parse(&*data).unwrap();
    let id = object::Object::build_id(&file).unwrap().unwrap().to_vec();
    let at = data.windows(id.len()).position(|bytes| bytes == id).unwrap();
    let mut changed = data.clone();
    changed[at] ^= 1;
    let path = std::env::temp_dir().join(format!("unwind-mem-{}-other-build", std::process::id()));
    std::fs::write(&path, changed).unwrap();
    let search = FileSearch { executable: Some(path.clone()), sysroot: None };
    let core = CoreDump::from_bytes(core("x86_64"), &search).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(core.problems().contains(&CoreProblem::OtherProgram), "{:?}", core.problems());
    assert!(core.modules().modules().iter().all(|module| module.path != path));
}

#[test]
fn what_is_no_core() {
    let open = |bytes: &[u8]| CoreDump::from_bytes(bytes.to_vec(), &FileSearch::default()).err();
    assert_eq!(open(b""), Some(CoreError::NotElf));
    assert_eq!(open(b"#!/bin/sh\n"), Some(CoreError::NotElf));
    let program = std::fs::read(folder().join("x86_64")).unwrap();
    assert_eq!(open(&program), Some(CoreError::NotCore { kind: 2 }));
    let mut foreign = core("x86_64");
    foreign[18..20].copy_from_slice(&0xfeedu16.to_le_bytes());
    assert_eq!(open(&foreign), Some(CoreError::UnsupportedMachine { machine: 0xfeed, bits: 64 }));
    let missing = CoreDump::open("/no/such/core".as_ref(), &FileSearch::default());
    assert!(matches!(missing, Err(CoreError::Unreadable(2))), "{missing:?}");
    assert!(matches!(CoreDump::open("/".as_ref(), &FileSearch::default()), Err(CoreError::Unreadable(_))));
}
