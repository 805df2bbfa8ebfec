//! A chain of calls through a few functions, what must be found of it, and damage.

use proptest::collection::vec;
use proptest::prelude::*;
use unwind_core::{Arch, Frame, FrameSource, Module, ModuleMap, Options, Unwinder};
use unwind_tests::hazard::{CODE, STACK, Scene};
use unwind_tests::synthetic::chaos::mix;
use unwind_tests::synthetic::{AnyArch, Memory, Registers};

/// Where each function begins, one after another; each has so many bytes.
pub const FIRST: u64 = CODE + 0x1000;
pub const LENGTH: u64 = 0x40;
/// How many functions there are, the outermost last.
pub const FUNCTIONS: usize = 7;
pub const MOST_FRAMES: u32 = 300;

pub fn start(function: usize) -> u64 {
    FIRST + LENGTH * u64::try_from(function).expect("few")
}

/// How many units the frame of a function has.
pub fn units(function: usize) -> u64 {
    2 + u64::try_from(function).expect("few")
}

/// A chain of calls, innermost first: functions, as the tables of every format describe them.
#[derive(Clone, Debug)]
pub struct World {
    pub arch: AnyArch,
    chain: Vec<usize>,
    /// What a walk over sound tables finds: pc and sp.
    pub truth: Vec<(u64, u64)>,
    registers: Registers,
    pub memory: Memory,
    /// Which steps, by the depth of their frame, read a word of the stack that is another one now.
    misled: Vec<bool>,
}

impl World {
    /// `is_alone`: the outermost has a return address of zero, where its table cannot say undefined.
    pub fn new(arch: AnyArch, calls: &[usize], seed: u64, is_alone: bool) -> Self {
        let mut chain: Vec<usize> = calls.iter().map(|call| call % (FUNCTIONS - 1)).collect();
        chain.push(FUNCTIONS - 1);
        let mut scene = Scene::new(arch);
        let pc = |depth: usize| {
            let random = mix(seed ^ u64::try_from(depth).expect("few"));
            // Calls are no first instructions, and may be the last ones.
            start(chain[depth]) + 4 + random % (LENGTH / 4) * 4
        };
        // Execution has stopped inside, not behind.
        let topmost = start(chain[0]) + 4 + seed % (LENGTH / 4 - 1) * 4;
        let (mut sp, mut truth) = (STACK, vec![(topmost, STACK)]);
        for depth in 1..chain.len() {
            sp = scene.called(sp, units(chain[depth - 1]), pc(depth));
            truth.push((pc(depth), sp));
        }
        if is_alone {
            scene.called(sp, units(FUNCTIONS - 1), 0);
        }
        let registers = Registers::new(topmost, [(arch.sp(), STACK)]);
        let misled = vec![false; chain.len()];
        World { arch, chain, truth, registers, memory: scene.memory, misled }
    }

    /// Damages the stack. Of each frame but the outermost a step reads the uppermost word, and no other.
    pub fn damage_stack(&mut self, damages: &[Damage]) {
        let end = self.truth.last().expect("a frame").1;
        let before: Vec<u8> = (STACK..end).map(|at| self.memory.get(at).expect("noise")).collect();
        let mut bytes = before.clone();
        for index in apply(damages, &mut bytes) {
            let at = STACK + u64::try_from(index).expect("few");
            self.memory.flip(at, before[index] ^ bytes[index]);
            let step = self.truth.iter().position(|frame| frame.1 > at).expect("below the outermost") - 1;
            self.misled[step] |= self.truth[step + 1].1 - at <= self.arch.word();
        }
    }

    /// How many frames are right for certain where a step by one of these functions may go wrong.
    pub fn right(&self, is_damaged: impl Fn(usize) -> bool) -> usize {
        self.chain
            .iter()
            .zip(&self.misled)
            .position(|(function, is_misled)| *is_misled || is_damaged(*function))
            .map_or(self.chain.len(), |index| index + 1)
    }

    /// The frames of a walk, and of one that tracks registers.
    fn walks<S: FrameSource<AnyArch>>(&self, source: S) -> [Vec<Frame>; 2] {
        let modules = [Module { start: CODE, end: CODE + 0x1_0000, bias: 0, source }];
        let map = ModuleMap::new(&self.arch, &modules).expect("one module");
        let mut options = Options::default();
        options.max_frames = MOST_FRAMES;
        let unwinder = Unwinder::with_options(self.arch, map, options);
        [
            unwinder.frames(&self.registers, &self.memory).expect("ip and sp are known").collect(),
            unwinder.frames_tracking::<40, _>(&self.registers, &self.memory).expect("as above").collect(),
        ]
    }

    pub fn walk<S: FrameSource<AnyArch>>(&self, source: S) -> Vec<Frame> {
        let [frames, _] = self.walks(source);
        frames
    }

    pub fn check<S: FrameSource<AnyArch>>(&self, source: S, right: usize) -> Result<(), TestCaseError> {
        for frames in self.walks(source) {
            let found: Vec<(u64, u64)> = frames.iter().map(|frame| (frame.pc.address(), frame.sp)).collect();
            prop_assert!(found.len() <= usize::try_from(MOST_FRAMES).expect("few"));
            prop_assert!(found.len() >= right, "{} frames, {right} must be right", found.len());
            prop_assert_eq!(&found[..right], &self.truth[..right]);
        }
        Ok(())
    }
}

/// Bits that are flipped, or words that are replaced.
#[derive(Clone, Debug)]
pub enum Damage {
    Flip(prop::sample::Index, u8),
    Replace(prop::sample::Index, u32),
}

pub fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let index = any::<prop::sample::Index>();
    let word = prop_oneof![Just(0), Just(u32::MAX), Just(1), Just(0x7fff_ffff), any::<u32>()];
    let one = prop_oneof![
        3 => (index, 1u8..).prop_map(|(index, bits)| Damage::Flip(index, bits)),
        2 => (any::<prop::sample::Index>(), word).prop_map(|(index, word)| Damage::Replace(index, word)),
    ];
    vec(one, 1..3)
}

/// Damages bytes, and says which of them are others now.
pub fn apply(damages: &[Damage], bytes: &mut [u8]) -> Vec<usize> {
    let before = bytes.to_vec();
    for damage in damages {
        match damage {
            Damage::Flip(index, bits) if !bytes.is_empty() => bytes[index.index(before.len())] ^= bits,
            Damage::Replace(index, word) if bytes.len() >= 4 => {
                let at = index.index(before.len() / 4) * 4;
                bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
            }
            _ => {}
        }
    }
    (0..before.len()).filter(|at| before[*at] != bytes[*at]).collect()
}

/// Of the stack: often none.
pub fn stack_damage() -> impl Strategy<Value = Vec<Damage>> {
    prop_oneof![Just(Vec::new()), damage()]
}
