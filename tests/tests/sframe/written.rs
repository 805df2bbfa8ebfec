//! Functions and rows to write, as property tests choose them.

use std::num::NonZeroU8;

use proptest::prelude::*;
use unwind_core::sframe::{Abi, SFrameFormat, Version, WriteFunction, WriteRow};
use unwind_core::{Base, CfaRule, FpRule, RaRule, Register, UnwindUserFrame};
use unwind_tests::sframe::Written;

/// A section to write.
#[derive(Clone, Debug)]
pub struct Case {
    pub format: SFrameFormat,
    pub functions: Vec<Written>,
}

/// The versions, and the ABIs that each has.
pub const FORMATS: [(Version, Abi); 10] = [
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

/// A section; `can_be_said`: nothing that its format has no row for.
pub fn case(can_be_said: bool) -> impl Strategy<Value = Case> {
    (
        proptest::sample::select(&FORMATS[..]),
        prop_oneof![Just(FIRST), Just(FIRST - 0x1000), Just(FIRST + 0x1000_0000)],
    )
        .prop_flat_map(move |((version, abi), svma)| {
            let format = SFrameFormat { version, abi, svma };
            let function = (function(format, can_be_said), prop_oneof![Just(0u64), 1..300u64]);
            let functions = proptest::collection::vec(function, 0..8).prop_map(|functions| {
                let mut next = FIRST;
                let place = |(mut function, gap): (Written, u64)| {
                    function.function.start = next + gap;
                    next = function.function.start + u64::from(function.function.size);
                    function
                };
                functions.into_iter().map(place).collect::<Vec<_>>()
            });
            functions.prop_shuffle().prop_map(move |functions| Case { format, functions })
        })
}

fn function(format: SFrameFormat, can_be_said: bool) -> impl Strategy<Value = Written> {
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
            Written { function: WriteFunction { start: 0, size, block_size, key_b }, rows }
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
        let deref = (base(), -0x40_0000..0x40_0000i32).prop_map(move |(base, offset)| {
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
        (base(), -0x40_0000..0x40_0000i32, -256..256i16).prop_map(|(base, offset, add)| CfaRule::Deref {
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
