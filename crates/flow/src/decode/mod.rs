//! Chunks to records: splits lines, joins what belongs together, bounds every line.
//!
//! In: the arena of a batch, holding bytes of one stream from a known offset. Out: records in the batch and
//! the number of bytes used; the rest is given again, in front of the next chunk. Read `lines` for how a chunk is
//! cut, then what a line may be (`cri`, `docker`), then `join` for records of several lines (`multiline`: which).
//! Memory: a line that does not fit `line_bytes_max` is cut there, the rest is skipped and counted (`long`); a
//! joined record is cut at its bound and noted as `partial`.
//!
//! **The unused newline.** While something is held (half a split line, lines of a group), the newline of the last
//! line stays unused, though the line itself was taken: `done` is one byte before the line's end. A record is
//! named by an offset, so what is held can still become a record when nothing more comes: named by that newline,
//! which is used then. If what is held outlives its file, so does the unused newline at the end of that file.

mod lines;
mod long;

mod cri;
mod docker;
mod encoding;

mod join;
mod multiline;

pub use encoding::{Encoding, encoding_of, trailing_nuls};
pub use multiline::{Multiline, MultilineConfig, Preset};

use crate::batch::Batch;
use crate::units::UnixNanos;
use join::{Joiner, Out, Rules};
use long::Long;

/// How a source's bytes are records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// Lines of text; no fields.
    Text,
    /// Lines of the container runtime interface, each holding (a part of) a JSON object or text.
    Cri,
    /// Lines of docker's json-file, each holding (a part of) a JSON object or text.
    Docker,
    /// Lines of a container runtime, CRI or docker, told apart line by line.
    Container,
}

/// What follows the bytes that are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// More bytes may come at once: an unfinished line waits for them.
    Open,
    /// Nothing for now: what was held for longer than its age becomes a record.
    ///
    /// All that is held at once, for there is one newline to name it by: it waits until all of it is old enough,
    /// unless new lines came in the same call. Nothing becomes a record while a line longer than
    /// `line_bytes_max` is under way.
    Idle,
    /// Something that is not zero, somewhere: zeros at the end are part of a hole and not space taken in advance.
    Hole,
    /// A position that was reached by decoding these bytes before, and decoding stopped there.
    ///
    /// All bytes are used. `held`: something was held then (`resume < done`), and is now; else nothing is.
    /// [`Decoder::decode_to`] finds out what is `next`.
    Cut { held: bool, next: Next },
    /// The log goes on in another file: a line ends with its file, a record of several lines does not. Only if the
    /// file's last line has no newline, a record ends with it too: there is no byte to name it by later.
    File,
    /// Nothing: what is unfinished is a record as it is. If [`Decoder::spare`] still names a file after the call (this
    /// one had no byte left to name what is held by), [`Decoder::flush`] makes the records.
    Log,
}

/// The character behind a position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Next {
    Newline,
    Zero,
    /// Another one, or none yet.
    #[default]
    Other,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest line, in bytes of its file.
    pub line_bytes_max: usize,
    /// Longest content of split lines joined.
    pub join_bytes_max: usize,
    /// How long half a split line waits for the rest after its last part was taken.
    pub join_age_ns: i64,
}

/// A record is given up to be joined when its log has gone on for so long: it would be read again after a restart.
const HELD_BYTES_MAX: u64 = 64 << 20;

/// Decodes one log: a path's rotation chain, in order. Keeps what is unfinished between chunks.
#[derive(Debug)]
pub struct Decoder {
    format: Format,
    rules: Rules,
    /// As the config says; `Auto` is decided at the head of each file.
    encoding: Encoding,
    found: Encoding,
    joiner: Joiner,
    /// A line longer than `line_bytes_max` whose end was not seen yet.
    long: Option<Long>,
    /// What was left unused though it is decided: the newline of a line that was taken, or the last zero of a hole.
    owed: Next,
    /// Where the unused byte lies by which what is held can be named: how many files ago.
    spare: Option<u32>,
    joined: Vec<u8>,
    text: Vec<u8>,
    log: Vec<u8>,
}

impl Decoder {
    pub fn new(format: Format, limits: Limits) -> Decoder {
        Decoder {
            format,
            rules: Rules { limits, multiline: None },
            encoding: Encoding::Auto,
            found: Encoding::Utf8,
            joiner: Joiner::default(),
            long: None,
            owed: Next::Other,
            spare: None,
            joined: Vec::new(),
            text: Vec::new(),
            log: Vec::new(),
        }
    }

    /// The same decoder for lines that belong together, or for another encoding.
    pub fn with(mut self, multiline: Option<Multiline>, encoding: Encoding) -> Decoder {
        self.rules.multiline = multiline;
        self.encoding = encoding;
        self.set_encoding(Encoding::Utf8);
        self
    }

