//! Functions and rows → section → rows, for every version and ABI.
//!
//! What was written must be found by lookups, at the first and the last address of every row, and
//! nothing around it; the section must pass [`SFrameSection::validate`]; and what cannot be said
//! must be reported and not found.

use std::num::NonZeroU8;

use proptest::prelude::*;
use unwind_core::sframe::{
    Abi, Inexpressible, RowKind, RowStart, SFrameFormat, SFrameSection, SFrameSource, SFrameWriter, Version,
    WriteError, WriteFunction, WriteRow, write_to_vec,
};
use unwind_core::{Base, CfaRule, FpRule, FrameKind, Pc, RaRule, Register, Rule, UnwindUserFrame};
use unwind_tests::sframe::lookup;

/// A function and its rows.
#[derive(Clone, Debug)]
struct Function {
    function: WriteFunction,
    rows: Vec<WriteRow>,
}

#[derive(Clone, Debug)]
struct Case {
    format: SFrameFormat,
    functions: Vec<Function>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// What the version and ABI can say is said.
    #[test]
    fn what_can_be_said_comes_back(case in case(true)) {
        check(&case, true);
    }

    /// What they cannot is reported, and the rest is still right.
    #[test]
    fn anything_comes_back_or_is_refused(case in case(false)) {
        check(&case, false);
    }
}

fn check(case: &Case, can_be_said: bool) {
    let Case { format, functions } = case;
    let mut refused = Vec::new();
    let write = |room: &mut [u8], refused: &mut Vec<_>| {
        let mut writer = SFrameWriter::new(*format, room);
        for function in functions {
            writer
                .function(&function.function, function.rows.iter().copied(), &mut |what| refused.push(what));
        }
        writer.finish(&mut |what| refused.push(what)).map(<[u8]>::to_vec)
    };
    let Err(WriteError::NoRoom { needed }) = write(&mut [], &mut Vec::new()) else {
        panic!("no room needed")
    };
    let error = write(&mut vec![0; needed - 1], &mut Vec::new());
    assert_eq!(error, Err(WriteError::NoRoom { needed }));
    let section = write(&mut vec![0xaa; needed], &mut refused).unwrap();
    assert_eq!(section.len(), needed);
    assert_eq!(write(&mut vec![0x55; needed + 1000], &mut Vec::new()).unwrap(), section);
    let vector = write_to_vec(
        *format,
        |writer, refused| {
            for function in functions {
                writer.function(&function.function, function.rows.iter().copied(), refused);
            }
        },
        &mut |_| {},
    );
    assert_eq!(vector.unwrap(), section);
    if can_be_said {
        assert_eq!(refused, []);
    }

    let parsed = SFrameSection::parse(&section, format.svma).unwrap();
    assert_eq!(parsed.validate(), Ok(()));
    assert_eq!(parsed.data().len(), section.len());
    assert_minimal(&parsed);
    let source = SFrameSource::new(&section, format.svma);
    let found = |address| {
        lookup(format.abi, &source, Pc::Exact(address)).unwrap().map(|found| match found.rule {
            Rule::Frame(frame) => frame,
            Rule::Evaluate => panic!("SFrame has no expressions"),
        })
    };
    let cause = |address: u64| {
        let mut causes =
            refused.iter().filter(|what| (what.start..what.start + what.size).contains(&address));
        let cause = causes.next().map(|what| what.cause);
        assert_eq!(causes.next(), None);
        cause
    };
    for Function { function, rows } in functions {
        let end = function.start + u64::from(function.size);
        for (address, row) in places(function, rows) {
            let frame = row.and_then(|row| row.frame);
            match (found(address), frame, cause(address)) {
                (Some(found), Some(frame), None) => {
                    assert_eq!(found, canonical(format.abi, &frame), "at {address:#x}");
                    let fde = parsed.find(address, None).unwrap().unwrap();
                    let read = parsed.row_at(&fde, address).unwrap().unwrap();
                    let is_aarch64 = matches!(format.abi, Abi::Aarch64Little | Abi::Aarch64Big);
                    let is_outermost = frame.ra() == RaRule::Undefined;
                    let row = row.unwrap();
                    assert_eq!(read.is_mangled, row.is_mangled && is_aarch64 && !is_outermost);
                    assert_eq!(fde.key_b, function.key_b && is_aarch64);
                    assert_eq!(fde.block_size, function.block_size.map(|block| block.get().into()));
                }
                (None, Some(_), Some(_)) => {}
                // Blocks are written as a whole or not at all.
                (None, None, Some(_)) if function.block_size.is_some() && !rows.is_empty() => {}
                (None, None, None) => {}
                (found, frame, cause) => panic!("at {address:#x}: {found:?}, {frame:?}, {cause:?}"),
            }
        }
        for outside in [function.start - 1, end] {
            let covered = |of: &&Function| {
                (of.function.start..of.function.start + u64::from(of.function.size)).contains(&outside)
            };
            if functions.iter().find(covered).is_none() {
                assert_eq!(found(outside), None);
            }
        }
    }
}

