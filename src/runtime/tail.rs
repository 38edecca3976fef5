//! A tail: one file, standard input, or what others send, as a lane reads it.
//!
//! In: an opened file and the position to go on at. Out: chunks of bytes from that position on, and what lies behind them:
//! more, nothing yet, an end, a truncation. A plain file is read at offsets, so what no line used is read again; a compressed
//! one and standard input are read once, so the rest is carried. Never `mmap`: a file may be truncated while it is read.
//! Memory: what is carried, at most a chunk or the longest line.

use crate::env;
use crate::sources::file::{BEFORE_BYTES, Found, before_hash, read_full};
use crate::sources::packed::{Packing, Rest, Unpacker};
use crate::sources::push::Pipe;
use crate::sources::rotated::Age;
use crate::sources::status::{FileId, FileStatus, State};
use flow::batch::Batch;
use flow::decode::{Decoder, Encoding};
use flow::event::{Position, Signal, StreamId};
use flow::units::UnixNanos;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What one read asks for: fits the second-level cache together with what is known about its records.
pub const CHUNK_BYTES: usize = 256 << 10;
/// Bytes behind a position that a replay looks at: the widest newline.
const LOOK_AHEAD: usize = 2;
/// Zeros that one look goes through: 64 MiB take about 10 ms.
const ZEROS_MAX: u64 = 64 << 20;
/// A torn compressed file that does not grow for so long is damaged.
const TORN_MAX: Duration = Duration::from_secs(30);
/// 1990-01-01, from which on times of records are taken: what packs files without their times writes 1970 or 1980.
const MODIFIED_MIN: i64 = 631_152_000 * flow::units::NANOS_PER_SECOND;

pub struct Tail {
    pub reader: Reader,
    pub stream: StreamId,
    /// Its log's files are read in this order.
    pub order: usize,
    pub done: u64,
    /// Parts of a record lie between here and `done`: read again, decided already.
    catch_up: Option<u64>,
    chunk_bytes: usize,
    /// The chunk is larger than usual, as a line did not fit.
    grown: bool,
    /// Nothing was read of it yet.
    pub fresh: bool,
    /// Nobody writes to it any more.
    pub copy: bool,
    /// The last bytes before `done`.
    before: Window,
    /// Hash of the bytes before `done` where the file has others: it was written anew since it was found.
    lost_before: Option<u64>,
    /// The last read brought less than it asked for: look before the next one.
    at_end: bool,
    /// What is unused are zeros: somebody may write over them.
    pub awaits_zeros: bool,
    /// Zeros were seen up to here, in a file of this size and time of change.
    zeros: (u64, u64, i64),
    /// How the head of the file says that it is encoded.
    pub encoding: Encoding,
    /// Bytes behind `done` that the last turn saw and did not use.
    pub unused_bytes: u64,
    pub silent_since: Instant,
    /// When it was first seen to be rotated away with bytes unread.
    pub rotated_since: Option<Instant>,
    pub status: Option<Arc<FileStatus>>,
    /// When the file was last changed before it was found; `None` where it says a time that no log is of (1970, or 1980), or is no file.
    pub modified: Option<UnixNanos>,
}

pub enum Reader {
    File { file: File, id: FileId },
    Packed { unpacker: Unpacker, id: FileId, carry: Vec<u8>, torn_since: Option<Instant> },
    Stdin { carry: Vec<u8>, ended: bool },
    Pipe { pipe: Arc<Pipe>, carry: Vec<u8> },
}

/// What lies behind the bytes that a read returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ahead {
    More,
    /// The file's end, for now.
    Nothing,
    /// The file's end, and no name leads to it any more.
    Gone,
    /// The file holds other bytes than those that were read of it.
    Truncated,
    /// It will not grow: standard input was closed, a compressed file is complete.
    Ended,
    /// A compressed file ends in the middle or is damaged, and nobody goes on writing it.
    Damaged,
}

/// What a look at a file's metadata says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// Something is to be read, or may be.
    Read,
    Same(Ahead),
}

/// The last bytes before a position.
struct Window {
    bytes: Vec<u8>,
}

impl Window {
    /// Takes bytes that were used.
    fn push(&mut self, used: &[u8]) {
        let last = &used[used.len().saturating_sub(BEFORE_BYTES)..];
        let kept = (BEFORE_BYTES - last.len()).min(self.bytes.len());
        self.bytes.drain(..self.bytes.len() - kept);
        self.bytes.extend_from_slice(last);
    }

