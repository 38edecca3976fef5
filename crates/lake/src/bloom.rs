//! Asks a Parquet bloom filter whether a value may be there, by reading the 32 bytes that decide it.
//!
//! In: a file, where its filter lies, a value; out: false only if the value is surely absent. A filter of 256 KiB for
//! each row group and id is not read whole. Method: split block bloom filter of the Parquet format, xxHash64 with seed
//! 0. A filter that does not read as expected is no filter: the answer is then true.

use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::ChunkReader;

const HEADER_BYTES_MAX: usize = 32;
const BLOCK_BYTES: u64 = 32;
const SALT: [u32; 8] = [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// Whether the column chunk may hold `value`.
pub(crate) fn may_hold<F: ChunkReader>(file: &F, chunk: &ColumnChunkMetaData, value: &[u8]) -> bool {
    probe(file, chunk, value).unwrap_or(true)
}

/// `None`: there is no filter that can be asked.
fn probe<F: ChunkReader>(file: &F, chunk: &ColumnChunkMetaData, value: &[u8]) -> Option<bool> {
    let offset = u64::try_from(chunk.bloom_filter_offset()?).ok()?;
    let len = u64::try_from(chunk.bloom_filter_length()?).ok()?;
    let header = file.get_bytes(offset, HEADER_BYTES_MAX.min(len as usize)).ok()?;
    let bytes = bitset_bytes(&header)?;
    // The bits follow the header and end the filter.
    let start = len.checked_sub(bytes).filter(|start| *start <= HEADER_BYTES_MAX as u64)?;
    if bytes == 0 || bytes % BLOCK_BYTES != 0 {
        return None;
    }
    let hash = xxh64(value);
    let block = ((hash >> 32) * (bytes / BLOCK_BYTES)) >> 32;
    let bits = file.get_bytes(offset + start + block * BLOCK_BYTES, BLOCK_BYTES as usize).ok()?;
    let words = bits.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    Some(words.zip(SALT).all(|(word, salt)| word & (1 << ((hash as u32).wrapping_mul(salt) >> 27)) != 0))
}

/// Length of the bits, from the header: its first field, an i32 in Thrift's compact protocol.
fn bitset_bytes(header: &[u8]) -> Option<u64> {
    let [0x15, rest @ ..] = header else { return None };
    let mut value = 0u64;
    for (i, byte) in rest.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return (value & 1 == 0).then_some(value >> 1); // zigzag, and no length is negative
        }
    }
    None
}

const P1: u64 = 0x9e37_79b1_85eb_ca87;
const P2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const P3: u64 = 0x1656_67b1_9e37_79f9;
const P4: u64 = 0x85eb_ca77_c2b2_ae63;
const P5: u64 = 0x27d4_eb2f_1656_67c5;

fn round(sum: u64, word: u64) -> u64 {
    sum.wrapping_add(word.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// xxHash64 (Collet 2012) with seed 0.
fn xxh64(bytes: &[u8]) -> u64 {
    let mut rest = bytes;
    let mut hash = if bytes.len() < 32 {
        P5
    } else {
        let mut sums = [P1.wrapping_add(P2), P2, 0, 0u64.wrapping_sub(P1)];
        while let Some((stripe, after)) = rest.split_at_checked(32) {
            for (sum, lane) in sums.iter_mut().zip(stripe.chunks_exact(8)) {
                *sum = round(*sum, word(lane));
            }
            rest = after;
        }
        let turned = sums.iter().zip([1, 7, 12, 18]).fold(0u64, |all, (sum, by)| all.wrapping_add(sum.rotate_left(by)));
        sums.iter().fold(turned, |hash, sum| (hash ^ round(0, *sum)).wrapping_mul(P1).wrapping_add(P4))
    };
    hash = hash.wrapping_add(bytes.len() as u64);
    while let Some((lane, after)) = rest.split_at_checked(8) {
        hash = (hash ^ round(0, word(lane))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
        rest = after;
    }
    if let Some((half, after)) = rest.split_at_checked(4) {
        hash = (hash ^ word(half).wrapping_mul(P1)).rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
        rest = after;
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(P2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(P3);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{ArrayRef, RecordBatch, StringArray};
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::WriterProperties;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use std::sync::Arc;

    #[test]
    fn the_filter_of_the_parquet_writer_is_read_right() {
        let text = |i: usize| format!("{}{i:x}", "x".repeat(i % 71));
        let values: Vec<String> = (0..3000).map(text).collect();
        let column: ArrayRef = Arc::new(StringArray::from(values.clone()));
        let batch = RecordBatch::try_from_iter([("id", column)]).unwrap();
        let properties = WriterProperties::builder().set_bloom_filter_enabled(true).set_bloom_filter_fpp(0.01).build();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let bytes = Bytes::from(bytes);
        let reader = SerializedFileReader::new(bytes.clone()).unwrap();
        let chunk = reader.metadata().row_group(0).column(0);
        assert!(values.iter().all(|value| probe(&bytes, chunk, value.as_bytes()) == Some(true)));
        let absent = (3000..6000).filter(|i| probe(&bytes, chunk, text(*i).as_bytes()) == Some(true)).count();
        assert!(absent < 90, "{absent} of 3,000 absent values pass a filter that lets 1 % pass");
    }
}
