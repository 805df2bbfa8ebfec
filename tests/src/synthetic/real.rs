//! What stacks need to know of each architecture beyond its trait: code that tells something.

use unwind_arch::aarch64::Aarch64;
use unwind_arch::arm::{Arm, FramePointer};
use unwind_arch::loongarch64::Loongarch64;
use unwind_arch::mips::{Abi, Mips};
use unwind_arch::powerpc64::Powerpc64;
use unwind_arch::riscv::Riscv;
use unwind_arch::s390x::S390x;
use unwind_arch::x86::X86;
use unwind_arch::x86_64::X86_64;
use unwind_core::{Arch, ByteOrder};

use super::Synthetic;

/// An architecture that stacks are laid out for.
pub(super) trait Machine: Arch {
    /// Its byte orders, word sizes and ABIs.
    fn every() -> Vec<Self>;

    /// The code of a signal trampoline.
    fn trampoline_code(&self) -> Vec<u8>;

    /// The code around a pc at which a function's caller is found by the entry rule: what comes before
    /// it, and what is at it.
    fn entry_code(&self) -> [Vec<u8>; 2];

    /// Code that tells nothing, wherever in it the pc is, and whatever comes before and after.
    fn plain_code(&self) -> Vec<u8>;
}

/// Instructions of 4 bytes.
fn words(order: ByteOrder, words: &[u32]) -> Vec<u8> {
    words
        .iter()
        .flat_map(|it| if order == ByteOrder::Big { it.to_be_bytes() } else { it.to_le_bytes() })
        .collect()
}

const LITTLE: ByteOrder = ByteOrder::Little;
const ORDERS: [ByteOrder; 2] = [ByteOrder::Little, ByteOrder::Big];

impl Machine for X86_64 {
    fn every() -> Vec<Self> {
        vec![X86_64]
    }

    /// mov $15, %rax; syscall
    fn trampoline_code(&self) -> Vec<u8> {
        vec![0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05]
    }

    /// endbr64; push %rbp; mov %rsp, %rbp
    fn entry_code(&self) -> [Vec<u8>; 2] {
        [vec![], vec![0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5]]
    }

    /// mov %eax, %eax: seen from any of its bytes, it says nothing either
    fn plain_code(&self) -> Vec<u8> {
        vec![0x89, 0xc0]
    }
}

impl Machine for X86 {
    fn every() -> Vec<Self> {
        vec![X86]
    }

    /// mov $173, %eax; int $0x80
    fn trampoline_code(&self) -> Vec<u8> {
        vec![0xb8, 0xad, 0, 0, 0, 0xcd, 0x80]
    }

    /// endbr32; push %ebp; mov %esp, %ebp
    fn entry_code(&self) -> [Vec<u8>; 2] {
        [vec![], vec![0xf3, 0x0f, 0x1e, 0xfb, 0x55, 0x89, 0xe5]]
    }

    /// mov %eax, %eax
    fn plain_code(&self) -> Vec<u8> {
        vec![0x89, 0xc0]
    }
}

/// Code is little-endian whatever data are.
impl Machine for Aarch64 {
    fn every() -> Vec<Self> {
        ORDERS.map(|order| Aarch64::new().with_byte_order(order)).into()
    }

    /// mov x8, #139; svc #0
    fn trampoline_code(&self) -> Vec<u8> {
        words(LITTLE, &[0xd280_1168, 0xd400_0001])
    }

    /// bti c; mov x0, x1; mov x0, x1
    fn entry_code(&self) -> [Vec<u8>; 2] {
        [vec![], words(LITTLE, &[0xd503_245f, 0xaa01_03e0, 0xaa01_03e0])]
    }

    /// mov x0, x1
    fn plain_code(&self) -> Vec<u8> {
        words(LITTLE, &[0xaa01_03e0])
    }
}

/// Both registers that are frame pointers. Code is little-endian here too.
impl Machine for Arm {
    fn every() -> Vec<Self> {
        let kinds = [FramePointer::GccA32, FramePointer::RecordR7];
        let all = ORDERS.map(|order| kinds.map(|kind| (order, kind)));
        let all = all.into_iter().flatten();
        all.map(|(order, kind)| Arm::new().with_byte_order(order).with_frame_pointer(kind)).collect()
    }

    /// mov r7, #173; svc 0
    fn trampoline_code(&self) -> Vec<u8> {
        words(LITTLE, &[0xe3a0_70ad, 0xef00_0000])
    }

