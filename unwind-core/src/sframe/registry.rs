//! A registry of sections that come and go: for `dlopen`ed modules and code made at run time.
//!
//! Its semantics are those of the kernel's `sframe_add_section` and `sframe_remove_section`:
//! sections are registered with the text they describe, text that is taken is refused, one section
//! may serve several ranges of text, and a section is removed by its address.
//!
//! Lookups are wait-free while others add and remove, so they may come from an NMI or a signal
//! handler, even one that interrupted an `add`. There are two copies of the list; readers use the
//! one that no writer touches ("Left-Right: A Concurrency Control Technique with Wait-Free
//! Population Oblivious Reads", Ramalhete and Correia, 2013). Writers wait for each other and for
//! the readers that were under way: they must not be called where those cannot make progress.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::SFrameSource;
use super::registry_check::{Check, RegistryError, check_sections};
use super::registry_room::RegistryRoom;
use crate::Arch;
use crate::memory::MemoryReader;
use crate::source::{CodeAt, Found, FrameSource, Query, UnwindUserType, UnwindUserTypes};
use crate::source_error::LookupError;

/// Where the bytes of registered sections are to be had.
pub trait SectionBytes {
    /// The `length` bytes of the section at `address` (avma); `None` where they are not there any
    /// more. Called only between that section's `add` and the return of its `remove`.
    fn section(&self, address: u64, length: u64) -> Option<&[u8]>;
}

/// A closure, for bytes that live as long as the program.
impl<F: Fn(u64, u64) -> Option<&'static [u8]>> SectionBytes for F {
    fn section(&self, address: u64, length: u64) -> Option<&[u8]> {
        self(address, length)
    }
}

/// A list of addresses and bytes: sections that were there from the beginning.
impl SectionBytes for &[(u64, &[u8])] {
    fn section(&self, address: u64, length: u64) -> Option<&[u8]> {
        let (_, bytes) = self.iter().find(|(start, _)| *start == address)?;
        bytes.get(..usize::try_from(length).ok()?)
    }
}

/// Room for one range of text.
#[derive(Debug, Default)]
pub struct RegistrySlot {
    start: AtomicU64,
    end: AtomicU64,
    section: AtomicU64,
    length: AtomicU64,
}

/// One range of text and its section: addresses are avmas.
#[derive(Clone, Copy)]
struct Entry {
    start: u64,
    end: u64,
    section: u64,
    length: u64,
}

impl RegistrySlot {
    // What orders these accesses is the choice of the side, which is sequentially consistent.
    fn load(&self) -> Entry {
        Entry {
            start: self.start.load(Ordering::Relaxed),
            end: self.end.load(Ordering::Relaxed),
            section: self.section.load(Ordering::Relaxed),
            length: self.length.load(Ordering::Relaxed),
        }
    }

    fn store(&self, entry: Entry) {
        self.start.store(entry.start, Ordering::Relaxed);
        self.end.store(entry.end, Ordering::Relaxed);
        self.section.store(entry.section, Ordering::Relaxed);
        self.length.store(entry.length, Ordering::Relaxed);
    }
}

/// A registry of sections, in room of either kind: a borrowed slice of [`RegistrySlot`]s, two for
/// every range of text, or [`GrowingRoom`](super::GrowingRoom).
///
/// ```
/// use unwind_core::sframe::{
///     Abi, Check, RegistrySlot, SFrameFormat, SFrameRegistry, SFrameWriter, Version, WriteFunction, WriteRow,
/// };
/// use unwind_core::UnwindUserFrame;
///
/// // A compiler has made code at 0x1000, and describes it in a section that it puts at 0x8000.
/// let function = WriteFunction { start: 0x1000, size: 0x40, block_size: None, key_b: false };
/// let entry = UnwindUserFrame::plain(false, 8, -8, None);
/// let rows = [WriteRow { start: 0, frame: Some(entry), is_mangled: false }];
/// let mut room = [0; 128];
/// let format = SFrameFormat { version: Version::V3, abi: Abi::Amd64, svma: 0x8000 };
/// let mut writer = SFrameWriter::new(format, &mut room);
/// writer.function(&function, rows.into_iter(), &mut |refused| panic!("{refused:?}"));
/// let section = writer.finish(&mut |refused| panic!("{refused:?}"))?;
///
/// let slots: [RegistrySlot; 8] = Default::default();
/// let at = [(0x8000, section)];
/// let registry = SFrameRegistry::new(slots, at.as_slice());
/// registry.add(&[0x1000..0x1040], 0x8000, section.len() as u64, Check::Full)?;
/// // An `Unwinder` takes it as a source. When the code goes:
/// registry.remove(0x8000)?;
/// assert!(registry.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SFrameRegistry<R, B> {
    room: R,
    bytes: B,
    counts: [AtomicUsize; 2],
    /// The copy that readers use.
    side: AtomicUsize,
    /// Which of the two counters new readers count themselves in.
    epoch: AtomicUsize,
    readers: [AtomicU32; 2],
    writing: AtomicBool,
}

