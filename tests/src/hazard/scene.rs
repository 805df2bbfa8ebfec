//! What cases are made of: one module, its call frame information, and a stack full of noise.

use unwind_core::{Arch, Register};

use super::case::{Case, Earlier, Expect, Image, Memories, Then};
use crate::synthetic::cfi::{CfiSection, Cie, Expression, Fde, Flavor, Header, Program};
use crate::synthetic::{AnyArch, Memory, Registers};

/// Where code is, but where a case says otherwise.
pub const CODE: u64 = 0x40_0000;
/// Where the topmost frame's sp is, but where a case says otherwise.
pub const STACK: u64 = 0x7000_0000;
/// What every word of the stack holds that a case does not mention: an address in the module's code, so
/// that whoever takes a wrong word for a return address is found out.
pub const NOISE: u64 = CODE + 0xdec0;

/// How many words of noise there are above [`STACK`], and below it.
const NOISY: [u64; 2] = [0x180, 0x40];
const EH_FRAME: u64 = 0x50_0000;
const HDR: u64 = 0x4f_0000;

/// A case in the making.
#[derive(Clone)]
pub struct Scene {
    /// The target.
    pub arch: AnyArch,
    /// The CIE of the functions to come.
    pub cie: Cie,
    /// `.eh_frame`.
    pub section: CfiSection,
    /// Functions and their FDEs (svma).
    pub entries: Vec<(u64, u64)>,
    /// Where the header is (svma).
    pub hdr_svma: u64,
    /// The module; what it says of `.eh_frame` and its header is made of the above where it is `None`.
    pub image: Image,
    /// Other modules.
    pub others: Vec<Image>,
    /// See [`Case::is_all_code`].
    pub is_all_code: bool,
    /// The stack.
    pub memory: Memory,
    /// Registers beside ip and sp.
    pub registers: Vec<(Register, u64)>,
    /// The topmost sp.
    pub sp: u64,
    cie_offset: Option<u64>,
}

impl Scene {
    /// A module whose functions have pushed nothing but what a call pushes, and a stack of noise. The frame
    /// pointer points into it.
    pub fn new(arch: AnyArch) -> Self {
        Scene::at(arch, STACK)
    }

    /// The same with the stack elsewhere.
    pub fn at(arch: AnyArch, sp: u64) -> Self {
        let (size, order) = (arch.word_size(), arch.byte_order());
        let word = arch.word();
        let mut memory = Memory::new();
        for slot in 0..NOISY[0] {
            memory.put_word(size.truncate(sp.wrapping_add(slot * word)), NOISE, size, order);
        }
        for slot in 1..=NOISY[1] {
            memory.put_word(size.truncate(sp.wrapping_sub(slot * word)), NOISE, size, order);
        }
        let image = Image { code: (CODE, CODE + 0x1_0000), ..Image::default() };
        let mut scene = Scene {
            arch,
            cie: Cie { data_alignment: -4, ..Cie::usual(arch.ra(), Vec::new()) },
            section: CfiSection::new(Flavor::EhFrame, size, order, EH_FRAME),
            entries: Vec::new(),
            hdr_svma: HDR,
            image,
            others: Vec::new(),
            is_all_code: false,
            memory,
            registers: vec![(arch.fp(), size.truncate(sp.wrapping_add(0x100 * word)))],
            sp,
            cie_offset: None,
        };
        scene.cie.instructions = scene.program(|scene, program| scene.entered(program));
        scene
    }

    /// Where every function begins: the return address is where a call puts it.
    fn entered(&self, program: &mut Program) {
        let units = if self.arch.has_link_register() { 0 } else { 1 };
        self.sized(program, units);
        if units == 0 {
            // DW_CFA_same_value, the ABI's default: written, as not every column has one.
            program.with(0x08, &[self.arch.ra().0.into()]);
        }
    }

    fn program(&self, write: impl FnOnce(&Self, &mut Program)) -> Vec<u8> {
        let (size, order) = (self.arch.word_size(), self.arch.byte_order());
        let mut program = Program::new(size, order, self.cie.code_alignment, self.cie.data_alignment);
        write(self, &mut program);
        program.into_bytes()
    }

    /// What frames are counted in: words; but pairs of them where the hardware wants sp aligned to 16 bytes
    /// whenever it is used (AArch64).
    pub fn unit(&self) -> u64 {
        if self.arch.name() == "aarch64" { 2 * self.arch.word() } else { self.arch.word() }
    }

    /// The rule of a frame of so many units, whose uppermost word is the return address:
    /// `DW_CFA_def_cfa` and `DW_CFA_offset`. The CFA has the ABI's bias.
    pub fn sized(&self, program: &mut Program, units: u64) {
        self.framed(program, i64::try_from(self.unit() * units).expect("few"));
    }

    /// The same for a frame of so many bytes.
    pub fn framed(&self, program: &mut Program, size: i64) {
        let (word, bias) = (i64::try_from(self.arch.word()).expect("4 or 8"), i64::from(self.arch.sp_bias()));
        program.def_cfa(self.arch.sp(), size - bias, 0).expect("a multiple of the alignment");
        if size > 0 {
            program.offset(self.arch.ra(), bias - word, false, 3).expect("a multiple of the alignment");
        }
    }

