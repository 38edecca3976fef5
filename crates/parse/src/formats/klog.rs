//! Kubernetes' own logs: `I0102 15:04:05.678901    1234 file.go:56] message`.
//!
//! `severity` is info, warning, error or fatal; `thread` and `line` are numbers; the year is not written.

use super::split;
use crate::record::Record;

pub const FIELDS: [&str; 6] = ["severity", "time", "thread", "file", "line", "message"];
pub const TIME: &str = "%m%d %H:%M:%S.%L";

const SEVERITY: usize = 0;
const STAMP: usize = 1;
const THREAD: usize = 2;
const FILE: usize = 3;
const LINE: usize = 4;
const MESSAGE: usize = 5;

/// Bytes of `0102 15:04:05.`, which digits of a fraction follow.
const HEAD_BYTES: usize = 14;

pub fn read(line: &[u8], record: &mut Record) -> bool {
    read_line(line, record).is_some()
}

fn read_line(line: &[u8], record: &mut Record) -> Option<()> {
    let severity = severity(*line.first()?)?;
    let line = &line[1..];
    let head = line.get(..HEAD_BYTES)?;
    if head[4] != b' ' || head[7] != b':' || head[10] != b':' || head[13] != b'.' || !head[..4].iter().all(u8::is_ascii_digit) {
        return None;
    }
    let end = HEAD_BYTES + split(&line[HEAD_BYTES..], b' ')?.0.len();
    let (thread, rest) = split(line[end..].trim_ascii_start(), b' ')?;
    let (file, rest) = split(rest, b':')?;
    let (number, message) = split(rest, b']')?;
    if !thread.iter().chain(number).all(u8::is_ascii_digit) || file.is_empty() || file.contains(&b' ') {
        return None;
    }
    record.text(SEVERITY, severity);
    record.text(STAMP, &line[..end]);
    record.number(THREAD, thread);
    record.text(FILE, file);
    record.number(LINE, number);
    record.text(MESSAGE, message.strip_prefix(b" ").unwrap_or(message));
    Some(())
}

fn severity(letter: u8) -> Option<&'static [u8]> {
    match letter {
        b'I' => Some(b"info"),
        b'W' => Some(b"warning"),
        b'E' => Some(b"error"),
        b'F' => Some(b"fatal"),
        _ => None,
    }
}
