//! The journal: frames on disk before any sink sees them.
//!
//! In: frames, already encoded. Out: durable records (see `segment`). A frame is one write; an fsync later (`commit`, for
//! all frames since the last one) it is published. A segment that is full is made durable, then a new one begins with
//! the account of all frames before it, and what it changed in the state of steps goes to `state`, so that old segments can be
//! deleted once every sink has them.
//!
//! Nothing that the disk does ends the run. When a write fails (disk full), its torn bytes are cut before anything else is
//! written; when a new segment cannot be begun, that is tried again first. When an fsync of frames fails nobody knows what is
//! on disk: what was not published is in memory still, and is written once more into a new segment, which counts from where
//! it begins (`rescue`). Callers try again with growing pauses, and `Hub::trouble` says why.
//! Bound: the segments on disk, by `Hub::accept`; buffers for encoding, [`BUFFERS_MAX`].
//!
//! Locks, in this order: `retaining`, `compaction`, `state`, `syncing`, `writer`, `files`, the queue's.

use crate::account::Account;
use crate::disk::{Disk, File};
use crate::frame::{FRAME_BYTES_MAX, Frame, LostReason};
use crate::hub::{AcceptError, Hub, OpenError, REMEMBERING};
use crate::ledger::due_of;
use crate::queue::{Queue, Slot};
use crate::recover::{self, Segment, recover};
use crate::segment::{self, Encoded, FRAME_HEADER_BYTES, Found as Item, Keep, Kind, Place};
use crate::state::{self, InUse, StateLog};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;

const BUFFERS_MAX: usize = 8;
/// Of a segment, how much of the state of steps is never too much.
const STATE_SHARE: u64 = 16;
const BUFFER_BYTES_KEPT: usize = 4 << 20; // a frame is about 1 MiB; 8 buffers keep 32 MiB at the very most

pub(crate) struct Journal {
    pub disk: Disk,
    pub dir: PathBuf,
    segment_bytes: u64,
    writer: Mutex<Writer>,
    /// A second handle to the segment being written, so that an fsync does not keep lanes from writing.
    syncing: Mutex<Option<(u64, File)>>,
    retaining: Mutex<()>,
    /// Held for reading while a frame is read, so that its segment is not written anew meanwhile.
    pub files: RwLock<()>,
    buffers: Mutex<Vec<Vec<u8>>>,
    state: Arc<Mutex<StateLog>>,
    /// The thread that compacts the state, if one does.
    compaction: Mutex<Option<JoinHandle<io::Result<()>>>>,
    /// Nobody needs the result any more.
    cancelled: Arc<AtomicBool>,
}

struct Writer {
    file: Option<File>,
    number: u64,
    /// Good bytes in the file.
    len: u64,
    /// Bytes of frames in the file.
    frame_bytes: u64,
    /// A failed write may have left bytes behind `len`.
    torn: bool,
    /// This segment is complete and durable; the next one has to be begun before anything is written.
    ended: bool,
    /// An fsync failed: what is not published has to be written again before anything else.
    suspect: bool,
    /// Number of the last frame that was written.
    seq: u64,
    /// The mark of a clean end stands behind it.
    marked: bool,
}

/// What was found besides the account.
pub(crate) struct Opened {
    pub journal: Journal,
    pub queue: Queue,
    pub truncated_bytes: u64,
    pub positions_lost: bool,
    pub notices: Vec<String>,
}

pub(crate) struct Appended {
    pub seq: u64,
    /// Bytes that were not durable yet before this frame, and with it.
    pub unsynced_before: u64,
    pub unsynced_bytes: u64,
}

/// A frame that waits to be written.
pub(crate) struct Pending {
    frame: Frame,
    encoded: Encoded,
}

impl Pending {
    pub fn len(&self) -> u64 {
        self.encoded.len() as u64
    }
}

