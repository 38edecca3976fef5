//! A look at frames as they are published, for somebody who reads along: a live tail.
//!
//! In: frames, when sinks see them. Out: the same frames, in order. Nobody waits for who looks on: beyond `bytes_max` of rows that
//! were not fetched the oldest frames are left out, and their rows counted as missed. Where nobody looks on it costs nothing.

use crate::frame::Frame;
use crate::hub::Hub;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// Frames from the moment it was made; see [`Hub::watch`].
pub struct Watch {
    hub: Arc<Hub>,
    seen: u64,
    shared: Arc<Mutex<Waiting>>,
}

/// What [`Watch::next`] gives.
#[derive(Default)]
pub struct Seen {
    pub frames: Vec<Arc<Frame>>,
    /// Rows that were left out because nobody fetched them in time.
    pub missed: u64,
    /// Nothing comes any more.
    pub closed: bool,
}

#[derive(Default)]
struct Waiting {
    frames: VecDeque<Arc<Frame>>,
    bytes: usize,
    bytes_max: usize,
    missed: u64,
}

/// The hub's end of all watches.
#[derive(Default)]
pub(crate) struct Watchers(Vec<Weak<Mutex<Waiting>>>);

impl Watchers {
    pub fn publish(&mut self, frame: &Arc<Frame>) {
        self.0.retain(|watcher| {
            let Some(waiting) = watcher.upgrade() else { return false };
            waiting.lock().expect("no holder of this lock panics").add(frame);
            true
        });
    }
}

impl Waiting {
    fn add(&mut self, frame: &Arc<Frame>) {
        self.bytes += frame.bytes();
        self.frames.push_back(Arc::clone(frame));
        while self.bytes > self.bytes_max && self.frames.len() > 1 {
            if let Some(oldest) = self.frames.pop_front() {
                self.bytes -= oldest.bytes();
                self.missed += oldest.rows.len() as u64;
            }
        }
    }
}

impl Watch {
    pub(crate) fn new(hub: &Arc<Hub>, bytes_max: usize) -> Watch {
        let shared = Arc::new(Mutex::new(Waiting { bytes_max, ..Waiting::default() }));
        let mut queue = hub.lock();
        queue.watchers.0.push(Arc::downgrade(&shared));
        let seen = queue.published;
        drop(queue);
        Watch { hub: Arc::clone(hub), seen, shared }
    }

    /// What was published since the last call; waits for the first frame, but not longer than `timeout`.
    pub fn next(&mut self, timeout: Duration) -> Seen {
        let published = self.hub.wait_published(self.seen, timeout);
        let closed = self.hub.lock().closed && published <= self.seen;
        self.seen = published;
        let mut waiting = self.shared.lock().expect("no holder of this lock panics");
        waiting.bytes = 0;
        Seen { frames: waiting.frames.drain(..).collect(), missed: std::mem::take(&mut waiting.missed), closed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, Sim};
    use crate::hub::{Limits, WhenFull};
    use crate::sample;
    use std::collections::HashMap;
    use std::path::Path;

    #[test]
    fn who_looks_on_sees_every_frame_from_then_on_and_keeps_nobody_waiting() {
        let disk = Disk::Sim(Sim::new(7).into());
        let limits = Limits {
            bytes_max: 1 << 20,
            window_bytes_max: 1 << 20,
            segment_bytes: 1 << 18,
            sync_interval: Duration::from_millis(1),
            sync_bytes: 1 << 20,
            when_full: WhenFull::Wait,
        };
        let (hub, _) = Hub::open_journal(disk, Path::new("/data/journal"), limits, 100).unwrap();
        let hub = Arc::new(hub);
        let _sink = hub.cursor("archive", HashMap::new());
        let accept = |n: u64| hub.accept(sample::plain(&[(1, n * 10, n * 10 + 10)], b"acme", 3)).unwrap();
        accept(0);
        hub.commit().unwrap();
        let mut all = hub.watch(1 << 20);
        let mut one = hub.watch(1);
        let nothing = all.next(Duration::ZERO);
        assert!(nothing.frames.is_empty() && !nothing.closed, "what was there before is not news");
        accept(1);
        assert!(all.next(Duration::ZERO).frames.is_empty(), "what is not durable is not published");
        for n in 2..6 {
            accept(n);
        }
        hub.commit().unwrap();
        let seen = all.next(Duration::ZERO);
        assert_eq!(seen.frames.iter().map(|frame| frame.seq).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
        assert_eq!(seen.missed, 0);
        let seen = one.next(Duration::ZERO);
        assert_eq!((seen.frames.iter().map(|frame| frame.seq).collect::<Vec<_>>(), seen.missed), (vec![6], 4 * 3));
        assert_eq!(one.next(Duration::ZERO).missed, 0, "told once");
        drop(all);
        accept(6);
        hub.commit().unwrap();
        assert_eq!(hub.lock().watchers.0.len(), 1, "who went away is forgotten");
        one.next(Duration::ZERO);
        hub.close();
        assert!(one.next(Duration::from_secs(5)).closed);
    }
}
