//! Rows.

use unwind_core::sframe::{FlawKind, Place, Row, RowRule};
use unwind_core::{Base, FpRule, FrameKind, RaRule, Register, UnwindUserFrame};

use super::*;

/// The rows of the first function.
fn rows(section: &Section) -> Vec<Result<Row, Broken>> {
    let bytes = section.bytes(SVMA);
    let parsed = parse(&bytes);
    parsed.rows(&parsed.fde(0).unwrap()).map(|row| row.map_err(|error| error.broken)).collect()
}

/// The rule at an offset in the first function; where it is not covered, `None`.
fn rule_at(section: &Section, offset: u64) -> Result<Option<UnwindUserFrame>, Broken> {
    let bytes = section.bytes(SVMA);
    match lookup(section.abi, &SFrameSource::new(&bytes, SVMA), Pc::Exact(TEXT + offset)) {
        Ok(None) => Ok(None),
        Ok(Some(found)) => match found.rule {
            Rule::Frame(frame) => Ok(Some(frame)),
            Rule::Evaluate => panic!("nothing to evaluate"),
        },
        Err(LookupError::Broken(error)) => Err(error.broken),
        Err(error) => panic!("{error:?}"),
    }
}

fn one(version: Version, abi: Abi, row: RowBytes) -> Section {
    Section::new(version, abi, vec![Function::new(TEXT, 64, vec![row])])
}

fn flexible(abi: Abi, words: &[i32]) -> Section {
    let row = RowBytes::new(0, words).on_fp();
    Section::new(Version::V3, abi, vec![Function::new(TEXT, 64, vec![row]).flexible()])
}

fn slot(offset: i32) -> Option<Place> {
    Some(Place { base: None, offset, deref: true })
}

/// Starts of 1, 2 and 4 bytes at their limits, in functions around and above 64 KiB.
#[test]
fn h23_large_functions_and_starts_of_every_width() {
    let edges = [0u32, 1, 0x7f, 0x80, 0xfe, 0xff, 0x100, 0x7fff, 0x8000, 0xfffe, 0xffff, 0x1_0000, 0x1_0001];
    let edges = edges.into_iter().chain([0x12_3456, 0x7fff_ffff, 0x8000_0000, 0xffff_fffd, 0xffff_fffe]);
    for version in VERSIONS {
        for abi in ABIS {
            for (width, largest) in [(1, 0xff), (2, 0xffff), (4, u32::MAX)] {
                let starts: Vec<u32> = edges.clone().filter(|start| *start <= largest).collect();
                let words = |index: usize| i32::try_from(index).unwrap();
                let rows =
                    starts.iter().enumerate().map(|(index, start)| RowBytes::new(*start, &[words(index)]));
                let code = Function::new(TEXT, u32::MAX, rows.collect()).with_wide_starts(width);
                let bytes = Section::new(version, abi, vec![code]).bytes(SVMA);
                assert_eq!(parse(&bytes).validate(), Ok(()));
                for (index, start) in starts.iter().enumerate() {
                    let next = starts.get(index + 1).map_or(u32::MAX - 1, |next| next - 1);
                    for offset in [*start, next] {
                        let scaled = words(index) * if abi == Abi::S390x { 8 } else { 1 };
                        let bias = if abi == Abi::S390x { 160 } else { 0 };
                        let found = cfa_at(&bytes, TEXT + u64::from(offset));
                        assert_eq!(found, Ok(Some(scaled + bias)), "{version:?} {abi:?} {width} {offset:#x}");
                    }
                }
                assert_eq!(cfa_at(&bytes, TEXT + u64::from(u32::MAX)), Ok(None));
            }
        }
    }
}

/// Words of 1, 2 and 4 bytes at their limits; a row each, in one function.
#[test]
fn words_of_every_width() {
    for version in VERSIONS {
        for abi in [Abi::Amd64, Abi::Aarch64Little, Abi::Aarch64Big] {
            let words: [&[i32]; 3] = [
                &[i8::MIN.into(), -1, 0, i8::MAX.into()],
                &[i16::MIN.into(), -129, 128, 0x180, i16::MAX.into()],
                &[i32::MIN, -32_769, 32_768, 0x1_8000, i32::MAX],
            ];
            let mut expected = Vec::new();
            let mut described = Vec::new();
            for (width, words) in [1, 2, 4].into_iter().zip(words) {
                for word in words {
                    let start = described.len() as u32;
                    described.push(RowBytes::new(start, &[*word]).wide(width));
                    expected.push(*word);
                }
            }
            let section = Section::new(version, abi, vec![Function::new(TEXT, 64, described)]);
            assert_eq!(parse(&section.bytes(SVMA)).validate(), Ok(()));
            let found = rows(&section).into_iter().map(|row| match row.unwrap().rule {
                RowRule::Frame { cfa, .. } => cfa.offset,
                rule => panic!("{rule:?}"),
            });
            assert_eq!(found.collect::<Vec<_>>(), expected);
        }
    }
}

