//! `.eh_frame` and `.debug_frame` as SFrame: for the libraries at hand, and for programs whose
//! `.sframe` an assembler wrote.
//!
//! For every row of every function, as gimli has them: at its first and its last address, and at
//! every address of a linkage table, the rule that a lookup finds in the converted section is the
//! one that a lookup finds in DWARF. Where the section has none, either it was reported with its
//! cause, or DWARF has none either.
//!
//! `UNWIND_ROWS=FILE[:FILE…]` names files of one's own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use gimli::{BaseAddresses, CieOrFde, EndianSlice, RunTimeEndian, UnwindSection};
use object::{Object, ObjectSection};
use unwind_arch_aarch64::Aarch64;
use unwind_arch_x86_64::X86_64;
use unwind_core::dwarf::{DwarfRule, DwarfSections, DwarfSource, Flavor, Section};
use unwind_core::sframe::{
    SFrameSection, SFrameSource, Unconverted, Version, WriteError, convert, convert_to_vec,
};
use unwind_core::{
    Arch, FrameSource, LookupError, MemoryError, Pc, Query, Rule, Trust, UnwindUserType, from_fn,
};
use unwind_tests::sframe::S390x;

type Slice<'d> = EndianSlice<'d, RunTimeEndian>;

#[test]
fn libraries_convert_exactly() {
    let mut files: Vec<PathBuf> = match std::env::var_os("UNWIND_ROWS") {
        Some(list) => std::env::split_paths(&list).collect(),
        None => system_libraries(),
    };
    files.push(std::env::current_exe().unwrap());
    let mut functions = 0;
    for path in files {
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

/// Where the assembler's `.sframe` covers a pc, so does ours, with the same rule.
#[test]
fn conversion_equals_what_an_assembler_wrote() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sframe/v3");
    let mut compared = BTreeMap::new();
    for name in [
        "chain-x86_64-omit",
        "chain-x86_64-keep",
        "chain-aarch64-omit",
        "chain-aarch64-keep",
        "chain-aarch64-paca",
        "chain-aarch64-pacb",
        "chain-aarch64be",
        "chain-s390x-omit",
        "chain-s390x-keep",
        "plt-x86_64",
        "plt-ibt-x86_64",
        "plt-s390x",
        "plt-aarch64",
    ] {
        let path = folder.join(name);
        let data = std::fs::read(&path).unwrap();
        // gimli refuses the augmentation `B` (return addresses signed with the B key).
        if name != "chain-aarch64-pacb" {
            compare_file(&path, &data);
        }
        compared.insert(name, compare_with_assembler(&path, &data));
    }
    println!("addresses compared: {compared:?}");
    assert!(compared.values().all(|compared| *compared >= 20), "{compared:?}");
}

/// What `objdump --sframe` prints of a converted section, put into the file that it is of, is what
/// our own printer prints. Version 1 is that of binutils 2.40, version 2 of 2.44, version 3 of 2.47.
#[test]
fn objdump_reads_what_we_write() {
    let toolchains =
        std::env::var_os("SF").map_or(std::env::temp_dir().join("unwind-toolchains"), PathBuf::from);
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sframe/v3");
    let machines = [
        ("x86_64", vec!["chain-x86_64-omit", "chain-x86_64-keep", "plt-ibt-x86_64"]),
        ("aarch64", vec!["chain-aarch64-omit", "chain-aarch64-pacb", "chain-aarch64be"]),
        ("s390x", vec!["chain-s390x-omit", "chain-s390x-keep"]),
    ];
    let mut printed = 0;
    for (machine, names) in machines {
        let mut files: Vec<PathBuf> = names.into_iter().map(|name| samples.join(name)).collect();
        let libc = format!("{machine}-linux-gnu/libc.so.6");
        files.extend([
            Path::new("/lib").join(&libc),
            Path::new("/usr").join(libc.replace("gnu/", "gnu/lib/")),
        ]);
        files.retain(|file| file.exists());
        for folder in [None, Some("trixie"), Some("sid")] {
            let tool = |name: &str| {
                let name = format!("{machine}-linux-gnu-{name}");
                folder.map_or(PathBuf::from(&name), |folder| toolchains.join(folder).join("bin").join(name))
            };
            let Some(versions) = versions_read_by(&tool("objdump")) else {
                println!("SKIPPED {}: not on this machine", tool("objdump").display());
                continue;
            };
            for (file, version) in files.iter().flat_map(|file| versions.iter().map(move |of| (file, *of))) {
                printed += print_with_objdump(file, version, &tool("objcopy"), &tool("objdump"));
            }
        }
    }
    println!("{printed} sections printed by objdump");
}

/// The versions of SFrame that this objdump prints as they are; `None` if there is no such program.
fn versions_read_by(objdump: &Path) -> Option<&'static [Version]> {
    let output = Command::new(objdump).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let first = text.lines().next()?;
    let minor: u32 = first.rsplit_once(" 2.")?.1.split('.').next()?.parse().ok()?;
    Some(match minor {
        40 => &[Version::V1],
        // It prints s390x, which came with the errata, as if it were another ABI.
        41..=45 if objdump.ends_with("s390x-linux-gnu-objdump") => &[],
        41..=45 => &[Version::V2],
        46.. => &[Version::V2, Version::V3],
        _ => return None,
    })
}

