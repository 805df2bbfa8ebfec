//! Converted sections beside binutils: they say what its assembler says of the same functions, and
//! objdump reads in them what we wrote.
//!
//! To print version 1 takes an objdump of 2.40, version 2 one of 2.44, version 3 one of 2.46 or later: the one
//! that is installed, and those below `$SF` (`unwind-toolchains` in the temporary folder), in
//! `trixie/bin` and `sid/bin`. Those that are not there are skipped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object, ObjectSection};
use unwind_arch_aarch64::Aarch64;
use unwind_arch_s390x::S390x;
use unwind_arch_x86_64::X86_64;
use unwind_core::dwarf::{DwarfSource, Flavor};
use unwind_core::sframe::{SFrameSection, SFrameSource, Version, WriteError, convert_to_vec};
use unwind_core::{Arch, FrameSource, MemoryError, Pc, Query, UnwindUserType, from_fn};
use unwind_tests::sframe::{FrameSections, folder};

/// Where the assembler's `.sframe` covers a pc, so does ours, with the same rule.
#[test]
fn conversion_equals_what_an_assembler_wrote() {
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
        let path = folder().join("v3").join(name);
        let data = std::fs::read(&path).unwrap();
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
    let samples = folder().join("v3");
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
    let owned = FrameSections::of(&file);
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
    let owned = FrameSections::of(file);
    let source = DwarfSource::new(owned.borrow(Flavor::EhFrame));
    let ours = convert_to_vec(arch, &source, Flavor::EhFrame, Version::V3, 0x1000, &mut |_| {}).unwrap();
    let converted = SFrameSection::parse(&ours, 0x1000).unwrap();
    let ours = SFrameSource::new(&ours, 0x1000);
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
                let (their_rule, our_rule) = (lookup(theirs), lookup(&ours));
                let at = format!("{} at {address:#x}", path.display());
                if wrong.as_ref().is_some_and(|wrong| wrong.contains(&address)) {
                    assert_ne!(their_rule, our_rule, "{at}: right by now");
                    continue;
                }
                assert_eq!(their_rule, our_rule, "{at}");
                let signs = |section: &SFrameSection<'_>| {
                    let fde = section.find(address, None).unwrap()?;
                    Some((fde.key_b, section.row_at(&fde, address).unwrap()?.is_mangled))
                };
                assert_eq!(signs(&section), signs(&converted), "{at}");
                compared += 1;
            }
        }
    }
    compared
}
