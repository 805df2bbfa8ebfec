//! Clients come and go.

use core::fmt;

use super::client::{ClientId, Registration};
use super::embedder::Embedder;
use super::request::Deferred;

/// No slot is free: all are taken, or there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSlot;

impl fmt::Display for NoSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is no free slot for a client")
    }
}

impl core::error::Error for NoSlot {}

impl<E: Embedder, C> Deferred<'_, E, C> {
    /// Registers a client: takes a free slot, lets `prepare` put the client's data into the slot's value, which
    /// nobody else uses, and only then makes it known.
    ///
    /// Does not wait.
    ///
    /// # Errors
    /// Where no slot is free.
    pub fn register(&self, prepare: impl FnOnce(&C)) -> Result<Registration, NoSlot> {
        let mut slots = self.slots.iter().take(super::MAX_CLIENTS).enumerate();
        let (index, slot) = slots.find(|(_, slot)| slot.claim()).ok_or(NoSlot)?;
        prepare(slot.client());
        Ok(Registration { id: ClientId { slot: index, number: slot.publish() } })
    }

    /// Ends a registration. Once this has returned, the client is not being called, and never will be; its slot
    /// is free, and no task knows of it. What it had requested and was not called for is dropped.
    ///
    /// Waits for requests and calls of this client that are under way, whatever the task and CPU. So it must
    /// not be called where those cannot go on: from a client's call, from an NMI or an interrupt. It visits
    /// every task.
    ///
    /// # Errors
    /// The registration back, where it is none of these slots'.
    pub fn cancel(&self, registration: Registration) -> Result<(), Registration> {
        let ClientId { slot, number } = registration.id;
        let Some((slot, place)) = self.slot(slot).filter(|(slot, _)| slot.begin_cancel(number)) else {
            return Err(registration);
        };
        // Those who came before the cancel: they may still set the client's bit, or call it.
        while !slot.is_empty() {
            self.embedder.relax();
        }
        // From here on, nobody sets the bit.
        self.embedder.for_each_task(&mut |task| task.as_ref().forget(place));
        // Those who found the bit in a task before that, and are about to find out.
        while !slot.free() {
            self.embedder.relax();
        }
        Ok(())
    }
}
