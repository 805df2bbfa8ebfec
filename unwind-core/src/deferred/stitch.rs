//! Joining the parts again.

use core::mem;

use super::cookie::Cookie;

/// Joins the records of one task: kernel parts with their cookie, and the user part that comes later with
/// the same one.
///
/// Records are given in the order in which the task made them. An entry has any number of kernel parts and one user
/// part; kernel parts may also follow that, from samples between the walk and the return to user space. So what
/// waits for a user part when a record of another entry comes waits in vain: it is handed out, and says why.
///
/// Memory is the slots that are lent, one for each kernel part that waits, and one user part, however many
/// records there are and whatever is lost.
///
/// ```
/// use unwind_core::deferred::{Cookie, Stitched, Stitcher};
///
/// let (Some(a), Some(b)) = (Cookie::from_u64(1), Cookie::from_u64(2)) else { unreachable!() };
/// let mut slots = [None; 4];
/// let mut stitcher = Stitcher::new(&mut slots);
/// let mut lines = Vec::new();
/// let mut out = |stitched: Stitched<'_, &str, &str>| lines.push(match stitched {
///     Stitched::Whole { kernel, user, .. } => format!("{kernel} < {user}"),
///     Stitched::KernelOnly { kernel, why, .. } => format!("{kernel} ({why:?})"),
///     Stitched::UserOnly { user, .. } => format!("? < {user}"),
/// });
/// stitcher.kernel(a, "read", &mut out);
/// stitcher.kernel(a, "copy < read", &mut out);
/// stitcher.user(a, "main", &mut out);
/// stitcher.kernel(b, "write", &mut out);
/// stitcher.finish(&mut out);
/// assert_eq!(lines, ["read < main", "copy < read < main", "write (End)"]);
/// ```
#[derive(Debug)]
pub struct Stitcher<'r, K, U> {
    /// The first `waiting` are in use, in the order in which they came.
    slots: &'r mut [Option<K>],
    waiting: usize,
    /// The entry that records come from: what waits is of this one.
    cookie: Option<Cookie>,
    user: Option<User<U>>,
    /// Whether records were lost since this entry began, or just before.
    has_losses: bool,
    /// Whether records were lost since the last one: of this entry, or of the next.
    lost_just_now: bool,
}

/// The user part of the entry.
#[derive(Debug)]
struct User<U> {
    part: U,
    /// Whether a kernel part was joined with it.
    is_joined: bool,
}

/// What becomes of a part: both came, or one of them alone. These are all there can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stitched<'u, K, U> {
    /// A kernel part and its user part.
    Whole {
        /// What both were recorded with.
        cookie: Cookie,
        /// The kernel's part.
        kernel: K,
        /// The user's part: one for all kernel parts of its entry.
        user: &'u U,
    },
    /// A kernel part without a user part.
    KernelOnly {
        /// What it was recorded with.
        cookie: Cookie,
        /// The kernel's part.
        kernel: K,
        /// Why it has none.
        why: Missing,
    },
    /// A user part that no kernel part came for: those were lost, or recorded by nobody.
    UserOnly {
        /// What it was recorded with.
        cookie: Cookie,
        /// The user's part.
        user: U,
    },
}

/// Why a kernel part has no user part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missing {
    /// A record of a later entry came first: there never was one, as after a cancel.
    NeverCame,
    /// The same; but records were lost in between, and it may have been one of them.
    Lost,
    /// More kernel parts of one entry waited than there are slots.
    NoRoom,
    /// It had not come when the records ended.
    End,
}

impl<'r, K, U> Stitcher<'r, K, U> {
    /// A stitcher that can have as many kernel parts waiting as there are slots. What is in them is dropped.
    pub fn new(slots: &'r mut [Option<K>]) -> Self {
        slots.fill_with(|| None);
        Stitcher { slots, waiting: 0, cookie: None, user: None, has_losses: false, lost_just_now: false }
    }

    /// How many kernel parts wait for their user part.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// A kernel part comes.
    pub fn kernel(&mut self, cookie: Cookie, kernel: K, out: &mut impl FnMut(Stitched<'_, K, U>)) {
        self.go_to(cookie, out);
        if let Some(user) = &mut self.user {
            user.is_joined = true;
            out(Stitched::Whole { cookie, kernel, user: &user.part });
        } else if let Some(slot) = self.slots.get_mut(self.waiting) {
            *slot = Some(kernel);
            self.waiting = self.waiting.saturating_add(1);
        } else {
            out(Stitched::KernelOnly { cookie, kernel, why: Missing::NoRoom });
        }
    }

    /// A user part comes. A second one of the same entry says nothing new, and is dropped.
    pub fn user(&mut self, cookie: Cookie, part: U, out: &mut impl FnMut(Stitched<'_, K, U>)) {
        self.go_to(cookie, out);
        if self.user.is_some() {
            return;
        }
        let is_joined = self.waiting > 0;
        for kernel in self.take_waiting() {
            out(Stitched::Whole { cookie, kernel, user: &part });
        }
        self.user = Some(User { part, is_joined });
    }

    /// Records of this task may be missing at this place.
    pub fn lost(&mut self) {
        self.has_losses = true;
        self.lost_just_now = true;
    }

    /// There are no more records.
    pub fn finish(mut self, out: &mut impl FnMut(Stitched<'_, K, U>)) {
        self.give_up(Missing::End, out);
    }

    /// A record of this entry comes: if it is not the same as before, that is over.
    fn go_to(&mut self, cookie: Cookie, out: &mut impl FnMut(Stitched<'_, K, U>)) {
        if self.cookie != Some(cookie) {
            self.give_up(if self.has_losses { Missing::Lost } else { Missing::NeverCame }, out);
            self.cookie = Some(cookie);
            self.has_losses = self.lost_just_now;
        }
        self.lost_just_now = false;
    }

    /// Hands out what there is of the entry.
    fn give_up(&mut self, why: Missing, out: &mut impl FnMut(Stitched<'_, K, U>)) {
        let Some(cookie) = self.cookie.take() else { return };
        for kernel in self.take_waiting() {
            out(Stitched::KernelOnly { cookie, kernel, why });
        }
        if let Some(User { part, is_joined: false }) = self.user.take() {
            out(Stitched::UserOnly { cookie, user: part });
        }
    }

    fn take_waiting(&mut self) -> impl Iterator<Item = K> {
        let waiting = mem::take(&mut self.waiting);
        self.slots.iter_mut().take(waiting).filter_map(Option::take)
    }
}
