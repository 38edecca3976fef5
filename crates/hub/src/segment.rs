//! The files of the journal: `00000001.seg`, `00000002.seg` and so on, each a row of records, and for each a copy of its
//! checkpoint in `00000001.acct`, so that the account survives the loss of either file.
//!
//! A record is a header and a payload. Checkpoints, marks and frames of version 1:
//!
//! ```text
//! kind u32 | payload bytes u32 | seq u64 | crc32 of the payload | crc32 of the 20 bytes before
//! ```
//! Frames of version 2, whose payload is a head (all but the rows) and rows, each with a checksum of its own, so that heads
//! can be read alone, and damaged rows do not take the head with them:
//!
//! ```text
//! kind u32 | payload bytes u32 | seq u64 | synced u64 | head bytes u32 | crc32 of the head | crc32 of the rows | crc32 of the 36 bytes before
//! ```
//! Kinds: `WJC1` checkpoint, what all frames before add up to; it comes first. `WJF1`, `WJF2` frame, numbered without gaps.
//! `WJM1` mark: everything before it was durable. `synced` is the last frame that was durable when this one was written: where
//! a later record says so of a damaged one, that one was no torn tail. `WJL1` is the record of the file `losses`, `WJS1` one of
//! those of `state`.
//! The header has a checksum of its own so that a frame can be encoded and summed before it has a number.
//! Reading takes one record at a time, heads 64 KiB at a time: memory is bounded by the largest record.

use crate::account::Account;
use crate::disk::Disk;
use crate::frame::{FRAME_BYTES_MAX, Frame, LostReason};
use crate::ledger::RowCount;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Header of a checkpoint, a mark, a frame of version 1.
pub(crate) const HEADER_BYTES: usize = 24;
/// Header of a frame of version 2.
pub(crate) const FRAME_HEADER_BYTES: usize = 40;
/// What is read at once where heads are read one after the other.
const AHEAD: usize = 64 << 10;
const STEP: usize = 1 << 20;
/// Damaged files that are kept for somebody to look at; beyond, the oldest goes.
const ASIDE_MAX: usize = 4;
pub(crate) const NEWER: &str = "it was written by a newer version of weir";

/// Where a record starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub segment: u64,
    pub offset: u64,
    /// How often the segment had been rewritten: offsets of an older generation mean nothing.
    pub generation: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Checkpoint,
    Frame,
    Mark,
    Losses,
    State,
}

pub(crate) struct Header {
    pub kind: Kind,
    pub seq: u64,
    pub payload_bytes: usize,
    /// Frame of version 2: how much of the payload is its head. Else all of it.
    pub head_bytes: usize,
    crc_head: u32,
    crc_rows: u32,
    /// Frames up to this one were durable when this one was written.
    pub synced: u64,
    pub bytes: usize,
}

impl Header {
    /// Reads a header; `bytes` may go on behind it.
    fn parse(bytes: &[u8]) -> Result<Header, &'static str> {
        let cut_off = "the header of a record is cut off";
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        if bytes.len() < HEADER_BYTES {
            return Err(cut_off);
        }
        let kind = match &bytes[..4] {
            b"WJC1" => Kind::Checkpoint,
            b"WJF1" | b"WJF2" => Kind::Frame,
            b"WJM1" => Kind::Mark,
            b"WJL1" => Kind::Losses,
            b"WJS1" => Kind::State,
            [b'W', b'J', b'C' | b'F' | b'M' | b'L' | b'S', b'2'..=b'9'] => return Err(NEWER),
            _ => return Err("the header of a record is damaged"),
        };
        let long_form = &bytes[..4] == b"WJF2";
        let len = if long_form { FRAME_HEADER_BYTES } else { HEADER_BYTES };
        if bytes.len() < len {
            return Err(cut_off);
        }
        if crc32fast::hash(&bytes[..len - 4]) != word(len - 4) {
            return Err("the header of a record is damaged");
        }
        let (payload_bytes, seq) = (word(4) as usize, long(8));
        let header = if long_form {
            let (head_bytes, crc_head, crc_rows) = (word(24) as usize, word(28), word(32));
            Header { kind, seq, payload_bytes, head_bytes, crc_head, crc_rows, synced: long(16), bytes: len }
        } else {
            let synced = if kind == Kind::Mark { seq } else { seq.saturating_sub(1) };
            Header { kind, seq, payload_bytes, head_bytes: payload_bytes, crc_head: word(16), crc_rows: 0, synced, bytes: len }
        };
        if payload_bytes > FRAME_BYTES_MAX || header.head_bytes > payload_bytes {
            return Err("a record is larger than any");
        }
        Ok(header)
    }

    /// Offset behind the record that starts at `offset`.
    pub fn end(&self, offset: u64) -> u64 {
        offset + (self.bytes + self.payload_bytes) as u64
    }

    fn has_rows_apart(&self) -> bool {
        self.bytes == FRAME_HEADER_BYTES
    }
}