    /// A function with instructions of its own.
    pub fn function(
        &mut self,
        start: u64,
        length: u64,
        write: impl FnOnce(&Self, &mut Program),
    ) -> &mut Self {
        let instructions = self.program(write);
        let cie_offset = match self.cie_offset {
            Some(offset) => offset,
            None => self.section.cie(&self.cie),
        };
        self.cie_offset = Some(cie_offset);
        let fde =
            self.section.fde(cie_offset, &self.cie, &Fde { start, length, instructions }).expect("it fits");
        self.entries.push((start, self.arch.word_size().truncate(self.section.svma.wrapping_add(fde))));
        self
    }

    /// A function whose frame has so many units, everywhere.
    pub fn plain(&mut self, start: u64, length: u64, units: u64) -> &mut Self {
        self.function(start, length, |scene, program| scene.sized(program, units))
    }

    /// A function that nobody called: its return address is undefined, as in `_start`.
    pub fn outermost(&mut self, start: u64, length: u64) -> &mut Self {
        self.function(start, length, |scene, program| {
            program.with(0x07, &[scene.arch.ra().0.into()]);
        })
    }

    /// The functions that follow are of another CIE.
    pub fn next_cie(&mut self, change: impl FnOnce(&mut Cie)) -> &mut Self {
        change(&mut self.cie);
        self.cie_offset = None;
        self
    }

    /// The functions that follow are signal frames, as the augmentation `S` says.
    pub fn signals(&mut self, is_signal: bool) -> &mut Self {
        self.next_cie(|cie| cie.augmentation = if is_signal { b"zRS".to_vec() } else { b"zR".to_vec() })
    }

    /// Stores a word.
    pub fn put(&mut self, address: u64, value: u64) -> &mut Self {
        self.memory.put_word(address, value, self.arch.word_size(), self.arch.byte_order());
        self
    }

    /// Stores what a function with a frame of so many units at `sp` has: where it returns to. Gives the
    /// caller's sp.
    pub fn called(&mut self, sp: u64, units: u64, return_address: u64) -> u64 {
        let caller_sp = sp + units * self.unit();
        self.put(caller_sp - self.arch.word(), return_address);
        caller_sp
    }

    /// What a call leaves behind before the callee has run: the return address in its register, or pushed.
    /// Gives the caller's sp.
    pub fn just_called(&mut self, sp: u64, return_address: u64) -> u64 {
        if self.arch.has_link_register() {
            self.registers.push((self.arch.ra(), return_address));
            return sp;
        }
        self.called(sp, 1, return_address)
    }

    /// A register beside ip and sp.
    pub fn register(&mut self, register: Register, value: u64) -> &mut Self {
        self.registers.push((register, value));
        self
    }

    /// An empty expression for this target.
    pub fn expression(&self) -> Expression {
        Expression::new(self.arch.word_size(), self.arch.byte_order())
    }

    /// The search table that a linker writes.
    pub fn header(&self) -> Header {
        Header::usual(self.hdr_svma, self.entries.clone())
    }

    /// The bytes of a search table.
    pub fn header_bytes(&self, header: &Header) -> Vec<u8> {
        header.write(self.arch.word_size(), self.arch.byte_order(), self.section.svma).expect("it fits")
    }

    /// The module as it is now.
    pub fn built(&self) -> Image {
        let mut image = self.image.clone();
        if image.eh_frame.is_none() && !self.entries.is_empty() {
            image.eh_frame = Some((self.section.bytes.data.clone(), self.section.svma));
            image.eh_frame_hdr =
                image.eh_frame_hdr.or_else(|| Some((self.header_bytes(&self.header()), self.hdr_svma)));
        }
        image
    }

    /// A case that starts at a pc: what must be found, and what comes then.
    pub fn case(&self, name: impl Into<String>, pc: u64, frames: &[(u64, u64)], then: Then) -> Case {
        let mut registers = Registers::new(pc, [(self.arch.sp(), self.sp)]);
        registers.values.extend(self.registers.iter().map(|(register, value)| (register.0, *value)));
        let mut images = self.others.clone();
        images.push(self.built());
        images.sort_by_key(|image| image.code);
        Case {
            name: name.into(),
            arch: self.arch,
            images,
            is_all_code: self.is_all_code,
            registers,
            memory: Memories::Still(self.memory.clone()),
            earlier: None,
            expect: Expect { frames: frames.to_vec(), then, never: Vec::new() },
        }
    }
}

impl Case {
    /// The same case where these addresses are wrong.
    pub fn never(mut self, addresses: &[u64]) -> Self {
        self.expect.never.extend(addresses);
        self
    }

    /// The same case after another walk.
    pub fn after(mut self, earlier: Earlier) -> Self {
        self.earlier = Some(earlier);
        self
    }

    /// The same case over memory that changes.
    pub fn changing(mut self, seed: u64) -> Self {
        self.memory = Memories::Changing(self.memory.still().clone(), seed);
        self
    }
}
