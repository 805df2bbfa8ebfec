//! What one lookup costs: SFrame beside DWARF, for the same functions and the same pcs.
//!
//! `cargo bench -p unwind-tests --bench lookup` prints, for 1,000 and for 100,000 functions, the
//! time per lookup of each source, their ratio, and, where valgrind is installed, instructions per
//! lookup: those of a long run less those of a short one, divided by how many lookups more it makes.
//! To see by hand where they go:
//!
//! `valgrind --tool=callgrind target/release/deps/lookup-… SOURCE FUNCTIONS LOOKUPS`,
//! with `SOURCE` one of `none` (the loop alone), `sframe`, `dwarf` (through `.eh_frame_hdr`) and
//! `dwarf-index` (through an index in lent room). `LOOKUP_TABLES` names a folder where the tables
//! already are, so that valgrind need not watch them being made.
//!
//! The functions are made up after those of a C library: up to six registers pushed, stack
//! allocated, an epilogue in the middle or at the end; about seven rows each. `.eh_frame` is
//! gimli's writer's, the `.sframe` of version 3 is converted from it.

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use gimli::write::{
    Address, CallFrameInstruction, CommonInformationEntry, EhFrame, EndianVec, FrameDescriptionEntry,
    FrameTable,
};
use unwind_arch_x86_64::X86_64;
use unwind_core::dwarf::{DwarfIndex, DwarfIndexEntry, DwarfSections, DwarfSource, Flavor, Section};
use unwind_core::sframe::{SFrameSection, SFrameSource, Version, convert_to_vec};
use unwind_core::{FrameSource, MemoryError, Pc, Query, Rule, UnwindUserType, from_fn};

/// Where code begins (svma); `.eh_frame` is at 0, as gimli's writer has it.
const TEXT: u64 = 0x1000_0000;
const HDR: u64 = 0x0800_0000;
const SFRAME: u64 = 0x0c00_0000;

const FUNCTIONS: [u64; 2] = [1_000, 100_000];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match &arguments[..] {
        [] => compare(),
        [source, functions, lookups] => {
            let tables = match std::env::var_os("LOOKUP_TABLES") {
                Some(folder) => Tables::load(Path::new(&folder)),
                None => Tables::new(functions.parse().unwrap()),
            };
            black_box(run(&tables, source, lookups.parse().unwrap()));
        }
        _ => panic!("SOURCE FUNCTIONS LOOKUPS"),
    }
}

