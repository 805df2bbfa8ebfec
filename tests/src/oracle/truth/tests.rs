//! A machine that pushes return addresses, and one that has a link register, doing what programs do.

use unwind_core::Pc;

use super::{Event, Place, Planted, Settled, Shadow};

const TRAMPOLINE: u64 = 0x7000;

/// A thread, and its shadow stack.
struct Machine {
    shadow: Shadow<u64>,
    slot: u64,
    at: Place,
}

impl Machine {
    /// With the main stack below 0x10000 and two more, at 0x20000 and 0x30000, of 0x1000 bytes each.
    fn new(slot: u64) -> Self {
        let mut shadow = Shadow::new(slot);
        shadow.declare_stack(0x20000..0x21000);
        shadow.declare_stack(0x30000..0x31000);
        Machine { shadow, slot, at: Place { pc: 0x100, sp: 0x10000 } }
    }

    fn go(&mut self, event: Event<u64>, pc: u64, sp: u64) -> Settled {
        self.at = Place { pc, sp };
        let planted = Planted { return_address: 0x666, sp: sp + self.slot };
        self.shadow.after(event, self.at, || Some(planted))
    }

    /// Any other instruction.
    fn plain(&mut self, sp: u64) -> Settled {
        self.go(Event::Plain, self.at.pc + 1, sp)
    }

    /// Calls `to`; the call is 5 bytes long.
    fn call(&mut self, to: u64) -> Settled {
        let Place { pc, sp } = self.at;
        self.go(Event::Call { return_address: pc + 5, sp, registers: sp }, to, sp - self.slot)
    }

    fn signal(&mut self, sp: u64) -> Settled {
        let interrupted = self.at;
        let sp_left = sp + self.slot;
        self.go(Event::Signal { interrupted, registers: 0, trampoline: TRAMPOLINE, sp: sp_left }, 0x5000, sp)
    }

    /// The addresses of the chain, innermost first; those of exact pcs are negative.
    fn chain(&self) -> Vec<i64> {
        let chain = self.shadow.chain(self.at, 0);
        let signed = |pc: &Pc| i64::try_from(pc.address()).expect("a small address");
        chain
            .iter()
            .map(|frame| if frame.pc.is_exact() { -signed(&frame.pc) } else { signed(&frame.pc) })
            .collect()
    }
}

#[test]
fn calls_and_returns() {
    for slot in [0, 8] {
        let mut machine = Machine::new(slot);
        assert_eq!(machine.chain(), [-0x100]);
        machine.call(0x200);
        machine.plain(0xff00);
        machine.call(0x300);
        assert_eq!(machine.chain(), [-0x300, 0x206, 0x105]);
        assert_eq!(machine.shadow.caller(), 0x206);
        assert_eq!(machine.go(Event::Return, 0x206, 0xff00), Settled::Here);
        machine.plain(0x10000 - slot);
        assert_eq!(machine.go(Event::Return, 0x105, 0x10000), Settled::Here);
        assert_eq!(machine.chain(), [-0x105]);
        let seen = machine.shadow.seen();
        assert_eq!((seen.calls, seen.returns, seen.odd_returns, seen.transfers), (2, 2, 0, 0));
    }
}

#[test]
fn the_sp_of_a_frame_is_that_after_the_return() {
    let mut machine = Machine::new(8);
    machine.call(0x200);
    machine.plain(0xff00);
    machine.call(0x300);
    let chain = machine.shadow.chain(machine.at, 1);
    let known: Vec<_> = chain.iter().map(|frame| (frame.sp, frame.registers)).collect();
    assert_eq!(known, [(0xfef8, Some(1)), (0xff00, Some(0xff00)), (0x10000, Some(0x10000))]);
}

#[test]
fn a_tail_call_keeps_the_return_address() {
    for slot in [0, 8] {
        let mut machine = Machine::new(slot);
        machine.call(0x200);
        assert_eq!(machine.go(Event::Jump, 0x400, 0x10000 - slot), Settled::Here);
        assert_eq!(machine.chain(), [-0x400, 0x105]);
    }
}

