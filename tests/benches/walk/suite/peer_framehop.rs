//! framehop, with the same sections as slices.

use framehop::{
    CacheNative, CacheStats, Error, ExplicitModuleSectionInfo, FrameAddress, MayAllocateDuringUnwind, Module,
    UnwindRegsNative, Unwinder, UnwinderNative,
};

use super::contender::Contender;
use super::workload::{Image, Sample, Workload};

type Native<'w> = UnwinderNative<&'w [u8], MayAllocateDuringUnwind>;

/// An unwinder for each process, and one cache for all of them.
pub(crate) struct Framehop<'w, const COPIES: usize> {
    name: &'static str,
    unwinders: Vec<[Native<'w>; COPIES]>,
    cache: CacheNative<MayAllocateDuringUnwind>,
    before: CacheStats,
    /// Steps so far.
    steps: usize,
}

/// As it is meant to be used.
pub(crate) fn cached<'w>(name: &'static str, workload: &'w Workload) -> Framehop<'w, 1> {
    Framehop::new(name, workload)
}

/// Always missing: it cannot do without its cache, and a fresh one would cost more than a step. So each
/// step takes the next of 16 unwinders with the same modules: what the others left in the cache is not
/// for this one.
pub(crate) fn missing<'w>(workload: &'w Workload) -> Framehop<'w, 16> {
    Framehop::new("framehop, missing", workload)
}

impl<'w, const COPIES: usize> Framehop<'w, COPIES> {
    fn new(name: &'static str, workload: &'w Workload) -> Self {
        let unwinders = workload.processes.iter().map(|process| {
            let mut unwinders = [(); COPIES].map(|()| Native::new());
            for mapping in &process.mappings {
                let image = &workload.images[mapping.image];
                let module = module(image, mapping.start..mapping.end, mapping.bias);
                unwinders.iter_mut().for_each(|unwinder| unwinder.add_module(module.clone()));
            }
            unwinders
        });
        Framehop {
            name,
            unwinders: unwinders.collect(),
            cache: CacheNative::new(),
            before: CacheStats::new(),
            steps: 0,
        }
    }

    /// Of all lookups since it was last asked, the part that the cache answered.
    fn hits(&mut self) -> f64 {
        let (now, before) = (self.cache.stats(), self.before);
        self.before = now;
        (now.hits() - before.hits()) as f64 / (now.total() - before.total()).max(1) as f64
    }
}

/// A module of framehop's.
pub(crate) fn module(image: &Image, range: std::ops::Range<u64>, bias: u64) -> Module<&[u8]> {
    let range_of = |piece: &super::workload::Piece| piece.svma..piece.svma + piece.data.len() as u64;
    let sections = ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: image.text_svma.map(|start| start..image.text.end.max(start)),
        got_svma: image.got_svma.map(|start| start..start),
        eh_frame_svma: Some(range_of(&image.eh_frame)),
        eh_frame: Some(&image.eh_frame.data[..]),
        eh_frame_hdr_svma: Some(range_of(&image.eh_frame_hdr)),
        eh_frame_hdr: Some(&image.eh_frame_hdr.data[..]),
        ..Default::default()
    };
    Module::new(image.name(), range, bias, sections)
}

#[cfg(target_arch = "x86_64")]
fn registers(sample: &Sample) -> UnwindRegsNative {
    UnwindRegsNative::new(sample.ip(), sample.sp(), sample.fp())
}

#[cfg(target_arch = "aarch64")]
fn registers(sample: &Sample) -> UnwindRegsNative {
    UnwindRegsNative::new(sample.link(), sample.sp(), sample.fp())
}

impl<const COPIES: usize> Contender for Framehop<'_, COPIES> {
    fn name(&self) -> String {
        self.name.into()
    }

    fn note(&mut self) -> Option<String> {
        Some(format!("{:.1} % hits", self.hits() * 100.0))
    }

    #[inline]
    fn walk(&mut self, _: usize, sample: &Sample, pcs: &mut [u64]) -> usize {
        let unwinders = &self.unwinders[sample.process];
        let mut read = |address| sample.word(address).ok_or(());
        let mut registers = registers(sample);
        let mut address = FrameAddress::from_instruction_pointer(sample.ip());
        let mut count = 0;
        // What `iter_frames` does, but that the unwinder may change.
        for entry in pcs {
            *entry = address.address();
            count += 1;
            self.steps = self.steps.wrapping_add(1);
            let unwinder = &unwinders[self.steps % COPIES];
            let next: Result<Option<u64>, Error> =
                unwinder.unwind_frame(address, &mut registers, &mut self.cache, &mut read);
            let Ok(Some(caller)) = next else { break };
            let Some(caller) = FrameAddress::from_return_address(caller) else { break };
            address = caller;
        }
        count
    }
}
