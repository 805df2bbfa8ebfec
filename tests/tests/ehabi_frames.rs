//! At every call of compiled functions, exception handling tables against the call frame information
//! that the same compiler wrote for the same code: they describe one truth in two ways.

use std::collections::BTreeMap;

use unwind_core::dwarf::{DwarfSections, DwarfSource, Section};
use unwind_core::{
    Arch, CallerRegisters, FrameSource, LookupError, Pc, Query, Register, Rule, Trust, UnwindUserType,
};
use unwind_tests::ehabi::{Arm, Elf, Made, folder};

/// The caller's registers: sp, pc and r4 to r11.
type Caller = BTreeMap<u16, u64>;

/// Takes every register.
#[derive(Default)]
struct All(Caller);

impl CallerRegisters for All {
    fn wants(&self, _: Register) -> bool {
        true
    }

    fn set(&mut self, register: Register, value: u64) {
        self.0.insert(register.0, value);
    }
}

/// Evaluates a frame at a return address in full.
fn caller(
    arch: &Arm,
    source: &dyn FrameSource<Arm>,
    kind: UnwindUserType,
    ra: u64,
    made: Made,
) -> Result<Option<Caller>, LookupError> {
    let (query, mut memory, mut all) = (Query::new(Pc::Return(ra)), made, All::default());
    let Some(found) = source.evaluate(arch, kind, &query, &made, &mut memory, &mut all)? else {
        return Ok(None);
    };
    let mut caller = all.0;
    caller.retain(|number, _| (4..=11).contains(number));
    caller.insert(13, found.sp.unwrap_or(found.cfa));
    caller.extend(found.ra.map(|ra| (15, ra)));
    caller.extend(found.fp.map(|fp| (arch.fp().0, fp)));
    Ok(Some(caller))
}

#[test]
fn at_every_call_tables_and_call_frame_information_agree() {
    let mut calls = 0;
    let mut in_words = 0;
    for name in [
        "frames-thumb-O2",
        "frames-thumb-O0",
        "frames-arm-O2",
        "frames-arm-O1-fp",
        "frames-arm-apcs",
        "frames-be8-Os",
    ] {
        let path = folder().join(name);
        let elf = Elf::read(&path.with_extension("elf"));
        let arch = Arm { order: elf.order, fp: 11 };
        let made = Made { seed: 7, order: elf.order };
        let data = elf.debug_frame.as_deref().unwrap();
        let debug_frame = Some(Section { data, svma: 0 });
        let dwarf = DwarfSource::new(DwarfSections { debug_frame, ..DwarfSections::default() });
        let ehabi = elf.source();
        let text = std::fs::read_to_string(path.with_extension("calls")).unwrap();
        for line in text.lines() {
            let ra = u64::from_str_radix(line.strip_prefix("0x").unwrap(), 16).unwrap();
            let said = caller(&arch, &ehabi, UnwindUserType::Ehabi, ra, made);
            let expected = caller(&arch, &dwarf, UnwindUserType::Dwarf, ra, made);
            let expected = expected.unwrap().unwrap_or_else(|| panic!("{name}: {ra:#x} is in no function"));
            assert_eq!(expected.len(), 10, "{name} at {ra:#x}");
            assert_eq!(said, Ok(Some(expected)), "{name} at {ra:#x}");
            calls += 1;

            let found =
                ehabi.lookup(&arch, UnwindUserType::Ehabi, &Query::new(Pc::Return(ra)), &mut { made });
            let found = found.unwrap().unwrap();
            assert_eq!(found.trust, Trust::Exact);
            in_words += usize::from(matches!(found.rule, Rule::Frame(_)));
        }
    }
    assert_eq!((calls, in_words), (494, 494));
}

/// A call that is the last instruction: the return address is where the next function begins.
#[test]
fn a_call_at_the_end_belongs_to_its_function() {
    let elf = Elf::read(&folder().join("frames-arm-O2.elf"));
    let arch = Arm::LITTLE;
    let made = Made { seed: 1, order: elf.order };
    let sections = elf.sections();
    let start = elf.function("ends_with_a_call");
    let entry = sections.find(start).unwrap().unwrap();
    let lookup = |pc| {
        let found = elf.source().lookup(&arch, UnwindUserType::Ehabi, &Query::new(pc), &mut { made });
        found.unwrap().unwrap()
    };
    let calls = std::fs::read_to_string(folder().join("frames-arm-O2.calls")).unwrap();
    assert!(calls.contains(&format!("{:#x}\n", entry.end)), "it does end with a call");
    assert!(lookup(Pc::Return(entry.end)).is_at_end);
    assert_eq!(lookup(Pc::Return(entry.end)).rule, lookup(Pc::Return(entry.end - 4)).rule);
    assert!(!lookup(Pc::Return(entry.end - 4)).is_at_end);
    assert!(!lookup(Pc::Exact(entry.end)).is_at_end);
    assert_ne!(lookup(Pc::Exact(entry.end + 4)).rule, lookup(Pc::Return(entry.end)).rule);
}
