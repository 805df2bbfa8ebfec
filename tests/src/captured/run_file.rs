//! A run as a file. The format is in the documentation of the module above.

use unwind_core::Pc;

use super::bytes::{FormatError, Reader, Writer, body};
use super::run::{Call, Function, LoadedModule, Run, Sample};

const MAGIC: &[u8; 8] = b"UWCAPRN1";

impl Run {
    /// The file that stands for this run.
    pub fn to_file(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        for name in [&self.target, &self.program, &self.command] {
            writer.name(name);
        }
        for count in [self.stepped, self.repeats, self.thinned, self.at_once] {
            writer.number(count);
        }
        for numbers in [&self.slots, &self.preserved] {
            writer.number(numbers.len() as u64);
            for number in numbers {
                writer.number(u64::from(*number));
            }
        }
        writer.number(self.modules.len() as u64);
        for module in &self.modules {
            writer.name(&module.name);
            writer.number(module.bias);
        }
        writer.number(self.stacks.len() as u64);
        for stack in &self.stacks {
            writer.number(stack.start);
            writer.number(stack.end - stack.start);
        }
        self.write_code(&mut writer);
        self.write_calls(&mut writer);
        self.write_samples(&mut writer);
        writer.file(MAGIC)
    }

    /// The run that `file` stands for.
    ///
    /// # Errors
    /// Where it is none.
    pub fn from_file(file: &[u8]) -> Result<Self, FormatError> {
        let body = body(MAGIC, file)?;
        let mut reader = Reader { bytes: &body };
        let target = reader.name()?;
        let program = reader.name()?;
        let command = reader.name()?;
        let stepped = reader.number()?;
        let repeats = reader.number()?;
        let thinned = reader.number()?;
        let at_once = reader.number()?;
        let slots = read_numbers(&mut reader)?;
        let preserved = read_numbers(&mut reader)?;
        let modules = (0..reader.count()?)
            .map(|_| Ok(LoadedModule { name: reader.name()?, bias: reader.number()? }))
            .collect::<Result<_, FormatError>>()?;
        let stacks = (0..reader.count()?)
            .map(|_| {
                let start = reader.number()?;
                let end = start.checked_add(reader.number()?);
                end.map(|end| start..end).ok_or(FormatError::Value("stack"))
            })
            .collect::<Result<_, FormatError>>()?;
        let (code, functions) = read_code(&mut reader)?;
        let calls = read_calls(&mut reader, slots.len())?;
        let samples = read_samples(&mut reader, slots.len(), calls.len())?;
        reader.end()?;
        Ok(Run {
            target,
            program,
            command,
            stepped,
            repeats,
            thinned,
            at_once,
            slots,
            preserved,
            modules,
            stacks,
            code,
            functions,
            calls,
            samples,
        })
    }

    fn write_code(&self, writer: &mut Writer) {
        writer.number(self.code.len() as u64);
        let mut end = 0;
        for (address, bytes) in &self.code {
            writer.difference(end, *address);
            writer.blob(bytes);
            end = address + bytes.len() as u64;
        }
        writer.number(self.functions.len() as u64);
        let mut start = 0;
        for function in &self.functions {
            writer.difference(start, function.start);
            writer.number(function.size);
            writer.name(&function.name);
            start = function.start;
        }
    }

    fn write_calls(&self, writer: &mut Writer) {
        writer.number(self.calls.len() as u64);
        let mut before = Before::new(self.slots.len());
        for call in &self.calls {
            writer.number(link(call.parent));
            let known = if call.registers.is_some() { 2 } else { 0 };
            writer.number(u64::from(call.pc.is_exact()) | known);
            writer.difference(before.pc, call.pc.address());
            writer.difference(before.sp, call.sp);
            before.pc = call.pc.address();
            before.sp = call.sp;
            if let Some(registers) = &call.registers {
                let (set, words) = before.changes(registers);
                writer.number(set);
                words.into_iter().for_each(|word| writer.word(word));
            }
        }
    }

    fn write_samples(&self, writer: &mut Writer) {
        let (mut heads, mut words) = (Writer::default(), Writer::default());
        let (mut addresses, mut written) = (Writer::default(), Writer::default());
        let mut before = Before::new(self.slots.len());
        let mut address = 0;
        for sample in &self.samples {
            heads.number(link(sample.call));
            heads.number(sample.under_way.map_or(0, |towards| towards.map_or(1, |call| u64::from(call) + 2)));
            let (set, changed) = before.changes(&sample.registers);
            heads.number(set);
            changed.into_iter().for_each(|word| words.word(word));
            heads.number(sample.writes.len() as u64);
            for (at, bytes) in &sample.writes {
                addresses.difference(address / 8, at / 8);
                written.word(u64::from_le_bytes(*bytes));
                address = *at;
            }
        }
        writer.number(self.samples.len() as u64);
        for column in [heads, words, addresses, written] {
            writer.blob(&column.bytes);
        }
    }
}