impl Journal {
    pub fn open(disk: Disk, dir: &Path, segment_bytes: u64, window_bytes_max: u64, tenants_max: usize) -> Result<Opened, OpenError> {
        let io = |e: io::Error| OpenError::io(dir, e);
        disk.create_dir_all(dir, "hub.folder").map_err(io)?;
        let (found, mut state) = recover(&disk, dir, tenants_max)?;
        state.set_bytes_min(segment_bytes / STATE_SHARE);
        let mut queue = Queue::new(found.account, Some(window_bytes_max), found.segments);
        queue.losses = found.losses;
        let mut writer = Writer::ended(found.last_number, queue.accepted);
        if let Some(last) = queue.segments.back() {
            writer = Writer {
                file: Some(disk.open_append(&segment::path(dir, last.number)).map_err(io)?),
                number: last.number,
                len: last.bytes,
                frame_bytes: last.bytes - last.start,
                ended: false,
                ..writer
            };
        }
        let journal = Journal {
            disk,
            dir: dir.to_owned(),
            segment_bytes,
            writer: Mutex::new(writer),
            syncing: Mutex::new(None),
            retaining: Mutex::new(()),
            files: RwLock::new(()),
            buffers: Mutex::new(Vec::new()),
            state: Arc::new(Mutex::new(state)),
            compaction: Mutex::new(None),
            cancelled: Arc::new(AtomicBool::new(false)),
        };
        let (truncated_bytes, positions_lost, notices) = (found.truncated_bytes, found.positions_lost, found.notices);
        let mut opened = Opened { journal, queue, truncated_bytes, positions_lost, notices };
        if opened.queue.segments.is_empty() {
            let account = opened.queue.account.clone();
            let writer = &mut *opened.journal.writer.lock().expect("no holder of this lock panics");
            let segment = opened.journal.begin_segment(writer, &account).map_err(io)?;
            opened.queue.published_end = segment.place();
            opened.queue.segments.push_back(segment);
        }
        Ok(opened)
    }

