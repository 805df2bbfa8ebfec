//! Registers: where they come from, and which ones a walk tracks.

/// Registers with DWARF numbers from here on are never tracked. Machines keep theirs below, but for
/// vectors and pseudo-registers.
pub(crate) const TRACKED: u16 = 128;

/// A register, by its DWARF number in the target's ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct Register(pub u16);

/// Register values by DWARF number. "Unknown" is an answer; a stale copy is not.
pub trait RegisterFile {
    /// The value of `register`, or `None` where it is not known.
    fn get(&self, register: Register) -> Option<u64>;
}

/// The registers at which a walk starts: a kernel's saved user registers, a debugger's or an
/// emulator's register file, a profiler's sample.
pub trait UserRegisters: RegisterFile {
    /// The program counter (avma). It has a method of its own because not every ABI gives it a
    /// DWARF number.
    fn ip(&self) -> Option<u64>;

    /// Whether there are user registers at all. A kernel thread has none: the walk is then
    /// refused with [`StartError::NoUserRegisters`](crate::StartError::NoUserRegisters).
    fn is_user(&self) -> bool {
        true
    }
}

impl<T: RegisterFile + ?Sized> RegisterFile for &T {
    #[inline]
    fn get(&self, register: Register) -> Option<u64> {
        (**self).get(register)
    }
}

impl<T: UserRegisters + ?Sized> UserRegisters for &T {
    fn ip(&self) -> Option<u64> {
        (**self).ip()
    }

    fn is_user(&self) -> bool {
        (**self).is_user()
    }
}

/// A register set that can be filled: what [`register_set!`](crate::register_set) declares.
pub trait FillRegisters: UserRegisters + Default {
    /// There are no user registers.
    fn absent() -> Self;

    /// The same set, with `register` known.
    #[must_use]
    fn with(self, register: Register, value: u64) -> Self;

    /// The same set, with the program counter known.
    #[must_use]
    fn with_ip(self, ip: u64) -> Self;
}

/// Where a source writes the caller's registers that it recovers; see
/// [`FrameSource::evaluate`](crate::FrameSource::evaluate).
pub trait CallerRegisters {
    /// Whether the value of `register` would be kept. Spares the source the work for the others.
    fn wants(&self, register: Register) -> bool;
    /// States the caller's value of `register`. Registers never stated are unknown.
    fn set(&mut self, register: Register, value: u64);
}

/// The registers that a state tracks beside ip, sp and fp.
///
/// Two are provided: [`TopmostRegisters`] for the ordinary walk, which pays nothing for the others,
/// and [`TrackedRegisters`] for debuggers.
pub trait RegisterSet: RegisterFile + CallerRegisters + Clone {
    /// Whether every frame is to be evaluated in full, for the sake of these registers.
    const TRACKS: bool;

    /// Makes every value unknown: what is left after a step that recovers ip, sp and fp alone.
    fn forget(&mut self);

    /// Makes every value unknown but those of the registers that `keep` names: what is left after
    /// a step over a function that has not run yet.
    fn retain(&mut self, keep: &dyn Fn(Register) -> bool) {
        let _ = keep;
        self.forget();
    }
}

/// The registers of the ordinary three-register walk.
///
/// In the topmost frame any register that the embedder supplied can be a CFA base or hold the
/// return address (stack realignment, hand-written assembly, leaf functions). After a signal
/// frame the interrupted frame's link register is known again. Anywhere else nothing is.
#[derive(Clone)]
pub struct TopmostRegisters<'r> {
    topmost: Option<&'r dyn UserRegisters>,
    link_register: Register,
    link: Option<u64>,
}

impl<'r> TopmostRegisters<'r> {
    /// The embedder's registers, for a target whose return address register is `link_register`.
    pub fn new(topmost: &'r dyn UserRegisters, link_register: Register) -> Self {
        TopmostRegisters { topmost: Some(topmost), link_register, link: None }
    }
}

