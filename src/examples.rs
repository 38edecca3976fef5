//! Examples of records that were dropped: the last few of each tenant and reason, to be looked up.
//!
//! In: from each frame at most [`PER_FRAME_MAX`] records, the first that a tenant lost for a reason in a stretch of a log, cut to
//! [`LINE_BYTES_MAX`]. Out: rings of [`RING`], asked over the socket while the process runs, and written to
//! `examples/PIPELINE.json` in the data folder every 10 s and at the end: `kill -9` costs the last seconds of them, and no count
//! ever depends on them. Memory: at most [`KEYS_MAX`] rings of 2 KiB; then the one without news for the longest time is forgotten.

use anyhow::Context;
use flow::event::{Reason, StreamId};
use flow::units::UnixNanos;
use hub::Disk;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// A lane notes no more of one frame: 16 of 1 MiB cost nothing.
pub const PER_FRAME_MAX: usize = 16;
pub const LINE_BYTES_MAX: usize = 256;
const RING: usize = 5;
const KEYS_MAX: usize = 1_024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    pub tenant: Vec<u8>,
    /// Code of a [`Reason`].
    pub reason: u8,
    pub stream: u64,
    /// Offset in the stream at which the record was complete.
    pub position: u64,
    pub time_ns: i64,
    /// Length of the whole record.
    pub bytes: u64,
    /// Its beginning.
    pub line: Vec<u8>,
    /// Of a copy or a conflict: stream and position of the first record.
    #[serde(default)]
    pub first: Option<(u64, u64)>,
    /// A conflict that was kept and is not metered.
    #[serde(default)]
    pub is_kept: bool,
}

impl Example {
    pub fn new(tenant: &[u8], reason: Reason, stream: StreamId, position: u64, time: UnixNanos, record: &[u8]) -> Example {
        let line = record[..record.len().min(LINE_BYTES_MAX)].to_vec();
        Example {
            tenant: tenant.to_vec(),
            reason: reason as u8,
            stream: stream.0,
            position,
            time_ns: time.0,
            bytes: record.len() as u64,
            line,
            first: None,
            is_kept: false,
        }
    }
}

/// The examples of one pipeline.
pub struct Examples {
    disk: Disk,
    path: PathBuf,
    rings: Mutex<Rings>,
}

#[derive(Default)]
struct Rings {
    by_key: BTreeMap<(Vec<u8>, u8), Ring>,
    /// Numbers the examples in order of arrival.
    count: u64,
    is_dirty: bool,
}

#[derive(Default)]
struct Ring {
    newest: u64,
    examples: VecDeque<Example>,
}