    /// Encodes a frame outside of all locks; its number comes later.
    pub fn encode(&self, frame: Frame) -> Result<Pending, &'static str> {
        frame.validate()?;
        let buffer = self.buffers.lock().expect("no holder of this lock panics").pop().unwrap_or_default();
        let encoded = Encoded::of(&frame, buffer);
        if encoded.len() - FRAME_HEADER_BYTES > FRAME_BYTES_MAX {
            return Err("a frame is larger than 256 MiB");
        }
        Ok(Pending { frame, encoded })
    }

    fn reuse(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        let mut buffers = self.buffers.lock().expect("no holder of this lock panics");
        if buffers.len() < BUFFERS_MAX && bytes.capacity() <= BUFFER_BYTES_KEPT {
            buffers.push(bytes);
        }
    }

    /// Numbers a frame and writes it; takes it out of `pending` when it is written. `new_segment`: begin a segment first, so
    /// that the last one can be deleted. After an error it can be called again.
    pub fn append(&self, hub: &Hub, pending: &mut Option<Pending>, new_segment: bool) -> Result<Appended, AcceptError> {
        let len = pending.as_ref().map_or(0, Pending::len);
        let mut writer = self.writer.lock().expect("no holder of this lock panics");
        let full = writer.frame_bytes > 0 && (new_segment || writer.frame_bytes + len > self.segment_bytes);
        self.make_writable(hub, &mut writer, full)?;
        let seq = writer.seq + 1;
        let synced = hub.lock().published;
        let Pending { mut frame, mut encoded } = pending.take().expect("a frame is appended once");
        encoded.seal(seq, synced);
        let file = writer.file.as_mut().expect("make_writable leaves an open file");
        if let Err(error) = file.append_both(&encoded.bytes, &frame.rows.bytes) {
            *pending = Some(Pending { frame, encoded });
            writer.torn = true;
            // Tried again before the next write if it fails now; the first error is the one that tells.
            self.cut_torn(&mut writer).ok();
            return Err(error.into());
        }
        frame.seq = seq;
        writer.len += len;
        writer.frame_bytes += len;
        writer.seq = seq;
        let end = Place { segment: writer.number, offset: writer.len, generation: 0 };
        let droppable_bytes = encoded.droppable_bytes();
        let Encoded { bytes, rows, .. } = encoded;
        let slot = Slot {
            rows,
            bytes: frame.bytes() as u64,
            record_bytes: len,
            droppable_bytes,
            end,
            delta: Box::default(),
            frame: Arc::new(frame),
        };
        // Under the writer's lock: the order in the queue is the order on disk.
        let unsynced = hub.lock().push(slot);
        drop(writer);
        self.reuse(bytes);
        Ok(Appended { seq, unsynced_before: unsynced.0, unsynced_bytes: unsynced.1 })
    }

    /// Brings the writer to where a frame can be appended: nothing torn behind, and room in the segment.
    fn make_writable(&self, hub: &Hub, writer: &mut Writer, full: bool) -> Result<(), AcceptError> {
        {
            let queue = hub.lock();
            queue.check()?;
            if queue.closed {
                return Err(AcceptError::Closed); // under the writer's lock: the last commit has everything
            }
        }
        if writer.suspect {
            self.rescue(hub, writer)?;
        }
        self.cut_torn(writer)?;
        if full && !writer.ended {
            self.end_segment(hub, writer)?;
        }
        if writer.ended {
            let account = hub.lock().account.clone();
            let segment = self.begin_segment(writer, &account)?;
            hub.lock().segments.push_back(segment);
        }
        Ok(())
    }

    fn cut_torn(&self, writer: &mut Writer) -> io::Result<()> {
        if writer.torn {
            recover::cut(&self.disk, &segment::path(&self.dir, writer.number), writer.len)?;
            writer.torn = false;
        }
        Ok(())
    }

    /// Makes the segment durable and publishes it: the next one begins with an account that includes it.
    fn end_segment(&self, hub: &Hub, writer: &mut Writer) -> io::Result<()> {
        let file = writer.file.as_mut().expect("a segment that holds frames is open");
        if let Err(error) = file.sync("journal.end") {
            writer.suspect = true;
            if self.disk.is_gone(&error) {
                return Err(error);
            }
            return self.rescue(hub, writer); // the new segment holds what is not published, and has room
        }
        writer.ended = true;
        hub.publish(writer.seq);
        Ok(())
    }

    /// Begins the next segment. After an error it can be called again: nothing was written to it but the checkpoint.
    fn begin_segment(&self, writer: &mut Writer, account: &Account) -> io::Result<Segment> {
        let number = writer.number + 1;
        let (file, len) = self.write_checkpoint(number, account)?;
        // Before the old segments may be deleted, the copy must be able to stand in for them: it is durable with its name. The
        // segment itself is with its first frames.
        self.disk.sync_dir(&self.dir, "journal.names")?;
        *writer = Writer { file: Some(file), len, ended: false, ..Writer::ended(number, account.seq) };
        Ok(Segment { number, first_seq: account.seq + 1, start: len, bytes: len, droppable_bytes: 0, generation: 0 })
    }

    /// Writes a checkpoint into its copy, which is made durable, and to the start of a segment, which is not yet.
    fn write_checkpoint(&self, number: u64, account: &Account) -> io::Result<(File, u64)> {
        let bytes = segment::checkpoint(account);
        let mut copy = self.disk.create_or_truncate(&segment::copy_path(&self.dir, number))?;
        copy.append(&bytes)?;
        copy.sync("journal.copy")?;
        let mut file = self.disk.create_or_truncate(&segment::path(&self.dir, number))?;
        file.append(&bytes)?;
        Ok((file, bytes.len() as u64))
    }

    /// Makes durable what was written so far and publishes it.
    pub fn commit(&self, hub: &Hub) -> io::Result<()> {
        self.sync(hub)?;
        // Where somebody deletes segments at the moment, he does this first.
        if let Ok(_one_at_a_time) = self.retaining.try_lock() {
            let remembered = self.remember(hub);
            hub.attempt(REMEMBERING, remembered); // tried again by the next commit
            if hub.lock().closed {
                hub.attempt(REMEMBERING, self.join_compaction());
            }
        }
        Ok(())
    }

    fn sync(&self, hub: &Hub) -> io::Result<()> {
        let mut syncing = self.syncing.lock().expect("no holder of this lock panics");
        let (number, target) = {
            let mut writer = self.writer.lock().expect("no holder of this lock panics");
            if writer.suspect {
                self.rescue(hub, &mut writer)?;
            }
            let queue = hub.lock();
            queue.check()?;
            if queue.published == queue.accepted {
                let closed = queue.closed;
                drop(queue);
                if closed {
                    self.mark(&mut writer);
                }
                return Ok(());
            }
            (writer.number, queue.accepted)
        };
        if syncing.as_ref().is_none_or(|(n, _)| *n != number) {
            *syncing = Some((number, self.disk.open_append(&segment::path(&self.dir, number))?));
        }
        let (_, file) = syncing.as_mut().expect("opened just now");
        // fsync before publishing: what a sink has seen is decided for good.
        if let Err(error) = file.sync("journal.commit") {
            *syncing = None;
            let mut writer = self.writer.lock().expect("no holder of this lock panics");
            if hub.lock().published >= target {
                return Ok(()); // the segment has ended meanwhile, and that made it durable
            }
            writer.suspect = true;
            return if self.disk.is_gone(&error) { Err(error) } else { self.rescue(hub, &mut writer) };
        }
        hub.publish(target);
        if hub.lock().closed {
            self.mark(&mut self.writer.lock().expect("no holder of this lock panics"));
        }
        Ok(())
    }

    /// Says behind the last frame that everything before was durable. Only recovery from damage asks for it, so a failure
    /// costs nothing else.
    fn mark(&self, writer: &mut Writer) {
        if writer.marked || writer.torn || writer.ended || writer.frame_bytes == 0 {
            return;
        }
        writer.marked = true;
        let bytes = segment::record(Kind::Mark, writer.seq, |_| {});
        if let Some(file) = &mut writer.file {
            file.append(&bytes).ok(); // torn, it is cut by the next start
        }
    }

    /// Writes everything that is not published once more, into a new segment, and publishes it.
    fn rescue(&self, hub: &Hub, writer: &mut Writer) -> io::Result<()> {
        writer.suspect = true;
        let (account, frames, end) = {
            let queue = hub.lock();
            let frames: Vec<Arc<Frame>> = (queue.published + 1..=queue.accepted)
                .map(|seq| Arc::clone(&queue.slot(seq).expect("what is not published is in memory").frame))
                .collect();
            (queue.account.clone(), frames, queue.published_end)
        };
        let number = writer.number + 1;
        let (mut file, start) = self.write_checkpoint(number, &account)?;
        let (mut len, mut droppable_bytes) = (start, 0);
        let mut ends = Vec::with_capacity(frames.len());
        let mut encoded = Encoded::default();
        for frame in &frames {
            encoded = Encoded::of(frame, std::mem::take(&mut encoded.bytes));
            encoded.seal(frame.seq, account.seq);
            file.append_both(&encoded.bytes, &frame.rows.bytes)?;
            len += encoded.len() as u64;
            droppable_bytes += encoded.droppable_bytes();
            ends.push((frame.seq, Place { segment: number, offset: len, generation: 0 }));
        }
        file.sync("journal.rescue")?;
        self.disk.sync_dir(&self.dir, "journal.names")?;
        let old = writer.number;
        let last = frames.last().map_or(account.seq, |f| f.seq);
        *writer = Writer { file: Some(file), len, frame_bytes: len - start, ended: false, ..Writer::ended(number, last) };
        let segment = Segment { number, first_seq: account.seq + 1, start, bytes: len, droppable_bytes, generation: 0 };
        let good = hub.lock().move_unpublished(segment, end, &ends);
        hub.publish(last);
        // What stands behind is known to be written once more; where it cannot be cut, a restart passes over it.
        if let Some(good) = good {
            recover::cut(&self.disk, &segment::path(&self.dir, old), good).ok();
        }
        Ok(())
    }

    /// Begins a segment with these positions, so that they are durable.
    pub fn restart(&self, hub: &Hub) -> io::Result<()> {
        let mut writer = self.writer.lock().expect("no holder of this lock panics");
        self.cut_torn(&mut writer)?;
        let account = hub.lock().account.clone();
        let segment = self.begin_segment(&mut writer, &account)?;
        hub.lock().segments.push_back(segment);
        Ok(())
    }

    /// Deletes segments that every sink has, oldest first.
    pub fn retain(&self, hub: &Hub) -> io::Result<()> {
        if hub.lock().deletable().is_none() {
            return Ok(());
        }
        let _one_at_a_time = self.retaining.lock().expect("no holder of this lock panics");
        loop {
            self.remember(hub)?;
            let Some((segment, last)) = hub.lock().deletable() else { return Ok(()) };
            self.settle_losses(hub, segment, last)?;
            // The copy first, and for good: without its segment it would say that one is missing.
            for path in [segment::copy_path(&self.dir, segment.number), segment::path(&self.dir, segment.number)] {
                match self.disk.unlink(&path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {} // deleted before, but its folder could not be synced
                    other => other?,
                }
                // One by one: if a crash brought back this name and not the next one, there would be a gap.
                self.disk.sync_dir(&self.dir, "journal.retain")?;
            }
            hub.forget_oldest_segment();
        }
    }

    /// Puts what segments that have ended say of the state of steps into its log. The caller holds `retaining`.
    fn remember(&self, hub: &Hub) -> io::Result<()> {
        loop {
            let mut state = self.state.lock().expect("no holder of this lock panics");
            let before = state.seq;
            let Some((segment, last)) = hub.lock().ended_after(before) else { return Ok(()) };
            let mut adding = state.add()?;
            self.each_change(segment, before, last, &mut |step, entries| adding.push(step, entries))?;
            adding.finish(last)?;
            let is_due = state.is_due();
            drop(state);
            if is_due {
                self.join_compaction()?; // it has ended long ago, or else the log grows faster than anybody can compact it
                self.compact()?;
            }
        }
    }

    fn compact(&self) -> io::Result<()> {
        let Some(snapshot) = self.state.lock().expect("no holder of this lock panics").begin_compaction() else { return Ok(()) };
        let (log, cancelled) = (Arc::clone(&self.state), Arc::clone(&self.cancelled));
        if !snapshot.is_large() {
            return state::compact(&log, &snapshot, &cancelled);
        }
        let thread = std::thread::Builder::new().name("state".into()).spawn(move || state::compact(&log, &snapshot, &cancelled))?;
        *self.compaction.lock().expect("no holder of this lock panics") = Some(thread);
        Ok(())
    }

    fn join_compaction(&self) -> io::Result<()> {
        match self.compaction.lock().expect("no holder of this lock panics").take() {
            Some(thread) => thread.join().expect("a compaction does not panic"),
            None => Ok(()),
        }
    }

    /// Shows what the frames of a segment behind `before` and up to `last` say of the state of steps.
    fn each_change(&self, segment: Segment, before: u64, last: u64, show: &mut dyn FnMut(u32, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut shown = Ok(());
        segment::scan(&self.disk, &segment::path(&self.dir, segment.number), usize::MAX, false, &mut |item| {
            if let Item::Frame { offset, head, .. } = item {
                if offset >= segment.bytes || head.frame.seq > last {
                    return false; // written once more in the next segment
                }
                let changes = head.frame.state.iter().filter(|_| head.frame.seq > before);
                shown = changes.into_iter().try_for_each(|change| show(change.step, &change.bytes));
            }
            shown.is_ok()
        })?;
        shown
    }

    pub fn each_state(&self, hub: &Hub, show: &mut dyn FnMut(u32, &[u8])) -> io::Result<()> {
        let _one_at_a_time = self.retaining.lock().expect("no holder of this lock panics");
        let mut state = self.state.lock().expect("no holder of this lock panics");
        // What a step knew before it was forgotten is not shown: where somebody was, everything is read twice.
        let (mut forgotten, mut number): (BTreeMap<u32, u64>, u64) = (BTreeMap::new(), 0);
        if state.forgets {
            let mut note = |step, entries: &[u8]| {
                number += 1;
                if entries.is_empty() {
                    forgotten.insert(step, number);
                }
            };
            state.runs(&mut note)?;
            self.each_late(hub, state.seq, &mut note)?;
        }
        number = 0;
        let mut show = |step, entries: &[u8]| {
            number += 1;
            if forgotten.get(&step).is_none_or(|at| number > *at) {
                show(step, entries);
            }
        };
        state.each(&mut show)?;
        self.each_late(hub, state.seq, &mut show)
    }

    /// Shows the changes of frames that the log of the state does not have yet.
    pub fn each_late(&self, hub: &Hub, seq: u64, show: &mut dyn FnMut(u32, &[u8])) -> io::Result<()> {
        let segments = hub.lock().segments.clone();
        for segment in segments {
            self.each_change(segment, seq, u64::MAX, &mut |step, entries| {
                show(step, entries);
                Ok(())
            })?;
        }
        Ok(())
    }

    pub fn keep_state(&self, in_use: InUse) {
        self.state.lock().expect("no holder of this lock panics").set_in_use(in_use);
    }

    /// Adds up what sinks lost in a segment that goes: its frames' heads say how much that was.
    fn settle_losses(&self, hub: &Hub, segment: Segment, last: u64) -> io::Result<()> {
        let mut losses = {
            let queue = hub.lock();
            if !queue.losses.touch(segment.first_seq, last) {
                return Ok(());
            }
            queue.losses.clone()
        };
        segment::scan(&self.disk, &segment::path(&self.dir, segment.number), usize::MAX, false, &mut |item| {
            if let Item::Frame { head, .. } = item
                && head.frame.seq <= last
            {
                for (name, sink) in &mut losses.sinks {
                    if let Some(reason) = sink.reason_of(head.frame.seq) {
                        for (tenant, tally) in due_of(&head.frame, name, |part| !sink.had(&head.frame, part)) {
                            sink.settled.entry((tenant, reason)).or_default().add(tally);
                        }
                    }
                }
            }
            true
        })?;
        losses.forget(last);
        losses.write(&self.disk, &self.dir)?;
        hub.lock().losses = losses;
        Ok(())
    }

    /// Notes durably that a sink will not have the rows of these frames, but for those that it took ahead of its turn.
    pub fn note_lost(&self, hub: &Hub, reader: usize, first: u64, last: u64, reason: LostReason) -> io::Result<()> {
        let _one_at_a_time = self.retaining.lock().expect("no holder of this lock panics");
        let (mut losses, sink, had) = {
            let queue = hub.lock();
            let reader = &queue.readers[reader];
            (queue.losses.clone(), reader.name.clone(), reader.express.stretches())
        };
        if losses.add(&sink, first, last, reason, &had) {
            losses.write(&self.disk, &self.dir)?;
            hub.lock().losses = losses;
        }
        Ok(())
    }

    /// Drops the rows of the oldest segment that has some, and keeps its headers. False where there is none to be dropped.
    pub fn strip(&self, hub: &Hub, headers_max: u64) -> io::Result<bool> {
        let _one_at_a_time = self.retaining.lock().expect("no holder of this lock panics");
        let Some(segment) = hub.lock().strippable(headers_max) else { return Ok(false) };
        let path = segment::path(&self.dir, segment.number);
        let mut keeps = vec![Keep::Bytes(0..segment.start)];
        segment::scan(&self.disk, &path, usize::MAX, false, &mut |item| {
            if let Item::Frame { offset, end, head, .. } = item {
                if offset >= segment.bytes {
                    return false; // written once more in the next segment
                }
                keeps.push(match head.frame.lost {
                    Some(_) => Keep::Bytes(offset..end),
                    None => Keep::Frame(Box::new(head.frame.without_rows(&head.rows, LostReason::DroppedOldest))),
                });
            }
            true
        })?;
        let (_, bytes) = segment::prepare(&self.disk, &self.dir, segment.number, &keeps)?;
        {
            let _nobody_reads = self.files.write().expect("no holder of this lock panics");
            segment::replace(&self.disk, &self.dir, segment.number)?;
            hub.lock().stripped(segment.number, bytes);
        }
        self.disk.sync_dir(&self.dir, "journal.replaced")?;
        Ok(true)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.join_compaction().ok(); // nobody may write to the folder of who opens it next
    }
}

impl Writer {
    fn ended(number: u64, seq: u64) -> Writer {
        Writer { file: None, number, len: 0, frame_bytes: 0, torn: false, ended: true, suspect: false, seq, marked: false }
    }
}

impl Segment {
    /// Where its first frame stands.
    pub fn place(&self) -> Place {
        Place { segment: self.number, offset: self.start, generation: self.generation }
    }
}
