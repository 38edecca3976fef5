//! How far one sink has read: frames come in order, each once, and what the sink has committed is released.
//!
//! A frame comes from memory where it still is, else from disk. After a restart the cursor starts behind the longest
//! run of old frames that the sink's store has in full; the store skips single parts beyond that by itself.
//! Memory: one frame at a time; the queue bounds what is noted about frames given out.
//!
//! Where a sink lags, parts of the newest frames may be taken ahead of their turn ([`Cursor::ahead`]; `express` says which).

use crate::account::Account;
use crate::disk::Disk;
use crate::express::Stretch;
use crate::frame::{Frame, LostReason, Part};
use crate::hub::{Hub, NOTING, READING, Store};
use crate::journal::Journal;
use crate::ledger::{RowCount, Tally, due_of};
use crate::queue::{Had, Queue, Slot};
use crate::recover::Segment;
use crate::segment::{self, Found, Kind, Place, Read};
use flow::event::StreamId;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub enum Next {
    Frame(Arc<Frame>),
    /// Nothing came within the timeout.
    Idle,
    /// Commit what you hold: a lane waits for room and nothing is new for this cursor, or rows are gone that the store may have
    /// taken ahead of their turn.
    Pressure,
    /// The hub is closed and this cursor has been given everything.
    Closed,
}

/// How long a sink whose frame cannot be read is told that there is nothing, before it is tried again.
const READ_PAUSE: Duration = Duration::from_millis(100);

pub struct Cursor {
    hub: Arc<Hub>,
    id: usize,
    sink: String,
    /// How far the store was at the start: what stands for lost frames must not reach over it.
    has: HashMap<StreamId, u64>,
    next_seq: u64,
    place: Place,
    /// The next frame to be looked at for what may go ahead.
    ahead_seq: u64,
    /// The last frame given out when pressure was last reported: reported again only after the timeout.
    pressed_at: Option<u64>,
    /// Why the start could not be found; told at the first call.
    broken: Option<io::Error>,
}

impl Cursor {
    pub(crate) fn new(hub: &Arc<Hub>, sink: &str, has: HashMap<StreamId, u64>, refused: &BTreeMap<Vec<u8>, Tally>) -> Cursor {
        let (start, broken) = match &hub.store {
            Store::Memory(_) => (None, None),
            Store::Journal(journal) => match find_start(hub, journal, sink, &has, refused) {
                Ok(start) => (Some(start), None),
                Err(e) => (None, Some(e)),
            },
        };
        let mut queue = hub.lock();
        let start = start.unwrap_or_else(|| match (queue.segments.front(), &broken) {
            // Unreadable: everything that is retained stays undelivered until somebody has looked at it.
            (Some(first), Some(_)) => Start { seq: first.first_seq, place: first.place(), had: Had::default() },
            _ => Start {
                seq: queue.account.seq + 1,
                place: Place::default(),
                had: Had {
                    delivered: queue.account.books.due_totals(sink).map(|(name, tally)| (name.to_vec(), tally)).collect(),
                    rejected: as_rejected(refused),
                    ..Had::default()
                },
            },
        });
        let id = queue.register(sink, (start.seq, start.place), &start.had);
        drop(queue);
        let sink = sink.to_owned();
        let (next_seq, place) = (start.seq, start.place);
        Cursor { hub: Arc::clone(hub), id, sink, has, next_seq, place, ahead_seq: next_seq, pressed_at: None, broken }
    }

    /// One that has nothing, of a journal: from the oldest frame that is there.
    pub(crate) fn oldest(hub: &Arc<Hub>, sink: &str) -> Cursor {
        let mut queue = hub.lock();
        let (next_seq, place) = match queue.segments.front() {
            Some(first) => (first.first_seq, first.place()),
            None => (queue.published + 1, Place::default()),
        };
        let id = queue.register(sink, (next_seq, place), &Had::default());
        drop(queue);
        let (hub, sink) = (Arc::clone(hub), sink.to_owned());
        Cursor { hub, id, sink, has: HashMap::new(), next_seq, place, ahead_seq: next_seq, pressed_at: None, broken: None }
    }