/// The first and the last address of every row, with the row, and of what comes before.
fn places<'r>(function: &WriteFunction, rows: &'r [WriteRow]) -> Vec<(u64, Option<&'r WriteRow>)> {
    let limit = function.block_size.map_or(function.size, |block| function.size.min(block.get().into()));
    let first = rows.first().map_or(limit, |row| row.start);
    let mut places = vec![(0..first, None)];
    for (index, row) in rows.iter().enumerate() {
        let end = rows.get(index + 1).map_or(limit, |next| next.start);
        places.push((row.start..end, Some(row)));
    }
    // In blocks also in the second and in the last one.
    let blocks: Vec<u64> = match function.block_size {
        Some(block) => {
            let (size, block) = (u64::from(function.size), u64::from(block.get()));
            [0, 1, (size - 1) / block].into_iter().map(|index| index * block).collect()
        }
        None => vec![0],
    };
    let mut all = Vec::new();
    for block in blocks {
        for (range, row) in &places {
            for offset in [range.start, range.end.wrapping_sub(1)] {
                if range.contains(&offset) && block + u64::from(offset) < u64::from(function.size) {
                    all.push((function.start + block + u64::from(offset), *row));
                }
            }
        }
    }
    all
}

/// The same rule as a reader of sections puts it.
fn canonical(abi: Abi, frame: &UnwindUserFrame) -> UnwindUserFrame {
    if frame.ra() == RaRule::Undefined {
        let cfa = CfaRule::Offset { base: Base::Sp, offset: 0 };
        return UnwindUserFrame::new(cfa, RaRule::Undefined, FpRule::Undefined).unwrap();
    }
    let named = |base: Base| match base {
        Base::Register(register) if register == abi.sp() => Base::Sp,
        Base::Register(register) if register == abi.fp() => Base::Fp,
        base => base,
    };
    let cfa = match frame.cfa() {
        CfaRule::Offset { base, offset } => CfaRule::Offset { base: named(base), offset },
        CfaRule::Deref { base, offset, add } => CfaRule::Deref { base: named(base), offset, add },
    };
    let ra = match frame.ra() {
        RaRule::InRegister { base, offset } => RaRule::InRegister { base: named(base), offset },
        RaRule::AtRegister { base, offset } => RaRule::AtRegister { base: named(base), offset },
        ra => ra,
    };
    let fp = match frame.fp() {
        FpRule::InRegister { base, offset } => FpRule::InRegister { base: named(base), offset },
        FpRule::AtRegister { base, offset } => FpRule::AtRegister { base: named(base), offset },
        fp => fp,
    };
    let canonical = UnwindUserFrame::new(cfa, ra, fp).unwrap();
    if frame.kind() == FrameKind::Signal { canonical.signal() } else { canonical }
}

