//! The register set that an architecture crate offers: one macro, so that all of them are alike.

/// Declares the register set of an architecture: a `Copy` value that implements [`RegisterFile`] and
/// [`UserRegisters`], in which every register is known or unknown.
///
/// `count` is how many registers it has room for, those with DWARF numbers below; `ip` is the DWARF
/// number of the program counter, or `None` where the ABI gives it none. The numbers are
/// [`Register`]s. The constructors that are peculiar to an architecture, such as `new`, are added
/// beside it.
///
/// ```
/// use unwind_core::{Register, RegisterFile, UserRegisters, register_set};
///
/// register_set! {
///     /// Four registers, and a program counter without a number.
///     pub struct Registers { count: 4, ip: None }
/// }
///
/// let registers = Registers::default().with(Register(2), 7).with_ip(0x1000);
/// assert_eq!((registers.get(Register(2)), registers.get(Register(3))), (Some(7), None));
/// assert_eq!(registers.ip(), Some(0x1000));
/// assert!(!Registers::absent().is_user());
/// ```
///
/// [`Register`]: crate::Register
/// [`RegisterFile`]: crate::RegisterFile
/// [`UserRegisters`]: crate::UserRegisters
#[macro_export]
macro_rules! register_set {
    ($(#[$attribute:meta])* pub struct $name:ident { count: $count:expr, ip: $ip:expr $(,)? }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            values: $crate::TrackedRegisters<{ $count }>,
            ip: Option<u64>,
            user: bool,
        }

        impl $name {
            /// How many registers the set has room for: those with DWARF numbers below. The `N` to
            /// give to [`frames_tracking`]($crate::Unwinder::frames_tracking).
            pub const COUNT: usize = $count;

            /// The DWARF number of the program counter, where the ABI gives it one.
            const IP: Option<$crate::Register> = $ip;

            /// From DWARF numbers and values, as debuggers and emulators have them. Numbers that the
            /// set has no room for are left out; of two values for one register the last counts.
            pub fn from_dwarf(values: impl IntoIterator<Item = ($crate::Register, u64)>) -> Self {
                values.into_iter().fold(Self::default(), |set, (register, value)| set.with(register, value))
            }

            /// There are no user registers: a kernel thread. A walk is refused, with that reason.
            pub fn absent() -> Self {
                $name { user: false, ..Self::default() }
            }

            /// The same set, with `register` known. One that the set has no room for is left out.
            #[must_use]
            pub fn with(mut self, register: $crate::Register, value: u64) -> Self {
                if Some(register) == Self::IP {
                    self.ip = Some(value);
                } else {
                    $crate::CallerRegisters::set(&mut self.values, register, value);
                }
                self
            }

            /// The same set, with the program counter known.
            #[must_use]
            pub fn with_ip(mut self, ip: u64) -> Self {
                self.ip = Some(ip);
                self
            }

            /// The same set, with `register` unknown.
            #[must_use]
            pub fn without(mut self, register: $crate::Register) -> Self {
                if Some(register) == Self::IP {
                    self.ip = None;
                } else {
                    self.values.unset(register);
                }
                self
            }
        }

        /// Knows nothing. A walk needs at least a program counter and a stack pointer.
        impl Default for $name {
            fn default() -> Self {
                $name { values: $crate::TrackedRegisters::unknown(), ip: None, user: true }
            }
        }

        impl $crate::RegisterFile for $name {
            #[inline]
            fn get(&self, register: $crate::Register) -> Option<u64> {
                if Some(register) == Self::IP { self.ip } else { $crate::RegisterFile::get(&self.values, register) }
            }
        }

        impl $crate::UserRegisters for $name {
            #[inline]
            fn ip(&self) -> Option<u64> {
                self.ip
            }

            #[inline]
            fn is_user(&self) -> bool {
                self.user
            }
        }

        impl $crate::FillRegisters for $name {
            fn absent() -> Self {
                $name::absent()
            }

            fn with(self, register: $crate::Register, value: u64) -> Self {
                $name::with(self, register, value)
            }

            fn with_ip(self, ip: u64) -> Self {
                $name::with_ip(self, ip)
            }
        }
    };
}

#[cfg(test)]
#[allow(dead_code, unreachable_pub, reason = "the macro makes all of an embedder's set")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use crate::{Register, RegisterFile, UserRegisters};

    const PC: Register = Register(70);

    register_set! {
        /// With a number for the program counter, beyond the others.
        pub struct Numbered { count: 66, ip: Some(PC) }
    }
    register_set! {
        /// Without.
        pub struct Unnumbered { count: 128, ip: None }
    }

    fn known(registers: &impl RegisterFile) -> Vec<u16> {
        (0..=u16::MAX).filter(|number| registers.get(Register(*number)).is_some()).collect()
    }

    #[test]
    fn what_was_not_said_is_unknown() {
        assert_eq!((known(&Numbered::default()), Numbered::default().ip()), ([].into(), None));
        let registers = Numbered::default().with(Register(3), 0).with(Register(65), 5).with_ip(9);
        assert_eq!(known(&registers), [3, 65, 70]);
        assert_eq!(
            (registers.ip(), registers.get(PC), registers.get(Register(65))),
            (Some(9), Some(9), Some(5))
        );
        assert_eq!(known(&registers.without(Register(3)).without(PC)), [65]);
        assert_eq!(registers.without(PC).ip(), None);
        let registers = Unnumbered::default().with_ip(9);
        assert_eq!((known(&registers), registers.ip()), ([].into(), Some(9)));
    }

    #[test]
    fn a_list_by_number_is_taken_over_as_far_as_there_is_room() {
        let all = (0..=u16::MAX).map(|number| (Register(number), u64::from(number) << 32));
        let registers = Numbered::from_dwarf(all.clone());
        assert_eq!(known(&registers), (0..66).chain([70]).collect::<Vec<_>>());
        assert_eq!(registers.ip(), Some(70 << 32));
        assert_eq!(known(&Unnumbered::from_dwarf(all)), (0..128).collect::<Vec<_>>());
        let twice = Numbered::from_dwarf([(Register(1), 1), (Register(1), 2)]);
        assert_eq!(twice.get(Register(1)), Some(2));
        let registers = Numbered::default().with(Register(66), 1).with(Register(u16::MAX), 1);
        assert_eq!(registers, Numbered::default());
        assert_eq!(registers.without(Register(66)), registers);
    }

    #[test]
    fn sets_are_equal_where_they_know_the_same() {
        let once = Numbered::default().with(Register(1), 1);
        assert_ne!(once, Numbered::default());
        assert_eq!(once.without(Register(1)), Numbered::default());
        assert_ne!(Numbered::absent(), Numbered::default());
        assert_ne!(Unnumbered::default().with(Register(127), 0), Unnumbered::default());
    }
}
