//! What the instruction at an exact pc says by itself.
//!
//! Only what leaves no doubt, for code that no table covers; where there is doubt, there is no
//! rule.
//!
//! * **`push %ebp` before `mov %esp, %ebp`, and that `mov` after it**, where a function can be seen to
//!   begin: after `endbr32`, padding, or the `ret` or `jmp` that ends the one before. Not anywhere
//!   else: functions that realign their stack have moved sp by then, and a byte that looks like
//!   `push %ebp` before a `mov %esp, %ebp` may be the end of `je`.
//! * **`endbr32`** alone says nothing: it also marks landing pads, targets of computed jumps and
//!   the return of `setjmp`, in the middle of functions. It counts before the two instructions
//!   above.
//! * **`ret`**, and what only leads to it (`pop`, `add $n, %esp`, `leave`): these instructions tell
//!   what will be executed next, whatever the function is. An exception are jumps that are made of
//!   a `ret` (retpolines): after `push` or a store to `(%esp)` there is no rule. (Call frame information
//!   of glibc 2.36 says the same at 18,600 such places. At 290 it does not: in hand-written string
//!   functions, where by it the return address of a `ret` is not on top of the stack.)

use unwind_core::{Code, UnwindUserFrame};

const ENDBR32: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfb];
const PUSH_EBP: u8 = 0x55;
/// `mov %esp, %ebp`, in both encodings.
const MOV_EBP: [&[u8]; 2] = [&[0x89, 0xe5], &[0x8b, 0xec]];

/// The rule that the instruction at the pc implies.
pub(crate) fn rule(code: &Code<'_>) -> Option<UnwindUserFrame> {
    prologue(code).or_else(|| epilogue(code))
}

fn prologue(code: &Code<'_>) -> Option<UnwindUserFrame> {
    let entry = UnwindUserFrame::plain(false, 4, -4, None);
    let sets_frame_pointer = |code: &[u8]| MOV_EBP.iter().any(|mov| code.starts_with(mov));
    if let Some([PUSH_EBP, rest @ ..]) = code.at.strip_prefix(ENDBR32) {
        return sets_frame_pointer(rest).then_some(entry);
    }
    if let [PUSH_EBP, rest @ ..] = code.at {
        return (sets_frame_pointer(rest) && function_begins(code.before)).then_some(entry);
    }
    if let [before @ .., PUSH_EBP] = code.before {
        let pushed = UnwindUserFrame::plain(false, 8, -4, Some(-8));
        return (sets_frame_pointer(code.at) && function_begins(before)).then_some(pushed);
    }
    None
}

/// Whether a function begins after these bytes.
fn function_begins(before: &[u8]) -> bool {
    before.ends_with(ENDBR32)
        || match before {
            // Padding: int3, nop and its longer forms.
            [.., 0xcc, 0xcc] | [.., 0x90 | 0x66, 0x90] => true,
            [before @ .., 0xcc | 0x90] => ends_function(before) || is_long_nop(before),
            _ => ends_function(before) || is_long_nop(before),
        }
}

/// Whether the bytes end in one of the assemblers' long nops: `lea` of %esi to itself, or those of
/// later processors. (Prefixes before them do not matter.)
fn is_long_nop(before: &[u8]) -> bool {
    matches!(
        before,
        [.., 0x8d, 0x76, 0x00]
            | [.., 0x8d, 0x74, 0x26, 0x00]
            | [.., 0x8d, 0xb6, 0, 0, 0, 0]
            | [.., 0x8d, 0xb4, 0x26, 0, 0, 0, 0]
            | [.., 0x0f, 0x1f, 0x00]
            | [.., 0x0f, 0x1f, 0x40, 0]
            | [.., 0x0f, 0x1f, 0x44, 0, 0]
            | [.., 0x0f, 0x1f, 0x80, 0, 0, 0, 0]
            | [.., 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0]
    )
}