    fn hash(&self) -> u64 {
        before_hash(&self.bytes)
    }
}

impl Tail {
    pub fn file(found: Found) -> std::io::Result<Tail> {
        let Position { resume, done, .. } = found.position;
        let mut before = Window { bytes: Vec::new() };
        let reader = match found.packing {
            Some(packing) => Reader::Packed {
                unpacker: open_at(&found.file, packing, resume, done, &mut before)?,
                id: found.id,
                carry: Vec::new(),
                torn_since: None,
            },
            None => {
                let len = done.min(BEFORE_BYTES as u64);
                before.bytes.resize(len as usize, 0);
                let read = read_full(&found.file, &mut before.bytes, done - len)?;
                before.bytes.truncate(read);
                Reader::File { file: found.file, id: found.id }
            }
        };
        let lost_before = Some(found.position.before).filter(|known| *known != 0 && before.hash() != *known);
        Ok(Tail {
            lost_before,
            reader,
            stream: found.stream,
            order: found.order,
            done,
            copy: found.copy,
            catch_up: (resume < done).then_some(resume),
            chunk_bytes: CHUNK_BYTES,
            grown: false,
            before,
            at_end: false,
            awaits_zeros: false,
            zeros: (0, 0, 0),
            encoding: found.encoding,
            unused_bytes: 0,
            silent_since: Instant::now(),
            rotated_since: None,
            fresh: true,
            status: Some(found.status),
            modified: Some(found.modified).filter(|time| time.0 >= MODIFIED_MIN),
        })
    }

    pub fn stdin(stream: StreamId) -> Tail {
        Tail::unseekable(Reader::Stdin { carry: Vec::new(), ended: false }, stream, 0)
    }

    /// What others send goes on where it ended.
    pub fn pipe(pipe: Arc<Pipe>) -> Tail {
        let (stream, start) = (pipe.stream, pipe.start);
        Tail::unseekable(Reader::Pipe { pipe, carry: Vec::new() }, stream, start)
    }

    /// What its records are.
    pub fn signal(&self) -> Signal {
        match &self.reader {
            Reader::Pipe { pipe, .. } => pipe.signal,
            _ => Signal::Logs,
        }
    }

    fn unseekable(reader: Reader, stream: StreamId, done: u64) -> Tail {
        Tail {
            reader,
            stream,
            order: 0,
            done,
            copy: false,
            catch_up: None,
            chunk_bytes: CHUNK_BYTES,
            grown: false,
            before: Window { bytes: Vec::new() },
            lost_before: None,
            at_end: false,
            awaits_zeros: false,
            zeros: (0, 0, 0),
            encoding: Encoding::Auto,
            unused_bytes: 0,
            silent_since: Instant::now(),
            rotated_since: None,
            fresh: true,
            status: None,
            modified: None,
        }
    }

    /// The older file of a log is read first: names tell, and the order in which they were registered.
    pub fn is_older(&self, other: &Tail) -> bool {
        (self.age(), self.order) < (other.age(), other.order)
    }

    fn age(&self) -> Option<Age> {
        self.status.as_ref().map(|status| status.age())
    }

    /// Whether names tell which of two files is older.
    pub fn compares(&self, other: &Tail) -> bool {
        self.age().zip(other.age()).is_none_or(|(ours, theirs)| ours.compares(&theirs))
    }

    pub fn id(&self) -> Option<FileId> {
        match &self.reader {
            Reader::File { id, .. } | Reader::Packed { id, .. } => Some(*id),
            Reader::Stdin { .. } | Reader::Pipe { .. } => None,
        }
    }

    /// Bytes that are there and not read; 0 where nobody can tell.
    pub fn behind_bytes(&self) -> u64 {
        let Reader::File { file, .. } = &self.reader else { return 0 };
        file.metadata().map_or(0, |meta| meta.len().saturating_sub(self.done))
    }

    /// Does no name lead to it any more?
    pub fn is_gone(&self) -> bool {
        let Reader::File { file, .. } = &self.reader else { return false };
        file.metadata().is_ok_and(|meta| meta.nlink() == 0)
    }

