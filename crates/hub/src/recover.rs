//! Reads a journal folder after a stop or a crash: what the last run decided, and where to go on. It never refuses what it
//! finds: what is damaged is put aside and named, what is good stays, and what is lost is counted.
//!
//! - A *torn tail*, frames that nobody was told to be durable, is cut: sources are read again from there. So is a last
//!   segment that was not begun. Where a later record says that a damaged one had been durable, it was no torn tail.
//! - *Damaged frames* between good ones become one frame without rows that stands for them (`Frame::lost`); what they had
//!   added up to is told by the account at the head of the next segment. Where only rows are damaged the head stays.
//! - What frames say of the *state of steps* is in a log of its own by then (`state`), but for the last segment.
//! - *A damaged account* at the head of a segment is taken from its copy, or from the frames before it. Where neither is
//!   left, positions are incomplete until the next good account (`Found::positions_lost`): the stores know them.
//!
//! A segment that is changed is written anew beside the old one, which keeps a name ending in `.damaged`.
//! What survives is made durable before anybody sees it: after `kill -9` it may be in the page cache only.
//! Memory: heads one at a time, the account, and for damaged segments the list of what stays.

use crate::account::Account;
use crate::disk::Disk;
use crate::frame::{Frame, LostReason, StateChange};
use crate::hub::OpenError;
use crate::losses::Losses;
use crate::segment::{self, Found as Item, Keep, Kind, NEWER, Read};
use crate::state::{self, StateLog};
use std::collections::{BTreeSet, VecDeque};
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
    /// Bytes of rows in it.
    pub droppable_bytes: u64,
    /// How often it was rewritten since the start.
    pub generation: u32,
}

pub(crate) struct Found {
    pub account: Account,
    pub segments: VecDeque<Segment>,
    /// The highest number that any file has, good or not.
    pub last_number: u64,
    pub losses: Losses,
    /// Up to this frame the log of the state of steps is complete.
    state_seq: u64,
    /// A frame forgets what a step knew.
    forgets: bool,
    pub truncated_bytes: u64,
    /// Some streams were read further than the account says.
    pub positions_lost: bool,
    pub notices: Vec<String>,
}

/// The account at the head of a segment.
struct Start {
    account: Option<Box<Account>>,
    /// Why it is not the one in the segment itself.
    damaged: Option<String>,
}

/// What becomes of a segment.
struct Plan {
    number: u64,
    /// The account before its first frame.
    base: Account,
    base_known: bool,
    keeps: Vec<Keep>,
    /// It must be written anew.
    dirty: bool,
    start: u64,
    end: u64,
    droppable_bytes: u64,
    frames: u64,
    lost: Vec<String>,
    /// Where the last unknown gap is among `keeps`.
    gap: Option<usize>,
}

