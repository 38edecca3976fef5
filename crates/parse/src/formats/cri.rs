//! Container runtimes' lines: `TIME STREAM TAGS MESSAGE`.
//!
//! The message may be empty, but not the blank before it. Tags stay as they are; joining partial lines is for others.

use super::split;
use crate::record::Record;

pub const FIELDS: [&str; 4] = ["time", "stream", "logtag", "message"];
pub const TIME: &str = "%Y-%m-%dT%H:%M:%S.%L%z";

pub fn read(line: &[u8], record: &mut Record) -> bool {
    read_line(line, record).is_some()
}

fn read_line(line: &[u8], record: &mut Record) -> Option<()> {
    let (time, rest) = split(line, b' ')?;
    let (stream, rest) = split(rest, b' ')?;
    let (tags, message) = split(rest, b' ')?;
    if !time.first()?.is_ascii_digit() || !matches!(stream, b"stdout" | b"stderr") || tags.is_empty() {
        return None;
    }
    record.text(0, time);
    record.text(1, stream);
    record.text(2, tags);
    record.text(3, message);
    Some(())
}
