//! The files inside a packed index, as a folder that tantivy reads: by blocks, each with its checksum.
//!
//! In: places and checksums from the header; out: bytes, or an error where a block is damaged. Nothing is ever written.
//! Memory: the blocks that a read covers.

use hub::disk::Disk;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tantivy::directory::error::{DeleteError, OpenReadError, OpenWriteError};
use tantivy::directory::{FileHandle, OwnedBytes, WatchCallback, WatchHandle, WritePtr};
use tantivy::{Directory, HasLen};

/// Bytes under one checksum: small enough that a point lookup reads little.
pub(super) const BLOCK_BYTES: usize = 32 << 10;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Packed {
    pub name: String,
    /// From the end of the header.
    pub offset: u64,
    pub len: u64,
    /// Of each block of [`BLOCK_BYTES`].
    pub crc32: Vec<u32>,
}

/// The files inside a packed index, read block by block, each block checked.
#[derive(Clone)]
pub(super) struct PackedFolder {
    pub disk: Disk,
    pub path: Arc<Path>,
    pub base: u64,
    pub files: Arc<[Packed]>,
    /// Bytes read so far.
    pub read: Arc<AtomicU64>,
}

pub(super) struct PackedFile {
    pub folder: PackedFolder,
    pub at: usize,
}

impl fmt::Debug for PackedFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedFolder({})", self.path.display())
    }
}

impl fmt::Debug for PackedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedFile({}, {})", self.folder.path.display(), self.at)
    }
}

impl HasLen for PackedFile {
    fn len(&self) -> usize {
        self.folder.files[self.at].len as usize
    }
}

impl PackedFile {
    pub(super) fn read(&self, range: Range<usize>) -> io::Result<Vec<u8>> {
        let file = &self.folder.files[self.at];
        if range.start > range.end || range.end > file.len as usize {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "outside of the index file"));
        }
        let (first, last) = (range.start / BLOCK_BYTES, range.end.div_ceil(BLOCK_BYTES));
        let start = first * BLOCK_BYTES;
        let end = (last * BLOCK_BYTES).min(file.len as usize);
        let mut bytes = self.folder.disk.read_at(&self.folder.path, self.folder.base + file.offset + start as u64, end - start)?;
        self.folder.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let sums = file.crc32.get(first..last).unwrap_or_default();
        if bytes.len() != end - start || !bytes.chunks(BLOCK_BYTES).map(crc32fast::hash).eq(sums.iter().copied()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged", self.folder.path.display())));
        }
        bytes.truncate(range.end - start);
        bytes.drain(..range.start - start);
        Ok(bytes)
    }
}

impl FileHandle for PackedFile {
    fn read_bytes(&self, range: Range<usize>) -> io::Result<OwnedBytes> {
        Ok(OwnedBytes::new(self.read(range)?))
    }
}

fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "a packed index is never written to")
}

impl PackedFolder {
    pub(super) fn find(&self, path: &Path) -> Option<usize> {
        self.files.iter().position(|f| Path::new(&f.name) == path)
    }
}

impl Directory for PackedFolder {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        match self.find(path) {
            Some(at) => Ok(Arc::new(PackedFile { folder: self.clone(), at })),
            None => Err(OpenReadError::FileDoesNotExist(path.into())),
        }
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        Ok(self.find(path).is_some())
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        let at = self.find(path).ok_or_else(|| OpenReadError::FileDoesNotExist(path.into()))?;
        let file = PackedFile { folder: self.clone(), at };
        file.read(0..file.len()).map_err(|error| OpenReadError::wrap_io_error(error, path.into()))
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        Err(DeleteError::IoError { io_error: Arc::new(read_only()), filepath: path.into() })
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        Err(OpenWriteError::wrap_io_error(read_only(), path.into()))
    }

    fn atomic_write(&self, _: &Path, _: &[u8]) -> io::Result<()> {
        Err(read_only())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn watch(&self, _: WatchCallback) -> tantivy::Result<WatchHandle> {
        Ok(WatchHandle::empty())
    }
}
