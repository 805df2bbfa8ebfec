//! Random instructions, in every form that an entry can have, on random registers and a random stack:
//! rule and full evaluation say what the slow decoder says.

use std::cell::Cell;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use unwind_core::{ByteOrder, Pc};
use unwind_tests::ehabi::{Arm, Body, Frame, Located, Made, Tables, Verdict, judge, locate, parse};

const START: u32 = 0x1_0100;
const END: u32 = 0x1_0200;

/// The bytes of one instruction: mostly what compilers write, sometimes anything.
fn instruction() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (0x00..0x80u8).prop_map(|byte| vec![byte]),
        4 => (0x80..0x90u8, any::<u8>()).prop_map(|(byte, mask)| vec![byte, mask]),
        2 => (0x90..0xa0u8).prop_filter("reserved", |byte| ![0x9d, 0x9f].contains(byte)).prop_map(|byte| vec![byte]),
        4 => (0xa0..0xb0u8).prop_map(|byte| vec![byte]),
        2 => (1..16u8).prop_map(|mask| vec![0xb1, mask]),
        1 => vec(any::<u8>(), 0..3).prop_map(|bytes| {
            let more = bytes.into_iter().map(|byte| byte | 0x80);
            [0xb2].into_iter().chain(more).chain([0x05]).collect()
        }),
        1 => Just(vec![0x80, 0x00]),
        1 => Just(vec![0xb4]),
        1 => Just(vec![0xb5]),
        1 => (0xb8..0xc0u8).prop_map(|byte| vec![byte]),
        1 => (0xc0..0xc6u8).prop_map(|byte| vec![byte]),
        2 => (prop_oneof![Just(0xb3), Just(0xc6), Just(0xc8), Just(0xc9)], 0..8u8, 0..8u8)
            .prop_map(|(byte, first, more)| vec![byte, first << 4 | more]),
        1 => (1..16u8).prop_map(|mask| vec![0xc7, mask]),
        2 => (0xd0..0xd8u8).prop_map(|byte| vec![byte]),
        1 => vec(any::<u8>(), 1..3),
    ]
}

fn body() -> impl Strategy<Value = Body> {
    let bytes = vec(instruction(), 0..12).prop_map(|all| all.concat());
    (bytes, 0..5u8).prop_map(|(bytes, form)| match form {
        0 if bytes.len() <= 3 => Body::Inline(bytes),
        1 if bytes.len() <= 3 => Body::Short(bytes),
        2 => Body::Long(1, bytes),
        3 => Body::Long(2, bytes),
        _ => Body::Generic(0x1_ff01, bytes),
    })
}

fn frame(order: ByteOrder) -> impl Strategy<Value = Frame> {
    let known = prop_oneof![2 => Just(0xffff), 1 => any::<u16>()];
    let made = any::<u64>().prop_map(move |seed| Made { seed, order });
    (made, known, any::<bool>()).prop_map(|(made, known, has_holes)| Frame { made, known, has_holes })
}

fn pc() -> impl Strategy<Value = Pc> {
    let (start, end) = (u64::from(START), u64::from(END));
    prop_oneof![
        Just(Pc::Exact(start)),
        (start..end).prop_map(Pc::Exact),
        (start + 1..=end).prop_map(Pc::Return),
    ]
}

#[test]
fn frames_are_unwound_as_the_slow_decoder_does() {
    let orders = prop_oneof![Just(ByteOrder::Little), Just(ByteOrder::Big)];
    let cases = orders
        .prop_flat_map(|order| (Just(order), prop_oneof![Just(7u16), Just(11)], body(), pc(), frame(order)));
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let [words, full, broken, refused, lacking] = [(); 5].map(|()| Cell::new(0));
    runner
        .run(&cases, |(order, fp, body, pc, frame)| {
            let tables = Tables::new(order)
                .function(START - 4, Body::CannotUnwind)
                .function(START, body)
                .function(END, Body::CannotUnwind)
                .build();
            let Located::Bytes(_, bytes) = locate(&tables.sections(), 1) else { panic!("{tables:x?}") };
            let count = match judge(&Arm { order, fp }, &tables.source(), pc, START.into(), &bytes, frame) {
                Verdict::Unwound { in_words: true } => &words,
                Verdict::Unwound { in_words: false } => &full,
                Verdict::Broken => &broken,
                Verdict::Refused => &refused,
                Verdict::Lacking => &lacking,
            };
            // Tables that pass the full check never fail for what they say.
            assert_eq!(tables.sections().verify().is_ok(), parse(&bytes).is_ok());
            count.set(count.get() + 1);
            Ok(())
        })
        .unwrap();
    let counts = [words, full, broken, refused, lacking].map(Cell::into_inner);
    println!("in words, in full, broken, refused, lacking: {counts:?}");
    for (count, least) in counts.into_iter().zip([3000, 500, 300, 100, 500]) {
        assert!(count >= least, "{counts:?}");
    }
}

/// Values outside the address space: sums that leave it are refused, those that come back are not.
#[test]
fn sums_leave_the_address_space_at_neither_end() {
    for (bytes, seed) in [
        // 4 GiB and more above the stack pointer.
        (vec![0xb2, 0xfe, 0xfe, 0xff, 0xff, 0x03, 0xa8], 1),
        // The same, and from a register again.
        (vec![0xb2, 0xfe, 0xfe, 0xff, 0xff, 0x03, 0xa8, 0x97, 0x84, 0x00], 2),
        (vec![0xb2, 0xfe, 0xfe, 0xff, 0xff, 0x03, 0x82, 0x00, 0x84, 0x00], 3),
        // 3 GiB: in the address space, beyond what a rule has words for.
        (vec![0xb2, 0xff, 0xff, 0xff, 0xff, 0x01, 0x84, 0x00], 4),
        // r11 lies 12 GiB above the stack pointer, which says nothing about what lies at r7.
        (
            [[0xb2, 0xfe, 0xfe, 0xff, 0xff, 0x03]; 3]
                .into_iter()
                .flatten()
                .chain([0x80, 0x80, 0x97, 0x84, 0x00])
                .collect(),
            5,
        ),
    ] {
        let frame = Frame::whole(Made { seed, order: ByteOrder::Little });
        let tables = Tables::new(ByteOrder::Little).function(START, Body::Long(1, bytes)).build();
        let Located::Bytes(_, bytes) = locate(&tables.sections(), 0) else { panic!("{tables:x?}") };
        let pc = Pc::Return(u64::from(START) + 8);
        let verdict = judge(&Arm::LITTLE, &tables.source(), pc, START.into(), &bytes, frame);
        let expected = match seed {
            2 => Verdict::Unwound { in_words: true },
            4 | 5 => Verdict::Unwound { in_words: false },
            _ => Verdict::Lacking,
        };
        assert_eq!(verdict, expected, "{bytes:02x?}");
    }
}