pub(crate) fn recover(disk: &Disk, dir: &Path, tenants_max: usize) -> Result<(Found, StateLog), OpenError> {
    let io = |e: io::Error| OpenError::io(dir, e);
    let mut numbers = tidy(disk, dir).map_err(io)?;
    let mut look = state::look(disk, dir).map_err(io)?;
    if let (None, Some(number)) = (look.seq(), numbers.first())
        && let Some((seq, changes)) = inline_state(disk, dir, *number).map_err(io)?
    {
        // Before any segment is written anew, in the form of today.
        StateLog::create(disk, dir, &changes, seq).map_err(io)?;
        look = state::look(disk, dir).map_err(io)?;
    }
    let mut found = Found {
        account: Account::new(tenants_max),
        segments: VecDeque::new(),
        last_number: numbers.last().copied().unwrap_or(0),
        losses: Losses::default(),
        state_seq: look.seq().unwrap_or(0),
        forgets: false,
        truncated_bytes: 0,
        positions_lost: false,
        notices: Vec::new(),
    };
    match Losses::read(disk, dir).map_err(io)? {
        Ok(losses) => found.losses = losses,
        Err(what) => {
            let path = dir.join("losses");
            let aside = segment::put_aside(disk, dir, &path, ending(&what)).map_err(io)?;
            disk.unlink(&path).map_err(io)?;
            found.notices.push(format!(
                "{}: {what}; rows that were lost count as delivered; the file is kept as {}",
                path.display(),
                aside.display()
            ));
        }
    }
    // A crash while a segment was begun anew: nobody can have been told of anything in it, and the one before it is the last.
    let is_nothing = |number: &u64| {
        let copy = segment::copy_path(dir, *number);
        Ok::<bool, io::Error>(!disk.exists(&segment::path(dir, *number))? && account_in(disk, &copy, tenants_max)?.is_err())
    };
    if numbers.len() > 1 && numbers.last().map(is_nothing).transpose().map_err(io)? == Some(true) {
        remove_copy(disk, dir, numbers.pop().expect("there is a last one")).map_err(io)?;
    }
    let mut next = numbers.first().map(|n| start_of(disk, dir, *n, tenants_max)).transpose().map_err(io)?;
    for (i, number) in numbers.iter().enumerate() {
        let start = next.take().expect("each segment but the last reads the start of the next one");
        next = numbers.get(i + 1).map(|n| start_of(disk, dir, *n, tenants_max)).transpose().map_err(io)?;
        let after = next.as_ref().and_then(|n| n.account.as_deref());
        recover_segment(disk, dir, *number, start, after, i + 1 == numbers.len(), tenants_max, &mut found)
            .map_err(|e| OpenError::io(&segment::path(dir, *number), e))?;
    }
    if let Some(last) = found.segments.back() {
        // Also where it was not the last file: the one behind it may just have been removed.
        cut(disk, &segment::path(dir, last.number), last.bytes).map_err(io)?;
    }
    let first_seq = found.segments.front().map_or(found.account.seq + 1, |segment| segment.first_seq);
    let frames = (first_seq, found.account.seq);
    let mut state = StateLog::open(disk, dir, look, frames, &mut found.notices).map_err(io)?;
    state.forgets |= found.forgets;
    // The name of the last segment may be in memory only, as its bytes were.
    disk.sync_dir(dir, "journal.recover").map_err(io)?;
    Ok((found, state))
}

/// Cuts what stands behind the last whole record, and makes durable what stands before.
pub(crate) fn cut(disk: &Disk, path: &Path, len: u64) -> io::Result<()> {
    disk.truncate(path, len, "journal.tail")
}

/// Removes what a crash left of something unfinished; returns the numbers of the segments.
fn tidy(disk: &Disk, dir: &Path) -> io::Result<Vec<u64>> {
    let names = disk.list(dir)?;
    // A copy without a segment says where one began that is missing.
    let numbers: BTreeSet<u64> =
        names.iter().filter_map(|name| segment::number(name).or_else(|| segment::number_with(name, ".acct"))).collect();
    for name in &names {
        let unfinished = name.to_str().is_some_and(|n| n.ends_with(".seg.new") || n.ends_with(".state.new") || n == "losses.new");
        if unfinished {
            disk.unlink(&dir.join(name))?;
        }
    }
    Ok(numbers.into_iter().collect())
}

fn start_of(disk: &Disk, dir: &Path, number: u64, tenants_max: usize) -> io::Result<Start> {
    let path = segment::path(dir, number);
    let what = match account_in(disk, &path, tenants_max)? {
        Ok(account) => return Ok(Start { account: Some(account), damaged: None }),
        Err(what) => what,
    };
    let copy = account_in(disk, &segment::copy_path(dir, number), tenants_max)?.ok();
    Ok(Start { account: copy, damaged: Some(what) })
}

fn account_in(disk: &Disk, path: &Path, tenants_max: usize) -> io::Result<Result<Box<Account>, String>> {
    Ok(match segment::read(disk, path, 0) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err("the file is missing".into()),
        Err(e) => return Err(e),
        Ok(Read::Record(record)) if record.kind == Kind::Checkpoint => {
            Account::decode(&record.payload, tenants_max).map(Box::new).map_err(|e| e.to_string())
        }
        Ok(Read::Record(_)) => Err("it starts without a checkpoint".into()),
        Ok(Read::End) => Err("the file is empty".into()),
        Ok(Read::Torn(what)) => Err(what.into()),
    })
}

/// The state of steps in the account of the first segment, or in its copy, where it was written before version 3; with the
/// account's frame.
fn inline_state(disk: &Disk, dir: &Path, number: u64) -> io::Result<Option<(u64, Vec<StateChange>)>> {
    for path in [segment::path(dir, number), segment::copy_path(dir, number)] {
        let record = match segment::read(disk, &path, 0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
            Ok(Read::Record(record)) if record.kind == Kind::Checkpoint => record,
            Ok(_) => continue,
        };
        let mut changes = Vec::new();
        let show = &mut |step, entries: &[u8]| changes.push(StateChange { step, bytes: entries.to_vec() });
        if let Ok(seq) = Account::state_in(&record.payload, show) {
            return Ok(seq.map(|seq| (seq, changes)));
        }
    }
    Ok(None)
}

