//! Hashes that are a contract: zap's slots, and those by which every node keeps the same keys and records.
//!
//! In: texts. Out: hashes. In FNV-1a each byte of a text waits for the one before it, 4 cycles, and nothing shortens that: so
//! messages are hashed side by side, and records, which are long, by another method. No memory.

use crate::word;

/// Texts that are hashed at once: two vectors of eight 16-bit numbers, on any machine.
pub const SIDE_BY_SIDE: usize = 16;

type Lanes = [u16; SIDE_BY_SIDE];

/// zap's slot of each text: FNV-1a-32 modulo 4096. Method: Fowler, Noll, Vo 1991. A hash modulo a power of two needs no
/// higher bits on its way, so 16 bits of state do.
///
/// Of fewer than [`SIDE_BY_SIDE`] texts the rest of the slots mean nothing.
pub fn slots(texts: &[&[u8]]) -> [u16; SIDE_BY_SIDE] {
    let mut all = [[].as_slice(); SIDE_BY_SIDE];
    all[..texts.len()].copy_from_slice(texts);
    // What a text has beyond a multiple of eight bytes comes first, then eight bytes of each at a time.
    let mut hashes = begin(&all);
    let blocks = all.map(|text| text.as_rchunks::<8>().1);
    let most = blocks.iter().map(|blocks| blocks.len()).max().unwrap_or(0);
    for number in 0..most {
        hashes = go_on(&hashes, &blocks, number);
    }
    hashes.map(|hash| hash % 4096)
}

/// One byte of each text.
#[inline(always)]
fn round(hashes: &Lanes, bytes: &Lanes) -> Lanes {
    const PRIME: u16 = 0x0193; // the low bits of 0x0100_0193
    std::array::from_fn(|n| (hashes[n] ^ bytes[n]).wrapping_mul(PRIME))
}

/// Takes what is chosen (all ones) from `yes`, and the rest (zeros) from `no`.
#[inline(always)]
fn choose(chosen: &Lanes, yes: &Lanes, no: &Lanes) -> Lanes {
    std::array::from_fn(|n| yes[n] & chosen[n] | no[n] & !chosen[n])
}

/// The first `len % 8` bytes of each text.
#[inline(always)]
fn begin(texts: &[&[u8]; SIDE_BY_SIDE]) -> Lanes {
    // They end where the word ends; the rounds before them are passed over.
    let words = texts.map(|text| {
        let rest = text.len() % 8;
        match text.first_chunk::<8>() {
            _ if rest == 0 => 0,
            Some(first) => u64::from_le_bytes(*first) << (64 - rest * 8),
            None => text.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)) << (64 - rest * 8),
        }
    });
    let rests = texts.map(|text| (text.len() % 8) as u16);
    let mut hashes = [0x9dc5; SIDE_BY_SIDE]; // the low bits of 0x811c_9dc5
    for byte in 0..8 {
        let is_text = rests.map(|rest| if rest > 7 - byte { u16::MAX } else { 0 });
        hashes = choose(&is_text, &round(&hashes, &words.map(|word| (word >> (8 * byte)) as u16 & 0xff)), &hashes);
    }
    hashes
}

/// Block number `number` of eight bytes behind them; a text that is over keeps its hash.
#[inline(always)]
fn go_on(before: &Lanes, blocks: &[&[[u8; 8]]; SIDE_BY_SIDE], number: usize) -> Lanes {
    let words = blocks.map(|blocks| blocks.get(number).map_or(0, |block| u64::from_le_bytes(*block)));
    let is_text = blocks.map(|blocks| if number < blocks.len() { u16::MAX } else { 0 });
    let mut hashes = *before;
    for pair in 0..4 {
        let pairs = words.map(|word| (word >> (16 * pair)) as u16);
        hashes = round(&hashes, &pairs.map(|pair| pair & 0xff));
        hashes = round(&hashes, &pairs.map(|pair| pair >> 8));
    }
    choose(&is_text, &hashes, before)
}

/// FNV-1a-64 with a final mix (Steele 2014), so that the top bits depend on every byte. Part of the contract:
/// every node and every release decides alike.
#[inline]
pub fn key_hash(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)))
}

/// The hash of a whole record; a contract like [`key_hash`]. Folded multiplication (the method of wyhash) in four lanes.
#[inline]
pub fn record_hash(record: &[u8]) -> u64 {
    const KEYS: [u64; 4] = [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db, 0x8ebc_6af0_9c88_c6e3, 0x5899_65cc_7537_4cc3];
    let mut lanes = KEYS;
    let (blocks, rest) = record.as_chunks::<64>();
    for block in blocks {
        for ((lane, key), words) in lanes.iter_mut().zip(KEYS).zip(block.as_chunks::<16>().0) {
            let word = u128::from_le_bytes(*words);
            *lane = word::fold(*lane ^ word as u64, key ^ (word >> 64) as u64);
        }
    }
    let [a, b, c, d] = lanes;
    mix(word::hash(rest, a ^ b.rotate_left(16) ^ c.rotate_left(32) ^ d.rotate_left(48) ^ record.len() as u64))
}

/// Makes every bit of a hash depend on every other.
#[inline]
pub fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fnv1a_32(text: &[u8]) -> u32 {
        text.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
    }

    #[test]
    fn eb_1_1_a_slot_is_fnv1a_modulo_4096() {
        assert_eq!([b"".as_slice(), b"a", b"foobar"].map(fnv1a_32), [0x811c_9dc5, 0xe40c_292c, 0xbf9c_f968]);
        let texts = [b"".as_slice(), b"a", b"foobar"];
        assert_eq!(slots(&texts)[..3], texts.map(|text| (fnv1a_32(text) % 4096) as u16));
    }

    #[test]
    fn what_nodes_decide_by_stays_as_it_is() {
        let record: Vec<u8> = (0..200).map(|n| n as u8 * 7 + 3).collect();
        let hashes = [0, 1, 8, 63, 64, 65, 200].map(|length| record_hash(&record[..length]));
        expect_test::expect![
            "e21dcd85bc87e4e8 5e461cec1f9093d7 6b6a489870b7474d 9c0266c8e6cba297 e738012d83756cf4 1f1ff387bcda40b4 b44d14f647d932cd"
        ]
        .assert_eq(&hashes.map(|hash| format!("{hash:016x}")).join(" "));
        expect_test::expect!["f52a15e9a9b5e89b 02c0bdbf481420f8 794bf729af036894"]
            .assert_eq(&[b"".as_slice(), b"a", b"req_0"].map(|key| format!("{:016x}", key_hash(key))).join(" "));
        for at in 0..record.len() {
            let mut other = record.clone();
            other[at] ^= 0x40;
            let apart = (record_hash(&record) ^ record_hash(&other)).count_ones();
            assert!((12..=52).contains(&apart), "byte {at}: {apart} of 64 bits differ");
        }
    }

    proptest! {
        #[test]
        fn eb_1_1_side_by_side_they_are_what_they_are_alone(texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..70), 0..=SIDE_BY_SIDE)) {
            let slices: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
            let want: Vec<u16> = slices.iter().map(|text| (fnv1a_32(text) % 4096) as u16).collect();
            prop_assert_eq!(&slots(&slices)[..texts.len()], &want[..]);
        }
    }
}
