//! Steps one program, and walks.

use std::io;

use super::case::{Begin, Case, Ended, Report};
use super::stepper::{Step, Stepper};
use super::tracee::Tracee;
use super::walks::Walks;
use super::window::{Chooser, From};
use crate::oracle::tally::Counts;
use crate::oracle::truth::EntryId;

/// Runs a case.
///
/// # Errors
/// Where the program cannot be traced at all, or never comes to where the case begins.
pub fn run(case: Case<'_>) -> io::Result<Report> {
    let Case { name, command, ours, begin, window, conventions, odd_returns, inject, most, tables } = case;
    let mut stepper = Stepper::new(Tracee::start(command)?, ours, tables)?;
    let mut walks = Walks::new(conventions);
    if begin != Begin::Loader {
        stepper.run_to_entry()?;
    }
    match begin {
        Begin::Loader | Begin::Program => {}
        Begin::Thread => stepper.run_to_thread()?,
        Begin::Function(function) => {
            stepper.run_to_function(function)?;
            walks.suppose(&mut stepper);
        }
    }
    let opens_at = match window.from {
        From::Start => None,
        From::Function(function) => Some(stepper.function(function)?),
    };
    let mut open = opens_at.is_none();
    let mut chooser = Chooser::new(window);
    let mut pending = None;
    let mut here_before = false;
    let mut sent: Option<EntryId> = None;
    let mut injected = 0;
    let ended = loop {
        if walks.tally.instructions >= most {
            break Ended::Enough;
        }
        let pc = stepper.registers.place().pc;
        open |= opens_at == Some(pc);
        if open && !here_before {
            walks.tally.in_window += 1;
            if chooser.choose(pc, stepper.shadow.caller()) {
                walks.walk(&mut stepper);
            }
        }
        let mut send = false;
        if let Some((signal, every)) = inject
            && open
            && pending.is_none()
            && !stepper.shadow.in_limbo()
            && !walks.in_doubt()
            && !sent.is_some_and(|sent| stepper.shadow.is_alive(sent))
            && chooser.random.one_in(every)
            && stepper.tracee.catches(signal)
        {
            pending = Some(signal);
            send = true;
        }
        match stepper.step(pending.take())? {
            Step::Ended(stop) => break Ended::Stop(stop),
            Step::Went { executed, entered, settled, pending: next } => {
                walks.tally.instructions += u64::from(executed);
                walks.settle(&stepper, settled);
                if send && entered {
                    // Above it is the handler's return to the trampoline.
                    sent = stepper.shadow.entry(2);
                    injected += 1;
                }
                here_before = !executed && !entered;
                pending = next;
            }
        }
    };
    walks.end(&stepper);
    let Walks { mut tally, failures, mut doubts, .. } = walks;
    tally.walked = chooser.walked;
    tally.places = chooser.places();
    doubts.append(&mut stepper.doubts);
    let seen = stepper.shadow.seen();
    if seen.odd_returns > 0 && !odd_returns {
        doubts.push(format!("{} returns did not go where their call came from", seen.odd_returns));
    }
    if !tally.counts.iter().all(Counts::adds_up) {
        doubts.push("the counts do not add up".to_owned());
    }
    Ok(Report { name, tally, seen, injected, ended, failures, doubts })
}