/// Whether the bytes end in a `ret` after what usually comes before one, or in a `jmp`. The last
/// byte alone could belong to another instruction, such as `add $0x55, %ebx` = 83 c3 55.
fn ends_function(before: &[u8]) -> bool {
    matches!(
        before,
        // pop %r; leave
        [.., 0x58..=0x5f | 0xc9, 0xc3]
            // add $n, %esp
            | [.., 0x83, 0xc4, _, 0xc3]
            | [.., 0x81, 0xc4, _, _, _, _, 0xc3]
            // xor %eax, %eax; rep
            | [.., 0x31, 0xc0, 0xc3]
            | [.., 0xf3, 0xc3]
            | [.., 0xe9, _, _, _, 0x00 | 0xff]
    )
}

/// Follows the instructions at the pc to the `ret`, if they lead straight there.
fn epilogue(code: &Code<'_>) -> Option<UnwindUserFrame> {
    if let [0xc9, rest @ ..] = code.at {
        let leave = UnwindUserFrame::plain(true, 8, -4, Some(-8));
        return is_ret(rest).then_some(leave);
    }
    if is_ret(code.at) && replaces_return_address(code.before) {
        return None;
    }
    let mut rest = code.at;
    let mut popped: i32 = 0;
    let mut ebp = None;
    // Every turn takes at least one of the window's 16 bytes.
    while !is_ret(rest) {
        let size;
        (size, rest) = match rest {
            [0x5d, rest @ ..] => {
                ebp = Some(popped);
                (4, rest)
            }
            // pop %esp is no epilogue.
            [0x5c, ..] => return None,
            [0x58..=0x5f, rest @ ..] => (4, rest),
            [0x83, 0xc4, size @ 0..0x80, rest @ ..] => (i32::from(*size), rest),
            [0x81, 0xc4, a, b, c, d @ 0..0x80, rest @ ..] => (i32::from_le_bytes([*a, *b, *c, *d]), rest),
            _ => return None,
        };
        popped = popped.checked_add(size)?;
    }
    let cfa = popped.checked_add(4)?;
    let fp = match ebp {
        Some(at) => Some(at.checked_sub(cfa)?),
        None => None,
    };
    Some(UnwindUserFrame::plain(false, cfa, -4, fp))
}

/// `ret`, `rep ret`, `bnd ret`, `ret $n`.
fn is_ret(code: &[u8]) -> bool {
    matches!(code, [0xc3, ..] | [0xf3 | 0xf2, 0xc3, ..] | [0xc2, _, _, ..])
}