    /// What others send.
    pub fn pushed(&self) -> Option<&Arc<Pipe>> {
        if let Reader::Pipe { pipe, .. } = &self.reader { Some(pipe) } else { None }
    }

    pub fn is_packed(&self) -> bool {
        matches!(self.reader, Reader::Packed { .. })
    }

    /// Looks whether reading can bring anything, without reading.
    pub fn glance(&mut self) -> std::io::Result<Glance> {
        if let Reader::Pipe { pipe, .. } = &self.reader {
            return Ok(if pipe.is_empty() && self.unused_bytes == 0 { Glance::Same(Ahead::Nothing) } else { Glance::Read });
        }
        let Reader::File { file, .. } = &self.reader else { return Ok(Glance::Read) };
        if !self.at_end {
            return Ok(Glance::Read);
        }
        let meta = file.metadata()?;
        let size = meta.len();
        if let Some(status) = &self.status {
            status.size.store(size, Ordering::Relaxed);
        }
        let gone = || if meta.nlink() == 0 { Ahead::Gone } else { Ahead::Nothing };
        // A file of the same size may hold other bytes.
        if size < self.done || !self.before_is_there()? {
            return Ok(Glance::Same(Ahead::Truncated));
        }
        if size == self.done + self.unused_bytes && !self.awaits_zeros {
            return Ok(Glance::Same(gone()));
        }
        if size != self.done + self.unused_bytes {
            self.silent_since = Instant::now();
        }
        Ok(Glance::Read)
    }

    /// Whether what stands before the position is what was read.
    fn before_is_there(&self) -> std::io::Result<bool> {
        let Reader::File { file, .. } = &self.reader else { return Ok(true) };
        if self.lost_before.is_some() {
            return Ok(false);
        }
        if let Some(status) = self.status.as_ref().filter(|_| self.done == 0) {
            // It may have been written anew before its turn came.
            return status.head.is_in(file);
        }
        let mut bytes = [0; BEFORE_BYTES];
        let bytes = &mut bytes[..self.before.bytes.len()];
        let len = read_full(file, bytes, self.done - bytes.len() as u64)?;
        // A hole may be filled later: that is no other file.
        let same = bytes[..len].iter().zip(&self.before.bytes).all(|(there, read)| there == read || *read == 0);
        Ok(len == self.before.bytes.len() && same)
    }

    /// A chunk asks for so many bytes, unless a line needs more.
    pub fn bound_chunk(&mut self, bytes: usize) {
        if !self.grown {
            self.chunk_bytes = bytes;
        }
    }

    /// Fills the batch's arena with the bytes from `done` on, at most up to `cut`. `one_line`: a chunk that grew for one line
    /// holds that line only, so that what enrichment makes of many short ones has a bound.
    pub fn read(&mut self, batch: &mut Batch, cut: Option<u64>, one_line: bool) -> std::io::Result<Ahead> {
        let ahead = self.fill(batch, cut)?;
        // Asked after the read: a file that was written anew before it shows now.
        if ahead == Ahead::Truncated || !self.before_is_there()? {
            batch.arena.clear();
            return Ok(Ahead::Truncated);
        }
        if one_line
            && self.grown
            && matches!(self.reader, Reader::File { .. })
            && let Some(newline) = memchr::memchr(b'\n', batch.arena.get(1..).unwrap_or_default())
            && newline + 2 < batch.arena.len()
        {
            batch.arena.truncate(newline + 2);
            self.at_end = false;
            return Ok(Ahead::More);
        }
        Ok(ahead)
    }

