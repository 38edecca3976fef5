//! Bodies of answers that are made while they are sent.
//!
//! In: pieces from a thread that makes them. Out: a body that hyper sends. The channel holds [`PIECES_MAX`] pieces: who reads slowly
//! makes the maker wait, who reads nothing for [`PATIENCE`] is cut off, and who goes away ends the maker at its next piece.

use axum::body::{Body, Bytes};
use hyper::body::Frame;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

const PIECES_MAX: usize = 8;
/// A piece is sent once it has so many bytes.
const PIECE_BYTES: usize = 64 << 10;
/// How long a piece waits for somebody to read.
const PATIENCE: Duration = Duration::from_secs(30);

struct Pieces {
    pieces: Receiver<Bytes>,
    is_broken: Arc<AtomicBool>,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.pieces.poll_recv(context).map(|piece| match piece {
            Some(piece) => Some(Ok(Frame::data(piece))),
            None if self.is_broken.swap(false, Ordering::SeqCst) => Some(Err(io::Error::other("the answer broke off"))),
            None => None,
        })
    }
}

/// A body, and the writer that fills it from another thread; it ends when the writer is dropped. Inside a runtime.
pub fn streamed() -> (Body, Writer) {
    let (pieces, receiver) = channel(PIECES_MAX);
    let is_broken = Arc::new(AtomicBool::new(false));
    let body = Body::new(Pieces { pieces: receiver, is_broken: Arc::clone(&is_broken) });
    (body, Writer { pieces, piece: Vec::new(), is_broken, runtime: Handle::current(), patience: PATIENCE })
}

/// An error of it says that nobody reads any more.
pub struct Writer {
    pieces: Sender<Bytes>,
    piece: Vec<u8>,
    is_broken: Arc<AtomicBool>,
    runtime: Handle,
    patience: Duration,
}

impl Writer {
    /// Ends the answer so that the connection is cut: whoever reads sees that it is not whole.
    pub fn break_off(&mut self) {
        self.piece.clear();
        self.is_broken.store(true, Ordering::SeqCst);
    }
}

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return if self.pieces.is_closed() { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) };
        }
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        self.runtime.block_on(self.pieces.send_timeout(piece, self.patience)).map_err(|error| {
            self.is_broken.store(true, Ordering::SeqCst);
            match error {
                SendTimeoutError::Timeout(_) => io::ErrorKind::TimedOut.into(),
                SendTimeoutError::Closed(_) => io::ErrorKind::BrokenPipe.into(),
            }
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.is_broken.load(Ordering::SeqCst) {
            let _ = io::Write::flush(self); // nobody reads: there is nobody to tell
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::io::Write;

    #[tokio::test]
    async fn who_reads_nothing_is_cut_off_and_sees_it() {
        let (body, mut writer) = streamed();
        writer.patience = Duration::from_millis(50);
        let written = tokio::task::spawn_blocking(move || {
            let piece = vec![b'x'; PIECE_BYTES];
            (0..).find_map(|n| writer.write_all(&piece).err().map(|error| (n, error.kind()))).unwrap()
        });
        assert_eq!(written.await.unwrap(), (PIECES_MAX, io::ErrorKind::TimedOut));
        assert!(body.collect().await.is_err());
    }

    #[tokio::test]
    async fn a_body_ends_when_its_writer_does_and_breaks_when_told() {
        for is_broken in [false, true] {
            let (body, mut writer) = streamed();
            tokio::task::spawn_blocking(move || {
                writer.write_all(b"some").unwrap();
                writer.flush().unwrap();
                writer.write_all(b" more").unwrap();
                if is_broken {
                    writer.break_off();
                }
            });
            match body.collect().await {
                Ok(whole) => assert!(!is_broken && whole.to_bytes() == b"some more"[..]),
                Err(_) => assert!(is_broken),
            }
        }
    }
}