/// The number of sections printed: none where the version has no such ABI.
fn print_with_objdump(path: &Path, version: Version, objcopy: &Path, objdump: &Path) -> u64 {
    let data = std::fs::read(path).unwrap();
    let file = object::File::parse(&*data).unwrap();
    let owned = Sections::of(&file);
    let source = DwarfSource::new(owned.borrow(Flavor::EhFrame));
    // Behind everything that is loaded.
    let svma = file.sections().map(|section| section.address() + section.size()).max().unwrap();
    let svma = svma.next_multiple_of(0x1000);
    let section = match (file.architecture(), file.is_little_endian()) {
        (object::Architecture::X86_64, _) => convert_silently(&X86_64, &source, version, svma),
        (object::Architecture::Aarch64, true) => convert_silently(&Aarch64::new(), &source, version, svma),
        (object::Architecture::Aarch64, false) => {
            convert_silently(&Aarch64::big_endian(), &source, version, svma)
        }
        _ => convert_silently(&S390x, &source, version, svma),
    };
    let section = match section {
        Err(WriteError::NoSuchAbi) => return 0,
        section => section.unwrap(),
    };
    let folder = std::env::temp_dir().join(format!("unwind-sframe-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (bytes, with) = (folder.join("sframe"), folder.join("with"));
    std::fs::write(&bytes, &section).unwrap();
    let output = Command::new(objcopy)
        .arg("--remove-section=.sframe")
        .arg(format!("--add-section=.sframe={}", bytes.display()))
        .arg("--set-section-flags=.sframe=alloc,readonly,data")
        .arg(format!("--change-section-address=.sframe={svma:#x}"))
        .args([path, &with])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let output = Command::new(objdump).arg("--sframe=.sframe").arg(&with).output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && errors.is_empty(), "{} {version:?}: {errors}", path.display());
    let (_, text) = text.split_once("Contents of the SFrame section .sframe:\n").unwrap();
    let ours = SFrameSection::parse(&section, svma).unwrap().dump().to_string();
    for (number, (ours, theirs)) in ours.lines().zip(text.lines()).enumerate() {
        // Before version 2's errata there were no such rows; objdump 2.44 makes up an offset.
        if version == Version::V2 && ours.ends_with("RA undefined") && theirs.contains("fp+-1 ") {
            continue;
        }
        assert_eq!(ours, theirs, "{} {version:?}, {}, line {number}", path.display(), objdump.display());
    }
    assert_eq!(ours.trim_end().lines().count(), text.trim_end().lines().count(), "{}", path.display());
    1
}

fn convert_silently<A: Arch>(
    arch: &A,
    source: &DwarfSource<'_>,
    version: Version,
    svma: u64,
) -> Result<Vec<u8>, WriteError> {
    convert_to_vec(arch, source, Flavor::EhFrame, version, svma, &mut |_| {})
}

/// The libraries of this machine that matter most, and those of AArch64 where its cross C library
/// is installed.
fn system_libraries() -> Vec<PathBuf> {
    let names = [
        "libc.so.6",
        "libm.so.6",
        "libstdc++.so.6",
        "libgcc_s.so.1",
        "libcrypto.so.3",
        "libssl.so.3",
        "ld-linux-x86-64.so.2",
        "ld-linux-aarch64.so.1",
    ];
    let folders = ["/lib/x86_64-linux-gnu", "/lib64", "/lib/aarch64-linux-gnu", "/usr/aarch64-linux-gnu/lib"];
    let mut found = BTreeSet::new();
    for folder in folders {
        if !Path::new(folder).exists() {
            println!("SKIPPED {folder}: not on this machine");
        }
        found
            .extend(names.iter().filter_map(|name| std::fs::canonicalize(Path::new(folder).join(name)).ok()));
    }
    found.into_iter().collect()
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

/// The sections of a file, owned.
struct Sections {
    eh_frame: Option<(Vec<u8>, u64)>,
    hdr: Option<(Vec<u8>, u64)>,
    debug_frame: Option<(Vec<u8>, u64)>,
    text_svma: Option<u64>,
    got_svma: Option<u64>,
}

impl Sections {
    fn of(file: &object::File<'_>) -> Self {
        let section = |name: &str| {
            let section = file.section_by_name(name)?;
            Some((section.uncompressed_data().unwrap().into_owned(), section.address()))
        };
        let address = |name| file.section_by_name(name).map(|section| section.address());
        Sections {
            eh_frame: section(".eh_frame"),
            hdr: section(".eh_frame_hdr"),
            debug_frame: section(".debug_frame"),
            text_svma: address(".text"),
            got_svma: address(".got"),
        }
    }

    fn borrow(&self, flavor: Flavor) -> DwarfSections<'_> {
        fn section(owned: &Option<(Vec<u8>, u64)>) -> Option<Section<'_>> {
            owned.as_ref().map(|(data, svma)| Section { data, svma: *svma })
        }
        let sections =
            DwarfSections { text_svma: self.text_svma, got_svma: self.got_svma, ..DwarfSections::default() };
        match flavor {
            Flavor::EhFrame => DwarfSections {
                eh_frame: section(&self.eh_frame),
                eh_frame_hdr: section(&self.hdr),
                ..sections
            },
            Flavor::DebugFrame => DwarfSections { debug_frame: section(&self.debug_frame), ..sections },
        }
    }
}

