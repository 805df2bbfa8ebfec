//! Embedding the unwinder in an emulator of a made-up machine: 32-bit, big-endian, registers r0
//! to r7, of which r6 is the frame pointer and r7 the stack pointer. Calls push the pc.

use unwind_core::{
    Arch, ByteOrder, Register, RegisterFile, UnwindUserFrame, Unwinder, UserRegisters, WordSize,
};
use unwind_mem::SliceReader;

#[derive(Clone, Copy)]
struct Toy;

#[rustfmt::skip]
impl Arch for Toy {
    fn name(&self) -> &'static str { "toy" }
    fn word_size(&self) -> WordSize { WordSize::Four }
    fn byte_order(&self) -> ByteOrder { ByteOrder::Big }
    fn sp(&self) -> Register { Register(7) }
    fn fp(&self) -> Register { Register(6) }
    fn ra(&self) -> Register { Register(8) }
    fn ip(&self) -> Option<Register> { Some(Register(8)) }
    fn is_callee_saved(&self, register: Register) -> bool { register.0 >= 6 }
    // CFA = sp + 4, with the return address right below it.
    fn entry_rule(&self) -> UnwindUserFrame { UnwindUserFrame::plain(false, 4, -4, None) }
    // CFA = fp + 8, and the caller's fp below the return address.
    fn frame_pointer_rule(&self) -> Option<UnwindUserFrame> {
        Some(UnwindUserFrame::plain(true, 8, -4, Some(-8)))
    }
}

/// The emulator's own register file: r0 to r7, then the pc. Its memory is a `Vec`.
struct Processor([u32; 9]);

impl RegisterFile for Processor {
    fn get(&self, register: Register) -> Option<u64> {
        self.0.get(usize::from(register.0)).copied().map(u64::from)
    }
}

impl UserRegisters for Processor {
    fn ip(&self) -> Option<u64> {
        self.get(Register(8))
    }
}

fn main() -> Result<(), unwind_core::StartError> {
    let processor = Processor([0, 0, 0, 0, 0, 0, 0x8008, 0x8000, 0x1300]);
    // Memory begins at 0x8000. The frame pointer chain: 0x8008, 0x8010, 0.
    let memory: Vec<u8> =
        [0, 0, 0x8010, 0x1234, 0, 0x1010u32].iter().flat_map(|word| word.to_be_bytes()).collect();
    let unwinder = Unwinder::new(Toy, ());
    let mut frames = unwinder.frames(&processor, SliceReader::new(0x8000, &memory))?;
    for frame in frames.by_ref() {
        println!("{:#x} [{}]", frame.pc.address(), frame.provenance);
    }
    println!("{}", frames.end().map_or_else(String::new, |end| end.to_string()));
    Ok(())
}
