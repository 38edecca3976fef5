//! One chunk to lines: where they end, what lies between them, what stays unused.
//!
//! In: a chunk and what follows it. Out: lines handed on, with every other byte counted as framing or skipped.
//! Zeros at the start of a line are a hole (a truncated file whose writer went on, a power loss) and skipped
//! whatever their number; zeros at the end of what is there may be space taken in advance and stay unused. Zeros
//! inside of a line belong to it. A line ends with a newline, or a carriage return and a newline.

use super::encoding::leading_nuls;
use super::join::{Out, Piece};
use super::{Decoder, Encoding, End, Format, HELD_BYTES_MAX, Long, Next, cri, docker, trailing_nuls};
use crate::event::{Note, Skip};
use crate::units::UnixNanos;

/// Where a line stands in its stream.
#[derive(Clone, Copy)]
struct Line {
    /// Offset of its first byte.
    from: u64,
    /// Offset behind its newline: what the record is named by.
    position: u64,
    notes: u32,
}

/// What was used of a chunk so far.
#[derive(Default)]
struct Used {
    at: usize,
    framing: usize,
    nuls: usize,
    /// A line was taken in this call.
    lines: bool,
    last: Last,
}

/// What the last bytes used were: they can be given back only if no line holds them.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Last {
    #[default]
    Nothing,
    Newline,
    Nuls,
    Text,
}

impl Decoder {
    pub(super) fn split(&mut self, out: &mut Out, chunk: &[u8], base: u64, end: End, now: UnixNanos) -> usize {
        let mut used = Used::default();
        let waits = matches!(end, End::Open | End::Idle);
        if base == 0 {
            if waits && chunk.len() < 3 && [&b"\xEF\xBB\xBF"[..], b"\xFF\xFE", b"\xFE\xFF"].iter().any(|mark| mark.starts_with(chunk)) {
                return 0;
            }
            self.set_encoding(super::encoding_of(chunk));
            used.at = self.encoding.mark_bytes(chunk);
            if used.at > 0 {
                out.batch.law.skip(Skip::ByteOrderMark, used.at as u64);
            }
        }
        if self.owed != Next::Other && !chunk.is_empty() {
            let width = self.found.width();
            if waits && chunk.len() < width {
                return 0;
            }
            match (std::mem::take(&mut self.owed), self.found.next(chunk)) {
                (Next::Newline, Next::Newline) => used = Used { at: width, framing: width, last: Last::Newline, ..used },
                (Next::Zero, Next::Zero) => used = Used { at: width, nuls: width, last: Last::Nuls, ..used },
                // Not the bytes that were there before: whatever they are, they are new.
                (Next::Newline | Next::Zero | Next::Other, _) => {}
            }
        }
        self.whole_lines(out, chunk, base, &mut used, now);
        let unterminated = self.rest(out, chunk, base, end, &mut used, now);
        self.settle(out, base, end, unterminated, &mut used, now);
        out.batch.law.framing_bytes += used.framing as u64;
        if used.nuls > 0 {
            out.batch.law.skip(Skip::Nul, used.nuls as u64);
        }
        used.at
    }

    /// Every line whose newline is in the chunk.
    fn whole_lines(&mut self, out: &mut Out, chunk: &[u8], base: u64, used: &mut Used, now: UnixNanos) {
        let encoding = self.found;
        let width = encoding.width();
        while let Some(found) = encoding.find_newline(&chunk[used.at..]) {
            let stop = used.at + found;
            let nuls = if self.long.is_none() { leading_nuls(&chunk[used.at..stop], width) } else { 0 };
            let start = used.at + nuls;
            used.nuls += nuls;
            let line = Line { from: base + start as u64, position: base + (stop + width) as u64, notes: 0 };
            self.line(out, &chunk[start..stop], start, line, now);
            used.at = stop + width;
            used.framing += width;
            used.lines = true;
            used.last = Last::Newline;
        }
    }