/// The ending of the name under which a file is put aside.
pub(crate) fn ending(what: &str) -> &'static str {
    if what.contains(NEWER) { ".newer" } else { ".damaged" }
}

/// Folds one segment into the account. `after`: the account behind it.
#[expect(clippy::too_many_arguments, reason = "one step of one loop")]
fn recover_segment(
    disk: &Disk,
    dir: &Path,
    number: u64,
    start: Start,
    after: Option<&Account>,
    last: bool,
    tenants_max: usize,
    found: &mut Found,
) -> io::Result<()> {
    let path = segment::path(dir, number);
    let mut plan = begin(number, start, tenants_max, found);
    let missing = !disk.exists(&path)?;
    let length = if missing { 0 } else { disk.len(&path)? };
    let tail = if last && !missing { find_tail(disk, &path, tenants_max)? } else { Tail { cut: length, damaged_rows: BTreeSet::new() } };
    let limit = after.map_or(u64::MAX, |a| a.seq);
    if !missing {
        segment::scan(disk, &path, tenants_max, false, &mut |item| fold(item, limit, &tail, &mut plan, found))?;
    }
    if let Some(after) = after {
        plan.join(after, found);
    }
    if plan.frames == 0 && plan.dirty && !plan.base_known {
        return give_up(disk, dir, &plan, length, last, found);
    }
    let unfinished = last && plan.frames == 0 && plan.dirty && !found.segments.is_empty();
    if unfinished && missing {
        found.notices.push(format!("{}: the file is missing; sources are read again from where it began", path.display()));
        return remove_copy(disk, dir, number);
    }
    if unfinished {
        // No frame was ever in it, or none is left: the account before it is the same.
        let what = plan.lost.pop().unwrap_or_default();
        if length > 0 && disk.len(&segment::copy_path(dir, number)).is_ok_and(|copy| length > copy) {
            segment::put_aside(disk, dir, &path, ending(&what))?;
            found.notices.push(format!(
                "{}: nothing in it can be read ({what}); sources are read again from where it began; it is kept as {}.damaged",
                path.display(),
                path.display()
            ));
        } else {
            found.notices.push(format!("{}: removed, the last run stopped before it was begun ({what})", path.display()));
        }
        found.truncated_bytes += length;
        disk.unlink(&path)?;
        return remove_copy(disk, dir, number);
    }
    let cut_short = !missing && disk.len(&segment::copy_path(dir, number)).is_ok_and(|copy| length <= copy);
    if plan.dirty && plan.frames == 0 && last && cut_short {
        // The only segment, and the crash came before its checkpoint was whole: the copy was.
        plan.rewrite(disk, dir, true, found)?;
    } else if plan.dirty {
        plan.rewrite(disk, dir, missing, found)?;
    }
    if last && !missing && tail.cut < length {
        found.truncated_bytes += length - tail.cut;
        found.notices.push(format!("{}: cut {} torn bytes behind frame {}", path.display(), length - tail.cut, found.account.seq));
    }
    found.segments.push_back(Segment {
        number,
        first_seq: plan.base.seq + 1,
        start: plan.start,
        bytes: plan.end, // what stands behind is torn, or written once more in the next segment
        droppable_bytes: plan.droppable_bytes,
        generation: 0,
    });
    Ok(())
}

/// Settles on the account before the first frame.
fn begin(number: u64, start: Start, tenants_max: usize, found: &mut Found) -> Plan {
    let replayed = !found.segments.is_empty() && !found.positions_lost;
    let base_known = start.account.is_some() || replayed;
    match start.account {
        Some(account) if found.segments.is_empty() || account.seq >= found.account.seq => {
            found.account = *account;
            found.positions_lost = false;
        }
        Some(_) => {}
        None if replayed => {}
        None => {
            found.account = Account::new(tenants_max);
            found.positions_lost = true;
        }
    }
    let dirty = start.damaged.is_some();
    Plan {
        number,
        base: found.account.clone(),
        base_known,
        keeps: Vec::new(),
        dirty,
        start: 0,
        end: 0,
        droppable_bytes: 0,
        frames: 0,
        lost: start.damaged.into_iter().collect(),
        gap: None,
    }
}

