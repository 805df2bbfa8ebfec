//! framehop as an unwinder of cases: x86-64 and little-endian AArch64, call frame information.

use framehop::aarch64::{CacheAarch64, PtrAuthMask, UnwindRegsAarch64, UnwinderAarch64};
use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder as _};
use unwind_core::{Arch, ByteOrder, MemoryReader, Register, WordSize};
use unwind_tests::hazard::{Case, Ended, Found, Image, MOST_FRAMES, Memories, Unwinder};
use unwind_tests::synthetic::{AnyArch, Changing, Memory, Registers};

/// framehop, with its defaults.
pub struct Framehop;

impl Unwinder for Framehop {
    fn name(&self) -> &'static str {
        "framehop 0.16"
    }

    fn walk(&self, case: &Case) -> Option<Vec<(&'static str, Found)>> {
        let is_known = |image: &Image| image.sframe.is_none() && image.ehabi.is_none();
        // It cannot be told that there is no code beside its modules.
        if case.arch.byte_order() != ByteOrder::Little
            || case.is_all_code
            || !case.images.iter().all(is_known)
        {
            return None;
        }
        let found = match case.arch {
            AnyArch::X86_64(_) => walk::<X86>(case),
            AnyArch::Aarch64(_) => walk::<Arm>(case),
            _ => return None,
        };
        Some(vec![("", found)])
    }
}

/// What differs between its architectures.
trait Target {
    type Unwinder: framehop::Unwinder<UnwindRegs = Self::Registers, Module = Module<Vec<u8>>, Cache = Self::Cache>
        + Default;
    type Registers;
    type Cache: Default;

    fn registers(arch: &AnyArch, registers: &Registers, unwinder: &Self::Unwinder) -> Self::Registers;
    fn sp(registers: &Self::Registers) -> u64;
}

struct X86;

impl Target for X86 {
    type Unwinder = UnwinderX86_64<Vec<u8>>;
    type Registers = UnwindRegsX86_64;
    type Cache = CacheX86_64;

    fn registers(arch: &AnyArch, registers: &Registers, _: &Self::Unwinder) -> Self::Registers {
        use framehop::x86_64::Reg::{R8, R9, R10, R11, R12, R13, R14, R15, RAX, RBX, RCX, RDI, RDX, RSI};

        let [sp, fp] = [arch.sp(), arch.fp()].map(|register| value(registers, register));
        let mut all = UnwindRegsX86_64::new(registers.ip.unwrap_or(0), sp, fp);
        for (name, number) in [RAX, RDX, RCX, RBX, RSI, RDI].into_iter().zip(0..) {
            all.set(name, value(registers, Register(number)));
        }
        for (name, number) in [R8, R9, R10, R11, R12, R13, R14, R15].into_iter().zip(8..) {
            all.set(name, value(registers, Register(number)));
        }
        all
    }

    fn sp(registers: &Self::Registers) -> u64 {
        registers.sp()
    }
}

struct Arm;

impl Target for Arm {
    type Unwinder = UnwinderAarch64<Vec<u8>>;
    type Registers = UnwindRegsAarch64;
    type Cache = CacheAarch64;

    /// With the mask that its documentation recommends where nobody knows a better one.
    fn registers(arch: &AnyArch, registers: &Registers, unwinder: &Self::Unwinder) -> Self::Registers {
        let [lr, sp, fp] = [arch.ra(), arch.sp(), arch.fp()].map(|register| value(registers, register));
        let mask = PtrAuthMask::from_max_known_address(unwinder.max_known_code_address());
        UnwindRegsAarch64::new_with_ptr_auth_mask(mask, lr, sp, fp)
    }

    fn sp(registers: &Self::Registers) -> u64 {
        registers.sp()
    }
}

fn value(registers: &Registers, register: Register) -> u64 {
    registers.values.get(&register.0).copied().unwrap_or(0)
}

