//! The files of the journal: `00000001.seg`, `00000002.seg` and so on, each a row of records.
//!
//! A record is a header of 24 bytes and a payload:
//!
//! ```text
//! kind u32 ("WJC1" checkpoint, "WJF1" frame) | payload bytes u32 | seq u64 | crc32 of the payload | crc32 of the 20 bytes before
//! ```
//! The first record of a segment is a checkpoint: what all frames before it add up to. All others are frames, numbered
//! without gaps. The header has a checksum of its own so that a frame can be encoded and summed before it has a number.
//! Reading takes one record at a time: memory is bounded by the largest record.

use crate::disk::Disk;
use crate::frame::{FRAME_BYTES_MAX, Frame};
use std::io;
use std::path::{Path, PathBuf};

pub(crate) const HEADER_BYTES: usize = 24;

/// Where a record starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub segment: u64,
    pub offset: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Checkpoint,
    Frame,
}

impl Kind {
    fn magic(self) -> u32 {
        match self {
            Kind::Checkpoint => u32::from_le_bytes(*b"WJC1"),
            Kind::Frame => u32::from_le_bytes(*b"WJF1"),
        }
    }
}

pub(crate) struct Record {
    pub kind: Kind,
    pub seq: u64,
    pub payload: Vec<u8>,
    /// Offset behind the record.
    pub end: u64,
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

/// The number in a segment's name; `None` for any other file.
pub(crate) fn number(name: &Path) -> Option<u64> {
    let digits = name.to_str()?.strip_suffix(".seg")?;
    if digits.len() < 8 || !digits.bytes().all(|b| b.is_ascii_digit()) { None } else { digits.parse().ok() }
}

/// Fills in the header that was left free at the start of `record`. `crc` is that of the payload.
pub(crate) fn seal(record: &mut [u8], kind: Kind, seq: u64, crc: u32) {
    let len = (record.len() - HEADER_BYTES) as u32;
    record[0..4].copy_from_slice(&kind.magic().to_le_bytes());
    record[4..8].copy_from_slice(&len.to_le_bytes());
    record[8..16].copy_from_slice(&seq.to_le_bytes());
    record[16..20].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32fast::hash(&record[..20]);
    record[20..24].copy_from_slice(&crc.to_le_bytes());
}

/// Whether the header of a frame stands anywhere in a file. Reads a MiB at a time.
pub(crate) fn holds_frame(disk: &Disk, path: &Path) -> io::Result<bool> {
    const STEP: usize = 1 << 20;
    let magic = Kind::Frame.magic().to_le_bytes();
    let mut offset = 0;
    loop {
        let bytes = disk.read_at(path, offset, STEP + HEADER_BYTES)?;
        let is_header = |header: &[u8]| header[..4] == magic && crc32fast::hash(&header[..20]).to_le_bytes() == header[20..24];
        if bytes.windows(HEADER_BYTES).any(is_header) {
            return Ok(true);
        }
        if bytes.len() < STEP + HEADER_BYTES {
            return Ok(false);
        }
        offset += STEP as u64;
    }
}

pub(crate) fn read(disk: &Disk, path: &Path, offset: u64) -> io::Result<Read> {
    let header = disk.read_at(path, offset, HEADER_BYTES)?;
    if header.is_empty() {
        return Ok(Read::End);
    }
    let Ok(header) = <[u8; HEADER_BYTES]>::try_from(header) else {
        return Ok(Read::Torn("the header of a record is cut off"));
    };
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    if crc32fast::hash(&header[..20]) != word(20) {
        return Ok(Read::Torn("the header of a record is damaged"));
    }
    let kind = match word(0) {
        magic if magic == Kind::Checkpoint.magic() => Kind::Checkpoint,
        magic if magic == Kind::Frame.magic() => Kind::Frame,
        _ => return Ok(Read::Torn("a record is of no known kind")),
    };
    let len = word(4) as usize;
    if len > FRAME_BYTES_MAX {
        return Ok(Read::Torn("a record is larger than any"));
    }
    let payload = disk.read_at(path, offset + HEADER_BYTES as u64, len)?;
    if payload.len() != len {
        return Ok(Read::Torn("a record is cut off"));
    }
    if crc32fast::hash(&payload) != word(16) {
        return Ok(Read::Torn("the checksum of a record does not match"));
    }
    let seq = u64::from_le_bytes(header[8..16].try_into().expect("eight bytes"));
    Ok(Read::Record(Record { kind, seq, payload, end: offset + (HEADER_BYTES + len) as u64 }))
}

/// Reads the frame `seq` that must stand at `place`; returns it and the offset behind it.
pub(crate) fn read_frame(disk: &Disk, dir: &Path, place: Place, seq: u64) -> io::Result<(Frame, u64)> {
    let path = path(dir, place.segment);
    let wrong = |what: &str| {
        let text = format!(
            "{}: frame {seq} at byte {}: {what}; stop weir and start it again: it checks the journal and says what can be done",
            path.display(),
            place.offset
        );
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    match read(disk, &path, place.offset)? {
        Read::Record(record) if record.kind == Kind::Frame && record.seq == seq => {
            let mut frame = Frame::decode(&record.payload).map_err(|e| wrong(&e.to_string()))?;
            frame.seq = seq;
            Ok((frame, record.end))
        }
        Read::Record(_) => Err(wrong("another record stands there")),
        Read::End => Err(wrong("the file ends there")),
        Read::Torn(what) => Err(wrong(what)),
    }
}
