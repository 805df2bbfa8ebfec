//! Functions and rows → section → rows, for every version and ABI.
//!
//! What must hold of any functions and rows, [`round_trip`] says and checks; the fuzz target
//! `sframe_roundtrip` does the same.

use std::num::NonZeroU8;

use proptest::prelude::*;
use unwind_core::sframe::{
    Abi, Inexpressible, SFrameFormat, SFrameSection, SFrameSource, Version, WriteError, WriteFunction,
    WriteRow, write_to_vec,
};
use unwind_core::{Base, CfaRule, FpRule, Pc, RaRule, Register, Rule, UnwindUserFrame};
use unwind_tests::sframe::{Written, canonical, lookup, round_trip};

use written::{FORMATS, case};

#[path = "sframe/written.rs"]
mod written;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// What the version and ABI can say is said.
    #[test]
    fn what_can_be_said_comes_back(case in case(true)) {
        prop_assert_eq!(round_trip(case.format, &case.functions), []);
    }

    /// What they cannot is reported, and the rest is still right.
    #[test]
    fn anything_comes_back_or_is_refused(case in case(false)) {
        round_trip(case.format, &case.functions);
    }
}

/// Writes functions of AMD64 in a vector: the section, and what was refused.
fn write(version: Version, svma: u64, functions: &[Written]) -> (Vec<u8>, Vec<(u64, u64, Inexpressible)>) {
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

fn plain(start: u64, size: u32, rows: &[(u32, Option<UnwindUserFrame>)]) -> Written {
    let function = WriteFunction { start, size, block_size: None, key_b: false };
    let row = |&(start, frame)| WriteRow { start, frame, is_mangled: false };
    Written { function, rows: rows.iter().map(row).collect() }
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
