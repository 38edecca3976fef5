//! Lines of the container runtime interface: `TIME STREAM TAGS CONTENT`, split lines joined.
//!
//! A `P` line is part of a record that goes on with the next line of the same stream (stdout or stderr,
//! which may interleave) and ends with an `F` line. The joined record owns all its parts' bytes. Memory: one
//! unfinished record per stream, at most `join_bytes_max`; at the bound it is emitted, marked partial, and
//! the rest is a record of its own. A line of another shape is kept raw and noted.

use super::Line;
use crate::batch::Batch;
use crate::event::Note;

/// What is unfinished, for stdout and stderr.
#[derive(Debug, Default)]
pub struct Joiner {
    held: [Held; 2],
}

#[derive(Debug, Default)]
struct Held {
    /// The first part's time and a blank, then the content of all parts.
    content: Vec<u8>,
    time_len: usize,
    /// Bytes of the parts in their stream, without line ends; 0: nothing is held.
    origin_bytes: usize,
    /// Where the first part starts: how many files ago, and the offset there.
    files_ago: u32,
    from: u64,
}

/// One parsed line: which stream, whether the record goes on, where its content starts.
struct Parts {
    stream: usize,
    time_len: usize,
    partial: bool,
    content: usize,
}

/// Finds the parts of a line; `None` for a line of another shape.
#[inline(always)]
fn split(line: &[u8]) -> Option<Parts> {
    let time = memchr::memchr(b' ', line)?;
    // RFC 3339: a date and a time of at least a second, cheaply recognised by its punctuation.
    if time < 20 || line[4] != b'-' || line[10] != b'T' || line[13] != b':' {
        return None;
    }
    let rest = &line[time + 1..];
    let stream = match rest.get(..7)? {
        b"stdout " => 0,
        b"stderr " => 1,
        _ => return None,
    };
    let tags_at = time + 8;
    let tags_len = memchr::memchr(b' ', &line[tags_at..])?;
    let tags = &line[tags_at..tags_at + tags_len];
    let first = tags.split(|b| *b == b':').next().unwrap_or(tags);
    if first.is_empty() {
        return None;
    }
    Some(Parts { stream, time_len: time + 1, partial: first == b"P", content: tags_at + tags_len + 1 })
}

impl Joiner {
    pub(super) fn line(&mut self, batch: &mut Batch, start: usize, end: usize, line: Line, join_bytes_max: usize) {
        let Line { from, position, notes } = line;
        let Some(parts) = split(&batch.arena[start..end]) else {
            return batch.push(start, end, position, end - start, notes | Note::NotCri.bit());
        };
        let held = &mut self.held[parts.stream];
        let content = start + parts.content;
        if held.origin_bytes == 0 && !parts.partial {
            batch.push(content, end, position, end - start, notes);
            return batch.set_prefix(parts.content);
        }
        if held.content.len() + (end - content) > join_bytes_max {
            held.emit(batch, position, notes | Note::Partial.bit());
        }
        if held.origin_bytes == 0 {
            held.content.extend_from_slice(&batch.arena[start..start + parts.time_len]);
            held.time_len = parts.time_len;
            held.from = from;
            held.files_ago = 0;
        }
        held.content.extend_from_slice(&batch.arena[content..end]);
        held.origin_bytes += end - start;
        batch.law.held_bytes += (end - start) as i64;
        if !parts.partial {
            held.emit(batch, position, notes);
        }
    }

    /// The log ends: what is held becomes records, marked partial.
    pub fn flush(&mut self, batch: &mut Batch, position: u64) {
        for held in &mut self.held {
            held.emit(batch, position, Note::Partial.bit());
        }
    }

    /// Where each unfinished record starts: how many files ago, and the offset there.
    pub fn held(&self) -> impl Iterator<Item = (u32, u64)> {
        self.held.iter().filter(|h| h.origin_bytes > 0).map(|h| (h.files_ago, h.from))
    }

    /// What is held now starts one more file ago.
    pub fn next_file(&mut self) {
        for held in &mut self.held {
            held.files_ago += 1;
        }
    }
}

impl Held {
    fn emit(&mut self, batch: &mut Batch, position: u64, notes: u16) {
        if self.origin_bytes == 0 {
            return;
        }
        let start = batch.arena.len();
        batch.arena.extend_from_slice(&self.content);
        batch.law.held_bytes -= self.origin_bytes as i64;
        batch.push(start + self.time_len, start + self.content.len(), position, self.origin_bytes, notes);
        batch.set_prefix(self.time_len);
        self.content.clear();
        self.origin_bytes = 0;
    }
}