pub(crate) struct Record {
    pub kind: Kind,
    pub payload: Vec<u8>,
}

pub(crate) enum Read {
    Record(Record),
    /// The file ends here, between two records.
    End,
    /// What stands here is no whole record: torn by a crash, or damaged.
    Torn(&'static str),
}

pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.seg"))
}

/// The copy of a segment's checkpoint.
pub(crate) fn copy_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.acct"))
}

/// The number in a segment's name; `None` for any other file.
pub(crate) fn number(name: &Path) -> Option<u64> {
    number_with(name, ".seg")
}

/// The number in a name with this ending; `None` for any other file.
pub(crate) fn number_with(name: &Path, ending: &str) -> Option<u64> {
    let digits = name.to_str()?.strip_suffix(ending)?;
    if digits.len() < 8 || !digits.bytes().all(|b| b.is_ascii_digit()) { None } else { digits.parse().ok() }
}

/// A record of anything but a frame: the payload with its header.
pub(crate) fn record(kind: Kind, seq: u64, fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    fill(&mut bytes);
    let magic = match kind {
        Kind::Checkpoint => b"WJC1",
        Kind::Frame => b"WJF1",
        Kind::Mark => b"WJM1",
        Kind::Losses => b"WJL1",
        Kind::State => b"WJS1",
    };
    let (len, crc) = ((bytes.len() - HEADER_BYTES) as u32, crc32fast::hash(&bytes[HEADER_BYTES..]));
    bytes[0..4].copy_from_slice(magic);
    bytes[4..8].copy_from_slice(&len.to_le_bytes());
    bytes[8..16].copy_from_slice(&seq.to_le_bytes());
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..20]);
    bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    bytes
}

pub(crate) fn checkpoint(account: &Account) -> Vec<u8> {
    record(Kind::Checkpoint, account.seq, |out| account.encode(out))
}

/// A frame as it will be written, but for its number: room for the header, the head, the columns of the rows. The rows'
/// bytes follow, from where the frame has them.
#[derive(Default)]
pub(crate) struct Encoded {
    pub bytes: Vec<u8>,
    pub rows: RowCount,
    rows_bytes: usize,
    head_bytes: usize,
    crc_head: u32,
    crc_rows: u32,
}

