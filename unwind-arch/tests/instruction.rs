//! What instructions say by themselves, judged by call frame information: at the beginning of every
//! function of this program, and wherever its rows change.
#![allow(clippy::unwrap_used, clippy::panic, clippy::as_conversions, reason = "tests")]
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "tests")]
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

use std::collections::BTreeMap;

use gimli::{BaseAddresses, CieOrFde, EhFrame, RegisterRule, RunTimeEndian, UnwindContext, UnwindSection};
use object::{FileFlags, Object, ObjectSection};
use unwind_arch::AnyArch;
use unwind_arch::host::HostArch;
use unwind_core::{Arch, Base, CfaRule, CfiVendor, Code, FpRule, RaRule, UnwindUserFrame, WordSize};

#[test]
fn instructions_say_what_call_frame_information_says() {
    let data = std::fs::read("/proc/self/exe").unwrap();
    let said = judge(HostArch::host(), &data);
    println!("{said:?}");
    assert!(said.values().sum::<u32>() > 500, "{said:?}");
    assert!(said.len() > 2, "{said:?}");
}

/// The same of the other architectures' C libraries, where they are installed (Debian's `libc6-*-cross`
/// packages), and how much they say at least. Arm's has no such information. i386's `libc.so.6` is
/// left out: dozens of its hand-written string functions have the return address of a `ret` elsewhere
/// than on top of the stack.
#[test]
fn instructions_of_other_architectures() {
    let libraries = [
        ("i686-linux-gnu/lib/libm.so.6", 2000),
        ("riscv64-linux-gnu/lib/libc.so.6", 2500),
        ("mips-linux-gnu/lib/libc.so.6", 900),
        ("mipsel-linux-gnu/lib/libc.so.6", 900),
        ("mips64el-linux-gnuabi64/lib/libc.so.6", 30),
        ("mips64el-linux-gnuabi64/lib32/libc.so.6", 30),
        ("s390x-linux-gnu/lib/libc.so.6", 2000),
        ("powerpc64-linux-gnu/lib/libc.so.6", 2500),
        ("powerpc64le-linux-gnu/lib/libc.so.6", 2500),
        ("loongarch64-linux-gnu/lib/libc.so.6", 1500),
    ];
    for (library, least) in libraries {
        let Ok(data) = std::fs::read(format!("/usr/{library}")) else {
            println!("SKIPPED {library}: not on this machine");
            continue;
        };
        let file = object::File::parse(&*data).unwrap();
        let FileFlags::Elf { e_flags, .. } = file.flags() else { panic!("{library} is no ELF file") };
        let half = [data[18], data[19]];
        let machine = if data[5] == 1 { u16::from_le_bytes(half) } else { u16::from_be_bytes(half) };
        let arch = AnyArch::from_elf_flags(machine, data[4], data[5], e_flags.0).unwrap();
        let said = judge(arch, &data);
        println!("{library}: {said:?}");
        assert!(said.values().sum::<u32>() > least, "{library}: {said:?}");
    }
}

/// Compares at the beginning of every row; how often which CFA was said, and which rows could not
/// judge it.
fn judge(arch: impl Arch, data: &[u8]) -> BTreeMap<String, u32> {
    let file = object::File::parse(data).unwrap();
    let section = |name| file.section_by_name(name).unwrap();
    let (text, eh_frame) = (section(".text"), section(".eh_frame"));
    let code = text.data().unwrap();
    let mut bases = BaseAddresses::default().set_eh_frame(eh_frame.address()).set_text(text.address());
    if let Some(got) = file.section_by_name(".got") {
        bases = bases.set_got(got.address());
    }
    let order = if file.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
    let mut frames = EhFrame::new(eh_frame.data().unwrap(), order);
    frames.set_address_size(if arch.word_size() == WordSize::Four { 4 } else { 8 });
    if arch.cfi_vendor() == CfiVendor::AArch64 {
        frames.set_vendor(gimli::Vendor::AArch64);
    }
    let mut context = UnwindContext::new();
    let mut entries = frames.entries(&bases);
    let mut said = BTreeMap::<String, u32>::new();
    while let Some(entry) = entries.next().unwrap() {
        let CieOrFde::Fde(fde) = entry else { continue };
        let fde = fde.parse(|_, bases, offset| frames.cie_from_offset(bases, offset)).unwrap();
        let mut rows = fde.rows(&frames, &bases, &mut context).unwrap();
        while let Some(row) = rows.next_row().unwrap() {
            let Some(at) = row.start_address().checked_sub(text.address()).map(|at| at as usize) else {
                continue;
            };
            if at >= code.len() {
                continue;
            }
            let window = Code {
                before: &code[at.saturating_sub(Code::WINDOW)..at],
                at: &code[at..code.len().min(at + Code::WINDOW)],
            };
            if let Some(rule) = arch.instruction_rule(&window) {
                assert!(
                    agree(&arch, &rule, row, window.at),
                    "{:#x}: {rule:?} is not {row:?}",
                    row.start_address()
                );
                *said.entry(format!("{:?}", rule.cfa())).or_default() += 1;
            }
        }
    }
    said
}

/// `mov %rsp, %rbp`, `mov x29, sp`: what has been saved right before it still is in its register too.
const SETS_FRAME_POINTER: &[u8] =
    if cfg!(target_arch = "x86_64") { &[0x48, 0x89, 0xe5] } else { &[0xfd, 0x03, 0x00, 0x91] };

/// Whether the rule and the row describe the same caller.
fn agree<T: gimli::ReaderOffset>(
    arch: &impl Arch,
    rule: &UnwindUserFrame,
    row: &gimli::UnwindTableRow<T>,
    code: &[u8],
) -> bool {
    let both =
        |rule: RegisterRule<T>| code.starts_with(SETS_FRAME_POINTER) && rule == RegisterRule::SameValue;
    let names_slot =
        matches!(arch.name(), "riscv64" | "riscv32" | "mips" | "mipsn32" | "mips64" | "s390x" | "powerpc64");
    let gimli::CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else {
        return false;
    };
    let CfaRule::Offset { base, offset: ours } = rule.cfa() else {
        return false;
    };
    let column = |register| row.register(gimli::Register(register)).unwrap_or(RegisterRule::SameValue);
    let base = if base == Base::Fp { arch.fp() } else { arch.sp() };
    // Where the row's base is the frame pointer, and the rule's is not, offsets say nothing about
    // each other.
    let cfa = gimli::Register(base.0) != register || i64::from(ours) == offset;
    let ra = match rule.ra() {
        RaRule::AtCfa(offset) => {
            column(arch.ra().0) == RegisterRule::Offset(offset.into()) || both(column(arch.ra().0))
        }
        // A row may name the slot that it has just been stored in, or restored from.
        RaRule::InRegister { .. } => {
            let ra = column(arch.ra().0);
            ra == RegisterRule::SameValue || (names_slot && matches!(ra, RegisterRule::Offset(_)))
        }
        _ => false,
    };
    let fp = match rule.fp() {
        FpRule::AtCfa(offset) => {
            column(arch.fp().0) == RegisterRule::Offset(offset.into()) || both(column(arch.fp().0))
        }
        // A row may go on naming the slot that it has just been restored from.
        FpRule::Unchanged => {
            matches!(column(arch.fp().0), RegisterRule::SameValue | RegisterRule::Offset(_))
        }
        _ => false,
    };
    cfa && ra && fp
}
