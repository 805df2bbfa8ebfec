//! A section as text, for people.

use core::fmt;

use super::header::{Abi, FLAG_FRAME_POINTER, FLAG_PCREL, FLAG_SORTED, Header, Version};
use super::row::{StoredRow, Words, is_padding, named_register};
use super::section::{Fde, RowKind, SFrameSection};
use crate::{Register, SourceError};

/// A section as the `objdump --sframe` of its version prints it: 2.40 for version 1, 2.44 and 2.47
/// for version 2, 2.47 for version 3.
///
/// Registers and offsets are printed as they are stored, so that what makes no rule can be seen,
/// too. What objdump refuses or gets wrong is printed instead as what it is: flags that the version
/// does not have, version 1's and 2's frame pointer flag beside others, functions of 2 GiB and
/// more, rows without data words before version 2's errata, and in place of entries and rows that
/// make no sense, the reason.
///
/// Prints as many rows as the functions say they have. In a section that does not
/// [`validate`](SFrameSection::validate), that may be many times its size.
#[derive(Clone, Copy, Debug)]
pub struct Dump<'d> {
    section: SFrameSection<'d>,
}

impl<'d> SFrameSection<'d> {
    /// The section as text.
    ///
    /// ```
    /// # fn print(bytes: &[u8]) -> Result<(), unwind_core::SourceError> {
    /// use unwind_core::sframe::SFrameSections;
    ///
    /// for section in SFrameSections::new(bytes, 0x40_2000) {
    ///     println!("{}", section?.dump());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn dump(&self) -> Dump<'d> {
        Dump { section: *self }
    }
}

impl fmt::Display for Dump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.section.header();
        write_header(f, header)?;
        f.write_str("\n  Function Index :\n")?;
        for (index, fde) in (0..header.fde_count).zip(self.section.fdes()) {
            match fde {
                Ok(fde) => self.write_function(f, &fde)?,
                Err(error) => write!(f, "\n    func idx [{index}]: {error}\n")?,
            }
        }
        Ok(())
    }
}

fn write_header(f: &mut fmt::Formatter<'_>, header: &Header) -> fmt::Result {
    write!(f, "  Header :\n\n    Version: SFRAME_VERSION_{}\n", header.version.number())?;
    f.write_str("    Flags: ")?;
    let names = [
        (FLAG_SORTED, "SFRAME_F_FDE_SORTED"),
        (FLAG_FRAME_POINTER, "SFRAME_F_FRAME_POINTER"),
        (FLAG_PCREL, "SFRAME_F_FDE_FUNC_START_PCREL"),
    ];
    let mut separator = "";
    let mut rest = header.flags;
    for (flag, name) in names {
        if rest & flag != 0 {
            rest &= !flag;
            write!(f, "{separator}{name}")?;
            separator = ",\n           ";
        }
    }
    if rest != 0 {
        write!(f, "{separator}{rest:#x}")?;
    } else if header.flags == 0 {
        f.write_str("NONE")?;
    }
    f.write_str("\n")?;
    if header.version != Version::V1 {
        for (name, offset) in [("FP", header.fixed_fp_offset), ("RA", header.fixed_ra_offset)] {
            if offset != 0 {
                writeln!(f, "    CFA fixed {name} offset: {offset}")?;
            }
        }
    }
    writeln!(f, "    Num FDEs: {}", header.fde_count)?;
    writeln!(f, "    Num FREs: {}", header.fre_count)
}

impl Dump<'_> {
    fn write_function(&self, f: &mut fmt::Formatter<'_>, fde: &Fde) -> fmt::Result {
        write!(f, "\n    func idx [{}]: pc = {:#x}, size = {} bytes", fde.index, fde.start, fde.size)?;
        match (fde.is_signal, fde.row_kind) {
            (true, RowKind::Flexible) => f.write_str(", attr = \"SF\"")?,
            (true, RowKind::Default) => f.write_str(", attr = \"S\"")?,
            (false, RowKind::Flexible) => f.write_str(", attr = \"F\"")?,
            (false, RowKind::Default) => {}
        }
        if fde.key_b && matches!(self.section.abi(), Abi::Aarch64Big | Abi::Aarch64Little) {
            f.write_str(", pauth = B key")?;
        }
        let mark = if fde.block_size.is_some() { "[m]" } else { "   " };
        write!(f, "\n    STARTPC{mark}      CFA       FP        RA           \n")?;
        let mut rows = self.section.rows(fde);
        while let Some(row) = rows.next_stored() {
            match row {
                Ok(row) => self.write_row(f, fde, &row, &rows.words(&row))?,
                Err(error) => writeln!(f, "    {error}")?,
            }
        }
        Ok(())
    }

    fn write_row(
        &self,
        f: &mut fmt::Formatter<'_>,
        fde: &Fde,
        row: &StoredRow<'_>,
        words: &Words<'_>,
    ) -> fmt::Result {
        // Rows of a block have no address: there are many blocks.
        let start = if fde.block_size.is_some() { 0 } else { fde.start };
        write!(f, "    {:016x}  ", start.wrapping_add(u64::from(row.start)))?;
        if words.count == 0 {
            return f.write_str("RA undefined\n");
        }
        let columns = match fde.row_kind {
            RowKind::Default => default_columns(self.section.header(), words, row.is_on_sp()),
            RowKind::Flexible => flexible_columns(self.section.header(), words),
        };
        match columns {
            Ok([cfa, fp, ra]) => {
                let mark = if row.is_mangled() { "[s]" } else { "" };
                padded(f, 10, format_args!("{cfa}"))?;
                padded(f, 10, format_args!("{fp}"))?;
                padded(f, 13, format_args!("{ra}{mark}"))?;
                f.write_str("\n")
            }
            Err(error) => writeln!(f, "{error}"),
        }
    }
}