impl Encoded {
    /// Encodes into `bytes`, whose memory is used again.
    pub fn of(frame: &Frame, mut bytes: Vec<u8>) -> Encoded {
        let rows = RowCount::of(frame);
        bytes.clear();
        bytes.resize(FRAME_HEADER_BYTES, 0);
        frame.encode_head(&rows, &mut bytes);
        let head_bytes = bytes.len() - FRAME_HEADER_BYTES;
        frame.rows.encode_columns(frame.version(), &mut bytes);
        let crc_head = crc32fast::hash(&bytes[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + head_bytes]);
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[FRAME_HEADER_BYTES + head_bytes..]);
        crc.update(&frame.rows.bytes);
        Encoded { bytes, rows, rows_bytes: frame.rows.bytes.len(), head_bytes, crc_head, crc_rows: crc.finalize() }
    }

    /// Length of the record.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.rows_bytes
    }

    /// What goes when the rows go.
    pub fn droppable_bytes(&self) -> u64 {
        (self.len() - FRAME_HEADER_BYTES - self.head_bytes) as u64
    }

    /// Fills in the header.
    pub fn seal(&mut self, seq: u64, synced: u64) {
        let payload = (self.len() - FRAME_HEADER_BYTES) as u32;
        let bytes = &mut self.bytes;
        bytes[0..4].copy_from_slice(b"WJF2");
        bytes[4..8].copy_from_slice(&payload.to_le_bytes());
        bytes[8..16].copy_from_slice(&seq.to_le_bytes());
        bytes[16..24].copy_from_slice(&synced.to_le_bytes());
        bytes[24..28].copy_from_slice(&(self.head_bytes as u32).to_le_bytes());
        bytes[28..32].copy_from_slice(&self.crc_head.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.crc_rows.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..36]);
        bytes[36..40].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Reads the record at the start of a file that is no segment, or a segment's checkpoint.
pub(crate) fn read(disk: &Disk, path: &Path, offset: u64) -> io::Result<Read> {
    let mut file = Bytes::open(disk, path)?;
    let header = match file.header(offset)? {
        At::Record(header) => header,
        At::End => return Ok(Read::End),
        At::Bad(what) => return Ok(Read::Torn(what)),
    };
    let payload = file.get(offset + header.bytes as u64, header.payload_bytes)?;
    if payload.len() != header.payload_bytes {
        return Ok(Read::Torn("a record is cut off"));
    }
    if header.has_rows_apart() || crc32fast::hash(payload) != header.crc_head {
        return Ok(Read::Torn("the checksum of a record does not match"));
    }
    Ok(Read::Record(Record { kind: header.kind, payload: payload.to_vec() }))
}

/// A file that is read from the front to the back, with gaps.
struct Bytes<'a> {
    disk: &'a Disk,
    path: &'a Path,
    len: u64,
    at: u64,
    held: Vec<u8>,
}

enum At {
    Record(Header),
    End,
    Bad(&'static str),
}

/// A frame without its rows.
pub(crate) struct Head {
    pub frame: Frame,
    pub rows: RowCount,
    /// The rows are damaged. Known where they were asked for.
    pub rows_damaged: bool,
    /// Bytes of the rows in the file.
    pub droppable_bytes: u64,
}

impl<'a> Bytes<'a> {
    fn open(disk: &'a Disk, path: &'a Path) -> io::Result<Bytes<'a>> {
        Ok(Bytes { disk, path, len: disk.len(path)?, at: 0, held: Vec::new() })
    }

    /// Bytes at `offset`; fewer at the end of the file.
    fn get(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let held = offset >= self.at && offset + len as u64 <= self.at + self.held.len() as u64;
        if !held {
            self.held = self.disk.read_at(self.path, offset, len.max(AHEAD))?;
            self.at = offset;
        }
        let start = (offset - self.at) as usize;
        Ok(&self.held[start..(start + len).min(self.held.len())])
    }

    fn header(&mut self, offset: u64) -> io::Result<At> {
        if offset >= self.len {
            return Ok(At::End);
        }
        let end = self.len;
        Ok(match Header::parse(self.get(offset, FRAME_HEADER_BYTES)?) {
            Ok(header) if header.end(offset) > end => At::Bad("a record is cut off"),
            Ok(header) => At::Record(header),
            Err(what) => At::Bad(what),
        })
    }