/// Whether the bytes end in an instruction that makes the `ret` after it a jump: `push %r`,
/// `push $n`, or `mov %r, (%esp)`.
fn replaces_return_address(before: &[u8]) -> bool {
    matches!(
        before,
        [.., 0x50..=0x57]
            | [.., 0x68, _, _, _, _]
            | [.., 0x89, 0x04 | 0x0c | 0x14 | 0x1c | 0x24 | 0x2c | 0x34 | 0x3c, 0x24]
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    fn says(before: &[u8], at: &[u8]) -> Option<UnwindUserFrame> {
        rule(&Code { before, at })
    }

    /// `CFA = sp + cfa`, and the caller's %ebp below it, if it is on the stack.
    fn sp(cfa: i32, ebp: Option<i32>) -> Option<UnwindUserFrame> {
        Some(UnwindUserFrame::plain(false, cfa, -4, ebp))
    }

    /// What stands before functions: an end of the one before, and padding.
    const BEGINNINGS: [&[u8]; 16] = [
        // endbr32
        &[0xc3, 0xf3, 0x0f, 0x1e, 0xfb],
        // pop %ebp; ret
        &[0x5d, 0xc3],
        // leave; ret
        &[0xc9, 0xc3],
        // add $8, %esp; ret
        &[0x83, 0xc4, 0x08, 0xc3],
        // add $0x1000, %esp; ret
        &[0x81, 0xc4, 0x00, 0x10, 0x00, 0x00, 0xc3],
        // xor %eax, %eax; ret
        &[0x31, 0xc0, 0xc3],
        // rep ret
        &[0xf3, 0xc3],
        // pop %ebx; ret; int3
        &[0x5b, 0xc3, 0xcc],
        // jmp
        &[0xe9, 0x12, 0x34, 0x56, 0xff],
        // Padding of several lengths, as gas makes it.
        &[0xcc, 0xcc],
        &[0x66, 0x90],
        &[0x8d, 0x76, 0x00],
        &[0x8d, 0x74, 0x26, 0x00],
        &[0x8d, 0xb6, 0x00, 0x00, 0x00, 0x00],
        &[0x2e, 0x8d, 0xb4, 0x26, 0x00, 0x00, 0x00, 0x00],
        &[0x2e, 0x8d, 0xb4, 0x26, 0x00, 0x00, 0x00, 0x00, 0x90],
    ];

    /// push %ebp; mov %esp, %ebp; push %ebx
    const PROLOGUE: &[u8] = &[0x55, 0x89, 0xe5, 0x53];
    /// The same with the other encoding of mov.
    const OTHER_PROLOGUE: &[u8] = &[0x55, 0x8b, 0xec, 0x53];

    #[test]
    fn where_a_function_begins_its_prologue_is_known() {
        for prologue in [PROLOGUE, OTHER_PROLOGUE] {
            for before in BEGINNINGS {
                assert_eq!(says(before, prologue), sp(4, None), "after {before:x?}");
                let pushed = [before, &prologue[..1]].concat();
                assert_eq!(says(&pushed, &prologue[1..]), sp(8, Some(-8)), "after {before:x?}");
                // After the mov the frame pointer tells.
                let set_up = [before, &prologue[..3]].concat();
                assert_eq!(says(&set_up, &prologue[3..]), None);
            }
            let landed = [ENDBR32, prologue].concat();
            assert_eq!(says(&[], &landed), sp(4, None));
        }
    }

    #[test]
    fn elsewhere_the_same_bytes_say_nothing() {
        let elsewhere: [&[u8]; 9] = [
            &[],
            // test %edi, %edi; je, 0x55 bytes ahead.
            &[0x85, 0xff, 0x74],
            // main, realigning its stack: lea 4(%esp), %ecx; and $-16, %esp; push -4(%ecx).
            &[0x8d, 0x4c, 0x24, 0x04, 0x83, 0xe4, 0xf0, 0xff, 0x71, 0xfc],
            // push %edi
            &[0x57],
            // add $0x55, %ebx has the last two bytes of pop, ret, push.
            &[0x83, 0xc3],
            // add $-112, %eax and add $-52, %eax end like padding.
            &[0x83, 0xc0, 0x90],
            &[0x83, 0xc0, 0xcc],
            // sub $0x20, %esp
            &[0x83, 0xec, 0x20],
            // call
            &[0xe8, 0x12, 0x34, 0x00, 0x00],
        ];
        for before in elsewhere {
            assert_eq!(says(before, PROLOGUE), None, "after {before:x?}");
            assert_eq!(says(&[before, &[0x55]].concat(), &PROLOGUE[1..]), None, "after {before:x?}");
        }
        // endbr32 at a landing pad, and before something else than a frame pointer; endbr64.
        for after in [&[0x89, 0xc3][..], &[0x55, 0x53], &[0x83, 0xec, 0x08], &[0xff, 0x25], &[]] {
            assert_eq!(says(&[0xc3], &[ENDBR32, after].concat()), None);
        }
        assert_eq!(says(&[], &[&[0xf3, 0x0f, 0x1e, 0xfa], PROLOGUE].concat()), None);
        // Without the push.
        assert_eq!(says(&[0x5d, 0xc3], &PROLOGUE[1..]), None);
    }

    #[test]
    fn what_leads_to_a_return_is_followed() {
        let before = [0x90; 16];
        // ret; rep ret; bnd ret; ret $4, after which the callee's arguments are gone: they are no part
        // of the CFA.
        for ret in [&[0xc3][..], &[0xf3, 0xc3], &[0xf2, 0xc3], &[0xc2, 0x04, 0x00]] {
            let after = |code: &[u8]| says(&before, &[code, ret, &[0xcc; 3]].concat());
            assert_eq!(after(&[]), sp(4, None));
            // pop %ebx
            assert_eq!(after(&[0x5b]), sp(8, None));
            // pop %ebp
            assert_eq!(after(&[0x5d]), sp(8, Some(-8)));
            // pop %ebx; pop %esi; pop %edi; pop %ebp
            assert_eq!(after(&[0x5b, 0x5e, 0x5f, 0x5d]), sp(20, Some(-8)));
            // add $24, %esp; pop %ebp; pop %ebx
            assert_eq!(after(&[0x83, 0xc4, 0x18, 0x5d, 0x5b]), sp(36, Some(-12)));
            // add $0x1008, %esp; pop %ebx
            assert_eq!(after(&[0x81, 0xc4, 0x08, 0x10, 0x00, 0x00, 0x5b]), sp(0x1010, None));
            // leave
            assert_eq!(after(&[0xc9]), Some(UnwindUserFrame::plain(true, 8, -4, Some(-8))));
        }
    }

    #[test]
    fn what_does_not_surely_return_says_nothing() {
        let nothing: [&[u8]; 9] = [
            // pop %esp; ret
            &[0x5c, 0xc3],
            // pop %eax; jmp *%eax
            &[0x58, 0xff, 0xe0],
            // pop %ebx; call
            &[0x5b, 0xe8, 0, 0, 0, 0, 0xc3],
            // lea -4(%ecx), %esp; ret: the end of a function that realigned its stack.
            &[0x8d, 0x61, 0xfc, 0xc3],
            // sub $8, %esp; ret; add $-8, %esp; ret
            &[0x83, 0xec, 0x08, 0xc3],
            &[0x83, 0xc4, 0xf8, 0xc3],
            // leave; pop %ebx; ret
            &[0xc9, 0x5b, 0xc3],
            &[],
            &[0xc2, 0x10],
        ];
        for at in nothing {
            assert_eq!(says(&[0x90; 16], at), None, "{at:x?}");
        }
        // Jumps made of a ret: push %eax; push $0x1000; mov %eax, (%esp).
        let jumps: [&[u8]; 3] = [&[0x50], &[0x68, 0x00, 0x10, 0x00, 0x00], &[0x89, 0x04, 0x24]];
        for before in jumps {
            assert_eq!(says(before, &[0xc3]), None, "{before:x?}");
        }
    }

    #[test]
    fn offsets_that_add_up_too_far_say_nothing() {
        let add = [0x81, 0xc4, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(says(&[], &[&add[..], &[0xc3]].concat()), None);
        assert_eq!(says(&[], &[&add[..], &add, &[0xc3]].concat()), None);
    }

    #[test]
    fn a_shorter_window_never_says_something_else() {
        let lines: [&[u8]; 5] = [
            PROLOGUE,
            &[0xf3, 0x0f, 0x1e, 0xfb, 0x55, 0x89, 0xe5],
            &[0x5b, 0x5e, 0x5f, 0x5d, 0xc3],
            &[0x81, 0xc4, 0x08, 0x10, 0x00, 0x00, 0x5b, 0xc2, 0x08, 0x00],
            &[0xc9, 0xf3, 0xc3],
        ];
        for before in BEGINNINGS {
            for line in lines {
                let all: Vec<u8> = [before, line].concat();
                for pc in 0..all.len() {
                    let full = says(&all[..pc], &all[pc..]);
                    for end in pc..all.len() {
                        let cut = says(&all[..pc], &all[pc..end]);
                        assert!(cut.is_none() || cut == full, "{all:x?} at {pc} cut to {end}");
                    }
                    for start in 0..=pc {
                        let cut = says(&all[start..pc], &all[pc..]);
                        assert!(cut.is_none() || cut == full, "{all:x?} at {pc} from {start}");
                    }
                }
            }
        }
    }
}
