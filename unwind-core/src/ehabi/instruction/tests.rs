//! Every instruction of table 4, at both ends of its range, and everything that is none.

use std::vec::Vec;

use super::*;

/// What the bytes decode to, as the words of an entry of `.ARM.extab`.
fn decoded(bytes: &[u8]) -> Vec<Result<Instruction, Broken>> {
    let mut words: Vec<u8> = Vec::new();
    let (head, tail) = bytes.split_at(bytes.len() % 4);
    let first = head.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
    for word in tail.chunks(4) {
        words.extend(word.iter().rev());
    }
    let left = u8::try_from(head.len()).unwrap();
    let little = Instructions::new(first | 0xee00_0000, left, &words, ByteOrder::Little, 0x18);
    let big = Instructions::new(first | 0xee00_0000, left, tail, ByteOrder::Big, 0x18);
    let little: Vec<_> = little.collect();
    assert_eq!(little, big.collect::<Vec<_>>());
    assert!(little.iter().all(|item| item.map_or_else(|error| error.offset == 0x18, |_| true)));
    little.into_iter().map(|item| item.map_err(|error| error.broken)).collect()
}

/// That the bytes are this one instruction, and need every byte.
fn one(bytes: &[u8], instruction: Instruction) {
    assert_eq!(decoded(bytes), [Ok(instruction), Ok(Instruction::Finish)], "{bytes:02x?}");
    for len in 1..bytes.len() {
        assert_eq!(decoded(&bytes[..len]), [Err(Broken::UnexpectedEnd)], "{bytes:02x?} cut to {len}");
    }
}

fn none(bytes: &[u8]) {
    assert_eq!(decoded(bytes), [Err(Broken::UnknownInstruction)], "{bytes:02x?}");
}

#[test]
fn the_stack_pointer_moves() {
    one(&[0x00], Instruction::AddVsp(4));
    one(&[0x01], Instruction::AddVsp(8));
    one(&[0x3f], Instruction::AddVsp(0x100));
    one(&[0x40], Instruction::SubVsp(4));
    one(&[0x7f], Instruction::SubVsp(0x100));
}

#[test]
fn large_moves_are_leb128_numbers() {
    one(&[0xb2, 0x00], Instruction::AddVsp(0x204));
    one(&[0xb2, 0x7f], Instruction::AddVsp(0x204 + 0x7f * 4));
    one(&[0xb2, 0x80, 0x01], Instruction::AddVsp(0x204 + 0x80 * 4));
    one(&[0xb2, 0xe5, 0x8e, 0x26], Instruction::AddVsp(0x204 + 624_485 * 4));
    // Longer than it need be.
    one(&[0xb2, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00], Instruction::AddVsp(0x208));
    // The most that fits, and one more.
    one(&[0xb2, 0xfe, 0xfe, 0xff, 0xff, 0x03], Instruction::AddVsp(0xffff_fffc));
    assert_eq!(decoded(&[0xb2, 0xff, 0xfe, 0xff, 0xff, 0x03]), [Err(Broken::BadLeb128)]);
    assert_eq!(decoded(&[0xb2, 0x80, 0x80, 0x80, 0x80, 0x40]), [Err(Broken::BadLeb128)]);
    assert_eq!(decoded(&[0xb2, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]), [Err(Broken::BadLeb128)]);
}

#[test]
fn refusal() {
    // Whatever follows.
    assert_eq!(decoded(&[0x80, 0x00, 0xff]), [Ok(Instruction::Refuse)]);
    assert_eq!(decoded(&[0x80]), [Err(Broken::UnexpectedEnd)]);
}

#[test]
fn core_registers_under_a_mask() {
    for number in 0..8 {
        one(&[0x80, 1 << number], Instruction::Pop(1 << (4 + number)));
    }
    for number in 0..4 {
        one(&[0x80 | 1 << number, 0x00], Instruction::Pop(1 << (12 + number)));
    }
    one(&[0x84, 0x08], Instruction::Pop(1 << 14 | 1 << 7));
    one(&[0x8f, 0xff], Instruction::Pop(0xfff0));
    for mask in 1..16 {
        one(&[0xb1, mask], Instruction::Pop(mask.into()));
    }
}

#[test]
fn core_registers_from_r4() {
    one(&[0xa0], Instruction::Pop(0x0010));
    one(&[0xa3], Instruction::Pop(0x00f0));
    one(&[0xa7], Instruction::Pop(0x0ff0));
    one(&[0xa8], Instruction::Pop(0x4010));
    one(&[0xab], Instruction::Pop(0x40f0));
    one(&[0xaf], Instruction::Pop(0x4ff0));
}

