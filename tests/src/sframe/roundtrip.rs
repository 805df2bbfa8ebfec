//! Functions and rows, written into a section and read back.

use unwind_core::sframe::{
    Abi, Refused, RowKind, RowStart, SFrameFormat, SFrameSection, SFrameSource, SFrameWriter, Version,
    WriteError, WriteFunction, WriteRow, write_to_vec,
};
use unwind_core::{Base, CfaRule, FpRule, FrameKind, Pc, RaRule, Rule, UnwindUserFrame};

use super::target::lookup;

/// A function to write, and its rows.
#[derive(Clone, Debug)]
pub struct Written {
    pub function: WriteFunction,
    pub rows: Vec<WriteRow>,
}

/// Writes a section into room of every size that matters, and looks everything up in it. Returns
/// what was refused. Panics where the library breaks a promise:
///
/// * room for one byte less than is needed is refused with the right need, more room changes nothing,
///   and a vector has the same contents;
/// * the section passes the full check, and is no larger than it must be;
/// * at the first and the last address of every row there is either the rule that was written, or
///   none and a cause;
/// * around functions, and where nothing was stated, there is nothing.
pub fn round_trip(format: SFrameFormat, functions: &[Written]) -> Vec<Refused> {
    let write = |room: &mut [u8], refused: &mut Vec<Refused>| {
        let mut writer = SFrameWriter::new(format, room);
        for Written { function, rows } in functions {
            writer.function(function, rows.iter().copied(), &mut |what| refused.push(what));
        }
        writer.finish(&mut |what| refused.push(what)).map(<[u8]>::to_vec)
    };
    let mut refused = Vec::new();
    let needed = match write(&mut [], &mut Vec::new()) {
        Err(WriteError::NoRoom { needed }) => needed,
        Err(WriteError::NoSuchAbi) => {
            assert_eq!((format.version, format.abi), (Version::V1, Abi::S390x));
            return refused;
        }
        other => panic!("no room, but {other:?}"),
    };
    assert_eq!(write(&mut vec![0; needed - 1], &mut Vec::new()), Err(WriteError::NoRoom { needed }));
    let section = write(&mut vec![0xaa; needed], &mut refused).expect("room was asked for");
    assert!(section.len() <= needed);
    assert_eq!(write(&mut vec![0xaa; needed + 1000], &mut Vec::new()).as_ref(), Ok(&section));
    let add = |writer: &mut SFrameWriter<'_>, refused: &mut dyn FnMut(Refused)| {
        for Written { function, rows } in functions {
            writer.function(function, rows.iter().copied(), refused);
        }
    };
    assert_eq!(write_to_vec(format, add, &mut |_| {}).as_ref(), Ok(&section));

    let parsed = SFrameSection::parse(&section, format.svma).expect("a section");
    assert_eq!(parsed.validate(), Ok(()));
    assert_eq!(parsed.data().len(), section.len());
    check_size(&parsed);
    let read = Read { format, functions, refused: &refused, section: parsed };
    for written in functions.iter().filter(|written| written.function.size > 0) {
        read.check(written);
    }
    refused
}

/// What was written, and what became of it.
struct Read<'r> {
    format: SFrameFormat,
    functions: &'r [Written],
    refused: &'r [Refused],
    section: SFrameSection<'r>,
}

impl Read<'_> {
    fn check(&self, written: &Written) {
        let function = &written.function;
        let last = function.start.checked_add(u64::from(function.size) - 1);
        if last.is_none() || !written.is_in_order() {
            // Nothing of it can be there.
            assert!(self.causes(function.start) > 0, "{function:x?}");
            if self.covering(function.start).count() == 1 {
                assert_eq!(self.find(function.start), None, "{function:x?}");
            }
            return;
        }
        for (address, row) in written.places() {
            self.check_place(written, address, row);
        }
        for outside in [function.start.checked_sub(1), last.and_then(|last| last.checked_add(1))] {
            if let Some(outside) = outside.filter(|outside| self.covering(*outside).count() == 0) {
                assert_eq!(self.find(outside), None, "{outside:#x}");
            }
        }
    }

    fn check_place(&self, written: &Written, address: u64, row: Option<&WriteRow>) {
        let frame = row.and_then(|row| row.frame);
        let abi = self.format.abi;
        if self.covering(address).count() > 1 {
            // Whichever it is, it was stated.
            if let Some(found) = self.find(address) {
                let rows = self.covering(address).filter_map(|written| written.row_at(address));
                let mut frames = rows.filter_map(|row| row.frame);
                assert!(frames.any(|frame| canonical(abi, &frame) == found), "{address:#x}: {found:?}");
            }
            return;
        }
        match (self.find(address), row, self.causes(address)) {
            (Some(found), Some(row), 0) => {
                let frame = row.frame.expect("what is found was stated");
                assert_eq!(found, canonical(abi, &frame), "{address:#x}");
                self.check_flags(written, row, &frame, address);
            }
            (None, _, 1) if frame.is_some() => {}
            // Blocks are written as a whole or not at all.
            (None, _, 1) if written.function.block_size.is_some() => {}
            (None, _, 0) if frame.is_none() => {}
            other => panic!("{address:#x}: {other:?}"),
        }
    }

    fn check_flags(&self, written: &Written, row: &WriteRow, frame: &UnwindUserFrame, address: u64) {
        let fde = self.section.find(address, None).expect("valid").expect("covered");
        let read = self.section.row_at(&fde, address).expect("valid").expect("covered");
        let is_aarch64 = matches!(self.format.abi, Abi::Aarch64Little | Abi::Aarch64Big);
        let is_outermost = frame.ra() == RaRule::Undefined;
        assert_eq!(read.is_mangled, row.is_mangled && is_aarch64 && !is_outermost);
        assert_eq!(fde.key_b, written.function.key_b && is_aarch64);
        assert_eq!(fde.block_size, written.function.block_size.map(|block| block.get().into()));
    }

    fn find(&self, address: u64) -> Option<UnwindUserFrame> {
        let source = SFrameSource::new(self.section.data(), self.format.svma);
        let found = lookup(self.format.abi, &source, Pc::Exact(address)).expect("valid")?;
        match found.rule {
            Rule::Frame(frame) => Some(frame),
            Rule::Evaluate => panic!("SFrame has no expressions"),
        }
    }

    fn causes(&self, address: u64) -> usize {
        self.refused.iter().filter(|what| address.wrapping_sub(what.start) < what.size).count()
    }

    fn covering(&self, address: u64) -> impl Iterator<Item = &Written> {
        self.functions.iter().filter(move |written| written.covers(address))
    }
}

