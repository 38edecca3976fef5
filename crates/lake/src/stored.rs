//! A file of the lake, read piece by piece, and how much of it was read.
//!
//! In: a path; out: what Parquet's readers ask for. The file is opened once for each reader and not for each page. Memory: the piece
//! that is asked for, at most the file.

use anyhow::Context;
use bytes::Bytes;
use hub::disk::{Disk, Reading};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that a question has read so far, over all its threads.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub bytes: AtomicU64,
}

impl Meter {
    pub(crate) fn total(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
pub(crate) struct StoredFile {
    file: Arc<Reading>,
    path: PathBuf,
    len: u64,
    meter: Arc<Meter>,
}

impl StoredFile {
    pub(crate) fn open(disk: &Disk, path: &Path, meter: &Arc<Meter>) -> anyhow::Result<StoredFile> {
        let cannot = || format!("cannot open {}", path.display());
        let file = Arc::new(disk.open_read(path).with_context(cannot)?);
        Ok(StoredFile { file, path: path.into(), len: disk.len(path).with_context(cannot)?, meter: Arc::clone(meter) })
    }

    fn read_at(&self, start: u64, out: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(start, out)?;
        self.meter.bytes.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

impl Length for StoredFile {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for StoredFile {
    type T = StoredPart;

    fn get_read(&self, start: u64) -> parquet::errors::Result<StoredPart> {
        Ok(StoredPart { file: self.clone(), at: start, buffer: Vec::new(), used: 0 })
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let cut_off = || ParquetError::EOF(format!("{} is cut off", self.path.display()));
        if start.saturating_add(length as u64) > self.len {
            return Err(cut_off());
        }
        let mut bytes = vec![0; length];
        if self.read_at(start, &mut bytes)? < length {
            return Err(cut_off());
        }
        Ok(bytes.into())
    }
}

/// A reader from some offset on; page headers are small, so it reads in small pieces.
pub(crate) struct StoredPart {
    file: StoredFile,
    at: u64,
    buffer: Vec<u8>,
    used: usize,
}

const PIECE_BYTES: usize = 4 << 10;

impl Read for StoredPart {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.used == self.buffer.len() {
            self.buffer.resize(PIECE_BYTES, 0);
            let n = self.file.read_at(self.at, &mut self.buffer)?;
            self.buffer.truncate(n);
            self.at += n as u64;
            self.used = 0;
        }
        let n = out.len().min(self.buffer.len() - self.used);
        out[..n].copy_from_slice(&self.buffer[self.used..self.used + n]);
        self.used += n;
        Ok(n)
    }
}
