//! What was learned of files, kept between questions: footers, places of pages, opened indexes.
//!
//! In: paths of files that never change; out: what stands in them, read once. A [`Cache`] belongs to the caller and
//! serves any number of threads and lakes. Bound: `bytes_max` as counted here (a footer by its own count, an index as
//! if all its dictionaries were loaded); beyond it what was used longest ago is forgotten, so it only costs time.

use crate::index::Proposer;
use crate::logs::Notes;
use crate::stored::{Meter, StoredFile};
use anyhow::Context;
use hub::disk::Disk;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::PageIndexPolicy;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What [`search`](crate::search) and its like use when the caller has no cache.
pub const CACHE_BYTES: usize = 256 << 20;

/// Footers and indexes of files that were asked before.
pub struct Cache {
    bytes_max: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    bytes: usize,
    /// Counts uses, so that the oldest use is known.
    clock: u64,
    entries: HashMap<PathBuf, Entry>,
}

struct Entry {
    used: u64,
    bytes: usize,
    what: What,
}

#[derive(Clone)]
enum What {
    Footer(Arc<Footer>),
    Index(Arc<Proposer>),
}

/// A Parquet file's footer with the places of its pages.
pub(crate) struct Footer {
    pub metadata: ArrowReaderMetadata,
    pub notes: Notes,
}

impl Default for Cache {
    fn default() -> Cache {
        Cache::new(CACHE_BYTES)
    }
}

impl Cache {
    pub fn new(bytes_max: usize) -> Cache {
        Cache { bytes_max, held: Mutex::default() }
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // What a thread left when it panicked is whole: entries go in and out in one step.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, path: &Path) -> Option<What> {
        let mut held = self.lock();
        held.clock += 1;
        let now = held.clock;
        let entry = held.entries.get_mut(path)?;
        entry.used = now;
        Some(entry.what.clone())
    }

    fn put(&self, path: &Path, bytes: usize, what: What) {
        if bytes > self.bytes_max {
            return;
        }
        let mut held = self.lock();
        held.clock += 1;
        let entry = Entry { used: held.clock, bytes, what };
        held.bytes += bytes;
        if let Some(old) = held.entries.insert(path.into(), entry) {
            held.bytes -= old.bytes;
        }
        while held.bytes > self.bytes_max {
            let Some(oldest) = held.entries.iter().min_by_key(|e| e.1.used).map(|e| e.0.clone()) else { return };
            if let Some(gone) = held.entries.remove(&oldest) {
                held.bytes -= gone.bytes;
            }
        }
    }

    /// Forgets a file that turned out to be damaged.
    pub(crate) fn forget(&self, path: &Path) {
        let mut held = self.lock();
        if let Some(gone) = held.entries.remove(path) {
            held.bytes -= gone.bytes;
        }
    }

    pub(crate) fn footer(&self, disk: &Disk, path: &Path, meter: &Arc<Meter>) -> anyhow::Result<Arc<Footer>> {
        if let Some(What::Footer(footer)) = self.get(path) {
            return Ok(footer);
        }
        let cannot = || format!("cannot read {}", path.display());
        let file = StoredFile::open(disk, path, meter)?;
        let options =
            ArrowReaderOptions::new().with_column_index_policy(PageIndexPolicy::Skip).with_offset_index_policy(PageIndexPolicy::Optional);
        let metadata = ArrowReaderMetadata::load(&file, options).with_context(cannot)?;
        let notes = Notes::of(metadata.metadata().file_metadata()).with_context(cannot)?;
        let footer = Arc::new(Footer { metadata, notes });
        self.put(path, footer.metadata.metadata().memory_size(), What::Footer(Arc::clone(&footer)));
        Ok(footer)
    }

    /// What was read so far of an index that is held.
    pub(crate) fn index_bytes_read(&self, path: &Path) -> u64 {
        match self.get(path) {
            Some(What::Index(index)) => index.bytes_read(),
            _ => 0,
        }
    }

    /// The index at `path`, of a file with `rows` rows.
    pub(crate) fn index(&self, disk: &Disk, path: &Path, rows: u64) -> anyhow::Result<Arc<Proposer>> {
        if let Some(What::Index(index)) = self.get(path) {
            return Ok(index);
        }
        let index = Arc::new(Proposer::open(disk, path, rows)?);
        self.put(path, index.memory_bytes(), What::Index(Arc::clone(&index)));
        Ok(index)
    }
}