fn compare() {
    for functions in FUNCTIONS {
        let tables = Tables::new(functions);
        println!(
            "{functions} functions, {} rows: .sframe {} bytes, .eh_frame {} + .eh_frame_hdr {} bytes",
            tables.rows,
            tables.sframe.len(),
            tables.eh_frame.len(),
            tables.hdr.len(),
        );
        tables.check();
        let folder = std::env::temp_dir().join(format!("lookup-{}-{functions}", std::process::id()));
        tables.store(&folder);
        let times = nanoseconds(&tables);
        let [loop_alone, sframe, ..] = times;
        let loop_instructions = instructions(&folder, SOURCES[0]);
        for (source, time) in SOURCES.into_iter().zip(times).skip(1) {
            let instructions = match (instructions(&folder, source), loop_instructions) {
                (Some(with), Some(without)) => format!("{:.0} instructions", with - without),
                _ => "SKIPPED instructions: no valgrind".to_owned(),
            };
            let ratio = (time - loop_alone) / (sframe - loop_alone);
            println!(
                "  {source:<12} {:7.0} ns, {ratio:5.2} times sframe's; {instructions}",
                time - loop_alone
            );
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

/// The loop alone, and what is compared.
const SOURCES: [&str; 4] = ["none", "sframe", "dwarf", "dwarf-index"];

/// The time of a lookup and the loop around it, for each of [`SOURCES`]: the best of some rounds, in
/// each of which every source has its turn, so that a busy machine is busy for all of them.
fn nanoseconds(tables: &Tables) -> [f64; SOURCES.len()] {
    const ROUNDS: u32 = 12;
    const LOOKUPS: u32 = 50_000;
    let mut best = [f64::INFINITY; SOURCES.len()];
    for _ in 0..ROUNDS {
        for (best, source) in best.iter_mut().zip(SOURCES) {
            *best = best.min(run(tables, source, LOOKUPS.into()).1 / f64::from(LOOKUPS));
        }
    }
    best
}

/// The instructions of a lookup and the loop around it, as valgrind counts them.
fn instructions(folder: &Path, source: &str) -> Option<f64> {
    const SHORT: u64 = 1_000;
    const LONG: u64 = 21_000;
    let count = |lookups: u64| {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(std::env::current_exe().unwrap())
            .args([source, "0", &lookups.to_string()])
            .env("LOOKUP_TABLES", folder)
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let (_, collected) = text.split_once("Collected : ")?;
        collected.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some((count(LONG)? - count(SHORT)?) as f64 / (LONG - SHORT) as f64)
}

/// Makes lookups at random pcs: how many rules were found, and how many nanoseconds it took without
/// the making of the source.
fn run(tables: &Tables, source: &str, lookups: u64) -> (u64, f64) {
    let sframe = SFrameSource::new(&tables.sframe, SFRAME);
    let sections = tables.sections();
    let mut room = Vec::new();
    match source {
        "none" => repeat(tables, lookups, |_| None),
        "sframe" => repeat(tables, lookups, |pc| lookup(&sframe, UnwindUserType::SFrame, pc)),
        "dwarf" => {
            let dwarf = DwarfSource::new(sections);
            repeat(tables, lookups, |pc| lookup(&dwarf, UnwindUserType::Dwarf, pc))
        }
        "dwarf-index" => {
            room.resize(tables.functions.len(), DwarfIndexEntry::default());
            let index = DwarfIndex::build(&X86_64, &sections, Flavor::EhFrame, &mut room).unwrap();
            let dwarf = DwarfSource::new(DwarfSections {
                eh_frame_hdr: None,
                eh_frame_index: Some(index),
                ..sections
            });
            repeat(tables, lookups, |pc| lookup(&dwarf, UnwindUserType::Dwarf, pc))
        }
        other => panic!("no source {other}"),
    }
}

fn repeat(tables: &Tables, lookups: u64, find: impl Fn(Pc) -> Option<Rule>) -> (u64, f64) {
    let begin = Instant::now();
    let mut random = Random(1);
    let mut found = 0;
    for _ in 0..lookups {
        let rule = find(black_box(tables.pc(&mut random)));
        found += u64::from(black_box(rule).is_some());
    }
    (found, begin.elapsed().as_nanos() as f64)
}

fn lookup(source: &dyn FrameSource<X86_64>, kind: UnwindUserType, pc: Pc) -> Option<Rule> {
    let mut memory = from_fn(|address, _: &mut [u8]| Err(MemoryError::Unreadable { address }));
    source.lookup(&X86_64, kind, &Query::new(pc), &mut memory).unwrap().map(|found| found.rule)
}

/// What a folder holds: see [`Tables::store`].
const FILES: [&str; 4] = ["functions", "eh_frame", "eh_frame_hdr", "sframe"];

/// The same functions in each format.
struct Tables {
    /// Start and length.
    functions: Vec<(u64, u32)>,
    rows: u32,
    eh_frame: Vec<u8>,
    hdr: Vec<u8>,
    sframe: Vec<u8>,
}

impl Tables {
    fn new(count: u64) -> Self {
        let encoding = gimli::Encoding { format: gimli::Format::Dwarf32, version: 1, address_size: 8 };
        let mut cie = CommonInformationEntry::new(encoding, 1, -8, gimli::X86_64::RA);
        cie.fde_address_encoding = gimli::constants::DwEhPe(0x1b); // pc-relative, 4 bytes
        cie.add_instruction(CallFrameInstruction::Cfa(gimli::X86_64::RSP, 8));
        cie.add_instruction(CallFrameInstruction::Offset(gimli::X86_64::RA, -8));
        let mut table = FrameTable::default();
        let cie = table.add_cie(cie);
        let mut functions = Vec::new();
        let mut random = Random(count);
        let mut start = TEXT;
        for _ in 0..count {
            let (fde, length) = function(start, &mut random);
            table.add_fde(cie, fde);
            functions.push((start, length));
            start += u64::from(length).next_multiple_of(16);
        }
        let mut writer = EhFrame::from(EndianVec::new(gimli::LittleEndian));
        table.write_eh_frame(&mut writer).unwrap();
        let mut tables =
            Tables { functions, rows: 0, eh_frame: writer.0.into_vec(), hdr: Vec::new(), sframe: Vec::new() };
        let source = DwarfSource::new(tables.sections());
        // As linkers write it: version 1, a relative pointer to `.eh_frame`, which is at 0, a count of 4 bytes,
        // pairs relative to this section.
        let mut hdr = vec![1, 0x1b, 0x03, 0x3b];
        hdr.extend(i32::try_from(-(HDR as i64 + 4)).unwrap().to_le_bytes());
        hdr.extend(u32::try_from(count).unwrap().to_le_bytes());
        for function in source.functions(&X86_64, Flavor::EhFrame) {
            let function = function.unwrap();
            for address in [function.start(), function.offset()] {
                hdr.extend(i32::try_from(address as i64 - HDR as i64).unwrap().to_le_bytes());
            }
        }
        let sframe = convert_to_vec(&X86_64, &source, Flavor::EhFrame, Version::V3, SFRAME, &mut |what| {
            panic!("{what:?}")
        });
        let sframe = sframe.unwrap();
        tables.rows = SFrameSection::parse(&sframe, SFRAME).unwrap().header().fre_count;
        Tables { hdr, sframe, ..tables }
    }

    /// Writes the tables into a folder.
    fn store(&self, folder: &Path) {
        let functions: Vec<u8> = self
            .functions
            .iter()
            .flat_map(|(start, length)| start.to_le_bytes().into_iter().chain(length.to_le_bytes()))
            .collect();
        std::fs::create_dir_all(folder).unwrap();
        for (name, data) in FILES.into_iter().zip([&functions, &self.eh_frame, &self.hdr, &self.sframe]) {
            std::fs::write(folder.join(name), data).unwrap();
        }
    }

    /// Reads the tables of a folder.
    fn load(folder: &Path) -> Self {
        let [functions, eh_frame, hdr, sframe] = FILES.map(|name| std::fs::read(folder.join(name)).unwrap());
        let (functions, []) = functions.as_chunks::<12>() else { panic!("not functions") };
        let function = |[start @ .., a, b, c, d]: &[u8; 12]| {
            (u64::from_le_bytes(*start), u32::from_le_bytes([*a, *b, *c, *d]))
        };
        Tables { functions: functions.iter().map(function).collect(), rows: 0, eh_frame, hdr, sframe }
    }

    fn sections(&self) -> DwarfSections<'_> {
        DwarfSections {
            eh_frame: Some(Section { data: &self.eh_frame, svma: 0 }),
            eh_frame_hdr: Some(Section { data: &self.hdr, svma: HDR }).filter(|hdr| !hdr.data.is_empty()),
            ..DwarfSections::default()
        }
    }

    /// A pc in a random function.
    fn pc(&self, random: &mut Random) -> Pc {
        let (start, length) = self.functions[random.below(self.functions.len() as u64) as usize];
        Pc::Exact(start + random.below(length.into()))
    }

    /// Every source says the same.
    fn check(&self) {
        let (sframe, dwarf) = (SFrameSource::new(&self.sframe, SFRAME), DwarfSource::new(self.sections()));
        let mut random = Random(2);
        for _ in 0..10_000 {
            let pc = self.pc(&mut random);
            let rule = lookup(&sframe, UnwindUserType::SFrame, pc);
            assert!(rule.is_some() && rule == lookup(&dwarf, UnwindUserType::Dwarf, pc), "{pc:x?}");
        }
    }
}

/// A function as compilers make them, and its length.
fn function(start: u64, random: &mut Random) -> (FrameDescriptionEntry, u32) {
    use CallFrameInstruction::{CfaOffset, Offset, RememberState, RestoreState};
    let body = 16 + random.below(400) as u32;
    let pushes = [0, 0, 1, 1, 2, 3, 4, 6][random.below(8) as usize];
    let allocates = random.below(2) == 1;
    let goes_on = random.below(2) == 1;
    let mut rows = Vec::new();
    let mut at = 0;
    let mut cfa = 8;
    for register in [15, 14, 13, 12, 6, 3].into_iter().take(pushes) {
        at += if register > 7 { 2 } else { 1 };
        cfa += 8;
        rows.push((at, CfaOffset(cfa)));
        rows.push((at, Offset(gimli::Register(register), -cfa)));
    }
    let saved = cfa;
    if allocates {
        at += 4;
        cfa += 8 * (1 + random.below(20) as i32);
        rows.push((at, CfaOffset(cfa)));
    }
    at += body;
    if pushes > 0 || allocates {
        if goes_on {
            rows.push((at, RememberState));
        }
        if allocates {
            at += 4;
            rows.push((at, CfaOffset(saved)));
        }
        for pop in 0..pushes {
            at += 2;
            rows.push((at, CfaOffset(saved - 8 * (pop as i32 + 1))));
        }
        at += 1;
        if goes_on {
            rows.push((at, RestoreState));
            at += 30;
        }
    }
    let mut fde = FrameDescriptionEntry::new(Address::Constant(start), at);
    for (offset, instruction) in rows {
        fde.add_instruction(offset, instruction);
    }
    (fde, at)
}

/// A linear congruential generator: the same functions and pcs every time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}
