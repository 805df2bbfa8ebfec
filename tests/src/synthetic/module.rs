//! The rules of a stack as the call frame information of a module.

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use unwind_core::dwarf::{DwarfSections, Section};
use unwind_core::{Arch, RaRule, Register, UnwindUserFrame, UnwindUserType};

use super::cfi::{
    CfiSection, Cie, Fde, Flavor, Header, Program, Style, encode_rule, encoding, return_address_column,
};
use super::chaos::mix;
use super::{Answer, AnyArch, Row, Stack};

/// How the module is written.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct ModuleSpec {
    /// Which sections it has.
    pub sections: SectionsSpec,
    /// The load bias: avma minus svma. None, where functions would be on both ends of the address space.
    pub bias: u64,
    /// Whether pointers may be stored elsewhere, where a loader relocates them.
    pub indirect: bool,
    /// Decides everything else.
    pub seed: u64,
}

/// Which sections a module has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum SectionsSpec {
    /// `.eh_frame` and its search table.
    Searched,
    /// `.eh_frame` alone.
    EhFrame,
    /// `.debug_frame` alone.
    DebugFrame,
    /// `.eh_frame` for some functions, `.debug_frame` for the others.
    Both,
}

/// The call frame information of a module.
#[derive(Clone, Debug)]
pub struct DwarfModule {
    /// `.eh_frame`.
    pub eh_frame: Option<CfiSection>,
    /// `.eh_frame_hdr`, and its address (svma).
    pub hdr: Option<(Vec<u8>, u64)>,
    /// `.debug_frame`.
    pub debug_frame: Option<CfiSection>,
    /// The load bias.
    pub bias: u64,
    /// The first address of its code (avma).
    pub start: u64,
    /// The last address of its code (avma).
    pub last: u64,
    /// Words that a loader has relocated: place and value (avma).
    pub relocated: Vec<(u64, u64)>,
    /// In which forms its FDEs are.
    pub forms: Vec<Form>,
    text_svma: u64,
    got_svma: u64,
}

/// The form of an FDE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Which section.
    pub flavor: Flavor,
    /// Of its CIE.
    pub version: u8,
    /// Whether its length has 64 bits.
    pub is_64: bool,
    /// The first two letters of its augmentation.
    pub augmentation: [u8; 2],
    /// Of its addresses.
    pub pointer_encoding: u8,
}

impl DwarfModule {
    /// Its sections, for a source.
    pub fn sections(&self) -> DwarfSections<'_> {
        DwarfSections {
            eh_frame: self.eh_frame.as_ref().map(section),
            debug_frame: self.debug_frame.as_ref().map(section),
            eh_frame_hdr: self.hdr.as_ref().map(|(data, svma)| Section { data, svma: *svma }),
            text_svma: Some(self.text_svma),
            got_svma: Some(self.got_svma),
            ..DwarfSections::default()
        }
    }
}

fn section(written: &CfiSection) -> Section<'_> {
    Section { data: &written.bytes.data, svma: written.svma }
}

/// Writes the DWARF rules of a stack as call frame information; what the source does not know, or
/// knows by another kind, is left out. Where the rules fail, there is an instruction that nobody
/// knows.
pub fn describe(stack: &Stack, spec: &ModuleSpec) -> DwarfModule {
    let mut writer = ModuleWriter::new(stack, spec);
    let mut rows: Vec<&Row> =
        stack.rules.rows.iter().filter(|row| row.kind == UnwindUserType::Dwarf).collect();
    // In any order.
    rows.sort_by_key(|row| mix(spec.seed ^ row.first));
    for row in rows {
        writer.function(row);
    }
    writer.finish()
}

struct ModuleWriter<'w> {
    stack: &'w Stack,
    spec: &'w ModuleSpec,
    bias: u64,
    arch: AnyArch,
    eh_frame: CfiSection,
    debug_frame: CfiSection,
    /// CIEs written already: their offsets by what they are for.
    cies: BTreeMap<(bool, bool, bool, u64), u64>,
    /// Functions and their FDEs in `.eh_frame` (svma).
    entries: Vec<(u64, u64)>,
    forms: Vec<Form>,
    random: u64,
    text_svma: u64,
    got_svma: u64,
}

