//! Which module is at an address.

use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::plain::Plain;
use crate::source::{CodeAt, Evaluated, Found, FrameSource, Query, UnwindUserType, UnwindUserTypes};
use crate::source_error::LookupError;
use crate::{Arch, CallerRegisters, MemoryReader, RegisterFile};

/// A range of executable memory and what describes it. A file with several executable segments,
/// or text split over mappings, is several of these with the same (or a borrowed) source.
#[derive(Clone, Copy, Debug)]
pub struct Module<S> {
    /// The first address (avma).
    pub start: u64,
    /// The first address beyond (avma).
    pub end: u64,
    /// The load bias: avma minus svma, modulo the address space.
    pub bias: u64,
    /// What describes the code there. It is asked with the bias in [`Query::bias`].
    pub source: S,
}

/// Why a list of modules is no map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModuleMapError {
    /// The module at this index has no addresses.
    Empty {
        /// The index.
        index: usize,
    },
    /// The module at this index begins below the end of the one before it: the list is not
    /// sorted, or the two overlap.
    Overlap {
        /// The index.
        index: usize,
    },
}

impl fmt::Display for ModuleMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModuleMapError::Empty { index } => write!(f, "module {index} is empty"),
            ModuleMapError::Overlap { index } => {
                write!(f, "module {index} begins below the end of the one before it")
            }
        }
    }
}

impl core::error::Error for ModuleMapError {}

/// The modules of a target, borrowed: sorted by address and free of overlaps.
///
/// Lookup is a binary search, after one look at the module that answered last.
pub struct ModuleMap<'m, S> {
    modules: &'m [Module<S>],
    types: UnwindUserTypes,
    complete: bool,
    last: AtomicUsize,
}

impl<'m, S> ModuleMap<'m, S> {
    /// A map of these modules, for walks on `arch`.
    ///
    /// # Errors
    /// Where one is empty, or they are not in ascending order without overlap.
    pub fn new<A: Arch>(arch: &A, modules: &'m [Module<S>]) -> Result<Self, ModuleMapError>
    where
        S: FrameSource<A>,
    {
        let _ = arch;
        let mut end = 0;
        let mut types = UnwindUserTypes::NONE;
        for (index, module) in modules.iter().enumerate() {
            if module.start >= module.end {
                return Err(ModuleMapError::Empty { index });
            }
            if module.start < end {
                return Err(ModuleMapError::Overlap { index });
            }
            end = module.end;
            types = types.union(module.source.types());
        }
        Ok(ModuleMap { modules, types, complete: false, last: AtomicUsize::new(0) })
    }

    /// States that there is no executable memory beside these modules. A pc elsewhere then is a
    /// wild jump, and a return address elsewhere is none.
    pub fn complete(mut self) -> Self {
        self.complete = true;
        self
    }

    /// The modules.
    pub fn modules(&self) -> &'m [Module<S>] {
        self.modules
    }

    /// The module at `address` (avma).
    #[inline]
    pub fn find(&self, address: u64) -> Option<&'m Module<S>> {
        let last = self.last.load(Ordering::Relaxed);
        if let Some(module) = self.modules.get(last)
            && (module.start..module.end).contains(&address)
        {
            return Some(module);
        }
        let index = self.modules.partition_point(|module| module.end <= address);
        let module = self.modules.get(index).filter(|module| module.start <= address)?;
        self.last.store(index, Ordering::Relaxed);
        Some(module)
    }
}

impl<A: Arch, S: FrameSource<A>> FrameSource<A> for ModuleMap<'_, S> {
    fn types(&self) -> UnwindUserTypes {
        self.types
    }

    #[inline]
    fn lookup(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<Found>, LookupError> {
        match self.find(query.pc.lookup_address()) {
            Some(module) if module.source.types().contains(kind) => {
                module.source.lookup(arch, kind, &Query { pc: query.pc, bias: module.bias }, memory)
            }
            _ => Ok(None),
        }
    }

    #[inline]
    fn peek(&self, arch: &A, kinds: UnwindUserTypes, query: &Query) -> Option<Plain> {
        let module = self.find(query.pc.lookup_address())?;
        let kinds = kinds.intersection(module.source.types());
        module.source.peek(arch, kinds, &Query { pc: query.pc, bias: module.bias })
    }

    #[inline]
    fn lookup_best(
        &self,
        arch: &A,
        kinds: UnwindUserTypes,
        query: &Query,
        memory: &mut dyn MemoryReader,
    ) -> Result<Option<(UnwindUserType, Found)>, LookupError> {
        match self.find(query.pc.lookup_address()) {
            Some(module) => {
                let query = Query { pc: query.pc, bias: module.bias };
                module.source.lookup_best(arch, kinds, &query, memory)
            }
            None => Ok(None),
        }
    }

    fn evaluate(
        &self,
        arch: &A,
        kind: UnwindUserType,
        query: &Query,
        registers: &dyn RegisterFile,
        memory: &mut dyn MemoryReader,
        caller: &mut dyn CallerRegisters,
    ) -> Result<Option<Evaluated>, LookupError> {
        match self.find(query.pc.lookup_address()) {
            Some(module) if module.source.types().contains(kind) => {
                let query = Query { pc: query.pc, bias: module.bias };
                module.source.evaluate(arch, kind, &query, registers, memory, caller)
            }
            _ => Ok(None),
        }
    }

    fn code_at(&self, address: u64) -> CodeAt {
        match self.find(address) {
            Some(_) => CodeAt::Code,
            None if self.complete => CodeAt::NotCode,
            None => CodeAt::Unknown,
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for ModuleMap<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModuleMap").field("modules", &self.modules).field("complete", &self.complete).finish()
    }
}