    /// The next frame, or what else there is to know.
    pub fn next(&mut self, timeout: Duration) -> io::Result<Next> {
        if let Some(error) = self.broken.take() {
            self.broken = Some(io::Error::new(error.kind(), error.to_string()));
            return Err(error);
        }
        let until = Instant::now().checked_add(timeout);
        let mut queue = self.hub.lock();
        loop {
            if self.next_seq <= queue.published {
                // What this sink never gets is noted for it, as for a frame that lost its rows here: see `read`.
                let is_whole = |slot: &&Slot| slot.frame.lost.is_none() || matches!(self.hub.store, Store::Memory(_));
                if let Some(slot) = queue.slot(self.next_seq).filter(is_whole) {
                    let (frame, end) = (Arc::clone(&slot.frame), slot.end);
                    let frame = self.without_rejected(&queue, frame);
                    queue.give(self.id, &frame, end);
                    drop(queue);
                    return Ok(self.advance(frame, end));
                }
                drop(queue);
                let left = until.map_or(READ_PAUSE, |until| until.saturating_duration_since(Instant::now()));
                return self.read(left.min(READ_PAUSE));
            }
            if queue.closed && self.next_seq > queue.accepted {
                return Ok(Next::Closed);
            }
            queue.check()?;
            let pressed = queue.waiting + queue.holding > 0 && queue.readers[self.id].holds_some();
            if pressed && self.pressed_at != Some(self.next_seq) {
                self.pressed_at = Some(self.next_seq);
                return Ok(Next::Pressure);
            }
            let left = until.map_or(Duration::from_secs(3600), |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(if pressed { Next::Pressure } else { Next::Idle });
            }
            queue = self.hub.news.wait_timeout(queue, left).expect("no holder of this lock panics").0;
        }
    }

    /// Parts of a newer frame that this sink may take now, ahead of their turn, as a frame of their own; none while it does not
    /// lag, or where every newer frame in memory was looked at. `stands`: how far the store has taken each stream. What a
    /// frame in memory does not give now waits for its turn, and so does what has left memory.
    pub fn ahead(&mut self, stands: &dyn Fn(StreamId) -> Option<u64>) -> Option<Arc<Frame>> {
        let hub = Arc::clone(&self.hub);
        let mut queue = hub.lock();
        if !queue.readers[self.id].express.lags() {
            return None;
        }
        self.ahead_seq = self.ahead_seq.max(self.next_seq).max(queue.first_in_window());
        while self.ahead_seq <= queue.published {
            let slot = queue.slot(self.ahead_seq).expect("it is between the first one in memory and the last");
            let frame = Arc::clone(&slot.frame);
            self.ahead_seq += 1;
            // Rows that this sink rejected before a restart.
            if queue.losses.sinks.get(&self.sink).is_some_and(|lost| lost.reason_of(frame.seq).is_some()) {
                continue;
            }
            let picked = queue.give_ahead(self.id, &frame, stands);
            if !picked.is_empty() {
                drop(queue);
                return Some(if picked.len() == frame.parts.len() { frame } else { Arc::new(frame.some_parts(&picked)) });
            }
        }
        None
    }

    /// Says how much the sink takes in a short while (`step_bytes`): lanes close frames by that where it lags.
    pub fn measured(&self, step_bytes: u64) {
        let mut queue = self.hub.lock();
        queue.readers[self.id].express.step_bytes = step_bytes;
        self.hub.pace(&queue);
    }

