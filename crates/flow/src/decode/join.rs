//! Records that take several lines: split by the container runtime, or written in several lines.
//!
//! In: lines' contents, each with its stream (stdout and stderr may interleave). Out: records. Parts of a split
//! line are joined as they are; then, where the config asks for it, lines that belong together are joined with
//! newlines between them. A joined record owns all its lines' bytes and has the time of the first. Memory: per
//! stream one split line (`join_bytes_max` and a line) and one group of lines (`bytes_max` and a line); at
//! the bound what is held is a record noted as `partial`, and the rest another one.

use super::Limits;
use super::multiline::{Multiline, Role, State};
use crate::batch::Batch;
use crate::event::{Note, Skip};
use crate::units::UnixNanos;

/// A record that reaches over so many files is emitted as it is: each of them holds back its position.
const FILES_MAX: usize = 64;

/// Where records go: into the batch; joined content into a buffer that is to stand behind the chunk.
pub(super) struct Out<'a> {
    pub batch: &'a mut Batch,
    pub joined: &'a mut Vec<u8>,
    pub chunk_len: usize,
}

/// What one line holds, on its way to a record.
pub(super) struct Piece<'a> {
    pub bytes: &'a [u8],
    /// Where `bytes` stand in the chunk, and how many bytes before them the runtime's prefix begins.
    pub at: Option<(usize, usize)>,
    /// The runtime's time; empty where there is none.
    pub time: &'a [u8],
    /// Bytes of the line in its stream, without its end.
    pub origin_bytes: usize,
    /// Offset of the line's first byte.
    pub from: u64,
    /// Offset behind the line's newline: what the record is named by.
    pub position: u64,
    pub notes: u32,
    /// A line of white space in a source of plain lines: no record by itself.
    pub blank: bool,
}

/// What is unfinished, for stdout and stderr.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    parts: [Held; 2],
    groups: [Held; 2],
}

#[derive(Debug, Default)]
struct Held {
    open: bool,
    /// The first line's time and a blank, then the content of all lines.
    content: Vec<u8>,
    /// Bytes of the time and the blank; 0 where there is none.
    time_len: usize,
    origin_bytes: usize,
    /// Where the first line of each file starts: how many files ago, and the offset there; oldest first.
    starts: Vec<(u32, u64)>,
    notes: u32,
    lines: usize,
    state: State,
    /// When the last line was taken.
    taken: UnixNanos,
}

impl Out<'_> {
    /// A record that stands in the chunk, or is copied behind it.
    #[inline(always)]
    pub fn push(&mut self, piece: &Piece) {
        let (start, prefix) = match piece.at {
            Some(at) => at,
            None => {
                if !piece.time.is_empty() {
                    self.joined.extend_from_slice(piece.time);
                    self.joined.push(b' ');
                }
                let start = self.chunk_len + self.joined.len();
                self.joined.extend_from_slice(piece.bytes);
                (start, if piece.time.is_empty() { 0 } else { piece.time.len() + 1 })
            }
        };
        self.batch.push(start, start + piece.bytes.len(), piece.position, piece.origin_bytes, piece.notes);
        if prefix > 0 {
            self.batch.set_prefix(prefix);
        }
    }
}

impl Joiner {
    /// One line of `stream`; its record goes on with the stream's next line if `partial`.
    #[inline(always)]
    pub fn line(&mut self, out: &mut Out, stream: usize, piece: Piece, partial: bool, rules: &Rules, now: UnixNanos) {
        if !partial && !self.parts[stream].open {
            return self.whole(out, stream, &piece, None, rules, now);
        }
        self.part(out, stream, piece, partial, rules, now);
    }

    fn part(&mut self, out: &mut Out, stream: usize, piece: Piece, partial: bool, rules: &Rules, now: UnixNanos) {
        let held = &self.parts[stream];
        if held.open && held.content.len() + piece.bytes.len() > rules.limits.join_bytes_max + held.time_len {
            self.end_parts(out, stream, piece.position, Note::Partial.bit(), rules, now);
        }
        let held = &mut self.parts[stream];
        held.add(&piece, &[(0, piece.from)], now);
        out.batch.law.held_bytes += piece.origin_bytes as i64;
        let too_wide = held.starts.len() > FILES_MAX;
        if !partial || too_wide {
            let notes = if partial { Note::Partial.bit() } else { 0 };
            self.end_parts(out, stream, piece.position, notes, rules, now);
        }
    }

    /// The parts of a split line are a line now.
    fn end_parts(&mut self, out: &mut Out, stream: usize, position: u64, notes: u32, rules: &Rules, now: UnixNanos) {
        if !self.parts[stream].open {
            return;
        }
        let mut held = std::mem::take(&mut self.parts[stream]);
        out.batch.law.held_bytes -= held.origin_bytes as i64;
        let piece = Piece { position, notes: held.notes | notes, ..held.piece() };
        self.whole(out, stream, &piece, Some(&held.starts), rules, now);
        held.clear();
        self.parts[stream] = held;
    }

    /// A line that is whole: a record, or one of a group. `starts`: where it began, if not all in one piece.
    #[inline(always)]
    fn whole(&mut self, out: &mut Out, stream: usize, piece: &Piece, starts: Option<&[(u32, u64)]>, rules: &Rules, now: UnixNanos) {
        match &rules.multiline {
            None if piece.blank => out.batch.law.skip(Skip::Blank, piece.origin_bytes as u64),
            None => out.push(piece),
            Some(multiline) => self.group(out, stream, piece, starts, multiline, now),
        }
    }

