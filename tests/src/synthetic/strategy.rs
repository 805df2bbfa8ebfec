//! proptest strategies for [`ChainSpec`] and its parts. Plain calls shrink to the front.

use proptest::collection::vec;
use proptest::prelude::*;
use unwind_core::{ByteOrder, WordSize};

use super::{
    AnyArch, BaseSpec, ChainSpec, EndSpec, FpSpec, FrameSpec, ModuleSpec, Place, RaSpec, Role, SectionsSpec,
    Size, Synthetic, TableKind,
};

/// A configuration for this many cases; `UNWIND_CASES=N` in the environment makes it N times as many.
///
/// # Panics
/// Where that is no number.
pub fn cases(usual: u32) -> ProptestConfig {
    let times =
        std::env::var("UNWIND_CASES").map_or(1, |times| times.parse().expect("UNWIND_CASES is a number"));
    ProptestConfig { cases: usual.saturating_mul(times), ..ProptestConfig::default() }
}

/// Every architecture; the real ones more often.
pub fn arch() -> impl Strategy<Value = AnyArch> {
    prop_oneof![
        4 => prop::sample::select(AnyArch::real()),
        3 => synthetic().prop_map(AnyArch::Synthetic),
    ]
}

fn synthetic() -> impl Strategy<Value = Synthetic> {
    let word = prop_oneof![Just(WordSize::Eight), Just(WordSize::Four)];
    let order = prop_oneof![Just(ByteOrder::Little), Just(ByteOrder::Big)];
    (word, order, any::<[bool; 4]>()).prop_map(|(word, order, [link, biased, bound, mode_bit])| Synthetic {
        word,
        order,
        link,
        biased,
        bound,
        mode_bit,
    })
}

/// Chains of up to `most` frames.
pub fn chain(most: usize) -> impl Strategy<Value = ChainSpec> {
    let ends = prop_oneof![
        Just(EndSpec::Undefined),
        Just(EndSpec::ZeroReturnAddress),
        Just(EndSpec::ZeroFramePointer),
        Just(EndSpec::EntryFunction),
        Just(EndSpec::NotCovered),
        Just(EndSpec::Unreadable),
        Just(EndSpec::NotCode),
        Just(EndSpec::Broken),
        Just(EndSpec::FrameLimit),
    ];
    (place(), place(), vec(frame(), 1..=most), ends, any::<[bool; 4]>(), any::<u64>()).prop_map(
        |(stack, code, frames, end, [code_known, code_readable, tagged, fp_unknown], noise)| ChainSpec {
            stack,
            code,
            frames,
            end,
            code_known,
            code_readable,
            tagged,
            fp_unknown,
            noise,
        },
    )
}

/// Any part of the address space.
pub fn place() -> impl Strategy<Value = Place> {
    prop_oneof![Just(Place::Low), Just(Place::Bottom), Just(Place::High), Just(Place::Top)]
}

/// One frame.
pub fn frame() -> impl Strategy<Value = FrameSpec> {
    let parts = (role(), table(), base(), ra(), fp(), size(), any::<[bool; 5]>(), any::<u32>());
    parts.prop_map(|(role, kind, cfa, ra, fp, size, [deref, evaluated, a, b, call_is_last], shape)| {
        FrameSpec {
            role,
            kind,
            cfa,
            deref,
            ra,
            fp,
            size,
            evaluated,
            better_is_broken: a && b,
            call_is_last,
            shape,
        }
    })
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![
        8 => Just(Role::Call),
        2 => Just(Role::BoundedCall),
        2 => Just(Role::FramePointer),
        1 => Just(Role::Entered),
        1 => Just(Role::NullCall),
        2 => Just(Role::Signal),
        1 => Just(Role::Trampoline),
    ]
}

fn table() -> impl Strategy<Value = TableKind> {
    prop_oneof![
        Just(TableKind::Dwarf),
        Just(TableKind::Embedder),
        Just(TableKind::Table),
        Just(TableKind::SFrame),
        Just(TableKind::Ehabi),
    ]
}

fn base() -> impl Strategy<Value = BaseSpec> {
    prop_oneof![Just(BaseSpec::Sp), Just(BaseSpec::Fp), Just(BaseSpec::Other)]
}

fn ra() -> impl Strategy<Value = RaSpec> {
    prop_oneof![
        4 => Just(RaSpec::AtCfa),
        2 => base().prop_map(RaSpec::At),
        2 => base().prop_map(RaSpec::In),
        3 => Just(RaSpec::InLink),
    ]
}

fn fp() -> impl Strategy<Value = FpSpec> {
    prop_oneof![
        3 => Just(FpSpec::Unchanged),
        3 => Just(FpSpec::AtCfa),
        1 => Just(FpSpec::CfaOffset),
        1 => base().prop_map(FpSpec::At),
        1 => base().prop_map(FpSpec::In),
        1 => Just(FpSpec::Undefined),
    ]
}

fn size() -> impl Strategy<Value = Size> {
    prop_oneof![
        4 => any::<u8>().prop_map(Size::Words),
        3 => Just(Size::Nothing),
        1 => any::<u8>().prop_map(Size::Pages),
        1 => any::<u8>().prop_map(Size::Large),
    ]
}

/// Ways to write a module.
pub fn module() -> impl Strategy<Value = ModuleSpec> {
    let sections = prop_oneof![
        3 => Just(SectionsSpec::Searched),
        2 => Just(SectionsSpec::EhFrame),
        2 => Just(SectionsSpec::DebugFrame),
        1 => Just(SectionsSpec::Both),
    ];
    let bias = prop_oneof![Just(0), Just(0x5555_5555_4000), any::<u64>()];
    (sections, bias, any::<bool>(), any::<u64>()).prop_map(|(sections, bias, indirect, seed)| ModuleSpec {
        sections,
        bias,
        indirect,
        seed,
    })
}