    /// Reads a frame that is no longer in memory. Its segment stays: this sink has not committed it. Where the disk does not
    /// give it, that is trouble and no end: tried again with the next call.
    fn read(&mut self, pause: Duration) -> io::Result<Next> {
        let hub = Arc::clone(&self.hub);
        let Store::Journal(journal) = &hub.store else {
            return Err(io::Error::other(format!("frame {} is gone from memory before every sink had it", self.next_seq)));
        };
        let result = {
            let _not_rewritten = journal.files.read().expect("no holder of this lock panics");
            let place = hub.lock().place_of(self.next_seq, self.place);
            segment::read_frame(&journal.disk, &journal.dir, place, self.next_seq).map(|(frame, offset)| (frame, Place { offset, ..place }))
        };
        let (frame, end) = match result {
            Ok(read) => read,
            Err(error) => return self.wait_out(journal, READING, error, pause),
        };
        hub.settle(READING, true);
        let frame = self.trim(frame);
        if let Some(lost) = &frame.lost {
            let (last, is_uncommitted) = {
                let queue = hub.lock();
                (queue.run_of_lost(frame.seq), queue.readers[self.id].express.is_uncommitted)
            };
            if is_uncommitted {
                return Ok(Next::Pressure); // only what the store has for good may be noted as not lost
            }
            // Durable before the sink goes on behind them.
            if let Err(error) = journal.note_lost(&hub, self.id, frame.first_seq(), last, lost.reason) {
                return self.wait_out(journal, NOTING, error, pause);
            }
            hub.settle(NOTING, true);
        }
        let mut queue = hub.lock();
        let frame = self.without_rejected(&queue, Arc::new(frame));
        queue.give(self.id, &frame, end);
        drop(queue);
        Ok(self.advance(frame, end))
    }

    /// A frame that this sink rejected before a restart has no rows for it any more.
    fn without_rejected(&self, queue: &Queue, frame: Arc<Frame>) -> Arc<Frame> {
        let reason = queue.losses.sinks.get(&self.sink).and_then(|lost| lost.reason_of(frame.seq));
        match reason {
            Some(reason @ LostReason::NoRoom) if frame.lost.is_none() => stripped(&frame, reason),
            _ => frame,
        }
    }

    /// The sink does not take the rows of the frame it was given last, for good: what it must count as passed instead. With
    /// the journal this is durable when it returns; everything given before must be committed.
    pub fn reject(&mut self, frame: &Frame, reason: LostReason) -> io::Result<Arc<Frame>> {
        if let Store::Journal(journal) = &self.hub.store {
            journal.note_lost(&self.hub, self.id, frame.first_seq(), frame.seq, reason)?;
        }
        self.hub.lock().reject(self.id, frame.seq, reason);
        Ok(stripped(frame, reason))
    }

    /// Of what was committed, the far side refused these rows for good, by tenant. The sink remembers them.
    pub fn refused(&self, rows: &BTreeMap<Vec<u8>, Tally>) {
        self.hub.lock().refuse(self.id, rows);
    }

    fn wait_out(&self, journal: &Journal, what: &'static str, error: io::Error, pause: Duration) -> io::Result<Next> {
        let for_good = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::NotFound);
        if for_good || journal.disk.is_gone(&error) {
            return Err(error);
        }
        let mut queue = self.hub.lock();
        queue.trouble.insert(what, error.to_string());
        let closed = queue.closed;
        drop(self.hub.news.wait_timeout_while(queue, pause, |q| q.closed == closed).expect("no holder of this lock panics"));
        Ok(Next::Idle)
    }

    /// What stands for lost frames covers each stream as a whole; the store may stand in the middle.
    fn trim(&self, mut frame: Frame) -> Frame {
        if frame.lost.is_some() {
            for part in &mut frame.parts {
                if let Some(has) = self.has.get(&part.stream).filter(|has| part.from < **has && **has < part.to) {
                    part.from = *has;
                }
            }
        }
        frame
    }

    fn advance(&mut self, frame: Arc<Frame>, end: Place) -> Next {
        self.next_seq = frame.seq + 1;
        self.place = end;
        Next::Frame(frame)
    }

    /// Everything up to `seq` is durable at the sink: memory and segments are released.
    pub fn committed(&mut self, seq: u64) -> io::Result<()> {
        self.hub.lock().commit(self.id, seq)?;
        self.hub.room.notify_all();
        self.hub.retain();
        Ok(())
    }
}

fn stripped(frame: &Frame, reason: LostReason) -> Arc<Frame> {
    Arc::new(frame.clone().without_rows(&RowCount::of(frame), reason))
}

struct Start {
    seq: u64,
    place: Place,
    had: Had,
}