#[test]
fn the_stack_pointer_out_of_a_register() {
    for number in (0..16).filter(|number| ![13, 15].contains(number)) {
        one(&[0x90 | number], Instruction::SetVsp(number));
    }
}

#[test]
fn double_precision_registers() {
    let vfp = |first, count, fstmfdx| Instruction::PopVfp { first, count, fstmfdx };
    one(&[0xb3, 0x00], vfp(0, 1, true));
    one(&[0xb3, 0x0f], vfp(0, 16, true));
    one(&[0xb3, 0x87], vfp(8, 8, true));
    one(&[0xb3, 0xf0], vfp(15, 1, true));
    one(&[0xb8], vfp(8, 1, true));
    one(&[0xbf], vfp(8, 8, true));
    one(&[0xc8, 0x00], vfp(16, 1, false));
    one(&[0xc8, 0x0f], vfp(16, 16, false));
    one(&[0xc8, 0xf0], vfp(31, 1, false));
    one(&[0xc9, 0x0f], vfp(0, 16, false));
    one(&[0xc9, 0xf0], vfp(15, 1, false));
    // D15 to D30: there are 32.
    one(&[0xc9, 0xff], vfp(15, 16, false));
    one(&[0xd0], vfp(8, 1, false));
    one(&[0xd7], vfp(8, 8, false));
}

#[test]
fn wireless_mmx() {
    one(&[0xc0], Instruction::PopWmmx { first: 10, count: 1 });
    one(&[0xc5], Instruction::PopWmmx { first: 10, count: 6 });
    one(&[0xc6, 0x0f], Instruction::PopWmmx { first: 0, count: 16 });
    one(&[0xc6, 0xf0], Instruction::PopWmmx { first: 15, count: 1 });
    for mask in 1..16 {
        one(&[0xc7, mask], Instruction::PopWmmxControl(mask));
    }
}

#[test]
fn return_address_authentication() {
    one(&[0xb4], Instruction::PopAuthCode);
    one(&[0xb5], Instruction::AuthModifier);
}

#[test]
fn reserved_and_spare() {
    for byte in [0x9d, 0x9f, 0xb6, 0xb7, 0xca, 0xcb, 0xcc, 0xcd, 0xce, 0xcf] {
        none(&[byte]);
    }
    (0xd8..=0xff).for_each(|byte| none(&[byte]));
    for prefix in [0xb1, 0xc7] {
        none(&[prefix, 0]);
        (0x10..=0xff).for_each(|mask| none(&[prefix, mask]));
    }
    for (prefix, last) in [(0xb3, 15), (0xc6, 15), (0xc8, 15), (0xc9, 31)] {
        for operand in 0..=0xff_u8 {
            let beyond = (operand >> 4) + (operand & 0x0f) > last;
            let refused = decoded(&[prefix, operand]) == [Err(Broken::UnknownInstruction)];
            assert_eq!(refused, beyond, "{prefix:#x} {operand:#x}");
        }
    }
}

#[test]
fn every_byte_is_something() {
    for byte in 0..=0xff {
        let found = decoded(&[byte, 0x01, 0xb0])[0];
        assert!(matches!(found, Ok(_) | Err(Broken::UnknownInstruction)), "{byte:#x}: {found:?}");
    }
}

#[test]
fn nothing_follows_the_end() {
    assert_eq!(decoded(&[]), [Ok(Instruction::Finish)]);
    assert_eq!(decoded(&[0xb0, 0xff, 0xff]), [Ok(Instruction::Finish)]);
    let words = [0x01, 0xb0, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(decoded(&words), [Ok(Instruction::AddVsp(8)), Ok(Instruction::Finish)]);
}

#[test]
fn text_is_that_of_readelf() {
    let text = |bytes: &[u8]| std::format!("{}", decoded(bytes)[0].unwrap());
    for (bytes, expected) in [
        (&[0x0c][..], "vsp = vsp + 52"),
        (&[0x40], "vsp = vsp - 4"),
        (&[0xb2, 0xf8, 0x01], "vsp = vsp + 1508"),
        (&[0x97], "vsp = r7"),
        (&[0x84, 0x08], "pop {r7, r14}"),
        (&[0xb1, 0x0f], "pop {r0, r1, r2, r3}"),
        (&[0xc9, 0x81], "pop {D8-D9}"),
        (&[0xb8], "pop {D8}"),
        (&[0xc6, 0xa0], "pop {wR10}"),
        (&[0xc7, 0x05], "pop {wCGR0, wCGR2}"),
        (&[0xb4], "pop {ra_auth_code}"),
        (&[0xb0], "finish"),
    ] {
        assert_eq!(text(bytes), expected);
    }
}
