//! What instructions say by themselves, judged by call frame information: at the beginning of every
//! function of this program, and wherever its rows change.
#![allow(clippy::unwrap_used, clippy::panic, clippy::as_conversions, reason = "tests")]
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "tests")]
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

use std::collections::BTreeMap;

use gimli::{BaseAddresses, CieOrFde, EhFrame, RegisterRule, UnwindContext, UnwindSection};
use object::{Object, ObjectSection};
use unwind_arch::host::HostArch;
use unwind_core::{Arch, Base, CfaRule, CfiVendor, Code, FpRule, RaRule, UnwindUserFrame};

#[test]
fn instructions_say_what_call_frame_information_says() {
    let data = std::fs::read("/proc/self/exe").unwrap();
    let file = object::File::parse(&*data).unwrap();
    let section = |name| file.section_by_name(name).unwrap();
    let (text, eh_frame) = (section(".text"), section(".eh_frame"));
    let code = text.data().unwrap();
    let bases = BaseAddresses::default().set_eh_frame(eh_frame.address()).set_text(text.address());
    let mut frames = EhFrame::new(eh_frame.data().unwrap(), gimli::NativeEndian);
    if HostArch::host().cfi_vendor() == CfiVendor::AArch64 {
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
            if let Some(rule) = HostArch::host().instruction_rule(&window) {
                assert!(agree(&rule, row, window.at), "{:#x}: {rule:?} is not {row:?}", row.start_address());
                *said.entry(format!("{:?}", rule.cfa())).or_default() += 1;
            }
        }
    }
    println!("{said:?}");
    assert!(said.values().sum::<u32>() > 500, "{said:?}");
    assert!(said.len() > 2, "{said:?}");
}

/// `mov %rsp, %rbp`, `mov x29, sp`: what has been saved right before it still is in its register too.
const SETS_FRAME_POINTER: &[u8] =
    if cfg!(target_arch = "x86_64") { &[0x48, 0x89, 0xe5] } else { &[0xfd, 0x03, 0x00, 0x91] };

/// Whether the rule and the row describe the same caller.
fn agree<T: gimli::ReaderOffset>(
    rule: &UnwindUserFrame,
    row: &gimli::UnwindTableRow<T>,
    code: &[u8],
) -> bool {
    let both =
        |rule: RegisterRule<T>| code.starts_with(SETS_FRAME_POINTER) && rule == RegisterRule::SameValue;
    let arch = HostArch::host();
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
        RaRule::InRegister { .. } => column(arch.ra().0) == RegisterRule::SameValue,
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
