//! One execution of one program.

use std::ops::Range;

use unwind_core::Pc;

/// A file that the program had loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedModule {
    /// The name of its [`CapturedModule`](super::CapturedModule).
    pub name: String,
    /// Its load bias: avma minus svma, modulo 2^64.
    pub bias: u64,
}

/// A function that the run came through, for reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its first address (avma).
    pub start: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Its name in the symbol table.
    pub name: String,
}

/// A call that had not returned, or a place that a signal interrupted: a frame of the true chain.
/// The frames beneath it are its parents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The next outer one.
    pub parent: Option<u32>,
    /// Where this frame goes on.
    pub pc: Pc,
    /// Its sp then.
    pub sp: u64,
    /// Its registers, by slot: at a call those that a call preserves, the others 0; where it was
    /// interrupted all of them. `None` where they were not seen: a function that nobody called.
    pub registers: Option<Vec<u64>>,
}

/// The machine before one instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The innermost call that has not returned.
    pub call: Option<u32>,
    /// Set while control is being handed over to another place without a return (`longjmp`, a
    /// context switch, an exception): the chain is on its way from `call` to this one.
    pub under_way: Option<Option<u32>>,
    /// The registers, by slot.
    pub registers: Vec<u64>,
    /// Memory that has changed since the sample before: addresses that are multiples of 8, and the
    /// 8 bytes there.
    pub writes: Vec<(u64, [u8; 8])>,
}

/// One execution of one program. See the module's documentation for the file format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The architecture.
    pub target: String,
    /// The program: its source and how it was built.
    pub program: String,
    /// How the emulator was called.
    pub command: String,
    /// How many instructions were executed in the window.
    pub stepped: u64,
    /// How many of them were left out because the same pc had been met with the same chain and the same
    /// sps before.
    pub repeats: u64,
    /// How many were left out because only every n-th was wanted.
    pub thinned: u64,
    /// How many sequences from a load-exclusive to its store-exclusive were executed at once, because
    /// stopping inside would change what they do. Only their first instruction can be a sample.
    pub at_once: u64,
    /// The DWARF number of each register slot.
    pub slots: Vec<u16>,
    /// The DWARF numbers of the registers that a call preserves.
    pub preserved: Vec<u16>,
    /// What was loaded.
    pub modules: Vec<LoadedModule>,
    /// The memory that sp has been in, each from the lowest address it has reached.
    pub stacks: Vec<Range<u64>>,
    /// Pieces of code around the pcs of samples and calls, sorted by address.
    pub code: Vec<(u64, Vec<u8>)>,
    /// The functions of these pcs, sorted by address.
    pub functions: Vec<Function>,
    /// The frames of all chains; parents before children.
    pub calls: Vec<Call>,
    /// The samples, in the order of execution.
    pub samples: Vec<Sample>,
}

/// The slot number of a register that has no DWARF number.
pub const NO_NUMBER: u16 = u16::MAX;

/// The slot number of pc where the ABI gives it no DWARF number.
pub const PC_ALONE: u16 = u16::MAX - 1;

impl Run {
    /// The function at `address` (avma).
    pub fn function(&self, address: u64) -> Option<&Function> {
        let after = self.functions.partition_point(|function| function.start <= address);
        let function = self.functions.get(after.checked_sub(1)?)?;
        (address - function.start < function.size).then_some(function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        let call = |parent, pc, sp, registers| Call { parent, pc, sp, registers };
        Run {
            target: "aarch64".into(),
            program: "example".into(),
            command: "none".into(),
            stepped: 10,
            repeats: 7,
            thinned: 1,
            at_once: 0,
            slots: vec![0, 29, 31, 32, NO_NUMBER],
            preserved: vec![29],
            modules: vec![LoadedModule { name: "example".into(), bias: 0x55_0000_0000 }],
            stacks: vec![0x7000..0x8000, 0xffff_0000..0xffff_8000],
            code: vec![(0x1000, vec![1, 2, 3, 4]), (0x2000, vec![5])],
            functions: vec![Function { start: 0x1000, size: 16, name: "main".into() }],
            calls: vec![
                call(None, Pc::Return(0x1004), 0x7ff0, Some(vec![0, 5, 6, 7, 0])),
                call(Some(0), Pc::Exact(0x1008), 0x7fe0, None),
            ],
            samples: vec![
                Sample {
                    call: None,
                    under_way: None,
                    registers: vec![1, 2, 3, 4, 5],
                    writes: vec![(0x7ff8, [1; 8]), (0x7000, [2; 8])],
                },
                Sample {
                    call: Some(1),
                    under_way: Some(Some(0)),
                    registers: vec![1, u64::MAX, 3, 8, 5],
                    writes: vec![],
                },
                Sample {
                    call: Some(0),
                    under_way: Some(None),
                    registers: vec![1, 2, 3, 12, 5],
                    writes: vec![],
                },
            ],
        }
    }

    #[test]
    fn a_run_comes_back() {
        let run = run();
        assert_eq!(Run::from_file(&run.to_file()), Ok(run));
    }

    #[test]
    fn functions_are_found_by_address() {
        let run = run();
        assert_eq!(run.function(0x100f).map(|function| function.name.as_str()), Some("main"));
        assert!(run.function(0xfff).is_none() && run.function(0x1010).is_none());
    }
}
