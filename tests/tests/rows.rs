//! Every row of every function of the libraries at hand: our row machine and its rules against
//! gimli's table, an independent implementation.
//!
//! Registers and memory are made up (a hash of number and address), so that every rule has a value
//! and two different rules have different ones. At the first and the last address of every row,
//! the CFA, the return address and the frame pointer by gimli must be those of
//! `FrameSource::evaluate`, those of the rule that `FrameSource::lookup` found, and those found
//! through an index and by `.debug_frame`.
//!
//! `UNWIND_ROWS=FILE[:FILE…]` names files of one's own.

use std::path::Path;

use gimli::{BaseAddresses, CieOrFde, EndianSlice, EvaluationResult, RunTimeEndian, UnwindSection};
use object::{Object, ObjectSection};
use unwind_arch::AnyArch;
use unwind_core::dwarf::{DwarfIndex, DwarfIndexEntry, DwarfSections, DwarfSource, Flavor, Section};
use unwind_core::{
    Arch, Base, Broken, ByteOrder, CallerRegisters, CfaRule, FpRule, FrameKind, FrameSource, LookupError,
    MemoryError, MemoryReader, Pc, Query, RaRule, Register, RegisterFile, Rule, UnwindUserFrame,
    UnwindUserType, WordSize,
};
use unwind_tests::libraries;

type Slice<'d> = EndianSlice<'d, RunTimeEndian>;

/// What a frame's rule came to: the return address is `None` where it is undefined.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Values {
    cfa: u64,
    ra: Option<u64>,
    fp: Option<u64>,
    /// The caller's sp, where that is not the CFA.
    sp: Option<u64>,
    signal: bool,
}

#[test]
fn rows_equal_gimlis() {
    let mut total = Count::default();
    for file in libraries::named_or(libraries::of_all_architectures) {
        let data = match std::fs::read(&file) {
            Ok(data) => data,
            Err(error) => {
                println!("SKIPPED {}: {error}", file.display());
                continue;
            }
        };
        let count = compare_file(&file, &data);
        println!("{}: {count:?}", file.display());
        total.add(&count);
    }
    println!("total: {total:?}");
    assert!(total.functions > 1_000, "no library was found: {total:?}");
    assert!(total.rules > 0 && total.evaluated > 0);
}

#[derive(Debug, Default)]
struct Count {
    functions: u64,
    rows: u64,
    rules: u64,
    evaluated: u64,
}

impl Count {
    fn add(&mut self, other: &Count) {
        self.functions += other.functions;
        self.rows += other.rows;
        self.rules += other.rules;
        self.evaluated += other.evaluated;
    }
}

fn compare_file(path: &Path, data: &[u8]) -> Count {
    let file = object::File::parse(data).unwrap();
    let half = [data[18], data[19]];
    let machine = if data[5] == 1 { u16::from_le_bytes(half) } else { u16::from_be_bytes(half) };
    let object::FileFlags::Elf { e_flags, .. } = file.flags() else { panic!("{}: no ELF", path.display()) };
    let arch = AnyArch::from_elf_flags(machine, data[4], data[5], e_flags.0);
    compare(path, &file, arch.unwrap_or_else(|| panic!("{}: no architecture {machine}", path.display())))
}