struct Tail {
    /// What stands behind was never promised to anybody.
    cut: u64,
    damaged_rows: BTreeSet<u64>,
}

/// Finds where the last segment ends: at the first damage that no later record says was durable.
fn find_tail(disk: &Disk, path: &Path, tenants_max: usize) -> io::Result<Tail> {
    let mut damaged_rows = BTreeSet::new();
    // Places where something is wrong: the offset, and the number of the frame that is expected there.
    let mut doubts: Vec<(u64, u64)> = Vec::new();
    let mut expected: Option<u64> = None;
    let mut good_end = 0;
    let length = segment::scan(disk, path, tenants_max, true, &mut |item| {
        match item {
            Item::Checkpoint { account, end } => {
                expected = Some(account.seq + 1);
                good_end = end;
            }
            Item::Mark { seq, end } => {
                doubts.retain(|doubt| doubt.1 > seq);
                good_end = end;
            }
            Item::Bad { from, to, .. } => {
                // A damaged checkpoint is no torn one where frames follow: it was durable before they were written.
                doubts.extend(expected.map(|seq| (from, seq)));
                good_end = to;
            }
            Item::Frame { offset, end, synced, head } => {
                doubts.retain(|doubt| doubt.1 > synced);
                if head.rows_damaged {
                    doubts.push((offset, head.frame.seq));
                    damaged_rows.insert(head.frame.seq);
                } else if expected.is_some_and(|seq| head.frame.first_seq() > seq) && !doubts.iter().any(|d| Some(d.1) == expected) {
                    doubts.extend(expected.filter(|seq| *seq > synced).map(|seq| (offset, seq)));
                }
                expected = Some(head.frame.seq + 1);
                good_end = end;
            }
        }
        true
    })?;
    debug_assert!(good_end <= length);
    Ok(Tail { cut: doubts.first().map_or(length, |doubt| doubt.0), damaged_rows })
}

/// Takes what a segment holds; false at its end.
fn fold(item: Item, limit: u64, tail: &Tail, plan: &mut Plan, found: &mut Found) -> bool {
    match item {
        Item::Checkpoint { end, .. } => {
            plan.start = end;
            plan.end = end;
            plan.keep_bytes(0, end);
        }
        Item::Mark { seq, end } => {
            if seq > found.account.seq {
                plan.dirty = true; // what it vouches for is damaged: it is decided anew
            } else {
                plan.keep_bytes(plan.end, end);
            }
            plan.end = end;
        }
        Item::Bad { from, to, what } => {
            if from >= tail.cut {
                return false;
            }
            if found.account.seq < limit {
                plan.dirty = true;
                plan.lost.push(format!("bytes {from} to {to} are damaged ({what})"));
                plan.end = to.min(tail.cut);
            }
        }
        Item::Frame { offset, end, head, .. } => {
            if offset >= tail.cut || head.frame.seq > limit {
                return false; // torn, or written once more in the next segment
            }
            if head.frame.seq <= found.account.seq && plan.base_known {
                plan.dirty = true;
                return true;
            }
            if plan.frames == 0 && !plan.base_known && found.account.seq == 0 {
                found.account.seq = head.frame.first_seq() - 1;
                plan.base.seq = found.account.seq;
            }
            if head.frame.first_seq() > found.account.seq + 1 {
                let gap = found.account.unknown_gap(&head.frame);
                plan.lost.push(lost_text(gap.first_seq(), gap.seq, found.state_seq));
                found.account.fold(&gap, &crate::ledger::RowCount::of(&gap));
                plan.gap = Some(plan.keeps.len());
                plan.keep_frame(gap);
            }
            found.account.fold(&head.frame, &head.rows);
            found.forgets |= head.frame.state.iter().any(|change| change.bytes.is_empty());
            plan.end = end;
            if tail.damaged_rows.contains(&head.frame.seq) {
                plan.lost.push(format!("the rows of frame {} are damaged", head.frame.seq));
                plan.keep_frame(head.frame.without_rows(&head.rows, LostReason::Damaged));
            } else {
                plan.frames += 1;
                plan.droppable_bytes += if head.frame.lost.is_some() { 0 } else { head.droppable_bytes };
                plan.keep_bytes(offset, end);
            }
        }
    }
    true
}