    /// What follows the last newline. Was it taken as a line, for want of anything behind it?
    fn rest(&mut self, out: &mut Out, chunk: &[u8], base: u64, end: End, used: &mut Used, now: UnixNanos) -> bool {
        let width = self.found.width();
        let len = chunk.len();
        let zeros = match end {
            End::Hole | End::Cut { .. } => 0,
            End::Open | End::Idle | End::File | End::Log => trailing_characters(&chunk[used.at..], width),
        };
        let text_end = len - zeros;
        let nuls = if self.long.is_none() { leading_nuls(&chunk[used.at..text_end], width) } else { 0 };
        if nuls > 0 {
            used.at += nuls;
            used.nuls += nuls;
            used.last = Last::Nuls;
        }
        let text = &chunk[used.at..text_end];
        let from = base + used.at as u64;
        let max = self.rules.limits.line_bytes_max;
        match end {
            End::Open | End::Idle | End::Hole => {
                // One character stays unused, so that an end of the line which comes next is known to be seen.
                let take = text.len().saturating_sub(width) / width * width;
                if take > 0 && (self.long.is_some() || take > max) {
                    self.take_long(out, &text[..take], from);
                    used.at += take;
                    used.last = Last::Text;
                }
                false
            }
            End::Cut { held, next } => {
                let newline = next == Next::Newline;
                // A line that was left unfinished is longer than any line may be, and does not end here.
                self.owed = if held { next } else { Next::Other };
                let taken = newline || !held || (self.long.is_none() && text.len() <= max);
                if taken && (!text.is_empty() || self.long.is_some() || (newline && held)) {
                    let notes = if newline || held { 0 } else { Note::Unterminated.bit() };
                    self.line(out, text, used.at, Line { from, position: base + len as u64, notes }, now);
                    used.last = Last::Text;
                } else if !text.is_empty() {
                    self.take_long(out, text, from);
                    used.last = Last::Text;
                }
                used.at = len;
                false
            }
            End::File | End::Log => {
                let unterminated = !text.is_empty() || self.long.is_some();
                if unterminated {
                    let line = Line { from, position: base + len as u64, notes: Note::Unterminated.bit() };
                    self.line(out, text, used.at, line, now);
                    used.last = Last::Text;
                }
                if zeros > 0 {
                    used.nuls += zeros;
                    used.last = Last::Nuls;
                }
                used.at = len;
                // Half a character is no byte to give back either.
                unterminated || !zeros.is_multiple_of(width)
            }
        }
    }

    /// What is held becomes records if it is to; if something stays, so does a byte to name it by.
    fn settle(&mut self, out: &mut Out, base: u64, end: End, unterminated: bool, used: &mut Used, now: UnixNanos) {
        let to = base + used.at as u64;
        let holds = [self.joiner.holds(0), self.joiner.holds(1)];
        let goes = match end {
            // Without a byte that is used now there is no name in this file: `flush` finds one in an older file.
            End::Log | End::Cut { held: false, .. } => [used.at > 0; 2],
            End::File if unterminated => [true; 2],
            // Newer bytes may wait behind a chunk: only what was read to its end is known to be idle.
            End::Idle if self.long.is_none() && used.at > 0 && self.due(now) => [true; 2],
            End::Idle if self.long.is_none() && used.lines => [0, 1].map(|s| self.joiner.is_due(s, &self.rules, now) || self.is_far(s, to)),
            End::Open | End::Hole | End::File if self.long.is_none() && used.lines => [0, 1].map(|s| self.is_far(s, to)),
            _ => [false; 2],
        };
        let stays = (holds[0] && !goes[0]) || (holds[1] && !goes[1]);
        if stays && !matches!(end, End::Cut { .. }) {
            self.give_back(out, base, used);
        }
        for stream in 0..2 {
            if holds[stream] && goes[stream] {
                self.joiner.flush(out, stream, base + used.at as u64, &self.rules, now);
            }
        }
        if !stays {
            self.spare = None;
        } else if matches!(end, End::Cut { .. }) {
            self.spare = (self.owed != Next::Other).then_some(0).or(self.spare);
        }
        match end {
            End::File => {
                self.joiner.next_file();
                self.spare = self.spare.map(|files_ago| files_ago.saturating_add(1));
                self.owed = Next::Other;
            }
            End::Log => self.owed = Next::Other,
            End::Open | End::Idle | End::Hole | End::Cut { .. } => {}
        }
    }

    fn is_far(&self, stream: usize, to: u64) -> bool {
        let distance = |(files_ago, from): (u32, u64)| if files_ago == 0 { to.saturating_sub(from) } else { to };
        self.joiner.oldest(stream).is_some_and(|start| distance(start) > HELD_BYTES_MAX)
    }

    /// Leaves the last newline (or the last zero of a hole) unused; records named by it are named by where it starts.
    fn give_back(&mut self, out: &mut Out, base: u64, used: &mut Used) {
        let width = self.found.width();
        match used.last {
            Last::Nothing => return,
            Last::Text => {
                // Inside of a line that is too long; its end is a newline again.
                self.spare = None;
                return;
            }
            Last::Newline => {
                used.framing -= width;
                self.owed = Next::Newline;
            }
            Last::Nuls => {
                used.nuls -= width;
                self.owed = Next::Zero;
            }
        }
        used.at -= width;
        self.spare = Some(0);
        let to = base + used.at as u64;
        for position in out.batch.position.iter_mut().rev().take_while(|position| **position > to) {
            *position = to;
        }
    }

    /// One line, without its newline; `at`: where it stands in the chunk.
    #[inline(always)]
    fn line(&mut self, out: &mut Out, raw: &[u8], at: usize, mut line: Line, now: UnixNanos) {
        let returned = self.found.return_bytes(raw);
        if returned > 0 {
            out.batch.law.framing_bytes += returned as u64;
        }
        let mut raw = &raw[..raw.len() - returned];
        if self.long.is_some() {
            return self.end_long(out, raw, line, now);
        }
        if raw.len() > self.rules.limits.line_bytes_max {
            let kept = self.found.whole_characters(raw, self.rules.limits.line_bytes_max);
            out.batch.law.skip(Skip::LineTooLong, (raw.len() - kept) as u64);
            raw = &raw[..kept];
            line.notes |= Note::Truncated.bit();
        }
        match self.found {
            Encoding::Auto | Encoding::Utf8 => self.content(out, raw, Some(at), raw.len(), line, now),
            Encoding::Utf16Le | Encoding::Utf16Be => self.wide(out, raw, line, now),
        }
    }

