//! Where the reference stands.

use unwind_core::{Arch, CallerRegisters, Register, RegisterFile, UserRegisters};

use super::narrow;

/// The frame at hand.
#[derive(Clone)]
pub(super) struct State<'r> {
    pub(super) ip: i128,
    pub(super) exact: bool,
    pub(super) sp: i128,
    pub(super) sp_is_bound: bool,
    pub(super) fp: Option<i128>,
    /// The embedder's registers: in the topmost frame only.
    pub(super) topmost: Option<&'r dyn UserRegisters>,
    /// The link register, where a full evaluation recovered it.
    pub(super) link: Option<i128>,
}

/// The next frame.
pub(super) struct Caller {
    pub(super) ip: i128,
    pub(super) exact: bool,
    pub(super) sp: i128,
    pub(super) sp_is_bound: bool,
    pub(super) fp: Option<i128>,
    pub(super) link: Option<i128>,
}

impl Caller {
    pub(super) fn into_state<'r>(self) -> State<'r> {
        State {
            ip: self.ip,
            exact: self.exact,
            sp: self.sp,
            sp_is_bound: self.sp_is_bound,
            fp: self.fp,
            topmost: None,
            link: self.link,
        }
    }
}

impl<'r> State<'r> {
    /// Where to look: at the pc, or inside the call before it.
    pub(super) fn lookup_address(&self) -> i128 {
        if self.exact || self.ip == 0 { self.ip } else { self.ip - 1 }
    }

    /// A register of this frame, if it is known.
    pub(super) fn value<A: Arch>(&self, arch: &A, register: Register) -> Option<i128> {
        let space = 1i128 << (8 * i128::from(arch.word_size().bytes()));
        if register == arch.sp() {
            return if self.sp_is_bound { None } else { Some(self.sp) };
        }
        if register == arch.fp() {
            return self.fp;
        }
        if Some(register) == arch.ip() {
            return Some(self.ip);
        }
        match self.topmost {
            Some(registers) => registers.get(register).map(|value| i128::from(value).rem_euclid(space)),
            None if register == arch.ra() => self.link,
            None => None,
        }
    }

    /// The registers of this frame, as sources see them.
    pub(super) fn registers<'s, A: Arch>(&'s self, arch: &'s A) -> View<'s, 'r, A> {
        View { arch, state: self }
    }
}

pub(super) struct View<'s, 'r, A> {
    arch: &'s A,
    state: &'s State<'r>,
}

impl<A: Arch> RegisterFile for View<'_, '_, A> {
    fn get(&self, register: Register) -> Option<u64> {
        self.state.value(self.arch, register).map(narrow)
    }
}

/// The one register beside ip, sp and fp that the ordinary walk keeps.
pub(super) struct Recovered {
    register: Register,
    pub(super) value: Option<u64>,
}

impl Recovered {
    pub(super) fn only(register: Register) -> Self {
        Recovered { register, value: None }
    }
}

impl CallerRegisters for Recovered {
    fn wants(&self, register: Register) -> bool {
        register == self.register
    }

    fn set(&mut self, register: Register, value: u64) {
        if register == self.register {
            self.value = Some(value);
        }
    }
}