    fn fill(&mut self, batch: &mut Batch, cut: Option<u64>) -> std::io::Result<Ahead> {
        // What stands behind a cut is looked at, not used.
        let reach = |cut: u64| usize::try_from(cut - self.done).unwrap_or(usize::MAX).saturating_add(LOOK_AHEAD);
        let room = cut.map_or(self.chunk_bytes, |cut| self.chunk_bytes.min(reach(cut)));
        match &mut self.reader {
            Reader::File { file, .. } => {
                batch.arena.resize(room, 0);
                let len = read_full(file, &mut batch.arena, self.done)?;
                batch.arena.truncate(len);
                let meta = file.metadata()?;
                let size = meta.len();
                if let Some(status) = &self.status {
                    status.size.store(size, Ordering::Relaxed);
                }
                let ahead = match size {
                    size if size < self.done => Ahead::Truncated,
                    size if size > self.done + len as u64 => Ahead::More,
                    _ if meta.nlink() == 0 => Ahead::Gone,
                    _ => Ahead::Nothing,
                };
                self.at_end = ahead != Ahead::More;
                Ok(ahead)
            }
            Reader::Packed { unpacker, carry, torn_since, .. } => {
                let had = carry.len();
                batch.arena.clear();
                batch.arena.append(carry);
                batch.arena.resize(had.max(room), 0);
                let read = unpacker.read(&mut batch.arena[had..]);
                let (len, rest) = match read {
                    Ok(read) => read,
                    Err(error) => {
                        batch.arena.truncate(had);
                        carry.extend_from_slice(&batch.arena);
                        return match error.kind() {
                            std::io::ErrorKind::InvalidData => Ok(Ahead::Damaged),
                            _ => Err(error),
                        };
                    }
                };
                batch.arena.truncate(had + len);
                if let Some(status) = &self.status {
                    status.size.store(unpacker.offset, Ordering::Relaxed);
                }
                if len > 0 {
                    *torn_since = None;
                }
                Ok(match rest {
                    Rest::More => Ahead::More,
                    Rest::End => Ahead::Ended,
                    Rest::Torn if torn_since.get_or_insert_with(Instant::now).elapsed() >= TORN_MAX => Ahead::Damaged,
                    Rest::Torn => Ahead::Nothing,
                })
            }
            Reader::Stdin { carry, ended } => {
                let had = carry.len();
                batch.arena.clear();
                batch.arena.append(carry);
                if !*ended && had < room {
                    batch.arena.resize(room, 0);
                    let len = read_stdin(&mut batch.arena[had..])?;
                    batch.arena.truncate(had + len.unwrap_or(0));
                    *ended = len == Some(0);
                }
                Ok(if *ended { Ahead::Ended } else { Ahead::More })
            }
            Reader::Pipe { pipe, carry } => {
                batch.arena.clear();
                batch.arena.append(carry);
                let room = room.saturating_sub(batch.arena.len());
                // Asked first: what was pushed before the end is read then.
                let is_awaited = pipe.is_awaited();
                let more = pipe.read(&mut batch.arena, room) || is_awaited;
                Ok(if more { Ahead::More } else { Ahead::Nothing })
            }
        }
    }

    /// Takes note of what lines used of the `read` bytes that the last read brought.
    /// `behind`: those of them that stand behind a cut, and were only looked at.
    pub fn used(&mut self, batch: &Batch, used: usize, read: usize, behind: &[u8], line_bytes_max: usize) {
        self.before.push(&batch.arena[..used]);
        self.done += used as u64;
        self.unused_bytes = (read - used) as u64;
        if let Reader::Stdin { carry, .. } | Reader::Packed { carry, .. } | Reader::Pipe { carry, .. } = &mut self.reader {
            carry.extend_from_slice(&batch.arena[used..read - behind.len()]);
            carry.extend_from_slice(behind);
        }
        if used == 0 && read >= self.chunk_bytes {
            // A line longer than the chunk: read more at once, until the decoder takes it as too long.
            self.chunk_bytes = (self.chunk_bytes * 2).min(line_bytes_max + CHUNK_BYTES);
            self.grown = true;
        } else if used > 0 {
            self.grown = false;
            self.chunk_bytes = self.chunk_bytes.min(CHUNK_BYTES);
        }
        if used > 0 {
            self.silent_since = Instant::now();
        }
    }

    /// How far it was read, `resume` being where the oldest unfinished part begins.
    pub fn position(&self, resume: u64) -> Position {
        Position { resume, done: self.done, before: self.lost_before.unwrap_or_else(|| self.before.hash()) }
    }

    /// What stands before the byte behind a newline that is left unused at the position.
    pub fn before_newline(&self) -> u64 {
        let mut window = Window { bytes: self.before.bytes.clone() };
        window.push(b"\n");
        window.hash()
    }