impl<R: RegistryRoom, B: SectionBytes> SFrameRegistry<R, B> {
    /// An empty registry.
    pub fn new(room: R, bytes: B) -> Self {
        SFrameRegistry {
            room,
            bytes,
            counts: Default::default(),
            side: AtomicUsize::new(0),
            epoch: AtomicUsize::new(0),
            readers: Default::default(),
            writing: AtomicBool::new(false),
        }
    }

    /// Registers the section at `address` (avma), of at most `length` bytes, for these ranges of
    /// text (avma). Sections that follow it there, as linkers leave them, count as a part of it.
    ///
    /// # Errors
    /// See [`RegistryError`]. Nothing has changed then.
    pub fn add(
        &self,
        text: &[Range<u64>],
        address: u64,
        length: u64,
        check: Check,
    ) -> Result<(), RegistryError> {
        let bytes = self.bytes.section(address, length).ok_or(RegistryError::NoBytes)?;
        check_sections(bytes, address, check)?;
        if text.is_empty() || text.iter().any(Range::is_empty) {
            return Err(RegistryError::EmptyRange);
        }
        for (index, range) in text.iter().enumerate() {
            let others = text.iter().skip(index.saturating_add(1));
            if let Some(other) = others.into_iter().find(|other| overlap(range, other)) {
                return Err(RegistryError::Overlap { address: range.start.max(other.start) });
            }
        }
        let _writer = self.write();
        let side = self.side.load(Ordering::SeqCst);
        let mut taken = 0usize;
        while let Some(entry) = self.entry(side, taken) {
            taken = taken.saturating_add(1);
            if entry.section == address {
                return Err(RegistryError::Duplicate);
            }
            let registered = entry.start..entry.end;
            if let Some(range) = text.iter().find(|range| overlap(range, &registered)) {
                return Err(RegistryError::Overlap { address: range.start.max(entry.start) });
            }
        }
        if !self.room.reserve(taken.saturating_add(text.len())) {
            return Err(RegistryError::NoRoom);
        }
        self.on_both_sides(|side| {
            for range in text {
                self.insert(side, Entry { start: range.start, end: range.end, section: address, length });
            }
        });
        Ok(())
    }