    /// Tells what [`encoding_of`] found at the head of a file whose head is not going to be decoded. What the
    /// config says goes before it.
    pub fn set_encoding(&mut self, found: Encoding) {
        self.found = if self.encoding == Encoding::Auto { found } else { self.encoding };
    }

    /// Splits the arena, which stands at offset `base` of its stream, into records.
    ///
    /// `now`: any clock that does not go back; ages are measured from the call that took the last line held.
    /// Returns the number of bytes used; the others are given again, in front of those that follow them. If they
    /// end with zeros ([`trailing_nuls`]), call again with `End::Hole` once something else was seen behind them.
    pub fn decode(&mut self, batch: &mut Batch, base: u64, end: End, now: UnixNanos) -> usize {
        batch.clear_records();
        self.joiner.not_before(now);
        let chunk = std::mem::take(&mut batch.arena);
        let mut joined = std::mem::take(&mut self.joined);
        let mut out = Out { batch, joined: &mut joined, chunk_len: chunk.len() };
        let used = self.split(&mut out, &chunk, base, end, now);
        self.give_joined(batch, chunk, joined);
        used
    }

    /// Decodes up to `to`, a position at which an earlier run stood, and stops there as it did.
    ///
    /// `held`: something was held then (`resume < done`). The arena stands at `base` and may reach over `to`: what
    /// lies behind is only looked at, and the last call needs the next two bytes if the file has them. Call until all
    /// bytes up to `to` are used; returns how many were.
    pub fn decode_to(&mut self, batch: &mut Batch, base: u64, to: u64, held: bool, now: UnixNanos) -> usize {
        let left = usize::try_from(to.saturating_sub(base)).unwrap_or(usize::MAX);
        let mut end = End::Hole;
        if left <= batch.arena.len() {
            let auto = base == 0 && self.encoding == Encoding::Auto;
            let encoding = if auto { encoding_of(&batch.arena) } else { self.found };
            end = End::Cut { held, next: encoding.next(&batch.arena[left..]) };
            batch.arena.truncate(left);
        }
        self.decode(batch, base, end, now)
    }

    /// Reads again what was decided before a restart: nothing becomes a record, what is unfinished is held again.
    /// As [`Decoder::decode_to`] else; `done` is where the earlier run stood.
    pub fn replay(&mut self, batch: &mut Batch, base: u64, done: u64, now: UnixNanos) -> usize {
        let used = self.decode_to(batch, base, done, true, now);
        batch.clear_records();
        used
    }

    /// What is held becomes records named by `position`, without a byte of the present file: for what is held from
    /// older files while the present one has no line yet ([`Decoder::spare`] is 1 or more), or at the end of the log.
    ///
    /// `position` lies behind the newline that was left unused at the end of that older file. Returns that newline's
    /// bytes, which are used: the records are a part of their own of that file's stream.
    pub fn flush(&mut self, batch: &mut Batch, position: u64) -> usize {
        batch.clear_records();
        batch.arena.clear();
        let mut joined = std::mem::take(&mut self.joined);
        let mut out = Out { batch, joined: &mut joined, chunk_len: 0 };
        for stream in 0..2 {
            self.joiner.flush(&mut out, stream, position, &self.rules, UnixNanos(0));
        }
        let used = self.found.width();
        batch.law.framing_bytes += used as u64;
        self.spare = None;
        self.give_joined(batch, Vec::new(), joined);
        used
    }

    /// How many files ago the newline lies by which what is held can be named: 0 in the present one, where a call of
    /// `decode` with `End::Idle` uses it; `None` if nothing is held, or a long line is under way.
    pub fn spare(&self) -> Option<u32> {
        self.spare
    }

    /// Is everything held so old that it is to become records? If so, a turn with `End::Idle` makes them, or, where
    /// [`Decoder::spare`] is 1 or more, [`Decoder::flush`].
    pub fn due(&self, now: UnixNanos) -> bool {
        let due = |stream| !self.joiner.holds(stream) || self.joiner.is_due(stream, &self.rules, now);
        self.long.is_none() && !self.joiner.is_empty() && due(0) && due(1)
    }

    /// Start of the oldest line that is held and began `files_ago` files ago (0: in the present one).
    pub fn oldest_held(&self, files_ago: u32) -> Option<u64> {
        let long = self.long.as_ref().filter(|_| files_ago == 0).map(|long| long.from);
        self.joiner.starts().filter(|start| start.0 == files_ago).map(|start| start.1).chain(long).min()
    }

    fn give_joined(&mut self, batch: &mut Batch, chunk: Vec<u8>, mut joined: Vec<u8>) {
        batch.arena = chunk;
        batch.arena.extend_from_slice(&joined);
        joined.clear();
        self.joined = joined;
    }
}

#[cfg(test)]
mod tests;
