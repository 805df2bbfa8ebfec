//! What call frame information says, read by gimli: a second opinion that shares no code with
//! the library's row machine. With it a wrong table can be told from a wrong walk.

use std::cell::RefCell;
use std::ops::Range;

use gimli::{
    BaseAddresses, CfaRule, DebugFrame, EhFrame, Encoding, EndianSlice, EvaluationResult, Location, Piece,
    Register, RegisterRule, RunTimeEndian, UnwindContext, UnwindExpression, UnwindSection, Value,
};
use unwind_core::dwarf::{DwarfSections, Section};

type Reader = EndianSlice<'static, RunTimeEndian>;

/// Values of registers by DWARF number, each known or unknown.
pub type Values = Vec<Option<u64>>;

/// What a table says about a frame's caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// There is none: the return address is undefined.
    Outermost,
    /// Its registers, sp among them.
    Registers {
        /// The values.
        values: Values,
        /// The return address.
        return_address: u64,
        /// Where memory had to be read for some of them, and could not.
        unreadable: Vec<u64>,
        /// Whether this is a signal frame, so that the return address is exact.
        is_signal: bool,
    },
}

/// The state of the frame at hand.
pub struct Frame<'f> {
    /// The address to look up (svma).
    pub svma: u64,
    /// The registers.
    pub values: &'f Values,
    /// Which of them is sp.
    pub sp: u16,
    /// Which of them the ABI preserves.
    pub preserved: &'f dyn Fn(u16) -> bool,
    /// Reads a word of memory (avma).
    pub read: &'f dyn Fn(u64) -> Option<u64>,
}

fn eh_frame(sections: &DwarfSections<'static>) -> Option<(EhFrame<Reader>, BaseAddresses)> {
    let Section { data, svma } = sections.eh_frame?;
    let mut bases = BaseAddresses::default().set_eh_frame(svma);
    if let Some(text) = sections.text_svma {
        bases = bases.set_text(text);
    }
    if let Some(got) = sections.got_svma {
        bases = bases.set_got(got);
    }
    Some((EhFrame::new(data, byte_order(data)), bases))
}

/// The byte order of `.eh_frame`: its first word is the length of an entry, and leads out of the section in the wrong order.
fn byte_order(section: &[u8]) -> RunTimeEndian {
    let length = section.first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
    if u64::from(length) <= section.len() as u64 { RunTimeEndian::Little } else { RunTimeEndian::Big }
}

/// `.debug_frame` of a 32-bit program.
fn debug_frame(sections: &DwarfSections<'static>) -> Option<DebugFrame<Reader>> {
    let Section { data, .. } = sections.debug_frame?;
    let mut section = DebugFrame::new(data, byte_order(data));
    section.set_address_size(4);
    Some(section)
}

/// The addresses (svma) that the FDEs of `.eh_frame` cover, and those of a 32-bit program's `.debug_frame`, sorted; empty
/// FDEs left out.
pub fn covered(sections: &DwarfSections<'static>) -> Vec<Range<u64>> {
    let mut covered = Vec::new();
    if let Some((section, bases)) = eh_frame(sections) {
        add_covered(&section, &bases, &mut covered);
    }
    if let Some(section) = debug_frame(sections) {
        add_covered(&section, &BaseAddresses::default(), &mut covered);
    }
    covered.sort_by_key(|range| range.start);
    covered
}

fn add_covered<S: UnwindSection<Reader>>(section: &S, bases: &BaseAddresses, covered: &mut Vec<Range<u64>>) {
    let mut entries = section.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        if let gimli::CieOrFde::Fde(partial) = entry
            && let Ok(fde) = partial.parse(S::cie_from_offset)
            && fde.len() != 0
        {
            covered.push(fde.initial_address()..fde.initial_address() + fde.len());
        }
    }
}

/// The row for `svma`, for people: the CFA, then every register that has a rule. `c` is the CFA, `*` stands
/// before what is a place in memory; expressions are their bytes.
pub fn row(sections: &DwarfSections<'static>, svma: u64) -> Option<String> {
    if let Some((section, bases)) = eh_frame(sections)
        && let Some(row) = row_in(&section, &bases, svma)
    {
        return Some(row);
    }
    row_in(&debug_frame(sections)?, &BaseAddresses::default(), svma)
}

fn row_in<S: UnwindSection<Reader>>(section: &S, bases: &BaseAddresses, svma: u64) -> Option<String> {
    let fde = section.fde_for_address(bases, svma, S::cie_from_offset).ok()?;
    let mut context = UnwindContext::new();
    let row = fde.unwind_info_for_address(section, bases, &mut context, svma).ok()?;
    let bytes = |expression: &UnwindExpression<usize>| {
        let expression = expression.get(section).map(|expression| expression.0.slice().to_vec());
        format!("{:02x?}", expression.unwrap_or_default())
    };
    let mut text = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => format!("c=r{}{offset:+}", register.0),
        CfaRule::Expression(expression) => format!("c={}", bytes(expression)),
    };
    let mut rules: Vec<_> = row.registers().collect();
    rules.sort_by_key(|(register, _)| register.0);
    for (register, rule) in rules {
        let rule = match rule {
            RegisterRule::Undefined => "undefined".to_owned(),
            RegisterRule::SameValue => "same".to_owned(),
            RegisterRule::Offset(offset) => format!("*c{offset:+}"),
            RegisterRule::ValOffset(offset) => format!("c{offset:+}"),
            RegisterRule::Register(other) => format!("r{}", other.0),
            RegisterRule::Expression(expression) => format!("*{}", bytes(expression)),
            RegisterRule::ValExpression(expression) => bytes(expression),
            rule => format!("{rule:?}"),
        };
        text += &format!(" r{}={rule}", register.0);
    }
    Some(text)
}

