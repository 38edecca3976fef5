//! Ids by their hash: which rows hold an id that is in hardly any other row.
//!
//! In: ids and rows; out: one sorted table of the index. A dictionary of ids would be larger than all other words together, and
//! slow to build, so the table holds no id: a bucket by the first bits of the hash, then 14 bits of it and the row for each
//! entry, packed. It names every row that holds the id, and one look-up in a thousand names a row that does not.
//! Whether any id can match a pattern is told by the bytes that occur in the field's ids. Memory: 8 bytes an entry to build; to
//! read, one bucket.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Bits of the hash that are kept behind those of the bucket.
const REST_BITS: u32 = 14;
/// Entries of a bucket, on average, as a power of two.
const BUCKET_LOG2: u32 = 4;

#[derive(Default)]
pub(super) struct IdRows {
    /// First half of the hash, then the row.
    entries: Vec<u64>,
}

/// Where things lie in the table: `2^bucket_bits + 1` starts of 4 bytes, then the entries of `14 + row_bits` bits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IdTable {
    entries: u32,
    bucket_bits: u32,
    row_bits: u32,
}

/// Which bytes occur in the ids of a field, a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Alphabet([u64; 4]);

impl Alphabet {
    pub(super) fn add(&mut self, text: &[u8]) {
        for byte in text {
            self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
        }
    }

    /// Whether all bytes of `text` occur.
    pub(super) fn spells(&self, text: &str) -> bool {
        text.bytes().all(|byte| self.0[usize::from(byte >> 6)] & (1 << (byte & 63)) != 0)
    }
}

/// The hash by which an id is found: a contract of the files.
fn hash(id: &[u8]) -> u32 {
    (flow::hash::record_hash(id) >> 32) as u32
}

impl IdRows {
    pub(super) fn add(&mut self, id: &[u8], row: u32) {
        self.entries.push(u64::from(hash(id)) << 32 | u64::from(row));
    }

    /// The table and its bytes; `rows`: of the file.
    pub(super) fn finish(mut self, rows: u32) -> (IdTable, Vec<u8>) {
        self.entries.sort_unstable();
        self.entries.dedup();
        let count = self.entries.len() as u32;
        let bucket_bits = (32 - count.leading_zeros()).saturating_sub(BUCKET_LOG2).min(32 - REST_BITS);
        let table = IdTable { entries: count, bucket_bits, row_bits: (32 - rows.saturating_sub(1).leading_zeros()).max(1) };
        let mut out = Vec::with_capacity(table.bytes());
        let mut bucket = 0;
        for (i, entry) in self.entries.iter().enumerate() {
            while bucket <= table.bucket((entry >> 32) as u32) {
                out.extend_from_slice(&(i as u32).to_le_bytes());
                bucket += 1;
            }
        }
        while bucket <= 1 << bucket_bits {
            out.extend_from_slice(&count.to_le_bytes());
            bucket += 1;
        }
        let (mut bits, mut held) = (0u128, 0);
        for entry in &self.entries {
            let packed = u64::from(table.rest((entry >> 32) as u32)) << table.row_bits | entry & u64::from(u32::MAX);
            bits |= u128::from(packed) << held;
            held += table.entry_bits();
            while held >= 8 {
                out.push(bits as u8);
                bits >>= 8;
                held -= 8;
            }
        }
        if held > 0 {
            out.push(bits as u8);
        }
        (table, out)
    }
}

impl IdTable {
    fn entry_bits(&self) -> usize {
        (REST_BITS + self.row_bits) as usize
    }

    fn starts(&self) -> usize {
        ((1 << self.bucket_bits) + 1) * 4
    }

    fn bytes(&self) -> usize {
        self.starts() + (self.entries as usize * self.entry_bits()).div_ceil(8)
    }

    fn bucket(&self, hash: u32) -> u32 {
        if self.bucket_bits == 0 { 0 } else { hash >> (32 - self.bucket_bits) }
    }

    fn rest(&self, hash: u32) -> u32 {
        (hash << self.bucket_bits) >> (32 - REST_BITS)
    }

    /// Whether a table of so many bytes can be this one.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        self.bucket_bits <= 32 - REST_BITS && self.row_bits <= 32 && self.bytes() == bytes
    }

    /// Shows every row that may hold the id. `read`: bytes of the table.
    pub(super) fn find(
        &self,
        id: &str,
        read: impl Fn(Range<usize>) -> anyhow::Result<Vec<u8>>,
        mut each: impl FnMut(usize),
    ) -> anyhow::Result<()> {
        let hash = hash(id.as_bytes());
        let at = self.bucket(hash) as usize * 4;
        let starts = read(at..at + 8)?;
        let start = |i: usize| starts.get(i..i + 4).and_then(|b| b.try_into().ok()).map_or(0, |b| u32::from_le_bytes(b).min(self.entries));
        let (first, end) = (start(0) as usize, start(4) as usize);
        if first >= end {
            return Ok(());
        }
        let width = self.entry_bits();
        let from = first * width / 8;
        let bytes = read(self.starts() + from..self.starts() + (end * width).div_ceil(8))?;
        let want = u64::from(self.rest(hash));
        for i in first..end {
            let bit = i * width - from * 8;
            let mut packed = [0; 16];
            let piece = bytes.get(bit / 8..).unwrap_or_default();
            let len = piece.len().min(8);
            packed[..len].copy_from_slice(&piece[..len]);
            let entry = (u128::from_le_bytes(packed) >> (bit % 8)) as u64 & ((1 << width) - 1);
            if entry >> self.row_bits == want {
                each((entry & ((1 << self.row_bits) - 1)) as usize);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found of ids of which some are in several rows, beside a map.
    #[track_caller]
    fn check(rows: u32, ids: u32) {
        let name = |n: u32| format!("{:08x}", n.wrapping_mul(0x9e37_79b9));
        let mut all = IdRows::default();
        let mut want: std::collections::BTreeMap<String, Vec<usize>> = Default::default();
        for row in 0..rows {
            let id = name(row % ids.max(1));
            all.add(id.as_bytes(), row);
            all.add(id.as_bytes(), row);
            want.entry(id).or_default().push(row as usize);
        }
        let (table, bytes) = all.finish(rows);
        assert!(table.fits(bytes.len()) && !table.fits(bytes.len() + 1));
        let find = |id: &str| {
            let mut found = Vec::new();
            table.find(id, |range| Ok(bytes[range].to_vec()), |row| found.push(row)).unwrap();
            found.sort_unstable();
            found
        };
        let mut strays = 0;
        for (id, rows) in &want {
            let found = find(id);
            assert!(rows.iter().all(|row| found.contains(row)), "{id} misses a row");
            strays += found.len() - rows.len();
        }
        strays += (0..1000).map(|n| find(&format!("absent {n}")).len()).sum::<usize>();
        assert!(strays <= 3 + (rows as usize + 1000) * want.len().min(200) / 20_000, "{strays} rows too many");
    }

    #[test]
    fn every_row_of_an_id_is_found() {
        for (rows, ids) in [(0, 0), (1, 1), (2, 1), (15, 15), (16, 3), (1000, 1000), (5000, 700), (70_000, 70_000)] {
            check(rows, ids);
        }
    }

    #[test]
    fn an_alphabet_tells_what_cannot_be() {
        let mut hex = Alphabet::default();
        hex.add(b"00ffa9");
        assert!(hex.spells("fa0") && hex.spells("") && !hex.spells("conn") && !hex.spells("é"));
    }
}