/// What comes before a row that makes no sense holds; so does what comes behind it, if it is known
/// where that is.
#[test]
fn bad_rows_among_good_ones() {
    // Words that make no sense: the row alone is lost.
    for version in VERSIONS {
        let words = vec![RowBytes::new(0, &[8]), RowBytes::new(4, &[16, -16, -24]), RowBytes::new(8, &[24])];
        let section = section(version, vec![Function::new(TEXT, 64, words)]);
        let bytes = section.bytes(SVMA);
        let flaw = parse(&bytes).validate().unwrap_err();
        assert_eq!((flaw.fde, flaw.row), (Some(0), Some(1)));
        assert_eq!(rows(&section).iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        for (offset, cfa) in
            [(0, Ok(8)), (3, Ok(8)), (4, Err(Broken::BadRow)), (7, Err(Broken::BadRow)), (8, Ok(24))]
        {
            assert_eq!(cfa_at(&bytes, TEXT + offset), cfa.map(Some), "{offset}");
        }
        // Structure that makes no sense: nothing from there on is known, and neither is the end of the
        // row before.
        let mut out_of_order = [4, 8, 8, 12].map(|start| RowBytes::new(start, &[8])).to_vec();
        let structures = [
            out_of_order.clone(),
            {
                out_of_order[2].start = 3;
                out_of_order.clone()
            },
            {
                out_of_order[2].start = 65;
                out_of_order.clone()
            },
            {
                (out_of_order[2].start, out_of_order[2].info) = (9, 0x63);
                out_of_order
            },
        ];
        for described in structures {
            let bytes = super::section(version, vec![Function::new(TEXT, 64, described)]).bytes(SVMA);
            let flaw = parse(&bytes).validate().unwrap_err();
            assert_eq!((flaw.fde, flaw.row), (Some(0), Some(2)));
            assert!(matches!(flaw.kind, FlawKind::Broken(error) if error.broken == Broken::BadRow));
            let expected = [Ok(None), Ok(Some(8)), Err(Broken::BadRow), Err(Broken::BadRow)];
            assert_eq!([3, 7, 8, 12].map(|offset| cfa_at(&bytes, TEXT + offset)), expected);
        }
    }
}

/// The first row need not be at the start; the last may be at the end, where no pc is.
#[test]
fn rows_at_both_ends() {
    for version in VERSIONS {
        let described = [4, 64].map(|start| RowBytes::new(start, &[8])).to_vec();
        let bytes = section(version, vec![Function::new(TEXT, 64, described.clone())]).bytes(SVMA);
        assert_eq!(parse(&bytes).validate(), Ok(()));
        let found = [0, 3, 4, 63, 64].map(|offset| cfa_at(&bytes, TEXT + offset).unwrap());
        assert_eq!(found, [None, None, Some(8), Some(8), None]);
        // The same in blocks.
        let described = [4, 16].map(|start| RowBytes::new(start, &[8])).to_vec();
        let bytes = section(version, vec![Function::new(TEXT, 64, described).in_blocks(16)]).bytes(SVMA);
        assert_eq!(parse(&bytes).validate(), Ok(()));
        let found = [3, 4, 15, 16, 19, 20].map(|offset| cfa_at(&bytes, TEXT + offset).unwrap());
        assert_eq!(found, [None, Some(8), Some(8), None, None, Some(8)]);
    }
}

/// How many words a default row may have, by ABI.
#[test]
fn numbers_of_words() {
    for version in VERSIONS {
        for abi in ABIS {
            let most = if abi == Abi::Amd64 { 2 } else { 3 };
            for count in 0..16usize {
                let section = one(version, abi, RowBytes::new(0, &vec![16; count]));
                let found = rule_at(&section, 0);
                match count {
                    0 => assert_eq!(found.unwrap().unwrap().ra(), RaRule::Undefined),
                    _ if count <= most => assert!(found.unwrap().is_some(), "{abi:?} {count}"),
                    _ => assert_eq!(found, Err(Broken::BadRow), "{abi:?} {count}"),
                }
            }
        }
    }
}

/// What the words of default rows stand for.
#[test]
fn default_rows() {
    let frame = |version, abi, words: &[i32]| {
        let frame = rule_at(&one(version, abi, RowBytes::new(0, words)), 0).unwrap().unwrap();
        (frame.ra(), frame.fp())
    };
    let in_register = |number| RaRule::InRegister { base: Base::Register(Register(number)), offset: 0 };
    for version in VERSIONS {
        assert_eq!(frame(version, Abi::Amd64, &[8]), (RaRule::AtCfa(-8), FpRule::Unchanged));
        assert_eq!(frame(version, Abi::Amd64, &[8, -16]), (RaRule::AtCfa(-8), FpRule::AtCfa(-16)));
        for (abi, ra) in [(Abi::Aarch64Little, 30), (Abi::Aarch64Big, 30), (Abi::S390x, 14)] {
            assert_eq!(frame(version, abi, &[8]), (in_register(ra), FpRule::Unchanged));
            assert_eq!(frame(version, abi, &[8, -48]), (RaRule::AtCfa(-48), FpRule::Unchanged));
            assert_eq!(frame(version, abi, &[8, -48, -72]), (RaRule::AtCfa(-48), FpRule::AtCfa(-72)));
            // A word of 0 pads, from version 2 on.
            let padded = if version == Version::V1 { RaRule::AtCfa(0) } else { in_register(ra) };
            assert_eq!(frame(version, abi, &[8, 0, -72]), (padded, FpRule::AtCfa(-72)));
            assert_eq!(frame(version, abi, &[8, -48, 0]), (RaRule::AtCfa(-48), FpRule::AtCfa(0)));
        }
    }
}

/// The CFA's offset is stored without its bias, in words; and before version 3, an odd word names a
/// register.
#[test]
fn s390x_bias_and_odd_registers() {
    for (word, offset) in [(0, 160), (20, 320), (-20, 0), (-30, -80), (127, 1176), (-128, -864)] {
        for version in [Version::V2, Version::V3] {
            assert_eq!(
                cfa_at(&one(version, Abi::S390x, RowBytes::new(0, &[word])).bytes(SVMA), TEXT),
                Ok(Some(offset))
            );
        }
        assert_eq!(cfa_at(&flexible(Abi::S390x, &[0x79, word]).bytes(SVMA), TEXT), Ok(Some(offset)));
    }
    // What does not fit into 32 bits any more is refused, not cut.
    let most = (i32::MAX - 160) / 8;
    for (word, is_right) in [(most, true), (most + 1, false), (i32::MAX, false), (i32::MIN, false)] {
        let wide = one(Version::V3, Abi::S390x, RowBytes::new(0, &[word]).wide(4));
        assert_eq!(rule_at(&wide, 0).is_ok(), is_right, "{word}");
    }
    let frame = |version, words: &[i32]| {
        let frame = rule_at(&one(version, Abi::S390x, RowBytes::new(0, words)), 0)?.unwrap();
        Ok::<_, Broken>((frame.ra(), frame.fp()))
    };
    let register = |number| Base::Register(Register(number));
    let expected = (
        RaRule::InRegister { base: register(17), offset: 0 },
        FpRule::InRegister { base: register(16), offset: 0 },
    );
    assert_eq!(frame(Version::V2, &[0, 35, 33]), Ok(expected));
    assert_eq!(frame(Version::V3, &[0, 35, 33]), Ok((RaRule::AtCfa(35), FpRule::AtCfa(33))));
    // sp and fp by their numbers; registers that nobody has.
    let expected =
        (RaRule::InRegister { base: Base::Sp, offset: 0 }, FpRule::InRegister { base: Base::Fp, offset: 0 });
    assert_eq!(frame(Version::V2, &[0, 31, 23]), Ok(expected));
    assert_eq!(frame(Version::V2, &[0, -1, -72]), Err(Broken::BadRow));
    assert_eq!(frame(Version::V2, &[0, -48, -127]), Err(Broken::BadRow));
    let wide = one(Version::V2, Abi::S390x, RowBytes::new(0, &[0, (128 << 1) | 1]).wide(2));
    assert_eq!(rule_at(&wide, 0), Err(Broken::BadRow));
}

/// The same rows in both byte orders say the same, whatever the width of starts and words.
#[test]
fn aarch64_in_both_byte_orders() {
    for version in VERSIONS {
        for starts in [1, 2, 4] {
            for words in [1, 2, 4] {
                let row = |start, words_of: &[i32]| RowBytes::new(start, words_of).wide(words);
                let mut described =
                    vec![row(0, &[0]), row(4, &[16, -8]), row(8, &[112, -8, -16]).on_fp(), row(60, &[])];
                described[1].info |= 0x80;
                let code = |abi| {
                    let mut code = Function::new(TEXT, 64, described.clone()).with_wide_starts(starts);
                    code.info |= 0x20;
                    Section::new(version, abi, vec![code])
                };
                let (little, big) = (code(Abi::Aarch64Little), code(Abi::Aarch64Big));
                assert_ne!(little.bytes(SVMA)[28..], big.bytes(SVMA)[28..]);
                let expected = vec![
                    (0, false, Some((Base::Sp, 0)), None, None),
                    (4, true, Some((Base::Sp, 16)), slot(-8), None),
                    (8, false, Some((Base::Fp, 112)), slot(-8), slot(-16)),
                    (60, false, None, None, None),
                ];
                for section in [little, big] {
                    let bytes = section.bytes(SVMA);
                    assert_eq!(parse(&bytes).validate(), Ok(()));
                    assert!(parse(&bytes).fde(0).unwrap().key_b);
                    let found = rows(&section).into_iter().map(Result::unwrap).map(|row| match row.rule {
                        RowRule::Outermost => (row.start, row.is_mangled, None, None, None),
                        RowRule::Frame { cfa, ra, fp } => {
                            assert!(!cfa.deref);
                            (row.start, row.is_mangled, Some((cfa.base.unwrap(), cfa.offset)), ra, fp)
                        }
                        rule => panic!("{rule:?}"),
                    });
                    assert_eq!(found.collect::<Vec<_>>(), expected);
                }
            }
        }
    }
}

/// The bit is AArch64's alone.
#[test]
fn signed_return_addresses() {
    for version in VERSIONS {
        for abi in ABIS {
            let mut row = RowBytes::new(0, &[16]);
            row.info |= 0x80;
            let found = rows(&one(version, abi, row))[0].unwrap();
            assert_eq!(found.is_mangled, matches!(abi, Abi::Aarch64Little | Abi::Aarch64Big));
        }
    }
}

/// The bit is version 3's alone.
#[test]
fn signal_frames() {
    for version in VERSIONS {
        for rows in [vec![RowBytes::new(0, &[16])], vec![RowBytes::new(0, &[])]] {
            let mut code = Function::new(TEXT, 64, rows);
            code.info = 0x80;
            let section = section(version, vec![code]);
            assert_eq!(parse(&section.bytes(SVMA)).validate(), Ok(()));
            let frame = rule_at(&section, 0).unwrap().unwrap();
            // Nobody is called back from an outermost frame.
            let is_signal = version == Version::V3 && frame.ra() != RaRule::Undefined;
            assert_eq!(frame.kind() == FrameKind::Signal, is_signal, "{version:?} {frame:?}");
        }
    }
}

/// Each shape of a flexible row, on AMD64, with control words for registers 6 (fp), 7 (sp) and 10.
#[test]
fn flexible_rows() {
    let place = |base, offset, deref| Some(Place { base, offset, deref });
    let r10 = Some(Base::Register(Register(10)));
    let cfa = place(Some(Base::Sp), 8, false).unwrap();
    let frame = |ra, fp| Ok(RowRule::Frame { cfa, ra, fp });
    let bad = Err(Broken::BadRow);
    let cases: Vec<(&[i32], Result<RowRule, Broken>)> = vec![
        (&[], Ok(RowRule::Outermost)),
        (&[0x39], bad),
        (&[0], bad),
        (&[0x39, 8], frame(slot(-8), None)),
        // The CFA must be on a register.
        (&[0x38, 8], bad),
        (&[2, 8], bad),
        (&[0, 8], bad),
        (&[0x39, 8, 0], frame(slot(-8), None)),
        (&[0x39, 8, 2], bad),
        (&[0x39, 8, 2, -24], frame(slot(-24), None)),
        (&[0x39, 8, 0x51, 4], frame(place(r10, 4, false), None)),
        (&[0x39, 8, 0x53, 4], frame(place(r10, 4, true), None)),
        // The unused bit.
        (&[0x3d, 8], bad),
        (&[0x39, 8, 6, -24], bad),
        (&[0x39, 8, 4, -24], bad),
        (&[0x39, 8, 0, 0], frame(slot(-8), None)),
        (&[0x39, 8, 0, 2], bad),
        (&[0x39, 8, 0, 2, -16], frame(slot(-8), slot(-16))),
        (&[0x39, 8, 2, -24, 0], frame(slot(-24), None)),
        (&[0x39, 8, 2, -24, 0x31, 0], frame(slot(-24), place(Some(Base::Fp), 0, false))),
        (&[0x39, 8, 2, -24, 0x33, 0], frame(slot(-24), place(Some(Base::Fp), 0, true))),
        (&[0x39, 8, 2, -24, 0x80, -16], frame(slot(-24), place(None, -16, false))),
        (&[0x39, 8, 2, -24, 2], bad),
        (&[0x39, 8, 2, -24, 2, -16, 0], bad),
        (&[0x39, 8, 2, -24, 2, -16, 2, -32], bad),
        (&[0x39, 8, 0, 0, 0], bad),
    ];
    for (words, expected) in cases {
        let section = flexible(Abi::Amd64, words);
        assert_eq!(rows(&section)[0].map(|row| row.rule), expected, "{words:?}");
        assert_eq!(rule_at(&section, 0).is_ok(), expected.is_ok(), "{words:?}");
        assert_eq!(parse(&section.bytes(SVMA)).validate().is_ok(), expected.is_ok(), "{words:?}");
    }
    // Without a rule, what the header fixes applies to both.
    let mut fixed = flexible(Abi::Amd64, &[0x39, 8]);
    fixed.fixed_fp = -16;
    assert_eq!(rows(&fixed)[0].unwrap().rule, frame(slot(-8), slot(-16)).unwrap());
    // 31 as a control word of one byte, and numbers that no register has.
    let wide = |width, control| {
        let row = RowBytes::new(0, &[control, 16]).on_fp().wide(width);
        Section::new(Version::V3, Abi::Aarch64Little, vec![Function::new(TEXT, 64, vec![row]).flexible()])
    };
    assert_eq!(cfa_at(&wide(1, 0xf9).bytes(SVMA), TEXT), Ok(Some(16)));
    assert_eq!(cfa_at(&wide(2, 127 << 3 | 1).bytes(SVMA), TEXT), Ok(Some(16)));
    assert_eq!(cfa_at(&wide(2, 128 << 3 | 1).bytes(SVMA), TEXT), Err(Broken::BadRow));
    assert_eq!(cfa_at(&wide(2, 0xfff9).bytes(SVMA), TEXT), Err(Broken::BadRow));
    assert_eq!(cfa_at(&wide(4, -5).bytes(SVMA), TEXT), Err(Broken::BadRow));
    assert_eq!(cfa_at(&wide(4, 0x1_0000 << 3 | 1).bytes(SVMA), TEXT), Err(Broken::BadRow));
}

/// Rows that can be read and that no rule can say: found by the full check, refused at lookup.
#[test]
fn rows_that_no_rule_can_say() {
    let wide = |words: &[i32]| {
        let row = RowBytes::new(0, words).on_fp().wide(4);
        section(Version::V3, vec![Function::new(TEXT, 64, vec![row]).flexible()])
    };
    let mut unfixed = one(Version::V2, Abi::Amd64, RowBytes::new(0, &[8]));
    unfixed.fixed_ra = 0;
    for (section, is_right) in [
        // A return address is no stack address.
        (wide(&[0x39, 8, 0x80, -8]), false),
        // The offset of a dereferenced CFA has 23 bits.
        (wide(&[0x33, 0x3f_ffff]), true),
        (wide(&[0x33, 0x40_0000]), false),
        (wide(&[0x33, -0x40_0000]), true),
        (wide(&[0x33, -0x40_0001]), false),
        (wide(&[0x31, i32::MAX]), true),
        // AMD64 has no register for the return address.
        (unfixed, false),
    ] {
        assert!(rows(&section)[0].is_ok());
        let bytes = section.bytes(SVMA);
        match is_right {
            true => assert_eq!(parse(&bytes).validate(), Ok(())),
            false => assert_eq!(parse(&bytes).validate().unwrap_err().kind, FlawKind::NoRule),
        }
        assert_eq!(rule_at(&section, 0).err(), (!is_right).then_some(Broken::BadRow));
    }
}
