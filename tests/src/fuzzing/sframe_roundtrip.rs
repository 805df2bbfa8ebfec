//! The target `sframe_roundtrip`: functions and rows → section → rows, and call frame information →
//! section.

use std::num::NonZeroU8;

use arbitrary::{Arbitrary, Unstructured};
use unwind_arch_aarch64::Aarch64;
use unwind_arch_s390x::S390x;
use unwind_arch_x86_64::X86_64;
use unwind_core::dwarf::{DwarfFunction, DwarfSections, DwarfSource, Flavor, Section};
use unwind_core::sframe::{
    Abi, SFrameFormat, SFrameSection, SFrameSource, Unconverted, Version, WriteError, WriteFunction,
    WriteRow, convert, convert_to_vec,
};
use unwind_core::{
    Arch, Base, CfaRule, FpRule, FrameSource, LookupError, MemoryError, Pc, Query, RaRule, Register, Rule,
    UnwindUserFrame, UnwindUserType, from_fn,
};

use super::dwarf::SectionsInput;
use crate::sframe::{FrameSections, Written, round_trip};

/// What the fuzzer's bytes become.
#[derive(Clone, Debug, Arbitrary)]
enum Input {
    /// Functions to write.
    Functions(FormatInput, Vec<FunctionInput>),
    /// Sections out of nothing, to be converted.
    Sections(FormatInput, SectionsInput),
    /// A program's sections, bytes of them changed: place and value.
    Program(FormatInput, u8, Vec<(u16, u8)>),
}