/// Starts of rows are stored in no more bytes than they need, flexible rows used only where needed.
fn assert_minimal(section: &SFrameSection<'_>) {
    for fde in section.fdes() {
        let fde = fde.unwrap();
        let last = section.rows(&fde).last().unwrap().unwrap().start;
        let least = match last {
            0..=0xff => RowStart::Addr1,
            0x100..=0xffff => RowStart::Addr2,
            _ => RowStart::Addr4,
        };
        assert_eq!(fde.row_start, least);
        if section.header().version != Version::V3 {
            assert_eq!(fde.row_kind, RowKind::Default);
        }
    }
}

const FORMATS: [(Version, Abi); 10] = [
    (Version::V1, Abi::Amd64),
    (Version::V1, Abi::Aarch64Little),
    (Version::V2, Abi::Amd64),
    (Version::V2, Abi::Aarch64Little),
    (Version::V2, Abi::Aarch64Big),
    (Version::V2, Abi::S390x),
    (Version::V3, Abi::Amd64),
    (Version::V3, Abi::Aarch64Little),
    (Version::V3, Abi::Aarch64Big),
    (Version::V3, Abi::S390x),
];

/// Where functions begin to be laid out.
const FIRST: u64 = 0x1_0000_0000;

fn case(can_be_said: bool) -> impl Strategy<Value = Case> {
    (
        proptest::sample::select(&FORMATS[..]),
        prop_oneof![Just(FIRST), Just(FIRST - 0x1000), Just(FIRST + 0x1000_0000)],
    )
        .prop_flat_map(move |((version, abi), svma)| {
            let format = SFrameFormat { version, abi, svma };
            let function = (function(format, can_be_said), prop_oneof![Just(0u64), 1..300u64]);
            let functions = proptest::collection::vec(function, 0..8).prop_map(|functions| {
                let mut next = FIRST;
                let place = |(mut function, gap): (Function, u64)| {
                    function.function.start = next + gap;
                    next = function.function.start + u64::from(function.function.size);
                    function
                };
                functions.into_iter().map(place).collect::<Vec<_>>()
            });
            functions.prop_shuffle().prop_map(move |functions| Case { format, functions })
        })
}

fn function(format: SFrameFormat, can_be_said: bool) -> impl Strategy<Value = Function> {
    let size = prop_oneof![3 => 1..300u32, 2 => 300..70_000u32, 1 => 70_000..300_000u32];
    let v1 = format.version == Version::V1;
    let block = if v1 && can_be_said { 16..=16u8 } else { 1..=255u8 };
    let block_size = prop_oneof![5 => Just(None), 1 => block.prop_map(NonZeroU8::new)];
    let signal = if format.version == Version::V3 {
        prop_oneof![4 => Just(false), 1 => Just(true)].boxed()
    } else {
        Just(false).boxed()
    };
    (size, block_size, any::<bool>(), signal).prop_flat_map(move |(size, block_size, key_b, is_signal)| {
        let limit = block_size.map_or(size, |block| size.min(block.get().into()));
        let starts = prop_oneof![Just(true), any::<bool>()]
            .prop_flat_map(move |first| (Just(first), proptest::collection::btree_set(0..limit, 0..12)))
            .prop_map(|(first, mut starts)| {
                if first {
                    starts.insert(0);
                }
                starts.into_iter().collect::<Vec<_>>()
            });
        let frame = if can_be_said {
            let holes = if block_size.is_some() { 0 } else { 1 };
            let frame = expressible(format).prop_map(move |frame| if is_signal { frame.signal() } else { frame });
            prop_oneof![10 => frame.prop_map(Some), holes => Just(None)].boxed()
        } else {
            prop_oneof![6 => expressible(format).prop_map(Some), 3 => any_frame().prop_map(Some), 1 => Just(None)].boxed()
        };
        let row = (frame, any::<bool>());
        (starts, proptest::collection::vec(row, 13)).prop_map(move |(starts, rows)| {
            let row = |(start, (frame, is_mangled))| WriteRow { start, frame, is_mangled };
            let rows = starts.into_iter().zip(rows).map(row).collect();
            Function { function: WriteFunction { start: 0, size, block_size, key_b }, rows }
        })
    })
}