    /// Reads a frame without its rows; `verify`: looks at the rows, too.
    fn head(&mut self, offset: u64, header: &Header, verify: bool) -> io::Result<Result<Head, String>> {
        let start = offset + header.bytes as u64;
        if !header.has_rows_apart() {
            let payload = self.get(start, header.payload_bytes)?;
            if crc32fast::hash(payload) != header.crc_head {
                return Ok(Err("the checksum of a record does not match".into()));
            }
            return Ok(Frame::decode(payload).map_err(|e| e.to_string()).map(|mut frame| {
                frame.seq = header.seq;
                let rows = RowCount::of(&frame);
                let droppable_bytes = frame.rows.bytes.len() as u64;
                frame.rows = Default::default();
                Head { frame, rows, rows_damaged: false, droppable_bytes }
            }));
        }
        let bytes = self.get(start, header.head_bytes)?;
        if bytes.len() != header.head_bytes || crc32fast::hash(bytes) != header.crc_head {
            return Ok(Err("the checksum of a head does not match".into()));
        }
        let (mut frame, rows) = match Frame::decode_head(bytes) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(Err("a head is of another version than its record".into())),
            Err(e) => return Ok(Err(e.to_string())),
        };
        frame.seq = header.seq;
        let mut rows_damaged = false;
        let rows_len = header.payload_bytes - header.head_bytes;
        if verify {
            let mut crc = crc32fast::Hasher::new();
            let mut at = 0;
            while at < rows_len {
                let part = self.get(start + (header.head_bytes + at) as u64, (rows_len - at).min(STEP))?;
                if part.is_empty() {
                    break;
                }
                crc.update(part);
                at += part.len();
            }
            rows_damaged = crc.finalize() != header.crc_rows;
        }
        Ok(Ok(Head { frame, rows, rows_damaged, droppable_bytes: rows_len as u64 }))
    }

    /// Reads a whole frame; where only its rows are damaged, it comes without them.
    fn frame(&mut self, offset: u64, header: &Header) -> io::Result<Result<Frame, String>> {
        let Head { frame, rows, .. } = match self.head(offset, header, false)? {
            Ok(head) => head,
            Err(what) => return Ok(Err(what)),
        };
        let start = offset + header.bytes as u64;
        let payload = self.get(start, header.payload_bytes)?;
        if payload.len() != header.payload_bytes {
            return Ok(Err("a record is cut off".into()));
        }
        if !header.has_rows_apart() || crc32fast::hash(&payload[header.head_bytes..]) == header.crc_rows {
            return Ok(Frame::decode(payload).map_err(|e| e.to_string()).map(|whole| Frame { seq: header.seq, ..whole }));
        }
        Ok(Ok(frame.without_rows(&rows, LostReason::Damaged)))
    }

    /// The next offset from `from` on where a good record stands that is followed by another one, or by the end.
    fn resync(&mut self, from: u64) -> io::Result<u64> {
        let mut offset = from;
        while offset < self.len {
            let window = self.disk.read_at(self.path, offset, STEP + FRAME_HEADER_BYTES)?;
            for (i, _) in window.windows(2).enumerate().take(STEP).filter(|(_, w)| w == b"WJ") {
                let candidate = offset + i as u64;
                if let Ok(header) = Header::parse(&window[i..]) {
                    let end = header.end(candidate);
                    // Bytes of a log line may look like a record; they do not lead to the next one.
                    if end == self.len || (end < self.len && Header::parse(&self.disk.read_at(self.path, end, FRAME_HEADER_BYTES)?).is_ok())
                    {
                        return Ok(candidate);
                    }
                }
            }
            offset += STEP as u64;
        }
        Ok(self.len)
    }
}

/// What stands in a segment, from the front to the back.
pub(crate) enum Found {
    Checkpoint {
        account: Box<Account>,
        end: u64,
    },
    Frame {
        offset: u64,
        end: u64,
        synced: u64,
        head: Box<Head>,
    },
    Mark {
        seq: u64,
        end: u64,
    },
    /// Bytes that are nothing; good ones follow, or the end of the file.
    Bad {
        from: u64,
        to: u64,
        what: String,
    },
}

