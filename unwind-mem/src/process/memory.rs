//! The memory of a live process.

use std::fs::File;
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use unwind_core::{MemoryError, MemoryReader};

use super::error::errno_number;

/// The memory of a live process: `process_vm_readv`, and `/proc/PID/mem` where that is not
/// allowed or not there (old kernels, seccomp filters).
///
/// Every read is a system call: put a [`PageCache`](crate::PageCache) in front for a walk over a
/// stopped process. A process that is gone, or may not be read, is a
/// [`MemoryError::Transport`] whose code is the `errno` (`ESRCH`: gone).
#[derive(Debug)]
pub struct ProcessMemory {
    pid: Pid,
    way: Way,
}

#[derive(Debug)]
enum Way {
    VmReadv,
    /// `/proc/PID/mem`, not opened yet.
    Proc,
    File(File),
}

impl ProcessMemory {
    /// The memory of the process, or of the process of the thread, with this id. Whether it can
    /// be read shows with the first read.
    pub fn new(pid: u32) -> Self {
        ProcessMemory { pid: super::pid(pid), way: Way::VmReadv }
    }

    /// The memory of the calling process.
    pub fn of_this_process() -> Self {
        Self::new(std::process::id())
    }

    /// As [`new`](ProcessMemory::new), by `/proc/PID/mem` from the start. That also reads pages
    /// which the process itself must not read.
    pub fn through_proc(pid: u32) -> Self {
        ProcessMemory { pid: super::pid(pid), way: Way::Proc }
    }

    /// Reads as much as there is at `address`: how many bytes.
    fn read_some(&mut self, address: u64, into: &mut [u8]) -> Result<usize, Errno> {
        loop {
            match &self.way {
                Way::VmReadv => {
                    let base = usize::try_from(address).map_err(|_| Errno::EFAULT)?;
                    let remote = [RemoteIoVec { base, len: into.len() }];
                    match process_vm_readv(self.pid, &mut [IoSliceMut::new(into)], &remote) {
                        Err(Errno::EPERM | Errno::ENOSYS) => self.way = Way::Proc,
                        Err(Errno::EINTR) => {}
                        answer => return answer,
                    }
                }
                Way::Proc => {
                    let file =
                        File::open(format!("/proc/{}/mem", self.pid)).map_err(|error| errno(&error))?;
                    self.way = Way::File(file);
                }
                Way::File(file) => match file.read_at(into, address) {
                    // The end of this file is the end of the process.
                    Ok(0) => return Err(Errno::ESRCH),
                    Ok(length) => return Ok(length),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(errno(&error)),
                },
            }
        }
    }
}

fn errno(error: &std::io::Error) -> Errno {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => Errno::ESRCH,
        Some(errno) => errno,
        None => Errno::EIO,
    }
}

impl MemoryReader for ProcessMemory {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let mut at = Some(address);
        let mut rest = into;
        while !rest.is_empty() {
            let address = at.ok_or(MemoryError::Unreadable { address: u64::MAX })?;
            match self.read_some(address, rest) {
                Ok(0) => return Err(MemoryError::Unreadable { address }),
                Ok(length) => {
                    rest = rest.get_mut(length..).unwrap_or_default();
                    at = u64::try_from(length).ok().and_then(|length| address.checked_add(length));
                }
                // process_vm_readv: EFAULT. The file: EIO, and EINVAL for a negative offset, that
                // is one in the kernel's half.
                Err(Errno::EFAULT | Errno::EIO | Errno::EINVAL | Errno::EOVERFLOW) => {
                    return Err(MemoryError::Unreadable { address });
                }
                Err(errno) => return Err(MemoryError::Transport { code: errno_number(errno) }),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests"
)]
mod tests {
    use unwind_core::{ByteOrder, WordSize};

    use super::*;

    /// Both ways to this process's own memory, which is allowed everywhere.
    fn both_ways() -> [ProcessMemory; 2] {
        [ProcessMemory::of_this_process(), ProcessMemory::through_proc(std::process::id())]
    }

    /// A mapped page with nothing mapped after it, found in this process's map.
    fn last_page_before_a_gap() -> u64 {
        let maps = std::fs::read("/proc/self/maps").unwrap();
        let mappings = super::super::maps::parse(&maps);
        let stack =
            mappings.iter().position(|mapping| mapping.name.as_deref() == Some("[stack]".as_ref())).unwrap();
        let end = mappings[stack].end;
        assert!(mappings.iter().all(|mapping| mapping.start != end));
        end - 4096
    }

    #[test]
    fn bytes_and_words() {
        let here = *b"0123456789abcdef";
        let address = here.as_ptr() as u64;
        for mut memory in both_ways() {
            let mut bytes = [0; 16];
            assert_eq!(memory.read(address, &mut bytes), Ok(()));
            assert_eq!(bytes, here);
            let word = memory.read_word(address + 4, WordSize::Four, ByteOrder::Big);
            assert_eq!(word, Ok(u64::from(u32::from_be_bytes(*b"4567"))));
            assert_eq!(memory.read(address, &mut []), Ok(()));
        }
    }

    #[test]
    fn the_first_unreadable_address_is_named() {
        let page = last_page_before_a_gap();
        for mut memory in both_ways() {
            assert_eq!(memory.read(page + 4000, &mut [0; 96]), Ok(()));
            let beyond = memory.read(page + 4000, &mut [0; 97]);
            assert_eq!(beyond, Err(MemoryError::Unreadable { address: page + 4096 }));
            for address in [0, 8, page + 4096, 1 << 63, u64::MAX - 7, u64::MAX] {
                let got = memory.read(address, &mut [0; 8]);
                assert_eq!(got, Err(MemoryError::Unreadable { address }), "{memory:?}");
            }
        }
    }

    #[test]
    fn h42_a_process_that_is_gone_is_a_transport_error() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        for mut memory in [ProcessMemory::new(pid), ProcessMemory::through_proc(pid)] {
            let got = memory.read(0x1000, &mut [0; 8]);
            assert_eq!(got, Err(MemoryError::Transport { code: nix::libc::ESRCH }));
        }
    }
}
