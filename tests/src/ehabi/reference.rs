//! A slow, obvious decoder: the specification's table of instructions, row by row, as bits.
//!
//! EHABI32, "Frame unwinding instructions", table 4 and its remarks. Each row is the specification's
//! own pattern; a byte is compared with it bit by bit, and letters name fields. Instructions are
//! carried out one at a time on a register file, and every word is read where it is popped.

use std::collections::BTreeMap;

/// What keeps a frame from being unwound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The table refuses.
    Refused,
    /// A spare or reserved code (remarks e and f).
    Spare,
    /// The instructions end in the middle of one.
    Truncated,
    /// A move by more than the address space.
    TooLarge,
    /// The stack pointer would be outside the address space, or rests on a word that cannot be read.
    Nowhere,
    /// It rests on a register that is not known.
    Unknown(u8),
}

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Move(i64),
    Pop(u16),
    Set(u8),
    Nothing,
    Finish,
    Refuse,
}

/// The fields of a row, by their letters.
type Fields = BTreeMap<char, u32>;

/// A row: the pattern, and what it means. `None`: spare or reserved.
type Row = (&'static str, fn(&Fields) -> Option<Op>);

/// From the most special to the most general: the first row that fits counts.
const TABLE: &[Row] = &[
    ("00xxxxxx", |f| Some(Op::Move(i64::from(f[&'x'] << 2) + 4))),
    ("01xxxxxx", |f| Some(Op::Move(-i64::from(f[&'x'] << 2) - 4))),
    ("10000000 00000000", |_| Some(Op::Refuse)),
    ("1000iiii iiiiiiii", |f| pop(f[&'i'] << 4)),
    ("10011101", |_| None),
    ("10011111", |_| None),
    ("1001nnnn", |f| Some(Op::Set(u8::try_from(f[&'n']).unwrap()))),
    ("10100nnn", |f| pop(registers(4, f[&'n']))),
    ("10101nnn", |f| pop(registers(4, f[&'n']) | 1 << 14)),
    ("10110000", |_| Some(Op::Finish)),
    ("10110001 00000000", |_| None),
    ("10110001 0000iiii", |f| pop(f[&'i'])),
    ("10110001 xxxxyyyy", |_| None),
    // 10110010 uleb128: read by the caller, who knows where the number ends.
    ("10110011 sssscccc", |f| doubles(f, 16, 4)),
    ("10110100", |_| Some(Op::Move(4))),
    ("10110101", |_| Some(Op::Nothing)),
    ("1011011n", |_| None),
    ("10111nnn", |f| Some(Op::Move(8 * (i64::from(f[&'n']) + 1) + 4))),
    ("11000110 sssscccc", |f| doubles(f, 16, 0)),
    ("11000111 00000000", |_| None),
    ("11000111 0000iiii", |f| Some(Op::Move(4 * i64::from(f[&'i'].count_ones())))),
    ("11000111 xxxxyyyy", |_| None),
    ("11000nnn", |f| Some(Op::Move(8 * (i64::from(f[&'n']) + 1)))),
    ("11001000 sssscccc", |f| doubles(f, 16, 0)),
    ("11001001 sssscccc", |f| doubles(f, 32, 0)),
    ("11001yyy", |_| None),
    ("11010nnn", |f| Some(Op::Move(8 * (i64::from(f[&'n']) + 1)))),
    ("11xxxyyy", |_| None),
];

fn pop(mask: u32) -> Option<Op> {
    Some(Op::Pop(u16::try_from(mask).unwrap()))
}

/// Registers `from` to `from + more`.
fn registers(from: u32, more: u32) -> u32 {
    (from..=from + more).map(|number| 1 << number).sum()
}

/// ssss to ssss + cccc, of so many registers that exist, 8 bytes each, and some bytes more.
fn doubles(fields: &Fields, exist: u32, extra: i64) -> Option<Op> {
    let (start, more) = (fields[&'s'], fields[&'c']);
    (start + more < exist).then(|| Op::Move(8 * (i64::from(more) + 1) + extra))
}

/// Whether bits fit a pattern, and its fields. `None` for the fields where the bytes end too early.
fn fit(pattern: &str, bytes: &[u8]) -> Option<Option<(Fields, usize)>> {
    let mut fields = Fields::new();
    let patterns: Vec<&str> = pattern.split(' ').collect();
    for (position, pattern) in patterns.iter().enumerate() {
        let Some(byte) = bytes.get(position) else { return Some(None) };
        let bits = format!("{byte:08b}");
        for (wanted, bit) in pattern.chars().zip(bits.chars()) {
            match wanted {
                '0' | '1' if wanted != bit => return None,
                '0' | '1' => {}
                letter => {
                    let field = fields.entry(letter).or_default();
                    *field = *field * 2 + bit.to_digit(2).unwrap();
                }
            }
        }
    }
    Some(Some((fields, patterns.len())))
}

/// Takes the bytes apart. An implicit finish follows them.
pub fn parse(bytes: &[u8]) -> Result<Vec<Op>, Stop> {
    let mut ops = Vec::new();
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        if *first == 0b1011_0010 {
            let (bytes, len) = uleb128(&rest[1..])?;
            ops.push(Op::Move(bytes));
            rest = &rest[1 + len..];
            continue;
        }
        let row = TABLE.iter().find_map(|(pattern, meaning)| Some((fit(pattern, rest)?, meaning)));
        let (fitted, meaning) = row.expect("the table has a row for every byte");
        let (fields, len) = fitted.ok_or(Stop::Truncated)?;
        let op = meaning(&fields).ok_or(Stop::Spare)?;
        if op == Op::Finish {
            break;
        }
        ops.push(op);
        // Whatever follows, nothing is unwound.
        if op == Op::Refuse {
            break;
        }
        rest = &rest[len..];
    }
    Ok(ops)
}