/// `state_seq`: up to this frame it is known what frames changed in the state of steps.
fn lost_text(first: u64, last: u64, state_seq: u64) -> String {
    let text = if first == last { format!("frame {first} is lost") } else { format!("frames {first} to {last} are lost") };
    if last > state_seq { format!("{text}, with what steps learned from it") } else { text }
}

/// Nothing can be read of a segment, and nobody knows what was before it.
fn give_up(disk: &Disk, dir: &Path, plan: &Plan, length: u64, last: bool, found: &mut Found) -> io::Result<()> {
    let path = segment::path(dir, plan.number);
    let what = plan.lost.first().map_or("", String::as_str);
    if disk.exists(&path)? {
        // The first account of all is empty: what is no longer than it never held a frame.
        if length == 0 || (plan.number == 1 && last && length <= segment::checkpoint(&Account::new(0)).len() as u64) {
            found.notices.push(format!(
                "{}: removed, the last run stopped before it was begun ({what}); sources go on where the stores stand",
                path.display()
            ));
        } else {
            let aside = segment::put_aside(disk, dir, &path, ending(what))?;
            found.notices.push(format!(
                "{}: nothing in it can be read ({what}); it is kept as {}; sources go on where the stores stand",
                path.display(),
                aside.display()
            ));
        }
        disk.unlink(&path)?;
    }
    found.truncated_bytes += length;
    remove_copy(disk, dir, plan.number)
}

fn remove_copy(disk: &Disk, dir: &Path, number: u64) -> io::Result<()> {
    match disk.unlink(&segment::copy_path(dir, number)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Plan {
    fn keep_bytes(&mut self, from: u64, to: u64) {
        match self.keeps.last_mut() {
            Some(Keep::Bytes(range)) if range.end == from => range.end = to,
            _ => self.keeps.push(Keep::Bytes(from..to)),
        }
    }

    fn keep_frame(&mut self, frame: Frame) {
        self.frames += 1;
        self.dirty = true;
        self.keeps.push(Keep::Frame(Box::new(frame)));
    }

    /// Compares with the account at the head of the next segment, which is trusted: what is missing was lost here.
    fn join(&mut self, after: &Account, found: &mut Found) {
        if !self.base_known && self.frames > 0 {
            // What was before the first frame is what the account behind has more than all frames add to it.
            let base = Account::new(usize::MAX).gap_books(after, &found.account, self.base.seq);
            self.base = base;
            self.base_known = true;
            self.dirty = true;
        } else if let Some(i) = self.gap
            && let Some(Keep::Frame(gap)) = self.keeps.get_mut(i)
        {
            found.account.explain_gap(after, gap);
        }
        if found.account.seq < after.seq && self.base_known {
            let first = found.account.seq + 1;
            let gap = found.account.gap(after, first);
            self.lost.push(lost_text(first, after.seq, found.state_seq));
            self.keep_frame(gap);
        }
        if self.base_known {
            found.account = after.clone();
        }
    }

    /// Writes the segment anew.
    fn rewrite(&mut self, disk: &Disk, dir: &Path, missing: bool, found: &mut Found) -> io::Result<()> {
        let path = segment::path(dir, self.number);
        // Without an account the segment says of itself that positions are lost, until the next one is begun.
        let mut keeps: Vec<Keep> = self.base_known.then(|| Keep::Account(Box::new(self.base.clone()))).into_iter().collect();
        let start = self.start;
        keeps.extend(std::mem::take(&mut self.keeps).into_iter().filter(|k| !matches!(k, Keep::Bytes(r) if r.end <= start)).map(
            |k| match k {
                Keep::Bytes(range) if range.start < start => Keep::Bytes(start..range.end),
                other => other,
            },
        ));
        (self.start, self.end) = segment::prepare(disk, dir, self.number, &keeps)?;
        let mut notice = format!("{}: {}", path.display(), self.lost.join("; "));
        if !missing {
            let aside = segment::put_aside(disk, dir, &path, ending(&notice))?;
            notice.push_str(&format!("; the file as it was is kept as {}", aside.display()));
        }
        segment::replace(disk, dir, self.number)?;
        disk.sync_dir(dir, "journal.replaced")?;
        found.notices.push(notice);
        Ok(())
    }
}