fn offset() -> impl Strategy<Value = i32> + Clone {
    prop_oneof![
        4 => -130..130i32,
        2 => -33_000..33_000i32,
        1 => any::<i32>(),
        1 => proptest::sample::select(&[i32::MIN, i32::MAX, -129, -128, 127, 128, -32_769, -32_768, 32_767, 32_768, 0][..]),
    ]
}

fn base() -> impl Strategy<Value = Base> + Clone {
    prop_oneof![
        Just(Base::Sp),
        Just(Base::Fp),
        (0..128u16).prop_map(|number| Base::Register(Register(number)))
    ]
}

/// Frames that this version and ABI can say.
fn expressible(format: SFrameFormat) -> BoxedStrategy<UnwindUserFrame> {
    let SFrameFormat { version, abi, .. } = format;
    let link = RaRule::InRegister { base: Base::Register(abi.ra()), offset: 0 };
    let even = offset().prop_map(|offset| offset & !1);
    let cfa_offset = match abi {
        Abi::S390x => (-0x1000_0000..0x0fff_ff00i32).prop_map(|word| word * 8 + 160).boxed(),
        _ => offset().boxed(),
    };
    let in_register = |base: Base| (base, 0);
    let nonzero = |offset: i32| if offset == 0 { 8 } else { offset };
    let plain_base = prop_oneof![Just(Base::Sp), Just(Base::Fp)];
    let (cfa, ra_and_fp) = if version == Version::V3 {
        let deref = (base(), -0x80_0000..0x80_0000i32).prop_map(move |(base, offset)| {
            let offset = if abi == Abi::S390x { offset & !7 } else { offset };
            CfaRule::Deref { base, offset, add: 0 }
        });
        let cfa = prop_oneof![
            (base(), cfa_offset).prop_map(|(base, offset)| CfaRule::Offset { base, offset }),
            deref,
        ];
        let ra = prop_oneof![
            2 => Just(if abi == Abi::Amd64 { RaRule::AtCfa(-8) } else { link }),
            1 => offset().prop_map(RaRule::AtCfa),
            1 => (base(), offset()).prop_map(|(base, offset)| RaRule::InRegister { base, offset }),
            1 => (base(), offset()).prop_map(|(base, offset)| RaRule::AtRegister { base, offset }),
            1 => Just(RaRule::Undefined),
        ];
        let fp = prop_oneof![
            Just(FpRule::Unchanged),
            offset().prop_map(FpRule::AtCfa),
            (base(), offset()).prop_map(|(base, offset)| FpRule::InRegister { base, offset }),
            (base(), offset()).prop_map(|(base, offset)| FpRule::AtRegister { base, offset }),
        ];
        (cfa.boxed(), (ra, fp).boxed())
    } else {
        let cfa = (plain_base, cfa_offset).prop_map(|(base, offset)| CfaRule::Offset { base, offset });
        let saved_fp = prop_oneof![Just(FpRule::Unchanged), offset().prop_map(FpRule::AtCfa)];
        let ra_and_fp = match abi {
            Abi::Amd64 => (Just(RaRule::AtCfa(-8)), saved_fp).boxed(),
            Abi::S390x => {
                let ra = prop_oneof![
                    Just(link),
                    even.clone().prop_map(move |offset| RaRule::AtCfa(nonzero(offset))),
                    base()
                        .prop_map(in_register)
                        .prop_map(|(base, offset)| RaRule::InRegister { base, offset }),
                ];
                let fp = prop_oneof![
                    Just(FpRule::Unchanged),
                    even.prop_map(FpRule::AtCfa),
                    base()
                        .prop_map(in_register)
                        .prop_map(|(base, offset)| FpRule::InRegister { base, offset }),
                ];
                (ra, fp).boxed()
            }
            _ => prop_oneof![
                Just((link, FpRule::Unchanged)),
                (offset().prop_map(move |offset| RaRule::AtCfa(nonzero(offset))), saved_fp),
            ]
            .boxed(),
        };
        let outermost = u32::from(version == Version::V2);
        let ra_and_fp = prop_oneof![
            8 => ra_and_fp,
            outermost => Just((RaRule::Undefined, FpRule::Undefined)),
        ];
        (cfa.boxed(), ra_and_fp.boxed())
    };
    (cfa, ra_and_fp).prop_map(|(cfa, (ra, fp))| UnwindUserFrame::new(cfa, ra, fp).unwrap()).boxed()
}

