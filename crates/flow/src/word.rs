//! Short texts as two machine words, so that names are told apart without calls and loops.
//!
//! In: bytes. Out: two words that, with the length, are the same for the same text and, up to 16 bytes, for no other.
//! No memory.

/// The first and the last eight bytes of a text; of a shorter one all its bytes in the first word.
#[inline(always)]
pub fn words(text: &[u8]) -> (u64, u64) {
    if let (Some(first), Some(last)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        return (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
    }
    if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        return (u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32, 0);
    }
    match text {
        [] => (0, 0),
        [.., last] => (u64::from(text[0]) | u64::from(text[text.len() / 2]) << 8 | u64::from(*last) << 16, 0),
    }
}

/// Are two texts the same? Made for names: up to 64 bytes without a call.
#[inline(always)]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() || words(a) != words(b) {
        return false;
    }
    match a.len() {
        ..=16 => true,
        // The last eight bytes are the same already.
        17..=64 => a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0).all(|(a, b)| u64::from_ne_bytes(*a) == u64::from_ne_bytes(*b)),
        _ => a == b,
    }
}

/// Folded multiplication (the method of wyhash) over a text, from a hash so far. For tables: it is the same on every
/// machine, but no contract.
#[inline(always)]
pub fn hash(text: &[u8], so_far: u64) -> u64 {
    const K: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut hash = so_far ^ (text.len() as u64) << 56;
    if text.len() > 16 {
        // Some of the first and last bytes are then read twice.
        for word in text.as_chunks::<8>().0 {
            hash = fold(hash ^ u64::from_le_bytes(*word), K | 1);
        }
    }
    let (first, last) = words(text);
    fold(hash ^ first, 0xD6E8_FEB8_6659_FD93) ^ fold(last ^ K, hash | 1)
}

#[inline(always)]
pub fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_text_counts() {
        for length in 0..40 {
            let text: Vec<u8> = (0..length).map(|n| n as u8 * 7 + 1).collect();
            assert!(same(&text, &text.clone()));
            let longer = [&text[..], b"\0"].concat();
            assert!(!same(&text, &longer));
            assert_ne!(hash(&text, 3), hash(&longer, 3));
            for at in 0..length {
                let mut other = text.clone();
                other[at] ^= 0x40;
                assert!(!same(&text, &other), "byte {at} of {length}");
                assert_ne!(hash(&text, 3), hash(&other, 3), "byte {at} of {length}");
                assert!(length > 16 || words(&text) != words(&other), "byte {at} of {length}");
            }
        }
    }
}