impl<'w> ModuleWriter<'w> {
    fn new(stack: &'w Stack, spec: &'w ModuleSpec) -> Self {
        let arch = stack.arch;
        let (word, order) = (arch.word_size(), arch.byte_order());
        // No file has functions on both ends of its address space.
        let ends = stack.functions.iter().flat_map(|(first, last)| [*first, last.saturating_add(64)]);
        let wraps = |bias: u64| {
            let at = |avma: u64| word.truncate(avma.wrapping_sub(bias));
            ends.clone().min().map(at) > ends.clone().max().map(at)
        };
        let bias = if wraps(spec.bias) { 0 } else { spec.bias };
        let svma = |avma: u64| word.truncate(avma.wrapping_sub(bias));
        let text = stack.rules.rows.iter().map(|row| row.first).min().unwrap_or(0x1000);
        let text_svma = svma(text.saturating_sub(0x40));
        // The global offset table is read: it is where no stack is.
        let got_svma = svma(if arch.word() == 8 { 0x0666_0000_0000 } else { 0x0f00_0000 });
        let section = |flavor, offset: u64| {
            let at = word.truncate(text_svma.wrapping_add(offset) & !7);
            let mut section = CfiSection::new(flavor, word, order, at);
            section.text_svma = text_svma;
            section.got_svma = got_svma;
            section
        };
        let far = if spec.seed.is_multiple_of(5) && arch.word() == 8 { 0x7_0000_0000 } else { 0x10_0000 };
        ModuleWriter {
            stack,
            spec,
            bias,
            arch,
            eh_frame: section(Flavor::EhFrame, far),
            // Its addresses are offsets in a file that is not loaded.
            debug_frame: section(Flavor::DebugFrame, 0),
            cies: BTreeMap::new(),
            entries: Vec::new(),
            forms: Vec::new(),
            random: spec.seed,
            text_svma,
            got_svma,
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = mix(self.random);
        self.random % below
    }

    /// One function: an FDE, and sometimes another one of no length at the same address.
    fn function(&mut self, row: &Row) {
        let in_debug_frame = match self.spec.sections {
            SectionsSpec::DebugFrame => true,
            SectionsSpec::Both => mix(row.first).is_multiple_of(2),
            _ => false,
        };
        let (separate, signal) = match row.answer {
            Answer::Evaluate(_, _, Some(_)) => (true, true),
            Answer::Evaluate(rule, ..) | Answer::Frame(rule, _) => {
                (false, rule.kind() == unwind_core::FrameKind::Signal)
            }
            Answer::Fails(_) => (false, false),
        };
        let start = self.arch.word_size().truncate(row.first.wrapping_sub(self.bias));
        let variant = self.random(12);
        let empty = self.random(6) == 0;
        for (variant, length) in [(variant, 0), (variant, row.last - row.first + 1)] {
            if length == 0 && !empty {
                continue;
            }
            // The last variant holds every address.
            for variant in [variant, 99] {
                let cie = self.cie(in_debug_frame, signal, separate, variant);
                let instructions = self.instructions(row, &cie, length);
                let key = (in_debug_frame, signal, separate, variant);
                let section = if in_debug_frame { &mut self.debug_frame } else { &mut self.eh_frame };
                let offset = *self.cies.entry(key).or_insert_with(|| section.cie(&cie));
                if let Some(fde) = section.fde(offset, &cie, &Fde { start, length, instructions }) {
                    let encoded = cie.augmentation.starts_with(b"zR");
                    let pointer_encoding = if encoded { cie.pointer_encoding } else { encoding::ABSPTR };
                    let (flavor, version, is_64) = (section.flavor, cie.version, cie.is_64);
                    let letter = |index: usize| cie.augmentation.get(index).copied().unwrap_or(b' ');
                    let augmentation = [letter(0), letter(1)];
                    self.forms.push(Form { flavor, version, is_64, augmentation, pointer_encoding });
                    if !in_debug_frame {
                        let word = self.arch.word_size();
                        self.entries.push((start, word.truncate(section.svma.wrapping_add(fde))));
                    }
                    break;
                }
                assert_ne!(variant, 99, "absolute addresses always fit");
            }
        }
    }

    fn cie(&mut self, debug_frame: bool, signal: bool, separate: bool, variant: u64) -> Cie {
        let arch = self.arch;
        let random = mix(self.spec.seed ^ mix(variant));
        let column = return_address_column(&arch, separate);
        let size = i64::from(arch.word_size().bytes());
        let mut cie = if debug_frame { Cie::debug(column, vec![]) } else { Cie::usual(column, vec![]) };
        cie.is_64 = random & 3 == 0;
        cie.code_alignment = [1, 1, 2, 4][usize::try_from(random >> 2 & 3).expect("two bits")];
        cie.data_alignment =
            [-size, -4, 1, size, -1, -size][usize::try_from(random >> 4 & 3).expect("two bits")];
        cie.version = match random >> 6 & 3 {
            0 => 3,
            1 if debug_frame => 4,
            _ => 1,
        };
        let with_data = signal || random & 0x4100 != 0;
        if with_data {
            let letters = b"RLPBG";
            let chosen = letters.iter().zip([0x1_8200u64, 0x400, 0x800, 0x1000, 0x2000]);
            cie.augmentation = vec![b'z'];
            cie.augmentation.extend(chosen.filter(|(_, bit)| random & bit != 0).map(|(letter, _)| letter));
            if signal {
                cie.augmentation.push(b'S');
            }
        } else {
            let old = random & 0x2_0000 != 0 && !debug_frame;
            cie.augmentation = if old { b"eh".to_vec() } else { Vec::new() };
        }
        let count = u64::try_from(encoding::FORMATS.len()).expect("nine");
        let format = encoding::FORMATS[usize::try_from((random >> 16) % count).expect("below nine")];
        let base =
            [encoding::PCREL, encoding::PCREL, encoding::TEXTREL, encoding::DATAREL, 0, 0, encoding::ALIGNED]
                [usize::try_from((random >> 20) % 7).expect("below seven")];
        let indirect = if self.spec.indirect && random >> 24 & 3 == 0 { encoding::INDIRECT } else { 0 };
        cie.pointer_encoding = if base == encoding::ALIGNED { base } else { format | base | indirect };
        cie.other_encoding = [0x1b, 0x9b, 0x00, 0x0c][usize::try_from(random >> 26 & 3).expect("two bits")];
        if variant == 99 {
            cie.pointer_encoding = encoding::ABSPTR;
        }
        cie.instructions = self.initial(&cie);
        cie
    }

    /// What every function of a CIE begins with: something that is never right afterwards.
    fn initial(&self, cie: &Cie) -> Vec<u8> {
        let mut program = self.program(cie);
        program.def_cfa(self.arch.sp(), 0, 0);
        program.into_bytes()
    }

    fn program(&self, cie: &Cie) -> Program {
        let (word, order) = (self.arch.word_size(), self.arch.byte_order());
        let mut program = Program::new(word, order, cie.code_alignment, cie.data_alignment);
        program.bytes.leb_padding = usize::from(self.spec.seed.is_multiple_of(7));
        program
    }

    /// The instructions of a function: the true rule around the pc that is executing there, and
    /// wrong ones before and after.
    fn instructions(&mut self, row: &Row, cie: &Cie, length: u64) -> Vec<u8> {
        let mut program = self.program(cie);
        if length == 0 {
            self.wrong(&mut program, cie);
            return program.into_bytes();
        }
        let (rule, opaque, link) = match row.answer {
            Answer::Frame(rule, _) => (rule, false, None),
            Answer::Evaluate(rule, _, link) => (rule, true, link),
            Answer::Fails(_) => return program.op(0x3f).clone().into_bytes(),
        };
        let pc = self.pc_in(row);
        let align = cie.code_alignment;
        let first_step = (pc - row.first) / align;
        let from = first_step - self.random(first_step + 1).min(first_step);
        let last_step = (row.last - row.first) / align;
        let to = first_step + 1 + self.random(last_step - first_step + 1);
        let style = self.random(u64::from(u32::MAX));
        let style = u32::try_from(style).expect("below");
        if self.random(3) == 0 {
            // The true rule first, put away and taken out again.
            self.right(&mut program, rule, opaque, link, cie);
            program.op(0x0a);
            if from > 0 {
                self.wrong(&mut program, cie);
                program.advance(from * align, style);
            }
            program.op(0x0b);
        } else {
            if from > 0 {
                self.wrong(&mut program, cie);
                program.advance(from * align, style);
            }
            self.right(&mut program, rule, opaque, link, cie);
        }
        if self.random(4) == 0 {
            // DW_CFA_GNU_args_size
            program.with(0x2e, &[0x40]);
        }
        if to * align <= row.last - row.first {
            program.advance((to - from) * align, style >> 2);
            self.wrong(&mut program, cie);
        }
        program.into_bytes()
    }

    /// The address at which a function is looked up. Every function of these stacks has one frame.
    fn pc_in(&self, row: &Row) -> u64 {
        let lookups = self.stack.frames.iter().map(|frame| frame.pc.lookup_address());
        lookups.into_iter().find(|at| (row.first..=row.last).contains(at)).unwrap_or(row.first)
    }

    fn right(
        &mut self,
        program: &mut Program,
        rule: UnwindUserFrame,
        opaque: bool,
        link: Option<i32>,
        cie: &Cie,
    ) {
        let style = self.style(opaque, cie);
        encode_rule(&self.arch, rule, style, program);
        if let Some(offset) = link
            && self.arch.has_link_register()
        {
            let expression = super::cfi::Expression::new(self.arch.word_size(), self.arch.byte_order())
                .breg(self.arch.sp(), offset.into());
            program.with_expression(0x10, self.arch.ra(), expression);
        }
        // Columns that nobody tracks.
        program.offset(Register(1000), i64::from(self.arch.word_size().bytes()) * 4, false, 3);
    }

    /// A rule that ends every walk.
    fn wrong(&mut self, program: &mut Program, cie: &Cie) {
        let offset = i32::try_from(self.random(100)).expect("small");
        let cfa = unwind_core::CfaRule::Offset { base: unwind_core::Base::Sp, offset };
        let rule = UnwindUserFrame::new(cfa, RaRule::Undefined, unwind_core::FpRule::Undefined);
        let style = self.style(false, cie);
        encode_rule(&self.arch, rule.expect("sp fits"), style, program);
    }

    fn style(&mut self, opaque: bool, cie: &Cie) -> Style {
        let choice = u32::try_from(self.random(1 << 20)).expect("20 bits");
        Style { choice, opaque, explicit: choice & 0x100 != 0, return_address: cie.return_address }
    }

    fn finish(mut self) -> DwarfModule {
        let word = self.arch.word_size();
        self.eh_frame.terminator();
        let hdr = (self.spec.sections == SectionsSpec::Searched).then(|| self.header());
        let avma = |svma: u64| word.truncate(svma.wrapping_add(self.bias));
        let indirect = self.eh_frame.indirect.iter().chain(&self.debug_frame.indirect);
        let relocated = indirect.map(|(place, target)| (avma(*place), avma(*target))).collect();
        let gaps = self.stack.rules.rows.iter().map(|row| (row.first, row.last));
        let code: Vec<(u64, u64)> = self.stack.functions.iter().copied().chain(gaps).collect();
        let debug_frame = matches!(self.spec.sections, SectionsSpec::DebugFrame | SectionsSpec::Both);
        let eh_frame = self.spec.sections != SectionsSpec::DebugFrame;
        DwarfModule {
            hdr,
            bias: self.bias,
            start: code.iter().map(|(first, _)| *first).min().unwrap_or(0x1000),
            last: code.iter().map(|(_, last)| *last).max().unwrap_or(0x1000),
            relocated,
            forms: self.forms,
            text_svma: self.text_svma,
            got_svma: self.got_svma,
            eh_frame: eh_frame.then_some(self.eh_frame),
            debug_frame: debug_frame.then_some(self.debug_frame),
        }
    }

    /// A search table in some encoding that can hold it.
    fn header(&mut self) -> (Vec<u8>, u64) {
        let (word, order) = (self.arch.word_size(), self.arch.byte_order());
        let svma = word.truncate(self.eh_frame.svma.wrapping_sub(0x1_0000));
        let mut entries = self.entries.clone();
        entries.sort_unstable();
        let usual = Header { text_svma: self.text_svma, ..Header::usual(svma, entries) };
        let tables = [0x3b, 0x3b, 0x00, 0x0b, 0x2b, 0x1b, 0x33, 0x04, 0x3c];
        let table_encoding = tables[usize::try_from(self.random(9)).expect("below nine")];
        let counts = [0x03, 0x03, 0x02, 0x04, 0x01, 0x00];
        let count_encoding = counts[usize::try_from(self.random(6)).expect("below six")];
        let pointers = [0x1b, 0x00, encoding::OMIT];
        let pointer_encoding = pointers[usize::try_from(self.random(3)).expect("below three")];
        let chosen = Header { table_encoding, count_encoding, pointer_encoding, ..usual.clone() };
        let absolute = Header { table_encoding: 0x00, pointer_encoding: 0x00, ..usual.clone() };
        let bytes = [chosen, usual, absolute]
            .iter()
            .find_map(|header| header.write(word, order, self.eh_frame.svma))
            .expect("absolute addresses always fit");
        (bytes, svma)
    }
}