/// Any frame there can be.
fn any_frame() -> impl Strategy<Value = UnwindUserFrame> {
    let base = || {
        prop_oneof![
            Just(Base::Sp),
            Just(Base::Fp),
            (0..254u16).prop_map(|number| Base::Register(Register(number)))
        ]
    };
    let cfa = prop_oneof![
        (base(), offset()).prop_map(|(base, offset)| CfaRule::Offset { base, offset }),
        (base(), -0x80_0000..0x80_0000i32, any::<i8>()).prop_map(|(base, offset, add)| CfaRule::Deref {
            base,
            offset,
            add
        }),
    ];
    let ra = prop_oneof![
        offset().prop_map(RaRule::AtCfa),
        (base(), offset()).prop_map(|(base, offset)| RaRule::InRegister { base, offset }),
        (base(), offset()).prop_map(|(base, offset)| RaRule::AtRegister { base, offset }),
        Just(RaRule::Undefined),
    ];
    let fp = prop_oneof![
        Just(FpRule::Unchanged),
        offset().prop_map(FpRule::AtCfa),
        offset().prop_map(FpRule::CfaOffset),
        (base(), offset()).prop_map(|(base, offset)| FpRule::InRegister { base, offset }),
        (base(), offset()).prop_map(|(base, offset)| FpRule::AtRegister { base, offset }),
        Just(FpRule::Undefined),
    ];
    (cfa, ra, fp, any::<bool>(), any::<bool>()).prop_map(|(cfa, ra, fp, signal, bound)| {
        let frame = UnwindUserFrame::new(cfa, ra, fp).unwrap();
        let frame = if signal { frame.signal() } else { frame };
        if bound { frame.with_sp_bound() } else { frame }
    })
}

/// Writes functions of AMD64 in a vector: the section, and what was refused.
fn write(version: Version, svma: u64, functions: &[Function]) -> (Vec<u8>, Vec<(u64, u64, Inexpressible)>) {
    let mut refused = Vec::new();
    let section = write_to_vec(
        SFrameFormat { version, abi: Abi::Amd64, svma },
        |writer, refused| {
            for function in functions {
                writer.function(&function.function, function.rows.iter().copied(), refused);
            }
        },
        &mut |what| refused.push((what.start, what.size, what.cause)),
    );
    (section.unwrap(), refused)
}

fn plain(start: u64, size: u32, rows: &[(u32, Option<UnwindUserFrame>)]) -> Function {
    let function = WriteFunction { start, size, block_size: None, key_b: false };
    let row = |&(start, frame)| WriteRow { start, frame, is_mangled: false };
    Function { function, rows: rows.iter().map(row).collect() }
}

const ENTRY: UnwindUserFrame = UnwindUserFrame::plain(false, 8, -8, None);
const PUSHED: UnwindUserFrame = UnwindUserFrame::plain(false, 16, -8, None);

/// Version 3 counts a function's rows with 16 bits: more are several functions.
#[test]
fn more_rows_than_version_3_counts() {
    let row =
        |index: u32| (index * 2, Some(UnwindUserFrame::plain(false, 8 * (1 + index as i32 % 3), -8, None)));
    let rows: Vec<_> = (0..140_000).map(row).collect();
    let function = plain(0x1000, 280_000, &rows);
    for (version, functions) in [(Version::V2, 1), (Version::V3, 3)] {
        let (section, refused) = write(version, 0, std::slice::from_ref(&function));
        assert_eq!(refused, []);
        let parsed = SFrameSection::parse(&section, 0).unwrap();
        assert_eq!(parsed.validate(), Ok(()));
        assert_eq!((parsed.header().fde_count, parsed.header().fre_count), (functions, 140_000));
        let source = SFrameSource::new(&section, 0);
        for (start, frame) in rows.iter().step_by(997).chain(&rows[65_530..65_540]).chain(rows.last()) {
            for pc in [0x1000 + u64::from(*start), 0x1001 + u64::from(*start)] {
                let found = lookup(Abi::Amd64, &source, Pc::Exact(pc)).unwrap().unwrap();
                assert_eq!(found.rule, Rule::Frame(frame.unwrap()), "{pc:#x}");
            }
        }
    }
}