/// What records are differences from.
struct Before {
    pc: u64,
    sp: u64,
    registers: Vec<u64>,
}

impl Before {
    fn new(slots: usize) -> Self {
        Before { pc: 0, sp: 0, registers: vec![0; slots] }
    }

    /// The set of slots that differ from before, and their values.
    fn changes(&mut self, registers: &[u64]) -> (u64, Vec<u64>) {
        let mut set = 0;
        let mut words = Vec::new();
        for (slot, (old, new)) in self.registers.iter_mut().zip(registers).enumerate() {
            if old != new {
                set |= 1 << slot;
                words.push(*new);
                *old = *new;
            }
        }
        (set, words)
    }

    /// Applies such changes.
    fn change(&mut self, set: u64, words: &mut Reader<'_>) -> Result<Vec<u64>, FormatError> {
        if set.checked_shr(self.registers.len() as u32).unwrap_or(0) != 0 {
            return Err(FormatError::Value("register set"));
        }
        for (slot, register) in self.registers.iter_mut().enumerate() {
            if set >> slot & 1 != 0 {
                *register = words.word()?;
            }
        }
        Ok(self.registers.clone())
    }
}

fn link(call: Option<u32>) -> u64 {
    call.map_or(0, |call| u64::from(call) + 1)
}

fn read_link(number: u64, calls: usize) -> Result<Option<u32>, FormatError> {
    match number.checked_sub(1) {
        None => Ok(None),
        Some(call) if call < calls as u64 => Ok(Some(call as u32)),
        Some(_) => Err(FormatError::Value("call")),
    }
}

fn read_numbers(reader: &mut Reader<'_>) -> Result<Vec<u16>, FormatError> {
    let count = reader.count()?;
    if count > 64 {
        return Err(FormatError::Value("register slots"));
    }
    (0..count).map(|_| u16::try_from(reader.number()?).map_err(|_| FormatError::Value("register"))).collect()
}

type CodeAndFunctions = (Vec<(u64, Vec<u8>)>, Vec<Function>);

fn read_code(reader: &mut Reader<'_>) -> Result<CodeAndFunctions, FormatError> {
    let mut code = Vec::new();
    let mut end = 0;
    for _ in 0..reader.count()? {
        let address = reader.difference(end)?;
        let bytes = reader.blob()?.to_vec();
        end = address.wrapping_add(bytes.len() as u64);
        code.push((address, bytes));
    }
    let mut functions = Vec::new();
    let mut start = 0;
    for _ in 0..reader.count()? {
        start = reader.difference(start)?;
        functions.push(Function { start, size: reader.number()?, name: reader.name()? });
    }
    Ok((code, functions))
}

fn read_calls(reader: &mut Reader<'_>, slots: usize) -> Result<Vec<Call>, FormatError> {
    let mut calls = Vec::new();
    let mut before = Before::new(slots);
    for index in 0..reader.count()? {
        let parent = read_link(reader.number()?, index)?;
        let flags = reader.number()?;
        before.pc = reader.difference(before.pc)?;
        before.sp = reader.difference(before.sp)?;
        let registers = match flags & 2 {
            0 => None,
            _ => Some({
                let set = reader.number()?;
                before.change(set, reader)?
            }),
        };
        let pc = if flags & 1 == 0 { Pc::Return(before.pc) } else { Pc::Exact(before.pc) };
        calls.push(Call { parent, pc, sp: before.sp, registers });
    }
    Ok(calls)
}

fn read_samples(reader: &mut Reader<'_>, slots: usize, calls: usize) -> Result<Vec<Sample>, FormatError> {
    let count = reader.count()?;
    let mut heads = Reader { bytes: reader.blob()? };
    let mut words = Reader { bytes: reader.blob()? };
    let mut addresses = Reader { bytes: reader.blob()? };
    let mut written = Reader { bytes: reader.blob()? };
    let mut samples = Vec::new();
    let mut before = Before::new(slots);
    let mut address = 0u64;
    for _ in 0..count {
        let call = read_link(heads.number()?, calls)?;
        let under_way = match heads.number()?.checked_sub(1) {
            None => None,
            Some(towards) => Some(read_link(towards, calls)?),
        };
        let set = heads.number()?;
        let registers = before.change(set, &mut words)?;
        let writes = (0..heads.number()?)
            .map(|_| {
                address = addresses.difference(address / 8)?.wrapping_mul(8);
                Ok((address, written.word()?.to_le_bytes()))
            })
            .collect::<Result<_, FormatError>>()?;
        samples.push(Sample { call, under_way, registers, writes });
    }
    for column in [heads, words, addresses, written] {
        column.end()?;
    }
    Ok(samples)
}
