//! Bodies of answers that are made while they are sent.
//!
//! In: pieces from a thread that makes them. Out: a body that hyper sends. The channel holds [`PIECES_MAX`] pieces: who reads slowly
//! makes the maker wait, and who goes away ends it at its next piece.

use axum::body::{Body, Bytes};
use hyper::body::Frame;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc::{Receiver, Sender, channel};

const PIECES_MAX: usize = 8;
/// A piece is sent once it has so many bytes.
const PIECE_BYTES: usize = 64 << 10;

struct Pieces(Receiver<io::Result<Bytes>>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// A body, and the writer that fills it from another thread; it ends when the writer is dropped.
pub fn streamed() -> (Body, Writer) {
    let (pieces, receiver) = channel(PIECES_MAX);
    (Body::new(Pieces(receiver)), Writer { pieces, piece: Vec::new() })
}

/// An error of it says that nobody reads any more.
pub struct Writer {
    pieces: Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Writer {
    /// Cuts the connection: whoever reads sees that the answer is not whole.
    pub fn break_off(&mut self, why: String) {
        self.piece.clear();
        let _ = self.pieces.blocking_send(Err(io::Error::other(why))); // nobody reads: there is nobody to tell
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
        self.pieces.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = io::Write::flush(self); // nobody reads: there is nobody to tell
    }
}