#[test]
fn functions_that_overlap_are_left_out() {
    let rows = [(0, Some(ENTRY)), (1, Some(PUSHED))];
    let functions = [
        plain(0x3000, 0x100, &rows),
        // A chain of three, of which the first covers the third.
        plain(0x2040, 0x10, &rows),
        plain(0x2000, 0x100, &rows),
        plain(0x2010, 0x10, &rows),
        // Twice the same.
        plain(0x1000, 0x10, &rows),
        plain(0x1000, 0x10, &rows),
        // One byte in common.
        plain(0x5000, 0x10, &rows),
        plain(0x500f, 0x10, &rows),
        // Neighbours do not overlap.
        plain(0x1010, 0x10, &rows),
        plain(0x2100, 0x10, &rows),
        // What has no length covers nothing.
        plain(0x3010, 0, &rows),
    ];
    for version in [Version::V1, Version::V2, Version::V3] {
        let (section, refused) = write(version, 0x10_0000, &functions);
        let overlap = |start, size| (start, size, Inexpressible::Overlap);
        assert_eq!(
            refused,
            [
                overlap(0x1000, 0x10),
                overlap(0x1000, 0x10),
                overlap(0x2000, 0x100),
                overlap(0x2010, 0x10),
                overlap(0x2040, 0x10),
                overlap(0x5000, 0x10),
                overlap(0x500f, 0x10),
            ]
        );
        let parsed = SFrameSection::parse(&section, 0x10_0000).unwrap();
        assert_eq!(parsed.validate(), Ok(()));
        let starts: Vec<u64> = parsed.fdes().map(|fde| fde.unwrap().start).collect();
        assert_eq!(starts, [0x1010, 0x2100, 0x3000]);
    }
}

#[test]
fn what_cannot_be_placed_is_refused() {
    let rows = [(0, Some(ENTRY))];
    let everywhere = [0, 0x1000, 0x8000_0fff, 0x8000_1000, 0xffff_ffff_8000_0fff, 0xffff_ffff_8000_1000];
    let functions: Vec<_> = everywhere.iter().map(|start| plain(*start, 1, &rows)).collect();
    // Version 2 reaches 2 GiB to both sides.
    let (section, refused) = write(Version::V2, 0x1000, &functions);
    let parsed = SFrameSection::parse(&section, 0x1000).unwrap();
    assert_eq!(parsed.validate(), Ok(()));
    let starts: Vec<u64> = parsed.fdes().map(|fde| fde.unwrap().start).collect();
    assert_eq!(starts, [0, 0x1000, 0x8000_0fff, 0xffff_ffff_8000_1000]);
    assert_eq!(
        refused,
        [(0x8000_1000, 1, Inexpressible::Address), (0xffff_ffff_8000_0fff, 1, Inexpressible::Address)]
    );
    // Version 3 reaches everything, up to the last address.
    let mut functions = functions;
    functions.push(plain(u64::MAX - 0xf, 0x10, &rows));
    functions.push(plain(u64::MAX - 0x20, 0x30, &rows));
    let (section, refused) = write(Version::V3, 0x1000, &functions);
    assert_eq!(refused, [(u64::MAX - 0x20, 0x30, Inexpressible::Address)]);
    let parsed = SFrameSection::parse(&section, 0x1000).unwrap();
    assert_eq!((parsed.validate(), parsed.header().fde_count), (Ok(()), 7));
    let source = SFrameSource::new(&section, 0x1000);
    for pc in everywhere.into_iter().chain([u64::MAX]) {
        assert!(lookup(Abi::Amd64, &source, Pc::Exact(pc)).unwrap().is_some(), "{pc:#x}");
    }
}