    fn group(&mut self, out: &mut Out, stream: usize, piece: &Piece, starts: Option<&[(u32, u64)]>, multiline: &Multiline, now: UnixNanos) {
        let group = &mut self.groups[stream];
        let full = group.lines >= multiline.lines_max
            || group.content.len() + piece.bytes.len() >= multiline.bytes_max + group.time_len
            || group.starts.len() > FILES_MAX;
        let mut role = multiline.role(group.open.then_some(group.state), piece.bytes);
        if full && matches!(role, Role::Next { .. }) {
            group.emit(out, piece.position, Note::Partial.bit());
            // The rest is judged by itself: after a restart nobody knows what came before it.
            role = multiline.role(None, piece.bytes);
        }
        let (state, last) = match role {
            Role::Next { state, last } => {
                group.content.push(b'\n');
                (state, last)
            }
            Role::First { state } if !piece.blank => {
                group.emit(out, piece.position, 0);
                (state, false)
            }
            Role::First { .. } | Role::Alone => {
                group.emit(out, piece.position, 0);
                match piece.blank {
                    true => out.batch.law.skip(Skip::Blank, piece.origin_bytes as u64),
                    false => out.push(piece),
                }
                return;
            }
        };
        group.add(piece, starts.unwrap_or(&[(0, piece.from)]), now);
        group.state = state;
        out.batch.law.held_bytes += piece.origin_bytes as i64;
        if last {
            group.emit(out, piece.position, 0);
        }
    }

    /// What is held for `stream` becomes records, named by `position`.
    pub fn flush(&mut self, out: &mut Out, stream: usize, position: u64, rules: &Rules, now: UnixNanos) {
        self.end_parts(out, stream, position, Note::Partial.bit(), rules, now);
        self.groups[stream].emit(out, position, 0);
    }

    pub fn is_empty(&self) -> bool {
        !self.holds(0) && !self.holds(1)
    }

    pub fn holds(&self, stream: usize) -> bool {
        self.parts[stream].open || self.groups[stream].open
    }

    /// Has nothing come for `stream` for so long that what is held for it is to be a record?
    ///
    /// A split line may yet go on with the group before it, so the group waits for its end.
    pub fn is_due(&self, stream: usize, rules: &Rules, now: UnixNanos) -> bool {
        let old = |held: &Held, age_ns: i64| held.open && now.0.saturating_sub(held.taken.0) >= age_ns;
        let group_age_ns = rules.multiline.as_ref().map_or(0, |multiline| multiline.age_ns);
        match self.parts[stream].open {
            true => old(&self.parts[stream], rules.limits.join_age_ns),
            false => old(&self.groups[stream], group_age_ns),
        }
    }

    /// A clock that was set back must not hold anything for longer than its age.
    pub fn not_before(&mut self, now: UnixNanos) {
        for held in self.parts.iter_mut().chain(&mut self.groups) {
            held.taken = held.taken.min(now);
        }
    }

    /// Where the lines held start in each file: how many files ago, and the offset there.
    pub fn starts(&self) -> impl Iterator<Item = (u32, u64)> {
        self.parts.iter().chain(&self.groups).filter(|held| held.open).flat_map(|held| held.starts.iter().copied())
    }

    /// Where the oldest line held for `stream` starts.
    pub fn oldest(&self, stream: usize) -> Option<(u32, u64)> {
        let held = [&self.groups[stream], &self.parts[stream]];
        held.into_iter().find(|held| held.open).and_then(|held| held.starts.first().copied())
    }

    /// What is held now starts one more file ago.
    pub fn next_file(&mut self) {
        for held in self.parts.iter_mut().chain(&mut self.groups) {
            for start in &mut held.starts {
                start.0 += 1;
            }
        }
    }
}

/// How lines become records.
#[derive(Debug)]
pub(super) struct Rules {
    pub limits: Limits,
    pub multiline: Option<Multiline>,
}

impl Held {
    fn piece(&self) -> Piece<'_> {
        Piece {
            bytes: &self.content[self.time_len..],
            at: None,
            time: &self.content[..self.time_len.saturating_sub(1)],
            origin_bytes: self.origin_bytes,
            from: 0,
            position: 0,
            notes: self.notes,
            blank: false,
        }
    }

    fn add(&mut self, piece: &Piece, starts: &[(u32, u64)], now: UnixNanos) {
        if !self.open {
            self.open = true;
            if !piece.time.is_empty() {
                self.content.extend_from_slice(piece.time);
                self.content.push(b' ');
            }
            self.time_len = self.content.len();
        }
        self.content.extend_from_slice(piece.bytes);
        self.origin_bytes += piece.origin_bytes;
        self.notes |= piece.notes;
        self.lines += 1;
        self.taken = now;
        for start in starts {
            // Lines come in order: only the first one of a file starts something.
            if self.starts.last().is_none_or(|last| last.0 > start.0) {
                self.starts.push(*start);
            }
        }
    }

    fn emit(&mut self, out: &mut Out, position: u64, notes: u32) {
        if !self.open {
            return;
        }
        out.batch.law.held_bytes -= self.origin_bytes as i64;
        let piece = self.piece();
        out.push(&Piece { position, notes: self.notes | notes, ..piece });
        self.clear();
    }

    fn clear(&mut self) {
        self.open = false;
        self.content.clear();
        self.time_len = 0;
        self.origin_bytes = 0;
        self.starts.clear();
        self.notes = 0;
        self.lines = 0;
        self.state = 0;
    }
}
