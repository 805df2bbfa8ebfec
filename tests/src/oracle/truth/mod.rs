//! The true call stack, kept from the calls and returns that were executed.
//!
//! No unwind table is consulted here. A [`Shadow`] is told after every instruction what that
//! instruction did ([`Event`]) and where execution now stands ([`Place`]); it answers with the call
//! chain ([`Shadow::chain`]). It knows no architecture: what differs between machines is
//! the [slot](Shadow::new), the bytes of the stack that a call takes to store its return address.
//!
//! # Rules
//! * A call pushes an entry: its return address, and the sp that the caller has again afterwards
//!   (on x86-64 and AArch64 alike this is the CFA).
//! * A return to the top entry's return address with the top entry's sp pops it.
//! * A signal pushes two entries: the interrupted place, whose pc is exact, and the handler's return
//!   to the trampoline. Returning from the signal pops the former.
//! * **Limbo**: while sp is on another stack than the top entry, or has risen past the slot of its
//!   return address, control has not been transferred yet and nothing is decided. It ends when sp
//!   comes back or a call is made: nothing had happened (assembly that switches stacks for a
//!   while, `vfork`, which takes its return address off the stack). Or it ends with a return or an
//!   indirect jump: then control has left these functions for another place (`longjmp`, an
//!   exception's landing pad, `setcontext`), and every entry that sp has passed is dead.
//! * Stacks other than the thread's own are declared. A place on a stack that nothing of the
//!   current context is on belongs to another context (`swapcontext`): a context that was left
//!   before is resumed, or a new one begins.

mod event;
mod shadow;
#[cfg(test)]
mod tests;

pub use event::{Event, Place, Planted, Seen, Settled, TrueFrame};
pub use shadow::{EntryId, Shadow};