/// The caller of `frame`, as the table says: `Ok(None)` where it does not cover the frame.
pub fn caller(sections: &DwarfSections<'static>, frame: &Frame<'_>) -> Result<Option<Caller>, String> {
    let Some((section, bases)) = eh_frame(sections) else {
        return Ok(None);
    };
    let fde = match section.fde_for_address(&bases, frame.svma, EhFrame::cie_from_offset) {
        Ok(fde) => fde,
        Err(gimli::Error::NoUnwindInfoForAddress) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let mut context = UnwindContext::new();
    let row = fde
        .unwind_info_for_address(&section, &bases, &mut context, frame.svma)
        .map_err(|error| error.to_string())?;
    let evaluate = |expression: UnwindExpression<usize>, cfa: Option<u64>| {
        let expression = expression.get(&section).map_err(|error| error.to_string())?;
        evaluate(expression, fde.cie().encoding(), frame, cfa)
    };
    let known = |register: Register| {
        let value = frame.values.get(usize::from(register.0)).copied().flatten();
        value.ok_or_else(|| format!("register {} is not known", register.0))
    };
    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => known(*register)?.wrapping_add_signed(*offset),
        CfaRule::Expression(expression) => evaluate(*expression, None)?,
    };
    let unreadable = RefCell::new(Vec::new());
    let read = |address| {
        (frame.read)(address).ok_or_else(|| {
            unreadable.borrow_mut().push(address);
            format!("{address:#x} is unreadable")
        })
    };
    let recover = |number: u16| -> Result<Option<u64>, String> {
        let register = Register(number);
        let Some(rule) = row.register(register) else {
            // What the table does not mention is the ABI's business.
            return Ok(match number {
                number if number == frame.sp => Some(cfa),
                number if (frame.preserved)(number) => known(register).ok(),
                _ => None,
            });
        };
        Ok(Some(match rule {
            RegisterRule::Undefined => return Ok(None),
            RegisterRule::SameValue => return Ok(known(register).ok()),
            RegisterRule::Offset(offset) => read(cfa.wrapping_add_signed(offset))?,
            RegisterRule::ValOffset(offset) => cfa.wrapping_add_signed(offset),
            RegisterRule::Register(other) => known(other)?,
            RegisterRule::Expression(expression) => read(evaluate(expression, Some(cfa))?)?,
            RegisterRule::ValExpression(expression) => evaluate(expression, Some(cfa))?,
            rule => return Err(format!("unknown rule {rule:?}")),
        }))
    };
    let Some(return_address) = recover(fde.cie().return_address_register().0)? else {
        return Ok(Some(Caller::Outermost));
    };
    let count = u16::try_from(frame.values.len()).map_err(|error| error.to_string())?;
    let values = (0..count).map(|number| recover(number).ok().flatten()).collect();
    let is_signal = fde.is_signal_trampoline();
    let unreadable = unreadable.take();
    Ok(Some(Caller::Registers { values, return_address, unreadable, is_signal }))
}

fn evaluate(
    expression: gimli::Expression<Reader>,
    encoding: Encoding,
    frame: &Frame<'_>,
    cfa: Option<u64>,
) -> Result<u64, String> {
    let mut evaluation = expression.evaluation(encoding);
    if let Some(cfa) = cfa {
        evaluation.set_initial_value(cfa);
    }
    let mut result = evaluation.evaluate();
    loop {
        result = match result.map_err(|error| error.to_string())? {
            EvaluationResult::Complete => break,
            EvaluationResult::RequiresRegister { register, .. } => {
                let value = frame.values.get(usize::from(register.0)).copied().flatten();
                let value = value.ok_or_else(|| format!("register {} is not known", register.0))?;
                evaluation.resume_with_register(Value::Generic(value))
            }
            EvaluationResult::RequiresMemory { address, size: 8, .. } => {
                let value = (frame.read)(address).ok_or_else(|| format!("{address:#x} is unreadable"))?;
                evaluation.resume_with_memory(Value::Generic(value))
            }
            other => return Err(format!("an expression asks for {other:?}")),
        };
    }
    match evaluation.result().as_slice() {
        [Piece { location: Location::Address { address }, .. }] => Ok(*address),
        [Piece { location: Location::Value { value: Value::Generic(value) }, .. }] => Ok(*value),
        other => Err(format!("an expression gives {other:?}")),
    }
}