fn compare<A: Arch>(path: &Path, file: &object::File<'_>, arch: A) -> Count {
    let mut count = Count::default();
    let section = |name: &str| {
        let section = file.section_by_name(name)?;
        Some((section.uncompressed_data().unwrap().into_owned(), section.address()))
    };
    let [eh_frame, hdr, debug_frame] = [".eh_frame", ".eh_frame_hdr", ".debug_frame"].map(section);
    let address = |name| file.section_by_name(name).map(|section| section.address());
    fn borrowed(section: &Option<(Vec<u8>, u64)>) -> Option<Section<'_>> {
        section.as_ref().map(|(data, svma)| Section { data, svma: *svma })
    }
    let sections = DwarfSections {
        eh_frame: borrowed(&eh_frame),
        eh_frame_hdr: borrowed(&hdr),
        text_svma: address(".text"),
        got_svma: address(".got"),
        ..DwarfSections::default()
    };
    let mut bases = BaseAddresses::default();
    if let Some(section) = sections.eh_frame {
        bases = bases.set_eh_frame(section.svma);
    }
    if let Some(text) = sections.text_svma {
        bases = bases.set_text(text);
    }
    if let Some(got) = sections.got_svma {
        bases = bases.set_got(got);
    }
    if let Some(section) = sections.eh_frame {
        let source = DwarfSource::new(sections);
        source.verify_hdr(&arch).unwrap();
        let mut room =
            vec![DwarfIndexEntry::default(); DwarfIndex::room(&arch, &sections, Flavor::EhFrame).unwrap()];
        let index = DwarfIndex::build(&arch, &sections, Flavor::EhFrame, &mut room).unwrap();
        let indexed =
            DwarfSource::new(DwarfSections { eh_frame_hdr: None, eh_frame_index: Some(index), ..sections });
        let mut eh_frame = gimli::EhFrame::new(section.data, endian(file));
        eh_frame.set_address_size(bytes_of(arch.word_size()));
        eh_frame.set_vendor(vendor(&arch));
        compare_section(path, &eh_frame, &bases, &arch, &[source, indexed], &mut count);
    }
    if let Some(section) = borrowed(&debug_frame) {
        let sections = DwarfSections { debug_frame: Some(section), ..DwarfSections::default() };
        let mut room =
            vec![DwarfIndexEntry::default(); DwarfIndex::room(&arch, &sections, Flavor::DebugFrame).unwrap()];
        let index = DwarfIndex::build(&arch, &sections, Flavor::DebugFrame, &mut room).unwrap();
        let indexed = DwarfSource::new(DwarfSections { debug_frame_index: Some(index), ..sections });
        let mut debug_frame = gimli::DebugFrame::new(section.data, endian(file));
        debug_frame.set_address_size(bytes_of(arch.word_size()));
        debug_frame.set_vendor(vendor(&arch));
        compare_section(path, &debug_frame, &bases, &arch, &[indexed], &mut count);
    }
    count
}

fn endian(file: &object::File<'_>) -> RunTimeEndian {
    if file.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big }
}

fn bytes_of(word: WordSize) -> u8 {
    match word {
        WordSize::Four => 4,
        WordSize::Eight => 8,
    }
}

fn vendor<A: Arch>(arch: &A) -> gimli::Vendor {
    if arch.name() == "aarch64" { gimli::Vendor::AArch64 } else { gimli::Vendor::Default }
}