#[test]
fn longjmp_ends_what_sp_has_passed() {
    let mut machine = Machine::new(8);
    machine.call(0x200);
    machine.plain(0xff00);
    machine.call(0x300);
    machine.call(0x400);
    assert_eq!(machine.plain(0xff00), Settled::Limbo);
    assert_eq!(machine.chain(), [-0x401, 0x305, 0x206, 0x105]);
    assert_eq!(machine.go(Event::Jump, 0x250, 0xff00), Settled::Moved);
    assert_eq!(machine.chain(), [-0x250, 0x105]);
    assert_eq!(machine.shadow.seen().abandoned, 2);
}

#[test]
fn longjmp_into_the_function_that_called_it() {
    let mut machine = Machine::new(8);
    machine.call(0x200);
    assert_eq!(machine.plain(0x10000), Settled::Limbo);
    assert_eq!(machine.go(Event::Jump, 0x180, 0x10000), Settled::Moved);
    assert_eq!(machine.chain(), [-0x180]);
}

#[test]
fn a_return_address_that_leaves_the_stack_for_a_while() {
    let mut machine = Machine::new(8);
    machine.call(0x200);
    assert_eq!(machine.plain(0x10000), Settled::Limbo);
    assert!(machine.shadow.in_limbo());
    assert_eq!(machine.plain(0xfff8), Settled::Here);
    assert_eq!(machine.go(Event::Return, 0x105, 0x10000), Settled::Here);

    // Not put back: it is jumped to.
    machine.call(0x200);
    machine.plain(0x10000);
    machine.go(Event::Jump, 0x10a, 0x10000);
    assert_eq!(machine.chain(), [-0x10a]);
    assert_eq!(machine.shadow.seen().returns, 2);
}

#[test]
fn a_call_from_a_stack_that_assembly_went_over_to() {
    let mut machine = Machine::new(8);
    machine.call(0x200);
    assert_eq!(machine.plain(0x21000), Settled::Limbo);
    assert_eq!(machine.call(0x300), Settled::Here);
    assert_eq!(machine.chain(), [-0x300, 0x206, 0x105]);
    // Back again: sp still is on the other stack, and the entry below on this one.
    assert_eq!(machine.go(Event::Return, 0x206, 0x21000), Settled::Here);
    assert_eq!(machine.plain(0xfff8), Settled::Here);
    assert_eq!(machine.go(Event::Return, 0x105, 0x10000), Settled::Here);
    assert_eq!(machine.shadow.seen().contexts, 1);
}

#[test]
fn contexts_take_turns() {
    let mut machine = Machine::new(8);
    machine.call(0x200);
    // swapcontext(first, second): a return to the new context's function.
    machine.call(0x600);
    machine.plain(0x20f00);
    assert_eq!(machine.go(Event::Return, 0x300, 0x20f08), Settled::Moved);
    assert_eq!(machine.chain(), [-0x300, 0x666]);
    machine.call(0x400);
    // And back: a return to where the first call of swapcontext returns to.
    machine.call(0x600);
    machine.plain(0xfff0);
    assert_eq!(machine.go(Event::Return, 0x205, 0xfff8), Settled::Moved);
    assert_eq!(machine.chain(), [-0x205, 0x105]);
    // The second once more: it waits where it called.
    machine.call(0x600);
    machine.plain(0x20f00 - 8);
    assert_eq!(machine.go(Event::Return, 0x405, 0x20f00), Settled::Moved);
    assert_eq!(machine.chain(), [-0x405, 0x305, 0x666]);
    assert_eq!(machine.shadow.seen().contexts, 2);
}

