//! The text of `readelf -u`, taken apart.

/// An entry as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where the function begins.
    pub start: u64,
    /// The second word of the index.
    pub listed: Listed,
    /// The number of the personality routine, in the compact model.
    pub model: Option<u8>,
    /// The address of the personality routine, in the generic model. It may have a Thumb bit.
    pub routine: Option<u64>,
    /// The instructions, where they are listed: not for a routine whose name readelf does not know.
    pub opcodes: Vec<Opcode>,
}

/// The second word of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    CannotUnwind,
    Inline(u32),
    /// An address in `.ARM.extab`.
    At(u64),
}

/// An instruction: its bytes, and what they mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opcode {
    pub bytes: Vec<u8>,
    pub text: String,
}

/// Takes the text apart. Whatever is not understood is a panic.
pub fn parse_readelf(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.lines() {
        if line.is_empty() || line.starts_with("Unwind section ") {
        } else if let Some(said) = line.strip_prefix("  Compact model index: ") {
            entries.last_mut().unwrap().model = Some(said.parse().unwrap());
        } else if let Some(said) = line.strip_prefix("  Personality routine: ") {
            let address = said.split(' ').next().unwrap();
            entries.last_mut().unwrap().routine = Some(number(address));
        } else if let Some(said) = line.strip_prefix("  0x") {
            entries.last_mut().unwrap().opcodes.push(opcode(&format!("0x{said}")));
        } else {
            entries.push(entry(line));
        }
    }
    entries
}

/// `0x1e284 <name>: @0x106da8`, with the name or without.
fn entry(line: &str) -> Entry {
    let (start, second) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
    let start = number(start.split(' ').next().unwrap());
    let listed = match second.strip_prefix('@') {
        Some(address) => Listed::At(number(address)),
        None if second == "0x1 [cantunwind]" => Listed::CannotUnwind,
        None => Listed::Inline(u32::try_from(number(second)).unwrap()),
    };
    Entry { start, listed, model: None, routine: None, opcodes: Vec::new() }
}

/// `0x84 0x08 pop {r7, r14}`: bytes, then words.
fn opcode(line: &str) -> Opcode {
    let mut bytes = Vec::new();
    let mut rest = line;
    while let Some((first, after)) = rest.split_once(' ')
        && first.len() == 4
        && first.starts_with("0x")
    {
        bytes.push(u8::try_from(number(first)).unwrap());
        rest = after.trim_start();
    }
    Opcode { bytes, text: rest.to_owned() }
}

fn number(text: &str) -> u64 {
    let digits = text.strip_prefix("0x").unwrap_or_else(|| panic!("no number: {text}"));
    u64::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("no number: {text}"))
}
