//! `.eh_frame` and `.debug_frame` as SFrame, for the libraries at hand.
//!
//! For every row of every function, as gimli has them: at its first and its last address, and at
//! every address of a linkage table, the rule that a lookup finds in the converted section is the
//! one that a lookup finds in DWARF. Where the section has none, either it was reported with its
//! cause, or DWARF has none either.
//!
//! `UNWIND_ROWS=FILE[:FILE…]` names files of one's own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use gimli::{BaseAddresses, CieOrFde, EndianSlice, RunTimeEndian, UnwindSection};
use object::Object;
use unwind_arch_aarch64::Aarch64;
use unwind_arch_s390x::S390x;
use unwind_arch_x86_64::X86_64;
use unwind_core::dwarf::{DwarfRule, DwarfSource, Flavor};
use unwind_core::sframe::{
    SFrameSection, SFrameSource, Unconverted, Version, WriteError, convert, convert_to_vec,
};
use unwind_core::{
    Arch, FrameSource, LookupError, MemoryError, Pc, Query, Rule, Trust, UnwindUserType, from_fn,
};
use unwind_tests::libraries;
use unwind_tests::sframe::{FrameSections, folder};

type Slice<'d> = EndianSlice<'d, RunTimeEndian>;

#[test]
fn libraries_convert_exactly() {
    let mut functions = 0;
    for path in libraries::named_or(libraries::system_libraries).into_iter().chain(samples()) {
        let data = match std::fs::read(&path) {
            Ok(data) => data,
            Err(error) => {
                println!("SKIPPED {}: {error}", path.display());
                continue;
            }
        };
        functions += compare_file(&path, &data);
    }
    assert!(functions > 1_000, "no library was found");
}

/// Programs with everything that has a `.sframe` of its own, s390x and big-endian AArch64 among
/// them.
fn samples() -> impl Iterator<Item = PathBuf> {
    let names = [
        "chain-x86_64-omit",
        "chain-x86_64-keep",
        "chain-aarch64-omit",
        "chain-aarch64-keep",
        // Not chain-aarch64-pacb: gimli refuses the augmentation `B`.
        "chain-aarch64-paca",
        "chain-aarch64be",
        "chain-s390x-omit",
        "chain-s390x-keep",
        "plt-x86_64",
        "plt-ibt-x86_64",
        "plt-s390x",
    ];
    names.into_iter().map(|name| folder().join("v3").join(name))
}

/// The number of functions compared.
fn compare_file(path: &Path, data: &[u8]) -> u64 {
    let file = object::File::parse(data).unwrap();
    match (file.architecture(), file.is_little_endian()) {
        (object::Architecture::X86_64, _) => compare(path, &file, X86_64),
        (object::Architecture::Aarch64, true) => compare(path, &file, Aarch64::new()),
        (object::Architecture::Aarch64, false) => compare(path, &file, Aarch64::big_endian()),
        (object::Architecture::S390x, _) => compare(path, &file, S390x),
        (other, _) => panic!("{}: no architecture {other:?} here", path.display()),
    }
}

fn compare<A: Arch>(path: &Path, file: &object::File<'_>, arch: A) -> u64 {
    let owned = FrameSections::of(file);
    let endian = if file.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
    let vendor = if arch.name() == "aarch64" { gimli::Vendor::AArch64 } else { gimli::Vendor::Default };
    let mut functions = 0;
    let sections = owned.borrow(Flavor::EhFrame);
    if let Some(section) = sections.eh_frame {
        let mut bases = BaseAddresses::default().set_eh_frame(section.svma);
        if let Some(text) = sections.text_svma {
            bases = bases.set_text(text);
        }
        if let Some(got) = sections.got_svma {
            bases = bases.set_got(got);
        }
        let mut eh_frame = gimli::EhFrame::new(section.data, endian);
        eh_frame.set_address_size(8);
        eh_frame.set_vendor(vendor);
        let rows = rows(path, &eh_frame, &bases);
        functions += compare_section(path, &arch, &DwarfSource::new(sections), Flavor::EhFrame, &rows);
    }
    let sections = owned.borrow(Flavor::DebugFrame);
    if let Some(section) = sections.debug_frame {
        let mut debug_frame = gimli::DebugFrame::new(section.data, endian);
        debug_frame.set_address_size(8);
        debug_frame.set_vendor(vendor);
        let rows = rows(path, &debug_frame, &BaseAddresses::default());
        functions += compare_section(path, &arch, &DwarfSource::new(sections), Flavor::DebugFrame, &rows);
    }
    functions
}

/// A function and its rows, as gimli has them.
struct Function {
    start: u64,
    end: u64,
    rows: Vec<Row>,
}

struct Row {
    start: u64,
    end: u64,
    is_ra_signed: bool,
    /// Its CFA is an expression that asks for the pc.
    asks_for_pc: bool,
}