fn compare<A: Arch>(path: &Path, file: &object::File<'_>, arch: A) -> u64 {
    let owned = Sections::of(file);
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
            Unconverted::Entry(error) => panic!("{error:?}"),
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

/// The number of addresses compared.
fn compare_with_assembler(path: &Path, data: &[u8]) -> u64 {
    let file = object::File::parse(data).unwrap();
    let section = file.section_by_name(".sframe").unwrap();
    let theirs = SFrameSource::new(section.data().unwrap(), section.address());
    match (file.architecture(), file.is_little_endian()) {
        (object::Architecture::X86_64, _) => compare_sources(path, &file, &X86_64, &theirs),
        (object::Architecture::Aarch64, true) => compare_sources(path, &file, &Aarch64::new(), &theirs),
        (object::Architecture::Aarch64, false) => {
            compare_sources(path, &file, &Aarch64::big_endian(), &theirs)
        }
        _ => compare_sources(path, &file, &S390x, &theirs),
    }
}

fn compare_sources<A: Arch>(
    path: &Path,
    file: &object::File<'_>,
    arch: &A,
    theirs: &SFrameSource<'_>,
) -> u64 {
    let owned = Sections::of(file);
    let source = DwarfSource::new(owned.borrow(Flavor::EhFrame));
    let section = convert_to_vec(arch, &source, Flavor::EhFrame, Version::V3, 0x1000, &mut |what| {
        println!("{what:x?}")
    })
    .unwrap();
    let ours = SFrameSource::new(&section, 0x1000);
    let mut memory = from_fn(|address, _: &mut [u8]| Err(MemoryError::Unreadable { address }));
    // ld describes the entries of `.plt.got`, which push nothing, as if they had pushed a word.
    let wrong =
        file.section_by_name(".plt.got").map(|section| section.address()..section.address() + section.size());
    let mut compared = 0;
    for section in theirs.sections() {
        let section = section.unwrap();
        for fde in section.fdes() {
            let fde = fde.unwrap();
            for address in fde.start..fde.start + u64::from(fde.size) {
                let query = Query::new(Pc::Exact(address));
                let mut lookup = |source: &SFrameSource<'_>| {
                    let found = source.lookup(arch, UnwindUserType::SFrame, &query, &mut memory);
                    found.unwrap().map(|found| found.rule)
                };
                let (theirs, ours) = (lookup(theirs), lookup(&ours));
                if wrong.as_ref().is_some_and(|wrong| wrong.contains(&address)) {
                    assert_ne!(theirs, ours, "{} at {address:#x}: right by now", path.display());
                    continue;
                }
                assert_eq!(theirs, ours, "{} at {address:#x}", path.display());
                compared += 1;
            }
        }
    }
    compared
}
