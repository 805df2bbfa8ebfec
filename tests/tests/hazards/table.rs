//! Tables and machines for the hazards: small, and made of what the reader sees.

use unwind_arch::aarch64::Aarch64;
use unwind_arch::x86_64::X86_64;
use unwind_core::dwarf::{DwarfIndex, DwarfIndexEntry, DwarfSections, DwarfSource, Flavor, Section};
use unwind_core::{
    Arch, End, Found, Frame, FrameSource, LookupError, MemoryError, MemoryReader, Options, Pc, Query, Rule,
    UnwindUserFrame, UnwindUserType, Unwinder, UserRegisters,
};
use unwind_tests::synthetic::cfi::{self, CfiSection, Cie, Fde, Header, Program};
use unwind_tests::synthetic::{AnyArch, Memory};

pub const X86: AnyArch = AnyArch::X86_64(X86_64);
pub const ARM: AnyArch = AnyArch::Aarch64(Aarch64::new());

/// Where the sections are.
pub const EH_FRAME: u64 = 0x50_0000;
pub const HDR: u64 = 0x4f_0000;

/// `.eh_frame` with its header.
pub struct Table {
    pub arch: AnyArch,
    pub cie: Cie,
    pub section: CfiSection,
    pub entries: Vec<(u64, u64)>,
    cie_offset: Option<u64>,
}

impl Table {
    /// With the CIE that compilers write: at the entry, the return address is where a call puts it.
    pub fn new(arch: AnyArch) -> Self {
        let mut initial = Program::new(arch.word_size(), arch.byte_order(), 1, 1);
        match arch {
            AnyArch::X86_64(_) => initial.with(0x0c, &[7, 8]).with(0x90, &[1]),
            _ => initial.with(0x0c, &[arch.sp().0.into(), 0]),
        };
        let cie = Cie::usual(arch.ra(), initial.into_bytes());
        let section = CfiSection::new(cfi::Flavor::EhFrame, arch.word_size(), arch.byte_order(), EH_FRAME);
        Table { arch, cie, section, entries: Vec::new(), cie_offset: None }
    }

    /// A table of one function.
    pub fn of(arch: AnyArch, start: u64, length: u64, write: impl FnOnce(&mut Program)) -> Self {
        let mut table = Table::new(arch);
        table.function(start, length, write);
        table
    }

    pub fn function(&mut self, start: u64, length: u64, write: impl FnOnce(&mut Program)) -> u64 {
        let (word, order) = (self.arch.word_size(), self.arch.byte_order());
        let mut program = Program::new(word, order, self.cie.code_alignment, self.cie.data_alignment);
        write(&mut program);
        let instructions = program.into_bytes();
        let cie = *self.cie_offset.get_or_insert_with(|| self.section.cie(&self.cie));
        let fde = self.section.fde(cie, &self.cie, &Fde { start, length, instructions }).expect("it fits");
        self.entries.push((start, EH_FRAME + fde));
        fde
    }

    /// The functions that follow are of another CIE.
    pub fn next_cie(&mut self, cie: Cie) {
        self.cie = cie;
        self.cie_offset = None;
    }

    pub fn header(&self) -> Vec<u8> {
        self.header_of(&Header::usual(HDR, self.entries.clone()))
    }

    pub fn header_of(&self, header: &Header) -> Vec<u8> {
        header.write(self.arch.word_size(), self.arch.byte_order(), EH_FRAME).expect("it fits")
    }

    pub fn sections(&self) -> DwarfSections<'_> {
        let eh_frame = Some(Section { data: &self.section.bytes.data, svma: EH_FRAME });
        DwarfSections { eh_frame, ..DwarfSections::default() }
    }

    /// Looks a pc up by scanning, through the search table, and through an index; they must agree.
    pub fn lookup(&self, pc: Pc) -> Result<Option<Rule>, LookupError> {
        let header = self.header();
        let sections = self.sections();
        let mut searched = sections;
        searched.eh_frame_hdr = Some(Section { data: &header, svma: HDR });
        let mut room = Vec::new();
        let mut indexed = sections;
        indexed.eh_frame_index = Some(index(&self.arch, &sections, Flavor::EhFrame, &mut room));
        let found = lookup(&self.arch, sections, pc);
        assert_eq!(lookup(&self.arch, searched, pc), found, "by the search table, against a scan");
        assert_eq!(lookup(&self.arch, indexed, pc), found, "by an index, against a scan");
        found
    }

    /// The rule of an exact pc, which must be one that a frame can say.
    pub fn rule(&self, pc: u64) -> UnwindUserFrame {
        match self.lookup(Pc::Exact(pc)) {
            Ok(Some(Rule::Frame(frame))) => frame,
            other => panic!("at {pc:#x}: {other:?}"),
        }
    }

    /// Walks from these registers; no conventions are asked.
    pub fn walk(&self, registers: &dyn UserRegisters, memory: &Memory) -> (Vec<Frame>, End) {
        self.walk_on(registers, memory)
    }

    pub fn walk_on<M: MemoryReader>(&self, registers: &dyn UserRegisters, memory: M) -> (Vec<Frame>, End) {
        let mut options = Options::default();
        options.types = unwind_core::UnwindUserTypes::only(UnwindUserType::Dwarf);
        options.max_frames = 1000;
        let unwinder = Unwinder::with_options(self.arch, DwarfSource::new(self.sections()), options);
        let mut frames = unwinder.frames(registers, memory).expect("ip and sp are known");
        ((&mut frames).collect(), frames.end().expect("it has ended"))
    }
}

pub fn index<'i>(
    arch: &AnyArch,
    sections: &DwarfSections<'_>,
    flavor: Flavor,
    room: &'i mut Vec<DwarfIndexEntry>,
) -> DwarfIndex<'i> {
    let needed = DwarfIndex::room(arch, sections, flavor).expect("the section is there");
    room.resize(needed, DwarfIndexEntry::default());
    DwarfIndex::build(arch, sections, flavor, room).expect("room was asked for")
}

pub fn lookup(arch: &AnyArch, sections: DwarfSections<'_>, pc: Pc) -> Result<Option<Rule>, LookupError> {
    let mut nothing = unwind_core::from_fn(|address, _: &mut [u8]| Err(MemoryError::Unreadable { address }));
    let source = DwarfSource::new(sections);
    let found = source.lookup(arch, UnwindUserType::Dwarf, &Query::new(pc), &mut nothing)?;
    Ok(found.map(|Found { rule, .. }| rule))
}