    /// mov r0, r1 three times, which shows that this is A32; bx lr
    fn entry_code(&self) -> [Vec<u8>; 2] {
        [words(LITTLE, &[0xe1a0_0001; 3]), words(LITTLE, &[0xe12f_ff1e])]
    }

    /// nop
    fn plain_code(&self) -> Vec<u8> {
        words(LITTLE, &[0xe320_f000])
    }
}

impl Machine for Riscv {
    fn every() -> Vec<Self> {
        vec![Riscv::new(), Riscv::rv32()]
    }

    /// li a7, 139; ecall
    fn trampoline_code(&self) -> Vec<u8> {
        words(LITTLE, &[0x08b0_0893, 0x0000_0073])
    }

    /// ret
    fn entry_code(&self) -> [Vec<u8>; 2] {
        [vec![], words(LITTLE, &[0x0000_8067])]
    }

    /// fence
    fn plain_code(&self) -> Vec<u8> {
        words(LITTLE, &[0x0ff0_000f])
    }
}

/// Without n32, whose registers on the stack are wider than its words: the stacks here know one size.
impl Machine for Mips {
    fn every() -> Vec<Self> {
        let all = ORDERS.map(|order| [Abi::O32, Abi::N64].map(|abi| Mips::new(abi, order)));
        all.into_iter().flatten().collect()
    }

    /// li $2, 4193 or 5211; syscall
    fn trampoline_code(&self) -> Vec<u8> {
        let li = if self.abi() == Abi::O32 { 0x2402_1061 } else { 0x2402_145b };
        words(self.byte_order(), &[li, 0x0000_000c])
    }

    /// nop; jr $31, nop
    fn entry_code(&self) -> [Vec<u8>; 2] {
        [words(self.byte_order(), &[0]), words(self.byte_order(), &[0x03e0_0008, 0])]
    }

    /// sync
    fn plain_code(&self) -> Vec<u8> {
        words(self.byte_order(), &[0x0000_000f])
    }
}

impl Machine for S390x {
    fn every() -> Vec<Self> {
        vec![S390x]
    }

    /// svc 173
    fn trampoline_code(&self) -> Vec<u8> {
        vec![0x0a, 173]
    }

    /// br %r14
    fn entry_code(&self) -> [Vec<u8>; 2] {
        [vec![], vec![0x07, 0xfe]]
    }

    /// lr %r1, %r1
    fn plain_code(&self) -> Vec<u8> {
        vec![0x18, 0x11]
    }
}

impl Machine for Powerpc64 {
    fn every() -> Vec<Self> {
        vec![Powerpc64::little_endian(), Powerpc64::big_endian()]
    }

    /// addi r1, r1, 128; li r0, 172; sc
    fn trampoline_code(&self) -> Vec<u8> {
        words(self.byte_order(), &[0x3821_0080, 0x3800_00ac, 0x4400_0002])
    }

    /// blr
    fn entry_code(&self) -> [Vec<u8>; 2] {
        [vec![], words(self.byte_order(), &[0x4e80_0020])]
    }

    /// nop
    fn plain_code(&self) -> Vec<u8> {
        words(self.byte_order(), &[0x6000_0000])
    }
}

impl Machine for Loongarch64 {
    fn every() -> Vec<Self> {
        vec![Loongarch64]
    }

    /// li.w $a7, 139; syscall 0
    fn trampoline_code(&self) -> Vec<u8> {
        words(LITTLE, &[0x0382_2c0b, 0x002b_0000])
    }

    /// ret
    fn entry_code(&self) -> [Vec<u8>; 2] {
        [vec![], words(LITTLE, &[0x4c00_0020])]
    }

    /// nop
    fn plain_code(&self) -> Vec<u8> {
        words(LITTLE, &[0x0340_0000])
    }
}

impl Machine for Synthetic {
    fn every() -> Vec<Self> {
        let rarer = Synthetic::all().map(|arch| Synthetic {
            biased: arch.link,
            bound: !arch.link,
            mode_bit: true,
            ..arch
        });
        Synthetic::all().chain(rarer).collect()
    }

    fn trampoline_code(&self) -> Vec<u8> {
        Synthetic::TRAMPOLINE.into()
    }

    fn entry_code(&self) -> [Vec<u8>; 2] {
        [vec![], vec![Synthetic::ENTER]]
    }

    fn plain_code(&self) -> Vec<u8> {
        vec![0x00]
    }
}
