//! Reads a journal folder after a stop or a crash: what the last run decided, and where to go on.
//!
//! A crash can leave only two kinds of damage: a torn tail of the last segment, and a last segment without its
//! checkpoint (the crash came while rolling). The first is cut, the second removed; both are reported. Anything else (a
//! segment missing in the middle, damage in an earlier one) is refused, and the error names the way out.
//! What survives is made durable before anybody sees it: after `kill -9` it may be in the page cache only.
//! Memory: one record at a time, and the account.

use crate::account::Account;
use crate::disk::Disk;
use crate::frame::Frame;
use crate::hub::OpenError;
use crate::ledger::RowCount;
use crate::segment::{self, Kind, Read};
use std::collections::VecDeque;
use std::io;
use std::path::Path;

/// One file of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub number: u64,
    /// Number of its first frame, or of the frame that will be its first.
    pub first_seq: u64,
    /// Offset of its first frame.
    pub start: u64,
    pub bytes: u64,
}

pub(crate) struct Found {
    pub account: Account,
    pub segments: VecDeque<Segment>,
    pub truncated_bytes: u64,
    pub notices: Vec<String>,
}

pub(crate) fn recover(disk: &Disk, dir: &Path, tenants_max: usize) -> Result<Found, OpenError> {
    let io = |e: io::Error| OpenError::io(dir, e);
    let mut found = Found { account: Account::new(tenants_max), segments: VecDeque::new(), truncated_bytes: 0, notices: Vec::new() };
    let mut numbers: Vec<u64> = disk.list(dir).map_err(io)?.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    if let Some(gap) = numbers.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
        return Err(missing(dir, gap[0] + 1));
    }
    remove_unfinished(disk, dir, &mut numbers, &mut found)?;
    let last = numbers.last().copied();
    for number in numbers {
        let path = segment::path(dir, number);
        let segment = read_segment(disk, dir, number, Some(number) == last, tenants_max, &mut found)?;
        if Some(number) == last {
            let length = disk.len(&path).map_err(io)?;
            found.truncated_bytes = length - segment.bytes;
            if found.truncated_bytes > 0 {
                found.notices.push(format!(
                    "{}: cut {} torn bytes behind frame {}",
                    path.display(),
                    found.truncated_bytes,
                    found.account.seq
                ));
            }
            cut(disk, &path, segment.bytes).map_err(io)?;
        }
        found.segments.push_back(segment);
    }
    // The name of the last segment may be in memory only, as its bytes were.
    disk.sync_dir(dir, "journal.recover").map_err(io)?;
    Ok(found)
}

/// Cuts what stands behind the last whole record, and makes durable what stands before.
pub(crate) fn cut(disk: &Disk, path: &Path, len: u64) -> io::Result<()> {
    disk.truncate(path, len, "journal.tail")
}

/// Removes a last segment that has no checkpoint: the crash came before it counted, so no frame was ever in it.
fn remove_unfinished(disk: &Disk, dir: &Path, numbers: &mut Vec<u64>, found: &mut Found) -> Result<(), OpenError> {
    let Some(last) = numbers.last().copied() else { return Ok(()) };
    let path = segment::path(dir, last);
    let what = match segment::read(disk, &path, 0).map_err(|e| OpenError::io(dir, e))? {
        Read::Record(record) if record.kind == Kind::Checkpoint => return Ok(()),
        Read::Record(_) => "it starts with a frame",
        Read::End => "it is empty",
        Read::Torn(what) => what,
    };
    if numbers.len() == 1 && last != 1 {
        return Err(OpenError::damaged(&path, 0, &format!("the only segment has no checkpoint ({what})"), START_OVER));
    }
    if segment::holds_frame(disk, &path).map_err(|e| OpenError::io(dir, e))? {
        return Err(OpenError::damaged(&path, 0, &format!("the checkpoint is damaged ({what}), but frames follow it"), START_OVER));
    }
    disk.unlink(&path).map_err(|e| OpenError::io(dir, e))?;
    found.notices.push(format!("{}: removed, the last run stopped before it was begun ({what})", path.display()));
    numbers.pop();
    Ok(())
}

const START_OVER: &str = "restore the file from a copy, or move the journal folder away: sources are then read from their beginning, \
                          and archive and lake skip what they have";

fn missing(dir: &Path, number: u64) -> OpenError {
    OpenError::damaged(&segment::path(dir, number), 0, "the segment is missing, but there are older and newer ones", START_OVER)
}

/// Folds one segment into the account.
fn read_segment(disk: &Disk, dir: &Path, number: u64, last: bool, tenants_max: usize, found: &mut Found) -> Result<Segment, OpenError> {
    let path = segment::path(dir, number);
    let damaged = |offset: u64, what: &str| OpenError::damaged(&path, offset, what, START_OVER);
    let io = |e: io::Error| OpenError::io(&path, e);
    let head = match segment::read(disk, &path, 0).map_err(io)? {
        Read::Record(record) if record.kind == Kind::Checkpoint => record,
        Read::Record(_) => return Err(damaged(0, "the segment starts without a checkpoint")),
        Read::End => return Err(damaged(0, "the segment is empty")),
        Read::Torn(what) => return Err(damaged(0, what)),
    };
    let account = Account::decode(&head.payload, tenants_max).map_err(|e| damaged(0, &format!("the checkpoint: {e}")))?;
    if found.segments.is_empty() {
        found.account = account;
    } else if account.seq != found.account.seq {
        let text = format!("the segment follows frame {}, but the one before it ends with frame {}", account.seq, found.account.seq);
        return Err(damaged(0, &text));
    }
    let mut segment = Segment { number, first_seq: found.account.seq + 1, start: head.end, bytes: head.end };
    loop {
        match segment::read(disk, &path, segment.bytes).map_err(io)? {
            Read::End => return Ok(segment),
            Read::Torn(_) if last => return Ok(segment),
            Read::Torn(what) => return Err(damaged(segment.bytes, what)),
            Read::Record(record) if record.kind == Kind::Frame && record.seq == found.account.seq + 1 => {
                let mut frame =
                    Frame::decode(&record.payload).map_err(|e| damaged(segment.bytes, &format!("frame {}: {e}", record.seq)))?;
                frame.seq = record.seq;
                found.account.fold(&frame, &RowCount::of(&frame));
                segment.bytes = record.end;
            }
            Read::Record(record) => {
                let text = format!("frame {} is expected, record {} stands there", found.account.seq + 1, record.seq);
                return Err(damaged(segment.bytes, &text));
            }
        }
    }
}
