//! How far one sink has read: frames come in order, each once, and what the sink has committed is released.
//!
//! A frame comes from memory where it still is, else from disk. After a restart the cursor starts behind the longest
//! run of old frames that the sink's store has in full; the store skips single parts beyond that by itself.
//! Memory: one frame at a time; the queue bounds what is noted about frames given out.

use crate::account::Account;
use crate::disk::Disk;
use crate::frame::{Frame, LostReason};
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
    /// A lane waits for room and nothing is new for this cursor: commit what you hold.
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
    /// The last frame given out when pressure was last reported: reported again only after the timeout.
    pressed_at: Option<u64>,
    /// Why the start could not be found; told at the first call.
    broken: Option<io::Error>,
}

impl Cursor {
    pub(crate) fn new(hub: &Arc<Hub>, sink: &str, has: HashMap<StreamId, u64>) -> Cursor {
        let (start, broken) = match &hub.store {
            Store::Memory(_) => (None, None),
            Store::Journal(journal) => match find_start(hub, journal, sink, &has) {
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
                    ..Had::default()
                },
            },
        });
        let id = queue.register(sink, (start.seq, start.place), &start.had);
        drop(queue);
        let sink = sink.to_owned();
        Cursor { hub: Arc::clone(hub), id, sink, has, next_seq: start.seq, place: start.place, pressed_at: None, broken }
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
        Cursor { hub, id, sink, has: HashMap::new(), next_seq, place, pressed_at: None, broken: None }
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
            let pressed = queue.waiting > 0 && queue.readers[self.id].holds_some();
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
            let last = hub.lock().run_of_lost(frame.seq);
            // Durable before the sink goes on behind them.
            if let Err(error) = journal.note_lost(&hub, &self.sink, frame.first_seq(), last, lost.reason) {
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
            journal.note_lost(&self.hub, &self.sink, frame.first_seq(), frame.seq, reason)?;
        }
        self.hub.lock().reject(self.id, frame.seq, reason);
        Ok(stripped(frame, reason))
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

/// Finds the first retained frame that a store does not have in full. Reads heads only.
fn find_start(hub: &Hub, journal: &Journal, sink: &str, has: &HashMap<StreamId, u64>) -> io::Result<Start> {
    let (segments, lost, published) = {
        let queue = hub.lock();
        (queue.segments.clone(), queue.losses.sinks.get(sink).cloned().unwrap_or_default(), queue.published)
    };
    let first: Segment = *segments.front().expect("an open journal has a segment");
    let mut delivered = read_due(&journal.disk, &journal.dir, first.number, sink)?;
    let mut had = Had { rejected: lost.settled.clone(), ..Had::default() };
    let mut start = (first.first_seq, first.place());
    let mut found = false;
    for segment in &segments {
        if found || start.0 > published {
            break;
        }
        start.1 = segment.place();
        segment::scan(&journal.disk, &segment::path(&journal.dir, segment.number), usize::MAX, false, &mut |item| {
            let Found::Frame { end, head, .. } = item else { return true };
            let frame = &head.frame;
            if frame.seq < start.0 || end > segment.bytes {
                return frame.seq < start.0;
            }
            if frame.parts.iter().any(|part| has.get(&part.stream).is_none_or(|to| part.to > *to)) {
                found = true;
                return false;
            }
            let reason = lost.reason_of(frame.seq);
            for (tenant, tally) in due_of(frame, sink) {
                if let Some(reason) = reason {
                    had.rejected.entry((tenant.clone(), reason)).or_default().add(tally);
                }
                delivered.entry(tenant).or_default().add(tally);
            }
            start = (frame.seq + 1, Place { offset: end, ..segment.place() });
            true
        })?;
    }
    // What was lost is part of what was kept; that of a segment is settled a moment before the segment goes.
    for ((tenant, _), tally) in &had.rejected {
        take(&mut delivered, tenant, *tally);
    }
    had.delivered = delivered;
    Ok(Start { seq: start.0, place: start.1, had })
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