/// Writes `text` and as many spaces as make it `width` characters.
fn padded(f: &mut fmt::Formatter<'_>, width: usize, text: fmt::Arguments<'_>) -> fmt::Result {
    struct Counted<'f, 'g> {
        f: &'f mut fmt::Formatter<'g>,
        left: usize,
    }
    impl fmt::Write for Counted<'_, '_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.left = self.left.saturating_sub(text.len());
            self.f.write_str(text)
        }
    }
    let mut counted = Counted { f: &mut *f, left: width };
    fmt::Write::write_fmt(&mut counted, text)?;
    for _ in 0..counted.left {
        f.write_str(" ")?;
    }
    Ok(())
}

/// What stands in one column of a row.
#[derive(Clone, Copy)]
enum Column {
    /// Unchanged, or still in its register.
    Unchanged,
    /// Where the header says.
    Fixed,
    /// Left to the default, by a word that pads.
    Padding,
    /// The CFA of a default row. The sign follows a `+` there.
    Sum(&'static str, i64),
    /// A slot, relative to the CFA.
    Slot(i32),
    /// The register that an odd word names; it need not be a number that registers have.
    Named(i32),
    /// `base + offset` of a flexible row, or the word there.
    Place { base: Option<u32>, offset: i64, deref: bool, abi: Abi },
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Column::Unchanged => f.write_str("u"),
            Column::Fixed => f.write_str("f"),
            Column::Padding => f.write_str("U"),
            Column::Sum(base, offset) => write!(f, "{base}+{offset}"),
            Column::Slot(offset) => write!(f, "c{offset:+}"),
            Column::Named(number) => write!(f, "r{number}"),
            // Whether it is the word there is not shown where the base is the CFA.
            Column::Place { base: None, offset, .. } => write!(f, "c{offset:+}"),
            Column::Place { base: Some(number), offset, deref, abi } => {
                let (open, close) = if deref { ("(", ")") } else { ("", "") };
                match u16::try_from(number).map(Register) {
                    Ok(register) if register == abi.sp() => write!(f, "{open}sp{offset:+}{close}"),
                    Ok(register) if register == abi.fp() => write!(f, "{open}fp{offset:+}{close}"),
                    _ => write!(f, "{open}r{number}{offset:+}{close}"),
                }
            }
        }
    }
}

/// CFA, frame pointer and return address of a default row.
fn default_columns(header: &Header, words: &Words<'_>, is_on_sp: bool) -> Result<[Column; 3], SourceError> {
    let is_v1 = header.version == Version::V1;
    let word = words.signed(0).ok_or(words.error())?;
    let cfa = Column::Sum(if is_on_sp { "sp" } else { "fp" }, cfa_offset(header.abi, word));
    let slot = |word| named_register(header, word).map_or(Column::Slot(word), Column::Named);
    let (ra, next) = match (header.fixed_ra_offset, words.signed(1)) {
        (0, None) => (Column::Unchanged, 2),
        (0, Some(word)) if is_padding(header, word) => (Column::Padding, 2),
        (0, Some(word)) => (slot(word), 2),
        _ if is_v1 => (Column::Unchanged, 1),
        _ => (Column::Fixed, 1),
    };
    let fp = match (header.fixed_fp_offset, words.signed(next)) {
        (0, None) => Column::Unchanged,
        (0, Some(word)) => slot(word),
        _ if is_v1 => Column::Unchanged,
        (fixed, _) => Column::Slot(i32::from(fixed)),
    };
    Ok([cfa, fp, ra])
}

/// CFA, frame pointer and return address of a flexible row.
fn flexible_columns(header: &Header, words: &Words<'_>) -> Result<[Column; 3], SourceError> {
    let abi = header.abi;
    let mut next = 0u8;
    let mut place = |of_cfa: bool, absent: Column, padding: Column| -> Result<Column, SourceError> {
        let Some(control) = words.unsigned(next) else {
            return Ok(absent);
        };
        next = next.saturating_add(1);
        if control == 0 {
            return Ok(padding);
        }
        let offset = words.signed(next).ok_or(words.error())?;
        next = next.saturating_add(1);
        let offset = if of_cfa { cfa_offset(abi, offset) } else { i64::from(offset) };
        let base = (control & 1 != 0).then_some(control >> 3);
        Ok(Column::Place { base, offset, deref: control & 2 != 0, abi })
    };
    let cfa = place(true, Column::Padding, Column::Padding)?;
    let absent = if header.fixed_ra_offset == 0 { Column::Unchanged } else { Column::Fixed };
    let ra = place(false, absent, Column::Padding)?;
    let padding = match header.fixed_fp_offset {
        0 => Column::Unchanged,
        fixed => Column::Slot(i32::from(fixed)),
    };
    let fp = place(false, Column::Unchanged, padding)?;
    Ok([cfa, fp, ra])
}

/// The CFA's offset as it is meant: s390x stores it without its bias, in words.
fn cfa_offset(abi: Abi, word: i32) -> i64 {
    match abi {
        Abi::S390x => i64::from(word).saturating_mul(8).saturating_add(160),
        _ => i64::from(word),
    }
}
