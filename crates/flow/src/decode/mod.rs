//! Chunks to records: splits lines, joins what a container runtime split, bounds every line.
//!
//! In: the arena of a batch, holding bytes of one stream from a known offset. Out: records in the batch and
//! the number of bytes used; the rest (an unfinished line) is given again, in front of the next chunk.
//! Memory: a line that does not fit `line_bytes_max` is cut there, the rest is skipped and counted; a joined
//! record is cut at `join_bytes_max` and marked partial.

pub mod cri;

use crate::batch::Batch;
use crate::event::{Note, Skip};

/// How a source's bytes are records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// Lines of the container runtime interface, each holding (a part of) a JSON object or text.
    Cri,
    /// Lines of text; no fields.
    Text,
}

/// What follows the bytes that are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// More bytes may come: an unfinished line waits for them.
    Open,
    /// The log goes on in another file: a line ends with its file, a record split over lines does not.
    File,
    /// Nothing: what is unfinished is a record as it is.
    Log,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub line_bytes_max: usize,
    pub join_bytes_max: usize,
}

/// Decodes one log: a path's rotation chain, in order. Keeps what is unfinished between chunks.
#[derive(Debug)]
pub struct Decoder {
    format: Format,
    limits: Limits,
    cri: cri::Joiner,
    /// A line longer than `line_bytes_max` whose end was not seen yet.
    long: Option<Long>,
}

/// Where a line stands in its stream.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// Offset of its first byte.
    from: u64,
    /// Offset behind its newline: what the record is named by.
    position: u64,
    notes: u16,
}

#[derive(Debug)]
struct Long {
    /// Offset of the line's first byte.
    from: u64,
    head: Vec<u8>,
    skipped: u64,
}

impl Decoder {
    pub fn new(format: Format, limits: Limits) -> Decoder {
        Decoder { format, limits, cri: cri::Joiner::default(), long: None }
    }

    /// Splits `batch.arena[..len]`, which stands at offset `base` of its stream, into records.
    ///
    /// Returns the number of bytes used; the others are given again, in front of those that follow them.
    pub fn decode(&mut self, batch: &mut Batch, base: u64, end: End) -> usize {
        batch.clear_records();
        let len = batch.arena.len();
        let mut at = 0;
        // Joined records are appended behind the chunk, so only its own `len` bytes are searched.
        while let Some(found) = memchr::memchr(b'\n', &batch.arena[at..len]) {
            let line = Line { from: base + at as u64, position: base + (at + found + 1) as u64, notes: 0 };
            self.line(batch, at, at + found, line);
            batch.law.framing_bytes += 1;
            at += found + 1;
        }
        let rest = Line { from: base + at as u64, position: base + len as u64, notes: Note::Unterminated.bit() };
        if at < len && end != End::Open {
            self.line(batch, at, len, rest);
            at = len;
        } else if at < len && (self.long.is_some() || len - at > self.limits.line_bytes_max) {
            self.take_long(batch, at, len, rest.from);
            at = len;
        }
        if end != End::Open
            && let Some(long) = self.long.take()
        {
            self.emit_long(batch, long, rest);
        }
        match end {
            End::Open => {}
            End::File => self.cri.next_file(),
            End::Log => self.cri.flush(batch, base + at as u64),
        }
        at
    }

    /// Start of the oldest unfinished part that began `files_ago` files ago (0: in the present one).
    pub fn oldest_held(&self, files_ago: u32) -> Option<u64> {
        let long = self.long.as_ref().filter(|_| files_ago == 0).map(|long| long.from);
        self.cri.held().filter(|held| held.0 == files_ago).map(|held| held.1).chain(long).min()
    }

    /// One line, without its newline.
    #[inline(always)]
    fn line(&mut self, batch: &mut Batch, start: usize, end: usize, mut line: Line) {
        if self.long.is_some() {
            self.take_long(batch, start, end, line.from);
            let long = self.long.take().expect("taken just before");
            return self.emit_long(batch, long, line);
        }
        let mut end = end;
        if end > start && batch.arena[end - 1] == b'\r' {
            end -= 1;
            batch.law.framing_bytes += 1;
        }
        if end - start > self.limits.line_bytes_max {
            batch.law.skip(Skip::LineTooLong, (end - start - self.limits.line_bytes_max) as u64);
            end = start + self.limits.line_bytes_max;
            line.notes |= Note::Truncated.bit();
        }
        self.content(batch, start, end, line);
    }

    #[inline(always)]
    fn content(&mut self, batch: &mut Batch, start: usize, end: usize, line: Line) {
        // A record starts with something printable far more often than not: look at one byte first.
        if start == end || (batch.arena[start] <= b' ' && batch.arena[start..end].iter().all(u8::is_ascii_whitespace)) {
            batch.law.skip(Skip::Blank, (end - start) as u64);
            return;
        }
        match self.format {
            Format::Json | Format::Text => batch.push(start, end, line.position, end - start, line.notes),
            Format::Cri => self.cri.line(batch, start, end, line, self.limits.join_bytes_max),
        }
    }

    /// Takes a piece of a line that is too long to wait for.
    #[cold]
    fn take_long(&mut self, batch: &mut Batch, start: usize, end: usize, from: u64) {
        let long = self.long.get_or_insert(Long { from, head: Vec::new(), skipped: 0 });
        let room = self.limits.line_bytes_max - long.head.len();
        let kept = room.min(end - start);
        long.head.extend_from_slice(&batch.arena[start..start + kept]);
        batch.law.held_bytes += kept as i64;
        let rest = (end - start - kept) as u64;
        if rest > 0 {
            batch.law.skip(Skip::LineTooLong, rest);
            long.skipped += rest;
        }
    }

    #[cold]
    fn emit_long(&mut self, batch: &mut Batch, long: Long, line: Line) {
        let start = batch.arena.len();
        batch.arena.extend_from_slice(&long.head);
        batch.law.held_bytes -= long.head.len() as i64;
        let cut = if long.skipped > 0 { Note::Truncated.bit() } else { 0 };
        self.content(batch, start, start + long.head.len(), Line { from: long.from, notes: line.notes | cut, ..line });
    }
}

#[cfg(test)]
mod tests;
