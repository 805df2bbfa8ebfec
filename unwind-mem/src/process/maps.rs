//! `/proc/PID/maps` (Linux, Documentation/filesystems/proc.rst).

use std::ffi::OsString;
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One line of the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// The first address (avma).
    pub(crate) start: u64,
    /// The first address beyond (avma).
    pub(crate) end: u64,
    pub(crate) executable: bool,
    pub(crate) file: FileId,
    /// Where in the file it begins.
    pub(crate) offset: u64,
    /// As the kernel writes it: a path, perhaps with ` (deleted)`, or a word like `[vdso]`.
    pub(crate) name: Option<PathBuf>,
}

/// Which file a mapping shows. The inode is 0 where it shows none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) inode: u64,
}

impl Mapping {
    pub(crate) fn range(&self) -> Range<u64> {
        self.start..self.end
    }

    pub(crate) fn shows_file(&self) -> bool {
        self.file.inode != 0
    }

    /// The path without the kernel's mark that it is deleted, and whether it had one.
    pub(crate) fn path(&self) -> Option<(&Path, bool)> {
        let name = self.name.as_deref()?;
        Some(match name.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
            Some(path) => (Path::new(std::ffi::OsStr::from_bytes(path)), true),
            None => (name, false),
        })
    }
}

/// Every line that can be understood. The kernel writes them in ascending order of address.
pub(crate) fn parse(maps: &[u8]) -> Vec<Mapping> {
    maps.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// `start-end perms offset major:minor inode   name`, all but the inode in hexadecimal.
fn parse_line(line: &[u8]) -> Option<Mapping> {
    let (range, rest) = split(line, b' ')?;
    let (permissions, rest) = split(rest, b' ')?;
    let (offset, rest) = split(rest, b' ')?;
    let (device, rest) = split(rest, b' ')?;
    let (inode, name) = split(rest, b' ').unwrap_or((rest, &[]));
    let (start, end) = split(range, b'-')?;
    let (major, minor) = split(device, b':')?;
    let name = name.trim_ascii_start();
    let mapping = Mapping {
        start: hexadecimal(start)?,
        end: hexadecimal(end)?,
        executable: permissions.get(2) == Some(&b'x'),
        file: FileId {
            major: u32::try_from(hexadecimal(major)?).ok()?,
            minor: u32::try_from(hexadecimal(minor)?).ok()?,
            inode: std::str::from_utf8(inode).ok()?.parse().ok()?,
        },
        offset: hexadecimal(offset)?,
        name: (!name.is_empty()).then(|| PathBuf::from(unescape(name))),
    };
    (mapping.start < mapping.end).then_some(mapping)
}

fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let index = bytes.iter().position(|byte| *byte == at)?;
    let (head, tail) = bytes.split_at_checked(index)?;
    Some((head, tail.get(1..)?))
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The kernel writes a newline in a name as `\012`, and nothing else that way: a backslash stands
/// for itself.
fn unescape(name: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(b"\\012") {
            plain.push(b'\n');
            rest = tail;
        } else {
            plain.push(byte);
            rest = tail;
        }
    }
    OsString::from_vec(plain)
}

/// A line as the fuzz target `maps` sees it.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedMapping {
    pub range: Range<u64>,
    pub executable: bool,
    pub offset: u64,
    pub name: Option<PathBuf>,
}

/// Every line of `/proc/PID/maps` that can be understood; for the fuzz target `maps`.
#[doc(hidden)]
pub fn mappings_of(maps: &[u8]) -> Vec<ListedMapping> {
    let listed = |mapping: Mapping| ListedMapping {
        range: mapping.range(),
        executable: mapping.executable,
        offset: mapping.offset,
        name: mapping.name,
    };
    parse(maps).into_iter().map(listed).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::as_conversions, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn lines_as_the_kernel_writes_them() {
        let maps = parse(
            b"55d0c0a00000-55d0c0a02000 r--p 00000000 fe:01 1234                       /usr/bin/cat\n\
              55d0c0a02000-55d0c0a07000 r-xp 00002000 103:05 1234                       /opt/a b/c (deleted)\n\
              7ffc3a9f0000-7ffc3aa11000 rw-p 00000000 00:00 0                          [stack]\n\
              7f0000000000-7f0000001000 rwxp 00000000 00:00 0 \n\
              7f0000001000-7f0000002000 r-xs 00001000 00:05 77                         /new\\012line\n\
              ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n",
        );
        assert_eq!(maps.len(), 6);
        assert_eq!(
            maps[1],
            Mapping {
                start: 0x55d0c0a02000,
                end: 0x55d0c0a07000,
                executable: true,
                file: FileId { major: 0x103, minor: 5, inode: 1234 },
                offset: 0x2000,
                name: Some("/opt/a b/c (deleted)".into()),
            }
        );
        assert_eq!(maps[1].path(), Some((Path::new("/opt/a b/c"), true)));
        assert_eq!(maps[0].path(), Some((Path::new("/usr/bin/cat"), false)));
        assert!(!maps[0].executable && maps[0].shows_file());
        assert!(!maps[2].shows_file() && maps[2].name.as_deref() == Some(Path::new("[stack]")));
        assert!(maps[3].executable && maps[3].name.is_none());
        assert_eq!(maps[4].name, Some("/new\nline".into()));
        assert_eq!(maps[5].start, 0xffff_ffff_ff60_0000);
    }

    #[test]
    fn lines_that_nobody_writes() {
        for line in
            ["", "x", "1-2", "2-1 r-xp 0 0:0 0", "1-2 r-xp 0 0:0 x", "1-2 r-xp 0 00 0", "-- - - -:- -"]
        {
            assert_eq!(parse(line.as_bytes()), [], "{line:?}");
        }
        assert_eq!(parse(b"1-2 r-xp 0 0:0 5").len(), 1);
    }

    #[test]
    fn this_process() {
        let maps = parse(&std::fs::read("/proc/self/maps").unwrap());
        let code = u64::try_from((this_process as fn() as *const ()).addr()).unwrap();
        let here = maps.iter().find(|mapping| mapping.range().contains(&code)).unwrap();
        assert!(here.executable);
        let executable = std::fs::read_link("/proc/self/exe").unwrap();
        assert_eq!(here.name.as_deref(), Some(executable.as_path()));
    }
}