impl Examples {
    /// Reads what an earlier run wrote. A damaged file is begun anew: it holds nothing that counts.
    pub fn open(disk: &Disk, data: &Path, pipeline: &str) -> anyhow::Result<Examples> {
        let path = data.join("examples").join(format!("{pipeline}.json"));
        let mut rings = Rings::default();
        match disk.read(&path) {
            Ok(bytes) => rings.add(serde_json::from_slice::<Vec<Example>>(&bytes).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
        rings.is_dirty = false;
        Ok(Examples { disk: disk.clone(), path, rings: Mutex::new(rings) })
    }

    fn lock(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().expect("no holder of this lock panics")
    }

    pub fn add(&self, examples: impl IntoIterator<Item = Example>) {
        self.lock().add(examples);
    }

    /// The examples of a reason and a tenant, or of all, each ring the oldest first.
    pub fn find(&self, reason: Option<Reason>, tenant: Option<&[u8]>) -> Vec<Example> {
        let rings = self.lock();
        let wanted = rings
            .by_key
            .iter()
            .filter(|((t, r), _)| reason.is_none_or(|reason| reason as u8 == *r) && tenant.is_none_or(|tenant| tenant == &t[..]));
        wanted.flat_map(|(_, ring)| ring.examples.iter().cloned()).collect()
    }

    /// Writes them down, if there are new ones.
    pub fn save(&self) -> anyhow::Result<()> {
        let text = {
            let mut rings = self.lock();
            if !std::mem::take(&mut rings.is_dirty) {
                return Ok(());
            }
            // In order of their last news, so that the next run forgets in the same order.
            let mut in_order: Vec<&Ring> = rings.by_key.values().collect();
            in_order.sort_by_key(|ring| ring.newest);
            let all: Vec<&Example> = in_order.into_iter().flat_map(|ring| &ring.examples).collect();
            serde_json::to_vec(&all).expect("plain data")
        };
        let written = self
            .disk
            .create_dir_all(self.path.parent().expect("it lies in a folder"), "examples.folder")
            .context("cannot create the folder of examples")
            .and_then(|()| crate::durable::replace(&self.disk, &self.path, &text));
        if written.is_err() {
            self.lock().is_dirty = true;
        }
        written
    }
}

impl Rings {
    fn add(&mut self, examples: impl IntoIterator<Item = Example>) {
        for example in examples {
            self.is_dirty = true;
            self.count += 1;
            let key = (example.tenant.clone(), example.reason);
            if self.by_key.len() >= KEYS_MAX && !self.by_key.contains_key(&key) {
                let oldest = self.by_key.iter().min_by_key(|(_, ring)| ring.newest).map(|(key, _)| key.clone());
                oldest.inspect(|key| drop(self.by_key.remove(key)));
            }
            let ring = self.by_key.entry(key).or_default();
            ring.newest = self.count;
            ring.examples.push_back(example);
            if ring.examples.len() > RING {
                ring.examples.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub::disk::Sim;
    use std::sync::Arc;

    fn example(tenant: &str, n: u64) -> Example {
        Example::new(tenant.as_bytes(), Reason::Sampled, StreamId(7), n, UnixNanos(n as i64), &vec![b'x'; n as usize])
    }

    #[test]
    fn the_last_few_of_each_tenant_and_reason_stay_and_survive_a_restart() {
        let disk = Disk::Sim(Arc::new(Sim::new(3)));
        let open = || Examples::open(&disk, Path::new("/data"), "p").expect("it opens");
        let examples = open();
        examples.add((0..300).map(|n| example(if n % 2 == 0 { "a" } else { "b" }, n)));
        let positions = |examples: &Examples, tenant: &str| {
            examples.find(Some(Reason::Sampled), Some(tenant.as_bytes())).iter().map(|e| e.position).collect::<Vec<_>>()
        };
        assert_eq!(positions(&examples, "a"), [290, 292, 294, 296, 298]);
        let cut = examples.find(None, Some(b"b")).pop().expect("one");
        assert_eq!((cut.bytes, cut.line.len()), (299, LINE_BYTES_MAX));
        assert!(examples.find(Some(Reason::Duplicate), None).is_empty());
        examples.save().expect("written");
        let again = open();
        assert_eq!(again.find(None, None), examples.find(None, None));
        disk.create_or_truncate(&examples.path).expect("there").append(b"[{").expect("written");
        assert!(open().find(None, None).is_empty());
    }

    #[test]
    fn tenants_without_end_are_forgotten_oldest_first() {
        let disk = Disk::Sim(Arc::new(Sim::new(3)));
        let examples = Examples::open(&disk, Path::new("/data"), "p").expect("it opens");
        examples.add((0..KEYS_MAX as u64 + 10).map(|n| example(&format!("t{n}"), 1)));
        examples.add([example("t12", 2)]);
        examples.add((0..2).map(|n| example(&format!("new {n}"), 1)));
        assert_eq!(examples.find(None, None).len(), KEYS_MAX + 1);
        for (tenant, count) in [("t9", 0), ("t10", 0), ("t11", 0), ("t12", 2), ("t13", 1)] {
            assert_eq!(examples.find(None, Some(tenant.as_bytes())).len(), count, "{tenant}");
        }
    }
}