fn rows<'d, S: UnwindSection<Slice<'d>>>(path: &Path, section: &S, bases: &BaseAddresses) -> Vec<Function> {
    let mut context = gimli::UnwindContext::new();
    let mut entries = section.entries(bases);
    let mut functions = Vec::new();
    while let Some(entry) = entries.next().unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
        let CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial.parse(S::cie_from_offset).unwrap();
        if fde.len() == 0 || fde.initial_address() == 0 {
            continue;
        }
        let mut function = Function {
            start: fde.initial_address(),
            end: fde.initial_address() + fde.len(),
            rows: Vec::new(),
        };
        let mut table = fde.rows(section, bases, &mut context).unwrap();
        while let Some(row) = table.next_row().unwrap() {
            if row.start_address() < row.end_address() {
                function.rows.push(Row {
                    start: row.start_address(),
                    end: row.end_address(),
                    is_ra_signed: matches!(
                        row.register(gimli::AArch64::RA_SIGN_STATE),
                        Some(gimli::RegisterRule::Constant(1))
                    ),
                    asks_for_pc: asks_for_pc(section, row.cfa(), fde.cie()),
                });
            }
        }
        functions.push(function);
    }
    functions
}

fn asks_for_pc<'d, S: UnwindSection<Slice<'d>>>(
    section: &S,
    cfa: &gimli::CfaRule<usize>,
    cie: &gimli::CommonInformationEntry<Slice<'d>>,
) -> bool {
    let gimli::CfaRule::Expression(expression) = cfa else { return false };
    let mut operations = expression.get(section).unwrap().operations(cie.encoding());
    std::iter::from_fn(|| operations.next().unwrap()).any(|operation| {
        matches!(operation, gimli::Operation::RegisterOffset { register, .. }
            if register == cie.return_address_register())
    })
}

fn compare_section<A: Arch>(
    path: &Path,
    arch: &A,
    source: &DwarfSource<'_>,
    flavor: Flavor,
    functions: &[Function],
) -> u64 {
    compare_enumeration(path, arch, source, flavor, functions);
    for version in [Version::V3, Version::V2] {
        // The section lies behind the code, as linkers place it.
        let svma = functions.iter().map(|function| function.end).max().unwrap_or(0).next_multiple_of(8);
        let mut unconverted = Unsaid::default();
        let section =
            convert_to_vec(arch, source, flavor, version, svma, &mut |what| unconverted.note(what)).unwrap();
        let mut room = vec![0; section.len() - 1];
        assert_eq!(
            convert(arch, source, flavor, version, svma, &mut room, &mut |_| {}),
            Err(WriteError::NoRoom { needed: section.len() })
        );
        let parsed = SFrameSection::parse(&section, svma).unwrap();
        assert_eq!(parsed.data().len(), section.len());
        parsed.validate().unwrap_or_else(|flaw| panic!("{}: {flaw}", path.display()));
        let converted = SFrameSource::new(&section, svma);
        let mut compared = 0u64;
        for function in functions {
            let at =
                |address| format!("{} {version:?} at {address:#x} in {:#x}", path.display(), function.start);
            for row in &function.rows {
                let step = if row.asks_for_pc { 1 } else { u64::MAX };
                let every = std::iter::successors(Some(row.start), |at| at.checked_add(step));
                let addresses = every.take_while(|at| *at < row.end).chain([row.end - 1]);
                for address in addresses {
                    check(arch, source, &converted, &unconverted, address, &at(address));
                    compared += 1;
                }
                // Where rows are, they also say whether the return address is signed.
                if let Some(fde) = parsed.find(row.start, None).unwrap() {
                    let found = parsed.row_at(&fde, row.start).unwrap().unwrap();
                    assert_eq!(found.is_mangled, row.is_ra_signed, "{}", at(row.start));
                }
            }
            for outside in [function.start - 1, function.end] {
                check(arch, source, &converted, &unconverted, outside, &at(outside));
            }
        }
        println!(
            "{} {flavor:?} {version:?}: {} functions, {compared} addresses, {} bytes in {} functions and {} rows; \
             not converted: {}",
            path.display(),
            functions.len(),
            section.len(),
            parsed.header().fde_count,
            parsed.header().fre_count,
            unconverted.summary(functions),
        );
    }
    functions.len() as u64
}