/// `vsp = vsp + 0x204 + (uleb128 << 2)`: the sum, and how many bytes the number has.
fn uleb128(bytes: &[u8]) -> Result<(i64, usize), Stop> {
    let len = bytes.iter().position(|byte| byte & 0x80 == 0).ok_or(Stop::Truncated)? + 1;
    let mut number = 0u128;
    for (position, byte) in bytes[..len].iter().enumerate() {
        let bits = u128::from(byte & 0x7f);
        // What is longer than any number that fits, and not just zeros.
        if position > 16 && bits != 0 {
            return Err(Stop::TooLarge);
        }
        if position <= 16 {
            number += bits << (7 * position);
        }
    }
    let sum = number * 4 + 0x204;
    if sum < 1 << 32 { Ok((i64::try_from(sum).unwrap(), len)) } else { Err(Stop::TooLarge) }
}

/// Core registers: the value, or that it cannot be had.
pub type Registers = [Option<u32>; 16];

/// Carries instructions out, on the registers of the frame. `read` reads a word of the stack. What
/// comes back are the caller's registers by the words of the table, r13 being the stack pointer
/// and r15 the return address, and which ones were popped.
pub fn execute(
    ops: &[Op],
    frame: &Registers,
    read: &mut dyn FnMut(u32) -> Option<u32>,
) -> Result<(Registers, u16), Stop> {
    let mut registers = *frame;
    let mut popped = 0u16;
    // The stack pointer may be outside the address space for a while.
    let mut vsp = registers[13].map(i64::from).ok_or(Stop::Unknown(13));
    for op in ops {
        match *op {
            Op::Move(bytes) => vsp = vsp.map(|vsp| vsp + bytes),
            Op::Nothing => {}
            Op::Finish => break,
            Op::Refuse => return Err(Stop::Refused),
            Op::Set(number) => {
                let value = registers[usize::from(number)];
                vsp = match value {
                    Some(value) => Ok(value.into()),
                    None if popped & 1 << number != 0 => return Err(Stop::Nowhere),
                    None => Err(Stop::Unknown(number)),
                };
            }
            Op::Pop(mask) => {
                for number in 0..16u8 {
                    if mask & 1 << number == 0 {
                        continue;
                    }
                    let address = vsp.ok().and_then(|vsp| u32::try_from(vsp).ok());
                    registers[usize::from(number)] = address.and_then(&mut *read);
                    popped |= 1 << number;
                    vsp = vsp.map(|vsp| vsp + 4);
                }
                // Popping r13 is written back after the whole instruction.
                if mask & 1 << 13 != 0 {
                    vsp = match (vsp, registers[13]) {
                        (_, Some(value)) => Ok(value.into()),
                        (Err(unknown), None) => return Err(unknown),
                        (Ok(_), None) => return Err(Stop::Nowhere),
                    };
                }
            }
        }
    }
    // Finish: r14 to r15, where r15 has not been popped.
    if popped & 1 << 15 == 0 {
        registers[15] = registers[14];
    }
    registers[13] = Some(u32::try_from(vsp?).map_err(|_| Stop::Nowhere)?);
    Ok((registers, popped))
}