/// Finds the first retained frame that a store does not have in full, and what it has beyond that. Reads heads only.
fn find_start(
    hub: &Hub,
    journal: &Journal,
    sink: &str,
    has: &HashMap<StreamId, u64>,
    refused: &BTreeMap<Vec<u8>, Tally>,
) -> io::Result<Start> {
    let (segments, lost, published) = {
        let queue = hub.lock();
        (queue.segments.clone(), queue.losses.sinks.get(sink).cloned().unwrap_or_default(), queue.published)
    };
    let first: Segment = *segments.front().expect("an open journal has a segment");
    let mut delivered = read_due(&journal.disk, &journal.dir, first.number, sink)?;
    let mut had = Had { rejected: lost.settled.clone(), ..Had::default() };
    let mut start = (first.first_seq, first.place());
    let mut found = false;
    let mut seen = start.0;
    for segment in &segments {
        if seen > published {
            break;
        }
        if !found {
            start.1 = segment.place();
        }
        segment::scan(&journal.disk, &segment::path(&journal.dir, segment.number), usize::MAX, false, &mut |item| {
            let Found::Frame { end, head, .. } = item else { return true };
            let frame = &head.frame;
            if frame.seq < seen || end > segment.bytes {
                return frame.seq < seen;
            }
            seen = frame.seq + 1;
            let has_all = |part: &Part| has.get(&part.stream).is_some_and(|to| part.to <= *to);
            found |= !frame.parts.iter().all(has_all);
            let reason = lost.reason_of(frame.seq);
            if found {
                // A store stands behind a part of a frame that it does not have in full: it took that part ahead of its turn.
                let took = |part: &Part| {
                    let stretch = Stretch { from: part.from, to: part.to };
                    has_all(part) && stretch.covers(frame, part) && (reason.is_none() || lost.had(frame, part))
                };
                for part in frame.parts.iter().filter(|part| took(part)) {
                    let (stretch, seq) = had.ahead.entry(part.stream).or_insert((Stretch { from: part.from, to: part.to }, frame.seq));
                    (stretch.to, *seq) = (part.to, frame.seq);
                }
                for (tenant, tally) in due_of(frame, sink, took) {
                    delivered.entry(tenant).or_default().add(tally);
                }
                return true;
            }
            if let Some(reason) = reason {
                for (tenant, tally) in due_of(frame, sink, |part| !lost.had(frame, part)) {
                    had.rejected.entry((tenant, reason)).or_default().add(tally);
                }
            }
            for (tenant, tally) in due_of(frame, sink, |_| true) {
                delivered.entry(tenant).or_default().add(tally);
            }
            start = (frame.seq + 1, Place { offset: end, ..segment.place() });
            true
        })?;
    }
    had.rejected.append(&mut as_rejected(refused));
    // What was lost is part of what was kept; that of a segment is settled a moment before the segment goes.
    for ((tenant, _), tally) in &had.rejected {
        take(&mut delivered, tenant, *tally);
    }
    had.delivered = delivered;
    Ok(Start { seq: start.0, place: start.1, had })
}

fn as_rejected(refused: &BTreeMap<Vec<u8>, Tally>) -> BTreeMap<(Vec<u8>, LostReason), Tally> {
    refused.iter().map(|(tenant, tally)| ((tenant.clone(), LostReason::Refused), *tally)).collect()
}

/// Takes away what is there.
fn take(tallies: &mut BTreeMap<Vec<u8>, Tally>, tenant: &[u8], tally: Tally) {
    if let Some(there) = tallies.get_mut(tenant) {
        there.records = there.records.saturating_sub(tally.records);
        there.bytes = there.bytes.saturating_sub(tally.bytes);
    }
}

/// What was kept for a sink before a segment, by tenant. Where its account is lost, nobody knows, and nothing is booked.
fn read_due(disk: &Disk, dir: &Path, number: u64, sink: &str) -> io::Result<BTreeMap<Vec<u8>, Tally>> {
    let account = match segment::read(disk, &segment::path(dir, number), 0)? {
        // The limit on tenants held when it was written; nobody is left out now.
        Read::Record(record) if record.kind == Kind::Checkpoint => Account::decode(&record.payload, usize::MAX).ok(),
        Read::Record(_) | Read::End | Read::Torn(_) => None,
    };
    Ok(account.map(|a| a.books.due_totals(sink).map(|(name, tally)| (name.to_vec(), tally)).collect()).unwrap_or_default())
}
