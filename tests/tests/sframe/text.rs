//! Reads what `objdump --sframe` prints. Knows nothing of the library.

/// The text of one section.
#[derive(Debug)]
pub struct Text {
    /// As ELF tools call it: `elf64-x86-64`.
    pub format: String,
    /// From `  Header :` on.
    pub body: String,
    pub version: u8,
    pub flags: Vec<String>,
    pub fixed_fp: i32,
    pub fixed_ra: i32,
    pub fde_count: u32,
    pub fre_count: u32,
    pub functions: Vec<Function>,
}

#[derive(Debug)]
pub struct Function {
    pub pc: u64,
    pub size: u32,
    /// `S`
    pub is_signal: bool,
    /// `F`
    pub is_flexible: bool,
    pub has_key_b: bool,
    /// `[m]`
    pub is_mask: bool,
    pub rows: Vec<Row>,
}

#[derive(Debug)]
pub struct Row {
    /// An address, or an offset in the block.
    pub pc: u64,
    /// `None`: `RA undefined`.
    pub columns: Option<Columns>,
}

#[derive(Debug)]
pub struct Columns {
    pub cfa: Cell,
    pub fp: Cell,
    pub ra: Cell,
    /// `[s]`
    pub is_signed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// `u`
    Unchanged,
    /// `f`
    Fixed,
    /// `U`
    Padding,
    /// `sp+8`, `c-16`, `r2+0`, `r16`; in parentheses the word there.
    Sum { base: String, offset: i64, deref: bool },
}

impl Text {
    pub fn parse(text: &str) -> Text {
        let format = text.split_once("file format ").unwrap().1.lines().next().unwrap().to_owned();
        let body = text.split_once("Contents of the SFrame section .sframe:\n").unwrap().1.to_owned();
        let (header, functions) = body.split_once("\n  Function Index :\n").unwrap();
        let field = |name: &str| {
            let line = header.lines().find(|line| line.trim_start().starts_with(name))?;
            Some(line.trim_start()[name.len()..].trim().to_owned())
        };
        let flags = header.split_once("Flags: ").unwrap().1;
        let mut names = Vec::new();
        for line in flags.lines() {
            names.push(line.trim().trim_end_matches(',').to_owned());
            if !line.ends_with(',') {
                break;
            }
        }
        let mut parsed = Text {
            format,
            version: field("Version: SFRAME_VERSION_").unwrap().parse().unwrap(),
            flags: names.into_iter().filter(|name| name != "NONE").collect(),
            fixed_fp: field("CFA fixed FP offset:").map_or(0, |offset| offset.parse().unwrap()),
            fixed_ra: field("CFA fixed RA offset:").map_or(0, |offset| offset.parse().unwrap()),
            fde_count: field("Num FDEs:").unwrap().parse().unwrap(),
            fre_count: field("Num FREs:").unwrap().parse().unwrap(),
            functions: Vec::new(),
            body: body.clone(),
        };
        for line in functions.lines().filter(|line| !line.is_empty()) {
            let line = line.strip_prefix("    ").unwrap();
            if let Some(rest) = line.strip_prefix("func idx [") {
                let (index, rest) = rest.split_once("]: pc = 0x").unwrap();
                assert_eq!(index, parsed.functions.len().to_string());
                let (pc, rest) = rest.split_once(", size = ").unwrap();
                let (size, rest) = rest.split_once(" bytes").unwrap();
                parsed.functions.push(Function {
                    pc: u64::from_str_radix(pc, 16).unwrap(),
                    size: size.parse().unwrap(),
                    is_signal: rest.contains("attr = \"S"),
                    is_flexible: rest.contains("F\""),
                    has_key_b: rest.contains("pauth = B key"),
                    is_mask: false,
                    rows: Vec::new(),
                });
            } else if let Some(rest) = line.strip_prefix("STARTPC") {
                parsed.functions.last_mut().unwrap().is_mask = rest.starts_with("[m]");
            } else {
                parsed.functions.last_mut().unwrap().rows.push(Row::parse(line));
            }
        }
        parsed
    }
}

impl Row {
    fn parse(line: &str) -> Row {
        let (pc, mut rest) = line.split_once("  ").unwrap();
        let pc = u64::from_str_radix(pc, 16).unwrap();
        if rest == "RA undefined" {
            return Row { pc, columns: None };
        }
        let cfa = Cell::take(&mut rest);
        let fp = Cell::take(&mut rest);
        let ra = Cell::take(&mut rest);
        let is_signed = rest.starts_with("[s]");
        assert_eq!(rest.trim_start_matches("[s]").trim(), "", "{line}");
        Row { pc, columns: Some(Columns { cfa, fp, ra, is_signed }) }
    }
}

impl Cell {
    /// Takes a cell off the front of `rest`. Cells that are too wide for their column touch the next.
    fn take(rest: &mut &str) -> Cell {
        let text = rest.trim_start();
        let deref = text.starts_with('(');
        let end = match deref {
            true => text.find(')').unwrap() + 1,
            false => text.find([' ', '[']).unwrap_or(text.len()),
        };
        let (cell, after) = text.split_at(end);
        *rest = after;
        match cell {
            "u" => Cell::Unchanged,
            "f" => Cell::Fixed,
            "U" => Cell::Padding,
            _ => {
                let cell = cell.trim_matches(['(', ')']);
                let (base, offset) = cell.split_at(cell.find(['+', '-']).unwrap_or(cell.len()));
                // `sp+-8` in default rows, `sp-8` in flexible ones; `r-1` is a register.
                let (base, offset) = if base == "r" { (cell, "") } else { (base, offset) };
                let offset =
                    offset.strip_prefix("+-").map_or(offset.to_owned(), |digits| format!("-{digits}"));
                let offset = if offset.is_empty() { 0 } else { offset.parse().unwrap() };
                Cell::Sum { base: base.to_owned(), offset, deref }
            }
        }
    }
}
