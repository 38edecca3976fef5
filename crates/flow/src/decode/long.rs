//! A line that is too long to wait for its end.
//!
//! In: the line's bytes, piece by piece as they are read. Out: the line, cut at `line_bytes_max` (never inside of
//! a character), when its end comes. Memory: `line_bytes_max`; what lies behind is skipped and counted, be it a
//! gigabyte.

use crate::batch::Law;
use crate::event::Skip;

#[derive(Debug)]
pub(super) struct Long {
    /// Offset of the line's first byte.
    pub from: u64,
    pub head: Vec<u8>,
    /// Bytes behind `head`.
    pub skipped: u64,
}

impl Long {
    pub fn new(from: u64) -> Long {
        Long { from, head: Vec::new(), skipped: 0 }
    }

    /// Takes the next piece of the line.
    pub fn take(&mut self, piece: &[u8], line_bytes_max: usize, law: &mut Law) {
        let kept = (line_bytes_max - self.head.len()).min(piece.len());
        self.head.extend_from_slice(&piece[..kept]);
        law.held_bytes += kept as i64;
        let rest = (piece.len() - kept) as u64;
        if rest > 0 {
            law.skip(Skip::LineTooLong, rest);
            self.skipped += rest;
        }
    }
}