impl RegisterFile for TopmostRegisters<'_> {
    #[inline]
    fn get(&self, register: Register) -> Option<u64> {
        match self.topmost {
            Some(topmost) => topmost.get(register),
            None if register == self.link_register => self.link,
            None => None,
        }
    }
}

impl CallerRegisters for TopmostRegisters<'_> {
    #[inline]
    fn wants(&self, register: Register) -> bool {
        register == self.link_register
    }

    #[inline]
    fn set(&mut self, register: Register, value: u64) {
        if register == self.link_register {
            self.link = Some(value);
        }
    }
}

impl RegisterSet for TopmostRegisters<'_> {
    const TRACKS: bool = false;

    #[inline]
    fn forget(&mut self) {
        self.topmost = None;
        self.link = None;
    }
}

impl core::fmt::Debug for TopmostRegisters<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TopmostRegisters")
            .field("topmost", &self.topmost.is_some())
            .field("link", &self.link)
            .finish()
    }
}

/// The registers with DWARF numbers below `N` (at most [`TrackedRegisters::MOST`]), with a validity
/// bit each: for debuggers, and for code whose CFA rests on a register other than sp and fp.
#[derive(Clone, Copy, Debug)]
pub struct TrackedRegisters<const N: usize> {
    values: [u64; N],
    known: u128,
}

impl<const N: usize> TrackedRegisters<N> {
    /// The largest `N` that means anything: registers with numbers from here on are never tracked.
    pub const MOST: u16 = TRACKED;

    /// A set that knows nothing.
    pub const fn unknown() -> Self {
        TrackedRegisters { values: [0; N], known: 0 }
    }

    /// A set that knows what `registers` knows.
    pub fn new(registers: &dyn UserRegisters) -> Self {
        let mut set = Self::unknown();
        for number in 0..TRACKED {
            let register = Register(number);
            if let Some(value) = registers.get(register).filter(|_| set.wants(register)) {
                set.set(register, value);
            }
        }
        set
    }

    /// Makes the value of `register` unknown.
    #[inline]
    pub fn unset(&mut self, register: Register) {
        self.known &= !Self::bit(register);
        if let Some(slot) = self.values.get_mut(usize::from(register.0)) {
            *slot = 0;
        }
    }

    fn bit(register: Register) -> u128 {
        if usize::from(register.0) < N { 1u128.checked_shl(u32::from(register.0)).unwrap_or(0) } else { 0 }
    }
}

/// Two sets are equal where they know the same registers, with the same values.
impl<const N: usize> PartialEq for TrackedRegisters<N> {
    fn eq(&self, other: &Self) -> bool {
        (0..TRACKED).all(|number| self.get(Register(number)) == other.get(Register(number)))
    }
}

impl<const N: usize> Eq for TrackedRegisters<N> {}

impl<const N: usize> RegisterFile for TrackedRegisters<N> {
    #[inline]
    fn get(&self, register: Register) -> Option<u64> {
        let value = self.values.get(usize::from(register.0))?;
        (self.known & Self::bit(register) != 0).then_some(*value)
    }
}

impl<const N: usize> CallerRegisters for TrackedRegisters<N> {
    #[inline]
    fn wants(&self, register: Register) -> bool {
        Self::bit(register) != 0
    }

    #[inline]
    fn set(&mut self, register: Register, value: u64) {
        if let Some(slot) = self.values.get_mut(usize::from(register.0)) {
            *slot = value;
            self.known |= Self::bit(register);
        }
    }
}

impl<const N: usize> RegisterSet for TrackedRegisters<N> {
    const TRACKS: bool = true;

    #[inline]
    fn forget(&mut self) {
        self.known = 0;
    }

    fn retain(&mut self, keep: &dyn Fn(Register) -> bool) {
        for number in 0..TRACKED {
            let register = Register(number);
            if !keep(register) {
                self.known &= !Self::bit(register);
            }
        }
    }
}