/// What the manuals say that a version and ABI has no row for, and why.
#[test]
fn causes() {
    let register = |number| Base::Register(Register(number));
    let sp = |offset| CfaRule::Offset { base: Base::Sp, offset };
    let at = |offset| RaRule::AtCfa(offset);
    let held = |base| RaRule::InRegister { base, offset: 0 };
    let saved = |offset| FpRule::AtCfa(offset);
    let deref = |add| CfaRule::Deref { base: Base::Fp, offset: -8, add };
    let same = FpRule::Unchanged;
    use Abi::{Aarch64Little as A64, Amd64, S390x};
    use Inexpressible as Cause;
    use Version::{V1, V2, V3};
    let (x30, r14) = (held(register(30)), held(register(14)));
    let cases = [
        (V1, Amd64, (sp(8), RaRule::Undefined, FpRule::Undefined), Some(Cause::Outermost)),
        (V2, Amd64, (sp(8), RaRule::Undefined, FpRule::Undefined), None),
        (
            V2,
            Amd64,
            (CfaRule::Offset { base: register(10), offset: 0 }, at(-8), same),
            Some(Cause::CfaRegister),
        ),
        (V3, Amd64, (CfaRule::Offset { base: register(10), offset: 0 }, at(-8), same), None),
        (V2, Amd64, (deref(0), at(-8), same), Some(Cause::CfaInMemory)),
        (V3, Amd64, (deref(0), at(-8), same), None),
        (V3, Amd64, (deref(8), at(-8), same), Some(Cause::CfaSum)),
        (V2, Amd64, (sp(8), at(-16), same), Some(Cause::ReturnAddress)),
        (V3, Amd64, (sp(8), at(-16), same), None),
        (V2, Amd64, (sp(8), held(register(5)), same), Some(Cause::ReturnAddress)),
        (
            V2,
            Amd64,
            (sp(8), at(-8), FpRule::InRegister { base: register(0), offset: 0 }),
            Some(Cause::FramePointer),
        ),
        (V3, Amd64, (sp(8), at(-8), FpRule::InRegister { base: register(0), offset: 0 }), None),
        (
            V3,
            Amd64,
            (sp(8), at(-8), FpRule::InRegister { base: register(128), offset: 0 }),
            Some(Cause::RegisterNumber),
        ),
        // "CFA plus offset" has the control word of "the default".
        (V3, Amd64, (sp(8), at(-8), FpRule::CfaOffset(-16)), Some(Cause::FramePointer)),
        (V3, Amd64, (sp(8), at(-8), FpRule::Undefined), Some(Cause::FramePointerLost)),
        (V2, Amd64, (sp(8), at(-8), FpRule::Undefined), Some(Cause::FramePointerLost)),
        (V2, A64, (sp(16), x30, same), None),
        (V2, A64, (sp(16), at(-8), same), None),
        (V2, A64, (sp(16), at(-8), saved(-16)), None),
        // The second word would be the return address's, or padding to some readers.
        (V2, A64, (sp(16), x30, saved(-16)), Some(Cause::FramePointerAlone)),
        (V3, A64, (sp(16), x30, saved(-16)), None),
        (V1, A64, (sp(16), at(0), same), None),
        (V2, A64, (sp(16), at(0), same), Some(Cause::ReturnAddress)),
        (V3, A64, (sp(16), at(0), same), None),
        (V2, A64, (sp(16), held(register(17)), same), Some(Cause::ReturnAddress)),
        (V2, S390x, (sp(160), r14, same), None),
        (V2, S390x, (sp(164), r14, same), Some(Cause::CfaOffset)),
        (V3, S390x, (sp(164), r14, same), Some(Cause::CfaOffset)),
        (V3, S390x, (sp(i32::MIN), r14, same), Some(Cause::CfaOffset)),
        (V2, S390x, (sp(160), r14, saved(-72)), None),
        // An odd word names a register.
        (V2, S390x, (sp(160), held(register(16)), same), None),
        (V2, S390x, (sp(160), at(-47), same), Some(Cause::ReturnAddress)),
        (V2, S390x, (sp(160), r14, saved(-71)), Some(Cause::FramePointer)),
        (V3, S390x, (sp(160), at(-47), saved(-71)), None),
        (V2, S390x, (sp(160), at(0), same), Some(Cause::ReturnAddress)),
        (V3, S390x, (sp(160), at(0), same), None),
    ];
    let refusal = |version, abi, frame| {
        let function = plain(0x1000, 0x10, &[(0, Some(frame))]);
        let mut cause = None;
        let format = SFrameFormat { version, abi, svma: 0 };
        let section = write_to_vec(
            format,
            |writer, refused| writer.function(&function.function, function.rows.iter().copied(), refused),
            &mut |refused| cause = Some(refused.cause),
        )
        .unwrap();
        let found = lookup(abi, &SFrameSource::new(&section, 0), Pc::Exact(0x1008)).unwrap();
        let rule = found.map(|found| found.rule);
        assert_eq!(rule, cause.is_none().then_some(Rule::Frame(canonical(abi, &frame))));
        cause
    };
    for (version, abi, (cfa, ra, fp), cause) in cases {
        let frame = UnwindUserFrame::new(cfa, ra, fp).unwrap();
        assert_eq!(refusal(version, abi, frame), cause, "{version:?} {abi:?} {frame:?}");
    }
    assert_eq!(refusal(V2, Amd64, ENTRY.signal()), Some(Cause::SignalFrame));
    assert_eq!(refusal(V3, Amd64, ENTRY.signal()), None);
    assert_eq!(refusal(V3, Amd64, ENTRY.with_sp_bound()), Some(Cause::SpIsBound));
}

