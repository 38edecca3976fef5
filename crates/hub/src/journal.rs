//! The journal: frames on disk before any sink sees them.
//!
//! In: frames, already encoded. Out: durable records (see `segment`). A frame is one write; an fsync later (`commit`, for
//! all frames since the last one) it is published. A segment that is full is made durable, then a new one begins with
//! the account of all frames before it, so that old segments can be deleted once every sink has them.
//! When a write fails (disk full), its torn bytes are cut before anything else is written; when a new segment cannot
//! be begun, that is tried again first. When an fsync of frames fails nobody knows what is on disk: the hub stops, and
//! a restart finds out. Bound: the segments on disk, by `Hub::accept`; buffers for encoding, [`BUFFERS_MAX`].
//!
//! Locks, in this order: `retaining`, `syncing`, `writer`, the queue's.

use crate::account::Account;
use crate::disk::{Disk, File};
use crate::frame::{FRAME_BYTES_MAX, Frame};
use crate::hub::{AcceptError, Hub, OpenError};
use crate::ledger::RowCount;
use crate::queue::{Queue, Slot};
use crate::recover::{self, Segment, recover};
use crate::segment::{self, HEADER_BYTES, Kind, Place};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const BUFFERS_MAX: usize = 8;
const BUFFER_BYTES_KEPT: usize = 4 << 20; // a frame is about 1 MiB; 8 buffers keep 32 MiB at the very most

pub(crate) struct Journal {
    pub disk: Disk,
    pub dir: PathBuf,
    segment_bytes: u64,
    writer: Mutex<Writer>,
    /// A second handle to the segment being written, so that an fsync does not keep lanes from writing.
    syncing: Mutex<Option<(u64, File)>>,
    retaining: Mutex<()>,
    buffers: Mutex<Vec<Vec<u8>>>,
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
    /// Number of the last frame that was written.
    seq: u64,
}

/// What was found besides the account.
pub(crate) struct Opened {
    pub journal: Journal,
    pub queue: Queue,
    pub truncated_bytes: u64,
    pub notices: Vec<String>,
}

/// A frame as it will be written, with room for its header.
pub(crate) struct Encoded {
    bytes: Vec<u8>,
    crc: u32,
    pub rows: RowCount,
}

pub(crate) struct Appended {
    pub seq: u64,
    /// Bytes that were not durable yet before this frame, and with it.
    pub unsynced_before: u64,
    pub unsynced_bytes: u64,
}

impl Encoded {
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

impl Journal {
    pub fn open(disk: Disk, dir: &Path, segment_bytes: u64, window_bytes_max: u64, tenants_max: usize) -> Result<Opened, OpenError> {
        let io = |e: io::Error| OpenError::io(dir, e);
        disk.create_dir_all(dir, "hub.folder").map_err(io)?;
        let found = recover(&disk, dir, tenants_max)?;
        let queue = Queue::new(found.account, Some(window_bytes_max), found.segments);
        let writer = match queue.segments.back() {
            Some(last) => Writer {
                file: Some(disk.open_append(&segment::path(dir, last.number)).map_err(io)?),
                number: last.number,
                len: last.bytes,
                frame_bytes: last.bytes - last.start,
                torn: false,
                ended: false,
                seq: queue.accepted,
            },
            None => Writer { file: None, number: 0, len: 0, frame_bytes: 0, torn: false, ended: true, seq: queue.accepted },
        };
        let journal = Journal {
            disk,
            dir: dir.to_owned(),
            segment_bytes,
            writer: Mutex::new(writer),
            syncing: Mutex::new(None),
            retaining: Mutex::new(()),
            buffers: Mutex::new(Vec::new()),
        };
        let mut opened = Opened { journal, queue, truncated_bytes: found.truncated_bytes, notices: found.notices };
        if opened.queue.segments.is_empty() {
            let account = opened.queue.account.clone();
            let writer = &mut *opened.journal.writer.lock().expect("no holder of this lock panics");
            let segment = opened.journal.begin_segment(writer, &account).map_err(io)?;
            opened.queue.segments.push_back(segment);
        }
        Ok(opened)
    }

