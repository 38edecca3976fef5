//! Looks at a journal folder from outside: while a process writes to it, or when none does. Never changes anything.
//!
//! In: a folder. Out: its segments, what is wrong with them, its frames. Files that are deleted meanwhile are passed over, and
//! the last segment may grow: a torn end of it is no damage. Memory: one frame, and an account.

use crate::account::Account;
use crate::disk::Disk;
use crate::frame::Frame;
use crate::ledger::RowCount;
use crate::recover;
use crate::segment::{self, Found};
use crate::state;
use flow::units::UnixNanos;
use std::io;
use std::path::{Path, PathBuf};

/// One segment.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    pub path: PathBuf,
    pub bytes: u64,
    pub frames: u64,
    /// Frames whose rows are gone.
    pub frames_lost: u64,
    /// Kept records whose rows are there.
    pub rows: u64,
    pub rows_bytes: u64,
    pub first_seq: Option<u64>,
    pub last_seq: Option<u64>,
    /// When its first and last frame were closed.
    pub oldest: Option<UnixNanos>,
    pub newest: Option<UnixNanos>,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub path: PathBuf,
    pub offset: u64,
    pub what: String,
}

#[derive(Clone, Debug, Default)]
pub struct Report {
    pub segments: Vec<Segment>,
    pub problems: Vec<Problem>,
    /// Bytes at the very end that are no whole record: being written, or torn by a crash. The next start cuts them.
    pub tail_bytes: u64,
}

/// Looks at every segment; `verify`: reads the rows, too, and holds each account against the frames before it.
pub fn look(disk: &Disk, dir: &Path, verify: bool) -> io::Result<Report> {
    let mut report = Report::default();
    let numbers = numbers(disk, dir)?;
    let mut account: Option<Account> = None;
    for (i, number) in numbers.iter().enumerate() {
        let path = segment::path(dir, *number);
        let mut one = Segment { path: path.clone(), ..Segment::default() };
        let mut bad: Vec<Problem> = Vec::new();
        let mut problem = |offset: u64, what: String| bad.push(Problem { path: path.clone(), offset, what });
        let mut expected = account.as_ref().map(|a| a.seq + 1);
        let mut has_checkpoint = false;
        let scanned = segment::scan(disk, &path, usize::MAX, verify, &mut |item| {
            match item {
                Found::Checkpoint { account: own, .. } => {
                    has_checkpoint = true;
                    match &account {
                        Some(folded) if own.seq > folded.seq => {
                            problem(
                                0,
                                format!("the account stands at frame {}, but the frames before it end with {}", own.seq, folded.seq),
                            );
                        }
                        Some(folded) if own.seq == folded.seq && verify && !folded.agrees(&own) => {
                            problem(0, "the account is not what the frames before it add up to".into());
                        }
                        _ => {}
                    }
                    expected = Some(own.seq + 1);
                    account = Some(*own);
                }
                Found::Frame { offset, head, .. } => {
                    let frame = &head.frame;
                    if expected.is_some_and(|seq| frame.first_seq() != seq) && frame.seq >= expected.unwrap_or(0) {
                        problem(offset, format!("frame {} follows, but frame {} is due", frame.seq, expected.unwrap_or(0)));
                    }
                    if head.rows_damaged {
                        problem(offset, format!("the rows of frame {} are damaged", frame.seq));
                    }
                    one.frames += 1;
                    match frame.lost {
                        Some(_) => one.frames_lost += 1,
                        None => {
                            one.rows += head.rows.by_tenant.iter().sum::<u64>();
                            one.rows_bytes += head.droppable_bytes;
                        }
                    }
                    one.first_seq.get_or_insert(frame.first_seq());
                    one.last_seq = Some(frame.seq);
                    one.oldest.get_or_insert(frame.received);
                    one.newest = Some(frame.received);
                    expected = Some(frame.seq + 1);
                    if let Some(account) = &mut account {
                        account.fold(frame, &head.rows);
                    }
                }
                Found::Mark { .. } => {}
                Found::Bad { from, to, what } => problem(from, format!("bytes {from} to {to}: {what}")),
            }
            true
        });
        match scanned {
            Ok(bytes) => one.bytes = bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue, // every sink had it meanwhile
            Err(e) => return Err(e),
        }
        let last = i + 1 == numbers.len();
        if last && let Some(tail) = bad.pop_if(|p| p.what.starts_with(&format!("bytes {} to {}:", p.offset, one.bytes))) {
            report.tail_bytes = one.bytes - tail.offset;
        }
        if !has_checkpoint && bad.is_empty() && !last {
            bad.push(Problem { path: path.clone(), offset: 0, what: "the segment starts without an account".into() });
        }
        report.problems.extend(bad);
        report.segments.push(one);
    }
    if verify && let Err(what) = crate::losses::Losses::read(disk, dir)? {
        report.problems.push(Problem { path: dir.join("losses"), offset: 0, what });
    }
    if verify {
        match state::look(disk, dir) {
            Ok(log) => {
                let path = log.path(dir);
                report.problems.extend(log.damage.into_iter().map(|what| Problem { path: path.clone(), offset: 0, what }));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {} // compacted meanwhile
            Err(e) => return Err(e),
        }
    }
    Ok(report)
}

/// Shows whole frames from one number to another, oldest first, until `show` returns false. Damaged ones are passed over.
pub fn frames(disk: &Disk, dir: &Path, from: u64, to: u64, show: &mut dyn FnMut(Frame) -> io::Result<bool>) -> io::Result<()> {
    let mut last = 0;
    for number in numbers(disk, dir)? {
        let mut wanted = Vec::new();
        let path = segment::path(dir, number);
        let scanned = segment::scan(disk, &path, usize::MAX, false, &mut |item| {
            if let Found::Frame { offset, head, .. } = item
                && head.frame.seq > last
                && head.frame.seq >= from
                && head.frame.first_seq() <= to
            {
                last = head.frame.seq;
                wanted.push((head.frame.seq, offset));
            }
            true
        });
        match scanned {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for (seq, offset) in wanted {
            let place = segment::Place { segment: number, offset, generation: 0 };
            match segment::read_frame(disk, dir, place, seq) {
                Ok((frame, _)) => {
                    if !show(frame)? {
                        return Ok(());
                    }
                }
                // Deleted or written anew meanwhile; damaged, which `look` tells.
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

/// What the next start would do about damage, now. Nobody else may have the folder open. Returns what was done.
pub fn repair(disk: &Disk, dir: &Path, tenants_max: usize) -> Result<Vec<String>, crate::OpenError> {
    Ok(recover::recover(disk, dir, tenants_max)?.0.notices)
}

/// How many rows a frame had, those that are gone included.
pub fn rows_of(frame: &Frame) -> u64 {
    RowCount::of(frame).by_tenant.iter().sum()
}

fn numbers(disk: &Disk, dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers: Vec<u64> = disk.list(dir)?.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}
