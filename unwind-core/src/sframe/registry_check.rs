//! What a registry refuses, and why.

use core::fmt;

use super::{Flaw, SFrameSection, SFrameSections};
use crate::{Broken, SourceError};

/// How thoroughly a section is checked when it is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Its header, and those of the sections that follow it. Lookups check what they meet.
    Header,
    /// All of it ([`SFrameSection::validate`]): for sections from somebody not trusted.
    Full,
}

/// Why a section was not added or removed. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistryError {
    /// A range is empty, or there is none.
    EmptyRange,
    /// This address is in a range that is already registered, or in two of the given ones.
    Overlap {
        /// The address.
        address: u64,
    },
    /// A section is already registered at this address.
    Duplicate,
    /// There is no room for more ranges.
    NoRoom,
    /// The section's bytes are not there.
    NoBytes,
    /// The section, or one that follows it, makes no sense, or is for another ABI than the first.
    Broken(SourceError),
    /// The full check found this.
    Flaw {
        /// Where the section is (avma); not at the registered address where it follows another.
        section: u64,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// No section is registered at this address.
    NotFound,
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegistryError::EmptyRange => f.write_str("an empty range of text"),
            RegistryError::Overlap { address } => write!(f, "the text at {address:#x} has a section already"),
            RegistryError::Duplicate => f.write_str("the section is registered already"),
            RegistryError::NoRoom => f.write_str("no room for more ranges of text"),
            RegistryError::NoBytes => f.write_str("the section's bytes are not there"),
            RegistryError::Broken(error) => error.fmt(f),
            RegistryError::Flaw { section, flaw } => write!(f, "the section at {section:#x}: {flaw}"),
            RegistryError::NotFound => f.write_str("no such section"),
        }
    }
}

impl core::error::Error for RegistryError {}

/// Checks the section at `address`, and those that follow it in its bytes.
pub(super) fn check_sections(bytes: &[u8], address: u64, check: Check) -> Result<(), RegistryError> {
    let first = SFrameSection::parse(bytes, address).map_err(RegistryError::Broken)?;
    for section in SFrameSections::new(bytes, address) {
        let section = section.map_err(RegistryError::Broken)?;
        if section.abi() != first.abi() {
            let foreign = SourceError { broken: Broken::UnknownAbi, offset: 4 };
            return Err(RegistryError::Broken(foreign.behind(section.svma().wrapping_sub(address))));
        }
        if check == Check::Full {
            section.validate().map_err(|flaw| RegistryError::Flaw { section: section.svma(), flaw })?;
        }
    }
    Ok(())
}