fn compare_section<'d, A: Arch, S: UnwindSection<Slice<'d>>>(
    path: &Path,
    section: &S,
    bases: &BaseAddresses,
    arch: &A,
    sources: &[DwarfSource<'_>],
    count: &mut Count,
) {
    let mut context = gimli::UnwindContext::new();
    let mut entries = section.entries(bases);
    loop {
        let entry = match entries.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        let CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial.parse(S::cie_from_offset).unwrap();
        if fde.len() == 0 || fde.initial_address() == 0 {
            continue;
        }
        count.functions += 1;
        let mut rows = fde.rows(section, bases, &mut context).unwrap();
        while let Some(row) = rows.next_row().unwrap() {
            count.rows += 1;
            let (start, end) = (row.start_address(), row.end_address());
            if start >= end {
                continue;
            }
            for address in [start, end - 1] {
                let expected = expected(section, arch, &fde, row, address);
                for source in sources {
                    let at = format!("{} at {address:#x}, FDE {:#x}", path.display(), fde.initial_address());
                    check(arch, source, address, &expected, &at, count);
                }
            }
        }
    }
}

fn check<A: Arch>(
    arch: &A,
    source: &DwarfSource<'_>,
    address: u64,
    expected: &Result<Values, Broken>,
    at: &str,
    count: &mut Count,
) {
    let query = Query::new(Pc::Exact(address));
    let registers = Made::new(arch, address);
    let found = source.lookup(arch, UnwindUserType::Dwarf, &query, &mut MadeMemory::new(arch));
    let evaluated = source.evaluate(
        arch,
        UnwindUserType::Dwarf,
        &query,
        &registers,
        &mut MadeMemory::new(arch),
        &mut Nothing,
    );
    let expected = match expected {
        Ok(expected) => *expected,
        Err(broken) => {
            for error in [found.err(), evaluated.err()] {
                assert!(
                    matches!(error, Some(LookupError::Broken(error)) if error.broken == *broken),
                    "{at}: {error:?}"
                );
            }
            return;
        }
    };
    let evaluated = evaluated.unwrap_or_else(|error| panic!("{at}: {error:?}")).expect(at);
    // Registers may be wider than words; a step cuts them.
    let word = |value: Option<u64>| value.map(|value| arch.word_size().truncate(value));
    let sp = word(evaluated.sp).filter(|sp| *sp != evaluated.cfa);
    let values = Values {
        cfa: if expected.ra.is_none() { expected.cfa } else { evaluated.cfa },
        ra: word(evaluated.ra),
        fp: if expected.ra.is_none() { expected.fp } else { word(evaluated.fp) },
        sp: if expected.ra.is_none() { expected.sp } else { sp },
        signal: evaluated.kind == FrameKind::Signal,
    };
    assert_eq!(values, expected, "{at}: evaluated");
    count.evaluated += 1;
    match found.unwrap_or_else(|error| panic!("{at}: {error:?}")).expect(at).rule {
        Rule::Frame(frame) => {
            count.rules += 1;
            let values = apply(arch, &frame, &registers);
            match expected.ra {
                None => assert_eq!(values.ra, None, "{at}: {frame:?}"),
                // What such a function has saved as the caller's sp is the CFA plus the bias.
                Some(_) if arch.sp_bias() != 0 => {
                    assert_eq!(values, Values { sp: None, ..expected }, "{at}: {frame:?}");
                }
                Some(_) => assert_eq!(values, expected, "{at}: {frame:?}"),
            }
        }
        Rule::Evaluate => {}
    }
}

/// What gimli's row says, over the made-up registers and memory.
fn expected<'d, A: Arch, S: UnwindSection<Slice<'d>>>(
    section: &S,
    arch: &A,
    fde: &gimli::FrameDescriptionEntry<Slice<'d>>,
    row: &gimli::UnwindTableRow<usize>,
    pc: u64,
) -> Result<Values, Broken> {
    let registers = Made::new(arch, pc);
    let word = arch.word_size();
    let word_at = |address| word.truncate(word_at(address));
    let plus = |value: u64, offset: i64| word.truncate(value.wrapping_add(offset as u64));
    let ra_column = fde.cie().return_address_register();
    let encoding = fde.cie().encoding();
    let evaluate = |expression: &gimli::UnwindExpression<usize>, cfa: Option<u64>| {
        let mut evaluation = expression.get(section).unwrap().evaluation(encoding);
        if let Some(cfa) = cfa {
            evaluation.set_initial_value(cfa);
        }
        let mut result = evaluation.evaluate().unwrap();
        loop {
            result = match result {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = registers.get(Register(register.0)).unwrap();
                    evaluation.resume_with_register(gimli::Value::Generic(value)).unwrap()
                }
                EvaluationResult::RequiresMemory { address, size, .. } => {
                    assert_eq!(size, bytes_of(word));
                    evaluation.resume_with_memory(gimli::Value::Generic(word_at(address))).unwrap()
                }
                other => panic!("{other:?}"),
            }
        }
        match evaluation.value_result() {
            Some(gimli::Value::Generic(value)) => value,
            other => panic!("{other:?}"),
        }
    };
    let signal = fde.is_signal_trampoline();
    let ra_rule = row.register(ra_column);
    if ra_rule == Some(gimli::RegisterRule::Undefined) {
        return Ok(Values { cfa: 0, ra: None, fp: None, sp: None, signal });
    }
    let cfa = match row.cfa() {
        gimli::CfaRule::RegisterAndOffset { register, offset } => {
            plus(registers.get(Register(register.0)).unwrap(), *offset)
        }
        gimli::CfaRule::Expression(expression) => evaluate(expression, None),
    };
    let column = |number: u16| {
        use gimli::RegisterRule::*;
        Some(match row.register(gimli::Register(number)) {
            None | Some(SameValue) => registers.get(unwind_core::Register(number)).unwrap(),
            Some(Undefined) => return None,
            Some(Offset(offset)) => word_at(plus(cfa, offset)),
            Some(ValOffset(offset)) => plus(cfa, offset),
            Some(Register(holder)) => registers.get(unwind_core::Register(holder.0)).unwrap(),
            Some(Expression(expression)) => word_at(evaluate(&expression, Some(cfa))),
            Some(ValExpression(expression)) => evaluate(&expression, Some(cfa)),
            other => panic!("{other:?}"),
        })
    };
    if arch.ip() == Some(Register(ra_column.0))
        && matches!(ra_rule, None | Some(gimli::RegisterRule::SameValue))
    {
        return Err(Broken::NoReturnAddress);
    }
    let sp = match row.register(gimli::Register(arch.sp().0)) {
        None | Some(gimli::RegisterRule::SameValue | gimli::RegisterRule::Undefined) => None,
        Some(_) => column(arch.sp().0).filter(|sp| *sp != cfa),
    };
    Ok(Values { cfa, ra: column(ra_column.0), fp: column(arch.fp().0), sp, signal })
}