#[test]
fn rows_must_make_sense() {
    let rows = |rows: &[(u32, Option<UnwindUserFrame>)]| plain(0x1000, 0x10, rows);
    for wrong in [
        rows(&[(1, Some(ENTRY)), (0, Some(ENTRY))]),
        rows(&[(1, Some(ENTRY)), (1, Some(PUSHED))]),
        rows(&[(0, Some(ENTRY)), (0x10, Some(PUSHED))]),
    ] {
        let (section, refused) = write(Version::V3, 0, &[wrong]);
        assert_eq!(refused, [(0x1000, 0x10, Inexpressible::RowOrder)]);
        assert_eq!(section.len(), 28);
    }
    let mut blocks = rows(&[(0, Some(ENTRY)), (7, None)]);
    blocks.function.block_size = NonZeroU8::new(8);
    let (_, refused) = write(Version::V3, 0, &[blocks.clone()]);
    assert_eq!(refused, [(0x1000, 0x10, Inexpressible::Blocks)]);
    // Version 1 does not state the size of a block.
    blocks.rows.pop();
    assert_eq!(write(Version::V3, 0, &[blocks.clone()]).1, []);
    assert_eq!(write(Version::V1, 0, &[blocks.clone()]).1, [(0x1000, 0x10, Inexpressible::Blocks)]);
    blocks.function.block_size = NonZeroU8::new(16);
    assert_eq!(write(Version::V1, 0, &[blocks]).1, []);
}

#[test]
fn an_empty_section_is_one() {
    for (version, abi) in FORMATS {
        let format = SFrameFormat { version, abi, svma: 0 };
        let section = write_to_vec(format, |_, _| {}, &mut |_| {}).unwrap();
        let parsed = SFrameSection::parse(&section, 0).unwrap();
        assert_eq!((section.len(), parsed.validate(), parsed.header().fde_count), (28, Ok(()), 0));
    }
    let format = SFrameFormat { version: Version::V1, abi: Abi::S390x, svma: 0 };
    assert_eq!(write_to_vec(format, |_, _| {}, &mut |_| {}), Err(WriteError::NoSuchAbi));
}