    pub fn show(&self, position: Position, state: State) {
        if let Some(status) = &self.status {
            status.set_position(position);
            status.set_state(state);
            if state != State::Failing {
                status.failing_since_ms.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Has nobody written to it for `grace`? By its own look, or by what the file says of itself.
    pub fn is_silent(&self, grace: Duration) -> bool {
        if self.copy || self.silent_since.elapsed() >= grace {
            return true;
        }
        let Reader::File { file, .. } = &self.reader else { return true };
        let now = env::now().0;
        file.metadata().is_ok_and(|meta| now.saturating_sub(meta.mtime().saturating_mul(1_000_000_000)) >= grace.as_nanos() as i64)
    }

    /// Parts of records that were read by the last run, and are not to be decided again.
    pub fn needs_catch_up(&self) -> bool {
        self.catch_up.is_some()
    }

    /// Reads the held parts of unfinished records again; every record in there was decided before.
    pub fn catch_up(&mut self, batch: &mut Batch, decoder: &mut Decoder, now: UnixNanos) -> std::io::Result<()> {
        let Some(from) = self.catch_up.take() else { return Ok(()) };
        let mut at = from;
        let mut rest = Vec::new();
        let mut chunk = CHUNK_BYTES;
        while at < self.done {
            batch.arena.clear();
            batch.arena.append(&mut rest);
            let had = batch.arena.len();
            // What stands behind the position is looked at, not used.
            let room = chunk.min(((self.done - at) as usize + LOOK_AHEAD).saturating_sub(had));
            batch.arena.resize(had + room, 0);
            let len = match &mut self.reader {
                Reader::File { file, .. } => read_full(file, &mut batch.arena[had..], at + had as u64)?,
                Reader::Packed { unpacker, .. } => unpacker.read(&mut batch.arena[had..])?.0,
                Reader::Stdin { .. } | Reader::Pipe { .. } => 0,
            };
            batch.arena.truncate(had + len);
            let bytes = batch.arena.clone();
            let used = decoder.replay(batch, at, self.done, now);
            rest.extend_from_slice(&bytes[used..]);
            at += used as u64;
            if used == 0 && len == 0 {
                break;
            }
            chunk = if used == 0 { chunk * 2 } else { CHUNK_BYTES };
        }
        if let Reader::Packed { carry, .. } = &mut self.reader {
            *carry = rest;
        }
        batch.arena.clear();
        batch.clear_records();
        Ok(())
    }

    /// Whether something that is not zero stands behind the bytes that the last read brought. Looks at [`ZEROS_MAX`] bytes at most.
    pub fn data_behind(&mut self, from: u64) -> std::io::Result<bool> {
        let Reader::File { file, .. } = &self.reader else { return Ok(true) };
        let meta = file.metadata()?;
        let print = (meta.len(), meta.mtime().wrapping_mul(1_000_000_000).wrapping_add(meta.mtime_nsec()));
        let known = self.zeros.0 > from && (self.zeros.1, self.zeros.2) == print;
        let mut at = if known { self.zeros.0 } else { from };
        let until = at + ZEROS_MAX;
        let mut bytes = vec![0; CHUNK_BYTES];
        let mut data = false;
        while at < until && !data {
            match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
                Ok(start) => at = start,
                // Nothing but a hole up to the end.
                Err(rustix::io::Errno::NXIO) => break,
                Err(_) => {}
            }
            let len = read_full(file, &mut bytes, at)?;
            if len == 0 {
                break;
            }
            data = bytes[..len].iter().any(|b| *b != 0);
            at += if data { 0 } else { len as u64 };
        }
        self.zeros = (at, print.0, print.1);
        Ok(data)
    }
}

/// A decompressor that stands at `resume`, and the bytes before `done`.
fn open_at(file: &File, packing: Packing, resume: u64, done: u64, before: &mut Window) -> std::io::Result<Unpacker> {
    let mut unpacker = Unpacker::open(file, packing)?;
    let len = done.min(BEFORE_BYTES as u64);
    unpacker.skip_to(done - len)?;
    before.bytes.resize(len as usize, 0);
    let read = unpacker.read(&mut before.bytes)?.0;
    before.bytes.truncate(read);
    if resume < done {
        unpacker = Unpacker::open(file, packing)?;
        unpacker.skip_to(resume)?;
    }
    Ok(unpacker)
}

/// Reads what standard input has within a moment: `None` if there is nothing yet, 0 at its end.
fn read_stdin(buffer: &mut [u8]) -> std::io::Result<Option<usize>> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdin = std::io::stdin();
    let moment = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let ready = poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&moment))?;
    if ready == 0 {
        return Ok(None);
    }
    stdin.lock().read(buffer).map(Some)
}