/// What a rule says, over the made-up registers and memory.
fn apply<A: Arch>(arch: &A, frame: &UnwindUserFrame, registers: &Made) -> Values {
    let base = |base: Base| match base {
        Base::Sp => registers.get(arch.sp()).unwrap(),
        Base::Fp => registers.get(arch.fp()).unwrap(),
        Base::Register(register) => registers.get(register).unwrap(),
    };
    let word = arch.word_size();
    let word_at = |address| word.truncate(word_at(address));
    let plus = |value: u64, offset: i64| word.truncate(value.wrapping_add(offset as u64));
    let cfa = match frame.cfa() {
        CfaRule::Offset { base: from, offset } => plus(base(from), offset.into()),
        CfaRule::Deref { base: from, offset, add } => {
            plus(word_at(plus(base(from), offset.into())), add.into())
        }
    };
    let ra = match frame.ra() {
        RaRule::AtCfa(offset) => Some(word_at(plus(cfa, offset.into()))),
        RaRule::InRegister { base: from, offset } => Some(plus(base(from), offset.into())),
        RaRule::AtRegister { base: from, offset } => Some(word_at(plus(base(from), offset.into()))),
        RaRule::Undefined => None,
    };
    let fp = match frame.fp() {
        FpRule::Unchanged => Some(base(Base::Fp)),
        FpRule::AtCfa(offset) => Some(word_at(plus(cfa, offset.into()))),
        FpRule::CfaOffset(offset) => Some(plus(cfa, offset.into())),
        FpRule::InRegister { base: from, offset } => Some(plus(base(from), offset.into())),
        FpRule::AtRegister { base: from, offset } => Some(word_at(plus(base(from), offset.into()))),
        FpRule::Undefined => None,
    };
    Values { cfa, ra, fp, sp: None, signal: frame.kind() == FrameKind::Signal }
}

/// Made-up registers: every one has a value of its own, far from both ends of the address space,
/// and the program counter is what it is.
struct Made {
    pc: u64,
    ip: Option<Register>,
    word: WordSize,
}

impl Made {
    fn new<A: Arch>(arch: &A, pc: u64) -> Self {
        Made { pc, ip: arch.ip(), word: arch.word_size() }
    }
}

impl RegisterFile for Made {
    fn get(&self, register: Register) -> Option<u64> {
        let value = if Some(register) == self.ip { self.pc } else { middle(mix(u64::from(register.0))) };
        Some(self.word.truncate(value))
    }
}

/// Made-up memory: every address has bytes of its own.
struct MadeMemory {
    order: ByteOrder,
    sizes: [WordSize; 2],
}

impl MadeMemory {
    fn new<A: Arch>(arch: &A) -> Self {
        MadeMemory { order: arch.byte_order(), sizes: [arch.word_size(), arch.register_size()] }
    }
}

impl MemoryReader for MadeMemory {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let size = into.len();
        assert!(
            self.sizes.iter().any(|word| usize::from(bytes_of(*word)) == size),
            "only words are read here"
        );
        match self.order {
            ByteOrder::Little => into.copy_from_slice(&word_at(address).to_le_bytes()[..size]),
            ByteOrder::Big => into.copy_from_slice(&word_at(address).to_be_bytes()[8 - size..]),
        }
        Ok(())
    }
}

fn word_at(address: u64) -> u64 {
    middle(mix(address ^ 0x5851_f42d_4c95_7f2d))
}

/// Far from both ends of the address space, also where only the lower half counts.
fn middle(value: u64) -> u64 {
    let low = value >> 2 & 0x1fff_ffff | 0x2000_0000;
    value >> 2 & !0xffff_ffff | 1 << 40 | low
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (value ^ (value >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

struct Nothing;

impl CallerRegisters for Nothing {
    fn wants(&self, _: Register) -> bool {
        false
    }

    fn set(&mut self, _: Register, _: u64) {}
}