    /// Removes the section at `address` (avma) with all of its text. When this returns, no lookup
    /// uses its bytes any more, and none will.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn remove(&self, address: u64) -> Result<(), RegistryError> {
        let _writer = self.write();
        let side = self.side.load(Ordering::SeqCst);
        let mut index = 0usize;
        loop {
            match self.entry(side, index) {
                Some(entry) if entry.section == address => break,
                Some(_) => index = index.saturating_add(1),
                None => return Err(RegistryError::NotFound),
            }
        }
        self.on_both_sides(|side| {
            let mut kept = 0usize;
            let mut index = 0usize;
            while let Some(entry) = self.entry(side, index) {
                index = index.saturating_add(1);
                if entry.section != address {
                    self.put(side, kept, entry);
                    kept = kept.saturating_add(1);
                }
            }
            self.set_count(side, kept);
        });
        Ok(())
    }

    /// How many ranges of text are registered.
    pub fn len(&self) -> usize {
        self.read(|side| self.count(side))
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Runs `look` on the copy that no writer touches meanwhile.
    fn read<T>(&self, look: impl FnOnce(usize) -> T) -> T {
        let epoch = self.epoch.load(Ordering::SeqCst) & 1;
        let _reader = self.readers.get(epoch).map(Reader::enter);
        look(self.side.load(Ordering::SeqCst) & 1)
    }

    /// Takes the writers' lock. Waits for other writers, which in turn wait for lookups under way.
    fn write(&self) -> Writer<'_> {
        while self.writing.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            core::hint::spin_loop();
        }
        Writer { writing: &self.writing }
    }

    /// Changes one copy after the other, each while no reader uses it. The writers' lock is held.
    fn on_both_sides(&self, change: impl Fn(usize)) {
        let used = self.side.load(Ordering::SeqCst) & 1;
        let unused = used ^ 1;
        change(unused);
        self.side.store(unused, Ordering::SeqCst);
        // Readers that were under way may still use the old copy. They are counted in either
        // epoch: let the other one run empty, send new readers there, let this one run empty.
        let epoch = self.epoch.load(Ordering::SeqCst) & 1;
        self.wait_for_readers(epoch ^ 1);
        self.epoch.store(epoch ^ 1, Ordering::SeqCst);
        self.wait_for_readers(epoch);
        change(used);
    }

    /// Waits for the lookups that are under way in this epoch, none of which waits for anybody.
    fn wait_for_readers(&self, epoch: usize) {
        while self.readers.get(epoch).is_some_and(|readers| readers.load(Ordering::SeqCst) != 0) {
            core::hint::spin_loop();
        }
    }

    /// Puts an entry where it belongs in the order of addresses. There is room.
    fn insert(&self, side: usize, entry: Entry) {
        let count = self.count(side);
        let mut index = count;
        while let Some(before) = index.checked_sub(1).and_then(|before| self.entry(side, before)) {
            if before.start <= entry.start {
                break;
            }
            self.put(side, index, before);
            index = index.saturating_sub(1);
        }
        self.put(side, index, entry);
        self.set_count(side, count.saturating_add(1));
    }

    /// The range of text at `address`.
    fn find(&self, side: usize, address: u64) -> Option<Entry> {
        let (mut low, mut high) = (0, self.count(side));
        while low < high {
            let middle = low.midpoint(high);
            let entry = self.entry(side, middle)?;
            if address < entry.start {
                high = middle;
            } else if address >= entry.end {
                low = middle.saturating_add(1);
            } else {
                return Some(entry);
            }
        }
        None
    }

    fn entry(&self, side: usize, index: usize) -> Option<Entry> {
        if index < self.count(side) { self.slot(side, index).map(RegistrySlot::load) } else { None }
    }

    fn put(&self, side: usize, index: usize, entry: Entry) {
        if let Some(slot) = self.slot(side, index) {
            slot.store(entry);
        }
    }

    /// The two copies are interleaved, so that growing room serves both.
    fn slot(&self, side: usize, index: usize) -> Option<&RegistrySlot> {
        self.room.slot(index.checked_mul(2)?.checked_add(side)?)
    }

    fn count(&self, side: usize) -> usize {
        self.counts.get(side).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    fn set_count(&self, side: usize, count: usize) {
        if let Some(slot) = self.counts.get(side) {
            slot.store(count, Ordering::Relaxed);
        }
    }
}

impl<A: Arch, R: RegistryRoom, B: SectionBytes> FrameSource<A> for SFrameRegistry<R, B> {
    fn types(&self) -> UnwindUserTypes {
        UnwindUserTypes::only(UnwindUserType::SFrame)
    }

    fn lookup(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError> {
        if kind != UnwindUserType::SFrame {
            return Ok(None);
        }
        self.read(|side| {
            let Some(entry) = self.find(side, query.pc.lookup_address()) else {
                return Ok(None);
            };
            let Some(bytes) = self.bytes.section(entry.section, entry.length) else {
                return Ok(None);
            };
            // Everything in a section is relative, so its avma does as well as its svma.
            let source = SFrameSource::for_one_lookup(bytes, entry.section);
            source.lookup(arch, kind, &Query::new(query.pc), memory)
        })
    }

    fn code_at(&self, address: u64) -> CodeAt {
        match self.read(|side| self.find(side, address).is_some()) {
            true => CodeAt::Code,
            false => CodeAt::Unknown,
        }
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// A reader, counted as long as it lives.
struct Reader<'r> {
    readers: &'r AtomicU32,
}

impl<'r> Reader<'r> {
    fn enter(readers: &'r AtomicU32) -> Self {
        readers.fetch_add(1, Ordering::SeqCst);
        Reader { readers }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.readers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The writer, as long as it lives.
struct Writer<'r> {
    writing: &'r AtomicBool,
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.writing.store(false, Ordering::Release);
    }
}