    fn wide(&mut self, out: &mut Out, raw: &[u8], mut line: Line, now: UnixNanos) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        if !self.found.transcode(raw, &mut text) {
            line.notes |= Note::InvalidUtf8.bit();
        }
        self.content(out, &text, None, raw.len(), line, now);
        self.text = text;
    }

    /// A line's text, and what it is in this format.
    #[inline(always)]
    fn content(&mut self, out: &mut Out, bytes: &[u8], at: Option<usize>, origin_bytes: usize, line: Line, now: UnixNanos) {
        // A record starts with something printable far more often than not: look at one byte first.
        let blank = bytes.first().is_none_or(|first| *first <= b' ') && bytes.iter().all(u8::is_ascii_whitespace);
        let Line { from, position, notes } = line;
        let piece = Piece { bytes, at: at.map(|at| (at, 0)), time: b"", origin_bytes, from, position, notes, blank };
        match self.format {
            Format::Json | Format::Text => self.joiner.line(out, 0, piece, false, &self.rules, now),
            _ if blank => out.batch.law.skip(Skip::Blank, origin_bytes as u64),
            Format::Cri => self.cri(out, piece, now),
            Format::Docker => self.docker(out, piece, now),
            Format::Container if bytes[0] == b'{' => self.docker(out, piece, now),
            Format::Container => self.cri(out, piece, now),
        }
    }

    #[inline(always)]
    fn cri(&mut self, out: &mut Out, mut piece: Piece, now: UnixNanos) {
        let Some(parts) = cri::split(piece.bytes) else { return malformed(out, piece) };
        piece.time = &piece.bytes[..parts.time_len - 1];
        piece.bytes = &piece.bytes[parts.content..];
        piece.at = piece.at.map(|(start, _)| (start + parts.content, parts.content));
        if parts.unknown_tag {
            piece.notes |= Note::UnknownTag.bit();
        }
        self.joiner.line(out, parts.stream, piece, parts.partial, &self.rules, now);
    }

    fn docker(&mut self, out: &mut Out, mut piece: Piece, now: UnixNanos) {
        let mut log = std::mem::take(&mut self.log);
        match docker::split(piece.bytes, &mut log) {
            None => malformed(out, piece),
            Some(parts) => {
                if !parts.sound {
                    piece.notes |= Note::InvalidUtf8.bit();
                }
                // As a CRI line begins: whoever asks which output it came from finds it there.
                let mut head = [0; 80];
                let output: &[u8] = if parts.stream == 0 { b" stdout" } else { b" stderr" };
                let len = parts.time.len() + output.len();
                let time = match head.get_mut(..len) {
                    Some(head) => {
                        head[..parts.time.len()].copy_from_slice(parts.time);
                        head[parts.time.len()..].copy_from_slice(output);
                        &*head
                    }
                    None => parts.time,
                };
                let piece = Piece { bytes: &log, at: None, time, ..piece };
                self.joiner.line(out, parts.stream, piece, parts.partial, &self.rules, now);
            }
        }
        self.log = log;
    }

    /// Takes a piece of a line that is too long to wait for.
    #[cold]
    fn take_long(&mut self, out: &mut Out, piece: &[u8], from: u64) {
        let long = self.long.get_or_insert_with(|| Long::new(from));
        long.take(piece, self.rules.limits.line_bytes_max, &mut out.batch.law);
    }

    /// The last piece of a line that was too long to wait for.
    #[cold]
    fn end_long(&mut self, out: &mut Out, piece: &[u8], mut line: Line, now: UnixNanos) {
        self.take_long(out, piece, line.from);
        let Some(long) = self.long.take() else { return };
        let mut kept = long.head.len();
        out.batch.law.held_bytes -= kept as i64;
        if long.skipped > 0 {
            kept = self.found.whole_characters(&long.head, kept);
            line.notes |= Note::Truncated.bit();
            if kept < long.head.len() {
                out.batch.law.skip(Skip::LineTooLong, (long.head.len() - kept) as u64);
            }
        }
        let line = Line { from: long.from, ..line };
        let head = &long.head[..kept];
        match self.found {
            Encoding::Auto | Encoding::Utf8 => self.content(out, head, None, kept, line, now),
            Encoding::Utf16Le | Encoding::Utf16Be => self.wide(out, head, line, now),
        }
    }
}

/// A line of no shape its format knows: kept raw.
#[cold]
fn malformed(out: &mut Out, piece: Piece) {
    out.push(&Piece { notes: piece.notes | Note::NotCri.bit(), ..piece });
}

/// Bytes of the zero characters at the end of `bytes`, which start at a character of `width` bytes.
fn trailing_characters(bytes: &[u8], width: usize) -> usize {
    let zeros = trailing_nuls(bytes);
    let odd = bytes.len() % width;
    if zeros < odd { 0 } else { (zeros - odd) / width * width + odd }
}
