//! A 32-bit process of a 64-bit kernel.

#![cfg(target_arch = "x86_64")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use unwind_core::{Arch, ByteOrder, End, Mark, UnwindUserType, WordSize};
use unwind_mem::elf::ElfModules;

use crate::children::{Target, skip, states, stop, wait_for};
use crate::gdb;
use crate::stacks::walk;

/// Where the program is loaded, and where in it the code begins.
const BASE: u32 = 0x0804_8000;
const CODE: u32 = 84;

/// An ELF file for 32-bit x86 of one segment and no sections. Two calls with frame pointers, then it
/// waits for a signal.
fn program() -> Vec<u8> {
    let words = |values: &[u32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let code = [
        0x31, 0xed, // start: xor ebp, ebp
        0xe8, 2, 0, 0, 0, //  call f
        0xeb, 0xfe, //        jmp here
        0x55, //           f: push ebp
        0x89, 0xe5, //        mov ebp, esp
        0xe8, 2, 0, 0, 0, //  call g
        0xeb, 0xfe, //        jmp here
        0x55, //           g: push ebp
        0x89, 0xe5, //        mov ebp, esp
        0xb8, 29, 0, 0, 0, // again: mov eax, 29 (pause)
        0xcd, 0x80, //        int 0x80
        0xeb, 0xf7, //        jmp again
    ];
    let size = CODE + code.len() as u32;
    [
        b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec(),
        words(&[1, BASE + CODE, 52, 0, 0]),
        vec![52, 0, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        words(&[1, 0, BASE, BASE, size, size, 5, 0x1000]),
        code.to_vec(),
    ]
    .concat()
}

fn start(path: &Path) -> Option<Target> {
    let target = Target::start(path.to_str().unwrap(), &[])?;
    wait_for("it to wait or to end", || matches!(states(target.pid()).as_slice(), ['S' | 'Z']));
    if states(target.pid()) == ['Z'] {
        skip("this kernel does not run 32-bit programs");
        return None;
    }
    Some(target)
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("unwind-mem-{}-{name}", std::process::id()))
}

#[test]
fn a_32_bit_process_by_frame_pointers() {
    let path = temporary("i386");
    fs::write(&path, program()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let target = start(&path);
    fs::remove_file(&path).unwrap();
    let Some(target) = target else { return };
    let Some(stopped) = stop(target.pid()) else { return };
    let modules = ElfModules::of_process(target.pid()).unwrap();
    let arch = stopped.threads()[0].arch;
    assert_eq!(arch, modules.arch());
    assert_eq!((arch.word_size(), arch.byte_order()), (WordSize::Four, ByteOrder::Little));
    let (frames, end) = walk(&stopped, &modules).into_values().next().unwrap();
    drop(stopped);
    // The kernel may have put the pc back to the system call already, to make it again.
    let code = u64::from(BASE + CODE);
    assert!((code + 22..code + 31).contains(&frames[0].pc.address()), "{frames:x?}");
    let callers: Vec<u64> = frames[1..].iter().map(|frame| frame.pc.address()).collect();
    assert_eq!(callers, [code + 17, code + 7]);
    assert_eq!(end, End::Complete(Mark::ZeroFramePointer));
    wait_for("it to wait again", || states(target.pid()) == ['S']);
}

/// A program with a C library, for which the system needs a compiler.
#[test]
fn a_32_bit_program_equals_gdb() {
    let source = "#include <stdlib.h>\n#include <unistd.h>\n\
        static int cmp(const void *a, const void *b) { pause(); return a < b; }\n\
        int main(void) { int room[2] = {0}; qsort(room, 2, 4, cmp); return room[1]; }\n";
    let (path, file) = (temporary("i386-libc"), temporary("i386-libc.c"));
    fs::write(&file, source).unwrap();
    let compilers = [("i686-linux-gnu-gcc", "-static"), ("gcc", "-m32")];
    let built = compilers.iter().any(|(compiler, option)| {
        let arguments = [option.as_ref(), "-O2".as_ref(), "-o".as_ref(), path.as_os_str(), file.as_os_str()];
        Command::new(compiler).args(arguments).output().is_ok_and(|output| output.status.success())
    });
    fs::remove_file(&file).unwrap();
    if !built {
        skip("no compiler for 32-bit programs");
        return;
    }
    let target = start(&path);
    if let Some(target) = &target {
        target.wait_until_asleep(1);
        let Some(stopped) = stop(target.pid()) else { return };
        let (frames, end) =
            walk(&stopped, &ElfModules::of_process(target.pid()).unwrap()).into_values().next().unwrap();
        drop(stopped);
        assert!(end.is_complete() && frames.len() >= 5, "{end}: {frames:x?}");
        assert!(
            frames.iter().skip(1).all(|frame| frame.provenance.source == Some(UnwindUserType::Dwarf)),
            "{frames:x?}"
        );
        if let Some(gdbs) = gdb::stacks(target.pid()) {
            let pcs: Vec<u64> = frames.iter().map(|frame| frame.pc.address()).collect();
            assert_eq!(pcs, gdbs[&target.pid()]);
        }
    }
    fs::remove_file(&path).unwrap();
}
