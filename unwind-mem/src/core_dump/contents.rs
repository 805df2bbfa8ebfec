//! The bytes of a file, held or read as they are needed.

use std::fs::File;
use std::io;
use std::path::Path;

/// A file's bytes.
#[derive(Debug)]
pub(super) enum Contents {
    Bytes(Vec<u8>),
    /// Read by position: core files are often larger than memory.
    #[cfg(unix)]
    File(File, u64),
}

impl Contents {
    /// Opens a regular file and nothing else: a device or a pipe could block.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = regular(path)?;
        #[cfg(unix)]
        {
            let length = file.metadata()?.len();
            Ok(Contents::File(file, length))
        }
        #[cfg(not(unix))]
        {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut io::BufReader::new(file), &mut bytes)?;
            Ok(Contents::Bytes(bytes))
        }
    }

    pub(super) fn length(&self) -> u64 {
        match self {
            Contents::Bytes(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            #[cfg(unix)]
            Contents::File(_, length) => *length,
        }
    }

    /// Fills `into` with what is at `offset`, or says that it cannot.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        match self {
            Contents::Bytes(bytes) => {
                let from = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
                let found = from.and_then(|bytes| bytes.get(..into.len()));
                if let Some(found) = found {
                    into.copy_from_slice(found);
                }
                found.is_some()
            }
            #[cfg(unix)]
            Contents::File(file, _) => std::os::unix::fs::FileExt::read_exact_at(file, into, offset).is_ok(),
        }
    }

    /// What there is of `size` bytes at `offset`, at most `limit` of them.
    pub(super) fn read_prefix(&self, offset: u64, size: u64, limit: u64) -> Vec<u8> {
        let there = self.length().saturating_sub(offset).min(size).min(limit);
        let mut bytes = vec![0; usize::try_from(there).unwrap_or(0)];
        if self.read(offset, &mut bytes) { bytes } else { Vec::new() }
    }
}

/// Opens a regular file.
pub(super) fn regular(path: &Path) -> io::Result<File> {
    let not_regular = || io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
    // Before it is opened, as opening a pipe waits for its other end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(not_regular());
    }
    let file = File::open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}
