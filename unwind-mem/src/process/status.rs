//! `/proc/TID/status`.

use std::fs;
use std::io;

/// The text of the file: `Name:\tvalue` a line.
pub(super) struct Status(String);

impl Status {
    pub(super) fn read(tid: u32) -> io::Result<Self> {
        Ok(Status(String::from_utf8_lossy(&fs::read(format!("/proc/{tid}/status"))?).into_owned()))
    }

    /// The value of a field; empty where it is absent.
    pub(super) fn field(&self, name: &str) -> &str {
        let value = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_default().trim()
    }

    /// Whether `signal` is in the set that the field holds.
    pub(super) fn has_signal(&self, name: &str, signal: i32) -> bool {
        let set = u64::from_str_radix(self.field(name), 16).unwrap_or(0);
        let bit = signal.checked_sub(1).and_then(|bit| u32::try_from(bit).ok());
        bit.and_then(|bit| set.checked_shr(bit)).is_some_and(|set| set & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_signals() {
        let status =
            Status("Name:\tx y\nTgid:\t12\nSigCgt:\t0000000000000402\nSigIgn:\t8000000000000000\n".into());
        assert_eq!((status.field("Name"), status.field("Tgid"), status.field("Tg")), ("x y", "12", ""));
        assert!(status.has_signal("SigCgt", 2) && status.has_signal("SigCgt", 11));
        assert!(!status.has_signal("SigCgt", 1) && !status.has_signal("SigCgt", 0));
        assert!(status.has_signal("SigIgn", 64) && !status.has_signal("SigIgn", 65));
        assert!(!status.has_signal("Absent", 1));
    }
}