#[derive(Clone, Copy, Debug, Arbitrary)]
struct FormatInput {
    version: u8,
    abi: u8,
    svma: Place,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Place {
    /// So far behind what was before, or behind where everything begins.
    Near(u16),
    Anywhere(u64),
}

#[derive(Clone, Debug, Arbitrary)]
struct FunctionInput {
    place: Place,
    size: Number,
    block: u8,
    key_b: bool,
    rows: Vec<RowInput>,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
struct RowInput {
    /// How far behind the row before; for the first one, from the function's start. 0 is an error
    /// but for the first.
    step: Number,
    frame: Option<FrameInput>,
    is_mangled: bool,
}

/// A number, mostly small.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Number {
    Byte(i8),
    Short(i16),
    Long(i32),
}

#[derive(Clone, Copy, Debug, Arbitrary)]
struct FrameInput {
    cfa: (u8, Number, Option<i8>),
    ra: (u8, u8, Number),
    fp: (u8, u8, Number),
    is_signal: bool,
    is_bound: bool,
    /// What the ABI has most often, in place of the above.
    is_usual: bool,
}

/// Where everything begins.
const FIRST: u64 = 0x40_0000;

/// Runs the target on the fuzzer's bytes.
///
/// # Panics
/// Where the library does something that it must not.
pub fn sframe_roundtrip(data: &[u8]) {
    let Ok(input) = Input::arbitrary(&mut Unstructured::new(data)) else { return };
    match input {
        Input::Functions(format, functions) => {
            let format = format.format();
            round_trip(format, &written(format.abi, &functions));
        }
        Input::Sections(format, input) => {
            let sections = DwarfSections {
                eh_frame: input.eh_frame.as_ref().map(|(data, svma)| Section { data, svma: *svma }),
                debug_frame: input.debug_frame.as_ref().map(|data| Section { data, svma: 0 }),
                text_svma: input.bases[0],
                got_svma: input.bases[1],
                ..DwarfSections::default()
            };
            converted(format.format(), sections);
        }
        Input::Program(format, number, damage) => {
            let program = PROGRAMS[usize::from(number) % PROGRAMS.len()];
            let file = object::File::parse(program).expect("a sound file");
            let owned = FrameSections::of(&file);
            let sections = owned.borrow(Flavor::EhFrame);
            let section = sections.eh_frame.expect("they have one");
            let mut bytes = section.data.to_vec();
            for (at, value) in damage {
                let at = usize::from(at) % bytes.len();
                bytes[at] = value;
            }
            let format = SFrameFormat { abi: abi(number), ..format.format() };
            let eh_frame = Some(Section { data: &bytes, svma: section.svma });
            converted(format, DwarfSections { eh_frame, eh_frame_hdr: None, ..sections });
        }
    }
}

/// Programs with unwind tables, in the order of [`abi`].
const PROGRAMS: [&[u8]; 4] = [
    include_bytes!("../../fixtures/sframe/v3/plt-ibt-x86_64"),
    include_bytes!("../../fixtures/sframe/v3/chain-aarch64-paca"),
    include_bytes!("../../fixtures/sframe/v3/chain-aarch64be"),
    include_bytes!("../../fixtures/sframe/v3/chain-s390x-keep"),
];

fn abi(number: u8) -> Abi {
    [Abi::Amd64, Abi::Aarch64Little, Abi::Aarch64Big, Abi::S390x][usize::from(number) % 4]
}

impl FormatInput {
    fn format(self) -> SFrameFormat {
        let version = [Version::V3, Version::V2, Version::V1][usize::from(self.version) % 3];
        SFrameFormat { version, abi: abi(self.abi), svma: self.svma.after(FIRST) }
    }
}

impl Place {
    fn after(self, last: u64) -> u64 {
        match self {
            Place::Near(gap) => last.wrapping_add(gap.into()),
            Place::Anywhere(address) => address,
        }
    }
}

impl Number {
    fn get(self) -> i32 {
        match self {
            Number::Byte(number) => number.into(),
            Number::Short(number) => number.into(),
            Number::Long(number) => number,
        }
    }
}

fn written(abi: Abi, functions: &[FunctionInput]) -> Vec<Written> {
    let mut next = FIRST;
    let functions = functions.iter().take(32).map(|input| {
        let start = input.place.after(next);
        let size = input.size.get().unsigned_abs();
        next = start.wrapping_add(size.into());
        let mut at = 0u32;
        let rows = input.rows.iter().map(|row| {
            at = at.wrapping_add(row.step.get().unsigned_abs());
            let frame = row.frame.and_then(|frame| frame.frame(abi));
            WriteRow { start: at, frame, is_mangled: row.is_mangled }
        });
        let rows = rows.collect();
        // Most functions are no blocks.
        let block_size = NonZeroU8::new(input.block.saturating_sub(0xc0));
        let function = WriteFunction { start, size, block_size, key_b: input.key_b };
        Written { function, rows }
    });
    functions.collect()
}

impl FrameInput {
    fn frame(self, abi: Abi) -> Option<UnwindUserFrame> {
        let base = |number: u8| match number {
            255 => Base::Sp,
            254 => Base::Fp,
            number => Base::Register(Register(number.into())),
        };
        let offset = self.cfa.1.get();
        let (ra, fp) = ((base(self.ra.1), self.ra.2.get()), (base(self.fp.1), self.fp.2.get()));
        let frame = if self.is_usual {
            let base = if self.cfa.0 & 1 == 0 { Base::Sp } else { Base::Fp };
            let offset = if abi == Abi::S390x { (offset & !7).checked_add(160)? } else { offset };
            let ra = match (abi, self.ra.0 & 1) {
                (Abi::Amd64, _) => RaRule::AtCfa(-8),
                (_, 0) => RaRule::InRegister { base: Base::Register(abi.ra()), offset: 0 },
                _ => RaRule::AtCfa(ra.1 & !1),
            };
            let fp = if self.fp.0 & 1 == 0 { FpRule::Unchanged } else { FpRule::AtCfa(fp.1 & !1) };
            UnwindUserFrame::new(CfaRule::Offset { base, offset }, ra, fp)?
        } else {
            let base = base(self.cfa.0);
            let cfa = match self.cfa.2 {
                None => CfaRule::Offset { base, offset },
                Some(add) => CfaRule::Deref { base, offset, add: (add & 1).into() },
            };
            let ra = match (self.ra.0 % 4, ra) {
                (0, (_, offset)) => RaRule::AtCfa(offset),
                (1, (base, offset)) => RaRule::InRegister { base, offset },
                (2, (base, offset)) => RaRule::AtRegister { base, offset },
                _ => RaRule::Undefined,
            };
            let fp = match (self.fp.0 % 6, fp) {
                (0, _) => FpRule::Unchanged,
                (1, (_, offset)) => FpRule::AtCfa(offset),
                (2, (_, offset)) => FpRule::CfaOffset(offset),
                (3, (base, offset)) => FpRule::InRegister { base, offset },
                (4, (base, offset)) => FpRule::AtRegister { base, offset },
                _ => FpRule::Undefined,
            };
            UnwindUserFrame::new(cfa, ra, fp)?
        };
        let frame = if self.is_signal { frame.signal() } else { frame };
        Some(if self.is_bound { frame.with_sp_bound() } else { frame })
    }
}

fn converted(format: SFrameFormat, sections: DwarfSections<'_>) {
    for flavor in [Flavor::EhFrame, Flavor::DebugFrame] {
        // A lookup asks `.eh_frame` first.
        let source = match flavor {
            Flavor::EhFrame => DwarfSource::new(DwarfSections { debug_frame: None, ..sections }),
            Flavor::DebugFrame => DwarfSource::new(DwarfSections { eh_frame: None, ..sections }),
        };
        match format.abi {
            Abi::Amd64 => check(X86_64, format, &source, flavor),
            Abi::Aarch64Little => check(Aarch64::new(), format, &source, flavor),
            Abi::Aarch64Big => check(Aarch64::big_endian(), format, &source, flavor),
            Abi::S390x => check(S390x, format, &source, flavor),
            abi => panic!("no architecture for {abi:?}"),
        }
    }
}

/// Converts, and compares at the first and the last address of every row.
fn check<A: Arch>(arch: A, format: SFrameFormat, source: &DwarfSource<'_>, flavor: Flavor) {
    let SFrameFormat { version, svma, .. } = format;
    let mut unconverted = Vec::new();
    let section =
        match convert_to_vec(&arch, source, flavor, version, svma, &mut |what| unconverted.push(what)) {
            Err(WriteError::NoSuchAbi) => return,
            section => section.expect("there is room"),
        };
    let mut room = vec![0; section.len() - 1];
    let error = convert(&arch, source, flavor, version, svma, &mut room, &mut |_| {});
    assert!(matches!(error, Err(WriteError::NoRoom { needed }) if needed >= section.len()), "{error:?}");
    let parsed = SFrameSection::parse(&section, svma).expect("a section");
    assert_eq!(parsed.validate(), Ok(()));
    let converted = SFrameSource::new(&section, svma);
    let functions: Vec<DwarfFunction<'_, A>> =
        source.functions(&arch, flavor).filter_map(Result::ok).collect();
    let covering = |address: u64| {
        functions.iter().filter(move |function| address.wrapping_sub(function.start()) < function.length())
    };
    let reported = |address: u64| {
        unconverted.iter().any(|what| match *what {
            Unconverted::Entry(_) => false,
            Unconverted::NoFrame { start, length, .. } => address.wrapping_sub(start) < length,
            Unconverted::Refused(refused) => address.wrapping_sub(refused.start) < refused.size,
            what => panic!("{what:?} is not known here"),
        })
    };
    // Where nobody knows which addresses an entry covers, it may be this one: a lookup that could not
    // find out for want of memory says so.
    let is_unsure = unconverted
        .iter()
        .any(|what| matches!(what, Unconverted::Entry(error) if !matches!(error, LookupError::Broken(_))));
    for function in functions.iter().take(64) {
        for row in function.rows() {
            for address in [row.start, row.start.wrapping_add(row.length - 1)] {
                if covering(address).count() > 1 {
                    continue;
                }
                let mut memory = from_fn(|address, _: &mut [u8]| Err(MemoryError::Unreadable { address }));
                let query = Query::new(Pc::Exact(address));
                let dwarf = source.lookup(&arch, UnwindUserType::Dwarf, &query, &mut memory);
                let sframe = converted.lookup(&arch, UnwindUserType::SFrame, &query, &mut memory);
                match (dwarf.map(|found| found.map(|found| found.rule)), sframe.expect("valid")) {
                    (Ok(Some(Rule::Frame(dwarf))), Some(sframe)) => {
                        assert_eq!(Rule::Frame(dwarf), sframe.rule, "{address:#x}");
                    }
                    (Err(LookupError::Memory(_)), Some(_)) if is_unsure => {}
                    (_, None) => assert!(reported(address), "{address:#x}: lost without a word"),
                    (dwarf, Some(sframe)) => panic!("{address:#x}: {dwarf:?}, {sframe:?}"),
                }
            }
        }
    }
}