    /// Encodes a frame outside of all locks; its number comes later.
    pub fn encode(&self, frame: &Frame) -> Result<Encoded, &'static str> {
        frame.validate()?;
        let mut bytes = self.buffers.lock().expect("no holder of this lock panics").pop().unwrap_or_default();
        bytes.resize(HEADER_BYTES, 0);
        frame.encode(&mut bytes);
        if bytes.len() - HEADER_BYTES > FRAME_BYTES_MAX {
            return Err("a frame is larger than 256 MiB");
        }
        let crc = crc32fast::hash(&bytes[HEADER_BYTES..]);
        Ok(Encoded { bytes, crc, rows: RowCount::of(frame) })
    }

    fn reuse(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        let mut buffers = self.buffers.lock().expect("no holder of this lock panics");
        if buffers.len() < BUFFERS_MAX && bytes.capacity() <= BUFFER_BYTES_KEPT {
            buffers.push(bytes);
        }
    }

    /// Numbers a frame and writes it. `new_segment`: begin a segment first, so that the last one can be deleted.
    pub fn append(&self, hub: &Hub, mut frame: Frame, encoded: Encoded, new_segment: bool) -> Result<Appended, AcceptError> {
        let Encoded { mut bytes, crc, rows } = encoded;
        let len = bytes.len() as u64;
        let mut writer = self.writer.lock().expect("no holder of this lock panics");
        let full = writer.frame_bytes > 0 && (new_segment || writer.frame_bytes + len > self.segment_bytes);
        self.make_writable(hub, &mut writer, full)?;
        let seq = writer.seq + 1;
        frame.seq = seq;
        segment::seal(&mut bytes, Kind::Frame, seq, crc);
        let file = writer.file.as_mut().expect("make_writable leaves an open file");
        if let Err(error) = file.append(&bytes) {
            writer.torn = true;
            // Tried again before the next write if it fails now; the first error is the one that tells.
            self.cut_torn(&mut writer).ok();
            return Err(error.into());
        }
        writer.len += len;
        writer.frame_bytes += len;
        writer.seq = seq;
        let end = Place { segment: writer.number, offset: writer.len };
        let slot = Slot { rows, bytes: frame.bytes() as u64, record_bytes: len, end, delta: Box::default(), frame: Arc::new(frame) };
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
            return Err(hub.fail(error));
        }
        writer.ended = true;
        hub.publish(writer.seq);
        Ok(())
    }

    /// Begins the next segment. After an error it can be called again: nothing was written to it but the checkpoint.
    fn begin_segment(&self, writer: &mut Writer, account: &Account) -> io::Result<Segment> {
        let number = writer.number + 1;
        let path = segment::path(&self.dir, number);
        let mut bytes = vec![0; HEADER_BYTES];
        account.encode(&mut bytes);
        let crc = crc32fast::hash(&bytes[HEADER_BYTES..]);
        segment::seal(&mut bytes, Kind::Checkpoint, account.seq, crc);
        let mut file = self.disk.create_or_truncate(&path)?;
        file.append(&bytes)?;
        // Before the old segments may be deleted, this one must be able to stand in for them.
        file.sync("journal.begin")?;
        self.disk.sync_dir(&self.dir, "journal.names")?;
        let len = bytes.len() as u64;
        *writer = Writer { file: Some(file), number, len, frame_bytes: 0, torn: false, ended: false, seq: account.seq };
        Ok(Segment { number, first_seq: account.seq + 1, start: len, bytes: len })
    }

    /// Makes durable what was written so far and publishes it.
    pub fn commit(&self, hub: &Hub) -> io::Result<()> {
        let mut syncing = self.syncing.lock().expect("no holder of this lock panics");
        let (number, target) = {
            let writer = self.writer.lock().expect("no holder of this lock panics");
            let queue = hub.lock();
            queue.check()?;
            if queue.published == queue.accepted {
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
            return Err(hub.fail(error));
        }
        hub.publish(target);
        Ok(())
    }

    /// Deletes segments that every sink has, oldest first.
    pub fn retain(&self, hub: &Hub) -> io::Result<()> {
        if hub.lock().deletable().is_none() {
            return Ok(());
        }
        let _one_at_a_time = self.retaining.lock().expect("no holder of this lock panics");
        loop {
            let Some(segment) = hub.lock().deletable() else { return Ok(()) };
            match self.disk.unlink(&segment::path(&self.dir, segment.number)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {} // deleted before, but its folder could not be synced
                other => other?,
            }
            // One by one: if a crash brought back this name and not the next one, there would be a gap.
            self.disk.sync_dir(&self.dir, "journal.retain")?;
            hub.forget_oldest_segment();
        }
    }
}