#[test]
fn a_stack_that_is_declared_again_is_new() {
    let mut machine = Machine::new(8);
    machine.plain(0x20f00);
    machine.go(Event::Jump, 0x300, 0x20f00);
    machine.call(0x400);
    machine.plain(0x10000);
    machine.go(Event::Jump, 0x110, 0x10000);
    machine.shadow.declare_stack(0x20000..0x21000);
    machine.plain(0x20e00);
    machine.go(Event::Jump, 0x310, 0x20e00);
    assert_eq!(machine.chain(), [-0x310, 0x666]);
}

#[test]
fn signals_nest_on_both_stacks() {
    let mut machine = Machine::new(8);
    machine.call(0x200);
    assert_eq!(machine.signal(0xf000), Settled::Here);
    assert_eq!(machine.chain(), [-0x5000, 0x7000, -0x200, 0x105]);
    // On the alternate stack, from within the first handler, and a call there.
    machine.signal(0x30f00);
    machine.call(0x300);
    let nested = [-0x300, 0x5005, 0x7000, -0x5000, 0x7000, -0x200, 0x105];
    assert_eq!(machine.chain(), nested);
    machine.go(Event::Return, 0x5005, 0x30f00);
    machine.go(Event::Return, TRAMPOLINE, 0x30f08);
    assert_eq!(machine.chain(), [-0x7000, -0x5000, 0x7000, -0x200, 0x105]);
    assert_eq!(machine.go(Event::SignalReturn, 0x5000, 0xf000), Settled::Here);
    machine.go(Event::Return, TRAMPOLINE, 0xf008);
    machine.go(Event::SignalReturn, 0x200, 0xfff8);
    assert_eq!(machine.chain(), [-0x200, 0x105]);
    assert_eq!(machine.shadow.seen().signal_returns, 2);
}

#[test]
fn longjmp_out_of_a_handler_on_the_alternate_stack() {
    let mut machine = Machine::new(8);
    machine.call(0x200);
    machine.plain(0xff00);
    machine.call(0x300);
    let interrupted = machine.shadow.entry(1).expect("the call at 0x201");
    machine.signal(0x30f00);
    machine.call(0x400);
    assert_eq!(machine.plain(0xff00), Settled::Limbo);
    assert_eq!(machine.go(Event::Jump, 0x280, 0xff00), Settled::Moved);
    assert_eq!(machine.chain(), [-0x280, 0x105]);
    assert!(!machine.shadow.is_alive(interrupted));
}

#[test]
fn a_handler_changes_what_it_returns_to() {
    let mut machine = Machine::new(8);
    machine.signal(0xf000);
    machine.shadow.refresh_signals(|sp| (sp == 0xf008).then_some((Place { pc: 0x123, sp: 0x10000 }, 9)));
    assert_eq!(machine.chain(), [-0x5000, 0x7000, -0x123]);
}

#[test]
fn a_retpoline_is_no_call() {
    let mut machine = Machine::new(8);
    machine.call(0x200);
    // call 2f; 2: mov %rax,(%rsp); ret
    machine.call(0x210);
    assert_eq!(machine.go(Event::Return, 0x400, 0xfff8), Settled::NoCall);
    assert_eq!(machine.chain(), [-0x400, 0x105]);
    assert_eq!(machine.shadow.seen().odd_returns, 1);
}

#[test]
fn suppositions_are_confirmed_by_returns() {
    let mut machine = Machine::new(8);
    machine.at = Place { pc: 0x300, sp: 0xfef8 };
    machine.shadow.suppose([(Pc::Return(0x206), 0xff00), (Pc::Return(0x105), 0x10000)].into_iter());
    assert_eq!(machine.chain(), [-0x300, 0x206, 0x105]);
    machine.call(0x400);
    machine.go(Event::Return, 0x305, 0xfef8);
    machine.go(Event::Return, 0x206, 0xff00);
    let seen = machine.shadow.seen();
    assert_eq!((seen.supposed, seen.confirmed, seen.returns), (2, 1, 2));
}
