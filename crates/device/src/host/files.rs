//! Reads small files of a kernel that may lie: below an open folder, at most [`FILE_BYTES_MAX`], and never waiting for one.
//!
//! A pipe where a file should be opens and is empty at once (`O_NONBLOCK`); a file that is longer is a fault, not a half.

use rustix::fs::{Dir, FileType, Mode, OFlags, openat};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Longest file, in bytes. `/proc/net/dev` of 4,000 interfaces has 500 KiB.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Names looked at in one folder.
const NAMES_MAX: usize = 20_000;

/// Why a file gave nothing, in a word.
pub type Fault = &'static str;
pub const ABSENT: Fault = "absent";
pub const TOO_LONG: Fault = "too_long";
pub const NO_FORM: Fault = "no_form";

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

fn word(error: Errno) -> Fault {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::NODEV | Errno::OPNOTSUPP => ABSENT,
        Errno::ACCESS | Errno::PERM => "denied",
        Errno::LOOP => "link",
        Errno::MFILE | Errno::NFILE => "too_many_open",
        _ => "unreadable",
    }
}

/// Opens the folder that everything is read below; links on the way to it are the operator's and are followed.
pub fn open_root(path: &Path) -> Result<OwnedFd, Fault> {
    rustix::fs::open(path, OPEN.union(OFlags::DIRECTORY), Mode::empty()).map_err(word)
}

/// Opens a folder. `path`: relative. The last name of it is no link.
pub fn open_folder(below: impl AsFd, path: &str) -> Result<OwnedFd, Fault> {
    openat(below, path, OPEN.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW), Mode::empty()).map_err(word)
}

/// Reads a file whole into `bytes`. `path`: relative. Its last name may be a link, as in `/sys/class/net/eth0`.
pub fn read(below: impl AsFd, path: &str, bytes: &mut Vec<u8>) -> Result<(), Fault> {
    read_until(below, path, OPEN, false, bytes)
}

/// Reads a file of a group, which is no link. The kernel shows such a file in one piece: what does not fill the buffer is all.
pub fn read_shown(below: impl AsFd, path: &str, bytes: &mut Vec<u8>) -> Result<(), Fault> {
    read_until(below, path, OPEN.union(OFlags::NOFOLLOW), true, bytes)
}

fn read_until(below: impl AsFd, path: &str, flags: OFlags, in_one_piece: bool, bytes: &mut Vec<u8>) -> Result<(), Fault> {
    bytes.clear();
    let file = openat(below, path, flags, Mode::empty()).map_err(word)?;
    loop {
        let at = bytes.len();
        bytes.resize((at * 2).clamp(4096, FILE_BYTES_MAX + 1), 0);
        match rustix::io::read(&file, &mut bytes[at..]) {
            Ok(0) => {
                bytes.truncate(at);
                return Ok(());
            }
            Ok(n) => {
                let is_all = in_one_piece && at + n < bytes.len();
                bytes.truncate(at + n);
                if is_all {
                    return Ok(());
                }
            }
            Err(Errno::INTR) => bytes.truncate(at),
            Err(error) => {
                bytes.clear();
                return Err(word(error));
            }
        }
        if bytes.len() > FILE_BYTES_MAX {
            bytes.clear();
            return Err(TOO_LONG);
        }
    }
}

/// The folders in a folder, links aside, in the kernel's order. The second part: there are more names than anybody looks at.
pub fn folders(folder: impl AsFd) -> Result<(Vec<String>, bool), Fault> {
    names(folder, |kind| kind == FileType::Directory)
}

/// Folders and links to such, as `/sys/class/net` has them.
pub fn entries(folder: impl AsFd) -> Result<(Vec<String>, bool), Fault> {
    names(folder, |kind| matches!(kind, FileType::Directory | FileType::Symlink))
}

fn names(folder: impl AsFd, wanted: impl Fn(FileType) -> bool) -> Result<(Vec<String>, bool), Fault> {
    let mut names = Vec::new();
    for (n, entry) in Dir::read_from(folder).map_err(word)?.enumerate() {
        if n >= NAMES_MAX {
            return Ok((names, true));
        }
        let entry = entry.map_err(word)?;
        // A name that is no text cannot be told to anybody.
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name != "." && name != ".." && wanted(entry.file_type()) {
            names.push(name.to_owned());
        }
    }
    Ok((names, false))
}

/// A number alone, as most files hold one. Whitespace around it may be.
pub fn number(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.trim_ascii();
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 { None } else { sum.checked_mul(10)?.checked_add(u64::from(digit)) }
    })
}

pub fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n')
}

/// Words between blanks.
pub fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty())
}

/// Text of others, at most 256 bytes, without what no label can hold.
pub fn text(bytes: &[u8]) -> String {
    let mut text: String = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).into_owned();
    text.retain(|c| !c.is_control());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let root = open_root(folder.path()).unwrap();
        let mut bytes = Vec::new();
        for (len, want) in [(0, Ok(())), (4096, Ok(())), (4097, Ok(())), (FILE_BYTES_MAX, Ok(())), (FILE_BYTES_MAX + 1, Err(TOO_LONG))] {
            std::fs::write(folder.path().join("f"), vec![b'x'; len]).unwrap();
            assert_eq!(read(&root, "f", &mut bytes), want, "{len}");
            assert_eq!(bytes.len(), if want.is_ok() { len } else { 0 });
            assert_eq!(read_shown(&root, "f", &mut bytes), want, "{len}");
            assert_eq!(bytes.len(), if want.is_ok() { len } else { 0 });
        }
        std::os::unix::fs::symlink("f", folder.path().join("link")).unwrap();
        assert_eq!(read_shown(&root, "link", &mut bytes), Err("link"));
        assert_eq!(read(&root, "none", &mut bytes), Err(ABSENT));
        rustix::fs::mknodat(&root, "pipe", FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert_eq!(read(&root, "pipe", &mut bytes), Ok(()));
        assert_eq!(read(&root, ".", &mut bytes), Err("unreadable"));
    }

    #[test]
    fn numbers_are_whole_or_none() {
        for (text, want) in [
            ("7\n", Some(7)),
            (" 18446744073709551615 ", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("max", None),
            ("-1", None),
            ("1.5", None),
            ("000000000000000000000000000001", None),
        ] {
            assert_eq!(number(text.as_bytes()), want, "{text:?}");
        }
    }
}