/// Reads a segment without the rows, finds good records behind damaged ones again. `verify`: looks at the rows, too. Returns
/// the length of the file. `each` returns whether to go on.
pub(crate) fn scan(disk: &Disk, path: &Path, tenants_max: usize, verify: bool, each: &mut dyn FnMut(Found) -> bool) -> io::Result<u64> {
    let mut file = Bytes::open(disk, path)?;
    let mut offset = 0;
    let mut last_seq = 0;
    loop {
        let (what, known_end) = match file.header(offset)? {
            At::End => return Ok(file.len),
            At::Bad(what) => (what.to_owned(), None),
            At::Record(header) => {
                let end = header.end(offset);
                let found = match header.kind {
                    Kind::Checkpoint if offset == 0 => checkpoint_at(&mut file, &header, tenants_max)?,
                    Kind::Frame if header.seq > last_seq => file.head(offset, &header, verify)?.map(|head| Found::Frame {
                        offset,
                        end,
                        synced: header.synced,
                        head: Box::new(head),
                    }),
                    Kind::Frame => Err(format!("frame {} stands behind frame {last_seq}", header.seq)),
                    Kind::Mark => Ok(Found::Mark { seq: header.seq, end }),
                    Kind::Checkpoint | Kind::Losses | Kind::State => Err("a record stands where none of its kind can".into()),
                };
                match found {
                    Ok(found) => {
                        if matches!(found, Found::Frame { .. }) {
                            last_seq = header.seq;
                        }
                        if !each(found) {
                            return Ok(file.len);
                        }
                        offset = end;
                        continue;
                    }
                    Err(what) => (what, Some(end)),
                }
            }
        };
        let follows = match known_end {
            Some(end) => matches!(file.header(end)?, At::Record(_) | At::End),
            None => false,
        };
        let to = if follows { known_end.unwrap_or(file.len) } else { file.resync(offset + 1)? };
        if !each(Found::Bad { from: offset, to, what }) {
            return Ok(file.len);
        }
        offset = to;
    }
}

/// What stands in a file whose records are read whole.
pub(crate) enum Piece<'a> {
    Record {
        kind: Kind,
        seq: u64,
        payload: &'a [u8],
        range: Range<u64>,
    },
    /// Bytes that are nothing; good ones follow, or the end.
    Bad {
        range: Range<u64>,
        what: String,
    },
}

/// Reads records whole, up to `end` or the end of the file, which is returned. `each` returns whether to go on.
pub(crate) fn pieces(disk: &Disk, path: &Path, end: u64, each: &mut dyn FnMut(Piece) -> io::Result<bool>) -> io::Result<u64> {
    let mut file = Bytes::open(disk, path)?;
    file.len = file.len.min(end);
    let mut offset = 0;
    while offset < file.len {
        let what = match file.header(offset)? {
            At::Record(header) if !header.has_rows_apart() => {
                let range = offset..header.end(offset);
                let payload = file.get(offset + header.bytes as u64, header.payload_bytes)?;
                if payload.len() == header.payload_bytes && crc32fast::hash(payload) == header.crc_head {
                    offset = range.end;
                    if !each(Piece::Record { kind: header.kind, seq: header.seq, payload, range })? {
                        break;
                    }
                    continue;
                }
                "the checksum of a record does not match"
            }
            At::Record(_) => "a frame stands there",
            At::Bad(what) => what,
            At::End => break,
        };
        let range = offset..file.resync(offset + 1)?;
        offset = range.end;
        if !each(Piece::Bad { range, what: what.into() })? {
            break;
        }
    }
    Ok(file.len)
}

fn checkpoint_at(file: &mut Bytes, header: &Header, tenants_max: usize) -> io::Result<Result<Found, String>> {
    let payload = file.get(header.bytes as u64, header.payload_bytes)?;
    if crc32fast::hash(payload) != header.crc_head {
        return Ok(Err("the checksum of the checkpoint does not match".into()));
    }
    let account = Account::decode(payload, tenants_max).map_err(|e| format!("the checkpoint: {e}"));
    Ok(account.map(|account| Found::Checkpoint { account: Box::new(account), end: header.end(0) }))
}