/// What is found at one address in the converted section is what is found in DWARF, unless it was
/// reported.
fn check<A: Arch>(
    arch: &A,
    source: &DwarfSource<'_>,
    converted: &SFrameSource<'_>,
    unconverted: &Unsaid,
    address: u64,
    at: &str,
) {
    let query = Query::new(Pc::Exact(address));
    let mut memory = from_fn(|address, _: &mut [u8]| Err(MemoryError::Unreadable { address }));
    let dwarf = source.lookup(arch, UnwindUserType::Dwarf, &query, &mut memory);
    let sframe = converted
        .lookup(arch, UnwindUserType::SFrame, &query, &mut memory)
        .unwrap_or_else(|error| panic!("{at}: {error:?}"));
    let reported = unconverted.cause(address);
    match (dwarf, sframe) {
        (Ok(Some(dwarf)), Some(sframe)) => {
            assert_eq!(dwarf.rule, sframe.rule, "{at}");
            assert_eq!(reported, None, "{at}");
        }
        (Ok(Some(dwarf)), None) => {
            let cause = reported.unwrap_or_else(|| panic!("{at}: lost without a word"));
            if dwarf.rule == Rule::Evaluate {
                assert!(cause.starts_with("DWARF: "), "{at}: {cause}");
            }
        }
        (Err(LookupError::Broken(_)), None) => assert!(reported.is_some(), "{at}"),
        (Ok(None), None) => {}
        (dwarf, sframe) => panic!("{at}: {dwarf:?}, {sframe:?}"),
    }
}

/// Our own enumeration of functions and rows: the same functions as gimli's, rows that cover them,
/// each with the rule that a lookup finds at both its ends.
fn compare_enumeration<A: Arch>(
    path: &Path,
    arch: &A,
    source: &DwarfSource<'_>,
    flavor: Flavor,
    functions: &[Function],
) {
    let mut memory = from_fn(|address, _: &mut [u8]| Err(MemoryError::Unreadable { address }));
    let mut lookup =
        |address| source.lookup(arch, UnwindUserType::Dwarf, &Query::new(Pc::Exact(address)), &mut memory);
    let mut expected = functions.iter();
    for function in source.functions(arch, flavor) {
        let function = function.unwrap();
        if function.start() == 0 {
            continue;
        }
        let expected = expected.next().unwrap();
        let at = format!("{} in {:#x}", path.display(), expected.start);
        assert_eq!((function.start(), function.start() + function.length()), (expected.start, expected.end));
        let mut end = function.start();
        for row in function.rows() {
            assert_eq!(row.start, end, "{at}");
            end = row.start + row.length;
            for address in [row.start, end - 1] {
                match (row.rule, lookup(address)) {
                    (DwarfRule::Frame(frame), Ok(Some(found))) => {
                        assert_eq!(Rule::Frame(frame), found.rule, "{at}");
                        assert_eq!(found.trust, Trust::Exact);
                    }
                    (DwarfRule::Blocks { size, split, first, second }, Ok(Some(found))) => {
                        assert_eq!(row.start % u64::from(size), 0, "{at}");
                        let in_block = (address - row.start) % u64::from(size);
                        let frame = if in_block < split.into() { first } else { second };
                        assert_eq!(Rule::Frame(frame), found.rule, "{at}");
                    }
                    (DwarfRule::None(_), Ok(Some(found))) => assert_eq!(found.rule, Rule::Evaluate, "{at}"),
                    (DwarfRule::None(_), Err(LookupError::Broken(_))) => {}
                    other => panic!("{at}: {other:?}"),
                }
            }
            // gimli's rows begin where one of ours does, or inside of one with the same rule.
            let signed = expected.rows.iter().filter(|of| of.start < end && row.start < of.end);
            for of in signed {
                assert_eq!(of.is_ra_signed, row.is_ra_signed, "{at}");
            }
        }
        assert_eq!(end, expected.end, "{at}");
    }
    assert!(expected.next().is_none());
}

/// What was reported not to be converted: by first address, the last one and the cause.
#[derive(Default)]
struct Unsaid {
    ranges: BTreeMap<u64, (u64, String)>,
}

impl Unsaid {
    fn note(&mut self, what: Unconverted) {
        let (start, length, cause) = match what {
            Unconverted::NoFrame { start, length, cause } => (start, length, format!("DWARF: {cause}")),
            Unconverted::Refused(refused) => {
                (refused.start, refused.size, format!("SFrame: {}", refused.cause))
            }
            what => panic!("{what:?}"),
        };
        let before = self.ranges.insert(start, (start + length - 1, cause));
        assert_eq!(before, None, "reported twice");
    }

    fn cause(&self, address: u64) -> Option<&str> {
        let (_, (last, cause)) = self.ranges.range(..=address).next_back()?;
        (*last >= address).then_some(cause)
    }

    /// How many functions are concerned, by cause.
    fn summary(&self, functions: &[Function]) -> String {
        let mut by_cause: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        let mut bytes = 0;
        for (start, (last, cause)) in &self.ranges {
            let function = functions.iter().find(|function| (function.start..function.end).contains(start));
            by_cause.entry(cause).or_default().insert(function.map_or(*start, |function| function.start));
            bytes += last - start + 1;
        }
        let concerned: BTreeSet<u64> = by_cause.values().flatten().copied().collect();
        let of_all: u64 = functions.iter().map(|function| function.end - function.start).sum();
        let causes: BTreeMap<&str, usize> =
            by_cause.into_iter().map(|(cause, functions)| (cause, functions.len())).collect();
        format!("{} functions {causes:?}, {bytes} of {of_all} bytes", concerned.len())
    }
}
