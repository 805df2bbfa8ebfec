//! The true chains of a run, as a tree: chains share their outer frames.

use std::collections::HashMap;
use std::rc::Rc;

use unwind_core::Pc;

use super::target::Target;
use crate::captured::Call;
use crate::oracle::truth::TrueFrame;

/// The registers at a call, by slot.
pub(super) type Registers = Rc<[u64]>;

struct Node {
    parent: Option<u32>,
    pc: Pc,
    sp: u64,
    registers: Option<Registers>,
    shape: u32,
}

/// The frames met so far. Equal chains are the same.
#[derive(Default)]
pub(super) struct Chains {
    nodes: Vec<Node>,
    /// The address of the registers tells apart frames whose registers differ; nodes keep them alive.
    ids: HashMap<(Option<u32>, Pc, u64, Option<usize>), u32>,
    shapes: HashMap<(Option<u32>, Pc, u64), u32>,
}

impl Chains {
    /// The innermost call of this chain of callers, innermost first.
    pub(super) fn intern(&mut self, callers: &[TrueFrame<Registers>]) -> Option<u32> {
        callers.iter().rev().fold(None, |parent, frame| Some(self.frame(parent, frame)))
    }

    /// A frame whose callers are `parent`.
    pub(super) fn frame(&mut self, parent: Option<u32>, frame: &TrueFrame<Registers>) -> u32 {
        let at = frame.registers.as_ref().map(|registers| registers.as_ptr() as usize);
        if let Some(id) = self.ids.get(&(parent, frame.pc, frame.sp, at)) {
            return *id;
        }
        let outer = self.shape(parent);
        let next = self.shapes.len() as u32;
        let shape = *self.shapes.entry((outer, frame.pc, frame.sp)).or_insert(next);
        let id = self.nodes.len() as u32;
        let registers = frame.registers.clone();
        self.nodes.push(Node { parent, pc: frame.pc, sp: frame.sp, registers, shape });
        self.ids.insert((parent, frame.pc, frame.sp, at), id);
        id
    }

    /// What a chain has in common with all chains of the same pcs and sps.
    pub(super) fn shape(&self, call: Option<u32>) -> Option<u32> {
        call.map(|call| self.nodes[call as usize].shape)
    }

    /// The frames that `used` chains are made of, and the new number of each frame.
    pub(super) fn finish(
        &self,
        used: impl Iterator<Item = u32>,
        target: &Target,
    ) -> (Vec<Call>, HashMap<u32, u32>) {
        let mut wanted = vec![false; self.nodes.len()];
        for call in used {
            let mut next = Some(call);
            while let Some(call) = next.filter(|call| !wanted[*call as usize]) {
                wanted[call as usize] = true;
                next = self.nodes[call as usize].parent;
            }
        }
        let mut calls = Vec::new();
        let mut numbers = HashMap::new();
        for (id, node) in self.nodes.iter().enumerate().filter(|(id, _)| wanted[*id]) {
            numbers.insert(id as u32, calls.len() as u32);
            let all = node.pc.is_exact();
            let keep = |slot: usize| all || target.preserved.contains(&target.slots[slot].number);
            let registers = node.registers.as_ref().map(|registers| {
                registers
                    .iter()
                    .enumerate()
                    .map(|(slot, value)| if keep(slot) { *value } else { 0 })
                    .collect()
            });
            // Parents come first: a frame is made after its callers.
            let parent = node.parent.map(|parent| numbers[&parent]);
            calls.push(Call { parent, pc: node.pc, sp: node.sp, registers });
        }
        (calls, numbers)
    }
}
