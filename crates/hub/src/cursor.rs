//! How far one sink has read: frames come in order, each once, and what the sink has committed is released.
//!
//! A frame comes from memory where it still is, else from disk. After a restart the cursor starts behind the longest
//! run of old frames that the sink's store has in full; the store skips single parts beyond that by itself.
//! Memory: one frame at a time; the queue bounds what is noted about frames given out.

use crate::account::Account;
use crate::disk::Disk;
use crate::frame::Frame;
use crate::hub::{Hub, Store};
use crate::ledger::{Tally, add_delta};
use crate::segment::{self, Kind, Place, Read};
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

pub struct Cursor {
    hub: Arc<Hub>,
    id: usize,
    next_seq: u64,
    place: Place,
    /// The last frame given out when pressure was last reported: reported again only after the timeout.
    pressed_at: Option<u64>,
    /// Why the start could not be found; told at the first call.
    broken: Option<io::Error>,
}

impl Cursor {
    pub(crate) fn new(hub: &Arc<Hub>, sink: &str, has: &HashMap<StreamId, u64>) -> Cursor {
        let (start, broken) = match &hub.store {
            Store::Memory(_) => (None, None),
            Store::Journal(journal) => match find_start(hub, &journal.disk, &journal.dir, has) {
                Ok(start) => (Some(start), None),
                Err(e) => (None, Some(e)),
            },
        };
        let mut queue = hub.lock();
        let start = start.unwrap_or_else(|| match (queue.segments.front(), &broken) {
            // Unreadable: everything that is retained stays undelivered until somebody has looked at it.
            (Some(first), Some(_)) => {
                Start { seq: first.first_seq, place: Place { segment: first.number, offset: first.start }, delivered: BTreeMap::new() }
            }
            _ => Start {
                seq: queue.account.seq + 1,
                place: Place::default(),
                delivered: queue.account.books.kept_totals().map(|(name, tally)| (name.to_vec(), tally)).collect(),
            },
        });
        let id = queue.register(sink, (start.seq, start.place), &start.delivered);
        drop(queue);
        Cursor { hub: Arc::clone(hub), id, next_seq: start.seq, place: start.place, pressed_at: None, broken }
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
                if let Some(slot) = queue.slot(self.next_seq) {
                    let (frame, end) = (Arc::clone(&slot.frame), slot.end);
                    queue.give(self.id, &frame, end);
                    drop(queue);
                    return Ok(self.advance(frame, end));
                }
                let place = queue.place_of(self.next_seq, self.place);
                drop(queue);
                return self.read(place);
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

    /// Reads a frame that is no longer in memory. Its segment stays: this sink has not committed it.
    fn read(&mut self, place: Place) -> io::Result<Next> {
        let Store::Journal(journal) = &self.hub.store else {
            return Err(io::Error::other(format!("frame {} is gone from memory before every sink had it", self.next_seq)));
        };
        let (frame, offset) = segment::read_frame(&journal.disk, &journal.dir, place, self.next_seq)?;
        let end = Place { segment: place.segment, offset };
        self.hub.lock().give(self.id, &frame, end);
        Ok(self.advance(Arc::new(frame), end))
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
        match &self.hub.store {
            Store::Journal(journal) => journal.retain(&self.hub),
            Store::Memory(_) => Ok(()),
        }
    }
}

struct Start {
    seq: u64,
    place: Place,
    /// What the store has, by tenant.
    delivered: BTreeMap<Vec<u8>, Tally>,
}

/// Finds the first retained frame that a store does not have in full.
fn find_start(hub: &Hub, disk: &Disk, dir: &Path, has: &HashMap<StreamId, u64>) -> io::Result<Start> {
    let (first, last) = {
        let queue = hub.lock();
        (*queue.segments.front().expect("an open journal has a segment"), queue.published)
    };
    let mut books = read_checkpoint(disk, dir, first.number)?.books;
    let mut delivered: Vec<Tally> = books.kept_totals().map(|(_, tally)| tally).collect();
    let (mut seq, mut place) = (first.first_seq, Place { segment: first.number, offset: first.start });
    while seq <= last {
        place = hub.lock().place_of(seq, place);
        let (frame, end) = segment::read_frame(disk, dir, place, seq)?;
        if frame.parts.iter().any(|part| has.get(&part.stream).is_none_or(|to| part.to > *to)) {
            break;
        }
        add_delta(&mut delivered, &books.kept(&frame));
        (seq, place.offset) = (seq + 1, end);
    }
    Ok(Start { seq, place, delivered: books.by_name(&delivered) })
}

fn read_checkpoint(disk: &Disk, dir: &Path, number: u64) -> io::Result<Account> {
    let path = segment::path(dir, number);
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{}: the checkpoint: {what}", path.display()));
    match segment::read(disk, &path, 0)? {
        // The limit on tenants held when it was written; nobody is left out now.
        Read::Record(record) if record.kind == Kind::Checkpoint => {
            Account::decode(&record.payload, usize::MAX).map_err(|e| wrong(&e.to_string()))
        }
        Read::Record(_) => Err(wrong("a frame stands there")),
        Read::End => Err(wrong("the file is empty")),
        Read::Torn(what) => Err(wrong(what)),
    }
}