impl Written {
    fn covers(&self, address: u64) -> bool {
        address.wrapping_sub(self.function.start) < u64::from(self.function.size)
    }

    /// What the starts of rows must be below.
    fn limit(&self) -> u32 {
        let size = self.function.size;
        self.function.block_size.map_or(size, |block| size.min(block.get().into()))
    }

    fn is_in_order(&self) -> bool {
        self.rows.is_sorted_by(|a, b| a.start < b.start)
            && self.rows.last().is_none_or(|last| last.start < self.limit())
    }

    fn row_at(&self, address: u64) -> Option<&WriteRow> {
        let offset = address.wrapping_sub(self.function.start);
        let offset = self.function.block_size.map_or(offset, |block| offset % u64::from(block.get()));
        self.rows.iter().rfind(|row| u64::from(row.start) <= offset)
    }

    /// The first and the last address of every row, with the row, and of what comes before; of
    /// blocks in the first, the second and the last one.
    fn places(&self) -> Vec<(u64, Option<&WriteRow>)> {
        let limit = self.limit();
        let first = self.rows.first().map_or(limit, |row| row.start);
        let starts = self.rows.iter().map(|row| row.start);
        let ends = starts.skip(1).chain([limit]);
        let rows = self.rows.iter().zip(ends).map(|(row, end)| (row.start..end, Some(row)));
        let blocks = match self.function.block_size {
            Some(block) => {
                let (size, block) = (u64::from(self.function.size), u64::from(block.get()));
                [0, 1, (size - 1) / block].map(|index| index * block)
            }
            None => [0; 3],
        };
        let mut places = Vec::new();
        for (range, row) in [(0..first, None)].into_iter().chain(rows).filter(|(range, _)| !range.is_empty())
        {
            for (offset, block) in
                [range.start, range.end - 1].into_iter().flat_map(|at| blocks.map(|of| (at, of)))
            {
                let offset = block + u64::from(offset);
                if offset < u64::from(self.function.size) {
                    places.push((self.function.start + offset, row));
                }
            }
        }
        places
    }
}

/// The same rule as a reader of sections puts it.
pub fn canonical(abi: Abi, frame: &UnwindUserFrame) -> UnwindUserFrame {
    if frame.ra() == RaRule::Undefined {
        let cfa = CfaRule::Offset { base: Base::Sp, offset: 0 };
        return UnwindUserFrame::new(cfa, RaRule::Undefined, FpRule::Undefined).expect("small numbers");
    }
    let named = |base: Base| match base {
        Base::Register(register) if register == abi.sp() => Base::Sp,
        Base::Register(register) if register == abi.fp() => Base::Fp,
        base => base,
    };
    let cfa = match frame.cfa() {
        CfaRule::Offset { base, offset } => CfaRule::Offset { base: named(base), offset },
        CfaRule::Deref { base, offset, add } => CfaRule::Deref { base: named(base), offset, add },
    };
    let ra = match frame.ra() {
        RaRule::InRegister { base, offset } => RaRule::InRegister { base: named(base), offset },
        RaRule::AtRegister { base, offset } => RaRule::AtRegister { base: named(base), offset },
        ra => ra,
    };
    let fp = match frame.fp() {
        FpRule::InRegister { base, offset } => FpRule::InRegister { base: named(base), offset },
        FpRule::AtRegister { base, offset } => FpRule::AtRegister { base: named(base), offset },
        fp => fp,
    };
    let canonical = UnwindUserFrame::new(cfa, ra, fp).expect("numbers no larger than before");
    if frame.kind() == FrameKind::Signal { canonical.signal() } else { canonical }
}

/// Starts of rows are stored in no more bytes than they need, and before version 3 there are no
/// flexible rows.
fn check_size(section: &SFrameSection<'_>) {
    for fde in section.fdes() {
        let fde = fde.expect("valid");
        let last = section.rows(&fde).last().expect("functions without rows are left out");
        let least = match last.expect("valid").start {
            0..=0xff => RowStart::Addr1,
            0x100..=0xffff => RowStart::Addr2,
            _ => RowStart::Addr4,
        };
        assert_eq!(fde.row_start, least);
        assert!(section.header().version == Version::V3 || fde.row_kind == RowKind::Default);
    }
}