/// Finds the frame `seq` at `place` or behind it.
fn find<'a>(disk: &'a Disk, path: &'a Path, place: Place, seq: u64) -> io::Result<(Bytes<'a>, u64, Header)> {
    let wrong = |offset: u64, what: &str| {
        let text = format!(
            "{}: frame {seq} at byte {offset}: {what}; stop weir and start it again: it checks the journal and puts aside what is damaged",
            path.display(),
        );
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    let mut file = Bytes::open(disk, path)?;
    let mut offset = place.offset;
    loop {
        match file.header(offset)? {
            At::Record(header) if header.kind == Kind::Frame && header.seq >= seq => return Ok((file, offset, header)),
            At::Record(header) => offset = header.end(offset),
            At::End => return Err(wrong(offset, "the file ends there")),
            At::Bad(what) => return Err(wrong(offset, what)),
        }
    }
}

/// Reads the frame that `seq` is (part of) from `place` on; returns it and the offset behind it.
pub(crate) fn read_frame(disk: &Disk, dir: &Path, place: Place, seq: u64) -> io::Result<(Frame, u64)> {
    let path = path(dir, place.segment);
    let (mut file, offset, header) = find(disk, &path, place, seq)?;
    let frame = file.frame(offset, &header)?.and_then(|frame| covers(frame, seq));
    Ok((frame.map_err(|what| unreadable(&path, seq, offset, &what))?, header.end(offset)))
}

fn covers(frame: Frame, seq: u64) -> Result<Frame, String> {
    if frame.first_seq() <= seq { Ok(frame) } else { Err(format!("frame {} stands there", frame.seq)) }
}

fn unreadable(path: &Path, seq: u64, offset: u64, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: frame {seq} at byte {offset}: {what}", path.display()))
}

/// What a segment consists of when it is written anew.
pub(crate) enum Keep {
    Account(Box<Account>),
    /// Bytes of the file as it is.
    Bytes(Range<u64>),
    Frame(Box<Frame>),
}

/// Writes a segment anew beside the old one and makes it durable. Returns where its frames start, and its length.
pub(crate) fn prepare(disk: &Disk, dir: &Path, number: u64, keeps: &[Keep]) -> io::Result<(u64, u64)> {
    let old = path(dir, number);
    let mut file = disk.create_or_truncate(&new_path(&old))?;
    let (mut start, mut len) = (0, 0);
    let mut encoded = Encoded::default();
    for keep in keeps {
        match keep {
            Keep::Account(account) => {
                let bytes = checkpoint(account);
                file.append(&bytes)?;
                len += bytes.len() as u64;
                start = len; // it comes first
            }
            Keep::Bytes(range) => {
                let mut at = range.start;
                while at < range.end {
                    let bytes = disk.read_at(&old, at, STEP.min((range.end - at) as usize))?;
                    if bytes.is_empty() {
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} became shorter", old.display())));
                    }
                    file.append(&bytes)?;
                    at += bytes.len() as u64;
                }
                len += range.end - range.start;
            }
            Keep::Frame(frame) => {
                encoded = Encoded::of(frame, std::mem::take(&mut encoded.bytes));
                encoded.seal(frame.seq, frame.seq);
                file.append_both(&encoded.bytes, &frame.rows.bytes)?;
                len += encoded.len() as u64;
            }
        }
    }
    file.sync("journal.rewrite")?;
    Ok((start, len))
}

/// Puts the segment that was prepared in the old one's place. Durable after a sync of the folder.
pub(crate) fn replace(disk: &Disk, dir: &Path, number: u64) -> io::Result<()> {
    let path = path(dir, number);
    disk.rename(&new_path(&path), &path, "journal.replace")
}

pub(crate) fn new_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Gives a damaged file a second name that nobody but a reader of it will touch; returns that name. Bound: [`ASIDE_MAX`].
pub(crate) fn put_aside(disk: &Disk, dir: &Path, path: &Path, ending: &str) -> io::Result<PathBuf> {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    let aside = PathBuf::from(name);
    if disk.exists(&aside)? {
        disk.unlink(&aside)?;
    }
    disk.link(path, &aside, "hub.aside")?;
    let kept: Vec<PathBuf> = disk.list(dir)?.into_iter().filter(|n| n.to_str().is_some_and(|n| n.ends_with(".damaged"))).collect();
    for oldest in kept.iter().take(kept.len().saturating_sub(ASIDE_MAX)) {
        disk.unlink(&dir.join(oldest))?;
    }
    Ok(aside)
}