fn walk<T: Target>(case: &Case) -> Found {
    let mut cache = T::Cache::default();
    let mut unwinder = T::Unwinder::default();
    let mut loaded: &[Image] = &case.images;
    if let Some(earlier) = &case.earlier {
        load::<T>(&mut unwinder, &earlier.images);
        once::<T>(case, &unwinder, &mut cache, &mut &earlier.memory);
        loaded = if earlier.images == case.images { &[] } else { &case.images };
        if !loaded.is_empty() {
            unload::<T>(&mut unwinder, &earlier.images);
            // The removal that came before, and the addition that comes, are two.
            for _ in 0..earlier.changes.saturating_sub(2) / 2 {
                load::<T>(&mut unwinder, &case.images[..1]);
                unload::<T>(&mut unwinder, &case.images[..1]);
            }
        }
    }
    load::<T>(&mut unwinder, loaded);
    match &case.memory {
        Memories::Still(memory) => once::<T>(case, &unwinder, &mut cache, &mut &*memory),
        Memories::Changing(memory, seed) => {
            once::<T>(case, &unwinder, &mut cache, &mut Changing::<&Memory>::new(memory, *seed))
        }
    }
}

fn load<T: Target>(unwinder: &mut T::Unwinder, images: &[Image]) {
    for image in images {
        unwinder.add_module(module(image));
    }
}

fn unload<T: Target>(unwinder: &mut T::Unwinder, images: &[Image]) {
    for image in images {
        unwinder.remove_module(image.code.0);
    }
}

fn module(image: &Image) -> Module<Vec<u8>> {
    let (start, end) = image.code;
    // A file's first address: what its sections are relative to.
    let base_svma = start.wrapping_sub(image.bias) & !0xf_ffff;
    let range = |it: &Option<(Vec<u8>, u64)>| {
        it.as_ref().map(|(data, svma)| *svma..svma + u64::try_from(data.len()).expect("it fits into memory"))
    };
    let data = |it: &Option<(Vec<u8>, u64)>| it.as_ref().map(|(data, _)| data.clone());
    let sections = ExplicitModuleSectionInfo {
        base_svma,
        text_svma: image.text_svma.map(|svma| svma..svma + 1),
        got_svma: image.got_svma.map(|svma| svma..svma + 1),
        eh_frame_svma: range(&image.eh_frame),
        eh_frame: data(&image.eh_frame),
        eh_frame_hdr_svma: range(&image.eh_frame_hdr),
        eh_frame_hdr: data(&image.eh_frame_hdr),
        debug_frame: image.debug_frame.clone(),
        ..ExplicitModuleSectionInfo::default()
    };
    Module::new(String::new(), start..end, base_svma.wrapping_add(image.bias), sections)
}

fn once<T: Target>(
    case: &Case,
    unwinder: &T::Unwinder,
    cache: &mut T::Cache,
    memory: &mut dyn MemoryReader,
) -> Found {
    let mut registers = T::registers(&case.arch, &case.registers, unwinder);
    let mut read = |address| memory.read_word(address, WordSize::Eight, ByteOrder::Little).map_err(|_| ());
    let ip = case.registers.ip.expect("every case has one");
    let mut address = FrameAddress::from_instruction_pointer(ip);
    let mut frames = vec![(ip, T::sp(&registers))];
    while frames.len() < MOST_FRAMES {
        let next = unwinder.unwind_frame(address, &mut registers, cache, &mut read);
        let ended = match next {
            Ok(Some(pc)) => match FrameAddress::from_return_address(pc) {
                Some(next) => {
                    address = next;
                    frames.push((pc, T::sp(&registers)));
                    continue;
                }
                // As its iterator does.
                None => Ended::Incomplete,
            },
            Ok(None) => Ended::Complete,
            Err(_) => Ended::Incomplete,
        };
        return Found { frames, ended };
    }
    Found { frames, ended: Ended::Endless }
}
