//! At which instructions walks are made.

use std::collections::HashMap;

/// Where a window begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the first instruction that is stepped.
    Start,
    /// When this function of the program is entered first.
    Function(&'static str),
}

/// At which of the stepped instructions walks are made: from [`from`](Window::from) on, at the
/// first [`per_place`](Window::per_place) visits of every place, and at one in
/// [`sample`](Window::sample) of the others, by a generator with a fixed seed.
///
/// A place is an address together with the caller's: a function called from two places is walked
/// from in both.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Where it begins.
    pub from: From,
    /// Visits of a place that are walked from.
    pub per_place: u32,
    /// One in this many further visits is.
    pub sample: u64,
    /// After this many instructions with walks it ends.
    pub most: u64,
}

/// A window in use.
pub(super) struct Chooser {
    window: Window,
    visits: HashMap<(u64, u64), u32>,
    pub(super) random: Random,
    pub(super) walked: u64,
}

impl Chooser {
    pub(super) fn new(window: Window) -> Self {
        Chooser { window, visits: HashMap::new(), random: Random(0x2545_f491_4f6c_dd1d), walked: 0 }
    }

    /// Whether to walk at `pc`, called from `caller`.
    pub(super) fn choose(&mut self, pc: u64, caller: u64) -> bool {
        if self.walked >= self.window.most {
            return false;
        }
        let visits = self.visits.entry((pc, caller)).or_insert(0);
        *visits = visits.saturating_add(1);
        let chosen = *visits <= self.window.per_place || self.random.one_in(self.window.sample);
        self.walked += u64::from(chosen);
        chosen
    }

    /// How many different addresses were visited.
    pub(super) fn places(&self) -> u64 {
        let mut places: Vec<u64> = self.visits.keys().map(|(pc, _)| *pc).collect();
        places.sort_unstable();
        places.dedup();
        places.len() as u64
    }
}

/// Marsaglia's xorshift64: the same numbers in every run.
pub(super) struct Random(u64);

impl Random {
    /// True once in `n` times, on average; never for 0.
    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        n != 0 && self.0.is_multiple_of(n)
    }
}
